package runner_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"lpad/agent/job"
	"lpad/agent/rsp/rsptest/euicc"
	"lpad/agent/rsp/rsptest/smdp"
	"lpad/agent/runner"
	"lpad/internal/redact"
)

// What a server does not take waits, in order, and goes out by itself; a job
// of another kind in between does not make the daemon forget it.
func TestDeliveryInTheBackground(t *testing.T) {
	w := newWorld(t, options{})
	w.smdp.Inject(smdp.Fault{Function: smdp.HandleNotification, Kind: smdp.HTTPError, HTTP: 500})
	w.change = func(c *runner.Config) { c.DeliverRetry = runner.Backoff{First: time.Hour} }
	l := w.live()
	j := l.ends(l.submit(order()).ID, job.Done)
	v := l.View()
	if j.Undelivered != 1 || len(v.Notifications) != 1 || v.NextTry.IsZero() || v.DeliverErr == nil {
		t.Errorf("undelivered %d, waiting %v, next try %v, error %v", j.Undelivered, v.Notifications, v.NextTry, v.DeliverErr)
	}
	named := about(t, job.Nickname, newICCID)
	named.Nickname = "x"
	l.ends(l.submit(named).ID, job.Done)
	if v := l.View(); v.NextTry.IsZero() || len(v.Notifications) != 1 {
		t.Errorf("after another job: next try %v, waiting %v", v.NextTry, v.Notifications)
	}
	if v, err := l.DeliverNow(t.Context()); err != nil || len(v.Notifications) != 1 || v.DeliverErr == nil {
		t.Errorf("delivered now: %v, waiting %v, %v", err, v.Notifications, v.DeliverErr)
	}
	l.stop()

	w.change = nil // in moments from here on
	l = w.live()
	l.ends(l.submit(about(t, job.Enable, newICCID)).ID, job.Done)
	eventually(t, "the server is asked again", func() bool { return len(w.smdp.Calls()) > 8 })
	if got := w.received(); got != "" {
		t.Errorf("received %s", got)
	}
	w.smdp.ClearFaults()
	w.settled()
	eventually(t, "nothing waits", func() bool {
		v := l.View()
		return len(v.Notifications) == 0 && v.NextTry.IsZero() && v.DeliverErr == nil
	})
	if got, want := w.received(), "install 358, disable 341, enable 358"; got != want {
		t.Errorf("received %s, want %s", got, want)
	}
}

// A delivery in the background gives way to an order, and is not counted as a
// failure of the server.
func TestOrderBeforeDelivery(t *testing.T) {
	w := newWorld(t, options{})
	w.smdp.Inject(smdp.Fault{Function: smdp.HandleNotification, Kind: smdp.HTTPError, Times: 1})
	l := w.live()
	w.smdp.Inject(smdp.Fault{Function: smdp.HandleNotification, Kind: smdp.Stall, Times: 1})
	l.ends(l.submit(order()).ID, job.Done)
	eventually(t, "the stalled delivery", func() bool {
		calls := w.smdp.Calls()
		return strings.HasPrefix(calls[len(calls)-1].Outcome, "fault: stall") || len(calls) > 4
	})
	l.ends(l.submit(about(t, job.Enable, newICCID)).ID, job.Done)
	w.settled()
	if got, want := w.received(), "install 358, disable 341, enable 358"; got != want {
		t.Errorf("received %s, want %s", got, want)
	}
}

// Several callers ask for several things at once; each gets what it asked for.
func TestAskingTheCard(t *testing.T) {
	w := newWorld(t, options{})
	w.smdp.Inject(smdp.Fault{Function: smdp.HandleNotification, Kind: smdp.HTTPError, Times: 1})
	w.change = func(c *runner.Config) { c.DeliverRetry = runner.Backoff{First: time.Hour} }
	l := w.live()
	l.ends(l.submit(order()).ID, job.Done)
	resume := w.card.Stall()
	type result struct {
		v   runner.View
		err error
	}
	refreshed, delivered := make(chan result, 3), make(chan result, 3)
	for range 3 {
		go func() { v, err := l.Refresh(context.Background(), 0); refreshed <- result{v, err} }()
		go func() { v, err := l.DeliverNow(context.Background()); delivered <- result{v, err} }()
	}
	gone, cancel := context.WithTimeout(t.Context(), time.Millisecond)
	defer cancel()
	if _, err := l.Refresh(gone, 0); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a caller that does not wait: %v", err)
	}
	resume()
	for range 3 {
		if r := <-refreshed; r.err != nil || len(r.v.Facts.Profiles) != 2 {
			t.Errorf("refreshed: %v, %d profiles", r.err, len(r.v.Facts.Profiles))
		}
		if r := <-delivered; r.err != nil || len(r.v.Notifications) != 0 {
			t.Errorf("delivered: %v, waiting %v", r.err, r.v.Notifications)
		}
	}
	before := w.card.Stats().APDUs
	if v, err := l.Refresh(t.Context(), time.Hour); err != nil || v.FactsAt.IsZero() || w.card.Stats().APDUs != before {
		t.Errorf("what is fresh was read again: %v", err)
	}
	// While a job has the card, what is known is given.
	asks := l.submit(order(asking, func(o *job.Order) { o.MatchingID = "ORDER-2" }))
	w.book("ORDER-2", "89000123456789012366", nil)
	l.until(asks.ID, "under way", func(j job.Job) bool { return j.State != job.Queued })
	if v, err := l.Refresh(t.Context(), 0); err != nil || len(v.Facts.Profiles) != 2 {
		t.Errorf("during a job: %v", err)
	}
	if _, err := l.DeliverNow(t.Context()); err != nil {
		t.Errorf("delivering during a job: %v", err)
	}
}

