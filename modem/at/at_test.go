package at_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"lpad/internal/fault"
	"lpad/modem/at"
	"lpad/modem/at/attest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// Each row is what a modem sends upon a command, and what it means. The sources
// are the issue threads of field notes section 5 and lab notes section F.
func TestAnswers(t *testing.T) {
	const cgla = `AT+CGLA=1,10,"80E2910000"`
	for _, tc := range []struct {
		name, cmd, raw string
		lines          []string
		urcs           []string
		is             error // nil: OK
	}{
		{name: "plain", cmd: "AT+CFUN?", raw: "\r\n+CFUN: 1\r\n\r\nOK\r\n", lines: []string{"+CFUN: 1"}},
		{name: "echo on", cmd: "AT+CFUN?", raw: "AT+CFUN?\r\r\n+CFUN: 1\r\n\r\nOK\r\n", lines: []string{"+CFUN: 1"}},
		{name: "echo in lower case", cmd: "AT+CFUN?", raw: "at+cfun?\r\r\n+CFUN: 1\r\n\r\nOK\r\n", lines: []string{"+CFUN: 1"}},
		{name: "echo that lost characters", cmd: cgla, raw: "AT+CGLA=1,10,\"80E29\r\n+CGLA: 4,\"9000\"\r\nOK\r\n", lines: []string{`+CGLA: 4,"9000"`}},
		{name: "LF only", cmd: "AT+CFUN?", raw: "\n+CFUN: 1\nOK\n", lines: []string{"+CFUN: 1"}},
		{name: "CR only", cmd: "AT+CFUN?", raw: "\r+CFUN: 1\rOK\r", lines: []string{"+CFUN: 1"}},
		{name: "CR CR LF and blank lines", cmd: "AT+CFUN?", raw: "\r\r\n\r\n \r\n+CFUN: 1\r\r\n\r\n\r\nOK\r\r\n", lines: []string{"+CFUN: 1"}},
		{name: "NUL at power up", cmd: "AT", raw: "\x00\x00\r\nOK\r\n"},
		{name: "bare answer", cmd: `AT+CCHO="A0"`, raw: "\r\n1\r\n\r\nOK\r\n", lines: []string{"1"}},
		{name: "no blank after the colon", cmd: cgla, raw: "\r\n+CGLA:4,\"9000\"\r\n\r\nOK\r\n", lines: []string{`+CGLA:4,"9000"`}},
		{name: "message before the answer", cmd: cgla, raw: "\r\n+CREG: 1\r\n\r\n+CGLA: 4,\"9000\"\r\n\r\nOK\r\n",
			lines: []string{`+CGLA: 4,"9000"`}, urcs: []string{"+CREG: 1"}},
		{name: "messages between the answer and OK", cmd: cgla, raw: "\r\n+CGLA: 4,\"9000\"\r\n\r\n^RSSI: 20\r\n\r\nRING\r\n\r\nOK\r\n",
			lines: []string{`+CGLA: 4,"9000"`}, urcs: []string{"^RSSI: 20", "RING"}},
		{name: "message between echo and answer", cmd: cgla, raw: cgla + "\r\r\n+QUSIM: 1\r\n\r\n+CGLA: 4,\"9000\"\r\n\r\nOK\r\n",
			lines: []string{`+CGLA: 4,"9000"`}, urcs: []string{"+QUSIM: 1"}},
		{name: "NO CARRIER is about another call", cmd: cgla, raw: "\r\nNO CARRIER\r\n\r\n+CGLA: 4,\"9000\"\r\n\r\nOK\r\n",
			lines: []string{`+CGLA: 4,"9000"`}, urcs: []string{"NO CARRIER"}},
		{name: "asked for registration", cmd: "AT+CREG?", raw: "\r\n+CREG: 2,1\r\n\r\nOK\r\n", lines: []string{"+CREG: 2,1"}},
		{name: "set form of registration: a message", cmd: "AT+CREG=2", raw: "\r\n+CREG: 1\r\n\r\nOK\r\n", urcs: []string{"+CREG: 1"}},
		{name: "set form of functionality: a message", cmd: "AT+CFUN=1", raw: "\r\n+CFUN: 1\r\n\r\n+CPIN: READY\r\n\r\nOK\r\n", urcs: []string{"+CFUN: 1", "+CPIN: READY"}},
		{name: "glued OK", cmd: cgla, raw: "\r\n+CGLA: 4,\"9000\"OK\r\n", lines: []string{`+CGLA: 4,"9000"`}},
		{name: "glued OK after a number", cmd: `AT+CCHO="A0"`, raw: "\r\n+CCHO: 1OK\r\n", lines: []string{"+CCHO: 1"}},
		{name: "message glued to OK", cmd: "AT+CFUN=1", raw: "\r\nOK+CREG: 1\r\n", urcs: []string{}},
		{name: "older answer, prompt sign and echo glued (lpac 173)", cmd: cgla, raw: "\r\n+CGLA: 4,\"6115\">" + cgla + "\r\r\n+CGLA: 4,\"9000\"\r\n\r\nOK\r\n",
			lines: []string{`+CGLA: 4,"9000"`}},
		{name: "error glued to the echo", cmd: cgla, raw: cgla + "+CME ERROR: 14\r\n", is: at.ErrBusy},
		{name: "several lines", cmd: "AT+CGDCONT?", raw: "\r\n+CGDCONT: 1,\"IP\",\"a\"\r\n+CGDCONT: 2,\"IP\",\"b\"\r\n\r\nOK\r\n",
			lines: []string{`+CGDCONT: 1,"IP","a"`, `+CGDCONT: 2,"IP","b"`}},
		{name: "identification", cmd: "ATI", raw: "\r\nQuectel\r\nEG25\r\n+GCAP: +CGSM\r\n\r\n+CREG: 1\r\nOK\r\n",
			lines: []string{"Quectel", "EG25", "+GCAP: +CGSM"}, urcs: []string{"+CREG: 1"}},
		{name: "two commands in a line", cmd: "AT+CFUN?;+CPIN?", raw: "\r\n+CFUN: 1\r\n+CPIN: READY\r\n\r\nOK\r\n", lines: []string{"+CFUN: 1", "+CPIN: READY"}},
		{name: "dialling", cmd: "ATD*99#", raw: "\r\nCONNECT 150000000\r\n"},
		{name: "dialling in vain", cmd: "ATD*99#", raw: "\r\nNO CARRIER\r\n", is: at.ErrNoCarrier},
		{name: "dialling, busy", cmd: "ATD*99#", raw: "\r\nBUSY\r\n", is: at.ErrBusy},
		{name: "dialling, no answer", cmd: "ATD*99#", raw: "\r\nNO ANSWER\r\n", is: at.ErrNoAnswer},
		{name: "dialling, no dialtone", cmd: "ATD*99#", raw: "\r\nNO DIALTONE\r\n", is: at.ErrNoDialtone},
		{name: "ERROR", cmd: "AT+CCHO=?", raw: "\r\nERROR\r\n", is: at.ErrError},
		{name: "ABORTED", cmd: "AT+COPS=?", raw: "\r\nABORTED\r\n", is: at.ErrAborted},
		{name: "Huawei's refusal", cmd: "AT^X", raw: "\r\nCOMMAND NOT SUPPORT\r\n", is: at.ErrNotSupported},
		{name: "too many parameters", cmd: "AT+CFUN=1,1,1", raw: "\r\nTOO MANY PARAMETERS\r\n", is: at.ErrBadParameter},
		{name: "CME 3", cmd: cgla, raw: "\r\n+CME ERROR: 3\r\n", is: at.ErrNotAllowed},
		{name: "CME 4", cmd: cgla, raw: "\r\n+CME ERROR: 4\r\n", is: at.ErrNotSupported},
		{name: "CME 10", cmd: cgla, raw: "\r\n+CME ERROR: 10\r\n", is: at.ErrNoSIM},
		{name: "CME 11", cmd: cgla, raw: "\r\n+CME ERROR: 11\r\n", is: at.ErrLocked},
		{name: "CME 13", cmd: cgla, raw: "\r\n+CME ERROR: 13\r\n", is: at.ErrSIMFailure},
		{name: "CME 14 without a blank", cmd: cgla, raw: "\r\n+CME ERROR:14\r\n", is: at.ErrBusy},
		{name: "CME text", cmd: cgla, raw: "\r\n+CME ERROR: SIM failure\r\n", is: at.ErrSIMFailure},
		{name: "CME text, as Qualcomm writes it", cmd: cgla, raw: "\r\n+CME ERROR: SIM_BUSY\r\n", is: at.ErrBusy},
		{name: "CME text of Sierra (lpac 187)", cmd: `AT+CCHO="A0"`, raw: "\r\n+CME ERROR: Parameters error\r\n", is: at.ErrBadParameter},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				conn, s := attest.Dial(t, attest.Always(tc.raw))
				all, cancel := conn.Notify("")
				defer cancel()
				lines, err := conn.Command(t.Context(), tc.cmd)
				if !errors.Is(err, tc.is) {
					t.Fatalf("error %v, want %v", err, tc.is)
				}
				if tc.is != nil && (fault.Of(err).Code == fault.Internal || fault.Of(err).Next == "") {
					t.Errorf("error %v does not explain itself", err)
				}
				if !slices.Equal(lines, tc.lines) {
					t.Errorf("lines %q, want %q", lines, tc.lines)
				}
				for _, want := range tc.urcs {
					if got := <-all; got != want {
						t.Errorf("message %q, want %q", got, want)
					}
				}
				if got := s.Commands(); !slices.Equal(got, []string{tc.cmd}) {
					t.Errorf("the modem got %q", got)
				}
			})
		})
	}
}

