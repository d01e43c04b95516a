package params_test

import (
	"bytes"
	"encoding/hex"
	"errors"
	"math/rand/v2"
	"net/netip"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"lpad/agent/params"
	"lpad/internal/fault"
	"lpad/internal/redact"
)

// The samples of the protocol's brief.
const (
	sampleE1 = "E166" + "C003100007" + "E213C10B696F742E6578616D706C65C20103C30131" +
		"E231C115666C6565742E707269766174652E6578616D706C65C20110C3011FC40101C503646576C606733363726574C7020594" +
		"C9011CCA03080084CB020435CC022105CD0791947101670000"
	sampleB8  = "B874060A2B06010401868D1F0101" + sampleE1
	smallE1   = "E11AC003100001E213C10B696F742E6578616D706C65C20103C30131"
	sampleOID = "1.3.6.1.4.1.99999.1.1"
)

var documents = []cmp.Option{secrets, cmp.Comparer(func(a, b netip.Addr) bool { return a == b }), cmp.Comparer(func(a, b netip.Prefix) bool { return a == b }), cmpopts.EquateEmpty()}

func unhex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(strings.ReplaceAll(s, " ", ""))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// e1 wraps contents behind a good C0.
func e1(t testing.TB, contents string) []byte {
	t.Helper()
	b := append([]byte{0xC0, 3, 0x10, 0, 1}, unhex(t, contents)...)
	return append([]byte{0xE1, byte(len(b))}, b...)
}

func TestSamples(t *testing.T) {
	window := 3
	for name, tc := range map[string]struct {
		hex  string
		want *params.Document
	}{
		"full": {sampleE1, &params.Document{
			Generation: 7,
			APNs: has([]params.APN{
				{Name: "iot.example", Purposes: []params.Purpose{"default", "ia"}, PDNType: "v4v6", PDNTypeRoaming: "v4", Auth: "none"},
				{Name: "fleet.private.example", Purposes: []params.Purpose{"dm"}, PDNType: "v4", Auth: "chap", User: "dev", Secret: redact.NewSecret("s3cret"), MTU: 1428},
			}),
			RATs: has([]string{"lte", "lte-m", "nb-iot"}), LTEBands: has([]int{3, 8, 20}),
			EDRXLTE: has(params.EDRX{Value: 5, PTW: &window}), PSM: has(params.PSM{TAUSeconds: 3600, ActiveSeconds: 10}), SMSC: has("+491710760000"),
		}},
		"small": {smallE1, &params.Document{
			Generation: 1,
			APNs:       has([]params.APN{{Name: "iot.example", Purposes: []params.Purpose{"default", "ia"}, PDNType: "v4v6", PDNTypeRoaming: "v4", Auth: "none"}}),
		}},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := params.ParseTLV(unhex(t, tc.hex))
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(tc.want, got, documents...); d != "" {
				t.Errorf("(-want +got):\n%s", d)
			}
			back, err := params.MarshalTLV(got)
			if err != nil || !bytes.Equal(back, unhex(t, tc.hex)) {
				t.Errorf("encoded again: %X, %v", back, err)
			}
			b8, err := params.ToMetadata(sampleOID, back)
			if err != nil {
				t.Fatal(err)
			}
			if name == "full" && !bytes.Equal(b8, unhex(t, sampleB8)) {
				t.Errorf("B8: %X", b8)
			}
			inside, ok, err := params.FromMetadata(b8, []string{"2.999", sampleOID})
			if err != nil || !ok || !bytes.Equal(inside, back) {
				t.Errorf("from B8: %X, %v, %v", inside, ok, err)
			}
			text, err := params.Marshal(got)
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(got, parse(t, string(text)), documents...); d != "" {
				t.Errorf("by way of JSON (-want +got):\n%s", d)
			}
		})
	}
}

