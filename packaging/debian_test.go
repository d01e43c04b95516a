package packaging_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"lpad/cmd/lpalab/lab"
	"lpad/packaging"
	"lpad/packaging/packagetest"
)

// The programs of the tests here are built once for each set of variables for make.
var (
	builds    sync.Mutex
	programs  = map[string]string{} // from the variables to the folder
	buildRoot string                // of those folders; TestMain removes it
)

// built are the programs, built with these variables for make.
func built(t *testing.T, variables ...string) string {
	t.Helper()
	need(t, "dpkg-deb", "make", "gcc")
	builds.Lock()
	defer builds.Unlock()
	key := strings.Join(variables, "\n")
	if programs[key] != "" {
		return programs[key]
	}
	dir, err := os.MkdirTemp(buildRoot, "")
	if err != nil {
		t.Fatal(err)
	}
	if err := lab.BuildPrograms(t.Context(), "..", dir, variables...); err != nil {
		t.Fatal(err)
	}
	programs[key] = dir
	return dir
}

// debs makes packages, uncompressed, of these programs in several versions. It
// returns their folder.
func debs(t *testing.T, programs string, versions ...string) string {
	t.Helper()
	dir := t.TempDir()
	for _, v := range versions {
		cmd := exec.CommandContext(t.Context(), "go", "run", "./internal/tools/deb", "-version", v, "-arch", architecture(t),
			"-programs", programs, "-out", dir, "-compress", "none")
		cmd.Dir = ".."
		cmd.Env = append(os.Environ(), "SOURCE_DATE_EPOCH=1700000000")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("deb: %v\n%s", err, out)
		}
	}
	return dir
}

func architecture(t *testing.T) string {
	t.Helper()
	return strings.TrimSpace(run(t, "dpkg", "--print-architecture"))
}

// TestReproducible: the same sources give the same programs and packages, in another folder, under another umask, in another
// zone and language, with other times of the files, at another time and without git. "make deb-twice" does so from the first
// object file on, for every architecture; here what is compiled comes from Go's cache, if it is the same.
func TestReproducible(t *testing.T) {
	t.Parallel()
	dir := debs(t, built(t, "VERSION=1.0"), "1.0")

	source := filepath.Join(t.TempDir(), "another folder")
	copySource(t, source)
	script := `umask 077; make -C "$1" programs VERSION=1.0 && cd "$1" && go run ./internal/tools/deb -version v1.0 -arch "$2" -programs build -out . -compress none`
	cmd := exec.CommandContext(t.Context(), "sh", "-euc", script, "sh", source, architecture(t))
	cmd.Env = append(os.Environ(), "SOURCE_DATE_EPOCH=1700000000", "TZ=Pacific/Auckland", "LC_ALL=C", "LANG=tr_TR.UTF-8", "TMPDIR="+t.TempDir())
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("the second time: %v\n%s", err, out)
	}
	for _, p := range []string{"lpad", "lpad-pcsc"} {
		name := fmt.Sprintf("%s_1.0_%s.deb", p, architecture(t))
		a, errA := os.ReadFile(filepath.Join(dir, name))
		b, errB := os.ReadFile(filepath.Join(source, name))
		if errA != nil || errB != nil || !bytes.Equal(a, b) {
			t.Errorf("%s differs (%v, %v)", name, errA, errB)
		}
	}
}

// copySource copies the project without what was built and what git knows; its files are of an hour ago.
func copySource(t *testing.T, to string) {
	t.Helper()
	then := time.Now().Add(-time.Hour)
	err := filepath.WalkDir("..", func(name string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel("..", name)
		switch {
		case err != nil:
			return err
		case e.IsDir() && (rel == ".git" || rel == "build" || rel == "dist"):
			return filepath.SkipDir
		case e.IsDir():
			return os.MkdirAll(filepath.Join(to, rel), 0o755)
		case !e.Type().IsRegular():
			return nil
		}
		text, err := os.ReadFile(name)
		if err != nil {
			return err
		}
		info, err := e.Info()
		if err == nil {
			err = os.WriteFile(filepath.Join(to, rel), text, info.Mode().Perm())
		}
		if err != nil {
			return err
		}
		return os.Chtimes(filepath.Join(to, rel), then, then)
	})
	if err != nil {
		t.Fatal(err)
	}
}

