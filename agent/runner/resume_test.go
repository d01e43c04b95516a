package runner_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"lpad/agent/job"
	"lpad/agent/journal"
	"lpad/agent/procedure"
	"lpad/agent/rsp/rsptest/euicc"
	"lpad/agent/rsp/rsptest/smdp"
	"lpad/agent/runner"
	"lpad/internal/fault"
)

// death is a way for a daemon to end in the middle of a job.
type death struct {
	name  string
	power bool // the card loses its power too
	arm   func(w *world, l func() *life, s job.State)
}

// deaths are the three instants at which a journalled step can be left: before
// its action has begun, in the middle of it, and when it is done and nothing
// says so. The first and the last are what a power cut does.
var deaths = []death{
	{"before the action", false, dieBefore},
	{"before the action, card reset", true, dieBefore},
	{"stopped in the action", false, stopIn},
	{"after the action", false, dieAfter},
	{"after the action, card reset", true, dieAfter},
}

func dieBefore(w *world, _ func() *life, s job.State) { w.onStep(s, crash) }

func stopIn(w *world, l func() *life, s job.State) { w.onStep(s, func() { l().cancel() }) }

func dieAfter(w *world, l func() *life, s job.State) {
	armed := true
	w.now = func() time.Time {
		if armed && inLoop() {
			for _, j := range l().View().Jobs {
				if j.State == s {
					armed = false
					crash()
				}
			}
		}
		return time.Now()
	}
}

// onStep calls f in the loop when a job has entered a state, once.
func (w *world) onStep(s job.State, f func()) {
	w.onLog(func(msg string, attrs map[string]string) {
		if msg == "step" && attrs["state"] == string(s) {
			w.onLog(nil)
			f()
		}
	})
}

func TestResume(t *testing.T) {
	install := func(l *life) job.Job { return l.submit(order(enabling, deleteOld)) }
	installed := []job.State{job.Queued, job.Authenticating, job.Preparing, job.Loading, job.Reporting, job.Snapshotting, job.Gating, job.Enabling, job.Applying,
		job.Rereading, job.Verifying, job.Committing, job.Confirming, job.Deleting, job.Notifying}
	for _, story := range []struct {
		name     string
		states   []job.State
		prepare  func(*world)
		begin    func(*life) job.Job
		end      job.State
		code     string
		enabled  string
		profiles string
		received string
	}{
		{name: "switch", states: installed, begin: install, end: job.Done, enabled: newICCID, profiles: newICCID,
			received: "install 358, disable 341, enable 358, delete 341"},
		{name: "rollback", states: []job.State{job.Verifying, job.RollingBack, job.Notifying}, prepare: func(w *world) { w.network = noNetwork{} }, begin: install,
			end: job.Failed, code: "no-bearer", enabled: oldICCID, profiles: oldICCID + " " + newICCID,
			received: "install 358, disable 341, enable 358, disable 358, enable 341"},
		{name: "disable", states: []job.State{job.Disabling, job.Notifying}, begin: func(l *life) job.Job { return l.submit(about(t, job.Disable, oldICCID)) },
			end: job.Done, enabled: "none", profiles: oldICCID, received: "disable 341"},
		{name: "rename", states: []job.State{job.Renaming}, begin: func(l *life) job.Job {
			o := about(t, job.Nickname, oldICCID)
			o.Nickname = "spare"
			return l.submit(o)
		}, end: job.Done, enabled: oldICCID, profiles: oldICCID},
		{name: "cancel", states: []job.State{job.Cancelling}, begin: func(l *life) job.Job {
			j := l.submit(order(asking))
			l.state(j.ID, job.Consent)
			_ = l.answer(j.ID, false, "") // the daemon may die of it
			return j
		}, end: job.Failed, code: "consent-refused", enabled: oldICCID, profiles: oldICCID},
	} {
		for _, s := range story.states {
			for _, d := range deaths {
				if s == job.Queued && !strings.HasPrefix(d.name, "after") {
					continue // nothing is stepped into
				}
				t.Run(fmt.Sprintf("%s/%s/%s", story.name, s, d.name), func(t *testing.T) {
					w := newWorld(t, options{})
					if story.prepare != nil {
						story.prepare(w)
					}
					var first *life
					ready := make(chan struct{})
					d.arm(w, func() *life { <-ready; return first }, s)
					first = w.live()
					close(ready)
					j := story.begin(first)
					first.wait()
					if d.power {
						w.card.Reset()
					}
					w.onLog(nil)
					w.now = nil
					second := w.live()
					j = second.ends(j.ID, story.end)
					if story.code != "" && j.Problem.Code != story.code {
						t.Errorf("problem %+v, want %s", j.Problem, story.code)
					}
					w.settled()
					if w.enabled() != story.enabled || w.profiles() != story.profiles || w.received() != story.received {
						t.Errorf("enabled %s, want %s\nprofiles %s, want %s\nreceived %s, want %s\nway %s",
							w.enabled(), story.enabled, w.profiles(), story.profiles, w.received(), story.received, states(j))
					}
					if visible, ok := w.card.VisibleICCID(); ok && visible.String() != story.enabled && story.name != "disable" {
						t.Errorf("the modem sees %s", visible)
					}
				})
			}
		}
	}
}

