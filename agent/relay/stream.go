package relay

import (
	"context"
	"encoding/binary"
	"io"
	"net"
	"os"
	"sync"
	"time"
)

// stream is one carried connection, at either end: a net.Conn.
type stream struct {
	link    *link
	id      uint32
	address string

	mu   sync.Mutex
	turn sync.Cond // something below has changed

	up     bool  // the laptop is connected
	err    error // nothing more goes in either direction
	closed bool

	in    []byte // come and not read yet, at most a window
	taken int    // read and not credited yet
	ended bool   // nothing more comes

	room int  // bytes that the other end takes
	shut bool // nothing more is sent

	readBy, writeBy time.Time
	timers          [2]*time.Timer
}

// take does what a frame says that is for this connection. asked is the device's
// end, which has asked for it.
func (s *stream) take(f frame, asked bool) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	defer s.turn.Broadcast()
	switch f.kind {
	case kindOpened:
		if !asked || s.up {
			return errViolation
		}
		s.up = true
	case kindFailed:
		if !asked || s.up {
			return errViolation
		}
		s.link.drop(s)
		if s.err == nil {
			s.err = failure(s.address, why(f.payload[0]), plain(string(f.payload[1:])))
		}
	case kindData:
		if s.ended || !s.up || len(s.in)+s.taken+len(f.payload) > window {
			return errViolation
		}
		s.in = append(s.in, f.payload...)
	case kindEnd:
		if s.ended || !s.up {
			return errViolation
		}
		s.ended = true
	case kindCredit:
		n := binary.BigEndian.Uint32(f.payload)
		if n == 0 || n > uint32(window-s.room) {
			return errViolation
		}
		s.room += int(n)
	}
	return nil
}

// fail ends a connection for both directions. What has come can still be read.
func (s *stream) fail(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err == nil {
		s.err = err
	}
	s.turn.Broadcast()
}

// connected waits for the laptop to have connected.
func (s *stream) connected(ctx context.Context) error {
	defer context.AfterFunc(ctx, func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.turn.Broadcast()
	})()
	s.mu.Lock()
	defer s.mu.Unlock()
	for !s.up && s.err == nil && ctx.Err() == nil {
		s.turn.Wait()
	}
	if !s.up && s.err == nil {
		return ctx.Err()
	}
	if !s.up {
		return s.err
	}
	return nil
}

// Read implements net.Conn.
func (s *stream) Read(p []byte) (int, error) {
	n, credit, err := s.read(p)
	if credit > 0 {
		s.link.credit(s.id, credit)
	}
	return n, err
}

func (s *stream) read(p []byte) (n, credit int, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for {
		switch {
		case s.closed:
			return 0, 0, net.ErrClosed
		case past(s.readBy):
			return 0, 0, os.ErrDeadlineExceeded
		case len(p) == 0:
			return 0, 0, nil
		case len(s.in) > 0:
			n = copy(p, s.in)
			s.in = s.in[n:]
			if len(s.in) == 0 {
				s.in = nil
			}
			if s.taken += n; s.taken >= window/4 && !s.ended && s.err == nil {
				credit, s.taken = s.taken, 0
			}
			return n, credit, nil
		case s.ended:
			return 0, 0, io.EOF
		case s.err != nil:
			return 0, 0, s.err
		}
		s.turn.Wait()
	}
}

// Write implements net.Conn. It returns when the link has taken everything.
func (s *stream) Write(p []byte) (int, error) {
	sent := 0
	for {
		n, err := s.reserve(len(p) - sent)
		if err != nil || n == 0 {
			return sent, err
		}
		s.link.send(frame{kind: kindData, stream: s.id, payload: p[sent : sent+n]})
		sent += n
	}
}

// reserve waits until something may be sent.
func (s *stream) reserve(want int) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for {
		switch {
		case want == 0:
			return 0, nil
		case s.closed, s.shut:
			return 0, net.ErrClosed
		case s.err != nil:
			return 0, s.err
		case past(s.writeBy):
			return 0, os.ErrDeadlineExceeded
		case s.room > 0:
			n := min(want, s.room, maxPayload)
			s.room -= n
			return n, nil
		}
		s.turn.Wait()
	}
}

// CloseWrite says that nothing more is sent.
func (s *stream) CloseWrite() error {
	s.mu.Lock()
	tell := !s.closed && !s.shut && s.err == nil
	s.shut = true
	s.mu.Unlock()
	if tell {
		s.link.send(frame{kind: kindEnd, stream: s.id})
	}
	return nil
}

// Close implements net.Conn: the other end closes its side as well.
func (s *stream) Close() error {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return net.ErrClosed
	}
	s.closed = true
	tell := s.err == nil
	s.in = nil
	for _, t := range s.timers {
		if t != nil {
			t.Stop()
		}
	}
	s.turn.Broadcast()
	s.mu.Unlock()
	s.link.drop(s)
	if tell {
		s.link.send(frame{kind: kindReset, stream: s.id})
	}
	return nil
}

func past(t time.Time) bool { return !t.IsZero() && !time.Now().Before(t) }

// SetDeadline implements net.Conn.
func (s *stream) SetDeadline(t time.Time) error { return s.limit(t, &s.readBy, &s.writeBy) }

// SetReadDeadline implements net.Conn.
func (s *stream) SetReadDeadline(t time.Time) error { return s.limit(t, &s.readBy) }

// SetWriteDeadline implements net.Conn.
func (s *stream) SetWriteDeadline(t time.Time) error { return s.limit(t, &s.writeBy) }

func (s *stream) limit(t time.Time, limits ...*time.Time) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return net.ErrClosed
	}
	for _, l := range limits {
		*l = t
		timer := &s.timers[0]
		if l == &s.writeBy {
			timer = &s.timers[1]
		}
		if *timer != nil {
			(*timer).Stop()
			*timer = nil
		}
		if !t.IsZero() {
			*timer = time.AfterFunc(time.Until(t), func() {
				s.mu.Lock()
				defer s.mu.Unlock()
				s.turn.Broadcast()
			})
		}
	}
	s.turn.Broadcast()
	return nil
}

// where is an end of a carried connection, for messages.
type where string

func (where) Network() string  { return "relay" }
func (w where) String() string { return string(w) }

// LocalAddr implements net.Conn.
func (s *stream) LocalAddr() net.Addr { return where("relay") }

// RemoteAddr implements net.Conn: what the device has asked for.
func (s *stream) RemoteAddr() net.Addr { return where(s.address) }
