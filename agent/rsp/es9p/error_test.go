package es9p_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"

	"lpad/agent/rsp/es9p"
	"lpad/internal/fault"
)

// listed are the pairs of subject and reason that SGP.22 v2.5 knows for ES9+
// and ES11 and that are seen in the field.
var listed = []string{
	"8.1/4.8", "8.1/6.1", "8.1.1/2.2", "8.1.1/3.8", "8.1.1/3.10", "8.1.2/6.1", "8.1.2/6.3", "8.1.3/6.1", "8.1.3/6.3", "8.1.4/6.1",
	"8.2/1.2", "8.2/3.7", "8.2.1/1.2", "8.2.1/3.3", "8.2.1/3.5", "8.2.1/3.9", "8.2.1/3.10",
	"8.2.5/1.2", "8.2.5/3.7", "8.2.5/3.8", "8.2.5/3.9", "8.2.5/4.3", "8.2.6/3.8", "8.2.6/3.3", "8.2.6/3.10",
	"8.2.7/2.2", "8.2.7/3.8", "8.2.7/6.4", "8.8/3.10", "8.8.1/3.8", "8.8.2/3.1", "8.8.3/3.1", "8.8.4/3.7", "8.8.5/4.10", "8.8.5/6.4",
	"8.9/4.2", "8.9/5.1", "8.9.1/3.8", "8.9.2/3.1", "8.9.3/3.1", "8.9.4/3.7", "8.9.5/3.9", "8.9.5/3.3", "8.10.1/3.9", "8.11.1/3.9",
	"1.2.1/2.1", "1.2.1/2.2", "1.2.2/2.1", "1.2.2/2.2", "1.6/2.1", "1.6/2.2",
}

func TestTableIsComplete(t *testing.T) {
	var got []string
	for _, pair := range es9p.Meanings() {
		got = append(got, pair[0]+"/"+pair[1])
	}
	for _, pair := range listed {
		if !slices.Contains(got, pair) {
			t.Errorf("%s is not explained", pair)
		}
	}
	if len(got) != len(listed) {
		t.Errorf("%d pairs are explained, %d are listed here", len(got), len(listed))
	}
	kebab := regexp.MustCompile(`^[a-z0-9]+(-[a-z0-9]+)+$`)
	texts := map[string]string{}
	for _, pair := range es9p.Meanings() {
		e := &es9p.Error{Function: "f", Status: "Failed", SubjectCode: pair[0], ReasonCode: pair[1], Message: "SECRET"}
		f := e.Fault()
		if !kebab.MatchString(f.Code) || f.Text == "" || f.Next == "" || f.Who == "" || strings.HasSuffix(f.Text, ".") {
			t.Errorf("%s: fault %+v", e.SubjectCode, f)
		}
		if other, twice := texts[f.Text]; twice {
			t.Errorf("%v and %s have the same text", pair, other)
		}
		texts[f.Text] = pair[0] + "/" + pair[1]
		if s := e.Error(); strings.Contains(s, "SECRET") || !strings.Contains(s, pair[0]+"/"+pair[1]) {
			t.Errorf("error text %q", s)
		}
	}
}

func TestUnlistedRefusals(t *testing.T) {
	for pair, code := range map[string]string{
		"8.99/1.2": "server-refuses-access", "8.2/2.99": "request-malformed", "8.2/3.1": "server-refuses-conditions", "8.2.6/3.1": "server-refuses-conditions",
		"8.5/4.1": "server-processing-failed", "8.5/5.1": "server-transport-failed", "8.1/6.99": "server-refuses-security",
		"1.3/3.9": "request-malformed", "1/2.1": "request-malformed", "8.1/": "server-refused", "8.1/9.9": "server-refused",
	} {
		subject, reason, _ := strings.Cut(pair, "/")
		f := (&es9p.Error{Status: "Failed", SubjectCode: subject, ReasonCode: reason}).Fault()
		if f.Code != code || !strings.Contains(f.Text, subject) || f.Next == "" {
			t.Errorf("%s: %+v, want %s", pair, f, code)
		}
	}
}

func TestSentinels(t *testing.T) {
	nothing := fmt.Errorf("discover: %w", &es9p.Error{SubjectCode: "8.9.5", ReasonCode: "3.9"})
	lost := &es9p.Error{SubjectCode: "8.10.1", ReasonCode: "3.9"}
	other := &es9p.Error{SubjectCode: "8.2.6", ReasonCode: "3.8"}
	if !errors.Is(nothing, es9p.ErrNoEvent) || errors.Is(nothing, es9p.ErrSessionUnknown) || fault.Of(nothing).Who != fault.Nobody {
		t.Error("nothing pending")
	}
	if !errors.Is(lost, es9p.ErrSessionUnknown) || !lost.Fault().Retry {
		t.Error("session unknown")
	}
	if errors.Is(other, es9p.ErrNoEvent) || errors.Is(other, es9p.ErrSessionUnknown) {
		t.Error("another refusal")
	}
}

