package lab

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"lpad/agent/api"
)

// Crowd is many clients of one socket at once, of several users: fair ones that
// ask and go, watchers of events, and bad ones of every kind in [BadClients].
// To be other users takes root; else all are the one that they are.
type Crowd struct {
	Socket  string
	Fair    int           // clients that ask a question each Every, over a connection of its own
	Streams int           // watchers of events, who stay
	Bad     int           // bad clients, of every kind in turn
	Every   time.Duration // between a fair client's questions; 0: half a second
	Reader  uint32        // the group of users who may look
}

// CrowdResult is what the clients of a crowd have seen.
type CrowdResult struct {
	Asked    int            `json:"asked"`    // questions of fair clients
	Answered int            `json:"answered"` // of them with 200
	Waited   int            `json:"waited"`   // times that a fair client was told to come again (429)
	Failed   []string       `json:"failed"`   // why others were not answered; the first few
	P50      time.Duration  `json:"p50"`      // from the first try to the answer
	P99      time.Duration  `json:"p99"`
	Max      time.Duration  `json:"max"`
	Events   int            `json:"events"` // that the watchers saw
	Opened   int            `json:"opened"` // times that a watcher's stream was opened
	Bad      map[string]int `json:"bad"`    // attempts of each kind of bad client
	// Believed are bad requests that were answered as if they were good, which
	// none of a misuse may be.
	Believed int `json:"believed"`
}

// How a crowd asks.
const (
	crowdAnswer  = 10 * time.Second       // the longest that a fair client waits for one answer
	crowdPause   = 200 * time.Millisecond // of a bad client, before it begins anew
	crowdHold    = 15 * time.Second       // the longest that a slow one holds on
	crowdReasons = 5
	crowdUID     = 20_000 // the first of the users, whom nobody knows
	crowdOfOne   = 12     // clients of one user
)

// crowdQuestions are what fair clients ask in turn.
var crowdQuestions = []string{"/v1/status", "/v1/jobs", "/v1/notifications", "/metrics", "/v1/cards"}

// BadClients are the kinds of bad clients. Each holds one conversation, and
// reports whether it was answered as a good one is.
var BadClients = []struct {
	Name string
	Talk func(net.Conn) (believed bool)
}{
	{"slow-header", func(c net.Conn) bool {
		drip(c, "GET /v1/status HTTP/1.1\r\nHost: lpad.local\r\nX-Slow: "+strings.Repeat("s", 4096))
		return false
	}},
	{"slow-body", func(c net.Conn) bool {
		io.WriteString(c, "POST /v1/install HTTP/1.1\r\nHost: lpad.local\r\nContent-Length: 4096\r\n\r\n{")
		drip(c, strings.Repeat(" ", 4095))
		return false
	}},
	{"slow-reader", func(c net.Conn) bool { // asks for more than any buffer holds, and reads nothing
		for range 64 {
			if _, err := io.WriteString(c, strings.Repeat("GET /v1/events?after=0 HTTP/1.1\r\nHost: lpad.local\r\n\r\n", 4)); err != nil {
				return false
			}
			time.Sleep(crowdHold / 64)
		}
		return false
	}},
	{"unread-answers", func(c net.Conn) bool { // the same of many short answers
		go io.WriteString(c, strings.Repeat("GET /metrics HTTP/1.1\r\nHost: lpad.local\r\n\r\n", 500)) // ends with the connection
		time.Sleep(crowdHold / 3)
		return false
	}},
	{"silent", func(c net.Conn) bool { readStatus(c); return false }},
	{"garbage", func(c net.Conn) bool {
		b := make([]byte, 4096)
		for i := range b {
			b[i] = byte(rand.IntN(256))
		}
		c.Write(b)
		return readStatus(c) == http.StatusOK
	}},
	{"huge-headers", func(c net.Conn) bool {
		io.WriteString(c, "GET /v1/status HTTP/1.1\r\nHost: lpad.local\r\n"+strings.Repeat("X-Huge: "+strings.Repeat("h", 1000)+"\r\n", 200)+"\r\n")
		return readStatus(c) == http.StatusOK
	}},
	{"huge-body", func(c net.Conn) bool {
		io.WriteString(c, "POST /v1/install HTTP/1.1\r\nHost: lpad.local\r\nContent-Length: 4000000\r\n\r\n"+`{"activation_code":"`+strings.Repeat("x", 1<<20))
		return readStatus(c) == http.StatusAccepted
	}},
	{"half-closed", func(c net.Conn) bool {
		io.WriteString(c, "POST /v1/install HTTP/1.1\r\nHost: lpad.local\r\nContent-Length: 100\r\n\r\n{")
		if u, ok := c.(*net.UnixConn); ok {
			u.CloseWrite()
		}
		return readStatus(c) == http.StatusAccepted
	}},
	{"hung-up", func(c net.Conn) bool { // asks, and does not wait
		io.WriteString(c, "GET /v1/status HTTP/1.1\r\nHost: lpad.local\r\n\r\n")
		return false
	}},
	{"pipelined", func(c net.Conn) bool {
		io.WriteString(c, strings.Repeat("GET /v1/nothing HTTP/1.1\r\nHost: lpad.local\r\n\r\n", 50))
		return readStatus(c) == http.StatusOK
	}},
	{"origin", func(c net.Conn) bool {
		io.WriteString(c, "GET /v1/status HTTP/1.1\r\nHost: lpad.local\r\nOrigin: https://example.com\r\n\r\n")
		return readStatus(c) == http.StatusOK
	}},
	{"host", func(c net.Conn) bool {
		io.WriteString(c, "GET /v1/status HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
		return readStatus(c) == http.StatusOK
	}},
}

// drip writes a text a byte at a time, until the other side has enough.
func drip(c net.Conn, text string) {
	for until := time.Now().Add(crowdHold); text != "" && time.Now().Before(until); text = text[1:] {
		if _, err := io.WriteString(c, text[:1]); err != nil {
			return
		}
		time.Sleep(100 * time.Millisecond)
	}
}

// readStatus is the status of the answer that comes, 0 if none does.
func readStatus(c net.Conn) int {
	resp, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		return 0
	}
	resp.Body.Close()
	return resp.StatusCode
}