// A person's consent is asked for again, and so is a confirmation code, which
// is nowhere on disk.
func TestResumeAsksAgain(t *testing.T) {
	w := newWorld(t, options{order: func(o *smdp.Order) { o.ConfirmationCode = "4711" }})
	l := w.live()
	waiting := l.submit(order(asking), "4711")
	l.state(waiting.ID, job.Consent)
	queued := l.submit(order(func(o *job.Order) { o.MatchingID = "ORDER-2" }), "4712")
	w.book("ORDER-2", "89000123456789012366", func(o *smdp.Order) { o.ConfirmationCode = "4712" })
	l.stop()

	// While the card is away the job waits for it, and says so when somebody
	// answers what it has not asked yet.
	w.card.CutPower()
	l = w.live()
	eventually(t, "the card is missed", func() bool { return l.View().CardErr != nil })
	wantCode(t, l.answer(waiting.ID, true, "4711"), "resuming")
	if v := l.View(); v.Active != waiting.ID {
		t.Errorf("active %q", v.Active)
	}
	w.card.Reset()
	l.until(waiting.ID, "asking again", func(j job.Job) bool { return j.State == job.Consent && len(j.Timeline) > 3 })
	wantCode(t, l.answer(waiting.ID, true, ""), "confirmation-code-missing")
	if err := l.answer(waiting.ID, true, "4711"); err != nil {
		t.Fatal(err)
	}
	l.ends(waiting.ID, job.Done)
	l.state(queued.ID, job.Consent) // consented to, but without its code
	if err := l.answer(queued.ID, true, "4712"); err != nil {
		t.Fatal(err)
	}
	l.ends(queued.ID, job.Done)
}

// An abort is a promise: it holds although the daemon is stopped before the
// action under way has noticed, and while a job waits for its card.
func TestAbortThatIsStopped(t *testing.T) {
	t.Run("before the action ends", func(t *testing.T) {
		w := newWorld(t, options{})
		l := w.live()
		w.onStep(job.Authenticating, func() {
			resume := w.card.Stall() // the action hangs in its APDU
			go func() {
				if _, err := l.Abort(context.Background(), l.View().Jobs[0].ID); err != nil {
					t.Error(err)
				}
				l.cancel()
				resume()
			}()
		})
		j := l.submit(order())
		l.wait()
		l = w.live()
		if j = l.ends(j.ID, job.Cancelled); !j.Aborted {
			t.Errorf("job %+v", j)
		}
	})
	t.Run("while resuming", func(t *testing.T) {
		w := newWorld(t, options{})
		l := w.live()
		j := l.submit(order(asking))
		l.state(j.ID, job.Consent)
		l.stop()
		w.card.CutPower()
		l = w.live()
		eventually(t, "the card is missed", func() bool { return l.View().CardErr != nil })
		if _, err := l.Abort(t.Context(), j.ID); err != nil {
			t.Fatal(err)
		}
		l.ends(j.ID, job.Cancelled)
	})
}

// A switch is not given up because the card takes its time to come back, and
// not because the calendar was set meanwhile.
func TestResumeOfASwitch(t *testing.T) {
	w := newWorld(t, options{})
	l := w.live()
	w.onStep(job.Applying, func() { l.cancel() })
	j := l.submit(order(enabling))
	l.wait()
	w.card.CutPower()
	w.now = func() time.Time { return time.Now().Add(10 * 365 * 24 * time.Hour) }
	l = w.live()
	eventually(t, "the card is missed", func() bool { return l.View().CardErr != nil })
	w.card.Reset()
	l.ends(j.ID, job.Done)
	if w.enabled() != newICCID {
		t.Errorf("enabled %s", w.enabled())
	}
}

