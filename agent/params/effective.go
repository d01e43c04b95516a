package params

import (
	"reflect"
	"slices"

	"lpad/agent/rsp"
	"lpad/internal/redact"
	"lpad/modem"
	"lpad/modem/carrierdb"
)

// Rank orders sources; the lower number wins.
type Rank int

// The ranks.
const (
	RankProfile  Rank = 1 // signed, on the card
	RankOrder    Rank = 2 // a server's or a technician's order
	RankOEM      Rank = 3 // the device's maker
	RankDatabase Rank = 4 // what has carried data before, then the public provider list
	RankNetwork  Rank = 5 // the network's default
)

// Names of sources.
const (
	SourceProfile  = "profile" // signed, on the card
	SourceOrder    = "order"
	SourceOEM      = "oem"               // followed by ": FILE"
	SourceLastGood = "last-good"         // has carried data with the profile before
	SourceLimits   = "oem limits"        // what the maker forbids
	SourceDatabase = "provider-database" // followed by ": NAME"
	SourceNetwork  = "network default"
)

// Leaf is one effective value and who said it. Its zero value is a leaf that
// nobody has said anything about; a Leaf with a source and Unset was unset on
// purpose.
type Leaf[T any] struct {
	Value      T      `json:"value"`
	Source     string `json:"source"`
	Rank       Rank   `json:"rank"`
	Unset      bool   `json:"unset,omitempty"`
	Scope      string `json:"scope,omitempty"`      // how narrow the source's scope is: ScopeICCID …
	Generation int64  `json:"generation,omitempty"` // of the source's document
	State      string `json:"state,omitempty"`      // StateStaged …; empty: it may be applied
}

// How narrow the scope of a source is, the narrowest first.
const (
	ScopeICCID = "iccid" // this profile alone
	ScopeIMSI  = "imsi"  // a group of subscriptions: IMSI or ICCID prefix, GID1, service provider name
	ScopePLMN  = "plmn"  // all of a home network
	ScopeAny   = "any"
)

// What has become of a value.
const (
	StateStaged    = "staged"    // waits for its profile to be enabled
	StateApplied   = "applied"   // the device is set to it
	StateTrial     = "trial"     // the device is set to it until the trial's end
	StateSuspended = "suspended" // it has failed its trial and is not used
	StateLimited   = "limited"   // cut by the maker's limits

	// Of notes alone.
	StateConflict  = "conflict"  // another document of the same standing says otherwise
	StateAmbiguous = "ambiguous" // one of several that are as likely
)

// IsZero reports whether nobody has said anything.
func (l Leaf[T]) IsZero() bool { return l.Source == "" }

// Profile is what is known of the profile that the parameters are for. All but
// the ICCID may be empty: before a profile is enabled, its IMSI is known to
// nobody.
type Profile struct {
	ICCID    rsp.ICCID
	MCC, MNC string // home network
	IMSI     string
	SPN      string // service provider name
	Operator string // name of the operator
	GID1     string // hexadecimal
}

// Query asks the provider list about the profile.
func (p Profile) Query() carrierdb.Query {
	return carrierdb.Query{MCC: p.MCC, MNC: p.MNC, IMSI: p.IMSI, SPN: p.SPN, Operator: p.Operator, GID1: p.GID1, ICCID: p.ICCID.String()}
}

// Given is a document with where it came from.
type Given struct {
	Document *Document // nil: the source has none
	Rank     Rank      // RankProfile, RankOrder or RankOEM
	Source   string    // for people: "profile", "order", "oem: 10-fleet.json"
}

// Input is what is resolved.
type Input struct {
	Profile   Profile
	Given     []Given                                    // within one rank the older first
	Good      *modem.APN                                 // what has carried data with this profile before; nil: nothing has
	Database  []carrierdb.Candidate                      // in order of trust, as carrierdb.DB.Lookup returns them
	Secrets   map[string]redact.Secret                   // passwords by reference, see Document.SecretRefs
	Limits    *Limits                                    // nil: none
	Suspended func(source string, generation int64) bool // sources that have failed their trial; nil: none
}

// Note is something that a person should hear about a resolution.
type Note struct {
	Source  string `json:"source"`
	Pointer string `json:"pointer,omitempty"` // JSON pointer into the source's document
	Text    string `json:"text"`
	State   string `json:"state,omitempty"` // StateSuspended, StateLimited, StateConflict, StateAmbiguous; empty: something else
}