func TestParseTLV(t *testing.T) {
	named := func(s string) string { return "C101 61" + s }
	apn := func(contents string) string {
		b := unhex(t, contents)
		return hex.EncodeToString(append([]byte{0xE2, byte(len(b))}, b...))
	}
	zero := 0
	for _, tc := range []struct {
		name, contents string
		want           params.Document
	}{
		{"nothing", "", params.Document{}},
		{"unknown primitive elements", "D000 D10101 0000" + apn(named("D902FFFF")), params.Document{
			APNs:    has([]params.APN{{Name: "a", Purposes: []params.Purpose{"default"}, Auth: "none"}}),
			Ignored: []string{"E1/D0", "E1/D1", "E1/00", "E1/E2/D9"}}},
		{"unknown element that repeats", "D000 D000", params.Document{Ignored: []string{"E1/D0", "E1/D0"}}},
		{"the network's default", apn("C100"), params.Document{APNs: has([]params.APN{{Purposes: []params.Purpose{"default"}, Auth: "none"}})}},
		{"all purposes", apn(named("C2017F")), params.Document{APNs: has([]params.APN{{Name: "a", Auth: "none",
			Purposes: []params.Purpose{"default", "ia", "ims", "mms", "dm", "supl", "bootstrap"}}})}},
		{"a purpose to come", apn(named("C20181")), params.Document{APNs: has([]params.APN{{Name: "a", Purposes: []params.Purpose{"default"}, Auth: "none"}})}},
		{"only a purpose to come", apn(named("C20180")), params.Document{Ignored: []string{"E1/E2/C2"}}},
		{"types", apn(named("C3012F")) + apn("C10162 C20102 C30102"), params.Document{APNs: has([]params.APN{
			{Name: "a", Purposes: []params.Purpose{"default"}, PDNType: "v6", Auth: "none"},
			{Name: "b", Purposes: []params.Purpose{"ia"}, PDNType: "non-ip", PDNTypeRoaming: "v6", Auth: "none"}})}},
		{"servers of names", apn(named("C80401020304 C81020010DB8000000000000000000000001")), params.Document{APNs: has([]params.APN{
			{Name: "a", Purposes: []params.Purpose{"default"}, Auth: "none", DNS: []netip.Addr{netip.MustParseAddr("1.2.3.4"), netip.MustParseAddr("2001:db8::1")}}})}},
		{"empty credentials", apn(named("C500C600")), params.Document{APNs: has([]params.APN{{Name: "a", Purposes: []params.Purpose{"default"}, Auth: "none"}})}},
		{"RATs to come", "C901C0", params.Document{Ignored: []string{"E1/C9"}}},
		{"all RATs", "C901FF", params.Document{RATs: has([]string{"gsm", "umts", "lte", "lte-m", "nb-iot", "nr"})}},
		{"the last band", "CA0C800000000000000000000000", params.Document{LTEBands: has([]int{96})}},
		{"NB-IoT", "CB020502", params.Document{EDRXNBIoT: has(params.EDRX{Value: 2, PTW: &zero})}},
		{"eDRX of GSM", "CB020202", params.Document{Ignored: []string{"E1/CB"}}},
		{"timers", "CC02DF4A", params.Document{PSM: has(params.PSM{TAUSeconds: 31 * 320 * 3600, ActiveSeconds: 3600})}},
		{"a reserved unit is minutes", "CC020161", params.Document{PSM: has(params.PSM{TAUSeconds: 600, ActiveSeconds: 60})}},
		{"timers off", "CC02E000", params.Document{PSM: params.Opt[params.PSM]{State: params.Null}}},
		{"active timer off", "CC0221E0", params.Document{PSM: params.Opt[params.PSM]{State: params.Null}}},
		{"odd number, national", "CD0381 21F3", params.Document{SMSC: has("123")}},
		{"servers", "CE0B612E6578616D706C652E61CF0B622E6578616D706C652E61", params.Document{ECS: has("a.example.a"), CMP: has("b.example.a")}},
		{"empty servers", "CE00CF00", params.Document{}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			tc.want.Generation = 1
			got, err := params.ParseTLV(e1(t, tc.contents))
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(&tc.want, got, documents...); d != "" {
				t.Errorf("(-want +got):\n%s", d)
			}
		})
	}
	got, err := params.ParseTLV(unhex(t, "E105C0031F0102"))
	if err != nil || got.Generation != 0x102 || got.DataRoaming != has(false) || got.HomeOnly != has(true) {
		t.Errorf("flags: %+v, %v", got, err)
	}
}

