// Package runner drives jobs: one goroutine decides, one goroutine owns the
// card.
//
// The loop takes one event at a time (an outcome, an order, an answer of a
// person, a timer), moves the job with the pure agent/job.Step, makes the new
// value durable in the journal, and only then lets the card's goroutine act;
// what comes of the action is the next event. A crash at any instant therefore
// finds in the journal either that an action was decided on or what came of
// it, and after a restart the job goes on from there ([Runner.Run] resumes
// what has not ended).
//
// The card's goroutine alone touches card, RSP session and switch; whoever
// wants to know something of the card asks the loop, which has it read when no
// job needs the card, and otherwise answers with what was read last.
//
//	r := runner.New(runner.Config{…})
//	err := r.Run(ctx)                    // until ctx ends; within StopTimeout
//	j, err := r.Submit(ctx, order, code) // from any goroutine
//
// Stopping is not failing: when ctx ends, the APDU under way is finished, the
// channel closed, and an action that was cut short leaves the journal as it
// was before, so that a restart repeats or queries it.
//
// A disk that does not take a record stops the job, not the daemon: nothing is
// done about a decision that is not durable, and the record is tried again
// until it is. Who asks for something in the meantime is told so.
package runner

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"lpad/agent/hooks"
	"lpad/agent/job"
	"lpad/agent/journal"
	"lpad/agent/rsp"
	"lpad/agent/switchover"
	"lpad/internal/fault"
	"lpad/internal/redact"
)

// Limits and times.
const (
	// StopTimeout is how long Run takes at most once its context has ended:
	// the longest that a card may take for one block, with a margin.
	StopTimeout = 8 * time.Second

	maxQueue     = 32               // orders that wait
	journalRetry = 5 * time.Second  // pause when the disk does not take a record
	resumeRetry  = 2 * time.Second  // pause before looking again for the card of a job that is to be resumed
	refreshLimit = 60 * time.Second // reading the facts of a card, all in all
	cardRetry    = 10 * time.Second // pause before looking again for a card that was not there
	maxDelay     = time.Hour        // an action that is tried again never waits for longer
)

// NoProbe is the probe of a device whose network is not ours to judge.
const NoProbe = "none"

// Config is what a runner works with. Every field without a remark is needed.
type Config struct {
	Journal        *journal.Journal
	Card           CardSource
	Servers        ServerSource
	Switch         *switchover.Switch
	Settings       SettingsSource
	Device         DeviceSource     // nil: the minimal device information is sent
	Probe          string           // what must be reachable over a new network; empty: the server of the order; [NoProbe]: nothing
	DeadMan        time.Duration    // a switch that is not proven by then is taken back; 0: ten minutes
	ConsentTimeout time.Duration    // how long a person has to answer; 0: ten minutes
	SharedPort     func() bool      // the way to the card is the network's too: a server can be asked when the network has come back; nil: no
	DeliverRetry   Backoff          // of notifications that could not be delivered; zero: see Backoff
	Require        string           // what must be signed: RequireParameters, RequireAll; else nothing
	Time           func() time.Time // the best time there is, by which a switch at a time begins; nil: Now
	Log            *slog.Logger     // nil: discards
	Now            func() time.Time // nil: time.Now

	// EnableOrder tells the ways of enabling a profile in the order in which the
	// modem is known to need them: "iccid", "iccid-refresh", "aid", "aid-refresh".
	// It may leave some out, which come last then. nil: the usual order.
	EnableOrder func() []string

	// Reporter takes reports of jobs to ReportTo, or to where their order says;
	// nil: there are none. ReportTo may be empty.
	Reporter Reporter
	ReportTo string

	// ClockReady reports whether the time is good enough to judge servers by.
	// It may ask the modem, and is called by the card's goroutine. While it is
	// not, no server is asked: downloads and deliveries wait. nil: it always is.
	ClockReady func(context.Context) bool

	// Code is the confirmation code of a declaration's job, where it is on the
	// device, unlike that of a person; it must not wait. nil: there are none.
	Code func(*job.Order) redact.Secret

	// Hooks are programs of the device's maker; the zero Dir has none.
	Hooks hooks.Dir

	// Offline leads to servers for orders without a network; nil: they are refused.
	Offline *Offline

	// Hub is where events go, with the Name of this runner; nil: one of its own.
	Hub  *Hub
	Name string

	// Pulse is where the sources of the runner say how far they are; nil: only
	// the runner's own tasks are watched. See [Runner.Alive].
	Pulse *Pulse

	// OnEnd is told each job that has ended, in the loop: it must not wait, nor
	// ask the runner for anything. nil: nobody is told.
	OnEnd func(job.Job)

	// OnState is told the state whenever it has become another, by one caller
	// at a time. It must not ask the runner for anything. nil: nobody is told.
	OnState func(State)
}

