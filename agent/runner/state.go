package runner

import (
	"slices"

	"lpad/agent/rsp"
)

// State sums up in one word how it is going.
type State string

// The states. NeedsProvisioning is one of its own, and not a fault: the card
// answers and has no enabled profile. Nothing is tried then that would reset
// the modem or switch it off, since there is nothing to gain by it: the device
// waits for an order, and a technician must be able to reach it.
const (
	Starting          State = "starting"           // the card was not read yet
	CardMissing       State = "card-missing"       // the card could not be read the last time
	Busy              State = "busy"               // a job has the card
	NeedsProvisioning State = "needs-provisioning" // no profile is enabled
	Ready             State = "ready"
)

// stateOf is the state of a view.
func stateOf(v *View) State {
	switch {
	case v.CardErr != nil:
		return CardMissing
	case v.FactsAt.IsZero():
		return Starting
	case v.Active != "":
		return Busy
	case !slices.ContainsFunc(v.Facts.Profiles, func(p rsp.Profile) bool { return p.State == rsp.Enabled }):
		return NeedsProvisioning
	}
	return Ready
}

// announce tells everybody when the state has become another. What is told
// last is the latest, whoever of several goroutines has changed it.
func (r *Runner) announce() {
	r.telling.Lock()
	defer r.telling.Unlock()
	r.mu.Lock()
	state := r.view.State
	r.mu.Unlock()
	if state == r.told {
		return
	}
	r.told = state
	r.hub.publish(Event{At: r.cfg.Now().UTC(), Type: "state", Text: string(state)})
	if r.cfg.OnState != nil {
		r.cfg.OnState(state)
	}
}
