package es9p

import (
	"crypto/x509"
	"encoding/asn1"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"lpad/internal/fault"
)

// Why a server's certificate was refused: the codes of [CertificateError].
const (
	ClockNotSet            = "clock-not-set"             // the device's clock is before ClockFloor: no certificate can be judged
	CertificateForeign     = "certificate-foreign"       // no chain to any known authority
	CertificateTestCI      = "test-ci-not-allowed"       // under a test CI, which is not allowed
	CertificateCIRefused   = "ci-not-trusted"            // under a known authority that is not on our list
	CertificateCINotOnCard = "ci-not-on-card"            // under a CI that the eUICC does not list
	CertificateExpired     = "certificate-expired"       // over, by the device's clock
	CertificateNotYetValid = "certificate-not-yet-valid" // to come, by the device's clock
	CertificateWrongHost   = "certificate-wrong-host"    // made for another name
	CertificateWrongUsage  = "certificate-wrong-usage"   // not made for a TLS server
	CertificateWrongRole   = "certificate-wrong-role"    // of another role in the GSMA's scheme
	CertificateUnsupported = "certificate-unsupported"   // unreadable here: brainpool key, unknown critical extension
)

// ClockFloor is older than this program: a clock that shows less was never
// set. A device without a battery for its clock begins in 1970.
var ClockFloor = time.Date(2026, time.January, 1, 0, 0, 0, 0, time.UTC)

// maxChain bounds the certificates of a server that are looked at.
const maxChain = 8

// CertificateError says why a server's certificate is not acceptable.
type CertificateError struct {
	Code   string // one of the constants above
	Host   string
	Detail string // what is wrong with it, in plain words; may be empty
	Err    error  // may be nil
}

// Error implements error.
func (e *CertificateError) Error() string {
	s := "certificate of " + e.Host + ": " + e.Fault().Text
	if e.Err != nil {
		s += ": " + e.Err.Error()
	}
	return s
}

// Unwrap returns the cause.
func (e *CertificateError) Unwrap() error { return e.Err }

// certificateFaults explains the codes. Retry never: a certificate does not
// change by asking again.
var certificateFaults = map[string]fault.Fault{
	ClockNotSet: {Text: "the device's clock is not set", Who: fault.Technician,
		Next: "set the clock (time server, mobile network, or by hand), then try again"},
	CertificateForeign: {Text: "the server's certificate is not from the GSMA's authorities", Who: fault.Operator,
		Next: "check the server's name, and that nothing intercepts this network; an authority of the device's maker belongs into rsp.trust_dir"},
	CertificateTestCI: {Text: "the server's certificate is from a test CI, which is not allowed", Who: fault.Configuration,
		Next: "use a live server; on a test bench, and only there, set rsp.allow_test_ci"},
	CertificateCIRefused: {Text: "the server's certificate is from an authority that is known but not trusted", Who: fault.Configuration,
		Next: "if the device's maker trusts it, put its certificate into rsp.trust_dir"},
	CertificateCINotOnCard: {Text: "the server's certificate is from a CI that the eUICC does not know", Who: fault.Operator,
		Next: "ask the operator whether this eUICC is accepted; a test card needs a test server"},
	CertificateExpired: {Text: "the server's certificate has expired", Who: fault.Operator,
		Next: "check the device's clock; if it is right, tell the operator"},
	CertificateNotYetValid: {Text: "the server's certificate is not valid yet", Who: fault.Technician,
		Next: "check the device's clock; if it is right, tell the operator"},
	CertificateWrongHost: {Text: "the server's certificate was issued for another name", Who: fault.Operator,
		Next: "check the server's name; if it is right, tell the operator"},
	CertificateWrongUsage: {Text: "the server's certificate is not one for a TLS server", Who: fault.Operator, Next: "tell the operator"},
	CertificateWrongRole:  {Text: "the server's certificate is not one for the TLS of an SM-DP+ or SM-DS", Who: fault.Operator, Next: "tell the operator"},
	CertificateUnsupported: {Text: "the server's certificate is of a kind that this device cannot check", Who: fault.Operator,
		Next: "ask the operator for a server with a certificate on the curve P-256"},
}

// Fault implements fault.Explainer.
func (e *CertificateError) Fault() fault.Fault {
	f := certificateFaults[e.Code]
	f.Code = e.Code
	if e.Detail != "" {
		f.Text += " (" + e.Detail + ")"
	}
	return f
}

// Certificate policies of TLS servers (SGP.14 v2: 2.23.146.1.2.1.x; v3 counts
// them in a tree).
var tlsRoles = []asn1.ObjectIdentifier{
	{2, 23, 146, 1, 2, 1, 3},          // id-rspRole-dp-tls
	{2, 23, 146, 1, 2, 1, 6},          // id-rspRole-ds-tls
	{2, 23, 146, 1, 2, 1, 0, 0, 1, 0}, // id-rspRole-dp-tls-v3
	{2, 23, 146, 1, 2, 1, 0, 0, 2, 0}, // id-rspRole-ds-tls-v3
}

