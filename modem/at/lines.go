package at

import "strings"

// maxLine bounds one line from the modem, in bytes. The longest line we ask for
// is a +CSIM answer with 258 bytes as hexadecimal digits; lists of operators or
// of commands reach 4 kB, and may be glued to something.
const maxLine = 8192

// splitter cuts a stream of bytes into lines. CR, LF and any run of them end a
// line; empty lines are not reported. A line over maxLine is reported once, as
// too long, and skipped up to its end: that is how the reader finds its feet
// again on a port that carries something else.
type splitter struct {
	buf  []byte
	skip bool
}

// feed takes the next bytes and calls line for each line that they complete.
func (s *splitter) feed(b []byte, line func(text string, tooLong bool)) {
	for _, c := range b {
		switch {
		case c == '\r' || c == '\n':
			if !s.skip && len(s.buf) > 0 {
				if text := strings.TrimSpace(string(s.buf)); text != "" {
					line(text, false)
				}
			}
			s.buf, s.skip = s.buf[:0], false
		case s.skip:
		case c == 0: // some UARTs deliver a NUL for a break when the modem powers up
		case len(s.buf) == maxLine:
			line("", true)
			s.buf, s.skip = s.buf[:0], true
		default:
			s.buf = append(s.buf, c)
		}
	}
}

// prompt reports whether the unfinished line is the prompt for text, and if so
// forgets it: no line end ever follows it.
func (s *splitter) prompt() bool {
	if s.skip || strings.TrimSpace(string(s.buf)) != ">" {
		return false
	}
	s.buf = s.buf[:0]
	return true
}

// unglue cuts a line that is in truth several, because the modem or the line
// lost a line end: `+CGLA: 4,"9000"OK`, `OK+CREG: 1`, `+CGLA: 4,"9000">AT+CGLA=…`
// (lpac issue 173). After a closing quote only a comma, a bracket or a blank can
// follow within one line.
func unglue(line string) []string {
	var out []string
	for {
		n := glue(line)
		if n == 0 {
			return append(out, line)
		}
		if head := strings.TrimSpace(line[:n]); head != "" {
			out = append(out, head)
		}
		line = strings.TrimSpace(line[n:])
		if line == "" {
			return out
		}
	}
}

// glue returns where a second line begins in line, or 0.
func glue(line string) int {
	for _, result := range []string{"OK", "ERROR"} {
		if rest, ok := strings.CutPrefix(line, result); ok && (extended(rest) || strings.HasPrefix(rest, "AT")) {
			return len(result)
		}
	}
	if n := len(line) - len("OK"); n > 0 && strings.HasSuffix(line, "OK") && value(line[:n]) {
		return n
	}
	if line[0] == '>' && len(line) > 1 { // prompt, then something that is no text
		return 1
	}
	if !extended(line) {
		return 0
	}
	if hasName(line, "+CME ERROR") { // `+CME ERROR: 14+CREG: 1`
		rest := strings.TrimLeft(line[len("+CME ERROR"):], ": ")
		if number := strings.TrimLeft(rest, "0123456789"); number != rest && extended(number) {
			return len(line) - len(number)
		}
	}
	quoted := false
	for i := 0; i < len(line); i++ {
		if line[i] != '"' {
			continue
		}
		quoted = !quoted
		if !quoted && i+1 < len(line) && !strings.ContainsRune(",;) \"", rune(line[i+1])) {
			return i + 1
		}
	}
	return 0
}

// value reports whether a line without the OK at its end ends in a value, so that
// the OK is glued to it (`+CCHO: 1OK`, `+CGLA: 4,61ABOK`, `1OK`): only digits, and
// hexadecimal ones in capitals, can stand there, else it is a word.
func value(line string) bool {
	word := line[strings.LastIndexAny(line, ":, ")+1:]
	return word != "" && strings.Trim(word, "0123456789ABCDEF") == "" && strings.ContainsAny(word, "0123456789") && strings.Count(line, `"`)%2 == 0
}

// extended reports whether line begins like an extended command or result,
// "+NAME": TS 27.007 has +, makers have the other signs.
func extended(line string) bool {
	return len(line) > 1 && strings.IndexByte("+^%#*$!&@_", line[0]) >= 0 && letter(line[1])
}

func letter(c byte) bool { return 'A' <= c&^0x20 && c&^0x20 <= 'Z' }

// hasName reports whether line is an answer or message of the name: the name,
// then its end, a colon, an equals sign or a blank. The case does not matter.
func hasName(line, name string) bool {
	if len(line) < len(name) || !strings.EqualFold(line[:len(name)], name) {
		return false
	}
	return len(line) == len(name) || strings.IndexByte(":= ", line[len(name)]) >= 0
}

// nameOf returns the name of a command or of an extended line: "+CGLA" for
// `AT+CGLA=1,10,"…"` as for `+CGLA: 4,"9000"`. A basic command is its letters
// ("ATE", "ATD"), so that no argument ever gets into a log.
func nameOf(text string) string {
	up := strings.ToUpper(text)
	body, command := strings.CutPrefix(up, "AT")
	if !command {
		body = up
	}
	if extended(body) {
		n := 1
		for n < len(body) && (letter(body[n]) || '0' <= body[n] && body[n] <= '9' || body[n] == '_') {
			n++
		}
		return body[:n]
	}
	if command {
		n := 0
		for n < len(body) && n < 2 && (letter(body[n]) || body[n] == '&') {
			n++
			if body[n-1] != '&' {
				break
			}
		}
		return "AT" + body[:n]
	}
	return ""
}

// title is how errors name a command: "AT+CGLA".
func title(command string) string {
	name := nameOf(command)
	if extended(name) {
		name = "AT" + name
	}
	return name
}
