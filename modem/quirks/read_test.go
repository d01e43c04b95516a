package quirks_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"

	"lpad/internal/fault"
	"lpad/modem"
	"lpad/modem/quirks"
)

// folder is an OEM's folder with these files, "name.yaml": text.
func folder(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// one is a file with one line, whose name, pattern and source are there.
func one(facts string) string {
	return "version: 1\nmodems:\n- name: x\n  model: X*\n  source: https://example.com/x\n" + facts
}

var ec20 = modem.Identity{Manufacturer: "Quectel", Model: "EC20F", Revision: "EC20CEHDLGR06A07M1G"}

func TestLoad(t *testing.T) {
	for _, tc := range []struct {
		name  string
		files map[string]string
		names string // of the lines that fit the EC20
		check func(q quirks.Quirks) bool
	}{
		{"an empty folder", nil, "quectel quectel-ec20 quectel-ec25-ports", func(q quirks.Quirks) bool { return q.APDU.BlockSize == 120 }},
		{"an empty file, and one with only comments", map[string]string{"a.yaml": "", "b.yaml": "# nothing\n"}, "quectel quectel-ec20 quectel-ec25-ports",
			func(q quirks.Quirks) bool { return q.APDU.BlockSize == 120 }},
		{"a file with another name is not read", map[string]string{"a.yml": "nonsense: [", "b.yaml.bak": "x"}, "quectel quectel-ec20 quectel-ec25-ports",
			func(q quirks.Quirks) bool { return q.APDU.BlockSize == 120 }},
		{
			"a line with the same name takes the place of the other one",
			map[string]string{"a.yaml": "version: 1\nmodems:\n- {name: quectel-ec20, model: EC20*, block_size: 60, source: https://example.com/}\n"},
			"quectel quectel-ec20 quectel-ec25-ports",
			func(q quirks.Quirks) bool { return q.APDU.BlockSize == 60 && q.APDU.Paths == nil && q.Reread == nil },
		},
		{
			"and its rank: a general line stays under the specific ones",
			map[string]string{"a.yaml": "version: 1\nmodems:\n- {name: quectel, manufacturer: Quectel*, block_size: 200, reset: AT+QPOWD, source: https://example.com/}\n"},
			"quectel quectel-ec20 quectel-ec25-ports",
			func(q quirks.Quirks) bool { return q.APDU.BlockSize == 120 && q.Reset[0] == "AT+QPOWD" },
		},
		{
			"any other line is merged over the built-in ones, however general",
			map[string]string{"a.yaml": "version: 1\nmodems:\n- {name: ours, manufacturer: Quectel*, block_size: 60, source: https://example.com/}\n"},
			"quectel quectel-ec20 quectel-ec25-ports ours",
			func(q quirks.Quirks) bool { return q.APDU.BlockSize == 60 && q.APDU.Paths[0] == quirks.CSIM },
		},
		{
			"among an OEM's lines the specific one wins, whatever its file",
			map[string]string{
				"a.yaml": "version: 1\nmodems:\n- {name: firmware, revision: EC20CEHDLGR06A07*, block_size: 32, source: https://example.com/}\n",
				"b.yaml": "version: 1\nmodems:\n- {name: model, model: EC20*, block_size: 60, settle: 2s, source: https://example.com/}\n",
			},
			"quectel quectel-ec20 quectel-ec25-ports model firmware",
			func(q quirks.Quirks) bool { return q.APDU.BlockSize == 32 && q.SIM.Settle.Seconds() == 2 },
		},
		{
			"files are read in the order of their names, and a later one may replace a line of an earlier one",
			map[string]string{
				"10-a.yaml": "version: 1\nmodems:\n- {name: ours, model: EC20*, block_size: 60, source: https://example.com/}\n",
				"20-b.yaml": "version: 1\nmodems:\n- {name: ours, model: EC20*, block_size: 61, source: https://example.com/}\n",
			},
			"quectel quectel-ec20 quectel-ec25-ports ours",
			func(q quirks.Quirks) bool { return q.APDU.BlockSize == 61 },
		},
		{
			"short addresses of the file's own",
			map[string]string{"a.yaml": "version: 1\nshort: {'bugs#': https://example.com/bug/}\nmodems:\n- {name: ours, model: EC20*, rung_time: {refresh: 1m}, source: 'bugs#7'}\n"},
			"quectel quectel-ec20 quectel-ec25-ports ours",
			func(q quirks.Quirks) bool { return q.Sources[len(q.Sources)-1] == "https://example.com/bug/7" },
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			table, err := quirks.Load(folder(t, tc.files))
			if err != nil {
				t.Fatal(err)
			}
			q := table.Find(ec20)
			if got := strings.Join(q.Names, " "); got != tc.names || !tc.check(q) {
				t.Errorf("lines %q, want %q; %+v", got, tc.names, q)
			}
		})
	}
}

