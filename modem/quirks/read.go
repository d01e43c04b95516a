package quirks

import (
	_ "embed"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"

	"lpad/internal/fault"
	"lpad/internal/smallfile"
)

//go:embed table.yaml
var builtin string

// Limits of what is read: several times what the built-in table needs.
const (
	maxFile   = 64 << 10 // bytes of one file
	maxFiles  = 32       // of the OEM's folder
	maxLines  = 512      // of the whole table
	maxList   = 32       // entries of one list
	maxText   = 200      // bytes of one text
	maxFaults = 20       // that are reported of one file
	maxBound  = time.Hour
	maxBlock  = 255
)

const version = 1

// Builtin is the table that comes with lpad, which is the zero Table.
func Builtin() *Table { return &Table{} }

// Load is the built-in table with the files *.yaml of a folder, in the order of
// their names. A folder that is not there, or "", adds nothing. The error says
// everything that is wrong, each with file and line, and explains itself
// (internal/fault); there is no table then.
func Load(dir string) (*Table, error) {
	t := &Table{}
	if dir == "" {
		return t, nil
	}
	err := t.load(dir)
	if err == nil && len(t.oem) > 0 {
		_, err = t.parse(func(*Match) bool { return true })
	}
	if err != nil {
		return nil, fault.New(fault.Fault{
			Code: "quirks-invalid", Text: "a file about modems is wrong", Who: fault.Configuration,
			Next: "mend the file; docs/modems.md says what may stand in it",
		}, err)
	}
	return t, nil
}

func (t *Table) load(dir string) error {
	names, err := filepath.Glob(filepath.Join(dir, "*.yaml")) // sorted
	if err != nil {
		return err
	}
	if len(names) > maxFiles {
		return fmt.Errorf("%s: %d files, at most %d are read", dir, len(names), maxFiles)
	}
	var faults []error
	for _, name := range names {
		b, err := smallfile.Read(name, maxFile)
		t.oem = append(t.oem, oemFile{filepath.Base(name), string(b)})
		faults = append(faults, err)
	}
	return errors.Join(faults...)
}

// oemFile is a file of the OEM's folder.
type oemFile struct{ name, text string }

// parse reads the lines, of the built-in ones those that fit: the rest of them
// would only make the heap grow, which an idle lpad keeps for good. What is wrong
// with a file leaves that file out.
func (t *Table) parse(fits func(*Match) bool) ([]Line, error) {
	var lines list
	text := builtin
	if len(t.oem) == 0 { // else one of theirs may take the place of a line that is left out
		text = extract(text, fits)
	}
	faults := []error{lines.read("table.yaml", text, 0)} // a test reads it, so it is nil in every build that was tested
	for _, d := range t.oem {
		faults = append(faults, lines.read(d.name, d.text, 1))
	}
	return lines, errors.Join(faults...)
}

// extract leaves out the lines of a table that do not fit. It knows only how
// table.yaml is written, with the keys of a Match on one line each, and would
// rather keep a line than lose it; a test holds it against the whole table.
func extract(table string, fits func(*Match) bool) string {
	const begin = "\n- name:"
	lines := strings.SplitAfter(table, begin)
	var out strings.Builder
	out.WriteString(lines[0][:len(lines[0])-len(begin)])
	for _, l := range lines[1:] {
		l = strings.TrimSuffix(l, begin)
		if m := peek(l); fits(&m) {
			out.WriteString(begin + l)
		} else {
			out.WriteString(strings.Repeat("\n", strings.Count(l, "\n")+1)) // faults are told by their line
		}
	}
	return out.String()
}

// peek reads of whom a line speaks.
func peek(line string) Match {
	var m Match
	for text := range strings.Lines(line) {
		key, value, _ := strings.Cut(strings.TrimSpace(text), ":")
		var patterns []string
		for p := range strings.SplitSeq(strings.Trim(value, " []"), ",") {
			patterns = append(patterns, strings.Trim(p, " \"'"))
		}
		switch key {
		case "manufacturer":
			m.Manufacturer = patterns
		case "model":
			m.Model = patterns
		case "revision":
			m.Revision = patterns
		case "usb":
			m.USB = patterns
		case "reader":
			m.Reader = patterns
		}
	}
	return m
}

