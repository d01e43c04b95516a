package atmodem_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"lpad/internal/fault"
	"lpad/internal/redact"
	"lpad/modem"
	"lpad/modem/at"
	"lpad/modem/at/attest"
	"lpad/modem/atmodem"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// replies is a modem of fixed answers, ERROR to everything else.
type replies map[string]string

func (r replies) answer(cmd string) string {
	if a, ok := r[cmd]; ok {
		return a
	}
	return "\r\nERROR\r\n"
}

// info is an answer of these lines, and OK.
func info(lines ...string) string {
	return "\r\n" + strings.Join(append(lines, "OK"), "\r\n") + "\r\n"
}

const silence = ""

func TestInit(t *testing.T) {
	for _, tc := range []struct {
		name string
		r    replies
		is   error
	}{
		{"all", replies{"AT+CMEE?": info("+CMEE: 0"), "ATE0": info(), "AT+CMEE=1": info(), "AT+CREG=0": info(), "AT+CGREG=0": info(), "AT+CEREG=0": info()}, nil},
		{"a modem that knows little", replies{"AT+CMEE?": info("+CMEE: 0"), "ATE0": info()}, nil},
		{"not even the probe", replies{"ATE0": info()}, nil},
		{"no echo command", replies{"AT+CMEE?": info("+CMEE: 0")}, at.ErrError},
		{"dead", replies{"AT+CMEE?": silence}, at.ErrTimeout},
		{"dies", replies{"AT+CMEE?": info("+CMEE: 0"), "ATE0": info(), "AT+CREG=0": silence}, at.ErrTimeout},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				conn, _ := attest.Dial(t, tc.r.answer)
				if err := atmodem.New(conn).Init(t.Context()); !errors.Is(err, tc.is) {
					t.Errorf("error %v, want %v", err, tc.is)
				}
			})
		})
	}
}

func TestIdentity(t *testing.T) {
	for _, tc := range []struct {
		name string
		r    replies
		want modem.Identity
		is   error
	}{
		{name: "Quectel", r: replies{"AT+CGMI": info("Quectel"), "AT+CGMM": info("EG25"), "AT+CGMR": info("EG25GGBR07A08M2G"), "AT+CGSN": info("356938035643809")},
			want: modem.Identity{Manufacturer: "Quectel", Model: "EG25", Revision: "EG25GGBR07A08M2G", IMEI: "356938035643809"}},
		{name: "with names and quotes", r: replies{"AT+CGMI": info(`+CGMI: "Telit"`), "AT+CGMM": info(`+CGMM: "LE910"`), "AT+CGMR": info("Revision: 1.2"), "AT+CGSN": info(`+CGSN: "356938035643809"`)},
			want: modem.Identity{Manufacturer: "Telit", Model: "LE910", Revision: "1.2", IMEI: "356938035643809"}},
		{name: "only the old commands", r: replies{"AT+GMI": info("Sierra"), "AT+GMM": info("MC7455"), "AT+GMR": info("x"), "AT+GSN": info("356938035643809")},
			want: modem.Identity{Manufacturer: "Sierra", Model: "MC7455", Revision: "x", IMEI: "356938035643809"}},
		{name: "IMEISV of 16 digits", r: replies{"AT+CGSN": info("3569380356438012")}, want: modem.Identity{IMEI: "356938035643809"}},
		{name: "17 digits", r: replies{"AT+CGSN": info("35693803564380901")}, want: modem.Identity{IMEI: "356938035643809"}},
		{name: "no check digit", r: replies{"AT+CGSN": info("35693803564380")}, want: modem.Identity{IMEI: "356938035643809"}},
		{name: "a serial number is no IMEI", r: replies{"AT+CGMM": info("X"), "AT+CGSN": info("1234567")}, want: modem.Identity{Model: "X"}},
		{name: "AT+CGSN never ends with OK (Snapdragon 410, sigmo 5f446f7)", r: replies{"AT+CGMM": info("UFI"), "AT+CGSN": "\r\n356938035643809\r\n", "AT+CMEE?": info("+CMEE: 0")},
			want: modem.Identity{Model: "UFI", IMEI: "356938035643809"}},
		{name: "says nothing", r: replies{}, is: at.ErrError},
		{name: "empty words", r: replies{"AT+CGMI": info(), "AT+GMI": info(), "AT+CGMM": info(), "AT+GMM": info(), "AT+CGMR": info(), "AT+GMR": info(), "AT+CGSN": info(), "AT+GSN": info()}, is: atmodem.ErrUnreadable},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				conn, _ := attest.Dial(t, tc.r.answer)
				got, err := atmodem.New(conn).Identity(t.Context())
				if !errors.Is(err, tc.is) || got != tc.want {
					t.Errorf("%+v, %v, want %+v, %v", got, err, tc.want, tc.is)
				}
			})
		})
	}
}

