package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"

	"lpad/agent"
	"lpad/agent/api"
	"lpad/agent/switchover"
	"lpad/apdu/pcsc"
	"lpad/config"
	"lpad/internal/systembus"
	"lpad/internal/systemd"
	"lpad/modem/atcard"
	"lpad/modem/atport"
	"lpad/modem/network"
	"lpad/modem/quirks"
)

// pick chooses the way to the card and the back-end of the switch.
func pick(cfg config.Unit, log *slog.Logger) (agent.Parts, func() error, error) {
	table, err := quirks.Load(cfg.Modem.QuirksDir)
	if err != nil {
		return agent.Parts{}, nil, err
	}
	learned := quirks.OpenMemory(filepath.Join(cfg.StateDir, "modems.json"))
	if why := learned.Damage(); why != "" {
		log.Warn("what was learnt of modems and readers cannot be read and is learnt anew", "err", why)
	}
	if cfg.Card.ByModem() {
		return pickModem(cfg, table, learned, log)
	}
	card := &reader{cfg: pcsc.Config{Helper: cfg.Card.PCSCHelper, Reader: cfg.Card.Reader, ATR: cfg.Card.ATR}, table: table, learned: learned, log: log}
	direct := switchover.Direct{Card: card}
	path := cfg.Card.Reader
	if path == "" {
		path = "first reader with a card"
	}
	if cfg.Card.ATR != "" {
		path += ", ATR " + cfg.Card.ATR
	}
	return agent.Parts{
		Card: card, CardPath: agent.CardPath{Backend: "pcsc", Path: path, Now: card.name}, Habits: card,
		Settings: direct, Modem: direct, Network: direct, NetworkBackend: "none",
		Prober: &network.Probe{}, Probe: card.probe,
	}, func() error { return nil }, nil
}

// pickModem is the card behind a modem's AT port.
func pickModem(cfg config.Unit, table *quirks.Table, learned *quirks.Memory, log *slog.Logger) (agent.Parts, func() error, error) {
	if cfg.Card.ATPort == "" {
		return agent.Parts{}, nil, errors.New("card.backend is \"at\", but card.at_port names no port")
	}
	alone := cfg.Network.Backend == "none" || cfg.Modem.Manage == "none"
	port := atport.New(atport.Config{
		Path: cfg.Card.ATPort, Baud: cfg.Card.Baud, Log: log, Alone: alone,
		OffMark: filepath.Join(cfg.StateDir, "modem-off"), PlaceMark: filepath.Join(cfg.StateDir, "modem-place"), Quirks: table, Learned: learned,
		ISDRs: agent.ISDRs(cfg.RSP),
		Card: atcard.Options{Path: apduPath(cfg.Card.APDUPath), BlockSize: cfg.Card.BlockSize,
			Memory: atcard.NewMemory(cfg.ChannelsFile())},
	})
	parts := agent.Parts{
		Card: port, CardPath: agent.CardPath{Backend: "at", Path: cfg.Card.ATPort}, Habits: port, Slots: port,
		Identity: port.Identity, Met: port.Met, Clock: port.Clock,
	}
	bus := systembus.New("")
	parts.Probe = func(ctx context.Context, p *api.Probe) error {
		err := probeModem(ctx, port, p)
		managers(ctx, bus, port.Path(), &p.Managers)
		return err
	}
	closeBackend := pickBackend(cfg.Config, port, bus, log, &parts)
	return parts, closeBackend, nil
}

func apduPath(name string) atcard.Path {
	switch name {
	case "ccho":
		return atcard.CCHO
	case "csim":
		return atcard.CSIM
	}
	return atcard.Auto
}

// levels are those of the log, by their names in the configuration.
var levels = map[string]slog.Level{"error": slog.LevelError, "warn": slog.LevelWarn, "info": slog.LevelInfo, "debug": slog.LevelDebug, "trace": slog.LevelDebug - 4}

// handler writes the log to where it is wanted: to systemd's journal, with fields,
// when standard error leads there and nothing else is asked for.
func handler(cfg config.Log, level slog.Leveler) slog.Handler {
	o := &slog.HandlerOptions{Level: level}
	if cfg.Format == "json" {
		return slog.NewJSONHandler(os.Stderr, o)
	}
	if h := systemd.Journal(level); h != nil {
		return h
	}
	return slog.NewTextHandler(os.Stderr, o)
}

func printOrigins(origins config.Origins) {
	for _, key := range slices.Sorted(maps.Keys(origins)) {
		fmt.Printf("%s\t%v\n", key, origins[key])
	}
}
