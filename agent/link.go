package agent

import (
	"encoding/json"

	"lpad/agent/api"
	"lpad/modem"
)

// linkOf reads the network that a job has journalled.
func linkOf(raw json.RawMessage) *api.Network {
	var l modem.Link
	if len(raw) == 0 || json.Unmarshal(raw, &l) != nil || l.Interface == "" {
		return nil
	}
	n := &api.Network{Interface: l.Interface}
	for _, a := range l.Addresses {
		n.Addresses = append(n.Addresses, a.Addr().String())
	}
	return n
}
