package es9p

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"lpad/agent/rsp"
)

// maxText bounds text of a server that ends up in an error, in bytes.
const maxText = 200

// envelope is embedded in every answer (SGP.22 v2.5, section 6.5.1.4).
type envelope struct {
	Header *header `json:"header"`
}

func (e *envelope) head() *header { return e.Header }

type header struct {
	Execution struct {
		Status string      `json:"status"`
		Data   *statusData `json:"statusCodeData"`
	} `json:"functionExecutionStatus"`
	seen bool
}

// UnmarshalJSON refuses a second header, which could take back the first.
func (h *header) UnmarshalJSON(b []byte) error {
	if h.seen {
		return errTwice
	}
	type plain header
	if err := json.Unmarshal(b, (*plain)(h)); err != nil {
		return err
	}
	h.seen = true
	return nil
}

type statusData struct {
	SubjectCode       code   `json:"subjectCode"`
	ReasonCode        code   `json:"reasonCode"`
	SubjectIdentifier string `json:"subjectIdentifier"`
	Message           string `json:"message"`
}

var errTwice = errors.New("it is there twice")

// octets is a base64 member. It is refused when it is there twice.
type octets struct {
	b   []byte
	set bool
}

func (o *octets) UnmarshalJSON(text []byte) error {
	if string(text) == "null" {
		return nil
	}
	if o.set {
		return errTwice
	}
	if len(text) < 2 || text[0] != '"' {
		return errors.New("it is not a string")
	}
	inner := text[1 : len(text)-1]
	if bytes.IndexByte(inner, '\\') >= 0 { // escaped line ends or slashes
		var s string
		if err := json.Unmarshal(text, &s); err != nil {
			return err
		}
		inner = []byte(s)
	}
	b, err := decodeBase64(inner)
	o.b, o.set = b, true
	return err
}

// tlv returns the bytes if they begin with the tag.
func (o octets) tlv(member string, tag ...byte) ([]byte, error) {
	switch {
	case len(o.b) == 0:
		return nil, fmt.Errorf("%s is missing", member)
	case !bytes.HasPrefix(o.b, tag):
		return nil, fmt.Errorf("%s does not begin with the tag %X", member, tag)
	}
	return o.b, nil
}

// headed is an answer with the envelope in it.
type headed interface{ head() *header }

// decode reads an answer into into, a pointer to a struct that embeds
// envelope. The error is an [*Error] when the server refused, else an
// [*AnswerError].
//
// Member names are taken whatever their case: a published schema spells
// euiccCiPKIdToBeUsed as euiccCiPKIdTobeUsed. The decoder's own depth limit
// bounds nesting.
func decode(name string, body []byte, into headed) error {
	err := json.Unmarshal(body, into)
	if h := into.head(); h != nil { // a refusal counts even where the rest is odd
		if refusal := h.refusal(name); refusal != nil {
			return refusal
		}
	}
	if err != nil {
		// The decoder's text may quote the answer: only its kind is told.
		return &AnswerError{Function: name, Detail: "the body is not the JSON that was expected", Err: kindOf(err)}
	}
	return nil
}

// kindOf keeps what is harmless of an error of encoding/json.
func kindOf(err error) error {
	var syntax *json.SyntaxError
	var kind *json.UnmarshalTypeError
	switch {
	case errors.Is(err, errTwice):
		return errTwice
	case errors.As(err, &syntax):
		return fmt.Errorf("syntax error at byte %d", syntax.Offset)
	case errors.As(err, &kind):
		return fmt.Errorf("member %s is a %s", rsp.CutText(kind.Field, maxText), rsp.CutText(kind.Value, maxText))
	}
	return errors.New("malformed member")
}

// refusal is the server's "no", or nil.
func (h *header) refusal(name string) error {
	if completeWithoutHeader(h) {
		return nil
	}
	switch status := strings.ToLower(h.Execution.Status); status {
	case "executed-success", "executed-withwarning":
		return nil
	default:
		e := &Error{Function: name, Status: cleanText(h.Execution.Status)}
		if d := h.Execution.Data; d != nil {
			e.SubjectCode, e.ReasonCode = cleanText(string(d.SubjectCode)), cleanText(string(d.ReasonCode))
			e.SubjectIdentifier, e.Message = cleanText(d.SubjectIdentifier), cleanText(d.Message)
		}
		return e
	}
}

// cleanText makes text of a server fit for an error.
func cleanText(s string) string {
	return rsp.CutText(rsp.DisplayText(rsp.CutText(s, 4*maxText)), maxText)
}
