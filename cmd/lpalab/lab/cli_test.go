package lab_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"image"
	"image/color"
	"image/jpeg"
	"io"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"

	"github.com/creack/pty"
	"github.com/makiuchi-d/gozxing"
	"github.com/makiuchi-d/gozxing/qrcode"

	"lpad/agent/rsp/rsptest/smdp"
	"lpad/cmd/lpalab/lab"
	"lpad/modem/modemtest"
)

// typing is what the technician does when a text has appeared.
type typing struct{ seen, typed string }

const ctrlC = "\x03"

// beside is a program that is left running in a window of its own until it has
// done what it is for; {server} is the address of the SM-DP+.
type beside struct{ command, seen string }

// line is a command at the prompt, as it is typed. {job} is the job that was
// named last.
type line struct {
	command string
	typing  []typing
	exit    int
	only    string // of the output, only the lines that begin so count; empty: all
	// then is what happens to the device before the next command.
	then func(t *testing.T, w *lab.World, m *lab.Modem)
}

// session is one example of docs/cli.md.
type session struct {
	name  string
	root  bool
	modem lab.ModemOptions
	order func(*smdp.Order)
	first *beside
	lines []line
	then  func(t *testing.T, w *lab.World, m *lab.Modem)
}

// carry is run on a machine that has a network; the lab's server is known by its
// options alone.
const carry = "lpactl packets carry stick --trust-dir {trust} --address smdp.lpad.example={server}"

const broken = "wrong" // how the doctor's lines begin that count: the others depend on the machine

// doctored is a session in which something is broken before the doctor looks.
func doctored(name string, exit int, args string, breakIt func(t *testing.T, w *lab.World, m *lab.Modem)) session {
	return session{name: name, lines: []line{
		{command: "lpactl status >before", then: breakIt},
		{command: "lpactl doctor" + args, exit: exit, only: broken},
	}}
}

func noProfile(t *testing.T, w *lab.World, _ *lab.Modem) {
	if n := len(w.Card.Profiles()); n != 1 {
		t.Errorf("%d profiles on the card", n)
	}
}

var sessions = []session{
	{name: "install", lines: []line{
		{command: "lpactl install letter.jpg --enable", typing: []typing{{"[y/N] ", "y\n"}}},
		{command: "lpactl status"},
		{command: "lpactl profiles"},
	}},
	{name: "dry-run", then: noProfile, lines: []line{{command: "lpactl install letter.jpg --dry-run"}}},
	{name: "confirmation-code", order: func(o *smdp.Order) { o.ConfirmationCode = "4711" }, lines: []line{
		{command: "lpactl install 'LPA:1$smdp.lpad.example$LAB-0001$$1' --yes", typing: []typing{{"confirmation code: ", "4712\n"}}, exit: 21},
		{command: "lpactl install 'LPA:1$smdp.lpad.example$LAB-0001$$1' --yes", typing: []typing{{"confirmation code: ", "4711\n"}}},
	}},
	{name: "wrong-code", then: noProfile, lines: []line{
		{command: "lpactl install dark.jpg", exit: 10},
		{command: "lpactl install letter.heic", exit: 10},
		{command: "lpactl install LPA:1$smdp.lpad.example$LAB-0001", exit: 10}, // without quotes
		{command: "lpactl install 'LPA:1$smdp.lpad.example$LAB-0007'", exit: 22},
	}},
	{name: "no-network", root: true, modem: lab.ModemOptions{Isolated: true}, then: noProfile, lines: []line{
		{command: "lpactl install letter.jpg --yes", exit: 17},
	}},
	{name: "relay", root: true, modem: lab.ModemOptions{Isolated: true}, first: &beside{"lpactl relay --allow {server}", "attached: "}, lines: []line{
		{command: "lpactl install letter.jpg --yes"},
	}},
	{name: "packets", root: true, modem: lab.ModemOptions{Isolated: true}, lines: []line{
		{command: "lpactl install letter.jpg --offline --yes --detach", then: func(t *testing.T, _ *lab.World, m *lab.Modem) {
			c := m.Client()
			defer c.Close()
			eventually(t.Context(), t, "a packet waits", func() bool {
				v, err := c.Packets(t.Context())
				return err == nil && len(v.Packets) > 0
			})
		}},
		{command: "lpactl packets get stick"},
		{command: carry},
		{command: "lpactl packets put stick --get stick"},
		{command: carry},
		{command: "lpactl packets put stick --get stick"},
		{command: carry},
		{command: "lpactl packets put stick"},
		{command: "lpactl profiles"},
	}},
	{name: "abort", then: noProfile, lines: []line{
		{command: "lpactl install letter.jpg", typing: []typing{{"[y/N] ", ctrlC}, {"[a/L] ", "a\n"}}, exit: 37},
		{command: "lpactl install letter.jpg", typing: []typing{{"[y/N] ", ctrlC}, {"[a/L] ", "\n"}}, exit: 130},
		{command: "lpactl jobs abort {job}"},
		{command: "lpactl jobs follow {job}", exit: 37},
	}},
	{name: "expert", then: noProfile, lines: []line{
		{command: "lpactl apdu 80E2910006BF3E035C015A00"},
		{command: "lpactl apdu 80E291000EBF310BA0065A0498001032810100", exit: 6},
		{command: "lpactl events | grep apdu"},
	}},
	{name: "trust", lines: []line{{command: "lpactl trust"}}},
	doctored("doctor-stopped", 3, "", func(t *testing.T, _ *lab.World, m *lab.Modem) { must(t, m.Stop()) }),
	doctored("doctor-unplugged", 51, "", func(t *testing.T, _ *lab.World, m *lab.Modem) { must(t, os.Remove(filepath.Join(m.Dir, "ttyLAB0"))) }),
	doctored("doctor-no-sim", 50, "", func(t *testing.T, _ *lab.World, m *lab.Modem) {
		for _, command := range []string{"+CPIN?", "+CCHO", "+CSIM", "+CGLA", "+CRSM"} {
			m.AT.AddFault(modemtest.Fault{Command: command, Answer: "+CME ERROR: 10"})
		}
		c := m.Client()
		defer c.Close()
		eventually(t.Context(), t, "lpad misses the SIM", func() bool { // what it has read just now counts for a while
			_, err := c.EUICC(t.Context())
			s, _ := c.Status(t.Context())
			return err != nil && s.Card.Problem != nil
		})
	}),
	doctored("doctor-wrong-server", 11, " --smdp 'LPA:1$smdp.invalid$LAB-0001'", nil),
	{name: "doctor-server-down", lines: []line{
		{command: "lpactl doctor --smdp 127.0.0.1:1", exit: 17, only: broken},
	}},
}

