package rsp

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
)

const maxOIDArcs = 32

// ParseOID reads the contents of an OBJECT IDENTIFIER (X.690, 8.19) as
// dotted text.
func ParseOID(b []byte) (string, error) {
	if len(b) == 0 {
		return "", errors.New("object identifier without contents")
	}
	var arcs []string
	var arc uint64
	for i, c := range b {
		if arc >= 1<<56 || len(arcs) >= maxOIDArcs {
			return "", errors.New("object identifier out of range")
		}
		arc = arc<<7 | uint64(c&0x7F)
		if c&0x80 != 0 {
			if i == len(b)-1 {
				return "", errors.New("object identifier breaks off")
			}
			continue
		}
		if len(arcs) == 0 { // the first number holds two arcs
			first := min(arc/40, 2)
			arcs = append(arcs, strconv.FormatUint(first, 10))
			arc -= 40 * first
		}
		arcs = append(arcs, strconv.FormatUint(arc, 10))
		arc = 0
	}
	return strings.Join(arcs, "."), nil
}

// validOID reports dotted text of at least two arcs.
func validOID(s string) bool {
	arcs := strings.Split(s, ".")
	if len(arcs) < 2 || len(arcs) > maxOIDArcs || arcs[0] != "0" && arcs[0] != "1" && arcs[0] != "2" {
		return false
	}
	for _, a := range arcs {
		if _, err := strconv.ParseUint(a, 10, 64); err != nil || len(a) > 1 && a[0] == '0' {
			return false
		}
	}
	return true
}

// EncodeOID writes dotted text ("1.3.6.1.4.1.99999.1") as the contents of an
// OBJECT IDENTIFIER (X.690, 8.19).
func EncodeOID(s string) ([]byte, error) {
	bad := fmt.Errorf("%q is not an object identifier", s)
	if !validOID(s) {
		return nil, bad
	}
	var b []byte
	var first uint64
	for i, text := range strings.Split(s, ".") {
		arc, err := strconv.ParseUint(text, 10, 56)
		switch {
		case err != nil, i == 1 && first < 2 && arc >= 40, i == 1 && arc > 1<<56-81:
			return nil, bad
		case i == 0:
			first = arc
			continue
		case i == 1: // one number holds two arcs
			arc += 40 * first
		}
		shift := 0
		for arc>>(shift+7) != 0 {
			shift += 7
		}
		for ; shift > 0; shift -= 7 {
			b = append(b, byte(arc>>shift)|0x80)
		}
		b = append(b, byte(arc&0x7F))
	}
	return b, nil
}
