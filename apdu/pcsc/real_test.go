//go:build cgo && !nopcsc

package pcsc_test

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"lpad/agent/rsp"
	"lpad/agent/rsp/rsptest/euicc"
	"lpad/apdu"
	"lpad/apdu/apdutest"
	"lpad/apdu/pcsc"
	"lpad/internal/fault"
	"lpad/modem/modemtest"
)

// The tests of this file run the real helper against a real pcscd, whose
// virtual reader holds a scripted card.

var (
	testAID = []byte{0xA0, 0x00, 0x00, 0x00, 0x01, 0x01}
	long    = bytes.Repeat([]byte{0xBF, 0x2D, 0x55, 0xAA}, 3000)
)

// testApp answers STORE DATA with what it was sent, or with a long text.
func testApp(c apdu.Command) apdu.Response {
	switch {
	case c.INS != 0xE2:
		return apdu.Response{SW: 0x6D00}
	case c.Data[0] == 0x01:
		return apdu.Response{Data: long, SW: 0x910B}
	}
	return apdu.Response{Data: c.Data, SW: 0x9000}
}

func storeData(data ...byte) apdu.Command {
	return apdu.Command{CLA: 0x80, INS: 0xE2, P1: 0x91, Data: data}
}

// rig is a pcscd with a card in its reader.
type rig[C apdutest.Card] struct {
	pcscd  *modemtest.PCSCD
	card   C
	config pcsc.Config
	addr   string // of its reader; empty: the first
	remove func() // takes the card out
}

func newRig[C apdutest.Card](t *testing.T, card C) *rig[C] {
	t.Helper()
	modemtest.RequirePCSCD(t)
	dir, err := os.MkdirTemp("", "pcscd") // t.TempDir is too long for a socket
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	p, err := modemtest.StartPCSCD(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := p.Close(); err != nil {
			t.Errorf("pcscd: %v", err)
		}
	})
	r := &rig[C]{pcscd: p, card: card, config: helperConfig(t, "real", p.Env()...)}
	r.insert(t)
	return r
}

// insert puts the card into the reader, until remove is called or the test ends.
func (r *rig[C]) insert(t *testing.T) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() {
		addr := r.addr
		if addr == "" {
			addr = r.pcscd.Addr()
		}
		if err := apdutest.ServeVPCD(ctx, addr, r.card); err != nil {
			t.Error(err)
		}
	})
	r.remove = sync.OnceFunc(func() {
		cancel()
		wg.Wait()
	})
	t.Cleanup(r.remove)
}

// open connects to the card, which may take a moment to be noticed.
func (r *rig[C]) open(t *testing.T) *pcsc.Card {
	t.Helper()
	for start := time.Now(); ; {
		card, err := pcsc.Open(t.Context(), r.config)
		if err == nil {
			return card
		}
		if !errors.Is(err, pcsc.ErrNoCard) || time.Since(start) > 10*time.Second {
			t.Fatal(err)
		}
	}
}

func scripted(piece int, atr []byte) *apdutest.UICC {
	return &apdutest.UICC{Apps: map[string]apdutest.App{string(testAID): testApp}, Channels: 6, Piece: piece, Answer: atr}
}

// The whole conformance test, over T=0 and T=1.
func TestConformance(t *testing.T) {
	for _, c := range []struct {
		name  string
		piece int
		atr   []byte
	}{{"T=0", 256, apdutest.ATRT0}, {"T=1", 100, apdutest.ATRT1}} {
		t.Run(c.name, func(t *testing.T) {
			r := newRig(t, scripted(c.piece, c.atr))
			apdutest.TestTransport(t, apdutest.Target{
				Open: func(t *testing.T) apdu.Card { return r.open(t) },
				AID:  testAID,
				Questions: []apdutest.Question{
					{Name: "echo", Command: storeData(7, 8, 9), Answer: []byte{7, 8, 9}, SW: 0x9000},
					{Name: "long", Command: storeData(1), Answer: long, Length: len(long), SW: 0x910B},
				},
				Channels: 6,
				Fill:     func(n int) apdu.Command { return storeData(bytes.Repeat([]byte{0x30}, n)...) },
				Stall:    r.card.Stall,
				Reset:    r.card.Reset,
				Recovery: 20 * time.Second,
			})
		})
	}
}

