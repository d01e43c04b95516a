package carrierdb

import (
	"slices"
	"strings"
)

// choose orders the access points of providers that share a network.
func choose(providers []provider, q Query) []Candidate {
	best, match, sure := narrow(providers, q)
	ambiguous := !sure && differ(best)
	points := 0
	for i := range providers {
		points += len(providers[i].points)
	}
	taken, found := make([]*point, 0, points), make([]Candidate, 0, points)
	take := func(providers []provider, match Match) {
		for i := range providers {
			p := &providers[i]
			for _, a := range p.ordered(q.Plan) {
				if slices.ContainsFunc(taken, a.same) {
					continue
				}
				taken = append(taken, a)
				found = append(found, Candidate{Provider: p.name(), Country: p.country, Name: a.name, APN: a.apn, DNS: a.dns,
					Plans: a.plans, Match: match, Ambiguous: ambiguous})
			}
		}
	}
	take(best, match)
	if match != MatchSPN && match != MatchSPNPart {
		// Without a name from the card the choice is a guess: the others remain,
		// behind it.
		take(providers, MatchNetwork)
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
		fits  func(*provider) bool
		only  bool // counts only if it leaves one
	}{
		{MatchSPN, func(p *provider) bool { return p.named(q.SPN) }, false},
		{MatchSPNPart, func(p *provider) bool { return match != MatchSPN && p.namedInPart(q.SPN) }, false},
		{MatchPrimary, func(p *provider) bool { return p.primary }, false},
		{MatchOperator, func(p *provider) bool { return p.named(q.Operator) }, true},
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

func filter(providers []provider, fits func(*provider) bool) (out []provider) {
	for i := range providers {
		if fits(&providers[i]) {
			out = append(out, providers[i])
		}
	}
	return out
}

// differ reports whether the providers' first access points are not the same.
func differ(providers []provider) bool {
	first := providers[0].ordered("")
	for i := range providers[1:] {
		other := providers[i+1].ordered("")
		if len(first) == 0 || len(other) == 0 || !first[0].same(other[0]) {
			return true
		}
	}
	return false
}

// same compares what a modem would be told: all that the list knows of an
// access point.
func (a *point) same(b *point) bool {
	return a.apn.Name == b.apn.Name && a.apn.Auth == b.apn.Auth && a.apn.User == b.apn.User && a.apn.Password == b.apn.Password
}

// ordered are the provider's access points for data: of the plan that is
// known, for internet, the rest.
func (p *provider) ordered(plan string) []*point {
	out := make([]*point, 0, len(p.points))
	for planRank := range 2 {
		for rank := range rankOther {
			for i := range p.points {
				if a := &p.points[i]; a.planRank(plan) == planRank && a.rank() == rank {
					out = append(out, a)
				}
			}
		}
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
func (a *point) rank() int {
	switch {
	case a.usage == "internet", strings.HasPrefix(a.usage, "mms-internet-"):
		return rankInternet
	case a.usage == "":
		return rankUnknown
	}
	return rankOther
}

// planRank puts access points of the wrong plan last.
func (a *point) planRank(plan string) int {
	if plan == "" || len(a.plans) == 0 || slices.Contains(a.plans, plan) {
		return 0
	}
	return 1
}

// named compares a name, ignoring what people write differently.
func (p *provider) named(name string) bool {
	return slices.ContainsFunc(p.names, func(n string) bool { return SameName(n, name) })
}

// minPart bounds how short a name may be that is looked for within another.
const minPart = 2

// namedInPart: one name contains the other.
func (p *provider) namedInPart(name string) bool {
	want := plain(name)
	return len(want) >= minPart && slices.ContainsFunc(p.names, func(n string) bool {
		n = plain(n)
		return len(n) >= minPart && (strings.Contains(n, want) || strings.Contains(want, n))
	})
}