// entryLine is a file of a package: its owner and group, its mode as ls writes it.
var entryLine = regexp.MustCompile(`^(\S{10}) (\S+) +\d+ \S+ \S+ \./(.*?)(?: -> .*)?$`)

// contents are the files and folders of a package without the folders that Debian has in any case, with their modes. Each
// must be root's.
func contents(t *testing.T, file string) map[string]string {
	t.Helper()
	out := map[string]string{}
	for _, line := range strings.Split(strings.TrimSpace(run(t, "dpkg-deb", "--contents", file)), "\n") {
		m := entryLine.FindStringSubmatch(line)
		if m == nil || m[2] != "root/root" {
			t.Fatalf("%s: %s", file, line)
		}
		if name := strings.TrimSuffix(m[3], "/"); m[1][0] != 'd' || strings.HasPrefix(name, "etc/lpad") {
			out[name] = m[1]
		}
	}
	return out
}

// TestContents: what the package lpad has beside documents, and that only programs and examples may be executed.
func TestContents(t *testing.T) {
	t.Parallel()
	dir := debs(t, built(t, "VERSION=1.0"), "1.0")
	file := filepath.Join(dir, "lpad_1.0_"+architecture(t)+".deb")
	want := map[string]string{"usr/sbin/lpad": "-rwxr-xr-x", "usr/bin/lpactl": "-rwxr-xr-x", "etc/lpad": "drwxr-xr-x", "etc/lpad/hooks.d": "drwxr-xr-x"}
	for _, f := range slices.Concat(packaging.Files, packaging.Units, []packaging.File{packaging.Configuration}) {
		want[f.Target] = "-rw-r--r--"
	}
	for _, f := range packaging.Folders {
		want[f] = "drwxr-xr-x"
	}
	for name, mode := range contents(t, file) {
		if document := strings.HasPrefix(name, "usr/share/doc/") || strings.HasPrefix(name, "usr/share/man/") || strings.HasPrefix(name, "usr/share/lintian/") ||
			strings.Contains(name, "completions"); document {
			if executable := strings.Contains(name, "/examples/"); mode != "-rw-r--r--" && !(executable && mode == "-rwxr-xr-x") {
				t.Errorf("%s has %s", name, mode)
			}
			continue
		}
		if want[name] != mode {
			t.Errorf("%s is %q, want %q", name, mode, want[name])
		}
		delete(want, name)
	}
	for name := range want {
		t.Errorf("%s is not in the package", name)
	}
	if got := run(t, "dpkg-deb", "--info", file, "conffiles"); got != "/etc/lpad/lpad.yaml\n" {
		t.Errorf("configuration files: %q", got)
	}
	for _, name := range []string{"operations.md", "security.md", "lpactl.md", "modems.md", "api.md", "openapi.yaml"} {
		if contents(t, file)["usr/share/doc/lpad/"+name] == "" {
			t.Errorf("%s is not in the package", name)
		}
	}
}

// imageScript installs a package in a copy of this machine's file system, in memory, where nothing runs and nothing is mounted.
const imageScript = `
mount -t tmpfs tmpfs "$1"
mkdir "$1/upper" "$1/work" "$1/root"
mount -t overlay -o "lowerdir=/,upperdir=$1/upper,workdir=$1/work" overlay "$1/root"
cp "$2" "$1/root/lpad.deb"
exec chroot "$1/root" sh -euc '
	mkdir -p /etc/lpad/lpad.d; echo "version: 1" >/etc/lpad/lpad.d/50-device.yaml
	dpkg --force-unsafe-io --install /lpad.deb >/log 2>&1 || { cat /log; exit 1; }
	id -un lpad
	ls /etc/systemd/system/sockets.target.wants/lpad.socket /etc/systemd/system/multi-user.target.wants/lpad.service
	cat /etc/lpad/lpad.d/50-device.yaml
	dpkg --verify lpad'
`

