//go:build cgo && !nopcsc

package reader

import (
	"bytes"
	"context"
	"encoding/binary"
	"io"
	"os"
	"testing"
	"time"

	"lpad/apdu"
	"lpad/apdu/apdutest"
	"lpad/apdu/pcsc"
	"lpad/modem/modemtest"
)

// client talks to Serve in this process.
type client struct {
	t   *testing.T
	in  io.Writer
	out io.Reader
}

func (c client) read() []byte {
	c.t.Helper()
	var head [4]byte
	if _, err := io.ReadFull(c.out, head[:]); err != nil {
		c.t.Fatal(err)
	}
	b := make([]byte, binary.BigEndian.Uint32(head[:]))
	if _, err := io.ReadFull(c.out, b); err != nil {
		c.t.Fatal(err)
	}
	return b
}

// call sends a request and gives the fields of the answer, or the code of the
// failure.
func (c client) call(request []byte) (*pcsc.Fields, uint32) {
	c.t.Helper()
	if _, err := c.in.Write(request); err != nil {
		c.t.Fatal(err)
	}
	answer := c.read()
	f := pcsc.NewFields(answer[1:])
	switch answer[0] {
	case request[4] + pcsc.Answer:
		return f, 0
	case pcsc.Failure:
		return nil, f.U32()
	}
	c.t.Fatalf("answer %X to %X", answer, request)
	return nil, 0
}

// must is call for requests that have to work.
func (c client) must(request []byte) *pcsc.Fields {
	c.t.Helper()
	f, code := c.call(request)
	if code != 0 {
		c.t.Fatalf("request %X: code %08X", request, code)
	}
	return f
}

// Codes of PC/SC that are expected here (pcsclite.h).
const (
	invalidHandle = 0x80100003
	noService     = 0x8010001D
	unknownReader = 0x80100009
)

// pcscdDir is one for the whole process, since libpcsclite looks for its socket
// only once. t.TempDir would be too long for a socket as well.
var pcscdDir string

func TestMain(m *testing.M) {
	var err error
	if pcscdDir, err = os.MkdirTemp("", "pcscd"); err != nil {
		panic(err)
	}
	status := m.Run()
	if err := os.RemoveAll(pcscdDir); err != nil {
		panic(err)
	}
	os.Exit(status)
}

// The binding against a real pcscd: what each request does, and what it says
// when it comes at the wrong time.
func TestServe(t *testing.T) {
	modemtest.RequirePCSCD(t)
	p, err := modemtest.StartPCSCD(t.Context(), pcscdDir)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	t.Setenv("PCSCLITE_CSOCK_NAME", p.Socket())

	card := apdutest.Func(func(c apdu.Command) apdu.Response { return apdu.Response{Data: []byte{c.INS}, SW: 0x9000} })
	ctx, cancel := context.WithCancel(t.Context())
	gone := make(chan error, 1)
	go func() { gone <- apdutest.ServeVPCD(ctx, p.Addr(), card) }()
	defer func() {
		cancel()
		if err := <-gone; err != nil {
			t.Error(err)
		}
	}()

	inR, inW := io.Pipe()
	outR, outW := io.Pipe()
	exit := make(chan int, 1)
	go func() { exit <- Serve(inR, outW, io.Discard) }()
	c := client{t, inW, outR}
	if hello := c.read(); hello[0] != pcsc.Hello || hello[1] != pcsc.Version {
		t.Fatalf("hello %X", hello)
	}

	for _, request := range [][]byte{
		frame(pcsc.Transmit, text("\x00\xB0\x00\x00")), frame(pcsc.Reset, []byte{pcsc.ResetCard}), frame(pcsc.Status),
	} {
		if _, code := c.call(request); code != invalidHandle {
			t.Errorf("%X before connect: code %08X", request, code)
		}
	}
	if _, code := c.call(frame(pcsc.Connect, []byte{1}, text("No such reader"))); code != unknownReader {
		t.Errorf("unknown reader: code %08X", code)
	}

	name := waitForCard(c)
	for _, exclusive := range []byte{1, 0} { // the second connect disconnects first
		f := c.must(frame(pcsc.Connect, []byte{exclusive}, text(name)))
		if protocol, atr := f.Byte(), f.Bytes(); protocol != 0 || !bytes.Equal(atr, apdutest.ATRT0) || !f.OK() {
			t.Errorf("connected by T=%d, ATR %X", protocol, atr)
		}
		f = c.must(frame(pcsc.Transmit, text("\x00\xB0\x00\x00\x00")))
		if b := f.Bytes(); !bytes.Equal(b, []byte{0xB0, 0x90, 0x00}) {
			t.Errorf("response %X", b)
		}
		for _, kind := range []byte{pcsc.LeaveCard, pcsc.ResetCard, pcsc.PowerCard} {
			if f := c.must(frame(pcsc.Reset, []byte{kind})); f.Byte() != 0 || !bytes.Equal(f.Bytes(), apdutest.ATRT0) {
				t.Errorf("reset %d", kind)
			}
		}
		if f := c.must(frame(pcsc.Status)); f.Byte() != pcsc.CardPresent|pcsc.InUse || f.Byte() != 0 || len(f.Bytes()) == 0 {
			t.Error("status")
		}
	}
	for _, request := range [][]byte{frame(pcsc.Reset, []byte{9}), frame(pcsc.Disconnect, []byte{9})} {
		if _, code := c.call(request); code != 0 {
			t.Errorf("%X: code %08X", request, code)
		}
	}
	c.must(frame(pcsc.Disconnect, []byte{pcsc.ResetCard}))
	c.must(frame(pcsc.Disconnect, []byte{pcsc.ResetCard})) // not connected: nothing to do

	if err := p.Close(); err != nil {
		t.Fatal(err)
	}
	if _, code := c.call(frame(pcsc.List)); code != noService {
		t.Errorf("without pcscd: code %08X", code)
	}
	if err := inW.Close(); err != nil {
		t.Error(err)
	}
	if status := <-exit; status != exitDone {
		t.Errorf("exit status %d", status)
	}
}

// waitForCard asks for the readers until one has a card.
func waitForCard(c client) string {
	c.t.Helper()
	for start := time.Now(); time.Since(start) < 10*time.Second; {
		f := c.must(frame(pcsc.List))
		for !f.Empty() {
			name, state := f.Text(), f.Byte()
			f.Bytes()
			if state&pcsc.CardPresent != 0 {
				return name
			}
		}
		time.Sleep(20 * time.Millisecond)
	}
	c.t.Fatal("no card")
	return ""
}
