package euicc

import (
	"bytes"

	"lpad/agent/rsp"
	"lpad/apdu/ber"
)

// notification is a signed receipt in the list, as stored.
type notification struct {
	Seq     int64
	Event   rsp.Event
	Address string
	ICCID   *rsp.ICCID
	Raw     []byte // the whole TLV, BF37 or 30, as it will be delivered
}

// notificationFull says whether n more notifications would not fit into a card
// that refuses then.
func (c *Card) notificationFull(n int) bool {
	limit := c.config.NotificationLimit
	return n > 0 && limit > 0 && c.config.FullRefuses && len(c.mem.Notifications)+n > limit
}

// wanted counts the notifications that a profile asks for.
func (p *profile) wanted(event rsp.Event) int {
	n := 0
	for _, config := range p.Notifications {
		if config.Events&event != 0 {
			n++
		}
	}
	return n
}

// notify leaves the notifications that the profile asks for: one for each
// address (SGP.22 v2.5, section 3.5).
func (c *Card) notify(p *profile, event rsp.Event) {
	identity := c.identityOf(p.CI)
	for _, config := range p.Notifications {
		if config.Events&event == 0 {
			continue
		}
		meta := c.notificationMetadata(event, config.Address, &p.ICCID)
		c.list(notification{Event: event, Address: config.Address, ICCID: &p.ICCID, Raw: ber.Encode(0x30,
			meta,
			ber.Encode(0x5F37, identity.EUICC.Key.Sign(meta)),
			identity.EUICC.Certificate.DER,
			identity.EUM.DER)})
	}
}

// notificationMetadata encodes BF2F with the next sequence number.
func (c *Card) notificationMetadata(event rsp.Event, address string, iccid *rsp.ICCID) []byte {
	events := event.Bits().Marshal()
	if c.config.Quirks.LooseEvents {
		events[0] = 0
	}
	parts := [][]byte{ber.EncodeInt(0x80, c.mem.NextSequence), ber.Encode(0x81, events), ber.EncodeString(0x0C, address)}
	if iccid != nil {
		parts = append(parts, ber.Encode(0x5A, iccid[:]))
	}
	return ber.Encode(0xBF2F, parts...)
}

// list stores a notification under the next sequence number. It is not
// persistent before the commit of the function.
func (c *Card) list(n notification) {
	n.Seq = c.mem.NextSequence
	c.mem.NextSequence++
	c.mem.Notifications = append(c.mem.Notifications, n)
	if limit := c.config.NotificationLimit; limit > 0 && len(c.mem.Notifications) > limit {
		c.mem.Notifications = c.mem.Notifications[len(c.mem.Notifications)-limit:]
	}
}

// identityOf gives the identity under a CI, or the first one.
func (c *Card) identityOf(ci []byte) Identity {
	for _, i := range c.config.Identities {
		if bytes.Equal(i.CI(), ci) {
			return i
		}
	}
	return c.config.Identities[0]
}

// listNotification is SGP.22 v2.5, section 5.7.9.
func (c *Card) listNotification(t ber.TLV) ([]byte, uint16) {
	r := t.Reader()
	filter := rsp.AllEvents
	if e, ok := r.Optional(0x81); ok {
		events, err := parseEvents(e)
		if err != nil {
			return nil, swWrongData
		}
		filter = events
	}
	if r.Finish() != nil {
		return nil, swWrongData
	}
	var list [][]byte
	for _, n := range c.mem.Notifications {
		if n.Event&filter != 0 {
			list = append(list, n.metadata())
		}
	}
	return ber.Encode(t.Tag, ber.Encode(0xA0, list...)), swOK
}

// metadata cuts BF2F out of the stored receipt.
func (n notification) metadata() []byte {
	outer, err := ber.Parse(n.Raw)
	if err != nil {
		return nil // a stored state that was tampered with
	}
	if outer.Tag == 0xBF37 {
		return find(outer.Reader().Read(0xBF27), 0xBF2F).Raw
	}
	return outer.Reader().Read(0xBF2F).Raw
}

func find(t ber.TLV, tag ber.Tag) ber.TLV {
	e, _ := t.Reader().Find(tag)
	return e
}

// retrieveNotificationsList is SGP.22 v2.5, section 5.7.10.
func (c *Card) retrieveNotificationsList(t ber.TLV) ([]byte, uint16) {
	wanted, ok := notificationFilter(t)
	if !ok {
		return nil, swWrongData
	}
	var list [][]byte
	for _, n := range c.mem.Notifications {
		if wanted(n) {
			list = append(list, n.Raw)
		}
	}
	// noResultAvailable(1) is gone in v2.5.
	if list == nil && !c.config.Quirks.EmptyRetrieve && c.config.Info.SVN.Compare(rsp.Version{2, 5, 0}) < 0 {
		return choice1(t.Tag, 1), swOK
	}
	return ber.Encode(t.Tag, ber.Encode(0xA0, list...)), swOK
}

func notificationFilter(t ber.TLV) (func(notification) bool, bool) {
	r := t.Reader()
	criteria, given := r.Optional(0xA0)
	if r.Finish() != nil {
		return nil, false
	}
	if !given {
		return func(notification) bool { return true }, true
	}
	in := criteria.Reader()
	e, _ := in.Next()
	switch {
	case in.Finish() != nil:
	case e.Tag == 0x80:
		seq, err := e.Int()
		return func(n notification) bool { return n.Seq == seq }, err == nil
	case e.Tag == 0x81:
		events, err := parseEvents(e)
		return func(n notification) bool { return n.Event&events != 0 }, err == nil
	}
	return nil, false
}

// removeNotificationFromList is SGP.22 v2.5, section 5.7.11.
func (c *Card) removeNotificationFromList(t ber.TLV) ([]byte, uint16) {
	r := t.Reader()
	seq, err := r.Read(0x80).Int()
	if err != nil || r.Finish() != nil {
		return nil, swWrongData
	}
	for i, n := range c.mem.Notifications {
		if n.Seq == seq {
			c.mem.Notifications = append(c.mem.Notifications[:i:i], c.mem.Notifications[i+1:]...)
			c.commit()
			return result(t.Tag, 0), swOK
		}
	}
	return result(t.Tag, 1), swOK // nothingToDelete
}
