package pki

import (
	"crypto/rand"
	"crypto/sha1" // key identifiers, RFC 5280, section 4.2.1.2 (1)
	"crypto/tls"
	"fmt"
	"time"

	"lpad/agent/rsp"
	"lpad/apdu/ber"
)

// Validity of a certificate for which no other was asked for: wide, so that a
// test on a device without a clock works too.
var (
	DefaultNotBefore = time.Date(2020, 1, 1, 0, 0, 0, 0, time.UTC)
	DefaultNotAfter  = time.Date(2049, 12, 31, 23, 59, 59, 0, time.UTC)
)

// Object identifiers of the parties in SGP.26.
const (
	testCIOID  = "2.999.1"
	testEUMOID = "2.999.5"
)

// NoOID, as the OID of EUMOptions or ServerOptions, makes a certificate without
// a registeredID: no verifier of servers accepts it.
const NoOID = "no"

// Identity is a certificate with its private key.
type Identity struct {
	Certificate *Certificate
	Key         *Key
}

// TLSCertificate is the identity for a tls.Config: P-256 only.
func (id *Identity) TLSCertificate() (tls.Certificate, error) {
	signer, err := id.Key.Signer()
	if err != nil {
		return tls.Certificate{}, fmt.Errorf("TLS certificate: %w", err)
	}
	return tls.Certificate{Certificate: [][]byte{id.Certificate.DER}, PrivateKey: signer}, nil
}

// CI is a certificate issuer: the root.
type CI struct{ Identity }

// SKI is the subject key identifier by which eUICCs and servers name the CI,
// 20 bytes.
func (ci *CI) SKI() []byte { return ci.Certificate.SKI }

// NewCI makes a self-signed root with a fresh key. name is its common name.
func NewCI(c Curve, name string) (*CI, error) {
	key, err := GenerateKey(c)
	if err != nil {
		return nil, err
	}
	return NewCIWithKey(key, name)
}

// NewCIWithKey makes a self-signed root with this key: two roots with one key
// and different names have the same SKI, as those of SGP.26 do.
func NewCIWithKey(key *Key, name string) (*CI, error) {
	alternative, err := altName(testCIOID)
	if err != nil {
		return nil, fmt.Errorf("make CI: %w", err)
	}
	subject := distinguishedName(
		attribute{oidCommonName, name}, attribute{oidUnit, "TESTCERT"},
		attribute{oidOrganization, "RSPTEST"}, attribute{oidCountry, "IT"})
	cert, err := template{
		issuer: subject, subject: subject, key: key,
		extensions: [][]byte{
			subjectKeyID(key),
			extension(oidBasicConstraints, true, ber.Encode(tagSequence, ber.EncodeBool(tagBoolean, true))),
			policies(RoleCI),
			keyUsage(KeyCertSign | CRLSign),
			alternative,
			crlDistribution(),
		},
	}.sign(key)
	if err != nil {
		return nil, fmt.Errorf("make CI: %w", err)
	}
	return &CI{Identity{cert, key}}, nil
}

// EUMOptions say what an EUM certificate holds. Zero values mean the test EUM
// of SGP.26.
type EUMOptions struct {
	Organization string // subject O, and O of the name constraint; "RSP Test EUM"
	Prefix       string // digits that the EIDs begin with; "89049032"
	OID          string // subjectAltName registeredID; "2.999.5"
	NotBefore    time.Time
	NotAfter     time.Time
}

// EUM is an eUICC manufacturer.
type EUM struct{ Identity }

// IssueEUM makes an EUM with a fresh key on the curve of the CI.
func (ci *CI) IssueEUM(o EUMOptions) (*EUM, error) {
	o.Organization = or(o.Organization, "RSP Test EUM")
	o.Prefix = or(o.Prefix, "89049032")
	o.OID = or(o.OID, testEUMOID)
	alternative, err := altName(o.OID)
	if err != nil {
		return nil, fmt.Errorf("issue EUM: %w", err)
	}
	key, err := GenerateKey(ci.Key.curve)
	if err != nil {
		return nil, err
	}
	constraint := distinguishedName(attribute{oidOrganization, o.Organization}, attribute{oidSerialNumber, o.Prefix})
	cert, err := template{
		issuer: ci.Certificate.Subject.Raw, key: key, notBefore: o.NotBefore, notAfter: o.NotAfter,
		subject: distinguishedName(attribute{oidCountry, "DE"}, attribute{oidOrganization, o.Organization}, attribute{oidCommonName, "EUM Test"}),
		extensions: [][]byte{
			authorityKeyID(ci.Certificate), subjectKeyID(key),
			keyUsage(KeyCertSign), policies(RoleEUM), alternative,
			extension(oidBasicConstraints, true, ber.Encode(tagSequence, ber.EncodeBool(tagBoolean, true), ber.EncodeInt(tagInteger, 0))),
			crlDistribution(),
			// SGP.22 v2.5, section 4.5.2.1.0.2: exactly one permitted subtree.
			extension(oidNameConstraints, true, ber.Encode(tagSequence, ber.Encode(0xA0, ber.Encode(tagSequence, ber.Encode(0xA4, constraint))))),
		},
	}.sign(ci.Key)
	if err != nil {
		return nil, fmt.Errorf("issue EUM: %w", err)
	}
	return &EUM{Identity{cert, key}}, nil
}

