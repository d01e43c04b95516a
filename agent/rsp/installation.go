package rsp

import (
	"errors"
	"fmt"

	"lpad/apdu/ber"
	"lpad/internal/fault"
)

// ProfileInstallationResult is the card's signed word on a download, good or
// bad (SGP.22 v2.5, section 2.5.6). It is a notification too.
type ProfileInstallationResult struct {
	TransactionID TransactionID
	Notification  Notification
	SMDPOID       string
	AID           AID                // of the new ISD-P; nil on failure
	SIMA          SIMAResponse       // what the profile package interpreter said
	Failure       *InstallationError // nil on success
	Raw           []byte             // whole TLV BF37
}

// Err is nil when the profile is installed, else the [*InstallationError].
func (r ProfileInstallationResult) Err() error {
	if r.Failure == nil {
		return nil
	}
	return r.Failure
}

// SIMAResponse is the answer of the profile package interpreter (TCA profile
// interoperability: EUICCResponse). Cards differ a lot here, so what cannot be
// read stays in Raw and is no error.
type SIMAResponse struct {
	Elements []PEStatus
	Aborted  bool
	Message  string
	Raw      []byte
}

// PEStatus is the interpreter's word on one profile element.
type PEStatus struct {
	Status     int // 0 is ok
	ID         int // identification of the profile element; -1 unsaid
	Additional int // -1 unsaid
	Offset     int // -1 unsaid
}

var peStatusNames = map[int]string{
	0: "ok", 1: "pe-not-supported", 2: "memory-failure", 3: "bad-values", 4: "not-enough-memory",
	5: "invalid-request-format", 6: "invalid-parameter", 7: "runtime-not-supported", 8: "lib-not-supported",
	9: "template-not-supported", 10: "feature-not-supported", 11: "pin-code-missing", 31: "unsupported-profile-version",
}

// String returns "template-not-supported in element 5".
func (s PEStatus) String() string {
	name, ok := peStatusNames[s.Status]
	if !ok {
		name = fmt.Sprintf("status %d", s.Status)
	}
	if s.ID >= 0 {
		name += fmt.Sprintf(" in element %d", s.ID)
	}
	return name
}

// Failed returns the first element that did not go well.
func (r SIMAResponse) Failed() (PEStatus, bool) {
	for _, e := range r.Elements {
		if e.Status != 0 {
			return e, true
		}
	}
	return PEStatus{}, false
}

// BPPCommand is the part of a bound profile package that failed.
type BPPCommand int

// String returns the specification's name.
func (c BPPCommand) String() string {
	return pick(int(c), "initialiseSecureChannel", "configureISDP", "storeMetadata", "storeMetadata2", "replaceSessionKeys", "loadProfileElements")
}

// ErrorReason is why a download failed on the card.
type ErrorReason int

// Reasons that a caller may act on; the others have names only.
const (
	ReasonICCIDAlreadyExists ErrorReason = 9
	ReasonInsufficientMemory ErrorReason = 10
	ReasonInterruption       ErrorReason = 11
	ReasonPEProcessingError  ErrorReason = 12
	ReasonPPRNotAllowed      ErrorReason = 15

	maxReason ErrorReason = 26 // of SGP.22 v3.1, beside 127
)

// InstallationError is a download that the card refused: table 3.5. It is a
// fault.Explainer.
type InstallationError struct {
	Command BPPCommand
	Reason  ErrorReason
	SIMA    SIMAResponse
}

const (
	restartSession = "start the download again"
	askOperator    = "ask the operator for another profile package"
)

