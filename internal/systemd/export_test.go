package systemd

import "log/slog"

// Entry is what a record would be in the journal: its message, and its fields.
func Entry(r slog.Record, with func(slog.Handler) slog.Handler) (string, map[string]string) {
	h := with(&handler{level: slog.LevelInfo}).(*handler)
	e := h.entry(r)
	return e.text.String(), e.fields
}

// Priority is the level of a record in the words of syslog.
func Priority(l slog.Level) int { return int(priority(l)) }
