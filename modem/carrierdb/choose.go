package carrierdb

import (
	"cmp"
	"reflect"
	"slices"
	"sort"
	"strings"
	"unicode"
)

// choose orders the access points of providers that share a network.
func choose(providers []provider, q Query) []Candidate {
	best, match, sure := narrow(providers, q)
	var found []Candidate
	ambiguous := !sure && differ(best)
	for _, p := range best {
		found = appendNew(found, p.candidates(q.Plan, match, ambiguous))
	}
	if match == MatchSPN || match == MatchSPNPart {
		return found
	}
	// Without a name from the card the choice is a guess: the others remain,
	// behind it.
	for _, p := range providers {
		found = appendNew(found, p.candidates(q.Plan, MatchNetwork, ambiguous))
	}
	return found
}

// narrow picks the providers that fit best. sure is false when more than one
// is left.
func narrow(providers []provider, q Query) (best []provider, match Match, sure bool) {
	if len(providers) == 1 {
		return providers, MatchOnly, true
	}
	best, match = providers, MatchNetwork
	for _, rule := range []struct {
		match Match
		fits  func(provider) bool
		only  bool // counts only if it leaves one
	}{
		{MatchSPN, func(p provider) bool { return p.named(q.SPN) }, false},
		{MatchSPNPart, func(p provider) bool { return match != MatchSPN && p.namedInPart(q.SPN) }, false},
		{MatchPrimary, func(p provider) bool { return p.primary }, false},
		{MatchOperator, func(p provider) bool { return p.named(q.Operator) }, true},
	} {
		fitting := filter(best, rule.fits)
		if len(fitting) == 0 || rule.only && len(fitting) > 1 {
			continue
		}
		best = fitting
		if match == MatchNetwork {
			match = rule.match
		}
		if len(best) == 1 {
			return best, match, true
		}
	}
	return best, match, false
}

func filter(providers []provider, fits func(provider) bool) (out []provider) {
	for _, p := range providers {
		if fits(p) {
			out = append(out, p)
		}
	}
	return out
}

// differ reports whether the providers' first access points are not the same.
func differ(providers []provider) bool {
	first := providers[0].candidates("", "", false)
	for _, p := range providers[1:] {
		other := p.candidates("", "", false)
		if len(first) == 0 || len(other) == 0 || !same(first[0], other[0]) {
			return true
		}
	}
	return false
}

// same compares what a modem would be told.
func same(a, b Candidate) bool { return reflect.DeepEqual(a.APN, b.APN) }

// appendNew adds what is not yet there.
func appendNew(found, more []Candidate) []Candidate {
	for _, c := range more {
		if !slices.ContainsFunc(found, func(f Candidate) bool { return same(f, c) }) {
			found = append(found, c)
		}
	}
	return found
}

// candidates are the provider's access points for data, in order: of the plan
// that is known, for internet, the rest.
func (p provider) candidates(plan string, match Match, ambiguous bool) []Candidate {
	points := slices.DeleteFunc(slices.Clone(p.points), func(a point) bool { return a.rank() == rankOther })
	sort.SliceStable(points, func(i, j int) bool {
		a, b := points[i], points[j]
		return cmp.Or(cmp.Compare(a.planRank(plan), b.planRank(plan)), cmp.Compare(a.rank(), b.rank())) < 0
	})
	var out []Candidate
	for _, a := range points {
		out = append(out, Candidate{Provider: p.name(), Country: p.country, Name: a.name, APN: a.apn, DNS: a.dns,
			Plans: a.plans, Match: match, Ambiguous: ambiguous})
	}
	return out
}

// Ranks of a usage.
const (
	rankInternet = iota
	rankUnknown
	rankOther
)

// rank orders by usage. An access point for "ia" is for the initial attach
// and carries no data of ours; the list does not use it.
func (a point) rank() int {
	switch {
	case a.usage == "internet", strings.HasPrefix(a.usage, "mms-internet-"):
		return rankInternet
	case a.usage == "":
		return rankUnknown
	}
	return rankOther
}

// planRank puts access points of the wrong plan last.
func (a point) planRank(plan string) int {
	if plan == "" || len(a.plans) == 0 || slices.Contains(a.plans, plan) {
		return 0
	}
	return 1
}

// named compares a name, ignoring what people write differently.
func (p provider) named(name string) bool {
	want := plain(name)
	return want != "" && slices.ContainsFunc(p.names, func(n string) bool { return plain(n) == want })
}

// minPart bounds how short a name may be that is looked for within another.
const minPart = 2

// namedInPart: one name contains the other.
func (p provider) namedInPart(name string) bool {
	want := plain(name)
	return len(want) >= minPart && slices.ContainsFunc(p.names, func(n string) bool {
		n = plain(n)
		return len(n) >= minPart && (strings.Contains(n, want) || strings.Contains(want, n))
	})
}

// plain is a name in lower case, letters and digits alone.
func plain(s string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsLetter(r) || unicode.IsDigit(r) {
			return unicode.ToLower(r)
		}
		return -1
	}, s)
}
