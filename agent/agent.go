// Package agent puts lpad together: it builds the parts from a configuration
// and from what cmd/lpad has picked for this device, runs them, and stops them
// in order. It holds no policy; that is in the packages below it.
//
//	a, err := agent.New(cfg, host, []agent.Parts{{Card: port, CardPath: …, Settings: stack, Modem: stack, Network: stack, …}})
//	if err != nil { … }              // configuration, trust, journal, socket
//	err = a.Run(ctx)                 // until ctx ends, then within ten seconds
//
// The parts and their order: the journal is opened first (a second daemon on
// the same state is refused there), then the card's runner is started, then
// the socket. They stop the other way round.
//
// Each card is a [unit] with its own journal and runner, so that no card waits
// for another one, or fails with it. They share what is about servers and
// clients: trust, events, the socket.
package agent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os/user"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"lpad/agent/api"
	"lpad/agent/apiserver"
	"lpad/agent/procedure"
	"lpad/agent/relay"
	"lpad/agent/rsp"
	"lpad/agent/rsp/es9p"
	"lpad/agent/runner"
	"lpad/agent/switchover"
	"lpad/apdu"
	"lpad/config"
	"lpad/internal/fault"
	"lpad/modem"
)

// Host is what the process brings along, for all cards.
type Host struct {
	Listener net.Listener       // of the local socket, from systemd; nil: New makes it
	Notify   func(state string) // tells systemd, in the words of sd_notify(3); nil: nobody
	Version  string
	Log      *slog.Logger // nil: discards

	// Watchdog is how long whoever has started lpad waits for WATCHDOG=1; 0: it
	// does not. Patience is how long one exchange with a card may take before lpad
	// is taken for hung; 0: [runner.Patience]. Abort ends the process then, with a
	// record of what it was at; nil: it is only told.
	Watchdog time.Duration
	Patience time.Duration
	Abort    func()
}

// Parts are what cmd/lpad picks for a card.
type Parts struct {
	Card     apdu.Card // the way to the eUICC; it opens itself when used
	CardPath CardPath
	Shared   Shared // nil: the way to the card is not the network's too
	Habits   Habits // nil: nothing is known beforehand
	Slots    Slots  // nil: the card is in no modem

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
	Probe func(context.Context, *api.Probe) error

	// Identity asks the modem who it is, Clock what time it is; nil when there
	// is no modem.
	Identity func(context.Context) (modem.Identity, error)
	Clock    func(context.Context) (time.Time, error)

	// Met tells, without waiting, the IMEI of the modem at the other end of a line
	// that is open; else it may be another modem by now. nil: it stays the same.
	Met func() (imei string, open bool)

	Log *slog.Logger // nil: discards
}

// CardPath says which way leads to the card, for people.
type CardPath struct {
	Backend string // "pcsc", "at"
	Path    string // reader or port

	Now func() string // where it leads at present, without waiting; nil, or empty: Path
}

func (p CardPath) now() string {
	if p.Now != nil {
		if path := p.Now(); path != "" {
			return path
		}
	}
	return p.Path
}

// Agent is a daemon that has been put together.
type Agent struct {
	host     Host
	main     *slog.Logger
	trust    atomic.Pointer[es9p.Trust]
	hub      *runner.Hub
	state    *stateFile
	names    []string // of the cards, in order
	units    []*unit  // the same
	server   *apiserver.Server
	listener net.Listener
	since    time.Time
	claims   claims
	heard    heard
	reloaded reloaded
	relay    *relay.Station

	fleet fleet

	telling sync.Mutex
	told    string // the last status line
	ready   bool   // and whether READY=1 was said
}

