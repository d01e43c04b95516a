// Package pki is a throw-away GSMA public key infrastructure for tests: a CI,
// an EUM, eUICC certificates and the certificates of SM-DP+ and SM-DS, made at
// run time with the certificate profiles of SGP.22 v2 ("variant O"), on P-256
// or brainpoolP256r1.
//
//	p, err := pki.New(pki.Options{SMDPHost: "smdp.example.com", SMDPOID: "2.999.10"})
//	p.DPAuth.Key.Sign(serverSigned1)      // 64 bytes r||s
//	tlsCert, err := p.DPTLS.TLSCertificate()
//	err = p.Save(dir)                     // and pki.Load(dir)
//
// The standard library makes and reads no brainpool certificates and refuses
// the critical nameConstraints of an EUM, so this package has its own writer
// and its own parser ([ParseCertificate]) for both curves; for P-256 its
// certificates are also what crypto/x509 and crypto/tls accept.
//
// Both sides of the protocol verify here: [VerifyServer] is what an eUICC does
// with CERT.DPauth, CERT.DPpb and CERT.DSauth, [VerifyEUICC] what a server does
// with CERT.EUM and CERT.EUICC. Their errors are [*Error] with a [Reason].
//
// Signatures are deterministic (RFC 6979), so that whole sessions can be
// compared byte for byte. Nothing here runs in constant time: test keys only.
package pki
