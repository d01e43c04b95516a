package atmodem

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"time"

	"lpad/modem/at"
	"lpad/modem/quirks"
)

// Rungs of the ladder that a re-read climbs, cheapest first.
const (
	RungRefresh     = string(quirks.RungRefresh)     // the modem followed by itself
	RungCFUN01      = string(quirks.RungCFUN01)      // the SIM was powered off and on
	RungCFUN41      = string(quirks.RungCFUN41)      // where AT+CFUN=0 is refused
	RungCFUN11      = string(quirks.RungCFUN11)      // the modem was restarted
	RungVendorReset = string(quirks.RungVendorReset) // by the vendor's own command
)

// Bounds of the rungs that the quirks do not set.
var rungTimes = map[quirks.Rung]time.Duration{
	quirks.RungCFUN01:      30 * time.Second,
	quirks.RungCFUN41:      20 * time.Second,
	quirks.RungCFUN11:      90 * time.Second, // the port may be away for half a minute
	quirks.RungVendorReset: 2 * time.Minute,
}

// Other times of the ladder.
const (
	ladderTime  = 5 * time.Minute        // of all rungs, when the context has no deadline
	refreshTime = 3 * time.Second        // for a modem that is known to follow by itself; EG25 and EG916Q take 2 s
	keptTime    = 4 * time.Second        // for a modem that is on again with the old profile, as if nothing had happened
	keptOnTime  = 500 * time.Millisecond // the same, if its SIM was ready even while it was off: then it had its power all the time
	followTime  = 20 * time.Second       // for a modem that has begun to read the SIM again by itself
	backTime    = 45 * time.Second       // for a port that is away when the climb begins
	proofTime   = 5 * time.Second        // for a proof, once the ICCID is right
	fallTime    = 3 * time.Second        // from the OK to a reset until the modem goes down
	powerUpTime = 60 * time.Second       // for switching on again, over a port that went away
)

// Ladder makes a modem read its SIM again, by the cheapest means that works.
//
//	c, err := atmodem.Ladder{Line: line}.Reread(ctx, iccid)
//
// Its rungs are those of the modem's quirks: to wait for the modem itself, to
// switch the SIM off and on, to restart the modem, and the vendor's reset. Each is
// bounded, one that the modem refuses is passed over, and after each the modem is
// asked what it shows.
//
// # What counts as proof
//
// That the modem shows the right ICCID is not enough: on some modems the command
// for it reads the file on the card, which is the new one from the moment of the
// switch, while everything else in the modem is still the old profile. So one of
// these must be seen as well, since the card was touched:
//
//   - the same command showed another ICCID first, when the card had switched
//     already: then it tells what the modem has read. (AT+CRSM, which reads the
//     file by definition, never counts.)
//   - the SIM was away: AT+CPIN said that it is not inserted or not ready.
//   - a message of the modem that tells of a changed SIM (+QUSIM, #QSS, ^SCKS …).
//   - the modem restarted: its port hung up, or it said so.
//   - the IMSI is that of the profile, or, of one that was never seen before,
//     another one than before.
//
// If it cannot be told, the next rung is taken. A modem on which nothing of that
// can ever be seen is believed at the top of the ladder, if it has carried out a
// rung that takes the power from the SIM, and the log has a warning.
type Ladder struct {
	// Line gives the modem on a line that lives, and opens it if it does not;
	// anew, even if it seems to live, after a reset. An error is waited out
	// within the bound of a rung: the modem may be on its way back.
	Line func(ctx context.Context, anew bool) (*Modem, error)
	// Best is the rung that worked the last time: it is taken first, after a look
	// whether the modem has followed by itself. "" begins at the bottom.
	Best quirks.Rung
	// Switched, if not nil, is told before the modem is switched off, and when it
	// is on again.
	Switched func(off bool)
	Log      *slog.Logger // nil: none
}

// Climb is what became of a re-read.
type Climb struct {
	Rung  quirks.Rung // that worked, or with an error the last one that was tried
	Proof string      // why the modem is believed to have read the SIM: "iccid", "sim-gone", "message", "restart", "imsi", "known"; "" is none
	Tried []Attempt   // every rung, in order
	// Learnt says that the rung has changed what the modem shows, so that it is
	// worth to be remembered.
	Learnt bool
}