// Runner owns one card and its jobs. Make it with [New].
type Runner struct {
	cfg Config
	log *slog.Logger
	hub voice

	calls    chan func(context.Context) // to the loop, from any goroutine
	tasks    chan task                  // to the card's goroutine
	outcomes chan outcome               // back to the loop
	stopped  chan struct{}              // closed when Run has returned

	// only touched by the loop
	active   string                   // id of the job that has the card
	acting   bool                     // an action of the active job is under way
	instead  *job.Event               // takes the place of the outcome of the action under way
	cancel   context.CancelFunc       // of the task under way; nil when none is
	running  taskKind                 // the task under way
	codes    map[string]redact.Secret // confirmation codes by job, never on disk
	consent  *time.Timer              // of a job in state consent
	pause    *time.Timer              // a delayed action, or a retry of the journal
	paused   func(context.Context)    // what comes after pause; nil when nothing does
	unsaved  *job.Event               // of the active job: the disk has not taken it yet
	deliver  *time.Timer              // the next delivery in the background
	retry    *time.Timer              // the next look for a card that was not there
	mend     *time.Timer              // the next try to write a journal that the disk did not take
	alarm    *time.Timer              // the next look at the jobs that wait for their time
	clock    bool                     // deliveries wait for the clock
	failures int                      // rounds of deliveries in a row that did not get as far as the servers
	waiting  []*waiter                // callers of Refresh and those who want something of the notifications
	retries  retries
	stopping atomic.Bool // read by the card's goroutine

	// orders of before the start, and when that was: a device that was off is not
	// all there yet; never changed
	inherited map[string]bool
	begun     time.Time

	report      *time.Timer        // the next report of a job
	reporting   bool               // one is being sent
	stopReport  context.CancelFunc // of that one
	sent        chan sentReport    // what became of it
	reportPause time.Duration      // before the next: the clock is not set
	replays     []*reportWaiter    // callers of ReplayReport

	changes *Changes // of settings, that wait for a good time; nil: none

	absent map[rsp.ICCID]time.Time // since when a profile with a document is missing from its card

	// only touched by the card's goroutine
	card cardState

	pulse *Pulse

	mu    sync.Mutex
	view  View  // what other goroutines may see
	queue queue // what is remembered of the notifications

	reports reports // changed by the loop alone

	telling  sync.Mutex
	told     State             // the state that everybody knows of
	warnings map[string]string // what the status warns of, by subject
}

