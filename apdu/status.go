package apdu

import (
	"fmt"

	"lpad/internal/fault"
)

// SW is a status word: what the card says of a command (ISO 7816-4, section
// 5.6; ETSI TS 102 221, section 10.2).
type SW uint16

// SW1 gives the first byte.
func (s SW) SW1() byte { return byte(s >> 8) }

// SW2 gives the second byte.
func (s SW) SW2() byte { return byte(s) }

// OK says whether the command was executed: 9000, 91xx (a proactive command
// waits, see [SW.Proactive]) and 92xx (an ongoing data transfer).
func (s SW) OK() bool { return s == 0x9000 || s.SW1() == 0x91 || s.SW1() == 0x92 }

// Proactive says whether the card has a proactive command for the terminal,
// and how many bytes it has. Somebody has to FETCH it: the modem does so by
// itself, behind a bare reader nobody does.
func (s SW) Proactive() (length int, pending bool) {
	return int(s.SW2()), s.SW1() == 0x91
}

// String gives the status word in hex and in plain words.
func (s SW) String() string { return fmt.Sprintf("%04X %s", uint16(s), s.meaning().text) }

// kind is a sentinel that explains itself.
type kind struct {
	text  string
	fault fault.Fault
}

func (k *kind) Error() string { return k.text }

// Fault explains the kind to package fault.
func (k *kind) Fault() fault.Fault { return k.fault }

// explainReader is what can be said of a card that cannot be talked to.
var explainReader = fault.Fault{
	Code: "card-connection", Text: "the connection to the card broke off in the middle of a command", Retry: true,
	Who: fault.Device, Next: "try again; if it stays, look at the seat of the card and at the reader or modem",
}

// What a [StatusError] may match, by errors.Is.
var (
	// ErrNotFound: no such application, file or object (6A82, 6A83, 6A88).
	ErrNotFound error = &kind{"not found on the card", fault.Fault{
		Code: "card-not-found", Text: "the card has no such application or object",
		Who: fault.Technician, Next: "check that the card is an eUICC and that the right slot or reader is used",
	}}
	// ErrBusy: the card is occupied with a toolkit session (9300).
	ErrBusy error = &kind{"card busy", fault.Fault{
		Code: "card-busy", Text: "the card is busy with the modem", Retry: true,
		Who: fault.Device, Next: "wait some seconds and try again; if it stays, reset the modem",
	}}
	// ErrChannelClosed: the card does not know the logical channel (6881): it
	// was reset, or the profile was switched. Open a new one.
	ErrChannelClosed error = &kind{"logical channel is closed", fault.Fault{
		Code: "card-channel-closed", Text: "the card was reset and forgot the connection to it", Retry: true,
		Who: fault.Device, Next: "try again",
	}}
	// ErrConditions: not now, or not in this state (6985, 6986).
	ErrConditions error = &kind{"conditions not satisfied", fault.Fault{
		Code: "card-conditions", Text: "the card refuses the command in its present state", Retry: true,
		Who: fault.Device, Next: "reset the card (after a profile switch it may insist on that) and try again",
	}}
	// ErrSecurity: access rights are missing (6982, 6983).
	ErrSecurity error = &kind{"security status not satisfied", fault.Fault{
		Code: "card-security", Text: "the card refuses access",
		Who: fault.CardVendor, Next: "the card or the modem forbids this command; ask their makers",
	}}
	// ErrMalformed: the card does not like how the command is made (6700,
	// 6A80, 6A86, 6A87, 6B00).
	ErrMalformed error = &kind{"command not understood", fault.Fault{
		Code: "card-malformed", Text: "the card takes a command for malformed",
		Who: fault.CardVendor, Next: "try a smaller block size; else report this with the log of lpad",
	}}
	// ErrUnsupported: the card has no such function (6800, 6882, 6A81, 6D00,
	// 6E00).
	ErrUnsupported error = &kind{"not supported by the card", fault.Fault{
		Code: "card-unsupported", Text: "the card does not support the command",
		Who: fault.CardVendor, Next: "use a card that supports it",
	}}
	// ErrMemory: memory failure or no space left (6581, 6A84).
	ErrMemory error = &kind{"card memory", fault.Fault{
		Code: "card-memory", Text: "the card's memory is full or failed",
		Who: fault.Technician, Next: "delete a profile that is not needed; if the card is not full, replace it",
	}}
)

