package runner

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"lpad/agent/job"
	"lpad/agent/procedure"
	"lpad/agent/rsp"
	"lpad/agent/rsp/es10"
	"lpad/agent/switchover"
	"lpad/internal/fault"
	"lpad/internal/redact"
	"lpad/modem"
)

// perform carries out one action on the card's goroutine and says what came of
// it. It is the only place where the world is changed.
func (r *Runner) perform(ctx context.Context, j job.Job, a job.Action, code redact.Secret) job.Event {
	r.activated(ctx, j)
	e, err := r.carryOut(ctx, j, a, code)
	if err != nil {
		e = job.Event{Kind: job.Fail, Problem: job.ProblemOf(err), Trial: r.failedTrial(j, err), Activation: e.Activation}
	}
	e.Hooks = append(r.endedHooks(j), e.Hooks...)
	return e
}

func (r *Runner) carryOut(ctx context.Context, j job.Job, a job.Action, code redact.Secret) (job.Event, error) {
	switch a.Kind {
	case job.ActAuthenticate:
		return r.authenticatePatiently(ctx, j, code)
	case job.ActPrepare:
		e, err := r.prepare(ctx, code)
		return r.begunAnew(ctx, j, e, err)
	case job.ActLoad:
		e, err := r.load(ctx, j, a.Query)
		return r.begunAnew(ctx, j, e, err)
	case job.ActDeliver:
		if j.State == job.Notifying && j.Stranded() {
			r.letGo(ctx, j)
		}
		return r.deliverForJob(ctx, j)
	case job.ActSnapshot:
		return r.snapshot(ctx, j)
	case job.ActGate:
		r.card.gated = "" // a new switch
		return job.Event{Kind: job.Gated}, r.gate(ctx, j)
	case job.ActEnable:
		return r.enable(ctx, j, a.Query)
	case job.ActApply:
		return r.apply(ctx, j)
	case job.ActReread:
		return r.reread(ctx, j)
	case job.ActVerify:
		return r.verify(ctx, j)
	case job.ActRetry:
		return r.again(ctx, j)
	case job.ActCommit:
		return r.commit(ctx, j)
	case job.ActRollback:
		return r.rollback(ctx, j)
	case job.ActDisable:
		return r.disable(ctx, j, a.Query)
	case job.ActDelete:
		return r.remove(ctx, j, a.Query)
	case job.ActRename:
		return r.rename(ctx, j)
	case job.ActCancel:
		return r.cancelSession(ctx, a.Why)
	}
	return job.Event{}, fmt.Errorf("unknown action %q", a.Kind)
}

// open is a procedure.Opener. Every way to a server is narrowed to the CIs that
// the card knows.
func (r *Runner) open(way Way) procedure.Opener {
	if way.Open != nil {
		return way.Open
	}
	return func(address string) (procedure.Server, error) {
		if v := r.View(); v.Facts.Info1 != nil {
			way.CIs = v.Facts.Info1.Verification
		}
		return r.cfg.Servers.OpenServer(address, way)
	}
}

var errNoAddress = map[job.Source]error{
	job.SourceDefaultSMDP: fault.New(fault.Fault{Code: "no-default-smdp", Text: "the card has no default SM-DP+ address", Who: fault.Technician,
		Next: "use an activation code"}, nil),
	job.SourceSMDS: fault.New(fault.Fault{Code: "no-smds", Text: "the card has no SM-DS address", Who: fault.Technician, Next: "use an activation code"}, nil),
}

var errNothingPending = fault.New(fault.Fault{Code: "nothing-pending", Text: "no profile is waiting for this device", Who: fault.Operator,
	Next: "ask the operator to order one for this EID"}, nil)

// bootLimit is how long after the start a download of before waits for the
// network.
const bootLimit = 5 * time.Minute

