package lab

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"

	"lpad/modem/modemtest"
)

// Modem is lpad on a machine with a bare modem: neither ModemManager nor
// NetworkManager, the SM-DP+ on the loopback interface. It needs no root.
type Modem struct {
	*Daemon
	AT    *modemtest.Modem
	*site // Close
}

// ModemOptions shape a bare modem.
type ModemOptions struct {
	Programs string // folder with lpad, lpactl, lpad-pcsc; "": beside the running program
	Config   string // a drop-in of further YAML for lpad
	Modem    func(*modemtest.Config)
	// Resolver is the address of a name server that lpad alone uses, on port
	// 53; "" leaves the machine's. It needs root.
	Resolver string
	// Isolated starts lpad in a network namespace of its own, where nothing can be
	// reached. It needs root.
	Isolated bool
}

// StartModem starts a modem on a pty, the SM-DP+, and lpad with config as a
// drop-in.
func (w *World) StartModem(ctx context.Context, programs, config string) (*Modem, error) {
	return w.StartModemWith(ctx, ModemOptions{Programs: programs, Config: config})
}

// StartModemWith is StartModem with all its options.
func (w *World) StartModemWith(ctx context.Context, o ModemOptions) (_ *Modem, err error) {
	site, err := w.newSite(o.Programs)
	if err != nil {
		return nil, err
	}
	defer site.abandon(&err)
	m := &Modem{site: site}
	mc := modemtest.Config{Card: w.Card, Subscriptions: []modemtest.Subscription{OldOperator.Subscription(), NewOperator.Subscription()},
		Contexts: []modemtest.Context{{CID: 1, Type: "IP", APN: OldOperator.APN}}}
	if o.Modem != nil {
		o.Modem(&mc)
	}
	port := filepath.Join(m.dir, "ttyLAB0")
	tty := port
	if mc.Dialect.Renames {
		// There is no sysfs to find it in, so a link that keeps its name leads to it, as udev's by-path links do.
		port = filepath.Join(m.dir, "by-path")
		mc.Renamed = func(_, to string) {
			if err := relink(to, port); err != nil {
				m.AT.Log().Note("link to the port: " + err.Error())
			}
		}
		if err := relink(tty, port); err != nil {
			return nil, err
		}
	}
	if m.AT, err = modemtest.New(mc); err != nil {
		return nil, err
	}
	m.started(m.AT.Close)
	if _, err := m.AT.OpenPTY(tty); err != nil {
		return nil, err
	}
	server, err := m.serveLoopback()
	if err != nil {
		return nil, err
	}
	command := exec.CommandContext
	if o.Resolver != "" {
		if command, err = withResolver(m.dir, o.Resolver); err != nil {
			return nil, err
		}
	}
	if o.Isolated {
		command = func(ctx context.Context, name string, args ...string) *exec.Cmd {
			return exec.CommandContext(ctx, "unshare", append([]string{"--net", name}, args...)...)
		}
	}
	m.Daemon, err = m.daemon(ctx, fmt.Sprintf("card: {backend: at, at_port: %s}\nmodem: {manage: none}\nnetwork: {backend: none, dead_man: 60s}\n", port),
		server, o.Config, command)
	return m, err
}

// relink lets a link lead somewhere, whether it is there already or not.
func relink(to, link string) error {
	next := link + ".new"
	if err := os.Symlink(to, next); err != nil {
		return err
	}
	return os.Rename(next, link)
}

// withResolver starts programs that find another name server in resolv.conf,
// in a mount namespace of their own.
func withResolver(dir, server string) (func(context.Context, string, ...string) *exec.Cmd, error) {
	file := filepath.Join(dir, "resolv.conf")
	if err := os.WriteFile(file, []byte("nameserver "+server+"\noptions timeout:1 attempts:1\n"), 0o644); err != nil {
		return nil, err
	}
	return func(ctx context.Context, name string, args ...string) *exec.Cmd {
		const script = `mount --bind "$0" /etc/resolv.conf && exec "$@"`
		return exec.CommandContext(ctx, "unshare", append([]string{"--mount", "--propagation", "private", "sh", "-c", script, file, name}, args...)...)
	}, nil
}
