package bsp

import (
	"bytes"
	"encoding/hex"
	"errors"
	"slices"
	"testing"

	"lpad/agent/rsp"
	"lpad/apdu/ber"
)

func unhex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// RFC 4493, section 4.
func TestCMAC(t *testing.T) {
	key := unhex(t, "2b7e151628aed2a6abf7158809cf4f3c")
	message := unhex(t, "6bc1bee22e409f96e93d7e117393172aae2d8a571e03ac9c9eb76fac45af8e5130c81c46a35ce411e5fbc1191a0a52eff69f2445df4f9b17ad2b417be66c3710")
	for n, want := range map[int]string{
		0:  "bb1d6929e95937287fa37d129b756746",
		16: "070a16b46b4d4144f79bdd9dd04a287c",
		40: "dfa66747de9ae63030ca32611497c827",
		64: "51f0bebf7e3b9d92fc49741779363cfe",
	} {
		got, err := CMAC(key, message[:n])
		if err != nil || !bytes.Equal(got[:], unhex(t, want)) {
			t.Errorf("%d bytes: %x, %v, want %s", n, got, err, want)
		}
	}
	if _, err := CMAC(key[:3], nil); err == nil {
		t.Error("short key accepted")
	}
}

// The recorded session: SGP.22 brief, 12.1 and 12.2.
var (
	vectorZ    = "79696DC34351DFC7758B07BAF66643F01D7D8F5AB976C51D5F2C42AB71F5A6C3"
	vectorHost = "euicc-rsp"
	vectorEID  = "89049032123451234512345678901235"
	vectorWire = []struct {
		tag   ber.Tag
		plain string // hex
		wire  string
	}{
		{Tag87, "BF2400", "8718BC43D09EF085954B55E4ACDBB87B6649813B5DB57A02D5C9"},
		{Tag88, "BF252F5A0A98001032547698103214910965756963632D727370921665756963632D72737020746573742070726F66696C65",
			"883ABF252F5A0A98001032547698103214910965756963632D727370921665756963632D72737020746573742070726F66696C65828551C5821B722D"},
		{Tag86, hex.EncodeToString([]byte("the-uicc-profile-fixture")), "8628B139C6739477952566FEAE3CC59B87F5DE1378B9C4DCABFCC45C50E961ACF8A581DF5BCDBAF531D4"},
	}
)

func vectorKeys(t testing.TB) Keys {
	t.Helper()
	eid, err := rsp.EIDFromBytes(unhex(t, vectorEID))
	if err != nil {
		t.Fatal(err)
	}
	return DeriveKeys(unhex(t, vectorZ), []byte(vectorHost), eid)
}

func TestDeriveKeys(t *testing.T) {
	k := vectorKeys(t)
	for name, pair := range map[string][2][]byte{
		"MCV":   {k.MCV[:], unhex(t, "9A8D4DC5D8C2BA3FCCBB7F69036FD09F")},
		"S-ENC": {k.ENC[:], unhex(t, "1F745C2897A86858E94823C218A2DB4A")},
		"S-MAC": {k.MAC[:], unhex(t, "1C073583341B81244C40AAE342DE5434")},
	} {
		if !bytes.Equal(pair[0], pair[1]) {
			t.Errorf("%s: %X, want %X", name, pair[0], pair[1])
		}
	}
}

func TestRecordedSession(t *testing.T) {
	sender, receiver := NewSession(vectorKeys(t)), NewSession(vectorKeys(t))
	for i, step := range vectorWire {
		segment, err := sender.Protect(step.tag, unhex(t, step.plain))
		if err != nil || !bytes.Equal(segment, unhex(t, step.wire)) {
			t.Errorf("segment %d: %X, %v, want %s", i, segment, err, step.wire)
		}
		tag, plain, err := receiver.Unprotect(unhex(t, step.wire))
		if err != nil || tag != step.tag || !bytes.Equal(plain, unhex(t, step.plain)) {
			t.Errorf("segment %d: read as %s %X, %v", i, tag, plain, err)
		}
	}
	if want := unhex(t, "81DF5BCDBAF531D4943043F7C3A648AA"); !bytes.Equal(sender.mcv[:], want) || sender.mcv != receiver.mcv {
		t.Errorf("MAC chaining value at the end: %X and %X, want %X", sender.mcv, receiver.mcv, want)
	}
}

func TestSizes(t *testing.T) {
	for _, test := range []struct {
		tag           ber.Tag
		segment, want int
	}{{Tag86, 1020, 1007}, {Tag87, 1020, 1007}, {Tag88, 1020, 1008}, {Tag86, 1004, 991}, {Tag88, 1004, 992}} {
		got := MaxPlain(test.tag, test.segment)
		if got != test.want {
			t.Errorf("%s in %d: %d bytes, want %d", test.tag, test.segment, got, test.want)
		}
		segment, err := NewSession(Keys{}).Protect(test.tag, make([]byte, got))
		if err != nil || len(segment) != test.segment {
			t.Errorf("%s with %d bytes of plain text: segment of %d bytes, want %d", test.tag, got, len(segment), test.segment)
		}
	}
}

