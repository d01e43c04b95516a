// Command testreport turns the output of "go test -json" into something a person can
// read, and ends with one line: "N passed, N failed, N skipped".
//
//	{ go test -json -cover ./...; echo "exit $?"; } | go run ./internal/tools/testreport [-cover 85:apdu,agent/rsp/...] [-no-skips] [-again 2]
//
// A test with subtests is not counted beside them. The output of a failed test
// is printed whole, a skipped one with its reason. It exits with 1 when a test
// or a package failed, when a named package has less coverage than demanded,
// when nothing ran at all, or, with -no-skips, when anything was skipped.
//
// With -again N, up to N failed tests are run once more, each alone. One that
// passes then is named as unsteady, with what it said the first time, and
// counts as passed; a data race, a panic or a package that did not end is never
// looked at twice. More failures than N are no accident, and none is run again.
package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

type event struct {
	Action     string
	Package    string
	ImportPath string
	Test       string
	Output     string
	Elapsed    float64
}

type report struct {
	passed, failed, skipped int
	output                  map[string][]string // by package and test, until it ends
	parents                 map[string]bool     // tests that have subtests
	failures                map[string]int      // by package
	failedTests             []failedTest
	grave                   bool   // something that no second run excuses
	status                  string // of go test, where it is told
	coverage                map[string]float64
	slow                    []string
	out                     io.Writer
}

// failedTest is one that may be run again.
type failedTest struct{ pkg, test string }

// rules is what the flags ask for.
type rules struct {
	cover   string
	noSkips bool
	again   int
}

// runAgain runs one test alone and returns its events. A test puts its own here.
var runAgain = func(f failedTest) ([]byte, error) {
	cmd := exec.Command("go", "test", "-json", "-race", "-count=1", "-timeout", "5m", "-run", pattern(f.test), f.pkg)
	cmd.Stderr = os.Stderr
	return cmd.Output()
}

// pattern is what -run takes for exactly this test.
func pattern(test string) string {
	parts := strings.Split(test, "/")
	for i, p := range parts {
		parts[i] = "^" + regexp.QuoteMeta(p) + "$"
	}
	return strings.Join(parts, "/")
}

var coverLine = regexp.MustCompile(`coverage: ([0-9.]+)% of statements`)

// slowTest is from where on a test is worth a line, in seconds.
const slowTest = 10

func (r *report) take(e event) {
	key := e.Package + " " + e.Test
	switch e.Action {
	case "output", "build-output":
		if m := coverLine.FindStringSubmatch(e.Output); m != nil && e.Test == "" {
			if percent, err := strconv.ParseFloat(m[1], 64); err == nil {
				r.coverage[strings.TrimPrefix(e.Package, "lpad/")] = percent
			}
		}
		if e.Action == "build-output" {
			key = e.ImportPath + " "
			fmt.Fprint(r.out, e.Output)
		}
		r.output[key] = append(r.output[key], e.Output)
	case "run":
		if i := strings.LastIndex(e.Test, "/"); i > 0 {
			r.parents[e.Package+" "+e.Test[:i]] = true
		}
	case "pass", "fail", "skip":
		r.end(e, key)
	}
}

func (r *report) end(e event, key string) {
	lines := r.output[key]
	delete(r.output, key)
	if e.Test == "" { // a package
		if e.Action == "fail" {
			fmt.Fprintf(r.out, "FAIL package %s\n%s", e.Package, strings.Join(lines, ""))
			if r.failures[e.Package] == 0 {
				r.failed++ // did not build, or died outside a test
				r.grave = true
			}
			r.grave = r.grave || inexcusable(lines)
		} else if e.Action == "pass" {
			fmt.Fprintf(r.out, "ok   %-44s %6.1f s\n", e.Package, e.Elapsed)
		}
		return
	}
	leaf := !r.parents[key]
	switch e.Action {
	case "pass":
		if leaf {
			r.passed++
		}
		if leaf && e.Elapsed >= slowTest {
			r.slow = append(r.slow, fmt.Sprintf("slow %s %.0f s", key, e.Elapsed))
		}
	case "skip":
		r.skipped++
		fmt.Fprintf(r.out, "SKIP %s\n%s", key, strings.Join(lines, ""))
	case "fail":
		if leaf {
			r.failed++
			r.failures[e.Package]++
			r.failedTests = append(r.failedTests, failedTest{e.Package, e.Test})
		}
		r.grave = r.grave || inexcusable(lines)
		fmt.Fprintf(r.out, "FAIL %s\n%s", key, strings.Join(lines, ""))
	}
}

