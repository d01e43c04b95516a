package runner

import (
	"context"
	"strings"

	"lpad/agent/job"
	"lpad/agent/packets"
	"lpad/agent/procedure"
	"lpad/agent/rsp"
	"lpad/agent/rsp/es10"
	"lpad/internal/fault"
)

// A job whose Order.Offline is set talks to its servers by packets, which
// somebody carries (agent/packets). Its requests wait for hours, on the card's
// goroutine, and with the channel to the card open: that the channel is still
// there proves that the card was not reset, and so still has its session.

// Offline is how requests reach servers without a network.
type Offline struct {
	Box  *packets.Box
	Open procedure.Opener // sessions through the box
}

// way is how a job reaches its servers.
func (r *Runner) way(j job.Job) Way {
	if j.Order.Offline && r.cfg.Offline != nil {
		return Way{Open: r.cfg.Offline.Open}
	}
	return Way{}
}

// rewind begins a session of a job that is offline: the card is not asked again
// what it has said before a restart, and keeps its session when lpad is stopped.
func (r *Runner) rewind(j job.Job, req *procedure.Request) {
	if j.Order.Offline && r.cfg.Offline != nil {
		box := r.cfg.Offline.Box
		if box.Rewind(j.ID) {
			r.log.Info("going on with the packets of before", "job", j.ID)
		}
		req.Said, req.GoesOn = box.Said, r.stopping.Load
	}
}

// anew decides whether the session of a job that is offline is begun once more,
// because card or server have forgotten it meanwhile, which costs no order. The
// card is there again then.
func (r *Runner) anew(ctx context.Context, j job.Job, err error) bool {
	if err == nil || !j.Order.Offline || r.cfg.Offline == nil || ctx.Err() != nil {
		return false
	}
	f := fault.Of(err)
	if !strings.Contains(forgotten, " "+f.Code+" ") && (es10.IsRefusal(err) || !strings.Contains(channelLost, " "+f.Code+" ") && !lineLost(err)) {
		return false
	}
	if !r.cfg.Offline.Box.Void(f.Text) {
		return false
	}
	r.card.close(ctx, r.log)
	r.log.Warn("the session is begun anew, from its first packet", "job", j.ID, "code", f.Code, "err", err)
	return r.insist(ctx, func(card Card) error { _, err := card.GetEID(ctx); return err }) == nil
}

// Codes of what is no word of the eUICC's and none of a server's on the order:
// one of the two does not know the session any more, or the way to the card broke.
const (
	forgotten   = " session-unknown card-session-lost challenge-mismatch installation-interrupted "
	channelLost = " modem-hangup port-missing sim-missing card-channel-closed card-connection card-status card-conditions card-not-found card-undefined-error" +
		" pcsc-lost pcsc-error pcsc-no-card pcsc-card-mute pcsc-no-service modem-error modem-not-found modem-bad-parameter timeout no-euicc "
)

// begunAnew is the event of a session that is begun anew after the offer.
func (r *Runner) begunAnew(ctx context.Context, j job.Job, e job.Event, err error) (job.Event, error) {
	if r.anew(ctx, j, err) {
		return job.Event{Kind: job.Interrupted, Note: "begun anew: " + fault.Of(err).Code}, nil
	}
	return e, err
}

// PacketsChanged lets those who follow the job know that a packet waits, or
// waits no longer. It is called on the card's goroutine.
func (r *Runner) PacketsChanged(job string) {
	if j, err := r.Job(job); err == nil {
		r.hub.publish(Event{At: r.cfg.Now().UTC(), Type: "job", Job: &j})
	}
}

// Pending reads what waits on the card, with the card's signatures, unless a job
// has the card.
func (r *Runner) Pending(ctx context.Context) (pending []rsp.PendingNotification, err error) {
	err = r.withList(ctx, func(card Card, list []rsp.Notification) error {
		pending, err = procedure.RetrieveNotifications(ctx, card, list)
		return err
	})
	return pending, err
}

// withList runs f with what waits on the card.
func (r *Runner) withList(ctx context.Context, f func(Card, []rsp.Notification) error) error {
	return r.WithCard(ctx, func(ctx context.Context) error {
		defer r.card.closeCard(ctx, r.log)
		return r.onCard(ctx, func(card Card) error {
			list, err := procedure.ListNotifications(ctx, card)
			if err == nil {
				r.change(func(v *View) { v.Notifications = list })
				err = f(card, list)
			}
			return err
		})
	})
}

// Carried takes the word of a server that somebody brought: open leads to it, for
// the notification of that number. Nothing is sent. One that is not on the card
// any more needs nothing.
func (r *Runner) Carried(ctx context.Context, seq int64, open procedure.Opener) error {
	return r.withList(ctx, func(card Card, list []rsp.Notification) error {
		for i, n := range list {
			if n.SeqNumber != seq {
				continue
			}
			left, err := r.deliverGroup(ctx, card, Way{Open: open}, group{receiver: n.Receiver(), list: list[i : i+1]}, 1)
			if len(left) == 0 {
				list = append(list[:i:i], list[i+1:]...)
				r.change(func(v *View) { v.Notifications = list })
			}
			r.noteDelivery(len(list), err)
			return err
		}
		return nil
	})
}
