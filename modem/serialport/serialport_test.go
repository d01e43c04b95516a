package serialport_test

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/creack/pty"
	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"lpad/internal/fault"
	"lpad/modem/serialport"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// open returns both ends of a pseudo terminal, ours opened as a serial port.
func open(t *testing.T) (modem *os.File, port *serialport.Port, path string) {
	t.Helper()
	modem, slave, err := pty.Open()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = modem.Close() }) // a test may have closed it
	path = slave.Name()
	port, err = serialport.Open(path, 115200)
	if err != nil {
		t.Fatal(err)
	}
	if err := slave.Close(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := port.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	return modem, port, path
}

func TestReadAndWriteAreRaw(t *testing.T) {
	modem, port, _ := open(t)
	for _, b := range [][]byte{[]byte("\r\nOK\r\n"), {0x00, 0x03, 0x04, 0x11, 0x13, 0x1A, 0x7F, 0xFF, '\n', '\r'}} {
		for _, dir := range []struct {
			name     string
			from, to interface {
				Read([]byte) (int, error)
				Write([]byte) (int, error)
			}
		}{{"from the modem", modem, port}, {"to the modem", port, modem}} {
			if _, err := dir.from.Write(b); err != nil {
				t.Fatalf("%s: %v", dir.name, err)
			}
			got := make([]byte, 0, 64)
			for len(got) < len(b) {
				chunk := make([]byte, 64)
				n, err := dir.to.Read(chunk)
				if err != nil {
					t.Fatalf("%s: %v", dir.name, err)
				}
				got = append(got, chunk[:n]...)
			}
			if !bytes.Equal(got, b) {
				t.Errorf("%s: got %x, want %x", dir.name, got, b)
			}
		}
	}
}

func TestDeadlines(t *testing.T) {
	modem, port, _ := open(t)
	b := make([]byte, 8)
	if err := port.SetReadDeadline(time.Now().Add(20 * time.Millisecond)); err != nil {
		t.Fatal(err)
	}
	if _, err := port.Read(b); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatalf("read of a silent modem: %v, want os.ErrDeadlineExceeded", err)
	}
	if err := port.SetWriteDeadline(time.Now().Add(20 * time.Millisecond)); err != nil {
		t.Fatal(err)
	}
	if _, err := port.Write(make([]byte, 1<<20)); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatalf("write to a modem that does not read: %v, want os.ErrDeadlineExceeded", err)
	}
	if err := port.Flush(); err != nil {
		t.Fatal(err)
	}
	if err := port.SetDeadline(time.Time{}); err != nil {
		t.Fatal(err)
	}
	if _, err := modem.WriteString("x"); err != nil {
		t.Fatal(err)
	}
	if n, err := port.Read(b); err != nil || string(b[:n]) != "x" {
		t.Fatalf("read after a deadline: %q, %v", b[:n], err)
	}
}

func TestCloseEndsPendingRead(t *testing.T) {
	_, port, _ := open(t)
	begun, done := make(chan struct{}), make(chan error, 1)
	go func() {
		close(begun)
		_, err := port.Read(make([]byte, 8))
		done <- err
	}()
	<-begun
	if err := port.Close(); err != nil {
		t.Fatal(err)
	}
	if err := <-done; !errors.Is(err, os.ErrClosed) {
		t.Fatalf("pending read: %v, want os.ErrClosed", err)
	}
	if _, err := port.Write([]byte("AT\r")); !errors.Is(err, os.ErrClosed) {
		t.Fatalf("write after close: %v, want os.ErrClosed", err)
	}
	if err := port.Flush(); err == nil {
		t.Fatal("flush after close: no error")
	}
}

func TestHangup(t *testing.T) {
	modem, port, _ := open(t)
	done := make(chan error, 1)
	go func() {
		_, err := port.Read(make([]byte, 8))
		done <- err
	}()
	if err := modem.Close(); err != nil {
		t.Fatal(err)
	}
	if err := <-done; !errors.Is(err, serialport.ErrHangup) {
		t.Fatalf("pending read: %v, want ErrHangup", err)
	}
	// Not an endless stream of io.EOF: the same error, and it explains itself.
	_, err := port.Read(make([]byte, 8))
	if !errors.Is(err, serialport.ErrHangup) || fault.Of(err).Code != "modem-hangup" {
		t.Fatalf("second read: %v (%s), want ErrHangup", err, fault.Of(err).Code)
	}
	if _, err := port.Write([]byte("AT\r")); !errors.Is(err, serialport.ErrHangup) {
		t.Fatalf("write: %v, want ErrHangup", err)
	}
}

func TestOpenIsExclusive(t *testing.T) {
	_, port, path := open(t)
	_, err := serialport.Open(path, 115200)
	if !errors.Is(err, serialport.ErrBusy) || fault.Of(err).Code != "port-busy" {
		t.Fatalf("second open: %v, want ErrBusy", err)
	}
	if err := port.Close(); err != nil {
		t.Fatal(err)
	}
	again, err := serialport.Open(path, 9600)
	if err != nil {
		t.Fatalf("open after close: %v", err)
	}
	if err := again.Close(); err != nil {
		t.Fatal(err)
	}
}

