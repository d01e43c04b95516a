package runner_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/json"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"lpad/agent/job"
	"lpad/agent/journal"
	"lpad/agent/orders/orderstest"
	"lpad/agent/rsp/rsptest/euicc"
	"lpad/agent/rsp/rsptest/smdp"
	"lpad/agent/runner"
	"lpad/internal/fault"
	"lpad/internal/redact"
)

// signed makes an order one that an operator's key has signed.
func signed(issuer string, serial int64) func(*job.Order) {
	return func(o *job.Order) { o.Issuer, o.Serial, o.Verified = issuer, serial, true }
}

func bound(t testing.TB, id string) func(*job.Order) {
	return func(o *job.Order) { o.Bound = iccid(t, id) }
}

func withParameters(o *job.Order) { o.Parameters = json.RawMessage(`{"version":1}`) }

// untouched checks that nothing was loaded, switched or told.
func (w *world) untouched(why string) {
	w.t.Helper()
	if w.enabled() != oldICCID || w.profiles() != oldICCID || len(w.card.Notifications()) != 0 || w.received() != "" {
		w.t.Errorf("%s: enabled %s, profiles %s, waiting %d, received %s", why, w.enabled(), w.profiles(), len(w.card.Notifications()), w.received())
	}
}

// refusedOrder submits what must be refused, and leaves no job behind.
func (l *life) refusedOrder(o job.Order, code string) error {
	l.w.t.Helper()
	jobs := len(l.Jobs())
	j, err := l.Submit(l.w.t.Context(), o, redact.Secret{})
	f := fault.Of(err)
	if f.Code != code || f.Who == "" || f.Next == "" || j.ID != "" || len(l.Jobs()) != jobs {
		l.w.t.Errorf("order %+v: %v (%+v), job %q; want %s", o, err, f, j.ID, code)
	}
	return err
}

// What must be signed and is not is refused before anything is done, also when
// the order is older than the rule.
func TestRequireSigned(t *testing.T) {
	w := newWorld(t, options{})
	old, err := journal.Open(w.path, journal.Options{})
	if err != nil {
		t.Fatal(err)
	}
	before := job.New("19990101-000000", order(enabling), time.Now().UTC())
	if err := old.PutJob(before); err != nil {
		t.Fatal(err)
	}
	if err := old.Close(); err != nil {
		t.Fatal(err)
	}
	require := runner.RequireAll
	w.change = func(c *runner.Config) { c.Require = require }
	l := w.live()
	l.fails(before.ID, "signed-order-needed")
	l.refusedOrder(order(), "signed-order-needed")
	l.refusedOrder(job.Order{Kind: job.Install, Source: job.SourceDefaultSMDP, Consent: true}, "signed-order-needed")
	o := about(t, job.Enable, newICCID)
	withParameters(&o)
	l.refusedOrder(o, "signed-order-needed")
	w.untouched("all must be signed")
	if calls := w.smdp.Calls(); len(calls) != 0 {
		t.Errorf("the server was asked: %+v", calls)
	}
	l.ends(l.submit(order(signed("fleet", 1), withParameters)).ID, job.Done)
	l.ends(l.submit(about(t, job.Enable, newICCID)).ID, job.Done) // brings nothing
	l.stop()

	require = runner.RequireParameters
	w.book("ORDER-2", spareICCID, nil)
	other := func(o *job.Order) { o.MatchingID = "ORDER-2" }
	l = w.live()
	l.refusedOrder(order(other, withParameters), "signed-order-needed")
	l.ends(l.submit(order(other)).ID, job.Done)
}

// A serial counts once for each issuer, over restarts too.
func TestReplay(t *testing.T) {
	w := newWorld(t, options{})
	l := w.live()
	j := l.ends(l.submit(order(signed("fleet", 7))).ID, job.Done)
	err := l.refusedOrder(order(signed("fleet", 7)), "signed-order-replayed")
	if !strings.Contains(err.Error(), j.ID) {
		t.Errorf("the job is not named: %v", err)
	}
	l.refusedOrder(order(signed("fleet", 6)), "signed-order-replayed")
	disable := about(t, job.Delete, newICCID)
	signed("fleet", 3)(&disable)
	l.refusedOrder(disable, "signed-order-replayed")
	if w.enabled() != oldICCID || !strings.Contains(w.profiles(), newICCID) {
		t.Errorf("something was done: enabled %s, profiles %s", w.enabled(), w.profiles())
	}
	l.stop()
	l = w.live()
	l.refusedOrder(order(signed("fleet", 7)), "signed-order-replayed")
	named := about(t, job.Nickname, newICCID)
	named.Nickname = "x"
	signed("other", 2)(&named)
	l.ends(l.submit(named).ID, job.Done) // another issuer counts for itself
	signed("fleet", 9)(&named)
	l.ends(l.submit(named).ID, job.Done)
	l.refusedOrder(order(signed("fleet", 8)), "signed-order-replayed") // skipped is not free
	want := []runner.Serial{{Issuer: "other", Serial: 2}, {Issuer: "fleet", Serial: 9}}
	got := l.View().Memory.Serials
	if len(got) != 2 || got[0].Issuer != want[0].Issuer || got[0].Serial != 2 || got[1].Issuer != "fleet" || got[1].Serial != 9 || got[1].Job == "" {
		t.Errorf("remembered %+v", got)
	}
}

