package systemd

import (
	"context"
	"log/slog"
	"strings"

	"github.com/coreos/go-systemd/v22/journal"
)

// Journal is a log handler that writes to systemd's journal, if that is where
// standard error leads; else nil. The message is the line as it is in a text log,
// so that nothing is lost to who reads it with journalctl; each attribute is a
// field too, LPAD_JOB for "job", to be searched for:
//
//	journalctl -u lpad LPAD_JOB=20260301-101500 -o verbose
func Journal(level slog.Leveler) slog.Handler {
	if ours, err := journal.StderrIsJournalStream(); err != nil || !ours || !journal.Enabled() {
		return nil
	}
	return &handler{level: level}
}

// fieldPrefix begins the names of fields; those without one belong to systemd.
const fieldPrefix = "LPAD_"

// maxField bounds the name of a field; journald refuses more than 64 bytes.
const maxField = 64

// handler is a slog.Handler that sends each record to journald.
type handler struct {
	level  slog.Leveler
	attrs  []slog.Attr // of With, with the names of their groups
	prefix string      // of groups: "apn."
}

// Enabled reports whether a level is logged.
func (h *handler) Enabled(_ context.Context, l slog.Level) bool { return l >= h.level.Level() }

// WithAttrs is the handler with more attributes.
func (h *handler) WithAttrs(attrs []slog.Attr) slog.Handler {
	next := *h
	next.attrs = append([]slog.Attr{}, h.attrs...)
	for _, a := range attrs {
		next.attrs = append(next.attrs, slog.Attr{Key: h.prefix + a.Key, Value: a.Value})
	}
	return &next
}

// WithGroup is the handler with a name before those of further attributes.
func (h *handler) WithGroup(name string) slog.Handler {
	if name == "" {
		return h
	}
	next := *h
	next.prefix += name + "."
	return &next
}

// Handle sends a record.
func (h *handler) Handle(_ context.Context, r slog.Record) error {
	e := h.entry(r)
	return journal.Send(e.text.String(), priority(r.Level), e.fields)
}

func (h *handler) entry(r slog.Record) *entry {
	e := &entry{fields: map[string]string{"SYSLOG_IDENTIFIER": "lpad"}}
	e.text.WriteString(r.Message)
	for _, a := range h.attrs {
		e.add("", a)
	}
	r.Attrs(func(a slog.Attr) bool { e.add(h.prefix, a); return true })
	return e
}

// priority is the level in the words of syslog.
func priority(l slog.Level) journal.Priority {
	switch {
	case l >= slog.LevelError:
		return journal.PriErr
	case l >= slog.LevelWarn:
		return journal.PriWarning
	case l >= slog.LevelInfo:
		return journal.PriInfo
	}
	return journal.PriDebug
}

// entry is a record on its way.
type entry struct {
	text   strings.Builder
	fields map[string]string
}

func (e *entry) add(prefix string, a slog.Attr) {
	v := a.Value.Resolve() // redaction is done here
	if v.Kind() == slog.KindGroup {
		if a.Key != "" {
			prefix += a.Key + "."
		}
		for _, member := range v.Group() {
			e.add(prefix, member)
		}
		return
	}
	if a.Key == "" {
		return
	}
	text := v.String()
	e.text.WriteByte(' ')
	e.text.WriteString(prefix + a.Key)
	e.text.WriteByte('=')
	e.text.WriteString(quoted(text))
	e.fields[field(prefix+a.Key)] = text
}

// quoted is a value as the text log has it: in quotes if it would not be one word.
func quoted(s string) string {
	if s != "" && !strings.ContainsAny(s, " \t\n\r\"=") {
		return s
	}
	return "\"" + strings.NewReplacer("\\", "\\\\", "\"", "\\\"", "\n", "\\n", "\r", "\\r", "\t", "\\t").Replace(s) + "\""
}

// field is the name of an attribute as journald allows it: A-Z, 0-9 and _.
func field(name string) string {
	b := []byte(fieldPrefix + name)
	for i, c := range b {
		switch {
		case c >= 'a' && c <= 'z':
			b[i] = c - 'a' + 'A'
		case c >= 'A' && c <= 'Z', c >= '0' && c <= '9':
		default:
			b[i] = '_'
		}
	}
	return string(b[:min(len(b), maxField)])
}
