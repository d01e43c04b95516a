package runner_test

import (
	"context"
	"testing"
	"time"

	"lpad/agent/job"
	"lpad/agent/rsp"
	"lpad/agent/rsp/rsptest/euicc"
	"lpad/agent/rsp/rsptest/smdp"
	"lpad/agent/runner"
	"lpad/internal/redact"
)

func TestInstall(t *testing.T) {
	w := newWorld(t, options{})
	l := w.live()
	j := l.ends(l.submit(order()).ID, job.Done)
	if got, want := states(j), "queued, authenticating, preparing, loading, reporting, done"; got != want {
		t.Errorf("way %s, want %s", got, want)
	}
	if j.Profile == nil || j.Profile.Name != "Test Plan" || j.Profile.ICCID.String() != newICCID || j.TransactionID == "" || j.Undelivered != 0 {
		t.Errorf("job %+v", j)
	}
	if got, want := w.received(), "install 358"; got != want {
		t.Errorf("received %s, want %s", got, want)
	}
	if w.enabled() != oldICCID || len(w.card.Notifications()) != 0 || len(w.card.OpenChannels()) != 0 {
		t.Errorf("enabled %s, %d notifications, channels %v", w.enabled(), len(w.card.Notifications()), w.card.OpenChannels())
	}
	// The daemon knows the new profile without having read the card again.
	if v := l.View(); v.Active != "" || len(v.Facts.Profiles) != 2 {
		t.Errorf("active %q, profiles %+v", v.Active, v.Facts.Profiles)
	}
	// A job that has ended does not keep the card from being read.
	before := w.card.Stats().APDUs
	if _, err := l.Refresh(t.Context(), 0); err != nil || w.card.Stats().APDUs == before {
		t.Errorf("refresh after a job: %v, APDUs %d", err, w.card.Stats().APDUs-before)
	}
	again := l.submit(order(func(o *job.Order) { o.MatchingID = "OTHER" }))
	l.fails(again.ID, "matching-id-refused")
}

func TestInstallAndEnable(t *testing.T) {
	w := newWorld(t, options{})
	l := w.live()
	j := l.ends(l.submit(order(enabling)).ID, job.Done)
	want := "queued, authenticating, preparing, loading, reporting, snapshotting, gating, enabling, applying, rereading, verifying, committing, confirming, done"
	if got := states(j); got != want {
		t.Errorf("way %s, want %s", got, want)
	}
	if j.Switch.Previous.String() != oldICCID || !j.Switch.Enabled || j.Switch.Rung != "card-reset" {
		t.Errorf("switch %+v", j.Switch)
	}
	if got, want := w.received(), "install 358, disable 341, enable 358"; got != want {
		t.Errorf("received %s, want %s", got, want)
	}
	if visible, _ := w.card.VisibleICCID(); w.enabled() != newICCID || visible.String() != newICCID {
		t.Errorf("enabled %s, visible %s", w.enabled(), visible)
	}
	for _, p := range l.View().Facts.Profiles {
		if enabled := p.State == rsp.Enabled; enabled != (p.ICCID.String() == newICCID) {
			t.Errorf("the view shows %s as %s", p.ICCID, p.State)
		}
	}
	// And back, with the new one deleted.
	back := about(t, job.Enable, oldICCID)
	back.DeleteOld = true
	j = l.ends(l.submit(back).ID, job.Done)
	if w.enabled() != oldICCID || w.profiles() != oldICCID {
		t.Errorf("enabled %s of %s", w.enabled(), w.profiles())
	}
	w.settled()
	if got, want := w.received(), "install 358, disable 341, enable 358, disable 358, enable 341, delete 358"; got != want {
		t.Errorf("received %s, want %s\n%s", got, want, states(j))
	}
}

func TestSwitchThatDoesNotComeOnline(t *testing.T) {
	w := newWorld(t, options{})
	w.network = noNetwork{}
	l := w.live()
	j := l.fails(l.submit(order(enabling, deleteOld)).ID, "no-bearer")
	if j.Problem.State != job.Verifying || j.RollbackTries != 0 {
		t.Errorf("problem %+v, tries %d", j.Problem, j.RollbackTries)
	}
	if visible, _ := w.card.VisibleICCID(); w.enabled() != oldICCID || visible.String() != oldICCID {
		t.Errorf("enabled %s, visible %s", w.enabled(), visible)
	}
	w.settled()
	if got, want := w.received(), "install 358, disable 341, enable 358, disable 358, enable 341"; got != want {
		t.Errorf("received %s, want %s", got, want)
	}
}

