package carrierdb

import (
	"errors"
	"fmt"
	"io"
	"os"

	"lpad/modem"
)

// DB is the list of one file.
type DB struct{ path string }

// Open looks at the beginning of the file at path: it must be a list of
// format 2. A file that does not exist matches os.ErrNotExist. There is
// nothing to close.
func Open(path string) (*DB, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("provider list: %w", err)
	}
	defer f.Close()
	if err := newScanner(f).root(); err != nil {
		return nil, fmt.Errorf("provider list %s: %w", path, err)
	}
	return &DB{path}, nil
}

// Query is what is known of a subscription. MCC and MNC, or the IMSI, are
// needed; the rest helps to choose.
type Query struct {
	MCC, MNC string // of the home network; MNC of 2 or 3 digits
	IMSI     string // used when MNC is empty: an MNC of three digits is tried, then one of two
	SPN      string // service provider name: EF_SPN, or of the profile's metadata
	Operator string // name of the home network's operator, when known
	Plan     string // "prepaid" or "postpaid", when known
	GID1     string // not in this list; for a list of ours that knows it
	ICCID    string // the same
}

// networks are the networks to look for, the best first.
func (q Query) networks() []network {
	if q.MNC != "" {
		return []network{{q.MCC, q.MNC}}
	}
	const mcc, three, two = 3, 6, 5
	if len(q.IMSI) < three {
		return nil
	}
	return []network{{q.IMSI[:mcc], q.IMSI[mcc:three]}, {q.IMSI[:mcc], q.IMSI[mcc:two]}}
}

// Candidate is an access point that may be the right one.
type Candidate struct {
	Provider  string    // first name of the provider
	Country   string    // two letters, lower case
	Name      string    // of the access point, for people; may be empty
	APN       modem.APN // name, authentication, user, password
	DNS       []string  // name servers of the list: often out of date, not to be used unasked
	Plans     []string  // "prepaid", "postpaid"; empty: any
	Match     Match     // why this provider
	Ambiguous bool      // several providers fit as well, and their access points differ
}

// Match says by what a provider was chosen.
type Match string

// The ways of a choice, the surest first.
const (
	MatchSPN      Match = "spn"          // equal to the name on the card
	MatchSPNPart  Match = "spn-part"     // one name contains the other
	MatchOnly     Match = "only"         // nobody else is on this network
	MatchPrimary  Match = "primary"      // the list's own mark
	MatchOperator Match = "operator"     // named like the operator
	MatchNetwork  Match = "network-only" // nothing but the network fits
)

// Lookup returns the candidates, the best first; none is not an error. An
// error is about the file: gone, damaged, or beyond the limits.
func (db *DB) Lookup(q Query) (found []Candidate, err error) {
	networks := q.networks()
	if len(networks) == 0 {
		return nil, nil
	}
	f, err := os.Open(db.path)
	if err != nil {
		return nil, fmt.Errorf("provider list: %w", err)
	}
	defer f.Close()
	found, err = lookup(f, q, networks)
	if err != nil {
		return nil, fmt.Errorf("provider list %s: %w", db.path, err)
	}
	return found, nil
}

func lookup(r io.Reader, q Query, networks []network) ([]Candidate, error) {
	s := newScanner(r)
	if err := s.root(); err != nil {
		return nil, err
	}
	on := make([][]provider, len(networks)) // by the network they were found under
	kept := 0
	for {
		p, err := s.provider()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, err
		}
		for i, n := range networks {
			if !p.serves(n) {
				continue
			}
			if kept++; kept > maxKept {
				return nil, fmt.Errorf("more than %d providers on one network", maxKept)
			}
			on[i] = append(on[i], p)
		}
	}
	for _, providers := range on {
		if len(providers) > 0 {
			return choose(providers, q), nil
		}
	}
	return nil, nil
}
