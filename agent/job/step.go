package job

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"lpad/agent/rsp"
	"lpad/internal/fault"
)

// EventKind names what happened.
type EventKind string

// The events.
const (
	Start         EventKind = "start"         // the job's turn has come, or its time
	Authenticated EventKind = "authenticated" // both sides are proven; Profile, TransactionID and CodeRequired are known
	Answered      EventKind = "answered"      // a person consented (Accept) or refused
	Expired       EventKind = "expired"       // nobody answered in time
	Prepared      EventKind = "prepared"      // the bound profile package is here and checked
	Loaded        EventKind = "loaded"        // the eUICC reports a successful installation
	Interrupted   EventKind = "interrupted"   // a restart cut the loading off, and the card has nothing of it
	Delivered     EventKind = "delivered"     // notifications went out; Undelivered says how many wait
	Snapshotted   EventKind = "snapshotted"   // Snapshot holds the settings of before, Previous the profile
	Gated         EventKind = "gated"         // nothing can attach until the gate opens
	Enabled       EventKind = "enabled"       // the eUICC confirmed, or its state says so
	Applied       EventKind = "applied"       // the new APN is on the modem
	Reread        EventKind = "reread"        // the modem shows the new ICCID
	Online        EventKind = "online"        // registered, bearer up, probe passed
	Committed     EventKind = "committed"     // the gate is open, the new settings stay
	RolledBack    EventKind = "rolled-back"   // the previous profile and its settings are back
	Disabled      EventKind = "disabled"
	Deleted       EventKind = "deleted"
	Renamed       EventKind = "renamed"
	EndedSession  EventKind = "ended"   // the RSP session is cancelled
	Abort         EventKind = "abort"   // somebody asks to stop the job
	Fail          EventKind = "failed"  // the action went wrong; Problem says how
	Resumed       EventKind = "resumed" // the daemon was restarted
)

// Event is one thing that happened, with what is learned by it.
type Event struct {
	Kind EventKind
	At   time.Time
	Note string // for the timeline, no identifiers, no secrets

	SMDP          string // Authenticated, when discovery found the server
	MatchingID    string
	TransactionID string
	CodeRequired  bool
	NeedsPerson   bool // Authenticated: policy wants a person's consent beyond the order's
	Verified      bool // Authenticated: the signature of the order is good
	Profile       *ProfileFacts
	Accept        bool
	Undelivered   int
	Previous      rsp.ICCID
	Snapshot      json.RawMessage
	APN, Source   string
	Rung          string
	Link          json.RawMessage
	Good          json.RawMessage // Snapshotted, Online: settings that carried data, opaque to us
	Trial         json.RawMessage // Fail, Online: who said what did not pass its trial, opaque to us
	Problem       *Problem

	Parameters []Parameter // Delivered, Snapshotted, Applied, Online: what is wanted, or set
	Activation int64       // Committed: sequence number of the enable notification
	Hooks      []HookRun   // of any event: hooks that have ended
}

// ActionKind names what is to be done.
type ActionKind string

// The actions, one for each state that does something.
const (
	ActNone         ActionKind = ""
	ActAuthenticate ActionKind = "authenticate"
	ActAskConsent   ActionKind = "ask-consent"
	ActPrepare      ActionKind = "prepare"
	ActLoad         ActionKind = "load"
	ActDeliver      ActionKind = "deliver"
	ActSnapshot     ActionKind = "snapshot"
	ActGate         ActionKind = "gate"
	ActEnable       ActionKind = "enable"
	ActApply        ActionKind = "apply"
	ActReread       ActionKind = "reread"
	ActVerify       ActionKind = "verify"
	ActRetry        ActionKind = "retry"
	ActCommit       ActionKind = "commit"
	ActRollback     ActionKind = "rollback"
	ActDisable      ActionKind = "disable"
	ActDelete       ActionKind = "delete"
	ActRename       ActionKind = "rename"
	ActCancel       ActionKind = "cancel"
)

// Action is one thing to do now that the job's state is durable.
type Action struct {
	Kind  ActionKind
	Delay time.Duration // wait so long first
	Query bool          // a restart lies behind: ask for the truth before acting
	Why   rsp.CancelReason
}

// A device between two profiles is the worst outcome there is, so a rollback
// that may succeed later (the modem is away, the card is busy) is tried for
// most of a day, with a pause that grows by rollbackPause each time up to
// maxRollbackPause. One that was refused for good is tried maxRefusedTries
// times. After that, or when somebody aborts it, the job ends and says that the
// device needs a person.
const (
	maxRollbackTries = 200
	maxRefusedTries  = 5
	rollbackPause    = 5 * time.Second
	maxRollbackPause = 5 * time.Minute
)

