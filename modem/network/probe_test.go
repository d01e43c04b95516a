package network_test

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"

	"lpad/internal/fault"
	"lpad/modem"
	"lpad/modem/network"
)

func TestProbe(t *testing.T) {
	t.Parallel() // one of the cases is one that nobody answers
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	closed, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := silent.Close(); err != nil {
			t.Error(err)
		}
	}()
	if err := closed.Close(); err != nil {
		t.Fatal(err)
	}
	status := func(code int) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(code) }
	}
	secure := httptest.NewTLSServer(status(http.StatusNotFound))
	defer secure.Close()
	broken := httptest.NewServer(status(http.StatusBadGateway))
	defer broken.Close()
	lo := modem.Link{Interface: "lo", Addresses: []netip.Prefix{netip.MustParsePrefix("127.0.0.1/8")}}
	strict := &tls.Config{RootCAs: secure.Client().Transport.(*http.Transport).TLSClientConfig.RootCAs, ServerName: "example.com"}
	secureAddr := secure.Listener.Addr().String()
	broker, mute := answering(t, []byte{0x20, 2, 0, 2}), answering(t, []byte("HTTP/1.1 400 Bad Request\r\n"))
	for _, tc := range []struct {
		name   string
		link   modem.Link
		target string
		tls    *tls.Config
		code   string // empty: reached
	}{
		{"tcp", modem.Link{}, "tcp://" + silent.Addr().String(), nil, ""},
		{"tcp over an interface", lo, "tcp://" + silent.Addr().String(), nil, ""},
		{"nobody listens", lo, "tcp://" + closed.Addr().String(), nil, "probe-failed"},
		{"no such interface", modem.Link{Interface: "wwan9"}, "tcp://" + silent.Addr().String(), nil, "probe-failed"},
		{"tls, any certificate", lo, "tls://" + secureAddr, nil, ""},
		{"tls is the default", lo, secureAddr, nil, ""},
		{"tls, verified", lo, "tls://" + secureAddr, strict, ""},
		{"tls, foreign certificate", lo, "tls://" + secureAddr, &tls.Config{}, "probe-failed"},
		{"not tls", lo, "tls://" + broken.Listener.Addr().String(), nil, "probe-failed"},
		{"https, verified", lo, "https://" + secureAddr + "/x", strict, ""},
		{"https, any certificate", lo, "https://" + secureAddr + "/x", nil, ""},
		{"http, server in trouble", lo, broken.URL, nil, "probe-failed"},
		{"dns", modem.Link{}, "dns://localhost", nil, ""},
		{"dns, as the configuration writes it", modem.Link{}, "dns:localhost", nil, ""},
		{"a broker, though it refuses", lo, "mqtt://" + broker, nil, ""},
		{"no broker", lo, "mqtt://" + mute, nil, "probe-failed"},
		{"no broker behind TLS", lo, "mqtts://" + secureAddr, strict, "probe-failed"},
		{"dns, no such name", modem.Link{}, "dns://does-not-exist.invalid", nil, "probe-failed"},
		{"no port", lo, "tcp://127.0.0.1", nil, "probe-target-malformed"},
		{"unknown scheme", lo, "ping://127.0.0.1", nil, "probe-target-malformed"},
		{"nonsense", lo, "tls://%zz", nil, "probe-target-malformed"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			err := (&network.Probe{TLS: tc.tls}).Probe(t.Context(), tc.link, tc.target)
			if got := fault.Of(err).Code; got != tc.code {
				t.Errorf("got %v (%s), want %q", err, got, tc.code)
			}
			var pe *network.ProbeError
			if err != nil && (!errors.As(err, &pe) || !strings.Contains(err.Error(), tc.link.Interface)) {
				t.Errorf("error %v names no interface", err)
			}
		})
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := (&network.Probe{}).Probe(ctx, lo, "tls://"+silent.Addr().String()); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}

// answering answers whatever it is sent first, and sees that it was sent a
// whole CONNECT.
func answering(t *testing.T, answer []byte) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			got := make([]byte, 64)
			n, err := conn.Read(got)
			if want := "\x10\x0c\x00\x04MQTT\x04\x02\x00\x00\x00\x00"; err != nil || string(got[:n]) != want {
				t.Errorf("sent %q (%v), want %q", got[:n], err, want)
			}
			if _, err := conn.Write(answer); err != nil {
				t.Error(err)
			}
			_ = conn.Close() // the prober may have gone
		}
	}()
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
		<-done
	})
	return l.Addr().String()
}
