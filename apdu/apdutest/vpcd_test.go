package apdutest_test

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"testing"

	"lpad/apdu/apdutest"
)

// reader is the other end of ServeVPCD: the listening virtual reader.
type reader struct {
	*testing.T
	net.Listener
	conn net.Conn
}

// insert waits for the card.
func (r *reader) insert() {
	r.Helper()
	var err error
	if r.conn, err = r.Accept(); err != nil {
		r.Fatal(err)
	}
}

func (r *reader) send(message ...byte) {
	r.Helper()
	frame := append(binary.BigEndian.AppendUint16(nil, uint16(len(message))), message...)
	if _, err := r.conn.Write(frame); err != nil {
		r.Fatal(err)
	}
}

func (r *reader) receive() string {
	r.Helper()
	var head [2]byte
	if _, err := io.ReadFull(r.conn, head[:]); err != nil {
		return err.Error()
	}
	b := make([]byte, binary.BigEndian.Uint16(head[:]))
	if _, err := io.ReadFull(r.conn, b); err != nil {
		return err.Error()
	}
	return string(b)
}

// weak is a card that leaves at a certain command.
type weak struct{ apdutest.UICC }

func (w *weak) Transmit(ctx context.Context, command []byte) ([]byte, error) {
	if command[1] == 0xEE {
		return nil, errors.New("power cut")
	}
	return w.UICC.Transmit(ctx, command)
}

func TestServeVPCD(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	r := &reader{T: t, Listener: l}
	card := &weak{}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- apdutest.ServeVPCD(ctx, l.Addr().String(), card) }()

	r.insert()
	for _, control := range []byte{0, 1, 2} { // off, on, reset
		r.send(control)
	}
	r.send(9) // unknown: no answer
	r.send(4)
	if got := r.receive(); got != string(apdutest.ATRT0) {
		t.Errorf("ATR %X", got)
	}
	if n := card.Resets(); n != 3 {
		t.Errorf("%d resets, want 3", n)
	}
	r.send(0x00, 0x70, 0x80, 0x05, 0x00)
	if got := r.receive(); got != "\x68\x81" {
		t.Errorf("answer %X", got)
	}
	r.send(0x00, 0xEE, 0x00, 0x00)
	if got := r.receive(); got != io.EOF.Error() {
		t.Errorf("the card stayed: %X", got)
	}
	if err := r.conn.Close(); err != nil {
		t.Error(err)
	}

	r.insert() // it comes back
	if err := r.conn.Close(); err != nil {
		t.Error(err)
	}
	r.insert() // and when the reader was restarted
	if _, err := r.conn.Write([]byte{0}); err != nil {
		t.Error(err)
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
	if err := errors.Join(r.conn.Close(), l.Close()); err != nil {
		t.Error(err)
	}
}
