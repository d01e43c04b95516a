package runner_test

import (
	"errors"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"lpad/agent/job"
	"lpad/agent/journal"
	"lpad/internal/fault"
	"lpad/internal/redact"
)

// A disk that fills up in the middle of a job: the job stands still, the view
// says why, and all goes on by itself when there is room, also when nobody has
// anything to write.
func TestDiskFull(t *testing.T) {
	dir, fill, free := smallDisk(t)
	w := newWorld(t, options{})
	w.path = filepath.Join(dir, "journal")
	filled := make(chan struct{})
	w.hook = func(msg string, attrs map[string]string) {
		if msg == "step" && attrs["state"] == string(job.Authenticating) {
			fill() // in the loop: the next records have no room
			close(filled)
		}
	}
	l := w.live()
	id := l.submit(order(enabling)).ID
	<-filled
	says := func(want string) {
		t.Helper()
		limit := time.Now().Add(patience)
		for {
			err := l.View().JournalErr
			if want == "" && err == nil || want != "" && err != nil {
				if f := fault.Of(err); want != "" && (f.Code != want || f.Next == "" || f.Who != fault.Technician) {
					t.Errorf("the view says %+v", f)
				}
				return
			}
			if time.Now().After(limit) {
				t.Fatalf("the view says %v, want %q", err, want)
			}
			time.Sleep(5 * time.Millisecond)
		}
	}
	says("disk-full")
	if j, err := l.Job(id); err != nil || j.Ended() {
		t.Errorf("the job has ended as %q, %v", j.State, err)
	}
	if len(l.View().Warnings) == 0 {
		t.Error("no warning")
	}
	free()
	l.until(id, "done", func(j job.Job) bool { return j.State == job.Done })
	says("")

	// A daemon that has nothing to do: an order is refused, and later none is
	// needed to find out that there is room.
	w.hook = nil
	fill()
	for n := 0; ; n++ {
		_, err := l.Submit(t.Context(), about(t, job.Nickname, newICCID), redact.Secret{})
		var refused *journal.WriteError
		if errors.As(err, &refused) {
			break
		}
		if n > 100 {
			t.Fatalf("the disk is full, and orders are answered with %v", err)
		}
	}
	says("disk-full")
	free()
	says("")
}

// Stopping is not failing, on a full disk neither: what was under way goes on
// after the next start.
func TestStopOnFullDisk(t *testing.T) {
	dir, fill, free := smallDisk(t)
	w := newWorld(t, options{})
	w.path = filepath.Join(dir, "journal")
	var once sync.Once
	w.hook = func(msg string, attrs map[string]string) {
		if msg == "step" && attrs["state"] == string(job.Authenticating) {
			once.Do(fill)
		}
	}
	l := w.live()
	id := l.submit(order(enabling)).ID
	eventually(t, "the view says that the disk is full", func() bool { return l.View().JournalErr != nil })
	l.stop() // fails the test when Run fails
	free()
	w.live().until(id, "done", func(j job.Job) bool { return j.State == job.Done })
}

// smallDisk mounts a disk, and returns what fills it and what makes room.
func smallDisk(t *testing.T) (dir string, fill, free func()) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("mounting a disk needs root")
	}
	dir = t.TempDir()
	if err := unix.Mount("lpad-test", dir, "tmpfs", 0, "size=256k"); err != nil {
		t.Skipf("no tmpfs can be mounted: %v", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	ballast := filepath.Join(dir, "ballast")
	fill = func() {
		f, err := os.Create(ballast)
		for err == nil {
			_, err = f.Write(make([]byte, 4096))
		}
		if !errors.Is(err, unix.ENOSPC) {
			t.Errorf("fill the disk: %v", err)
		}
		if err := f.Close(); err != nil {
			t.Error(err)
		}
	}
	free = func() {
		if err := os.Remove(ballast); err != nil {
			t.Error(err)
		}
	}
	return dir, fill, free
}
