package config

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/viper"
	"go.yaml.in/yaml/v3"
)

// Limits of what is read.
const (
	maxFile    = 64 << 10 // bytes of one file
	maxDropIns = 64
)

// delimiter parts the levels of a key inside viper. It cannot be the dot, or
// the host names under rsp.addresses would be taken apart and lost.
const delimiter = "\x00"

// OriginDefault is the origin of a value that nobody has set.
const OriginDefault = "default"

// Origins tells for every key where its value came from: OriginDefault, the
// path of a file, or "environment LPAD_…". The origin of a map that several
// sources have filled is the last of them.
type Origins map[string]string

// layer is one source, read and checked.
type layer struct {
	origin string
	values map[string]any // nested, as viper merges it
	keys   []string
}

// Load reads the file at path, the drop-ins in dropinDir (a folder that does
// not exist, or "", is one without files) and the variables of environ
// ("NAME=value", as os.Environ returns them).
//
// The error is an [*Error] with all the faults, or matches [ErrAbsent] when
// the only thing missing is the file at path: then the configuration is valid
// and made of the rest. A file that cannot be read is a fault, not absent.
func Load(path, dropinDir string, environ []string) (Config, Origins, error) {
	var faults problems
	s := newSchema()
	var layers []layer
	main, absent := readFile(s, path, &faults)
	if !absent {
		layers = append(layers, main)
	}
	for _, file := range dropIns(dropinDir, &faults) {
		l, _ := readFile(s, file, &faults)
		layers = append(layers, l)
	}
	layers = append(layers, readEnviron(s, environ, &faults)...)
	if err := faults.err(); err != nil {
		return Config{}, nil, err
	}
	cfg, origins, err := merge(s, layers)
	if err != nil {
		return Config{}, nil, err
	}
	if err := cfg.validate(origins); err != nil {
		return Config{}, nil, err
	}
	if absent {
		return cfg, origins, fmt.Errorf("%s: %w", path, ErrAbsent)
	}
	return cfg, origins, nil
}

// dropIns lists the drop-ins in name order.
func dropIns(dir string, faults *problems) []string {
	if dir == "" {
		return nil
	}
	entries, err := os.ReadDir(dir) // sorted by name
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		faults.add("", dir, "cannot be listed: "+cause(err))
		return nil
	}
	var files []string
	for _, e := range entries {
		if strings.HasSuffix(e.Name(), ".yaml") && !strings.HasPrefix(e.Name(), ".") {
			files = append(files, filepath.Join(dir, e.Name()))
		}
	}
	if len(files) > maxDropIns {
		faults.add("", dir, fmt.Sprintf("%d drop-ins, at most %d are read", len(files), maxDropIns))
		return nil
	}
	return files
}

// cause is the error without the path that the origin says already.
func cause(err error) string {
	var p *os.PathError
	if errors.As(err, &p) {
		return p.Err.Error()
	}
	return err.Error()
}