func TestICCID(t *testing.T) {
	const want = "89330100000000000017"
	for _, tc := range []struct {
		name string
		r    replies
		want string // empty: want
		cmd  string // that is used the second time
		is   error
	}{
		{name: "+CCID", r: replies{"AT+CCID": info("+CCID: " + want)}, cmd: "AT+CCID"},
		{name: "+CCID, bare", r: replies{"AT+CCID": info(want)}, cmd: "AT+CCID"},
		{name: "+CCID in quotes", r: replies{"AT+CCID": info(`+CCID: "` + want + `"`)}, cmd: "AT+CCID"},
		{name: "+CCID, after a number", r: replies{"AT+CCID": info(`+CCID: 0,` + want)}, cmd: "AT+CCID"},
		{name: "19 digits and filler", r: replies{"AT+CCID": info("+CCID: 8944020000000000022F")}, want: "8944020000000000022", cmd: "AT+CCID"},
		{name: "18 digits (lpac#457)", r: replies{"AT+CCID": info("+CCID: 894402000000000002FF")}, want: "894402000000000002", cmd: "AT+CCID"},
		{name: "a hexadecimal digit (euicc-go 2c149c9)", r: replies{"AT+CCID": info("+CCID: 8944020000A000000022")}, want: "8944020000A000000022", cmd: "AT+CCID"},
		{name: "+QCCID", r: replies{"AT+QCCID": info("+QCCID: " + want)}, cmd: "AT+QCCID"},
		{name: "+ICCID without its plus", r: replies{"AT+ICCID": info("ICCID: " + want)}, cmd: "AT+ICCID"},
		{name: "^ICCID with swapped digits", r: replies{"AT^ICCID?": info("^ICCID: 98331000000000000071")}, cmd: "AT^ICCID?"},
		{name: "#CCID", r: replies{"AT#CCID": info("#CCID: " + want)}, cmd: "AT#CCID"},
		{name: "the file", r: replies{"AT+CRSM=176,12258,0,0,10": info(`+CRSM: 144,0,"98331000000000000071"`)}, cmd: "AT+CRSM=176,12258,0,0,10"},
		{name: "the file, unquoted", r: replies{"AT+CRSM=176,12258,0,0,10": info(`+CRSM: 144,0,98331000000000000071`)}, cmd: "AT+CRSM=176,12258,0,0,10"},
		{name: "no SIM is worth more than no command", r: replies{"AT+CCID": "\r\n+CME ERROR: 10\r\n"}, is: at.ErrNoSIM},
		{name: "no command", r: replies{}, is: at.ErrError},
		{name: "the file is not there", r: replies{"AT+CRSM=176,12258,0,0,10": info(`+CRSM: 106,130`)}, is: at.ErrError},
		{name: "nonsense", r: replies{"AT+CCID": info("+CCID: what")}, is: atmodem.ErrUnreadable},
	} {
		t.Run(tc.name, func(t *testing.T) {
			conn, s := attest.Dial(t, tc.r.answer)
			m := atmodem.New(conn)
			for turn := range 2 {
				n := len(s.Commands())
				got, err := m.ICCID(t.Context())
				if tc.is != nil {
					if err == nil || tc.name != "nonsense" && tc.name != "the file is not there" && !errors.Is(err, tc.is) {
						t.Fatalf("error %v, want %v", err, tc.is)
					}
					return
				}
				if exp := cmpOr(tc.want, want); err != nil || got != exp {
					t.Fatalf("%q, %v, want %q", got, err, exp)
				}
				if sent := s.Commands()[n:]; turn == 1 && !slices.Equal(sent, []string{tc.cmd}) {
					t.Errorf("the second time the modem got %q, want only %s", sent, tc.cmd)
				}
			}
		})
	}
}

func cmpOr(a, b string) string {
	if a != "" {
		return a
	}
	return b
}

