package main

import (
	"fmt"
	"os"
	"strings"
	"time"

	"lpad/agent/api"
)

// How often the line of progress is drawn, and how wide its bar is. A serial
// line of 9600 baud carries 960 characters a second, and a line of progress has
// up to 70: more of them would hold up what else is to be said.
const (
	redrawPause = time.Second
	barWidth    = 20
	etaAfter    = 3 * time.Second // before that, the pace says nothing
)

// timeline prints the steps of a job as they come to their end. On a terminal
// it has a line of progress while the package is loaded, which it writes over
// by a carriage return and nothing else: every terminal knows that one. One
// that says it knows nothing (TERM=dumb) gets a line for each quarter.
type timeline struct {
	ui       *ui
	terminal bool
	dumb     bool
	now      func() time.Time

	shown int // steps printed
	lines int // marks outside the ten steps printed

	drawn   string    // the line of progress, when there is one
	drawnAt time.Time // the last redraw
	quarter int       // of a dumb terminal
	began   time.Time // when the first progress was seen, and what it was
	begun   int
}

func newTimeline(u *ui) *timeline {
	term := os.Getenv("TERM")
	return &timeline{ui: u, terminal: isTerminal(u.errs), dumb: term == "" || term == "dumb", now: time.Now}
}

func (t *timeline) update(j api.Job) {
	if t.ui.json {
		return
	}
	if p := j.Progress; p != nil && j.State == "loading" {
		t.progress(*p)
		return
	}
	for _, s := range doneSteps(j) {
		if s.n <= t.shown {
			continue
		}
		t.shown = s.n
		t.clearBar()
		t.ui.note("%6.1f s  %2d  %s", s.at.Sub(j.Created).Seconds(), s.n, stepTexts[s.n](j))
	}
	outside := 0
	for _, m := range j.Timeline {
		if text, ok := outsideTexts[m.State]; ok {
			if outside++; outside > t.lines {
				t.lines = outside
				t.clearBar()
				t.ui.note("%6.1f s   -  %s", m.At.Sub(j.Created).Seconds(), text)
			}
		}
	}
}

// progress draws how far the loading is.
func (t *timeline) progress(p api.Progress) {
	done, total := p.Bytes, p.Size
	if total == 0 { // a daemon that does not count bytes
		done, total = p.Done, p.Total
	}
	if !t.terminal || total <= 0 || done < 0 || done > total {
		return
	}
	now := t.now()
	if t.began.IsZero() || done < t.begun { // the first, or from the beginning again
		t.began, t.begun = now, done
	}
	if t.dumb {
		if q := 4 * done / total; q > t.quarter {
			t.quarter = q
			t.ui.note("           loading: %d %%", 100*done/total)
		}
		return
	}
	if now.Sub(t.drawnAt) < redrawPause && t.drawn != "" {
		return
	}
	full := barWidth * done / total
	line := fmt.Sprintf("       loading [%s%s] %3d %%", strings.Repeat("#", full), strings.Repeat(".", barWidth-full), 100*done/total)
	if p.Size > 0 {
		line += fmt.Sprintf("  %.1f of %.1f kB", float64(done)/1000, float64(total)/1000)
	}
	if past := now.Sub(t.began); past >= etaAfter && done > t.begun && done < total {
		left := time.Duration(float64(past) / float64(done-t.begun) * float64(total-done))
		line += ", " + leftText(left)
	}
	if line == t.drawn {
		return
	}
	fmt.Fprint(t.ui.errs, "\r", line, strings.Repeat(" ", max(0, len(t.drawn)-len(line))))
	t.drawn, t.drawnAt = line, now
}

// leftText says how long something will still take, as exactly as one can know.
func leftText(d time.Duration) string {
	if d < time.Minute {
		return fmt.Sprintf("%.0f s left", max(1, d.Seconds()))
	}
	return fmt.Sprintf("%.0f min left", d.Minutes())
}

func (t *timeline) clearBar() {
	if t.drawn != "" {
		fmt.Fprint(t.ui.errs, "\r", strings.Repeat(" ", len(t.drawn)), "\r")
		t.drawn = ""
	}
}
