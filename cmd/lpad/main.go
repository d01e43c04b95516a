// Lpad is the daemon: the eSIM provisioning agent of this device.
//
//	lpad [--config /etc/lpad/lpad.yaml] [--check]
//
// It reads its configuration (see package config; every key has a default),
// picks the way to the card and to the network, and runs until SIGTERM or
// SIGINT. With --check it says what the configuration comes to and exits.
//
// Exit status: 0 after a stop that was asked for, 1 when something failed, 2
// when the command line or the configuration is wrong, which starting again
// does not mend.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"runtime/debug"
	"syscall"

	"lpad/agent"
	"lpad/config"
	"lpad/internal/fault"
	"lpad/internal/systemd"
)

// version is set by the linker.
var version = "unknown"

func main() {
	path := flag.String("config", "/etc/lpad/lpad.yaml", "configuration `file`; drop-ins are read from lpad.d beside it")
	check := flag.Bool("check", false, "check the configuration and exit")
	flag.Parse()
	if flag.NArg() > 0 {
		fmt.Fprintln(os.Stderr, "error: lpad takes no arguments")
		os.Exit(2)
	}
	cfg, origins, err := config.Load(*path, filepath.Join(filepath.Dir(*path), "lpad.d"), os.Environ())
	if err != nil && !errors.Is(err, config.ErrAbsent) {
		fmt.Fprintln(os.Stderr, "error:", err)
		os.Exit(2)
	}
	if *check {
		printOrigins(origins)
		return
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, cfg); err != nil {
		fmt.Fprintln(os.Stderr, "error:", err)
		f := fault.Of(err)
		if f.Next != "" {
			fmt.Fprintln(os.Stderr, "next:", f.Next)
		}
		if f.Who == fault.Configuration { // starting again does not mend it
			os.Exit(2)
		}
		os.Exit(1)
	}
}

// gcPercent lets the heap grow by half between collections instead of doubling:
// lpad has time for them, and a small device has not the memory.
const gcPercent = 50

func run(ctx context.Context, cfg config.Config) error {
	debug.SetGCPercent(gcPercent)
	log := slog.New(handler(cfg.Log))
	listener, err := systemd.Listener()
	if err != nil {
		return err
	}
	var parts []agent.Parts
	var closers []func() error
	closeParts := func(err error) error {
		for _, end := range closers {
			err = errors.Join(err, end())
		}
		return err
	}
	for _, unit := range cfg.Units() {
		own := log
		if len(cfg.Cards) > 1 {
			own = log.With("card", unit.Name)
		}
		p, end, err := pick(unit, own)
		if err != nil {
			return closeParts(err)
		}
		p.Log = own
		parts, closers = append(parts, p), append(closers, end)
	}
	notify := func(state string) {
		if err := systemd.Notify(state); err != nil {
			log.Debug("systemd was not told", "err", err)
		}
	}
	a, err := agent.New(cfg, agent.Host{Listener: listener, Notify: notify, Version: version, Log: log}, parts)
	if err != nil {
		return closeParts(err)
	}
	return closeParts(a.Run(ctx))
}
