package ber

// Headers says how many headers r has read.
func Headers(r *Reader) int { return r.headers }
