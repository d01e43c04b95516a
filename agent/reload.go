package agent

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"lpad/agent/rsp/es9p"
	"lpad/agent/runner"
	"lpad/config"
)

// live are the keys that a reload changes, by their beginnings; log.level is the
// program's. All others need a restart.
var live = []string{"log.level", "rsp.trust_dir", "rsp.allow_test_ci", "rsp.notification_retry", "api.", "fleet.", "reports.", "params.", "orders.require"}

// reloadLimit bounds asking the cards' loops for a change.
const reloadLimit = 10 * time.Second

// reloaded is how the last reload went.
type reloaded struct {
	mu      sync.Mutex
	running config.Config // what is in use
	wrong   string        // why the new configuration is not in use; empty: it is
	restart []string      // keys that need a restart
}

// line tells what somebody must know who looks at the status.
func (r *reloaded) line() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	switch {
	case r.wrong != "":
		return "the configuration on the disk is wrong and not in use: " + r.wrong
	case len(r.restart) > 0:
		return "changed, and needs a restart: " + strings.Join(r.restart, ", ")
	}
	return ""
}

// Reload takes a new configuration into use, as far as that can be while lpad
// runs: what a job was begun with stays with it. What needs a restart is told by
// its keys, in the log and in the status. The trust folder is read again in any
// case. On an error everything stays as it was, and that is told too.
func (a *Agent) Reload(ctx context.Context, next config.Config) (err error) {
	ctx, cancel := context.WithTimeout(ctx, reloadLimit)
	defer cancel()
	defer func() {
		if err != nil {
			a.KeepConfiguration(err)
		}
	}()
	a.reloaded.mu.Lock()
	old := a.reloaded.running
	a.reloaded.mu.Unlock()

	trust, err := es9p.NewTrust(es9p.TrustConfig{Dir: next.RSP.TrustDir, AllowTestCI: next.RSP.AllowTestCI})
	if err != nil {
		return fmt.Errorf("trust: %w", err)
	}
	policy, err := policyOf(next.API, a.main)
	if err != nil {
		return err
	}
	var changed, restart []string
	for _, key := range config.Changed(old, next) {
		if slices.ContainsFunc(live, func(begin string) bool { return strings.HasPrefix(key, begin) }) {
			changed = append(changed, key)
		} else {
			restart = append(restart, key)
		}
	}
	for _, u := range a.units {
		atOnce, err := u.runner.Change(ctx, runner.Changes{
			ReportTo:     next.Reports.URL,
			DeliverRetry: runner.Backoff{First: next.RSP.NotificationRetry, Most: next.RSP.NotificationRetryMax},
			Require:      next.Orders.Require,
			Also: func() {
				u.servers.trust = trust
				u.settings.use(next.Params)
				u.reporter.ca = next.Reports.CA
			},
		})
		if err != nil {
			return err
		}
		if !atOnce {
			u.log.Info("the job under way goes on with the configuration of before")
		}
	}
	a.trust.Store(trust)
	a.server.SetPolicy(policy)
	for _, w := range a.trustWarnings() {
		a.main.Warn(w)
	}
	if len(restart) > 0 {
		a.main.Warn("configuration read again; some of it needs a restart", "changed", changed, "needs_restart", restart)
	} else {
		a.main.Info("configuration read again", "changed", changed)
	}
	a.reloaded.mu.Lock()
	running := old
	running.Log.Level, running.API, running.Reports, running.Params = next.Log.Level, next.API, next.Reports, next.Params
	running.Orders.Require = next.Orders.Require
	running.RSP.TrustDir, running.RSP.AllowTestCI = next.RSP.TrustDir, next.RSP.AllowTestCI
	running.RSP.NotificationRetry, running.RSP.NotificationRetryMax = next.RSP.NotificationRetry, next.RSP.NotificationRetryMax
	running.Fleet = next.Fleet
	a.reloaded.running, a.reloaded.wrong, a.reloaded.restart = running, "", restart
	a.reloaded.mu.Unlock()
	a.fleet.reread()
	a.tell(false)
	return nil
}

// KeepConfiguration tells that a new configuration is wrong, and that the one of
// before stays in use.
func (a *Agent) KeepConfiguration(why error) {
	a.main.Error("the new configuration is wrong; the one of before stays in use", "err", why)
	a.reloaded.mu.Lock()
	a.reloaded.wrong = why.Error()
	a.reloaded.mu.Unlock()
	a.tell(false)
}