// TestCLI tries lpactl as a technician would, at a terminal of 80 by 24, with
// the real programs, and compares what is on the screen with docs/cli.md, where
// times and ids are others. With LPAD_CLI_UPDATE=1 it writes the examples anew.
func TestCLI(t *testing.T) {
	document := filepath.Join("..", "..", "..", "docs", "cli.md")
	text, err := os.ReadFile(document)
	must(t, err)
	var mu sync.Mutex
	update := os.Getenv("LPAD_CLI_UPDATE") != ""
	for _, s := range sessions {
		if example(string(text), s.name) == nil {
			t.Errorf("docs/cli.md has no example %q", s.name)
		}
	}
	if n := strings.Count(string(text), "<!-- session: "); n != len(sessions) {
		t.Errorf("docs/cli.md has %d examples, this test %d", n, len(sessions))
	}
	t.Run("sessions", func(t *testing.T) {
		for _, s := range sessions {
			t.Run(s.name, func(t *testing.T) {
				t.Parallel()
				if s.root {
					modemtest.RequireRoot(t)
				}
				got := s.play(t)
				mu.Lock()
				defer mu.Unlock()
				at := example(string(text), s.name)
				if at == nil {
					return
				}
				if update {
					text = []byte(string(text)[:at[0]] + got + string(text)[at[1]:])
					return
				}
				if want := string(text)[at[0]:at[1]]; s.masked(got) != s.masked(want) {
					t.Errorf("the screen shows\n%s\ndocs/cli.md has\n%s\nwithout times and ids:\n%s\n%s", got, want, s.masked(got), s.masked(want))
				}
			})
		}
	})
	if update && !t.Failed() {
		must(t, os.WriteFile(document, text, 0o644))
	}
}

// example is where the screen of a session is in the document.
func example(text, name string) []int {
	head := "<!-- session: " + name + " -->\n```console\n"
	begin := strings.Index(text, head)
	if begin < 0 {
		return nil
	}
	begin += len(head)
	end := strings.Index(text[begin:], "```")
	if end < 0 {
		return nil
	}
	return []int{begin, begin + end}
}

