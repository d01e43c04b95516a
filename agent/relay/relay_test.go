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

// bring is a Carrier's Bring over wires of their own.
func bring(t *testing.T, s *Station) func(context.Context, string) (net.Conn, error) {
	return func(_ context.Context, number string) (net.Conn, error) {
		device, laptop := wire(t)
		return laptop, s.Bring(number, func() (net.Conn, error) { return device, nil })
	}
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
	c := &Carrier{Dial: dial, Bring: bring(t, r.Station), pace: p, Tell: func(e Event) { mu.Lock(); defer mu.Unlock(); events = append(events, e) }}
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

// chunk is more than any buffer on the way takes at once.
const chunk = 256 << 10

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
	for i := range maxConns {
		asked.Go(func() {
			body := bytes.Repeat([]byte{byte('a' + i)}, 10*chunk+i)
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
				if e.Sent < 10*chunk || e.Received < 10*chunk || e.Error != "" || e.Remote != srv.Listener.Addr().String() {
					t.Errorf("%+v", e)
				}
			}
		}
		return closed == maxConns
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
			for range 3 * maxConns { // the place of a refused one is free again
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
	for _, wrong := range []string{"a b:443", "a:443\nopen 2 b:443", strings.Repeat("a.", 130) + "a:1"} {
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
		"the laptop goes": func(p *pair) { p.stop() },
		"the link breaks": func(p *pair) { p.device.Close() },
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
			c.Close() // it is closed already
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
	go func() { ended <- (&Carrier{Dial: direct, Bring: bring(t, s), pace: quick}).Carry(t.Context(), other) }()
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

// hostile are lines that no honest end sends.
var hostile = []struct {
	name   string
	device bool // sent to the device, which has asked for connection 1; else to the laptop, which dials that
	text   string
}{
	{"HTTP", true, "GET / HTTP/1.1\r\n\r\n"},
	{"an empty line", true, "\n"},
	{"an order to connect, to the device", true, "open 2 a:443\n"},
	{"a question, to the device", true, "ping\n"},
	{"words behind an answer", true, "pong pong\n"},
	{"a failure without a number", true, "failed\n"},
	{"a failure of none", true, "failed 0 1 x\n"},
	{"a failure without a reason", true, "failed 1 \n"},
	{"a reason that is no number", true, "failed 1 x y\n"},
	{"a negative number", true, "failed -1 1 x\n"},
	{"a line without an end", true, strings.Repeat("p", maxLine)},
	{"zeroes", true, strings.Repeat("\x00", maxLine)},

	{"an answer, to the laptop", false, "pong\n"},
	{"a failure, to the laptop", false, "failed 1 1 x\n"},
	{"a number again", false, "open 1 a:443\n"},
	{"a number that goes back", false, "open 7 a:443\nopen 6 a:443\n"},
	{"an address without a port", false, "open 2 a\n"},
	{"an address of escapes", false, "open 2 \x1b[2J:443\n"},
	{"an address with more behind it", false, "open 2 a:443 b:443\n"},
	{"no address", false, "open 2\n"},
	{"connections without end", false, func() (s string) {
		for i := range 2 * maxCarried {
			s += fmt.Sprintf("open %d a:443\n", 2+i)
		}
		return s
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
				dialled := make(chan error, 1)
				go func() {
					_, err := s.Dial(t.Context(), "smdp.example.com:443")
					dialled <- err
				}()
				defer func() {
					if err := <-dialled; !errors.Is(err, ErrLost) {
						t.Errorf("the device's dial: %v", err)
					}
				}()
				waitFor(t, func() bool { l := s.current(); l.mu.Lock(); defer l.mu.Unlock(); return l.wanted[1] != nil })
			} else {
				c := &Carrier{Dial: func(context.Context, string) (net.Conn, error) { <-stuck; return nil, io.EOF }}
				go func() { ended <- c.Carry(t.Context(), near) }()
				io.WriteString(far, "open 1 a:443\n")
			}
			io.WriteString(far, tc.text) // an error is that it has hung up
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

// TestBring: only what was asked for is taken, and once.
func TestBring(t *testing.T) {
	s := NewStation()
	never := func() (net.Conn, error) { t.Error("the connection was taken"); return nil, io.EOF }
	if err := s.Bring("1", never); !errors.Is(err, ErrNotAsked) {
		t.Errorf("without a relay: %v", err)
	}
	device, laptop := wire(t)
	ctx, cancel := context.WithCancel(t.Context())
	ended := attach(ctx, t, s, "x", device)
	defer func() { cancel(); <-ended }()
	for _, number := range []string{"", "1", "0", "-1", "x", "99999999999999999999"} {
		if err := s.Bring(number, never); !errors.Is(err, ErrNotAsked) {
			t.Errorf("%q: %v", number, err)
		}
	}
	dial := func(ctx context.Context) <-chan error {
		dialled := make(chan error, 1)
		go func() {
			c, err := s.Dial(ctx, "a:443")
			if err == nil {
				err = c.Close()
			}
			dialled <- err
		}()
		return dialled
	}
	in := lines{conn: laptop}
	asked := func() string {
		t.Helper()
		said, err := in.next(time.Now().Add(patience))
		if err != nil || said.word != "open" || said.rest != "a:443" {
			t.Fatalf("%+v, %v", said, err)
		}
		return fmt.Sprint(said.n)
	}
	// One that is brought twice, one that comes too late, one that is lost on its way.
	dialled := dial(t.Context())
	number := asked()
	if _, err := bring(t, s)(t.Context(), number); err != nil {
		t.Error(err)
	}
	if err := <-dialled; err != nil {
		t.Error(err)
	}
	if err := s.Bring(number, never); !errors.Is(err, ErrNotAsked) {
		t.Errorf("twice: %v", err)
	}
	short, end := context.WithCancel(t.Context())
	dialled = dial(short)
	number = asked()
	end()
	if err := <-dialled; !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	if err := s.Bring(number, never); !errors.Is(err, ErrNotAsked) {
		t.Errorf("too late: %v", err)
	}
	dialled = dial(t.Context())
	if err := s.Bring(asked(), func() (net.Conn, error) { return nil, io.ErrClosedPipe }); !errors.Is(err, io.ErrClosedPipe) {
		t.Errorf("lost on its way: %v", err)
	}
	if err := <-dialled; !errors.Is(err, ErrLost) {
		t.Error(err)
	}
	// And one whose dial ends while it is taken.
	short, end = context.WithCancel(t.Context())
	dialled = dial(short)
	late, _ := wire(t)
	if err := s.Bring(asked(), func() (net.Conn, error) { end(); time.Sleep(20 * time.Millisecond); return late, nil }); err != nil {
		t.Error(err)
	}
	if err := <-dialled; err != nil && !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	if _, err := late.Write([]byte{1}); err == nil {
		t.Error("it stays open")
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
	if _, err := c.Read(make([]byte, 1)); err == nil || errors.Is(err, ErrLost) {
		t.Errorf("the device reads %v", err)
	}
	server := <-accepted
	defer server.Close()
	if b, err := io.ReadAll(server); len(b) > 0 {
		t.Errorf("the server got %q, %v", b, err)
	}
	waitFor(t, func() bool { e := p.events(); return len(e) == 2 && e[1].Error == errNotTLS.Error() && e[1].Sent == 0 })
}

// TestEnds: a server that closes is heard to its last byte.
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
		got := make([]byte, len(record))
		if _, err = io.ReadFull(c, got); err == nil {
			_, err = c.Write(bytes.Repeat(record, 5000))
		}
		served <- err
	}()
	p := newPair(t, usual, direct)
	c, err := p.Dial(t.Context(), l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := c.Write(record); err != nil {
		t.Fatal(err)
	}
	if b, err := io.ReadAll(c); err != nil || len(b) != 5000*len(record) {
		t.Errorf("%d bytes, %v", len(b), err)
	}
	if err := <-served; err != nil {
		t.Error(err)
	}
}

// TestLimits: deadlines, a context that ends while it is dialled, and one
// connection too many.
func TestLimits(t *testing.T) {
	address, _ := silent(t)
	p := newPair(t, usual, func(ctx context.Context, to string) (net.Conn, error) {
		if to == address {
			return direct(ctx, to)
		}
		<-ctx.Done()
		return nil, ctx.Err()
	})
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := p.Dial(ctx, "smdp.example.com:443"); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a dial without an end: %v", err)
	}

	var conns []net.Conn
	for range maxConns {
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

func (s script) Read(p []byte) (int, error)     { return s.Reader.Read(p) }
func (script) Write(p []byte) (int, error)      { return len(p), nil }
func (script) Close() error                     { return nil }
func (script) SetWriteDeadline(time.Time) error { return nil }
func (script) SetReadDeadline(time.Time) error  { return nil }

// FuzzLines: whatever the other end says, either end gets to the end of it, and
// acts on nothing but what makes sense.
func FuzzLines(f *testing.F) {
	for _, h := range hostile {
		f.Add(h.device, h.text)
	}
	f.Add(true, "pong\nfailed 1 4 refused\npong\n")
	f.Add(false, "ping\nopen 1 [::1]:443\nopen 2 smdp.example.com:443\n")
	f.Fuzz(func(t *testing.T, device bool, text string) {
		conn := script{Reader: bytes.NewReader([]byte(text))}
		if device {
			wish := make(chan result, 1)
			l := &link{conn: conn, done: make(chan struct{}), wanted: map[uint64]chan result{1: wish}}
			if err := l.listen(usual); err == nil {
				t.Error("it ended without a reason")
			}
			select {
			case r := <-wish:
				if r.conn != nil || r.why == 0 || plain(r.text) != r.text || l.wanted[1] != nil {
					t.Errorf("%+v came of it", r)
				}
			default:
			}
			return
		}
		c := &Carrier{Dial: func(_ context.Context, address string) (net.Conn, error) {
			if _, _, err := ParseAddress(address); err != nil {
				t.Errorf("%q is dialled", address)
			}
			return nil, io.EOF
		}}
		if err := c.Carry(t.Context(), conn); err == nil {
			t.Error("it ended without a reason")
		}
		one, _, _ := strings.Cut(text, "\n")
		if said, err := parseLine(one); err == nil && said.n != 0 && !strings.HasSuffix(one, " "+said.rest) {
			t.Errorf("%q was read as %+v", one, said)
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
