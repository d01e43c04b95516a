package agent

import (
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"lpad/agent/rsp"
	"lpad/agent/runner"
	"lpad/config"
)

// What the maker forbids stays forbidden when something is wrong with its
// folder.
func TestLimitsStay(t *testing.T) {
	iccid, err := rsp.ParseICCID("89440000000000000022")
	if err != nil {
		t.Fatal(err)
	}
	many := map[string]string{"limits.json": `{"version":1,"limits":{"lteBands":[3]}}`}
	for i := range 2 * maxOEMFiles {
		many[fmt.Sprintf("%03d.json", i)] = `{"version":1}`
	}
	for _, tc := range []struct {
		name  string
		files map[string]string
		bands string
		cmp   string
		notes string // must be in one
	}{
		{"no folder of limits", map[string]string{}, "[1 3]", "cmp.example.com", ""},
		{"limits", map[string]string{"limits.json": `{"version":1,"limits":{"lteBands":[3],"serverHosts":["*.example.com"]}}`}, "[3]", "cmp.example.com", ""},
		{"broken limits", map[string]string{"limits.json": `{"version":1,"limits":{"lteBands":[3,}}`}, "[]", "", "limits.json is left out"},
		{"limits of a document without its password", map[string]string{
			"a.json": `{"version":1,"limits":{"lteBands":[3]},"apns":[{"name":"a","user":"u","secretRef":"file:/etc/passwd"}]}`}, "[3]", "cmp.example.com", "a.json: an access point is left out"},
		{"behind too many files", many, "[3]", "cmp.example.com", "too many"},
		{"another file is broken", map[string]string{"a.json": `{`, "limits.json": `{"version":1,"limits":{"lteBands":[3]}}`}, "[3]", "cmp.example.com", "a.json is left out"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			dir := t.TempDir()
			for name, text := range tc.files {
				if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			s := &settingsSource{cfg: config.Params{OEMDir: dir}, log: slog.New(slog.DiscardHandler)}
			wanted, said, err := s.Wanted(runner.Question{Profile: rsp.Profile{ICCID: iccid}, Source: "order",
				Document: []byte(`{"version":1,"radio":{"lteBands":[1,3]},"servers":{"cmp":"cmp.example.com"}}`)})
			if err != nil {
				t.Fatal(err)
			}
			if got := fmt.Sprint(wanted.Radio.LTEBands); got != tc.bands {
				t.Errorf("bands %s, want %s", got, tc.bands)
			}
			server := ""
			for _, p := range said.Parameters {
				if p.Leaf == "servers.cmp" {
					server = strings.Trim(string(p.Value), `"`)
				}
			}
			if server != tc.cmp {
				t.Errorf("server %q, want %q", server, tc.cmp)
			}
			if !strings.Contains(strings.Join(said.Notes, "\n"), tc.notes) {
				t.Errorf("notes %q", said.Notes)
			}
		})
	}
}
