package runner

import (
	"context"
	"time"

	"lpad/agent/job"
	"lpad/internal/fault"
)

// clockLimit is how long a download waits for the clock to be set.
const clockLimit = 30 * time.Minute

// ErrClockNotSet means that no server can be judged yet.
var ErrClockNotSet = fault.New(fault.Fault{Code: "clock-not-set", Text: "the device's clock is not set", Retry: true, Who: fault.Technician,
	Next: "set the clock (time server, mobile network, or by hand), then try again"}, nil)

// clockReady reports whether servers can be judged.
func (r *Runner) clockReady(ctx context.Context) bool {
	ready := r.cfg.ClockReady == nil || r.cfg.ClockReady(ctx)
	if ready {
		r.warn("clock", "")
	} else if r.warn("clock", "the clock is not set: servers are not asked for anything until it is") {
		r.log.Warn("the clock is not set: servers are not asked for anything until it is")
	}
	return ready
}

// awaitClock waits until servers can be judged. It gives up when another job
// waits behind this one: a switch may be what brings the time.
func (r *Runner) awaitClock(ctx context.Context, j job.Job) error {
	ctx, cancel := context.WithTimeout(ctx, clockLimit)
	defer cancel()
	for !r.clockReady(ctx) {
		r.card.closeCard(ctx, r.log)
		r.pulse.Beat()
		if r.othersQueue(j) {
			return ErrClockNotSet
		}
		select {
		case <-ctx.Done():
			return ErrClockNotSet
		case <-time.After(r.retries.card):
		}
	}
	return nil
}

// othersQueue reports whether other jobs wait behind one, on the card's
// goroutine.
func (r *Runner) othersQueue(j job.Job) bool { return r.others(r.View().Jobs, j.ID) }
