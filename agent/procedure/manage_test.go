package procedure_test

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"lpad/agent/procedure"
	"lpad/agent/rsp/es10"
	"lpad/agent/rsp/rsptest/euicc"
	"lpad/apdu/ber"
	"lpad/internal/fault"
)

func TestReadFacts(t *testing.T) {
	b := newBench(t, setup{card: func(c *euicc.Config) {
		c.DefaultSMDP = smdpHost
		c.Profiles = []euicc.Profile{{ICCID: iccid(t, "890009999999999999"), Enabled: true}}
	}})
	f, err := procedure.ReadFacts(b.ctx, b.euicc)
	if err != nil || f.EID != euicc.TestEID || f.Info1 == nil || f.Info2 == nil || f.RAT == nil || f.Addresses.DefaultSMDP != smdpHost || len(f.Profiles) != 1 {
		t.Fatalf("facts %+v, %v", f, err)
	}
	if got := f.Profiles[0].ICCID.String(); got != "890009999999999999" {
		t.Errorf("ICCID %s", got)
	}
	// An old card knows neither function.
	b.card.Inject(euicc.Fault{Do: euicc.Refuse, Function: 0xBF43, SW: 0x6A88}, euicc.Fault{Do: euicc.Refuse, Function: 0xBF3C, SW: 0x6D00})
	f, err = procedure.ReadFacts(b.ctx, b.euicc)
	if err != nil || f.RAT == nil || len(f.RAT.Rules) != 0 || f.Addresses == nil {
		t.Errorf("old card: %+v, %v", f, err)
	}
	for _, tag := range []ber.Tag{0xBF3E, 0xBF3C, 0xBF20, 0xBF22, 0xBF2D, 0xBF43} {
		b.card.ClearFaults()
		b.card.Inject(euicc.Fault{Do: euicc.Refuse, Function: tag, SW: 0x6F00})
		if _, err := procedure.ReadFacts(b.ctx, b.euicc); err == nil {
			t.Errorf("%v fails and is not noticed", tag)
		}
	}
}

// What a lost answer leaves open is asked for; what was so before is no error.
func TestManage(t *testing.T) {
	procedure.SetBusyPause(time.Millisecond)
	t.Cleanup(func() { procedure.SetBusyPause(3 * time.Second) })
	const one, two = "8900099999999999991", "8900099999999999992"
	a, c := iccid(t, one), iccid(t, two)
	enable := func(b *bench) error { return procedure.Enable(b.ctx, b.euicc, c, es10.Refresh) }
	disable := func(b *bench) error { return procedure.Disable(b.ctx, b.euicc, a, es10.NoRefresh) }
	remove := func(b *bench) error { return procedure.Delete(b.ctx, b.euicc, c) }
	name := func(b *bench) error { return procedure.SetNickname(b.ctx, b.euicc, c, "Work") }
	for _, tc := range []struct {
		name   string
		quirks euicc.Quirks
		fault  *euicc.Fault
		do     func(*bench) error
		code   string // "" for none
		state  string // of both profiles
	}{
		{name: "enable", do: enable, state: "1:false 2:true"},
		{name: "disable", do: disable, state: "1:false 2:false"},
		{name: "delete", do: remove, state: "1:true"},
		{name: "nickname", do: name, state: "1:true 2:falseWork"},
		{name: "enable what is enabled", do: func(b *bench) error { return procedure.Enable(b.ctx, b.euicc, a, es10.Refresh) }, state: "1:true 2:false"},
		{name: "disable what is disabled", do: func(b *bench) error { return procedure.Disable(b.ctx, b.euicc, c, es10.Refresh) }, state: "1:true 2:false"},
		{name: "delete what is enabled", do: func(b *bench) error { return procedure.Delete(b.ctx, b.euicc, a) }, code: "profile-in-use", state: "1:true 2:false"},
		{name: "delete what is not there", do: func(b *bench) error { return procedure.Delete(b.ctx, b.euicc, iccid(t, newICCID)) }, code: "profile-not-found", state: "1:true 2:false"},
		{name: "AID only", quirks: euicc.Quirks{AIDOnly: true}, do: enable, state: "1:false 2:true"},
		{name: "busy", fault: &euicc.Fault{Do: euicc.AnswerResult, Function: 0xBF31, Result: 5, Times: -1}, do: enable, code: "card-busy", state: "1:true 2:false"},
		{name: "busy for a while", fault: &euicc.Fault{Do: euicc.AnswerResult, Function: 0xBF31, Result: 5, Times: 2}, do: enable, state: "1:false 2:true"},
		{name: "status word, done", fault: &euicc.Fault{Do: euicc.RefuseAfter, Function: 0xBF31, SW: 0x6F00}, do: enable, state: "1:false 2:true"},
		{name: "status word, not done", fault: &euicc.Fault{Do: euicc.Refuse, Function: 0xBF31, SW: 0x6985}, do: enable, code: "card-conditions", state: "1:true 2:false"},
		{name: "odd answer, done", fault: &euicc.Fault{Do: euicc.TamperAnswer, Function: 0xBF32, Tamper: euicc.Truncate(3)}, do: disable, state: "1:false 2:false"},
		{name: "odd answer, deleted", fault: &euicc.Fault{Do: euicc.TamperAnswer, Function: 0xBF33, Tamper: euicc.Truncate(3)}, do: remove, state: "1:true"},
		{name: "odd answer, named", fault: &euicc.Fault{Do: euicc.TamperAnswer, Function: 0xBF29, Tamper: euicc.Truncate(3)}, do: name, state: "1:true 2:falseWork"},
		{name: "answer lost with the channel", fault: &euicc.Fault{Do: euicc.LoseAnswer, Function: 0xBF31}, do: enable, code: "outcome-unknown", state: "1:false 2:true"},
		{name: "nickname too long", do: func(b *bench) error { return procedure.SetNickname(b.ctx, b.euicc, c, string(make([]byte, 65))) }, code: "nickname-invalid", state: "1:true 2:false"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			b := newBench(t, setup{card: func(cfg *euicc.Config) {
				cfg.Quirks = tc.quirks
				cfg.Profiles = []euicc.Profile{{ICCID: a, Enabled: true}, {ICCID: c}}
				if tc.fault != nil {
					cfg.Faults = []euicc.Fault{*tc.fault}
				}
			}})
			err := tc.do(b)
			if got := code(err); got != tc.code {
				t.Errorf("code %q, want %q: %v", got, tc.code, err)
			}
			state := ""
			for i, p := range b.card.Profiles() {
				if i > 0 {
					state += " "
				}
				s := p.ICCID.String()
				state += fmt.Sprintf("%c:%v%s", s[len(s)-1], p.Enabled, p.Nickname)
			}
			if state != tc.state {
				t.Errorf("profiles %s, want %s", state, tc.state)
			}
			b.card.ClearFaults()
			b.card.Reset()
			b.reopen()
		})
	}
}

