// Package ber reads BER-TLV as smart cards and RSP servers send it, and builds
// DER. It knows tags and lengths, not what they mean: no GSMA, no ASN.1 module.
//
// Reading is done in place. A [TLV] is three sub-slices of the input, nothing
// is copied, so what a signature covers can be cut out exactly as it came
// ([TLV.Raw]). A [Reader] goes over a list of elements and remembers its first
// error, so that a decoder reads like the structure it decodes:
//
//	t, err := ber.Parse(response)
//	if err != nil {
//		return err
//	}
//	r := t.Reader()
//	iccid := r.Read(0x5A)
//	nickname, named := r.Optional(0x90)
//	if err := r.Finish(); err != nil {
//		return fmt.Errorf("profile: %w", err)
//	}
//
// # What is accepted
//
// Tags have one to three bytes, lengths are definite and have at most three
// bytes after the first (form 83). Real cards send lengths, integers, booleans
// and bit strings that are not in shortest form; all of these are accepted.
// Indefinite lengths, longer forms and the end-of-contents tag 00 are not.
// What is built ([Encode] and its siblings) is always DER.
//
// # Limits
//
// The input is hostile. Every header is read in constant time, a list can cost
// at most [MaxHeaders] header reads however it is asked ([Reader.Find] included),
// and [TLV.Reader] goes down at most [MaxDepth] levels from where [Parse] or
// [NewReader] began, so that a recursive caller is bounded too. The first fault
// ends a Reader for good. All errors match [ErrMalformed].
//
// Values and Readers have no hidden shared state: different Readers over the
// same bytes may be used by different goroutines, one Reader by one.
package ber

import (
	"errors"
	"fmt"
)

// Limits of what is read.
const (
	MaxDepth   = 16        // levels of nesting; the deepest structure of SGP.22 has ten, a certificate inside it included
	MaxHeaders = 1 << 16   // header reads a Reader makes over one list; a profile package has a few hundred elements
	MaxLength  = 1<<24 - 1 // bytes of a value: what length form 83 can say
)

// ErrMalformed is matched by every error of this package.
var ErrMalformed = errors.New("malformed TLV")

// Error says what is wrong with the input, and where.
type Error struct {
	Offset int    // byte offset from the start of what was given to Parse or NewReader
	Reason string // in plain words, no bytes of any value
}

func (e *Error) Error() string { return fmt.Sprintf("TLV at byte %d: %s", e.Offset, e.Reason) }

// Is makes every Error match [ErrMalformed].
func (e *Error) Is(target error) bool { return target == ErrMalformed }

// Tag is a BER tag as it is written: 0x5A, 0x5F37, 0xBF2D. At most three bytes.
type Tag uint32

// Constructed says whether the value of the tag is a list of elements.
func (t Tag) Constructed() bool { return t.leading()&0x20 != 0 }

// String gives the tag in upper hex, as the specifications write it.
func (t Tag) String() string { return fmt.Sprintf("%02X", uint32(t)) }

// leading gives the first byte of the tag.
func (t Tag) leading() byte {
	switch {
	case t > 0xFFFF:
		return byte(t >> 16)
	case t > 0xFF:
		return byte(t >> 8)
	}
	return byte(t)
}

// TLV is one element. Its slices are parts of the input.
//
// A TLV that a failed Reader returned is empty and remembers the failure: its
// accessors and its Reader give that error.
type TLV struct {
	Tag   Tag
	Value []byte // what follows the length
	Raw   []byte // tag, length and value exactly as received

	depth  int   // 1 for an element of the list where reading began
	offset int   // of Value, from where reading began
	err    error // why there is no element here
}

// Parse reads exactly one element that fills b.
func Parse(b []byte) (TLV, error) {
	r := NewReader(b)
	t, ok := r.Next()
	if !ok && r.err == nil {
		r.fail("empty input")
	}
	if err := r.Finish(); err != nil {
		return TLV{}, err
	}
	return t, nil
}

// ParseHeader reads a tag and a length from the start of b. The value need not
// be there: with it one can cut a stream into elements. Both lengths are in
// bytes; valueLen is at most [MaxLength].
func ParseHeader(b []byte) (tag Tag, headerLen, valueLen int, err error) {
	tag, n, reason := parseTag(b)
	if reason != "" {
		return 0, 0, 0, &Error{Reason: reason}
	}
	length, m, reason := parseLength(b[n:])
	if reason != "" {
		return 0, 0, 0, &Error{Offset: n, Reason: reason}
	}
	return tag, n + m, length, nil
}

// parseTag reads a tag and says how many bytes it has, or what is wrong.
// ITU-T X.690, section 8.1.2. Tags such as 9F02 whose number would fit into one
// byte occur (EMV) and are told apart by their bytes, so they are let through.
func parseTag(b []byte) (tag Tag, n int, reason string) {
	switch {
	case len(b) == 0:
		return 0, 0, "tag is missing"
	case b[0] == 0:
		return 0, 0, "tag 00"
	case b[0]&0x1F != 0x1F:
		return Tag(b[0]), 1, ""
	case len(b) < 2:
		return 0, 0, "tag is cut off"
	case b[1] == 0x80:
		return 0, 0, "tag number begins with zeros"
	case b[1] < 0x80:
		return Tag(b[0])<<8 | Tag(b[1]), 2, ""
	case len(b) < 3:
		return 0, 0, "tag is cut off"
	case b[2] >= 0x80:
		return 0, 0, "tag is longer than three bytes"
	}
	return Tag(b[0])<<16 | Tag(b[1])<<8 | Tag(b[2]), 3, ""
}

// parseLength reads a definite length and says how many bytes it has, or what
// is wrong. ITU-T X.690, section 8.1.3.
func parseLength(b []byte) (length, n int, reason string) {
	if len(b) == 0 {
		return 0, 0, "length is missing"
	}
	switch first := b[0]; {
	case first < 0x80:
		return int(first), 1, ""
	case first == 0x80:
		return 0, 0, "indefinite length"
	case first > 0x83:
		return 0, 0, "length is longer than three bytes"
	default:
		n = int(first & 0x7F)
	}
	if len(b) < 1+n {
		return 0, 0, "length is cut off"
	}
	for _, c := range b[1 : 1+n] {
		length = length<<8 | int(c)
	}
	return length, 1 + n, ""
}
