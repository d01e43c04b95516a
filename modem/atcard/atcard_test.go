package atcard_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"lpad/apdu"
	"lpad/apdu/apdutest"
	"lpad/internal/fault"
	"lpad/modem/at"
	"lpad/modem/at/attest"
	"lpad/modem/atcard"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// dialect is a modem of fixed answers: by the beginning of the command.
type dialect map[string]string

func (d dialect) answer(cmd string) string {
	best := ""
	for p := range d {
		if strings.HasPrefix(cmd, p) && len(p) > len(best) {
			best = p
		}
	}
	if best == "" {
		if cmd == "AT+CMEE?" {
			return "\r\n+CMEE: 1\r\n\r\nOK\r\n"
		}
		return "\r\nOK\r\n"
	}
	return strings.ReplaceAll(d[best], "<echo>", cmd)
}

const ok = "\r\n\r\nOK\r\n"

// own marks a row of ours: nobody has reported it, but it must not hurt.
const own = "own"

// The torture list, each row with its source: what the modem says to the opening
// of a channel and to an APDU. The lines themselves are in modem/at (TestTorture,
// TestAnswers). What is not here, elsewhere: class bytes of channels 1 to 19,
// TestClassByte; late answers, TestCancelledInTheMiddle, TestOpenedTooLate,
// TestChannelOpenedTooLate; status words, apdu.TestSW, TestTransmit and
// TestOpenChannel; proactive commands (91xx), apdu.TestTransmit. Beyond APDUs:
// notifications with number 0 and above 255, agent/rsp.TestNotification and
// es10.TestOddNotifications, TestRetrieveFallback; ICCIDs of 18 to 20 digits and
// with letters, agent/rsp.TestICCID; activation codes of 3 to 5 parts,
// agent/rsp.TestActivationCode; base64 with line ends and without its padding,
// agent/rsp/es9p.TestTolerated; HTTP 204 and an empty 200, es9p.TestSession and
// TestHTTPStatus.
func TestTortureList(t *testing.T) {
	for _, tc := range []struct {
		name, source string
		ccho, cgla   string // answers
		id           string // of the channel; empty: session:1
		openIs       error  // of OpenChannel
		is           error  // of Transmit
		data         string // of the response
		more         dialect
	}{
		{name: "+CCHO with a blank", source: "https://www.3gpp.org/dynareport/27007.htm", ccho: "\r\n+CCHO: 1" + ok, cgla: "\r\n+CGLA: 4,\"9000\"" + ok},
		{name: "+CCHO without a blank", source: "https://github.com/estkme-group/lpac/commit/187c42d", ccho: "\r\n+CCHO:1" + ok, cgla: "\r\n+CGLA:4,\"9000\"" + ok},
		{name: "bare handle", source: "https://github.com/estkme-group/lpac/issues/445", ccho: "\r\n1" + ok, cgla: "\r\n+CGLA: 4,\"9000\"" + ok},
		{name: "handle of 64 bits", source: "https://github.com/estkme-group/lpac/issues/138", ccho: "\r\n+CCHO: 00000000038aa32f" + ok,
			id: "session:00000000038aa32f", cgla: "\r\n+CGLA: 4,\"9000\"" + ok},
		{name: "quoted handle", source: own, ccho: "\r\n+CCHO: \"1\"" + ok, cgla: "\r\n+CGLA: 4,\"9000\"" + ok},
		{name: "unquoted hex", source: "https://www.3gpp.org/dynareport/27007.htm", ccho: "\r\n+CCHO: 1" + ok, cgla: "\r\n+CGLA: 4,9000" + ok},
		{name: "lower case hex", source: "https://www.3gpp.org/dynareport/27007.htm", ccho: "\r\n+CCHO: 1" + ok, cgla: "\r\n+CGLA: 8,\"abcd9000\"" + ok, data: "ABCD"},
		{name: "no prefix at all", source: "https://github.com/estkme-group/lpac/issues/179", ccho: "\r\n1" + ok, cgla: "\r\n4,\"9000\"" + ok},
		{name: "echo on", source: "https://github.com/estkme-group/lpac/issues/173", ccho: "<echo>\r\r\n+CCHO: 1" + ok, cgla: "<echo>\r\r\n+CGLA: 4,\"9000\"" + ok},
		{name: "message between command and answer", source: "https://www.3gpp.org/dynareport/27007.htm", ccho: "\r\n+CREG: 1\r\n\r\n+CCHO: 1" + ok,
			cgla: "<echo>\r\r\n+QIND: \"csq\",20,99\r\n\r\n+CGLA: 4,\"9000\"" + ok},
		{name: "two lines glued", source: "https://github.com/estkme-group/lpac/issues/173", ccho: "\r\n+CCHO: 1" + ok, cgla: "\r\n+CGLA: 4,\"6A82\"><echo>\r\r\n+CGLA: 4,\"9000\"" + ok},
		{name: "OK glued to the answer", source: "https://github.com/estkme-group/lpac/issues/173", ccho: "\r\n+CCHO: 1OK\r\n", cgla: "\r\n+CGLA: 4,\"9000\"OK\r\n"},
		{name: "OK missing", source: "https://github.com/MengMengCode/VoCat/pull/40", ccho: "\r\n+CCHO: 1\r\n", cgla: "\r\n+CGLA: 4,\"9000\"\r\n"},
		{name: "data inline with 9000", source: "https://github.com/MddIdd/mdd-sim-gateway/pull/74", ccho: "\r\n+CCHO: 1" + ok,
			cgla: "\r\n+CGLA: 46,\"BF3E125A10890490321234512345123456789012359000\"" + ok, data: "BF3E125A1089049032123451234512345678901235"},
		{name: "SW 91xx is a success", source: "https://github.com/MengMengCode/VoCat", ccho: "\r\n+CCHO: 1" + ok, cgla: "\r\n+CGLA: 4,\"910B\"" + ok},
		{name: "SW 61xx, then 6Cxx", source: "https://github.com/estkme-group/lpac/issues/164", ccho: "\r\n+CCHO: 1" + ok, cgla: "\r\n+CGLA: 4,\"611A\"" + ok, data: "ABCD",
			more: dialect{`AT+CGLA=1,10,"80C000001A"`: "\r\n+CGLA:4,\"6C02\"" + ok, `AT+CGLA=1,10,"80C0000002"`: "\r\n+CGLA: 8,\"ABCD9000\"" + ok}},
		{name: "unquoted, OK glued after a letter", source: own, ccho: "\r\n1OK\r\n", cgla: "\r\n+CGLA: 4,61ABOK\r\n", data: "AB",
			more: dialect{`AT+CGLA=1,10,"80C00000AB"`: "\r\n+CGLA: 6,AB9000OK\r\n"}},
		{name: "SW 6601", source: "https://gitea.angry.im/PeterCxy/OpenEUICC/commit/ddc421d", ccho: "\r\n+CCHO: 1" + ok, cgla: "\r\n+CGLA: 4,\"6601\"" + ok, is: &apdu.StatusError{}},
		{name: "SW 6A81", source: "https://github.com/MengMengCode/VoCat", ccho: "\r\n+CCHO: 1" + ok, cgla: "\r\n+CGLA: 4,\"6A81\"" + ok, is: apdu.ErrUnsupported},
		{name: "SW 6A82", source: "https://www.3gpp.org/dynareport/27007.htm", ccho: "\r\n+CCHO: 1" + ok, cgla: "\r\n+CGLA: 4,\"6A82\"" + ok, is: apdu.ErrNotFound},
		{name: "SW 6985", source: "https://github.com/Iapyx-Informatica/onomondo-ipa/issues/3", ccho: "\r\n+CCHO: 1" + ok, cgla: "\r\n+CGLA: 4,\"6985\"" + ok, is: apdu.ErrConditions},
		{name: "truncated", source: "https://github.com/estkme-group/lpac/issues/143", ccho: "\r\n+CCHO: 1" + ok, cgla: "\r\n+CGLA: 46,\"BF3E125A10890490329000\"" + ok, is: atcard.ErrTruncated},
		{name: "truncated within the quotes", source: "https://github.com/estkme-group/lpac/issues/143", ccho: "\r\n+CCHO: 1" + ok, cgla: "\r\n+CGLA: 46,\"BF3E125A1089" + ok, is: atcard.ErrTruncated},
		{name: "more than announced", source: "https://github.com/estkme-group/lpac/issues/143", ccho: "\r\n+CCHO: 1" + ok, cgla: "\r\n+CGLA: 4,\"00009000\"" + ok, is: atcard.ErrTruncated},
		{name: "no hex", source: own, ccho: "\r\n+CCHO: 1" + ok, cgla: "\r\n+CGLA: 4,\"90G0\"" + ok, is: atcard.ErrMalformed},
		{name: "half a byte", source: own, ccho: "\r\n+CCHO: 1" + ok, cgla: "\r\n+CGLA: 5,\"90000\"" + ok, is: atcard.ErrMalformed},
		{name: "no status word", source: own, ccho: "\r\n+CCHO: 1" + ok, cgla: "\r\n+CGLA: 2,\"90\"" + ok, is: apdu.ErrResponse},
		{name: "no length", source: own, ccho: "\r\n+CCHO: 1" + ok, cgla: "\r\n+CGLA: \"9000\"" + ok, is: atcard.ErrMalformed},
		{name: "OK alone to an APDU", source: own, ccho: "\r\n+CCHO: 1" + ok, cgla: "\r\nOK\r\n", is: atcard.ErrMalformed},
		{name: "two bare lines", source: own, ccho: "\r\n+CCHO: 1" + ok, cgla: "\r\n4\r\n9000" + ok, is: atcard.ErrMalformed},
		{name: "ERROR at random", source: "https://github.com/estkme-group/lpac/issues/186", ccho: "\r\n+CCHO: 1" + ok, cgla: "\r\nERROR\r\n", is: at.ErrError},
		{name: "CME 3", source: "https://github.com/estkme-group/lpac/issues/300", ccho: "\r\n+CCHO: 1" + ok, cgla: "\r\n+CME ERROR: 3\r\n", is: at.ErrNotAllowed},
		{name: "CME 0 after a hot swap", source: "https://github.com/MengMengCode/VoCat", ccho: "\r\n+CCHO: 1" + ok, cgla: "\r\n+CME ERROR: 0\r\n", is: &at.CMEError{}},
		{name: "CME 13", source: "https://github.com/commaai/openpilot/pull/37847", ccho: "\r\n+CCHO: 1" + ok, cgla: "\r\n+CME ERROR: 13\r\n", is: at.ErrSIMFailure},
		{name: "CME 14", source: "https://www.3gpp.org/dynareport/27007.htm", ccho: "\r\n+CCHO: 1" + ok, cgla: "\r\n+CME ERROR: 14\r\n", is: at.ErrBusy},
		{name: "CME 100", source: "https://www.3gpp.org/dynareport/27007.htm", ccho: "\r\n+CCHO: 1" + ok, cgla: "\r\n+CME ERROR: 100\r\n", is: &at.CMEError{}},
		{name: "CME in words", source: "https://www.3gpp.org/dynareport/27007.htm", ccho: "\r\n+CCHO: 1" + ok, cgla: "\r\n+CME ERROR: SIM busy\r\n", is: at.ErrBusy},
		{name: "session forgotten", source: "https://www.3gpp.org/dynareport/27007.htm", ccho: "\r\n+CCHO: 1" + ok, cgla: "\r\n+CME ERROR: 21\r\n", is: apdu.ErrChannelClosed},
		{name: "no such application", source: "https://www.3gpp.org/dynareport/27007.htm", ccho: "\r\n+CME ERROR: 22\r\n", openIs: apdu.ErrNotFound},
		{name: "no channel left", source: "https://www.3gpp.org/dynareport/27007.htm", ccho: "\r\n+CME ERROR: 20\r\n", openIs: apdu.ErrNoChannel},
		{name: "no SIM", source: "https://www.3gpp.org/dynareport/27007.htm", ccho: "\r\n+CME ERROR: 10\r\n", openIs: at.ErrNoSIM},
		{name: "handle that is syntax", source: own, ccho: "\r\n+CCHO: 1;+CFUN=0" + ok, openIs: atcard.ErrMalformed},
		{name: "OK alone to the opening", source: own, ccho: "\r\nOK\r\n", openIs: atcard.ErrMalformed},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				if tc.source != own && !strings.HasPrefix(tc.source, "https://") {
					t.Errorf("source %q", tc.source)
				}
				d := dialect{"AT+CCHO": tc.ccho, "AT+CGLA": tc.cgla}
				maps.Copy(d, tc.more)
				conn, s := attest.Dial(t, d.answer)
				card, err := atcard.Open(t.Context(), conn, atcard.Options{Path: atcard.CCHO})
				if err != nil {
					t.Fatal(err)
				}
				ch, err := card.OpenChannel(t.Context(), aid)
				if !match(err, tc.openIs) {
					t.Fatalf("open: %v, want %v", err, tc.openIs)
				}
				if tc.openIs != nil {
					return
				}
				want := tc.id
				if want == "" {
					want = "session:1"
				}
				if ch.ID() != want {
					t.Errorf("channel %q, want %q", ch.ID(), want)
				}
				r, err := ch.Transmit(t.Context(), storeData(0xBF, 0x3E, 0x03, 0x5C, 0x01, 0x5A))
				if !match(err, tc.is) {
					t.Fatalf("transmit: %v, want %v", err, tc.is)
				}
				if err != nil && (fault.Of(err).Code == fault.Internal || fault.Of(err).Next == "") {
					t.Errorf("%v does not explain itself", err)
				}
				if got := fmt.Sprintf("%X", r.Data); err == nil && got != tc.data {
					t.Errorf("data %s, want %s", got, tc.data)
				}
				if err := ch.Close(t.Context()); err != nil {
					t.Errorf("close: %v", err)
				}
				handle := strings.TrimPrefix(want, "session:")
				sent := s.Commands()
				if strings.Contains(strings.Join(sent, "\n"), "=?") {
					t.Errorf("the modem was asked by a test command: %q", sent) // tells nothing: https://github.com/estkme-group/lpac/issues/300
				}
				for _, want := range []string{`AT+CCHO="A0000005591010FFFFFFFF8900000100"`, "AT+CGLA=" + handle + `,22,"80E2910006BF3E035C015A"`, "AT+CCHC=" + handle} {
					if !slices.Contains(sent, want) {
						t.Errorf("the modem did not get %s but %q", want, sent)
					}
				}
			})
		})
	}
}

