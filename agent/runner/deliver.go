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
)

// Limits of one round of deliveries: servers that do not answer must not hold
// a job up, least of all the switch that comes after the report of step 4.
// What is not delivered then goes out in the background, where a round may be
// longer: a job ends it, and who asks for the card waits no longer than that.
// A receiver gets its share of the round, and at least the least that a port
// needs that is shared with the network.
const (
	deliverLimit    = 45 * time.Second
	backgroundLimit = 90 * time.Second
	leastShare      = 30 * time.Second
	switchLimit     = 10 * time.Second // before a switch: one try, which must not delay it
)

// deliverForJob sends what the card has to say, for steps 4 and 10 and at the
// end of a job. It never fails the job: what cannot be delivered waits. Only
// when the daemon stops in the middle it is an error, so that it is done again.
func (r *Runner) deliverForJob(whole context.Context, j job.Job) (job.Event, error) {
	defer r.card.close(whole, r.log)
	e, err := r.deliverWithin(whole, j)
	if err == nil && e.Undelivered > 0 {
		err = whole.Err()
	}
	if err == nil {
		err = r.runHooks(whole, j, &e)
	}
	return e, err
}

func (r *Runner) deliverWithin(ctx context.Context, j job.Job) (job.Event, error) {
	e := job.Event{Kind: job.Delivered}
	if !r.clockReady(ctx) {
		e.Undelivered, e.Note = max(1, len(r.View().Notifications)), "the clock is not set: notifications wait"
		r.noteDelivery(e.Undelivered, ErrClockNotSet)
		return e, nil
	}
	limit, way := deliverLimit, Way{}
	if j.State == job.Reporting && j.Order.Enable { // the switch waits
		way.Limit = r.retries.beforeSwitch
		if !r.sharedPort() { // else the network must come up first, which takes longer than the call
			limit = way.Limit
		}
	}
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	if j.State == job.Reporting && r.card.result != nil && len(r.View().Notifications) == 0 && !j.Order.Offline {
		// The result is in hand, and so is the server that must get it. When
		// others wait, they are older and go first.
		e.Undelivered = r.deliverResult(ctx, *r.card.result, way)
		return e, nil
	}
	if j.State == job.Confirming && len(j.Switch.Link) > 0 {
		if err := json.Unmarshal(j.Switch.Link, &way.Link); err != nil {
			r.log.Warn("link of the switch not read", "job", j.ID, "err", err)
		}
	}
	left, err := r.deliverAll(ctx, way, r.forJob(j))
	e.Undelivered = left
	if err != nil || left > 0 {
		e.Note = "not everything was delivered; the rest goes out by itself"
	}
	return e, nil
}

// choice says which receivers a round of deliveries tries.
type choice func(q *queue, receiver string, now time.Time) bool

// due chooses those whose pause is over.
func due(q *queue, receiver string, now time.Time) bool { return !q.due(receiver).After(now) }

// everyone chooses all: a person wants to see it tried.
func everyone(*queue, string, time.Time) bool { return true }

// only chooses one.
func only(address string) choice {
	return func(_ *queue, receiver string, _ time.Time) bool { return receiver == address }
}

// forJob chooses those that are due, and those of whom something new is known:
// after a switch the way to all of them is another one, and the server of a
// download has just been talked to. What a server asked for itself is
// honoured all the same.
func (r *Runner) forJob(j job.Job) choice {
	afresh := !j.Switch.Started.IsZero() && j.State != job.Reporting
	var here string
	if r.card.session != nil {
		here = rsp.Notification{Address: r.card.session.Request.Address}.Receiver()
	}
	return func(q *queue, receiver string, now time.Time) bool {
		s := q.Receivers[receiver]
		return s == nil || !s.Hold.After(now) && (afresh || receiver == here || !s.Next.After(now))
	}
}

// deliverResult delivers an installation result over the session that is open
// with its server, and returns how many notifications are left.
func (r *Runner) deliverResult(ctx context.Context, p rsp.PendingNotification, way Way) int {
	open := r.open(way)
	if s, server := r.card.session, r.card.server; s != nil && server != nil && (way.Limit == 0 || !r.sharedPort()) {
		open = func(address string) (procedure.Server, error) {
			if address == s.Request.Address {
				return procedure.Keep(server), nil
			}
			return r.open(way)(address)
		}
	}
	waiting := []rsp.Notification{p.Notification}
	err := r.onCard(ctx, func(card Card) error {
		deliveries := procedure.Deliver(ctx, card, open, []rsp.PendingNotification{p})
		r.account(ctx, deliveries)
		var err error
		waiting, err = remaining(waiting, deliveries)
		return err
	})
	r.change(func(v *View) { // the others stay as they are
		others := slices.DeleteFunc(slices.Clone(v.Notifications), func(n rsp.Notification) bool { return n.SeqNumber == p.SeqNumber })
		v.Notifications = append(others, waiting...)
	})
	r.noteDelivery(len(waiting), err)
	return len(waiting)
}

