package rsp

import (
	"fmt"

	"lpad/apdu/ber"
)

// ConfiguredAddresses are the servers that the card itself names (SGP.22
// v2.5, section 5.7.3).
type ConfiguredAddresses struct {
	DefaultSMDP string // empty when there is none
	RootSMDS    string
}

// ParseConfiguredAddresses reads the answer of
// ES10a.GetEuiccConfiguredAddresses, tag BF3C.
func ParseConfiguredAddresses(b []byte) (ConfiguredAddresses, error) {
	var a ConfiguredAddresses
	t, err := ber.Parse(b)
	if err != nil {
		return a, fmt.Errorf("configured addresses: %w", err)
	}
	if t.Tag != 0xBF3C {
		return a, fmt.Errorf("configured addresses: tag %X, want BF3C", uint32(t.Tag))
	}
	r := t.Reader()
	for e, ok := r.Next(); ok; e, ok = r.Next() {
		if len(e.Value) > maxAddress {
			return a, fmt.Errorf("configured addresses: one of %d bytes", len(e.Value))
		}
		switch e.Tag {
		case 0x80:
			a.DefaultSMDP = DisplayText(string(e.Value))
		case 0x81:
			a.RootSMDS = DisplayText(string(e.Value))
		}
	}
	if err := r.Err(); err != nil {
		return a, fmt.Errorf("configured addresses: %w", err)
	}
	return a, nil
}
