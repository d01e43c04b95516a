package journal_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"lpad/agent/job"
	"lpad/agent/journal"
)

// spoil flips a bit at each offset of a file.
func spoil(t *testing.T, path string, offsets ...int) {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for _, at := range offsets {
		b[at] ^= 1
	}
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
}

// frames are the offsets of the records of a file.
func frames(t *testing.T, path string) []int {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var list []int
	for at := 16; at < len(b); at += 12 + int(binary.LittleEndian.Uint32(b[at:])) {
		list = append(list, at)
	}
	return list
}

// A damaged journal on a full disk, and then a crash: what could be read of it
// is still there, for the file keeps its name until another one takes it.
func TestDamagedOnFullDisk(t *testing.T) {
	dir := onTmpfs(t)
	path := filepath.Join(dir, "journal")
	j := openAt(t, dir)
	if err := errors.Join(j.PutJob(newJob(1)), j.PutJob(newJob(2)), j.PutJob(newJob(3)), j.Close()); err != nil {
		t.Fatal(err)
	}
	spoil(t, path, frames(t, path)[1]+20)
	free := fill(t, dir)
	j = openAt(t, dir)
	refused(t, j, j.Broken(), "disk-full")
	if j.Damage() == "" || len(j.Jobs()) != 2 {
		t.Errorf("%d jobs, damage %q", len(j.Jobs()), j.Damage())
	}
	if err := j.Close(); err != nil { // killed before there is room
		t.Fatal(err)
	}
	free()
	j = openAt(t, dir)
	if j.Damage() == "" || len(j.Jobs()) != 2 {
		t.Errorf("after the crash %d jobs, damage %q", len(j.Jobs()), j.Damage())
	}
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	holds(t, openAt(t, dir), 1, 3)
}

// Damage in several places, the header among them: each record that is whole is
// kept.
func TestDamagedInManyPlaces(t *testing.T) {
	path := filepath.Join(t.TempDir(), "journal")
	j := open(t, path, journal.Options{})
	for n := range 8 {
		if err := j.PutJob(newJob(n)); err != nil {
			t.Fatal(err)
		}
	}
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	at := frames(t, path)
	spoil(t, path, 9, at[1]+30, at[4], at[5]+40)
	j = open(t, path, journal.Options{})
	if j.Damage() == "" {
		t.Error("not noticed")
	}
	var ids []string
	for _, v := range j.Jobs() {
		ids = append(ids, v.ID)
	}
	if got, want := fmt.Sprint(ids), "[job-000 job-002 job-003 job-006 job-007]"; got != want {
		t.Errorf("jobs %s, want %s", got, want)
	}
}

// A file that cannot be read is set aside as one that is damaged is, and told
// apart from one that is missing.
func TestUnreadable(t *testing.T) {
	path := filepath.Join(t.TempDir(), "journal")
	if err := os.MkdirAll(filepath.Join(path, "lost+found"), 0o700); err != nil { // EISDIR at the first read
		t.Fatal(err)
	}
	j, err := journal.Open(path, journal.Options{})
	if err != nil {
		t.Fatalf("the daemon cannot start: %v", err)
	}
	defer j.Close()
	if j.Damage() == "" {
		t.Error("taken for an empty one")
	}
	if err := j.PutJob(newJob(1)); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(path + ".damaged-1/lost+found"); err != nil {
		t.Error(err)
	}
}

// A file that a broken file system has made huge.
func TestTooLarge(t *testing.T) {
	path := filepath.Join(manyFiles(t), "journal")
	j := open(t, path, journal.Options{})
	if err := errors.Join(j.PutJob(newJob(1)), j.Close(), os.Truncate(path, 65<<20)); err != nil {
		t.Fatal(err)
	}
	j, err := journal.Open(path, journal.Options{})
	if err != nil {
		t.Fatalf("the daemon cannot start: %v", err)
	}
	defer j.Close()
	if j.Damage() == "" || len(j.Jobs()) != 1 {
		t.Errorf("%d jobs, damage %q", len(j.Jobs()), j.Damage())
	}
}

// The end of a job was lost with the place where it lay, and another job has
// run since: to go on with the first would take back what the second did. A job
// that waits, and the one that is running, are left as they are.
func TestJobWhoseEndIsLost(t *testing.T) {
	path := filepath.Join(t.TempDir(), "journal")
	jr := open(t, path, journal.Options{})
	first := newJob(1)
	first.Order.MatchingID = "SECRET"
	walk(t, jr, first, job.Start, job.Authenticated, job.Abort, job.EndedSession)
	lost := len(frames(t, path)) - 1
	walk(t, jr, newJob(2)) // queued from here on
	walk(t, jr, newJob(3), job.Start)
	walk(t, jr, newJob(4), job.Abort) // it never began
	if err := jr.Close(); err != nil {
		t.Fatal(err)
	}
	spoil(t, path, frames(t, path)[lost]+20)
	for range 2 { // what was decided is kept
		jr = open(t, path, journal.Options{})
		var got []string
		for _, v := range jr.Jobs() {
			got = append(got, v.ID+" "+string(v.State))
		}
		if got, want := fmt.Sprint(got), "[job-001 failed job-002 queued job-003 authenticating job-004 cancelled]"; got != want {
			t.Errorf("%s, want %s", got, want)
		}
		if v, _ := jr.Job("job-001"); v.Problem == nil || v.Problem.Code != "journal-damaged" || v.Problem.State != job.Cancelling {
			t.Errorf("problem %+v", v.Problem)
		}
		if err := jr.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if b, err := os.ReadFile(path); err != nil || bytes.Contains(b, []byte("SECRET")) {
		t.Errorf("its secret is kept: %v", err)
	}
}
