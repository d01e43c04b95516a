package packaging_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

const rules78 = "udev/78-mm-lpad.rules"

// usbPort is a tty of a USB device: vendor, product and number of the interface.
type usbPort struct{ vendor, product, number string }

var takenLine = regexp.MustCompile(`(?m)^ATTRS\{idVendor\}=="(....)", ATTRS\{idProduct\}=="(....)", ENV\{\.LPAD_IFNUM\}=="(..)", ENV\{LPAD_AT\}="1"$`)

// taken are the ports that 78-mm-lpad.rules takes.
func taken(t *testing.T) []usbPort {
	t.Helper()
	text, err := os.ReadFile(rules78)
	if err != nil {
		t.Fatal(err)
	}
	var out []usbPort
	for _, m := range takenLine.FindAllStringSubmatch(string(text), -1) {
		out = append(out, usbPort{m[1], m[2], m[3]})
	}
	if lines := strings.Count(string(text), `ENV{LPAD_AT}="1"`) - strings.Count(template(t), `ENV{LPAD_AT}="1"`); len(out) < 10 || len(out) != lines {
		t.Fatalf("%d lines of ports can be read, of %d", len(out), lines)
	}
	return out
}

// template are the examples for makers of devices in 78-mm-lpad.rules, without
// the first, which says the opposite.
func template(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile(rules78)
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, line := range strings.Split(string(text), "\n") {
		if rule, ok := strings.CutPrefix(line, "#   "); ok {
			out = append(out, rule)
		}
	}
	if len(out) != 7 || out[0] != optOut {
		t.Fatalf("the examples are %q", out)
	}
	return strings.Join(out[1:], "\n") + "\n"
}

// optOut leaves every port with ModemManager.
const optOut = `SUBSYSTEM=="tty", ENV{LPAD_AT}="0"`

// TestRulesAreModemManagers: each port is one that ModemManager calls the second AT port.
func TestRulesAreModemManagers(t *testing.T) {
	files, err := filepath.Glob("/lib/udev/rules.d/77-mm-*.rules")
	if err != nil || len(files) == 0 {
		missing(t, "ModemManager's rules are not installed")
	}
	var all strings.Builder
	for _, f := range files {
		text, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		all.Write(text)
	}
	for _, p := range taken(t) {
		line := fmt.Sprintf(`ATTRS{idVendor}=="%s", ATTRS{idProduct}=="%s", ENV{.MM_USBIFNUM}=="%s", SUBSYSTEM=="tty", ENV{ID_MM_PORT_TYPE_AT_SECONDARY}="1"`, p.vendor, p.product, p.number)
		if !strings.Contains(all.String(), line) {
			t.Errorf("not the second AT port by ModemManager's rules: %+v", p)
		}
	}
}

// udevScript gives the real udevd's rule engine a device: D is a folder with
// sys, rules and accounts. It prints what udev says, then what it did to /dev.
const udevScript = `
mount --bind "$D/rules" /lib/udev/rules.d
mount --bind "$D/passwd" /etc/passwd
mount --bind "$D/group" /etc/group
mount -t tmpfs tmpfs "$D/dev"
mknod -m 600 "$D/dev/$TTY" c 188 1
mknod -m 666 "$D/dev/null" c 1 3
mount -t tmpfs tmpfs /run
mount --bind "$D/dev" /dev
mount --bind "$D/sys" /sys
udevadm test --action=add /sys/class/*/"$TTY" 2>&1
cd /dev
stat -c 'node %n %U:%G %a' "$TTY"
find . -path ./char -prune -o -type l -printf 'link %P %l\n'
`

// complaint is what udev says of a line of ours that it does not understand, or cannot carry out.
var complaint = regexp.MustCompile(`lpad(-local)?\.rules:\d+.*(nvalid|nknown|ailed|gnoring|must|not found)`)

