package pki

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"math/big"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"lpad/agent/rsp"
	"lpad/agent/rsp/rsptest/vectors"
	"lpad/apdu/ber"
)

var curves = []Curve{P256, BrainpoolP256r1}

func unhex(t *testing.T, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func must[T any](v T, err error) func(*testing.T) T {
	return func(t *testing.T) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

// RFC 6979, A.2.5: P-256, SHA-256, messages "sample" and "test".
func TestSignIsRFC6979(t *testing.T) {
	key := must(NewKey(P256, unhex(t, "C9AFA9D845BA75166B5C215767B1D6934E50C3DB36E89B127B8A622B120F6721")))(t)
	if got, want := key.Public()[1:33], unhex(t, "60FED4BA255A9D31C961EB74C6356D68C049B8923B61FA6CE669622E60F29FB6"); !bytes.Equal(got, want) {
		t.Errorf("public x %X, want %X", got, want)
	}
	for msg, want := range map[string]string{
		"sample": "EFD48B2AACB6A8FD1140DD9CD45E81D69D2C877B56AAF991C34D0EA84EAF3716F7CB1C942D657C41D436C7A1B6E29F65F3E900DBB9AFF4064DC4AB2F843ACDA8",
		"test":   "F1ABB023518351CD71D881567B1EA663ED3EFCF6C5132B354F28D3B0B7D38367019F4113742A2B14BD25926B49C649155F267E60D3814B4C0CC84250E46F0083",
	} {
		if got := key.Sign([]byte(msg)); !bytes.Equal(got, unhex(t, want)) {
			t.Errorf("signature of %q: %X, want %s", msg, got, want)
		}
	}
}

// Our signatures against the standard library's verifier, and the reverse.
func TestSignAgainstStandardLibrary(t *testing.T) {
	key := must(GenerateKey(P256))(t)
	signer := must(key.Signer())(t).(*ecdsa.PrivateKey)
	digest := sha256.Sum256([]byte("message"))
	sig := key.Sign([]byte("message"))
	r, s := new(big.Int).SetBytes(sig[:32]), new(big.Int).SetBytes(sig[32:])
	if !ecdsa.Verify(&signer.PublicKey, digest[:], r, s) {
		t.Error("crypto/ecdsa refuses our signature")
	}
	if !ecdsa.VerifyASN1(&signer.PublicKey, digest[:], derSignature(sig)) {
		t.Error("crypto/ecdsa refuses our DER signature")
	}
}

func TestVerify(t *testing.T) {
	for _, c := range curves {
		t.Run(c.String(), func(t *testing.T) {
			key := must(GenerateKey(c))(t)
			msg := []byte("what is signed")
			sig := key.Sign(msg)
			order := c.arithmetic().Params().N.FillBytes(make([]byte, 32))
			zero := make([]byte, 32)
			if !Verify(c, key.Public(), msg, sig) {
				t.Fatal("own signature refused")
			}
			if !bytes.Equal(sig, key.Sign(msg)) {
				t.Error("signature is not deterministic")
			}
			bad := bytes.Clone(sig)
			bad[63] ^= 1
			off := key.Public()
			off[64] ^= 1
			for name, ok := range map[string]bool{
				"flipped bit":        Verify(c, key.Public(), msg, bad),
				"other message":      Verify(c, key.Public(), msg[1:], sig),
				"short":              Verify(c, key.Public(), msg, sig[:63]),
				"r is zero":          Verify(c, key.Public(), msg, slices.Concat(zero, sig[32:])),
				"s is zero":          Verify(c, key.Public(), msg, slices.Concat(sig[:32], zero)),
				"s is n":             Verify(c, key.Public(), msg, slices.Concat(sig[:32], order)),
				"point off curve":    Verify(c, off, msg, sig),
				"compressed point":   Verify(c, key.Public()[:33], msg, sig),
				"other key":          Verify(c, must(GenerateKey(c))(t).Public(), msg, sig),
				"public key of zero": Verify(c, slices.Concat([]byte{4}, zero, zero), msg, sig),
			} {
				if ok {
					t.Errorf("%s: accepted", name)
				}
			}
		})
	}
}

func TestECDH(t *testing.T) {
	for _, c := range curves {
		a, b := must(GenerateKey(c))(t), must(GenerateKey(c))(t)
		za, zb := must(a.ECDH(b.Public()))(t), must(b.ECDH(a.Public()))(t)
		if !bytes.Equal(za, zb) || len(za) != 32 {
			t.Errorf("%s: secrets differ: %X, %X", c, za, zb)
		}
		if _, err := a.ECDH(b.Public()[:64]); err == nil {
			t.Errorf("%s: short point accepted", c)
		}
	}
	// SGP.22 session vector: otSK.DP with otPK.EUICC.
	dp := must(NewKey(P256, unhex(t, "0102030405060708090A0B0C0D0E0F101112131415161718191A1B1C1D1E1F20")))(t)
	z := must(dp.ECDH(unhex(t, "04A61B5852FEDEECD5373D769AF0EDBC94502276D9C6FF1DA3A156FECF31C6629954AEA62862E227AEBAF745C4E1D5F1BCBBA6136400D9F0A63434225FEE2590AE")))(t)
	if want := unhex(t, "79696DC34351DFC7758B07BAF66643F01D7D8F5AB976C51D5F2C42AB71F5A6C3"); !bytes.Equal(z, want) {
		t.Errorf("Z %X, want %X", z, want)
	}
	// RFC 7027, appendix A.1 (TLS test vectors): brainpoolP256r1, dA and Q_B.
	da := must(NewKey(BrainpoolP256r1, unhex(t, "81DB1EE100150FF2EA338D708271BE38300CB54241D79950F77B063039804F1D")))(t)
	z = must(da.ECDH(unhex(t, "048D2D688C6CF93E1160AD04CC4429117DC2C41825E1E9FCA0ADDD34E6F1B39F7B990C57520812BE512641E47034832106BC7D3E8DD0E4C7F1136D7006547CEC6A")))(t)
	if want := unhex(t, "89AFC39D41D3B327814B80940B042590F96556EC91E6AE7939BCE31F3A18BF2B"); !bytes.Equal(z, want) {
		t.Errorf("brainpool Z %X, want %X", z, want)
	}
}

func TestKeyErrors(t *testing.T) {
	for _, c := range curves {
		for name, scalar := range map[string][]byte{
			"zero": make([]byte, 32), "order": c.arithmetic().Params().N.Bytes(), "short": {1},
		} {
			if _, err := NewKey(c, scalar); err == nil {
				t.Errorf("%s: %s scalar accepted", c, name)
			}
		}
	}
	if _, err := generateKey(P256, bytes.NewReader(nil)); err == nil {
		t.Error("no random bytes: accepted")
	}
	if _, err := generateKey(P256, bytes.NewReader(bytes.Repeat([]byte{0xFF}, 4096))); err == nil {
		t.Error("useless random bytes: accepted")
	}
	if _, err := must(GenerateKey(BrainpoolP256r1))(t).Signer(); err == nil {
		t.Error("crypto.Signer for brainpool")
	}
}

func TestKeyPEM(t *testing.T) {
	for _, c := range curves {
		key := must(GenerateKey(c))(t)
		again := must(ParseKey(key.PEM()))(t)
		if again.Curve() != c || !bytes.Equal(again.Public(), key.Public()) || !bytes.Equal(again.Scalar(), key.Scalar()) {
			t.Errorf("%s: key changed on its way through PEM", c)
		}
	}
	signer := must(must(GenerateKey(P256))(t).Signer())(t)
	pkcs8 := must(x509.MarshalPKCS8PrivateKey(signer))(t)
	key := must(parsePKCS8(pkcs8))(t)
	if want := must(signer.(*ecdsa.PrivateKey).PublicKey.Bytes())(t); !bytes.Equal(key.Public(), want) {
		t.Error("PKCS #8 key differs")
	}
	if _, err := x509.ParseECPrivateKey(firstBlock(t, key.PEM())); err != nil {
		t.Errorf("crypto/x509 does not read our key: %v", err)
	}
	for name, file := range map[string]string{
		"empty":         "",
		"no DER":        "-----BEGIN EC PRIVATE KEY-----\nAAAA\n-----END EC PRIVATE KEY-----\n",
		"no DER, PKCS8": "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n",
		"PKCS8 empty":   "-----BEGIN PRIVATE KEY-----\nMAA=\n-----END PRIVATE KEY-----\n",
		"EC empty":      "-----BEGIN EC PRIVATE KEY-----\nMAA=\n-----END EC PRIVATE KEY-----\n",
		"no curve":      "-----BEGIN EC PRIVATE KEY-----\nMAYCAQEEAQE=\n-----END EC PRIVATE KEY-----\n",
	} {
		if _, err := ParseKey([]byte(file)); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

func firstBlock(t *testing.T, file []byte) []byte {
	t.Helper()
	k := must(ParseKey(file))(t)
	return ber.Encode(tagSequence, ber.EncodeInt(tagInteger, 1), ber.Encode(tagOctetString, k.Scalar()),
		ber.Encode(0xA0, encodeOID(k.curve.OID())), ber.Encode(0xA1, ber.Encode(tagBitString, []byte{0}, k.public)))
}

// The profiles of SGP.22 v2, variant O, as a table.
func TestCertificateProfiles(t *testing.T) {
	for _, c := range curves {
		p := must(New(Options{Curve: c}))(t)
		ci := p.CI.Certificate
		for _, want := range []struct {
			name     string
			cert     *Certificate
			policy   string
			critical bool
			usage    KeyUsage
			ca       bool
			pathLen  int
			oid      string
			dns      []string
			eku      int
			issuer   *Certificate
		}{
			{"CI", ci, "2.23.146.1.2.1.0", true, KeyCertSign | CRLSign, true, -1, "2.999.1", nil, 0, ci},
			{"EUM", p.EUM.Certificate, "2.23.146.1.2.1.2", true, KeyCertSign, true, 0, "2.999.5", nil, 0, ci},
			{"eUICC", p.EUICC.Certificate, "2.23.146.1.2.1.1", true, DigitalSignature, false, -1, "", nil, 0, p.EUM.Certificate},
			{"DPauth", p.DPAuth.Certificate, "2.23.146.1.2.1.4", true, DigitalSignature, false, -1, "2.999.10", nil, 0, ci},
			{"DPpb", p.DPPb.Certificate, "2.23.146.1.2.1.5", true, DigitalSignature, false, -1, "2.999.10", nil, 0, ci},
			{"DPtls", p.DPTLS.Certificate, "2.23.146.1.2.1.3", false, DigitalSignature, false, -1, "2.999.10", []string{"smdp.example.com"}, 2, ci},
			{"DSauth", p.DSAuth.Certificate, "2.23.146.1.2.1.7", true, DigitalSignature, false, -1, "2.999.15", nil, 0, ci},
			{"DStls", p.DSTLS.Certificate, "2.23.146.1.2.1.6", false, DigitalSignature, false, -1, "2.999.15", []string{"smds.example.com"}, 2, ci},
		} {
			t.Run(c.String()+"/"+want.name, func(t *testing.T) {
				got := want.cert
				if got.Curve != c || !slices.Equal(got.PolicyOIDs, []string{want.policy}) || got.PoliciesCrit != want.critical {
					t.Errorf("curve %s, policies %v (critical %v)", got.Curve, got.PolicyOIDs, got.PoliciesCrit)
				}
				if got.KeyUsage != want.usage || got.IsCA != want.ca || got.PathLen != want.pathLen {
					t.Errorf("usage %b, CA %v, path length %d", got.KeyUsage, got.IsCA, got.PathLen)
				}
				if got.RegisteredID != want.oid || !slices.Equal(got.DNSNames, want.dns) || len(got.ExtKeyUsage) != want.eku {
					t.Errorf("OID %q, names %v, extended usage %v", got.RegisteredID, got.DNSNames, got.ExtKeyUsage)
				}
				if len(got.SKI) != 20 || want.issuer != got && !bytes.Equal(got.AKI, want.issuer.SKI) {
					t.Errorf("SKI %X, AKI %X", got.SKI, got.AKI)
				}
				if !got.SignedBy(want.issuer.Curve, want.issuer.PublicKey) || !bytes.Equal(got.Issuer.Raw, want.issuer.Subject.Raw) {
					t.Error("not issued by its issuer")
				}
				if len(got.UnknownCritical) != 0 {
					t.Errorf("unknown critical %v", got.UnknownCritical)
				}
				if c == P256 {
					if _, err := got.X509(); err != nil {
						t.Errorf("crypto/x509: %v", err)
					}
				}
				if again := must(ParseCertificatePEM(got.PEM()))(t); !bytes.Equal(again.DER, got.DER) {
					t.Error("changed on its way through PEM")
				}
			})
		}
		if s := p.EUICC.Certificate.Subject; s.SerialNumber != TestEID || s.Organization != p.EUM.Certificate.Subject.Organization {
			t.Errorf("%s: eUICC subject %+v", c, s)
		}
		if n := p.EUM.Certificate.NameConstraints; n == nil || n.Organization != "RSP Test EUM" || !slices.Equal(n.Prefixes, []string{"89049032"}) {
			t.Errorf("%s: name constraints %+v", c, n)
		}
		if !bytes.Equal(p.CI.SKI(), ci.SKI) {
			t.Error("SKI of the CI")
		}
	}
}

// A Go TLS client accepts our TLS certificate under our root.
func TestTLSCertificateVerifiesInGo(t *testing.T) {
	p := must(New(Options{}))(t)
	roots := x509.NewCertPool()
	roots.AddCert(must(p.CI.Certificate.X509())(t))
	leaf := must(p.DPTLS.Certificate.X509())(t)
	for host, ok := range map[string]bool{"smdp.example.com": true, "other.example.com": false} {
		_, err := leaf.Verify(x509.VerifyOptions{Roots: roots, DNSName: host, CurrentTime: DefaultNotBefore.AddDate(1, 0, 0),
			KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}})
		if (err == nil) != ok {
			t.Errorf("%s: %v", host, err)
		}
	}
	if c := must(p.DPTLS.TLSCertificate())(t); len(c.Certificate) != 1 || c.PrivateKey == nil {
		t.Error("incomplete tls.Certificate")
	}
	brainpool := must(New(Options{Curve: BrainpoolP256r1}))(t)
	if _, err := brainpool.DPTLS.TLSCertificate(); err == nil {
		t.Error("tls.Certificate for brainpool")
	}
}

// The constraint of the EUM has the bytes of the SGP.26 one.
func TestNameConstraintBytes(t *testing.T) {
	p := must(New(Options{}))(t)
	want := unhex(t, "3032A030302EA42C302A31153013060355040A0C0C52535020546573742045554D3111300F060355040513083839303439303332")
	if !bytes.Contains(p.EUM.Certificate.DER, want) {
		t.Error("name constraints differ from SGP.26")
	}
}

func TestSaveLoad(t *testing.T) {
	for _, c := range curves {
		dir := filepath.Join(t.TempDir(), "pki")
		p := must(New(Options{Curve: c, SMDPHost: "a.example", SMDSHost: "b.example"}))(t)
		if err := p.Save(dir); err != nil {
			t.Fatal(err)
		}
		q := must(Load(dir))(t)
		before, after := p.files(), q.files()
		for i := range before {
			if !bytes.Equal(before[i].id.Certificate.DER, after[i].id.Certificate.DER) || !bytes.Equal(before[i].id.Key.Scalar(), after[i].id.Key.Scalar()) {
				t.Errorf("%s differs", before[i].name)
			}
		}
		if _, err := q.EUM.IssueEUICC(must(rsp.ParseEID(TestEID))(t)); err != nil {
			t.Error(err)
		}
		// A key that belongs to another certificate.
		if err := os.WriteFile(filepath.Join(dir, "ci-key.pem"), p.EUM.Key.PEM(), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := Load(dir); err == nil {
			t.Error("foreign key accepted")
		}
		for _, name := range []string{"ci-key.pem", "ci.pem"} {
			if err := os.WriteFile(filepath.Join(dir, name), []byte("x"), 0o600); err != nil {
				t.Fatal(err)
			}
			if _, err := Load(dir); err == nil {
				t.Errorf("broken %s accepted", name)
			}
		}
		if err := os.Remove(filepath.Join(dir, "ci-key.pem")); err != nil {
			t.Fatal(err)
		}
		if _, err := Load(dir); err == nil {
			t.Error("missing file accepted")
		}
	}
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := New(Options{SMDPOID: "2.x"}); err == nil {
		t.Error("malformed OID accepted")
	}
	if _, err := New(Options{EUM: EUMOptions{OID: "2.x"}}); err == nil {
		t.Error("malformed OID of the EUM accepted")
	}
	if err := must(New(Options{}))(t).Save(file); err == nil {
		t.Error("saved into a file")
	}
}

func TestVerifyServer(t *testing.T) {
	now := time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC)
	for _, c := range curves {
		p, other := must(New(Options{Curve: c}))(t), must(New(Options{Curve: c}))(t)
		issue := func(role Role, o ServerOptions) *Certificate {
			return must(p.CI.IssueServer(role, o))(t).Certificate
		}
		twin := must(NewCIWithKey(p.CI.Key, "GSMA Test CI"))(t)
		forged := *p.CI.Certificate // the right key identifier with another key
		forged.PublicKey = other.CI.Certificate.PublicKey
		broken := *p.DPAuth.Certificate
		broken.UnknownCritical = []string{"1.2.3"}
		anonymous := *p.DPAuth.Certificate
		anonymous.RegisteredID = ""
		ca := *p.DPAuth.Certificate
		ca.IsCA = true
		for _, test := range []struct {
			name    string
			cert    *Certificate
			trusted []*Certificate
			role    Role
			now     time.Time
			want    Reason
		}{
			{"DPauth", p.DPAuth.Certificate, []*Certificate{other.CI.Certificate, p.CI.Certificate}, DPAuth, now, ""},
			{"DPpb", p.DPPb.Certificate, []*Certificate{p.CI.Certificate}, DPPb, now, ""},
			{"DSauth", p.DSAuth.Certificate, []*Certificate{p.CI.Certificate}, DSAuth, now, ""},
			{"CI of another name and the same key", p.DPAuth.Certificate, []*Certificate{twin.Certificate}, DPAuth, now, ""},
			{"pb for auth", p.DPPb.Certificate, []*Certificate{p.CI.Certificate}, DPAuth, now, WrongRole},
			{"unknown CI", p.DPAuth.Certificate, []*Certificate{other.CI.Certificate}, DPAuth, now, UnknownCI},
			{"no CI", p.DPAuth.Certificate, nil, DPAuth, now, UnknownCI},
			{"forged CI", p.DPAuth.Certificate, []*Certificate{&forged}, DPAuth, now, BadSignature},
			{"expired", issue(DPAuth, ServerOptions{NotAfter: now.AddDate(0, 0, -1)}), []*Certificate{p.CI.Certificate}, DPAuth, now, NotValidNow},
			{"not yet valid", issue(DPAuth, ServerOptions{NotBefore: now.AddDate(0, 0, 1)}), []*Certificate{p.CI.Certificate}, DPAuth, now, NotValidNow},
			{"expired, without a clock", issue(DPAuth, ServerOptions{NotAfter: now.AddDate(0, 0, -1)}), []*Certificate{p.CI.Certificate}, DPAuth, time.Time{}, ""},
			{"unknown critical extension", &broken, []*Certificate{p.CI.Certificate}, DPAuth, now, UnknownCrit},
			{"no OID", &anonymous, []*Certificate{p.CI.Certificate}, DPAuth, now, NoIdentifier},
			{"issued without OID", issue(DPAuth, ServerOptions{OID: NoOID}), []*Certificate{p.CI.Certificate}, DPAuth, now, NoIdentifier},
			{"a CA", &ca, []*Certificate{p.CI.Certificate}, DPAuth, now, WrongUsage},
		} {
			t.Run(c.String()+"/"+test.name, func(t *testing.T) {
				ci, err := VerifyServer(test.cert, test.trusted, test.role, test.now)
				checkReason(t, err, test.want)
				if test.want == "" && (ci == nil || !bytes.Equal(ci.SKI, p.CI.SKI())) {
					t.Error("wrong CI")
				}
			})
		}
	}
}

func checkReason(t *testing.T, err error, want Reason) {
	t.Helper()
	var e *Error
	switch {
	case want == "" && err != nil:
		t.Errorf("refused: %v", err)
	case want != "" && (!errors.As(err, &e) || e.Reason != want || e.Error() == ""):
		t.Errorf("got %v, want %s", err, want)
	}
}

func TestVerifyEUICC(t *testing.T) {
	now := time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC)
	eid := must(rsp.ParseEID(TestEID))(t)
	foreign := must(rsp.ParseEID("89033023123451234512345678901224"))(t)
	for _, c := range curves {
		p, other := must(New(Options{Curve: c}))(t), must(New(Options{Curve: c}))(t)
		trusted := []*Certificate{p.CI.Certificate}
		euicc := func(id rsp.EID, o EUICCOptions) *Certificate { return must(p.EUM.IssueEUICC(id, o))(t).Certificate }
		past := now.AddDate(0, 0, -1)
		oldEUM := must(p.CI.IssueEUM(EUMOptions{NotAfter: past}))(t)
		free := *p.EUM.Certificate
		free.NameConstraints = nil
		eins := *p.EUM.Certificate
		eins.NameConstraints = &NameConstraints{Prefixes: []string{"8904"}}
		edit := func(c *Certificate, f func(*Certificate)) *Certificate { d := *c; f(&d); return &d }
		for _, test := range []struct {
			name       string
			eum, euicc *Certificate
			want       Reason
		}{
			{"good", p.EUM.Certificate, p.EUICC.Certificate, ""},
			{"no constraint", &free, p.EUICC.Certificate, ""},
			{"permittedEins", &eins, p.EUICC.Certificate, ""},
			{"unknown CI", other.EUM.Certificate, other.EUICC.Certificate, UnknownCI},
			{"other EUM", p.EUM.Certificate, other.EUICC.Certificate, WrongIssuer},
			{"EUM expired", oldEUM.Certificate, must(oldEUM.IssueEUICC(eid))(t).Certificate, NotValidNow},
			{"eUICC expired", p.EUM.Certificate, euicc(eid, EUICCOptions{NotAfter: past}), NotValidNow},
			{"EID outside the range", p.EUM.Certificate, euicc(foreign, EUICCOptions{}), NotPermitted},
			{"other organization", p.EUM.Certificate, euicc(eid, EUICCOptions{Organization: "RSP Test EUM 2"}), NotPermitted},
			{"server certificate as EUM", p.DPAuth.Certificate, p.EUICC.Certificate, WrongRole},
			{"EUM is no CA", edit(p.EUM.Certificate, func(c *Certificate) { c.IsCA = false }), p.EUICC.Certificate, WrongUsage},
			{"eUICC signature", p.EUM.Certificate, edit(p.EUICC.Certificate, func(c *Certificate) { c.signature = p.DPAuth.Certificate.signature }), BadSignature},
			{"eUICC role", p.EUM.Certificate, edit(p.EUICC.Certificate, func(c *Certificate) { c.PolicyOIDs = nil }), WrongRole},
			{"eUICC usage", p.EUM.Certificate, edit(p.EUICC.Certificate, func(c *Certificate) { c.KeyUsage = 0 }), WrongUsage},
			{"EID with letters", p.EUM.Certificate, edit(p.EUICC.Certificate, func(c *Certificate) { c.Subject.SerialNumber = "8904903212345123451234567890123X" }), MissingOrBadID},
		} {
			t.Run(c.String()+"/"+test.name, func(t *testing.T) {
				got, err := VerifyEUICC(test.eum, test.euicc, trusted, now)
				checkReason(t, err, test.want)
				if test.want == "" && got != eid {
					t.Errorf("EID %s", got)
				}
			})
		}
	}
}

func TestSGP26(t *testing.T) {
	s := must(LoadSGP26(vectors.Dir(t, "sgp26")))(t)
	now := time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC)
	for role, id := range map[Role]*Identity{DPAuth: s.DPAuth, DPPb: s.DPPb} {
		if _, err := VerifyServer(id.Certificate, []*Certificate{s.CI2017}, role, now); err != nil {
			t.Errorf("%s under the root of 2017: %v", role, err)
		}
	}
	eid, err := VerifyEUICC(s.EUM, s.EUICC.Certificate, []*Certificate{s.CI}, now)
	if err != nil || eid.String() != TestEID {
		t.Errorf("eUICC: %s, %v", eid, err)
	}
	_, err = VerifyEUICC(s.EUM, s.EUICC.Certificate, []*Certificate{s.CI}, now.AddDate(-1, 0, 0))
	checkReason(t, err, NotValidNow) // valid from 2026-08-08
	if s.DPAuth.Certificate.RegisteredID != "2.999.10" || s.CI.Subject.CommonName != "Test CI" || s.CI2017.Subject.CommonName != "GSMA Test CI" {
		t.Error("names of the SGP.26 certificates")
	}
	if _, err := LoadSGP26(t.TempDir()); err == nil {
		t.Error("empty folder accepted")
	}
}

// What we issue has the same size and shape as the SGP.26 certificates: same
// extensions in the same order, critical in the same places.
func TestSameShapeAsSGP26(t *testing.T) {
	s := must(LoadSGP26(vectors.Dir(t, "sgp26")))(t)
	p := must(New(Options{}))(t)
	for name, pair := range map[string][2]*Certificate{
		"CI": {p.CI.Certificate, s.CI}, "EUM": {p.EUM.Certificate, s.EUM}, "eUICC": {p.EUICC.Certificate, s.EUICC.Certificate},
		"DPauth": {p.DPAuth.Certificate, s.DPAuth.Certificate}, "DPpb": {p.DPPb.Certificate, s.DPPb.Certificate},
	} {
		if got, want := extensions(t, pair[0]), extensions(t, pair[1]); !slices.Equal(got, want) {
			t.Errorf("%s: extensions\n got %v\nwant %v", name, got, want)
		}
	}
}

func extensions(t *testing.T, c *Certificate) []string {
	t.Helper()
	var list []string
	for _, e := range must(c.X509())(t).Extensions {
		name := e.Id.String()
		if e.Critical {
			name += " critical"
		}
		list = append(list, name)
	}
	return list
}

func TestOID(t *testing.T) {
	for dotted, want := range map[string]string{
		"2.999.10": "88370A", "1.2.840.10045.3.1.7": "2A8648CE3D030107", "2.23.146.1.2.1.5": "67811201020105", "0.39": "27",
	} {
		got := must(OIDValue(dotted))(t)
		if !bytes.Equal(got, unhex(t, want)) || decodeOID(got) != dotted {
			t.Errorf("%s: %X, back %q", dotted, got, decodeOID(got))
		}
	}
	for _, dotted := range []string{"", "1", "3.1", "1.40", "1.x", "1..2", "1.-1"} {
		if b, err := OIDValue(dotted); err == nil {
			t.Errorf("%q: accepted as %X", dotted, b)
		}
	}
	for _, value := range []string{"88", "8000", "FFFFFFFFFFFFFFFFFF7F"} {
		if s := decodeOID(unhex(t, value)); s != "" {
			t.Errorf("%s: read as %q", value, s)
		}
	}
	if altOf := encodeOID("nonsense"); !bytes.Equal(altOf, []byte{6, 0}) {
		t.Errorf("malformed OID encoded as %X", altOf)
	}
}

func TestTime(t *testing.T) {
	for _, at := range []time.Time{
		time.Date(1999, 12, 31, 23, 59, 59, 0, time.UTC), time.Date(2049, 12, 31, 23, 59, 59, 0, time.UTC), time.Date(2050, 1, 1, 0, 0, 0, 0, time.UTC),
	} {
		tlv := must(ber.Parse(encodeTime(at)))(t)
		if got := must(decodeTime(tlv))(t); !got.Equal(at) {
			t.Errorf("%s came back as %s", at, got)
		}
	}
}

func TestStrings(t *testing.T) {
	for got, want := range map[string]string{
		Curve(7).String(): "Curve(7)", Role(99).String(): "Role(99)", DSAuth.String(): "DSauth", BrainpoolP256r1.String(): "brainpoolP256r1",
		(&Error{EUICC, BadSignature, ""}).Error(): "certificate of the eUICC: signature",
	} {
		if got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}

func TestPermittedEINs(t *testing.T) {
	value := ber.Encode(tagSequence, ber.EncodeString(tagPrintableString, "8904"), ber.EncodeString(tagPrintableString, "8903"))
	got := must(parsePermittedEINs(must(ber.Parse(value))(t)))(t)
	if !slices.Equal(got.Prefixes, []string{"8904", "8903"}) || got.Organization != "" {
		t.Errorf("%+v", got)
	}
}

// Every truncation and every flipped bit: an error or a certificate, no panic,
// and never one that its issuer is said to have signed.
func TestDamagedCertificates(t *testing.T) {
	p := must(New(Options{}))(t)
	der := p.EUM.Certificate.DER
	for i := range der {
		if _, err := ParseCertificate(der[:i]); err == nil {
			t.Errorf("first %d bytes accepted", i)
		}
		bad := bytes.Clone(der)
		bad[i] ^= 0x10
		if c, err := ParseCertificate(bad); err == nil && i%16 == 0 && c.SignedBy(P256, p.CI.Certificate.PublicKey) {
			t.Errorf("byte %d changed: signature still good", i)
		}
	}
	if _, err := ParseCertificate(make([]byte, maxCertificate+1)); err == nil {
		t.Error("huge certificate accepted")
	}
}

func FuzzParseCertificate(f *testing.F) {
	for _, c := range curves {
		p, err := New(Options{Curve: c})
		if err != nil {
			f.Fatal(err)
		}
		for _, file := range p.files() {
			f.Add(file.id.Certificate.DER)
		}
	}
	f.Add([]byte{0x30, 0x00})
	f.Fuzz(func(t *testing.T, der []byte) {
		c, err := ParseCertificate(der)
		if err != nil {
			return
		}
		if _, _, err := c.Curve.point(c.PublicKey); err != nil || len(c.signature) != SignatureSize {
			t.Errorf("accepted with public key %X, signature %X", c.PublicKey, c.signature)
		}
	})
}

func BenchmarkSign(b *testing.B) {
	for _, c := range curves {
		key, err := GenerateKey(c)
		if err != nil {
			b.Fatal(err)
		}
		b.Run(c.String(), func(b *testing.B) {
			for b.Loop() {
				key.Sign([]byte("message"))
			}
		})
	}
}