// New makes a runner; Run starts it.
func New(cfg Config) *Runner {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.DeadMan <= 0 {
		cfg.DeadMan = 10 * time.Minute
	}
	if cfg.ConsentTimeout <= 0 {
		cfg.ConsentTimeout = 10 * time.Minute
	}
	if cfg.Hub == nil {
		cfg.Hub = NewHub()
	}
	cfg.DeliverRetry = cfg.DeliverRetry.orDefault()
	if cfg.Pulse == nil {
		cfg.Pulse = &Pulse{}
	}
	r := &Runner{
		cfg: cfg, log: cfg.Log, pulse: cfg.Pulse, hub: voice{cfg.Hub, cfg.Name},
		calls: make(chan func(context.Context)), tasks: make(chan task), outcomes: make(chan outcome), stopped: make(chan struct{}),
		view: View{State: Starting}, told: Starting,
		codes: map[string]redact.Secret{}, warnings: map[string]string{}, absent: map[rsp.ICCID]time.Time{},
		consent: stoppedTimer(), pause: stoppedTimer(), deliver: stoppedTimer(), retry: stoppedTimer(), report: stoppedTimer(), sent: make(chan sentReport, 1), mend: stoppedTimer(), alarm: stoppedTimer(),
	}
	r.retries = retries{journal: journalRetry, card: cardRetry, resume: resumeRetry, action: maxDelay, beforeSwitch: switchLimit, schedule: scheduleLook}
	r.inherited, r.begun = map[string]bool{}, time.Now()
	for _, j := range cfg.Journal.Jobs() {
		r.inherited[j.ID] = !j.Ended()
	}
	if cfg.Offline != nil {
		cfg.Offline.Box.Keep(func(id string) bool { return r.inherited[id] })
	}
	r.recall()
	r.loadQueue()
	r.loadReports()
	r.publishJobs()
	return r
}

// retries are pauses that tests shorten.
type retries struct{ journal, card, resume, action, beforeSwitch, schedule time.Duration }

func stoppedTimer() *time.Timer {
	t := time.NewTimer(time.Hour)
	t.Stop()
	return t
}

// taskKind says what the card's goroutine is doing, which decides whether it
// may be interrupted for something more urgent.
type taskKind int

const (
	taskNone    taskKind = iota
	taskAction           // of the active job
	taskRefresh          // reading facts
	taskDeliver          // delivering in the background
	taskProbe            // looking at the way to the card
)

type task struct {
	kind taskKind
	ctx  context.Context
	run  func(context.Context) outcome
}

// outcome is what the card's goroutine hands back.
type outcome struct {
	kind  taskKind
	event job.Event // for taskAction
	left  int       // for taskDeliver: notifications that still wait
	err   error     // for taskRefresh and taskDeliver
}

// Run works until ctx ends. It may be called once.
//
// When it returns, the card has been let go, unless the card has kept the last
// command for longer than StopTimeout: whoever owns the way to the card must
// close it then, which ends that command.
func (r *Runner) Run(ctx context.Context) error {
	defer close(r.stopped)
	// Actions live in a context of their own: the loop decides when they stop.
	work, stopWork := context.WithCancel(context.WithoutCancel(ctx))
	defer stopWork()
	idle := make(chan struct{})
	go func() {
		defer close(idle)
		r.ownCard(work)
	}()

	r.next(work)
	if r.running == taskNone && r.active == "" {
		r.refresh(work)
	}
	r.boundReports()
	r.scheduleReports()
	for {
		r.makeChanges()
		r.next(work)
		r.watchSchedule(work)
		r.watchDisk()
		select {
		case <-ctx.Done():
			limit, cancel := context.WithTimeout(context.WithoutCancel(ctx), StopTimeout)
			defer cancel()
			err := r.leftToNext(r.stop(limit))
			stopWork()
			r.endReports()
			select {
			case <-idle:
			case <-limit.Done():
				r.log.Warn("stopping without waiting for the card any longer")
			}
			return err
		case call := <-r.calls:
			call(work)
		case o := <-r.outcomes:
			r.finish(work, o)
		case <-r.consent.C:
			r.step(work, job.Event{Kind: job.Expired})
		case <-r.pause.C:
			f := r.paused
			r.paused = nil
			f(work)
		case <-r.mend.C:
			r.mendJournal()
		case <-r.alarm.C:
			r.askTime(work)
		case <-r.report.C:
			r.sendReport(work)
		case s := <-r.sent:
			r.reportSent(s)
		case <-r.deliver.C:
			r.deliverInBackground(work)
		case <-r.retry.C:
			if r.running == taskNone && r.active == "" {
				r.refresh(work)
			} else {
				r.retry.Reset(r.retries.card)
			}
		}
	}
}

