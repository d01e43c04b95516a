package runner

import (
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"lpad/agent/job"
	"lpad/agent/journal"
	"lpad/agent/procedure"
	"lpad/agent/rsp"
	"lpad/agent/switchover"
	"lpad/internal/fault"
)

func testICCID(t *testing.T, n int) rsp.ICCID {
	t.Helper()
	id, err := rsp.ParseICCID(fmt.Sprintf("8900000000000000%04d", n))
	if err != nil {
		t.Fatal(err)
	}
	return id
}

// The rule of generations: who takes whose place.
func TestSupersedes(t *testing.T) {
	for _, tc := range []struct {
		name     string
		old, new int64
		document string
		want     string
	}{
		{"higher", 1, 2, `{"b":1}`, ""},
		{"lower", 2, 1, `{"b":1}`, outdated},
		{"none for one", 1, 0, `{"b":1}`, outdated},
		{"none for none", 0, 0, `{"b":1}`, ""},
		{"the same", 3, 3, "{ \"a\": 1 }\n", ""},
		{"the same, but not in what it says", 3, 3, `{"a":2}`, conflicting},
	} {
		if got := (Staged{Document: json.RawMessage(`{"a":1}`), Generation: tc.old}).supersedes(json.RawMessage(tc.document), tc.new); got != tc.want {
			t.Errorf("%s: %q, want %q", tc.name, got, tc.want)
		}
	}
}

// What is staged is bounded, by number and by size, and so are suspensions.
func TestStagedBounds(t *testing.T) {
	var m Memory
	for i := range maxStaged + 3 {
		if err := m.roomFor(testICCID(t, i), json.RawMessage(`{}`)); (err != nil) != (i >= maxStaged) {
			t.Errorf("%d: %v", i, err)
		}
		m = m.stage(Staged{ICCID: testICCID(t, i), Document: json.RawMessage(`{}`), At: time.Unix(int64(i), 0)})
	}
	if _, found := m.Document(testICCID(t, 2)); len(m.Staged) != maxStaged || found {
		t.Errorf("%d documents, the oldest is there: %v", len(m.Staged), found)
	}
	if err := m.roomFor(testICCID(t, 5), json.RawMessage(`{"b":1}`)); err != nil { // in place of its own
		t.Error(err)
	}
	large := json.RawMessage(`{"a":"` + strings.Repeat("x", maxStagedBytes/2) + `"}`)
	m = Memory{}.stage(Staged{ICCID: testICCID(t, 1), Document: large}).stage(Staged{ICCID: testICCID(t, 2), Document: json.RawMessage(`{}`)})
	if err := m.roomFor(testICCID(t, 3), large); fault.Of(err).Code != "parameters-full" {
		t.Errorf("too much: %v", err)
	}
	if m = m.stage(Staged{ICCID: testICCID(t, 3), Document: large}); len(m.Staged) != 2 || m.Staged[1].ICCID != testICCID(t, 3) {
		t.Errorf("%d documents", len(m.Staged))
	}
	m = Memory{}
	for i := range maxSuspended + 2 {
		j := job.Job{ID: "J", Order: job.Order{ICCID: testICCID(t, i)}}
		m = m.suspend(j, []Origin{{Source: "order", Generation: 1}}, &job.Problem{Code: "x"}, time.Unix(1, 0))
		m = m.suspend(j, []Origin{{Source: "order", Generation: 2}}, nil, time.Unix(2, 0)) // the newer word
	}
	if len(m.Suspended) != maxSuspended || m.Suspended[0].ICCID != testICCID(t, 2) || m.Suspended[0].Generation != 2 || len(m.suspensionWarnings()) != maxSuspended {
		t.Errorf("%d suspensions, the first %+v", len(m.Suspended), m.Suspended[0])
	}
}

