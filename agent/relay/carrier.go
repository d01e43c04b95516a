package relay

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"sync"
	"time"
)

// maxCarried bounds the connections of a laptop together with those that the
// device has given up and that have not come to their end.
const maxCarried = 4 * maxConns

// Carrier is the laptop's end.
type Carrier struct {
	// Dial connects to a server. The context ends with the link.
	Dial func(ctx context.Context, address string) (net.Conn, error)
	// Bring makes the connection of a number to the device.
	Bring func(ctx context.Context, number string) (net.Conn, error)
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
	var carried sync.WaitGroup
	defer carried.Wait()
	carrying, cancel := context.WithCancel(ctx)
	defer cancel()
	defer conn.Close() // first of all: the device is to hear at once that the laptop has gone
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	places := make(chan struct{}, maxCarried)
	in := lines{conn: conn}
	for last := uint64(0); ; {
		said, err := in.next(time.Now().Add(p.dead))
		switch {
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case timedOut(err):
			return errSilent
		case errors.Is(err, io.EOF):
			return errGone
		case err != nil:
			return err
		}
		switch said.word {
		case "ping":
			if err := say(conn, p.dead, "pong"); err != nil {
				return err
			}
		case "open":
			_, _, err := ParseAddress(said.rest)
			if err != nil || said.n <= last {
				return errors.Join(errViolation, err)
			}
			last = said.n
			select {
			case places <- struct{}{}:
			default:
				return errViolation
			}
			carried.Go(func() {
				defer func() { <-places }()
				c.carry(carrying, conn, p.dead, said.n, said.rest)
			})
		default:
			return errViolation
		}
	}
}

func (c *Carrier) tell(e Event) {
	if c.Tell != nil {
		c.telling.Lock()
		defer c.telling.Unlock()
		c.Tell(e)
	}
}

// carry serves one connection.
func (c *Carrier) carry(ctx context.Context, conn net.Conn, dead time.Duration, n uint64, address string) {
	server, err := c.Dial(ctx, address)
	if err != nil {
		c.tell(Event{Kind: Refused, Address: address, Error: err.Error()})
		// An error of writing it is one of the link, which whoever reads it sees.
		_ = say(conn, dead, fmt.Sprintf("failed %d %d %s", n, whyOf(err), plain(err.Error())))
		return
	}
	defer server.Close()
	device, err := c.Bring(ctx, strconv.FormatUint(n, 10))
	if err != nil {
		c.tell(Event{Kind: Refused, Address: address, Error: "the device does not want it any more: " + err.Error()})
		return
	}
	defer device.Close()
	remote := server.RemoteAddr().String()
	c.tell(Event{Kind: Connected, Address: address, Remote: remote})
	end := func() { server.Close(); device.Close() }
	defer context.AfterFunc(ctx, end)()

	e := Event{Kind: Closed, Address: address, Remote: remote}
	var up error
	var pumps sync.WaitGroup
	pumps.Go(func() {
		var tls records // who controls the device may speak to servers by TLS, and in no other way
		e.Sent, up = pump(server, device, tls.check)
		end()
	})
	var down error
	e.Received, down = pump(device, server, nil)
	end()
	pumps.Wait()
	switch {
	case errors.Is(up, errNotTLS):
		e.Error = up.Error()
	case down != nil && !errors.Is(down, net.ErrClosed) && ctx.Err() == nil:
		e.Error = down.Error()
	}
	c.tell(e)
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
				return n, net.ErrClosed // whom it is for wants no more, which is no trouble
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
