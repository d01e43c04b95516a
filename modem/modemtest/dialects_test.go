package modemtest_test

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"lpad/modem/modemtest"
)

func named(t *testing.T, name string) modemtest.Dialect {
	t.Helper()
	d, ok := modemtest.DialectNamed(name)
	if !ok {
		t.Fatalf("no dialect %s", name)
	}
	return d
}

func TestDialectNames(t *testing.T) {
	seen := map[string]bool{}
	for _, d := range modemtest.Dialects() {
		if seen[d.Name] || d.Plugin == "" || d.USB.Vendor == "" || len(d.IMEI) != 15 || d.Delays.Registration == 0 {
			t.Errorf("%s: not complete, or twice: %+v", d.Name, d)
		}
		seen[d.Name] = true
	}
	if _, ok := modemtest.DialectNamed("nobody's"); ok {
		t.Error("a dialect that is not there")
	}
}

// What a host hears when it does what an agent does, one dialect after another.
func TestDialectCommands(t *testing.T) {
	const (
		open = `AT+CCHO="A0000005591010FFFFFFFF8900000100"`
		sel  = `AT+CSIM=42,"01A4040010A0000005591010FFFFFFFF8900000100"`
		eid  = `"81E2910006BF3E035C015A"`
	)
	// A block of 255 bytes as AT+CGLA and AT+CSIM have it.
	block := strings.Repeat("00", 255)
	type step struct{ send, want string }
	for _, tt := range []struct {
		dialect string
		steps   []step
	}{
		{"quectel-ec20", []step{
			{open, "ERROR"}, {"AT+CCHC=1", "ERROR"}, {"AT+CCHO=?", "OK"},
			{"AT+QCCID", "+QCCID: 8933010000000000001F | OK"}, {"AT+CCID", "ERROR"},
			{`AT+CSIM=10,"0070000000"`, `+CSIM: 6,"019000" | OK`}, // Le 00: a channel of no use
			{sel, `+CSIM: 4,"6881" | OK`},
			{`AT+CSIM=10,"0070000001"`, `+CSIM: 4,"6A81" | OK`}, // and the only one
			{`AT+CSIM=10,"0070800100"`, `+CSIM: 4,"9000" | OK`},
			{`AT+CSIM=10,"0070000001"`, `+CSIM: 6,"019000" | OK`},
			{sel, `+CSIM: 4,"9000" | OK`},
			{`AT+CSIM=22,` + eid, `+CSIM: 4,"6115" | OK`},
			{`AT+CSIM=10,"0070000001"`, `+CSIM: 4,"6A81" | OK`},
			{`AT+CSIM=520,"81E2910000` + block + `"`, "ERROR"},
		}},
		{"quectel-eg25", []step{
			{open, "+CCHO: 1 | OK"}, {`AT+CGLA=1,22,` + eid, `+CGLA: 4,"6115" | OK`},
			{`AT+CSIM=10,"0070000001"`, `+CSIM: 6,"029000" | OK`},
			{`AT+CSIM=10,"81F2000000"`, "+CME ERROR: 3"},
			{"AT+QUIMSLOT?", "+QUIMSLOT: 1 | OK"}, {"AT+QUIMSLOT=?", "+QUIMSLOT: (1,2) | OK"}, {"AT+QUIMSLOT=3", "+CME ERROR: 50"},
		}},
		{"quectel-eg9x", []step{
			{"AT+CRSM=176,12258,0,0,10", "+CME ERROR: 3"}, {"AT+CRSM=176,28589,0,0,4", `+CRSM: 144,0,"00000002" | OK`},
			{"AT+QCCID", "+QCCID: 8933010000000000001F | OK"},
		}},
		{"fibocom-fm350", []step{
			{open, "1 | OK"}, {"AT+CCHC=2", "+CME ERROR: 21"}, {"AT+CCHC=1", "OK"}, {"AT+ICCID", "+ICCID: 8933010000000000001 | OK"},
			{"AT+CFUN=?", "+CFUN: (0,1,4,15),(0,1) | OK"},
		}},
		{"simcom-sim7600", []step{
			{open, "+CME ERROR: 3"}, {`AT+CSIM=10,"0070000001"`, `+CSIM: 6,"019000" | OK`}, {"AT+ICCID", "+ICCID: 8933010000000000001 | OK"},
			{`AT+CSIM=520,"81E2910000` + block + `"`, `+CSIM: 4,"6D00" | OK`}, // fits
		}},
		{"sierra-mc7455", []step{
			{open, "+CCHO: 00000000038aa32f | OK"}, {"AT+CGLA=?", "ERROR"},
			{`AT+CGLA=00000000038aa32f,22,` + eid, `+CGLA: 46,"BF3E125A10890490321234512345123456789012359000" | OK`},
			{"AT!ICCID?", "!ICCID: 8933010000000000001 | OK"}, {"AT!UIMS?", "!UIMS: 0 | OK"},
			{`AT$QCPDPP=1,1,"p","u"`, "OK"}, {"AT+CGAUTH?", `+CGAUTH: 1,1,"u","p" | OK`},
		}},
		{"telit-le910", []step{
			{"AT#CCID", "#CCID: 8933010000000000001 | OK"}, {"AT#QSS?", "#QSS: 0,1 | OK"}, {"AT#QSS=2", "OK"}, {"AT#QSS?", "#QSS: 2,3 | OK"},
			{"AT#QSS=?", "#QSS: (0-2) | OK"}, {"AT+CSIM=1", "OK"}, {"AT+CSIM=0", "OK"}, {"AT+CSIM=2", "+CME ERROR: 50"},
			{open, "+CCHO: 1 | OK"},
			// the card hears the beginning of it, and the announced length is nobody's business
			{`AT+CGLA=1,520,"81E2910000` + block + `"`, `+CGLA: 4,"6D00" | OK`},
		}},
		{"cinterion", []step{
			{"AT^SCID", "^SCID: 8933010000000000001 | OK"}, {"AT^SCKS?", "^SCKS: 0,1 | OK"}, {"AT^SCKS=1", "OK"}, {"AT^SCKS?", "^SCKS: 1,1 | OK"},
			{`AT^SGAUTH=1,1,"p","u"`, "OK"}, {"AT^SGAUTH?", "^SGAUTH: 1,1 | OK"}, {"AT+CGAUTH?", `+CGAUTH: 1,1,"u","p" | OK`}, {`AT\Q3`, "OK"},
		}},
		{"dell-dw5821e", []step{
			{open, "ERROR"}, {"AT^SWITCH_SLOT?", "^SWITCH_SLOT: 0 | OK"}, {`AT+CSIM=10,"0070000001"`, `+CSIM: 6,"019000" | OK`},
		}},
		{"u-blox", []step{{"AT#QSS?", "ERROR"}, {"AT+QUIMSLOT?", "ERROR"}, {"AT+CRESET", "ERROR"}}},
	} {
		t.Run(tt.dialect, func(t *testing.T) {
			t.Parallel()
			m := registered(t, modemtest.Config{Dialect: named(t, tt.dialect)})
			h := port(t, m)
			for _, s := range tt.steps {
				if got := h.at(s.send); got != s.want {
					t.Errorf("%.40s: got %s, want %s", s.send, got, s.want)
				}
			}
		})
	}
}

