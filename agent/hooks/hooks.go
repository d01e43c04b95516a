// Package hooks runs the programs by which the maker of a device follows the
// profile: logos, server addresses, MQTT endpoints and the like.
//
//	d := hooks.Dir{Path: "/etc/lpad/hooks.d", File: "/run/lpad/parameters.json", Log: log}
//	runs := d.Run(ctx, hooks.Applied, hooks.About{ICCID: iccid, Parameters: parameters})
//
// For each [Event] there is a folder, such as applied.d; its programs run one
// after the other, in the order of their names, with the environment that
// docs/operations.md describes. A program that fails, hangs or must not be run
// is told in the result and stops nothing: no hook decides on a switch.
//
// A program must belong to root or to lpad's user and be writable by nobody
// else, and so must its folder. It is killed when its time is up, with all that
// it has started in its process group; see [program.Program].
package hooks

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"lpad/agent/job"
	"lpad/internal/program"
)

// Event is what has happened.
type Event string

// The events.
const (
	Staged     Event = "staged"      // the profile is on the card, and its parameters wait for it to be enabled
	Activated  Event = "activated"   // the eUICC has confirmed that the profile is enabled; nothing is proven yet
	Applied    Event = "applied"     // the device is online with the profile and its parameters
	RolledBack Event = "rolled-back" // the previous profile and its settings are back
)

// Events lists them in the order in which a job comes to them.
func Events() []Event { return []Event{Staged, Activated, Applied, RolledBack} }

// Folder is the name of the folder with the programs of an event.
func (e Event) Folder() string { return string(e) + ".d" }

// Bounds.
const (
	defaultTimeout = 30 * time.Second
	hanging        = 4  // programs that hang, and no more, use up the time of an event
	maxHooks       = 16 // that are run for an event
	maxProblem     = 160
	maxVariable    = 1 << 10 // bytes of a variable that holds a parameter
)

// searchPath is PATH for hooks: lpad's own may be anything.
const searchPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// Dir is a folder with hooks. The zero Dir has none.
type Dir struct {
	Path    string        // the folders of the events are in it; empty: there are no hooks
	Timeout time.Duration // after which a program is killed; all of an event may take four times as long. 0: 30 s
	File    string        // where a program finds the parameters while it runs; empty: nowhere
	Log     *slog.Logger  // nil: discards
}

// Limit is how long the programs of an event may take altogether.
func (d Dir) Limit() time.Duration { return hanging * d.timeout() }

func (d Dir) timeout() time.Duration {
	if d.Timeout <= 0 {
		return defaultTimeout
	}
	return d.Timeout
}

// About is what programs are told of.
type About struct {
	Card       string // name of the card
	EID        string
	ICCID      string
	Provider   string // of the profile, as its metadata name it
	Previous   string // ICCID enabled before; empty: none
	Job        string
	APN        string
	Source     string // of the access point
	Interface  string // that is online
	Fault      string // code of what went wrong
	Parameters []job.Parameter
}

// Run runs the programs of an event to their end and says what became of each,
// nothing when there are none. When ctx ends, the one that runs is killed and no
// other is begun: what is returned then is not all.
func (d Dir) Run(ctx context.Context, event Event, about About) []job.HookRun {
	if d.Path == "" {
		return nil
	}
	if d.Log == nil {
		d.Log = slog.New(slog.DiscardHandler)
	}
	var runs []job.HookRun
	tell := func(name string, took time.Duration, problem string) {
		runs = append(runs, job.HookRun{Event: string(event), Name: name, Millis: took.Milliseconds(), Problem: short(problem)})
		level := slog.LevelInfo
		if problem != "" {
			level = slog.LevelWarn
		}
		d.Log.Log(ctx, level, "hook", "job", about.Job, "event", string(event), "name", name, "took", took.Round(time.Millisecond), "problem", problem)
	}
	programs, err := d.programs(event, tell)
	if err != nil {
		tell(event.Folder(), 0, err.Error())
	}
	if len(programs) == 0 {
		return runs
	}
	env := about.environment(event)
	if d.File != "" {
		if err := d.write(event, about); err != nil {
			tell(event.Folder(), 0, "the file of the parameters: "+err.Error())
		} else {
			env = append(env, "LPAD_PARAMETERS="+d.File)
			defer os.Remove(d.File)
		}
	}
	all, cancel := context.WithTimeout(ctx, d.Limit())
	defer cancel()
	for _, name := range programs {
		if ctx.Err() != nil {
			return runs
		}
		if all.Err() != nil {
			tell(name, 0, "not run: those before it have used up the time")
			continue
		}
		begin := time.Now()
		said, err := program.Program{Path: filepath.Join(d.Path, event.Folder(), name), Env: env, Dir: "/", Timeout: d.timeout(), Alone: true}.Run(all)
		if ctx.Err() != nil {
			return runs
		}
		for i, line := range said {
			if i < program.MaxLines {
				d.Log.Info("hook says", "job", about.Job, "event", string(event), "name", name, "line", line)
			}
		}
		tell(name, time.Since(begin), problem(err, said))
	}
	return runs
}

// problem says in a line why a program failed, with its own last word.
func problem(err error, said []string) string {
	if err == nil {
		return ""
	}
	text := err.Error()
	if errors.Is(err, context.DeadlineExceeded) {
		text = "killed: " + text
	}
	if len(said) > 0 {
		text += ": " + said[len(said)-1]
	}
	return text
}

