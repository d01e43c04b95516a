package euicc

import (
	"bytes"
	"crypto/subtle"
	"encoding/asn1"
	"errors"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"

	"lpad/agent/rsp/rsptest/pki"
	"lpad/apdu/ber"
)

// sessionState is where the one RSP session of the card stands.
type sessionState int

const (
	idle          sessionState = iota // no challenge is outstanding
	challenged                        // after GetEUICCChallenge
	authenticated                     // after AuthenticateServer
	bound                             // after PrepareDownload
	loading                           // after InitialiseSecureChannel
)

var sessionStates = [...]string{"idle", "challenged", "authenticated", "bound", "loading"}

// session is volatile: a power cut ends it.
type session struct {
	state         sessionState
	challenge     []byte
	transactionID []byte
	address       string // of the server, as it signed it
	identity      Identity
	server        *pki.Certificate // CERT.DPauth or CERT.DSauth
	oid           []byte           // of the server, contents of an OBJECT IDENTIFIER
	signature1    []byte           // euiccSignature1 with its 5F37
	binding       *pki.Certificate // CERT.DPpb
	key           OneTimeKey
	load          *load
}

// Result codes of AuthenticateServer (SGP.22 v2.5, section 5.7.13) and
// PrepareDownload (5.7.5), which share the first four.
const (
	invalidCertificate    = 1
	invalidSignature      = 2
	unsupportedCurve      = 3
	noSessionContext      = 4
	invalidTransactionID  = 5 // PrepareDownload, CancelSession
	euiccChallengeInvalid = 6 // AuthenticateServer: euiccChallengeMismatch
	ciPKUnknown           = 7 // AuthenticateServer
)

const (
	challengeLength  = 16
	maxTransactionID = 16
	signatureLength  = 64
	hashLength       = 32
	maxOneTimeKeys   = 4 // of interrupted downloads that the card remembers
	maxMatchingID    = 255
)

// endSession forgets the session. A package that was being loaded is rolled
// back: nothing of it was stored but the mark that says so.
func (c *Card) endSession() {
	c.session = session{}
	c.streaming = false
	if c.mem.Loading != nil {
		c.mem.Loading = nil
		c.commit()
	}
}

// getEUICCChallenge is SGP.22 v2.5, section 5.7.7. It ends an older session.
func (c *Card) getEUICCChallenge(t ber.TLV) ([]byte, uint16) {
	if len(t.Value) != 0 {
		return nil, swWrongData
	}
	challenge := make([]byte, challengeLength)
	if _, err := io.ReadFull(c.config.Random, challenge); err != nil {
		return nil, swConditions
	}
	c.endSession()
	c.session = session{state: challenged, challenge: challenge}
	return ber.Encode(t.Tag, ber.Encode(0x80, challenge)), swOK
}

// authenticateServer is SGP.22 v2.5, section 5.7.13.
func (c *Card) authenticateServer(t ber.TLV) ([]byte, uint16) {
	r := t.Reader()
	signed1, signature1, ci := r.Read(0x30), r.Read(0x5F37), r.Read(0x04)
	certificate, context := r.Read(0x30), r.Read(0xA0)
	request, err := parseServerSigned1(signed1)
	if r.Err() != nil || err != nil || len(signature1.Value) != signatureLength || !c.contextFits(context) {
		return nil, swWrongData
	}
	code := c.checkServer(request, signed1, signature1, ci, certificate)
	if code != 0 {
		c.endSession()
		return refusal(t.Tag, request.transactionID, code), swOK
	}
	s := &c.session
	s.state, s.transactionID, s.address = authenticated, request.transactionID, string(request.address)
	signed := ber.Encode(0x30,
		ber.Encode(0x80, s.transactionID),
		ber.Encode(0x83, request.address),
		ber.Encode(0x84, request.challenge),
		c.info2(),
		context.Raw)
	s.signature1 = ber.Encode(0x5F37, s.identity.EUICC.Key.Sign(signed))
	return ber.Encode(t.Tag, ber.Encode(0xA0, signed, s.signature1, s.identity.EUICC.Certificate.DER, s.identity.EUM.DER)), swOK
}

// serverSigned1 is what a server has signed first. Its slices are copies.
type serverSigned1 struct {
	transactionID, euiccChallenge, address, challenge []byte
}

func parseServerSigned1(t ber.TLV) (s serverSigned1, err error) {
	r := t.Reader()
	fields := [...]struct {
		tag      ber.Tag
		min, max int
		into     *[]byte
	}{
		{0x80, 1, maxTransactionID, &s.transactionID},
		{0x81, challengeLength, challengeLength, &s.euiccChallenge},
		{0x83, 1, maxAddress, &s.address},
		{0x84, challengeLength, challengeLength, &s.challenge},
	}
	for _, f := range fields {
		b, err := r.Read(f.tag).Octets(f.min, f.max)
		if err != nil {
			return s, err
		}
		*f.into = bytes.Clone(b)
	}
	return s, nil // v3 adds fields after these
}

