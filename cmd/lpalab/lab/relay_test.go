package lab_test

import (
	"bytes"
	"context"
	"encoding/hex"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"lpad/cmd/lpalab/lab"
	"lpad/modem/modemtest"
)

// cellar is a device in an empty network namespace, and a laptop beside it that
// reaches the SM-DP+ by its name. Both ways that the laptop sees are recorded.
type cellar struct {
	*lab.Modem
	w      *lab.World
	hosts  string
	link   *wiretap // between lpactl relay and the device's socket
	server *wiretap // between lpactl relay and the SM-DP+
}

// laptops counts the addresses that the tests' laptops have their servers at.
var laptops atomic.Int32

func newCellar(t *testing.T) (context.Context, *cellar) {
	t.Helper()
	modemtest.RequireRoot(t)
	t.Parallel()
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	t.Cleanup(cancel)
	c := &cellar{w: newWorld(t, lab.Options{})}
	address := fmt.Sprintf("127.77.%d.%d", os.Getpid()%250+1, laptops.Add(1))
	behind, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	c.w.Serve(behind)
	front, err := net.Listen("tcp", address+":443")
	must(t, err)
	c.server = record(t, front, func() (net.Conn, error) { return net.Dial("tcp", behind.Addr().String()) })
	c.hosts = filepath.Join(t.TempDir(), "hosts")
	must(t, os.WriteFile(c.hosts, []byte(address+" "+lab.Host+"\n"), 0o644))

	// The device has no address of the server: whoever looks the name up finds it.
	c.Modem, err = c.w.StartModemWith(ctx, lab.ModemOptions{Programs: programs, Isolated: true,
		Config: fmt.Sprintf("rsp: {addresses: {%s: %q}}\n", lab.Host, lab.Host+":443")})
	must(t, err)
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("lpad:\n%s", c.Log())
		}
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
	socket := filepath.Join(c.Dir, "laptop.sock")
	l, err := net.Listen("unix", socket)
	must(t, err)
	c.link = record(t, l, func() (net.Conn, error) { return net.Dial("unix", c.Socket) })
	return ctx, c
}

// relay starts lpactl relay on the laptop, and returns when the device has it.
func (c *cellar) relay(ctx context.Context, t *testing.T, args ...string) *laptop {
	t.Helper()
	const script = `mount --bind "$0" /etc/hosts && exec "$@"`
	args = append([]string{"--mount", "--propagation", "private", "sh", "-c", script, c.hosts,
		filepath.Join(programs, "lpactl"), "--socket", filepath.Join(c.Dir, "laptop.sock"), "relay"}, args...)
	r := &laptop{cmd: exec.CommandContext(ctx, "unshare", args...), ended: make(chan error, 1)}
	r.cmd.Stdout, r.cmd.Stderr = &r.said, &r.said
	must(t, r.cmd.Start())
	go func() { r.ended <- r.cmd.Wait() }()
	t.Cleanup(func() { r.kill() })
	for limit := time.Now().Add(30 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		s := lpactl(ctx, t, c.Daemon, 0, "status")
		if strings.Contains(s.Stdout, "\nrelay ") {
			return r
		}
		if time.Now().After(limit) {
			t.Fatalf("no relay is attached: %s\n%s", s.Stdout, r.said.String())
		}
	}
}

// laptop is a running lpactl relay.
type laptop struct {
	cmd   *exec.Cmd
	said  shared
	ended chan error
	once  sync.Once
}

// kill is a laptop that is closed.
func (r *laptop) kill() {
	r.once.Do(func() { _ = r.cmd.Process.Kill(); <-r.ended }) // it may have ended
}

// shared is a buffer for several goroutines.
type shared struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *shared) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *shared) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

// wiretap stands between two and keeps what passes.
type wiretap struct {
	mu    sync.Mutex
	flows []*flow // one for each connection and direction
	seen  func(*flow)
}

type flow struct {
	toServer bool
	bytes    []byte
}

