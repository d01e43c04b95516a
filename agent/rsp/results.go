package rsp

import (
	"fmt"

	"lpad/internal/fault"
)

// A code is what the specification calls a result, and what it means.
type code struct {
	name  string
	fault fault.Fault
}

// codeName returns the name of n, or its number: later versions add results.
func codeName[T ~int](table map[T]code, n T) string {
	if c, ok := table[n]; ok {
		return c.name
	}
	return fmt.Sprintf("unknown(%d)", int(n))
}

// codeFault explains n. A result that is not in the table counts as undefined
// error.
func codeFault[T ~int](table map[T]code, n T) fault.Fault {
	if c, ok := table[n]; ok {
		return c.fault
	}
	f := undefined.fault
	f.Text = fmt.Sprintf("the card answers with result %d, which this version does not know", int(n))
	return f
}

// Results that several functions share.
var (
	undefined = code{"undefinedError", fault.Fault{Code: "card-undefined-error", Text: "the card refuses and does not say why", Retry: true, Who: fault.CardVendor,
		Next: "try again after a reset of the card; if it stays, ask the card's vendor"}}
	notFound = code{"iccidOrAidNotFound", fault.Fault{Code: "profile-not-found", Text: "there is no such profile on the card", Who: fault.Technician,
		Next: "list the profiles and choose one of them"}}
	catBusy = code{"catBusy", fault.Fault{Code: "card-busy", Text: "the card is in the middle of a toolkit session with the modem", Retry: true, Who: fault.Device,
		Next: "wait some seconds and try again; reset the modem if it stays"}}
)

// EnableResult is a refusal of ES10c.EnableProfile (SGP.22 v2.5, section
// 5.7.16).
type EnableResult int

// Results that a caller may act on.
const (
	EnableNotFound       EnableResult = 1
	EnableNotDisabled    EnableResult = 2 // it is enabled already
	EnableDisallowed     EnableResult = 3
	EnableWrongReenabled EnableResult = 4
	EnableCATBusy        EnableResult = 5
	EnableUndefined      EnableResult = 127
)

var enableResults = map[EnableResult]code{
	EnableNotFound:       notFound,
	EnableNotDisabled:    {"profileNotInDisabledState", fault.Fault{Code: "profile-already-enabled", Text: "the profile is enabled already", Who: fault.Nobody, Next: "nothing"}},
	EnableDisallowed:     {"disallowedByPolicy", fault.Fault{Code: "disallowed-by-policy", Text: "the profile in use does not allow to be disabled", Who: fault.Operator, Next: "ask the operator of the profile in use to lift its policy rule"}},
	EnableWrongReenabled: {"wrongProfileReenabling", fault.Fault{Code: "wrong-profile-reenabling", Text: "a test profile is in use: only another test profile or the operational one before it can be enabled", Who: fault.Technician, Next: "disable the test profile first"}},
	EnableCATBusy:        catBusy,
	6:                    {"disallowedByEnterpriseRule", fault.Fault{Code: "disallowed-by-policy", Text: "an enterprise rule of the card forbids it", Who: fault.Configuration, Next: "ask the owner of the card"}},
	7:                    {"commandError", undefined.fault},
	9:                    {"disallowedForRpm", fault.Fault{Code: "disallowed-by-policy", Text: "remote profile management of the card forbids it", Who: fault.Operator, Next: "ask the operator"}},
	10:                   {"noEsimPortAvailable", fault.Fault{Code: "no-esim-port", Text: "the card has no free port for another profile", Who: fault.Technician, Next: "disable a profile first"}},
	EnableUndefined:      undefined,
}

// Name returns the specification's name.
func (r EnableResult) Name() string { return codeName(enableResults, r) }

// Error implements error.
func (r EnableResult) Error() string { return r.Name() }

// Fault implements fault.Explainer.
func (r EnableResult) Fault() fault.Fault { return codeFault(enableResults, r) }

// DisableResult is a refusal of ES10c.DisableProfile (SGP.22 v2.5, section
// 5.7.17).
type DisableResult int

// Results that a caller may act on.
const (
	DisableNotFound   DisableResult = 1
	DisableNotEnabled DisableResult = 2 // it is disabled already
	DisableDisallowed DisableResult = 3
	DisableCATBusy    DisableResult = 5
	DisableUndefined  DisableResult = 127
)

