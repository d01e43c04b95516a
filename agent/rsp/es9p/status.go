package es9p

import (
	"fmt"
	"strings"

	"lpad/internal/fault"
)

// status is a pair of subject code and reason code. They are strings: 3.10 is
// not 3.1.
type status struct{ subject, reason string }

// meaning is what a status comes to for the people at this end.
type meaning struct {
	code  string
	text  string
	retry bool
	who   fault.Who
	next  string
}

// Advice that many refusals share.
const (
	askOperator    = "contact the operator who issued the activation code"
	newOrder       = "ask the operator for a new activation code"
	cardUnaccepted = "ask the operator whether eUICCs of this maker are accepted"
	ownDefect      = "report this with the log of lpad"
	tryLater       = "try again later"
)

// meanings explains the status codes of ES9+ and ES11 (SGP.22 v2.5, section
// 5.2.6 and the functions of 5.6 and 5.8). (A list: a map would be filled by code,
// at each start.)
var meanings = []struct {
	status
	meaning
}{
	{status{"8.1", "4.8"}, meaning{"card-full", "the eUICC has not enough memory for the profile", false, fault.Technician, "delete a profile that is not needed, then try again"}},
	{status{"8.1", "6.1"}, meaning{"euicc-signature-refused", "the server does not accept the eUICC's signature", true, fault.Device, "try again; if it stays, the card is not one that this operator accepts"}},
	{status{"8.1.1", "2.2"}, meaning{"eid-missing", "the order lacks the EID of this eUICC", false, fault.Operator, askOperator}},
	{status{"8.1.1", "3.8"}, meaning{"eid-refused", "the order is reserved for another eUICC", false, fault.Operator, "check that this is the device the code was issued for; " + askOperator}},
	{status{"8.1.1", "3.10"}, meaning{"iccid-of-other-eid", "the profile is already linked to another eUICC", false, fault.Operator, askOperator}},
	{status{"8.1.2", "6.1"}, meaning{"eum-certificate-refused", "the server does not accept the certificate of the eUICC's maker", false, fault.Operator, cardUnaccepted}},
	{status{"8.1.2", "6.3"}, meaning{"eum-certificate-expired", "the certificate of the eUICC's maker has expired", false, fault.CardVendor, cardUnaccepted}},
	{status{"8.1.3", "6.1"}, meaning{"euicc-certificate-refused", "the server does not accept the eUICC's certificate", false, fault.Operator, cardUnaccepted}},
	{status{"8.1.3", "6.3"}, meaning{"euicc-certificate-expired", "the eUICC's certificate has expired", false, fault.CardVendor, cardUnaccepted}},
	{status{"8.1.4", "6.1"}, meaning{"eid-outside-eum-range", "the EID is not in the range of the eUICC's maker", false, fault.CardVendor, cardUnaccepted}},

	{status{"8.2", "1.2"}, meaning{"profile-not-released", "the operator has not released the profile yet", true, fault.Operator, "try again later; if it stays, " + askOperator}},
	{status{"8.2", "3.7"}, meaning{"profile-already-bound", "the profile was already packed for another attempt and cannot be packed again", true, fault.Operator, "try again with the same eUICC, without erasing it; if it stays, " + askOperator}},
	{status{"8.2.1", "1.2"}, meaning{"profile-not-allowed", "the profile is not allowed for this request", false, fault.Operator, askOperator}},
	{status{"8.2.1", "3.3"}, meaning{"profile-unavailable", "the profile is not available", false, fault.Operator, askOperator}},
	{status{"8.2.1", "3.5"}, meaning{"profile-not-releasable", "the profile cannot be released", false, fault.Operator, askOperator}},
	{status{"8.2.1", "3.9"}, meaning{"profile-unknown", "the server does not know the profile", false, fault.Operator, askOperator}},
	{status{"8.2.1", "3.10"}, meaning{"profile-of-other-eid", "the profile belongs to another eUICC", false, fault.Operator, askOperator}},
	{status{"8.2.5", "1.2"}, meaning{"profile-type-not-allowed", "the type of profile is not allowed for this request", false, fault.Operator, askOperator}},
	{status{"8.2.5", "3.7"}, meaning{"profile-type-exhausted", "no profile of this type is left", false, fault.Operator, askOperator}},
	{status{"8.2.5", "3.8"}, meaning{"profile-type-mismatch", "the type of profile does not fit the order", false, fault.Operator, askOperator}},
	{status{"8.2.5", "3.9"}, meaning{"profile-type-unknown", "the server does not know the type of profile", false, fault.Operator, askOperator}},
	{status{"8.2.5", "4.3"}, meaning{"device-not-eligible", "the operator has no profile for a device or eUICC of this kind", false, fault.Operator, "check that the modem's real IMEI is sent (rsp.send_imei); " + askOperator}},

	{status{"8.2.6", "3.3"}, meaning{"matching-id-conflict", "the matching id contradicts the order", false, fault.Operator, askOperator}},
	{status{"8.2.6", "3.8"}, meaning{"matching-id-refused", "the activation code is wrong, already used, expired or cancelled", false, fault.Technician, "check the typing; if it is right, " + newOrder}},
	{status{"8.2.6", "3.10"}, meaning{"matching-id-linked", "the activation code is linked to another profile", false, fault.Operator, askOperator}},
	{status{"8.2.7", "2.2"}, meaning{"confirmation-code-missing", "the operator wants a confirmation code", false, fault.Technician, "enter the confirmation code and start again"}},
	{status{"8.2.7", "3.8"}, meaning{"confirmation-code-wrong", "the confirmation code is wrong", false, fault.Technician, "enter it again; the number of tries is limited"}},
	{status{"8.2.7", "6.4"}, meaning{"confirmation-tries-exhausted", "the confirmation code was wrong too often and the order is void", false, fault.Operator, newOrder}},

	{status{"8.8", "3.10"}, meaning{"smdp-oid-refused", "the server does not recognise its own object identifier", false, fault.Device, ownDefect}},
	{status{"8.8.1", "3.8"}, meaning{"smdp-address-refused", "the server does not recognise its name as it was written", false, fault.Technician, "use the server's name exactly as in the activation code"}},
	{status{"8.8.2", "3.1"}, meaning{"ci-not-supported", "the server knows none of the authorities of this eUICC", false, fault.Operator, cardUnaccepted}},
	{status{"8.8.3", "3.1"}, meaning{"svn-not-supported", "the server does not support the specification version of this eUICC", false, fault.Operator, cardUnaccepted}},
	{status{"8.8.4", "3.7"}, meaning{"no-common-ci", "the server has no certificate that this eUICC can check", false, fault.Operator, "a test card does not work with a live server, nor the other way round; " + cardUnaccepted}},
	{status{"8.8.5", "4.10"}, meaning{"order-expired", "the download order has expired", false, fault.Operator, newOrder}},
	{status{"8.8.5", "6.4"}, meaning{"download-tries-exhausted", "the profile was fetched too often without success and the order is void", false, fault.Operator, newOrder}},

	{status{"8.9", "4.2"}, meaning{"smds-error", "the discovery server had an error", true, fault.Operator, tryLater}},
	{status{"8.9", "5.1"}, meaning{"smds-unavailable", "the discovery server is not available", true, fault.Operator, tryLater}},
	{status{"8.9.1", "3.8"}, meaning{"smds-address-refused", "the discovery server does not recognise its name as it was written", false, fault.Technician, "check the name of the discovery server on the card or in the configuration"}},
	{status{"8.9.2", "3.1"}, meaning{"smds-ci-not-supported", "the discovery server knows none of the authorities of this eUICC", false, fault.Operator, cardUnaccepted}},
	{status{"8.9.3", "3.1"}, meaning{"smds-svn-not-supported", "the discovery server does not support the specification version of this eUICC", false, fault.Operator, cardUnaccepted}},
	{status{"8.9.4", "3.7"}, meaning{"smds-no-common-ci", "the discovery server has no certificate that this eUICC can check", false, fault.Operator, cardUnaccepted}},
	{status{"8.9.5", "3.3"}, meaning{"event-duplicate", "the event is registered twice at the discovery server", false, fault.Operator, askOperator}},
	{status{"8.9.5", "3.9"}, meaning{"nothing-pending", "nothing is waiting for this eUICC", false, fault.Nobody, "nothing is to be done; order a profile first"}},
	{status{"8.10.1", "3.9"}, meaning{"session-unknown", "the server does not know the session any more", true, fault.Device, "start the whole download again"}},
	{status{"8.11.1", "3.9"}, meaning{"eum-ci-unknown", "the server does not know the authority behind the eUICC's maker", false, fault.Operator, cardUnaccepted}},

	{status{"1.2.1", "2.1"}, meaning{"request-malformed", "the server does not accept the content type of the request", false, fault.Device, ownDefect}},
	{status{"1.2.1", "2.2"}, meaning{"request-malformed", "the server misses the content type of the request", false, fault.Device, ownDefect}},
	{status{"1.2.2", "2.1"}, meaning{"protocol-version-refused", "the server does not accept the protocol version of the request", false, fault.Configuration, "set rsp.protocol to a version that the server knows"}},
	{status{"1.2.2", "2.2"}, meaning{"protocol-version-refused", "the server misses the protocol version of the request", false, fault.Configuration, "set rsp.protocol to a version that the server knows"}},
	{status{"1.6", "2.1"}, meaning{"function-refused", "the server does not know the function that was called", false, fault.Device, ownDefect}},
	{status{"1.6", "2.2"}, meaning{"function-refused", "the server misses the name of the function", false, fault.Device, ownDefect}},
}

