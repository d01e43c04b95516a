package journal_test

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"lpad/agent/journal"
	"lpad/internal/fault"
)

// onTmpfs mounts a small disk of its own for the test.
func onTmpfs(t *testing.T) string {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("mounting a disk needs root")
	}
	dir := t.TempDir()
	if err := unix.Mount("lpad-test", dir, "tmpfs", 0, "size=256k"); err != nil {
		t.Skipf("no tmpfs can be mounted: %v", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	return dir
}

// onExt4 mounts a small ext4 that goes read-only at an error, as those of
// devices do.
func onExt4(t *testing.T) (dir string, repair func()) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("mounting a disk needs root")
	}
	run := func(name string, args ...string) error {
		out, err := exec.Command(name, args...).CombinedOutput()
		if err != nil {
			return fmt.Errorf("%s: %w: %s", name, err, out)
		}
		return nil
	}
	image := filepath.Join(t.TempDir(), "image")
	dir = t.TempDir()
	mount := func() error { return run("mount", "-o", "loop,errors=remount-ro", image, dir) }
	err := errors.Join(os.WriteFile(image, nil, 0o600), os.Truncate(image, 4<<20), run("mkfs.ext4", "-q", "-F", image))
	if err == nil {
		err = mount()
	}
	if err != nil {
		t.Skipf("no ext4 can be mounted: %v", err)
	}
	t.Cleanup(func() {
		if err := run("umount", dir); err != nil {
			t.Error(err)
		}
	})
	return dir, func() {
		t.Helper()
		if err := run("umount", dir); err != nil {
			t.Fatal(err)
		}
		var status *exec.ExitError
		if err := run("e2fsck", "-p", image); err != nil && (!errors.As(err, &status) || status.ExitCode() != 1) { // 1: errors corrected
			t.Fatal(err)
		}
		if err := mount(); err != nil {
			t.Fatal(err)
		}
	}
}

func openAt(t *testing.T, dir string) *journal.Journal {
	t.Helper()
	j, err := journal.Open(filepath.Join(dir, "journal"), journal.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = j.Close() // most are closed by the test
	})
	return j
}

// refused checks that a record was refused with a code, which stays visible.
func refused(t *testing.T, j *journal.Journal, err error, code string) {
	t.Helper()
	var w *journal.WriteError
	if !errors.As(err, &w) {
		t.Fatalf("the disk takes nothing, and the journal says %v", err)
	}
	for _, err := range []error{err, j.Broken()} {
		if f := fault.Of(err); f.Code != code || f.Who == "" || f.Next == "" {
			t.Errorf("fault %+v of %v, want the code %s", f, err, code)
		}
	}
}

// holds checks which jobs a journal has, and that it is whole.
func holds(t *testing.T, j *journal.Journal, want ...int) {
	t.Helper()
	var ids []string
	for _, v := range j.Jobs() {
		ids = append(ids, v.ID)
	}
	var wanted []string
	for _, n := range want {
		wanted = append(wanted, newJob(n).ID)
	}
	if fmt.Sprint(ids) != fmt.Sprint(wanted) || j.Damage() != "" {
		t.Errorf("jobs %v, damage %q; want jobs %v", ids, j.Damage(), wanted)
	}
}

// fill writes a file until there is no room, and returns what makes room again.
func fill(t *testing.T, dir string) func() {
	t.Helper()
	path := filepath.Join(dir, "ballast")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	for _, size := range []int{4096, 1} {
		for err = nil; err == nil; {
			_, err = f.Write(make([]byte, size))
		}
		if !errors.Is(err, unix.ENOSPC) {
			t.Fatalf("fill the disk: %v", err)
		}
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	return func() {
		t.Helper()
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
	}
}

// putUntilRefused appends jobs from n on until the disk takes no more, and
// returns the first number that was refused.
func putUntilRefused(j *journal.Journal, n int) (int, error) {
	for ; ; n++ {
		if err := j.PutJob(newJob(n)); err != nil {
			return n, err
		}
	}
}

func upTo(n int) []int {
	var list []int
	for i := 1; i < n; i++ {
		list = append(list, i)
	}
	return list
}

// A disk that fills up: what was taken stays, what was not does not stand, and
// when there is room all goes on.
func TestDiskFull(t *testing.T) {
	dir := onTmpfs(t)
	j := openAt(t, dir)
	if err := j.PutJob(newJob(1)); err != nil {
		t.Fatal(err)
	}
	free := fill(t, dir)
	n, err := putUntilRefused(j, 2)
	refused(t, j, err, "disk-full")
	holds(t, j, upTo(n)...)
	refused(t, j, j.Mend(), "disk-full")
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}

	j = openAt(t, dir) // the daemon is started again on the full disk
	holds(t, j, upTo(n)...)
	if _, err = putUntilRefused(j, n); err == nil {
		t.Fatal("nothing was refused")
	}
	refused(t, j, err, "disk-full")
	free()
	if err := j.Mend(); err != nil || j.Broken() != nil {
		t.Fatalf("there is room, and the journal says %v, %v", err, j.Broken())
	}
	kept := len(j.Jobs())
	if err := j.PutJob(newJob(kept + 1)); err != nil {
		t.Fatal(err)
	}
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	holds(t, openAt(t, dir), upTo(kept+2)...)
}