func TestLoadWithoutFolder(t *testing.T) {
	for _, dir := range []string{"", filepath.Join(t.TempDir(), "absent")} {
		table, err := quirks.Load(dir)
		if err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(quirks.Builtin().Find(ec20), table.Find(ec20)); d != "" {
			t.Errorf("%q: %s", dir, d)
		}
	}
}

// What an OEM's file replaces is not replaced for those who use the built-in table.
func TestLoadLeavesTheBuiltinTable(t *testing.T) {
	want := quirks.Builtin().Find(ec20)
	dir := folder(t, map[string]string{"a.yaml": "version: 1\nmodems:\n- {name: quectel-ec20, model: EC20*, block_size: 60, source: https://example.com/}\n"})
	if _, err := quirks.Load(dir); err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(want, quirks.Builtin().Find(ec20)); d != "" {
		t.Error(d)
	}
}

func TestLoadRefuses(t *testing.T) {
	long := strings.Repeat("a", 201)
	for _, tc := range []struct{ name, text, want string }{
		{"no YAML", "modems: [", "x.yaml: yaml: line 1"},
		{"a list", "- a\n", "x.yaml:1: file: a mapping is wanted"},
		{"no version", "modems: []\n", "x.yaml:1: version: 1 is wanted"},
		{"another version", "version: 2\n", "version: 1 is wanted"},
		{"two documents", "version: 1\n---\nversion: 1\n", "one document a file"},
		{"an unknown key of the file", "version: 1\nmodem: []\n", `x.yaml:2: unknown key "modem"`},
		{"an unknown key of a line", one("  blocksize: 3\n"), `x.yaml:6: unknown key "blocksize"`},
		{"a key that is there twice", one("  handle: hex\n  handle: bare\n"), `x.yaml:7: line: "handle" is there twice`},
		{"a bad time", one("  settle: 600\n"), "x.yaml:6: settle: a time up to 1h0m0s is wanted, with its unit: 30s"},
		{"a time that is too long", one("  last_block: 2h\n"), "x.yaml:6: last_block"},
		{"a negative time", one("  command: -1s\n"), "x.yaml:6: command"},
		{"an unknown rung", one("  reread: [refresh, cfun-9]\n"), `x.yaml:6: reread: "cfun-9" is none of refresh, `},
		{"a time for an unknown rung", one("  rung_time: {power: 1s}\n"), `x.yaml:6: rung_time: "power" is none of`},
		{"an unknown path", one("  paths: [qmi]\n"), `x.yaml:6: paths: "qmi" is none of ccho, csim`},
		{"an unknown way to enable", one("  enable: eid\n"), `x.yaml:6: enable: "eid" is none of`},
		{"a block that is too big", one("  block_size: 256\n"), "x.yaml:6: block_size: a number from 1 to 255 is wanted"},
		{"no number", one("  channels: many\n"), "x.yaml:6: channels: a number"},
		{"yes is not true", one("  reset_hangs_up: yes\n"), "x.yaml:6: reset_hangs_up: true or false is wanted"},
		{"no AT command", one("  reset: rm -rf\n"), `x.yaml:6: reset: "rm -rf" is no AT command`},
		{"two commands in one", one("  reset: \"AT\\rATD112;\"\n"), "x.yaml:6: reset: 1 to 200 printable characters are wanted"},
		{"an empty text", one("  urcs: \"\"\n"), "x.yaml:6: urcs: 1 to 200 printable characters are wanted"},
		{"a long text", one("  note: " + long + "\n"), "x.yaml:6: note: 1 to 200"},
		{"a long list", one("  note: [" + strings.Repeat("a, ", 32) + "a]\n"), "x.yaml:6: note: at most 32 entries"},
		{"nothing", one("  iccid:\n"), "x.yaml:6: iccid: a plain value is wanted"},
		{"a mapping for a text", one("  handle: {a: b}\n"), "x.yaml:6: handle: a plain value is wanted"},
		{"a slot without a number", one("  slot_set: AT+QUIMSLOT=1\n"), "x.yaml:6: slot_set: %d is wanted once"},
		{"a slot with another verb", one("  slot_set: AT+QUIMSLOT=%s%d\n"), "x.yaml:6: slot_set: %d is wanted once"},
		{"an unknown role", one("  ports: {2: ppp}\n"), "x.yaml:6: ports: the number of a USB interface with one of"},
		{"a port without a number", one("  ports: {two: at}\n"), "x.yaml:6: ports: the number"},
		{"inferred, but not said", one("  inferred: [paths]\n"), `x.yaml:6: inferred: the line says nothing of "paths"`},
		{"no source", "version: 1\nmodems:\n- {name: x, model: X}\n", "x.yaml:3: x: a source is wanted"},
		{"a source that is no address", "version: 1\nmodems:\n- {name: x, model: X, source: my desk}\n", `x.yaml:3: source: "my desk" is no https address`},
		{"no name", "version: 1\nmodems:\n- {model: X, source: https://example.com}\n", "x.yaml:3: a line without a name"},
		{"of nobody", "version: 1\nmodems:\n- {name: x, source: https://example.com}\n", "x.yaml:3: x: of whom does it speak?"},
		{"a modem that is a reader", "version: 1\nmodems:\n- {name: x, model: X, reader: X, source: https://example.com}\n", "x.yaml:3: x: a modem or a reader, not both"},
		{"the same line twice in a file", "version: 1\nmodems:\n- {name: x, model: X, source: https://example.com}\n- {name: x, model: X, source: https://example.com}\n", `x.yaml:4: a second line "x"`},
		{"an anchor", one("  note: &a text\n"), "x.yaml:6: note: a plain value is wanted"},
		{"an alias", one("  note: [&a text, *a]\n"), "x.yaml:6: note: a plain value is wanted"},
		{"a merge", "version: 1\nmodems:\n- &a {name: x, model: X, source: https://example.com}\n- {<<: *a, name: y}\n", `x.yaml:4: unknown key "<<"`},
		{"too many lines", "version: 1\nmodems:\n" + many(500), "x.yaml: more than 512 lines"},
		{"a file that is too big", "version: 1\n#" + strings.Repeat("-", 64<<10), "x.yaml: longer than 65536 bytes"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			table, err := quirks.Load(folder(t, map[string]string{"x.yaml": tc.text}))
			if err == nil || table != nil || !strings.Contains(err.Error(), tc.want) {
				t.Fatalf("got %v, want %q", err, tc.want)
			}
			if f := fault.Of(err); f.Code != "quirks-invalid" || f.Who != fault.Configuration {
				t.Errorf("explained as %+v", f)
			}
		})
	}
}

