package atcard

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
)

// Memory knows which channels of ours may be open. It outlives a Card: the line
// that hung up, and with a file the program that was killed. Channels that the
// memory knows and the card does not use are closed before the next one is
// opened.
//
// The file is written at every opening and closing and not synced: it belongs
// into a folder like /run, off the flash. It is for a program that dies; when
// the whole device loses its power the modem usually does too.
type Memory struct {
	path string // empty: no file

	mu     sync.Mutex
	loaded bool
	open   []string // ids of channels that may be open
	last   string   // the last one that was opened: the one that a modem is likely to give next
}

// NewMemory makes a memory with a file, which is read when it is first needed;
// "" means none.
func NewMemory(path string) *Memory { return &Memory{path: path} }

const (
	maxMemory = 20      // channels: more than any card has
	lastMark  = "last=" // in the file, before the last one that was opened
)

// load reads the file. What cannot be understood is not there.
func (m *Memory) load() {
	if m.loaded || m.path == "" {
		return
	}
	m.loaded = true
	b, err := os.ReadFile(m.path)
	if err != nil {
		return // none, or one that cannot be read: a channel too many is no reason not to work
	}
	for _, id := range strings.Fields(string(b)) {
		if last, ok := strings.CutPrefix(id, lastMark); ok && validID(last) {
			m.last = last
		}
		if validID(id) && len(m.open) < maxMemory && !slices.Contains(m.open, id) {
			m.open = append(m.open, id)
		}
	}
}

// left are the channels that may be open.
func (m *Memory) left() []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.load()
	return slices.Clone(m.open)
}

// opening is said before a channel is opened: if the answer is lost, the modem
// has probably given the number that it gave the last time. It returns that.
func (m *Memory) opening(kind func(string) bool) (guess string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.load()
	if m.last == "" || !kind(m.last) || slices.Contains(m.open, m.last) {
		return ""
	}
	m.add(m.last)
	return m.last
}

// opened is said when the modem has given a channel.
func (m *Memory) opened(id, guess string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.load()
	if guess != "" && guess != id {
		m.remove(guess)
	}
	m.last = id
	m.add(id)
}

// closed is said when a channel is certainly not open.
func (m *Memory) closed(id string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.load()
	m.remove(id)
}

func (m *Memory) add(id string) {
	if len(m.open) < maxMemory && !slices.Contains(m.open, id) {
		m.open = append(m.open, id)
		m.save()
	}
}

func (m *Memory) remove(id string) {
	if i := slices.Index(m.open, id); i >= 0 {
		m.open = slices.Delete(m.open, i, i+1)
		m.save()
	}
}

// save writes the file. A disk that does not take it is seen by those who need
// one: without the file, a channel may stay open when the program is killed.
func (m *Memory) save() {
	if m.path == "" {
		return
	}
	words := slices.Clone(m.open)
	if m.last != "" {
		words = append(words, lastMark+m.last)
	}
	const ownerOnly = 0o600
	if err := os.WriteFile(m.path, []byte(strings.Join(words, "\n")), ownerOnly); err != nil && !errors.Is(err, os.ErrNotExist) {
		m.path = "" // it would be wrong from now on
	}
}

// validID refuses what is no Channel.ID of this package.
func validID(id string) bool {
	if handle, ok := strings.CutPrefix(id, sessionID); ok {
		return validHandle(handle)
	}
	var n int
	_, err := fmt.Sscanf(id, "%d", &n)
	return err == nil && fmt.Sprint(n) == id && n >= 1 && n <= maxChannel
}

func isSession(id string) bool { return strings.HasPrefix(id, sessionID) }

func isChannel(id string) bool { return !isSession(id) }