// A torn tail on a full disk: it cannot be cut off yet, and nothing is lost by
// waiting.
func TestTornOnFullDisk(t *testing.T) {
	dir := onTmpfs(t)
	j := openAt(t, dir)
	if err := errors.Join(j.PutJob(newJob(1)), j.PutJob(newJob(2)), j.Close()); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "journal")
	st, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(path, st.Size()-3); err != nil {
		t.Fatal(err)
	}
	free := fill(t, dir)
	j = openAt(t, dir)
	holds(t, j, 1)
	refused(t, j, j.Broken(), "disk-full")
	free()
	if err := errors.Join(j.PutJob(newJob(2)), j.Close()); err != nil {
		t.Fatal(err)
	}
	holds(t, openAt(t, dir), 1, 2)
}

// A disk that is read-only at the start: everything can be read, nothing
// decided; a damaged journal is set aside when that is possible, and not
// before.
func TestReadOnlyAtStart(t *testing.T) {
	for _, damaged := range []bool{false, true} {
		t.Run(fmt.Sprintf("damaged=%v", damaged), func(t *testing.T) {
			dir := onTmpfs(t)
			j := openAt(t, dir)
			if err := errors.Join(j.PutJob(newJob(1)), j.PutJob(newJob(2)), j.Close()); err != nil {
				t.Fatal(err)
			}
			path := filepath.Join(dir, "journal")
			want := []int{1, 2}
			if damaged {
				b, err := os.ReadFile(path)
				if err != nil {
					t.Fatal(err)
				}
				b[60] ^= 1
				if err := os.WriteFile(path, b, 0o600); err != nil {
					t.Fatal(err)
				}
				want = []int{2}
			}
			remount := func(flags uintptr) {
				t.Helper()
				if err := unix.Mount("", dir, "", unix.MS_REMOUNT|flags, ""); err != nil {
					t.Fatal(err)
				}
			}
			remount(unix.MS_RDONLY)
			j = openAt(t, dir)
			if got := len(j.Jobs()); got != len(want) || (j.Damage() != "") != damaged {
				t.Errorf("%d jobs, damage %q", got, j.Damage())
			}
			refused(t, j, j.Broken(), "disk-read-only")
			refused(t, j, j.PutJob(newJob(3)), "disk-read-only")
			if _, err := journal.Open(path, journal.Options{}); !errors.Is(err, journal.ErrLocked) {
				t.Errorf("a second one on the read-only disk: %v", err)
			}
			remount(0)
			if err := errors.Join(j.PutJob(newJob(3)), j.Close()); err != nil {
				t.Fatal(err)
			}
			holds(t, openAt(t, dir), append(want, 3)...)
			if _, err := os.Stat(path + ".damaged-1"); (err == nil) != damaged {
				t.Errorf("the damaged file: %v", err)
			}
		})
	}
}

// A file system that finds an error goes read-only under the open file, and
// comes back after a repair without it.
func TestReadOnlyUnderway(t *testing.T) {
	dir, repair := onExt4(t)
	j := openAt(t, dir)
	if err := j.PutJob(newJob(1)); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("mount", "-o", "remount,abort", dir).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	refused(t, j, j.PutJob(newJob(2)), "disk-read-only")
	refused(t, j, j.Mend(), "disk-read-only")
	holds(t, j, 1)
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	repair()
	j = openAt(t, dir)
	if err := errors.Join(j.PutJob(newJob(2)), j.Close()); err != nil {
		t.Fatal(err)
	}
	j = openAt(t, dir)
	holds(t, j, 1, 2)
	if err := j.Close(); err != nil { // before it is unmounted
		t.Fatal(err)
	}
}

// The bound on the file holds however often it is opened: what is alive
// counts, not what is there.
func TestBoundAcrossRestarts(t *testing.T) {
	const limit = 16 << 10
	path := filepath.Join(t.TempDir(), "journal")
	largest := 0
	for round := range 40 {
		j, err := journal.Open(path, journal.Options{MaxBytes: limit, History: 2})
		if err != nil {
			t.Fatal(err)
		}
		for i := range 20 {
			if err := j.PutSetting("x", fmt.Sprintf("%0500d", round*100+i)); err != nil {
				t.Fatal(err)
			}
			largest = max(largest, j.Size())
		}
		if err := j.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if largest > limit+1000 {
		t.Errorf("the file has grown to %d bytes, its limit is %d", largest, limit)
	}
}