// udev lets udev's own engine apply all rules of ModemManager and ours, and local
// in 77-mm-lpad-local.rules, to a port; usbPort{} is one of the board.
func udev(t *testing.T, root, tty string, p usbPort, local string) string {
	t.Helper()
	d := t.TempDir()
	mkdir := func(name string) string {
		dir := filepath.Join(d, name)
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		return dir
	}
	write := func(text string, name ...string) {
		if err := os.WriteFile(filepath.Join(name...), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	link := func(to string, name ...string) {
		if err := os.Symlink(to, filepath.Join(name...)); err != nil {
			t.Fatal(err)
		}
	}
	mkdir("dev")
	mkdir("sys/bus/usb")
	mkdir("sys/dev/char")
	class, node := "tty", "devices/platform/uart/tty/"+tty
	if strings.HasPrefix(tty, "wwan") {
		class, node = "wwan", "devices/pci0000:00/0000:00:1c.0/wwan/wwan0/"+tty
	}
	if p.vendor != "" {
		device, name := "sys/devices/platform/hcd/usb1/1-1.2", "1-1.2:1."+strings.TrimLeft(p.number, "0")
		port := filepath.Join(device, name)
		node = strings.TrimPrefix(filepath.Join(port, tty, "tty", tty), "sys/")
		for dir, attributes := range map[string]map[string]string{
			device: {"idVendor": p.vendor, "idProduct": p.product, "uevent": "DEVTYPE=usb_device"},
			port:   {"bInterfaceNumber": p.number, "uevent": "DEVTYPE=usb_interface"},
		} {
			dir = mkdir(dir)
			link("/sys/bus/usb", dir, "subsystem")
			for name, value := range attributes {
				write(value+"\n", dir, name)
			}
		}
	}
	dir := mkdir("sys/" + node)
	write("MAJOR=188\nMINOR=1\nDEVNAME="+tty+"\n", dir, "uevent")
	write("188:1\n", dir, "dev")
	link("/sys/class/"+class, dir, "subsystem")
	link("/sys/"+node, mkdir("sys/class/"+class), tty)
	link("/sys/"+node, d, "sys/dev/char/188:1")

	rules := mkdir("rules")
	files, err := filepath.Glob("/lib/udev/rules.d/7[789]-mm-*.rules")
	if err != nil {
		t.Fatal(err)
	}
	ours, err := filepath.Glob(filepath.Join(root, "usr/lib/udev/rules.d/*"))
	if err != nil || len(ours) != 2 {
		t.Fatalf("%q, %v", ours, err)
	}
	for _, f := range append(files, ours...) {
		text, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		write(string(text), rules, filepath.Base(f))
	}
	if local != "" {
		write(local, rules, "77-mm-lpad-local.rules")
	}
	for _, name := range []string{"passwd", "group"} {
		text, err := os.ReadFile(filepath.Join(root, "etc", name))
		if err != nil {
			t.Fatal(err)
		}
		write(string(text), d, name)
	}
	cmd := exec.CommandContext(t.Context(), "unshare", "--mount", "--propagation", "private", "sh", "-euc", udevScript)
	// A sysfs that is none.
	cmd.Env = append(os.Environ(), "D="+d, "TTY="+tty, "SYSTEMD_DEVICE_VERIFY_SYSFS=0", "LC_ALL=C")
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("udevadm: %v\n%s", err, out)
	}
	return string(out)
}

// TestUdev applies the rules with udev's own engine to made-up devices.
func TestUdev(t *testing.T) {
	need(t, "udevadm", "unshare")
	root := device(t)
	if exec.CommandContext(t.Context(), "udevadm", "verify", "--help").Run() == nil { // from 254 on
		run(t, "udevadm", "verify", "--root="+root)
	}
	local := strings.NewReplacer(`"1234"`, `"1bc7"`, `"5678"`, `"7011"`).Replace(template(t))
	type test struct {
		name, tty string
		port      usbPort
		local     string
		link      string // "": the port is not taken
	}
	tests := []test{
		{"the other AT port of a modem", "ttyUSB2", usbPort{"2c7c", "0125", "02"}, "", ""},
		{"an unknown modem", "ttyUSB1", usbPort{"2c7c", "ffff", "03"}, "", ""},
		{"a port of the board", "ttymxc2", usbPort{}, "", ""},
		{"the maker says no", "ttyUSB3", usbPort{"2c7c", "0125", "03"}, optOut, ""},
		{"the maker names a port", "ttyUSB3", usbPort{"1bc7", "7011", "03"}, local, "lpad/at-1-1.2"},
		{"the maker names a port of the board", "ttymxc2", usbPort{}, local, "lpad/at-ttymxc2"},
		{"the maker names a port of a WWAN driver", "wwan0at1", usbPort{}, local, "lpad/at-wwan0at1"},
		{"another port of a WWAN driver", "wwan0at0", usbPort{}, local, ""},
		{"another port of a named modem", "ttyUSB4", usbPort{"1bc7", "7011", "04"}, local, ""},
	}
	for _, p := range taken(t) {
		tests = append(tests, test{strings.Join([]string{p.vendor, p.product, p.number}, ":"), "ttyUSB3", p, "", "lpad/at-1-1.2"})
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			out := udev(t, root, test.tty, test.port, test.local)
			lines := strings.Split(out, "\n")
			for _, line := range lines {
				if complaint.MatchString(line) {
					t.Errorf("udev says: %s", line)
				}
			}
			node := "node " + test.tty + " root:root 600"
			want := []string{}
			if test.link != "" {
				node = "node " + test.tty + " root:lpad 660"
				want = []string{"ID_MM_PORT_IGNORE=1", "link lpad/at ../" + test.tty, "link " + test.link + " ../" + test.tty}
			}
			for _, w := range append(want, node) {
				if !slices.Contains(lines, w) {
					t.Errorf("no %q", w)
				}
			}
			if strings.Contains(out, "\nlink ") != (test.link != "") || slices.Contains(lines, "ID_MM_PORT_IGNORE=1") != (test.link != "") {
				t.Errorf("taken or not: want %v", test.link != "")
			}
			if t.Failed() {
				t.Log(out)
			}
		})
	}
}