// authenticatePatiently authenticates. A device that was off has no network for
// its first minute: that is no reason to give up a download of before,
// unless another job waits behind it, which may be what brings the network.
func (r *Runner) authenticatePatiently(ctx context.Context, j job.Job, code redact.Secret) (job.Event, error) {
	for {
		e, err := r.authenticate(ctx, j, code)
		if r.anew(ctx, j, err) {
			continue
		}
		if err == nil || !r.inherited[j.ID] || time.Since(r.begun) > bootLimit || r.othersQueue(j) {
			return e, err
		}
		switch fault.Of(err).Code { // those of which the server knows nothing
		case "no-network", "dns-unavailable":
		default:
			return e, err
		}
		r.log.Info("waiting for the network", "job", j.ID, "err", err)
		select {
		case <-ctx.Done():
			return e, err
		case <-time.After(r.retries.resume):
		}
	}
}

// noteSharedPort says why a download takes longer than it might, and goes
// slowly on with the device's only link.
const noteSharedPort = "card and network share one port of the modem: the link goes down for each use of the card; a port of lpad's own (docs/operations.md, The port) avoids it"

// authenticate is step 2, up to the offer. code is the confirmation code, if
// there is one in memory: one that came with the order does not survive a
// restart, and is asked for again then.
func (r *Runner) authenticate(ctx context.Context, j job.Job, code redact.Secret) (job.Event, error) {
	r.card.closeSession(r.log)
	if err := r.permitted(j.Order); err != nil { // it may be from a time when less was required
		return job.Event{}, err
	}
	if !j.Order.Offline { // else whoever carries packets judges servers
		if err := r.awaitClock(ctx, j); err != nil {
			return job.Event{}, err
		}
	}
	facts, err := r.facts(ctx)
	if err != nil {
		return job.Event{}, err
	}
	if err := sameEID(j.Order, facts.EID); err != nil {
		r.card.close(ctx, r.log)
		return job.Event{}, err
	}
	req := procedure.Request{Address: j.Order.SMDP, MatchingID: j.Order.MatchingID, OID: j.Order.OID, Facts: facts}
	if r.cfg.Device != nil {
		req.Device = r.cfg.Device.Device(ctx)
	}
	found := job.Event{Kind: job.Authenticated}
	err = r.onCard(ctx, func(card Card) (err error) {
		r.rewind(j, &req)
		switch {
		case j.Order.SMDP != "": // an activation code, or a discovery of before the restart
		case j.Order.Source == job.SourceDefaultSMDP && facts.Addresses != nil && facts.Addresses.DefaultSMDP != "":
			req.Address = facts.Addresses.DefaultSMDP
		case j.Order.Source == job.SourceSMDS && facts.Addresses != nil && facts.Addresses.RootSMDS != "":
			return r.authenticateEvent(ctx, card, r.open(r.way(j)), facts.Addresses.RootSMDS, req)
		default:
			return errNoAddress[j.Order.Source]
		}
		if r.card.server, err = r.open(r.way(j))(req.Address); err != nil {
			return err
		}
		r.card.session, err = procedure.Authenticate(ctx, card, r.card.server, req)
		return err
	})
	if err == nil {
		found.Verified, err = r.believe(ctx, j)
	}
	if err != nil {
		r.card.close(ctx, r.log)
		return job.Event{}, err
	}
	s := r.card.session
	found.SMDP, found.MatchingID = s.Request.Address, s.Request.MatchingID
	found.TransactionID, found.CodeRequired = s.TransactionID.String(), s.ConfirmationCodeRequired
	found.NeedsPerson = s.PPRConsent != 0 && !j.Order.PPRConsent || s.ConfirmationCodeRequired && code.IsZero()
	if r.sharedPort() {
		found.Note = noteSharedPort
	}
	found.Profile = &job.ProfileFacts{ICCID: s.Metadata.ICCID, ServiceProvider: s.Metadata.ServiceProvider, Name: s.Metadata.Name,
		Class: s.Metadata.Class.String(), Rules: Rules(s.Metadata.PPR)}
	return found, nil
}

// authenticateEvent asks the SM-DS and goes where it points.
func (r *Runner) authenticateEvent(ctx context.Context, card Card, open procedure.Opener, root string, req procedure.Request) error {
	req.Address = root
	events, err := procedure.Discover(ctx, card, open, req)
	if err != nil {
		return err
	}
	if len(events) == 0 {
		return errNothingPending
	}
	r.card.session, r.card.server, err = procedure.AuthenticateEvent(ctx, card, open, events[0], req)
	return err
}

