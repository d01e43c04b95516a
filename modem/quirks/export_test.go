package quirks

// What the tests of the package look at from outside.

// BuiltinError is what is wrong with the built-in table.
func BuiltinError() error {
	_, err := Builtin().parse(func(*Match) bool { return true })
	return err
}

// Peeked are the matches of the built-in lines, as those are chosen by.
func Peeked() []Match {
	var all []Match
	extract(builtin, func(m *Match) bool { all = append(all, *m); return true })
	return all
}

// Parse reads one file of the OEM: its own lines, and the table with it.
func Parse(b []byte) ([]Line, *Table, error) {
	var lines list
	err := lines.read("test.yaml", string(b), 1)
	return lines, &Table{oem: []oemFile{{"test.yaml", string(b)}}}, err
}

// ParseMemory reads the memory's file.
var ParseMemory = parseMemory

// Apply is what one line says.
func Apply(l Line) Quirks {
	q := unknown()
	l.apply(&q)
	return q
}

// Keys are the keys of facts.
func Keys() []string {
	var keys []string
	for k := range factKeys() {
		keys = append(keys, k)
	}
	return keys
}

// Glob matches a pattern.
var Glob = glob