// match is errors.Is, or errors.As for the two types.
func match(err, want error) bool {
	switch want.(type) {
	case *apdu.StatusError:
		var e *apdu.StatusError
		return errors.As(err, &e)
	case *at.CMEError:
		var e *at.CMEError
		return errors.As(err, &e)
	}
	return errors.Is(err, want)
}

// The path is chosen by doing, and by what the refusal says.
func TestAuto(t *testing.T) {
	csim := func(channel, sel string) dialect {
		return dialect{
			"AT+CSIM=10,\"0070000001\"": "\r\n+CSIM: 6,\"" + channel + "\"" + ok,
			"AT+CSIM=42":                "\r\n+CSIM: 4,\"" + sel + "\"" + ok,
			"AT+CSIM=10,\"0070800100\"": "\r\n+CSIM: 4,\"9000\"" + ok,
		}
	}
	for _, tc := range []struct {
		name, ccho string
		csim       dialect
		path       atcard.Path
		is         error
		noCSIM     bool // AT+CSIM must not be tried
	}{
		{name: "CCHO works", ccho: "\r\n+CCHO: 1" + ok, path: atcard.CCHO, noCSIM: true},
		{name: "ERROR (EC20, DW5821e: lpac#164)", ccho: "\r\nERROR\r\n", csim: csim("019000", "9000"), path: atcard.CSIM},
		{name: "CME 3 (firmware keeps the ISD-R)", ccho: "\r\n+CME ERROR: 3\r\n", csim: csim("019000", "9000"), path: atcard.CSIM},
		{name: "CME 4", ccho: "\r\n+CME ERROR: 4\r\n", csim: csim("019000", "9000"), path: atcard.CSIM},
		{name: "CME 100", ccho: "\r\n+CME ERROR: 100\r\n", csim: csim("019000", "9000"), path: atcard.CSIM},
		{name: "CME of the maker", ccho: "\r\n+CME ERROR: 6007\r\n", csim: csim("019000", "9000"), path: atcard.CSIM},
		{name: "words (EM9191: lpac#187)", ccho: "\r\n+CME ERROR: Parameters error\r\n", csim: csim("019000", "9000"), path: atcard.CSIM},
		{name: "silence (FM350 to =?: lpac#179)", ccho: "", csim: csim("019000", "9000"), path: atcard.CSIM},
		{name: "no such application: the card's word", ccho: "\r\n+CME ERROR: 22\r\n", is: apdu.ErrNotFound, noCSIM: true},
		{name: "no SIM", ccho: "\r\n+CME ERROR: 10\r\n", is: at.ErrNoSIM, noCSIM: true},
		{name: "SIM busy", ccho: "\r\n+CME ERROR: 14\r\n", is: at.ErrBusy, noCSIM: true},
		{name: "CSIM knows that there is no eUICC", ccho: "\r\nERROR\r\n", csim: csim("019000", "6A82"), is: apdu.ErrNotFound},
		{name: "CSIM knows that no channel is free", ccho: "\r\nERROR\r\n", csim: dialect{"AT+CSIM": "\r\n+CSIM: 4,\"6A81\"" + ok}, is: apdu.ErrNoChannel},
		{name: "neither: the first reason counts", ccho: "\r\n+CME ERROR: 3\r\n", csim: dialect{"AT+CSIM": "\r\nERROR\r\n"}, is: at.ErrNotAllowed},
		{name: "CSIM answers nonsense", ccho: "\r\nERROR\r\n", csim: dialect{"AT+CSIM": "\r\n+CSIM: 8,\"90\"" + ok}, is: atcard.ErrTruncated},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				d := dialect{"AT+CCHO": tc.ccho}
				for k, v := range tc.csim {
					d[k] = v
				}
				conn, s := attest.Dial(t, d.answer)
				card, err := atcard.Open(t.Context(), conn, atcard.Options{})
				if err != nil {
					t.Fatal(err)
				}
				ch, err := card.OpenChannel(t.Context(), aid)
				if !errors.Is(err, tc.is) {
					t.Fatalf("error %v, want %v", err, tc.is)
				}
				if got := card.Path(); got != tc.path {
					t.Errorf("path %v, want %v", got, tc.path)
				}
				tried := strings.Contains(strings.Join(s.Commands(), "\n"), "AT+CSIM")
				if tried == tc.noCSIM {
					t.Errorf("AT+CSIM tried: %v; the modem got %q", tried, s.Commands())
				}
				if err != nil {
					return
				}
				if err := ch.Close(t.Context()); err != nil {
					t.Fatal(err)
				}
				n := len(s.Commands())
				again, err := card.OpenChannel(t.Context(), aid) // stays with what worked
				if err != nil {
					t.Fatal(err)
				}
				if first := s.Commands()[n]; strings.HasPrefix(first, "AT+CCHO") != (tc.path == atcard.CCHO) {
					t.Errorf("the second opening began with %s", first)
				}
				if err := again.Close(t.Context()); err != nil {
					t.Fatal(err)
				}
			})
		})
	}
}