// A card that is not there when the daemon starts is found later.
func TestCardThatComesLater(t *testing.T) {
	w := newWorld(t, options{})
	w.card.CutPower()
	l := w.live()
	eventually(t, "the card is missed", func() bool { return l.View().CardErr != nil })
	l.ends(l.submit(order()).ID, job.Failed)
	w.card.Reset()
	eventually(t, "the card is found", func() bool { v := l.View(); return v.CardErr == nil && !v.FactsAt.IsZero() })
	l.ends(l.submit(order()).ID, job.Done)
}

// Run returns in time although the card keeps the last command; the command is
// ended by whoever owns the card.
func TestStopIsBounded(t *testing.T) {
	if testing.Short() {
		t.Skip("waits for the whole stop timeout")
	}
	w := newWorld(t, options{})
	l := w.live()
	var resume func()
	w.onStep(job.Loading, func() { resume = w.card.Stall() })
	j := l.submit(order())
	l.state(j.ID, job.Loading)
	began := time.Now()
	l.stop()
	if took := time.Since(began); took < runner.StopTimeout/2 || took > runner.StopTimeout+5*time.Second {
		t.Errorf("stopping took %v", took)
	}
	w.card.CutPower()
	resume()
	w.card.Reset()
	if _, err := l.Submit(t.Context(), order(), redact.Secret{}); err == nil {
		t.Error("a runner that has stopped takes orders")
	} else {
		wantCode(t, err, "stopping")
	}
	l = w.live()
	l.ends(j.ID, job.Done)
}

// A full disk stops jobs, not the daemon. Nothing is done about a decision that
// is not on disk, and everything goes on when there is room again.
func TestFullDisk(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root to mount a small file system")
	}
	w := newWorld(t, options{})
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=64k"); err != nil {
		t.Skipf("no small file system here: %v", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	w.path = filepath.Join(dir, "journal")
	l := w.live()
	t.Cleanup(l.stop) // before the unmounting
	ballast := filepath.Join(dir, "ballast")
	fill := func() {
		t.Helper()
		if err := os.WriteFile(ballast, make([]byte, 64<<10), 0o600); !errors.Is(err, unix.ENOSPC) {
			t.Fatalf("filling the disk: %v", err)
		}
	}
	free := func() {
		t.Helper()
		if err := os.Remove(ballast); err != nil {
			t.Fatal(err)
		}
	}

	asks := l.submit(order(asking, enabling))
	l.state(asks.ID, job.Consent)
	fill()
	// The page that the journal ends in has room for some small records yet.
	var err error
	eventually(t, "an order is refused", func() bool {
		_, err = l.Submit(t.Context(), about(t, job.Nickname, oldICCID), redact.Secret{})
		return err != nil
	})
	wantCode(t, err, "disk-full")
	wantCode(t, l.answer(asks.ID, true, ""), "disk-full")
	if j, _ := l.Job(asks.ID); j.State != job.Consent {
		t.Errorf("state %s without a record", j.State)
	}
	if warnings := l.View().Warnings; len(warnings) != 1 {
		t.Errorf("warnings %q", warnings)
	}
	free()
	filled := make(chan struct{})
	w.onStep(job.Loading, func() { fill(); close(filled) }) // soon after, an outcome finds no room
	if err := l.answer(asks.ID, true, ""); err != nil {
		t.Fatal(err)
	}
	<-filled // until then the warning may be the one of before
	eventually(t, "the disk is missed", func() bool { return len(l.View().Warnings) == 1 })
	stuck, _ := l.Job(asks.ID)
	time.Sleep(200 * time.Millisecond) // several tries
	if j, _ := l.Job(asks.ID); j.State != stuck.State || j.Ended() {
		t.Errorf("without a record the job went from %s to %s", stuck.State, j.State)
	}
	if _, err := l.Refresh(t.Context(), 0); err != nil {
		t.Errorf("the daemon does not answer: %v", err)
	}
	free()
	l.ends(asks.ID, job.Done)
	if w.enabled() != newICCID || len(l.View().Warnings) != 0 {
		t.Errorf("enabled %s, warnings %q", w.enabled(), l.View().Warnings)
	}
	w.settled()
	if got, want := w.received(), "install 358, disable 341, enable 358"; got != want {
		t.Errorf("received %s, want %s", got, want)
	}
}

