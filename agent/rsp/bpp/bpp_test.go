package bpp

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"testing"

	"lpad/agent/rsp/rsptest/vectors"
	"lpad/apdu/ber"
)

func unhex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(strings.ReplaceAll(s, " ", ""))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func show(segments [][]byte) string {
	var list []string
	for _, s := range segments {
		list = append(list, fmt.Sprintf("%X", s))
	}
	return strings.Join(list, " | ")
}

func TestCut(t *testing.T) {
	for _, tc := range []struct{ name, in, want string }{
		{"several of each", "BF3615 BF2300 A006 870101 870102 A103 880103 A303 860104",
			"BF3615BF2300 | A006870101 | 870102 | A103 | 880103 | A303 | 860104"},
		{"with replaced keys", "BF361A BF2300 A003 870101 A103 880103 A206 870105 870106 A303 860104",
			"BF361ABF2300 | A003870101 | A103 | 880103 | A206870105 | 870106 | A303 | 860104"},
		{"lengths not minimal", "BF368115 BF238100 A08103870101 A103880103 A38103860104",
			"BF368115BF238100 | A08103870101 | A103 | 880103 | A38103 | 860104"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			_, _, segments, err := cut(unhex(t, tc.in))
			if err != nil || show(segments) != tc.want {
				t.Errorf("got  %s, %v\nwant %s", show(segments), err, tc.want)
			}
		})
	}
}

// parts of a package, to be damaged one at a time.
type parts struct{ bf23, a0, a1, a2, a3 []byte }

func good() parts {
	return parts{
		bf23: ber.Encode(0xBF23, []byte{0x82, 1, 1}, ber.Encode(0x80, []byte{1, 2}),
			ber.Encode(0xA6, []byte{0x80, 1, 0x88, 0x81, 1, 0x10}, ber.EncodeString(0x84, "host")), ber.Encode(0x5F49, make([]byte, 65)), ber.Encode(0x5F37, make([]byte, 64))),
		a0: ber.Encode(0xA0, ber.Encode(0x87, make([]byte, 24))),
		a1: ber.Encode(0xA1, ber.Encode(0x88, []byte("\xBF\x25\x03\x91"), make([]byte, 8)), ber.Encode(0x88, []byte("\x01A"), make([]byte, 8))),
		a3: ber.Encode(0xA3, ber.Encode(0x86, make([]byte, 24)), ber.Encode(0x86, make([]byte, 24))),
	}
}

func (p parts) join(more ...[]byte) []byte {
	return ber.Encode(0xBF36, append([][]byte{p.bf23, p.a0, p.a1, p.a2, p.a3}, more...)...)
}

func TestParse(t *testing.T) {
	b := good().join()
	p, err := Parse(b)
	if err != nil {
		t.Fatal(err)
	}
	if p.TransactionID().String() != "0102" || fmt.Sprintf("%X", p.Metadata()) != "BF2503910141" || p.Size() != len(b) || len(p.Segments()) != 8 {
		t.Errorf("id %v, metadata %X, size %d, %d segments", p.TransactionID(), p.Metadata(), p.Size(), len(p.Segments()))
	}
	if !bytes.Equal(bytes.Join(p.Segments(), nil), b) {
		t.Error("the segments are not the package")
	}
}

// One server in use makes segments of 1036 bytes where the specification has
// 1020: it is the card that has to say whether it takes them.
func TestParseLongSegments(t *testing.T) {
	long := ber.Encode(0x86, make([]byte, 1024+8))
	if len(long) != 1036 {
		t.Fatal(len(long))
	}
	g := good()
	g.a3 = ber.Encode(0xA3, long, long, ber.Encode(0x86, make([]byte, 24)))
	p, err := Parse(g.join())
	if err != nil {
		t.Fatal(err)
	}
	if s := p.Segments(); !bytes.Equal(s[len(s)-2], long) || !bytes.Equal(s[len(s)-3], long) {
		t.Error("long segments are not sent as they came")
	}
}

