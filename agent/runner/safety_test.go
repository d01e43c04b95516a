package runner_test

import (
	"context"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"lpad/agent/job"
	"lpad/agent/procedure"
	"lpad/agent/rsp"
	"lpad/agent/rsp/rsptest/smdp"
	"lpad/agent/runner"
	"lpad/agent/switchover"
	"lpad/modem"
)

// A server that hangs does not hold a switch up: the installation is told
// before the switch when its server answers, and otherwise after it.
func TestDeliveryDoesNotHoldASwitch(t *testing.T) {
	for _, hangs := range []bool{false, true} {
		w := newWorld(t, options{})
		w.hurry = func(r *runner.Runner) { r.HurrySwitch(500 * time.Millisecond) }
		if hangs {
			w.smdp.Inject(smdp.Fault{Function: smdp.HandleNotification, Kind: smdp.Stall, Times: 1})
		} else {
			w.hurry = nil
		}
		var before string
		w.onStep(job.Snapshotting, func() { before = w.received() })
		l := w.live()
		j := l.ends(l.submit(order(enabling)).ID, job.Done)
		waited := time.Duration(-1)
		for i, m := range j.Timeline {
			if m.State == job.Reporting {
				waited = j.Timeline[i+1].At.Sub(m.At)
			}
		}
		if hangs && (before != "" || waited < 400*time.Millisecond || waited > 5*time.Second) || !hangs && before != "install 358" {
			t.Errorf("hangs %v: %q was received before the switch, after %v", hangs, before, waited)
		}
		w.settled()
		if got, want := w.received(), "install 358, disable 341, enable 358"; got != want {
			t.Errorf("hangs %v: received %s, want %s", hangs, got, want)
		}
	}
}

// A device that goes down again and again within a switch, with a clock that
// begins anew each time, goes back: also when it goes down before the card was
// found.
func TestRestartsEndASwitch(t *testing.T) {
	for _, found := range []bool{true, false} {
		w := newWorld(t, options{})
		w.network = hanging{}
		boot := time.Date(1970, 1, 1, 0, 0, 0, 0, time.UTC)
		started := time.Now()
		w.now = func() time.Time { return boot.Add(time.Since(started)) }
		l := w.live()
		w.onStep(job.Verifying, func() { l.cancel() })
		j := l.submit(order(enabling))
		l.wait()
		for n := range job.MaxRestarts {
			started = time.Now() // the clock begins anew
			if !found {
				w.card.CutPower()
			}
			l = w.live()
			if found {
				l.until(j.ID, "resumed", func(j job.Job) bool { return len(j.Timeline) > 11+n && j.State == job.Verifying })
			} else {
				eventually(t, "the card is missed", func() bool { return l.View().CardErr != nil })
			}
			l.stop()
			w.card.Reset()
		}
		l = w.live()
		j = l.fails(j.ID, "too-many-restarts")
		if w.enabled() != oldICCID || j.Switch.Restarts != job.MaxRestarts+1 {
			t.Errorf("enabled %s after %d restarts: %s", w.enabled(), j.Switch.Restarts, states(j))
		}
		w.settled()
	}
}

// SIGTERM while a block is on its way to the card: the card's answer is waited
// for, the channel is closed, and nothing has failed. The next daemon goes on.
func TestStopInStoreData(t *testing.T) {
	w := newWorld(t, options{})
	l := w.live()
	var mu sync.Mutex
	var resume func()
	w.onStep(job.Loading, func() {
		mu.Lock()
		defer mu.Unlock()
		resume = w.card.Stall()
	})
	j := l.submit(order(enabling))
	l.state(j.ID, job.Loading)
	begun := time.Now()
	l.cancel()
	select {
	case <-l.done:
		t.Error("stopped without the card's answer")
	case <-time.After(200 * time.Millisecond):
	}
	mu.Lock()
	resume()
	mu.Unlock()
	l.wait()
	if took := time.Since(begun); took > runner.StopTimeout+2*time.Second {
		t.Errorf("stopped after %v", took)
	}
	if open := w.card.OpenChannels(); len(open) != 0 {
		t.Errorf("channels %v are open", open)
	}
	if was, err := l.Job(j.ID); err != nil || was.State != job.Loading || was.Problem != nil {
		t.Errorf("journalled %s, %+v, %v", was.State, was.Problem, err)
	}
	l = w.live()
	if j = l.ends(j.ID, job.Done); strings.Contains(states(j), "failed") {
		t.Errorf("way %s", states(j))
	}
}

