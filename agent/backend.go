package agent

import (
	"context"
	"encoding/hex"
	"fmt"
	"runtime"
	"slices"
	"sort"
	"strings"
	"time"

	"lpad/agent/api"
	"lpad/agent/job"
	"lpad/agent/rsp"
	"lpad/agent/runner"
	"lpad/internal/fault"
	"lpad/internal/redact"
)

// backend is the daemon as the local socket sees it: it translates between
// the messages of package api and the runner's values, and decides nothing.
type backend struct {
	*Agent
	*unit
	all bool // no card was named: jobs and events of all are meant
}

// How old an answer may be that was read from the card earlier: short enough
// that nobody sees what is no longer so, long enough that a script that asks
// three things wakes the card once.
const freshEnough = 2 * time.Second

// Status is the one-screen answer. It never waits for the card.
func (b *backend) Status(ctx context.Context) (api.Status, error) {
	v := b.runner.View()
	s := api.Status{
		Version: b.host.Version, Since: b.since, LastEvent: v.LastEvent,
		Card:    b.status(v),
		Network: api.Network{Backend: b.parts.backend(), Interface: v.Link.Interface, APN: v.APN},
		Clock:   b.clock.status(),
		Journal: problemOf(v.JournalErr), Goroutines: runtime.NumGoroutine(),
		Warnings: slices.Concat(b.Agent.warnings(), b.unit.warnings(), v.Warnings),
	}
	b.fleet.report(b.unit, &s)
	for _, a := range v.Link.Addresses {
		s.Network.Addresses = append(s.Network.Addresses, a.Addr().String())
	}
	if len(b.units) > 1 {
		all, _ := b.Cards(ctx)
		s.Cards = all.Cards
	}
	if r, attached := b.relay.Attached(); attached {
		s.Relay = &api.Relay{By: r.By, Since: r.Since}
	}
	for _, p := range v.Facts.Profiles {
		if p.State == rsp.Enabled {
			s.Profile = profileIn(v, p)
		}
	}
	for _, j := range v.Jobs {
		switch {
		case j.ID == v.Active:
			aj := b.job(j)
			s.Job = &aj
		}
	}
	s.Queued = s.Card.Queued
	s.Notifications, s.Reports = noteStatus(&v), reportStatus(&v)
	for _, r := range b.trust.Load().Describe() {
		s.Trust = append(s.Trust, api.TrustRoot{Name: r.Name, Fingerprint: r.Fingerprint, Source: r.Origin, Test: r.Test})
	}
	s.State, s.Next = stateOf(s, v)
	return s, nil
}

// stateOf sums a status up in a word, and says what a person would do next.
func stateOf(s api.Status, v runner.View) (state, next string) {
	switch {
	case s.Journal != nil:
		next = s.Journal.Next
	case v.State == runner.CardMissing:
		next = s.Card.Problem.Next
	case v.State == runner.Busy && s.Job != nil && s.Job.State == string(job.Consent):
		next = "answer the job that waits for consent: lpactl jobs answer " + s.Job.ID
	case v.State == runner.Busy && s.Job != nil && s.Job.Packet != nil:
		p := s.Job.Packet
		next = fmt.Sprintf("carry packet %d of about %d to its server (lpactl packets get); what else is ordered waits behind it", p.Number, p.Of)
	case v.State == runner.NeedsProvisioning:
		next = "install a profile: lpactl install 'LPA:1$…' --enable"
	case v.State == runner.Ready && !s.Clock.Set:
		next = "set the clock: servers cannot be verified without it"
	}
	return string(v.State), next
}

func problemOf(err error) *api.Problem {
	if err == nil {
		return nil
	}
	f := fault.Of(err)
	return &api.Problem{Type: "urn:lpad:problem:" + f.Code, Code: f.Code, Title: f.Text, Detail: err.Error(), Retry: f.Retry, Who: string(f.Who), Next: f.Next}
}

