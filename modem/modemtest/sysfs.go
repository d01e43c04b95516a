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
}

// The device has two AT ports and a network interface.
var usbPorts = []usbPort{{"tty", mmPort, 0}, {"tty", agentPort, 1}, {"net", deviceInterface, 2}}

const usbDevice = "devices/platform/hcd/usb1/1-1"

// makeSysfs fills root, later mounted over /sys, with a USB modem as Linux
// shows it: what ModemManager reads to find vendor, driver and interface.
func makeSysfs(root string, u USB) error {
	var w sysfsWriter
	for _, d := range []string{"bus/usb/drivers/usb", "bus/usb/drivers/option", "bus/usb/drivers/cdc_ether",
		"bus/usb-serial/drivers/option1", "class/tty", "class/net"} {
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
	for _, p := range usbPorts {
		intf := fmt.Sprintf("1-1:1.%d", p.number)
		dir := filepath.Join(dev, intf)
		w.dir(dir)
		for _, a := range []string{"bInterfaceClass", "bInterfaceSubClass", "bInterfaceProtocol"} {
			w.file(filepath.Join(dir, a), "ff")
		}
		w.file(filepath.Join(dir, "bInterfaceNumber"), fmt.Sprintf("%02x", p.number))
		w.link("/sys/bus/usb", filepath.Join(dir, "subsystem"))
		var node string
		switch p.subsystem {
		case "tty":
			w.link("/sys/bus/usb/drivers/option", filepath.Join(dir, "driver"))
			node = filepath.Join(p.name, "tty", p.name)
			w.dir(filepath.Join(dir, node))
			w.link("/sys/bus/usb-serial", filepath.Join(dir, p.name, "subsystem"))
			w.link("/sys/bus/usb-serial/drivers/option1", filepath.Join(dir, p.name, "driver"))
		case "net":
			w.link("/sys/bus/usb/drivers/cdc_ether", filepath.Join(dir, "driver"))
			node = filepath.Join("net", p.name)
			w.dir(filepath.Join(dir, node))
		}
		w.link("/sys/class/"+p.subsystem, filepath.Join(dir, node, "subsystem"))
		w.link(filepath.Join("/sys", usbDevice, intf, node), filepath.Join(root, "class", p.subsystem, p.name))
	}
	return errors.Join(w.errs...)
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
