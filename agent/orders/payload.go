package orders

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"lpad/agent/rsp"
)

// Limits of what a payload says.
const (
	maxDepth    = 10                        // of JSON; terminal parameters take 8
	maxSerial   = 1<<53 - 1                 // what every program's JSON can count
	maxTime     = 253402300799              // the last second of the year 9999
	maxText     = 512                       // bytes of a text
	maxReportTo = 2048                      // bytes of an address
	maxAhead    = 366 * 24 * time.Hour      // an enabling that is further away is a mistake
	rfc3339Max  = len(time.RFC3339Nano) + 1 // characters of a time
)

// pointerError says which member is wrong.
type pointerError struct{ pointer, problem string }

func (e *pointerError) Error() string {
	if e.pointer == "" {
		return "the document " + e.problem
	}
	return e.pointer + " " + e.problem
}

// readObject reads one JSON object and refuses what JSON leaves open, at every
// depth: two members of one name, bytes that are not UTF-8, data behind it.
func readObject(text []byte) (map[string]json.RawMessage, error) {
	if !utf8.Valid(text) {
		return nil, &pointerError{"", "is not UTF-8"}
	}
	d := json.NewDecoder(bytes.NewReader(text))
	d.UseNumber()
	if err := walk(d, "", 0); err != nil {
		return nil, err
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return nil, &pointerError{"", "has something behind it"}
	}
	var members map[string]json.RawMessage
	if err := json.Unmarshal(text, &members); err != nil || members == nil {
		return nil, &pointerError{"", "is not an object"}
	}
	return members, nil
}

func walk(d *json.Decoder, pointer string, depth int) error {
	malformed := func() error { return &pointerError{pointer, fmt.Sprintf("is not JSON, at byte %d", d.InputOffset())} }
	t, err := d.Token()
	if err != nil {
		return malformed()
	}
	open, nested := t.(json.Delim)
	if !nested {
		return nil
	}
	if depth == maxDepth {
		return &pointerError{pointer, fmt.Sprintf("is nested deeper than %d levels", maxDepth)}
	}
	names := map[string]bool{}
	for n := 0; d.More(); n++ {
		at := pointer + "/" + strconv.Itoa(n)
		if open == '{' {
			t, err := d.Token()
			name, ok := t.(string)
			if err != nil || !ok {
				return malformed()
			}
			at = pointer + "/" + short(name)
			if names[name] {
				return &pointerError{at, "is there twice"}
			}
			names[name] = true
		}
		if err := walk(d, at, depth+1); err != nil {
			return err
		}
	}
	if _, err := d.Token(); err != nil {
		return malformed()
	}
	return nil
}

// reader takes the members of an object one by one and keeps the first error.
type reader struct {
	members map[string]json.RawMessage
	err     error
}

func (r *reader) fail(name, format string, a ...any) {
	if r.err == nil {
		r.err = &pointerError{"/" + name, fmt.Sprintf(format, a...)}
	}
}

// take returns a member and removes it.
func (r *reader) take(name string) (json.RawMessage, bool) {
	raw, ok := r.members[name]
	delete(r.members, name)
	if ok && string(raw) == "null" {
		r.fail(name, "is null; leave it out instead")
	}
	return raw, ok
}

// unread is a member that nobody took, the first by name.
func (r *reader) unread() string {
	first := ""
	for name := range r.members {
		if first == "" || name < first {
			first = name
		}
	}
	return short(first)
}

// text is a text, empty when it is not there.
func (r *reader) text(name string) string {
	raw, ok := r.take(name)
	if !ok {
		return ""
	}
	var s string
	if json.Unmarshal(raw, &s) != nil {
		r.fail(name, "is not a text")
	} else if s == "" {
		r.fail(name, "is empty; leave it out instead")
	}
	most := maxText
	if name == "reportTo" {
		most = maxReportTo
	}
	if len(s) > most {
		r.fail(name, "is longer than %d bytes", most)
		return ""
	}
	return s
}

// digits is a text of so many digits.
func (r *reader) digits(name string, n int) string {
	s := r.text(name)
	if s != "" && (len(s) != n || strings.Trim(s, "0123456789") != "") {
		r.fail(name, "is not a text of %d digits", n)
	}
	return s
}

