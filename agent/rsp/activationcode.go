package rsp

import (
	"fmt"
	"log/slog"
	"net/url"
	"strings"
	"unicode"
	"unicode/utf8"

	"lpad/internal/fault"
	"lpad/internal/redact"
)

// ActivationCode is what a QR code of an operator says (SGP.22 v2.5, section
// 4.1). It prints without its matching id; [ActivationCode.Encode] gives the
// whole text.
type ActivationCode struct {
	SMDP                     string // FQDN of the SM-DP+, as written
	MatchingID               string // AC_Token; empty asks for the default order of this EID. A secret
	OID                      string // of the SM-DP+, dotted; empty when the code names none
	ConfirmationCodeRequired bool   // the user will be asked; the server's ccRequiredFlag decides
}

const (
	maxActivationCode = 255
	maxFQDN           = 253
	maxLabel          = 63
)

// Why an activation code was refused; see [ActivationCodeError.Reason].
const (
	CodeMalformed   = "activation-code-malformed"   // not an activation code at all, or a field is not what it must be
	CodeUnsupported = "activation-code-unsupported" // an activation code of a format that nobody knows yet
	CodeAddress     = "activation-code-address"     // the server's name is none
)

// ActivationCodeError says what is wrong with an activation code, without
// showing it. It is a fault.Explainer.
type ActivationCodeError struct {
	Reason string // CodeMalformed, CodeUnsupported or CodeAddress
	Detail string
}

// Error implements error.
func (e *ActivationCodeError) Error() string { return "activation code: " + e.Detail }

// Fault implements fault.Explainer.
func (e *ActivationCodeError) Fault() fault.Fault {
	f := fault.Fault{Code: e.Reason, Text: e.Error(), Who: fault.Technician,
		Next: "type or scan the code again, in single quotes on a command line: a shell eats what follows a $"}
	if e.Reason == CodeUnsupported {
		f.Who, f.Next = fault.Operator, "ask the operator for a code that begins with LPA:1$"
	}
	return f
}

func codeError(reason, format string, a ...any) error {
	return &ActivationCodeError{reason, fmt.Sprintf(format, a...)}
}

// ParseActivationCode reads
//
//	[LPA:]1$<SM-DP+ FQDN>[$<matching id>[$<SM-DP+ OID>[$<1 when a confirmation code is needed>]]]
//
// The format and the address are mandatory. The specification also wants the
// dollar sign before an empty matching id; a code without it is taken the same
// way, as people drop it. The prefix may be in any case, white space around
// the code and its fields is ignored, a code that came out of a link with %24 for $ is
// decoded, and fields after the fifth (SGP.22 v3) are ignored. Errors are
// [*ActivationCodeError].
func ParseActivationCode(text string) (ActivationCode, error) {
	s := strings.TrimFunc(text, unicode.IsSpace)
	if !strings.Contains(s, "$") && strings.Contains(s, "%24") {
		decoded, err := url.PathUnescape(s)
		if err != nil {
			return ActivationCode{}, codeError(CodeMalformed, "the percent encoding is broken")
		}
		s = decoded
	}
	switch {
	case s == "":
		return ActivationCode{}, codeError(CodeMalformed, "it is empty")
	case len(s) > maxActivationCode:
		return ActivationCode{}, codeError(CodeMalformed, "it has %d characters, at most %d are possible", len(s), maxActivationCode)
	case !utf8.ValidString(s) || strings.ContainsFunc(s, func(r rune) bool { return unicode.IsControl(r) || isBidi(r) }):
		return ActivationCode{}, codeError(CodeMalformed, "it contains control characters")
	}
	if len(s) >= 4 && strings.EqualFold(s[:4], "LPA:") {
		s = s[4:]
	}
	field := strings.Split(s, "$")
	if field[0] != "1" {
		return ActivationCode{}, formatError(field[0], len(field))
	}
	if len(field) < 2 {
		return ActivationCode{}, codeError(CodeMalformed, "the server's address is missing")
	}
	field = append(field, "", "", "") // absent fields are empty ones
	for i := range field {
		field[i] = strings.TrimFunc(field[i], unicode.IsSpace)
	}
	c := ActivationCode{SMDP: field[1], MatchingID: field[2], OID: field[3], ConfirmationCodeRequired: field[4] == "1"}
	if err := CheckAddress(c.SMDP); err != nil {
		return ActivationCode{}, err
	}
	if c.OID != "" && !validOID(c.OID) {
		return ActivationCode{}, codeError(CodeMalformed, "the fourth field is not an object identifier")
	}
	if f := field[4]; f != "" && f != "0" && f != "1" {
		return ActivationCode{}, codeError(CodeMalformed, "the fifth field says neither 1 nor nothing")
	}
	return c, nil
}

// formatError tells a code of another format from something else.
func formatError(format string, fields int) error {
	if fields > 1 && format != "" && strings.Trim(format, "0123456789") == "" {
		return codeError(CodeUnsupported, "it has format %s, only format 1 is known", format)
	}
	return codeError(CodeMalformed, "it does not begin with 1$ or LPA:1$")
}

// CheckAddress reports whether s is the bare domain name of a server: no
// scheme, port, path, IP address or trailing dot. The error is an
// [*ActivationCodeError] with the reason [CodeAddress].
func CheckAddress(s string) error {
	switch {
	case s == "":
		return codeError(CodeAddress, "the server's address is empty")
	case len(s) > maxFQDN:
		return codeError(CodeAddress, "the server's address has %d characters, at most %d are possible", len(s), maxFQDN)
	}
	labels := strings.Split(s, ".")
	for _, label := range labels {
		if !validLabel(label) {
			return codeError(CodeAddress, "the server's address %q is not a domain name", DisplayText(s))
		}
	}
	if last := labels[len(labels)-1]; len(labels) < 2 || strings.Trim(last, "0123456789") == "" {
		return codeError(CodeAddress, "the server's address %q is not a full domain name", DisplayText(s))
	}
	return nil
}

func validLabel(s string) bool {
	if s == "" || len(s) > maxLabel || s[0] == '-' || s[len(s)-1] == '-' {
		return false
	}
	return strings.Trim(s, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-") == ""
}

// Encode returns the whole activation code with its prefix and its secret.
func (c ActivationCode) Encode() string {
	s := "LPA:1$" + c.SMDP + "$" + c.MatchingID
	if c.OID != "" || c.ConfirmationCodeRequired {
		s += "$" + c.OID
	}
	if c.ConfirmationCodeRequired {
		s += "$1"
	}
	return s
}

// String is the code with its matching id masked.
func (c ActivationCode) String() string {
	if c.MatchingID != "" {
		c.MatchingID = redact.Mask
	}
	return c.Encode()
}

// GoString keeps %#v from printing the matching id.
func (c ActivationCode) GoString() string { return c.String() }

// LogValue logs the code without its matching id.
func (c ActivationCode) LogValue() slog.Value { return slog.StringValue(c.String()) }
