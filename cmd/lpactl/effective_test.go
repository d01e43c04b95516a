package main

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"lpad/agent/api"
)

// TestEffective: every value is explained, in a table and as JSON.
func TestEffective(t *testing.T) {
	d := newDaemon(t)
	value := func(s string) json.RawMessage { return json.RawMessage(s) }
	d.effective = api.Effective{ICCID: "89490200001234567890", Enabled: true,
		Document: &api.Document{Source: "order: fleet", Generation: 7, At: epoch, Bytes: 412},
		Parameters: []api.Parameter{
			{Leaf: "apns.default", Value: value(`{"name":"iot.example","pdnType":"v4v6","pdnTypeRoaming":"v4","auth":"chap","user":"dev","hasSecret":true,"mtu":1428,"dns":["10.0.0.53"],"routes":["10.0.0.0/8"],"roaming":false}`),
				Source: "order: fleet", Rank: 2, Scope: "iccid", Generation: 7, State: "applied"},
			{Leaf: "apns.default.2", Value: value(`{"name":""}`), Source: "network default", Rank: 5},
			{Leaf: "roaming.data", Value: value(`false`), Source: "oem limits", Rank: 3, Scope: "any", State: "limited"},
			{Leaf: "radio.rats", Value: value(`["lte","nb-iot"]`), Source: "profile", Rank: 1, Scope: "iccid", Generation: 3, State: "trial"},
			{Leaf: "radio.psm", Value: value(`{"tauSeconds":3600,"activeSeconds":10}`), Source: "oem: 10-fleet.json", Rank: 3, Scope: "plmn", Generation: 1, State: "staged"},
			{Leaf: "sms.smsc", Value: value(`"+491710760000"`), Source: "oem: 10-fleet.json", Rank: 3, Scope: "plmn", Generation: 1, State: "applied"},
			{Leaf: "servers.ecs", Source: "order: fleet", Rank: 2, Scope: "iccid", Generation: 7, State: "applied"},
		},
		Suspended: []api.Suspended{{Source: "oem: 20-bands.json", Generation: 2, Code: "no-network", At: epoch, Job: "J7"}},
		Notes:     []string{"oem: 30-old.json is left out: longer than 65536 bytes"},
	}
	lpactl := func(exit int, in string, args ...string) (string, string) {
		t.Helper()
		var out, errs bytes.Buffer
		if got := run(t.Context(), append([]string{"--socket", d.path, "params"}, args...), strings.NewReader(in), &out, &errs); got != exit {
			t.Errorf("%q ended with %d, want %d: %s%s", args, got, exit, out.String(), errs.String())
		}
		return out.String(), errs.String()
	}
	const want = `profile   89490200001234567890 (enabled)
document  order: fleet, generation 7, of 2026-02-03 04:05:06 UTC, 412 bytes
PARAMETER       VALUE                                                                                                                                    SOURCE              RANK  SCOPE  GENERATION  STATE
apns.default    iot.example (v4v6, v4 when roaming, chap, user dev, with a password, mtu 1428, dns 10.0.0.53, routes 10.0.0.0/8, no roaming)             order: fleet        2     iccid  7           applied
apns.default.2  (network default)                                                                                                                        network default     5     -      -           -
roaming.data    false                                                                                                                                    oem limits          3     any    -           limited
radio.rats      lte,nb-iot                                                                                                                               profile             1     iccid  3           trial
radio.psm       {"tauSeconds":3600,"activeSeconds":10}                                                                                                   oem: 10-fleet.json  3     plmn   1           staged
sms.smsc        +491710760000                                                                                                                            oem: 10-fleet.json  3     plmn   1           applied
servers.ecs     (unset)                                                                                                                                  order: fleet        2     iccid  7           applied
suspended: oem: 20-bands.json, generation 2, since 2026-02-03 04:05:06 UTC: the modem found no network with it (job J7, no-network); it is used again when its generation changes
note: oem: 30-old.json is left out: longer than 65536 bytes
`
	if out, errs := lpactl(0, "", "effective"); squeeze(out) != squeeze(want) || errs != "" || d.last() != "effective " {
		t.Errorf("asked %q, %s%s", d.last(), out, errs)
	}
	var got api.Effective
	if out, _ := lpactl(0, "", "effective", "--json", "8902"); json.Unmarshal([]byte(out), &got) != nil || len(got.Parameters) != 7 || d.last() != "effective 8902" {
		t.Errorf("asked %q, %s", d.last(), out)
	}

	file := filepath.Join(t.TempDir(), "document.json")
	if err := os.WriteFile(file, []byte(`{"version":1, "generation":8}`), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		name, in, asked string
		args            []string
	}{
		{"a profile", "", `parameters 8902 {"version":1,"generation":8}`, []string{"set", file, "8902"}},
		{"the enabled profile", "", `parameters 89490200001234567890 {"version":1,"generation":8}`, []string{"set", file}},
		{"the document's profile", `{"version":1,"scope":{"iccid":"89000123456789012358"}}`,
			`parameters 89000123456789012358 {"version":1,"scope":{"iccid":"89000123456789012358"}}`, []string{"set", "-"}},
		{"taken from a profile", "", "no parameters 8902", []string{"clear", "8902"}},
		{"taken from the enabled profile", "", "no parameters 89490200001234567890", []string{"clear"}},
	} {
		if out, _ := lpactl(0, tc.in, tc.args...); d.last() != tc.asked || !strings.Contains(out, "iot.example") {
			t.Errorf("%s: asked %q, want %q: %s", tc.name, d.last(), tc.asked, out)
		}
	}
	before := d.last()
	if _, errs := lpactl(exitUsage, "", "set"); errs == "" {
		t.Error("no file, and no word about it")
	}
	lpactl(exitUsage, "", "effective", "8901", "8902")
	if _, errs := lpactl(exitCode(&api.Problem{Code: "parameters-invalid"}), `{"version":1,"apns":7}`, "set", "-"); !strings.Contains(errs, "/apns") || d.last() != before {
		t.Errorf("a document that makes no sense: asked %q, %s", d.last(), errs)
	}
}

// squeeze makes runs of blanks one: how wide a column is depends on the longest
// value.
func squeeze(s string) string {
	var out []string
	for line := range strings.Lines(s) {
		out = append(out, strings.Join(strings.Fields(line), " "))
	}
	return strings.Join(out, "\n")
}
