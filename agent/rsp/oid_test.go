package rsp_test

import (
	"encoding/hex"
	"strings"
	"testing"

	"lpad/agent/rsp"
)

func TestEncodeOID(t *testing.T) {
	for _, tc := range []struct{ text, want string }{
		{"1.3.6.1.4.1.99999.1.1", "2b06010401868d1f0101"},
		{"2.999.10", "88370a"},
		{"0.0", "00"},
		{"0.39", "27"},
		{"1.0.0", "2800"},
		{"2.40", "78"},
		{"2.100.72057594037927935", "8134ffffffffffffff7f"},
	} {
		got, err := rsp.EncodeOID(tc.text)
		if err != nil || hex.EncodeToString(got) != tc.want {
			t.Errorf("%s: %x, %v, want %s", tc.text, got, err, tc.want)
		}
	}
	for _, bad := range []string{"", "1", "1.", "1.40", "0.40.1", "3.1", "1.03", "1.2.x", "1.2.-3", "1.2. 3", "2.72057594037927936", "2.18446744073709551615", "1.2" + strings.Repeat(".1", 40)} {
		if got, err := rsp.EncodeOID(bad); err == nil {
			t.Errorf("%q: %x", bad, got)
		}
	}
}
