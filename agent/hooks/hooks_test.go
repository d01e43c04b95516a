package hooks_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"lpad/agent/hooks"
	"lpad/agent/job"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// dir makes a folder of hooks: programs by "event.d/name".
func dir(t *testing.T, programs map[string]string) hooks.Dir {
	t.Helper()
	d := hooks.Dir{Path: t.TempDir(), Timeout: 20 * time.Second}
	d.File = filepath.Join(t.TempDir(), "parameters.json")
	if err := os.Chmod(d.Path, 0o755); err != nil {
		t.Fatal(err)
	}
	for name, text := range programs {
		put(t, filepath.Join(d.Path, name), text, 0o755)
	}
	return d
}

func put(t *testing.T, path, text string, mode os.FileMode) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte("#!/bin/sh\n"+text+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(path, mode); err != nil { // whatever the mask
		t.Fatal(err)
	}
}

func told(runs []job.HookRun) string {
	var out []string
	for _, r := range runs {
		s := r.Event + "/" + r.Name
		if r.Problem != "" {
			s += " (" + r.Problem + ")"
		}
		out = append(out, s)
	}
	return strings.Join(out, ", ")
}

// What a hook is told, and in which order hooks run.
func TestRun(t *testing.T) {
	t.Setenv("LPAD_LOG_LEVEL", "debug")
	t.Setenv("NOTIFY_SOCKET", "/run/x")
	out := filepath.Join(t.TempDir(), "out")
	d := dir(t, map[string]string{
		"applied.d/20-second": `echo second >>` + out,
		"applied.d/10-first":  `env | grep -v -e ^_= -e ^PWD= -e ^SHLVL= -e ^OLDPWD= | sort >` + out + `; stat -c %a "$LPAD_PARAMETERS" >>` + out + `; cat "$LPAD_PARAMETERS" >>` + out + `; pwd >>` + out,
		"staged.d/10-other":   `echo wrong >>` + out,
	})
	about := hooks.About{Card: "main", EID: "8904", ICCID: "8933", Provider: "Pro\nvider", Previous: "8944", Job: "J1", APN: "iot", Source: "order", Interface: "wwan0",
		Parameters: []job.Parameter{{Leaf: "servers.cmp", Value: json.RawMessage(`"cmp.example"`), Source: "order", State: "applied"}, {Leaf: "radio.lteBands", Value: json.RawMessage(`[3,20]`), Source: "order"},
			{Leaf: "apns.default", Value: json.RawMessage(`{"name":"iot"}`), Source: "order"}, {Leaf: "servers.smds", Source: "order"}}}
	runs := d.Run(t.Context(), hooks.Applied, about)
	if got := told(runs); got != "applied/10-first, applied/20-second" {
		t.Errorf("runs %s", got)
	}
	got, err := os.ReadFile(out)
	want := `LPAD_APN=iot
LPAD_CARD=main
LPAD_EID=8904
LPAD_EVENT=applied
LPAD_FAULT=
LPAD_ICCID=8933
LPAD_INTERFACE=wwan0
LPAD_JOB=J1
LPAD_PARAMETERS=` + d.File + `
LPAD_PREVIOUS_ICCID=8944
LPAD_PROVIDER=Provider
LPAD_P_RADIO_LTEBANDS=3 20
LPAD_P_SERVERS_CMP=cmp.example
LPAD_SOURCE=order
PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
600
{"version":1,"event":"applied","iccid":"8933","parameters":[{"leaf":"servers.cmp","value":"cmp.example","source":"order","state":"applied"},{"leaf":"radio.lteBands","value":[3,20],"source":"order"},{"leaf":"apns.default","value":{"name":"iot"},"source":"order"},{"leaf":"servers.smds","source":"order"}]}
/
second
`
	if err != nil || string(got) != want {
		t.Errorf("%v: told\n%s\nwant\n%s", err, got, want)
	}
	if _, err := os.Stat(d.File); !os.IsNotExist(err) {
		t.Errorf("the file of the parameters stays: %v", err)
	}
}

