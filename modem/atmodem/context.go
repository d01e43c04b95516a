package atmodem

import (
	"context"
	"fmt"
	"net/netip"
	"strconv"
	"strings"

	"lpad/modem/at"
)

// Parameters are what the network has given a context.
type Parameters struct {
	Addresses []netip.Prefix // of one address if the modem does not tell the mask
	Gateways  []netip.Addr
	DNS       []netip.Addr
}

// Activate brings a context up (+CGACT), unless it is, and reads what the
// network gave it (+CGCONTRDP, else +CGPADDR). Many modems whose interface is a
// network card need it; one that brings its context up by itself or with the
// data call may refuse it, which is [at.Refused]. It may take two and a half
// minutes (3GPP TS 27.007, section 10.1.10).
func (m *Modem) Activate(ctx context.Context, cid int) (Parameters, error) {
	ctx, cancel := context.WithTimeout(ctx, attachTime)
	defer cancel()
	var refused error
	if up, err := m.Active(ctx, cid); err != nil || !up {
		if _, err := m.conn.Command(ctx, fmt.Sprintf("AT+CGACT=1,%d", cid)); err != nil {
			if !at.Refused(err) {
				return Parameters{}, fmt.Errorf("activate context %d: %w", cid, err)
			}
			refused = err
		}
	}
	p := m.parameters(ctx, cid)
	if refused != nil && len(p.Addresses) == 0 {
		return p, fmt.Errorf("activate context %d: %w", cid, refused)
	}
	return p, nil
}

// Active reports whether a context is up.
func (m *Modem) Active(ctx context.Context, cid int) (bool, error) {
	lines, err := m.ask(ctx, "AT+CGACT?", "+CGACT")
	if err != nil {
		return false, fmt.Errorf("read active contexts: %w", err)
	}
	for _, line := range lines {
		if f := fields(line); field(f, 0) == strconv.Itoa(cid) {
			return field(f, 1) == "1", nil
		}
	}
	return false, nil
}

// parameters asks in both ways; that a modem knows neither is no error.
func (m *Modem) parameters(ctx context.Context, cid int) Parameters {
	var p Parameters
	lines, err := m.ask(ctx, fmt.Sprintf("AT+CGCONTRDP=%d", cid), "+CGCONTRDP")
	if err == nil {
		p = parseParameters(lines, cid)
	}
	if len(p.Addresses) > 0 {
		return p
	}
	if lines, err = m.ask(ctx, fmt.Sprintf("AT+CGPADDR=%d", cid), "+CGPADDR"); err == nil {
		p.Addresses = parseAddresses(lines, cid)
	}
	return p
}

// parseParameters reads +CGCONTRDP: <cid>,<bearer>,<apn>,<address and mask>,
// <gateway>,<DNS>,<DNS>… (TS 27.007, section 10.1.23), one line for each IP
// version. What is unreadable is left away.
func parseParameters(lines []string, cid int) Parameters {
	const address, gateway, dns, dnsEnd = 3, 4, 5, 7
	var p Parameters
	for _, line := range lines {
		f := fields(line)
		if field(f, 0) != strconv.Itoa(cid) {
			continue
		}
		if a, ok := parseMasked(field(f, address)); ok {
			p.Addresses = append(p.Addresses, a)
		}
		if a, ok := parseAddress(field(f, gateway)); ok {
			p.Gateways = append(p.Gateways, a)
		}
		for i := dns; i < dnsEnd; i++ {
			if a, ok := parseAddress(field(f, i)); ok {
				p.DNS = append(p.DNS, a)
			}
		}
	}
	return p
}

// parseAddresses reads +CGPADDR: <cid>,<address>[,<address>] (section 10.1.14).
func parseAddresses(lines []string, cid int) []netip.Prefix {
	var out []netip.Prefix
	for _, line := range lines {
		f := fields(line)
		if field(f, 0) != strconv.Itoa(cid) {
			continue
		}
		for _, text := range f[1:] {
			if a, ok := parseAddress(text); ok {
				out = append(out, netip.PrefixFrom(a, a.BitLen()))
			}
		}
	}
	return out
}

// parseMasked reads an address that is followed by its mask, all in decimal
// bytes: 8 numbers for IPv4, 32 for IPv6; also an address without one.
func parseMasked(s string) (netip.Prefix, bool) {
	b, ok := dotted(s)
	if !ok || len(b) != 8 && len(b) != 32 {
		a, ok := parseAddress(s)
		return netip.PrefixFrom(a, a.BitLen()), ok
	}
	half := len(b) / 2
	a, _ := netip.AddrFromSlice(b[:half])
	bits := 0
	for _, x := range b[half:] {
		for ; x&0x80 != 0; x <<= 1 {
			bits++
		}
		if x != 0 {
			return netip.Prefix{}, false // no mask
		}
	}
	return netip.PrefixFrom(a, bits), !a.IsUnspecified()
}

// parseAddress reads an address in the usual form, or one of 16 decimal bytes.
func parseAddress(s string) (netip.Addr, bool) {
	a, err := netip.ParseAddr(strings.TrimSpace(s))
	if err != nil {
		b, ok := dotted(s)
		if !ok || len(b) != 16 {
			return netip.Addr{}, false
		}
		a, _ = netip.AddrFromSlice(b)
	}
	a = a.WithZone("")
	return a, !a.IsUnspecified()
}

func dotted(s string) ([]byte, bool) {
	parts := strings.Split(s, ".")
	if len(parts) > 32 {
		return nil, false
	}
	out := make([]byte, len(parts))
	for i, p := range parts {
		n, err := strconv.ParseUint(p, 10, 8)
		if err != nil {
			return nil, false
		}
		out[i] = byte(n)
	}
	return out, true
}
