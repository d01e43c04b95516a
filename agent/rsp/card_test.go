package rsp

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"testing"

	"lpad/apdu/ber"
	"lpad/internal/fault"
)

// What cards really said; see docs/protocol.
const (
	realInfo1 = "BF20618203020202A92C04140B1359633D2AB469761CA9D82B2229350DB722D7041481370F5125D0B1D408D4C3B232E6D25E795BEBFBAA2C04140B1359633D2AB469761CA9D82B2229350DB722D7041481370F5125D0B1D408D4C3B232E6D25E795BEBFB"
	realInfo2 = "BF2281F8810302010082030202008303040400840F81010082040007EA328304000016E08504067F36C08603090200870302030088020490A92C0414C0BC70BA36929D43B467FF57570530E57AB8FCD80414F54172BDF98A95D65CBEB88A38A1C11D800A85C3AA2C0414C0BC70BA36929D43B467FF57570530E57AB8FCD80414F54172BDF98A95D65CBEB88A38A1C11D800A85C39902078004030000010C1347264441636372656469746174696F6E4E6272AC48801F312E322E3834302E313233343536372F6D79506C6174666F726D4C6162656C812568747470733A2F2F6D79636F6D70616E792E636F6D2F6D79444C4F41526567697374726172"
	profile   = "E3395A0A980010325476981032144F10A0000005591010FFFFFFFF89000011009F7001019004576F726B910253509204506C616E95010299020520"
	metadata  = "BF254A5A0A98001032547698103214910253509204506C616E930101940489504E47950102B6153013800204F0810D6E2E6578616D706C652E636F6DB70B800300F1108101018201FF99020520"
	pirGood   = "BF37819EBF275880100102030405060708090A0B0C0D0E0F10BF2F25800101810200800C10736D64702E6578616D706C652E636F6D5A0A9800103254769810321406028837A218A0164F10A0000005591010FFFFFFFF8900001100040230005F3740DE267B67FD171D43B84A0280C67AB2CF692D9B42925A1000FB74D10C6C85F9852ED6451D561F2435ED7E49280FDFDB8AD940E5C57981B0C24288774466406599"
	rat       = "BF4319A017301580020560A10B30098003EEEEEE8100820082020780"
	addresses = "BF3C238010736D64702E6578616D706C652E636F6D810F6C70612E64732E67736D612E636F6D"
)

func TestConfiguredAddresses(t *testing.T) {
	a, err := ParseConfiguredAddresses(unhex(t, addresses))
	if err != nil || a != (ConfiguredAddresses{"smdp.example.com", "lpa.ds.gsma.com"}) {
		t.Errorf("got %+v, %v", a, err)
	}
	if a, err := ParseConfiguredAddresses(unhex(t, "BF3C00")); err != nil || a != (ConfiguredAddresses{}) {
		t.Errorf("empty: %+v, %v", a, err)
	}
	long := ber.Encode(0xBF3C, ber.EncodeString(0x80, strings.Repeat("a", 300)))
	for _, bad := range [][]byte{nil, unhex(t, "BF3B00"), unhex(t, "BF3C028010"), long} {
		if _, err := ParseConfiguredAddresses(bad); err == nil {
			t.Errorf("%X passes", bad)
		}
	}
}

func TestEUICCInfo1(t *testing.T) {
	i, err := ParseEUICCInfo1(unhex(t, realInfo1))
	if err != nil {
		t.Fatal(err)
	}
	ci := unhex(t, "81370F5125D0B1D408D4C3B232E6D25E795BEBFB")
	if i.SVN != (Version{2, 2, 2}) || len(i.Verification) != 2 || !i.Signs(ci) || i.Signs(ci[1:]) || !bytes.Equal(i.Raw, unhex(t, realInfo1)) {
		t.Errorf("got %+v", i)
	}
	v3, err := ParseEUICCInfo1(unhex(t, "BF20 0E 8203020300 9303030100 A900 AA00"))
	if err != nil || v3.HighestSVN != (Version{3, 1, 0}) {
		t.Errorf("v3: %+v, %v", v3, err)
	}
	for _, bad := range []string{"", "BF2200", "BF2000", "BF20028200", "BF2002A95A", "BF2004A9025A00"} {
		if _, err := ParseEUICCInfo1(unhex(t, bad)); err == nil {
			t.Errorf("%s passes", bad)
		}
	}
	many := ber.Encode(0xBF20, unhex(t, "8203020202"), ber.Encode(0xA9, bytes.Repeat(unhex(t, "0400"), maxCIs+1)))
	if _, err := ParseEUICCInfo1(many); err == nil {
		t.Error("a list without end passes")
	}
}

