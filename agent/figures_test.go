package agent

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"lpad/agent/job"
	"lpad/agent/metrics/metricstest"
	"lpad/agent/rsp"
	"lpad/agent/runner"
	"lpad/internal/fault"
)

// figuresOf asks for the figures and reads them strictly.
func figuresOf(t *testing.T, a *Agent) (map[string]*metricstest.Family, string) {
	t.Helper()
	text, err := (&backend{a, a.units[0], true}).Metrics(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	all, err := metricstest.Parse(text)
	if err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	return all, text
}

// value is the figure with these labels; it must be there once.
func value(t *testing.T, f *metricstest.Family, suffix string, labels ...string) float64 {
	t.Helper()
	if f == nil {
		t.Fatal("no such family")
	}
	var found []float64
	for _, s := range f.Samples {
		fits := s.Suffix == suffix
		for i := 0; i < len(labels); i += 2 {
			fits = fits && s.Labels[labels[i]] == labels[i+1]
		}
		if fits {
			found = append(found, s.Value)
		}
	}
	if len(found) != 1 {
		t.Fatalf("%s%s %q: %v", f.Name, suffix, labels, found)
	}
	return found[0]
}

func TestMetrics(t *testing.T) {
	a, _ := twoCards(t)
	defer closeAll(t, a)
	all, text := figuresOf(t, a)
	for _, name := range strings.Fields("lpad_build lpad_uptime_seconds lpad_card_state lpad_card_errors lpad_jobs_open lpad_jobs_ended lpad_switch_duration_seconds lpad_rollbacks " +
		"lpad_notifications_waiting lpad_notifications_oldest_age_seconds lpad_reports_waiting lpad_reports_lost lpad_journal_size_bytes lpad_journal_written_bytes " +
		"lpad_journal_writes lpad_journal_failing lpad_restart_needed lpad_goroutines lpad_resident_memory_bytes lpad_anonymous_memory_bytes") {
		if all[name] == nil {
			t.Errorf("no %s in\n%s", name, text)
		}
		delete(all, name)
	}
	for name := range all {
		t.Errorf("%s is not in the list", name)
	}
	all, _ = figuresOf(t, a)
	if value(t, all["lpad_card_state"], "", "card", "b", "lpad_card_state", "starting") != 1 || value(t, all["lpad_resident_memory_bytes"], "") < 1<<20 {
		t.Errorf("state or memory:\n%s", text)
	}

	// What was counted of one card is not the other's.
	begun := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	at := func(seconds int) time.Time { return begun.Add(time.Duration(seconds) * time.Second) }
	f := a.units[0].figures
	f.jobEnded(job.Job{Order: job.Order{Kind: job.Enable}, State: job.Done, Timeline: []job.Mark{{State: job.Gating, At: at(0)}, {State: job.Committing, At: at(7)}, {State: job.Done, At: at(9)}}})
	f.jobEnded(job.Job{Order: job.Order{Kind: job.Enable}, State: job.Done, Timeline: []job.Mark{{State: job.Gating, At: time.Unix(0, 0)}, {State: job.Committing, At: at(0)}}}) // the network has set the clock
	f.jobEnded(job.Job{Order: job.Order{Kind: job.Install}, State: job.Failed, Timeline: []job.Mark{{State: job.Gating, At: at(0)}, {State: job.RollingBack, At: at(7)}}})
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	f.cardFailed(t.Context(), nil)
	f.cardFailed(gone, errors.New("cut short"))
	for range 2 {
		f.cardFailed(t.Context(), fault.New(fault.Fault{Code: "port-missing"}, nil))
	}
	f.cardFailed(t.Context(), errors.New("something with 89049032000000000000000000000035 in it"))
	all, text = figuresOf(t, a)
	for _, c := range []struct {
		family, suffix string
		want           float64
		labels         []string
	}{
		{"lpad_jobs_ended", "_total", 2, []string{"card", "a", "kind", "enable", "outcome", "done"}},
		{"lpad_jobs_ended", "_total", 1, []string{"card", "a", "kind", "install"}},
		{"lpad_switch_duration_seconds", "_bucket", 0, []string{"card", "a", "le", "5.0"}},
		{"lpad_switch_duration_seconds", "_bucket", 1, []string{"card", "a", "le", "10.0"}},
		{"lpad_switch_duration_seconds", "_sum", 7, []string{"card", "a"}},
		{"lpad_switch_duration_seconds", "_count", 0, []string{"card", "b"}},
		{"lpad_rollbacks", "_total", 1, []string{"card", "a"}},
		{"lpad_card_errors", "_total", 2, []string{"card", "a", "code", "port-missing"}},
		{"lpad_card_errors", "_total", 1, []string{"card", "a", "code", "internal"}},
	} {
		if got := value(t, all[c.family], c.suffix, c.labels...); got != c.want {
			t.Errorf("%s %q: %g, want %g", c.family, c.labels, got, c.want)
		}
	}
	if strings.Contains(text, "8904") {
		t.Errorf("an identifier is in\n%s", text)
	}
}

// Of many receivers only some are told apart.
func TestQueues(t *testing.T) {
	var list []runner.Waiting
	since := time.Unix(1000, 0)
	for i := range maxReceivers + 5 {
		list = append(list, runner.Waiting{Notification: rsp.Notification{Address: fmt.Sprintf("r%d.example", i)}, Since: since.Add(time.Duration(i) * time.Second)})
	}
	list = append(list, runner.Waiting{Notification: rsp.Notification{Address: "r3.example"}, Since: since}, runner.Waiting{Notification: rsp.Notification{Address: "r3.example"}})
	out := queues(list)
	if len(out) != maxReceivers || out[3].count != 3 || !out[3].since.Equal(since) || out[maxReceivers-1].receiver != "others" || out[maxReceivers-1].count != 6 {
		t.Errorf("%+v", out)
	}
}