func TestConsent(t *testing.T) {
	for _, tc := range []struct {
		name   string
		order  func(*smdp.Order)
		config func(*runner.Config)
		code   string // with the order
		answer func(*life, string) error
		end    job.State
		code2  string // of the problem
		server smdp.OrderState
	}{
		{name: "given", answer: func(l *life, id string) error { return l.answer(id, true, "") }, end: job.Done, server: smdp.Installed},
		{name: "refused", answer: func(l *life, id string) error { return l.answer(id, false, "") }, end: job.Failed, code2: "consent-refused", server: smdp.Cancelled},
		{name: "expired", config: func(c *runner.Config) { c.ConsentTimeout = 20 * time.Millisecond }, end: job.Failed, code2: "consent-timeout", server: smdp.Released},
		{name: "aborted", answer: func(l *life, id string) error { _, err := l.Abort(context.Background(), id); return err }, end: job.Cancelled, server: smdp.Released},
		{name: "with the code that was missing", order: func(o *smdp.Order) { o.ConfirmationCode = "4711" },
			answer: func(l *life, id string) error {
				wantCode(l.w.t, l.answer(id, true, ""), "confirmation-code-missing")
				return l.answer(id, true, "4711")
			}, end: job.Done, server: smdp.Installed},
		{name: "with a wrong code", order: func(o *smdp.Order) { o.ConfirmationCode = "4711" },
			answer: func(l *life, id string) error { return l.answer(id, true, "1111") }, end: job.Failed, code2: "confirmation-code-wrong", server: smdp.Released},
		{name: "with the code of the order", order: func(o *smdp.Order) { o.ConfirmationCode = "4711" }, code: "4711",
			answer: func(l *life, id string) error { return l.answer(id, true, "") }, end: job.Done, server: smdp.Installed},
	} {
		t.Run(tc.name, func(t *testing.T) {
			w := newWorld(t, options{order: tc.order})
			w.change = tc.config
			l := w.live()
			var id string
			if tc.code != "" {
				id = l.submit(order(asking), tc.code).ID
			} else {
				id = l.submit(order(asking)).ID
			}
			if tc.answer != nil {
				l.state(id, job.Consent)
				if err := tc.answer(l, id); err != nil {
					t.Fatal(err)
				}
			}
			j := l.ends(id, tc.end)
			if tc.code2 != "" && (j.Problem == nil || j.Problem.Code != tc.code2) {
				t.Errorf("problem %+v, want %s", j.Problem, tc.code2)
			}
			if o, _ := w.smdp.Order(matching); o.State != tc.server {
				t.Errorf("the server's order is %s, want %s", o.State, tc.server)
			}
			if s := w.card.SessionState(); s != "idle" {
				t.Errorf("the card's session is left %s", s)
			}
			wantCode(t, l.answer(id, true, ""), "conflict")
		})
	}
}

func (l *life) answer(id string, accept bool, code string) error {
	_, err := l.Answer(context.Background(), id, accept, redact.NewSecret(code))
	return err
}

func TestConfirmationCodeWrongThenRight(t *testing.T) {
	w := newWorld(t, options{order: func(o *smdp.Order) { o.ConfirmationCode = "4711" }})
	l := w.live()
	l.fails(l.submit(order(), "1111").ID, "confirmation-code-wrong")
	if w.profiles() != oldICCID {
		t.Errorf("profiles %s", w.profiles())
	}
	l.ends(l.submit(order(), "4711").ID, job.Done)
}

// Consent beforehand does not extend to policy rules, unless it says so.
func TestPolicyRules(t *testing.T) {
	owner := [3]byte{0x00, 0xF1, 0x10}
	card := func(c *euicc.Config) {
		c.RAT = []euicc.Rule{{PPR: rsp.PPR2, Operators: []rsp.Operator{{MCCMNC: owner}}, ConsentRequired: true}}
	}
	ruled := func(o *smdp.Order) {
		o.Metadata.PPR, o.Metadata.Owner = rsp.PPR2, &rsp.Operator{MCCMNC: owner}
	}
	t.Run("asked", func(t *testing.T) {
		w := newWorld(t, options{card: card, order: ruled})
		l := w.live()
		id := l.submit(order()).ID
		j := l.state(id, job.Consent)
		if len(j.Profile.Rules) != 1 || j.Profile.Rules[0] != "cannot be deleted" {
			t.Errorf("rules %q", j.Profile.Rules)
		}
		if err := l.answer(id, true, ""); err != nil {
			t.Fatal(err)
		}
		l.ends(id, job.Done)
	})
	t.Run("consented", func(t *testing.T) {
		w := newWorld(t, options{card: card, order: ruled})
		l := w.live()
		l.ends(l.submit(order(func(o *job.Order) { o.PPRConsent = true })).ID, job.Done)
	})
	t.Run("not allowed", func(t *testing.T) {
		w := newWorld(t, options{order: ruled})
		l := w.live()
		l.fails(l.submit(order(func(o *job.Order) { o.PPRConsent = true })).ID, "ppr-not-allowed")
		if w.profiles() != oldICCID {
			t.Errorf("profiles %s", w.profiles())
		}
	})
}