// list is what has been read of a table.
type list []Line

// read adds the lines of one file.
func (t *list) read(name, text string, layer int) error {
	if len(text) > maxFile {
		return fmt.Errorf("%s: more than %d bytes", name, maxFile)
	}
	r := reader{file: name, layer: layer, keys: factKeys()}
	dec := yaml.NewDecoder(strings.NewReader(text))
	var doc yaml.Node
	switch err := dec.Decode(&doc); {
	case errors.Is(err, io.EOF):
		return nil // nothing but comments
	case err != nil:
		return fmt.Errorf("%s: %w", name, err)
	}
	var more yaml.Node
	if err := dec.Decode(&more); !errors.Is(err, io.EOF) {
		return fmt.Errorf("%s:%d: one document a file", name, max(more.Line, 1))
	}
	lines := r.document(&doc)
	if len(r.faults) > 0 {
		return errors.Join(r.faults...)
	}
	for _, l := range lines {
		at := slices.IndexFunc(*t, func(old Line) bool { return old.Name == l.Name })
		switch {
		case at >= 0:
			l.layer = (*t)[at].layer // it takes the place of the other one, and its rank
			(*t)[at] = l
		case len(*t) == maxLines:
			return fmt.Errorf("%s: more than %d lines", name, maxLines)
		default:
			*t = append(*t, l)
		}
	}
	return nil
}

// reader walks the nodes of one file. Nodes and not structs: so every fault has
// its line, an absent fact differs from a zero, and no alias is followed.
type reader struct {
	file   string
	layer  int
	short  map[string]string // "lpac#": beginning of an address
	keys   map[string]factKey
	faults []error
}

func (r *reader) fail(n *yaml.Node, format string, args ...any) {
	if len(r.faults) < maxFaults {
		r.faults = append(r.faults, fmt.Errorf("%s:%d: %s", r.file, n.Line, fmt.Sprintf(format, args...)))
	}
}

// pairs goes through a mapping; every key once.
func (r *reader) pairs(n *yaml.Node, what string, do func(key string, k, v *yaml.Node)) {
	if n.Kind != yaml.MappingNode || n.Anchor != "" {
		r.fail(n, "%s: a mapping is wanted", what)
		return
	}
	seen := map[string]bool{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		k, v := n.Content[i], n.Content[i+1]
		key := r.text(k, what)
		if seen[key] {
			r.fail(k, "%s: %q is there twice", what, key)
			continue
		}
		seen[key] = true
		do(key, k, v)
	}
}

// items are the entries of a list, or the one that stands alone.
func (r *reader) items(n *yaml.Node, what string) []*yaml.Node {
	if n.Kind != yaml.SequenceNode {
		return []*yaml.Node{n}
	}
	if n.Anchor != "" || len(n.Content) > maxList {
		r.fail(n, "%s: at most %d entries and no anchor", what, maxList)
		return nil
	}
	return n.Content
}

func (r *reader) text(n *yaml.Node, what string) string {
	switch {
	case n.Kind != yaml.ScalarNode || n.Anchor != "" || n.ShortTag() == "!!null":
		r.fail(n, "%s: a plain value is wanted", what)
		return ""
	case n.Value == "" || len(n.Value) > maxText || strings.ContainsFunc(n.Value, func(c rune) bool { return c < 0x20 || c == 0x7F }):
		r.fail(n, "%s: 1 to %d printable characters are wanted", what, maxText)
		return ""
	}
	return n.Value
}

func (r *reader) texts(n *yaml.Node, what string) []string {
	var out []string
	for _, i := range r.items(n, what) {
		out = append(out, r.text(i, what))
	}
	return out
}