// crowd is a Crowd at work.
type crowd struct {
	Crowd
	mu     sync.Mutex
	result CrowdResult
	took   []time.Duration
}

// Run lets the clients loose until ctx ends, and waits for all of them.
func (c Crowd) Run(ctx context.Context) CrowdResult {
	if c.Every == 0 {
		c.Every = 500 * time.Millisecond
	}
	at := &crowd{Crowd: c, result: CrowdResult{Bad: map[string]int{}}}
	var all sync.WaitGroup
	for i := range c.Fair {
		all.Go(func() { at.fair(ctx, i) })
	}
	for i := range c.Streams {
		all.Go(func() { at.stream(ctx, i) })
	}
	for i := range c.Bad {
		all.Go(func() { at.bad(ctx, i) })
	}
	all.Wait()
	slices.Sort(at.took)
	if n := len(at.took); n > 0 {
		at.result.P50, at.result.P99, at.result.Max = at.took[n/2], at.took[n*99/100], at.took[n-1]
	}
	return at.result
}

// pause waits, less when the crowd is over.
func pause(ctx context.Context, d time.Duration) bool {
	select {
	case <-ctx.Done():
		return false
	case <-time.After(d):
		return true
	}
}

// reader is whom the client i of those that mean well is: each other one is
// root, and the rest are so many to a user.
func (c *crowd) reader(i, first int) (uid, gid uint32) {
	if i%2 == 0 {
		return 0, 0
	}
	return uint32(first + i/2/crowdOfOne), c.Reader
}

// fair asks one question after the other, and comes again when it is told to.
func (c *crowd) fair(ctx context.Context, i int) {
	uid, gid := c.reader(i, crowdUID)
	if !pause(ctx, c.Every*time.Duration(i)/time.Duration(c.Fair)) { // not all at once
		return
	}
	for n := i; ; n++ {
		begun := time.Now()
		err := errTurnedAway
		for waited := 0; errors.Is(err, errTurnedAway) && ctx.Err() == nil; waited++ {
			if waited > 0 && !pause(ctx, time.Second) {
				return
			}
			if err = Ask(c.Socket, uid, gid, n); errors.Is(err, errTurnedAway) {
				c.count(func(r *CrowdResult) { r.Waited++ })
			}
		}
		took := time.Since(begun)
		if ctx.Err() != nil {
			return
		}
		c.count(func(r *CrowdResult) {
			r.Asked++
			switch {
			case err == nil:
				r.Answered++
				c.took = append(c.took, took)
			case len(r.Failed) < crowdReasons:
				r.Failed = append(r.Failed, err.Error())
			}
		})
		if !pause(ctx, c.Every-took) {
			return
		}
	}
}

func (c *crowd) count(f func(*CrowdResult)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	f(&c.result)
}

var errTurnedAway = errors.New("told to come again")

