package lab

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"time"

	"lpad/apdu/apdutest"
	"lpad/apdu/pcsc"
	"lpad/modem/modemtest"
	"lpad/packaging"
)

// DeviceOptions shape a device.
type DeviceOptions struct {
	Programs string // folder with lpad, lpactl, lpad-pcsc; "": beside the running program
	Config   string // further YAML for lpad
	Shared   bool   // one AT port for ModemManager and lpad
	// Unprivileged is a device on which the package was installed and lpad runs as
	// its own user; the real polkitd and the machine's bus policies decide what it may.
	Unprivileged bool
	Modem        func(*modemtest.Config)
	Stack        func(*modemtest.StackConfig)
}

// Device is lpad on a device with a modem.
type Device struct {
	*Daemon
	Stack *modemtest.Stack
	*site // Close
}

// StartDevice starts the device: modem, bus, ModemManager, NetworkManager with
// the old operator's connection up, the SM-DP+ behind the modem, lpad.
func (w *World) StartDevice(ctx context.Context, o DeviceOptions) (_ *Device, err error) {
	site, err := w.newSite(o.Programs)
	if err != nil {
		return nil, err
	}
	defer site.abandon(&err)
	d := &Device{site: site}
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
	var user *account
	if o.Unprivileged {
		if user, err = d.installPackage(&sc); err != nil {
			return nil, err
		}
	}
	if d.Stack, err = modemtest.StartStack(ctx, sc); err != nil {
		return nil, err
	}
	d.started(d.Stack.Close)
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
	inhibit := "auto"
	if o.Shared {
		inhibit = "always"
	}
	command := d.Stack.Command
	if user != nil {
		if err := user.givePort(d.Stack); err != nil {
			return nil, err
		}
		command = func(ctx context.Context, name string, args ...string) *exec.Cmd {
			return d.Stack.CommandAs(ctx, packaging.User, name, args...)
		}
	}
	d.Daemon, err = d.daemon(ctx, fmt.Sprintf("card: {backend: at, at_port: %s}\nmodem: {inhibit: %s}\nnetwork: {dead_man: 60s}\n", d.Stack.AgentPort(), inhibit),
		"", o.Config, command)
	return d, err
}

// Reader is lpad on a machine with a PC/SC reader.
type Reader struct {
	*Daemon
	PCSCD *modemtest.PCSCD
	*site // Close
}

// StartReader starts pcscd with the world's card in its virtual reader, the
// SM-DP+ on the loopback interface, and lpad.
func (w *World) StartReader(ctx context.Context, programs, config string) (_ *Reader, err error) {
	site, err := w.newSite(programs)
	if err != nil {
		return nil, err
	}
	defer site.abandon(&err)
	r := &Reader{site: site}
	if r.PCSCD, err = modemtest.StartPCSCD(ctx, r.dir); err != nil {
		return nil, err
	}
	r.started(r.PCSCD.Close)
	inReader, pull := context.WithCancel(context.WithoutCancel(ctx))
	var card sync.WaitGroup
	card.Go(func() {
		// It ends with its context, or with pcscd, which the tests see.
		_ = apdutest.ServeVPCD(inReader, r.PCSCD.Addr(), w.Card)
	})
	r.started(func() error { pull(); card.Wait(); return nil })
	helper := filepath.Join(site.programs, "lpad-pcsc")
	if err := r.waitCard(ctx, helper); err != nil {
		return nil, err
	}
	server, err := r.serveLoopback()
	if err != nil {
		return nil, err
	}
	r.Daemon, err = r.daemon(ctx, fmt.Sprintf("card: {backend: pcsc, pcsc_helper: %s}\nnetwork: {dead_man: 60s}\n", helper), server, config,
		func(ctx context.Context, name string, args ...string) *exec.Cmd {
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