// TestImage: in the making of an image the package makes its user and enables its units, starts nothing and needs no /proc.
func TestImage(t *testing.T) {
	packagetest.Require(t)
	t.Parallel()
	dir := debs(t, built(t, "VERSION=1.0"), "1.0")
	got := run(t, "unshare", "--mount", "--propagation", "private", "sh", "-euc", imageScript, "sh", t.TempDir(), filepath.Join(dir, "lpad_1.0_"+architecture(t)+".deb"))
	want := "lpad\n/etc/systemd/system/multi-user.target.wants/lpad.service\n/etc/systemd/system/sockets.target.wants/lpad.socket\nversion: 1\n"
	if got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

// installed is a device with packages, and what a test asks of it.
type installed struct {
	*testing.T
	d *packagetest.Device
}

func startDevice(t *testing.T) installed {
	t.Helper()
	packagetest.Require(t)
	d, err := packagetest.Start(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Log(d.Log())
		}
		if err := d.Close(); err != nil {
			t.Error(err)
		}
	})
	return installed{t, d}
}

// sh runs a script on the device; it must end well.
func (i installed) sh(script string) string {
	i.Helper()
	out, err := i.fails(script)
	if err != nil {
		i.Fatal(err)
	}
	return out
}

// fails runs a script that may end badly.
func (i installed) fails(script string) (string, error) {
	i.Helper()
	ctx, cancel := context.WithTimeout(i.Context(), time.Minute)
	defer cancel()
	return i.d.Run(ctx, "sh", "-euc", script)
}

// want compares what a script says.
func (i installed) want(script, want string) {
	i.Helper()
	if got, err := i.fails(script); err != nil || got != want {
		i.Errorf("%s\n got %q, %v\nwant %q", script, got, err, want)
	}
}

func (i installed) install(dir string, packages ...string) {
	i.Helper()
	args := []string{"dpkg --force-unsafe-io --install"}
	for _, p := range packages {
		name, err := i.d.Give(filepath.Join(dir, p))
		if err != nil {
			i.Fatal(err)
		}
		args = append(args, name)
	}
	i.sh(strings.Join(args, " "))
}

// sandbox looks out of the unit's sandbox, with a shell in the place of lpad: the
// bus and pcscd answer, serial devices may be opened (there is no driver behind
// them here, which is another answer than a refusal), and nothing else may.
func (i installed) sandbox() {
	i.Helper()
	i.sh(`unit=/run/systemd/system/look.service
sed -e '/^ExecPaths/d; /^Restart/d; /^Requires/d; s,^Type=.*,Type=oneshot,; s,^ExecStart=.*,ExecStart=/bin/sh /run/look.sh,; s,^NoExecPaths.*,,' \
	/usr/lib/systemd/system/lpad.service >$unit
for d in 188:0 166:0 204:64 207:16 1:1 10:1; do mknod -m 666 /run/dev-$d c ${d%:*} ${d#*:}; done
cat >/run/look.sh <<'END'
exec >/run/lpad/look 2>&1
for d in 188:0 166:0 204:64 207:16 1:1 10:1; do (exec 3<>/run/dev-$d) 2>&1 | sed "s,.*: ,$d ,"; done
dbus-send --system --print-reply=literal --dest=org.freedesktop.DBus /org/freedesktop/DBus org.freedesktop.DBus.NameHasOwner string:org.freedesktop.DBus
touch /etc/lpad/x /var/lib/x /usr/x /home/x 2>/dev/null || echo read-only
touch /var/lib/lpad/x && rm /var/lib/lpad/x && echo own
ls /home /root /boot /srv 2>/dev/null
ip link set lo down 2>/dev/null || echo unprivileged
unshare -U true 2>/dev/null || echo confined
END
systemctl daemon-reload; systemctl start look.service; rm $unit; systemctl daemon-reload`)
	i.want("cat /run/lpad/look; rm /run/lpad/look", "188:0 No such device or address\n166:0 No such device or address\n204:64 No such device or address\n"+
		"207:16 No such device or address\n1:1 Operation not permitted\n10:1 Operation not permitted\n   boolean true\nread-only\nown\nunprivileged\nconfined")
}

