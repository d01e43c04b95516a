package agent

import (
	"encoding/hex"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"lpad/agent/params"
	"lpad/agent/rsp"
	"lpad/agent/rsp/rsptest/world"
	"lpad/agent/runner"
	"lpad/agent/switchover"
	"lpad/config"
	"lpad/modem"
)

// TestEachSource: every source alone, and every two of them: the one of the
// higher rank is tried first.
func TestEachSource(t *testing.T) {
	e1, err := hex.DecodeString("E113C00310000AE20CC10A" + hex.EncodeToString([]byte("profile.ex")))
	if err != nil {
		t.Fatal(err)
	}
	b8, err := params.ToMetadata(paramsOID, e1)
	if err != nil {
		t.Fatal(err)
	}
	type device struct {
		cfg config.Params
		q   runner.Question
		dir string
	}
	sources := []struct {
		name, apn string
		rank      int
		add       func(*device) error
	}{
		{"profile", "profile.ex", 1, func(d *device) error {
			d.q.Profile.Proprietary, d.cfg.ProfileOIDs = b8, []string{"1.2.3", paramsOID}
			return nil
		}},
		{"order", "order.example", 2, func(d *device) error {
			d.q.Document, d.q.Source = json.RawMessage(`{"version":1,"apns":[{"name":"order.example"}]}`), "order"
			return nil
		}},
		{"oem: a.json", "oem.example", 3, func(d *device) error {
			return os.WriteFile(filepath.Join(d.dir, "a.json"), []byte(`{"version":1,"apns":[{"name":"oem.example"}]}`), 0o600)
		}},
		{"last-good", "good.example", 4, func(d *device) error { d.q.Good = &modem.APN{Name: "good.example"}; return nil }},
		{"provider-database: Eins", "eins.example", 4, func(d *device) error {
			d.cfg.ProviderDB = filepath.Join(d.dir, "providers.xml")
			return os.WriteFile(d.cfg.ProviderDB, []byte(providers), 0o600)
		}},
		{"network default", "", 5, func(*device) error { return nil }}, // always there
	}
	for i := range sources {
		for j := i; j < len(sources); j++ {
			first := sources[i]
			t.Run(first.name+" and "+sources[j].name, func(t *testing.T) {
				d := device{dir: t.TempDir()}
				d.cfg = config.Params{OEMDir: d.dir, ProviderDB: filepath.Join(d.dir, "none.xml")}
				d.q.Profile = rsp.Profile{ICCID: world.ICCID(t, paramsNew), Owner: &rsp.Operator{MCCMNC: [3]byte{0x99, 0xF9, 0x10}}} // 999-01
				for _, s := range []int{i, j} {
					if err := sources[s].add(&d); err != nil {
						t.Fatal(err)
					}
				}
				s := &settingsSource{cfg: d.cfg, log: slog.New(slog.DiscardHandler)}
				wanted, e, err := s.Wanted(d.q)
				if err != nil || len(wanted.Candidates) == 0 || len(e.Parameters) == 0 || len(e.Notes) != 0 {
					t.Fatalf("%+v, %+v, %v", wanted, e, err)
				}
				c, p := wanted.Candidates[0], e.Parameters[0]
				if c.APN.Name != first.apn || c.Source != first.name || p.Leaf != "apns.default" || p.Source != first.name || p.Rank != first.rank {
					t.Errorf("first %q of %q, explained as %+v", c.APN.Name, c.Source, p)
				}
				second := slices.IndexFunc(wanted.Candidates, func(c2 switchover.Candidate) bool { return c2.Source == sources[j].name })
				// What a document says is not given up for what is only known.
				if tried := i == j || i > 2 || j < 3; (second >= 0) != tried || tried && i != j && second < 1 {
					t.Errorf("%s is number %d", sources[j].name, second)
				}
			})
		}
	}
	// Metadata under an OID that nobody has agreed on is nobody's.
	s := &settingsSource{cfg: config.Params{ProfileOIDs: []string{"1.2.3"}}, log: slog.New(slog.DiscardHandler)}
	if wanted, _, err := s.Wanted(runner.Question{Profile: rsp.Profile{Proprietary: b8}}); err != nil || wanted.Candidates[0].Source != "network default" {
		t.Errorf("%+v, %v", wanted, err)
	}
	// One that is damaged is left out, and said.
	s.cfg.ProfileOIDs = []string{paramsOID}
	damaged := slices.Clone(b8)
	damaged[len(damaged)-12] = 0x7F
	wanted, e, err := s.Wanted(runner.Question{Profile: rsp.Profile{Proprietary: damaged}})
	if err != nil || wanted.Candidates[0].Source != "network default" || !strings.Contains(strings.Join(e.Notes, "\n"), "in the profile's metadata are left out") {
		t.Errorf("%+v, %+v, %v", wanted, e, err)
	}
}

