package smdp

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"lpad/agent/rsp"
	"lpad/agent/rsp/rsptest/bsp"
	"lpad/agent/rsp/rsptest/pki"
	"lpad/agent/rsp/rsptest/upp"
	"lpad/apdu/ber"
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

func TestDownload(t *testing.T) {
	class := rsp.ClassOperational
	for _, curve := range []pki.Curve{pki.P256, pki.BrainpoolP256r1} {
		for _, test := range []struct {
			name                   string
			edit                   func(*world, *Config, *Order)
			segments88, segments86 int
			largest                int
			replaced               bool
		}{
			{name: "small", segments88: 1, segments86: 1},
			{name: "40 kB", edit: func(_ *world, _ *Config, o *Order) { o.UPP = profile(t, 40_000) }, segments88: 1, segments86: 40, largest: 1020},
			{name: "segments of 1004", edit: func(_ *world, _ *Config, o *Order) { o.UPP = profile(t, 12_000); o.SegmentSize = 1004 }, segments88: 1, segments86: 13, largest: 1004},
			{name: "own keys of the profile", edit: func(_ *world, _ *Config, o *Order) { o.ProfileKeys = true }, segments88: 1, segments86: 1, replaced: true},
			{name: "large metadata", edit: func(_ *world, _ *Config, o *Order) {
				o.Metadata.Icon, o.Metadata.IconType = bytes.Repeat([]byte{0x89}, 1024), rsp.IconPNG
				o.Metadata.Class = &class
				o.Metadata.PPR = rsp.PPR1 | rsp.PPR2
				o.Metadata.Owner = &rsp.Operator{MCCMNC: [3]byte{0x00, 0xF1, 0x10}, GID1: []byte{1}, GID2: []byte{2}}
				o.Metadata.Notifications = []rsp.NotificationConfiguration{{Events: rsp.AllEvents, Address: "n.example.com"}}
				o.Proprietary = unhex(t, "B805800388370A")
			}, segments88: 2, segments86: 1, largest: 1020},
			{name: "metadata in small segments", edit: func(_ *world, _ *Config, o *Order) { o.MetadataSize = 28 }, segments88: 2, segments86: 1},
			{name: "transactionId of 1 byte", edit: func(_ *world, c *Config, _ *Order) { c.TransactionIDLength = 1 }, segments88: 1, segments86: 1},
			{name: "transactionId of 8 bytes", edit: func(_ *world, c *Config, _ *Order) { c.TransactionIDLength = 8 }, segments88: 1, segments86: 1},
			{name: "confirmation code", edit: func(_ *world, _ *Config, o *Order) { o.ConfirmationCode = "1234" }, segments88: 1, segments86: 1},
			{name: "other spelling of the address", edit: func(w *world, _ *Config, _ *Order) { w.card.address = "SMDP.example.COM" }, segments88: 1, segments86: 1},
		} {
			t.Run(curve.String()+"/"+test.name, func(t *testing.T) {
				w := newWorldOn(t, curve, test.edit)
				offer := w.card.authenticate(w.server, "AB-1")
				w.want("authenticateClient", offer, "")
				if got := len(offer.TransactionID); w.server.config.TransactionIDLength*2 != got {
					t.Errorf("transactionId of %d digits", got)
				}
				answer := w.card.download(w.server, offer, "1234")
				w.want("getBoundProfilePackage", answer, "")
				w.state(Downloaded)
				o, err := w.card.open(w.pki.DPPb.Certificate, answer.bytes(t, "boundProfilePackage"))
				if err != nil {
					t.Fatal(err)
				}
				if !bytes.Equal(o.profile, w.order.UPP) || !bytes.Equal(o.metadata, offer.bytes(t, "profileMetadata")) || !bytes.Equal(o.configure, ber.Encode(0xBF24, w.order.Proprietary)) {
					t.Error("contents changed on their way")
				}
				if o.segments86 != test.segments86 || o.segments88 != test.segments88 || o.replaced != test.replaced || test.largest > 0 && o.largest != test.largest {
					t.Errorf("%d 86s, %d 88s, replaced %v, largest %d", o.segments86, o.segments88, o.replaced, o.largest)
				}
				metadata, err := rsp.ParseMetadata(o.metadata)
				if err != nil || metadata.Name != "Plan" || metadata.PPR != w.order.Metadata.PPR || len(metadata.Notifications) != len(w.order.Metadata.Notifications) {
					t.Errorf("metadata %+v, %v", metadata, err)
				}
				if got := w.card.notify(w.server, w.card.result(offer.TransactionID, testICCID(t), 0)); got.HTTP != http.StatusNoContent || len(got.Raw) != 0 {
					t.Errorf("handleNotification: %d %s", got.HTTP, got.Raw)
				}
				w.state(Installed)
				w.want("second download", w.card.authenticate(w.server, "AB-1"), "8.2.6/3.8")
			})
		}
	}
}

func TestInitiateAuthentication(t *testing.T) {
	other := must(pki.New(pki.Options{}))(t)
	good := func(w *world) map[string]string {
		return map[string]string{"euiccChallenge": b64(make([]byte, 16)), "euiccInfo1": b64(w.card.info1()), "smdpAddress": "smdp.example.com"}
	}
	info := func(verify, sign [][]byte, svn ...byte) string {
		list := func(tag ber.Tag, skis [][]byte) []byte {
			var l [][]byte
			for _, s := range skis {
				l = append(l, ber.Encode(0x04, s))
			}
			return ber.Encode(tag, l...)
		}
		return b64(ber.Encode(0xBF20, ber.Encode(0x82, svn), list(0xA9, verify), list(0xAA, sign)))
	}
	for _, test := range []struct {
		name       string
		edit       func(*world, map[string]string)
		code, smds string
	}{
		{"good", func(*world, map[string]string) {}, "", ""},
		{"challenge missing", func(_ *world, m map[string]string) { delete(m, "euiccChallenge") }, "1.6/2.2", ""},
		{"challenge with its tag", func(_ *world, m map[string]string) { m["euiccChallenge"] = b64(make([]byte, 18)) }, "1.6/2.1", ""},
		{"info1 missing", func(_ *world, m map[string]string) { delete(m, "euiccInfo1") }, "1.6/2.2", ""},
		{"info1 not base64", func(_ *world, m map[string]string) { m["euiccInfo1"] = "*" }, "1.6/2.1", ""},
		{"info1 of something else", func(_ *world, m map[string]string) { m["euiccInfo1"] = b64([]byte{0xBF, 0x22, 0}) }, "1.6/2.1", ""},
		{"other address", func(_ *world, m map[string]string) { m["smdpAddress"] = "smdp.example.org" }, "8.8.1/3.8", "8.9.1/3.8"},
		{"address with a port", func(_ *world, m map[string]string) { m["smdpAddress"] = "smdp.example.com:443" }, "8.8.1/3.8", "8.9.1/3.8"},
		{"old eUICC", func(w *world, m map[string]string) {
			m["euiccInfo1"] = info([][]byte{w.pki.CI.SKI()}, [][]byte{w.pki.CI.SKI()}, 1, 9, 0)
		}, "8.8.3/3.1", "8.9.3/3.1"},
		{"cannot verify us", func(w *world, m map[string]string) {
			m["euiccInfo1"] = info([][]byte{other.CI.SKI()}, [][]byte{w.pki.CI.SKI()}, 2, 2, 2)
		}, "8.8.4/3.7", "8.9.4/3.7"},
		{"signs under a CI that we do not know", func(w *world, m map[string]string) {
			m["euiccInfo1"] = info([][]byte{w.pki.CI.SKI()}, [][]byte{other.CI.SKI()}, 2, 2, 2)
		}, "8.8.2/3.1", "8.9.2/3.1"},
		{"lists nothing", func(_ *world, m map[string]string) { m["euiccInfo1"] = info(nil, nil, 2, 2, 2) }, "8.8.4/3.7", "8.9.4/3.7"},
	} {
		for _, smds := range []bool{false, true} {
			w := newWorld(t, func(w *world, c *Config, _ *Order) {
				if c.SMDS = smds; smds {
					c.Credentials = []Credential{{Auth: w.pki.DSAuth}}
				}
			})
			members := good(w)
			test.edit(w, members)
			code := test.code
			if smds && test.smds != "" {
				code = test.smds
			}
			w.want(test.name, post(t, w.server, InitiateAuthentication, members), code)
		}
	}
}

