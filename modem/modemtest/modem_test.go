package modemtest_test

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"lpad/modem/modemtest"
)

func TestMain(m *testing.M) {
	flag.Parse()
	// A device waits most of the time, for its managers and its modem.
	if err := flag.Set("test.parallel", "4"); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	goleak.VerifyTestMain(m)
}

var subscriptions = []modemtest.Subscription{
	{IMSI: profileA.imsi, APN: "old.apn", Address: netip.MustParsePrefix("10.1.1.2/24"), Gateway: netip.MustParseAddr("10.1.1.1"), PLMN: "00101", Operator: "Test PLMN 1-1"},
	{IMSI: profileB.imsi, APN: "new.apn", User: "u", Password: "p", Address: netip.MustParsePrefix("10.2.2.2/24"), Gateway: netip.MustParseAddr("10.2.2.1"), PLMN: "23415", Operator: "vodafone UK"},
}

// link is a Link that only remembers.
type link struct {
	mu    sync.Mutex
	calls []string
}

func (l *link) note(s string) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.calls = append(l.calls, s)
	return nil
}
func (l *link) Up(_ context.Context, s modemtest.Subscription) error {
	return l.note("up " + s.Address.Addr().String())
}
func (l *link) Down(context.Context) error { return l.note("down") }
func (l *link) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Join(l.calls, " ")
}

// start makes a modem that is ended with the test.
func start(t *testing.T, cfg modemtest.Config) *modemtest.Modem {
	t.Helper()
	if cfg.Card == nil {
		cfg.Card = newCard(profileA, profileB)
	}
	if cfg.Subscriptions == nil {
		cfg.Subscriptions = subscriptions
	}
	m, err := modemtest.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := m.Close(); err != nil {
			t.Error("close:", err)
		}
		if t.Failed() {
			t.Log(m.Log())
		}
	})
	return m
}

// registered is start, and waiting for the network.
func registered(t *testing.T, cfg modemtest.Config) *modemtest.Modem {
	t.Helper()
	m := start(t, cfg)
	wait(t, m, "registered", func(s modemtest.State) bool { return s.Registration == modemtest.Registered })
	return m
}

func wait(t *testing.T, m *modemtest.Modem, what string, ok func(modemtest.State) bool) {
	t.Helper()
	if _, err := m.Wait(bounded(t), ok); err != nil {
		t.Fatalf("wait until %s: %v", what, err)
	}
}

// host is a program at an AT port.
type host struct {
	t *testing.T
	c io.ReadWriteCloser
}

// dialUnix opens a new port of the modem.
func dialUnix(t *testing.T, m *modemtest.Modem) *host {
	t.Helper()
	dir, err := os.MkdirTemp("", "at")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	path := filepath.Join(dir, "at")
	if _, err := m.ListenUnix(path); err != nil {
		t.Fatal(err)
	}
	c, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return &host{t, c}
}

// openTTY opens the host's side of a pty port.
func openTTY(t *testing.T, path string) *host {
	t.Helper()
	f, err := os.OpenFile(path, os.O_RDWR|syscall.O_NOCTTY|syscall.O_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return &host{t, f}
}

const answerTimeout = 30 * time.Second

// read reads until the text so far ends with end.
func (h *host) read(end string) (string, error) {
	d, ok := h.c.(interface{ SetReadDeadline(time.Time) error })
	if ok {
		if err := d.SetReadDeadline(time.Now().Add(answerTimeout)); err != nil {
			return "", err
		}
	}
	var got []byte
	b := make([]byte, 1)
	for !bytes.HasSuffix(got, []byte(end)) {
		if _, err := h.c.Read(b); err != nil {
			return string(got), fmt.Errorf("got %q, want it to end with %q: %w", got, end, err)
		}
		got = append(got, b[0])
	}
	return string(got), nil
}

// expect writes a command and compares every byte that comes back.
func (h *host) expect(send, want string) {
	h.t.Helper()
	if _, err := io.WriteString(h.c, send); err != nil {
		h.t.Fatalf("%q: %v", send, err)
	}
	got, err := h.read(want)
	if err != nil {
		h.t.Fatalf("%q: %v", send, err)
	}
	if got != want {
		h.t.Fatalf("%q: got %q, want %q", send, got, want)
	}
}

// at runs a command with echo off and gives its answer, lines joined by " | ".
func (h *host) at(command string) string {
	h.t.Helper()
	if _, err := io.WriteString(h.c, command+"\r"); err != nil {
		h.t.Fatalf("%q: %v", command, err)
	}
	var lines []string
	for {
		line, err := h.read("\r\n")
		if err != nil {
			h.t.Fatalf("%q: %v", command, err)
		}
		if line = strings.TrimSpace(line); line == "" {
			continue
		}
		lines = append(lines, line)
		if line == "OK" || line == "ERROR" || line == "NO CARRIER" || line == "CONNECT" || strings.HasPrefix(line, "+CME ERROR") {
			return strings.Join(lines, " | ")
		}
	}
}

// port opens a port with echo off and error numbers on.
func port(t *testing.T, m *modemtest.Modem) *host {
	t.Helper()
	h := dialUnix(t, m)
	h.expect("ATE0+CMEE=1\r", "ATE0+CMEE=1\r\r\nOK\r\n")
	return h
}

func TestNewNeedsACard(t *testing.T) {
	if _, err := modemtest.New(modemtest.Config{}); err == nil {
		t.Error("a modem without a card")
	}
	if _, err := modemtest.New(modemtest.Config{Card: newCard(profileA), LogFile: "/nowhere/at.log"}); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("log file that cannot be: %v", err)
	}
}