// A modem without AT+CCHC leaves the session open, which is no error of ours.
func TestCloseWithoutCCHC(t *testing.T) {
	conn, _ := attest.Dial(t, dialect{"AT+CCHO": "\r\n+CCHO: 1" + ok, "AT+CCHC": "\r\nERROR\r\n"}.answer)
	card, err := atcard.Open(t.Context(), conn, atcard.Options{})
	if err != nil {
		t.Fatal(err)
	}
	ch, err := card.OpenChannel(t.Context(), aid)
	if err != nil {
		t.Fatal(err)
	}
	if err := ch.Close(t.Context()); err != nil {
		t.Errorf("close: %v", err)
	}
}

// Every APDU has its own bound, and the context can only make it shorter.
func TestBounds(t *testing.T) {
	getResponse := apdu.Command{CLA: 0x80, INS: 0xC0, Le: 16}
	more := apdu.Command{CLA: 0x80, INS: 0xE2, P1: 0x11, Data: []byte{1}}
	for _, tc := range []struct {
		name string
		opt  atcard.Options
		ctx  time.Duration
		cmd  apdu.Command
		want time.Duration
	}{
		{"any command", atcard.Options{}, 0, getResponse, 30 * time.Second},
		{"block with more to follow", atcard.Options{}, 0, more, 30 * time.Second},
		{"last block", atcard.Options{}, 0, storeData(1), 120 * time.Second},
		{"last block of a slow modem (lpac#448)", atcard.Options{LastBlock: 240 * time.Second}, 0, storeData(1), 240 * time.Second},
		{"other bound", atcard.Options{Command: time.Minute}, 0, more, time.Minute},
		{"longer context", atcard.Options{}, time.Hour, more, 30 * time.Second},
		{"shorter context", atcard.Options{}, time.Second, storeData(1), time.Second},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				conn, _ := attest.Dial(t, dialect{"AT+CCHO": "\r\n+CCHO: 1" + ok, "AT+CGLA": ""}.answer)
				tc.opt.Path = atcard.CCHO
				card, err := atcard.Open(t.Context(), conn, tc.opt)
				if err != nil {
					t.Fatal(err)
				}
				ch, err := card.OpenChannel(t.Context(), aid)
				if err != nil {
					t.Fatal(err)
				}
				ctx := t.Context()
				if tc.ctx > 0 {
					var cancel context.CancelFunc
					ctx, cancel = context.WithTimeout(ctx, tc.ctx)
					defer cancel()
				}
				begin := time.Now()
				if _, err = ch.Transmit(ctx, tc.cmd); !errors.Is(err, at.ErrTimeout) {
					t.Errorf("error %v, want ErrTimeout", err)
				}
				if took := time.Since(begin); took != tc.want {
					t.Errorf("took %v, want %v", took, tc.want)
				}
			})
		})
	}
}