// Rules says policy rules in plain words.
func Rules(p rsp.PPR) []string {
	var out []string
	if p&rsp.PPR1 != 0 {
		out = append(out, "cannot be disabled")
	}
	if p&rsp.PPR2 != 0 {
		out = append(out, "cannot be deleted")
	}
	return out
}

// prepare gets the profile package.
func (r *Runner) prepare(ctx context.Context, code redact.Secret) (job.Event, error) {
	if r.card.session == nil {
		return job.Event{}, procedure.ErrOrder
	}
	if err := r.card.session.Prepare(ctx, code); err != nil {
		r.card.close(ctx, r.log)
		return job.Event{}, err
	}
	return job.Event{Kind: job.Prepared}, nil
}

// load is step 3. After a restart the card is asked what became of it.
func (r *Runner) load(ctx context.Context, j job.Job, query bool) (job.Event, error) {
	if query || r.card.session == nil {
		return r.concludeLoad(ctx, j)
	}
	progress := func(done, total int) {
		sent, size := r.card.session.Sent(done)
		r.hub.publish(Event{At: r.cfg.Now().UTC(), Type: progress, Job: &j, Done: done, Total: total, Bytes: sent, Size: size})
	}
	res, err := r.card.session.Load(ctx, progress)
	var unknown *procedure.UnknownOutcomeError
	if errors.As(err, &unknown) { // the channel is gone; the card is not, or comes back
		r.card.closeCard(ctx, r.log)
		var concluded error
		err = r.insist(ctx, func(card Card) error {
			res, concluded = r.card.session.Conclude(ctx, card)
			if errors.As(concluded, &unknown) {
				return concluded
			}
			return nil
		})
		if err == nil {
			err = concluded
		}
	}
	if len(res.Raw) > 0 {
		p := procedure.Pending(res)
		r.card.result = &p
	}
	if err != nil {
		return job.Event{}, err
	}
	installed := r.card.session.Installed
	if r.nameNew(ctx, &j) {
		installed.Nickname = j.Order.Nickname
	}
	r.addProfile(installed)
	return job.Event{Kind: job.Loaded}, nil
}

// addProfile adds a profile to what is known, which spares reading them all.
func (r *Runner) addProfile(p rsp.Profile) {
	v := r.View()
	v.Facts.Profiles = append(append([]rsp.Profile{}, v.Facts.Profiles...), p)
	r.setFacts(v.Facts, v.Notifications, nil)
}

// concludeLoad finds out whether a package that was being loaded when the
// daemon stopped was installed. If the card has nothing of it, the download
// begins anew: a stop is not a failure.
func (r *Runner) concludeLoad(ctx context.Context, j job.Job) (job.Event, error) {
	id, err := rsp.ParseTransactionID(j.TransactionID)
	if err != nil {
		return job.Event{}, err
	}
	e := job.Event{Kind: job.Loaded}
	var proof []byte
	var verdict error
	err = r.insist(ctx, func(card Card) error {
		res, found, err := procedure.FindInstallationResult(ctx, card, id)
		if err != nil {
			return err
		}
		var refused *rsp.InstallationError
		switch err := res.Err(); {
		case found && errors.As(err, &refused) && refused.Reason == rsp.ReasonInterruption:
			// The power went, for the card as well: it says so, in a
			// notification that goes out with the others.
			e.Kind = job.Interrupted
			return nil
		case found:
			p := procedure.Pending(res)
			r.card.result, verdict = &p, err
			return nil
		}
		// Delivered and removed before the crash, or never finished: the list
		// of profiles tells.
		if j.Profile != nil {
			if _, installed, err := procedure.FindProfile(ctx, card, j.Profile.ICCID); err != nil || installed {
				return err
			}
		}
		e.Kind = job.Interrupted
		proof, err = card.CancelSession(ctx, id, rsp.CancelPostponed)
		if es10.IsRefusal(err) {
			proof, err = nil, nil // it has forgotten the session
		}
		return err
	})
	if err = errors.Join(err, verdict); err != nil {
		return job.Event{}, err
	}
	if proof != nil {
		r.tellCancelled(ctx, j, id, proof)
	}
	if e.Kind == job.Loaded {
		r.nameNew(ctx, &j)
		r.look(ctx)
	}
	return e, nil
}

