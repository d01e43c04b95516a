package agent

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"lpad/agent/job"
	"lpad/agent/runner"
	"lpad/internal/fault"
)

// What whoever has started lpad is told (sd_notify, see [Host.Notify]): that it
// can be used, how it goes, that it is alive, that it ends.
const (
	// readyLimit is how long the first look at the cards may keep lpad from being
	// ready: a card that is missing, or slow, must not keep a technician from
	// asking why.
	readyLimit = 30 * time.Second

	// watchInterval is between two looks whether everything is alive, where nobody
	// asks for it in other intervals. Each look may take twice as long.
	watchInterval = 15 * time.Second

	// abortAfter is how long whoever has started lpad has for ending it, when it
	// was told that lpad hangs.
	abortAfter = 5 * time.Second

	maxStatus = 250 // bytes of the status line
)

// attend tells how it goes until ctx ends.
func (a *Agent) attend(ctx context.Context) {
	limit := time.NewTimer(readyLimit)
	defer limit.Stop()
	for ctx.Err() == nil {
		after := a.units[0].runner.View().LastEvent
		a.tell(false)
		a.fleet.look()                                                      // also at what a watcher that was too slow has missed
		for events := a.units[0].runner.Watch(ctx, after); events != nil; { // of all cards
			select {
			case <-ctx.Done():
				return
			case <-limit.C:
				a.tell(true)
			case e, open := <-events:
				switch {
				case !open: // too slow: look again
					events = nil
				case e.Type != "progress":
					a.tell(false)
					a.fleet.look()
				}
			}
		}
	}
}

// tell says how it goes, if that is news, and once that lpad is ready: when every
// card was looked at, whatever came of it, or when that takes too long.
func (a *Agent) tell(late bool) {
	a.telling.Lock()
	defer a.telling.Unlock()
	text, looking := a.statusLine()
	message := ""
	if !a.ready && (late || !looking) {
		a.ready = true
		a.main.Info("ready", "version", a.host.Version, "cards", len(a.units), "status", text)
		message = "READY=1\n"
	}
	if text != a.told || message != "" {
		a.told = text
		a.notify(message + "STATUS=" + text)
	}
}

// statusLine is how it goes, in a line. It has no identifiers: everybody may read
// it. looking reports that a card was not looked at yet.
func (a *Agent) statusLine() (text string, looking bool) {
	parts := make([]string, len(a.units))
	for i, u := range a.units {
		v := u.runner.View()
		looking = looking || v.State == runner.Starting && v.CardErr == nil
		parts[i] = cardLine(&v)
		if len(a.units) > 1 {
			parts[i] = u.cfg.Name + ": " + parts[i]
		}
	}
	text = strings.Join(parts, "; ")
	if s := a.reloaded.line(); s != "" {
		text += "; " + s
	}
	if len(text) > maxStatus {
		text = strings.ToValidUTF8(text[:maxStatus], "") + "…"
	}
	return strings.ReplaceAll(text, "\n", " "), looking
}

// cardLine is how it goes with one card.
func cardLine(v *runner.View) string {
	var line string
	var active *job.Job
	waiting := 0
	for i := range v.Jobs {
		switch j := &v.Jobs[i]; {
		case j.ID == v.Active:
			active = j
		case !j.Ended():
			waiting++
		}
	}
	switch {
	case active != nil:
		line = fmt.Sprintf("%s: %s (step %d of 10)", active.Order.Kind, active.State, active.State.Number())
	case v.State == runner.CardMissing:
		line = "no card: " + fault.Of(v.CardErr).Text
	case v.State == runner.Starting:
		line = "looking for the card"
	case v.State == runner.NeedsProvisioning:
		line = "no profile is enabled, waiting for an order"
	default:
		line = string(v.State)
	}
	if active != nil && v.CardErr != nil {
		line += ", no card: " + fault.Of(v.CardErr).Text
	}
	for _, n := range []struct {
		count int
		what  string
	}{{waiting, "jobs"}, {len(v.Queue), "notifications"}, {len(v.Reports), "reports"}} {
		if n.count > 0 {
			line += fmt.Sprintf(", %s waiting: %d", n.what, n.count)
		}
	}
	if v.JournalErr != nil {
		line += ", " + fault.Of(v.JournalErr).Text
	}
	return line
}

// watch looks whether every card's loop and goroutine are alive, and says so, a
// few times as often as it is wanted. Once one hangs, nothing will make it go on:
// then lpad ends itself, and whoever has started it starts it anew. The journal
// knows where it was.
func (a *Agent) watch(ctx context.Context) {
	interval := watchInterval
	if a.host.Watchdog > 0 {
		interval = a.host.Watchdog / 4
	}
	tick := time.NewTicker(interval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		err := a.alive(ctx, 2*interval)
		switch {
		case ctx.Err() != nil: // it is stopping, which is bounded otherwise
			return
		case err == nil && a.host.Watchdog > 0:
			a.notify("WATCHDOG=1")
		case err != nil:
			a.hung(ctx, err)
			return
		}
	}
}

// alive asks all cards at the same time.
func (a *Agent) alive(ctx context.Context, limit time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	errs := make([]error, len(a.units))
	var asked sync.WaitGroup
	for i, u := range a.units {
		asked.Go(func() {
			if err := u.runner.Alive(ctx); err != nil {
				errs[i] = fmt.Errorf("card %s: %w", u.cfg.Name, err)
			}
		})
	}
	asked.Wait()
	return errors.Join(errs...)
}

// hung ends lpad, by systemd's watchdog if that is there.
func (a *Agent) hung(ctx context.Context, err error) {
	a.main.Error("lpad hangs and is ended, to be started anew", "err", err)
	status := "STATUS=hung: " + strings.ReplaceAll(err.Error(), "\n", "; ")
	if a.host.Watchdog > 0 {
		a.notify(status + "\nWATCHDOG=trigger")
		select {
		case <-ctx.Done():
			return
		case <-time.After(abortAfter):
		}
	}
	if a.host.Abort != nil {
		a.host.Abort()
	}
}
