package job_test

import (
	"encoding/json"
	"strings"
	"testing"

	"lpad/agent/job"
)

// What is known of the parameters follows the switch.
func TestParametersFollowTheSwitch(t *testing.T) {
	list := []job.Parameter{{Leaf: "apns.default", Source: "order"}, {Leaf: "radio.lteBands", Source: "order", State: "limited"}}
	for _, tc := range []struct{ script, states, back string }{
		{"start snapshotted", "staged limited", ""},
		{"start snapshotted gated enabled", "staged limited", ""},
		{"start snapshotted gated enabled applied", "trial limited", ""},
		{"start snapshotted gated enabled applied reread online", "applied limited", ""},
		{"start snapshotted gated enabled applied reread online committed delivered", "applied limited", ""},
		{"start snapshotted gated enabled applied failed:x", "trial limited", ""},
		{"start snapshotted gated enabled applied failed:x rolled-back", "not-applied limited", "back"},
		{"start snapshotted gated failed:x rolled-back", "not-applied limited", "back"},
		{"start snapshotted gated enabled applied failed:x abort", "trial limited", ""}, // between two profiles
		{"start snapshotted:empty gated enabled applied reread failed:x abort committed delivered", "trial limited", ""},
	} {
		j := job.New("1", job.Order{Kind: job.Enable, ICCID: newP}, t0)
		for _, word := range strings.Fields(tc.script) {
			e := event(word)
			if e.Kind == job.Snapshotted {
				e.Parameters = list
			}
			if e.Kind == job.Online {
				e.Source = "order"
			}
			next, _, err := job.Step(j, e)
			if err != nil {
				t.Fatalf("%s: %v", tc.script, err)
			}
			j = next
		}
		var states []string
		for _, p := range j.Parameters {
			states = append(states, p.State)
		}
		if got := strings.Join(states, " "); got != tc.states || j.TakenBack() != (tc.back != "") || j.AppliedAt.IsZero() != !strings.Contains(tc.script, "online") {
			t.Errorf("%s: %s, taken back %v, at %v", tc.script, got, j.TakenBack(), j.AppliedAt)
		}
		if list[0].State != "" {
			t.Fatal("Step changed its argument")
		}
	}
}

// An install that is not to be enabled has its parameters staged.
func TestParametersAreStaged(t *testing.T) {
	j, _ := drive(t, job.Order{Kind: job.Install, Consent: true}, "start authenticated prepared loaded")
	j, _, err := job.Step(j, job.Event{Kind: job.Delivered, At: t0, Parameters: []job.Parameter{{Leaf: "sms.smsc"}}, Hooks: []job.HookRun{{Event: "staged", Name: "a"}}})
	if err != nil || j.State != job.Done || len(j.Parameters) != 1 || j.Parameters[0].State != job.ParameterStaged || !j.HooksRan("staged") || j.HooksRan("applied") {
		t.Errorf("%v, %+v", err, j)
	}
}

// Each step writes the job again, so what it carries is bounded.
func TestParametersAreBounded(t *testing.T) {
	j, _ := drive(t, job.Order{Kind: job.Enable, ICCID: newP}, "start")
	e := event("snapshotted")
	for range 200 {
		e.Parameters = append(e.Parameters, job.Parameter{Leaf: "x", Value: json.RawMessage(`"` + strings.Repeat("v", 100) + `"`), Source: "order"})
		e.Hooks = append(e.Hooks, job.HookRun{Event: "staged", Name: "a"})
	}
	j, _, err := job.Step(j, e)
	if err != nil {
		t.Fatal(err)
	}
	values := 0
	for _, p := range j.Parameters {
		values += len(p.Value)
	}
	if len(j.Parameters) != 64 || values > 4<<10 || values < 3<<10 || len(j.Hooks) != 48 {
		t.Errorf("%d parameters of %d bytes, %d hooks", len(j.Parameters), values, len(j.Hooks))
	}
}