// What is wrong with a hook is told, and the others run all the same.
func TestFailures(t *testing.T) {
	for _, tc := range []struct {
		name     string
		programs map[string]string
		change   func(t *testing.T, d *hooks.Dir)
		want     string
	}{
		{"none", nil, nil, ""},
		{"no folder at all", nil, func(_ *testing.T, d *hooks.Dir) { d.Path += "/absent" }, ""},
		{"no hooks configured", map[string]string{"staged.d/a": "exit 1"}, func(_ *testing.T, d *hooks.Dir) { d.Path = "" }, ""},
		{"fails", map[string]string{"staged.d/a": "echo trying; echo no server >&2; exit 3", "staged.d/b": ""}, nil, "staged/a (exit status 3: no server), staged/b"},
		{"a long complaint", map[string]string{"staged.d/a": "yes x | head -c 400 | tr -d '\\n'; exit 3"}, nil, "staged/a (exit status 3: " + strings.Repeat("x", 145) + "…)"},
		{"hangs", map[string]string{"staged.d/a": "sleep 60", "staged.d/b": ""}, func(_ *testing.T, d *hooks.Dir) { d.Timeout = 300 * time.Millisecond },
			"staged/a (killed: not done after 300ms: context deadline exceeded), staged/b"},
		{"all hang", map[string]string{"staged.d/a": "sleep 60", "staged.d/b": "sleep 60", "staged.d/c": "sleep 60", "staged.d/d": "sleep 60", "staged.d/e": ""},
			func(_ *testing.T, d *hooks.Dir) { d.Timeout = 100 * time.Millisecond }, "staged/e (not run: those before it have used up the time)"},
		{"writable by others", map[string]string{"staged.d/a": ""}, func(t *testing.T, d *hooks.Dir) { put(t, d.Path+"/staged.d/a", "", 0o757) }, "staged/a (not run: others may write it)"},
		{"writable by the group", map[string]string{"staged.d/a": ""}, func(t *testing.T, d *hooks.Dir) { put(t, d.Path+"/staged.d/a", "", 0o775) }, "staged/a (not run: others may write it)"},
		{"a folder writable by others", map[string]string{"staged.d/a": ""}, func(t *testing.T, d *hooks.Dir) { chmod(t, d.Path+"/staged.d", 0o777) },
			"staged/staged.d (not run: DIR/staged.d: others may write it)"},
		{"all folders writable by others", map[string]string{"staged.d/a": ""}, func(t *testing.T, d *hooks.Dir) { chmod(t, d.Path, 0o777) }, "staged/staged.d (not run: DIR: others may write it)"},
		{"a folder that is none", map[string]string{"staged.d": ""}, nil, "staged/staged.d (not run: DIR/staged.d: is no folder)"},
		{"of somebody else", map[string]string{"staged.d/a": "", "staged.d/b": ""}, func(t *testing.T, d *hooks.Dir) {
			if os.Geteuid() != 0 {
				t.Skip("only root gives files away")
			}
			if err := os.Chown(d.Path+"/staged.d/a", 4711, 4711); err != nil {
				t.Fatal(err)
			}
		}, "staged/a (not run: it belongs to user 4711, neither root nor lpad's), staged/b"},
		{"a link that leads nowhere", map[string]string{"staged.d/b": ""}, func(t *testing.T, d *hooks.Dir) { link(t, "/absent", d.Path+"/staged.d/a") },
			"staged/a (not run: stat DIR/staged.d/a: no such file or directory), staged/b"},
		{"a link", map[string]string{"x/prog": "", "staged.d/b": ""}, func(t *testing.T, d *hooks.Dir) { link(t, d.Path+"/x/prog", d.Path+"/staged.d/a") }, "staged/a, staged/b"},
		{"a link to what others may write", map[string]string{"x/prog": "", "staged.d/b": ""}, func(t *testing.T, d *hooks.Dir) {
			put(t, d.Path+"/x/prog", "", 0o777)
			link(t, d.Path+"/x/prog", d.Path+"/staged.d/a")
		}, "staged/a (not run: others may write it), staged/b"},
		{"leftovers and a README", map[string]string{"staged.d/.a": "exit 1", "staged.d/a~": "exit 1", "staged.d/a.dpkg-old": "exit 1", "staged.d/a.bak": "exit 1", "staged.d/b.sh": "", "staged.d/dir/x": "exit 1"},
			func(t *testing.T, d *hooks.Dir) { put(t, d.Path+"/staged.d/README", "exit 1", 0o644) }, "staged/b.sh"},
		{"no interpreter", map[string]string{"staged.d/a": ""}, func(t *testing.T, d *hooks.Dir) {
			if err := os.WriteFile(d.Path+"/staged.d/a", []byte("#!/absent/sh\n"), 0o755); err != nil {
				t.Fatal(err)
			}
		}, "staged/a (fork/exec DIR/staged.d/a: no such file or directory)"},
		{"prints 10 MB", map[string]string{"staged.d/a": "head -c 10000000 /dev/zero | tr '\\0' x; yes | head -c 100000", "staged.d/b": ""}, nil, "staged/a, staged/b"},
		{"a file that cannot be written", map[string]string{"staged.d/a": `[ -z "$LPAD_PARAMETERS" ]`}, func(_ *testing.T, d *hooks.Dir) { d.File = "/absent/file" },
			"staged/staged.d (the file of the parameters: open /absent/file: no such file or directory), staged/a"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			d := dir(t, tc.programs)
			path := d.Path
			if tc.change != nil {
				tc.change(t, &d)
			}
			var log bytes.Buffer
			d.Log = slog.New(slog.NewTextHandler(&log, nil))
			begin := time.Now()
			got := strings.ReplaceAll(told(d.Run(t.Context(), hooks.Staged, hooks.About{})), path, "DIR")
			if tc.name == "all hang" { // the first four are killed after about as long as they may
				if !strings.HasSuffix(got, tc.want) || strings.Count(got, "killed") < 3 {
					t.Errorf("told %s", got)
				}
			} else if got != tc.want {
				t.Errorf("told\n  %s\nwant\n  %s", got, tc.want)
			}
			if time.Since(begin) > 20*time.Second {
				t.Errorf("after %v", time.Since(begin))
			}
			if log.Len() > 32<<10 {
				t.Errorf("%d bytes of log", log.Len())
			}
		})
	}
}

