package operator

import (
	"context"
	"crypto/ecdsa"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"lpad/agent/client"
	"lpad/agent/rsp/rsptest/euicc"
	"lpad/cmd/lpalab/lab"
	"lpad/modem/modemtest"
)

// The operator server of a lab, behind the modem as the SM-DP+ is.
const (
	hostName = "operator.lpad.example"
	hostPort = 8443
	issuer   = "lab-operator"
)

// privateAPN is the new operator's access point for its fleet. No list of
// providers has it: a device comes on line with it only if it was told.
const privateAPN = "fleet.lpad.example"

// Lab is a device with its operator: a whole device (modem, ModemManager,
// NetworkManager, lpad), the SM-DP+ and the operator server behind the modem.
type Lab struct {
	World    *lab.World
	Device   *lab.Device
	Server   *Server
	Terminal Terminal
	Old, New Subscriber
	Plan     string

	dir    string
	client *client.Client
	stop   context.CancelFunc
	served sync.WaitGroup
}

// LabOptions shape a lab; the zero value is a device without delays.
type LabOptions struct {
	Programs string // folder with lpad, lpactl, lpad-pcsc; "": beside the running program
	Config   string // further YAML for lpad
	Timing   euicc.Timing
	Delays   modemtest.Delays
	World    func(*lab.Options)
	Answer   time.Duration // as in Config
	// ByOperator has the operator sign the orders to install, too, which are the
	// SM-DP+'s else: those are staged with their proof outstanding, which comes with
	// the session.
	ByOperator bool
}

// StartLab starts a device that is enrolled with an operator, which has one
// profile in stock, and parameters for such terminals and for others.
func StartLab(ctx context.Context, o LabOptions) (_ *Lab, err error) {
	l := &Lab{}
	defer func() {
		if err != nil {
			err = errors.Join(err, l.Close())
		}
	}()
	wo := lab.Options{Timing: o.Timing}
	if o.World != nil {
		o.World(&wo)
	}
	if l.World, err = lab.New(wo); err != nil {
		return nil, err
	}
	if l.dir, err = os.MkdirTemp("", "lpad-operator-"); err != nil {
		return nil, err
	}
	subscriber := lab.NewOperator
	subscriber.APN = privateAPN
	l.Plan = subscriber.Plan
	l.Old, l.New = inNetwork(lab.OldOperator), inNetwork(subscriber)
	modem := modemtest.UBlox
	l.Terminal = Terminal{EID: l.World.Card.EID(), IMEI: modem.IMEI, Model: modem.Model}
	var smdpKey *ecdsa.PrivateKey
	if !o.ByOperator {
		if smdpKey, err = l.smdpKey(); err != nil {
			return nil, err
		}
	}
	if l.Server, err = New(Config{SMDPKey: smdpKey, Name: issuer, Host: hostName, Port: hostPort, SMDP: l.World.SMDP, Answer: o.Answer}); err != nil {
		return nil, err
	}
	if err := l.stock(subscriber); err != nil {
		return nil, err
	}
	configuration, err := l.Server.Enrol(l.dir)
	if err != nil {
		return nil, err
	}
	hooks, err := l.writeHooks()
	if err != nil {
		return nil, err
	}
	l.Device, err = l.World.StartDevice(ctx, lab.DeviceOptions{Programs: o.Programs, Config: configuration + hooks + o.Config,
		Modem: func(c *modemtest.Config) {
			c.Dialect, c.Delays = modem, o.Delays
			c.Subscriptions = []modemtest.Subscription{lab.OldOperator.Subscription(), subscriber.Subscription()}
		},
		Stack: func(c *modemtest.StackConfig) { c.Hosts = append(c.Hosts, hostName) }})
	if err != nil {
		return nil, err
	}
	l.client = l.Device.Client()
	listener, err := l.Device.Stack.Listen("tcp", net.JoinHostPort(modemtest.ServerAddr.String(), strconv.Itoa(hostPort)))
	if err != nil {
		return nil, err
	}
	var serving context.Context
	serving, l.stop = context.WithCancel(context.WithoutCancel(ctx))
	l.served.Go(func() {
		// An error of the listener shows as a server that gets no reports.
		_ = l.Server.Serve(serving, listener)
	})
	return l, nil
}

