package at_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"lpad/internal/fault"
	"lpad/modem/at"
	"lpad/modem/at/attest"
)

// Sources of the torture list.
const (
	own     = "own" // nobody has reported it, but it must not hurt
	lpac    = "https://github.com/estkme-group/lpac/issues/"
	vocat40 = "https://github.com/MengMengCode/VoCat/pull/40"
	vocat   = "https://github.com/MengMengCode/VoCat"
	comma   = "https://github.com/commaai/openpilot/pull/37771"
	specs   = "https://www.3gpp.org/dynareport/27007.htm"
	quectel = "https://gitlab.freedesktop.org/mobile-broadband/ModemManager/-/blob/main/src/plugins/quectel/mm-shared-quectel.c"
	shared  = "https://github.com/4IceG/luci-app-modemband/issues/26"
)

// turn is one command of a conversation.
type turn struct {
	cmd    string
	raw    string        // what the modem says; "<hangup>": it hangs up
	late   time.Duration // before it says it
	settle time.Duration // see at.Request
	lines  []string
	is     []error
}

// The torture list, line by line: what modems did to others who spoke to them,
// with the place where it was reported, and what must come of it. Each row is one
// conversation; a turn must not suffer from the one before it. APDUs are in
// modem/atcard (TestTortureList), single answers also in TestAnswers.
func TestTorture(t *testing.T) {
	cgla := func(n int) string { return fmt.Sprintf(`AT+CGLA=1,10,"80E29100%02X"`, n) }
	const ok = "\r\n\r\nOK\r\n"
	long := strings.Repeat("9A", 2040)
	for _, tc := range []struct {
		name, source string
		owner        string // of the line, beside us
		turns        []turn
		urcs         []string
	}{
		{name: "echo goes on and off", source: lpac + "173", turns: []turn{
			{cmd: "AT+CFUN?", raw: "\r\n+CFUN: 1" + ok, lines: []string{"+CFUN: 1"}},
			{cmd: "AT+CFUN?", raw: "AT+CFUN?\r\r\n+CFUN: 4" + ok, lines: []string{"+CFUN: 4"}},
			{cmd: "ATE0", raw: "ATE0\r\r\nOK\r\n"},
			{cmd: cgla(1), raw: "\r\n+CGLA: 4,\"9000\"" + ok, lines: []string{`+CGLA: 4,"9000"`}},
			{cmd: cgla(2), raw: cgla(2) + "\r\r\n+CGLA: 4,\"6A82\"" + ok, lines: []string{`+CGLA: 4,"6A82"`}},
		}},
		{name: "echo of the last command comes late", source: lpac + "173", turns: []turn{
			{cmd: cgla(1), raw: "\r\n+CGLA: 4,\"9000\"" + ok, lines: []string{`+CGLA: 4,"9000"`}},
			{cmd: cgla(2), raw: cgla(1) + "\r\r\n+CGLA: 4,\"6A82\"" + ok, lines: []string{`+CGLA: 4,"6A82"`}},
		}},
		{name: "answer, prompt and echo glued", source: lpac + "173", turns: []turn{
			{cmd: cgla(1), raw: "=4,\"6115\">" + cgla(1) + "\r\r\n+CGLA: 4,\"9000\"" + ok, lines: []string{`+CGLA: 4,"9000"`}},
		}},
		{name: "OK glued to a value", source: lpac + "173", turns: []turn{
			{cmd: cgla(1), raw: "\r\n+CGLA: 4,\"9000\"OK\r\n", lines: []string{`+CGLA: 4,"9000"`}},
			{cmd: cgla(2), raw: "\r\n+CGLA: 4,9000OK\r\n", lines: []string{"+CGLA: 4,9000"}},
			{cmd: cgla(3), raw: "\r\n+CGLA: 4,61ABOK\r\n", lines: []string{"+CGLA: 4,61AB"}},
			{cmd: `AT+CCHO="A0"`, raw: "\r\n+CCHO: 1OK\r\n", lines: []string{"+CCHO: 1"}},
			{cmd: `AT+CCHO="A0"`, raw: "\r\n1OK\r\n", lines: []string{"1"}},
			{cmd: `AT+CGMM`, raw: "\r\nBOOK\r\nOK\r\n", lines: []string{"BOOK"}},
		}},
		{name: "message glued to a result", source: quectel, urcs: []string{"+QUSIM: 1", "+QUSIM: 1", "+QUSIM: 1", "+QUSIM: 1"}, turns: []turn{
			{cmd: cgla(1), raw: "\r\n+CGLA: 4,\"9000\"+QUSIM: 1" + ok, lines: []string{`+CGLA: 4,"9000"`}},
			{cmd: "AT+CFUN=1", raw: "\r\nOK+QUSIM: 1\r\n"},
			{cmd: cgla(2), raw: "\r\nERROR+QUSIM: 1\r\n", is: []error{at.ErrError}},
			{cmd: cgla(3), raw: "\r\n+CME ERROR: 14+QUSIM: 1\r\n", is: []error{at.ErrBusy}},
		}},
		{name: "message between command and answer", source: quectel, urcs: []string{"+QUSIM: 1", "+CPIN: READY"}, turns: []turn{
			{cmd: cgla(1), raw: "\r\n+QUSIM: 1\r\n\r\n+CGLA: 4,\"9000\"\r\n\r\n+CPIN: READY\r\n\r\nOK\r\n", lines: []string{`+CGLA: 4,"9000"`}},
		}},
		{name: "bare answer without its prefix", source: lpac + "179", turns: []turn{
			{cmd: `AT+CCHO="A0"`, raw: "\r\n1" + ok, lines: []string{"1"}},
		}},
		{name: "a line of 4 kB", source: own, turns: []turn{
			{cmd: cgla(1), raw: "\r\n+CGLA: 4080,\"" + long + "\"" + ok, lines: []string{`+CGLA: 4080,"` + long + `"`}},
			{cmd: cgla(2), raw: cgla(2) + "\r\r\n+CGLA: 4080,\"" + long + "\"OK\r\n", lines: []string{`+CGLA: 4080,"` + long + `"`}},
			{cmd: cgla(3), raw: "\r\n" + strings.Repeat(long, 3) + ok, is: []error{at.ErrTooLong}},
			{cmd: cgla(4), raw: "\r\n+CGLA: 4,\"9000\"" + ok, lines: []string{`+CGLA: 4,"9000"`}},
		}},
		{name: "OK missing", source: vocat40, turns: []turn{
			{cmd: "AT+CGSN", raw: "\r\n356938035643809\r\n", settle: 2 * time.Second, lines: []string{"356938035643809"}, is: []error{at.ErrNoFinal}},
			{cmd: cgla(1), raw: "\r\n+CGLA: 4,\"9000\"" + ok, lines: []string{`+CGLA: 4,"9000"`}},
		}},
		{name: "answer after the deadline", source: vocat40, turns: []turn{
			{cmd: cgla(1), raw: "\r\n+CGLA: 4,\"6A82\"" + ok, late: 11 * time.Second, is: []error{at.ErrTimeout, context.DeadlineExceeded}},
			{cmd: cgla(2), raw: "\r\n+CGLA: 4,\"9000\"" + ok, lines: []string{`+CGLA: 4,"9000"`}},
			{cmd: "AT+CSQ", raw: "\r\n+CSQ: 20,99" + ok, lines: []string{"+CSQ: 20,99"}},
		}},
		{name: "late refusal", source: vocat40, turns: []turn{
			{cmd: cgla(1), raw: "\r\n+CME ERROR: 14\r\n", late: 11 * time.Second, is: []error{at.ErrTimeout}},
			{cmd: cgla(2), raw: "\r\n+CGLA: 4,\"9000\"" + ok, lines: []string{`+CGLA: 4,"9000"`}},
		}},
		{name: "test command: OK", source: lpac + "300", turns: []turn{{cmd: "AT+CCHO=?", raw: "\r\nOK\r\n"}}},
		{name: "test command: ERROR, though the command works", source: lpac + "300", turns: []turn{
			{cmd: "AT+CCHO=?", raw: "\r\nERROR\r\n", is: []error{at.ErrError}},
			{cmd: `AT+CCHO="A0"`, raw: "\r\n+CCHO: 1" + ok, lines: []string{"+CCHO: 1"}},
		}},
		{name: "test command: silence, though the command works", source: lpac + "179", turns: []turn{
			{cmd: "AT+CCHO=?", is: []error{at.ErrTimeout}},
			{cmd: `AT+CCHO="A0"`, raw: "\r\n1" + ok, lines: []string{"1"}},
		}},
		{name: "CME 0 after a hot swap", source: vocat, turns: []turn{{cmd: cgla(1), raw: "\r\n+CME ERROR: 0\r\n", is: []error{&at.CMEError{}}}}},
		{name: "CME 3", source: lpac + "300", turns: []turn{{cmd: cgla(1), raw: "\r\n+CME ERROR: 3\r\n", is: []error{at.ErrNotAllowed}}}},
		{name: "CME 13 after a switch that was cut off", source: vocat, turns: []turn{{cmd: cgla(1), raw: "\r\n+CME ERROR: 13\r\n", is: []error{at.ErrSIMFailure}}}},
		{name: "CME 14", source: specs, turns: []turn{{cmd: cgla(1), raw: "\r\n+CME ERROR: 14\r\n", is: []error{at.ErrBusy}}}},
		{name: "CME 100", source: specs, turns: []turn{{cmd: cgla(1), raw: "\r\n+CME ERROR: 100\r\n", is: []error{&at.CMEError{}}}}},
		{name: "CME in words", source: lpac + "187", turns: []turn{{cmd: `AT+CCHO="A0"`, raw: "\r\n+CME ERROR: Parameters error\r\n", is: []error{at.ErrBadParameter}}}},
		{name: "hang-up in the middle of an answer", source: comma, turns: []turn{
			{cmd: "AT+CFUN=0", raw: "\r\n+CFU<hangup>", is: []error{at.ErrHangup}},
			{cmd: "AT", is: []error{at.ErrHangup}},
		}},
		{name: "silence is no hang-up", source: lpac + "182", turns: []turn{
			{cmd: "AT+CIMI", is: []error{at.ErrTimeout}},
			{cmd: "AT", raw: "\r\nOK\r\n"},
		}},
		{name: "silence, and somebody has the port", source: vocat40, owner: "ModemManager (pid 812)", turns: []turn{
			{cmd: "AT+CIMI", is: []error{at.ErrTimeout, at.ErrContended}},
			{cmd: "AT+CFUN?", raw: "\r\n+CME ERROR: 3\r\n", is: []error{at.ErrNotAllowed}},
		}},
		{name: "somebody else's echo, then silence", source: shared, turns: []turn{
			{cmd: "AT+CFUN?", raw: "\r\n+CFUN: 1" + ok + "AT+CSQ\r\r\n+CSQ: 20,99" + ok, lines: []string{"+CFUN: 1"}},
			{cmd: cgla(1), is: []error{at.ErrTimeout, at.ErrContended}},
		}},
		{name: "somebody else's results, then silence", source: shared, turns: []turn{
			{cmd: "AT+CFUN?", raw: "\r\n+CFUN: 1" + ok + "\r\nOK\r\n\r\n+CME ERROR: 10\r\n\r\nERROR\r\n", lines: []string{"+CFUN: 1"}},
			{cmd: cgla(1), is: []error{at.ErrTimeout, at.ErrContended}},
		}},
		{name: "our own late results are nobody else's", source: vocat40, turns: []turn{
			{cmd: cgla(1), raw: "AT+CGLA=1\r\r\nOK\r\nERROR\r\nOK\r\nOK\r\n", late: 11 * time.Second, is: []error{at.ErrTimeout, errNotContended}},
			{cmd: cgla(2), is: []error{at.ErrTimeout, errNotContended}},
		}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				if tc.source != own && !strings.HasPrefix(tc.source, "https://") {
					t.Errorf("source %q", tc.source)
				}
				var modem *attest.Modem
				next := make(chan turn, len(tc.turns))
				conn, modem := attest.Dial(t, func(cmd string) string {
					if cmd == "AT+CMEE?" {
						return "\r\n+CMEE: 1" + ok
					}
					turn := <-next
					time.Sleep(turn.late)
					if raw, hangs := strings.CutSuffix(turn.raw, "<hangup>"); hangs {
						modem.Say(raw)
						modem.Close()
						return ""
					}
					return turn.raw
				}, at.WithOwner(func() string { return tc.owner }))
				messages, cancel := conn.Notify("")
				defer cancel()
				for i, turn := range tc.turns {
					next <- turn
					ctx, cancel := context.WithTimeout(t.Context(), 40*time.Second)
					if slices.Contains(turn.is, at.ErrTimeout) {
						ctx, cancel = context.WithTimeout(t.Context(), 10*time.Second)
					}
					lines, err := conn.Run(ctx, at.Request{Text: turn.cmd, Settle: turn.settle})
					cancel()
					synctest.Wait()
					if !slices.Equal(lines, turn.lines) {
						t.Errorf("turn %d: lines %.80q, want %.80q", i, lines, turn.lines)
					}
					if (err != nil) != (turn.is != nil) {
						t.Fatalf("turn %d: %v, want %v", i, err, turn.is)
					}
					for _, is := range turn.is {
						if !matches(err, is) {
							t.Errorf("turn %d: %v, want %v", i, err, is)
						}
					}
					f := fault.Of(err)
					if err != nil && (f.Code == fault.Internal || f.Next == "") {
						t.Errorf("turn %d: %v does not explain itself", i, err)
					}
					if errors.Is(err, at.ErrContended) && (f.Code != "port-contended" || !strings.Contains(f.Text, tc.owner)) {
						t.Errorf("turn %d: %+v does not name the owner", i, f)
					}
				}
				for _, want := range tc.urcs {
					select {
					case got := <-messages:
						if got != want {
							t.Errorf("message %q, want %q", got, want)
						}
					default:
						t.Errorf("no message, want %q", want)
					}
				}
			})
		})
	}
}

// errNotContended stands for errors that blame nobody.
var errNotContended = errors.New("not contended")

func matches(err, want error) bool {
	var cme *at.CMEError
	switch {
	case want == errNotContended:
		return !errors.Is(err, at.ErrContended)
	case errors.As(want, &cme):
		return errors.As(err, &cme)
	}
	return errors.Is(err, want)
}
