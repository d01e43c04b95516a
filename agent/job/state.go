package job

// State is where a job stands. Each stands for one thing that is being done
// or waited for.
type State string

// The states; the chart in the package comment shows the ways between them.
const (
	Queued         State = "queued"         // accepted and journalled; another job has the card
	Authenticating State = "authenticating" // eUICC and SM-DP+ prove themselves to each other
	Consent        State = "consent"        // a person must consent or enter the confirmation code
	Preparing      State = "preparing"      // the eUICC signs for the download, the server binds the package
	Loading        State = "loading"        // the bound profile package goes to the card; cannot be stopped
	Reporting      State = "reporting"      // the installation result goes to the server over today's network
	Scheduled      State = "scheduled"      // the switch waits for its time; the card is free for others
	Snapshotting   State = "snapshotting"   // the settings of the old profile are read
	Gating         State = "gating"         // bearers are held, so that nothing attaches with the old settings
	Enabling       State = "enabling"       // EnableProfile; waiting for the eUICC's word
	Applying       State = "applying"       // the new profile's APNs go to the modem and its managers
	Rereading      State = "rereading"      // the modem reads the card again
	Verifying      State = "verifying"      // registration, bearer and reachability
	Retrying       State = "retrying"       // the device's only profile is enabled and does not come online; its access points are tried again
	Committing     State = "committing"     // the switch is proven, or there is nothing to go back to; the old settings are let go
	Confirming     State = "confirming"     // the enable notification goes out over the new network
	RollingBack    State = "rolling-back"   // the previous profile and its settings come back
	Disabling      State = "disabling"      // DisableProfile
	Deleting       State = "deleting"       // DeleteProfile
	Renaming       State = "renaming"       // SetNickname
	Cancelling     State = "cancelling"     // the RSP session is being cancelled on both sides
	Notifying      State = "notifying"      // what the card has to say goes out before the job ends
	Done           State = "done"           // all of it was done
	Failed         State = "failed"         // it was not; Problem says why. The device is as before, unless the code is rollback-failed or first-profile-offline
	Cancelled      State = "cancelled"      // somebody asked to stop it, in time
)

// Ended reports whether the state is an end.
func (s State) Ended() bool { return s == Done || s == Failed || s == Cancelled }

// Safety says what may be done when nobody knows whether an action was carried
// out, because the power went or the answer was lost.
type Safety int

// The three kinds of actions.
const (
	Repeatable Safety = iota // do it again: the outcome is the same
	Queryable                // ask the card what is true, then decide
	Once                     // never again: begin a new attempt from an earlier state instead
)

// String names the kind.
func (s Safety) String() string {
	switch s {
	case Repeatable:
		return "repeatable"
	case Queryable:
		return "queryable"
	}
	return "once"
}

// stateFacts is what is fixed for a state: the step of the product's order it
// belongs to (0: none), the action that is carried out in it, and what a
// restart in it means.
type stateFacts struct {
	step   int
	action ActionKind
	safety Safety
}

var facts = map[State]stateFacts{
	Queued:         {1, ActNone, Repeatable},
	Authenticating: {2, ActAuthenticate, Repeatable}, // a new challenge replaces the old session on the card
	Consent:        {2, ActAskConsent, Once},         // the RSP session died with the daemon: authenticate again
	Preparing:      {2, ActPrepare, Once},
	Loading:        {3, ActLoad, Queryable},
	Reporting:      {4, ActDeliver, Repeatable},
	Scheduled:      {5, ActNone, Repeatable},
	Snapshotting:   {6, ActSnapshot, Repeatable},
	Gating:         {6, ActGate, Repeatable},
	Enabling:       {6, ActEnable, Queryable},
	Applying:       {7, ActApply, Repeatable},
	Rereading:      {8, ActReread, Repeatable},
	Verifying:      {9, ActVerify, Repeatable},
	Retrying:       {9, ActRetry, Repeatable},
	Committing:     {10, ActCommit, Repeatable},
	Confirming:     {10, ActDeliver, Repeatable},
	RollingBack:    {0, ActRollback, Repeatable},
	Disabling:      {0, ActDisable, Queryable},
	Deleting:       {0, ActDelete, Queryable},
	Renaming:       {0, ActRename, Repeatable},
	Cancelling:     {0, ActCancel, Repeatable},
	Notifying:      {0, ActDeliver, Repeatable},
	Done:           {10, ActNone, Repeatable},
	Failed:         {0, ActNone, Repeatable},
	Cancelled:      {0, ActNone, Repeatable},
}

// Number is the step of the product's order (1 to 10) that a state belongs to,
// or 0 for a state outside it.
func (s State) Number() int { return facts[s].step }

// Safety says what a restart in this state means.
func (s State) Safety() Safety { return facts[s].safety }

// Known reports whether s is one of the states, for readers of old files.
func (s State) Known() bool { _, ok := facts[s]; return ok }