var disableResults = map[DisableResult]code{
	DisableNotFound:   notFound,
	DisableNotEnabled: {"profileNotInEnabledState", fault.Fault{Code: "profile-already-disabled", Text: "the profile is disabled already", Who: fault.Nobody, Next: "nothing"}},
	DisableDisallowed: {"disallowedByPolicy", fault.Fault{Code: "disallowed-by-policy", Text: "the profile does not allow to be disabled", Who: fault.Operator, Next: "ask its operator to lift the policy rule"}},
	DisableCATBusy:    catBusy,
	7:                 {"commandError", undefined.fault},
	DisableUndefined:  undefined,
}

// Name returns the specification's name.
func (r DisableResult) Name() string { return codeName(disableResults, r) }

// Error implements error.
func (r DisableResult) Error() string { return r.Name() }

// Fault implements fault.Explainer.
func (r DisableResult) Fault() fault.Fault { return codeFault(disableResults, r) }

// DeleteResult is a refusal of ES10c.DeleteProfile (SGP.22 v2.5, section
// 5.7.18).
type DeleteResult int

// Results that a caller may act on.
const (
	DeleteNotFound    DeleteResult = 1
	DeleteNotDisabled DeleteResult = 2 // it must be disabled first
	DeleteDisallowed  DeleteResult = 3
	DeleteUndefined   DeleteResult = 127
)

var deleteResults = map[DeleteResult]code{
	DeleteNotFound:    notFound,
	DeleteNotDisabled: {"profileNotInDisabledState", fault.Fault{Code: "profile-in-use", Text: "the profile is in use", Who: fault.Technician, Next: "disable it, or enable another one, and delete it then"}},
	DeleteDisallowed:  {"disallowedByPolicy", fault.Fault{Code: "disallowed-by-policy", Text: "the profile does not allow to be deleted", Who: fault.Operator, Next: "ask its operator to lift the policy rule"}},
	7:                 {"commandError", undefined.fault},
	DeleteUndefined:   undefined,
}

// Name returns the specification's name.
func (r DeleteResult) Name() string { return codeName(deleteResults, r) }

// Error implements error.
func (r DeleteResult) Error() string { return r.Name() }

// Fault implements fault.Explainer.
func (r DeleteResult) Fault() fault.Fault { return codeFault(deleteResults, r) }

// MemoryResetResult is a refusal of ES10c.eUICCMemoryReset (SGP.22 v2.5,
// section 5.7.19).
type MemoryResetResult int

// Results that a caller may act on.
const (
	MemoryResetNothing   MemoryResetResult = 1
	MemoryResetCATBusy   MemoryResetResult = 5
	MemoryResetUndefined MemoryResetResult = 127
)

var memoryResetResults = map[MemoryResetResult]code{
	MemoryResetNothing:   {"nothingToDelete", fault.Fault{Code: "nothing-to-delete", Text: "there is nothing of this kind on the card", Who: fault.Nobody, Next: "nothing"}},
	MemoryResetCATBusy:   catBusy,
	MemoryResetUndefined: undefined,
}

// Name returns the specification's name.
func (r MemoryResetResult) Name() string { return codeName(memoryResetResults, r) }

// Error implements error.
func (r MemoryResetResult) Error() string { return r.Name() }

// Fault implements fault.Explainer.
func (r MemoryResetResult) Fault() fault.Fault { return codeFault(memoryResetResults, r) }

// NicknameResult is a refusal of ES10c.SetNickname (SGP.22 v2.5, section
// 5.7.21).
type NicknameResult int

// Results that a caller may act on.
const (
	NicknameNotFound  NicknameResult = 1
	NicknameUndefined NicknameResult = 127
)

var nicknameResults = map[NicknameResult]code{
	NicknameNotFound:  {"iccidNotFound", notFound.fault},
	NicknameUndefined: undefined,
}

// Name returns the specification's name.
func (r NicknameResult) Name() string { return codeName(nicknameResults, r) }

// Error implements error.
func (r NicknameResult) Error() string { return r.Name() }

// Fault implements fault.Explainer.
func (r NicknameResult) Fault() fault.Fault { return codeFault(nicknameResults, r) }

// AuthenticateResult is a refusal of ES10b.AuthenticateServer (SGP.22 v2.5,
// section 5.7.13).
type AuthenticateResult int

// Results that a caller may act on.
const (
	AuthenticateInvalidCertificate AuthenticateResult = 1
	AuthenticateInvalidSignature   AuthenticateResult = 2
	AuthenticateNoSession          AuthenticateResult = 4
	AuthenticateCIUnknown          AuthenticateResult = 7
	AuthenticateUndefined          AuthenticateResult = 127
)

