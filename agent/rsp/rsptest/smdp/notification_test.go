package smdp

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"testing"

	"lpad/agent/rsp"
	"lpad/agent/rsp/rsptest/pki"
	"lpad/apdu/ber"
)

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
