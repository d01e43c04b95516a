package procedure_test

import (
	"context"
	"errors"
	"fmt"
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
	"lpad/agent/rsp/rsptest/world"
	"lpad/apdu"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	smdpHost = world.SMDPHost
	smdsHost = world.SMDSHost
)

// bench is a software eUICC, an SM-DP+ and an SM-DS, and the real clients
// between them: TLS on the loopback, APDUs in memory.
type bench struct {
	*world.World
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
	w := world.New(t, world.Options{Curve: s.curve, Card: s.card, SMDP: s.smdp})
	b := &bench{World: w, t: t, ctx: t.Context(), card: w.Card, smdp: w.SMDP, smds: w.SMDS, block: 255}
	if s.block != 0 {
		b.block = s.block
	}
	trust, err := es9p.NewTrust(es9p.TrustConfig{Dir: w.Trust})
	if err != nil {
		t.Fatal(err)
	}
	b.client = &es9p.Client{Trust: trust, Addresses: w.Addresses,
		Timeouts: es9p.Timeouts{Dial: 5 * time.Second, Other: 5 * time.Second, BoundProfilePackage: 5 * time.Second}}
	b.reopen()
	t.Cleanup(func() {
		if err := b.ch.Close(context.Background()); err != nil && w.Card.HasPower() {
			t.Errorf("close channel: %v", err)
		}
	})
	return b
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

func iccid(t testing.TB, s string) rsp.ICCID { return world.ICCID(t, s) }

const newICCID = "89000123456789012341"

// order books a profile of 11 768 bytes, as large as the generic test profile
// of TS.48, under the matching id "ORDER-1".
func (b *bench) order(change func(*smdp.Order)) {
	b.t.Helper()
	b.Book(b.t, "ORDER-1", iccid(b.t, newICCID), 11768, change)
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