// A context cancelled in the middle of an APDU breaks the channel; the answer
// that comes later is nobody's, on the new channel too.
func TestCancelledInTheMiddle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := 0
		conn, s := attest.Dial(t, func(cmd string) string {
			switch {
			case strings.HasPrefix(cmd, "AT+CCHO"):
				return "\r\n+CCHO: 1" + ok
			case strings.HasPrefix(cmd, "AT+CGLA"):
				if n++; n == 1 {
					time.Sleep(4 * time.Second)
					return "\r\n+CGLA: 8,\"DEAD9000\"" + ok
				}
				return "\r\n+CGLA: 8,\"BEEF9000\"" + ok
			case cmd == "AT+CMEE?":
				return "\r\n+CMEE: 1" + ok
			}
			return "\r\nOK\r\n"
		})
		card, err := atcard.Open(t.Context(), conn, atcard.Options{})
		if err != nil {
			t.Fatal(err)
		}
		ch, err := card.OpenChannel(t.Context(), aid)
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(time.Second, cancel)
		if _, err := ch.Transmit(ctx, storeData(1)); !errors.Is(err, context.Canceled) {
			t.Fatalf("error %v, want context.Canceled", err)
		}
		if _, err := ch.Transmit(t.Context(), storeData(2)); !errors.Is(err, apdu.ErrBroken) {
			t.Fatalf("error %v, want ErrBroken", err)
		}
		if err := ch.Close(ctx); err != nil { // with a context that is over
			t.Fatal(err)
		}
		if ch, err = card.OpenChannel(t.Context(), aid); err != nil {
			t.Fatal(err)
		}
		r, err := ch.Transmit(t.Context(), storeData(3))
		if err != nil || fmt.Sprintf("%X", r.Data) != "BEEF" {
			t.Fatalf("%X, %v", r.Data, err)
		}
		if got := s.Commands(); !slices.Contains(got, "AT+CCHC=1") {
			t.Errorf("the session was not closed: %q", got)
		}
	})
}

