package pcsc

import (
	"errors"
	"fmt"
	"time"

	"lpad/internal/fault"
)

// What a [ServiceError] may match, by errors.Is.
var (
	ErrNoService   = errors.New("PC/SC service is not running")
	ErrNoReader    = errors.New("no such reader")
	ErrNoCard      = errors.New("no card in the reader")
	ErrReaderInUse = errors.New("reader is in use by another program")
	ErrCardMute    = errors.New("card does not answer to reset")
	ErrLost        = errors.New("connection to the card is lost")
)

// Codes of PC/SC that mean something to us (pcsclite.h).
const (
	codeInternal          = 0x80100001
	codeInvalidHandle     = 0x80100003
	codeUnknownReader     = 0x80100009
	codeTimeout           = 0x8010000A
	codeSharingViolation  = 0x8010000B
	codeNoSmartcard       = 0x8010000C
	codeProtoMismatch     = 0x8010000F
	codeCommError         = 0x80100013
	codeNotTransacted     = 0x80100016
	codeReaderUnavailable = 0x80100017
	codeNoService         = 0x8010001D
	codeServiceStopped    = 0x8010001E
	codeNoReaders         = 0x8010002E
	codeCommDataLost      = 0x8010002F
	codeUnresponsive      = 0x80100066
	codeUnpowered         = 0x80100067
	codeReset             = 0x80100068
	codeRemoved           = 0x80100069
	codeSecurityViolation = 0x8010006A
)

// ServiceError is an error that PC/SC gave.
type ServiceError struct {
	Op     string // what was being done: "connect"
	Reader string // may be empty
	Code   uint32 // of PC/SC; 0: the helper did not understand us
	Text   string // in the words of PC/SC
}

func (e *ServiceError) Error() string {
	return fmt.Sprintf("PC/SC %s%s: %s (%08X)", e.Op, inReader(e.Reader), e.Text, e.Code)
}

func inReader(name string) string {
	if name == "" {
		return ""
	}
	return fmt.Sprintf(" in reader %q", name)
}

// Unwrap gives the kind of the error, or nil.
func (e *ServiceError) Unwrap() error {
	switch e.Code {
	case codeNoService, codeServiceStopped:
		return ErrNoService
	case codeUnknownReader, codeReaderUnavailable, codeNoReaders:
		return ErrNoReader
	case codeNoSmartcard, codeRemoved:
		return ErrNoCard
	case codeSharingViolation:
		return ErrReaderInUse
	case codeUnresponsive, codeUnpowered:
		return ErrCardMute
	case codeReset, codeCommDataLost, codeCommError, codeInvalidHandle, codeNotTransacted, codeInternal:
		return ErrLost
	}
	return nil
}

// passing says whether the error may go away while pcscd, the reader or the
// card comes back.
func passing(err error) bool {
	for _, kind := range []error{ErrNoService, ErrNoReader, ErrNoCard, ErrCardMute, ErrLost} {
		if errors.Is(err, kind) {
			return true
		}
	}
	return false
}

// Fault explains the error.
func (e *ServiceError) Fault() fault.Fault {
	switch e.Unwrap() {
	case ErrNoService:
		return fault.Fault{Code: "pcsc-no-service", Text: "the smart card service pcscd is not running", Retry: true,
			Who: fault.Technician, Next: "install and start pcscd (package pcscd, service pcscd.socket)"}
	case ErrNoReader:
		return fault.Fault{Code: "pcsc-no-reader", Text: "there is no such card reader", Retry: true,
			Who: fault.Technician, Next: "plug the reader in; compare its name with the configuration"}
	case ErrNoCard:
		return fault.Fault{Code: "pcsc-no-card", Text: "there is no card in the reader", Retry: true,
			Who: fault.Technician, Next: "insert the card"}
	case ErrReaderInUse:
		return fault.Fault{Code: "pcsc-in-use", Text: "another program uses the card reader", Retry: true,
			Who: fault.Technician, Next: "end the other program (gpg's scdaemon, a browser, another LPA)"}
	case ErrCardMute:
		return fault.Fault{Code: "pcsc-card-mute", Text: "the card in the reader does not answer", Retry: true,
			Who: fault.Technician, Next: "take the card out, clean its contacts, insert it the right way round"}
	case ErrLost:
		return fault.Fault{Code: "pcsc-lost", Text: "the connection to the card was lost", Retry: true,
			Who: fault.Device, Next: "try again; if it stays, look at the reader and its cable"}
	}
	if e.Code == codeSecurityViolation {
		return fault.Fault{Code: "pcsc-denied", Text: "the system does not let us use the card reader",
			Who: fault.Configuration, Next: "allow it by a polkit rule for org.debian.pcsc-lite"}
	}
	return fault.Fault{Code: "pcsc-error", Text: "the smart card service reports: " + e.Text, Retry: true,
		Who: fault.Technician, Next: "plug the reader in anew and restart pcscd"}
}

// StuckError says that a reader gave no answer in time. The helper was killed.
// It matches context.DeadlineExceeded, or [ErrReaderInUse] if pcscd still waits
// for the reader in the name of a helper that was killed before.
type StuckError struct {
	Op     string
	Reader string // may be empty
	After  time.Duration
	Cause  error // of the context, or of PC/SC
}

func (e *StuckError) Error() string {
	return fmt.Sprintf("PC/SC %s%s: no answer after %v: %v", e.Op, inReader(e.Reader), e.After.Round(time.Millisecond), e.Cause)
}

// Unwrap gives the cause.
func (e *StuckError) Unwrap() error { return e.Cause }

// Fault explains the error.
func (e *StuckError) Fault() fault.Fault {
	return fault.Fault{Code: "pcsc-stuck", Text: "the card reader does not answer any more", Retry: true,
		Who: fault.Technician, Next: "take the card out and insert it again; if that does not help, plug the reader in anew and restart pcscd"}
}

// Package is the Debian package that the helper comes in.
const Package = "lpad-pcsc"

// HelperError says that the helper program cannot be used.
type HelperError struct {
	Program string // as configured
	Reason  string
	Missing bool  // there is no such program, or it has no PC/SC in it
	Cause   error // may be nil
}

func (e *HelperError) Error() string {
	text := fmt.Sprintf("PC/SC helper %s: %s", e.Program, e.Reason)
	if e.Missing {
		text += fmt.Sprintf(" (install the package %s)", Package)
	}
	if e.Cause != nil {
		text += ": " + e.Cause.Error()
	}
	return text
}

// Unwrap gives the cause.
func (e *HelperError) Unwrap() error { return e.Cause }

// Fault explains the error.
func (e *HelperError) Fault() fault.Fault {
	if e.Missing {
		return fault.Fault{Code: "pcsc-helper-missing", Text: fmt.Sprintf("the program %s, which talks to card readers, is not usable: %s", e.Program, e.Reason),
			Who: fault.Configuration, Next: "install the package " + Package}
	}
	return fault.Fault{Code: "pcsc-helper", Text: "the program that talks to card readers failed: " + e.Reason, Retry: true,
		Who: fault.Device, Next: "try again; if it stays, install a " + Package + " of the same version and report this with the log of lpad"}
}
