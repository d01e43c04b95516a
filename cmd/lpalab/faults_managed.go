package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"time"

	"lpad/agent/api"
	"lpad/agent/rsp/rsptest/euicc"
	"lpad/agent/rsp/rsptest/pki"
	"lpad/cmd/lpalab/lab"
	"lpad/modem/modemtest"
)

// managedStates are where the faults of a device with ModemManager and
// NetworkManager strike; the index of such a fault is a place in this list,
// from 1.
var managedStates = []string{"snapshotting", "gating", "enabling", "applying", "rereading", "verifying", "committing", "confirming"}

// Bounds of an injection on a device with managers.
const (
	managedLimit   = 2 * time.Minute
	managedDevices = 2 // at once: each keeps a bus and two managers busy
)

// managedKinds are the faults that need the real managers.
var managedKinds = []struct {
	name, what string
	do         func(ctx context.Context, d *lab.Device) error
}{
	{"managed-kill", "kill -9 of the daemon in a state of a switch, with ModemManager and NetworkManager around it", killAgent},
	{"managed-mm-restart", "kill -9 of ModemManager in a state of a switch, and it is started again", func(ctx context.Context, d *lab.Device) error {
		return d.Stack.RestartManager(ctx, modemtest.ModemManager, 0)
	}},
	{"managed-nm-restart", "kill -9 of NetworkManager in a state of a switch, and it is started again", func(ctx context.Context, d *lab.Device) error {
		return d.Stack.RestartManager(ctx, modemtest.NetworkManager, 0)
	}},
	{"managed-mm-absent", "ModemManager is away for three seconds from a state of a switch on", func(ctx context.Context, d *lab.Device) error {
		return d.Stack.RestartManager(ctx, modemtest.ModemManager, 3*time.Second)
	}},
	{"managed-all", "kill -9 of daemon, ModemManager and NetworkManager in a state of a switch", func(ctx context.Context, d *lab.Device) error {
		return errors.Join(d.Kill(), d.Stack.RestartManager(ctx, modemtest.ModemManager, 0), d.Stack.RestartManager(ctx, modemtest.NetworkManager, 0), d.Start(ctx))
	}},
}

func killAgent(ctx context.Context, d *lab.Device) error { return errors.Join(d.Kill(), d.Start(ctx)) }

// managedScenario is the switch on such a device.
var managedScenario = &scenario{name: "device", what: "switch to an installed profile, with the real ModemManager and NetworkManager",
	installed: true, before: bothOld, after: bothNew, managed: true}

// runManaged does one fault to a switch on a device with managers.
func runManaged(ctx context.Context, p *pki.PKI, programs string, f *fault, verbose bool) (res result) {
	ctx, cancel := context.WithTimeout(ctx, managedLimit)
	defer cancel()
	begin := time.Now()
	res.fault = f
	defer func() { res.took = time.Since(begin) }()
	lost := func(name string, err error) { res.violations = append(res.violations, violation{name, err.Error()}) }
	note := func(format string, a ...any) {
		line := fmt.Sprintf("%8.3f %s", time.Since(begin).Seconds(), fmt.Sprintf(format, a...))
		res.history = append(res.history, line)
		if verbose {
			fmt.Println(line)
		}
	}
	store := &recordingStore{made: map[int64]noteSeen{}}
	w, err := lab.New(lab.Options{PKI: p, ProfileSize: faultProfileSize, Card: func(c *euicc.Config) {
		c.Store = store
		c.Profiles = append(c.Profiles, factoryProfile(lab.NewOperator))
	}})
	if err != nil {
		lost("the lab itself", err)
		return res
	}
	defer w.Close()
	d, err := w.StartDevice(ctx, lab.DeviceOptions{Programs: programs})
	if err != nil {
		lost("the lab itself", err)
		return res
	}
	defer func() {
		res.log = d.Log()
		if verbose {
			res.log += "--- the modem's log\n" + d.Stack.Modem.Log().String()
		}
		if err := d.Close(); err != nil && f == nil {
			lost("the lab itself", err)
		}
	}()
	m := &managedRun{device: d, note: note, fault: f}
	m.client = d.Client()
	defer m.client.Close()
	if err := m.converge(ctx); err != nil {
		lost("converges", err)
	}
	res.reached = m.struck
	if f != nil && !m.struck {
		return res
	}
	x := managedScenario.expects()
	e, err := m.evidence(ctx, w, store, x)
	if err != nil {
		lost("responsive", err)
		return res
	}
	if err := d.Stop(); err != nil {
		e.StopError = err.Error()
	}
	readJournal(filepath.Join(d.Dir, "var", "journal"), &e)
	res.violations = append(res.violations, check(e, x)...)
	if iccid, _ := w.Card.EnabledICCID(); f == nil && iccid.String() != newICCID {
		lost("done", fmt.Errorf("without a fault %s is enabled", iccid))
	}
	for _, v := range res.violations {
		note("LOST %s", v)
	}
	return res
}

