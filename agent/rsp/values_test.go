package rsp

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"lpad/internal/fault"
	"lpad/internal/redact"
)

// unhex turns pieces of hex, spaces ignored, into bytes.
func unhex(t testing.TB, pieces ...string) []byte {
	t.Helper()
	b, err := hex.DecodeString(strings.ReplaceAll(strings.Join(pieces, ""), " ", ""))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestEID(t *testing.T) {
	const text = "89049032123451234512345678901235"
	e, err := ParseEID(" 89049032 12345123 45123456 78901235 ")
	if err != nil || e.String() != text || !e.Valid() || e.IsZero() {
		t.Fatalf("EID %v, valid %v, %v", e, e.Valid(), err)
	}
	if got := e.LogValue().String(); strings.Contains(got, "3212345") {
		t.Errorf("the log shows %s", got)
	}
	for _, bad := range []string{"", "8904", text + "0", strings.Replace(text, "0", "A", 1)} {
		if _, err := ParseEID(bad); err == nil {
			t.Errorf("ParseEID(%q) succeeds", bad)
		}
	}
	e[15]++
	if e.Valid() {
		t.Error("a wrong check digit passes")
	}
	odd, err := EIDFromBytes(bytes.Repeat([]byte{0xAB}, 16))
	if err != nil || odd.Valid() {
		t.Errorf("EID of a card with hex digits: %v, valid %v", err, odd.Valid())
	}
	if _, err := EIDFromBytes([]byte{1}); err == nil {
		t.Error("EIDFromBytes takes one byte")
	}
	roundTrip(t, e, new(EID))
	roundTrip(t, EID{}, new(EID))
}

// roundTrip sends v through JSON and compares.
func roundTrip[T fmt.Stringer](t *testing.T, v T, back *T) {
	t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(b, back); err != nil || (*back).String() != v.String() {
		t.Errorf("%T %v comes back as %v, %v", v, v, *back, err)
	}
}

func TestICCID(t *testing.T) {
	for _, tc := range []struct{ name, in, digits, wire string }{
		{"20 digits", "89000123456789012341", "89000123456789012341", "98001032547698103214"},
		{"19 digits", "8900012345678901234", "8900012345678901234", "980010325476981032F4"},
		{"18 digits", "890001234567890123", "890001234567890123", "980010325476981032FF"},
		{"19 digits and filler", "8900012345678901234F", "8900012345678901234", "980010325476981032F4"},
		{"groups", " 8900-0123 4567 8901 2341\n", "89000123456789012341", "98001032547698103214"},
		{"hex nibble", "8944500a1234567890b1", "8944500A1234567890B1", "984405A01232547698" + "" + "1B"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			c, err := ParseICCID(tc.in)
			if err != nil {
				t.Fatal(err)
			}
			if tc.name != "hex nibble" && !strings.EqualFold(hex.EncodeToString(c[:]), tc.wire) {
				t.Errorf("bytes %X, want %s", c[:], tc.wire)
			}
			if c.String() != tc.digits {
				t.Errorf("digits %s, want %s", c, tc.digits)
			}
			back, err := ICCIDFromBytes(c[:])
			if err != nil || back != c {
				t.Errorf("back %v, %v", back, err)
			}
			roundTrip(t, c, new(ICCID))
		})
	}
	roundTrip(t, ICCID{}, new(ICCID))
	for _, bad := range []string{"", "8900", "890001234567890123412", "89000123456F8901234", "89000123456789012g"} {
		if _, err := ParseICCID(bad); err == nil {
			t.Errorf("ParseICCID(%q) succeeds", bad)
		}
	}
	nine, err := ICCIDFromBytes(unhex(t, "980010325476981032"))
	if err != nil || nine.String() != "890001234567890123" {
		t.Errorf("nine bytes: %v, %v", nine, err)
	}
	if _, err := ICCIDFromBytes(make([]byte, 11)); err == nil {
		t.Error("eleven bytes pass")
	}
	if got := nine.LogValue().String(); got != "89000…23" {
		t.Errorf("the log shows %s", got)
	}
	if got := fmt.Sprintf("%X", nine.ProfileTLV()); got != "5A0A980010325476981032FF" {
		t.Errorf("element %s", got)
	}
}

