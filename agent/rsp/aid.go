package rsp

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"strings"
)

// AID names an application on the card, 5 to 16 bytes (ISO/IEC 7816-4).
type AID []byte

// ISDR is the standard AID of the ISD-R (SGP.22 v2.5, section 5.7.1).
var ISDR = AID{0xA0, 0x00, 0x00, 0x05, 0x59, 0x10, 0x10, 0xFF, 0xFF, 0xFF, 0xFF, 0x89, 0x00, 0x00, 0x01, 0x00}

// ISDRs returns the AIDs under which an ISD-R has been found, the standard
// one first. Removable eUICC products use the others; a card with several
// secure elements may answer to more than one.
func ISDRs() []AID {
	return []AID{
		ISDR,
		{0xA0, 0x00, 0x00, 0x05, 0x59, 0x10, 0x10, 0x00, 0x00, 0x00, 0x00, 0x89, 0x00, 0x00, 0x03, 0x00}, // eSIM.me
		{0xA0, 0x00, 0x00, 0x05, 0x59, 0x10, 0x10, 0xFF, 0xFF, 0xFF, 0xFF, 0x89, 0x00, 0x05, 0x05, 0x00}, // 5ber
		{0xA0, 0x00, 0x00, 0x05, 0x59, 0x10, 0x10, 0xFF, 0xFF, 0xFF, 0xFF, 0x89, 0x00, 0x00, 0x01, 0x77}, // Xesim
		{0xA0, 0x00, 0x00, 0x05, 0x59, 0x10, 0x4C, 0x69, 0x6E, 0x6B, 0x73, 0x66, 0x69, 0x65, 0x6C, 0x64}, // LinksField
	}
}

// ParseAID reads hexadecimal text.
func ParseAID(s string) (AID, error) {
	b, err := hex.DecodeString(strings.ReplaceAll(strings.TrimSpace(s), " ", ""))
	if err != nil {
		return nil, fmt.Errorf("AID: %w", err)
	}
	if len(b) < 5 || len(b) > 16 {
		return nil, fmt.Errorf("AID of %d bytes, want 5 to 16", len(b))
	}
	return b, nil
}

// String returns upper-case hexadecimal.
func (a AID) String() string { return strings.ToUpper(hex.EncodeToString(a)) }

// Equal compares byte for byte.
func (a AID) Equal(b AID) bool { return bytes.Equal(a, b) }

// MarshalText returns upper-case hexadecimal.
func (a AID) MarshalText() ([]byte, error) { return []byte(a.String()), nil }

// UnmarshalText is [ParseAID]; the empty text is no AID.
func (a *AID) UnmarshalText(b []byte) (err error) {
	if len(b) == 0 {
		*a = nil
		return nil
	}
	*a, err = ParseAID(string(b))
	return err
}
