package runner

import (
	"context"
	"encoding/json"
	"errors"
	"time"

	"lpad/agent/job"
	"lpad/agent/procedure"
	"lpad/agent/rsp"
	"lpad/modem"
)

// deliverLimit bounds one round of deliveries: servers that do not answer must
// not hold a job up. What is not delivered then goes out in the background.
const deliverLimit = 45 * time.Second

// deliverForJob sends what the card has to say, for steps 4 and 10 and at the
// end of a job. It never fails the job: what cannot be delivered waits.
func (r *Runner) deliverForJob(ctx context.Context, j job.Job) (job.Event, error) {
	defer r.card.close(ctx, r.log)
	e := job.Event{Kind: job.Delivered}
	ctx, cancel := context.WithTimeout(ctx, deliverLimit)
	defer cancel()
	if j.State == job.Reporting && r.card.result != nil {
		// The result is in hand, and so is the server that must get it.
		e.Undelivered = r.deliverResult(ctx, *r.card.result)
		return e, nil
	}
	var link modem.Link
	if j.State == job.Confirming && len(j.Switch.Link) > 0 {
		if err := json.Unmarshal(j.Switch.Link, &link); err != nil {
			r.log.Warn("link of the switch not read", "job", j.ID, "err", err)
		}
	}
	left, err := r.deliverAll(ctx, link)
	e.Undelivered = left
	if err != nil {
		e.Note = "not everything was delivered; the rest goes out by itself"
	}
	return e, nil
}

// deliverResult delivers an installation result over the session that is open
// with its server, and returns how many notifications are left.
func (r *Runner) deliverResult(ctx context.Context, p rsp.PendingNotification) int {
	open := r.open(modem.Link{})
	if s, server := r.card.session, r.card.server; s != nil && server != nil {
		open = func(address string) (procedure.Server, error) {
			if address == s.Request.Address {
				return procedure.Keep(server), nil
			}
			return r.cfg.Servers.OpenServer(address, modem.Link{})
		}
	}
	left := 1
	err := r.onCard(ctx, func(card Card) error {
		var errs []error
		for _, d := range procedure.Deliver(ctx, card, open, []rsp.PendingNotification{p}) {
			if d.Err == nil {
				left--
			}
			errs = append(errs, d.Err)
		}
		return errors.Join(errs...)
	})
	r.noteDelivery(left, err)
	return left
}

// deliverAll delivers everything that waits on the card.
func (r *Runner) deliverAll(ctx context.Context, link modem.Link) (left int, err error) {
	var remaining []rsp.Notification
	err = r.onCard(ctx, func(card Card) error {
		deliveries, err := procedure.DeliverAll(ctx, card, r.open(link))
		errs := []error{err}
		for _, d := range deliveries {
			if d.Err != nil {
				remaining = append(remaining, d.Notification)
			}
			errs = append(errs, d.Err)
		}
		return errors.Join(errs...)
	})
	left = len(remaining)
	if err != nil && left == 0 {
		left = 1 // the card could not be read: something may wait
	}
	r.change(func(v *View) { v.Notifications = remaining })
	r.noteDelivery(left, err)
	return left, err
}

func (r *Runner) noteDelivery(left int, err error) {
	r.change(func(v *View) { v.DeliverErr = err })
	if err != nil {
		r.log.Warn("notifications wait", "count", left, "err", err)
	}
	r.hub.publish(Event{At: r.cfg.Now().UTC(), Type: "notification"})
}

// deliverInBackground tries again what could not be delivered.
func (r *Runner) deliverInBackground(ctx context.Context) {
	if r.running != taskNone || r.active != "" {
		r.scheduleDelivery(true)
		return
	}
	r.begin(ctx, taskDeliver, func(ctx context.Context) outcome {
		ctx, cancel := context.WithTimeout(ctx, deliverLimit)
		defer cancel()
		left, err := r.deliverAll(ctx, modem.Link{})
		r.card.close(ctx, r.log)
		return outcome{left: left, err: err}
	})
}

// delivered plans the next delivery after one in the background.
func (r *Runner) delivered(o outcome) {
	if o.left == 0 {
		r.failures = 0
	} else {
		r.failures++
	}
	r.scheduleDelivery(o.left > 0)
}

// scheduleDelivery plans the next delivery, or none.
func (r *Runner) scheduleDelivery(waiting bool) {
	r.deliver.Stop()
	if !waiting {
		r.change(func(v *View) { v.NextTry = time.Time{} })
		return
	}
	pause := r.cfg.DeliverRetry.after(max(r.failures, 1))
	r.deliver.Reset(pause)
	next := r.cfg.Now().Add(pause).UTC()
	r.change(func(v *View) { v.NextTry = next })
}
