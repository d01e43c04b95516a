package carrierdb

import (
	"fmt"
	"io"
	"os"
	"slices"
	"sync"

	"lpad/modem"
)

// DB is the list of one file.
type DB struct {
	path string

	mu    sync.Mutex
	file  os.FileInfo // that the index is of
	index *index
}

// Open looks at the beginning of the file at path: it must be a list of
// format 2. A file that does not exist matches os.ErrNotExist. There is
// nothing to close.
func Open(path string) (*DB, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("provider list: %w", err)
	}
	defer f.Close()
	if err := newScanner(f, 0).root(); err != nil {
		return nil, fmt.Errorf("provider list %s: %w", path, err)
	}
	return &DB{path: path}, nil
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
	var out []network
	add := func(mcc, mnc string) {
		if n, ok := networkNamed(mcc, mnc); ok {
			out = append(out, n)
		}
	}
	const mcc, three, two = 3, 6, 5
	switch {
	case q.MNC != "":
		add(q.MCC, q.MNC)
	case len(q.IMSI) >= three:
		add(q.IMSI[:mcc], q.IMSI[mcc:three])
		add(q.IMSI[:mcc], q.IMSI[mcc:two])
	}
	return out
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
	x, err := db.indexOf(f)
	if err == nil {
		found, err = lookup(f, x, q, networks)
	}
	if err != nil {
		return nil, fmt.Errorf("provider list %s: %w", db.path, err)
	}
	return found, nil
}

// indexOf is the index of the file as it is now: a package that is updated
// while the program runs is read again.
func (db *DB) indexOf(f *os.File) (*index, error) {
	now, err := f.Stat()
	if err != nil {
		return nil, err
	}
	db.mu.Lock()
	defer db.mu.Unlock()
	if db.index != nil && os.SameFile(db.file, now) && db.file.Size() == now.Size() && db.file.ModTime().Equal(now.ModTime()) {
		return db.index, nil
	}
	db.index = nil
	s := newScanner(f, 0)
	if err := s.root(); err != nil {
		return nil, err
	}
	x, err := s.scan()
	if err != nil {
		return nil, err
	}
	db.file, db.index = now, x
	return x, nil
}

// lookup reads the providers of the first network that has any.
func lookup(r io.ReaderAt, x *index, q Query, networks []network) ([]Candidate, error) {
	for _, n := range networks {
		places := x.find(n)
		if len(places) == 0 {
			continue
		}
		if len(places) > maxNetwork {
			return nil, fmt.Errorf("more than %d providers on one network", maxNetwork)
		}
		providers, err := read(r, x, places)
		if err != nil {
			return nil, err
		}
		return choose(providers, q), nil
	}
	return nil, nil
}

// read reads the providers at the places. Those that share a network mostly
// stand side by side: one piece of the file has them all.
func read(r io.ReaderAt, x *index, places []uint64) ([]provider, error) {
	providers := make([]provider, 0, len(places))
	s := scanner{eof: true}
	var piece []byte
	from, to := 0, 0 // what of the file is in it
	for i, e := range places {
		at, end := place(e)
		if end > to {
			from, to = at, end
			for _, next := range places[i+1:] {
				if _, end := place(next); end-from <= maxPiece {
					to = end
				}
			}
			piece = slices.Grow(piece[:0], to-from)[:to-from]
			if n, err := r.ReadAt(piece, int64(from)); n < len(piece) {
				return nil, unexpected(err)
			}
		}
		s.buf, s.pos = piece[at-from:end-from], 0
		p, err := s.readProvider()
		if err != nil {
			return nil, err
		}
		p.country = x.country(uint32(at))
		providers = append(providers, p)
	}
	return providers, nil
}