// ownCard is the card's goroutine.
func (r *Runner) ownCard(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			r.endHooks()
			r.card.close(ctx, r.log)
			return
		case t := <-r.tasks:
			end := r.pulse.Begin(t.kind.String(), r.patience(t.kind))
			o := t.run(t.ctx)
			o.kind = t.kind
			end()
			select {
			case r.outcomes <- o:
			case <-ctx.Done():
			}
		}
	}
}

// begin hands a task to the card's goroutine, which must be idle.
func (r *Runner) begin(ctx context.Context, kind taskKind, run func(context.Context) outcome) {
	if r.running != taskNone {
		panic("runner: two tasks for one card") // a defect of the loop: nothing else can be trusted then
	}
	taskCtx, cancel := context.WithCancel(ctx)
	r.cancel, r.running = cancel, kind
	r.tasks <- task{kind, taskCtx, run}
}

// finish takes the outcome of the task under way.
func (r *Runner) finish(ctx context.Context, o outcome) {
	r.cancel()
	r.cancel, r.running = nil, taskNone
	switch o.kind {
	case taskAction:
		r.acting = false
		if r.instead != nil {
			if !inTime(o.event) {
				o.event = *r.instead
			}
			r.instead = nil
		}
		r.step(ctx, o.event)
	case taskRefresh:
		if o.err != nil {
			r.retry.Reset(r.retries.card) // a card that is put in later, a modem that is plugged in later
		} else {
			r.compare(r.View().Facts)
		}
		if v := r.View(); len(v.Notifications) > 0 && (v.NextTry.IsZero() || r.cfg.Now().Add(r.untilDelivery()).Before(v.NextTry)) {
			r.scheduleDelivery(true) // something waits from before the start, or from somebody else
		}
	case taskDeliver:
		r.delivered(o)
	}
	if err := r.saveQueue(); err != nil {
		r.log.Warn("the journal does not take what is known of the notifications", "err", err)
	}
	if o.kind != taskAction {
		r.answerWaiting(ctx, o.kind)
	}
}

// stop lets the task under way come to an end: at the next APDU boundary if it
// can be cut there, and before limit in any case. What it achieved is
// journalled, and so is an abort that was promised; that it was cut short is
// not.
func (r *Runner) stop(limit context.Context) error {
	if r.unsaved != nil { // a last try
		return r.record(*r.unsaved)
	}
	if r.running == taskNone {
		return nil
	}
	r.stopping.Store(true)
	r.cancel()
	select {
	case o := <-r.outcomes:
		switch {
		case o.kind != taskAction:
			return nil
		case r.instead != nil && !inTime(o.event):
			return r.record(*r.instead)
		case o.event.Kind == job.Fail, o.event.Kind == job.Resumed, o.event.Kind == job.Start:
			return nil
		}
		return r.record(o.event)
	case <-limit.Done():
		if r.instead != nil {
			return r.record(*r.instead)
		}
		return nil
	}
}

// inTime reports whether an action came to its good end before it could be
// aborted.
func inTime(e job.Event) bool { return e.Kind == job.RolledBack || e.Kind == job.Online }

// record journals an event without acting on it: the daemon is stopping.
func (r *Runner) record(e job.Event) error {
	j, ok := r.cfg.Journal.Job(r.active)
	if !ok {
		return nil
	}
	e = r.stamp(e)
	next, _, err := job.Step(j, e)
	if err != nil {
		return err
	}
	return r.keep(j, next, e)
}

func (r *Runner) stamp(e job.Event) job.Event {
	if e.At.IsZero() {
		e.At = r.cfg.Now().UTC()
	}
	return e
}

