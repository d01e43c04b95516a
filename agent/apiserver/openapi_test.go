package apiserver_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"maps"
	"net/http"
	"os"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"go.yaml.in/yaml/v3"

	"lpad/agent/api"
	"lpad/agent/apiserver"
)

// openAPI is as much of docs/openapi.yaml as is held against the server.
type openAPI struct {
	OpenAPI    string                          `yaml:"openapi"`
	Paths      map[string]map[string]operation `yaml:"paths"`
	Components struct {
		Schemas map[string]schema `yaml:"schemas"`
	} `yaml:"components"`
}

type operation struct {
	ID         string `yaml:"operationId"`
	Summary    string `yaml:"summary"`
	Level      string `yaml:"x-level"`
	Parameters []struct {
		Name     string `yaml:"name"`
		In       string `yaml:"in"`
		Required bool   `yaml:"required"`
		Ref      string `yaml:"$ref"`
	} `yaml:"parameters"`
	Body      media            `yaml:"requestBody"`
	Responses map[string]media `yaml:"responses"`
}

type media struct {
	Ref     string `yaml:"$ref"`
	Content map[string]struct {
		Schema schema `yaml:"schema"`
	} `yaml:"content"`
}

type schema struct {
	Type       any               `yaml:"type"`
	Format     string            `yaml:"format"`
	Ref        string            `yaml:"$ref"`
	Items      *schema           `yaml:"items"`
	Required   []string          `yaml:"required"`
	Properties map[string]schema `yaml:"properties"`
	Closed     *bool             `yaml:"additionalProperties"`
	Codes      []string          `yaml:"x-codes"`
	About      string            `yaml:"description"`
}

const schemas = "#/components/schemas/"