// EUICC is what the card says of itself.
func (b *backend) EUICC(ctx context.Context) (api.EUICC, error) {
	v, err := b.runner.Refresh(ctx, freshEnough)
	if err = firstError(err, v.CardErr); err != nil {
		return api.EUICC{}, err
	}
	f := v.Facts
	e := api.EUICC{EID: f.EID.String(), AsOf: v.FactsAt}
	if f.Addresses != nil {
		e.DefaultSMDP, e.RootSMDS = f.Addresses.DefaultSMDP, f.Addresses.RootSMDS
	}
	if i := f.Info2; i != nil {
		e.SVN, e.ProfileVersion, e.Firmware = i.SVN.String(), i.ProfileVersion.String(), i.Firmware.String()
		e.FreeMemory, e.SASAccreditation = int64(i.Resources.FreeNVM), i.SASAccreditation
		e.CIVerification, e.CISigning = keys(i.Verification), keys(i.Signing)
		e.Category = map[int]string{0: "other", 1: "basic", 2: "medium", 3: "contactless"}[i.Category]
	}
	return e, nil
}

func keys(list [][]byte) []string {
	out := make([]string, len(list))
	for i, k := range list {
		out[i] = strings.ToUpper(hex.EncodeToString(k))
	}
	return out
}

// Profiles lists the profiles on the card.
func (b *backend) Profiles(ctx context.Context) (api.Profiles, error) {
	v, err := b.runner.Refresh(ctx, freshEnough)
	if err = firstError(err, v.CardErr); err != nil {
		return api.Profiles{}, err
	}
	out := api.Profiles{AsOf: v.FactsAt, Profiles: []api.Profile{}}
	for _, p := range v.Facts.Profiles {
		out.Profiles = append(out.Profiles, *profileIn(v, p))
	}
	return out, nil
}

func profileOf(p rsp.Profile) *api.Profile {
	return &api.Profile{ICCID: p.ICCID.String(), AID: p.AID.String(), State: p.State.String(), Nickname: p.Nickname,
		ServiceProvider: p.ServiceProvider, Name: p.Name, Class: p.Class.String(), Rules: runner.Rules(p.PPR)}
}

// profileIn is a profile with what is remembered of it.
func profileIn(v runner.View, p rsp.Profile) *api.Profile {
	out := profileOf(p)
	m := v.Memory
	out.LastKnownGood = m.IsProven(v.Facts.EID, p.ICCID)
	if q, found := m.Quarantined(p.ICCID); found {
		out.Quarantine = &api.Quarantine{Code: q.Code, Title: q.Text, Since: q.At, Attempts: q.Attempts}
	}
	return out
}

// Notifications lists what waits on the card, and the reports of jobs. These
// are seen without a card too: what was last known of it goes with them.
func (b *backend) Notifications(ctx context.Context) (api.Notifications, error) {
	v, err := b.runner.Refresh(ctx, freshEnough)
	if err == nil && len(v.Reports) == 0 {
		err = v.CardErr
	}
	return notifications(v, err)
}

// DeliverNotifications tries to deliver now.
func (b *backend) DeliverNotifications(ctx context.Context) (api.Notifications, error) {
	v, err := b.runner.DeliverNow(ctx)
	return notifications(v, err)
}

// ReplayNotification sends one notification now.
func (b *backend) ReplayNotification(ctx context.Context, _ string, seq int64) (api.Notifications, error) {
	if err := b.lookAtQueue(ctx); err != nil {
		return api.Notifications{}, err
	}
	v, err := b.runner.Replay(ctx, seq)
	return notifications(v, err)
}

// DropNotification gives one notification up.
func (b *backend) DropNotification(ctx context.Context, by string, seq int64) (api.Notifications, error) {
	if err := b.lookAtQueue(ctx); err != nil {
		return api.Notifications{}, err
	}
	v, err := b.runner.Drop(ctx, seq, by)
	return notifications(v, err)
}