// The dead-man time ends a switch that hangs.
func TestDeadMan(t *testing.T) {
	w := newWorld(t, options{})
	w.change = func(c *runner.Config) { c.DeadMan = 300 * time.Millisecond }
	w.network = hanging{}
	l := w.live()
	j := l.fails(l.submit(order(enabling)).ID, "timeout")
	if j.Problem.State != job.Verifying || w.enabled() != oldICCID {
		t.Errorf("problem %+v, enabled %s", j.Problem, w.enabled())
	}
}

// A card that breaks off in the middle of the package, or of an answer that
// matters, is asked what became of it.
func TestLostAnswers(t *testing.T) {
	const (
		enableProfile = 0xBF31
		deleteProfile = 0xBF33
		setNickname   = 0xBF29
		loadPackage   = 0xBF36
	)
	for _, tc := range []struct {
		name  string
		fault euicc.Fault
		order func() job.Order
		code  string // "" done
	}{
		{"enable", euicc.Fault{Do: euicc.LoseAnswer, Function: enableProfile}, func() job.Order { return order(enabling) }, ""},
		{"enable, not arrived", euicc.Fault{Do: euicc.LoseCommand, Function: enableProfile}, func() job.Order { return order(enabling) }, "outcome-unknown"},
		{"enable, power cut", euicc.Fault{Do: euicc.CutPowerAfter, Function: enableProfile}, func() job.Order { return order(enabling) }, ""},
		{"last block of the package", euicc.Fault{Do: euicc.LoseAnswer, BPPByte: 3000}, func() job.Order { return order() }, "installation-interrupted"},
		{"delete", euicc.Fault{Do: euicc.LoseAnswer, Function: deleteProfile}, func() job.Order { return about(t, job.Delete, spareICCID) }, ""},
		{"nickname", euicc.Fault{Do: euicc.LoseAnswer, Function: setNickname}, func() job.Order {
			o := about(t, job.Nickname, spareICCID)
			o.Nickname = "x"
			return o
		}, ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			w := newWorld(t, options{card: func(c *euicc.Config) {
				c.Profiles = append(c.Profiles, euicc.Profile{ICCID: iccid(t, spareICCID), IMSI: "001010123456780"})
			}})
			l := w.live()
			if _, err := l.Refresh(t.Context(), time.Hour); err != nil {
				t.Fatal(err)
			}
			w.card.Inject(tc.fault)
			stop := make(chan struct{})
			revived := make(chan struct{})
			go func() { // a reader that finds its card again
				defer close(revived)
				for {
					select {
					case <-stop:
						return
					case <-time.After(10 * time.Millisecond):
						if !w.card.HasPower() {
							w.card.Reset()
						}
					}
				}
			}()
			defer func() { close(stop); <-revived }()
			j := l.submit(tc.order())
			if tc.code == "" {
				l.ends(j.ID, job.Done)
			} else {
				l.fails(j.ID, tc.code)
				if w.enabled() != oldICCID {
					t.Errorf("enabled %s", w.enabled())
				}
			}
			w.settled()
		})
	}
}

// What a deletion of before a restart has come to is the card's word about that
// profile, not a list in which the profile is not: a card that was just reset may
// answer with none.
func TestDeletionIsNotConcludedFromAnEmptyList(t *testing.T) {
	w := newWorld(t, options{card: func(c *euicc.Config) {
		c.Profiles = append(c.Profiles, euicc.Profile{ICCID: iccid(t, spareICCID), IMSI: "001010123456780"})
	}})
	w.onStep(job.Deleting, crash)
	l := w.live()
	j := l.submit(about(t, job.Delete, spareICCID))
	l.wait()
	w.onLog(nil)
	w.card.Inject(euicc.Fault{Do: euicc.TamperAnswer, Function: 0xBF2D, Times: -1, Tamper: func([]byte) []byte { return []byte{0xBF, 0x2D, 2, 0xA0, 0} }})
	w.live().ends(j.ID, job.Done)
	if w.profiles() != oldICCID {
		t.Errorf("profiles %s", w.profiles())
	}
}

