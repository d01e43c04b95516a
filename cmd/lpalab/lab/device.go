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
)

// DeviceOptions shape a device.
type DeviceOptions struct {
	Programs string // folder with lpad, lpactl, lpad-pcsc; "": beside the running program
	Config   string // further YAML for lpad
	Shared   bool   // one AT port for ModemManager and lpad
	// Backend is who has the network; "" is NetworkManager. Without that, lpad gets
	// a hook that configures the modem's interface, and the old link is brought up
	// by the lab.
	Backend Backend
	// Unprivileged is a device on which the package was installed and lpad runs as
	// its own user; the real polkitd and the machine's bus policies decide what it may.
	Unprivileged bool
	// Journal is a datagram socket that lpad finds where systemd's journal is, with
	// its standard error leading there. "" is a device without systemd.
	Journal string
	Modem   func(*modemtest.Config)
	Stack   func(*modemtest.StackConfig)
}

// Device is lpad on a device with a modem.
type Device struct {
	*Daemon
	Stack *modemtest.Stack
	*site // Close
}

// StartDevice starts the device: modem, bus, ModemManager, NetworkManager with
// the old operator's connection up, the SM-DP+ behind the modem, lpad. On a
// device that can carry no packets ([Backend.EndsAtBearer]) no connection is
// waited for, and the SM-DP+ is beside the modem instead of behind it.
func (w *World) StartDevice(ctx context.Context, o DeviceOptions) (_ *Device, err error) {
	site, err := w.newSite(o.Programs)
	if err != nil {
		return nil, err
	}
	defer site.abandon(&err)
	d := &Device{site: site}
	if o.Backend == "" {
		o.Backend = NetworkManager
	}
	sc := d.stackConfig(o)
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
	configuration, server, err := d.connect(ctx, o, sc.Modem.Dialect)
	if err != nil {
		return nil, err
	}
	if user != nil {
		if err := user.givePort(d.Stack); err != nil {
			return nil, err
		}
	}
	d.Daemon, err = d.daemon(ctx, configuration, server, o.Config, d.commandOn(user, o.Journal))
	return d, err
}

// stackConfig is the device without lpad.
func (d *Device) stackConfig(o DeviceOptions) modemtest.StackConfig {
	sc := modemtest.StackConfig{
		Modem: modemtest.Config{Card: d.world.Card, Subscriptions: []modemtest.Subscription{OldOperator.Subscription(), NewOperator.Subscription()},
			Contexts: []modemtest.Context{{CID: 1, Type: "IP", APN: OldOperator.APN}}, StrictAttach: true},
		Dir:                   filepath.Join(d.dir, "stack"),
		Hosts:                 []string{Host},
		Connections:           []modemtest.Connection{{ID: "altnetz", APN: OldOperator.APN}},
		ShareAgentPort:        o.Shared,
		WithoutNetworkManager: o.Backend != NetworkManager,
		WithoutModemManager:   o.Backend == Neither,
	}
	if o.Modem != nil {
		o.Modem(&sc.Modem)
	}
	if o.Stack != nil {
		o.Stack(&sc)
	}
	return sc
}

// connect puts the SM-DP+ where the device reaches it and waits for the link of
// the profile that is enabled. It returns lpad's configuration, and more of its
// section rsp.
func (d *Device) connect(ctx context.Context, o DeviceOptions, dialect modemtest.Dialect) (configuration, server string, err error) {
	inhibit := "auto"
	if o.Shared {
		inhibit = "always"
	}
	configuration = fmt.Sprintf("card: {backend: at, at_port: %s}\nmodem: {inhibit: %s}\n", d.Stack.AgentPort(), inhibit)
	network := "dead_man: 60s"
	if o.Backend.EndsAtBearer(dialect) {
		l, err := d.Stack.ListenOnDevice("tcp", "127.0.0.1:0")
		if err != nil {
			return "", "", err
		}
		d.world.Serve(l)
		return configuration + "network: {" + network + "}\n", fmt.Sprintf("addresses: {%s: %q}", Host, l.Addr()), nil
	}
	l, err := d.Stack.Listen("tcp", modemtest.ServerAddr.String()+":443")
	if err != nil {
		return "", "", err
	}
	d.world.Serve(l)
	iccid, enabled := d.world.Card.EnabledICCID()
	enabled = enabled && iccid == mustICCID(OldOperator.ICCID)
	if o.Backend == NetworkManager {
		if enabled {
			err = d.online(ctx)
		}
	} else {
		var hook string
		if hook, err = d.hook(); err == nil && enabled {
			err = d.goOnline(ctx, o.Backend, hook)
		}
		network += fmt.Sprintf(", backend: %s, hook: %s", o.Backend, hook)
	}
	return configuration + "network: {" + network + "}\n", "", err
}

// patience is how long NetworkManager may take to connect by itself. Where it
// tries another operator's connection first, it may end up waiting five minutes.
const patience = 30 * time.Second

// online waits until the device is connected as its owner left it; where
// NetworkManager does not get that far, its owner activates the connection.
func (d *Device) online(ctx context.Context) error {
	first, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	if d.Stack.WaitConnected(first, "altnetz") == nil {
		return nil
	}
	out, err := d.Stack.Command(ctx, "nmcli", "--wait", "30", "connection", "up", "altnetz").CombinedOutput()
	if err == nil {
		return d.Stack.WaitConnected(ctx, "altnetz")
	}
	return fmt.Errorf("connect the device: %w\n%s\nmodem:\n%s", err, out, d.Stack.Modem.Log())
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
