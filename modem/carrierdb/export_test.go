package carrierdb

import "io"

// LookupIn is Lookup without a file.
func LookupIn(r io.Reader, q Query) ([]Candidate, error) { return lookup(r, q, q.networks()) }
