// Package packaging is what a distribution's package puts on a device beside the
// programs: the user that lpad runs as, what that user may ask of ModemManager,
// NetworkManager and pcscd, and which AT port is its own. The files lie in the
// folders beside this one, to be read; [Files] says where each of them goes, and
// [Install] puts them there. The folder hooks has examples, which are installed
// by whoever needs one, and openwrt the script of OpenWrt's procd.
//
//	err := packaging.Install("/tmp/root") // usr/share/polkit-1/rules.d/lpad.rules and the others
//
// The programs do not use it, the lab does. The tests beside it hold the files against the
// real polkitd, dbus-daemon, ModemManager, NetworkManager, udev and systemd.
package packaging

import (
	"embed"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
)

// User is whom lpad runs as; its group has the same name. GroupAdmin are those
// who may change things over the socket.
const (
	User       = "lpad"
	GroupAdmin = "lpad-admin"
)

// File is one file of the package.
type File struct {
	Source string // below this folder, with slashes
	Target string // below the root of the device, with slashes
}

// Files are all of them. Each is for everybody to read (mode 0644, of root), and
// none is a configuration file: who wants another one puts it under /etc.
var Files = []File{
	{"dbus/lpad.conf", "usr/share/dbus-1/system.d/lpad.conf"},
	{"polkit/lpad.rules", "usr/share/polkit-1/rules.d/lpad.rules"},
	{"sysusers.d/lpad.conf", "usr/lib/sysusers.d/lpad.conf"},
	{"tmpfiles.d/lpad.conf", "usr/lib/tmpfiles.d/lpad.conf"},
	{"udev/78-mm-lpad.rules", "usr/lib/udev/rules.d/78-mm-lpad.rules"},
	{"udev/79-lpad.rules", "usr/lib/udev/rules.d/79-lpad.rules"},
}

// Units are what systemd starts lpad by, for devices that have it: [InstallUnits]
// puts them there.
var Units = []File{
	{"systemd/lpad.service", "usr/lib/systemd/system/lpad.service"},
	{"systemd/lpad.socket", "usr/lib/systemd/system/lpad.socket"},
}

// Configuration is the one file of the package that is the administrator's from
// then on; an upgrade keeps what he has made of it.
var Configuration = File{"lpad.yaml", "etc/lpad/lpad.yaml"}

// Folders are those of the hooks (hooks.dir), for the device's maker to put
// programs into.
var Folders = []string{"etc/lpad/hooks.d/staged.d", "etc/lpad/hooks.d/activated.d", "etc/lpad/hooks.d/applied.d", "etc/lpad/hooks.d/rolled-back.d"}

//go:embed dbus polkit sysusers.d tmpfiles.d udev systemd lpad.yaml
var files embed.FS

// Scripts are what dpkg runs when the package comes and goes: postinst, prerm
// and postrm.
//
//go:embed debian/postinst debian/prerm debian/postrm
var Scripts embed.FS

// Hook is hooks/interface, an example of what network.hook names: it sets the
// addresses on the modem's interface by ip(8).
//
//go:embed hooks/interface
var Hook string

// Examples has all of the folder hooks; mqtt-endpoint and logo are for applied.d.
//
//go:embed hooks
var Examples embed.FS

// Install writes the files below root, making the folders.
func Install(root string) error { return install(root, Files) }

// InstallUnits does the same with the units, with the configuration and with the
// folders of the hooks.
func InstallUnits(root string) error {
	for _, f := range Folders {
		if err := os.MkdirAll(filepath.Join(root, filepath.FromSlash(f)), 0o755); err != nil {
			return fmt.Errorf("packaging: %w", err)
		}
	}
	return install(root, append([]File{Configuration}, Units...))
}

func install(root string, list []File) error {
	for _, f := range list {
		text, err := files.ReadFile(f.Source)
		if err != nil {
			return fmt.Errorf("packaging: %w", err)
		}
		target := filepath.Join(root, filepath.FromSlash(f.Target))
		if err := os.MkdirAll(filepath.Dir(target), 0o755); err != nil {
			return fmt.Errorf("packaging: %w", err)
		}
		if err := os.WriteFile(target, text, 0o644); err != nil {
			return fmt.Errorf("packaging: %w", err)
		}
	}
	return nil
}

// Accounts makes the package's user and groups below a root that it was
// installed in, beside those of this machine, by systemd-sysusers: etc/passwd,
// etc/group, and an etc/shadow without anybody else.
func Accounts(root string) error {
	etc := filepath.Join(root, "etc")
	if err := os.MkdirAll(etc, 0o755); err != nil {
		return fmt.Errorf("packaging: %w", err)
	}
	for _, f := range []string{"passwd", "group"} {
		text, err := os.ReadFile(filepath.Join("/etc", f))
		if err == nil {
			err = os.WriteFile(filepath.Join(etc, f), text, 0o644)
		}
		if err != nil {
			return fmt.Errorf("packaging: %w", err)
		}
	}
	if out, err := exec.Command("systemd-sysusers", "--root="+root, "lpad.conf").CombinedOutput(); err != nil {
		return fmt.Errorf("packaging: systemd-sysusers: %w: %s", err, out)
	}
	// Its lock and its copies of what was before.
	for _, f := range []string{".pwd.lock", "passwd-", "group-", "shadow-", "gshadow", "gshadow-"} {
		if err := os.RemoveAll(filepath.Join(etc, f)); err != nil {
			return fmt.Errorf("packaging: %w", err)
		}
	}
	return nil
}