func TestProtectAll(t *testing.T) {
	data := make([]byte, 5000)
	for i := range data {
		data[i] = byte(i * 7)
	}
	for _, tag := range []ber.Tag{Tag86, Tag88} {
		for _, size := range []int{1020, 1004, 60} {
			sender, receiver := NewSession(Keys{}), NewSession(Keys{})
			segments, err := sender.ProtectAll(tag, data, size)
			if err != nil {
				t.Fatal(err)
			}
			var got []byte
			for _, segment := range segments {
				if len(segment) > size {
					t.Errorf("segment of %d bytes, at most %d", len(segment), size)
				}
				_, plain, err := receiver.Unprotect(segment)
				if err != nil {
					t.Fatal(err)
				}
				got = append(got, plain...)
			}
			if !bytes.Equal(got, data) {
				t.Errorf("%s in %d: changed on its way", tag, size)
			}
		}
	}
	if _, err := NewSession(Keys{}).ProtectAll(Tag86, data, 12); err == nil {
		t.Error("segments of 12 bytes: accepted")
	}
	if _, err := NewSession(Keys{}).ProtectAll(0x85, data, 1020); err == nil {
		t.Error("tag 85: accepted")
	}
}

func TestReplaceKeys(t *testing.T) {
	var k Keys
	for i := range 16 {
		k.MCV[i], k.MAC[i] = 0x22, 0x11
	}
	command := unhex(t, "BF2636801022222222222222222222222222222222811000000000000000000000000000000000821011111111111111111111111111111111")
	if got := k.Marshal(); !bytes.Equal(got, command) {
		t.Errorf("ReplaceSessionKeys %X, want %X", got, command)
	}
	parsed, err := ParseKeys(command)
	if err != nil || parsed != k {
		t.Errorf("parsed %+v, %v", parsed, err)
	}
	sender := NewSession(Keys{})
	wire, err := sender.Protect(Tag87, command)
	if err != nil || len(wire) != 74 { // the size seen in a real package
		t.Errorf("segment of %d bytes, %v; want 74", len(wire), err)
	}
	sender.ReplaceKeys(parsed)
	segment, err := sender.Protect(Tag86, []byte("profile"))
	if err != nil {
		t.Fatal(err)
	}
	if _, plain, err := NewSession(k).Unprotect(segment); err != nil || string(plain) != "profile" {
		t.Errorf("after replacement: %q, %v", plain, err)
	}
	for name, b := range map[string][]byte{
		"empty": {}, "other tag": unhex(t, "BF2500"), "no keys": unhex(t, "BF2600"), "short key": unhex(t, "BF2609800122810122820122"),
		"more": append(unhex(t, "BF2638"), append(slices.Clone(command[3:]), 0x83, 0x00)...),
	} {
		if _, err := ParseKeys(b); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

func TestRefusals(t *testing.T) {
	good := unhex(t, vectorWire[0].wire)
	flip := func(i int) []byte { b := bytes.Clone(good); b[i] ^= 1; return b }
	odd := NewSession(vectorKeys(t))
	oddSegment := func(tag ber.Tag, data []byte) []byte { // a right MAC over wrong data
		segment := ber.Encode(tag, data, make([]byte, MACLength))
		body := segment[:len(segment)-MACLength]
		mac := cmac(odd.mac, append(odd.mcv[:], body...))
		copy(segment[len(body):], mac[:])
		return segment
	}
	for _, test := range []struct {
		name    string
		segment []byte
		want    error
	}{
		{"flipped data", flip(5), ErrSecurity},
		{"flipped MAC", flip(len(good) - 1), ErrSecurity},
		{"other tag", append([]byte{0x86}, good[1:]...), ErrSecurity},
		{"second segment first", unhex(t, vectorWire[1].wire), ErrSecurity},
		{"truncated", good[:len(good)-1], ErrStructure},
		{"unknown tag", append([]byte{0x85}, good[1:]...), ErrStructure},
		{"no room for a MAC", []byte{0x86, 1, 0}, ErrStructure},
		{"empty", nil, ErrStructure},
		{"too long", ber.Encode(Tag86, make([]byte, 1020)), ErrStructure},
		{"no cipher text", oddSegment(Tag86, nil), ErrStructure},
		{"half a block", oddSegment(Tag86, make([]byte, 8)), ErrStructure},
		{"no padding", oddSegment(Tag86, make([]byte, 16)), ErrStructure},
	} {
		if _, _, err := NewSession(vectorKeys(t)).Unprotect(test.segment); !errors.Is(err, test.want) {
			t.Errorf("%s: %v, want %v", test.name, err, test.want)
		}
	}
	for name, b := range map[string][]byte{"zeros": make([]byte, 16), "80 in the block before": append([]byte{0x80}, make([]byte, 31)...), "nothing": {}} {
		if _, err := unpad(b); err == nil {
			t.Errorf("padding of %s accepted", name)
		}
	}
}

func FuzzUnprotect(f *testing.F) {
	for _, step := range vectorWire {
		f.Add(unhex(f, step.wire))
	}
	f.Fuzz(func(t *testing.T, segment []byte) {
		s := NewSession(vectorKeys(t))
		tag, plain, err := s.Unprotect(segment)
		if err != nil {
			return
		}
		again, err := NewSession(vectorKeys(t)).Protect(tag, plain)
		if err != nil || len(again) > len(segment) {
			t.Errorf("accepted %X, but it is protected as %X, %v", segment, again, err)
		}
	})
}