// EUICCOptions make an unusual eUICC certificate.
type EUICCOptions struct {
	Organization string // subject O, when not that of the EUM: then no verifier accepts it
	NotBefore    time.Time
	NotAfter     time.Time
}

// IssueEUICC makes the identity of the eUICC with this EID, with a fresh key.
// An EID outside the prefix of the EUM is signed all the same: a verifier must
// refuse it.
func (e *EUM) IssueEUICC(eid rsp.EID, o ...EUICCOptions) (*Identity, error) {
	var options EUICCOptions
	if len(o) > 0 {
		options = o[0]
	}
	key, err := GenerateKey(e.Key.curve)
	if err != nil {
		return nil, err
	}
	cert, err := template{
		issuer: e.Certificate.Subject.Raw, key: key, notBefore: options.NotBefore, notAfter: options.NotAfter,
		subject: distinguishedName(
			attribute{oidCountry, "DE"},
			attribute{oidOrganization, or(options.Organization, e.Certificate.Subject.Organization)},
			attribute{oidSerialNumber, eid.String()}, attribute{oidCommonName, "Test eUICC"}),
		extensions: [][]byte{
			subjectKeyID(key), authorityKeyID(e.Certificate), keyUsage(DigitalSignature), policies(EUICC),
		},
	}.sign(e.Key)
	if err != nil {
		return nil, fmt.Errorf("issue eUICC: %w", err)
	}
	return &Identity{cert, key}, nil
}

// ServerOptions say what a certificate of an SM-DP+ or SM-DS holds.
type ServerOptions struct {
	OID       string   // subjectAltName registeredID; "2.999.10" when empty; NoOID
	Host      string   // TLS roles: common name and dNSName
	MoreHosts []string // TLS roles: further dNSNames
	NotBefore time.Time
	NotAfter  time.Time
	Key       *Key // nil: a fresh one on the curve of the CI
}

// IssueServer makes a server's certificate of one of the roles DPAuth, DPPb,
// DPTLS, DSAuth, DSTLS.
func (ci *CI) IssueServer(role Role, o ServerOptions) (*Identity, error) {
	o.OID = or(o.OID, "2.999.10")
	name := "TEST SM-DP+"
	if role == DSAuth {
		name = "TEST SM-DS"
	}
	var hosts []string
	if role.tls() {
		name = o.Host
		hosts = append([]string{o.Host}, o.MoreHosts...)
	}
	alternative, err := altName(o.OID, hosts...)
	if err != nil {
		return nil, fmt.Errorf("issue %s: %w", role, err)
	}
	key := o.Key
	if key == nil {
		if key, err = GenerateKey(ci.Key.curve); err != nil {
			return nil, err
		}
	}
	extensions := [][]byte{authorityKeyID(ci.Certificate), subjectKeyID(key)}
	if role.tls() {
		extensions = append(extensions, alternative,
			keyUsage(DigitalSignature), policies(role),
			extension(oidExtKeyUsage, true, ber.Encode(tagSequence, encodeOID(oidServerAuth), encodeOID(oidClientAuth))))
	} else {
		extensions = append(extensions, alternative, keyUsage(DigitalSignature), policies(role))
	}
	cert, err := template{
		issuer: ci.Certificate.Subject.Raw, key: key, notBefore: o.NotBefore, notAfter: o.NotAfter,
		subject:    distinguishedName(attribute{oidOrganization, "ACME"}, attribute{oidCommonName, name}),
		extensions: append(extensions, crlDistribution()),
	}.sign(ci.Key)
	if err != nil {
		return nil, fmt.Errorf("issue %s: %w", role, err)
	}
	return &Identity{cert, key}, nil
}

// template is a certificate that waits for its signature.
type template struct {
	issuer, subject     []byte // Names
	key                 *Key   // whose public key is certified
	notBefore, notAfter time.Time
	extensions          [][]byte
}