func TestTLVRefused(t *testing.T) {
	times := strings.Repeat
	for _, tc := range []struct{ name, whole, where, problem string }{
		{"nothing", "", "E1", "missing"},
		{"another object", "C000", "E1", "missing"},
		{"no contents", "E100", "E1/C0", "missing"},
		{"two of them", smallE1 + smallE1, "E1", "twice"},
		{"cut", smallE1[:40], "E1", "announced"},
		{"one byte", "E1", "E1", "breaks off"},
		{"long length", "E1811A" + smallE1[4:], "E1", "length"},
		{"indefinite length", "E180" + smallE1[4:] + "0000", "E1", "length"},
		{"109 bytes", "E16D C003100001 D066" + times("00", 102), "E1", "has 109 bytes, 0 to 108"},
		{"version 2", "E105C003200001", "E1/C0", "version 2"},
		{"version 0", "E105C003000001", "E1/C0", "version 0"},
		{"short version", "E104C0021000", "E1/C0", "has 2 bytes, 3 to 3"},
		{"version twice", "E10AC003100001C003100001", "E1/C0", "twice"},
		{"tag of two bytes", "E108C003100001DF0100", "E1/DF", "more than one byte"},
		{"unknown constructed element", "E107C003100001E300", "E1/E3", "not known"},
		{"inner length", "E107C003100001C901", "E1/C9", "announced"},
		{"inner long length", "E109C003100001C981011C", "E1/C9", "length"},
		{"five access points", "E11EC003100001" + times("E203C10161", 5), "E1/E2", "more than 4"},
		{"no name", "E10AC003100001E203C20101", "E1/E2", "no name"},
		{"name of 64", "E149C003100001E242C140" + times("61", 64), "E1/E2/C1", "64 bytes"},
		{"name", "E10AC003100001E203C10120", "E1/E2/C1", "not an APN"},
		{"name twice", "E10DC003100001E206C10161C10161", "E1/E2/C1", "twice"},
		{"no purpose", "E10DC003100001E206C10161C20100", "E1/E2/C2", "names none"},
		{"a purpose twice", "E111C003100001" + times("E203C10161", 2) + "0000", "E1/E2", "second"},
		{"type at home", "E10DC003100001E206C10161C301F1", "E1/E2/C3", "15 is not known"},
		{"type when roaming", "E10DC003100001E206C10161C30114", "E1/E2/C3", "4 is not known"},
		{"auth", "E10DC003100001E206C10161C40104", "E1/E2/C4", "4 is not known"},
		{"user without auth", "E10DC003100001E206C10161C50161", "E1/E2", "credentials"},
		{"user", "E110C003100001E209C10161C40101C5010D", "E1/E2/C5", "character"},
		{"secret", "E110C003100001E209C10161C40101C60122", "E1/E2/C6", "character"},
		{"user of 33", "E130C003100001E229C10161C40101C521" + times("61", 33), "E1/E2/C5", "33 bytes"},
		{"MTU", "E10EC003100001E207C10161C7020100", "E1/E2/C7", "256"},
		{"MTU of 576 for any type", "E10EC003100001E207C10161C7020240", "E1/E2", "IPv4 only"},
		{"DNS", "E111C003100001E20AC10161C8050102030405", "E1/E2/C8", "5 bytes"},
		{"five servers of names", "E128C003100001E221C10161" + times("C80401020304", 5), "E1/E2/C8", "more than 4"},
		{"no RAT", "E108C003100001C90100", "E1/C9", "none"},
		{"no band", "E108C003100001CA0100", "E1/CA", "none"},
		{"bands", "E107C003100001CA00", "E1/CA", "0 bytes"},
		{"eDRX", "E108C003100001CB0104", "E1/CB", "1 bytes"},
		{"eDRX twice", "E10DC003100001CB020435CB020535", "E1/CB", "twice"},
		{"short number", "E109C003100001CD029121", "E1/CD", "telephone"},
		{"letters", "E10AC003100001CD0391A121", "E1/CD", "digit"},
		{"filler in the middle", "E10AC003100001CD03912F21", "E1/CD", "digit"},
		{"alphanumeric sender", "E10AC003100001CD03D02121", "E1/CD", "type of address"},
		{"server", "E108C003100001CE0120", "E1/CE", "domain"},
		{"server of 65", "E148C003100001CE41" + times("61", 65), "E1/CE", "65 bytes"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			b := unhex(t, tc.whole)
			d, err := params.ParseTLV(b)
			var te *params.TLVError
			if !errors.As(err, &te) {
				t.Fatalf("error %v, document %+v", err, d)
			}
			if te.Where != tc.where || !strings.Contains(te.Problem, tc.problem) {
				t.Errorf("%q: %q, want %q with %q", te.Where, te.Problem, tc.where, tc.problem)
			}
			if f := fault.Of(err); f.Code != "parameters-invalid" || f.Who != fault.Operator || f.Next == "" {
				t.Errorf("fault %+v", f)
			}
		})
	}
}