func TestCMEErrors(t *testing.T) {
	for code, want := range map[int]struct {
		is   error
		text string
	}{
		0: {nil, "internal failure"}, 3: {at.ErrNotAllowed, ""}, 4: {at.ErrNotSupported, ""}, 10: {at.ErrNoSIM, ""},
		11: {at.ErrLocked, "PIN"}, 12: {at.ErrLocked, "PUK"}, 13: {at.ErrSIMFailure, ""}, 14: {at.ErrBusy, "SIM is busy"},
		15: {at.ErrSIMFailure, "does not accept"}, 16: {nil, "password or PIN"}, 17: {at.ErrLocked, "PIN2"}, 18: {at.ErrLocked, "PIN2"},
		20: {nil, "full"}, 21: {at.ErrNotFound, ""}, 22: {at.ErrNotFound, "application"}, 23: {at.ErrSIMFailure, ""},
		30: {at.ErrNoService, ""}, 31: {at.ErrTimeoutNetwork, ""}, 32: {at.ErrNoService, "refuses"}, 50: {at.ErrBadParameter, ""},
		100: {nil, "does not know"}, 149: {at.ErrRefused, "password"}, 515: {nil, "refused"},
	} {
		t.Run(strconv.Itoa(code), func(t *testing.T) {
			conn, _ := attest.Dial(t, attest.Always(fmt.Sprintf("\r\n+CME ERROR: %d\r\n", code)))
			_, err := conn.Command(t.Context(), "AT+CPIN?")
			var cme *at.CMEError
			if !errors.As(err, &cme) || cme.Code != code || !at.Refused(err) {
				t.Fatalf("error %v, want CMEError %d", err, code)
			}
			if want.is != nil && !errors.Is(err, want.is) {
				t.Errorf("%v does not match %v", err, want.is)
			}
			f := fault.Of(err)
			if f.Code == "" || f.Code == fault.Internal || f.Who == "" || f.Next == "" || !strings.Contains(f.Text, want.text) {
				t.Errorf("explanation %+v", f)
			}
		})
	}
}

