package main

import (
	"context"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"lpad/agent/rsp/rsptest/pki"
	"lpad/cmd/lpalab/lab"
)

// programs are lpad and its helpers, built once for the tests that run them.
var programs = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "lpad-test-")
	if err != nil {
		return "", err
	}
	built = dir
	return dir, lab.BuildPrograms(context.Background(), "../..", dir)
})

// built is the folder of the programs, empty while no test has needed them.
var built string

func TestMain(m *testing.M) {
	code := m.Run()
	if built != "" {
		_ = os.RemoveAll(built) // a folder of temporary files
	}
	os.Exit(code)
}

// rigParts are what a rig is built from.
func rigParts(t *testing.T) (context.Context, *pki.PKI, string) {
	t.Helper()
	dir, err := programs()
	if err != nil {
		t.Fatal(err)
	}
	p, err := lab.NewPKI()
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	t.Cleanup(cancel)
	return ctx, p, dir
}

// A notification is followed from the card that makes it to the card that
// forgets it, for two receivers, and the daemon or the device is cut off on
// the way. Every cut of the whole life is done by "lpalab notifications".
func TestNotificationLife(t *testing.T) {
	ctx, p, dir := rigParts(t)
	rep, err := cutLives(ctx, p, dir, faultOptions{seed: 1, parallel: 8}, 9)
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range rep.lost {
		t.Error(l)
	}
	if rep.notifications != 6 || rep.struck < 30 {
		t.Errorf("%d notifications, %d cuts", rep.notifications, rep.struck)
	}
	for _, name := range []string{lifeCreated, lifeListed, lifeRetrieved, lifeSent + " " + lab.Host, lifeSent + " " + otherHost, lifeRemoved, lifeRecorded, lifeCompacted} {
		if rep.steps[name] == 0 || rep.cuts[name] == 0 {
			t.Errorf("%q: %d steps, %d cuts", name, rep.steps[name], rep.cuts[name])
		}
	}
}

// A disk that is full, read-only or broken under a switch: the daemon stays,
// says so, and goes on.
func TestBadDisk(t *testing.T) {
	if missing := canMount(); missing != "" {
		t.Skip(missing)
	}
	ctx, p, dir := rigParts(t)
	for _, class := range []string{"disk-full.switch", "disk-full-start.switch", "disk-read-only.switch", "disk-error.switch"} {
		t.Run(class, func(t *testing.T) {
			t.Parallel()
			f, sc, err := newFault(class, 3, 1) // in the middle of the switch: the next write is refused
			if err != nil {
				t.Fatal(err)
			}
			f.told = time.Minute // it has something to write, but the machine much else to do
			res := run(ctx, p, dir, sc, f, false)
			if !res.reached || !res.told || len(res.violations) > 0 {
				t.Errorf("struck %v, told %v, violations %v\n%s", res.reached, res.told, res.violations, strings.Join(res.history, "\n"))
			}
		})
	}
}

// The soak finds what grows: its verdict is held against figures that do.
func TestSoakVerdict(t *testing.T) {
	steady := soakFigures{rss: 14, goroutines: 11, descriptors: 15, files: 3}
	report := func(late soakFigures) *soakReport {
		return &soakReport{early: steady, late: late, journalMax: 900 << 10, journalBound: 1056 << 10, written: 200, writtenMeasured: true}
	}
	if g := report(steady).grown(); len(g) > 0 {
		t.Errorf("steady, and yet %v", g)
	}
	for _, test := range []struct {
		what string
		rep  *soakReport
	}{
		{"rss", report(soakFigures{rss: 15.1, goroutines: 11, descriptors: 15, files: 3})},
		{"goroutines", report(soakFigures{rss: 14, goroutines: 13, descriptors: 15, files: 3})},
		{"descriptors", report(soakFigures{rss: 14, goroutines: 11, descriptors: 17, files: 3})},
		{"files", report(soakFigures{rss: 14, goroutines: 11, descriptors: 15, files: 5})},
		{"nothing", report(soakFigures{})},
		{"journal", &soakReport{early: steady, late: steady, journalMax: 2 << 20, journalBound: 1 << 20}},
		{"written", &soakReport{early: steady, late: steady, written: 301, writtenMeasured: true}},
	} {
		if g := test.rep.grown(); len(g) != 1 || !strings.Contains(g[0], test.what) {
			t.Errorf("%s: %v", test.what, g)
		}
	}
}

// What a whole install and switch writes to flash is bounded.
func TestStateWritten(t *testing.T) {
	if missing := canMount(); missing != "" {
		t.Skip(missing)
	}
	ctx, _, dir := rigParts(t)
	var f figures
	if err := f.stateWritten(ctx, dir); err != nil {
		t.Fatal(err)
	}
	if f.over {
		t.Error("an install and switch writes too much")
	}
}

// A short soak; the long one is "make soak".
func TestSoak(t *testing.T) {
	ctx, p, dir := rigParts(t)
	rep, err := soak(ctx, p, dir, soakOptions{cycles: 20, every: 2, seed: 1})
	if err != nil {
		t.Fatal(err)
	}
	for _, what := range append(rep.lost, rep.grown()...) {
		if !strings.HasPrefix(what, "rss") { // a heap takes more cycles than this to settle
			t.Error(what)
		}
	}
	if len(rep.figures) != 20 || rep.faults < 4 {
		t.Errorf("%d cycles, %d faults", len(rep.figures), rep.faults)
	}
}
