package ber

import (
	"fmt"
	"unicode/utf8"
)

// bad is an error about the value of the element.
func (t TLV) bad(format string, args ...any) error {
	return &Error{Offset: t.offset, Reason: t.Tag.String() + " " + fmt.Sprintf(format, args...)}
}

// Int reads the value as an INTEGER of at most eight bytes, in shortest form
// or not.
func (t TLV) Int() (int64, error) {
	switch {
	case t.err != nil:
		return 0, t.err
	case len(t.Value) == 0:
		return 0, t.bad("is an empty integer")
	case len(t.Value) > 8:
		return 0, t.bad("is an integer of %d bytes", len(t.Value))
	}
	v := int64(int8(t.Value[0]))
	for _, c := range t.Value[1:] {
		v = v<<8 | int64(c)
	}
	return v, nil
}

// Bool reads the value as a BOOLEAN: anything but zero is true, since cards
// send 01 as well as FF.
func (t TLV) Bool() (bool, error) {
	switch {
	case t.err != nil:
		return false, t.err
	case len(t.Value) != 1:
		return false, t.bad("is a boolean of %d bytes", len(t.Value))
	}
	return t.Value[0] != 0, nil
}

// UTF8 reads the value as valid UTF-8 of at most max bytes. Control and
// bidirectional characters pass: whoever prints the text has to deal with them.
func (t TLV) UTF8(max int) (string, error) {
	switch {
	case t.err != nil:
		return "", t.err
	case len(t.Value) > max:
		return "", t.bad("is a text of %d bytes, at most %d are allowed", len(t.Value), max)
	case !utf8.Valid(t.Value):
		return "", t.bad("is not UTF-8")
	}
	return string(t.Value), nil
}

// Octets gives the value if it has min to max bytes. It is a part of the input.
func (t TLV) Octets(min, max int) ([]byte, error) {
	switch {
	case t.err != nil:
		return nil, t.err
	case len(t.Value) < min || len(t.Value) > max:
		return nil, t.bad("has %d bytes, %d to %d are allowed", len(t.Value), min, max)
	}
	return t.Value, nil
}

// Bits reads the value as a BIT STRING with named bits. The count of unused
// bits only says where the bits end: `0780`, `0480` and `0080` all have bit 0
// and no other, and all three occur.
func (t TLV) Bits() (Bits, error) {
	switch {
	case t.err != nil:
		return Bits{}, t.err
	case len(t.Value) == 0:
		return Bits{}, t.bad("is an empty bit string")
	case t.Value[0] > 7:
		return Bits{}, t.bad("is a bit string with %d unused bits", t.Value[0])
	}
	return Bits{b: t.Value[1:], n: max(0, 8*(len(t.Value)-1)-int(t.Value[0]))}, nil
}

// Bits is a BIT STRING whose bits have names. Bit 0 is the most significant
// bit of the first byte (ITU-T X.680, section 22). The zero value has no bit.
type Bits struct {
	b []byte
	n int // bits that count
}

// NewBits has the given bits, 0 to 255. Another number is a mistake in the
// program and panics.
func NewBits(bits ...int) Bits {
	var set [32]byte
	n := 0
	for _, i := range bits {
		if i < 0 || i > 255 {
			panic(fmt.Sprintf("ber: bit %d", i))
		}
		set[i/8] |= 0x80 >> (i % 8)
		n = max(n, i+1)
	}
	return Bits{b: set[:(n+7)/8], n: n}
}

// Has says whether bit n is there and set.
func (b Bits) Has(n int) bool {
	return n >= 0 && n < b.n && b.b[n/8]&(0x80>>(n%8)) != 0
}

// Len says how many bits there are, set or not.
func (b Bits) Len() int { return b.n }

// Marshal gives the content of a DER BIT STRING with named bits: trailing zero
// bits are dropped (ITU-T X.690, section 11.2.2).
func (b Bits) Marshal() []byte {
	n := b.n
	for n > 0 && !b.Has(n-1) {
		n--
	}
	size := (n + 7) / 8
	out := make([]byte, 1+size)
	copy(out[1:], b.b[:size])
	unused := 8*size - n
	out[0] = byte(unused)
	if size > 0 {
		out[size] &= 0xFF << unused
	}
	return out
}