func TestCMSErrorAndUnknownText(t *testing.T) {
	for raw, want := range map[string]string{
		"+CMS ERROR: 500":                        "AT+CMGS: CMS ERROR 500",
		"+CMS ERROR: busy":                       "AT+CMGS: CMS ERROR: busy",
		"+CME ERROR: gone fishing \x01":          "AT+CMGS: CME ERROR: gone fishing ?",
		"+CME ERROR:":                            "AT+CMGS: CME ERROR 100: unknown",
		"+CME ERROR: " + strings.Repeat("x", 99): "AT+CMGS: CME ERROR: " + strings.Repeat("x", 80) + "…",
	} {
		conn, _ := attest.Dial(t, attest.Always("\r\n"+raw+"\r\n"))
		_, err := conn.Command(t.Context(), "AT+CMGS=1")
		if err == nil || err.Error() != want || !at.Refused(err) || fault.Of(err).Code != "modem-error" {
			t.Errorf("%q: %v (%+v), want %s", raw, err, fault.Of(err), want)
		}
	}
}

// The answer to a command that was given up comes late: the next command must
// not take it. The modem answers in order, so it comes before the probe's.
func TestLateAnswerIsNotTheNextOne(t *testing.T) {
	for _, end := range []struct {
		name string
		ctx  func(context.Context) (context.Context, context.CancelFunc)
		is   []error
	}{
		{"deadline", func(ctx context.Context) (context.Context, context.CancelFunc) {
			return context.WithTimeout(ctx, time.Second)
		},
			[]error{at.ErrTimeout, context.DeadlineExceeded}},
		{"default deadline", func(ctx context.Context) (context.Context, context.CancelFunc) { return ctx, func() {} },
			[]error{at.ErrTimeout, context.DeadlineExceeded}},
		{"cancelled", func(ctx context.Context) (context.Context, context.CancelFunc) {
			ctx, cancel := context.WithCancel(ctx)
			time.AfterFunc(time.Second, cancel)
			return ctx, cancel
		}, []error{context.Canceled}},
	} {
		for _, busy := range []time.Duration{500 * time.Millisecond, 3 * time.Second, 9 * time.Second} {
			t.Run(fmt.Sprintf("%s, %v late", end.name, busy), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					n := 0
					conn, _ := attest.Dial(t, func(cmd string) string {
						switch {
						case strings.HasPrefix(cmd, "AT+CGLA"):
							n++
							if n == 1 {
								time.Sleep(at.DefaultTimeout + busy) // the modem is busy with the card, commands queue up
								return "\r\n+CGLA: 4,\"6A82\"\r\n\r\nOK\r\n"
							}
							return "\r\n+CGLA: 4,\"9000\"\r\n\r\nOK\r\n"
						case cmd == "AT+CMEE?":
							return "\r\n+CMEE: 1\r\n\r\nOK\r\n"
						}
						return "\r\nERROR\r\n"
					})
					ctx, cancel := end.ctx(t.Context())
					defer cancel()
					_, err := conn.Command(ctx, `AT+CGLA=1,10,"0000000000"`)
					for _, is := range end.is {
						if !errors.Is(err, is) {
							t.Errorf("error %v, want %v", err, is)
						}
					}
					ctx, cancel = context.WithTimeout(t.Context(), 2*time.Minute)
					defer cancel()
					lines, err := conn.Command(ctx, `AT+CGLA=1,10,"1111111111"`)
					if err != nil || !slices.Equal(lines, []string{`+CGLA: 4,"9000"`}) {
						t.Fatalf("next command: %q, %v", lines, err)
					}
					// And the one after it is in step too.
					if lines, err = conn.Command(t.Context(), `AT+CGLA=1,10,"2222222222"`); err != nil || len(lines) != 1 {
						t.Fatalf("third command: %q, %v", lines, err)
					}
				})
			})
		}
	}
}