// Attempt is one rung.
type Attempt struct {
	Rung quirks.Rung
	Took time.Duration
	Err  error // nil: it worked
}

// errRefused: the modem does not know the rung.
var errRefused = errors.New("refused by the modem")

// errOther: it shows another profile.
var errOther = fmt.Errorf("another ICCID: %w", ErrOldSIM)

// errUnproven: it shows the right ICCID, and it cannot be told whether it has
// read the SIM.
var errUnproven = fmt.Errorf("it cannot be told whether the modem has read the SIM: %w", ErrOldSIM)

// Reread makes the modem read the SIM again and waits until it shows the profile
// with this ICCID (digits; an F at the end does not count) and the SIM is ready,
// until the end of ctx (five minutes if it has none). ErrOldSIM means that no
// rung did it, at.ErrLocked that the profile waits for its PIN.
//
// The modem is switched on again on return, even if ctx is over, unless its port
// stays away: then Switched was told of off and not of on.
func (l Ladder) Reread(ctx context.Context, iccid string) (Climb, error) {
	want, err := parseICCID(iccid)
	if err != nil {
		return Climb{}, fmt.Errorf("re-read SIM: %w", err)
	}
	if _, ok := ctx.Deadline(); !ok {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, ladderTime)
		defer cancel()
	}
	c := newClimb(l, want)
	defer c.end()
	if err := c.climb(ctx); err != nil {
		return c.Climb, fmt.Errorf("re-read SIM: %w", err)
	}
	return c.Climb, nil
}

// PowerCycle takes the power from the SIM and gives it back, whatever profile it
// shows, and waits until it is ready, until the end of ctx (60 s if it has
// none). A card that is stuck in a toolkit session begins anew. The modem looks
// for a network again afterwards.
func (l Ladder) PowerCycle(ctx context.Context) error {
	ctx, cancel := deadline(ctx, waitTime)
	defer cancel()
	c := newClimb(l, "")
	defer c.end()
	err := c.cycle(ctx, Minimum)
	if errors.Is(err, errRefused) {
		err = c.cycle(ctx, Airplane)
	}
	if err == nil {
		err = c.poll(ctx, func(m *Modem) error { return m.simReady(ctx) })
	}
	if err != nil {
		return fmt.Errorf("power-cycle SIM: %w", err)
	}
	return nil
}

