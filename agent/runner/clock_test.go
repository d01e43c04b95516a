package runner_test

import (
	"context"
	"strings"
	"sync/atomic"
	"testing"

	"lpad/agent/job"
	"lpad/agent/runner"
)

// timeless makes a world whose clock is set only when the flag is.
func timeless(t *testing.T) (*world, *atomic.Bool) {
	w := newWorld(t, options{})
	set := &atomic.Bool{}
	w.change = func(c *runner.Config) { c.ClockReady = func(context.Context) bool { return set.Load() } }
	return w, set
}

func warned(l *life) bool {
	return strings.Contains(strings.Join(l.View().Warnings, "\n"), "clock")
}

// A download waits for the clock, and goes on by itself when time arrives.
func TestDownloadWaitsForTheClock(t *testing.T) {
	w, set := timeless(t)
	l := w.live()
	id := l.submit(order(enabling)).ID
	l.state(id, job.Authenticating)
	eventually(t, "the status warns", func() bool { return warned(l) })
	if n := len(w.smdp.Calls()); n != 0 {
		t.Errorf("the server was asked %d times", n)
	}
	l.stop() // and over a restart
	l = w.live()
	eventually(t, "the status warns again", func() bool { return warned(l) })
	set.Store(true)
	l.ends(id, job.Done)
	if got, want := w.received(), "install 358, disable 341, enable 358"; got != want || warned(l) {
		t.Errorf("received %s, want %s; warned: %v", got, want, warned(l))
	}
}

// Waiting can be aborted, and gives way to an order behind it.
func TestWaitingForTheClockEnds(t *testing.T) {
	w, _ := timeless(t)
	l := w.live()
	id := l.submit(order()).ID
	eventually(t, "the status warns", func() bool { return warned(l) })
	if _, err := l.Abort(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	l.ends(id, job.Cancelled)
	id = l.submit(order()).ID
	l.state(id, job.Authenticating)
	l.ends(l.submit(about(t, job.Disable, oldICCID)).ID, job.Done)
	l.fails(id, "clock-not-set")
}

// Notifications wait without anybody's being asked, and go out when the clock
// is set.
func TestDeliveryWaitsForTheClock(t *testing.T) {
	w, set := timeless(t)
	l := w.live()
	if j := l.ends(l.submit(about(t, job.Disable, oldICCID)).ID, job.Done); j.Undelivered == 0 {
		t.Error("nothing waits")
	}
	eventually(t, "the list is known", func() bool { v, err := l.Refresh(t.Context(), 0); return err == nil && len(v.Queue) == 1 })
	if v, err := l.DeliverNow(t.Context()); err != nil || v.DeliverErr == nil || len(w.smdp.Calls()) != 0 {
		t.Errorf("delivered now: %v, %v, %d calls", err, v.DeliverErr, len(w.smdp.Calls()))
	} else {
		wantCode(t, v.DeliverErr, "clock-not-set")
	}
	if v := l.View(); len(v.Queue) != 1 || v.Queue[0].Failures != 0 {
		t.Errorf("the receiver is blamed: %+v", v.Queue)
	}
	set.Store(true)
	w.settled()
	if got, want := w.received(), "disable 341"; got != want {
		t.Errorf("received %s, want %s", got, want)
	}
}
