package program_test

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"lpad/internal/program"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func script(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "program")
	if err := os.WriteFile(path, []byte("#!/bin/sh\n"+text+"\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestRun(t *testing.T) {
	t.Setenv("SECRET_OF_LPAD", "x")
	inherited, err := unix.Open("/dev/null", unix.O_RDONLY, 0) // as what a program is started with
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(inherited)
	for _, tc := range []struct {
		name, script string
		said         string
		fails        string
	}{
		{"says", "echo one; echo; echo ' two ' >&2", "one|two", ""},
		{"says who", "echo iccid=89358050000000000022, imsi=001010123456789", "iccid=89358…22, imsi=00101…89", ""},
		{"fails", "echo no; exit 3", "no", "exit status 3"},
		{"its environment is all", "echo $A-$SECRET_OF_LPAD-$HOME", "b--", ""},
		{"no input", "cat; echo end", "end", ""},
		{"where it begins", "pwd", "/", ""},
		{"no arguments", "echo $#", "0", ""},
		{"no open files", "ls -l /proc/self/fd | grep -c /dev/null", "1", ""}, // its input
		{"its own group", `read pid comm state parent group rest </proc/$$/stat; [ $group = $$ ] && echo own`, "own", ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			p := program.Program{Path: script(t, tc.script), Env: []string{"A=b", "PATH=" + os.Getenv("PATH")}, Dir: "/", Timeout: 30 * time.Second, Alone: true}
			said, err := p.Run(t.Context())
			if got := strings.Join(said, "|"); got != tc.said {
				t.Errorf("said %q, want %q", got, tc.said)
			}
			if tc.fails == "" && err != nil || tc.fails != "" && (err == nil || err.Error() != tc.fails) {
				t.Errorf("error %v, want %q", err, tc.fails)
			}
		})
	}
}

// A program that is alone gains nothing by what it executes, and is bounded; lpad
// itself, and other programs, are as before.
func TestAlone(t *testing.T) {
	status, err := os.ReadFile("/proc/thread-self/status")
	if err != nil {
		t.Fatal(err)
	}
	const bit = "NoNewPrivs:\t1"
	if strings.Contains(string(status), bit) {
		t.Skip("these tests run without new privileges")
	}
	// It takes a moment until the limits are set.
	text := `i=0; while [ "$(ulimit -c)" != 0 ] && [ $i -lt 100 ]; do sleep 0.02; i=$((i+1)); done
grep NoNewPrivs /proc/self/status; ulimit -c; ulimit -n; ulimit -f`
	p := program.Program{Path: script(t, text), Env: os.Environ(), Timeout: 30 * time.Second, Alone: true}
	said, err := p.Run(t.Context())
	if got, want := strings.Join(said, "|"), bit+"|0|256|131072"; err != nil || got != want {
		t.Errorf("alone: %q, want %q, %v", got, want, err)
	}
	p = program.Program{Path: script(t, "grep NoNewPrivs /proc/self/status"), Env: os.Environ(), Timeout: 30 * time.Second}
	for range 20 {
		if said, err := p.Run(t.Context()); err != nil || len(said) != 1 || said[0] == bit {
			t.Errorf("not alone: %q, %v", said, err)
		}
	}
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(time.Millisecond) {
		threads, err := filepath.Glob("/proc/self/task/*/status")
		if err != nil {
			t.Fatal(err)
		}
		left := 0
		for _, file := range threads {
			if strings.Contains(file, "/task/"+strconv.Itoa(os.Getpid())+"/") {
				continue // Go cannot end the first thread, and lets it lie
			}
			if text, err := os.ReadFile(file); err == nil && strings.Contains(string(text), bit) {
				left++
			}
		}
		if left == 0 {
			break
		}
		if time.Now().After(end) {
			t.Fatalf("%d threads without new privileges are left", left)
		}
	}
}

// Ten megabytes are taken and forgotten, and the program ends well.
func TestMuchIsPrinted(t *testing.T) {
	p := program.Program{Path: script(t, `head -c 10000000 /dev/zero | tr '\0' x; echo; yes | head -c 1000; touch "$0.done"`), Env: os.Environ(), Timeout: time.Minute}
	said, err := p.Run(t.Context())
	if err != nil || len(said) != 1 || len(said[0]) > 1<<10 {
		t.Errorf("%d lines, %v", len(said), err)
	}
	if _, err := os.Stat(p.Path + ".done"); err != nil {
		t.Error(err)
	}
}

