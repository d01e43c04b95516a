package modemtest

import (
	"context"
	"strings"
	"testing"
)

// deafCard answers every command with "not found".
type deafCard struct{}

func (deafCard) Transmit(context.Context, []byte) ([]byte, error) { return []byte{0x6A, 0x82}, nil }
func (deafCard) Reset()                                           {}

// Whatever a host writes, every command line ends in one final code.
func FuzzCommandLine(f *testing.F) {
	seeds := []string{
		"", "E0V1", "+CMEE=1;+CGMI", `+CGDCONT=1,"IP","a;b,c",,0,0`, "+CGDCONT=?", "+CGDCONT?", "&F", "&", "D*99***1#", "D*99",
		`+CCHO="A0000005591010FFFFFFFF8900000100"`, `+CGLA=1,10,"80C0000000"`, "+CRSM=176,12258,0,0,10", "+CSIM=8,\"00A40004\"",
		"+=", "+", `+CGDCONT="`, "+CFUN=4,0", "+COPS=3,2", "+QUIMSLOT=2", "^SWITCH_SLOT=1;+CPIN?", `+QMBNCFG="Select","x"`, "#QSS=2;#QSS?", "+CSIM=1", `\Q3`, "!ICCID?", "+CGACT=1,99999999999999999999", "+UIPADDR=-1", ";;;", "\x00\xff",
	}
	dialects := Dialects()
	for i, s := range seeds {
		f.Add(s, uint(i))
	}
	f.Fuzz(func(t *testing.T, line string, dialect uint) {
		if strings.Contains(line, "+CFUN") || strings.Contains(line, "+cfun") { // starts goroutines; tested elsewhere
			return
		}
		m, err := New(Config{Card: deafCard{}, Dialect: dialects[dialect%uint(len(dialects))]})
		if err != nil {
			t.Fatal(err)
		}
		r := m.run(t.Context(), m.newPort("fuzz", "", nil), line)
		if r.final == "" {
			t.Errorf("no final code: %q", r.lines)
		}
		for _, l := range append(r.lines, r.final) {
			if strings.ContainsAny(l, "\r\n") {
				t.Errorf("line break in %q", l)
			}
		}
		if err := m.Close(); err != nil {
			t.Error(err)
		}
	})
}

// What a card says in a FETCH or in a file never crashes the modem.
func FuzzCardData(f *testing.F) {
	seeds := [][]byte{
		{0xD0, 0x09, 0x81, 0x03, 0x01, 0x01, 0x04, 0x82, 0x02, 0x81, 0x82},
		{0xD0, 0x81, 0x09, 0x81, 0x03, 0x01, 0x25, 0x00, 0x82, 0x02, 0x81, 0x82},
		{0xD0}, {0xD0, 0x81}, {0xD0, 0x02, 0x82}, {0x08, 0x09, 0x10, 0x10, 0x10, 0x32, 0x54, 0x76, 0x98}, nil, {0xFF, 0xFF}, append([]byte{0xFF}, make([]byte, 255)...),
	}
	for _, s := range seeds {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		if d, ok := commandDetails(b); ok && len(terminalResponse(d)) != 17 {
			t.Error("TERMINAL RESPONSE of another length")
		}
		if imsi := decodeIMSI(b); strings.Trim(imsi, "0123456789") != "" {
			t.Errorf("IMSI %q", imsi)
		}
	})
}

func TestCommandDetails(t *testing.T) {
	for _, tt := range []struct {
		name string
		in   []byte
		want [3]byte
		ok   bool
	}{
		{"REFRESH", []byte{0xD0, 0x09, 0x81, 0x03, 0x01, 0x01, 0x09, 0x82, 0x02, 0x81, 0x82}, [3]byte{1, 1, 9}, true},
		{"length in two octets", []byte{0xD0, 0x81, 0x09, 0x01, 0x03, 0x01, 0x25, 0x00, 0x82, 0x02, 0x81, 0x82}, [3]byte{1, 0x25, 0}, true},
		{"no details", []byte{0xD0, 0x04, 0x82, 0x02, 0x81, 0x82}, [3]byte{}, false},
		{"another template", []byte{0xD1, 0x05, 0x81, 0x03, 0x01, 0x01, 0x09}, [3]byte{}, false},
		{"cut off", []byte{0xD0, 0x09, 0x81, 0x03, 0x01}, [3]byte{}, false},
	} {
		if got, ok := commandDetails(tt.in); got != tt.want || ok != tt.ok {
			t.Errorf("%s: %v %v, want %v %v", tt.name, got, ok, tt.want, tt.ok)
		}
	}
}
