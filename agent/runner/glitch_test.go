package runner_test

import (
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"lpad/agent/job"
	"lpad/agent/rsp/rsptest/euicc"
	"lpad/agent/rsp/rsptest/smdp"
	"lpad/agent/runner"
	"lpad/apdu/ber"
)

// What goes wrong once must not be seen for ever. Found by the fault injection
// program.

// A card that did not answer once is there again without anybody asking.
func TestCardIsNotMissingForOneLostAnswer(t *testing.T) {
	w := newWorld(t, options{})
	l := w.live()
	eventually(t, "known", func() bool { return !l.View().FactsAt.IsZero() })
	w.card.Inject(euicc.Fault{Do: euicc.LoseAnswer, Function: 0xBF2D})
	l.ends(l.submit(about(t, job.Enable, oldICCID)).ID, job.Failed)
	eventually(t, "known", func() bool { return l.View().CardErr == nil })
}

// A job that was there at the start, and ended without the card's facts, does
// not leave the daemon without them.
func TestFactsAreReadAfterAJobOfBefore(t *testing.T) {
	w := newWorld(t, options{})
	w.change = func(c *runner.Config) {
		j := job.New("before", about(t, job.Delete, newICCID), time.Now().UTC())
		if err := c.Journal.PutJob(j); err != nil {
			t.Fatal(err)
		}
	}
	l := w.live()
	l.ends("before", job.Failed)
	eventually(t, "known", func() bool { return !l.View().FactsAt.IsZero() })
}

// An installation result does not overtake what waits for the same server.
func TestResultDoesNotOvertake(t *testing.T) {
	w := newWorld(t, options{})
	w.change = func(c *runner.Config) { c.DeliverRetry = runner.Backoff{First: time.Minute, Most: time.Minute} }
	w.book("SECOND", spareICCID, nil)
	l := w.live()
	w.smdp.Inject(smdp.Fault{Function: smdp.HandleNotification, Kind: smdp.Drop, Times: 1})
	if j := l.ends(l.submit(order()).ID, job.Done); j.Undelivered != 1 {
		t.Fatalf("%d notifications wait", j.Undelivered)
	}
	l.ends(l.submit(order(func(o *job.Order) { o.MatchingID = "SECOND" })).ID, job.Done)
	var came []int64
	for _, n := range w.smdp.Notifications() {
		came = append(came, n.SeqNumber)
	}
	if !slices.Equal(came, []int64{0, 1}) {
		t.Errorf("notifications came as %v", came)
	}
}

// One answer that is lost just when the card is asked what became of things
// decides nothing.
func TestOneLostAnswerDecidesNothing(t *testing.T) {
	const (
		retrieveNotifications = 0xBF2B
		getProfilesInfo       = 0xBF2D
	)
	t.Run("was the package installed", func(t *testing.T) {
		w := newWorld(t, options{})
		var first *life
		ready := make(chan struct{})
		dieAfter(w, func() *life { <-ready; return first }, job.Loading)
		first = w.live()
		close(ready)
		j := first.submit(order(enabling))
		first.wait()
		w.now = nil
		w.card.Inject(euicc.Fault{Do: euicc.LoseAnswer, Function: retrieveNotifications, Times: 1})
		w.live().ends(j.ID, job.Done)
		w.settled()
	})
	t.Run("is the profile still enabled after the reset", func(t *testing.T) {
		w := newWorld(t, options{})
		w.onStep(job.Rereading, func() { w.card.Inject(euicc.Fault{Do: euicc.LoseAnswer, Function: getProfilesInfo, Times: 1}) })
		l := w.live()
		l.ends(l.submit(order(enabling)).ID, job.Done)
	})
}

// What was enabled or disabled when the daemon was killed is not ordered again.
func TestWhatIsDoneIsNotOrderedAgain(t *testing.T) {
	for function, tc := range map[ber.Tag]struct {
		state job.State
		order job.Order
	}{
		0xBF31: {job.Enabling, order(enabling)},
		0xBF32: {job.Disabling, about(t, job.Disable, oldICCID)},
	} {
		w := newWorld(t, options{})
		var calls atomic.Int32
		w.card.Inject(euicc.Fault{Do: euicc.TamperAnswer, Function: function, Times: -1, Tamper: func(answer []byte) []byte {
			calls.Add(1)
			return answer
		}})
		var first *life
		ready := make(chan struct{})
		dieAfter(w, func() *life { <-ready; return first }, tc.state)
		first = w.live()
		close(ready)
		j := first.submit(tc.order)
		first.wait()
		w.now = nil
		w.live().ends(j.ID, job.Done)
		if n := calls.Load(); n != 1 {
			t.Errorf("%s: ordered %d times", tc.state, n)
		}
	}
}