func TestFromMetadata(t *testing.T) {
	object := smallE1
	wrap := func(contents string) string {
		b := unhex(t, contents)
		return hex.EncodeToString(append([]byte{0xB8, byte(len(b))}, b...))
	}
	const oid = "060A2B06010401868D1F0101"
	for _, tc := range []struct {
		name, b8 string
		oids     []string
		ok       bool
		problem  string
	}{
		{"the sample's OID", wrap(oid + object), []string{sampleOID}, true, ""},
		{"tag of the module", wrap("800A2B06010401868D1F0101" + object), []string{sampleOID}, true, ""},
		{"objects of the server", wrap(oid + "DF8101020102" + object + "3003020101"), []string{sampleOID}, true, ""},
		{"long length", "B8812A" + wrap(oid + object + "3000")[4:], []string{sampleOID}, true, ""},
		{"not asked for", wrap(oid + object), nil, false, ""},
		{"another OID", wrap(oid + object), []string{"1.3.6.1.4.1.99999.1", "rubbish", ""}, false, ""},
		{"no OID", wrap(object), []string{sampleOID}, false, ""},
		{"the OID is not first", wrap("3000" + oid + object), []string{sampleOID}, false, ""},
		{"nothing of ours", wrap(oid), []string{sampleOID}, false, ""},
		{"nothing", "", []string{sampleOID}, false, ""},
		{"empty", "B800", []string{sampleOID}, false, ""},
		{"another element", "B900", []string{sampleOID}, false, ""},
		{"cut", wrap(oid + object)[:50], []string{sampleOID}, false, ""},
		{"two objects", wrap(oid + object + object), []string{sampleOID}, false, "twice"},
		{"cut inside", wrap(oid + object[:50]), []string{sampleOID}, false, "TLV"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if oid, known := params.MetadataOID(unhex(t, tc.b8)); tc.ok && (!known || oid != sampleOID) {
				t.Errorf("OID %q, %v", oid, known)
			}
			got, ok, err := params.FromMetadata(unhex(t, tc.b8), tc.oids)
			if ok != tc.ok || (err != nil) != (tc.problem != "") {
				t.Fatalf("%X, %v, %v", got, ok, err)
			}
			if ok && !bytes.Equal(got, unhex(t, object)) {
				t.Errorf("%X", got)
			}
			if err != nil && (!strings.Contains(err.Error(), tc.problem) || fault.Of(err).Code != "parameters-invalid") {
				t.Errorf("error %v", err)
			}
		})
	}
}