// Ask asks the n-th of a fair client's questions as a user of one group, over a
// connection of its own, and reads the whole answer.
func Ask(socket string, uid, gid uint32, n int) error {
	path := crowdQuestions[n%len(crowdQuestions)]
	conn, err := DialAs(socket, uid, gid)
	if err != nil {
		return err
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(crowdAnswer)); err != nil {
		return err
	}
	if _, err := fmt.Fprintf(conn, "GET %s HTTP/1.1\r\nHost: %s\r\nConnection: close\r\n\r\n", path, api.Host); err != nil {
		return fmt.Errorf("%s as %d: %w", path, uid, err)
	}
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		return fmt.Errorf("%s as %d: %w", path, uid, err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	switch {
	case err != nil:
		return fmt.Errorf("%s as %d: %w", path, uid, err)
	case resp.StatusCode == http.StatusTooManyRequests:
		return errTurnedAway
	case resp.StatusCode != http.StatusOK:
		return fmt.Errorf("%s as %d: %s %s", path, uid, resp.Status, body)
	}
	return nil
}

// stream watches events, and opens its stream anew when it is closed.
func (c *crowd) stream(ctx context.Context, i int) {
	uid, gid := c.reader(i, crowdUID+100)
	for {
		c.watch(ctx, uid, gid)
		if !pause(ctx, time.Second) {
			return
		}
	}
}

func (c *crowd) watch(ctx context.Context, uid, gid uint32) {
	conn, err := DialAs(c.Socket, uid, gid)
	if err != nil {
		return
	}
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer func() {
		if stop() {
			conn.Close()
		}
	}()
	fmt.Fprintf(conn, "GET /v1/events?after=9223372036854775807 HTTP/1.1\r\nHost: %s\r\n\r\n", api.Host)
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		return
	}
	// The body is not closed, which would read it to its end; the connection is.
	if resp.StatusCode != http.StatusOK {
		return
	}
	c.count(func(r *CrowdResult) { r.Opened++ })
	for lines := bufio.NewScanner(resp.Body); lines.Scan(); {
		if bytes.HasPrefix(lines.Bytes(), []byte("event: ")) {
			c.count(func(r *CrowdResult) { r.Events++ })
		}
	}
}

// bad is a bad client: two in five of nobody who may do anything, two of one who
// may look, one of root.
func (c *crowd) bad(ctx context.Context, i int) {
	kind := BadClients[i%len(BadClients)]
	var uid, gid uint32
	switch i % 5 { // which has nothing in common with the number of kinds
	case 0, 1:
		uid, gid = uint32(crowdUID+200+i%2), c.Reader+1
	case 2, 3:
		uid, gid = crowdUID+300, c.Reader
	}
	for pause(ctx, crowdPause) {
		conn, err := DialAs(c.Socket, uid, gid)
		if err != nil {
			continue
		}
		stop := context.AfterFunc(ctx, func() { conn.Close() })
		conn.SetDeadline(time.Now().Add(crowdHold))
		believed := kind.Talk(conn)
		if stop() {
			conn.Close()
		}
		c.count(func(r *CrowdResult) {
			r.Bad[kind.Name]++
			if believed {
				r.Believed++
			}
		})
	}
}

// DialAs connects to a unix socket as another user of one group. The kernel
// tells the other side who the thread is that connects, so that alone changes.
func DialAs(socket string, uid, gid uint32) (net.Conn, error) {
	if os.Geteuid() != 0 || uid == 0 {
		return net.Dial("unix", socket)
	}
	runtime.LockOSThread()
	const same = ^uintptr(0)
	// Of its groups root needs none; the last call back needs what uid 0 may.
	for _, call := range [][4]uintptr{{unix.SYS_SETGROUPS}, {unix.SYS_SETRESGID, same, uintptr(gid), same}, {unix.SYS_SETRESUID, same, uintptr(uid), same}} {
		if _, _, errno := unix.RawSyscall(call[0], call[1], call[2], call[3]); errno != 0 {
			return nil, fmt.Errorf("become user %d: %w", uid, errno) // the thread stays locked, and so ends with this goroutine
		}
	}
	conn, err := net.Dial("unix", socket)
	for _, call := range [][4]uintptr{{unix.SYS_SETRESUID, same, 0, same}, {unix.SYS_SETRESGID, same, 0, same}} {
		if _, _, errno := unix.RawSyscall(call[0], call[1], call[2], call[3]); errno != 0 {
			return nil, errors.Join(fmt.Errorf("become root again: %w", errno), err)
		}
	}
	runtime.UnlockOSThread()
	return conn, err
}
