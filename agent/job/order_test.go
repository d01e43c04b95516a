package job_test

import (
	"testing"
	"time"

	"lpad/agent/job"
)

// A switch that was ordered for a time to come waits for it, keeps what it needs
// over restarts, and can be taken back.
func TestScheduled(t *testing.T) {
	later := t0.Add(time.Hour)
	install := job.Order{Kind: job.Install, Source: job.SourceActivationCode, SMDP: "smdp.example", MatchingID: "M", Consent: true, Enable: true,
		EnableAt: later, ReportTo: "https://reports.example/x", Issuer: "fleet", Serial: 3, Verified: true}
	swtch := job.Order{Kind: job.Enable, ICCID: newP, EnableAt: later}
	past := install
	past.EnableAt = t0
	staged := install
	staged.Enable = false
	for _, tc := range []struct {
		name, script, states string
		order                job.Order
	}{
		{"install now, enable later", "start authenticated prepared loaded delivered", "queued authenticating preparing loading reporting scheduled", install},
		{"its time has come", "start authenticated prepared loaded delivered start snapshotted gated enabled applied reread online committed delivered",
			"queued authenticating preparing loading reporting scheduled snapshotting gating enabling applying rereading verifying committing confirming done", install},
		{"taken back in time", "start authenticated prepared loaded delivered abort", "queued authenticating preparing loading reporting scheduled cancelled", install},
		{"the time is over when the profile is there", "start authenticated prepared loaded delivered snapshotted",
			"queued authenticating preparing loading reporting snapshotting gating", past},
		{"nothing to be enabled", "start authenticated prepared loaded delivered", "queued authenticating preparing loading reporting done", staged},
		{"enable later", "start start snapshotted", "queued scheduled snapshotting gating", swtch},
	} {
		if _, states := drive(t, tc.order, tc.script); states != tc.states {
			t.Errorf("%s:\n got %s\nwant %s", tc.name, states, tc.states)
		}
	}

	j, _ := drive(t, install, "start authenticated prepared loaded delivered:later")
	if !j.Waits() || j.Ended() || j.Due(later.Add(-time.Second)) || !j.Due(later) || j.State.Number() != 5 || j.Undelivered != 2 {
		t.Errorf("waits %v, due %v, step %d: %+v", j.Waits(), j.Due(later), j.State.Number(), j)
	}
	next, actions, err := job.Step(j, job.Event{Kind: job.Resumed, At: t0})
	if err != nil || len(actions) != 0 || next.State != job.Scheduled || len(next.Timeline) != len(j.Timeline) || next.Order.ReportTo == "" {
		t.Errorf("a restart made of it %s with %v: %v", next.State, actions, err)
	}
	if _, counted := j.Restarted(); counted {
		t.Error("a restart while it waits counts as one within a switch")
	}
	if q := job.New("1", swtch, t0); !q.Waits() || !q.Due(t0) {
		t.Error("an order in the queue has its turn before its time: it is told to wait there")
	}
}

// The signature of an order counts once it was found to be good, and the order
// itself is forgotten at the end.
func TestSignedOrder(t *testing.T) {
	o := job.Order{Kind: job.Install, Source: job.SourceActivationCode, SMDP: "smdp.example", Consent: true, Issuer: "smdp:smdp.example", Serial: 3, JWS: "a.b.c"}
	j, _ := drive(t, o, "start authenticated")
	if j.Order.Verified || j.Order.JWS == "" {
		t.Errorf("verified by nobody: %+v", j.Order)
	}
	j = job.New("1", o, t0)
	for _, e := range []job.Event{{Kind: job.Start}, {Kind: job.Authenticated, Verified: true, Profile: &job.ProfileFacts{ICCID: newP}}} {
		e.At = t0
		var err error
		if j, _, err = job.Step(j, e); err != nil {
			t.Fatal(err)
		}
	}
	if !j.Order.Verified || j.Order.JWS == "" || j.State != job.Preparing {
		t.Errorf("after it was found to be good: %+v", j)
	}
	if kept, _ := drive(t, o, "start authenticated prepared loaded"); kept.Order.JWS != "" {
		t.Error("kept when no session needs it any more")
	}
	j, _, err := job.Step(j, job.Event{Kind: job.Fail, At: t0, Problem: &job.Problem{Code: "x"}})
	if err != nil || j.Order.JWS != "" || j.Order.Issuer == "" || j.Order.Serial != 3 {
		t.Errorf("%v: at the end %+v", err, j.Order)
	}
}
