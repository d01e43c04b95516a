package smdp

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"lpad/agent/rsp"
	"lpad/agent/rsp/rsptest/pki"
	"lpad/apdu/ber"
)

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
