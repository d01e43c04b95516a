package network

import "lpad/modem/nm"

// ParseSnapshot reads a snapshot and marshals it again.
func ParseSnapshot(b []byte) ([]byte, error) {
	v, err := parseSnapshot(b)
	if err != nil {
		return nil, err
	}
	return v.marshal()
}

// Concerns tells whether a connection could come up on the modem of a snapshot.
func Concerns(control, identifier string, s nm.Settings) bool {
	return snapshot{Control: control, DeviceIdentifier: identifier}.ours(s)
}
