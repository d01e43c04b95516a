package modemtest_test

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"slices"
	"sync"
	"testing"
)

// profile is one SIM of the test card.
type profile struct {
	iccid, imsi string // digits
	spn         string
	mncLength   byte
}

var (
	profileA = profile{iccid: "8933010000000000001", imsi: "001010123456789", spn: "TestOne", mncLength: 2}
	profileB = profile{iccid: "89440200000000000022", imsi: "234150000000022", spn: "ProfileB", mncLength: 2}
)

var (
	isdr    = unhex("A0000005591010FFFFFFFF8900000100")
	usim    = unhex("A0000000871002FF33FF018900000100")
	getEID  = unhex("BF3E035C015A")
	eidTLV  = unhex("BF3E125A1089049032123451234512345678901235")
	enableB = byte(0xEB) // INS of the test card: switch to profile P1, REFRESH with qualifier P2 when not zero
)

// card is a tiny SIM: the files that a modem reads, three logical channels, an
// ISD-R that knows GetEID, and a command to switch profiles.
type card struct {
	mu       sync.Mutex
	profiles []profile
	enabled  int // -1: none
	dead     bool
	resets   int
	seen     [][]byte // all commands

	files    map[int]uint16 // current file of a channel
	channels map[int][]byte // open channels: application selected
	pending  []byte         // for GET RESPONSE
	fetch    []byte         // proactive command waiting
	switchTo int            // done by the TERMINAL RESPONSE or the reset after a REFRESH
}

func newCard(profiles ...profile) *card {
	c := &card{profiles: profiles, switchTo: -1}
	c.power()
	return c
}

func (c *card) power() {
	c.files, c.channels, c.pending, c.fetch = map[int]uint16{}, map[int][]byte{0: nil}, nil, nil
	if c.switchTo >= 0 {
		c.enabled, c.switchTo = c.switchTo, -1
	}
}

func (c *card) Reset() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.resets++
	c.power()
}

// enable switches as an EnableProfile without refresh does.
func (c *card) enable(n int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.enabled = n
}

func (c *card) kill() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.dead = true
}

func (c *card) commands() [][]byte {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.seen)
}

func (c *card) Transmit(_ context.Context, b []byte) ([]byte, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.seen = append(c.seen, slices.Clone(b))
	if c.dead {
		return nil, errors.New("no contact")
	}
	if len(b) < 4 {
		return unhex("6700"), nil
	}
	channel := int(b[0] & 0x03)
	if b[0]&0x40 != 0 {
		channel = 4 + int(b[0]&0x0F)
	}
	if _, open := c.channels[channel]; !open {
		return unhex("6881"), nil
	}
	var body []byte
	if len(b) > 5 {
		body = b[5:min(len(b), 5+int(b[4]))]
	}
	out := c.run(channel, b[1], b[2], b[3], body, b)
	if c.fetch != nil && bytes.Equal(out[len(out)-2:], unhex("9000")) {
		return append(out[:len(out)-2], 0x91, byte(len(c.fetch))), nil
	}
	return out, nil
}

func (c *card) run(channel int, ins, p1, p2 byte, body, b []byte) []byte {
	switch ins {
	case 0x10: // TERMINAL PROFILE
		return unhex("9000")
	case 0x12: // FETCH
		out := append(slices.Clone(c.fetch), 0x90, 0x00)
		c.fetch = nil
		return out
	case 0x14: // TERMINAL RESPONSE
		if c.switchTo >= 0 {
			c.enabled, c.switchTo = c.switchTo, -1
		}
		return unhex("9000")
	case enableB:
		if p2 == 0 {
			c.enabled = int(p1)
			return unhex("9000")
		}
		c.switchTo = int(p1)
		c.fetch = append(unhex("D009810301 01"), p2, 0x82, 0x02, 0x81, 0x82)
		return unhex("9000")
	case 0x70:
		return c.manageChannel(p1, p2)
	case 0xC0:
		n := min(int(b[4]), len(c.pending))
		out := append(slices.Clone(c.pending[:n]), 0x90, 0x00)
		c.pending = c.pending[n:]
		return out
	case 0xA4:
		return c.selectFile(channel, p1, body)
	case 0xB0:
		return c.read(channel, b)
	case 0xE2:
		if bytes.Equal(c.channels[channel], isdr) && bytes.Equal(body, getEID) {
			c.pending = eidTLV
			return []byte{0x61, byte(len(eidTLV))}
		}
	}
	return unhex("6D00")
}

func (c *card) manageChannel(p1, p2 byte) []byte {
	if p1 == 0x80 {
		delete(c.channels, int(p2))
		return unhex("9000")
	}
	for n := 1; n <= 5; n++ {
		if _, open := c.channels[n]; !open {
			c.channels[n] = nil
			return []byte{byte(n), 0x90, 0x00}
		}
	}
	return unhex("6A81")
}

func (c *card) selectFile(channel int, p1 byte, body []byte) []byte {
	if p1 == 0x04 {
		switch {
		case bytes.Equal(body, isdr):
			c.channels[channel] = isdr
		case bytes.HasPrefix(usim, body) && c.enabled >= 0:
			c.channels[channel] = usim
		default:
			return unhex("6A82")
		}
		return unhex("9000")
	}
	file := uint16(body[len(body)-2])<<8 | uint16(body[len(body)-1])
	if _, sw := c.content(file); sw != nil {
		return sw
	}
	c.files[channel] = file
	return unhex("9000")
}

func (c *card) content(file uint16) (data, sw []byte) {
	if c.enabled < 0 {
		return nil, unhex("6A82")
	}
	p := c.profiles[c.enabled]
	switch file {
	case 0x2FE2:
		return swap(p.iccid), nil
	case 0x6F07:
		return append([]byte{8}, swap("9"+p.imsi)...), nil
	case 0x6FAD:
		return []byte{0, 0, 0, p.mncLength}, nil
	case 0x6F46:
		return append(append([]byte{1}, p.spn...), bytes.Repeat([]byte{0xFF}, 16-len(p.spn))...), nil
	}
	return nil, unhex("6A82")
}

func (c *card) read(channel int, b []byte) []byte {
	data, sw := c.content(c.files[channel])
	switch {
	case sw != nil:
		return unhex("6986")
	case int(b[4]) > len(data):
		return []byte{0x6C, byte(len(data))}
	}
	return append(slices.Clone(data[:b[4]]), 0x90, 0x00)
}

func swap(digits string) []byte {
	if len(digits)%2 == 1 {
		digits += "F"
	}
	b := unhex(digits)
	for i := range b {
		b[i] = b[i]<<4 | b[i]>>4
	}
	return b
}

func unhex(s string) []byte {
	b, err := hex.DecodeString(string(bytes.ReplaceAll([]byte(s), []byte(" "), nil)))
	if err != nil {
		panic(err)
	}
	return b
}

func TestSwap(t *testing.T) {
	if got := swap("89330"); !bytes.Equal(got, unhex("9833F0")) {
		t.Errorf("swap: %X", got)
	}
}
