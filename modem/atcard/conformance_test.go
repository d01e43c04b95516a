package atcard_test

import (
	"bytes"
	"context"
	"encoding/hex"
	"fmt"
	"strconv"
	"strings"
	"testing"

	"lpad/apdu"
	"lpad/apdu/apdutest"
	"lpad/modem/at"
	"lpad/modem/at/attest"
	"lpad/modem/atcard"
)

// front is the AT side of a modem before a card: what its firmware does with
// the four commands.
type front struct {
	ctx      context.Context
	card     apdutest.Card
	noCCHO   bool   // the firmware has no AT+CCHO
	noCSIM   bool   // the firmware has no AT+CSIM
	refusal  string // to an AT+CCHO that fails; empty: a +CME ERROR that says why
	handle   string // format of the session handle
	echo     bool
	sessions map[string]int // logical channel of a handle
	opened   int
}

func newFront(t *testing.T, card apdutest.Card) *front {
	return &front{ctx: t.Context(), card: card, handle: "%d", sessions: map[string]int{}}
}

func (f *front) answer(cmd string) string {
	out := f.run(cmd)
	if f.echo {
		out = cmd + "\r" + out
	}
	return out
}

func (f *front) run(cmd string) string {
	name, arg, _ := strings.Cut(cmd, "=")
	args := strings.Split(arg, ",")
	switch {
	case name == "AT+CMEE":
		return "\r\nOK\r\n"
	case name == "AT+CMEE?":
		return "\r\n+CMEE: 1\r\n\r\nOK\r\n"
	case name == "AT+CCHO" && !f.noCCHO && len(args) == 1:
		return f.open(decode(args[0]))
	case name == "AT+CCHC" && !f.noCCHO:
		ch, ok := f.sessions[args[0]]
		if !ok {
			return "\r\n+CME ERROR: 21\r\n"
		}
		delete(f.sessions, args[0])
		f.transmit([]byte{0x00, 0x70, 0x80, byte(ch), 0x00})
		return "\r\n+CCHC\r\n\r\nOK\r\n"
	case name == "AT+CGLA" && !f.noCCHO && len(args) == 3:
		ch, ok := f.sessions[args[0]]
		b := decode(args[2])
		switch {
		case !ok:
			return "\r\n+CME ERROR: 21\r\n"
		case args[1] != strconv.Itoa(2*len(b)) || len(b) < 4 || b[0]&0x43 != 0:
			return "\r\n+CME ERROR: 50\r\n"
		}
		b[0] = apdu.Class(b[0], ch) // the modem sets the channel, TS 27.007, section 8.45
		return answered("+CGLA", f.transmit(b))
	case name == "AT+CSIM" && !f.noCSIM && len(args) == 2:
		b := decode(args[1])
		if args[0] != strconv.Itoa(2*len(b)) || len(b) < 4 {
			return "\r\n+CME ERROR: 50\r\n"
		}
		return answered("+CSIM", f.transmit(b))
	}
	return "\r\nERROR\r\n"
}

func answered(name string, response []byte) string {
	if response == nil {
		return "\r\n+CME ERROR: 13\r\n"
	}
	return fmt.Sprintf("\r\n%s: %d,\"%X\"\r\n\r\nOK\r\n", name, 2*len(response), response)
}

// decode takes upper case only, as the pickiest modem does.
func decode(quoted string) []byte {
	s := strings.Trim(quoted, `"`)
	b, err := hex.DecodeString(s)
	if err != nil || s != strings.ToUpper(s) {
		return nil
	}
	return b
}

func (f *front) transmit(b []byte) []byte {
	r, err := f.card.Transmit(f.ctx, b)
	if err != nil {
		return nil
	}
	return r
}

