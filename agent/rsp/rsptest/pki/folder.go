package pki

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"lpad/agent/rsp"
)

// TestEID is the EID of the SGP.26 test eUICC.
const TestEID = "89049032123451234512345678901235"

// Options say what a PKI holds. Zero values mean the names of SGP.26.
type Options struct {
	Curve    Curve
	Name     string // common name of the CI; "Test CI"
	EID      string // of the eUICC; TestEID
	SMDPHost string // "smdp.example.com"
	SMDPOID  string // "2.999.10"
	SMDSHost string // "smds.example.com"
	SMDSOID  string // "2.999.15"
	EUM      EUMOptions
}

// PKI is one CI with one of every certificate under it. More eUICCs and
// servers are issued from CI and EUM.
type PKI struct {
	CI     *CI
	EUM    *EUM
	EUICC  *Identity
	DPAuth *Identity
	DPPb   *Identity
	DPTLS  *Identity
	DSAuth *Identity
	DSTLS  *Identity
}

// New makes a whole PKI.
func New(o Options) (*PKI, error) {
	eid, err := rsp.ParseEID(or(o.EID, TestEID))
	if err != nil {
		return nil, fmt.Errorf("make PKI: %w", err)
	}
	dp := ServerOptions{OID: or(o.SMDPOID, "2.999.10"), Host: or(o.SMDPHost, "smdp.example.com")}
	ds := ServerOptions{OID: or(o.SMDSOID, "2.999.15"), Host: or(o.SMDSHost, "smds.example.com")}
	var p PKI
	if p.CI, err = NewCI(o.Curve, or(o.Name, "Test CI")); err != nil {
		return nil, err
	}
	if p.EUM, err = p.CI.IssueEUM(o.EUM); err != nil {
		return nil, err
	}
	if p.EUICC, err = p.EUM.IssueEUICC(eid); err != nil {
		return nil, err
	}
	for _, want := range []struct {
		at   **Identity
		role Role
		o    ServerOptions
	}{{&p.DPAuth, DPAuth, dp}, {&p.DPPb, DPPb, dp}, {&p.DPTLS, DPTLS, dp}, {&p.DSAuth, DSAuth, ds}, {&p.DSTLS, DSTLS, ds}} {
		if *want.at, err = p.CI.IssueServer(want.role, want.o); err != nil {
			return nil, err
		}
	}
	return &p, nil
}

// files is the layout of a folder: NAME.pem and NAME-key.pem.
func (p *PKI) files() []struct {
	name string
	id   *Identity
} {
	return []struct {
		name string
		id   *Identity
	}{
		{"ci", &p.CI.Identity}, {"eum", &p.EUM.Identity}, {"euicc", p.EUICC},
		{"dpauth", p.DPAuth}, {"dppb", p.DPPb}, {"dptls", p.DPTLS}, {"dsauth", p.DSAuth}, {"dstls", p.DSTLS},
	}
}

// Save writes the PKI to a folder, which is made if need be: ci.pem, ci-key.pem
// and so on. ci.pem is what a client must trust.
func (p *PKI) Save(dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("save PKI: %w", err)
	}
	for _, f := range p.files() {
		err := errors.Join(
			os.WriteFile(filepath.Join(dir, f.name+".pem"), f.id.Certificate.PEM(), 0o644),
			os.WriteFile(filepath.Join(dir, f.name+"-key.pem"), f.id.Key.PEM(), 0o600))
		if err != nil {
			return fmt.Errorf("save PKI: %w", err)
		}
	}
	return nil
}

// Load reads what Save wrote.
func Load(dir string) (*PKI, error) {
	p := &PKI{CI: new(CI), EUM: new(EUM), EUICC: new(Identity), DPAuth: new(Identity),
		DPPb: new(Identity), DPTLS: new(Identity), DSAuth: new(Identity), DSTLS: new(Identity)}
	for _, f := range p.files() {
		id, err := loadIdentity(filepath.Join(dir, f.name+".pem"), filepath.Join(dir, f.name+"-key.pem"))
		if err != nil {
			return nil, fmt.Errorf("load PKI: %w", err)
		}
		*f.id = *id
	}
	return p, nil
}

// loadIdentity reads a certificate (DER or PEM) and its key (PEM) and checks
// that they belong together.
func loadIdentity(certificate, key string) (*Identity, error) {
	cert, err := loadCertificate(certificate)
	if err != nil {
		return nil, err
	}
	file, err := os.ReadFile(key)
	if err != nil {
		return nil, err
	}
	k, err := ParseKey(file)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", filepath.Base(key), err)
	}
	if k.curve != cert.Curve || string(k.public) != string(cert.PublicKey) {
		return nil, fmt.Errorf("%s: not the key of %s", filepath.Base(key), filepath.Base(certificate))
	}
	return &Identity{cert, k}, nil
}

func loadCertificate(path string) (*Certificate, error) {
	file, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	parse := ParseCertificate
	if filepath.Ext(path) == ".pem" {
		parse = ParseCertificatePEM
	}
	cert, err := parse(file)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", filepath.Base(path), err)
	}
	return cert, nil
}

// SGP26 is the published test PKI of GSMA SGP.26 (NIST curve). Its CI key is
// not part of it: nothing can be issued under it.
type SGP26 struct {
	CI     *Certificate // "Test CI", 2020: issuer of DPauth and DPpb
	CI2017 *Certificate // "GSMA Test CI", the same key: issuer of the EUM
	EUM    *Certificate
	EUICC  *Identity
	DPAuth *Identity
	DPPb   *Identity
}

// LoadSGP26 reads the folder sgp26 of the project's test vectors.
func LoadSGP26(dir string) (*SGP26, error) {
	var s SGP26
	for name, at := range map[string]**Certificate{"ci.der": &s.CI, "ci-2017.der": &s.CI2017, "eum.der": &s.EUM} {
		cert, err := loadCertificate(filepath.Join(dir, name))
		if err != nil {
			return nil, fmt.Errorf("load SGP.26: %w", err)
		}
		*at = cert
	}
	for name, at := range map[string]**Identity{"euicc": &s.EUICC, "dpauth": &s.DPAuth, "dppb": &s.DPPb} {
		id, err := loadIdentity(filepath.Join(dir, name+".der"), filepath.Join(dir, name+"-key.pem"))
		if err != nil {
			return nil, fmt.Errorf("load SGP.26: %w", err)
		}
		*at = id
	}
	return &s, nil
}
