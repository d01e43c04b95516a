package ber_test

import (
	"bytes"
	"strings"
	"testing"

	"lpad/apdu/ber"
)

// walk visits every element below r and says how many headers were read.
func walk(r *ber.Reader) (headers int, err error) {
	for {
		t, ok := r.Next()
		if !ok {
			return headers + ber.Headers(r), r.Err()
		}
		if t.Tag.Constructed() {
			n, err := walk(t.Reader())
			headers += n
			if err != nil {
				return headers + ber.Headers(r), err
			}
		}
	}
}

// nested is about size bytes of sequences in sequences, lengths in form 83 so
// that it can be built from the front.
func nested(size int) []byte {
	b := make([]byte, 0, size)
	for left := size - 5; left >= 0; left -= 5 {
		b = append(b, 0x30, 0x83, byte(left>>16), byte(left>>8), byte(left))
	}
	return b
}

// Hostile inputs cost a number of steps that is bounded by their length.
func TestWorkIsLinear(t *testing.T) {
	for _, c := range []struct {
		name string
		in   []byte
		most int
		err  string
	}{
		{"100 kB of nested sequences", nested(100_000), ber.MaxDepth + 1, "nested deeper than 16 levels"},
		{"sixteen levels", nested(80), 16, "nested deeper"},
		{"fifteen levels", nested(75), 15, ""},
		{"100 kB of empty elements", bytes.Repeat([]byte{0x05, 0x00}, 50_000), 50_000, ""},
		{"100 kB of empty sequences", bytes.Repeat([]byte{0x30, 0x00}, 50_000), 50_000, ""},
		{"200 kB of empty elements", bytes.Repeat([]byte{0x05, 0x00}, 100_000), ber.MaxHeaders + 1, "header reads"},
	} {
		t.Run(c.name, func(t *testing.T) {
			n, err := walk(ber.NewReader(c.in))
			if n > c.most {
				t.Errorf("%d header reads, want at most %d", n, c.most)
			}
			if c.err == "" && err != nil || c.err != "" && (err == nil || !strings.Contains(err.Error(), c.err)) {
				t.Errorf("error %v, want %q", err, c.err)
			}
		})
	}
}

// Looking for many tags in a long list is bounded too.
func TestFindIsBounded(t *testing.T) {
	r := ber.NewReader(bytes.Repeat([]byte{0x05, 0x00}, 50_000))
	for range 100 {
		r.Find(0x90)
	}
	if n := ber.Headers(r); n > ber.MaxHeaders+1 {
		t.Errorf("%d header reads", n)
	}
	if r.Err() == nil {
		t.Error("no error")
	}
}

func BenchmarkNested100kB(b *testing.B) {
	in := nested(100_000)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := walk(ber.NewReader(in)); err == nil {
			b.Fatal("taken")
		}
	}
}

func BenchmarkFlat100kB(b *testing.B) {
	in := bytes.Repeat([]byte{0x30, 0x00}, 50_000)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := walk(ber.NewReader(in)); err != nil {
			b.Fatal(err)
		}
	}
}
