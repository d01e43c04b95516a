package params

import (
	"cmp"
	"fmt"
	"reflect"
	"slices"

	"lpad/modem"
)

// maxDatabase bounds the access points of the provider list that are tried:
// each attempt costs a reset of the modem and a minute.
const maxDatabase = 4

// Resolve makes the effective set. It is pure: the same input gives the same
// set.
//
// Documents whose scope does not fit are left out, and so are suspended ones.
// For each leaf the first document speaks that has an opinion, in the order of
// the ranks, within a rank of the narrower scope, then of the higher
// generation; two of the same standing that differ are a conflict, which the
// one given first wins and a note reports. An access point is one leaf for
// each purpose, taken as a whole. Limits cut what a document says; where
// nothing is left of it the next document speaks.
//
// The servers that a profile names come after those of an order and of the
// maker, unless limits allow it: they are added, not replaced.
//
// Where documents name an access point for the default connection only theirs
// are tried, one of each rank: who runs a private network does not want its
// devices on the public one instead. For the same reason it is an error (a
// [*DocumentError]) when that of an order is to be used and cannot be, because
// its password is not to be had or its type carries no IP. Without one, what
// has carried data before is tried, then up to four of the provider list, then
// the network's default; "apns": null leaves the last alone.
func Resolve(in Input) (Effective, error) {
	r := resolver{in: in, e: Effective{APNs: map[Purpose]Leaf[modem.APN]{}}}
	r.prepare()
	e := &r.e
	e.DataRoaming = pick(&r, r.said, "/roaming/data", func(d *Document) Opt[bool] { return d.DataRoaming }, r.limits.roaming)
	if r.limits.roamingForbidden() && (e.DataRoaming.IsZero() || e.DataRoaming.Unset) {
		e.DataRoaming = Leaf[bool]{Source: SourceLimits, Rank: RankOEM, Scope: ScopeAny, State: StateLimited}
	}
	e.HomeOnly = pick(&r, r.said, "/roaming/homeOnly", func(d *Document) Opt[bool] { return d.HomeOnly }, nil)
	e.PreferredPLMNs = pick(&r, r.said, "/roaming/preferredPlmns", func(d *Document) Opt[[]string] { return d.PreferredPLMNs }, nil)
	e.RATs = pick(&r, r.said, "/radio/rats", func(d *Document) Opt[[]string] { return d.RATs }, r.limits.rats)
	e.LTEBands = pick(&r, r.said, "/radio/lteBands", func(d *Document) Opt[[]int] { return d.LTEBands }, r.limits.bands)
	e.EDRXLTE = pick(&r, r.said, "/radio/edrx/lte", func(d *Document) Opt[EDRX] { return d.EDRXLTE }, nil)
	e.EDRXNBIoT = pick(&r, r.said, "/radio/edrx/nb-iot", func(d *Document) Opt[EDRX] { return d.EDRXNBIoT }, nil)
	e.PSM = pick(&r, r.said, "/radio/psm", func(d *Document) Opt[PSM] { return d.PSM }, nil)
	e.SMSC = pick(&r, r.said, "/sms/smsc", func(d *Document) Opt[string] { return d.SMSC }, nil)
	servers := r.ofServers()
	e.ECS = pick(&r, servers, "/servers/ecs", func(d *Document) Opt[string] { return d.ECS }, r.limits.host)
	e.CMP = pick(&r, servers, "/servers/cmp", func(d *Document) Opt[string] { return d.CMP }, r.limits.host)
	e.SMDS = pick(&r, servers, "/servers/smds", func(d *Document) Opt[string] { return d.SMDS }, r.limits.host)
	e.Bootstrap = pick(&r, servers, "/servers/bootstrap", func(d *Document) Opt[[]string] { return d.Bootstrap }, r.limits.hosts)
	e.Checks = pick(&r, r.said, "/connectivity/checks", func(d *Document) Opt[[]string] { return d.Checks }, nil)
	e.Retry = pick(&r, r.said, "/connectivity/retry", func(d *Document) Opt[[]int] { return d.Retry }, nil)
	if err := r.apns(); err != nil {
		return Effective{}, err
	}
	return r.e, nil
}

// said is a document that takes part, with its standing.
type said struct {
	Given
	scope string
	width int // of the scope; the smaller wins
}

// before orders by standing; neither before the other is the same standing.
func (s said) before(o said) bool {
	return cmp.Or(cmp.Compare(s.Rank, o.Rank), cmp.Compare(s.width, o.width), -cmp.Compare(s.Document.Generation, o.Document.Generation)) < 0
}

type resolver struct {
	in     Input
	said   []said // the first that has an opinion wins
	limits ceilings
	e      Effective
}

func (r *resolver) note(source, pointer, state, text string) {
	r.e.Notes = append(r.e.Notes, Note{Source: source, Pointer: pointer, State: state, Text: text})
}

