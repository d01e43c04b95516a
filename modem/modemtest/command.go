package modemtest

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// form is how a command is used: AT+X, AT+X=…, AT+X?, AT+X=?.
type form byte

const (
	action form = 0
	set    form = '='
	read   form = '?'
	test   form = 't'
)

// call is one command on one port.
type call struct {
	m    *Modem
	p    *Port
	ctx  context.Context // of this call
	name string          // upper case: "+CGDCONT", "E", "&C", "D"
	form form
	raw  string   // what stands after = or after the name
	args []string // raw parted at its commas, quotes taken off
}

// arg is the i-th parameter, "" when it is not given.
func (c call) arg(i int) string {
	if i < len(c.args) {
		return c.args[i]
	}
	return ""
}

// num is the i-th parameter as a number. An absent one is def, one that is no number is false.
func (c call) num(i, def int) (int, bool) {
	a := c.arg(i)
	if a == "" {
		return def, true
	}
	n, err := strconv.Atoi(a)
	return n, err == nil
}

// reply is the answer to a command line.
type reply struct {
	lines []string // information lines
	final string   // OK, ERROR, +CME ERROR: n, CONNECT; "" when the information lines are all
	mute  bool     // nothing of it is said
	after func()   // runs when the answer has been written
}

// String is the reply as it stands in the log.
func (r reply) String() string {
	return strings.Join(append(slices.Clone(r.lines), r.final), " | ")
}

func ok(lines ...string) reply { return reply{lines: lines, final: "OK"} }

// cmeCode is an error of the mobile equipment, 3GPP TS 27.007, section 9.2.
type cmeCode int

const (
	cmePhoneFailure    cmeCode = 0
	cmeNotAllowed      cmeCode = 3
	cmeNotSupported    cmeCode = 4
	cmeSIMNotInserted  cmeCode = 10
	cmeSIMFailure      cmeCode = 13
	cmeSIMBusy         cmeCode = 14
	cmeMemoryFull      cmeCode = 20
	cmeInvalidIndex    cmeCode = 21
	cmeNotFound        cmeCode = 22
	cmeNoNetwork       cmeCode = 30
	cmeIncorrectParams cmeCode = 50
	cmeUnknown         cmeCode = 100
	cmeNotSubscribed   cmeCode = 133 // requested service option not subscribed (#33)
	cmeUnspecifiedGPRS cmeCode = 148
	cmeAuthentication  cmeCode = 149 // PDP authentication failure
)

var cmeText = map[cmeCode]string{
	cmePhoneFailure: "phone failure", cmeUnknown: "unknown",
	cmeNotAllowed: "operation not allowed", cmeNotSupported: "operation not supported", cmeSIMNotInserted: "SIM not inserted",
	cmeSIMFailure: "SIM failure", cmeSIMBusy: "SIM busy", cmeMemoryFull: "memory full", cmeInvalidIndex: "invalid index",
	cmeNotFound: "not found", cmeNoNetwork: "no network service", cmeIncorrectParams: "Incorrect parameters",
	cmeNotSubscribed: "requested service option not subscribed", cmeUnspecifiedGPRS: "unspecified GPRS error",
	cmeAuthentication: "PDP authentication failure",
}

// fail is a +CME ERROR in the form that the port asked for by AT+CMEE.
func (c call) fail(code cmeCode) reply {
	c.p.mu.Lock()
	defer c.p.mu.Unlock()
	switch c.p.cmee {
	case 0:
		return reply{final: "ERROR"}
	case 2:
		return reply{final: "+CME ERROR: " + cmeText[code]}
	default:
		return reply{final: fmt.Sprintf("+CME ERROR: %d", code)}
	}
}

func (c call) wrong() reply { return c.fail(cmeIncorrectParams) }

// command is one entry of the table of commands.
type command struct {
	run    func(call) reply
	vendor bool   // only there when the dialect has it
	help   string // parameters for AT+X=?, after "+X: "; "" answers OK alone
}

