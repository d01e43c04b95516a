// Package redact keeps secrets and identifiers out of logs, traces and errors
// by construction.
//
// A confirmation code, matching id, key or password travels as a [Secret]: it
// prints as "[redacted]" whatever verb, logger or encoder meets it, and only
// [Secret.Reveal] gives the text away, which a reviewer can search for. An
// identifier of a device or a subscriber (EID, ICCID, IMSI, IMEI) is no secret
// but is nobody's business either: [Digits] shortens it, and [Identifiers]
// those in what a foreign program has said.
package redact

import (
	"fmt"
	"log/slog"
)

// Mask is what a secret prints as.
const Mask = "[redacted]"

// Secret is a text that must not be printed. The zero value is the empty text.
type Secret struct{ text string }

// NewSecret takes a text into custody.
func NewSecret(text string) Secret { return Secret{text} }

// Reveal returns the text, for the one place that must send it.
func (s Secret) Reveal() string { return s.text }

// IsZero reports whether there is no secret.
func (s Secret) IsZero() bool { return s.text == "" }

// String is [Mask], or empty when there is no secret.
func (s Secret) String() string {
	if s.text == "" {
		return ""
	}
	return Mask
}

// Format makes every verb of fmt print [Secret.String].
func (s Secret) Format(f fmt.State, _ rune) { fmt.Fprint(f, s.String()) }

// LogValue makes slog print [Secret.String].
func (s Secret) LogValue() slog.Value { return slog.StringValue(s.String()) }

// MarshalJSON prints [Secret.String] as a JSON string.
func (s Secret) MarshalJSON() ([]byte, error) { return []byte(`"` + s.String() + `"`), nil }

// UnmarshalText takes the text into custody, so that documents and
// configuration may hold secrets.
func (s *Secret) UnmarshalText(b []byte) error { s.text = string(b); return nil }

// How much of an identifier stays readable: enough to tell two of one device
// apart, not enough to use one.
const (
	keepHead = 5
	keepTail = 2
)

// Digits shortens an identifier: "89049032123451234512345678901235" becomes
// "89049…35". One that is too short to hide anything becomes "…".
func Digits(s string) string {
	if len(s) < 2*(keepHead+keepTail)-2 {
		return "…"
	}
	return s[:keepHead] + "…" + s[len(s)-keepTail:]
}

// minIdentifier is how many digits in a row are taken for an identifier: an IMEI
// without its check digit has as many, a time in milliseconds has one less.
const minIdentifier = 14

// Identifiers shortens every identifier in a text that somebody else has written.
func Identifiers(s string) string {
	from := 0 // of the digits that are being counted
	for at := 0; at <= len(s); at++ {
		if at < len(s) && s[at] >= '0' && s[at] <= '9' {
			continue
		}
		if at-from >= minIdentifier {
			short := Digits(s[from:at])
			s = s[:from] + short + s[at:]
			at = from + len(short)
		}
		from = at + 1
	}
	return s
}
