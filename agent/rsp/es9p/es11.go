package es9p

import (
	"encoding/json"
	"errors"

	"lpad/agent/rsp"
)

// ES11 is the interface to an SM-DS (SGP.22 v2.5, section 5.8). It has two
// functions, initiateAuthentication and authenticateClient, with the paths and
// messages of ES9+; only the answer of the second differs.

// maxEvents bounds the events that one SM-DS may list for one eUICC.
const maxEvents = 64

// ErrNoEvent is matched (errors.Is) by the refusal with which an SM-DS says
// that nothing is pending for this eUICC: a normal answer. Other servers give
// an empty list instead.
var ErrNoEvent = errors.New("no event is pending")

// eventEntries is the member of that name, not yet taken apart. A null is an
// empty list.
type eventEntries struct {
	list []json.RawMessage
	set  bool
}

func (e *eventEntries) UnmarshalJSON(b []byte) error {
	if e.set {
		return errTwice
	}
	e.set = true
	return json.Unmarshal(b, &e.list)
}

// events reads the entries. An event without an id or a server is of no use
// and is an error: to skip it would lose a profile silently.
func (r *reader) events(entries []json.RawMessage) []rsp.EventEntry {
	if len(entries) > maxEvents {
		r.fail("it lists too many events")
		return nil
	}
	events := make([]rsp.EventEntry, 0, len(entries))
	for _, raw := range entries {
		var e struct {
			EventID string `json:"eventId"`
			Address string `json:"rspServerAddress"`
		}
		if err := json.Unmarshal(raw, &e); err != nil || e.EventID == "" || len(e.EventID) > maxText {
			r.fail("an event has no valid eventId")
			return nil
		}
		address := bareAddress(e.Address)
		if rsp.CheckAddress(address) != nil {
			r.fail("an event has no valid rspServerAddress")
			return nil
		}
		events = append(events, rsp.EventEntry{EventID: e.EventID, RSPServerAddress: address})
	}
	return events
}