// prepare leaves out what does not take part, and puts the rest in order.
func (r *resolver) prepare() {
	if r.in.Limits != nil {
		r.limits = append(r.limits, r.in.Limits)
	}
	query := r.in.Profile.Query()
	for _, g := range r.in.Given {
		d := g.Document
		if d == nil {
			continue
		}
		if !d.Scope.match(r.in.Profile.ICCID, query) {
			// A folder of the maker's has documents for many profiles.
			if g.Rank != RankOEM {
				r.note(g.Source, "/scope", "", "the document is for another profile, or the profile is not known well enough; it is not used")
			}
			continue
		}
		for _, pointer := range d.Ignored {
			r.note(g.Source, pointer, "", "is not known and is ignored")
		}
		switch {
		case d.Limits != nil && g.Rank == RankOEM:
			r.limits = append(r.limits, d.Limits) // also of a suspended document
		case d.Limits != nil:
			r.note(g.Source, "/limits", "", "are for the device's maker to set, and are ignored")
		}
		if r.in.Suspended != nil && r.in.Suspended(g.Source, d.Generation) {
			r.note(g.Source, "", StateSuspended, fmt.Sprintf("generation %d has failed its trial and is not used", d.Generation))
			continue
		}
		r.add(said{Given: g})
	}
}

// add puts a document in its place. Of two versions of one document only one
// takes part.
func (r *resolver) add(s said) {
	if s.scope, s.width = s.Document.Scope.narrowness(); s.Rank == RankProfile {
		s.scope = ScopeICCID // it is in the profile
	}
	for i, o := range r.said {
		if o.Rank != s.Rank || o.Source != s.Source || !reflect.DeepEqual(o.Document.Scope, s.Document.Scope) {
			continue
		}
		if o.Document.Generation == s.Document.Generation && !reflect.DeepEqual(o.Document, s.Document) {
			r.note(s.Source, "/generation", StateConflict, "a second document of the same generation says otherwise; the first is kept")
		}
		if o.Document.Generation >= s.Document.Generation {
			return
		}
		r.said = slices.Delete(r.said, i, i+1)
		break
	}
	at := len(r.said)
	for at > 0 && s.before(r.said[at-1]) {
		at--
	}
	r.said = slices.Insert(r.said, at, s)
}

// ofServers is the order in which servers are named: a profile must not
// replace the server that manages the device.
func (r *resolver) ofServers() []said {
	if r.limits.allowProfileServer() {
		return r.said
	}
	byProfile := 0
	for byProfile < len(r.said) && r.said[byProfile].Rank == RankProfile {
		byProfile++
	}
	return slices.Concat(r.said[byProfile:], r.said[:byProfile])
}

// pick finds the leaf that is in force.
func pick[T any](r *resolver, order []said, pointer string, get func(*Document) Opt[T], c cut) Leaf[T] {
	s, v, state := r.winner(order, pointer, func(d *Document) (State, any) {
		o := get(d)
		return o.State, o.Value
	}, c)
	if s == nil {
		return Leaf[T]{}
	}
	l := Leaf[T]{Source: s.Source, Rank: s.Rank, Scope: s.scope, Generation: s.Document.Generation, State: state, Unset: v == nil}
	if v != nil {
		l.Value = v.(T)
	}
	return l
}

// winner finds the first document with an opinion, and this opinion; nil is
// an unset one. No document: nobody has one.
func (r *resolver) winner(order []said, pointer string, opinion func(*Document) (State, any), c cut) (s *said, v any, state string) {
	for i := range order {
		s := &order[i]
		is, full := opinion(s.Document)
		if is == Absent {
			continue
		}
		if is == Null {
			r.conflicts(order[i:], pointer, opinion)
			return s, nil, ""
		}
		v, state := full, ""
		if c != nil && len(r.limits) > 0 {
			if v = c(full); v == nil {
				r.note(s.Source, pointer, StateLimited, "nothing of it is within the maker's limits; it is ignored")
				continue
			}
			if !reflect.DeepEqual(v, full) {
				state = StateLimited
				r.note(s.Source, pointer, state, "is cut by the maker's limits")
			}
		}
		r.conflicts(order[i:], pointer, opinion)
		return s, v, state
	}
	return nil, nil, ""
}

// conflicts reports who says otherwise than the first, having its standing.
func (r *resolver) conflicts(order []said, pointer string, opinion func(*Document) (State, any)) {
	is, v := opinion(order[0].Document)
	for _, o := range order[1:] {
		if order[0].before(o) || o.before(order[0]) {
			return
		}
		if other, w := opinion(o.Document); other != Absent && (other != is || !reflect.DeepEqual(v, w)) {
			r.note(o.Source, pointer, StateConflict, "is not used: "+order[0].Source+" says otherwise, and neither is narrower or newer")
		}
	}
}

// allowRoaming is what is said about data on foreign networks; nil when
// nothing is.
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

// entry is the place of an access point: a document and a number in its list.
type entry struct{ said, apn int }