func TestBytes(t *testing.T) {
	m := registered(t, modemtest.Config{})
	h := dialUnix(t, m)
	for _, s := range []struct{ send, want string }{
		{"AT\r", "AT\r\r\nOK\r\n"},
		{"at\r", "at\r\r\nOK\r\n"},
		{"noise\x00AT\r", "noise\x00AT\r\r\nOK\r\n"},
		{"\r\n", "\r"},
		{"AT+CGMI\r\n", "AT+CGMI\r\r\nu-blox\r\n\r\nOK\r\n"},
		{"AT+CIMI;+CCID\r", "AT+CIMI;+CCID\r\r\n001010123456789\r\n\r\n+CCID: 8933010000000000001\r\n\r\nOK\r\n"},
		{"AT+NONSENSE\r", "AT+NONSENSE\r\r\nERROR\r\n"},
		{"AT+NONSENSE;+CGMI\r", "AT+NONSENSE;+CGMI\r\r\nERROR\r\n"},
		{"AT+CCHC=9\r", "AT+CCHC=9\r\r\nERROR\r\n"}, // AT+CMEE=0 is the factory setting
		{"ATE0V1+CMEE=2\r", "ATE0V1+CMEE=2\r\r\nOK\r\n"},
		{"AT+CCHC=9\r", "\r\n+CME ERROR: invalid index\r\n"},
		{"AT+CMEE=1\r", "\r\nOK\r\n"},
		{"AT+CMEE?\r", "\r\n+CMEE: 1\r\n\r\nOK\r\n"},
		{"AT+CCHC=9\r", "\r\n+CME ERROR: 21\r\n"},
		{"AT+CPIN?\rAT+CFUN?\r", "\r\n+CPIN: READY\r\n\r\nOK\r\n\r\n+CFUN: 1\r\n\r\nOK\r\n"},
		{"ATZ\r", "\r\nOK\r\n"},
		{"ATI\r", "ATI\r\r\nManufacturer: u-blox\r\n\r\nModel: SARA-R410M-02B\r\n\r\nRevision: 1.0.0\r\n\r\n+GCAP: +CGSM\r\n\r\nOK\r\n"},
	} {
		h.expect(s.send, s.want)
	}
	h.expect(strings.Repeat("A", 5000)+"\r", strings.Repeat("A", 4096)+"\r")
	h.expect("ATE0\r", "ATE0\r\r\nOK\r\n")
	h.expect("AT"+strings.Repeat("A", 5000)+"\r", "\r\nERROR\r\n")
}

