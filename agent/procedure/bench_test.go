package procedure_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"lpad/agent/procedure"
	"lpad/agent/rsp"
	"lpad/agent/rsp/es10"
	"lpad/agent/rsp/es9p"
	"lpad/agent/rsp/rsptest/euicc"
	"lpad/agent/rsp/rsptest/pki"
	"lpad/agent/rsp/rsptest/smdp"
	"lpad/agent/rsp/rsptest/upp"
	"lpad/apdu"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// The servers of these tests.
const (
	smdpHost = "smdp.example.com"
	smdsHost = "smds.example.com"
)

// pkis are made once: keys are slow.
var pkis = map[pki.Curve]func() *pki.PKI{
	pki.P256:            sync.OnceValue(func() *pki.PKI { return newPKI(pki.P256) }),
	pki.BrainpoolP256r1: sync.OnceValue(func() *pki.PKI { return newPKI(pki.BrainpoolP256r1) }),
}

func newPKI(curve pki.Curve) *pki.PKI {
	p, err := pki.New(pki.Options{Curve: curve, SMDPHost: smdpHost, SMDSHost: smdsHost})
	if err != nil {
		panic(err)
	}
	return p
}

// bench is a software eUICC, an SM-DP+ and an SM-DS, and the real clients
// between them: TLS on the loopback, APDUs in memory.
type bench struct {
	t      testing.TB
	ctx    context.Context
	card   *euicc.Card
	smdp   *smdp.Server
	smds   *smdp.Server
	client *es9p.Client
	block  int
	euicc  *es10.Client // on the channel that is open
	ch     *apdu.Channel
	opened []string // servers that were opened
}

// setup says how a bench differs from the ordinary one.
type setup struct {
	curve pki.Curve
	card  func(*euicc.Config)
	smdp  func(*smdp.Config)
	block int
}

func newBench(t testing.TB, s setup) *bench {
	t.Helper()
	p := pkis[s.curve]()
	config := euicc.ConfigUnder(p)
	if s.card != nil {
		s.card(&config)
	}
	card, err := euicc.New(config)
	if err != nil {
		t.Fatal(err)
	}
	b := &bench{t: t, ctx: t.Context(), card: card, block: 255}
	if s.block != 0 {
		b.block = s.block
	}
	dp := smdp.Config{Address: smdpHost, Credentials: []smdp.Credential{{Auth: p.DPAuth, Pb: p.DPPb}}, CIs: []*pki.Certificate{p.CI.Certificate}}
	if s.smdp != nil {
		s.smdp(&dp)
	}
	tlsCI := pkis[pki.P256]() // the standard library's TLS knows no brainpool
	ds := smdp.Config{SMDS: true, Address: smdsHost, Credentials: []smdp.Credential{{Auth: p.DSAuth}}, CIs: dp.CIs}
	var dpAddress, dsAddress string
	b.smdp, dpAddress = serve(t, dp, tlsCI.DPTLS)
	b.smds, dsAddress = serve(t, ds, tlsCI.DSTLS)
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "ci.pem"), tlsCI.CI.Certificate.PEM(), 0o600); err != nil {
		t.Fatal(err)
	}
	trust, err := es9p.NewTrust(es9p.TrustConfig{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	b.client = &es9p.Client{Trust: trust, Addresses: map[string]string{smdpHost: dpAddress, smdsHost: dsAddress},
		Timeouts: es9p.Timeouts{Dial: 5 * time.Second, Other: 5 * time.Second, BoundProfilePackage: 5 * time.Second}}
	b.reopen()
	t.Cleanup(func() {
		if err := b.ch.Close(context.Background()); err != nil && card.HasPower() {
			t.Errorf("close channel: %v", err)
		}
	})
	return b
}

// serve runs a server until the test ends.
func serve(t testing.TB, c smdp.Config, tls *pki.Identity) (*smdp.Server, string) {
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
	return s, l.Addr().String()
}

// reopen opens a new channel, as a daemon does after a broken one.
func (b *bench) reopen() {
	b.t.Helper()
	ch, err := apdu.OpenChannel(b.ctx, b.card, rsp.ISDR)
	if err != nil {
		b.t.Fatal(err)
	}
	b.ch, b.euicc = ch, es10.New(ch, b.block)
}

// open is the Opener of the bench.
func (b *bench) open(address string) (procedure.Server, error) {
	b.opened = append(b.opened, address)
	return b.client.Open(address)
}

// server opens a session with the SM-DP+ that ends with the test.
func (b *bench) server() procedure.Server {
	b.t.Helper()
	s, err := b.open(smdpHost)
	if err != nil {
		b.t.Fatal(err)
	}
	b.t.Cleanup(func() {
		if err := s.Close(); err != nil {
			b.t.Error(err)
		}
	})
	return s
}

func iccid(t testing.TB, s string) rsp.ICCID {
	t.Helper()
	c, err := rsp.ParseICCID(s)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

const newICCID = "89000123456789012341"

// order books a profile of 11 768 bytes, as large as the generic test profile
// of TS.48, under the matching id "ORDER-1".
func (b *bench) order(change func(*smdp.Order)) {
	b.t.Helper()
	id := iccid(b.t, newICCID)
	p, err := upp.Generate(upp.Options{ICCID: id, IMSI: "001010123456789", SPN: "Test", Size: 11768})
	if err != nil {
		b.t.Fatal(err)
	}
	o := smdp.Order{MatchingID: "ORDER-1", UPP: p, Metadata: smdp.Metadata{ICCID: id, ServiceProvider: "Test Operator", Name: "Test Plan",
		Notifications: []rsp.NotificationConfiguration{{Events: rsp.AllEvents, Address: smdpHost}}}}
	if change != nil {
		change(&o)
	}
	if err := b.smdp.AddOrder(o); err != nil {
		b.t.Fatal(err)
	}
}

func request() procedure.Request {
	return procedure.Request{Address: smdpHost, MatchingID: "ORDER-1", Device: rsp.DeviceInfo{IMEI: "490154203237518",
		Capabilities: rsp.DeviceCapabilities{GSM: rsp.Version{5}, UTRAN: rsp.Version{10}, EUTRAN: rsp.Version{15}, NR5GC: rsp.Version{15}}}}
}

// idle asserts that nothing is left open on the card.
func (b *bench) idle() {
	b.t.Helper()
	if s := b.card.SessionState(); s != "idle" && s != "challenged" {
		b.t.Errorf("the card's session is left %s", s)
	}
}

// calls lists what a server was asked.
func calls(s *smdp.Server) string {
	var list []string
	for _, c := range s.Calls() {
		list = append(list, string(c.Function)+" "+c.Outcome)
	}
	return fmt.Sprint(list)
}

// find fails unless err has a T in its chain.
func find[T error](t testing.TB, err error) T {
	t.Helper()
	var e T
	if !errors.As(err, &e) {
		t.Fatalf("error %T %v, want a %T", err, err, e)
	}
	return e
}