func TestIMSI(t *testing.T) {
	for raw, want := range map[string]string{
		info("001010123456789"):                      "001010123456789",
		info("+CIMI: 001010123456789"):               "001010123456789",
		info(`"001010123456789"`):                    "001010123456789",
		"\r\n+CREG: 1\r\n" + info("001010123456789"): "001010123456789",
		info("0010101234567890"):                     "",
		info("12345"):                                "",
		info():                                       "",
		"\r\n+CME ERROR: 11\r\n":                     "",
	} {
		conn, _ := attest.Dial(t, attest.Always(raw))
		if got, err := atmodem.New(conn).IMSI(t.Context()); got != want || (err == nil) != (want != "") {
			t.Errorf("%q: %q, %v, want %q", raw, got, err, want)
		}
	}
}

// contexts is a modem with a table of contexts.
type contexts struct {
	lines  map[string]string // by cid
	auth   map[string]string
	take   func(string) string // what becomes of a setting
	noAuth bool
}

func (c *contexts) answer(cmd string) string {
	name, arg, _ := strings.Cut(cmd, "=")
	cid, rest, set := strings.Cut(arg, ",")
	switch {
	case cmd == "AT+CGDCONT?":
		var out []string
		for cid, l := range c.lines {
			out = append(out, fmt.Sprintf("+CGDCONT: %s,%s", cid, l))
		}
		slices.Sort(out)
		return info(out...)
	case name == "AT+CGDCONT" && !set:
		delete(c.lines, cid)
		return info()
	case name == "AT+CGDCONT":
		c.lines[cid] = c.take(rest) + `,"",0,0`
		return info()
	case name == "AT+CGAUTH" && !c.noAuth:
		c.auth[cid] = rest
		return info()
	}
	return "\r\nERROR\r\n"
}

func TestSetAPN(t *testing.T) {
	same := func(s string) string { return s }
	internet := modem.APN{Name: "internet", Type: modem.IPv4}
	for _, tc := range []struct {
		name   string
		apn    modem.APN
		cid    int
		take   func(string) string
		noAuth bool
		line   string
		auth   string
		is     error
	}{
		{name: "plain", apn: internet, line: `"IP","internet"`, auth: "0"},
		{name: "no type: both", apn: modem.APN{Name: "internet"}, line: `"IPV4V6","internet"`, auth: "0"},
		{name: "IPv6", apn: modem.APN{Name: "internet", Type: modem.IPv6}, line: `"IPV6","internet"`, auth: "0"},
		{name: "empty: the network's default", apn: modem.APN{}, line: `"IPV4V6",""`, auth: "0"},
		{name: "PAP", apn: modem.APN{Name: "a", Auth: modem.AuthPAP, User: "u", Password: redact.NewSecret("p,w")}, line: `"IPV4V6","a"`, auth: `1,"u","p,w"`},
		{name: "CHAP", apn: modem.APN{Name: "a", Auth: modem.AuthCHAP, User: "u", Password: redact.NewSecret("pw")}, line: `"IPV4V6","a"`, auth: `2,"u","pw"`},
		{name: "either", apn: modem.APN{Name: "a", User: "u", Password: redact.NewSecret("pw")}, line: `"IPV4V6","a"`, auth: `2,"u","pw"`},
		{name: "nothing to wipe", apn: internet, noAuth: true, line: `"IP","internet"`},
		{name: "no place for credentials", apn: modem.APN{Name: "a", User: "u"}, noAuth: true, is: at.ErrError},
		{name: "upper case and domain are the same name", apn: internet, take: func(string) string { return `"IP","INTERNET.mnc001.mcc001.gprs"` }, auth: "0"},
		{name: "another name is not", apn: internet, take: func(string) string { return `"IP","internet2"` }, is: atmodem.ErrNotTaken},
		{name: "another type is not", apn: internet, take: func(s string) string { return strings.Replace(s, `"IP"`, `"IPV4V6"`, 1) }, is: atmodem.ErrNotTaken},
		{name: "quote in the name", apn: modem.APN{Name: `a",0;+CFUN=0`}, is: atmodem.ErrUnsafe},
		{name: "line end in the name", apn: modem.APN{Name: "a\rAT+CFUN=0"}, is: atmodem.ErrUnsafe},
		{name: "blank in the name", apn: modem.APN{Name: "a b"}, is: atmodem.ErrUnsafe},
		{name: "semicolon in the user", apn: modem.APN{Name: "a", User: "u;+CFUN=0"}, is: atmodem.ErrUnsafe},
		{name: "quote in the password", apn: modem.APN{Name: "a", User: "u", Password: redact.NewSecret(`"`)}, is: atmodem.ErrUnsafe},
		{name: "umlaut in the password", apn: modem.APN{Name: "a", User: "u", Password: redact.NewSecret("ä")}, is: atmodem.ErrUnsafe},
		{name: "long name", apn: modem.APN{Name: strings.Repeat("a", 101)}, is: atmodem.ErrUnsafe},
		{name: "long user", apn: modem.APN{Name: "a", User: strings.Repeat("a", 128)}, is: atmodem.ErrUnsafe},
		{name: "no such context", apn: internet, cid: 33, is: atmodem.ErrUnsafe},
		{name: "context of the modem", apn: internet, cid: -1, is: atmodem.ErrUnsafe},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if tc.take == nil {
				tc.take = same
			}
			if tc.cid == 0 {
				tc.cid = 1
			}
			c := &contexts{lines: map[string]string{"2": `"IP","ims"`}, auth: map[string]string{"1": `1,"old","old"`}, take: tc.take, noAuth: tc.noAuth}
			conn, s := attest.Dial(t, c.answer)
			err := atmodem.New(conn).SetAPN(t.Context(), tc.cid, tc.apn)
			if !errors.Is(err, tc.is) {
				t.Fatalf("error %v, want %v", err, tc.is)
			}
			if errors.Is(tc.is, atmodem.ErrUnsafe) && len(s.Commands()) != 0 {
				t.Errorf("the modem got %q", s.Commands())
			}
			if tc.is != nil {
				if fault.Of(err).Code == fault.Internal {
					t.Errorf("%v does not explain itself", err)
				}
				return
			}
			if tc.line != "" && c.lines["1"] != tc.line+`,"",0,0` {
				t.Errorf("context %s, want %s", c.lines["1"], tc.line)
			}
			if !tc.noAuth && c.auth["1"] != tc.auth {
				t.Errorf("credentials %s, want %s", c.auth["1"], tc.auth)
			}
			if c.lines["2"] != `"IP","ims"` {
				t.Errorf("the other context became %s", c.lines["2"])
			}
		})
	}
}

