package relay

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"lpad/agent/rsp/es9p"
	"lpad/internal/fault"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// patience is how long a test waits for something that must come.
const patience = 30 * time.Second

// quick is for tests of silence; a loaded machine must not look dead to the others.
var quick = pace{ping: 20 * time.Millisecond, dead: 200 * time.Millisecond, answer: 200 * time.Millisecond}

// wire is a connection of the kind that the local socket has.
func wire(t *testing.T) (device, laptop net.Conn) {
	t.Helper()
	l, err := net.Listen("unix", filepath.Join(t.TempDir(), "s"))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if laptop, err = net.Dial("unix", l.Addr().String()); err != nil {
		t.Fatal(err)
	}
	if device, err = l.Accept(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { laptop.Close(); device.Close() })
	return device, laptop
}

// attach has a laptop at the other end of conn attached, and returns how that ends.
func attach(ctx context.Context, t *testing.T, s *Station, by string, conn net.Conn) <-chan error {
	t.Helper()
	ended := make(chan error, 1)
	go func() { ended <- s.Attach(ctx, by, func() (net.Conn, error) { return conn, nil }) }()
	waitFor(t, func() bool { a, ok := s.Attached(); return ok && a.By == by })
	return ended
}

func waitFor(t *testing.T, done func() bool) {
	t.Helper()
	for limit := time.Now().Add(patience); !done(); time.Sleep(time.Millisecond) {
		if time.Now().After(limit) {
			t.Fatal("it does not come")
		}
	}
}

// pair is a station with a laptop that carries by dial.
type pair struct {
	*Station
	stop     func() // of the laptop
	device   net.Conn
	carried  chan error
	attached <-chan error
	events   func() []Event
}

func newPair(t *testing.T, p pace, dial func(ctx context.Context, address string) (net.Conn, error)) *pair {
	t.Helper()
	device, laptop := wire(t)
	ctx, stop := context.WithCancel(t.Context())
	var mu sync.Mutex
	var events []Event
	r := &pair{Station: NewStation(), stop: stop, device: device, carried: make(chan error, 1), events: func() []Event {
		mu.Lock()
		defer mu.Unlock()
		return append([]Event(nil), events...)
	}}
	r.pace = p
	c := &Carrier{Dial: dial, pace: p, Tell: func(e Event) { mu.Lock(); defer mu.Unlock(); events = append(events, e) }}
	go func() { r.carried <- c.Carry(ctx, laptop) }()
	whole, end := context.WithCancel(t.Context())
	r.attached = attach(whole, t, r.Station, "a technician", device)
	t.Cleanup(func() {
		end()
		stop()
		<-r.carried
		<-r.attached
	})
	return r
}

func direct(ctx context.Context, address string) (net.Conn, error) {
	return (&net.Dialer{}).DialContext(ctx, "tcp", address)
}

// TestCarries: HTTPS in both directions, of many times the window, over several
// connections at once.
func TestCarries(t *testing.T) {
	srv := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		b, err := io.ReadAll(r.Body)
		if err != nil {
			t.Error(err)
		}
		w.Write(bytes.ToUpper(b))
	}))
	defer srv.Close()
	p := newPair(t, usual, direct)
	client := srv.Client()
	transport := client.Transport.(*http.Transport)
	transport.DialContext = func(ctx context.Context, _, address string) (net.Conn, error) { return p.Dial(ctx, address) }
	var asked sync.WaitGroup
	for i := range maxStreams {
		asked.Go(func() {
			body := bytes.Repeat([]byte{byte('a' + i)}, 10*window+i)
			resp, err := client.Post(srv.URL, "text/plain", bytes.NewReader(body))
			if err != nil {
				t.Error(err)
				return
			}
			defer resp.Body.Close()
			if got, err := io.ReadAll(resp.Body); err != nil || !bytes.Equal(got, bytes.ToUpper(body)) {
				t.Errorf("%d bytes came back, %v", len(got), err)
			}
		})
	}
	asked.Wait()
	transport.CloseIdleConnections()
	waitFor(t, func() bool {
		closed := 0
		for _, e := range p.events() {
			if e.Kind == Closed {
				closed++
				if e.Sent < 10*window || e.Received < 10*window || e.Error != "" || e.Remote != srv.Listener.Addr().String() {
					t.Errorf("%+v", e)
				}
			}
		}
		return closed == maxStreams
	})
}

