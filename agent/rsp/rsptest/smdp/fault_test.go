package smdp

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"lpad/agent/rsp"
	"lpad/agent/rsp/rsptest/bsp"
	"lpad/agent/rsp/rsptest/pki"
	"lpad/apdu/ber"
)

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
		{BadMetadata, func(w *world, a jsonAnswer, o opened, err error) bool {
			data := w.order.Metadata.Proprietary
			return errors.Is(err, bsp.ErrSecurity) && o.metadata == nil && !bytes.Contains(a.bytes(w, "boundProfilePackage"), data) &&
				bytes.Contains(a.bytes(w, "boundProfilePackage"), flip(data))
		}},
		{BadConfigure, func(_ *world, _ jsonAnswer, o opened, err error) bool {
			return errors.Is(err, bsp.ErrSecurity) && o.configure == nil
		}},
	} {
		w := newWorld(t, func(_ *world, _ *Config, o *Order) {
			o.UPP, o.Metadata.Proprietary = profile(t, 1500), []byte{0xB8, 5, 0x80, 3, 0x88, 0x37, 0x10}
		})
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
