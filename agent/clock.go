package agent

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"lpad/agent/api"
	"lpad/agent/rsp/es9p"
	"lpad/config"
)

// clock is the time by which certificates are judged: the system's, and for as
// long as that was never set, the modem's, which the network has told. The
// system's own clock is never touched: that is somebody else's business.
type clock struct {
	system func() time.Time
	modem  func(context.Context) (time.Time, error) // nil: there is none to ask, or it must not be
	shared func() bool                              // a question interrupts the network
	log    *slog.Logger

	asked time.Time // with its monotonic part

	*heard
}

// heard is what a modem has told of the time. It is everybody's: the cards of a
// device share it.
type heard struct {
	mu   sync.Mutex
	at   time.Time // the system's time when it was told, with its monotonic part
	told time.Time // zero: it was not
}

// How often a modem is asked for the time, and how long it has to answer. On a
// port that is shared each question interrupts the network.
const (
	clockPause       = 10 * time.Second
	clockPauseShared = 5 * time.Minute
	clockTimeout     = 5 * time.Second
)

func newClock(cfg config.Clock, p Parts) *clock {
	c := &clock{system: time.Now, log: p.Log, heard: &heard{}}
	if cfg.FromModem == "auto" {
		c.modem = p.Clock
	}
	c.shared = p.shares
	return c
}

// between is the pause between two questions to the modem.
func (c *clock) between() time.Duration {
	if c.shared() {
		return clockPauseShared
	}
	return clockPause
}

// now is the time, and where it is from: "system", "modem", or "" when nobody
// knows it.
func (c *clock) now() (time.Time, string) {
	t := c.system()
	if !t.Before(es9p.ClockFloor) {
		return t, "system"
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.told.IsZero() {
		return t, ""
	}
	return c.told.Add(t.Sub(c.at)), "modem"
}

// Now is the best time there is.
func (c *clock) Now() time.Time {
	t, _ := c.now()
	return t
}

// status is the clock as the local socket tells it.
func (c *clock) status() api.Clock {
	t, source := c.now()
	return api.Clock{Now: t.UTC(), Set: source != "", Source: source}
}

// Ready reports whether the time is known. It asks the modem if need be, and
// belongs to the card's goroutine.
func (c *clock) Ready(ctx context.Context) bool {
	if _, source := c.now(); source != "" {
		return true
	}
	now := c.system()
	if c.modem == nil || !c.asked.IsZero() && now.Sub(c.asked) < c.between() {
		return false
	}
	c.asked = now
	ctx, cancel := context.WithTimeout(ctx, clockTimeout)
	defer cancel()
	t, err := c.modem(ctx)
	switch {
	case err != nil:
		c.log.Info("the modem does not tell the time", "err", err)
		return false
	case t.Before(es9p.ClockFloor):
		c.log.Info("the modem's clock is not set either", "shows", t.UTC())
		return false
	}
	c.log.Info("the clock is not set; certificates are judged by the modem's time", "time", t.UTC())
	c.mu.Lock()
	defer c.mu.Unlock()
	c.at, c.told = c.system(), t
	return true
}