func TestAPNs(t *testing.T) {
	conn, _ := attest.Dial(t, attest.Always(info(`+CGDCONT: 1,"IPV4V6","internet","0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0",0,0`, `+CGDCONT: 2,"Non-IP","nb"`, `+CGDCONT:3,"IP",""`,
		`+CGDCONT: x,"IP","bad"`, `+CGDCONT: 5,"IPV6","with,comma"`)))
	got, err := atmodem.New(conn).APNs(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var text []string
	for _, c := range got {
		text = append(text, fmt.Sprint(c.CID, c.APN.Type, c.APN.Name))
	}
	if want := []string{"1ipv4v6internet", "3ipv4", "5ipv6with,comma"}; !slices.Equal(text, want) {
		t.Errorf("contexts %q, want %q", text, want)
	}
}

func TestClearAPN(t *testing.T) {
	c := &contexts{lines: map[string]string{"1": `"IP","a"`}, auth: map[string]string{"1": `1,"u","p"`}}
	conn, _ := attest.Dial(t, c.answer)
	m := atmodem.New(conn)
	if err := m.ClearAPN(t.Context(), 1); err != nil || len(c.lines) != 0 || c.auth["1"] != "0" {
		t.Errorf("%v: contexts %v, credentials %v", err, c.lines, c.auth)
	}
	if err := m.ClearAPN(t.Context(), 0); !errors.Is(err, atmodem.ErrUnsafe) {
		t.Errorf("context 0: %v", err)
	}
}

func TestFunctionality(t *testing.T) {
	conn, s := attest.Dial(t, replies{"AT+CFUN?": info("+CFUN: 4,0"), "AT+CFUN=1": info()}.answer)
	m := atmodem.New(conn)
	if n, err := m.Functionality(t.Context()); n != atmodem.Airplane || err != nil {
		t.Errorf("%d, %v", n, err)
	}
	if err := m.SetFunctionality(t.Context(), atmodem.Full); err != nil {
		t.Error(err)
	}
	if err := m.SetFunctionality(t.Context(), 128); err == nil {
		t.Error("level 128: no error")
	}
	if err := m.SetFunctionality(t.Context(), 0); !errors.Is(err, at.ErrError) {
		t.Errorf("error %v, want ErrError", err)
	}
	if got := s.Commands(); len(got) != 3 {
		t.Errorf("the modem got %q", got)
	}
	conn, _ = attest.Dial(t, attest.Always(info("+CFUN: full")))
	if _, err := atmodem.New(conn).Functionality(t.Context()); !errors.Is(err, atmodem.ErrUnreadable) {
		t.Errorf("error %v, want ErrUnreadable", err)
	}
}

func TestWaitSIM(t *testing.T) {
	for _, tc := range []struct {
		name    string
		answers []string // one for each question, the last one for ever
		is      error
		took    time.Duration
	}{
		{"ready", []string{info("+CPIN: READY")}, nil, 0},
		{"PIN2 does not matter", []string{info("+CPIN: SIM PIN2")}, nil, 0},
		{"busy, then ready", []string{"\r\n+CME ERROR: 14\r\n", "\r\n+CME ERROR: 10\r\n", info("+CPIN: NOT READY"), info("+CPIN: READY")}, nil, 350 * time.Millisecond},
		{"PIN", []string{info("+CPIN: SIM PIN")}, at.ErrLocked, 0},
		{"PUK", []string{info("+CPIN: SIM PUK")}, at.ErrLocked, 0},
		{"operator lock", []string{info("+CPIN: PH-NET PIN")}, at.ErrLocked, 0},
		{"PIN by error", []string{"\r\n+CME ERROR: 11\r\n"}, at.ErrLocked, 0},
		{"never there", []string{"\r\n+CME ERROR: 10\r\n"}, at.ErrNoSIM, time.Minute},
		{"never there, in time", []string{"\r\n+CME ERROR: 10\r\n"}, context.DeadlineExceeded, time.Minute},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := 0
				conn, _ := attest.Dial(t, func(string) string {
					a := tc.answers[min(n, len(tc.answers)-1)]
					n++
					return a
				})
				begin := time.Now()
				if err := atmodem.New(conn).WaitSIM(t.Context()); !errors.Is(err, tc.is) {
					t.Errorf("error %v, want %v", err, tc.is)
				}
				if took := time.Since(begin); took != tc.took {
					t.Errorf("took %v, want %v", took, tc.took)
				}
			})
		})
	}
}

