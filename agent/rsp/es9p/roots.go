package es9p

import (
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"strings"

	"github.com/damonto/euicc-go/http/rootci"
)

// Root is one anchor of trust, or one that is known and refused.
type Root struct {
	Name        string
	Fingerprint string // SHA-256 of the certificate, upper-case hexadecimal
	SKI         string // subject key identifier, upper-case hexadecimal: how an eUICC names a CI
	Origin      string // "built-in", or the file it came from
	Until       string // last day of the certificate, as 2006-01-02; empty: not known
	Test        bool   // a test CI, whose private key is public: anybody can be a server under it
}

// productionRoots are the live GSMA CIs that lpad accepts, out of the bundle
// of package rootci, whose bytes they are compared with.
var productionRoots = []Root{
	{Name: "OISTE GSMA CI G1",
		Fingerprint: "9C9FA2E94602C260137122D9704D79993A6EF6D067CE0999EC2F4C109DD7A1A2", Until: "2059-01-07",
		SKI: "4C27967AD20C14B391E9601E41E604AD57C0222F"},
	{Name: "CMCA eSIM Root CA",
		Fingerprint: "5F6A51E557A30F16DA4B4073624173766987D712B986299565B0645E8A24F0E9", Until: "2052-09-05",
		SKI: "CDF6D1C0A7B07F98A861B6E378B82F648D99663E"},
	{Name: "GSM Association RSP2 Root CI1",
		Fingerprint: "5E3E91FD454327C3AF5D32A7A73BBC59FE43AA7D85FD32D5DB44423F80A56BB3", Until: "2052-02-21",
		SKI: "81370F5125D0B1D408D4C3B232E6D25E795BEBFB"},
	{Name: "Entrust eSIM Certification Authority",
		Fingerprint: "94457E185C7059DDD484FBA87F86D10C2EE89E95571982C4DF3DE67E8F52007C", Until: "2051-10-16",
		SKI: "16704B7F351E3607F18C4B70005C3A003DFD414A"},
	{Name: "MC4 OT ROOT CI v1",
		Fingerprint: "36E6BC23AE1AA685BD7BC50715B592768781C951DA216C3FC83D9C58F2ABF4B7", Until: "2046-11-08",
		SKI: "CD6E60B72D7A063CBC84625B91E80FE30406E13E"},
	{Name: "China Unicom eSIM Root CA",
		Fingerprint: "FE84F0A32D8C2B109878BEECD963482FCDB224558C25729D29F6C3226D40FD40", Until: "2037-03-06",
		SKI: "16B5D16048E3EA02BD4B606E5F77A4BF20808D83"},
}

// testRoots are the test CIs of the same bundle. Go cannot verify with those
// on a brainpool curve; they are listed so that nobody brings them in as a
// file.
var testRoots = []Root{
	{Name: "SGP.26 v3 Test CI (NIST P-256)", Test: true,
		Fingerprint: "DB01E5C88878EBD792832EDD45E649EC0A8AF7A5CCFBA8E41F12A023EC40F198", Until: "2058-05-30",
		SKI: "34EECF13156518D48D30BDF06853404D115F955D"},
	{Name: "SGP.26 v3 Test CI (brainpoolP256r1)", Test: true,
		Fingerprint: "235280C8FC1C8502CF9F52C6240E4473197FAD4AF2C61B3C941D528CBF3D7AA9",
		SKI:         "2209F61CD9EC5C9C854E787341FF83ECF9776A5B"},
	{Name: "SGP.26 Test CI (NIST P-256, 2020)", Test: true,
		Fingerprint: "597251C8A337D8ED1103AA1EB002227D5F9558E602852A03BDE9A9AE632CAFB4", Until: "2055-04-01",
		SKI: "F54172BDF98A95D65CBEB88A38A1C11D800A85C3"},
	{Name: "SGP.26 Test CI (NIST P-256, 2017)", Test: true,
		Fingerprint: "66352D0D45128608023066D8EACB254EE4024D9FC9CE002BA285B9DE20CC58B2", Until: "2052-02-01",
		SKI: "F54172BDF98A95D65CBEB88A38A1C11D800A85C3"},
	{Name: "SGP.26 Test CI (brainpoolP256r1, 2020)", Test: true,
		Fingerprint: "400898356E9248D3A0A9FF0A70C0AFE4A7D9135ADABFF3BE4B7BD4D484DBDEE9",
		SKI:         "C0BC70BA36929D43B467FF57570530E57AB8FCD8"},
	{Name: "SGP.26 Test CI (brainpoolP256r1, 2017)", Test: true,
		Fingerprint: "6D6A8F2FCD92DFBA2AF0091B552DBD25105AAE2DC84240A1CEF19B63FAAD2C5A",
		SKI:         "C0BC70BA36929D43B467FF57570530E57AB8FCD8"},
	{Name: "Symantec RSP Test Root CA", Test: true,
		Fingerprint: "7DDAC82323BA95973B2DA726162206E93DDDF0FBF69CC31647F78592D7B86D7D", Until: "2049-12-31",
		SKI: "665A1433D67C1A2C5DB8B52C967F10A057BA5CB2"},
	{Name: "China Unicom eSIM Root CA NISTP BZTEST", Test: true,
		Fingerprint: "E24002524E5549759E1767F44707BD2D788B0283CF5211E4D04B5FB913E3D45E", Until: "2038-04-03",
		SKI: "7C0E5470143EA8998ED9DF300574C92E5A9ACB1F"},
}

// anchors are the certificates that this program brings along, and which of
// them are what. The pool holds more than the two lists: private CIs of
// vendors, which are known and refused.
type anchors struct {
	pool       *x509.CertPool
	production []Root
	test       []Root
}

func builtIn() anchors { return anchors{rootci.TrustedRootCAs(), productionRoots, testRoots} }

func find(roots []Root, fingerprint string) (Root, bool) {
	for _, r := range roots {
		if r.Fingerprint == fingerprint {
			return r, true
		}
	}
	return Root{}, false
}

func fingerprint(c *x509.Certificate) string {
	sum := sha256.Sum256(c.Raw)
	return upperHex(sum[:])
}

func upperHex(b []byte) string { return strings.ToUpper(hex.EncodeToString(b)) }
