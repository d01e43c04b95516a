package desired_test

import (
	"errors"
	"io/fs"
	"reflect"
	"strings"
	"testing"

	"lpad/agent/desired"
	"lpad/agent/job"
)

const (
	secret = "K8-MATCHING-9Z"
	code   = "LPA:1$smdp.example.com$" + secret
	eid    = "89049032000000000000000000000097"
	iccid  = "89000123456789012358"
)

// beside are the files that others name.
func beside(name string) ([]byte, error) {
	switch name {
	case "meter.code":
		return []byte(code + "\n"), nil
	case "meter.confirm":
		return []byte("1234\n"), nil
	case "meter.json":
		return []byte(`{"version": 1}`), nil
	case "empty":
		return nil, nil
	case "long":
		return []byte(strings.Repeat("x", desired.MaxFile)), nil
	case "control":
		return []byte("LPA:1$smdp.example.com$A\x1b[31mB"), nil
	}
	return nil, &fs.PathError{Op: "openat", Path: name, Err: fs.ErrNotExist}
}

func parse(t testing.TB, file, text string) *desired.Declaration {
	t.Helper()
	d, _, err := desired.Parse(file, []byte(text), beside)
	if err != nil {
		t.Fatalf("%s: %v", text, err)
	}
	return d
}

func TestParse(t *testing.T) {
	d, private, err := desired.Parse("meter.yaml", []byte("# a comment\nversion: 1\nname: meter-1\ncode: "+code+"$$1\nconfirmation_code: 1234\nnickname: Meter uplink\n"+
		"iccid: "+iccid+"\nenabled: yes\naccept_rules: yes\nparameters: '{\"version\": 1}'\neid: ["+eid+"]\nimei: 490154203237518\ncard: [main, spare]\n"), beside)
	if err != nil || !private {
		t.Fatalf("private %v, %v", private, err)
	}
	want := desired.Declaration{File: "meter.yaml", Name: "meter-1", Source: job.SourceActivationCode, Enabled: true, AcceptRules: true,
		EIDs: []string{eid}, IMEIs: []string{"490154203237518"}, Cards: []string{"main", "spare"}}
	if d.Code.SMDP != "smdp.example.com" || d.Code.MatchingID != secret || d.ConfirmationCode.Reveal() != "1234" || d.ICCID.String() != iccid ||
		string(d.Parameters) != `{"version": 1}` || d.Nickname != "Meter uplink ["+d.Mark+"]" || len(d.Mark) != 8 || len(d.Generation) != 16 {
		t.Errorf("read as %+v", d)
	}
	got := *d
	got.Mark, got.Generation, got.Nickname, got.Parameters = "", "", "", nil
	got.Code, got.ConfirmationCode, got.ICCID = want.Code, want.ConfirmationCode, want.ICCID
	if !reflect.DeepEqual(got, want) {
		t.Errorf("\n got %+v\nwant %+v", got, want)
	}

	for _, tc := range []struct {
		name, text string
		private    bool
		check      func(*desired.Declaration) bool
	}{
		{"the least", "version: 1\nsource: default-smdp\n", false, func(d *desired.Declaration) bool {
			return d.Name == "f" && d.Source == job.SourceDefaultSMDP && !d.Enabled && strings.HasPrefix(d.Nickname, "f [")
		}},
		{"smds", "version: 1\nsource: smds\n", false, func(d *desired.Declaration) bool { return d.Source == job.SourceSMDS }},
		{"files", "version: 1\ncode: file:meter.code\nconfirmation_code: file:meter.confirm\nparameters: file:meter.json\n", false, func(d *desired.Declaration) bool {
			return d.Code.MatchingID == secret && d.ConfirmationCode.Reveal() == "1234" && string(d.Parameters) == `{"version": 1}`
		}},
		{"a block of JSON", "version: 1\nsource: smds\nparameters: |\n  {\"version\": 1,\n   \"x\": 2}\n", true, func(d *desired.Declaration) bool {
			return strings.Contains(string(d.Parameters), "\n")
		}},
		{"no", "version: 1\nsource: smds\nenabled: no\n", false, func(d *desired.Declaration) bool { return !d.Enabled }},
		{"true", "version: 1\nsource: smds\nenabled: true\n", false, func(d *desired.Declaration) bool { return d.Enabled }},
		{"an EID in groups", "version: 1\nsource: smds\neid: '8904 9032 0000 0000 0000 0000 0000 0097'\n", false, func(d *desired.Declaration) bool { return d.EIDs[0] == eid }},
	} {
		d, private, err := desired.Parse("f.yaml", []byte(tc.text), beside)
		if err != nil || private != tc.private || !tc.check(d) {
			t.Errorf("%s: private %v, %v: %+v", tc.name, private, err, d)
		}
	}
}