// number is a whole number that must be there.
func (r *reader) number(name string, low, high int64) int64 {
	raw, ok := r.take(name)
	if !ok {
		r.fail(name, "is missing")
		return 0
	}
	n, err := strconv.ParseInt(string(raw), 10, 64)
	if err != nil || n < low || n > high {
		r.fail(name, "is not a whole number from %d to %d", low, high)
		return 0
	}
	return n
}

func (r *reader) time(name string) time.Time { return time.Unix(r.number(name, 0, maxTime), 0).UTC() }

func (r *reader) flag(name string) bool {
	raw, ok := r.take(name)
	if ok && string(raw) != "true" && string(raw) != "false" {
		r.fail(name, "is neither true nor false")
	}
	return string(raw) == "true"
}

// payload reads what an order says. Whether it is true is not asked here.
func payload(text []byte) (Order, error) {
	members, err := readObject(text)
	if err != nil {
		return Order{}, err
	}
	r := reader{members: members}
	o := Order{Issuer: r.text("iss"), Serial: r.number("serial", 1, maxSerial), IssuedAt: r.time("iat"), Expires: r.time("exp")}
	if _, there := members["nbf"]; there {
		o.NotBefore = r.time("nbf")
	}
	if o.Issuer == "" {
		r.fail("iss", "is missing")
	}
	if !o.Expires.After(o.IssuedAt) {
		r.fail("exp", "is not after iat")
	}
	r.device(&o)
	r.profile(&o)
	o.ReportTo = r.text("reportTo")
	if name := r.unread(); name != "" {
		r.fail(name, "is not known, or not for this action")
	}
	if r.err != nil {
		return Order{}, r.err
	}
	return o, nil
}

// device reads which device is meant.
func (r *reader) device(o *Order) {
	if s := r.digits("eid", 32); s != "" {
		var err error
		if o.Device.EID, err = rsp.ParseEID(s); err != nil {
			r.fail("eid", "is not an EID")
		}
	}
	o.Device.IMEI, o.Device.TAC, o.Device.Model = r.digits("imei", 15), r.digits("tac", 8), r.text("model")
}

// profile reads what is to be done to which profile.
func (r *reader) profile(o *Order) {
	o.Action = Action(r.text("action"))
	if s := r.text("iccid"); s != "" {
		var err error
		if o.ICCID, err = rsp.ParseICCID(s); err != nil {
			r.fail("iccid", "is not an ICCID")
		}
	} else if o.Action != Install {
		r.fail("iccid", "is missing")
	}
	switch o.Action {
	case Install:
		r.download(o)
	case Enable:
	case Disable, Delete: // what is only for the others is a member that is not known
		return
	case "":
		r.fail("action", "is missing")
		return
	default:
		r.fail("action", "is none of install, enable, disable, delete")
		return
	}
	o.DeleteOld = r.flag("deleteOld")
	r.enable(o)
	if raw, there := r.take("parameters"); there {
		if raw[0] != '{' {
			r.fail("parameters", "is not an object")
		}
		o.Parameters = bytes.Clone(raw)
	}
}

// download reads where a profile comes from.
func (r *reader) download(o *Order) {
	code := r.text("activationCode")
	if code == "" {
		r.fail("activationCode", "is missing")
		return
	}
	var err error
	if o.ActivationCode, err = rsp.ParseActivationCode(code); err != nil {
		r.fail("activationCode", "cannot be read: %v", err)
	}
	if id := r.text("matchingId"); id != "" && id != o.ActivationCode.MatchingID {
		r.fail("matchingId", "is another one than the activation code's")
	}
}

// enable reads when the profile is to be switched to.
func (r *reader) enable(o *Order) {
	switch s := r.text("enable"); {
	case s == "now", s == "" && o.Action == Enable:
		o.Enable = true
	case s == "" || s == "on-command" && o.Action == Install:
		if o.DeleteOld {
			r.fail("deleteOld", "makes no sense where nothing is enabled")
		}
	case s == "on-command":
		r.fail("enable", "is on-command in the command itself")
	default:
		at, err := time.Parse(time.RFC3339, s)
		if err != nil || len(s) > rfc3339Max || at.Unix() < 0 || at.Unix() > maxTime {
			r.fail("enable", "is none of now, on-command and a time such as 2027-01-31T03:00:00Z")
			return
		}
		if o.EnableAt = at.UTC(); o.EnableAt.Sub(o.IssuedAt) > maxAhead {
			r.fail("enable", "is more than %d days after iat", maxAhead/(24*time.Hour))
		}
		o.Enable = true
	}
}
