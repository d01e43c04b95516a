package relay

import (
	"context"
	"errors"
	"io"
	"net"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// Station is the device's end: a place for one laptop at a time. Make it with
// [NewStation]; it is safe for concurrent use.
type Station struct {
	pace pace
	seat chan struct{} // taken by who is attached

	mu   sync.Mutex
	link *link
	last uint64 // number of the newest connection; they are not used again
}

// Attached tells of a laptop.
type Attached struct {
	By    string // who, in the words of Attach
	Since time.Time
}

// link is a laptop that is attached.
type link struct {
	Attached
	conn  net.Conn
	dead  time.Duration
	heard atomic.Int64 // lines
	done  chan struct{}

	mu      sync.Mutex
	err     error                  // why it has ended
	wanted  map[uint64]chan result // what the laptop was asked for
	carried map[*carried]bool
}

// result is what came of a wish: a connection, or why there is none.
type result struct {
	conn net.Conn
	why  why // 0: the connection was lost
	text string
}

// errGone is the usual end.
var errGone = errors.New("the other end has gone")

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
	l := &link{Attached: Attached{by, time.Now().UTC()}, conn: conn, dead: s.pace.dead, done: make(chan struct{}),
		wanted: map[uint64]chan result{}, carried: map[*carried]bool{}}
	s.change(l)
	defer s.change(nil)
	defer context.AfterFunc(ctx, func() { l.fail(context.Cause(ctx)) })()
	l.fail(l.listen(s.pace))
	return l.err
}

func (s *Station) change(l *link) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.link = l
}

// sit takes the seat.
func (s *Station) sit(ctx context.Context) error {
	select {
	case s.seat <- struct{}{}:
		return nil
	default:
	}
	l := s.current()
	if l == nil || l.answers(ctx, s.pace.answer) { // nil: it is just coming or going
		return ErrTaken
	}
	l.fail(errors.New("another relay has taken its place, since it did not answer"))
	select {
	case s.seat <- struct{}{}:
		return nil
	case <-time.After(s.pace.answer):
		return ErrTaken
	}
}

func (s *Station) current() *link {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.link
}

// Attached tells of the laptop that is attached, if there is one.
func (s *Station) Attached() (Attached, bool) {
	l := s.current()
	if l == nil {
		return Attached{}, false
	}
	return l.Attached, true
}

// listen takes what the laptop says, and asks from time to time whether it is
// there.
func (l *link) listen(p pace) error {
	in := lines{conn: l.conn}
	for begin := time.Now(); ; {
		said, err := in.next(time.Now().Add(p.ping))
		switch {
		case timedOut(err) && time.Since(begin) > p.dead:
			return errSilent
		case timedOut(err):
			if err := say(l.conn, p.dead, "ping"); err != nil {
				return err
			}
			continue
		case errors.Is(err, io.EOF):
			return errGone
		case err != nil:
			return err
		case said.word == "failed":
			number, text, _ := strings.Cut(said.rest, " ")
			n, err := strconv.ParseUint(number, 10, 8)
			if err != nil || n == 0 {
				return errViolation
			}
			if c := l.want(said.n); c != nil {
				c <- result{nil, why(n), plain(text)}
			}
		case said.word != "pong":
			return errViolation
		}
		l.heard.Add(1)
		begin = time.Now()
	}
}

// want gives up what was asked for by a number, for whoever fulfils it; nil when
// nobody waits for it.
func (l *link) want(n uint64) chan result {
	l.mu.Lock()
	defer l.mu.Unlock()
	c := l.wanted[n]
	delete(l.wanted, n)
	return c
}

// answers reports whether the laptop shows within a while that it is there.
func (l *link) answers(ctx context.Context, within time.Duration) bool {
	before := l.heard.Load()
	if say(l.conn, within, "ping") != nil {
		return false
	}
	for range 100 {
		time.Sleep(within / 100)
		if l.heard.Load() != before || ctx.Err() != nil { // or nobody wants the place any more
			return true
		}
	}
	return false
}

// fail ends the link, once, with everything that it carries.
func (l *link) fail(err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.err != nil {
		return
	}
	l.err = err
	close(l.done)
	l.conn.Close() // nothing is left to be told
	for c := range l.carried {
		c.Conn.Close() // whoever uses it gets ErrLost
	}
}

// Dial has the laptop connect to an address "host:port". Without a laptop the
// error is [ErrNone]; when it goes, what is connected ends with [ErrLost]. An
// error of the laptop's own dialling is of the kind that it would be here
// (net.DNSError, ECONNREFUSED, a timeout …).
func (s *Station) Dial(ctx context.Context, address string) (net.Conn, error) {
	if len(address) > maxAddress || strings.ContainsAny(address, " \n") { // the laptop looks closer
		return nil, errors.New("the address is none")
	}
	s.mu.Lock()
	s.last++
	l, n := s.link, s.last
	s.mu.Unlock()
	if l == nil {
		return nil, ErrNone
	}
	c := make(chan result, 1)
	l.mu.Lock()
	full := len(l.wanted)+len(l.carried) >= maxConns
	if !full {
		l.wanted[n] = c
	}
	l.mu.Unlock()
	if full {
		return nil, errors.New("the relay carries too many connections already")
	}
	err := error(ErrLost)
	if say(l.conn, l.dead, "open "+strconv.FormatUint(n, 10)+" "+address) == nil {
		select {
		case r := <-c:
			switch {
			case r.conn != nil:
				return r.conn, nil
			case r.why != 0:
				return nil, failure(address, r.why, r.text)
			}
			return nil, ErrLost
		case <-l.done:
		case <-ctx.Done():
			err = ctx.Err()
		}
	}
	if l.want(n) == nil { // it is just being brought
		if r := <-c; r.conn != nil {
			r.conn.Close()
		}
	}
	return nil, err
}

// Bring hands over the connection of a number that the laptop was asked for, by
// take. Nobody asked for it, or not any longer: [ErrNotAsked].
func (s *Station) Bring(number string, take func() (net.Conn, error)) error {
	l := s.current()
	n, err := strconv.ParseUint(number, 10, 32)
	if err != nil || l == nil {
		return ErrNotAsked
	}
	c := l.want(n)
	if c == nil {
		return ErrNotAsked
	}
	conn, err := take()
	if err != nil {
		c <- result{}
		return err
	}
	one := &carried{conn, l}
	l.mu.Lock()
	if l.err == nil {
		l.carried[one] = true
	} else {
		conn.Close()
	}
	l.mu.Unlock()
	c <- result{conn: one}
	return nil
}

// carried is a connection through the laptop.
type carried struct {
	net.Conn
	link *link
}

// lostWithin is how long the end of a connection may be before that of the link,
// of which it is a part: they go separate ways.
const lostWithin = 200 * time.Millisecond

func (c *carried) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	return n, c.why(err)
}

func (c *carried) Write(p []byte) (int, error) {
	n, err := c.Conn.Write(p)
	return n, c.why(err)
}

// why tells the end of the link from that of the connection alone.
func (c *carried) why(err error) error {
	if err == nil || timedOut(err) {
		return err
	}
	wait := lostWithin
	c.link.mu.Lock()
	if !c.link.carried[c] && c.link.err == nil { // closed here
		wait = 0
	}
	c.link.mu.Unlock()
	select {
	case <-c.link.done:
		return ErrLost
	case <-time.After(wait):
		return err
	}
}

func (c *carried) Close() error {
	c.link.mu.Lock()
	delete(c.link.carried, c)
	c.link.mu.Unlock()
	return c.Conn.Close()
}
