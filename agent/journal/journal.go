package journal

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"sort"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"lpad/agent/job"
	"lpad/internal/fault"
)

// Defaults of [Options].
const (
	DefaultMaxBytes = 256 << 10
	DefaultHistory  = 50
)

// Options bound a journal. The zero value means the defaults.
type Options struct {
	MaxBytes int // compact when the file is larger; 0: DefaultMaxBytes
	History  int // ended jobs that are kept; 0: DefaultHistory

	IDSuffix string // of the ids of jobs, so that those of several journals are told apart
}

// Journal is an open journal. It is owned by one goroutine.
type Journal struct {
	path string
	opts Options
	file *os.File
	lock *os.File
	size int // bytes in the file
	live int // bytes of what was alive at the last compaction, or at Open: below twice that, compacting is not worth the flash

	jobs     map[string]job.Job
	came     int            // how many jobs have come
	order    map[string]int // of the jobs, as they came: a clock that was set back does not change it
	settings map[string]json.RawMessage

	written int64 // bytes written since Open, the wear of the flash
	writes  int64 // how many times
	torn    int
	damage  string
	broken  error // a write failed half-way: nothing may be appended any more, only a new file mends that
	aside   bool  // the file is damaged and could not be set aside yet: it must be before it is replaced
}

// ErrLocked means that another process holds the journal.
var ErrLocked = errors.New("another lpad holds the journal")

// Open reads the journal at path, makes it if it is missing, and repairs what
// a power cut left. Its directory must exist. See the package comment for what
// happens to torn, damaged and newer files.
func Open(path string, opts Options) (*Journal, error) {
	if opts.MaxBytes <= 0 {
		opts.MaxBytes = DefaultMaxBytes
	}
	if opts.History <= 0 {
		opts.History = DefaultHistory
	}
	lock, err := lockFile(path + ".lock")
	if err != nil {
		return nil, err
	}
	j := &Journal{path: path, opts: opts, lock: lock, jobs: map[string]job.Job{}, order: map[string]int{}, settings: map[string]json.RawMessage{}}
	if err := j.load(); err != nil {
		return nil, errors.Join(err, lock.Close())
	}
	return j, nil
}

func lockFile(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if errors.Is(err, unix.EROFS) { // a lock needs no writing
		f, err = os.Open(path)
	}
	if err != nil {
		return nil, fmt.Errorf("open journal: %w", &WriteError{err})
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		if errors.Is(err, unix.EWOULDBLOCK) {
			err = ErrLocked
		}
		return nil, errors.Join(fmt.Errorf("lock %s: %w", path, err), f.Close())
	}
	return f, nil
}

func (j *Journal) load() error {
	b, unread, err := readAll(j.path)
	if err != nil {
		return fmt.Errorf("open journal: %w", err)
	}
	c, err := scan(j.path, b)
	if err != nil {
		return err
	}
	if unread != "" {
		c.damage, c.torn = unread, 0
	}
	j.torn = c.torn
	last, started := map[string]int{}, 0 // records of jobs: the last of each, and of any that had begun
	for i, r := range c.records {
		v, err := j.replay(r)
		if err != nil && c.damage == "" {
			c.damage = fmt.Sprintf("record %d: %v", i, err)
		}
		if v.ID != "" {
			last[v.ID] = i
			if v.Begun() {
				started = i
			}
		}
	}
	if c.damage != "" {
		j.endOvertaken(last, started)
	}
	// Not the length of the file: one that is opened again and again would grow
	// to twice that each time.
	image, err := j.image()
	if err != nil {
		return err
	}
	j.size, j.live = c.good, len(image)
	j.damage, j.aside = c.damage, c.damage != ""
	if c.damage != "" || c.torn > 0 || c.good < headerSize {
		err = j.Compact() // also makes the first file
	} else if err = j.openForAppend(); err != nil {
		err = j.fail(err)
	}
	if outOfDisk(err) { // what was read is known all the same, and room may come
		return nil
	}
	return err
}

// outOfDisk reports whether an error is one of a disk that is full or
// read-only, which may end without us.
func outOfDisk(err error) bool {
	return errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) || errors.Is(err, unix.EROFS)
}