func TestToMetadata(t *testing.T) {
	if _, err := params.ToMetadata("1.2.x", unhex(t, smallE1)); err == nil {
		t.Error("a bad OID is taken")
	}
	if _, err := params.ToMetadata(sampleOID, make([]byte, 115)); err == nil || !strings.Contains(err.Error(), "129 bytes") {
		t.Errorf("129 bytes: %v", err)
	}
	if b8, err := params.ToMetadata(sampleOID, make([]byte, 114)); err != nil || len(b8) != params.MaxMetadata {
		t.Errorf("%d bytes, %v", len(b8), err)
	}
}

// carriable makes a document of what the TLV form can carry, in the form in
// which it comes back.
func carriable(r *rand.Rand) *params.Document {
	d := &params.Document{Generation: int64(r.IntN(1 << 16))}
	maybe := func() bool { return r.IntN(2) == 0 }
	word := func(most int) string {
		b := make([]byte, 1+r.IntN(most))
		for i := range b {
			b[i] = "abcdefghijklmnopqrstuvwxyz0123456789"[r.IntN(36)]
		}
		return string(b)
	}
	subset := func(all []string) []string {
		var out []string
		for _, s := range all {
			if maybe() {
				out = append(out, s)
			}
		}
		if out == nil {
			out = all[:1]
		}
		return out
	}
	purposes := []params.Purpose{"default", "ia", "ims", "mms", "dm", "supl", "bootstrap"}
	for n := r.IntN(4); n > 0 && len(purposes) > 0; n-- {
		a := params.APN{Name: "x" + word(10), Auth: "none"}
		take := 1 + r.IntN(len(purposes))
		a.Purposes, purposes = purposes[:take], purposes[take:]
		if maybe() {
			a.PDNType = []string{"non-ip", "v4", "v6", "v4v6"}[r.IntN(4)]
			if maybe() {
				a.PDNTypeRoaming = []string{"non-ip", "v4", "v6", "v4v6"}[r.IntN(4)]
			}
		}
		if maybe() {
			a.Auth, a.User, a.Secret = []string{"pap", "chap", "pap-or-chap"}[r.IntN(3)], word(6), redact.NewSecret(word(6))
		}
		if maybe() {
			a.MTU = 1280 + r.IntN(9000-1280)
		}
		if r.IntN(4) == 0 {
			a.DNS = []netip.Addr{netip.AddrFrom4([4]byte{10, 0, 0, byte(r.IntN(256))}), netip.MustParseAddr("2001:db8::53")}
		}
		d.APNs = has(append(d.APNs.Value, a))
	}
	if maybe() {
		d.DataRoaming = has(false)
	}
	if maybe() {
		d.HomeOnly = has(true)
	}
	if maybe() {
		d.RATs = has(subset([]string{"gsm", "umts", "lte", "lte-m", "nb-iot", "nr"}))
	}
	if maybe() {
		for b := 1 + r.IntN(20); b <= 96; b += 1 + r.IntN(40) {
			d.LTEBands = has(append(d.LTEBands.Value, b))
		}
	}
	if window := r.IntN(16); maybe() {
		d.EDRXLTE = has(params.EDRX{Value: r.IntN(16), PTW: &window})
	} else if maybe() {
		d.EDRXNBIoT = has(params.EDRX{Value: r.IntN(16), PTW: &window})
	}
	switch r.IntN(3) {
	case 0:
		d.PSM = has(params.PSM{TAUSeconds: []int64{600, 3600, 36000, 2, 30, 60, 1152000}[r.IntN(7)] * int64(r.IntN(32)), ActiveSeconds: []int64{2, 60, 360}[r.IntN(3)] * int64(r.IntN(32))})
	case 1:
		d.PSM.State = params.Null
	}
	if maybe() {
		d.SMSC = has([]string{"", "+"}[r.IntN(2)] + "12345678901234567890"[:3+r.IntN(18)])
	}
	if maybe() {
		d.ECS = has(word(5) + ".example")
	}
	if maybe() {
		d.CMP = has(word(5) + ".example")
	}
	return d
}

