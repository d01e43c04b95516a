package relay

import (
	"context"
	"errors"
	"net"
	"sync"
	"time"
)

// Station is the device's end: a place for one laptop at a time. Make it with
// [NewStation]; it is safe for concurrent use.
type Station struct {
	pace pace
	seat chan struct{} // taken by who is attached

	mu       sync.Mutex
	link     *link
	attached Attached
}

// Attached tells of a laptop.
type Attached struct {
	By    string // who, in the words of Attach
	Since time.Time
}

// NewStation makes one.
func NewStation() *Station { return &Station{pace: usual, seat: make(chan struct{}, 1)} }

// Attach has a laptop carry connections until ctx ends or it goes, and returns
// why it ended. The place is taken first: take hands the connection over then,
// and an error of it is the one that is returned. A laptop that is attached and
// answers keeps its place ([ErrTaken]); one that is silent loses it, since
// whoever comes back after a broken link must not wait for the old one's end.
func (s *Station) Attach(ctx context.Context, by string, take func() (net.Conn, error)) error {
	if err := s.sit(ctx); err != nil {
		return err
	}
	defer func() { <-s.seat }()
	conn, err := take()
	if err != nil {
		return err
	}
	l := newLink(conn, s.pace)
	s.mu.Lock()
	s.link, s.attached = l, Attached{By: by, Since: time.Now().UTC()}
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.link = nil
	}()
	return l.run(ctx)
}

// sit takes the seat.
func (s *Station) sit(ctx context.Context) error {
	select {
	case s.seat <- struct{}{}:
		return nil
	default:
	}
	l, _ := s.current()
	if l == nil || l.answers(ctx) { // nil: it is just coming or going
		return ErrTaken
	}
	l.fail(errors.New("another relay has taken its place, since it did not answer"))
	ctx, cancel := context.WithTimeout(ctx, s.pace.answer)
	defer cancel()
	select {
	case s.seat <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ErrTaken
	}
}

func (s *Station) current() (*link, Attached) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.link, s.attached
}

// Attached tells of the laptop that is attached, if there is one.
func (s *Station) Attached() (Attached, bool) {
	l, a := s.current()
	return a, l != nil
}

// Dial has the laptop connect to an address "host:port". Without a laptop the
// error is [ErrNone]; when it goes, what is connected ends with [ErrLost]. An
// error of the laptop's own dialling is of the kind that it would be here
// (net.DNSError, ECONNREFUSED, a timeout …).
func (s *Station) Dial(ctx context.Context, address string) (net.Conn, error) {
	l, _ := s.current()
	if l == nil {
		return nil, ErrNone
	}
	return l.open(ctx, address)
}
