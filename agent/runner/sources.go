package runner

import (
	"context"
	"encoding/json"

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
	// OpenServer opens a session with the server at an address. It leaves over
	// link, or as the device routes it for the zero link.
	OpenServer(address string, link modem.Link) (procedure.Server, error)
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

// DeviceSource knows what servers may be told of the device.
type DeviceSource interface {
	Device(ctx context.Context) rsp.DeviceInfo
}
