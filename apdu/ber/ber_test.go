package ber_test

import (
	"bytes"
	"encoding/hex"
	"errors"
	"strings"
	"testing"

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

func TestParseHeader(t *testing.T) {
	for _, c := range []struct {
		name, in      string
		tag           ber.Tag
		header, value int
		err           string
	}{
		{"one byte", "5A0A", 0x5A, 2, 10, ""},
		{"two bytes", "BF2D03", 0xBF2D, 3, 3, ""},
		{"three bytes", "BF818201", 0, 0, 0, "longer than three bytes"},
		{"three byte tag", "DF810101", 0xDF8101, 4, 1, ""},
		{"81", "3081FF", 0x30, 3, 255, ""},
		{"82", "30820100", 0x30, 4, 256, ""},
		{"83", "3083010000", 0x30, 5, 65536, ""},
		{"81 where none is needed", "308105", 0x30, 3, 5, ""},
		{"83 where none is needed", "3083000005", 0x30, 5, 5, ""},
		{"EMV tag", "9F0206", 0x9F02, 3, 6, ""},
		{"empty", "", 0, 0, 0, "tag is missing"},
		{"end of contents", "0000", 0, 0, 0, "tag 00"},
		{"cut tag", "BF", 0, 0, 0, "tag is cut off"},
		{"cut three byte tag", "BF81", 0, 0, 0, "tag is cut off"},
		{"tag number with zeros", "BF800100", 0, 0, 0, "begins with zeros"},
		{"no length", "5A", 0, 0, 0, "at byte 1: length is missing"},
		{"indefinite", "3080", 0, 0, 0, "indefinite"},
		{"84", "308400000001", 0, 0, 0, "longer than three bytes"},
		{"cut length", "308201", 0, 0, 0, "length is cut off"},
	} {
		t.Run(c.name, func(t *testing.T) {
			tag, header, value, err := ber.ParseHeader(unhex(t, c.in))
			if c.err != "" {
				if err == nil || !strings.Contains(err.Error(), c.err) || !errors.Is(err, ber.ErrMalformed) {
					t.Fatalf("error %v, want %q", err, c.err)
				}
				return
			}
			if err != nil || tag != c.tag || header != c.header || value != c.value {
				t.Fatalf("got %v %d %d %v, want %v %d %d", tag, header, value, err, c.tag, c.header, c.value)
			}
		})
	}
}

func TestParse(t *testing.T) {
	in := unhex(t, "BF3E 8112 5A10 89049032123451234512345678901235")
	tlv, err := ber.Parse(in)
	if err != nil {
		t.Fatal(err)
	}
	if tlv.Tag != 0xBF3E || !bytes.Equal(tlv.Raw, in) || !bytes.Equal(tlv.Value, in[4:]) {
		t.Fatalf("got %v %X", tlv.Tag, tlv.Value)
	}
	if &tlv.Raw[0] != &in[0] || cap(tlv.Value) != len(tlv.Value) {
		t.Error("the value must be a part of the input that append cannot write behind")
	}
	for _, c := range []struct{ name, in, err string }{
		{"nothing", "", "empty input"},
		{"cut", "5A0A98", "5A has 10 bytes, 1 are there"},
		{"left over", "5A019801", "1 bytes left over"},
	} {
		if _, err := ber.Parse(unhex(t, c.in)); err == nil || !strings.Contains(err.Error(), c.err) {
			t.Errorf("%s: error %v, want %q", c.name, err, c.err)
		}
	}
}

func TestReader(t *testing.T) {
	list := "4F01AA 9F700101 5A02BBCC 30020500"
	for _, c := range []struct {
		name string
		read func(t *testing.T, r *ber.Reader)
		err  string
	}{
		{"in order", func(t *testing.T, r *ber.Reader) {
			for _, tag := range []ber.Tag{0x4F, 0x9F70, 0x5A, 0x30} {
				if got := r.Read(tag); got.Tag != tag {
					t.Errorf("got %v, want %v", got.Tag, tag)
				}
			}
		}, ""},
		{"wrong tag sticks", func(t *testing.T, r *ber.Reader) {
			r.Read(0x4F)
			r.Read(0x5A)
			r.Read(0x9F70)
			if _, ok := r.Next(); ok || !r.Empty() {
				t.Error("a failed reader went on")
			}
		}, "at byte 3: 5A expected, 9F70 found"},
		{"optional", func(t *testing.T, r *ber.Reader) {
			if _, ok := r.Optional(0x5A); ok {
				t.Error("5A is not next")
			}
			if v, ok := r.Optional(0x4F); !ok || v.Value[0] != 0xAA {
				t.Error("4F is next")
			}
			r.Find(0x30)
		}, ""},
		{"find", func(t *testing.T, r *ber.Reader) {
			if _, ok := r.Find(0x90); ok {
				t.Error("90 is not there")
			}
			if v, ok := r.Find(0x5A); !ok || v.Value[1] != 0xCC {
				t.Error("5A is there")
			}
			if _, ok := r.Find(0x4F); ok {
				t.Error("4F was passed over")
			}
			c := r.Read(0x30).Reader()
			c.Read(0x05)
			if err := c.Finish(); err != nil {
				t.Error(err)
			}
		}, ""},
		{"next", func(t *testing.T, r *ber.Reader) {
			n := 0
			for !r.Empty() {
				if _, ok := r.Next(); ok {
					n++
				}
			}
			if n != 4 {
				t.Errorf("%d elements", n)
			}
		}, ""},
		{"left over", func(t *testing.T, r *ber.Reader) { r.Read(0x4F) }, "at byte 3: 12 bytes left over"},
		{"read past the end", func(t *testing.T, r *ber.Reader) {
			r.Find(0x30)
			r.Read(0x31)
		}, "at byte 15: 31 expected, nothing found"},
		{"children of a primitive", func(t *testing.T, r *ber.Reader) {
			c := r.Read(0x4F).Reader()
			c.Read(0x01)
			if err := c.Err(); err == nil || !strings.Contains(err.Error(), "4F has no children") {
				t.Error(err)
			}
			r.Find(0x30)
		}, ""},
		{"offsets go down", func(t *testing.T, r *ber.Reader) {
			s, _ := r.Find(0x30)
			c := s.Reader()
			c.Read(0x06)
			if err := c.Err(); err == nil || !strings.Contains(err.Error(), "at byte 13: 06 expected, 05 found") {
				t.Error(err)
			}
		}, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := ber.NewReader(unhex(t, list))
			c.read(t, r)
			err := r.Finish()
			if c.err == "" && err != nil || c.err != "" && (err == nil || !strings.Contains(err.Error(), c.err)) {
				t.Errorf("error %v, want %q", err, c.err)
			}
		})
	}
}