// hook runs the example of a hook in the unit's sandbox with the drop-in that docs/operations.md gives.
func (i installed) hook() {
	i.Helper()
	text, err := os.ReadFile("../docs/operations.md")
	if err != nil {
		i.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(text), "\n    [Service]\n")
	dropIn, _, found := strings.Cut(rest, "\n\n")
	if !found {
		i.Fatal("docs/operations.md has no drop-in for hooks")
	}
	i.sh(`dir=/run/systemd/system; mkdir $dir/hook.service.d
sed -e '/^Restart/d; /^Requires/d; s,^Type=.*,Type=oneshot,; s,^ExecStart=.*,ExecStart=/etc/lpad/interface,' /usr/lib/systemd/system/lpad.service >$dir/hook.service
printf '[Service]\nEnvironment=LPAD_EVENT=up LPAD_METHOD=static LPAD_INTERFACE=v0 LPAD_ADDRESS=10.9.9.2/24 LPAD_GATEWAY= LPAD_MTU=\n%s\n' '` +
		dropIn + `' >$dir/hook.service.d/hook.conf
cp /usr/share/doc/lpad/examples/interface /etc/lpad/; ip link add v0 type veth peer name v1
systemctl daemon-reload; systemctl start hook.service; rm -r $dir/hook.service* /etc/lpad/interface; systemctl daemon-reload`)
	i.want("ip -brief -4 address show dev v0 | grep -o '10.9.9.2/24'", "10.9.9.2/24")
}

// makersHook runs the example of a hook that follows the profile, in the unit's sandbox with the folder that it writes to.
func (i installed) makersHook() {
	i.Helper()
	i.want("stat -c '%U %a %F' /etc/lpad/hooks.d /etc/lpad/hooks.d/*.d | sort -u", "root 755 directory")
	i.sh(`dir=/run/systemd/system; mkdir $dir/hook.service.d; install -d -o lpad -g lpad /run/acme
sed -e '/^Restart/d; /^Requires/d; s,^Type=.*,Type=oneshot,; s,^ExecStart=.*,ExecStart=/etc/lpad/hooks.d/applied.d/10-mqtt,' /usr/lib/systemd/system/lpad.service >$dir/hook.service
printf '[Service]\nEnvironment=LPAD_P_SERVERS_CMP=cmp.example LPAD_EID=8904\nReadWritePaths=/run/acme\n' >$dir/hook.service.d/hook.conf
cp /usr/share/doc/lpad/examples/mqtt-endpoint /etc/lpad/hooks.d/applied.d/10-mqtt
systemctl daemon-reload; systemctl start hook.service; rm -r $dir/hook.service* /etc/lpad/hooks.d/applied.d/10-mqtt; systemctl daemon-reload`)
	i.want("stat -c %U /run/acme/mqtt.conf; grep address /run/acme/mqtt.conf; rm -r /run/acme", "lpad\naddress cmp.example:8883")
}

