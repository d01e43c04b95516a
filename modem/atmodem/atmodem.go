// Package atmodem drives a modem by AT commands alone: who it is, which SIM it
// shows, its access points, attaching, re-reading the SIM after a profile switch,
// and where it is registered (3GPP TS 27.007).
//
//	m := atmodem.New(conn)
//	if err := m.Init(ctx); err != nil {
//		return err
//	}
//	rung, err := m.Reread(ctx, iccid)
//
// Every method asks the modem; nothing is remembered but what is in its [Memory].
// A modem whose port may go away in the middle of a re-read is for a [Ladder],
// which also says how it is known that the modem itself has read the SIM. Methods are safe for concurrent use as
// far as the modem is: two that change the same thing are the caller's affair.
//
// # Errors
//
// A refusal of the modem is an error of package at (at.CMEError and its
// sentinels). ErrNotTaken says that the modem accepted a setting and shows
// another, ErrOldSIM that it goes on showing the old profile, ErrNoTime that it
// has no clock, ErrUnreadable that an answer makes no sense, ErrUnsafe that a value
// must not be put into a command, ErrNoSlots that nobody knows its command for the
// SIM slots. All explain themselves.
package atmodem

import (
	"context"
	"fmt"
	"strings"
	"time"

	"lpad/internal/fault"
	"lpad/modem/at"
	"lpad/modem/quirks"
)

// Errors of this package; see the package comment.
var (
	ErrNotTaken = fault.New(fault.Fault{
		Code: "modem-setting-not-taken", Text: "the modem accepted a setting but shows another one", Who: fault.Configuration,
		Next: "check the APN and IP type; the modem may not know the type, or another program set the context",
	}, nil)
	ErrOldSIM = fault.New(fault.Fault{
		Code: "modem-shows-old-sim", Text: "the modem does not show the profile that was enabled", Retry: true, Who: fault.Device,
		Next: "reset the modem",
	}, nil)
	ErrNoTime = fault.New(fault.Fault{
		Code: "modem-no-time", Text: "the modem has no time from the network yet", Retry: true, Who: fault.Device,
		Next: "wait until the modem is registered; not every network tells the time",
	}, nil)
	ErrUnreadable = fault.New(fault.Fault{
		Code: "modem-malformed", Text: "the modem's answer cannot be understood", Retry: true, Who: fault.Device,
		Next: "report this with the log of lpad",
	}, nil)
	ErrUnsafe = fault.New(fault.Fault{
		Code: "apn-invalid", Text: "an access point has a value that cannot be given to a modem", Who: fault.Operator,
		Next: `check name, user and password of the access point: no quotes, semicolons, backslashes or control characters`,
	}, nil)
)

// Bounds of commands that take longer than at.DefaultTimeout.
const (
	powerTime  = 30 * time.Second       // AT+CFUN: some modems detach first
	cycleTime  = 10 * time.Second       // for one step of Reread, of which the answer may be lost
	attachTime = 150 * time.Second      // AT+COPS and AT+CGATT; makers document up to 140 s
	waitTime   = 60 * time.Second       // of WaitSIM and Reread when the context has no deadline
	pollTime   = 200 * time.Millisecond // between two questions of the same; see firstPoll
	firstPoll  = 50 * time.Millisecond  // between the first two, then twice as long each time
	settleTime = 2 * time.Second        // for an OK that some modems forget
)

// Modem is a modem behind an AT port.
type Modem struct {
	conn   *at.Conn
	mem    *Memory
	quirks quirks.Quirks
}

// Option changes a Modem at its making.
type Option func(*Modem)

// WithQuirks says what is known of this kind of modem: its commands for the
// ICCID, its messages about the SIM, its ladder. They may also come later, by
// [Modem.Learn].
func WithQuirks(q quirks.Quirks) Option { return func(m *Modem) { m.Learn(q) } }

// WithMemory gives the Modem the memory of an earlier one of the same modem.
func WithMemory(k *Memory) Option { return func(m *Modem) { m.mem = k } }

// New drives the modem behind conn. The connection stays the caller's.
func New(conn *at.Conn, opts ...Option) *Modem {
	m := &Modem{conn: conn, mem: &Memory{}}
	for _, o := range opts {
		o(m)
	}
	return m
}

