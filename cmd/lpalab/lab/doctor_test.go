package lab_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"lpad/cmd/lpalab/lab"
	"lpad/modem/modemtest"
)

// finding is one of the doctor's, as --json has it.
type finding struct{ Check, Verdict, Text, Next, Code string }

// doctor runs lpactl doctor as somebody, and returns its findings and exit code.
func doctor(ctx context.Context, t *testing.T, d *lab.Daemon, as *syscall.Credential, args ...string) ([]finding, int) {
	t.Helper()
	cmd := exec.CommandContext(ctx, filepath.Join(programs, "lpactl"), append([]string{"--socket", d.Socket, "doctor", "--json"}, args...)...)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: as}
	var exit *exec.ExitError
	if err := cmd.Run(); err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	var document struct{ Findings []finding }
	if err := json.NewDecoder(&out).Decode(&document); err != nil {
		t.Fatalf("%v\n%s%s", err, &out, &errs)
	}
	return document.Findings, cmd.ProcessState.ExitCode()
}

// TestDoctor: set-ups that are broken in one place each. The doctor names the
// place, with what to do next, and finds nothing wrong elsewhere.
func TestDoctor(t *testing.T) {
	t.Parallel()
	stranger := &syscall.Credential{Uid: 65534, Gid: 65534}
	for _, tc := range []struct {
		name   string
		config string
		root   bool
		spoil  func(t *testing.T, w *lab.World, m *lab.Modem) []string // breaks it; further arguments
		as     *syscall.Credential
		exit   int
		check  string
		code   string
		text   string // in the finding
		next   string // in its next step
	}{
		{name: "nothing is broken"},
		{name: "stopped", exit: 3, check: "socket", code: "daemon-not-running", text: "lpad is stopped", next: "start",
			spoil: func(t *testing.T, _ *lab.World, m *lab.Modem) []string { must(t, m.Stop()); return nil }},
		{name: "crashed", exit: 3, check: "socket", code: "daemon-not-running", text: "was killed", next: "start",
			spoil: func(t *testing.T, _ *lab.World, m *lab.Modem) []string { must(t, m.Kill()); return nil }},
		{name: "stranger", config: "api: {read: users}\n", root: true, as: stranger, exit: 4, check: "socket", code: "no-permission", text: "the group users", next: "join the group users",
			spoil: func(t *testing.T, _ *lab.World, m *lab.Modem) []string { must(t, os.Chmod(m.Dir, 0o755)); return nil }},
		{name: "unplugged", exit: 51, check: "port", code: "port-missing", text: "is not there", next: "plug the modem in",
			spoil: func(t *testing.T, _ *lab.World, m *lab.Modem) []string {
				must(t, os.Remove(filepath.Join(m.Dir, "ttyLAB0")))
				return nil
			}},
		{name: "no card", exit: 50, check: "modem", code: "sim-missing", text: "the modem sees no SIM", next: "active slot",
			spoil: func(_ *testing.T, _ *lab.World, m *lab.Modem) []string {
				for _, command := range []string{"+CPIN?", "+CCHO", "+CSIM", "+CGLA", "+CRSM"} {
					m.AT.AddFault(modemtest.Fault{Command: command, Answer: "+CME ERROR: 10"})
				}
				return nil
			}},
		{name: "no such server", exit: 11, check: "server", code: "host-unknown", text: "smdp.invalid", next: "compare the name",
			spoil: func(*testing.T, *lab.World, *lab.Modem) []string {
				return []string{"--smdp", "LPA:1$smdp.invalid$SECRET"}
			}},
		{name: "server is down", exit: 17, check: "server", code: "connection-refused", text: "refuses", next: "operator",
			spoil: func(t *testing.T, _ *lab.World, _ *lab.Modem) []string {
				l, err := net.Listen("tcp", "127.0.0.1:0")
				must(t, err)
				must(t, l.Close())
				return []string{"--smdp", l.Addr().String()}
			}},
		{name: "another server", exit: 19, check: "server", code: "certificate-wrong-host", text: lab.Host, next: "portal",
			spoil: func(t *testing.T, w *lab.World, _ *lab.Modem) []string {
				l, err := net.Listen("tcp", "127.0.0.1:0")
				must(t, err)
				w.Serve(l)
				return []string{"--smdp", l.Addr().String()}
			}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			if tc.root {
				modemtest.RequireRoot(t)
			}
			w := newWorld(t, lab.Options{})
			ctx, cancel := context.WithTimeout(t.Context(), limit)
			defer cancel()
			m, err := w.StartModemWith(ctx, lab.ModemOptions{Programs: programs, Config: tc.config})
			must(t, err)
			defer func() {
				if err := m.Close(); err != nil && tc.name != "crashed" {
					t.Error(err)
				}
			}()
			var args []string
			if tc.spoil != nil {
				args = tc.spoil(t, w, m)
			}
			findings, exit := doctor(ctx, t, m.Daemon, tc.as, args...)
			wrong := 0
			for _, f := range findings {
				if f.Verdict != "wrong" {
					continue
				}
				wrong++
				if wrong == 1 && (f.Check != tc.check || f.Code != tc.code || !strings.Contains(f.Text, tc.text) || !strings.Contains(f.Next, tc.next)) {
					t.Errorf("the first fault is %+v", f)
				}
			}
			if exit != tc.exit || (wrong == 0) != (tc.exit == 0) {
				t.Errorf("exit %d, want %d", exit, tc.exit)
			}
			if t.Failed() {
				for _, f := range findings {
					t.Logf("%+v", f)
				}
			}
			if strings.Contains(fmt.Sprint(findings), "SECRET") {
				t.Error("the matching id was told")
			}
		})
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
