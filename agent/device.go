package agent

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"lpad/agent/rsp"
	"lpad/agent/runner"
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
	met      func() (imei string, open bool) // see [Parts.Met]
	log      *slog.Logger

	mu    sync.Mutex
	known modem.Identity // zero: the modem was not heard yet
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
	imei := d.ask(ctx).IMEI
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

// told is what receivers of reports may know of the device, as far as the modem
// was heard, without asking it.
func (d *deviceSource) told() runner.About {
	if d.send == "off" {
		return runner.About{}
	}
	id := d.heard()
	switch d.send {
	case "auto", "tac-only", "":
	default:
		id.IMEI = d.send
	}
	a := runner.About{IMEI: id.IMEI, Model: id.Model, Firmware: id.Revision}
	if len(id.IMEI) >= 14 {
		a.TAC = id.IMEI[:8]
	}
	if d.send == "tac-only" {
		a.IMEI = ""
	}
	return a
}

// heard is who the modem has said it is, without asking. It may have been
// another one.
func (d *deviceSource) heard() modem.Identity {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.known
}

// present is who the modem is that is there now; zero when it has to be asked.
func (d *deviceSource) present() (id modem.Identity) {
	d.mu.Lock()
	if d.stillThere() {
		id = d.known
	}
	d.mu.Unlock()
	return id
}

// stillThere reports whether the modem that was asked is there now. Under d.mu.
func (d *deviceSource) stillThere() bool {
	if d.met == nil {
		return true
	}
	imei, open := d.met()
	return open && imei == d.known.IMEI
}

// ask has the modem say who it is, once, and again when it may be another one. It
// belongs to the card's goroutine: card and modem may share a port.
func (d *deviceSource) ask(ctx context.Context) modem.Identity {
	if d.identity == nil {
		return modem.Identity{}
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.known.IMEI != "" && d.stillThere() {
		return d.known
	}
	ctx, cancel := context.WithTimeout(ctx, identityTimeout)
	defer cancel()
	id, err := d.identity(ctx)
	if err != nil {
		d.log.Info("modem does not tell who it is", "err", err)
		return modem.Identity{}
	}
	d.known = id
	return d.known
}