// tellLimit bounds tellCancelled: the download is about to begin anew.
const tellLimit = 10 * time.Second

// tellCancelled tells the server that a session which a stop has interrupted is
// over. It keeps the order, and is a courtesy: a server that does not hear of it
// finds out when the download begins anew.
func (r *Runner) tellCancelled(ctx context.Context, j job.Job, id rsp.TransactionID, proof []byte) {
	ctx, cancel := context.WithTimeout(ctx, tellLimit)
	defer cancel()
	way := r.way(j)
	way.Limit = tellLimit
	if way.Open == nil && !r.clockReady(ctx) {
		return
	}
	server, err := r.open(way)(j.Order.SMDP)
	if err == nil {
		err = errors.Join(server.CancelSession(ctx, id, proof), server.Close())
	}
	if err != nil {
		r.log.Info("the server was not told of the interrupted session", "job", j.ID, "err", err)
	}
}

// cancelSession gives a download up on both sides.
func (r *Runner) cancelSession(ctx context.Context, why rsp.CancelReason) (job.Event, error) {
	defer r.card.close(ctx, r.log)
	if r.card.session == nil {
		return job.Event{Kind: job.EndedSession}, nil
	}
	ctx, cancel := context.WithTimeout(ctx, procedure.CancelTimeout)
	defer cancel()
	return job.Event{Kind: job.EndedSession}, r.card.session.Cancel(ctx, why)
}

// switching runs a step of the switch, within what is left of the dead-man
// time, with the channel closed: the modem is about to read the card again.
func (r *Runner) switching(ctx context.Context, j job.Job, f func(context.Context) error) error {
	r.card.close(ctx, r.log)
	ctx, cancel := context.WithDeadline(ctx, r.deadMan(j))
	defer cancel()
	return f(ctx)
}

// deadMan is when a switch is given up: the dead-man time after its begin, by
// a clock that cannot jump. After a restart only the calendar tells how much of
// that time is gone, and on many devices it is set by the very network that is
// being waited for; so a quarter of the time is granted in any case.
func (r *Runner) deadMan(j job.Job) time.Time {
	if r.card.deadManOf == j.ID {
		return r.card.deadMan
	}
	left := r.cfg.DeadMan
	if started := j.Switch.Started; !started.IsZero() {
		left = min(left, max(left/4, started.Add(left).Sub(r.cfg.Now())))
	}
	r.card.deadManOf, r.card.deadMan = j.ID, time.Now().Add(left)
	return r.card.deadMan
}

// gate keeps everything from attaching by itself. What an earlier process has
// gated is gated no longer: the steps that need it ask for it again.
func (r *Runner) gate(ctx context.Context, j job.Job) error {
	if r.card.gated == j.ID {
		return nil
	}
	err := r.switching(ctx, j, func(ctx context.Context) error { return r.cfg.Switch.Gate(ctx, j.Switch.Snapshot) })
	if err == nil {
		r.card.gated = j.ID
	}
	return err
}

// snapshot reads the settings of before: the last moment at which nothing has
// been changed.
func (r *Runner) snapshot(ctx context.Context, j job.Job) (job.Event, error) {
	before := r.View()
	e, err := r.takeSnapshot(ctx, j)
	if !lineLost(err) || before.CardErr != nil || before.FactsAt.IsZero() { // one that was not there before is told at once
		return e, err
	}
	waiting, cancel := context.WithTimeout(ctx, settleLimit)
	defer cancel()
	err = r.whenBack(waiting, func(context.Context) (err error) {
		e, err = r.takeSnapshot(ctx, j)
		return err
	})
	return e, err
}

