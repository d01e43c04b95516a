package at

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"lpad/internal/fault"
)

// ErrContended means that somebody else reads the same line: each of the two
// gets parts of the answers of the other. It comes beside the error that this
// made, a silence or a damaged answer.
var ErrContended = sentinel("port-contended", "another program uses the AT port at the same time", true, fault.Configuration,
	"give lpad a port of its own: a second AT port, or a udev rule that keeps the other program off this one")

// contention is what speaks for another user of the line. The reader fills it,
// under Conn.mu.
type contention struct {
	recent []string  // names of our last commands: their echo may come late
	inStep bool      // the last command has ended, so nothing of ours is to come
	echoes int       // of commands that are not ours
	finals int       // results of commands, while none of ours runs
	warned time.Time // when it was last written to the log
}

const (
	recentCommands = 8
	// Modems say OK once more now and then (after AT+CFUN=1,1); not for ever.
	strayFinals = 3
	// warnEvery is between two lines in the log about the same neighbour.
	warnEvery = time.Minute
)

// sends notes a command of ours.
func (o *contention) sends(text string) {
	if len(o.recent) == recentCommands {
		o.recent = slices.Delete(o.recent, 0, 1)
	}
	o.recent = append(o.recent, nameOf(text))
}

// hears looks whether a line begins with the echo of a command that is not ours.
func (o *contention) hears(line string) {
	if len(line) > 2 && strings.EqualFold(line[:2], "AT") && extended(line[2:]) && !slices.Contains(o.recent, nameOf(line)) {
		o.echoes++
	}
}

// hearsUnasked looks at a line that comes while no command of ours runs.
func (o *contention) hearsUnasked(line string) {
	if is, _ := final(line, false); is && o.inStep {
		o.finals++
	}
}

// Contended reports whether lines have come that speak for another user of the
// line: echoes of commands that are not ours, or results that nobody of us asked
// for.
func (c *Conn) Contended() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.others.echoes > 0 || c.others.finals >= strayFinals
}

// Blame adds who else uses the line to an error that may come of that: silence,
// or an answer that lost a part, also one that only the caller finds to be so.
// Other errors, and those of a line that seems to be ours alone, are returned as
// they are.
func (c *Conn) Blame(err error) error {
	if err == nil || Refused(err) || errors.Is(err, ErrNoFinal) || errors.Is(err, ErrContended) || errors.Is(err, ErrHangup) || errors.Is(err, ErrClosed) || errors.Is(err, context.Canceled) {
		return err
	}
	who := ""
	if c.owner != nil {
		who = c.owner()
	}
	seen := c.Contended()
	c.mu.Lock()
	warn := (seen || who != "") && time.Since(c.others.warned) > warnEvery
	if warn {
		c.others.warned = time.Now()
	}
	c.mu.Unlock()
	if !seen && who == "" {
		return err
	}
	if warn {
		c.log.Warn("another program uses the AT port", "who", who)
	}
	err = fmt.Errorf("%w: %w", ErrContended, err)
	if who == "" {
		return err
	}
	f := fault.Of(ErrContended)
	f.Text = who + " uses the AT port at the same time"
	return fault.New(f, err)
}
