package atmodem

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"lpad/modem"
	"lpad/modem/at"
)

// maxIdentity bounds one word of the identity, in bytes.
const maxIdentity = 128

// Identity says which modem this is. What the modem does not tell is empty; it
// is an error only if it tells nothing at all.
func (m *Modem) Identity(ctx context.Context) (modem.Identity, error) {
	return m.Recognise(ctx, modem.Identity{})
}

// Recognise is Identity that asks for maker and model only if IMEI or firmware
// are not those of the modem that is known already.
func (m *Modem) Recognise(ctx context.Context, known modem.Identity) (modem.Identity, error) {
	var id modem.Identity
	var first error
	for _, q := range []struct {
		to    *string
		cmds  []string
		parse func([]string) string
	}{
		{&id.IMEI, []string{"AT+CGSN", "AT+GSN"}, imei},
		{&id.Revision, []string{"AT+CGMR", "AT+GMR"}, word},
		{&id.Manufacturer, []string{"AT+CGMI", "AT+GMI"}, word},
		{&id.Model, []string{"AT+CGMM", "AT+GMM"}, word},
	} {
		if q.to == &id.Manufacturer && id.IMEI != "" && id.IMEI == known.IMEI && id.Revision == known.Revision {
			return known, nil
		}
		for _, cmd := range q.cmds {
			name := cmd[len("AT"):]
			lines, err := m.run(ctx, at.Request{Text: cmd, Settle: settleTime})
			// Snapdragon 410 dongles never end AT+CGSN with OK (field notes, sigmo
			// 5f446f7): what came before the silence counts.
			if err == nil || errors.Is(err, at.ErrNoFinal) {
				*q.to = q.parse(values(lines, []string{name, "Revision"}))
			}
			if err != nil && first == nil {
				first = err
			}
			if *q.to != "" || m.conn.Err() != nil || ctx.Err() != nil {
				break
			}
		}
	}
	switch {
	case id != modem.Identity{}:
		return id, nil
	case first == nil:
		first = ErrUnreadable
	}
	return id, fmt.Errorf("identity of the modem: %w", first)
}

// word is the first line that says something.
func word(lines []string) string {
	for _, line := range lines {
		line = strings.Map(func(r rune) rune {
			if r < 0x20 || r > 0x7E {
				return -1
			}
			return r
		}, unquote(line))
		if line = strings.TrimSpace(line); line != "" && line != "OK" {
			return line[:min(len(line), maxIdentity)]
		}
	}
	return ""
}

// imei finds the IMEI, 15 digits. Modems show it with the software version in
// place of the check digit (16 digits, TS 23.003, section 6.2.2), with a 0 or two
// digits after it, or without the check digit (field notes, row 17).
func imei(lines []string) string {
	const serial = 14 // digits before the check digit
	for _, line := range lines {
		for _, f := range fields(line) {
			f = strings.TrimSpace(f)
			if !digits(f) || len(f) < serial || len(f) > serial+3 {
				continue
			}
			whole := f[:serial] + string(luhn(f[:serial]))
			if len(f) == serial+1 || len(f) == serial+3 {
				whole = f[:serial+1] // as the modem has it
			}
			return whole
		}
	}
	return ""
}

// luhn is the check digit of an IMEI (TS 23.003, annex B).
func luhn(s string) byte {
	sum := 0
	for i := range len(s) {
		d := int(s[len(s)-1-i] - '0')
		if i%2 == 0 {
			if d *= 2; d > 9 {
				d -= 9
			}
		}
		sum += d
	}
	return '0' + byte((10-sum%10)%10)
}

// iccidCommands are the ways to ask a modem for the ICCID that it shows, most
// common first. None is standard but the last, which reads the file; some modems
// cannot do that one (EG916Q).
var iccidCommands = []string{"AT+CCID", "AT+QCCID", "AT+ICCID", "AT^ICCID?", "AT#CCID", "AT+CRSM=176,12258,0,0,10"}

// iccidNames are the names of the answers: some modems answer by another name
// than that of the command.
var iccidNames = []string{"+CCID", "+QCCID", "+ICCID", "ICCID", "CCID", "^ICCID", "#CCID", "!ICCID", "+CICCID"}

