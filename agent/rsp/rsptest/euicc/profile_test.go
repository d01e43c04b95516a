package euicc

import (
	"bytes"
	"slices"
	"testing"

	"lpad/agent/rsp"
	"lpad/agent/rsp/rsptest/pki"
	"lpad/apdu/ber"
)

// Five profiles for the rules of switching.
var (
	testOne  = mustICCID("8988000000000000001")
	testTwo  = mustICCID("8988000000000000002")
	boot     = mustICCID("8977000000000000001")
	locked   = mustICCID("8966000000000000001")
	nobody   = mustICCID("8900000000000000000")
	operator = &rsp.Operator{MCCMNC: [3]byte{0x00, 0xF1, 0x10}}
)

func manyProfiles() Config {
	config := twoProfiles()
	config.Profiles = append(config.Profiles,
		Profile{ICCID: testOne, Class: Test}, Profile{ICCID: testTwo, Class: Test},
		Profile{ICCID: boot, Class: Provisioning},
		Profile{ICCID: locked, PPR: rsp.PPR1 | rsp.PPR2, Owner: operator})
	return config
}

func enable(id rsp.ICCID) []byte {
	return ber.Encode(0xBF31, ber.Encode(0xA0, id.ProfileTLV()), ber.EncodeBool(0x81, false))
}

func enableRefresh(id rsp.ICCID) []byte {
	return ber.Encode(0xBF31, ber.Encode(0xA0, id.ProfileTLV()), ber.EncodeBool(0x81, true))
}

func disable(id rsp.ICCID) []byte {
	return ber.Encode(0xBF32, ber.Encode(0xA0, id.ProfileTLV()), ber.EncodeBool(0x81, false))
}

func remove(id rsp.ICCID) []byte { return ber.Encode(0xBF33, id.ProfileTLV()) }

// wantResult runs a function that answers with a result code.
func wantResult(t *testing.T, c *Card, function []byte, code int) {
	t.Helper()
	wantES10(t, c, bytesToHex(function), bytesToHex(result(mustParse(t, function).Tag, code)))
}

func wantEnabled(t *testing.T, c *Card, id rsp.ICCID) {
	t.Helper()
	if got, _ := c.EnabledICCID(); got != id {
		t.Errorf("enabled %v, want %v", got, id)
	}
}

func TestSwitchingRules(t *testing.T) {
	type step struct {
		function []byte
		code     int
	}
	for _, test := range []struct {
		name    string
		steps   []step
		enabled rsp.ICCID
	}{
		{"enable and back", []step{{enable(other), 0}, {enable(other), 2}, {enable(home), 0}}, home},
		{"unknown", []step{{enable(nobody), 1}, {disable(nobody), 1}, {remove(nobody), 1}}, home},
		{"disable", []step{{disable(other), 2}, {disable(home), 0}, {disable(home), 2}}, rsp.ICCID{}},
		{"delete", []step{{remove(home), 2}, {remove(other), 0}, {remove(other), 1}}, home},
		{"PPR1 holds", []step{{enable(locked), 0}, {enable(home), 3}, {enable(boot), 3}, {disable(locked), 3}}, locked},
		{"PPR1 does not hold against a test profile", []step{{enable(locked), 0}, {enable(testOne), 0}, {disable(testOne), 0}}, locked},
		{"PPR2 holds", []step{{remove(locked), 3}}, home},
		{"test profile comes back to the operational one", []step{{enable(testOne), 0}, {disable(testOne), 0}}, home},
		{"from test profile to another operational one", []step{{enable(testOne), 0}, {enable(other), 4}, {enable(home), 0}}, home},
		{"from test profile to test profile", []step{{enable(testOne), 0}, {enable(testTwo), 0}, {enable(other), 4}, {disable(testTwo), 0}}, home},
		{"test profile with nothing to come back to", []step{{disable(home), 0}, {enable(testOne), 0}, {enable(home), 4}, {disable(testOne), 0}}, rsp.ICCID{}},
		{"the one to come back to was deleted", []step{{enable(testOne), 0}, {remove(home), 0}, {disable(testOne), 0}}, rsp.ICCID{}},
	} {
		t.Run(test.name, func(t *testing.T) {
			c := newCard(t, manyProfiles())
			channel1(t, c)
			for _, s := range test.steps {
				wantResult(t, c, s.function, s.code)
			}
			wantEnabled(t, c, test.enabled)
			c.Reset()
			wantEnabled(t, c, test.enabled)
			if got, _ := c.VisibleICCID(); got != test.enabled {
				t.Errorf("the modem sees %v", got)
			}
		})
	}
}

