package procedure

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sort"
	"time"

	"lpad/agent/rsp"
	"lpad/agent/rsp/es9p"
)

// Delivery is what became of one notification.
type Delivery struct {
	rsp.Notification
	Acknowledged bool  // the receiver has it
	Err          error // why it was not delivered, or not removed from the card

	// RetryAfter is how long the receiver asks to be left alone; 0 if it does not.
	RetryAfter time.Duration
}

// ErrHeldBack is the error of a notification that was not sent because an
// earlier one to the same receiver did not get through: the receiver must see
// them in order.
var ErrHeldBack = errors.New("held back: an earlier notification to this receiver waits")

// ListNotifications lists what waits on the card, in the order of the events.
func ListNotifications(ctx context.Context, card NotificationCard) ([]rsp.Notification, error) {
	list, err := card.ListNotification(ctx, 0)
	if err != nil {
		return nil, err
	}
	sort.Slice(list, func(i, j int) bool { return list[i].SeqNumber < list[j].SeqNumber })
	return list, nil
}

// RetrieveNotifications fetches the signed notifications of a list, one by
// one, since all at once can be long. One that is gone meanwhile is left out;
// one that cannot be read is left out and in the error, and so are the later
// ones to the same receiver, who must see them in order.
func RetrieveNotifications(ctx context.Context, card NotificationCard, list []rsp.Notification) ([]rsp.PendingNotification, error) {
	var pending []rsp.PendingNotification
	var errs []error
	unread := map[string]bool{} // receivers
	for _, n := range list {
		if unread[n.Receiver()] {
			continue
		}
		if err := ctx.Err(); err != nil {
			return pending, errors.Join(append(errs, err)...)
		}
		found, err := card.RetrieveNotificationsList(ctx, rsp.BySeqNumber(n.SeqNumber))
		if err != nil {
			errs = append(errs, fmt.Errorf("notification %d: %w", n.SeqNumber, err))
			unread[n.Receiver()] = true
			continue
		}
		for _, p := range found {
			if p.SeqNumber == n.SeqNumber {
				pending = append(pending, p)
			}
		}
	}
	return pending, errors.Join(errs...)
}

// Deliver sends notifications to their receivers, for each receiver in the
// order of their sequence numbers, and removes from the card those that were
// acknowledged, and only those. A receiver that does not answer stops its own
// notifications and nobody else's. A notification that occurs twice, as an
// installation result in hand does in the card's list, is sent once.
//
// There is one Delivery for each notification, by receiver and number.
//
// SGP.22 v2.5, section 3.5.
func Deliver(ctx context.Context, card NotificationCard, open Opener, pending []rsp.PendingNotification) []Delivery {
	sorted := slices.Clone(pending)
	sort.SliceStable(sorted, func(i, j int) bool {
		a, b := sorted[i], sorted[j]
		return cmp.Or(cmp.Compare(a.Receiver(), b.Receiver()), cmp.Compare(a.SeqNumber, b.SeqNumber)) < 0
	})
	sorted = slices.CompactFunc(sorted, func(a, b rsp.PendingNotification) bool {
		return a.SeqNumber == b.SeqNumber && a.Receiver() == b.Receiver()
	})
	var all []Delivery
	for len(sorted) > 0 {
		receiver := sorted[0].Receiver()
		n := slices.IndexFunc(sorted, func(p rsp.PendingNotification) bool { return p.Receiver() != receiver })
		if n < 0 {
			n = len(sorted)
		}
		all = append(all, deliverGroup(ctx, card, open, receiver, sorted[:n])...)
		sorted = sorted[n:]
	}
	return all
}

// deliverGroup serves one receiver.
func deliverGroup(ctx context.Context, card NotificationCard, open Opener, receiver string, group []rsp.PendingNotification) []Delivery {
	list := make([]Delivery, len(group))
	for i, p := range group {
		list[i] = Delivery{Notification: p.Notification, Err: ErrHeldBack}
	}
	server, err := open(receiver)
	if err != nil {
		list[0].Err = err
		return list
	}
	defer server.Close() // nothing hangs on how an idle connection ends
	for i, p := range group {
		if err := ctx.Err(); err != nil {
			list[i].Err = err
			break
		}
		if err := server.HandleNotification(ctx, p.Raw); err != nil {
			list[i].Err = fmt.Errorf("notification %d to %s: %w", p.SeqNumber, receiver, err)
			var busy *es9p.HTTPError
			if errors.As(err, &busy) {
				list[i].RetryAfter = busy.RetryAfter
			}
			break
		}
		list[i].Acknowledged = true
		list[i].Err = card.RemoveNotificationFromList(ctx, p.SeqNumber)
	}
	return list
}
