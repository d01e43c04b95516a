package runner_test

import (
	"context"
	"encoding/json"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"lpad/agent/job"
	"lpad/agent/runner"
	"lpad/agent/switchover"
	"lpad/internal/fault"
	"lpad/modem"
)

// held is a back-end that notes whether the modem is held by the gate.
type held struct {
	switchover.Direct
	mu    sync.Mutex
	gated bool
	calls []string
}

func (h *held) note(call string, gated bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.gated, h.calls = gated, append(h.calls, call)
}

func (h *held) last() (string, bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.calls[len(h.calls)-1], h.gated
}

func (h *held) Gate(context.Context, []byte) error {
	h.note("gate", true)
	return nil
}

func (h *held) Reread(ctx context.Context, iccid string) (string, error) {
	h.note("reread", false)
	return h.Direct.Reread(ctx, iccid)
}

func (h *held) Commit(_ context.Context, iccid string) error {
	h.note("commit "+iccid, false)
	return nil
}

func (h *held) Restore(ctx context.Context, s []byte) (modem.Link, error) {
	h.note("restore", false)
	return h.Direct.Restore(ctx, s)
}

// A rollback that is given up leaves the modem to whatever profile the card is
// on: a modem that stays held has no service, and cannot be switched again.
func TestGivenUpRollbackOpensTheGate(t *testing.T) {
	for name, tc := range map[string]struct {
		card string // what is on the card at the end
		last string
	}{
		"on the new profile": {newICCID, "commit " + newICCID},
		"the card is gone":   {"", "commit " + newICCID},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, options{})
			h := &held{Direct: switchover.Direct{Card: resetter{w.card}}}
			w.modem, w.network = h, noNetwork{}
			w.change = func(c *runner.Config) { c.Switch.Settings = h }
			w.onStep(job.RollingBack, w.card.CutPower)
			l := w.live()
			j := l.submit(order(enabling))
			l.until(j.ID, "rolling back in vain", func(j job.Job) bool { return j.RollbackTries > 1 })
			if _, gated := h.last(); !gated {
				t.Error("the gate is open")
			}
			if tc.card != "" {
				w.onStep(job.Notifying, w.card.Reset)
			}
			if _, err := l.Abort(t.Context(), j.ID); err != nil {
				t.Fatal(err)
			}
			l.fails(j.ID, "rollback-failed")
			if last, gated := h.last(); gated || last != tc.last {
				t.Errorf("the last call is %q, gated %v", last, gated)
			}
		})
	}
}

// The first profile of a device was enabled and nobody knew, since the card was
// away: the switch goes on with it as soon as the card says so.
func TestFirstProfileWasEnabledAfterAll(t *testing.T) {
	w := newWorld(t, options{empty: true})
	w.change = func(c *runner.Config) { c.DeadMan = 200 * time.Millisecond }
	var first *life
	ready := make(chan struct{})
	dieAfter(w, func() *life { <-ready; return first }, job.Enabling)
	first = w.live()
	close(ready)
	j := first.submit(order(enabling))
	first.wait()
	w.now = nil
	w.card.CutPower()
	second := w.live()
	second.until(j.ID, "looking for the card in vain", func(j job.Job) bool { return j.RollbackTries > 1 })
	w.change = nil
	w.card.Reset()
	j = second.ends(j.ID, job.Done)
	if w.enabled() != newICCID || !strings.Contains(states(j), "rolling-back (internal), applying") || second.View().Memory.Proven.ICCID.String() != newICCID {
		t.Errorf("enabled %s, proven %s, way %s", w.enabled(), second.View().Memory.Proven.ICCID, states(j))
	}
}

// A rollback that has succeeded is not made a failed one by an abort that comes
// while only the disk does not know of it yet.
func TestAbortBesideAnUnsavedEnd(t *testing.T) {
	dir, fill, free := smallDisk(t)
	w := newWorld(t, options{})
	w.path = filepath.Join(dir, "journal")
	w.network = noNetwork{}
	w.hurry = func(r *runner.Runner) { r.Hurry(time.Hour, time.Hour, 20*time.Millisecond) }
	w.onStep(job.RollingBack, fill)
	l := w.live()
	j := l.submit(order(enabling, func(o *job.Order) { // a record that no room is left for in a page
		o.Parameters = json.RawMessage(`{"x":"` + strings.Repeat("x", 8<<10) + `"}`)
	}))
	eventually(t, "the disk is missed", func() bool { return l.View().JournalErr != nil })
	if _, err := l.Abort(t.Context(), j.ID); fault.Of(err).Code != "disk-full" {
		t.Errorf("an abort that cannot be recorded: %v", err)
	}
	free()
	if _, err := l.Abort(t.Context(), j.ID); err != nil {
		t.Error(err)
	}
	l.fails(j.ID, "no-bearer")
	if w.enabled() != oldICCID {
		t.Errorf("enabled %s", w.enabled())
	}
}
