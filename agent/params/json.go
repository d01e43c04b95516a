package params

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"unicode/utf8"

	"lpad/internal/fault"
)

// Limits of a document. The largest sensible one has 3 kB and 5 levels.
const (
	maxDocument = 64 << 10 // bytes
	maxDepth    = 8
	maxIgnored  = 32 // unknown members that are listed
)

// DocumentError says why a document of terminal parameters is refused.
type DocumentError struct {
	Pointer string // JSON pointer (RFC 6901) to the value; "" is the whole document
	Problem string
}

// Error implements error.
func (e *DocumentError) Error() string {
	where := e.Pointer
	if where == "" {
		where = "the document"
	}
	return fmt.Sprintf("terminal parameters: %s: %s", where, e.Problem)
}

// Fault implements fault.Explainer.
func (e *DocumentError) Fault() fault.Fault {
	return fault.Fault{Code: "parameters-invalid", Text: e.Error(), Who: fault.Operator,
		Next: "correct the document of terminal parameters and send the order again"}
}

func refuse(pointer, format string, a ...any) error {
	return &DocumentError{pointer, fmt.Sprintf(format, a...)}
}

// node is a JSON value with the place where it stands.
type node struct {
	pointer string
	value   any // nil, bool, json.Number, string, []*node, *object
}

// object keeps its members in order.
type object struct {
	names  []string
	values map[string]*node
}

// parseJSON reads one value and refuses what JSON leaves open: two members of
// one name, bytes that are not UTF-8, data behind the value.
func parseJSON(text []byte) (*node, error) {
	if len(text) > maxDocument {
		return nil, refuse("", "longer than %d bytes", maxDocument)
	}
	if !utf8.Valid(text) {
		return nil, refuse("", "not UTF-8")
	}
	d := json.NewDecoder(bytes.NewReader(text))
	d.UseNumber()
	n, err := readNode(d, "", 0)
	if err != nil {
		return nil, err
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return nil, refuse("", "something follows the document")
	}
	return n, nil
}

func readNode(d *json.Decoder, pointer string, depth int) (*node, error) {
	t, err := d.Token()
	if err != nil {
		return nil, refuse(pointer, "not JSON, at byte %d", d.InputOffset())
	}
	delim, ok := t.(json.Delim)
	if !ok {
		return &node{pointer, t}, nil
	}
	if depth == maxDepth {
		return nil, refuse(pointer, "nested deeper than %d levels", maxDepth)
	}
	if delim == '[' {
		return readArray(d, pointer, depth+1)
	}
	return readObject(d, pointer, depth+1)
}

func readArray(d *json.Decoder, pointer string, depth int) (*node, error) {
	items := []*node{}
	for d.More() {
		item, err := readNode(d, pointer+"/"+strconv.Itoa(len(items)), depth)
		if err != nil {
			return nil, err
		}
		items = append(items, item)
	}
	return &node{pointer, items}, closeNode(d, pointer)
}

func readObject(d *json.Decoder, pointer string, depth int) (*node, error) {
	o := &object{values: map[string]*node{}}
	for d.More() {
		t, err := d.Token()
		name, ok := t.(string)
		if err != nil || !ok {
			return nil, refuse(pointer, "not JSON, at byte %d", d.InputOffset())
		}
		at := pointer + "/" + escape(name)
		if _, twice := o.values[name]; twice {
			return nil, refuse(at, "is there twice")
		}
		if o.values[name], err = readNode(d, at, depth); err != nil {
			return nil, err
		}
		o.names = append(o.names, name)
	}
	return &node{pointer, o}, closeNode(d, pointer)
}

func closeNode(d *json.Decoder, pointer string) error {
	if _, err := d.Token(); err != nil {
		return refuse(pointer, "not JSON, at byte %d", d.InputOffset())
	}
	return nil
}

// escape writes a member's name for a pointer, bounded.
func escape(name string) string {
	const most = 64
	if len(name) > most {
		name = strings.ToValidUTF8(name[:most], "") + "…"
	}
	return strings.NewReplacer("~", "~0", "/", "~1").Replace(name)
}

// reader takes a document apart and keeps the first error.
type reader struct {
	err     error
	ignored []string
}

func (r *reader) fail(n *node, format string, a ...any) {
	if r.err == nil {
		r.err = refuse(n.pointer, format, a...)
	}
}

// members reads an object by a function for each known member. A null object
// calls each with a null, as what is below an unset member is unset.
func (r *reader) members(n *node, known map[string]func(*node)) {
	if n.value == nil {
		for name, read := range known {
			read(&node{n.pointer + "/" + name, nil})
		}
		return
	}
	o, ok := n.value.(*object)
	if !ok {
		r.fail(n, "is not an object")
		return
	}
	for _, name := range o.names {
		if read := known[name]; read != nil {
			read(o.values[name])
		} else if len(r.ignored) < maxIgnored {
			r.ignored = append(r.ignored, o.values[name].pointer)
		}
	}
}

func (r *reader) text(n *node) string {
	s, ok := n.value.(string)
	if !ok {
		r.fail(n, "is not a text")
	}
	return s
}

// word is a text that is one of a list.
func (r *reader) word(n *node, allowed ...string) string {
	s := r.text(n)
	for _, a := range allowed {
		if s == a {
			return s
		}
	}
	r.fail(n, "is not one of %s", strings.Join(allowed, ", "))
	return ""
}

func (r *reader) bool(n *node) bool {
	b, ok := n.value.(bool)
	if !ok {
		r.fail(n, "is neither true nor false")
	}
	return b
}

func (r *reader) int(n *node, low, high int64) int64 {
	number, ok := n.value.(json.Number)
	if !ok {
		r.fail(n, "is not a number")
		return 0
	}
	i, err := strconv.ParseInt(number.String(), 10, 64)
	if err != nil || i < low || i > high {
		r.fail(n, "is not a whole number from %d to %d", low, high)
		return 0
	}
	return i
}

// list reads at most max items.
func list[T any](r *reader, n *node, max int, item func(*node) T) []T {
	items, ok := n.value.([]*node)
	if !ok {
		r.fail(n, "is not a list")
		return nil
	}
	if len(items) > max {
		r.fail(n, "has %d entries, at most %d are allowed", len(items), max)
		return nil
	}
	out := make([]T, 0, len(items))
	for _, i := range items {
		out = append(out, item(i))
	}
	return out
}