// The same with the software eUICC of the lab.
func TestConformanceOfEUICC(t *testing.T) {
	iccid, err := rsp.ParseICCID("8949000000000000017")
	if err != nil {
		t.Fatal(err)
	}
	card, err := euicc.New(euicc.Config{Profiles: []euicc.Profile{{ICCID: iccid, Icon: make([]byte, 1000)}}})
	if err != nil {
		t.Fatal(err)
	}
	r := newRig(t, card)
	apdutest.TestTransport(t, apdutest.Target{
		Open: func(t *testing.T) apdu.Card { return r.open(t) },
		AID:  rsp.ISDR,
		Questions: []apdutest.Question{
			{Name: "GetEID", Command: storeData(0xBF, 0x3E, 3, 0x5C, 1, 0x5A), Answer: []byte{0xBF, 0x3E, 0x12, 0x5A, 0x10, 0x89}, SW: 0x9000},
			{Name: "GetProfilesInfo with an icon", Command: storeData(0xBF, 0x2D, 0), Answer: []byte{0xBF, 0x2D}, Length: 1000, SW: 0x9000},
		},
		Channels: euicc.DefaultChannels,
		Fill: func(n int) apdu.Command {
			return apdu.Command{CLA: 0x80, INS: 0xE2, P1: 0x11, Data: bytes.Repeat([]byte{0xBF}, n)}
		},
		Stall:    card.Stall,
		Reset:    card.Reset,
		Recovery: 20 * time.Second,
	})
}

func TestReadersForReal(t *testing.T) {
	r := newRig(t, scripted(256, nil))
	card := r.open(t)
	defer card.Close()
	all, err := pcsc.Readers(t.Context(), r.config)
	if err != nil || len(all) != 2 || !all[0].CardPresent || !all[0].InUse || !bytes.Equal(all[0].ATR, apdutest.ATRT0) || all[1].CardPresent {
		t.Errorf("%+v, %v", all, err)
	}
	if !bytes.Equal(card.ATR(), apdutest.ATRT0) || card.Reader() != all[0].Name {
		t.Errorf("%X in %s", card.ATR(), card.Reader())
	}
	// The card is ours alone.
	if _, err := pcsc.Open(t.Context(), r.config); !errors.Is(err, pcsc.ErrReaderInUse) {
		t.Errorf("second user: %v", err)
	}
	for _, c := range []struct {
		reader string
		is     error
	}{{"No such reader", pcsc.ErrNoReader}, {"Virtual PCD 00 01", pcsc.ErrNoCard}} {
		cfg := r.config
		cfg.Reader = c.reader
		if _, err := pcsc.Open(t.Context(), cfg); !errors.Is(err, c.is) {
			t.Errorf("%s: %v", c.reader, err)
		}
	}
}

// A reset reaches the card, and so does giving it back.
func TestResetForReal(t *testing.T) {
	r := newRig(t, scripted(256, nil))
	card := r.open(t)
	if _, err := card.OpenChannel(t.Context(), testAID); err != nil {
		t.Fatal(err)
	}
	before := r.card.Resets()
	if err := card.Reset(t.Context()); err != nil {
		t.Fatal(err)
	}
	if r.card.Resets() == before || r.card.Open() != 0 {
		t.Errorf("%d resets, %d channels open", r.card.Resets()-before, r.card.Open())
	}
	if _, err := card.OpenChannel(t.Context(), testAID); err != nil {
		t.Error(err)
	}
	before = r.card.Resets()
	if err := card.Close(); err != nil {
		t.Error(err)
	}
	if r.card.Resets() == before {
		t.Error("the card was given back with our channel open")
	}
}

// A card that does not answer: reported at the deadline, as often as it is
// tried, and all is well again when it answers.
func TestStuckForReal(t *testing.T) {
	r := newRig(t, scripted(256, nil))
	r.config.Timeout = 200 * time.Millisecond
	card := r.open(t)
	defer card.Close()
	resume := r.card.Stall()
	defer resume()
	for range 2 {
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		began := time.Now()
		_, err := card.OpenChannel(ctx, testAID)
		var stuck *pcsc.StuckError
		if !errors.As(err, &stuck) || fault.Of(err).Code != "pcsc-stuck" {
			t.Errorf("error %v", err)
		}
		if took := time.Since(began); took > 15*time.Second {
			t.Errorf("took %v", took)
		}
		cancel()
	}
	resume()
	ch, err := card.OpenChannel(t.Context(), testAID)
	if err != nil {
		t.Fatal(err)
	}
	if resp, err := ch.Transmit(t.Context(), storeData(7)); err != nil || !bytes.Equal(resp.Data, []byte{7}) {
		t.Errorf("%X, %v", resp.Data, err)
	}
}