// step moves the active job by what has happened. When the disk does not take
// it, it is tried again: what has happened cannot be refused.
func (r *Runner) step(ctx context.Context, e job.Event) {
	e = r.stamp(e)
	err := r.advance(ctx, e)
	if err == nil || errors.Is(err, job.ErrUnexpected) {
		return
	}
	if r.unsaved == nil {
		r.log.Warn("a step is not recorded, and tried again", "job", r.active, "event", e.Kind, "err", err)
	}
	r.unsaved = &e
	r.after(r.retries.journal, func(ctx context.Context) { r.step(ctx, e) })
}

// advance moves the active job: decide, append, sync, act. On an error nothing
// has changed.
func (r *Runner) advance(ctx context.Context, e job.Event) error {
	j, ok := r.cfg.Journal.Job(r.active)
	if !ok {
		return nil
	}
	next, actions, err := job.Step(j, e)
	if err != nil {
		r.log.Warn("event dropped", "job", j.ID, "state", j.State, "event", e.Kind, "err", err)
		return err
	}
	if err := r.keep(j, next, e); err != nil {
		return err
	}
	r.consent.Stop()
	r.pause.Stop() // whatever was to come belonged to the state before
	r.paused, r.unsaved = nil, nil
	log := r.log.With("job", next.ID, "kind", next.Order.Kind)
	if iccid := next.ICCID(); !iccid.IsZero() {
		log = log.With("iccid", iccid)
	}
	log.Info("step", "step", next.State.Number(), "state", next.State)
	if p := next.Problem; p != nil && j.Problem == nil {
		r.log.Warn("job has a problem", "job", next.ID, "state", p.State, "code", p.Code, "detail", p.Detail)
	}
	if next.Ended() { // before anybody hears of it: who asks next shall not be told that it is still running
		r.end(next)
	} else if next.State == job.Scheduled {
		r.park(next)
	}
	r.publishJobs()
	r.hub.publish(Event{At: e.At, Type: "job", Job: &next})
	for _, a := range actions {
		r.act(ctx, next, a)
	}
	r.scheduleReports()
	return nil
}

// act begins an action, now or after its delay.
func (r *Runner) act(ctx context.Context, j job.Job, a job.Action) {
	if a.Kind == job.ActAskConsent {
		r.consent.Reset(r.cfg.ConsentTimeout)
		return
	}
	if a.Kind == job.ActRetry && r.othersWait(j.ID) {
		r.after(0, func(ctx context.Context) { r.step(ctx, job.Event{Kind: job.Abort, Note: elseOrdered}) })
		return
	}
	run := func(ctx context.Context) {
		r.acting = true
		code := r.code(&j)
		r.begin(ctx, taskAction, func(ctx context.Context) outcome { return outcome{event: r.perform(ctx, j, a, code)} })
	}
	if a.Delay > 0 {
		r.after(min(a.Delay, r.retries.action), run)
		return
	}
	run(ctx)
}

// after runs f in the loop when d has passed.
func (r *Runner) after(d time.Duration, f func(context.Context)) {
	r.paused = f
	r.pause.Reset(d)
}

// end forgets what belonged to a job that has ended.
func (r *Runner) end(j job.Job) {
	delete(r.codes, j.ID)
	r.active = ""
	if r.cfg.Offline != nil {
		r.cfg.Offline.Box.End(j.ID)
	}
	// Notifications of earlier jobs may wait too, and nobody knows what a job
	// that went wrong has left on the card.
	waiting := len(r.View().Notifications) > 0 || j.Undelivered > 0 || j.State == job.Failed
	if !waiting {
		r.failures = 0
	}
	r.scheduleDelivery(waiting)
	// One answer that did not come is no card that is missing, and a job that
	// was there at the start may have ended without a look at the card.
	if v := r.View(); v.CardErr != nil || v.FactsAt.IsZero() {
		r.retry.Reset(r.retries.resume)
	}
	r.log.Info("job ended", "job", j.ID, "kind", j.Order.Kind, "state", j.State, "undelivered", j.Undelivered)
}