// A source is suspended for one profile, by its generation, or without one by
// what it says; what the order itself brings is on a new trial.
func TestSuspendedOrigins(t *testing.T) {
	one, two := testICCID(t, 1), testICCID(t, 2)
	m := Memory{Suspended: []Suspension{
		{ICCID: one, Origin: Origin{"oem: a", 3, "aa"}, Job: "J1"},
		{ICCID: one, Origin: Origin{"oem: b", 0, "bb"}, Job: "J1"},
		{ICCID: one, Origin: Origin{"order", 0, "cc"}, Job: "J1"},
	}}
	about := func(id string, iccid rsp.ICCID) job.Job { return job.Job{ID: id, Order: job.Order{ICCID: iccid}} }
	for _, tc := range []struct {
		name  string
		j     job.Job
		fresh bool
		o     Origin
		want  bool
	}{
		{"its generation", about("J2", one), false, Origin{"oem: a", 3, "zz"}, true},
		{"another", about("J2", one), false, Origin{"oem: a", 4, "aa"}, false},
		{"another profile", about("J2", two), false, Origin{"oem: a", 3, "aa"}, false},
		{"its content", about("J2", one), false, Origin{"oem: b", 0, "bb"}, true},
		{"another content", about("J2", one), false, Origin{"oem: b", 0, "b2"}, false},
		{"the profile's document", about("J2", one), false, Origin{"order", 0, "cc"}, true},
		{"brought anew", about("J2", one), true, Origin{"order", 0, "cc"}, false},
		{"failed in this job", about("J1", one), true, Origin{"order", 0, "cc"}, true},
	} {
		if got := m.suspended(tc.j, tc.fresh)(tc.o); got != tc.want {
			t.Errorf("%s: %v", tc.name, got)
		}
	}
}

// Who is to blame when the modem finds no network.
func TestFailedTrial(t *testing.T) {
	oem, order := Origin{"oem: a", 1, ""}, Origin{"order", 2, ""}
	e := Effective{Trial: []Trial{{"radio.rats", oem}, {"radio.lteBands", oem}, {leafAttach, order}}}
	lost := fault.New(fault.Fault{Code: codeMissing}, nil)
	at := func(s switchover.Stage, err error) switchover.Attempt { return switchover.Attempt{Stage: s, Err: err} }
	none := errors.New("no network")
	for _, tc := range []struct {
		name     string
		attempts []switchover.Attempt
		online   bool
		want     []Origin
	}{
		{"at once", nil, true, nil},
		{"no network at all", []switchover.Attempt{at(switchover.StageRegister, none), at(switchover.StageRegister, none)}, false, []Origin{oem, order}},
		{"not before the attach was left out", []switchover.Attempt{at(switchover.StageRegister, none)}, true, []Origin{order}},
		{"then, but with no connection", []switchover.Attempt{at(switchover.StageRegister, none), at(switchover.StageConnect, none)}, false, []Origin{order}},
		{"a network, but no connection", []switchover.Attempt{at(switchover.StageConnect, none), at(switchover.StageProbe, none)}, false, nil},
		{"the modem was away", []switchover.Attempt{at(switchover.StageRegister, lost)}, false, nil},
		{"the modem was away for one", []switchover.Attempt{at(switchover.StageRegister, none), at(switchover.StageReread, none)}, false, nil},
	} {
		if got := e.failed(tc.attempts, tc.online); !slices.Equal(got, tc.want) {
			t.Errorf("%s: %v, want %v", tc.name, got, tc.want)
		}
	}
}

// What could not be set is said, by its leaf, its group or its purpose.
func TestUnsupported(t *testing.T) {
	e := Effective{Parameters: []job.Parameter{{Leaf: "apns.default"}, {Leaf: "apns.default.2"}, {Leaf: "apns.ims"}, {Leaf: "apns.mms"}, {Leaf: "radio.edrx.lte"}, {Leaf: "radio.psm"}}}
	var got []string
	for _, p := range e.set(switchover.Applied{Index: 1, NotApplied: []string{"ims,supl: no context is free", "radio.edrx: lpad has no AT port for it"}}) {
		got = append(got, p.Leaf+" "+p.State)
	}
	if want := []string{"apns.default ", "apns.ims unsupported", "apns.mms ", "radio.edrx.lte unsupported", "radio.psm "}; !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
}

