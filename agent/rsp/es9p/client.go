package es9p

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"time"

	"lpad/agent/rsp"
	"lpad/internal/fault"
)

// What a request says about its sender unless the [Client] says otherwise.
const (
	DefaultUserAgent = "gsma-rsp-lpad"      // some servers are said to refuse any other
	DefaultProtocol  = "gsma/rsp/v2.2.2"    // X-Admin-Protocol: the version that every live server knows
	port             = "443"                // the specification knows no other
	path             = "/gsma/rsp2/es9plus" // ES11 uses the same
)

// Timeouts bounds each part of a call. A zero member has its default.
type Timeouts struct {
	Dial                time.Duration // name look-up and TCP connection; default 15 s
	Handshake           time.Duration // TLS; default 20 s
	BoundProfilePackage time.Duration // the whole getBoundProfilePackage, in which the server may build the package; default 60 s
	Other               time.Duration // any other whole call; default 30 s
}

// TimeoutsFor scales the defaults so that a plain call may take d: a device
// on a slow network, or a test, changes them all by one number. 0 is the
// defaults.
func TimeoutsFor(d time.Duration) Timeouts {
	scale := func(part time.Duration) time.Duration {
		return time.Duration(float64(part) * d.Seconds() / defaultOther.Seconds())
	}
	return Timeouts{Dial: scale(defaultDial), Handshake: scale(defaultHandshake), BoundProfilePackage: scale(defaultBoundProfilePackage), Other: scale(defaultOther)}
}

// Limits bounds the body of an answer, in bytes. A zero member has its default.
type Limits struct {
	BoundProfilePackage int64 // default 8 MiB: base64 of a profile with applets, far beyond what a card can hold
	Other               int64 // default 256 KiB: certificates and metadata with an icon
}

// Defaults of [Timeouts] and [Limits].
const (
	defaultDial                = 15 * time.Second
	defaultHandshake           = 20 * time.Second
	defaultBoundProfilePackage = 60 * time.Second
	defaultOther               = 30 * time.Second

	defaultBoundProfilePackageSize = 8 << 20
	defaultOtherSize               = 256 << 10
)

// DialFunc connects to an address "host:port", as net.Dialer.DialContext does.
type DialFunc func(ctx context.Context, network, address string) (net.Conn, error)

// Client opens sessions with SM-DP+ and SM-DS. The zero value works and trusts
// the production GSMA CIs. Its fields are read by [Client.Open] and must not
// change while sessions are being opened; a Client is then safe for concurrent
// use.
type Client struct {
	Trust     *Trust // nil: the production GSMA CIs and nothing else
	UserAgent string // empty: DefaultUserAgent
	Protocol  string // of X-Admin-Protocol; empty: DefaultProtocol

	// Dial replaces the dialer of this package, and with it Interface and
	// Resolver. It is given "host:443".
	Dial DialFunc
	// Addresses sends a host, in lower case, to another "ip:port" or
	// "host:port", for a test setup. The name in requests, SNI and the
	// certificate stays the host.
	Addresses map[string]string
	// Interface binds connections and name look-ups to this network interface
	// (SO_BINDTODEVICE): "wwan0". Empty: the routing table decides.
	Interface string
	Resolver  *net.Resolver // nil: the system's name servers

	// Transport takes requests to their servers in another way than by a TLS
	// connection of this package, which then judges no certificate and measures no
	// time: whoever takes them does. nil: there is none.
	Transport http.RoundTripper

	Now      func() time.Time // nil: time.Now; judges certificates
	Timeouts Timeouts
	Limits   Limits
	Log      *slog.Logger // one debug line per call; nil: none
}

// Option changes one session.
type Option func(*Session)