func many(n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, "- {name: x%d, model: X, source: https://e.com}\n", i)
	}
	return b.String()
}

// Everything that is wrong is said at once, up to a bound.
func TestLoadSaysAllFaults(t *testing.T) {
	_, err := quirks.Load(folder(t, map[string]string{
		"a.yaml": one("  settle: x\n  paths: y\n"),
		"b.yaml": one("  handle: z\n"),
		"c.yaml": "version: 1\nmodems:\n" + strings.Repeat("- {}\n", 100),
	}))
	if err == nil {
		t.Fatal("no error")
	}
	for _, want := range []string{"a.yaml:6: settle", "a.yaml:7: paths", "b.yaml:6: handle", "c.yaml:3: a line without a name"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%q is not in: %v", want, err)
		}
	}
	if n := strings.Count(err.Error(), "c.yaml:"); n > 20 {
		t.Errorf("%d faults of one file are said", n)
	}
}

func TestLoadBoundsFiles(t *testing.T) {
	files := map[string]string{}
	for i := range 33 {
		files[fmt.Sprintf("%02d.yaml", i)] = ""
	}
	if _, err := quirks.Load(folder(t, files)); err == nil || !strings.Contains(err.Error(), "at most 32 are read") {
		t.Errorf("got %v", err)
	}
	for name, mk := range map[string]func(string) error{
		"a folder": func(p string) error { return os.Mkdir(p, 0o700) },
		"a pipe":   func(p string) error { return syscall.Mkfifo(p, 0o600) }, // opening it would wait for ever
		"a link":   func(p string) error { return os.Symlink("/dev/zero", p) },
	} {
		dir := t.TempDir()
		if err := mk(filepath.Join(dir, "a.yaml")); err != nil {
			t.Fatal(err)
		}
		if _, err := quirks.Load(dir); err == nil || !strings.Contains(err.Error(), "not a regular file") {
			t.Errorf("%s in place of a file: %v", name, err)
		}
	}
}
