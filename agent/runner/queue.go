package runner

import (
	"encoding/json"
	"slices"
	"sort"
	"time"

	"lpad/agent/job"
	"lpad/agent/rsp"
)

// The card keeps the notifications, and its list is the queue of record:
// nothing of ours can lose one. What the card does not know is kept here and
// in the journal: since when each of them waits, how it stands with each
// receiver, and which ones a person has dropped.

// queueSetting names the queue in the journal, and maxDropped bounds what it
// remembers of notifications that were dropped.
const (
	queueSetting = "notifications"
	maxDropped   = 20
)

// maxHold is the longest that a server's Retry-After is honoured.
const maxHold = 24 * time.Hour

// queue is guarded by Runner.mu. Its times keep their monotonic part within a
// process, so a clock that is set meanwhile moves nothing.
type queue struct {
	EID       string              `json:"eid,omitempty"`
	Seen      map[int64]time.Time `json:"seen,omitempty"` // by sequence number: since when it waits
	Receivers receivers           `json:"receivers,omitempty"`
	Dropped   []Dropped           `json:"dropped,omitempty"` // the oldest first

	changed bool // since it was written to the journal
}

// receiver is how it stands with one server.
type receiver struct {
	Failures int          `json:"failures"`
	Next     time.Time    `json:"next"`          // not before, by our backoff
	Hold     time.Time    `json:"hold,omitzero"` // not before, by its Retry-After
	Problem  *job.Problem `json:"problem"`       // of the last try
}

// receivers are the servers that did not take something the last time.
type receivers map[string]*receiver

// Dropped is a notification that a person has taken off the card without its
// being delivered.
type Dropped struct {
	SeqNumber int64     `json:"seq"`
	Event     string    `json:"event"`
	Address   string    `json:"address"`
	ICCID     rsp.ICCID `json:"iccid,omitzero"`
	By        string    `json:"by"`
	At        time.Time `json:"at"`
	Outcome   string    `json:"outcome,omitempty"` // "dropped", or why it was not; empty: nobody knows, the daemon was killed
}

// Waiting is a notification that waits on the card, with what is known of it.
// Of a report of a job that waits it has the number and, as the address, the
// receiver's host: the rest of it may be secret.
type Waiting struct {
	rsp.Notification
	Job      string       // of a report
	Kind     job.Kind     // of a report
	Outcome  job.Outcome  // of a report
	Since    time.Time    // when it was first seen; zero when the clock was not set
	Failures int          // of its receiver, in a row
	Problem  *job.Problem // of the last try with its receiver; nil: there was none
	NextTry  time.Time    // not before; zero when its receiver has not failed
}

func newQueue() queue { return queue{Seen: map[int64]time.Time{}, Receivers: receivers{}} }

// restore makes sense of what was read from the journal: a clock that stands
// elsewhere now must not make anybody wait for longer than a backoff does.
func (q *queue) restore(now time.Time, b Backoff) {
	if q.Seen == nil {
		q.Seen = map[int64]time.Time{}
	}
	if q.Receivers == nil {
		q.Receivers = receivers{}
	}
	q.Receivers.restore(now, b)
}

func (rs receivers) restore(now time.Time, b Backoff) {
	for address, r := range rs {
		if r == nil {
			delete(rs, address)
			continue
		}
		if left := r.Next.Sub(now); left > b.Most*5/4 { // more than a backoff gives
			r.Next = now.Add(b.after(1))
		} else {
			r.Next = now.Add(max(left, 0))
		}
		if left := r.Hold.Sub(now); left > maxHold || left <= 0 {
			r.Hold = time.Time{}
		} else {
			r.Hold = now.Add(left)
		}
	}
}

// see takes the card's list over: what is new waits from now, what is gone is
// forgotten, and so are receivers for whom nothing waits.
func (q *queue) see(eid string, list []rsp.Notification, now time.Time) {
	if q.EID != eid { // another card has other numbers
		q.EID, q.Seen, q.Receivers, q.changed = eid, map[int64]time.Time{}, receivers{}, true
	}
	var at time.Time // zero for as long as the clock is not set
	if clockSet(now) {
		at = now.UTC().Truncate(time.Second)
	}
	here, wanted := map[int64]bool{}, map[string]bool{}
	for _, n := range list {
		here[n.SeqNumber], wanted[n.Receiver()] = true, true
		if since, known := q.Seen[n.SeqNumber]; !known || since.IsZero() && !at.IsZero() {
			q.Seen[n.SeqNumber], q.changed = at, true
		}
	}
	for seq := range q.Seen {
		if !here[seq] {
			delete(q.Seen, seq)
			q.changed = true
		}
	}
	for address := range q.Receivers {
		if !wanted[address] {
			delete(q.Receivers, address)
			q.changed = true
		}
	}
}

