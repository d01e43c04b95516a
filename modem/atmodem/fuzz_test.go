package atmodem_test

import (
	"strings"
	"testing"

	"lpad/modem/atmodem"
)

// FuzzText: what comes out of a line is well-formed, whatever the line is.
func FuzzText(f *testing.F) {
	for _, s := range []string{"89330100000000000017", "8944020000000000022F", "98331000000000000071", `+CCID: "8933"`, "356938035643809", "3569380356438012",
		`1,"IP","a,b","",0,0`, `"`, `""`, `,,"`, "26/11/21,20:25:00+04", "80/01/06,00:00:00", "2026/11/21,20:25:00-96", "+", "\x00\xff", "SIM2", "+QUSIM: 1", "+CIEV: 3,1", "+cpin: READY"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if id, err := atmodem.ParseICCID(s); err == nil {
			if again, err := atmodem.ParseICCID(id); err != nil || again != id && !strings.HasPrefix(id, "98") {
				t.Errorf("ICCID %q of %q reads as %q, %v", id, s, again, err)
			}
		}
		if imei := atmodem.IMEI([]string{s}); imei != "" && (len(imei) != 15 || strings.Trim(imei, "0123456789") != "") {
			t.Errorf("IMEI %q", imei)
		}
		if f := atmodem.Fields(s); len(f) == 0 || len(f) > 1+strings.Count(s, ",") {
			t.Errorf("%d fields of %q", len(f), s)
		}
		if c, err := atmodem.ParseClock(s); err == nil && (c.Year() < 0 || c.Year() > 9999) {
			t.Errorf("time %v of %q", c, s)
		}
		if n, ok := atmodem.ParseSlot([]string{s}); ok && (n < 0 || n > 9) {
			t.Errorf("slot %d of %q", n, s)
		}
		var k atmodem.Memory
		if k.Heard(s) && strings.HasPrefix(strings.ToUpper(s), "+CIEV") {
			t.Errorf("%q tells of the SIM", s)
		}
		if plmn := atmodem.HomePLMN(s, 0); plmn != "" && len(plmn) != 5 && len(plmn) != 6 {
			t.Errorf("network %q of %q", plmn, s)
		}
	})
}

// FuzzFiles: files of a SIM may hold anything.
func FuzzFiles(f *testing.F) {
	for _, s := range []string{"\x00Test\xff\xff", "\x00\x80\x00T\x00e", "\x00\x80\xd8\x3d\xde\x00", "\x00\x81\x02\x08\x41\xc1", "\x00\x82\x02\x05\x30\xe1", "\x62\x04\x80\x02\x00\x11", "\x00\x00\x00\x11", "\x62\xff\x80"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		for _, r := range atmodem.ParseSPN(b) {
			if r < 0x20 || r == 0xFFFD {
				t.Errorf("name of %X has %U", b, r)
			}
		}
		if g := atmodem.ParseGID(b); len(g) > 2*len(b) || strings.HasSuffix(g, "FF") && len(g)%4 == 2 && strings.Trim(g, "F") == "" {
			t.Errorf("group %q of %X", g, b)
		}
		if n, err := atmodem.FileSize(b); err == nil && (n < 0 || n > 0xFFFF) {
			t.Errorf("size %d of %X", n, b)
		}
		if n := atmodem.MNCLength(b); n != 0 && n != 2 && n != 3 {
			t.Errorf("length %d of %X", n, b)
		}
	})
}