func TestCommands(t *testing.T) {
	m := registered(t, modemtest.Config{Now: func() time.Time { return time.Date(2031, 2, 3, 4, 5, 6, 0, time.FixedZone("", 3600)) }})
	h := port(t, m)
	for _, s := range []struct{ send, want string }{
		{"AT+CGMM", "SARA-R410M-02B | OK"},
		{"AT+CGSN", "356938035643809 | OK"},
		{"AT+CCLK?", `+CCLK: "31/02/03,04:05:06+04" | OK`},
		{"AT+CPIN=1234", "+CME ERROR: 3"},
		{"AT+CNUM", "OK"},
		{"AT+CSQ", "+CSQ: 20,99 | OK"},
		{"AT+CFUN=?", "+CFUN: (0,1,4,16),(0,1) | OK"},
		{"AT+CFUN=7", "+CME ERROR: 50"},
		{"AT+QCCID", "ERROR"},
		{"AT+CIND=?", `+CIND: ("signal",(0-5)),("service",(0,1)),("simind",(0,1)) | OK`},
		{"AT+CMER=1,0,0,1,0", "OK"},
		{"AT+CMER?", "+CMER: 1,0,0,1,0 | OK"},
		{"AT+CSCS?", `+CSCS: "GSM" | OK`},
		// registration
		{"AT+CREG?", "+CREG: 0,1 | OK"},
		{"AT+CREG=3", "+CME ERROR: 50"},
		{"AT+CEREG=2", "OK"},
		{"AT+CEREG?", `+CEREG: 2,1,"00C3","000A2B1F",7 | OK`},
		{"AT+COPS?", `+COPS: 0,0,"Test PLMN 1-1",7 | OK`},
		{"AT+COPS=3,2;+COPS?", `+COPS: 0,2,"00101",7 | OK`},
		{"AT+COPS=?", `+COPS: (2,"Test PLMN 1-1","Test PLMN 1-1","00101",7),(2,"vodafone UK","vodafone UK","23415",7),,(0-4),(0-2) | OK`},
		{"AT+CGATT?", "+CGATT: 1 | OK"},
		// contexts
		{"AT+CGDCONT?", `+CGDCONT: 1,"IP","","",0,0 | OK`},
		{`AT+CGDCONT=2,"IPV4V6","new;a,b",,0,0`, "OK"},
		{`AT+CGDCONT?`, `+CGDCONT: 1,"IP","","",0,0 | +CGDCONT: 2,"IPV4V6","new;a,b","",0,0 | OK`},
		{"AT+CGDCONT=2", "OK"},
		{`AT+CGDCONT=0,"IP","x"`, "+CME ERROR: 50"},
		{`AT+CGDCONT=1,"PPP","x"`, "+CME ERROR: 50"},
		{`AT+CGDCONT=1,"ip","old.apn"`, "OK"},
		{"AT+CGDCONT?", `+CGDCONT: 1,"IP","old.apn","",0,0 | OK`},
		{"AT+CGACT?", "+CGACT: 1,0 | OK"},
		{"AT+CGPADDR", "+CGPADDR: 1 | OK"},
		{"AT+CGCONTRDP=1", "OK"},
		{"AT+UIPADDR=1", "+CME ERROR: 3"},
		{"AT+CGACT=1,5", "+CME ERROR: 21"},
		{"AT+CGACT=1,1", "OK"},
		{"AT+CGACT?", "+CGACT: 1,1 | OK"},
		{"AT+CGPADDR=1", `+CGPADDR: 1,"10.1.1.2" | OK`},
		{"AT+CGCONTRDP=1", `+CGCONTRDP: 1,5,"old.apn","10.1.1.2.255.255.255.0","10.1.1.1","10.1.1.1","10.1.1.1" | OK`},
		{"AT+UIPADDR=1", `+UIPADDR: 1,"ccinet0","10.1.1.1","255.255.255.0","","" | OK`},
		{"AT+CGDCONT=1", "+CME ERROR: 3"},
		{"AT+CGACT=0,1", "OK"},
		{"ATD*99***1#", "CONNECT"},
		{"ATD123456;", "NO CARRIER"},
		{"AT+CGACT=0", "OK"},
		// files of the SIM
		{"AT+CRSM=176,12258,0,0,10", `+CRSM: 144,0,"983310000000000000F1" | OK`},
		{"AT+CRSM=176,28423,0,0,9", `+CRSM: 144,0,"080910101032547698" | OK`},
		{"AT+CRSM=176,28589,0,0,4", `+CRSM: 144,0,"00000002" | OK`},
		{"AT+CRSM=176,28486,0,0,17", `+CRSM: 144,0,"01546573744F6E65FFFFFFFFFFFFFFFFFF" | OK`},
		{"AT+CRSM=176,28478,0,0,0", `+CRSM: 106,130 | OK`},
		{"AT+CRSM=192,12258", "+CRSM: 144,0 | OK"},
		{"AT+CRSM=214,28486,0,0,2,AABB", "+CRSM: 109,0 | OK"},
		{"AT+CRSM=214,28486,0,0,3,AABB", "+CRSM: 103,0 | OK"},
		{"AT+CRSM=1,12258,0,0,10", "+CME ERROR: 4"},
		{"AT+CRSM=176,12258,0,0,300", "+CME ERROR: 50"},
	} {
		if got := h.at(s.send); got != s.want {
			t.Errorf("%s: got %s, want %s", s.send, got, s.want)
		}
	}
}

