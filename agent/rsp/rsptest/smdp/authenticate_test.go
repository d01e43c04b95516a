package smdp

import (
	"bytes"
	"net/http"
	"testing"
	"time"

	"lpad/agent/rsp"
	"lpad/agent/rsp/rsptest/pki"
	"lpad/apdu/ber"
)

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
		{"eUICC of version 3", func(w *world, m map[string]string) {
			m["euiccInfo1"] = info([][]byte{w.pki.CI.SKI()}, [][]byte{w.pki.CI.SKI()}, 3, 0, 0)
		}, "8.8.3/3.1", "8.9.3/3.1"},
		{"knows none of our CIs", func(_ *world, m map[string]string) {
			m["euiccInfo1"] = info([][]byte{other.CI.SKI()}, [][]byte{other.CI.SKI()}, 2, 2, 2)
		}, "8.8.2/3.1", "8.9.2/3.1"},
		{"cannot verify us", func(w *world, m map[string]string) {
			m["euiccInfo1"] = info([][]byte{other.CI.SKI()}, [][]byte{w.pki.CI.SKI()}, 2, 2, 2)
		}, "8.8.4/3.7", "8.9.4/3.7"},
		{"signs under a CI that we do not know", func(w *world, m map[string]string) {
			m["euiccInfo1"] = info([][]byte{w.pki.CI.SKI()}, [][]byte{other.CI.SKI()}, 2, 2, 2)
		}, "8.8.2/3.1", "8.9.2/3.1"},
		{"lists nothing", func(_ *world, m map[string]string) { m["euiccInfo1"] = info(nil, nil, 2, 2, 2) }, "8.8.2/3.1", "8.9.2/3.1"},
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
		{name: "EUM that names no CI", edit: func(_ *world, f *authFields) { f.eum = foreign.CI.Certificate }, code: "8.1.2/6.1"},
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
	w.want("default order of another eUICC", w.card.authenticate(w.server, ""), "8.1.1/3.8")
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