// Effective is the set of parameters for one profile.
type Effective struct {
	// APNs are the access points by purpose; each says by its Purposes what
	// else it is for. That for PurposeDefault is missing when it has to be
	// found by trying: see Attempts. One with Unset was taken away from a lower
	// source.
	APNs map[Purpose]Leaf[modem.APN] `json:"apns"`

	DataRoaming    Leaf[bool]     `json:"roaming.data,omitzero"`
	HomeOnly       Leaf[bool]     `json:"roaming.homeOnly,omitzero"`
	PreferredPLMNs Leaf[[]string] `json:"roaming.preferredPlmns,omitzero"`
	RATs           Leaf[[]string] `json:"radio.rats,omitzero"`
	LTEBands       Leaf[[]int]    `json:"radio.lteBands,omitzero"`
	EDRXLTE        Leaf[EDRX]     `json:"radio.edrx.lte,omitzero"`
	EDRXNBIoT      Leaf[EDRX]     `json:"radio.edrx.nb-iot,omitzero"`
	PSM            Leaf[PSM]      `json:"radio.psm,omitzero"`
	SMSC           Leaf[string]   `json:"sms.smsc,omitzero"`
	ECS            Leaf[string]   `json:"servers.ecs,omitzero"`
	CMP            Leaf[string]   `json:"servers.cmp,omitzero"`
	SMDS           Leaf[string]   `json:"servers.smds,omitzero"`
	Bootstrap      Leaf[[]string] `json:"servers.bootstrap,omitzero"`
	Checks         Leaf[[]string] `json:"connectivity.checks,omitzero"`
	Retry          Leaf[[]int]    `json:"connectivity.retry,omitzero"`

	Notes []Note `json:"notes,omitempty"`

	attempts []Leaf[modem.APN]
}

// Attempts are the access points to be tried for the default connection, in
// order; there is always at least one, and the last may be the empty APN, with
// which the network chooses.
func (e Effective) Attempts() []Leaf[modem.APN] {
	if len(e.attempts) == 0 { // an Effective that nobody resolved
		return []Leaf[modem.APN]{{Source: SourceNetwork, Rank: RankNetwork}}
	}
	return slices.Clone(e.attempts)
}

// purposes are all of them, those of other connections than the default one
// and the attach behind these two, in order.
var purposes = []Purpose{PurposeDefault, PurposeAttach, PurposeIMS, PurposeMMS, PurposeSUPL, PurposeDM, PurposeFOTA, PurposeBootstrap}

// Others are the access points of further connections, each once, in the order
// of their first purpose. An entry that serves the default connection too is
// not among them: that connection carries its other purposes.
func (e Effective) Others() []Leaf[modem.APN] {
	byDefault := e.APNs[PurposeDefault]
	var out []Leaf[modem.APN]
	for _, p := range purposes[2:] {
		l, ok := e.APNs[p]
		same := func(o Leaf[modem.APN]) bool { return o.Source == l.Source && reflect.DeepEqual(o.Value, l.Value) }
		if ok && !l.Unset && !same(byDefault) && !slices.ContainsFunc(out, same) {
			out = append(out, l)
		}
	}
	return out
}

// Attach is the access point of the initial attach; nil: nobody wants one.
func (e Effective) Attach() *modem.APN {
	l, ok := e.APNs[PurposeAttach]
	if !ok || l.Unset {
		return nil
	}
	return &l.Value
}

// Radio is what is wanted of the radio, in the words of the modem.
func (e Effective) Radio() modem.Radio {
	m := modem.Radio{RATs: e.RATs.Value, LTEBands: e.LTEBands.Value, SMSC: e.SMSC.Value, PreferredPLMNs: e.PreferredPLMNs.Value}
	edrx := func(act int, l Leaf[EDRX]) {
		if !l.IsZero() && !l.Unset {
			m.EDRX = append(m.EDRX, modem.EDRX{AcT: act, Value: l.Value.Value, PTW: l.Value.PTW})
		}
	}
	edrx(actLTE, e.EDRXLTE)
	edrx(actNBIoT, e.EDRXNBIoT)
	if !e.PSM.IsZero() && !e.PSM.Unset {
		m.PSM = &modem.PSM{TAU: timerOctet(e.PSM.Value.TAUSeconds, timer3), Active: timerOctet(e.PSM.Value.ActiveSeconds, timer2)}
	}
	return m
}

// timerOctet is the shortest time that a GPRS timer can say and that is not
// shorter than the one wanted, in the largest unit.
func timerOctet(seconds int64, units [unitOff]int64) byte {
	best, largest, octet := int64(0), int64(0), byte(0)
	for i, unit := range units {
		n := min((seconds+unit-1)/unit, timerValue)
		said := n * unit
		if best < seconds && said > best || said >= seconds && said < best || said == best && n > 0 && unit > largest {
			best, largest, octet = said, unit, byte(i)<<5|byte(n)
		}
	}
	return octet
}