func TestAID(t *testing.T) {
	a, err := ParseAID("a0000005591010ffffffff8900000100")
	if err != nil || !a.Equal(ISDR) || !a.Equal(ISDRs()[0]) {
		t.Fatalf("AID %v, %v", a, err)
	}
	seen := map[string]bool{}
	for _, a := range ISDRs() {
		if len(a) < 5 || len(a) > 16 || seen[a.String()] {
			t.Errorf("AID %v is twice in the list or has a wrong length", a)
		}
		seen[a.String()] = true
	}
	for _, bad := range []string{"", "A0", "zz", strings.Repeat("A0", 17)} {
		if _, err := ParseAID(bad); err == nil {
			t.Errorf("ParseAID(%q) succeeds", bad)
		}
	}
	roundTrip(t, a, new(AID))
	roundTrip(t, nil, new(AID))
	if got := fmt.Sprintf("%X", AID{1, 2, 3, 4, 5}.ProfileTLV()); got != "4F050102030405" {
		t.Errorf("element %s", got)
	}
}

func TestTransactionID(t *testing.T) {
	id, err := ParseTransactionID(" 0102ff ")
	if err != nil || id.String() != "0102FF" || !id.Equal(TransactionID{1, 2, 255}) {
		t.Fatalf("id %v, %v", id, err)
	}
	if (TransactionID{}).Equal(nil) {
		t.Error("an absent id equals an absent id")
	}
	for _, bad := range []string{"", "0", "xx", strings.Repeat("00", 17)} {
		if _, err := ParseTransactionID(bad); err == nil {
			t.Errorf("ParseTransactionID(%q) succeeds", bad)
		}
	}
	roundTrip(t, id, new(TransactionID))
	roundTrip(t, nil, new(TransactionID))
}

func TestHashConfirmationCode(t *testing.T) {
	id := unhex(t, "0102030405060708090A0B0C0D0E0F10")
	got := fmt.Sprintf("%X", HashConfirmationCode(redact.NewSecret("1234"), id))
	if want := "94E57B8CDFE3EB0A8510F18898ADD0B1E67B48FAFD39892796D6F65F9CE3CC40"; got != want {
		t.Errorf("hash %s, want %s", got, want)
	}
}

func TestActivationCode(t *testing.T) {
	for _, tc := range []struct {
		in   string
		want ActivationCode
	}{
		{"LPA:1$smdp.example.com$04386-AGYFT-A74Y8-3F815", ActivationCode{SMDP: "smdp.example.com", MatchingID: "04386-AGYFT-A74Y8-3F815"}},
		{"1$smdp.example.com$X", ActivationCode{SMDP: "smdp.example.com", MatchingID: "X"}},
		{"lpa:1$smdp.example.com$", ActivationCode{SMDP: "smdp.example.com"}},
		{"Lpa:1$smdp.example.com", ActivationCode{SMDP: "smdp.example.com"}},
		{"1$smdp.example.com$X$1.3.6.1.4.1.31746", ActivationCode{SMDP: "smdp.example.com", MatchingID: "X", OID: "1.3.6.1.4.1.31746"}},
		{"1$smdp.example.com$X$1.3.6.1.4.1.31746$1", ActivationCode{SMDP: "smdp.example.com", MatchingID: "X", OID: "1.3.6.1.4.1.31746", ConfirmationCodeRequired: true}},
		{"1$smdp.example.com$X$$1", ActivationCode{SMDP: "smdp.example.com", MatchingID: "X", ConfirmationCodeRequired: true}},
		{"1$smdp.example.com$$$", ActivationCode{SMDP: "smdp.example.com"}},
		{"1$smdp.example.com$X$$0", ActivationCode{SMDP: "smdp.example.com", MatchingID: "X"}},
		{" \tLPA:1$smdp.example.com$lower_Case+/=\r\n", ActivationCode{SMDP: "smdp.example.com", MatchingID: "lower_Case+/="}},
		{"LPA:1$ smdp.example.com $ X ", ActivationCode{SMDP: "smdp.example.com", MatchingID: "X"}},
		{"LPA:1$smdp.example.com$X$$1$v3-field", ActivationCode{SMDP: "smdp.example.com", MatchingID: "X", ConfirmationCodeRequired: true}},
		{"LPA:1%24SMDP.example.com%24A%2DB", ActivationCode{SMDP: "SMDP.example.com", MatchingID: "A-B"}},
	} {
		t.Run(tc.in, func(t *testing.T) {
			got, err := ParseActivationCode(tc.in)
			if err != nil || got != tc.want {
				t.Fatalf("got %#v, %v", got, err)
			}
			back, err := ParseActivationCode(got.Encode())
			if err != nil || back != got {
				t.Errorf("comes back as %#v, %v", back, err)
			}
		})
	}
}