// ReplayReport sends the report of a job now, or gives it up.
func (b *backend) ReplayReport(ctx context.Context, by, job string, drop bool) (api.Notifications, error) {
	b = b.find(func(v *runner.View) bool {
		return slices.ContainsFunc(v.Reports, func(w runner.Waiting) bool { return w.Job == job })
	})
	var err error
	if drop {
		err = b.runner.DropReport(ctx, job, by)
	} else {
		err = b.runner.ReplayReport(ctx, job)
	}
	return notifications(b.runner.View(), err)
}

// lookAtQueue has the card's list read before somebody chooses from it.
func (b *backend) lookAtQueue(ctx context.Context) error {
	v, err := b.runner.Refresh(ctx, freshEnough)
	return firstError(err, v.CardErr)
}

func notifications(v runner.View, err error) (api.Notifications, error) {
	out := api.Notifications{AsOf: v.FactsAt, Notifications: waiting(v.Queue), Reports: waiting(v.Reports), LostReports: v.ReportsLost}
	for _, d := range v.Dropped {
		a := api.DroppedNotification{Notification: api.Notification{SeqNumber: d.SeqNumber, Event: d.Event, Address: d.Address}, By: d.By, At: d.At, Outcome: d.Outcome}
		if !d.ICCID.IsZero() {
			a.ICCID = d.ICCID.String()
		}
		out.Dropped = append(out.Dropped, a)
	}
	return out, err
}

// waiting translates what waits for its server.
func waiting(list []runner.Waiting) []api.Notification {
	out := []api.Notification{}
	for i := range list {
		n := &list[i]
		a := api.Notification{SeqNumber: n.SeqNumber, Event: n.Event.String(), Address: n.Address, Since: n.Since, Failures: n.Failures,
			LastError: jobProblem(n.Problem), NextTry: n.NextTry, Job: n.Job, Outcome: string(n.Outcome)}
		if n.Job != "" {
			a.Event = string(n.Kind)
		}
		if n.HasICCID {
			a.ICCID = n.ICCID.String()
		}
		out = append(out, a)
	}
	return out
}

// noteStatus sums the queue of notifications up, and reportStatus the reports.
func noteStatus(v *runner.View) api.NoteStatus {
	s := sum(v.Queue)
	s.NextTry = v.NextTry
	if s.LastError == nil {
		s.LastError = problemOf(v.DeliverErr)
	}
	return s
}

func reportStatus(v *runner.View) api.NoteStatus {
	s := sum(v.Reports)
	s.Lost = v.ReportsLost
	return s
}

func sum(list []runner.Waiting) api.NoteStatus {
	s := api.NoteStatus{Pending: len(list)}
	for i := range list {
		n := &list[i]
		if !n.Since.IsZero() && (s.Oldest.IsZero() || n.Since.Before(s.Oldest)) {
			s.Oldest = n.Since
		}
		if s.LastError == nil {
			s.LastError = jobProblem(n.Problem)
		}
		if i == 0 || n.NextTry.Before(s.NextTry) {
			s.NextTry = n.NextTry
		}
	}
	return s
}

// jobProblem translates an explained problem of the journal.
func jobProblem(p *job.Problem) *api.Problem {
	if p == nil {
		return nil
	}
	return &api.Problem{Type: "urn:lpad:problem:" + p.Code, Code: p.Code, Title: p.Text, Detail: p.Detail, Retry: p.Retry, Who: string(p.Who),
		Next: p.Next, State: string(p.State)}
}

