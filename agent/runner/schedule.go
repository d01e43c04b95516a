package runner

import (
	"context"
	"time"

	"lpad/agent/job"
)

// scheduleLook is how long a job that waits for its time goes without a look at
// the clock: clocks are set, and forwards too.
const scheduleLook = time.Minute

// dueLook is when the loop looks once more for work when it should have found
// some.
const dueLook = time.Second

// time is the best time there is.
func (r *Runner) time() time.Time {
	if r.cfg.Time != nil {
		return r.cfg.Time()
	}
	return r.cfg.Now()
}

// watchSchedule sets the timer for the job whose time comes first. One whose time
// has come gets the card from the loop when it is free; here only what could hold
// the card for a day is ended.
func (r *Runner) watchSchedule(ctx context.Context) {
	r.alarm.Stop()
	now := r.time()
	pause := time.Duration(-1)
	for _, j := range r.cfg.Journal.Jobs() {
		switch wait := j.Order.EnableAt.Sub(now); {
		case j.State != job.Scheduled:
		case j.Due(now):
			if r.active != "" && r.active != j.ID {
				r.makeWay(ctx)
			}
			pause = dueLook // its time may have come since the loop looked for work
		case pause < 0 || wait < pause:
			pause = wait
		}
	}
	if pause >= 0 {
		r.alarm.Reset(min(pause, r.retries.schedule))
	}
}

// askTime asks for the time when jobs wait for theirs and it is not known, as
// after a restart of a device that has it from its modem alone.
func (r *Runner) askTime(ctx context.Context) {
	if r.active != "" || r.running != taskNone || clockSet(r.time()) {
		return
	}
	r.begin(ctx, taskProbe, func(ctx context.Context) outcome {
		r.clockReady(ctx)
		r.card.close(ctx, r.log)
		return outcome{}
	})
}

// park lets a job wait for its time, without the card.
func (r *Runner) park(j job.Job) {
	delete(r.codes, j.ID)
	r.active = ""
	r.scheduleDelivery(len(r.View().Notifications) > 0 || j.Undelivered > 0)
	r.log.Info("the switch waits for its time", "job", j.ID, "until", j.Order.EnableAt)
}