func TestSessions(t *testing.T) {
	card := newCard(profileA)
	m := registered(t, modemtest.Config{Card: card})
	h := port(t, m)
	for _, s := range []struct{ send, want string }{
		{`AT+CCHO="A0000005591010FFFFFFFF8900000100"`, "+CCHO: 1 | OK"},
		// whatever CLA the host writes, the modem puts its own channel in
		{`AT+CGLA=1,22,"83E2910006BF3E035C015A"`, `+CGLA: 4,"6115" | OK`},
		{`AT+CGLA=1,10,"81C0000015"`, `+CGLA: 46,"BF3E125A10890490321234512345123456789012359000" | OK`},
		{`AT+CCHO=A0000005591010FFFFFFFF8900000100`, "+CCHO: 2 | OK"},
		{`AT+CCHO="A000000559"`, "+CME ERROR: 22"},
		{`AT+CCHO="A0000005591010FFFFFFFF8900000100"`, "+CCHO: 3 | OK"},
		{`AT+CCHO="A0000005591010FFFFFFFF8900000100"`, "+CCHO: 4 | OK"},
		{`AT+CGLA=4,10,"80E2910006"`, `+CGLA: 4,"6D00" | OK`},
		{`AT+CCHO="A0000005591010FFFFFFFF8900000100"`, "+CCHO: 5 | OK"},
		{`AT+CCHO="A0000005591010FFFFFFFF8900000100"`, "+CME ERROR: 20"},
		{"AT+CCHC=4;+CCHC=5", "OK"},
		{"AT+CCHC=2", "OK"},
		{"AT+CCHC=2", "+CME ERROR: 21"},
		{`AT+CGLA=2,10,"81C0000015"`, "+CME ERROR: 21"},
		{`AT+CGLA=1,9,"81C0000015"`, "+CME ERROR: 50"},
		{`AT+CGLA=1,10,"81C000001X"`, "+CME ERROR: 50"},
		{`AT+CCHO="A0"`, "+CME ERROR: 50"},
		{`AT+CCHO=?`, "OK"},
		{`AT+CGLA=?`, "OK"},
		// AT+CSIM changes nothing
		{`AT+CSIM=10,"0070000001"`, `+CSIM: 6,"029000" | OK`},
		{`AT+CSIM=42,"02A4040010A0000005591010FFFFFFFF8900000100"`, `+CSIM: 4,"9000" | OK`},
		{`AT+CSIM=22,"82E2910006BF3E035C015A"`, `+CSIM: 4,"6115" | OK`},
		{`AT+CSIM=10,"0070800200"`, `+CSIM: 4,"9000" | OK`},
		{`AT+CSIM=22,"82E2910006BF3E035C015A"`, `+CSIM: 4,"6881" | OK`},
		// sessions end with the power of the card
		{"AT+CFUN=0", "OK"},
		{"AT+CPIN?", "+CME ERROR: 10"},
		{`AT+CCHO="A0000005591010FFFFFFFF8900000100"`, "+CME ERROR: 10"},
		{"AT+CFUN=1", "OK"},
	} {
		if got := h.at(s.send); got != s.want {
			t.Errorf("%s: got %s, want %s", s.send, got, s.want)
		}
	}
	wait(t, m, "registered", func(s modemtest.State) bool { return s.Registration == modemtest.Registered })
	if got := h.at(`AT+CGLA=1,10,"81C0000015"`); got != "+CME ERROR: 21" {
		t.Errorf("a session outlived its card: %s", got)
	}
	var classes []byte
	for _, c := range card.commands() {
		if c[1] == 0xE2 {
			classes = append(classes, c[0])
		}
	}
	if want := []byte{0x81, 0xC0, 0x82, 0x82}; !bytes.Equal(classes, want) {
		t.Errorf("class bytes at the card: %X, want %X", classes, want)
	}
}

func TestDialects(t *testing.T) {
	for _, d := range modemtest.Dialects() {
		m := registered(t, modemtest.Config{Dialect: d})
		h := port(t, m)
		if got := h.at("AT+CGMI"); got != d.Manufacturer+" | OK" {
			t.Errorf("%s: %s", d.Name, got)
		}
	}
	odd := modemtest.Generic
	odd.Has = []string{"+QCCID"}
	odd.Lacks = []string{"+CCHC"}
	odd.SessionFormat, odd.SessionBase, odd.BareCCHO = "%016x", 0x38aa32e, true
	odd.ICCIDPadded, odd.InlineResponse, odd.NoCSIMChannels, odd.SIMBusyText = true, true, true, true
	odd.MaxLine = 80
	odd.Answers = map[string]string{"+CGLA=?": "+CME ERROR: 4", "^SGAUTH?": "^SGAUTH: 1,0"}
	m := registered(t, modemtest.Config{Dialect: odd})
	h := port(t, m)
	for _, s := range []struct{ send, want string }{
		{"AT+CGLA=?", "+CME ERROR: 4"},
		{"AT^SGAUTH?", "^SGAUTH: 1,0 | OK"},
		{"AT+QCCID", "+QCCID: 8933010000000000001F | OK"},
		{"AT+CCID", "ERROR"},
		{"AT+CCHC=1", "ERROR"},
		{`AT+CCHO="A0000005591010FFFFFFFF8900000100"`, "00000000038aa32f | OK"},
		{`AT+CGLA=1,22,"80E2910006BF3E035C015A"`, `+CME ERROR: 21`},
		{`AT+CGLA=00000000038aa32f,22,"80E2910006BF3E035C015A"`, `+CGLA: 46,"BF3E125A10890490321234512345123456789012359000" | OK`},
		{`AT+CSIM=22,"81E2910006BF3E035C015A"`, "+CME ERROR: 3"},
		{`AT+CSIM=84,"00A4040010A0000005591010FFFFFFFF890000010000A4040010A0000005591010FFFFFFFF8900000100"`, "ERROR"},
	} {
		if got := h.at(s.send); got != s.want {
			t.Errorf("%s: got %s, want %s", s.send, got, s.want)
		}
	}
}

