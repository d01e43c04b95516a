package smdp

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"

	"lpad/agent/rsp"
	"lpad/agent/rsp/rsptest/pki"
	"lpad/apdu/ber"
)

// authenticated is what an AuthenticateServerResponse says (SGP.22 v2.5,
// section 5.7.13).
type authenticated struct {
	signed1         []byte // 30 TLV, as received
	signature1      []byte // 5F37 TLV, as received
	signature       []byte
	euicc, eum      *pki.Certificate
	transactionID   rsp.TransactionID
	address         string
	serverChallenge []byte
	info2           ber.TLV
	matchingID      string
	tac, imei       string // of the device; imei is empty when it was not told
}

// refusal is an eUICC's answer that is an error code.
type refusal struct{ code int64 }

func (e *refusal) Error() string { return fmt.Sprintf("the eUICC answered with error %d", e.code) }

// success opens the CHOICE of an eUICC's answer: A0 with the good one, or A1 with
// transactionId and code.
func success(tag ber.Tag, b []byte) (*ber.Reader, error) {
	t, err := ber.Parse(b)
	if err != nil {
		return nil, err
	}
	if t.Tag != tag {
		return nil, fmt.Errorf("tag %s instead of %s", t.Tag, tag)
	}
	r := t.Reader()
	if failed, ok := r.Optional(0xA1); ok {
		inner := failed.Reader()
		inner.Read(0x80)
		code, _ := inner.Next()
		n, err := code.Int()
		if err := errors.Join(inner.Err(), err); err != nil {
			return nil, err
		}
		return nil, &refusal{n}
	}
	good := r.Read(0xA0)
	if err := r.Finish(); err != nil {
		return nil, err
	}
	return good.Reader(), nil
}

// answered is the status for an eUICC's answer that is of no use.
func answered(name string, err error) *Status {
	var e *refusal
	if errors.As(err, &e) {
		return refuse("8.1", "4.2", e.Error())
	}
	return refuse("1.6", "2.1", name+": "+err.Error())
}

func parseAuthenticated(b []byte) (*authenticated, error) {
	r, err := success(0xBF38, b)
	if err != nil {
		return nil, err
	}
	signed1, sig, euicc, eum := r.Read(0x30), r.Read(0x5F37), r.Read(0x30), r.Read(0x30)
	if err := r.Err(); err != nil { // v3 adds more at the end
		return nil, err
	}
	a := &authenticated{signed1: signed1.Raw, signature1: sig.Raw, signature: sig.Value}
	if a.euicc, err = pki.ParseCertificate(euicc.Raw); err != nil {
		return nil, fmt.Errorf("eUICC: %w", err)
	}
	if a.eum, err = pki.ParseCertificate(eum.Raw); err != nil {
		return nil, fmt.Errorf("EUM: %w", err)
	}
	inner := signed1.Reader()
	a.transactionID = inner.Read(0x80).Value
	a.address = string(inner.Read(0x83).Value)
	a.serverChallenge = inner.Read(0x84).Value
	a.info2 = inner.Read(0xBF22)
	context := inner.Read(0xA0).Reader()
	if id, ok := context.Optional(0x80); ok {
		a.matchingID = string(id.Value)
	}
	device := context.Read(0xA1).Reader()
	tac := device.Read(0x80)
	device.Read(0xA1) // deviceCapabilities, mandatory even when empty
	if err := errors.Join(inner.Err(), context.Err(), device.Err()); err != nil {
		return nil, fmt.Errorf("euiccSigned1: %w", err)
	}
	if len(tac.Value) != 4 {
		return nil, fmt.Errorf("euiccSigned1: TAC of %d bytes", len(tac.Value))
	}
	a.tac = swappedDigits(tac.Value)
	if imei, ok := device.Optional(0x82); ok {
		a.imei = strings.ReplaceAll(swappedDigits(imei.Value), "f", "") // beside the last digit
	}
	return a, nil
}

func swappedDigits(b []byte) string {
	swapped := make([]byte, len(b))
	for i, x := range b {
		swapped[i] = x<<4 | x>>4
	}
	return hex.EncodeToString(swapped)
}

// SGP.22 v2.5, section 5.6.3 (ES9+.AuthenticateClient) and section 5.8.2
// (ES11.AuthenticateClient). A refusal ends the session.
func (s *Server) authenticateClient(c *call) (reply, *Status) {
	session, status := s.transaction(c)
	if status != nil {
		return nil, status
	}
	answer, status := s.authenticateIn(session, c)
	if status != nil {
		delete(s.sessions, string(session.id))
	}
	return answer, status
}

func (s *Server) authenticateIn(session *session, c *call) (reply, *Status) {
	if session.authenticated {
		return nil, refuse("8.10.1", "3.9", "the session is past authentication")
	}
	raw, status := member("authenticateServerResponse", c.request.AuthenticateServerResponse)
	if status != nil {
		return nil, status
	}
	a, err := parseAuthenticated(raw)
	if err != nil {
		return nil, answered("authenticateServerResponse", err)
	}
	if session.eid, status = s.trust(session, a); status != nil {
		return nil, status
	}
	session.euicc, session.euiccSignature1 = a.euicc, a.signature1
	if s.config.SMDS {
		return s.eventEntries(session, a)
	}
	order, status := s.find(a.matchingID, session.eid)
	if status != nil {
		return nil, status
	}
	if status := s.suits(order, a); status != nil {
		return nil, status
	}
	session.order, session.authenticated = order, true
	order.tac, order.imei = a.tac, a.imei
	s.expect(session)
	return s.offer(session, c.fault), nil
}

