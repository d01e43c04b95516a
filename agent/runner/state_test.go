package runner_test

import (
	"context"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"lpad/agent/job"
	"lpad/agent/runner"
	"lpad/agent/switchover"
	"lpad/modem"
)

// touched counts what is done to the modem.
type touched struct {
	switchover.Modem
	times *atomic.Int64
}

func (m touched) Gate(ctx context.Context, snapshot []byte) error {
	m.times.Add(1)
	return m.Modem.Gate(ctx, snapshot)
}

func (m touched) Apply(ctx context.Context, iccid string, settings modem.Settings) ([]string, error) {
	m.times.Add(1)
	return m.Modem.Apply(ctx, iccid, settings)
}

func (m touched) Reread(ctx context.Context, iccid string) (string, error) {
	m.times.Add(1)
	return m.Modem.Reread(ctx, iccid)
}

// A card without an enabled profile is a state of its own: it is told, and the
// modem is left alone for as long as it lasts, whatever is looked at or
// installed meanwhile, until a profile is to be enabled.
func TestNeedsProvisioning(t *testing.T) {
	w := newWorld(t, options{empty: true})
	m := touched{w.modem, &atomic.Int64{}}
	w.modem = m
	var mu sync.Mutex
	var told []runner.State
	w.change = func(c *runner.Config) {
		c.OnState = func(s runner.State) {
			mu.Lock()
			defer mu.Unlock()
			told = append(told, s)
		}
	}
	saw := func() []runner.State {
		mu.Lock()
		defer mu.Unlock()
		return slices.Clone(told)
	}
	l := w.live()
	watch, stop := context.WithCancel(t.Context())
	defer stop()
	events := l.Watch(watch, 0)
	eventually(t, "needs-provisioning", func() bool { return l.View().State == runner.NeedsProvisioning })
	for range 20 {
		if _, err := l.Refresh(t.Context(), 0); err != nil {
			t.Fatal(err)
		}
		if _, err := l.DeliverNow(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	w.card.CutPower() // and whatever the card does
	eventually(t, "card-missing", func() bool {
		_, err := l.Refresh(t.Context(), 0)
		return err == nil && l.View().State == runner.CardMissing
	})
	w.card.Reset()
	eventually(t, "needs-provisioning again", func() bool { return l.View().State == runner.NeedsProvisioning })
	l.ends(l.submit(order()).ID, job.Done)
	if s := l.View().State; s != runner.NeedsProvisioning || m.times.Load() != 0 {
		t.Errorf("state %s, modem touched %d times", s, m.times.Load())
	}
	l.ends(l.submit(about(t, job.Enable, newICCID)).ID, job.Done)
	eventually(t, "ready", func() bool { return slices.Contains(saw(), runner.Ready) })
	if m.times.Load() == 0 {
		t.Error("the modem never read the first profile")
	}
	list := saw()
	if list[0] != runner.NeedsProvisioning || list[len(list)-1] != runner.Ready || !slices.Contains(list, runner.Busy) {
		t.Errorf("told %v", list)
	}
	for i, s := range list {
		if i > 0 && list[i-1] == s {
			t.Errorf("told twice in a row: %v", list)
		}
	}
	var first string
	for end := time.After(patience); first == ""; {
		select {
		case e := <-events:
			if e.Type == "state" {
				first = e.Text
			}
		case <-end:
			t.Fatal("no event")
		}
	}
	if first != string(runner.NeedsProvisioning) {
		t.Errorf("the first event says %s", first)
	}
}
