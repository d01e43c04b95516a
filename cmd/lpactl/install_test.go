package main

import (
	"bytes"
	"context"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/creack/pty"

	"lpad/agent/api"
)

// TestCodeFrom: where an activation code may come from, and what is shown of it
// before anything is sent.
func TestCodeFrom(t *testing.T) {
	dir := t.TempDir()
	at := func(name string, b []byte) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	picture := pngOf(t, shot{turn: 20, contrast: 0.9, size: 700, part: 0.6, noise: 5}.photo(drawCode(t, pictureCode, 8)))
	withCode := pngOf(t, drawCode(t, "LPA:1$smdp.example.com$ABC$$1", 4))
	const shown = "activation code: server smdp.example.com, matching id 04386…15 (23 characters)\n"
	for _, tc := range []struct {
		name  string
		args  []string
		stdin string
		exit  int
		asked string // the activation code, and the confirmation code
		errs  string
	}{
		{name: "argument", args: []string{pictureCode}, asked: pictureCode, errs: shown},
		{name: "picture", args: []string{at("code.png", picture)}, asked: pictureCode, errs: shown},
		{name: "picture of another name", args: []string{at("IMG_1234", picture)}, asked: pictureCode, errs: shown},
		{name: "--qr", args: []string{"--qr", at("code.png", picture)}, asked: pictureCode, errs: shown},
		{name: "picture on standard input", args: []string{"-"}, stdin: string(picture), asked: pictureCode, errs: shown},
		{name: "--qr on standard input", args: []string{"--qr", "-"}, stdin: string(picture), asked: pictureCode, errs: shown},
		{name: "JPEG on standard input", args: []string{"-"}, stdin: string(jpegOf(t, drawCode(t, pictureCode, 6), 80)), asked: pictureCode, errs: shown},
		{name: "text file", args: []string{at("mail.txt", []byte("Dear customer,\r\nyour code: <"+pictureCode+">\r\nbye"))}, asked: pictureCode, errs: shown},
		{name: "code alone in a file", args: []string{at("code", []byte("1$smdp.example.com$04386-AGYFT-A74Y8-3F815\n"))}, asked: "1$smdp.example.com$04386-AGYFT-A74Y8-3F815", errs: shown},
		{name: "no matching id", args: []string{"LPA:1$smdp.example.com"}, asked: "LPA:1$smdp.example.com", errs: "no matching id: whatever is ordered for this eUICC"},
		{name: "confirmation code of a picture", args: []string{"--qr", at("cc.png", withCode)}, stdin: "4711\n", asked: `LPA:1$smdp.example.com$ABC$$1" source="" cc="4711`, errs: "with a confirmation code\nconfirmation code: "},
		{name: "confirmation code of a picture that nobody knows", args: []string{"--qr", at("cc.png", withCode)}, exit: 20, errs: "[confirmation-code-missing]"},
		{name: "percent encoding", args: []string{"LPA:1%24smdp.example.com%2404386-AGYFT-A74Y8-3F815"}, asked: "LPA:1%24smdp.example.com%2404386-AGYFT-A74Y8-3F815", errs: shown},

		{name: "no such picture", args: []string{"code2.png"}, exit: 10, errs: "error: there is no file code2.png [activation-code-malformed]\nnext: "},
		{name: "--qr without a file", args: []string{"--qr", filepath.Join(dir, "nothing")}, exit: 10, errs: "there is no file"},
		{name: "a folder", args: []string{dir}, exit: 1, errs: "not a regular file"},
		{name: "a text as --qr", args: []string{"--qr", at("mail.txt", []byte(pictureCode))}, exit: 10, errs: "mail.txt: this is no picture that lpactl knows"},
		{name: "a picture without a code", args: []string{at("desk.png", pngOf(t, shot{contrast: 0, size: 200, part: 0.5}.photo(drawCode(t, "x", 2))))}, exit: 10, errs: "desk.png: no QR code is found in the picture (200 by 200 points)"},
		{name: "HEIC on standard input", args: []string{"-"}, stdin: "\x00\x00\x00\x18ftypheic\x00\x00", exit: 10, errs: "the picture is HEIC or AVIF"},
		{name: "a text without a code", args: []string{at("letter.txt", []byte("hello"))}, exit: 10, errs: "there is no activation code in letter.txt"},
		{name: "two codes", args: []string{at("two.txt", []byte(pictureCode+"\n"+pictureCode+"1\n"))}, exit: 10, errs: "there are 2 activation codes in two.txt"},
		{name: "a long text", args: []string{at("long.txt", bytes.Repeat([]byte("x"), maxCodeText+1))}, exit: 10, errs: "too long for a text"},
		{name: "a picture and a code", args: []string{"--qr", at("code.png", picture), pictureCode}, exit: 2, errs: "one activation code"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			d := newDaemon(t)
			d.play = installing
			exit, _, errs := d.lpactl(tc.stdin, append([]string{"install", "-y"}, tc.args...)...)
			asked := ""
			if tc.asked != "" {
				asked = `install "` + tc.asked + `"`
			}
			if exit != tc.exit || !strings.HasPrefix(d.last(), asked) || (d.last() == "") != (tc.asked == "") || !strings.Contains(errs, tc.errs) {
				t.Errorf("exit %d, want %d; asked %s\n%s", exit, tc.exit, d.last(), errs)
			}
			if strings.Contains(errs, "AGYFT") {
				t.Error("the matching id is told")
			}
		})
	}
}