// known are the refusals of handleNotification that mean that the server has
// the notification. The specification gives that function no refusals, so this
// is what the words of the tables leave no doubt about: reason 3.3 is "already
// in use (uniqueness)", and of the subjects only the operation itself (8.10)
// and its transaction (8.10.1) can stand for the notification. The same reason
// for a profile (8.2.1) or an event (8.9.5) may be about something else, and a
// transaction that is unknown (8.10.1 with 3.9) was perhaps forgotten without
// the result: such a notification stays on the card.
var known = map[status]bool{
	{"8.10", "3.3"}:   true,
	{"8.10.1", "3.3"}: true,
}

// classes explains a reason by its class, for pairs that are in no table.
var classes = map[string]meaning{
	"1": {"server-refuses-access", "the server does not allow the request", false, fault.Operator, askOperator},
	"2": {"request-malformed", "the server does not accept the form of the request", false, fault.Device, ownDefect},
	"3": {"server-refuses-conditions", "the conditions for the request are not met", false, fault.Operator, askOperator},
	"4": {"server-processing-failed", "the server could not process the request", true, fault.Operator, "try again later; if it stays, " + askOperator},
	"5": {"server-transport-failed", "a system behind the server could not be reached", true, fault.Operator, tryLater},
	"6": {"server-refuses-security", "a security check of the server failed", false, fault.Operator, askOperator},
}