// called reports whether a function of the runner is among the callers.
func called(name string) bool {
	pcs := make([]uintptr, 24)
	frames := runtime.CallersFrames(pcs[:runtime.Callers(2, pcs)])
	for {
		f, more := frames.Next()
		if strings.HasSuffix(f.Function, "(*Runner)."+name) {
			return true
		}
		if !more {
			return false
		}
	}
}

// Killed while an order is accepted: either nobody has heard of it, and it may
// be sent again, or it is carried out, and cannot be sent again. Never both,
// never neither.
func TestKilledWhileAccepting(t *testing.T) {
	for _, tc := range []struct {
		name, in string
		taken    bool
	}{
		{"before the record", "submit", false},
		{"between the record and the memory", "accepted", true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			w := newWorld(t, options{})
			var armed atomic.Bool
			w.now = func() time.Time {
				if armed.Load() && called(tc.in) && armed.CompareAndSwap(true, false) {
					crash()
				}
				return time.Now()
			}
			l := w.live()
			eventually(t, "the card is read", func() bool { return !l.View().FactsAt.IsZero() && l.View().CardErr == nil })
			armed.Store(true)
			if j, err := l.Submit(t.Context(), order(signed("fleet", 7)), redact.Secret{}); j.ID != "" {
				t.Fatalf("survived: %+v, %v", j, err)
			}
			l.wait()
			if armed.Load() {
				t.Fatal("was not killed")
			}
			l = w.live()
			jobs := l.Jobs()
			if taken := len(jobs) == 1; taken != tc.taken {
				t.Fatalf("%d jobs after the crash", len(jobs))
			}
			if tc.taken {
				l.refusedOrder(order(signed("fleet", 7)), "signed-order-replayed")
				l.ends(jobs[0].ID, job.Done)
			} else {
				w.untouched("nobody has heard of it")
				l.ends(l.submit(order(signed("fleet", 7))).ID, job.Done)
			}
			l.refusedOrder(order(signed("fleet", 7)), "signed-order-replayed")
			l.stop()
			l = w.live()
			l.refusedOrder(order(signed("fleet", 7)), "signed-order-replayed")
			if got, want := w.received(), "install 358"; got != want {
				t.Errorf("received %s, want %s", got, want)
			}
		})
	}
}

// cancelled returns what the server was told of the ends of sessions.
func (w *world) cancelled() (n int) {
	for _, c := range w.smdp.Calls() {
		if c.Function == smdp.CancelSession && c.Outcome == "ok" {
			n++
		}
	}
	return n
}

func (w *world) orderState() smdp.OrderState {
	o, ok := w.smdp.Order(matching)
	if !ok {
		w.t.Fatal("no order")
	}
	return o.State
}

// The profile must be the one of the order: another one is refused on both
// sides, and nothing of it is loaded.
func TestBound(t *testing.T) {
	w := newWorld(t, options{})
	l := w.live()
	j := l.fails(l.submit(order(signed("fleet", 1), bound(t, spareICCID), enabling)).ID, "signed-order-profile")
	w.untouched("another profile")
	if j.Problem.State != job.Authenticating || w.cancelled() != 1 || w.orderState() != smdp.Cancelled {
		t.Errorf("in %s; the server has heard of %d ends, order %s", j.Problem.State, w.cancelled(), w.orderState())
	}
	if strings.Contains(j.Problem.Text, newICCID) || strings.Contains(j.Problem.Text, spareICCID) {
		t.Errorf("an ICCID in full: %s", j.Problem.Text)
	}

	w.book("ORDER-2", spareICCID, nil)
	l.ends(l.submit(order(signed("fleet", 2), bound(t, spareICCID), func(o *job.Order) { o.MatchingID = "ORDER-2" })).ID, job.Done)
	if !strings.Contains(w.profiles(), spareICCID) {
		t.Errorf("profiles %s", w.profiles())
	}
}

