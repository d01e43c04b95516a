package modemtest

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"

	"golang.org/x/sys/unix"
)

// polkitProgram is Debian's polkitd.
const polkitProgram = "/usr/lib/polkit-1/polkitd"

var rootNeeds = []need{{polkitProgram, "polkitd"}, {"setpriv", "util-linux"}, {distributionBus, "dbus"}}

// RequireRoot is [RequireStack] for a stack with a Root.
func RequireRoot(t TB) {
	t.Helper()
	RequireStack(t)
	require(t, missing("a device with polkit", rootNeeds))
}

// layRoot lays the files of the tree Root over the device: a file that this
// machine has too is replaced, the others are added to the folder of the same
// name. It writes down what device.sh mounts, and switches NetworkManager to asking polkit.
func (s *Stack) layRoot() error {
	if s.cfg.Root == "" {
		return nil
	}
	const udev = "usr/lib/udev/rules.d"
	if s.ownDir { // programs of other users look for the bus in it
		if err := os.Chmod(s.dir, 0o755); err != nil {
			return err
		}
	}
	var mounts strings.Builder
	laid := map[string]bool{}
	err := filepath.WalkDir(s.cfg.Root, func(path string, e fs.DirEntry, err error) error {
		if err != nil || !e.Type().IsRegular() {
			return err
		}
		name, err := filepath.Rel(s.cfg.Root, path)
		if err != nil {
			return err
		}
		folder := filepath.Dir(name)
		if folder == udev { // that folder is the stack's own already
			return copyFile(path, filepath.Join(s.dir, "udev-rules", filepath.Base(name)))
		}
		to := filepath.Join(s.dir, "root", name)
		if _, err := os.Stat("/" + name); err == nil && !laid[folder] {
			fmt.Fprintf(&mounts, "%s /%s\n", to, name)
		} else if !laid[folder] {
			if err := copyFolder("/"+folder, filepath.Dir(to)); err != nil {
				return err
			}
			fmt.Fprintf(&mounts, "%s /%s\n", filepath.Dir(to), folder)
			laid[folder] = true
		}
		return copyFile(path, to)
	})
	if err != nil {
		return fmt.Errorf("lay %s over the device: %w", s.cfg.Root, err)
	}
	return errors.Join(os.WriteFile(filepath.Join(s.dir, "mounts"), []byte(mounts.String()), 0o644),
		os.WriteFile(filepath.Join(s.dir, "nm/etc/conf.d/polkit.conf"), []byte("[main]\nauth-polkit=true\n"), 0o644))
}

// copyFolder copies the files of a folder of this machine, which must be there
// and have no folders, beside those that are in the copy already.
func copyFolder(from, to string) error {
	entries, err := os.ReadDir(from)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if e.IsDir() {
			return fmt.Errorf("a file cannot be added to %s, which has folders", from)
		}
		if _, err := os.Stat(filepath.Join(to, e.Name())); err == nil {
			continue
		}
		if err := copyFile(filepath.Join(from, e.Name()), filepath.Join(to, e.Name())); err != nil {
			return err
		}
	}
	return nil
}

// copyFile copies a file for everybody to read.
func copyFile(from, to string) error {
	text, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
		return err
	}
	return os.WriteFile(to, text, 0o644)
}

// distributionBus is the configuration of this machine's system bus.
const distributionBus = "/usr/share/dbus-1/system.conf"

var policyElement = regexp.MustCompile(`(?s)<policy .*?</policy>`)

// distributionPolicy is what this machine's system bus lets whom do, with the
// files that packages add. Of the rest of its configuration a private bus wants
// nothing: it would fork, and start services outside of the stack.
func distributionPolicy() (string, error) {
	text, err := os.ReadFile(distributionBus)
	if err != nil {
		return "", err
	}
	policies := policyElement.FindAllString(string(text), -1)
	if len(policies) == 0 {
		return "", fmt.Errorf("%s has no policy", distributionBus)
	}
	return strings.Join(policies, "\n") + "\n<includedir>/usr/share/dbus-1/system.d</includedir>\n<includedir>/etc/dbus-1/system.d</includedir>", nil
}

// startPolkit starts the real polkitd, which reads the rules of the device.
func (s *Stack) startPolkit(ctx context.Context) error {
	if _, err := s.startDaemon("polkitd", s.device, polkitProgram, "--no-debug"); err != nil {
		return err
	}
	return s.poll(ctx, "polkitd", func() (bool, error) { return s.owned(ctx, "org.freedesktop.PolicyKit1") })
}

// CommandAs is [Stack.Command] for a program that runs as another user, with
// the user's groups and without any capability. Users are those of the device.
func (s *Stack) CommandAs(ctx context.Context, user, name string, args ...string) *exec.Cmd {
	// A change of the user takes the death signal away: it is set again.
	return s.Command(ctx, "setpriv", append([]string{"--reuid", user, "--regid", user, "--init-groups", "--bounding-set=-all", "--inh-caps=-all",
		"--no-new-privs", "--pdeathsig", "KILL", "--", name}, args...)...)
}

// forgetExclusive takes the mark of a host that has the line for itself
// (TIOCEXCL) from it, as soon as the host has said something. A serial driver
// does that when the last program closes the line, but a pty keeps the mark for
// as long as the modem holds its other end, and then nobody but root could open
// it again: ModemManager leaves it behind when it lets a modem go.
func (p *Port) forgetExclusive() {
	if !p.modem.guarded || p.slave == nil {
		return
	}
	// It fails only on a port that is closed.
	_ = control(p.slave, func(fd int) error { return unix.IoctlSetInt(fd, unix.TIOCNXCL, 0) })
}
