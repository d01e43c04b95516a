package agent

import (
	"context"
	"maps"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"lpad/agent/job"
	"lpad/agent/metrics"
	"lpad/agent/runner"
	"lpad/internal/fault"
)

// figures are what is counted of a card since the start. The names of events,
// kinds and codes are lpad's own, so there are never many of them; identifiers of
// cards and profiles are in none.
type figures struct {
	mu        sync.Mutex
	ended     map[string]int64   // by kind and outcome, with a blank between
	errors    map[string]int64   // of the way to the card, by code
	switches  *metrics.Histogram // seconds from the gate to a proven network
	rollbacks int64
}

func newFigures() *figures {
	return &figures{ended: map[string]int64{}, errors: map[string]int64{}, switches: metrics.NewHistogram(5, 10, 20, 30, 60, 120, 300, 600)}
}

// longestSwitch is above what a switch may take; more is a clock that was set in
// the middle of it.
const longestSwitch = 24 * time.Hour

// jobEnded counts a job; see runner.Config.OnEnd.
func (f *figures) jobEnded(j job.Job) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.ended[string(j.Order.Kind)+" "+string(j.Outcome())]++
	var begun, online time.Time
	for _, m := range j.Timeline {
		switch m.State {
		case job.Gating:
			begun = m.At
		case job.Committing:
			online = m.At
		case job.RollingBack:
			f.rollbacks++
		}
	}
	if d := online.Sub(begun); !begun.IsZero() && d > 0 && d < longestSwitch {
		f.switches.Observe(d.Seconds())
	}
}