// What a program leaves in its group is killed or not, as is asked for; what
// has left the group keeps nobody waiting.
func TestLeftBehind(t *testing.T) {
	for _, tc := range []struct {
		name, script string
		alone, lives bool
	}{
		{"in the group", `sleep 60 & echo $! >"$0.pid"`, true, false},
		{"allowed", `sleep 60 & echo $! >"$0.pid"`, false, true},
		{"out of the group", `setsid sh -c 'echo $$ >"$1.pid"; exec sleep 60' - "$0" & while ! [ -s "$0.pid" ]; do sleep 0.01; done`, true, true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			p := program.Program{Path: script(t, tc.script), Env: os.Environ(), Timeout: 30 * time.Second, Alone: tc.alone}
			begin := time.Now()
			if _, err := p.Run(t.Context()); err != nil || time.Since(begin) > 20*time.Second {
				t.Errorf("%v after %v", err, time.Since(begin))
			}
			n := pid(t, p.Path)
			if tc.lives {
				if !alive(n) {
					t.Error("it is gone")
				}
				if err := syscall.Kill(n, syscall.SIGKILL); err != nil {
					t.Error(err)
				}
			}
			dies(t, n)
		})
	}
}

// A program whose time is up dies with its group; so does one that nobody waits
// for any more.
func TestKilled(t *testing.T) {
	for _, tc := range []struct {
		name    string
		timeout time.Duration
		want    error
	}{{"timeout", 300 * time.Millisecond, context.DeadlineExceeded}, {"stop", time.Minute, context.Canceled}} {
		t.Run(tc.name, func(t *testing.T) {
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			p := program.Program{Path: script(t, `trap '' TERM; sleep 60 & echo $! >"$0.pid"; echo begun; wait`), Env: os.Environ(), Timeout: tc.timeout, Alone: true}
			if tc.want == context.Canceled {
				go func() {
					for {
						if _, err := os.Stat(p.Path + ".pid"); err == nil {
							cancel()
							return
						}
						time.Sleep(5 * time.Millisecond)
					}
				}()
			}
			begin := time.Now()
			said, err := p.Run(ctx)
			if !errors.Is(err, tc.want) || !strings.HasPrefix(err.Error(), "not done after ") || time.Since(begin) > 20*time.Second {
				t.Errorf("after %v: %v, %q", time.Since(begin), err, said)
			}
			if b, err := os.ReadFile(p.Path + ".pid"); err == nil && len(b) > 0 {
				dies(t, pid(t, p.Path))
			} else if tc.want == context.Canceled {
				t.Error("it never began")
			}
		})
	}
}

// A program dies with lpad when nobody is left to kill it: here the test kills
// itself, in another process.
func TestLpadIsKilled(t *testing.T) {
	if path := os.Getenv("LPAD_TEST_PROGRAM"); path != "" { // that process
		_, err := program.Program{Path: path, Env: os.Environ(), Timeout: time.Minute, Alone: true}.Run(t.Context())
		t.Fatalf("the program has ended: %v", err)
	}
	path := script(t, `echo $$ >"$0.pid"; exec sleep 60`)
	lpad := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestLpadIsKilled$")
	lpad.Env = append(os.Environ(), "LPAD_TEST_PROGRAM="+path)
	if err := lpad.Start(); err != nil {
		t.Fatal(err)
	}
	for limit := time.Now().Add(30 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		if b, err := os.ReadFile(path + ".pid"); err == nil && len(b) > 0 {
			break
		}
		if time.Now().After(limit) {
			t.Fatal("the program never begins")
		}
	}
	if err := lpad.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = lpad.Wait() // killed
	dies(t, pid(t, path))
}

func TestNoProgram(t *testing.T) {
	plain := filepath.Join(t.TempDir(), "plain")
	if err := os.WriteFile(plain, []byte("x"), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := (program.Program{Path: plain, Timeout: time.Second, Alone: true}).Run(t.Context()); !errors.Is(err, os.ErrPermission) {
		t.Error(err)
	}
	if _, err := (program.Program{Path: plain + ".absent", Timeout: time.Second}).Run(t.Context()); !errors.Is(err, os.ErrNotExist) {
		t.Error(err)
	}
}

// pid is what a script has written beside itself.
func pid(t *testing.T, path string) int {
	t.Helper()
	b, err := os.ReadFile(path + ".pid")
	if err != nil {
		t.Fatal(err)
	}
	n, err := strconv.Atoi(strings.TrimSpace(string(b)))
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// alive reports whether a process runs; a zombie, whose parent has died, does not.
func alive(pid int) bool {
	b, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "stat"))
	return err == nil && !strings.Contains(string(b), ") Z ")
}

func dies(t *testing.T, pid int) {
	t.Helper()
	for limit := time.Now().Add(10 * time.Second); alive(pid); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(limit) {
			t.Fatalf("process %d still runs", pid)
		}
	}
}