func TestSources(t *testing.T) {
	t.Run("default SM-DP+", func(t *testing.T) {
		w := newWorld(t, options{order: func(o *smdp.Order) { o.MatchingID, o.EID = "", euicc.TestEID }})
		l := w.live()
		j := l.ends(l.submit(job.Order{Kind: job.Install, Source: job.SourceDefaultSMDP, Consent: true}).ID, job.Done)
		if j.Order.SMDP != host {
			t.Errorf("server %q", j.Order.SMDP)
		}
	})
	t.Run("SM-DS", func(t *testing.T) {
		w := newWorld(t, options{})
		w.smds.AddEvent(smdp.Event{EID: euicc.TestEID, ID: matching, Address: host})
		l := w.live()
		j := l.ends(l.submit(job.Order{Kind: job.Install, Source: job.SourceSMDS, Consent: true}).ID, job.Done)
		if j.Order.SMDP != host || j.Order.MatchingID != "" || w.profiles() != oldICCID+" "+newICCID { // the id is used and forgotten
			t.Errorf("order %+v, profiles %s", j.Order, w.profiles())
		}
	})
	t.Run("SM-DS without events", func(t *testing.T) {
		w := newWorld(t, options{})
		l := w.live()
		l.fails(l.submit(job.Order{Kind: job.Install, Source: job.SourceSMDS, Consent: true}).ID, "nothing-pending")
	})
	t.Run("no addresses", func(t *testing.T) {
		w := newWorld(t, options{card: func(c *euicc.Config) { c.DefaultSMDP = "" }})
		l := w.live()
		l.fails(l.submit(job.Order{Kind: job.Install, Source: job.SourceDefaultSMDP, Consent: true}).ID, "no-default-smdp")
	})
}

func TestAbort(t *testing.T) {
	t.Run("while authenticating", func(t *testing.T) {
		for _, fn := range []smdp.Function{smdp.InitiateAuthentication, smdp.AuthenticateClient, smdp.GetBoundProfilePackage} {
			t.Run(string(fn), func(t *testing.T) {
				w := newWorld(t, options{})
				w.smdp.Inject(smdp.Fault{Function: fn, Kind: smdp.Stall, Times: 1})
				l := w.live()
				id := l.submit(order()).ID
				eventually(t, "the server is asked", func() bool {
					for _, c := range w.smdp.Calls() {
						if c.Function == fn {
							return true
						}
					}
					return false
				})
				if _, err := l.Abort(t.Context(), id); err != nil {
					t.Fatal(err)
				}
				l.ends(id, job.Cancelled)
				if s := w.card.SessionState(); s != "idle" && s != "challenged" {
					t.Errorf("the card's session is left %s", s)
				}
				// The order is still good.
				l.ends(l.submit(order()).ID, job.Done)
			})
		}
	})
	t.Run("a dry run", func(t *testing.T) {
		w := newWorld(t, options{})
		l := w.live()
		dry := order(enabling)
		dry.DryRun = true
		before := len(w.card.Profiles())
		if j := l.ends(l.submit(dry).ID, job.Cancelled); j.Profile == nil || j.Problem != nil {
			t.Errorf("nothing is known of the profile: %+v", j)
		}
		calls := w.smdp.Calls()
		if last := calls[len(calls)-1]; last.Function != smdp.CancelSession || last.Detail != "postponed" {
			t.Errorf("the server was told %+v", last)
		}
		if after := len(w.card.Profiles()); after != before {
			t.Errorf("%d profiles on the card, before %d", after, before)
		}
		l.ends(l.submit(order()).ID, job.Done) // the order is still good
	})
	t.Run("in the queue", func(t *testing.T) {
		w := newWorld(t, options{})
		l := w.live()
		first := l.submit(order(asking))
		l.state(first.ID, job.Consent)
		second := l.submit(about(t, job.Enable, oldICCID))
		if _, err := l.Abort(t.Context(), second.ID); err != nil {
			t.Fatal(err)
		}
		l.ends(second.ID, job.Cancelled)
		l.state(first.ID, job.Consent)
		if _, err := l.Abort(t.Context(), first.ID); err != nil {
			t.Fatal(err)
		}
		l.ends(first.ID, job.Cancelled)
	})
	t.Run("in a rollback that does not succeed", func(t *testing.T) {
		w := newWorld(t, options{})
		w.network = noNetwork{}
		l := w.live()
		w.onStep(job.RollingBack, w.card.CutPower)
		id := l.submit(order(enabling)).ID
		l.until(id, "failing to roll back", func(j job.Job) bool { return j.RollbackTries > 0 })
		if _, err := l.Abort(t.Context(), id); err != nil {
			t.Fatal(err)
		}
		l.fails(id, "rollback-failed")
	})
	t.Run("too late", func(t *testing.T) {
		w := newWorld(t, options{})
		l := w.live()
		id := l.submit(order()).ID
		l.ends(id, job.Done)
		_, err := l.Abort(t.Context(), id)
		wantCode(t, err, "conflict")
		_, err = l.Abort(t.Context(), "nobody")
		wantCode(t, err, "not-found")
	})
}