func firstError(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

func badRequest(text string, cause error) error {
	return fault.New(fault.Fault{Code: api.CodeBadRequest, Text: text, Who: fault.Technician, Next: "correct the request"}, cause)
}

// Install orders a download.
func (b *backend) Install(ctx context.Context, by string, r api.InstallRequest) (api.Job, error) {
	o := job.Order{Kind: job.Install, Source: job.Source(r.Source), Enable: r.Enable, Consent: r.Consent || b.cfg.RSP.Consent == "auto",
		PPRConsent: r.PPRConsent, DeleteOld: r.DeleteOld, DryRun: r.DryRun, Parameters: r.Parameters, Automatic: r.Automatic, ReportTo: r.ReportTo, Offline: r.Offline, By: by}
	switch {
	case r.ActivationCode != "" && r.Source != "":
		return api.Job{}, badRequest("an activation code and a source exclude each other", nil)
	case r.Source == "" || r.Source == string(job.SourceActivationCode):
		code, err := rsp.ParseActivationCode(r.ActivationCode)
		if err != nil {
			return api.Job{}, err
		}
		if code.ConfirmationCodeRequired && r.ConfirmationCode == "" && o.Consent && !o.DryRun {
			return api.Job{}, fault.New(fault.Fault{Code: "confirmation-code-missing", Text: "this activation code needs a confirmation code", Who: fault.Technician,
				Next: "order again with the code that the operator gave with the activation code"}, nil)
		}
		o.Source, o.SMDP, o.MatchingID, o.OID = job.SourceActivationCode, code.SMDP, code.MatchingID, code.OID
	case o.Source == job.SourceDefaultSMDP || o.Source == job.SourceSMDS:
	default:
		return api.Job{}, badRequest(fmt.Sprintf("there is no source %q", r.Source), nil)
	}
	return b.order(ctx, o, redact.NewSecret(r.ConfirmationCode))
}

// Enable orders a switch.
func (b *backend) Enable(ctx context.Context, by, iccid string, r api.EnableRequest) (api.Job, error) {
	return b.orderFor(ctx, iccid, job.Order{Kind: job.Enable, DeleteOld: r.DeleteOld, Parameters: r.Parameters, Automatic: r.Automatic, ReportTo: r.ReportTo, By: by})
}

// Disable orders the enabled profile to be disabled.
func (b *backend) Disable(ctx context.Context, by, iccid string) (api.Job, error) {
	return b.orderFor(ctx, iccid, job.Order{Kind: job.Disable, By: by})
}

// Delete orders a disabled profile to be deleted.
func (b *backend) Delete(ctx context.Context, by, iccid string) (api.Job, error) {
	return b.orderFor(ctx, iccid, job.Order{Kind: job.Delete, By: by})
}

// SetNickname names a profile.
func (b *backend) SetNickname(ctx context.Context, by, iccid string, r api.NicknameRequest) (api.Job, error) {
	return b.orderFor(ctx, iccid, job.Order{Kind: job.Nickname, Nickname: r.Nickname, By: by})
}

func (b *backend) orderFor(ctx context.Context, iccid string, o job.Order) (api.Job, error) {
	var err error
	if o.ICCID, err = rsp.ParseICCID(iccid); err != nil {
		return api.Job{}, badRequest("this is no ICCID", err)
	}
	return b.order(ctx, o, redact.Secret{})
}

func (b *backend) order(ctx context.Context, o job.Order, code redact.Secret) (api.Job, error) {
	if err := checkReportTo(o.ReportTo); err != nil {
		return api.Job{}, err
	}
	j, err := b.runner.Submit(ctx, o, code)
	if err != nil {
		return api.Job{}, err
	}
	return b.job(j), nil
}

// Jobs lists jobs, the newest first.
func (b *backend) Jobs(context.Context) (api.Jobs, error) {
	out := api.Jobs{Jobs: []api.Job{}}
	for _, u := range b.units {
		if !b.all && u != b.unit {
			continue
		}
		for _, j := range u.runner.Jobs() {
			out.Jobs = append(out.Jobs, u.job(j))
		}
	}
	if len(b.units) > 1 {
		sort.SliceStable(out.Jobs, func(i, j int) bool { return out.Jobs[i].Created.After(out.Jobs[j].Created) })
	}
	return out, nil
}

// Job returns one job.
func (b *backend) Job(_ context.Context, id string) (api.Job, error) {
	b = b.of(id)
	j, err := b.runner.Job(id)
	if err != nil {
		return api.Job{}, err
	}
	return b.job(j), nil
}

// WaitJob returns a job at its next change.
func (b *backend) WaitJob(ctx context.Context, id string) (api.Job, error) {
	b = b.of(id)
	watch, stop := context.WithCancel(ctx)
	defer stop()
	events := b.runner.Watch(watch, b.runner.View().LastEvent)
	j, err := b.runner.Job(id)
	if err != nil || j.Ended() {
		return b.job(j), err
	}
	for e := range events {
		if e.Type == api.EventJob && e.Job != nil && e.Job.ID == id {
			return b.job(*e.Job), nil
		}
	}
	return b.job(j), nil // nothing changed in the time
}

// Answer consents or refuses.
func (b *backend) Answer(ctx context.Context, _, id string, r api.AnswerRequest) (api.Job, error) {
	b = b.of(id)
	j, err := b.runner.Answer(ctx, id, r.Accept, redact.NewSecret(r.ConfirmationCode))
	return b.job(j), err
}

// Abort stops a job while it can be stopped.
func (b *backend) Abort(ctx context.Context, _, id string) (api.Job, error) {
	b = b.of(id)
	j, err := b.runner.Abort(ctx, id)
	return b.job(j), err
}

// Watch translates the runner's events.
func (b *backend) Watch(ctx context.Context, after uint64) <-chan api.Event {
	out := make(chan api.Event)
	in := b.runner.Watch(ctx, after)
	go func() {
		defer close(out)
		for e := range in {
			if !b.all && e.Card != b.cfg.Name {
				continue
			}
			a := api.Event{ID: e.ID, At: e.At, Type: e.Type, Card: e.Card, Text: e.Text}
			if e.Job != nil {
				j := jobOf(*e.Job)
				j.Card = e.Card
				b.of(j.ID).addWait(&j)
				if e.Total > 0 {
					j.Progress = &api.Progress{Done: e.Done, Total: e.Total, Bytes: e.Bytes, Size: e.Size}
				}
				a.Job = &j
			}
			select {
			case out <- a:
			case <-ctx.Done():
			}
		}
	}()
	return out
}

// job is a job of the card, in the words of the socket.
func (u *unit) job(j job.Job) api.Job {
	out := jobOf(j)
	out.Card = u.cfg.Name
	u.addWait(&out)
	return out
}

// addWait adds the packet that a job waits for.
func (u *unit) addWait(j *api.Job) {
	j.Packet = u.box.Wait(j.ID)
}

func jobOf(j job.Job) api.Job {
	out := api.Job{ID: j.ID, Kind: string(j.Order.Kind), State: string(j.State), Step: j.State.Number(), Ended: j.Ended(), Created: j.Created,
		SMDP: j.Order.SMDP, CodeRequired: j.CodeRequired, DryRun: j.Order.DryRun, APN: j.Switch.APN, APNSource: j.Switch.Source, Rung: j.Switch.Rung, Undelivered: j.Undelivered}
	if id := j.ICCID(); !id.IsZero() {
		out.ICCID = id.String()
	}
	if id := j.Switch.Previous; !id.IsZero() {
		out.Previous = id.String()
	}
	if p := j.Profile; p != nil {
		out.Profile = &api.Profile{ICCID: p.ICCID.String(), ServiceProvider: p.ServiceProvider, Name: p.Name, Class: p.Class, Rules: p.Rules}
	}
	if o := j.Order; o.Verified {
		out.SignedBy, out.Serial = o.Issuer, o.Serial
	}
	out.EnableAt = j.Order.EnableAt
	out.Network = linkOf(j.Switch.Link)
	out.Problem = jobProblem(j.Problem)
	out.AppliedAt, out.Activation = j.AppliedAt, j.Activation
	for _, p := range j.Parameters {
		out.Parameters = append(out.Parameters, api.Parameter(p))
	}
	for _, h := range j.Hooks {
		out.Hooks = append(out.Hooks, api.HookRun(h))
	}
	for _, m := range j.Timeline {
		out.Timeline = append(out.Timeline, api.Mark{State: string(m.State), Step: m.State.Number(), At: m.At, Note: m.Note})
	}
	return out
}