// A line that is too long, in the three ways.
func TestOverlong(t *testing.T) {
	long := `AT+CSIM=60,"00A4040010` + strings.Repeat("A5", 25) + `"`
	for _, tt := range []struct {
		how  modemtest.Overlong
		want string // of the long line and AT+CGMI
		card int    // bytes of the last command that the card heard
	}{
		{modemtest.OverlongError, "ERROR", 0},
		{modemtest.OverlongTruncated, `+CSIM: 4,"6A82" | OK`, 14},
		{modemtest.OverlongSilent, "Simulated Inc. | OK", 0},
	} {
		t.Run(string(tt.how), func(t *testing.T) {
			d := modemtest.Generic
			d.MaxLine, d.Overlong = 41, tt.how
			card := newCard(profileA)
			h := port(t, registered(t, modemtest.Config{Dialect: d, Card: card}))
			before := len(card.commands())
			if tt.how == modemtest.OverlongSilent {
				if _, err := io.WriteString(h.c, long+"\r"); err != nil {
					t.Fatal(err)
				}
				long = "AT+CGMI"
			}
			if got := h.at(long); got != tt.want {
				t.Errorf("got %s, want %s", got, tt.want)
			}
			heard := 0
			if all := card.commands(); len(all) > before {
				heard = len(all[len(all)-1])
			}
			if heard != tt.card {
				t.Errorf("the card heard %d bytes, want %d", heard, tt.card)
			}
		})
	}
}