func code(err error) string {
	if err == nil {
		return ""
	}
	return fault.Of(err).Code
}

func TestFindProfile(t *testing.T) {
	a := iccid(t, "8900099999999999991")
	b := newBench(t, setup{card: func(c *euicc.Config) { c.Profiles = []euicc.Profile{{ICCID: a}} }})
	if p, found, err := procedure.FindProfile(b.ctx, b.euicc, a); err != nil || !found || p.ICCID != a {
		t.Errorf("got %+v, %v, %v", p, found, err)
	}
	if _, found, err := procedure.FindProfile(b.ctx, b.euicc, iccid(t, newICCID)); err != nil || found {
		t.Errorf("another: %v, %v", found, err)
	}
	b.card.Inject(euicc.Fault{Do: euicc.TamperAnswer, Function: 0xBF2D, Tamper: euicc.Replace([]byte{0xBF, 0x2D, 3, 0x81, 1, 1})})
	if _, found, err := procedure.FindProfile(b.ctx, b.euicc, a); err != nil || !found {
		t.Errorf("a card that refuses to search: %v, %v", found, err)
	}
}

func TestMemoryReset(t *testing.T) {
	all := es10.MemoryReset{OperationalProfiles: true}
	for _, tc := range []struct {
		name  string
		fault euicc.Fault
		empty bool
		code  string
		left  int
	}{
		{name: "done"},
		{name: "nothing to delete", empty: true},
		{name: "busy", fault: euicc.Fault{Do: euicc.AnswerResult, Function: 0xBF34, Result: 5}, code: "card-busy", left: 1},
		{name: "answer lost, done", fault: euicc.Fault{Do: euicc.RefuseAfter, Function: 0xBF34, SW: 0x6F00}},
		{name: "not done", fault: euicc.Fault{Do: euicc.Refuse, Function: 0xBF34, SW: 0x6985}, code: "card-conditions", left: 1},
		{name: "channel lost", fault: euicc.Fault{Do: euicc.LoseAnswer, Function: 0xBF34}, code: "outcome-unknown"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			b := newBench(t, setup{card: func(c *euicc.Config) {
				if !tc.empty {
					c.Profiles = []euicc.Profile{{ICCID: iccid(t, newICCID), Enabled: true}}
				}
				if tc.fault.Function != 0 {
					c.Faults = []euicc.Fault{tc.fault}
				}
			}})
			err := procedure.MemoryReset(b.ctx, b.euicc, all)
			if got := code(err); got != tc.code || len(b.card.Profiles()) != tc.left {
				t.Errorf("code %q, want %q, %d profiles left: %v", got, tc.code, len(b.card.Profiles()), err)
			}
			b.card.Reset()
			b.reopen()
		})
	}
}

func TestErrors(t *testing.T) {
	first := fault.New(fault.Fault{Code: "first"}, nil)
	err := error(&procedure.CleanupError{First: first, Cleanup: errors.New("second")})
	if fault.Of(err).Code != "first" || !errors.Is(err, first) || err.Error() == first.Error() {
		t.Errorf("cleanup: %v", err)
	}
	unknown := &procedure.UnknownOutcomeError{Function: "ES10c.EnableProfile", Err: first}
	if fault.Of(unknown).Code != "outcome-unknown" || !errors.Is(unknown, first) || unknown.Error() == "" {
		t.Errorf("unknown: %v", unknown)
	}
	r := procedure.Request{Address: smdpHost, MatchingID: "TOP-SECRET"}
	for _, got := range []string{fmt.Sprint(r), fmt.Sprintf("%+v", r), fmt.Sprintf("%#v", r), r.LogValue().String()} {
		if got != "LPA:1$smdp.example.com$[redacted]" {
			t.Errorf("printed: %s", got)
		}
	}
}
