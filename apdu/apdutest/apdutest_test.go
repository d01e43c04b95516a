package apdutest_test

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"lpad/apdu"
	"lpad/apdu/apdutest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var aid = []byte{0xA0, 0x00, 0x00, 0x00, 0x01, 0x01}

// long is an answer that takes several pieces.
var long = bytes.Repeat([]byte{0xBF, 0x2D, 0x55, 0xAA}, 500)

// app is an application that answers STORE DATA with what it was sent, with a
// long text, or with a proactive command pending.
func app(c apdu.Command) apdu.Response {
	switch {
	case c.INS != 0xE2:
		return apdu.Response{SW: 0x6D00}
	case len(c.Data) > 0 && c.Data[0] == 0x01:
		return apdu.Response{Data: long, SW: 0x9000}
	case len(c.Data) > 0 && c.Data[0] == 0x02:
		return apdu.Response{Data: []byte{0x02}, SW: 0x910B}
	}
	return apdu.Response{Data: c.Data, SW: 0x9000}
}

func target(u *apdutest.UICC) apdutest.Target {
	store := func(data ...byte) apdu.Command {
		return apdu.Command{CLA: 0x80, INS: 0xE2, P1: 0x91, Data: data}
	}
	return apdutest.Target{
		Open: func(*testing.T) apdu.Card { return apdutest.Attach(u, 255) },
		AID:  aid,
		Questions: []apdutest.Question{
			{Name: "echo", Command: store(7, 8, 9), Answer: []byte{7, 8, 9}, SW: 0x9000},
			{Name: "long", Command: store(1), Answer: long, Length: len(long), SW: 0x9000},
			{Name: "proactive", Command: store(2), Answer: []byte{2}, SW: 0x910B},
		},
		Channels: u.Channels,
		Fill:     func(n int) apdu.Command { return store(bytes.Repeat([]byte{0x30}, n)...) },
		Stall:    u.Stall,
		Reset:    u.Reset,
	}
}

// The scripted card passes the conformance test in each of its dialects.
func TestUICC(t *testing.T) {
	for _, c := range []struct {
		name            string
		channels, piece int
	}{
		{"all at once", 3, 0}, {"pieces of 256", 19, 256}, {"pieces of 100", 4, 100}, {"one channel", 1, 255},
	} {
		t.Run(c.name, func(t *testing.T) {
			u := &apdutest.UICC{Apps: map[string]apdutest.App{string(aid): app}, Channels: c.channels, Piece: c.piece}
			tg := target(u)
			if c.piece == 0 {
				tg.Questions = tg.Questions[:1] // 2000 bytes do not fit into one short response
			}
			if c.piece != 100 {
				tg.Stall = nil // closing waits for the dead card: once is enough
			}
			apdutest.TestTransport(t, tg)
			if n := u.Open(); n != 0 {
				t.Errorf("%d channels leaked", n)
			}
		})
	}
}

func TestUICCRefuses(t *testing.T) {
	u := &apdutest.UICC{Channels: 1, Piece: 10}
	for command, want := range map[string]string{
		"\x00":                         "\x67\x00",
		"\x01\xF2\x00\x00":             "\x68\x81",
		"\x00\xF2\x00\x00":             "\x6D\x00",
		"\x00\xC0\x00\x00\x10":         "\x69\x85",
		"\x00\x70\x80\x01\x00":         "\x68\x81",
		"\x00\x70\x40\x01\x00":         "\x6A\x86",
		"\x00\x70\x00\x00\x00":         "\x6C\x01",
		"\x00\xA4\x04\x00\x02\x01\x02": "\x6A\x82",
	} {
		got, err := u.Transmit(t.Context(), []byte(command))
		if err != nil || string(got) != want {
			t.Errorf("%X: %X, %v, want %X", command, got, err, want)
		}
	}
	u.Reset()
	if u.Resets() != 1 || !bytes.Equal(u.ATR(), apdutest.ATRT0) {
		t.Errorf("%d resets, ATR %X", u.Resets(), u.ATR())
	}
	u.Answer = apdutest.ATRT1
	if !bytes.Equal(u.ATR(), apdutest.ATRT1) {
		t.Errorf("ATR %X", u.ATR())
	}
}

