package agent

import (
	"context"
	"io"
	"log/slog"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"lpad/agent/api"
	"lpad/agent/client"
	"lpad/agent/relay"
	"lpad/agent/switchover"
	"lpad/config"
	"lpad/internal/fault"
	"lpad/modem"
)

// attached is a station with a laptop that dials by dial.
func attached(t *testing.T, dial func(context.Context, string) (net.Conn, error)) *relay.Station {
	t.Helper()
	l, err := net.Listen("unix", filepath.Join(t.TempDir(), "s"))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	laptop, err := net.Dial("unix", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	s := relay.NewStation()
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 2)
	go func() { ended <- s.Attach(ctx, "somebody", l.Accept) }()
	go func() { ended <- (&relay.Carrier{Dial: dial, Bring: bring(t, s)}).Carry(ctx, laptop) }()
	t.Cleanup(func() { cancel(); <-ended; <-ended })
	for _, ok := s.Attached(); !ok; _, ok = s.Attached() {
		time.Sleep(time.Millisecond)
	}
	return s
}

// bring is a Carrier's Bring without a socket of the daemon.
func bring(t *testing.T, s *relay.Station) func(context.Context, string) (net.Conn, error) {
	return func(_ context.Context, number string) (net.Conn, error) {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return nil, err
		}
		defer l.Close()
		laptop, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			return nil, err
		}
		return laptop, s.Bring(number, l.Accept)
	}
}

// TestWayThroughRelay: a relay goes before the direct way, which is taken when the
// relay does not get there; what is bound to an interface takes neither.
func TestWayThroughRelay(t *testing.T) {
	to, r := receiver(t, func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusAccepted) })
	there := r.addresses["example.com"]
	var asked []string
	reaches := attached(t, func(ctx context.Context, address string) (net.Conn, error) {
		asked = append(asked, address)
		return (&net.Dialer{}).DialContext(ctx, "tcp", there)
	})
	fails := attached(t, func(context.Context, string) (net.Conn, error) { return nil, relay.ErrRules })
	hangs := attached(t, func(ctx context.Context, _ string) (net.Conn, error) { <-ctx.Done(); return nil, ctx.Err() })
	nowhere := map[string]string{"example.com": "127.0.0.1:1"}
	for _, tc := range []struct {
		name      string
		relay     *relay.Station
		addresses map[string]string
		link      modem.Link
		code      string // of the error
		asked     string
	}{
		{name: "through it, where there is no direct way", relay: reaches, addresses: nowhere, asked: "127.0.0.1:1"},
		{name: "through it, by the name", relay: reaches, asked: "example.com:8443"},
		{name: "directly, since it does not get there", relay: fails, addresses: r.addresses},
		{name: "neither", relay: fails, addresses: nowhere, code: "relay-refused"},
		{name: "nobody is attached", relay: relay.NewStation(), addresses: r.addresses},
		{name: "nobody is attached, and there is no way", relay: relay.NewStation(), addresses: nowhere, code: "connection-refused"},
		{name: "bound to an interface, which goes nowhere", relay: reaches, addresses: nowhere, link: modem.Link{Interface: "lpad-none0"}, asked: "127.0.0.1:1"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			asked = nil
			one := *r
			one.relay, one.addresses = tc.relay, tc.addresses
			_, err := one.Report(t.Context(), to, "KEY", []byte("{}"), tc.link)
			if fault.Of(err).Code != tc.code {
				t.Errorf("%v", err)
			}
			if tc.name == "neither" && !strings.Contains(err.Error(), "without the relay: dial tcp") {
				t.Errorf("%v does not say both", err)
			}
			if got := strings.Join(asked, " "); got != tc.asked {
				t.Errorf("the laptop was asked for %q, want %q", got, tc.asked)
			}
		})
	}
	if c, err := dialer(reaches, "lpad-none0", slog.New(slog.DiscardHandler))(t.Context(), "tcp", there); err == nil {
		c.Close()
		t.Error("bound to an interface that is not there, and connected")
	}
	// A laptop that does not answer leaves time for the direct way.
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	c, err := dialer(hangs, "", slog.New(slog.DiscardHandler))(ctx, "tcp", there)
	if err != nil {
		t.Fatal(err)
	}
	c.Close()
}

// TestDaemonWithRelay: the status shows who is attached, a second one is refused,
// and the daemon ends at once with one attached.
func TestDaemonWithRelay(t *testing.T) {
	dir := t.TempDir()
	cfg := config.Default()
	cfg.StateDir, cfg.Socket, cfg.RSP.TrustDir = filepath.Join(dir, "lib"), filepath.Join(dir, "s"), dir
	direct := switchover.Direct{Card: absent{}}
	a, err := New(cfg, Host{}, []Parts{{Card: absent{}, CardPath: CardPath{Backend: "pcsc"}, Settings: direct, Modem: direct, Network: direct, NetworkBackend: "none"}})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- a.Run(ctx) }()
	c := client.New(cfg.Socket)
	defer c.Close()
	status := func() *api.Relay {
		t.Helper()
		s, err := c.Status(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return s.Relay
	}
	if r := status(); r != nil {
		t.Errorf("%+v is attached", r)
	}
	conn, err := c.Relay(t.Context(), "")
	if err != nil {
		t.Fatal(err)
	}
	carried := make(chan error, 1)
	go func() {
		carried <- (&relay.Carrier{Dial: func(context.Context, string) (net.Conn, error) { return nil, io.EOF }, Bring: c.Relay}).Carry(t.Context(), conn)
	}()
	for limit := time.Now().Add(10 * time.Second); status() == nil; time.Sleep(time.Millisecond) {
		if time.Now().After(limit) {
			t.Fatal("nobody is attached")
		}
	}
	if r := status(); !strings.HasPrefix(r.By, "uid ") || r.Since.IsZero() {
		t.Errorf("%+v", r)
	}
	_, err = c.Relay(t.Context(), "")
	if p, ok := err.(*api.Problem); !ok || p.Code != "relay-attached" || p.Status != http.StatusConflict {
		t.Errorf("a second relay: %v", err)
	}
	_, err = c.Relay(t.Context(), "7")
	if p, ok := err.(*api.Problem); !ok || p.Code != "not-found" || p.Status != http.StatusNotFound {
		t.Errorf("a connection that nobody has asked for: %v", err)
	}
	began := time.Now()
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
	if took := time.Since(began); took > 10*time.Second {
		t.Errorf("the daemon took %v to end", took)
	}
	if err := <-carried; err == nil {
		t.Error("the laptop does not hear of the end")
	}
}
