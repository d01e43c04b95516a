package runner

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/url"
	"strings"
	"time"

	"lpad/agent/job"
	"lpad/agent/journal"
	"lpad/agent/rsp"
	"lpad/internal/fault"
	"lpad/modem"
)

// A report of each job's end goes to whoever the order or the configuration
// names. It is in the journal before the job has ended there, so it is sent at
// least once; the receiver knows a repetition by its key. The receivers are
// served as those of notifications are: each in order, each with its own pause.

// Reporter takes reports to their receivers.
type Reporter interface {
	// About says what a report tells of the device. It asks nobody.
	About() About
	// Report makes one try to deliver a report. key is the same for each try.
	// retryAfter is how long the receiver asks to be left alone. An error with
	// the code [CodeReportRefused] is a receiver that does not want this report.
	// [ErrClockNotSet] is no failure of the receiver.
	Report(ctx context.Context, to, key string, body []byte, link modem.Link) (retryAfter time.Duration, err error)
}

// CodeReportRefused is the code of a refusal that trying again will not change.
const CodeReportRefused = "report-refused"

// About is what a reporter knows of the device.
type About struct {
	IMEI     string // empty: not known, or not to be told; so are the next three
	TAC      string // type allocation code: what kind of device it is
	Model    string // of the modem
	Firmware string
	Backend  string // of the network: networkmanager, none
	Clock    string // whose time it is: system, modem, or none
}

// ReportVersion is the version of the form of a [Report].
const ReportVersion = 1

// Report is what a receiver gets, as JSON. It holds no secrets.
type Report struct {
	Version int   `json:"version"`
	Seq     int64 `json:"seq"` // counts the reports to this receiver, from 1; a gap is a report that was given up

	EID      string `json:"eid,omitempty"`
	IMEI     string `json:"imei,omitempty"`
	TAC      string `json:"tac,omitempty"`
	Model    string `json:"model,omitempty"`
	Firmware string `json:"firmware,omitempty"`

	Job     string      `json:"job"` // its id
	Kind    job.Kind    `json:"kind"`
	Outcome job.Outcome `json:"outcome"`
	Started time.Time   `json:"started,omitzero"` // zero: its turn never came
	Ended   time.Time   `json:"ended"`
	Clock   string      `json:"clock"` // whose time this is: system, modem, none

	Fault    *ReportFault `json:"fault,omitempty"`
	ICCID    string       `json:"iccid,omitempty"`
	Previous string       `json:"previous,omitempty"` // ICCID enabled before

	Backend   string `json:"backend"` // of the network
	APN       string `json:"apn,omitempty"`
	APNSource string `json:"apn_source,omitempty"`
	Rung      string `json:"rung,omitempty"` // how the SIM was read again

	// What was applied, and when the device had come online with it; after a
	// switch that was taken back what was not, for which Fault has the reason.
	// Activation is the number of the enable notification of this switch.
	Parameters []job.Parameter `json:"parameters,omitempty"`
	AppliedAt  time.Time       `json:"applied_at,omitzero"`
	Activation int64           `json:"activation,omitempty"`
	Hooks      []job.HookRun   `json:"hooks,omitempty"` // of the device's maker

	_ [0]func() // never compared: spares the code for it
}

// ReportFault is what went wrong.
type ReportFault struct {
	Code  string    `json:"code"`
	Text  string    `json:"text"`
	Who   fault.Who `json:"who"`
	Next  string    `json:"next"`
	Retry bool      `json:"retry"`
	State job.State `json:"state,omitempty"`
}

// Bounds of what is kept, and of one try.
const (
	maxReports         = 64 // that wait; then the oldest goes
	maxReportReceivers = 96 // whose numbers are remembered
	reportLimit        = 30 * time.Second
)

// The settings of the journal: one for each report that waits, named by its
// job, and one for what is known of the receivers.
const (
	reportsSetting = "reports"
)

var reportPrefix = journal.ReportKey("")

