package main

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
)

// events writes what "go test -json" writes: one line for each "ACTION PACKAGE
// TEST|OUTPUT".
func events(lines ...string) string {
	var b strings.Builder
	for _, l := range lines {
		if strings.HasPrefix(l, "#") {
			fmt.Fprintln(&b, l)
			continue
		}
		f := strings.SplitN(l, " ", 4)
		for len(f) < 4 {
			f = append(f, "")
		}
		if f[3] != "" {
			f[3] += "\n"
		}
		fmt.Fprintf(&b, `{"Action":%q,"Package":%q,"Test":%q,"Output":%q,"Elapsed":1.5}`+"\n", f[0], f[1], f[2], f[3])
	}
	return b.String()
}

func TestReport(t *testing.T) {
	for _, tc := range []struct {
		name    string
		in      string
		cover   string
		noSkips bool
		good    bool
		last    string
		says    []string
	}{
		{name: "all well", in: events("run lpad/a TestX", "output lpad/a TestX noise", "pass lpad/a TestX", "output lpad/a  coverage: 91.2% of statements", "pass lpad/a"),
			cover: "85:a", good: true, last: "1 passed, 0 failed, 0 skipped", says: []string{"ok   lpad/a", "cover a", "91.2 %"}},
		{name: "a test with subtests is not counted beside them", in: events("run lpad/a TestX", "run lpad/a TestX/one", "run lpad/a TestX/two", "pass lpad/a TestX/one", "pass lpad/a TestX/two",
			"pass lpad/a TestX", "pass lpad/a"), good: true, last: "2 passed, 0 failed, 0 skipped"},
		{name: "a failure is told whole", in: events("run lpad/a TestX", "run lpad/a TestX/one", "output lpad/a TestX/one got 1, want 2", "fail lpad/a TestX/one", "fail lpad/a TestX",
			"output lpad/a  FAIL\tlpad/a\t1.5s", "fail lpad/a", "run lpad/b TestY", "pass lpad/b TestY", "pass lpad/b"),
			last: "1 passed, 1 failed, 0 skipped", says: []string{"FAIL lpad/a TestX/one\ngot 1, want 2"}},
		{name: "a test that fails after its subtests", in: events("run lpad/a TestX", "run lpad/a TestX/one", "pass lpad/a TestX/one", "fail lpad/a TestX", "fail lpad/a"),
			last: "1 passed, 1 failed, 0 skipped"},
		{name: "a package that does not build, beside another failure", in: events("run lpad/a TestX", "fail lpad/a TestX", "fail lpad/a",
			"build-output   undefined: x", "output lpad/b  FAIL\tlpad/b [build failed]", "fail lpad/b"),
			last: "0 passed, 2 failed, 0 skipped", says: []string{"undefined: x", "FAIL package lpad/b"}},
		{name: "skipped", in: events("run lpad/a TestX", "output lpad/a TestX needs root", "skip lpad/a TestX", "run lpad/a TestY", "pass lpad/a TestY", "pass lpad/a"),
			good: true, last: "1 passed, 0 failed, 1 skipped", says: []string{"SKIP lpad/a TestX\nneeds root"}},
		{name: "skipped where nothing may be", in: events("skip lpad/a TestX", "pass lpad/a TestY", "pass lpad/a"), noSkips: true,
			last: "1 passed, 0 failed, 1 skipped", says: []string{"nothing may be"}},
		{name: "nothing ran", in: "", last: "0 passed, 0 failed, 0 skipped"},
		{name: "what is no event", in: "# go: cannot find main module\n" + events("pass lpad/a TestX"), good: true, last: "1 passed, 0 failed, 0 skipped", says: []string{"cannot find"}},
		{name: "the go command failed at something else", in: events("pass lpad/a TestX", "pass lpad/a") + "exit 2\n", last: "1 passed, 1 failed, 0 skipped", says: []string{"status 2"}},
		{name: "its status is good", in: events("pass lpad/a TestX", "pass lpad/a") + "exit 0\n", good: true, last: "1 passed, 0 failed, 0 skipped"},
		{name: "too little covered", in: events("pass lpad/a TestX", "output lpad/a/b  coverage: 84.9% of statements"), cover: "85:a/...",
			last: "1 passed, 0 failed, 0 skipped", says: []string{"FAIL coverage of a/b is 84.9 %, at least 85 %"}},
		{name: "not covered at all", in: events("pass lpad/a TestX"), cover: "85:a", last: "1 passed, 0 failed, 0 skipped", says: []string{"no coverage was measured for a"}},
		{name: "a rule that is none", in: events("pass lpad/a TestX"), cover: "most:a", last: "1 passed, 0 failed, 0 skipped", says: []string{"-cover wants"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var out bytes.Buffer
			good := run(strings.NewReader(tc.in), &out, rules{cover: tc.cover, noSkips: tc.noSkips})
			lines := strings.Split(strings.TrimSpace(out.String()), "\n")
			if good != tc.good || lines[len(lines)-1] != tc.last {
				t.Errorf("good %v, want %v; last line %q, want %q\n%s", good, tc.good, lines[len(lines)-1], tc.last, &out)
			}
			for _, s := range tc.says {
				if !strings.Contains(out.String(), s) {
					t.Errorf("it does not say %q:\n%s", s, &out)
				}
			}
		})
	}
}

