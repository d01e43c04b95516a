package es9p_test

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/pem"
	"errors"
	"io"
	"log"
	"net"
	"net/http/httptest"
	"os"
	"path/filepath"
	"reflect"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/damonto/euicc-go/http/rootci"

	"lpad/agent/rsp/es9p"
	"lpad/agent/rsp/rsptest/vectors"
	"lpad/internal/fault"
)

// bundle reads a PEM file that lies beside the source of package rootci.
func bundle(t *testing.T, name string) map[string]*pem.Block {
	t.Helper()
	source, _ := runtime.FuncForPC(reflect.ValueOf(rootci.TrustedRootCAs).Pointer()).FileLine(0)
	text, err := os.ReadFile(filepath.Join(filepath.Dir(source), name))
	if err != nil {
		t.Skipf("the sources of rootci are not at hand (built with -trimpath?): %v", err)
	}
	blocks := map[string]*pem.Block{}
	for {
		var b *pem.Block
		if b, text = pem.Decode(text); b == nil {
			return blocks
		}
		blocks[es9p.Fingerprint(&x509.Certificate{Raw: b.Bytes})] = b
	}
}

// The fingerprints on our list are those of certificates in the bundle, and
// those of test CIs are in the other.
func TestRootsAreInTheBundle(t *testing.T) {
	if n := len(es9p.ProductionRoots); n != 6 {
		t.Errorf("%d production roots, want 6", n)
	}
	production := bundle(t, "bundle.pem")
	for _, r := range es9p.ProductionRoots {
		b := production[r.Fingerprint]
		if b == nil {
			t.Errorf("%s: no such certificate in the bundle", r.Name)
			continue
		}
		c, err := x509.ParseCertificate(b.Bytes)
		if err != nil {
			t.Fatal(err)
		}
		if ski := es9p.UpperHex(c.SubjectKeyId); ski != r.SKI || !strings.HasPrefix(c.Subject.CommonName+" "+c.Subject.Organization[0], r.Name[:4]) && !strings.Contains(c.Subject.CommonName, "RSP2 Root CI1") {
			t.Errorf("%s: the certificate is of %s, key %s", r.Name, c.Subject, ski)
		}
		if until := c.NotAfter.UTC().Format(time.DateOnly); until != r.Until {
			t.Errorf("%s is valid until %s, the list says %q", r.Name, until, r.Until)
		}
		if !c.IsCA || c.CheckSignatureFrom(c) != nil {
			t.Errorf("%s is not a self-signed authority", r.Name)
		}
	}
	tests := bundle(t, "bundle-tests.pem")
	if len(tests) != len(es9p.TestRoots) {
		t.Errorf("%d test CIs in the bundle, %d on the list", len(tests), len(es9p.TestRoots))
	}
	for _, r := range es9p.TestRoots {
		b := tests[r.Fingerprint]
		if b == nil {
			t.Errorf("%s: no such certificate in the bundle", r.Name)
			continue
		}
		ski, err := asn1.Marshal(mustHex(t, r.SKI))
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Contains(b.Bytes, ski) { // brainpool certificates cannot be parsed here
			t.Errorf("%s does not hold the key identifier %s", r.Name, r.SKI)
		}
		if !r.Test {
			t.Errorf("%s is not marked as a test CI", r.Name)
		}
	}
}

func mustHex(t *testing.T, s string) []byte {
	t.Helper()
	var b []byte
	for i := 0; i+1 < len(s); i += 2 {
		hi, lo := strings.IndexByte("0123456789ABCDEF", s[i]), strings.IndexByte("0123456789ABCDEF", s[i+1])
		if hi < 0 || lo < 0 {
			t.Fatalf("%q is not hexadecimal", s)
		}
		b = append(b, byte(hi<<4|lo))
	}
	return b
}