const (
	checkServer   = "check the activation code; if it is right, tell the operator"
	sessionIsLost = "start the download again; nothing else may talk to the card meanwhile"
)

var authenticateResults = map[AuthenticateResult]code{
	AuthenticateInvalidCertificate: {"invalidCertificate", fault.Fault{Code: "server-certificate-refused", Text: "the card does not accept the server's certificate", Who: fault.Operator, Next: checkServer}},
	AuthenticateInvalidSignature:   {"invalidSignature", fault.Fault{Code: "server-signature-refused", Text: "the card does not accept the server's signature", Who: fault.Operator, Next: checkServer}},
	3:                              {"unsupportedCurve", fault.Fault{Code: "curve-unsupported", Text: "the card does not support the curve of the server's key", Who: fault.Operator, Next: "ask the operator for a server for this card type"}},
	AuthenticateNoSession:          {"noSessionContext", fault.Fault{Code: "card-session-lost", Text: "the card has forgotten the session", Retry: true, Who: fault.Device, Next: sessionIsLost}},
	5:                              {"invalidOid", fault.Fault{Code: "server-oid-refused", Text: "the card does not accept the server's identity", Who: fault.Operator, Next: checkServer}},
	6:                              {"euiccChallengeMismatch", fault.Fault{Code: "challenge-mismatch", Text: "the server answers another challenge than the card's", Retry: true, Who: fault.Operator, Next: restartSession}},
	AuthenticateCIUnknown:          {"ciPKUnknown", fault.Fault{Code: "ci-unknown", Text: "the server and the card have no certificate issuer in common", Who: fault.Operator, Next: "a test card needs a test server, a live card a live one; else ask the operator"}},
	8:                              {"transactionIdError", fault.Fault{Code: "card-session-lost", Text: "the card is in another session", Retry: true, Who: fault.Device, Next: sessionIsLost}},
	9:                              {"missingCrl", fault.Fault{Code: "server-certificate-refused", Text: "the card wants a revocation list that the server did not send", Who: fault.Operator, Next: checkServer}},
	10:                             {"invalidCrlSignature", fault.Fault{Code: "server-certificate-refused", Text: "the signature of the server's revocation list is wrong", Who: fault.Operator, Next: checkServer}},
	11:                             {"revokedCert", fault.Fault{Code: "server-certificate-refused", Text: "the server's certificate is revoked", Who: fault.Operator, Next: checkServer}},
	12:                             {"invalidCertOrCrlTime", fault.Fault{Code: "server-certificate-refused", Text: "the server's certificate or revocation list has expired", Who: fault.Operator, Next: checkServer}},
	13:                             {"invalidCertOrCrlConfiguration", fault.Fault{Code: "server-certificate-refused", Text: "the server's certificate or revocation list is not made as it must be", Who: fault.Operator, Next: checkServer}},
	14:                             {"invalidIccid", notFound.fault},
	AuthenticateUndefined:          undefined,
}

// Name returns the specification's name.
func (r AuthenticateResult) Name() string { return codeName(authenticateResults, r) }

// Error implements error.
func (r AuthenticateResult) Error() string { return r.Name() }

// Fault implements fault.Explainer.
func (r AuthenticateResult) Fault() fault.Fault { return codeFault(authenticateResults, r) }

// DownloadResult is a refusal of ES10b.PrepareDownload (SGP.22 v2.5, section
// 5.7.5).
type DownloadResult int

// Results that a caller may act on.
const (
	DownloadInvalidCertificate DownloadResult = 1
	DownloadInvalidSignature   DownloadResult = 2
	DownloadNoSession          DownloadResult = 4
	DownloadInvalidTransaction DownloadResult = 5
	DownloadUndefined          DownloadResult = 127
)