func (r *Runner) takeSnapshot(ctx context.Context, j job.Job) (job.Event, error) {
	if err := r.permitted(j.Order); err != nil { // it may be from a time when less was required
		return job.Event{}, err
	}
	profiles, err := r.readProfiles(ctx)
	if err != nil {
		return job.Event{}, err
	}
	if err := switchable(profiles, j.ICCID()); err != nil {
		return job.Event{}, err
	}
	m := r.View().Memory
	if err := m.trusted(j.Order, j.ICCID()); err != nil {
		return job.Event{}, err
	}
	if _, err := r.target(ctx, j); err != nil { // a document that makes no sense is better known now
		return job.Event{}, err
	}
	e := job.Event{Kind: job.Snapshotted, Previous: enabledProfile(profiles), Parameters: r.card.effective.Parameters}
	if q, found := m.Quarantined(j.ICCID()); found {
		e.Note = fmt.Sprintf("the profile is quarantined (%s); attempt %d", q.Code, q.Attempts+1)
	} else if r.card.effective.Unreadable {
		e.Note = "the terminal parameters that are kept for the profile cannot be read, and are left out"
	}
	err = r.switching(ctx, j, func(ctx context.Context) (err error) {
		e.Snapshot, err = r.cfg.Switch.Snapshot(ctx)
		return err
	})
	if err != nil {
		return job.Event{}, err
	}
	// What the old profile was on line with will do for it again.
	if iccid, apn, ok := r.cfg.Switch.Working(e.Snapshot); ok && iccid == e.Previous.String() {
		e.Good, err = goodAPN(e.Previous, apn)
	}
	return e, err
}

// switchable refuses what the card would refuse, before anything is touched.
func switchable(profiles []rsp.Profile, iccid rsp.ICCID) error {
	at := slices.IndexFunc(profiles, func(p rsp.Profile) bool { return p.ICCID == iccid })
	switch {
	case at < 0:
		return noProfile(iccid)
	case profiles[at].State == rsp.Enabled:
		return conflict("the profile is enabled already")
	}
	for _, p := range profiles {
		if p.State == rsp.Enabled && p.PPR&rsp.PPR1 != 0 {
			return fault.New(fault.Fault{Code: "disallowed-by-policy", Text: "the enabled profile has the rule that it cannot be disabled", Who: fault.Operator,
				Next: "only its operator can lift the rule"}, nil)
		}
	}
	return nil
}

func noProfile(iccid rsp.ICCID) error {
	return notFound("profile " + redact.Digits(iccid.String()) + " on the card")
}

// target is where the switch leads.
func (r *Runner) target(ctx context.Context, j job.Job) (switchover.Target, error) {
	v := r.View()
	var profile rsp.Profile
	for _, p := range v.Facts.Profiles {
		if p.ICCID == j.ICCID() {
			profile = p
		}
	}
	if profile.ICCID != j.ICCID() { // after a restart
		var err error
		if profile, err = r.profile(ctx, j.ICCID()); err != nil {
			return switchover.Target{}, err
		}
	}
	var sim modem.SIM
	if j.State == job.Verifying || j.State == job.Retrying { // the modem has read it: IMSI and names of the new profile
		if shown := r.cfg.Switch.SIM(ctx); shown.ICCID == profile.ICCID.String() {
			sim = shown
		}
	}
	q, note := v.Memory.question(j, profile, r.cfg.Settings.Generation)
	q.SIM = sim
	wanted, effective, err := r.cfg.Settings.Wanted(q)
	if err != nil {
		return switchover.Target{}, err
	}
	if note != "" {
		effective.Notes = append(effective.Notes, "the parameters of the order are not used: "+note)
	}
	r.note(j, effective)
	return switchover.Target{ICCID: profile.ICCID, Wanted: wanted, Probe: r.probe(j, profile)}, nil
}

// probe is what must be reachable over the new network: what the
// configuration says, else the server that must get the notification.
func (r *Runner) probe(j job.Job, p rsp.Profile) string {
	switch r.cfg.Probe {
	case "":
	case NoProbe:
		return ""
	default:
		return r.cfg.Probe
	}
	if j.Order.SMDP != "" {
		return "tcp://" + j.Order.SMDP + ":443"
	}
	for _, n := range p.Notifications {
		return "tcp://" + n.Address + ":443"
	}
	return ""
}

