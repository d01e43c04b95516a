package euicc_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"testing"

	"lpad/agent/rsp"
	"lpad/agent/rsp/bpp"
	"lpad/agent/rsp/es10"
	"lpad/agent/rsp/rsptest/euicc"
	"lpad/agent/rsp/rsptest/pki"
	"lpad/agent/rsp/rsptest/smdp"
	"lpad/agent/rsp/rsptest/upp"
	"lpad/apdu"
	"lpad/apdu/apdutest"
)

func must[T any](v T, err error) func(testing.TB) T {
	return func(t testing.TB) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

// post calls ES9+ without a network and gives the base64 members of the answer.
func post(t *testing.T, s http.Handler, function string, request map[string]string) map[string][]byte {
	t.Helper()
	r := httptest.NewRequest(http.MethodPost, "/gsma/rsp2/es9plus/"+function, bytes.NewReader(must(json.Marshal(request))(t)))
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set("X-Admin-Protocol", "gsma/rsp/v2.2.2")
	w := httptest.NewRecorder()
	s.ServeHTTP(w, r)
	out := map[string][]byte{}
	if w.Code == http.StatusNoContent {
		return out
	}
	var members map[string]json.RawMessage
	if err := json.Unmarshal(w.Body.Bytes(), &members); err != nil || w.Code != http.StatusOK {
		t.Fatalf("%s: %d %s", function, w.Code, w.Body)
	}
	for name, raw := range members {
		var text string
		if json.Unmarshal(raw, &text) != nil {
			continue
		}
		out[name] = []byte(text)
		if b, err := base64.StdEncoding.DecodeString(text); err == nil && name != "transactionId" {
			out[name] = b
		}
	}
	if out["transactionId"] == nil && function != "handleNotification" {
		t.Fatalf("%s: %s", function, w.Body)
	}
	return out
}

// direct is the card without anything between it and package apdu.
type direct struct{ *euicc.Card }

func (d direct) OpenChannel(ctx context.Context, aid []byte) (*apdu.Channel, error) {
	return apdu.OpenChannel(ctx, d.Card, aid)
}
func (direct) BlockSize() int { return 255 }
func (direct) Close() error   { return nil }

// The conformance suite of the transports, with no transport: what fails here
// is the card's fault.
func TestConformance(t *testing.T) {
	storeData := func(function ...byte) apdu.Command {
		return apdu.Command{CLA: 0x80, INS: 0xE2, P1: 0x91, Data: function}
	}
	for name, config := range map[string]euicc.Config{"T=0": {}, "inline": {Inline: true}, "short responses": {Chunk: 100}} {
		t.Run(name, func(t *testing.T) {
			config.Profiles = []euicc.Profile{{ICCID: must(rsp.ParseICCID("8949000000000000017"))(t), Icon: make([]byte, 1000)}}
			card := must(euicc.New(config))(t)
			target := apdutest.Target{
				Open: func(*testing.T) apdu.Card { return direct{card} }, AID: rsp.ISDR, Channels: euicc.DefaultChannels,
				Questions: []apdutest.Question{
					{Name: "GetEID", Command: storeData(0xBF, 0x3E, 3, 0x5C, 1, 0x5A), Answer: []byte{0xBF, 0x3E, 0x12, 0x5A, 0x10, 0x89}, SW: 0x9000},
					{Name: "GetProfilesInfo with an icon", Command: storeData(0xBF, 0x2D, 0), Answer: []byte{0xBF, 0x2D}, Length: 1000, SW: 0x9000},
				},
				Fill: func(n int) apdu.Command {
					return apdu.Command{CLA: 0x80, INS: 0xE2, P1: 0x11, Data: bytes.Repeat([]byte{0xBF}, n)}
				},
				Reset: card.Reset,
			}
			if name == "T=0" { // once is enough: it takes as long as closing a channel may take
				target.Stall = card.Stall
			}
			apdutest.TestTransport(t, target)
		})
	}
}

// The product's own client, segmentation and channels, the test SM-DP+, and
// the card: a whole life of a profile, on both curves, over every way in which
// a card can answer, on a channel from each of the two ranges.
func TestWithTheRealClient(t *testing.T) {
	for _, test := range []struct {
		name     string
		curve    pki.Curve
		config   euicc.Config
		block    int
		channels int // that others hold
		code     string
	}{
		{"T=0, block 255", pki.P256, euicc.Config{}, 255, 0, ""},
		{"inline, block 120", pki.P256, euicc.Config{Inline: true}, 120, 0, "1234"},
		{"short responses, channel 6", pki.BrainpoolP256r1, euicc.Config{Chunk: 60, Channels: 19}, 60, 5, "äöü"},
	} {
		t.Run(test.name, func(t *testing.T) {
			p := must(pki.New(pki.Options{Curve: test.curve}))(t)
			config := euicc.ConfigUnder(p)
			config.Inline, config.Chunk, config.Channels = test.config.Inline, test.config.Chunk, test.config.Channels
			card := must(euicc.New(config))(t)
			server := must(smdp.New(smdp.Config{Address: "smdp.example.com", CIs: []*pki.Certificate{p.CI.Certificate},
				Credentials: []smdp.Credential{{Auth: p.DPAuth, Pb: p.DPPb}}}))(t)
			defer server.Close()
			iccid := must(rsp.ParseICCID("8949000000000000017"))(t)
			if err := server.AddOrder(smdp.Order{MatchingID: "ORDER", ConfirmationCode: test.code, ProfileKeys: true,
				UPP: must(upp.Generate(upp.Options{ICCID: iccid, IMSI: "001010123456789", Size: 12 << 10}))(t),
				Metadata: smdp.Metadata{ICCID: iccid, ServiceProvider: "Test", Name: "Plan", Icon: make([]byte, 1024),
					Notifications: []rsp.NotificationConfiguration{{Events: rsp.AllEvents, Address: "smdp.example.com"}}},
			}); err != nil {
				t.Fatal(err)
			}
			ctx := t.Context()
			for range test.channels {
				must(apdu.OpenChannel(ctx, card, rsp.ISDR))(t)
			}
			channel := must(apdu.OpenChannel(ctx, card, rsp.ISDR))(t)
			client := es10.New(channel, test.block)

			result := download(ctx, t, client, server, test.code)
			if err := result.Err(); err != nil {
				t.Fatal(err)
			}
			if err := client.EnableProfile(ctx, iccid, es10.NoRefresh); err != nil {
				t.Fatal(err)
			}
			if err := client.DisableProfile(ctx, iccid, es10.NoRefresh); err != nil {
				t.Fatal(err)
			}
			if err := client.SetNickname(ctx, iccid, "Gerät 7"); err != nil {
				t.Fatal(err)
			}
			profiles := must(client.GetProfilesInfo(ctx, rsp.ProfileSearch{}))(t)
			if len(profiles) != 1 || profiles[0].ICCID != iccid || profiles[0].Nickname != "Gerät 7" || profiles[0].State != rsp.Disabled {
				t.Errorf("%+v", profiles)
			}
			if err := client.DeleteProfile(ctx, iccid); err != nil {
				t.Fatal(err)
			}
			deliver(ctx, t, client, server)
			for i, event := range []rsp.Event{rsp.EventInstall, rsp.EventEnable, rsp.EventDisable, rsp.EventDelete} {
				got := server.Notifications()
				if len(got) != 4 || got[i].Event != event || !got[i].Verified || got[i].ICCID != iccid {
					t.Fatalf("%+v", got)
				}
			}
			if left := card.Notifications(); len(left) != 0 {
				t.Errorf("%d notifications left", len(left))
			}
			if err := channel.Close(ctx); err != nil {
				t.Error(err)
			}
			if got := card.OpenChannels(); len(got) != test.channels {
				t.Errorf("open channels %v", got)
			}
			t.Logf("%+v", card.Stats())
		})
	}
}

func download(ctx context.Context, t *testing.T, client *es10.Client, server *smdp.Server, code string) rsp.ProfileInstallationResult {
	t.Helper()
	encode := base64.StdEncoding.EncodeToString
	info1 := must(client.GetEUICCInfo1(ctx))(t)
	info2 := must(client.GetEUICCInfo2(ctx))(t)
	challenge := must(client.GetEUICCChallenge(ctx))(t)
	initiated := post(t, server, "initiateAuthentication", map[string]string{
		"euiccChallenge": encode(challenge), "euiccInfo1": encode(info1.Raw), "smdpAddress": "smdp.example.com"})
	id := string(initiated["transactionId"])
	device := rsp.DeviceInfo{IMEI: "123456789012347"}
	authenticated := must(client.AuthenticateServer(ctx, rsp.ServerAuthentication{
		TransactionID: must(rsp.ParseTransactionID(id))(t),
		ServerSigned1: initiated["serverSigned1"], ServerSignature1: initiated["serverSignature1"],
		CIPKID: initiated["euiccCiPKIdToBeUsed"], ServerCertificate: initiated["serverCertificate"],
	}, must(device.ContextParams("ORDER", info2.RSPCapability))(t)))(t)
	offered := post(t, server, "authenticateClient", map[string]string{"transactionId": id, "authenticateServerResponse": encode(authenticated)})
	offer := rsp.DownloadOffer{TransactionID: must(rsp.ParseTransactionID(id))(t), ProfileMetadata: offered["profileMetadata"],
		SMDPSigned2: offered["smdpSigned2"], SMDPSignature2: offered["smdpSignature2"], SMDPCertificate: offered["smdpCertificate"]}
	var hash []byte
	if code != "" {
		inner := sha256.Sum256([]byte(code))
		outer := sha256.Sum256(append(inner[:], offer.TransactionID...))
		hash = outer[:]
	}
	prepared := must(client.PrepareDownload(ctx, offer, hash))(t)
	bound := post(t, server, "getBoundProfilePackage", map[string]string{"transactionId": id, "prepareDownloadResponse": encode(prepared)})
	pack := must(bpp.Parse(bound["boundProfilePackage"]))(t)
	return must(client.LoadBoundProfilePackage(ctx, pack.Segments(), nil))(t)
}

func deliver(ctx context.Context, t *testing.T, client *es10.Client, server *smdp.Server) {
	t.Helper()
	for _, n := range must(client.ListNotification(ctx, rsp.AllEvents))(t) {
		pending := must(client.RetrieveNotificationsList(ctx, rsp.BySeqNumber(n.SeqNumber)))(t)
		post(t, server, "handleNotification", map[string]string{"pendingNotification": base64.StdEncoding.EncodeToString(pending[0].Raw)})
		if err := client.RemoveNotificationFromList(ctx, n.SeqNumber); err != nil {
			t.Fatal(err)
		}
	}
}