// Two CIs: each side's certificate is chosen for itself, in the order of the
// eUICC's lists.
func TestChoiceOfCI(t *testing.T) {
	a, b := must(pki.New(pki.Options{}))(t), must(pki.New(pki.Options{Curve: pki.BrainpoolP256r1}))(t)
	s := must(New(Config{Address: "smdp.example.com", CIs: []*pki.Certificate{a.CI.Certificate, b.CI.Certificate},
		Credentials: []Credential{{Auth: a.DPAuth, Pb: a.DPPb}, {Auth: b.DPAuth, Pb: b.DPPb}}}))(t)
	for _, test := range []struct {
		verify, sign [][]byte
		auth         *pki.PKI
		ciPKID       []byte
	}{
		{[][]byte{a.CI.SKI(), b.CI.SKI()}, [][]byte{a.CI.SKI(), b.CI.SKI()}, a, a.CI.SKI()},
		{[][]byte{b.CI.SKI(), a.CI.SKI()}, [][]byte{a.CI.SKI()}, b, a.CI.SKI()},
		{[][]byte{make([]byte, 20), a.CI.SKI()}, [][]byte{make([]byte, 20), b.CI.SKI()}, a, b.CI.SKI()},
	} {
		chosen, status := s.choose(rsp.EUICCInfo1{Verification: test.verify, Signing: test.sign})
		if status != nil || chosen.credential.Auth != test.auth.DPAuth || !bytes.Equal(chosen.ciPKID, test.ciPKID) {
			t.Errorf("chose %+v, %v", chosen, status)
		}
	}
}

func TestAuthenticateClient(t *testing.T) {
	foreign := must(pki.New(pki.Options{}))(t)
	id := "AB-1"
	for _, test := range []struct {
		name  string
		world func(*world, *Config, *Order)
		edit  func(*world, *authFields)
		body  func(*world, jsonAnswer) (transactionID string, response []byte)
		code  string
	}{
		{name: "good"},
		{name: "unknown transactionId", body: func(*world, jsonAnswer) (string, []byte) { return "0102", []byte{1} }, code: "8.10.1/3.9"},
		{name: "transactionId is no hex", body: func(*world, jsonAnswer) (string, []byte) { return "xyz", []byte{1} }, code: "8.10.1/3.9"},
		{name: "no response", body: func(_ *world, a jsonAnswer) (string, []byte) { return a.TransactionID, nil }, code: "1.6/2.2"},
		{name: "garbage", body: func(_ *world, a jsonAnswer) (string, []byte) { return a.TransactionID, []byte{0xBF, 0x38, 0x05} }, code: "1.6/2.1"},
		{name: "other tag", body: func(_ *world, a jsonAnswer) (string, []byte) { return a.TransactionID, []byte{0xBF, 0x39, 0x00} }, code: "1.6/2.1"},
		{name: "empty", body: func(_ *world, a jsonAnswer) (string, []byte) { return a.TransactionID, []byte{0xBF, 0x38, 0x00} }, code: "1.6/2.1"},
		{name: "empty success", body: func(_ *world, a jsonAnswer) (string, []byte) {
			return a.TransactionID, []byte{0xBF, 0x38, 0x02, 0xA0, 0x00}
		}, code: "1.6/2.1"},
		{name: "error of the eUICC", body: func(w *world, a jsonAnswer) (string, []byte) {
			return a.TransactionID, unhex(w, "BF3809A10780020102020102")
		}, code: "8.1/4.2"},
		{name: "malformed error of the eUICC", body: func(w *world, a jsonAnswer) (string, []byte) {
			return a.TransactionID, unhex(w, "BF3806A10480020102")
		}, code: "1.6/2.1"},
		{name: "EUM of another CI", edit: func(_ *world, f *authFields) { f.eum = foreign.EUM.Certificate }, code: "8.11.1/3.9"},
		{name: "eUICC of another EUM", edit: func(_ *world, f *authFields) { f.euicc = foreign.EUICC.Certificate }, code: "8.1.3/6.1"},
		{name: "EUM that is none", edit: func(w *world, f *authFields) { f.eum = w.pki.DPAuth.Certificate }, code: "8.1.2/6.1"},
		{name: "EUM expired", world: func(w *world, _ *Config, _ *Order) {
			w.pki.EUM = must(w.pki.CI.IssueEUM(pki.EUMOptions{NotAfter: now.AddDate(0, 0, -1)}))(w)
			w.card.eum = w.pki.EUM.Certificate
		}, code: "8.1.2/6.3"},
		{name: "eUICC expired", edit: func(w *world, f *authFields) {
			f.euicc = must(w.pki.EUM.IssueEUICC(w.card.eid, pki.EUICCOptions{NotAfter: now.AddDate(0, 0, -1)}))(w).Certificate
		}, code: "8.1.3/6.3"},
		{name: "EID outside the range of the EUM", edit: func(w *world, f *authFields) {
			f.euicc = must(w.pki.EUM.IssueEUICC(must(rsp.ParseEID("89033023123451234512345678901224"))(w)))(w).Certificate
		}, code: "8.1.4/6.1"},
		{name: "broken certificate", edit: func(_ *world, f *authFields) { f.euicc = &pki.Certificate{DER: []byte{0x30, 0x00}} }, code: "1.6/2.1"},
		{name: "broken EUM certificate", edit: func(_ *world, f *authFields) { f.eum = &pki.Certificate{DER: []byte{0x30, 0x00}} }, code: "1.6/2.1"},
		{name: "signature of another key", edit: func(_ *world, f *authFields) { f.key = foreign.EUICC.Key }, code: "8.1/6.1"},
		{name: "other server challenge", edit: func(_ *world, f *authFields) { f.challenge = make([]byte, 16) }, code: "8.1/6.1"},
		{name: "other transactionId signed", edit: func(_ *world, f *authFields) { f.id = []byte{1} }, code: "8.10.1/3.9"},
		{name: "other address signed", edit: func(_ *world, f *authFields) { f.address = []byte("x") }, code: "8.1/6.1"},
		{name: "unknown matching id", world: func(_ *world, _ *Config, o *Order) { o.MatchingID = "other" }, code: "8.2.6/3.8"},
		{name: "order of another EID", world: func(w *world, _ *Config, o *Order) {
			o.EID = must(rsp.ParseEID("89033023123451234512345678901224"))(w)
		}, code: "8.1.1/3.8"},
		{name: "not released", world: func(_ *world, _ *Config, o *Order) { o.Unreleased = true }, code: "8.2/1.2"},
		{name: "expired", world: func(_ *world, _ *Config, o *Order) { o.Expires = now.Add(-time.Second) }, code: "8.8.5/4.10"},
		{name: "not yet expired", world: func(_ *world, _ *Config, o *Order) { o.Expires = now.Add(time.Second) }},
		{name: "other device", world: func(_ *world, _ *Config, o *Order) { o.TACs = []string{"12345678"} }, code: "8.2.5/4.3"},
		{name: "right device", world: func(_ *world, _ *Config, o *Order) { o.TACs = []string{"35290611"} }},
		{name: "TAC of 3 bytes", world: func(w *world, _ *Config, _ *Order) { w.card.tac = "353535" }, code: "1.6/2.1"},
		{name: "full card", world: func(w *world, c *Config, _ *Order) { c.CheckMemory, w.card.memory = true, 100 }, code: "8.1/4.8"},
		{name: "enough memory", world: func(w *world, c *Config, _ *Order) { c.CheckMemory, w.card.memory = true, 100_000 }},
	} {
		t.Run(test.name, func(t *testing.T) {
			w := newWorld(t, test.world)
			initiated := w.card.initiate(w.server)
			w.want("initiateAuthentication", initiated, "")
			transactionID := initiated.TransactionID
			var response []byte
			if test.body != nil {
				transactionID, response = test.body(w, initiated)
			} else {
				response = w.card.authenticateServer(initiated, &id, func(f *authFields) {
					if test.edit != nil {
						test.edit(w, f)
					}
				})
			}
			answer := post(t, w.server, AuthenticateClient, map[string]string{"transactionId": transactionID, "authenticateServerResponse": b64(response)})
			w.want("authenticateClient", answer, test.code)
			// A second authenticateClient in the session is never good.
			if test.code == "" || transactionID == initiated.TransactionID {
				answer = post(t, w.server, AuthenticateClient, map[string]string{"transactionId": transactionID, "authenticateServerResponse": b64(response)})
				w.want("again", answer, "8.10.1/3.9")
			}
		})
	}
}