// The message of the modem is quicker than the next question.
func TestWaitSIMByMessage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ready := false
		var s *attest.Modem
		var conn *at.Conn
		conn, s = attest.Dial(t, func(string) string {
			if ready {
				return info("+CPIN: READY")
			}
			return "\r\n+CME ERROR: 14\r\n"
		})
		time.AfterFunc(100*time.Millisecond, func() { s.Say("\r\n+CREG: 1\r\n"); ready = true; s.Say("\r\n+CPIN: READY\r\n") })
		begin := time.Now()
		if err := atmodem.New(conn).WaitSIM(t.Context()); err != nil {
			t.Fatal(err)
		}
		if took := time.Since(begin); took != 100*time.Millisecond {
			t.Errorf("took %v", took)
		}
	})
	synctest.Test(t, func(t *testing.T) { // and a hang-up ends the wait
		var s *attest.Modem
		var conn *at.Conn
		conn, s = attest.Dial(t, attest.Always("\r\n+CME ERROR: 14\r\n"))
		time.AfterFunc(time.Second, func() { s.Close() })
		if err := atmodem.New(conn).WaitSIM(t.Context()); !errors.Is(err, at.ErrHangup) {
			t.Errorf("error %v, want ErrHangup", err)
		}
	})
}

// switching is a modem that goes on showing the old profile until its SIM was
// switched off and on.
type switching struct {
	shown, card string
	fun         int
	off         string        // answer to AT+CFUN=0; empty: OK
	on          string        // answer to AT+CFUN=1
	boot        time.Duration // until the SIM is read
	ready       time.Time
	ignores     bool // AT+CFUN does nothing to the SIM
	file        bool // no command for the ICCID but reading the file, which is on the card
	script      *attest.Modem
}

const (
	oldICCID = "89330100000000000017"
	newICCID = "89440200000000000022"
)