// The settings of the radio outlive a reset; the service centre is on the SIM.
func TestRadioSettings(t *testing.T) {
	card := newCard(profileA, profileB)
	d := modemtest.TelitLE910
	d.ResetHangsUp = false
	m := registered(t, modemtest.Config{Card: card, Dialect: d})
	h := port(t, m)
	for _, s := range []struct{ send, want string }{
		{"AT+CEDRXS?", "OK"},
		{`AT+CEDRXS=1,5,"0010"`, "OK"}, {`AT+CEDRXS=1,4,"0101"`, "OK"},
		{`AT+CEDRXS=1,4,"01"`, "+CME ERROR: 50"}, {`AT+CEDRXS=1,9,"0101"`, "+CME ERROR: 50"},
		{"AT+CEDRXS?", `+CEDRXS: 4,"0101" | +CEDRXS: 5,"0010" | OK`},
		{"AT+CEDRXS=0,5", "OK"},
		{"AT+CPSMS?", `+CPSMS: 0,,,"00100001","00000101" | OK`},
		{`AT+CPSMS=1,,,"00100010","00000001"`, "OK"}, {`AT+CPSMS=1,,,"0010"`, "+CME ERROR: 50"},
		{"AT+WS46=28", "OK"}, {"AT+WS46=99", "+CME ERROR: 50"}, {"AT#BND=3,6,524292", "OK"},
		{`AT+CSCA="+49171",145`, "OK"}, {`AT+CSCA="x"`, "+CME ERROR: 50"},
		{"AT+CFUN=0", "OK"}, {"AT+CFUN=1", "OK"},
	} {
		if got := h.at(s.send); got != s.want {
			t.Errorf("%s: got %s, want %s", s.send, got, s.want)
		}
	}
	wait(t, m, "registered", func(s modemtest.State) bool { return s.Registration == modemtest.Registered })
	for _, s := range []struct{ send, want string }{
		{"AT+CEDRXS?", `+CEDRXS: 4,"0101" | OK`}, {"AT+CPSMS?", `+CPSMS: 1,,,"00100010","00000001" | OK`}, {"AT+WS46?", "+WS46: 28 | OK"},
		{"AT#BND?", "#BND: 3,6,80004 | OK"}, {"AT+CSCA?", `+CSCA: "+49171",145 | OK`}, {"AT+CPSMS=2", "OK"}, {"AT+CPSMS?", `+CPSMS: 0,,,"00100001","00000101" | OK`},
	} {
		if got := h.at(s.send); got != s.want {
			t.Errorf("%s: got %s, want %s", s.send, got, s.want)
		}
	}
	card.enable(1)
	h.at("AT+CFUN=0")
	h.at("AT+CFUN=1")
	wait(t, m, "registered", func(s modemtest.State) bool { return s.Registration == modemtest.Registered })
	if got := h.at("AT+CSCA?"); strings.Contains(got, "49171") {
		t.Errorf("the other SIM has %s", got)
	}
	h.at("AT+WS46=12") // the network is LTE
	wait(t, m, "searching", func(s modemtest.State) bool { return s.Registration == modemtest.Searching })
}

// The modem shows the SIM that it read, until it reads again.
func TestSIMDataAreCached(t *testing.T) {
	card := newCard(profileA, profileB)
	links := &link{}
	m := registered(t, modemtest.Config{Card: card, Link: links})
	h := port(t, m)
	if got := h.at(`AT+CGDCONT=1,"IP","old.apn";+CGACT=1,1`); got != "OK" {
		t.Fatal(got)
	}
	card.enable(1)
	if got := h.at("AT+CCID"); got != "+CCID: 8933010000000000001 | OK" {
		t.Errorf("before the SIM is read again: %s", got)
	}
	if got := h.at("AT+CRSM=176,12258,0,0,10"); got != `+CRSM: 144,0,"98442000000000000022" | OK` {
		t.Errorf("AT+CRSM reads the card: %s", got)
	}
	// the radio alone does not read the SIM
	h.at("AT+CFUN=4")
	h.at("AT+CFUN=1")
	wait(t, m, "registered", func(s modemtest.State) bool { return s.Registration == modemtest.Registered })
	if got := h.at("AT+CCID"); got != "+CCID: 8933010000000000001 | OK" {
		t.Errorf("after AT+CFUN=4: %s", got)
	}
	h.at(`AT+CGACT=1,1`)
	h.at(`AT+CGDCONT=1,"IP","new.apn"`)
	mark := m.Log().Len()
	h.at("AT+CFUN=0")
	h.at("AT+CFUN=1")
	if err := m.WaitRegistered(bounded(t), profileB.iccid); err != nil {
		t.Fatal(err)
	}
	if got := h.at("AT+CCID"); got != "+CCID: 89440200000000000022 | OK" {
		t.Errorf("after AT+CFUN=0: %s", got)
	}
	for _, s := range []struct{ send, want string }{
		{"AT+CGACT=1,1", "+CME ERROR: 149"}, // this subscription wants a password
		{`AT+UAUTHREQ=1,1,"u","wrong"`, "OK"},
		{"AT+CGACT=1,1", "+CME ERROR: 149"},
		{`AT+CGAUTH=1,1,"u","p"`, "OK"},
		{`AT+CGAUTH?`, `+CGAUTH: 1,1,"u","p" | OK`},
		{`AT+CGAUTH=4,0`, `+CME ERROR: 21`},
		{"AT+CGACT=1,1", "OK"},
		{"AT+CGPADDR=1", `+CGPADDR: 1,"10.2.2.2" | OK`},
		{`AT+CGATT=0`, `OK`},
		{`AT+CGACT=1,1`, `+CME ERROR: 30`},
		{`AT+CGATT=1`, `OK`},
		{`AT+CGDCONT=3,"IP","old.apn"`, `OK`},
		{`AT+CGACT=1,3`, `+CME ERROR: 133`},
	} {
		if got := h.at(s.send); got != s.want {
			t.Errorf("%s: got %s, want %s", s.send, got, s.want)
		}
	}
	if got, want := links.String(), "up 10.1.1.2 down up 10.1.1.2 down up 10.2.2.2 down"; got != want {
		t.Errorf("link: %s, want %s", got, want)
	}
	if err := m.Log().InOrder(mark, "> AT+CFUN=0", "# context 1 ends", "< OK", "> AT+CFUN=1", "# SIM read: ICCID 8944", "# registration 1"); err != nil {
		t.Error(err)
	}
	if err := m.Log().InOrder(0, "> AT+CFUN=1", "> AT+CFUN=4", "> AT+CFUN=4"); err == nil {
		t.Error("InOrder finds what is not in order")
	}
	if err := m.Log().InOrder(0, "> AT+CFUN=1", "> ATE0"); err == nil || !strings.Contains(err.Error(), "before") {
		t.Errorf("InOrder: %v", err)
	}
}