// TestFailures: what goes wrong at the laptop has the code that it would have at
// the device.
func TestFailures(t *testing.T) {
	const address = "smdp.example.com:443"
	for _, tc := range []struct {
		name string
		err  error
		code string
	}{
		{"no such name", &net.DNSError{Err: "no such host", Name: "smdp.example.com", IsNotFound: true}, "host-unknown"},
		{"no name server", &net.DNSError{Err: "server misbehaving", Name: "smdp.example.com"}, "dns-unavailable"},
		{"refused", &net.OpError{Op: "dial", Err: os.NewSyscallError("connect", syscall.ECONNREFUSED)}, "connection-refused"},
		{"no way", &net.OpError{Op: "dial", Err: os.NewSyscallError("connect", syscall.EHOSTUNREACH)}, "no-network"},
		{"silent", &net.OpError{Op: "dial", Err: os.ErrDeadlineExceeded}, "server-silent"},
		{"not allowed", ErrRules, "relay-refused"},
		{"something else", errors.New("odd\x1b[2J" + strings.Repeat("\n", 2*maxText)), "server-unreachable"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			p := newPair(t, usual, func(context.Context, string) (net.Conn, error) { return nil, tc.err })
			for range 3 * maxStreams { // the place of a refused one is free again
				c, err := p.Dial(t.Context(), address)
				if err == nil {
					c.Close()
					t.Fatal("connected")
				}
				f := fault.Of(err)
				if f.Code == fault.Internal {
					f = (&es9p.TransportError{Err: err}).Fault()
				}
				if f.Code != tc.code || strings.ContainsAny(err.Error(), "\x1b\n") {
					t.Fatalf("%v is explained by %+v, want %s", err, f, tc.code)
				}
			}
			if e := p.events()[0]; e.Kind != Refused || e.Address != address || e.Error == "" {
				t.Errorf("told %+v", e)
			}
		})
	}
	s := NewStation()
	if _, err := s.Dial(t.Context(), address); !errors.Is(err, ErrNone) {
		t.Errorf("without a laptop: %v", err)
	}
	p := newPair(t, usual, direct)
	for _, wrong := range []string{"", "a", "a:0", "a b:443", "a:65536", "-:x", strings.Repeat("a.", 130) + "a:1"} {
		if _, err := p.Dial(t.Context(), wrong); err == nil {
			t.Errorf("%q was asked for", wrong)
		}
	}
}

// silent is a server that takes what it gets and says nothing.
func silent(t *testing.T) (address string, accepted <-chan net.Conn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	conns := make(chan net.Conn, 64)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			conns <- c
		}
	}()
	t.Cleanup(func() {
		l.Close()
		<-done
		for close(conns); ; {
			c, open := <-conns
			if !open {
				return
			}
			c.Close()
		}
	})
	return l.Addr().String(), conns
}

// TestLost: a laptop that goes ends what it carries at once, by a named error,
// and so does the end of the daemon.
func TestLost(t *testing.T) {
	address, _ := silent(t)
	for name, end := range map[string]func(p *pair){
		"the laptop goes":         func(p *pair) { p.stop() },
		"the link breaks":         func(p *pair) { p.device.Close() },
		"half the link is closed": func(p *pair) { p.device.(*net.UnixConn).CloseRead() },
	} {
		t.Run(name, func(t *testing.T) {
			p := newPair(t, usual, direct)
			c, err := p.Dial(t.Context(), address)
			if err != nil {
				t.Fatal(err)
			}
			read := make(chan error, 1)
			go func() { _, err := c.Read(make([]byte, 1)); read <- err }()
			end(p)
			if err := <-read; !errors.Is(err, ErrLost) || fault.Of(err).Code != "relay-lost" || !fault.Of(err).Retry {
				t.Errorf("read: %v", err)
			}
			if _, err := c.Write([]byte{1}); !errors.Is(err, ErrLost) {
				t.Errorf("write: %v", err)
			}
			if err := c.Close(); err != nil {
				t.Error(err)
			}
			waitFor(t, func() bool { _, err := p.Dial(t.Context(), address); return errors.Is(err, ErrNone) })
		})
	}
}