// A session that is opened after nobody waits for it any more is closed.
func TestOpenedTooLate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		conn, s := attest.Dial(t, func(cmd string) string {
			switch {
			case strings.HasPrefix(cmd, "AT+CCHO"):
				time.Sleep(30 * time.Second)
				return "\r\n+CCHO: 7" + ok
			case cmd == "AT+CMEE?":
				return "\r\n+CMEE: 1" + ok
			}
			return "\r\nOK\r\n"
		})
		card, err := atcard.Open(t.Context(), conn, atcard.Options{Path: atcard.CCHO})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := card.OpenChannel(t.Context(), aid); !errors.Is(err, at.ErrTimeout) {
			t.Fatalf("error %v, want ErrTimeout", err)
		}
		time.Sleep(time.Minute)
		if got := s.Commands(); !slices.Contains(got, "AT+CCHC=7") {
			t.Errorf("the session was not closed: %q", got)
		}
		// One that never comes is not waited for.
		if _, err := card.OpenChannel(t.Context(), aid); !errors.Is(err, at.ErrTimeout) {
			t.Fatalf("error %v, want ErrTimeout", err)
		}
		if err := conn.Close(); err != nil {
			t.Error(err)
		}
	})
}

// A logical channel that MANAGE CHANNEL opens when nobody waits for it any more
// is closed: by itself, or before the next one is opened. The modem has only one.
func TestChannelOpenedTooLate(t *testing.T) {
	for _, idle := range []bool{true, false} {
		for _, remembered := range []bool{true, false} {
			t.Run(fmt.Sprintf("idle %v, remembered %v", idle, remembered), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					uicc := &apdutest.UICC{Apps: map[string]apdutest.App{string(aid): app}, Channels: 1}
					f := newFront(t, uicc)
					var slow atomic.Bool
					conn, s := attest.Dial(t, func(cmd string) string {
						answer := f.answer(cmd)
						if strings.HasPrefix(cmd, `AT+CSIM=10,"00700000`) && slow.Swap(false) {
							time.Sleep(40 * time.Second)
						}
						return answer
					})
					card, err := atcard.Open(t.Context(), conn, atcard.Options{Path: atcard.CSIM})
					if err != nil {
						t.Fatal(err)
					}
					if remembered { // the number that it gives every time
						ch, err := card.OpenChannel(t.Context(), aid)
						if err != nil {
							t.Fatal(err)
						}
						if err := ch.Close(t.Context()); err != nil {
							t.Fatal(err)
						}
					}
					slow.Store(true)
					if _, err := card.OpenChannel(t.Context(), aid); !errors.Is(err, at.ErrTimeout) {
						t.Fatalf("error %v, want ErrTimeout", err)
					}
					if uicc.Open() != 1 {
						t.Fatal("the card has not opened a channel behind our back")
					}
					if idle {
						time.Sleep(time.Minute)
						if n := uicc.Open(); n != 0 {
							t.Fatalf("%d channels are open; the modem got %q", n, s.Commands())
						}
					}
					ch, err := card.OpenChannel(t.Context(), aid)
					if err != nil {
						t.Fatalf("%v; the modem got %q", err, s.Commands())
					}
					time.Sleep(3 * time.Minute) // what is still under way must not touch ours
					if r, err := ch.Transmit(t.Context(), storeData(0xDF, 0x7F, 0x00, 0x12)); err != nil || len(r.Data) != 0x12 {
						t.Errorf("%X, %v", r.Data, err)
					}
					if err := ch.Close(t.Context()); err != nil {
						t.Error(err)
					}
					if n := uicc.Open(); n != 0 {
						t.Errorf("%d channels are open at the end", n)
					}
				})
			})
		}
	}
}

// Le of MANAGE CHANNEL as the modem wants it: 01 for the EC20 (with 00 the
// channel opens and SELECT fails: VoCat esim.go), and what 6Cxx asks for.
func TestChannelLe(t *testing.T) {
	for _, tc := range []struct {
		le   int
		want []string
	}{
		{0, []string{`AT+CSIM=10,"0070000001"`}},
		{1, []string{`AT+CSIM=10,"0070000001"`}},
		{256, []string{`AT+CSIM=10,"0070000000"`, `AT+CSIM=10,"0070000001"`}}, // 6C01
		{-1, []string{`AT+CSIM=8,"00700000"`, `AT+CSIM=10,"0070000001"`}},
	} {
		f := newFront(t, &apdutest.UICC{Apps: map[string]apdutest.App{string(aid): app}, Channels: 1})
		conn, s := attest.Dial(t, f.answer)
		card, err := atcard.Open(t.Context(), conn, atcard.Options{Path: atcard.CSIM, ChannelLe: tc.le})
		if err != nil {
			t.Fatal(err)
		}
		ch, err := card.OpenChannel(t.Context(), aid)
		if err != nil {
			t.Fatalf("Le %d: %v", tc.le, err)
		}
		if got := s.Commands()[1 : 1+len(tc.want)]; !slices.Equal(got, tc.want) {
			t.Errorf("Le %d: the modem got %q, want %q", tc.le, got, tc.want)
		}
		if err := ch.Close(t.Context()); err != nil {
			t.Error(err)
		}
	}
}

