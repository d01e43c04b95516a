package smdp

import (
	"bytes"
	"io"
	"testing"
	"time"

	"lpad/agent/rsp"
	"lpad/agent/rsp/rsptest/pki"
)

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