// commands is every command that some modem understands.
func commands() map[string]command {
	accept := func(call) reply { return ok() }
	return map[string]command{
		// command.go, settings of the port
		"E": {run: call.echo}, "V": {run: accept}, "Q": {run: accept}, "X": {run: accept}, "S": {run: accept},
		"Z": {run: call.resetPort}, "&F": {run: call.resetPort}, "&C": {run: accept}, "&D": {run: accept}, "&K": {run: accept}, `\Q`: {run: accept},
		"H": {run: accept}, "I": {run: call.identify}, "D": {run: call.dial},
		"+CMEE": {run: call.errorFormat, help: "(0-2)"}, "+IFC": {run: call.keep, help: "(0-2),(0-2)"}, "+CRC": {run: call.keep, help: "(0,1)"},
		"+CMER": {run: call.keep, help: "(1),(0),(0),(0,1),(0)"}, "+CGEREP": {run: call.keep, help: "(0-2),(0,1)"},
		"+CSCS": {run: call.characterSet, help: `("GSM","IRA","UCS2")`}, "+WS46": {run: call.systemMode, help: "(12,22,25,28,29,30,31)"},
		"+USIMSTAT": {run: call.keep, vendor: true}, "#QSS": {run: call.simStatus, vendor: true, help: "(0-2)"}, "^SCKS": {run: call.simStatus, vendor: true, help: "(0,1)"},
		// identity.go
		"+CGMI": {run: call.manufacturer}, "+GMI": {run: call.manufacturer}, "+CGMM": {run: call.model}, "+GMM": {run: call.model},
		"+CGMR": {run: call.revision}, "+GMR": {run: call.revision}, "+CGSN": {run: call.imei}, "+GSN": {run: call.imei},
		"+GCAP": {run: call.capabilities}, "+CCLK": {run: call.clock},
		// sim.go
		"+CFUN": {run: call.functionality}, "+CPIN": {run: call.pin}, "+CIMI": {run: call.imsi}, "+CNUM": {run: call.numbers},
		"+CCID": {run: call.iccid, vendor: true}, "+QCCID": {run: call.iccid, vendor: true}, "+ICCID": {run: call.iccid, vendor: true},
		"#CCID": {run: call.iccid, vendor: true}, "^SCID": {run: call.iccid, vendor: true}, "!ICCID": {run: call.iccid, vendor: true},
		"+QPOWD": {run: reset("POWERED DOWN"), vendor: true}, "#REBOOT": {run: reset(""), vendor: true}, "!RESET": {run: reset(""), vendor: true},
		"+CRESET": {run: reset(""), vendor: true}, "^SMSO": {run: reset("^SHUTDOWN"), vendor: true}, "+CPWROFF": {run: reset(""), vendor: true},
		"+QUIMSLOT": {run: slots(1), vendor: true, help: "(1,2)"}, "^SWITCH_SLOT": {run: slots(0), vendor: true, help: "(0,1)"},
		"!UIMS": {run: slots(0), vendor: true, help: "(0,1)"}, "+GTDUALSIM": {run: slots(0), vendor: true, help: "(0,1)"},
		// card.go
		"+CSIM": {run: call.genericAccess}, "+CRSM": {run: call.restrictedAccess},
		"+CCHO": {run: call.openSession}, "+CGLA": {run: call.sessionAccess}, "+CCHC": {run: call.closeSession},
		// network.go
		"+CREG": {run: call.registration, help: "(0-2)"}, "+CGREG": {run: call.registration, help: "(0-2)"}, "+CEREG": {run: call.registration, help: "(0-2)"},
		"+QMBNCFG": {run: call.carrierConfig, vendor: true}, "+COPS": {run: call.operator}, "+CSQ": {run: call.signal, help: "(0-31,99),(0-7,99)"}, "+CGATT": {run: call.attach, help: "(0,1)"},
		// radio.go
		"+CEDRXS": {run: call.discontinuous, help: `(0-3),(4,5),("0000"-"1111")`}, "+CPSMS": {run: call.powerSaving, help: `(0-2),,,("00000000"-"11111111"),("00000000"-"11111111")`},
		"+CSCA": {run: call.serviceCentre}, "#BND": {run: call.bands, vendor: true, help: "(0-3),(0-6),(1-80800C5)"},
		// bearer.go
		"+CGDCONT": {run: call.contextDefinition}, "+CGAUTH": {run: call.authentication, help: "(1-16),(0-2),64,64"},
		"+UAUTHREQ": {run: call.authentication, vendor: true}, "^SGAUTH": {run: call.authentication, vendor: true}, "$QCPDPP": {run: call.authentication, vendor: true}, "+CGACT": {run: call.activation, help: "(0,1)"},
		"+CGPADDR": {run: call.addresses}, "+CGCONTRDP": {run: call.dynamicParameters}, "+UIPADDR": {run: call.bridgeAddress, vendor: true},
	}
}

// run runs a command line (without its AT): commands joined by semicolons, of
// which the first that fails ends the line.
func (m *Modem) run(ctx context.Context, p *Port, line string) reply {
	all := reply{final: "OK"}
	var after []func()
	for _, c := range splitLine(line) {
		c.m, c.p, c.ctx = m, p, ctx
		r := m.runOne(c)
		all.lines = append(all.lines, r.lines...)
		all.final, all.mute = r.final, r.mute
		if r.after != nil {
			after = append(after, r.after)
		}
		if r.final != "OK" {
			break
		}
	}
	if len(after) > 0 {
		all.after = func() {
			for _, f := range after {
				f()
			}
		}
	}
	return all
}