func record(t *testing.T, l net.Listener, dial func() (net.Conn, error)) *wiretap {
	t.Helper()
	r := &wiretap{}
	var running sync.WaitGroup
	var mu sync.Mutex
	open := map[net.Conn]bool{}
	over := false
	running.Go(func() {
		for {
			near, err := l.Accept()
			if err != nil {
				return
			}
			far, err := dial()
			if err != nil {
				near.Close()
				continue
			}
			mu.Lock()
			open[near], open[far] = true, true
			if over {
				near.Close()
				far.Close()
			}
			mu.Unlock()
			for _, way := range []struct {
				from, to net.Conn
				server   bool
			}{{near, far, true}, {far, near, false}} {
				f := &flow{toServer: way.server}
				r.mu.Lock()
				r.flows = append(r.flows, f)
				r.mu.Unlock()
				running.Go(func() {
					_, _ = io.Copy(io.MultiWriter(recording{r, f}, way.to), way.from) // a broken end is one that is passed on
					way.from.Close()
					way.to.Close()
				})
			}
		}
	})
	t.Cleanup(func() {
		l.Close()
		mu.Lock()
		over = true
		for c := range open {
			c.Close()
		}
		mu.Unlock()
		running.Wait()
	})
	return r
}

type recording struct {
	r *wiretap
	f *flow
}

func (w recording) Write(p []byte) (int, error) {
	w.r.mu.Lock()
	w.f.bytes = append(w.f.bytes, p...)
	seen := w.r.seen
	w.r.mu.Unlock()
	if seen != nil {
		seen(w.f)
	}
	return len(p), nil
}

func (r *wiretap) all() [][]byte {
	r.mu.Lock()
	defer r.mu.Unlock()
	var all [][]byte
	for _, f := range r.flows {
		all = append(all, append([]byte(nil), f.bytes...))
	}
	return all
}

// TestRelay: a device that reaches nothing is provisioned through a laptop, which
// sees TLS records and nothing of what is in them.
func TestRelay(t *testing.T) {
	ctx, c := newCellar(t)
	interfaces, err := os.ReadFile(fmt.Sprintf("/proc/%d/net/dev", c.PID()))
	must(t, err)
	if got := strings.Count(string(interfaces), ":"); got != 1 || !strings.Contains(string(interfaces), "lo:") {
		t.Fatalf("the device has a network: %s", interfaces)
	}
	// Without a relay it says what to do.
	r := lpactl(ctx, t, c.Daemon, 17, "install", c.w.ActivationCode(), "--yes")
	if !strings.Contains(r.Stderr, "lpactl relay") {
		t.Errorf("without a network: %s", r.Stderr)
	}
	laptop := c.relay(ctx, t, "--allow", lab.Host)
	lpactl(ctx, t, c.Daemon, 0, "install", c.w.ActivationCode(), "--yes")
	profiles := lpactl(ctx, t, c.Daemon, 0, "profiles")
	if !strings.Contains(profiles.Stdout, lab.NewOperator.ICCID) {
		t.Errorf("the profile is not there: %s", profiles.Stdout)
	}
	if n := c.w.SMDP.Notifications(); len(n) != 1 || n[0].EventName != "install" || n[0].Result != "installed" || !n[0].Verified {
		t.Errorf("the server got %+v", n)
	}
	if said := laptop.said.String(); !strings.Contains(said, lab.Host+":443  connected to 127.77.") {
		t.Errorf("the laptop says %s", said)
	}

	// A second one has no place, and the daemon ends with the first one attached.
	if second := lpactl(ctx, t, c.Daemon, 6, "relay"); !strings.Contains(second.Stderr, "[relay-attached]") {
		t.Errorf("a second relay: %s", second.Stderr)
	}
	began := time.Now()
	must(t, c.Stop())
	if took := time.Since(began); took > 10*time.Second {
		t.Errorf("the daemon took %v to end", took)
	}
	for limit := time.Now().Add(30 * time.Second); !strings.Contains(laptop.said.String(), "detached"); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(limit) {
			t.Fatalf("the laptop does not notice: %s", laptop.said.String())
		}
	}
	laptop.kill()

	carried := c.server.all()
	size := 0
	for i, b := range carried {
		size += len(b)
		if err := onlyTLS(b); err != nil {
			t.Errorf("way %d to the server: %v", i, err)
		}
	}
	if size < len(c.w.Order.UPP) {
		t.Errorf("only %d bytes were carried", size)
	}
	eid := c.w.Card.EID()
	secrets := map[string][]byte{"matching id": []byte(c.w.Order.MatchingID), "EID": []byte(eid.String()), "EID in bytes": eid[:], "ICCID": []byte(lab.NewOperator.ICCID),
		"ICCID in bytes": semiOctets(t, lab.NewOperator.ICCID), "IMSI": []byte(lab.NewOperator.IMSI)}
	for _, b := range append(carried, c.link.all()...) {
		for what, secret := range secrets {
			if bytes.Contains(bytes.ToUpper(b), bytes.ToUpper(secret)) {
				t.Errorf("the laptop sees the %s", what)
			}
		}
	}
	t.Logf("%d bytes in %d ways to the server, %d ways over the link", size, len(carried), len(c.link.all()))
}