// checkServer makes the checks of SGP.22 v2.5, section 5.7.13, and gives the
// error code, 0 for none. What it finds out goes into the session.
func (c *Card) checkServer(request serverSigned1, signed1, signature1, ci, certificate ber.TLV) int {
	s := &c.session
	if s.state != challenged {
		return noSessionContext
	}
	known := false
	for _, i := range c.config.Identities {
		if bytes.Equal(i.CI(), ci.Value) {
			s.identity, known = i, true
			break
		}
	}
	if !known {
		return ciPKUnknown
	}
	server, code := c.verifyServer(certificate, pki.DPAuth, pki.DSAuth)
	if code != 0 {
		return code
	}
	s.server, s.oid = server, encodeOID(server.RegisteredID)
	switch {
	case !pki.Verify(server.Curve, server.PublicKey, signed1.Raw, signature1.Value):
		return invalidSignature
	case subtle.ConstantTimeCompare(request.euiccChallenge, s.challenge) != 1:
		return euiccChallengeInvalid
	}
	return 0
}

// verifyServer checks a server certificate for one of the roles and gives the
// error code, 0 for none.
func (c *Card) verifyServer(t ber.TLV, roles ...pki.Role) (*pki.Certificate, int) {
	server, err := pki.ParseCertificate(bytes.Clone(t.Raw))
	if err != nil {
		return nil, invalidCertificate
	}
	var trusted []*pki.Certificate
	for _, a := range c.config.Trusted {
		trusted = append(trusted, &pki.Certificate{SKI: a.SKI, Curve: a.Curve, PublicKey: a.PublicKey})
	}
	var ci *pki.Certificate
	for _, role := range roles {
		if ci, err = pki.VerifyServer(server, trusted, role, time.Time{}); err == nil {
			break
		}
		var refused *pki.Error
		if !errors.As(err, &refused) || refused.Reason != pki.WrongRole {
			break
		}
	}
	switch {
	case err != nil || c.revoked(ci.SKI, server.Serial):
		return nil, invalidCertificate
	case server.Curve != ci.Curve: // one curve per chain, SGP.22 v2.5, section 2.6.7
		return nil, unsupportedCurve
	}
	return server, 0
}

// contextFits says whether ctxParams1 is what the card can read (SGP.22 v2.5,
// section 5.7.13; deviceInfo in section 4.2).
func (c *Card) contextFits(t ber.TLV) bool {
	r := t.Reader()
	if id, ok := r.Optional(0x80); ok && len(id.Value) > maxMatchingID {
		return false
	}
	device := r.Read(0xA1).Reader()
	tac, capabilities := device.Read(0x80), device.Read(0xA1)
	imei, hasIMEI := device.Optional(0x82)
	if r.Err() != nil || device.Err() != nil || len(tac.Value) != 4 || hasIMEI && len(imei.Value) != 8 {
		return false
	}
	extensible := c.can(capDeviceInfoExtensibility) || c.config.Quirks.LooseDeviceInfo
	list := capabilities.Reader()
	for e, ok := list.Next(); ok; e, ok = list.Next() {
		if e.Tag > 0x87 && !extensible || e.Tag <= 0x8A && len(e.Value) != 3 {
			return false
		}
	}
	return list.Err() == nil
}

// refusal is the second alternative of the answers of AuthenticateServer and
// PrepareDownload: its code has the universal tag 02, for the module tags
// automatically only where no tag is written.
func refusal(function ber.Tag, transactionID []byte, code int) []byte {
	return ber.Encode(function, ber.Encode(0xA1, ber.Encode(0x80, transactionID), ber.EncodeInt(0x02, int64(code))))
}

// prepareDownload is SGP.22 v2.5, section 5.7.5.
func (c *Card) prepareDownload(t ber.TLV) ([]byte, uint16) {
	r := t.Reader()
	signed2, signature2 := r.Read(0x30), r.Read(0x5F37)
	hashCc, hasHash := r.Optional(0x04)
	certificate := r.Read(0x30)
	in := signed2.Reader()
	transactionID, err1 := in.Read(0x80).Octets(1, maxTransactionID)
	ccRequired, err2 := in.Read(0x01).Bool()
	earlier, _ := in.Optional(0x5F49)
	if r.Err() != nil || in.Err() != nil || errors.Join(err1, err2) != nil ||
		len(signature2.Value) != signatureLength || hasHash && len(hashCc.Value) != hashLength {
		return nil, swWrongData
	}
	s := &c.session
	if code := c.checkBinding(transactionID, signed2, signature2, certificate); code != 0 {
		return refusal(t.Tag, transactionID, code), swOK
	}
	key, err := c.oneTimeKey(earlier.Value)
	if err != nil || ccRequired && !hasHash {
		return refusal(t.Tag, transactionID, undefinedError), swOK
	}
	parts := [][]byte{ber.Encode(0x80, s.transactionID), ber.Encode(0x5F49, key.Public())}
	if ccRequired {
		parts = append(parts, hashCc.Raw)
	}
	signed := ber.Encode(0x30, parts...)
	signature := s.identity.EUICC.Key.Sign(append(bytes.Clone(signed), signature2.Raw...))
	s.state, s.key = bound, key
	return ber.Encode(t.Tag, ber.Encode(0xA0, signed, ber.Encode(0x5F37, signature))), swOK
}