// readFile reads one file. absent is true, without a fault, when there is
// none.
func readFile(s schema, path string, faults *problems) (l layer, absent bool) {
	l.origin = path
	f, err := os.Open(path)
	if errors.Is(err, os.ErrNotExist) {
		return l, true
	}
	if err != nil {
		faults.add("", path, "cannot be opened: "+cause(err))
		return l, false
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err != nil {
		faults.add("", path, "cannot be read: "+cause(err))
		return l, false
	}
	l.values, l.keys = parse(s, path, text, faults)
	return l, false
}

// parse reads one YAML document and checks its version, keys and types.
func parse(s schema, origin string, text []byte, faults *problems) (values map[string]any, keys []string) {
	switch {
	case len(text) > maxFile:
		faults.add("", origin, fmt.Sprintf("longer than %d bytes", maxFile))
		return nil, nil
	case manyDocuments(text):
		faults.add("", origin, "holds a second YAML document, which would be ignored")
		return nil, nil
	}
	raw := map[string]any{}
	if err := yaml.Unmarshal(text, &raw); err != nil { // what viper would do, which links a reader of every format it knows
		faults.add("", origin, strings.ReplaceAll(err.Error(), "\n", " "))
		return nil, nil
	}
	if !checkVersion(origin, raw[versionKey], faults) {
		return nil, nil
	}
	c := checker{schema: s, origin: origin, faults: faults}
	return c.section("", raw), c.keys
}

// manyDocuments finds a document mark after the first line with content. At
// the beginning of a line it is one even within a quoted text.
func manyDocuments(text []byte) bool {
	started := false
	for line := range bytes.Lines(text) {
		line = bytes.TrimRight(line, " \t\r\n")
		mark := bytes.Equal(line, []byte("---")) || bytes.HasPrefix(line, []byte("--- ")) || bytes.HasPrefix(line, []byte("---\t"))
		switch {
		case mark && started, bytes.Equal(line, []byte("...")):
			return true
		case mark:
			started = true
		case len(line) > 0 && line[0] != '#' && line[0] != '%':
			started = true
		}
	}
	return false
}

// checkVersion makes a file say for which format it was written. A newer one
// may mean something else by a key that is known here.
func checkVersion(origin string, v any, faults *problems) bool {
	switch n, ok := v.(int); {
	case v == nil:
		faults.add(versionKey, origin, "missing: the file must say version: 1")
	case !ok:
		faults.add(versionKey, origin, "is not a number")
	case n > Version:
		faults.add(versionKey, origin, fmt.Sprintf("%d is newer than this program, which reads %d", n, Version))
	case n != Version:
		faults.add(versionKey, origin, fmt.Sprintf("%d does not exist, write %d", n, Version))
	default:
		return true
	}
	return false
}

// checker compares one document with the schema.
type checker struct {
	schema schema
	origin string
	base   string // of the names of keys: "cards.NAME."
	faults *problems
	keys   []string
}

func (c *checker) fault(key, text string) { c.faults.add(c.base+key, c.origin, text) }

// section checks the keys of one level and returns those with a value. A key
// without one ("card:" and nothing below) is as good as absent.
func (c *checker) section(prefix string, raw map[string]any) map[string]any {
	out := map[string]any{}
	for _, name := range slices.Sorted(maps.Keys(raw)) {
		key, value := prefix+name, raw[name]
		known, isKey := c.schema[key]
		switch {
		case key == cardsKey && c.base == "":
			out[name] = c.cards(value)
		case !isKey && !c.schema.section(key):
			c.unknown(key)
		case value == nil:
		case isKey:
			if v, ok := c.value(known, value); ok {
				out[name] = v
				c.keys = append(c.keys, c.base+key)
			}
		default:
			nested, ok := value.(map[string]any)
			if !ok {
				c.fault(key, "is a section with keys below it")
				continue
			}
			out[name] = c.section(key+".", nested)
		}
	}
	return out
}

func (c *checker) unknown(key string) {
	text := "unknown key"
	if near := c.schema.nearest(key); near != "" {
		text += ", is " + near + " meant?"
	}
	c.fault(cut(key), text)
}

// cut bounds foreign text in a fault.
func cut(s string) string {
	const most = 80
	if len(s) > most {
		return strings.ToValidUTF8(s[:most], "") + "…"
	}
	return s
}

// value checks the type of one value of a file.
func (c *checker) value(k Key, v any) (any, bool) {
	ok := false
	switch k.Kind {
	case Text:
		_, ok = v.(string)
	case Switch:
		_, ok = v.(bool)
	case Number:
		_, ok = v.(int)
	case Duration:
		return v, c.duration(k, v)
	case List:
		return v, c.list(k, v)
	case Map:
		return c.texts(k, v)
	}
	switch v.(type) {
	case int, int64, uint64, float64, bool, time.Time:
		if !ok && k.Kind == Text {
			c.fault(k.Name, "is not a text; put it into quotes")
			return nil, false
		}
	}
	if !ok {
		c.fault(k.Name, "is not a "+string(k.Kind))
	}
	return v, ok
}

func (c *checker) duration(k Key, v any) bool {
	text, ok := v.(string)
	if ok {
		_, err := time.ParseDuration(text)
		ok = err == nil && text != "0"
	}
	if !ok {
		c.fault(k.Name, "is not a duration with a unit, such as 90s, 10m or 1h30m")
	}
	return ok
}

func (c *checker) list(k Key, v any) bool {
	items, ok := v.([]any)
	for _, item := range items {
		if _, text := item.(string); !text {
			ok = false
		}
	}
	if !ok {
		c.fault(k.Name, "is not a list of texts; put numbers into quotes")
	}
	return ok
}

// texts checks a map and writes its keys in lower case, as viper does, so that
// two of them cannot become one.
func (c *checker) texts(k Key, v any) (any, bool) {
	in, ok := v.(map[string]any)
	if !ok {
		c.fault(k.Name, "is not a map of texts")
		return nil, false
	}
	out := map[string]any{}
	for _, name := range slices.Sorted(maps.Keys(in)) {
		lower := strings.ToLower(name)
		text, isText := in[name].(string)
		switch _, twice := out[lower]; {
		case !isText:
			c.fault(k.Name, "the value of "+cut(name)+" is not a text")
			ok = false
		case twice:
			c.fault(k.Name, cut(lower)+" is there twice, in different case")
			ok = false
		case strings.Contains(name, delimiter):
			c.fault(k.Name, "a name holds a zero byte")
			ok = false
		}
		out[lower] = text
	}
	return out, ok
}

// readEnviron makes a layer of each variable that is ours. A variable that
// begins like one of a section but is none is a fault: a misspelt name must
// not be silently without effect. Other names that begin with LPAD_ belong to
// somebody else.
func readEnviron(s schema, environ []string, faults *problems) []layer {
	byEnv := map[string]Key{}
	sections := map[string]bool{}
	for _, k := range s {
		if k.Env != "" {
			byEnv[k.Env] = k
		}
		if section, _, ok := strings.Cut(k.Name, "."); ok {
			sections[envPrefix+strings.ToUpper(section)+"_"] = true
		}
	}
	var layers []layer
	for _, entry := range slices.Sorted(slices.Values(environ)) {
		name, text, _ := strings.Cut(entry, "=")
		k, known := byEnv[name]
		origin := "environment " + cut(name)
		switch {
		case !known:
			for section := range sections {
				if strings.HasPrefix(name, section) {
					faults.add("", origin, "no key has this name")
				}
			}
		case text == "":
		default:
			c := checker{schema: s, origin: origin, faults: faults}
			if v, ok := c.fromText(k, text); ok {
				layers = append(layers, layer{origin, nest(k.Name, v), []string{k.Name}})
			}
		}
	}
	return layers
}

// fromText reads the value of a variable.
func (c *checker) fromText(k Key, text string) (any, bool) {
	switch k.Kind {
	case Number:
		n, err := strconv.Atoi(text)
		if err != nil {
			c.fault(k.Name, "is not a number")
		}
		return n, err == nil
	case Switch:
		if text != "true" && text != "false" {
			c.fault(k.Name, "is not true or false")
			return nil, false
		}
		return text == "true", true
	case List:
		var items []any
		for item := range strings.SplitSeq(text, ",") {
			items = append(items, strings.TrimSpace(item))
		}
		return items, true
	case Map:
		in := map[string]any{}
		for item := range strings.SplitSeq(text, ",") {
			name, value, ok := strings.Cut(strings.TrimSpace(item), "=")
			if !ok {
				c.fault(k.Name, "is not written as name=value,name=value")
				return nil, false
			}
			in[name] = value
		}
		return c.texts(k, in)
	}
	return c.value(k, text)
}

// nest puts a value under its dotted name.
func nest(name string, value any) map[string]any {
	section, rest, ok := strings.Cut(name, ".")
	if !ok {
		return map[string]any{name: value}
	}
	return map[string]any{section: nest(rest, value)}
}

// merge lays the layers over the defaults.
func merge(s schema, layers []layer) (Config, Origins, error) {
	origins := Origins{}
	for key := range s {
		origins[key] = OriginDefault
	}
	v := viper.NewWithOptions(viper.KeyDelimiter(delimiter))
	for _, l := range layers {
		if err := v.MergeConfigMap(l.values); err != nil {
			return Config{}, nil, fmt.Errorf("%s: %w", l.origin, err)
		}
		for _, key := range l.keys {
			origins[key] = l.origin
		}
	}
	cfg := Default()
	walk(reflect.ValueOf(&cfg).Elem(), "", func(name string, field reflect.Value) {
		if value := v.Get(strings.ReplaceAll(name, ".", delimiter)); value != nil {
			assign(field, value)
		}
	})
	names, _ := v.Get(cardsKey).(map[string]any)
	for _, name := range slices.Sorted(maps.Keys(names)) {
		n := Named{Name: name, Card: cfg.Card, Modem: cfg.Modem, Network: cfg.Network}
		walk(reflect.ValueOf(&n).Elem(), cardsKey+"."+name+".", func(key string, field reflect.Value) {
			if value := v.Get(strings.ReplaceAll(key, ".", delimiter)); value != nil {
				assign(field, value)
			}
		})
		cfg.Cards = append(cfg.Cards, n)
	}
	return cfg, origins, nil
}

// assign sets a field to a value that was checked for the kind of its key.
// (viper's own Unmarshal would bring a converter of everything to everything
// along, a hundredth of the program.)
func assign(field reflect.Value, value any) {
	switch value := value.(type) {
	case string:
		if field.Type() == reflect.TypeFor[time.Duration]() {
			d, _ := time.ParseDuration(value) // was parsed before, by checker.duration
			field.SetInt(int64(d))
			return
		}
		field.SetString(value)
	case bool:
		field.SetBool(value)
	case int:
		field.SetInt(int64(value))
	case []any:
		list := make([]string, len(value))
		for i, item := range value {
			list[i], _ = item.(string)
		}
		field.Set(reflect.ValueOf(list))
	case map[string]any:
		texts := make(map[string]string, len(value))
		for name, text := range value {
			texts[name], _ = text.(string)
		}
		field.Set(reflect.ValueOf(texts))
	}
}