func (f *front) open(aid []byte) string {
	refuse := func(code int) string {
		if f.refusal != "" {
			return f.refusal
		}
		return fmt.Sprintf("\r\n+CME ERROR: %d\r\n", code)
	}
	r := f.transmit([]byte{0x00, 0x70, 0x00, 0x00, 0x01})
	if len(r) != 3 {
		return refuse(20)
	}
	ch := int(r[0])
	sel := append([]byte{apdu.Class(0, ch), 0xA4, 0x04, 0x00, byte(len(aid))}, aid...)
	if r = f.transmit(sel); len(r) < 2 || r[len(r)-2] != 0x90 && r[len(r)-2] != 0x61 {
		f.transmit([]byte{0x00, 0x70, 0x80, byte(ch), 0x00})
		return refuse(22)
	}
	f.opened++
	handle := fmt.Sprintf(f.handle, f.opened)
	f.sessions[handle] = ch
	return fmt.Sprintf("\r\n+CCHO: %s\r\n\r\nOK\r\n", handle)
}

var aid = []byte{0xA0, 0x00, 0x00, 0x05, 0x59, 0x10, 0x10, 0xFF, 0xFF, 0xFF, 0xFF, 0x89, 0x00, 0x00, 0x01, 0x00}

// app answers STORE DATA: a block that asks for n bytes (DF 7F n n) gets them.
func app(c apdu.Command) apdu.Response {
	switch {
	case c.INS != 0xE2:
		return apdu.Response{SW: 0x6D00}
	case bytes.HasPrefix(c.Data, []byte{0xDF, 0x7F}) && len(c.Data) == 4:
		return apdu.Response{Data: bytes.Repeat([]byte{0xA5}, int(c.Data[2])<<8|int(c.Data[3])), SW: 0x9000}
	}
	return apdu.Response{SW: 0x9000}
}

func storeData(data ...byte) apdu.Command {
	return apdu.Command{CLA: 0x80, INS: 0xE2, P1: 0x91, Data: data}
}

// Both paths pass what every transport must pass, before a card that answers in
// pieces (T=0) and one that answers at once.
func TestTransport(t *testing.T) {
	for _, tc := range []struct {
		name  string
		opt   atcard.Options
		piece int
		with  func(*front)
		vague bool
	}{
		{name: "CCHO", opt: atcard.Options{Path: atcard.CCHO}, piece: 256, with: func(f *front) { f.noCSIM = true }},
		{name: "CCHO with handles of 64 bits, echo, errors without a reason", opt: atcard.Options{Path: atcard.CCHO}, vague: true,
			with: func(f *front) { f.handle, f.echo, f.refusal = "%016x", true, "\r\nERROR\r\n" }},
		{name: "CSIM", opt: atcard.Options{Path: atcard.CSIM, BlockSize: 255}, piece: 100, with: func(f *front) { f.noCCHO = true }},
		{name: "auto", piece: 256},
		{name: "auto, without CCHO", with: func(f *front) { f.noCCHO = true }},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel() // two of them wait for a dead card
			card := &apdutest.UICC{Apps: map[string]apdutest.App{string(aid): app}, Channels: 3, Piece: tc.piece}
			f := newFront(t, card)
			if tc.with != nil {
				tc.with(f)
			}
			stall := card.Stall
			if tc.opt.Path == atcard.Auto || tc.vague {
				stall = nil // a dead card costs five seconds; twice is enough
			}
			apdutest.TestTransport(t, apdutest.Target{
				Open: func(t *testing.T) apdu.Card {
					f.ctx = t.Context()
					conn, _ := attest.Dial(t, f.answer)
					c, err := atcard.Open(t.Context(), conn, tc.opt)
					if err != nil {
						t.Fatal(err)
					}
					return c
				},
				AID: aid, Channels: 3, VagueErrors: tc.vague, Stall: stall, Reset: card.Reset,
				Fill: func(n int) apdu.Command {
					return apdu.Command{CLA: 0x80, INS: 0xE2, P1: 0x11, Data: bytes.Repeat([]byte{0x77}, n)}
				},
				Questions: []apdutest.Question{
					{Name: "short", Command: storeData(0xDF, 0x7F, 0x00, 0x12), Answer: []byte{0xA5}, Length: 0x12},
					{Name: "long", Command: storeData(0xDF, 0x7F, 0x04, 0x00), Answer: []byte{0xA5}, Length: 1024},
					{Name: "with Le", Command: apdu.Command{CLA: 0x80, INS: 0xE2, P1: 0x91, Data: []byte{0xDF, 0x7F, 0x00, 0x10}, Le: 256}, Length: 16},
				},
			})
			if n := card.Open(); n != 0 {
				t.Logf("%d channels open at the end: those of the dead card", n)
			}
		})
	}
}