// smdpKey is the key by which the lab's SM-DP+ proves itself to eUICCs.
func (l *Lab) smdpKey() (*ecdsa.PrivateKey, error) {
	signer, err := l.World.PKI.DPAuth.Key.Signer()
	if err != nil {
		return nil, err
	}
	key, ok := signer.(*ecdsa.PrivateKey)
	if !ok {
		return nil, errors.New("the key of the SM-DP+ is not for ECDSA")
	}
	return key, nil
}

// hookScript is a program of the device's maker that does nothing but note that
// it was called.
const hookScript = `#!/bin/sh
echo "$(date +%%s%%N) $LPAD_EVENT $LPAD_ICCID ${LPAD_APN:--}" >>%q
`

// writeHooks puts that program where lpad looks for each of its events.
func (l *Lab) writeHooks() (configuration string, err error) {
	dir := filepath.Join(l.dir, "hooks.d")
	for _, event := range []string{"staged", "activated", "applied", "rolled-back"} {
		folder := filepath.Join(dir, event+".d")
		if err := os.MkdirAll(folder, 0o755); err != nil {
			return "", err
		}
		if err := os.WriteFile(filepath.Join(folder, "10-note"), fmt.Appendf(nil, hookScript, l.hookLog()), 0o755); err != nil {
			return "", err
		}
	}
	return fmt.Sprintf("hooks: {dir: %s}\n", dir), nil
}

func (l *Lab) hookLog() string { return filepath.Join(l.dir, "hooks.log") }

// hookCalls reads what the hooks have noted.
func (l *Lab) hookCalls() ([]HookCall, error) {
	text, err := os.ReadFile(l.hookLog())
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var calls []HookCall
	for line := range strings.Lines(string(text)) {
		var ns int64
		var h HookCall
		if _, err := fmt.Sscan(line, &ns, &h.Event, &h.ICCID, &h.APN); err != nil {
			return nil, fmt.Errorf("the hooks have noted %q: %w", line, err)
		}
		h.At = time.Unix(0, ns)
		calls = append(calls, h)
	}
	return calls, nil
}

// stock fills the registries. The row for all terminals would not do here: that
// the right one is chosen is part of the flow.
func (l *Lab) stock(s lab.Subscriber) error {
	const size = 12_000
	order, err := lab.NewOrder("FLEET", s, size)
	if err != nil {
		return err
	}
	document := func(apn string) map[string]any {
		return map[string]any{"apns": []any{map[string]any{"name": apn, "purposes": []any{"default", "ia"}, "pdnType": "v4"}}}
	}
	l.Server.AddParameters(Parameters{Plan: s.Plan, Document: document("phones.lpad.example")})
	l.Server.AddParameters(Parameters{Plan: s.Plan, TAC: l.Terminal.TAC(), Generation: 7, Document: document(s.APN)})
	return l.Server.AddProfile(Profile{ICCID: order.Metadata.ICCID, Plan: s.Plan, Order: order})
}

func inNetwork(s lab.Subscriber) Subscriber {
	return Subscriber{ICCID: s.ICCID, IMSI: s.IMSI, APN: s.APN, Address: s.Address.Addr()}
}

// Close ends the device and the servers.
func (l *Lab) Close() error {
	var errs []error
	if l.client != nil {
		l.client.Close()
	}
	if l.Device != nil {
		errs = append(errs, l.Device.Close())
	}
	if l.stop != nil {
		l.stop()
		l.served.Wait()
	}
	if l.World != nil {
		l.World.Close()
	}
	if l.dir != "" {
		errs = append(errs, os.RemoveAll(l.dir))
	}
	return errors.Join(errs...)
}

// Link is the link to the device: its local socket.
func (l *Lab) Link() Link { return Socket(l.client) }

// Story is what everybody has written down of a process so far.
func (l *Lab) Story(ctx context.Context, p Process) (*Story, error) {
	jobs, err := l.client.Jobs(ctx)
	if err != nil {
		return nil, fmt.Errorf("the daemon's jobs: %w", err)
	}
	hooks, err := l.hookCalls()
	if err != nil {
		return nil, err
	}
	return &Story{Hooks: hooks, Old: l.Old, New: l.New, Process: p, Record: l.Server.Record(), Calls: l.World.SMDP.Calls(), Notifications: l.World.SMDP.Notifications(),
		Jobs: jobs.Jobs, Modem: l.Device.Stack.Modem.Log().Entries()}, nil
}