// play runs the session and returns what is on the screen then.
func (s session) play(t *testing.T) string {
	w := newWorld(t, lab.Options{Order: s.order})
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	o := s.modem
	o.Programs = programs
	m, err := w.StartModemWith(ctx, o)
	must(t, err)
	defer func() {
		if err := m.Close(); err != nil {
			t.Error(err)
		}
	}()
	dir := t.TempDir()
	code := letter(t, w.ActivationCode())
	must(t, os.WriteFile(filepath.Join(dir, "letter.jpg"), code, 0o644))
	must(t, os.Mkdir(filepath.Join(dir, "stick"), 0o755))
	must(t, os.WriteFile(filepath.Join(dir, "letter.heic"), []byte("\x00\x00\x00\x18ftypheic\x00\x00\x00\x00"), 0o644))
	must(t, os.WriteFile(filepath.Join(dir, "dark.jpg"), jpegOf(t, image.NewGray(image.Rect(0, 0, 640, 480))), 0o644))
	var screen strings.Builder
	job := ""
	finish := func() {}
	if s.first != nil {
		finish = s.beside(ctx, t, m, dir, &screen)
	}
	for _, l := range s.lines {
		command := strings.NewReplacer("{job}", job, "{server}", address(t, m), "{trust}", filepath.Join(m.Dir, "trust.d")).Replace(l.command)
		left := l.typing
		from := 0 // what was there before the last answer asks nothing
		shown, exit := atTerminal(ctx, t, m, dir, command, func(all string, in io.Writer) {
			for len(left) > 0 && strings.Contains(all[from:], left[0].seen) {
				from = len(all)
				_, err := io.WriteString(in, left[0].typed)
				must(t, err)
				left = left[1:]
			}
		})
		if len(left) > 0 {
			t.Errorf("%s: never asked %q", command, left[0].seen)
		}
		if ids := jobID.FindAllString(shown, -1); ids != nil {
			job = ids[len(ids)-1]
		}
		if exit != l.exit {
			t.Errorf("%s: exit %d, want %d\n%s", command, exit, l.exit, shown)
		}
		if strings.HasSuffix(command, ">before") {
			command = ""
		}
		if command != "" {
			fmt.Fprintf(&screen, "$ %s\n%s", command, shown)
			if exit != 0 {
				fmt.Fprintf(&screen, "$ echo $?\n%d\n", exit)
			}
		}
		if l.then != nil {
			l.then(t, w, m)
		}
	}
	finish()
	if s.then != nil {
		s.then(t, w, m)
	}
	// The device of the lab is in a folder, of which the doctor shortens the number; the technician's is not.
	shown := labPort.ReplaceAllString(screen.String(), "/dev/ttyUSB2")
	return strings.NewReplacer(m.Socket, "/run/lpad/lpad.sock", m.Dir, "/etc/lpad").Replace(shown)
}

// beside starts the program of the other window, and returns what ends it, which
// writes what that window shows behind the rest.
func (s session) beside(ctx context.Context, t *testing.T, m *lab.Modem, dir string, screen *strings.Builder) (finish func()) {
	t.Helper()
	command := strings.ReplaceAll(s.first.command, "{server}", address(t, m))
	ready, ended := make(chan io.Writer, 1), make(chan string, 1)
	go func() {
		told := false
		shown, exit := atTerminal(ctx, t, m, dir, command, func(all string, in io.Writer) {
			if !told && strings.Contains(all, s.first.seen) {
				told = true
				ready <- in
			}
		})
		if exit != 0 {
			t.Errorf("%s: exit %d", command, exit)
		}
		ended <- shown
	}()
	select {
	case in := <-ready:
		return func() {
			_, err := io.WriteString(in, ctrlC)
			must(t, err)
			fmt.Fprintf(screen, "\n$ %s\n%s\n", command, strings.TrimSuffix(<-ended, "\n"))
		}
	case shown := <-ended:
		t.Errorf("%s has ended before it was asked to\n%s", command, shown)
	}
	return func() {}
}

// address is where the SM-DP+ listens, as lpad is told.
func address(t *testing.T, m *lab.Modem) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(m.Dir, "lpad.yaml"))
	must(t, err)
	return serverPort.FindString(string(text))
}

// atTerminal runs a command at a terminal. type_ is called whenever there is more on
// it, with all that there was and where to type.
func atTerminal(ctx context.Context, t *testing.T, m *lab.Modem, dir, command string, type_ func(all string, in io.Writer)) (shown string, exit int) {
	if strings.HasPrefix(command, "lpactl") && !strings.ContainsAny(command, "|>") {
		command = "exec " + command // the shell is not there to see a ctrl-C
	}
	cmd := exec.CommandContext(ctx, "sh", "-c", command)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "PATH="+programs+":"+os.Getenv("PATH"), "LPAD_SOCKET="+m.Socket, "TERM=vt100", "TZ=UTC", "LC_ALL=C.UTF-8")
	terminal, err := pty.StartWithSize(cmd, &pty.Winsize{Rows: 24, Cols: 80})
	if err != nil {
		t.Error(err)
		return "", -1
	}
	defer terminal.Close()
	var all bytes.Buffer
	b := make([]byte, 4096)
	for {
		n, err := terminal.Read(b)
		all.Write(b[:n])
		if err != nil { // the end of the program is an error of its terminal
			break
		}
		type_(all.String(), terminal)
	}
	var ended *exec.ExitError
	if err := cmd.Wait(); err != nil && !errors.As(err, &ended) {
		t.Error(err)
	}
	if strings.Contains(all.String(), "\x1b") {
		t.Errorf("%s: a terminal is told more than it may know: %q", command, all.String())
	}
	return rendered(all.String()), cmd.ProcessState.ExitCode()
}