// What the network does, in words.
func TestTransportFaults(t *testing.T) {
	dial := func(err error) error { return &net.OpError{Op: "dial", Net: "tcp", Err: err} }
	for _, tc := range []struct {
		err   error
		code  string
		retry bool
	}{
		{dial(&net.DNSError{Err: "no such host", IsNotFound: true}), "host-unknown", false},
		{dial(&net.DNSError{Err: "server misbehaving", IsTemporary: true}), "dns-unavailable", true},
		{dial(&net.DNSError{Err: "i/o timeout", IsTimeout: true}), "dns-unavailable", true},
		{dial(syscall.ECONNREFUSED), "connection-refused", true},
		{dial(syscall.ENETUNREACH), "no-network", true},
		{dial(syscall.EHOSTUNREACH), "no-network", true},
		{dial(syscall.ECONNRESET), "connection-lost", true},
		{io.EOF, "connection-lost", true},
		{io.ErrUnexpectedEOF, "connection-lost", true},
		{context.DeadlineExceeded, "server-silent", true},
		{errors.New("tls: something of its own"), "tls-failed", false},
		{errors.New("something else"), "server-unreachable", true},
	} {
		e := &es9p.TransportError{Function: "f", Host: host, Err: tc.err}
		checkFault(t, e, tc.code, tc.retry)
		if !errors.Is(e, tc.err) || !strings.Contains(e.Error(), host) {
			t.Errorf("error %v", e)
		}
		if e.Timeout() != (tc.code == "server-silent" || strings.Contains(tc.err.Error(), "timeout")) {
			t.Errorf("%v: Timeout() = %v", tc.err, e.Timeout())
		}
	}
}

// The same with real sockets.
func TestTransport(t *testing.T) {
	to := func(address string) *es9p.Client { return &es9p.Client{Addresses: map[string]string{host: address}} }
	closed, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	closed.Close()
	plain, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer plain.Close()
	go answerPlain(plain, "220 mail.example ESMTP\r\n")
	gone, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer gone.Close()
	go answerPlain(gone, "")
	for name, tc := range map[string]struct {
		client *es9p.Client
		code   string
	}{
		"refused": {to(closed.Addr().String()), "connection-refused"},
		"no TLS":  {to(plain.Addr().String()), "not-tls"},
		"gone":    {to(gone.Addr().String()), "connection-lost"},
		"unknown": {&es9p.Client{Resolver: resolver(t)}, "host-unknown"},
	} {
		t.Run(name, func(t *testing.T) {
			err := calls[0].call(t.Context(), open(t, tc.client))
			if f := fault.Of(err); f.Code != tc.code {
				t.Errorf("fault %+v, want %s: %v", f, tc.code, err)
			}
		})
	}
}

// answerPlain says one line to everybody and hangs up.
func answerPlain(l net.Listener, line string) {
	for {
		conn, err := l.Accept()
		if err != nil {
			return
		}
		if _, err := io.ReadFull(conn, make([]byte, 64)); err == nil {
			io.WriteString(conn, line)
		}
		conn.Close()
	}
}

// resolver asks a name server of the test that knows nobody.
func resolver(t *testing.T) *net.Resolver {
	t.Helper()
	server, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { server.Close() })
	go func() {
		buf := make([]byte, 512)
		for {
			n, from, err := server.ReadFrom(buf)
			if err != nil || n < 12 {
				return
			}
			answer := append([]byte{}, buf[:n]...)
			answer[2], answer[3] = 0x81, 0x83 // response, NXDOMAIN (RFC 1035, section 4.1.1)
			answer[10], answer[11] = 0, 0     // no additional record of ours comes back
			answer = answer[:12+len(host)+2+4]
			if _, err := server.WriteTo(answer, from); err != nil {
				return
			}
		}
	}()
	return &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "udp", server.LocalAddr().String())
	}}
}

// Name servers are asked over the interface, those of this machine are not.
func TestResolverDial(t *testing.T) {
	dial := es9p.ResolverDial("none0")
	conn, err := dial(t.Context(), "udp", "127.0.0.53:53")
	if err != nil {
		t.Fatalf("a name server of this machine: %v", err)
	}
	conn.Close()
	if _, err := dial(t.Context(), "udp", "192.0.2.1:53"); !errors.Is(err, syscall.ENODEV) {
		t.Errorf("error %v, want that of an interface that is not there", err)
	}
}