// account notes how it stands with the receivers after deliveries. One that
// was cut short by something more urgent has not failed.
func (r *Runner) account(ctx context.Context, deliveries []procedure.Delivery) {
	now := r.cfg.Now()
	r.withQueue(func(q *queue) {
		for _, d := range deliveries {
			switch {
			case d.Acknowledged:
				q.served(d.Receiver())
			case errors.Is(ctx.Err(), context.Canceled), errors.Is(d.Err, procedure.ErrHeldBack):
			default:
				q.failed(d.Receiver(), d.Err, d.RetryAfter, now, r.cfg.DeliverRetry)
			}
		}
	})
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

// deliverAll delivers what waits on the card for the receivers of a choice,
// and returns how many still wait for anybody: at least one when the card
// could not be read. The receivers share the time that is left, so that none
// can use up the others'.
func (r *Runner) deliverAll(ctx context.Context, way Way, chosen choice) (left int, err error) {
	left = max(1, len(r.View().Notifications))
	err = r.onCard(ctx, func(card Card) error {
		list, err := procedure.ListNotifications(ctx, card)
		if err != nil {
			return err
		}
		r.change(func(v *View) { v.Notifications = list })
		left = len(list)
		var groups []group
		now := r.cfg.Now()
		r.withQueue(func(q *queue) {
			for _, g := range q.groups(list) {
				if chosen(q, g.receiver, now) {
					groups = append(groups, g)
				}
			}
		})
		var errs []error
		for i, g := range groups {
			if ctx.Err() != nil {
				errs = append(errs, ctx.Err())
				break
			}
			waiting, err := r.deliverGroup(ctx, card, way, g, len(groups)-i)
			errs = append(errs, err)
			list = slices.DeleteFunc(slices.Clone(list), func(n rsp.Notification) bool {
				return n.Receiver() == g.receiver && !slices.ContainsFunc(waiting, func(w rsp.Notification) bool { return w.SeqNumber == n.SeqNumber })
			})
			r.change(func(v *View) { v.Notifications = list })
			left = len(list)
		}
		return errors.Join(errs...)
	})
	r.noteDelivery(left, err)
	return left, err
}

// deliverGroup delivers what waits for one receiver, in its share of the time,
// and returns what still waits.
func (r *Runner) deliverGroup(whole context.Context, card Card, way Way, g group, sharers int) ([]rsp.Notification, error) {
	ctx := whole
	if end, ok := whole.Deadline(); ok {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(whole, max(time.Until(end)/time.Duration(sharers), leastShare))
		defer cancel()
	}
	pending, unread := procedure.RetrieveNotifications(ctx, card, g.list)
	list := g.list
	if unread == nil { // what is listed and not there is gone
		list = slices.DeleteFunc(slices.Clone(list), func(n rsp.Notification) bool {
			return !slices.ContainsFunc(pending, func(p rsp.PendingNotification) bool { return p.SeqNumber == n.SeqNumber })
		})
	}
	deliveries := procedure.Deliver(ctx, card, r.open(way), pending)
	r.account(whole, deliveries)
	list, err := remaining(list, deliveries)
	return list, errors.Join(unread, err)
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
	r.begin(ctx, taskDeliver, r.round(due))
}

// round is a task that delivers in the background.
func (r *Runner) round(chosen choice) func(context.Context) outcome {
	return func(ctx context.Context) outcome {
		ctx, cancel := context.WithTimeout(ctx, backgroundLimit)
		defer cancel()
		if !r.clockReady(ctx) {
			r.card.close(ctx, r.log)
			left := max(1, len(r.View().Notifications))
			r.noteDelivery(left, ErrClockNotSet)
			return outcome{left: left, err: ErrClockNotSet}
		}
		left, err := r.deliverAll(ctx, Way{}, chosen)
		r.card.close(ctx, r.log)
		return outcome{left: left, err: err}
	}
}

// delivered plans the next delivery after one in the background.
func (r *Runner) delivered(o outcome) {
	r.clock = errors.Is(o.err, ErrClockNotSet)
	switch {
	case o.left == 0, r.clock:
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
	pause := r.untilDelivery()
	r.deliver.Reset(pause)
	next := r.cfg.Now().Add(pause).UTC()
	r.change(func(v *View) { v.NextTry = next })
}

// untilDelivery is the time until a receiver is due. One that is due already
// was not reached in the last round, and the card may be the reason: then the
// backoff is that of the rounds.
func (r *Runner) untilDelivery() time.Duration {
	if r.clock { // nobody has refused anything: it is the clock that is looked at
		return r.retries.card
	}
	var pause time.Duration
	v := r.View()
	now := r.cfg.Now()
	r.withQueue(func(q *queue) {
		if at := q.next(v.Notifications); at.After(now) {
			pause = at.Sub(now)
		}
	})
	if pause > 0 {
		r.failures = 0
		return pause
	}
	return r.cfg.DeliverRetry.after(max(r.failures, 1))
}
