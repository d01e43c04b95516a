package rsp

import (
	"errors"
	"strconv"
	"strings"
)

const maxOIDArcs = 32

// parseOID decodes the contents of an OBJECT IDENTIFIER (X.690, 8.19) into
// dotted text.
func parseOID(b []byte) (string, error) {
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
