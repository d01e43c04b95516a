package pki

import "fmt"

// Role is what a certificate may be used for: its certificate policy
// (SGP.22 v2.5, section 4.5.2; id-rspRole 2.23.146.1.2.1).
type Role int

// The roles of the RSP certificates.
const (
	RoleCI Role = iota
	EUICC
	RoleEUM
	DPTLS
	DPAuth
	DPPb
	DSTLS
	DSAuth
)

var roles = [...]struct{ name, policy, v3 string }{
	RoleCI:  {"CI", "2.23.146.1.2.1.0", "2.23.146.1.2.1.0"},
	EUICC:   {"eUICC", "2.23.146.1.2.1.1", "2.23.146.1.2.1.0.0.0.0.0"},
	RoleEUM: {"EUM", "2.23.146.1.2.1.2", "2.23.146.1.2.1.0.0.0"},
	DPTLS:   {"DPtls", "2.23.146.1.2.1.3", "2.23.146.1.2.1.0.0.1.0"},
	DPAuth:  {"DPauth", "2.23.146.1.2.1.4", "2.23.146.1.2.1.0.0.1.1"},
	DPPb:    {"DPpb", "2.23.146.1.2.1.5", "2.23.146.1.2.1.0.0.1.2"},
	DSTLS:   {"DStls", "2.23.146.1.2.1.6", "2.23.146.1.2.1.0.0.2.0"},
	DSAuth:  {"DSauth", "2.23.146.1.2.1.7", "2.23.146.1.2.1.0.0.2.1"},
}

// String is the name of the certificate: "DPauth".
func (r Role) String() string {
	if r < 0 || int(r) >= len(roles) {
		return fmt.Sprintf("Role(%d)", int(r))
	}
	return roles[r].name
}

// Policy is the certificate policy of the role in SGP.22 v2, dotted.
func (r Role) Policy() string { return roles[r].policy }

// policies are the object identifiers that count as this role: those of v2 and
// of v3.
func (r Role) policies() []string { return []string{roles[r].policy, roles[r].v3} }

func (r Role) tls() bool { return r == DPTLS || r == DSTLS }
