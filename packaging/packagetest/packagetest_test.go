package packagetest_test

import (
	"os"
	"path/filepath"
	"testing"

	"lpad/packaging/packagetest"
)

// TestDevice: systemd is PID 1, what is changed on the device is changed there alone, and nothing is left.
func TestDevice(t *testing.T) {
	packagetest.Require(t)
	dir := t.TempDir() // other tests may have devices at the same time
	t.Setenv("TMPDIR", dir)
	d, err := packagetest.Start(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	folders := found(t, dir+"/lpad-device-*")
	if len(folders) != 1 {
		t.Fatalf("folders: %q", folders)
	}
	name := filepath.Base(folders[0])
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
	if left := found(t, folders[0], "/sys/fs/cgroup/"+name, "/sys/fs/cgroup/*/"+name); len(left) > 0 {
		t.Errorf("left behind: %q", left)
	}
}

// found are the files that match one of the patterns.
func found(t *testing.T, patterns ...string) (all []string) {
	t.Helper()
	for _, pattern := range patterns {
		names, err := filepath.Glob(pattern)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, names...)
	}
	return all
}