// OnlyCIs accepts a server under a built-in CI only if the CI's subject key
// identifier is among skis: those that the eUICC lists for verification
// (EUICCInfo1, tag A9), 20 bytes each or with their header 0414. Anchors that
// an OEM put into the folder of trust stay accepted. An empty list restricts
// nothing.
func OnlyCIs(skis ...[]byte) Option {
	return func(s *Session) {
		for _, ski := range skis {
			if len(ski) == 22 {
				ski = bytes.TrimPrefix(ski, []byte{0x04, 0x14})
			}
			s.onlyCIs = append(s.onlyCIs, ski)
		}
	}
}

// Session is one RSP session with one server, over one TLS connection that is
// opened by the first call and kept alive. If the server closes it between two
// calls, the next call opens another. A Session is for one goroutine; Close
// may be called from any.
type Session struct {
	address string // as the request says it: of the activation code, without spaces and trailing dot
	host    string // the same in lower case: name look-up, SNI, certificate
	client  Client // a copy with the defaults filled in
	onlyCIs [][]byte

	transport *http.Transport
	closed    context.Context // done after Close
	close     context.CancelFunc
	dials     atomic.Int32

	transactionID string // as the server spelled it
}

// Open prepares a session with the server at address, the bare domain name of
// an activation code, a notification or the card; nothing is sent yet. White
// space in it and a trailing dot are taken away: both are found in the field.
// A scheme, port, path or IP address is an [*AddressError]. The caller closes
// the session.
func (c *Client) Open(address string, options ...Option) (*Session, error) {
	bare := bareAddress(address)
	if err := rsp.CheckAddress(bare); err != nil {
		return nil, &AddressError{Address: address}
	}
	s := &Session{address: bare, host: strings.ToLower(bare), client: *c}
	if err := s.client.fill(); err != nil {
		return nil, err
	}
	for _, o := range options {
		o(s)
	}
	s.closed, s.close = context.WithCancel(context.Background())
	s.transport = s.newTransport()
	return s, nil
}

// fill puts the defaults in.
func (c *Client) fill() error {
	if c.Trust == nil {
		t, err := NewTrust(TrustConfig{})
		if err != nil {
			return err
		}
		c.Trust = t
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	if c.Dial == nil {
		c.Dial = newDialer(c.Interface, c.Resolver).DialContext
	}
	c.UserAgent = cmp.Or(c.UserAgent, DefaultUserAgent)
	c.Protocol = cmp.Or(c.Protocol, DefaultProtocol)
	c.Timeouts = Timeouts{
		Dial:                cmp.Or(c.Timeouts.Dial, defaultDial),
		Handshake:           cmp.Or(c.Timeouts.Handshake, defaultHandshake),
		BoundProfilePackage: cmp.Or(c.Timeouts.BoundProfilePackage, defaultBoundProfilePackage),
		Other:               cmp.Or(c.Timeouts.Other, defaultOther),
	}
	c.Limits = Limits{
		BoundProfilePackage: cmp.Or(c.Limits.BoundProfilePackage, defaultBoundProfilePackageSize),
		Other:               cmp.Or(c.Limits.Other, defaultOtherSize),
	}
	return nil
}

// Address is the server's name as requests say it (smdpAddress). What the
// server signs as its serverAddress must be equal to it, ignoring case.
func (s *Session) Address() string { return s.address }

// Connections is the number of TLS connections that the session has tried to
// open so far.
func (s *Session) Connections() int { return int(s.dials.Load()) }

// Close ends the connection, also under a call that is still running.
func (s *Session) Close() error {
	s.close()
	s.transport.CloseIdleConnections()
	return nil
}

// AddressError says that an address is not the bare domain name of a server.
type AddressError struct{ Address string }

// Error implements error.
func (e *AddressError) Error() string {
	return fmt.Sprintf("server address %q is not the bare domain name of a server", rsp.CutText(rsp.DisplayText(e.Address), maxText))
}

// Fault implements fault.Explainer.
func (e *AddressError) Fault() fault.Fault {
	return fault.Fault{Code: "server-address-invalid", Text: e.Error(), Who: fault.Technician,
		Next: "give the name alone, such as smdp.example.com: no https://, port, path or IP address"}
}
