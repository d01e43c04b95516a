package network_test

import (
	"bytes"
	"context"
	"encoding/hex"
	"slices"
	"sync"
	"testing"
)

// profile is one subscription on the test card.
type profile struct{ iccid, imsi, spn string }

var (
	profileA = profile{"8933010000000000001", "001010123456789", "TestOne"}
	profileB = profile{"89440200000000000022", "234150000000022", "ProfileB"}
)

// card is the least that a modem reads of a SIM (ETSI TS 102 221; 3GPP TS
// 31.102): ICCID, IMSI, AD and SPN of whichever profile is enabled.
type card struct {
	mu       sync.Mutex
	profiles []profile
	enabled  int
	file     uint16
}

func (c *card) Reset() {}

// enable is what EnableProfile does on a real card.
func (c *card) enable(n int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.enabled = n
}

func (c *card) Transmit(_ context.Context, b []byte) ([]byte, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	ok, notFound := []byte{0x90, 0x00}, []byte{0x6A, 0x82}
	if len(b) < 5 {
		return []byte{0x67, 0x00}, nil
	}
	switch b[1] {
	case 0x10, 0x14: // TERMINAL PROFILE, TERMINAL RESPONSE
		return ok, nil
	case 0xA4:
		body := b[5:min(len(b), 5+int(b[4]))]
		if b[2] == 0x04 { // any application is the USIM
			return ok, nil
		}
		c.file = uint16(body[len(body)-2])<<8 | uint16(body[len(body)-1])
		if c.content() == nil && c.file != 0x3F00 && c.file != 0x7FFF {
			return notFound, nil
		}
		return ok, nil
	case 0xB0:
		data := c.content()
		switch {
		case data == nil:
			return notFound, nil
		case int(b[4]) > len(data):
			return []byte{0x6C, byte(len(data))}, nil
		}
		return append(slices.Clone(data[:b[4]]), ok...), nil
	}
	return []byte{0x6D, 0x00}, nil
}

func (c *card) content() []byte {
	p := c.profiles[c.enabled]
	switch c.file {
	case 0x2FE2:
		return swapped(p.iccid)
	case 0x6F07:
		return append([]byte{8}, swapped("9"+p.imsi)...)
	case 0x6FAD:
		return []byte{0, 0, 0, 2}
	case 0x6F46:
		return append(append([]byte{1}, p.spn...), bytes.Repeat([]byte{0xFF}, 16-len(p.spn))...)
	}
	return nil
}

func swapped(digits string) []byte {
	if len(digits)%2 == 1 {
		digits += "F"
	}
	b, err := hex.DecodeString(digits)
	if err != nil {
		panic(err)
	}
	for i := range b {
		b[i] = b[i]<<4 | b[i]>>4
	}
	return b
}

func TestSwapped(t *testing.T) {
	if got := swapped("89330"); !bytes.Equal(got, []byte{0x98, 0x33, 0xF0}) {
		t.Errorf("got %X", got)
	}
}