// storedReport is a report that waits.
type storedReport struct {
	Job     string          `json:"job"`
	Kind    job.Kind        `json:"kind"`
	Outcome job.Outcome     `json:"outcome"`
	Order   int64           `json:"order"` // of coming, whatever the clock says
	To      string          `json:"to"`
	Seq     int64           `json:"seq"`
	Key     string          `json:"key"`
	Since   time.Time       `json:"since,omitzero"` // zero when the clock was not set
	Link    json.RawMessage `json:"link,omitempty"` // of the switch that it is about
	Body    json.RawMessage `json:"body"`
}

// reports is guarded by Runner.mu; only the loop changes it.
type reports struct {
	Seq       map[string]int64 `json:"seq,omitempty"` // by receiver: the last number that was given
	Receivers receivers        `json:"receivers,omitempty"`
	Lost      int              `json:"lost,omitempty"` // given up because too many waited

	waiting []*storedReport // the oldest first
}

// sentReport is what became of a try.
type sentReport struct {
	*storedReport
	retryAfter time.Duration
	err        error
}

// reportWaiter is a caller of ReplayReport.
type reportWaiter struct {
	job, to string
	done    chan error // buffered
}

// loadReports reads what waits from before the start.
func (r *Runner) loadReports() {
	var s reports
	if _, err := r.cfg.Journal.Setting(reportsSetting, &s); err != nil {
		r.log.Warn("what was known of the receivers of reports is lost", "err", err)
		s = reports{}
	}
	if s.Seq == nil {
		s.Seq = map[string]int64{}
	}
	if s.Receivers == nil {
		s.Receivers = receivers{}
	}
	s.Receivers.restore(r.cfg.Now(), r.cfg.DeliverRetry)
	for _, key := range r.cfg.Journal.SettingKeys(reportPrefix) {
		one := &storedReport{}
		if _, err := r.cfg.Journal.Setting(key, one); err != nil || key != journal.ReportKey(one.Job) {
			r.log.Warn("a report is not readable", "key", key, "err", err)
			continue
		}
		s.waiting = append(s.waiting, one)
		for at := len(s.waiting) - 1; at > 0 && s.waiting[at-1].Order > one.Order; at-- {
			s.waiting[at-1], s.waiting[at] = one, s.waiting[at-1]
		}
		s.Seq[one.To] = max(s.Seq[one.To], one.Seq) // a crash before the count was written
	}
	s.forgetReceivers()
	r.reports = s
}

// putReport writes the report of a job that is about to end. It comes before
// the job's own record: after a crash in between the job ends once more, and
// its report is replaced. Until the job has ended its report is not sent.
func (r *Runner) putReport(before, next job.Job, at time.Time) error {
	to := r.receiver(before)
	if to == "" || !next.Ended() {
		return nil
	}
	s := &storedReport{Job: next.ID, Kind: next.Order.Kind, Outcome: next.Outcome(), To: to, Key: newKey(), Order: 1, Link: next.Switch.Link}
	was := r.waitingReport(next.ID)
	if was != nil {
		s.Order, s.Seq, s.Key, s.To = was.Order, was.Seq, was.Key, was.To
	} else {
		if n := len(r.reports.waiting); n > 0 {
			s.Order = r.reports.waiting[n-1].Order + 1
		}
		s.Seq = r.reports.Seq[to] + 1
	}
	if clockSet(at) {
		s.Since = at.Truncate(time.Second)
	}
	var err error
	if s.Body, err = json.Marshal(r.reportOf(next, s.Seq, at)); err != nil {
		return err
	}
	if err := r.cfg.Journal.PutSetting(journal.ReportKey(s.Job), s); err != nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	q := &r.reports
	if was == nil {
		q.waiting = append(q.waiting, s)
	} else {
		*was = *s
	}
	q.Seq[s.To] = max(q.Seq[s.To], s.Seq)
	q.forgetIdle(s.To)
	return nil
}

// receiver is who gets the report of a job; empty: nobody.
func (r *Runner) receiver(j job.Job) string {
	if r.cfg.Reporter == nil {
		return ""
	}
	return cmp.Or(j.Order.ReportTo, r.cfg.ReportTo)
}

// newKey is what tells reports of all devices apart.
func newKey() string { return fmt.Sprintf("%016x%016x", rand.Uint64(), rand.Uint64()) }

