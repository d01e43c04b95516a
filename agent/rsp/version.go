package rsp

import (
	"bytes"
	"fmt"
)

// Version is the specification's VersionType: major, minor, revision, one
// byte each. The zero Version means that there is none.
type Version [3]byte

func parseVersion(b []byte) (Version, error) {
	var v Version
	if len(b) != len(v) {
		return v, fmt.Errorf("version of %d bytes, want %d", len(b), len(v))
	}
	copy(v[:], b)
	return v, nil
}

// String returns "2.2.2".
func (v Version) String() string { return fmt.Sprintf("%d.%d.%d", v[0], v[1], v[2]) }

// IsZero reports whether there is no version.
func (v Version) IsZero() bool { return v == Version{} }

// Compare returns -1, 0 or 1 as v is older than, equal to or newer than w.
func (v Version) Compare(w Version) int { return bytes.Compare(v[:], w[:]) }
