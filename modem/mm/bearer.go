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
	Link     modem.Link
	Gateways []netip.Addr // the network's end, as far as it tells
	MTU      int          // bytes; 0 if unknown
	Method   string       // "static", "dhcp", "ppp"; empty if unknown
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
		if a, err := netip.ParseAddr(ip.String("gateway")); err == nil {
			b.Gateways = append(b.Gateways, a)
		}
		b.MTU = max(b.MTU, int(ip.Int("mtu")))
		for _, key := range []string{"dns1", "dns2", "dns3"} {
			if a, err := netip.ParseAddr(ip.String(key)); err == nil {
				b.Link.DNS = append(b.Link.DNS, a)
			}
		}
	}
	return b
}

// Failure is why ModemManager's last attempt to connect a bearer failed.
type Failure struct {
	Name string // last part of the D-Bus error name: "ServiceOptionNotSubscribed"
	Text string // the words to it
}

// Failure looks for a bearer with this access point that failed to connect,
// in Bearer.ConnectionError (ModemManager 1.18); the zero value if there is none.
func (c *Client) Failure(ctx context.Context, m Modem, apn string) (Failure, error) {
	for _, path := range m.Bearers {
		p, err := c.bus.Properties(ctx, Service, path, ifaceBearer)
		if errors.Is(err, systembus.ErrGone) {
			continue
		}
		if err != nil {
			return Failure{}, fmt.Errorf("read a bearer: %w", err)
		}
		settings, ok := p["Properties"].Value().(map[string]dbus.Variant)
		said, ok2 := p["ConnectionError"].Value().([]any)
		if !ok || !ok2 || len(said) != 2 || systembus.Properties(settings).String("apn") != apn {
			continue
		}
		name, _ := said[0].(string)
		text, _ := said[1].(string)
		if name != "" {
			return Failure{name[strings.LastIndexByte(name, '.')+1:], text}, nil
		}
	}
	return Failure{}, nil
}