// forgetIdle bounds the numbers that are remembered: a receiver for whom
// nothing waits is counted from 1 again.
func (q *reports) forgetIdle(but string) {
	for to := range q.Seq {
		if len(q.Seq) <= maxReportReceivers {
			return
		}
		if to != but && !q.waits(to) {
			delete(q.Seq, to)
		}
	}
}

// reportOf is what is told of a job.
func (r *Runner) reportOf(j job.Job, seq int64, at time.Time) *Report {
	about := r.cfg.Reporter.About() // before the lock: it may wait for who is asking the modem
	r.mu.Lock()
	defer r.mu.Unlock()
	out := &Report{Version: ReportVersion, Seq: seq, IMEI: about.IMEI, TAC: about.TAC, Model: about.Model, Firmware: about.Firmware, Job: j.ID, Kind: j.Order.Kind, Outcome: j.Outcome(), Ended: at,
		Clock: cmp.Or(about.Clock, "none"), Backend: about.Backend, APN: j.Switch.APN, APNSource: j.Switch.Source, Rung: j.Switch.Rung,
		Parameters: j.Parameters, AppliedAt: j.AppliedAt, Activation: j.Activation, Hooks: j.Hooks}
	if v := &r.view; !v.FactsAt.IsZero() {
		out.EID = v.Facts.EID.String()
	}
	for _, m := range j.Timeline {
		if m.State != job.Queued && !m.State.Ended() {
			out.Started = m.At
			break
		}
	}
	if p := j.Problem; p != nil {
		out.Fault = &ReportFault{p.Code, p.Text, p.Who, p.Next, p.Retry, p.State}
	}
	if id := j.ICCID(); !id.IsZero() {
		out.ICCID = id.String()
	}
	if id := j.Switch.Previous; !id.IsZero() {
		out.Previous = id.String()
	}
	return out
}

// saveReports writes what is known of the receivers.
func (r *Runner) saveReports() error {
	var text json.RawMessage
	var err error
	r.mu.Lock()
	text, err = json.Marshal(&r.reports)
	r.mu.Unlock()
	if err != nil {
		return err
	}
	return r.cfg.Journal.PutSetting(reportsSetting, text)
}

// removeReport takes a report out of the journal. What is known of the
// receivers, with the numbers that were given, is written first.
func (r *Runner) removeReport(id string) error {
	if err := r.saveReports(); err != nil {
		return err
	}
	if err := r.cfg.Journal.ForgetSetting(journal.ReportKey(id)); err != nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	q := &r.reports
	var others []*storedReport
	for _, w := range q.waiting {
		if w.Job != id {
			others = append(others, w)
		}
	}
	q.waiting = others
	q.forgetReceivers()
	return nil
}

// forgetReceivers forgets the pauses of those for whom nothing waits.
func (q *reports) forgetReceivers() {
	for to := range q.Receivers {
		if !q.waits(to) {
			delete(q.Receivers, to)
		}
	}
}

func (q *reports) waits(to string) bool {
	for _, w := range q.waiting {
		if w.To == to {
			return true
		}
	}
	return false
}

func (r *Runner) lost(n int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.reports.Lost += n
}

// boundReports gives the oldest up when too many wait.
func (r *Runner) boundReports() {
	for len(r.reports.waiting) > maxReports {
		oldest := r.reports.waiting[0]
		r.lost(1)
		if err := r.removeReport(oldest.Job); err != nil {
			r.lost(-1)
			r.log.Warn("too many reports wait, and none can be given up", "err", err)
			return
		}
		r.giveUp(fmt.Sprintf("the report of job %s to %s was given up: more than %d wait", oldest.Job, hostOf(oldest.To), maxReports))
	}
}

// mayReport reports whether there is a network to send a report over: not in
// the middle of a switch, and not while the card has the port of both.
func (r *Runner) mayReport() bool {
	j, ok := r.cfg.Journal.Job(r.active)
	if !ok {
		return true
	}
	switch j.State {
	case job.Snapshotting, job.Gating, job.Enabling, job.Applying, job.Rereading, job.Verifying, job.RollingBack:
		return false
	case job.Consent, job.Retrying:
		return true
	}
	return !r.sharedPort()
}

