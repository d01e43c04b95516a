package serialport_test

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"lpad/modem/serialport"
)

// tree makes a /sys with the given ports: class/name -> path below devices.
func tree(t *testing.T, ports map[string]string) string {
	t.Helper()
	root := t.TempDir()
	for name, dir := range ports {
		plug(t, root, name, dir)
	}
	return root
}

func plug(t *testing.T, root, name, dir string) {
	t.Helper()
	link := filepath.Join(root, "class", name)
	if err := os.MkdirAll(filepath.Dir(link), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("../../devices/"+dir, link); err != nil {
		t.Fatal(err)
	}
}

const (
	pci  = "pci0000:00/0000:00:14.0/usb1/"
	pci2 = "pci0000:00/0000:00:15.0/usb2/"
)

// A machine with two modems of one make, a CDC modem behind a hub, a modem on
// PCIe and an on-board UART. The names are those of a second plugging in.
func machine(t *testing.T) string {
	return tree(t, map[string]string{
		"tty/ttyUSB4":   pci + "1-1/1-1:1.0/ttyUSB4/tty/ttyUSB4",
		"tty/ttyUSB5":   pci + "1-1/1-1:1.2/ttyUSB5/tty/ttyUSB5",
		"tty/ttyUSB10":  pci + "1-1/1-1:1.3/ttyUSB10/tty/ttyUSB10",
		"tty/ttyUSB9":   pci + "1-1/1-1:1.3/ttyUSB9/tty/ttyUSB9", // a converter with two ports on one interface
		"tty/ttyUSB0":   pci + "1-2/1-2:1.2/ttyUSB0/tty/ttyUSB0",
		"tty/ttyACM0":   pci + "1-3/1-3.12/1-3.12:1.10/tty/ttyACM0",
		"tty/ttyS0":     "platform/serial8250/tty/ttyS0",
		"tty/ttyUSB7":   pci2 + "2-2/2-2:1.2/ttyUSB7/tty/ttyUSB7",
		"wwan/wwan0":    "pci0000:00/0000:01:00.0/wwan/wwan0",
		"wwan/wwan0at0": "pci0000:00/0000:01:00.0/wwan/wwan0/wwan0at0",
		"wwan/wwan1at0": pci + "1-4/1-4:1.1/wwan/wwan1/wwan1at0",
		"wwan/wwan0qmi": "pci0000:00/0000:01:00.0/wwan/wwan0/wwan0qmi0",
	})
}

func TestLocate(t *testing.T) {
	sys := machine(t)
	for _, tc := range []struct {
		at   serialport.Where
		want string // empty: ErrMissing
	}{
		{serialport.Where{USB: "1-1", Interface: 2, Name: "ttyUSB2"}, "/dev/ttyUSB5"},
		{serialport.Where{USB: "1-1", Interface: 2}, "/dev/ttyUSB5"},
		{serialport.Where{USB: "1-1", Interface: 3}, "/dev/ttyUSB9"},
		{serialport.Where{USB: "1-1", Interface: 3, Name: "ttyUSB10"}, "/dev/ttyUSB10"},
		{serialport.Where{USB: "1-2", Interface: 2, Name: "ttyUSB5"}, "/dev/ttyUSB0"}, // that name is another modem's now
		{serialport.Where{USB: "1-3.12", Interface: 10}, "/dev/ttyACM0"},
		{serialport.Where{USB: "1-4", Interface: 1}, "/dev/wwan1at0"},
		{serialport.Where{Name: "ttyS0"}, "/dev/ttyS0"},
		{serialport.Where{Name: "wwan0at0"}, "/dev/wwan0at0"},
		{serialport.Where{USB: "1-1", Interface: 1, Name: "ttyUSB5"}, ""},
		{serialport.Where{USB: "1-3", Interface: 10}, ""}, // the hub
		{serialport.Where{USB: "3-1", Interface: 2}, ""},
		{serialport.Where{Name: "ttyS9"}, ""},
		{serialport.Where{Name: "wwan0"}, ""}, // no port
		{serialport.Where{}, ""},
	} {
		got, err := serialport.Locate(sys, tc.at)
		if got != tc.want || (tc.want == "") != errors.Is(err, serialport.ErrMissing) {
			t.Errorf("%v: %q, %v, want %q", tc.at, got, err, tc.want)
		}
	}
	if got, want := serialport.Candidates(sys, "1-1"), []string{"/dev/ttyUSB4", "/dev/ttyUSB5", "/dev/ttyUSB9", "/dev/ttyUSB10"}; !slices.Equal(got, want) {
		t.Errorf("candidates %q, want %q", got, want)
	}
	for _, usb := range []string{"", "1-9"} {
		if got := serialport.Candidates(sys, usb); len(got) != 0 {
			t.Errorf("candidates of %q: %q", usb, got)
		}
	}
	if got := serialport.Candidates(t.TempDir(), "1-1"); len(got) != 0 {
		t.Errorf("without sysfs: %q", got)
	}
}

// A port is noted by any of its names, and found again when it has another one.
func TestComesBackUnderAnotherName(t *testing.T) {
	sys := tree(t, map[string]string{"tty/ttyUSB2": pci + "1-1/1-1.2/1-1.2:1.2/ttyUSB2/tty/ttyUSB2"})
	dev := t.TempDir()
	links := filepath.Join(dev, "serial", "by-path")
	if err := os.MkdirAll(links, 0o755); err != nil {
		t.Fatal(err)
	}
	byPath := filepath.Join(links, "pci-0000:00:14.0-usb-0:1.2:1.2-port0")
	own := filepath.Join(dev, "modem") // a udev rule of the OEM
	for link, to := range map[string]string{byPath: "../../ttyUSB2", own: byPath} {
		if err := os.Symlink(to, link); err != nil {
			t.Fatal(err)
		}
	}
	want := serialport.Where{USB: "1-1.2", Interface: 2, Name: "ttyUSB2"}
	for _, path := range []string{"/dev/ttyUSB2", byPath, own} {
		if got, err := serialport.WhereIs(sys, path); got != want || err != nil {
			t.Errorf("%s: %v, %v, want %v", path, got, err, want)
		}
	}
	if err := os.Remove(filepath.Join(sys, "class", "tty", "ttyUSB2")); err != nil {
		t.Fatal(err)
	}
	if path, err := serialport.Locate(sys, want); !errors.Is(err, serialport.ErrMissing) {
		t.Errorf("unplugged: %q, %v", path, err)
	}
	plug(t, sys, "tty/ttyUSB6", pci+"1-1/1-1.2/1-1.2:1.2/ttyUSB6/tty/ttyUSB6")
	if path, err := serialport.Locate(sys, want); path != "/dev/ttyUSB6" || err != nil {
		t.Errorf("plugged in again: %q, %v", path, err)
	}
}

// Names of /dev/serial/by-path on a device where udev made no links, and names
// that lead nowhere.
func TestByPathWithoutUdev(t *testing.T) {
	sys := machine(t)
	for path, want := range map[string]string{
		"/dev/serial/by-path/pci-0000:00:14.0-usb-0:1:1.2-port0":       "ttyUSB5",
		"/dev/serial/by-path/pci-0000:00:14.0-usbv2-0:2:1.2-port0":     "ttyUSB0",
		"/dev/serial/by-path/pci-0000:00:15.0-usb-0:2:1.2-port0":       "ttyUSB7",
		"/dev/serial/by-path/pci-0000:00:14.0-usb-0:3.12:1.10":         "ttyACM0",
		"/dev/serial/by-path/pci-0000:00:14.0-usb-0:1:1.3-port0":       "", // two
		"/dev/serial/by-path/pci-0000:00:16.0-usb-0:1:1.2-port0":       "",
		"/dev/serial/by-path/pci-0000:00:14.0-usb-0:1:1.9-port0":       "",
		"/dev/serial/by-path/platform-fe980000.usb-usb-0:1.2:1.2-port": "",
		"/dev/serial/by-path/-usb-0:":                                  "", "/dev/pts/7": "", "/dev/ttyUSB99": "", "": "",
	} {
		got, err := serialport.WhereIs(sys, path)
		if got.Name != want || (want == "") != errors.Is(err, serialport.ErrMissing) {
			t.Errorf("%s: %v, %v, want %q", path, got, err, want)
		}
	}
}

// A chain of links without an end is nobody's port.
func TestWhereIsEnds(t *testing.T) {
	dir := t.TempDir()
	a, b := filepath.Join(dir, "a"), filepath.Join(dir, "b")
	if err := errors.Join(os.Symlink(a, b), os.Symlink(b, a)); err != nil {
		t.Fatal(err)
	}
	if w, err := serialport.WhereIs(machine(t), a); !errors.Is(err, serialport.ErrMissing) {
		t.Errorf("%v, %v", w, err)
	}
}

// FuzzWhere: whatever stands in sysfs, a place that was read can be found again.
func FuzzWhere(f *testing.F) {
	for _, s := range []string{pci + "1-1/1-1.2/1-1.2:1.3/ttyUSB2/tty/ttyUSB2", "1-1:1.999/x", "platform/serial8250/tty/ttyS0", "1-:1.1", "-:.", "1-1..2:1.1", ""} {
		f.Add(s, "pci-0000:00:14.0-usb-0:1.2:1.3-port0")
	}
	f.Fuzz(func(t *testing.T, dir, name string) {
		if strings.ContainsRune(dir, 0) || len(dir) > 1000 || strings.ContainsAny(name, "/\x00") || len(name) > 200 {
			return
		}
		sys := t.TempDir()
		plug(t, sys, "tty/ttyUSB2", dir)
		at, err := serialport.WhereIs(sys, "/dev/ttyUSB2")
		if err != nil || at.Interface < 0 || at.Interface > 255 {
			t.Fatalf("%q: %v, %v", dir, at, err)
		}
		if path, err := serialport.Locate(sys, at); path != "/dev/ttyUSB2" || err != nil {
			t.Fatalf("%v: %q, %v", at, path, err)
		}
		if w, err := serialport.WhereIs(sys, name); err == nil && w != at {
			t.Fatalf("%q leads to %v", name, w)
		}
	})
}
