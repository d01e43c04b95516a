// Package procedure runs the procedures of consumer RSP (SGP.22 v2.5, section
// 3) as plain sequential functions: a card on one side, a server on the other,
// every check of an LPA between them.
//
//	s, err := procedure.Authenticate(ctx, card, server, request)
//	if err != nil {
//		return err // nothing is left open, on the card or at the server
//	}
//	// show s.Metadata, get consent to it and to s.PPRConsent, get the confirmation code
//	if err := s.Prepare(ctx, code); err != nil {
//		return err
//	}
//	result, err := s.Load(ctx, progress)
//	…
//	deliveries := procedure.Deliver(ctx, card, open, []rsp.PendingNotification{pending})
//
// The caller journals between the calls; nothing here remembers anything
// beyond a [Session].
//
// # Who cancels
//
// A session that fails inside Authenticate, Prepare or Load is cancelled by
// that function: on the card, and at the server if it still knows the session,
// with the reason that fits. Only a caller who stops between the calls, because
// the user says no or does not answer, calls [Session.Cancel]. Cancelling is
// done even when ctx has ended, within [CancelTimeout]. The first error is
// always the one returned; what went wrong in cleaning up is in the
// [*CleanupError] around it.
//
// # When an answer is lost
//
// No answer is not a no. Load, Enable, Disable, Delete, SetNickname and
// MemoryReset ask the card for its state when an answer did not come. When
// even that is not possible, because the channel is gone, the error is an
// [*UnknownOutcomeError]: open a channel again and ask by
// [Session.Conclude], [FindInstallationResult] or the list of profiles.
//
// # Card time
//
// A warm caller passes the [Facts] that it has read once by [ReadFacts]. A
// download then costs the card GetEUICCChallenge, AuthenticateServer,
// PrepareDownload, the package, one GetProfilesInfo to see what was installed,
// and the removal of the notification; nothing else is sent.
package procedure

import (
	"context"
	"errors"
	"fmt"
	"time"

	"lpad/agent/rsp"
	"lpad/agent/rsp/es10"
	"lpad/internal/fault"
)

// Card is what the procedures need of an eUICC; *es10.Client is one.
type Card interface {
	SessionCard
	FactsCard
	NotificationCard
	ProfileCard
}

// SessionCard is the part of a card that downloads.
type SessionCard interface {
	GetEUICCChallenge(ctx context.Context) ([]byte, error)
	AuthenticateServer(ctx context.Context, s rsp.ServerAuthentication, contextParams []byte) ([]byte, error)
	PrepareDownload(ctx context.Context, o rsp.DownloadOffer, hashCC []byte) ([]byte, error)
	LoadBoundProfilePackage(ctx context.Context, segments [][]byte, progress func(done, total int)) (rsp.ProfileInstallationResult, error)
	CancelSession(ctx context.Context, id rsp.TransactionID, reason rsp.CancelReason) ([]byte, error)
}

// FactsCard is the part of a card that tells about itself.
type FactsCard interface {
	GetEID(ctx context.Context) (rsp.EID, error)
	GetEuiccConfiguredAddresses(ctx context.Context) (rsp.ConfiguredAddresses, error)
	GetEUICCInfo1(ctx context.Context) (rsp.EUICCInfo1, error)
	GetEUICCInfo2(ctx context.Context) (rsp.EUICCInfo2, error)
	GetRAT(ctx context.Context) (rsp.RAT, error)
	GetProfilesInfo(ctx context.Context, search rsp.ProfileSearch, tags ...rsp.ProfileTag) ([]rsp.Profile, error)
}

// NotificationCard is the part of a card that keeps notifications.
type NotificationCard interface {
	ListNotification(ctx context.Context, events rsp.Event) ([]rsp.Notification, error)
	RetrieveNotificationsList(ctx context.Context, search rsp.NotificationSearch) ([]rsp.PendingNotification, error)
	RemoveNotificationFromList(ctx context.Context, seqNumber int64) error
}

// ProfileCard is the part of a card that manages profiles.
type ProfileCard interface {
	EnableProfile(ctx context.Context, id rsp.ProfileID, refresh es10.RefreshFlag) error
	DisableProfile(ctx context.Context, id rsp.ProfileID, refresh es10.RefreshFlag) error
	DeleteProfile(ctx context.Context, id rsp.ProfileID) error
	SetNickname(ctx context.Context, iccid rsp.ICCID, nickname string) error
	EUICCMemoryReset(ctx context.Context, m es10.MemoryReset) error
}

// Server is a session with an SM-DP+ or SM-DS; *es9p.Session is one.
type Server interface {
	InitiateAuthentication(ctx context.Context, challenge, euiccInfo1 []byte) (rsp.ServerAuthentication, error)
	AuthenticateClient(ctx context.Context, id rsp.TransactionID, response []byte) (rsp.ClientAuthenticated, error)
	GetBoundProfilePackage(ctx context.Context, id rsp.TransactionID, prepareDownloadResponse []byte) ([]byte, error)
	HandleNotification(ctx context.Context, pending []byte) error
	CancelSession(ctx context.Context, id rsp.TransactionID, response []byte) error
	Close() error
}

// Opener opens a session with the server at an address. The procedure that
// opens it closes it.
type Opener func(address string) (Server, error)

// Keep returns s with a Close that does nothing: an [Opener] may so lend a
// session that is open anyway, and spare a second connection.
func Keep(s Server) Server { return kept{s} }

type kept struct{ Server }

func (kept) Close() error { return nil }

// CancelTimeout bounds what is done after a failure although ctx may have
// ended: cleaning up, and asking the card for its state.
const CancelTimeout = 30 * time.Second

// CleanupError is a failure after which cleaning up failed too. It stands for
// the first one: it unwraps to it and explains itself as it does.
type CleanupError struct {
	First   error
	Cleanup error // what the card or the server said to the cancellation
}

// Error implements error.
func (e *CleanupError) Error() string {
	return fmt.Sprintf("%v (and then, cancelling: %v)", e.First, e.Cleanup)
}

// Unwrap returns the first error.
func (e *CleanupError) Unwrap() error { return e.First }

// Fault implements fault.Explainer.
func (e *CleanupError) Fault() fault.Fault { return fault.Of(e.First) }

// UnknownOutcomeError says that the card may or may not have done what it was
// told: its answer did not come, and it could not be asked.
type UnknownOutcomeError struct {
	Function string
	Err      error // what broke the link
}

// Error implements error.
func (e *UnknownOutcomeError) Error() string {
	return fmt.Sprintf("%s: the outcome is unknown: %v", e.Function, e.Err)
}

// Unwrap returns what broke the link.
func (e *UnknownOutcomeError) Unwrap() error { return e.Err }

// Fault implements fault.Explainer.
func (e *UnknownOutcomeError) Fault() fault.Fault {
	return fault.Fault{Code: "outcome-unknown", Text: "the link to the card broke before its answer came", Retry: true, Who: fault.Device,
		Next: "open the card again and look at its state before trying again"}
}

// refusal is a check of the LPA that failed.
func refusal(code, text string, who fault.Who, next string) error {
	return fault.New(fault.Fault{Code: code, Text: text, Who: who, Next: next}, nil)
}

// lost reports whether err leaves open what the card did: it is neither a
// word of the card nor the end of ctx before anything was sent.
func lost(err error) bool {
	return err != nil && !es10.IsRefusal(err) && !errors.Is(err, context.Canceled) && !errors.Is(err, es10.ErrNickname)
}
