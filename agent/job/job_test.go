package job_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"log/slog"
	"os"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"lpad/agent/job"
	"lpad/agent/rsp"
)

var (
	t0   = time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)
	newP = must(rsp.ParseICCID("89440000000000000022"))
	oldP = must(rsp.ParseICCID("89330000000000000017"))
)

func must(i rsp.ICCID, err error) rsp.ICCID {
	if err != nil {
		panic(err)
	}
	return i
}

// drive runs a job through a list of events, "event[!][:note]" separated by
// spaces, and returns the states it went through.
func drive(t *testing.T, o job.Order, script string) (job.Job, string) {
	t.Helper()
	j := job.New("1", o, t0)
	states := []string{string(j.State)}
	for _, word := range strings.Fields(script) {
		before, _ := json.Marshal(j)
		next, actions, err := job.Step(j, event(word))
		if err != nil {
			t.Fatalf("%s in %s: %v", word, j.State, err)
		}
		if after, _ := json.Marshal(j); string(after) != string(before) {
			t.Fatalf("%s: Step changed its argument", word)
		}
		if (next.Ended() || next.Waits()) != (len(actions) == 0) {
			t.Fatalf("%s: state %s with actions %v", word, next.State, actions)
		}
		j = next
		states = append(states, string(j.State))
	}
	return j, strings.Join(states, " ")
}

func event(word string) job.Event {
	kind, arg, _ := strings.Cut(word, ":")
	e := job.Event{Kind: job.EventKind(kind), At: t0.Add(time.Second)}
	switch e.Kind {
	case job.Authenticated:
		e.Profile = &job.ProfileFacts{ICCID: newP, Name: "New"}
		e.TransactionID = "0102"
		e.CodeRequired = arg == "code"
		e.NeedsPerson = arg == "person"
	case job.Answered:
		e.Accept = arg == "yes"
	case job.Snapshotted:
		e.Previous, e.Snapshot = oldP, json.RawMessage(`{"a":1}`)
		if arg == "empty" {
			e.Previous = rsp.ICCID{}
		}
	case job.Applied:
		e.APN, e.Source = "iot.example", "order"
	case job.Reread:
		e.Rung = "cfun-0-1"
	case job.Online:
		e.Link = json.RawMessage(`{"interface":"wwan0"}`)
	case job.Fail:
		e.Problem = &job.Problem{Code: arg}
	case job.Delivered:
		if arg == "later" {
			e.Undelivered = 2
		}
	}
	return e
}

