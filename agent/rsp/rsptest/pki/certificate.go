package pki

import (
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"slices"
	"time"

	"lpad/apdu/ber"
)

// Object identifiers of X.509 (RFC 5280, RFC 3279, RFC 5758).
const (
	oidECPublicKey     = "1.2.840.10045.2.1"
	oidECDSAWithSHA256 = "1.2.840.10045.4.3.2"

	oidCommonName   = "2.5.4.3"
	oidSerialNumber = "2.5.4.5"
	oidCountry      = "2.5.4.6"
	oidOrganization = "2.5.4.10"
	oidUnit         = "2.5.4.11"

	oidSubjectKeyID        = "2.5.29.14"
	oidKeyUsage            = "2.5.29.15"
	oidSubjectAltName      = "2.5.29.17"
	oidBasicConstraints    = "2.5.29.19"
	oidNameConstraints     = "2.5.29.30"
	oidCRLDistribution     = "2.5.29.31"
	oidCertificatePolicies = "2.5.29.32"
	oidAuthorityKeyID      = "2.5.29.35"
	oidExtKeyUsage         = "2.5.29.37"
	oidServerAuth          = "1.3.6.1.5.5.7.3.1"
	oidClientAuth          = "1.3.6.1.5.5.7.3.2"

	oidPermittedEINs = "2.23.146.1.2.2.0" // SGP.22 v3, section 4.5.2.1
)

// Limits of a foreign certificate. Real ones are under 1 kB with about eight
// extensions.
const (
	maxCertificate = 8 << 10
	maxListed      = 64 // extensions, names, policies …
)

// KeyUsage is a set of bits of the keyUsage extension.
type KeyUsage uint8

// The key usages that the profiles of SGP.22 v2.5, section 4.5.2 name.
const (
	DigitalSignature KeyUsage = 1 << iota
	KeyCertSign
	CRLSign
)

// Name is a distinguished name: the attributes that the profiles use, and the
// whole as it stood in the certificate.
type Name struct {
	Country, Organization, Unit, CommonName string
	SerialNumber                            string // of an eUICC: the EID, 32 digits
	Raw                                     []byte // the SEQUENCE
}

// NameConstraints says which eUICCs an EUM may certify: subject O equal to
// Organization, subject serialNumber beginning with one of Prefixes.
type NameConstraints struct {
	Organization string   // empty in the v3 form (permittedEins)
	Prefixes     []string // digits
}

// Certificate is a parsed certificate on either curve. Its slices are parts of
// DER and must not be changed.
type Certificate struct {
	DER             []byte
	Serial          []byte // content of the INTEGER
	Issuer, Subject Name
	NotBefore       time.Time
	NotAfter        time.Time
	Curve           Curve
	PublicKey       []byte // uncompressed point, 65 bytes
	SKI, AKI        []byte // key identifiers, nil when absent
	PolicyOIDs      []string
	PoliciesCrit    bool   // the policies extension is critical
	RegisteredID    string // subjectAltName registeredID, dotted; empty when absent
	DNSNames        []string
	KeyUsage        KeyUsage
	ExtKeyUsage     []string // dotted object identifiers
	IsCA            bool
	PathLen         int              // -1 when not limited
	NameConstraints *NameConstraints // nil when absent
	UnknownCritical []string         // critical extensions that this package does not know

	tbs       []byte // the signed TLV
	signature []byte // r||s
}

// ParseCertificate reads one DER certificate. It does not verify anything
// beyond the form.
func ParseCertificate(der []byte) (*Certificate, error) {
	c, err := parseCertificate(der)
	if err != nil {
		return nil, fmt.Errorf("certificate: %w", err)
	}
	return c, nil
}

// ParseCertificatePEM reads the first certificate of a PEM file.
func ParseCertificatePEM(file []byte) (*Certificate, error) {
	for {
		var block *pem.Block
		block, file = pem.Decode(file)
		if block == nil {
			return nil, errors.New("certificate: no PEM block with one")
		}
		if block.Type == "CERTIFICATE" {
			return ParseCertificate(block.Bytes)
		}
	}
}

// PEM is the certificate as a PEM block.
func (c *Certificate) PEM() []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.DER})
}

// X509 is the certificate as crypto/x509 reads it: P-256 only.
func (c *Certificate) X509() (*x509.Certificate, error) { return x509.ParseCertificate(c.DER) }

// SignedBy reports whether the certificate was signed by the holder of this
// public key.
func (c *Certificate) SignedBy(issuer Curve, public []byte) bool {
	return Verify(issuer, public, c.tbs, c.signature)
}

// HasPolicy reports whether one of these policies is in the certificate.
func (c *Certificate) HasPolicy(oids ...string) bool {
	return slices.ContainsFunc(c.PolicyOIDs, func(p string) bool { return slices.Contains(oids, p) })
}