// Errors of channels.
var (
	// ErrNoChannel: the card or the modem has no logical channel left.
	ErrNoChannel error = &kind{"no logical channel is free", fault.Fault{
		Code: "card-no-channel", Text: "the card has no free logical channel", Retry: true,
		Who: fault.Device, Next: "try again; if it stays, reset the card or the modem: another program may hold the channels",
	}}
	// ErrBroken: an exchange on the channel ended without an answer, so its
	// state is unknown. The first cause is in the chain.
	ErrBroken error = &kind{"channel is broken", explainReader}
	// ErrInUse: two goroutines use one channel, a mistake in the program.
	ErrInUse error = &kind{"channel is in use", fault.Fault{
		Code: fault.Internal, Text: "two users of one card channel",
		Who: fault.Device, Next: "report this with the log of lpad",
	}}
	// ErrEndless: the card makes more of a response than the limits allow.
	ErrEndless error = &kind{"response does not end", fault.Fault{
		Code: "card-endless-response", Text: "the card sends a response that does not end",
		Who: fault.CardVendor, Next: "reset the card; if it stays, replace it",
	}}
)

// meaning is what a status word says.
type meaning struct {
	mask, value SW
	text        string
	kind        error
}

// meanings is searched from the top, the special ones first.
var meanings = []meaning{
	{0xFFFF, 0x9000, "success", nil},
	{0xFF00, 0x9100, "success, a proactive command is waiting", nil},
	{0xFF00, 0x9200, "success, a data transfer is going on", nil},
	{0xFFFF, 0x9300, "busy with the SIM toolkit", ErrBusy},
	{0xFF00, 0x6100, "more data is waiting", nil},
	{0xFF00, 0x6200, "warning, nothing was changed", nil},
	{0xFF00, 0x6300, "warning, something was changed", nil},
	{0xFF00, 0x6400, "execution error, nothing was changed", nil},
	{0xFFFF, 0x6581, "memory failure", ErrMemory},
	{0xFF00, 0x6500, "execution error, something was changed", nil},
	{0xFFFF, 0x6601, "a command came damaged", nil},
	{0xFFFF, 0x6700, "wrong length", ErrMalformed},
	{0xFFFF, 0x6881, "logical channel not supported or closed", ErrChannelClosed},
	{0xFFFF, 0x6882, "secure messaging not supported", ErrUnsupported},
	{0xFF00, 0x6800, "function in class byte not supported", ErrUnsupported},
	{0xFFFF, 0x6982, "security status not satisfied", ErrSecurity},
	{0xFFFF, 0x6983, "authentication blocked", ErrSecurity},
	{0xFFFF, 0x6985, "conditions of use not satisfied", ErrConditions},
	{0xFFFF, 0x6986, "command not allowed, no file selected", ErrConditions},
	{0xFF00, 0x6900, "command not allowed", nil},
	{0xFFFF, 0x6A80, "data is malformed", ErrMalformed},
	{0xFFFF, 0x6A81, "function not supported", ErrUnsupported},
	{0xFFFF, 0x6A82, "file or application not found", ErrNotFound},
	{0xFFFF, 0x6A83, "record not found", ErrNotFound},
	{0xFFFF, 0x6A84, "not enough memory", ErrMemory},
	{0xFFFF, 0x6A86, "wrong parameters", ErrMalformed},
	{0xFFFF, 0x6A87, "length does not fit the parameters", ErrMalformed},
	{0xFFFF, 0x6A88, "referenced data not found", ErrNotFound},
	{0xFF00, 0x6A00, "wrong parameters", nil},
	{0xFFFF, 0x6B00, "wrong parameters", ErrMalformed},
	{0xFF00, 0x6C00, "wrong expected length", nil},
	{0xFFFF, 0x6D00, "instruction not supported", ErrUnsupported},
	{0xFFFF, 0x6E00, "class not supported", ErrUnsupported},
	{0xFFFF, 0x6F00, "no precise diagnosis", nil},
	{0x0000, 0x0000, "unknown status", nil},
}

func (s SW) meaning() meaning {
	for _, m := range meanings {
		if s&m.mask == m.value {
			return m
		}
	}
	return meaning{} // not reached: the last row fits all
}

// StatusError is a status word that is not a success.
type StatusError struct {
	SW SW
	Op string // what was being done: "SELECT"

	kind error // if Op gives the status word a meaning of its own
}

func (e *StatusError) Error() string {
	if e.kind != nil {
		return fmt.Sprintf("%s: card: %04X %v", e.Op, uint16(e.SW), e.kind)
	}
	return fmt.Sprintf("%s: card: %v", e.Op, e.SW)
}

// Unwrap gives the kind of the error, [ErrNotFound] or one of its siblings, or
// nil if there is no more to say than the status word.
func (e *StatusError) Unwrap() error {
	if e.kind != nil {
		return e.kind
	}
	return e.SW.meaning().kind
}

// Fault explains the error.
func (e *StatusError) Fault() fault.Fault {
	if k, ok := e.Unwrap().(*kind); ok {
		return k.fault
	}
	return fault.Fault{
		Code: "card-status", Text: fmt.Sprintf("the card ended %s with status %v", e.Op, e.SW), Retry: true,
		Who: fault.CardVendor, Next: "try again after a reset of the card; else report the status word to the maker of the card",
	}
}
