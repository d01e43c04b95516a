package job

import (
	"encoding/json"
	"slices"
	"time"
)

// Parameter is one effective value of a profile's terminal parameters, and who
// says so, as it is told to people: it never holds a password.
type Parameter struct {
	Leaf       string          `json:"leaf"`            // "apns.default", "radio.rats": the member of the document, access points by their purpose
	Value      json.RawMessage `json:"value,omitempty"` // as the document writes it; none: unset on purpose, by default, or too long to be kept
	Source     string          `json:"source"`          // "profile", "order", "oem: FILE", "last-good" …
	Rank       int             `json:"rank,omitempty"`  // of the source; the lower wins
	Scope      string          `json:"scope,omitempty"` // how narrow the source is: iccid, imsi, plmn, any
	Generation int64           `json:"generation,omitempty"`
	State      string          `json:"state,omitempty"` // staged, trial, applied, not-applied; suspended or limited by who has resolved it
}

// What has become of a parameter.
const (
	ParameterStaged     = "staged"      // waits for its profile to be enabled
	ParameterTrial      = "trial"       // the device is set to it, and nothing has proven it yet
	ParameterApplied    = "applied"     // the device is online with it
	ParameterNotApplied = "not-applied" // the switch was taken back, and so was this
)

// HookRun is what became of one hook of the device's maker.
type HookRun struct {
	Event   string `json:"event"` // staged, activated, applied, rolled-back
	Name    string `json:"name"`  // of the program, in its folder
	Millis  int64  `json:"ms"`    // how long it ran
	Problem string `json:"problem,omitempty"`
}

// Bounds of what is kept with a job: each of its steps writes it again.
const (
	maxParameterBytes = 4 << 10 // of all values
	maxParameters     = 64
	maxHookRuns       = 48
)

// boundParameters leaves out the values that do not fit.
func boundParameters(list []Parameter) []Parameter {
	list = slices.Clone(list[:min(len(list), maxParameters)])
	left := maxParameterBytes
	for i := range list {
		if left -= len(list[i].Value); left < 0 {
			left += len(list[i].Value)
			list[i].Value = nil
		}
	}
	return list
}

// learn takes over what an event tells beside what has happened.
func (j *Job) learn(e Event) {
	if e.Parameters != nil {
		j.Parameters = boundParameters(e.Parameters)
	}
	if e.Activation > 0 {
		j.Activation = e.Activation
	}
	if len(e.Hooks) > 0 {
		j.Hooks = append(slices.Clone(j.Hooks), e.Hooks...)
		j.Hooks = j.Hooks[:min(len(j.Hooks), maxHookRuns)]
	}
}

// become changes the state of those parameters that stand or fall with the
// switch.
func (j *Job) become(state string) {
	j.Parameters = slices.Clone(j.Parameters)
	for i := range j.Parameters {
		switch p := &j.Parameters[i]; p.State {
		case "", ParameterStaged, ParameterTrial, ParameterApplied, ParameterNotApplied:
			p.State = state
		}
	}
}

// proven notes that the device is online with the parameters.
func (j *Job) proven(at time.Time) {
	j.become(ParameterApplied)
	j.AppliedAt = at
}

// HooksRan reports whether hooks of an event have been run to their end.
func (j Job) HooksRan(event string) bool {
	return slices.ContainsFunc(j.Hooks, func(h HookRun) bool { return h.Event == event })
}

// TakenBack reports whether the job is about to end after a switch that was
// taken back: the previous profile and its settings are in place again.
func (j Job) TakenBack() bool {
	return j.State == Notifying && !j.Switch.Started.IsZero() && j.Problem != nil && !j.Stranded()
}