// enable is step 6: the eUICC's answer is the activation. When it does not
// come, the card's state is: after a restart, and when the modem was away, it is
// asked for that first.
func (r *Runner) enable(ctx context.Context, j job.Job, query bool) (job.Event, error) {
	waiting, cancel := context.WithDeadline(ctx, r.deadMan(j))
	defer cancel()
	err := r.whenBack(waiting, func(context.Context) error {
		if err := r.gate(ctx, j); err != nil {
			return err
		}
		if query && r.isNow(ctx, j.ICCID(), rsp.Enabled) {
			return nil
		}
		query = true
		return r.enableProfile(ctx, j.ICCID()) // what was begun is not cut off
	})
	r.card.close(ctx, r.log)
	return job.Event{Kind: job.Enabled}, err
}

// isNow reports whether a profile is in a state. A card that does not tell is
// asked to make it so.
func (r *Runner) isNow(ctx context.Context, iccid rsp.ICCID, state rsp.ProfileState) bool {
	p, err := r.profile(ctx, iccid)
	return err == nil && p.State == state
}

// settle decides the outcome of a change whose answer was lost with the
// channel: a fresh channel is opened and the card asked for its state.
func (r *Runner) settle(ctx context.Context, iccid rsp.ICCID, want rsp.ProfileState, err error) error {
	var unknown *procedure.UnknownOutcomeError
	if !errors.As(err, &unknown) {
		return err
	}
	var p rsp.Profile
	ferr := r.insist(ctx, func(card Card) (ferr error) {
		p, _, ferr = procedure.FindProfile(ctx, card, iccid)
		return ferr
	})
	if ferr != nil {
		return errors.Join(err, ferr)
	}
	if p.ICCID == iccid && p.State == want {
		return nil
	}
	return err
}

// behindGate takes a step towards the new profile while the bearers are held,
// after a restart too.
func (r *Runner) behindGate(ctx context.Context, j job.Job, step func(context.Context, switchover.Target) error) error {
	t, err := r.target(ctx, j)
	if err != nil {
		return err
	}
	waiting, cancel := context.WithDeadline(ctx, r.deadMan(j))
	defer cancel()
	return r.whenBack(waiting, func(context.Context) error {
		if err := r.gate(ctx, j); err != nil {
			return err
		}
		return r.switching(ctx, j, func(ctx context.Context) error { return step(ctx, t) })
	})
}

// apply is step 7.
func (r *Runner) apply(ctx context.Context, j job.Job) (job.Event, error) {
	e := job.Event{Kind: job.Applied}
	err := r.behindGate(ctx, j, func(ctx context.Context, t switchover.Target) error {
		applied, err := r.cfg.Switch.Apply(ctx, t)
		if len(applied.Where) > 0 { // else there is nothing on this device that has an APN
			e.APN, e.Source = applied.APN.Name, applied.Source
			e.Parameters = r.card.effective.set(applied)
		}
		return err
	})
	return e, err
}

// reread is step 8.
func (r *Runner) reread(ctx context.Context, j job.Job) (job.Event, error) {
	e := job.Event{Kind: job.Reread}
	err := r.behindGate(ctx, j, func(ctx context.Context, t switchover.Target) (err error) {
		e.Rung, err = r.cfg.Switch.Reread(ctx, t)
		return err
	})
	if err == nil && e.Rung != switchover.RungCardReset {
		return e, nil // the modem shows the profile
	}
	return e, r.fellBack(ctx, j.ICCID(), err)
}

// fellBack looks for the reason of err, a card that could not be read again as
// the new profile: some go back to a profile of their own at every reset. A card
// in a reader says so to nobody, and is asked in any case (err is nil then).
func (r *Runner) fellBack(ctx context.Context, iccid rsp.ICCID, err error) error {
	ctx, cancel := context.WithTimeout(ctx, settleLimit)
	defer cancel()
	var p rsp.Profile
	var found bool
	ask := r.onCard
	if err == nil { // one lost answer must not undo a switch
		ask = r.insist
	}
	perr := ask(ctx, func(card Card) (err error) {
		p, found, err = procedure.FindProfile(ctx, card, iccid)
		return err
	})
	if perr == nil && !found {
		perr = noProfile(iccid)
	}
	r.card.close(ctx, r.log)
	switch {
	case perr == nil && p.State != rsp.Enabled:
		return fault.New(fault.Fault{Code: "card-fell-back", Text: "the card went back to another profile by itself when it was reset", Who: fault.Operator,
			Next: "the card has a fallback rule of its own; have whoever manages it change the rule, or delete the profile that it goes back to"}, err)
	case err == nil:
		return perr
	}
	return err
}

