package packagetest_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"lpad/packaging/packagetest"
)

// TestDevice: systemd is PID 1, what is changed on the device is changed there alone, and nothing is left.
func TestDevice(t *testing.T) {
	packagetest.Require(t)
	before := entries(t)
	d, err := packagetest.Start(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	out, err := d.Run(t.Context(), "sh", "-ec", "cat /proc/1/comm; systemctl is-active default.target; touch /etc/lpad-was-here /usr/sbin/lpad-was-here; systemctl start dbus.service; systemctl is-active dbus.service")
	if err != nil || out != "systemd\nactive\nactive" {
		t.Errorf("%q, %v", out, err)
	}
	if _, err := os.Stat(d.Path("/etc/lpad-was-here")); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat("/etc/lpad-was-here"); err == nil {
		t.Error("the device writes to this machine")
	}
	if _, err := d.Run(t.Context(), "false"); err == nil {
		t.Error("a program that fails has no error")
	}
	log := d.Log()
	if err := d.Close(); err != nil {
		t.Errorf("%v\n%s", err, log)
	}
	if after := entries(t); after != before {
		t.Errorf("left behind: %s, was %s", after, before)
	}
}

// entries are the folders and groups of devices that there are.
func entries(t *testing.T) string {
	t.Helper()
	var all []string
	for _, pattern := range []string{filepath.Join(os.TempDir(), "lpad-device-*"), "/sys/fs/cgroup/lpad-device-*", "/sys/fs/cgroup/*/lpad-device-*"} {
		found, err := filepath.Glob(pattern)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, found...)
	}
	return strings.Join(all, " ")
}
