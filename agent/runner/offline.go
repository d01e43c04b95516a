package runner

import (
	"context"
	"slices"

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

// rewind begins a session of a job that is offline, and gives back the card for
// it: one that is not asked again what it has said before a restart.
func (r *Runner) rewind(j job.Job, card Card) Card {
	if !j.Order.Offline || r.cfg.Offline == nil {
		return card
	}
	if box := r.cfg.Offline.Box; box.Rewind(j.ID) {
		r.log.Info("going on with the packets of before", "job", j.ID)
	}
	return &packetCard{card, r}
}

// packetCard is the card of a session by packets.
type packetCard struct {
	Card
	r *Runner
}

// GetEUICCChallenge begins a session, unless one of before goes on.
func (c *packetCard) GetEUICCChallenge(ctx context.Context) ([]byte, error) {
	if b := c.r.cfg.Offline.Box.Said(packets.Initiate); b != nil {
		return b, nil
	}
	return c.Card.GetEUICCChallenge(ctx)
}

// AuthenticateServer goes on with a session, unless that was done before.
func (c *packetCard) AuthenticateServer(ctx context.Context, s rsp.ServerAuthentication, params []byte) ([]byte, error) {
	if b := c.r.cfg.Offline.Box.Said(packets.Authenticate); b != nil {
		return b, nil
	}
	return c.Card.AuthenticateServer(ctx, s, params)
}

// CancelSession ends a session, but not because lpad is stopped: it goes on then
// when lpad is back.
func (c *packetCard) CancelSession(ctx context.Context, id rsp.TransactionID, reason rsp.CancelReason) ([]byte, error) {
	if c.r.stopping.Load() {
		return nil, errStopping
	}
	return c.Card.CancelSession(ctx, id, reason)
}

// anew decides whether the session of a job that is offline is begun once more,
// because card or server have forgotten it meanwhile, which costs no order. The
// card is there again then.
func (r *Runner) anew(ctx context.Context, j job.Job, err error) bool {
	if err == nil || !j.Order.Offline || r.cfg.Offline == nil || ctx.Err() != nil {
		return false
	}
	f := fault.Of(err)
	if !slices.Contains([]string{"session-unknown", "card-session-lost", "challenge-mismatch", "installation-interrupted"}, f.Code) && !channelLost(err) {
		return false
	}
	if !r.cfg.Offline.Box.Void(f.Text) {
		return false
	}
	r.card.close(ctx, r.log)
	r.log.Warn("the session is begun anew, from its first packet", "job", j.ID, "code", f.Code, "err", err)
	return r.insist(ctx, func(card Card) error { _, err := card.GetEID(ctx); return err }) == nil
}

// channelLost reports whether what went wrong is the way to the card: no word of
// the card's eUICC, and none of a server.
func channelLost(err error) bool {
	if es10.IsRefusal(err) {
		return false
	}
	switch fault.Of(err).Code {
	case codeHangup, codeMissing, codeNoSIM, "card-channel-closed", "card-connection", "card-status", "card-conditions", "card-not-found", "card-undefined-error",
		"pcsc-lost", "pcsc-error", "pcsc-no-card", "pcsc-card-mute", "pcsc-no-service", "modem-error", "modem-not-found", "modem-bad-parameter", "timeout", "no-euicc":
		return true
	}
	return lineLost(err)
}

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