// The examples of the package do what docs/operations.md says, as often as they
// are run.
func TestExamples(t *testing.T) {
	acme := t.TempDir()
	programs := map[string]string{}
	for _, name := range []string{"mqtt-endpoint", "logo"} {
		text, err := os.ReadFile("../../packaging/hooks/" + name)
		if err != nil {
			t.Fatal(err)
		}
		programs["applied.d/"+name] = strings.ReplaceAll(string(text), "/run/acme", acme)
	}
	d := dir(t, programs)
	about := func(host string) hooks.About {
		a := hooks.About{ICCID: "8949", EID: "8904", Provider: "Pro"}
		if host != "" {
			a.Parameters = []job.Parameter{{Leaf: "servers.cmp", Value: json.RawMessage(`"` + host + `"`)}}
		}
		return a
	}
	for _, tc := range []struct{ host, told, address string }{
		{"", "applied/logo, applied/mqtt-endpoint", ""},
		{"cmp.example", "applied/logo, applied/mqtt-endpoint", "cmp.example:8883"},
		{"cmp.example", "applied/logo, applied/mqtt-endpoint", "cmp.example:8883"},
		{"a; b", "applied/logo, applied/mqtt-endpoint (exit status 1: this is no host name)", "cmp.example:8883"},
	} {
		if got := told(d.Run(t.Context(), hooks.Applied, about(tc.host))); got != tc.told {
			t.Errorf("%s: told %s", tc.host, got)
		}
		text, err := os.ReadFile(filepath.Join(acme, "mqtt.conf"))
		if tc.address == "" && !os.IsNotExist(err) || tc.address != "" && !strings.Contains(string(text), "address "+tc.address+"\n") {
			t.Errorf("%s: %v, %s", tc.host, err, text)
		}
		if to, err := os.Readlink(filepath.Join(acme, "logo.png")); err != nil || to != "/usr/share/acme/logos/germany.png" {
			t.Errorf("%v, logo %s", err, to)
		}
	}
}

func chmod(t *testing.T, path string, mode os.FileMode) {
	t.Helper()
	if err := os.Chmod(path, mode); err != nil {
		t.Fatal(err)
	}
}

func link(t *testing.T, to, path string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(to, path); err != nil {
		t.Fatal(err)
	}
}

// More than can be right are not run.
func TestTooMany(t *testing.T) {
	programs := map[string]string{}
	for i := range 20 {
		programs[fmt.Sprintf("staged.d/%02d", i)] = ""
	}
	runs := dir(t, programs).Run(t.Context(), hooks.Staged, hooks.About{})
	if len(runs) != 17 || runs[0].Problem != "20 programs are too many: the last 4 were not run" || runs[16].Name != "15" {
		t.Errorf("runs %s", told(runs))
	}
}

// What a hook leaves in its group does not outlive it; the file of the
// parameters of a run that was killed is replaced.
func TestLeftBehind(t *testing.T) {
	d := dir(t, map[string]string{"activated.d/a": `sleep 60 & echo $! >"$0.pid"`})
	put(t, d.File, "old", 0o666)
	if got := told(d.Run(t.Context(), hooks.Activated, hooks.About{})); got != "activated/a" {
		t.Errorf("told %s", got)
	}
	dies(t, filepath.Join(d.Path, "activated.d/a.pid"))
}

// The end of the daemon ends the hook that runs, and begins no other.
func TestStop(t *testing.T) {
	d := dir(t, map[string]string{"applied.d/a": "", "applied.d/b": `trap '' TERM; sleep 60 & echo $! >"$0.pid"; wait`, "applied.d/c": `touch "$0.ran"`})
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	pid := filepath.Join(d.Path, "applied.d/b.pid")
	go func() {
		for {
			if b, err := os.ReadFile(pid); err == nil && len(b) > 0 {
				cancel()
				return
			}
			time.Sleep(5 * time.Millisecond)
		}
	}()
	begin := time.Now()
	runs := d.Run(ctx, hooks.Applied, hooks.About{})
	if got := told(runs); got != "applied/a" || time.Since(begin) > 20*time.Second {
		t.Errorf("told %s after %v", got, time.Since(begin))
	}
	if _, err := os.Stat(filepath.Join(d.Path, "applied.d/c.ran")); err == nil {
		t.Error("another one was begun")
	}
	dies(t, pid)
}

func dies(t *testing.T, file string) {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(b)))
	if err != nil {
		t.Fatal(err)
	}
	for limit := time.Now().Add(10 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		if err != nil || strings.Contains(string(stat), ") Z ") {
			return
		}
		if time.Now().After(limit) {
			_ = syscall.Kill(pid, syscall.SIGKILL)
			t.Fatal("what the hook started still runs")
		}
	}
}
