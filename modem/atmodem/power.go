package atmodem

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"lpad/modem/at"
)

// Levels of functionality (TS 27.007, section 8.2).
const (
	Minimum  = 0 // radio off, and on most modems the SIM too
	Full     = 1
	Airplane = 4 // radio off, SIM on
)

// Rungs of the ladder that Reread climbs, cheapest first.
const (
	RungRefresh = "refresh"  // the modem had followed by itself
	RungCFUN01  = "cfun-0-1" // the SIM was powered off and on
	RungCFUN41  = "cfun-4-1" // where AT+CFUN=0 is refused
)

// Functionality reads the level of functionality.
func (m *Modem) Functionality(ctx context.Context) (int, error) {
	lines, err := m.ask(ctx, "AT+CFUN?", "+CFUN")
	if err != nil {
		return 0, fmt.Errorf("read functionality: %w", err)
	}
	for _, line := range lines {
		if n, err := strconv.Atoi(field(fields(line), 0)); err == nil {
			return n, nil
		}
	}
	return 0, fmt.Errorf("read functionality: %w", ErrUnreadable)
}

// SetFunctionality changes the level of functionality, within 30 s.
func (m *Modem) SetFunctionality(ctx context.Context, fun int) error {
	if fun < 0 || fun > 127 {
		return fmt.Errorf("set functionality: %d is no level", fun)
	}
	ctx, cancel := context.WithTimeout(ctx, powerTime)
	defer cancel()
	if _, err := m.conn.Command(ctx, fmt.Sprintf("AT+CFUN=%d", fun)); err != nil {
		return fmt.Errorf("set functionality %d: %w", fun, err)
	}
	return nil
}

// WaitSIM waits until the SIM is ready, at most until the end of ctx (60 s if it
// has none). A SIM that waits for its PIN ends the wait with at.ErrLocked. The
// error of a wait in vain says what the modem said last.
func (m *Modem) WaitSIM(ctx context.Context) error {
	ctx, cancel := deadline(ctx, waitTime)
	defer cancel()
	err := m.poll(ctx, func() error {
		lines, err := m.ask(ctx, "AT+CPIN?", "+CPIN")
		if err != nil {
			if errors.Is(err, at.ErrLocked) {
				return &finalError{err}
			}
			return err
		}
		for _, line := range lines {
			switch state := strings.ToUpper(unquote(line)); {
			case state == "READY", strings.HasSuffix(state, "2"): // PIN2 and PUK2 are not needed for service
				return nil
			case strings.HasSuffix(state, "PIN"), strings.HasSuffix(state, "PUK"):
				return &finalError{fmt.Errorf("AT+CPIN: %w", at.ErrLocked)}
			}
		}
		return fmt.Errorf("AT+CPIN: %w", at.ErrBusy) // "NOT READY", "NOT INSERTED" on its way
	})
	if err != nil {
		return fmt.Errorf("wait for the SIM: %w", err)
	}
	return nil
}

// finalError ends a poll.
type finalError struct{ error }

func (e *finalError) Unwrap() error { return e.error }

// poll repeats check until it succeeds, ctx is over, the line is dead or check
// gives a finalError. It asks again after pollTime, and at once when the modem
// says something that goes with a change of SIM.
func (m *Modem) poll(ctx context.Context, check func() error) error {
	messages, stop := m.conn.Notify("")
	defer stop()
	timer := time.NewTimer(pollTime)
	defer timer.Stop()
	var last error // what the modem said; worth more than that ctx ended in the middle of a question
	for {
		err := check()
		var final *finalError
		switch {
		case err == nil:
			return nil
		case errors.As(err, &final):
			return final.error
		case m.conn.Err() != nil: // whatever the modem said last, it is gone
			return fmt.Errorf("%w: %w", m.conn.Err(), err)
		case ctx.Err() == nil || last == nil:
			last = err
		}
		if ctx.Err() != nil {
			return fmt.Errorf("%w: %w", last, ctx.Err())
		}
		timer.Reset(pollTime)
		if waitErr := m.wait(ctx, timer.C, messages); waitErr != nil {
			return fmt.Errorf("%w: %w", last, waitErr)
		}
	}
}

