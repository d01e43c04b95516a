package es9p

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"strings"
	"syscall"
	"time"

	"lpad/internal/fault"
)

// Error is a server's refusal: the request arrived, was understood, and the
// answer is no (status Failed or Expired). It is a fault.Explainer by the
// table of status codes (SGP.22 v2.5, section 5.2.6).
//
// SubjectIdentifier and Message are text of the server and may quote a
// matching id or an EID: they are in no error text and no log.
type Error struct {
	Function          string // "authenticateClient"
	Status            string // "Failed", "Expired", or what the server wrote
	SubjectCode       string // "8.2.6"; empty if the server gave none
	ReasonCode        string // "3.8"; a string, as "3.10" is not "3.1"
	SubjectIdentifier string
	Message           string
}

// ErrSessionUnknown is matched (errors.Is) by the refusal of a server that has
// forgotten the session, by time or by restart: begin a new one.
var ErrSessionUnknown = errors.New("the server does not know the session")

// Error implements error.
func (e *Error) Error() string {
	return fmt.Sprintf("%s: the server refuses (%s): %s", e.Function, e.codes(), e.Fault().Text)
}

// codes is "8.2.6/3.8", or the status where there are no codes.
func (e *Error) codes() string {
	if e.SubjectCode == "" && e.ReasonCode == "" {
		return "status " + e.Status
	}
	return e.SubjectCode + "/" + e.ReasonCode
}

// Is matches [ErrNoEvent] and [ErrSessionUnknown].
func (e *Error) Is(target error) bool {
	switch (status{e.SubjectCode, e.ReasonCode}) {
	case status{"8.9.5", "3.9"}:
		return target == ErrNoEvent
	case status{"8.10.1", "3.9"}:
		return target == ErrSessionUnknown
	}
	return false
}

// LogValue leaves the server's own text out.
func (e *Error) LogValue() slog.Value {
	return slog.GroupValue(slog.String("fn", e.Function), slog.String("status", e.Status),
		slog.String("subject", e.SubjectCode), slog.String("reason", e.ReasonCode))
}

// HTTPError is an HTTP status other than success, without a refusal of ES9+ in
// its body.
type HTTPError struct {
	Function   string
	Status     int
	RetryAfter time.Duration // what the server asked for; 0 if nothing; at most a day
}

// Error implements error.
func (e *HTTPError) Error() string {
	return fmt.Sprintf("%s: HTTP status %d: %s", e.Function, e.Status, e.Fault().Text)
}

// Fault implements fault.Explainer.
func (e *HTTPError) Fault() fault.Fault {
	switch {
	case e.Status == 404 || e.Status == 405 || e.Status == 410:
		return fault.Fault{Code: "wrong-server", Text: "the server does not have this function", Who: fault.Operator,
			Next: "compare the server's name with the activation code; it is not an eSIM server of this kind"}
	case e.Status >= 300 && e.Status < 400:
		return fault.Fault{Code: "server-redirects", Text: "the server points to another one, which is not allowed here", Who: fault.Operator,
			Next: "ask the operator for the right server name"}
	case e.Status == 408 || e.Status == 425 || e.Status == 429 || e.Status >= 500:
		return fault.Fault{Code: "server-unavailable", Text: "the server is overloaded or out of order", Retry: true, Who: fault.Operator,
			Next: "wait and try again"}
	case e.Status == 401 || e.Status == 403:
		return fault.Fault{Code: "server-forbids", Text: "the server does not let this device in", Who: fault.Operator,
			Next: "ask the operator whether the server accepts requests from this network"}
	case e.Status >= 400:
		return fault.Fault{Code: "request-refused", Text: "the server does not accept the request", Who: fault.Device,
			Next: "report this with the log of lpad"}
	}
	return fault.Fault{Code: "server-status-odd", Text: "the server answers with a status that has no meaning here", Who: fault.Operator,
		Next: "report this to the operator"}
}

// AnswerError is an answer that is not what the specification says, beyond
// what is tolerated. Its text quotes nothing of the answer.
type AnswerError struct {
	Function string
	Detail   string
	Err      error // may be nil
}

// Error implements error.
func (e *AnswerError) Error() string {
	s := e.Function + ": answer of the server: " + e.Detail
	if e.Err != nil {
		s += ": " + e.Err.Error()
	}
	return s
}

// Unwrap returns the cause.
func (e *AnswerError) Unwrap() error { return e.Err }

// Fault implements fault.Explainer.
func (e *AnswerError) Fault() fault.Fault {
	return fault.Fault{Code: "server-answer-invalid", Text: "the server's answer is not valid: " + e.Detail, Who: fault.Operator,
		Next: "report this to the operator; the server does not keep to the specification"}
}