// verify is step 9.
func (r *Runner) verify(ctx context.Context, j job.Job) (job.Event, error) {
	t, err := r.target(ctx, j)
	if err != nil {
		return job.Event{}, err
	}
	var e job.Event
	err = r.switching(ctx, j, func(ctx context.Context) (err error) {
		e, err = r.prove(ctx, j, t)
		return err
	})
	return e, err
}

// again tries the access points of a first profile once more, from the gate on.
func (r *Runner) again(ctx context.Context, j job.Job) (job.Event, error) {
	r.card.close(ctx, r.log)
	t, err := r.target(ctx, j)
	r.card.close(ctx, r.log)
	if err != nil {
		return job.Event{}, err
	}
	r.cfg.Switch.Afresh()
	ctx, cancel := context.WithTimeout(ctx, r.cfg.DeadMan)
	defer cancel()
	return r.prove(ctx, j, t)
}

func (r *Runner) prove(ctx context.Context, j job.Job, t switchover.Target) (job.Event, error) {
	online, err := r.cfg.Switch.Verify(ctx, j.Switch.Snapshot, t)
	if err != nil {
		return job.Event{}, err
	}
	e := job.Event{Kind: job.Online}
	if len(online.Where) > 0 {
		e.APN, e.Source = online.APN.Name, online.Source
		e.Parameters = r.card.effective.set(online.Applied)
		failed := r.card.effective.failed(online.Attempts, true)
		if len(failed) > 0 {
			suspend(e.Parameters, leafAttach)
		}
		if e.Trial, err = r.verdict(j, failed); err != nil {
			return job.Event{}, err
		}
		if e.Good, err = goodAPN(j.ICCID(), online.APN); err != nil {
			return job.Event{}, err
		}
	}
	e.Link, err = json.Marshal(online.Link)
	r.change(func(v *View) { v.Link, v.APN = online.Link, e.APN })
	return e, err
}

// commit ends the switch.
func (r *Runner) commit(ctx context.Context, j job.Job) (job.Event, error) {
	r.look(ctx)
	e := job.Event{Kind: job.Committed, Activation: r.activation(ctx, j)}
	r.card.close(ctx, r.log)
	// Whatever the card says: the gate must open and the others keep quiet.
	return e, r.cfg.Switch.Commit(ctx, switchover.Target{ICCID: j.ICCID()})
}

// rollback brings the previous profile and its settings back.
func (r *Runner) rollback(ctx context.Context, j job.Job) (job.Event, error) {
	r.card.close(ctx, r.log)
	ctx, cancel := context.WithTimeout(ctx, r.cfg.DeadMan)
	defer cancel()
	if j.Switch.Previous.IsZero() {
		profiles, err := r.readProfiles(ctx)
		if err != nil {
			return job.Event{}, err
		}
		r.card.closeCard(ctx, r.log)
		if enabledProfile(profiles) == j.ICCID() { // its answer was lost, and now the card says so
			return job.Event{Kind: job.Enabled}, nil
		}
	}
	link, err := r.cfg.Switch.Rollback(ctx, j.Switch.Snapshot, func(ctx context.Context) error {
		defer r.card.close(ctx, r.log)
		return r.enablePrevious(ctx, j.Switch.Previous)
	})
	if err != nil {
		return job.Event{}, err
	}
	r.change(func(v *View) { v.Link, v.APN = link, "" })
	return job.Event{Kind: job.RolledBack}, nil
}

// letGoLimit bounds letGo: who has given a switch up does not wait for it.
const letGoLimit = 2 * time.Minute