// rendered is what a terminal shows: a carriage return begins the line again.
func rendered(s string) string {
	var out strings.Builder
	for _, l := range strings.SplitAfter(s, "\n") {
		var row []rune
		at := 0
		for _, r := range strings.TrimSuffix(l, "\n") {
			if r == '\r' {
				at = 0
				continue
			}
			if at == len(row) {
				row = append(row, 0)
			}
			row[at] = r
			at++
		}
		out.WriteString(strings.TrimRight(string(row), " "))
		if strings.HasSuffix(l, "\n") {
			out.WriteByte('\n')
		}
	}
	return out.String()
}

var (
	labPort    = regexp.MustCompile(`/\S*/lpad-lab-[0-9…]+/ttyLAB0`)
	serverPort = regexp.MustCompile(`\b127\.0\.0\.1:\d+\b`)
	jobID      = regexp.MustCompile(`\b20\d{6}-\d{6}(-[0-9a-z]+)*\b`)
	masks      = []struct {
		find *regexp.Regexp
		with string
	}{
		{regexp.MustCompile(`(?m)^\d\d:\d\d:\d\d  127.*\n`), ""}, // connections of a relay: as many as it takes
		{regexp.MustCompile(`next: (systemctl start|systemctl status|start lpad|install the package)[^\n]*`), "next: START"},
		{jobID, "JOB"},
		{regexp.MustCompile(`\b\d+\.\d s\b`), "TIME"},
		{regexp.MustCompile(`\b\d+ (ms|s|min|h|days|bytes)( |\b)`), "TIME$2"},
		{regexp.MustCompile(`(?m)(lpad lab CI.* )[0-9A-F]{40} `), "${1}KEY "}, // made for each lab anew
		{regexp.MustCompile(`(?m)(lpad lab CI +)\d{4}-\d\d-\d\d `), "${1}DATE "},
		{regexp.MustCompile(`\b\d{4}-\d\d-\d\d[ T]\d\d:\d\d(:\d\d)?( UTC|Z)?`), "DATE"},
		{regexp.MustCompile(`\b\d\d:\d\d:\d\d(\.\d+)?\b`), "CLOCK"},
		{serverPort, "ADDRESS"},
		{regexp.MustCompile(`version +\S+`), "version V"},
		{regexp.MustCompile(`\bpid \d+`), "pid N"},
		{regexp.MustCompile(`\buid \d+`), "uid N"},
		{regexp.MustCompile(`user \S+`), "user NAME"},
		{regexp.MustCompile(`\s+`), " "}, // where lines break depends on how long a path is
	}
)

// masked is a screen without what is different each time.
func (s session) masked(screen string) string {
	for _, l := range s.lines {
		if l.only == "" {
			continue
		}
		var kept []string
		for _, one := range strings.Split(screen, "\n") {
			if strings.HasPrefix(one, l.only) || strings.HasPrefix(one, "$ ") {
				kept = append(kept, one)
			}
		}
		screen = strings.Join(kept, "\n")
	}
	for _, m := range masks {
		screen = m.find.ReplaceAllString(screen, m.with)
	}
	return strings.TrimSpace(screen)
}

// letter is a photograph of an operator's letter: the QR code lies crooked, in
// bad light.
func letter(t *testing.T, code string) []byte {
	t.Helper()
	m, err := qrcode.NewQRCodeWriter().EncodeWithoutHint(code, gozxing.BarcodeFormat_QR_CODE, 1, 1)
	must(t, err)
	const size = 900
	img := image.NewGray(image.Rect(0, 0, size, size))
	sin, cos := math.Sincos(0.3)
	scale := float64(m.GetWidth()) / (size * 0.5)
	for y := range size {
		for x := range size {
			dx, dy := float64(x-size/2)*scale, float64(y-size/2)*scale
			away := 1 + 0.2*dy/float64(m.GetWidth())
			u, v := (dx*cos-dy*sin)/away+float64(m.GetWidth())/2, (dx*sin+dy*cos)/away+float64(m.GetHeight())/2
			grey := 200.0
			if u >= 0 && v >= 0 && int(u) < m.GetWidth() && int(v) < m.GetHeight() && m.Get(int(u), int(v)) {
				grey = 40
			}
			img.SetGray(x, y, color.Gray{Y: byte(grey * (1 - 0.4*float64(x)/size))})
		}
	}
	return jpegOf(t, img)
}

func jpegOf(t *testing.T, img image.Image) []byte {
	t.Helper()
	var b bytes.Buffer
	must(t, jpeg.Encode(&b, img, &jpeg.Options{Quality: 75}))
	return b.Bytes()
}