func (m *switching) answer(cmd string) string {
	switch cmd {
	case "AT+CMEE?":
		return info("+CMEE: 1")
	case "AT+CFUN?":
		return info(fmt.Sprintf("+CFUN: %d", m.fun))
	case "AT+CRSM=176,12258,0,0,10":
		if !m.file || m.fun == 0 {
			break
		}
		swapped := []byte(m.card)
		for i := 0; i < len(swapped); i += 2 {
			swapped[i], swapped[i+1] = swapped[i+1], swapped[i]
		}
		return info(`+CRSM: 144,0,"` + string(swapped) + `"`)
	case "AT+QCCID":
		if m.file {
			break
		}
		switch {
		case m.fun == 0:
			return "\r\n+CME ERROR: 10\r\n"
		case time.Now().Before(m.ready):
			return "\r\n+CME ERROR: 14\r\n"
		}
		return info("+QCCID: " + m.shown)
	case "AT+CPIN?":
		if m.fun == 0 || time.Now().Before(m.ready) {
			return "\r\n+CME ERROR: 14\r\n"
		}
		return info("+CPIN: READY")
	case "AT+CFUN=0":
		switch m.off {
		case "\r\nERROR\r\n":
			return m.off
		case "hangup":
			m.fun = 0
			m.script.Close()
			return ""
		}
		m.fun = 0
		return reply(m.off)
	case "AT+CFUN=4":
		m.fun = 4
		return info()
	case "AT+CFUN=1":
		if m.fun != 1 && !m.ignores {
			m.fun, m.shown, m.ready = 1, m.card, time.Now().Add(m.boot)
		}
		return reply(m.on)
	}
	return "\r\nERROR\r\n"
}

func reply(s string) string {
	switch s {
	case "":
		return info()
	case "lost":
		return ""
	}
	return s
}

func TestReread(t *testing.T) {
	for _, tc := range []struct {
		name   string
		m      switching
		iccid  string
		rung   string
		is     error
		fun    int // at the end
		within time.Duration
	}{
		{name: "it cannot be told whether it followed by itself", m: switching{shown: newICCID, card: newICCID, fun: 1}, rung: atmodem.RungCFUN01, fun: 1},
		{name: "the file tells of the card, not of the modem", m: switching{shown: oldICCID, card: newICCID, fun: 1, file: true}, rung: atmodem.RungCFUN01, fun: 1},
		{name: "off and on", m: switching{shown: oldICCID, card: newICCID, fun: 1, boot: 2 * time.Second}, rung: atmodem.RungCFUN01, fun: 1, within: 3 * time.Second},
		{name: "filler does not count", m: switching{shown: oldICCID, card: "8944020000000000022", fun: 1}, iccid: "8944020000000000022F", rung: atmodem.RungCFUN01, fun: 1},
		{name: "answer to off is lost", m: switching{shown: oldICCID, card: newICCID, fun: 1, off: "lost"}, rung: atmodem.RungCFUN01, fun: 1, within: 15 * time.Second},
		{name: "answer to on is lost", m: switching{shown: oldICCID, card: newICCID, fun: 1, on: "lost"}, rung: atmodem.RungCFUN01, fun: 1, within: 15 * time.Second},
		{name: "off is refused (EC20: 4 and 1)", m: switching{shown: oldICCID, card: newICCID, fun: 1, off: "\r\nERROR\r\n"}, rung: atmodem.RungCFUN41, fun: 1},
		{name: "was left switched off", m: switching{shown: oldICCID, card: newICCID, fun: 0, off: "hangup"}, rung: atmodem.RungCFUN01, fun: 1},
		{name: "port drops (EG916Q)", m: switching{shown: oldICCID, card: newICCID, fun: 1, off: "hangup"}, rung: atmodem.RungCFUN01, is: at.ErrHangup},
		{name: "goes on showing the old one", m: switching{shown: oldICCID, card: oldICCID, fun: 1}, rung: atmodem.RungCFUN01, is: atmodem.ErrOldSIM, fun: 1, within: time.Minute},
		{name: "is never ready", m: switching{shown: oldICCID, card: newICCID, fun: 1, boot: time.Hour}, rung: atmodem.RungCFUN01, is: at.ErrBusy, fun: 1, within: time.Minute},
		{name: "no ICCID", m: switching{shown: oldICCID, fun: 1}, iccid: "x", is: atmodem.ErrUnreadable, fun: 1},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m := tc.m
				conn, s := attest.Dial(t, m.answer)
				m.script = s
				begin := time.Now()
				rung, err := atmodem.New(conn).Reread(t.Context(), cmpOr(tc.iccid, newICCID))
				if rung != tc.rung || !errors.Is(err, tc.is) {
					t.Errorf("rung %q, error %v, want %q, %v", rung, err, tc.rung, tc.is)
				}
				if err != nil && fault.Of(err).Code == fault.Internal {
					t.Errorf("%v does not explain itself", err)
				}
				if m.fun != tc.fun {
					t.Errorf("functionality %d at the end, want %d", m.fun, tc.fun)
				}
				if took := time.Since(begin); took > tc.within {
					t.Errorf("took %v, want %v at most", took, tc.within)
				}
			})
		})
	}
}

