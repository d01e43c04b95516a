package systembus

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/godbus/dbus/v5"

	"lpad/internal/fault"
)

// What can be wrong with a service. Every [*Error] unwraps to exactly one of
// them.
var (
	ErrBusDown     = errors.New("the system bus does not answer")
	ErrAbsent      = errors.New("the service does not run")
	ErrSilent      = errors.New("the service does not answer")
	ErrDenied      = errors.New("not allowed")
	ErrGone        = errors.New("the object has gone")
	ErrUnsupported = errors.New("not supported")
	ErrBusy        = errors.New("not possible now")
	ErrRefused     = errors.New("refused") // any other error that the service answered with
)

// Error is an error answer from the bus or from a service on it.
type Error struct {
	Service Service
	Op      string // the method
	Name    string // D-Bus name of the error; empty if there was no answer
	Text    string // the service's own words
	kind    error
	cause   error
}

// Error names the service, the method and the reason in the service's words.
func (e *Error) Error() string {
	var b strings.Builder
	if e.Service.Name != "" {
		fmt.Fprintf(&b, "%s: %s: ", e.Service.Name, e.Op[strings.LastIndexByte(e.Op, '.')+1:])
	}
	b.WriteString(e.kind.Error())
	if e.Text != "" {
		b.WriteString(": " + e.Text)
	}
	if e.Name != "" {
		b.WriteString(" (" + e.Name + ")")
	}
	return b.String()
}

// Unwrap returns the kind of the error and its cause, if it has one of its own.
func (e *Error) Unwrap() []error {
	if e.cause == nil {
		return []error{e.kind}
	}
	return []error{e.kind, e.cause}
}

// Fault explains the error; its codes begin with the service's
// ("modemmanager-absent").
func (e *Error) Fault() fault.Fault {
	name, code := e.Service.Name, e.Service.Code
	switch e.kind {
	case ErrBusDown:
		return fault.Fault{Code: "system-bus-down", Text: "the D-Bus system bus does not answer", Retry: true, Who: fault.Configuration,
			Next: "start dbus (systemctl status dbus), or correct DBUS_SYSTEM_BUS_ADDRESS"}
	case ErrAbsent:
		return fault.Fault{Code: code + "-absent", Text: name + " does not run", Retry: true, Who: fault.Configuration,
			Next: "install and start " + name + " (systemctl status " + name + "), or choose another network back-end"}
	case ErrSilent:
		return fault.Fault{Code: code + "-silent", Text: name + " does not answer", Retry: true, Who: fault.Technician,
			Next: "look at the log of " + name + " and restart it"}
	case ErrDenied:
		return fault.Fault{Code: code + "-not-authorized", Text: name + " does not allow lpad to do this", Who: fault.Configuration,
			Next: "install lpad's D-Bus policy and polkit rule, or run lpad as a user who may control " + name}
	case ErrGone:
		return fault.Fault{Code: code + "-object-gone", Text: "what was spoken of has gone from " + name, Retry: true, Who: fault.Device,
			Next: "wait until the modem is back; if it stays away, look at its power and its cable"}
	case ErrUnsupported:
		return fault.Fault{Code: code + "-unsupported", Text: name + " cannot do this with this modem", Who: fault.Configuration,
			Next: "give lpad an AT port of its own, or use a newer " + name}
	case ErrBusy:
		return fault.Fault{Code: code + "-busy", Text: name + " cannot do this at the moment", Retry: true, Who: fault.Device, Next: "try again"}
	}
	return fault.Fault{Code: code + "-refused", Text: name + " refused: " + e.Text, Retry: true, Who: fault.Device,
		Next: "look at the log of " + name}
}

// Transient reports whether an error may pass by itself while a service or a
// modem comes back: one to wait through rather than to give up for.
func Transient(err error) bool {
	return errors.Is(err, ErrBusDown) || errors.Is(err, ErrAbsent) || errors.Is(err, ErrGone) || errors.Is(err, ErrBusy)
}

// kinds sorts D-Bus error names by their last part, which the services use
// alike ("org.freedesktop.ModemManager1.Error.Core.Unauthorized",
// "org.freedesktop.NetworkManager.PermissionDenied").
var kinds = map[string]error{
	"ServiceUnknown": ErrAbsent, "NameHasNoOwner": ErrAbsent, "NoReply": ErrGone, "Disconnected": ErrBusDown, "NoServer": ErrBusDown,
	"UnknownObject": ErrGone, "UnknownMethod": ErrGone, "UnknownInterface": ErrGone, "UnknownDevice": ErrGone,
	"UnknownConnection": ErrGone, "InvalidConnection": ErrRefused, "ConnectionNotActive": ErrGone, "NotFound": ErrGone,
	"AccessDenied": ErrDenied, "Unauthorized": ErrDenied, "PermissionDenied": ErrDenied, "NotPrivileged": ErrDenied, "AuthFailed": ErrDenied,
	"InteractiveAuthorizationRequired": ErrDenied,
	"Unsupported":                      ErrUnsupported, "NotSupported": ErrUnsupported, "UnknownProperty": ErrUnsupported,
	"InProgress": ErrBusy, "WrongState": ErrBusy, "Retry": ErrBusy, "Aborted": ErrBusy, "Cancelled": ErrBusy,
	"Timeout": ErrSilent, "TimedOut": ErrSilent,
}

// explain makes the error of a call. A call that ended with the caller's
// context is the context's error, so that "cancelled" stays what it is.
func explain(ctx context.Context, to Service, method string, err error) error {
	e := &Error{Service: to, Op: method}
	var answer dbus.Error
	switch {
	case ctx.Err() != nil:
		return fmt.Errorf("%s: %s: %w", to.Name, method[strings.LastIndexByte(method, '.')+1:], ctx.Err())
	case errors.As(err, &answer):
		e.Name, e.kind = answer.Name, kinds[answer.Name[strings.LastIndexByte(answer.Name, '.')+1:]]
		if len(answer.Body) > 0 {
			if text, ok := answer.Body[0].(string); ok {
				e.Text = text
			}
		}
		if e.kind == nil {
			e.kind = ErrRefused
		}
	case errors.Is(err, context.DeadlineExceeded):
		e.kind, e.Text = ErrSilent, "no answer within "+callTimeout.String()
	case encoding(err):
		e.kind, e.Text, e.cause = ErrRefused, err.Error(), err
	default: // reading or writing failed
		e.kind, e.cause = ErrBusDown, err
	}
	return e
}

// encoding reports whether the arguments of a call could not be sent.
func encoding(err error) bool {
	var format dbus.FormatError
	var invalid dbus.InvalidTypeError
	var message dbus.InvalidMessageError
	return errors.As(err, &format) || errors.As(err, &invalid) || errors.As(err, &message)
}

// OfKind returns the same error as another kind, for a caller who knows better
// what it means.
func (e *Error) OfKind(kind error) *Error {
	other := *e
	other.kind = kind
	return &other
}
