package euicc

import "lpad/apdu/ber"

// Bits of the eUICC capabilities in TERMINAL CAPABILITY (SGP.22 v2.5, section
// 3.4.2): LUId, LPDd, LDSd.
const lpadCapabilities = 0x07

// terminalCapability notes whether the device has an LPAd.
func (c *Card) terminalCapability(_ *channel, cmd command) ([]byte, uint16) {
	t, err := ber.Parse(cmd.data)
	if err != nil || t.Tag != 0xA9 {
		return nil, swWrongData
	}
	if e, ok := t.Reader().Find(0x83); ok && len(e.Value) == 1 {
		c.terminalLPAd = e.Value[0]&lpadCapabilities == lpadCapabilities
	}
	return nil, swOK
}

// terminalProfile takes what the terminal supports; the card needs no more
// than REFRESH.
func (c *Card) terminalProfile(*channel, command) ([]byte, uint16) { return nil, swOK }

// envelope tolerates events and SMS that the card has no use for.
func (c *Card) envelope(*channel, command) ([]byte, uint16) { return nil, swOK }

// REFRESH qualifiers (ETSI TS 102 223, section 8.6).
const (
	refreshReset       = 0x04
	refreshStateChange = 0x09
)

// refresh leaves a REFRESH for the terminal (ETSI TS 102 223, section 6.6.13).
func (c *Card) refresh() {
	if c.config.Quirks.RefreshIsPlain {
		return
	}
	qualifier := byte(refreshReset)
	if c.config.Quirks.StateChangeRefresh {
		qualifier = refreshStateChange
	}
	c.proactive = ber.Encode(0xD0,
		[]byte{0x81, 0x03, 0x01, 0x01, qualifier}, // command details: number 1, REFRESH
		[]byte{0x82, 0x02, 0x81, 0x82})            // UICC to terminal
}

// fetch gives the proactive command. With a REFRESH the logical channels are
// gone; the new files are there after the reset, or the terminal response, that
// follows.
func (c *Card) fetch(_ *channel, cmd command) ([]byte, uint16) {
	switch {
	case c.proactive == nil:
		return nil, swConditions
	case cmd.le != len(c.proactive) && cmd.le != 256:
		return nil, swWrongLe | uint16(len(c.proactive))
	}
	c.fetched, c.proactive = c.proactive, nil
	for n, ch := range c.channels {
		if n != 0 {
			c.leave(ch)
			delete(c.channels, n)
		}
	}
	return c.fetched, swOK
}

// terminalResponse ends a proactive command. A REFRESH that went well means
// that the terminal has forgotten the old files.
func (c *Card) terminalResponse(_ *channel, cmd command) ([]byte, uint16) {
	if c.fetched == nil {
		return nil, swConditions
	}
	c.fetched = nil
	if performed(cmd.data) {
		*c.channels[0] = *newChannel(0)
		c.stale = false
		c.refreshFiles()
	}
	return nil, swOK
}

// performed looks for a result (tag 03, with or without the comprehension bit)
// that begins with 0X: performed.
func performed(response []byte) bool {
	r := ber.NewReader(response)
	for e, ok := r.Next(); ok; e, ok = r.Next() {
		if e.Tag&^0x80 == 0x03 {
			return len(e.Value) > 0 && e.Value[0] < 0x10
		}
	}
	return false
}

// toolkitBusy says whether a proactive command is under way.
func (c *Card) toolkitBusy() bool { return c.proactive != nil || c.fetched != nil }