// TestPackage is the life of the package on a device: it is installed, started by its socket, stopped, killed, misconfigured,
// upgraded, downgraded, removed and purged.
func TestPackage(t *testing.T) {
	packagetest.Require(t)
	t.Parallel()
	dir := debs(t, built(t, "VERSION=1.0"), "1.0", "2.0")
	arch := architecture(t)
	i := startDevice(t)
	i.sh("systemctl start dbus.socket pcscd.socket")
	i.install(dir, "lpad_1.0_"+arch+".deb", "lpad-pcsc_1.0_"+arch+".deb")

	const (
		pid   = "systemctl show -P MainPID lpad.service"
		ready = "timeout 60 sh -c 'until systemctl -q is-active lpad.service; do sleep 0.1; done'" // once it has looked for its card
	)
	// It runs, and answers whoever may ask.
	i.want("systemctl is-active lpad.socket lpad.service; systemctl is-enabled lpad.socket lpad.service", "active\nactive\nenabled\nenabled")
	i.sh("lpactl status")
	i.want("stat -c '%U:%G %a' /run/lpad /run/lpad/lpad.sock /var/lib/lpad /etc/lpad /etc/lpad/lpad.yaml", "lpad:lpad 755\nlpad:lpad 660\nlpad:lpad 700\nroot:root 755\nroot:root 644")
	i.want("stat -c '%U:%G %a' /etc/lpad/operators.d /etc/lpad/profiles.d /etc/lpad/params.d /etc/lpad/params.d/secrets | uniq", "root:lpad 750")
	i.want("setpriv --reuid nobody --regid nogroup --clear-groups lpactl status >/dev/null 2>&1 || echo refused", "refused")
	i.want("setpriv --reuid nobody --regid lpad --clear-groups lpactl status >/dev/null && echo served", "served")
	i.want("stat -c %U /proc/$("+pid+"); grep -E '^(CapEff|CapBnd|NoNewPrivs|Seccomp):' /proc/$("+pid+")/status | tr -d '\\t'",
		"lpad\nCapEff:0000000000000000\nCapBnd:0000000000000000\nNoNewPrivs:1\nSeccomp:2")
	i.want("dpkg --verify lpad lpad-pcsc; systemd-analyze verify lpad.service lpad.socket 2>&1", "")
	t.Log(i.sh("systemd-analyze security --offline=true --threshold=15 lpad.service | tail -1"))
	i.want("for f in man/man1/lpactl.1.gz man/man8/lpad.8.gz bash-completion/completions/lpactl zsh/vendor-completions/_lpactl fish/vendor_completions.d/lpactl.fish; do "+
		"test -s /usr/share/$f || echo $f; done; bash -n /usr/share/bash-completion/completions/lpactl", "")
	// The helper may be executed in the sandbox, and reaches pcscd, whether there is a reader or not.
	if out, _ := i.fails("lpactl probe 2>&1"); !strings.Contains(out, "readers     yes") {
		t.Errorf("the probe says %q", out)
	}

	t.Log(i.sh("grep -E '^(VmRSS|RssAnon|Threads):' /proc/$(" + pid + ")/status"))

	i.sandbox()
	i.hook()
	i.makersHook()

	// Stopped, it comes by its socket, and the caller waits until it is there.
	begin := time.Now()
	i.sh("systemctl stop lpad.service")
	stop := time.Since(begin)
	i.want("systemctl is-active lpad.socket lpad.service || :", "active\ninactive")
	begin = time.Now()
	i.sh("lpactl status")
	t.Logf("stop %v; start by the socket, with the answer, %v", stop, time.Since(begin))
	i.sh(ready)
	i.want("systemctl show -P ActiveState -P SubState -P NotifyAccess -P Result lpad.service", "main\nsuccess\nactive\nrunning")
	if stop > 10*time.Second {
		t.Errorf("it takes %v to stop", stop)
	}

	// Killed, it comes back, and the caller waits again.
	first := i.sh(pid)
	begin = time.Now()
	i.sh("kill -KILL " + first + "; while [ \"$(" + pid + ")\" = " + first + " ]; do sleep 0.02; done; lpactl status")
	t.Logf("killed, and answered again after %v", time.Since(begin))
	i.want("systemctl show -P NRestarts lpad.service", "1")

	// A configuration that is wrong is not tried again and again, not even for a caller; put right, it runs.
	i.sh("cp /etc/lpad/lpad.yaml /run/right; echo 'nonsense: 1' >>/etc/lpad/lpad.yaml")
	if _, err := i.fails("systemctl restart lpad.service"); err == nil {
		t.Error("a wrong configuration starts")
	}
	i.want("systemctl show -P NRestarts -P ExecMainStatus -P Result lpad.service", "exit-code\n0\n2")
	i.want("lpactl status >/dev/null 2>&1 || echo no answer; systemctl is-failed lpad.service", "no answer\nfailed")
	i.sh("cp /run/right /etc/lpad/lpad.yaml; systemctl reset-failed lpad.service lpad.socket; systemctl restart lpad.socket lpad.service; lpactl status")

	// An upgrade keeps what is the administrator's and what is lpad's.
	i.sh("echo '# mine' >>/etc/lpad/lpad.yaml; touch /var/lib/lpad/kept; systemctl disable --quiet lpad.service")
	before := i.sh(pid)
	i.install(dir, "lpad_2.0_"+arch+".deb", "lpad-pcsc_2.0_"+arch+".deb")
	i.want("tail -1 /etc/lpad/lpad.yaml; ls /var/lib/lpad/journal /var/lib/lpad/kept; systemctl is-active lpad.service; systemctl is-enabled lpad.service || :",
		"# mine\n/var/lib/lpad/journal\n/var/lib/lpad/kept\nactive\ndisabled")
	if after := i.sh(pid); after == before {
		t.Error("the old daemon runs after the upgrade")
	}
	i.sh("lpactl status")

	// The version of before cannot know the journal of a later one: it says so and leaves it alone, and the later one goes on with it.
	i.install(dir, "lpad_1.0_"+arch+".deb", "lpad-pcsc_1.0_"+arch+".deb")
	i.want("dpkg-query -W -f '${Version}' lpad; systemctl is-active lpad.service", "1.0active")
	i.sh("systemctl stop lpad.service; mv /var/lib/lpad/journal /run/kept")
	newer := binary.LittleEndian.AppendUint32(append([]byte("lpadjrnl"), 9, 0, 0, 0), 0)
	binary.LittleEndian.PutUint32(newer[12:], crc32.Checksum(newer[:12], crc32.MakeTable(crc32.Castagnoli)))
	i.give("/var/lib/lpad/journal", string(newer))
	i.sh("chown lpad:lpad /var/lib/lpad/journal; cp /var/lib/lpad/journal /run/newer")
	if _, err := i.fails("systemctl restart lpad.service"); err == nil || !strings.Contains(i.d.Log(), "journal has format version 9") {
		t.Errorf("with a journal of a newer lpad: %v", err)
	}
	i.want("systemctl stop lpad.service 2>/dev/null; cmp /var/lib/lpad/journal /run/newer; mv /run/kept /var/lib/lpad/journal; rm /run/newer", "")
	i.install(dir, "lpad_2.0_"+arch+".deb", "lpad-pcsc_2.0_"+arch+".deb")
	i.sh("lpactl status; " + ready)

	// Removed, the state is kept; installed again, it is there; purged, nothing is left but the user.
	i.sh("systemctl enable --quiet lpad.service; dpkg --remove lpad-pcsc lpad")
	i.want("systemctl is-active lpad.socket lpad.service || :; ls /usr/sbin/lpad /run/lpad/lpad.sock 2>/dev/null || :; ls /var/lib/lpad/kept /etc/lpad/lpad.yaml",
		"inactive\ninactive\n/etc/lpad/lpad.yaml\n/var/lib/lpad/kept")
	i.install(dir, "lpad_2.0_"+arch+".deb")
	i.want("lpactl status >/dev/null && tail -1 /etc/lpad/lpad.yaml; ls /var/lib/lpad/kept", "# mine\n/var/lib/lpad/kept")
	i.sh("rm /run/right; dpkg --purge lpad")
	i.want("find /etc /usr /var /run -xdev -name '*lpad*' -newer /run/packagetest/device.sh; ls -A /etc/systemd/system/*.wants 2>/dev/null || :; id -u lpad >/dev/null && echo user", "user")
}