// next gives the card to the job that a stop or a crash interrupted, else to
// the oldest one that waits.
func (r *Runner) next(ctx context.Context) {
	if r.active != "" {
		return
	}
	j, ok := r.turn()
	if !ok {
		return
	}
	if r.running != taskNone { // a job goes before what is done in the background
		r.cancel()
		return
	}
	r.active = j.ID
	if !j.Waits() {
		r.resume(ctx, j)
		return
	}
	if v := r.View(); r.inherited[j.ID] && (v.CardErr != nil || v.FactsAt.IsZero()) {
		r.log.Info("the order of before the start waits for the card", "job", j.ID)
		r.lookForCard(ctx, job.Start)
		return
	}
	r.step(ctx, job.Event{Kind: job.Start})
}

// turn is the job whose turn it is.
func (r *Runner) turn() (first job.Job, ok bool) {
	now := r.time()
	for _, j := range r.cfg.Journal.Jobs() {
		switch {
		case j.Ended(), !j.Due(now):
		case !j.Waits():
			return j, true
		case !ok:
			first, ok = j, true
		}
	}
	return first, ok
}

// resume goes on with the job that a stop or a crash interrupted, once the
// card can be read: after a power cut a modem takes its time, and a card that
// is not there yet is no reason to give a switch up in the middle. Looking for
// the card is an action like any other, so that it can be aborted and stopped.
func (r *Runner) resume(ctx context.Context, j job.Job) {
	if counted, ok := j.Restarted(); ok {
		// Before anything else: the device may go down again before the card was
		// found. What a full disk does not take is not counted.
		if err := r.cfg.Journal.PutJob(counted); err == nil {
			j = counted
		}
	}
	r.log.Info("resuming", "job", j.ID, "state", j.State, "safety", j.State.Safety().String(), "restarts", j.Switch.Restarts)
	r.lookForCard(ctx, job.Resumed)
}

// lookForCard gives the active job an event when the card can be read, or has
// not come in time.
func (r *Runner) lookForCard(ctx context.Context, then job.EventKind) {
	r.acting = true
	r.publishJobs()
	r.begin(ctx, taskAction, func(ctx context.Context) outcome {
		r.awaitCard(ctx)
		return outcome{event: job.Event{Kind: then}}
	})
}

// awaitCard reads the facts of the card, which takes until it is there, but no
// longer than the dead-man time.
func (r *Runner) awaitCard(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, r.cfg.DeadMan)
	defer cancel()
	for {
		_, err := r.readFacts(ctx)
		r.card.closeCard(ctx, r.log)
		if err == nil || ctx.Err() != nil {
			return
		}
		r.log.Info("waiting for the card", "err", err)
		select {
		case <-ctx.Done():
			return
		case <-time.After(r.retries.resume):
		}
	}
}

// do runs f in the loop and waits for it.
func (r *Runner) do(ctx context.Context, f func(context.Context)) error {
	done := make(chan struct{})
	call := func(work context.Context) { defer close(done); f(work) }
	select {
	case r.calls <- call:
	case <-ctx.Done():
		return ctx.Err()
	case <-r.stopped:
		return errStopping
	}
	<-done // the loop never blocks
	return nil
}

var errStopping = fault.New(fault.Fault{Code: "stopping", Text: "the daemon is stopping", Retry: true, Who: fault.Nobody, Next: "ask again when it is back"}, nil)

// Submit accepts an order: it is journalled when Submit returns, and will be
// carried out whatever happens. code is the confirmation code, if the order
// comes with one; it is held in memory only.
func (r *Runner) Submit(ctx context.Context, o job.Order, code redact.Secret) (job.Job, error) {
	var j job.Job
	var err error
	o.HasCode = !code.IsZero()
	if derr := r.do(ctx, func(work context.Context) {
		if j, err = r.submit(o, code); err == nil {
			r.makeWay(work)
		}
	}); derr != nil {
		return job.Job{}, derr
	}
	if err != nil {
		r.log.Warn("an order is refused", "order", o, "code", fault.Of(err).Code, "err", err)
	}
	return j, err
}