func verdict(t *testing.T, err error) string {
	t.Helper()
	if err == nil {
		return "ok"
	}
	var e *es9p.CertificateError
	if !errors.As(err, &e) {
		t.Fatalf("error %T: %v", err, err)
	}
	if f := fault.Of(err); f.Code != e.Code || f.Text == "" || f.Next == "" || f.Retry {
		t.Errorf("fault %+v", f)
	}
	return e.Code
}

func TestVerify(t *testing.T) {
	gsma := newAuthority(t, "GSMA CI", nil, nil)
	test := newAuthority(t, "Test CI", nil, nil)
	vendor := newAuthority(t, "Vendor CI", nil, nil) // in the bundle, on no list
	oem := newAuthority(t, "OEM CI", nil, nil)
	foreign := newAuthority(t, "Web CA", nil, nil)
	subCA := newAuthority(t, "DP sub CA", gsma, nil)
	oldSubCA := newAuthority(t, "Old DP sub CA", gsma, func(c *x509.Certificate) { c.NotAfter = today.AddDate(0, 0, -1) })
	world := es9p.World{Production: []*x509.Certificate{gsma.cert}, Test: []*x509.Certificate{test.cert}, Other: []*x509.Certificate{vendor.cert}}
	strict, err := es9p.NewTrustIn(world, es9p.TrustConfig{Dir: folder(t, oem.cert)})
	if err != nil {
		t.Fatal(err)
	}
	lax, err := es9p.NewTrustIn(world, es9p.TrustConfig{AllowTestCI: true})
	if err != nil {
		t.Fatal(err)
	}
	type change = func(*x509.Certificate)
	policy := func(oids ...string) change {
		return func(c *x509.Certificate) {
			c.Policies = nil
			for _, oid := range oids {
				c.Policies = append(c.Policies, policyOID(t, oid))
			}
		}
	}
	for _, tc := range []struct {
		name   string
		trust  *es9p.Trust
		ci     *authority
		via    *authority
		change change
		now    time.Time
		only   []byte
		want   string
	}{
		{name: "good", want: "ok"},
		{name: "through a sub CA", ci: subCA, via: subCA, want: "ok"},
		{name: "sub CA not sent", ci: subCA, want: es9p.CertificateForeign},
		{name: "sub CA expired", ci: oldSubCA, via: oldSubCA, want: es9p.CertificateExpired},
		{name: "CI on the card", only: gsma.cert.SubjectKeyId, want: "ok"},
		{name: "CI not on the card", only: test.cert.SubjectKeyId, want: es9p.CertificateCINotOnCard},
		{name: "OEM authority, not on the card", ci: oem, only: test.cert.SubjectKeyId, want: "ok"},
		{name: "OEM authority, policy of its own", ci: oem, change: policy("2.999.1"), want: "ok"},
		{name: "foreign", ci: foreign, want: es9p.CertificateForeign},
		{name: "foreign and expired", ci: foreign, change: func(c *x509.Certificate) { c.NotAfter = today.Add(-time.Hour) }, want: es9p.CertificateForeign},
		{name: "vendor CI", ci: vendor, want: es9p.CertificateCIRefused},
		{name: "test CI", ci: test, want: es9p.CertificateTestCI},
		{name: "test CI allowed", trust: lax, ci: test, want: "ok"},
		{name: "vendor CI is not a test CI", trust: lax, ci: vendor, want: es9p.CertificateCIRefused},
		{name: "OEM authority elsewhere", trust: lax, ci: oem, want: es9p.CertificateForeign},
		{name: "expired", change: func(c *x509.Certificate) { c.NotAfter = today.Add(-time.Hour) }, want: es9p.CertificateExpired},
		{name: "not yet valid", change: func(c *x509.Certificate) { c.NotBefore = today.Add(time.Hour) }, want: es9p.CertificateNotYetValid},
		{name: "clock of 1970", now: time.Unix(100, 0), want: es9p.ClockNotSet},
		{name: "clock just before the floor", now: es9p.ClockFloor.Add(-time.Second), ci: foreign, want: es9p.ClockNotSet},
		{name: "other name", change: func(c *x509.Certificate) { c.DNSNames = []string{"smds.test.example"} }, want: es9p.CertificateWrongHost},
		{name: "common name only", change: func(c *x509.Certificate) { c.DNSNames = nil }, want: es9p.CertificateWrongHost},
		{name: "wildcard", change: func(c *x509.Certificate) { c.DNSNames = []string{"*.test.example"} }, want: "ok"},
		{name: "as a large SM-DP+ has it", change: func(c *x509.Certificate) { // several wildcards, and a URL with a blank before it
			c.DNSNames = []string{"*.prod.example", "*.test.example", "*.prod.classic.example"}
			c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}
			c.CRLDistributionPoints = []string{" http://crl.example/ci.crl"}
		}, want: "ok"},
		{name: "wildcard of another depth", change: func(c *x509.Certificate) { c.DNSNames = []string{"*.example"} }, want: es9p.CertificateWrongHost},
		{name: "no serverAuth", change: func(c *x509.Certificate) { c.ExtKeyUsage = nil }, want: es9p.CertificateWrongUsage},
		{name: "clientAuth", change: func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth} }, want: es9p.CertificateWrongUsage},
		{name: "no digitalSignature", change: func(c *x509.Certificate) { c.KeyUsage = x509.KeyUsageKeyAgreement }, want: es9p.CertificateWrongUsage},
		{name: "no key usage", change: func(c *x509.Certificate) { c.KeyUsage = 0 }, want: es9p.CertificateWrongUsage},
		{name: "dp-auth", change: policy("2.23.146.1.2.1.4"), want: es9p.CertificateWrongRole},
		{name: "ds-tls", change: policy("2.23.146.1.2.1.6"), want: "ok"},
		{name: "dp-tls of v3", change: policy("2.23.146.1.2.1.0.0.1.0"), want: "ok"},
		{name: "ds-tls of v3", change: policy("2.999", "2.23.146.1.2.1.0.0.2.0"), want: "ok"},
		{name: "no policies", change: policy(), want: "ok"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			trust, ci, now := tc.trust, tc.ci, tc.now
			if trust == nil {
				trust = strict
			}
			if ci == nil {
				ci = gsma
			}
			if now.IsZero() {
				now = today
			}
			var only [][]byte
			if tc.only != nil {
				only = [][]byte{tc.only}
			}
			certs := []*x509.Certificate{ci.issue(t, tc.change).Leaf}
			if tc.via != nil {
				certs = append(certs, tc.via.cert)
			}
			err := trust.Verify(certs, host, now, only)
			if got := verdict(t, err); got != tc.want {
				t.Errorf("%s, want %s: %v", got, tc.want, err)
			}
		})
	}
	critical := gsma.issue(t, func(c *x509.Certificate) {
		c.ExtraExtensions = append(c.ExtraExtensions, extension(true))
	})
	if got := verdict(t, strict.Verify([]*x509.Certificate{critical.Leaf}, host, today, nil)); got != es9p.CertificateUnsupported {
		t.Errorf("unknown critical extension: %s", got)
	}
	if got := verdict(t, strict.Verify(nil, host, today, nil)); got != es9p.CertificateForeign {
		t.Errorf("no certificate: %s", got)
	}
	leafAsCA := gsma.issue(t, nil)
	below := &authority{leafAsCA.Leaf, leafAsCA.PrivateKey.(*ecdsa.PrivateKey)}
	if got := verdict(t, strict.Verify([]*x509.Certificate{below.issue(t, nil).Leaf, leafAsCA.Leaf}, host, today, nil)); got == "ok" {
		t.Error("a server's certificate vouches for another")
	}
	if n := len(es9p.CertificateCodes()); n != 11 {
		t.Errorf("%d codes are explained, want 11", n)
	}
}

