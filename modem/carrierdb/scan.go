package carrierdb

import (
	"bytes"
	"fmt"
	"io"
	"slices"
	"sort"
	"strings"

	"lpad/internal/redact"
	"lpad/modem"
)

// provider is one <provider> of the list.
type provider struct {
	country string
	names   []string
	primary bool
	points  []point
}

func (p *provider) name() string {
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
func (a *point) valid() bool {
	for i := range len(a.apn.Name) {
		c := a.apn.Name[i]
		if lower := c | 0x20; (lower < 'a' || lower > 'z') && (c < '0' || c > '9') && c != '.' && c != '-' {
			return false
		}
	}
	return len(a.apn.Name) <= maxAPN && a.apn.Name != "" && printable(a.apn.User) && printable(a.apn.Password.Reveal())
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

// root reads up to the first element, which must be the right one.
func (s *scanner) root() error {
	t, err := s.next()
	if err == io.EOF || err == errSyntax {
		return errFormat
	}
	if err != nil {
		return err
	}
	if t.name != "serviceproviders" || !strings.HasPrefix(string(t.attr("format")), "2.") {
		return errFormat
	}
	return nil
}

// index says where in a file the providers of a network are: 10 kB for the
// real list, whose 360 kB nobody has to read again.
type index struct {
	entries   []uint64  // network, offset and length, sorted; see packEntry
	countries []country // in the order of the file
}

type country struct {
	at   uint32 // offset of its beginning
	code string // two letters, lower case
}

// Bits of an entry: the network above all, then the offset, then the length.
const (
	offsetBits = 22
	lengthBits = 21
)

// places sorts entries. (Package sort is linked anyway; slices.Sort would be there
// once more for these alone, 5 kB of it.)
type places []uint64

func (p places) Len() int           { return len(p) }
func (p places) Less(i, j int) bool { return p[i] < p[j] }
func (p places) Swap(i, j int)      { p[i], p[j] = p[j], p[i] }

func packEntry(n network, from, to int64) uint64 {
	return uint64(n)<<(offsetBits+lengthBits) | uint64(from)<<lengthBits | uint64(to-from)
}

// place is where an entry's provider begins and ends.
func place(entry uint64) (at, end int) {
	at = int(entry >> lengthBits & (1<<offsetBits - 1))
	return at, at + int(entry&(1<<lengthBits-1))
}

// find returns the places of the providers on a network, in the order of the
// file.
func (x *index) find(n network) []uint64 {
	from, _ := slices.BinarySearch(x.entries, packEntry(n, 0, 0))
	to := from
	for to < len(x.entries) && network(x.entries[to]>>(offsetBits+lengthBits)) == n {
		to++
	}
	return x.entries[from:to]
}

// country is the code of the country that the place is in.
func (x *index) country(at uint32) string {
	code := ""
	for _, c := range x.countries {
		if c.at > at {
			break
		}
		code = c.code
	}
	return code
}

// scan reads a whole list, of which the beginning is read, for its index, and
// checks all of it: a damaged list is an error, whatever is looked for.
func (s *scanner) scan() (*index, error) {
	x := &index{}
	for {
		t, err := s.next()
		if err == io.EOF {
			break
		}
		if err != nil {
			return nil, err
		}
		if t.end {
			continue
		}
		switch t.name {
		case "country":
			if code := t.attr("code"); len(code) == 2 && len(x.countries) < maxNetIDs {
				x.countries = append(x.countries, country{uint32(t.at), strings.ToLower(string(code))})
			}
		case "provider":
			if err := s.scanProvider(t.at, x); err != nil {
				return nil, err
			}
		}
	}
	sort.Sort(places(x.entries))
	x.entries = slices.Clip(slices.Compact(x.entries)) // a provider may name a network twice
	return x, nil
}

// scanProvider reads up to the end of a provider that begins at the place.
func (s *scanner) scanProvider(at int64, x *index) error {
	level, first := len(s.path), len(x.entries)
	var names, ids, points, ofPoint int
	for {
		t, err := s.next()
		if err != nil {
			return unexpected(err)
		}
		depth := len(s.path) - level
		switch {
		case depth < 0:
			end := s.offset()
			for i := range x.entries[first:] {
				x.entries[first+i] = packEntry(network(x.entries[first+i]), at, end)
			}
			return nil
		case t.end:
		case depth == 1 && t.name == "name":
			names++
		case depth == 2 && t.name == "network-id":
			ids++
			if n, ok := networkOf(t); ok && s.path[level] == "gsm" {
				x.entries = append(x.entries, uint64(n))
			}
		case depth == 2 && t.name == "apn":
			points++
			ofPoint = 0
		case depth == 3:
			ofPoint++
		}
		if names > maxPerOne || ids > maxPerOne || points > maxPerOne || ofPoint > maxPerOne {
			return errTooMany
		}
		if len(x.entries) > maxNetIDs {
			return fmt.Errorf("more than %d networks", maxNetIDs)
		}
	}
}

// readProvider reads one provider, which is all that the scanner has.
func (s *scanner) readProvider() (provider, error) {
	t, err := s.next()
	if err != nil {
		return provider{}, unexpected(err)
	}
	if t.name != "provider" || t.end {
		return provider{}, errSyntax // the file is not what it was when the index was made
	}
	p := provider{primary: string(t.attr("primary")) == "true"}
	p.points = make([]point, 0, min(bytes.Count(s.buf, []byte("<apn")), maxPerOne))
	for {
		t, err := s.next()
		if err != nil {
			return provider{}, unexpected(err)
		}
		switch depth := len(s.path); {
		case depth == 0:
			return p, nil
		case t.end && depth == 1 && t.name == "name" && len(p.names) < maxPerOne:
			p.names = append(p.names, s.value())
		case !t.end && depth == 3 && t.name == "apn" && s.path[1] == "gsm" && len(p.points) < maxPerOne:
			a, err := s.readPoint(t)
			if err != nil {
				return provider{}, err
			}
			if a.valid() {
				p.points = append(p.points, a)
			}
		}
	}
}

func (s *scanner) readPoint(t *tag) (point, error) {
	var a point
	a.apn.Name = strings.TrimSpace(string(t.attr("value")))
	level := len(s.path)
	for {
		t, err := s.next()
		if err != nil {
			return a, unexpected(err)
		}
		switch {
		case len(s.path) < level:
			return a, nil
		case !t.end && len(s.path) == level+1:
			a.attribute(t)
		case t.end && len(s.path) == level:
			a.value(t.name, s)
		}
		if len(a.plans)+len(a.dns) > 2*maxPerOne {
			return a, errTooMany
		}
	}
}

// value is the text of the element that has just ended.
func (s *scanner) value() string { return strings.TrimSpace(string(s.text)) }

// attribute takes an element of an access point that says it by an attribute.
func (a *point) attribute(t *tag) {
	switch t.name {
	case "usage":
		a.usage = intern(t.attr("type"))
	case "plan":
		a.plans = append(a.plans, intern(t.attr("type")))
	case "authentication":
		switch string(t.attr("method")) {
		case "pap":
			a.apn.Auth = modem.AuthPAP
		case "chap":
			a.apn.Auth = modem.AuthCHAP
		}
	}
}

// value takes an element of an access point that says it by its text.
func (a *point) value(element string, s *scanner) {
	switch element {
	case "name":
		if a.name == "" { // the others are translations
			a.name = s.value()
		}
	case "username":
		a.apn.User = s.value()
	case "password":
		a.apn.Password = redact.NewSecret(s.value())
	case "dns":
		a.dns = append(a.dns, s.value())
	}
}
