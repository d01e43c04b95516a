package rsp

import (
	"encoding/hex"
	"fmt"
	"log/slog"
	"strings"

	"lpad/internal/redact"
)

// EID identifies an eUICC: 32 decimal digits in 16 bytes, not swapped
// (SGP.22 v2.5, section 4.3.1).
type EID [16]byte

// ParseEID reads 32 digits; spaces between them are ignored, as people print
// EIDs in groups. Hexadecimal digits are refused here, for a person types
// decimal ones; [EIDFromBytes] takes what a card says.
func ParseEID(s string) (EID, error) {
	s = strings.ReplaceAll(strings.TrimSpace(s), " ", "")
	var e EID
	if len(s) != 2*len(e) {
		return EID{}, fmt.Errorf("EID of %d digits, want %d", len(s), 2*len(e))
	}
	for i := range len(s) {
		if s[i] < '0' || s[i] > '9' {
			return EID{}, fmt.Errorf("EID: %q at position %d is not a digit", s[i], i+1)
		}
	}
	if _, err := hex.Decode(e[:], []byte(s)); err != nil {
		return EID{}, fmt.Errorf("EID: %w", err)
	}
	return e, nil
}

// EIDFromBytes takes the 16 bytes of a card.
func EIDFromBytes(b []byte) (EID, error) {
	var e EID
	if len(b) != len(e) {
		return EID{}, fmt.Errorf("EID of %d bytes, want %d", len(b), len(e))
	}
	copy(e[:], b)
	return e, nil
}

// String returns the 32 digits.
func (e EID) String() string { return strings.ToUpper(hex.EncodeToString(e[:])) }

// IsZero reports whether e is not set.
func (e EID) IsZero() bool { return e == EID{} }

// Valid reports whether the check digits fit: the whole number modulo 97 is 1
// and every digit is decimal. It finds mistyped EIDs; a card whose own EID
// fails it still works.
func (e EID) Valid() bool {
	rest := 0
	for _, c := range e.String() {
		if c < '0' || c > '9' {
			return false
		}
		rest = (rest*10 + int(c-'0')) % 97
	}
	return rest == 1
}

// LogValue shortens the EID.
func (e EID) LogValue() slog.Value { return slog.StringValue(redact.Digits(e.String())) }

// MarshalText returns the 32 digits.
func (e EID) MarshalText() ([]byte, error) { return []byte(e.String()), nil }

// UnmarshalText is [ParseEID]; the empty text is the zero EID.
func (e *EID) UnmarshalText(b []byte) (err error) {
	if len(b) == 0 {
		*e = EID{}
		return nil
	}
	*e, err = ParseEID(string(b))
	return err
}