// A profile that was enabled where none was has nothing behind it to go back
// to, and disabling it would only take away the chance that it comes online
// later. It stays enabled, and its access points are tried again for a day or
// so, with a pause that grows by retryPause each time up to maxRetryPause.
const (
	maxRetries    = 100
	retryPause    = 10 * time.Second
	maxRetryPause = 10 * time.Minute
)

// Codes of problems that replace the one that had led to them.
const (
	codeOffline  = "first-profile-offline"
	codeStranded = "rollback-failed"
)

// MaxRestarts is how often the daemon or the device may restart within one
// switch. The dead-man time survives a restart, but not every device has a
// clock that does: one that goes down again and again, perhaps because of what
// the new profile makes its modem do, would otherwise never be given up.
const MaxRestarts = 5

// ErrUnexpected means that a state does not know an event. The job is unchanged.
var ErrUnexpected = errors.New("unexpected event")

type pair struct {
	state State
	event EventKind
}

// transitions is the chart of the package comment. A handler returns the next
// state; enter and the action of that state follow by themselves.
var transitions = map[pair]func(*Job, Event) State{
	{Queued, Start}: start,
	{Queued, Abort}: aborted(Cancelled),

	{Authenticating, Authenticated}: authenticated,
	{Authenticating, Abort}:         aborted(Cancelling),
	{Authenticating, Fail}:          broken(Failed),

	{Consent, Answered}: answered,
	{Consent, Expired}:  expired,
	{Consent, Abort}:    aborted(Cancelling),
	{Consent, Fail}:     broken(Failed),

	{Preparing, Prepared}:    to(Loading),
	{Preparing, Interrupted}: to(Authenticating), // begun anew; nothing is used up
	{Preparing, Abort}:       aborted(Cancelling),
	{Preparing, Fail}:        broken(Failed),

	{Loading, Loaded}:      loaded,
	{Loading, Interrupted}: to(Authenticating), // the order is still good; the server counts the tries
	{Loading, Fail}:        broken(Notifying),  // a failed installation has a notification too

	{Reporting, Delivered}: reported,

	{Scheduled, Start}: to(Snapshotting),
	{Scheduled, Abort}: aborted(Cancelled),

	{Snapshotting, Snapshotted}: snapshotted,
	{Snapshotting, Fail}:        broken(Failed),
	{Gating, Gated}:             to(Enabling),
	{Gating, Fail}:              broken(RollingBack),
	{Enabling, Enabled}:         enabled,
	{Enabling, Fail}:            broken(RollingBack),
	{Applying, Applied}:         applied,
	{Applying, Fail}:            offline,
	{Rereading, Reread}:         reread,
	{Rereading, Fail}:           offline,
	{Verifying, Online}:         online,
	{Verifying, Fail}:           offline,
	{Retrying, Online}:          online,
	{Retrying, Fail}:            offline,
	{Retrying, Abort}:           retryAborted,
	{Committing, Committed}:     to(Confirming),
	{Committing, Fail}:          noted(Confirming), // the network is up: what could not be tidied is no reason to go back
	{Confirming, Delivered}:     confirmed,

	{RollingBack, RolledBack}: rolledBack,
	{RollingBack, Enabled}:    enabled, // it was done after all, and there is nothing to go back to
	{RollingBack, Fail}:       rollbackFailed,
	{RollingBack, Abort}:      rollbackAborted,

	{Disabling, Disabled}: to(Notifying),
	{Disabling, Fail}:     broken(Failed),
	{Deleting, Deleted}:   to(Notifying),
	{Deleting, Fail}:      deleteFailed,
	{Renaming, Renamed}:   to(Done),
	{Renaming, Fail}:      broken(Failed),

	{Cancelling, EndedSession}: cancelled,
	{Cancelling, Fail}:         cancelled, // cancelling is a courtesy; the first reason stands
	{Notifying, Delivered}:     notified,
}

// Step moves a job by one event. It returns the job's next value and what is
// to be done once that value is durable. It is pure.
func Step(j Job, e Event) (Job, []Action, error) {
	if e.Kind == Resumed {
		return Resume(j, e)
	}
	handler, ok := transitions[pair{j.State, e.Kind}]
	if !ok {
		return j, nil, fmt.Errorf("job %s: %w: %q in state %q", j.ID, ErrUnexpected, e.Kind, j.State)
	}
	next := j
	next.learn(e)
	state := handler(&next, e)
	if e.Kind == Fail && e.Problem != nil && e.Note == "" {
		e.Note = e.Problem.Code // also of what is no reason to end badly
	}
	next = next.enter(state, e)
	return next, next.actions(), nil
}

// actions is what the present state asks for.
func (j Job) actions() []Action {
	a := Action{Kind: facts[j.State].action}
	switch a.Kind {
	case ActNone:
		return nil
	case ActCancel:
		a.Why = j.cancelReason()
	case ActRollback:
		a.Delay = min(time.Duration(j.RollbackTries)*rollbackPause, maxRollbackPause)
	case ActRetry:
		a.Delay = min(time.Duration(j.Retries)*retryPause, maxRetryPause)
	}
	return []Action{a}
}

