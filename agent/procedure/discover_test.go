package procedure_test

import (
	"errors"
	"strings"
	"testing"

	"lpad/agent/procedure"
	"lpad/agent/rsp"
	"lpad/agent/rsp/es9p"
	"lpad/agent/rsp/rsptest/euicc"
	"lpad/agent/rsp/rsptest/smdp"
	"lpad/internal/fault"
	"lpad/internal/redact"
)

func TestDiscover(t *testing.T) {
	b := newBench(t, setup{})
	device := request().Device
	events, err := procedure.Discover(b.ctx, b.euicc, b.open, procedure.Request{Address: smdsHost, Device: device})
	if err != nil || events == nil || len(events) != 0 {
		t.Fatalf("nothing pending: %v, %v", events, err)
	}
	b.order(nil)
	b.smds.AddEvent(smdp.Event{EID: euicc.TestEID, ID: "ORDER-1", Address: smdpHost})
	events, err = procedure.Discover(b.ctx, b.euicc, b.open, procedure.Request{Address: smdsHost, Device: device})
	if err != nil || len(events) != 1 || events[0] != (rsp.EventEntry{EventID: "ORDER-1", RSPServerAddress: smdpHost}) {
		t.Fatalf("events %v, %v", events, err)
	}
	s, server, err := procedure.AuthenticateEvent(b.ctx, b.euicc, b.open, events[0], procedure.Request{Device: device})
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	if s.Request.Address != smdpHost || s.Request.MatchingID != "ORDER-1" {
		t.Errorf("the session does not know its server: %+v", s.Request)
	}
	if err := s.Prepare(b.ctx, redact.Secret{}); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Load(b.ctx, nil); err != nil {
		t.Fatal(err)
	}
	for _, c := range b.smds.Calls() {
		if c.Function == smdp.CancelSession {
			t.Error("the SM-DS was told of a cancellation")
		}
	}
}

func TestDiscoverRefusals(t *testing.T) {
	b := newBench(t, setup{})
	device := request().Device
	t.Run("SM-DP+ in place of an SM-DS", func(t *testing.T) {
		b.order(func(o *smdp.Order) { o.MatchingID, o.EID = "", euicc.TestEID })
		_, err := procedure.Discover(b.ctx, b.euicc, b.open, procedure.Request{Address: smdpHost, Device: device})
		if fault.Of(err).Code != "server-is-smdp" || !strings.Contains(calls(b.smdp), "cancelSession ok") {
			t.Errorf("%v: %s", err, calls(b.smdp))
		}
		b.idle()
	})
	t.Run("SM-DS in place of an SM-DP+", func(t *testing.T) {
		b.smds.AddEvent(smdp.Event{EID: euicc.TestEID, ID: "E-1", Address: smdpHost})
		server, err := b.open(smdsHost)
		if err != nil {
			t.Fatal(err)
		}
		defer server.Close()
		_, err = procedure.Authenticate(b.ctx, b.euicc, server, procedure.Request{Address: smdsHost, Device: device})
		events := find[*procedure.EventsError](t, err)
		if len(events.Events) != 1 || fault.Of(err).Code != "server-is-smds" || events.Error() == "" {
			t.Errorf("events %+v", events)
		}
	})
	t.Run("no server", func(t *testing.T) {
		closed := errors.New("no network")
		open := func(string) (procedure.Server, error) { return nil, closed }
		if _, err := procedure.Discover(b.ctx, b.euicc, open, procedure.Request{Address: smdsHost, Device: device}); !errors.Is(err, closed) {
			t.Errorf("discover: %v", err)
		}
		if _, _, err := procedure.AuthenticateEvent(b.ctx, b.euicc, open, rsp.EventEntry{EventID: "x", RSPServerAddress: smdpHost}, request()); !errors.Is(err, closed) {
			t.Errorf("event: %v", err)
		}
	})
	t.Run("server refuses", func(t *testing.T) {
		b.smds.Inject(smdp.Fault{Kind: smdp.Refuse, Function: smdp.InitiateAuthentication, Subject: "8.9", Reason: "5.1", Times: 1})
		var refused *es9p.Error
		if _, err := procedure.Discover(b.ctx, b.euicc, b.open, procedure.Request{Address: smdsHost, Device: device}); !errors.As(err, &refused) {
			t.Errorf("%v", err)
		}
		if _, _, err := procedure.AuthenticateEvent(b.ctx, b.euicc, b.open, rsp.EventEntry{EventID: "WRONG", RSPServerAddress: smdpHost}, request()); !errors.As(err, &refused) {
			t.Errorf("%v", err)
		}
	})
}

// SM-DSs that refer to one another are followed, and not for ever.
func TestCascade(t *testing.T) {
	b := newBench(t, setup{})
	b.order(nil)
	hop := func(id, next, address string) {
		b.smds.AddEvent(smdp.Event{EID: euicc.TestEID, ID: next, Address: address})
	}
	hop("", "LOOP", smdsHost)
	_, _, err := procedure.AuthenticateEvent(b.ctx, b.euicc, b.open, rsp.EventEntry{EventID: "", RSPServerAddress: smdsHost}, request())
	if fault.Of(err).Code != "discovery-cascade" {
		t.Errorf("loop: %v", err)
	}
	if len(b.opened) > procedure.MaxCascade {
		t.Errorf("%d servers were asked", len(b.opened))
	}
	b.smds.DeleteEvent("LOOP")
	hop("", "ORDER-1", smdpHost)
	s, server, err := procedure.AuthenticateEvent(b.ctx, b.euicc, b.open, rsp.EventEntry{EventID: "", RSPServerAddress: smdsHost}, request())
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	if s.Request.Address != smdpHost {
		t.Errorf("ended at %s", s.Request.Address)
	}
	if err := s.Cancel(b.ctx, rsp.CancelPostponed); err != nil {
		t.Error(err)
	}
}