// TestRoundTrip: JSON to TLV to JSON gives the same document, for what a TLV
// can carry.
func TestRoundTrip(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	carried, long := 0, 0
	for range 2000 {
		want := carriable(r)
		text, err := params.Marshal(want)
		if err != nil {
			t.Fatal(err)
		}
		first := parse(t, string(text))
		if d := cmp.Diff(want, first, documents...); d != "" {
			t.Fatalf("%s (-want +got):\n%s", text, d)
		}
		b, err := params.MarshalTLV(first)
		if err != nil {
			var de *params.DocumentError
			if !errors.As(err, &de) || !strings.Contains(de.Problem, "are allowed") {
				t.Fatalf("%s: %v", text, err)
			}
			long++
			continue
		}
		carried++
		if len(b) > 110 {
			t.Fatalf("%d bytes", len(b))
		}
		second, err := params.ParseTLV(b)
		if err != nil {
			t.Fatalf("%X: %v", b, err)
		}
		if d := cmp.Diff(want, second, documents...); d != "" {
			t.Fatalf("%X (-want +got):\n%s", b, d)
		}
	}
	if carried < 500 || long < 50 {
		t.Errorf("%d documents were carried and %d too long: the test does not test", carried, long)
	}
}

// TestCannotCarry: what a TLV cannot say is named, not left out.
func TestCannotCarry(t *testing.T) {
	apn := func(members string) string { return `"apns":[{"name":"a",` + members + `}]` }
	for _, tc := range []struct{ members, pointer, problem string }{
		{`"scope":{"iccid":"89001012012341234012"}`, "/scope", "profile in which it is"},
		{`"scope":{"imsiPrefix":"26201"}`, "/scope", "profile in which it is"},
		{`"generation":65536`, "/generation", "65535"},
		{`"apns":null`, "/apns", "null"},
		{`"apns":[]`, "/apns", "empty"},
		{`"apns":[{"name":"a"},{"name":"b","purposes":["ia"]},{"name":"c","purposes":["ims"]},{"name":"d","purposes":["mms"]},{"name":"e","purposes":["dm"]}]`, "/apns", "carries 4"},
		{`"apns":[{"name":"` + strings.Repeat("a", 40) + "." + strings.Repeat("a", 23) + `"}]`, "/apns/0/name", "64 bytes"},
		{apn(`"purposes":["fota"]`), "/apns/0/purposes", "write dm"},
		{apn(`"pdnTypeRoaming":"v4"`), "/apns/0/pdnTypeRoaming", "without"},
		{apn(`"user":"u"`), "/apns/0/auth", "missing"},
		{apn(`"auth":"pap","user":"` + strings.Repeat("u", 33) + `"`), "/apns/0/user", "33 bytes"},
		{apn(`"auth":"pap","secret":"` + strings.Repeat("u", 33) + `"`), "/apns/0/secret", "33 bytes"},
		{apn(`"auth":"pap","secretRef":"file:/s"`), "/apns/0/secretRef", "device's files"},
		{apn(`"routes":["10.0.0.0/8"]`), "/apns/0/routes", "cannot"},
		{apn(`"dns":["2001:db8::1","2001:db8::2","2001:db8::3","2001:db8::4"],"auth":"pap","user":"` + strings.Repeat("u", 32) + `","secret":"` + strings.Repeat("u", 32) + `"`), "/apns/0", "bytes"},
		{apn(`"colour":"red"`), "/apns/0/colour", "not known"},
		{`"roaming":{"data":true}`, "/roaming/data", "carries only false"},
		{`"roaming":{"homeOnly":false}`, "/roaming/homeOnly", "carries only true"},
		{`"roaming":{"homeOnly":null}`, "/roaming/homeOnly", "null"},
		{`"roaming":{"preferredPlmns":["26201"]}`, "/roaming/preferredPlmns", "cannot"},
		{`"radio":{"rats":null}`, "/radio/rats", "null"},
		{`"radio":{"lteBands":[8,97]}`, "/radio/lteBands/1", "up to 96"},
		{`"radio":{"edrx":{"lte":{"value":5}}}`, "/radio/edrx/lte/ptw", "missing"},
		{`"radio":{"edrx":{"lte":{"value":5,"ptw":1},"nb-iot":{"value":5,"ptw":1}}}`, "/radio/edrx/nb-iot", "has one"},
		{`"radio":{"psm":{"tauSeconds":61,"activeSeconds":2}}`, "/radio/psm/tauSeconds", "61 s"},
		{`"radio":{"psm":{"tauSeconds":60,"activeSeconds":3}}`, "/radio/psm/activeSeconds", "3 s"},
		{`"sms":{"smsc":null}`, "/sms/smsc", "null"},
		{`"servers":{"ecs":"` + strings.Repeat("a", 50) + "." + strings.Repeat("b", 10) + `.com"}`, "/servers/ecs", "65 bytes"},
		{`"servers":{"smds":"a.example.com"}`, "/servers/smds", "cannot"},
		{`"servers":{"bootstrap":[]}`, "/servers/bootstrap", "cannot"},
		{`"connectivity":{"checks":[]}`, "/connectivity/checks", "cannot"},
		{`"connectivity":{"retry":[1]}`, "/connectivity/retry", "cannot"},
	} {
		_, err := params.MarshalTLV(parse(t, `{"version":1,`+tc.members+`}`))
		var de *params.DocumentError
		if !errors.As(err, &de) || de.Pointer != tc.pointer || !strings.Contains(de.Problem, tc.problem) {
			t.Errorf("%s: %v, want %s with %q", tc.members, err, tc.pointer, tc.problem)
		}
	}
}

