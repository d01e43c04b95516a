package procedure

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"

	"lpad/agent/rsp"
	"lpad/agent/rsp/es10"
	"lpad/agent/rsp/es9p"
	"lpad/internal/fault"
	"lpad/internal/redact"
)

// Request asks for one profile.
type Request struct {
	Address    string // of the server, as in the activation code
	MatchingID string // a secret; empty asks for the default order of the EID
	OID        string // of the SM-DP+, if the activation code names one
	Device     rsp.DeviceInfo
	Facts      Facts // what is known of the card

	// Of a session that goes on after a restart. Said is what the card has said to
	// a function, by that of ES9+ that it was for ("initiateAuthentication" has
	// its challenge, "authenticateClient" its response) and need not be asked
	// again; nil, or empty: nothing. GoesOn reports, when something fails, that the
	// session is to stay as it is, since it goes on later; nil: never.
	Said   func(function string) []byte
	GoesOn func() bool
}

// String shows a request without its matching id.
func (r Request) String() string {
	return rsp.ActivationCode{SMDP: r.Address, MatchingID: r.MatchingID, OID: r.OID}.String()
}

// GoString keeps %#v from printing the matching id.
func (r Request) GoString() string { return r.String() }

// LogValue logs a request without its matching id.
func (r Request) LogValue() slog.Value { return slog.StringValue(r.String()) }

// EventsError says that the server is an SM-DS and has events, not a profile:
// fetch them from the servers that they name. See [AuthenticateEvent].
type EventsError struct{ Events []rsp.EventEntry }

// Error implements error.
func (e *EventsError) Error() string {
	return fmt.Sprintf("the server has %d events instead of a profile", len(e.Events))
}

// Fault implements fault.Explainer.
func (e *EventsError) Fault() fault.Fault {
	return fault.Fault{Code: "server-is-smds", Text: "the server only knows where profiles are waiting", Who: fault.Operator, Next: "use the activation code of the SM-DP+ itself"}
}

// Authenticate brings card and server to know each other, and returns what
// the server offers (SGP.22 v2.5, section 3.1.3, up to the user's consent).
// Everything that can be refused without the user is refused here: a server
// that is not the one asked for, a profile that is on the card already, policy
// rules that the card does not allow. On an error nothing is left open.
func Authenticate(ctx context.Context, card Card, server Server, r Request) (*Session, error) {
	a, err := authenticate(ctx, card, server, &r)
	if err != nil {
		return nil, err
	}
	if a.answer.Offer == nil {
		// The card's session ends by itself; an SM-DS is not told.
		return nil, &EventsError{a.answer.Events}
	}
	s := &Session{Request: r, TransactionID: a.server.TransactionID, ServerCertificate: a.server.ServerCertificate, card: card, server: server,
		offer: *a.answer.Offer, serverKnows: true}
	if reason, err := s.checkOffer(ctx, a.server, &r.Facts); err != nil {
		return nil, s.abort(ctx, reason, err)
	}
	return s, nil
}

// authentication is the outcome of a mutual authentication.
type authentication struct {
	server rsp.ServerAuthentication
	answer rsp.ClientAuthenticated
}

// authenticate is the common mutual authentication procedure (SGP.22 v2.5,
// section 3.1.2). It fills in the facts that r lacks.
func authenticate(ctx context.Context, card Card, server Server, r *Request) (authentication, error) {
	var a authentication
	if err := r.Device.Validate(); err != nil {
		return a, fault.New(fault.Fault{Code: "device-info-invalid", Text: "the device's identity cannot be sent", Who: fault.Configuration,
			Next: "correct the IMEI or TAC in the configuration"}, err)
	}
	if err := r.Facts.complete(ctx, card); err != nil {
		return a, err
	}
	params, err := r.Device.ContextParams(r.MatchingID, r.Facts.Info2.RSPCapability)
	if err != nil {
		return a, fmt.Errorf("device information: %w", err)
	}
	challenge := r.said("initiateAuthentication")
	if challenge == nil {
		if challenge, err = card.GetEUICCChallenge(ctx); err != nil {
			return a, err
		}
	}
	if a.server, err = server.InitiateAuthentication(ctx, challenge, r.Facts.Info1.Raw); err != nil {
		return a, err // the card has only a challenge out, which the next one replaces
	}
	if err := checkServer(a.server, challenge, *r); err != nil {
		return a, fmt.Errorf("check server: %w", err)
	}
	s := &Session{Request: *r, TransactionID: a.server.TransactionID, card: card, server: server}
	proof := r.said("authenticateClient")
	if proof == nil {
		proof, err = card.AuthenticateServer(ctx, a.server, params)
	}
	if es10.IsRefusal(err) {
		return a, err // the card has closed its session
	}
	if err != nil {
		return a, s.abort(ctx, rsp.CancelPostponed, err)
	}
	a.answer, err = server.AuthenticateClient(ctx, s.TransactionID, proof)
	if errors.Is(err, es9p.ErrNoEvent) {
		return a, err
	}
	if err != nil {
		// A server that refused has closed its session. One whose answer we
		// do not accept may well have kept it open.
		s.serverKnows = answered(err)
		return a, s.abort(ctx, rsp.CancelPostponed, nothingWaits(*r, err))
	}
	return a, nil
}

func (r *Request) said(function string) []byte {
	if r.Said == nil {
		return nil
	}
	return r.Said(function)
}

