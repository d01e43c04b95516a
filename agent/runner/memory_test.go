package runner_test

import (
	"context"
	"strings"
	"sync/atomic"
	"testing"

	"lpad/agent/job"
	"lpad/agent/procedure"
	"lpad/agent/rsp/es10"
	"lpad/agent/rsp/rsptest/euicc"
	"lpad/agent/switchover"
	"lpad/internal/fault"
	"lpad/internal/redact"
	"lpad/modem"
)

// unsteady is a network on which a link comes up after some tries.
type unsteady struct {
	switchover.Direct
	failing *atomic.Int32
}

func (u unsteady) Connect(context.Context, string) (modem.Link, error) {
	if u.failing.Add(-1) >= 0 {
		return modem.Link{}, fault.New(fault.Fault{Code: "no-bearer", Text: "the network refuses the connection", Retry: true, Who: fault.Operator}, nil)
	}
	return modem.Link{}, nil
}

func failing(times int32) unsteady {
	u := unsteady{failing: &atomic.Int32{}}
	u.failing.Store(times)
	return u
}

func automatic(o job.Order) job.Order {
	o.Automatic = true
	return o
}

// quarantine is the list in short.
func (l *life) quarantine() string {
	var list []string
	for _, q := range l.View().Memory.Quarantine {
		list = append(list, q.ICCID.String()[17:]+" "+q.Code+" "+strings.Repeat("|", q.Attempts))
	}
	return strings.Join(list, ", ")
}

// A profile whose switch was taken back is remembered, over a restart as well.
// A person may try it again, a rule may not.
func TestQuarantine(t *testing.T) {
	w := newWorld(t, options{})
	w.network = failing(2)
	l := w.live()
	l.fails(l.submit(order(enabling)).ID, "no-bearer")
	if got := l.quarantine(); got != "358 no-bearer |" {
		t.Errorf("quarantine %q", got)
	}
	_, err := l.Submit(t.Context(), automatic(about(t, job.Enable, newICCID)), redact.Secret{})
	wantCode(t, err, "profile-quarantined")
	l.stop()

	l = w.live()
	j := l.fails(l.submit(about(t, job.Enable, newICCID)).ID, "no-bearer")
	if got := states(j); !strings.Contains(got, "gating (the profile is quarantined (no-bearer); attempt 2)") {
		t.Errorf("way %s", got)
	}
	if got := l.quarantine(); got != "358 no-bearer ||" {
		t.Errorf("quarantine %q", got)
	}
	l.ends(l.submit(about(t, job.Enable, newICCID)).ID, job.Done) // the network does by now
	if got := l.quarantine(); got != "" || w.enabled() != newICCID {
		t.Errorf("quarantine %q after a proven switch to %s", got, w.enabled())
	}
	l.ends(l.submit(automatic(about(t, job.Enable, oldICCID))).ID, job.Done)
}

func TestQuarantineEndsWithTheProfile(t *testing.T) {
	w := newWorld(t, options{})
	w.network = noNetwork{}
	l := w.live()
	l.fails(l.submit(order(enabling)).ID, "no-bearer")
	l.ends(l.submit(about(t, job.Delete, newICCID)).ID, job.Done)
	if got := l.quarantine(); got != "" {
		t.Errorf("quarantine %q", got)
	}
	// What is installed by a rule is in quarantine as what is enabled by one.
	w.book("ORDER-2", newICCID, nil)
	second := order(enabling, func(o *job.Order) { o.MatchingID = "ORDER-2" })
	l.fails(l.submit(second).ID, "no-bearer")
	l.fails(l.submit(automatic(about(t, job.Nickname, spareICCID))).ID, "profile-not-found")
	if got := l.quarantine(); got != "358 no-bearer |" {
		t.Errorf("quarantine %q", got)
	}
}

// A kill between what is remembered and what the journal says of the job counts
// nothing twice.
func TestQuarantineCountsOnce(t *testing.T) {
	w := newWorld(t, options{})
	w.network = failing(1)
	w.onStep(job.Notifying, crash)
	l := w.live()
	l.submit(order(enabling))
	l.wait()
	w.onLog(nil)
	l = w.live()
	id := l.Jobs()[0].ID
	l.ends(id, job.Failed)
	if got := l.quarantine(); got != "358 no-bearer |" {
		t.Errorf("quarantine %q", got)
	}
}

// The one profile that is known to work cannot be given up by mistake.
func TestLastKnownGood(t *testing.T) {
	w := newWorld(t, options{})
	w.network = failing(0)
	l := w.live()
	if p := l.View().Memory.Proven; !p.ICCID.IsZero() {
		t.Errorf("proven before any switch: %+v", p)
	}
	queued := l.submit(order(enabling))
	late := l.submit(about(t, job.Disable, newICCID)) // nothing is known against it yet
	l.ends(queued.ID, job.Done)
	l.fails(late.ID, "last-known-good")
	if p := l.View().Memory.Proven; p.ICCID.String() != newICCID || p.EID.IsZero() || p.At.IsZero() {
		t.Errorf("proven %+v", p)
	}
	l.stop()

	w.network = failing(1)
	l = w.live()
	for _, kind := range []job.Kind{job.Disable, job.Delete} {
		_, err := l.Submit(t.Context(), about(t, kind, newICCID), redact.Secret{})
		wantCode(t, err, "last-known-good")
	}
	l.fails(l.submit(about(t, job.Enable, oldICCID)).ID, "no-bearer")
	if p := l.View().Memory.Proven; p.ICCID.String() != newICCID || w.enabled() != newICCID {
		t.Errorf("proven %+v, enabled %s", p, w.enabled())
	}
	back := about(t, job.Enable, oldICCID)
	back.DeleteOld = true
	l.ends(l.submit(back).ID, job.Done)
	if w.profiles() != oldICCID {
		t.Errorf("profiles %s", w.profiles())
	}
}

