package carrierdb

import (
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"lpad/internal/redact"
	"lpad/modem"
)

// Limits of a list. The real one has 360 kB, at most 16 providers on a
// network and 8 levels.
const (
	maxFile   = 2 << 20 // bytes
	maxDepth  = 16
	maxKept   = 256 // providers of one look-up
	maxPerOne = 256 // networks, names or access points of one provider
	maxValue  = 256 // bytes of a text
	maxAPN    = 100 // characters of an APN (TS 23.003, section 9.1)
)

// network is a PLMN, as text: "01" is not "001".
type network struct{ mcc, mnc string }

// provider is one <provider> of the list.
type provider struct {
	country  string
	names    []string
	primary  bool
	networks []network
	points   []point
}

func (p provider) serves(n network) bool { return slices.Contains(p.networks, n) }

func (p provider) name() string {
	if len(p.names) == 0 {
		return ""
	}
	return p.names[0]
}

// point is one <apn>.
type point struct {
	apn   modem.APN
	name  string
	usage string
	plans []string
	dns   []string
}

// valid keeps out what is no APN: the real list holds a web address and a
// value with a blank at its end, which is cut.
func (a point) valid() bool {
	return len(a.apn.Name) <= maxAPN && a.apn.Name != "" &&
		strings.Trim(a.apn.Name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.-") == "" &&
		printable(a.apn.User) && printable(a.apn.Password.Reveal())
}

// printable keeps out what a modem's command line would take as its own.
func printable(s string) bool {
	for _, r := range s {
		if r < ' ' || r > '~' || r == '"' {
			return false
		}
	}
	return true
}

// scanner walks over the list once.
type scanner struct {
	xml     *xml.Decoder
	limited *io.LimitedReader
	path    []string // of open elements
	country string
	text    strings.Builder // of the innermost element
}

func newScanner(r io.Reader) *scanner {
	limited := &io.LimitedReader{R: r, N: maxFile + 1}
	// A decoder as it comes: strict, no entities but the five of XML, UTF-8
	// alone, and the DOCTYPE is a token like another that nobody looks into.
	return &scanner{xml: xml.NewDecoder(limited), limited: limited}
}

var (
	errFormat  = errors.New("not a list of providers of format 2")
	errDepth   = fmt.Errorf("nested deeper than %d elements", maxDepth)
	errLength  = fmt.Errorf("longer than %d bytes", maxFile)
	errValue   = fmt.Errorf("a value is longer than %d bytes", maxValue)
	errTooMany = fmt.Errorf("more than %d networks, names or access points of one provider", maxPerOne)
)

// next returns the next start or end of an element. The text of an element is
// in s.text at its end.
func (s *scanner) next() (xml.Token, error) {
	for {
		t, err := s.xml.Token()
		if s.limited.N <= 0 {
			return nil, errLength
		}
		if err != nil {
			return nil, err
		}
		switch t := t.(type) {
		case xml.StartElement:
			if s.path = append(s.path, t.Name.Local); len(s.path) > maxDepth {
				return nil, errDepth
			}
			s.text.Reset()
			return t, nil
		case xml.EndElement:
			s.path = s.path[:len(s.path)-1]
			return t, nil
		case xml.CharData:
			if s.text.Len()+len(t) > maxValue && len(strings.TrimSpace(string(t))) > 0 {
				return nil, errValue
			}
			if s.text.Len() <= maxValue {
				s.text.Write(t)
			}
		}
	}
}

// root reads up to the first element, which must be the right one.
func (s *scanner) root() error {
	t, err := s.next()
	if errors.Is(err, io.EOF) {
		return errFormat
	}
	if err != nil {
		return err
	}
	start, ok := t.(xml.StartElement)
	if !ok || start.Name.Local != "serviceproviders" || !strings.HasPrefix(attr(start, "format"), "2.") {
		return errFormat
	}
	return nil
}

// provider reads up to the end of the next one; io.EOF is the end of the list.
func (s *scanner) provider() (provider, error) {
	for {
		t, err := s.next()
		if err != nil {
			return provider{}, err
		}
		start, ok := t.(xml.StartElement)
		if !ok {
			continue
		}
		switch start.Name.Local {
		case "country":
			s.country = strings.ToLower(attr(start, "code"))
		case "provider":
			return s.readProvider(start)
		}
	}
}

func (s *scanner) readProvider(start xml.StartElement) (provider, error) {
	p := provider{country: s.country, primary: attr(start, "primary") == "true"}
	level := len(s.path)
	for {
		t, err := s.next()
		if err != nil {
			return provider{}, unexpected(err)
		}
		switch t := t.(type) {
		case xml.StartElement:
			switch strings.Join(s.path[level:], "/") {
			case "gsm/network-id":
				p.networks = append(p.networks, network{attr(t, "mcc"), attr(t, "mnc")})
			case "gsm/apn":
				a, err := s.readPoint(t)
				if err != nil {
					return provider{}, err
				}
				if a.valid() {
					p.points = append(p.points, a)
				}
			}
		case xml.EndElement:
			if len(s.path) == level && t.Name.Local == "name" {
				p.names = append(p.names, strings.TrimSpace(s.text.String()))
			}
			if len(s.path) < level {
				return p, nil
			}
			s.text.Reset()
		}
		if len(p.names) > maxPerOne || len(p.networks) > maxPerOne || len(p.points) > maxPerOne {
			return provider{}, errTooMany
		}
	}
}

func (s *scanner) readPoint(start xml.StartElement) (point, error) {
	var a point
	a.apn.Name = strings.TrimSpace(attr(start, "value"))
	level := len(s.path)
	for {
		t, err := s.next()
		if err != nil {
			return a, unexpected(err)
		}
		if start, ok := t.(xml.StartElement); ok && len(s.path) == level+1 {
			a.attribute(start)
		}
		end, ok := t.(xml.EndElement)
		if !ok {
			continue
		}
		if len(s.path) < level {
			return a, nil
		}
		if len(s.path) == level {
			a.value(end.Name.Local, strings.TrimSpace(s.text.String()))
		}
		s.text.Reset()
		if len(a.plans)+len(a.dns) > maxPerOne {
			return a, errTooMany
		}
	}
}

// attribute takes an element of an access point that says it by an attribute.
func (a *point) attribute(t xml.StartElement) {
	switch t.Name.Local {
	case "usage":
		a.usage = attr(t, "type")
	case "plan":
		a.plans = append(a.plans, attr(t, "type"))
	case "authentication":
		switch attr(t, "method") {
		case "pap":
			a.apn.Auth = modem.AuthPAP
		case "chap":
			a.apn.Auth = modem.AuthCHAP
		}
	}
}

// value takes an element of an access point that says it by its text.
func (a *point) value(element, text string) {
	switch element {
	case "name":
		if a.name == "" { // the others are translations
			a.name = text
		}
	case "username":
		a.apn.User = text
	case "password":
		a.apn.Password = redact.NewSecret(text)
	case "dns":
		a.dns = append(a.dns, text)
	}
}

func attr(t xml.StartElement, name string) string {
	for _, a := range t.Attr {
		if a.Name.Local == name {
			return a.Value
		}
	}
	return ""
}

// unexpected: inside an element the end of the file is damage.
func unexpected(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}
