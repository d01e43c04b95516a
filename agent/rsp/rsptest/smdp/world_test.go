package smdp

import (
	"testing"
	"time"

	"go.uber.org/goleak"

	"lpad/agent/rsp"
	"lpad/agent/rsp/rsptest/pki"
	"lpad/agent/rsp/rsptest/upp"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var (
	testICCID = must(rsp.ParseICCID("89000123456789012341"))
	now       = time.Date(2026, 11, 1, 12, 0, 0, 0, time.UTC)
)

// world is a PKI, a server with one order and a card.
type world struct {
	*testing.T
	pki    *pki.PKI
	server *Server
	card   *card
	order  Order
	clock  time.Time
}

func profile(t testing.TB, size int) []byte {
	t.Helper()
	return must(upp.Generate(upp.Options{ICCID: testICCID(t), IMSI: "001010123456789", Size: size}))(t)
}

func newWorld(t *testing.T, edit func(*world, *Config, *Order)) *world {
	t.Helper()
	return newWorldOn(t, pki.P256, edit)
}

func newWorldOn(t *testing.T, curve pki.Curve, edit func(*world, *Config, *Order)) *world {
	t.Helper()
	w := &world{T: t, pki: must(pki.New(pki.Options{Curve: curve}))(t), clock: now}
	w.card = newCard(t, w.pki)
	config := Config{Address: "smdp.example.com", CIs: []*pki.Certificate{w.pki.CI.Certificate},
		Credentials: []Credential{{Auth: w.pki.DPAuth, Pb: w.pki.DPPb}}, Now: func() time.Time { return w.clock }}
	w.order = Order{MatchingID: "AB-1", UPP: profile(t, 0), Metadata: Metadata{ICCID: testICCID(t), ServiceProvider: "Test", Name: "Plan"}}
	if edit != nil {
		edit(w, &config, &w.order)
	}
	w.server = must(New(config))(t)
	if !config.SMDS {
		if err := w.server.AddOrder(w.order); err != nil {
			t.Fatal(err)
		}
	}
	return w
}

func (w *world) want(what string, a jsonAnswer, code string) {
	w.Helper()
	switch {
	case code == "" && (a.Code != "" || a.Status != "Executed-Success"):
		w.Errorf("%s: %s", what, a.Raw)
	case code != "" && (a.Code != code || a.Status != "Failed"):
		w.Errorf("%s: got %q (%s), want %s", what, a.Code, a.Raw, code)
	}
}

func (w *world) state(want OrderState) {
	w.Helper()
	if got, ok := w.server.Order(w.order.MatchingID); !ok || got.State != want {
		w.Errorf("order is %q, want %s", got.State, want)
	}
}

type constReader struct{}

func (constReader) Read(b []byte) (int, error) {
	for i := range b {
		b[i] = 0x5A
	}
	return len(b), nil
}
