package modemtest

import (
	"context"
	"slices"
	"time"
)

// Delays make the modem as slow as a real one. Zero means at once. What a
// dialect's kind takes stands in Dialect.Delays, to be copied here by whoever
// wants it.
type Delays struct {
	Command      time.Duration // before every answer
	SIM          time.Duration // from power on to a readable SIM
	Registration time.Duration // from SIM ready to registered
	Activation   time.Duration // of a context
	Refresh      time.Duration // from a 91xx to the FETCH of the proactive command
	Boot         time.Duration // of a reset that hangs the ports up, until they are back
}

// Scale multiplies every delay.
func (d Delays) Scale(by float64) Delays {
	for _, p := range []*time.Duration{&d.Command, &d.SIM, &d.Registration, &d.Activation, &d.Refresh, &d.Boot} {
		*p = time.Duration(float64(*p) * by)
	}
	return d
}

// Delay is a spell in which the modem took its time, as [Delays] told it.
type Delay struct {
	Moment string // the field of [Delays]: "SIM", "Boot"; or "Answer", until a modem that has answered goes down
	Begin  time.Time
	End    time.Time // zero while it goes on
}

// delay lets d pass and remembers it. It reports false when ctx ended first.
func (m *Modem) delay(ctx context.Context, moment string, d time.Duration) bool {
	if d <= 0 {
		return ctx.Err() == nil
	}
	m.mu.Lock()
	at := len(m.delays)
	if at < maxLogEntries {
		m.delays = append(m.delays, Delay{Moment: moment, Begin: time.Now()})
	}
	m.mu.Unlock()
	passed := pause(ctx, d)
	m.mu.Lock()
	defer m.mu.Unlock()
	if at < maxLogEntries {
		m.delays[at].End = time.Now()
	}
	return passed
}

// Delays lists the delays so far in the order in which they began. Trouble that
// was ordered by [Modem.AddFault] and the card's own time are not among them.
func (m *Modem) Delays() []Delay {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Clone(m.delays)
}

// DelayBetween is how much of the time between two moments passed in delays of
// the modem's own; delays at the same time count once. It is what a host cannot
// help: the rest is the host's, the card's and the managers'.
func (m *Modem) DelayBetween(from, to time.Time) time.Duration {
	var sum time.Duration
	for _, d := range m.Delays() { // sorted by Begin
		end := d.End
		if end.IsZero() || end.After(to) {
			end = to
		}
		if d.Begin.After(from) {
			from = d.Begin
		}
		if end.After(from) {
			sum += end.Sub(from)
			from = end
		}
	}
	return sum
}
