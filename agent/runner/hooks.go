package runner

import (
	"context"
	"encoding/json"
	"slices"

	"lpad/agent/hooks"
	"lpad/agent/job"
	"lpad/agent/procedure"
	"lpad/agent/rsp"
	"lpad/modem"
)

// Hooks of the device's maker run where they cost a switch nothing. Those of the
// activation run beside it, in a goroutine of their own: the device is dark then
// and the dead man counts, so nothing may wait for them. The others run on the
// card's goroutine when the card has been let go: staged before the dead-man time
// begins, applied and rolled-back when it is over. Each of them runs at the end
// of an action, whose event carries what became of it, so that it is journalled
// with what it was for; an action that a restart cuts short is taken again, and
// so are its hooks.

// background are the hooks of an activation.
type background struct {
	job  string // its id
	stop context.CancelFunc
	done chan struct{} // closed when runs is there
	runs []job.HookRun
}

// activated begins the hooks of the activation of a job, once.
func (r *Runner) activated(ctx context.Context, j job.Job) {
	switch j.State {
	case job.Applying, job.Rereading, job.Verifying, job.Retrying, job.Committing, job.Confirming:
	default:
		return
	}
	if r.cfg.Hooks.Path == "" || !j.Switch.Enabled || j.HooksRan(string(hooks.Activated)) || r.card.hooks != nil && r.card.hooks.job == j.ID {
		return
	}
	r.endHooks()
	ctx, stop := context.WithCancel(context.WithoutCancel(ctx)) // of the action, which they outlive
	b := &background{job: j.ID, stop: stop, done: make(chan struct{})}
	about := r.hookAbout(j)
	go func() {
		defer close(b.done)
		b.runs = r.cfg.Hooks.Run(ctx, hooks.Activated, about)
	}()
	r.card.hooks = b
}

// endHooks ends the hooks of an activation that still run.
func (r *Runner) endHooks() {
	if b := r.card.hooks; b != nil {
		b.stop()
		<-b.done
		r.card.hooks = nil
	}
}

// endedHooks is what became of the hooks of the activation, unless they still
// run or are journalled already.
func (r *Runner) endedHooks(j job.Job) []job.HookRun {
	b := r.card.hooks
	if b == nil || b.job != j.ID || j.HooksRan(string(hooks.Activated)) {
		return nil
	}
	select {
	case <-b.done:
		return b.runs
	default:
		return nil
	}
}

// runHooks runs the hooks for what the job has come to, after those of its
// activation, with no channel open. It fails when the daemon stops meanwhile.
func (r *Runner) runHooks(ctx context.Context, j job.Job, e *job.Event) error {
	r.card.close(ctx, r.log)
	if j.State == job.Reporting {
		if _, err := r.target(ctx, j); err == nil {
			e.Parameters = r.card.effective.Parameters
			j.Parameters = e.Parameters
		} else {
			r.log.Info("what waits for the profile is not known", "job", j.ID, "err", err)
		}
		r.card.close(ctx, r.log)
	}
	defer r.pulse.Begin("hooks", 2*r.cfg.Hooks.Limit()+overtime)()
	if b := r.card.hooks; b != nil && b.job == j.ID {
		select {
		case <-b.done:
			b.stop()
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	var event hooks.Event
	switch {
	case j.State == job.Reporting:
		event = hooks.Staged
	case j.State == job.Confirming && j.Problem == nil:
		event = hooks.Applied
	case j.TakenBack():
		event = hooks.RolledBack
	default:
		return nil
	}
	e.Hooks = r.cfg.Hooks.Run(ctx, event, r.hookAbout(j))
	return ctx.Err()
}

// hookAbout is what hooks are told of a job.
func (r *Runner) hookAbout(j job.Job) hooks.About {
	a := hooks.About{Card: r.cfg.Name, ICCID: j.ICCID().String(), Job: j.ID, APN: j.Switch.APN, Source: j.Switch.Source, Parameters: j.Parameters}
	if id := j.Switch.Previous; !id.IsZero() {
		a.Previous = id.String()
	}
	v := r.View()
	if id := v.eid(); !id.IsZero() {
		a.EID = id.String()
	}
	if at := slices.IndexFunc(v.Facts.Profiles, func(p rsp.Profile) bool { return p.ICCID == j.ICCID() }); at >= 0 {
		a.Provider = v.Facts.Profiles[at].ServiceProvider
	} else if j.Profile != nil {
		a.Provider = j.Profile.ServiceProvider
	}
	if p := j.Problem; p != nil {
		a.Fault = p.Code
	}
	var link modem.Link
	if len(j.Switch.Link) > 0 && json.Unmarshal(j.Switch.Link, &link) == nil {
		a.Interface = link.Interface
	}
	return a
}

// activation is the number of the notification that tells of the profile's being
// enabled: of that to the server of the download, if it gets one, else of the
// last. 0: the card has none. A report names it, so that its receiver knows which
// activation it is about.
func (r *Runner) activation(ctx context.Context, j job.Job) int64 {
	if r.receiver(j) == "" {
		return 0
	}
	var list []rsp.Notification
	err := r.onCard(ctx, func(card Card) (err error) {
		list, err = procedure.ListNotifications(ctx, card)
		return err
	})
	if err != nil {
		r.log.Info("the number of the notification is not known", "job", j.ID, "err", err)
		return 0
	}
	server := rsp.Notification{Address: j.Order.SMDP}.Receiver()
	var seq int64
	named := false
	for _, n := range list { // in the order of their numbers
		if n.Event != rsp.EventEnable || n.ICCID != j.ICCID() {
			continue
		}
		if of := n.Receiver() == server; of || !named {
			seq, named = n.SeqNumber, of
		}
	}
	return seq
}