// TestSilence: either end notices that the other is gone without a word.
func TestSilence(t *testing.T) {
	device, laptop := wire(t)
	ended := make(chan error, 2)
	s := NewStation()
	s.pace = quick
	begin := time.Now()
	go func() {
		ended <- s.Attach(t.Context(), "x", func() (net.Conn, error) { return device, nil })
	}()
	other, _ := wire(t)
	go func() { ended <- (&Carrier{Dial: direct, pace: quick}).Carry(t.Context(), other) }()
	for range 2 {
		if err := <-ended; err == nil || !strings.Contains(err.Error(), "does not answer") {
			t.Error(err)
		}
	}
	if took := time.Since(begin); took < quick.dead {
		t.Errorf("after %v already", took)
	}
	laptop.Close()

	// One that answers stays, for many times as long, with nothing to carry.
	p := newPair(t, pace{ping: 5 * time.Millisecond, dead: 2 * time.Second, answer: time.Second}, direct)
	select {
	case err := <-p.attached:
		t.Fatalf("it ended: %v", err)
	case <-time.After(3 * time.Second):
	}
	p.attached = closedChannel()
	p.stop()
}

func closedChannel() <-chan error { c := make(chan error); close(c); return c }

// TestSecond: who answers keeps the place, who is silent loses it.
func TestSecond(t *testing.T) {
	p := newPair(t, usual, direct)
	never := func() (net.Conn, error) { t.Error("the connection was taken"); return nil, io.EOF }
	if err := p.Attach(t.Context(), "another", never); !errors.Is(err, ErrTaken) || fault.Of(err).Code != "relay-attached" {
		t.Errorf("a second one: %v", err)
	}
	if a, ok := p.Attached(); !ok || a.By != "a technician" || a.Since.IsZero() {
		t.Errorf("%+v %v", a, ok)
	}

	s := NewStation()
	s.pace = pace{ping: time.Hour, dead: time.Hour, answer: 100 * time.Millisecond}
	device, _ := wire(t)
	first := attach(t.Context(), t, s, "silent", device)
	ctx, stop := context.WithCancel(t.Context())
	device2, _ := wire(t)
	second := attach(ctx, t, s, "new", device2)
	if err := <-first; err == nil || !strings.Contains(err.Error(), "has taken its place") {
		t.Errorf("the first: %v", err)
	}
	stop()
	if err := <-second; !errors.Is(err, context.Canceled) {
		t.Errorf("the second: %v", err)
	}
	if _, ok := s.Attached(); ok {
		t.Error("somebody is attached")
	}
	if err := s.Attach(t.Context(), "x", func() (net.Conn, error) { return nil, io.ErrClosedPipe }); !errors.Is(err, io.ErrClosedPipe) {
		t.Errorf("one whose connection is not to be had: %v", err)
	}
	if err := s.Attach(t.Context(), "x", func() (net.Conn, error) { return nil, io.ErrClosedPipe }); !errors.Is(err, io.ErrClosedPipe) {
		t.Errorf("the seat was kept: %v", err)
	}
}

func bytesOf(frames ...frame) []byte {
	var b []byte
	for _, f := range frames {
		b = appendFrame(b, f)
	}
	return b
}

