package runner

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"lpad/agent/job"
	"lpad/agent/procedure"
	"lpad/agent/rsp"
	"lpad/internal/fault"
	"lpad/modem"
)

// View is what is known without asking anybody. It is a snapshot: nothing in
// it is changed afterwards.
type View struct {
	Jobs   []job.Job // the oldest first
	Active string    // id of the job that has the card
	State  State     // all of it in a word

	Facts         procedure.Facts
	FactsAt       time.Time // zero: the card was never read
	readAt        time.Time // the same, for measuring how long ago: it keeps its monotonic part
	Notifications []rsp.Notification
	Queue         []Waiting // the same, with how it stands with their receivers
	Dropped       []Dropped // notifications that somebody has given up, the oldest first
	Reports       []Waiting // reports of jobs, the oldest first
	ReportsLost   int       // given up because too many waited
	CardErr       error     // why the card could not be read the last time
	JournalErr    error     // why the disk does not take the journal; nil: it does

	JournalSize    int   // bytes of its file
	JournalWritten int64 // bytes written since the start
	JournalWrites  int64 // how many times something was written and synced since the start

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
	v.Warnings = append(slices.Sorted(maps.Values(r.warnings)), v.Memory.suspensionWarnings()...)
	v.Queue, v.Dropped = r.queue.lines(v.Notifications), slices.Clone(r.queue.Dropped)
	v.Reports, v.ReportsLost = r.reports.lines(), r.reports.Lost
	r.mu.Unlock()
	v.LastEvent = r.hub.latest()
	return v
}