// A default order is found by EID, without a matching id or with an empty one.
func TestDefaultOrder(t *testing.T) {
	empty := ""
	for name, id := range map[string]*string{"absent": nil, "empty": &empty} {
		w := newWorld(t, func(w *world, _ *Config, o *Order) { o.MatchingID, o.EID = "", w.card.eid })
		initiated := w.card.initiate(w.server)
		answer := post(t, w.server, AuthenticateClient, map[string]string{"transactionId": initiated.TransactionID,
			"authenticateServerResponse": b64(w.card.authenticateServer(initiated, id, nil))})
		w.want(name+" matching id", answer, "")
	}
	w := newWorld(t, func(w *world, _ *Config, o *Order) {
		o.MatchingID, o.EID = "", must(rsp.ParseEID("89033023123451234512345678901224"))(w)
	})
	w.want("default order of another eUICC", w.card.authenticate(w.server, ""), "8.2.6/3.8")
}

func TestConfirmationCode(t *testing.T) {
	w := newWorld(t, func(_ *world, _ *Config, o *Order) { o.ConfirmationCode, o.CodeTries = "1234", 3 })
	for i, step := range []struct{ code, want, next string }{
		{"", "8.2.7/2.2", ""},
		{"0000", "8.2.7/3.8", ""},
		{"12345", "8.2.7/3.8", ""},
		{"1234", "", ""},
		{"9999", "8.2.7/6.4", ""},
		{"1234", "", "8.2.7/6.4"},
	} {
		offer := w.card.authenticate(w.server, "AB-1")
		w.want("authenticateClient", offer, step.next)
		if step.next != "" {
			break
		}
		if signed2 := must(ber.Parse(offer.bytes(t, "smdpSigned2")))(t).Reader(); true {
			signed2.Read(0x80)
			if required, err := signed2.Read(0x01).Bool(); err != nil || !required {
				t.Errorf("ccRequiredFlag %v, %v", required, err)
			}
		}
		answer := w.card.download(w.server, offer, step.code)
		if answer.Code != step.want {
			t.Errorf("step %d, code %q: got %q, want %q", i, step.code, answer.Code, step.want)
		}
	}
	status, _ := w.server.Order("AB-1")
	if !status.Code || status.WrongCodes != 3 {
		t.Errorf("order %+v", status)
	}
	if dump := string(must(json.Marshal(w.server.State()))(t)); strings.Contains(dump, "1234\"") || strings.Contains(dump, "03AC6742") {
		t.Error("the confirmation code is in the state")
	}
}

func TestGetBoundProfilePackage(t *testing.T) {
	for _, test := range []struct {
		name  string
		world func(*world, *Config, *Order)
		body  func(*world, jsonAnswer) (transactionID string, response []byte)
		code  string
	}{
		{"good", nil, func(w *world, a jsonAnswer) (string, []byte) { return a.TransactionID, w.card.prepareDownload(a, "") }, ""},
		{"lower-case transactionId", nil, func(w *world, a jsonAnswer) (string, []byte) {
			return strings.ToLower(a.TransactionID), w.card.prepareDownload(a, "")
		}, ""},
		{"unknown transactionId", nil, func(*world, jsonAnswer) (string, []byte) { return "0102", []byte{1} }, "8.10.1/3.9"},
		{"no response", nil, func(_ *world, a jsonAnswer) (string, []byte) { return a.TransactionID, nil }, "1.6/2.2"},
		{"garbage", nil, func(_ *world, a jsonAnswer) (string, []byte) { return a.TransactionID, []byte{1, 2, 3} }, "1.6/2.1"},
		{"error of the eUICC", nil, func(w *world, a jsonAnswer) (string, []byte) {
			return a.TransactionID, unhex(w, "BF2109A10780020102020105")
		}, "8.1/4.2"},
		{"signature over something else", nil, func(w *world, a jsonAnswer) (string, []byte) {
			b := w.card.prepareDownload(a, "")
			return a.TransactionID, flip(b)
		}, "8.1/6.1"},
		{"transactionId of another session", nil, func(w *world, a jsonAnswer) (string, []byte) {
			other := a
			other.TransactionID = "0102"
			return a.TransactionID, w.card.prepareDownload(other, "")
		}, "8.10.1/3.9"},
		{"session has expired", nil, func(w *world, a jsonAnswer) (string, []byte) {
			b := w.card.prepareDownload(a, "")
			w.clock = w.clock.Add(11 * time.Minute)
			return a.TransactionID, b
		}, "8.10.1/3.9"},
		{"one-time key off the curve", nil, func(w *world, a jsonAnswer) (string, []byte) {
			signed := ber.Encode(0x30, ber.Encode(0x80, unhex(w, a.TransactionID)), ber.Encode(0x5F49, append([]byte{4}, make([]byte, 64)...)))
			sig := w.card.id.Key.Sign(append(bytes.Clone(signed), a.bytes(w, "smdpSignature2")...))
			return a.TransactionID, ber.Encode(0xBF21, ber.Encode(0xA0, signed, ber.Encode(0x5F37, sig)))
		}, "8.1/6.1"},
		{"no random bytes for the keys of the profile", func(_ *world, c *Config, o *Order) {
			o.ProfileKeys = true
			c.Random = io.LimitReader(constReader{}, 32)
		}, func(w *world, a jsonAnswer) (string, []byte) { return a.TransactionID, w.card.prepareDownload(a, "") }, "8.1/6.1"},
		{"no one-time key", func(_ *world, c *Config, _ *Order) {
			c.OneTimeKey = func(pki.Curve) (*pki.Key, error) { return nil, errors.New("none") }
		}, func(w *world, a jsonAnswer) (string, []byte) { return a.TransactionID, w.card.prepareDownload(a, "") }, "8.1/6.1"},
	} {
		t.Run(test.name, func(t *testing.T) {
			w := newWorld(t, test.world)
			offer := w.card.authenticate(w.server, "AB-1")
			w.want("authenticateClient", offer, "")
			id, response := test.body(w, offer)
			members := map[string]string{"transactionId": id, "prepareDownloadResponse": b64(response)}
			w.want("getBoundProfilePackage", post(t, w.server, GetBoundProfilePackage, members), test.code)
			if test.code == "" { // not twice in one session
				w.want("again", post(t, w.server, GetBoundProfilePackage, members), "8.10.1/3.9")
			}
		})
	}
	w := newWorld(t, nil)
	initiated := w.card.initiate(w.server)
	w.want("before authentication", post(t, w.server, GetBoundProfilePackage, map[string]string{
		"transactionId": initiated.TransactionID, "prepareDownloadResponse": b64([]byte{1})}), "8.10.1/3.9")
}

