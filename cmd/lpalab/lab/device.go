package lab

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"lpad/apdu/apdutest"
	"lpad/apdu/pcsc"
	"lpad/modem/modemtest"
)

// DeviceOptions shape a device.
type DeviceOptions struct {
	Programs string // folder with lpad, lpactl, lpad-pcsc; "": beside the running program
	Config   string // further YAML for lpad
	Shared   bool   // one AT port for ModemManager and lpad
	Modem    func(*modemtest.Config)
	Stack    func(*modemtest.StackConfig)
}

// Device is lpad on a device with a modem.
type Device struct {
	*Daemon
	Stack *modemtest.Stack
	dir   string
}

// StartDevice starts the device: modem, bus, ModemManager, NetworkManager with
// the old operator's connection up, the SM-DP+ behind the modem, lpad.
func (w *World) StartDevice(ctx context.Context, o DeviceOptions) (_ *Device, err error) {
	programs, err := FindPrograms(o.Programs)
	if err != nil {
		return nil, err
	}
	d := &Device{}
	if d.dir, err = os.MkdirTemp("", "lpad-lab-"); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, d.Close())
		}
	}()
	sc := modemtest.StackConfig{
		Modem: modemtest.Config{Card: w.Card, Subscriptions: []modemtest.Subscription{OldOperator.Subscription(), NewOperator.Subscription()},
			Contexts: []modemtest.Context{{CID: 1, Type: "IP", APN: OldOperator.APN}}, StrictAttach: true},
		Dir:            filepath.Join(d.dir, "stack"),
		Hosts:          []string{Host},
		Connections:    []modemtest.Connection{{ID: "altnetz", APN: OldOperator.APN}},
		ShareAgentPort: o.Shared,
	}
	if o.Modem != nil {
		o.Modem(&sc.Modem)
	}
	if o.Stack != nil {
		o.Stack(&sc)
	}
	if err := os.Mkdir(sc.Dir, 0o755); err != nil {
		return nil, err
	}
	if d.Stack, err = modemtest.StartStack(ctx, sc); err != nil {
		return nil, err
	}
	l, err := d.Stack.Listen("tcp", modemtest.ServerAddr.String()+":443")
	if err != nil {
		return nil, err
	}
	w.Serve(l)
	if iccid, ok := w.Card.EnabledICCID(); ok && iccid == mustICCID(OldOperator.ICCID) {
		if err := d.Stack.WaitConnected(ctx, "altnetz"); err != nil {
			return nil, err
		}
	}
	trust := filepath.Join(d.dir, "trust.d")
	if err := w.writeTrust(trust); err != nil {
		return nil, err
	}
	inhibit := "auto"
	if o.Shared {
		inhibit = "always"
	}
	yaml := fmt.Sprintf(`card: {backend: at, at_port: %s}
modem: {inhibit: %s}
rsp: {trust_dir: %s, notification_retry: 1s}
network: {dead_man: 60s}
log: {level: debug}
`, d.Stack.AgentPort(), inhibit, trust)
	d.Daemon, err = StartDaemon(ctx, d.dir, programs, yaml, o.Config, d.Stack.Command)
	return d, err
}

// Close stops everything and removes the files.
func (d *Device) Close() error {
	var errs []error
	if d.Daemon != nil && d.Daemon.cmd != nil {
		errs = append(errs, d.Daemon.Stop())
	}
	if d.Stack != nil {
		errs = append(errs, d.Stack.Close())
	}
	return errors.Join(append(errs, os.RemoveAll(d.dir))...)
}

// Reader is lpad on a machine with a PC/SC reader.
type Reader struct {
	*Daemon
	PCSCD *modemtest.PCSCD
	dir   string
	stop  context.CancelFunc
	card  chan struct{}
}

// StartReader starts pcscd with the world's card in its virtual reader, the
// SM-DP+ on the loopback interface, and lpad.
func (w *World) StartReader(ctx context.Context, programs, config string) (_ *Reader, err error) {
	if programs, err = FindPrograms(programs); err != nil {
		return nil, err
	}
	r := &Reader{}
	if r.dir, err = os.MkdirTemp("", "lpad-lab-"); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, r.Close())
		}
	}()
	if r.PCSCD, err = modemtest.StartPCSCD(ctx, r.dir); err != nil {
		return nil, err
	}
	inReader, stop := context.WithCancel(context.WithoutCancel(ctx))
	r.stop, r.card = stop, make(chan struct{})
	go func() {
		defer close(r.card)
		// It ends with its context, or with pcscd, which the tests see.
		_ = apdutest.ServeVPCD(inReader, r.PCSCD.Addr(), w.Card)
	}()
	helper := filepath.Join(programs, "lpad-pcsc")
	if err := r.waitCard(ctx, helper); err != nil {
		return nil, err
	}
	l, err := listenLoopback()
	if err != nil {
		return nil, err
	}
	w.Serve(l)
	trust := filepath.Join(r.dir, "trust.d")
	if err := w.writeTrust(trust); err != nil {
		return nil, err
	}
	yaml := fmt.Sprintf(`card: {backend: pcsc, pcsc_helper: %s}
rsp: {trust_dir: %s, notification_retry: 1s, addresses: {%s: "%s"}}
network: {dead_man: 60s}
log: {level: debug}
`, helper, trust, Host, l.Addr())
	r.Daemon, err = StartDaemon(ctx, r.dir, programs, yaml, config, func(ctx context.Context, name string, args ...string) *exec.Cmd {
		cmd := exec.CommandContext(ctx, name, args...)
		cmd.Env = append(os.Environ(), r.PCSCD.Env()...)
		return cmd
	})
	return r, err
}

// waitCard waits until pcscd has seen the card.
func (r *Reader) waitCard(ctx context.Context, helper string) error {
	for {
		readers, err := pcsc.Readers(ctx, pcsc.Config{Helper: helper, Env: r.PCSCD.Env()})
		for _, reader := range readers {
			if reader.CardPresent {
				return nil
			}
		}
		select {
		case <-ctx.Done():
			return errors.Join(errors.New("pcscd does not see the card"), err, ctx.Err())
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// Close stops everything and removes the files.
func (r *Reader) Close() error {
	var errs []error
	if r.Daemon != nil && r.Daemon.cmd != nil {
		errs = append(errs, r.Daemon.Stop())
	}
	if r.stop != nil {
		r.stop()
		<-r.card
	}
	if r.PCSCD != nil {
		errs = append(errs, r.PCSCD.Close())
	}
	return errors.Join(append(errs, os.RemoveAll(r.dir))...)
}