func (j *Journal) openForAppend() error {
	f, err := os.OpenFile(j.path, os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return fmt.Errorf("open journal: %w", err)
	}
	j.file = f
	return nil
}

// maxAside bounds how many damaged files are kept.
const maxAside = 5

// setAside gives a damaged file a second name, the first that is free; when all
// are taken, the last one is replaced. Under its own name it stays until a whole
// one takes its place: a power cut in between must not leave nothing at all.
func setAside(path string) (string, error) {
	n := 1
	name := func() string { return fmt.Sprintf("%s.damaged-%d", path, n) }
	for n < maxAside {
		if _, err := os.Lstat(name()); errors.Is(err, os.ErrNotExist) {
			break
		}
		n++
	}
	to := name()
	err := os.Link(path, to)
	if errors.Is(err, os.ErrExist) {
		if err = os.RemoveAll(to); err == nil {
			err = os.Link(path, to)
		}
	}
	if err != nil && !outOfDisk(err) { // not a file, or a file system without links
		err = os.Rename(path, to)
	}
	return to, err
}

// endOvertaken ends the jobs whose end was lost with a part of the file: only
// one job runs at a time, so one that had begun before another did has ended.
// To go on with it would be to do again, or to take back, what the later ones
// have done since.
func (j *Journal) endOvertaken(last map[string]int, started int) {
	for id, at := range last {
		v := j.jobs[id]
		if at >= started || v.Ended() || !v.Begun() {
			continue
		}
		v.State = job.Failed
		v.Problem = &job.Problem{Code: "journal-damaged", Text: "how this job ended was lost with a part of the journal", Who: fault.Technician,
			Next: "look at the profiles of the card; order again what is missing", State: j.jobs[id].State}
		j.jobs[id] = v.WithoutSecrets()
	}
}

type setting struct {
	Key   string          `json:"key"`
	Value json.RawMessage `json:"value,omitempty"`
}

type forgetJob struct {
	ID string `json:"id"`
}

// replay takes a record over, and returns the job that it held.
func (j *Journal) replay(r record) (v job.Job, err error) {
	switch r.kind {
	case kindJob:
		if err := json.Unmarshal(r.payload, &v); err != nil {
			return job.Job{}, err
		}
		if v.ID == "" || !v.State.Known() {
			return job.Job{}, fmt.Errorf("job %q in unknown state %q", v.ID, v.State)
		}
		j.keep(v)
	case kindForgetJob:
		var f forgetJob
		if err := json.Unmarshal(r.payload, &f); err != nil {
			return v, err
		}
		j.drop(f.ID)
	case kindSetting:
		var s setting
		if err := json.Unmarshal(r.payload, &s); err != nil {
			return v, err
		}
		if j.settings[s.Key] = s.Value; len(s.Value) == 0 {
			delete(j.settings, s.Key)
		}
	default:
		return v, fmt.Errorf("unknown kind or version of record")
	}
	return v, nil
}

// WriteError means that the disk did not take a record: what it stands for was
// not decided, and nothing may be done about it.
type WriteError struct{ Err error }

func (e *WriteError) Error() string { return "write journal: " + e.Err.Error() }
func (e *WriteError) Unwrap() error { return e.Err }

// Fault explains the error to whoever keeps the disk.
func (e *WriteError) Fault() fault.Fault {
	f := fault.Fault{Code: "journal-write", Text: "the state of the job could not be written to disk", Retry: true, Who: fault.Technician,
		Next: "look at the disk that holds the state directory"}
	switch {
	case errors.Is(e.Err, unix.ENOSPC), errors.Is(e.Err, unix.EDQUOT):
		f.Code, f.Text, f.Next = "disk-full", "the disk that holds the state directory is full", "make room on it and try again"
	case errors.Is(e.Err, unix.EROFS):
		f.Code, f.Text, f.Next = "disk-read-only", "the disk that holds the state directory is read-only", "mount it writable and try again"
	}
	return f
}