func TestStories(t *testing.T) {
	install := job.Order{Kind: job.Install, Source: job.SourceActivationCode, SMDP: "smdp.example", MatchingID: "M", Consent: true}
	enable := install
	enable.Enable = true
	withCode := install
	withCode.HasCode = true
	asking := install
	asking.Consent = false
	dry := withCode
	dry.DryRun, dry.Enable = true, true
	replacing := enable
	replacing.DeleteOld = true
	swtch := job.Order{Kind: job.Enable, ICCID: newP}
	for _, tc := range []struct {
		name, script, states string
		order                job.Order
		problem              string
	}{
		{"install and switch: the ten steps", "start authenticated prepared loaded delivered snapshotted gated enabled applied reread online committed delivered",
			"queued authenticating preparing loading reporting snapshotting gating enabling applying rereading verifying committing confirming done", enable, ""},
		{"install only", "start authenticated prepared loaded delivered:later", "queued authenticating preparing loading reporting done", install, ""},
		{"old profile deleted after the proof", "start authenticated prepared loaded delivered snapshotted gated enabled applied reread online committed delivered deleted delivered",
			"queued authenticating preparing loading reporting snapshotting gating enabling applying rereading verifying committing confirming deleting notifying done", replacing, ""},
		{"old profile that cannot be deleted is no failure", "start authenticated prepared loaded delivered snapshotted gated enabled applied reread online committed delivered failed:x delivered",
			"queued authenticating preparing loading reporting snapshotting gating enabling applying rereading verifying committing confirming deleting notifying done", replacing, ""},
		{"code asked for", "start authenticated:code answered:yes prepared loaded delivered", "queued authenticating consent preparing loading reporting done", install, ""},
		{"code known", "start authenticated:code prepared loaded delivered", "queued authenticating preparing loading reporting done", withCode, ""},
		{"policy wants a person", "start authenticated:person answered:yes prepared loaded delivered", "queued authenticating consent preparing loading reporting done", install, ""},
		{"refused", "start authenticated answered:no ended", "queued authenticating consent cancelling failed", asking, "consent-refused"},
		{"nobody answers", "start authenticated expired failed", "queued authenticating consent cancelling failed", asking, "consent-timeout"},
		{"aborted while asking", "start authenticated abort ended", "queued authenticating consent cancelling cancelled", asking, ""},
		{"dry run", "start authenticated ended", "queued authenticating cancelling cancelled", dry, ""},
		{"dry run, the server is gone", "start authenticated failed:x", "queued authenticating cancelling cancelled", dry, ""},
		{"dry run, a code is wanted", "start authenticated:code ended", "queued authenticating cancelling cancelled", dry, ""},
		{"dry run, the server refuses", "start failed:matching-id-refused", "queued authenticating failed", dry, "matching-id-refused"},
		{"aborted before it began", "abort", "queued cancelled", install, ""},
		{"aborted, cancel fails", "start abort failed:x", "queued authenticating cancelling cancelled", install, ""},
		{"server refuses", "start failed:matching-id-refused", "queued authenticating failed", install, "matching-id-refused"},
		{"package wrong", "start authenticated failed:bpp", "queued authenticating preparing failed", install, "bpp"},
		{"card refuses the package: its result is still told", "start authenticated prepared failed:card-full delivered", "queued authenticating preparing loading notifying failed", install, "card-full"},
		{"no service: everything comes back", "start snapshotted gated enabled applied reread failed:no-service rolled-back delivered",
			"queued snapshotting gating enabling applying rereading verifying rolling-back notifying failed", swtch, "no-service"},
		{"card says no", "start snapshotted gated failed:cat-busy rolled-back delivered", "queued snapshotting gating enabling rolling-back notifying failed", swtch, "cat-busy"},
		{"gate fails", "start snapshotted failed:mm rolled-back delivered", "queued snapshotting gating rolling-back notifying failed", swtch, "mm"},
		{"cannot read the old settings: nothing was touched", "start failed:nm", "queued snapshotting failed", swtch, "nm"},
		{"tidying fails: the network is up all the same", "start snapshotted gated enabled applied reread online failed:nm delivered",
			"queued snapshotting gating enabling applying rereading verifying committing confirming done", swtch, ""},
		{"rollback that is refused is tried five times", "start snapshotted gated enabled failed:apn failed:a failed:b failed:c failed:d failed:e delivered",
			"queued snapshotting gating enabling applying rolling-back rolling-back rolling-back rolling-back rolling-back notifying failed", swtch, "rollback-failed"},
		{"rollback aborted", "start snapshotted gated enabled failed:apn failed:a abort delivered",
			"queued snapshotting gating enabling applying rolling-back rolling-back notifying failed", swtch, "rollback-failed"},
		{"first profile that comes online later", "start snapshotted:empty gated enabled applied reread failed:apn failed:apn online committed delivered",
			"queued snapshotting gating enabling applying rereading verifying retrying retrying committing confirming done", swtch, ""},
		{"first profile, settings refused", "start snapshotted:empty gated enabled failed:at online committed delivered",
			"queued snapshotting gating enabling applying retrying committing confirming done", swtch, ""},
		{"first profile, given up", "start snapshotted:empty gated enabled applied failed:sim abort failed:nm delivered",
			"queued snapshotting gating enabling applying rereading retrying committing confirming failed", swtch, "first-profile-offline"},
		{"first profile that the card refuses", "start snapshotted:empty gated failed:cat-busy rolled-back delivered",
			"queued snapshotting gating enabling rolling-back notifying failed", swtch, "cat-busy"},
		{"disable", "start disabled delivered", "queued disabling notifying done", job.Order{Kind: job.Disable, ICCID: newP}, ""},
		{"disable refused", "start failed:ppr", "queued disabling failed", job.Order{Kind: job.Disable, ICCID: newP}, "ppr"},
		{"delete", "start deleted delivered", "queued deleting notifying done", job.Order{Kind: job.Delete, ICCID: newP}, ""},
		{"delete refused", "start failed:enabled delivered", "queued deleting notifying failed", job.Order{Kind: job.Delete, ICCID: newP}, "enabled"},
		{"nickname", "start renamed", "queued renaming done", job.Order{Kind: job.Nickname, ICCID: newP}, ""},
		{"nickname refused", "start failed:long", "queued renaming failed", job.Order{Kind: job.Nickname, ICCID: newP}, "long"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			j, states := drive(t, tc.order, tc.script)
			if states != tc.states {
				t.Errorf("states\n got %s\nwant %s", states, tc.states)
			}
			got := ""
			if j.Problem != nil {
				got = j.Problem.Code
			}
			if got != tc.problem {
				t.Errorf("problem %q, want %q", got, tc.problem)
			}
			if len(j.Timeline) != len(strings.Fields(states)) {
				t.Errorf("timeline of %d marks for %d states", len(j.Timeline), len(strings.Fields(states)))
			}
			b, err := json.Marshal(j)
			if err != nil {
				t.Fatal(err)
			}
			var back job.Job
			if err := json.Unmarshal(b, &back); err != nil {
				t.Fatal(err)
			}
			if again, _ := json.Marshal(back); string(again) != string(b) {
				t.Errorf("journal form changes:\n%s\n%s", b, again)
			}
		})
	}
}

