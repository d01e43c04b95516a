package params

import (
	"encoding/json"

	"lpad/agent/rsp"
)

// IsZero reports whether the scope is every profile.
func (s Scope) IsZero() bool {
	return s.ICCID.IsZero() && len(s.MCCMNC) == 0 && s.GID1+s.IMSIPrefix+s.ICCIDPrefix+s.SPN == ""
}

// members is a JSON object that is written in the order in which its members
// are added.
type members struct {
	out []byte
	err error
}

func (m *members) add(name string, v any) {
	if m.err != nil {
		return
	}
	text, err := json.Marshal(v)
	if err != nil {
		m.err = err
		return
	}
	if m.out != nil {
		m.out = append(m.out, ',')
	}
	m.out = append(append(append(append(m.out, '"'), name...), '"', ':'), text...)
}

// MarshalJSON implements json.Marshaler.
func (m *members) MarshalJSON() ([]byte, error) {
	return append(append([]byte{'{'}, m.out...), '}'), m.err
}

// group adds an object if there is something in it.
func (m *members) group(name string, fill func(*members)) {
	in := &members{}
	if fill(in); in.out != nil || in.err != nil {
		m.add(name, in)
	}
}

// member adds a member as it was: not at all, null, or its value.
func member[T any](m *members, name string, o Opt[T]) {
	switch o.State {
	case Null:
		m.add(name, nil)
	case Set:
		m.add(name, o.Value)
	}
}

// Marshal is the reference encoder of the JSON form: what [Parse] reads as the
// same document. Members that were not known are lost. Passwords are written
// in the clear, so the text is as confidential as they are; nobody logs it.
//
// An access point without a name, which a TLV can have, is a [*DocumentError].
func Marshal(d *Document) ([]byte, error) {
	for _, a := range d.APNs.Value {
		if a.Name == "" {
			return nil, refuse("/apns", "an access point whose name the network chooses cannot be written in JSON")
		}
	}
	m := &members{}
	m.add("version", Version)
	m.add("generation", d.Generation)
	m.group("scope", d.Scope.marshal)
	if d.APNs.State == Set {
		m.add("apns", clearAPNs(d.APNs.Value))
	} else {
		member(m, "apns", d.APNs)
	}
	m.group("roaming", func(m *members) {
		member(m, "data", d.DataRoaming)
		member(m, "homeOnly", d.HomeOnly)
		member(m, "preferredPlmns", d.PreferredPLMNs)
	})
	m.group("radio", func(m *members) {
		member(m, "rats", d.RATs)
		member(m, "lteBands", d.LTEBands)
		m.group("edrx", func(m *members) {
			member(m, "lte", d.EDRXLTE)
			member(m, "nb-iot", d.EDRXNBIoT)
		})
		member(m, "psm", d.PSM)
	})
	m.group("sms", func(m *members) { member(m, "smsc", d.SMSC) })
	m.group("servers", func(m *members) {
		member(m, "ecs", d.ECS)
		member(m, "cmp", d.CMP)
		member(m, "smds", d.SMDS)
		member(m, "bootstrap", d.Bootstrap)
	})
	m.group("connectivity", func(m *members) {
		member(m, "checks", d.Checks)
		member(m, "retry", d.Retry)
	})
	if d.Limits != nil {
		m.add("limits", d.Limits)
	}
	return m.MarshalJSON()
}

func (s Scope) marshal(m *members) {
	if s.ICCID != (rsp.ICCID{}) {
		m.add("iccid", s.ICCID.String())
	}
	if len(s.MCCMNC) > 0 {
		m.add("mccmnc", s.MCCMNC)
	}
	if s.GID1 != "" {
		m.add("gid1", s.GID1)
	}
	if s.IMSIPrefix != "" {
		m.add("imsiPrefix", s.IMSIPrefix)
	}
	if s.ICCIDPrefix != "" {
		m.add("iccidPrefix", s.ICCIDPrefix)
	}
	if s.SPN != "" {
		m.add("spn", s.SPN)
	}
}

// clearAPN is an access point with its password.
type clearAPN struct {
	APN
	Secret string `json:"secret,omitempty"`
}

func clearAPNs(list []APN) []clearAPN {
	out := make([]clearAPN, 0, len(list))
	for _, a := range list {
		out = append(out, clearAPN{a, a.Secret.Reveal()})
	}
	return out
}
