package rsp

import (
	"fmt"
	"log/slog"
	"strings"

	"lpad/internal/fault"
	"lpad/internal/redact"
)

// ICCID identifies a profile: up to 20 digits, the nibbles of each byte
// swapped, filled with F to 10 bytes (ITU-T E.118; ETSI TS 102 221, section
// 13.2). It is always sent with all 10 bytes: a card answers "not found" to
// nine. Some cards carry digits A to E; they are kept.
type ICCID [10]byte

// The lengths of an ICCID that exist.
const (
	minICCIDDigits = 18
	maxICCIDDigits = 20
)

const hexDigits = "0123456789ABCDEF"

// ParseICCID reads 18 to 20 digits as a person or a modem writes them: spaces
// and hyphens are ignored, trailing F is filler, A to E are tolerated. The
// error is a fault.Explainer.
func ParseICCID(s string) (ICCID, error) {
	digits := strings.ToUpper(strings.NewReplacer(" ", "", "-", "").Replace(strings.TrimSpace(s)))
	digits = strings.TrimRight(digits, "F")
	if len(digits) < minICCIDDigits || len(digits) > maxICCIDDigits {
		return ICCID{}, iccidError("ICCID of %d digits, want %d to %d", len(digits), minICCIDDigits, maxICCIDDigits)
	}
	var c ICCID
	for i := range c {
		c[i] = 0xFF
	}
	for i := range len(digits) {
		n := strings.IndexByte(hexDigits, digits[i])
		if n < 0 || n == 0xF {
			return ICCID{}, iccidError("ICCID: %q at position %d is not a digit", digits[i], i+1)
		}
		if i%2 == 0 {
			c[i/2] = 0xF0 | byte(n)
		} else {
			c[i/2] = c[i/2]&0x0F | byte(n)<<4
		}
	}
	return c, nil
}

func iccidError(format string, a ...any) error {
	return fault.New(fault.Fault{Code: "iccid-malformed", Text: fmt.Sprintf(format, a...), Who: fault.Technician, Next: "list the profiles and copy the ICCID"}, nil)
}

// ICCIDFromBytes takes the bytes of a card or server: 10 of them, or 9, which
// some send for 18 digits and which are filled up.
func ICCIDFromBytes(b []byte) (ICCID, error) {
	var c ICCID
	switch len(b) {
	case len(c):
	case len(c) - 1:
		c[len(c)-1] = 0xFF
	default:
		return ICCID{}, fmt.Errorf("ICCID of %d bytes, want %d", len(b), len(c))
	}
	copy(c[:], b)
	return c, nil
}

// String returns the digits without the filler.
func (c ICCID) String() string {
	var d [2 * len(c)]byte
	for i, b := range c {
		d[2*i], d[2*i+1] = hexDigits[b&0x0F], hexDigits[b>>4]
	}
	return strings.TrimRight(string(d[:]), "F")
}

// IsZero reports whether c is not set.
func (c ICCID) IsZero() bool { return c == ICCID{} }

// LogValue shortens the ICCID.
func (c ICCID) LogValue() slog.Value { return slog.StringValue(redact.Digits(c.String())) }

// MarshalText returns the digits; the zero ICCID is the empty text.
func (c ICCID) MarshalText() ([]byte, error) {
	if c.IsZero() {
		return []byte{}, nil
	}
	return []byte(c.String()), nil
}

// UnmarshalText is [ParseICCID]; the empty text is the zero ICCID.
func (c *ICCID) UnmarshalText(b []byte) (err error) {
	if len(b) == 0 {
		*c = ICCID{}
		return nil
	}
	*c, err = ParseICCID(string(b))
	return err
}
