package ber_test

import (
	"bytes"
	"encoding/asn1"
	"testing"

	"lpad/apdu/ber"
)

// seeds are elements of SGP.22 sessions and of hostile ones.
var seeds = []string{
	"BF3E035C015A",
	"BF3E125A1089049032123451234512345678901235",
	"6F1F8410A0000005591010FFFFFFFF8900000100A5049F6501FFE0058203020200",
	"BF2D3DA03BE3395A0A980010325476981032144F10A0000005591010FFFFFFFF89000011009F7001019004576F726B910253509204506C616E95010299020520",
	"BF3615BF2300A006870101870102A103880103A303860104",
	"BF4319A017301580020560A10B30098003EEEEEE8100820082020780",
	"30800000",
	"308300000501020304",
	"3082FFFF",
	"DF81010101",
}

func addSeeds(f *testing.F) {
	for _, s := range seeds {
		f.Add(unhex(f, s))
	}
	f.Add(nested(200))
}

// FuzzReader: no input panics or costs more than the limits allow, what Next
// gives is the input cut into pieces, and Find agrees with Next.
func FuzzReader(f *testing.F) {
	addSeeds(f)
	f.Fuzz(func(t *testing.T, in []byte) {
		if n, _ := walk(ber.NewReader(in)); n > len(in) {
			t.Errorf("%d header reads for %d bytes", n, len(in))
		}
		r := ber.NewReader(in)
		var pieces []byte
		for {
			e, ok := r.Next()
			if !ok {
				break
			}
			pieces = append(pieces, e.Raw...)
			if one, err := ber.Parse(e.Raw); err != nil || one.Tag != e.Tag || !bytes.Equal(one.Value, e.Value) {
				t.Errorf("%X: alone it is %v %X, %v", e.Raw, one.Tag, one.Value, err)
			}
			accessors(e)
		}
		if r.Err() == nil && !bytes.Equal(pieces, in) {
			t.Errorf("pieces %X of %X", pieces, in)
		}
		for _, tag := range []ber.Tag{0x30, 0x5A, 0xBF2D} {
			find(t, in, tag)
		}
	})
}

// accessors must not panic, whatever the value.
func accessors(e ber.TLV) {
	_, _ = e.Int()
	_, _ = e.Bool()
	_, _ = e.UTF8(32)
	_, _ = e.Octets(1, 16)
	if b, err := e.Bits(); err == nil {
		b.Has(b.Len())
		b.Marshal()
	}
}

func find(t *testing.T, in []byte, tag ber.Tag) {
	t.Helper()
	r, want := ber.NewReader(in), []byte(nil)
	for e, ok := r.Next(); ok; e, ok = r.Next() {
		if e.Tag == tag {
			want = e.Raw
			break
		}
	}
	got, ok := ber.NewReader(in).Find(tag)
	if ok != (want != nil) || !bytes.Equal(got.Raw, want) {
		t.Errorf("Find %v gives %X, want %X", tag, got.Raw, want)
	}
}

// FuzzDER: encoding again what was read gives the shortest form, which is the
// input itself if that was in shortest form. What encoding/asn1 takes as DER
// is taken here, unless it is over our limits.
func FuzzDER(f *testing.F) {
	addSeeds(f)
	f.Fuzz(func(t *testing.T, in []byte) {
		var std asn1.RawValue
		if rest, err := asn1.Unmarshal(in, &std); err == nil && len(rest) == 0 && std.Tag > 0 && std.Tag < 1<<14 && len(in) <= ber.MaxLength {
			if e, err := ber.Parse(in); err != nil || !bytes.Equal(e.Value, std.Bytes) {
				t.Errorf("%X: encoding/asn1 takes it, here: %v", in, err)
			}
		}
		out, shortest, err := reencode(ber.NewReader(in))
		if err != nil {
			return
		}
		if shortest != bytes.Equal(in, out) {
			t.Errorf("%X became %X, shortest form: %v", in, out, shortest)
		}
		again, shortest, err := reencode(ber.NewReader(out))
		if err != nil || !shortest || !bytes.Equal(again, out) {
			t.Errorf("%X became %X at the second time, %v", out, again, err)
		}
	})
}

// reencode builds the list anew and says whether every length was in shortest
// form.
func reencode(r *ber.Reader) (out []byte, shortest bool, err error) {
	shortest = true
	for e, ok := r.Next(); ok; e, ok = r.Next() {
		value, s := e.Value, true
		if e.Tag.Constructed() {
			if value, s, err = reencode(e.Reader()); err != nil {
				return nil, false, err
			}
		}
		n := len(e.Value)
		header := len(e.Raw) - n - len(e.Tag.String())/2
		minimal := header == 1 && n < 128 || header == 2 && n >= 128 && n < 256 || header == 3 && n >= 256 && n < 1<<16 || header == 4 && n >= 1<<16
		shortest = shortest && s && minimal
		out = append(out, ber.Encode(e.Tag, value)...)
	}
	return out, shortest, r.Err()
}

// FuzzInt: every number comes back.
func FuzzInt(f *testing.F) {
	for _, v := range []int64{0, 1, -1, 127, 128, -128, -129, 1 << 40} {
		f.Add(v)
	}
	f.Fuzz(func(t *testing.T, v int64) {
		e, err := ber.Parse(ber.EncodeInt(0x80, v))
		if err != nil {
			t.Fatal(err)
		}
		if got, err := e.Int(); got != v || err != nil {
			t.Errorf("%d came back as %d, %v", v, got, err)
		}
	})
}
