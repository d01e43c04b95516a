// Package metricstest reads OpenMetrics text as strictly as the specification
// (version 1.0.0) is written, for tests of what writes it. It shares no code with
// package metrics.
//
//	families, err := metricstest.Parse(text)
//	families["lpad_uptime_seconds"].Samples[0].Value
package metricstest

import (
	"errors"
	"fmt"
	"maps"
	"math"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// Family is a family of samples.
type Family struct {
	Name, Type, Unit, Help string
	Samples                []Sample
}

// Sample is one line.
type Sample struct {
	Suffix string // of the name, behind that of the family
	Labels map[string]string
	Value  float64
}

// suffixes are those that a type's samples may have; the first must be there.
var suffixes = map[string][]string{
	"gauge": {""}, "counter": {"_total", "_created"}, "info": {"_info"}, "stateset": {""}, "unknown": {""},
	"histogram": {"_bucket", "_count", "_sum", "_created"},
}

var (
	metricName = regexp.MustCompile(`^[a-zA-Z_:][a-zA-Z0-9_:]*$`)
	labelName  = regexp.MustCompile(`^[a-zA-Z_][a-zA-Z0-9_]*$`)
	figure     = regexp.MustCompile(`^[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?$`)
)

// Parse reads a text.
func Parse(text string) (map[string]*Family, error) {
	body, ended := strings.CutSuffix(text, "# EOF\n")
	if !ended || body != "" && !strings.HasSuffix(body, "\n") {
		return nil, errors.New("does not end with # EOF on a line of its own")
	}
	all := map[string]*Family{}
	var f *Family
	lines := strings.Split(body, "\n")
	for i, line := range lines[:len(lines)-1] {
		wrong := func(format string, a ...any) error {
			return fmt.Errorf("line %d, %q: %s", i+1, line, fmt.Sprintf(format, a...))
		}
		if rest, is := strings.CutPrefix(line, "# "); is {
			word, rest, _ := strings.Cut(rest, " ")
			name, value, _ := strings.Cut(rest, " ")
			if !metricName.MatchString(name) {
				return nil, wrong("not a name")
			}
			if f == nil || f.Name != name {
				if all[name] != nil {
					return nil, wrong("the family was begun before")
				}
				f = &Family{Name: name}
				all[name] = f
			}
			if len(f.Samples) > 0 {
				return nil, wrong("behind samples")
			}
			field := map[string]*string{"TYPE": &f.Type, "UNIT": &f.Unit, "HELP": &f.Help}[word]
			switch {
			case field == nil:
				return nil, wrong("is neither TYPE, UNIT nor HELP")
			case *field != "" || value == "":
				return nil, wrong("twice, or empty")
			case word == "TYPE" && suffixes[value] == nil:
				return nil, wrong("no such type")
			case word == "UNIT" && !strings.HasSuffix(name, "_"+value):
				return nil, wrong("the name does not end in the unit")
			}
			*field = value
			continue
		}
		if f == nil {
			return nil, wrong("a sample without a family")
		}
		name, s, err := sample(line)
		if err != nil {
			return nil, wrong("%v", err)
		}
		suffix, ours := strings.CutPrefix(name, f.Name)
		if !ours || !slices.Contains(suffixes[f.Type], suffix) {
			return nil, wrong("not a sample of %s, a %s", f.Name, f.Type)
		}
		s.Suffix = suffix
		f.Samples = append(f.Samples, s)
	}
	for _, name := range slices.Sorted(maps.Keys(all)) {
		if err := all[name].check(); err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		for suffix := range strings.SplitSeq("_total _info _bucket _count _sum _created", " ") {
			if base, has := strings.CutSuffix(name, suffix); has && (all[base] != nil || suffix == "_total" || suffix == "_info") {
				return nil, fmt.Errorf("%s: the name is that of a sample", name)
			}
		}
	}
	return all, nil
}

// sample reads a line with a figure, without time and exemplar.
func sample(line string) (name string, s Sample, err error) {
	s.Labels = map[string]string{}
	end := strings.IndexAny(line, "{ ")
	if end < 0 || !metricName.MatchString(line[:end]) {
		return "", s, errors.New("no name and value")
	}
	name, line = line[:end], line[end:]
	if line[0] == '{' {
		for line = line[1:]; ; {
			equal := strings.Index(line, `="`)
			if equal < 0 || !labelName.MatchString(line[:equal]) || strings.HasPrefix(line, "__") {
				return "", s, errors.New("not the name of a label")
			}
			label := line[:equal]
			value, rest, err := quoted(line[equal+2:])
			if err != nil {
				return "", s, err
			}
			if _, twice := s.Labels[label]; twice {
				return "", s, errors.New("a label twice")
			}
			s.Labels[label], line = value, rest
			if strings.HasPrefix(line, "}") {
				line = line[1:]
				break
			}
			if !strings.HasPrefix(line, ",") {
				return "", s, errors.New("labels are not parted by commas")
			}
			line = line[1:]
		}
	}
	text, is := strings.CutPrefix(line, " ")
	switch {
	case !is:
		return "", s, errors.New("no single blank before the value")
	case text == "+Inf" || text == "-Inf" || text == "NaN" || figure.MatchString(text):
		s.Value, err = strconv.ParseFloat(text, 64)
	default:
		err = errors.New("not a figure")
	}
	return name, s, err
}

// quoted reads up to the closing quote.
func quoted(text string) (value, rest string, err error) {
	var b strings.Builder
	for i := 0; i < len(text); i++ {
		switch c := text[i]; c {
		case '"':
			return b.String(), text[i+1:], nil
		case '\\':
			i++
			if i == len(text) || !strings.ContainsRune(`\"n`, rune(text[i])) {
				return "", "", errors.New("escaped what is not to be escaped")
			}
			b.WriteString(map[byte]string{'\\': `\`, '"': `"`, 'n': "\n"}[text[i]])
		default:
			b.WriteByte(c)
		}
	}
	return "", "", errors.New("no closing quote")
}

// check holds a whole family against the rules of its type.
func (f *Family) check() error {
	if f.Type == "" || f.Help == "" {
		return errors.New("no TYPE or no HELP")
	}
	seen := map[string]bool{}
	for _, s := range f.Samples {
		key := s.key()
		if seen[key] {
			return fmt.Errorf("%s twice", key)
		}
		seen[key] = true
		switch {
		case (f.Type == "counter" || f.Type == "histogram") && (s.Value < 0 || math.IsNaN(s.Value)):
			return fmt.Errorf("%s is %g", key, s.Value)
		case f.Type == "info" && s.Value != 1:
			return fmt.Errorf("%s is not 1", key)
		case f.Type == "info" && f.Unit != "":
			return errors.New("an info has no unit")
		case f.Type == "stateset" && (s.Labels[f.Name] == "" || s.Value != 0 && s.Value != 1):
			return fmt.Errorf("%s is no state", key)
		}
	}
	if f.Type == "histogram" {
		return f.checkHistogram()
	}
	return nil
}

func (f *Family) checkHistogram() error {
	buckets, infinite, counts, sums := map[string]float64{}, map[string]float64{}, map[string]float64{}, map[string]bool{}
	bounds := map[string]float64{}
	for _, s := range f.Samples {
		le, isBucket := s.Labels["le"]
		other := Sample{Labels: maps.Clone(s.Labels)}
		delete(other.Labels, "le")
		key := other.key()
		switch s.Suffix {
		case "_bucket":
			bound, err := strconv.ParseFloat(le, 64)
			if !isBucket || err != nil || le != "+Inf" && !strings.Contains(le, ".") {
				return fmt.Errorf("%s: le is not a canonical figure", s.key())
			}
			if last, any := bounds[key]; any && (bound <= last || s.Value < buckets[key]) {
				return fmt.Errorf("%s: buckets do not grow", s.key())
			}
			bounds[key], buckets[key] = bound, s.Value
			if le == "+Inf" {
				infinite[key] = s.Value
			}
		case "_count":
			counts[key] = s.Value
		case "_sum":
			sums[key] = true
		}
	}
	for key := range buckets {
		last, ended := infinite[key]
		count, counted := counts[key]
		if !ended || !counted || count != last || !sums[key] {
			return fmt.Errorf("%s: no +Inf, no count that is the same, or no sum", key)
		}
	}
	return nil
}

// key is what tells a sample from others of its family.
func (s Sample) key() string {
	text := s.Suffix
	for _, l := range slices.Sorted(maps.Keys(s.Labels)) {
		text += fmt.Sprintf(" %s=%q", l, s.Labels[l])
	}
	return text
}