// TestFolder: of the maker's folder only that is believed which nobody else can
// have written, and what is wrong does not take the rest along.
func TestFolder(t *testing.T) {
	const good = `{"version":1,"apns":[{"name":"oem.example"}]}`
	write := func(dir, name, text string, mode os.FileMode) error {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			return err
		}
		return os.Chmod(path, mode)
	}
	for _, tc := range []struct {
		name   string
		make   func(dir string) error
		source string // of the access point
		notes  string // a part of them; empty: there are none
	}{
		{"a file", func(dir string) error { return write(dir, "a.json", good, 0o644) }, "oem: a.json", ""},
		{"by their names", func(dir string) error {
			return firstError(write(dir, "b.json", `{"version":1,"generation":2,"apns":[{"name":"b.example"}]}`, 0o644), write(dir, "a.json", good, 0o644))
		}, "oem: b.json", ""},
		{"no documents", func(dir string) error {
			return firstError(write(dir, "a.json.bak", good, 0o644), write(dir, ".a.json", good, 0o644), write(dir, "secret", "s3cret", 0o600))
		}, "network default", ""},
		{"writable for others", func(dir string) error { return write(dir, "a.json", good, 0o646) }, "network default", "a.json is left out: others may write to it (mode 0646)"},
		{"somebody else's", func(dir string) error {
			return firstError(write(dir, "a.json", good, 0o644), os.Chown(filepath.Join(dir, "a.json"), 4711, 0))
		}, "network default", "a.json is left out: it belongs to the user 4711"},
		{"a folder that others may write to", func(dir string) error {
			return firstError(write(dir, "a.json", good, 0o644), os.Chmod(dir, 0o777))
		}, "network default", "is left out: others may write to it (mode 0777)"},
		{"a large one", func(dir string) error { return write(dir, "a.json", good+strings.Repeat(" ", maxOEMFile), 0o644) }, "network default", "a.json is left out: longer than"},
		{"a folder of this name", func(dir string) error {
			return firstError(os.Mkdir(filepath.Join(dir, "a.json"), 0o755), write(dir, "b.json", good, 0o644))
		}, "oem: b.json", "a.json is left out: not a regular file"},
		{"a pipe", func(dir string) error { return syscall.Mkfifo(filepath.Join(dir, "a.json"), 0o600) }, "network default", "a.json is left out: not a regular file"},
		{"a link out of the folder", func(dir string) error {
			return firstError(write(filepath.Dir(dir), "x", good, 0o600), os.Symlink("../x", filepath.Join(dir, "a.json")))
		}, "network default", "a.json is left out: "},
		{"a link within the folder", func(dir string) error {
			return firstError(write(dir, "x", good, 0o600), os.Symlink("x", filepath.Join(dir, "a.json")))
		}, "oem: a.json", ""},
		{"broken", func(dir string) error { return write(dir, "a.json", good[:20], 0o644) }, "network default", "a.json is left out: terminal parameters: "},
		{"a password for all to read", func(dir string) error {
			return write(dir, "a.json", `{"version":1,"apns":[{"name":"a","user":"u","secret":"s"}]}`, 0o644)
		}, "network default", "use secretRef"},
		{"a password for nobody else", func(dir string) error {
			return write(dir, "a.json", `{"version":1,"apns":[{"name":"a","user":"u","secret":"s"}]}`, 0o600)
		}, "oem: a.json", ""},
		{"its password is missing", func(dir string) error {
			return write(dir, "a.json", `{"version":1,"apns":[{"name":"a","user":"u","secretRef":"file:`+dir+`/none"}]}`, 0o600)
		}, "network default", "a password cannot be read"},
		{"too many", func(dir string) error {
			for i := range maxOEMFiles + 1 {
				if err := write(dir, fmt.Sprintf("%03d.json", i), fmt.Sprintf(`{"version":1,"generation":%d,"apns":[{"name":"a%d"}]}`, i, i), 0o600); err != nil {
					return err
				}
			}
			return nil
		}, fmt.Sprintf("oem: %03d.json", maxOEMFiles-1), "1 of its files are too many"},
		{"no folder", os.Remove, "network default", ""},
		{"no folder but a file", func(dir string) error { return firstError(os.Remove(dir), os.WriteFile(dir, nil, 0o600)) }, "network default", "is left out: "},
	} {
		t.Run(tc.name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "params.d")
			if err := firstError(os.Mkdir(dir, 0o755), tc.make(dir)); err != nil {
				t.Fatal(err)
			}
			s := &settingsSource{cfg: config.Params{OEMDir: dir, ProviderDB: filepath.Join(dir, "none.xml")}, log: slog.New(slog.DiscardHandler)}
			wanted, e, err := s.Wanted(runner.Question{Profile: rsp.Profile{ICCID: world.ICCID(t, paramsNew)}})
			if err != nil {
				t.Fatal(err)
			}
			if got := wanted.Candidates[0].Source; got != tc.source {
				t.Errorf("first of %q, want %q", got, tc.source)
			}
			for what, text := range map[string]string{"notes": strings.Join(e.Notes, "\n"), "warnings": strings.Join(s.warnings(), "\n")} {
				if (text == "") != (tc.notes == "") || !strings.Contains(text, tc.notes) {
					t.Errorf("%s %q, want %q", what, text, tc.notes)
				}
			}
		})
	}
}
