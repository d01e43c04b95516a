package runner

import "time"

// Hurry shortens the pauses before something is tried again.
func (r *Runner) Hurry(journal, card, resume time.Duration) {
	r.retries = retries{journal: journal, card: card, resume: resume, action: resume, beforeSwitch: switchLimit, schedule: resume}
}

// Doors to what tests look at from outside.
const (
	HubBacklog = hubBacklog
	HubMemory  = hubMemory
	MaxQueue   = maxQueue
	MaxReports = maxReports
)

// Publish tells all watchers.
func (r *Runner) Publish(e Event) { r.hub.publish(e) }

// OrDefault is the backoff as a runner uses it, After its pause.
func (b Backoff) OrDefault() Backoff { return b.orDefault() }

// After is the pause after n failures.
func (b Backoff) After(n int) time.Duration { return b.after(n) }

// HurrySwitch shortens how long a switch waits for the delivery before it.
func (r *Runner) HurrySwitch(d time.Duration) { r.retries.beforeSwitch = d }