type constReader struct{}

func (constReader) Read(b []byte) (int, error) {
	for i := range b {
		b[i] = 0x5A
	}
	return len(b), nil
}

// An interrupted download: the second offer names the first one-time key. With
// the same key the package is the same but for its first element; with another
// one the server binds anew, or refuses.
func TestRetry(t *testing.T) {
	w := newWorld(t, func(_ *world, _ *Config, o *Order) { o.ProfileKeys, o.Downloads = true, 3 })
	first := w.card.download(w.server, w.card.authenticate(w.server, "AB-1"), "")
	offer := w.card.authenticate(w.server, "AB-1")
	w.want("authenticateClient", offer, "")
	signed2 := must(ber.Parse(offer.bytes(t, "smdpSigned2")))(t).Reader()
	if otPK, ok := signed2.Find(0x5F49); !ok || !bytes.Equal(otPK.Value, w.card.otSK.Public()) {
		t.Errorf("bppEuiccOtpk %X", otPK.Value)
	}
	second := w.card.download(w.server, offer, "")
	tail := func(a jsonAnswer) []byte {
		r := must(ber.Parse(a.bytes(t, "boundProfilePackage")))(t).Reader()
		r.Read(0xBF23)
		var rest []byte
		for !r.Empty() {
			part, _ := r.Next()
			rest = append(rest, part.Raw...)
		}
		return rest
	}
	if !bytes.Equal(tail(first), tail(second)) {
		t.Error("the same key, but another package")
	}
	if bytes.Equal(first.bytes(t, "boundProfilePackage"), second.bytes(t, "boundProfilePackage")) {
		t.Error("the package is not bound to the second session")
	}
	w.card.otSK = must(pki.GenerateKey(pki.P256))(t)
	third := w.card.download(w.server, w.card.authenticate(w.server, "AB-1"), "")
	if _, err := w.card.open(w.pki.DPPb.Certificate, third.bytes(t, "boundProfilePackage")); err != nil {
		t.Error(err)
	}
	w.want("fourth download of three", w.card.authenticate(w.server, "AB-1"), "8.8.5/6.4")

	w = newWorld(t, func(_ *world, _ *Config, o *Order) { o.RefuseRebind = true })
	w.want("first", w.card.download(w.server, w.card.authenticate(w.server, "AB-1"), ""), "")
	w.card.otSK = must(pki.GenerateKey(pki.P256))(t)
	w.want("other key", w.card.download(w.server, w.card.authenticate(w.server, "AB-1"), ""), "8.2/3.7")

	// Once bound, the order belongs to its eUICC.
	stranger := newCard(t, w.pki)
	stranger.eid = must(rsp.ParseEID("89049032000000000000000000000099"))(t)
	stranger.id = must(w.pki.EUM.IssueEUICC(stranger.eid))(t)
	w.want("another eUICC", stranger.authenticate(w.server, "AB-1"), "8.1.1/3.8")
}

func TestCancelSession(t *testing.T) {
	own := []byte{0x88, 0x37, 0x0A} // 2.999.10
	for _, test := range []struct {
		name   string
		reason rsp.CancelReason
		edit   func(w *world, id string, response []byte) (string, []byte)
		code   string
		state  OrderState
	}{
		{name: "rejected", reason: rsp.CancelEndUserRejection, state: Cancelled},
		{name: "postponed", reason: rsp.CancelPostponed, state: Released},
		{name: "timeout", reason: rsp.CancelTimeout, state: Released},
		{name: "PPR", reason: rsp.CancelPPRNotAllowed, state: Cancelled},
		{name: "undefined", reason: rsp.CancelUndefined, state: Cancelled},
		{name: "unknown session", edit: func(_ *world, _ string, b []byte) (string, []byte) { return "0102", b }, code: "8.10.1/3.9", state: Released},
		{name: "no response", edit: func(_ *world, id string, _ []byte) (string, []byte) { return id, nil }, code: "1.6/2.2", state: Released},
		{name: "error of the eUICC", edit: func(w *world, id string, _ []byte) (string, []byte) { return id, unhex(w, "BF4103810105") }, code: "1.6/2.1", state: Released},
		{name: "garbage", edit: func(_ *world, id string, _ []byte) (string, []byte) { return id, []byte{1} }, code: "1.6/2.1", state: Released},
		{name: "signature", edit: func(_ *world, id string, b []byte) (string, []byte) { return id, flip(b) }, code: "8.1/6.1", state: Released},
		{name: "OID of another server", edit: func(w *world, id string, _ []byte) (string, []byte) {
			return id, w.card.cancel(id, 0, []byte{0x88, 0x37, 0x0B})
		}, code: "8.8/3.10", state: Released},
		{name: "transactionId signed", edit: func(w *world, id string, _ []byte) (string, []byte) { return id, w.card.cancel("0102", 0, own) }, code: "8.10.1/3.9", state: Released},
	} {
		t.Run(test.name, func(t *testing.T) {
			w := newWorld(t, nil)
			offer := w.card.authenticate(w.server, "AB-1")
			id, response := offer.TransactionID, w.card.cancel(offer.TransactionID, test.reason, own)
			if test.edit != nil {
				id, response = test.edit(w, id, response)
			}
			members := map[string]string{"transactionId": id, "cancelSessionResponse": b64(response)}
			w.want("cancelSession", post(t, w.server, CancelSession, members), test.code)
			w.state(test.state)
			if test.code == "" {
				w.want("again", post(t, w.server, CancelSession, members), "8.10.1/3.9")
			}
		})
	}
	w := newWorld(t, nil)
	initiated := w.card.initiate(w.server)
	w.want("before authentication", post(t, w.server, CancelSession, map[string]string{"transactionId": initiated.TransactionID, "cancelSessionResponse": b64([]byte{1})}), "8.10.1/3.9")
	// loadBppExecutionError comes after the package.
	offer := w.card.authenticate(w.server, "AB-1")
	w.want("getBoundProfilePackage", w.card.download(w.server, offer, ""), "")
	w.want("cancel after the package", post(t, w.server, CancelSession, map[string]string{"transactionId": offer.TransactionID,
		"cancelSessionResponse": b64(w.card.cancel(offer.TransactionID, rsp.CancelLoadBPPError, own))}), "")
	w.state(Cancelled)
}

