package main

import (
	"fmt"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"lpad/agent/api"
)

// TestStatusFitsOneScreen: whatever there is to say, it has 24 lines of 80
// characters, and the last says what to do next.
func TestStatusFitsOneScreen(t *testing.T) {
	long := strings.Repeat("the card has gone astray ", 20)
	word := strings.Repeat("x", 300)
	full := api.Status{
		Version: "1.0", State: "busy", Queued: 7, Warnings: []string{long, "a TEST authority is trusted", word},
		Card:          api.CardStatus{Name: "main", EID: strings.Repeat("8", 32), Backend: "at", Path: "/dev/serial/by-id/" + word, Problem: &api.Problem{Title: long}},
		Profile:       &api.Profile{ICCID: strings.Repeat("8", 20), Name: word, ServiceProvider: long, Quarantine: &api.Quarantine{Title: long, Attempts: 3}},
		Network:       api.Network{Backend: "networkmanager", Interface: "wwan0", Addresses: []string{"10.0.0.2", "2001:db8:1234:5678:9abc:def0:1234:5678"}, APN: word},
		Job:           &api.Job{ID: "J1", Kind: "install", State: "loading", Step: 3, Created: epoch.Add(-time.Minute)},
		Notifications: api.NoteStatus{Pending: 3, Oldest: epoch.Add(-time.Hour), LastError: &api.Problem{Title: long}},
		Reports:       api.NoteStatus{Pending: 2, Lost: 1, LastError: &api.Problem{Title: long}},
		Clock:         api.Clock{Now: epoch}, Journal: &api.Problem{Title: long, Next: long}, Next: "mend the card",
		Declared: &api.Declared{Total: 9, Converged: 2, Failed: 1, Lines: []string{long, word}},
	}
	for i := range 20 {
		full.Cards = append(full.Cards, api.CardStatus{Name: fmt.Sprint("card", i), Backend: "at", Path: word, State: "ready"})
	}
	small := full
	small.Cards, small.Warnings = nil, full.Warnings[:1]
	for name, s := range map[string]api.Status{"everything": full, "one card": small, "nothing": {}} {
		var out strings.Builder
		(&ui{out: &out}).status(s, nil)
		text := out.String()
		lines := strings.Split(strings.TrimSuffix(text, "\n"), "\n")
		if len(lines) > screenHeight {
			t.Errorf("%s: %d lines\n%s", name, len(lines), text)
		}
		for _, line := range lines {
			if n := utf8.RuneCountInString(line); n > screenWidth {
				t.Errorf("%s: a line of %d characters: %s", name, n, line)
			}
		}
		if last := lines[len(lines)-1]; s.Next != "" && (!strings.HasPrefix(last, "next") || !strings.HasSuffix(last, s.Next)) {
			t.Errorf("%s: the last line is %q", name, last)
		}
	}
}

// TestStatusOfDeclarations: how far the device is with what its files declare.
func TestStatusOfDeclarations(t *testing.T) {
	var out strings.Builder
	(&ui{out: &out}).status(api.Status{State: "ready", Declared: &api.Declared{Total: 3, Converged: 1, Failed: 1, Lines: []string{"fleet: converged", "spare: refused"}}}, nil)
	if want := "declared  1 of 3 profiles are as their files say, 1 failed; fleet: converged;\n          spare: refused\n"; !strings.Contains(out.String(), want) {
		t.Errorf("no %q in\n%s", want, &out)
	}
}

// TestNextLine: there is always something to do next, or nothing, and the status
// says which.
func TestNextLine(t *testing.T) {
	failed := &api.Job{Problem: &api.Problem{Next: "look at the antenna"}}
	for _, tc := range []struct {
		s    api.Status
		last *api.Job
		want string
	}{
		{api.Status{Next: "set the clock", Job: &api.Job{ID: "J1"}}, nil, "set the clock"},
		{api.Status{Job: &api.Job{ID: "J1"}}, nil, "watch the job: lpactl jobs follow J1"},
		{api.Status{State: "starting"}, nil, "wait a moment"},
		{api.Status{State: "ready"}, failed, "look at the antenna"},
		{api.Status{State: "ready", Notifications: api.NoteStatus{LastError: &api.Problem{Next: "wait"}}}, nil, "wait"},
		{api.Status{State: "ready", Profile: &api.Profile{Quarantine: &api.Quarantine{}}}, nil, "lpactl jobs tells why"},
		{api.Status{State: "ready", Warnings: []string{"x"}}, nil, "lpactl doctor"},
		{api.Status{State: "ready"}, &api.Job{State: "done"}, "nothing: all is well"},
	} {
		if got := nextLine(tc.s, tc.last); !strings.HasPrefix(got, tc.want) {
			t.Errorf("%q, want %q", got, tc.want)
		}
	}
}

// TestJobLine: a job in a line, on its way and at its end.
func TestJobLine(t *testing.T) {
	for want, j := range map[string]api.Job{
		"install J1: loading, step 3 of 10, for 90 s": {ID: "J1", Kind: "install", State: "loading", Step: 3, Created: epoch.Add(-90 * time.Second)},
		"enable J2: failed 5 min ago: no bearer": {ID: "J2", Kind: "enable", State: "failed", Ended: true, Problem: &api.Problem{Title: "no bearer"},
			Timeline: []api.Mark{{At: epoch.Add(-5 * time.Minute)}}},
		"delete J3: done": {ID: "J3", Kind: "delete", State: "done", Ended: true},
	} {
		if got := jobLine(j, epoch); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}