// hostile are bytes that no honest end sends.
var hostile = []struct {
	name   string
	device bool // sent to the device, which has opened connection 1; else to the laptop, which has it open
	bytes  []byte
}{
	{"kind 0", true, []byte{0, 0, 0, 0, 0, 0, 0}},
	{"an unknown kind", true, []byte{10, 0, 0, 0, 1, 0, 0}},
	{"HTTP", true, []byte("GET / HTTP/1.1\r\n\r\n")},
	{"a ping of a connection", true, bytesOf(frame{kind: kindPing, stream: 1})},
	{"data of none", true, bytesOf(frame{kind: kindData, payload: []byte{1}})},
	{"a payload that is too long", true, []byte{4, 0, 0, 0, 1, 0x10, 1}},
	{"no payload", true, []byte{4, 0, 0, 0, 1, 0, 0}},
	{"a payload of a ping", true, []byte{8, 0, 0, 0, 0, 0, 1, 0}},
	{"an order to connect, to the device", true, bytesOf(frame{kindOpen, 2, []byte("a:443")})},
	{"a connection that was not asked for", true, bytesOf(frame{kindOpened, 2, nil})},
	{"connected twice", true, bytesOf(frame{kindOpened, 1, nil}, frame{kindOpened, 1, nil})},
	{"failed after it was connected", true, bytesOf(frame{kindOpened, 1, nil}, frame{kindFailed, 1, []byte{1}})},
	{"data before it is connected", true, bytesOf(frame{kindData, 1, []byte{1}})},
	{"the end before it is connected", true, bytesOf(frame{kindEnd, 1, nil})},
	{"data after the end", true, bytesOf(frame{kindOpened, 1, nil}, frame{kindEnd, 1, nil}, frame{kindData, 1, []byte{1}})},
	{"the end twice", true, bytesOf(frame{kindOpened, 1, nil}, frame{kindEnd, 1, nil}, frame{kindEnd, 1, nil})},
	{"more than the window", true, append(bytesOf(frame{kindOpened, 1, nil}), bytes.Repeat(bytesOf(frame{kindData, 1, make([]byte, maxPayload)}), window/maxPayload+1)...)},
	{"credit of nothing", true, bytesOf(frame{kindOpened, 1, nil}, frame{kindCredit, 1, []byte{0, 0, 0, 0}})},
	{"credit of what was not sent", true, bytesOf(frame{kindOpened, 1, nil}, frame{kindCredit, 1, []byte{0, 0, 0, 1}})},
	{"much credit", true, bytesOf(frame{kindOpened, 1, nil}, frame{kindCredit, 1, []byte{255, 255, 255, 255}})},

	{"a number again", false, bytesOf(frame{kindOpen, 1, []byte("a:443")})},
	{"a number that goes back", false, bytesOf(frame{kindOpen, 7, []byte("a:443")}, frame{kindOpen, 6, []byte("a:443")})},
	{"an address without a port", false, bytesOf(frame{kindOpen, 2, []byte("a")})},
	{"an address of escapes", false, bytesOf(frame{kindOpen, 2, []byte("\x1b[2J:443")})},
	{"an address that is too long", false, []byte{1, 0, 0, 0, 2, 1, 4}},
	{"connected, to the laptop", false, bytesOf(frame{kindOpened, 1, nil})},
	{"failed, to the laptop", false, bytesOf(frame{kindFailed, 1, []byte{1}})},
	{"data of a connection to come", false, bytesOf(frame{kindData, 2, []byte{1}})},
	{"a connection too many", false, func() (b []byte) {
		for i := range maxStreams {
			b = append(b, bytesOf(frame{kindOpen, uint32(2 + i), []byte("a:443")})...)
		}
		return b
	}()},
	{"connections without end", false, func() (b []byte) {
		for i := range 2 * maxCarried {
			b = append(b, bytesOf(frame{kindOpen, uint32(2 + i), []byte("a:443")}, frame{kindReset, uint32(2 + i), nil})...)
		}
		return b
	}()},
}

