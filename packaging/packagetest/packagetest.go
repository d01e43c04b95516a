// Package packagetest is a device on which Debian packages are installed, with
// the real systemd as its PID 1: namespaces of their own over a writable copy of
// this machine's file system, in memory. dpkg, the services and whoever else
// changes something there changes nothing here, and all of it is gone at the end.
//
//	packagetest.Require(t)
//	d, err := packagetest.Start(ctx)
//	defer d.Close()
//	out, err := d.Run(ctx, "dpkg", "--install", "/host/build/lpad_1_amd64.deb")
//
// Of this machine's units only those of D-Bus, pcscd and journald are there, and the
// targets are empty ones: what a package brings is alone. There is no network but
// lo, on which [Device.Listen] may put a server, and no udevd. Nothing of these
// runs before it is started; what services write is in [Device.Log] unless their
// units say otherwise.
package packagetest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"

	_ "embed"

	"golang.org/x/sys/unix"
)

// TB is the part of testing.TB that Require needs.
type TB interface {
	Helper()
	Fatalf(format string, args ...any)
	Skipf(format string, args ...any)
}

// Require skips the test when this machine cannot run a device, or fails it
// when LPAD_REQUIRE is "all".
func Require(t TB) {
	t.Helper()
	var missing []string
	if os.Geteuid() != 0 {
		missing = append(missing, "root")
	}
	for _, p := range []string{systemd, "unshare", "nsenter", "pivot_root", "dpkg", "dbus-daemon", "deb-systemd-invoke"} {
		if _, err := exec.LookPath(p); err != nil {
			missing = append(missing, p)
		}
	}
	switch {
	case len(missing) == 0:
	case os.Getenv("LPAD_REQUIRE") == "all":
		t.Fatalf("LPAD_REQUIRE=all, but a device with systemd needs %s", strings.Join(missing, ", "))
	default:
		t.Skipf("a device with systemd needs %s", strings.Join(missing, ", "))
	}
}

const (
	systemd      = "/lib/systemd/systemd"
	startTimeout = time.Minute // of a machine that has much else to do
	stopTimeout  = 20 * time.Second
	pollPause    = 10 * time.Millisecond
	shared       = "run/packagetest" // where the device sees the device's folder
)

//go:embed device.sh
var script string

// Device is a running device.
type Device struct {
	dir    string // of this machine, and seen in the device
	cgroup string
	mount  string // of cgroup2, when Start has made it
	cmd    *exec.Cmd
	ended  chan error
	init   int // PID 1, by its number out here
}

// Start starts a device. It is ready when its systemd answers; ctx bounds the
// start alone.
func Start(ctx context.Context) (_ *Device, err error) {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	d := &Device{ended: make(chan error, 1)}
	if d.dir, err = os.MkdirTemp("", "lpad-device-"); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, d.Close())
		}
	}()
	if err := os.Chmod(d.dir, 0o755); err != nil {
		return nil, err
	}
	if err := d.makeCgroup(); err != nil {
		return nil, err
	}
	file := filepath.Join(d.dir, "device.sh")
	if err := os.WriteFile(file, []byte(script), 0o755); err != nil {
		return nil, err
	}
	log, err := os.Create(d.logPath("system"))
	if err != nil {
		return nil, err
	}
	defer log.Close()
	if err := os.WriteFile(d.logPath("service"), nil, 0o666); err != nil {
		return nil, err
	}
	d.cmd = exec.Command("unshare", "--pid", "--fork", "--kill-child", "--mount", "--cgroup", "--uts", "--ipc", "--net", "--propagation", "private", "sh", "-eu", file)
	d.cmd.Env = append(os.Environ(), "DIR="+d.dir)
	d.cmd.Stdout, d.cmd.Stderr = log, log
	group, err := os.Open(d.cgroup)
	if err != nil {
		return nil, err
	}
	defer group.Close()
	d.cmd.SysProcAttr = &syscall.SysProcAttr{UseCgroupFD: true, CgroupFD: int(group.Fd())}
	if err := d.cmd.Start(); err != nil {
		return nil, fmt.Errorf("new namespaces: %w", err)
	}
	go func() { d.ended <- d.cmd.Wait() }()
	for {
		if d.init == 0 {
			d.init = child(d.cmd.Process.Pid)
		}
		if d.init != 0 {
			if _, err := os.Stat(d.Path("/run/systemd/private")); err == nil {
				return d, nil
			}
		}
		select {
		case err := <-d.ended:
			d.ended <- err
			return nil, fmt.Errorf("the device ended: %w\n%s", err, d.Log())
		case <-ctx.Done():
			return nil, fmt.Errorf("systemd does not answer: %w\n%s", ctx.Err(), d.Log())
		case <-time.After(pollPause):
		}
	}
}

// child is the only child of a process, 0 as long as there is none.
func child(pid int) int {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", pid, pid))
	if err != nil {
		return 0
	}
	n, _ := strconv.Atoi(strings.TrimSpace(string(b)))
	return n
}

