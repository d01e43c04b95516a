// Package es9p is the client of ES9+ and ES11: the LPA's side of the HTTPS
// interfaces to an SM-DP+ and to an SM-DS (SGP.22 v2.5, sections 5.6, 5.8 and
// 6). It never sees a card: what the eUICC has signed comes in as bytes, what
// the server has signed goes out as bytes, whole TLVs, not decoded and encoded
// again.
//
//	trust, err := es9p.NewTrust(es9p.TrustConfig{Dir: "/etc/lpad/trust.d"})
//	client := &es9p.Client{Trust: trust}
//	s, err := client.Open("smdp.example.com")
//	if err != nil {
//		return err
//	}
//	defer s.Close()
//	auth, err := s.InitiateAuthentication(ctx, challenge, info1)
//
// A [Session] is one RSP session over one TLS connection that is kept alive.
// Each call sends its request once: nothing is repeated here, because only
// the caller knows whether a repeat is safe. InitiateAuthentication may be
// repeated freely with a fresh challenge, HandleNotification with the same
// bytes. After a lost answer of AuthenticateClient or GetBoundProfilePackage
// the server's session may have moved on: start over with a new challenge.
//
// A server proves itself with a certificate under a GSMA CI, never under the
// system's web roots; see [Trust].
//
// Every error explains itself (package fault):
//
//	[*Error]            the server understood and refused, with subject and reason code
//	[*HTTPError]        an HTTP status other than success
//	[*AnswerError]      an answer that is not what the specification says
//	[*TransportError]   no connection: name, route, interface, time-out, TLS
//	[*CertificateError] the server's certificate is not acceptable, and why
//	[*AddressError]     the address is not the bare domain name of a server
//
// A cancelled context comes back as such, wrapped.
//
// Answers are read tolerantly, as real servers bend the specification
// (quirks.go), and requests are written strictly. Everything is bounded: time
// by [Timeouts], size by [Limits].
package es9p