// full is a document in which nothing is zero.
func full(t *testing.T) *params.Document {
	t.Helper()
	text, err := os.ReadFile("testdata/full.json")
	if err != nil {
		t.Fatal(err)
	}
	d := parse(t, string(text))
	zero := 0
	d.Scope.IMSIPrefix = "26201"
	d.EDRXNBIoT = has(params.EDRX{Value: 1, PTW: &zero})
	return d
}

// TestNothingForgotten finds members that were added to Document, and not to
// its encoders.
func TestNothingForgotten(t *testing.T) {
	whole, err := params.Marshal(full(t))
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(full(t), parse(t, string(whole)), documents...); d != "" {
		t.Errorf("full document (-want +got):\n%s", d)
	}
	empty, err := params.MarshalTLV(&params.Document{})
	if err != nil {
		t.Fatal(err)
	}
	check := func(name string, without *params.Document, alone *params.Document) {
		if text, err := params.Marshal(without); err != nil || bytes.Equal(text, whole) {
			t.Errorf("JSON is the same without %s (%v)", name, err)
		}
		if b, err := params.MarshalTLV(alone); err == nil && bytes.Equal(b, empty) {
			t.Errorf("TLV says nothing of %s, and does not refuse it", name)
		}
	}
	fields := reflect.TypeFor[params.Document]()
	for i := range fields.NumField() {
		name := fields.Field(i).Name
		if name == "Ignored" {
			continue
		}
		value := reflect.ValueOf(full(t)).Elem().Field(i)
		if value.IsZero() {
			t.Errorf("%s is not in the full document: add it there", name)
			continue
		}
		without, alone := full(t), &params.Document{}
		reflect.ValueOf(without).Elem().Field(i).SetZero()
		reflect.ValueOf(alone).Elem().Field(i).Set(value)
		check(name, without, alone)
	}
	scopes := reflect.TypeFor[params.Scope]()
	for i := range scopes.NumField() {
		value := reflect.ValueOf(full(t).Scope).Field(i)
		without, alone := full(t), &params.Document{}
		if value.IsZero() {
			t.Errorf("scope: %s is not in the full document: add it there", scopes.Field(i).Name)
			continue
		}
		reflect.ValueOf(&without.Scope).Elem().Field(i).SetZero()
		reflect.ValueOf(&alone.Scope).Elem().Field(i).Set(value)
		check("Scope."+scopes.Field(i).Name, without, alone)
	}
}

