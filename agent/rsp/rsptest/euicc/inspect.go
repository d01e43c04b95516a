package euicc

import (
	"bytes"
	"maps"
	"slices"

	"lpad/agent/rsp"
)

// ProfileState is a profile as a test sees it from behind the card.
type ProfileState struct {
	ICCID    rsp.ICCID
	AID      rsp.AID
	Enabled  bool
	Nickname string
	Class    Class
	PPR      rsp.PPR
	Size     int // bytes
}

// NotificationState is a notification in the list.
type NotificationState struct {
	SeqNumber int64
	Event     rsp.Event
	Address   string
	ICCID     rsp.ICCID // zero: none
	Raw       []byte    // as it will be delivered
}

// Profiles are the profiles on the card, in the order of their installation.
func (c *Card) Profiles() []ProfileState {
	c.mu.Lock()
	defer c.mu.Unlock()
	var list []ProfileState
	for _, p := range c.mem.Profiles {
		list = append(list, ProfileState{ICCID: p.ICCID, AID: p.AID, Enabled: p.Enabled, Nickname: p.Nickname,
			Class: classOf(p.Class), PPR: p.PPR, Size: p.Size})
	}
	return list
}

func classOf(wire int) Class {
	switch wire {
	case classTest:
		return Test
	case classProvisioning:
		return Provisioning
	}
	return Operational
}

// Notifications are the notifications that wait for delivery, oldest first.
func (c *Card) Notifications() []NotificationState {
	c.mu.Lock()
	defer c.mu.Unlock()
	var list []NotificationState
	for _, n := range c.mem.Notifications {
		state := NotificationState{SeqNumber: n.Seq, Event: n.Event, Address: n.Address, Raw: bytes.Clone(n.Raw)}
		if n.ICCID != nil {
			state.ICCID = *n.ICCID
		}
		list = append(list, state)
	}
	return list
}

// OpenChannels are the numbers of the open logical channels, without the basic
// one, in ascending order.
func (c *Card) OpenChannels() []int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.DeleteFunc(slices.Sorted(maps.Keys(c.channels)), func(n int) bool { return n == 0 })
}

// EnabledICCID is the profile that is enabled now, as ES10 sees it.
func (c *Card) EnabledICCID() (rsp.ICCID, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if p := c.mem.enabled(); p != nil {
		return p.ICCID, true
	}
	return rsp.ICCID{}, false
}

// VisibleICCID is the profile whose files the modem sees: the one that was
// enabled at the last reset or REFRESH.
func (c *Card) VisibleICCID() (rsp.ICCID, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if f := c.visible.find(fidMF, fidICCID); f != nil && c.visible.hasUSIM() {
		id, err := rsp.ICCIDFromBytes(f.Data)
		return id, err == nil
	}
	return rsp.ICCID{}, false
}

// DefaultSMDP is the default SM-DP+ address.
func (c *Card) DefaultSMDP() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.mem.DefaultSMDP
}

// FreeMemory is what is left for profiles, in bytes.
func (c *Card) FreeMemory() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.freeMemory()
}

// SessionState is where the RSP session stands: "idle", "challenged",
// "authenticated", "bound" or "loading".
func (c *Card) SessionState() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return sessionStates[c.session.state]
}

// ProactiveCommand is the proactive command that waits for FETCH, nil when
// none does. A modem that polls the card asks with it whether it has to fetch.
func (c *Card) ProactiveCommand() []byte {
	c.mu.Lock()
	defer c.mu.Unlock()
	return bytes.Clone(c.proactive)
}

// HasPower says whether the card is on.
func (c *Card) HasPower() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.on
}

// EID is the identifier of the card.
func (c *Card) EID() rsp.EID { return c.config.EID }

// Stats are the counters since New or [Card.ResetStats].
func (c *Card) Stats() Stats {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.stats
}

// ResetStats sets the counters to zero.
func (c *Card) ResetStats() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.stats = Stats{}
}

// CutPower takes the power away, as a pulled card: until [Card.Reset] nothing
// answers.
func (c *Card) CutPower() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.on = false
	c.forget()
}
