package carrierdb

import "strings"

// LookupIn is Lookup without a file.
func LookupIn(text string, q Query) ([]Candidate, error) {
	s := newScanner(strings.NewReader(text), 0)
	if err := s.root(); err != nil {
		return nil, err
	}
	x, err := s.scan()
	if err != nil {
		return nil, err
	}
	return lookup(strings.NewReader(text), x, q, q.networks())
}
