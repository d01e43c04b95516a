package runner

import "time"

// RestoredDue is when a receiver is due after a restart.
func RestoredDue(next, hold, now time.Time, b Backoff) time.Time {
	q := queue{Receivers: map[string]*receiver{"a": {Next: next, Hold: hold}, "b": nil}}
	q.restore(now, b)
	return q.due("a")
}