func TestQueue(t *testing.T) {
	w := newWorld(t, options{})
	l := w.live()
	first := l.submit(order(asking))
	l.state(first.ID, job.Consent)
	_, err := l.Submit(t.Context(), order(), redact.Secret{})
	wantCode(t, err, "conflict")
	named := about(t, job.Nickname, oldICCID)
	named.Nickname = "spare"
	second := l.submit(named)
	third := l.submit(about(t, job.Enable, oldICCID))
	_, err = l.Submit(t.Context(), job.Order{Kind: job.Enable, ICCID: iccid(t, oldICCID), Parameters: []byte("[]")}, redact.Secret{})
	wantCode(t, err, "parameters-invalid")
	if j, err := l.Job(second.ID); err != nil || j.State != job.Queued {
		t.Errorf("second job %s, %v", j.State, err)
	}
	if err := l.answer(first.ID, true, ""); err != nil {
		t.Fatal(err)
	}
	l.ends(first.ID, job.Done)
	l.ends(second.ID, job.Done)
	l.fails(third.ID, "conflict") // enabled already
	if jobs := l.Jobs(); len(jobs) != 3 || jobs[0].ID != third.ID || jobs[2].ID != first.ID {
		t.Errorf("jobs %v", jobs)
	}
	if p := w.card.Profiles()[0]; p.Nickname != "spare" {
		t.Errorf("nickname %q", p.Nickname)
	}

	w.book("ORDER-2", "89000123456789012366", nil)
	l.state(l.submit(order(asking, func(o *job.Order) { o.MatchingID = "ORDER-2" })).ID, job.Consent)
	for range runner.MaxQueue - 1 {
		l.submit(named)
	}
	_, err = l.Submit(t.Context(), named, redact.Secret{})
	wantCode(t, err, "queue-full")
}

func TestManage(t *testing.T) {
	w := newWorld(t, options{})
	l := w.live()
	l.ends(l.submit(order()).ID, job.Done)

	l.fails(l.submit(about(t, job.Enable, "89000123456789012366")).ID, "not-found")
	l.fails(l.submit(about(t, job.Enable, oldICCID)).ID, "conflict")
	l.fails(l.submit(about(t, job.Delete, oldICCID)).ID, "profile-in-use")
	l.fails(l.submit(about(t, job.Delete, "89000123456789012366")).ID, "profile-not-found")
	long := about(t, job.Nickname, newICCID)
	for range 65 {
		long.Nickname += "x"
	}
	l.fails(l.submit(long).ID, "nickname-invalid")

	l.ends(l.submit(about(t, job.Disable, oldICCID)).ID, job.Done)
	if w.enabled() != "none" {
		t.Errorf("enabled %s", w.enabled())
	}
	l.ends(l.submit(about(t, job.Delete, oldICCID)).ID, job.Done)
	if w.profiles() != newICCID {
		t.Errorf("profiles %s", w.profiles())
	}
	for _, p := range l.View().Facts.Profiles {
		if p.ICCID.String() != newICCID {
			t.Errorf("the view still shows %s", p.ICCID)
		}
	}
	// From nothing to the first profile.
	l.ends(l.submit(about(t, job.Enable, newICCID)).ID, job.Done)
	w.settled()
	if got, want := w.received(), "install 358, disable 341, delete 341, enable 358"; got != want {
		t.Errorf("received %s, want %s", got, want)
	}
}