func TestWhatIsLearned(t *testing.T) {
	j, _ := drive(t, job.Order{Kind: job.Install, Consent: true, Enable: true}, "start authenticated prepared loaded delivered snapshotted gated enabled applied reread online committed delivered:later")
	if j.ICCID() != newP || j.Switch.Previous != oldP || !j.Switch.Enabled || j.Switch.APN != "iot.example" || j.Switch.Rung != "cfun-0-1" ||
		string(j.Switch.Link) == "" || j.Undelivered != 2 || j.TransactionID != "0102" {
		t.Errorf("something was forgotten: %+v", j)
	}
	if n := job.Verifying.Number(); n != 9 {
		t.Errorf("verifying is step %d", n)
	}
}

func TestUnexpectedEventsChangeNothing(t *testing.T) {
	j := job.New("1", job.Order{Kind: job.Install}, t0)
	for _, k := range []job.EventKind{job.Loaded, job.Online, job.RolledBack, "nonsense"} {
		next, actions, err := job.Step(j, job.Event{Kind: k})
		if !errors.Is(err, job.ErrUnexpected) || len(actions) != 0 || next.State != j.State || len(next.Timeline) != 1 {
			t.Errorf("%s: %v %v %v", k, next.State, actions, err)
		}
	}
}

func TestResume(t *testing.T) {
	for _, tc := range []struct {
		script string
		order  job.Order
		state  job.State
		action job.ActionKind
		query  bool
	}{
		{"start", job.Order{Kind: job.Install}, job.Authenticating, job.ActAuthenticate, false},
		{"start authenticated", job.Order{Kind: job.Install}, job.Authenticating, job.ActAuthenticate, false},
		{"start authenticated", job.Order{Kind: job.Install, Consent: true}, job.Authenticating, job.ActAuthenticate, false},
		{"start authenticated prepared", job.Order{Kind: job.Install, Consent: true}, job.Loading, job.ActLoad, true},
		{"start snapshotted", job.Order{Kind: job.Enable, ICCID: newP}, job.Gating, job.ActGate, false},
		{"start snapshotted gated", job.Order{Kind: job.Enable, ICCID: newP}, job.Enabling, job.ActEnable, true},
		{"start snapshotted gated enabled applied reread", job.Order{Kind: job.Enable, ICCID: newP}, job.Verifying, job.ActVerify, false},
		{"start snapshotted gated failed:x", job.Order{Kind: job.Enable, ICCID: newP}, job.RollingBack, job.ActRollback, false},
		{"start snapshotted:empty gated enabled failed:x", job.Order{Kind: job.Enable, ICCID: newP}, job.Retrying, job.ActRetry, false},
		{"start", job.Order{Kind: job.Delete, ICCID: newP}, job.Deleting, job.ActDelete, true},
	} {
		j, _ := drive(t, tc.order, tc.script)
		next, actions, err := job.Step(j, job.Event{Kind: job.Resumed, At: t0})
		if err != nil {
			t.Errorf("%s: %v", tc.script, err)
			continue
		}
		if next.State != tc.state || len(actions) != 1 || actions[0].Kind != tc.action || actions[0].Query != tc.query {
			t.Errorf("%s: resumed to %s with %+v, want %s, %s, query %v", tc.script, next.State, actions, tc.state, tc.action, tc.query)
		}
	}
	queued := job.New("1", job.Order{Kind: job.Install}, t0)
	if next, actions, err := job.Step(queued, job.Event{Kind: job.Resumed}); err != nil || next.State != job.Queued || len(actions) != 0 {
		t.Errorf("queued: %v %v %v", next.State, actions, err)
	}
	cancelling, _ := drive(t, job.Order{Kind: job.Install}, "start abort")
	if next, actions, err := job.Step(cancelling, job.Event{Kind: job.Resumed}); err != nil || next.State != job.Cancelled || len(actions) != 0 {
		t.Errorf("cancelling: %v %v %v", next.State, actions, err)
	}
	done, _ := drive(t, job.Order{Kind: job.Nickname}, "start renamed")
	if _, _, err := job.Step(done, job.Event{Kind: job.Resumed}); !errors.Is(err, job.ErrUnexpected) {
		t.Errorf("an ended job was resumed: %v", err)
	}
}