// catcher notes failures instead of failing.
type catcher struct {
	testing.TB
	errs    int
	cleanup []func()
}

func (c *catcher) Helper()               {}
func (c *catcher) Errorf(string, ...any) { c.errs++ }
func (c *catcher) Failed() bool          { return c.errs > 0 }
func (c *catcher) Cleanup(f func())      { c.cleanup = append(c.cleanup, f) }

func TestCheckCommand(t *testing.T) {
	c := &catcher{TB: t}
	card := apdutest.CheckCommand(c, 0x80, 0xE2, 0x91, 0x00, []byte{1}, func(apdu.Command) apdu.Response {
		return apdu.Response{SW: 0x9000}
	})
	for command, errs := range map[string]int{"\x81\xE2\x91\x00\x01\x01": 0, "\xC1\xE2\x91\x00\x01\x01": 0, "\x81\xE2\x11\x00\x01\x01": 1, "\x81\xE2\x91\x00\x01\x02": 1} {
		c.errs = 0
		if _, err := card.Transmit(t.Context(), []byte(command)); err != nil {
			t.Error(err)
		}
		if c.errs != errs {
			t.Errorf("%X: %d errors, want %d", command, c.errs, errs)
		}
	}
	if got, err := card.Transmit(t.Context(), nil); err != nil || string(got) != "\x67\x00" {
		t.Errorf("%X, %v", got, err)
	}
	card.Reset()
	if len(card.ATR()) == 0 {
		t.Error("no ATR")
	}
}

// What was recorded is played again; another conversation is noticed.
func TestRecordReplay(t *testing.T) {
	card := apdutest.Func(func(c apdu.Command) apdu.Response { return apdu.Response{Data: []byte{c.INS}, SW: 0x9000} })
	var text bytes.Buffer
	rec := apdutest.Record(card, &text)
	commands := [][]byte{{0, 1, 0, 0}, {0, 2, 0, 0}}
	for _, c := range commands {
		if _, err := rec.Transmit(t.Context(), c); err != nil {
			t.Fatal(err)
		}
	}
	if want := "> 00010000\n< 019000\n> 00020000\n< 029000\n"; text.String() != want {
		t.Fatalf("recorded %q, want %q", text.String(), want)
	}
	path := filepath.Join(t.TempDir(), "a.trace")
	if err := os.WriteFile(path, append([]byte("# two commands\n\n"), append(text.Bytes(), "> 00 03 00 00\n"...)...), 0o600); err != nil {
		t.Fatal(err)
	}

	c := &catcher{TB: t}
	p := apdutest.Replay(c, path)
	for i, cmd := range commands {
		got, err := p.Transmit(t.Context(), cmd)
		if err != nil || !bytes.Equal(got, []byte{byte(i + 1), 0x90, 0x00}) {
			t.Errorf("%X, %v", got, err)
		}
	}
	if c.cleanup[0](); c.errs != 1 {
		t.Error("an unfinished conversation was not noticed")
	}
	if _, err := p.Transmit(t.Context(), []byte{0, 3, 0, 0}); !errors.Is(err, apdutest.ErrPulled) {
		t.Error(err)
	}
	if _, err := p.Transmit(t.Context(), []byte{0, 4, 0, 0}); err != nil || c.errs != 2 {
		t.Errorf("a command too many was not noticed: %v", err)
	}

	c = &catcher{TB: t}
	if _, err := apdutest.Replay(c, path).Transmit(t.Context(), commands[1]); err != nil || c.errs != 1 {
		t.Errorf("a wrong command was not noticed: %v", err)
	}
}

func TestReadTrace(t *testing.T) {
	for name, text := range map[string]string{
		"response first": "< 9000\n", "two responses": "> 00010000\n< 9000\n< 9000\n", "no hex": "> 0\n", "empty": ">\n", "other": "= 00\n",
	} {
		if _, err := apdutest.ReadTrace(strings.NewReader(text)); err == nil {
			t.Errorf("%s was taken", name)
		}
	}
}
