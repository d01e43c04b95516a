package es9p

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"strings"
	"unicode"
)

// What real servers and cards do differently from the specification, one
// function for each.

// bareAddress takes away what people and cards add to a server's name: white
// space anywhere (notification addresses of Orange Poland contain a space) and
// the dot of an absolute domain name, which servers refuse in smdpAddress.
func bareAddress(s string) string {
	s = strings.Map(func(r rune) rune {
		if unicode.IsSpace(r) {
			return -1
		}
		return r
	}, s)
	return strings.TrimSuffix(s, ".")
}

// decodeBase64 reads base64 of the standard alphabet as servers write it: in
// lines, with blanks, and without padding.
func decodeBase64(text []byte) ([]byte, error) {
	compact := make([]byte, 0, len(text))
	for _, c := range text {
		switch c {
		case ' ', '\t', '\r', '\n':
		default:
			compact = append(compact, c)
		}
	}
	for i := 0; i < 2 && len(compact) > 0 && compact[len(compact)-1] == '='; i++ {
		compact = compact[:len(compact)-1]
	}
	n, err := base64.RawStdEncoding.Decode(compact, compact) // in place: the output never overtakes the input
	return compact[:n], err
}

// code is a subject or reason code. It is a string, as "3.10" is not "3.1";
// a server that sends a bare number has its digits taken as they stand.
type code string

func (c *code) UnmarshalJSON(b []byte) error {
	switch {
	case len(b) > 0 && b[0] == '"':
		return json.Unmarshal(b, (*string)(c))
	case string(b) == "null":
		return nil
	case len(b) > 0 && strings.Trim(string(b), "0123456789.") == "":
		*c = code(b)
		return nil
	}
	return errors.New("neither a string nor a number")
}

// ackStatus reports the HTTP status codes with which servers acknowledge a
// call that has no answer: the specification's 204, and 200 with or without a
// body (an empty 200 is common).
func ackStatus(status int) bool { return status == 200 || status == 204 }

// completeWithoutHeader: a server that leaves the header out but sends the
// data is believed, as it has nothing to say but yes. Whoever decodes an
// answer checks that the data is complete.
func completeWithoutHeader(h *header) bool {
	return h == nil || h.Execution.Status == "" && h.Execution.Data == nil
}