// Documents of profiles that somebody else has deleted go, those of another card
// stay; what cannot be read is left alone, and all of it outlives a restart.
func TestPrune(t *testing.T) {
	j, err := journal.Open(filepath.Join(t.TempDir(), "journal"), journal.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer j.Close()
	runner := func() *Runner { return New(Config{Journal: j, Log: slog.New(slog.DiscardHandler)}) }
	here, err := rsp.ParseEID("89049032123451234512345678901235")
	if err != nil {
		t.Fatal(err)
	}
	m := Memory{Applied: AppliedSet{ICCID: testICCID(t, 2)}}
	for i, eid := range []rsp.EID{here, here, {}} {
		m = m.stage(Staged{ICCID: testICCID(t, i+1), EID: eid, Document: json.RawMessage(`{"version":1}`), Source: "order", At: time.Unix(int64(10-i), 0)})
	}
	r := runner()
	if err := r.remember(m); err != nil {
		t.Fatal(err)
	}
	if err := j.PutSetting(stagedPrefix+"nonsense", 7); err != nil {
		t.Fatal(err)
	}
	r = runner()
	var order []rsp.ICCID
	for _, s := range r.View().Memory.Staged {
		order = append(order, s.ICCID)
	}
	if want := []rsp.ICCID{testICCID(t, 3), testICCID(t, 2), testICCID(t, 1)}; !slices.Equal(order, want) { // by age
		t.Errorf("%v, want %v", order, want)
	}
	written := j.Written()
	if err := r.remember(r.View().Memory); err != nil || j.Written() != written {
		t.Errorf("%d bytes are written for nothing, %v", j.Written()-written, err)
	}
	one, two := rsp.Profile{ICCID: testICCID(t, 1)}, rsp.Profile{ICCID: testICCID(t, 2)}
	other, err := rsp.ParseEID("89049032000000000000000000000007")
	if err != nil {
		t.Fatal(err)
	}
	later := func() {
		for id, since := range r.absent {
			r.absent[id] = since.Add(-absentFor)
		}
	}
	for i, f := range []procedure.Facts{ // none of which proves anything, in this order
		{EID: here},
		{EID: here, Profiles: []rsp.Profile{one}}, // missing for the first time
		{EID: here}, // a card that was just reset
		{EID: other, Profiles: []rsp.Profile{one}},        // another card
		{EID: here, Profiles: []rsp.Profile{one, two}},    // it is there again
		{EID: here, Profiles: []rsp.Profile{one}},         // missing, and for the first time
		{EID: here, Profiles: []rsp.Profile{one, {}, {}}}, // and again, but too soon
	} {
		if i < 6 {
			later()
		}
		r.prune(f)
		if v := r.View().Memory; len(v.Staged) != 3 || v.Applied.ICCID.IsZero() {
			t.Fatalf("%d: %+v", i, v)
		}
	}
	later()
	r.prune(procedure.Facts{EID: here, Profiles: []rsp.Profile{one}})
	for range 2 {
		v := r.View().Memory
		if _, found := v.Document(testICCID(t, 2)); len(v.Staged) != 2 || found || !v.Applied.ICCID.IsZero() {
			t.Errorf("%+v", v)
		}
		r = runner()
	}
}

// A profile that is installed anew begins without the document of before: that
// belonged to one which somebody else has deleted, and must not outrank what the
// new order brings.
func TestInstallationBeginsAnew(t *testing.T) {
	one, two := testICCID(t, 1), testICCID(t, 2)
	m := Memory{}.stage(Staged{ICCID: one, Document: json.RawMessage(`{"generation":9}`), Generation: 9}).stage(Staged{ICCID: two, Document: json.RawMessage(`{}`)})
	r := &Runner{log: slog.New(slog.DiscardHandler)}
	j := job.Job{ID: "J", State: job.Loading, Order: job.Order{Kind: job.Install}, Profile: &job.ProfileFacts{ICCID: one}}
	m = r.staging(m, j, j, job.Event{Kind: job.Loaded})
	if _, found := m.Document(one); found || len(m.Staged) != 1 {
		t.Errorf("%+v", m.Staged)
	}
}

// Whoever has sent a profile's document hears of its being applied, once, also
// when somebody else orders the switch.
func TestInherit(t *testing.T) {
	one := testICCID(t, 1)
	m := Memory{}.stage(Staged{ICCID: one, Document: json.RawMessage(`{}`), ReportTo: "https://fleet.example/r"})
	for _, tc := range []struct {
		name string
		o    job.Order
		want string
	}{
		{"a switch", job.Order{Kind: job.Enable, ICCID: one}, "https://fleet.example/r"},
		{"one that says itself", job.Order{Kind: job.Enable, ICCID: one, ReportTo: "https://own.example"}, "https://own.example"},
		{"one with a document of its own", job.Order{Kind: job.Enable, ICCID: one, Parameters: json.RawMessage(`{}`)}, ""},
		{"another profile", job.Order{Kind: job.Enable, ICCID: testICCID(t, 2)}, ""},
		{"no switch", job.Order{Kind: job.Disable, ICCID: one}, ""},
	} {
		if got := m.inherit(tc.o).ReportTo; got != tc.want {
			t.Errorf("%s: %q, want %q", tc.name, got, tc.want)
		}
	}
	r := &Runner{cfg: Config{}, log: slog.New(slog.DiscardHandler)}
	j := job.Job{ID: "J", State: job.Committing, Order: job.Order{Kind: job.Enable, ICCID: one}}
	proven := j
	proven.State = job.Confirming
	m = r.staging(m, j, proven, job.Event{Kind: job.Committed})
	if s, found := m.Document(one); !found || s.ReportTo != "" {
		t.Errorf("%+v", s)
	}
}
