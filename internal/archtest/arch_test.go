// Package archtest holds the rules of the house against the code: which
// package may import which, who alone may import a fenced module, that every
// package says what it is, and that the tables in docs/ are true.
//
// The tests parse the sources themselves. One that asked "go list" would stay
// cached after an edit elsewhere in the tree.
package archtest

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// arrows says what the packages of a row may import of ours. A row names one
// package, or with "/..." a package and all below it; the longest name that
// fits counts. "internal/fault", "internal/redact" and "internal/smallfile" are
// for everybody.
//
// A package without a row is an error: decide where it stands first.
var arrows = []struct {
	from string
	to   []string
	why  string
}{
	{"apdu", nil, "cards, not GSMA"},
	{"apdu/ber", nil, "no GSMA knowledge"},
	{"apdu/pcsc", []string{"apdu"}, "runs the helper"},
	{"apdu/pcsc/reader", []string{"apdu/pcsc"}, "the only cgo"},
	{"apdu/apdutest", []string{"apdu"}, "wire doubles of a card"},

	{"modem", nil, "words"},
	{"modem/at", nil, "AT commands, not cards"},
	{"modem/at/attest", []string{"modem/at"}, "a scripted modem at the wire"},
	{"modem/serialport", nil, "the line"},
	{"modem/atcard", []string{"apdu", "modem/at"}, "cards behind AT"},
	{"modem/atmodem", []string{"modem", "modem/at", "modem/quirks"}, "a modem by AT alone"},
	{"modem/atport", []string{"apdu", "modem", "modem/at", "modem/atcard", "modem/atmodem", "modem/quirks", "modem/serialport"}, "card and modem on one port"},
	{"modem/mm", []string{"internal/systembus", "modem"}, "D-Bus calls"},
	{"modem/nm", []string{"internal/systembus", "modem"}, "D-Bus calls"},
	{"modem/network", []string{"internal/program", "internal/systembus", "modem", "modem/atmodem", "modem/mm", "modem/nm"}, "back-ends of a switch; never sees a job"},
	{"modem/carrierdb", []string{"modem"}, "pure"},
	{"modem/quirks", []string{"modem"}, "a table and a memory; never sees a port"},
	{"modem/modemtest", []string{"modem"}, "wire doubles of a modem; the card comes in by an interface"},

	{"agent/rsp", []string{"apdu/ber"}, "values"},
	{"agent/rsp/bpp", []string{"agent/rsp", "apdu/ber"}, "pure"},
	{"agent/rsp/es10", []string{"agent/rsp", "agent/rsp/bpp", "apdu", "apdu/ber"}, "the card's side"},
	{"agent/rsp/es9p", []string{"agent/rsp"}, "the server's side never sees a card"},
	{"agent/rsp/rsptest/...", []string{"agent/rsp", "agent/rsp/rsptest/...", "apdu", "apdu/ber"}, "wire doubles; never the product's own es10 or es9p"},
	{"agent/job", []string{"agent/rsp"}, "pure, sees only values"},
	{"agent/hooks", []string{"agent/job", "internal/program"}, "the maker's programs; never sees a card"},
	{"agent/journal", []string{"agent/job"}, "what survives"},
	{"agent/orders", []string{"agent/rsp"}, "signed orders: whether to believe them; pure"},
	{"agent/desired", []string{"agent/job", "agent/rsp"}, "declarations: what is still to be done; pure"},
	{"agent/orders/orderstest", nil, "signs orders; never the product's own code"},
	{"agent/packets", []string{"agent/api"}, "requests as files; never sees a card"},
	{"agent/params", []string{"agent/rsp", "apdu/ber", "modem", "modem/carrierdb"}, "pure"},
	{"agent/procedure", []string{"agent/rsp", "agent/rsp/bpp", "agent/rsp/es10", "agent/rsp/es9p"}, "sequential RSP"},
	{"agent/switchover", []string{"agent/params", "agent/rsp", "modem"}, "the switch"},
	{"agent/runner", []string{"agent/desired", "agent/hooks", "agent/job", "agent/journal", "agent/orders", "agent/packets", "agent/procedure", "agent/rsp", "agent/rsp/es10", "agent/switchover", "modem"}, "owns the card"},
	{"agent/api", nil, "messages"},
	{"agent/metrics", nil, "a text format"},
	{"agent/metrics/metricstest", nil, "reads it strictly"},
	{"agent/relay", nil, "connections through somebody else's network; never sees what is in them"},
	{"agent/apiserver", []string{"agent/api", "agent/metrics"}, "the socket"},
	{"agent/client", []string{"agent/api"}, "the socket, from outside"},
	{"agent", []string{"agent/...", "apdu", "apdu/ber", "modem", "modem/carrierdb", "config", "internal/release"}, "wiring, no policy"},

	{"config", nil, "only importer of viper"},
	{"internal/...", nil, "private helpers"},
	{"internal/tools/deb", []string{"packaging"}, "packs what packaging lists"},
	{"packaging", nil, "what lies beside the programs"},
	{"packaging/packagetest", nil, "a device with the real systemd"},

	{"cmd/lpad", []string{"agent", "agent/api", "config", "internal/systemd", "apdu", "apdu/pcsc", "modem", "internal/systembus", "modem/atcard", "modem/atport", "modem/mm", "modem/nm", "modem/network", "modem/quirks", "agent/switchover"}, "picks implementations"},
	{"cmd/lpad-pcsc", []string{"apdu/pcsc", "apdu/pcsc/reader"}, "the helper"},
	{"cmd/lpactl", []string{"agent/client", "agent/api", "agent/packets", "agent/relay", "agent/params", "agent/rsp", "agent/rsp/es9p"}, "no way round the socket, but to servers with packets; params and rsp are pure"},
	{"cmd/lpalab/...", []string{"agent/...", "apdu/...", "cmd/lpalab/lab", "cmd/lpalab/operator", "config", "modem/...", "packaging"}, "the lab may see all"},
}

