package at

import (
	"errors"
	"fmt"
	"strconv"
	"strings"

	"lpad/internal/fault"
)

// Ends of a command or of a connection that a caller may act on. All of them
// explain themselves (see lpad/internal/fault). The *CMEError that the modem
// sent unwraps to one of them where its code says the same.
var (
	// ErrError is the plain ERROR of V.250: the modem refuses and does not say why.
	ErrError = sentinel("modem-error", "the modem refused the command without a reason", true, fault.Device,
		"try another way to do the same; set AT+CMEE=1 to learn the reason")
	// ErrNotSupported means that this modem has no such command or form of it.
	ErrNotSupported = sentinel("modem-not-supported", "the modem does not support this command", false, fault.Configuration,
		"choose another transport or path for this modem")
	// ErrNotAllowed means that the firmware forbids the operation, now or for good.
	ErrNotAllowed = sentinel("modem-not-allowed", "the modem does not allow this operation", false, fault.Configuration,
		"the firmware may keep the eUICC to itself: choose another transport or ask the maker of the modem")
	// ErrNoSIM means that the modem sees no SIM (an eUICC without an enabled profile looks like that on some modems).
	ErrNoSIM = sentinel("sim-missing", "the modem sees no SIM", true, fault.Technician,
		"check that the card sits in the active slot; an eUICC without an enabled profile may look like this")
	// ErrLocked means that the SIM or the device waits for a PIN or PUK.
	ErrLocked = sentinel("sim-locked", "the SIM is locked and waits for its PIN or PUK", false, fault.Technician,
		"unlock the SIM")
	// ErrSIMFailure means that the modem cannot talk to the SIM.
	ErrSIMFailure = sentinel("sim-failure", "the modem cannot talk to the SIM", true, fault.Device,
		"reset the SIM; if it stays, look at the contacts of the card")
	// ErrBusy means that the SIM or the modem is busy; the same command may work a little later.
	ErrBusy = sentinel("modem-busy", "the SIM or the modem is busy", true, fault.Device, "try again in a moment")
	// ErrBadParameter means that the modem does not take a value of the command.
	ErrBadParameter = sentinel("modem-bad-parameter", "the modem does not accept a parameter of the command", false, fault.Configuration,
		"check the value that was to be set; the modem may not know it")
	// ErrNotFound means that what the command names does not exist.
	ErrNotFound = sentinel("modem-not-found", "the modem does not find what the command names", false, fault.Device,
		"read back what exists and try again")
	// ErrNoService means that no network serves the device.
	ErrNoService = sentinel("no-network-service", "no network serves the modem", true, fault.Technician,
		"check antenna, coverage and whether the profile may be used here")
	// ErrAborted means that the modem broke the command off (ABORTED), usually because of a byte that came in between.
	ErrAborted = sentinel("modem-aborted", "the modem broke the command off", true, fault.Device, "try again")
	// ErrNoCarrier, ErrNoAnswer and ErrNoDialtone end a command that dials.
	ErrNoCarrier  = sentinel("no-carrier", "the data call ended or was not set up", true, fault.Operator, "try again; check the APN")
	ErrNoAnswer   = sentinel("no-answer", "the network did not take the call", true, fault.Operator, "try again; check the APN")
	ErrNoDialtone = sentinel("no-dialtone", "the modem has no line to dial on", true, fault.Technician, "check antenna and coverage")

	// ErrTimeout means that no final result code came in time. The line is
	// resynchronised before the next command. It comes with
	// context.DeadlineExceeded.
	ErrTimeout = sentinel("modem-silent", "the modem did not answer in time", true, fault.Device,
		"try again; if it stays, see who else uses this port and whether the modem hangs")
	// ErrNoFinal means that the information came, but no final result code
	// within [Request.Settle] after it. The lines are returned beside it.
	ErrNoFinal = sentinel("modem-no-final", "the modem answered but did not end its answer", true, fault.Device, "try again")
	// ErrHangup means that the line went away: unplugged, re-enumerated, or the other end closed it.
	ErrHangup = sentinel("modem-hangup", "the line to the modem hung up", true, fault.Device,
		"the port is opened again when the modem comes back")
	// ErrClosed means that the connection was closed by its owner.
	ErrClosed = sentinel("modem-closed", "the connection to the modem is closed", true, fault.Device, "open it again")
	// ErrTooLong means that a line or an answer was over the limit; the rest of the answer was discarded.
	ErrTooLong = sentinel("modem-answer-too-long", "the modem sent more than any answer holds", true, fault.Device,
		"see whether the port carries something else than AT (wrong port, data mode, wrong baud rate)")
	// ErrPrompt means that the modem asked for text ("> ") although no text belongs to the command; it was told to stop.
	ErrPrompt = sentinel("modem-prompt", "the modem unexpectedly asked for text", false, fault.Device, "report this with the log of lpad")
	// ErrBadCommand means that the command line itself must not be sent: empty, too long, or with control characters.
	ErrBadCommand = sentinel("modem-bad-command", "the command line has characters that must not be sent to a modem", false, fault.Configuration,
		"check the value that was to be set for control characters")
)

