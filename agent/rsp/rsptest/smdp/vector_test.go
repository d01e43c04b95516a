package smdp

import (
	"bytes"
	"encoding/base64"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"lpad/agent/rsp"
	"lpad/agent/rsp/rsptest/pki"
	"lpad/agent/rsp/rsptest/vectors"
	"lpad/apdu/ber"
)

// The recorded session, with all random inputs fixed: every answer of the
// server must be the recorded one, byte for byte, and every signature of the
// recorded eUICC must be accepted.
func TestRecordedSession(t *testing.T) {
	dir := vectors.Dir(t, ".")
	file := func(name string) []byte {
		b, err := os.ReadFile(filepath.Join(dir, "session", name))
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	keys, err := pki.LoadSGP26(filepath.Join(dir, "sgp26"))
	if err != nil {
		t.Fatal(err)
	}
	s, err := New(Config{
		Address:     "smdp.example.com",
		Credentials: []Credential{{Auth: keys.DPAuth, Pb: keys.DPPb}},
		CIs:         []*pki.Certificate{keys.CI}, HostID: "euicc-rsp",
		AssumeCI:        true, // the recorded eUICC lists no CI
		Now:             func() time.Time { return time.Date(2026, 11, 1, 12, 0, 0, 0, time.UTC) },
		TransactionID:   func() rsp.TransactionID { return file("transaction-id.bin") },
		ServerChallenge: func() [16]byte { return [16]byte(file("server-challenge.bin")) },
		OneTimeKey:      func(c pki.Curve) (*pki.Key, error) { return pki.NewKey(c, file("otsk-dp.bin")) },
	})
	if err != nil {
		t.Fatal(err)
	}
	eid, err := rsp.ParseEID(pki.TestEID)
	if err != nil {
		t.Fatal(err)
	}
	recorded, err := rsp.ParseMetadata(file("store-metadata.der"))
	if err != nil {
		t.Fatal(err)
	}
	order := Order{EID: eid, UPP: file("upp.der"),
		Metadata: Metadata{ICCID: recorded.ICCID, ServiceProvider: recorded.ServiceProvider, Name: recorded.Name}}
	if err := s.AddOrder(order); err != nil {
		t.Fatal(err)
	}

	answer := post(t, s, InitiateAuthentication, map[string]string{
		"euiccChallenge": b64(file("euicc-challenge.bin")), "euiccInfo1": b64(file("euicc-info1.der")), "smdpAddress": "smdp.example.com"})
	got := ber.Encode(0x30, ber.Encode(0x80, unhex(t, answer.TransactionID)),
		answer.bytes(t, "serverSigned1"), answer.bytes(t, "serverSignature1"), answer.bytes(t, "euiccCiPKIdToBeUsed"), answer.bytes(t, "serverCertificate"))
	same(t, "initiateAuthentication", got, file("initiate-response.der"))
	if want := strings.ToUpper("0102030405060708090a0b0c0d0e0f10"); answer.TransactionID != want {
		t.Errorf("transactionId %s, want %s", answer.TransactionID, want)
	}

	answer = post(t, s, AuthenticateClient, map[string]string{
		"transactionId": answer.TransactionID, "authenticateServerResponse": b64(file("auth-server-response.der"))})
	got = ber.Encode(0xBF3B, ber.Encode(0xA0, ber.Encode(0x80, unhex(t, answer.TransactionID)),
		answer.bytes(t, "profileMetadata"), answer.bytes(t, "smdpSigned2"), answer.bytes(t, "smdpSignature2"), answer.bytes(t, "smdpCertificate")))
	same(t, "authenticateClient", got, file("authenticate-response.der"))
	same(t, "metadata", answer.bytes(t, "profileMetadata"), file("store-metadata.der"))

	answer = post(t, s, GetBoundProfilePackage, map[string]string{
		"transactionId": answer.TransactionID, "prepareDownloadResponse": b64(file("prepare-download-response.der"))})
	same(t, "getBoundProfilePackage", answer.bytes(t, "boundProfilePackage"), file("bound-profile-package.der"))

	post(t, s, HandleNotification, map[string]string{"pendingNotification": b64(file("pending-notification.der"))})
	log := s.Notifications()
	if len(log) != 1 || !log[0].Verified || log[0].Result != "installed" || log[0].ICCID != recorded.ICCID || log[0].EID != eid {
		t.Errorf("notification log %+v", log)
	}
	if status := s.Orders()[0]; status.State != Installed || status.EID != eid {
		t.Errorf("order %+v", status)
	}
}

func same(t *testing.T, what string, got, want []byte) {
	t.Helper()
	if !bytes.Equal(got, want) {
		t.Errorf("%s:\n got %X\nwant %X", what, got, want)
	}
}

func b64(b []byte) string { return base64.StdEncoding.EncodeToString(b) }
