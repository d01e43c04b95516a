package at

import (
	"context"
	"log/slog"
	"time"
)

// Waits of the resynchronisation.
const (
	probeWindow    = 2 * time.Second        // for the answer to the first probe; doubled for each further one
	maxProbeWindow = 16 * time.Second       // a modem may be busy with the card for minutes
	quietTime      = 300 * time.Millisecond // without a line: nothing is to come any more
)

// probe is a command whose answer cannot be mistaken for that of another one: a
// late OK looks like any OK, a late "+CMEE:" does not exist.
const probe = "AT+CMEE?"

// resync makes sure that nothing of an earlier command is still to come. A modem
// answers in order, so what precedes the answer to the probe is old. A modem that
// does not know the probe answers ERROR; then a time of quiet must do. The caller
// holds the slot.
func (c *Conn) resync(ctx context.Context) error {
	c.dirty = true
	for window, first := probeWindow, true; ; window, first = min(2*window, maxProbeWindow), false {
		x := newExchange(Request{Text: probe})
		x.probe = true
		err := c.probe(ctx, x, window)
		switch {
		case x.finished && first:
			c.dirty = false
		case x.finished || x.finals > 0: // further answers to further probes, or to an unknown one
			if err := c.drain(ctx); err != nil {
				return err
			}
			c.dirty = false
		case c.Err() != nil:
			return c.Err()
		case ctx.Err() != nil:
			return ended(ctx)
		}
		c.trace(ctx, "resync", slog.Bool("found", !c.dirty), slog.Duration("window", window), slog.Any("err", err))
		if !c.dirty {
			return nil
		}
	}
}

func (c *Conn) probe(ctx context.Context, x *exchange, window time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, window)
	defer cancel()
	err := c.exchange(ctx, x, 0)
	c.dirty = true // only resync knows
	return err
}

// drain throws away what comes until nothing comes for quietTime.
func (c *Conn) drain(ctx context.Context) error {
	quiet := time.NewTimer(quietTime)
	defer quiet.Stop()
	for {
		select {
		case <-c.arrived:
			quiet.Reset(quietTime)
		case <-quiet.C:
			return nil
		case <-ctx.Done():
			return ended(ctx)
		case <-c.done:
			return c.Err()
		}
	}
}