// A modem that does not know the probe: quiet must do.
func TestResyncWithoutProbe(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		silent := true
		conn, s := attest.Dial(t, func(cmd string) string {
			switch {
			case cmd == "AT+CMEE?":
				return "\r\nERROR\r\n"
			case silent:
				silent = false
				return ""
			}
			return "\r\n+CFUN: 1\r\n\r\nOK\r\n"
		})
		if _, err := conn.Command(t.Context(), "AT+CFUN?"); !errors.Is(err, at.ErrTimeout) {
			t.Fatalf("error %v, want ErrTimeout", err)
		}
		lines, err := conn.Command(t.Context(), "AT+CFUN?")
		if err != nil || len(lines) != 1 {
			t.Fatalf("%q, %v", lines, err)
		}
		if got, want := s.Commands(), []string{"AT+CFUN?", "AT+CMEE?", "AT+CFUN?"}; !slices.Equal(got, want) {
			t.Errorf("the modem got %q, want %q", got, want)
		}
	})
}

func TestResync(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		conn, s := attest.Dial(t, func(cmd string) string {
			if cmd == "AT+CMEE?" {
				return "rest of somebody's answer\"\r\nOK\r\n+CMEE: 0\r\n\r\nOK\r\n"
			}
			return "\r\nOK\r\n"
		})
		s.Say("\r\n+CGLA: 1") // and no end
		if err := conn.Resync(t.Context()); err != nil {
			t.Fatal(err)
		}
		if lines, err := conn.Command(t.Context(), "AT"); err != nil || len(lines) != 0 {
			t.Fatalf("%q, %v", lines, err)
		}
	})
	synctest.Test(t, func(t *testing.T) { // a dead modem
		conn, _ := attest.Dial(t, attest.Always(""))
		if err := conn.Resync(t.Context()); !errors.Is(err, at.ErrTimeout) {
			t.Fatalf("error %v, want ErrTimeout", err)
		}
		if _, err := conn.Command(t.Context(), "AT"); !errors.Is(err, at.ErrTimeout) {
			t.Fatalf("error %v, want ErrTimeout", err)
		}
	})
}

