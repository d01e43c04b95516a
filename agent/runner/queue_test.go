package runner_test

import (
	"net"
	"sync/atomic"
	"testing"
	"time"

	"lpad/agent/job"
	"lpad/agent/rsp"
	"lpad/agent/rsp/rsptest/euicc"
	"lpad/agent/rsp/rsptest/smdp"
	"lpad/agent/runner"
)

const deadHost = "dead.test.example"

// mixed is a world whose old profile tells its disabling to a server that is
// dead, and the rest to one that is not. The function counts the calls of the
// dead one.
func mixed(t *testing.T) (*world, func() int64) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var calls atomic.Int64
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			calls.Add(1)
			c.Close()
		}
	}()
	t.Cleanup(func() { l.Close(); <-done })
	w := newWorld(t, options{card: func(c *euicc.Config) {
		c.Profiles[0].Notifications = []rsp.NotificationConfiguration{{Events: rsp.EventDisable, Address: deadHost}, {Events: rsp.EventEnable, Address: host}}
	}})
	w.client.Addresses[deadHost] = l.Addr().String()
	w.change = func(c *runner.Config) { c.DeliverRetry = runner.Backoff{First: time.Hour, Most: 2 * time.Hour} }
	return w, calls.Load
}

// A dead receiver blocks itself and nobody else, in one round and across
// rounds, and what is known of it outlives the daemon. A person can have it
// tried again, and can give a notification up.
func TestDeadReceiver(t *testing.T) {
	w, calls := mixed(t)
	l := w.live()
	if j := l.ends(l.submit(about(t, job.Disable, oldICCID)).ID, job.Done); j.Undelivered != 1 || calls() != 1 {
		t.Fatalf("undelivered %d, calls %d", j.Undelivered, calls())
	}
	v := l.View()
	if len(v.Queue) != 1 || v.Queue[0].Failures != 1 || v.Queue[0].Problem == nil || v.Queue[0].Problem.Code != "connection-lost" || v.Queue[0].Since.IsZero() {
		t.Fatalf("queue %+v", v.Queue)
	}
	if left := time.Until(v.NextTry); left < 40*time.Minute || left > 90*time.Minute {
		t.Errorf("next try in %v", left)
	}
	// Others are served, and the dead one is left alone.
	if j := l.ends(l.submit(order()).ID, job.Done); j.Undelivered != 1 || calls() != 1 || w.received() != "install 358" {
		t.Errorf("undelivered %d, calls %d, received %s", j.Undelivered, calls(), w.received())
	}
	since, seq := v.Queue[0].Since, v.Queue[0].SeqNumber
	l.stop()

	l = w.live()
	if _, err := l.Refresh(t.Context(), 0); err != nil {
		t.Fatal(err)
	}
	v = l.View()
	if len(v.Queue) != 1 || v.Queue[0].Failures != 1 || v.Queue[0].Problem == nil || !v.Queue[0].Since.Equal(since) || time.Until(v.NextTry) < 40*time.Minute {
		t.Errorf("after a restart: %+v, next try %v", v.Queue, v.NextTry)
	}
	// After a switch, the way to it is another one.
	if j := l.ends(l.submit(about(t, job.Enable, newICCID)).ID, job.Done); j.Undelivered != 1 || calls() != 2 {
		t.Errorf("undelivered %d, calls %d", j.Undelivered, calls())
	}
	_, err := l.Replay(t.Context(), seq)
	wantCode(t, err, "connection-lost")
	if calls() != 3 {
		t.Errorf("%d calls", calls())
	}
	_, err = l.Replay(t.Context(), seq+100)
	wantCode(t, err, "not-found")
	_, err = l.Drop(t.Context(), seq+100, "somebody")
	wantCode(t, err, "not-found")
	if v, err = l.Drop(t.Context(), seq, "uid 0"); err != nil || len(v.Queue) != 0 || len(w.card.Notifications()) != 0 {
		t.Errorf("dropped: %v, %+v", err, v.Queue)
	}
	l.stop()
	l = w.live()
	if d := l.View().Dropped; len(d) != 1 || d[0].SeqNumber != seq || d[0].By != "uid 0" || d[0].Outcome != "dropped" || d[0].Address != deadHost {
		t.Errorf("dropped %+v", d)
	}
	if calls() != 3 {
		t.Errorf("%d calls", calls())
	}
}

// What a person asks for waits for nobody, and gives way to a job.
func TestReplayAndDropBesideAJob(t *testing.T) {
	w, _ := mixed(t)
	l := w.live()
	l.ends(l.submit(about(t, job.Disable, oldICCID)).ID, job.Done)
	seq := l.View().Queue[0].SeqNumber
	l.state(l.submit(order(asking)).ID, job.Consent)
	_, err := l.Replay(t.Context(), seq)
	wantCode(t, err, "conflict")
	_, err = l.Drop(t.Context(), seq, "uid 0")
	wantCode(t, err, "conflict")
	if v := l.View(); len(v.Queue) != 1 || len(v.Dropped) != 0 {
		t.Errorf("queue %+v, dropped %+v", v.Queue, v.Dropped)
	}
}

// A server that asks to be left alone is, even by a job and after a switch; a
// person may insist.
func TestRetryAfter(t *testing.T) {
	w := newWorld(t, options{})
	w.smdp.Inject(smdp.Fault{Function: smdp.HandleNotification, Kind: smdp.HTTPError, HTTP: 503, After: "3600", Times: 1})
	l := w.live()
	if j := l.ends(l.submit(order(enabling)).ID, job.Done); j.Undelivered != 3 {
		t.Errorf("undelivered %d", j.Undelivered)
	}
	v := l.View()
	if left := time.Until(v.NextTry); left < 50*time.Minute || left > 61*time.Minute || w.received() != "" || len(v.Queue) != 3 {
		t.Errorf("next try in %v, received %s, queue %+v", left, w.received(), v.Queue)
	}
	// One number after the other: the receiver sees them in order.
	if v, err := l.Replay(t.Context(), v.Queue[1].SeqNumber); err != nil || len(v.Queue) != 0 || !v.NextTry.IsZero() {
		t.Errorf("replay: %v, %+v", err, v.Queue)
	}
	if got, want := w.received(), "install 358, disable 341, enable 358"; got != want {
		t.Errorf("received %s, want %s", got, want)
	}
}

// What the journal remembers is made sense of, whatever the clock says now.
func TestQueueRestored(t *testing.T) {
	b := runner.Backoff{First: time.Minute, Most: time.Hour}.OrDefault()
	now := time.Date(2026, 6, 1, 12, 0, 0, 0, time.UTC)
	for _, tc := range []struct {
		name       string
		next, hold time.Duration // from now
		least      time.Duration
		most       time.Duration
	}{
		{"to come", 20 * time.Minute, 0, 20 * time.Minute, 20 * time.Minute},
		{"over", -time.Hour, 0, 0, 0},
		{"a clock that went back", 56 * 365 * 24 * time.Hour, 0, 45 * time.Second, 75 * time.Second},
		{"asked for", time.Minute, 5 * time.Hour, 5 * time.Hour, 5 * time.Hour},
		{"asked for, over", time.Minute, -time.Minute, time.Minute, time.Minute},
		{"asked for, by another clock", time.Minute, 90 * 24 * time.Hour, time.Minute, time.Minute},
	} {
		if got := runner.RestoredDue(now.Add(tc.next), now.Add(tc.hold), now, b).Sub(now); got < tc.least || got > tc.most {
			t.Errorf("%s: due in %v, want %v to %v", tc.name, got, tc.least, tc.most)
		}
	}
}
