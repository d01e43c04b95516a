package es9p

import (
	"bytes"
	"context"
	"errors"
	"fmt"

	"lpad/agent/rsp"
)

const challengeLength = 16 // bytes of euiccChallenge

func (s *Session) function(name string) function {
	return function{name, s.client.Timeouts.Other, s.client.Limits.Other}
}

// InitiateAuthentication gives the server a challenge of the eUICC (16 raw
// bytes) and its EUICCInfo1 (BF20), and returns what the server proves itself
// with (SGP.22 v2.5, section 5.6.1, and 5.8.1 for an SM-DS). Nothing of it has
// been checked but its form. It may be repeated, with a fresh challenge.
func (s *Session) InitiateAuthentication(ctx context.Context, challenge, euiccInfo1 []byte) (rsp.ServerAuthentication, error) {
	f := s.function("initiateAuthentication")
	var none rsp.ServerAuthentication
	if len(challenge) != challengeLength {
		return none, fmt.Errorf("%s: euiccChallenge of %d bytes, want %d", f.name, len(challenge), challengeLength)
	}
	if err := outgoing(f, "euiccInfo1", euiccInfo1, 0xBF, 0x20); err != nil {
		return none, err
	}
	a, err := s.post(ctx, f, struct {
		EUICCChallenge []byte `json:"euiccChallenge"`
		EUICCInfo1     []byte `json:"euiccInfo1"`
		SMDPAddress    string `json:"smdpAddress"`
	}{challenge, euiccInfo1, s.address})
	if err != nil {
		return none, err
	}
	auth, spelled, err := decodeInitiateAuthentication(f.name, a.body)
	if err != nil {
		return none, err
	}
	s.transactionID = spelled
	return auth, nil
}

func decodeInitiateAuthentication(name string, body []byte) (auth rsp.ServerAuthentication, spelled string, err error) {
	var w struct {
		envelope
		TransactionID     string `json:"transactionId"`
		ServerSigned1     octets `json:"serverSigned1"`
		ServerSignature1  octets `json:"serverSignature1"`
		CIPKID            octets `json:"euiccCiPKIdToBeUsed"`
		ServerCertificate octets `json:"serverCertificate"`
	}
	if err := decode(name, body, &w); err != nil {
		return auth, "", err
	}
	r := reader{name: name}
	auth = rsp.ServerAuthentication{
		TransactionID:     r.transactionID(w.TransactionID),
		ServerSigned1:     r.tlv(w.ServerSigned1, "serverSigned1", 0x30),
		ServerSignature1:  r.tlv(w.ServerSignature1, "serverSignature1", 0x5F, 0x37),
		CIPKID:            r.tlv(w.CIPKID, "euiccCiPKIdToBeUsed", 0x04),
		ServerCertificate: r.tlv(w.ServerCertificate, "serverCertificate", 0x30),
	}
	if r.err != nil {
		return rsp.ServerAuthentication{}, "", r.err
	}
	return auth, w.TransactionID, nil
}

// AuthenticateClient gives the server the eUICC's AuthenticateServerResponse
// (BF38) and returns the offer of an SM-DP+ (SGP.22 v2.5, section 5.6.3) or the
// events of an SM-DS (section 5.8.2, see [ErrNoEvent]).
func (s *Session) AuthenticateClient(ctx context.Context, id rsp.TransactionID, response []byte) (rsp.ClientAuthenticated, error) {
	f := s.function("authenticateClient")
	var none rsp.ClientAuthenticated
	if err := outgoing(f, "authenticateServerResponse", response, 0xBF, 0x38); err != nil {
		return none, err
	}
	a, err := s.post(ctx, f, struct {
		TransactionID              string `json:"transactionId"`
		AuthenticateServerResponse []byte `json:"authenticateServerResponse"`
	}{s.spell(id), response})
	if err != nil {
		return none, err
	}
	return decodeAuthenticateClient(f.name, a.body, id)
}

func decodeAuthenticateClient(name string, body []byte, id rsp.TransactionID) (rsp.ClientAuthenticated, error) {
	var w struct {
		envelope
		TransactionID   string       `json:"transactionId"`
		ProfileMetadata octets       `json:"profileMetadata"`
		SMDPSigned2     octets       `json:"smdpSigned2"`
		SMDPSignature2  octets       `json:"smdpSignature2"`
		SMDPCertificate octets       `json:"smdpCertificate"`
		EventEntries    eventEntries `json:"eventEntries"` // ES11
	}
	var none rsp.ClientAuthenticated
	if err := decode(name, body, &w); err != nil {
		return none, err
	}
	r := reader{name: name}
	got := r.transactionID(w.TransactionID)
	r.same(got, id)
	if w.EventEntries.set {
		if w.ProfileMetadata.set {
			r.fail("it holds both a profile and events")
		}
		events := r.events(w.EventEntries.list)
		if r.err != nil {
			return none, r.err
		}
		return rsp.ClientAuthenticated{Events: events}, nil
	}
	offer := &rsp.DownloadOffer{
		TransactionID:   got,
		ProfileMetadata: r.tlv(w.ProfileMetadata, "profileMetadata", 0xBF, 0x25),
		SMDPSigned2:     r.tlv(w.SMDPSigned2, "smdpSigned2", 0x30),
		SMDPSignature2:  r.tlv(w.SMDPSignature2, "smdpSignature2", 0x5F, 0x37),
		SMDPCertificate: r.tlv(w.SMDPCertificate, "smdpCertificate", 0x30),
	}
	if r.err != nil {
		return none, r.err
	}
	return rsp.ClientAuthenticated{Offer: offer}, nil
}

