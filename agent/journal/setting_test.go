package journal_test

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"lpad/agent/job"
	"lpad/agent/journal"
)

// A value that was forgotten stays so, by its record and after a compaction.
func TestForgetSetting(t *testing.T) {
	path := filepath.Join(t.TempDir(), "journal")
	j := open(t, path, journal.Options{})
	for _, key := range []string{"report/1", "report/2", "other", "report/3"} {
		if err := j.PutSetting(key, key); err != nil {
			t.Fatal(err)
		}
	}
	for range 2 { // the second time there is nothing to do
		if err := j.ForgetSetting("report/2"); err != nil {
			t.Fatal(err)
		}
	}
	for _, again := range []func() error{func() error { return nil }, j.Close, nil, func() error { return j.Compact() }, func() error { return j.Close() }, nil} {
		if again == nil {
			j = open(t, path, journal.Options{})
		} else if err := again(); err != nil {
			t.Fatal(err)
		}
		if got := j.SettingKeys("report/"); !slices.Equal(got, []string{"report/1", "report/3"}) {
			t.Errorf("keys %v", got)
		}
		var v string
		if ok, err := j.Setting("report/2", &v); ok || err != nil {
			t.Errorf("still %q, %v", v, err)
		}
	}
}

// What an older version kept of an ended job is gone after a compaction, and a
// job that has ended leaves nothing behind then.
func TestCompactionForgetsSecrets(t *testing.T) {
	path := filepath.Join(t.TempDir(), "journal")
	j := open(t, path, journal.Options{})
	v := newJob(1)
	v.Order.MatchingID, v.Switch.Snapshot = "SECRET-1", []byte(`"SECRET-2"`)
	for _, s := range []job.State{job.Loading, job.Done} {
		if v.State = s; j.PutJob(v) != nil {
			t.Fatal("not written")
		}
	}
	if got, _ := j.Job(v.ID); got.Order.MatchingID != "" || got.Switch.Snapshot != nil || got.Order.SMDP != v.Order.SMDP {
		t.Errorf("kept %+v", got)
	}
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	j = open(t, path, journal.Options{})
	if err := j.Compact(); err != nil {
		t.Fatal(err)
	}
	if b, err := os.ReadFile(path); err != nil || strings.Contains(string(b), "SECRET") || !strings.Contains(string(b), v.ID) {
		t.Errorf("%v: the file holds\n%s", err, b)
	}
}

// An id is not given again while the report of its job waits, though the job
// itself is forgotten.
func TestNewIDAvoidsReports(t *testing.T) {
	j := open(t, filepath.Join(t.TempDir(), "journal"), journal.Options{})
	id := j.NewID(t0)
	if err := j.PutSetting(journal.ReportKey(id), "waits"); err != nil {
		t.Fatal(err)
	}
	if again := j.NewID(t0); again == id {
		t.Errorf("%s is given twice", id)
	}
	if err := j.ForgetSetting(journal.ReportKey(id)); err != nil {
		t.Fatal(err)
	}
	if again := j.NewID(t0); again != id {
		t.Errorf("%s, want %s", again, id)
	}
}