func (t template) sign(issuer *Key) (*Certificate, error) {
	if t.notBefore.IsZero() {
		t.notBefore = DefaultNotBefore
	}
	if t.notAfter.IsZero() {
		t.notAfter = DefaultNotAfter
	}
	var serial [8]byte
	if _, err := rand.Read(serial[:]); err != nil {
		return nil, fmt.Errorf("serial number: %w", err)
	}
	serial[0] = serial[0]&0x3F | 0x40 // positive, and never shorter
	algorithm := ber.Encode(tagSequence, encodeOID(oidECDSAWithSHA256))
	tbs := ber.Encode(tagSequence,
		ber.Encode(0xA0, ber.EncodeInt(tagInteger, 2)), // version 3
		ber.Encode(tagInteger, serial[:]),
		algorithm,
		t.issuer,
		ber.Encode(tagSequence, encodeTime(t.notBefore), encodeTime(t.notAfter)),
		t.subject,
		ber.Encode(tagSequence,
			ber.Encode(tagSequence, encodeOID(oidECPublicKey), encodeOID(t.key.curve.OID())),
			ber.Encode(tagBitString, []byte{0}, t.key.public)),
		ber.Encode(0xA3, ber.Encode(tagSequence, t.extensions...)))
	signature := derSignature(issuer.Sign(tbs))
	return ParseCertificate(ber.Encode(tagSequence, tbs, algorithm, ber.Encode(tagBitString, []byte{0}, signature)))
}

type attribute struct{ oid, text string }

func distinguishedName(attributes ...attribute) []byte {
	var sets [][]byte
	for _, a := range attributes {
		kind := tagUTF8String
		if a.oid == oidCountry || a.oid == oidSerialNumber {
			kind = tagPrintableString
		}
		sets = append(sets, ber.Encode(tagSet, ber.Encode(tagSequence, encodeOID(a.oid), ber.EncodeString(kind, a.text))))
	}
	return ber.Encode(tagSequence, sets...)
}

func extension(oid string, critical bool, value []byte) []byte {
	parts := [][]byte{encodeOID(oid)}
	if critical {
		parts = append(parts, ber.EncodeBool(tagBoolean, true))
	}
	return ber.Encode(tagSequence, append(parts, ber.Encode(tagOctetString, value))...)
}

func keyID(key *Key) []byte {
	sum := sha1.Sum(key.public)
	return sum[:]
}

func subjectKeyID(key *Key) []byte {
	return extension(oidSubjectKeyID, false, ber.Encode(tagOctetString, keyID(key)))
}

func authorityKeyID(issuer *Certificate) []byte {
	return extension(oidAuthorityKeyID, false, ber.Encode(tagSequence, ber.Encode(0x80, issuer.SKI)))
}

// policies is critical except in TLS certificates (SGP.22 v2.5, section 4.5.2).
func policies(role Role) []byte {
	return extension(oidCertificatePolicies, !role.tls(), ber.Encode(tagSequence, ber.Encode(tagSequence, encodeOID(role.Policy()))))
}

func keyUsage(u KeyUsage) []byte {
	var bits ber.Bits
	switch u {
	case DigitalSignature:
		bits = ber.NewBits(0)
	case KeyCertSign:
		bits = ber.NewBits(5)
	default:
		bits = ber.NewBits(5, 6)
	}
	return extension(oidKeyUsage, true, ber.EncodeBits(tagBitString, bits))
}

// altName is subjectAltName; nil when there is nothing in it.
func altName(oid string, hosts ...string) ([]byte, error) {
	var names [][]byte
	for _, h := range hosts {
		names = append(names, ber.EncodeString(0x82, h))
	}
	if oid != NoOID {
		value, err := OIDValue(oid)
		if err != nil {
			return nil, err
		}
		names = append(names, ber.Encode(0x88, value))
	}
	if len(names) == 0 {
		return nil, nil
	}
	return extension(oidSubjectAltName, false, ber.Encode(tagSequence, names...)), nil
}

func crlDistribution() []byte {
	point := func(uri string) []byte {
		return ber.Encode(tagSequence, ber.Encode(0xA0, ber.Encode(0xA0, ber.EncodeString(0x86, uri))))
	}
	return extension(oidCRLDistribution, false, ber.Encode(tagSequence,
		point("http://ci.test.example.com/CRL-A.crl"), point("http://ci.test.example.com/CRL-B.crl")))
}

func or(value, otherwise string) string {
	if value == "" {
		return otherwise
	}
	return value
}
