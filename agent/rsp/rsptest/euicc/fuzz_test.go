package euicc

import (
	"bytes"
	"encoding/json"
	"testing"
)

// FuzzTransmit sends any sequence of APDUs, each behind a length byte, to a card
// that is in the middle of things: it must answer each with a status word and
// keep its state whole.
func FuzzTransmit(f *testing.F) {
	template := twoProfiles()
	for _, s := range []string{
		"0070000001", selectISDR, "80E2910006BF3E035C015A", "80E2910003BF2E00", "80E2910003BF2D00", "80E2910003BF2800", "80C0000000",
		"80E2910014BF3111A00C5A0A980010325476981032148101FF", "801200000B", "00A4000C022FE2", "00B000000A", "80E2910003BF3600",
		"80E2910007BF340482020780", "80E291000FBF330C5A0A98001032547698103214", "80E2910002A300", "80F2000000", "0070800100",
	} {
		b := unhex(f, s)
		f.Add(append([]byte{byte(len(b))}, b...))
	}
	d := newDownload(f, Config{})
	d.bound(f)
	var script []byte
	for _, s := range d.segments(f) {
		for n := 0; len(s) > 0; n++ {
			block := s[:min(200, len(s))]
			s = s[len(block):]
			p1 := byte(lastBlock)
			if len(s) > 0 {
				p1 = moreBlocks
			}
			script = append(script, byte(5+len(block)), 0x81, insStoreData, p1, byte(n), byte(len(block)))
			script = append(script, block...)
		}
	}
	f.Add(script)
	f.Fuzz(func(t *testing.T, script []byte) {
		config := template
		config.Identities, config.Trusted = d.card.config.Identities, d.card.config.Trusted
		config.Random = bytes.NewReader(make([]byte, 1<<10))
		store := new(MemoryStore)
		config.Store = store
		c := newCard(t, config)
		c.session = d.card.session // bound, so that a package may come
		c.channels[0].isdr = true
		channel1(t, c)
		for len(script) > 0 {
			n := min(int(script[0]), len(script)-1)
			response, err := c.Transmit(t.Context(), script[1:1+n])
			if err != nil || len(response) < 2 || len(response) > 258 {
				t.Fatalf("%X: %X %v", script[1:1+n], response, err)
			}
			script = script[1+n:]
		}
		enabled := 0
		for _, p := range c.Profiles() {
			if p.Enabled {
				enabled++
			}
		}
		if enabled > 1 {
			t.Fatalf("%d profiles are enabled", enabled)
		}
		if state, err := store.Load(); err != nil || !json.Valid(state) {
			t.Fatalf("stored state: %v", err)
		}
		c.Reset()
		if !c.HasPower() {
			t.Fatal("the card does not wake up")
		}
	})
}