// cardFailed counts an error on the way to the card. That something more urgent
// came is none.
func (f *figures) cardFailed(ctx context.Context, err error) {
	if f == nil || err == nil || ctx.Err() != nil {
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.errors[fault.Of(err).Code]++
}

// maxReceivers are told apart in the figures.
const maxReceivers = 16

// Metrics are all figures, as OpenMetrics text.
func (b *backend) Metrics(context.Context) (string, error) {
	views := make([]runner.View, len(b.units))
	for i, u := range b.units {
		views[i] = u.runner.View()
	}
	now := time.Now()
	var w metrics.Writer
	each := func(write func(card string, u *unit, v *runner.View)) {
		for i, u := range b.units {
			u.figures.mu.Lock()
			write(u.cfg.Name, u, &views[i])
			u.figures.mu.Unlock()
		}
	}
	w.Family("lpad_build", metrics.Info, "", "version of lpad, and of Go that it was built with")
	w.Sample(1, "version", b.host.Version, "go", runtime.Version())
	w.Family("lpad_uptime_seconds", metrics.Gauge, "seconds", "time since the start")
	w.Sample(now.Sub(b.since).Seconds())
	w.Family("lpad_card_state", metrics.StateSet, "", "how it goes with a card")
	states := make([]string, 0, len(urgency))
	for _, s := range urgency {
		states = append(states, string(s))
	}
	each(func(card string, _ *unit, v *runner.View) { w.State(string(v.State), states, "card", card) })
	w.Family("lpad_card_errors", metrics.Counter, "", "errors on the way to a card, by code")
	each(func(card string, u *unit, _ *runner.View) {
		for _, code := range slices.Sorted(maps.Keys(u.figures.errors)) {
			w.Sample(float64(u.figures.errors[code]), "card", card, "code", code)
		}
	})

	w.Family("lpad_jobs_open", metrics.Gauge, "", "jobs that have not ended")
	each(func(card string, _ *unit, v *runner.View) {
		open := 0
		for i := range v.Jobs {
			if !v.Jobs[i].Ended() {
				open++
			}
		}
		w.Sample(float64(open), "card", card)
	})
	w.Family("lpad_jobs_ended", metrics.Counter, "", "jobs that have ended, by how")
	each(func(card string, u *unit, _ *runner.View) {
		for _, key := range slices.Sorted(maps.Keys(u.figures.ended)) {
			kind, outcome, _ := strings.Cut(key, " ")
			w.Sample(float64(u.figures.ended[key]), "card", card, "kind", kind, "outcome", outcome)
		}
	})
	w.Family("lpad_switch_duration_seconds", metrics.HistogramType, "seconds", "from holding the old network to a proven new one")
	each(func(card string, u *unit, _ *runner.View) { w.Histogram(u.figures.switches, "card", card) })
	w.Family("lpad_rollbacks", metrics.Counter, "", "switches that were taken back, or were to be")
	each(func(card string, u *unit, _ *runner.View) { w.Sample(float64(u.figures.rollbacks), "card", card) })

	w.Family("lpad_notifications_waiting", metrics.Gauge, "", "notifications on the card that their server has not acknowledged")
	each(func(card string, _ *unit, v *runner.View) {
		for _, q := range queues(v.Queue) {
			w.Sample(float64(q.count), "card", card, "receiver", q.receiver)
		}
	})
	w.Family("lpad_notifications_oldest_age_seconds", metrics.Gauge, "seconds", "how long the oldest of them has waited")
	each(func(card string, _ *unit, v *runner.View) {
		for _, q := range queues(v.Queue) {
			if !q.since.IsZero() {
				w.Sample(max(0, now.Sub(q.since).Seconds()), "card", card, "receiver", q.receiver)
			}
		}
	})
	w.Family("lpad_reports_waiting", metrics.Gauge, "", "reports of jobs that wait for their receiver")
	each(func(card string, _ *unit, v *runner.View) { w.Sample(float64(len(v.Reports)), "card", card) })
	w.Family("lpad_reports_lost", metrics.Gauge, "", "reports that were given up because too many waited")
	each(func(card string, _ *unit, v *runner.View) { w.Sample(float64(v.ReportsLost), "card", card) })

	w.Family("lpad_journal_size_bytes", metrics.Gauge, "bytes", "size of the journal")
	each(func(card string, _ *unit, v *runner.View) { w.Sample(float64(v.JournalSize), "card", card) })
	w.Family("lpad_journal_written_bytes", metrics.Counter, "bytes", "written to the journal")
	each(func(card string, _ *unit, v *runner.View) { w.Sample(float64(v.JournalWritten), "card", card) })
	w.Family("lpad_journal_writes", metrics.Counter, "", "times that something was written to the journal and synced")
	each(func(card string, _ *unit, v *runner.View) { w.Sample(float64(v.JournalWrites), "card", card) })
	w.Family("lpad_journal_failing", metrics.Gauge, "", "1 when the disk does not take the journal")
	each(func(card string, _ *unit, v *runner.View) { w.Sample(truth(v.JournalErr != nil), "card", card) })

	w.Family("lpad_restart_needed", metrics.Gauge, "", "1 when the configuration on the disk is not all in use")
	w.Sample(truth(b.reloaded.line() != ""))
	w.Family("lpad_goroutines", metrics.Gauge, "", "goroutines")
	w.Sample(float64(runtime.NumGoroutine()))
	whole, own := memory()
	w.Family("lpad_resident_memory_bytes", metrics.Gauge, "bytes", "memory in use, with the pages of the program")
	w.Sample(whole)
	w.Family("lpad_anonymous_memory_bytes", metrics.Gauge, "bytes", "memory in use that is not a file's")
	w.Sample(own)
	return w.Text(), nil
}

func truth(is bool) float64 {
	if is {
		return 1
	}
	return 0
}

// waitingFor is how much waits for a receiver.
type waitingFor struct {
	receiver string
	count    int
	since    time.Time // the oldest; zero: not known
}

// queues sorts what waits by receivers; of too many the last ones are one.
func queues(list []runner.Waiting) []waitingFor {
	var out []waitingFor
	for i := range list {
		name := list[i].Receiver()
		at := slices.IndexFunc(out, func(q waitingFor) bool { return q.receiver == name })
		if at < 0 && len(out) >= maxReceivers {
			at = maxReceivers - 1
			out[at].receiver = "others"
		}
		if at < 0 {
			at = len(out)
			out = append(out, waitingFor{receiver: name})
		}
		q := &out[at]
		q.count++
		if since := list[i].Since; !since.IsZero() && (q.since.IsZero() || since.Before(q.since)) {
			q.since = since
		}
	}
	return out
}

// memory is what is in use, as the kernel counts it: all of it, and what is no
// file's. 0: it does not tell.
func memory() (whole, own float64) {
	text, err := os.ReadFile("/proc/self/statm")
	fields := strings.Fields(string(text))
	if err != nil || len(fields) < 3 {
		return 0, 0
	}
	page := float64(os.Getpagesize())
	resident, _ := strconv.ParseFloat(fields[1], 64)
	shared, _ := strconv.ParseFloat(fields[2], 64)
	return resident * page, (resident - shared) * page
}
