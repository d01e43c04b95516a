package modemtest

import (
	"context"
	"fmt"
	"os"
	"strings"
	"sync"
	"time"
)

// Kind tells what a line of the log is.
type Kind string

// The kinds of lines.
const (
	Sent     Kind = ">" // a command line, to the modem
	Answered Kind = "<" // an answer of the modem, its lines joined by " | "
	URC      Kind = "!" // unsolicited, from the modem
	Happened Kind = "#" // inside the modem: SIM, network, card
)

// Entry is one line of the log.
type Entry struct {
	Time time.Time
	Port string // "" for what happened inside
	Kind Kind
	Text string
}

// String is the line as it stands in the log file.
func (e Entry) String() string {
	port := e.Port
	if port == "" {
		port = "-"
	}
	return fmt.Sprintf("%s %s %s %s", e.Time.Format("15:04:05.000000"), port, e.Kind, e.Text)
}

// maxLogEntries bounds the memory of a modem that runs for days in a lab; the
// file, when there is one, goes on.
const maxLogEntries = 200_000

// Log records what a modem heard and said, in order.
type Log struct {
	mu      sync.Mutex
	entries []Entry
	changed chan struct{}
	file    *os.File
}

func newLog(path string) (*Log, error) {
	l := &Log{changed: make(chan struct{})}
	if path == "" {
		return l, nil
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return nil, fmt.Errorf("log of the modem: %w", err)
	}
	l.file = f
	return l, nil
}

func (l *Log) close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	f := l.file
	l.file = nil
	if f == nil {
		return nil
	}
	return f.Close()
}

func (l *Log) add(port string, kind Kind, text string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	e := Entry{Time: time.Now(), Port: port, Kind: kind, Text: text}
	if len(l.entries) < maxLogEntries {
		l.entries = append(l.entries, e)
	}
	if l.file != nil {
		// A full disk must not stop the modem; the log in memory is the one that is asserted on.
		fmt.Fprintln(l.file, e)
	}
	close(l.changed)
	l.changed = make(chan struct{})
}

// Note adds a line of the caller's own, so that what a test or a server saw
// stands in order with what the modem did.
func (l *Log) Note(text string) { l.add("", Happened, text) }

// Entries returns a copy of the log.
func (l *Log) Entries() []Entry {
	l.mu.Lock()
	defer l.mu.Unlock()
	return append([]Entry(nil), l.entries...)
}

// Since returns a copy of the log from a mark on.
func (l *Log) Since(mark int) []Entry {
	l.mu.Lock()
	defer l.mu.Unlock()
	return append([]Entry(nil), l.entries[min(max(mark, 0), len(l.entries)):]...)
}

// Len is the number of lines so far: a mark to search from.
func (l *Log) Len() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.entries)
}

// Index returns the position of the first line at or after from which contains
// text ("kind text", as in "> AT+CFUN=0" or "! +CEREG: 1"), or -1.
func (l *Log) Index(from int, text string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.indexLocked(from, text)
}

func (l *Log) indexLocked(from int, text string) int {
	for i := max(from, 0); i < len(l.entries); i++ {
		if e := l.entries[i]; strings.Contains(string(e.Kind)+" "+e.Text, text) {
			return i
		}
	}
	return -1
}

// InOrder checks that each text is found, by the rule of [Log.Index], at or
// after from and after the line of the one before it. The error names the
// first that is missing or too early.
func (l *Log) InOrder(from int, texts ...string) error {
	at := from
	for i, t := range texts {
		n := l.Index(at, t)
		if n >= 0 {
			at = n + 1
			continue
		}
		if early := l.Index(from, t); early >= 0 {
			return fmt.Errorf("%q stands at line %d, before %q", t, early, texts[i-1])
		}
		return fmt.Errorf("%q is not in the log from line %d on", t, from)
	}
	return nil
}

// WaitFor returns the position of the first line that [Log.Index] would find,
// waiting for it until ctx ends.
func (l *Log) WaitFor(ctx context.Context, from int, text string) (int, error) {
	for {
		l.mu.Lock()
		i, changed := l.indexLocked(from, text), l.changed
		l.mu.Unlock()
		if i >= 0 {
			return i, nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return -1, fmt.Errorf("wait for %q in the log of the modem: %w", text, ctx.Err())
		}
	}
}

// String is the whole log as text, for the message of a failed test.
func (l *Log) String() string {
	var b strings.Builder
	for _, e := range l.Entries() {
		b.WriteString(e.String())
		b.WriteByte('\n')
	}
	return b.String()
}
