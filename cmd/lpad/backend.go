package main

import (
	"context"
	"errors"
	"log/slog"
	"path/filepath"
	"sync"
	"time"

	"lpad/agent"
	"lpad/config"
	"lpad/internal/systembus"
	"lpad/modem/atport"
	"lpad/modem/mm"
	"lpad/modem/network"
	"lpad/modem/nm"
)

// closeTimeout bounds giving the modem back at the end.
const closeTimeout = 5 * time.Second

// pickBackend adds the back-end of a modem's network to the parts: a fixed one,
// or the one that fits what runs at the time.
func pickBackend(cfg config.Config, port *atport.Port, bus *systembus.Bus, log *slog.Logger, parts *agent.Parts) func() error {
	name := cfg.Network.Backend
	if cfg.Modem.Manage == "none" {
		name = network.BackendNone
	}
	c := network.Config{
		MM: mm.New(bus), NM: nm.New(bus), Device: cfg.Modem.Device, Shared: cfg.Modem.Inhibit == "always", Never: cfg.Modem.Inhibit == "never",
		Port: port.Path, BeforeRelease: port.Release, KeepFile: filepath.Join(cfg.StateDir, "link.json"), Log: log,
	}
	if cfg.Network.Hook != "" {
		c.Hook = &network.Hook{Path: cfg.Network.Hook, Log: log}
	}
	back := network.NewAuto(name, bus, port, c)
	parts.Settings, parts.Modem, parts.Network, parts.BackendName = back, back, back, back.Name
	if name != network.BackendNone {
		parts.Shared = back
	}
	// Where the interface is somebody else's, nobody knows whether the usual way leads over the modem: then only
	// what the configuration names is probed.
	parts.Prober = &network.Probe{OnlyBound: cfg.Network.Probe == ""}
	ctx, stop := context.WithCancel(context.Background())
	var following sync.WaitGroup
	following.Go(func() { back.Follow(ctx) })
	return func() error {
		stop()
		following.Wait()
		ctx, cancel := context.WithTimeout(context.Background(), closeTimeout)
		defer cancel()
		return errors.Join(back.Close(ctx), bus.Close())
	}
}
