package packaging_test

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"lpad/modem/modemtest"
	"lpad/packaging"
)

// TestMain is also the program that the tests of the policies run as another user.
func TestMain(m *testing.M) {
	if who := os.Getenv(callerVariable); who != "" {
		os.Exit(caller(who))
	}
	os.Exit(tests(m))
}

func tests(m *testing.M) int {
	flag.Parse()
	// These tests wait most of the time, for systemd, managers and cards.
	err := flag.Set("test.parallel", "3")
	if err == nil {
		buildRoot, err = os.MkdirTemp("", "lpad-test-")
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(buildRoot)
	return m.Run()
}

// need skips a test for which a program is missing, or fails it in CI.
func need(t *testing.T, programs ...string) {
	t.Helper()
	for _, p := range programs {
		if _, err := exec.LookPath(p); err != nil {
			missing(t, p+" is not installed")
		}
	}
	if os.Geteuid() != 0 {
		missing(t, "this needs root")
	}
}

func missing(t *testing.T, what string) {
	t.Helper()
	if os.Getenv("LPAD_REQUIRE") == "all" {
		t.Fatalf("LPAD_REQUIRE=all, and %s", what)
	}
	t.Skip(what)
}

// TestFiles: every file in the folders is in the list, and the other way round.
func TestFiles(t *testing.T) {
	var listed, found []string
	for _, f := range slices.Concat(packaging.Files, packaging.Units, []packaging.File{packaging.Configuration}) {
		listed = append(listed, f.Source)
		if path.Base(f.Source) != path.Base(f.Target) || path.IsAbs(f.Target) {
			t.Errorf("%s goes to %s", f.Source, f.Target)
		}
	}
	err := filepath.WalkDir(".", func(p string, e fs.DirEntry, err error) error {
		if err == nil && e.IsDir() && slices.Contains([]string{"hooks", "debian", "openwrt", "yocto", "buildroot", "man", "packagetest"}, p) { // examples, what is run by dpkg and OpenWrt, recipes, manual pages, a double
			return filepath.SkipDir
		}
		if err == nil && e.Type().IsRegular() && filepath.Ext(p) != ".go" && p != "install.sh" {
			found = append(found, filepath.ToSlash(p))
		}
		return err
	})
	slices.Sort(listed)
	if err != nil || !slices.Equal(listed, found) {
		t.Errorf("Files has\n  %s\nthe folders have\n  %s\n%v", strings.Join(listed, "\n  "), strings.Join(found, "\n  "), err)
	}
}

// device makes the tree of a device that the package was installed on, its users
// made by the real systemd-sysusers beside those of this machine.
func device(t *testing.T) string {
	t.Helper()
	need(t, "systemd-sysusers")
	root := t.TempDir()
	if err := packaging.Install(root); err != nil {
		t.Fatal(err)
	}
	if err := packaging.Accounts(root); err != nil {
		t.Fatal(err)
	}
	return root
}

// run runs a program, which must succeed, and returns everything that it says.
func run(t *testing.T, name string, args ...string) string {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), name, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %q: %v\n%s", name, args, err, out)
	}
	return string(out)
}

// entry is the line of a name in a file of users or groups, in its fields.
func entry(t *testing.T, root, file, name string) []string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(root, file))
	if err != nil {
		t.Fatal(err)
	}
	for _, line := range strings.Split(string(text), "\n") {
		if fields := strings.Split(line, ":"); fields[0] == name {
			return fields
		}
	}
	t.Fatalf("%s has no %s", file, name)
	return nil
}

// TestAccounts lets the real systemd-sysusers and systemd-tmpfiles make users and folders.
func TestAccounts(t *testing.T) {
	need(t, "systemd-sysusers", "systemd-tmpfiles")
	root := device(t)
	user := entry(t, root, "etc/passwd", packaging.User)
	group := entry(t, root, "etc/group", packaging.User)
	admin := entry(t, root, "etc/group", packaging.GroupAdmin)
	if user[3] != group[2] || user[5] != "/var/lib/lpad" || user[6] != "/usr/sbin/nologin" {
		t.Errorf("the user is %q, its group %q", user, group)
	}
	if password := entry(t, root, "etc/shadow", packaging.User)[1]; !strings.ContainsAny(password, "!*") {
		t.Errorf("somebody could log in: %q", password)
	}
	// The daemon is no member of those who may change things, and nobody else's member of anything.
	if group[3] != "" || admin[3] != "" {
		t.Errorf("members from the start: %q, %q", group, admin)
	}
	if again := run(t, "systemd-sysusers", "--dry-run", "--root="+root, "lpad.conf"); again != "" {
		t.Errorf("a second run would do %q", again)
	}

	run(t, "systemd-tmpfiles", "--create", "--root="+root, "lpad.conf")
	uid, gid := number(t, user[2]), number(t, group[2])
	type folder struct {
		mode os.FileMode
		uid  int
	}
	for folder, want := range map[string]folder{"run/lpad": {0o755, uid}, "var/lib/lpad": {0o700, uid}, "etc/lpad/operators.d": {0o750, 0}, "etc/lpad/profiles.d": {0o750, 0}, "etc/lpad/params.d": {0o750, 0},
		"etc/lpad/params.d/secrets": {0o750, 0}} {
		info, err := os.Stat(filepath.Join(root, folder))
		if err != nil {
			t.Error(err)
			continue
		}
		if st := info.Sys().(*syscall.Stat_t); info.Mode() != os.ModeDir|want.mode || int(st.Uid) != want.uid || int(st.Gid) != gid {
			t.Errorf("%s: %v of %d:%d, want %v of %d:%d", folder, info.Mode(), st.Uid, st.Gid, want.mode, want.uid, gid)
		}
	}
	config := run(t, "systemd-tmpfiles", "--cat-config", "--root="+root)
	lines := slices.DeleteFunc(strings.Split(config, "\n"), func(l string) bool { return l == "" || strings.HasPrefix(l, "#") })
	if len(lines) != 6 {
		t.Errorf("systemd-tmpfiles reads %q", lines)
	}
}

func number(t *testing.T, s string) int {
	t.Helper()
	n, err := strconv.Atoi(s)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// output runs a command of a device and returns what it writes to standard output.
func output(cmd *exec.Cmd) (string, error) {
	var errText strings.Builder
	cmd.Stderr = &errText
	out, err := cmd.Output()
	if err != nil {
		err = fmt.Errorf("%w: %s", err, errText.String())
	}
	return string(out), err
}

// startStack starts a device that ends with the test.
func startStack(ctx context.Context, t *testing.T, cfg modemtest.StackConfig) *modemtest.Stack {
	t.Helper()
	s, err := modemtest.StartStack(ctx, cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil && !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
	})
	return s
}
