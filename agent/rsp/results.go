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

// codes are the results of a function, by their numbers. (A list: a map would be
// filled by code, at each start.)
type codes []struct {
	n int
	code
}

func (l codes) find(n int) (code, bool) {
	for _, c := range l {
		if c.n == n {
			return c.code, true
		}
	}
	return code{}, false
}

// nameOf returns the name of n, or its number: later versions add results.
func (l codes) nameOf(n int) string {
	if c, ok := l.find(n); ok {
		return c.name
	}
	return fmt.Sprintf("unknown(%d)", n)
}

// faultOf explains n. A result that is not in the table counts as undefined
// error.
func (l codes) faultOf(n int) fault.Fault {
	if c, ok := l.find(n); ok {
		return c.fault
	}
	f := undefined.fault
	f.Text = fmt.Sprintf("the card answers with result %d, which this version does not know", n)
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

var enableResults = codes{
	{int(EnableNotFound), notFound},
	{int(EnableNotDisabled), code{"profileNotInDisabledState", fault.Fault{Code: "profile-already-enabled", Text: "the profile is enabled already", Who: fault.Nobody, Next: "nothing"}}},
	{int(EnableDisallowed), code{"disallowedByPolicy", fault.Fault{Code: "disallowed-by-policy", Text: "the profile in use does not allow to be disabled", Who: fault.Operator, Next: "ask the operator of the profile in use to lift its policy rule"}}},
	{int(EnableWrongReenabled), code{"wrongProfileReenabling", fault.Fault{Code: "wrong-profile-reenabling", Text: "a test profile is in use: only another test profile or the operational one before it can be enabled", Who: fault.Technician, Next: "disable the test profile first"}}},
	{int(EnableCATBusy), catBusy},
	{6, code{"disallowedByEnterpriseRule", fault.Fault{Code: "disallowed-by-policy", Text: "an enterprise rule of the card forbids it", Who: fault.Configuration, Next: "ask the owner of the card"}}},
	{7, code{"commandError", undefined.fault}},
	{9, code{"disallowedForRpm", fault.Fault{Code: "disallowed-by-policy", Text: "remote profile management of the card forbids it", Who: fault.Operator, Next: "ask the operator"}}},
	{10, code{"noEsimPortAvailable", fault.Fault{Code: "no-esim-port", Text: "the card has no free port for another profile", Who: fault.Technician, Next: "disable a profile first"}}},
	{int(EnableUndefined), undefined},
}

// Name returns the specification's name.
func (r EnableResult) Name() string { return enableResults.nameOf(int(r)) }

// Error implements error.
func (r EnableResult) Error() string { return r.Name() }

// Fault implements fault.Explainer.
func (r EnableResult) Fault() fault.Fault { return enableResults.faultOf(int(r)) }

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

var disableResults = codes{
	{int(DisableNotFound), notFound},
	{int(DisableNotEnabled), code{"profileNotInEnabledState", fault.Fault{Code: "profile-already-disabled", Text: "the profile is disabled already", Who: fault.Nobody, Next: "nothing"}}},
	{int(DisableDisallowed), code{"disallowedByPolicy", fault.Fault{Code: "disallowed-by-policy", Text: "the profile does not allow to be disabled", Who: fault.Operator, Next: "ask its operator to lift the policy rule"}}},
	{int(DisableCATBusy), catBusy},
	{7, code{"commandError", undefined.fault}},
	{int(DisableUndefined), undefined},
}

// Name returns the specification's name.
func (r DisableResult) Name() string { return disableResults.nameOf(int(r)) }

// Error implements error.
func (r DisableResult) Error() string { return r.Name() }

// Fault implements fault.Explainer.
func (r DisableResult) Fault() fault.Fault { return disableResults.faultOf(int(r)) }

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

var deleteResults = codes{
	{int(DeleteNotFound), notFound},
	{int(DeleteNotDisabled), code{"profileNotInDisabledState", fault.Fault{Code: "profile-in-use", Text: "the profile is in use", Who: fault.Technician, Next: "disable it, or enable another one, and delete it then"}}},
	{int(DeleteDisallowed), code{"disallowedByPolicy", fault.Fault{Code: "disallowed-by-policy", Text: "the profile does not allow to be deleted", Who: fault.Operator, Next: "ask its operator to lift the policy rule"}}},
	{7, code{"commandError", undefined.fault}},
	{int(DeleteUndefined), undefined},
}

// Name returns the specification's name.
func (r DeleteResult) Name() string { return deleteResults.nameOf(int(r)) }

// Error implements error.
func (r DeleteResult) Error() string { return r.Name() }

// Fault implements fault.Explainer.
func (r DeleteResult) Fault() fault.Fault { return deleteResults.faultOf(int(r)) }

// MemoryResetResult is a refusal of ES10c.eUICCMemoryReset (SGP.22 v2.5,
// section 5.7.19).
type MemoryResetResult int

// Results that a caller may act on.
const (
	MemoryResetNothing   MemoryResetResult = 1
	MemoryResetCATBusy   MemoryResetResult = 5
	MemoryResetUndefined MemoryResetResult = 127
)

var memoryResetResults = codes{
	{int(MemoryResetNothing), code{"nothingToDelete", fault.Fault{Code: "nothing-to-delete", Text: "there is nothing of this kind on the card", Who: fault.Nobody, Next: "nothing"}}},
	{int(MemoryResetCATBusy), catBusy},
	{int(MemoryResetUndefined), undefined},
}

// Name returns the specification's name.
func (r MemoryResetResult) Name() string { return memoryResetResults.nameOf(int(r)) }

// Error implements error.
func (r MemoryResetResult) Error() string { return r.Name() }

// Fault implements fault.Explainer.
func (r MemoryResetResult) Fault() fault.Fault { return memoryResetResults.faultOf(int(r)) }

// NicknameResult is a refusal of ES10c.SetNickname (SGP.22 v2.5, section
// 5.7.21).
type NicknameResult int

// Results that a caller may act on.
const (
	NicknameNotFound  NicknameResult = 1
	NicknameUndefined NicknameResult = 127
)

var nicknameResults = codes{
	{int(NicknameNotFound), code{"iccidNotFound", notFound.fault}},
	{int(NicknameUndefined), undefined},
}

// Name returns the specification's name.
func (r NicknameResult) Name() string { return nicknameResults.nameOf(int(r)) }

// Error implements error.
func (r NicknameResult) Error() string { return r.Name() }

// Fault implements fault.Explainer.
func (r NicknameResult) Fault() fault.Fault { return nicknameResults.faultOf(int(r)) }

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

var authenticateResults = codes{
	{int(AuthenticateInvalidCertificate), code{"invalidCertificate", fault.Fault{Code: "server-certificate-refused", Text: "the card does not accept the server's certificate", Who: fault.Operator, Next: checkServer}}},
	{int(AuthenticateInvalidSignature), code{"invalidSignature", fault.Fault{Code: "server-signature-refused", Text: "the card does not accept the server's signature", Who: fault.Operator, Next: checkServer}}},
	{3, code{"unsupportedCurve", fault.Fault{Code: "curve-unsupported", Text: "the card does not support the curve of the server's key", Who: fault.Operator, Next: "ask the operator for a server for this card type"}}},
	{int(AuthenticateNoSession), code{"noSessionContext", fault.Fault{Code: "card-session-lost", Text: "the card has forgotten the session", Retry: true, Who: fault.Device, Next: sessionIsLost}}},
	{5, code{"invalidOid", fault.Fault{Code: "server-oid-refused", Text: "the card does not accept the server's identity", Who: fault.Operator, Next: checkServer}}},
	{6, code{"euiccChallengeMismatch", fault.Fault{Code: "challenge-mismatch", Text: "the server answers another challenge than the card's", Retry: true, Who: fault.Operator, Next: restartSession}}},
	{int(AuthenticateCIUnknown), code{"ciPKUnknown", fault.Fault{Code: "ci-unknown", Text: "the server and the card have no certificate issuer in common", Who: fault.Operator, Next: "a test card needs a test server, a live card a live one; else ask the operator"}}},
	{8, code{"transactionIdError", fault.Fault{Code: "card-session-lost", Text: "the card is in another session", Retry: true, Who: fault.Device, Next: sessionIsLost}}},
	{9, code{"missingCrl", fault.Fault{Code: "server-certificate-refused", Text: "the card wants a revocation list that the server did not send", Who: fault.Operator, Next: checkServer}}},
	{10, code{"invalidCrlSignature", fault.Fault{Code: "server-certificate-refused", Text: "the signature of the server's revocation list is wrong", Who: fault.Operator, Next: checkServer}}},
	{11, code{"revokedCert", fault.Fault{Code: "server-certificate-refused", Text: "the server's certificate is revoked", Who: fault.Operator, Next: checkServer}}},
	{12, code{"invalidCertOrCrlTime", fault.Fault{Code: "server-certificate-refused", Text: "the server's certificate or revocation list has expired", Who: fault.Operator, Next: checkServer}}},
	{13, code{"invalidCertOrCrlConfiguration", fault.Fault{Code: "server-certificate-refused", Text: "the server's certificate or revocation list is not made as it must be", Who: fault.Operator, Next: checkServer}}},
	{14, code{"invalidIccid", notFound.fault}},
	{int(AuthenticateUndefined), undefined},
}

// Name returns the specification's name.
func (r AuthenticateResult) Name() string { return authenticateResults.nameOf(int(r)) }

// Error implements error.
func (r AuthenticateResult) Error() string { return r.Name() }

// Fault implements fault.Explainer.
func (r AuthenticateResult) Fault() fault.Fault { return authenticateResults.faultOf(int(r)) }

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

var downloadResults = codes{
	{int(DownloadInvalidCertificate), code{"invalidCertificate", fault.Fault{Code: "server-certificate-refused", Text: "the card does not accept the certificate for the profile package", Who: fault.Operator, Next: checkServer}}},
	{int(DownloadInvalidSignature), code{"invalidSignature", fault.Fault{Code: "server-signature-refused", Text: "the card does not accept the server's signature on the offer", Who: fault.Operator, Next: checkServer}}},
	{3, code{"unsupportedCurve", fault.Fault{Code: "curve-unsupported", Text: "the card does not support the curve of the server's key", Who: fault.Operator, Next: "ask the operator for a server for this card type"}}},
	{int(DownloadNoSession), code{"noSessionContext", fault.Fault{Code: "card-session-lost", Text: "the card has forgotten the session", Retry: true, Who: fault.Device, Next: sessionIsLost}}},
	{int(DownloadInvalidTransaction), code{"invalidTransactionId", fault.Fault{Code: "card-session-lost", Text: "the card is in another session", Retry: true, Who: fault.Device, Next: sessionIsLost}}},
	{int(DownloadUndefined), undefined},
}

// Name returns the specification's name.
func (r DownloadResult) Name() string { return downloadResults.nameOf(int(r)) }

// Error implements error.
func (r DownloadResult) Error() string { return r.Name() }

// Fault implements fault.Explainer.
func (r DownloadResult) Fault() fault.Fault { return downloadResults.faultOf(int(r)) }

// CancelResult is a refusal of ES10b.CancelSession (SGP.22 v2.5, section
// 5.7.14).
type CancelResult int

// Results that a caller may act on.
const (
	CancelNoSession       CancelResult = 5 // there is no such session any more: nothing to cancel
	CancelUndefinedResult CancelResult = 127
)

var cancelResults = codes{
	{int(CancelNoSession), code{"invalidTransactionId", fault.Fault{Code: "card-session-lost", Text: "the card has no such session any more", Who: fault.Nobody, Next: "nothing"}}},
	{int(CancelUndefinedResult), undefined},
}

// Name returns the specification's name.
func (r CancelResult) Name() string { return cancelResults.nameOf(int(r)) }

// Error implements error.
func (r CancelResult) Error() string { return r.Name() }

// Fault implements fault.Explainer.
func (r CancelResult) Fault() fault.Fault { return cancelResults.faultOf(int(r)) }

// CRLResult is a refusal of ES10b.LoadCRL (SGP.22 v2.5, section 5.7.12).
type CRLResult int

// CRLFresherLoaded is the result that needs no action.
const CRLFresherLoaded CRLResult = 5

var crlResults = codes{
	{1, code{"invalidSignature", fault.Fault{Code: "crl-refused", Text: "the signature of the revocation list is wrong", Who: fault.Configuration, Next: "load another revocation list"}}},
	{2, code{"invalidCRLFormat", fault.Fault{Code: "crl-refused", Text: "the card cannot read the revocation list", Who: fault.Configuration, Next: "load another revocation list"}}},
	{3, code{"notEnoughMemorySpace", fault.Fault{Code: "card-full", Text: "the card has no room for the revocation list", Who: fault.Technician, Next: "delete a profile that is not needed"}}},
	{4, code{"verificationKeyNotFound", fault.Fault{Code: "ci-unknown", Text: "the card does not know the issuer of the revocation list", Who: fault.Configuration, Next: "load another revocation list"}}},
	{int(CRLFresherLoaded), code{"fresherCrlAlreadyLoaded", fault.Fault{Code: "crl-known", Text: "the card has a newer revocation list", Who: fault.Nobody, Next: "nothing"}}},
	{6, code{"baseCrlMissing", fault.Fault{Code: "crl-refused", Text: "the base revocation list is missing", Who: fault.Configuration, Next: "load the base revocation list first"}}},
	{127, undefined},
}

// Name returns the specification's name.
func (r CRLResult) Name() string { return crlResults.nameOf(int(r)) }

// Error implements error.
func (r CRLResult) Error() string { return r.Name() }

// Fault implements fault.Explainer.
func (r CRLResult) Fault() fault.Fault { return crlResults.faultOf(int(r)) }

// GeneralResult is a refusal of a function that has only few results of no
// consequence: lists, addresses, removal of notifications.
type GeneralResult int

// The results.
const (
	GeneralIncorrectInput GeneralResult = 1
	GeneralUndefined      GeneralResult = 127
)

var generalResults = codes{
	{int(GeneralIncorrectInput), code{"incorrectInputValues", fault.Fault{Code: "card-refuses-input", Text: "the card does not understand the question", Who: fault.Device, Next: "report this with the log of lpad"}}},
	{int(GeneralUndefined), undefined},
}

// Name returns the specification's name.
func (r GeneralResult) Name() string { return generalResults.nameOf(int(r)) }

// Error implements error.
func (r GeneralResult) Error() string { return r.Name() }

// Fault implements fault.Explainer.
func (r GeneralResult) Fault() fault.Fault { return generalResults.faultOf(int(r)) }
