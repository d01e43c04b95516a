package main

import (
	"strings"
	"testing"
	"time"
)

// Giving a notification up is asked for; sending it again fails as its server
// does.
func TestReplayAndDrop(t *testing.T) {
	for _, tc := range []struct {
		args, stdin string
		exit        int
		asked       string // of the daemon
		errs        string // a part of standard error
	}{
		{"notifications replay 7", "", 12, "replay 7", "the server does not answer in time"},
		{"notifications drop 7", "y\n", 0, "drop 7", "drop notification 7 for ever?"},
		{"notifications drop 7", "n\n", 23, "", "nothing was dropped"},
		{"notifications drop 7", "\n", 23, "", "nothing was dropped"},
		{"notifications drop 7 -y", "", 0, "drop 7", ""},
		{"notifications drop x", "y\n", 2, "", "no sequence number"},
		{"notifications drop -- -1", "y\n", 2, "", "below zero"},
		{"notifications replay 20261121-120000", "", 0, "report 20261121-120000 drop=false", ""},
		{"notifications drop 20261121-120000-2", "y\n", 0, "report 20261121-120000-2 drop=true", "drop the report of job 20261121-120000-2 for ever?"},
		{"notifications drop 20261121-120000", "n\n", 23, "", "nothing was dropped"},
		{"notifications replay", "", 2, "", "accepts 1 arg"},
	} {
		t.Run(tc.args+" "+strings.TrimSpace(tc.stdin), func(t *testing.T) {
			d := newDaemon(t)
			exit, _, errs := d.lpactl(tc.stdin, strings.Fields(tc.args)...)
			if exit != tc.exit || d.last() != tc.asked || !strings.Contains(errs, tc.errs) {
				t.Errorf("exit %d, asked %q, errors:\n%s", exit, d.last(), errs)
			}
		})
	}
}

func TestAge(t *testing.T) {
	now := time.Date(2026, 6, 1, 12, 0, 0, 0, time.UTC)
	for d, want := range map[time.Duration]string{
		0: "0 s", 119 * time.Second: "119 s", 5 * time.Minute: "5 min", 47 * time.Hour: "47 h", 100 * time.Hour: "4 days", -time.Second: "",
	} {
		if got := age(now.Add(-d), now); got != want {
			t.Errorf("%v: %q, want %q", d, got, want)
		}
	}
	if got := age(time.Time{}, now); got != "" {
		t.Errorf("no time: %q", got)
	}
}
