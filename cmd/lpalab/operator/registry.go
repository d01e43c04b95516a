package operator

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"lpad/agent/rsp"
	"lpad/agent/rsp/rsptest/smdp"
)

// Terminal is a device as the operator's inventory has it.
type Terminal struct {
	EID   rsp.EID
	IMEI  string // 15 digits
	Model string // as the modem calls itself
}

// TAC is the type of the terminal: the first 8 digits of its IMEI.
func (t Terminal) TAC() string { return t.IMEI[:min(len(t.IMEI), 8)] }

// ProfileState is where a profile of the registry stands.
type ProfileState string

// The states of a profile.
const (
	Free    ProfileState = "free"    // may be given to a device
	Ordered ProfileState = "ordered" // a device has the order; whether it has the profile is not known
	Loaded  ProfileState = "loaded"  // the eUICC has reported its installation
	Active  ProfileState = "active"  // the eUICC has reported its activation, and the device that it is on line
)

// Profile is one of the registry of profiles.
type Profile struct {
	ICCID rsp.ICCID
	Plan  string
	Order smdp.Order // what is booked at the SM-DP+ for it, but for its EID and TACs
	State ProfileState
	EID   rsp.EID   // that has it, or the order for it; zero: free
	Since time.Time // of the state
}

// Parameters is a row of the registry of parameters: what a kind of terminal
// needs for a plan, and how it went.
type Parameters struct {
	Plan       string
	TAC        string         // 8 digits; empty: any
	Model      string         // empty: any
	Generation int64          // grows with each change
	Document   map[string]any // terminal parameters, without generation and scope

	Applied int // devices that have reported them applied
	Failed  int // devices that did not come on line with them
	Last    *Applied
}

// Applied is the last that a device has reported of a row.
type Applied struct {
	ICCID  rsp.ICCID
	At     time.Time // by the device's clock
	Values []Value
}

// narrow is how closely a row describes a terminal: 0 is not at all.
func (p *Parameters) narrow(plan string, t Terminal) int {
	if p.Plan != plan || p.TAC != "" && p.TAC != t.TAC() || p.Model != "" && p.Model != t.Model {
		return 0
	}
	n := 1
	if p.Model != "" {
		n++
	}
	if p.TAC != "" {
		n += 2
	}
	return n
}

// documentFor is a row's document for one profile: it holds for that alone.
func (p *Parameters) documentFor(iccid rsp.ICCID) (json.RawMessage, error) {
	d := map[string]any{}
	for name, value := range p.Document {
		d[name] = value
	}
	d["version"], d["generation"], d["scope"] = 1, p.Generation, map[string]any{"iccid": iccid.String()}
	return json.Marshal(d)
}

// AddProfile puts a profile into stock.
func (s *Server) AddProfile(p Profile) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if p.ICCID.IsZero() || s.profile(p.ICCID) != nil {
		return errors.New("add profile: no ICCID, or one that is there already")
	}
	p.State, p.Since = Free, s.config.Now()
	s.profiles = append(s.profiles, &p)
	return nil
}

// AddParameters puts a row into the registry of parameters, or replaces the one
// for the same plan and terminals, whose generation it follows.
func (s *Server) AddParameters(p Parameters) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, old := range s.parameters {
		if old.Plan == p.Plan && old.TAC == p.TAC && old.Model == p.Model {
			old.Generation, old.Document = max(old.Generation+1, p.Generation), p.Document
			return
		}
	}
	p.Generation = max(p.Generation, 1)
	s.parameters = append(s.parameters, &p)
}

// Profiles is the registry of profiles as it is now.
func (s *Server) Profiles() []Profile {
	s.mu.Lock()
	defer s.mu.Unlock()
	var list []Profile
	for _, p := range s.profiles {
		list = append(list, *p)
	}
	return list
}

// Parameters is the registry of parameters as it is now.
func (s *Server) Parameters() []Parameters {
	s.mu.Lock()
	defer s.mu.Unlock()
	var list []Parameters
	for _, p := range s.parameters {
		list = append(list, *p)
	}
	return list
}

// profile finds one under the lock; nil if there is none.
func (s *Server) profile(iccid rsp.ICCID) *Profile {
	if i := slices.IndexFunc(s.profiles, func(p *Profile) bool { return p.ICCID == iccid }); i >= 0 {
		return s.profiles[i]
	}
	return nil
}

// choose takes the first free profile of a plan for a terminal, and the row of
// parameters that describes the terminal most closely.
func (s *Server) choose(plan string, t Terminal) (*Profile, *Parameters, error) {
	i := slices.IndexFunc(s.profiles, func(p *Profile) bool { return p.State == Free && p.Plan == plan })
	if i < 0 {
		return nil, nil, fmt.Errorf("no free profile of the plan %q", plan)
	}
	var best *Parameters
	for _, p := range s.parameters {
		if n := p.narrow(plan, t); n > 0 && (best == nil || n > best.narrow(plan, t)) {
			best = p
		}
	}
	if best == nil {
		return nil, nil, fmt.Errorf("no parameters of the plan %q for a %s (TAC %s)", plan, t.Model, t.TAC())
	}
	return s.profiles[i], best, nil
}

// move gives a profile another state.
func (s *Server) move(iccid rsp.ICCID, to ProfileState) {
	s.mu.Lock()
	defer s.mu.Unlock()
	p := s.profile(iccid)
	if p == nil {
		return
	}
	p.State, p.Since = to, s.config.Now()
	if to == Free {
		p.EID = rsp.EID{}
	}
}

// Print writes both registries.
func (s *Server) Print(w io.Writer) {
	for _, p := range s.Profiles() {
		fmt.Fprintf(w, "profile %s, plan %q: %s, at the eUICC %s\n", p.ICCID, p.Plan, p.State, p.EID)
	}
	for _, p := range s.Parameters() {
		fmt.Fprintf(w, "parameters of plan %q for TAC %s: generation %d, applied %d, failed %d\n", p.Plan, cmp.Or(p.TAC, "any"), p.Generation, p.Applied, p.Failed)
		if p.Last != nil {
			for _, v := range p.Last.Values {
				fmt.Fprintf(w, "    %s = %s from %s, %s\n", v.Leaf, v.Value, v.Source, v.State)
			}
		}
	}
}