// TransportError says that a request found no server, or no answer.
type TransportError struct {
	Function string
	Host     string
	Err      error
}

// Error implements error.
func (e *TransportError) Error() string {
	return fmt.Sprintf("%s at %s: %s: %v", e.Function, e.Host, e.Fault().Text, e.Err)
}

// Unwrap returns the cause.
func (e *TransportError) Unwrap() error { return e.Err }

// Timeout reports whether the server kept silent for too long.
func (e *TransportError) Timeout() bool { return timedOut(e.Err) }

func timedOut(err error) bool {
	var t interface{ Timeout() bool }
	return errors.Is(err, context.DeadlineExceeded) || errors.As(err, &t) && t.Timeout()
}

// Fault implements fault.Explainer.
func (e *TransportError) Fault() fault.Fault {
	var (
		name  *net.DNSError
		iface *interfaceError
		plain tls.RecordHeaderError
		op    *net.OpError
	)
	err := e.Err
	switch {
	case errors.As(err, &name) && name.IsNotFound:
		return fault.Fault{Code: "host-unknown", Text: "no server of this name exists", Who: fault.Technician,
			Next: "check the server's name in the activation code, and that this network's name server knows it"}
	case errors.As(err, &name):
		return fault.Fault{Code: "dns-unavailable", Text: "the name server does not answer", Retry: true, Who: fault.Device,
			Next: "check the network connection and its name server; a device without a network can use a laptop's: lpactl relay"}
	case errors.As(err, &iface) && errors.Is(err, syscall.EPERM):
		return fault.Fault{Code: "interface-not-permitted", Text: "lpad may not bind to the network interface", Who: fault.Configuration,
			Next: "give lpad the capability CAP_NET_RAW"}
	case errors.As(err, &iface):
		return fault.Fault{Code: "interface-missing", Text: "the network interface is not there", Retry: true, Who: fault.Device,
			Next: "wait until the modem's data connection is up"}
	case errors.As(err, &op) && op.Op == "remote error": // what crypto/tls makes of an alert
		return fault.Fault{Code: "tls-refused", Text: "the server refuses the TLS connection", Who: fault.Operator,
			Next: "report the alert to the operator: the server may not know this name, or speak no TLS 1.2"}
	case errors.As(err, &plain):
		return fault.Fault{Code: "not-tls", Text: "what answers there does not speak TLS", Who: fault.Technician,
			Next: "check the server's name, and that nothing intercepts this network"}
	case timedOut(err):
		return fault.Fault{Code: "server-silent", Text: "the server does not answer in time", Retry: true, Who: fault.Device,
			Next: "try again; check the network connection and that port 443 is not blocked"}
	case errors.Is(err, syscall.ECONNREFUSED):
		return fault.Fault{Code: "connection-refused", Text: "the server's address accepts no connection", Retry: true, Who: fault.Operator,
			Next: "try again later; check the server's name"}
	case errors.Is(err, syscall.ENETUNREACH), errors.Is(err, syscall.EHOSTUNREACH), errors.Is(err, syscall.ENETDOWN), errors.Is(err, syscall.EADDRNOTAVAIL):
		return fault.Fault{Code: "no-network", Text: "there is no way to the server from here", Retry: true, Who: fault.Device,
			Next: "connect the device to a network with internet access, or let it use a laptop's: lpactl relay"}
	case strings.HasPrefix(err.Error(), "tls:"):
		return fault.Fault{Code: "tls-failed", Text: "no TLS connection could be agreed with the server", Who: fault.Operator,
			Next: "report this to the operator: the server's TLS is too old or broken"}
	case errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE), errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return fault.Fault{Code: "connection-lost", Text: "the connection to the server broke", Retry: true, Who: fault.Device,
			Next: "try again; check the signal of the modem"}
	}
	return fault.Fault{Code: "server-unreachable", Text: "the server cannot be reached", Retry: true, Who: fault.Device,
		Next: "try again; check the network connection"}
}

// explain sorts an error of the transport. Those of this package's own types
// are passed on as they are.
func (s *Session) explain(f function, err error) error {
	var own fault.Explainer
	if errors.As(err, &own) {
		return fmt.Errorf("%s at %s: %w", f.name, s.host, own)
	}
	if strings.Contains(err.Error(), "failed to parse certificate") { // crypto/tls has no type for it
		return fmt.Errorf("%s at %s: %w", f.name, s.host,
			&CertificateError{Code: CertificateUnsupported, Host: s.host, Err: err})
	}
	return &TransportError{Function: f.name, Host: s.host, Err: err}
}
