package reader

import (
	"bytes"
	"io"
	"testing"

	"lpad/apdu/pcsc"
)

// scripted is a service that answers, refuses or panics.
type scripted struct{ err error }

func (s scripted) list() ([]readerState, error) {
	return []readerState{{"A", pcsc.CardPresent, []byte{0x3B, 0}}}, s.err
}
func (s scripted) connect(string, bool) (connection, error) {
	return connection{1, []byte{0x3B}}, s.err
}
func (s scripted) transmit(b []byte) ([]byte, error) { return append(b[:1:1], 0x90, 0), s.err }
func (s scripted) reset(byte) (connection, error)    { panic("unknown protocol") }
func (s scripted) status() (readerState, connection, error) {
	return readerState{state: pcsc.CardPresent}, connection{}, s.err
}
func (s scripted) disconnect(byte) error { return s.err }

func frame(kind byte, fields ...[]byte) []byte {
	return pcsc.Finish(append(pcsc.Begin(kind), bytes.Join(fields, nil)...))
}

func text(s string) []byte { return pcsc.AppendBytes(nil, s) }

func failed(code byte, words string) []byte {
	return frame(pcsc.Failure, []byte{0, 0, 0, code}, text(words))
}

// Every request and its answer, byte for byte.
func TestProtocol(t *testing.T) {
	for _, c := range []struct {
		name          string
		err           error
		request, want []byte
	}{
		{"list", nil, frame(pcsc.List), frame(0x90, text("A"), []byte{1}, text("\x3B\x00"))},
		{"connect", nil, frame(pcsc.Connect, []byte{1}, text("A")), frame(0x91, []byte{1}, text("\x3B"))},
		{"transmit", nil, frame(pcsc.Transmit, text("\x07")), frame(0x92, text("\x07\x90\x00"))},
		{"status", nil, frame(pcsc.Status), frame(0x94, []byte{1, 0}, text(""))},
		{"disconnect", nil, frame(pcsc.Disconnect, []byte{1}), frame(0x95)},
		{"refused", &failure{code: 9, text: "no"}, frame(pcsc.Disconnect, []byte{1}), failed(9, "no")},
		{"other error", io.ErrNoProgress, frame(pcsc.List), failed(0, io.ErrNoProgress.Error())},
		{"panic", nil, frame(pcsc.Reset, []byte{1}), failed(0, "the PC/SC binding panicked")},
		{"unknown", nil, frame(0x77), failed(0, "request not understood")},
		{"empty command", nil, frame(pcsc.Transmit, text("")), failed(0, "request not understood")},
		{"list too long", nil, frame(pcsc.List, []byte{0}), failed(0, "request not understood")},
		{"connect too short", nil, frame(pcsc.Connect, []byte{1}), failed(0, "request not understood")},
		{"transmit too short", nil, frame(pcsc.Transmit, []byte{0, 0, 0, 9, 1}), failed(0, "request not understood")},
		{"reset too short", nil, frame(pcsc.Reset), failed(0, "request not understood")},
		{"status too long", nil, frame(pcsc.Status, []byte{0}), failed(0, "request not understood")},
		{"disconnect too short", nil, frame(pcsc.Disconnect), failed(0, "request not understood")},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := answer(scripted{c.err}, c.request[4:]); !bytes.Equal(got, c.want) {
				t.Errorf("got %X, want %X", got, c.want)
			}
		})
	}
}

// What ends the program, and with which status.
func TestServeEnds(t *testing.T) {
	for _, c := range []struct {
		name string
		in   []byte
		want int
	}{
		{"end of input", nil, exitDone},
		{"in a length", []byte{0, 0}, exitFrame},
		{"in a frame", []byte{0, 0, 0, 2, pcsc.List}, exitFrame},
		{"empty frame", []byte{0, 0, 0, 0}, exitFrame},
		{"frame too long", []byte{0, 2, 0, 0}, exitFrame},
	} {
		if got := serve(bytes.NewReader(c.in), io.Discard, scripted{}); got != c.want {
			t.Errorf("%s: %d, want %d", c.name, got, c.want)
		}
	}
	if got := serve(bytes.NewReader(nil), brokenPipe{}, scripted{}); got != exitFrame {
		t.Errorf("no output: %d", got)
	}
}

type brokenPipe struct{}

func (brokenPipe) Write([]byte) (int, error) { return 0, io.ErrClosedPipe }

// stalled is a service that never answers.
type stalled struct {
	scripted
	wait chan struct{}
}

func (s stalled) transmit([]byte) ([]byte, error) { <-s.wait; return nil, nil }

// The end of the input ends the program in the middle of a call, and so does a
// client that does not wait for answers.
func TestServeEndsInACall(t *testing.T) {
	wait := make(chan struct{})
	defer close(wait)
	request := frame(pcsc.Transmit, text("\x07"))
	if got := serve(bytes.NewReader(request), io.Discard, stalled{wait: wait}); got != exitDone {
		t.Errorf("end of input: %d", got)
	}
	if got := serve(bytes.NewReader(bytes.Repeat(request, 9)), io.Discard, stalled{wait: wait}); got != exitFrame {
		t.Errorf("nine at once: %d", got)
	}
}