// GetBoundProfilePackage gives the server the eUICC's PrepareDownloadResponse
// (BF21) and returns the bound profile package (BF36) (SGP.22 v2.5, section
// 5.6.2).
func (s *Session) GetBoundProfilePackage(ctx context.Context, id rsp.TransactionID, prepareDownloadResponse []byte) ([]byte, error) {
	f := function{"getBoundProfilePackage", s.client.Timeouts.BoundProfilePackage, s.client.Limits.BoundProfilePackage}
	if err := outgoing(f, "prepareDownloadResponse", prepareDownloadResponse, 0xBF, 0x21); err != nil {
		return nil, err
	}
	a, err := s.post(ctx, f, struct {
		TransactionID           string `json:"transactionId"`
		PrepareDownloadResponse []byte `json:"prepareDownloadResponse"`
	}{s.spell(id), prepareDownloadResponse})
	if err != nil {
		return nil, err
	}
	return decodeBoundProfilePackage(f.name, a.body, id)
}

func decodeBoundProfilePackage(name string, body []byte, id rsp.TransactionID) ([]byte, error) {
	var w struct {
		envelope
		TransactionID       string `json:"transactionId"`
		BoundProfilePackage octets `json:"boundProfilePackage"`
	}
	if err := decode(name, body, &w); err != nil {
		return nil, err
	}
	r := reader{name: name}
	if w.TransactionID != "" { // the package says it once more, and is checked
		r.same(r.transactionID(w.TransactionID), id)
	}
	bpp := r.tlv(w.BoundProfilePackage, "boundProfilePackage", 0xBF, 0x36)
	if r.err != nil {
		return nil, r.err
	}
	return bpp, nil
}

// HandleNotification delivers a pending notification, the whole TLV (BF37 or
// 30) as the card gave it (SGP.22 v2.5, section 5.6.4). A nil error is the
// server's acknowledgement, and only then may the notification be removed
// from the card. It may be repeated with the same bytes; a server that
// refuses the repetition because it has the notification ("already known", see
// known) has acknowledged it.
func (s *Session) HandleNotification(ctx context.Context, pending []byte) error {
	f := s.function("handleNotification")
	if !bytes.HasPrefix(pending, []byte{0xBF, 0x37}) && !bytes.HasPrefix(pending, []byte{0x30}) {
		return fmt.Errorf("%s: pendingNotification is not a whole TLV BF37 or 30", f.name)
	}
	a, err := s.post(ctx, f, struct {
		PendingNotification []byte `json:"pendingNotification"`
	}{pending})
	if err == nil {
		err = decodeAck(f.name, a.body)
	}
	var refused *Error
	if errors.As(err, &refused) && known[status{refused.SubjectCode, refused.ReasonCode}] {
		s.client.Log.Info("the server has this notification already", "host", s.host, "refusal", refused)
		return nil
	}
	return err
}

// CancelSession gives the server the eUICC's CancelSessionResponse (BF41)
// (SGP.22 v2.5, section 5.6.5). An SM-DS of version 2 has no such function.
func (s *Session) CancelSession(ctx context.Context, id rsp.TransactionID, response []byte) error {
	f := s.function("cancelSession")
	if err := outgoing(f, "cancelSessionResponse", response, 0xBF, 0x41); err != nil {
		return err
	}
	a, err := s.post(ctx, f, struct {
		TransactionID         string `json:"transactionId"`
		CancelSessionResponse []byte `json:"cancelSessionResponse"`
	}{s.spell(id), response})
	if err != nil {
		return err
	}
	return decodeAck(f.name, a.body)
}

// decodeAck reads the answer of a call that returns nothing: no body, or a
// header that does not say "no".
func decodeAck(name string, body []byte) error {
	if len(bytes.TrimSpace(body)) == 0 {
		return nil
	}
	return decode(name, body, &struct{ envelope }{})
}

// spell writes the transactionId as the server did: the specification wants
// upper case, and some servers compare the text.
func (s *Session) spell(id rsp.TransactionID) string {
	if known, err := rsp.ParseTransactionID(s.transactionID); err == nil && known.Equal(id) {
		return s.transactionID
	}
	return id.String()
}

// outgoing refuses to send what is not the TLV it must be.
func outgoing(f function, member string, b []byte, tag ...byte) error {
	if !bytes.HasPrefix(b, tag) {
		return fmt.Errorf("%s: %s does not begin with the tag %X", f.name, member, tag)
	}
	return nil
}

// reader collects the members of one answer and keeps the first error.
type reader struct {
	name string
	err  error
}

func (r *reader) fail(detail string) {
	if r.err == nil {
		r.err = &AnswerError{Function: r.name, Detail: detail}
	}
}

func (r *reader) tlv(o octets, member string, tag ...byte) []byte {
	b, err := o.tlv(member, tag...)
	if err != nil {
		r.fail(err.Error())
	}
	return b
}

func (r *reader) transactionID(text string) rsp.TransactionID {
	id, err := rsp.ParseTransactionID(text)
	if err != nil {
		r.fail("transactionId is missing or not hexadecimal of 1 to 16 bytes")
	}
	return id
}

func (r *reader) same(got, want rsp.TransactionID) {
	if !got.Equal(want) {
		r.fail("transactionId is that of another session")
	}
}
