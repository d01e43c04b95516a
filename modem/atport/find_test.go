package atport_test

import (
	"os"
	"path/filepath"
	"slices"
	"testing"

	"lpad/modem"
	"lpad/modem/atport"
)

// usb is a /sys that knows ports: name -> USB interface ("1-1:1.2").
type usb struct {
	t    *testing.T
	root string
}

func (u usb) plug(ports map[string]string) {
	u.t.Helper()
	class := filepath.Join(u.root, "class", "tty")
	if err := os.RemoveAll(class); err != nil {
		u.t.Fatal(err)
	}
	if err := os.MkdirAll(class, 0o755); err != nil {
		u.t.Fatal(err)
	}
	for name, at := range ports {
		device := at[:len(at)-len(":1.2")]
		if err := os.Symlink("../../devices/pci0/usb1/"+device+"/"+at+"/"+name+"/tty/"+name, filepath.Join(class, name)); err != nil {
			u.t.Fatal(err)
		}
	}
}

// The port is looked for in its socket, by whatever name; ports that were never
// the modem's must prove themselves, and those of others are never spoken to.
func TestPlaces(t *testing.T) {
	eg25 := modem.Identity{Manufacturer: "Quectel", Model: "EG25", Revision: "1", IMEI: "867698040000015"}
	before := map[string]string{"ttyUSB0": "1-1:1.0", "ttyUSB1": "1-1:1.1", "ttyUSB2": "1-1:1.2", "ttyUSB3": "1-1:1.3", "ttyUSB4": "1-2:1.2"}
	for _, tc := range []struct {
		name string
		now  map[string]string
		want []string
	}{
		{"as it was", before, []string{"/dev/ttyUSB2", "/dev/ttyUSB3?"}},
		{"under another name", map[string]string{"ttyUSB5": "1-1:1.0", "ttyUSB6": "1-1:1.1", "ttyUSB7": "1-1:1.2", "ttyUSB8": "1-1:1.3", "ttyUSB4": "1-2:1.2"},
			[]string{"/dev/ttyUSB7", "/dev/ttyUSB8?", "/dev/ttyUSB2?"}},
		{"its name is somebody else's", map[string]string{"ttyUSB2": "1-3:1.2", "ttyUSB7": "1-1:1.2", "ttyUSB4": "1-2:1.2"},
			[]string{"/dev/ttyUSB7", "/dev/ttyUSB2?"}},
		{"in another socket", map[string]string{"ttyUSB4": "1-2:1.2", "ttyUSB5": "1-3:1.0", "ttyUSB7": "1-3:1.2"},
			[]string{"/dev/ttyUSB7?", "/dev/ttyUSB2?"}},
		{"away", map[string]string{"ttyUSB4": "1-2:1.2"}, []string{"/dev/ttyUSB2?"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			u := usb{t, t.TempDir()}
			u.plug(before)
			cfg := atport.Config{Path: "/dev/ttyUSB2", Sysfs: u.root, PlaceMark: filepath.Join(t.TempDir(), "place")}
			p := atport.New(cfg)
			if got := p.Places(); !slices.Equal(got, []string{"/dev/ttyUSB2"}) {
				t.Errorf("before it was ever opened: %q", got)
			}
			p.Opened("/dev/ttyUSB2", eg25)
			u.plug(tc.now)
			if got := p.Places(); !slices.Equal(got, tc.want) {
				t.Errorf("%q, want %q", got, tc.want)
			}
			// The next process does not know who the modem was; it trusts the socket, then the configuration.
			next := atport.New(cfg).Places()
			if trusted := slices.DeleteFunc(slices.Clone(tc.want), func(s string) bool { return s[len(s)-1] == '?' }); len(trusted) > 0 && next[0] != trusted[0] {
				t.Errorf("the next process: %q, want %q first", next, trusted)
			}
			if !slices.Contains(next, "/dev/ttyUSB2") {
				t.Errorf("the next process does not try what was configured: %q", next)
			}
			// Another configuration is another port.
			cfg.Path = "/dev/ttyUSB4"
			if got := atport.New(cfg).Places(); !slices.Equal(got, []string{"/dev/ttyUSB4"}) {
				t.Errorf("configured anew: %q", got)
			}
		})
	}
	// A mark that is damaged is none.
	cfg := atport.Config{Path: "/dev/ttyUSB2", Sysfs: t.TempDir(), PlaceMark: filepath.Join(t.TempDir(), "place")}
	if err := os.WriteFile(cfg.PlaceMark, []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if got := atport.New(cfg).Places(); !slices.Equal(got, []string{"/dev/ttyUSB2"}) {
		t.Errorf("with a damaged mark: %q", got)
	}
}
