// Package bsp is the protection of a bound profile package: key agreement, and
// the chain of encrypted and authenticated segments (SGP.22 v2.5, section 2.6.4;
// derived from SCP03t of GlobalPlatform).
//
//	z, err := key.ECDH(peer)                             // pki.Key
//	s := bsp.NewSession(bsp.DeriveKeys(z, hostID, eid))
//	segment, err := s.Protect(bsp.Tag86, plain)          // SM-DP+
//	tag, plain, err := s.Unprotect(segment)              // eUICC
//
// Both sides keep one [Session] per package. Unprotect fails with [ErrSecurity]
// when the MAC is wrong and with [ErrStructure] when the segment is malformed;
// an eUICC answers 8 and 7. Own code for tests: nothing but the comparison of
// the MAC runs in constant time.
package bsp
