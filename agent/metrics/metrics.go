// Package metrics writes figures as OpenMetrics text (version 1.0.0, as
// Prometheus and its relatives read it).
//
//	var w metrics.Writer
//	w.Family("lpad_uptime_seconds", metrics.Gauge, "seconds", "since the start")
//	w.Sample(12.5)
//	w.Family("lpad_jobs_ended", metrics.Counter, "", "jobs that have ended")
//	w.Sample(3, "card", "main", "outcome", "done")
//	text := w.Text()
//
// The names of samples follow from the type: a counter's ends in _total, an
// info's in _info. Whoever calls gives each family once, with all its samples,
// and names its labels as the format wants them; the test beside reads the
// result strictly.
package metrics

import (
	"math"
	"strconv"
	"strings"
)

// ContentType is the media type of [Writer.Text].
const ContentType = "application/openmetrics-text; version=1.0.0; charset=utf-8"

// Type is what kind of figures a family has.
type Type string

// The types that are used here.
const (
	Gauge         Type = "gauge"
	Counter       Type = "counter"  // only grows, from 0 at the start of the process
	Info          Type = "info"     // labels alone; the value is 1
	StateSet      Type = "stateset" // one sample for each state, of which one is 1; the label has the family's name
	HistogramType Type = "histogram"
)

// suffix is what the name of a sample ends in.
func (t Type) suffix() string {
	switch t {
	case Counter:
		return "_total"
	case Info:
		return "_info"
	}
	return ""
}

// Writer puts a text together.
type Writer struct {
	b    strings.Builder
	name string
	kind Type
}

// Family begins a family. unit is the last word of the name, or empty.
func (w *Writer) Family(name string, t Type, unit, help string) {
	w.name, w.kind = name, t
	w.b.WriteString("# TYPE " + name + " " + string(t) + "\n")
	if unit != "" {
		w.b.WriteString("# UNIT " + name + " " + unit + "\n")
	}
	w.b.WriteString("# HELP " + name + " " + escape(help) + "\n")
}

// Sample writes one figure of the family. labels are names and values in turn.
func (w *Writer) Sample(value float64, labels ...string) {
	w.line(w.kind.suffix(), value, labels)
}

// State writes the samples of a state set.
func (w *Writer) State(now string, states []string, labels ...string) {
	for _, s := range states {
		value := 0.0
		if s == now {
			value = 1
		}
		w.Sample(value, append(labels[:len(labels):len(labels)], w.name, s)...)
	}
}

// Histogram writes the samples of a histogram.
func (w *Writer) Histogram(h *Histogram, labels ...string) {
	sum := int64(0)
	for i, n := range h.counts {
		sum += n
		le := math.Inf(1)
		if i < len(h.bounds) {
			le = h.bounds[i]
		}
		w.line("_bucket", float64(sum), append(labels[:len(labels):len(labels)], "le", number(le, true)))
	}
	w.line("_count", float64(sum), labels)
	w.line("_sum", h.sum, labels)
}

func (w *Writer) line(suffix string, value float64, labels []string) {
	w.b.WriteString(w.name + suffix)
	for i := 0; i+1 < len(labels); i += 2 {
		between := ","
		if i == 0 {
			between = "{"
		}
		w.b.WriteString(between + labels[i] + `="` + escape(labels[i+1]) + `"`)
	}
	if len(labels) > 1 {
		w.b.WriteByte('}')
	}
	w.b.WriteString(" " + number(value, false) + "\n")
}

// Text is all of it, with its end. Nothing can be added any more.
func (w *Writer) Text() string {
	w.b.WriteString("# EOF\n")
	return w.b.String()
}

func escape(s string) string {
	s = strings.ToValidUTF8(s, "?")
	if !strings.ContainsAny(s, "\\\n\"") { // as nearly always: making a replacer costs more than all the rest
		return s
	}
	return strings.NewReplacer(`\`, `\\`, "\n", `\n`, `"`, `\"`).Replace(s)
}

// number writes a figure; the bound of a bucket always looks like a fraction.
func number(v float64, bound bool) string {
	if math.IsInf(v, 1) {
		return "+Inf"
	}
	text := strconv.FormatFloat(v, 'f', -1, 64)
	if bound && !strings.Contains(text, ".") {
		text += ".0"
	}
	return text
}

// Histogram counts durations, or whatever else, by how large they are. It is
// for one goroutine at a time.
type Histogram struct {
	bounds []float64
	counts []int64 // one more than bounds
	sum    float64
}

// NewHistogram makes one with bounds in growing order.
func NewHistogram(bounds ...float64) *Histogram {
	return &Histogram{bounds: bounds, counts: make([]int64, len(bounds)+1)}
}

// Observe counts one value.
func (h *Histogram) Observe(v float64) {
	i := 0
	for i < len(h.bounds) && v > h.bounds[i] {
		i++
	}
	h.counts[i]++
	h.sum += v
}
