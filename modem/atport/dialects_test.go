package atport_test

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"lpad/agent/rsp"
	"lpad/agent/rsp/rsptest/euicc"
	"lpad/apdu"
	"lpad/apdu/ber"
	"lpad/modem/atport"
	"lpad/modem/modemtest"
	"lpad/modem/quirks"
)

const (
	iccidA = "89330100000000000017"
	iccidB = "89440200000000000022"
)

func iccid(t *testing.T, s string) rsp.ICCID {
	t.Helper()
	id, err := rsp.ParseICCID(s)
	if err != nil {
		t.Fatal(err)
	}
	return id
}

// bench is a modem of a dialect with a software eUICC, profile A enabled, and a
// port to it.
type bench struct {
	*modemtest.Modem
	card *euicc.Card
	dir  string // of its ttys
	mark string
}

func newBench(t *testing.T, d modemtest.Dialect, change ...func(*modemtest.Config)) *bench {
	t.Helper()
	card, err := euicc.New(euicc.Config{Profiles: []euicc.Profile{
		{ICCID: iccid(t, iccidA), IMSI: "001010123456789", SPN: "TestOne", Enabled: true},
		{ICCID: iccid(t, iccidB), IMSI: "310410000000022", MNCLength: 3, SPN: "ProfileB"},
	}})
	if err != nil {
		t.Fatal(err)
	}
	b := &bench{card: card, dir: t.TempDir(), mark: filepath.Join(t.TempDir(), "off")}
	cfg := modemtest.Config{Card: card, Dialect: d, Subscriptions: []modemtest.Subscription{
		{IMSI: "001010123456789", APN: "one", PLMN: "00101", Operator: "Test One", Address: netip.MustParsePrefix("10.1.1.2/24")},
		{IMSI: "310410000000022", APN: "two", PLMN: "310410", Operator: "Test Two", Address: netip.MustParsePrefix("10.1.2.2/24")},
	}, Delays: modemtest.Delays{SIM: 150 * time.Millisecond, Boot: 400 * time.Millisecond, Registration: 10 * time.Millisecond}}
	for _, c := range change {
		c(&cfg)
	}
	if b.Modem, err = modemtest.New(cfg); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := b.Modem.Close(); err != nil {
			t.Error(err)
		}
	})
	for _, name := range []string{"ttyUSB0", "ttyUSB1"} {
		if _, err := b.OpenPTY(filepath.Join(b.dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := b.Wait(t.Context(), func(s modemtest.State) bool { return s.SIM.State == modemtest.SIMReady }); err != nil {
		t.Fatal(err)
	}
	return b
}

// config is that of a port which finds the modem by its IMEI when it has
// another name.
func (b *bench) config(learned *quirks.Memory) atport.Config {
	return atport.Config{
		Path: filepath.Join(b.dir, "ttyUSB1"), OffMark: b.mark, Learned: learned,
		Find: func() []string {
			paths, _ := filepath.Glob(filepath.Join(b.dir, "ttyUSB*"))
			return paths
		},
	}
}

// enable runs ES10c.EnableProfile (SGP.22 v2.5, section 5.7.16).
func enable(t *testing.T, p *atport.Port, target string, refresh bool) {
	t.Helper()
	ctx := t.Context()
	ch, err := p.OpenChannel(ctx, rsp.ISDR)
	if err != nil {
		t.Fatal(err)
	}
	data := ber.Encode(0xBF31, ber.Encode(0xA0, iccid(t, target).ProfileTLV()), ber.EncodeBool(0x81, refresh))
	r, err := ch.Transmit(ctx, apdu.Command{CLA: 0x80, INS: 0xE2, P1: 0x91, Data: data})
	if err != nil || len(r.Data) != 6 || r.Data[5] != 0 {
		t.Fatalf("enable: %X, %v", r.Data, err)
	}
	if err := ch.Close(ctx); err != nil && !refresh { // a REFRESH may have closed it already
		t.Error(err)
	}
}

// Every modem shows the new profile in the end, by the rung that its kind needs,
// is on, and has said which rung that was; the next time it begins with that one.
func TestRereadOfEveryDialect(t *testing.T) {
	type row struct{ dialect, rung string }
	table := []row{
		{"u-blox", "cfun-0-1"},
		{"generic", "cfun-0-1"},
		{"quectel-ec20", "cfun-0-1"},
		{"quectel-ec20-mbn", "cfun-0-1"},
		{"quectel-eg25", "refresh"},
		{"quectel-eg9x", "cfun-0-1"},
		{"quectel-rm5xx", "cfun-0-1"},
		{"fibocom-fm350", "cfun-0-1"},
		{"simcom-sim7600", "vendor-reset"},
		{"sierra-mc7455", "cfun-1-1"},
		{"telit-le910", "cfun-0-1"},
		{"cinterion", "cfun-0-1"},
		{"dell-dw5821e", "cfun-0-1"},
	}
	for _, d := range modemtest.Dialects() {
		if !slices.ContainsFunc(table, func(tc row) bool { return tc.dialect == d.Name }) {
			t.Errorf("nothing is said of %s", d.Name)
		}
	}
	for _, tc := range table {
		t.Run(tc.dialect, func(t *testing.T) {
			t.Parallel()
			d, ok := modemtest.DialectNamed(tc.dialect)
			if !ok {
				t.Fatal("no such dialect")
			}
			b := newBench(t, d)
			learned := quirks.OpenMemory("")
			p := open(t, b.config(learned))
			for turn, target := range []string{iccidB, iccidA} {
				enable(t, p, target, false)
				begin := time.Now()
				rung, err := p.Reread(t.Context(), target)
				took := time.Since(begin)
				if err != nil || rung != tc.rung {
					t.Fatalf("rung %q, %v, want %q\n%s", rung, err, tc.rung, logOf(b))
				}
				t.Logf("turn %d: %s after %v", turn, rung, took.Round(10*time.Millisecond))
				s := b.State()
				if s.CFUN != 1 || s.SIM.State != modemtest.SIMReady || s.SIM.ICCID != target {
					t.Errorf("CFUN %d, SIM %+v", s.CFUN, s.SIM)
				}
				if sim, err := p.SIM(t.Context()); err != nil || sim.ICCID != target {
					t.Errorf("SIM %+v, %v", sim, err)
				}
				if _, err := os.Stat(b.mark); err == nil {
					t.Error("the mark of a modem that is off is still there")
				}
				if _, was := p.Known(); string(was.Rung) != tc.rung || was.ICCID == "" || was.Path == "" {
					t.Errorf("learnt %+v", was)
				}
			}
			if n := len(b.State().Sessions); n != 0 {
				t.Errorf("%d sessions are open", n)
			}
		})
	}
}

// logOf is the end of what the modem has heard and said.
func logOf(b *bench) string {
	out := ""
	entries := b.Log().Entries()
	for _, e := range entries[max(0, len(entries)-60):] {
		out += fmt.Sprintln(e)
	}
	return out
}