// Fault implements fault.Explainer.
func (e *Error) Fault() fault.Fault {
	m := e.meaning()
	return fault.Fault{Code: m.code, Text: m.text, Retry: m.retry, Who: m.who, Next: m.next}
}

func (e *Error) meaning() meaning {
	for i := range meanings {
		if m := &meanings[i]; m.subject == e.SubjectCode && m.reason == e.ReasonCode {
			return m.meaning
		}
	}
	return e.unlisted()
}

// unlisted explains a refusal that is not in the table: by the subject of the
// 1.x group (the request itself), by the class of its reason, or by its status.
func (e *Error) unlisted() meaning {
	if e.SubjectCode == "1" || strings.HasPrefix(e.SubjectCode, "1.") {
		return classes["2"].withCodes(e)
	}
	class, _, _ := strings.Cut(e.ReasonCode, ".")
	if m, ok := classes[class]; ok {
		return m.withCodes(e)
	}
	if strings.EqualFold(e.Status, "Expired") {
		return meaning{"request-expired", "the server took too long and gave the request up", true, fault.Operator, tryLater}
	}
	return meaning{"server-refused", "the server refuses without a known reason", false, fault.Operator, askOperator}.withCodes(e)
}

// withCodes adds the numbers to a text that is about a whole class.
func (m meaning) withCodes(e *Error) meaning {
	m.text = fmt.Sprintf("%s (%s)", m.text, e.codes())
	return m
}
