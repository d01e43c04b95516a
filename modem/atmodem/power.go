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
	err := m.poll(ctx, func() error { return m.simReady(ctx) })
	if err != nil {
		return fmt.Errorf("wait for the SIM: %w", err)
	}
	return nil
}

// errNotReady: the modem itself says that it has not read the SIM yet.
var errNotReady = fmt.Errorf("AT+CPIN: not ready: %w", at.ErrBusy)

// simReady is nil if the SIM is ready, a finalError if it waits for a PIN.
func (m *Modem) simReady(ctx context.Context) error {
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
	return errNotReady // "NOT READY", "NOT INSERTED" on its way
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
	for pause := firstPoll; ; pause = min(2*pause, pollTime) {
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
		timer.Reset(pause)
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
			if m.mem.Heard(line) || begins(line, wakeMessages) || begins(line, bootMessages) {
				return nil
			}
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// cycle is SetFunctionality with the bound of one step of Reread.
func (m *Modem) cycle(ctx context.Context, fun int) error {
	ctx, cancel := context.WithTimeout(ctx, cycleTime)
	defer cancel()
	return m.SetFunctionality(ctx, fun)
}