// everybody may import these.
var everybody = []string{"internal/fault", "internal/redact", "internal/smallfile"}

// never may anything but tests and the lab import these.
var testOnly = []string{"apdu/apdutest", "modem/at/attest", "modem/modemtest", "agent/rsp/rsptest", "agent/orders/orderstest", "internal/systembus/bustest", "packaging/packagetest", "agent/metrics/metricstest"}

// fences name the only importer of a module.
var fences = map[string][]string{
	"github.com/ebfe/scard":              {"apdu/pcsc/reader"},
	"github.com/tarm/serial":             {"modem/serialport"},
	"github.com/spf13/viper":             {"config"},
	"go.yaml.in/yaml":                    {"agent/desired", "config", "modem/quirks"}, // linked by viper anyway
	"github.com/coreos/go-systemd":       {"internal/systemd"},
	"github.com/godbus/dbus":             {"internal/systembus", "internal/systembus/bustest", "modem/mm", "modem/nm", "modem/network", "modem/modemtest"},
	"github.com/damonto/euicc-go":        {"agent/rsp/es9p"}, // of it, only http/rootci
	"github.com/ProtonMail/go-crypto":    {"agent/rsp/rsptest/pki"},
	"github.com/spf13/cobra":             {"cmd/lpactl", "cmd/lpalab"},
	"github.com/makiuchi-d/gozxing":      {"cmd/lpactl"},
	"github.com/rogpeppe/go-internal":    {}, // tests only
	"github.com/google/go-cmp":           {},
	"go.uber.org/goleak":                 {},
	"github.com/creack/pty":              {"modem/modemtest", "cmd/lpalab"},
	"golang.org/x/crypto":                {},
	"github.com/damonto/euicc-go/bertlv": {},
	"github.com/damonto/euicc-go/lpa":    {},
	"github.com/damonto/euicc-go/v2":     {},
	"github.com/damonto/euicc-go/driver": {},
}