// New builds the parts: picked are those of the units of the configuration, in
// their order. Nothing runs yet; what was opened is closed again on an error.
func New(cfg config.Config, h Host, picked []Parts) (_ *Agent, err error) {
	if h.Log == nil {
		h.Log = slog.New(slog.DiscardHandler)
	}
	a := &Agent{host: h, main: h.Log, hub: runner.NewHub(), state: newStateFile(cfg.Socket, h.Log), since: time.Now().UTC(), relay: relay.NewStation()}
	trust, err := es9p.NewTrust(es9p.TrustConfig{Dir: cfg.RSP.TrustDir, AllowTestCI: cfg.RSP.AllowTestCI})
	if err != nil {
		return nil, fmt.Errorf("trust: %w", err)
	}
	a.trust.Store(trust)
	a.reloaded.running = cfg
	a.fleet.kick = make(chan struct{}, 1)
	tellKeys(cfg.Orders, h.Log)
	policy, err := policyOf(cfg.API, h.Log)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			for _, u := range a.units {
				err = errors.Join(err, u.journal.Close())
			}
		}
	}()
	units := cfg.Units()
	for _, c := range units {
		a.names = append(a.names, c.Name)
	}
	for i, c := range units {
		u, err := a.newUnit(c, picked[i])
		if err != nil {
			return nil, err
		}
		a.units = append(a.units, u)
	}
	b, _ := (&backend{Agent: a}).ForCard("", false)
	a.server = apiserver.New(b, apiserver.Options{Policy: policy, Log: h.Log})
	a.listener = h.Listener
	if a.listener == nil {
		if a.listener, err = apiserver.Listen(cfg.Socket, apiserver.SocketOptions{GID: socketGroup(policy)}); err != nil {
			return nil, fmt.Errorf("socket: %w", err)
		}
	}
	return a, nil
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
	a.readDeclarations() // before a job goes on that needs the confirmation code of one
	for _, u := range a.units {
		a.state.write(u.cfg.Name, runner.Starting)
	}
	defer a.state.remove()
	var running, parts sync.WaitGroup
	var runnerErr, serverErr error
	runnerErrs := make([]error, len(a.units))
	serving, stopServing := context.WithCancel(context.WithoutCancel(ctx))
	defer stopServing()
	for i, u := range a.units {
		running.Go(func() {
			defer stop()
			runnerErrs[i] = u.runner.Run(ctx)
		})
	}
	parts.Go(func() {
		running.Wait()
		runnerErr = errors.Join(runnerErrs...)
		stopServing() // the socket answers to the last: what stops is visible
	})
	parts.Go(func() {
		defer stop()
		serverErr = a.server.Serve(serving, a.listener)
	})
	for _, w := range a.warnings() {
		a.main.Warn(w)
	}
	for _, u := range a.units {
		u.greet()
	}
	parts.Go(func() { a.attend(ctx) })
	parts.Go(func() { a.converge(ctx) })
	parts.Go(func() { a.watch(ctx) })
	<-ctx.Done()
	a.notify("STOPPING=1\nSTATUS=stopping")
	parts.Wait()
	err := errors.Join(runnerErr, serverErr)
	for _, u := range a.units {
		err = errors.Join(err, u.parts.Card.Close(), u.journal.Close())
	}
	a.main.Info("stopped", "err", err)
	return err
}

func (a *Agent) notify(state string) {
	if a.host.Notify != nil {
		a.host.Notify(state)
	}
}

// warnings are what must not be overlooked.
func (a *Agent) warnings() []string {
	w := a.trustWarnings()
	if text := a.reloaded.line(); text != "" {
		w = append(w, text)
	}
	return w
}

func (a *Agent) trustWarnings() []string {
	var w []string
	trust := a.trust.Load()
	if text := trust.Warning(); text != "" {
		w = append(w, text)
	}
	for _, text := range trust.Skipped() {
		w = append(w, "an authority is not trusted, its file was skipped (rsp.trust_dir): "+text)
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
	relay *relay.Station
	now   func() time.Time
	log   *slog.Logger
}

func (s *serverSource) OpenServer(address string, way runner.Way) (procedure.Server, error) {
	timeout := s.cfg.Timeout
	if way.Limit > 0 {
		timeout = min(timeout, way.Limit)
	}
	c := &es9p.Client{Trust: s.trust, Protocol: s.cfg.Protocol, Addresses: s.cfg.Addresses, Interface: way.Link.Interface,
		Timeouts: es9p.TimeoutsFor(timeout), Now: s.now, Log: s.log, Dial: dialer(s.relay, way.Link.Interface, s.log)}
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
