package pki

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"time"

	"lpad/agent/rsp"
)

// Reason says why a chain was refused.
type Reason string

// The reasons, and the codes a machine answers with: of ES10b.AuthenticateServer
// (SGP.22 v2.5, section 5.7.13) and of ES9+.AuthenticateClient (section 5.6.3).
const (
	UnknownCI      Reason = "unknown CI"                 // AuthenticateServer 1 or 7; 8.11.1/3.9
	BadSignature   Reason = "signature"                  // 1; 8.1.2/6.1 or 8.1.3/6.1
	NotValidNow    Reason = "validity"                   // 1 for cards with a clock; 8.1.2/6.3 or 8.1.3/6.3
	WrongRole      Reason = "role"                       // 1; 6.1
	WrongUsage     Reason = "key usage"                  // 1; 6.1
	NoIdentifier   Reason = "no object identifier"       // 1
	UnknownCrit    Reason = "unknown critical extension" // 1; 6.1
	NotPermitted   Reason = "name constraint"            // 8.1.4/6.1
	WrongIssuer    Reason = "issuer"                     // 8.1.3/6.1
	MissingOrBadID Reason = "EID"                        // 8.1.3/6.1
)

// Error is a refused certificate.
type Error struct {
	Role   Role // of the certificate that was refused
	Reason Reason
	Detail string
}

func (e *Error) Error() string {
	if e.Detail == "" {
		return fmt.Sprintf("certificate of the %s: %s", e.Role, e.Reason)
	}
	return fmt.Sprintf("certificate of the %s: %s: %s", e.Role, e.Reason, e.Detail)
}

// VerifyServer is what an eUICC checks of a server's certificate (SGP.22 v2.5,
// sections 5.7.5 and 5.7.13): signed by one of the trusted CIs, which is found
// by the authority key identifier and of which only the key identifier and the
// public key are used; the wanted role; key usage; a registeredID; no unknown
// critical extension. It returns the CI. With a zero now the validity is not
// looked at: cards have no clock.
func VerifyServer(cert *Certificate, trusted []*Certificate, role Role, now time.Time) (*Certificate, error) {
	ci, err := findCI(cert, trusted, role)
	if err != nil {
		return nil, err
	}
	switch {
	case !cert.HasPolicy(role.policies()...):
		return nil, &Error{role, WrongRole, strings.Join(cert.PolicyOIDs, ", ")}
	case cert.KeyUsage&DigitalSignature == 0 || cert.IsCA:
		return nil, &Error{role, WrongUsage, ""}
	case cert.RegisteredID == "":
		return nil, &Error{role, NoIdentifier, ""}
	}
	return ci, checkForm(cert, role, now)
}

// VerifyEUICC is what a server checks of the certificates in an
// AuthenticateServerResponse (SGP.22 v2.5, section 5.6.3; the rule of the name
// constraint in 4.5.2.1.0.2): EUM signed by one of the trusted CIs, eUICC
// signed by the EUM, roles, usages, validity unless now is zero, subject O of
// the eUICC equal to that of the constraint and its serialNumber, the EID,
// beginning with the permitted digits. It returns the EID.
func VerifyEUICC(eum, euicc *Certificate, trusted []*Certificate, now time.Time) (rsp.EID, error) {
	var none rsp.EID
	if _, err := findCI(eum, trusted, RoleEUM); err != nil {
		return none, err
	}
	switch {
	case !eum.HasPolicy(RoleEUM.policies()...):
		return none, &Error{RoleEUM, WrongRole, strings.Join(eum.PolicyOIDs, ", ")}
	case eum.KeyUsage&KeyCertSign == 0 || !eum.IsCA:
		return none, &Error{RoleEUM, WrongUsage, ""}
	}
	if err := checkForm(eum, RoleEUM, now); err != nil {
		return none, err
	}
	switch {
	case !bytes.Equal(euicc.AKI, eum.SKI) || !bytes.Equal(euicc.Issuer.Raw, eum.Subject.Raw):
		return none, &Error{EUICC, WrongIssuer, "not issued by this EUM"}
	case !euicc.SignedBy(eum.Curve, eum.PublicKey):
		return none, &Error{EUICC, BadSignature, ""}
	case !euicc.HasPolicy(EUICC.policies()...):
		return none, &Error{EUICC, WrongRole, strings.Join(euicc.PolicyOIDs, ", ")}
	case euicc.KeyUsage&DigitalSignature == 0 || euicc.IsCA:
		return none, &Error{EUICC, WrongUsage, ""}
	}
	if err := checkForm(euicc, EUICC, now); err != nil {
		return none, err
	}
	if err := checkConstraint(eum.NameConstraints, euicc.Subject); err != nil {
		return none, err
	}
	eid, err := rsp.ParseEID(euicc.Subject.SerialNumber)
	if err != nil {
		return none, &Error{EUICC, MissingOrBadID, err.Error()}
	}
	return eid, nil
}

// findCI finds the issuer by key identifier and public key only: the test PKI
// of SGP.26 has two roots of one key with different names, and cards hold no
// root certificates at all.
func findCI(cert *Certificate, trusted []*Certificate, role Role) (*Certificate, error) {
	known := false
	for _, ci := range trusted {
		if len(cert.AKI) == 0 || !bytes.Equal(ci.SKI, cert.AKI) {
			continue
		}
		known = true
		if cert.SignedBy(ci.Curve, ci.PublicKey) {
			return ci, nil
		}
	}
	if known {
		return nil, &Error{role, BadSignature, ""}
	}
	return nil, &Error{role, UnknownCI, fmt.Sprintf("%X", cert.AKI)}
}

func checkForm(cert *Certificate, role Role, now time.Time) error {
	if len(cert.UnknownCritical) > 0 {
		return &Error{role, UnknownCrit, strings.Join(cert.UnknownCritical, ", ")}
	}
	if !now.IsZero() && !cert.ValidAt(now) {
		return &Error{role, NotValidNow, fmt.Sprintf("%s to %s", cert.NotBefore.Format(time.DateOnly), cert.NotAfter.Format(time.DateOnly))}
	}
	return nil
}

func checkConstraint(limits *NameConstraints, subject Name) error {
	if limits == nil {
		return nil
	}
	if limits.Organization != "" && subject.Organization != limits.Organization {
		return &Error{EUICC, NotPermitted, fmt.Sprintf("organization %q instead of %q", subject.Organization, limits.Organization)}
	}
	if !slices.ContainsFunc(limits.Prefixes, func(p string) bool { return strings.HasPrefix(subject.SerialNumber, p) }) {
		return &Error{EUICC, NotPermitted, "EID outside the range of the EUM"}
	}
	return nil
}