func TestRefresh(t *testing.T) {
	for _, tt := range []struct {
		name      string
		qualifier byte
		noFetch   bool
		response  bool // a TERMINAL RESPONSE reaches the card
		switched  bool
	}{
		{"UICC reset", 0x04, false, false, true},
		{"eUICC profile state change", 0x09, false, true, true},
		{"NAA initialization", 0x03, false, true, true},
		{"toolkit off", 0x04, true, false, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			card := newCard(profileA, profileB)
			links := &link{}
			m := registered(t, modemtest.Config{Card: card, NoFetch: tt.noFetch, Link: links})
			h := port(t, m)
			h.at("AT+CMER=1,0,0,1,0;+CEREG=1;+USIMSTAT=1")
			h.at(`AT+CGDCONT=1,"IP","old.apn";+CGACT=1,1`)
			mark := m.Log().Len()
			got := h.at(fmt.Sprintf(`AT+CSIM=10,"80EB01%02X00"`, tt.qualifier))
			if got != `+CSIM: 4,"910B" | OK` {
				t.Fatal(got)
			}
			if !tt.switched {
				if got := h.at("AT+CCID"); got != "+CCID: 8933010000000000001 | OK" {
					t.Error(got)
				}
				return
			}
			if err := m.WaitRegistered(bounded(t), profileB.iccid); err != nil {
				t.Fatal(err)
			}
			if _, err := m.Log().WaitFor(bounded(t), mark, "! +CEREG: 1"); err != nil {
				t.Error(err)
			}
			err := m.Log().InOrder(mark, "910B", fmt.Sprintf("# REFRESH %02X", tt.qualifier), "# context 1 ends", "! +CEREG: 0",
				"! +CIEV: 3,0", "# SIM read: ICCID 8944", "! +CIEV: 3,1", "! +UUSIMSTAT: 9", "! +CEREG: 2", "! +CEREG: 1")
			if err != nil {
				t.Error(err)
			}
			response := false
			for _, c := range card.commands() {
				response = response || c[1] == 0x14
			}
			if response != tt.response {
				t.Errorf("TERMINAL RESPONSE %v, want %v", response, tt.response)
			}
			if links.String() != "up 10.1.1.2 down" {
				t.Errorf("link: %s", links)
			}
		})
	}
}