func (r *reader) document(doc *yaml.Node) []Line {
	if len(doc.Content) != 1 {
		r.fail(doc, "a mapping is wanted")
		return nil
	}
	var lines []Line
	var table *yaml.Node
	said := ""
	r.short = map[string]string{}
	r.pairs(doc.Content[0], "file", func(key string, k, v *yaml.Node) {
		switch key {
		case "version":
			said = r.text(v, key)
		case "short":
			r.pairs(v, key, func(name string, _, v *yaml.Node) { r.short[name] = r.text(v, key) })
		case "modems":
			table = v
		default:
			r.fail(k, "unknown key %q", key)
		}
	})
	if said != strconv.Itoa(version) {
		r.fail(doc.Content[0], "version: %d is wanted", version)
	}
	if table == nil {
		return nil
	}
	if table.Kind != yaml.SequenceNode || table.Anchor != "" || len(table.Content) > maxLines {
		r.fail(table, "modems: a list of at most %d lines is wanted", maxLines)
		return nil
	}
	names := map[string]bool{}
	for _, n := range table.Content {
		l := r.line(n)
		if names[l.Name] {
			r.fail(n, "a second line %q in one file", l.Name)
		}
		names[l.Name] = true
		lines = append(lines, l)
	}
	return lines
}

func (r *reader) line(n *yaml.Node) Line {
	l := Line{layer: r.layer}
	inferred := n
	r.pairs(n, "line", func(key string, k, v *yaml.Node) {
		switch key {
		case "name":
			l.Name = r.text(v, key)
		case "manufacturer":
			l.Match.Manufacturer = r.texts(v, key)
		case "model":
			l.Match.Model = r.texts(v, key)
		case "revision":
			l.Match.Revision = r.texts(v, key)
		case "usb":
			l.Match.USB = r.texts(v, key)
		case "reader":
			l.Match.Reader = r.texts(v, key)
		case "example":
			for i, word := range r.texts(v, key) {
				switch i {
				case 0:
					l.Example.Manufacturer = word
				case 1:
					l.Example.Model = word
				case 2:
					l.Example.Revision = word
				default:
					r.fail(v, "example: manufacturer, model and revision, or a reader's name")
				}
			}
		case "inferred":
			inferred = v
			if l.Inferred = r.texts(v, key); len(l.Inferred) == 1 && l.Inferred[0] == "true" {
				l.Inferred = []string{"*"}
			}
		case "note":
			l.Notes = r.texts(v, key)
		case "source":
			for _, s := range r.items(v, key) {
				l.Sources = append(l.Sources, r.source(s))
			}
		default:
			fact, ok := r.keys[key]
			if !ok {
				r.fail(k, "unknown key %q", key)
				return
			}
			l.Facts = append(l.Facts, r.fact(key, fact, v))
		}
	})
	if len(l.Match.Reader) > 0 {
		l.Example = Example{Reader: l.Example.Manufacturer}
	}
	for _, key := range l.Inferred {
		told := slices.Contains([]string{"*", "example", "manufacturer", "model", "revision", "usb"}, key)
		if !told && !slices.ContainsFunc(l.Facts, func(f Fact) bool { return f.Key == key }) {
			r.fail(inferred, "inferred: the line says nothing of %q", key)
		}
	}
	modem := len(l.Match.Manufacturer) + len(l.Match.Model) + len(l.Match.Revision)
	switch {
	case l.Name == "":
		r.fail(n, "a line without a name")
	case len(l.Sources) == 0:
		r.fail(n, "%s: a source is wanted", l.Name)
	case modem+len(l.Match.Reader)+len(l.Match.USB) == 0:
		r.fail(n, "%s: of whom does it speak? manufacturer, model, revision, usb or reader is wanted", l.Name)
	case len(l.Match.Reader) > 0 && modem+len(l.Match.USB) > 0:
		r.fail(n, "%s: a modem or a reader, not both", l.Name)
	}
	return l
}

// source is an address, or one in short: "lpac#186".
func (r *reader) source(n *yaml.Node) string {
	s := r.text(n, "source")
	if strings.HasPrefix(s, "https://") {
		return s
	}
	for i := 1; i <= len(s); i++ {
		if long, ok := r.short[s[:i]]; ok {
			return long + s[i:]
		}
	}
	r.fail(n, "source: %q is no https address", s)
	return ""
}

// flat is a value for people.
func flat(n *yaml.Node) string {
	switch n.Kind {
	case yaml.SequenceNode:
		var out []string
		for _, c := range n.Content {
			out = append(out, flat(c))
		}
		return strings.Join(out, ", ")
	case yaml.MappingNode:
		var out []string
		for i := 0; i+1 < len(n.Content); i += 2 {
			out = append(out, flat(n.Content[i])+"="+flat(n.Content[i+1]))
		}
		return strings.Join(out, ", ")
	}
	return n.Value
}
