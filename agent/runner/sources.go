package runner

import (
	"context"
	"encoding/json"
	"time"

	"lpad/agent/job"
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

	Open procedure.Opener // leads there instead of the source of servers; nil: that does
}

// SettingsSource knows what the device is to be set to for a profile.
type SettingsSource interface {
	// Wanted says it, and explains it for people. An error is a document that
	// cannot be carried out.
	Wanted(q Question) (switchover.Wanted, Effective, error)
	// CheckDocument refuses terminal parameters that make no sense.
	CheckDocument(document json.RawMessage) error
	// Generation is that of a document that CheckDocument takes; 0: it has none.
	Generation(document json.RawMessage) int64
}

// same reports whether two documents are one: by their generation, or without
// one by their content.
func (o Origin) same(p Origin) bool {
	return o.Source == p.Source && o.Generation == p.Generation && (o.Generation > 0 || o.Digest == p.Digest)
}

// Question asks what a profile wants.
type Question struct {
	Profile rsp.Profile
	SIM     modem.SIM  // what the modem shows of the profile once it is enabled; zero before
	Good    *modem.APN // what carried data with the profile the last time; nil: nothing did

	// Document is that of an order, or of the profile's staging, and Source who
	// brought it; nil: there is none.
	Document json.RawMessage
	Source   string
	Kept     bool // it was kept for the profile: nobody is there to correct it

	// Suspended reports whether a source has failed its trial.
	Suspended func(Origin) bool
}

// Origin names a document: its source, its generation, and its content, by
// which two without a generation are told apart.
type Origin struct {
	Source     string `json:"source"`
	Generation int64  `json:"generation,omitempty"`
	Digest     string `json:"digest,omitempty"`
}

// Effective is a profile's whole set of terminal parameters.
type Effective struct {
	Parameters []job.Parameter `json:"parameters"`      // in force, or what is tried in turn: "apns.default", then "apns.default.2" …
	Notes      []string        `json:"notes,omitempty"` // what a person should hear: documents that are left out, conflicts
	Unreadable bool            `json:"-"`               // the document that is kept for the profile cannot be read any more, and is left out

	// Trial are the leaves that decide whether the modem finds a network, with
	// their sources: a source that does not pass is suspended.
	Trial []Trial `json:"-"`

	// Given are all documents that were looked at, also those that say nothing
	// for this profile.
	Given []Origin `json:"-"`
}

// Trial is a leaf that decides whether the modem finds a network.
type Trial struct {
	Leaf string
	Origin
}

// DeviceSource knows what servers may be told of the device.
type DeviceSource interface {
	Device(ctx context.Context) rsp.DeviceInfo
}