func (r *Runner) submit(o job.Order, code redact.Secret) (job.Job, error) {
	if err := r.permitted(o); err != nil {
		return job.Job{}, err
	}
	if o.Offline && r.cfg.Offline == nil {
		return job.Job{}, conflict("this lpad has no packets")
	}
	if err := r.View().Memory.replayed(o, ""); err != nil {
		return job.Job{}, err
	}
	if err := r.cfg.Settings.CheckDocument(o.Parameters); err != nil {
		return job.Job{}, err
	}
	v := r.View()
	if err := v.Memory.allowed(o, v.eid()); err != nil {
		return job.Job{}, err
	}
	if err := v.Memory.takes(o, r.cfg.Settings.Generation); err != nil {
		return job.Job{}, err
	}
	o = v.Memory.inherit(o)
	waiting := 0
	for _, other := range r.cfg.Journal.Jobs() {
		if other.Ended() {
			continue
		}
		waiting++
		if o.Kind == job.Install && sameDownload(other.Order, o) {
			return job.Job{}, fault.New(fault.Fault{Code: "conflict", Text: "this download is under way already", Who: fault.Nobody,
				Next: "watch job " + other.ID}, nil)
		}
	}
	if waiting >= maxQueue {
		return job.Job{}, fault.New(fault.Fault{Code: "queue-full", Text: fmt.Sprintf("%d jobs are waiting already", waiting), Retry: true,
			Who: fault.Technician, Next: "wait until some have ended, or abort some"}, nil)
	}
	now := r.cfg.Now().UTC()
	j := job.New(r.cfg.Journal.NewID(now), o, now)
	if err := r.cfg.Journal.PutJob(j); err != nil {
		return job.Job{}, err
	}
	if j.Order.Verified {
		r.accepted(j)
	}
	if !code.IsZero() {
		r.codes[j.ID] = code
	}
	r.log.Info("order accepted", "job", j.ID, "order", o)
	r.publishJobs()
	r.hub.publish(Event{At: now, Type: "job", Job: &j})
	return j, nil
}

// sameDownload compares what was ordered: the card's own addresses lead to one
// order at a time, which is only known when they have been asked.
func sameDownload(a, b job.Order) bool {
	if a.Kind != job.Install || a.Source != b.Source {
		return false
	}
	return a.Source != job.SourceActivationCode || strings.EqualFold(a.SMDP, b.SMDP) && a.MatchingID == b.MatchingID
}

// Answer consents to the profile of a job that asks, or refuses it.
func (r *Runner) Answer(ctx context.Context, id string, accept bool, code redact.Secret) (job.Job, error) {
	return r.tell(ctx, id, func(j job.Job) error {
		if j.State != job.Consent {
			return conflict("job " + id + " is not waiting for an answer")
		}
		if r.acting {
			return fault.New(fault.Fault{Code: "resuming", Text: "the download is being begun again and will ask again", Retry: true, Who: fault.Nobody,
				Next: "answer when it asks"}, nil)
		}
		if accept && j.CodeRequired && code.IsZero() && r.codes[id].IsZero() {
			return fault.New(fault.Fault{Code: "confirmation-code-missing", Text: "this download needs a confirmation code", Who: fault.Technician,
				Next: "answer with the code that the operator gave with the activation code"}, nil)
		}
		if !code.IsZero() {
			r.codes[id] = code
		}
		return nil
	}, job.Event{Kind: job.Answered, Accept: accept})
}

// Abort stops a job if it can still be stopped: from the first byte of the
// profile package on, it goes to its end. A rollback that does not succeed can
// be given up; the device then stays between two profiles. A first profile that
// does not come online can be given up too; it stays enabled.
func (r *Runner) Abort(ctx context.Context, id string) (job.Job, error) {
	return r.tell(ctx, id, func(j job.Job) error {
		switch j.State {
		case job.Queued, job.Authenticating, job.Consent, job.Preparing, job.Scheduled, job.RollingBack, job.Retrying:
			return nil
		}
		return conflict(fmt.Sprintf("job %s is in state %q and can no longer be aborted", id, j.State))
	}, job.Event{Kind: job.Abort})
}

