package pcsc_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"lpad/apdu"
	"lpad/apdu/pcsc"
	"lpad/internal/fault"
)

var status = []byte{0x80, 0xF2, 0x00, 0x00}

// start is a card behind a helper of this name.
func start(t *testing.T, name string) *pcsc.Card {
	t.Helper()
	card, err := pcsc.Open(t.Context(), helperConfig(t, name))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := card.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	return card
}

// What goes wrong before there is a card, and how it is told.
func TestOpenFails(t *testing.T) {
	for _, c := range []struct {
		helper, reader string
		is             error
		text, code     string
	}{
		{"not built", "", nil, "built without PC/SC (install the package lpad-pcsc)", "pcsc-helper-missing"},
		{"other", "", nil, "sent a frame of", "pcsc-helper"},
		{"future", "", nil, "version 9", "pcsc-helper"},
		{"no hello", "", nil, "does not speak our protocol", "pcsc-helper"},
		{"no readers", "", pcsc.ErrNoReader, "no such reader", "pcsc-no-reader"},
		{"obedient", "Gemalto", pcsc.ErrNoReader, `"Gemalto"`, "pcsc-no-reader"},
		{"obedient", "Empty", pcsc.ErrNoCard, `"Empty 00 00"`, "pcsc-no-card"},
		{"empty slots", "", pcsc.ErrNoCard, `"A 00"`, "pcsc-no-card"},
		{"cut list", "", nil, "cannot be read", "pcsc-helper"},
		{"cut connect", "", nil, "cannot be read", "pcsc-helper"},
		{"no service", "", pcsc.ErrNoService, "8010001D", "pcsc-no-service"},
		{"in use", "", pcsc.ErrReaderInUse, `PC/SC connect in reader "Fake 00 00": as told (8010000B)`, "pcsc-in-use"},
		{"mute card", "", pcsc.ErrCardMute, "80100066", "pcsc-card-mute"},
		{"denied", "", nil, "8010006A", "pcsc-denied"},
		{"odd code", "", nil, "80100018", "pcsc-error"},
		{"crash list", "", nil, "ended in the middle of a request, exit status 7", "pcsc-helper"},
	} {
		t.Run(c.helper+" "+c.reader, func(t *testing.T) {
			cfg := helperConfig(t, c.helper)
			cfg.Reader = c.reader
			card, err := pcsc.Open(t.Context(), cfg)
			if err == nil {
				t.Fatal(card.Close())
			}
			if c.is != nil && !errors.Is(err, c.is) || !strings.Contains(err.Error(), c.text) {
				t.Errorf("error %v, want %v with %q", err, c.is, c.text)
			}
			if f := fault.Of(err); f.Code != c.code || f.Next == "" {
				t.Errorf("explained as %+v, want %s", f, c.code)
			}
		})
	}
}

func TestHelperMissing(t *testing.T) {
	noProgram := filepath.Join(t.TempDir(), "lpad-pcsc")
	if err := os.WriteFile(noProgram, []byte("\x7FELF no program"), 0o755); err != nil {
		t.Fatal(err)
	}
	notExecutable := filepath.Join(t.TempDir(), "lpad-pcsc")
	if err := os.WriteFile(notExecutable, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ helper, text, code string }{
		{"", "PC/SC helper lpad-pcsc: not found (install the package lpad-pcsc)", "pcsc-helper-missing"},
		{"/nowhere/lpad-pcsc", "not found", "pcsc-helper-missing"},
		{notExecutable, "cannot be run", "pcsc-helper-missing"},
		{noProgram, "cannot be run", "pcsc-helper"},
	} {
		t.Setenv("PATH", t.TempDir())
		_, err := pcsc.Readers(t.Context(), pcsc.Config{Helper: c.helper})
		if err == nil || !strings.Contains(err.Error(), c.text) || fault.Of(err).Code != c.code {
			t.Errorf("%q: %v, explained as %+v", c.helper, err, fault.Of(err))
		}
	}
}