// TestDryRun: it shows what is offered and says that nothing was done; no
// confirmation code is asked for.
func TestDryRun(t *testing.T) {
	d := newDaemon(t)
	d.play, d.end = []string{"authenticating", "cancelling", "cancelled"}, d.dry
	exit, out, errs := d.lpactl("", "install", "LPA:1$a.example$X$$1", "--dry-run")
	if exit != 0 || out != "dry run: nothing was loaded, and the activation code is still good\n" ||
		!strings.Contains(errs, "offered: Plan of Operator, ICCID 8901\n  rule: cannot be deleted\n  the server wants a confirmation code with it\n") || !strings.HasSuffix(d.last(), " dry") {
		t.Errorf("exit %d; asked %s\n%s%s", exit, d.last(), out, errs)
	}
	exit, out, _ = d.lpactl("", "install", "LPA:1$a.example$X", "--dry-run", "--json")
	if exit != 0 || !strings.Contains(out, `"dry_run": true`) || strings.Contains(out, "dry run:") {
		t.Errorf("--json: exit %d\n%s", exit, out)
	}
	// Aborted before the server has offered anything, it has shown nothing.
	d.end = func(j *api.Job) { j.DryRun, j.Profile = true, nil }
	if exit, _, _ = d.lpactl("", "install", "LPA:1$a.example$X", "--dry-run"); exit != 37 {
		t.Errorf("aborted: exit %d", exit)
	}
}

// TestInterruptedByKey: at a terminal a person is asked what is to become of the
// job; whoever says nothing else leaves it.
func TestInterruptedByKey(t *testing.T) {
	for _, tc := range []struct {
		name, typed string
		play        []string
		exit        int
		want        string
		aborted     bool
	}{
		{"leave it", "\n", []string{"authenticating"}, exitStopped, "next: watch it with lpactl jobs follow J1, stop it with lpactl jobs abort J1", false},
		{"abort it", "a\n", []string{"authenticating"}, 37, "the job was cancelled", true},
		{"at a question", "l\n", []string{"authenticating", "consent"}, exitStopped, "next: it waits for an answer: lpactl jobs answer J1", false},
		{"at a question, abort it", "abort\n", []string{"authenticating", "consent"}, 37, "the job was cancelled", true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			d := newDaemon(t)
			d.play, d.abort = tc.play, "cancelled"
			master, tty, err := pty.Open()
			if err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithCancelCause(t.Context())
			defer cancel(nil)
			seen := make(chan string, 1)
			go func() {
				var all bytes.Buffer
				b := make([]byte, 1024)
				for asked := false; ; {
					n, err := master.Read(b)
					all.Write(b[:n])
					if !asked && strings.Contains(all.String(), "[a/L] ") {
						asked = true
						_, _ = io.WriteString(master, tc.typed)
					}
					if err != nil {
						seen <- all.String()
						return
					}
				}
			}()
			go func() {
				for d.state() != tc.play[len(tc.play)-1] {
					time.Sleep(time.Millisecond)
				}
				time.Sleep(50 * time.Millisecond)
				cancel(errTyped)
			}()
			exit := run(ctx, []string{"--socket", d.path, "install", "LPA:1$a.example$X"}, tty, tty, tty)
			tty.Close()
			text := strings.ReplaceAll(<-seen, "\r", "")
			master.Close()
			if exit != tc.exit || !strings.Contains(text, tc.want) || (d.last() == "abort J1") != tc.aborted {
				t.Errorf("exit %d, want %d; asked %s\n%s", exit, tc.exit, d.last(), text)
			}
		})
	}
}

// TestProgress: what the line of progress says, and how little of it goes over a
// serial console.
func TestProgress(t *testing.T) {
	const size, took = 40000, 60 * time.Second
	draw := func(t *timeline) {
		for done := 0; done <= 400; done++ {
			at := epoch.Add(took * time.Duration(done) / 400)
			t.now = func() time.Time { return at }
			t.update(api.Job{State: "loading", Progress: &api.Progress{Done: done, Total: 400, Bytes: size * done / 400, Size: size}})
		}
		t.clearBar()
	}
	for _, term := range []string{"linux", "vt100", "dumb", "xterm-256color"} {
		t.Setenv("TERM", term)
		var b bytes.Buffer
		line := newTimeline(&ui{errs: &b})
		draw(line)
		if b.Len() > 0 {
			t.Errorf("%s: progress is drawn where there is no terminal: %q", term, b.String())
		}
		line.terminal = true
		line.began = time.Time{}
		draw(line)
		text := b.String()
		// 9600 baud carry 960 characters a second.
		if share := float64(len(text)) / took.Seconds() / 960; share > 0.1 {
			t.Errorf("%s: progress takes %.0f %% of a serial line", term, 100*share)
		}
		t.Logf("%s: %.0f characters a second", term, float64(len(text))/took.Seconds())
		if strings.ContainsAny(text, "\x1b\b\t") {
			t.Errorf("%s: the terminal is told more than it may know: %q", term, text)
		}
		if term == "dumb" {
			if want := "           loading: 25 %\n           loading: 50 %\n           loading: 75 %\n           loading: 100 %\n"; text != want {
				t.Errorf("%s: %q", term, text)
			}
			continue
		}
		const half = "\r       loading [##########..........]  50 %  20.3 of 40.0 kB, 30 s left"
		if !strings.Contains(text, half) || !strings.HasSuffix(text, " \r") {
			t.Errorf("%s: no half way: %.500q", term, text)
		}
		for _, one := range strings.Split(text, "\r") {
			if len(one) > 79 {
				t.Errorf("%s: a line of %d characters: %q", term, len(one), one)
			}
		}
	}
	if got := leftText(200 * time.Second); got != "3 min left" {
		t.Error(got)
	}
}