// put appends one record and makes it durable.
func (j *Journal) put(k kind, v any) error {
	payload, err := json.Marshal(v)
	if err != nil {
		return &WriteError{err}
	}
	if len(payload) > maxPayload {
		return &WriteError{fmt.Errorf("a record of %d bytes is over the limit of %d", len(payload), maxPayload)}
	}
	if j.broken != nil { // a half-written frame may lie at the end: only a new file mends that
		if err := j.Compact(); err != nil {
			return err
		}
	}
	frame := appendFrame(nil, record{k, payload})
	if _, err := j.file.Write(frame); err != nil {
		return j.fail(err)
	}
	if err := j.file.Sync(); err != nil {
		return j.fail(err)
	}
	j.size += len(frame)
	j.written += int64(len(frame))
	j.writes++
	return nil
}

func (j *Journal) fail(err error) error {
	j.broken = err
	return &WriteError{err}
}

// tidy compacts a file that has outgrown its limit. The limit gives way to
// what is alive, so that a journal full of live records is not rewritten at
// every append.
func (j *Journal) tidy() error {
	if j.size <= j.opts.MaxBytes || j.size <= 2*j.live {
		return nil
	}
	return j.Compact()
}

// PutJob makes a job's value durable. When it returns an error the decision
// does not stand and must not be acted on.
func (j *Journal) PutJob(v job.Job) error {
	if err := j.put(kindJob, v); err != nil {
		return err
	}
	j.keep(v)
	if err := j.clean(); err != nil {
		// The decision stands: it is in the file, whatever became of the
		// cleaning up. The next append begins with a new file.
		j.broken = err
	}
	return nil
}

// clean forgets what is beyond the history, and compacts.
func (j *Journal) clean() error {
	for _, id := range j.surplus() {
		if err := j.put(kindForgetJob, forgetJob{id}); err != nil {
			return err
		}
		j.drop(id)
	}
	return j.tidy()
}

// keep takes a job's value over. A new job comes last. What older versions
// kept of an ended job and is secret goes with the next compaction.
func (j *Journal) keep(v job.Job) {
	v = v.WithoutSecrets()
	if _, known := j.jobs[v.ID]; !known {
		j.came++
		j.order[v.ID] = j.came
	}
	j.jobs[v.ID] = v
}

func (j *Journal) drop(id string) {
	delete(j.jobs, id)
	delete(j.order, id)
}

// surplus lists the oldest ended jobs beyond the history that is kept.
func (j *Journal) surplus() []string {
	var ended []job.Job
	for _, v := range j.jobs {
		if v.Ended() {
			ended = append(ended, v)
		}
	}
	if len(ended) <= j.opts.History {
		return nil
	}
	j.sortByAge(ended)
	var ids []string
	for _, v := range ended[:len(ended)-j.opts.History] {
		ids = append(ids, v.ID)
	}
	return ids
}

func (j *Journal) sortByAge(list []job.Job) {
	sort.Slice(list, func(a, b int) bool { return j.order[list[a].ID] < j.order[list[b].ID] })
}

// Jobs returns all jobs, the oldest first.
func (j *Journal) Jobs() []job.Job {
	all := slices.Collect(maps.Values(j.jobs))
	j.sortByAge(all)
	return all
}

// Job returns one job.
func (j *Journal) Job(id string) (job.Job, bool) {
	v, ok := j.jobs[id]
	return v, ok
}

// PutSetting makes a value durable under a key, such as the profile that was
// last proven. When it returns an error the value is what it was.
func (j *Journal) PutSetting(key string, value any) error {
	raw, err := json.Marshal(value)
	if err != nil {
		return &WriteError{err}
	}
	if old, ok := j.settings[key]; ok && string(old) == string(raw) {
		return nil // spare the flash
	}
	if err := j.put(kindSetting, setting{key, raw}); err != nil {
		return err
	}
	j.settings[key] = raw
	if err := j.tidy(); err != nil {
		j.broken = err // as in PutJob: the value stands
	}
	return nil
}

// ForgetSetting removes a value. When it returns an error the value is still
// there.
func (j *Journal) ForgetSetting(key string) error {
	if _, ok := j.settings[key]; !ok {
		return nil
	}
	if err := j.put(kindSetting, setting{Key: key}); err != nil {
		return err
	}
	delete(j.settings, key)
	if err := j.tidy(); err != nil {
		j.broken = err // as in PutJob
	}
	return nil
}