// Each fault is told with its file and line, and nothing secret with it.
func TestRefused(t *testing.T) {
	ok := "version: 1\ncode: " + code + "\n"
	for _, tc := range []struct{ name, text, want string }{
		{"nothing", "", "f.yaml:1: file: members are wanted"},
		{"comments alone", "# nothing\n", "f.yaml:1: file: members"},
		{"a list", "- a\n", "f.yaml:1: file: members"},
		{"no YAML", "a: [" + secret, "f.yaml:1: YAML: "},
		{"tabs", "version: 1\n\tcode: '" + secret + "'\n", "f.yaml:1: YAML: "},
		{"two documents", ok + "---\n" + ok, "f.yaml:3: file: one document"},
		{"too long", ok + strings.Repeat("#", desired.MaxFile), "too long"},
		{"unknown member", ok + "enable: yes\n", "f.yaml:3: enable: this member is not known"},
		{"member twice", ok + "\nname: a\nname: b\n", "f.yaml:5: name: this member is not known, or is there twice"},
		{"other case", ok + "Enabled: yes\n", "f.yaml:3: Enabled"},
		{"a member that is no text", ok + "? [a, b]\n: c\n", "f.yaml:3:"},
		{"anchor", ok + "name: &a x\nnickname: *a\n", "f.yaml:3: name: a plain value"},
		{"alias", ok + "nickname: *a\n", "YAML: "},
		{"bomb", ok + "imei: &a [" + strings.Repeat("1,", 60) + "1]\neid: [*a,*a,*a]\n", "f.yaml:3: imei: a plain value"},
		{"merge", "a: &a {version: 1}\n<<: *a\n", "f.yaml:1: a: this member is not known"},
		{"whole anchored", "&a\nversion: 1\nsource: smds\n", "members are wanted"},
		{"deep", ok + "parameters: " + strings.Repeat("[", 4000) + strings.Repeat("]", 4000) + "\n", "f.yaml:3: parameters: a plain value"},
		{"a mapping as parameters", ok + "parameters: {version: 1}\n", "f.yaml:3: parameters: a plain value"},
		{"null", ok + "name:\n", "f.yaml:3: name: a plain value"},
		{"empty text", ok + "name: ''\n", "f.yaml:3: name: a plain value"},
		{"long text", ok + "nickname: " + strings.Repeat("x", 301) + "\n", "f.yaml:3: nickname: a plain value of 1 to 300"},
		{"no version", "source: smds\n", "f.yaml:1: version: 1 is wanted"},
		{"version of tomorrow", "version: 2\nsource: smds\n", "f.yaml:1: version: 1 is wanted"},
		{"no source", "version: 1\n", "f.yaml:1: source: default-smdp or smds is wanted, or a code"},
		{"bad source", "version: 1\nsource: " + secret + "\n", "f.yaml:2: source: default-smdp or smds is wanted"},
		{"two sources", ok + "source: smds\n", "f.yaml:2: code: an activation code is wanted, and no source"},
		{"bad code", "version: 1\ncode: 2$smdp.example.com$" + secret + "\n", "f.yaml:2: code: an activation code is wanted"},
		{"an id in the place of the address", "version: 1\ncode: LPA:1$" + secret + "\n", "f.yaml:2: code: an activation code is wanted, and no source beside it: activation-code-address"},
		{"confirmation code missing", "version: 1\ncode: " + code + "$$1\n", "f.yaml:2: confirmation_code: the activation code needs one"},
		{"control characters", ok + "nickname: \"a\\u202eb\"\n", "f.yaml:3: nickname: printable"},
		{"long nickname", ok + "nickname: " + strings.Repeat("x", desired.MaxNickname+1) + "\n", "f.yaml:3: nickname: at most"},
		{"name with a slash", ok + "name: ../x\n", "f.yaml:3: name: letters"},
		{"bad ICCID", ok + "iccid: 8900x\n", "f.yaml:3: iccid: "},
		{"bad EID", ok + "eid: 8904\n", "f.yaml:3: eid: 32 digits"},
		{"one bad EID of two", ok + "eid:\n- " + eid + "\n- 8904\n", "f.yaml:3: eid: 32 digits"},
		{"bad IMEI", ok + "imei: 49015420323751\n", "f.yaml:3: imei: 15 digits"},
		{"for nobody", ok + "eid: []\n", "f.yaml:3: eid: an empty list"},
		{"a list in a list", ok + "card: [[a]]\n", "f.yaml:3: card: a plain value"},
		{"too many", ok + "card: [" + strings.Repeat("a,", 64) + "a]\n", "f.yaml:3: card: a plain value"},
		{"a list of codes", "version: 1\ncode: [a, b]\n", "f.yaml:2: code: a plain value"},
		{"perhaps", ok + "enabled: perhaps\n", "f.yaml:3: enabled: yes or no"},
		{"file is missing", "version: 1\ncode: file:other\n", "f.yaml:2: code: openat other"},
		{"file is empty", "version: 1\ncode: file:empty\n", "f.yaml:2: code: its file is empty"},
		{"file is long", "version: 1\nsource: smds\nconfirmation_code: file:long\n", "f.yaml:3: confirmation_code: its file is empty, or too long"},
		{"file with control characters", "version: 1\ncode: file:control\n", "f.yaml:2: code: printable"},
		{"many faults", ok + strings.Repeat("x: 1\n", 30), "f.yaml:10: x"},
	} {
		d, _, err := desired.Parse("f.yaml", []byte(tc.text), beside)
		if err == nil || !strings.Contains(err.Error(), tc.want) || strings.Contains(err.Error(), secret) || len(err.Error()) > 2000 {
			t.Errorf("%s: %v, want %q", tc.name, err, tc.want)
		}
		if d != nil {
			t.Errorf("%s: taken as %v", tc.name, d.Name)
		}
	}
}