// ValidAt reports whether t lies in the validity of the certificate.
func (c *Certificate) ValidAt(t time.Time) bool {
	return !t.Before(c.NotBefore) && !t.After(c.NotAfter)
}

func parseCertificate(der []byte) (*Certificate, error) {
	if len(der) > maxCertificate {
		return nil, fmt.Errorf("%d bytes, at most %d", len(der), maxCertificate)
	}
	outer, err := ber.Parse(der)
	if err != nil {
		return nil, err
	}
	if outer.Tag != tagSequence {
		return nil, fmt.Errorf("tag %X instead of 30", uint32(outer.Tag))
	}
	c := &Certificate{DER: der, PathLen: -1}
	r := outer.Reader()
	tbs := r.Read(tagSequence)
	algorithm := r.Read(tagSequence)
	signature := r.Read(tagBitString)
	if err := r.Finish(); err != nil {
		return nil, err
	}
	c.tbs = tbs.Raw
	if oid := firstOID(algorithm); oid != oidECDSAWithSHA256 {
		return nil, fmt.Errorf("signature algorithm %q", oid)
	}
	if len(signature.Value) < 1 {
		return nil, errors.New("empty signature")
	}
	if c.signature, err = rawSignature(signature.Value[1:]); err != nil {
		return nil, fmt.Errorf("signature: %w", err)
	}
	return c, c.parseTBS(tbs)
}

func firstOID(sequence ber.TLV) string { return decodeOID(sequence.Reader().Read(tagOID).Value) }

func (c *Certificate) parseTBS(tbs ber.TLV) error {
	r := tbs.Reader()
	r.Read(0xA0) // version 3; nothing else carries extensions
	c.Serial = r.Read(tagInteger).Value
	r.Read(tagSequence) // signature algorithm, repeated
	issuer := r.Read(tagSequence)
	validity := r.Read(tagSequence)
	subject := r.Read(tagSequence)
	spki := r.Read(tagSequence)
	extensions := r.Read(0xA3)
	if err := r.Finish(); err != nil {
		return err
	}
	var err error
	if c.Issuer, err = parseName(issuer); err != nil {
		return fmt.Errorf("issuer: %w", err)
	}
	if c.Subject, err = parseName(subject); err != nil {
		return fmt.Errorf("subject: %w", err)
	}
	if err := c.parseValidity(validity); err != nil {
		return err
	}
	if err := c.parsePublicKey(spki); err != nil {
		return fmt.Errorf("public key: %w", err)
	}
	return c.parseExtensions(extensions)
}

func (c *Certificate) parseValidity(t ber.TLV) (err error) {
	r := t.Reader()
	before, _ := r.Next()
	after, _ := r.Next()
	if err := r.Finish(); err != nil {
		return fmt.Errorf("validity: %w", err)
	}
	if c.NotBefore, err = decodeTime(before); err != nil {
		return fmt.Errorf("notBefore: %w", err)
	}
	if c.NotAfter, err = decodeTime(after); err != nil {
		return fmt.Errorf("notAfter: %w", err)
	}
	return nil
}

func (c *Certificate) parsePublicKey(spki ber.TLV) error {
	r := spki.Reader()
	algorithm := r.Read(tagSequence).Reader()
	key := r.Read(tagBitString)
	kind, curve := decodeOID(algorithm.Read(tagOID).Value), decodeOID(algorithm.Read(tagOID).Value)
	if err := errors.Join(r.Finish(), algorithm.Err()); err != nil {
		return err
	}
	var known bool
	if c.Curve, known = curveByOID(curve); !known || kind != oidECPublicKey {
		return fmt.Errorf("algorithm %q with curve %q", kind, curve)
	}
	if len(key.Value) < 1 || key.Value[0] != 0 {
		return errors.New("malformed BIT STRING")
	}
	c.PublicKey = key.Value[1:]
	_, _, err := c.Curve.point(c.PublicKey)
	return err
}

func parseName(t ber.TLV) (Name, error) {
	name := Name{Raw: t.Raw}
	r := t.Reader()
	for range maxListed {
		if r.Empty() {
			break
		}
		attribute := r.Read(tagSet).Reader().Read(tagSequence).Reader()
		oid := decodeOID(attribute.Read(tagOID).Value)
		value, _ := attribute.Next()
		if err := attribute.Err(); err != nil {
			return name, err
		}
		text := string(value.Value)
		switch oid {
		case oidCommonName:
			name.CommonName = text
		case oidSerialNumber:
			name.SerialNumber = text
		case oidCountry:
			name.Country = text
		case oidOrganization:
			name.Organization = text
		case oidUnit:
			name.Unit = text
		}
	}
	return name, r.Finish()
}