// holder starts another program that has the port open, and waits until it is
// that program.
func holder(t *testing.T, path string) *exec.Cmd {
	t.Helper()
	slave, err := os.OpenFile(path, os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer slave.Close()
	if err := unix.IoctlSetInt(int(slave.Fd()), unix.TIOCEXCL, 0); err != nil {
		t.Fatal(err)
	}
	c := exec.Command("sleep", "60")
	c.Stdin = slave
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = c.Process.Kill() // it may be gone already
		_ = c.Wait()
	})
	return c
}

// A port that another program has for itself is not shared, not by root either,
// and the fault says whose it is.
func TestBusyNamesTheHolder(t *testing.T) {
	modem, slave, err := pty.Open()
	if err != nil {
		t.Fatal(err)
	}
	defer modem.Close()
	defer slave.Close()
	other := holder(t, slave.Name())
	_, err = serialport.Open(slave.Name(), 115200)
	want := fmt.Sprintf("sleep (pid %d) has the port open", other.Process.Pid)
	if !errors.Is(err, serialport.ErrBusy) || fault.Of(err).Code != "port-busy" || fault.Of(err).Text != want || !fault.Of(err).Retry {
		t.Errorf("error %v (%+v), want %q", err, fault.Of(err), want)
	}
	if who := serialport.Owner(slave.Name()); who+" has the port open" != want {
		t.Errorf("owner %q", who)
	}
	if err := other.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = other.Wait() // it was killed
	// Its mark is still on the line, because we have it open, but it holds nobody off.
	port, err := serialport.Open(slave.Name(), 115200)
	if os.Geteuid() != 0 && errors.Is(err, serialport.ErrBusy) {
		return // the kernel's word
	}
	if err != nil {
		t.Fatalf("after it has ended: %v", err)
	}
	if err := port.Close(); err != nil {
		t.Error(err)
	}
	if who := serialport.Owner(slave.Name()); who != "" {
		t.Errorf("owner %q, want nobody: we are the only one", who)
	}
	if who := serialport.Owner(filepath.Join(t.TempDir(), "ttyUSB9")); who != "" {
		t.Errorf("owner of nothing: %q", who)
	}
}

// A made-up /proc: processes without a right to look, with hostile names, with
// the master of a pseudo terminal, and files that are no processes.
func TestHolders(t *testing.T) {
	modem, slave, err := pty.Open()
	if err != nil {
		t.Fatal(err)
	}
	defer modem.Close()
	defer slave.Close()
	proc := t.TempDir()
	process := func(pid, name string, fds ...string) {
		dir := filepath.Join(proc, pid, "fd")
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(proc, pid, "comm"), []byte(name), 0o600); err != nil {
			t.Fatal(err)
		}
		for i, to := range fds {
			if err := os.Symlink(to, filepath.Join(dir, fmt.Sprint(i))); err != nil {
				t.Fatal(err)
			}
		}
	}
	process("1", "systemd\n", "/dev/null")
	process("812", "ModemManager\n", "socket:[77]", slave.Name())
	process("900", "emulator\n", slave.Name(), "/dev/ptmx")
	process("901", "\x1b[31mred\n", slave.Name())
	process("902", "", slave.Name())
	process("77", "self\n", slave.Name())
	if err := errors.Join(os.Mkdir(filepath.Join(proc, "sys"), 0o755), os.Mkdir(filepath.Join(proc, "903"), 0o755)); err != nil { // it has just ended
		t.Fatal(err)
	}
	holders, complete := serialport.HoldersIn(proc, slave.Name(), 77)
	slices.SortFunc(holders, func(a, b serialport.Holder) int { return a.PID - b.PID })
	want := []serialport.Holder{{PID: 812, Name: "ModemManager"}, {PID: 901, Name: "[31mred"}, {PID: 902, Name: "a program"}}
	if !slices.Equal(holders, want) || !complete {
		t.Errorf("%v, complete %v, want %v", holders, complete, want)
	}
	if h, ok := serialport.Suspect(proc); !ok || h.String() != "ModemManager (pid 812)" {
		t.Errorf("suspect %v, %v", h, ok)
	}
	if h, ok := serialport.Suspect(t.TempDir()); ok {
		t.Errorf("suspect %v where nobody is", h)
	}
	plain := filepath.Join(proc, "1", "comm")
	if holders, _ := serialport.HoldersIn(proc, plain, 77); len(holders) != 0 {
		t.Errorf("a plain file is held by %v", holders)
	}
}

func TestOpenErrors(t *testing.T) {
	if _, err := serialport.Open(filepath.Join(t.TempDir(), "ttyUSB9"), 115200); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no such device: %v, want fs.ErrNotExist", err)
	}
	plain := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(plain, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := serialport.Open(plain, 115200); err == nil {
		t.Error("a plain file: no error")
	}
	modem, slave, err := pty.Open()
	if err != nil {
		t.Fatal(err)
	}
	defer modem.Close()
	defer slave.Close()
	if _, err := serialport.Open(slave.Name(), 12345); err == nil {
		t.Error("a speed that does not exist: no error")
	}
}