func TestMarshal(t *testing.T) {
	for _, text := range []string{
		`{"version":1,"generation":0}`,
		`{"version":1,"generation":3,"scope":{"iccid":"89001012012341234012","mccmnc":["26201"],"gid1":"ff","imsiPrefix":"26"},"apns":null,"roaming":{"data":null},` +
			`"radio":{"edrx":{"nb-iot":null},"psm":null},"servers":{"smds":null,"bootstrap":[]}}`,
		`{"version":1,"generation":3,"apns":[{"name":"a","purposes":["default"],"auth":"chap","user":"u","secret":"s\u003c"}]}`,
	} {
		got, err := params.Marshal(parse(t, text))
		if err != nil || string(got) != text {
			t.Errorf("%s, %v\nwant %s", got, err, text)
		}
	}
	d, err := params.ParseTLV(e1(t, "E202C100"))
	if err != nil {
		t.Fatal(err)
	}
	var de *params.DocumentError
	if _, err := params.Marshal(d); !errors.As(err, &de) || de.Pointer != "/apns" {
		t.Errorf("an access point without a name: %v", err)
	}
	if b, err := params.MarshalTLV(d); err != nil || !bytes.Contains(b, []byte{0xC1, 0}) {
		t.Errorf("%X, %v", b, err)
	}
}

func FuzzParseTLV(f *testing.F) {
	for _, s := range []string{sampleE1, smallE1, "E105C0031F0102", "E100", "E180"} {
		f.Add(unhex(f, s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		d, err := params.ParseTLV(b)
		if err != nil {
			var te *params.TLVError
			if !errors.As(err, &te) || len(err.Error()) > 500 {
				t.Errorf("error %T: %v", err, err)
			}
			return
		}
		named := !slices.ContainsFunc(d.APNs.Value, func(a params.APN) bool { return a.Name == "" })
		d.Ignored = nil
		again, err := params.MarshalTLV(d)
		if err != nil {
			t.Fatalf("%X: what was read cannot be written: %v", b, err)
		}
		back, err := params.ParseTLV(again)
		if err != nil {
			t.Fatalf("%X: %v", again, err)
		}
		if diff := cmp.Diff(d, back, documents...); diff != "" {
			t.Fatalf("(-first +second):\n%s", diff)
		}
		if text, err := params.Marshal(d); named {
			if err != nil {
				t.Fatal(err)
			}
			if _, err := params.Parse(text, params.Options{Confidential: true}); err != nil {
				t.Fatalf("%s: %v", text, err)
			}
		}
	})
}

func FuzzFromMetadata(f *testing.F) {
	f.Add(unhex(f, sampleB8))
	f.Add(unhex(f, "B807800388370AE100"))
	f.Fuzz(func(t *testing.T, b []byte) {
		oid, _ := params.MetadataOID(b)
		e1, ok, err := params.FromMetadata(b, []string{oid})
		if ok != (len(e1) > 0 && err == nil) {
			t.Errorf("%X, %v, %v", e1, ok, err)
		}
	})
}