// nothingWaits explains the refusal of a server that was asked, without a
// matching id, for whatever it has for this eUICC. Servers that have nothing
// refuse the EID or the matching id that was not there (SGP.23 wants the
// first), as if somebody had mistyped a code.
func nothingWaits(r Request, err error) error {
	var refused *es9p.Error
	if r.MatchingID != "" || !errors.As(err, &refused) || refused.ReasonCode != "3.8" || refused.SubjectCode != "8.1.1" && refused.SubjectCode != "8.2.6" {
		return err
	}
	return fault.New(fault.Fault{Code: "nothing-pending", Text: "nothing is waiting for this eUICC at this server", Who: fault.Nobody,
		Next: "order a profile for this EID first, or use an activation code"}, err)
}

// answered reports that a server did what it was asked, and that its answer
// is what is wrong.
func answered(err error) bool {
	var answer *es9p.AnswerError
	return errors.As(err, &answer)
}

const askForCode = "check the activation code; if it is right, tell the operator"

// invalidAnswer explains what the server sent and nobody can read.
func invalidAnswer(err error) error {
	return fault.New(fault.Fault{Code: "server-answer-invalid", Text: "the server's answer is not valid", Who: fault.Operator,
		Next: "report this to the operator; the server does not keep to the specification"}, err)
}

// checkServer makes the checks before the card sees the server's word: C1.
func checkServer(s rsp.ServerAuthentication, challenge []byte, r Request) error {
	signed, err := s.Signed1()
	if err != nil {
		return invalidAnswer(err)
	}
	switch {
	case !s.TransactionID.Equal(signed.TransactionID):
		return refusal("server-session-mismatch", "the server signs for another session than it announces", fault.Operator, "try again; if it stays, tell the operator")
	case !bytes.Equal(signed.Challenge, challenge):
		return refusal("server-challenge-mismatch", "the server answers another challenge than the card's", fault.Operator, "try again; if it stays, tell the operator")
	case !strings.EqualFold(signed.Address, bareAddress(r.Address)):
		return refusal("server-address-mismatch", fmt.Sprintf("the server at %s says that it is %q", r.Address, rsp.DisplayText(signed.Address)), fault.Operator, askForCode)
	}
	ci, err := s.CI()
	if err != nil {
		return invalidAnswer(err)
	}
	if !r.Facts.Info1.Signs(ci) {
		return refusal("ci-not-offered", "the server wants a certificate of the card that it does not have", fault.Operator, "a test card needs a test server, a live card a live one; else ask the operator")
	}
	if r.OID == "" {
		return nil
	}
	oid, err := rsp.CertificateOID(s.ServerCertificate)
	if err != nil {
		return invalidAnswer(err)
	}
	if oid != r.OID {
		return refusal("server-oid-mismatch", "the activation code does not belong to this server: it names SM-DP+ "+r.OID+", this is "+oid, fault.Operator, askForCode)
	}
	return nil
}

// bareAddress takes away what is sent to no server: white space and a
// trailing dot.
func bareAddress(s string) string {
	return strings.TrimSuffix(strings.Join(strings.Fields(s), ""), ".")
}

// checkOffer makes the checks before the user sees the offer, C2, and fills
// in what the user is asked. It returns the reason to cancel with.
func (s *Session) checkOffer(ctx context.Context, server rsp.ServerAuthentication, facts *Facts) (rsp.CancelReason, error) {
	const technical = rsp.CancelPostponed
	if err := s.checkSigned2(); err != nil {
		return technical, fmt.Errorf("check offer: %w", err)
	}
	auth, err := rsp.CertificateOID(server.ServerCertificate)
	if err != nil {
		return technical, invalidAnswer(err)
	}
	binding, err := rsp.CertificateOID(s.offer.SMDPCertificate)
	if err != nil {
		return technical, invalidAnswer(err)
	}
	if auth != binding {
		return technical, refusal("server-oid-mismatch", "the profile package would come from another SM-DP+ than the one that proved itself", fault.Operator, askForCode)
	}
	if s.Metadata, err = rsp.ParseMetadata(s.offer.ProfileMetadata); err != nil {
		return technical, invalidAnswer(err)
	}
	for _, p := range facts.Profiles {
		if p.ICCID == s.Metadata.ICCID {
			return technical, refusal("profile-already-installed", "this profile is already on the card: "+redact.Digits(p.ICCID.String()), fault.Technician, "use the installed profile, or delete it first")
		}
	}
	return s.checkPolicy(ctx, facts)
}

func (s *Session) checkSigned2() error {
	signed, err := s.offer.Signed2()
	if err != nil {
		return invalidAnswer(err)
	}
	s.ConfirmationCodeRequired = signed.ConfirmationCodeRequired
	if !s.TransactionID.Equal(signed.TransactionID) || !s.TransactionID.Equal(s.offer.TransactionID) {
		return refusal("server-session-mismatch", "the server's offer belongs to another session", fault.Operator, "try again; if it stays, tell the operator")
	}
	return nil
}

// checkPolicy applies the Rules Authorisation Table (SGP.22 v2.5, section
// 2.9.2).
func (s *Session) checkPolicy(ctx context.Context, facts *Facts) (rsp.CancelReason, error) {
	if s.Metadata.PPR&(rsp.PPR1|rsp.PPR2) == 0 {
		return 0, nil
	}
	if err := facts.needRAT(ctx, s.card); err != nil {
		return rsp.CancelPostponed, err
	}
	d := facts.RAT.Decide(rsp.PPRRequest{PPR: s.Metadata.PPR, Owner: s.Metadata.Owner, Forbidden: facts.Info2.ForbiddenPPR, Installed: facts.Profiles})
	if d.Refused != 0 {
		return rsp.CancelPPRNotAllowed, refusal("ppr-not-allowed", "the policy rules of this profile ("+d.Refused.String()+") are not allowed: "+d.Reason, fault.Operator, "ask the operator for a profile without these rules")
	}
	s.PPRConsent = d.Consent
	return 0, nil
}