// A channel of an earlier run blocks the only slot; CloseStale frees it.
func TestCloseStale(t *testing.T) {
	for _, path := range []atcard.Path{atcard.CCHO, atcard.CSIM} {
		t.Run(path.String(), func(t *testing.T) {
			f := newFront(t, &apdutest.UICC{Apps: map[string]apdutest.App{string(aid): app}, Channels: 1})
			conn, _ := attest.Dial(t, f.answer)
			open := func() *atcard.Card {
				c, err := atcard.Open(t.Context(), conn, atcard.Options{Path: path})
				if err != nil {
					t.Fatal(err)
				}
				return c
			}
			ch, err := open().OpenChannel(t.Context(), aid)
			if err != nil {
				t.Fatal(err)
			}
			journalled := ch.ID() // and the program dies

			c := open()
			if _, err := c.OpenChannel(t.Context(), aid); err == nil {
				t.Fatal("a second channel was opened on a card that has one")
			}
			if err := c.CloseStale(t.Context(), journalled); err != nil {
				t.Fatal(err)
			}
			if err := c.CloseStale(t.Context(), journalled); err != nil {
				t.Errorf("closing what is closed: %v", err)
			}
			if ch, err = c.OpenChannel(t.Context(), aid); err != nil {
				t.Fatal(err)
			}
			if err := ch.Close(t.Context()); err != nil {
				t.Fatal(err)
			}
		})
	}
	conn, s := attest.Dial(t, attest.Always("\r\nOK\r\n"))
	c, err := atcard.Open(t.Context(), conn, atcard.Options{})
	if err != nil {
		t.Fatal(err)
	}
	for _, id := range []string{"", "0", "20", "x", "session:", "session:1;+CFUN=0", `session:"`, "session:" + strings.Repeat("1", 33)} {
		if err := c.CloseStale(t.Context(), id); err == nil {
			t.Errorf("%q was taken for a channel id", id)
		}
	}
	if got := s.Commands(); len(got) != 1 {
		t.Errorf("the modem got %q", got)
	}
}

// The basic channel, raw.
func TestTransmit(t *testing.T) {
	f := newFront(t, &apdutest.UICC{Channels: 1})
	conn, _ := attest.Dial(t, f.answer)
	c, err := atcard.Open(t.Context(), conn, atcard.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if r, err := c.Transmit(t.Context(), []byte{0x00, 0x70, 0x00, 0x00, 0x01}); err != nil || !bytes.Equal(r, []byte{1, 0x90, 0}) {
		t.Errorf("MANAGE CHANNEL: %X, %v", r, err)
	}
	f.noCSIM = true
	if _, err := c.Transmit(t.Context(), []byte{0x00, 0xF2, 0x00, 0x00}); !at.Refused(err) {
		t.Errorf("without AT+CSIM: %v, want a refusal", err)
	}
	for _, bad := range [][]byte{nil, {0x00, 0xF2, 0x00}, make([]byte, 262)} {
		if _, err := c.Transmit(t.Context(), bad); err == nil || at.Refused(err) {
			t.Errorf("APDU of %d bytes: %v", len(bad), err)
		}
	}
}
