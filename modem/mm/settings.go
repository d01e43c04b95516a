package mm

import (
	"context"
	"errors"
	"fmt"

	"github.com/godbus/dbus/v5"

	"lpad/internal/redact"
	"lpad/internal/systembus"
	"lpad/modem"
)

func variants(p map[string]any) map[string]dbus.Variant {
	out := make(map[string]dbus.Variant, len(p))
	for k, v := range p {
		out[k] = dbus.MakeVariant(v)
	}
	return out
}

// Enable brings the modem up or, with false, down. Down and up again makes
// ModemManager read the SIM anew in any plugin, after which the modem has
// another object; the call may end with [systembus.ErrGone] then.
func (c *Client) Enable(ctx context.Context, m Modem, on bool) error {
	if err := c.bus.Call(ctx, Service, m.Path, ifaceModem+".Enable", on).Err(); err != nil {
		return fmt.Errorf("enable the modem (%v): %w", on, err)
	}
	return nil
}

// Reset resets the modem, where ModemManager's plugin for it knows how
// ([systembus.ErrUnsupported] else). The modem goes away and comes back with
// another object, after half a minute or more on USB.
func (c *Client) Reset(ctx context.Context, m Modem) error {
	if err := c.bus.Call(ctx, Service, m.Path, ifaceModem+".Reset").Err(); err != nil {
		return fmt.Errorf("reset the modem: %w", err)
	}
	return nil
}

// bearerProperties are an APN in ModemManager's dictionary.
func bearerProperties(a modem.APN) map[string]any {
	p := map[string]any{"apn": a.Name}
	switch a.Type {
	case modem.IPv4:
		p["ip-type"] = uint32(ipTypeIPv4)
	case modem.IPv6:
		p["ip-type"] = uint32(ipTypeIPv6)
	case modem.IPv4v6:
		p["ip-type"] = uint32(ipTypeIPv4v6)
	}
	switch a.AuthMethod() {
	case modem.AuthPAP:
		p["allowed-auth"] = uint32(authPAP)
	case modem.AuthCHAP:
		p["allowed-auth"] = uint32(authCHAP)
	case modem.AuthPAPOrCHAP:
		p["allowed-auth"] = uint32(authPAP | authCHAP)
	case modem.AuthNone:
		p["allowed-auth"] = uint32(authNone)
	}
	if a.User != "" {
		p["user"] = a.User
	}
	if !a.Password.IsZero() {
		p["password"] = a.Password.Reveal()
	}
	return p
}

// SetInitialEPSBearer writes the settings with which the modem attaches to an
// LTE network. Many modems do not support that in ModemManager 1.20:
// [systembus.ErrUnsupported].
func (c *Client) SetInitialEPSBearer(ctx context.Context, m Modem, a modem.APN) error {
	if err := c.bus.Call(ctx, Service, m.Path, iface3GPP+".SetInitialEpsBearerSettings", variants(bearerProperties(a))).Err(); err != nil {
		return fmt.Errorf("set the initial bearer: %w", notThere(err))
	}
	return nil
}

// InitialEPSBearer reads those settings; ok is false if ModemManager has none.
func (c *Client) InitialEPSBearer(ctx context.Context, m Modem) (a modem.APN, ok bool, err error) {
	p, err := c.bus.Properties(ctx, Service, m.Path, iface3GPP)
	if err != nil {
		return modem.APN{}, false, fmt.Errorf("read the initial bearer: %w", err)
	}
	settings, ok := p["InitialEpsBearerSettings"].Value().(map[string]dbus.Variant)
	if !ok || len(settings) == 0 {
		return modem.APN{}, false, nil
	}
	return apnOf(settings), true, nil
}

// Profiles lists the modem's packet data contexts (+CGDCONT over AT).
// [systembus.ErrUnsupported] if the modem or ModemManager cannot.
func (c *Client) Profiles(ctx context.Context, m Modem) ([]modem.Context, error) {
	var raw []map[string]dbus.Variant
	if err := c.bus.Call(ctx, Service, m.Path, ifaceProfiles+".List").Store(&raw); err != nil {
		return nil, fmt.Errorf("list the modem's contexts: %w", notThere(err))
	}
	var out []modem.Context
	for _, p := range raw {
		out = append(out, modem.Context{CID: int(systembus.Properties(p).Int("profile-id")), APN: apnOf(p)})
	}
	return out, nil
}

// SetProfile writes one of the modem's contexts and says which; with cid 0
// ModemManager takes a free one. Over AT, ModemManager drops user name and
// password silently. [systembus.ErrUnsupported] if the modem or ModemManager
// cannot.
func (c *Client) SetProfile(ctx context.Context, m Modem, cid int, a modem.APN) (int, error) {
	p := bearerProperties(a)
	if cid > 0 {
		p["profile-id"] = int32(cid)
	}
	var stored map[string]dbus.Variant
	if err := c.bus.Call(ctx, Service, m.Path, ifaceProfiles+".Set", variants(p)).Store(&stored); err != nil {
		return 0, fmt.Errorf("set context %d: %w", cid, notThere(err))
	}
	return int(systembus.Properties(stored).Int("profile-id")), nil
}

// DeleteProfile takes one of the modem's contexts off its list.
func (c *Client) DeleteProfile(ctx context.Context, m Modem, cid int) error {
	return notThere(c.bus.Call(ctx, Service, m.Path, ifaceProfiles+".Delete", variants(map[string]any{"profile-id": int32(cid)})).Err())
}

// notThere turns "no such interface" into "not supported": the modem was there
// a moment ago, but its plugin lacks the function.
func notThere(err error) error {
	var e *systembus.Error
	if errors.As(err, &e) && errors.Is(err, systembus.ErrGone) {
		return e.OfKind(systembus.ErrUnsupported)
	}
	return err
}

func apnOf(p systembus.Properties) modem.APN {
	a := modem.APN{Name: p.String("apn"), User: p.String("user")}
	if allow, ok := p["allow-roaming"].Value().(bool); ok {
		a.AllowRoaming = &allow
	}
	switch p.Int("ip-type") {
	case ipTypeIPv4:
		a.Type = modem.IPv4
	case ipTypeIPv6:
		a.Type = modem.IPv6
	case ipTypeIPv4v6:
		a.Type = modem.IPv4v6
	}
	if s := p.String("password"); s != "" {
		a.Password = redact.NewSecret(s)
	}
	switch p.Int("allowed-auth") {
	case authPAP:
		a.Auth = modem.AuthPAP
	case authCHAP:
		a.Auth = modem.AuthCHAP
	case authPAP | authCHAP:
		a.Auth = modem.AuthPAPOrCHAP
	case authNone:
		a.Auth = modem.AuthNone
	}
	return a
}