// A context that ends between off and on leaves the modem on.
func TestRereadCancelledLeavesTheModemOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := switching{shown: oldICCID, card: newICCID, fun: 1, off: "lost"}
		conn, s := attest.Dial(t, m.answer)
		m.script = s
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(time.Second, cancel)
		if _, err := atmodem.New(conn).Reread(ctx, newICCID); !errors.Is(err, context.Canceled) {
			t.Errorf("error %v, want context.Canceled", err)
		}
		if m.fun != 1 {
			t.Errorf("functionality %d", m.fun)
		}
	})
}

// A card that is stuck loses its power, whichever profile the modem shows.
func TestPowerCycle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := switching{shown: oldICCID, card: newICCID, fun: 1, boot: 2 * time.Second}
		conn, s := attest.Dial(t, m.answer)
		m.script = s
		if err := atmodem.New(conn).PowerCycle(t.Context()); err != nil || m.fun != 1 || m.shown != newICCID {
			t.Errorf("functionality %d, shows %s, %v", m.fun, m.shown, err)
		}
	})
}

func TestRegistration(t *testing.T) {
	for _, tc := range []struct {
		name string
		r    replies
		want modem.Registration
		is   error
	}{
		{name: "at home, LTE", r: replies{"AT+CEREG?": info(`+CEREG: 2,1,"00C3","000A2B1F",7`), "AT+COPS=3,2": info(), "AT+COPS=3,0": info(), "AT+COPS?": info(`+COPS: 0,2,"26201",7`)},
			want: modem.Registration{State: modem.RegisteredHome, PLMN: "26201", Access: "lte"}},
		{name: "roaming, by the message too", r: replies{"AT+CEREG?": info("+CEREG: 2", `+CEREG: 0,5`)},
			want: modem.Registration{State: modem.RegisteredRoaming}},
		{name: "a message with cell data is no answer", r: replies{"AT+CEREG?": info(`+CEREG: 1,"00C3","000A2B1F",7`, `+CEREG: 0,2`)},
			want: modem.Registration{State: modem.Searching}},
		{name: "2G and 3G only", r: replies{"AT+CEREG?": info("+CEREG: 0,0"), "AT+CGREG?": info("+CGREG: 0,1"), "AT+COPS=3,2": info(), "AT+COPS?": info(`+COPS: 0,2,"26201",2`)},
			want: modem.Registration{State: modem.RegisteredHome, PLMN: "26201", Access: "umts"}},
		{name: "calls only", r: replies{"AT+CREG?": info("+CREG: 0,1")}, want: modem.Registration{State: modem.RegisteredHome}},
		{name: "denied is worth more than searching", r: replies{"AT+CEREG?": info("+CEREG: 0,2"), "AT+CGREG?": info("+CGREG: 0,3"), "AT+CREG?": info("+CREG: 0,0")},
			want: modem.Registration{State: modem.Denied}},
		{name: "emergency only", r: replies{"AT+CEREG?": info("+CEREG: 0,8")}, want: modem.Registration{State: modem.NotRegistered}},
		{name: "unknown", r: replies{"AT+CEREG?": info("+CEREG: 0,4")}, want: modem.Registration{State: modem.RegistrationUnknown}},
		{name: "no command", r: replies{}, want: modem.Registration{State: modem.RegistrationUnknown}, is: at.ErrError},
		{name: "nonsense", r: replies{"AT+CREG?": info("+CREG: x,y")}, want: modem.Registration{State: modem.RegistrationUnknown}, is: atmodem.ErrUnreadable},
	} {
		t.Run(tc.name, func(t *testing.T) {
			conn, _ := attest.Dial(t, tc.r.answer)
			got, err := atmodem.New(conn).Registration(t.Context())
			if !errors.Is(err, tc.is) || got != tc.want {
				t.Errorf("%+v, %v, want %+v, %v", got, err, tc.want, tc.is)
			}
		})
	}
}

// Number and name come by two formats.
func TestOperatorName(t *testing.T) {
	format := 0
	conn, _ := attest.Dial(t, func(cmd string) string {
		switch cmd {
		case "AT+CEREG?":
			return info("+CEREG: 0,1")
		case "AT+COPS=3,2":
			format = 2
			return info()
		case "AT+COPS=3,0":
			format = 0
			return info()
		case "AT+COPS?":
			if format == 2 {
				return info(`+COPS: 0,2,"00101",11`)
			}
			return info(`+COPS: 0,0,"Test PLMN, 1-1",11`)
		}
		return "\r\nERROR\r\n"
	})
	got, err := atmodem.New(conn).Registration(t.Context())
	if want := (modem.Registration{State: modem.RegisteredHome, PLMN: "00101", Operator: "Test PLMN, 1-1", Access: "5gnr"}); err != nil || got != want {
		t.Errorf("%+v, %v, want %+v", got, err, want)
	}
	if format != 0 {
		t.Error("the format was left at numbers")
	}
}

