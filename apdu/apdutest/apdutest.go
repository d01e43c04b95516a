// Package apdutest stands in for a smart card at the wire, where bytes go in
// and come out, and tests whatever carries those bytes.
//
//   - [Func] is a card made of a function from command to response, and
//     [CheckCommand] guards one.
//   - [Replay] is a card that knows one recorded conversation by heart; [Record]
//     writes such a recording.
//   - [UICC] is a card with logical channels and applications made of functions.
//   - [ServeVPCD] puts any card into the virtual reader of a real pcscd.
//   - [TestTransport] is what everything that implements apdu.Card must pass.
//
// A software card of another package only has to implement [Card].
package apdutest

import (
	"bytes"
	"context"
	"fmt"
	"testing"

	"lpad/apdu"
)

// Card is a whole card, as a reader or a modem holds it.
type Card interface {
	// Transmit answers one command APDU. An error stands for a card that
	// is pulled out in the middle of a command.
	Transmit(ctx context.Context, command []byte) (response []byte, err error)
	// Reset is a warm or cold reset: channels and sessions are forgotten.
	Reset()
	// ATR is the answer to reset.
	ATR() []byte
}

// Func is a card without state that answers each command by a function.
type Func func(apdu.Command) apdu.Response

// Transmit answers 6700 to what is not a command.
func (f Func) Transmit(ctx context.Context, command []byte) ([]byte, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	c, err := apdu.ParseCommand(command)
	if err != nil {
		return apdu.Response{SW: 0x6700}.Marshal(), nil
	}
	return f(c).Marshal(), nil
}

// Reset does nothing.
func (Func) Reset() {}

// ATR gives [ATRT0].
func (Func) ATR() []byte { return bytes.Clone(ATRT0) }

// Answers to reset with one protocol on offer each, and nothing else.
var (
	ATRT0 = []byte{0x3B, 0x80, 0x80, 0x1F, 0xC7, 0xD8} // T=0; T=15 with the voltage classes of a UICC
	ATRT1 = []byte{0x3B, 0x80, 0x01, 0x81}             // T=1
)

// CheckCommand lets only commands with this header pass to next, others fail
// the test and are answered 6F00. The class byte is compared without its
// channel. A nil data is not compared.
func CheckCommand(t testing.TB, cla, ins, p1, p2 byte, data []byte, next Func) Func {
	return func(c apdu.Command) apdu.Response {
		t.Helper()
		got := fmt.Sprintf("%02X%02X%02X%02X", baseClass(c.CLA), c.INS, c.P1, c.P2)
		want := fmt.Sprintf("%02X%02X%02X%02X", cla, ins, p1, p2)
		switch {
		case got != want:
			t.Errorf("command %s, want %s", got, want)
		case data != nil && !bytes.Equal(c.Data, data):
			t.Errorf("command %s has data %X, want %X", got, c.Data, data)
		default:
			return next(c)
		}
		return apdu.Response{SW: 0x6F00}
	}
}

// baseClass takes the channel out of a class byte.
func baseClass(cla byte) byte {
	if cla&0x40 != 0 {
		return cla & 0xB0
	}
	return cla &^ 0x03
}

// Attach gives a card as apdu.Card, with nothing in between. Closing it does
// nothing.
func Attach(card Card, blockSize int) apdu.Card { return &attached{card, blockSize} }

type attached struct {
	Card
	blockSize int
}

func (a *attached) OpenChannel(ctx context.Context, aid []byte) (*apdu.Channel, error) {
	return apdu.OpenChannel(ctx, a.Card, aid)
}

func (a *attached) BlockSize() int { return a.blockSize }
func (a *attached) Close() error   { return nil }
