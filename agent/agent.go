// Package agent puts lpad together: it builds the parts from a configuration
// and from what cmd/lpad has picked for this device, runs them, and stops them
// in order. It holds no policy; that is in the packages below it.
//
//	a, err := agent.New(cfg, agent.Parts{Card: port, CardPath: …, Settings: stack, Modem: stack, Network: stack, …})
//	if err != nil { … }              // configuration, trust, journal, socket
//	err = a.Run(ctx)                 // until ctx ends, then within ten seconds
//
// The parts and their order: the journal is opened first (a second daemon on
// the same state is refused there), then the card's runner is started, then
// the socket. They stop the other way round.
package agent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/user"
	"path/filepath"
	"runtime/debug"
	"strconv"
	"sync"
	"time"

	"lpad/agent/api"
	"lpad/agent/apiserver"
	"lpad/agent/journal"
	"lpad/agent/procedure"
	"lpad/agent/rsp"
	"lpad/agent/rsp/es9p"
	"lpad/agent/runner"
	"lpad/agent/switchover"
	"lpad/apdu"
	"lpad/config"
	"lpad/internal/fault"
	"lpad/modem"
)

// Parts are what cmd/lpad picks for a device.
type Parts struct {
	Card     apdu.Card // the way to the eUICC; it opens itself when used
	CardPath CardPath
	Shared   Shared // nil: the way to the card is not the network's too
	Habits   Habits // nil: nothing is known beforehand

	// The switch's back-end: a modem/network.ManagerStack, or a
	// switchover.Direct. NetworkBackend is its name for the status.
	Settings       switchover.Settings
	Modem          switchover.Modem
	Network        switchover.Network
	Prober         switchover.Prober
	NetworkBackend string
	BackendName    func() string // where it is chosen from switch to switch; nil: NetworkBackend

	// Probe finds out what the way to the card can do, by doing it; nil: nothing
	// can be found out. It is called by the card's goroutine, with no channel
	// open. What it tells of is complete as far as it goes, also with an error.
	Probe func(context.Context) (api.Probe, error)

	// Identity asks the modem who it is, Clock what time it is; nil when there
	// is no modem.
	Identity func(context.Context) (modem.Identity, error)
	Clock    func(context.Context) (time.Time, error)

	Listener net.Listener // of the local socket, from systemd; nil: New makes it
	Notify   func(state string)
	Version  string
	Log      *slog.Logger
}

// CardPath says which way leads to the card, for people.
type CardPath struct {
	Backend string // "pcsc", "at"
	Path    string // reader or port
}

// Agent is a daemon that has been put together.
type Agent struct {
	cfg      config.Config
	card     *cardSource
	parts    Parts
	log      *slog.Logger
	trust    *es9p.Trust
	clock    *clock
	state    *stateFile
	journal  *journal.Journal
	runner   *runner.Runner
	server   *apiserver.Server
	listener net.Listener
	since    time.Time
}