func TestRegistration(t *testing.T) {
	stranger := profileA
	stranger.imsi = "999990000000001"
	t.Run("unknown IMSI", func(t *testing.T) {
		m := start(t, modemtest.Config{Card: newCard(stranger)})
		wait(t, m, "denied", func(s modemtest.State) bool { return s.Registration == modemtest.Denied })
		h := port(t, m)
		for _, s := range []struct{ send, want string }{
			{"AT+CEREG?", "+CEREG: 0,3 | OK"},
			{"AT+COPS?", "+COPS: 0 | OK"},
			{"AT+CSQ", "+CSQ: 99,99 | OK"},
			{"AT+CCLK?", `+CCLK: "80/01/06,00:00:12+00" | OK`},
			{`AT+CGDCONT=1,"IP","old.apn";+CGACT=1,1`, "+CME ERROR: 30"},
		} {
			if got := h.at(s.send); got != s.want {
				t.Errorf("%s: got %s, want %s", s.send, got, s.want)
			}
		}
	})
	t.Run("attach with the wrong APN", func(t *testing.T) {
		m := start(t, modemtest.Config{StrictAttach: true, Contexts: []modemtest.Context{{CID: 1, Type: "IP", APN: "new.apn"}}})
		wait(t, m, "denied", func(s modemtest.State) bool { return s.Registration == modemtest.Denied })
		h := port(t, m)
		h.at(`AT+CGDCONT=1,"IP","old.apn"`)
		h.at("AT+COPS=0")
		wait(t, m, "registered", func(s modemtest.State) bool { return s.Registration == modemtest.Registered })
	})
	t.Run("coverage and AT+COPS", func(t *testing.T) {
		m := registered(t, modemtest.Config{})
		h := port(t, m)
		h.at("AT+CGEREP=2")
		h.at(`AT+CGDCONT=1,"IP","old.apn";+CGACT=1,1`)
		m.DropContexts()
		if _, err := m.Log().WaitFor(bounded(t), 0, "! +CGEV: NW PDN DEACT 1"); err != nil {
			t.Error(err)
		}
		m.SetCoverage(false)
		wait(t, m, "searching", func(s modemtest.State) bool { return s.Registration == modemtest.Searching })
		m.SetCoverage(true)
		wait(t, m, "registered", func(s modemtest.State) bool { return s.Registration == modemtest.Registered })
		h2 := port(t, m)
		h2.at("AT+COPS=2")
		wait(t, m, "off the network", func(s modemtest.State) bool { return s.Registration == modemtest.NotRegistered })
		if got := h2.at("AT+COPS?"); got != "+COPS: 2 | OK" {
			t.Error(got)
		}
		h2.at("AT+COPS=0")
		wait(t, m, "registered", func(s modemtest.State) bool { return s.Registration == modemtest.Registered })
	})
	t.Run("no profile", func(t *testing.T) {
		card := newCard(profileA)
		card.enable(-1)
		m := start(t, modemtest.Config{Card: card})
		wait(t, m, "read", func(s modemtest.State) bool { return s.SIM.State == modemtest.SIMAbsent })
		h := port(t, m)
		for _, s := range []struct{ send, want string }{
			{"AT+CPIN?", "+CME ERROR: 10"}, {"AT+CIMI", "+CME ERROR: 10"}, {"AT+CCID", "+CME ERROR: 10"},
			{`AT+CCHO="A0000005591010FFFFFFFF8900000100"`, "+CCHO: 1 | OK"}, // the eUICC is there
		} {
			if got := h.at(s.send); got != s.want {
				t.Errorf("%s: got %s, want %s", s.send, got, s.want)
			}
		}
	})
	t.Run("dead card", func(t *testing.T) {
		card := newCard(profileA)
		m := registered(t, modemtest.Config{Card: card})
		card.kill()
		h := port(t, m)
		if got := h.at(`AT+CSIM=10,"0070000001"`); got != "+CME ERROR: 13" {
			t.Error(got)
		}
		h.at("AT+CFUN=0;+CFUN=1")
		wait(t, m, "failed", func(s modemtest.State) bool { return s.SIM.State == modemtest.SIMFailure })
		if got := h.at("AT+CPIN?"); got != "+CME ERROR: 13" {
			t.Error(got)
		}
	})
	t.Run("slow SIM", func(t *testing.T) {
		m := start(t, modemtest.Config{Delays: modemtest.Delays{SIM: time.Hour}})
		h := port(t, m)
		if got := h.at("AT+CPIN?"); got != "+CME ERROR: 14" {
			t.Error(got)
		}
	})
}

func TestFaults(t *testing.T) {
	m := registered(t, modemtest.Config{})
	h := port(t, m)
	m.AddFault(modemtest.Fault{Command: "+cgla", Skip: 1, Times: 2, Answer: "+CME ERROR: 13"})
	h.at(`AT+CCHO="A0000005591010FFFFFFFF8900000100"`)
	for i, want := range []string{`+CGLA: 4,"6115" | OK`, "+CME ERROR: 13", "+CME ERROR: 13", `+CGLA: 4,"6115" | OK`} {
		if got := h.at(`AT+CGLA=1,22,"80E2910006BF3E035C015A"`); got != want {
			t.Errorf("%d: got %s, want %s", i, got, want)
		}
	}
	unmute := m.Mute("+CFUN=0")
	h.expect("AT+CFUN=0\rAT+CFUN?\r", "\r\n+CFUN: 0\r\n\r\nOK\r\n") // it ran, and said nothing
	unmute()
	if got := h.at("AT+CFUN=1"); got != "OK" {
		t.Error(got)
	}
	m.AddFault(modemtest.Fault{Command: "+CGMI", Times: 1, URC: "+CREG: 1", Delay: time.Millisecond})
	h.expect("AT+CGMI\r", "\r\n+CREG: 1\r\n\r\nu-blox\r\n\r\nOK\r\n")
	m.AddFault(modemtest.Fault{Command: "+CGMI", Times: 1, Answer: "garbage\nOK"})
	h.expect("AT+CGMI\r", "\r\ngarbage\r\n\r\nOK\r\n")
	m.AddFault(modemtest.Fault{Command: `+CGDCONT=2,"IP"`, Times: 1, Answer: "ERROR", Executed: true})
	if got := h.at(`AT+CGDCONT=2,"IP","x"`); got != "ERROR" {
		t.Error(got)
	}
	if got := len(m.State().Contexts); got != 2 {
		t.Errorf("%d contexts: the command with the false answer has not run", got)
	}
	m.InjectURC("+CIEV: 3,1")
	if got, err := h.read("\r\n+CIEV: 3,1\r\n"); err != nil {
		t.Error(got, err)
	}
	m.AddFault(modemtest.Fault{Port: "no such port", Answer: "ERROR"})
	m.AddFault(modemtest.Fault{Command: "+CGMR", Hangup: true, Times: 1})
	if _, err := io.WriteString(h.c, "AT+CGMR\r"); err != nil {
		t.Fatal(err)
	}
	if got, err := h.read("OK\r\n"); !errors.Is(err, io.EOF) {
		t.Errorf("hang up: %q %v", got, err)
	}
}

