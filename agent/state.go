package agent

import (
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"

	"lpad/agent/runner"
)

// stateFile is a file beside the socket that holds the state in one word, for
// watchdogs and scripts that cannot speak to a socket: whoever reads it sees a
// whole word, the old one or the new one. It is there while the daemon runs,
// and after a kill until the next start.
type stateFile struct {
	path  string
	log   *slog.Logger
	wrong bool // the last write failed
}

func newStateFile(socket string, log *slog.Logger) *stateFile {
	return &stateFile{path: filepath.Join(filepath.Dir(socket), "state"), log: log}
}

// write replaces the word. Its callers take turns.
func (f *stateFile) write(s runner.State) {
	next := f.path + ".new"
	err := os.WriteFile(next, []byte(s+"\n"), 0o644)
	if err == nil {
		err = os.Rename(next, f.path)
	}
	if err != nil && !f.wrong {
		f.log.Warn("the state cannot be written beside the socket", "err", err)
	}
	f.wrong = err != nil
}

// remove takes the file away: nobody answers for it any more.
func (f *stateFile) remove() {
	if err := os.Remove(f.path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		f.log.Warn("the state beside the socket is not removed", "err", err)
	}
}
