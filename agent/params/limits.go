package params

import (
	"slices"
	"strings"
)

// Limits are ceilings of the device's maker: they cut the values of every
// rank, and say none themselves. A document of the maker has them in its
// member "limits", for the profiles in its scope; several are all kept.
type Limits struct {
	LTEBands           []int    `json:"lteBands,omitempty"`           // those permitted; nil: all
	RATs               []string `json:"rats,omitempty"`               // those permitted; nil: all
	RoamingForbidden   bool     `json:"roamingForbidden,omitempty"`   // no data on foreign networks
	ServerHosts        []string `json:"serverHosts,omitempty"`        // those permitted: "cmp.example.com", or "*.example.com" for all below it; nil: all
	AllowProfileServer bool     `json:"allowProfileServer,omitempty"` // a server that the profile names may replace that of an order or the maker
}

const maxHosts = 32 // of a document's limits

func (r *reader) limits(n *node) *Limits {
	l := &Limits{}
	r.members(n, map[string]func(*node){
		"lteBands":           func(n *node) { set(n, &l.LTEBands, r.bands) },
		"rats":               func(n *node) { set(n, &l.RATs, r.rats) },
		"roamingForbidden":   func(n *node) { set(n, &l.RoamingForbidden, r.bool) },
		"serverHosts":        func(n *node) { set(n, &l.ServerHosts, r.hostPatterns) },
		"allowProfileServer": func(n *node) { set(n, &l.AllowProfileServer, r.bool) },
	})
	return l
}

func (r *reader) hostPatterns(n *node) []string {
	items := list(r, n, maxHosts, func(n *node) string {
		s := r.text(n)
		r.host(&node{n.pointer, strings.TrimPrefix(s, "*.")})
		return s
	})
	if len(items) == 0 {
		r.fail(n, "is empty, which permits no server at all; write null for any")
	}
	return items
}

// AllowsHost reports whether a server is permitted. A port does not matter.
func (l *Limits) AllowsHost(host string) bool {
	if l == nil || l.ServerHosts == nil {
		return true
	}
	host, _, _ = strings.Cut(strings.ToLower(host), ":")
	return slices.ContainsFunc(l.ServerHosts, func(p string) bool {
		p, _, _ = strings.Cut(strings.ToLower(p), ":")
		below, wild := strings.CutPrefix(p, "*")
		return p == host || wild && strings.HasSuffix(host, below)
	})
}

// ceilings are all limits that are for a profile.
type ceilings []*Limits

func (c ceilings) allowProfileServer() bool {
	return slices.ContainsFunc(c, func(l *Limits) bool { return l.AllowProfileServer })
}

func (c ceilings) roamingForbidden() bool {
	return slices.ContainsFunc(c, func(l *Limits) bool { return l.RoamingForbidden })
}

// A cut is a value as the ceilings leave it; nil: nothing is left of it.
type cut func(v any) any

func (c ceilings) bands(v any) any {
	return left(v.([]int), func(b int) bool {
		return !slices.ContainsFunc(c, func(l *Limits) bool { return l.LTEBands != nil && !slices.Contains(l.LTEBands, b) })
	})
}

func (c ceilings) rats(v any) any {
	return left(v.([]string), func(rat string) bool {
		return !slices.ContainsFunc(c, func(l *Limits) bool { return l.RATs != nil && !slices.Contains(l.RATs, rat) })
	})
}

func (c ceilings) allows(host string) bool {
	return !slices.ContainsFunc(c, func(l *Limits) bool { return !l.AllowsHost(host) })
}

func (c ceilings) host(v any) any {
	if !c.allows(v.(string)) {
		return nil
	}
	return v
}

func (c ceilings) hosts(v any) any { return left(v.([]string), c.allows) }

func (c ceilings) roaming(v any) any { return v.(bool) && !c.roamingForbidden() }

// left is what is permitted of a list; nil: nothing. A list that was empty
// stays so.
func left[T any](list []T, permitted func(T) bool) any {
	var out []T
	for _, v := range list {
		if permitted(v) {
			out = append(out, v)
		}
	}
	switch len(out) {
	case len(list):
		return list
	case 0:
		return nil
	}
	return out
}