func TestMissingOK(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		conn, _ := attest.Dial(t, func(cmd string) string {
			if cmd == "AT+CGSN" {
				return "\r\n356938035643809\r\n"
			}
			return "\r\n+CMEE: 1\r\n\r\nOK\r\n"
		})
		begin := time.Now()
		lines, err := conn.Run(t.Context(), at.Request{Text: "AT+CGSN", Settle: 2 * time.Second})
		if !errors.Is(err, at.ErrNoFinal) || !slices.Equal(lines, []string{"356938035643809"}) {
			t.Fatalf("%q, %v, want the line and ErrNoFinal", lines, err)
		}
		if took := time.Since(begin); took != 2*time.Second {
			t.Errorf("took %v", took)
		}
		// Without Settle it is a timeout, with the lines.
		lines, err = conn.Command(t.Context(), "AT+CGSN")
		if !errors.Is(err, at.ErrTimeout) || len(lines) != 1 {
			t.Fatalf("%q, %v, want the line and ErrTimeout", lines, err)
		}
	})
}

func TestOtherPrefixes(t *testing.T) {
	conn, _ := attest.Dial(t, attest.Always("\r\nICCID: 89330100000000000017\r\n+ICCID: 1\r\n\r\nOK\r\n"))
	lines, err := conn.Run(t.Context(), at.Request{Text: "AT+CICCID", Prefixes: []string{"+ICCID", "ICCID"}})
	if err != nil || len(lines) != 2 {
		t.Fatalf("%q, %v", lines, err)
	}
}

func TestHangupIsNotSilence(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var s *attest.Modem
		var conn *at.Conn
		conn, s = attest.Dial(t, func(string) string { s.Close(); return "" })
		messages, cancel := conn.Notify("")
		defer cancel()
		_, err := conn.Command(t.Context(), "AT+CFUN=0")
		if !errors.Is(err, at.ErrHangup) || !errors.Is(err, io.EOF) || errors.Is(err, at.ErrTimeout) {
			t.Fatalf("error %v, want ErrHangup with its cause", err)
		}
		<-conn.Done()
		if _, ok := <-messages; ok {
			t.Error("a message after the hang-up")
		}
		if _, err := conn.Command(t.Context(), "AT"); !errors.Is(err, at.ErrHangup) || !errors.Is(conn.Err(), at.ErrHangup) {
			t.Errorf("later command: %v; connection: %v", err, conn.Err())
		}
		closed, cancel := conn.Notify("+CPIN")
		defer cancel()
		if _, ok := <-closed; ok {
			t.Error("a subscription to a dead line is open")
		}
	})
}