// An element that was not there gives its error wherever it is used.
func TestAbsentElement(t *testing.T) {
	r := ber.NewReader(unhex(t, "4F01AA"))
	o, _ := r.Optional(0x90)
	f, _ := r.Find(0x91)
	m := r.Read(0x92)
	for _, tlv := range []ber.TLV{o, f, m} {
		_, e1 := tlv.Int()
		_, e2 := tlv.Bool()
		_, e3 := tlv.UTF8(9)
		_, e4 := tlv.Octets(0, 9)
		_, e5 := tlv.Bits()
		e6 := tlv.Reader().Finish()
		for i, err := range []error{e1, e2, e3, e4, e5, e6} {
			if !errors.Is(err, ber.ErrMalformed) {
				t.Errorf("accessor %d: %v", i, err)
			}
		}
	}
	if err := (ber.TLV{}).Reader().Finish(); err == nil {
		t.Error("the zero TLV has no children")
	}
}

func TestInt(t *testing.T) {
	for v, want := range map[int64]string{
		0: "00", 1: "01", 127: "7F", 128: "0080", 255: "00FF", 256: "0100", -1: "FF", -128: "80", -129: "FF7F",
		1<<63 - 1: "7FFFFFFFFFFFFFFF", -1 << 63: "8000000000000000",
	} {
		b := ber.EncodeInt(0x02, v)
		if got := hex.EncodeToString(b[2:]); !strings.EqualFold(got, want) {
			t.Errorf("%d is %s, want %s", v, got, want)
		}
		tlv, err := ber.Parse(b)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := tlv.Int(); got != v || err != nil {
			t.Errorf("%d came back as %d, %v", v, got, err)
		}
	}
	for in, want := range map[string]int64{"800400000005": 5, "8002FFFF": -1} {
		tlv, _ := ber.Parse(unhex(t, in))
		if got, err := tlv.Int(); got != want || err != nil {
			t.Errorf("%s: %d, %v", in, got, err)
		}
	}
	for _, in := range []string{"8000", "8009000000000000000001"} {
		tlv, _ := ber.Parse(unhex(t, in))
		if _, err := tlv.Int(); err == nil {
			t.Errorf("%s was taken", in)
		}
	}
}

