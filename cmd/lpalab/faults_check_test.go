package main

import (
	"os"
	"slices"
	"strings"
	"testing"

	"lpad/agent/rsp/rsptest/smdp"
)

// sound is what is seen after a switch from old to new that went well.
func sound() evidence {
	profiles := []profileSeen{{"old", false}, {"new", true}}
	notes := []noteSeen{{Seq: 0, Receiver: "a"}, {Seq: 1, Receiver: "a"}, {Seq: 2, Receiver: "b"}}
	return evidence{
		CardProfiles: profiles, AgentProfiles: []profileSeen{{"new", true}, {"old", false}}, AgentState: "ready",
		Jobs: []jobSeen{{"1", "done", true}}, JournalJobs: []jobSeen{{"1", "done", true}},
		CardPower: true, Switched: 1, ModemICCID: "new", ModemAPN: "Internet", Registered: true,
		Made:     notes,
		Received: []noteSeen{{2, "b", true}, {0, "a", true}, {1, "a", true}, {0, "a", true}},
		Orders:   []orderSeen{{"new", smdp.Installed}},
	}
}

func soundExpectation() expectation {
	return expectation{
		Endings: []ending{{"before", []string{"old"}, "old"}, {"after", []string{"old", "new"}, "new"}},
		APN:     map[string]string{"old": "old.example", "new": "internet"},
	}
}

func TestCheckAcceptsWhatIsSound(t *testing.T) {
	if v := check(sound(), soundExpectation()); len(v) > 0 {
		t.Errorf("violations of a sound device: %v", v)
	}
	// A card that never was provisioned.
	e := evidence{AgentState: "needs-provisioning", CardPower: true, Switched: 1, Orders: []orderSeen{{"new", smdp.Downloaded}}}
	if v := check(e, expectation{Endings: []ending{{"before", nil, ""}}}); len(v) > 0 {
		t.Errorf("violations of an empty card: %v", v)
	}
}

// Every invariant is broken by something, and says so by its own name.
func TestCheckFindsEveryViolation(t *testing.T) {
	tests := []struct {
		invariant string
		what      string
		spoil     func(*evidence)
	}{
		{"daemon-alive", "panic", func(e *evidence) { e.Exits = []string{"exit status 2"} }},
		{"daemon-idle", "card missing", func(e *evidence) { e.AgentState = "card-missing" }},
		{"daemon-idle", "busy", func(e *evidence) { e.AgentState = "busy" }},
		{"daemon-stops", "exit status", func(e *evidence) { e.StopError = "exit status 1" }},
		{"disk-told", "another name", func(e *evidence) { e.Wrong = []string{"the daemon calls it \"internal\""} }},
		{"jobs-ended", "in the daemon", func(e *evidence) { e.Jobs = append(e.Jobs, jobSeen{"2", "loading", false}) }},
		{"jobs-ended", "in the journal", func(e *evidence) { e.JournalJobs = append(e.JournalJobs, jobSeen{"2", "loading", false}) }},
		{"journal-readable", "damage", func(e *evidence) { e.JournalError = "record 3" }},
		{"card-powered", "off", func(e *evidence) { e.CardPower = false }},
		{"agent-knows-card", "state", func(e *evidence) { e.AgentProfiles = []profileSeen{{"new", false}, {"old", true}} }},
		{"agent-knows-card", "missing", func(e *evidence) { e.AgentProfiles = e.AgentProfiles[:1] }},
		{"one-enabled", "two", func(e *evidence) { e.CardProfiles = []profileSeen{{"old", true}, {"new", true}} }},
		{"one-enabled", "none", func(e *evidence) { e.CardProfiles = []profileSeen{{"old", false}, {"new", false}} }},
		{"old-or-new", "the old one deleted", func(e *evidence) { e.CardProfiles = []profileSeen{{"new", true}} }},
		{"old-or-new", "the old one enabled again", func(e *evidence) { e.CardProfiles = []profileSeen{{"old", true}, {"new", false}} }},
		{"modem-on", "off", func(e *evidence) { e.Switched = 0 }},
		{"modem-shows-profile", "the old one", func(e *evidence) { e.ModemICCID = "old" }},
		{"modem-shows-profile", "none", func(e *evidence) { e.ModemICCID = "" }},
		{"modem-has-apn", "the old one", func(e *evidence) { e.ModemAPN = "old.example" }},
		{"modem-registered", "no", func(e *evidence) { e.Registered = false }},
		{"connection-up", "none", func(e *evidence) { e.Managed = true }},
		{"connection-up", "both", func(e *evidence) { e.Managed, e.Connections = true, []string{"old", "new"} }},
		{"no-channel-open", "on the card", func(e *evidence) { e.Channels = []int{1} }},
		{"no-channel-open", "in the modem", func(e *evidence) { e.Sessions = []string{"1"} }},
		{"notifications-kept", "lost", func(e *evidence) { e.Received = e.Received[:1] }},
		{"notifications-kept", "removed before anybody had it", func(e *evidence) { e.Made = append(e.Made, noteSeen{Seq: 3, Receiver: "a"}) }},
		{"notifications-kept", "received, but not as it was signed", func(e *evidence) { e.Received[0].Verified = false }},
		{"notifications-delivered", "waits", func(e *evidence) { e.Waiting = e.Made[2:] }},
		{"notifications-in-order", "1 before 0", func(e *evidence) { e.Received = []noteSeen{{1, "a", true}, {0, "a", true}, {2, "b", true}} }},
		{"notifications-genuine", "forged", func(e *evidence) { e.Received = append(e.Received, noteSeen{9, "a", false}) }},
		{"code-not-burned", "used up for nothing", func(e *evidence) {
			e.CardProfiles, e.AgentProfiles = []profileSeen{{"old", true}}, []profileSeen{{"old", true}}
		}},
		{"code-not-burned", "cancelled", func(e *evidence) { e.Orders[0].State = smdp.Cancelled }},
		{"code-not-burned", "failed", func(e *evidence) { e.Orders[0].State = smdp.Failed }},
		{"code-not-burned", "installed and still open", func(e *evidence) { e.Orders[0].State = smdp.Downloaded }},
		{"code-not-burned", "twice", func(e *evidence) { e.Orders = append(e.Orders, orderSeen{"new", smdp.Installed}) }},
	}
	found := map[string]bool{}
	for _, test := range tests {
		t.Run(test.invariant+" "+test.what, func(t *testing.T) {
			e := sound()
			test.spoil(&e)
			v := check(e, soundExpectation())
			if !slices.ContainsFunc(v, func(v violation) bool { return v.Invariant == test.invariant }) {
				t.Errorf("not found; found: %v", v)
			}
		})
		found[test.invariant] = true
	}
	for _, i := range invariants {
		if !found[i.Name] {
			t.Errorf("nothing shows that a violation of %s is found", i.Name)
		}
	}
}