func TestAttachAndDetach(t *testing.T) {
	for _, tc := range []struct {
		name string
		r    replies
		do   func(*atmodem.Modem, context.Context) error
		sent []string
		is   error
	}{
		{"detach", replies{"AT+COPS=2": info()}, (*atmodem.Modem).Detach, []string{"AT+COPS=2"}, nil},
		{"detach, packets only", replies{"AT+CGATT=0": info()}, (*atmodem.Modem).Detach, []string{"AT+COPS=2", "AT+CGATT=0"}, nil},
		{"detach, refused", replies{"AT+COPS=2": "\r\n+CME ERROR: 3\r\n"}, (*atmodem.Modem).Detach, []string{"AT+COPS=2", "AT+CGATT=0"}, at.ErrNotAllowed},
		{"detach, silence", replies{"AT+COPS=2": silence}, (*atmodem.Modem).Detach, []string{"AT+COPS=2"}, at.ErrTimeout},
		{"attach", replies{"AT+COPS=0": info(), "AT+CGATT=1": info()}, (*atmodem.Modem).Attach, []string{"AT+COPS=0", "AT+CGATT=1"}, nil},
		{"attach, network fixed", replies{"AT+CGATT=1": info()}, (*atmodem.Modem).Attach, []string{"AT+COPS=0", "AT+CGATT=1"}, nil},
		{"attach, refused", replies{"AT+COPS=0": info(), "AT+CGATT=1": "\r\n+CME ERROR: 30\r\n"}, (*atmodem.Modem).Attach, []string{"AT+COPS=0", "AT+CGATT=1"}, at.ErrNoService},
		{"attach, silence", replies{"AT+COPS=0": silence}, (*atmodem.Modem).Attach, []string{"AT+COPS=0"}, at.ErrTimeout},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				conn, s := attest.Dial(t, tc.r.answer)
				if err := tc.do(atmodem.New(conn), t.Context()); !errors.Is(err, tc.is) {
					t.Errorf("error %v, want %v", err, tc.is)
				}
				if !slices.Equal(s.Commands(), tc.sent) {
					t.Errorf("the modem got %q, want %q", s.Commands(), tc.sent)
				}
			})
		})
	}
}

func TestClock(t *testing.T) {
	for _, tc := range []struct {
		raw, want string
		is        error
	}{
		{`+CCLK: "26/11/21,20:25:00+04"`, "2026-11-21T20:25:00+01:00", nil},
		{`+CCLK: "26/11/21,20:25:00-20"`, "2026-11-21T20:25:00-05:00", nil},
		{`+CCLK: "2026/11/21,20:25:00+00"`, "2026-11-21T20:25:00Z", nil},
		{`+CCLK: "26/11/21,20:25:00"`, "2026-11-21T20:25:00Z", nil},
		{`+CCLK: 26/11/21,20:25:00+22`, "2026-11-21T20:25:00+05:30", nil},
		{`+CCLK: "80/01/06,00:00:12+00"`, "", atmodem.ErrNoTime},
		{`+CCLK: "70/01/01,00:00:12+00"`, "", atmodem.ErrNoTime},
		{`+CCLK: "18/01/01,00:00:12+00"`, "", atmodem.ErrNoTime},
		{`+CCLK: "26/13/21,20:25:00+04"`, "", atmodem.ErrUnreadable},
		{`+CCLK: "26/11/21,20:25:00+99"`, "", atmodem.ErrUnreadable},
		{`+CCLK: ""`, "", atmodem.ErrUnreadable},
	} {
		conn, _ := attest.Dial(t, attest.Always(info(tc.raw)))
		got, err := atmodem.New(conn).Clock(t.Context())
		if !errors.Is(err, tc.is) || err == nil && got.Format(time.RFC3339) != tc.want {
			t.Errorf("%s: %v, %v, want %s, %v", tc.raw, got, err, tc.want, tc.is)
		}
	}
	conn, _ := attest.Dial(t, replies{}.answer)
	if _, err := atmodem.New(conn).Clock(t.Context()); !errors.Is(err, at.ErrError) {
		t.Errorf("error %v, want ErrError", err)
	}
}