func TestActivationCodeRefused(t *testing.T) {
	for _, tc := range []struct{ name, in, code string }{
		{"empty", "", CodeMalformed},
		{"spaces", "  \n", CodeMalformed},
		{"prefix alone", "LPA:", CodeMalformed},
		{"format alone", "LPA:1", CodeMalformed},
		{"eaten by a shell", "LPA:1.example.com", CodeMalformed},
		{"a link", "https://smdp.example.com/", CodeMalformed},
		{"no format", "smdp.example.com$X", CodeMalformed},
		{"empty format", "$smdp.example.com$X", CodeMalformed},
		{"format 2", "LPA:2$smdp.example.com$X", CodeUnsupported},
		{"format 11", "11$smdp.example.com$X", CodeUnsupported},
		{"too long", "1$smdp.example.com$" + strings.Repeat("A", 255), CodeMalformed},
		{"control character", "1$smdp.example.com$A\x00B", CodeMalformed},
		{"line end inside", "1$smdp.example.com$A\nB", CodeMalformed},
		{"direction mark", "1$smdp.example.com$A\u202EB", CodeMalformed},
		{"not UTF-8", "1$smdp.example.com$\xff", CodeMalformed},
		{"broken percent encoding", "1%24smdp.example.com%2", CodeMalformed},
		{"OID", "1$smdp.example.com$X$hello", CodeMalformed},
		{"OID with leading zero", "1$smdp.example.com$X$1.02", CodeMalformed},
		{"flag", "1$smdp.example.com$X$1.2$yes", CodeMalformed},
		{"no address", "1$$X", CodeAddress},
		{"scheme", "1$https://smdp.example.com$X", CodeAddress},
		{"port", "1$smdp.example.com:443$X", CodeAddress},
		{"path", "1$smdp.example.com/gsma$X", CodeAddress},
		{"trailing dot", "1$smdp.example.com.$X", CodeAddress},
		{"IPv4", "1$192.0.2.1$X", CodeAddress},
		{"IPv6", "1$[2001:db8::1]$X", CodeAddress},
		{"one label", "1$smdp$X", CodeAddress},
		{"space", "1$smdp example.com$X", CodeAddress},
		{"hyphen first", "1$-smdp.example.com$X", CodeAddress},
		{"long label", "1$" + strings.Repeat("a", 64) + ".com$X", CodeAddress},
	} {
		t.Run(tc.name, func(t *testing.T) {
			_, err := ParseActivationCode(tc.in)
			f := fault.Of(err)
			if f.Code != tc.code || f.Text == "" || f.Next == "" {
				t.Errorf("fault %+v (%v), want code %s", f, err, tc.code)
			}
		})
	}
	if err := CheckAddress(strings.Repeat("a.", 130) + "com"); fault.Of(err).Code != CodeAddress {
		t.Errorf("a name of 263 characters: %v", err)
	}
}

func TestActivationCodeIsSecret(t *testing.T) {
	c := ActivationCode{SMDP: "smdp.example.com", MatchingID: "TOP-SECRET", ConfirmationCodeRequired: true}
	var log bytes.Buffer
	slog.New(slog.NewTextHandler(&log, nil)).Info("order", "code", c)
	e := EventEntry{EventID: "TOP-SECRET", RSPServerAddress: "smdp.example.com"}
	for _, got := range []string{log.String(), fmt.Sprint(c), fmt.Sprintf("%+v %#v %s", c, c, c), fmt.Sprint(e)} {
		if strings.Contains(got, "TOP-SECRET") || !strings.Contains(got, redact.Mask) || !strings.Contains(got, "smdp.example.com") {
			t.Errorf("printed: %s", got)
		}
	}
	_, err := ParseActivationCode("TOP-SECRET")
	if strings.Contains(err.Error(), "TOP-SECRET") {
		t.Errorf("the error shows the code: %v", err)
	}
}

func FuzzActivationCode(f *testing.F) {
	for _, s := range []string{"LPA:1$smdp.example.com$04386-AGYFT-A74Y8-3F815", "1$a.b$$1.2.3$1", "1%24a.b%24x", "LPA:2$$", "1$a.b", "1$a.b$ $"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		c, err := ParseActivationCode(s)
		if err != nil {
			if fault.Of(err).Code == fault.Internal {
				t.Fatalf("%q: unexplained error %v", s, err)
			}
			return
		}
		if back, err := ParseActivationCode(c.Encode()); err == nil && back != c {
			t.Fatalf("%q: %#v comes back as %#v", s, c, back)
		}
		if CheckAddress(c.SMDP) != nil {
			t.Fatalf("%q: bad address passed", s)
		}
	})
}

