package rsp

import (
	"errors"
	"fmt"
	"strings"

	"lpad/apdu/ber"
)

// Event is a set of profile management operations (SGP.22 v2.5, section
// 2.4a.1.1: NotificationEvent).
type Event uint8

// The operations that a notification reports.
const (
	EventInstall Event = 1 << iota
	EventEnable
	EventDisable
	EventDelete

	// AllEvents are the four of them.
	AllEvents = EventInstall | EventEnable | EventDisable | EventDelete
)

var eventNames = [...]string{"install", "enable", "disable", "delete"}

// String returns "install", "enable,disable" and so on.
func (e Event) String() string {
	var names []string
	for i, name := range eventNames {
		if e&(1<<i) != 0 {
			names = append(names, name)
		}
	}
	if names == nil {
		return "none"
	}
	return strings.Join(names, ",")
}

// Bits returns e as the named bits of an ES10b request.
func (e Event) Bits() ber.Bits {
	var set []int
	for i := range eventNames {
		if e&(1<<i) != 0 {
			set = append(set, i)
		}
	}
	return ber.NewBits(set...)
}

func parseEvent(t ber.TLV) (Event, error) {
	bits, err := t.Bits()
	if err != nil {
		return 0, err
	}
	var e Event
	for i := range eventNames {
		if bits.Has(i) {
			e |= 1 << i
		}
	}
	return e, nil
}

// Notification is what a signed receipt of the card is about (SGP.22 v2.5,
// section 2.4a.1.1: NotificationMetadata).
type Notification struct {
	SeqNumber int64  // one counter for the whole eUICC, never reset; may be 0
	Event     Event  // one of the four
	Address   string // FQDN of the receiver, made safe for display; see [Notification.Receiver]
	ICCID     ICCID
	HasICCID  bool
}

// Receiver is the address to deliver to: without white space, which some
// operators have written into their profiles, and in lower case, so that two
// spellings are one receiver.
func (n Notification) Receiver() string {
	return strings.ToLower(strings.Join(strings.Fields(n.Address), ""))
}

const maxAddress = 255

// ParseNotification reads a NotificationMetadata, tag BF2F.
func ParseNotification(b []byte) (Notification, error) {
	t, err := ber.Parse(b)
	if err != nil {
		return Notification{}, fmt.Errorf("notification metadata: %w", err)
	}
	n, err := parseNotification(t)
	if err != nil {
		return Notification{}, fmt.Errorf("notification metadata: %w", err)
	}
	return n, nil
}

func parseNotification(t ber.TLV) (n Notification, err error) {
	if t.Tag != 0xBF2F {
		return n, fmt.Errorf("tag %X, want BF2F", uint32(t.Tag))
	}
	r := t.Reader()
	seq := r.Read(0x80)
	events := r.Read(0x81)
	address := r.Read(0x0C)
	iccid, hasICCID := r.Find(0x5A)
	if err := r.Err(); err != nil {
		return n, err
	}
	if n.SeqNumber, err = seq.Int(); err != nil {
		return n, fmt.Errorf("seqNumber: %w", err)
	}
	if n.SeqNumber < 0 {
		return n, errors.New("seqNumber below zero")
	}
	if n.Event, err = parseEvent(events); err != nil {
		return n, fmt.Errorf("profileManagementOperation: %w", err)
	}
	if len(address.Value) > maxAddress {
		return n, fmt.Errorf("notificationAddress of %d bytes", len(address.Value))
	}
	n.Address = DisplayText(string(address.Value))
	if hasICCID {
		if n.ICCID, err = ICCIDFromBytes(iccid.Value); err != nil {
			return n, err
		}
		n.HasICCID = true
	}
	return n, nil
}

// PendingNotification is a signed receipt waiting on the card.
type PendingNotification struct {
	Notification
	Raw    []byte                     // the whole TLV, BF37 or 30, as it goes to the server
	Result *ProfileInstallationResult // of a BF37; nil for the others
}

// ParsePendingNotification reads one element of the list of
// ES10b.RetrieveNotificationsList: BF37 or 30 (SGP.22 v2.5, section 5.7.10).
func ParsePendingNotification(b []byte) (PendingNotification, error) {
	t, err := ber.Parse(b)
	if err != nil {
		return PendingNotification{}, fmt.Errorf("pending notification: %w", err)
	}
	switch t.Tag {
	case 0xBF37:
		res, err := ParseProfileInstallationResult(b)
		if err != nil {
			return PendingNotification{}, err
		}
		return PendingNotification{Notification: res.Notification, Raw: res.Raw, Result: &res}, nil
	case 0x30: // OtherSignedNotification: metadata, signature, CERT.EUICC, CERT.EUM
		r := t.Reader()
		meta := r.Read(0xBF2F)
		r.Read(0x5F37)
		if err := r.Err(); err != nil {
			return PendingNotification{}, fmt.Errorf("pending notification: %w", err)
		}
		n, err := parseNotification(meta)
		if err != nil {
			return PendingNotification{}, fmt.Errorf("pending notification: %w", err)
		}
		return PendingNotification{Notification: n, Raw: clone(t.Raw)}, nil
	}
	return PendingNotification{}, fmt.Errorf("pending notification: tag %X, want BF37 or 30", uint32(t.Tag))
}

// NotificationSearch chooses the notifications to retrieve: the one with
// SeqNumber, else those of Events, else all.
type NotificationSearch struct {
	SeqNumber *int64
	Events    Event
}

// BySeqNumber chooses one notification.
func BySeqNumber(n int64) NotificationSearch { return NotificationSearch{SeqNumber: &n} }

// clone keeps a value apart from the buffer it was read from.
func clone(b []byte) []byte { return append([]byte(nil), b...) }