// TestHostile: an end that gets something that makes no sense hangs up.
func TestHostile(t *testing.T) {
	for _, tc := range hostile {
		t.Run(tc.name, func(t *testing.T) {
			near, far := wire(t)
			drained := make(chan struct{})
			go func() { defer close(drained); io.Copy(io.Discard, far) }()
			ended := make(chan error, 1)
			stuck := make(chan struct{}) // a dialler that listens to nobody
			if tc.device {
				s := NewStation()
				go func() {
					ended <- s.Attach(t.Context(), "x", func() (net.Conn, error) { return near, nil })
				}()
				waitFor(t, func() bool { _, ok := s.Attached(); return ok })
				dialled := make(chan struct{})
				go func() {
					defer close(dialled)
					if c, err := s.Dial(t.Context(), "smdp.example.com:443"); err == nil {
						c.Close()
					}
				}()
				defer func() { <-dialled }()
				waitFor(t, func() bool { l, _ := s.current(); l.mu.Lock(); defer l.mu.Unlock(); return l.last == 1 })
			} else {
				c := &Carrier{Dial: func(context.Context, string) (net.Conn, error) { <-stuck; return nil, io.EOF }}
				go func() { ended <- c.Carry(t.Context(), near) }()
				far.Write(bytesOf(frame{kindOpen, 1, []byte("a:443")}))
			}
			far.Write(tc.bytes) // an error is that it has hung up
			select {
			case <-drained: // it has hung up
			case <-time.After(patience):
				t.Error("it does not hang up")
			}
			far.Close()
			close(stuck)
			if err := <-ended; !errors.Is(err, errViolation) {
				t.Errorf("it ended by %v", err)
			}
		})
	}
}

// TestNotTLS: who controls the device cannot speak to servers in another way.
func TestNotTLS(t *testing.T) {
	address, accepted := silent(t)
	p := newPair(t, usual, direct)
	c, err := p.Dial(t.Context(), address)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := io.WriteString(c, "GET / HTTP/1.1\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("the device reads %v", err)
	}
	server := <-accepted
	defer server.Close()
	if b, err := io.ReadAll(server); len(b) > 0 {
		t.Errorf("the server got %q, %v", b, err)
	}
	waitFor(t, func() bool { e := p.events(); return len(e) == 2 && e[1].Error == errNotTLS.Error() && e[1].Sent == 0 })
}

// TestEnds: the end of one direction leaves the other, and a server that closes
// is heard to its last byte.
func TestEnds(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	record := append([]byte{23, 3, 3, 0, 100}, make([]byte, 100)...)
	served := make(chan error, 1)
	go func() {
		c, err := l.Accept()
		if err != nil {
			served <- err
			return
		}
		defer c.Close()
		b, err := io.ReadAll(c) // to the device's end
		if err == nil && !bytes.Equal(b, record) {
			err = fmt.Errorf("the server got %d bytes", len(b))
		}
		if err == nil {
			_, err = c.Write(bytes.Repeat(record, 1000))
		}
		served <- err
	}()
	p := newPair(t, usual, direct)
	c, err := p.Dial(t.Context(), l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	c.Write(record)
	c.(*stream).CloseWrite()
	if _, err := c.Write(record); !errors.Is(err, net.ErrClosed) {
		t.Errorf("a write after the end: %v", err)
	}
	if b, err := io.ReadAll(c); err != nil || len(b) != 1000*len(record) {
		t.Errorf("%d bytes, %v", len(b), err)
	}
	if err := <-served; err != nil {
		t.Error(err)
	}
	if c.RemoteAddr().String() != l.Addr().String() || c.LocalAddr().Network() != "relay" {
		t.Errorf("%v %v", c.RemoteAddr(), c.LocalAddr())
	}
	if err := c.Close(); err != nil {
		t.Error(err)
	}
	for what, err := range map[string]error{"closing again": c.Close(), "a deadline": c.SetDeadline(time.Time{})} {
		if !errors.Is(err, net.ErrClosed) {
			t.Errorf("%s: %v", what, err)
		}
	}
	if _, err := c.Read(make([]byte, 1)); !errors.Is(err, net.ErrClosed) {
		t.Errorf("a read after closing: %v", err)
	}
}

// TestLimits: deadlines, a context that ends while it is dialled, and one
// connection too many.
func TestLimits(t *testing.T) {
	address, _ := silent(t)
	gaveUp := make(chan error, 1)
	p := newPair(t, usual, func(ctx context.Context, to string) (net.Conn, error) {
		if to == address {
			return direct(ctx, to)
		}
		<-ctx.Done()
		gaveUp <- ctx.Err()
		return nil, ctx.Err()
	})
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := p.Dial(ctx, "smdp.example.com:443"); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a dial without an end: %v", err)
	}
	if err := <-gaveUp; !errors.Is(err, context.Canceled) {
		t.Errorf("the laptop: %v", err)
	}

	var conns []net.Conn
	for range maxStreams {
		c, err := p.Dial(t.Context(), address)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		conns = append(conns, c)
	}
	if _, err := p.Dial(t.Context(), address); err == nil || !strings.Contains(err.Error(), "too many") {
		t.Errorf("one too many: %v", err)
	}
	c := conns[0]
	if err := c.SetReadDeadline(time.Now().Add(20 * time.Millisecond)); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("read: %v", err)
	}
	if err := c.SetReadDeadline(time.Time{}); err != nil {
		t.Fatal(err)
	}
	// A server that reads nothing: what is under way is bounded.
	big := make([]byte, 8<<20)
	for i := 0; i < len(big); i += maxRecord + 5 {
		copy(big[i:], []byte{23, 3, 3, maxRecord >> 8, maxRecord & 0xff})
	}
	if err := c.SetWriteDeadline(time.Now().Add(300 * time.Millisecond)); err != nil {
		t.Fatal(err)
	}
	if n, err := c.Write(big); !errors.Is(err, os.ErrDeadlineExceeded) || n == len(big) {
		t.Errorf("write: %d, %v", n, err)
	}
	if err := c.Close(); err != nil {
		t.Error(err)
	}
	if c, err := p.Dial(t.Context(), address); err != nil {
		t.Errorf("after one was closed: %v", err)
	} else {
		c.Close()
	}
}

