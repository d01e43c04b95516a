package config

import (
	"reflect"
	"slices"
	"strings"
)

// Changed lists the keys that have another value in b than in a, in the order
// of their names. Of several cards the keys are those of each card
// ("cards.spare.card.reader"); one that has come or gone is "cards.spare".
func Changed(a, b Config) []string {
	one, two := values(a), values(b)
	names := map[string]bool{}
	for key := range one {
		names[key] = true
	}
	for key := range two {
		names[key] = true
	}
	var keys []string
	for key := range names {
		v, before := one[key]
		w, after := two[key]
		if before == after && reflect.DeepEqual(v, w) {
			continue
		}
		if parts := strings.SplitN(key, ".", 3); before != after && len(parts) == 3 && parts[0] == cardsKey {
			continue // its card has come or gone, which is told
		}
		keys = append(keys, key)
	}
	slices.Sort(keys)
	return keys
}

// values are those of the keys. With several cards the sections of a card are
// not those at the top any more, but its own.
func values(c Config) map[string]any {
	all := map[string]any{}
	collect := func(v reflect.Value, prefix string) {
		walk(v, prefix, func(name string, field reflect.Value) {
			if field.Kind() == reflect.Slice || field.Kind() == reflect.Map {
				if field.Len() == 0 { // none and empty are the same
					all[name] = nil
					return
				}
			}
			all[name] = field.Interface()
		})
	}
	collect(reflect.ValueOf(c), "")
	for _, n := range c.Cards {
		all[cardsKey+"."+n.Name] = true
		collect(reflect.ValueOf(n), cardsKey+"."+n.Name+".")
	}
	return all
}
