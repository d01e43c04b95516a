package operator

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"time"

	"lpad/agent/orders/orderstest"
	"lpad/agent/rsp"
	"lpad/agent/rsp/rsptest/smdp"
)

// Request asks for a device to be provisioned.
type Request struct {
	Terminal   Terminal
	Plan       string
	Activation Activation
	EnableIn   time.Duration // the device itself waits, for so long after the activation was ordered; 0: at once
	DeleteOld  bool          // have the device delete the profile that it used before
	Link       Link
}

// Activation says when a loaded profile is to be activated: it returns when the
// time has come, or an error that suspends the process. nil is at once.
type Activation func(ctx context.Context, p Process) error

// At is an activation at a time, or at once if that has passed.
func At(t time.Time) Activation {
	return func(ctx context.Context, _ Process) error {
		timer := time.NewTimer(time.Until(t))
		defer timer.Stop()
		select {
		case <-timer.C:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// OnCommand is an activation when command gives something, or is closed.
func OnCommand(command <-chan struct{}) Activation {
	return func(ctx context.Context, _ Process) error {
		select {
		case <-command:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// ProcessState is where a process stands.
type ProcessState string

// The states of a process.
const (
	Begun     ProcessState = "begun"
	Waiting   ProcessState = "waiting" // loaded; the activation is not ordered yet
	Done      ProcessState = "done"
	Suspended ProcessState = "suspended" // something was refused or has failed: a person must look
)

// Process is one device on its way to a profile.
type Process struct {
	ID         int
	Terminal   Terminal
	Plan       string
	ICCID      rsp.ICCID
	Generation int64 // of the parameters
	State      ProcessState
	InstallJob string // the device's names of the jobs
	EnableJob  string
	Stage      string // in which a suspended one was
	Reason     string // why
}

// SuspendedError is why a process was suspended.
type SuspendedError struct {
	Stage string // "install order", "load", "activation order", "activation", "report"
	Err   error
}

// Error says what failed and why.
func (e *SuspendedError) Error() string {
	return "process suspended at " + e.Stage + ": " + e.Err.Error()
}

// Unwrap is the cause.
func (e *SuspendedError) Unwrap() error { return e.Err }

// Stages of a process.
const (
	stageInstallOrder = "install order"
	stageLoad         = "load"
	stageEnableOrder  = "activation order"
	stageActivation   = "activation"
	stageReport       = "report"
)

// process is one with what only the server knows of it.
type process struct {
	Process
	row        *Parameters
	matchingID string
	token      string // of the address of its reports
	begun      time.Time
	activation smdp.Notification // of the eUICC, once it has come
	reports    []Report
}

// Provision brings a terminal to a profile of a plan and returns when its
// report has come. An error is a [*SuspendedError], but for a request that
// cannot be met at all; the process is returned all the same.
func (s *Server) Provision(ctx context.Context, r Request) (Process, error) {
	p, order, err := s.begin(r)
	if err != nil {
		return Process{}, err
	}
	for _, step := range []struct {
		stage string
		do    func() error
	}{
		{stageInstallOrder, func() error { return s.orderInstall(ctx, p, r, order) }},
		{stageLoad, func() error { return s.awaitLoaded(ctx, p) }},
		{stageEnableOrder, func() error { return s.orderEnable(ctx, p, r) }},
		{stageActivation, func() error { return s.awaitActivated(ctx, p) }},
		{stageReport, func() error { return s.awaitReport(ctx, p) }},
	} {
		if err := step.do(); err != nil {
			return s.suspend(p, step.stage, err)
		}
	}
	s.write(Entry{What: Finished, Process: p.ID, ICCID: p.ICCID.String(), Text: "both registries are up to date"})
	return s.end(p, Done), nil
}

// begin chooses profile and parameters and books the profile for the terminal
// at the SM-DP+, which will give it to no other.
func (s *Server) begin(r Request) (*process, smdp.Order, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.processes) >= maxProcesses {
		return nil, smdp.Order{}, errors.New("provision: too many processes")
	}
	profile, row, err := s.choose(r.Plan, r.Terminal)
	if err != nil {
		return nil, smdp.Order{}, fmt.Errorf("provision: %w", err)
	}
	p := &process{row: row, token: rand.Text(), begun: s.config.Now()}
	p.Process = Process{ID: len(s.processes) + 1, Terminal: r.Terminal, Plan: r.Plan, ICCID: profile.ICCID, Generation: row.Generation, State: Begun}
	profile.State, profile.EID, profile.Since = Ordered, r.Terminal.EID, p.begun
	order := profile.Order
	p.matchingID = fmt.Sprintf("%s-%d", order.MatchingID, p.ID)
	order.MatchingID, order.EID = p.matchingID, r.Terminal.EID
	if tac := r.Terminal.TAC(); tac != "" {
		order.TACs = []string{tac}
	}
	s.processes = append(s.processes, p)
	s.writeLocked(Entry{What: Requested, Process: p.ID, ICCID: p.ICCID.String(),
		Text: fmt.Sprintf("plan %q for TAC %s: profile %s, parameters %d", r.Plan, r.Terminal.TAC(), p.ICCID, p.Generation)})
	return p, order, nil
}

// orderInstall has the profile loaded and its parameters staged.
func (s *Server) orderInstall(ctx context.Context, p *process, r Request, order smdp.Order) error {
	if err := s.config.SMDP.AddOrder(order); err != nil {
		return err
	}
	document, err := p.row.documentFor(p.ICCID)
	if err != nil {
		return err
	}
	p.InstallJob, err = s.submit(ctx, p, r.Link, OrderSigned, orderstest.Payload{
		Action: actionInstall, ActivationCode: s.config.SMDP.ActivationCode(p.matchingID), MatchingID: p.matchingID, ICCID: p.ICCID.String(),
		Enable: enableOnCommand, Parameters: document,
	})
	return err
}

// orderEnable is the activation request, when its time has come.
func (s *Server) orderEnable(ctx context.Context, p *process, r Request) error {
	s.mu.Lock()
	p.State = Waiting
	now := p.Process
	s.mu.Unlock()
	if r.Activation != nil {
		if err := r.Activation(ctx, now); err != nil {
			return err
		}
	}
	order := orderstest.Payload{Action: actionEnable, ICCID: p.ICCID.String(), DeleteOld: r.DeleteOld}
	if r.EnableIn > 0 {
		order.Enable = s.config.Now().Add(r.EnableIn).UTC().Format(time.RFC3339Nano)
	}
	var err error
	p.EnableJob, err = s.submit(ctx, p, r.Link, ActivationOrdered, order)
	return err
}

// submit composes, signs and hands over an order.
func (s *Server) submit(ctx context.Context, p *process, link Link, what What, order orderstest.Payload) (job string, err error) {
	order, text, err := s.sign(p, order)
	if err != nil {
		return "", err
	}
	s.write(Entry{What: what, Process: p.ID, ICCID: p.ICCID.String(), Seq: order.Serial, Text: summary(order)})
	if job, err = link.Submit(ctx, text); err != nil {
		return "", fmt.Errorf("the device does not take the order: %w", err)
	}
	s.write(Entry{What: OrderTaken, Process: p.ID, ICCID: p.ICCID.String(), Seq: order.Serial, Text: fmt.Sprintf("order %d to %s is job %s", order.Serial, order.Action, job)})
	return job, nil
}

// awaitLoaded waits for the SM-DP+ to hear of the installation.
func (s *Server) awaitLoaded(ctx context.Context, p *process) error {
	n, report, err := s.await(ctx, p, rsp.EventInstall, func(r Report) bool { return r.Job == p.InstallJob && r.Outcome != outcomeDone })
	switch {
	case err != nil:
		return fmt.Errorf("no notification of the installation: %w", err)
	case report != nil:
		return report.failure()
	case n.Result != "installed":
		return fmt.Errorf("the eUICC has not installed the profile: %s", n.Result)
	}
	s.write(Entry{At: n.Time, What: ProfileLoaded, Process: p.ID, Peer: n.Peer, ICCID: n.ICCID.String(), Seq: n.SeqNumber, Text: fmt.Sprintf("notification %d of the eUICC, signature good", n.SeqNumber)})
	s.move(p.ICCID, Loaded)
	return nil
}

// awaitActivated waits for the SM-DP+ to hear of the activation.
func (s *Server) awaitActivated(ctx context.Context, p *process) error {
	n, report, err := s.await(ctx, p, rsp.EventEnable, func(r Report) bool { return r.Job == p.EnableJob && r.Outcome != outcomeDone })
	switch {
	case err != nil:
		return fmt.Errorf("no notification of the activation: %w", err)
	case report != nil:
		return s.failed(p, report)
	}
	p.activation = n
	s.write(Entry{At: n.Time, What: ProfileActivated, Process: p.ID, Peer: n.Peer, ICCID: n.ICCID.String(), Seq: n.SeqNumber, Text: fmt.Sprintf("notification %d of the eUICC, signature good", n.SeqNumber)})
	return nil
}

// awaitReport waits for the report of the switch, which also comes when the
// switch was taken back after the eUICC had confirmed it. Then, and only then,
// the registries say that the profile is in use and that the parameters do.
func (s *Server) awaitReport(ctx context.Context, p *process) error {
	_, report, err := s.await(ctx, p, noEvent, func(r Report) bool { return r.Job == p.EnableJob })
	switch {
	case err != nil:
		return fmt.Errorf("no report of the parameters: %w", err)
	case report.Outcome != outcomeDone:
		return s.failed(p, report)
	case report.Activation != p.activation.SeqNumber:
		return fmt.Errorf("the report is of the activation %d, the notification of %d", report.Activation, p.activation.SeqNumber)
	case report.ICCID != p.ICCID.String():
		return fmt.Errorf("the report is of the profile %s", report.ICCID)
	case len(report.Parameters) == 0:
		return errors.New("the report names no parameters")
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if profile := s.profile(p.ICCID); profile != nil {
		profile.State, profile.Since = Active, p.activation.Time
	}
	p.row.Applied++
	p.row.Last = &Applied{ICCID: p.ICCID, At: report.AppliedAt, Values: report.Parameters}
	return nil
}

// failed counts a device that did not come on line with the parameters.
func (s *Server) failed(p *process, r *Report) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	p.row.Failed++
	return r.failure()
}

// noEvent is one that no notification has.
const noEvent rsp.Event = 0

// failure is the report of a job that did not do what it should.
func (r *Report) failure() error {
	if r.Fault == nil {
		return fmt.Errorf("the device reports %s", r.Outcome)
	}
	return fmt.Errorf("the device reports %s in state %s: %s (%s)", r.Outcome, r.Fault.State, r.Fault.Text, r.Fault.Code)
}

// await waits for the first notification of an event of the
// process's profile, or report that is wanted, whichever is first.
func (s *Server) await(ctx context.Context, p *process, event rsp.Event, wanted func(Report) bool) (smdp.Notification, *Report, error) {
	ctx, cancel := context.WithTimeout(ctx, s.config.Answer)
	notified := make(chan smdp.Notification, 1)
	ended := make(chan struct{})
	defer func() { cancel(); <-ended }()
	go func() {
		defer close(ended)
		n, err := s.config.SMDP.WaitNotification(ctx, func(n smdp.Notification) bool {
			return event != noEvent && n.Event == event && n.Verified && n.ICCID == p.ICCID && n.EID == p.Terminal.EID && !n.Time.Before(p.begun)
		})
		if err == nil {
			notified <- n
		} // else ctx has ended, which the loop sees
	}()
	for {
		s.mu.Lock()
		changed := s.changed
		for i := range p.reports {
			if wanted(p.reports[i]) {
				report := p.reports[i]
				s.mu.Unlock()
				return smdp.Notification{}, &report, nil
			}
		}
		s.mu.Unlock()
		select {
		case n := <-notified:
			return n, nil, nil
		case <-changed:
		case <-ctx.Done():
			return smdp.Notification{}, nil, ctx.Err()
		}
	}
}

// suspend ends a process that a person must look at. A profile that no device
// can have by now is free again.
func (s *Server) suspend(p *process, stage string, err error) (Process, error) {
	s.write(Entry{What: SuspendedEntry, Process: p.ID, ICCID: p.ICCID.String(), Text: stage + ": " + err.Error()})
	switch stage {
	case stageInstallOrder:
		s.move(p.ICCID, Free)
	case stageLoad:
		if !errors.Is(err, context.DeadlineExceeded) { // else nobody knows
			s.move(p.ICCID, Free)
		}
	}
	s.mu.Lock()
	p.Stage, p.Reason = stage, err.Error()
	s.mu.Unlock()
	return s.end(p, Suspended), &SuspendedError{stage, err}
}

func (s *Server) end(p *process, state ProcessState) Process {
	s.mu.Lock()
	defer s.mu.Unlock()
	p.State = state
	return p.Process
}

// Processes are all processes as they stand, oldest first.
func (s *Server) Processes() []Process {
	s.mu.Lock()
	defer s.mu.Unlock()
	var list []Process
	for _, p := range s.processes {
		list = append(list, p.Process)
	}
	return list
}

// outcomeDone is the outcome of a job that did what it should.
const outcomeDone = "done"
