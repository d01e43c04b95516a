package runner_test

import (
	"context"
	"errors"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"lpad/agent/job"
	"lpad/agent/journal"
	"lpad/agent/runner"
)

// TestPulse: the innermost step counts, and whoever does one thing after the
// other is alive, however long it takes altogether.
func TestPulse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &runner.Pulse{}
		hangs := func(want string) {
			t.Helper()
			err := p.Hung()
			var hung *runner.HungError
			if got := ""; errors.As(err, &hung) {
				got = hung.What
				if got != want {
					t.Errorf("%q hangs, want %q", got, want)
				}
			} else if want != "" || err != nil {
				t.Errorf("error %v, want %q", err, want)
			}
		}
		hangs("") // nothing is done
		time.Sleep(time.Hour)
		hangs("")

		outer := p.Begin("job", time.Minute)
		for range 20 { // each within its limit, all together not
			end := p.Begin("apdu", 50*time.Second)
			time.Sleep(49 * time.Second)
			hangs("")
			end()
			time.Sleep(50 * time.Second)
			hangs("")
		}
		time.Sleep(11 * time.Second)
		hangs("job")
		p.Beat()
		hangs("")

		inner := p.Begin("apdu", 2*time.Minute) // longer than the one around it may do nothing
		time.Sleep(119 * time.Second)
		hangs("")
		time.Sleep(2 * time.Second)
		hangs("apdu")
		inner()
		hangs("") // it came after all
		inner()   // twice is once
		outer()
		time.Sleep(time.Hour)
		hangs("")

		var none *runner.Pulse
		none.Begin("job", 0)()
		none.Beat()
		if err := none.Hung(); err != nil {
			t.Error(err)
		}
	})
}

// stubborn is a card of which each opening takes as long as it is told, or for
// ever.
type stubborn struct {
	pulse *runner.Pulse
	takes time.Duration // 0: for ever
	end   chan struct{}
}

func (s *stubborn) Open(context.Context) (runner.Card, error) {
	defer s.pulse.Begin("opening the card", runner.Patience)()
	var slow <-chan time.Time
	if s.takes > 0 {
		slow = time.After(s.takes)
	}
	select {
	case <-slow:
	case <-s.end:
	}
	return nil, errors.New("no card")
}

// watched starts a runner with nothing but a card.
func watched(t *testing.T, s *stubborn) *runner.Runner {
	t.Helper()
	j, err := journal.Open(filepath.Join(t.TempDir(), "journal"), journal.Options{})
	if err != nil {
		t.Fatal(err)
	}
	r := runner.New(runner.Config{Journal: j, Card: s, Pulse: s.pulse})
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- r.Run(ctx) }()
	t.Cleanup(func() {
		stop()
		close(s.end)
		if err := errors.Join(<-done, j.Close()); err != nil {
			t.Error(err)
		}
		synctest.Wait()
		if err := r.Alive(context.Background()); err != nil { // one that has stopped does not hang
			t.Errorf("after the end: %v", err)
		}
	})
	return r
}

// ask asks whether a runner is alive, as a watchdog does.
func ask(t *testing.T, r *runner.Runner) (what string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	var hung *runner.HungError
	if err := r.Alive(ctx); errors.As(err, &hung) {
		return hung.What
	} else if err != nil {
		t.Error(err)
	}
	return ""
}

// TestAlive: a card that is slow within its limits is no reason for the watchdog,
// one that hangs for ever is, and so is a loop that hangs.
func TestAlive(t *testing.T) {
	t.Run("slow", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			p := &runner.Pulse{}
			r := watched(t, &stubborn{pulse: p, takes: runner.Patience - time.Second, end: make(chan struct{})})
			for range 24 * 60 {
				if what := ask(t, r); what != "" {
					t.Fatalf("%s hangs", what)
				}
				time.Sleep(time.Minute)
			}
		})
	})
	t.Run("hangs", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			p := &runner.Pulse{}
			r := watched(t, &stubborn{pulse: p, end: make(chan struct{})})
			time.Sleep(runner.Patience)
			if what := ask(t, r); what != "" {
				t.Errorf("%s hangs too early", what)
			}
			time.Sleep(time.Second)
			if what := ask(t, r); what != "opening the card" {
				t.Errorf("%q hangs", what)
			}
		})
	})
	t.Run("without its own limit", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			r := watched(t, &stubborn{pulse: nil, end: make(chan struct{})})
			time.Sleep(5 * time.Minute)
			if what := ask(t, r); what != "" {
				t.Errorf("%s hangs too early", what)
			}
			time.Sleep(5 * time.Minute)
			if what := ask(t, r); what != "refresh" {
				t.Errorf("%q hangs", what)
			}
		})
	})
	t.Run("loop", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			p, let := &runner.Pulse{}, make(chan struct{})
			r := watched(t, &stubborn{pulse: p, takes: time.Second, end: make(chan struct{})})
			time.Sleep(2 * time.Second)
			if what := ask(t, r); what != "" {
				t.Errorf("%s hangs before", what)
			}
			go func() {
				if _, err := r.Change(context.Background(), runner.Changes{Also: func() { <-let }}); err != nil { // whatever blocks, as a disk may
					t.Error(err)
				}
			}()
			synctest.Wait()
			what := ask(t, r)
			close(let)
			if what != "loop" {
				t.Errorf("%q hangs", what)
			}
		})
	})
}

// TestChange: settings become others between tasks, not in the middle of one.
func TestChange(t *testing.T) {
	w := newWorld(t, options{})
	l := w.live()
	began, end := make(chan struct{}), make(chan struct{})
	over := make(chan error, 1)
	go func() {
		over <- l.WithCard(context.Background(), func(context.Context) error {
			close(began)
			<-end
			return nil
		})
	}()
	<-began
	changed := make(chan string, 3)
	for _, name := range []string{"first", "second"} { // the last one counts
		if atOnce, err := l.Change(t.Context(), runner.Changes{Also: func() { changed <- name }}); atOnce || err != nil {
			t.Errorf("in the middle: %v, %v", atOnce, err)
		}
	}
	close(end)
	if err := <-over; err != nil {
		t.Error(err)
	}
	if got := <-changed; got != "second" {
		t.Errorf("%s change", got)
	}

	// A job that waits for a person is in the middle of nothing.
	j := l.submit(order(asking))
	l.state(j.ID, job.Consent)
	eventually(t, "a change while a job waits for consent", func() bool {
		atOnce, err := l.Change(t.Context(), runner.Changes{})
		return atOnce && err == nil
	})
	if _, err := l.Abort(t.Context(), j.ID); err != nil {
		t.Fatal(err)
	}
	l.ends(j.ID, job.Cancelled)
}

// TestOnEnd: each job that ends is told of, once.
func TestOnEnd(t *testing.T) {
	w := newWorld(t, options{})
	ended := make(chan job.Job, 10)
	w.change = func(c *runner.Config) { c.OnEnd = func(j job.Job) { ended <- j } }
	l := w.live()
	first, second := l.submit(order(asking)), l.submit(about(t, job.Delete, newICCID))
	l.state(first.ID, job.Consent)
	for _, id := range []string{second.ID, first.ID} { // one that never began, and one in the middle
		if _, err := l.Abort(t.Context(), id); err != nil {
			t.Fatal(err)
		}
		if j := <-ended; j.ID != id || j.Outcome() != job.OutcomeCancelled {
			t.Errorf("told of %s, %s, want %s", j.ID, j.Outcome(), id)
		}
	}
	l.ends(first.ID, job.Cancelled)
	select {
	case j := <-ended:
		t.Errorf("%s is told of twice", j.ID)
	default:
	}
}