// The same through a real handshake: the verdict reaches the caller, and no
// byte of the request has left.
func TestVerifyInHandshake(t *testing.T) {
	srv := startServer(t, nil)
	srv.good()
	for name, tc := range map[string]struct {
		change func(*es9p.Client)
		want   string
	}{
		"foreign": {func(c *es9p.Client) { c.Trust = nil }, es9p.CertificateForeign},
		"expired": {func(c *es9p.Client) { c.Now = func() time.Time { return today.AddDate(2, 0, 0) } }, es9p.CertificateExpired},
		"clock":   {func(c *es9p.Client) { c.Now = func() time.Time { return time.Unix(0, 0) } }, es9p.ClockNotSet},
	} {
		c := srv.client(t)
		tc.change(c)
		err := calls[0].call(t.Context(), open(t, c))
		if got := verdict(t, err); got != tc.want {
			t.Errorf("%s: %s, want %s", name, got, tc.want)
		}
	}
	requests, _ := srv.seen()
	if len(requests) != 0 {
		t.Errorf("%d requests reached a server that is not trusted", len(requests))
	}
}

// OnlyCIs takes key identifiers bare and as the card lists them.
func TestOnlyCIs(t *testing.T) {
	srv := startServer(t, nil)
	srv.good()
	trust, err := es9p.NewTrustIn(es9p.World{Production: []*x509.Certificate{srv.ci.cert}}, es9p.TrustConfig{})
	if err != nil {
		t.Fatal(err)
	}
	c := srv.client(t)
	c.Trust = trust
	ski := srv.ci.cert.SubjectKeyId
	for name, tc := range map[string]struct {
		skis [][]byte
		want string
	}{
		"bare":   {[][]byte{make([]byte, 20), ski}, "ok"},
		"TLV":    {[][]byte{append([]byte{4, 20}, ski...)}, "ok"},
		"others": {[][]byte{make([]byte, 20)}, es9p.CertificateCINotOnCard},
		"none":   {nil, "ok"},
	} {
		if got := verdict(t, calls[0].call(t.Context(), open(t, c, es9p.OnlyCIs(tc.skis...)))); got != tc.want {
			t.Errorf("%s: %s, want %s", name, got, tc.want)
		}
	}
}

