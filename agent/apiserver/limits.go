package apiserver

import (
	"encoding/json"
	"fmt"
	"math"
	"net"
	"net/http"
	"os"
	"sync"
	"time"

	"lpad/agent/api"
)

// nobody is who calls without credentials. The kernel gives the number to no user.
const nobody = math.MaxUint32

// unlimited reports whether a user may use the socket as much as it takes: who
// could stop the daemon anyhow.
func unlimited(uid uint32) bool { return uid == 0 || uid == uint32(os.Geteuid()) }

// limitConnections lets at most n connections be open at a time; the others
// wait in the kernel's queue. What one user, or all but root, have too many is
// turned away, so that nobody fills the socket for everybody; those who may do
// nothing, as may tells, are many users if they want, and share a few.
func limitConnections(l net.Listener, n int, may func(Peer) bool) *limited {
	return &limited{Listener: l, may: may, tokens: make(chan struct{}, n), closed: make(chan struct{}), turning: make(chan struct{}, maxTurnedAway), of: map[uint32]int{}}
}

// strangers is what all users who may do nothing are counted as.
const strangers = nobody

type limited struct {
	net.Listener
	may     func(Peer) bool
	tokens  chan struct{}
	turning chan struct{} // connections being turned away
	closed  chan struct{}
	once    sync.Once

	turnedAway sync.WaitGroup

	mu     sync.Mutex
	of     map[uint32]int // connections of a user who is not unlimited
	others int            // their sum
}

func (l *limited) Accept() (net.Conn, error) {
	select {
	case l.tokens <- struct{}{}:
	case <-l.closed:
		return nil, net.ErrClosed
	}
	for {
		c, err := l.Listener.Accept()
		if err != nil {
			<-l.tokens
			return nil, err
		}
		peer, err := peerOf(c)
		uid := peer.UID
		if err != nil || !unlimited(uid) && !l.may(peer) {
			uid = strangers
		}
		if l.admit(uid) {
			return &countedConn{Conn: c, peer: peer, err: err, release: sync.OnceFunc(func() { l.leave(uid); <-l.tokens })}, nil
		}
		l.turnAway(c)
	}
}

func (l *limited) admit(uid uint32) bool {
	if unlimited(uid) {
		return true
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.others >= maxOthers || l.of[uid] >= maxOfOne || uid == strangers && l.of[uid] >= maxStrangers {
		return false
	}
	l.others++
	l.of[uid]++
	return true
}

func (l *limited) leave(uid uint32) {
	if unlimited(uid) {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.others--
	if l.of[uid]--; l.of[uid] == 0 {
		delete(l.of, uid)
	}
}

// turnAway says that it is one too many, in the words of every other problem.
// The request is taken first: who writes into a closed socket does not read why.
func (l *limited) turnAway(c net.Conn) {
	select {
	case l.turning <- struct{}{}:
	default:
		c.Close()
		return
	}
	l.turnedAway.Go(func() {
		defer func() { c.Close(); <-l.turning }()
		if c.SetDeadline(time.Now().Add(awayTimeout)) != nil {
			return
		}
		if _, err := c.Read(make([]byte, maxHeader)); err != nil {
			return
		}
		body, err := json.Marshal(problemOf(http.StatusTooManyRequests, tooMany()))
		if err == nil { // and if not, closing says it
			fmt.Fprintf(c, "HTTP/1.1 429 Too Many Requests\r\nContent-Type: "+api.ProblemType+
				"\r\nRetry-After: 1\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%s", len(body), body)
		}
	})
}

func (l *limited) Close() error {
	l.once.Do(func() { close(l.closed) })
	return l.Listener.Close()
}

// countedConn knows whose it is, by the kernel's word at the time of connecting.
type countedConn struct {
	net.Conn
	peer    Peer
	err     error // why that is not known
	release func()
}

func (c *countedConn) Close() error {
	defer c.release()
	return c.Conn.Close()
}

// rates bounds how fast one user may ask: for each, the time at which all that
// was asked would be paid for, at one request each requestEvery.
type rates struct {
	mu   sync.Mutex
	paid map[uint32]time.Time
}

func newRates() *rates { return &rates{paid: map[uint32]time.Time{}} }

// take counts n requests of a user, and reports whether they were within the
// rate. What is not is not counted: one who waits is served again.
func (r *rates) take(uid uint32, n int) bool {
	if unlimited(uid) {
		return true
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	now := time.Now()
	paid, known := r.paid[uid]
	if !known && len(r.paid) >= maxRemembered {
		for u, t := range r.paid {
			if !t.After(now) {
				delete(r.paid, u)
			}
		}
		if len(r.paid) >= maxRemembered {
			return false
		}
	}
	if paid.Before(now) {
		paid = now
	}
	paid = paid.Add(time.Duration(n) * requestEvery)
	if paid.Sub(now) > requestBurst*requestEvery {
		return false
	}
	r.paid[uid] = paid
	return true
}
