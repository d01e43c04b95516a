package packaging_test

import (
	"encoding/xml"
	"go/ast"
	"go/parser"
	"go/token"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"lpad/packaging"
)

// TestPolicyIsWhatIsCalled holds the bus policy against the calls in the source:
// each is allowed, and nothing else is.
func TestPolicyIsWhatIsCalled(t *testing.T) {
	var called []string
	for _, dir := range []string{"modem/mm", "modem/nm", "modem/network"} {
		called = append(called, calls(t, filepath.Join("..", dir))...)
	}
	if len(called) < 15 {
		t.Fatalf("only %d calls found: the search is wrong", len(called))
	}
	// internal/systembus reads properties of either, mm all objects at once.
	for _, member := range []string{"Get", "GetAll"} {
		called = append(called, "org.freedesktop.ModemManager1: "+properties+member, "org.freedesktop.NetworkManager: "+properties+member)
	}
	allowed := policy(t)
	slices.Sort(called)
	slices.Sort(allowed)
	if called = slices.Compact(called); !slices.Equal(called, allowed) {
		t.Errorf("lpad calls\n  %s\nthe policy allows\n  %s", strings.Join(called, "\n  "), strings.Join(allowed, "\n  "))
	}
}

const properties = "org.freedesktop.DBus.Properties."

// policy are the calls that dbus/lpad.conf allows, with their destination where
// the name of the call does not tell.
func policy(t *testing.T) []string {
	t.Helper()
	text, err := os.ReadFile("dbus/lpad.conf")
	if err != nil {
		t.Fatal(err)
	}
	var config struct {
		Policy []struct {
			User    string `xml:"user,attr"`
			Context string `xml:"context,attr"`
			Allow   []struct {
				Destination string     `xml:"send_destination,attr"`
				Interface   string     `xml:"send_interface,attr"`
				Member      string     `xml:"send_member,attr"`
				Others      []xml.Attr `xml:",any,attr"`
			} `xml:"allow"`
			Other []struct {
				XMLName xml.Name
			} `xml:",any"`
		} `xml:"policy"`
	}
	if err := xml.Unmarshal(text, &config); err != nil {
		t.Fatal(err)
	}
	if len(config.Policy) != 1 || config.Policy[0].User != packaging.User || config.Policy[0].Context != "" || len(config.Policy[0].Other) > 0 {
		t.Fatalf("not one policy, of calls allowed to the user %s alone: %+v", packaging.User, config)
	}
	var out []string
	for _, a := range config.Policy[0].Allow {
		if a.Destination == "" || a.Interface == "" || a.Member == "" || len(a.Others) > 0 {
			t.Errorf("a line that allows more than one call: %+v", a)
		}
		name := a.Interface + "." + a.Member
		if strings.HasPrefix(name, "org.freedesktop.DBus.") {
			name = a.Destination + ": " + name
		}
		out = append(out, name)
	}
	return out
}

// calls are the methods that a package calls on the bus, by the fourth argument
// of its functions Call, whose value must be known to the compiler.
func calls(t *testing.T, dir string) []string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "*.go"))
	if err != nil {
		t.Fatal(err)
	}
	constants := map[string]ast.Expr{}
	var parsed []*ast.File
	fset := token.NewFileSet()
	for _, name := range files {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		f, err := parser.ParseFile(fset, name, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		parsed = append(parsed, f)
		for _, d := range f.Decls {
			g, ok := d.(*ast.GenDecl)
			if !ok || g.Tok != token.CONST {
				continue
			}
			for _, s := range g.Specs {
				if v := s.(*ast.ValueSpec); len(v.Names) == len(v.Values) {
					for i, n := range v.Names {
						constants[n.Name] = v.Values[i]
					}
				}
			}
		}
	}
	found := map[string]bool{}
	for _, f := range parsed {
		ast.Inspect(f, func(n ast.Node) bool {
			c, ok := n.(*ast.CallExpr)
			if !ok {
				return true
			}
			sel, ok := c.Fun.(*ast.SelectorExpr)
			if !ok || sel.Sel.Name != "Call" || len(c.Args) < 4 {
				return true
			}
			name, ok := text(constants, c.Args[3])
			if !ok {
				t.Errorf("%s: which method is called cannot be told", fset.Position(c.Pos()))
			}
			if strings.HasPrefix(name, "org.freedesktop.DBus.") {
				name = "org.freedesktop.ModemManager1: " + name // nm asks for no objects of this kind
			}
			found[name] = true
			return true
		})
	}
	return slices.Collect(maps.Keys(found))
}

// text is the value of a constant string.
func text(constants map[string]ast.Expr, e ast.Expr) (string, bool) {
	switch e := e.(type) {
	case *ast.BasicLit:
		s, err := strconv.Unquote(e.Value)
		return s, err == nil
	case *ast.Ident:
		v, found := constants[e.Name]
		if !found {
			return "", false
		}
		return text(constants, v)
	case *ast.BinaryExpr:
		x, okX := text(constants, e.X)
		y, okY := text(constants, e.Y)
		return x + y, okX && okY && e.Op == token.ADD
	}
	return "", false
}