func TestEUICCInfo2(t *testing.T) {
	i, err := ParseEUICCInfo2(unhex(t, realInfo2))
	if err != nil {
		t.Fatal(err)
	}
	want := CardResources{Applications: 0, FreeNVM: 518706, FreeRAM: 0x16E0}
	if i.Resources != want {
		t.Errorf("resources %+v, want %+v", i.Resources, want)
	}
	if i.ProfileVersion != (Version{2, 1, 0}) || i.SVN != (Version{2, 2, 0}) || i.Firmware != (Version{4, 4, 0}) || i.JavaCardVersion != (Version{9, 2, 0}) || i.GlobalPlatformVersion != (Version{2, 3, 0}) {
		t.Errorf("versions of %+v", i)
	}
	if i.RSPCapability != CapAdditionalProfile|CapTestProfile {
		t.Errorf("rspCapability %b", i.RSPCapability)
	}
	var uicc uint64
	for _, n := range []int{1, 2, 3, 4, 5, 6, 7, 10, 11, 13, 14, 16, 17} {
		uicc |= 1 << n
	}
	if i.UICCCapability != uicc || i.Category != -1 || i.ForbiddenPPR != PPRUpdateControl {
		t.Errorf("capability %b, category %d, forbidden %v", i.UICCCapability, i.Category, i.ForbiddenPPR)
	}
	if i.ProtectionProfile != (Version{0, 0, 1}) || i.SASAccreditation != "G&DAccreditationNbr" || i.PlatformLabel != "1.2.840.1234567/myPlatformLabel" || !strings.HasPrefix(i.DiscoveryBaseURL, "https://") {
		t.Errorf("certification of %+v", i)
	}
	newer, err := ParseEUICCInfo2(unhex(t, "BF22 2A 8203020500 8B0102 8D0206C0 8E03 545245 AF0A 0403020301 0403030301 9F5501AA 84 06 8208FFFFFFFFFFFF"))
	if err == nil {
		t.Errorf("a length that does not fit passes: %+v", newer)
	}
	newer, err = ParseEUICCInfo2(ber.Encode(0xBF22, unhex(t, "8203020500 8B0102 8D0206C0 8E03545245 AF0A04030203010403030301 9F5501AA 840B 8209010203040506070809")))
	if err != nil || newer.Category != 2 || newer.TREProperties != 3 || newer.TREProduct != "TRE" || len(newer.AdditionalVersions) != 2 || newer.Resources != (CardResources{}) {
		t.Errorf("v2.5: %+v, %v", newer, err)
	}
	for _, bad := range []string{"", "BF2000", "BF2200", "BF22038101FF", "BF22028800", "BF22049902FF00", "BF2204AF020401", "BF2204AF025A00", "BF22028B00"} {
		if _, err := ParseEUICCInfo2(unhex(t, bad)); err == nil {
			t.Errorf("%s passes", bad)
		}
	}
}

func TestProfile(t *testing.T) {
	p, err := ParseProfile(unhex(t, profile))
	if err != nil {
		t.Fatal(err)
	}
	if p.ICCID.String() != "89000123456789012341" || p.State != Enabled || p.Nickname != "Work" || p.ServiceProvider != "SP" || p.Name != "Plan" || p.Class != ClassOperational || p.PPR != PPR2 || p.AID.String() != "A0000005591010FFFFFFFF8900001100" {
		t.Errorf("got %+v", p)
	}
	hostile := ber.Encode(0xE3, unhex(t, "5A0A98001032547698103214 90 03 FF0A41 92 04 E280AE42 B8 05 8003 88370A BF7600 9F1F0101"))
	p, err = ParseProfile(hostile)
	if err != nil || p.Nickname != "\uFFFD A" || p.Name != "B" || !bytes.Equal(p.Raw, hostile) || fmt.Sprintf("%X", p.Proprietary) != "B805800388370A" {
		t.Errorf("hostile text: %+v, %v", p, err)
	}
	for _, bad := range []string{"", "BF2500", "E300", "E3045A029800", "E3045A0A98", "E30D5A0A980010325476981032149F", "E3109F7002FFFF5A0A98001032547698103214"} {
		if _, err := ParseProfile(unhex(t, bad)); err == nil {
			t.Errorf("%s passes", bad)
		}
	}
	long := ber.Encode(0xE3, unhex(t, "5A0A98001032547698103214"), ber.Encode(0x90, make([]byte, maxText+1)))
	if _, err := ParseProfile(long); err == nil {
		t.Error("a text without end passes")
	}
}