func TestNotifications(t *testing.T) {
	w := newWorld(t, nil)
	offer := w.card.authenticate(w.server, "AB-1")
	w.want("getBoundProfilePackage", w.card.download(w.server, offer, ""), "")
	iccid := testICCID(t)
	failure := w.card.result(offer.TransactionID, iccid, 11) // interruption: worth a retry
	w.card.notify(w.server, failure)
	w.state(Downloaded)
	success := w.card.result("0102", iccid, 0) // known by its ICCID
	enable := w.card.other(rsp.EventEnable, iccid)
	w.card.address = "n.example.com"
	elsewhere := w.card.other(rsp.EventDisable, iccid)
	w.card.address = "smdp.example.com"
	stranger := newCard(t, must(pki.New(pki.Options{}))(t))
	stranger.seq = 100
	noOne := *w.card
	noOne.id = must(w.pki.EUM.IssueEUICC(w.card.eid))(t)
	pending := [][]byte{success, enable, enable, elsewhere, stranger.other(rsp.EventDelete, iccid), stranger.result("0A0B", rsp.ICCID{}, 0),
		flip(success), nil, {0x31, 0x00}, {0x30}, {0x30, 0x00}, unhex(t, "BF3700"), w.card.other(rsp.EventDelete, iccid)}
	bad := must(ber.Parse(enable))(t).Reader()
	about, _, euicc, eum := bad.Read(0xBF2F).Raw, bad.Read(0x5F37).Raw, bad.Read(0x30).Raw, bad.Read(0x30).Raw
	pending = append(pending,
		ber.Encode(0x30, about, ber.Encode(0x5F37, make([]byte, 64)), euicc, eum),
		ber.Encode(0x30, about, ber.Encode(0x5F37, make([]byte, 64)), []byte{0x30, 0x00}, eum),
		ber.Encode(0x30, about, ber.Encode(0x5F37, make([]byte, 64)), euicc, []byte{0x30, 0x00}),
		ber.Encode(0x30, ber.Encode(0xBF2F), ber.Encode(0x5F37, make([]byte, 64)), euicc, eum))
	for _, p := range pending {
		if a := w.card.notify(w.server, p); a.HTTP != http.StatusNoContent && p != nil {
			t.Errorf("%X: HTTP %d", p, a.HTTP)
		}
	}
	type line struct {
		event     string
		seq       int64
		verified  bool
		duplicate bool
		problem   string
		result    string
	}
	want := []line{
		{"install", 1, true, false, "", "5/11"},
		{"install", 2, true, false, "", "installed"},
		{"enable", 3, true, false, "", ""},
		{"enable", 3, true, true, "", ""},
		{"disable", 4, true, false, "addressed to n.example.com", ""},
		{"delete", 101, false, false, "unknown CI", ""},
		{"install", 102, false, false, "no session", "installed"},
		{"install", 2, false, false, "euiccSignPIR", "installed"},
		{"", 0, false, false, "missing", ""},
		{"", 0, false, false, "neither", ""},
		{"", 0, false, false, "malformed", ""},
		{"", 0, false, false, "malformed", ""},
		{"", 0, false, false, "malformed", ""},
		{"delete", 5, true, false, "", ""},
		{"enable", 3, false, false, "euiccNotificationSignature", ""},
		{"enable", 3, false, false, "eUICC", ""},
		{"enable", 3, false, false, "EUM", ""},
		{"", 0, false, false, "", ""},
	}
	got := w.server.Notifications()
	if len(got) != len(want) {
		t.Fatalf("%d notifications, want %d", len(got), len(want))
	}
	for i, n := range got {
		event := n.EventName
		if want[i].event == "" {
			event = ""
		}
		l := line{event, n.SeqNumber, n.Verified, n.Duplicate, want[i].problem, n.Result}
		malformed := want[i].problem == "malformed" && n.Problem != ""
		if l != want[i] || !malformed && !strings.Contains(n.Problem, want[i].problem) || (n.Problem == "") != (want[i].problem == "" && i != len(want)-1) {
			t.Errorf("notification %d: %+v (%s), want %+v", i, l, n.Problem, want[i])
		}
	}
	w.state(Installed)
}

// What an installation result does to the order.
func TestResults(t *testing.T) {
	for _, test := range []struct {
		reason int64
		keep   bool
		want   OrderState
	}{{10, false, Downloaded}, {12, false, Failed}, {9, false, Failed}, {12, true, Downloaded}, {0, false, Installed}} {
		w := newWorld(t, func(_ *world, _ *Config, o *Order) { o.RetryOnError = test.keep })
		offer := w.card.authenticate(w.server, "AB-1")
		w.want("getBoundProfilePackage", w.card.download(w.server, offer, ""), "")
		w.card.notify(w.server, w.card.result(offer.TransactionID, testICCID(t), test.reason))
		w.state(test.want)
	}
}

func TestNotificationAnswers(t *testing.T) {
	for _, test := range []struct {
		edit func(*Config)
		http int
		code string
	}{
		{func(*Config) {}, 204, ""},
		{func(c *Config) { c.NotificationStatus = 200 }, 200, ""},
		{func(c *Config) { c.NotificationStatus = 500 }, 500, ""},
		{func(c *Config) { c.NotificationFailed = true }, 200, "8.8/4.2"},
	} {
		w := newWorld(t, func(_ *world, c *Config, _ *Order) { test.edit(c) })
		if a := w.card.notify(w.server, w.card.other(rsp.EventEnable, testICCID(t))); a.HTTP != test.http || a.Code != test.code {
			t.Errorf("HTTP %d, %q, want %d, %q", a.HTTP, a.Code, test.http, test.code)
		}
	}
}

func TestSMDS(t *testing.T) {
	w := newWorld(t, func(w *world, c *Config, _ *Order) {
		c.SMDS, c.Address = true, "smds.example.com"
		c.Credentials = []Credential{{Auth: w.pki.DSAuth}}
		w.card.address = "smds.example.com"
	})
	w.want("nothing pending", w.card.authenticate(w.server, ""), "8.9.5/3.9")
	other := must(rsp.ParseEID("89049032000000000000000000000099"))(t)
	w.server.AddEvent(Event{EID: w.card.eid, ID: "E-1", Address: "smdp.example.com"})
	w.server.AddEvent(Event{EID: other, ID: "E-2", Address: "smdp.example.com"})
	w.server.AddEvent(Event{EID: w.card.eid, ID: "E-3", Address: "smds2.example.com"})
	for id, want := range map[string]string{
		"":    `[{"eventId":"E-1","rspServerAddress":"smdp.example.com"},{"eventId":"E-3","rspServerAddress":"smds2.example.com"}]`,
		"E-3": `[{"eventId":"E-3","rspServerAddress":"smds2.example.com"}]`,
	} {
		answer := w.card.authenticate(w.server, id)
		w.want("events", answer, "")
		if got := string(answer.members["eventEntries"]); got != want {
			t.Errorf("%q: events %s, want %s", id, got, want)
		}
	}
	if !w.server.DeleteEvent("E-1") || w.server.DeleteEvent("E-1") {
		t.Error("DeleteEvent")
	}
	w.want("event of another eUICC", w.card.authenticate(w.server, "E-2"), "8.9.5/3.9")
	for _, fn := range []Function{GetBoundProfilePackage, CancelSession} {
		if a := post(t, w.server, fn, nil); a.HTTP != http.StatusNotFound {
			t.Errorf("%s at an SM-DS: HTTP %d", fn, a.HTTP)
		}
	}
	if !w.server.State().SMDS || w.server.OID() != "2.999.15" {
		t.Errorf("state %+v", w.server.State())
	}
}

func TestHTTP(t *testing.T) {
	w := newWorld(t, nil)
	request := func(method, url string, header map[string]string, body string) jsonAnswer {
		r := httptest.NewRequest(method, url, strings.NewReader(body))
		for k, v := range header {
			r.Header.Set(k, v)
		}
		rec := httptest.NewRecorder()
		w.server.ServeHTTP(rec, r)
		return readAnswer(t, rec.Code, rec.Header(), rec.Body.Bytes())
	}
	good := map[string]string{"Content-Type": "application/json;charset=UTF-8", "X-Admin-Protocol": "gsma/rsp/v2.2.2", "User-Agent": "gsma-rsp-lpad"}
	with := func(k, v string) map[string]string {
		h := map[string]string{}
		for name, value := range good {
			h[name] = value
		}
		h[k] = v
		return h
	}
	url := path + string(InitiateAuthentication)
	for _, test := range []struct {
		name        string
		method, url string
		header      map[string]string
		body        string
		http        int
		code        string
	}{
		{"other path", "POST", "/gsma/rsp2/es9/initiateAuthentication", good, "{}", 404, ""},
		{"GET", "GET", url, good, "", 405, ""},
		{"form", "POST", url, with("Content-Type", "application/x-www-form-urlencoded"), "{}", 200, "1.2.1/2.1"},
		{"no protocol", "POST", url, with("X-Admin-Protocol", ""), "{}", 200, "1.2.2/2.1"},
		{"not JSON", "POST", url, good, "{", 200, "1.6/2.1"},
		{"huge", "POST", url, good, strings.Repeat(" ", maxBody+1), 413, ""},
		{"empty", "POST", url, good, "{}", 200, "1.6/2.2"},
	} {
		a := request(test.method, test.url, test.header, test.body)
		if a.HTTP != test.http || a.Code != test.code {
			t.Errorf("%s: HTTP %d, %q, want %d, %q", test.name, a.HTTP, a.Code, test.http, test.code)
		}
		if test.code != "" && (a.Header.Get("Content-Type") != "application/json;charset=UTF-8" || a.Header.Get("X-Admin-Protocol") != protocol) {
			t.Errorf("%s: header %v", test.name, a.Header)
		}
	}
	calls := w.server.Calls()
	if last := calls[len(calls)-1]; last.Outcome != "1.6/2.2" || last.UserAgent != "gsma-rsp-lpad" || last.Function != InitiateAuthentication {
		t.Errorf("last call %+v", last)
	}
}