// A server under the SGP.26 test CI, whose keys are public, is what a test
// card is used with. It is named as such, not as foreign. The published
// certificate with a published key is one for DPauth, so the role is what is
// wrong with it when test CIs are allowed.
func TestSGP26(t *testing.T) {
	der, key := vectors.Read(t, "sgp26/dpauth.der"), vectors.Read(t, "sgp26/dpauth-key.pem")
	// Some versions of the file begin with the parameters of the curve.
	if i := bytes.Index(key, []byte("-----BEGIN EC PRIVATE KEY")); i > 0 {
		key = key[i:]
	}
	pair, err := tls.X509KeyPair(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), key)
	if err != nil {
		t.Fatal(err)
	}
	srv := httptest.NewUnstartedServer(nil)
	srv.TLS = &tls.Config{Certificates: []tls.Certificate{pair}}
	srv.Config.ErrorLog = log.New(io.Discard, "", 0)
	srv.StartTLS()
	defer srv.Close()
	for allow, want := range map[bool]string{false: es9p.CertificateTestCI, true: es9p.CertificateWrongHost} {
		trust, err := es9p.NewTrust(es9p.TrustConfig{AllowTestCI: allow})
		if err != nil {
			t.Fatal(err)
		}
		c := &es9p.Client{Trust: trust, Now: func() time.Time { return today }, Dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, network, srv.Listener.Addr().String())
		}}
		if got := verdict(t, calls[0].call(t.Context(), open(t, c))); got != want {
			t.Errorf("test CIs allowed %v: %s, want %s", allow, got, want)
		}
	}
}

