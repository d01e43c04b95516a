package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestMain is lpad itself where a test starts it.
func TestMain(m *testing.M) {
	if os.Getenv("LPADTEST_MAIN") != "" {
		main()
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// asProcess1 starts lpad as process 1 of namespaces of its own, as in a container,
// and returns its process id out here.
func asProcess1(t *testing.T, config string) (*exec.Cmd, int) {
	t.Helper()
	if os.Geteuid() != 0 {
		if os.Getenv("LPAD_REQUIRE") == "all" {
			t.Fatal("LPAD_REQUIRE=all, and this needs root")
		}
		t.Skip("this needs root")
	}
	cmd := exec.Command("unshare", "--pid", "--fork", "--kill-child", "--mount-proc", "/proc/self/exe")
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Args[len(cmd.Args)-1] = self
	cmd.Args = append(cmd.Args, "--config", config)
	cmd.Env = append(os.Environ(), "LPADTEST_MAIN=1", "NOTIFY_SOCKET=", "WATCHDOG_USEC=")
	log, err := os.Create(filepath.Join(filepath.Dir(config), "log"))
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill() // it has ended, if all went well
		if text, err := os.ReadFile(log.Name()); t.Failed() {
			t.Logf("%s%v", text, err)
		}
	})
	var init int
	until(t, "process 1", func() bool {
		init, _ = strconv.Atoi(children(cmd.Process.Pid))
		return init != 0
	})
	return cmd, init
}

// children are those of all threads of a process; a thread adopts too.
func children(pid int) string {
	tasks, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid))
	var all []string
	for _, file := range tasks {
		text, _ := os.ReadFile(file) // a thread that has ended has none
		all = append(all, strings.Fields(string(text))...)
	}
	return strings.Join(all, " ")
}

func until(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); !ok(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("never: %s", what)
		}
	}
}

func configured(t *testing.T, text string) (dir, config string) {
	t.Helper()
	dir = t.TempDir()
	config = filepath.Join(dir, "lpad.yaml")
	if err := os.WriteFile(config, []byte(fmt.Sprintf("version: 1\nstate_dir: %s/lib\nsocket: %[1]s/sock\n%s", dir, text)), 0o600); err != nil {
		t.Fatal(err)
	}
	return dir, config
}

// TestProcess1: lpad as process 1 of a container has no dead children, hands signals on, and ends as lpad does.
func TestProcess1(t *testing.T) {
	dir, config := configured(t, "")
	cmd, init := asProcess1(t, config)
	until(t, "the socket", func() bool {
		_, err := os.Stat(filepath.Join(dir, "sock"))
		return err == nil
	})
	lpad := children(init)
	// Three processes whose parent has ended before them, as a hook may leave them behind.
	orphans := exec.Command("nsenter", "--target", fmt.Sprint(init), "--pid", "sh", "-c", "for i in 1 2 3; do (sleep 1 &) ; done")
	if err := orphans.Run(); err != nil { // without a pipe, which they would keep open
		t.Fatal(err)
	}
	if got := strings.Fields(children(init)); len(got) != 4 {
		t.Errorf("children of process 1: %q", got)
	}
	until(t, "the children are gone", func() bool { return children(init) == lpad })

	// SIGHUP has the configuration read again, and ends nothing.
	if err := syscall.Kill(init, syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	until(t, "read again", func() bool {
		text, err := os.ReadFile(filepath.Join(dir, "log"))
		return err == nil && strings.Contains(string(text), "configuration read again")
	})
	if err := syscall.Kill(init, syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err != nil {
		t.Errorf("after SIGTERM: %v", err)
	}
}

// TestProcess1Status: its exit status is lpad's.
func TestProcess1Status(t *testing.T) {
	_, config := configured(t, "nonsense: 1\n")
	cmd, _ := asProcess1(t, config)
	var exit *exec.ExitError
	if err := cmd.Wait(); !errors.As(err, &exit) || exit.ExitCode() != 2 {
		t.Errorf("a wrong configuration: %v", err)
	}

	dir, config := configured(t, "")
	cmd, init := asProcess1(t, config)
	until(t, "the socket", func() bool {
		_, err := os.Stat(filepath.Join(dir, "sock"))
		return err == nil
	})
	pid, err := strconv.Atoi(children(init))
	if err == nil {
		err = syscall.Kill(pid, syscall.SIGABRT) // a crash
	}
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); !errors.As(err, &exit) || exit.ExitCode() != 128+int(syscall.SIGABRT) {
		t.Errorf("a crash: %v", err)
	}
}