func TestCloseEndsEverything(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		conn, _ := attest.Dial(t, attest.Always(""))
		errs := make(chan error, 3)
		for range 3 { // one runs, two wait
			go func() {
				_, err := conn.Command(t.Context(), "AT")
				errs <- err
			}()
		}
		synctest.Wait()
		if err := conn.Close(); err != nil {
			t.Fatal(err)
		}
		for range 3 {
			if err := <-errs; !errors.Is(err, at.ErrClosed) {
				t.Errorf("error %v, want ErrClosed", err)
			}
		}
		if err := conn.Close(); err != nil {
			t.Errorf("second close: %v", err)
		}
		if err := conn.Resync(t.Context()); !errors.Is(err, at.ErrClosed) {
			t.Errorf("resync: %v, want ErrClosed", err)
		}
	})
}

func TestCommandsWaitForEachOther(t *testing.T) {
	conn, _ := attest.Dial(t, func(cmd string) string {
		return fmt.Sprintf("%s\r\r\n+CIND: \"%s\"\r\n\r\nOK\r\n", cmd, cmd[len("AT+QENG="):])
	})
	var wg sync.WaitGroup
	for i := range 50 {
		wg.Go(func() {
			lines, err := conn.Run(t.Context(), at.Request{Text: fmt.Sprintf("AT+QENG=%d", i), Prefixes: []string{"+CIND"}})
			if want := fmt.Sprintf(`+CIND: "%d"`, i); err != nil || !slices.Equal(lines, []string{want}) {
				t.Errorf("%q, %v, want %s", lines, err, want)
			}
		})
	}
	wg.Wait()
}

func TestWaitingForTheSlotIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		conn, s := attest.Dial(t, attest.Always(""))
		go func() { // it holds the slot until the end of the test
			if _, err := conn.Command(t.Context(), "AT+COPS=?"); err == nil {
				t.Error("an answer from a silent modem")
			}
		}()
		synctest.Wait()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := conn.Command(ctx, "AT"); !errors.Is(err, at.ErrTimeout) {
			t.Fatalf("error %v, want ErrTimeout", err)
		}
		over, cancel := context.WithCancel(t.Context())
		cancel()
		if _, err := conn.Command(over, "AT"); !errors.Is(err, context.Canceled) {
			t.Fatalf("error %v, want context.Canceled", err)
		}
		if got := s.Commands(); len(got) != 1 {
			t.Errorf("the modem got %q", got)
		}
	})
}

// A context that is over sends nothing and leaves the line in step.
func TestContextOverBefore(t *testing.T) {
	conn, s := attest.Dial(t, attest.Always("\r\nOK\r\n"))
	over, cancel := context.WithCancel(t.Context())
	cancel()
	for range 20 { // the slot is free: select may take either way
		if _, err := conn.Command(over, "AT"); !errors.Is(err, context.Canceled) {
			t.Fatalf("error %v, want context.Canceled", err)
		}
	}
	if _, err := conn.Command(t.Context(), "AT"); err != nil {
		t.Fatal(err)
	}
	if got := s.Commands(); !slices.Equal(got, []string{"AT"}) {
		t.Errorf("the modem got %q", got)
	}
}

// deaf is a line that takes no bytes.
type deaf struct {
	net.Conn
	closed chan struct{}
	once   sync.Once
}

func (d *deaf) Write([]byte) (int, error) { <-d.closed; return 0, io.ErrClosedPipe }
func (d *deaf) Read([]byte) (int, error)  { <-d.closed; return 0, io.ErrClosedPipe }
func (d *deaf) Close() error              { d.once.Do(func() { close(d.closed) }); return nil }

func TestLineThatTakesNoBytes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		conn := at.New(&deaf{closed: make(chan struct{})})
		defer conn.Close()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := conn.Command(ctx, "AT"); !errors.Is(err, at.ErrTimeout) {
			t.Fatalf("error %v, want ErrTimeout", err)
		}
		ctx, cancel = context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if _, err := conn.Command(ctx, "AT"); !errors.Is(err, at.ErrHangup) {
			t.Fatalf("error %v, want ErrHangup: the line is stuck", err)
		}
	})
}

