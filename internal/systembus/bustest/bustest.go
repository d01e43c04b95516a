// Package bustest gives tests a message bus of their own: a real dbus-daemon,
// which they can stop and start again, and on which they play the services
// (godbus' Export is for tests only).
//
//	bus := bustest.Start(t)
//	service := bus.Dial(t)   // Export objects, RequestName
//	client := systembus.New(bus.Address)
//
// It skips the test where dbus-daemon is missing, and fails it instead if
// LPAD_REQUIRE=all is in the environment. All that it starts ends with the test.
package bustest

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/godbus/dbus/v5"
)

const config = `<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN" "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig><type>system</type><listen>unix:path=%s</listen><auth>EXTERNAL</auth>
<policy context="default"><allow user="*"/><allow own="*"/><allow send_type="method_call"/><allow send_type="signal"/>
<allow send_requested_reply="true" send_type="method_return"/><allow send_requested_reply="true" send_type="error"/>
<allow receive_type="method_call"/><allow receive_type="method_return"/><allow receive_type="error"/><allow receive_type="signal"/></policy>
</busconfig>
`

const (
	startTimeout = 10 * time.Second
	pollInterval = 5 * time.Millisecond
)

// Bus is a running dbus-daemon.
type Bus struct {
	Address string // in D-Bus form
	dir     string
	cmd     *exec.Cmd // nil: stopped
}

// Start starts a bus.
func Start(t testing.TB) *Bus {
	t.Helper()
	if _, err := exec.LookPath("dbus-daemon"); err != nil {
		if os.Getenv("LPAD_REQUIRE") == "all" {
			t.Fatal("LPAD_REQUIRE=all, and dbus-daemon is missing: apt-get install dbus")
		}
		t.Skip("dbus-daemon is missing: apt-get install dbus")
	}
	dir, err := os.MkdirTemp("", "bus") // t.TempDir would be too long for a socket
	if err != nil {
		t.Fatal(err)
	}
	b := &Bus{dir: dir, Address: "unix:path=" + filepath.Join(dir, "s")}
	if err := os.WriteFile(filepath.Join(dir, "conf"), fmt.Appendf(nil, config, filepath.Join(dir, "s")), 0o600); err != nil {
		t.Fatal(err)
	}
	b.Up(t)
	t.Cleanup(func() {
		b.Down(t)
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	return b
}

// Up starts the bus again, under the same address.
func (b *Bus) Up(t testing.TB) {
	t.Helper()
	cmd := exec.Command("dbus-daemon", "--config-file="+filepath.Join(b.dir, "conf"), "--nofork", "--nopidfile")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	b.cmd = cmd
	for deadline := time.Now().Add(startTimeout); ; time.Sleep(pollInterval) {
		if conn, err := dbus.Connect(b.Address); err == nil {
			if err := conn.Close(); err != nil {
				t.Fatal(err)
			}
			return
		}
		if time.Now().After(deadline) {
			t.Fatal("dbus-daemon does not listen")
		}
	}
}

// Down stops the bus. It may be down already.
func (b *Bus) Down(t testing.TB) {
	t.Helper()
	if b.cmd == nil {
		return
	}
	if err := b.cmd.Process.Kill(); err != nil {
		t.Error(err)
	}
	if err := b.cmd.Wait(); err == nil {
		t.Error("dbus-daemon ended by itself")
	}
	b.cmd = nil
	if err := os.Remove(filepath.Join(b.dir, "s")); err != nil && !os.IsNotExist(err) {
		t.Error(err)
	}
}

// Dial makes a connection that ends with the test.
func (b *Bus) Dial(t testing.TB) *dbus.Conn {
	t.Helper()
	conn, err := dbus.Connect(b.Address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if conn.Connected() {
			if err := conn.Close(); err != nil {
				t.Error(err)
			}
		}
	})
	return conn
}

// Own takes a name on the bus.
func (b *Bus) Own(t testing.TB, conn *dbus.Conn, name string) {
	t.Helper()
	reply, err := conn.RequestName(name, dbus.NameFlagDoNotQueue)
	if err != nil || reply != dbus.RequestNameReplyPrimaryOwner {
		t.Fatalf("own %s: %v, %v", name, reply, err)
	}
}