func TestCancelReasonsKeepTheOrderAlive(t *testing.T) {
	for _, tc := range []struct {
		script string
		want   rsp.CancelReason
		dryRun bool
	}{
		{"start authenticated answered:no", rsp.CancelEndUserRejection, false},
		{"start authenticated expired", rsp.CancelTimeout, false},
		{"start authenticated abort", rsp.CancelPostponed, false},
		{"start authenticated", rsp.CancelPostponed, true},
	} {
		j := job.New("1", job.Order{Kind: job.Install, DryRun: tc.dryRun, Consent: tc.dryRun}, t0)
		var actions []job.Action
		for _, w := range strings.Fields(tc.script) {
			var err error
			if j, actions, err = job.Step(j, event(w)); err != nil {
				t.Fatal(err)
			}
		}
		if len(actions) != 1 || actions[0].Kind != job.ActCancel || actions[0].Why != tc.want {
			t.Errorf("%s: %+v, want cancel with %v", tc.script, actions, tc.want)
		}
	}
}

func TestTimelineIsBounded(t *testing.T) {
	j, _ := drive(t, job.Order{Kind: job.Enable, ICCID: newP}, "start snapshotted gated")
	for range 500 {
		var err error
		if j, _, err = job.Step(j, job.Event{Kind: job.Resumed, At: t0}); err != nil {
			t.Fatal(err)
		}
	}
	if n := len(j.Timeline); n > 64 {
		t.Errorf("timeline of %d marks", n)
	}
}

func TestOrderLogsNoSecrets(t *testing.T) {
	o := job.Order{Kind: job.Install, SMDP: "smdp.example", MatchingID: "SECRET-TOKEN", ICCID: newP, By: "uid 0"}
	var log bytes.Buffer
	slog.New(slog.NewTextHandler(&log, nil)).Info("order", "order", o)
	if got := log.String(); strings.Contains(got, "SECRET") || strings.Contains(got, newP.String()) {
		t.Errorf("the log shows %s", got)
	}
}

// TestChart holds the chart of the package comment against the code, both
// ways, and against the states and events that exist.
func TestChart(t *testing.T) {
	b, err := os.ReadFile("doc.go")
	if err != nil {
		t.Fatal(err)
	}
	_, chart, _ := strings.Cut(string(b), "# The chart")
	drawn := map[string]bool{}
	for _, line := range strings.Split(chart, "\n") {
		fields := strings.Fields(strings.TrimPrefix(line, "//\t"))
		if !strings.HasPrefix(line, "//\t") || len(fields) < 3 {
			continue
		}
		for _, s := range []string{fields[0], fields[2]} {
			if !job.State(s).Known() {
				t.Errorf("the chart has a state %q that does not exist", s)
			}
		}
		drawn[fields[0]+" "+fields[1]] = true
	}
	coded := map[string]bool{}
	for _, p := range job.Transitions() {
		coded[p] = true
		if !drawn[p] {
			t.Errorf("not in the chart: %s", p)
		}
	}
	for p := range drawn {
		if !coded[p] {
			t.Errorf("not in the code: %s", p)
		}
	}
	if len(coded) < 40 {
		t.Errorf("only %d transitions", len(coded))
	}
}