// SettingKeys lists the keys with a prefix, sorted.
func (j *Journal) SettingKeys(prefix string) []string {
	keys := slices.Sorted(maps.Keys(j.settings))
	return slices.DeleteFunc(keys, func(k string) bool { return !strings.HasPrefix(k, prefix) })
}

// Setting reads a value into v. ok is false when there is none.
func (j *Journal) Setting(key string, v any) (ok bool, err error) {
	raw, ok := j.settings[key]
	if !ok {
		return false, nil
	}
	if err := json.Unmarshal(raw, v); err != nil {
		return true, fmt.Errorf("setting %s: %w", key, err)
	}
	return true, nil
}

// image is the file with the live records only.
func (j *Journal) image() ([]byte, error) {
	b := fileHeader()
	for _, v := range j.Jobs() {
		payload, err := json.Marshal(v)
		if err != nil {
			return nil, &WriteError{err}
		}
		b = appendFrame(b, record{kindJob, payload})
	}
	for _, k := range slices.Sorted(maps.Keys(j.settings)) {
		payload, err := json.Marshal(setting{k, j.settings[k]})
		if err != nil {
			return nil, &WriteError{err}
		}
		b = appendFrame(b, record{kindSetting, payload})
	}
	return b, nil
}

// Compact rewrites the file with the live records only.
func (j *Journal) Compact() error {
	b, err := j.image()
	if err != nil {
		return err
	}
	if j.aside {
		to, err := setAside(j.path)
		if err != nil {
			return j.fail(fmt.Errorf("set the damaged journal aside: %w", err))
		}
		j.damage, j.aside = fmt.Sprintf("%s; the file is kept as %s", j.damage, to), false
	}
	if err := replace(j.path, b); err != nil {
		return j.fail(err)
	}
	j.written += int64(len(b))
	j.writes++
	if j.file != nil {
		_ = j.file.Close() // of the old file, which nobody will read again
		j.file = nil
	}
	j.size, j.live, j.broken = len(b), len(b), nil
	if err := j.openForAppend(); err != nil {
		return j.fail(err)
	}
	return nil
}

// Broken says why the last write failed; nil when the disk takes what is
// written. It is a [*WriteError].
func (j *Journal) Broken() error {
	if j.broken == nil {
		return nil
	}
	var w *WriteError
	if errors.As(j.broken, &w) {
		return w
	}
	return &WriteError{j.broken}
}

// Mend makes a journal whole whose last write failed, if the disk lets it. It
// does nothing to one that is whole.
func (j *Journal) Mend() error {
	if j.broken == nil {
		return nil
	}
	return j.Compact()
}

// Torn is how many bytes of an unfinished write were cut off at Open.
func (j *Journal) Torn() int { return j.torn }

// Damage says what durable content was found damaged at Open; empty if none.
func (j *Journal) Damage() string { return j.damage }

// Size is the length of the file in bytes.
func (j *Journal) Size() int { return j.size }

// Written is how many bytes were written since Open, for the account of flash
// wear.
func (j *Journal) Written() int64 { return j.written }

// Writes is how many times something was written and synced since Open.
func (j *Journal) Writes() int64 { return j.writes }

// Close releases the file. Nothing is lost by not calling it.
func (j *Journal) Close() error {
	err := j.lock.Close()
	if j.file != nil {
		err = errors.Join(j.file.Close(), err)
	}
	return err
}

// ReportKey is the key of the setting that holds the report of a job, for as
// long as the report waits. It may outlive the job.
func ReportKey(id string) string { return "report/" + id }

// NewID makes the id of a job: the time it was made in UTC and, when that is
// taken, a number. An id whose report still waits is taken: a clock that begins
// anew at every start makes the same ones again.
func (j *Journal) NewID(now time.Time) string {
	base := now.UTC().Format("20060102-150405") + j.opts.IDSuffix
	id := base
	for n := 2; ; n++ {
		_, known := j.jobs[id]
		_, reported := j.settings[ReportKey(id)]
		if !known && !reported {
			return id
		}
		id = fmt.Sprintf("%s-%d", base, n)
	}
}
