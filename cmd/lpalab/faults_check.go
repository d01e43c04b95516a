package main

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"lpad/agent/rsp/rsptest/smdp"
)

// evidence is what everybody shows once all has come to rest after a fault:
// the card, the modem, the server and the daemon, each by its own word.
type evidence struct {
	CardProfiles  []profileSeen // as the card has them
	AgentProfiles []profileSeen // as the daemon tells them
	AgentState    string        // of the daemon's status
	Jobs          []jobSeen     // of the daemon's list
	JournalJobs   []jobSeen     // of the journal, read after the daemon was stopped
	JournalError  string        // why the journal cannot be read, or what was damaged; empty: nothing
	Exits         []string      // exits of the daemon that nobody asked for
	StopError     string        // what was wrong with the stop that was asked for
	Wrong         []string      // what was wrong with what the daemon said of its disk on the way

	CardPower   bool
	Channels    []int    // logical channels that are open on the card
	Sessions    []string // of AT+CCHO that the modem holds
	Switched    int      // AT+CFUN
	ModemICCID  string   // that the modem shows, empty: none
	ModemAPN    string   // of its first context
	Registered  bool
	Managed     bool     // NetworkManager is there
	Connections []string // that NetworkManager has activated on the modem

	Made     []noteSeen // every notification that the card ever made
	Waiting  []noteSeen // those in its list
	Received []noteSeen // by the server, in the order of arrival

	Orders []orderSeen
}

type profileSeen struct {
	ICCID   string
	Enabled bool
}

type jobSeen struct {
	ID, State string
	Ended     bool
}

type noteSeen struct {
	Seq      int64
	Receiver string
	Verified bool // by the server; not set in the card's lists
}

type orderSeen struct {
	ICCID string
	State smdp.OrderState
}

// ending is a state in which a device may end.
type ending struct {
	Name    string
	Present []string // ICCIDs on the card
	Enabled string   // empty: none
}

// expectation says what is right for a scenario.
type expectation struct {
	Endings []ending          // any of them
	APN     map[string]string // by ICCID: the access point that belongs to a profile
	Deleted map[string]bool   // ICCIDs whose deletion was ordered
}

// invariant is a rule that holds whatever happened.
type invariant struct {
	Name  string
	Holds func(evidence, expectation) error // nil: it does
}

// violation is an invariant that does not hold.
type violation struct {
	Invariant string
	Detail    string
}

func (v violation) String() string { return v.Invariant + ": " + v.Detail }

// check holds the evidence against all invariants.
func check(e evidence, x expectation) []violation {
	var out []violation
	for _, i := range invariants {
		if err := i.Holds(e, x); err != nil {
			out = append(out, violation{i.Name, err.Error()})
		}
	}
	return out
}