// The order of the paths is that of the options, and the second is tried where
// the first says more about the modem than about the card.
func TestPaths(t *testing.T) {
	both := []atcard.Path{atcard.CSIM, atcard.CCHO}
	for _, tc := range []struct {
		name  string
		opt   atcard.Options
		with  func(*front)
		path  atcard.Path
		first string // command of an opening
	}{
		{"CSIM first (EC20, lpac#186)", atcard.Options{Paths: both}, func(*front) {}, atcard.CSIM, "AT+CSIM"},
		{"CSIM first, and it is not there", atcard.Options{Paths: both}, func(f *front) { f.noCSIM = true }, atcard.CCHO, "AT+CSIM"},
		{"CSIM only", atcard.Options{Paths: both[:1]}, func(f *front) { f.noCSIM = true }, atcard.Auto, "AT+CSIM"},
		{"what a person has set", atcard.Options{Path: atcard.CCHO, Paths: both}, func(*front) {}, atcard.CCHO, "AT+CCHO"},
		{"no order", atcard.Options{}, func(*front) {}, atcard.CCHO, "AT+CCHO"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			f := newFront(t, &apdutest.UICC{Apps: map[string]apdutest.App{string(aid): app}, Channels: 2})
			tc.with(f)
			conn, s := attest.Dial(t, f.answer)
			card, err := atcard.Open(t.Context(), conn, tc.opt)
			if err != nil {
				t.Fatal(err)
			}
			ch, err := card.OpenChannel(t.Context(), aid)
			if (err == nil) != (tc.path != atcard.Auto) {
				t.Fatal(err)
			}
			if got := s.Commands()[1]; !strings.HasPrefix(got, tc.first) {
				t.Errorf("began with %s", got)
			}
			if err != nil {
				return
			}
			if path, _ := card.Learned(); path != tc.path || card.Path() != tc.path {
				t.Errorf("path %v, want %v", path, tc.path)
			}
			if err := ch.Close(t.Context()); err != nil {
				t.Error(err)
			}
		})
	}
}

// TERMINAL CAPABILITY goes once before the first SELECT and again after each
// reset, and a modem that cannot carry it is none the worse.
func TestTerminalCapability(t *testing.T) {
	const told = `AT+CSIM=30,"80AA00000AA9088100820101830107"`
	for _, answer := range []string{"\r\n+CSIM: 4,\"9000\"" + ok, "\r\n+CSIM: 4,\"6D00\"" + ok, "\r\nERROR\r\n", "\r\nOK\r\n"} {
		f := newFront(t, &apdutest.UICC{Apps: map[string]apdutest.App{string(aid): app}, Channels: 1})
		reset := false
		conn, s := attest.Dial(t, func(cmd string) string {
			switch {
			case cmd == told:
				return answer
			case reset && strings.HasPrefix(cmd, "AT+CGLA"):
				return "\r\n+CGLA: 4,\"6881\"" + ok
			}
			return f.answer(cmd)
		})
		card, err := atcard.Open(t.Context(), conn, atcard.Options{TerminalCapability: true})
		if err != nil {
			t.Fatal(err)
		}
		for i, want := range []int{1, 1, 2, 3} {
			before := len(s.Commands())
			ch, err := card.OpenChannel(t.Context(), aid)
			if err != nil {
				t.Fatal(err)
			}
			sent := s.Commands()
			n := 0
			for _, cmd := range sent {
				if cmd == told {
					n++
				}
			}
			if n != want || i == 0 && sent[before] != told {
				t.Errorf("opening %d: told %d times, want %d: %q", i, n, want, sent[before:])
			}
			switch i {
			case 1:
				card.WasReset()
			case 2:
				reset = true // by somebody else: the card says so
				if _, err := ch.Transmit(t.Context(), storeData(1)); !errors.Is(err, apdu.ErrChannelClosed) {
					t.Error(err)
				}
				reset = false
			}
			if err := ch.Close(t.Context()); err != nil {
				t.Error(err)
			}
		}
	}
}