// managedRun is a switch under way.
type managedRun struct {
	device *lab.Device
	client interface {
		Enable(ctx context.Context, iccid string, r api.EnableRequest) (api.Job, error)
		Status(ctx context.Context) (api.Status, error)
		Jobs(ctx context.Context) (api.Jobs, error)
		Close()
	}
	fault  *fault
	note   func(string, ...any)
	struck bool
}

// converge orders, lets the fault strike in its state, and orders again what
// failed and may succeed.
func (m *managedRun) converge(ctx context.Context) error {
	order := func() error {
		j, err := m.client.Enable(ctx, newICCID, api.EnableRequest{Parameters: parametersFor(newICCID)})
		m.note("ordered: %s %v", j.ID, err)
		return err
	}
	if err := order(); err != nil {
		return err
	}
	var last api.Status
	seen, reorders := "", 0
	for {
		s, err := m.client.Status(ctx)
		if err == nil {
			last = s
			if s.Job != nil && s.Job.State != seen {
				seen = s.Job.State
				m.note("job %s: %s", s.Job.ID, seen)
			}
			if m.fault != nil && !m.struck && s.Job != nil && s.Job.State == managedStates[m.fault.index-1] {
				m.struck = true
				m.note("FAULT in state %s", s.Job.State)
				if err := m.fault.managed(ctx, m.device); err != nil {
					return fmt.Errorf("the lab itself: %w", err)
				}
				m.note("fault over")
				continue
			}
			if resting(s) {
				jobs, err := m.client.Jobs(ctx)
				if err != nil || len(jobs.Jobs) == 0 {
					return fmt.Errorf("no job is known any more: %w", err)
				}
				j := jobs.Jobs[0]
				if j.State == "failed" {
					m.note("job %s failed: %v", j.ID, j.Problem)
				}
				if j.State != "failed" || j.Problem == nil || !j.Problem.Retry || reorders == maxReorders {
					return nil
				}
				reorders++
				if err := order(); err != nil {
					m.note("order: %v", err)
				}
			}
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("not at rest: state %q, job %+v (%w)", last.State, last.Job, errors.Join(err, ctx.Err()))
		case <-time.After(3 * time.Millisecond):
		}
	}
}

// evidence asks everybody, NetworkManager too, until nothing is wrong or a
// while has passed.
func (m *managedRun) evidence(ctx context.Context, w *lab.World, store *recordingStore, x expectation) (evidence, error) {
	agent := m.device.Client()
	defer agent.Close()
	for limit := time.Now().Add(convergeLimit); ; time.Sleep(100 * time.Millisecond) {
		e, err := witnesses{agent: agent, world: w, modem: m.device.Stack.Modem, store: store}.evidence(ctx)
		e.Orders, e.Managed = nil, true
		if err == nil {
			e.Connections, err = m.device.Stack.ActiveConnections(ctx)
		}
		if err == nil && len(check(e, x)) == 0 || time.Now().After(limit) || ctx.Err() != nil {
			return e, err
		}
	}
}