// Resume decides how a job goes on after the daemon was restarted: an action
// that may be repeated is repeated, one whose outcome the card knows is asked
// for first, and an RSP session that died with the daemon is begun anew (the
// server's order survives: nothing has been cancelled).
func Resume(j Job, e Event) (Job, []Action, error) {
	if j.Ended() {
		return j, nil, fmt.Errorf("job %s: %w: it has ended", j.ID, ErrUnexpected)
	}
	e.Note = "resumed"
	switch {
	case j.Waits():
		return j, nil, nil
	case j.switching() && j.Switch.Restarts > MaxRestarts:
		e.Problem = &Problem{Code: "too-many-restarts", Text: "the device restarted again and again before the new profile was proven", Who: fault.Technician,
			Next: "look at the power supply and at the log of the device, then order the switch again", Detail: fmt.Sprintf("%d restarts within the switch", j.Switch.Restarts)}
		e.Note += ": " + e.Problem.Code
		j = j.enter(offline(&j, e), e)
	case j.State.Safety() == Once:
		j = j.enter(Authenticating, e)
	case j.State == Cancelling: // the session is gone with the daemon; only the outcome is left to be told
		j = j.enter(cancelled(&j, e), e)
	default:
		j = j.enter(j.State, e)
	}
	actions := j.actions()
	for i := range actions {
		actions[i].Query = j.State.Safety() == Queryable
	}
	return j, actions, nil
}

// switching reports whether the job is where the dead man watches: the switch
// has begun and is not proven.
func (j Job) switching() bool {
	switch j.State {
	case Gating, Enabling, Applying, Rereading, Verifying:
		return true
	}
	return false
}

// Restarted counts a restart within a switch. It is journalled before anything
// else is done: a device may go down again before the card was even found.
func (j Job) Restarted() (next Job, counted bool) {
	if !j.switching() || j.Switch.Restarts > MaxRestarts {
		return j, false
	}
	j.Switch.Restarts++
	return j, true
}

func to(s State) func(*Job, Event) State { return func(*Job, Event) State { return s } }

func broken(s State) func(*Job, Event) State {
	return func(j *Job, e Event) State { j.blame(e); return s }
}

// noted goes on in spite of a failure, which stays visible in the timeline.
func noted(s State) func(*Job, Event) State { return func(*Job, Event) State { return s } }

func aborted(s State) func(*Job, Event) State {
	return func(j *Job, _ Event) State { j.Aborted = true; return s }
}

// blame keeps the first problem: what follows from it is less telling.
func (j *Job) blame(e Event) {
	if j.Problem != nil || e.Problem == nil {
		return
	}
	p := *e.Problem
	p.State = j.State
	j.Problem = &p
}

func start(j *Job, e Event) State {
	switch j.Order.Kind {
	case Enable:
		return j.switchAt(e.At)
	case Disable:
		return Disabling
	case Delete:
		return Deleting
	case Nickname:
		return Renaming
	}
	return Authenticating
}

// switchAt begins the switch, or has it wait for its time.
func (j *Job) switchAt(now time.Time) State {
	if j.Order.EnableAt.After(now) {
		return Scheduled
	}
	return Snapshotting
}

func authenticated(j *Job, e Event) State {
	if e.Verified {
		j.Order.Verified = true
	}
	if e.SMDP != "" {
		j.Order.SMDP, j.Order.MatchingID = e.SMDP, e.MatchingID
	}
	j.TransactionID, j.CodeRequired, j.Profile = e.TransactionID, e.CodeRequired, e.Profile
	if j.Order.DryRun {
		j.Aborted = true
		return Cancelling
	}
	if !j.Order.Consent || e.NeedsPerson || (e.CodeRequired && !j.Order.HasCode) {
		return Consent
	}
	return Preparing
}

func answered(j *Job, e Event) State {
	if e.Accept {
		return Preparing
	}
	j.Problem = &Problem{Code: "consent-refused", Text: "the download was refused", Who: "nobody",
		Next: "the activation code is used up at the server; ask the operator for a new one if that was a mistake", State: Consent}
	return Cancelling
}

func expired(j *Job, _ Event) State {
	j.Problem = &Problem{Code: "consent-timeout", Text: "nobody answered in time", Retry: true, Who: "technician",
		Next: "order again and answer, or consent beforehand; the activation code is still good", State: Consent}
	return Cancelling
}

