package params

import (
	"cmp"
	"fmt"
	"reflect"
	"slices"
	"strings"

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
	RankDatabase Rank = 4 // the public provider list
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

// match reports whether the profile is in the scope. What is not known of a
// profile does not match.
func (s Scope) match(p Profile) bool {
	plmn := p.MCC + p.MNC
	switch {
	case !s.ICCID.IsZero() && s.ICCID != p.ICCID,
		len(s.MCCMNC) > 0 && !slices.Contains(s.MCCMNC, plmn) && !slices.ContainsFunc(s.MCCMNC, func(m string) bool { return p.MNC == "" && strings.HasPrefix(p.IMSI, m) }),
		s.GID1 != "" && !strings.HasPrefix(strings.ToLower(p.GID1), s.GID1),
		s.IMSIPrefix != "" && !strings.HasPrefix(p.IMSI, s.IMSIPrefix):
		return false
	}
	return true
}

// Given is a document with where it came from.
type Given struct {
	Document *Document // nil: the source has none
	Rank     Rank      // RankProfile, RankOrder or RankOEM
	Source   string    // for people: "profile", "order", "oem: 10-fleet.json"
}

// Limits are ceilings of the device's maker: they cut the values of every
// rank, and say none themselves.
type Limits struct {
	LTEBands           []int    // those permitted; nil: all
	RATs               []string // those permitted; nil: all
	RoamingForbidden   bool     // no data on foreign networks
	ServerHosts        []string // those permitted: "cmp.example.com", or "*.example.com" for all below it; nil: all
	AllowProfileServer bool     // a server that the profile names may replace that of an order or the maker
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

// order is the document of the order.
func (in Input) order() *Document {
	for _, g := range in.Given {
		if g.Rank == RankOrder {
			return g.Document
		}
	}
	return nil
}

// Note is something that a person should hear about a resolution.
type Note struct {
	Source  string `json:"source"`
	Pointer string `json:"pointer,omitempty"` // JSON pointer into the source's document
	Text    string `json:"text"`
}

// Effective is the set of parameters for one profile.
type Effective struct {
	// APNs are the access points by purpose. That for PurposeDefault is
	// missing when it has to be found by trying: see Attempts.
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

// maxDatabase bounds the access points of the provider list that are tried:
// each attempt costs a reset of the modem and a minute.
const maxDatabase = 4

// Resolve makes the effective set. It is pure: the same input gives the same
// set.
//
// An access point that the order names for the default connection is the only
// one to be tried: who runs a private network does not want its devices on
// the public one instead. For the same reason it is an error (a
// [*DocumentError]) when that one cannot be used, because its password is not
// to be had or its type carries no IP. Without one, up to four of the provider
// list are tried and then the network's default; "apns": null leaves that
// alone.
func Resolve(in Input) (Effective, error) {
	e := Effective{APNs: map[Purpose]Leaf[modem.APN]{}}
	d := in.order()
	if d != nil && !d.Scope.match(in.Profile) {
		e.note("/scope", "the document is for another profile, or the profile is not known well enough; it is not used")
		d = nil
	}
	if d == nil {
		d = &Document{}
	}
	for _, pointer := range d.Ignored {
		e.note(pointer, "is not known and is ignored")
	}
	e.DataRoaming, e.HomeOnly, e.PreferredPLMNs = leaf(d.DataRoaming), leaf(d.HomeOnly), leaf(d.PreferredPLMNs)
	e.RATs, e.LTEBands = leaf(d.RATs), leaf(d.LTEBands)
	e.EDRXLTE, e.EDRXNBIoT, e.PSM = leaf(d.EDRXLTE), leaf(d.EDRXNBIoT), leaf(d.PSM)
	e.SMSC, e.ECS, e.CMP, e.SMDS, e.Bootstrap = leaf(d.SMSC), leaf(d.ECS), leaf(d.CMP), leaf(d.SMDS), leaf(d.Bootstrap)
	e.Checks, e.Retry = leaf(d.Checks), leaf(d.Retry)
	if err := e.orderAPNs(d, in.Secrets); err != nil {
		return Effective{}, err
	}
	e.attempts = e.try(d, in.Database)
	return e, nil
}

// leaf takes over a member of the order.
func leaf[T any](o Opt[T]) Leaf[T] {
	switch o.State {
	case Set:
		return Leaf[T]{Value: o.Value, Source: SourceOrder, Rank: RankOrder}
	case Null:
		return Leaf[T]{Source: SourceOrder, Rank: RankOrder, Unset: true}
	}
	return Leaf[T]{}
}

func (e *Effective) note(pointer, text string) {
	e.Notes = append(e.Notes, Note{SourceOrder, pointer, text})
}

// allowRoaming is what the order says about data on foreign networks; nil when
// it says nothing.
func (e *Effective) allowRoaming() *bool {
	said := func(l Leaf[bool]) bool { return !l.IsZero() && !l.Unset }
	allow := true
	switch {
	case said(e.HomeOnly) && e.HomeOnly.Value, said(e.DataRoaming) && !e.DataRoaming.Value:
		allow = false
	case said(e.DataRoaming):
	default:
		return nil
	}
	return &allow
}

// orderAPNs files the order's access points under their purposes.
func (e *Effective) orderAPNs(d *Document, secrets map[string]redact.Secret) error {
	for i, a := range d.APNs.Value {
		if reason := a.usable(secrets); reason != "" {
			pointer := fmt.Sprintf("/apns/%d", i)
			if slices.Contains(a.Purposes, PurposeDefault) {
				return refuse(pointer, "cannot be used: %s", reason)
			}
			e.note(pointer, "cannot be used: "+reason)
			continue
		}
		for _, p := range a.Purposes {
			e.APNs[p] = Leaf[modem.APN]{Value: a.modem(secrets, e.allowRoaming()), Source: SourceOrder, Rank: RankOrder}
		}
	}
	return nil
}

// try lists what may be the default connection, in order.
func (e *Effective) try(d *Document, database []carrierdb.Candidate) []Leaf[modem.APN] {
	if l, ok := e.APNs[PurposeDefault]; ok {
		return []Leaf[modem.APN]{l}
	}
	var out []Leaf[modem.APN]
	network := Leaf[modem.APN]{Value: modem.APN{AllowRoaming: e.allowRoaming()}, Source: SourceNetwork, Rank: RankNetwork}
	if d.APNs.State == Null {
		network.Source, network.Rank = SourceOrder, RankOrder
		return []Leaf[modem.APN]{network}
	}
	for _, c := range database[:min(len(database), maxDatabase)] {
		apn := c.APN
		apn.AllowRoaming = e.allowRoaming()
		out = append(out, Leaf[modem.APN]{Value: apn, Source: SourceDatabase + ": " + cmp.Or(c.Provider, "unnamed"), Rank: RankDatabase})
	}
	return append(out, network)
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

// purposes are those of other connections than the default one, in order.
var purposes = []Purpose{PurposeIMS, PurposeMMS, PurposeSUPL, PurposeDM, PurposeFOTA, PurposeBootstrap}

// Others are the access points of further connections, each once, in the order
// of their first purpose. An entry that serves the default connection too is
// not among them: that connection carries its other purposes.
func (e Effective) Others() []Leaf[modem.APN] {
	byDefault := e.APNs[PurposeDefault]
	var out []Leaf[modem.APN]
	for _, p := range purposes {
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
