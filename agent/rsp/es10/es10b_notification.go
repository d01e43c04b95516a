package es10

import (
	"context"
	"errors"
	"fmt"

	"lpad/agent/rsp"
	"lpad/apdu/ber"
)

const maxNotifications = 1024

// ListNotification lists the notifications that wait on the card, those of
// the given events or, with 0, all.
//
// SGP.22 v2.5, section 5.7.9 (ES10b.ListNotification).
func (c *Client) ListNotification(ctx context.Context, events rsp.Event) ([]rsp.Notification, error) {
	const fn = "ES10b.ListNotification"
	var filter []byte
	if events != 0 {
		filter = ber.EncodeBits(0x81, events.Bits())
	}
	t, err := c.call(ctx, fn, ber.Encode(0xBF28, filter))
	if err != nil {
		return nil, err
	}
	return listOf(fn, t, parseNotifications)
}

func parseNotifications(t ber.TLV) ([]rsp.Notification, error) {
	var list []rsp.Notification
	err := eachOfList(t, func(e ber.TLV) error {
		n, err := rsp.ParseNotification(e.Raw)
		list = append(list, n)
		return err
	})
	return list, err
}

// listOf reads an answer that is a list or a refusal.
func listOf[T any](fn string, t ber.TLV, parse func(ber.TLV) ([]T, error)) ([]T, error) {
	code, refused, err := errorCode(t)
	var list []T
	if err == nil && !refused {
		list, err = parse(t)
	}
	switch {
	case err != nil:
		return nil, malformed(fn, err)
	case refused:
		return nil, resultError(fn, rsp.GeneralResult(code))
	}
	return list, nil
}

// eachOfList goes over the elements of the list choice A0.
func eachOfList(t ber.TLV, use func(ber.TLV) error) error {
	r := t.Reader()
	list := r.Read(0xA0).Reader()
	for n := 1; ; n++ {
		e, ok := list.Next()
		if !ok {
			return errors.Join(r.Err(), list.Err())
		}
		if n > maxNotifications {
			return fmt.Errorf("more than %d elements", maxNotifications)
		}
		if err := use(e); err != nil {
			return fmt.Errorf("element %d: %w", n, err)
		}
	}
}

// RetrieveNotificationsList fetches signed notifications. There being none
// is no error: older cards answer with result 1, newer with an empty list.
//
// The search sits in an explicit A0 wrapper. Cards are known that want it
// without and answer undefinedError; exactly then it is tried so.
//
// SGP.22 v2.5, section 5.7.10 (ES10b.RetrieveNotificationsList).
func (c *Client) RetrieveNotificationsList(ctx context.Context, search rsp.NotificationSearch) ([]rsp.PendingNotification, error) {
	criteria := searchCriteria(search)
	if criteria == nil {
		return c.retrieve(ctx, nil)
	}
	list, err := c.retrieve(ctx, ber.Encode(0xA0, criteria))
	if errors.Is(err, rsp.GeneralUndefined) {
		if bare, berr := c.retrieve(ctx, criteria); berr == nil {
			return bare, nil
		}
	}
	return list, err
}

func searchCriteria(s rsp.NotificationSearch) []byte {
	switch {
	case s.SeqNumber != nil:
		return ber.EncodeInt(0x80, *s.SeqNumber)
	case s.Events != 0:
		return ber.EncodeBits(0x81, s.Events.Bits())
	}
	return nil
}

const nothingFound = 1 // noResultAvailable, until v2.4

func (c *Client) retrieve(ctx context.Context, criteria []byte) ([]rsp.PendingNotification, error) {
	const fn = "ES10b.RetrieveNotificationsList"
	t, err := c.call(ctx, fn, ber.Encode(0xBF2B, criteria))
	if err != nil {
		return nil, err
	}
	list, err := listOf(fn, t, parsePending)
	if errors.Is(err, rsp.GeneralResult(nothingFound)) {
		return nil, nil
	}
	return list, err
}

// parsePending leaves out what cannot be read, so that one odd notification
// does not block the others, unless there is nothing else.
func parsePending(t ber.TLV) ([]rsp.PendingNotification, error) {
	var list []rsp.PendingNotification
	var unread error
	err := eachOfList(t, func(e ber.TLV) error {
		n, err := rsp.ParsePendingNotification(e.Raw)
		if err == nil {
			list = append(list, n)
		} else if unread == nil {
			unread = err
		}
		return nil
	})
	if err == nil && list == nil {
		err = unread
	}
	return list, err
}

const nothingToDelete = 1

// RemoveNotificationFromList removes a notification from the card after its
// receiver has acknowledged it. One that is gone already counts as removed.
//
// SGP.22 v2.5, section 5.7.11 (ES10b.RemoveNotificationFromList).
func (c *Client) RemoveNotificationFromList(ctx context.Context, seqNumber int64) error {
	const fn = "ES10b.RemoveNotificationFromList"
	t, err := c.call(ctx, fn, ber.Encode(0xBF30, ber.EncodeInt(0x80, seqNumber)))
	if err != nil {
		return err
	}
	code, err := resultCode(t)
	switch {
	case err != nil:
		return malformed(fn, err)
	case code != 0 && code != nothingToDelete:
		return resultError(fn, rsp.GeneralResult(code))
	}
	return nil
}