// verify judges the certificates of a server, the server's own first. Who
// vouches for it is judged before anything else: what a certificate of nobody
// says is of no interest.
func (t *Trust) verify(certs []*x509.Certificate, host string, now time.Time, onlyCIs [][]byte) error {
	refuse := func(code, detail string, err error) error {
		return &CertificateError{Code: code, Host: host, Detail: detail, Err: err}
	}
	if now.Before(ClockFloor) {
		return refuse(ClockNotSet, "it shows "+now.UTC().Format(time.DateOnly), nil)
	}
	if len(certs) == 0 || len(certs) > maxChain {
		return refuse(CertificateForeign, fmt.Sprintf("%d certificates", len(certs)), nil)
	}
	leaf := certs[0]
	chains, err := t.chains(certs, within(now, leaf))
	if err != nil {
		return refuse(chainCode(err), chainDetail(leaf, err), err)
	}
	root, builtIn, ok := t.acceptedRoot(chains)
	if !ok {
		code, name := t.refusedRoot(chains)
		return refuse(code, name, nil)
	}
	switch {
	case builtIn && len(onlyCIs) > 0 && !slices.ContainsFunc(onlyCIs, func(ski []byte) bool { return upperHex(ski) == root.SKI }):
		return refuse(CertificateCINotOnCard, root.Name, nil)
	case leaf.VerifyHostname(host) != nil:
		return refuse(CertificateWrongHost, "for "+namesOf(leaf), nil)
	case now.After(leaf.NotAfter):
		return refuse(CertificateExpired, "on "+leaf.NotAfter.UTC().Format(time.DateOnly), nil)
	case now.Before(leaf.NotBefore):
		return refuse(CertificateNotYetValid, fmt.Sprintf("it begins on %s, the clock shows %s",
			leaf.NotBefore.UTC().Format(time.DateOnly), now.UTC().Format(time.DateOnly)), nil)
	case !slices.Contains(leaf.ExtKeyUsage, x509.ExtKeyUsageServerAuth):
		return refuse(CertificateWrongUsage, "extended key usage serverAuth is missing", nil)
	case leaf.KeyUsage&x509.KeyUsageDigitalSignature == 0:
		return refuse(CertificateWrongUsage, "key usage digitalSignature is missing", nil)
	case builtIn && !hasTLSRole(leaf):
		return refuse(CertificateWrongRole, "", nil)
	}
	return nil
}

// within is now, moved into the validity of the certificate: so that a foreign
// certificate that is also out of date is called foreign.
func within(now time.Time, c *x509.Certificate) time.Time {
	switch {
	case now.Before(c.NotBefore):
		return c.NotBefore
	case now.After(c.NotAfter):
		return c.NotAfter
	}
	return now
}

// chains finds every chain to an anchor, accepted or not.
func (t *Trust) chains(certs []*x509.Certificate, at time.Time) ([][]*x509.Certificate, error) {
	between := x509.NewCertPool()
	for _, c := range certs[1:] {
		between.AddCert(c)
	}
	return certs[0].Verify(x509.VerifyOptions{
		Roots: t.pool, Intermediates: between, CurrentTime: at,
		KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny}, // judged apart, to be named
	})
}

// chainCode names why no chain was found.
func chainCode(err error) string {
	var invalid x509.CertificateInvalidError
	var critical x509.UnhandledCriticalExtension
	switch {
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired:
		return CertificateExpired // of an authority in between: the leaf's own dates come later
	case errors.As(err, &critical):
		return CertificateUnsupported
	case errors.As(err, &invalid):
		return CertificateWrongUsage // not an authority, name not allowed, path too long
	}
	return CertificateForeign
}

// chainDetail names the issuer of a foreign certificate: often an intercepting
// box says its name there.
func chainDetail(leaf *x509.Certificate, err error) string {
	if chainCode(err) != CertificateForeign {
		return ""
	}
	return "issued by " + cleanText(leaf.Issuer.String())
}

// acceptedRoot finds a chain that ends at an accepted anchor.
func (t *Trust) acceptedRoot(chains [][]*x509.Certificate) (r Root, builtIn, ok bool) {
	for _, chain := range chains {
		if r, builtIn, ok = t.root(chain); ok {
			return r, builtIn, true
		}
	}
	return Root{}, false, false
}

// refusedRoot names the anchor of a chain that is known and not accepted.
func (t *Trust) refusedRoot(chains [][]*x509.Certificate) (code, name string) {
	code = CertificateCIRefused
	for _, chain := range chains {
		last := chain[len(chain)-1]
		name = nameOf(last)
		if r, ok := find(t.anchors.test, fingerprint(last)); ok {
			return CertificateTestCI, r.Name
		}
	}
	return code, name
}

// namesOf lists the names a certificate is for.
func namesOf(c *x509.Certificate) string {
	if len(c.DNSNames) == 0 {
		return "no name"
	}
	return cleanText(strings.Join(c.DNSNames, ", "))
}

// hasTLSRole reports whether the certificate policies, when there are any,
// name a TLS role. Some certificates in use carry none.
func hasTLSRole(c *x509.Certificate) bool {
	if len(c.Policies) == 0 {
		return true
	}
	return slices.ContainsFunc(c.Policies, func(policy x509.OID) bool {
		return slices.ContainsFunc(tlsRoles, policy.EqualASN1OID)
	})
}
