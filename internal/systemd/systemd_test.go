package systemd_test

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"lpad/internal/systemd"
)

func TestMain(m *testing.M) {
	if os.Getenv("LPAD_TEST_ACTIVATED") != "" {
		os.Exit(activated())
	}
	os.Exit(m.Run())
}

// activated is a service that systemd has started with sockets: the first
// descriptor after standard error is the first of them.
func activated() int {
	if err := os.Setenv("LISTEN_PID", fmt.Sprint(os.Getpid())); err != nil {
		fmt.Println(err)
		return 1
	}
	l, err := systemd.Listener()
	if l != nil {
		fmt.Println(l.Addr())
		if err := l.Close(); err != nil {
			fmt.Println(err)
		}
	}
	if err != nil {
		fmt.Println("error")
	}
	return 0
}

func TestWithoutSystemd(t *testing.T) {
	t.Setenv("NOTIFY_SOCKET", "")
	t.Setenv("LISTEN_FDS", "")
	if l, err := systemd.Listener(); l != nil || err != nil {
		t.Errorf("listener %v, %v", l, err)
	}
	if err := systemd.Notify("READY=1"); err != nil {
		t.Errorf("notify: %v", err)
	}
}

func TestNotify(t *testing.T) {
	path := filepath.Join(t.TempDir(), "n")
	c, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	t.Setenv("NOTIFY_SOCKET", path)
	for _, state := range []string{"READY=1", "STATUS=installing", "STOPPING=1"} {
		if err := systemd.Notify(state); err != nil {
			t.Fatal(err)
		}
		b := make([]byte, 100)
		if err := c.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
			t.Fatal(err)
		}
		n, err := c.Read(b)
		if err != nil || string(b[:n]) != state {
			t.Errorf("received %q, want %q, %v", b[:n], state, err)
		}
	}
	t.Setenv("NOTIFY_SOCKET", filepath.Join(t.TempDir(), "nobody"))
	if err := systemd.Notify("READY=1"); err == nil {
		t.Error("nobody listens, and it is no error")
	}
}

func TestListener(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	unixSocket, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer unixSocket.Close()
	second, err := net.Listen("unix", path+"2")
	if err != nil {
		t.Fatal(err)
	}
	defer second.Close()
	tcp, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer tcp.Close()
	file := func(l interface{ File() (*os.File, error) }) *os.File {
		f, err := l.File()
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { f.Close() })
		return f
	}
	first := file(unixSocket.(*net.UnixListener))
	for _, tc := range []struct {
		name  string
		files []*os.File
		want  string
	}{
		{"one socket", []*os.File{first}, path + "\n"},
		{"a socket of another kind", []*os.File{first, file(tcp.(*net.TCPListener))}, path + "\nerror\n"},
		{"two sockets", []*os.File{first, file(second.(*net.UnixListener))}, path + "\nerror\n"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			cmd := exec.Command("/proc/self/exe")
			cmd.Env = append(os.Environ(), "LPAD_TEST_ACTIVATED=1", fmt.Sprintf("LISTEN_FDS=%d", len(tc.files)))
			cmd.ExtraFiles = tc.files
			out, err := cmd.Output()
			if err != nil || string(out) != tc.want {
				t.Errorf("%q, want %q, %v", out, tc.want, err)
			}
			if _, err := os.Stat(path); err != nil {
				t.Errorf("the socket of systemd is gone: %v", err)
			}
		})
	}
}
