package smdp

import (
	"bytes"
	"fmt"
	"strings"
	"time"

	"lpad/agent/rsp"
	"lpad/agent/rsp/rsptest/pki"
	"lpad/apdu/ber"
)

// session is an RSP session (SGP.22 v2.5, section 3.1.2). Under the server's
// lock.
type session struct {
	id              rsp.TransactionID
	started         time.Time
	serverChallenge []byte
	address         string // as the client spelled it: serverAddress
	ciPKID          []byte // of the CI that the eUICC shall use
	credential      Credential
	authenticated   bool // authenticateClient went well
	delivered       bool // a package was handed out

	eid             rsp.EID
	euicc           *pki.Certificate
	order           *order // nil at an SM-DS
	euiccSignature1 []byte // 5F37 TLV, as received
	smdpSignature2  []byte // 5F37 TLV, as sent
}

// transaction finds the session of a request. An expired one is gone.
func (s *Server) transaction(c *call) (*session, *Status) {
	unknown := refuse("8.10.1", "3.9", "unknown transactionId")
	id, err := rsp.ParseTransactionID(c.request.TransactionID)
	if err != nil {
		return nil, unknown
	}
	c.record.TransactionID = id
	session, ok := s.sessions[string(id)]
	if !ok {
		return nil, unknown
	}
	if s.config.Now().Sub(session.started) > s.config.SessionTimeout {
		delete(s.sessions, string(id))
		return nil, unknown
	}
	return session, nil
}

// remember keeps a session, at the cost of the oldest when there are too many.
func (s *Server) remember(session *session) {
	if len(s.sessions) >= maxSessions {
		var oldest string
		for id, other := range s.sessions {
			if oldest == "" || other.started.Before(s.sessions[oldest].started) {
				oldest = id
			}
		}
		delete(s.sessions, oldest)
	}
	s.sessions[string(session.id)] = session
}

// subject is a status subject of the server itself: 8.8 for an SM-DP+, 8.9 for
// an SM-DS.
func (s *Server) subject(code string) string {
	if s.config.SMDS {
		return strings.Replace(code, "8.8", "8.9", 1)
	}
	return code
}

// SGP.22 v2.5, section 5.6.1 (ES9+.InitiateAuthentication) and section 5.8.1
// (ES11.InitiateAuthentication).
func (s *Server) initiateAuthentication(c *call) (reply, *Status) {
	challenge, status := member("euiccChallenge", c.request.EUICCChallenge)
	if status != nil {
		return nil, status
	}
	if len(challenge) != 16 {
		return nil, refuse("1.6", "2.1", "euiccChallenge must be 16 bytes without a tag")
	}
	raw, status := member("euiccInfo1", c.request.EUICCInfo1)
	if status != nil {
		return nil, status
	}
	info, err := rsp.ParseEUICCInfo1(raw)
	if err != nil {
		return nil, refuse("1.6", "2.1", "euiccInfo1: "+err.Error())
	}
	if !s.ownAddress(c.request.SMDPAddress) {
		return nil, refuse(s.subject("8.8.1"), "3.8", "smdpAddress is not ours")
	}
	if info.SVN.Compare(s.config.MinSVN) < 0 || info.SVN[0] > specification {
		return nil, refuse(s.subject("8.8.3"), "3.1", "SVN "+info.SVN.String()+" is not supported")
	}
	session, status := s.choose(info)
	if status != nil {
		return nil, status
	}
	session.started = s.config.Now()
	session.address = c.request.SMDPAddress
	if err := s.draw(session); err != nil {
		return nil, internal(err)
	}
	c.record.TransactionID = session.id
	s.remember(session)
	return s.serverSigned1(session, challenge, c.fault), nil
}

// specification is the major version of SGP.22 that is spoken here. The SVN of
// an eUICC of a later one is the lowest that it speaks.
const specification = 2

// choose picks the certificates: the eUICC's own must chain to a CI that we
// know, ours to a CI that it verifies with; both in its order of preference
// (SGP.22 v2.5, section 5.6.1; the order of the two as SGP.23 has it).
func (s *Server) choose(info rsp.EUICCInfo1) (*session, *Status) {
	if s.config.AssumeCI && len(info.Verification) == 0 && len(info.Signing) == 0 {
		first := s.config.Credentials[0]
		return &session{credential: first, ciPKID: first.Auth.Certificate.AKI}, nil
	}
	var chosen session
	for _, ski := range info.Signing {
		for _, ci := range s.config.CIs {
			if chosen.ciPKID == nil && bytes.Equal(ci.SKI, ski) {
				chosen.ciPKID = ci.SKI
			}
		}
	}
	if chosen.ciPKID == nil {
		return nil, refuse(s.subject("8.8.2"), "3.1", "none of the CIs that the eUICC signs under is known")
	}
	for _, ski := range info.Verification {
		for _, credential := range s.config.Credentials {
			if chosen.credential.Auth == nil && bytes.Equal(credential.Auth.Certificate.AKI, ski) {
				chosen.credential = credential
			}
		}
	}
	if chosen.credential.Auth == nil {
		return nil, refuse(s.subject("8.8.4"), "3.7", "no certificate under a CI that the eUICC verifies with")
	}
	return &chosen, nil
}

// draw fills in the random values.
func (s *Server) draw(session *session) error {
	if s.config.TransactionID != nil {
		session.id = s.config.TransactionID()
	}
	for range 100 { // with an id of one byte the free ones may take some tries
		if session.id != nil {
			break
		}
		id, err := s.random(s.config.TransactionIDLength)
		if err != nil {
			return err
		}
		if _, used := s.sessions[string(id)]; !used {
			session.id = id
		}
	}
	if session.id == nil {
		return fmt.Errorf("no free transactionId of %d bytes", s.config.TransactionIDLength)
	}
	if s.config.ServerChallenge != nil {
		challenge := s.config.ServerChallenge()
		session.serverChallenge = challenge[:]
		return nil
	}
	var err error
	session.serverChallenge, err = s.random(16)
	return err
}

func (s *Server) serverSigned1(session *session, challenge []byte, f Fault) reply {
	auth, id, address, ci := session.credential.Auth, session.id, session.address, session.ciPKID
	switch f.Kind {
	case OtherChallenge:
		challenge = flip(challenge)
	case OtherSignedID:
		id = flip(id)
	case OtherAddress:
		address = "other." + address
	case OtherCI:
		ci = flip(ci)
	case OtherIdentity:
		auth = f.Identity
	}
	signed := ber.Encode(0x30,
		ber.Encode(0x80, id), ber.Encode(0x81, challenge),
		ber.EncodeString(0x83, address), ber.Encode(0x84, session.serverChallenge))
	return reply{
		"transactionId":       session.id,
		"serverSigned1":       signed,
		"serverSignature1":    signature(auth.Key, f, signed),
		"euiccCiPKIdToBeUsed": ber.Encode(0x04, ci),
		"serverCertificate":   auth.Certificate.DER,
	}
}

// signature is a 5F37 over the concatenation of the parts.
func signature(key *pki.Key, f Fault, parts ...[]byte) []byte {
	sig := key.Sign(bytes.Join(parts, nil))
	if f.Kind == FlipSignature {
		sig = flip(sig)
	}
	return ber.Encode(0x5F37, sig)
}