func TestByAID(t *testing.T) {
	config := manyProfiles()
	config.Quirks.AIDOnly = true
	c := newCard(t, config)
	channel1(t, c)
	aid := c.Profiles()[1].AID
	wantResult(t, c, enable(other), 1)
	wantES10(t, c, "BF3117A0124F10"+aid.String()+"810100", "BF3103800100")
	wantEnabled(t, c, other)
	wantResult(t, c, disable(other), 1)
	wantES10(t, c, "BF3217A0124F10"+aid.String()+"810100", "BF3203800100")
	wantResult(t, c, remove(other), 1)
	wantES10(t, c, "BF33124F10"+aid.String(), "BF3303800100")
	wantES10(t, c, "BF33124F10"+aid.String(), "BF3303800101")
	wantES10(t, c, "BF2D16A0124F10"+c.Profiles()[0].AID.String()+"5C00", "BF2D04A002E300")
	if got := aid[14]; got != 0x12 {
		t.Errorf("second ISD-P %v", aid)
	}
}

func TestMemoryReset(t *testing.T) {
	all := []rsp.NotificationConfiguration{{Events: rsp.EventDelete, Address: "a.example.com"}, {Events: rsp.AllEvents, Address: "b.example.com"}}
	reset := func(bits ...int) []byte { return ber.Encode(0xBF34, ber.EncodeBits(0x82, ber.NewBits(bits...))) }
	config := manyProfiles()
	config.Profiles[0].Notifications = all
	c := newCard(t, config)
	channel1(t, c)
	if want := unhex(t, "BF3404820205E0"); !bytes.Equal(reset(0, 1, 2), want) {
		t.Errorf("%X", reset(0, 1, 2))
	}
	wantResult(t, c, reset(1), 1) // the test profiles are of the factory
	wantResult(t, c, reset(), 1)
	answer, sw := es10(t, c, reset(0)) // policy rules do not hold it up
	if !bytes.Equal(answer, unhex(t, "BF3403800100")) || sw != 0x910B {
		t.Errorf("%X %04X", answer, sw)
	}
	if got := len(c.Profiles()); got != 3 {
		t.Errorf("%d profiles", got)
	}
	wantEnabled(t, c, rsp.ICCID{})
	wantResult(t, c, reset(0), resultCatBusy) // REFRESH is still waiting
	var addresses []string
	for i, n := range c.Notifications() {
		addresses = append(addresses, n.Address)
		if n.Event != rsp.EventDelete || n.SeqNumber != int64(i) {
			t.Errorf("%+v", n)
		}
	}
	if !slices.Equal(addresses, []string{"a.example.com", "b.example.com", "n.example.com"}) {
		t.Errorf("notifications to %q", addresses)
	}
	c.Reset()
	channel1(t, c)
	want(t, c, "00A4000C022FE2", "6A82")
	wantResult(t, c, reset(0), 1)

	d := newDownload(t, Config{})
	d.metadata = Profile{ICCID: d.iccid, Class: Test}.Metadata()
	d.install(t)
	wantResult(t, d.card, reset(0, 2), 1)
	wantResult(t, d.card, reset(1), 0)
	if got := d.card.FreeMemory(); got != DefaultFreeMemory || len(d.card.Profiles()) != 0 {
		t.Errorf("%d bytes free", got)
	}
}

// Between the switch and the reset the modem sees the old files.
func TestFilesFollowTheReset(t *testing.T) {
	c := newCard(t, twoProfiles())
	channel1(t, c)
	iccid := func(id rsp.ICCID) {
		t.Helper()
		want(t, c, "00A4000C023F00", "9000")
		want(t, c, "00A4000C022FE2", "9000")
		want(t, c, "00B000000A", bytesToHex(id[:])+"9000")
	}
	iccid(home)
	wantResult(t, c, enable(other), 0)
	wantEnabled(t, c, other)
	iccid(home)
	wantResult(t, c, remove(home), 0) // even then
	iccid(home)
	c.Reset()
	iccid(other)
	want(t, c, "81E2910006BF3E035C015A", "6881")
}

