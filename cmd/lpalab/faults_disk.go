package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"time"

	"golang.org/x/sys/unix"

	"lpad/agent/api"
)

// Disks of their own for the state of a daemon.
const (
	smallDisk  = "tmpfs" // of smallBytes, which fills up and can be made read-only
	brokenDisk = "ext4"  // in a file; an error makes it read-only until it is repaired

	smallBytes  = 512 << 10
	brokenBytes = 4 << 20

	// toldLimit is how long a disk stays bad when the daemon does not notice,
	// because it has nothing to write; toldPause is how long it stays so when the
	// daemon has said so.
	toldLimit = 400 * time.Millisecond
	toldPause = 100 * time.Millisecond
)

// disk is a file system of its own for the state directory.
type disk struct {
	dir   string
	image string // of an ext4
}

// canMount says why no disk can be mounted here; empty if it can.
func canMount() string {
	if os.Geteuid() != 0 {
		return "mounting a disk needs root"
	}
	for _, program := range []string{"mkfs.ext4", "e2fsck", "mount", "umount"} {
		if _, err := exec.LookPath(program); err != nil {
			return err.Error()
		}
	}
	if _, err := os.Stat("/dev/loop-control"); err != nil {
		return "no loop devices: " + err.Error()
	}
	return ""
}

// inOwnMounts starts this program again where its mounts are its own and go
// with it, if that is allowed and not so already. It returns when there is
// nothing to be done, or when it cannot be done.
func inOwnMounts() error {
	const mark = "LPALAB_OWN_MOUNTS"
	if os.Getenv(mark) != "" || canMount() != "" {
		return nil
	}
	runtime.LockOSThread() // the namespace is the thread's, and becomes the program's by exec
	if err := unix.Unshare(unix.CLONE_NEWNS); err != nil {
		runtime.UnlockOSThread()
		return nil // then the mounts are everybody's, and are taken down one by one
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make mounts private: %w", err)
	}
	return unix.Exec("/proc/self/exe", os.Args, append(os.Environ(), mark+"=1"))
}

// mountDisk makes a disk of a kind and mounts it at dir.
func mountDisk(kind, dir, image string) (*disk, error) {
	d := &disk{dir: dir}
	if kind == smallDisk {
		if err := unix.Mount("lpad-lab", dir, "tmpfs", 0, fmt.Sprintf("size=%d", smallBytes)); err != nil {
			return nil, fmt.Errorf("mount a small disk: %w", err)
		}
		return d, nil
	}
	d.image = image
	err := errors.Join(os.WriteFile(image, nil, 0o600), os.Truncate(image, brokenBytes))
	if err == nil {
		err = command("mkfs.ext4", "-q", "-F", image)
	}
	if err == nil {
		err = d.mount()
	}
	return d, err
}

func command(name string, args ...string) error {
	if out, err := exec.Command(name, args...).CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w: %s", name, err, out)
	}
	return nil
}

func (d *disk) mount() error { return command("mount", "-o", "loop,errors=remount-ro", d.image, d.dir) }

func (d *disk) ballast() string { return filepath.Join(d.dir, "ballast") }

// fill leaves no room on the disk.
func (d *disk) fill() error {
	f, err := os.Create(d.ballast())
	if err != nil {
		return err
	}
	for err == nil {
		_, err = f.Write(make([]byte, 4096))
	}
	if errors.Is(err, unix.ENOSPC) {
		err = nil
	}
	return errors.Join(err, f.Close())
}

// free makes room again.
func (d *disk) free() error { return os.Remove(d.ballast()) }

// readOnly remounts the disk, which nobody may be writing to.
func (d *disk) readOnly(on bool) error {
	var flags uintptr = unix.MS_REMOUNT
	if on {
		flags |= unix.MS_RDONLY
	}
	return unix.Mount("", d.dir, "", flags, "")
}

// fail lets the file system find an error: it goes read-only under those who
// have files open.
func (d *disk) fail() error { return command("mount", "-o", "remount,abort", d.dir) }