func sentinel(code, text string, retry bool, who fault.Who, next string) error {
	return fault.New(fault.Fault{Code: code, Text: text, Retry: retry, Who: who, Next: next}, nil)
}

// CMEError is a +CME ERROR result: the modem or the SIM refuses and says why.
type CMEError struct {
	Code int    // 3GPP TS 27.007, section 9.2; -1 when the modem sent a text that no code has
	Text string // as sent by the modem, or the specification's text for a number
}

// Error gives the number and the text.
func (e *CMEError) Error() string {
	if e.Code < 0 {
		return "CME ERROR: " + e.Text
	}
	return fmt.Sprintf("CME ERROR %d: %s", e.Code, e.Text)
}

// Unwrap returns the sentinel that says the same as the code, if there is one.
func (e *CMEError) Unwrap() error {
	if m, ok := cme(e.Code); ok && m.is != nil {
		return *m.is
	}
	return nil
}

// Fault explains the code in plain words.
func (e *CMEError) Fault() fault.Fault {
	m, ok := cme(e.Code)
	f := fault.Fault{Code: "modem-error", Text: "the modem refused: " + e.Text, Who: fault.Device,
		Next: "look the code up in the manual of the modem"}
	if ok && m.is != nil {
		f = fault.Of(*m.is)
	}
	if ok && m.plain != "" {
		f.Text = m.plain
	}
	if ok && m.next != "" {
		f.Next = m.next
	}
	return f
}

// CMSError is a +CMS ERROR result, of the commands for short messages.
type CMSError struct {
	Code int    // 3GPP TS 27.005, section 3.2.5; -1 when the modem sent a text
	Text string // as sent by the modem, empty for a number
}

// Error gives what the modem sent.
func (e *CMSError) Error() string {
	if e.Code < 0 {
		return "CMS ERROR: " + e.Text
	}
	return fmt.Sprintf("CMS ERROR %d", e.Code)
}

// Fault explains the error; lpad sends no short messages, so there is little to say.
func (e *CMSError) Fault() fault.Fault {
	return fault.Fault{Code: "modem-error", Text: "the modem refused: " + e.Error(), Retry: true, Who: fault.Device, Next: "try again"}
}

// cmeCode is what is known of one code of TS 27.007, section 9.2.
type cmeCode struct {
	code  int
	text  string // the specification's text, which modems send with AT+CMEE=2
	is    *error // sentinel, or nil; by its address, so that the table is data and not code
	plain string // in plain words; empty: those of the sentinel
	next  string
}