// After sends the commands that a modem needs after a switch, one after the other,
// and waits until it shows the profile again: some of them restart it. What the
// modem refuses is no error, for the next command may do.
func (l Ladder) After(ctx context.Context, iccid string, commands []string) error {
	want, err := parseICCID(iccid)
	if err != nil {
		return fmt.Errorf("after the switch: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, rungTimes[quirks.RungCFUN11])
	defer cancel()
	c := newClimb(l, want)
	defer c.end()
	for _, cmd := range commands {
		if strings.HasPrefix(strings.ToUpper(cmd), "AT+CFUN=") {
			err = c.reset(ctx, cmd)
		} else {
			err = c.poll(ctx, func(m *Modem) error {
				_, err := m.conn.Command(ctx, cmd)
				if at.Refused(err) {
					return &finalError{err}
				}
				return err
			})
		}
		if err != nil {
			l.log().Warn("the modem refuses what it needs after a switch", "command", cmd, "err", err)
		}
		if ctx.Err() != nil {
			return fmt.Errorf("after the switch: %w", ctx.Err())
		}
	}
	err = c.poll(ctx, func(m *Modem) error {
		if err := c.look(ctx, m); !errors.Is(err, errUnproven) || !c.down.IsZero() && !c.since && !c.fell {
			return err
		}
		return nil
	})
	if err == nil {
		err = c.settle(ctx)
	}
	if err != nil {
		return fmt.Errorf("after the switch: %w", err)
	}
	return nil
}

func (l Ladder) log() *slog.Logger {
	if l.Log == nil {
		return slog.New(slog.DiscardHandler)
	}
	return l.Log
}

// Reread is [Ladder.Reread] on a line that nobody can open again: at.ErrHangup
// when it hangs up. Then open the port again and call Reread of the new Modem,
// with the memory of this one: it finds the modem switched off and goes on from
// there.
func (m *Modem) Reread(ctx context.Context, iccid string) (rung string, err error) {
	c, err := Ladder{Line: m.again}.Reread(ctx, iccid)
	return string(c.Rung), err
}

// PowerCycle is [Ladder.PowerCycle] on a line that nobody can open again.
func (m *Modem) PowerCycle(ctx context.Context) error {
	return Ladder{Line: m.again}.PowerCycle(ctx)
}

// again is the Line of a Modem alone.
func (m *Modem) again(ctx context.Context, anew bool) (*Modem, error) {
	if err := m.conn.Err(); err != nil {
		return nil, &finalError{err}
	}
	if anew {
		return m, m.Init(ctx)
	}
	return m, nil
}

// isOff reports that the modem says of itself that it is switched off.
func (m *Modem) isOff(ctx context.Context) bool {
	fun, err := m.Functionality(ctx)
	return err == nil && fun == Minimum
}

// Note remembers the subscription that the modem shows now, for the proof that it
// shows another one later. What it does not tell in time is not known.
func (m *Modem) Note(ctx context.Context) {
	now, _ := m.identity(ctx) // not known is an answer, too
	m.mem.mu.Lock()
	defer m.mem.mu.Unlock()
	m.mem.before = now
}

func (m *Modem) identity(ctx context.Context) (identity, error) {
	ctx, cancel := context.WithTimeout(ctx, noteTime)
	defer cancel()
	imsi, err := m.IMSI(ctx)
	return identity{known: err == nil || saysSIM(err), imsi: imsi}, err
}

// noteTime bounds a question that is only a precaution.
const noteTime = 2 * time.Second

// climb is one run up the ladder. One goroutine.
type climb struct {
	Climb
	l    Ladder
	want string

	m        *Modem // on the line of the last look; nil: none
	messages <-chan string
	stop     func()

	leave  func() bool // nil, or: do not wait for a line that is away
	reopen bool        // the line is to be opened anew at the next look
	pulled bool        // a rung has been carried out

	now identity // of the subscription at the last look that got so far

	// Seen since the climb began.
	other, gone, message, restarted bool
	kept                            bool      // the SIM was ready while the modem was off
	since                           bool      // the SIM was away, or the modem said something, since the last rung was pulled
	fell                            bool      // the line went away since then
	down                            time.Time // a reset was accepted then; zero: none
}

func newClimb(l Ladder, want string) *climb {
	l.Log = l.log()
	if l.Switched == nil {
		l.Switched = func(bool) {}
	}
	return &climb{l: l, want: want, stop: func() {}}
}

func (c *climb) end() { c.stop() }

// line gives the modem, and follows its messages.
func (c *climb) line(ctx context.Context) (*Modem, error) {
	m, err := c.l.Line(ctx, c.reopen)
	if err != nil {
		return nil, err
	}
	if c.m == nil {
		m.mem.disprove(c.want)
	}
	c.reopen = false
	if m != c.m || c.messages == nil {
		c.stop()
		c.m = m
		c.messages, c.stop = m.conn.Notify("")
	}
	return m, nil
}

// hungUp notes a line that went away: when we have pulled a rung, the modem has
// restarted.
func (c *climb) hungUp() {
	if c.pulled {
		c.restarted, c.fell = true, true
	}
}

// climb takes one rung after the other.
func (c *climb) climb(ctx context.Context) error {
	err := c.follow(ctx)
	if err == nil || c.over(ctx, err) {
		return err
	}
	powered := false // a rung that takes the power from the SIM was carried out
	rungs := c.rungs()
	for i, r := range rungs {
		if r == quirks.RungCFUN41 && powered {
			continue // weaker than what did not do
		}
		rungErr := c.take(ctx, r, i+1 < len(rungs))
		if rungErr == nil {
			return nil
		}
		c.l.Log.Info("the modem does not show the new profile", "rung", r, "err", rungErr)
		if !errors.Is(rungErr, errRefused) {
			err = rungErr
			powered = powered || r != quirks.RungCFUN41
		}
		if c.over(ctx, rungErr) {
			break
		}
	}
	if errors.Is(err, errUnproven) && powered {
		c.l.Log.Warn("the modem shows the new profile; nothing proves that it has read it", "rung", c.Rung)
		return nil
	}
	if errors.Is(err, at.ErrLocked) {
		return err
	}
	tried := make([]string, len(c.Tried))
	for i, a := range c.Tried {
		tried[i] = string(a.Rung)
	}
	if !errors.Is(err, ErrOldSIM) {
		err = fmt.Errorf("%w: %w", ErrOldSIM, err)
	}
	return fmt.Errorf("tried %s: %w", strings.Join(tried, ", "), err)
}

// over reports that no further rung is of use.
func (c *climb) over(ctx context.Context, err error) bool {
	var final *finalError
	return ctx.Err() != nil || errors.As(err, &final) || errors.Is(err, at.ErrClosed) ||
		c.pulled && errors.Is(err, at.ErrLocked) // the modem has read the profile, which wants its PIN
}

// rungs are those above the wait for the modem itself, from the best one on.
func (c *climb) rungs() []quirks.Rung {
	var q quirks.Quirks
	if c.m != nil {
		q = c.m.quirks
	}
	ladder := slices.DeleteFunc(q.Ladder(), func(r quirks.Rung) bool {
		return r == quirks.RungRefresh || r == quirks.RungManager || r == quirks.RungVendorReset && len(q.Reset) == 0
	})
	if i := slices.Index(ladder, c.l.Best); i > 0 {
		ladder = ladder[i:]
	}
	return ladder
}

// bound is how long a rung may last. While there are stronger ones, they get
// half of what is left.
func (c *climb) bound(ctx context.Context, r quirks.Rung, more bool) time.Duration {
	d := rungTimes[r]
	if c.m != nil && c.m.quirks.RungTime[r] > 0 {
		d = c.m.quirks.RungTime[r]
	}
	if end, ok := ctx.Deadline(); ok && more {
		d = min(d, time.Until(end)/2)
	}
	return d
}

// follow looks whether the modem has followed the card by itself, and waits for
// it where that is known to happen, or has begun to.
func (c *climb) follow(ctx context.Context) error {
	c.Rung = quirks.RungRefresh
	begin := time.Now()
	var last error
	bounded, cancel := context.WithTimeout(ctx, backTime)
	defer cancel()
	err := c.poll(bounded, func(m *Modem) error {
		last = c.look(bounded, m)
		if last == nil {
			return nil
		}
		wait := time.Duration(0)
		switch {
		case m.isOff(bounded): // by us, as a rule, a life ago
		case c.message, c.gone && c.other: // that a modem shows no SIM at all may be the card that was empty
			wait = max(followTime, m.quirks.RungTime[quirks.RungRefresh])
			if end, ok := ctx.Deadline(); ok {
				wait = min(wait, time.Until(end)/2)
			}
		case m.mem.isPending(), c.l.Best == quirks.RungRefresh, c.l.Best == "" && slices.Contains(m.quirks.Reread, quirks.RungRefresh):
			wait = refreshTime
		}
		if time.Since(begin) >= wait {
			return &finalError{last}
		}
		return last
	})
	c.Tried = append(c.Tried, Attempt{quirks.RungRefresh, time.Since(begin), err})
	if err == nil {
		c.Learnt = c.Proof != "known"
		return c.settle(ctx)
	}
	if last != nil && ctx.Err() == nil {
		return last // not final: the next rung may do
	}
	return err
}

// take pulls one rung and looks what the modem shows.
func (c *climb) take(ctx context.Context, r quirks.Rung, more bool) (err error) {
	begin := time.Now()
	bounded, cancel := context.WithTimeout(ctx, c.bound(ctx, r, more))
	defer cancel()
	defer func() { c.Tried = append(c.Tried, Attempt{r, time.Since(begin), err}) }()
	c.since, c.fell, c.kept, c.down = false, false, false, time.Time{}
	switch r {
	case quirks.RungCFUN01:
		err = c.cycle(bounded, Minimum)
	case quirks.RungCFUN41:
		err = c.cycle(bounded, Airplane)
	case quirks.RungCFUN11:
		err = c.reset(bounded, "AT+CFUN=1,1")
	case quirks.RungVendorReset:
		err = c.reset(bounded, c.m.quirks.Reset...)
	}
	if errors.Is(err, errRefused) {
		return err
	}
	c.Rung = r
	if err != nil {
		return err
	}
	var shown time.Time // since when the ICCID is right and nothing proves it
	var old time.Time   // since when it is ready with another one, as if nothing had happened
	err = c.poll(bounded, func(m *Modem) error {
		err := c.look(bounded, m)
		switch {
		case errors.Is(err, at.ErrLocked):
			return &finalError{err} // no rung knows the PIN
		case errors.Is(err, errOther) && !c.since && c.down.IsZero():
			if old.IsZero() {
				old = time.Now()
			}
			if c.kept && time.Since(old) >= keptOnTime || time.Since(old) >= keptTime {
				return &finalError{err} // the SIM has kept its power
			}
			return err
		case !errors.Is(err, errUnproven):
			shown, old = time.Time{}, time.Time{}
			return err
		}
		if shown.IsZero() {
			shown = time.Now()
		}
		if time.Since(shown) >= proofTime {
			return &finalError{err}
		}
		return err
	})
	var final *finalError
	switch {
	case err == nil:
		c.Learnt = true
		return c.settle(ctx)
	case errors.As(err, &final) && (errors.Is(err, errUnproven) || errors.Is(err, errOther)):
		return final.error // not final for the ladder
	}
	return err
}

// settle waits for what a modem does after its SIM is ready, and ends a climb.
func (c *climb) settle(ctx context.Context) error {
	m, err := c.line(ctx)
	if err != nil {
		return err
	}
	if !c.down.IsZero() { // a modem that has restarted on a living line has forgotten our settings
		if err := errors.Join(m.Init(ctx), m.Subscribe(ctx)); err != nil {
			return err
		}
	}
	if d := m.quirks.SIM.Settle; d > 0 && c.Learnt {
		timer := time.NewTimer(d)
		defer timer.Stop()
		select {
		case <-timer.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	m.mem.prove(c.want, c.now)
	return nil
}

// look asks once. nil: the modem shows the profile, its SIM is ready, and there is
// a proof that it has read it.
func (c *climb) look(ctx context.Context, m *Modem) error {
	c.message = c.message || m.mem.hasHeard()
	got, err := m.ICCID(ctx)
	switch {
	case err != nil:
		c.sim(err)
		return err
	case got != c.want:
		if !m.readsFile() {
			c.other = true
		}
		return errOther
	}
	if err := m.simReady(ctx); err != nil && (saysSIM(err) || !at.Refused(err)) { // not every modem knows AT+CPIN
		c.sim(err)
		var final *finalError
		if errors.As(err, &final) {
			err = final.error
		}
		return err
	}
	if !c.down.IsZero() && !c.since && !c.fell && time.Since(c.down) < fallTime {
		return errUnproven // what it shows may be from before it went down
	}
	if c.now, err = m.identity(ctx); errors.Is(err, at.ErrNoSIM) || errors.Is(err, at.ErrBusy) { // ready by AT+CPIN, and not yet
		c.gone, c.since = c.gone || c.pulled, true
		return errNotReady
	}
	c.Proof = c.proof(m)
	if c.Proof == "" {
		return errUnproven
	}
	return nil
}

// sim notes an answer that says that the modem has no SIM at the moment. Before
// we have pulled anything, "busy" says no more than that the card works.
func (c *climb) sim(err error) {
	if errors.Is(err, at.ErrNoSIM) || errors.Is(err, errNotReady) || c.pulled && errors.Is(err, at.ErrBusy) {
		c.gone, c.since = true, true
	}
}

// proof says why the modem is to be believed; "" is not at all.
func (c *climb) proof(m *Modem) string {
	switch {
	case c.other && !m.readsFile():
		return "iccid"
	case c.gone:
		return "sim-gone"
	case c.message:
		return "message"
	case c.restarted:
		return "restart"
	case m.mem.isProven(c.want, c.now):
		return "known"
	case m.mem.speaksFor(c.want, c.now):
		return "imsi"
	}
	return ""
}

// poll asks until check is content, ctx is over, or check or the line gives a
// finalError. It asks again after pollTime, and at once when the modem says
// something that goes with a change of SIM. The line may go and come back.
func (c *climb) poll(ctx context.Context, check func(*Modem) error) error {
	timer := time.NewTimer(pollTime)
	defer timer.Stop()
	var last error
	for pause := firstPoll; ; pause = min(2*pause, pollTime) {
		m, err := c.line(ctx)
		if err != nil && c.leave != nil && c.leave() {
			return err
		}
		if err == nil {
			err = check(m)
			if m.conn.Err() != nil {
				c.hungUp()
			}
		}
		var final *finalError
		switch {
		case err == nil:
			return nil
		case errors.As(err, &final):
			return err
		case ctx.Err() == nil || last == nil:
			last = err
		}
		if ctx.Err() != nil {
			return fmt.Errorf("%w: %w", last, ctx.Err())
		}
		if !c.down.IsZero() && !c.fell && time.Since(c.down) > fallTime {
			// It has not hung up: a line that a restart does not end. What we
			// have set on it is gone.
			c.reopen, c.fell = true, true
		}
		timer.Reset(pause)
		c.wait(ctx, timer.C)
	}
}

// wait ends with the timer, with ctx, or with a message that concerns the SIM.
func (c *climb) wait(ctx context.Context, timer <-chan time.Time) {
	for {
		select {
		case <-timer:
			return
		case line, ok := <-c.messages:
			if !ok {
				c.messages = nil // the line has ended
				c.hungUp()
				continue
			}
			if c.m.mem.Heard(line) {
				c.message, c.since = true, true
				return
			}
			if begins(line, bootMessages) {
				c.restarted, c.since = c.restarted || c.pulled, true
				return
			}
			if begins(line, wakeMessages) {
				return
			}
		case <-ctx.Done():
			return
		}
	}
}

// cycle switches the modem to a level at which it is off, and on again. An answer
// that is lost is no error: what the modem does then, the next step shows.
func (c *climb) cycle(ctx context.Context, level int) error {
	var m *Modem
	if err := c.poll(ctx, func(on *Modem) error { m = on; return nil }); err != nil { // a port that is away may come back
		return err
	}
	if m.isOff(ctx) {
		c.pulled = true // an earlier attempt lost the port here
	} else {
		c.l.Switched(true)
		var err error
		if level == Minimum && m.quirks.CFUN0HangsUp {
			err = m.offAndOn(ctx)
		} else {
			err = m.cycle(ctx, level)
		}
		switch {
		case at.Refused(err):
			c.l.Switched(false)
			return errRefused
		case err != nil && m.conn.Err() == nil && ctx.Err() != nil:
			return errors.Join(err, c.switchOn(ctx))
		}
		c.pulled = true
		if m.conn.Err() != nil {
			c.hungUp()
		}
	}
	if m.conn.Err() == nil {
		err := m.simReady(ctx)
		c.kept = err == nil
		c.sim(err)
	}
	return c.switchOn(ctx)
}

// switchOn ends what cycle began: without it the device stays off the air, so it
// does not end with ctx, except when its port is away: whoever comes next finds
// it switched off. Right after switching off some modems refuse, and some are away
// for a while.
func (c *climb) switchOn(ctx context.Context) error {
	over := ctx
	c.leave = func() bool { return over.Err() != nil }
	defer func() { c.leave = nil }()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), powerUpTime)
	defer cancel()
	err := c.poll(ctx, func(m *Modem) error {
		if c.restarted {
			if fun, err := m.Functionality(ctx); err == nil && fun == Full { // it came back switched on
				return nil
			}
		}
		err := m.cycle(ctx, Full)
		if !errors.Is(err, at.ErrTimeout) {
			return err
		}
		if fun, askErr := m.Functionality(ctx); askErr == nil && fun == Full { // only the answer was lost
			return nil
		}
		return err
	})
	if err == nil {
		c.l.Switched(false)
	}
	return err
}

// offAndOn is for modems whose port goes away at AT+CFUN=0: the command to switch
// on must be with them before (EG916Q, lab notes, section F). That the answer is
// lost belongs to it.
func (m *Modem) offAndOn(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, cycleTime)
	defer cancel()
	_, err := m.conn.Run(ctx, at.Request{Text: "AT+CFUN=0", Then: "AT+CFUN=1"})
	return err
}

// reset restarts the modem by the first command that it accepts.
func (c *climb) reset(ctx context.Context, cmds ...string) error {
	var m *Modem
	if err := c.poll(ctx, func(on *Modem) error { m = on; return nil }); err != nil {
		return err
	}
	for _, cmd := range cmds {
		bounded, cancel := context.WithTimeout(ctx, cycleTime)
		_, err := m.conn.Command(bounded, cmd)
		cancel()
		if at.Refused(err) {
			continue
		}
		c.pulled, c.down = true, time.Now()
		if m.conn.Err() != nil {
			c.hungUp()
		}
		return nil
	}
	return errRefused
}
