package runner_test

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"lpad/agent/job"
	"lpad/agent/journal"
	"lpad/agent/runner"
	"lpad/agent/switchover"
	"lpad/internal/fault"
	"lpad/modem"
)

// desk is a runner.Reporter and its receivers.
type desk struct {
	mu    sync.Mutex
	fail  map[string]error // by receiver
	after time.Duration    // what failing receivers ask for
	calls map[string]int
	got   []received
	hold  func(ctx context.Context) // in each call
	then  func()                    // when one was received, before the daemon knows
	links []string
}

type received struct {
	to, key string
	runner.Report
}

const (
	deskOne = "https://one.example/secret-path"
	deskTwo = "https://two.example/"
)

func newDesk(w *world) *desk {
	d := &desk{fail: map[string]error{}, calls: map[string]int{}}
	w.change = func(c *runner.Config) { c.Reporter, c.ReportTo = d, deskOne }
	return d
}

func (d *desk) About() runner.About {
	return runner.About{IMEI: "490154203237518", Backend: "none", Clock: "system"}
}

func (d *desk) Report(ctx context.Context, to, key string, body []byte, link modem.Link) (time.Duration, error) {
	d.mu.Lock()
	hold, then := d.hold, d.then
	d.mu.Unlock()
	if hold != nil {
		hold(ctx)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.calls[to]++
	d.links = append(d.links, link.Interface)
	if err := ctx.Err(); err != nil {
		return 0, err
	}
	if err := d.fail[to]; err != nil {
		return d.after, err
	}
	r := received{to: to, key: key}
	if err := json.Unmarshal(body, &r.Report); err != nil {
		return 0, err
	}
	d.got = append(d.got, r)
	if then != nil {
		d.then = nil
		then()
	}
	return 0, nil
}

func (d *desk) set(f func()) {
	d.mu.Lock()
	defer d.mu.Unlock()
	f()
}

// reports waits for n reports and returns them.
func (d *desk) reports(t *testing.T, n int) []received {
	t.Helper()
	var list []received
	eventually(t, fmt.Sprintf("%d reports", n), func() bool {
		d.mu.Lock()
		defer d.mu.Unlock()
		list = slices.Clone(d.got)
		return len(list) >= n
	})
	return list
}

var errDesk = fault.New(fault.Fault{Code: "report-receiver-unavailable", Text: "down", Retry: true, Who: fault.Operator}, nil)

// Each end of a job is told, once, with what the receiver needs and no secret.
func TestReports(t *testing.T) {
	w := newWorld(t, options{})
	d := newDesk(w)
	w.network = noNetwork{}
	l := w.live()
	failed := l.fails(l.submit(order(enabling)).ID, "no-bearer")
	l.ends(l.submit(about(t, job.Delete, newICCID)).ID, job.Done)
	w.book("ORDER-2", spareICCID, nil)
	asks := l.submit(order(asking, func(o *job.Order) { o.MatchingID, o.ReportTo = "ORDER-2", deskTwo }))
	l.state(asks.ID, job.Consent)
	queued := l.submit(about(t, job.Nickname, oldICCID))
	if _, err := l.Abort(t.Context(), queued.ID); err != nil { // its turn never came
		t.Fatal(err)
	}
	if _, err := l.Abort(t.Context(), asks.ID); err != nil {
		t.Fatal(err)
	}
	got := d.reports(t, 4)
	var lines []string
	for _, r := range got {
		line := fmt.Sprintf("%s %d %s %s", r.to, r.Seq, r.Kind, r.Outcome)
		if r.Fault != nil {
			line += " " + r.Fault.Code
		}
		lines = append(lines, line)
	}
	slices.Sort(lines)
	if want := []string{deskOne + " 1 install rolled-back no-bearer", deskOne + " 2 delete done", deskOne + " 3 nickname cancelled", deskTwo + " 1 install cancelled"}; !slices.Equal(lines, want) {
		t.Errorf("reports\n%s", strings.Join(lines, "\n"))
	}
	r := got[0]
	if r.Version != 1 || r.EID == "" || r.IMEI == "" || r.Job != failed.ID || r.Clock != "system" || r.Started.IsZero() || !r.Ended.After(r.Started) ||
		r.Fault.Who != fault.Operator || r.Fault.State != job.Verifying || r.ICCID != newICCID || r.Previous != oldICCID || r.Backend != "none" || r.key == "" {
		t.Errorf("report %+v", r)
	}
	if text, err := json.Marshal(got); err != nil || strings.Contains(string(text), matching) || strings.Contains(string(text), "secret-path") {
		t.Errorf("%v: a secret in %s", err, text)
	}
	eventually(t, "nothing waits", func() bool { return len(l.View().Reports) == 0 })
}

// A dead receiver blocks itself and nobody else; what waits outlives the daemon,
// and goes in order.
func TestReportsWait(t *testing.T) {
	w := newWorld(t, options{})
	d := newDesk(w)
	change := w.change
	w.change = func(c *runner.Config) {
		change(c)
		c.DeliverRetry = runner.Backoff{First: time.Hour, Most: 2 * time.Hour}
	}
	d.fail[deskOne] = errDesk
	l := w.live()
	rename := func(to string) string {
		o := about(t, job.Nickname, oldICCID)
		o.ReportTo = to
		return l.ends(l.submit(o).ID, job.Done).ID
	}
	first := rename("")
	eventually(t, "a try", func() bool { return len(l.View().Reports) == 1 && l.View().Reports[0].Failures == 1 })
	second := rename("")
	other := rename(deskTwo)
	if got := d.reports(t, 1); got[0].to != deskTwo || got[0].Job != other || got[0].Seq != 1 {
		t.Errorf("got %+v", got)
	}
	eventually(t, "two wait", func() bool { return len(l.View().Reports) == 2 })
	v := l.View().Reports
	if v[0].Job != first || v[1].Job != second || v[0].SeqNumber != 1 || v[1].SeqNumber != 2 || v[0].Address != "one.example" || v[0].Since.IsZero() ||
		v[1].Problem == nil || v[1].Problem.Code != "report-receiver-unavailable" || time.Until(v[0].NextTry) < 40*time.Minute {
		t.Errorf("waiting %+v", v)
	}
	l.stop()

	l = w.live()
	if got := l.View().Reports; len(got) != 2 || got[0].Failures != 1 || time.Until(got[0].NextTry) < 40*time.Minute || d.calls[deskOne] != 1 {
		t.Errorf("after a restart: %+v, %d calls", got, d.calls[deskOne])
	}
	wantCode(t, l.ReplayReport(t.Context(), second), "report-receiver-unavailable")
	wantCode(t, l.ReplayReport(t.Context(), "none"), "not-found")
	d.set(func() { d.fail[deskOne] = nil })
	if err := l.ReplayReport(t.Context(), second); err != nil || len(l.View().Reports) != 0 {
		t.Errorf("replayed: %v, %+v", err, l.View().Reports)
	}
	if got := d.reports(t, 3); got[1].Job != first || got[2].Job != second {
		t.Errorf("order: %+v", got)
	}

	// Refused for good: kept, with the longest pause, and droppable.
	d.set(func() {
		d.fail[deskOne] = fault.New(fault.Fault{Code: runner.CodeReportRefused, Text: "no", Who: fault.Operator}, nil)
	})
	third := rename("")
	eventually(t, "refused", func() bool { v := l.View().Reports; return len(v) == 1 && v[0].Problem != nil })
	if v := l.View().Reports[0]; time.Until(v.NextTry) < 119*time.Minute || v.Problem.Code != runner.CodeReportRefused || v.SeqNumber != 3 {
		t.Errorf("refused: %+v", v)
	}
	if err := l.DropReport(t.Context(), third, "uid 0"); err != nil {
		t.Fatal(err)
	}
	wantCode(t, l.DropReport(t.Context(), third, "uid 0"), "not-found")
	l.stop()
	l = w.live()
	if v := l.View(); len(v.Reports) != 0 {
		t.Errorf("dropped: %+v", v.Reports)
	}
	// A receiver that asks to be left alone is.
	d.set(func() { d.fail[deskOne], d.after = errDesk, 5*time.Hour })
	rename("")
	eventually(t, "asked", func() bool { v := l.View().Reports; return len(v) == 1 && v[0].Problem != nil })
	if v := l.View().Reports[0]; time.Until(v.NextTry) < 4*time.Hour || v.SeqNumber != 4 {
		t.Errorf("asked to wait: %+v", v)
	}
}

// At most so many wait; the oldest goes, and that is told.
func TestReportsAreBounded(t *testing.T) {
	w := newWorld(t, options{})
	d := newDesk(w)
	change := w.change
	w.change = func(c *runner.Config) { change(c); c.DeliverRetry = runner.Backoff{First: time.Hour, Most: time.Hour} }
	d.fail[deskOne] = errDesk
	l := w.live()
	watch, stop := context.WithTimeout(t.Context(), 5*time.Second)
	defer stop()
	var ids []string
	for range runner.MaxReports + 2 {
		ids = append(ids, l.ends(l.submit(about(t, job.Nickname, oldICCID)).ID, job.Done).ID)
	}
	v := l.View()
	if len(v.Reports) != runner.MaxReports || v.ReportsLost != 2 || v.Reports[0].Job != ids[2] || v.Reports[0].SeqNumber != 3 {
		t.Errorf("%d wait, %d lost, the first %+v", len(v.Reports), v.ReportsLost, v.Reports[0])
	}
	told := 0
	for e := range l.Watch(watch, 0) {
		if e.Type == "report" && strings.Contains(e.Text, "given up") {
			if told++; told == 2 {
				break
			}
		}
	}
	if told != 2 {
		t.Errorf("told %d times", told)
	}
	l.stop()
	l = w.live()
	if v := l.View(); len(v.Reports) != runner.MaxReports || v.ReportsLost != 2 {
		t.Errorf("after a restart %d wait, %d lost", len(v.Reports), v.ReportsLost)
	}
}

// Whenever the daemon is killed, a report of each job's end is sent at least
// once, with the same number and key, and none of a job that has not ended.
func TestReportsSurviveAKill(t *testing.T) {
	t.Run("at every record", func(t *testing.T) {
		w := newWorld(t, options{})
		d := newDesk(w)
		d.hold = func(ctx context.Context) { <-ctx.Done() }
		l := w.live()
		j := l.ends(l.submit(about(t, job.Nickname, oldICCID)).ID, job.Done)
		l.stop()
		whole, err := os.ReadFile(w.path)
		if err != nil {
			t.Fatal(err)
		}
		dir, unfinished := t.TempDir(), 0
		for n := 16; n <= len(whole); { // the records, as the journal's package comment has them
			w.path = filepath.Join(dir, fmt.Sprint(n))
			if err := os.WriteFile(w.path, whole[:n], 0o600); err != nil {
				t.Fatal(err)
			}
			at := n
			if n++; n < len(whole) {
				n += 11 + int(binary.LittleEndian.Uint32(whole[at:]))
			}
			jr, err := journal.Open(w.path, journal.Options{})
			if err != nil {
				t.Fatal(err)
			}
			was, there := jr.Job(j.ID)
			torn, waits := jr.Torn(), len(jr.SettingKeys("report/"))
			if err := jr.Close(); err != nil {
				t.Fatal(err)
			}
			if torn > 0 || !there {
				continue
			}
			if !was.Ended() && waits > 0 {
				unfinished++
			}
			d := newDesk(w)
			l := w.live()
			l.ends(j.ID, job.Done)
			if got := d.reports(t, 1); len(got) != 1 || got[0].Job != j.ID || got[0].Seq != 1 || got[0].Outcome != job.OutcomeDone {
				t.Errorf("killed at byte %d: got %+v", at, got)
			}
			l.stop()
		}
		if unfinished != 1 {
			t.Errorf("%d records between the report and the end", unfinished)
		}
	})
	t.Run("while it is sent", func(t *testing.T) {
		w := newWorld(t, options{})
		d := newDesk(w)
		l := w.live()
		d.set(func() { d.hold = func(ctx context.Context) { l.cancel(); <-ctx.Done() } })
		j := l.submit(about(t, job.Nickname, oldICCID))
		l.wait()
		if v := l.View().Reports; len(v) != 1 || v[0].Failures != 0 {
			t.Errorf("stopping is not failing: %+v", v)
		}
		d.set(func() { d.hold = nil })
		l = w.live()
		if got := d.reports(t, 1); got[0].Job != j.ID || got[0].Seq != 1 {
			t.Errorf("got %+v", got)
		}
	})
	t.Run("when it was received", func(t *testing.T) {
		w := newWorld(t, options{})
		d := newDesk(w)
		l := w.live()
		d.set(func() { d.then = l.cancel })
		l.submit(about(t, job.Nickname, oldICCID))
		l.wait()
		l = w.live()
		if got := d.reports(t, 2); got[0].key != got[1].key || got[0].Seq != 1 || got[1].Seq != 1 {
			t.Errorf("got %+v", got)
		}
		l.ends(l.submit(about(t, job.Nickname, oldICCID)).ID, job.Done)
		if got := d.reports(t, 3); got[2].Seq != 2 || got[2].key == got[0].key {
			t.Errorf("got %+v", got)
		}
	})
}

// While the clock is not set nothing is judged, and nobody has failed.
func TestReportsWaitForTheClock(t *testing.T) {
	w := newWorld(t, options{})
	d := newDesk(w)
	d.fail[deskOne] = runner.ErrClockNotSet
	l := w.live()
	l.ends(l.submit(about(t, job.Nickname, oldICCID)).ID, job.Done)
	eventually(t, "tries", func() bool { d.mu.Lock(); defer d.mu.Unlock(); return d.calls[deskOne] > 2 })
	if v := l.View().Reports; len(v) != 1 || v[0].Failures != 0 {
		t.Errorf("waiting %+v", v)
	}
	d.set(func() { d.fail[deskOne] = nil })
	d.reports(t, 1)
}

// The first try leaves over the network that the report tells of, the others as
// the device routes them.
func TestReportOverTheNewLink(t *testing.T) {
	w := newWorld(t, options{})
	w.network = linked{switchover.Direct{Card: resetter{w.card}}}
	d := newDesk(w)
	d.fail[deskOne] = errDesk
	l := w.live()
	l.ends(l.submit(order(enabling)).ID, job.Done)
	eventually(t, "two tries", func() bool { d.mu.Lock(); defer d.mu.Unlock(); return len(d.links) > 1 })
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.links[0] != "lpad-none0" || d.links[1] != "" {
		t.Errorf("links %q", d.links)
	}
}

// linked is a network that comes up on an interface.
type linked struct{ switchover.Direct }

func (linked) Connect(context.Context, string) (modem.Link, error) {
	return modem.Link{Interface: "lpad-none0"}, nil
}
