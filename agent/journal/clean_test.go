package journal_test

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"lpad/agent/journal"
)

// A decision stands when its record is in the file, whatever becomes of the
// cleaning up behind it: telling the caller otherwise would leave a job that
// nobody moves any more.
func TestCleaningUpThatFails(t *testing.T) {
	path := filepath.Join(t.TempDir(), "journal")
	j, err := journal.Open(path, journal.Options{MaxBytes: 1, History: 1})
	if err != nil {
		t.Fatal(err)
	}
	first, second, third := newJob(1), newJob(2), newJob(3)
	if err := os.Mkdir(path+".new", 0o700); err != nil { // no new file can be made
		t.Fatal(err)
	}
	if err := j.PutJob(first); err != nil {
		t.Errorf("the record is in the file, and PutJob says %v", err)
	}
	var refused *journal.WriteError
	if err := j.PutJob(second); !errors.As(err, &refused) {
		t.Errorf("a file that must be made anew, and PutJob says %v", err)
	}
	if _, ok := j.Job(second.ID); ok {
		t.Error("a job that was refused is there")
	}
	if err := os.Remove(path + ".new"); err != nil {
		t.Fatal(err)
	}
	if err := j.PutJob(third); err != nil {
		t.Error(err)
	}
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	if j, err = journal.Open(path, journal.Options{}); err != nil {
		t.Fatal(err)
	}
	defer j.Close()
	if list := j.Jobs(); len(list) != 2 || list[0].ID != first.ID || list[1].ID != third.ID || j.Damage() != "" {
		t.Errorf("jobs %v, damage %q", list, j.Damage())
	}
}
