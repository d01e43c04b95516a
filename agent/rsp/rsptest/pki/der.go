package pki

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"lpad/apdu/ber"
)

// Universal tags of X.690 as X.509 uses them.
const (
	tagBoolean         ber.Tag = 0x01
	tagInteger         ber.Tag = 0x02
	tagBitString       ber.Tag = 0x03
	tagOctetString     ber.Tag = 0x04
	tagOID             ber.Tag = 0x06
	tagUTF8String      ber.Tag = 0x0C
	tagPrintableString ber.Tag = 0x13
	tagUTCTime         ber.Tag = 0x17
	tagGeneralizedTime ber.Tag = 0x18
	tagSequence        ber.Tag = 0x30
	tagSet             ber.Tag = 0x31
)

// encodeOID is the OBJECT IDENTIFIER of one of our constants; a malformed string
// gives an empty identifier, which no parser accepts.
func encodeOID(dotted string) []byte {
	value, err := OIDValue(dotted)
	if err != nil {
		return ber.Encode(tagOID)
	}
	return ber.Encode(tagOID, value)
}

// OIDValue is the value of an OBJECT IDENTIFIER, without tag and length, for a
// dotted string.
func OIDValue(dotted string) ([]byte, error) {
	parts := strings.Split(dotted, ".")
	if len(parts) < 2 {
		return nil, fmt.Errorf("object identifier %q: too short", dotted)
	}
	arcs := make([]uint64, len(parts))
	for i, p := range parts {
		n, err := strconv.ParseUint(p, 10, 32)
		if err != nil {
			return nil, fmt.Errorf("object identifier %q: %w", dotted, err)
		}
		arcs[i] = n
	}
	if arcs[0] > 2 || (arcs[0] < 2 && arcs[1] > 39) {
		return nil, fmt.Errorf("object identifier %q: first arcs out of range", dotted)
	}
	arcs = append([]uint64{arcs[0]*40 + arcs[1]}, arcs[2:]...)
	var b []byte
	for _, arc := range arcs {
		group := []byte{byte(arc & 0x7F)}
		for arc >>= 7; arc > 0; arc >>= 7 {
			group = append([]byte{byte(arc&0x7F) | 0x80}, group...)
		}
		b = append(b, group...)
	}
	return b, nil
}

// decodeOID is the dotted string of the value of an OBJECT IDENTIFIER, empty
// if it is malformed.
func decodeOID(value []byte) string {
	var b strings.Builder
	var arc uint64
	first := true
	for i, octet := range value {
		if arc >= 1<<50 || (arc == 0 && octet == 0x80) {
			return ""
		}
		arc = arc<<7 | uint64(octet&0x7F)
		if octet&0x80 != 0 {
			if i == len(value)-1 {
				return ""
			}
			continue
		}
		if first {
			top := min(arc/40, 2)
			fmt.Fprintf(&b, "%d.%d", top, arc-40*top)
			first = false
		} else {
			fmt.Fprintf(&b, ".%d", arc)
		}
		arc = 0
	}
	return b.String()
}

// encodeTime follows RFC 5280, section 4.1.2.5: UTCTime up to 2049.
func encodeTime(t time.Time) []byte {
	t = t.UTC()
	if t.Year() >= 2050 {
		return ber.EncodeString(tagGeneralizedTime, t.Format("20060102150405Z"))
	}
	return ber.EncodeString(tagUTCTime, t.Format("060102150405Z"))
}

func decodeTime(t ber.TLV) (time.Time, error) {
	switch t.Tag {
	case tagUTCTime:
		at, err := time.Parse("060102150405Z", string(t.Value))
		if err == nil && at.Year() >= 2050 { // RFC 5280: YY >= 50 is 19YY
			at = at.AddDate(-100, 0, 0)
		}
		return at, err
	case tagGeneralizedTime:
		return time.Parse("20060102150405Z", string(t.Value))
	}
	return time.Time{}, fmt.Errorf("time: unexpected tag %X", uint32(t.Tag))
}

// unsigned is the content of a DER INTEGER for a non-negative big-endian number.
func unsigned(b []byte) []byte {
	for len(b) > 1 && b[0] == 0 {
		b = b[1:]
	}
	if len(b) == 0 || b[0]&0x80 != 0 {
		b = append([]byte{0}, b...)
	}
	return b
}

// derSignature turns r||s into the ECDSA-Sig-Value of X.509.
func derSignature(sig []byte) []byte {
	return ber.Encode(tagSequence,
		ber.Encode(tagInteger, unsigned(sig[:fieldSize])),
		ber.Encode(tagInteger, unsigned(sig[fieldSize:])))
}

// rawSignature turns an ECDSA-Sig-Value into r||s.
func rawSignature(der []byte) ([]byte, error) {
	outer, err := ber.Parse(der)
	if err != nil {
		return nil, err
	}
	r := outer.Reader()
	numbers := [2][]byte{r.Read(tagInteger).Value, r.Read(tagInteger).Value}
	if err := r.Finish(); err != nil {
		return nil, err
	}
	sig := make([]byte, SignatureSize)
	for i, n := range numbers {
		for len(n) > 1 && n[0] == 0 {
			n = n[1:]
		}
		if len(n) > fieldSize {
			return nil, fmt.Errorf("signature number of %d bytes", len(n))
		}
		copy(sig[(i+1)*fieldSize-len(n):], n)
	}
	return sig, nil
}