func TestRefresh(t *testing.T) {
	for _, test := range []struct {
		name    string
		quirks  Quirks
		command string
	}{
		{"UICC reset", Quirks{}, "D00981030101048202 8182"},
		{"profile state change", Quirks{StateChangeRefresh: true}, "D00981030101098202 8182"},
	} {
		t.Run(test.name, func(t *testing.T) {
			config := twoProfiles()
			config.Quirks = test.quirks
			c := newCard(t, config)
			channel1(t, c)
			answer, sw := es10(t, c, enableRefresh(other))
			if !bytes.Equal(answer, unhex(t, "BF3103800100")) || sw != 0x910B {
				t.Fatalf("%X %04X", answer, sw)
			}
			if got := c.ProactiveCommand(); !bytes.Equal(got, unhex(t, test.command)) {
				t.Errorf("proactive command %X", got)
			}
			wantResult(t, c, enableRefresh(home), resultCatBusy)
			want(t, c, "80F2000C", "910B")
			want(t, c, "8012000005", "6C0B")
			want(t, c, "801200000B", test.command+"9000")
			want(t, c, "81E2910006BF3E035C015A", "6881") // the channels are gone
			want(t, c, "00A4000C022FE2", "9000")
			want(t, c, "00B000000A", bytesToHex(home[:])+"9000")
			want(t, c, "801400000C810301010402028281830120", "9000") // not performed
			want(t, c, "00B000000A", bytesToHex(home[:])+"9000")
			want(t, c, "801400000C8103010104020282818301 00", "6985")
		})
	}
	c := newCard(t, twoProfiles())
	channel1(t, c)
	es10(t, c, enableRefresh(other))
	want(t, c, "801200000B", "D009810301010482028182 9000")
	want(t, c, "801400000C810301010482028281830100", "9000")
	want(t, c, "00A4000C022FE2", "9000")
	want(t, c, "00B000000A", bytesToHex(other[:])+"9000")

	config := twoProfiles()
	config.Quirks.RefreshIsPlain = true
	c = newCard(t, config)
	channel1(t, c)
	if _, sw := es10(t, c, enableRefresh(other)); sw != swOK {
		t.Errorf("%04X", sw)
	}
}

func TestSwitchQuirks(t *testing.T) {
	for _, test := range []struct {
		name        string
		quirks      Quirks
		with, wants int // result codes with refreshFlag TRUE and FALSE
	}{
		{"refuses refresh", Quirks{RefuseRefresh: true}, undefinedError, 0},
		{"refuses no refresh", Quirks{RefuseNoRefresh: true}, 0, undefinedError},
	} {
		t.Run(test.name, func(t *testing.T) {
			for _, refresh := range []bool{true, false} {
				config := twoProfiles()
				config.Quirks = test.quirks
				c := newCard(t, config)
				channel1(t, c)
				function, code := enable(other), test.wants
				if refresh {
					function, code = enableRefresh(other), test.with
				}
				wantResult(t, c, function, code)
			}
		})
	}
	config := twoProfiles()
	config.Quirks.RefuseNoRefresh = true
	c := newCard(t, config)
	channel1(t, c)
	wantResult(t, c, disable(home), undefinedError)

	config = twoProfiles()
	config.Quirks.ResetAfterSwitch = true
	c = newCard(t, config)
	channel1(t, c)
	wantResult(t, c, enable(other), 0)
	wantSW(t, c, "BF2D00", swConditions)
	c.Reset()
	channel1(t, c)
	wantEnabled(t, c, other)
	wantES10(t, c, "BF2D07A0039501005C00", "BF2D02A000")

	config = twoProfiles()
	config.Quirks.RevertTo = home
	c = newCard(t, config)
	channel1(t, c)
	wantResult(t, c, enable(other), 0)
	c.Reset()
	wantEnabled(t, c, home)
	if got := len(c.Notifications()); got != 4 {
		t.Errorf("%d notifications", got)
	}
}

