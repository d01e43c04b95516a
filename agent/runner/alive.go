package runner

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"lpad/agent/job"
)

// Limits of what the card's goroutine does between two signs of life. Whatever
// it waits for has a bound of its own, below or in the packages that it calls;
// these are above all of them, so that only what has no bound any more, or does
// not keep it, is taken for hung.
const (
	// Patience is how long one exchange with the card may take, opening a channel
	// included: es10 waits five minutes for a deletion, a memory reset or the last
	// segment of a package, and every transport less.
	Patience = 5*time.Minute + 40*time.Second

	// stepLimit is how long an action may take without an exchange with the card:
	// a call of a server and, where the modem is shared, the network's coming back
	// for it. A step of a switch has the dead-man time, if that is longer.
	stepLimit = 10 * time.Minute

	// probeLimit is the same for looking at the way to the card, and its slots.
	probeLimit = 5 * time.Minute

	// overtime is what may go on when the time of a task is over: a context ends
	// between two exchanges only, and then the modem is switched on again and
	// given back, which has its own bounds of a minute each.
	overtime = Patience
)

// Pulse knows what the card's goroutine is at, and for how long it may be at it.
// Steps lie within each other; the innermost counts, and when it ends, the time
// of the one around it begins anew: whoever does one small thing after the other
// is alive, however long it takes altogether. All methods may be called on nil,
// and from any goroutine.
type Pulse struct {
	mu    sync.Mutex
	steps []*pulseStep // the innermost last
}

type pulseStep struct {
	what  string
	limit time.Duration
	since time.Time // with a reading of the monotonic clock, which stands still in suspend
}

// Begin says what is done from now on, and how long it may take at most without
// another sign of life. The step ends with the function that is returned.
func (p *Pulse) Begin(what string, limit time.Duration) (end func()) {
	if p == nil {
		return func() {}
	}
	s := &pulseStep{what, limit, time.Now()}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.steps = append(p.steps, s)
	return func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.steps = slices.DeleteFunc(p.steps, func(other *pulseStep) bool { return other == s })
		p.beat()
	}
}

// Beat is a sign of life in the middle of a step that waits for something.
func (p *Pulse) Beat() {
	if p == nil {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.beat()
}

func (p *Pulse) beat() {
	if n := len(p.steps); n > 0 {
		p.steps[n-1].since = time.Now()
	}
}

// Hung says what takes longer than it may.
func (p *Pulse) Hung() error {
	if p == nil {
		return nil
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if n := len(p.steps); n > 0 {
		if s := p.steps[n-1]; time.Since(s.since) > s.limit {
			return &HungError{s.what, time.Since(s.since)}
		}
	}
	return nil
}

// HungError means that a part of the daemon does not go on, and that nothing
// will make it: the process must be started anew.
type HungError struct {
	What string // what hangs: "loop", or what the card's goroutine is at
	For  time.Duration
}

// Error says what hangs, and since when.
func (e *HungError) Error() string {
	return fmt.Sprintf("%s hangs, for %v", e.What, e.For.Round(time.Second))
}

// Alive asks the loop to answer before ctx ends, and looks whether the card's
// goroutine is within its limits. A card or a network that is slow is no reason
// for an error, a runner that has stopped is none either.
func (r *Runner) Alive(ctx context.Context) error {
	begun := time.Now()
	if err := r.do(ctx, func(context.Context) {}); err != nil && err != errStopping {
		return &HungError{"loop", time.Since(begun)}
	}
	return r.pulse.Hung()
}

// patience is how long a task may take without an exchange with the card.
func (r *Runner) patience(k taskKind) time.Duration {
	switch k {
	case taskRefresh:
		return refreshLimit + overtime
	case taskDeliver:
		return backgroundLimit + overtime
	case taskProbe:
		return probeLimit + overtime
	}
	return max(r.cfg.DeadMan, stepLimit) + overtime
}

// String is a word for what the card's goroutine does.
func (k taskKind) String() string {
	return [...]string{"nothing", "job", "refresh", "delivery", "probe"}[k]
}

// Changes are settings that may become others while the daemon runs. They are
// whole: what is zero becomes so.
type Changes struct {
	ReportTo     string
	DeliverRetry Backoff
	Require      string
	Also         func() // changes what the sources of the runner use; nil: nothing
}

// Change makes changes as soon as nothing is under way that would see them in
// the middle: a job goes to its end with what it has begun with, unless it waits
// for a person, or between two tries of a first profile. It reports whether that
// was at once.
func (r *Runner) Change(ctx context.Context, c Changes) (atOnce bool, err error) {
	err = r.do(ctx, func(context.Context) {
		r.changes = &c
		atOnce = r.makeChanges()
	})
	return atOnce, err
}

// makeChanges makes the changes that wait, in the loop, if it is the time for it.
func (r *Runner) makeChanges() bool {
	if r.changes == nil {
		return true
	}
	if r.running != taskNone || r.reporting {
		return false
	}
	if j, active := r.cfg.Journal.Job(r.active); active && j.State != job.Consent && j.State != job.Retrying {
		return false
	}
	c := *r.changes
	r.changes = nil
	r.cfg.ReportTo, r.cfg.DeliverRetry, r.cfg.Require = c.ReportTo, c.DeliverRetry.orDefault(), c.Require
	if c.Also != nil {
		c.Also()
	}
	r.log.Debug("the changed configuration is in use")
	return true
}