// cmeCodes is TS 27.007, section 9.2.1 (general) and the codes of 9.2.2 that a
// data modem sends.
var cmeCodes = []cmeCode{
	{code: 0, text: "phone failure", plain: "the modem has an internal failure (after a change of SIM: it lost the card)",
		next: "reset the SIM (AT+CFUN=0, AT+CFUN=1), then the modem"},
	{code: 1, text: "no connection to phone"},
	{code: 2, text: "phone-adaptor link reserved", is: &ErrBusy},
	{code: 3, text: "operation not allowed", is: &ErrNotAllowed},
	{code: 4, text: "operation not supported", is: &ErrNotSupported},
	{code: 5, text: "PH-SIM PIN required", is: &ErrLocked, plain: "the modem is locked to another SIM"},
	{code: 6, text: "PH-FSIM PIN required", is: &ErrLocked, plain: "the modem is locked to its first SIM"},
	{code: 7, text: "PH-FSIM PUK required", is: &ErrLocked, plain: "the modem is locked to its first SIM"},
	{code: 10, text: "SIM not inserted", is: &ErrNoSIM},
	{code: 11, text: "SIM PIN required", is: &ErrLocked, plain: "the SIM waits for its PIN"},
	{code: 12, text: "SIM PUK required", is: &ErrLocked, plain: "the SIM is blocked and waits for its PUK"},
	{code: 13, text: "SIM failure", is: &ErrSIMFailure},
	{code: 14, text: "SIM busy", is: &ErrBusy, plain: "the SIM is busy"},
	{code: 15, text: "SIM wrong", is: &ErrSIMFailure, plain: "the modem does not accept this SIM",
		next: "the modem may be locked to an operator, or the profile is not for this kind of device"},
	{code: 16, text: "incorrect password", plain: "the password or PIN is wrong", next: "check the PIN; do not try again blindly"},
	{code: 17, text: "SIM PIN2 required", is: &ErrLocked, plain: "the SIM waits for its PIN2"},
	{code: 18, text: "SIM PUK2 required", is: &ErrLocked, plain: "the PIN2 of the SIM is blocked"},
	{code: 20, text: "memory full", plain: "the memory of the modem or SIM is full", next: "delete what is not needed"},
	{code: 21, text: "invalid index", is: &ErrNotFound, plain: "the modem does not know this number (context, session or place)"},
	{code: 22, text: "not found", is: &ErrNotFound, plain: "the modem or the SIM does not find it (for a channel: no such application on the card)"},
	{code: 23, text: "memory failure", is: &ErrSIMFailure, plain: "reading or writing the memory of the modem or SIM failed"},
	{code: 24, text: "text string too long", is: &ErrBadParameter, plain: "a text is too long for the modem"},
	{code: 25, text: "invalid characters in text string", is: &ErrBadParameter, plain: "a text has characters that the modem does not take"},
	{code: 26, text: "dial string too long", is: &ErrBadParameter},
	{code: 27, text: "invalid characters in dial string", is: &ErrBadParameter},
	{code: 30, text: "no network service", is: &ErrNoService},
	{code: 31, text: "network timeout", is: &ErrTimeoutNetwork, plain: "the network did not answer in time"},
	{code: 32, text: "network not allowed - emergency calls only", is: &ErrNoService, plain: "the network refuses this subscription (emergency calls only)",
		next: "ask the operator whether the profile is active and may roam here"},
	{code: 40, text: "network personalization PIN required", is: &ErrLocked, plain: "the modem is locked to an operator",
		next: "the maker or seller of the device must unlock it"},
	{code: 41, text: "network personalization PUK required", is: &ErrLocked, plain: "the modem is locked to an operator"},
	{code: 48, text: "hidden key required", is: &ErrLocked},
	{code: 49, text: "EAP method not supported", is: &ErrNotSupported},
	{code: 50, text: "incorrect parameters", is: &ErrBadParameter},
	{code: 51, text: "command implemented but currently disabled", is: &ErrNotAllowed, plain: "the modem has switched this command off"},
	{code: 52, text: "command aborted by user", is: &ErrAborted},
	{code: 53, text: "not attached to network due to MT functionality restrictions", is: &ErrNoService},
	{code: 100, text: "unknown", plain: "the modem refused for a reason it does not know", next: "try again; if it stays, reset the SIM"},
	{code: 103, text: "illegal MS", is: &ErrRefused, plain: "the network refuses this subscription (illegal MS)"},
	{code: 106, text: "illegal ME", is: &ErrRefused, plain: "the network refuses this device (illegal ME)",
		next: "ask the operator whether this device's IMEI is allowed"},
	{code: 107, text: "GPRS services not allowed", is: &ErrRefused, plain: "the network allows no data service for this subscription"},
	{code: 111, text: "PLMN not allowed", is: &ErrRefused, plain: "this subscription may not use this network"},
	{code: 112, text: "location area not allowed", is: &ErrRefused, plain: "this subscription may not be used at this place"},
	{code: 113, text: "roaming not allowed in this location area", is: &ErrRefused, plain: "this subscription may not roam here"},
	{code: 132, text: "service option not supported", is: &ErrRefused, plain: "the network does not offer the service asked for (often: IP type)"},
	{code: 133, text: "requested service option not subscribed", is: &ErrRefused, plain: "the APN does not belong to this subscription",
		next: "check the APN with the operator"},
	{code: 134, text: "service option temporarily out of order", is: &ErrBusy, plain: "the network's data service is out of order for the moment"},
	{code: 148, text: "unspecified GPRS error", plain: "the network refused the data connection without a reason"},
	{code: 149, text: "PDP authentication failure", is: &ErrRefused, plain: "user name or password of the APN is wrong",
		next: "check user, password and kind of authentication of the APN"},
	{code: 150, text: "invalid mobile class", is: &ErrRefused},
}

