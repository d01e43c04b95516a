// Package world is what a test of remote provisioning lives in, in one process:
// a software eUICC, an SM-DP+ and an SM-DS under one CI, served behind TLS on
// the loopback interface, and the folder of authorities that makes a client
// believe them. The client, and whatever speaks to the card, are the test's.
//
//	w := world.New(t, world.Options{})
//	trust, err := es9p.NewTrust(es9p.TrustConfig{Dir: w.Trust})
//	client := &es9p.Client{Trust: trust, Addresses: w.Addresses}
//	w.Book(t, "ORDER-1", world.ICCID(t, "89000123456789012341"), 3000, nil)
//
// It ends with the test. What lives in it with real programs, modems and
// networks is package lab of cmd/lpalab.
package world

import (
	"context"
	"net"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"lpad/agent/rsp"
	"lpad/agent/rsp/rsptest/euicc"
	"lpad/agent/rsp/rsptest/pki"
	"lpad/agent/rsp/rsptest/smdp"
	"lpad/agent/rsp/rsptest/upp"
)

// The names of the servers.
const (
	SMDPHost = "smdp.example.com"
	SMDSHost = "smds.example.com"
)

// pkis are made once in a process: keys are slow.
var pkis = map[pki.Curve]func() (*pki.PKI, error){
	pki.P256:            sync.OnceValues(func() (*pki.PKI, error) { return newPKI(pki.P256) }),
	pki.BrainpoolP256r1: sync.OnceValues(func() (*pki.PKI, error) { return newPKI(pki.BrainpoolP256r1) }),
}

func newPKI(curve pki.Curve) (*pki.PKI, error) {
	return pki.New(pki.Options{Curve: curve, SMDPHost: SMDPHost, SMDSHost: SMDSHost})
}

// Options say how a world differs from the ordinary one.
type Options struct {
	Curve pki.Curve // of card and servers; TLS is always P-256, the standard library knows no brainpool
	Card  func(*euicc.Config)
	SMDP  func(*smdp.Config)
}

// World is a card and the servers that know it.
type World struct {
	Card      *euicc.Card
	SMDP      *smdp.Server
	SMDS      *smdp.Server
	Trust     string            // folder with the CI of the servers' TLS certificates
	Addresses map[string]string // where the servers listen, by name
}

// New makes a world that ends with the test.
func New(t testing.TB, o Options) *World {
	t.Helper()
	p, err := pkis[o.Curve]()
	if err != nil {
		t.Fatal(err)
	}
	tls, err := pkis[pki.P256]()
	if err != nil {
		t.Fatal(err)
	}
	w := &World{Trust: t.TempDir(), Addresses: map[string]string{}}
	cc := euicc.ConfigUnder(p)
	if o.Card != nil {
		o.Card(&cc)
	}
	if w.Card, err = euicc.New(cc); err != nil {
		t.Fatal(err)
	}
	dp := smdp.ConfigUnder(p, SMDPHost)
	if o.SMDP != nil {
		o.SMDP(&dp)
	}
	ds := smdp.Config{SMDS: true, Address: SMDSHost, Credentials: []smdp.Credential{{Auth: p.DSAuth}}, CIs: dp.CIs}
	w.SMDP = w.serve(t, dp, tls.DPTLS)
	w.SMDS = w.serve(t, ds, tls.DSTLS)
	if err := os.WriteFile(filepath.Join(w.Trust, "ci.pem"), tls.CI.Certificate.PEM(), 0o600); err != nil {
		t.Fatal(err)
	}
	return w
}

// serve runs a server until the test ends.
func (w *World) serve(t testing.TB, c smdp.Config, tls *pki.Identity) *smdp.Server {
	t.Helper()
	s, err := smdp.New(c)
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Serve(ctx, l, tls) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	w.Addresses[c.Address] = l.Addr().String()
	return s
}

// Book places an order at the SM-DP+ for a profile of size bytes that wants a
// notification of every event; change may make another order of it.
func (w *World) Book(t testing.TB, matchingID string, iccid rsp.ICCID, size int, change func(*smdp.Order)) {
	t.Helper()
	profile, err := upp.Generate(upp.Options{ICCID: iccid, IMSI: "001010123456789", SPN: "Test", Size: size})
	if err != nil {
		t.Fatal(err)
	}
	o := smdp.Order{MatchingID: matchingID, UPP: profile, Metadata: smdp.Metadata{ICCID: iccid, ServiceProvider: "Test Operator", Name: "Test Plan",
		Notifications: []rsp.NotificationConfiguration{{Events: rsp.AllEvents, Address: SMDPHost}}}}
	if change != nil {
		change(&o)
	}
	if err := w.SMDP.AddOrder(o); err != nil {
		t.Fatal(err)
	}
}

// ICCID reads one that must be right.
func ICCID(t testing.TB, s string) rsp.ICCID {
	t.Helper()
	i, err := rsp.ParseICCID(s)
	if err != nil {
		t.Fatal(err)
	}
	return i
}