func TestNewRefuses(t *testing.T) {
	p := must(pki.New(pki.Options{}))(t)
	good := Config{Address: "a.example", CIs: []*pki.Certificate{p.CI.Certificate}, Credentials: []Credential{{Auth: p.DPAuth, Pb: p.DPPb}}}
	for name, edit := range map[string]func(*Config){
		"address":     func(c *Config) { c.Address = "" },
		"CIs":         func(c *Config) { c.CIs = nil },
		"credentials": func(c *Config) { c.Credentials = nil },
		"no DPpb":     func(c *Config) { c.Credentials = []Credential{{Auth: p.DPAuth}} },
		"hostId":      func(c *Config) { c.HostID = "12345678901234567" },
		"id":          func(c *Config) { c.TransactionIDLength = 17 },
	} {
		c := good
		edit(&c)
		if _, err := New(c); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

func TestAddOrder(t *testing.T) {
	w := newWorld(t, func(_ *world, _ *Config, o *Order) { o.Unreleased = true })
	good := w.order
	for name, edit := range map[string]func(*Order){
		"same matching id": func(*Order) {},
		"no key":           func(o *Order) { o.MatchingID = "" },
		"no profile":       func(o *Order) { o.UPP = nil; o.MatchingID = "x" },
		"no ICCID":         func(o *Order) { o.Metadata.ICCID = rsp.ICCID{}; o.MatchingID = "x" },
		"large segments":   func(o *Order) { o.SegmentSize = 1021; o.MatchingID = "x" },
		"small segments":   func(o *Order) { o.MetadataSize = 12; o.MatchingID = "x" },
	} {
		o := good
		edit(&o)
		if err := w.server.AddOrder(o); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	w.state(Allocated)
	if !w.server.Release("AB-1") || w.server.Release("AB-1") {
		t.Error("Release")
	}
	w.state(Released)
	if _, ok := w.server.Order("none"); ok {
		t.Error("an order that is none")
	}
	if code := w.server.ActivationCode("AB-1"); code != "LPA:1$smdp.example.com$AB-1" {
		t.Errorf("activation code %s", code)
	}
}

// The oldest session makes room.
func TestManySessions(t *testing.T) {
	w := newWorld(t, nil)
	first := w.card.initiate(w.server)
	for range maxSessions {
		w.clock = w.clock.Add(time.Millisecond)
		s := &session{id: must(w.server.random(16))(t), started: w.clock}
		w.server.remember(s)
	}
	if len(w.server.sessions) != maxSessions {
		t.Errorf("%d sessions", len(w.server.sessions))
	}
	id := "AB-1"
	w.want("the oldest session", post(t, w.server, AuthenticateClient, map[string]string{"transactionId": first.TransactionID,
		"authenticateServerResponse": b64(w.card.authenticateServer(first, &id, nil))}), "8.10.1/3.9")
}

func TestExhaustedRandom(t *testing.T) {
	for name, random := range map[string]io.Reader{"nothing": bytes.NewReader(nil), "id only": bytes.NewReader(make([]byte, 16))} {
		w := newWorld(t, func(_ *world, c *Config, _ *Order) { c.Random = random })
		w.want(name, w.card.initiate(w.server), "8.8/4.2")
	}
	w := newWorld(t, func(_ *world, c *Config, _ *Order) { c.Random, c.TransactionIDLength = constReader{}, 1 })
	w.want("first id", w.card.initiate(w.server), "")
	w.want("no free id", w.card.initiate(w.server), "8.8/4.2")
}

// --- over TLS ---

// client is an HTTPS client that trusts the CI of the world.
type client struct {
	*http.Client
	base string
}

func (w *world) serve() (*client, string) {
	w.Helper()
	l := must(net.Listen("tcp", "127.0.0.1:0"))(w)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- w.server.Serve(ctx, l, w.pki.DPTLS) }()
	roots := x509.NewCertPool()
	roots.AddCert(must(w.pki.CI.Certificate.X509())(w))
	transport := &http.Transport{
		TLSClientConfig: &tls.Config{RootCAs: roots, ServerName: "smdp.example.com", Time: func() time.Time { return now }},
		DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, network, l.Addr().String())
		},
	}
	w.Cleanup(func() {
		transport.CloseIdleConnections()
		cancel()
		if err := <-done; err != nil {
			w.Errorf("Serve: %v", err)
		}
	})
	return &client{&http.Client{Transport: transport}, "https://smdp.example.com"}, l.Addr().String()
}

func (c *client) post(ctx context.Context, t testing.TB, fn Function, members map[string]string) (jsonAnswer, error) {
	t.Helper()
	r := must(http.NewRequestWithContext(ctx, http.MethodPost, c.base+path+string(fn), bytes.NewReader(must(json.Marshal(members))(t))))(t)
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set("X-Admin-Protocol", "gsma/rsp/v2.2.2")
	response, err := c.Do(r)
	if err != nil {
		return jsonAnswer{}, err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		return jsonAnswer{}, err
	}
	return readAnswer(t, response.StatusCode, response.Header, body), nil
}

func (w *world) initiateMembers() map[string]string {
	return map[string]string{"euiccChallenge": b64(make([]byte, 16)), "euiccInfo1": b64(w.card.info1()), "smdpAddress": "smdp.example.com"}
}

func TestServe(t *testing.T) {
	w := newWorld(t, nil)
	c, address := w.serve()
	for range 3 {
		a, err := c.post(t.Context(), t, InitiateAuthentication, w.initiateMembers())
		if err != nil || a.Code != "" {
			t.Fatalf("%v, %s", err, a.Raw)
		}
	}
	c.CloseIdleConnections()
	n := w.card.other(rsp.EventEnable, testICCID(t))
	if a, err := c.post(t.Context(), t, HandleNotification, map[string]string{"pendingNotification": b64(n)}); err != nil || a.HTTP != http.StatusNoContent {
		t.Errorf("%v, HTTP %d", err, a.HTTP)
	}
	got := must(w.server.WaitNotification(t.Context(), func(n Notification) bool { return n.Event == rsp.EventEnable }))(t)
	if got.Peer != netip.MustParseAddr("127.0.0.1") || got.Connection != 2 || !got.Verified {
		t.Errorf("notification %+v", got)
	}
	// A client that does not trust us gets as far as the handshake.
	_, err := tls.DialWithDialer(&net.Dialer{Timeout: 10 * time.Second}, "tcp", address, &tls.Config{ServerName: "smdp.example.com", RootCAs: x509.NewCertPool()})
	var unknown *tls.CertificateVerificationError
	if !errors.As(err, &unknown) {
		t.Errorf("client without our root: %v", err)
	}
	connections := w.server.Connections()
	if len(connections) != 2 || connections[0].Requests != 3 || connections[1].Requests != 1 || w.server.Accepted() != 3 {
		t.Errorf("connections %+v, accepted %d", connections, w.server.Accepted())
	}
	var state State
	if err := json.Unmarshal(must(json.Marshal(w.server.State()))(t), &state); err != nil || len(state.Orders) != 1 || len(state.Notifications) != 1 || len(state.Calls) != 4 || state.Notifications[0].EventName != "enable" {
		t.Errorf("state %+v, %v", state, err)
	}
}