// checkBinding makes the checks of SGP.22 v2.5, section 5.7.5, and gives the
// error code, 0 for none.
func (c *Card) checkBinding(transactionID []byte, signed2, signature2, certificate ber.TLV) int {
	s := &c.session
	switch {
	case s.state != authenticated:
		return noSessionContext
	case !bytes.Equal(transactionID, s.transactionID):
		return invalidTransactionID
	}
	binding, code := c.verifyServer(certificate, pki.DPPb)
	switch {
	case code != 0:
		return code
	case !bytes.Equal(binding.AKI, s.server.AKI) || binding.RegisteredID != s.server.RegisteredID:
		return invalidCertificate
	case !pki.Verify(binding.Curve, binding.PublicKey, append(bytes.Clone(signed2.Raw), s.signature1...), signature2.Value):
		return invalidSignature
	}
	s.binding = binding
	return 0
}

// oneTimeKey gives the key of an earlier binding if the server names one that
// the card still has, and otherwise a new one, which it remembers.
func (c *Card) oneTimeKey(earlier []byte) (OneTimeKey, error) {
	for _, saved := range c.mem.OneTimeKeys {
		key, err := pki.NewKey(pki.Curve(saved.Curve), saved.Scalar)
		if err == nil && bytes.Equal(saved.OID, c.session.oid) && bytes.Equal(key.Public(), earlier) {
			return key, nil
		}
	}
	curve := c.session.identity.EUICC.Certificate.Curve
	if c.config.OneTimeKey != nil {
		return c.config.OneTimeKey(curve)
	}
	key, err := c.generate(curve)
	if err != nil {
		return nil, err
	}
	if !c.config.Quirks.ForgetsOneTimeKey {
		c.mem.OneTimeKeys = append(c.mem.OneTimeKeys, savedKey{OID: c.session.oid, Curve: int(curve), Scalar: key.Scalar()})
		if n := len(c.mem.OneTimeKeys); n > maxOneTimeKeys {
			c.mem.OneTimeKeys = slices.Clone(c.mem.OneTimeKeys[n-maxOneTimeKeys:])
		}
		c.commit()
	}
	return key, nil
}

// generate makes a key pair from the card's own randomness.
func (c *Card) generate(curve pki.Curve) (key *pki.Key, err error) {
	scalar := make([]byte, 32)
	for range 64 { // each try fails with probability below one half
		if _, err := io.ReadFull(c.config.Random, scalar); err != nil {
			return nil, err
		}
		if key, err = pki.NewKey(curve, scalar); err == nil {
			return key, nil
		}
	}
	return nil, err
}

// forgetOneTimeKey drops the key of a download that has come to its end.
func (c *Card) forgetOneTimeKey() {
	key, ok := c.session.key.(*pki.Key)
	if !ok {
		return
	}
	c.mem.OneTimeKeys = slices.DeleteFunc(c.mem.OneTimeKeys, func(s savedKey) bool { return bytes.Equal(s.Scalar, key.Scalar()) })
}

// endUserRejection is the CancelSession reason after which the order is dead,
// and the one-time key with it.
const endUserRejection = 0

// cancelSession is SGP.22 v2.5, section 5.7.14. It also ends a package that is
// being loaded.
func (c *Card) cancelSession(t ber.TLV) ([]byte, uint16) {
	r := t.Reader()
	transactionID := r.Read(0x80)
	reason, err := r.Read(0x81).Int()
	if err != nil || r.Finish() != nil {
		return nil, swWrongData
	}
	s := &c.session
	if s.state < authenticated || !bytes.Equal(transactionID.Value, s.transactionID) {
		return choice1(t.Tag, invalidTransactionID), swOK
	}
	signed := ber.Encode(0x30, ber.Encode(0x80, s.transactionID), ber.Encode(0x81, s.oid), ber.EncodeInt(0x82, reason))
	signature := ber.Encode(0x5F37, s.identity.EUICC.Key.Sign(signed))
	if reason == endUserRejection {
		c.forgetOneTimeKey()
		c.commit()
	}
	c.endSession()
	return ber.Encode(t.Tag, ber.Encode(0xA0, signed, signature)), swOK
}

// encodeOID gives the contents of an OBJECT IDENTIFIER; nil for text that is
// none.
func encodeOID(dotted string) []byte {
	var oid asn1.ObjectIdentifier
	for _, arc := range strings.Split(dotted, ".") {
		n, err := strconv.Atoi(arc)
		if err != nil {
			return nil
		}
		oid = append(oid, n)
	}
	der, err := asn1.Marshal(oid)
	if err != nil {
		return nil
	}
	return der[2:] // far below 128 bytes
}