func TestSecondLook(t *testing.T) {
	failed := []string{"run lpad/a TestX", "run lpad/a TestX/one", "output lpad/a TestX/one too late", "fail lpad/a TestX/one", "fail lpad/a TestX", "fail lpad/a", "pass lpad/b TestY", "pass lpad/b"}
	passes := events("run lpad/a TestX", "run lpad/a TestX/one", "pass lpad/a TestX/one", "pass lpad/a TestX", "pass lpad/a")
	fails := events("run lpad/a TestX", "run lpad/a TestX/one", "fail lpad/a TestX/one", "fail lpad/a TestX", "fail lpad/a")
	for _, tc := range []struct {
		name  string
		in    []string
		again string
		most  int
		good  bool
		runs  int
		last  string
	}{
		{"passes alone", failed, passes, 1, true, 1, "2 passed, 0 failed, 0 skipped"},
		{"fails alone, too", failed, fails, 1, false, 1, "1 passed, 1 failed, 0 skipped"},
		{"is not there alone", failed, events("pass lpad/a"), 1, false, 1, "1 passed, 1 failed, 0 skipped"},
		{"is skipped alone", failed, events("skip lpad/a TestX/one", "pass lpad/a"), 1, false, 1, "1 passed, 1 failed, 0 skipped"},
		{"not asked for", failed, passes, 0, false, 0, "1 passed, 1 failed, 0 skipped"},
		{"too many", append([]string{"fail lpad/c TestZ", "fail lpad/c"}, failed...), passes, 1, false, 0, "1 passed, 2 failed, 0 skipped"},
		{"a data race", append([]string{"output lpad/a TestX/one WARNING: DATA RACE"}, failed...), passes, 1, false, 0, "1 passed, 1 failed, 0 skipped"},
		{"a panic", append([]string{"output lpad/a  panic: nil"}, failed...), passes, 1, false, 0, "1 passed, 1 failed, 0 skipped"},
		{"another package died", append([]string{"fail lpad/c"}, failed...), passes, 1, false, 0, "1 passed, 2 failed, 0 skipped"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			runs := 0
			was := runAgain
			defer func() { runAgain = was }()
			runAgain = func(f failedTest) ([]byte, error) {
				runs++
				if pattern(f.test) != "^TestX$/^one$" {
					t.Errorf("asked for %q", pattern(f.test))
				}
				return []byte(tc.again), nil
			}
			var out bytes.Buffer
			good := run(strings.NewReader(events(tc.in...)+"exit 1\n"), &out, rules{again: tc.most})
			lines := strings.Split(strings.TrimSpace(out.String()), "\n")
			if good != tc.good || runs != tc.runs || lines[len(lines)-1] != tc.last || good != strings.Contains(out.String(), "UNSTEADY lpad/a TestX/one") {
				t.Errorf("good %v after %d runs, want %v after %d; last line %q\n%s", good, runs, tc.good, tc.runs, lines[len(lines)-1], &out)
			}
		})
	}
}
