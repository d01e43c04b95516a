package atport_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"go.uber.org/goleak"

	"lpad/apdu"
	"lpad/apdu/apdutest"
	"lpad/modem/at"
	"lpad/modem/atmodem"
	"lpad/modem/atport"
	"lpad/modem/modemtest"
	"lpad/modem/serialport"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var aid = []byte{0xA0, 0x00, 0x00, 0x05, 0x59, 0x10, 0x10, 0xFF, 0xFF, 0xFF, 0xFF, 0x89, 0x00, 0x00, 0x01, 0x00}

// device is a modem with a card and two ports.
func device(t *testing.T) (m *modemtest.Modem, card *apdutest.UICC, port, other string) {
	t.Helper()
	app := func(apdu.Command) apdu.Response { return apdu.Response{SW: 0x9000} }
	card = &apdutest.UICC{Apps: map[string]apdutest.App{string(aid): app}, Channels: 3}
	m, err := modemtest.New(modemtest.Config{Card: card})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := m.Close(); err != nil {
			t.Error(err)
		}
	})
	dir := t.TempDir()
	port, other = filepath.Join(dir, "tty0"), filepath.Join(dir, "tty1")
	for _, p := range []string{port, other} {
		if _, err := m.OpenPTY(p); err != nil {
			t.Fatal(err)
		}
	}
	return m, card, port, other
}

// open opens a port that ends with the test.
func open(t *testing.T, c atport.Config) *atport.Port {
	t.Helper()
	p := atport.New(c)
	t.Cleanup(func() {
		if err := p.Close(); err != nil {
			t.Error(err)
		}
	})
	return p
}

// A modem that a re-read left switched off is switched on, by who is alone
// with it or has done it, and by nobody else.
func TestSwitchedOff(t *testing.T) {
	for _, tc := range []struct{ alone, marked bool }{{true, false}, {false, true}, {false, false}} {
		alone, mark := tc.alone || tc.marked, filepath.Join(t.TempDir(), "off")
		if tc.marked {
			if err := os.WriteFile(mark, nil, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		_, _, port, other := device(t)
		line, err := serialport.Open(other, 115200)
		if err != nil {
			t.Fatal(err)
		}
		conn := at.New(line)
		if _, err := conn.Command(t.Context(), "AT+CFUN=0"); err != nil {
			t.Fatal(err)
		}
		if err := conn.Close(); err != nil {
			t.Fatal(err)
		}
		p := open(t, atport.Config{Path: port, Alone: tc.alone, OffMark: mark})
		ch, err := p.OpenChannel(t.Context(), aid)
		for range 100 { // the modem reads its SIM
			if err == nil || !alone {
				break
			}
			ch, err = p.OpenChannel(t.Context(), aid)
		}
		if alone != (err == nil) {
			t.Errorf("alone %v: %v", alone, err)
		}
		if err == nil {
			if err := ch.Close(t.Context()); err != nil {
				t.Error(err)
			}
		}
		if _, err := os.Stat(mark); err == nil {
			t.Error("the mark is still there")
		}
	}
}

// A re-read that is cut off leaves its mark.
func TestOffMark(t *testing.T) {
	m, _, port, _ := device(t)
	mark := filepath.Join(t.TempDir(), "off")
	p := open(t, atport.Config{Path: port, OffMark: mark})
	m.AddFault(modemtest.Fault{Command: "+CFUN=0", Hangup: true, Executed: true, Times: 1})
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	if _, err := p.Reread(ctx, "89330100000000000017"); !errors.Is(err, serialport.ErrMissing) || !errors.Is(err, atmodem.ErrOldSIM) {
		t.Fatalf("error %v", err)
	}
	if _, err := os.Stat(mark); err != nil {
		t.Error(err)
	}
}

// A line that hung up is opened again, and the channel that was open on it is
// closed. In between nobody knows whose modem it is.
func TestHangup(t *testing.T) {
	m, card, port, _ := device(t)
	p := open(t, atport.Config{Path: port})
	met := func(want bool) {
		t.Helper()
		if imei, open := p.Met(); open != want || want != (len(imei) == 15) {
			t.Errorf("met %q, %v", imei, open)
		}
	}
	met(false)
	ch, err := p.OpenChannel(t.Context(), aid)
	if err != nil {
		t.Fatal(err)
	}
	met(true)
	if err := m.Port(filepath.Base(port)).Close(); err != nil {
		t.Fatal(err)
	}
	if err := ch.Close(t.Context()); err == nil {
		t.Fatal("closed over a line that hung up")
	}
	met(false)
	if _, err := p.OpenChannel(t.Context(), aid); err == nil {
		t.Fatal("opened without a port")
	}
	if _, err := m.OpenPTY(port); err != nil {
		t.Fatal(err)
	}
	if ch, err = p.OpenChannel(t.Context(), aid); err != nil {
		t.Fatal(err)
	}
	met(true)
	if n := card.Open(); n != 1 {
		t.Errorf("%d channels are open, want the new one", n)
	}
	if err := ch.Close(t.Context()); err != nil {
		t.Error(err)
	}
	if err := p.Close(); err != nil {
		t.Error(err)
	}
	met(false)
}
