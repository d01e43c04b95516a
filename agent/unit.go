package agent

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"lpad/agent/hooks"
	"lpad/agent/journal"
	"lpad/agent/packets"
	"lpad/agent/rsp"
	"lpad/agent/runner"
	"lpad/agent/switchover"
	"lpad/config"
	"lpad/internal/release"
)

// unit is one card with the path to it, its jobs and what they need.
type unit struct {
	cfg     config.Unit
	parts   Parts
	log     *slog.Logger
	card    *cardSource
	clock   *clock
	device  *deviceSource
	journal *journal.Journal
	runner  *runner.Runner
	box     *packets.Box

	figures *figures

	// What a reload changes of; see [Agent.Reload].
	servers  *serverSource
	settings *settingsSource
	reporter *reporter
}

// newUnit builds what belongs to one card.
func (a *Agent) newUnit(cfg config.Unit, p Parts) (*unit, error) {
	if p.Log == nil {
		p.Log = a.main
	}
	u := &unit{cfg: cfg, parts: p, log: p.Log, figures: newFigures()}
	if err := os.MkdirAll(cfg.StateDir, 0o700); err != nil {
		return nil, fmt.Errorf("state directory: %w", err)
	}
	o := journal.Options{MaxBytes: int(cfg.Journal.MaxBytes)}
	if cfg.Name != config.Main {
		o.IDSuffix = "-" + cfg.Name
	}
	var err error
	if u.journal, err = journal.Open(filepath.Join(cfg.StateDir, "journal"), o); err != nil {
		return nil, err
	}
	pulse := &runner.Pulse{}
	card := &cardSource{figures: u.figures, pulse: pulse, patience: cmp.Or(a.host.Patience, runner.Patience), card: p.Card, aids: aids(cfg.RSP.ISDRAIDs), blockSize: cfg.Card.BlockSize, habits: p.Habits, slots: p.Slots, slot: cfg.Modem.Slot, log: p.Log}
	u.card = card
	if p.Shared != nil {
		card.turns = &turns{shared: p.Shared, open: card.channel, transmit: card.transmit, log: p.Log}
		if p.Identity != nil {
			p.Identity = card.turns.identity(p.Identity)
		}
		if ask := p.Clock; ask != nil {
			p.Clock = func(ctx context.Context) (time.Time, error) {
				if !p.Shared.Shares() {
					return ask(ctx)
				}
				if _, err := card.turns.card(ctx); err != nil {
					return time.Time{}, err
				}
				return ask(ctx)
			}
		}
	}
	u.clock = newClock(cfg.Clock, p)
	u.clock.heard = &a.heard
	if len(a.names) > 1 {
		card.admit = func(eid rsp.EID) error { return a.claims.admit(u, eid) }
	}
	u.settings = &settingsSource{cfg: cfg.Params, log: p.Log}
	device := &deviceSource{send: cfg.RSP.SendIMEI, identity: p.Identity, met: p.Met, log: p.Log}
	u.device = device
	var enable func() []string
	if p.Habits != nil {
		enable = p.Habits.Enable
	}
	u.servers = &serverSource{cfg: cfg.RSP, trust: a.trust.Load(), turns: card.turns, relay: a.relay, now: u.clock.Now, log: p.Log}
	u.reporter = &reporter{ca: cfg.Reports.CA, addresses: cfg.RSP.Addresses, timeout: cfg.RSP.Timeout, device: device, backend: p.backend, clock: u.clock, relay: a.relay, log: p.Log}
	u.runner = runner.New(runner.Config{
		Pulse:       pulse,
		EnableOrder: enable,
		Journal:     u.journal,
		Card:        card,
		Servers:     u.servers,
		ClockReady:  u.clock.Ready,
		OnState:     func(s runner.State) { a.onState(u, s) },
		OnEnd:       u.figures.jobEnded,
		Code:        a.fleet.codeOf,
		Offline:     u.newOffline(cfg, pulse),
		Hub:         a.hub,
		Name:        cfg.Name,
		Switch: &switchover.Switch{Settings: p.Settings, Modem: p.Modem, Network: p.Network, Prober: p.Prober, Log: p.Log,
			RegisterTimeout: cfg.Network.RegisterTimeout, ProbeTimeout: cfg.Network.ProbeTimeout},
		Settings:       u.settings,
		Device:         device,
		Reporter:       u.reporter,
		Require:        cfg.Orders.Require,
		Time:           u.clock.Now,
		ReportTo:       cfg.Reports.URL,
		Hooks:          hooks.Dir{Path: cfg.Hooks.Dir, Timeout: cfg.Hooks.Timeout, File: cfg.ParametersFile(), Log: p.Log},
		Probe:          probe(cfg.Config, p),
		DeadMan:        cfg.Network.DeadMan,
		SharedPort:     p.shares,
		ConsentTimeout: cfg.RSP.ConsentTimeout,
		DeliverRetry:   runner.Backoff{First: cfg.RSP.NotificationRetry, Most: cfg.RSP.NotificationRetryMax},
		Log:            p.Log,
	})
	return u, nil
}

// greet says what is to be known of the card at the start.
func (u *unit) greet() {
	for _, w := range u.warnings() {
		u.log.Warn(w)
	}
	if n := u.journal.Torn(); n > 0 {
		u.log.Info("an unfinished write was cut off the journal", "bytes", n)
	}
	u.log.Info("serving", "path", u.parts.CardPath.Backend+" "+u.parts.CardPath.Path, "network", u.parts.backend())
}

// warnings are what must not be overlooked of this card.
func (u *unit) warnings() []string {
	w := u.settings.warnings()
	if text := u.journal.Damage(); text != "" {
		w = append(w, "the journal was damaged: "+text)
	}
	return w
}

// onState tells watchdogs, and gives back the memory that a job has needed: a
// device has better uses for it until the next one, which may be years away.
func (a *Agent) onState(u *unit, s runner.State) {
	a.state.write(u.cfg.Name, s)
	if s != runner.Busy {
		release.Memory()
	}
}

// backend is the name of the switch's back-end at present.
func (p Parts) backend() string {
	if p.BackendName != nil {
		return p.BackendName()
	}
	return p.NetworkBackend
}

func (p Parts) shares() bool { return p.Shared != nil && p.Shared.Shares() }

// probe is what must be reachable over a new network: what the configuration
// names, else the server of the order; nothing when the network is not ours.
func probe(cfg config.Config, p Parts) string {
	if cfg.Network.Probe == "" && p.NetworkBackend == "none" {
		return runner.NoProbe
	}
	return cfg.Network.Probe
}
