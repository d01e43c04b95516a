package euicc

import (
	"bytes"
	"crypto/x509"
	"encoding/hex"
	"slices"

	"lpad/agent/rsp/rsptest/pki"
	"lpad/apdu/ber"
)

// Result codes of LoadCRL (SGP.22 v2.5, section 5.7.12).
const (
	crlInvalidSignature  = 1
	crlInvalidFormat     = 2
	crlKeyNotFound       = 4
	crlFresherIsLoaded   = 5
	maxRevoked           = 256 // entries that fit into the card
	crlNotEnoughMemory   = 3
	noMissingPartialCRLs = 0xA0
)

// loadCRL is SGP.22 v2.5, section 5.7.12, for complete lists: a list that is
// loaded replaces the older one of the same CI.
func (c *Card) loadCRL(t ber.TLV) ([]byte, uint16) {
	if !c.can(capCRL) {
		return nil, swNoReference
	}
	r := t.Reader()
	list := r.Read(0x30)
	if r.Finish() != nil {
		return nil, swWrongData
	}
	if code := c.applyCRL(list.Raw); code != 0 {
		return choice1(t.Tag, code), swOK
	}
	return ber.Encode(t.Tag, ber.Encode(noMissingPartialCRLs)), swOK
}

func (c *Card) applyCRL(der []byte) int {
	list, err := x509.ParseRevocationList(der)
	if err != nil || list.Number == nil || !list.Number.IsInt64() {
		return crlInvalidFormat
	}
	i := slices.IndexFunc(c.config.Trusted, func(a Anchor) bool { return bytes.Equal(a.SKI, list.AuthorityKeyId) })
	if i < 0 {
		return crlKeyNotFound
	}
	ci := c.config.Trusted[i]
	signature, ok := rawSignature(list.Signature)
	name := hex.EncodeToString(ci.SKI)
	switch {
	case !ok || !pki.Verify(ci.Curve, ci.PublicKey, list.RawTBSRevocationList, signature):
		return crlInvalidSignature
	case list.Number.Int64() < c.mem.CRLNumbers[name]:
		return crlFresherIsLoaded
	case len(list.RevokedCertificateEntries) > maxRevoked:
		return crlNotEnoughMemory
	}
	c.mem.Revoked = slices.DeleteFunc(c.mem.Revoked, func(e revokedEntry) bool { return bytes.Equal(e.CI, ci.SKI) })
	for _, e := range list.RevokedCertificateEntries {
		c.mem.Revoked = append(c.mem.Revoked, revokedEntry{CI: ci.SKI, Serial: e.SerialNumber.Bytes()})
	}
	if c.mem.CRLNumbers == nil {
		c.mem.CRLNumbers = map[string]int64{}
	}
	c.mem.CRLNumbers[name] = list.Number.Int64()
	c.commit()
	return 0
}

// revoked says whether a loaded list names a certificate of the CI.
func (c *Card) revoked(ci, serial []byte) bool {
	serial = bytes.TrimLeft(serial, "\x00")
	return slices.ContainsFunc(c.mem.Revoked, func(e revokedEntry) bool { return bytes.Equal(e.CI, ci) && bytes.Equal(e.Serial, serial) })
}

// rawSignature turns an ECDSA-Sig-Value into r||s of 32 bytes each.
func rawSignature(der []byte) ([]byte, bool) {
	t, err := ber.Parse(der)
	if err != nil {
		return nil, false
	}
	reader := t.Reader()
	out := make([]byte, 0, signatureLength)
	for range 2 {
		n := bytes.TrimLeft(reader.Read(0x02).Value, "\x00")
		if len(n) > signatureLength/2 {
			return nil, false
		}
		out = append(append(out, make([]byte, signatureLength/2-len(n))...), n...)
	}
	return out, reader.Finish() == nil
}
