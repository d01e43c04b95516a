package pcsc_test

import (
	"encoding/hex"
	"slices"
	"strings"
	"testing"

	"lpad/apdu/pcsc"
	"lpad/internal/fault"
)

func TestChoose(t *testing.T) {
	card := func(name, atr string, in ...bool) pcsc.ReaderInfo {
		b, err := hex.DecodeString(atr)
		if err != nil {
			t.Fatal(err)
		}
		return pcsc.ReaderInfo{Name: name, CardPresent: atr != "", ATR: b, InUse: len(in) > 0}
	}
	all := []pcsc.ReaderInfo{
		card("Yubico YubiKey OTP+FIDO+CCID 00 00", "3BFD13"),
		card("Nitrokey Nitrokey 3 [CCID/ICCD Interface] 01 00", "3B8F01"),
		card("Gemalto PC Twin Reader 02 00", "3B9F96", true),
		card("ACS ACR38U-CCID 03 00", ""),
		card("Identiv uTrust 2700 R 04 00", "3B9F95"),
		card("canokeys.org OpenPGP PIV OATH 05 00", "3BF711"),
	}
	for _, c := range []struct {
		name  string
		cfg   pcsc.Config
		only  string
		want  string // numbers of the readers
		fault string
	}{
		{name: "any: tokens left alone, the free one first", want: "04 02"},
		{name: "by name", cfg: pcsc.Config{Reader: "Gemalto"}, want: "02"},
		{name: "a token by name", cfg: pcsc.Config{Reader: "YubiKey"}, want: "00"},
		{name: "by ATR", cfg: pcsc.Config{ATR: "3b 9f:96"}, want: "02"},
		{name: "by a digit left open", cfg: pcsc.Config{ATR: "3B9F9?"}, want: "04 02"},
		{name: "by its beginning", cfg: pcsc.Config{ATR: "3B9*"}, want: "04 02"},
		{name: "a token by ATR", cfg: pcsc.Config{ATR: "3BFD*"}, want: "00"},
		{name: "by name and ATR", cfg: pcsc.Config{Reader: "Identiv", ATR: "3B9F96"}, fault: "pcsc-no-card"},
		{name: "the same as before", only: "Gemalto PC Twin Reader 02 00", want: "02"},
		{name: "the same, gone", only: "Gemalto PC Twin Reader 07 00", fault: "pcsc-no-reader"},
		{name: "empty", cfg: pcsc.Config{Reader: "ACS"}, fault: "pcsc-no-card"},
		{name: "no such", cfg: pcsc.Config{Reader: "Omnikey"}, fault: "pcsc-no-reader"},
	} {
		names, err := pcsc.Choose(all, c.cfg, c.only)
		var got []string
		for _, n := range names {
			got = append(got, strings.Fields(n)[len(strings.Fields(n))-2])
		}
		if strings.Join(got, " ") != c.want || (err != nil) != (c.fault != "") || err != nil && fault.Of(err).Code != c.fault {
			t.Errorf("%s: %q, %v; want %q, %s", c.name, got, err, c.want, c.fault)
		}
	}
	onlyTokens := slices.Clone(all[:2])
	if _, err := pcsc.Choose(onlyTokens, pcsc.Config{}, ""); err == nil || !strings.Contains(err.Error(), "security token") {
		t.Errorf("nothing but tokens: %v", err)
	}
}

func TestCheckATR(t *testing.T) {
	for pattern, ok := range map[string]bool{
		"": true, "3B": true, "3b 9F:96": true, "3?": true, "3B*": true, "3*": true, "*": true,
		"3": false, "3B*9F": false, "xyz": false, "3B 9": false, strings.Repeat("3B", 34): false,
	} {
		if err := pcsc.CheckATR(pattern); (err == nil) != ok {
			t.Errorf("%q: %v", pattern, err)
		}
	}
}

// FuzzMatchATR: a pattern that is accepted never panics, and a whole ATR fits itself alone.
func FuzzMatchATR(f *testing.F) {
	f.Add("3B9?*", []byte{0x3B, 0x9F})
	f.Add("3B", []byte{})
	f.Fuzz(func(t *testing.T, pattern string, atr []byte) {
		if pcsc.CheckATR(pattern) == nil && pcsc.MatchATR(pattern, atr) && pattern != "" && !strings.ContainsAny(pattern, "?*") {
			if plain := hex.EncodeToString(atr); !strings.EqualFold(strings.NewReplacer(" ", "", ":", "").Replace(pattern), plain) {
				t.Errorf("%q fits %s", pattern, plain)
			}
		}
		if len(atr) > 0 && !pcsc.MatchATR(hex.EncodeToString(atr), atr) {
			t.Errorf("%X does not fit itself", atr)
		}
	})
}
