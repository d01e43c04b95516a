package lab

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
)

// site is the place of one lpad: a folder, the programs, and what was started
// around the daemon.
type site struct {
	world    *World
	dir      string
	programs string
	stops    []func() error // of what was started, in that order
}

// newSite makes the folder. programs is as in [FindPrograms].
func (w *World) newSite(programs string) (*site, error) {
	programs, err := FindPrograms(programs)
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("", "lpad-lab-")
	return &site{world: w, dir: dir, programs: programs}, err
}

// started says how to stop what has just been started.
func (s *site) started(stop func() error) { s.stops = append(s.stops, stop) }

// serveLoopback lets the SM-DP+ answer on the loopback interface and returns
// lpad's configuration of its address.
func (s *site) serveLoopback() (string, error) {
	l, err := listenLoopback()
	if err != nil {
		return "", err
	}
	s.world.Serve(l)
	return fmt.Sprintf("addresses: {%s: %q}", Host, l.Addr()), nil
}

// daemon starts lpad: configuration is that of its card, modem and network,
// server more of the section rsp, dropin further YAML in a file of its own.
func (s *site) daemon(ctx context.Context, configuration, server, dropin string, command commandFunc) (*Daemon, error) {
	trust := filepath.Join(s.dir, "trust.d")
	if err := s.world.writeTrust(trust); err != nil {
		return nil, err
	}
	configuration += fmt.Sprintf("rsp: {trust_dir: %s, notification_retry: 1s, %s}\nlog: {level: debug}\n", trust, server)
	d, err := StartDaemon(ctx, s.dir, s.programs, configuration, dropin, command)
	if d != nil {
		s.started(d.Stop)
	}
	return d, err
}

// abandon closes the site of something that could not be started.
func (s *site) abandon(err *error) {
	if *err != nil {
		*err = errors.Join(*err, s.Close())
	}
}

// Close stops everything, the last first, and removes the files.
func (s *site) Close() error {
	var errs []error
	for _, stop := range slices.Backward(s.stops) {
		errs = append(errs, stop())
	}
	return errors.Join(append(errs, os.RemoveAll(s.dir))...)
}
