package network

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"time"

	"lpad/internal/systembus"
	"lpad/modem"
	"lpad/modem/mm"
	"lpad/modem/nm"
)

// The back-ends by the names that the configuration has for them.
const (
	BackendAuto           = "auto"
	BackendNetworkManager = "networkmanager"
	BackendModemManager   = "modemmanager"
	BackendNone           = "none"
)

// detectLimit is how long a manager is waited for that may be starting: one that
// the bus could start, or that ran before.
const detectLimit = 20 * time.Second

// Detect says which back-end fits the services that run: ModemManager and
// NetworkManager, ModemManager alone, or none. A service that does not run but
// is installed so that the bus can start it is waited for first, a while: the
// device may be booting, or the service is being restarted. expected, which may
// be nil, keeps from one call to the next what is worth waiting for.
func Detect(ctx context.Context, bus *systembus.Bus, expected *Expected) (string, error) {
	for _, s := range []struct {
		service systembus.Service
		without string
	}{{mm.Service, BackendNone}, {nm.Service, BackendModemManager}} {
		running, err := expected.running(ctx, bus, s.service)
		switch {
		case errors.Is(err, systembus.ErrBusDown): // a device without a bus has no managers
			return BackendNone, nil
		case err != nil:
			return "", fmt.Errorf("see which services run: %w", err)
		case !running:
			return s.without, nil
		}
	}
	return BackendNetworkManager, nil
}

// Expected remembers which services are waited for when they do not run.
type Expected struct {
	mu   sync.Mutex
	vain map[string]bool // guarded by mu; by name: waited for already, and it did not come
}