func TestPTY(t *testing.T) {
	logFile := filepath.Join(t.TempDir(), "at.log")
	m := registered(t, modemtest.Config{LogFile: logFile})
	path := filepath.Join(t.TempDir(), "ttyUSB0")
	p, err := m.OpenPTY(path)
	if err != nil {
		t.Fatal(err)
	}
	if p.Name() != "ttyUSB0" {
		t.Error(p.Name())
	}
	h := openTTY(t, path)
	h.expect("AT+CGMI\r", "AT+CGMI\r\r\nu-blox\r\n\r\nOK\r\n")
	p.SetEcho(false)
	h.expect("AT\r", "\r\nOK\r\n")
	// a client that goes is no hangup
	if err := h.c.Close(); err != nil {
		t.Fatal(err)
	}
	h = openTTY(t, path)
	h.expect("AT\r", "\r\nOK\r\n")
	if m.Port("ttyUSB0") != p {
		t.Error("the port is not found by its name")
	}
	if err := m.Close(); err != nil {
		t.Error(err)
	}
	if text, err := os.ReadFile(logFile); err != nil || string(text) != m.Log().String() {
		t.Errorf("log file: %v, %d characters, want %d", err, len(text), len(m.Log().String()))
	}
	if _, err := h.read("never"); err == nil {
		t.Error("the tty lives on")
	}
	if _, err := os.Lstat(path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the link is left: %v", err)
	}
	if _, err := m.OpenPTY(path); err == nil {
		t.Error("a port of a closed modem")
	}
	if _, err := m.ListenUnix(filepath.Join(t.TempDir(), "s")); err == nil {
		t.Error("a socket of a closed modem")
	}
}

func TestResetHangsUp(t *testing.T) {
	dialect := modemtest.UBlox
	dialect.ResetHangsUp = true
	back := make(chan bool, 2)
	card := newCard(profileA, profileB)
	m := registered(t, modemtest.Config{Card: card, Dialect: dialect, Replugged: func(present bool) { back <- present }})
	path := filepath.Join(t.TempDir(), "ttyUSB0")
	if _, err := m.OpenPTY(path); err != nil {
		t.Fatal(err)
	}
	h := openTTY(t, path)
	h.expect("ATE0\r", "ATE0\r\r\nOK\r\n")
	h.at(`AT+CGDCONT=3,"IP","kept"`)
	card.enable(1)
	h.at("AT+CFUN=1,1")
	if present := <-back; present {
		t.Error("came back before it went")
	}
	if got, err := h.read("never"); err == nil {
		t.Errorf("the old tty lives on: %q", got)
	}
	if present := <-back; !present {
		t.Error("did not come back")
	}
	if err := m.WaitRegistered(bounded(t), profileB.iccid); err != nil {
		t.Fatal(err)
	}
	h = openTTY(t, path)
	h.expect("AT+CGDCONT?\r", "AT+CGDCONT?\r\r\n+CGDCONT: 1,\"IP\",\"\",\"\",0,0\r\n\r\n+CGDCONT: 3,\"IP\",\"kept\",\"\",0,0\r\n\r\nOK\r\n")
}

// A host that never reads must not stop the modem.
func TestUnreadPTY(t *testing.T) {
	m := registered(t, modemtest.Config{})
	dir := t.TempDir()
	for _, name := range []string{"a", "b"} {
		if _, err := m.OpenPTY(filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	long := strings.Repeat("x", 1000)
	begin := time.Now()
	for range 40 {
		m.InjectURC(long)
		if time.Since(begin) > 3*time.Second {
			break
		}
	}
	if d := time.Since(begin); d > 30*time.Second {
		t.Errorf("the modem stood still for %v", d)
	}
}
