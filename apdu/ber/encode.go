package ber

import "fmt"

// Encode builds the DER element whose value is the concatenation of parts.
// A tag that cannot be written and a value over [MaxLength] are mistakes in
// the program and panic.
func Encode(tag Tag, parts ...[]byte) []byte {
	length := 0
	for _, p := range parts {
		length += len(p)
	}
	b := make([]byte, 0, 7+length)
	b = appendHeader(b, tag, length)
	for _, p := range parts {
		b = append(b, p...)
	}
	return b
}

// appendHeader writes a tag and a length in shortest form.
func appendHeader(b []byte, tag Tag, length int) []byte {
	var written []byte
	switch {
	case tag > 0xFFFF:
		written = []byte{byte(tag >> 16), byte(tag >> 8), byte(tag)}
	case tag > 0xFF:
		written = []byte{byte(tag >> 8), byte(tag)}
	default:
		written = []byte{byte(tag)}
	}
	if back, n, _ := parseTag(written); back != tag || n != len(written) {
		panic(fmt.Sprintf("ber: %#x is not a tag", uint32(tag)))
	}
	b = append(b, written...)
	switch {
	case length < 0x80:
		return append(b, byte(length))
	case length <= 0xFF:
		return append(b, 0x81, byte(length))
	case length <= 0xFFFF:
		return append(b, 0x82, byte(length>>8), byte(length))
	case length <= MaxLength:
		return append(b, 0x83, byte(length>>16), byte(length>>8), byte(length))
	}
	panic(fmt.Sprintf("ber: %v of %d bytes", tag, length))
}

// EncodeInt builds an INTEGER in shortest two's complement form: 128 is 0080.
func EncodeInt(tag Tag, v int64) []byte {
	n := 1
	for x := v; x > 127 || x < -128; x >>= 8 {
		n++
	}
	content := make([]byte, n)
	for i := n - 1; i >= 0; i-- {
		content[i] = byte(v)
		v >>= 8
	}
	return Encode(tag, content)
}

// EncodeBool builds a BOOLEAN: FF or 00.
func EncodeBool(tag Tag, v bool) []byte {
	if v {
		return Encode(tag, []byte{0xFF})
	}
	return Encode(tag, []byte{0x00})
}

// EncodeString builds an element whose value is the bytes of s.
func EncodeString(tag Tag, s string) []byte { return Encode(tag, []byte(s)) }

// EncodeBits builds a BIT STRING with named bits in shortest form.
func EncodeBits(tag Tag, b Bits) []byte { return Encode(tag, b.Marshal()) }
