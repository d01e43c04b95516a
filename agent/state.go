package agent

import (
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"sync"

	"lpad/agent/runner"
)

// stateFile is a file beside the socket that holds the state in one word, for
// watchdogs and scripts that cannot speak to a socket: whoever reads it sees a
// whole word, the old one or the new one. It is there while the daemon runs,
// and after a kill until the next start.
//
// Of several cards it holds what matters most of all: that one is busy, else
// that one is missing, and so on.
type stateFile struct {
	path string
	log  *slog.Logger

	mu    sync.Mutex
	cards map[string]runner.State
	wrong bool // the last write failed
}

// urgency is the order in which states of several cards count.
var urgency = []runner.State{runner.Busy, runner.CardMissing, runner.Starting, runner.NeedsProvisioning, runner.Ready}

// foremost is the state that counts of several.
func foremost(states map[string]runner.State) runner.State {
	for _, s := range urgency {
		for _, of := range states {
			if of == s {
				return s
			}
		}
	}
	return runner.Starting
}

func newStateFile(socket string, log *slog.Logger) *stateFile {
	return &stateFile{path: filepath.Join(filepath.Dir(socket), "state"), log: log, cards: map[string]runner.State{}}
}

// write replaces the word when the state of a card has become another.
func (f *stateFile) write(card string, s runner.State) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.cards[card] = s
	next := f.path + ".new"
	err := os.WriteFile(next, []byte(foremost(f.cards)+"\n"), 0o644)
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