// The card must be the one of the order, also when another was put in since.
func TestOtherCard(t *testing.T) {
	w := newWorld(t, options{})
	l := w.live()
	j := l.fails(l.submit(order(signed("fleet", 1), enabling, func(o *job.Order) { o.EID[3] = 9 })).ID, "signed-order-device")
	w.untouched("another card")
	if calls := w.smdp.Calls(); len(calls) != 0 || strings.Contains(j.Problem.Text, w.card.EID().String()) {
		t.Errorf("the server was asked: %+v; told %s", calls, j.Problem.Text)
	}
	l.ends(l.submit(order(signed("fleet", 2), func(o *job.Order) { o.EID = w.card.EID() })).ID, job.Done)
}

// smdpWorld is a world and the key of its server's CERT.DPauth.
func smdpWorld(t *testing.T) (*world, *ecdsa.PrivateKey) {
	t.Helper()
	var key *ecdsa.PrivateKey
	w := newWorld(t, options{smdp: func(c *smdp.Config) {
		s, err := c.Credentials[0].Auth.Key.Signer()
		if err != nil {
			t.Fatal(err)
		}
		key = s.(*ecdsa.PrivateKey)
	}})
	return w, key
}

// bySMDP makes an order one that the server has signed, or says so.
func bySMDP(t testing.TB, key *ecdsa.PrivateKey, serial int64) func(*job.Order) {
	jws, err := orderstest.Sign(key, "smdp", orderstest.Payload{Issuer: "smdp", Serial: serial, IssuedAt: 1, Expires: 2, Action: "install"})
	if err != nil {
		t.Fatal(err)
	}
	return func(o *job.Order) { o.Issuer, o.Serial, o.JWS = runner.SMDPIssuer(o.SMDP), serial, string(jws) }
}

func TestSignedBySMDP(t *testing.T) {
	w, key := smdpWorld(t)
	w.change = func(c *runner.Config) { c.Require = runner.RequireAll }
	stranger, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	l := w.live()
	j := l.fails(l.submit(order(bySMDP(t, stranger, 5), withParameters, enabling)).ID, "signed-order-signature")
	w.untouched("signed by a stranger")
	if j.Problem.State != job.Authenticating || w.cancelled() != 1 || w.orderState() == smdp.Cancelled || j.Order.Verified || len(l.View().Memory.Serials) != 0 {
		t.Errorf("in %s, %d ends, order %s, verified %v, serials %v", j.Problem.State, w.cancelled(), w.orderState(), j.Order.Verified, l.View().Memory.Serials)
	}

	// A forged order has cost nothing: the true one comes with the same serial.
	j = l.ends(l.submit(order(bySMDP(t, key, 5), withParameters)).ID, job.Done)
	if !j.Order.Verified || j.Order.JWS != "" {
		t.Errorf("%+v", j.Order)
	}
	w.book("ORDER-2", spareICCID, nil)
	again := order(bySMDP(t, key, 5), func(o *job.Order) { o.MatchingID = "ORDER-2" })
	l.refusedOrder(again, "signed-order-replayed")

	// Two with one serial that are both waiting: the first to be proven has it.
	again = order(bySMDP(t, key, 6), asking, func(o *job.Order) { o.MatchingID = "ORDER-2" })
	one := l.state(l.submit(again).ID, job.Consent)
	second := l.refusedOrder(order(bySMDP(t, key, 6), func(o *job.Order) { o.MatchingID = "ORDER-3" }), "signed-order-replayed")
	if !strings.Contains(second.Error(), one.ID) {
		t.Errorf("%v", second)
	}

	// After a restart the download begins anew, in a new session, and the job is
	// no replay of itself.
	l.stop()
	l = w.live()
	l.state(one.ID, job.Consent)
	eventually(t, "it can be answered", func() bool {
		_, err := l.Answer(t.Context(), one.ID, true, redact.Secret{})
		return err == nil
	})
	l.ends(one.ID, job.Done)
	if got, want := w.received(), "install 358, install 374"; got != want {
		t.Errorf("received %s, want %s", got, want)
	}
}

