package mm

import (
	"context"
	"errors"
	"fmt"

	"github.com/godbus/dbus/v5"

	"lpad/internal/systembus"
	"lpad/modem"
)

// ifaceSimple is how a bearer is brought up with one call.
const ifaceSimple = ifaceModem + ".Simple"

// Connect has ModemManager bring a bearer with this access point up: it enables
// the modem and registers it first, if that is necessary, which may take two
// minutes. What the network refuses is a [systembus.Error] with the cause in its
// name ("…Error.MobileEquipment.ServiceOptionNotSubscribed").
func (c *Client) Connect(ctx context.Context, m Modem, a modem.APN) (Bearer, error) {
	p := bearerProperties(a)
	if a.AllowRoaming != nil {
		p["allow-roaming"] = *a.AllowRoaming
	}
	var path dbus.ObjectPath
	if err := c.bus.Call(ctx, Service, m.Path, ifaceSimple+".Connect", variants(p)).Store(&path); err != nil {
		return Bearer{}, fmt.Errorf("connect: %w", notThere(err))
	}
	bp, err := c.bus.Properties(ctx, Service, path, ifaceBearer)
	if err != nil {
		return Bearer{}, fmt.Errorf("read the bearer: %w", err)
	}
	return parseBearer(path, bp), nil
}

// Disconnect brings all bearers of the modem down. A modem that has gone has
// none.
func (c *Client) Disconnect(ctx context.Context, m Modem) error {
	err := c.bus.Call(ctx, Service, m.Path, ifaceSimple+".Disconnect", dbus.ObjectPath("/")).Err()
	if err != nil && !errors.Is(err, systembus.ErrGone) {
		return fmt.Errorf("disconnect: %w", err)
	}
	return nil
}