const module = "lpad/"

type source struct {
	pkg  string // folder below the root
	file string
	test bool
	ast  *ast.File
}

func root(t *testing.T) string {
	t.Helper()
	dir, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	for ; ; dir = filepath.Dir(dir) {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir
		}
		if dir == filepath.Dir(dir) {
			t.Fatal("no go.mod above the test")
		}
	}
}

func sources(t *testing.T) []source {
	t.Helper()
	top := root(t)
	var out []source
	fset := token.NewFileSet()
	err := filepath.WalkDir(top, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, _ := filepath.Rel(top, p)
		if d.IsDir() {
			name := d.Name()
			_, modErr := os.Stat(filepath.Join(p, "go.mod"))
			if rel != "." && (strings.HasPrefix(name, ".") || name == "testdata" || name == "build" || name == "dist" || modErr == nil) {
				return filepath.SkipDir
			}
			return nil
		}
		if !strings.HasSuffix(p, ".go") {
			return nil
		}
		f, err := parser.ParseFile(fset, p, nil, parser.ParseComments)
		if err != nil {
			return err
		}
		out = append(out, source{filepath.ToSlash(filepath.Dir(rel)), filepath.ToSlash(rel), strings.HasSuffix(p, "_test.go"), f})
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(out) < 20 {
		t.Fatalf("only %d sources found: the walk is wrong", len(out))
	}
	return out
}

func (s source) imports(t *testing.T) []string {
	t.Helper()
	var out []string
	for _, i := range s.ast.Imports {
		p, err := strconv.Unquote(i.Path.Value)
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, p)
	}
	return out
}

func matches(pattern, pkg string) bool {
	if base, ok := strings.CutSuffix(pattern, "/..."); ok {
		return pkg == base || strings.HasPrefix(pkg, base+"/")
	}
	return pattern == pkg
}

func allowedFrom(pkg string) (to []string, found bool) {
	best := -1
	for _, a := range arrows {
		if matches(a.from, pkg) && len(a.from) > best {
			best, to, found = len(a.from), a.to, true
		}
	}
	return to, found
}

func TestArrows(t *testing.T) {
	for _, s := range sources(t) {
		to, found := allowedFrom(s.pkg)
		if !found {
			t.Errorf("%s: package %s has no row in the table of arrows", s.file, s.pkg)
			continue
		}
		if s.test {
			continue // a test may reach for any double and any neighbour
		}
		for _, imp := range s.imports(t) {
			pkg, ours := strings.CutPrefix(imp, module)
			if !ours || slices.Contains(everybody, pkg) {
				continue
			}
			if !slices.ContainsFunc(to, func(p string) bool { return matches(p, pkg) }) {
				t.Errorf("%s imports %s: not an arrow of the house", s.file, pkg)
			}
			inDoubles := slices.ContainsFunc(testOnly, func(p string) bool { return matches(p+"/...", s.pkg) })
			if !inDoubles && !matches("cmd/lpalab/...", s.pkg) && slices.ContainsFunc(testOnly, func(p string) bool { return matches(p+"/...", pkg) }) {
				t.Errorf("%s imports the test double %s", s.file, pkg)
			}
		}
	}
}

func TestFences(t *testing.T) {
	for _, s := range sources(t) {
		if s.test {
			continue
		}
		for _, imp := range s.imports(t) {
			best := ""
			for m := range fences {
				if (imp == m || strings.HasPrefix(imp, m+"/")) && len(m) > len(best) {
					best = m
				}
			}
			if best != "" && !slices.Contains(fences[best], s.pkg) {
				t.Errorf("%s imports %s, which only %v may", s.file, imp, fences[best])
			}
		}
	}
}