// TestRules is where a laptop goes for a device, and where it does not.
func TestRules(t *testing.T) {
	for _, tc := range []struct {
		allow    []string
		address  string
		possible bool
	}{
		{nil, "127.0.0.1:443", false},
		{nil, "203.0.113.5:443", false},
		{nil, "localhost:443", false}, // by its address
		{nil, "smdp.example.com:80", false},
		{nil, "smdp.example.com:22", false},
		{nil, "smdp.example.com", false},
		{[]string{"smdp.example.com"}, "localhost:443", false},
		{[]string{"localhost"}, "localhost:1", false},
		{[]string{"LOCALHOST:1"}, "localhost:1", true},
		{[]string{"a.example", "127.0.0.1"}, "127.0.0.1:443", true},
		{[]string{"[::1]:1"}, "[::1]:1", true},
		{[]string{"::1"}, "[::1]:443", true},
	} {
		r, err := NewRules(tc.allow)
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		c, err := r.Dial(ctx, tc.address)
		cancel()
		if c != nil {
			c.Close()
		}
		if errors.Is(err, ErrRules) == tc.possible || err == nil && !tc.possible {
			t.Errorf("%v: %s: %v", tc.allow, tc.address, err)
		}
	}
	for _, wrong := range []string{"", "a b", "http://smdp.example.com", "smdp.example.com:", "a:99999"} {
		if _, err := NewRules([]string{wrong}); err == nil {
			t.Errorf("%q is a server", wrong)
		}
	}
	for ip, want := range map[string]bool{"8.8.8.8": true, "2606:4700::1": true, "::ffff:8.8.8.8": true, "64:ff9b::808:808": true,
		"10.0.0.1": false, "192.168.1.1": false, "172.16.0.1": false, "127.0.0.1": false, "169.254.169.254": false, "100.64.0.1": false, "0.0.0.0": false,
		"224.0.0.1": false, "255.255.255.255": false, "::1": false, "fe80::1": false, "fd00::1": false, "ff02::1": false, "::ffff:10.0.0.1": false,
		"64:ff9b::a00:1": false, "2002:a00:1::": false, "::": false} {
		if public(netip.MustParseAddr(ip)) != want {
			t.Errorf("%s is public: %v", ip, !want)
		}
	}
}

