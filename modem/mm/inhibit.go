package mm

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"lpad/internal/systembus"
)

// Inhibition holds a modem aside: ModemManager has disconnected and disabled
// it, closed its ports and taken its object from the bus, and does not touch
// it. ModemManager ends the inhibition by itself when our connection to the
// bus ends, so also when lpad dies.
type Inhibition struct {
	client *Client
	device string
	mu     sync.Mutex
	on     *systembus.Connection // nil: released
	by     string                // which ModemManager holds it
}

// Inhibit takes the modem away from ModemManager. ModemManager refuses that
// for a modem which it does not show (yet), so Inhibit waits for it, as long as
// ctx allows. The stock bus policy allows it to root only.
func (c *Client) Inhibit(ctx context.Context, device string) (*Inhibition, error) {
	h := &Inhibition{client: c, device: device}
	err := c.bus.Wait(ctx, []systembus.Service{Service}, func(ctx context.Context) (bool, error) {
		conn, err := c.bus.Connection(ctx)
		if err != nil {
			return false, err
		}
		owner, err := c.bus.Owner(ctx, Service)
		if err != nil {
			return !systembus.Transient(err), err
		}
		err = conn.Call(ctx, Service, root, iface+".InhibitDevice", device, true).Err()
		if err != nil {
			// "Modem not exported in the bus" comes as plain Failed, while it is probed.
			return !systembus.Transient(err) && !errors.Is(err, systembus.ErrRefused), err
		}
		h.on, h.by = conn, owner
		return true, nil
	})
	if err != nil {
		return nil, fmt.Errorf("hold the modem: %w", err)
	}
	return h, nil
}

// Device is what the held modem is known by.
func (h *Inhibition) Device() string { return h.device }

// Held reports whether the modem is still held: not released, our connection
// stands, and ModemManager has not been restarted since, which forgets it.
func (h *Inhibition) Held(ctx context.Context) (bool, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.on == nil || !h.on.Alive() {
		return false, nil
	}
	owner, err := h.client.bus.Owner(ctx, Service)
	switch {
	case systembus.Transient(err):
		return false, nil
	case err != nil:
		return false, err
	}
	return owner == h.by, nil
}

// Release gives the modem back to ModemManager, which probes it anew: wait
// for it with [Client.WaitSIM]. Releasing twice, or what ModemManager has
// released or forgotten by itself, is no error.
func (h *Inhibition) Release(ctx context.Context) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.on == nil {
		return nil
	}
	if h.on.Alive() {
		err := h.on.Call(ctx, Service, root, iface+".InhibitDevice", h.device, false).Err()
		if err != nil && !systembus.Transient(err) && !errors.Is(err, systembus.ErrRefused) {
			return fmt.Errorf("give the modem back: %w", err)
		}
	}
	h.on = nil
	return nil
}
