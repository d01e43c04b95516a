package journal_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"lpad/agent/job"
	"lpad/agent/journal"
	"lpad/internal/fault"
)

var t0 = time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)

func open(t *testing.T, path string, o journal.Options) *journal.Journal {
	t.Helper()
	j, err := journal.Open(path, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { j.Close() })
	return j
}

// manyFiles is a folder for tests that sync thousands of times: in memory if
// the machine has such a file system, since it is not the disk that is tested.
func manyFiles(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "lpad-journal-")
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	return dir
}

func newJob(n int) job.Job {
	return job.New(fmt.Sprintf("job-%03d", n), job.Order{Kind: job.Install, SMDP: "smdp.example"}, t0.Add(time.Duration(n)*time.Second))
}

// walk moves a job to its end, writing each value, and returns it.
func walk(t *testing.T, jr *journal.Journal, j job.Job, kinds ...job.EventKind) job.Job {
	t.Helper()
	if err := jr.PutJob(j); err != nil {
		t.Fatal(err)
	}
	for _, k := range kinds {
		var err error
		if j, _, err = job.Step(j, job.Event{Kind: k, At: t0, Profile: &job.ProfileFacts{Name: "P"}}); err != nil {
			t.Fatal(err)
		}
		if err := jr.PutJob(j); err != nil {
			t.Fatal(err)
		}
	}
	return j
}

