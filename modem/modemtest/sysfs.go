package modemtest

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
)

// usbPort is an interface of the made-up USB device.
type usbPort struct {
	subsystem string // "tty" or "net"
	name      string
	number    int
	driver    string
}

// ports are the two AT ports and, unless packets go over PPP, the network
// interface of a device.
func (u USB) ports() []usbPort {
	n := u.Interfaces
	if n == [3]int{} {
		n = [3]int{0, 1, 2}
	}
	driver := u.Driver
	if driver == "" {
		driver = "option"
	}
	ports := []usbPort{{"tty", mmPort, n[0], driver}, {"tty", agentPort, n[1], driver}}
	if !u.NoNet {
		ports = append(ports, usbPort{"net", deviceInterface, n[2], "cdc_ether"})
	}
	return ports
}

const usbDevice = "devices/platform/hcd/usb1/1-1"

// makeSysfs fills root, later mounted over /sys, with a USB modem as Linux
// shows it: what ModemManager reads to find vendor, driver and interface.
func makeSysfs(root string, u USB) error {
	var w sysfsWriter
	for _, d := range []string{"bus/usb/drivers/usb", "class/tty", "class/net"} {
		w.dir(filepath.Join(root, d))
	}
	dev := filepath.Join(root, usbDevice)
	w.dir(dev)
	for name, value := range map[string]string{"idVendor": u.Vendor, "idProduct": u.Product, "bcdDevice": "0318",
		"manufacturer": u.Manufacturer, "product": u.ProductString} {
		w.file(filepath.Join(dev, name), value)
	}
	w.link("/sys/bus/usb", filepath.Join(dev, "subsystem"))
	w.link("/sys/bus/usb/drivers/usb", filepath.Join(dev, "driver"))
	for _, p := range u.ports() {
		intf := p.folder()
		dir := filepath.Join(root, intf)
		w.dir(dir)
		for _, a := range []string{"bInterfaceClass", "bInterfaceSubClass", "bInterfaceProtocol"} {
			w.file(filepath.Join(dir, a), "ff")
		}
		w.file(filepath.Join(dir, "bInterfaceNumber"), fmt.Sprintf("%02x", p.number))
		w.link("/sys/bus/usb", filepath.Join(dir, "subsystem"))
		w.dir(filepath.Join(root, "bus/usb/drivers", p.driver))
		w.link("/sys/bus/usb/drivers/"+p.driver, filepath.Join(dir, "driver"))
		w.node(root, p)
	}
	return errors.Join(w.errs...)
}

// folder is that of the port's USB interface.
func (p usbPort) folder() string { return filepath.Join(usbDevice, fmt.Sprintf("1-1:1.%d", p.number)) }

// renameSysfs gives a port another name, as when its device has come back.
func renameSysfs(root string, p usbPort, name string) error {
	var w sysfsWriter
	w.keep(os.RemoveAll(filepath.Join(root, p.folder(), p.name)))
	w.keep(os.Remove(filepath.Join(root, "class", p.subsystem, p.name)))
	p.name = name
	w.node(root, p)
	return errors.Join(w.errs...)
}

// node is what stands for the port itself, below its USB interface and in class.
func (w *sysfsWriter) node(root string, p usbPort) {
	dir := filepath.Join(root, p.folder())
	var node string
	switch p.subsystem {
	case "tty":
		node = filepath.Join(p.name, "tty", p.name)
		w.dir(filepath.Join(dir, node))
		w.link("/sys/bus/usb-serial", filepath.Join(dir, p.name, "subsystem"))
		driver := p.driver
		if driver == "option" {
			driver = "option1" // as the kernel calls the serial half of it
		}
		w.dir(filepath.Join(root, "bus/usb-serial/drivers", driver))
		w.link("/sys/bus/usb-serial/drivers/"+driver, filepath.Join(dir, p.name, "driver"))
	case "net":
		node = filepath.Join("net", p.name)
		w.dir(filepath.Join(dir, node))
	}
	w.link("/sys/class/"+p.subsystem, filepath.Join(dir, node, "subsystem"))
	w.link(filepath.Join("/sys", p.folder(), node), filepath.Join(root, "class", p.subsystem, p.name))
}

// sysfsWriter keeps the errors of many small writes.
type sysfsWriter struct{ errs []error }

func (w *sysfsWriter) keep(err error) {
	if err != nil {
		w.errs = append(w.errs, err)
	}
}

func (w *sysfsWriter) dir(path string)         { w.keep(os.MkdirAll(path, 0o755)) }
func (w *sysfsWriter) file(path, value string) { w.keep(os.WriteFile(path, []byte(value+"\n"), 0o644)) }
func (w *sysfsWriter) link(to, path string)    { w.keep(os.Symlink(to, path)) }