func TestServeRefuses(t *testing.T) {
	w := newWorld(t, nil)
	brainpool := must(pki.New(pki.Options{Curve: pki.BrainpoolP256r1}))(t)
	if err := w.server.Serve(t.Context(), nil, brainpool.DPTLS); err == nil {
		t.Error("served with a brainpool certificate")
	}
	l := must(net.Listen("tcp", "127.0.0.1:0"))(t)
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if err := w.server.Serve(t.Context(), l, w.pki.DPTLS); err == nil {
		t.Error("served on a closed listener")
	}
}

func TestWaitNotification(t *testing.T) {
	w := newWorld(t, nil)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := w.server.WaitNotification(ctx, nil); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	got := make(chan Notification, 1)
	go func() {
		n, err := w.server.WaitNotification(t.Context(), func(n Notification) bool { return n.SeqNumber == 2 })
		if err != nil {
			t.Error(err)
		}
		got <- n
	}()
	for range 3 {
		w.card.notify(w.server, w.card.other(rsp.EventDisable, testICCID(t)))
	}
	if n := <-got; n.SeqNumber != 2 {
		t.Errorf("notification %d", n.SeqNumber)
	}
	if n := must(w.server.WaitNotification(t.Context(), nil))(t); n.SeqNumber != 1 {
		t.Errorf("notification %d", n.SeqNumber)
	}
}

// Faults at the level of HTTP.
func TestTransportFaults(t *testing.T) {
	w := newWorld(t, nil)
	c, _ := w.serve()
	members := w.initiateMembers()
	do := func(f Fault) (jsonAnswer, error) {
		w.server.ClearFaults()
		w.server.Inject(f)
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		if f.Kind == Stall {
			ctx, cancel = context.WithTimeout(t.Context(), 50*time.Millisecond)
			defer cancel()
		}
		return c.post(ctx, t, InitiateAuthentication, members)
	}
	for _, kind := range []Kind{Drop, DropAnswer, CutAnswer, Stall} {
		if a, err := do(Fault{Kind: kind}); err == nil {
			t.Errorf("%s: %s", kind, a.Raw)
		}
	}
	if _, err := do(Fault{Kind: Slow, Delay: time.Millisecond}); err != nil {
		t.Errorf("slow: %v", err)
	}
	if a, err := do(Fault{Kind: HTTPError}); err != nil || a.HTTP != 500 {
		t.Errorf("HTTP error: %d, %v", a.HTTP, err)
	}
	if a, err := do(Fault{Kind: HTTPError, HTTP: 404}); err != nil || a.HTTP != 404 {
		t.Errorf("HTTP error: %d, %v", a.HTTP, err)
	}
	if a, err := do(Fault{Kind: NotJSON}); err != nil || !bytes.Contains(a.Raw, []byte("captive")) {
		t.Errorf("not JSON: %s, %v", a.Raw, err)
	}
	if a, err := do(Fault{Kind: Refuse, Subject: "8.8.5", Reason: "4.10"}); err != nil || a.Code != "8.8.5/4.10" {
		t.Errorf("refuse: %s, %v", a.Raw, err)
	}
	if a, err := do(Fault{Kind: NoHeader}); err != nil || a.Status != "" || len(a.members) != 5 {
		t.Errorf("no header: %s, %v", a.Raw, err)
	}
	if a, err := do(Fault{Kind: LowerCaseID}); err != nil || a.TransactionID != strings.ToLower(a.TransactionID) {
		t.Errorf("lower case: %s, %v", a.Raw, err)
	}
	if a, err := do(Fault{Kind: Base64Lines}); err != nil || !bytes.Contains(a.members["serverCertificate"], []byte(`\r\n`)) {
		t.Errorf("lines: %s, %v", a.Raw, err)
	}
	w.server.ClearFaults()
	w.server.Inject(Fault{Kind: HugeAnswer})
	r := must(http.NewRequestWithContext(t.Context(), http.MethodPost, c.base+path+string(InitiateAuthentication), strings.NewReader("{}")))(t)
	response := must(c.Do(r))(t)
	if n, err := io.Copy(io.Discard, response.Body); err != nil || n < 32<<20 {
		t.Errorf("huge answer: %d bytes, %v", n, err)
	}
	if err := response.Body.Close(); err != nil {
		t.Error(err)
	}
	// A notification that was taken, but whose answer is lost: the second one is a duplicate.
	w.server.ClearFaults()
	n := map[string]string{"pendingNotification": b64(w.card.other(rsp.EventEnable, testICCID(t)))}
	w.server.Inject(Fault{Function: HandleNotification, Kind: DropAnswer, Times: 1})
	if _, err := c.post(t.Context(), t, HandleNotification, n); err == nil {
		t.Error("the answer was not lost")
	}
	if a, err := c.post(t.Context(), t, HandleNotification, n); err != nil || a.HTTP != 204 {
		t.Errorf("HTTP %d, %v", a.HTTP, err)
	}
	if log := w.server.Notifications(); len(log) != 2 || log[0].Duplicate || !log[1].Duplicate {
		t.Errorf("log %+v", log)
	}
}

func TestCloseEndsStall(t *testing.T) {
	w := newWorld(t, nil)
	h := httptest.NewServer(w.server)
	defer h.Close()
	w.server.Inject(Fault{Kind: Stall})
	failed := make(chan error, 1)
	go func() {
		response, err := h.Client().Post(h.URL+path+string(InitiateAuthentication), "application/json", strings.NewReader("{}"))
		if err == nil {
			err = response.Body.Close()
		}
		failed <- err
	}()
	for len(w.server.Calls()) == 0 {
		time.Sleep(time.Millisecond)
	}
	w.server.Close()
	w.server.Close()
	if err := <-failed; err == nil {
		t.Error("stalled request was answered")
	}
}

func TestFaultSchedule(t *testing.T) {
	w := newWorld(t, nil)
	w.server.Inject(Fault{Function: GetBoundProfilePackage, Kind: Refuse, Subject: "1", Reason: "1"})
	w.server.Inject(Fault{Function: InitiateAuthentication, Kind: Refuse, Subject: "8.9", Reason: "5.1", Skip: 1, Times: 2})
	var got []string
	for range 5 {
		got = append(got, w.card.initiate(w.server).Code)
	}
	if want := []string{"", "8.9/5.1", "8.9/5.1", "", ""}; !slices.Equal(got, want) {
		t.Errorf("codes %q, want %q", got, want)
	}
	outcomes := []string{}
	for _, c := range w.server.Calls() {
		outcomes = append(outcomes, c.Outcome)
	}
	if want := []string{"ok", "fault: refuse", "fault: refuse", "ok", "ok"}; !slices.Equal(outcomes, want) {
		t.Errorf("outcomes %q, want %q", outcomes, want)
	}
}