// idle is a stream that returns from Read with nothing, for ever.
type idle struct{ deaf }

func (*idle) Read([]byte) (int, error) { return 0, nil }

func TestStreamWithoutProgress(t *testing.T) {
	conn := at.New(&idle{deaf{closed: make(chan struct{})}})
	defer conn.Close()
	<-conn.Done()
	if err := conn.Err(); !errors.Is(err, at.ErrHangup) || !errors.Is(err, io.ErrNoProgress) {
		t.Errorf("error %v, want ErrHangup and io.ErrNoProgress", err)
	}
}

func TestTooLong(t *testing.T) {
	for name, raw := range map[string]string{
		"a line":        "+CFUN: " + strings.Repeat("0", at.MaxLine) + "\r\nOK\r\n",
		"many lines":    strings.Repeat("+CFUN: 1\r\n", 1000) + "OK\r\n",
		"a long answer": strings.Repeat("+CFUN: "+strings.Repeat("0", 4000)+"\r\n", 20) + "OK\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			first := true
			conn, _ := attest.Dial(t, func(string) string {
				if first {
					first = false
					return raw
				}
				return "\r\n+CFUN: 1\r\nOK\r\n"
			})
			if _, err := conn.Command(t.Context(), "AT+CFUN?"); !errors.Is(err, at.ErrTooLong) {
				t.Fatalf("error %v, want ErrTooLong", err)
			}
			if lines, err := conn.Command(t.Context(), "AT+CFUN?"); err != nil || len(lines) != 1 {
				t.Fatalf("the next command: %q, %v", lines, err)
			}
		})
	}
	synctest.Test(t, func(t *testing.T) { // a line without an end, then nothing
		conn, _ := attest.Dial(t, attest.Always(strings.Repeat("~", at.MaxLine+9)))
		if _, err := conn.Command(t.Context(), "AT+CFUN?"); !errors.Is(err, at.ErrTooLong) || !errors.Is(err, at.ErrTimeout) {
			t.Fatalf("error %v, want ErrTooLong and ErrTimeout", err)
		}
	})
}

// A prompt that nobody wants is answered with escape.
func TestPrompt(t *testing.T) {
	ours, theirs := net.Pipe()
	conn := at.New(ours)
	defer conn.Close()
	modem := make(chan error, 1)
	go func() {
		r := bufio.NewReader(theirs)
		_, err := r.ReadString('\r')
		if err == nil {
			_, err = io.WriteString(theirs, "\r\n> ")
		}
		if err == nil {
			var b byte
			if b, err = r.ReadByte(); err == nil && b != 0x1B {
				err = fmt.Errorf("the modem got %q, want escape", b)
			}
		}
		if err == nil {
			_, err = io.WriteString(theirs, "\r\nOK\r\n")
		}
		modem <- err
	}()
	if _, err := conn.Command(t.Context(), "AT+CMGW"); !errors.Is(err, at.ErrPrompt) {
		t.Errorf("error %v, want ErrPrompt", err)
	}
	if err := <-modem; err != nil {
		t.Error(err)
	}
}

func TestCommandsThatAreNotSent(t *testing.T) {
	conn, s := attest.Dial(t, attest.Always("\r\nOK\r\n"))
	for _, cmd := range []string{"", "AT\rAT+CFUN=0", "AT\n", "AT\x1b", "AT\x1a", "AT\x00", "ATÄ", "AT" + strings.Repeat("x", 2048)} {
		if _, err := conn.Command(t.Context(), cmd); !errors.Is(err, at.ErrBadCommand) {
			t.Errorf("%.10q: error %v, want ErrBadCommand", cmd, err)
		}
	}
	if got := s.Commands(); len(got) != 0 {
		t.Errorf("the modem got %q", got)
	}
}