func TestMetadata(t *testing.T) {
	m, err := ParseMetadata(unhex(t, metadata))
	if err != nil {
		t.Fatal(err)
	}
	if m.ServiceProvider != "SP" || m.Name != "Plan" || m.IconType != IconPNG || string(m.Icon) != "\x89PNG" || m.Class != ClassOperational || m.PPR != PPR2 {
		t.Errorf("got %+v", m)
	}
	if len(m.Notifications) != 1 || m.Notifications[0] != (NotificationConfiguration{AllEvents, "n.example.com"}) {
		t.Errorf("notifications %+v", m.Notifications)
	}
	if m.Owner == nil || m.Owner.PLMN() != "00101" || !bytes.Equal(m.Owner.GID2, []byte{0xFF}) {
		t.Errorf("owner %+v", m.Owner)
	}
	if o := (Operator{MCCMNC: [3]byte{0x54, 0xF4, 0x21}}); o.PLMN() != "45412" {
		t.Errorf("PLMN %s", o.PLMN())
	}
	for name, bad := range map[string]string{
		"nothing":           "",
		"other tag":         "E300",
		"no ICCID":          "BF25 04 9102 5350",
		"no names":          "BF25 0C 5A0A98001032547698103214",
		"owner":             "BF25 14 5A0A98001032547698103214 9100 B704 8002 0102",
		"notifications":     "BF25 14 5A0A98001032547698103214 9100 B604 3002 8000",
		"notification bits": "BF25 17 5A0A98001032547698103214 9100 B607 3005 8000 810141",
	} {
		if _, err := ParseMetadata(unhex(t, bad)); err == nil {
			t.Errorf("%s: passes", name)
		}
	}
	entry := unhex(t, "3007 80020780 810141")
	many := ber.Encode(0xBF25, unhex(t, "5A0A98001032547698103214"), ber.Encode(0xB6, bytes.Repeat(entry, maxNotifications+1)))
	if _, err := ParseMetadata(many); err == nil {
		t.Error("a list without end passes")
	}
}

func TestNotification(t *testing.T) {
	n, err := ParseNotification(unhex(t, "BF2F2380020080810206400C0D6E2E6578616D706C652E636F6D5A0A98001032547698103214"))
	if err != nil || n.SeqNumber != 128 || n.Event != EventEnable || n.Address != "n.example.com" || !n.HasICCID {
		t.Errorf("got %+v, %v", n, err)
	}
	for wire, want := range map[string]Event{"0780": EventInstall, "0480": EventInstall, "0080": EventInstall, "0640": EventEnable, "0520": EventDisable, "0410": EventDelete, "04F0": AllEvents} {
		n, err := ParseNotification(unhex(t, "BF2F0A 800100 8102", wire, "0C0141"))
		if err != nil || n.Event != want || n.HasICCID || n.SeqNumber != 0 {
			t.Errorf("bits %s: %v, %v, want %v", wire, n.Event, err, want)
		}
	}
	if got := (Notification{Address: "Rsp .Example.COM"}).Receiver(); got != "rsp.example.com" {
		t.Errorf("receiver %q", got)
	}
	for _, bad := range []string{"", "BF2E00", "BF2F00", "BF2F0A 8001FF 81020780 0C0141", "BF2F0C 800100 81020780 0C0141 5A00", "BF2F09 8000 81020780 0C0141", "BF2F08 800100 8100 0C0141"} {
		if _, err := ParseNotification(unhex(t, bad)); err == nil {
			t.Errorf("%s passes", bad)
		}
	}
	if EventInstall.Bits().Has(1) || !AllEvents.Bits().Has(3) {
		t.Error("bits of events")
	}
}