func readOpenAPI(t *testing.T) openAPI {
	t.Helper()
	b, err := os.ReadFile("../../docs/openapi.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var doc openAPI
	if err := yaml.Unmarshal(b, &doc); err != nil {
		t.Fatal(err)
	}
	for _, ref := range regexp.MustCompile(`\$ref: "#/components/(\w+)/(\w+)"`).FindAllSubmatch(b, -1) {
		if !bytes.Contains(b, fmt.Appendf(nil, "\n  %s:\n", ref[1])) || !bytes.Contains(b, fmt.Appendf(nil, "\n    %s:\n", ref[2])) {
			t.Errorf("%s leads nowhere", ref[0])
		}
	}
	return doc
}

// messages are the structs of package api.
var messages = map[string]reflect.Type{}

func init() {
	for _, v := range []any{api.APDURequest{}, api.APDUs{}, api.Trust{}, api.AnswerRequest{}, api.Capability{}, api.CardStatus{}, api.Cards{}, api.Clock{}, api.Declared{}, api.Document{}, api.DroppedNotification{},
		api.EUICC{}, api.Effective{}, api.EnableRequest{}, api.Event{}, api.HookRun{}, api.InstallRequest{}, api.Job{}, api.Jobs{}, api.Learned{},
		api.Managers{}, api.Mark{}, api.Network{}, api.NicknameRequest{}, api.NoteStatus{}, api.Notification{}, api.Notifications{}, api.Packet{}, api.PacketWait{}, api.Packets{}, api.Parameter{},
		api.Probe{}, api.Problem{}, api.Profile{}, api.Profiles{}, api.Progress{}, api.Quarantine{}, api.Relay{}, api.Slot{}, api.SlotRequest{}, api.Status{},
		api.Suspended{}, api.TrustRoot{}} {
		messages[reflect.TypeOf(v).Name()] = reflect.TypeOf(v)
	}
}

// Every path of the file is served with its method and level, and every route is
// in the file; what is said of bodies and answers is what the server does.
func TestOpenAPIPaths(t *testing.T) {
	doc := readOpenAPI(t)
	if doc.OpenAPI != "3.1.0" {
		t.Errorf("openapi %q", doc.OpenAPI)
	}
	left := apiserver.Served()
	ids := map[string]bool{}
	s := serve(t, &backend{more: make(chan api.Event)}, apiserver.Options{})
	for path, operations := range doc.Paths {
		for method, op := range operations {
			route := strings.ToUpper(method) + " " + path
			level, served := left[route]
			if !served {
				t.Errorf("%s is not served", route)
				continue
			}
			delete(left, route)
			if op.Level != level.String() || op.Summary == "" || op.ID == "" || ids[op.ID] {
				t.Errorf("%s: level %q, want %v; id %q, summary %q", route, op.Level, level, op.ID, op.Summary)
			}
			ids[op.ID] = true
			var names []string
			card := false
			for _, p := range op.Parameters {
				card = card || p.Ref == "#/components/parameters/card"
				if p.In == "path" && p.Required {
					names = append(names, "{"+p.Name+"}")
				}
			}
			if want := regexp.MustCompile(`{\w+}`).FindAllString(path, -1); !slices.Equal(names, want) || !card {
				t.Errorf("%s: parameters %v, want %v, and card: %v", route, names, want, card)
			}
			i := slices.IndexFunc(matrix, func(row struct{ route, path, body, read, operate, admin string }) bool { return row.route == route })
			if i < 0 {
				continue // which TestAuthorisation says
			}
			tryOperation(t, s, route, matrix[i].path, matrix[i].body, op, doc)
		}
	}
	for route := range left {
		t.Errorf("%s is not in docs/openapi.yaml", route)
	}
}

// tryOperation does what the file describes.
func tryOperation(t *testing.T, s *server, route, path, body string, op operation, doc openAPI) {
	t.Helper()
	method := methodOf(route)
	var kind, answer string
	for kind = range op.Body.Content {
	}
	req, err := http.NewRequest(method, "http://"+api.Host+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	if kind != "" {
		req.Header.Set("Content-Type", kind)
	}
	if _, upgrades := op.Responses["101"]; upgrades {
		req.Header.Set("Connection", "Upgrade")
		req.Header.Set("Upgrade", api.RelayProtocol)
	}
	resp, err := s.client.Transport.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	good, described := op.Responses[fmt.Sprint(resp.StatusCode)]
	for answer = range good.Content {
	}
	if got, _, _ := strings.Cut(resp.Header.Get("Content-Type"), ";"); !described || got != answer || len(op.Responses) != 2 || op.Responses["default"].Ref != "#/components/responses/Problem" {
		t.Errorf("%s: %s %s, described as %+v", route, resp.Status, got, op.Responses)
	}
	if answer == "application/json" {
		name := strings.TrimPrefix(good.Content[answer].Schema.Ref, schemas)
		b, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		d := json.NewDecoder(bytes.NewReader(b))
		d.DisallowUnknownFields()
		if err := d.Decode(reflect.New(messages[name]).Interface()); err != nil {
			t.Errorf("%s: %s is no %s: %v", route, b, name, err)
		}
		var members map[string]any
		if err := json.Unmarshal(b, &members); err != nil {
			t.Fatal(err)
		}
		for _, m := range doc.Components.Schemas[name].Required {
			if _, ok := members[m]; !ok {
				t.Errorf("%s: %s has no %s", route, b, m)
			}
		}
	}

	// A request's schema is closed, and what it needs is needed. The routes
	// without a body do not look at one.
	name := strings.TrimPrefix(op.Body.Content["application/json"].Schema.Ref, schemas)
	if takes := kind != ""; takes != (body != "" || strings.HasSuffix(path, "/enable")) {
		t.Errorf("%s: takes a body: %v", route, takes)
	}
	if name == "" {
		return
	}
	for body, refused := range map[string]bool{`{"x-unknown":1}`: true, `{}`: len(doc.Components.Schemas[name].Required) > 0} {
		if resp, got := s.ask(method, path, body); (resp.StatusCode == http.StatusBadRequest) != refused {
			t.Errorf("%s %s: %s %s", route, body, resp.Status, got)
		}
	}
}

// Every struct of package api has a schema, with the members that it has, their
// types, and which of them are always there; and there is no other schema.
func TestOpenAPISchemas(t *testing.T) {
	f, err := parser.ParseFile(token.NewFileSet(), "../api/api.go", nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	ast.Inspect(f, func(n ast.Node) bool {
		if s, ok := n.(*ast.TypeSpec); ok && ast.IsExported(s.Name.Name) && messages[s.Name.Name] == nil {
			t.Errorf("api.%s is not among the messages of this test", s.Name.Name)
		}
		return true
	})
	doc := readOpenAPI(t)
	for name := range doc.Components.Schemas {
		if messages[name] == nil {
			t.Errorf("the schema %s is of nothing", name)
		}
	}
	for name, typ := range messages {
		t.Run(name, func(t *testing.T) {
			got, ok := doc.Components.Schemas[name]
			if !ok || got.Type != "object" || got.About == "" {
				t.Fatalf("no schema of an object: %+v", got)
			}
			request := strings.HasSuffix(name, "Request")
			if (got.Closed != nil && !*got.Closed) != request {
				t.Error("requests are closed, and nothing else is")
			}
			want, required := map[string]string{}, []string{}
			for _, f := range reflect.VisibleFields(typ) {
				tag, rest, omitted := strings.Cut(f.Tag.Get("json"), ",")
				if f.Anonymous {
					continue
				}
				if tag == "" || tag == "-" || omitted && rest != "omitempty" && rest != "omitzero" {
					t.Fatalf("%s has the tag %q, of which this test knows nothing", f.Name, f.Tag)
				}
				want[tag] = typeOf(f.Type)
				if !omitted && f.Type.Kind() == reflect.Slice && f.Type != reflect.TypeFor[json.RawMessage]() {
					want[tag] += " or null"
				}
				if !omitted && !request {
					required = append(required, tag)
				}
			}
			if name == "SlotRequest" {
				required = []string{"slot"}
			}
			have := map[string]string{}
			for member, s := range got.Properties {
				have[member] = s.String()
			}
			if !maps.Equal(have, want) {
				t.Errorf("members\n%v, the struct has\n%v", have, want)
			}
			slices.Sort(required)
			if slices.Sort(got.Required); !slices.Equal(got.Required, required) {
				t.Errorf("required %v, want %v", got.Required, required)
			}
		})
	}
}

// typeOf names a Go type as schema.String does.
func typeOf(t reflect.Type) string {
	switch {
	case t == reflect.TypeFor[time.Time]():
		return "string date-time"
	case t == reflect.TypeFor[json.RawMessage]():
		return "anything"
	case t.Kind() == reflect.Pointer:
		return typeOf(t.Elem())
	case t.Kind() == reflect.Slice:
		return "array of " + typeOf(t.Elem())
	case t.Kind() == reflect.Struct:
		return t.Name()
	case t.Kind() == reflect.Bool:
		return "boolean"
	case t.Kind() == reflect.Int:
		return "integer int64"
	}
	if k := t.Kind().String(); k != "string" {
		return "integer " + k
	}
	return "string"
}

func (s schema) String() string {
	text := ""
	switch typ := s.Type.(type) {
	case nil:
		text = strings.TrimPrefix(s.Ref, schemas)
		if text == "" {
			text = "anything"
		}
	case string:
		text = typ
		if s.Format != "" {
			text += " " + s.Format
		}
		if s.Items != nil {
			text += " of " + s.Items.String()
		}
	case []any:
		text = fmt.Sprintf("%v of %v or %v", typ[0], s.Items, typ[1])
	}
	return text
}

// Every code that the sources can make is in the file, and no other.
func TestOpenAPICodes(t *testing.T) {
	listed := readOpenAPI(t).Components.Schemas["Problem"].Properties["code"].Codes
	made := codesOfTheSource(t)
	if len(made) < 200 {
		t.Fatalf("only %d codes were found in the sources", len(made))
	}
	for _, c := range made {
		if !slices.Contains(listed, c) {
			t.Errorf("docs/openapi.yaml lacks the code %s", c)
		}
	}
	for _, c := range listed {
		if !slices.Contains(made, c) {
			t.Errorf("docs/openapi.yaml lists the code %s, which nothing makes", c)
		}
	}
	if !slices.IsSorted(listed) || len(slices.Compact(slices.Clone(listed))) != len(listed) {
		t.Error("the codes are not in order, or one is there twice")
	}
}