// The mark is the code's, however it is written, and else the name's; the generation
// is that of all that was said.
func TestMarkAndGeneration(t *testing.T) {
	base := parse(t, "a.yaml", "version: 1\ncode: "+code+"\n")
	for _, tc := range []struct {
		name, file, text string
		mark, generation bool // the same
	}{
		{"the same again", "a.yaml", "version: 1\ncode: " + code + "\n", true, true},
		{"renamed", "b.yaml", "version: 1\ncode: " + code + "\n", true, true},
		{"a comment", "a.yaml", "version: 1\ncode: " + code + "\n# x\n", true, false},
		{"written otherwise", "a.yaml", "version: 1\ncode: 1$SMDP.example.com$" + secret + "\n", true, false},
		{"from a file", "a.yaml", "version: 1\ncode: file:meter.code\n", true, false},
		{"another code", "a.yaml", "version: 1\ncode: " + code + "X\n", false, false},
		{"without a code", "a.yaml", "version: 1\nsource: smds\n", false, false},
	} {
		d := parse(t, tc.file, tc.text)
		if (d.Mark == base.Mark) != tc.mark || (d.Generation == base.Generation) != tc.generation {
			t.Errorf("%s: mark %s and %s, generation %s and %s", tc.name, d.Mark, base.Mark, d.Generation, base.Generation)
		}
	}
	if a, b := parse(t, "a.yaml", "version: 1\nsource: smds\n"), parse(t, "b.yaml", "version: 1\nsource: smds\n"); a.Mark == b.Mark {
		t.Error("two declarations without a code have one mark")
	}
	read := func(text string) func(string) ([]byte, error) {
		return func(string) ([]byte, error) { return []byte(text), nil }
	}
	one, _, err1 := desired.Parse("a.yaml", []byte("version: 1\nsource: smds\nparameters: file:p\n"), read("{}"))
	two, _, err2 := desired.Parse("a.yaml", []byte("version: 1\nsource: smds\nparameters: file:p\n"), read("{ }"))
	if errors.Join(err1, err2) != nil || one.Generation == two.Generation {
		t.Errorf("a file that was named has changed, and the generation is the same: %v %v", err1, err2)
	}
	// Marks are on cards: another lpad must make the same.
	if base.Mark != "p2hfam3b" {
		t.Errorf("the mark has become %s: no profile in the field would be known again", base.Mark)
	}
}

func FuzzParse(f *testing.F) {
	for _, text := range []string{"version: 1\ncode: " + code + "\neid: [1, 2]\n", "version: 1\nsource: smds\nparameters: '{}'\n", "&a [*a]", "a: {b: [", "code: file:meter.code\nversion: 1\n"} {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		d, _, err := desired.Parse("f.yaml", text, beside)
		if err != nil {
			return
		}
		if len(d.Mark) != 8 || len(d.Nickname) > 64 || d.Name == "" || len(d.By()) > 80 || d.Source == "" || len(d.Tag()) != 25 {
			t.Errorf("taken: %+v", d)
		}
	})
}
