package smdp

import (
	"bytes"
	"errors"
	"fmt"

	"lpad/agent/rsp"
	"lpad/agent/rsp/rsptest/bsp"
	"lpad/agent/rsp/rsptest/pki"
	"lpad/apdu/ber"
)

// prepared is what a PrepareDownloadResponse says (SGP.22 v2.5, section 5.7.5).
type prepared struct {
	signed2       []byte // 30 TLV, as received
	signature     []byte
	transactionID rsp.TransactionID
	otPK          []byte
	hashCc        []byte // nil when absent
}

func parsePrepared(b []byte) (*prepared, error) {
	r, err := success(0xBF21, b)
	if err != nil {
		return nil, err
	}
	signed2, sig := r.Read(0x30), r.Read(0x5F37)
	inner := signed2.Reader()
	p := &prepared{signed2: signed2.Raw, signature: sig.Value}
	p.transactionID = inner.Read(0x80).Value
	p.otPK = inner.Read(0x5F49).Value
	if hash, ok := inner.Optional(0x04); ok {
		p.hashCc = hash.Value
	}
	return p, errors.Join(r.Finish(), inner.Err())
}

// SGP.22 v2.5, section 5.6.2 (ES9+.GetBoundProfilePackage). A refusal ends the
// session; the order lives on, unless the refusal says otherwise.
func (s *Server) getBoundProfilePackage(c *call) (reply, *Status) {
	session, status := s.transaction(c)
	if status != nil {
		return nil, status
	}
	answer, status := s.bind(session, c)
	if status != nil {
		delete(s.sessions, string(session.id))
	}
	return answer, status
}

func (s *Server) bind(session *session, c *call) (reply, *Status) {
	if !session.authenticated || session.delivered {
		return nil, refuse("8.10.1", "3.9", "the session is in another state")
	}
	raw, status := member("prepareDownloadResponse", c.request.PrepareDownloadResponse)
	if status != nil {
		return nil, status
	}
	p, err := parsePrepared(raw)
	if err != nil {
		return nil, answered("prepareDownloadResponse", err)
	}
	if !pki.Verify(session.euicc.Curve, session.euicc.PublicKey, append(bytes.Clone(p.signed2), session.smdpSignature2...), p.signature) {
		return nil, refuse("8.1", "6.1", "euiccSignature2")
	}
	if !p.transactionID.Equal(session.id) {
		return nil, refuse("8.10.1", "3.9", "transactionId in euiccSigned2")
	}
	order := session.order
	if status := s.eligible(order, session.eid); status != nil {
		return nil, status // another session may have changed it
	}
	if status := order.checkCode(p.hashCc, session.id); status != nil {
		return nil, status
	}
	if order.bound == nil || !bytes.Equal(order.bound.otPK, p.otPK) {
		if order.bound != nil && order.RefuseRebind {
			return nil, refuse("8.2", "3.7", "the package is bound to another one-time key")
		}
		if order.bound, err = s.newBinding(session, p.otPK); err != nil {
			return nil, refuse("8.1", "6.1", err.Error())
		}
	}
	pack, err := boundPackage(session, c.fault)
	if err != nil {
		return nil, internal(err)
	}
	order.downloads++
	order.state = Downloaded
	session.delivered = true
	return reply{"transactionId": session.id, "boundProfilePackage": pack}, nil
}

// newBinding draws the server's half of the key agreement.
func (s *Server) newBinding(session *session, otPK []byte) (*binding, error) {
	key, err := s.config.OneTimeKey(session.credential.Pb.Key.Curve())
	if err != nil {
		return nil, err
	}
	if _, err := key.ECDH(otPK); err != nil {
		return nil, fmt.Errorf("one-time key of the eUICC: %w", err)
	}
	b := &binding{eid: session.eid, otPK: bytes.Clone(otPK), key: key, hostID: s.config.HostID}
	if session.order.ProfileKeys {
		random, err := s.random(48)
		if err != nil {
			return nil, err
		}
		b.ppk = new(bsp.Keys)
		copy(b.ppk.MCV[:], random)
		copy(b.ppk.ENC[:], random[16:])
		copy(b.ppk.MAC[:], random[32:])
	}
	return b, nil
}

// SGP.22 v2.5, section 5.6.5 (ES9+.CancelSession).
func (s *Server) cancelSession(c *call) (reply, *Status) {
	session, status := s.transaction(c)
	if status != nil {
		return nil, status
	}
	if !session.authenticated {
		return nil, refuse("8.10.1", "3.9", "the eUICC is not authenticated")
	}
	raw, status := member("cancelSessionResponse", c.request.CancelSessionResponse)
	if status != nil {
		return nil, status
	}
	reason, status := s.checkCancel(session, raw)
	if status != nil {
		return nil, status
	}
	c.record.Detail = reason.String()
	if order := session.order; !reason.KeepsOrder() && order.open() {
		order.state = Cancelled
	}
	delete(s.sessions, string(session.id))
	return reply{}, nil
}

// checkCancel reads a CancelSessionResponse (SGP.22 v2.5, section 5.7.14).
func (s *Server) checkCancel(session *session, b []byte) (rsp.CancelReason, *Status) {
	t, err := ber.Parse(b)
	if err != nil || t.Tag != 0xBF41 {
		return 0, refuse("1.6", "2.1", "cancelSessionResponse")
	}
	r := t.Reader().Read(0xA0).Reader()
	signed, sig := r.Read(0x30), r.Read(0x5F37)
	inner := signed.Reader()
	id, oid := rsp.TransactionID(inner.Read(0x80).Value), inner.Read(0x81).Value
	reason, err := inner.Read(0x82).Int()
	if err := errors.Join(r.Finish(), inner.Err(), err); err != nil {
		return 0, refuse("1.6", "2.1", "cancelSessionResponse: "+err.Error())
	}
	own, err := pki.OIDValue(session.credential.Auth.Certificate.RegisteredID)
	if err != nil {
		return 0, internal(err)
	}
	switch {
	case !pki.Verify(session.euicc.Curve, session.euicc.PublicKey, signed.Raw, sig.Value):
		return 0, refuse("8.1", "6.1", "euiccCancelSessionSignature")
	case !bytes.Equal(oid, own):
		return 0, refuse("8.8", "3.10", "OID of another SM-DP+")
	case !id.Equal(session.id):
		return 0, refuse("8.10.1", "3.9", "transactionId in euiccCancelSessionSigned")
	}
	return rsp.CancelReason(reason), nil
}