func conflict(text string) error {
	return fault.New(fault.Fault{Code: "conflict", Text: text, Who: fault.Nobody, Next: "look at the job"}, nil)
}

func notFound(what string) error {
	return fault.New(fault.Fault{Code: "not-found", Text: "there is no " + what, Who: fault.Technician, Next: "list what there is"}, nil)
}

// tell gives a job an event from outside.
func (r *Runner) tell(ctx context.Context, id string, check func(job.Job) error, e job.Event) (job.Job, error) {
	var j job.Job
	var err error
	derr := r.do(ctx, func(work context.Context) {
		var ok bool
		if j, ok = r.cfg.Journal.Job(id); !ok {
			err = notFound("job " + id)
			return
		}
		if err = check(j); err != nil {
			return
		}
		if id != r.active {
			err = r.drop(j, e)
		} else {
			err = r.interrupt(work, e)
		}
		if now, ok := r.cfg.Journal.Job(id); ok {
			j = now
		}
	})
	return j, errors.Join(derr, err)
}

// interrupt gives the active job an event from outside.
func (r *Runner) interrupt(work context.Context, e job.Event) error {
	if r.acting { // the action ends first, at its next boundary; then the event takes the place of its outcome
		r.instead = &e
		r.cancel()
		return nil
	}
	if r.unsaved != nil && inTime(*r.unsaved) { // it came to its good end before, and only the disk does not know
		return r.advance(work, *r.unsaved)
	}
	return r.advance(work, r.stamp(e)) // refused when the disk does not take it, rather than promised
}

// makeWay ends the trying of a first profile that does not come online, which
// may take a day, when something else was ordered.
func (r *Runner) makeWay(work context.Context) {
	j, ok := r.cfg.Journal.Job(r.active)
	if !ok || j.State != job.Retrying || r.instead != nil {
		return
	}
	if err := r.interrupt(work, job.Event{Kind: job.Abort, Note: elseOrdered}); err != nil {
		r.log.Warn("the order waits for the job before it", "job", j.ID, "err", err)
	}
}

const elseOrdered = "something else was ordered"

// othersWait reports whether there is more to do now than a job.
func (r *Runner) othersWait(id string) bool { return r.others(r.cfg.Journal.Jobs(), id) }

func (r *Runner) others(jobs []job.Job, id string) bool {
	now := r.time()
	return slices.ContainsFunc(jobs, func(j job.Job) bool { return j.ID != id && !j.Ended() && j.Due(now) })
}

// drop ends a job that waits: nothing of it is under way.
func (r *Runner) drop(j job.Job, e job.Event) error {
	next, _, err := job.Step(j, r.stamp(e))
	if err != nil {
		return err
	}
	if err := r.keep(j, next, r.stamp(e)); err != nil {
		return err
	}
	delete(r.codes, j.ID)
	r.scheduleReports()
	r.publishJobs()
	r.hub.publish(Event{At: r.cfg.Now().UTC(), Type: "job", Job: &next})
	return nil
}

// Jobs returns all jobs, the newest first.
func (r *Runner) Jobs() []job.Job {
	jobs := r.View().Jobs
	slices.Reverse(jobs)
	return jobs
}

// Job returns one job.
func (r *Runner) Job(id string) (job.Job, error) {
	for _, j := range r.View().Jobs {
		if j.ID == id {
			return j, nil
		}
	}
	return job.Job{}, notFound("job " + id)
}

// Watch sends what came after the event with id after, then everything new,
// until ctx ends. The channel of a watcher that is too slow is closed early:
// look at the jobs, and watch again.
func (r *Runner) Watch(ctx context.Context, after uint64) <-chan Event {
	return r.hub.watch(ctx, after)
}
