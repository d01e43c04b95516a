package relay

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"syscall"
	"time"
)

// dialTimeout bounds looking a name up and connecting, on the laptop: less than
// the device waits, so that it hears why.
const dialTimeout = 10 * time.Second

// port is where eSIM servers are.
const port = "443"

// ErrRules says that the rules of the laptop do not allow an address.
var ErrRules = errors.New("not allowed by the rules of this relay")

// Rules say where a laptop connects to for a device, which may be anybody's: not
// into the laptop's own networks. The zero value allows port 443 of servers with
// a name and a public address.
type Rules struct {
	allow []string // "host:port" in lower case; empty: as above
}

// NewRules allows the servers of a list, "host" or "host:port", wherever they
// are, and no other; an empty list is the zero value.
func NewRules(allow []string) (Rules, error) {
	var r Rules
	for _, text := range allow {
		address := text
		if _, _, err := ParseAddress(address); err != nil {
			address = net.JoinHostPort(strings.Trim(text, "[]"), port)
		}
		if _, _, err := ParseAddress(address); err != nil {
			return r, fmt.Errorf("%q: %w", text, err)
		}
		r.allow = append(r.allow, strings.ToLower(address))
	}
	return r, nil
}

// Dial connects to an address, if it is allowed; it is what a [Carrier] needs.
func (r Rules) Dial(ctx context.Context, address string) (net.Conn, error) {
	d := net.Dialer{Timeout: dialTimeout}
	host, number, err := ParseAddress(address)
	if err != nil {
		return nil, errors.Join(ErrRules, err)
	}
	if len(r.allow) == 0 {
		if _, err := netip.ParseAddr(host); err == nil || number != port {
			return nil, fmt.Errorf("%w: %s is not port %s of a server with a name; --allow %[2]s allows it", ErrRules, address, port)
		}
		// Looked at when the name has been looked up, so that no name server can
		// lead into the laptop's networks.
		d.Control = func(_, found string, _ syscall.RawConn) error {
			to, err := netip.ParseAddrPort(found)
			if err != nil || !public(to.Addr()) {
				return fmt.Errorf("%w: %s is %s, which is not a public address; --allow %[2]s allows it", ErrRules, host, found)
			}
			return nil
		}
	} else if !r.lists(address) {
		return nil, fmt.Errorf("%w: %s is none of those that --allow names", ErrRules, address)
	}
	return d.DialContext(ctx, "tcp", address)
}

func (r Rules) lists(address string) bool {
	for _, a := range r.allow {
		if strings.EqualFold(a, address) {
			return true
		}
	}
	return false
}

// public reports whether an address is one of the internet.
func public(ip netip.Addr) bool {
	ip = ip.Unmap()
	if b := ip.As16(); ip.Is6() && [12]byte(b[:12]) == [12]byte{0, 0x64, 0xff, 0x9b} { // RFC 6052: of a network without IPv4
		return public(netip.AddrFrom4([4]byte(b[12:])))
	}
	for _, inner := range []string{
		"0.0.0.0/8", "100.64.0.0/10", "192.0.0.0/24", "198.18.0.0/15", "240.0.0.0/4", // RFC 6890: a provider's inside, tests, nobody's
		"64:ff9b:1::/48", "2002::/16", // RFC 8215, RFC 3056: they lead to IPv4 addresses of any kind
	} {
		if netip.MustParsePrefix(inner).Contains(ip) {
			return false
		}
	}
	return ip.IsGlobalUnicast() && !ip.IsPrivate()
}
