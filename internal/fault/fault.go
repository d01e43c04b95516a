// Package fault is the one model of an explained error, from a status word of
// the card up to the exit code of lpactl.
//
// An error that a person will read answers five questions: what happened, is
// there a stable code for it, does trying again help, who can mend it, and
// what is to be done next. Typed errors of any package answer them by
// implementing [Explainer]; everything else goes on wrapping with %w, and the
// edge (local socket, command line, log) calls [Of] once.
//
//	if err := install(ctx); err != nil {
//		f := fault.Of(err)
//		log.Error("install", "code", f.Code, "retry", f.Retry, "err", err)
//	}
//
// Nothing in this package can fail, and nothing in it holds a secret: a cause
// that carries one must not print it.
package fault

import (
	"context"
	"errors"
)

// Who can mend a fault.
type Who string

// The parties of an eSIM installation, as seen from the device.
const (
	Device        Who = "device"        // lpad itself: it tries again, or is at fault
	Technician    Who = "technician"    // the person at the device: typing, wiring, antenna, clock
	Operator      Who = "operator"      // the mobile operator who issued the activation code
	CardVendor    Who = "card-vendor"   // the maker of the eUICC or of its firmware
	Configuration Who = "configuration" // whoever writes the configuration of the device (OEM, fleet owner)
	Nobody        Who = "nobody"        // nothing is wrong
)

// Fault explains an error. The zero value explains nothing.
type Fault struct {
	Code  string // stable, machine-readable, in kebab-case: "matching-id-refused"
	Text  string // what happened, in plain words, one sentence without a full stop
	Retry bool   // the same request may succeed later without anybody's doing
	Who   Who    // who can mend it
	Next  string // what to do next, in plain words
}

// Explainer is an error that explains itself.
type Explainer interface {
	error
	Fault() Fault
}

// Internal is the code of an error that nobody explained: a defect of lpad.
const Internal = "internal"

// Of explains err by the outermost [Explainer] in its chain. A cancelled or
// expired context explains itself; anything else has the code [Internal] and
// its own text. Of(nil) is the zero Fault.
func Of(err error) Fault {
	if err == nil {
		return Fault{}
	}
	var e Explainer
	switch {
	case errors.As(err, &e):
		return e.Fault()
	case errors.Is(err, context.Canceled):
		return Fault{Code: "cancelled", Text: "the operation was cancelled", Retry: true, Who: Nobody, Next: "start it again when wanted"}
	case errors.Is(err, context.DeadlineExceeded):
		return Fault{Code: "timeout", Text: "no answer came in time", Retry: true, Who: Device, Next: "try again; if it stays, look at the link to the card, the modem and the server"}
	}
	return Fault{Code: Internal, Text: err.Error(), Who: Device, Next: "report this with the log of lpad"}
}

// New wraps cause with an explanation. The text of the error is the text of
// the fault, followed by the cause if there is one.
func New(f Fault, cause error) error { return &explained{f, cause} }

type explained struct {
	fault Fault
	cause error
}

func (e *explained) Error() string {
	if e.cause == nil {
		return e.fault.Text
	}
	return e.fault.Text + ": " + e.cause.Error()
}

func (e *explained) Unwrap() error { return e.cause }
func (e *explained) Fault() Fault  { return e.fault }