func TestParseRefuses(t *testing.T) {
	init := func(operation, id string) []byte {
		return ber.Encode(0xBF23, unhex(t, operation), unhex(t, id), unhex(t, "A609 800188 810110 840141 5F4900 5F3700"))
	}
	for name, b := range map[string][]byte{
		"nothing":          nil,
		"another tag":      ber.Encode(0xBF37),
		"empty":            ber.Encode(0xBF36),
		"cut short":        good().join()[:100],
		"trailing byte":    append(good().join(), 0),
		"extra element":    good().join(ber.Encode(0xA4)),
		"no BF23":          func() []byte { p := good(); p.bf23 = nil; return p.join() }(),
		"no A0":            func() []byte { p := good(); p.a0 = nil; return p.join() }(),
		"no A1":            func() []byte { p := good(); p.a1 = nil; return p.join() }(),
		"no A3":            func() []byte { p := good(); p.a3 = nil; return p.join() }(),
		"A0 is empty":      func() []byte { p := good(); p.a0 = ber.Encode(0xA0); return p.join() }(),
		"A1 is empty":      func() []byte { p := good(); p.a1 = ber.Encode(0xA1); return p.join() }(),
		"A2 is empty":      func() []byte { p := good(); p.a2 = ber.Encode(0xA2); return p.join() }(),
		"A3 is empty":      func() []byte { p := good(); p.a3 = ber.Encode(0xA3); return p.join() }(),
		"wrong order":      func() []byte { p := good(); p.a1, p.a0 = p.a0, p.a1; return p.join() }(),
		"86 among 87":      func() []byte { p := good(); p.a0 = ber.Encode(0xA0, ber.Encode(0x86)); return p.join() }(),
		"A3 breaks off":    func() []byte { p := good(); p.a3 = ber.Encode(0xA3, unhex(t, "8602")); return p.join() }(),
		"operation":        func() []byte { p := good(); p.bf23 = init("820102", "800101"); return p.join() }(),
		"no transactionId": func() []byte { p := good(); p.bf23 = init("820101", "8000"); return p.join() }(),
		"no id element":    func() []byte { p := good(); p.bf23 = init("820101", ""); return p.join() }(),
		"BF23 is empty":    func() []byte { p := good(); p.bf23 = ber.Encode(0xBF23); return p.join() }(),
		"88 too short": func() []byte {
			p := good()
			p.a1 = ber.Encode(0xA1, ber.Encode(0x88, make([]byte, 8)))
			return p.join()
		}(),
		"metadata is no TLV": func() []byte {
			p := good()
			p.a1 = ber.Encode(0xA1, ber.Encode(0x88, make([]byte, 20)))
			return p.join()
		}(),
		"metadata tag": func() []byte {
			p := good()
			p.a1 = ber.Encode(0xA1, ber.Encode(0x88, []byte("\xBF\x26\x00"), make([]byte, 8)))
			return p.join()
		}(),
		"keyType of 2 bytes": func() []byte {
			p := good()
			p.bf23 = ber.Encode(0xBF23, unhex(t, "820101 800101 A60A 80020088 810110 840141 5F4900 5F3700"))
			return p.join()
		}(),
		"segment is too long": func() []byte {
			p := good()
			p.a3 = ber.Encode(0xA3, ber.Encode(0x86, make([]byte, MaxSegment)))
			return p.join()
		}(),
		"too many segments": func() []byte {
			p := good()
			p.a3 = ber.Encode(0xA3, bytes.Repeat([]byte{0x86, 0}, MaxSegments))
			return p.join()
		}(),
		"too long": make([]byte, MaxSize+1),
	} {
		if p, err := Parse(b); !errors.Is(err, ErrStructure) || p != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// The package of the recorded session, cut as the card of that session got it.
func TestVector(t *testing.T) {
	b := vectors.Read(t, "session/bound-profile-package.der")
	p, err := Parse(b)
	if err != nil {
		t.Fatal(err)
	}
	var lengths []int
	for _, s := range p.Segments() {
		lengths = append(lengths, len(s))
	}
	if got, want := fmt.Sprint(lengths), "[184 28 2 60 2 42]"; got != want {
		t.Errorf("segments of %s bytes, want %s", got, want)
	}
	if !bytes.Equal(bytes.Join(p.Segments(), nil), b) {
		t.Error("the segments are not the package")
	}
	if !bytes.Equal(p.Metadata(), vectors.Read(t, "session/store-metadata.der")) {
		t.Errorf("metadata %X", p.Metadata())
	}
	if !bytes.Equal(p.TransactionID(), vectors.Read(t, "session/transaction-id.bin")) {
		t.Errorf("transactionId %v", p.TransactionID())
	}
}

func FuzzParse(f *testing.F) {
	second := good()
	second.a2 = second.a0
	f.Add(good().join())
	f.Add(second.join())
	f.Add(unhex(f, "BF3615 BF2300 A006 870101 870102 A103 880103 A303 860104"))
	f.Fuzz(func(t *testing.T, b []byte) {
		p, err := Parse(b)
		if err != nil {
			if !errors.Is(err, ErrStructure) {
				t.Fatalf("untyped error %v", err)
			}
			return
		}
		if !bytes.Equal(bytes.Join(p.Segments(), nil), b) || len(p.Segments()) > MaxSegments || len(p.TransactionID()) == 0 {
			t.Fatal("the segments are not the package")
		}
	})
}
