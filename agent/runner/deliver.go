package runner

import (
	"context"
	"encoding/json"
	"errors"
	"slices"
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
// end of a job. It never fails the job: what cannot be delivered waits. Only
// when the daemon stops in the middle it is an error, so that it is done again.
func (r *Runner) deliverForJob(whole context.Context, j job.Job) (job.Event, error) {
	defer r.card.close(whole, r.log)
	e, err := r.deliverWithin(whole, j)
	if err == nil && e.Undelivered > 0 {
		err = whole.Err()
	}
	return e, err
}

func (r *Runner) deliverWithin(ctx context.Context, j job.Job) (job.Event, error) {
	e := job.Event{Kind: job.Delivered}
	ctx, cancel := context.WithTimeout(ctx, deliverLimit)
	defer cancel()
	if j.State == job.Reporting && r.card.result != nil && len(r.View().Notifications) == 0 {
		// The result is in hand, and so is the server that must get it. When
		// others wait, they are older and go first.
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
	waiting := []rsp.Notification{p.Notification}
	err := r.onCard(ctx, func(card Card) error {
		var err error
		waiting, err = remaining(waiting, procedure.Deliver(ctx, card, open, []rsp.PendingNotification{p}))
		return err
	})
	r.change(func(v *View) { // the others stay as they are
		others := slices.DeleteFunc(slices.Clone(v.Notifications), func(n rsp.Notification) bool { return n.SeqNumber == p.SeqNumber })
		v.Notifications = append(others, waiting...)
	})
	r.noteDelivery(len(waiting), err)
	return len(waiting)
}

// remaining takes what was delivered off a list.
func remaining(list []rsp.Notification, deliveries []procedure.Delivery) ([]rsp.Notification, error) {
	var errs []error
	done := map[int64]bool{}
	for _, d := range deliveries {
		done[d.SeqNumber] = d.Err == nil
		errs = append(errs, d.Err)
	}
	return slices.DeleteFunc(slices.Clone(list), func(n rsp.Notification) bool { return done[n.SeqNumber] }), errors.Join(errs...)
}

// deliverAll delivers everything that waits on the card, and returns how many
// still wait: at least one when the card could not be read.
func (r *Runner) deliverAll(ctx context.Context, link modem.Link) (left int, err error) {
	left = max(1, len(r.View().Notifications))
	err = r.onCard(ctx, func(card Card) error {
		list, err := procedure.ListNotifications(ctx, card)
		if err != nil {
			return err
		}
		pending, unread := procedure.RetrieveNotifications(ctx, card, list)
		if unread == nil { // what is listed and not there is gone
			list = slices.DeleteFunc(list, func(n rsp.Notification) bool {
				return !slices.ContainsFunc(pending, func(p rsp.PendingNotification) bool { return p.SeqNumber == n.SeqNumber })
			})
		}
		list, err = remaining(list, procedure.Deliver(ctx, card, r.open(link), pending))
		r.change(func(v *View) { v.Notifications = list })
		left = len(list)
		return errors.Join(unread, err)
	})
	r.noteDelivery(left, err)
	return left, err
}

func (r *Runner) noteDelivery(left int, err error) {
	if errors.Is(err, context.Canceled) {
		return // nobody refused: something more urgent came
	}
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
	switch {
	case o.left == 0:
		r.failures = 0
	case !errors.Is(o.err, context.Canceled):
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
