package es9p

import (
	"crypto/x509"
	"net/http"
	"time"

	"lpad/agent/rsp"
)

// World stands for the anchors that the program brings along.
type World struct{ Production, Test, Other []*x509.Certificate }

// NewTrustIn is NewTrust in another world.
func NewTrustIn(w World, cfg TrustConfig) (*Trust, error) {
	a := anchors{pool: x509.NewCertPool()}
	list := func(certs []*x509.Certificate, test bool) (roots []Root) {
		for _, c := range certs {
			a.pool.AddCert(c)
			roots = append(roots, Root{Name: nameOf(c), Fingerprint: fingerprint(c), SKI: upperHex(c.SubjectKeyId), Test: test})
		}
		return roots
	}
	a.production, a.test = list(w.Production, false), list(w.Test, true)
	list(w.Other, false)
	return newTrust(cfg, a)
}

// Verify is the judgement of a server's certificates.
func (t *Trust) Verify(certs []*x509.Certificate, host string, now time.Time, onlyCIs [][]byte) error {
	return t.verify(certs, host, now, onlyCIs)
}

// The private parts that tests look at.
var (
	ProductionRoots = productionRoots
	TestRoots       = testRoots
	Fingerprint     = fingerprint
	UpperHex        = upperHex
	DecodeBase64    = decodeBase64
	BareAddress     = bareAddress
	ResolverDial    = resolverDial
)

// Meanings lists the pairs of the table.
func Meanings() (pairs [][2]string) {
	for _, s := range meanings {
		pairs = append(pairs, [2]string{s.subject, s.reason})
	}
	return pairs
}

// CertificateCodes lists the codes that are explained.
func CertificateCodes() (codes []string) {
	for c := range certificateFaults {
		codes = append(codes, c)
	}
	return codes
}

// DecodeAll reads one body as the answer of every function.
func DecodeAll(body []byte, id rsp.TransactionID) []error {
	_, _, err1 := decodeInitiateAuthentication("initiateAuthentication", body)
	_, err2 := decodeAuthenticateClient("authenticateClient", body, id)
	_, err3 := decodeBoundProfilePackage("getBoundProfilePackage", body, id)
	err4 := decodeAck("handleNotification", body)
	return []error{err1, err2, err3, err4}
}

// DecodeAuthenticateClient is the decoder of that answer.
func DecodeAuthenticateClient(body []byte, id rsp.TransactionID) (rsp.ClientAuthenticated, error) {
	return decodeAuthenticateClient("authenticateClient", body, id)
}

// Transport is the session's own.
func (s *Session) Transport() *http.Transport { return s.transport }
