package procedure

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"time"

	"lpad/agent/rsp"
	"lpad/agent/rsp/bpp"
	"lpad/agent/rsp/es10"
	"lpad/internal/fault"
	"lpad/internal/redact"
)

// LoadTimeout bounds the loading of one package, which takes a real card some
// 20 seconds for 12 kB and minutes on a slow line.
const LoadTimeout = 30 * time.Minute

// loadGrace is how long loading goes on when its context has ended: a short rest
// of a package is finished, and a long one does not hold a daemon that must stop
// until its port is closed in the middle of a command. Tests shorten it.
var loadGrace = 4 * time.Second

// Session is one download, from the server's offer to its end. It is for one
// goroutine, the one that owns the card.
type Session struct {
	Request                  Request // as it was fulfilled: after a discovery, with the address that it led to
	TransactionID            rsp.TransactionID
	Metadata                 rsp.Metadata // to be shown to the user
	ConfirmationCodeRequired bool
	PPRConsent               rsp.PPR     // rules that the user must agree to explicitly
	Installed                rsp.Profile // after a successful Load: the profile as the card has it
	ServerCertificate        []byte      // CERT.DPauth (DER), by which the server has proven itself to the eUICC

	card        Card
	server      Server
	offer       rsp.DownloadOffer
	pkg         *bpp.Package
	serverKnows bool // the server has this session and did not end it
	ended       bool
}

// Errors of a session that is used in the wrong order or without what it needs.
var (
	// ErrConfirmationCode says that the offer needs a confirmation code. The
	// session stays open: ask for it and call Prepare again, or Cancel.
	ErrConfirmationCode = refusal("confirmation-code-missing", "the operator wants a confirmation code", fault.Technician, "enter the confirmation code that came with the activation code")
	// ErrOrder is a mistake in the program.
	ErrOrder = errors.New("download session: call out of order")
)

// Prepare gets the profile package: the card checks the offer and makes its
// one-time key, the server binds the package to it, and the package is
// checked. The card has not seen the package afterwards. code is only used,
// and only needed, when the offer requires a confirmation code.
func (s *Session) Prepare(ctx context.Context, code redact.Secret) error {
	if s.ended || s.pkg != nil {
		return ErrOrder
	}
	var hash []byte
	if s.ConfirmationCodeRequired {
		if code.IsZero() {
			return ErrConfirmationCode
		}
		hash = rsp.HashConfirmationCode(code, s.TransactionID)
	}
	proof, err := s.card.PrepareDownload(ctx, s.offer, hash)
	if err != nil {
		return s.abort(ctx, rsp.CancelPostponed, err)
	}
	raw, err := s.server.GetBoundProfilePackage(ctx, s.TransactionID, proof)
	if err != nil {
		s.serverKnows = answered(err)
		return s.abort(ctx, rsp.CancelPostponed, err)
	}
	pkg, reason, err := s.checkPackage(raw)
	if err != nil {
		return s.abort(ctx, reason, err)
	}
	s.pkg = pkg
	return nil
}

// checkPackage makes the checks before the card sees the package: C3. It
// returns the reason to cancel with.
func (s *Session) checkPackage(raw []byte) (*bpp.Package, rsp.CancelReason, error) {
	pkg, err := bpp.Parse(raw)
	if err != nil {
		return nil, rsp.CancelLoadBPPError, fault.New(fault.Fault{Code: "package-malformed", Text: "the server's profile package is not well formed", Who: fault.Operator, Next: "ask the operator for a new activation code"}, err)
	}
	if !s.TransactionID.Equal(pkg.TransactionID()) {
		return nil, rsp.CancelLoadBPPError, refusal("package-stale", "the profile package belongs to another session", fault.Operator, "ask the operator for a new activation code")
	}
	if !s.sameMetadata(pkg.Metadata()) {
		return nil, rsp.CancelMetadataMismatch, refusal("metadata-mismatch", "the profile package describes another profile than the one agreed to", fault.Operator, "tell the operator; do not use this activation code again")
	}
	return pkg, 0, nil
}