func (r *Runner) change(f func(*View)) {
	defer r.announce()
	now := r.cfg.Now()
	r.mu.Lock()
	defer r.mu.Unlock()
	f(&r.view)
	r.view.State = stateOf(&r.view)
	if v := &r.view; !v.FactsAt.IsZero() {
		r.queue.see(v.Facts.EID.String(), v.Notifications, now)
	}
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

// DeliverNow tries to deliver what waits to everybody, unless a job needs the
// card.
func (r *Runner) DeliverNow(ctx context.Context) (View, error) {
	if err := r.do(ctx, func(context.Context) { r.urgeReports("") }); err != nil {
		return r.View(), err
	}
	_, err := r.ask(ctx, &waiter{kind: taskDeliver, run: r.round(everyone)})
	return r.View(), err
}

// Replay sends one notification now, after those to the same receiver that
// come before it, whatever pause the receiver is in. It fails when the
// notification is still there afterwards.
func (r *Runner) Replay(ctx context.Context, seq int64) (View, error) {
	n, err := r.notification(seq)
	if err != nil {
		return r.View(), err
	}
	var tried error
	ran, err := r.ask(ctx, &waiter{kind: taskDeliver, run: func(ctx context.Context) outcome {
		o := r.round(only(n.Receiver()))(ctx)
		tried = o.err
		return o
	}})
	v := r.View()
	switch _, gone := r.notification(seq); {
	case err != nil:
		return v, err
	case !ran:
		return v, errCardNeeded
	case gone != nil:
		return v, nil
	case tried == nil || errors.Is(tried, context.Canceled):
		return v, errCardNeeded
	}
	return v, tried
}

// Drop takes one notification off the card without its being delivered: its
// receiver will never learn of it. The journal knows of it before the card
// does, and who has wanted it.
func (r *Runner) Drop(ctx context.Context, seq int64, by string) (View, error) {
	n, err := r.notification(seq)
	if err != nil {
		return r.View(), err
	}
	d := Dropped{SeqNumber: seq, Event: n.Event.String(), Address: n.Address, ICCID: n.ICCID, By: by, At: r.cfg.Now().UTC()}
	var dropped error
	w := &waiter{kind: taskDeliver, run: func(ctx context.Context) outcome {
		left := 1
		dropped = r.onCard(ctx, func(card Card) error { return card.RemoveNotificationFromList(ctx, seq) })
		r.card.close(ctx, r.log)
		d.Outcome = "dropped"
		if dropped != nil {
			d.Outcome = "not dropped: " + fault.Of(dropped).Text
		}
		r.withQueue(func(q *queue) {
			q.conclude(d)
			q.served(n.Receiver()) // what waited behind it may go
		})
		if dropped == nil {
			r.log.Warn("a notification was dropped without delivery", "seq", seq, "receiver", n.Receiver(), "event", d.Event, "by", by)
			r.change(func(v *View) {
				v.Notifications = slices.DeleteFunc(slices.Clone(v.Notifications), func(n rsp.Notification) bool { return n.SeqNumber == seq })
				left = len(v.Notifications)
			})
			r.hub.publish(Event{At: r.cfg.Now().UTC(), Type: "notification", Text: fmt.Sprintf("notification %d to %s dropped by %s", seq, n.Address, by)})
		}
		return outcome{left: left}
	}}
	w.before = func() error {
		r.withQueue(func(q *queue) { q.drop(d) })
		return r.saveQueue()
	}
	ran, err := r.ask(ctx, w)
	if err == nil && !ran {
		err = errCardNeeded
	}
	if err == nil {
		err = dropped
	}
	if errors.Is(err, context.Canceled) && ctx.Err() == nil {
		err = errCardNeeded
	}
	return r.View(), err
}

// WithCard runs f on the card's goroutine, with no channel open, when no job
// needs the card. The context of f ends with ctx, and when a job needs the card;
// what f then did not come to is an error.
func (r *Runner) WithCard(ctx context.Context, f func(context.Context) error) error {
	var did error
	ran, err := r.ask(ctx, &waiter{kind: taskProbe, run: func(task context.Context) outcome {
		task, cancel := context.WithCancel(task)
		defer cancel()
		defer context.AfterFunc(ctx, cancel)()
		r.card.close(task, r.log)
		did = f(task)
		return outcome{}
	}})
	switch {
	case err != nil:
		return err
	case !ran || errors.Is(did, context.Canceled):
		return errCardNeeded
	}
	return did
}

var errCardNeeded = fault.New(fault.Fault{Code: "conflict", Text: "a job needs the card just now", Retry: true, Who: fault.Nobody,
	Next: "try again when the job has ended"}, nil)

// notification finds one by its number.
func (r *Runner) notification(seq int64) (rsp.Notification, error) {
	for _, n := range r.View().Notifications {
		if n.SeqNumber == seq {
			return n, nil
		}
	}
	return rsp.Notification{}, notFound(fmt.Sprintf("notification %d on the card", seq))
}

// waiter is a caller that waits for the end of a task in the background.
type waiter struct {
	kind   taskKind
	before func() error                  // in the loop, before run is begun; an error ends it
	run    func(context.Context) outcome // nil: any task of the kind will do
	ran    bool                          // run was begun
	err    error                         // of before
	done   chan struct{}
}

// waitFor has a task done in the background and waits for its end, or until a
// job takes the card.
func (r *Runner) waitFor(ctx context.Context, kind taskKind) (View, error) {
	_, err := r.ask(ctx, &waiter{kind: kind})
	return r.View(), err
}

// ask has a task done in the background and waits for its end, or until a job
// takes the card. It reports whether the task was begun.
func (r *Runner) ask(ctx context.Context, w *waiter) (bool, error) {
	w.done = make(chan struct{})
	err := r.do(ctx, func(work context.Context) {
		if r.active != "" {
			close(w.done)
			return
		}
		r.waiting = append(r.waiting, w)
		if r.running == taskNone {
			r.serve(work)
		}
	})
	if err != nil {
		return false, err
	}
	select {
	case <-w.done:
		return w.ran, w.err
	case <-ctx.Done():
		return false, ctx.Err()
	case <-r.stopped:
		return false, errStopping
	}
}

// serve begins what the first of those who wait has asked for.
func (r *Runner) serve(ctx context.Context) {
	for len(r.waiting) > 0 && r.running == taskNone {
		w := r.waiting[0]
		if w.run == nil {
			r.inBackground(ctx, w.kind)
			return
		}
		if w.before != nil {
			w.err = w.before()
		}
		if w.err == nil {
			w.ran = true
			r.begin(ctx, w.kind, w.run)
			return
		}
		r.waiting = r.waiting[1:]
		close(w.done)
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
	r.waiting = slices.DeleteFunc(r.waiting, func(w *waiter) bool {
		answer := busy || w.kind == ended && (w.run == nil || w.ran)
		if answer {
			close(w.done)
		}
		return answer
	})
	r.serve(ctx)
}