var errorReasons = codes{
	{1, code{"incorrectInputValues", fault.Fault{Code: "package-malformed", Text: "the card cannot read the profile package", Retry: true, Who: fault.Operator, Next: "try once more, then ask the operator"}}},
	{2, code{"invalidSignature", fault.Fault{Code: "package-signature", Text: "the signature of the profile package is wrong", Who: fault.Operator, Next: askOperator}}},
	{3, code{"invalidTransactionId", fault.Fault{Code: "package-stale", Text: "the profile package belongs to another session", Retry: true, Who: fault.Device, Next: restartSession}}},
	{4, code{"unsupportedCrtValues", fault.Fault{Code: "package-keys-unsupported", Text: "the profile package uses keys that the card does not support", Who: fault.Operator, Next: askOperator}}},
	{5, code{"unsupportedRemoteOperationType", fault.Fault{Code: "package-operation-unsupported", Text: "the profile package asks for an operation that the card does not support", Who: fault.Operator, Next: askOperator}}},
	{6, code{"unsupportedProfileClass", fault.Fault{Code: "profile-class-unsupported", Text: "the card does not accept profiles of this class, such as test profiles", Who: fault.Operator, Next: "ask the operator for an operational profile"}}},
	{7, code{"scp03tStructureError", fault.Fault{Code: "package-structure", Text: "the structure of the profile package is broken", Retry: true, Who: fault.Operator, Next: "try once more, then ask the operator"}}},
	{8, code{"scp03tSecurityError", fault.Fault{Code: "package-security", Text: "the profile package does not decrypt: parts are damaged or lost", Retry: true, Who: fault.Device, Next: "try once more; if it stays, look at the link to the card"}}},
	{int(ReasonICCIDAlreadyExists), code{"installFailedDueToIccidAlreadyExistsOnEuicc", fault.Fault{Code: "profile-already-installed", Text: "this profile is already on the card", Who: fault.Technician, Next: "use the installed profile, or delete it first"}}},
	{int(ReasonInsufficientMemory), code{"installFailedDueToInsufficientMemoryForProfile", fault.Fault{Code: "card-full", Text: "the card has no room for this profile", Who: fault.Technician, Next: "delete a profile that is not needed and start again"}}},
	{int(ReasonInterruption), code{"installFailedDueToInterruption", fault.Fault{Code: "installation-interrupted", Text: "the installation was interrupted by a loss of power or of the link to the card", Retry: true, Who: fault.Device, Next: restartSession}}},
	{int(ReasonPEProcessingError), code{"installFailedDueToPEProcessingError", fault.Fault{Code: "profile-not-supported", Text: "the card's firmware cannot process this profile", Who: fault.CardVendor, Next: "ask the operator for a profile for this card type; the activation code may be used up"}}},
	{13, code{"installFailedDueToDataMismatch", fault.Fault{Code: "profile-data-mismatch", Text: "the profile is not the one that its description announces", Who: fault.Operator, Next: askOperator}}},
	{14, code{"testProfileInstallFailedDueToInvalidNaaKey", fault.Fault{Code: "test-profile-key", Text: "the test profile has a key that is not for tests", Who: fault.Operator, Next: askOperator}}},
	{int(ReasonPPRNotAllowed), code{"pprNotAllowed", fault.Fault{Code: "ppr-not-allowed", Text: "the card does not allow the policy rules of this profile", Who: fault.Operator, Next: "ask the operator for a profile without these rules"}}},
	{127, code{"installFailedDueToUnknownError", fault.Fault{Code: "installation-failed", Text: "the card could not install the profile and does not say why", Retry: true, Who: fault.CardVendor, Next: "try once more, then ask the operator"}}},
}

// Name returns the specification's name of the reason.
func (r ErrorReason) Name() string { return errorReasons.nameOf(int(r)) }

// Error implements error.
func (e *InstallationError) Error() string {
	s := fmt.Sprintf("card: %s failed: %s (%d)", e.Command, e.Reason.Name(), int(e.Reason))
	if pe, ok := e.SIMA.Failed(); ok {
		s += ": " + pe.String()
	}
	return s
}

// Fault implements fault.Explainer.
func (e *InstallationError) Fault() fault.Fault {
	f := errorReasons.faultOf(int(e.Reason))
	if e.Reason > ReasonPPRNotAllowed && e.Reason <= maxReason { // of SGP.22 v3: enterprises, and what only new cards have
		f = fault.Fault{Code: "profile-not-supported", Text: fmt.Sprintf("the card does not take profiles of this kind (reason %d)", int(e.Reason)), Who: fault.Operator, Next: askOperator}
	}
	if e.Reason == ReasonPEProcessingError {
		if pe, ok := e.SIMA.Failed(); ok {
			f.Text += ": " + pe.String()
		}
	}
	return f
}

// ParseProfileInstallationResult reads a BF37.
func ParseProfileInstallationResult(b []byte) (ProfileInstallationResult, error) {
	res, err := parseInstallationResult(b)
	if err != nil {
		return ProfileInstallationResult{}, fmt.Errorf("profile installation result: %w", err)
	}
	return res, nil
}

