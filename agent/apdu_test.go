package agent

import (
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"testing"

	"lpad/agent/api"
	"lpad/apdu"
	"lpad/apdu/ber"
	"lpad/internal/fault"
)

// store is STORE DATA with one function, in so many blocks.
func store(function string, blocks int) []string {
	var out []string
	size := (len(function)/2 + blocks - 1) / blocks * 2
	for i := 0; i < len(function); i += size {
		part := function[i:min(i+size, len(function))]
		p1 := 0x11
		if i+size >= len(function) {
			p1 = 0x91
		}
		out = append(out, fmt.Sprintf("80E2%02X%02X%02X%s", p1, len(out), len(part)/2, part))
	}
	return out
}

func TestJudge(t *testing.T) {
	const (
		getEID   = "BF3E035C015A"
		enable   = "BF3111A00C5A0A98001032547698103254810100" // whatever is in it
		nickname = "BF29025A00"
	)
	for _, tc := range []struct {
		name     string
		commands []string
		force    bool
		refused  string // empty: let by
	}{
		{"GetEID", store(getEID, 1), false, ""},
		{"GetEID in blocks", store(getEID, 3), false, ""},
		{"two functions", append(store(getEID, 2), store("BF2000", 1)...), false, ""},
		{"select and read", []string{"00A40004023F00", "00B0000000", "80F24000024F00"}, false, ""},

		{"nickname", store(nickname, 1), false, "may change something"},
		{"nickname, forced", store(nickname, 1), true, ""},
		{"verify a PIN", []string{"0020000108FFFFFFFFFFFFFFFF"}, false, "may change something"},
		{"verify a PIN, forced", []string{"0020000108FFFFFFFFFFFFFFFF"}, true, ""},
		{"another class", []string{"A0A40000023F00"}, false, "may change something"},

		{"enable", store(enable, 1), false, "keeps a record"},
		{"enable, forced", store(enable, 1), true, "keeps a record"},
		{"enable, its tag cut apart", store(enable, len(enable)/2), true, "keeps a record"},
		{"enable behind something else", append(store(getEID, 1), store(enable, 2)...), true, "keeps a record"},
		{"enable behind something else in one", store(getEID+enable, 1), true, "no function of ES10"},
		{"disable", store("BF3200", 1), true, "lpactl disable"},
		{"delete", store("BF3300", 1), true, "lpactl delete"},
		{"memory reset", store("BF340482020780", 1), true, "keeps a record"},
		{"a package", store("BF3600", 1), true, "lpactl install"},
		{"a notification", store("BF3003800101", 1), true, "lpactl notifications drop"},

		{"second block alone", store(enable, 2)[1:], true, "not the next block"},
		{"first block alone", store(enable, 2)[:1], true, "is not the last block"},
		{"something between blocks", []string{store(enable, 2)[0], "80F20000", store(enable, 2)[1]}, true, "not the next block"},
		{"no TLV", []string{"80E2910001FF"}, true, "no function"},
		{"no data", []string{"80E29100"}, true, "no function"},
		{"MANAGE CHANNEL", []string{"0070000001"}, true, "MANAGE CHANNEL"},
		{"another channel", []string{"81F20000"}, true, "logical channel"},
		{"another channel yet", []string{"C0F20000"}, true, "logical channel"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var commands []apdu.Command
			for _, text := range tc.commands {
				b, err := hex.DecodeString(text)
				if err != nil {
					t.Fatal(err)
				}
				c, err := apdu.ParseCommand(b)
				if err != nil {
					t.Fatal(err)
				}
				commands = append(commands, c)
			}
			err := judge(commands, tc.force)
			if f := fault.Of(err); (err == nil) != (tc.refused == "") || err != nil && (f.Code != "apdu-refused" || !strings.Contains(f.Text+f.Next, tc.refused)) {
				t.Errorf("%v", err)
			}
		})
	}
}

// FuzzJudge: whatever the blocks are, no function that has an order passes.
func FuzzJudge(f *testing.F) {
	f.Add([]byte("\xBF\x31\x00"), uint8(2))
	f.Add([]byte("\xBF\x3E\x03\x5C\x01\x5A"), uint8(1))
	f.Fuzz(func(t *testing.T, function []byte, size uint8) {
		var commands []apdu.Command
		for rest := function; len(rest) > 0 && len(commands) < api.MaxAPDUs; {
			n := min(len(rest), int(size)+1)
			c := apdu.Command{CLA: 0x80, INS: insStoreData, P1: 0x11, P2: byte(len(commands)), Data: rest[:n:n]}
			if rest = rest[n:]; len(rest) == 0 {
				c.P1 = 0x91
			}
			commands = append(commands, c)
		}
		if len(commands) == 0 {
			return
		}
		err := judge(commands, true)
		if len(function) >= 2 && ownOrder(ber.Tag(function[0])<<8|ber.Tag(function[1])) != "" && err == nil {
			t.Errorf("%X passes", function)
		}
		var refused fault.Explainer
		if err != nil && !errors.As(err, &refused) {
			t.Error(err)
		}
	})
}