// New builds the parts. Nothing runs yet; what was opened is closed again on
// an error.
func New(cfg config.Config, p Parts) (_ *Agent, err error) {
	if p.Log == nil {
		p.Log = slog.New(slog.DiscardHandler)
	}
	a := &Agent{cfg: cfg, parts: p, log: p.Log, since: time.Now().UTC()}
	if a.trust, err = es9p.NewTrust(es9p.TrustConfig{Dir: cfg.RSP.TrustDir, AllowTestCI: cfg.RSP.AllowTestCI}); err != nil {
		return nil, fmt.Errorf("trust: %w", err)
	}
	policy, err := policyOf(cfg.API, p.Log)
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(cfg.StateDir, 0o700); err != nil {
		return nil, fmt.Errorf("state directory: %w", err)
	}
	if a.journal, err = journal.Open(filepath.Join(cfg.StateDir, "journal"), journal.Options{MaxBytes: int(cfg.Journal.MaxBytes)}); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, a.journal.Close())
		}
	}()
	card := &cardSource{card: p.Card, aids: aids(cfg.RSP.ISDRAIDs), blockSize: cfg.Card.BlockSize, habits: p.Habits, log: p.Log}
	a.card = card
	if p.Shared != nil {
		card.turns = &turns{shared: p.Shared, open: card.channel, log: p.Log}
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
	a.clock, a.state = newClock(cfg.Clock, p), newStateFile(cfg.Socket, p.Log)
	device := &deviceSource{send: cfg.RSP.SendIMEI, identity: p.Identity, log: p.Log}
	var enable func() []string
	if p.Habits != nil {
		enable = p.Habits.Enable
	}
	a.runner = runner.New(runner.Config{
		EnableOrder: enable,
		Journal:     a.journal,
		Card:        card,
		Servers:     &serverSource{cfg: cfg.RSP, trust: a.trust, turns: card.turns, now: a.clock.Now, log: p.Log},
		ClockReady:  a.clock.Ready,
		OnState:     a.onState,
		Switch: &switchover.Switch{Settings: p.Settings, Modem: p.Modem, Network: p.Network, Prober: p.Prober, Log: p.Log,
			RegisterTimeout: cfg.Network.RegisterTimeout, ProbeTimeout: cfg.Network.ProbeTimeout},
		Settings: &settingsSource{cfg: cfg.Params, log: p.Log},
		Device:   device,
		Reporter: &reporter{ca: cfg.Reports.CA, addresses: cfg.RSP.Addresses, timeout: cfg.RSP.Timeout, device: device, backend: p.backend,
			clock: a.clock, log: p.Log},
		ReportTo:       cfg.Reports.URL,
		Probe:          probe(cfg, p),
		DeadMan:        cfg.Network.DeadMan,
		SharedPort:     p.shares,
		ConsentTimeout: cfg.RSP.ConsentTimeout,
		DeliverRetry:   runner.Backoff{First: cfg.RSP.NotificationRetry, Most: cfg.RSP.NotificationRetryMax},
		Log:            p.Log,
	})
	a.server = apiserver.New(&backend{a}, apiserver.Options{Policy: policy, Log: p.Log})
	a.listener = p.Listener
	if a.listener == nil {
		if a.listener, err = apiserver.Listen(cfg.Socket, apiserver.SocketOptions{GID: socketGroup(policy)}); err != nil {
			return nil, fmt.Errorf("socket: %w", err)
		}
	}
	return a, nil
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

// socketGroup is the group that may connect: the one with the fewest rights,
// since the routes tell the others apart. Members of a higher group only must
// be members of this one too, which the documentation says.
func socketGroup(p apiserver.Policy) int {
	for _, gid := range []uint32{p.ReadGID, p.OperateGID, p.AdminGID} {
		if gid != 0 {
			return int(gid)
		}
	}
	return -1
}

// policyOf looks the groups up. A group that does not exist is nobody's, which
// is safe, and said.
func policyOf(c config.API, log *slog.Logger) (apiserver.Policy, error) {
	gid := func(name string) (uint32, error) {
		if name == "" {
			return 0, nil
		}
		g, err := user.LookupGroup(name)
		var unknown user.UnknownGroupError
		if errors.As(err, &unknown) {
			log.Info("group of the configuration does not exist; root alone has its rights", "group", name)
			return 0, nil
		}
		if err != nil {
			return 0, fmt.Errorf("group %s: %w", name, err)
		}
		n, err := strconv.ParseUint(g.Gid, 10, 32)
		return uint32(n), err
	}
	var p apiserver.Policy
	var errs [3]error
	p.ReadGID, errs[0] = gid(c.Read)
	p.OperateGID, errs[1] = gid(c.Operate)
	p.AdminGID, errs[2] = gid(c.Admin)
	return p, errors.Join(errs[:]...)
}

// Run runs until ctx ends or a part fails.
func (a *Agent) Run(ctx context.Context) error {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	a.state.write(runner.Starting)
	defer a.state.remove()
	var parts sync.WaitGroup
	var runnerErr, serverErr error
	serving, stopServing := context.WithCancel(context.WithoutCancel(ctx))
	defer stopServing()
	parts.Go(func() {
		defer stop()
		runnerErr = a.runner.Run(ctx)
		stopServing() // the socket answers to the last: what stops is visible
	})
	parts.Go(func() {
		defer stop()
		serverErr = a.server.Serve(serving, a.listener)
	})
	for _, w := range a.warnings() {
		a.log.Warn(w)
	}
	if n := a.journal.Torn(); n > 0 {
		a.log.Info("an unfinished write was cut off the journal", "bytes", n)
	}
	a.log.Info("ready", "version", a.parts.Version, "card", a.parts.CardPath.Backend, "path", a.parts.CardPath.Path, "network", a.parts.backend())
	a.notify("READY=1")
	parts.Wait()
	a.notify("STOPPING=1")
	err := errors.Join(runnerErr, serverErr, a.parts.Card.Close(), a.journal.Close())
	a.log.Info("stopped", "err", err)
	return err
}

// onState tells watchdogs, and gives back the memory that a job has needed: a
// device has better uses for it until the next one, which may be years away.
func (a *Agent) onState(s runner.State) {
	a.state.write(s)
	if s != runner.Busy {
		debug.FreeOSMemory()
	}
}

func (a *Agent) notify(state string) {
	if a.parts.Notify != nil {
		a.parts.Notify(state)
	}
}

// warnings are what must not be overlooked.
func (a *Agent) warnings() []string {
	var w []string
	if text := a.trust.Warning(); text != "" {
		w = append(w, text)
	}
	for _, text := range a.trust.Skipped() {
		w = append(w, "an authority is not trusted, its file was skipped (rsp.trust_dir): "+text)
	}
	if text := a.journal.Damage(); text != "" {
		w = append(w, "the journal was damaged: "+text)
	}
	return w
}

// aids are the ISD-R addresses to try: the configured ones, else those that
// are known, the standard one first.
func aids(configured []string) []rsp.AID {
	var list []rsp.AID
	for _, text := range configured {
		if aid, err := rsp.ParseAID(text); err == nil { // config.Validate has refused what is wrong
			list = append(list, aid)
		}
	}
	if len(list) == 0 {
		list = rsp.ISDRs()
	}
	return list
}

// serverSource opens sessions with servers; see runner.ServerSource.
type serverSource struct {
	cfg   config.RSP
	trust *es9p.Trust
	turns *turns // nil: servers can be reached while the card is used
	now   func() time.Time
	log   *slog.Logger
}

func (s *serverSource) OpenServer(address string, way runner.Way) (procedure.Server, error) {
	timeout := s.cfg.Timeout
	if way.Limit > 0 {
		timeout = min(timeout, way.Limit)
	}
	c := &es9p.Client{Trust: s.trust, Protocol: s.cfg.Protocol, Addresses: s.cfg.Addresses, Interface: way.Link.Interface,
		Timeouts: es9p.TimeoutsFor(timeout), Now: s.now, Log: s.log}
	session, err := c.Open(address, es9p.OnlyCIs(way.CIs...))
	if err != nil {
		return nil, err
	}
	if s.turns != nil {
		return turnedServer{session, s.turns}, nil
	}
	return session, nil
}

var errNoCard = fault.New(fault.Fault{Code: "no-euicc", Text: "no eUICC answers: none of the known ISD-R applications is on the card", Who: fault.Technician,
	Next: "look whether the right SIM slot is active, and whether the card is an eSIM"}, nil)