func TestTrustFolder(t *testing.T) {
	ci := newAuthority(t, "OEM CI", nil, nil)
	good := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: ci.cert.Raw})
	leaf := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: ci.issue(t, nil).Leaf.Raw})
	for _, tc := range []struct {
		name  string
		files map[string][]byte
		want  string // in the reason why the file was skipped; empty: accepted
		roots int
	}{
		{"nothing", nil, "", 0},
		{"two files", map[string][]byte{"a.pem": good, "B.CRT": good}, "", 2},
		{"two in one", map[string][]byte{"a.pem": append(slices.Clone(good), good...)}, "", 2},
		{"other files", map[string][]byte{"README": []byte("x"), "a.pem~": []byte("x"), "a.pem": good}, "", 1},
		{"empty", map[string][]byte{"a.pem": nil}, "a.pem: holds no PEM", 0},
		{"DER", map[string][]byte{"a.crt": ci.cert.Raw}, "a.crt: holds no PEM", 0},
		{"key", map[string][]byte{"a.pem": append(slices.Clone(good), pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY"})...)}, "holds a EC PRIVATE KEY", 0},
		{"broken", map[string][]byte{"a.pem": append(slices.Clone(good), good[:100]...)}, "broken PEM block", 0},
		{"not a certificate", map[string][]byte{"a.pem": pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: []byte{1}})}, "a.pem: x509", 0},
		{"leaf", map[string][]byte{"a.pem": leaf}, "not the certificate of an authority", 0},
		{"too long", map[string][]byte{"a.pem": bytes.Repeat([]byte("x"), 256<<10+1)}, "longer than", 0},
		{"a good one beside a bad one", map[string][]byte{"a.pem": leaf, "b.pem": good}, "a.pem: ", 1},
		{"a bad one within a file", map[string][]byte{"a.pem": append(slices.Clone(good), leaf...), "b.pem": good}, "a.pem: ", 1},
	} {
		t.Run(tc.name, func(t *testing.T) {
			dir := t.TempDir()
			for name, text := range tc.files {
				if err := os.WriteFile(filepath.Join(dir, name), text, 0o600); err != nil {
					t.Fatal(err)
				}
			}
			trust, err := es9p.NewTrust(es9p.TrustConfig{Dir: dir})
			if err != nil {
				t.Fatal(err)
			}
			if s := trust.Skipped(); len(s) > 1 || strings.Join(s, "") != "" != (tc.want != "") || !strings.Contains(strings.Join(s, ""), tc.want) {
				t.Errorf("skipped %q, want one with %q", s, tc.want)
			}
			if n := len(trust.Describe()); n != len(es9p.ProductionRoots)+tc.roots {
				t.Errorf("%d roots, want the built-in ones and %d", n, tc.roots)
			}
			if w := trust.Warning(); w != "" {
				t.Errorf("warning %q", w)
			}
		})
	}
	if _, err := es9p.NewTrust(es9p.TrustConfig{Dir: filepath.Join(t.TempDir(), "none")}); err != nil {
		t.Errorf("a folder that is not there: %v", err)
	}
	if _, err := es9p.NewTrust(es9p.TrustConfig{Dir: filepath.Join(folder(t, ci.cert), "ci.pem")}); err == nil {
		t.Error("a file was taken for a folder")
	}
	dir := t.TempDir()
	for name, text := range tooMany(good) {
		if err := os.WriteFile(filepath.Join(dir, name), text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	_, err := es9p.NewTrust(es9p.TrustConfig{Dir: dir})
	if err == nil || !strings.Contains(err.Error(), "65 files") {
		t.Errorf("too many files: %v", err)
	}
	checkFault(t, err, "trust-folder-invalid", false)
}

func tooMany(text []byte) map[string][]byte {
	files := map[string][]byte{}
	for i := range 65 {
		files[strings.Repeat("x", i+1)+".pem"] = text
	}
	return files
}

// A test CI cannot come in through the folder, whichever certificate its key
// is in; where it is allowed, it is shown loudly.
func TestTestCIInFolder(t *testing.T) {
	test := newAuthority(t, "Test CI", nil, nil)
	again := newAuthority(t, "Test CI renewed", nil, func(c *x509.Certificate) { c.SubjectKeyId = test.cert.SubjectKeyId })
	world := es9p.World{Test: []*x509.Certificate{test.cert}}
	for _, c := range []*x509.Certificate{test.cert, again.cert} {
		trust, err := es9p.NewTrustIn(world, es9p.TrustConfig{Dir: folder(t, c)})
		if err != nil || len(trust.Skipped()) != 1 || !strings.Contains(trust.Skipped()[0], "allow_test_ci") || len(trust.Describe()) != 0 {
			t.Errorf("%s: error %v, skipped %v, roots %v", c.Subject, err, trust.Skipped(), trust.Describe())
		}
	}
	trust, err := es9p.NewTrustIn(world, es9p.TrustConfig{Dir: folder(t, again.cert), AllowTestCI: true})
	if err != nil {
		t.Fatal(err)
	}
	if w := trust.Warning(); !strings.Contains(w, "INSECURE") || !strings.Contains(w, "2 test CIs") {
		t.Errorf("warning %q", w)
	}
	for _, r := range trust.Describe() {
		if !r.Test || r.Origin == "" || r.Name == "" {
			t.Errorf("root %+v", r)
		}
	}
}

// Keys that Go cannot check end in a fault of their own, not in a riddle.
func TestOldTLSAndOddKeys(t *testing.T) {
	srv := startServer(t, nil)
	for name, tc := range map[string]struct {
		config *tls.Config
		want   string
	}{
		"TLS 1.1":             {&tls.Config{MaxVersion: tls.VersionTLS11}, "tls-refused"},
		"RSA suite":           {&tls.Config{MaxVersion: tls.VersionTLS12, CipherSuites: []uint16{tls.TLS_RSA_WITH_AES_128_CBC_SHA}}, "tls-refused"},
		"CBC suite":           {&tls.Config{MaxVersion: tls.VersionTLS12, CipherSuites: []uint16{tls.TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA256}}, ""},
		"P-384 key agreement": {&tls.Config{CurvePreferences: []tls.CurveID{tls.CurveP384}}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			other := httptest.NewUnstartedServer(srv)
			tc.config.Certificates = srv.TLS.Certificates
			other.TLS = tc.config
			other.Config.ErrorLog = log.New(io.Discard, "", 0)
			other.StartTLS()
			defer other.Close()
			srv.good()
			c := srv.client(t)
			c.Dial, c.Addresses = nil, map[string]string{host: other.Listener.Addr().String()}
			err := calls[0].call(t.Context(), open(t, c))
			if got := fault.Of(err).Code; got != tc.want {
				t.Errorf("%q, want %q: %v", got, tc.want, err)
			}
		})
	}
}

func extension(critical bool) (e pkix.Extension) {
	return pkix.Extension{Id: asn1.ObjectIdentifier{2, 999, 1}, Critical: critical, Value: []byte{5, 0}}
}

// A server with a key on a brainpool curve cannot be checked by Go, and the
// error says so. Any certificate of that kind will do: the key does not fit,
// which the client would only find later.
func TestBrainpool(t *testing.T) {
	srv := startServer(t, nil)
	for _, r := range es9p.TestRoots {
		if !strings.Contains(r.Name, "brainpool") {
			continue
		}
		srv.TLS.Certificates[0].Certificate = [][]byte{bundle(t, "bundle-tests.pem")[r.Fingerprint].Bytes}
		if got := verdict(t, calls[0].call(t.Context(), open(t, srv.client(t)))); got != es9p.CertificateUnsupported {
			t.Errorf("%s: %s", r.Name, got)
		}
	}
}