// sameMetadata compares what the package says with what the user has agreed to.
// A server may encode the same thing in two ways (with and without a default,
// say), and the mismatch would cost the order: what counts is then what was
// agreed to.
func (s *Session) sameMetadata(raw []byte) bool {
	if bytes.Equal(raw, s.offer.ProfileMetadata) {
		return true
	}
	m, err := rsp.ParseMetadata(raw)
	agreed := s.Metadata
	return err == nil && m.ICCID == agreed.ICCID && m.ServiceProvider == agreed.ServiceProvider && m.Name == agreed.Name &&
		m.Class == agreed.Class && m.PPR == agreed.PPR && (m.Owner == nil) == (agreed.Owner == nil) && sameOwner(m.Owner, agreed.Owner)
}

// Load gives the package to the card and returns the card's signed word on it,
// which is a notification to be delivered, whatever it says. The error is not
// nil when the card refused (an *rsp.InstallationError), when what is on the
// card afterwards is not what was agreed to, or when the link broke.
//
// Loading does not end with ctx at once: an interrupted package may cost the
// order. It goes on for some seconds, and ends between two segments then, with
// an [*UnknownOutcomeError]. It is bounded by [LoadTimeout].
func (s *Session) Load(ctx context.Context, progress func(done, total int)) (rsp.ProfileInstallationResult, error) {
	var none rsp.ProfileInstallationResult
	if s.ended || s.pkg == nil {
		return none, ErrOrder
	}
	if err := ctx.Err(); err != nil {
		return none, err
	}
	whole := ctx
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), LoadTimeout)
	defer cancel()
	defer context.AfterFunc(whole, func() { time.AfterFunc(loadGrace, cancel) })()
	res, err := s.card.LoadBoundProfilePackage(ctx, s.pkg.Segments(), progress)
	if err != nil {
		return s.conclude(ctx, err)
	}
	return res, s.installed(ctx, res)
}

// Sent says how many bytes of the package the first segments of it have, and
// how many it has.
func (s *Session) Sent(segments int) (sent, size int) {
	if s.pkg == nil {
		return 0, 0
	}
	for i, one := range s.pkg.Segments() {
		if i < segments {
			sent += len(one)
		}
		size += len(one)
	}
	return sent, size
}

// Conclude finds out what became of a package whose loading ended in an
// [*UnknownOutcomeError], on a card that was opened again. When the card has
// not finished it, the session is cancelled and the error tells so; the order
// can then be downloaded again.
func (s *Session) Conclude(ctx context.Context, card Card) (rsp.ProfileInstallationResult, error) {
	if s.ended || s.pkg == nil {
		return rsp.ProfileInstallationResult{}, ErrOrder
	}
	s.card = card
	return s.conclude(ctx, errInterrupted)
}

var errInterrupted = fault.New(fault.Fault{Code: "installation-interrupted", Text: "the installation was interrupted", Retry: true, Who: fault.Device, Next: "start the download again"}, nil)

// conclude looks among the notifications for the result of a package whose
// answer did not come: first is why it did not.
func (s *Session) conclude(ctx context.Context, first error) (rsp.ProfileInstallationResult, error) {
	res, found, err := FindInstallationResult(ctx, s.card, s.TransactionID)
	switch {
	case err != nil:
		return res, &UnknownOutcomeError{"ES10b.LoadBoundProfilePackage", first}
	case found:
		return res, s.installed(ctx, res)
	}
	if !errors.Is(first, errInterrupted) {
		first = fmt.Errorf("%w: %w", errInterrupted, first)
	}
	return res, s.abort(ctx, rsp.CancelPostponed, first)
}

// FindInstallationResult looks for the result of a session among the card's
// notifications: after a broken link or a restart it tells whether a package
// was installed.
func FindInstallationResult(ctx context.Context, card NotificationCard, id rsp.TransactionID) (res rsp.ProfileInstallationResult, found bool, err error) {
	list, err := card.RetrieveNotificationsList(ctx, rsp.NotificationSearch{Events: rsp.EventInstall})
	if err != nil {
		return res, false, err
	}
	for _, n := range list {
		if n.Result != nil && id.Equal(n.Result.TransactionID) {
			return *n.Result, true, nil
		}
	}
	return res, false, nil
}