// letGo opens the gate of a switch that was given up between two profiles:
// whatever the card is on, nothing comes up for as long as the modem is held, and
// nobody could order another switch.
func (r *Runner) letGo(ctx context.Context, j job.Job) {
	ctx, cancel := context.WithTimeout(ctx, letGoLimit)
	defer cancel()
	onNew := j.Switch.Enabled
	if profiles, err := r.readProfiles(ctx); err == nil {
		onNew = enabledProfile(profiles) == j.ICCID()
	}
	r.card.close(ctx, r.log)
	var err error
	if onNew {
		err = r.cfg.Switch.Commit(ctx, switchover.Target{ICCID: j.ICCID()})
	} else {
		_, err = r.cfg.Switch.Rollback(ctx, j.Switch.Snapshot, nil)
	}
	r.log.Warn("the switch is given up, and the modem is let go", "job", j.ID, "err", err)
}

// enablePrevious makes the card as it was before the switch.
func (r *Runner) enablePrevious(ctx context.Context, previous rsp.ICCID) error {
	profiles, err := r.readProfiles(ctx)
	if err != nil {
		return err
	}
	now := enabledProfile(profiles)
	switch {
	case now == previous:
		return nil
	case previous.IsZero(): // the card was empty of enabled profiles; a network that does not work is better than none to try again with
		return nil
	}
	if err := r.enableProfile(ctx, previous); err != nil {
		return err
	}
	r.look(ctx)
	return nil
}

func (r *Runner) dispensable(iccid rsp.ICCID) error {
	v := r.View()
	return v.Memory.dispensable(v.eid(), iccid)
}

// disable takes a profile out of use. After a restart it may be so already.
func (r *Runner) disable(ctx context.Context, j job.Job, query bool) (job.Event, error) {
	if err := r.dispensable(j.Order.ICCID); err != nil { // a switch before it in the queue may have proven it
		return job.Event{}, err
	}
	defer r.card.close(ctx, r.log)
	// With the flag: nothing is to be put in place first, and a modem that
	// follows the card by itself spares us a reset.
	if !query || !r.isNow(ctx, j.Order.ICCID, rsp.Disabled) {
		err := r.settle(ctx, j.Order.ICCID, rsp.Disabled,
			r.onCard(ctx, func(card Card) error { return procedure.Disable(ctx, card, j.Order.ICCID, true) }))
		if err != nil {
			return job.Event{}, err
		}
	}
	r.card.close(ctx, r.log)
	r.look(ctx)
	return job.Event{Kind: job.Disabled}, nil
}

// remove deletes a profile: the one that is ordered, or the previous one after
// a proven switch. After a restart it may be gone already.
func (r *Runner) remove(ctx context.Context, j job.Job, query bool) (job.Event, error) {
	defer r.card.close(ctx, r.log)
	iccid := j.Order.ICCID
	if j.Order.Kind != job.Delete {
		iccid = j.Switch.Previous
	}
	if err := r.dispensable(iccid); err != nil {
		return job.Event{}, err
	}
	// A list without the profile does not prove that it is gone, but a card that
	// has none of that name to delete does.
	gone := func(card Card) error {
		err := procedure.Delete(ctx, card, iccid)
		if errors.Is(err, rsp.DeleteNotFound) {
			return nil
		}
		return err
	}
	var err error
	if query {
		err = r.onCard(ctx, gone)
	} else {
		err = r.onCard(ctx, func(card Card) error { return procedure.Delete(ctx, card, iccid) })
	}
	var unknown *procedure.UnknownOutcomeError
	if errors.As(err, &unknown) {
		err = r.insist(ctx, gone)
	}
	if err != nil {
		return job.Event{}, err
	}
	r.look(ctx)
	r.cfg.Switch.Forget(ctx, iccid)
	return job.Event{Kind: job.Deleted}, nil
}

// rename sets a nickname.
func (r *Runner) rename(ctx context.Context, j job.Job) (job.Event, error) {
	defer r.card.close(ctx, r.log)
	name := func(card Card) error { return procedure.SetNickname(ctx, card, j.Order.ICCID, j.Order.Nickname) }
	err := r.onCard(ctx, name)
	var unknown *procedure.UnknownOutcomeError
	if errors.As(err, &unknown) {
		err = r.insist(ctx, name)
	}
	if err != nil {
		return job.Event{}, err
	}
	r.look(ctx)
	return job.Event{Kind: job.Renamed}, nil
}
