package at

import "strings"

// final reads a final result code of V.250, TS 27.007 and TS 27.005: is it one,
// and what does it say (nil: good). A result of dialling counts only when the
// command dials: in the middle of an APDU, NO CARRIER is a message about somebody
// else's call.
func final(line string, dials bool) (is bool, says error) {
	switch {
	case line == "OK":
		return true, nil
	case line == "ERROR":
		return true, ErrError
	case line == "ABORTED":
		return true, ErrAborted
	case hasName(line, "+CME ERROR"):
		return true, parseCME(afterColon(line))
	case hasName(line, "+CMS ERROR"):
		return true, parseCMS(afterColon(line))
	case strings.HasPrefix(line, "COMMAND NOT SUPPORT"): // Huawei, ZTE
		return true, ErrNotSupported
	case line == "TOO MANY PARAMETERS":
		return true, ErrBadParameter
	}
	if !dials {
		return false, nil
	}
	switch {
	case line == "CONNECT", strings.HasPrefix(line, "CONNECT "):
		return true, nil
	case line == "NO CARRIER":
		return true, ErrNoCarrier
	case line == "BUSY":
		return true, ErrBusy
	case line == "NO ANSWER":
		return true, ErrNoAnswer
	case line == "NO DIALTONE", line == "NO DIAL TONE":
		return true, ErrNoDialtone
	}
	return false, nil
}

func afterColon(line string) string {
	_, rest, _ := strings.Cut(line, ":")
	return rest
}

// dials reports whether the command sets up a call (V.250, section 6.3; TS
// 27.007, section 10.1.12).
func dials(command string) bool {
	up := strings.ToUpper(strings.ReplaceAll(command, " ", ""))
	for _, p := range []string{"ATD", "ATA", "ATO", "AT+CGDATA"} {
		if strings.HasPrefix(up, p) {
			return true
		}
	}
	return false
}

// messages are unsolicited result codes without a prefix, as the makers of
// modems have them at start, at a change of SIM and at the end of a call.
var messages = []string{
	"RING", "RDY", "NO CARRIER", "BUSY", "NO ANSWER", "NO DIALTONE", "CONNECT",
	"PB DONE", "SMS DONE", "SMS READY", "CALL READY", "SMS Ready", "Call Ready",
	"APP RDY", "POWERED DOWN", "NORMAL POWER DOWN", "POWER DOWN", "UNDER-VOLTAGE WARNNING", "OVER-VOLTAGE WARNNING",
	"SIM DROP", "SIM REMOVED", "SIM INSERTED", "START", "ATREADY",
}

// bareMessage reports whether a line without a prefix is a well-known message.
func bareMessage(line string) bool {
	for _, m := range messages {
		if strings.EqualFold(line, m) {
			return true
		}
	}
	return strings.HasPrefix(line, "CONNECT ")
}

// announcing are the names whose set form (AT+X=…) has no answer of its own, so
// that a line of this name is a message even while the set form runs.
var announcing = map[string]bool{
	"+CREG": true, "+CGREG": true, "+CEREG": true, "+C5GREG": true, "+CFUN": true, "+CPIN": true, "+CTZU": true, "+CTZR": true,
	"+CGATT": true, "+CGACT": true, "+CGDCONT": true, "+CGAUTH": true, "+CGEREP": true, "+CMER": true, "+CIND": true, "+COPS": true,
	"+QUSIM": true, "+QIND": true, "+CUSD": true, "+CMEE": true, "#QSS": true, "^SCKS": true, "+CSIM LOCK": true,
}

// expected are the names of the information lines that the command asks for.
// A line may hold several commands, separated by semicolons.
func expected(command string) []string {
	var names []string
	body := command
	if len(body) >= 2 && strings.EqualFold(body[:2], "AT") {
		body = body[2:]
	}
	for _, part := range splitUnquoted(body, ';') {
		part = strings.TrimSpace(part)
		if !extended(part) {
			continue
		}
		name := nameOf(part)
		rest := part[len(name):]
		if announcing[name] && strings.HasPrefix(rest, "=") && !strings.HasPrefix(rest, "=?") {
			continue
		}
		names = append(names, name)
	}
	return names
}

func splitUnquoted(s string, sep byte) []string {
	var out []string
	quoted, from := false, 0
	for i := 0; i < len(s); i++ {
		switch {
		case s[i] == '"':
			quoted = !quoted
		case s[i] == sep && !quoted:
			out = append(out, s[from:i])
			from = i + 1
		}
	}
	return append(out, s[from:])
}