func TestSilence(t *testing.T) {
	m := registered(t, modemtest.Config{Dialect: named(t, "fibocom-fm350")})
	h := port(t, m)
	for _, c := range []string{"+CCHO", "+CGLA", "+CCHC", "+CSIM"} {
		h.expect("AT"+c+"=?\rAT+CGMM\r", "\r\nFM350-GL\r\n\r\nOK\r\n")
	}
}

// rung is a way to make a modem read its SIM again.
type rung string

const (
	refresh rung = "refresh" // the card's own wish
	cfun01  rung = "cfun-0-1"
	cfun41  rung = "cfun-4-1"
	cfun11  rung = "cfun-1-1"
	vendor  rung = "vendor-reset"
)

// Which rungs of the ladder help on which modem. A real one may be kinder.
func TestDialectRungs(t *testing.T) {
	resets := map[string]string{"u-blox": "AT+CFUN=16", "quectel-ec20": "AT+QPOWD=1", "quectel-ec20-mbn": "AT+QPOWD=1", "quectel-eg25": "AT+QPOWD=1", "quectel-eg9x": "AT+QPOWD=1", "quectel-rm5xx": "AT+QPOWD=1",
		"fibocom-fm350": "AT+CFUN=15", "simcom-sim7600": "AT+CRESET", "sierra-mc7455": "AT!RESET", "telit-le910": "AT#REBOOT", "cinterion": "AT^SMSO"}
	helps := map[string][]rung{
		"u-blox":           {refresh, cfun01, cfun11, vendor},
		"generic":          {refresh, cfun01, cfun11},
		"quectel-ec20":     {cfun01, cfun41, cfun11, vendor},
		"quectel-ec20-mbn": {cfun01, cfun41, cfun11, vendor},
		"quectel-eg25":     {refresh, cfun01, cfun11, vendor},
		"quectel-eg9x":     {cfun01, cfun11, vendor},
		"quectel-rm5xx":    {refresh, cfun01, cfun11, vendor},
		"fibocom-fm350":    {refresh, cfun01, cfun11, vendor},
		"simcom-sim7600":   {cfun11, vendor},
		"sierra-mc7455":    {cfun11, vendor},
		"telit-le910":      {refresh, cfun01, cfun11, vendor},
		"cinterion":        {refresh, cfun01, cfun11, vendor},
		"dell-dw5821e":     {refresh, cfun01, cfun11},
	}
	for _, d := range modemtest.Dialects() {
		for _, r := range []rung{refresh, cfun01, cfun41, cfun11, vendor} {
			commands := map[rung][]string{refresh: {`AT+CSIM=10,"80EB010900"`}, cfun01: {"AT+CFUN=0", "AT+CFUN=1"}, cfun41: {"AT+CFUN=4", "AT+CFUN=1"},
				cfun11: {"AT+CFUN=1,1"}, vendor: {resets[d.Name]}}[r]
			if commands[0] == "" {
				continue
			}
			t.Run(d.Name+"/"+string(r), func(t *testing.T) {
				t.Parallel()
				card := newCard(profileA, profileB)
				d := d
				d.CarrierConfig = false // registration is what tells that it is done
				m := registered(t, modemtest.Config{Dialect: d, Card: card})
				h := port(t, m)
				if r != refresh {
					card.enable(1)
				}
				mark := m.Log().Len()
				for _, c := range commands {
					if got := h.at(c); !strings.HasSuffix(got, "OK") {
						t.Fatalf("%s: %s", c, got)
					}
				}
				if slices.Contains(helps[d.Name], r) {
					if err := m.WaitRegistered(bounded(t), profileB.iccid); err != nil {
						t.Fatal(err)
					}
					return
				}
				if r != refresh { // the radio was off, so it is known when the modem has done all it does
					if _, err := m.Log().WaitFor(bounded(t), mark, "# registration 1"); err != nil {
						t.Fatal(err)
					}
				}
				if got := m.State().SIM.ICCID; got != profileA.iccid {
					t.Errorf("it shows %s: it has read its SIM anew", got)
				}
			})
		}
	}
}