func TestReopen(t *testing.T) {
	path := filepath.Join(t.TempDir(), "journal")
	j := open(t, path, journal.Options{})
	walk(t, j, newJob(1), job.Abort)
	walk(t, j, newJob(2), job.Start)
	for _, apn := range []string{"old", "iot", "iot"} {
		if err := j.PutSetting("last-good/8944", map[string]string{"apn": apn}); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := journal.Open(path, journal.Options{}); !errors.Is(err, journal.ErrLocked) {
		t.Errorf("second opening: %v, want ErrLocked", err)
	}
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	j = open(t, path, journal.Options{})
	jobs := j.Jobs()
	if len(jobs) != 2 || jobs[0].State != job.Cancelled || jobs[1].State != job.Authenticating {
		t.Fatalf("jobs %+v", jobs)
	}
	var v map[string]string
	if ok, err := j.Setting("last-good/8944", &v); !ok || err != nil || v["apn"] != "iot" {
		t.Errorf("setting %v %v %v", v, ok, err)
	}
	if ok, _ := j.Setting("nobody", new(int)); ok {
		t.Error("a setting that nobody made")
	}
	if ok, err := j.Setting("last-good/8944", new(int)); !ok || err == nil {
		t.Errorf("a setting of another kind: %v, %v", ok, err)
	}
	if err := j.Compact(); err != nil {
		t.Fatal(err)
	}
	if ok, err := j.Setting("last-good/8944", &v); !ok || err != nil || v["apn"] != "iot" {
		t.Errorf("after compaction: %v %v %v", v, ok, err)
	}
	if j.Torn() != 0 || j.Damage() != "" {
		t.Errorf("torn %d, damage %q", j.Torn(), j.Damage())
	}
}

// TestCutAnywhere cuts the file at every byte. What was acknowledged before
// the cut must be there, and the journal must go on.
func TestCutAnywhere(t *testing.T) {
	dir := manyFiles(t)
	path := filepath.Join(dir, "journal")
	j := open(t, path, journal.Options{})
	var ends []int // length of the file after each acknowledged write
	var last job.Job
	for _, k := range []job.EventKind{"", job.Start, job.Authenticated, job.Expired, job.EndedSession} {
		if k == "" {
			last = newJob(1)
		} else {
			var err error
			if last, _, err = job.Step(last, job.Event{Kind: k, At: t0}); err != nil {
				t.Fatal(err)
			}
		}
		if err := j.PutJob(last); err != nil {
			t.Fatal(err)
		}
		ends = append(ends, j.Size())
	}
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	states := []job.State{job.Queued, job.Authenticating, job.Consent, job.Cancelling, job.Failed}
	for cut := range len(whole) + 1 {
		p := filepath.Join(dir, "cut")
		if err := os.WriteFile(p, whole[:cut], 0o600); err != nil {
			t.Fatal(err)
		}
		j, err := journal.Open(p, journal.Options{})
		if err != nil {
			t.Fatalf("cut at %d: %v", cut, err)
		}
		want := job.State("")
		for i, end := range ends {
			if cut >= end {
				want = states[i]
			}
		}
		got, ok := j.Job("job-001")
		if (want == "") == ok || got.State != want {
			t.Fatalf("cut at %d: state %q, want %q", cut, got.State, want)
		}
		if j.Damage() != "" {
			t.Fatalf("cut at %d is called damage: %s", cut, j.Damage())
		}
		if err := j.PutJob(newJob(2)); err != nil {
			t.Fatalf("cut at %d: cannot go on: %v", cut, err)
		}
		if err := j.Close(); err != nil {
			t.Fatal(err)
		}
		if j, err = journal.Open(p, journal.Options{}); err != nil || j.Torn() != 0 {
			t.Fatalf("cut at %d: not mended: %v", cut, err)
		}
		if _, ok := j.Job("job-002"); !ok {
			t.Fatalf("cut at %d: what was written after the repair is lost", cut)
		}
		if err := j.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// TestFlipAnywhere flips one bit of every byte: it must be noticed, kept
// aside when something durable was hit, and never be a crash.
func TestFlipAnywhere(t *testing.T) {
	dir := manyFiles(t)
	path := filepath.Join(dir, "journal")
	j := open(t, path, journal.Options{})
	for n := range 4 {
		if err := j.PutJob(newJob(n)); err != nil {
			t.Fatal(err)
		}
	}
	size := j.Size()
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	lastFrame := (size - 16) * 3 / 4 // four frames of equal length
	for at := range whole {
		p := filepath.Join(dir, fmt.Sprintf("flip-%d", at))
		b := bytes.Clone(whole)
		b[at] ^= 0x10
		if err := os.WriteFile(p, b, 0o600); err != nil {
			t.Fatal(err)
		}
		j, err := journal.Open(p, journal.Options{})
		if err != nil {
			t.Fatalf("flip at %d: %v", at, err)
		}
		n := len(j.Jobs())
		switch {
		case at < 16: // the header: the records vouch for themselves
			if j.Damage() == "" || n != 4 {
				t.Errorf("flip at %d in the header: %d jobs, damage %q", at, n, j.Damage())
			}
		case at >= 16+lastFrame: // the last record cannot be told from a torn one
			if n != 3 || j.Torn() == 0 {
				t.Errorf("flip at %d: %d jobs, torn %d", at, n, j.Torn())
			}
		default:
			if n != 3 || j.Damage() == "" {
				t.Errorf("flip at %d: %d jobs, damage %q", at, n, j.Damage())
			}
			if kept, err := os.ReadFile(p + ".damaged-1"); err != nil || !bytes.Equal(kept, b) {
				t.Errorf("flip at %d: the damaged file was not kept: %v", at, err)
			}
		}
		if err := j.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

func TestForeignAndNewerFiles(t *testing.T) {
	dir := t.TempDir()
	newer := make([]byte, 16)
	copy(newer, "lpadjrnl")
	binary.LittleEndian.PutUint16(newer[8:], 9)
	binary.LittleEndian.PutUint32(newer[12:], crc32.Checksum(newer[:12], crc32.MakeTable(crc32.Castagnoli)))
	path := filepath.Join(dir, "newer")
	if err := os.WriteFile(path, newer, 0o600); err != nil {
		t.Fatal(err)
	}
	var e *journal.NewerError
	if _, err := journal.Open(path, journal.Options{}); !errors.As(err, &e) || e.Version != 9 {
		t.Errorf("newer file: %v", err)
	}
	if b, _ := os.ReadFile(path); !bytes.Equal(b, newer) {
		t.Error("the newer file was touched")
	}
	for name, content := range map[string]string{"foreign": strings.Repeat("SQLite format 3", 10), "zeros": strings.Repeat("\x00", 4096)} {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		j := open(t, path, journal.Options{})
		if (name == "foreign") != (j.Damage() != "") || (name == "zeros") != (j.Torn() > 0) {
			t.Errorf("%s: damage %q, torn %d", name, j.Damage(), j.Torn())
		}
	}
}

func TestBounds(t *testing.T) {
	path := filepath.Join(manyFiles(t), "journal")
	j := open(t, path, journal.Options{MaxBytes: 16 << 10, History: 5})
	for n := range 300 {
		walk(t, j, newJob(n), job.Start, job.Abort, job.EndedSession)
	}
	if n := len(j.Jobs()); n != 5 {
		t.Errorf("%d jobs are kept, want 5", n)
	}
	if st, err := os.Stat(path); err != nil || st.Size() > 20<<10 || int(st.Size()) != j.Size() {
		t.Errorf("the file has %d bytes, the journal says %d: %v", st.Size(), j.Size(), err)
	}
	if per := j.Written() / 300; per > 8<<10 {
		t.Errorf("%d bytes are written for a job of four states", per)
	}
	if id := j.NewID(t0); id != "20261121-120000" {
		t.Errorf("id %s", id)
	}
}

func TestDiskTrouble(t *testing.T) {
	if _, err := journal.Open(filepath.Join(t.TempDir(), "missing", "journal"), journal.Options{}); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a missing directory: %v", err)
	}
	j := open(t, filepath.Join(t.TempDir(), "journal"), journal.Options{})
	big := newJob(1)
	big.Switch.Snapshot = []byte(`"` + strings.Repeat("x", 2<<20) + `"`)
	err := j.PutJob(big)
	if err == nil || fault.Of(err).Code != "journal-write" {
		t.Errorf("an oversized record: %v", err)
	}
	if _, ok := j.Job(big.ID); ok {
		t.Error("what was not written is there")
	}
	if err := j.PutJob(newJob(2)); err != nil {
		t.Errorf("the journal does not go on: %v", err)
	}
}

func FuzzOpen(f *testing.F) {
	path := filepath.Join(f.TempDir(), "journal")
	j, err := journal.Open(path, journal.Options{})
	if err != nil {
		f.Fatal(err)
	}
	for n := range 3 {
		if err := j.PutJob(newJob(n)); err != nil {
			f.Fatal(err)
		}
	}
	if err := errors.Join(j.PutSetting("k", "v"), j.Close()); err != nil {
		f.Fatal(err)
	}
	whole, err := os.ReadFile(path)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(whole)
	f.Add(whole[:len(whole)-3])
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		path := filepath.Join(t.TempDir(), "journal")
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
		j, err := journal.Open(path, journal.Options{})
		var newer *journal.NewerError
		if errors.As(err, &newer) {
			return
		}
		if err != nil {
			t.Fatal(err)
		}
		if err := j.PutJob(newJob(9)); err != nil {
			t.Fatal(err)
		}
		kept := fmt.Sprint(j.Jobs(), j.SettingKeys(""))
		if err := j.Close(); err != nil {
			t.Fatal(err)
		}
		if j, err = journal.Open(path, journal.Options{}); err != nil {
			t.Fatal(err)
		}
		defer j.Close()
		if again := fmt.Sprint(j.Jobs(), j.SettingKeys("")); j.Damage() != "" || j.Torn() != 0 || again != kept {
			t.Errorf("damage %q, torn %d; it holds\n%s\nand held\n%s", j.Damage(), j.Torn(), again, kept)
		}
	})
}

// A device without a clock of its own goes back in time at every boot. Jobs
// keep the order in which they came, and the one that has just ended is not
// the first to be forgotten.
func TestOrderOutlivesTheClock(t *testing.T) {
	path := filepath.Join(t.TempDir(), "journal")
	j := open(t, path, journal.Options{History: 2})
	ids := func() string {
		var s []string
		for _, v := range j.Jobs() {
			s = append(s, v.ID)
		}
		return strings.Join(s, " ")
	}
	for n, id := range []string{"c", "b", "a"} {
		v := newJob(n)
		v.ID, v.Created = id, t0.AddDate(-n, 0, 0)
		walk(t, j, v, job.Start, job.Abort, job.EndedSession)
	}
	if got := ids(); got != "b a" {
		t.Errorf("kept %q, want the two that came last", got)
	}
	if err := j.Compact(); err != nil {
		t.Fatal(err)
	}
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	if j = open(t, path, journal.Options{History: 2}); ids() != "b a" {
		t.Errorf("after a restart %q", ids())
	}
}
