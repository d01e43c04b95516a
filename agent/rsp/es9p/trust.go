package es9p

import (
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"lpad/internal/fault"
	"lpad/internal/smallfile"
)

// TrustConfig says which authorities may vouch for a server.
type TrustConfig struct {
	// Dir holds PEM files (*.pem, *.crt) of further authorities that the maker
	// of the device trusts, one or more certificates each. Empty, or a folder
	// that does not exist: none.
	Dir string
	// AllowTestCI accepts the test CIs as well. Their private keys are public:
	// whoever can answer in place of a server can then be that server. Never
	// in production.
	AllowTestCI bool
}

// Limits of the folder of trust.
const (
	maxTrustFile  = 256 << 10 // bytes of one file
	maxTrustFiles = 64
)

// Trust decides which servers are believed: those whose certificate chain ends
// at a production GSMA CI of a fixed list, at an authority from the
// configured folder, or, only when allowed, at a test CI. The system's own
// roots play no part: no web authority may issue for an SM-DP+.
//
// A Trust is immutable and safe for concurrent use; to reload it, make another.
type Trust struct {
	anchors  anchors
	pool     *x509.CertPool
	accepted []Root
	oem      []Root
	skipped  []string
}

// NewTrust reads the folder and puts the anchors together. A file that is not
// what it should be vouches for nobody, as a whole, and [Trust.Skipped] names
// it: a device that trusts less than its maker believes must say so, and must
// not stay away because of it. A test CI in the folder is skipped in the same
// way unless test CIs are allowed. A folder that cannot be read is an error.
func NewTrust(cfg TrustConfig) (*Trust, error) { return newTrust(cfg, builtIn()) }

func newTrust(cfg TrustConfig, a anchors) (*Trust, error) {
	t := &Trust{anchors: a, pool: a.pool.Clone()}
	for _, r := range a.production {
		r.Origin = originBuiltIn
		t.accepted = append(t.accepted, r)
	}
	if cfg.AllowTestCI {
		for _, r := range a.test {
			r.Origin = originBuiltIn
			t.accepted = append(t.accepted, r)
		}
	}
	if cfg.Dir == "" {
		return t, nil
	}
	files, err := trustFiles(cfg.Dir)
	if err != nil {
		return nil, trustError(err)
	}
	for _, file := range files {
		if err := t.add(file, cfg.AllowTestCI); err != nil {
			t.skipped = append(t.skipped, fmt.Sprintf("%s: %v", file, err))
		}
	}
	return t, nil
}

const originBuiltIn = "built-in"

func trustError(err error) error {
	return fault.New(fault.Fault{Code: "trust-folder-invalid", Text: "the folder of trusted authorities is not valid", Who: fault.Configuration,
		Next: "mend the folder (rsp.trust_dir): it must be readable for lpad and hold at most 64 files of certificates"}, err)
}

// trustFiles lists the files of the folder in name order.
func trustFiles(dir string) ([]string, error) {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var files []string
	for _, e := range entries { // sorted by name
		if ext := strings.ToLower(filepath.Ext(e.Name())); ext == ".pem" || ext == ".crt" {
			files = append(files, filepath.Join(dir, e.Name()))
		}
	}
	if len(files) > maxTrustFiles {
		return nil, fmt.Errorf("%s: %d files, at most %d are read", dir, len(files), maxTrustFiles)
	}
	return files, nil
}

// add takes the certificates of one file in.
func (t *Trust) add(file string, allowTestCI bool) error {
	certs, err := readPEM(file)
	if err != nil {
		return err
	}
	var roots []Root
	for _, c := range certs {
		if !c.IsCA || !c.BasicConstraintsValid {
			return fmt.Errorf("%s is not the certificate of an authority", c.Subject)
		}
		root := Root{Name: nameOf(c), Fingerprint: fingerprint(c), SKI: upperHex(c.SubjectKeyId), Origin: file, Until: c.NotAfter.UTC().Format(time.DateOnly)}
		root.Test = t.isTest(root)
		if root.Test && !allowTestCI {
			return fmt.Errorf("%s is a test CI, whose private key is public: it needs rsp.allow_test_ci", c.Subject)
		}
		roots = append(roots, root)
	}
	for _, c := range certs {
		t.pool.AddCert(c)
	}
	t.oem = append(t.oem, roots...)
	return nil
}

// isTest recognises a test CI by its certificate or by its key: there are
// several certificates of one key.
func (t *Trust) isTest(r Root) bool {
	return slices.ContainsFunc(t.anchors.test, func(known Root) bool {
		return r.Fingerprint == known.Fingerprint || r.SKI != "" && r.SKI == known.SKI
	})
}

func nameOf(c *x509.Certificate) string {
	if c.Subject.CommonName != "" {
		return c.Subject.CommonName
	}
	return c.Subject.String()
}

// readPEM reads the certificates of a file, and accepts nothing else in it but
// text between them.
func readPEM(file string) ([]*x509.Certificate, error) {
	rest, err := smallfile.Read(file, maxTrustFile)
	if err != nil {
		return nil, err
	}
	var certs []*x509.Certificate
	for {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			break
		}
		if block.Type != "CERTIFICATE" {
			return nil, fmt.Errorf("holds a %s, only certificates belong here", block.Type)
		}
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, err
		}
		certs = append(certs, c)
	}
	if strings.Contains(string(rest), "-----BEGIN") {
		return nil, errors.New("holds a broken PEM block")
	}
	if len(certs) == 0 {
		return nil, errors.New("holds no PEM certificate")
	}
	return certs, nil
}

// Describe lists every anchor that is accepted, for the status. A root with
// Test set must be shown loudly: see [Trust.Warning].
func (t *Trust) Describe() []Root { return slices.Concat(t.accepted, t.oem) }

// Skipped names each file of the folder that was not taken in, with the reason.
func (t *Trust) Skipped() []string { return t.skipped }

// Warning is a sentence for the status when test CIs are accepted, else empty.
func (t *Trust) Warning() string {
	n := 0
	for _, r := range t.Describe() {
		if r.Test {
			n++
		}
	}
	if n == 0 {
		return ""
	}
	return fmt.Sprintf("INSECURE: %d test CIs are trusted (rsp.allow_test_ci); their private keys are public, anybody can pretend to be an eSIM server", n)
}

// root finds the accepted anchor that a chain ends at. builtIn tells the lists
// of this program from the folder.
func (t *Trust) root(chain []*x509.Certificate) (r Root, builtIn, ok bool) {
	of := fingerprint(chain[len(chain)-1])
	if r, ok := find(t.accepted, of); ok {
		return r, true, true
	}
	r, ok = find(t.oem, of)
	return r, false, ok
}