// invariants are what no fault may break. The order is that of the report.
var invariants = []invariant{
	{"daemon-alive", func(e evidence, _ expectation) error {
		return none("the daemon exited by itself", e.Exits)
	}},
	{"daemon-idle", func(e evidence, _ expectation) error {
		if e.AgentState != "ready" && e.AgentState != "needs-provisioning" {
			return fmt.Errorf("the daemon's state is %q", e.AgentState)
		}
		return nil
	}},
	{"daemon-stops", func(e evidence, _ expectation) error {
		if e.StopError != "" {
			return fmt.Errorf("%s", e.StopError)
		}
		return nil
	}},
	{"disk-told", func(e evidence, _ expectation) error {
		return none("of a bad disk", e.Wrong)
	}},
	{"jobs-ended", func(e evidence, _ expectation) error {
		return none("not ended", append(unended("the daemon", e.Jobs), unended("the journal", e.JournalJobs)...))
	}},
	{"journal-readable", func(e evidence, _ expectation) error {
		if e.JournalError != "" {
			return fmt.Errorf("%s", e.JournalError)
		}
		return nil
	}},
	{"card-powered", func(e evidence, _ expectation) error {
		if !e.CardPower {
			return fmt.Errorf("the card has no power")
		}
		return nil
	}},
	{"agent-knows-card", func(e evidence, _ expectation) error {
		if a, b := sorted(e.CardProfiles), sorted(e.AgentProfiles); !slices.Equal(a, b) {
			return fmt.Errorf("the card has %v, the daemon says %v", a, b)
		}
		return nil
	}},
	{"one-enabled", func(e evidence, x expectation) error {
		n := 0
		for _, p := range e.CardProfiles {
			if p.Enabled {
				n++
			}
		}
		if n > 1 {
			return fmt.Errorf("%d profiles are enabled", n)
		}
		if n == 0 && !slices.ContainsFunc(x.Endings, func(end ending) bool { return end.Enabled == "" }) {
			return fmt.Errorf("no profile is enabled")
		}
		return nil
	}},
	{"old-or-new", func(e evidence, x expectation) error {
		for _, end := range x.Endings {
			if end.Enabled == enabled(e.CardProfiles) && slices.Equal(slices.Sorted(slices.Values(end.Present)), iccids(e.CardProfiles)) {
				return nil
			}
		}
		return fmt.Errorf("the card has %v, which is neither the state of before nor that of after", sorted(e.CardProfiles))
	}},
	{"modem-on", func(e evidence, _ expectation) error {
		if e.Switched != 1 {
			return fmt.Errorf("the modem is at AT+CFUN=%d", e.Switched)
		}
		return nil
	}},
	{"modem-shows-profile", func(e evidence, _ expectation) error {
		if want := enabled(e.CardProfiles); want != e.ModemICCID {
			return fmt.Errorf("the modem shows %q, enabled is %q", e.ModemICCID, want)
		}
		return nil
	}},
	{"modem-has-apn", func(e evidence, x expectation) error {
		on := enabled(e.CardProfiles)
		if want, ok := x.APN[on]; ok && !strings.EqualFold(want, e.ModemAPN) {
			return fmt.Errorf("the modem has the access point %q, that of %s is %q", e.ModemAPN, on, want)
		}
		return nil
	}},
	{"modem-registered", func(e evidence, _ expectation) error {
		if on := enabled(e.CardProfiles); on != "" && !e.Registered {
			return fmt.Errorf("the modem is not registered with %s", on)
		}
		return nil
	}},
	{"connection-up", func(e evidence, _ expectation) error {
		if on := enabled(e.CardProfiles); e.Managed && on != "" && len(e.Connections) != 1 {
			return fmt.Errorf("%s is enabled, and NetworkManager has these connections on the modem: %q", on, e.Connections)
		}
		return nil
	}},
	{"no-channel-open", func(e evidence, _ expectation) error {
		if len(e.Channels) > 0 || len(e.Sessions) > 0 {
			return fmt.Errorf("open at rest: channels %v of the card, sessions %v of the modem", e.Channels, e.Sessions)
		}
		return nil
	}},
	{"notifications-kept", func(e evidence, _ expectation) error {
		var lost []string
		for _, n := range e.Made {
			waits := slices.ContainsFunc(e.Waiting, n.is)
			got := slices.ContainsFunc(e.Received, func(r noteSeen) bool { return r.Verified && r.Seq == n.Seq })
			if !waits && !got {
				lost = append(lost, fmt.Sprintf("%d to %s", n.Seq, n.Receiver))
			}
		}
		return none("made by the card, neither received by the server nor in the card's list", lost)
	}},
	{"notifications-delivered", func(e evidence, _ expectation) error {
		var left []string
		for _, n := range e.Waiting {
			left = append(left, fmt.Sprintf("%d to %s", n.Seq, n.Receiver))
		}
		return none("still in the card's list", left)
	}},
	{"notifications-in-order", func(e evidence, _ expectation) error {
		last := map[string]int64{}
		seen := map[noteSeen]bool{}
		var wrong []string
		for _, n := range e.Received {
			key := noteSeen{Seq: n.Seq, Receiver: n.Receiver}
			if seen[key] {
				continue // once more is allowed
			}
			seen[key] = true
			if before, ok := last[n.Receiver]; ok && n.Seq < before {
				wrong = append(wrong, fmt.Sprintf("%d after %d at %s", n.Seq, before, n.Receiver))
			}
			last[n.Receiver] = max(last[n.Receiver], n.Seq)
		}
		return none("out of order", wrong)
	}},
	{"notifications-genuine", func(e evidence, _ expectation) error {
		var wrong []string
		for _, n := range e.Received {
			if !n.Verified {
				wrong = append(wrong, fmt.Sprint(n.Seq))
			}
		}
		return none("the server could not verify", wrong)
	}},
	{"code-not-burned", func(e evidence, x expectation) error {
		used := map[string]int{}
		for _, o := range e.Orders {
			present := slices.Contains(iccids(e.CardProfiles), o.ICCID)
			switch o.State {
			case smdp.Installed:
				used[o.ICCID]++
				if !present && !x.Deleted[o.ICCID] {
					return fmt.Errorf("the order of %s is used up and the profile is not on the card", o.ICCID)
				}
			case smdp.Failed, smdp.Cancelled:
				return fmt.Errorf("the order of %s ended as %q", o.ICCID, o.State)
			default:
				if present {
					return fmt.Errorf("the profile %s is on the card and its order is %q", o.ICCID, o.State)
				}
			}
			if used[o.ICCID] > 1 {
				return fmt.Errorf("%d orders of %s are used up", used[o.ICCID], o.ICCID)
			}
		}
		return nil
	}},
}

func none(what string, list []string) error {
	if len(list) == 0 {
		return nil
	}
	return fmt.Errorf("%s: %s", what, strings.Join(list, ", "))
}

func unended(whose string, jobs []jobSeen) []string {
	var out []string
	for _, j := range jobs {
		if !j.Ended {
			out = append(out, fmt.Sprintf("%s in %q of %s", j.ID, j.State, whose))
		}
	}
	return out
}

func (n noteSeen) is(other noteSeen) bool { return n.Seq == other.Seq }

// enabled is the ICCID of the enabled profile, empty if there is none.
func enabled(list []profileSeen) string {
	for _, p := range list {
		if p.Enabled {
			return p.ICCID
		}
	}
	return ""
}

func iccids(list []profileSeen) []string {
	var out []string
	for _, p := range list {
		out = append(out, p.ICCID)
	}
	slices.Sort(out)
	return out
}

func sorted(list []profileSeen) []profileSeen {
	return slices.SortedFunc(slices.Values(list), func(a, b profileSeen) int { return cmp.Compare(a.ICCID, b.ICCID) })
}