// An opening that is refused for the moment is tried again as often as was said,
// and a modem with one channel is freed of what a run before us has left.
func TestOpenRetries(t *testing.T) {
	for _, tc := range []struct {
		name    string
		opt     atcard.Options
		answers []string // to AT+CCHO in turn, the last one for ever
		tries   int
		is      error
	}{
		{"busy for a moment (openpilot#37771)", atcard.Options{OpenRetries: 10}, []string{"\r\n+CME ERROR: 14\r\n", "\r\nERROR\r\n", "\r\n+CCHO: 1" + ok}, 3, nil},
		{"busy for ever", atcard.Options{OpenRetries: 3}, []string{"\r\n+CME ERROR: 14\r\n"}, 4, at.ErrBusy},
		{"not more than a person waits", atcard.Options{OpenRetries: 1000}, []string{"\r\nERROR\r\n"}, 21, at.ErrError},
		{"no retries by default", atcard.Options{}, []string{"\r\n+CME ERROR: 14\r\n"}, 1, at.ErrBusy},
		{"no such application", atcard.Options{OpenRetries: 5}, []string{"\r\n+CME ERROR: 22\r\n"}, 1, apdu.ErrNotFound},
		{"no SIM", atcard.Options{OpenRetries: 5}, []string{"\r\n+CME ERROR: 10\r\n"}, 1, at.ErrNoSIM},
		{"silence", atcard.Options{OpenRetries: 5}, []string{""}, 1, at.ErrTimeout},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				tries := 0
				conn, _ := attest.Dial(t, func(cmd string) string {
					switch {
					case strings.HasPrefix(cmd, "AT+CCHO"):
						tries++
						return tc.answers[min(tries, len(tc.answers))-1]
					case cmd == "AT+CMEE?":
						return "\r\n+CMEE: 1" + ok
					}
					return "\r\nOK\r\n"
				})
				tc.opt.Path = atcard.CCHO
				card, err := atcard.Open(t.Context(), conn, tc.opt)
				if err != nil {
					t.Fatal(err)
				}
				_, err = card.OpenChannel(t.Context(), aid)
				synctest.Wait()
				if !errors.Is(err, tc.is) || tries != tc.tries {
					t.Errorf("%v after %d tries, want %v after %d", err, tries, tc.is, tc.tries)
				}
			})
		})
	}
	for channels, want := range map[int]error{0: apdu.ErrNoChannel, 1: nil} {
		uicc := &apdutest.UICC{Apps: map[string]apdutest.App{string(aid): app}, Channels: 1}
		f := newFront(t, uicc)
		f.noCCHO = true
		f.transmit([]byte{0x00, 0x70, 0x00, 0x00, 0x01}) // left by a run that nobody remembers
		conn, _ := attest.Dial(t, f.answer)
		card, err := atcard.Open(t.Context(), conn, atcard.Options{Channels: channels})
		if err != nil {
			t.Fatal(err)
		}
		ch, err := card.OpenChannel(t.Context(), aid)
		if !errors.Is(err, want) {
			t.Errorf("%d channels: %v, want %v", channels, err, want)
		}
		if err != nil {
			continue
		}
		// The channel that is in use is not swept away for a second one.
		if _, err := card.OpenChannel(t.Context(), aid); !errors.Is(err, apdu.ErrNoChannel) {
			t.Errorf("second channel: %v", err)
		}
		if _, err := ch.Transmit(t.Context(), storeData(1)); err != nil {
			t.Errorf("the channel in use: %v", err)
		}
	}
}

// A channel that could not be closed because the modem was silent is closed
// before the next one is opened.
func TestClosedLater(t *testing.T) {
	for _, path := range []atcard.Path{atcard.CCHO, atcard.CSIM} {
		t.Run(path.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newFront(t, &apdutest.UICC{Apps: map[string]apdutest.App{string(aid): app}, Channels: 1})
				var silent atomic.Bool
				conn, s := attest.Dial(t, func(cmd string) string {
					if silent.Load() {
						return ""
					}
					return f.answer(cmd)
				})
				card, err := atcard.Open(t.Context(), conn, atcard.Options{Path: path})
				if err != nil {
					t.Fatal(err)
				}
				ch, err := card.OpenChannel(t.Context(), aid)
				if err != nil {
					t.Fatal(err)
				}
				silent.Store(true)
				if err := ch.Close(t.Context()); !errors.Is(err, at.ErrTimeout) {
					t.Fatalf("error %v, want ErrTimeout", err)
				}
				if _, err := card.OpenChannel(t.Context(), aid); !errors.Is(err, at.ErrTimeout) {
					t.Fatalf("error %v, want ErrTimeout", err)
				}
				silent.Store(false)
				ch, err = card.OpenChannel(t.Context(), aid)
				if err != nil {
					t.Fatalf("the only channel is not free: %v, %q", err, s.Commands())
				}
				if err := ch.Close(t.Context()); err != nil {
					t.Error(err)
				}
			})
		})
	}
}

// A channel that the line or the program left open is closed before the next
// one is opened: by a memory that both cards have, or by its file. Nobody else's
// is touched.
func TestMemory(t *testing.T) {
	for _, path := range []atcard.Path{atcard.CCHO, atcard.CSIM} {
		for _, lose := range []string{"the close", "the opening", "the program", "the program while it opens"} {
			t.Run(path.String()+" "+lose, func(t *testing.T) {
				uicc := &apdutest.UICC{Apps: map[string]apdutest.App{string(aid): app}, Channels: 2}
				f := newFront(t, uicc)
				file := filepath.Join(t.TempDir(), "channels")
				memory := atcard.NewMemory(file)
				open := func(answer func(string) string, opt atcard.Options) (*atcard.Card, *at.Conn) {
					conn, _ := attest.Dial(t, answer)
					card, err := atcard.Open(t.Context(), conn, opt)
					if err != nil {
						t.Fatal(err)
					}
					return card, conn
				}
				channel := func(card *atcard.Card) *apdu.Channel {
					ch, err := card.OpenChannel(t.Context(), aid)
					if err != nil {
						t.Fatal(err)
					}
					return ch
				}
				var hang atomic.Pointer[at.Conn]
				first, conn := open(func(cmd string) string {
					answer := f.answer(cmd)
					if c := hang.Load(); c != nil {
						go c.Close()
						return ""
					}
					return answer
				}, atcard.Options{Path: path, Memory: memory})
				ch := channel(first)
				switch lose {
				case "the close":
					if err := conn.Close(); err != nil {
						t.Fatal(err)
					}
					if err := ch.Close(t.Context()); err == nil {
						t.Fatal("closed over a dead line")
					}
				case "the opening", "the program while it opens":
					f.opened = 0 // a modem that gives the handle of last time, as all do that count channels
					if err := ch.Close(t.Context()); err != nil {
						t.Fatal(err)
					}
					hang.Store(conn)
					if _, err := first.OpenChannel(t.Context(), aid); err == nil {
						t.Fatal("opened over a dead line")
					}
					if lose != "the opening" {
						memory = atcard.NewMemory(file)
					}
				case "the program":
					memory = atcard.NewMemory(file)
				}
				if n := uicc.Open(); n != 1 {
					t.Fatalf("%d channels are open, want the one that was left", n)
				}
				other, _ := open(f.answer, atcard.Options{Path: path}) // somebody else's
				foreign := channel(other)

				second, _ := open(f.answer, atcard.Options{Path: path, Memory: memory})
				ch = channel(second)
				if n := uicc.Open(); n != 2 {
					t.Errorf("%d channels are open, want ours and the other's", n)
				}
				if err := ch.Close(t.Context()); err != nil {
					t.Error(err)
				}
				if _, err := foreign.Transmit(t.Context(), storeData(0xDF, 0x7F, 0x00, 0x12)); err != nil {
					t.Errorf("the other's channel: %v", err)
				}
				if b, err := os.ReadFile(file); err != nil || !strings.HasPrefix(string(b), "last=") {
					t.Errorf("the file says %q, %v", b, err)
				}
			})
		}
	}
}