func TestBits(t *testing.T) {
	for _, c := range []struct {
		in, minimal string
		set         []int
	}{
		{"0780", "0780", []int{0}}, {"0480", "0780", []int{0}}, {"0080", "0780", []int{0}},
		{"0640", "0640", []int{1}}, {"04F0", "04F0", []int{0, 1, 2, 3}}, {"00", "00", nil}, {"07", "00", nil},
		{"0000", "00", nil}, {"07C0", "0780", []int{0}}, {"00000100", "000001", []int{15}},
	} {
		tlv, err := ber.Parse(ber.Encode(0x81, unhex(t, c.in)))
		if err != nil {
			t.Fatal(err)
		}
		b, err := tlv.Bits()
		if err != nil {
			t.Errorf("%s: %v", c.in, err)
		}
		var set []int
		for i := -1; i < 40; i++ {
			if b.Has(i) {
				set = append(set, i)
			}
		}
		if len(set) != len(c.set) {
			t.Errorf("%s has bits %v, want %v", c.in, set, c.set)
		}
		if got := b.Marshal(); !bytes.Equal(got, unhex(t, c.minimal)) {
			t.Errorf("%s becomes %X, want %s", c.in, got, c.minimal)
		}
		if got := ber.EncodeBits(0x81, ber.NewBits(c.set...)); !bytes.Equal(got[2:], unhex(t, c.minimal)) {
			t.Errorf("bits %v become %X, want %s", c.set, got, c.minimal)
		}
	}
	for _, in := range []string{"", "0880"} {
		tlv, _ := ber.Parse(ber.Encode(0x81, unhex(t, in)))
		if _, err := tlv.Bits(); err == nil {
			t.Errorf("%q was taken", in)
		}
	}
	if ber.NewBits(0, 9).Len() != 10 {
		t.Error("Len")
	}
}

func TestScalars(t *testing.T) {
	element := func(v string) ber.TLV {
		tlv, err := ber.Parse(ber.Encode(0x80, unhex(t, v)))
		if err != nil {
			t.Fatal(err)
		}
		return tlv
	}
	for in, want := range map[string]bool{"00": false, "FF": true, "01": true} {
		if got, err := element(in).Bool(); got != want || err != nil {
			t.Errorf("%s: %v, %v", in, got, err)
		}
	}
	if _, err := element("0000").Bool(); err == nil {
		t.Error("a boolean of two bytes was taken")
	}
	if s, err := element("576F726B").UTF8(4); s != "Work" || err != nil {
		t.Errorf("%q, %v", s, err)
	}
	if _, err := element("576F726B").UTF8(3); err == nil {
		t.Error("a long text was taken")
	}
	if _, err := element("FF").UTF8(3); err == nil {
		t.Error("FF was taken for text")
	}
	if b, err := element("0102").Octets(1, 2); len(b) != 2 || err != nil {
		t.Errorf("%X, %v", b, err)
	}
	for _, in := range []string{"", "010203"} {
		if _, err := element(in).Octets(1, 2); err == nil {
			t.Errorf("%q was taken", in)
		}
	}
}

func TestEncode(t *testing.T) {
	for _, c := range []struct {
		name string
		got  []byte
		want string
	}{
		{"parts", ber.Encode(0xBF2D, ber.Encode(0x5C, []byte{0x5A}), ber.EncodeString(0x90, "W")), "BF2D06 5C015A 900157"},
		{"empty", ber.Encode(0xBF22), "BF2200"},
		{"three byte tag", ber.Encode(0xDF8101, []byte{1}), "DF81010101"},
		{"true", ber.EncodeBool(0x81, true), "8101FF"},
		{"false", ber.EncodeBool(0x81, false), "810100"},
		{"127", ber.Encode(4, make([]byte, 127))[:2], "047F"},
		{"128", ber.Encode(4, make([]byte, 128))[:3], "048180"},
		{"256", ber.Encode(4, make([]byte, 256))[:4], "04820100"},
		{"65536", ber.Encode(4, make([]byte, 65536))[:5], "0483010000"},
	} {
		if want := unhex(t, c.want); !bytes.Equal(c.got, want) {
			t.Errorf("%s: %X, want %X", c.name, c.got, want)
		}
	}
}

func TestMistakesOfTheProgramPanic(t *testing.T) {
	for name, f := range map[string]func(){
		"no tag":    func() { ber.Encode(0) },
		"half tag":  func() { ber.Encode(0xBF) },
		"long tag":  func() { ber.Encode(0x1BF2D00) },
		"long":      func() { ber.Encode(4, make([]byte, ber.MaxLength+1)) },
		"bit below": func() { ber.NewBits(-1) },
		"bit above": func() { ber.NewBits(256) },
	} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("%s: no panic", name)
				}
			}()
			f()
		}()
	}
}
