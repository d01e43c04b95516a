package lab

import (
	"context"
	"errors"
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
	AT  *modemtest.Modem
	dir string
}

// StartModem starts a modem on a pty, the SM-DP+, and lpad with config as a
// drop-in.
func (w *World) StartModem(ctx context.Context, programs, config string) (_ *Modem, err error) {
	if programs, err = FindPrograms(programs); err != nil {
		return nil, err
	}
	m := &Modem{}
	if m.dir, err = os.MkdirTemp("", "lpad-lab-"); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, m.Close())
		}
	}()
	if m.AT, err = modemtest.New(modemtest.Config{Card: w.Card, Subscriptions: []modemtest.Subscription{OldOperator.Subscription(), NewOperator.Subscription()},
		Contexts: []modemtest.Context{{CID: 1, Type: "IP", APN: OldOperator.APN}}}); err != nil {
		return nil, err
	}
	port := filepath.Join(m.dir, "ttyLAB0")
	if _, err := m.AT.OpenPTY(port); err != nil {
		return nil, err
	}
	l, err := listenLoopback()
	if err != nil {
		return nil, err
	}
	w.Serve(l)
	trust := filepath.Join(m.dir, "trust.d")
	if err := w.writeTrust(trust); err != nil {
		return nil, err
	}
	yaml := fmt.Sprintf(`card: {backend: at, at_port: %s}
modem: {manage: none}
rsp: {trust_dir: %s, notification_retry: 1s, addresses: {%s: "%s"}}
network: {backend: none, dead_man: 60s}
log: {level: debug}
`, port, trust, Host, l.Addr())
	m.Daemon, err = StartDaemon(ctx, m.dir, programs, yaml, config, exec.CommandContext)
	return m, err
}

// Close stops everything and removes the files.
func (m *Modem) Close() error {
	var errs []error
	if m.Daemon != nil && m.Daemon.cmd != nil {
		errs = append(errs, m.Daemon.Stop())
	}
	if m.AT != nil {
		errs = append(errs, m.AT.Close())
	}
	return errors.Join(append(errs, os.RemoveAll(m.dir))...)
}