var downloadResults = map[DownloadResult]code{
	DownloadInvalidCertificate: {"invalidCertificate", fault.Fault{Code: "server-certificate-refused", Text: "the card does not accept the certificate for the profile package", Who: fault.Operator, Next: checkServer}},
	DownloadInvalidSignature:   {"invalidSignature", fault.Fault{Code: "server-signature-refused", Text: "the card does not accept the server's signature on the offer", Who: fault.Operator, Next: checkServer}},
	3:                          {"unsupportedCurve", fault.Fault{Code: "curve-unsupported", Text: "the card does not support the curve of the server's key", Who: fault.Operator, Next: "ask the operator for a server for this card type"}},
	DownloadNoSession:          {"noSessionContext", fault.Fault{Code: "card-session-lost", Text: "the card has forgotten the session", Retry: true, Who: fault.Device, Next: sessionIsLost}},
	DownloadInvalidTransaction: {"invalidTransactionId", fault.Fault{Code: "card-session-lost", Text: "the card is in another session", Retry: true, Who: fault.Device, Next: sessionIsLost}},
	DownloadUndefined:          undefined,
}

// Name returns the specification's name.
func (r DownloadResult) Name() string { return codeName(downloadResults, r) }

// Error implements error.
func (r DownloadResult) Error() string { return r.Name() }

// Fault implements fault.Explainer.
func (r DownloadResult) Fault() fault.Fault { return codeFault(downloadResults, r) }

// CancelResult is a refusal of ES10b.CancelSession (SGP.22 v2.5, section
// 5.7.14).
type CancelResult int

// Results that a caller may act on.
const (
	CancelNoSession       CancelResult = 5 // there is no such session any more: nothing to cancel
	CancelUndefinedResult CancelResult = 127
)

var cancelResults = map[CancelResult]code{
	CancelNoSession:       {"invalidTransactionId", fault.Fault{Code: "card-session-lost", Text: "the card has no such session any more", Who: fault.Nobody, Next: "nothing"}},
	CancelUndefinedResult: undefined,
}

// Name returns the specification's name.
func (r CancelResult) Name() string { return codeName(cancelResults, r) }

// Error implements error.
func (r CancelResult) Error() string { return r.Name() }

// Fault implements fault.Explainer.
func (r CancelResult) Fault() fault.Fault { return codeFault(cancelResults, r) }

// CRLResult is a refusal of ES10b.LoadCRL (SGP.22 v2.5, section 5.7.12).
type CRLResult int

// CRLFresherLoaded is the result that needs no action.
const CRLFresherLoaded CRLResult = 5

var crlResults = map[CRLResult]code{
	1:                {"invalidSignature", fault.Fault{Code: "crl-refused", Text: "the signature of the revocation list is wrong", Who: fault.Configuration, Next: "load another revocation list"}},
	2:                {"invalidCRLFormat", fault.Fault{Code: "crl-refused", Text: "the card cannot read the revocation list", Who: fault.Configuration, Next: "load another revocation list"}},
	3:                {"notEnoughMemorySpace", fault.Fault{Code: "card-full", Text: "the card has no room for the revocation list", Who: fault.Technician, Next: "delete a profile that is not needed"}},
	4:                {"verificationKeyNotFound", fault.Fault{Code: "ci-unknown", Text: "the card does not know the issuer of the revocation list", Who: fault.Configuration, Next: "load another revocation list"}},
	CRLFresherLoaded: {"fresherCrlAlreadyLoaded", fault.Fault{Code: "crl-known", Text: "the card has a newer revocation list", Who: fault.Nobody, Next: "nothing"}},
	6:                {"baseCrlMissing", fault.Fault{Code: "crl-refused", Text: "the base revocation list is missing", Who: fault.Configuration, Next: "load the base revocation list first"}},
	127:              undefined,
}

// Name returns the specification's name.
func (r CRLResult) Name() string { return codeName(crlResults, r) }

// Error implements error.
func (r CRLResult) Error() string { return r.Name() }

// Fault implements fault.Explainer.
func (r CRLResult) Fault() fault.Fault { return codeFault(crlResults, r) }

// GeneralResult is a refusal of a function that has only few results of no
// consequence: lists, addresses, removal of notifications.
type GeneralResult int

// The results.
const (
	GeneralIncorrectInput GeneralResult = 1
	GeneralUndefined      GeneralResult = 127
)

var generalResults = map[GeneralResult]code{
	GeneralIncorrectInput: {"incorrectInputValues", fault.Fault{Code: "card-refuses-input", Text: "the card does not understand the question", Who: fault.Device, Next: "report this with the log of lpad"}},
	GeneralUndefined:      undefined,
}

// Name returns the specification's name.
func (r GeneralResult) Name() string { return codeName(generalResults, r) }

// Error implements error.
func (r GeneralResult) Error() string { return r.Name() }

// Fault implements fault.Explainer.
func (r GeneralResult) Fault() fault.Fault { return codeFault(generalResults, r) }