func parseInstallationResult(b []byte) (res ProfileInstallationResult, err error) {
	t, err := ber.Parse(b)
	if err != nil {
		return res, err
	}
	if t.Tag != 0xBF37 {
		return res, fmt.Errorf("tag %X, want BF37", uint32(t.Tag))
	}
	outer := t.Reader()
	data := outer.Read(0xBF27).Reader()
	id := data.Read(0x80)
	meta := data.Read(0xBF2F)
	oid := data.Read(0x06)
	final, ok := data.Find(0xA2)
	outer.Find(0x5F37) // the server verifies it
	if err := errors.Join(outer.Err(), data.Err()); err != nil {
		return res, err
	}
	if !ok {
		return res, errors.New("no final result")
	}
	res.Raw = clone(t.Raw)
	if len(id.Value) == 0 || len(id.Value) > maxTransactionID {
		return res, fmt.Errorf("transactionId of %d bytes", len(id.Value))
	}
	res.TransactionID = clone(id.Value)
	if res.Notification, err = parseNotification(meta); err != nil {
		return res, fmt.Errorf("notification metadata: %w", err)
	}
	if res.SMDPOID, err = ParseOID(oid.Value); err != nil {
		return res, fmt.Errorf("smdpOid: %w", err)
	}
	if err := res.parseFinal(final); err != nil {
		return res, fmt.Errorf("final result: %w", err)
	}
	return res, nil
}

// parseFinal reads SuccessResult, whose AID has a written tag so that its
// other component keeps the universal one, or ErrorResult, which is tagged
// automatically.
func (r *ProfileInstallationResult) parseFinal(t ber.TLV) error {
	final := t.Reader()
	result, ok := final.Next()
	if !ok {
		return errors.Join(errors.New("empty"), final.Err())
	}
	in := result.Reader()
	switch result.Tag {
	case 0xA0:
		aid := in.Read(0x4F)
		sima, _ := in.Find(0x04)
		r.AID, r.SIMA = clone(aid.Value), parseSIMA(sima.Value)
		return in.Err()
	case 0xA1:
		command, reason := in.Read(0x80), in.Read(0x81)
		sima, _ := in.Find(0x82)
		if err := in.Err(); err != nil {
			return err
		}
		c, err := command.Int()
		if err != nil {
			return fmt.Errorf("bppCommandId: %w", err)
		}
		n, err := reason.Int()
		if err != nil {
			return fmt.Errorf("errorReason: %w", err)
		}
		r.SIMA = parseSIMA(sima.Value)
		r.Failure = &InstallationError{BPPCommand(c), ErrorReason(n), r.SIMA}
		return nil
	}
	return fmt.Errorf("tag %X, want A0 or A1", uint32(result.Tag))
}

const maxPEStatus = 256

// parseSIMA reads one or more EUICCResponse.
func parseSIMA(b []byte) SIMAResponse {
	s := SIMAResponse{Raw: clone(b)}
	r := ber.NewReader(b)
	for e, ok := r.Next(); ok; e, ok = r.Next() {
		if e.Tag != 0x30 {
			continue
		}
		in := e.Reader()
		for f, ok := in.Next(); ok; f, ok = in.Next() {
			switch f.Tag {
			case 0xA0:
				s.parseElements(f)
			case 0x81:
				s.Aborted = true
			case 0x82:
				s.Message = CutText(DisplayText(string(f.Value)), maxText)
			}
		}
	}
	return s
}

func (s *SIMAResponse) parseElements(t ber.TLV) {
	r := t.Reader()
	for e, ok := r.Next(); ok && len(s.Elements) < maxPEStatus; e, ok = r.Next() {
		if e.Tag != 0x30 {
			continue
		}
		pe := PEStatus{Status: -1, ID: -1, Additional: -1, Offset: -1}
		in := e.Reader()
		for f, ok := in.Next(); ok; f, ok = in.Next() {
			n, err := f.Int()
			if err != nil {
				continue
			}
			switch f.Tag {
			case 0x80:
				pe.Status = int(n)
			case 0x81:
				pe.ID = int(n)
			case 0x82:
				pe.Additional = int(n)
			case 0x83:
				pe.Offset = int(n)
			}
		}
		s.Elements = append(s.Elements, pe)
	}
}
