package agent

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"lpad/agent/api"
	"lpad/agent/client"
	"lpad/agent/orders/orderstest"
	"lpad/agent/rsp"
	"lpad/agent/rsp/rsptest/euicc"
	"lpad/agent/rsp/rsptest/smdp"
	"lpad/agent/rsp/rsptest/world"
	"lpad/agent/runner"
	"lpad/agent/switchover"
	"lpad/apdu"
	"lpad/config"
	"lpad/internal/fault"
	"lpad/modem"
)

// soft is a software eUICC as a card of the daemon.
type soft struct{ card *euicc.Card }

func (s soft) OpenChannel(ctx context.Context, aid []byte) (*apdu.Channel, error) {
	return apdu.OpenChannel(ctx, s.card, aid)
}
func (s soft) Reset(context.Context) error { s.card.Reset(); return nil }
func (s soft) BlockSize() int              { return 255 }
func (s soft) Close() error                { return nil }

const (
	ordersOld  = "89000123456789012341"
	ordersNew  = "89000123456789012358"
	ordersIMEI = "356938035643809"
)

// signedWorld is a daemon over a software eUICC, with the keys of an operator.
type signedWorld struct {
	*world.World
	t      *testing.T
	c      *client.Client
	key    *ecdsa.PrivateKey // of kid "fleet"
	dpauth *ecdsa.PrivateKey
	serial int64
	asked  *int // how often the modem was asked who it is
	agent  *Agent
}

