package agent

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"strings"

	"lpad/agent/job"
	"lpad/agent/params"
	"lpad/agent/runner"
	"lpad/modem"
)

// explain writes an effective set down for people, with who has said each
// value, and names the sources of what is on trial. Passwords are left out.
func explain(to *runner.Effective, e params.Effective, list []given) {
	x := explainer{to, list}
	attempts := e.Attempts()
	for i, l := range attempts {
		name := "apns.default"
		if i > 0 {
			name = fmt.Sprintf("apns.default.%d", i+1)
		}
		add(x, name, l, false, apnView)
	}
	for _, p := range []params.Purpose{params.PurposeAttach, params.PurposeIMS, params.PurposeMMS, params.PurposeSUPL, params.PurposeDM, params.PurposeFOTA, params.PurposeBootstrap} {
		if l, ok := e.APNs[p]; ok {
			add(x, "apns."+string(p), l, p == params.PurposeAttach, apnView)
		}
	}
	add(x, "roaming.data", e.DataRoaming, false, same)
	add(x, "roaming.homeOnly", e.HomeOnly, false, same)
	add(x, "roaming.preferredPlmns", e.PreferredPLMNs, true, same)
	add(x, "radio.rats", e.RATs, true, same)
	add(x, "radio.lteBands", e.LTEBands, true, same)
	add(x, "radio.edrx.lte", e.EDRXLTE, false, same)
	add(x, "radio.edrx.nb-iot", e.EDRXNBIoT, false, same)
	add(x, "radio.psm", e.PSM, false, same)
	add(x, "sms.smsc", e.SMSC, false, same)
	add(x, "servers.ecs", e.ECS, false, same)
	add(x, "servers.cmp", e.CMP, false, same)
	add(x, "servers.smds", e.SMDS, false, same)
	add(x, "servers.bootstrap", e.Bootstrap, false, same)
	add(x, "connectivity.checks", e.Checks, false, same)
	add(x, "connectivity.retry", e.Retry, false, same)
	for _, n := range e.Notes {
		text := n.Text
		if n.Pointer != "" {
			text = n.Pointer + ": " + text
		}
		to.Notes = append(to.Notes, n.Source+": "+text)
	}
}

type explainer struct {
	to   *runner.Effective
	list []given
}

// add writes one leaf down. One that the modem's finding a network depends on
// is on trial. It is there once for each type, and so does nothing itself.
func add[T any](x explainer, name string, l params.Leaf[T], trial bool, show func(any) any) {
	x.add(job.Parameter{Leaf: name, Source: l.Source, Rank: int(l.Rank), Scope: l.Scope, Generation: l.Generation, State: l.State}, l.Value, l.Unset, trial, show)
}

func (x explainer) add(p job.Parameter, v any, unset, trial bool, show func(any) any) {
	if p.Source == "" { // nobody has said anything
		return
	}
	if !unset {
		p.Value, _ = json.Marshal(show(v)) // plain values
	}
	x.to.Parameters = append(x.to.Parameters, p)
	if !trial || unset || p.State == params.StateSuspended || p.State == params.StateLimited {
		return
	}
	for _, g := range x.list {
		if g.Source == p.Source && g.origin.Generation == p.Generation {
			x.to.Trial = append(x.to.Trial, runner.Trial{Leaf: p.Leaf, Origin: g.origin})
			return
		}
	}
}

func same(v any) any { return v }

// shownAPN is an access point in the words of a document.
type shownAPN struct {
	Name           string         `json:"name"` // empty: the network chooses
	PDNType        string         `json:"pdnType,omitempty"`
	PDNTypeRoaming string         `json:"pdnTypeRoaming,omitempty"`
	Auth           modem.Auth     `json:"auth,omitempty"`
	User           string         `json:"user,omitempty"`
	HasSecret      bool           `json:"hasSecret,omitempty"` // there is a password
	MTU            int            `json:"mtu,omitempty"`
	DNS            []netip.Addr   `json:"dns,omitempty"`
	Routes         []netip.Prefix `json:"routes,omitempty"`
	Roaming        *bool          `json:"roaming,omitempty"` // data on foreign networks
}

func apnView(v any) any {
	a, _ := v.(modem.APN)
	pdn := func(t modem.IPType) string { return strings.TrimPrefix(string(t), "ip") }
	return shownAPN{Name: a.Name, PDNType: pdn(a.Type), PDNTypeRoaming: pdn(a.RoamingType), Auth: a.Auth, User: a.User, HasSecret: !a.Password.IsZero(),
		MTU: a.MTU, DNS: a.DNS, Routes: a.Routes, Roaming: a.AllowRoaming}
}