// spoken is what the documents say of one purpose.
type spoken struct {
	by    []entry // the first of each rank, as far as none unsets it
	unset int     // the document that does; -1: none
	taken bool    // and a lower one names an access point
}

// apns files the access points under their purposes, and lists those to be
// tried.
func (r *resolver) apns() error {
	won := map[Purpose]entry{}
	var refused []entry // once each in the notes
	for _, p := range purposes {
		w, err := r.speak(p, &refused)
		switch {
		case err != nil:
			return err
		case p == PurposeDefault:
			r.try(w)
		case len(w.by) == 0 && w.taken:
			l := r.leaf(w.unset)
			l.Unset = true
			r.e.APNs[p] = l
		}
		if len(w.by) > 0 {
			won[p] = w.by[0]
		}
	}
	for p, at := range won {
		l := r.leafOf(at)
		for _, o := range purposes {
			if w, ok := won[o]; ok && w == at {
				l.Value.Purposes = append(l.Value.Purposes, string(o))
			}
		}
		r.e.APNs[p] = l
	}
	if l, ok := r.e.APNs[PurposeDefault]; ok {
		r.e.attempts[0] = l
	}
	return nil
}

// speak asks all documents about a purpose.
func (r *resolver) speak(p Purpose, refused *[]entry) (spoken, error) {
	opinion := func(d *Document) (State, any) {
		i := naming(d, p)
		if i >= 0 {
			return Set, d.APNs.Value[i]
		}
		if d.APNs.State == Null {
			return Null, nil
		}
		return Absent, nil
	}
	w := spoken{unset: -1}
	for i, s := range r.said {
		state, _ := opinion(s.Document)
		switch {
		case state == Absent, len(w.by) > 0 && r.said[w.by[len(w.by)-1].said].Rank == s.Rank: // its rank has spoken
			continue
		case w.unset >= 0:
			w.taken = w.taken || state == Set
			continue
		case state == Null:
			w.unset = i
		default:
			at := entry{i, naming(s.Document, p)}
			if reason := s.Document.APNs.Value[at.apn].usable(r.in.Secrets); reason != "" {
				pointer := fmt.Sprintf("/apns/%d", at.apn)
				if s.Rank == RankOrder && p == PurposeDefault && len(w.by) == 0 {
					return w, refuse(pointer, "cannot be used: %s", reason)
				}
				if !slices.Contains(*refused, at) {
					*refused = append(*refused, at)
					r.note(s.Source, pointer, "", "cannot be used: "+reason)
				}
				continue
			}
			w.by = append(w.by, at)
		}
		r.conflicts(r.said[i:], "/apns", opinion)
	}
	return w, nil
}

// naming is the number of the access point for a purpose; -1: there is none.
func naming(d *Document, p Purpose) int {
	return slices.IndexFunc(d.APNs.Value, func(a APN) bool { return slices.Contains(a.Purposes, p) })
}

// leaf is an empty leaf of a document.
func (r *resolver) leaf(i int) Leaf[modem.APN] {
	s := r.said[i]
	return Leaf[modem.APN]{Source: s.Source, Rank: s.Rank, Scope: s.scope, Generation: s.Document.Generation}
}

func (r *resolver) leafOf(at entry) Leaf[modem.APN] {
	l := r.leaf(at.said)
	l.Value = r.said[at.said].Document.APNs.Value[at.apn].modem(r.in.Secrets, r.e.allowRoaming())
	return l
}

// try lists what may be the default connection, in order.
func (r *resolver) try(w spoken) {
	add := func(l Leaf[modem.APN]) {
		same := func(o Leaf[modem.APN]) bool { return o.Value.Name == l.Value.Name && o.Value.User == l.Value.User }
		if !slices.ContainsFunc(r.e.attempts, same) {
			r.e.attempts = append(r.e.attempts, l)
		}
	}
	for _, at := range w.by {
		add(r.leafOf(at))
	}
	if len(w.by) > 0 {
		return
	}
	roaming := r.e.allowRoaming()
	network := Leaf[modem.APN]{Source: SourceNetwork, Rank: RankNetwork}
	if w.unset >= 0 {
		network = r.leaf(w.unset)
	} else {
		if r.in.Good != nil {
			good := *r.in.Good
			if good.Purposes = nil; roaming != nil {
				good.AllowRoaming = roaming
			}
			add(Leaf[modem.APN]{Value: good, Source: SourceLastGood, Rank: RankDatabase, Scope: ScopeICCID})
		}
		for i, c := range r.in.Database[:min(len(r.in.Database), maxDatabase)] {
			c.APN.AllowRoaming = roaming
			source := SourceDatabase + ": " + cmp.Or(c.Provider, "unnamed")
			if c.Ambiguous && i == 0 {
				r.note(source, "", StateAmbiguous, "is one of several providers on this network, and nothing tells which it is")
			}
			add(Leaf[modem.APN]{Value: c.APN, Source: source, Rank: RankDatabase, Scope: ScopePLMN})
		}
	}
	network.Value.AllowRoaming = roaming
	add(network)
}