// An EC20 with the old operator's configuration finds no network until it has
// another one.
func TestCarrierConfig(t *testing.T) {
	card := newCard(profileA, profileB)
	m := registered(t, modemtest.Config{Dialect: named(t, "quectel-ec20-mbn"), Card: card})
	h := port(t, m)
	card.enable(1)
	mark := m.Log().Len()
	h.at("AT+CFUN=0")
	h.at("AT+CFUN=1")
	if _, err := m.Log().WaitFor(bounded(t), mark, "# no network: the carrier configuration"); err != nil {
		t.Fatal(err)
	}
	if got := m.State(); got.SIM.ICCID != profileB.iccid || got.Registration == modemtest.Registered {
		t.Errorf("%+v", got)
	}
	for _, s := range []struct{ send, want string }{
		{`AT+QMBNCFG="Select"`, `+QMBNCFG: "Select","00101" | OK`},
		{`AT+QMBNCFG="Select","Commercial"`, "ERROR"},
		{`AT+QMBNCFG="List"`, "+CME ERROR: 4"},
		{`AT+QMBNCFG="AutoSel",0`, "OK"},
		{`AT+QMBNCFG="Select","ROW_Generic_3GPP"`, "OK"},
		{`AT+CFUN=1,1`, "OK"},
	} {
		if got := h.at(s.send); !strings.HasSuffix(got, s.want) { // after what it says of the SIM
			t.Errorf("%s: got %s, want %s", s.send, got, s.want)
		}
	}
	if err := m.WaitRegistered(bounded(t), profileB.iccid); err != nil {
		t.Error(err)
	}
}

// The port may be gone before AT+CFUN has said OK.
func TestCFUNUnanswered(t *testing.T) {
	for _, command := range []string{"AT+CFUN=0", "AT+CFUN=1,1"} {
		d := named(t, "quectel-eg9x")
		d.CFUNUnanswered = true
		m := registered(t, modemtest.Config{Dialect: d})
		path := filepath.Join(t.TempDir(), "ttyUSB0")
		if _, err := m.OpenPTY(path); err != nil {
			t.Fatal(err)
		}
		h := openTTY(t, path)
		h.expect("ATE0\r", "ATE0\r\r\nOK\r\n")
		if _, err := io.WriteString(h.c, command+"\r"); err != nil {
			t.Fatal(err)
		}
		if got, err := h.read("OK\r\n"); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("%s: got %q, %v", command, got, err)
		}
	}
}

// A live ICCID command shows the new profile before the modem knows of it.
func TestICCIDLive(t *testing.T) {
	for _, tt := range []struct {
		dialect, command, want string
	}{
		{"telit-le910", "AT#CCID", "#CCID: 89440200000000000022 | OK"},
		{"quectel-rm5xx", "AT+QCCID", "+QCCID: 89440200000000000022 | OK"},
		{"quectel-eg25", "AT+QCCID", "+QCCID: 8933010000000000001F | OK"},
		{"cinterion", "AT^SCID", "^SCID: 8933010000000000001 | OK"},
	} {
		card := newCard(profileA, profileB)
		m := registered(t, modemtest.Config{Dialect: named(t, tt.dialect), Card: card})
		h := port(t, m)
		card.enable(1)
		if got := h.at(tt.command); got != tt.want {
			t.Errorf("%s: %s: got %s, want %s", tt.dialect, tt.command, got, tt.want)
		}
		if got := m.State().SIM.ICCID; got != profileA.iccid {
			t.Errorf("%s: the modem itself has read %s", tt.dialect, got)
		}
		card.kill()
		if got := h.at(tt.command); strings.Contains(tt.want, profileB.iccid) != (got == "+CME ERROR: 13") {
			t.Errorf("%s: from a dead card: %s", tt.dialect, got)
		}
	}
}