func TestHub(t *testing.T) {
	w := newWorld(t, options{empty: true})
	l := w.live()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	for e := range l.Watch(ctx, 0) { // the daemon itself has nothing more to tell then
		if e.Text == string(runner.NeedsProvisioning) {
			break
		}
	}
	begin := l.View().LastEvent
	slow := l.Watch(ctx, begin)
	for n := range runner.HubBacklog + 10 {
		l.Publish(runner.Event{Type: "progress", Done: n})
	}
	l.Publish(runner.Event{Type: "job"})
	n := 0
	for e := range slow { // closed before it would miss the job
		if n++; e.Type != "progress" {
			t.Errorf("event %+v", e)
		}
	}
	if n != runner.HubBacklog {
		t.Errorf("%d events before the end", n)
	}
	// Who comes back hears of the job, and not of the progress.
	again := l.Watch(ctx, begin+1)
	if e := <-again; e.Type != "job" || e.ID != l.View().LastEvent {
		t.Errorf("event %+v, latest %d", e, l.View().LastEvent)
	}
	for range 2 * runner.HubMemory {
		l.Publish(runner.Event{Type: "card"})
		<-again
	}
	late := l.Watch(ctx, 0)
	first := <-late
	for range runner.HubMemory - 1 {
		<-late
	}
	if want := l.View().LastEvent - runner.HubMemory + 1; first.ID != want {
		t.Errorf("the oldest event is %d, want %d", first.ID, want)
	}
	for range 3 { // what is remembered is full again
		l.Publish(runner.Event{Type: "card"})
		<-again
	}
	if e := <-l.Watch(ctx, l.View().LastEvent+1000); e.ID != l.View().LastEvent-runner.HubMemory+1 {
		t.Errorf("after an id of another daemon: %d", e.ID)
	}
	fresh := l.Watch(ctx, 1<<63-1)
	l.Publish(runner.Event{Type: "card"})
	if e := <-fresh; e.ID != l.View().LastEvent {
		t.Errorf("of nothing but the new: %d, latest %d", e.ID, l.View().LastEvent)
	}
	cancel()
	for range again {
	}
	for range late {
	}
}

func TestBackoff(t *testing.T) {
	b := runner.Backoff{}.OrDefault()
	for n, want := range map[int]time.Duration{1: 30 * time.Second, 2: time.Minute, 7: 32 * time.Minute, 8: time.Hour, 1000: time.Hour} {
		for range 20 {
			if got := b.After(n); got < want*3/4 || got > want*5/4 {
				t.Errorf("after %d failures: %v, want about %v", n, got, want)
			}
		}
	}
	if b := (runner.Backoff{First: 2 * time.Hour}).OrDefault(); b.Most != 2*time.Hour {
		t.Errorf("most %v", b.Most)
	}
}

// A card that is full, or fails in the middle of the package, says so, and the
// server hears of it.
func TestInstallationRefused(t *testing.T) {
	for _, tc := range []struct {
		name, code string
		card       func(*euicc.Config)
		fault      euicc.Fault
	}{
		{"full", "card-full", func(c *euicc.Config) { c.FreeMemory = 100 }, euicc.Fault{}},
		{"error in the middle", "profile-not-supported", nil, euicc.Fault{Do: euicc.FailLoad, Command: 4, Segment: 2, Result: 12}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			w := newWorld(t, options{card: tc.card})
			if tc.card == nil {
				w.card.Inject(tc.fault)
			}
			l := w.live()
			l.fails(l.submit(order(enabling)).ID, tc.code)
			if w.profiles() != oldICCID || w.enabled() != oldICCID {
				t.Errorf("profiles %s, enabled %s", w.profiles(), w.enabled())
			}
			w.settled()
			if got := w.received(); !strings.HasPrefix(got, "install ") || strings.Contains(got, ",") {
				t.Errorf("received %s", got)
			}
		})
	}
}