// A modem that is away for an hour must not leave the device between two
// profiles.
func TestRollbackIsPatient(t *testing.T) {
	j, _ := drive(t, job.Order{Kind: job.Enable, ICCID: newP}, "start snapshotted gated enabled failed:apn")
	away := job.Event{Kind: job.Fail, At: t0, Problem: &job.Problem{Code: "port-missing", Detail: "no modem", Retry: true}}
	var waited time.Duration
	tries := 0
	for ; j.State == job.RollingBack; tries++ {
		next, actions, err := job.Step(j, away)
		if err != nil || tries > 1000 {
			t.Fatalf("try %d: %v", tries, err)
		}
		waited += actions[0].Delay
		j = next
	}
	if waited < 8*time.Hour || waited > 24*time.Hour || tries < 20 {
		t.Errorf("given up after %d tries in %s", tries, waited)
	}
	if j.Problem.Code != "rollback-failed" || j.Problem.State != job.RollingBack || !strings.Contains(j.Problem.Detail, "no modem") {
		t.Errorf("problem %+v", j.Problem)
	}
}

// The only profile of a device stays enabled and is tried for long, but not for
// ever and not without pauses.
func TestFirstProfileIsTriedAgain(t *testing.T) {
	j, _ := drive(t, job.Order{Kind: job.Enable, ICCID: newP}, "start snapshotted:empty gated enabled applied reread failed:no-bearer")
	var waited time.Duration
	tries := 0
	for ; j.State == job.Retrying; tries++ {
		next, actions, err := job.Step(j, job.Event{Kind: job.Fail, At: t0, Problem: &job.Problem{Code: "no-bearer", Detail: "refused", Who: "operator"}})
		if err != nil || tries > 1000 {
			t.Fatalf("try %d: %v", tries, err)
		}
		waited += actions[0].Delay
		j = next
	}
	if waited < 8*time.Hour || waited > 24*time.Hour || tries != 100 || j.State != job.Committing {
		t.Errorf("given up after %d tries in %s, then %s", tries, waited, j.State)
	}
	if p := j.Problem; p.Code != "first-profile-offline" || p.State != job.Retrying || p.Detail != "refused" || p.Who != "technician" {
		t.Errorf("problem %+v", p)
	}
}

// What is secret does not outlive the job that needed it: passwords, the
// matching id, the address of the report.
func TestEndForgets(t *testing.T) {
	j, _ := drive(t, job.Order{Kind: job.Install, SMDP: "smdp.example", MatchingID: "M", Consent: true, Enable: true, Parameters: json.RawMessage(`{"p":1}`),
		ReportTo: "https://reports.example/token"}, "start authenticated prepared loaded delivered snapshotted gated enabled applied reread online committed")
	if len(j.Switch.Snapshot) == 0 || len(j.Order.Parameters) == 0 || j.Order.MatchingID == "" || j.Order.ReportTo == "" {
		t.Fatalf("forgotten too early: %+v", j)
	}
	if kept := j.WithoutSecrets(); kept.Order.MatchingID == "" || len(kept.Switch.Snapshot) == 0 {
		t.Errorf("a job that has not ended lost what it needs: %+v", kept)
	}
	j, _, err := job.Step(j, job.Event{Kind: job.Delivered, At: t0})
	if err != nil || !j.Ended() || j.Switch.Snapshot != nil || j.Order.Parameters != nil || j.Order.MatchingID != "" || j.Order.ReportTo != "" {
		t.Errorf("%v: kept in %s: %+v", err, j.State, j)
	}
	if j.Order.SMDP == "" || j.ICCID() != newP || j.TransactionID == "" {
		t.Errorf("the history does not show what it was: %+v", j)
	}
}