// semiOctets is how a card writes digits.
func semiOctets(t *testing.T, digits string) []byte {
	t.Helper()
	b, err := hex.DecodeString(digits)
	must(t, err)
	for i := range b {
		b[i] = b[i]<<4 | b[i]>>4
	}
	return b
}

// onlyTLS reads records (RFC 8446, section 5.1) to the end. The last one may be
// cut off, by whoever has hung up.
func onlyTLS(b []byte) error {
	for len(b) > 0 {
		if len(b) < 5 {
			return nil
		}
		n := int(b[3])<<8 | int(b[4])
		if b[0] < 20 || b[0] > 23 || b[1] != 3 || n > 1<<14+2048 {
			return fmt.Errorf("%x is no TLS", b[:5])
		}
		b = b[min(5+n, len(b)):]
	}
	return nil
}

// TestRelayVanishes: the laptop is closed at several places of a download. The job
// says so, the order is not used up, and the next try with the laptop back
// installs the profile.
func TestRelayVanishes(t *testing.T) {
	for name, at := range map[string]func(f *flow, total int) bool{
		"at the first byte of the server": func(f *flow, _ int) bool { return !f.toServer },
		"in the middle":                   func(_ *flow, total int) bool { return total > 8000 },
		"with the package on its way":     func(f *flow, total int) bool { return !f.toServer && total > 16000 },
	} {
		t.Run(name, func(t *testing.T) {
			ctx, c := newCellar(t)
			first := c.relay(ctx, t, "--allow", lab.Host)
			var once sync.Once
			total := 0
			c.server.mu.Lock()
			c.server.seen = func(f *flow) {
				c.server.mu.Lock()
				total = 0
				for _, one := range c.server.flows {
					total += len(one.bytes)
				}
				c.server.mu.Unlock()
				if at(f, total) {
					once.Do(func() { first.kill() })
				}
			}
			c.server.mu.Unlock()
			r, err := c.Lpactl(ctx, nil, "install", c.w.ActivationCode(), "--yes")
			must(t, err)
			if r.Exit != 17 || !strings.Contains(r.Stderr, "[relay-lost]") && !strings.Contains(r.Stderr, "[connection-lost]") {
				t.Errorf("exit %d: %s", r.Exit, r.Stderr)
			}
			c.server.mu.Lock()
			c.server.seen = nil
			c.server.mu.Unlock()
			c.relay(ctx, t, "--allow", lab.Host)
			lpactl(ctx, t, c.Daemon, 0, "install", c.w.ActivationCode(), "--yes")
			if profiles := lpactl(ctx, t, c.Daemon, 0, "profiles"); !strings.Contains(profiles.Stdout, lab.NewOperator.ICCID) {
				t.Errorf("the profile is not there: %s", profiles.Stdout)
			}
		})
	}
}

// TestRelayWithoutServer: what is wrong at the laptop's side is told on the device.
func TestRelayWithoutServer(t *testing.T) {
	for name, tc := range map[string]struct {
		hosts string // instead of the right ones
		args  []string
		exit  int
		code  string
	}{
		"nobody listens":           {"127.77.0.1 " + lab.Host + "\n", []string{"--allow", lab.Host}, 17, "connection-refused"},
		"the name is not known":    {"127.0.0.1 localhost\n", []string{"--allow", lab.Host}, 0, ""},
		"the laptop's own network": {"", nil, 17, "relay-refused"},
		"another server is pinned": {"", []string{"--allow", "smdp.example.com"}, 17, "relay-refused"},
	} {
		t.Run(name, func(t *testing.T) {
			ctx, c := newCellar(t)
			if tc.hosts != "" {
				must(t, os.WriteFile(c.hosts, []byte(tc.hosts), 0o644))
			}
			c.relay(ctx, t, tc.args...)
			r, err := c.Lpactl(ctx, nil, "install", c.w.ActivationCode(), "--yes")
			must(t, err)
			known := tc.exit == 0 && (r.Exit == 11 || r.Exit == 17) && strings.Contains(r.Stderr, "by the relay") // as the machine's name server has it
			if !known && (r.Exit != tc.exit || !strings.Contains(r.Stderr, "["+tc.code+"]")) {
				t.Errorf("exit %d: %s", r.Exit, r.Stderr)
			}
		})
	}
}
