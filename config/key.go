package config

import (
	"reflect"
	"sort"
	"strings"
	"time"
)

// Kind is the type of a key's value.
type Kind string

// The kinds of values.
const (
	Text     Kind = "text"
	Number   Kind = "number"
	Switch   Kind = "true or false"
	Duration Kind = "duration with a unit"
	List     Kind = "list of texts"
	Map      Kind = "map of texts"
)

// Key is one key of the configuration.
type Key struct {
	Name string // "card.at_port"
	Env  string // "LPAD_CARD_AT_PORT"; empty for version, which belongs to a file
	Kind Kind
}

// versionKey is the one key that is about a file and not about the device.
const versionKey = "version"

// envPrefix begins the name of every environment variable.
const envPrefix = "LPAD_"

// Keys lists every key in the order of their names.
func Keys() []Key {
	var keys []Key
	walk(reflect.ValueOf(Config{}), "", func(name string, field reflect.Value) {
		env := envPrefix + strings.ToUpper(strings.ReplaceAll(name, ".", "_"))
		if name == versionKey {
			env = ""
		}
		keys = append(keys, Key{name, env, kindOf(field.Type())})
	})
	sort.Slice(keys, func(i, j int) bool { return keys[i].Name < keys[j].Name })
	return keys
}

// walk visits the leaves of the struct.
func walk(v reflect.Value, prefix string, leaf func(name string, field reflect.Value)) {
	for i := range v.NumField() {
		f := v.Type().Field(i)
		if f.Tag.Get("key") == "-" {
			continue
		}
		name := prefix + f.Tag.Get("key")
		if f.Type.Kind() == reflect.Struct {
			walk(v.Field(i), name+".", leaf)
			continue
		}
		leaf(name, v.Field(i))
	}
}

func kindOf(t reflect.Type) Kind {
	switch {
	case t == reflect.TypeFor[time.Duration]():
		return Duration
	case t.Kind() == reflect.Bool:
		return Switch
	case t.Kind() == reflect.Int, t.Kind() == reflect.Int64:
		return Number
	case t.Kind() == reflect.Slice:
		return List
	case t.Kind() == reflect.Map:
		return Map
	}
	return Text
}

// schema finds keys by name.
type schema map[string]Key

func newSchema() schema {
	s := schema{}
	for _, k := range Keys() {
		s[k.Name] = k
	}
	return s
}

// section reports whether name is the beginning of keys: "card".
func (s schema) section(name string) bool {
	for key := range s {
		if strings.HasPrefix(key, name+".") {
			return true
		}
	}
	return false
}

// nearest finds the key that a misspelt name may have meant, or "".
func (s schema) nearest(name string) string {
	best, distance := "", len(name)/3+1
	for _, k := range Keys() {
		if d := edits(name, k.Name); d < distance {
			best, distance = k.Name, d
		}
	}
	return best
}

// maxNear bounds the names that are compared letter by letter.
const maxNear = 64

// edits is the number of letters to change, add or remove between two names.
func edits(a, b string) int {
	if len(a) > maxNear || len(b) > maxNear {
		return maxNear
	}
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		previous := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := previous
			if a[i] != b[j] {
				cost++
			}
			previous = row[j+1]
			row[j+1] = min(cost, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}