// URCs come to the ports that asked for them, and to those alone.
func TestSubscribedURCs(t *testing.T) {
	for _, tt := range []struct {
		dialect, subscribe string
		want               []string
	}{
		{"telit-le910", "AT#QSS=1", []string{"#QSS: 0", "#QSS: 1"}},
		{"telit-le910", "AT#QSS=2", []string{"#QSS: 0", "#QSS: 3"}},
		{"telit-le910", "AT#QSS=0", nil},
		{"cinterion", "AT^SCKS=1", []string{"^SCKS: 0", "^SCKS: 1"}},
		{"cinterion", "", nil},
		{"u-blox", "AT+CMER=1,0,0,1,0", []string{"+CIEV: 3,0", "+CIEV: 3,1"}},
		{"quectel-rm5xx", "", []string{"+CPIN: NOT READY", "+CPIN: READY", "+QUSIM: 1"}},
		{"fibocom-fm350", "", []string{"+SIM DROP", "+SIM READY"}},
		{"generic", "", nil},
	} {
		t.Run(tt.dialect+tt.subscribe, func(t *testing.T) {
			m := registered(t, modemtest.Config{Dialect: named(t, tt.dialect), Card: newCard(profileA, profileB)})
			h := port(t, m)
			if tt.subscribe != "" {
				h.at(tt.subscribe)
			}
			mark := m.Log().Len()
			h.at(`AT+CSIM=10,"80EB010900"`)
			if err := m.WaitRegistered(bounded(t), profileB.iccid); err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, e := range m.Log().Since(mark) {
				if e.Kind == modemtest.URC {
					got = append(got, e.Text)
				}
			}
			if !slices.Equal(got, tt.want) {
				t.Errorf("URCs %q, want %q", got, tt.want)
			}
		})
	}
}