func TestReaders(t *testing.T) {
	all, err := pcsc.Readers(t.Context(), helperConfig(t, "obedient"))
	if err != nil || len(all) != 2 {
		t.Fatalf("%+v, %v", all, err)
	}
	if a := all[0]; a.Name != "Empty 00 00" || a.CardPresent || a.InUse {
		t.Errorf("%+v", a)
	}
	if b := all[1]; b.Name != "Fake 00 00" || !b.CardPresent || !b.InUse || b.Mute || len(b.ATR) != 2 {
		t.Errorf("%+v", b)
	}
	if _, err := pcsc.Readers(t.Context(), helperConfig(t, "no service")); !errors.Is(err, pcsc.ErrNoService) {
		t.Error(err)
	}
}

// What goes wrong while a command is under way: an error that says so, then a
// new helper and a card that works.
func TestTransmitFails(t *testing.T) {
	for _, c := range []struct{ helper, text, code string }{
		{"card reset", "80100068", "pcsc-lost"},
		{"no response", "cannot be read", "pcsc-helper"},
		{"wrong kind", "answered 12 with 55", "pcsc-helper"},
		{"bad refusal", "answered 12 with FF", "pcsc-helper"},
		{"garbage", "sent a frame of 2147483647 bytes", "pcsc-helper"},
		{"oversize", "sent a frame of 70001 bytes", "pcsc-helper"},
		{"empty frame", "sent a frame of 0 bytes", "pcsc-helper"},
		{"crash", "exit status 7: panic: unknown protocol[31m", "pcsc-helper"},
	} {
		t.Run(c.helper, func(t *testing.T) {
			card := start(t, c.helper)
			for range 2 { // the second one by a new helper
				_, err := card.Transmit(t.Context(), status)
				if err == nil || !strings.Contains(err.Error(), c.text) || fault.Of(err).Code != c.code {
					t.Errorf("%v, explained as %+v", err, fault.Of(err))
				}
			}
		})
	}
}

// A helper that hangs is killed when the time is over, with what it started.
func TestStuck(t *testing.T) {
	for _, name := range []string{"hang", "with child"} {
		t.Run(name, func(t *testing.T) {
			cfg := helperConfig(t, name)
			cfg.Timeout = 50 * time.Millisecond
			card, err := pcsc.Open(t.Context(), cfg)
			if err != nil {
				t.Fatal(err)
			}
			began := time.Now()
			_, err = card.Transmit(t.Context(), status)
			var stuck *pcsc.StuckError
			if !errors.As(err, &stuck) || stuck.Reader != "Fake 00 00" || stuck.After < cfg.Timeout || !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("error %v", err)
			}
			if f := fault.Of(err); f.Code != "pcsc-stuck" || f.Next == "" {
				t.Errorf("%+v", f)
			}
			if took := time.Since(began); took > 2*time.Second {
				t.Errorf("took %v", took)
			}
			if err := card.Close(); err != nil {
				t.Errorf("close: %v", err)
			}
		})
	}
}

// The time of a command depends on its kind, and ctx can only make it shorter.
func TestTimeouts(t *testing.T) {
	cfg := helperConfig(t, "hang")
	cfg.Timeout = 100 * time.Millisecond
	card, err := pcsc.Open(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer card.Close()
	for _, c := range []struct {
		name    string
		command []byte
		ctx     time.Duration
		least   time.Duration
	}{
		{"plain", status, time.Hour, cfg.Timeout},
		{"store data, more follows", []byte{0x81, 0xE2, 0x11, 0x00}, time.Hour, cfg.Timeout},
		{"store data, last block", []byte{0x81, 0xE2, 0x91, 0x00}, time.Hour, 4 * cfg.Timeout},
		{"ctx is shorter", []byte{0x81, 0xE2, 0x91, 0x00}, 20 * time.Millisecond, 20 * time.Millisecond},
	} {
		// The time of starting a new helper is not to count.
		if err := card.Reset(t.Context()); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), c.ctx)
		_, err := card.Transmit(ctx, c.command)
		cancel()
		var stuck *pcsc.StuckError
		if !errors.As(err, &stuck) || stuck.After < c.least*9/10 {
			t.Errorf("%s: %v, want at least %v", c.name, err, c.least)
		}
	}
}

func TestCancel(t *testing.T) {
	card := start(t, "hang")
	ctx, cancel := context.WithCancel(t.Context())
	time.AfterFunc(20*time.Millisecond, cancel)
	_, err := card.Transmit(ctx, status)
	var stuck *pcsc.StuckError
	if !errors.Is(err, context.Canceled) || errors.As(err, &stuck) {
		t.Errorf("error %v", err)
	}
	if _, err := card.Transmit(ctx, status); !errors.Is(err, context.Canceled) {
		t.Errorf("error %v", err)
	}
}