// Killed when the signature was found to be good, before it was recorded.
func TestKilledWhileBelieving(t *testing.T) {
	w, key := smdpWorld(t)
	var armed atomic.Bool
	w.now = func() time.Time {
		if armed.Load() && inLoop() && w.orderAsked() && armed.CompareAndSwap(true, false) {
			crash()
		}
		return time.Now()
	}
	armed.Store(true)
	l := w.live()
	j := l.submit(order(bySMDP(t, key, 5)))
	l.wait()
	w.untouched("killed before the load")
	l = w.live()
	if j = l.ends(j.ID, job.Done); !j.Order.Verified {
		t.Errorf("%+v", j.Order)
	}
	l.refusedOrder(order(bySMDP(t, key, 5)), "signed-order-replayed")
}

// orderAsked reports whether the server has made an offer.
func (w *world) orderAsked() bool {
	for _, c := range w.smdp.Calls() {
		if c.Function == smdp.AuthenticateClient && c.Outcome == "ok" {
			return true
		}
	}
	return false
}

// The list of issuers is bounded, and gives up servers before operators.
func TestSerialsAreBounded(t *testing.T) {
	var m runner.Memory
	m = m.Took("fleet", 5)
	m = m.Took(runner.SMDPIssuer("A.example"), 1)
	for i := range runner.MaxSerials {
		m = m.Took(runner.SMDPIssuer("b"+string(rune('a'+i%26))+string(rune('a'+i/26))+".example"), 1)
	}
	has := func(issuer string) bool {
		for _, s := range m.Serials {
			if s.Issuer == issuer {
				return true
			}
		}
		return false
	}
	if len(m.Serials) != runner.MaxSerials || !has("fleet") || has("smdp:a.example") {
		t.Errorf("%d entries, fleet %v, the oldest server %v", len(m.Serials), has("fleet"), has("smdp:a.example"))
	}
	if lower := m.Took("fleet", 4); len(lower.Serials) != len(m.Serials) || lower.Serials[0].Serial != 5 {
		t.Error("a serial went down")
	}
}

// shifting is a clock that a test moves.
type shifting struct{ by atomic.Int64 }

func (s *shifting) now() time.Time { return time.Now().Add(time.Duration(s.by.Load())) }

func (s *shifting) forward(d time.Duration) { s.by.Add(int64(d)) }