// ICCID is the number of the profile that the modem shows, 18 to 20 digits. It
// may be an old one for as long as the modem has not read the SIM again.
func (m *Modem) ICCID(ctx context.Context) (string, error) {
	known := m.mem.ICCIDCommand()
	var order []string
	for _, cmd := range append(append([]string{known}, m.quirks.SIM.ICCID...), iccidCommands...) {
		if cmd != "" && !slices.Contains(order, cmd) {
			order = append(order, cmd)
		}
	}
	var worst error
	for _, cmd := range order {
		iccid, err := m.askICCID(ctx, cmd)
		if err == nil {
			m.mem.mu.Lock()
			m.mem.command = cmd
			m.mem.mu.Unlock()
			return iccid, nil
		}
		if worst == nil || !saysSIM(worst) {
			worst = err // what is said of the SIM is worth more than that a command is unknown
		}
		if m.conn.Err() != nil || ctx.Err() != nil || cmd == known && saysSIM(err) {
			break
		}
	}
	return "", fmt.Errorf("read ICCID: %w", worst)
}

// readsFile reports that the last ICCID came out of the card's file, which is
// the new one from the moment that the card has switched, whatever the modem has
// read.
func (m *Modem) readsFile() bool { return isCRSM(m.mem.ICCIDCommand()) }

func isCRSM(cmd string) bool { return strings.HasPrefix(cmd, "AT+CRSM=") }

// saysSIM reports whether the modem knows the command and means the SIM.
func saysSIM(err error) bool {
	return errors.Is(err, at.ErrNoSIM) || errors.Is(err, at.ErrBusy) || errors.Is(err, at.ErrSIMFailure) || errors.Is(err, at.ErrLocked)
}

func (m *Modem) askICCID(ctx context.Context, cmd string) (string, error) {
	if isCRSM(cmd) {
		b, err := m.crsm(ctx, cmd)
		if err != nil {
			return "", err
		}
		return parseICCID(fmt.Sprintf("%X", swapNibbles(b)))
	}
	name, _, _ := strings.Cut(strings.TrimRight(cmd[len("AT"):], "?"), "=")
	lines, err := m.ask(ctx, cmd, append([]string{name}, iccidNames...)...)
	if err != nil {
		return "", err
	}
	for _, line := range lines {
		for _, f := range fields(line) {
			if iccid, err := parseICCID(f); err == nil {
				return iccid, nil
			}
		}
	}
	return "", fmt.Errorf("%s: %w", cmd, ErrUnreadable)
}

// parseICCID takes the filler off and checks what is left: 18 to 20 digits (a
// few cards have hexadecimal digits among them). Some modems show the bytes of
// the file, with the digits swapped: E.118 numbers begin with 89.
func parseICCID(s string) (string, error) {
	s = strings.ToUpper(strings.TrimSpace(s))
	if strings.HasPrefix(s, "98") && len(s) == 20 {
		b := []byte(s)
		for i := 0; i < len(b); i += 2 {
			b[i], b[i+1] = b[i+1], b[i]
		}
		s = string(b)
	}
	s = strings.TrimRight(s, "F")
	if len(s) < 18 || len(s) > 20 || strings.Trim(s, "0123456789ABCDEF") != "" {
		return "", fmt.Errorf("ICCID of %d characters: %w", len(s), ErrUnreadable)
	}
	return s, nil
}

func swapNibbles(b []byte) []byte {
	out := make([]byte, len(b))
	for i, v := range b {
		out[i] = v<<4 | v>>4
	}
	return out
}

// IMSI is the identity of the subscription that the modem shows, up to 15 digits.
func (m *Modem) IMSI(ctx context.Context) (string, error) {
	lines, err := m.ask(ctx, "AT+CIMI", "+CIMI")
	if err != nil {
		return "", fmt.Errorf("read IMSI: %w", err)
	}
	for _, line := range lines {
		if s := unquote(line); digits(s) && len(s) >= 6 && len(s) <= 15 {
			return s, nil
		}
	}
	return "", fmt.Errorf("read IMSI: %w", ErrUnreadable)
}