// inexcusable reports whether a failure is no matter of time.
func inexcusable(lines []string) bool {
	return slices.ContainsFunc(lines, func(l string) bool {
		return strings.Contains(l, "DATA RACE") || strings.Contains(l, "race detected during") || strings.HasPrefix(l, "panic:") || strings.HasPrefix(l, "fatal error:")
	})
}

// secondLook runs failed tests once more, if they are few enough.
func (r *report) secondLook(most int) {
	if r.grave || len(r.failedTests) > most {
		return
	}
	for _, f := range r.failedTests {
		events, err := runAgain(f)
		second := newReport(r.out)
		second.read(bytes.NewReader(events))
		if err == nil && second.failed == 0 && second.passed > 0 && second.skipped == 0 {
			r.failed--
			r.passed++
			fmt.Fprintf(r.out, "UNSTEADY %s %s: failed beside the others (its output is above), passed alone\n", f.pkg, f.test)
		}
	}
}

func main() {
	cover := flag.String("cover", "", "minimum coverage, as PERCENT:PACKAGE,PACKAGE/...")
	noSkips := flag.Bool("no-skips", false, "a skipped test is a failure")
	again := flag.Int("again", 0, "so many failed tests at most are run once more, each alone")
	flag.Parse()
	if !run(os.Stdin, os.Stdout, rules{*cover, *noSkips, *again}) {
		os.Exit(1)
	}
}

func newReport(out io.Writer) *report {
	return &report{output: map[string][]string{}, parents: map[string]bool{}, failures: map[string]int{}, coverage: map[string]float64{}, out: out}
}

// read takes events to their end.
func (r *report) read(events io.Reader) {
	in := bufio.NewReader(events)
	for {
		line, err := in.ReadString('\n')
		if line != "" {
			var e event
			if json.Unmarshal([]byte(line), &e) == nil {
				r.take(e)
			} else if status, ok := strings.CutPrefix(strings.TrimSpace(line), "exit "); ok {
				r.status = status
			} else {
				fmt.Fprint(r.out, line) // not JSON: the go command itself speaks
			}
		}
		if err != nil {
			return
		}
	}
}

// run reads events to their end, writes the report, and says whether all is
// well.
func run(events io.Reader, out io.Writer, want rules) bool {
	r := newReport(out)
	r.read(events)
	if r.status != "" && r.status != "0" && r.failed == 0 {
		r.failed, r.grave = 1, true
		fmt.Fprintf(out, "FAIL: go test ended with status %s, and told of no failure\n", r.status)
	}
	r.secondLook(want.again)
	for _, s := range r.slow {
		fmt.Fprintln(out, s)
	}
	good := r.failed == 0 && r.passed > 0
	if thin := r.thinCoverage(want.cover); len(thin) > 0 {
		good = false
		fmt.Fprintln(out, strings.Join(thin, "\n"))
	}
	if want.noSkips && r.skipped > 0 {
		good = false
		fmt.Fprintln(out, "FAIL: something was skipped, and here nothing may be")
	}
	fmt.Fprintf(out, "%d passed, %d failed, %d skipped\n", r.passed, r.failed, r.skipped)
	return good
}

// thinCoverage lists the packages that are covered less than demanded.
func (r *report) thinCoverage(rule string) []string {
	got := r.coverage
	percent, names, ok := strings.Cut(rule, ":")
	if !ok {
		return nil
	}
	least, err := strconv.ParseFloat(percent, 64)
	if err != nil {
		return []string{"FAIL: -cover wants PERCENT:PACKAGE,…"}
	}
	var thin []string
	for _, name := range strings.Split(names, ",") {
		base, tree := strings.CutSuffix(name, "/...")
		found := false
		for _, pkg := range slices.Sorted(maps.Keys(got)) {
			if pkg != base && (!tree || !strings.HasPrefix(pkg, base+"/")) {
				continue
			}
			found = true
			if got[pkg] < least {
				thin = append(thin, fmt.Sprintf("FAIL coverage of %s is %.1f %%, at least %.0f %% are asked for", pkg, got[pkg], least))
			} else {
				fmt.Fprintf(r.out, "cover %-43s %5.1f %%\n", pkg, got[pkg])
			}
		}
		if !found {
			thin = append(thin, "FAIL no coverage was measured for "+name)
		}
	}
	return thin
}
