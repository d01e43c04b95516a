package runner

import (
	"context"
	"time"

	"lpad/agent/job"
)

// scheduleLook is how long a job that waits for its time goes without a look at
// the clock: clocks are set, and forwards too.
const scheduleLook = time.Minute

// time is the best time there is.
func (r *Runner) time() time.Time {
	if r.cfg.Time != nil {
		return r.cfg.Time()
	}
	return r.cfg.Now()
}

// watchSchedule sets the timer for the job whose time comes first.
func (r *Runner) watchSchedule() {
	r.alarm.Stop()
	now := r.time()
	pause := time.Duration(-1)
	for _, j := range r.cfg.Journal.Jobs() {
		if j.State != job.Scheduled || j.Due(now) {
			continue
		}
		if wait := j.Order.EnableAt.Sub(now); pause < 0 || wait < pause {
			pause = wait
		}
	}
	if pause >= 0 {
		r.alarm.Reset(min(pause, r.retries.schedule))
	}
}

// dueNow is the moment at which a job's time may have come. The loop gives it
// the card when it is free; here only what could hold the card for a day is
// ended.
func (r *Runner) dueNow(ctx context.Context) {
	if r.active != "" && r.othersWait(r.active) {
		r.makeWay(ctx)
	}
}

// park lets a job wait for its time, without the card.
func (r *Runner) park(j job.Job) {
	delete(r.codes, j.ID)
	r.active = ""
	r.scheduleDelivery(len(r.View().Notifications) > 0 || j.Undelivered > 0)
	r.log.Info("the switch waits for its time", "job", j.ID, "until", j.Order.EnableAt)
}
