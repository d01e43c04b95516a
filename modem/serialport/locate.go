package serialport

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sort"
	"strconv"
	"strings"
)

// Where says where a port is, whatever name it has at the moment: a modem that
// resets comes back under another one, in the same socket.
type Where struct {
	USB       string // place in the USB tree as sysfs has it, "1-1.2"; empty: not on USB
	Interface int    // bInterfaceNumber of the port in its device
	Name      string // "ttyUSB2": what a port that is not on USB goes by, a hint for others
}

// String is for logs: "usb 1-1.2 interface 3 (ttyUSB2)".
func (w Where) String() string {
	if w.USB == "" {
		return w.Name
	}
	return fmt.Sprintf("usb %s interface %d (%s)", w.USB, w.Interface, w.Name)
}

// classes are the folders of /sys/class with ports: serial lines, and those of
// the kernel's WWAN framework ("wwan0at0").
var classes = []string{"tty", "wwan"}

// Limits of a search.
const (
	maxPorts = 4096 // entries of one class; a usual machine has some hundred
	maxLinks = 8    // of a chain of symbolic links; udev makes one
)

// Locate finds the present path of a port, such as "/dev/ttyUSB3". [ErrMissing]
// means that it is not there now. sysfs is where that is mounted; empty: /sys.
func Locate(sysfs string, at Where) (path string, err error) {
	hint := ""
	for _, p := range ports(sysfs) {
		switch {
		case at.USB == "" && p.Name == at.Name, at.USB != "" && p == at:
			return device(p.Name), nil
		case at.USB != "" && p.USB == at.USB && p.Interface == at.Interface && hint == "":
			hint = p.Name
		}
	}
	if hint == "" {
		return "", fmt.Errorf("look for the port at %v: %w", at, ErrMissing)
	}
	return device(hint), nil
}

// WhereIs tells the place of a port from its present path, or from a link to it
// such as those in /dev/serial/by-path. A name of /dev/serial/by-path also works
// where udev has made no such link. [ErrMissing] means that sysfs knows no port
// behind path; a pseudo terminal is such a one.
func WhereIs(sysfs, path string) (Where, error) {
	known := ports(sysfs)
	name := path
	for range maxLinks {
		for _, p := range known {
			if p.Name == filepath.Base(name) {
				return p, nil
			}
		}
		to, err := os.Readlink(name)
		if err != nil {
			break
		}
		if !filepath.IsAbs(to) {
			to = filepath.Join(filepath.Dir(name), to)
		}
		name = to
	}
	if controller, place, ok := byPath(filepath.Base(path)); ok {
		if p, ok := behind(sysfs, controller, place); ok {
			return p, nil
		}
	}
	return Where{}, fmt.Errorf("find out where %s is: %w", path, ErrMissing)
}

// Candidates are the paths of all ports of the device at a place in the USB
// tree, by interface number: the AT port is one of them.
func Candidates(sysfs, usb string) []string {
	var out []string
	for _, p := range ports(sysfs) {
		if usb != "" && p.USB == usb {
			out = append(out, device(p.Name))
		}
	}
	return out
}

// Ports lists every port that sysfs knows, by place and then by name. sysfs is
// where that is mounted; empty: /sys.
func Ports(sysfs string) []Where { return ports(sysfs) }

func device(name string) string { return "/dev/" + name }

// ports lists what sysfs knows, by place and then by name.
func ports(sysfs string) []Where {
	var all []Where
	each(sysfs, func(p Where, _ string) { all = append(all, p) })
	sort.Slice(all, func(i, j int) bool {
		a, b := all[i], all[j]
		switch {
		case a.USB != b.USB:
			return a.USB < b.USB
		case a.Interface != b.Interface:
			return a.Interface < b.Interface
		case len(a.Name) != len(b.Name): // ttyUSB9 before ttyUSB10
			return len(a.Name) < len(b.Name)
		}
		return a.Name < b.Name
	})
	return all
}

// each calls f with every port and its folder below devices. What cannot be read
// is not there: devices come and go while we look.
func each(sysfs string, f func(p Where, dir string)) {
	if sysfs == "" {
		sysfs = "/sys"
	}
	for _, class := range classes {
		dir, err := os.Open(filepath.Join(sysfs, "class", class))
		if err != nil {
			continue
		}
		names, _ := dir.Readdirnames(maxPorts) // as many as there are
		_ = dir.Close()                        // nothing was written
		for _, name := range names {
			to, err := os.Readlink(filepath.Join(sysfs, "class", class, name))
			if err != nil || class == "wwan" && !strings.Contains(name, "at") {
				continue // in the class wwan are the devices themselves and MBIM and QMI ports too
			}
			p := Where{Name: name}
			p.USB, p.Interface = place(to)
			f(p, to)
		}
	}
}

// place reads the innermost USB interface out of a path of sysfs:
// ".../usb1/1-1/1-1.2/1-1.2:1.3/ttyUSB2/tty/ttyUSB2" is interface 3 of 1-1.2.
// The kernel names it bus-port.port:configuration.interface.
func place(path string) (usb string, number int) {
	for dir := path; ; {
		cut := strings.LastIndexByte(dir, '/')
		if n, device, ok := usbInterface(dir[cut+1:]); ok {
			return device, n
		}
		if cut < 0 {
			return "", 0
		}
		dir = dir[:cut]
	}
}

func usbInterface(name string) (number int, device string, ok bool) {
	device, config, ok := strings.Cut(name, ":")
	bus, chain, hyphen := strings.Cut(device, "-")
	if !ok || !hyphen || !numbers(bus) || !numbers(chain) {
		return 0, "", false
	}
	configuration, interf, ok := strings.Cut(config, ".")
	n, err := strconv.ParseUint(interf, 10, 8)
	if !ok || err != nil || !numbers(configuration) {
		return 0, "", false
	}
	return int(n), device, true
}

// numbers reports whether s is digits with single dots between them.
func numbers(s string) bool {
	for _, part := range strings.Split(s, ".") {
		if part == "" || strings.Trim(part, "0123456789") != "" {
			return false
		}
	}
	return true
}

// byPath takes a name of /dev/serial/by-path apart: of
// "pci-0000:00:14.0-usb-0:1.2:1.3-port0" the controller is "0000:00:14.0" and the
// place "1.2:1.3". udev leaves the number of the bus out, it may change.
func byPath(name string) (controller, place string, ok bool) {
	for _, usb := range []string{"-usb-0:", "-usbv2-0:", "-usbv3-0:"} {
		head, tail, found := strings.Cut(name, usb)
		if !found {
			continue
		}
		_, controller, ok = strings.Cut(head, "-") // "pci-", "platform-"
		if i := strings.LastIndex(tail, "-port"); i >= 0 {
			tail = tail[:i]
		}
		return controller, tail, ok && controller != "" && tail != ""
	}
	return "", "", false
}

// behind finds the port at a place behind a host controller. Two ports that fit
// are no answer.
func behind(sysfs, controller, place string) (found Where, ok bool) {
	n := 0
	each(sysfs, func(p Where, dir string) {
		_, chain, _ := strings.Cut(p.USB, "-")
		fits := strings.HasPrefix(place, chain+":") && strings.HasSuffix(place, "."+strconv.Itoa(p.Interface)) && numbers(place[len(chain)+1:])
		if p.USB != "" && fits && strings.Contains(dir, "/"+controller+"/") {
			found = p
			n++
		}
	})
	return found, n == 1
}

// gone reports whether err says that a path leads nowhere.
func gone(err error) bool { return errors.Is(err, fs.ErrNotExist) }