func TestPendingNotification(t *testing.T) {
	p, err := ParsePendingNotification(unhex(t, pirGood))
	if err != nil || p.Result == nil || p.SeqNumber != 1 || !bytes.Equal(p.Raw, unhex(t, pirGood)) {
		t.Errorf("result: %+v, %v", p, err)
	}
	other := ber.Encode(0x30, unhex(t, "BF2F0A 800105 81020640 0C0141"), unhex(t, "5F3700 3000 3000"))
	p, err = ParsePendingNotification(other)
	if err != nil || p.Result != nil || p.SeqNumber != 5 || p.Event != EventEnable || !bytes.Equal(p.Raw, other) {
		t.Errorf("other: %+v, %v", p, err)
	}
	for _, bad := range []string{"", "3000", "BF3700", "3106BF2F00", "3007 BF2F00 5F3700", "BF2F00"} {
		if _, err := ParsePendingNotification(unhex(t, bad)); err == nil {
			t.Errorf("%s passes", bad)
		}
	}
}

func TestProfileInstallationResult(t *testing.T) {
	r, err := ParseProfileInstallationResult(unhex(t, pirGood))
	if err != nil {
		t.Fatal(err)
	}
	if r.Err() != nil || r.TransactionID.String() != "0102030405060708090A0B0C0D0E0F10" || r.SMDPOID != "2.999" || r.AID.String() != "A0000005591010FFFFFFFF8900001100" || r.Notification.ICCID.String() != "89000123456789012341" {
		t.Errorf("got %+v", r)
	}
	final := func(result string) ProfileInstallationResult {
		t.Helper()
		b := ber.Encode(0xBF37, ber.Encode(0xBF27, unhex(t, "800101 BF2F0A 800105 81020780 0C0141 0602 8837"), unhex(t, result)), unhex(t, "5F3700"))
		r, err := ParseProfileInstallationResult(b)
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	real := final("A21FA01D4F10A0000005591010FFFFFFFF890000110004093007A0053003800100")
	if len(real.SIMA.Elements) != 1 || real.SIMA.Elements[0].Status != 0 || real.SIMA.Aborted {
		t.Errorf("response of a real card: %+v", real.SIMA)
	}
	exists := final("A208A106800102810109")
	var failure *InstallationError
	if !errors.As(exists.Err(), &failure) || failure.Command != 2 || failure.Reason != ReasonICCIDAlreadyExists || fault.Of(failure).Code != "profile-already-installed" {
		t.Errorf("exists: %v", exists.Err())
	}
	pe := final("A218A116 800105 81010C 820E 300CA00830068001098101058100")
	if got := pe.Err().Error(); got != "card: loadProfileElements failed: installFailedDueToPEProcessingError (12): template-not-supported in element 5" {
		t.Errorf("error text %q", got)
	}
	if f := fault.Of(pe.Err()); f.Who != fault.CardVendor || !strings.Contains(f.Text, "template-not-supported") || !pe.SIMA.Aborted {
		t.Errorf("fault %+v of %+v", f, pe.SIMA)
	}
	odd := final("A218A116 800105 81014D 820E 3101AA 3008 A004 3002 8063 8201 41") // broken inside: kept raw
	if f := fault.Of(odd.Err()); f.Code != "card-undefined-error" || !strings.Contains(f.Text, "77") {
		t.Errorf("unknown reason: %+v", f)
	}
	for name, bad := range map[string]string{
		"nothing":         "",
		"other tag":       "BF3600",
		"empty":           "BF3700",
		"no final result": "BF3716 BF2713 800101 BF2F0A 800105 81020780 0C0141 06018",
		"transactionId":   "BF371A BF2717 8000 BF2F0A 800105 81020780 0C0141 060188 A203 A10180",
	} {
		b, err := hex.DecodeString(strings.ReplaceAll(bad, " ", ""))
		if err != nil {
			continue
		}
		if _, err := ParseProfileInstallationResult(b); err == nil {
			t.Errorf("%s: passes", name)
		}
	}
	for _, result := range []string{"", "A200", "A202A000", "A202A200", "A202A100", "A205A103800101", "A207A105800081010", "A208A106800101810200", "A207A1058001018100", "A206A104800081 0101"} {
		in, err := hex.DecodeString(strings.ReplaceAll(result, " ", ""))
		if err != nil {
			continue
		}
		b := ber.Encode(0xBF37, ber.Encode(0xBF27, unhex(t, "800101 BF2F0A 800105 81020780 0C0141 0602 8837"), in), unhex(t, "5F3700"))
		if r, err := ParseProfileInstallationResult(b); err == nil && r.Failure == nil {
			t.Errorf("final result %s passes: %+v", result, r)
		}
	}
	for _, head := range []string{"8000 BF2F0A 800105 81020780 0C0141 060188", "800101 BF2F00 060101", "800101 BF2F0A 800105 81020780 0C0141 060188"} {
		b := ber.Encode(0xBF37, ber.Encode(0xBF27, unhex(t, head), unhex(t, "A208A106800102810109")))
		if _, err := ParseProfileInstallationResult(b); err == nil {
			t.Errorf("head %s passes", head)
		}
	}
}

func TestPEStatus(t *testing.T) {
	if got := (PEStatus{Status: 99, ID: -1}).String(); got != "status 99" {
		t.Errorf("got %q", got)
	}
	s := parseSIMA(unhexString("3007A0053003800101" + "3008 8206 E280AE 414243"))
	if pe, ok := s.Failed(); !ok || pe.Status != 1 || s.Message != "ABC" {
		t.Errorf("got %+v", s)
	}
}

func TestSignedValues(t *testing.T) {
	a := ServerAuthentication{ServerSigned1: unhex(t, "304880100102030405060708090A0B0C0D0E0F108110AABBCCDDEEFF001122334455667788998310736D64702E6578616D706C652E636F6D8410F0E1D2C3B4A5968778695A4B3C2D1E0F"), CIPKID: unhex(t, "04020102")}
	s1, err := a.Signed1()
	if err != nil || s1.TransactionID.String() != "0102030405060708090A0B0C0D0E0F10" || len(s1.Challenge) != 16 || s1.Address != "smdp.example.com" {
		t.Errorf("serverSigned1 %+v, %v", s1, err)
	}
	if ci, err := a.CI(); err != nil || !bytes.Equal(ci, []byte{1, 2}) {
		t.Errorf("CI %X, %v", ci, err)
	}
	for _, bad := range []string{"", "3000", "3006 800101 810102", "3003 800101"} {
		if s1, err := (ServerAuthentication{ServerSigned1: unhex(t, bad)}).Signed1(); err == nil {
			t.Errorf("serverSigned1 %s passes: %+v", bad, s1)
		}
	}
	if _, err := (ServerAuthentication{}).CI(); err == nil {
		t.Error("no CI passes")
	}
	for wire, required := range map[string]bool{"3007800201020101FF": true, "30078002010201 0101": true, "300780020102010100": false, "300B 80020102 010100 5F49 0104": false} {
		s2, err := DownloadOffer{SMDPSigned2: unhex(t, wire)}.Signed2()
		if err != nil || s2.ConfirmationCodeRequired != required || s2.TransactionID.String() != "0102" {
			t.Errorf("smdpSigned2 %s: %+v, %v", wire, s2, err)
		}
	}
	for _, bad := range []string{"", "3000", "3003 800101", "3005 800101 0100", "3006 810101 0101FF"} {
		if s2, err := (DownloadOffer{SMDPSigned2: unhex(t, bad)}).Signed2(); err == nil {
			t.Errorf("smdpSigned2 %s passes: %+v", bad, s2)
		}
	}
}

func unhexString(s string) []byte {
	b, err := hex.DecodeString(strings.ReplaceAll(s, " ", ""))
	if err != nil {
		panic(err)
	}
	return b
}

func TestResultsExplainThemselves(t *testing.T) {
	type result interface {
		fault.Explainer
		Name() string
	}
	var all []result
	for n := range 40 {
		n := n
		if n == 39 {
			n = 127
		}
		all = append(all, EnableResult(n), DisableResult(n), DeleteResult(n), MemoryResetResult(n), NicknameResult(n), AuthenticateResult(n), DownloadResult(n), CancelResult(n), CRLResult(n), GeneralResult(n))
	}
	for _, r := range all {
		f := r.Fault()
		if f.Code == "" || f.Text == "" || f.Who == "" || f.Next == "" || f.Code == fault.Internal || r.Name() == "" || r.Error() != r.Name() {
			t.Errorf("%T(%d) %s: %+v", r, r, r.Name(), f)
		}
	}
	for _, tc := range []struct {
		got, want string
	}{
		{EnableCATBusy.Name(), "catBusy"}, {EnableResult(77).Name(), "unknown(77)"}, {DeleteDisallowed.Name(), "disallowedByPolicy"},
		{AuthenticateCIUnknown.Name(), "ciPKUnknown"}, {DownloadInvalidTransaction.Name(), "invalidTransactionId"},
		{fault.Of(fmt.Errorf("x: %w", EnableNotDisabled)).Code, "profile-already-enabled"},
	} {
		if tc.got != tc.want {
			t.Errorf("got %s, want %s", tc.got, tc.want)
		}
	}
	for _, c := range errorReasons {
		e := &InstallationError{Reason: ErrorReason(c.n)}
		if f := e.Fault(); f.Code == "" || f.Text == "" || f.Who == "" || f.Next == "" || e.Error() == "" {
			t.Errorf("%v: %+v", e, f)
		}
	}
}

func TestRATParse(t *testing.T) {
	table, err := ParseRAT(unhex(t, rat))
	if err != nil || len(table.Rules) != 1 {
		t.Fatalf("got %+v, %v", table, err)
	}
	r := table.Rules[0]
	if r.PPR != PPR1|PPR2 || !r.ConsentRequired || len(r.Operators) != 1 || r.Operators[0].PLMN() != "EEEEEE" {
		t.Errorf("rule %+v", r)
	}
	if empty, err := ParseRAT(unhex(t, "BF4302A000")); err != nil || len(empty.Rules) != 0 {
		t.Errorf("empty table: %+v, %v", empty, err)
	}
	for _, bad := range []string{"", "BF4200", "BF4300", "BF4304A0023000", "BF4304A0025A00", "BF430DA00B3009 80020560 A1033001 80", "BF430BA0093007 80020560 A1015A", "BF430DA00B 3009 8000 A100 82020780 00", "BF4311A00F300D80020560 A10730058003EEEE"} {
		b, err := hex.DecodeString(strings.ReplaceAll(bad, " ", ""))
		if err != nil {
			t.Fatal(bad)
		}
		if _, err := ParseRAT(b); err == nil {
			t.Errorf("%s passes", bad)
		}
	}
	rule := unhex(t, "3006 80020560 A100")
	if _, err := ParseRAT(ber.Encode(0xBF43, ber.Encode(0xA0, bytes.Repeat(rule, maxRATRules+1)))); err == nil {
		t.Error("a table without end passes")
	}
}

func TestRATDecide(t *testing.T) {
	op := func(plmn string, gids ...string) *Operator {
		o := &Operator{}
		copy(o.MCCMNC[:], unhex(t, plmn))
		if len(gids) > 0 {
			o.GID1 = unhex(t, gids[0])
		}
		if len(gids) > 1 {
			o.GID2 = unhex(t, gids[1])
		}
		return o
	}
	rule := func(p PPR, consent bool, ops ...*Operator) RATRule {
		r := RATRule{PPR: p, ConsentRequired: consent}
		for _, o := range ops {
			r.Operators = append(r.Operators, *o)
		}
		return r
	}
	anyone := op("EEEEEE")
	operational := []Profile{{Class: ClassOperational}}
	for _, tc := range []struct {
		name    string
		rules   []RATRule
		q       PPRRequest
		refused PPR
		consent PPR
	}{
		{"no rules in the profile", nil, PPRRequest{PPR: PPRUpdateControl}, 0, 0},
		{"empty table", nil, PPRRequest{PPR: PPR1 | PPR2, Owner: op("00F110")}, PPR1 | PPR2, 0},
		{"anyone", []RATRule{rule(PPR1|PPR2, false, anyone)}, PPRRequest{PPR: PPR1 | PPR2, Owner: op("00F110")}, 0, 0},
		{"anyone with consent", []RATRule{rule(PPR1|PPR2, true, anyone)}, PPRRequest{PPR: PPR2, Owner: op("00F110")}, 0, PPR2},
		{"no owner", []RATRule{rule(PPR1|PPR2, false, anyone)}, PPRRequest{PPR: PPR2}, PPR2, 0},
		{"forbidden by the card", []RATRule{rule(PPR2, false, anyone)}, PPRRequest{PPR: PPR2, Owner: op("00F110"), Forbidden: PPR2}, PPR2, 0},
		{"PPR1 beside an operational profile", []RATRule{rule(PPR1|PPR2, false, anyone)}, PPRRequest{PPR: PPR1 | PPR2, Owner: op("00F110"), Installed: operational}, PPR1, 0},
		{"PPR1 beside a test profile", []RATRule{rule(PPR1, false, anyone)}, PPRRequest{PPR: PPR1, Owner: op("00F110"), Installed: []Profile{{Class: ClassTest}}}, 0, 0},
		{"first match decides", []RATRule{rule(PPR2, true, op("00F110")), rule(PPR2, false, anyone)}, PPRRequest{PPR: PPR2, Owner: op("00F110")}, 0, PPR2},
		{"first match of another rule", []RATRule{rule(PPR1, true, anyone), rule(PPR2, false, anyone)}, PPRRequest{PPR: PPR2, Owner: op("00F110")}, 0, 0},
		{"other operator", []RATRule{rule(PPR2, false, op("54F421"))}, PPRRequest{PPR: PPR2, Owner: op("00F110")}, PPR2, 0},
		{"wildcard nibbles do not fit", []RATRule{rule(PPR2, false, op("00F2EE"))}, PPRRequest{PPR: PPR2, Owner: op("00F110")}, PPR2, 0},
		{"wildcard nibbles fit", []RATRule{rule(PPR2, false, op("00E1EE"))}, PPRRequest{PPR: PPR2, Owner: op("00F110")}, 0, 0},
		{"two-digit MNC is not three-digit", []RATRule{rule(PPR2, false, op("00F110"))}, PPRRequest{PPR: PPR2, Owner: op("000110")}, PPR2, 0},
		{"GID1 must fit", []RATRule{rule(PPR2, false, op("EEEEEE", "01"))}, PPRRequest{PPR: PPR2, Owner: op("00F110", "02")}, PPR2, 0},
		{"GID1 missing", []RATRule{rule(PPR2, false, op("EEEEEE", "01"))}, PPRRequest{PPR: PPR2, Owner: op("00F110")}, PPR2, 0},
		{"GID1 fits", []RATRule{rule(PPR2, false, op("EEEEEE", "01"))}, PPRRequest{PPR: PPR2, Owner: op("00F110", "01", "77")}, 0, 0},
		{"empty GID is any", []RATRule{rule(PPR2, false, op("EEEEEE", "", ""))}, PPRRequest{PPR: PPR2, Owner: op("00F110", "01", "02")}, 0, 0},
		{"GID2 must fit", []RATRule{rule(PPR2, false, op("EEEEEE", "", "05"))}, PPRRequest{PPR: PPR2, Owner: op("00F110", "01", "02")}, PPR2, 0},
		{"second operator of a rule", []RATRule{rule(PPR2, false, op("54F421"), op("00F110"))}, PPRRequest{PPR: PPR2, Owner: op("00F110")}, 0, 0},
	} {
		t.Run(tc.name, func(t *testing.T) {
			d := RAT{Rules: tc.rules}.Decide(tc.q)
			if d.Refused != tc.refused || d.Consent != tc.consent || (d.Reason != "") != (tc.refused != 0) {
				t.Errorf("got %+v, want refused %v, consent %v", d, tc.refused, tc.consent)
			}
		})
	}
}

func TestDeviceInfo(t *testing.T) {
	lte := DeviceCapabilities{GSM: Version{5}, EUTRAN: Version{15}, NR5GC: Version{15}}
	for _, tc := range []struct {
		name     string
		d        DeviceInfo
		matching string
		card     RSPCapability
		want     string
	}{
		{"all", DeviceInfo{IMEI: "123456789012347", Capabilities: lte}, "AB-1", CapDeviceInfo,
			"A029 8004 41422D31 A121 8004 21436587 A10F 8003050000 85030F0000 89030F0000 8208 214365870921437F"},
		{"older card", DeviceInfo{IMEI: "123456789012347", Capabilities: lte}, "AB-1", 0,
			"A024 8004 41422D31 A11C 8004 21436587 A10A 8003050000 85030F0000 8208 214365870921437F"},
		{"minimum", DeviceInfo{}, "", 0, "A00C 8000 A108 8004 35290611 A100"},
		{"TAC only", DeviceInfo{TAC: "12345678"}, "", 0, "A00C 8000 A108 8004 21436587 A100"},
		{"14 digits get a check digit", DeviceInfo{IMEI: "49015420323751"}, "", 0, "A016 8000 A112 8004 94104502 A100 8208 941045022373158F"},
		{"IMEISV loses its version", DeviceInfo{IMEI: "49-015420-323751-99"}, "", 0, "A016 8000 A112 8004 94104502 A100 8208 941045022373158F"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got, err := tc.d.ContextParams(tc.matching, tc.card)
			if err != nil || !bytes.Equal(got, unhex(t, tc.want)) {
				t.Errorf("got %X, %v\nwant %X", got, err, unhex(t, tc.want))
			}
		})
	}
	for name, d := range map[string]DeviceInfo{
		"IMEI too short":  {IMEI: "1234"},
		"IMEI letters":    {IMEI: "12345678901234x"},
		"TAC letters":     {TAC: "1234567x"},
		"TAC too short":   {TAC: "1234"},
		"TAC of another":  {TAC: "87654321", IMEI: "123456789012347"},
		"IMEI 17 digits ": {IMEI: "12345678901234567"},
	} {
		if err := d.Validate(); err == nil {
			t.Errorf("%s passes", name)
		}
		if _, err := d.ContextParams("", 0); err == nil {
			t.Errorf("%s is sent", name)
		}
	}
	if got := (DeviceInfo{TAC: "12345678", IMEI: "123456789012347"}).LogValue().String(); strings.Contains(got, "123456789012347") {
		t.Errorf("the log shows %s", got)
	}
}

