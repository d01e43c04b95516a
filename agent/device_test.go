package agent

import (
	"context"
	"errors"
	"log/slog"
	"testing"

	"lpad/modem"
)

// The modem is asked who it is when it may be another one than was asked, and at
// no other time.
func TestModemIsAskedAgain(t *testing.T) {
	const first, second = "490154203237518", "356938035643809"
	asked, there, silent := 0, "", false // there: at the other end of an open line; empty: it is closed
	modemNow := first
	d := &deviceSource{log: slog.New(slog.DiscardHandler), met: func() (string, bool) { return there, there != "" },
		identity: func(context.Context) (modem.Identity, error) {
			if silent {
				return modem.Identity{}, errors.New("no answer")
			}
			asked++
			there = modemNow
			return modem.Identity{IMEI: modemNow}, nil
		}}
	for i, step := range []struct {
		what string
		do   func()
		imei string // sent to a server
		asks int
	}{
		{"at first", func() {}, first, 1},
		{"again", func() {}, first, 1},
		{"the line was closed", func() { there = "" }, first, 2},
		{"the modem was exchanged", func() { there, modemNow = "", second }, second, 3},
		{"and the card was read before anybody asked", func() { there, modemNow = first, first }, first, 4},
		{"again", func() {}, first, 4},
		{"it does not tell", func() { there, silent = "", true }, "", 4},
	} {
		step.do()
		if got := d.Device(t.Context()).IMEI; got != step.imei || asked != step.asks {
			t.Errorf("%d, %s: %q, asked %d times, want %q, %d", i, step.what, got, asked, step.imei, step.asks)
		}
		if got := d.present().IMEI; got != step.imei {
			t.Errorf("%d, %s: present %q, want %q", i, step.what, got, step.imei)
		}
		if d.told().IMEI == "" {
			t.Errorf("%d, %s: reports do not tell who it was", i, step.what)
		}
	}
}