// other is a card whose EUICCInfo2 lists other CIs.
type other struct{ cards }

func (o other) Open(ctx context.Context) (runner.Card, error) {
	card, err := o.cards.Open(ctx)
	return otherCard{card}, err
}

type otherCard struct{ runner.Card }

func (o otherCard) GetEUICCInfo2(ctx context.Context) (rsp.EUICCInfo2, error) {
	info, err := o.Card.GetEUICCInfo2(ctx)
	info.Verification = append(slices.Clone(info.Verification), make([]byte, 20))
	return info, err
}

// ways notes how servers are asked.
type ways struct {
	servers
	mu   sync.Mutex
	list []runner.Way
}

func (s *ways) OpenServer(address string, way runner.Way) (procedure.Server, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.list = append(s.list, way)
	return s.servers.OpenServer(address, way)
}

// Servers are narrowed to the CIs that the card lists; a card that lists others
// in two places is told of.
func TestCIsOfTheCard(t *testing.T) {
	w := newWorld(t, options{})
	s := &ways{servers: servers{&w.client}}
	w.change = func(c *runner.Config) { c.Servers = s }
	l := w.live()
	l.ends(l.submit(order(enabling)).ID, job.Done)
	want := l.View().Facts.Info1.Verification
	for _, way := range s.list {
		if len(want) == 0 || !slices.EqualFunc(way.CIs, want, slices.Equal) {
			t.Errorf("way %+v, the card lists %X", way, want)
		}
	}
	if len(s.list) < 2 || slices.ContainsFunc(l.View().Warnings, func(s string) bool { return strings.Contains(s, "EUICCInfo") }) {
		t.Errorf("%d sessions, warnings %q", len(s.list), l.View().Warnings)
	}
	l.stop()
	w.change = func(c *runner.Config) { c.Card = other{cards{w.card}} }
	l = w.live()
	if _, err := l.Refresh(t.Context(), 0); err != nil {
		t.Fatal(err)
	}
	if v := l.View().Warnings; len(v) != 1 || !strings.Contains(v[0], "EUICCInfo2") {
		t.Errorf("warnings %q", v)
	}
}

// slowNetwork needs a moment to come up.
type slowNetwork struct{ switchover.Direct }

func (slowNetwork) Connect(ctx context.Context, _ string) (modem.Link, error) {
	select {
	case <-ctx.Done():
		return modem.Link{}, ctx.Err()
	case <-time.After(100 * time.Millisecond):
		return modem.Link{}, nil
	}
}

// A calendar that is set in the middle of a switch, forwards by the new network
// or backwards by whoever, neither shortens nor lengthens the dead-man time; nor
// does it over a restart.
func TestCalendarIsSetInASwitch(t *testing.T) {
	const jump = 56 * 365 * 24 * time.Hour
	for _, by := range []time.Duration{jump, -jump} {
		for _, restart := range []bool{false, true} {
			for _, hangs := range []bool{false, true} {
				w := newWorld(t, options{})
				limit := time.Minute
				w.network = slowNetwork{}
				if hangs {
					w.network, limit = hanging{}, 400*time.Millisecond
				}
				w.change = func(c *runner.Config) { c.DeadMan = limit }
				var shift atomic.Int64
				w.now = func() time.Time { return time.Now().Add(time.Duration(shift.Load())) }
				l := w.live()
				w.onStep(job.Rereading, func() {
					shift.Store(int64(by))
					if restart {
						crash()
					}
				})
				begun := time.Now()
				j := l.submit(order(enabling))
				if restart {
					l.wait()
					l = w.live()
				}
				if hangs {
					l.fails(j.ID, "timeout")
				} else {
					l.ends(j.ID, job.Done)
				}
				if took := time.Since(begun); took > 20*time.Second {
					t.Errorf("by %v, restart %v, hangs %v: it took %v", by, restart, hangs, took)
				}
			}
		}
	}
}
