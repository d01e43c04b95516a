package network

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"lpad/internal/fault"
	"lpad/modem"
)

// Bounds of one probe.
const (
	probeLimit = 20 * time.Second // one attempt; a first packet over a fresh bearer may need seconds
	dnsPort    = 53
)

// Dialer makes connections that leave over the link and over no other: bound
// to its interface by SO_BINDTODEVICE, or, where that is not allowed (before
// Linux 5.7 without CAP_NET_RAW), to its address. Names are resolved by the
// link's own resolvers, if it has any. For the zero link it is an ordinary
// dialer.
func Dialer(link modem.Link) *net.Dialer {
	if link.IsZero() {
		return &net.Dialer{}
	}
	bind := func(_ context.Context, network, _ string, c syscall.RawConn) error {
		var failed error
		err := c.Control(func(fd uintptr) { failed = bindTo(int(fd), network, link) })
		return errors.Join(err, failed)
	}
	d := &net.Dialer{ControlContext: bind}
	if len(link.DNS) > 0 {
		var next atomic.Uint32
		d.Resolver = &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
			server := link.DNS[int(next.Add(1)-1)%len(link.DNS)]
			return (&net.Dialer{ControlContext: bind}).DialContext(ctx, network, netip.AddrPortFrom(server, dnsPort).String())
		}}
	}
	return d
}

func bindTo(fd int, network string, link modem.Link) error {
	err := unix.BindToDevice(fd, link.Interface)
	if !errors.Is(err, unix.EPERM) {
		if err != nil {
			return fmt.Errorf("bind to %s: %w", link.Interface, err)
		}
		return nil
	}
	for _, p := range link.Addresses {
		a := p.Addr()
		switch {
		case a.Is4() && strings.HasSuffix(network, "4"):
			err = unix.Bind(fd, &unix.SockaddrInet4{Addr: a.As4()})
		case a.Is6() && strings.HasSuffix(network, "6") && !a.IsLinkLocalUnicast():
			err = unix.Bind(fd, &unix.SockaddrInet6{Addr: a.As16()})
		default:
			continue
		}
		if err != nil {
			return fmt.Errorf("bind to the address of %s: %w", link.Interface, err)
		}
		return nil
	}
	return fmt.Errorf("bind to %s: %w", link.Interface, err)
}

// Probe asks whether a link carries traffic. The zero value works.
type Probe struct {
	// TLS verifies servers. Nil means that any certificate proves what is
	// asked here, which is whether packets get through: an SM-DP+ has a
	// certificate of another world than a web server.
	TLS *tls.Config
	// OnlyBound takes the zero link, which is the device's usual route, for
	// reached: whether that leads over the modem is not known.
	OnlyBound bool
}

// ProbeError says that a target was not reached.
type ProbeError struct {
	Target    string
	Interface string // empty: the device's usual route
	Err       error
}

// Error names the target, the interface and the reason.
func (e *ProbeError) Error() string {
	over := ""
	if e.Interface != "" {
		over = " over " + e.Interface
	}
	return fmt.Sprintf("probe %s%s: %v", e.Target, over, e.Err)
}

// Unwrap returns the reason.
func (e *ProbeError) Unwrap() error { return e.Err }

// Fault explains it: a malformed target is the configuration's, the rest the
// network's.
func (e *ProbeError) Fault() fault.Fault {
	if errors.Is(e.Err, errTarget) {
		return fault.Fault{Code: "probe-target-malformed", Text: "the probe target " + e.Target + " is malformed", Who: fault.Configuration,
			Next: "write tcp://HOST:PORT, tls://HOST:PORT, https://HOST/PATH, http://HOST/PATH, mqtt://HOST, mqtts://HOST or dns:NAME"}
	}
	return fault.Fault{Code: "probe-failed", Text: "the new connection does not reach " + e.Target, Retry: true, Who: fault.Operator,
		Next: "check the APN and the data allowance with the operator; see that the probe target answers from other networks"}
}

var errTarget = errors.New("no probe target")

// Probe makes one attempt to reach the target over the link, within 20 s:
//
//	tcp://HOST:PORT   a connection is made
//	tls://HOST:PORT   and the server shows a certificate
//	https://HOST/PATH and it answers a request with a status below 500; also http
//	mqtt://HOST:PORT  a broker answers CONNECT, whatever it says (port 1883); mqtts (8883) over TLS
//	dns:NAME          the link's resolvers (or the device's) find addresses; also dns://NAME
//
// A host and port alone is taken as tls. The error is a [*ProbeError].
func (p *Probe) Probe(ctx context.Context, link modem.Link, target string) error {
	if p.OnlyBound && link.IsZero() {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, probeLimit)
	defer cancel()
	if err := p.reach(ctx, link, target); err != nil {
		return &ProbeError{Target: target, Interface: link.Interface, Err: err}
	}
	return nil
}