// wait ends with the timer or with a message that concerns the SIM.
func (m *Modem) wait(ctx context.Context, timer <-chan time.Time, messages <-chan string) error {
	for {
		select {
		case <-timer:
			return nil
		case line, ok := <-messages:
			if !ok {
				return m.conn.Err()
			}
			if aboutSIM(line) {
				return nil
			}
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// aboutSIM knows the messages that modems send when they have read a SIM again
// (lab notes, section F).
func aboutSIM(line string) bool {
	for _, p := range []string{"+CPIN", "+QUSIM", "^SCKS", "#QSS", "+SIM", "+CIEV", "+UUSIMSTAT", "^SIMST", "%NOTIFYEV", "+QIND", "PB DONE", "RDY"} {
		if strings.HasPrefix(strings.ToUpper(line), p) {
			return true
		}
	}
	return false
}

// Reread makes the modem read the SIM again and waits until it shows the profile
// with this ICCID (digits; an F at the end does not count), until the end of ctx
// (60 s if it has none). It returns the rung that worked: RungRefresh when the
// modem shows the profile already, by a command of its own (the file on the card
// says nothing of what the modem has read), RungCFUN01 or RungCFUN41 after switching the
// SIM off and on. ErrOldSIM means that a stronger rung is needed (a reset).
//
// Switching off may lose its answer, or drop the port: at.ErrHangup. Then open the
// port again and call Reread again: it finds the modem switched off and goes on
// from there. In every other case the modem is switched on again on return, even
// if ctx is over.
func (m *Modem) Reread(ctx context.Context, iccid string) (rung string, err error) {
	ctx, cancel := deadline(ctx, waitTime)
	defer cancel()
	want, err := parseICCID(iccid)
	if err != nil {
		return "", fmt.Errorf("re-read SIM: %w", err)
	}
	if m.shows(ctx, want) == nil && !m.readsFile() {
		return RungRefresh, nil
	}
	rung, err = m.switchOff(ctx)
	if err != nil {
		return rung, fmt.Errorf("re-read SIM: %w", err)
	}
	if err := m.switchOn(ctx); err != nil {
		return rung, fmt.Errorf("re-read SIM: %w", err)
	}
	err = m.poll(ctx, func() error { return m.shows(ctx, want) })
	switch {
	case err == nil:
		return rung, nil
	case m.conn.Err() != nil:
		return rung, fmt.Errorf("re-read SIM: %w", err)
	}
	return rung, fmt.Errorf("re-read SIM: %w: %w", ErrOldSIM, err)
}

// PowerCycle takes the power from the SIM and gives it back, whatever profile it
// shows, and waits until it is ready, until the end of ctx (60 s if it has
// none). A card that is stuck in a toolkit session begins anew. The modem looks
// for a network again afterwards.
func (m *Modem) PowerCycle(ctx context.Context) error {
	ctx, cancel := deadline(ctx, waitTime)
	defer cancel()
	if _, err := m.switchOff(ctx); err != nil {
		return fmt.Errorf("power-cycle SIM: %w", err)
	}
	if err := m.switchOn(ctx); err != nil {
		return fmt.Errorf("power-cycle SIM: %w", err)
	}
	return m.WaitSIM(ctx)
}

// shows is nil if the modem shows the profile.
func (m *Modem) shows(ctx context.Context, want string) error {
	got, err := m.ICCID(ctx)
	if err == nil && got != want {
		err = ErrOldSIM
	}
	return err
}

// switchOff takes the SIM from the modem. An answer that is lost is no error:
// what the modem does then, the next step shows. After an error on a line that
// lives, the modem is switched on again.
func (m *Modem) switchOff(ctx context.Context) (rung string, err error) {
	rung = RungCFUN01
	if fun, err := m.Functionality(ctx); err == nil && fun == Minimum {
		return rung, nil // an earlier attempt lost the port here
	}
	if err = m.cycle(ctx, Minimum); at.Refused(err) {
		rung, err = RungCFUN41, m.cycle(ctx, Airplane)
	}
	if errors.Is(err, at.ErrTimeout) && ctx.Err() == nil {
		return rung, nil
	}
	if err != nil && m.conn.Err() == nil {
		err = errors.Join(err, m.switchOn(ctx))
	}
	return rung, err
}

// switchOn ends what switchOff began: without it the device stays off the air,
// so it does not end with ctx. Right after switching off some modems refuse.
func (m *Modem) switchOn(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), powerTime)
	defer cancel()
	return m.poll(ctx, func() error {
		err := m.cycle(ctx, Full)
		if !errors.Is(err, at.ErrTimeout) {
			return err
		}
		if fun, askErr := m.Functionality(ctx); askErr == nil && fun == Full { // only the answer was lost
			return nil
		}
		return err
	})
}

// cycle is SetFunctionality with the bound of one step of Reread.
func (m *Modem) cycle(ctx context.Context, fun int) error {
	ctx, cancel := context.WithTimeout(ctx, cycleTime)
	defer cancel()
	return m.SetFunctionality(ctx, fun)
}