// Flow provisions the device, and returns what everybody has written down of it.
func (l *Lab) Flow(ctx context.Context, when Activation) (*Story, error) {
	p, err := l.Server.Provision(ctx, Request{Terminal: l.Terminal, Plan: l.Plan, Activation: when, Link: l.Link()})
	s, serr := l.Story(ctx, p)
	return s, errors.Join(err, serr)
}

// FlowAtATime is [Lab.Flow] with an activation that the device itself waits for,
// and in the course of which lpad is stopped and started again. The time at which
// the device may begin is returned with the story.
func (l *Lab) FlowAtATime(ctx context.Context, wait time.Duration) (*Story, time.Time, error) {
	link := &restarting{Link: l.Link(), lab: l}
	p, err := l.Server.Provision(ctx, Request{Terminal: l.Terminal, Plan: l.Plan, Activation: l.Staged, EnableIn: wait, Link: link})
	s, serr := l.Story(ctx, p)
	return s, link.due, errors.Join(err, serr)
}

// restarting is a link behind which lpad is restarted while an activation waits
// for its time.
type restarting struct {
	Link
	lab *Lab
	due time.Time
}

// Submit hands an order over.
func (r *restarting) Submit(ctx context.Context, order []byte) (string, error) {
	id, err := r.Link.Submit(ctx, order)
	if err != nil {
		return id, err
	}
	j, err := r.lab.client.Job(ctx, id)
	if err != nil || j.Kind != enable {
		return id, err
	}
	if err := r.waits(ctx, id); err != nil {
		return id, err
	}
	if err := r.lab.Device.Stop(); err != nil {
		return id, fmt.Errorf("stop lpad: %w", err)
	}
	if err := r.lab.Device.Start(ctx); err != nil {
		return id, err
	}
	return id, r.waits(ctx, id)
}

// waits makes sure that the job waits for its time.
func (r *restarting) waits(ctx context.Context, id string) error {
	const scheduled = "scheduled"
	for {
		j, err := r.lab.client.Job(ctx, id)
		if err != nil {
			return fmt.Errorf("the job of the activation: %w", err)
		}
		if enabled, ok := r.lab.World.Card.EnabledICCID(); j.Ended || !ok || enabled.String() != r.lab.Old.ICCID {
			return fmt.Errorf("the job of the activation is %s, and %s is enabled, before its time", j.State, enabled)
		}
		if j.State == scheduled {
			r.due = j.EnableAt
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// Staged is an activation on command, which is given when it is certain that
// nothing of the loaded profile has been applied yet.
func (l *Lab) Staged(ctx context.Context, p Process) error {
	if enabled, ok := l.World.Card.EnabledICCID(); !ok || enabled.String() != l.Old.ICCID {
		return fmt.Errorf("profile %s is enabled before the activation was ordered", enabled)
	}
	for _, c := range l.Device.Stack.Modem.State().Contexts {
		if c.APN != l.Old.APN {
			return fmt.Errorf("the modem has the access point %q before the activation was ordered", c.APN)
		}
	}
	e, err := l.client.Effective(ctx, p.ICCID.String())
	if err != nil {
		return fmt.Errorf("what is staged: %w", err)
	}
	for _, v := range e.Parameters {
		if v.Leaf == "apns.default" {
			if v.State != "staged" || !strings.Contains(string(v.Value), l.New.APN) {
				return fmt.Errorf("the access point of the profile that was loaded is %s of %s, %s", v.Value, v.Source, v.State)
			}
			return nil
		}
	}
	return fmt.Errorf("nothing is staged for %s", p.ICCID)
}

// PrintSteps writes the steps as they were found, with where and when.
func PrintSteps(w io.Writer, steps []Step) {
	for i, s := range steps {
		fmt.Fprintf(w, "%2d  %8.3f  %-9s %s\n", i+1, s.At.Sub(steps[0].At).Seconds(), s.Place, s.Name)
	}
}
