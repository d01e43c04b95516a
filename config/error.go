package config

import (
	"cmp"
	"errors"
	"sort"
	"strings"

	"lpad/internal/fault"
)

// ErrAbsent is matched (errors.Is) by the error of [Load] when the main file
// does not exist and nothing else is wrong. The configuration that comes with
// it is usable.
var ErrAbsent = errors.New("no configuration file")

// Problem is one fault in the configuration.
type Problem struct {
	Key    string // "card.baud"; empty when the fault is of a whole file
	Origin string // the file or environment variable; empty when unknown
	Text   string
}

// String is "ORIGIN: KEY: TEXT".
func (p Problem) String() string {
	var parts []string
	for _, s := range []string{p.Origin, p.Key, p.Text} {
		if s != "" {
			parts = append(parts, s)
		}
	}
	return strings.Join(parts, ": ")
}

// Error is every fault of a configuration at once. It is a fault.Explainer.
type Error struct{ Problems []Problem }

// Error implements error, one fault a line.
func (e *Error) Error() string {
	lines := []string{"configuration is not valid"}
	for _, p := range e.Problems {
		lines = append(lines, p.String())
	}
	return strings.Join(lines, "\n  ")
}

// Fault implements fault.Explainer.
func (e *Error) Fault() fault.Fault {
	lines := make([]string, len(e.Problems))
	for i, p := range e.Problems {
		lines[i] = p.String()
	}
	return fault.Fault{Code: "config-invalid", Text: "the configuration is not valid: " + strings.Join(lines, "; "),
		Who: fault.Configuration, Next: "mend the keys that are named and start again"}
}

// problems collects faults.
type problems []Problem

func (p *problems) add(key, origin, text string) { *p = append(*p, Problem{key, origin, text}) }

// err is nil when there are none.
func (p problems) err() error {
	if len(p) == 0 {
		return nil
	}
	sort.SliceStable(p, func(i, j int) bool {
		return cmp.Or(cmp.Compare(p[i].Origin, p[j].Origin), cmp.Compare(p[i].Key, p[j].Key)) < 0
	})
	return &Error{p}
}