// clockSet reports whether a time can be one at which something happened: this
// program is not older.
func clockSet(now time.Time) bool { return now.Year() >= 2026 }

// due is from when on a receiver may be tried.
func (q *queue) due(address string) time.Time { return q.Receivers.due(address) }

func (rs receivers) due(address string) time.Time {
	r := rs[address]
	if r == nil {
		return time.Time{}
	}
	if r.Hold.After(r.Next) {
		return r.Hold
	}
	return r.Next
}

// failed notes that a receiver did not take a notification.
func (q *queue) failed(address string, err error, retryAfter time.Duration, now time.Time, b Backoff) {
	q.Receivers.failed(address, err, retryAfter, now, b)
	q.changed = true
}

func (rs receivers) failed(address string, err error, retryAfter time.Duration, now time.Time, b Backoff) {
	r := rs[address]
	if r == nil {
		r = &receiver{}
		rs[address] = r
	}
	r.Problem = job.ProblemOf(err)
	r.Failures++
	r.Next, r.Hold = now.Add(b.after(r.Failures)), time.Time{}
	if retryAfter > 0 {
		r.Hold = now.Add(min(retryAfter, maxHold))
	}
}

// served notes that a receiver answers.
func (q *queue) served(address string) {
	if q.Receivers[address] != nil {
		delete(q.Receivers, address)
		q.changed = true
	}
}

// drop notes that a person wants a notification to be given up, and conclude
// what came of it.
func (q *queue) drop(d Dropped) {
	q.Dropped = append(q.Dropped, d)
	if extra := len(q.Dropped) - maxDropped; extra > 0 {
		q.Dropped = q.Dropped[extra:]
	}
	q.changed = true
}

func (q *queue) conclude(d Dropped) {
	for i, other := range slices.Backward(q.Dropped) {
		if other.SeqNumber == d.SeqNumber && other.At.Equal(d.At) {
			q.Dropped[i], q.changed = d, true
			return
		}
	}
}

// next is when the next of a list is due: at the latest of the earliest of its
// receivers. It is zero when one may be tried at once.
func (q *queue) next(list []rsp.Notification) time.Time {
	var first time.Time
	for i, n := range list {
		if at := q.due(n.Receiver()); i == 0 || at.Before(first) {
			first = at
		}
	}
	return first
}

// lines says what is known of each notification of a list.
func (q *queue) lines(list []rsp.Notification) []Waiting {
	out := make([]Waiting, 0, len(list))
	for _, n := range list {
		out = append(out, Waiting{Notification: n, Since: q.Seen[n.SeqNumber]})
		q.Receivers.line(n.Receiver(), &out[len(out)-1])
	}
	return out
}

// line adds how it stands with the receiver.
func (rs receivers) line(address string, w *Waiting) {
	if r := rs[address]; r != nil {
		w.Failures, w.Problem, w.NextTry = r.Failures, r.Problem, rs.due(address).UTC()
	}
}

// group is what waits for one receiver, in order.
type group struct {
	receiver string
	failures int
	list     []rsp.Notification
}

// groups sorts a list by receivers: those that answered the last time first,
// so that nobody waits behind the dead.
func (q *queue) groups(list []rsp.Notification) []group {
	var out []group
	for _, n := range list {
		at := slices.IndexFunc(out, func(g group) bool { return g.receiver == n.Receiver() })
		if at < 0 {
			at = len(out)
			g := group{receiver: n.Receiver()}
			if r := q.Receivers[g.receiver]; r != nil {
				g.failures = r.Failures
			}
			out = append(out, g)
		}
		out[at].list = append(out[at].list, n)
	}
	sort.SliceStable(out, func(i, j int) bool { return out[i].failures < out[j].failures })
	return out
}

// withQueue looks at the queue, or changes it.
func (r *Runner) withQueue(f func(*queue)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	f(&r.queue)
}

// loadQueue reads what the journal knows. What cannot be read is only
// convenience: the card has the notifications.
func (r *Runner) loadQueue() {
	q := newQueue()
	if _, err := r.cfg.Journal.Setting(queueSetting, &q); err != nil {
		r.log.Warn("the journal's memory of the notifications is not readable; it begins anew", "err", err)
		q = newQueue()
	}
	q.restore(r.cfg.Now(), r.cfg.DeliverRetry)
	r.queue = q
}

// saveQueue writes the queue to the journal when it has changed. It belongs to
// the loop, as the journal does.
func (r *Runner) saveQueue() error {
	var text json.RawMessage
	var err error
	r.withQueue(func(q *queue) {
		if q.changed {
			text, err = json.Marshal(q)
			q.changed = false
		}
	})
	if text != nil && err == nil {
		err = r.cfg.Journal.PutSetting(queueSetting, text)
	}
	if err != nil {
		r.withQueue(func(q *queue) { q.changed = true })
	}
	return err
}
