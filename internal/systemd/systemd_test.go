package systemd_test

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"lpad/internal/redact"
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

func TestWatchdog(t *testing.T) {
	for _, tc := range []struct {
		usec, pid string
		want      time.Duration
		wrong     bool
	}{
		{"", "", 0, false},
		{"60000000", "", time.Minute, false},
		{"60000000", fmt.Sprint(os.Getpid()), time.Minute, false},
		{"60000000", "1", 0, false}, // it is another process that systemd waits for
		{"soon", "", 0, true},
	} {
		t.Setenv("WATCHDOG_USEC", tc.usec)
		t.Setenv("WATCHDOG_PID", tc.pid)
		if tc.pid == "" {
			os.Unsetenv("WATCHDOG_PID")
		}
		if d, err := systemd.Watchdog(); d != tc.want || (err != nil) != tc.wrong {
			t.Errorf("%q for %q: %v, %v", tc.usec, tc.pid, d, err)
		}
	}
}

// TestReloading: systemd wants to know when it began, by a clock that does not jump.
func TestReloading(t *testing.T) {
	var usec int64
	if n, err := fmt.Sscanf(systemd.Reloading(), "RELOADING=1\nMONOTONIC_USEC=%d", &usec); n != 1 || err != nil || usec <= 0 {
		t.Errorf("%q, %v", systemd.Reloading(), err)
	}
}

// TestEntry: a line as it is in a text log, and a field for each attribute.
func TestEntry(t *testing.T) {
	r := slog.NewRecord(time.Time{}, slog.LevelWarn, "step", 0)
	r.AddAttrs(slog.String("job", "20260301-101500"), slog.Any("sw", "6A 88"), slog.String("iccid", "89049\u202635"), slog.Int("step", 3), slog.Any("err", errors.New("line 1\nline \"2\"")),
		slog.Any("code", redact.NewSecret("4711")), slog.String("empty", ""), slog.Group("apn", "name", "a.b", slog.Group("auth", "user", "u")), slog.String("dash-ed.naïve", "x"))
	text, fields := systemd.Entry(r, func(h slog.Handler) slog.Handler {
		return h.WithAttrs([]slog.Attr{slog.String("card", "main")}).WithGroup("").WithGroup("g").WithAttrs([]slog.Attr{slog.Bool("on", true)})
	})
	want := `step card=main g.on=true g.job=20260301-101500 g.sw="6A 88" g.iccid=89049` + "\u2026" + `35 g.step=3 g.err="line 1\nline \"2\"" g.code=` + redact.NewSecret("4711").String() +
		` g.empty="" g.apn.name=a.b g.apn.auth.user=u g.dash-ed.naïve=x`
	if text != want {
		t.Errorf("message\n%s\nwant\n%s", text, want)
	}
	for name, value := range map[string]string{"LPAD_CARD": "main", "LPAD_G_ON": "true", "LPAD_G_STEP": "3", "LPAD_G_ERR": "line 1\nline \"2\"", "LPAD_G_APN_AUTH_USER": "u",
		"LPAD_G_DASH_ED_NA__VE": "x", "SYSLOG_IDENTIFIER": "lpad"} {
		if fields[name] != value {
			t.Errorf("%s is %q, want %q", name, fields[name], value)
		}
	}
	for _, v := range fields {
		if strings.Contains(v, "4711") {
			t.Errorf("a secret is in the log: %q", v)
		}
	}
	for l, want := range map[slog.Level]int{slog.LevelError: 3, slog.LevelWarn: 4, slog.LevelInfo: 6, slog.LevelDebug: 7, slog.LevelDebug - 4: 7} {
		if got := systemd.Priority(l); got != want {
			t.Errorf("%v is %d, want %d", l, got, want)
		}
	}
	t.Setenv("JOURNAL_STREAM", "")
	if systemd.Journal(slog.LevelInfo) != nil {
		t.Error("a journal without systemd")
	}
	t.Setenv("JOURNAL_STREAM", "1:1") // of the service manager that has started the shell, for another descriptor
	if systemd.Journal(slog.LevelInfo) != nil {
		t.Error("standard error is not that one")
	}
}