// A profile whose deletion was ordered may be gone with its code used up.
func TestCheckDeletedProfile(t *testing.T) {
	e, x := sound(), soundExpectation()
	e.CardProfiles, e.AgentProfiles, e.ModemICCID, e.ModemAPN = []profileSeen{{"old", true}}, []profileSeen{{"old", true}}, "old", "old.example"
	x.Deleted = map[string]bool{"new": true}
	if v := check(e, x); len(v) > 0 {
		t.Errorf("violations: %v", v)
	}
}

// Every class can be made for every scenario that it names, at index 1, and is
// replayed by its name.
func TestClasses(t *testing.T) {
	names := map[string]bool{}
	for _, k := range kinds {
		if names[k.name] || strings.ContainsAny(k.name, "./") {
			t.Errorf("name %q", k.name)
		}
		names[k.name] = true
		for _, s := range k.scenarios {
			class, index, err := parsePlace(k.name + "." + s + "/1")
			if err != nil {
				t.Fatal(err)
			}
			f, sc, err := newFault(class, index, 1)
			if err != nil {
				t.Fatal(err)
			}
			if f.name() != class+"/1" || sc.name != s {
				t.Errorf("fault %s of %s", f.name(), sc.name)
			}
		}
	}
	for _, bad := range []string{"kill-append.install", "kill-append.install/x", "x"} {
		if _, _, err := parsePlace(bad); err == nil {
			t.Errorf("%q is a place", bad)
		}
	}
	for _, bad := range []string{"nothing.install", "kill-append.nothing", "kill-append"} {
		if _, _, err := newFault(bad, 1, 1); err == nil {
			t.Errorf("%q is a class", bad)
		}
	}
}

// The README's table has every class, and no other.
func TestReadmeTable(t *testing.T) {
	text, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	_, table, _ := strings.Cut(string(text), "| what goes wrong | classes |")
	table, _, _ = strings.Cut(table, "\n\n")
	var said, are []string
	for i, part := range strings.Split(table, "`") {
		if i%2 == 1 {
			said = append(said, part)
		}
	}
	for _, k := range kinds {
		are = append(are, k.name)
	}
	slices.Sort(said)
	slices.Sort(are)
	if !slices.Equal(said, are) {
		t.Errorf("the README has\n%q\nthe classes are\n%q", said, are)
	}
}

// The sample is the same for a seed, and no class is forgotten.
func TestSample(t *testing.T) {
	var places []place
	for i := range 100 {
		places = append(places, place{"long", i})
	}
	places = append(places, place{"short", 0})
	one, two := sample(slices.Clone(places), faultOptions{seed: 7, sample: 5}), sample(slices.Clone(places), faultOptions{seed: 7, sample: 5})
	if !slices.Equal(one, two) {
		t.Errorf("two samples of one seed: %v and %v", one, two)
	}
	if len(one) != 5 || !slices.Contains(one, place{"short", 0}) {
		t.Errorf("sample %v", one)
	}
	if all := sample(slices.Clone(places), faultOptions{seed: 7}); len(all) != len(places) {
		t.Errorf("%d of %d places", len(all), len(places))
	}
}
