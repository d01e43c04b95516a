package params

import (
	"slices"
	"strings"

	"lpad/agent/rsp"
	"lpad/modem/carrierdb"
)

// Scope says for which profiles a document is. Every member that is there must
// match; an empty scope matches every profile, and what is not known of a
// profile does not match.
type Scope struct {
	ICCID       rsp.ICCID // zero: any
	MCCMNC      []string  // home networks, 5 or 6 digits; empty: any
	GID1        string    // hexadecimal in lower case, the beginning of the card's; empty: any
	IMSIPrefix  string    // digits, x for any digit; empty: any
	ICCIDPrefix string    // digits; empty: any
	SPN         string    // service provider name, however it is written; empty: any
}

// maxSPN bounds a service provider name, in bytes: the card's own has 16.
const maxSPN = 64

// match reports whether the profile is in the scope.
func (s Scope) match(iccid rsp.ICCID, q carrierdb.Query) bool {
	return (s.ICCID.IsZero() || s.ICCID == iccid) && (len(s.MCCMNC) == 0 || slices.ContainsFunc(s.MCCMNC, q.OnNetwork)) &&
		carrierdb.Holder{GID1: s.GID1, SPN: s.SPN, IMSIPrefix: s.IMSIPrefix, ICCIDPrefix: s.ICCIDPrefix}.Matches(q)
}

// narrowness says how narrow the scope is: in a word, and as a number that is
// smaller for the narrower. One that asks for more is narrower within its
// word.
func (s Scope) narrowness() (word string, width int) {
	const most = 8 // more than the members of a scope
	asks := 0
	for _, is := range [...]bool{!s.ICCID.IsZero(), len(s.MCCMNC) > 0, s.GID1 != "", s.IMSIPrefix != "", s.ICCIDPrefix != "", s.SPN != ""} {
		if is {
			asks++
		}
	}
	switch {
	case !s.ICCID.IsZero():
		return ScopeICCID, most - asks
	case s.GID1+s.IMSIPrefix+s.ICCIDPrefix+s.SPN != "":
		return ScopeIMSI, 2*most - asks
	case len(s.MCCMNC) > 0:
		return ScopePLMN, 3*most - asks
	}
	return ScopeAny, 4 * most
}

func (r *reader) scope(n *node, s *Scope) {
	if n.value == nil {
		return
	}
	r.members(n, map[string]func(*node){
		"iccid": func(n *node) { set(n, &s.ICCID, r.iccid) },
		"mccmnc": func(n *node) {
			set(n, &s.MCCMNC, func(n *node) []string { return list(r, n, maxPLMNs, r.plmn) })
		},
		"gid1":        func(n *node) { set(n, &s.GID1, r.gid) },
		"imsiPrefix":  func(n *node) { set(n, &s.IMSIPrefix, r.imsiPattern) },
		"iccidPrefix": func(n *node) { set(n, &s.ICCIDPrefix, func(n *node) string { return r.digits(n, 1, maxICCID) }) },
		"spn":         func(n *node) { set(n, &s.SPN, r.spn) },
	})
}

// imsiPattern is digits with x for any.
func (r *reader) imsiPattern(n *node) string {
	s := strings.ToLower(r.text(n))
	r.digits(&node{n.pointer, strings.ReplaceAll(s, "x", "0")}, 1, maxIMSI)
	return s
}

func (r *reader) spn(n *node) string {
	s := r.text(n)
	if len(s) > maxSPN || !carrierdb.SameName(s, s) {
		r.fail(n, "is not a name of 1 to %d bytes with a letter or digit in it", maxSPN)
	}
	return s
}
