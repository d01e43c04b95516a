package es9p_test

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"lpad/agent/rsp/es9p"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const host = "smdp.test.example"

// today is when the certificates of the tests are good.
var today = time.Date(2026, time.June, 1, 12, 0, 0, 0, time.UTC)

// authority is a CI made for one test.
type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newKey(t testing.TB) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func newAuthority(t testing.TB, name string, issuer *authority, change func(*x509.Certificate)) *authority {
	t.Helper()
	key := newKey(t)
	ski := sha256.Sum256([]byte(name))
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name, Organization: []string{"lpad test"}},
		NotBefore: today.AddDate(-5, 0, 0), NotAfter: today.AddDate(20, 0, 0),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
		SubjectKeyId: ski[:20], Policies: []x509.OID{policyOID(t, "2.23.146.1.2.1.0")},
	}
	if change != nil {
		change(template)
	}
	parent, signer := template, key
	if issuer != nil {
		parent, signer = issuer.cert, issuer.key
	}
	return &authority{sign(t, template, parent, &key.PublicKey, signer), key}
}

func policyOID(t testing.TB, text string) x509.OID {
	t.Helper()
	oid, err := x509.ParseOID(text)
	if err != nil {
		t.Fatal(err)
	}
	return oid
}

func sign(t testing.TB, template, parent *x509.Certificate, public *ecdsa.PublicKey, signer *ecdsa.PrivateKey) *x509.Certificate {
	t.Helper()
	der, err := x509.CreateCertificate(rand.Reader, template, parent, public, signer)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return cert
}

// issue makes a CERT.DPtls (SGP.22 v2.5, section 4.5.2.1), changed as wanted.
func (a *authority) issue(t testing.TB, change func(*x509.Certificate)) tls.Certificate {
	t.Helper()
	key := newKey(t)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: host}, DNSNames: []string{host},
		NotBefore: today.AddDate(0, -1, 0), NotAfter: today.AddDate(0, 11, 0),
		KeyUsage:    x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		Policies:    []x509.OID{policyOID(t, "2.23.146.1.2.1.3")},
	}
	if change != nil {
		change(template)
	}
	leaf := sign(t, template, a.cert, &key.PublicKey, a.key)
	return tls.Certificate{Certificate: [][]byte{leaf.Raw}, PrivateKey: key, Leaf: leaf}
}

// folder writes certificates as a folder of trust.
func folder(t testing.TB, certs ...*x509.Certificate) string {
	t.Helper()
	dir := t.TempDir()
	var text []byte
	for _, c := range certs {
		text = append(text, "an authority\n"...)
		text = append(text, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw})...)
	}
	if err := os.WriteFile(filepath.Join(dir, "ci.pem"), text, 0o600); err != nil {
		t.Fatal(err)
	}
	return dir
}

// request is what arrived at the server.
type request struct {
	*http.Request
	body []byte
}

// server answers ES9+ as its table says and keeps what it got.
type server struct {
	*httptest.Server
	ci *authority

	mu          sync.Mutex
	requests    []request
	connections int
	answers     map[string]http.HandlerFunc // by function
}

// reply is an answer with a body.
func reply(status int, body string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json;charset=UTF-8")
		w.WriteHeader(status)
		io.WriteString(w, body)
	}
}

func startServer(t *testing.T, change func(*x509.Certificate)) *server {
	t.Helper()
	s := &server{ci: newAuthority(t, "CI of "+t.Name(), nil, nil), answers: map[string]http.HandlerFunc{}}
	s.Server = httptest.NewUnstartedServer(s)
	s.TLS = &tls.Config{Certificates: []tls.Certificate{s.ci.issue(t, change)}}
	s.Config.ErrorLog = log.New(io.Discard, "", 0) // refused handshakes are what is tested
	s.Config.ConnState = func(_ net.Conn, state http.ConnState) {
		if state == http.StateNew {
			s.mu.Lock()
			s.connections++
			s.mu.Unlock()
		}
	}
	s.StartTLS()
	t.Cleanup(s.Close)
	return s
}

func (s *server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	s.mu.Lock()
	s.requests = append(s.requests, request{r, body})
	answer := s.answers[strings.TrimPrefix(r.URL.Path, "/gsma/rsp2/es9plus/")]
	s.mu.Unlock()
	if answer == nil {
		http.NotFound(w, r)
		return
	}
	answer(w, r)
}

func (s *server) seen() (requests []request, connections int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.requests, s.connections
}

// client dials the server whatever the name, and trusts it.
func (s *server) client(t *testing.T) *es9p.Client {
	t.Helper()
	trust, err := es9p.NewTrust(es9p.TrustConfig{Dir: folder(t, s.ci.cert)})
	if err != nil {
		t.Fatal(err)
	}
	return &es9p.Client{
		Trust: trust,
		Now:   func() time.Time { return today },
		Dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, network, s.Listener.Addr().String())
		},
	}
}

func open(t *testing.T, c *es9p.Client, options ...es9p.Option) *es9p.Session {
	t.Helper()
	s, err := c.Open(host, options...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

// Values of a session. What they hold is of no interest here but their tags.
var (
	challenge       = bytes.Repeat([]byte{0xC4}, 16)
	info1           = []byte{0xBF, 0x20, 0x05, 0x82, 0x03, 0x02, 0x02, 0x02}
	authServer      = []byte{0xBF, 0x38, 0x02, 0xA0, 0x00}
	prepareDownload = []byte{0xBF, 0x21, 0x02, 0xA0, 0x00}
	cancelResponse  = []byte{0xBF, 0x41, 0x02, 0xA0, 0x00}
	installResult   = []byte{0xBF, 0x37, 0x02, 0xBF, 0x27}
	otherSigned     = []byte{0x30, 0x00}
	transactionID   = []byte{0x0A, 0x1B, 0x2C, 0x3D}
)

// Answers of a good server; the base64 is of TLVs with the right tags.
const (
	success         = `"header":{"functionExecutionStatus":{"status":"Executed-Success"}}`
	initiateAnswer  = `{` + success + `,"transactionId":"0a1B2c3D","serverSigned1":"MAGq","serverSignature1":"XzcBqg==","euiccCiPKIdToBeUsed":"BAGq","serverCertificate":"MAGq"}`
	offerAnswer     = `{` + success + `,"transactionId":"0A1B2C3D","profileMetadata":"vyUBqg==","smdpSigned2":"MAGq","smdpSignature2":"XzcBqg==","smdpCertificate":"MAGq"}`
	packageAnswer   = `{` + success + `,"transactionId":"0A1B2C3D","boundProfilePackage":"vzYBqg=="}`
	emptyHeader     = `{` + success + `}`
	refusedMatching = `{"header":{"functionExecutionStatus":{"status":"Failed","statusCodeData":{"subjectCode":"8.2.6","reasonCode":"3.8","subjectIdentifier":"SECRET-ID","message":"no SECRET-ID here"}}}}`
)

// good makes the server answer everything.
func (s *server) good() {
	s.answers = map[string]http.HandlerFunc{
		"initiateAuthentication": reply(200, initiateAnswer),
		"authenticateClient":     reply(200, offerAnswer),
		"getBoundProfilePackage": reply(200, packageAnswer),
		"handleNotification":     reply(204, ""),
		"cancelSession":          reply(200, emptyHeader),
	}
}