func (m *Modem) runOne(c call) reply {
	d := &m.cfg.Dialect
	if a, found := d.Answers[c.text()]; found {
		return fixedAnswer(a)
	}
	if code, found := d.Refuses[c.name]; found && c.form != test {
		if code == BareError {
			return reply{final: "ERROR"}
		}
		return c.fail(cmeCode(code))
	}
	cmd, found := m.commands[c.name]
	if !found || cmd.vendor && !slices.Contains(d.Has, c.name) || slices.Contains(d.Lacks, c.name) {
		return reply{final: "ERROR"}
	}
	if c.form == set {
		c.p.set(c.name, c.raw)
	}
	if c.form == test && cmd.help != "" {
		return ok(c.name + ": " + cmd.help)
	}
	return cmd.run(c)
}

// text is the command as the key of Dialect.Answers.
func (c call) text() string {
	switch c.form {
	case set:
		return c.name + "=" + strings.ToUpper(c.raw)
	case read:
		return c.name + "?"
	case test:
		return c.name + "=?"
	default:
		return c.name + strings.ToUpper(c.raw)
	}
}

func fixedAnswer(text string) reply {
	if text == Silence {
		return reply{final: "OK", mute: true}
	}
	lines := strings.Split(text, "\n")
	last := lines[len(lines)-1]
	if last == "ERROR" || strings.HasPrefix(last, "+CME ERROR") || last == "OK" {
		return reply{lines: lines[:len(lines)-1], final: last}
	}
	return ok(lines...)
}

// splitLine parses a command line after its AT: basic commands (a letter or
// & or \ and a letter, and a number) may follow each other, extended ones end at a
// semicolon (ITU-T V.250, section 5.2).
func splitLine(line string) []call {
	var calls []call
	for line != "" {
		switch b := line[0]; {
		case b == ' ' || b == ';':
			line = line[1:]
		case b == 'D' || b == 'd': // a dial string is the rest of the line
			calls = append(calls, call{name: "D", raw: line[1:]})
			line = ""
		case 'a' <= b && b <= 'z' || 'A' <= b && b <= 'Z' || (b == '&' || b == '\\') && len(line) > 1:
			n := 1
			if b == '&' || b == '\\' {
				n = 2
			}
			end := n
			for end < len(line) && ('0' <= line[end] && line[end] <= '9' || line[end] == '=' || line[end] == '?') {
				end++
			}
			calls = append(calls, call{name: strings.ToUpper(line[:n]), raw: line[n:end]})
			line = line[end:]
		default:
			end := endOfExtended(line)
			calls = append(calls, parseExtended(strings.TrimSpace(line[:end])))
			line = line[end:]
		}
	}
	return calls
}

// endOfExtended is the position of the semicolon that ends an extended command.
func endOfExtended(line string) int {
	quoted := false
	for i := 0; i < len(line); i++ {
		switch {
		case line[i] == '"':
			quoted = !quoted
		case line[i] == ';' && !quoted:
			return i
		}
	}
	return len(line)
}

func parseExtended(s string) call {
	i := strings.IndexAny(s, "=?")
	if i < 0 {
		return call{name: strings.ToUpper(s)}
	}
	c := call{name: strings.ToUpper(strings.TrimSpace(s[:i])), raw: s[i+1:]}
	switch {
	case s[i] == '?':
		c.form = read
	case c.raw == "?":
		c.form = test
	default:
		c.form = set
		c.args = splitArgs(c.raw)
	}
	return c
}

// splitArgs parts parameters at the commas outside of quotes.
func splitArgs(s string) []string {
	var (
		args   []string
		cur    strings.Builder
		quoted bool
	)
	for _, r := range s {
		switch {
		case r == '"':
			quoted = !quoted
		case r == ',' && !quoted:
			args = append(args, strings.TrimSpace(cur.String()))
			cur.Reset()
		default:
			cur.WriteRune(r)
		}
	}
	return append(args, strings.TrimSpace(cur.String()))
}

// keep accepts a setting and shows it again.
func (c call) keep() reply {
	if c.form == read {
		return ok(c.name + ": " + c.p.setting(c.name))
	}
	return ok()
}

func (c call) echo() reply {
	c.p.SetEcho(c.raw != "0")
	return ok()
}

func (c call) resetPort() reply {
	c.p.mu.Lock()
	defer c.p.mu.Unlock()
	c.p.echo, c.p.cmee, c.p.settings = true, 0, map[string]string{}
	return ok()
}

func (c call) errorFormat() reply {
	c.p.mu.Lock()
	defer c.p.mu.Unlock()
	if c.form == read {
		return ok(fmt.Sprintf("+CMEE: %d", c.p.cmee))
	}
	n, good := c.num(0, 0)
	if !good || n < 0 || n > 2 {
		return reply{final: "ERROR"}
	}
	c.p.cmee = n
	return ok()
}

func (c call) characterSet() reply {
	if c.form == read {
		return ok(`+CSCS: "GSM"`)
	}
	return ok()
}
