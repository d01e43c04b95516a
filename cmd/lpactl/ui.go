package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"lpad/agent/api"
)

// ui is all that lpactl prints. The rules:
//
//   - results go to standard output, everything about the way there and every
//     error to standard error;
//   - with --json, standard output holds JSON documents and nothing else;
//   - one line a fact; no colours; a line is rewritten only on a terminal, so
//     that a 9600-baud console and a log file read well;
//   - an error is a line "error: what happened", then "cause:" when there is
//     more to know, then "next:" with what to do.
type ui struct {
	out, errs io.Writer
	json      bool
}

func (u *ui) document(v any) error {
	e := json.NewEncoder(u.out)
	e.SetIndent("", "  ")
	return e.Encode(v)
}

// line prints a document in JSON form on one line, for streams.
func (u *ui) jsonLine(v any) error { return json.NewEncoder(u.out).Encode(v) }

func (u *ui) printf(format string, a ...any) { fmt.Fprintf(u.out, format, a...) }

func (u *ui) note(format string, a ...any) { fmt.Fprintf(u.errs, format+"\n", a...) }

// facts prints names and values in two columns; empty values are left out.
func (u *ui) facts(rows [][2]string) {
	w := tabwriter.NewWriter(u.out, 0, 0, 2, ' ', 0)
	for _, r := range rows {
		if r[1] != "" {
			fmt.Fprintf(w, "%s\t%s\n", r[0], r[1])
		}
	}
	w.Flush()
}

// table prints rows under a head.
func (u *ui) table(head []string, rows [][]string) {
	w := tabwriter.NewWriter(u.out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, strings.Join(head, "\t"))
	for _, r := range rows {
		fmt.Fprintln(w, strings.Join(r, "\t"))
	}
	w.Flush()
}

// fail prints an error and returns the exit code for it.
func (u *ui) fail(err error) int {
	code := exitCode(err)
	var p *api.Problem
	var left *leftError
	switch {
	case code == exitWarnings: // the findings have said it
	case errors.As(err, &left):
		u.note("interrupted: the job %s goes on by itself", left.job.ID)
		if left.job.State == "consent" {
			u.note("next: it waits for an answer: lpactl jobs answer %s", left.job.ID)
			break
		}
		u.note("next: watch it with lpactl jobs follow %s, stop it with lpactl jobs abort %s", left.job.ID, left.job.ID)
	case code == exitStopped:
		u.note("interrupted: a job that was ordered goes on; \"lpactl jobs\" shows it")
	case errors.As(err, &p):
		if u.json {
			if jerr := u.document(p); jerr != nil {
				u.note("error: %v", jerr)
			}
		}
		u.problem(p)
	default:
		u.note("error: %v", err)
	}
	if code == exitUsage {
		u.note("next: see lpactl --help")
	}
	return code
}

func (u *ui) problem(p *api.Problem) {
	u.note("error: %s [%s]", p.Title, p.Code)
	if p.Detail != "" && p.Detail != p.Title {
		u.note("cause: %s", p.Detail)
	}
	u.meaning(p.Detail, p.State)
	if p.Next != "" {
		u.note("next: %s", p.Next)
	}
}

// stepTexts are the ten steps, as they read when they are done.
var stepTexts = map[int]func(api.Job) string{
	1: func(api.Job) string { return "order accepted" },
	2: func(j api.Job) string {
		return "eUICC and " + j.SMDP + " have proven themselves; offered: " + profileName(j.Profile)
	},
	3: func(j api.Job) string { return "profile package loaded and installed, not yet active" },
	4: func(j api.Job) string { return "installation notification delivered over today's network" },
	5: func(j api.Job) string { return "activation ordered" },
	6: func(j api.Job) string { return "profile enabled: the eUICC has confirmed it" },
	7: func(j api.Job) string {
		if j.APNSource == "" {
			return "no network settings to apply on this device"
		}
		return fmt.Sprintf("APN %q (%s) written to modem and network", j.APN, j.APNSource)
	},
	8: func(j api.Job) string { return "modem has read the SIM again (" + j.Rung + ")" },
	9: func(j api.Job) string { return "online: " + networkText(j.Network) },
	10: func(j api.Job) string {
		if j.Undelivered > 0 {
			return fmt.Sprintf("enable notification queued, %d waiting", j.Undelivered)
		}
		if j.Network == nil {
			return "enable notification delivered"
		}
		return "enable notification delivered over the new network"
	},
}

func profileName(p *api.Profile) string {
	if p == nil {
		return "a profile"
	}
	return strings.TrimSpace(first(p.Nickname, p.Name) + " of " + first(p.ServiceProvider, "an unnamed operator"))
}

func networkText(n *api.Network) string {
	if n == nil || n.Interface == "" {
		return "no network of our own"
	}
	return strings.TrimSpace(n.Interface + " " + strings.Join(n.Addresses, " "))
}

func first(s ...string) string {
	for _, v := range s {
		if v != "" {
			return v
		}
	}
	return ""
}

// outsideTexts are the states outside the ten steps that a person wants to see.
var outsideTexts = map[string]string{
	"rolling-back": "it did not work: bringing the previous profile and its settings back",
	"cancelling":   "cancelling the download on both sides",
	"disabling":    "disabling",
	"deleting":     "deleting",
}

type doneStep struct {
	n  int
	at time.Time
}

// doneSteps lists the steps that are over, each with the time of its end: the
// moment the job entered a later one.
func doneSteps(j api.Job) []doneStep {
	var done []doneStep
	now := 0
	for _, m := range j.Timeline {
		if m.State == "done" && j.State == "done" && now > 0 {
			done = append(done, doneStep{now, m.At})
			break
		}
		if m.Step == 0 {
			break // it left the road
		}
		for now > 0 && now < m.Step {
			done = append(done, doneStep{now, m.At})
			now++
		}
		now = m.Step
	}
	if j.Kind != "install" { // a switch begins at step 6
		kept := done[:0]
		for _, d := range done {
			if d.n >= 6 {
				kept = append(kept, d)
			}
		}
		return kept
	}
	return done
}