// trust verifies certificates, signature and challenge.
func (s *Server) trust(session *session, a *authenticated) (rsp.EID, *Status) {
	if len(a.eum.AKI) == 0 { // names no CI: it is no EUM certificate, rather than one of a stranger
		return rsp.EID{}, refuse("8.1.2", "6.1", "the EUM certificate names no CI")
	}
	eid, err := pki.VerifyEUICC(a.eum, a.euicc, s.config.CIs, s.config.Now())
	if err != nil {
		return eid, untrusted(err)
	}
	switch {
	case !bytes.Equal(a.eum.AKI, session.ciPKID):
		return eid, refuse("8.11.1", "3.9", "not the CI that was asked for")
	case !pki.Verify(a.euicc.Curve, a.euicc.PublicKey, a.signed1, a.signature):
		return eid, refuse("8.1", "6.1", "euiccSignature1")
	case !bytes.Equal(a.serverChallenge, session.serverChallenge):
		return eid, refuse("8.1", "6.1", "serverChallenge")
	case !a.transactionID.Equal(session.id):
		return eid, refuse("8.10.1", "3.9", "transactionId in euiccSigned1")
	case a.address != session.address:
		return eid, refuse("8.1", "6.1", "serverAddress in euiccSigned1")
	}
	return eid, nil
}

// untrusted maps a refused chain to a status.
func untrusted(err error) *Status {
	var e *pki.Error
	if !errors.As(err, &e) {
		return internal(err)
	}
	subject, reason := "8.1.3", "6.1"
	if e.Role == pki.RoleEUM {
		subject = "8.1.2"
	}
	switch e.Reason {
	case pki.UnknownCI:
		return refuse("8.11.1", "3.9", e.Error())
	case pki.NotPermitted:
		subject = "8.1.4"
	case pki.NotValidNow:
		reason = "6.3"
	}
	return refuse(subject, reason, e.Error())
}

// suits looks at the device and the free memory.
func (s *Server) suits(o *order, a *authenticated) *Status {
	if len(o.TACs) > 0 && !slices.Contains(o.TACs, a.tac) {
		return refuse("8.2.5", "4.3", "no profile for this device")
	}
	if !s.config.CheckMemory {
		return nil
	}
	resources, ok := a.info2.Reader().Find(0x84)
	if !ok {
		return nil
	}
	counters := ber.NewReader(resources.Value)
	free, ok := counters.Find(0x82)
	if !ok || len(free.Value) > 7 {
		return nil
	}
	n := 0
	for _, octet := range free.Value {
		n = n<<8 | int(octet)
	}
	if n < len(o.UPP) {
		return refuse("8.1", "4.8", "not enough memory for the profile")
	}
	return nil
}

// expect remembers who will sign the installation result.
func (s *Server) expect(session *session) {
	if len(s.eUICCs) >= maxLog {
		clear(s.eUICCs) // their results will be written down as not verified
	}
	for _, key := range []string{"t" + string(session.id), "i" + string(session.order.Metadata.ICCID[:])} {
		s.eUICCs[key] = &eUICC{session.eid, session.euicc, session.order}
	}
}

// offer is the answer of an SM-DP+: metadata and smdpSigned2.
func (s *Server) offer(session *session, f Fault) reply {
	pb, id := session.credential.Pb, session.id
	switch f.Kind {
	case OtherSignedID:
		id = flip(id)
	case OtherIdentity:
		pb = f.Identity
	}
	order := session.order
	signed := [][]byte{ber.Encode(0x80, id), ber.EncodeBool(0x01, order.codeHash != nil)}
	if order.bound != nil {
		signed = append(signed, ber.Encode(0x5F49, order.bound.otPK)) // bppEuiccOtpk: please use it again
	}
	signed2 := ber.Encode(0x30, signed...)
	session.smdpSignature2 = signature(pb.Key, f, signed2, session.euiccSignature1)
	return reply{
		"transactionId":   session.id,
		"profileMetadata": order.Metadata.Marshal(),
		"smdpSigned2":     signed2,
		"smdpSignature2":  session.smdpSignature2,
		"smdpCertificate": pb.Certificate.DER,
	}
}

// eventEntries is the answer of an SM-DS: the events of this eUICC, one of them
// when the LPA asked for one (a cascade).
func (s *Server) eventEntries(session *session, a *authenticated) (reply, *Status) {
	entries := []map[string]string{}
	for _, e := range s.events {
		if e.EID == session.eid && (a.matchingID == "" || a.matchingID == e.ID) {
			entries = append(entries, map[string]string{"eventId": e.ID, "rspServerAddress": e.Address})
		}
	}
	if len(entries) == 0 {
		return nil, refuse("8.9.5", "3.9", "no event for this eUICC")
	}
	delete(s.sessions, string(session.id)) // nothing follows at an SM-DS
	return reply{"transactionId": session.id, "eventEntries": entries}, nil
}