// Faults in what is signed and sent: each is found where an eUICC or LPA looks.
func TestContentFaults(t *testing.T) {
	wrong := func(w *world) *pki.Identity {
		return must(w.pki.CI.IssueServer(pki.DPPb, pki.ServerOptions{OID: "2.999.11"}))(w)
	}
	signed1 := func(t *testing.T, a jsonAnswer) (id, challenge, address []byte) {
		r := must(ber.Parse(a.bytes(t, "serverSigned1")))(t).Reader()
		return r.Read(0x80).Value, r.Read(0x81).Value, r.Read(0x83).Value
	}
	verifies := func(t *testing.T, w *world, a jsonAnswer) bool {
		sig := must(ber.Parse(a.bytes(t, "serverSignature1")))(t)
		return pki.Verify(pki.P256, w.pki.DPAuth.Certificate.PublicKey, a.bytes(t, "serverSigned1"), sig.Value)
	}
	for kind, check := range map[Kind]func(*testing.T, *world, jsonAnswer) bool{
		"":             verifies,
		FlipSignature:  func(t *testing.T, w *world, a jsonAnswer) bool { return !verifies(t, w, a) },
		OtherIdentity:  func(t *testing.T, w *world, a jsonAnswer) bool { return !verifies(t, w, a) },
		OtherChallenge: func(t *testing.T, w *world, a jsonAnswer) bool { _, c, _ := signed1(t, a); return c[15] != 0xAB },
		OtherAddress: func(t *testing.T, w *world, a jsonAnswer) bool {
			_, _, addr := signed1(t, a)
			return string(addr) == "other.smdp.example.com"
		},
		OtherSignedID: func(t *testing.T, w *world, a jsonAnswer) bool {
			id, _, _ := signed1(t, a)
			return verifies(t, w, a) && !bytes.Equal(id, unhex(t, a.TransactionID))
		},
		OtherReplyID: func(t *testing.T, w *world, a jsonAnswer) bool {
			id, _, _ := signed1(t, a)
			return w.server.sessions[string(id)] != nil && !bytes.Equal(id, unhex(t, a.TransactionID))
		},
		OtherCI: func(t *testing.T, w *world, a jsonAnswer) bool {
			return !bytes.Contains(a.bytes(t, "euiccCiPKIdToBeUsed"), w.pki.CI.SKI())
		},
	} {
		w := newWorld(t, nil)
		w.server.Inject(Fault{Function: InitiateAuthentication, Kind: kind, Identity: wrong(w)})
		if a := w.card.initiate(w.server); a.Code != "" || !check(t, w, a) {
			t.Errorf("initiateAuthentication, %s: %s", kind, a.Raw)
		}
	}

	for kind, check := range map[Kind]func(*world, jsonAnswer) bool{
		OtherSignedID: func(w *world, a jsonAnswer) bool {
			id := must(ber.Parse(a.bytes(w, "smdpSigned2")))(w).Reader().Read(0x80).Value
			return !bytes.Equal(id, unhex(w, a.TransactionID))
		},
		OtherIdentity: func(w *world, a jsonAnswer) bool {
			return must(pki.ParseCertificate(a.bytes(w, "smdpCertificate")))(w).RegisteredID == "2.999.11"
		},
	} {
		w := newWorld(t, nil)
		w.server.Inject(Fault{Function: AuthenticateClient, Kind: kind, Identity: wrong(w)})
		if a := w.card.authenticate(w.server, "AB-1"); a.Code != "" || !check(w, a) {
			t.Errorf("authenticateClient, %s: %s", kind, a.Raw)
		}
	}

	for _, test := range []struct {
		kind  Kind
		check func(*world, jsonAnswer, opened, error) bool
	}{
		{FlipSignature, func(_ *world, _ jsonAnswer, _ opened, err error) bool { return errors.Is(err, errSign) }},
		{OtherIdentity, func(_ *world, _ jsonAnswer, _ opened, err error) bool { return errors.Is(err, errSign) }},
		{OtherSignedID, func(w *world, a jsonAnswer, o opened, err error) bool {
			return err == nil && !bytes.Equal(o.id, unhex(w, a.TransactionID))
		}},
		{BadRemoteOp, func(w *world, a jsonAnswer, _ opened, err error) bool {
			return err == nil && bytes.Contains(a.bytes(w, "boundProfilePackage"), []byte{0x82, 0x01, 0x02, 0x80})
		}},
		{OtherMetadata, func(_ *world, _ jsonAnswer, o opened, err error) bool {
			return err == nil && bytes.Contains(o.metadata, []byte("Plan?"))
		}},
		{Truncate, func(_ *world, _ jsonAnswer, _ opened, err error) bool { return errors.Is(err, ber.ErrMalformed) }},
		{No86, func(_ *world, _ jsonAnswer, o opened, err error) bool { return err == nil && o.segments86 == 0 }},
		{ExtraTag, func(_ *world, _ jsonAnswer, o opened, err error) bool {
			return errors.Is(err, ber.ErrMalformed) && o.segments86 > 0
		}},
		{Swap86, func(_ *world, _ jsonAnswer, o opened, err error) bool {
			return errors.Is(err, bsp.ErrSecurity) && o.segments86 == 0
		}},
		{BadMAC, func(_ *world, _ jsonAnswer, o opened, err error) bool {
			return errors.Is(err, bsp.ErrSecurity) && o.segments86 == 1
		}},
	} {
		w := newWorld(t, func(_ *world, _ *Config, o *Order) { o.UPP = profile(t, 1500) })
		w.server.Inject(Fault{Function: GetBoundProfilePackage, Kind: test.kind, Identity: wrong(w)})
		a := w.card.download(w.server, w.card.authenticate(w.server, "AB-1"), "")
		w.want(string(test.kind), a, "")
		if o, err := w.card.open(w.pki.DPPb.Certificate, a.bytes(t, "boundProfilePackage")); !test.check(w, a, o, err) {
			t.Errorf("getBoundProfilePackage, %s: %+v, %v", test.kind, o, err)
		}
	}

	raw := Metadata{ICCID: testICCID(t), Name: "Plan", Raw: Metadata{ICCID: testICCID(t), ServiceProvider: "T", Name: "Plan", Extra: []byte{0xBF, 0x22, 0x00}}.Marshal()}
	got := storedMetadata(&order{Order: Order{Metadata: raw}}, Fault{Kind: OtherMetadata})
	if bytes.Contains(got, []byte("Plan")) || len(got) != len(raw.Raw) || !bytes.HasSuffix(raw.Marshal(), []byte{0xBF, 0x22, 0x00}) {
		t.Errorf("raw metadata %X", got)
	}
}

// Requests of any shape: an answer, never a panic.
func FuzzRequests(f *testing.F) {
	p := must(pki.New(pki.Options{}))(f)
	c := newCard(f, p)
	seeds := [][]byte{c.info1(), unhex(f, "BF3809A10780020102020102"), unhex(f, "BF2109A10780020102020105"),
		c.result("0102", testICCID(f), 0), c.other(rsp.EventEnable, testICCID(f)), c.cancel("0102", 0, []byte{0x88, 0x37, 0x0A})}
	for _, seed := range seeds {
		f.Add(seed)
	}
	s := must(New(Config{Address: "smdp.example.com", CIs: []*pki.Certificate{p.CI.Certificate}, Credentials: []Credential{{Auth: p.DPAuth, Pb: p.DPPb}}}))(f)
	if err := s.AddOrder(Order{MatchingID: "AB-1", UPP: []byte{1}, Metadata: Metadata{ICCID: testICCID(f)}}); err != nil {
		f.Fatal(err)
	}
	offer := c.authenticate(s, "AB-1")
	f.Fuzz(func(t *testing.T, b []byte) {
		initiated := newCard(t, p).initiate(s)
		for _, call := range []struct {
			fn      Function
			members map[string]string
		}{
			{InitiateAuthentication, map[string]string{"euiccChallenge": b64(make([]byte, 16)), "euiccInfo1": b64(b), "smdpAddress": "smdp.example.com"}},
			{AuthenticateClient, map[string]string{"transactionId": initiated.TransactionID, "authenticateServerResponse": b64(b)}},
			{CancelSession, map[string]string{"transactionId": offer.TransactionID, "cancelSessionResponse": b64(b)}},
			{HandleNotification, map[string]string{"pendingNotification": b64(b)}},
		} {
			if a := post(t, s, call.fn, call.members); a.HTTP != 200 && a.HTTP != 204 {
				t.Errorf("%s: HTTP %d", call.fn, a.HTTP)
			}
		}
		if _, err := parsePrepared(b); err == nil && len(b) < 8 {
			t.Errorf("%X is a PrepareDownloadResponse", b)
		}
	})
}
