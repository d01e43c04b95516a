package apiserver_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

var (
	codeForm = regexp.MustCompile(`^[a-z][a-z0-9]*(-[a-z0-9]+)*$`)
	// codesInto is what can come over the socket: the daemon and all below it,
	// and what the client makes itself.
	codesInto = []string{"agent", "apdu", "cmd/lpad", "internal/fault", "internal/systembus", "modem"}
)

// codesOfTheSource are the codes of problems that the sources can make. A code
// is written where a member Code is set, or before the words that explain it,
// in a table or a call; as it is, or by the name of a constant.
func codesOfTheSource(t *testing.T) []string {
	t.Helper()
	var files []*ast.File
	constants := map[string]string{} // by "package.Name"
	fset := token.NewFileSet()
	for _, below := range codesInto {
		err := filepath.WalkDir(filepath.Join("../..", below), func(path string, d fs.DirEntry, err error) error {
			switch {
			case err != nil:
				return err
			case d.IsDir() && strings.HasSuffix(path, "test"):
				return fs.SkipDir
			case d.IsDir() || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go"):
				return nil
			}
			f, err := parser.ParseFile(fset, path, nil, parser.SkipObjectResolution)
			if err != nil {
				return err
			}
			files = append(files, f)
			ast.Inspect(f, func(n ast.Node) bool {
				if v, ok := n.(*ast.ValueSpec); ok && len(v.Names) == len(v.Values) {
					for i, name := range v.Names {
						if s, ok := text(v.Values[i]); ok && codeForm.MatchString(s) {
							constants[f.Name.Name+"."+name.Name] = s
						}
					}
				}
				return true
			})
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}

	found := map[string]bool{}
	var services, endings []string // of package systembus: "modemmanager", "-absent"
	var in string                  // package
	code := func(e ast.Expr) (string, bool) {
		s, ok := text(e)
		switch e := e.(type) {
		case *ast.Ident:
			s, ok = constants[in+"."+e.Name]
		case *ast.SelectorExpr:
			if of, isName := e.X.(*ast.Ident); isName {
				s, ok = constants[of.Name+"."+e.Sel.Name]
			}
		}
		return s, ok && codeForm.MatchString(s)
	}
	pair := func(e []ast.Expr) {
		if len(e) < 2 {
			return
		}
		if s, ok := code(e[0]); ok && strings.Contains(s, "-") && words(e[1]) {
			found[s] = true
		}
	}
	for _, f := range files {
		in = f.Name.Name
		ast.Inspect(f, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.CallExpr:
				if _, method := n.Fun.(*ast.SelectorExpr); !method {
					pair(n.Args)
				}
			case *ast.CompositeLit:
				pair(n.Elts)
				if s, ok := n.Type.(*ast.SelectorExpr); ok && s.Sel.Name == "Service" || named(n.Type, "Service") {
					for _, e := range n.Elts {
						if kv, ok := e.(*ast.KeyValueExpr); ok && named(kv.Key, "Code") {
							if s, ok := text(kv.Value); ok {
								services = append(services, s)
							}
						}
					}
					return false
				}
			case *ast.KeyValueExpr:
				if named(n.Key, "Code") {
					if s, ok := code(n.Value); ok {
						found[s] = true
					}
					if b, ok := n.Value.(*ast.BinaryExpr); ok && f.Name.Name == "systembus" {
						if s, ok := text(b.Y); ok {
							endings = append(endings, s)
						}
					}
				}
				if explains(n.Value) {
					if s, ok := code(n.Key); ok {
						found[s] = true
					}
				}
			case *ast.AssignStmt:
				for i, l := range n.Lhs {
					if s, ok := l.(*ast.SelectorExpr); ok && s.Sel.Name == "Code" && len(n.Lhs) == len(n.Rhs) {
						if s, ok := code(n.Rhs[i]); ok {
							found[s] = true
						}
					}
				}
			}
			return true
		})
	}
	for _, s := range services {
		for _, e := range endings {
			found[s+e] = true
		}
	}
	var all []string
	for s := range found {
		all = append(all, s)
	}
	slices.Sort(all)
	return all
}

func text(e ast.Expr) (string, bool) {
	lit, ok := e.(*ast.BasicLit)
	if !ok || lit.Kind != token.STRING {
		return "", false
	}
	s, err := strconv.Unquote(lit.Value)
	return s, err == nil
}

// words reports whether an expression begins with a text of several words.
func words(e ast.Expr) bool {
	if b, ok := e.(*ast.BinaryExpr); ok {
		return words(b.X)
	}
	s, ok := text(e)
	return ok && strings.Contains(s, " ")
}

// explains reports whether an expression is a fault without its code.
func explains(e ast.Expr) bool {
	c, ok := e.(*ast.CompositeLit)
	return ok && slices.ContainsFunc(c.Elts, func(e ast.Expr) bool {
		kv, ok := e.(*ast.KeyValueExpr)
		return ok && named(kv.Key, "Text")
	})
}

func named(e ast.Expr, name string) bool {
	id, ok := e.(*ast.Ident)
	return ok && id.Name == name
}