func (p *Probe) reach(ctx context.Context, link modem.Link, target string) error {
	if name, ok := strings.CutPrefix(target, "dns:"); ok {
		target = "dns://" + strings.TrimPrefix(name, "//")
	} else if !strings.Contains(target, "://") {
		target = "tls://" + target
	}
	u, err := url.Parse(target)
	if err != nil || u.Host == "" {
		return errTarget
	}
	dialer := Dialer(link)
	switch u.Scheme {
	case "tcp", "tls", "mqtt", "mqtts":
		return p.connect(ctx, dialer, u)
	case "http", "https":
		return p.request(ctx, dialer, u)
	case "dns":
		resolver := dialer.Resolver
		if resolver == nil {
			resolver = net.DefaultResolver
		}
		_, err := resolver.LookupNetIP(ctx, "ip", u.Hostname())
		return err
	}
	return errTarget
}

// usualPorts are the ports of schemes that have one.
var usualPorts = map[string]string{"tls": "443", "mqtt": "1883", "mqtts": "8883"}

func (p *Probe) connect(ctx context.Context, dialer *net.Dialer, u *url.URL) (err error) {
	port := cmp.Or(u.Port(), usualPorts[u.Scheme])
	if port == "" {
		return errTarget
	}
	conn, err := dialer.DialContext(ctx, "tcp", net.JoinHostPort(u.Hostname(), port))
	if err != nil {
		return err
	}
	defer func() {
		if cerr := conn.Close(); err == nil {
			err = cerr
		}
	}()
	switch u.Scheme {
	case "tcp":
		return nil
	case "mqtt":
		return meetBroker(ctx, conn)
	}
	secure := tls.Client(conn, p.config(u.Hostname()))
	if err := secure.HandshakeContext(ctx); err != nil || u.Scheme == "tls" {
		return p.judge(err)
	}
	return meetBroker(ctx, secure)
}

// meetBroker says CONNECT to an MQTT broker (version 3.1.1, sections 3.1 and
// 3.2), as a client without name and session. A broker that refuses it has
// answered, too.
func meetBroker(ctx context.Context, conn net.Conn) error {
	if end, ok := ctx.Deadline(); ok {
		if err := conn.SetDeadline(end); err != nil {
			return err
		}
	}
	const clean = 0x02
	if _, err := conn.Write([]byte{0x10, 12, 0, 4, 'M', 'Q', 'T', 'T', 4, clean, 0, 0, 0, 0}); err != nil {
		return err
	}
	var answer [1]byte
	if _, err := conn.Read(answer[:]); err != nil {
		return fmt.Errorf("no answer to MQTT CONNECT: %w", err)
	}
	if answer[0] != 0x20 {
		return fmt.Errorf("answered CONNECT with a packet of type %#x: no MQTT broker", answer[0])
	}
	_, err := conn.Write([]byte{0xE0, 0}) // DISCONNECT
	if errors.Is(err, syscall.EPIPE) || errors.Is(err, syscall.ECONNRESET) {
		return nil // it has refused us, and gone
	}
	return err
}

func (p *Probe) config(host string) *tls.Config {
	c := &tls.Config{}
	if p.TLS != nil {
		c = p.TLS.Clone()
	}
	if c.ServerName == "" {
		c.ServerName = host
	}
	return c
}

// judge takes a certificate that does not verify for an answer, unless the
// caller said how to verify.
func (p *Probe) judge(err error) error {
	var foreign *tls.CertificateVerificationError
	if p.TLS == nil && errors.As(err, &foreign) {
		return nil
	}
	return err
}

func (p *Probe) request(ctx context.Context, dialer *net.Dialer, u *url.URL) (err error) {
	transport := &http.Transport{DialContext: dialer.DialContext, DisableKeepAlives: true, TLSClientConfig: p.config(u.Hostname())}
	defer transport.CloseIdleConnections()
	client := &http.Client{Transport: transport, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		return errTarget
	}
	response, err := client.Do(request)
	if err != nil {
		return p.judge(err)
	}
	defer func() {
		if cerr := response.Body.Close(); err == nil {
			err = cerr
		}
	}()
	if response.StatusCode >= http.StatusInternalServerError {
		return fmt.Errorf("answer %s", response.Status)
	}
	return nil
}