// TestNoExport: one use of godbus' Conn.Export turns the linker's removal of
// dead code off and costs 1.4 MB.
func TestNoExport(t *testing.T) {
	banned := []string{"Export", "ExportAll", "ExportSubtree", "ExportWithMap", "ExportSubtreeWithMap"}
	for _, s := range sources(t) {
		if s.test || matches("modem/modemtest/...", s.pkg) {
			continue
		}
		if !slices.ContainsFunc(s.imports(t), func(i string) bool { return strings.HasPrefix(i, "github.com/godbus/dbus") }) {
			continue
		}
		ast.Inspect(s.ast, func(n ast.Node) bool {
			if sel, ok := n.(*ast.SelectorExpr); ok && slices.Contains(banned, sel.Sel.Name) {
				t.Errorf("%s uses %s", s.file, sel.Sel.Name)
			}
			return true
		})
	}
}

func TestEveryPackageSaysWhatItIs(t *testing.T) {
	said := map[string]bool{}
	for _, s := range sources(t) {
		if _, ok := said[s.pkg]; !ok {
			said[s.pkg] = false
		}
		if s.ast.Doc == nil {
			continue
		}
		first, _, _ := strings.Cut(s.ast.Doc.Text(), "\n")
		if len(s.ast.Doc.Text()) < 80 {
			t.Errorf("%s: the package comment says too little: %q", s.file, first)
		}
		if s.ast.Name.Name == "main" || strings.HasPrefix(first, "Package "+s.ast.Name.Name) || strings.HasPrefix(first, "Package "+strings.TrimSuffix(s.ast.Name.Name, "_test")) {
			said[s.pkg] = true
		}
	}
	for pkg, ok := range said {
		if !ok {
			t.Errorf("package %s has no package comment", pkg)
		}
	}
}

// TestNames keeps words that say nothing out of the house.
func TestNames(t *testing.T) {
	bad := []string{"util", "utils", "common", "base", "core", "helper", "helpers", "manager", "types", "misc"}
	for _, s := range sources(t) {
		if slices.Contains(bad, path.Base(s.pkg)) || slices.Contains(bad, strings.TrimSuffix(path.Base(s.file), ".go")) {
			t.Errorf("%s: the name says nothing", s.file)
		}
	}
}

var functionRow = regexp.MustCompile(`^\|\s*(SGP\.\d+ [^|]+?)\s*\|\s*([^|]+?)\s*\|\s*([^|]+?)\s*\|\s*([^|]+?)\s*\|$`)

// TestFunctionsTable holds docs/protocol/functions.md against the code: every
// row names a function that is declared in the file it names.
func TestFunctionsTable(t *testing.T) {
	b, err := os.ReadFile(filepath.Join(root(t), "docs/protocol/functions.md"))
	if err != nil {
		t.Fatal(err)
	}
	declared := map[string]map[string]bool{} // file -> names
	for _, s := range sources(t) {
		names := map[string]bool{}
		for _, d := range s.ast.Decls {
			fn, ok := d.(*ast.FuncDecl)
			if !ok {
				continue
			}
			name := fn.Name.Name
			if fn.Recv != nil {
				recv := fn.Recv.List[0].Type
				if p, ok := recv.(*ast.StarExpr); ok {
					recv = p.X
				}
				if id, ok := recv.(*ast.Ident); ok {
					name = id.Name + "." + name
				}
			}
			names[s.ast.Name.Name+"."+name] = true
		}
		declared[s.file] = names
	}
	rows := 0
	for _, line := range strings.Split(string(b), "\n") {
		m := functionRow.FindStringSubmatch(line)
		if m == nil {
			continue
		}
		rows++
		name, file := strings.Trim(m[3], "`"), strings.Trim(m[4], "`")
		if !declared[file][name] {
			t.Errorf("functions.md: %s: %s does not declare %s", m[1], file, name)
		}
	}
	if rows < 25 {
		t.Errorf("functions.md has %d rows that can be read, expected at least 25", rows)
	}
}