// Learn says what is known of this kind of modem, once it has told what it is.
// Call it before anything that depends on it; it is not safe beside other calls.
func (m *Modem) Learn(q quirks.Quirks) {
	m.quirks = q
	m.mem.mu.Lock()
	defer m.mem.mu.Unlock()
	m.mem.urcs = q.SIM.URCs
}

// Subscribe switches the messages about the SIM on that are known to be off
// otherwise. A modem that refuses does without.
func (m *Modem) Subscribe(ctx context.Context) error {
	for _, cmd := range m.quirks.SIM.Subscribe {
		if err := m.command(ctx, cmd); err != nil && !at.Refused(err) {
			return fmt.Errorf("subscribe to the SIM: %w", err)
		}
	}
	return nil
}

// Init brings the port into a known state: what an earlier user left is thrown
// away, echo off, errors with numbers, no messages about registration (they are
// asked for). To be called after every opening of the port.
func (m *Modem) Init(ctx context.Context) error {
	if err := m.conn.Resync(ctx); err != nil {
		return fmt.Errorf("init modem: %w", err)
	}
	if err := m.command(ctx, "ATE0"); err != nil {
		return fmt.Errorf("init modem: %w", err)
	}
	for _, cmd := range []string{"AT+CMEE=1", "AT+CREG=0", "AT+CGREG=0", "AT+CEREG=0"} {
		if err := m.command(ctx, cmd); err != nil && !at.Refused(err) { // a convenience: refused is fine
			return fmt.Errorf("init modem: %w", err)
		}
	}
	return nil
}

// ask runs a command and returns its lines without their name.
func (m *Modem) ask(ctx context.Context, cmd string, names ...string) ([]string, error) {
	lines, err := m.run(ctx, at.Request{Text: cmd, Prefixes: names})
	if err != nil {
		return nil, err
	}
	return values(lines, names), nil
}

// command runs a command that has no answer but its result.
func (m *Modem) command(ctx context.Context, cmd string) error {
	_, err := m.run(ctx, at.Request{Text: cmd})
	return err
}

// run bounds one question, however long ctx lasts: a modem that has not answered
// one of these after 10 s will not, and ctx is for all of them.
func (m *Modem) run(ctx context.Context, r at.Request) ([]string, error) {
	ctx, cancel := context.WithTimeout(ctx, at.DefaultTimeout)
	defer cancel()
	return m.conn.Run(ctx, r)
}

// values takes the names off the lines that have one.
func values(lines, names []string) []string {
	out := make([]string, 0, len(lines))
	for _, line := range lines {
		out = append(out, cutNames(line, names))
	}
	return out
}

func cutNames(line string, names []string) string {
	for _, name := range names {
		if len(line) <= len(name) || !strings.EqualFold(line[:len(name)], name) {
			continue
		}
		rest := strings.TrimSpace(line[len(name):])
		if rest != "" && (rest[0] == ':' || rest[0] == '=') {
			return strings.TrimSpace(rest[1:])
		}
	}
	return line
}

// fields cuts a line at its commas, outside of quotes, and takes the quotes off.
func fields(line string) []string {
	var out []string
	quoted, from := false, 0
	for i := 0; i <= len(line); i++ {
		switch {
		case i == len(line) || line[i] == ',' && !quoted:
			out = append(out, unquote(line[from:i]))
			from = i + 1
		case line[i] == '"':
			quoted = !quoted
		}
	}
	return out
}

func unquote(s string) string {
	s = strings.TrimSpace(s)
	if len(s) >= 2 && s[0] == '"' && s[len(s)-1] == '"' {
		s = s[1 : len(s)-1]
	}
	return strings.Trim(s, `"`)
}

// field is the i-th of fields, or empty.
func field(f []string, i int) string {
	if i < len(f) {
		return f[i]
	}
	return ""
}

func digits(s string) bool {
	for i := 0; i < len(s); i++ {
		if s[i] < '0' || s[i] > '9' {
			return false
		}
	}
	return s != ""
}

// deadline gives ctx an end if it has none.
func deadline(ctx context.Context, d time.Duration) (context.Context, context.CancelFunc) {
	if _, ok := ctx.Deadline(); ok {
		return ctx, func() {}
	}
	return context.WithTimeout(ctx, d)
}