// A card that goes back by itself is reported once, shown as long as it is so,
// and not fought.
func TestFallbackOfTheCard(t *testing.T) {
	w := newWorld(t, options{})
	l := w.live()
	l.ends(l.submit(order(enabling)).ID, job.Done)
	w.settled()
	l.stop()
	c, err := cards{w.card}.Open(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := procedure.Enable(t.Context(), c, iccid(t, oldICCID), es10.NoRefresh); err != nil {
		t.Fatal(err)
	}
	if err := c.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	told := func(l *life) (n int) {
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		for e := range l.Watch(ctx, 0) {
			if e.Type == "card" {
				n++
			}
		}
		return n
	}
	for i, want := range []int{1, 0} {
		l = w.live()
		if _, err := l.Refresh(t.Context(), 0); err != nil {
			t.Fatal(err)
		}
		v := l.View()
		if len(v.Warnings) != 1 || !strings.Contains(v.Warnings[0], "went back to the profile 89000…41 by itself") {
			t.Errorf("life %d: warnings %q", i, v.Warnings)
		}
		if n := told(l); n != want || len(l.Jobs()) != 1 || w.enabled() != oldICCID {
			t.Errorf("life %d: told %d times, %d jobs, enabled %s", i, n, len(l.Jobs()), w.enabled())
		}
		if i == 0 {
			l.stop()
		}
	}
	l.ends(l.submit(about(t, job.Enable, newICCID)).ID, job.Done) // by a person
	if v := l.View(); len(v.Warnings) != 0 {
		t.Errorf("warnings %q", v.Warnings)
	}
}

// A card that goes back at every reset cannot be switched: that is said, once a
// person tries, and the device stays on the profile that it insists on.
func TestCardThatInsists(t *testing.T) {
	w := newWorld(t, options{card: func(c *euicc.Config) { c.Quirks.RevertTo = iccid(t, oldICCID) }})
	l := w.live()
	j := l.fails(l.submit(order(enabling)).ID, "card-fell-back")
	if j.Problem.State != job.Rereading || w.enabled() != oldICCID || l.quarantine() != "358 card-fell-back |" || len(l.View().Warnings) != 0 {
		t.Errorf("problem %+v, enabled %s, quarantine %q, warnings %q", j.Problem, w.enabled(), l.quarantine(), l.View().Warnings)
	}
}

// The first profile of a device has nothing behind it: it stays enabled and is
// tried again, until it works, or somebody wants something else.
func TestFirstProfile(t *testing.T) {
	t.Run("comes online", func(t *testing.T) {
		w := newWorld(t, options{empty: true})
		w.network = failing(3)
		l := w.live()
		j := l.ends(l.submit(order(enabling)).ID, job.Done)
		want := "verifying, retrying (no-bearer), retrying (no-bearer), retrying (no-bearer), committing, confirming, done"
		if got := states(j); !strings.HasSuffix(got, want) || j.Problem != nil || w.enabled() != newICCID {
			t.Errorf("way %s, problem %v, enabled %s", got, j.Problem, w.enabled())
		}
		if p := l.View().Memory.Proven; p.ICCID.String() != newICCID {
			t.Errorf("proven %+v", p)
		}
	})
	t.Run("after a restart", func(t *testing.T) {
		w := newWorld(t, options{empty: true})
		w.network = failing(1 << 20)
		w.onStep(job.Retrying, crash)
		l := w.live()
		id := l.submit(order(enabling)).ID
		l.wait()
		w.onLog(nil)
		w.network = failing(0)
		w.live().ends(id, job.Done)
	})
	t.Run("something else waits already", func(t *testing.T) {
		w := newWorld(t, options{empty: true})
		w.network = failing(1 << 20)
		l := w.live()
		first := l.submit(order(enabling))
		l.ends(l.submit(about(t, job.Nickname, newICCID)).ID, job.Done)
		if j := l.fails(first.ID, "first-profile-offline"); !strings.Contains(states(j), "committing (something else was ordered)") {
			t.Errorf("way %s", states(j))
		}
	})
	for name, end := range map[string]func(*life, string) error{
		"aborted": func(l *life, id string) error { _, err := l.Abort(context.Background(), id); return err },
		"something else is ordered": func(l *life, _ string) error {
			named := about(l.w.t, job.Nickname, newICCID)
			named.Nickname = "first"
			l.ends(l.submit(named).ID, job.Done)
			return nil
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, options{empty: true})
			w.network = failing(1 << 20)
			l := w.live()
			id := l.submit(order(enabling)).ID
			l.until(id, "trying again", func(j job.Job) bool { return j.Retries > 1 })
			if err := end(l, id); err != nil {
				t.Fatal(err)
			}
			l.fails(id, "first-profile-offline")
			v := l.View()
			if w.enabled() != newICCID || !v.Memory.Proven.ICCID.IsZero() || l.quarantine() != "" || len(v.Warnings) != 0 {
				t.Errorf("enabled %s, memory %+v, warnings %q", w.enabled(), v.Memory, v.Warnings)
			}
			w.settled()
			if got, want := w.received(), "install 358, enable 358"; got != want {
				t.Errorf("received %s, want %s", got, want)
			}
		})
	}
}

var _ switchover.Network = unsteady{}
