package atmodem

import (
	"context"
	"fmt"
	"strconv"
	"strings"

	"lpad/modem"
	"lpad/modem/at"
)

// Limits of what is put into a context.
const (
	maxCID        = 32
	maxName       = 100 // 3GPP TS 23.003, section 9.1
	maxCredential = 127 // bytes of user name or password; modems take 64 to 127
)

// SetAPN writes a packet data context (+CGDCONT) and its credentials (+CGAUTH)
// and reads it back: ErrNotTaken if the modem shows another one. Context 1 is
// that of the initial attach on almost every LTE modem; a change counts from the
// next attach on.
//
// Only name, type, authentication, user and password can be set this way.
// at.ErrNotSupported and at.ErrError after "+CGAUTH" mean that credentials are
// needed and the modem has no standard place for them.
func (m *Modem) SetAPN(ctx context.Context, cid int, apn modem.APN) error {
	if err := checkAPN(cid, apn); err != nil {
		return fmt.Errorf("set APN of context %d: %w", cid, err)
	}
	if err := m.command(ctx, fmt.Sprintf(`AT+CGDCONT=%d,"%s","%s"`, cid, apn.Type.PDP(), apn.Name)); err != nil {
		return fmt.Errorf("set APN of context %d: %w", cid, err)
	}
	if err := m.setAuth(ctx, cid, apn); err != nil {
		return fmt.Errorf("set credentials of context %d: %w", cid, err)
	}
	contexts, err := m.APNs(ctx)
	if err != nil {
		return fmt.Errorf("read back context %d: %w", cid, err)
	}
	for _, c := range contexts {
		if c.CID == cid && c.APN.Type.PDP() == apn.Type.PDP() && sameName(c.APN.Name, apn.Name) {
			return nil
		}
	}
	return fmt.Errorf("set APN of context %d: %w", cid, ErrNotTaken)
}

// sameName compares names as networks do, and takes the name with the operator's
// domain (".mnc001.mcc001.gprs"), as some modems show it, for the same.
func sameName(shown, set string) bool {
	shown, set = strings.ToLower(shown), strings.ToLower(set)
	return shown == set || set != "" && strings.HasPrefix(shown, set+".mnc")
}

// setAuth writes the credentials. Without any, those of an earlier profile are
// wiped; a modem that refuses that has none to wipe.
func (m *Modem) setAuth(ctx context.Context, cid int, apn modem.APN) error {
	protocol := map[modem.Auth]int{modem.AuthNone: 0, modem.AuthPAP: 1, modem.AuthCHAP: 2}
	n, ok := protocol[apn.AuthMethod()]
	if !ok {
		// +CGAUTH has no "either" (TS 27.007, section 10.1.31). CHAP does not
		// show the password, and a network that asks for one takes it.
		n = protocol[modem.AuthCHAP]
	}
	if n == 0 {
		if err := m.command(ctx, fmt.Sprintf("AT+CGAUTH=%d,0", cid)); err != nil && !at.Refused(err) {
			return err
		}
		return nil
	}
	return m.command(ctx, fmt.Sprintf(`AT+CGAUTH=%d,%d,"%s","%s"`, cid, n, apn.User, apn.Password.Reveal()))
}

// ClearAPN removes a packet data context and its credentials.
func (m *Modem) ClearAPN(ctx context.Context, cid int) error {
	if err := checkAPN(cid, modem.APN{}); err != nil {
		return fmt.Errorf("clear context %d: %w", cid, err)
	}
	if err := m.setAuth(ctx, cid, modem.APN{}); err != nil {
		return fmt.Errorf("clear context %d: %w", cid, err)
	}
	if err := m.command(ctx, fmt.Sprintf("AT+CGDCONT=%d", cid)); err != nil {
		return fmt.Errorf("clear context %d: %w", cid, err)
	}
	return nil
}

// APNs reads the contexts that carry IP. A modem does not tell passwords.
func (m *Modem) APNs(ctx context.Context) ([]modem.Context, error) {
	lines, err := m.ask(ctx, "AT+CGDCONT?", "+CGDCONT")
	if err != nil {
		return nil, fmt.Errorf("read contexts: %w", err)
	}
	var out []modem.Context
	for _, line := range lines {
		f := fields(line)
		cid, err := strconv.Atoi(field(f, 0))
		ip, ok := modem.ParsePDP(field(f, 1))
		if err != nil || cid < 0 || !ok {
			continue // PPP or Non-IP, or no context at all
		}
		out = append(out, modem.Context{CID: cid, APN: modem.APN{Type: ip, Name: field(f, 2)}})
	}
	return out, nil
}

// checkAPN keeps out what is no value or could be taken for syntax of AT: the
// values come from operators, by documents and servers.
func checkAPN(cid int, apn modem.APN) error {
	switch {
	case cid < 1 || cid > maxCID:
		return fmt.Errorf("%w: context %d, 1 to %d are possible", ErrUnsafe, cid, maxCID)
	case len(apn.Name) > maxName || strings.ContainsAny(apn.Name, " ,") || !safe(apn.Name):
		return fmt.Errorf("%w: its name", ErrUnsafe)
	case len(apn.User) > maxCredential || !safe(apn.User):
		return fmt.Errorf("%w: its user name", ErrUnsafe)
	case len(apn.Password.Reveal()) > maxCredential || !safe(apn.Password.Reveal()):
		return fmt.Errorf("%w: its password", ErrUnsafe)
	}
	return nil
}

// safe: printable ASCII that ends neither a string nor, on modems that do not
// look at quotes, a command.
func safe(s string) bool {
	for i := 0; i < len(s); i++ {
		if s[i] < 0x20 || s[i] > 0x7E || strings.IndexByte(`";\`, s[i]) >= 0 {
			return false
		}
	}
	return true
}