// repair is what a start of the device does about it. Nobody may use the disk.
//
// It goes on with a copy of the image: devices of the lab that have mounts of
// their own have copied this one, too, and for as long as one of them is there
// the broken file system lives on, and would be mounted again.
func (d *disk) repair() error {
	if err := command("umount", d.dir); err != nil {
		return err
	}
	b, err := os.ReadFile(d.image)
	if err != nil {
		return err
	}
	was := d.image
	d.image += "+"
	if err := errors.Join(os.WriteFile(d.image, b, 0o600), os.Remove(was)); err != nil {
		return err
	}
	err = command("e2fsck", "-p", d.image)
	var status *exec.ExitError
	if errors.As(err, &status) && status.ExitCode() == 1 { // errors corrected
		err = nil
	}
	return errors.Join(err, d.mount())
}

func (d *disk) close() error { return unix.Unmount(d.dir, unix.MNT_DETACH) }

// diskFault makes the disk bad, waits until the daemon has said so in its
// status or has nothing to write, and makes it good again. What the daemon says
// must name the fault and what to do.
//
// At the moment when a file system gives up the error may be another one than
// afterwards: "journal-write" stands for those that have no name of their own.
func (r *rig) diskFault(f *fault, code string, bad, good func() error) {
	if err := bad(); err != nil {
		r.wrong(fmt.Errorf("the lab itself: %w", err))
		return
	}
	r.hold(1)
	r.served.Go(func() {
		defer r.hold(-1)
		if p := r.awaitJournalProblem(cmp.Or(f.told, toldLimit)); p == nil {
			r.note("the daemon does not say anything of its disk: it had nothing to write")
		} else {
			r.note("the daemon says: %s, %s, %s", p.Code, p.Who, p.Next)
			r.tell()
			if p.Code != code && p.Code != "journal-write" || p.Who == "" || p.Next == "" || !p.Retry {
				r.wrong(fmt.Errorf("the daemon calls it %q (%s; next: %s)", p.Code, p.Who, p.Next))
			}
			time.Sleep(toldPause)
		}
		if err := good(); err != nil {
			r.wrong(fmt.Errorf("the lab itself: %w", err))
		}
		r.note("the disk is good again")
	})
}

// awaitJournalProblem waits until the status has one.
func (r *rig) awaitJournalProblem(limit time.Duration) *api.Problem {
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	for {
		if s, err := r.client.Status(ctx); err == nil && s.Journal != nil {
			return s.Journal
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(5 * time.Millisecond):
		}
	}
}

// diskKinds are the faults of a disk that is really full or read-only.
var diskKinds = []kind{
	{"disk-full", "the disk is full from a write of the journal on, until the daemon has said so", diskScenarios, upTo(onAppend),
		func(f *fault, _ rng) {
			f.disk, f.patience = smallDisk, 20*time.Second
			f.at, f.n, f.appendDo = onAppend, f.index, func(r *rig) { r.diskFault(f, "disk-full", r.disk.fill, r.disk.free) }
		}},
	{"disk-full-start", "kill -9 when the journal has grown, and the disk is full when the daemon is started again", diskScenarios, every(onAppend, 2),
		func(f *fault, _ rng) {
			f.disk, f.patience = smallDisk, 20*time.Second
			f.at, f.n, f.appendDo = onAppend, f.index, func(r *rig) {
				r.diskFault(f, "disk-full", func() error { return r.off(r.disk.fill) }, r.disk.free)
			}
		}},
	{"disk-read-only", "kill -9 when the journal has grown, and the disk is read-only when the daemon is started again", diskScenarios, every(onAppend, 2),
		func(f *fault, _ rng) {
			f.disk, f.patience = smallDisk, 20*time.Second
			f.at, f.n, f.appendDo = onAppend, f.index, func(r *rig) {
				r.diskFault(f, "disk-read-only", func() error {
					return r.off(func() error { return r.disk.readOnly(true) })
				}, func() error { return r.disk.readOnly(false) })
			}
		}},
	{"disk-error", "the file system finds an error and goes read-only under the daemon; then power cut, repair, start", diskScenarios, every(onAppend, 2),
		func(f *fault, _ rng) {
			f.disk, f.patience = brokenDisk, 20*time.Second
			f.at, f.n, f.appendDo = onAppend, f.index, func(r *rig) {
				r.diskFault(f, "disk-read-only", r.disk.fail, func() error {
					return errors.Join(r.off(r.disk.repair), r.watchState())
				})
			}
		}},
}

var diskScenarios = []string{"install-enable", "switch", "rollback"}
