package agent

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"lpad/agent/rsp"
	"lpad/modem"
)

// identityTimeout bounds asking the modem who it is: an order does not wait
// longer for something that most servers do not look at.
const identityTimeout = 5 * time.Second

// deviceSource says what servers may be told of the device; see
// runner.DeviceSource.
type deviceSource struct {
	send     string // auto, tac-only, off, or the 15 digits to send
	identity func(context.Context) (modem.Identity, error)
	log      *slog.Logger

	mu    sync.Mutex
	known string // the modem's IMEI
}

// Device is the device information for the next session.
func (d *deviceSource) Device(ctx context.Context) rsp.DeviceInfo {
	// No capabilities: no AT command tells the releases that a modem supports,
	// and what is not known is not sent.
	var info rsp.DeviceInfo
	switch d.send {
	case "off":
		return info
	case "auto", "tac-only", "":
	default:
		info.IMEI = d.send
		return info
	}
	imei := d.imei(ctx)
	if len(imei) < 14 {
		return info
	}
	info.TAC = imei[:8]
	if d.send != "tac-only" {
		info.IMEI = imei
	}
	if info.Validate() != nil { // a modem that tells nonsense
		return rsp.DeviceInfo{}
	}
	return info
}

// told is the IMEI as far as it is known and may be told, without asking.
func (d *deviceSource) told() string {
	switch d.send {
	case "off", "tac-only":
		return ""
	case "auto", "":
		d.mu.Lock()
		defer d.mu.Unlock()
		return d.known
	}
	return d.send
}

func (d *deviceSource) imei(ctx context.Context) string {
	if d.identity == nil {
		return ""
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.known != "" {
		return d.known
	}
	ctx, cancel := context.WithTimeout(ctx, identityTimeout)
	defer cancel()
	id, err := d.identity(ctx)
	if err != nil {
		d.log.Info("modem does not tell who it is", "err", err)
		return ""
	}
	d.known = id.IMEI
	return d.known
}