// A file that holds anything else leads to no command.
func TestMemoryFile(t *testing.T) {
	file := filepath.Join(t.TempDir(), "channels")
	if err := os.WriteFile(file, []byte("session:1;+CFUN=0 20 x 0 -1 session:\nnonsense 01 last=x last= last=session:1;+CFUN=0"), 0o600); err != nil {
		t.Fatal(err)
	}
	f := newFront(t, &apdutest.UICC{Apps: map[string]apdutest.App{string(aid): app}, Channels: 1})
	conn, s := attest.Dial(t, f.answer)
	card, err := atcard.Open(t.Context(), conn, atcard.Options{Path: atcard.CCHO, Memory: atcard.NewMemory(file)})
	if err != nil {
		t.Fatal(err)
	}
	ch, err := card.OpenChannel(t.Context(), aid)
	if err != nil {
		t.Fatal(err)
	}
	if err := ch.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := s.Commands(); len(got) != 3 { // AT+CMEE, AT+CCHO, AT+CCHC
		t.Errorf("the modem got %q", got)
	}
}

// GET RESPONSE and the class byte: bits 0 behind AT+CGLA, set behind AT+CSIM,
// for channels 1 to 3 and 4 to 19 (TS 102 221, table 10.4b; euicc-go c86a619).
func TestClassByte(t *testing.T) {
	for _, tc := range []struct{ channel, class, get string }{{"01", "81", "81"}, {"03", "83", "83"}, {"04", "C0", "C0"}, {"13", "CF", "CF"}} {
		t.Run("channel "+tc.channel, func(t *testing.T) {
			conn, s := attest.Dial(t, dialect{
				`AT+CSIM=10,"0070000001"`:                 "\r\n+CSIM: 6,\"" + tc.channel + "9000\"" + ok,
				"AT+CSIM=42":                              "\r\n+CSIM: 4,\"9000\"" + ok,
				`AT+CSIM=12,"` + tc.class + "E2910001":    "\r\n+CSIM: 4,\"6102\"" + ok,
				`AT+CSIM=10,"` + tc.get + "C0000002":      "\r\n+CSIM: 4,\"6C01\"" + ok,
				`AT+CSIM=10,"` + tc.get + "C0000001":      "\r\n+CSIM: 6,\"AA9000\"" + ok,
				`AT+CSIM=10,"007080` + tc.channel + `00"`: "\r\n+CSIM: 4,\"9000\"" + ok,
			}.answer)
			card, err := atcard.Open(t.Context(), conn, atcard.Options{Path: atcard.CSIM})
			if err != nil {
				t.Fatal(err)
			}
			ch, err := card.OpenChannel(t.Context(), aid)
			if err != nil {
				t.Fatal(err)
			}
			r, err := ch.Transmit(t.Context(), storeData(1))
			if err != nil || fmt.Sprintf("%X", r.Data) != "AA" {
				t.Errorf("%X, %v; the modem got %q", r.Data, err, s.Commands())
			}
			if err := ch.Close(t.Context()); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestOpen(t *testing.T) {
	conn, _ := attest.Dial(t, attest.Always("\r\nERROR\r\n")) // a modem without AT+CMEE is fine
	for _, size := range []int{-1, 256} {
		if _, err := atcard.Open(t.Context(), conn, atcard.Options{BlockSize: size}); err == nil {
			t.Errorf("block size %d: no error", size)
		}
	}
	for size, want := range map[int]int{0: 255, 60: 60, 255: 255} {
		card, err := atcard.Open(t.Context(), conn, atcard.Options{BlockSize: size})
		if err != nil {
			t.Fatal(err)
		}
		if got := card.BlockSize(); got != want {
			t.Errorf("block size %d, want %d", got, want)
		}
		for _, bad := range [][]byte{nil, make([]byte, 17)} {
			if _, err := card.OpenChannel(t.Context(), bad); err == nil || at.Refused(err) {
				t.Errorf("AID of %d bytes: %v", len(bad), err)
			}
		}
		if err := card.Close(); err != nil {
			t.Fatal(err)
		}
		if _, err := card.OpenChannel(t.Context(), aid); !errors.Is(err, at.ErrClosed) {
			t.Errorf("after close: %v, want ErrClosed", err)
		}
		if _, err := card.Transmit(t.Context(), []byte{0, 0xF2, 0, 0}); !errors.Is(err, at.ErrClosed) {
			t.Errorf("after close: %v, want ErrClosed", err)
		}
	}
	synctest.Test(t, func(t *testing.T) {
		conn, _ := attest.Dial(t, attest.Always(""))
		if _, err := atcard.Open(t.Context(), conn, atcard.Options{}); !errors.Is(err, at.ErrTimeout) {
			t.Errorf("dead modem: %v, want ErrTimeout", err)
		}
	})
	for path, want := range map[atcard.Path]string{atcard.Auto: "auto", atcard.CCHO: "AT+CCHO", atcard.CSIM: "AT+CSIM"} {
		if path.String() != want {
			t.Errorf("%d is %q", path, path)
		}
	}
}
