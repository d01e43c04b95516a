package network

import (
	"cmp"
	"encoding/json"
	"slices"
	"strings"

	"lpad/modem"
	"lpad/modem/mm"
)

// Working is the access point that carried data when a snapshot was taken, and
// the ICCID of the profile that the modem showed then: what will do again for
// that profile. ok is false if nothing was up, or nobody knows for whom.
//
// A manager that has just been restarted has nothing up for a moment: then it is
// the access point of the connection that would come up by itself, if the modem
// attaches with the same.
//
// The access point is the active connection's own: one that NetworkManager
// looked up by itself (gsm.auto-config) is found among the modem's contexts
// only, and not told from others there.
func (s *ManagerStack) Working(snapshot []byte) (iccid string, apn modem.APN, ok bool) {
	v, err := parseSnapshot(snapshot)
	if err != nil || v.ICCID == "" {
		return "", modem.APN{}, false
	}
	active := cmp.Or(v.Active, v.expected(s.cid))
	for _, con := range v.Connections {
		name := con.Settings.Text("gsm", "apn")
		if con.Settings.Text("connection", "uuid") != active || name == "" {
			continue
		}
		c := withCredentials(savedContext{Name: name}, []savedConnection{con})
		for _, saved := range v.Contexts { // the type is told by the modem
			if saved.Name == name {
				c.Type = saved.Type
			}
		}
		return v.ICCID, c.apn(), true
	}
	return "", modem.APN{}, false
}

// expected is the UUID of the connection that would come up by itself with the
// context of the initial attach; empty if none would, or several.
func (v snapshot) expected(cid int) string {
	uuid := ""
	for _, con := range v.Connections {
		sim := con.Settings.Text("gsm", "sim-id")
		if !con.Settings.Autoconnect() || !v.ours(con.Settings) || sim != "" && !mm.SameICCID(sim, v.ICCID) ||
			!slices.ContainsFunc(v.Contexts, func(c savedContext) bool {
				return c.CID == cid && strings.EqualFold(c.Name, con.Settings.Text("gsm", "apn"))
			}) {
			continue
		}
		if uuid != "" {
			return ""
		}
		uuid = con.Settings.Text("connection", "uuid")
	}
	return uuid
}

// Working is the access point of the context when the snapshot was taken.
// Whether it carried data is not known here: it was what the modem used.
func (s *ATOnly) Working(snapshot []byte) (iccid string, apn modem.APN, ok bool) {
	var snap atSnapshot
	if json.Unmarshal(snapshot, &snap) != nil || snap.ICCID == "" || snap.Name == "" {
		return "", modem.APN{}, false
	}
	if snap.Data != nil {
		return snap.ICCID, modem.APN{Name: snap.Data.Name, Type: snap.Data.Type}, true
	}
	return snap.ICCID, modem.APN{Name: snap.Name, Type: modem.IPType(snap.Type)}, true
}