func TestNotify(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var seen []string
		conn, s := attest.Dial(t, attest.Always("\r\nOK\r\n"), at.WithURC(func(line string) { seen = append(seen, line) }))
		pin, cancelPIN := conn.Notify("+CPIN")
		all, cancelAll := conn.Notify("")
		defer cancelAll()
		s.Say("\r\n+CPIN: READY\r\n\r\nnonsense\r\n\r\nOK\r\n\r\n+CME ERROR: 3\r\n\r\nRDY\r\n")
		synctest.Wait()
		if got := <-pin; got != "+CPIN: READY" || len(pin) != 0 {
			t.Errorf("+CPIN: %q and %d more", got, len(pin))
		}
		if a, b := <-all, <-all; a != "+CPIN: READY" || b != "RDY" || len(all) != 0 {
			t.Errorf("all: %q, %q and %d more", a, b, len(all))
		}
		if want := []string{"+CPIN: READY", "RDY"}; !slices.Equal(seen, want) {
			t.Errorf("WithURC: %q, want %q", seen, want)
		}
		cancelPIN()
		cancelPIN()
		if _, ok := <-pin; ok {
			t.Error("cancelled subscription is open")
		}
	})
}

// A subscriber that sleeps loses the oldest messages and stops nobody.
func TestSlowSubscriber(t *testing.T) {
	conn, s := attest.Dial(t, attest.Always("\r\nOK\r\n"))
	slow, cancel := conn.Notify("+N:")
	defer cancel()
	const sent = 100
	for i := range sent {
		s.Say(fmt.Sprintf("\r\n+N: %d\r\n", i))
	}
	if _, err := conn.Command(t.Context(), "AT"); err != nil {
		t.Fatal(err)
	}
	kept := len(slow)
	if kept == 0 || int(conn.Dropped()) != sent-kept {
		t.Errorf("%d kept, %d dropped of %d", kept, conn.Dropped(), sent)
	}
	if got, want := <-slow, fmt.Sprintf("+N: %d", sent-kept); got != want {
		t.Errorf("oldest kept %q, want %q", got, want)
	}
}

func TestLogIsRedacted(t *testing.T) {
	var mu sync.Mutex
	var log bytes.Buffer
	h := slog.NewTextHandler(&lockedWriter{&mu, &log}, &slog.HandlerOptions{Level: at.LevelTrace})
	conn, s := attest.Dial(t, func(cmd string) string {
		switch {
		case strings.HasPrefix(cmd, "AT+CGLA"):
			return "\r\n+CGLA: 8,\"5EC2E700\"\r\n\r\nOK\r\n"
		case cmd == "AT+CIMI":
			return "\r\n001010123456789\r\n\r\nOK\r\n"
		case cmd == "AT+CMEE?":
			return "\r\n+CMEE: 1\r\n\r\nOK\r\n"
		}
		return "\r\n+CME ERROR: 50\r\n"
	}, at.WithLogger(slog.New(h)))
	s.Say("\r\n+CCID: 89330100000000000017\r\n")
	if err := conn.Resync(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, cmd := range []string{`AT+CGLA=1,10,"5EC2E7FFFF"`, "AT+CIMI", `AT+CGAUTH=1,1,"user","hunter2"`, "ATD*99***7#"} {
		_, err := conn.Command(t.Context(), cmd)
		if err != nil && strings.Contains(err.Error(), "hunter2") {
			t.Errorf("error shows a password: %v", err)
		}
	}
	mu.Lock()
	defer mu.Unlock()
	text := log.String()
	for _, secret := range []string{"5EC2E7", "001010123456789", "hunter2", "user", "8933010000", "***7"} {
		if strings.Contains(text, secret) {
			t.Errorf("the log shows %q:\n%s", secret, text)
		}
	}
	for _, want := range []string{"name=+CGLA", "name=+CIMI", "name=+CGAUTH", "name=ATD", "name=+CCID", "msg=resync"} {
		if !strings.Contains(text, want) {
			t.Errorf("the log lacks %q:\n%s", want, text)
		}
	}
}

type lockedWriter struct {
	mu *sync.Mutex
	w  io.Writer
}

func (l *lockedWriter) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.w.Write(b)
}