// FuzzCardValues feeds bytes of a card to every parser of this package.
func FuzzCardValues(f *testing.F) {
	seeds := []string{realInfo1, realInfo2, profile, metadata, pirGood, rat, addresses}
	if len(seeds) != 7 {
		f.Fatal("seeds are missing")
	}
	for _, s := range seeds {
		f.Add(unhexString(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		if r, err := ParseProfileInstallationResult(b); err == nil {
			_, _ = fmt.Sprint(r.Err()), fault.Of(r.Err())
			if !bytes.Equal(r.Raw, b) {
				t.Fatal("the raw result differs")
			}
		}
		if m, err := ParseMetadata(b); err == nil {
			if !bytes.Equal(m.Raw, b) || DisplayText(m.Name) != m.Name {
				t.Fatal("metadata differ, or are not fit for display")
			}
		}
		if p, err := ParseProfile(b); err == nil && (p.ICCID.IsZero() || DisplayText(p.Nickname) != p.Nickname) {
			t.Fatalf("profile %+v", p)
		}
		if n, err := ParsePendingNotification(b); err == nil && n.SeqNumber < 0 {
			t.Fatal("a number below zero")
		}
		if table, err := ParseRAT(b); err == nil {
			table.Decide(PPRRequest{PPR: PPR1 | PPR2, Owner: &Operator{}})
		}
		ParseNotification(b)
		ParseEUICCInfo1(b)
		ParseEUICCInfo2(b)
		ParseConfiguredAddresses(b)
	})
}

// FuzzCertificate feeds bytes of a server to the certificate reader.
func FuzzCertificate(f *testing.F) {
	f.Add(testCertificate())
	f.Fuzz(func(_ *testing.T, b []byte) {
		CertificateOID(b)
	})
}

// testCertificate has the outline of a certificate, and the three extensions:
// subject key identifier 0102, authority key identifier 0304, registeredID
// 2.999.10 after a DNS name.
func testCertificate() []byte {
	extension := func(oid string, rest ...[]byte) []byte {
		return ber.Encode(0x30, append([][]byte{unhexString("0603551D" + oid)}, rest...)...)
	}
	list := ber.Encode(0x30,
		extension("0E", ber.Encode(0x04, unhexString("04020102"))),
		extension("23", ber.Encode(0x04, unhexString("300480020304"))),
		extension("11", unhexString("0101FF"), ber.Encode(0x04, unhexString("3009 82026162 880388370A"))))
	return ber.Encode(0x30, ber.Encode(0x30, unhexString("A003020102 020101 3000"), ber.Encode(0xA3, list)))
}

func TestCertificate(t *testing.T) {
	der := testCertificate()
	if oid, err := CertificateOID(der); err != nil || oid != "2.999.10" {
		t.Errorf("OID %s, %v", oid, err)
	}
	for name, bad := range map[string]string{
		"nothing":           "",
		"other tag":         "3100",
		"no body":           "3000",
		"no extensions":     "3002 3000",
		"no such extension": "3006 3004 A302 3000",
		"broken extension":  "300A 3008 A306 3004 3002 0600",
		"broken list":       "3006 3004 A302 3001",
	} {
		if _, err := CertificateOID(unhex(t, bad)); err == nil {
			t.Errorf("%s: passes", name)
		}
	}
	other := ber.Encode(0x30, ber.Encode(0x30, ber.Encode(0xA3, ber.Encode(0x30, ber.Encode(0x30, unhex(t, "0603551D11"), ber.Encode(0x04, unhex(t, "3002 8200")))))))
	if _, err := CertificateOID(other); err == nil {
		t.Error("no registeredID among the names: passes")
	}
}
