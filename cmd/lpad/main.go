// Lpad is the daemon: the eSIM provisioning agent of this device.
//
//	lpad [--config /etc/lpad/lpad.yaml] [--check]
//
// It reads its configuration (see package config; every key has a default),
// picks the way to the card and to the network, and runs until SIGTERM or
// SIGINT. SIGHUP has it read its configuration again. With --check it says what
// the configuration comes to and exits.
//
// Exit status: 0 after a stop that was asked for, 1 when something failed, 2
// when the command line or the configuration is wrong, which starting again
// does not mend. A crash ends it by SIGABRT.
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
	"sync"
	"syscall"
	"time"

	"lpad/agent"
	"lpad/config"
	"lpad/internal/fault"
	"lpad/internal/systemd"
)

// version is set by the linker, and patience by that of a test which cannot wait
// as long as a card may take: see agent.Host.
var (
	version  = "unknown"
	patience string
)

func main() {
	// By default a crash ends a Go program with exit status 2, which has a meaning
	// here: that it is of no use to start lpad again.
	debug.SetTraceback("crash")
	if os.Getpid() == 1 {
		os.Exit(adopt())
	}
	path := flag.String("config", "/etc/lpad/lpad.yaml", "configuration `file`; drop-ins are read from lpad.d beside it")
	check := flag.Bool("check", false, "check the configuration and exit")
	quiet := flag.Bool("quiet", false, "with --check: say only what is wrong")
	flag.Parse()
	if flag.NArg() > 0 {
		fmt.Fprintln(os.Stderr, "error: lpad takes no arguments")
		os.Exit(2)
	}
	load := func() (config.Config, config.Origins, error) {
		cfg, origins, err := config.Load(*path, filepath.Join(filepath.Dir(*path), "lpad.d"), os.Environ())
		if errors.Is(err, config.ErrAbsent) {
			err = nil
		}
		return cfg, origins, err
	}
	cfg, origins, err := load()
	if err != nil {
		fmt.Fprintln(os.Stderr, "error:", err)
		os.Exit(2)
	}
	if *check {
		if !*quiet {
			printOrigins(origins)
		}
		return
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, cfg, func() (config.Config, error) { c, _, err := load(); return c, err }); err != nil {
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

func run(ctx context.Context, cfg config.Config, load func() (config.Config, error)) error {
	debug.SetGCPercent(gcPercent)
	var level slog.LevelVar
	level.Set(levels[cfg.Log.Level])
	log := slog.New(handler(cfg.Log, &level))
	again := make(chan os.Signal, 1)
	signal.Notify(again, syscall.SIGHUP)
	listener, err := systemd.Listener()
	if err != nil {
		return err
	}
	watchdog, err := systemd.Watchdog()
	if err != nil {
		log.Warn("no watchdog", "err", err)
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
	waits, _ := time.ParseDuration(patience)
	a, err := agent.New(cfg, agent.Host{Listener: listener, Notify: notify, Version: version, Log: log, Watchdog: watchdog, Patience: waits, Abort: abort}, parts)
	if err != nil {
		return closeParts(err)
	}
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	var reloading sync.WaitGroup
	reloading.Go(func() {
		for {
			select {
			case <-ctx.Done():
				return
			case <-again:
				notify(systemd.Reloading())
				next, err := load()
				if err != nil {
					a.KeepConfiguration(err)
				} else if err = a.Reload(ctx, next); err == nil {
					level.Set(levels[next.Log.Level])
				}
				notify("READY=1")
			}
		}
	})
	err = a.Run(ctx)
	stop()
	reloading.Wait()
	return closeParts(err)
}

// abort ends lpad as a watchdog does: by a signal that says what each goroutine
// is at, and that leaves no doubt that it has failed.
func abort() {
	if err := syscall.Kill(os.Getpid(), syscall.SIGABRT); err != nil {
		os.Exit(1)
	}
	select {}
}