func short(s string) string {
	if len(s) > maxProblem {
		s = strings.ToValidUTF8(s[:maxProblem], "") + "…"
	}
	return s
}

// programs lists what is to be run for an event. A folder that is missing has
// nothing; one that others may write into is an error, and so is more than is
// run. tell is told of programs that must not be run.
func (d Dir) programs(event Event, tell func(string, time.Duration, string)) ([]string, error) {
	folder := filepath.Join(d.Path, event.Folder())
	for _, dir := range []string{d.Path, folder} {
		info, err := os.Stat(dir)
		if errors.Is(err, fs.ErrNotExist) {
			return nil, nil
		}
		if err == nil && !info.IsDir() {
			err = errors.New("is no folder")
		}
		if err == nil {
			err = safe(info)
		}
		if err != nil {
			return nil, fmt.Errorf("not run: %s: %w", dir, err)
		}
	}
	entries, err := os.ReadDir(folder) // in the order of the names
	if err != nil {
		return nil, err
	}
	var list []string
	for _, e := range entries {
		name := e.Name()
		if leftover(name) {
			continue
		}
		info, err := os.Stat(filepath.Join(folder, name)) // of what a link leads to
		switch {
		case err != nil:
			tell(name, 0, "not run: "+err.Error())
			continue
		case info.IsDir():
			continue
		case !info.Mode().IsRegular(), info.Mode()&0o111 == 0: // a README
			d.Log.Info("no program, not run", "event", string(event), "name", name)
			continue
		}
		if err := safe(info); err != nil {
			tell(name, 0, "not run: "+err.Error())
			continue
		}
		list = append(list, name)
	}
	if over := len(list) - maxHooks; over > 0 {
		return list[:maxHooks], fmt.Errorf("%d programs are too many: the last %d were not run", len(list), over)
	}
	return list, nil
}

// leftover reports whether a name is that of something hidden, of an editor's
// copy or of a file that a package manager has set aside.
func leftover(name string) bool {
	return strings.HasPrefix(name, ".") || strings.HasSuffix(name, "~") || strings.HasSuffix(name, ".bak") || strings.HasSuffix(name, ".swp") ||
		strings.Contains(name, ".dpkg-") || strings.Contains(name, ".ucf-") || strings.Contains(name, ".rpm")
}

// safe refuses what somebody else could have written.
func safe(info fs.FileInfo) error {
	const others = 0o022
	if info.Mode().Perm()&others != 0 {
		return errors.New("others may write it")
	}
	if s, ok := info.Sys().(*syscall.Stat_t); ok && s.Uid != 0 && int(s.Uid) != os.Geteuid() {
		return fmt.Errorf("it belongs to user %d, neither root nor lpad's", s.Uid)
	}
	return nil
}

// write makes the file of the parameters, which lpad's user alone may read.
func (d Dir) write(event Event, about About) error {
	text, err := json.Marshal(struct {
		Version    int             `json:"version"`
		Event      Event           `json:"event"`
		ICCID      string          `json:"iccid"`
		Parameters []job.Parameter `json:"parameters"`
	}{1, event, about.ICCID, append([]job.Parameter{}, about.Parameters...)})
	if err != nil {
		return err
	}
	if err := os.Remove(d.File); err != nil && !errors.Is(err, fs.ErrNotExist) { // of a run that was killed
		return err
	}
	f, err := os.OpenFile(d.File, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(append(text, '\n'))
	return errors.Join(err, f.Close())
}

// environment is what a program is told, and nothing of lpad's own.
func (a About) environment(event Event) []string {
	env := []string{"PATH=" + searchPath, "LPAD_EVENT=" + string(event)}
	for _, v := range [][2]string{{"CARD", a.Card}, {"EID", a.EID}, {"ICCID", a.ICCID}, {"PROVIDER", a.Provider}, {"PREVIOUS_ICCID", a.Previous}, {"JOB", a.Job},
		{"APN", a.APN}, {"SOURCE", a.Source}, {"INTERFACE", a.Interface}, {"FAULT", a.Fault}} {
		env = append(env, "LPAD_"+v[0]+"="+plain(v[1]))
	}
	for _, p := range a.Parameters {
		if v, ok := variable(p.Value); ok {
			env = append(env, "LPAD_P_"+variableName(p.Leaf)+"="+plain(v))
		}
	}
	return env
}

// variable is a parameter in a shell's words: texts, numbers and truths as they
// are, lists of them with blanks between. Others are in the file alone.
func variable(value json.RawMessage) (string, bool) {
	var v any
	if len(value) == 0 || len(value) > maxVariable || json.Unmarshal(value, &v) != nil {
		return "", false
	}
	list, ok := v.([]any)
	if !ok {
		list = []any{v}
	}
	var words []string
	for _, one := range list {
		switch one := one.(type) {
		case string:
			words = append(words, one)
		case float64, bool:
			text, err := json.Marshal(one)
			if err != nil {
				return "", false
			}
			words = append(words, string(text))
		default:
			return "", false
		}
	}
	return strings.Join(words, " "), true
}

// variableName makes "radio.lteBands" RADIO_LTEBANDS.
func variableName(leaf string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r >= 'a' && r <= 'z':
			return r - 'a' + 'A'
		case r >= 'A' && r <= 'Z', r >= '0' && r <= '9':
			return r
		}
		return '_'
	}, leaf)
}

// plain takes control characters out of a value: it may come from outside, and
// scripts write it into files.
func plain(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7F {
			return -1
		}
		return r
	}, s)
}