// makeCgroup makes a group for the device: its systemd manages what is below.
func (d *Device) makeCgroup() error {
	mounts, err := os.ReadFile("/proc/mounts")
	if err != nil {
		return err
	}
	top := ""
	for _, line := range strings.Split(string(mounts), "\n") {
		if f := strings.Fields(line); len(f) > 2 && f[2] == "cgroup2" {
			top = f[1]
			break
		}
	}
	if top == "" {
		d.mount = filepath.Join(d.dir, "cgroup")
		if err := os.Mkdir(d.mount, 0o755); err != nil {
			return err
		}
		if err := syscall.Mount("none", d.mount, "cgroup2", 0, ""); err != nil {
			return fmt.Errorf("mount cgroup2: %w", err)
		}
		top = d.mount
	}
	d.cgroup = filepath.Join(top, filepath.Base(d.dir))
	return os.Mkdir(d.cgroup, 0o755)
}

func (d *Device) logPath(name string) string { return filepath.Join(d.dir, name+".log") }

// Path is the name, for this process, of a file of the device.
func (d *Device) Path(name string) string {
	return filepath.Join("/proc", strconv.Itoa(d.init), "root", name)
}

// Give copies a file of this machine to the device and returns its name there.
func (d *Device) Give(file string) (string, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return "", err
	}
	name := filepath.Base(file)
	return filepath.Join("/", shared, name), os.WriteFile(filepath.Join(d.dir, name), text, 0o755)
}

// Command is a program that will run on the device, as root.
func (d *Device) Command(ctx context.Context, name string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, "nsenter", append([]string{"--target", strconv.Itoa(d.init), "--all", "--wdns=/", "--", name}, args...)...)
	cmd.Env = []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root", "LC_ALL=C.UTF-8", "DEBIAN_FRONTEND=noninteractive"}
	cmd.WaitDelay = stopTimeout
	return cmd
}

// Run runs a program on the device and returns what it writes to both of its
// outputs, without the last line break. An error has it too.
func (d *Device) Run(ctx context.Context, name string, args ...string) (string, error) {
	out, err := d.Command(ctx, name, args...).CombinedOutput()
	text := strings.TrimRight(string(out), "\n")
	if err != nil {
		err = fmt.Errorf("%s %s: %w\n%s", name, strings.Join(args, " "), err, text)
	}
	return text, err
}

// Listen is a TCP socket of this process on the device's loopback interface.
func (d *Device) Listen() (net.Listener, error) {
	space, err := os.Open(filepath.Join("/proc", strconv.Itoa(d.init), "ns", "net"))
	if err != nil {
		return nil, err
	}
	defer space.Close()
	type result struct {
		l   net.Listener
		err error
	}
	made := make(chan result)
	go func() {
		runtime.LockOSThread() // for good: the thread belongs to the device now, and ends with the goroutine
		err := unix.Setns(int(space.Fd()), unix.CLONE_NEWNET)
		if err != nil {
			made <- result{nil, fmt.Errorf("the device's network: %w", err)}
			return
		}
		l, err := net.Listen("tcp", "127.0.0.1:0")
		made <- result{l, err}
	}()
	r := <-made
	return r.l, r.err
}

// Log is what systemd and the services have written.
func (d *Device) Log() string {
	var b bytes.Buffer
	for _, name := range []string{"system", "service"} {
		text, err := os.ReadFile(d.logPath(name))
		if err != nil {
			fmt.Fprintln(&b, err)
		}
		b.Write(text)
	}
	return b.String()
}

// Close ends every process of the device and removes what Start has made.
func (d *Device) Close() error {
	var errs []error
	if d.cgroup != "" {
		err := os.WriteFile(filepath.Join(d.cgroup, "cgroup.kill"), []byte("1"), 0)
		if errors.Is(err, fs.ErrNotExist) && d.cmd != nil && d.cmd.Process != nil { // before Linux 5.14
			err = syscall.Kill(d.cmd.Process.Pid, syscall.SIGKILL) // --kill-child does the rest
		}
		if d.cmd != nil && d.cmd.Process != nil {
			errs = append(errs, err)
			select {
			case <-d.ended: // it was killed: its status says nothing
			case <-time.After(stopTimeout):
				errs = append(errs, errors.New("the device does not end"))
			}
		}
		errs = append(errs, removeGroups(d.cgroup))
	}
	if d.mount != "" {
		errs = append(errs, syscall.Unmount(d.mount, 0))
	}
	return errors.Join(append(errs, os.RemoveAll(d.dir))...)
}

// removeGroups removes a cgroup and those below it, which are free a moment
// after their last process.
func removeGroups(top string) error {
	deadline := time.Now().Add(stopTimeout)
	for {
		var groups []string
		err := filepath.WalkDir(top, func(path string, e fs.DirEntry, err error) error {
			if err == nil && e.IsDir() {
				groups = append(groups, path)
			}
			return err
		})
		for i := len(groups) - 1; i >= 0 && err == nil; i-- {
			err = syscall.Rmdir(groups[i])
		}
		if err == nil || errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("cgroup %s: %w", top, err)
		}
		time.Sleep(pollPause)
	}
}