// A device that restarts again and again within a switch goes back; where
// there is nothing to go back to, it goes on trying.
func TestRestartsAreCounted(t *testing.T) {
	swtch := job.Order{Kind: job.Enable, ICCID: newP}
	for _, tc := range []struct {
		script string
		state  job.State // after too many restarts
	}{
		{"start snapshotted", job.RollingBack},
		{"start snapshotted gated", job.RollingBack},
		{"start snapshotted gated enabled", job.RollingBack},
		{"start snapshotted gated enabled applied", job.RollingBack},
		{"start snapshotted gated enabled applied reread", job.RollingBack},
		{"start snapshotted:empty gated enabled applied reread", job.Retrying},
		{"start snapshotted gated enabled applied reread online", ""}, // proven
		{"start snapshotted gated failed:x", ""},                      // on its way back already
		{"start", ""},                                                 // nothing was changed yet
	} {
		j, _ := drive(t, swtch, tc.script)
		was := j.State
		for n := range job.MaxRestarts + 2 {
			before := j
			var counted bool
			if j, counted = j.Restarted(); counted != (tc.state != "" && n <= job.MaxRestarts) {
				t.Fatalf("%s: restart %d counted: %v", tc.script, n+1, counted)
			}
			next, actions, err := job.Step(j, job.Event{Kind: job.Resumed, At: t0})
			if err != nil || len(actions) != 1 {
				t.Fatalf("%s: %v %v", tc.script, actions, err)
			}
			if tc.state == "" || n < job.MaxRestarts {
				if next.State != was {
					t.Fatalf("%s: %s after %d restarts", tc.script, next.State, n+1)
				}
				j = next
				continue
			}
			if next.State != tc.state || next.Problem == nil || next.Problem.Code != "too-many-restarts" || next.Problem.State != was {
				t.Errorf("%s: %s after %d restarts: %+v", tc.script, next.State, n+1, next.Problem)
			}
			j = before // at the cap it stays there, however often it is asked
			j.Switch.Restarts = job.MaxRestarts + 1
		}
	}
}

func TestOutcome(t *testing.T) {
	install := job.Order{Kind: job.Install, Consent: true, Enable: true}
	swtch := job.Order{Kind: job.Enable, ICCID: newP}
	for _, tc := range []struct {
		order  job.Order
		script string
		want   job.Outcome
	}{
		{install, "start authenticated", ""},
		{install, "start authenticated prepared loaded delivered snapshotted gated enabled applied reread online committed delivered", job.OutcomeDone},
		{install, "start failed:x", job.OutcomeFailed},
		{install, "start authenticated prepared loaded delivered failed:x", job.OutcomeFailed},
		{install, "abort", job.OutcomeCancelled},
		{swtch, "start snapshotted failed:x rolled-back delivered", job.OutcomeRolledBack},
		{swtch, "start snapshotted gated enabled applied reread failed:x rolled-back delivered", job.OutcomeRolledBack},
		{swtch, "start snapshotted gated failed:x abort delivered", job.OutcomeStranded},
		{swtch, "start snapshotted:empty gated enabled failed:x abort committed delivered", job.OutcomeGivenUp},
	} {
		if j, _ := drive(t, tc.order, tc.script); j.Outcome() != tc.want {
			t.Errorf("%s: %q, want %q", tc.script, j.Outcome(), tc.want)
		}
	}
}

// What does not end a job badly is seen in its timeline all the same.
func TestFailureLeavesANote(t *testing.T) {
	j, _ := drive(t, job.Order{Kind: job.Enable, ICCID: newP}, "start snapshotted gated enabled applied reread online failed:networkmanager-absent")
	if last := j.Timeline[len(j.Timeline)-1]; j.Problem != nil || last.State != job.Confirming || last.Note != "networkmanager-absent" {
		t.Errorf("problem %v, last mark %+v", j.Problem, last)
	}
}

// What a service says may be long; each step writes it again.
func TestDetailIsBounded(t *testing.T) {
	if p := job.ProblemOf(errors.New(strings.Repeat("é", 1<<20))); len(p.Detail) > 4<<10 || !utf8.ValidString(p.Detail) {
		t.Errorf("a detail of %d bytes", len(p.Detail))
	}
}