// What takes the connection away, and OpenChannel finds again.
func TestConnectionLost(t *testing.T) {
	for _, c := range []struct {
		name string
		lose func(t *testing.T, r *rig[*apdutest.UICC])
	}{
		{"pcscd restarted", func(t *testing.T, r *rig[*apdutest.UICC]) {
			if err := r.pcscd.Restart(t.Context()); err != nil {
				t.Fatal(err)
			}
		}},
		{"card taken out and put in again", func(t *testing.T, r *rig[*apdutest.UICC]) {
			r.remove()
			time.Sleep(time.Second) // pcscd looks every 400 ms
			r.insert(t)
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := newRig(t, scripted(256, nil))
			card := r.open(t)
			defer card.Close()
			ch, err := card.OpenChannel(t.Context(), testAID)
			if err != nil {
				t.Fatal(err)
			}
			c.lose(t, r)
			if _, err := ch.Transmit(t.Context(), storeData(7)); err == nil {
				t.Error("a channel outlived the connection")
			}
			if err := ch.Close(t.Context()); err != nil {
				t.Error(err)
			}
			if ch, err = card.OpenChannel(t.Context(), testAID); err != nil {
				t.Fatal(err)
			}
			if resp, err := ch.Transmit(t.Context(), storeData(7)); err != nil || !bytes.Equal(resp.Data, []byte{7}) {
				t.Errorf("%X, %v", resp.Data, err)
			}
		})
	}
}

// The same, found only when the next channel is opened.
func TestConnectionLostIdle(t *testing.T) {
	r := newRig(t, scripted(256, nil))
	card := r.open(t)
	defer card.Close()
	if err := r.pcscd.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := card.OpenChannel(t.Context(), testAID); err != nil {
		t.Error(err)
	}
}

// Two readers with a card each: chosen by name or by answer to reset, one that
// somebody uses is skipped, and after a restart of pcscd each card is found in
// its own reader, although the other one is there before it.
func TestTwoReaders(t *testing.T) {
	r := newRig(t, scripted(256, apdutest.ATRT0))
	other := scripted(100, apdutest.ATRT1)
	second := &rig[*apdutest.UICC]{pcscd: r.pcscd, card: other, addr: r.pcscd.SecondAddr()}
	second.insert(t)
	byATR := r.config
	byATR.ATR = strings.ToUpper(hex.EncodeToString(apdutest.ATRT1[:len(apdutest.ATRT1)-1])) + "*"
	two := *r
	two.config = byATR
	b := two.open(t)
	defer b.Close()
	if !bytes.Equal(b.ATR(), apdutest.ATRT1) || !strings.HasSuffix(b.Reader(), "00 01") {
		t.Errorf("%X in %s", b.ATR(), b.Reader())
	}
	if _, err := pcsc.Open(t.Context(), byATR); !errors.Is(err, pcsc.ErrReaderInUse) {
		t.Errorf("second user of one card: %v", err)
	}
	a := r.open(t) // any reader: the one that is used is skipped
	defer a.Close()
	if !strings.HasSuffix(a.Reader(), "00 00") {
		t.Errorf("in %s", a.Reader())
	}
	none := r.config
	none.ATR = "3B00"
	if _, err := pcsc.Open(t.Context(), none); !errors.Is(err, pcsc.ErrNoCard) {
		t.Errorf("no such card: %v", err)
	}
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	byName := r.config
	byName.Reader = "PCD 00 01"
	two.config = byName
	b = two.open(t)
	defer b.Close()

	ch, err := b.OpenChannel(t.Context(), testAID)
	if err != nil {
		t.Fatal(err)
	}
	second.remove()
	if err := r.pcscd.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := ch.Transmit(t.Context(), storeData(7)); !errors.Is(err, apdu.ErrBroken) && !errors.Is(err, apdu.ErrChannelClosed) && fault.Of(err).Code == fault.Internal {
		t.Errorf("a channel that outlived pcscd: %v", err)
	}
	back := time.AfterFunc(2*time.Second, func() { second.insert(t) }) // the other reader's card is there before
	defer back.Stop()
	if _, err := b.OpenChannel(t.Context(), testAID); err != nil || !strings.HasSuffix(b.Reader(), "00 01") {
		t.Errorf("in %s: %v", b.Reader(), err)
	}
	if _, err := a.OpenChannel(t.Context(), testAID); err != nil || !strings.HasSuffix(a.Reader(), "00 00") {
		t.Errorf("in %s: %v", a.Reader(), err)
	}
}

// With Shared another program may be connected too, and gets its turn when we
// do not hold the card.
func TestShared(t *testing.T) {
	r := newRig(t, scripted(256, nil))
	r.config.Shared = true
	a := r.open(t)
	if _, err := a.OpenChannel(t.Context(), testAID); err != nil {
		t.Error(err)
	}
	// The other waits for our transaction, and that can be ended.
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	if _, err := pcsc.Open(ctx, r.config); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("second user: %v", err)
	}
	if err := a.Close(); err != nil {
		t.Error(err)
	}
	b := r.open(t)
	if _, err := b.OpenChannel(t.Context(), testAID); err != nil {
		t.Error(err)
	}
	if err := b.Close(); err != nil {
		t.Error(err)
	}
}