func TestNotifications(t *testing.T) {
	config := twoProfiles()
	config.FirstSequence = 127
	config.Profiles[1].Notifications = []rsp.NotificationConfiguration{
		{Events: rsp.EventEnable, Address: "one.example.com"}, {Events: rsp.EventEnable | rsp.EventDelete, Address: "two.example.com"}}
	store := new(MemoryStore)
	config.Store = store
	c := newCard(t, config)
	channel1(t, c)
	wantResult(t, c, enable(other), 0) // disable home, enable other twice
	wantResult(t, c, enable(home), 0)  // other does not tell, home does
	list := c.Notifications()
	var got []int64
	for _, n := range list {
		got = append(got, n.SeqNumber)
		pending, err := rsp.ParsePendingNotification(n.Raw)
		if err != nil || pending.SeqNumber != n.SeqNumber || pending.Address != n.Address || pending.ICCID != n.ICCID || pending.Event != n.Event {
			t.Errorf("%+v: %+v %v", n, pending, err)
		}
	}
	if !slices.Equal(got, []int64{127, 128, 129, 130}) {
		t.Fatalf("sequence %v", got)
	}
	identity := c.config.Identities[0]
	r := mustParse(t, list[1].Raw).Reader()
	meta, signature := r.Read(0xBF2F), r.Read(0x5F37)
	if !pki.Verify(pki.P256, identity.EUICC.Certificate.PublicKey, meta.Raw, signature.Value) {
		t.Error("euiccNotificationSignature does not verify")
	}
	wantES10(t, c, "BF2800", bytesToHex(ber.Encode(0xBF28, ber.Encode(0xA0, metas(t, list)...))))
	wantES10(t, c, "BF280481020640", bytesToHex(ber.Encode(0xBF28, ber.Encode(0xA0, metas(t, list[1:3])[0], metas(t, list[1:3])[1], metas(t, list[3:])[0]))))
	wantES10(t, c, "BF2B06A00480020080", bytesToHex(ber.Encode(0xBF2B, ber.Encode(0xA0, list[1].Raw))))
	wantES10(t, c, "BF2B06A00481020520", bytesToHex(ber.Encode(0xBF2B, ber.Encode(0xA0, list[0].Raw))))
	wantES10(t, c, "BF2B00", bytesToHex(ber.Encode(0xBF2B, ber.Encode(0xA0, list[0].Raw, list[1].Raw, list[2].Raw, list[3].Raw))))
	wantES10(t, c, "BF300480020080", "BF3003800100")
	wantES10(t, c, "BF300480020080", "BF3003800101")
	wantES10(t, c, "BF2B06A00480020080", "BF2B03810101")
	for _, n := range c.Notifications() {
		wantES10(t, c, bytesToHex(ber.Encode(0xBF30, ber.EncodeInt(0x80, n.SeqNumber))), "BF3003800100")
	}
	wantES10(t, c, "BF2800", "BF2802A000")
	// The counter never goes back, not even in another card on the same store.
	config.FirstSequence = 0
	c = newCard(t, config)
	channel1(t, c)
	wantResult(t, c, disable(home), 0)
	if got := c.Notifications(); len(got) != 1 || got[0].SeqNumber != 131 {
		t.Errorf("%+v", got)
	}
	for _, modern := range []Config{{Info: Info{SVN: rsp.Version{2, 5, 0}}}, {Quirks: Quirks{EmptyRetrieve: true}}} {
		c = newCard(t, modern)
		channel1(t, c)
		wantES10(t, c, "BF2B00", "BF2B02A000")
	}
}

func metas(t *testing.T, list []NotificationState) (out [][]byte) {
	t.Helper()
	for _, n := range list {
		out = append(out, mustParse(t, n.Raw).Reader().Read(0xBF2F).Raw)
	}
	return out
}

