package runner

import (
	"context"
	"maps"
	"slices"
	"time"

	"lpad/agent/job"
	"lpad/agent/procedure"
	"lpad/agent/rsp"
	"lpad/modem"
)

// View is what is known without asking anybody. It is a snapshot: nothing in
// it is changed afterwards.
type View struct {
	Jobs   []job.Job // the oldest first
	Active string    // id of the job that has the card

	Facts         procedure.Facts
	FactsAt       time.Time // zero: the card was never read
	readAt        time.Time // the same, for measuring how long ago: it keeps its monotonic part
	Notifications []rsp.Notification
	CardErr       error // why the card could not be read the last time

	Link       modem.Link // of the last proven switch; zero if there was none since the start
	APN        string
	DeliverErr error     // of the last delivery
	NextTry    time.Time // of the next delivery; zero if nothing waits
	Warnings   []string
	Memory     Memory
	LastEvent  uint64
}

// View returns what is known.
func (r *Runner) View() View {
	r.mu.Lock()
	v := r.view
	v.Jobs = slices.Clone(v.Jobs)
	v.Warnings = slices.Sorted(maps.Values(r.warnings))
	r.mu.Unlock()
	v.LastEvent = r.hub.latest()
	return v
}

func (r *Runner) change(f func(*View)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	f(&r.view)
}

// publishJobs makes the journal's jobs visible.
func (r *Runner) publishJobs() {
	jobs, active := r.cfg.Journal.Jobs(), r.active
	r.change(func(v *View) { v.Jobs, v.Active = jobs, active })
}

// warn sets a warning that the status shows, or clears it when text is empty.
// It reports whether that is news.
func (r *Runner) warn(what, text string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.warnings[what] == text {
		return false
	}
	if text == "" {
		delete(r.warnings, what)
	} else {
		r.warnings[what] = text
	}
	return true
}

// setFacts makes facts visible. nil profiles mean that they must be read again.
func (r *Runner) setFacts(f procedure.Facts, list []rsp.Notification, err error) {
	now := r.cfg.Now()
	r.change(func(v *View) {
		v.CardErr = err
		if err == nil {
			v.Facts, v.Notifications, v.FactsAt, v.readAt = f, list, now.UTC(), now
		}
	})
}

// Refresh has the card read, unless a job needs it just now, and returns what
// is known then. Reading is skipped when what is known is younger than maxAge.
func (r *Runner) Refresh(ctx context.Context, maxAge time.Duration) (View, error) {
	v := r.View()
	if v.Active != "" || v.CardErr == nil && !v.FactsAt.IsZero() && r.cfg.Now().Sub(v.readAt) < maxAge {
		return v, nil
	}
	return r.waitFor(ctx, taskRefresh)
}

// DeliverNow tries to deliver what waits, unless a job needs the card.
func (r *Runner) DeliverNow(ctx context.Context) (View, error) {
	return r.waitFor(ctx, taskDeliver)
}

// waiter is a caller that waits for the end of a task in the background.
type waiter struct {
	kind taskKind
	done chan struct{}
}

// waitFor has a task done in the background and waits for its end, or until a
// job takes the card.
func (r *Runner) waitFor(ctx context.Context, kind taskKind) (View, error) {
	done := make(chan struct{})
	err := r.do(ctx, func(work context.Context) {
		if r.active != "" {
			close(done)
			return
		}
		r.waiting = append(r.waiting, waiter{kind, done})
		if r.running == taskNone {
			r.inBackground(work, kind)
		}
	})
	if err != nil {
		return r.View(), err
	}
	select {
	case <-done:
		return r.View(), nil
	case <-ctx.Done():
		return r.View(), ctx.Err()
	case <-r.stopped:
		return r.View(), errStopping
	}
}

func (r *Runner) inBackground(ctx context.Context, kind taskKind) {
	if kind == taskDeliver {
		r.deliverInBackground(ctx)
	} else {
		r.refresh(ctx)
	}
}

// answerWaiting answers those who waited for the task that has ended, all when
// a job is about to take the card, and begins what the others wait for.
func (r *Runner) answerWaiting(ctx context.Context, ended taskKind) {
	_, busy := r.turn()
	r.waiting = slices.DeleteFunc(r.waiting, func(w waiter) bool {
		answer := busy || w.kind == ended
		if answer {
			close(w.done)
		}
		return answer
	})
	if len(r.waiting) > 0 {
		r.inBackground(ctx, r.waiting[0].kind)
	}
}