func (r *Runner) sharedPort() bool { return r.cfg.SharedPort != nil && r.cfg.SharedPort() }

// nextReport is the one to be sent next, nil if none waits, and when: the first of each receiver,
// and of these the one whose receiver is due, before those that failed last
// time. Nothing of a job that has not ended after all is sent.
func (r *Runner) nextReport(now time.Time) (next *storedReport, at time.Time) {
	seen := map[string]bool{}
	failures := 0
	for _, w := range r.reports.waiting {
		if seen[w.To] {
			continue
		}
		seen[w.To] = true
		if j, known := r.cfg.Journal.Job(w.Job); known && !j.Ended() {
			continue
		}
		due, failed := r.reports.Receivers.due(w.To), 0
		if state := r.reports.Receivers[w.To]; state != nil {
			failed = state.Failures
		}
		if due.Before(now) {
			due = now
		}
		if next == nil || due.Before(at) || due.Equal(at) && failed < failures {
			next, at, failures = w, due, failed
		}
	}
	return next, at
}

// scheduleReports plans the next report. The loop calls it whenever the jobs
// or the receivers have become others.
func (r *Runner) scheduleReports() {
	r.report.Stop()
	if r.reporting || r.cfg.Reporter == nil {
		return
	}
	if !r.mayReport() {
		for _, w := range r.replays {
			w.done <- errCardNeeded
		}
		r.replays = nil
		return
	}
	now := r.cfg.Now()
	if next, at := r.nextReport(now); next != nil {
		r.report.Reset(max(at.Sub(now), r.reportPause))
	}
	r.reportPause = 0
}

// sendReport begins to send what is due.
func (r *Runner) sendReport(ctx context.Context) {
	now := r.cfg.Now()
	s, at := r.nextReport(now)
	if r.reporting || !r.mayReport() || s == nil || at.After(now) {
		r.scheduleReports()
		return
	}
	var link modem.Link
	if r.reports.Receivers[s.To] == nil && len(s.Link) > 0 { // over the network that it tells of; then over any
		if err := json.Unmarshal(s.Link, &link); err != nil {
			r.log.Warn("link of the switch not read", "job", s.Job, "err", err)
		}
	}
	ctx, r.stopReport = context.WithTimeout(ctx, reportLimit)
	r.reporting = true
	go func() {
		after, err := r.cfg.Reporter.Report(ctx, s.To, s.Key, s.Body, link)
		if err != nil && errors.Is(context.Cause(ctx), context.Canceled) {
			err = context.Canceled // the daemon stops: nobody has failed
		}
		r.sent <- sentReport{s, after, err}
	}()
}

// reportSent takes what became of a try.
func (r *Runner) reportSent(s sentReport) {
	r.stopReport()
	r.reporting = false
	host, now := hostOf(s.To), r.cfg.Now()
	err := s.err
	waits := r.waitingReport(s.Job) != nil
	if err == nil && waits {
		r.mu.Lock()
		delete(r.reports.Receivers, s.To)
		r.mu.Unlock()
		if err = r.removeReport(s.Job); err == nil {
			r.log.Info("report delivered", "job", s.Job, "receiver", host, "seq", s.Seq)
			r.hub.publish(Event{At: now.UTC(), Type: "report"})
		}
	}
	switch {
	case err == nil || !waits, errors.Is(err, context.Canceled):
	case errors.Is(err, ErrClockNotSet):
		r.reportPause = r.retries.card
		if r.active == "" && r.running == taskNone { // the card's goroutine asks the modem for the time
			r.clock = true
			r.scheduleDelivery(true)
		}
	default:
		r.mu.Lock()
		r.reports.Receivers.failed(s.To, err, s.retryAfter, now, r.cfg.DeliverRetry)
		if state := r.reports.Receivers[s.To]; state.Problem.Code == CodeReportRefused {
			state.Next = now.Add(r.cfg.DeliverRetry.Most)
		}
		r.mu.Unlock()
		r.log.Warn("a report waits", "job", s.Job, "receiver", host, "seq", s.Seq, "err", err)
		r.hub.publish(Event{At: now.UTC(), Type: "report"})
		if err := r.saveReports(); err != nil {
			r.log.Warn("the journal does not take what is known of the receivers of reports", "err", err)
		}
	}
	if to := s.To; err != nil {
		r.answerReports(to, "", err)
	} else {
		r.answerReports("", s.Job, nil)
	}
	r.scheduleReports()
}