func newSignedWorld(t *testing.T, change func(*config.Config)) *signedWorld {
	t.Helper()
	w := &signedWorld{t: t, asked: new(int)}
	w.World = world.New(t, world.Options{
		Card: func(c *euicc.Config) {
			c.Profiles = []euicc.Profile{{ICCID: world.ICCID(t, ordersOld), IMSI: "001010123456789", Name: "Old", Enabled: true,
				Notifications: []rsp.NotificationConfiguration{{Events: rsp.AllEvents, Address: world.SMDPHost}}}}
		},
		SMDP: func(c *smdp.Config) {
			s, err := c.Credentials[0].Auth.Key.Signer()
			if err != nil {
				t.Fatal(err)
			}
			w.dpauth = s.(*ecdsa.PrivateKey)
		},
	})
	w.Book(t, "M-1", world.ICCID(t, ordersNew), 3000, nil)
	var err error
	if w.key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	cfg := config.Default()
	cfg.StateDir, cfg.Socket = filepath.Join(dir, "lib"), filepath.Join(dir, "s")
	cfg.RSP.TrustDir, cfg.RSP.Addresses = w.Trust, w.Addresses
	cfg.Hooks.Dir, cfg.Params.OEMDir, cfg.Params.ProviderDB = "", dir, filepath.Join(dir, "none.xml")
	cfg.Orders.KeysDir = filepath.Join(dir, "operators.d")
	if change != nil {
		change(&cfg)
	}
	public, err := orderstest.PublicPEM(w.key)
	if err == nil {
		err = os.Mkdir(cfg.Orders.KeysDir, 0o700)
	}
	if err == nil {
		err = os.WriteFile(filepath.Join(cfg.Orders.KeysDir, "fleet.pem"), public, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	card := soft{w.Card}
	direct := switchover.Direct{Card: card}
	identity := func(context.Context) (modem.Identity, error) {
		*w.asked++
		return modem.Identity{Model: "EG25", IMEI: ordersIMEI}, nil
	}
	if w.agent, err = New(cfg, Host{}, []Parts{{Card: card, CardPath: CardPath{Backend: "pcsc"}, Settings: direct, Modem: direct, Network: direct,
		NetworkBackend: "none", Identity: identity}}); err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- w.agent.Run(ctx) }()
	w.c = client.New(cfg.Socket)
	t.Cleanup(func() {
		w.c.Close()
		stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return w
}

// payload is an order that is all right, with the next serial.
func (w *signedWorld) payload(change func(*orderstest.Payload)) orderstest.Payload {
	w.serial++
	p := orderstest.Payload{Issuer: "fleet", Serial: w.serial, IssuedAt: time.Now().Unix(), Expires: time.Now().Add(time.Hour).Unix(), EID: w.Card.EID().String(),
		Action: "install", ActivationCode: "LPA:1$" + world.SMDPHost + "$M-1", ICCID: ordersNew}
	if change != nil {
		change(&p)
	}
	return p
}

func (w *signedWorld) sign(key *ecdsa.PrivateKey, kid string, p orderstest.Payload) []byte {
	w.t.Helper()
	jws, err := orderstest.Sign(key, kid, p)
	if err != nil {
		w.t.Fatal(err)
	}
	return jws
}

// done hands an order in and waits for its good end.
func (w *signedWorld) done(jws []byte) api.Job {
	w.t.Helper()
	j, err := w.c.Order(w.t.Context(), jws)
	if err != nil {
		w.t.Fatal(err)
	}
	if j, err = w.c.Follow(w.t.Context(), j.ID, func(api.Job) {}); err != nil || j.State != "done" {
		w.t.Fatalf("%v: %+v, %+v", err, j, j.Problem)
	}
	return j
}

func about(action, iccid string) func(*orderstest.Payload) {
	return func(p *orderstest.Payload) { p.Action, p.ActivationCode, p.ICCID = action, "", iccid }
}

// The founding order, in steps: installed, enabled on command, and the old
// profile deleted; the device is told by all that it has.
func TestSignedOrders(t *testing.T) {
	w := newSignedWorld(t, func(c *config.Config) { c.Orders.Require = "all" })
	j := w.done(w.sign(w.key, "fleet", w.payload(func(p *orderstest.Payload) {
		p.IMEI, p.Model, p.Enable, p.Parameters = ordersIMEI, "eg25", "on-command", json.RawMessage(`{"version":1,"apns":[{"name":"iot.example"}]}`)
	})))
	if j.SignedBy != "fleet" || j.Serial != 1 || j.ICCID != ordersNew || *w.asked != 1 {
		t.Errorf("%+v; the modem was asked %d times", j, *w.asked)
	}
	if id, _ := w.Card.EnabledICCID(); id.String() != ordersOld {
		t.Errorf("enabled %s before the command", id)
	}
	w.done(w.sign(w.key, "fleet", w.payload(about("enable", ordersNew))))
	if id, _ := w.Card.EnabledICCID(); id.String() != ordersNew {
		t.Errorf("enabled %s", id)
	}
	w.done(w.sign(w.key, "fleet", w.payload(about("delete", ordersOld))))
	if list := w.Card.Profiles(); len(list) != 1 {
		t.Errorf("%d profiles", len(list))
	}
}

// Whatever is wrong with an order: it is told by code, no job begins, no server
// is asked, and the card is as before.
func TestSignedOrdersRefused(t *testing.T) {
	w := newSignedWorld(t, func(c *config.Config) { c.Orders.Require = "all" })
	stranger, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	fleet := func(change func(*orderstest.Payload)) []byte { return w.sign(w.key, "fleet", w.payload(change)) }
	for _, tc := range []struct {
		name, code string
		jws        []byte
	}{
		{"nothing", "signed-order-malformed", nil},
		{"a stranger's signature", "signed-order-signature", w.sign(stranger, "fleet", w.payload(nil))},
		{"a stranger's name", "signed-order-key", w.sign(stranger, "stranger", w.payload(func(p *orderstest.Payload) { p.Issuer = "stranger" }))},
		{"expired", "signed-order-expired", fleet(func(p *orderstest.Payload) { p.IssuedAt, p.Expires = p.IssuedAt-7200, p.IssuedAt-3600 })},
		{"from the future", "signed-order-early", fleet(func(p *orderstest.Payload) { p.IssuedAt, p.Expires = p.IssuedAt+3600, p.Expires+3600 })},
		{"another card", "signed-order-device", fleet(func(p *orderstest.Payload) { p.EID = "89049032123451234512345678901234" })},
		{"another modem", "signed-order-device", fleet(func(p *orderstest.Payload) { p.IMEI = "356938035643817" })},
		{"another type of device", "signed-order-device", fleet(func(p *orderstest.Payload) { p.TAC = "35693804" })},
		{"another model", "signed-order-device", fleet(func(p *orderstest.Payload) { p.Model = "EG21" })},
		{"a member that nobody knows", "signed-order-invalid", fleet(func(p *orderstest.Payload) { p.Action = "format" })},
		{"parameters that make no sense", "parameters-invalid", fleet(func(p *orderstest.Payload) { p.Parameters = json.RawMessage(`{"version":1,"apns":7}`) })},
		{"a report to nobody", "bad-request", fleet(func(p *orderstest.Payload) { p.ReportTo = "http://reports.example" })},
	} {
		var p *api.Problem
		if _, err := w.c.Order(t.Context(), tc.jws); !errors.As(err, &p) || p.Code != tc.code || p.Who == "" || p.Next == "" {
			t.Errorf("%s: %v, want %s", tc.name, err, tc.code)
		}
	}
	var p *api.Problem
	if _, err := w.c.Install(t.Context(), api.InstallRequest{ActivationCode: "LPA:1$" + world.SMDPHost + "$M-1", Consent: true}); !errors.As(err, &p) || p.Code != "signed-order-needed" {
		t.Errorf("an order without a signature: %v", err)
	}
	if err := w.agent.units[0].runner.SetParameters(t.Context(), world.ICCID(t, ordersOld), json.RawMessage(`{"version":1}`), "x"); fault.Of(err).Code != "signed-order-needed" {
		t.Errorf("parameters without a signature: %v", err)
	}
	jobs, err := w.c.Jobs(t.Context())
	if err != nil || len(jobs.Jobs) != 0 || len(w.SMDP.Calls()) != 0 || len(w.Card.Profiles()) != 1 || len(w.Card.Notifications()) != 0 {
		t.Errorf("%v: jobs %+v, calls %v", err, jobs.Jobs, w.SMDP.Calls())
	}

	// A refused order has used no serial up.
	w.serial = 0
	good := fleet(nil)
	w.done(good)
	if _, err := w.c.Order(t.Context(), good); !errors.As(err, &p) || p.Code != "signed-order-replayed" || p.Status != 409 {
		t.Errorf("the same again: %v", err)
	}
	// A key that was taken back counts no more, and nothing is restarted.
	if err := os.Remove(filepath.Join(w.agent.units[0].cfg.Orders.KeysDir, "fleet.pem")); err != nil {
		t.Fatal(err)
	}
	if _, err := w.c.Order(t.Context(), fleet(about("enable", ordersNew))); !errors.As(err, &p) || p.Code != "signed-order-key" {
		t.Errorf("by a key that was taken back: %v", err)
	}
	if id, _ := w.Card.EnabledICCID(); id.String() != ordersOld {
		t.Errorf("enabled %s", id)
	}
}

// A reload is enough to demand signatures.
func TestRequireIsReloaded(t *testing.T) {
	w := newSignedWorld(t, nil)
	if _, err := w.c.Status(t.Context()); err != nil { // it runs
		t.Fatal(err)
	}
	next := w.agent.reloaded.running
	next.Orders.Require = runner.RequireAll
	if err := w.agent.Reload(t.Context(), next); err != nil {
		t.Fatal(err)
	}
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(time.Millisecond) { // the first look at the card may be under way
		err := w.agent.units[0].runner.SetParameters(t.Context(), world.ICCID(t, ordersOld), json.RawMessage(`{"version":1}`), "x")
		if fault.Of(err).Code == "signed-order-needed" {
			break
		}
		if time.Now().After(end) {
			t.Fatalf("parameters without a signature: %v", err)
		}
	}
	var p *api.Problem
	if _, err := w.c.Install(t.Context(), api.InstallRequest{ActivationCode: "LPA:1$" + world.SMDPHost + "$M-1", Consent: true}); !errors.As(err, &p) || p.Code != "signed-order-needed" {
		t.Errorf("an order without a signature: %v", err)
	}
	if list := w.agent.reloaded.restart; len(list) != 0 {
		t.Errorf("%q need a restart", list)
	}
}

// An order that deletes needs more than one that does not.
func TestSignedOrderDeletes(t *testing.T) {
	w := newSignedWorld(t, nil)
	b := &backend{Agent: w.agent, unit: w.agent.units[0]}
	for name, change := range map[string]func(*orderstest.Payload){
		"delete":    about("delete", ordersOld),
		"deleteOld": func(p *orderstest.Payload) { p.Enable, p.DeleteOld = "now", true },
	} {
		_, err := b.Order(t.Context(), "uid 1000 (pid 1)", w.sign(w.key, "fleet", w.payload(change)), false)
		if fault.Of(err).Code != api.CodeForbidden {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := b.Order(t.Context(), "uid 1000 (pid 1)", w.sign(w.key, "fleet", w.payload(about("enable", ordersOld))), false); fault.Of(err).Code == api.CodeForbidden {
		t.Errorf("an order that deletes nothing: %v", err)
	}
}

// The SM-DP+ of the download may sign too, and nobody in its name.
func TestOrderSignedBySMDP(t *testing.T) {
	w := newSignedWorld(t, func(c *config.Config) { c.Orders.Require, c.RSP.Consent = "all", "auto" })
	bySMDP := func(p *orderstest.Payload) { p.Issuer = "smdp" }
	j, err := w.c.Order(t.Context(), w.sign(w.key, "smdp", w.payload(bySMDP)))
	if err != nil {
		t.Fatal(err)
	}
	if j, err = w.c.Follow(t.Context(), j.ID, func(api.Job) {}); err != nil || j.State != "failed" || j.Problem.Code != "signed-order-signature" || j.SignedBy != "" {
		t.Errorf("%v: %+v", err, j)
	}
	if list := w.Card.Profiles(); len(list) != 1 || len(w.Card.Notifications()) != 0 {
		t.Errorf("%d profiles", len(list))
	}
	if j = w.done(w.sign(w.dpauth, "smdp", w.payload(bySMDP))); j.SignedBy != "smdp:"+world.SMDPHost || !strings.HasPrefix(j.ICCID, ordersNew) {
		t.Errorf("%+v", j)
	}
}

// On a device with several cards a signed order finds its own by what it says of
// its device; where that fits several, or none, nothing is done.
func TestSignedOrderFindsItsCard(t *testing.T) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	cfg := config.Default()
	cfg.StateDir, cfg.Socket, cfg.Orders.KeysDir = filepath.Join(dir, "lib"), filepath.Join(dir, "s"), filepath.Join(dir, "operators.d")
	cfg.Hooks.Dir, cfg.Params.OEMDir, cfg.Params.ProviderDB, cfg.Network.Probe = "", dir, filepath.Join(dir, "none.xml"), "none"
	public, err := orderstest.PublicPEM(key)
	if err == nil {
		err = os.Mkdir(cfg.Orders.KeysDir, 0o700)
	}
	if err == nil {
		err = os.WriteFile(filepath.Join(cfg.Orders.KeysDir, "fleet.pem"), public, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	imeis := map[string]string{"a": "490154203237518", "b": "356938035643809"}
	var eids []string
	var picked []Parts
	for _, name := range []string{"a", "b"} {
		w := world.New(t, world.Options{Card: func(c *euicc.Config) {
			c.Profiles = []euicc.Profile{{ICCID: world.ICCID(t, ordersOld), IMSI: "001010123456789", Enabled: true}, {ICCID: world.ICCID(t, ordersNew), IMSI: "001010123456780"}}
			if name == "b" {
				c.EID, err = rsp.ParseEID("89049032000000000000000000000007")
			}
		}})
		if err != nil {
			t.Fatal(err)
		}
		cfg.RSP.TrustDir = w.Trust
		eids = append(eids, w.Card.EID().String())
		card := soft{w.Card}
		direct := switchover.Direct{Card: card}
		picked = append(picked, Parts{Card: card, CardPath: CardPath{Backend: "pcsc", Path: name}, Settings: direct, Modem: direct, Network: direct, NetworkBackend: "none",
			Identity: func(context.Context) (modem.Identity, error) {
				return modem.Identity{Model: "EG25", IMEI: imeis[name]}, nil
			}})
		cfg.Cards = append(cfg.Cards, config.Named{Name: name, Default: name == "a", Card: cfg.Card, Modem: cfg.Modem, Network: cfg.Network})
	}
	a, err := New(cfg, Host{}, picked)
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- a.Run(ctx) }()
	c := client.New(cfg.Socket)
	t.Cleanup(func() {
		c.Close()
		stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	serial := int64(0)
	for _, tc := range []struct {
		name string
		p    orderstest.Payload
		card string // --card; empty: none
		want string // the job's card, or a code
	}{
		{"by the EID of the second", orderstest.Payload{EID: eids[1], ICCID: ordersNew}, "", "b"},
		{"by the EID of the first", orderstest.Payload{EID: eids[0], ICCID: ordersNew}, "", "a"},
		{"by an IMEI", orderstest.Payload{IMEI: imeis["b"], ICCID: ordersOld}, "", "b"},
		{"by a TAC", orderstest.Payload{TAC: imeis["a"][:8], ICCID: ordersOld}, "", "a"},
		{"for any", orderstest.Payload{ICCID: ordersNew}, "", api.CodeCardAmbiguous},
		{"for any of the model", orderstest.Payload{Model: "EG25", ICCID: ordersNew}, "", api.CodeCardAmbiguous},
		{"for any, and the request names one", orderstest.Payload{ICCID: ordersNew}, "b", "b"},
		{"for the other than the request says", orderstest.Payload{EID: eids[0], ICCID: ordersNew}, "b", "signed-order-device"},
		{"for no card of this device", orderstest.Payload{EID: "89049032123451234512345678901234", ICCID: ordersNew}, "", "signed-order-device"},
		{"one card's EID with the other's modem", orderstest.Payload{EID: eids[0], IMEI: imeis["b"], ICCID: ordersNew}, "", "signed-order-device"},
	} {
		serial++
		p := tc.p
		p.Issuer, p.Serial, p.IssuedAt, p.Expires, p.Action = "fleet", serial, time.Now().Unix(), time.Now().Add(time.Hour).Unix(), "enable"
		jws, err := orderstest.Sign(key, "fleet", p)
		if err != nil {
			t.Fatal(err)
		}
		j, err := c.For(tc.card).Order(t.Context(), jws)
		got := j.Card
		var problem *api.Problem
		if errors.As(err, &problem) {
			got = problem.Code
		} else if err == nil {
			j, err = c.Follow(t.Context(), j.ID, func(api.Job) {})
		}
		if got != tc.want || problem == nil && (err != nil || j.State != "done") {
			t.Errorf("%s: %s, want %s: %v %+v", tc.name, got, tc.want, err, j.Problem)
		}
	}
}