func TestStuckBeforeCard(t *testing.T) {
	for _, name := range []string{"silent", "hang list"} {
		ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
		_, err := pcsc.Open(ctx, helperConfig(t, name))
		cancel()
		if !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// The second user waits for its turn no longer than its ctx.
func TestTurn(t *testing.T) {
	card := start(t, "hang")
	long, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() {
		_, err := card.Transmit(long, status)
		done <- err
	}()
	short, cancelShort := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancelShort()
	for short.Err() == nil {
		if _, err := card.OpenChannel(short, []byte{1}); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("error %v", err)
		}
	}
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) && !errors.Is(err, context.DeadlineExceeded) {
		t.Error(err)
	}
}

func TestReset(t *testing.T) {
	card := start(t, "obedient")
	ch, err := card.OpenChannel(t.Context(), []byte{0xA0})
	if err != nil {
		t.Fatal(err)
	}
	if err := card.Reset(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := ch.Transmit(t.Context(), apdu.Command{CLA: 0x80, INS: 0xF2}); !errors.Is(err, apdu.ErrChannelClosed) {
		t.Errorf("a channel outlived a reset: %v", err)
	}
	if err := ch.Close(t.Context()); err != nil {
		t.Error(err)
	}
	if len(card.ATR()) != 2 || card.Reader() != "Fake 00 00" || card.BlockSize() != 255 {
		t.Errorf("%X in %s", card.ATR(), card.Reader())
	}
}

func TestResetFails(t *testing.T) {
	if err := start(t, "lost reset").Reset(t.Context()); err != nil {
		t.Errorf("a lost connection is made anew: %v", err)
	}
	if err := start(t, "bad reset").Reset(t.Context()); fault.Of(err).Code != "pcsc-helper" {
		t.Error(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if err := start(t, "hang reset").Reset(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Error(err)
	}
}

func TestClosedCard(t *testing.T) {
	card := start(t, "obedient")
	for range 2 {
		if err := card.Close(); err != nil {
			t.Error(err)
		}
	}
	if _, err := card.Transmit(t.Context(), status); !errors.Is(err, apdu.ErrChannelClosed) {
		t.Error(err)
	}
	if _, err := card.OpenChannel(t.Context(), []byte{1}); !errors.Is(err, apdu.ErrChannelClosed) {
		t.Error(err)
	}
	if err := card.Reset(t.Context()); !errors.Is(err, apdu.ErrChannelClosed) {
		t.Error(err)
	}
}

func TestCloseFails(t *testing.T) {
	for name, code := range map[string]string{"crash disconnect": "pcsc-helper", "refuse disconnect": "pcsc-error"} {
		card, err := pcsc.Open(t.Context(), helperConfig(t, name))
		if err != nil {
			t.Fatal(err)
		}
		if err := card.Close(); fault.Of(err).Code != code {
			t.Errorf("%s: %v", name, err)
		}
		if err := card.Close(); err != nil {
			t.Error(err)
		}
	}
}

// The helper may die while nobody looks: the next channel is opened by a new one.
func TestHelperDiesIdle(t *testing.T) {
	card := start(t, "obedient")
	if _, err := card.OpenChannel(t.Context(), []byte{0xA0}); err != nil {
		t.Fatal(err)
	}
	pcsc.KillHelper(card)
	if _, err := card.OpenChannel(t.Context(), []byte{0xA0}); err != nil {
		t.Error(err)
	}
}

// FuzzFields: no frame makes the reading of fields panic or give what is not there.
func FuzzFields(f *testing.F) {
	f.Add(frame(pcsc.List+pcsc.Answer, text("A"), []byte{1}, text("\x3B"))[5:])
	f.Add([]byte{0xFF, 0xFF, 0xFF, 0xFF})
	f.Add([]byte{0, 0, 0, 1})
	f.Fuzz(func(t *testing.T, in []byte) {
		fields, n := pcsc.NewFields(in), 0
		for !fields.Empty() {
			n += 4 + len(fields.Text())
			if fields.Empty() {
				break
			}
			fields.Byte()
			n++
		}
		if fields.OK() && n != len(in) {
			t.Errorf("%X: %d bytes read", in, n)
		}
	})
}