// answerReports answers callers of ReplayReport: those who wait for a receiver
// and those who wait for a job's report.
func (r *Runner) answerReports(to, id string, err error) {
	var others []*reportWaiter
	for _, w := range r.replays {
		if w.to == to || w.job == id {
			w.done <- err
		} else {
			others = append(others, w)
		}
	}
	r.replays = others
}

// urgeReports has a receiver tried at once, whatever pause it is in; an empty
// one has all.
func (r *Runner) urgeReports(to string) {
	r.mu.Lock()
	for other, state := range r.reports.Receivers {
		if to == "" || to == other {
			state.Next, state.Hold = time.Time{}, time.Time{}
		}
	}
	r.mu.Unlock()
	r.scheduleReports()
}

// waitingReport finds a report by its job, nil if none waits.
func (r *Runner) waitingReport(id string) *storedReport {
	for _, w := range r.reports.waiting {
		if w.Job == id {
			return w
		}
	}
	return nil
}

func noReport(id string) error { return notFound("report of job " + id + " that waits") }

// ReplayReport sends the report of a job now, after those to the same receiver
// that come before it, whatever pause the receiver is in. It fails when the
// report still waits afterwards.
func (r *Runner) ReplayReport(ctx context.Context, id string) error {
	done := make(chan error, 1)
	err := r.do(ctx, func(context.Context) {
		s := r.waitingReport(id)
		if s == nil {
			done <- noReport(id)
			return
		}
		r.replays = append(r.replays, &reportWaiter{id, s.To, done})
		r.urgeReports(s.To)
	})
	if err != nil {
		return err
	}
	select {
	case err = <-done:
	case <-ctx.Done():
		err = ctx.Err()
	case <-r.stopped:
		err = errStopping
	}
	return err
}

// DropReport gives the report of a job up: its receiver will never get it. The
// log keeps who has wanted it.
func (r *Runner) DropReport(ctx context.Context, id, by string) error {
	var err error
	derr := r.do(ctx, func(context.Context) {
		s := r.waitingReport(id)
		if s == nil {
			err = noReport(id)
			return
		}
		r.mu.Lock()
		delete(r.reports.Receivers, s.To) // what waited behind it may go
		r.mu.Unlock()
		if err = r.removeReport(id); err != nil {
			return
		}
		r.giveUp("the report of job " + id + " to " + hostOf(s.To) + " was dropped by " + by)
		r.answerReports("", id, noReport(id))
		r.scheduleReports()
	})
	return errors.Join(derr, err)
}

// giveUp logs that a report was given up, and tells watchers.
func (r *Runner) giveUp(text string) {
	r.log.Warn(text)
	r.hub.publish(Event{At: r.cfg.Now().UTC(), Type: "report", Text: text})
}

// lines says what is known of each report that waits.
func (q *reports) lines() []Waiting {
	var out []Waiting
	for _, w := range q.waiting {
		out = append(out, Waiting{Notification: rsp.Notification{SeqNumber: w.Seq, Address: hostOf(w.To)}, Job: w.Job, Kind: w.Kind, Outcome: w.Outcome, Since: w.Since})
		q.Receivers.line(w.To, &out[len(out)-1])
	}
	return out
}

// hostOf is what of a receiver's address is shown: its path may hold a token.
func hostOf(to string) string {
	u, err := url.Parse(to)
	if err != nil || u.Host == "" {
		return "unknown"
	}
	return strings.ToLower(u.Host)
}

// endReports waits for the end of a try, which the end of the daemon cuts off.
// The report is in the journal.
func (r *Runner) endReports() {
	if r.reporting {
		r.stopReport()
		<-r.sent
		r.reporting = false
	}
}