// cancelReason never ends an order at the server unless a person refused it:
// reasons 1 and 2 keep the activation code alive (sgp22 brief, 7.5).
func (j Job) cancelReason() rsp.CancelReason {
	switch {
	case j.Problem != nil && j.Problem.Code == "consent-refused":
		return rsp.CancelEndUserRejection
	case j.Problem != nil && j.Problem.Code == "consent-timeout":
		return rsp.CancelTimeout
	}
	return rsp.CancelPostponed
}

func cancelled(j *Job, _ Event) State {
	if j.Aborted {
		return Cancelled
	}
	return Failed
}

func loaded(j *Job, _ Event) State {
	j.Order.JWS = "" // no session will be asked again whether it has signed that
	return Reporting
}

func reported(j *Job, e Event) State {
	j.Undelivered = e.Undelivered
	j.become(ParameterStaged)
	if j.Order.Enable {
		return j.switchAt(e.At)
	}
	return Done
}

func snapshotted(j *Job, e Event) State {
	j.Switch.Previous, j.Switch.Snapshot, j.Switch.Started = e.Previous, e.Snapshot, e.At
	j.become(ParameterStaged)
	return Gating
}

func enabled(j *Job, _ Event) State { j.Switch.Enabled = true; return Applying }

func applied(j *Job, e Event) State {
	j.Switch.APN, j.Switch.Source = e.APN, e.Source
	if e.Source != "" { // else there is nothing on this device that has an APN
		j.become(ParameterTrial)
	}
	return Rereading
}

func reread(j *Job, e Event) State { j.Switch.Rung = e.Rung; return Verifying }

// offline goes back to the previous profile; where there was none, the profile
// stays enabled and is tried again.
func offline(j *Job, e Event) State {
	j.blame(e)
	if !j.First() {
		return RollingBack
	}
	if j.Retries++; j.Retries <= maxRetries {
		return Retrying
	}
	j.leaveOffline(e.Problem)
	return Committing
}

func retryAborted(j *Job, _ Event) State {
	j.Aborted = true
	j.leaveOffline(nil)
	return Committing
}

// leaveOffline says that the device was left with a profile that does not work.
func (j *Job) leaveOffline(last *Problem) {
	p := Problem{Code: codeOffline, Text: "the profile is enabled and stays so, but the device has not come online with it", Retry: true,
		Who: fault.Technician, Next: "look at the reception and the access point; to try another one, disable the profile and enable it with its parameters, or install another profile",
		Detail: causes(j.Problem, last), State: Retrying}
	if j.Problem != nil && j.Problem.Who != "" {
		p.Who = j.Problem.Who
	}
	j.Problem = &p
}

func online(j *Job, e Event) State {
	j.Problem = nil // of a first profile that did not come online at once
	j.Switch.Link = e.Link
	if e.Source != "" { // another candidate than the first may have done
		j.proven(e.At)
		j.Switch.APN, j.Switch.Source = e.APN, e.Source
	}
	return Committing
}

func rolledBack(j *Job, _ Event) State {
	j.become(ParameterNotApplied)
	return Notifying
}

// deleteFailed ends a delete job badly; after a proven switch it is only a
// profile too many on the card.
func deleteFailed(j *Job, e Event) State {
	if j.Order.Kind == Delete {
		j.blame(e)
	}
	return Notifying
}

func confirmed(j *Job, e Event) State {
	j.Undelivered = e.Undelivered
	if j.Problem != nil {
		return Failed
	}
	if j.Order.DeleteOld && j.Switch.Previous != (rsp.ICCID{}) {
		return Deleting
	}
	return Done
}

func rollbackFailed(j *Job, e Event) State {
	j.blame(e)
	limit := maxRollbackTries
	if p := e.Problem; p != nil && !p.Retry && p.Code != fault.Internal {
		limit = maxRefusedTries
	}
	if j.RollbackTries++; j.RollbackTries < limit {
		return RollingBack
	}
	j.strand(e.Problem)
	return Notifying
}

func rollbackAborted(j *Job, _ Event) State {
	j.Aborted = true
	j.strand(nil)
	return Notifying
}

// strand says that the device was left between two profiles, which is worse
// than what had led to it and is therefore what is told first.
func (j *Job) strand(last *Problem) {
	j.Problem = &Problem{Code: codeStranded, Text: "the switch failed, and the previous profile and its settings could not be put back", Retry: true, Who: fault.Technician,
		Next: "look at the modem and the card, then enable the profile that the device shall use", Detail: causes(j.Problem, last), State: RollingBack}
}

// causes tells what went wrong first and what went wrong at last.
func causes(first, last *Problem) string {
	var list []string
	for _, p := range []*Problem{first, last} {
		if p != nil && p.Detail != "" && !slices.Contains(list, p.Detail) {
			list = append(list, p.Detail)
		}
	}
	return strings.Join(list, "; at last: ")
}

func notified(j *Job, e Event) State {
	j.Undelivered = e.Undelivered
	if j.Problem != nil {
		return Failed
	}
	return Done
}