func TestDisplayText(t *testing.T) {
	for in, want := range map[string]string{
		"Work":               "Work",
		" a\r\nb\t":          "a  b",
		"a\x00\x1b[31mb":     "a[31mb",
		"abc\u202Ecba\u2066": "abccba",
		"\xff\xfeok":         "\uFFFDok",
		"Grüße 日本":           "Grüße 日本",
		"\uFEFFx\u2028y":     "x y",
	} {
		if got := DisplayText(in); got != want {
			t.Errorf("DisplayText(%q) = %q, want %q", in, got, want)
		}
	}
	if got := CutText("aü", 2); got != "a" {
		t.Errorf("CutText cuts a character: %q", got)
	}
	if got := CutText("aü", 3); got != "aü" {
		t.Errorf("CutText cuts too much: %q", got)
	}
}

func TestOID(t *testing.T) {
	for in, want := range map[string]string{"88370A": "2.999.10", "551D11": "2.5.29.17", "2B0601": "1.3.6.1", "00": "0.0"} {
		if got, err := ParseOID(unhex(t, in)); err != nil || got != want {
			t.Errorf("ParseOID(%s) = %s, %v, want %s", in, got, err, want)
		}
	}
	for _, bad := range []string{"", "88", "2B80", strings.Repeat("FF", 10) + "01", strings.Repeat("01", 40)} {
		if got, err := ParseOID(unhex(t, bad)); err == nil {
			t.Errorf("ParseOID(%s) = %s", bad, got)
		}
	}
}

func TestVersion(t *testing.T) {
	v, err := parseVersion([]byte{2, 2, 2})
	if err != nil || v.String() != "2.2.2" || v.IsZero() {
		t.Fatalf("version %v, %v", v, err)
	}
	if v.Compare(Version{2, 10, 0}) != -1 || v.Compare(v) != 0 || v.Compare(Version{}) != 1 {
		t.Error("versions compare as text")
	}
}

func TestCancelReason(t *testing.T) {
	for r, keeps := range map[CancelReason]bool{CancelEndUserRejection: false, CancelPostponed: true, CancelTimeout: true, CancelPPRNotAllowed: false,
		CancelMetadataMismatch: false, CancelLoadBPPError: false, CancelUndefined: false, 99: false} {
		if r.KeepsOrder() != keeps || r.String() == "" {
			t.Errorf("%v keeps the order: %v", r, r.KeepsOrder())
		}
	}
}

func TestStrings(t *testing.T) {
	for _, tc := range []struct {
		got  fmt.Stringer
		want string
	}{
		{Event(0), "none"}, {EventInstall | EventDelete, "install,delete"}, {AllEvents, "install,enable,disable,delete"},
		{PPR(0), "none"}, {PPR1 | PPR2, "ppr1,ppr2"}, {Disabled, "disabled"}, {Enabled, "enabled"}, {ProfileState(7), "unknown(7)"},
		{ClassTest, "test"}, {ClassOperational, "operational"}, {IconPNG, "png"},
		{BPPCommand(2), "storeMetadata"}, {BPPCommand(-1), "unknown(-1)"},
	} {
		if got := tc.got.String(); got != tc.want {
			t.Errorf("got %q, want %q", got, tc.want)
		}
	}
}

// FuzzIdentifiers feeds text of a person to the parsers of identifiers.
func FuzzIdentifiers(f *testing.F) {
	for _, s := range []string{"89000123456789012341", "8900012345678901234F", "89049032123451234512345678901235", "A0000005591010FFFFFFFF8900000100", "0102ff"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if c, err := ParseICCID(s); err == nil {
			if back, err := ParseICCID(c.String()); err != nil || back != c {
				t.Fatalf("ICCID %q comes back as %v, %v", s, back, err)
			}
		}
		if e, err := ParseEID(s); err == nil {
			if back, err := ParseEID(e.String()); err != nil || back != e {
				t.Fatalf("EID %q comes back as %v, %v", s, back, err)
			}
		}
		if a, err := ParseAID(s); err == nil && (len(a) < 5 || len(a) > 16) {
			t.Fatalf("AID %q", s)
		}
		if id, err := ParseTransactionID(s); err == nil && !id.Equal(id) {
			t.Fatalf("transactionId %q", s)
		}
	})
}