func (e *Expected) running(ctx context.Context, bus *systembus.Bus, s systembus.Service) (bool, error) {
	running, err := bus.Running(ctx, s)
	if err != nil {
		return false, err
	}
	if e == nil {
		e = &Expected{}
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.vain == nil {
		e.vain = map[string]bool{}
	}
	vain, known := e.vain[s.Bus]
	if running {
		e.vain[s.Bus] = false // from now on it is missed when it is away
		return true, nil
	}
	if !known {
		startable, err := bus.Startable(ctx, s)
		if err != nil {
			return false, err
		}
		vain = !startable
	}
	if vain {
		e.vain[s.Bus] = true
		return false, nil
	}
	waiting, cancel := context.WithTimeout(ctx, detectLimit)
	defer cancel()
	err = bus.Wait(waiting, []systembus.Service{s}, func(ctx context.Context) (bool, error) {
		running, err := bus.Running(ctx, s)
		return running, err
	})
	e.vain[s.Bus] = err != nil
	if err != nil && ctx.Err() != nil {
		return false, ctx.Err()
	}
	return err == nil, nil
}

// backend is what all back-ends can do.
type backend interface {
	Snapshot(ctx context.Context) ([]byte, error)
	Working(snapshot []byte) (iccid string, apn modem.APN, ok bool)
	Gate(ctx context.Context, snapshot []byte) error
	Apply(ctx context.Context, iccid string, want modem.Settings) ([]string, error)
	Reread(ctx context.Context, iccid string) (string, error)
	Late() []string
	ResetSIM(ctx context.Context) error
	SIM(ctx context.Context) (modem.SIM, error)
	Register(ctx context.Context) (modem.Registration, error)
	Connect(ctx context.Context, iccid string) (modem.Link, error)
	Link(ctx context.Context, iccid string) (modem.Link, error)
	Commit(ctx context.Context, iccid string) error
	Restore(ctx context.Context, snapshot []byte) (modem.Link, error)
	Forget(ctx context.Context, iccid string) error
	Borrow(ctx context.Context) error
	GiveBack(ctx context.Context) error
	Online(ctx context.Context) error
	Shares() bool
}

// Auto is the back-end that fits what runs on the device. It is chosen anew at
// the beginning of each switch, by its snapshot, and stays the same until the
// switch is over: the snapshot says which it was, also after a restart of lpad.
type Auto struct {
	name     string // of the configuration
	bus      *systembus.Bus
	expected Expected
	stack    *ManagerStack
	mmOnly   *MMOnly
	bare     *ATOnly

	mu        sync.Mutex
	now       string // guarded by mu; empty until it is known
	switching bool   // guarded by mu; from Gate to Commit or Restore
}

// NewAuto makes it of the name that the configuration has (one of the names of
// back-ends), the bus that the clients of c are on, and the port.
func NewAuto(name string, bus *systembus.Bus, at ATPort, c Config) *Auto {
	c.AT = at
	a := &Auto{name: name, bus: bus, stack: NewManagerStack(c), mmOnly: NewMMOnly(c), bare: NewATOnly(at, c)}
	if name != BackendAuto {
		a.now = name
	}
	return a
}

// Name is the back-end of the last choice, "auto" before the first.
func (a *Auto) Name() string {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.now == "" {
		return BackendAuto
	}
	return a.now
}

func (a *Auto) named(name string) backend {
	switch name {
	case BackendNetworkManager:
		return a.stack
	case BackendModemManager:
		return a.mmOnly
	}
	return a.bare
}

// choose decides anew.
func (a *Auto) choose(ctx context.Context) (backend, error) {
	if a.name != BackendAuto {
		return a.named(a.name), nil
	}
	name, err := Detect(ctx, a.bus, &a.expected)
	if err != nil {
		return nil, err
	}
	a.set(name)
	return a.named(name), nil
}

func (a *Auto) set(name string) {
	a.mu.Lock()
	was := a.now
	a.now = name
	a.mu.Unlock()
	if was != name {
		a.stack.log.Info("network back-end", "backend", name)
	}
}

// current is what was chosen last.
func (a *Auto) current(ctx context.Context) (backend, error) {
	a.mu.Lock()
	name := a.now
	a.mu.Unlock()
	if name == "" {
		return a.choose(ctx)
	}
	return a.named(name), nil
}

// chosenSnapshot says whose snapshot it is.
type chosenSnapshot struct {
	Backend  string
	Settings json.RawMessage
}

// of finds the back-end of a snapshot. One without a name is of a lpad that knew
// NetworkManager and none only.
func (a *Auto) of(snapshot []byte) (backend, []byte, error) {
	var v chosenSnapshot
	if err := json.Unmarshal(snapshot, &v); err != nil {
		return nil, nil, fmt.Errorf("read the snapshot: %w", err)
	}
	if v.Backend == "" {
		v.Backend, v.Settings = BackendNetworkManager, snapshot
		if _, err := parseSnapshot(snapshot); err != nil {
			v.Backend = BackendNone
		}
	}
	return a.named(v.Backend), v.Settings, nil
}

// Snapshot chooses the back-end and reads what a switch will change.
func (a *Auto) Snapshot(ctx context.Context) ([]byte, error) {
	b, err := a.choose(ctx)
	if err != nil {
		return nil, fmt.Errorf("snapshot: %w", err)
	}
	settings, err := b.Snapshot(ctx)
	if err != nil {
		return nil, err
	}
	return json.Marshal(chosenSnapshot{a.Name(), settings})
}

// Working is that of the snapshot's back-end.
func (a *Auto) Working(snapshot []byte) (iccid string, apn modem.APN, ok bool) {
	b, settings, err := a.of(snapshot)
	if err != nil {
		return "", modem.APN{}, false
	}
	return b.Working(settings)
}

// Gate is that of the snapshot's back-end, which carries out all that follows.
func (a *Auto) Gate(ctx context.Context, snapshot []byte) error {
	b, settings, err := a.of(snapshot)
	if err != nil {
		return err
	}
	a.take(b, true)
	return b.Gate(ctx, settings)
}

// take makes a back-end the present one.
func (a *Auto) take(b backend, switching bool) {
	a.mu.Lock()
	a.switching = switching
	a.mu.Unlock()
	for _, name := range []string{BackendNetworkManager, BackendModemManager, BackendNone} {
		if a.named(name) == b {
			a.set(name)
		}
	}
}

// Restore is that of the snapshot's back-end.
func (a *Auto) Restore(ctx context.Context, snapshot []byte) (modem.Link, error) {
	b, settings, err := a.of(snapshot)
	if err != nil {
		return modem.Link{}, err
	}
	a.take(b, true)
	link, err := b.Restore(ctx, settings)
	if err == nil {
		a.take(b, false)
	}
	return link, err
}

// with calls the present back-end.
func with[T any](ctx context.Context, a *Auto, f func(backend) (T, error)) (T, error) {
	b, err := a.current(ctx)
	if err != nil {
		var none T
		return none, err
	}
	return f(b)
}

// Apply is the present back-end's.
func (a *Auto) Apply(ctx context.Context, iccid string, want modem.Settings) ([]string, error) {
	return with(ctx, a, func(b backend) ([]string, error) { return b.Apply(ctx, iccid, want) })
}

// Reread is the present back-end's.
func (a *Auto) Reread(ctx context.Context, iccid string) (string, error) {
	return with(ctx, a, func(b backend) (string, error) { return b.Reread(ctx, iccid) })
}

// Late is the present back-end's.
func (a *Auto) Late() []string {
	a.mu.Lock()
	name := a.now
	a.mu.Unlock()
	return a.named(name).Late()
}

// ResetSIM is the present back-end's.
func (a *Auto) ResetSIM(ctx context.Context) error { return a.do(ctx, backend.ResetSIM) }

// SIM is the present back-end's.
func (a *Auto) SIM(ctx context.Context) (modem.SIM, error) {
	return with(ctx, a, func(b backend) (modem.SIM, error) { return b.SIM(ctx) })
}

// Register is the present back-end's.
func (a *Auto) Register(ctx context.Context) (modem.Registration, error) {
	return with(ctx, a, func(b backend) (modem.Registration, error) { return b.Register(ctx) })
}

// Connect is the present back-end's.
func (a *Auto) Connect(ctx context.Context, iccid string) (modem.Link, error) {
	return with(ctx, a, func(b backend) (modem.Link, error) { return b.Connect(ctx, iccid) })
}

// Link is the present back-end's.
func (a *Auto) Link(ctx context.Context, iccid string) (modem.Link, error) {
	return with(ctx, a, func(b backend) (modem.Link, error) { return b.Link(ctx, iccid) })
}

// Commit is the present back-end's.
func (a *Auto) Commit(ctx context.Context, iccid string) error {
	return a.do(ctx, func(b backend, ctx context.Context) error {
		err := b.Commit(ctx, iccid)
		if err == nil {
			a.take(b, false)
		}
		return err
	})
}

// Forget is the present back-end's.
func (a *Auto) Forget(ctx context.Context, iccid string) error {
	return a.do(ctx, func(b backend, ctx context.Context) error { return b.Forget(ctx, iccid) })
}

// Borrow is the present back-end's. Between switches it is chosen anew. Without
// ModemManager there is nobody to borrow from, and nothing is waited for.
func (a *Auto) Borrow(ctx context.Context) error {
	a.mu.Lock()
	switching := a.switching
	a.mu.Unlock()
	if a.name == BackendAuto && !switching {
		if running, err := a.bus.Running(ctx, mm.Service); err != nil || !running {
			return ctx.Err()
		}
		if _, err := a.choose(ctx); err != nil {
			return err
		}
	}
	return a.do(ctx, backend.Borrow)
}

// GiveBack is the present back-end's.
func (a *Auto) GiveBack(ctx context.Context) error { return a.do(ctx, backend.GiveBack) }

// Online is the present back-end's.
func (a *Auto) Online(ctx context.Context) error { return a.do(ctx, backend.Online) }

func (a *Auto) do(ctx context.Context, f func(backend, context.Context) error) error {
	b, err := a.current(ctx)
	if err != nil {
		return err
	}
	return f(b, ctx)
}

// Shares reports whether card and network take turns on one port, as far as it
// is known.
func (a *Auto) Shares() bool {
	a.mu.Lock()
	name := a.now
	a.mu.Unlock()
	return name != "" && a.named(name).Shares()
}

// Follow keeps the link of the last committed profile up where ModemManager runs
// alone, until ctx ends.
func (a *Auto) Follow(ctx context.Context) { a.mmOnly.Follow(ctx) }

// Close gives the modem back if it is held.
func (a *Auto) Close(ctx context.Context) error {
	return errors.Join(a.stack.Close(ctx), a.mmOnly.Close(ctx))
}
