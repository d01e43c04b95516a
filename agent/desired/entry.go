package desired

import (
	"lpad/agent/job"
	"lpad/agent/rsp"
	"lpad/internal/fault"
)

// Entry is what is remembered of a declaration: what was done for it, and that its
// code was used, also when its file is gone. One that is in a list is not changed.
type Entry struct {
	Mark       string    `json:"mark"`
	EID        rsp.EID   `json:"eid,omitzero"` // of the card that it is about
	ICCID      rsp.ICCID `json:"iccid,omitzero"`
	Generation string    `json:"generation,omitempty"` // that the rest is about
	Renamed    bool      `json:"renamed,omitempty"`    // the nickname was set, or the card does not take it
	Given      bool      `json:"given,omitempty"`      // the profile has the parameters
	Switched   bool      `json:"switched,omitempty"`   // the device was switched to the profile
	Tries      int       `json:"tries,omitempty"`      // that failed for a while, in a row
	Counted    int       `json:"counted,omitempty"`    // of them those that the server has counted
	End        string    `json:"end,omitempty"`        // Converged, Failed; empty: something is still to be done
	Code       string    `json:"code,omitempty"`       // why it failed, or what is wrong although it converged
	Text       string    `json:"text,omitempty"`
}

const (
	// MaxEntries bounds what is remembered: the oldest goes.
	MaxEntries = 64

	// maxCounted is how often a download may break off after the server has begun to
	// count, for servers void an order that was fetched too often; and how often a card
	// is asked to take a nickname.
	maxCounted = 5

	maxExplained = 200 // bytes of Text
)

// Tag is what the order of a declaration's job carries; see job.Order.Declared.
func (d *Declaration) Tag() string { return d.Mark + "." + d.Generation }

// find finds what is remembered of a mark on a card, for a generation: of an older
// one there remains which profile it is, for a code gives its profile once. A card
// that is not known is taken to be the same one.
func find(entries []*Entry, tag string, eid rsp.EID) *Entry {
	mark, generation := tag[:markLength], tag[markLength+1:]
	out := &Entry{Mark: mark, EID: eid, Generation: generation}
	for _, e := range entries {
		if e.about(mark, eid) {
			if out.ICCID = e.ICCID; e.Generation == generation {
				*out = *e
			}
		}
	}
	return out
}

func (e *Entry) about(mark string, eid rsp.EID) bool {
	return e.Mark == mark && (e.EID == eid || e.EID.IsZero() || eid.IsZero())
}

// Put replaces what is remembered of a mark, in a new list.
func Put(entries []*Entry, e *Entry) []*Entry {
	out := make([]*Entry, 0, len(entries)+1)
	for _, o := range entries {
		if !o.about(e.Mark, e.EID) {
			out = append(out, o)
		}
	}
	out = append(out, e)
	return out[max(0, len(out)-MaxEntries):]
}

// Fail notes that it will not be tried again for this generation.
func (e *Entry) Fail(code, text string) {
	e.End, e.Code, e.Text = Failed, code, rsp.CutText(text, maxExplained)
}

// Transient reports whether the same order may succeed later without anybody's
// doing. A card that was pulled out, and an error that nobody has explained, are no
// verdict; a profile that a server does not have for this device yet may come.
func Transient(code string, retry bool) bool {
	switch code {
	case "consent-timeout":
		return false
	case fault.Internal, "no-euicc", "conflict", "nothing-pending":
		return true
	}
	return retry
}

// After is what is remembered when an event has moved the job of a declaration.
func After(entries []*Entry, next *job.Job, loaded bool, eid rsp.EID) []*Entry {
	o := &next.Order
	if len(o.Declared) <= markLength || !loaded && !next.Ended() {
		return entries
	}
	e := find(entries, o.Declared, eid)
	p := next.Problem
	switch {
	case loaded:
		e.ICCID, e.Given = next.ICCID(), len(o.Parameters) > 0
	case next.State == job.Done:
		e.Tries = 0
		if o.Kind == job.Nickname {
			e.Renamed = true
		} else if o.Enable || o.Kind == job.Enable {
			e.Switched, e.Given = true, true
		}
	case next.State == job.Cancelled || p == nil:
		e.Fail("cancelled", "somebody has aborted the job "+next.ID)
	default:
		if e.Tries++; p.State == job.Preparing || p.State == job.Loading {
			e.Counted++
		}
		nickname := o.Kind == job.Nickname
		if Transient(p.Code, p.Retry) && next.Outcome() == job.OutcomeFailed && e.Counted < maxCounted && !(nickname && e.Tries >= maxCounted) {
			break
		}
		e.Fail(p.Code, p.Text)
		if nickname { // no reason to give the profile up
			e.Renamed, e.End, e.Tries = true, "", 0
		}
	}
	return Put(entries, e)
}