func (c *Certificate) parseExtensions(t ber.TLV) error {
	r := t.Reader().Read(tagSequence).Reader()
	for range maxListed {
		if r.Empty() {
			break
		}
		extension := r.Read(tagSequence).Reader()
		oid := decodeOID(extension.Read(tagOID).Value)
		critical := false
		if flag, ok := extension.Optional(tagBoolean); ok {
			critical = len(flag.Value) == 1 && flag.Value[0] != 0
		}
		value := extension.Read(tagOctetString)
		if err := extension.Finish(); err != nil {
			return fmt.Errorf("extension %s: %w", oid, err)
		}
		if err := c.parseExtension(oid, critical, value.Value); err != nil {
			return fmt.Errorf("extension %s: %w", oid, err)
		}
	}
	return r.Finish()
}

func (c *Certificate) parseExtension(oid string, critical bool, der []byte) error {
	t, err := ber.Parse(der)
	if err != nil {
		return err
	}
	switch oid {
	case oidSubjectKeyID:
		c.SKI = t.Value
	case oidAuthorityKeyID:
		r := t.Reader()
		if id, ok := r.Optional(0x80); ok {
			c.AKI = id.Value
		}
		return r.Err()
	case oidKeyUsage:
		c.KeyUsage, err = parseKeyUsage(t)
	case oidBasicConstraints:
		return c.parseBasicConstraints(t)
	case oidCertificatePolicies:
		c.PoliciesCrit = critical
		c.PolicyOIDs, err = parsePolicies(t)
	case oidSubjectAltName:
		return c.parseAltName(t)
	case oidExtKeyUsage:
		c.ExtKeyUsage, err = parseOIDs(t)
	case oidNameConstraints:
		c.NameConstraints, err = parseNameConstraints(t)
	case oidPermittedEINs:
		c.NameConstraints, err = parsePermittedEINs(t)
	case oidCRLDistribution:
	default:
		if critical {
			c.UnknownCritical = append(c.UnknownCritical, oid)
		}
	}
	return err
}

func parseKeyUsage(t ber.TLV) (KeyUsage, error) {
	if t.Tag != tagBitString || len(t.Value) < 2 {
		return 0, errors.New("malformed BIT STRING")
	}
	var u KeyUsage
	for bit, usage := range map[byte]KeyUsage{0x80: DigitalSignature, 0x04: KeyCertSign, 0x02: CRLSign} {
		if t.Value[1]&bit != 0 {
			u |= usage
		}
	}
	return u, nil
}

func (c *Certificate) parseBasicConstraints(t ber.TLV) error {
	r := t.Reader()
	if flag, ok := r.Optional(tagBoolean); ok {
		c.IsCA = len(flag.Value) == 1 && flag.Value[0] != 0
	}
	if limit, ok := r.Optional(tagInteger); ok {
		n, err := limit.Int()
		if err != nil || n < 0 || n > 255 {
			return errors.New("malformed path length")
		}
		c.PathLen = int(n)
	}
	return r.Finish()
}

func parsePolicies(t ber.TLV) ([]string, error) {
	var oids []string
	r := t.Reader()
	for range maxListed {
		if r.Empty() {
			break
		}
		oids = append(oids, firstOID(r.Read(tagSequence)))
	}
	return oids, r.Finish()
}

func parseOIDs(t ber.TLV) ([]string, error) {
	var oids []string
	r := t.Reader()
	for range maxListed {
		if r.Empty() {
			break
		}
		oids = append(oids, decodeOID(r.Read(tagOID).Value))
	}
	return oids, r.Finish()
}

func (c *Certificate) parseAltName(t ber.TLV) error {
	r := t.Reader()
	for range maxListed {
		name, ok := r.Next()
		if !ok {
			break
		}
		switch name.Tag {
		case 0x82:
			c.DNSNames = append(c.DNSNames, string(name.Value))
		case 0x88:
			c.RegisteredID = decodeOID(name.Value)
		}
	}
	return r.Finish()
}

// parseNameConstraints reads the one form in use: permittedSubtrees with one
// directoryName of organizationName and serialNumber (SGP.22 v2.5, section
// 4.5.2.1.0.2).
func parseNameConstraints(t ber.TLV) (*NameConstraints, error) {
	r := t.Reader()
	subtrees := r.Read(0xA0).Reader()
	directory := subtrees.Read(tagSequence).Reader().Read(0xA4).Reader().Read(tagSequence)
	if err := errors.Join(r.Finish(), subtrees.Finish()); err != nil {
		return nil, err
	}
	name, err := parseName(directory)
	if err != nil {
		return nil, err
	}
	return &NameConstraints{name.Organization, []string{name.SerialNumber}}, nil
}

func parsePermittedEINs(t ber.TLV) (*NameConstraints, error) {
	var limits NameConstraints
	r := t.Reader()
	for range maxListed {
		if r.Empty() {
			break
		}
		limits.Prefixes = append(limits.Prefixes, string(r.Read(tagPrintableString).Value))
	}
	return &limits, r.Finish()
}
