package quirks_test

import (
	"flag"
	"fmt"
	"net/url"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"lpad/modem/quirks"
)

var update = flag.Bool("update", false, "write the table into docs/modems.md")

const (
	document = "../../docs/modems.md"
	begin    = "<!-- made by: go test ./modem/quirks -run TestDocument -update -->\n"
	end      = "<!-- end -->\n"
)

// TestDocument holds docs/modems.md against the built-in table.
func TestDocument(t *testing.T) {
	b, err := os.ReadFile(document)
	if err != nil {
		t.Fatal(err)
	}
	head, rest, ok := strings.Cut(string(b), begin)
	was, tail, ok2 := strings.Cut(rest, end)
	if !ok || !ok2 {
		t.Fatalf("%s has no place for the table", document)
	}
	now := markdown(quirks.Builtin().Lines())
	if *update {
		if err := os.WriteFile(document, []byte(head+begin+now+end+tail), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if d := cmp.Diff(strings.Split(was, "\n"), strings.Split(now, "\n")); d != "" {
		t.Errorf("%s is not the table; run this test with -update (-document +table):\n%s", document, d)
	}
}

// TestDocumentNamesEveryKey: the hand-written part explains every key that the
// reader takes, and no other.
func TestDocumentNamesEveryKey(t *testing.T) {
	b, err := os.ReadFile(document)
	if err != nil {
		t.Fatal(err)
	}
	var told []string
	for _, row := range strings.Split(string(b), "\n") {
		cells := strings.Split(row, "|")
		if len(cells) != 5 || !strings.HasPrefix(cells[1], " `") {
			continue
		}
		for _, key := range strings.Split(cells[1], ",") {
			told = append(told, strings.Trim(key, " `"))
		}
	}
	known := append(quirks.Keys(), "usb", "reader", "example", "inferred", "note", "source")
	slices.Sort(told)
	slices.Sort(known)
	if d := cmp.Diff(known, told); d != "" {
		t.Errorf("keys (-reader +document):\n%s", d)
	}
}

// TestDocumentExamples: the files that the page shows are files that are read.
func TestDocumentExamples(t *testing.T) {
	b, err := os.ReadFile(document)
	if err != nil {
		t.Fatal(err)
	}
	blocks := strings.Split(string(b), "```yaml\n")[1:]
	if len(blocks) < 2 {
		t.Fatalf("%d examples", len(blocks))
	}
	for _, block := range blocks {
		text, _, _ := strings.Cut(block, "```")
		lines, _, err := quirks.Parse([]byte(text))
		if err != nil || len(lines) != 1 {
			t.Errorf("%v in:\n%s", err, text)
		}
	}
}

// markdown is the table for people.
func markdown(lines []quirks.Line) string {
	var b strings.Builder
	b.WriteString("\n| line | of | says | known from |\n|---|---|---|---|\n")
	for _, l := range lines {
		fmt.Fprintf(&b, "| %s | %s | %s | %s |\n", l.Name, of(l), says(l), sources(l))
	}
	b.WriteString("\n")
	return b.String()
}

func inferred(l quirks.Line, key, text string) string {
	if slices.Contains(l.Inferred, key) || slices.Contains(l.Inferred, "*") {
		return "*" + text + "*"
	}
	return text
}

// code quotes a text for a cell of a table.
func code(s string) string { return "`" + strings.ReplaceAll(s, "|", `\|`) + "`" }

func of(l quirks.Line) string {
	var parts []string
	for _, p := range []struct {
		key      string
		patterns []string
	}{
		{"manufacturer", l.Match.Manufacturer}, {"model", l.Match.Model}, {"revision", l.Match.Revision}, {"reader", l.Match.Reader}, {"usb", l.Match.USB},
	} {
		if len(p.patterns) == 0 {
			continue
		}
		var quoted []string
		for _, pattern := range p.patterns {
			quoted = append(quoted, code(pattern))
		}
		parts = append(parts, inferred(l, p.key, p.key+" "+strings.Join(quoted, " or ")))
	}
	var words []string
	for _, w := range []string{l.Example.Manufacturer, l.Example.Model, l.Example.Revision, l.Example.Reader} {
		if w != "" {
			words = append(words, code(w))
		}
	}
	if len(words) > 0 {
		parts = append(parts, inferred(l, "example", "such as "+strings.Join(words, " ")))
	}
	return strings.Join(parts, "<br>")
}

func says(l quirks.Line) string {
	var parts []string
	for _, f := range l.Facts {
		parts = append(parts, inferred(l, f.Key, f.Key+" "+code(f.Text)))
	}
	for _, n := range l.Notes {
		parts = append(parts, strings.NewReplacer("|", `\|`, "*", `\*`, "<", "&lt;").Replace(n))
	}
	return strings.Join(parts, "<br>")
}

func sources(l quirks.Line) string {
	var parts []string
	for _, s := range l.Sources {
		parts = append(parts, fmt.Sprintf("[%s](%s)", label(s), s))
	}
	return strings.Join(parts, " ")
}

// label is a short name of an address: "lpac#186", "VoCat: esim.go".
func label(s string) string {
	u, err := url.Parse(s)
	if err != nil {
		return s
	}
	p := strings.Split(strings.Trim(u.Path, "/"), "/")
	last := p[len(p)-1]
	switch {
	case u.Host == "github.com" && len(p) == 4 && (p[2] == "issues" || p[2] == "pull"):
		return p[1] + "#" + last
	case u.Host == "github.com" && len(p) == 4 && p[2] == "commit":
		return p[1] + "@" + last
	case u.Host == "github.com" && len(p) == 2:
		return last
	case u.Host == "github.com":
		return p[1] + ": " + last
	case u.Host == "gitlab.freedesktop.org":
		return last
	}
	return u.Host
}
