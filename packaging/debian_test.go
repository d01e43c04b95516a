package packaging_test

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"lpad/packaging/packagetest"
)

// debs builds the programs and makes their packages, uncompressed, in several
// versions. It returns the folder.
func debs(t *testing.T, versions ...string) string { return debsWith(t, nil, versions...) }

// debsWith is debs with variables for make.
func debsWith(t *testing.T, variables []string, versions ...string) string {
	t.Helper()
	need(t, "dpkg-deb", "make", "gcc")
	dir := t.TempDir()
	build := exec.CommandContext(t.Context(), "make", append([]string{"-C", "..", "programs", "BUILD=" + filepath.Join(dir, "programs")}, variables...)...)
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("make programs: %v\n%s", err, out)
	}
	for _, v := range versions {
		pack(t, dir, v, dir)
	}
	return dir
}

// pack makes the packages of a version in the folder out.
func pack(t *testing.T, dir, version, out string, env ...string) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "go", "run", "./internal/tools/deb", "-version", version, "-arch", architecture(t),
		"-programs", filepath.Join(dir, "programs"), "-out", out, "-compress", "none")
	cmd.Dir = ".."
	cmd.Env = append(append(os.Environ(), "SOURCE_DATE_EPOCH=1700000000"), env...)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("deb: %v\n%s", err, out)
	}
}

func architecture(t *testing.T) string {
	t.Helper()
	return strings.TrimSpace(run(t, "dpkg", "--print-architecture"))
}

// TestReproducible: the same programs give the same packages, under another
// umask, in another zone and at another time, and with other times of the files.
func TestReproducible(t *testing.T) {
	dir := debs(t, "1.0")
	again := t.TempDir()
	later := time.Now().Add(-time.Hour)
	for _, p := range []string{"lpad", "lpactl", "lpad-pcsc"} {
		if err := os.Chtimes(filepath.Join(dir, "programs", p), later, later); err != nil {
			t.Fatal(err)
		}
	}
	script := "umask 077; exec \"$@\""
	cmd := exec.CommandContext(t.Context(), "sh", "-c", script, "sh", "go", "run", "./internal/tools/deb", "-version", "v1.0", "-arch", architecture(t),
		"-programs", filepath.Join(dir, "programs"), "-out", again, "-compress", "none")
	cmd.Dir = ".."
	cmd.Env = append(os.Environ(), "SOURCE_DATE_EPOCH=1700000000", "TZ=Pacific/Auckland", "LC_ALL=C", "TMPDIR="+t.TempDir())
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("deb: %v\n%s", err, out)
	}
	for _, p := range []string{"lpad", "lpad-pcsc"} {
		name := fmt.Sprintf("%s_1.0_%s.deb", p, architecture(t))
		a, errA := os.ReadFile(filepath.Join(dir, name))
		b, errB := os.ReadFile(filepath.Join(again, name))
		if errA != nil || errB != nil || !bytes.Equal(a, b) {
			t.Errorf("%s differs (%v, %v)", name, errA, errB)
		}
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
// upgraded, removed and purged.
func TestPackage(t *testing.T) {
	packagetest.Require(t)
	dir := debs(t, "1.0", "2.0")
	arch := architecture(t)
	i := startDevice(t)
	i.sh("systemctl start dbus.socket pcscd.socket")
	i.install(dir, "lpad_1.0_"+arch+".deb", "lpad-pcsc_1.0_"+arch+".deb")

	const pid = "systemctl show -P MainPID lpad.service"
	// It runs, and answers whoever may ask.
	i.want("systemctl is-active lpad.socket lpad.service; systemctl is-enabled lpad.socket lpad.service", "active\nactive\nenabled\nenabled")
	i.sh("lpactl status")
	i.want("stat -c '%U:%G %a' /run/lpad /run/lpad/lpad.sock /var/lib/lpad /etc/lpad /etc/lpad/lpad.yaml", "lpad:lpad 755\nlpad:lpad 660\nlpad:lpad 700\nroot:root 755\nroot:root 644")
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
	i.sh("timeout 60 sh -c 'until systemctl -q is-active lpad.service; do sleep 0.1; done'") // ready once it has looked for its card
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

	// Removed, the state is kept; installed again, it is there; purged, nothing is left but the user.
	i.sh("systemctl enable --quiet lpad.service; dpkg --remove lpad-pcsc lpad")
	i.want("systemctl is-active lpad.socket lpad.service || :; ls /usr/sbin/lpad /run/lpad/lpad.sock 2>/dev/null || :; ls /var/lib/lpad/kept /etc/lpad/lpad.yaml",
		"inactive\ninactive\n/etc/lpad/lpad.yaml\n/var/lib/lpad/kept")
	i.install(dir, "lpad_2.0_"+arch+".deb")
	i.want("lpactl status >/dev/null && tail -1 /etc/lpad/lpad.yaml; ls /var/lib/lpad/kept", "# mine\n/var/lib/lpad/kept")
	i.sh("rm /run/right; dpkg --purge lpad")
	i.want("find /etc /usr /var /run -xdev -name '*lpad*' -newer /run/packagetest/device.sh; ls -A /etc/systemd/system/*.wants 2>/dev/null || :; id -u lpad >/dev/null && echo user", "user")
}
