package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"lpad/agent/api"
	"lpad/agent/rsp/rsptest/pki"
)

// result is what became of one injection.
type result struct {
	fault      *fault
	reached    bool // the fault has struck
	told       bool // the daemon has said what is wrong with its disk
	violations []violation
	counts     [touches]int
	trace      []step
	journal    int64 // bytes at the end
	made       int   // notifications
	took       time.Duration
	history    []string
	log        string
}

// run does one fault to one scenario on a device of its own.
func run(ctx context.Context, p *pki.PKI, programs string, sc *scenario, f *fault, verbose bool) (res result) {
	if sc.managed {
		return runManaged(ctx, p, programs, f, verbose)
	}
	begin := time.Now()
	res.fault = f
	lost := func(name string, err error) { res.violations = append(res.violations, violation{name, err.Error()}) }
	r, err := newRig(ctx, p, programs, sc, f)
	if err != nil {
		lost("the lab itself", err)
		return res
	}
	r.verbose = verbose
	defer func() {
		r.mu.Lock()
		res.counts, res.trace, res.history, res.reached = r.counts, r.trace, r.history, r.struck
		res.made, res.told = len(r.store.all()), r.told
		r.mu.Unlock()
		res.log = r.tail.last(maxTail)
		// Its errors are those of taking down what was broken on purpose.
		_ = r.close()
		res.took = time.Since(begin)
	}()
	if err := r.start(ctx); err != nil {
		lost("the lab itself", err)
		return res
	}
	if f != nil && f.prepare != nil {
		if err := f.prepare(r); err != nil {
			lost("the lab itself", err)
			return res
		}
	}
	r.arm()
	id, ordered := r.orderOnce(ctx, sc)
	if err := r.converge(ctx, sc, id, ordered); err != nil {
		lost("converges", err)
	}
	res.journal = r.journalSize()
	if f != nil && f.afterwards != nil {
		if err := f.afterwards(r); err != nil {
			lost("the lab itself", err)
			return res
		}
		if err := r.converge(ctx, sc, "", true); err != nil {
			lost("converges", err)
		}
	}
	select {
	case <-r.strikes:
	default:
		if f != nil {
			return res // the fault has not met its place
		}
	}
	x := sc.expects()
	e, err := r.atRest(ctx, sc, x)
	if err != nil {
		lost("responsive", err)
	}
	e.StopError = r.terminate()
	readJournal(r.journalPath(), &e)
	if err == nil {
		res.violations = append(res.violations, check(e, x)...)
	}
	if f == nil && !sc.reached(r) {
		lost("done", fmt.Errorf("without a fault the card ends as %v, enabled %q", iccidsOf(r), enabledOf(r)))
	}
	for _, v := range res.violations {
		r.note("LOST %s", v)
	}
	return res
}

// orderOnce orders, as a user whose daemon may die under the order.
func (r *rig) orderOnce(ctx context.Context, sc *scenario) (id string, ok bool) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	j, err := sc.order(ctx, r)
	if err != nil {
		r.note("order: %v", err)
		return "", false
	}
	r.note("ordered: job %s", j.ID)
	return j.ID, true
}

// converge lets the daemon come to rest, starting it again when it is dead and
// ordering again what a user would.
func (r *rig) converge(ctx context.Context, sc *scenario, id string, ordered bool) error {
	limit := convergeLimit
	if f := r.current(); f != nil {
		limit += f.patience
	}
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	reorders, next := 0, time.Now().Add(reorderPause)
	seen := ""
	var lastStatus api.Status
	for tick := time.NewTicker(8 * time.Millisecond); ; {
		if r.dead() && !r.isOff() {
			r.mu.Lock()
			crashed := len(r.exits)
			r.mu.Unlock()
			if crashed > 2 {
				tick.Stop()
				return errors.New("the daemon dies again and again")
			}
			if err := r.start(ctx); err != nil {
				tick.Stop()
				return err
			}
		}
		status, err := r.client.Status(ctx)
		if err == nil {
			lastStatus = status
			if status.Job != nil && status.Job.State != seen {
				seen = status.Job.State
				r.note("job %s: %s", status.Job.ID, seen)
			}
			r.lift(status)
			if resting(status) && !r.busy() {
				again, err := r.wantsMore(ctx, sc, ordered)
				switch {
				case err != nil:
					r.note("jobs: %v", err)
				case !again:
					tick.Stop()
					return nil
				case reorders == maxReorders:
					tick.Stop()
					return fmt.Errorf("ordered %d times in vain", reorders+1)
				case time.Now().After(next):
					if _, ordered = r.orderOnce(ctx, sc); ordered {
						reorders++
					}
					next = time.Now().Add(reorderPause)
				}
			}
		}
		select {
		case <-ctx.Done():
			tick.Stop()
			job := ""
			if lastStatus.Job != nil {
				job = fmt.Sprintf(", job %s in %q", lastStatus.Job.ID, lastStatus.Job.State)
				if lastStatus.Job.Problem != nil {
					job += " because of " + lastStatus.Job.Problem.Error()
				}
			}
			detail := ""
			if lastStatus.Card.Problem != nil {
				detail += ", card: " + lastStatus.Card.Problem.Error()
			}
			if lastStatus.Notifications.LastError != nil {
				detail += ", delivery: " + lastStatus.Notifications.LastError.Error()
			}
			return fmt.Errorf("not at rest after %v: state %q%s, %d queued, %d notifications wait%s (%v)", limit, lastStatus.State, job, lastStatus.Queued,
				lastStatus.Notifications.Pending, detail, err)
		case <-tick.C:
		}
	}
}

// lift ends a lasting fault when the order that it was done to has ended.
func (r *rig) lift(s api.Status) {
	r.mu.Lock()
	over := r.armed && r.struck && s.Job == nil && s.Queued == 0 && r.fault != nil && r.fault.lasting
	r.mu.Unlock()
	if over {
		r.disarm()
		r.note("fault lifted")
	}
}

// resting reports whether the daemon has nothing to do.
func resting(s api.Status) bool {
	return s.Job == nil && s.Queued == 0 && (s.State == "ready" || s.State == "needs-provisioning") && s.Notifications.Pending == 0 && s.Journal == nil
}

// isOff reports whether the daemon is not to be started.
func (r *rig) isOff() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.parked
}

// busy reports whether the lab itself has something under way.
func (r *rig) busy() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.held > 0
}

// wantsMore decides for the user: an order that got lost, or that failed and
// may succeed when it is given again, is given again.
func (r *rig) wantsMore(ctx context.Context, sc *scenario, ordered bool) (bool, error) {
	j, err := r.lastJob(ctx)
	if err != nil {
		return false, err
	}
	switch {
	case j.ID == "":
		return !sc.reached(r), nil
	case !j.Ended:
		return false, errors.New("the status and the list of jobs do not agree")
	case j.State == "failed":
		r.note("job %s failed: %v", j.ID, j.Problem)
		return !sc.goesBack && j.Problem != nil && j.Problem.Retry && !sc.reached(r), nil
	}
	return !ordered && !sc.reached(r) && !sc.goesBack, nil
}

// atRest gathers the evidence, giving the modem a moment to come to rest too.
func (r *rig) atRest(ctx context.Context, sc *scenario, x expectation) (evidence, error) {
	limit := time.Now().Add(restLimit)
	for {
		e, err := r.evidence(ctx)
		if !sc.downloads() {
			e.Orders = nil
		}
		if err == nil && len(check(e, x)) == 0 || time.Now().After(limit) || ctx.Err() != nil {
			return e, err
		}
		time.Sleep(50 * time.Millisecond)
	}
}
