package mm

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"

	"github.com/godbus/dbus/v5"

	"lpad/internal/systembus"
	"lpad/modem"
)

// Bearer is one packet data connection of a modem.
type Bearer struct {
	Path      dbus.ObjectPath
	Connected bool
	APN       modem.APN
	// Link is how to use it. Without addresses (DHCP, PPP) they are got by
	// whoever brings the interface up.
	Link   modem.Link
	Method string // "static", "dhcp", "ppp"; empty if unknown
	// Failure is why the last attempt to connect it failed, since ModemManager
	// 1.18: the last part of the D-Bus error name ("ServiceOptionNotSubscribed"),
	// and FailureText the words to it. Both are empty if it did not.
	Failure, FailureText string
}

var ipMethods = []string{"", "ppp", "static", "dhcp"}

// Bearers lists the modem's bearers.
func (c *Client) Bearers(ctx context.Context, m Modem) ([]Bearer, error) {
	var out []Bearer
	for _, path := range m.Bearers {
		p, err := c.bus.Properties(ctx, Service, path, ifaceBearer)
		if errors.Is(err, systembus.ErrGone) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("read a bearer: %w", err)
		}
		out = append(out, parseBearer(path, p))
	}
	return out, nil
}

func parseBearer(path dbus.ObjectPath, p systembus.Properties) Bearer {
	b := Bearer{Path: path, Connected: p.Bool("Connected"), Link: modem.Link{Interface: p.String("Interface")}}
	if settings, ok := p["Properties"].Value().(map[string]dbus.Variant); ok {
		b.APN = apnOf(settings)
	}
	if failure, ok := p["ConnectionError"].Value().([]any); ok && len(failure) == 2 {
		name, _ := failure[0].(string)
		b.Failure = name[strings.LastIndexByte(name, '.')+1:]
		b.FailureText, _ = failure[1].(string)
	}
	for _, family := range []string{"Ip4Config", "Ip6Config"} {
		config, ok := p[family].Value().(map[string]dbus.Variant)
		if !ok {
			continue
		}
		ip := systembus.Properties(config)
		if n := ip.Int("method"); b.Method == "" && n > 0 && int(n) < len(ipMethods) {
			b.Method = ipMethods[n]
		}
		if a, err := netip.ParseAddr(ip.String("address")); err == nil {
			if prefix, err := a.Prefix(int(ip.Int("prefix"))); err == nil {
				b.Link.Addresses = append(b.Link.Addresses, netip.PrefixFrom(a, prefix.Bits()))
			}
		}
		for _, key := range []string{"dns1", "dns2", "dns3"} {
			if a, err := netip.ParseAddr(ip.String(key)); err == nil {
				b.Link.DNS = append(b.Link.DNS, a)
			}
		}
	}
	return b
}
