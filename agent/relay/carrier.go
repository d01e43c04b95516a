package relay

import (
	"context"
	"errors"
	"io"
	"net"
	"sync"
)

// maxCarried bounds the connections of a laptop together with those that the
// device has given up and that have not come to their end.
const maxCarried = 4 * maxStreams

// Carrier is the laptop's end.
type Carrier struct {
	// Dial connects to a server. The context ends with the link.
	Dial func(ctx context.Context, address string) (net.Conn, error)
	// Tell is told what happens, by one goroutine at a time. nil: nobody is.
	Tell func(Event)

	pace    pace // zero: usual
	telling sync.Mutex
}

// Event is something that has happened to a connection. Address is what the
// device has asked for.
type Event struct {
	Kind     string `json:"event"` // connected, refused (by the rules or the network), closed
	Address  string `json:"address"`
	Remote   string `json:"remote,omitempty"`   // where that is, as "ip:port"
	Sent     int64  `json:"sent,omitempty"`     // bytes, to the server
	Received int64  `json:"received,omitempty"` // bytes, from it
	Error    string `json:"error,omitempty"`
}

// The kinds of events.
const (
	Connected = "connected"
	Refused   = "refused"
	Closed    = "closed"
)

// Carry serves the device at the other end of conn until ctx ends or the device
// goes, and returns why. All its connections are closed then.
func (c *Carrier) Carry(ctx context.Context, conn net.Conn) error {
	p := c.pace
	if p == (pace{}) {
		p = usual
	}
	// The link ends first: the device is to hear that the laptop has gone, and not
	// that its connections broke.
	conns, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	l := newLink(conn, p)
	var carried sync.WaitGroup
	places := make(chan struct{}, maxCarried)
	l.accept = func(s *stream) error {
		select {
		case places <- struct{}{}:
		default:
			return errViolation
		}
		carried.Go(func() { defer func() { <-places }(); c.carry(conns, s) })
		return nil
	}
	err := l.run(ctx)
	cancel()
	carried.Wait()
	return err
}

func (c *Carrier) tell(e Event) {
	if c.Tell != nil {
		c.telling.Lock()
		defer c.telling.Unlock()
		c.Tell(e)
	}
}

// carry serves one connection.
func (c *Carrier) carry(ctx context.Context, s *stream) {
	defer s.Close()
	// A connection that the device has given up is not dialled any longer.
	dialling, gaveUp := context.WithCancel(ctx)
	waited := make(chan struct{})
	go func() { defer close(waited); s.awaitFailure(dialling); gaveUp() }()
	server, err := c.Dial(dialling, s.address)
	gaveUp()
	<-waited
	if err != nil {
		c.tell(Event{Kind: Refused, Address: s.address, Error: err.Error()})
		s.refuse(err)
		return
	}
	remote := server.RemoteAddr().String()
	c.tell(Event{Kind: Connected, Address: s.address, Remote: remote})
	s.open()

	e := Event{Kind: Closed, Address: s.address, Remote: remote}
	var up, down error
	defer context.AfterFunc(ctx, func() { server.Close() })()
	var pumps sync.WaitGroup
	pumps.Go(func() {
		var tls records // who controls the device may speak to servers by TLS, and in no other way
		e.Sent, up = pump(server, s, tls.check)
		if up != nil { // the device has gone, or sends what is not to be carried
			server.Close()
			s.Close()
			return
		}
		if half, ok := server.(interface{ CloseWrite() error }); ok {
			up = half.CloseWrite()
		}
	})
	e.Received, down = pump(s, server, nil)
	if down == nil {
		down = s.CloseWrite()
		s.awaitFailure(ctx) // the device closes when it has read the end
	} else {
		s.Close()
	}
	server.Close()
	pumps.Wait()
	for _, err := range []error{up, down} {
		if errors.Is(err, errNotTLS) || e.Error == "" && err != nil && !errors.Is(err, net.ErrClosed) && !errors.Is(err, errReset) && ctx.Err() == nil {
			e.Error = err.Error()
		}
	}
	c.tell(e)
}

// refuse says that the server is not connected. The place of the connection is
// free before the device hears of it, which may ask for another one then.
func (s *stream) refuse(err error) {
	s.mu.Lock()
	over := s.closed || s.err != nil
	s.closed = true
	s.mu.Unlock()
	if s.link.drop(s); !over {
		s.link.send(frame{kind: kindFailed, stream: s.id, payload: append([]byte{byte(whyOf(err))}, plain(err.Error())...)})
	}
}

// open says that the server is connected.
func (s *stream) open() {
	s.mu.Lock()
	s.up = true
	s.mu.Unlock()
	s.link.send(frame{kind: kindOpened, stream: s.id})
}

// awaitFailure waits until the connection is over, or ctx.
func (s *stream) awaitFailure(ctx context.Context) {
	defer context.AfterFunc(ctx, func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.turn.Broadcast()
	})()
	s.mu.Lock()
	defer s.mu.Unlock()
	for s.err == nil && !s.closed && ctx.Err() == nil {
		s.turn.Wait()
	}
}

// pump copies and counts what check lets through; nil: everything.
func pump(to io.Writer, from io.Reader, check func([]byte) error) (int64, error) {
	var n int64
	buf := make([]byte, 8<<10)
	for {
		got, err := from.Read(buf)
		if got > 0 {
			if check != nil {
				if err := check(buf[:got]); err != nil {
					return n, err
				}
			}
			put, err := to.Write(buf[:got])
			n += int64(put)
			if err != nil {
				return n, err
			}
		}
		switch {
		case errors.Is(err, io.EOF):
			return n, nil
		case err != nil:
			return n, err
		}
	}
}

// errNotTLS is why something is not carried.
var errNotTLS = errors.New("this is not TLS, and nothing else is carried")

// records follows the records of TLS (RFC 8446, section 5.1) in one direction.
type records struct {
	head [5]byte
	have int // bytes of the head
	left int // bytes of the record that are to come
}

const maxRecord = 1<<14 + 2048 // with what encryption adds, of TLS 1.2

// check reports whether p goes on as TLS.
func (r *records) check(p []byte) error {
	for len(p) > 0 {
		if r.left > 0 {
			n := min(r.left, len(p))
			r.left -= n
			p = p[n:]
			continue
		}
		if r.have == len(r.head) {
			return errNotTLS // as before
		}
		r.head[r.have] = p[0]
		p = p[1:]
		r.have++
		n := int(r.head[3])<<8 | int(r.head[4])
		switch {
		case r.head[0] < 20 || r.head[0] > 23, r.have > 1 && r.head[1] != 3, r.have > 2 && r.head[2] > 4, r.have == 5 && n > maxRecord:
			return errNotTLS
		case r.have == 5:
			r.have, r.left = 0, n
		}
	}
	return nil
}
