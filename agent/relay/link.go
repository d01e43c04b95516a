package relay

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// link is one end of a relay: the connection between device and laptop, and what
// is carried over it. The reader never writes and never waits for anybody but the
// other end, so that two ends cannot wait for each other.
type link struct {
	conn net.Conn
	pace pace

	// accept is told each connection that the device wants, by the reader; nil at
	// the device, which is asked for none.
	accept func(*stream) error

	opening sync.Mutex
	writing sync.Mutex
	out     []byte

	heard atomic.Int64  // reads that have brought something
	pong  atomic.Bool   // one is owed
	ask   atomic.Bool   // a ping is wanted at once
	wake  chan struct{} // pong or ask has changed

	mu      sync.Mutex
	streams map[uint32]*stream
	last    uint32 // number of the newest
	err     error  // why it has ended
	done    chan struct{}
}

// errGone is the usual end.
var errGone = errors.New("the other end has gone")

func newLink(conn net.Conn, p pace) *link {
	return &link{conn: conn, pace: p, wake: make(chan struct{}, 1), streams: map[uint32]*stream{}, done: make(chan struct{})}
}

// run serves the link until ctx ends, the other end goes or breaks the protocol,
// and returns why.
func (l *link) run(ctx context.Context) error {
	defer context.AfterFunc(ctx, func() { l.fail(context.Cause(ctx)) })()
	var keeping sync.WaitGroup
	keeping.Go(l.keep)
	defer keeping.Wait()
	buf := make([]byte, headerSize+maxPayload)
	for {
		f, err := readFrame(listener{l}, buf)
		if errors.Is(err, io.EOF) {
			err = errGone
		}
		if err == nil {
			err = l.take(f)
		}
		if err != nil {
			l.fail(err)
			return l.err
		}
	}
}

// listener notes each sign of life.
type listener struct{ *link }

func (l listener) Read(p []byte) (int, error) {
	n, err := l.conn.Read(p)
	if n > 0 {
		l.heard.Add(1)
	}
	return n, err
}

// keep asks from time to time whether the other end is there, answers the same
// question, and ends the link when nothing comes any more.
func (l *link) keep() {
	tick := time.NewTicker(l.pace.ping)
	defer tick.Stop()
	before, since := l.heard.Load(), time.Now()
	for {
		ping := false
		select {
		case <-l.done:
			return
		case <-l.wake:
		case <-tick.C:
			ping = true
			if now := l.heard.Load(); now != before {
				before, since = now, time.Now()
			} else if time.Since(since) >= l.pace.dead {
				l.fail(errors.New("the other end does not answer any more"))
				return
			}
		}
		if l.pong.Swap(false) {
			l.send(frame{kind: kindPong})
		}
		if l.ask.Swap(false) || ping {
			l.send(frame{kind: kindPing})
		}
	}
}

func (l *link) rouse(flag *atomic.Bool) {
	flag.Store(true)
	select {
	case l.wake <- struct{}{}:
	default:
	}
}

// answers reports whether the other end shows within a while that it is there.
func (l *link) answers(ctx context.Context) bool {
	before := l.heard.Load()
	l.rouse(&l.ask)
	ctx, cancel := context.WithTimeout(ctx, l.pace.answer)
	defer cancel()
	tick := time.NewTicker(l.pace.answer / 100)
	defer tick.Stop()
	for l.heard.Load() == before {
		select {
		case <-l.done:
			return false
		case <-ctx.Done():
			return false
		case <-tick.C:
		}
	}
	return true
}

// send sends a frame. An error ends the link, which everybody sees.
func (l *link) send(f frame) {
	l.writing.Lock()
	defer l.writing.Unlock()
	l.out = appendFrame(l.out[:0], f)
	err := l.conn.SetWriteDeadline(time.Now().Add(l.pace.dead))
	if err == nil {
		_, err = l.conn.Write(l.out)
	}
	if err != nil {
		l.fail(err)
	}
}

// fail ends the link, once.
func (l *link) fail(err error) {
	l.mu.Lock()
	if l.err != nil {
		l.mu.Unlock()
		return
	}
	l.err = err
	close(l.done)
	l.conn.Close() // nothing is left to be told
	streams := l.streams
	l.streams = nil
	l.mu.Unlock()
	for _, s := range streams {
		s.fail(ErrLost)
	}
}

// take does what a frame says.
func (l *link) take(f frame) error {
	switch f.kind {
	case kindPing:
		l.rouse(&l.pong)
		return nil
	case kindPong:
		return nil
	case kindOpen:
		return l.opened(f.stream, string(f.payload))
	}
	l.mu.Lock()
	s, last := l.streams[f.stream], l.last
	l.mu.Unlock()
	switch {
	case f.stream > last:
		return errViolation
	case s == nil:
		return nil // it has been closed here
	case f.kind == kindReset:
		l.drop(s)
		s.fail(errReset)
		return nil
	}
	return s.take(f, l.accept == nil)
}

// opened is the laptop's side of a new connection.
func (l *link) opened(id uint32, address string) error {
	_, _, err := ParseAddress(address)
	l.mu.Lock()
	if err != nil || l.accept == nil || id <= l.last || len(l.streams) >= maxStreams {
		l.mu.Unlock()
		return errors.Join(errViolation, err)
	}
	s := l.add(id, address)
	l.mu.Unlock()
	return l.accept(s)
}

// add makes a stream; the caller has the lock.
func (l *link) add(id uint32, address string) *stream {
	s := &stream{link: l, id: id, address: address, room: window}
	s.turn.L = &s.mu
	l.last = id
	if l.streams != nil {
		l.streams[id] = s
	}
	return s
}

// drop forgets a stream: what comes for it from now on is ignored.
func (l *link) drop(s *stream) {
	l.mu.Lock()
	delete(l.streams, s.id)
	l.mu.Unlock()
}

// open is the device's side of a new connection.
func (l *link) open(ctx context.Context, address string) (net.Conn, error) {
	if _, _, err := ParseAddress(address); err != nil {
		return nil, err
	}
	s, err := l.announce(address)
	if err != nil {
		return nil, err
	}
	if err := s.connected(ctx); err != nil {
		s.Close()
		return nil, err
	}
	return s, nil
}

// announce numbers a connection and asks for it.
func (l *link) announce(address string) (*stream, error) {
	l.opening.Lock() // or a later number could be first on the line
	defer l.opening.Unlock()
	l.mu.Lock()
	if l.err != nil {
		l.mu.Unlock()
		return nil, ErrLost
	}
	if len(l.streams) >= maxStreams {
		l.mu.Unlock()
		return nil, errors.New("the relay carries too many connections already")
	}
	s := l.add(l.last+1, address)
	l.mu.Unlock()
	l.send(frame{kind: kindOpen, stream: s.id, payload: []byte(address)})
	return s, nil
}

// credit tells the other end that bytes were taken.
func (l *link) credit(id uint32, n int) {
	l.send(frame{kind: kindCredit, stream: id, payload: binary.BigEndian.AppendUint32(nil, uint32(n))})
}