// cme is what is known of a code.
func cme(code int) (cmeCode, bool) {
	for _, m := range cmeCodes {
		if m.code == code {
			return m, true
		}
	}
	m := cmeCode{code: code, text: "refused by the network", is: &ErrRefused}
	switch {
	case code >= 42 && code <= 47:
		m.text, m.is, m.plain = "lock of the modem", &ErrLocked, "the modem is locked to an operator"
	case code == 54 || code == 55:
		m.text, m.is = "functions of the modem are restricted", &ErrNoService
	case code == 116 || code == 117 || code == 122 || code == 126 || code == 190 || code == 204:
		m.is, m.plain = &ErrTimeoutNetwork, "the network cannot do it for the moment"
	case code <= 100 || code > maxCME:
		return cmeCode{}, false
	}
	return m, true
}

// maxCME is the last code of TS 27.007 version 17, section 9.2: those from 101 on
// are the network's refusals.
const maxCME = 233

// ErrRefused means that the network refuses the subscription, the device or the
// service. ErrTimeoutNetwork means that the network, not the modem, was silent.
var (
	ErrRefused = sentinel("network-refused", "the network refuses", false, fault.Operator,
		"ask the operator whether the subscription is active and what it allows")
	ErrTimeoutNetwork = sentinel("network-silent", "the network did not answer the modem in time", true, fault.Operator, "try again")
)

// unknownText is the code of a text that no code has.
const unknownText = -1

// parseCME reads what follows "+CME ERROR:": a number, or the text of one.
func parseCME(s string) *CMEError {
	s = strings.Trim(strings.TrimSpace(s), `"`)
	if n, err := strconv.Atoi(s); err == nil && n >= 0 {
		if m, ok := cme(n); ok {
			return &CMEError{Code: n, Text: m.text}
		}
		return &CMEError{Code: n, Text: "code of the maker of the modem"}
	}
	for _, m := range cmeCodes {
		if sameWords(s, m.text) {
			return &CMEError{Code: m.code, Text: m.text}
		}
	}
	for _, m := range cmeTexts {
		if sameWords(s, m.text) {
			return &CMEError{Code: m.code, Text: s}
		}
	}
	if s == "" {
		return &CMEError{Code: 100, Text: "unknown"}
	}
	return &CMEError{Code: unknownText, Text: printable(s)}
}

// cmeTexts are other texts of the same codes, as modems send them.
var cmeTexts = []struct {
	text string
	code int
}{
	{"unknown error", 100},
	{"invalid parameters", 50},
	{"invalid parameter", 50},
	{"parameters error", 50}, // Sierra EM9191: lpac issue 187
	{"parameter error", 50},
	{"SIM not present", 10},
	{"no SIM", 10},
	{"SIM interface not started", 10},
	{"command not supported", 4},
	{"operation temporary not allowed", 3},
}

func parseCMS(s string) *CMSError {
	s = strings.TrimSpace(s)
	if n, err := strconv.Atoi(s); err == nil && n >= 0 {
		return &CMSError{Code: n}
	}
	return &CMSError{Code: unknownText, Text: printable(s)}
}

// sameWords compares two texts without regard to case, blanks, hyphens and underscores.
func sameWords(a, b string) bool {
	strip := strings.NewReplacer(" ", "", "-", "", "_", "")
	return strings.EqualFold(strip.Replace(a), strip.Replace(b))
}

// maxErrorText bounds the text of a modem that goes into our errors.
const maxErrorText = 80

func printable(s string) string {
	s = strings.Map(func(r rune) rune {
		if r < 0x20 || r > 0x7E {
			return '?'
		}
		return r
	}, s)
	if len(s) > maxErrorText {
		s = s[:maxErrorText] + "…"
	}
	return s
}

// Refused reports whether err is an answer of the modem (ERROR, +CME ERROR,
// +CMS ERROR), as against silence, a hang-up or a cancelled context.
func Refused(err error) bool {
	var cme *CMEError
	var cms *CMSError
	return errors.As(err, &cme) || errors.As(err, &cms) || errors.Is(err, ErrError) ||
		errors.Is(err, ErrNotSupported) || errors.Is(err, ErrBadParameter)
}