// A switch at a time waits without the card, survives a restart, is not counted
// as work that waits, and begins when its time has come.
func TestEnableAtATime(t *testing.T) {
	w := newWorld(t, options{})
	var clock shifting
	w.now = clock.now
	l := w.live()
	at := func(o *job.Order) { o.EnableAt = time.Now().Add(time.Hour) }
	j := l.state(l.submit(order(signed("fleet", 1), enabling, at)).ID, job.Scheduled)
	if got, want := w.received(), "install 358"; got != want || w.enabled() != oldICCID {
		t.Errorf("received %s, want %s; enabled %s", got, want, w.enabled())
	}
	if v := l.View(); v.Active != "" || v.State != runner.Ready {
		t.Errorf("active %q, state %s", v.Active, v.State)
	}
	if channels := w.card.OpenChannels(); len(channels) != 0 {
		t.Errorf("the card is held: %v", channels)
	}
	named := about(t, job.Nickname, newICCID)
	named.Nickname = "x"
	l.ends(l.submit(named).ID, job.Done)
	if got := l.state(j.ID, job.Scheduled); len(got.Timeline) != len(j.Timeline) {
		t.Errorf("it moved: %s", states(got))
	}
	l.stop()

	l = w.live()
	eventually(t, "the card is read", func() bool { return l.View().State == runner.Ready })
	l.ends(l.submit(named).ID, job.Done)
	if got := l.state(j.ID, job.Scheduled); !got.Order.EnableAt.Equal(j.Order.EnableAt) || w.enabled() != oldICCID {
		t.Errorf("after a restart: %+v, enabled %s", got, w.enabled())
	}
	clock.forward(2 * time.Hour)
	l.ends(j.ID, job.Done)
	if w.enabled() != newICCID {
		t.Errorf("enabled %s", w.enabled())
	}
	w.settled()
	if got, want := w.received(), "install 358, disable 341, enable 358"; got != want {
		t.Errorf("received %s, want %s", got, want)
	}

	// The time was over when the device was off.
	back := about(t, job.Enable, oldICCID)
	back.EnableAt = clock.now().Add(time.Hour)
	id := l.state(l.submit(back).ID, job.Scheduled).ID
	l.stop()
	clock.forward(2 * time.Hour)
	l = w.live()
	l.ends(id, job.Done)

	// Taken back in time.
	back = about(t, job.Enable, newICCID)
	back.EnableAt = clock.now().Add(time.Hour)
	id = l.state(l.submit(back).ID, job.Scheduled).ID
	if _, err := l.Abort(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	l.ends(id, job.Cancelled)
	clock.forward(2 * time.Hour)
	l.ends(l.submit(named).ID, job.Done)
	if w.enabled() != oldICCID {
		t.Errorf("enabled %s", w.enabled())
	}
}

// A first profile that is being tried again gives way to a switch when its time
// has come, and not before.
func TestRetryingGivesWayInTime(t *testing.T) {
	w := newWorld(t, options{empty: true})
	var clock shifting
	w.now = clock.now
	w.network = noNetwork{}
	l := w.live()
	w.book("ORDER-2", spareICCID, nil)
	l.ends(l.submit(order(func(o *job.Order) { o.MatchingID = "ORDER-2" })).ID, job.Done)
	later := about(t, job.Enable, spareICCID)
	later.EnableAt = time.Now().Add(time.Hour)
	waits := l.state(l.submit(later).ID, job.Scheduled).ID
	first := l.submit(order(enabling)).ID
	l.until(first, "retrying for the third time", func(j job.Job) bool { return j.State == job.Retrying && j.Retries > 2 })
	clock.forward(2 * time.Hour)
	l.fails(first, "first-profile-offline")
	l.until(waits, "begun", func(j job.Job) bool { return j.State != job.Scheduled })
}

// A device that has the time from its modem alone asks for it when it has been
// restarted, or a switch at a time would never begin.
func TestScheduleAsksForTheTime(t *testing.T) {
	w := newWorld(t, options{})
	unset := func() time.Time { return time.Unix(1000, 0) }
	var clock shifting
	var known atomic.Bool
	w.now = unset
	w.change = func(c *runner.Config) {
		c.Time = func() time.Time {
			if known.Load() {
				return clock.now()
			}
			return unset()
		}
		c.ClockReady = func(context.Context) bool { known.Store(true); return true }
	}
	l := w.live()
	l.ends(l.submit(order()).ID, job.Done)
	o := about(t, job.Enable, newICCID)
	o.EnableAt = time.Now().Add(time.Hour)
	j := l.state(l.submit(o).ID, job.Scheduled)
	l.stop()
	known.Store(false)
	clock.forward(2 * time.Hour)
	w.live().ends(j.ID, job.Done)
}

// Whatever the clock said when the order came: the best time there is decides.
func TestScheduleByTheBestTime(t *testing.T) {
	w := newWorld(t, options{})
	var clock shifting
	w.change = func(c *runner.Config) { c.Time = clock.now }
	w.now = func() time.Time { return time.Unix(1000, 0) } // a system that was never told
	l := w.live()
	l.ends(l.submit(order()).ID, job.Done)
	o := about(t, job.Enable, newICCID)
	o.EnableAt = time.Now().Add(time.Hour)
	j := l.state(l.submit(o).ID, job.Scheduled)
	clock.forward(2 * time.Hour)
	l.ends(j.ID, job.Done)
}

// What is required counts when the device is about to be changed, too: an order
// that waited while the policy became stricter is refused then, and nothing of it
// is applied.
func TestRequiredWhenItsTurnComes(t *testing.T) {
	for _, tc := range []struct {
		require, code string
		parameters    string
	}{
		{runner.RequireNone, "", `{"version":1}`},
		{runner.RequireParameters, "", ""},
		{runner.RequireParameters, "signed-order-needed", `{"version":1}`},
		{runner.RequireAll, "signed-order-needed", `{"version":1}`},
	} {
		w := newWorld(t, options{card: func(c *euicc.Config) {
			c.Profiles = append(c.Profiles, euicc.Profile{ICCID: iccid(t, spareICCID), IMSI: "001010123456780"})
		}})
		w.change = func(c *runner.Config) {
			c.Require = tc.require
			o := about(t, job.Enable, spareICCID)
			if tc.parameters != "" {
				o.Parameters = json.RawMessage(tc.parameters)
			}
			if err := c.Journal.PutJob(job.New("before", o, time.Now().UTC())); err != nil {
				t.Fatal(err)
			}
		}
		l := w.live()
		if tc.code == "" {
			l.ends("before", job.Done)
			continue
		}
		if l.fails("before", tc.code); w.enabled() != oldICCID || len(l.View().Memory.Staged) != 0 {
			t.Errorf("%s: enabled %s, %+v", tc.require, w.enabled(), l.View().Memory.Staged)
		}
	}
}