// A daemon that was killed while a package was loaded, and whose card still
// has the session, cancels it on both sides before it begins anew.
func TestInterruptedSessionIsCancelledOnBothSides(t *testing.T) {
	w := newWorld(t, options{})
	w.onStep(job.Loading, crash)
	l := w.live()
	j := l.submit(order())
	l.wait()
	w.onLog(nil)
	w.live().ends(j.ID, job.Done)
	var list []string
	for _, c := range w.smdp.Calls() {
		list = append(list, string(c.Function))
	}
	want := "initiateAuthentication authenticateClient getBoundProfilePackage cancelSession initiateAuthentication authenticateClient getBoundProfilePackage handleNotification"
	if got := strings.Join(list, " "); got != want {
		t.Errorf("the server was asked %s, want %s", got, want)
	}
	w.settled()
}

// An order that was accepted before the power went is carried out when the
// device is back, though its modem takes longer to come than lpad does.
func TestQueuedOrderWaitsForTheCard(t *testing.T) {
	for _, abort := range []bool{false, true} {
		w := newWorld(t, options{})
		jr, err := journal.Open(w.path, journal.Options{})
		if err != nil {
			t.Fatal(err)
		}
		j := job.New("before", about(t, job.Nickname, oldICCID), time.Now())
		j.Order.Nickname = "spare"
		if err := errors.Join(jr.PutJob(j), jr.Close()); err != nil {
			t.Fatal(err)
		}
		w.card.CutPower()
		l := w.live()
		eventually(t, "the card is missed", func() bool { return l.View().CardErr != nil })
		if abort {
			if _, err := l.Abort(t.Context(), j.ID); err != nil {
				t.Fatal(err)
			}
			l.ends(j.ID, job.Cancelled)
			continue
		}
		l.stop() // stopped while it waits: it waits again
		l = w.live()
		eventually(t, "the card is missed", func() bool { return l.View().CardErr != nil })
		if now, err := l.Job(j.ID); err != nil || now.State != job.Queued {
			t.Errorf("the order is %s, %v", now.State, err)
		}
		w.card.Reset()
		l.ends(j.ID, job.Done)
	}
}

// offline is servers that there is no way to at first.
type offline struct {
	servers
	tries atomic.Int32
}

func (o *offline) OpenServer(address string, way runner.Way) (procedure.Server, error) {
	if o.tries.Add(-1) >= 0 {
		return nil, fault.New(fault.Fault{Code: "no-network", Retry: true, Who: fault.Device}, nil)
	}
	return o.servers.OpenServer(address, way)
}

// A device that was off in the middle of a download has no network when lpad
// goes on: the download waits for it, and a new one does not.
func TestDownloadOfBeforeWaitsForTheNetwork(t *testing.T) {
	w := newWorld(t, options{})
	w.onStep(job.Preparing, crash)
	l := w.live()
	j := l.submit(order())
	l.wait()
	w.card.Reset()
	w.onLog(nil)
	o := &offline{servers: servers{&w.client}}
	o.tries.Store(3)
	w.change = func(c *runner.Config) { c.Servers = o }
	l = w.live()
	l.ends(j.ID, job.Done)
	o.tries.Store(1)
	w.book("ORDER-2", spareICCID, nil)
	l.fails(l.submit(order(func(o *job.Order) { o.MatchingID = "ORDER-2" })).ID, "no-network")
	w.settled()
}

// A switch that waits behind a download may be what brings the network.
func TestDownloadGivesWayToASwitch(t *testing.T) {
	w := newWorld(t, options{card: func(c *euicc.Config) {
		c.Profiles = append(c.Profiles, euicc.Profile{ICCID: iccid(t, spareICCID), IMSI: "001010123456780"})
	}})
	w.onStep(job.Preparing, crash)
	l := w.live()
	first := l.submit(order())
	l.wait()
	w.onLog(nil)
	o := &offline{servers: servers{&w.client}}
	o.tries.Store(1 << 30)
	w.change = func(c *runner.Config) { c.Servers = o }
	l = w.live()
	second := l.submit(about(t, job.Enable, spareICCID))
	l.fails(first.ID, "no-network")
	l.ends(second.ID, job.Done)
	o.tries.Store(0)
	w.settled()
}
