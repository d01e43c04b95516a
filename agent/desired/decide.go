package desired

import (
	"slices"
	"time"

	"lpad/agent/job"
	"lpad/agent/rsp"
)

// How it stands with a declaration.
const (
	Converged = "converged" // it was done; what people have changed since is theirs
	Pending   = "pending"   // something is to be done, or under way
	Failed    = "failed"    // it will not be tried again until the file changes, or contradicts another one
)

// Line is how it stands with one declaration.
type Line struct {
	Name  string
	State string
	Code  string // of what is wrong; empty: nothing is
	Text  string
}

// Device is a card with what is around it, as far as it is known.
type Device struct {
	Card  string // its name in the configuration
	First bool   // of the configuration
	EID   rsp.EID
	IMEI  string // empty: the modem has not told it

	Profiles    []rsp.Profile
	Quarantined func(rsp.ICCID) bool
	Wait        func(*Entry) time.Duration // before a job is ordered again, after Entry.Tries that failed
}

// For reports whether a declaration is for a device.
func (d *Declaration) For(on *Device) bool {
	if len(d.EIDs)+len(d.IMEIs)+len(d.Cards) == 0 {
		return on.First
	}
	return fits(d.EIDs, on.EID.String()) && fits(d.IMEIs, on.IMEI) && fits(d.Cards, on.Card)
}

func fits(list []string, one string) bool { return len(list) == 0 || slices.Contains(list, one) }

// Step is what is to be done next: a job, or, when Order has no kind, only what is
// to be remembered. Parameters go to the profile first.
type Step struct {
	Declaration *Declaration
	Order       job.Order
	Parameters  bool   // the profile of Entry is to be given the declaration's parameters
	Entry       *Entry // to be remembered; of a job as it was before
}

// Decide says how it stands with the declarations for a device, and what comes
// next; nil: nothing is to be done at present, and after the pause is to be looked
// again, if that is above 0. The profile that the device shall be switched to comes last: the
// network that it has is the one that is known to work.
func Decide(all []*Declaration, on *Device, entries []*Entry) (lines []Line, next *Step, pause time.Duration) {
	var list []*Declaration
	for _, last := range []bool{false, true} {
		for _, d := range all {
			if d.Enabled == last && d.For(on) {
				list = append(list, d)
			}
		}
	}
	fight := false
	for i, d := range list {
		l := Line{Name: d.Name, State: Pending}
		e := find(entries, d.Tag(), on.EID)
		if e.End != "" {
			l.State = e.End
		}
		l.Code, l.Text = e.Code, e.Text
		var step *Step
		if e.End == "" {
			step = d.step(on, e, &l)
		}
		for k, o := range list {
			if k != i && (d.Name == o.Name || d.Mark == o.Mark || !d.ICCID.IsZero() && d.ICCID == o.ICCID || d.Enabled && o.Enabled) {
				l.State, l.Code = Failed, "declarations-conflict"
				l.Text, fight = "it contradicts "+o.File+": the same name, code or profile, or both are to be enabled; nothing is done for this card", true
			}
		}
		lines = append(lines, l)
		if step == nil || next != nil {
			continue
		}
		if wait := on.Wait(e); wait <= 0 {
			next = step
		} else if pause == 0 || wait < pause {
			pause = wait
		}
	}
	if fight {
		return lines, nil, 0
	}
	return lines, next, pause
}

// step is what is to be done for a declaration that has not ended; nil: nothing
// can be, and the line says why. That is not remembered: a card that has left a
// profile out of its list once may have it again.
func (d *Declaration) step(on *Device, e *Entry, l *Line) *Step {
	p := d.find(on.Profiles, e)
	s := &Step{Declaration: d, Entry: e}
	o := &s.Order
	o.Automatic, o.By, o.Declared = true, d.By(), d.Tag()
	switch {
	case p == nil && !e.ICCID.IsZero():
		l.State, l.Code, l.Text = Failed, "profile-gone", "its profile was installed and is not on the card any more; the code is not used again"
		return nil
	case p == nil:
		o.Kind, o.Source, o.SMDP, o.MatchingID, o.OID = job.Install, d.Source, d.Code.SMDP, d.Code.MatchingID, d.Code.OID
		o.Enable, o.Consent, o.PPRConsent = d.Enabled, true, d.AcceptRules
		o.Nickname, o.Parameters, o.EID, o.Bound = d.Nickname, d.Parameters, on.EID, d.ICCID
		return s
	}
	e.ICCID, o.ICCID = p.ICCID, p.ICCID
	switch {
	case !e.Renamed && p.Nickname != d.Nickname:
		o.Kind, o.Nickname = job.Nickname, d.Nickname
	case !d.Enabled || e.Switched || p.State == rsp.Enabled:
		e.End = Converged
		s.Parameters = len(d.Parameters) > 0 && !e.Given
	case on.Quarantined(p.ICCID):
		l.State, l.Code, l.Text = Failed, "profile-quarantined", "the last switch to its profile was taken back; mend the cause and enable it by hand"
		return nil
	default:
		o.Kind, o.Parameters = job.Enable, d.Parameters
	}
	return s
}

// find finds the profile of a declaration: by what is remembered, by the ICCID that
// the file says, and by the mark; nil: it is not there.
func (d *Declaration) find(profiles []rsp.Profile, e *Entry) *rsp.Profile {
	for rule := range 3 {
		for i := range profiles {
			p := &profiles[i]
			if rule == 0 && p.ICCID == e.ICCID || rule == 1 && p.ICCID == d.ICCID || rule == 2 && markOf(p.Nickname) == d.Mark {
				return p
			}
		}
	}
	return nil
}

// String is a line for people.
func (l *Line) String() string {
	s := l.Name + ": " + l.State
	if l.Code != "" {
		s += ": " + l.Text + " (" + l.Code + ")"
	}
	return s
}