// Where the ptys are after each way to hang them up.
func TestPortsComeBack(t *testing.T) {
	for _, tt := range []struct {
		dialect, command string
		want             []string // "" of the first: they stay
		cfun             int
	}{
		{"quectel-eg9x", "AT+CFUN=0", []string{"ttyUSB0", "ttyUSB1"}, 0},
		{"quectel-eg9x", "AT+CFUN=1,1", []string{"ttyUSB2", "ttyUSB3"}, 1},
		{"quectel-rm5xx", "AT+CFUN=0", []string{"ttyUSB2", "ttyUSB3"}, 1},
		{"quectel-eg25", `AT+CSIM=10,"80EB010900"`, []string{"ttyUSB0", "ttyUSB1"}, 1},
		{"sierra-mc7455", "AT!RESET", []string{"ttyUSB0", "ttyUSB1"}, 1},
		{"telit-le910", "AT+CFUN=0", nil, 0},
	} {
		t.Run(tt.dialect+tt.command, func(t *testing.T) {
			var renamed []string
			events := make(chan bool, 8)
			m := registered(t, modemtest.Config{Dialect: named(t, tt.dialect), Card: newCard(profileA, profileB),
				Replugged: func(present bool) { events <- present },
				Renamed:   func(from, to string) { renamed = append(renamed, filepath.Base(from)+" "+filepath.Base(to)) }})
			dir := t.TempDir()
			for _, n := range []string{"ttyUSB0", "ttyUSB1"} {
				if _, err := m.OpenPTY(filepath.Join(dir, n)); err != nil {
					t.Fatal(err)
				}
			}
			h := openTTY(t, filepath.Join(dir, "ttyUSB0"))
			h.expect("ATE0\r", "ATE0\r\r\nOK\r\n")
			if named(t, tt.dialect).CFUNUnanswered {
				if _, err := io.WriteString(h.c, tt.command+"\r"); err != nil {
					t.Fatal(err)
				}
			} else if got := h.at(tt.command); !strings.HasSuffix(got, "OK") {
				t.Fatal(got)
			}
			if tt.want == nil {
				if got := h.at("AT+CFUN?"); got != "+CFUN: 0 | OK" {
					t.Error(got)
				}
				return
			}
			if gone, back := <-events, <-events; gone || !back {
				t.Error("it came back before it went")
			}
			if got, err := h.read("never"); err == nil {
				t.Errorf("the old tty lives on: %q", got)
			}
			entries, err := os.ReadDir(dir)
			if err != nil {
				t.Fatal(err)
			}
			var now []string
			for _, e := range entries {
				now = append(now, e.Name())
			}
			if !slices.Equal(now, tt.want) || (tt.want[0] != "ttyUSB0") != (len(renamed) == 2) {
				t.Errorf("ports %q, renamed %q, want %q", now, renamed, tt.want)
			}
			h = openTTY(t, filepath.Join(dir, tt.want[1]))
			if got, want := h.at("AT+CFUN?"), fmt.Sprintf("+CFUN: %d | OK", tt.cfun); !strings.HasSuffix(got, want) { // after what it says by itself
				t.Errorf("got %s, want %s", got, want)
			}
			if tt.want[0] == "ttyUSB0" {
				return
			}
			if _, err := io.WriteString(h.c, "AT+CFUN=1,1\r"); err != nil { // and back to the first names
				t.Fatal(err)
			}
			<-events
			<-events
			if _, err := os.Lstat(filepath.Join(dir, "ttyUSB0")); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestSlots(t *testing.T) {
	for _, tt := range []struct{ dialect, other, first string }{
		{"quectel-eg25", "AT+QUIMSLOT=2", "AT+QUIMSLOT=1"},
		{"dell-dw5821e", "AT^SWITCH_SLOT=1", "AT^SWITCH_SLOT=0"},
		{"sierra-mc7455", "AT!UIMS=1", "AT!UIMS=0"},
		{"fibocom-fm350", "AT+GTDUALSIM=1", "AT+GTDUALSIM=0"},
	} {
		t.Run(tt.dialect, func(t *testing.T) {
			m := registered(t, modemtest.Config{Dialect: named(t, tt.dialect), Card: newCard(profileA), SecondCard: newCard(profileB)})
			h := port(t, m)
			if got := h.at(tt.first); got != "OK" || m.State().SIM.State != modemtest.SIMReady {
				t.Errorf("the slot it is in: %s %+v", got, m.State().SIM)
			}
			for _, s := range []struct {
				command, iccid string
				slot           int
			}{{tt.other, profileB.iccid, 2}, {tt.first, profileA.iccid, 1}} {
				if got := h.at(s.command); !strings.HasSuffix(got, "OK") { // after what it says of the SIM
					t.Fatal(got)
				}
				if err := m.WaitRegistered(bounded(t), s.iccid); err != nil {
					t.Fatal(err)
				}
				if got := m.State().Slot; got != s.slot {
					t.Errorf("slot %d, want %d", got, s.slot)
				}
			}
		})
	}
	t.Run("empty", func(t *testing.T) {
		m := registered(t, modemtest.Config{Dialect: named(t, "quectel-eg25")})
		h := port(t, m)
		h.at("AT+QUIMSLOT=2")
		wait(t, m, "seen to be empty", func(s modemtest.State) bool { return s.SIM.State == modemtest.SIMAbsent })
		for _, c := range []string{"AT+CPIN?", `AT+CSIM=10,"0070000001"`, "AT+QCCID"} {
			if got := h.at(c); !strings.HasSuffix(got, "+CME ERROR: 10") {
				t.Errorf("%s: %s", c, got)
			}
		}
	})
}

// The modem's own share of a switch is known to the millisecond.
func TestDelays(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		delays := modemtest.Delays{SIM: 2 * time.Second, Registration: 3 * time.Second, Boot: time.Second}.Scale(0.5)
		begin := time.Now()
		m, err := modemtest.New(modemtest.Config{Card: newCard(profileA), Subscriptions: subscriptions, Delays: delays})
		if err != nil {
			t.Fatal(err)
		}
		defer m.Close()
		if err := m.WaitRegistered(t.Context(), ""); err != nil {
			t.Fatal(err)
		}
		up := time.Now()
		time.Sleep(time.Second) // the host's own
		m.Reboot()              // no pty, no Boot
		if err := m.WaitRegistered(t.Context(), ""); err != nil {
			t.Fatal(err)
		}
		end := time.Now()
		if got := end.Sub(begin); got != 6*time.Second {
			t.Errorf("all of it took %v", got)
		}
		for _, tt := range []struct {
			from, to time.Time
			want     time.Duration
		}{
			{begin, end, 5 * time.Second}, {begin, up, 2500 * time.Millisecond}, {up, end, 2500 * time.Millisecond},
			{up, up.Add(time.Second), 0}, {begin.Add(500 * time.Millisecond), begin.Add(1500 * time.Millisecond), time.Second}, {end, begin, 0},
		} {
			if got := m.DelayBetween(tt.from, tt.to); got != tt.want {
				t.Errorf("%v to %v: %v, want %v", tt.from.Sub(begin), tt.to.Sub(begin), got, tt.want)
			}
		}
		var moments []string
		for _, d := range m.Delays() {
			moments = append(moments, d.Moment)
		}
		if got := strings.Join(moments, " "); got != "SIM Registration SIM Registration" {
			t.Error(got)
		}
		// One that goes on counts up to the moment asked for.
		m.Reboot()
		time.Sleep(250 * time.Millisecond)
		if got := m.DelayBetween(end, time.Now()); got != 250*time.Millisecond {
			t.Errorf("a delay that goes on: %v", got)
		}
	})
}

// The device re-enumerates under other names, and the real ModemManager finds
// it there, with the agent's port still its own.
func TestStackRenames(t *testing.T) {
	t.Parallel()
	card := newCard(profileA, profileB)
	s := device(t, modemtest.StackConfig{
		Modem:                 modemtest.Config{Card: card, Dialect: named(t, "quectel-rm5xx"), Delays: modemtest.Delays{Boot: 200 * time.Millisecond}},
		WithoutNetworkManager: true,
	})
	ctx := bounded(t)
	if _, err := s.WaitMM(ctx, profileA.iccid); err != nil {
		t.Fatal(err)
	}
	card.enable(1)
	h := openTTY(t, s.OpenAgentPort())
	h.at("ATE0") // after what the modem said while nobody had the port open
	if got := h.at("AT+CFUN=1,1"); got != "OK" {
		t.Fatal(got)
	}
	m, err := s.WaitMM(ctx, profileB.iccid)
	if err != nil {
		t.Fatal(err)
	}
	const at, ignored = 3, 9 // MM_MODEM_PORT_TYPE_AT, _IGNORED
	if ports := mmPorts(t, s, m.Path); len(ports) != 2 || ports["ttyUSB2"] != at || ports["ttyUSB3"] != ignored {
		t.Errorf("ports %v", ports)
	}
	if got := s.AgentPort(); got != "/dev/ttyUSB3" {
		t.Errorf("the agent's port is %s", got)
	}
	if got := openTTY(t, s.OpenAgentPort()).at("AT+CGMM"); !strings.HasSuffix(got, "RM520N-GL | OK") {
		t.Error(got)
	}
	out, err := s.Command(ctx, "sh", "-ec", "ls /sys/class/tty; cd -P /sys/class/tty/ttyUSB3; cat ../../../bInterfaceNumber").CombinedOutput()
	if want := "ttyUSB2\nttyUSB3\n03\n"; err != nil || string(out) != want {
		t.Errorf("sysfs: %s %v", out, err)
	}
}
