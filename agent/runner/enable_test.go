package runner_test

import (
	"strings"
	"testing"

	"lpad/agent/job"
	"lpad/agent/rsp/rsptest/euicc"
	"lpad/agent/runner"
)

// Cards differ in how they want to be told which profile to enable.
func TestWaysToEnable(t *testing.T) {
	refuse := func(result byte, times int) []euicc.Fault {
		return []euicc.Fault{{Do: euicc.AnswerResult, Function: 0xBF31, Result: int(result), Times: times}}
	}
	for _, tc := range []struct {
		name   string
		quirks euicc.Quirks
		faults []euicc.Fault
		code   string // "" for none
		long   bool
	}{
		{name: "without refresh"},
		{name: "only with refresh", quirks: euicc.Quirks{RefuseNoRefresh: true}},
		{name: "only without refresh", quirks: euicc.Quirks{RefuseRefresh: true}},
		{name: "only by AID", quirks: euicc.Quirks{AIDOnly: true}},
		{name: "only by AID with refresh", quirks: euicc.Quirks{AIDOnly: true, RefuseNoRefresh: true}},
		{name: "by AID, which the refusal does not tell", faults: refuse(127, 2)},
		{name: "by AID with refresh, which the refusal does not tell", faults: refuse(127, 3)},
		{name: "in no way", faults: refuse(127, 4), code: "card-undefined-error"},
		{name: "a refusal that hides a success", quirks: euicc.Quirks{RefuseRefresh: true},
			faults: []euicc.Fault{{Do: euicc.TamperAnswer, Function: 0xBF31, Tamper: euicc.Replace([]byte{0xBF, 0x31, 3, 0x80, 1, 127})}}},
		{name: "policy is not argued with", faults: refuse(3, 1), code: "disallowed-by-policy"},
		{name: "busy until it is reset", faults: refuse(5, 4), long: true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if tc.long {
				t.Parallel() // it waits for a card that stays busy
			}
			w := newWorld(t, options{card: func(c *euicc.Config) { c.Quirks = tc.quirks }})
			l := w.live()
			l.ends(l.submit(order()).ID, job.Done)
			w.card.Inject(tc.faults...)
			id := l.submit(about(t, job.Enable, newICCID)).ID
			if tc.code == "" {
				l.ends(id, job.Done)
			} else {
				l.fails(id, tc.code)
			}
			if want := map[bool]string{true: newICCID, false: oldICCID}[tc.code == ""]; w.enabled() != want {
				t.Errorf("enabled %s", w.enabled())
			}
		})
	}
}

// What is known of a modem says which way comes first; the others are there when
// it is wrong.
func TestOrderOfWaysToEnable(t *testing.T) {
	for _, tc := range []struct {
		name   string
		order  []string
		quirks euicc.Quirks
		tries  int // that the card refused
	}{
		{"the usual order", nil, euicc.Quirks{RefuseNoRefresh: true}, 1},
		{"with refresh first", []string{"iccid-refresh"}, euicc.Quirks{RefuseNoRefresh: true}, 0},
		{"by AID first", []string{"aid", "aid-refresh"}, euicc.Quirks{AIDOnly: true}, 0},
		{"by AID with refresh first", []string{"aid-refresh", "aid-refresh"}, euicc.Quirks{AIDOnly: true, RefuseNoRefresh: true}, 0},
		{"an order that is wrong", []string{"aid-refresh", "iccid-refresh", "unheard-of"}, euicc.Quirks{RefuseRefresh: true}, 2},
	} {
		t.Run(tc.name, func(t *testing.T) {
			w := newWorld(t, options{card: func(c *euicc.Config) { c.Quirks = tc.quirks }})
			w.change = func(c *runner.Config) { c.EnableOrder = func() []string { return tc.order } }
			l := w.live()
			l.ends(l.submit(order()).ID, job.Done)
			l.ends(l.submit(about(t, job.Enable, newICCID)).ID, job.Done)
			l.stop()
			w.mu.Lock()
			defer w.mu.Unlock()
			if n := strings.Count(strings.Join(w.log, "\n"), "the card does not take it this way"); n != tc.tries || w.enabled() != newICCID {
				t.Errorf("%d tries were refused, want %d; enabled %s", n, tc.tries, w.enabled())
			}
		})
	}
}