// installed checks the card's word against what was agreed to, and against
// what is on the card. The session is over.
func (s *Session) installed(ctx context.Context, res rsp.ProfileInstallationResult) error {
	s.ended = true
	if err := res.Err(); err != nil {
		return err
	}
	switch n := res.Notification; {
	case !s.TransactionID.Equal(res.TransactionID):
		return refusal("installation-unknown", "the card's installation result belongs to another session", fault.CardVendor, "look at the profiles of the card")
	case n.HasICCID && n.ICCID != s.Metadata.ICCID:
		return refusal("metadata-mismatch", "the card installed another profile than the one agreed to", fault.Operator, "delete the new profile and tell the operator")
	}
	list, err := s.card.GetProfilesInfo(ctx, rsp.ByICCID(s.Metadata.ICCID), 0x5A, 0x4F, 0x9F70, 0x90, 0x91, 0x92, 0x95, 0xB7, 0x99)
	if lost(err) { // the profile is there; a channel that broke now must not make a failure of it
		s.ended = false
		return &UnknownOutcomeError{"ES10b.LoadBoundProfilePackage", fmt.Errorf("check installed profile: %w", err)}
	}
	if err != nil {
		return fmt.Errorf("check installed profile: %w", err)
	}
	for _, p := range list {
		if p.ICCID == s.Metadata.ICCID {
			s.Installed = p
			return s.sameProfile(p)
		}
	}
	return refusal("installation-unknown", "the card reports success, but the profile is not there", fault.CardVendor, "reset the card and look at its profiles")
}

// sameProfile compares what is on the card with what was agreed to.
func (s *Session) sameProfile(p rsp.Profile) error {
	m := s.Metadata
	var differs string
	switch {
	case p.ServiceProvider != m.ServiceProvider:
		differs = "service provider"
	case p.Name != m.Name:
		differs = "name"
	case p.Class != m.Class:
		differs = "class"
	case p.PPR != m.PPR:
		differs = "policy rules"
	case !sameOwner(p.Owner, m.Owner):
		differs = "owner"
	default:
		return nil
	}
	return refusal("metadata-mismatch", "the installed profile has another "+differs+" than the one agreed to", fault.Operator, "delete the new profile and tell the operator")
}

// sameOwner tolerates a card that does not tell the owner.
func sameOwner(card, agreed *rsp.Operator) bool {
	if card == nil || agreed == nil {
		return card == nil || agreed == card
	}
	return card.MCCMNC == agreed.MCCMNC && bytes.Equal(card.GID1, agreed.GID1) && bytes.Equal(card.GID2, agreed.GID2)
}

// Cancel ends the session: on the card, and at the server if it still knows
// it. Reasons other than postponed and timeout end the order too; see
// [rsp.CancelReason]. Cancelling a session that has ended does nothing.
//
// SGP.22 v2.5, section 3.1.3.3 (common cancel session procedure).
func (s *Session) Cancel(ctx context.Context, reason rsp.CancelReason) error {
	if s.ended {
		return nil
	}
	proof, err := s.card.CancelSession(ctx, s.TransactionID, reason)
	if errors.Is(err, rsp.CancelNoSession) {
		s.ended = true
		return nil
	}
	if err != nil {
		return err // the session stays: the card may be opened again
	}
	s.ended = true
	if !s.serverKnows {
		return nil
	}
	return s.server.CancelSession(ctx, s.TransactionID, proof)
}

// abort cancels after a failure, even when ctx has ended, and returns the
// failure.
func (s *Session) abort(ctx context.Context, reason rsp.CancelReason, first error) error {
	if s.Request.GoesOn != nil && s.Request.GoesOn() {
		s.ended = true
		return first
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), CancelTimeout)
	defer cancel()
	err := s.Cancel(ctx, reason)
	s.ended = true
	if err != nil {
		return &CleanupError{first, err}
	}
	return first
}

// Pending is res as a notification to deliver.
func Pending(res rsp.ProfileInstallationResult) rsp.PendingNotification {
	return rsp.PendingNotification{Notification: res.Notification, Raw: res.Raw, Result: &res}
}

var _ Card = (*es10.Client)(nil)