// TestRecords: TLS passes in pieces of any size, all else does not.
func TestRecords(t *testing.T) {
	good := append(append([]byte{22, 3, 1, 0, 2}, 1, 2), append([]byte{23, 3, 3, 0x48, 0}, make([]byte, maxRecord)...)...)
	good = append(good, 21, 3, 4, 0, 0, 20, 3, 3, 0, 1, 1)
	for _, step := range []int{1, 3, 7, len(good)} {
		var r records
		for rest := good; len(rest) > 0; {
			n := min(step, len(rest))
			if err := r.check(rest[:n]); err != nil {
				t.Fatalf("in steps of %d: %v", step, err)
			}
			rest = rest[n:]
		}
		if r.have != 0 || r.left != 0 {
			t.Errorf("in steps of %d: %+v", step, r)
		}
	}
	for _, bad := range []string{"GET /", "\x16\x02", "\x16\x03\x05", "\x18\x03\x03", "\x16\x03\x03\x48\x01", "\x80\x2e\x01", string(good) + "SSH-2.0"} {
		var r records
		if err := r.check([]byte(bad)); !errors.Is(err, errNotTLS) {
			t.Errorf("%.5q passes", bad)
		}
	}
}

// script is a connection on which everything has been said before.
type script struct {
	*bytes.Reader
	net.Conn
}

func (s script) Read(p []byte) (int, error)       { return s.Reader.Read(p) }
func (script) Write(p []byte) (int, error)        { return len(p), nil }
func (script) Close() error                       { return nil }
func (script) SetWriteDeadline(t time.Time) error { return nil }

// FuzzLink: whatever the other end says, either end holds no more than it should
// and ends.
func FuzzLink(f *testing.F) {
	for _, h := range hostile {
		if len(h.bytes) < 1<<10 {
			f.Add(h.device, h.bytes)
		}
	}
	f.Add(true, bytesOf(frame{kindOpened, 1, nil}, frame{kindData, 1, []byte("x")}, frame{kindPing, 0, nil}, frame{kindEnd, 1, nil}, frame{kindReset, 1, nil}))
	f.Add(false, bytesOf(frame{kindOpen, 2, []byte("[::1]:443")}, frame{kindData, 1, []byte("x")}, frame{kindReset, 2, nil}))
	f.Fuzz(func(t *testing.T, device bool, b []byte) {
		l := newLink(script{Reader: bytes.NewReader(b)}, usual)
		if !device {
			l.accept = func(s *stream) error {
				if _, _, err := ParseAddress(s.address); err != nil {
					t.Errorf("%q: %v", s.address, err)
				}
				return nil
			}
		}
		s := l.add(1, "a:443")
		s.up = !device
		if err := l.run(t.Context()); err == nil {
			t.Error("it ended without a reason")
		}
		if len(s.in) > window || s.room > window || s.err == nil && !s.closed {
			t.Errorf("%d bytes, room for %d, %v", len(s.in), s.room, s.err)
		}
		var text [headerSize + maxPayload]byte
		if f, err := readFrame(bytes.NewReader(b), text[:]); err == nil {
			if again := appendFrame(nil, f); !bytes.HasPrefix(b, again) {
				t.Errorf("%x was read as %+v", b, f)
			}
		}
	})
}

// FuzzAddress: what passes is host:port and nothing else.
func FuzzAddress(f *testing.F) {
	for _, s := range []string{"smdp.example.com:443", "[2001:db8::1]:8443", "1.2.3.4:1", "a b:1", "x:0443", "[fe80::1%eth0]:443", "a..b:1"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		host, port, err := ParseAddress(s)
		if err != nil {
			return
		}
		if strings.ContainsAny(host, " %/@?#\x00\x1b[]") || host == "" || port == "" || plain(s) != s {
			t.Errorf("%q passes as %q and %q", s, host, port)
		}
		if h, p, err := ParseAddress(net.JoinHostPort(host, port)); err != nil || h != host || p != port {
			t.Errorf("%q: again %q %q %v", s, h, p, err)
		}
	})
}

// FuzzRecords: the verdict does not depend on how the bytes are cut.
func FuzzRecords(f *testing.F) {
	f.Add([]byte{22, 3, 1, 0, 1, 0, 23, 3, 3, 0, 0, 9}, uint8(3))
	f.Fuzz(func(t *testing.T, b []byte, at uint8) {
		var whole, parts records
		want := whole.check(b)
		n := min(int(at), len(b))
		if got := errors.Join(parts.check(b[:n]), parts.check(b[n:])); (got == nil) != (want == nil) {
			t.Errorf("%x cut at %d: %v, want %v", b, n, got, want)
		}
	})
}
