package main

import (
	"bytes"
	"slices"
	"strings"
	"testing"
	"time"

	"lpad/cmd/lpalab/lab"
	"lpad/modem/modemtest"
)

// The cells: every modem, by every path that it has, with every back-end.
func TestCells(t *testing.T) {
	all := cells("", "", "")
	paths := map[string]string{}
	for _, c := range all {
		if c.backend == lab.Neither {
			paths[c.modem.Name] += c.path + " "
		}
	}
	for name, want := range map[string]string{"u-blox": "ccho csim ", "quectel-ec20": "csim ", "quectel-eg25": "ccho ", "dell-dw5821e": "csim ", "fibocom-fm350": "ccho csim "} {
		if paths[name] != want {
			t.Errorf("%s by %q, want %q", name, paths[name], want)
		}
	}
	if len(paths) != len(modemtest.Dialects()) {
		t.Errorf("%d of %d modems", len(paths), len(modemtest.Dialects()))
	}
	sum := 0
	for _, p := range paths {
		sum += len(strings.Fields(p))
	}
	if len(all) != 3*sum {
		t.Errorf("%d cells of %d ways to a card", len(all), sum)
	}
	if one := cells("generic", "csim", lab.ModemManager); len(one) != 1 || one[0].String() != "generic csim modemmanager" {
		t.Errorf("one cell: %v", one)
	}
	if none := cells("generic", "qmi", ""); len(none) != 0 {
		t.Errorf("no such path, and yet %v", none)
	}
}

// sampleCells is a cell for each modem, with paths and back-ends in turn. ModemManager
// takes long to meet some modems again after a reset: these are without it.
func sampleCells() []cell {
	backends := lab.Backends()
	slow := []string{modemtest.SierraMC7455.Name, modemtest.QuectelEG9x.Name, modemtest.SIMComSIM7600.Name, modemtest.QuectelEC20MBN.Name}
	var out []cell
	for i, d := range modemtest.Dialects() {
		backend := backends[i%len(backends)]
		if slices.Contains(slow, d.Name) {
			backend = lab.Neither
		}
		paths := apduPaths(d)
		out = append(out, cell{d, paths[i/len(backends)%len(paths)], backend})
	}
	return out
}

// A sample of the matrix; the whole is "make matrix".
func TestMatrix(t *testing.T) {
	modemtest.RequireStack(t)
	dir, err := programs()
	if err != nil {
		t.Fatal(err)
	}
	var table bytes.Buffer
	all := sampleCells()
	seen := map[string]bool{}
	for _, c := range all {
		seen[c.path], seen[string(c.backend)] = true, true
	}
	if len(seen) != 5 {
		t.Errorf("the sample has only %v", seen)
	}
	begin := time.Now()
	// Three at a time: a cell waits most of the time.
	results, err := runMatrix(t.Context(), dir, all, 3, &table)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("in %v\n%s", time.Since(begin).Round(time.Second), table.String())
	for i, o := range results {
		if o.err != nil {
			t.Errorf("%s: %v\n%s", all[i], o.err, o.log)
		} else if o.rung == "" || o.online <= o.own || o.own <= 0 || o.bearer != all[i].backend.EndsAtBearer(all[i].modem) {
			t.Errorf("%s: %+v", all[i], o)
		}
	}
}

// What the table says of the ways in which a cell ends.
func TestVerdict(t *testing.T) {
	for _, tc := range []struct {
		o    outcome
		want string
	}{
		{outcome{}, "ok"},
		{outcome{bearer: true}, "ends at the bearer: PPP"},
		{outcome{bearer: true, err: errLost}, "FAILED: a fault has left the device in a wrong state"},
	} {
		if got := tc.o.verdict(); got != tc.want {
			t.Errorf("%q, want %q", got, tc.want)
		}
	}
}

// The modem's log is held against the new subscription and its access point.
func TestOnAir(t *testing.T) {
	for line, want := range map[string][]string{
		`attach of 001010123456789, APN "old.example"`:                    {"001010123456789", "old.example"},
		`attach of 001010123456789 refused: APN "wrong"`:                  {"001010123456789", "wrong"},
		`context 1 active: APN "internet" address 10.64.2.2`:              {"", "internet"},
		`context 1, APN "x", refused: requested service option not there`: {"", "x"},
		`context 1 ends`: nil,
	} {
		m := onAir.FindStringSubmatch(line)
		if want == nil {
			if m != nil {
				t.Errorf("%s: %q", line, m)
			}
			continue
		}
		if m == nil || m[1]+m[2] != want[0] || m[3] != want[1] {
			t.Errorf("%s: %q, want %q", line, m, want)
		}
	}
}

// Blocks are read off both ways to a card, and other commands are none.
func TestBlocks(t *testing.T) {
	sent := func(text string) modemtest.Entry { return modemtest.Entry{Kind: modemtest.Sent, Text: text} }
	got := lab.BlocksIn([]modemtest.Entry{
		sent(`AT+CGLA=1,16,"80E2910003BF2E00"`), sent(`AT+CSIM=16,"81E2910003BF2E00"`), sent(`AT+CGLA=1,18,"80E2110004BF2E0011"`),
		sent(`AT+CGLA=1,10,"80C0000006"`), sent("AT+CPIN?"), {Kind: modemtest.Happened, Text: `AT+CGLA=1,16,"80E2910003BF2E00"`},
	})
	if got[3] != 2 || got[4] != 1 || len(got) != 2 || got.Most() != 3 || got.Above(3) != 1 || got.Above(4) != 0 {
		t.Errorf("%v", got)
	}
	if !isEnable(sent(`AT+CGLA=1,50,"80E2910014BF3111A00C5A0A98530805000000000022810100"`)) || isEnable(sent(`AT+CGLA=1,520,"80E21102FFAABF31CC"`)) {
		t.Error("EnableProfile is not told from other digits")
	}
	if slices.Contains(apduPaths(modemtest.QuectelEG25), "csim") {
		t.Error("an EG25 by csim")
	}
}
