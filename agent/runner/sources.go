package runner

import (
	"context"
	"encoding/json"
	"time"

	"lpad/agent/procedure"
	"lpad/agent/rsp"
	"lpad/agent/switchover"
	"lpad/modem"
)

// CardSource opens the eUICC.
type CardSource interface {
	// Open opens a logical channel to the ISD-R.
	Open(ctx context.Context) (Card, error)
}

// Card is an open channel to the ISD-R. Close closes the channel, also after
// an error on it.
type Card interface {
	procedure.Card
	Close(ctx context.Context) error
}

// ServerSource opens sessions with servers.
type ServerSource interface {
	// OpenServer opens a session with the server at an address.
	OpenServer(address string, way Way) (procedure.Server, error)
}

// Way is what a session with a server is bound to.
type Way struct {
	Link  modem.Link    // what it leaves over; the zero link: as the device routes it
	Limit time.Duration // for one call, once the way to the server is free; 0: the source's own
	CIs   [][]byte      // what a built-in CI must be among to vouch for a server: the card's list (EUICCInfo1, A9); none: any
}

// SettingsSource knows which access points may be right for a profile.
type SettingsSource interface {
	// Candidates lists them in the order of trust. document is the order's
	// terminal parameters, nil if there are none; sim is what the modem shows
	// of the profile once it is enabled, zero before; good is what carried data
	// with the profile the last time, nil if it never did.
	Candidates(document json.RawMessage, p rsp.Profile, sim modem.SIM, good *modem.APN) ([]switchover.Candidate, error)
	// CheckDocument refuses terminal parameters that make no sense.
	CheckDocument(document json.RawMessage) error
}

// Parameter is one effective value of a profile's terminal parameters, and who
// says so, as it is told to people: it never holds a password.
type Parameter struct {
	Leaf       string          `json:"leaf"`            // "apns.default", "radio.rats": the member of the document, access points by their purpose
	Value      json.RawMessage `json:"value,omitempty"` // as the document writes it; none: unset on purpose, or by default
	Source     string          `json:"source"`          // "profile", "order", "oem: FILE", "last-good" …
	Rank       int             `json:"rank"`            // of the source; the lower wins
	Scope      string          `json:"scope,omitempty"` // how narrow the source is: iccid, imsi, plmn, any
	Generation int64           `json:"generation,omitempty"`
	State      string          `json:"state,omitempty"` // staged, applied, trial, suspended, limited
}

// Effective is a profile's whole set of terminal parameters.
type Effective struct {
	Parameters []Parameter `json:"parameters"`
	Notes      []string    `json:"notes,omitempty"` // what a person should hear: documents that are left out, conflicts
}

// DeviceSource knows what servers may be told of the device.
type DeviceSource interface {
	Device(ctx context.Context) rsp.DeviceInfo
}