func TestNotificationLimit(t *testing.T) {
	config := twoProfiles()
	config.NotificationLimit = 3
	c := newCard(t, config)
	channel1(t, c)
	wantResult(t, c, enable(other), 0)
	wantResult(t, c, enable(home), 0)
	if got := c.Notifications(); len(got) != 3 || got[0].SeqNumber != 1 {
		t.Errorf("%+v", got)
	}
	config.FullRefuses = true
	c = newCard(t, config)
	channel1(t, c)
	wantResult(t, c, enable(other), 0)
	wantResult(t, c, enable(home), undefinedError)
	wantResult(t, c, disable(other), 0)
	wantResult(t, c, remove(other), undefinedError)
	wantResult(t, c, enable(home), undefinedError)
	wantES10(t, c, "BF3003800100", "BF3003800100")
	wantResult(t, c, remove(other), 0)

	config.Profiles = append(config.Profiles, Profile{ICCID: testOne, Class: Test, Notifications: config.Profiles[0].Notifications})
	c = newCard(t, config)
	channel1(t, c)
	wantResult(t, c, enable(testOne), 0)
	wantResult(t, c, disable(testOne), undefinedError) // home would have to be enabled, which makes two
}

func TestFactoryRefuses(t *testing.T) {
	for name, profiles := range map[string][]Profile{
		"two of one ICCID":  {{ICCID: home}, {ICCID: home}},
		"two enabled":       {{ICCID: home, Enabled: true}, {ICCID: other, Enabled: true}},
		"no ICCID":          {{}},
		"IMSI":              {{ICCID: home, IMSI: "00101012345678X"}},
		"long IMSI":         {{ICCID: home, IMSI: "0010101234567890"}},
		"long SPN":          {{ICCID: home, SPN: "seventeen letters"}},
		"rule, no operator": {{ICCID: home, PPR: rsp.PPR1}},
	} {
		if _, err := New(Config{Profiles: profiles}); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	for name, config := range map[string]Config{
		"chunk": {Chunk: 257}, "anchor": {Trusted: []Anchor{{}}}, "identity": {Identities: []Identity{{}}},
	} {
		if _, err := New(config); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

func TestIMSIOfEvenLength(t *testing.T) {
	if got := encodeIMSI("00101012345678"); !bytes.Equal(got, unhex(t, "0801101010325476F8")) {
		t.Errorf("%X", got)
	}
	if got := encodeIMSI("001011"); !bytes.Equal(got, unhex(t, "04011010F1FFFFFFFF")) {
		t.Errorf("%X", got)
	}
}

// dpProprietaryData comes with ConfigureISDP, and is told when it is asked for.
func TestProprietaryDataOfConfigureISDP(t *testing.T) {
	d := newDownload(t, Config{})
	proprietary := unhex(t, "B80880028837810241 42")
	d.configure = ber.Encode(0xBF24, proprietary)
	d.install(t)
	wantES10(t, d.card, "BF2D045C025AB8", bytesToHex(ber.Encode(0xBF2D, ber.Encode(0xA0, ber.Encode(0xE3, d.iccid.ProfileTLV(), proprietary)))))
	wantES10(t, d.card, "BF2D035C015A", bytesToHex(ber.Encode(0xBF2D, ber.Encode(0xA0, ber.Encode(0xE3, d.iccid.ProfileTLV())))))
}

func TestProfileInfoOfADownload(t *testing.T) {
	d := newDownload(t, Config{})
	proprietary := unhex(t, "B80880028837810241 42")
	d.metadata = ber.Encode(0xBF25, d.iccid.ProfileTLV(), unhex(t, "9101419201429301019402 8950"), unhex(t, "B6 0A 3008 80020780 81026E31"),
		unhex(t, "B70D 800300F110 8102FFFF 820201 02"), proprietary, unhex(t, "BF2200 BF23028000 BF7600 990100"))
	d.install(t)
	wantES10(t, d.card, "BF2D105C0E5A9192939495B6B7B899BF76BF22",
		bytesToHex(ber.Encode(0xBF2D, ber.Encode(0xA0, ber.Encode(0xE3, d.iccid.ProfileTLV(), unhex(t, "9101419201429301019402 8950 950102"),
			unhex(t, "B60A300880020780 81026E31"), unhex(t, "B70D800300F1108102FFFF82020102"), proprietary, unhex(t, "990100 BF7600 BF2200"))))))
}
