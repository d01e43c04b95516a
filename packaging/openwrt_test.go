package packaging_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestOpenWrt runs the script of OpenWrt's procd, which is not here: its functions say what they are told. lpad is the real one,
// which says whether the configuration is right.
func TestOpenWrt(t *testing.T) {
	script, err := os.ReadFile("openwrt/lpad.init")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	build := exec.CommandContext(t.Context(), "go", "build", "-o", filepath.Join(dir, "lpad"), "../cmd/lpad")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	// The paths are those of the device; here they lie in a folder.
	moved := string(script)
	for _, p := range []string{"/usr/sbin/lpad", "/etc/lpad", "/var/run/lpad"} {
		if !strings.Contains(moved, p) {
			t.Errorf("the script has no %s", p)
		}
	}
	moved = strings.NewReplacer("/usr/sbin/lpad", dir+"/lpad", "/etc/lpad", dir+"/etc", "/var/run/lpad", dir+"/run").Replace(moved)
	if err := os.WriteFile(filepath.Join(dir, "init"), []byte(moved), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(dir, "etc"), 0o755); err != nil {
		t.Fatal(err)
	}
	const procd = `procd_open_instance() { echo open; }
procd_close_instance() { echo close; }
procd_set_param() { echo "$@"; }
procd_send_signal() { echo "signal $@"; }
. "$1"
"$2"`
	call := func(function string) (string, error) {
		out, err := exec.CommandContext(t.Context(), "sh", "-eu", "-c", procd, "sh", filepath.Join(dir, "init"), function).CombinedOutput()
		return strings.TrimSpace(string(out)), err
	}
	configure := func(text string) {
		if err := os.WriteFile(filepath.Join(dir, "etc", "lpad.yaml"), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}

	configure("version: 1\n")
	want := fmt.Sprintf(`open
command %[1]s/lpad --config %[1]s/etc/lpad.yaml
env LPAD_STATE_DIR=%[1]s/etc/state LPAD_SOCKET=%[1]s/run/lpad.sock
respawn 3600 5 0
term_timeout 10
stdout 1
stderr 1
no_new_privs 1
limits nofile=1024 1024 core=0 0
close`, dir)
	if out, err := call("start_service"); err != nil || out != want {
		t.Errorf("start: %v\n%s\nwant\n%s", err, out, want)
	}
	if info, err := os.Stat(filepath.Join(dir, "etc", "state")); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("the state: %v, %v", info, err)
	}
	for folder, mode := range map[string]os.FileMode{"operators.d": 0o750, "profiles.d": 0o750, "params.d": 0o750, "params.d/secrets": 0o750, "hooks.d/staged.d": 0o755, "hooks.d/rolled-back.d": 0o755} {
		if info, err := os.Stat(filepath.Join(dir, "etc", folder)); err != nil || info.Mode() != os.ModeDir|mode {
			t.Errorf("%s: %v, %v", folder, info, err)
		}
	}
	if out, err := call("reload_service"); err != nil || out != "signal lpad * HUP" {
		t.Errorf("reload: %q, %v", out, err)
	}
	// The variables are those of lpad.
	check := exec.CommandContext(t.Context(), filepath.Join(dir, "lpad"), "--config", filepath.Join(dir, "etc", "lpad.yaml"), "--check")
	check.Env = append(os.Environ(), "LPAD_STATE_DIR=/x", "LPAD_SOCKET=/y")
	if out, err := check.CombinedOutput(); err != nil || !strings.Contains(string(out), "state_dir\tenvironment LPAD_STATE_DIR") || !strings.Contains(string(out), "socket\tenvironment LPAD_SOCKET") {
		t.Errorf("%v\n%s", err, out)
	}

	configure("version: 1\nnonsense: 1\n")
	if out, err := call("start_service"); err == nil || strings.Contains(out, "open") || !strings.Contains(out, "nonsense") {
		t.Errorf("a wrong configuration is started: %v\n%s", err, out)
	}
}
