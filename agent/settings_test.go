package agent

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"lpad/agent/api"
	"lpad/agent/params"
	"lpad/agent/rsp"
	"lpad/agent/rsp/rsptest/smdp"
	"lpad/agent/runner"
	"lpad/config"
	"lpad/internal/fault"
	"lpad/modem"
)

// providers is a list with one provider on 999-01 and another on 999-02.
const providers = `<?xml version="1.0"?>
<serviceproviders format="2.0"><country code="zz">
<provider><name>Eins</name><gsm><network-id mcc="999" mnc="01"/><apn value="eins.example"><usage type="internet"/></apn></gsm></provider>
<provider><name>Zwei</name><gsm><network-id mcc="999" mnc="02"/><apn value="zwei.example"><usage type="internet"/></apn></gsm></provider>
</country></serviceproviders>`

func TestCandidates(t *testing.T) {
	dir := t.TempDir()
	db := filepath.Join(dir, "providers.xml")
	if err := os.WriteFile(db, []byte(providers), 0o644); err != nil {
		t.Fatal(err)
	}
	s := &settingsSource{cfg: config.Params{ProviderDB: db, OEMDir: dir}, log: slog.New(slog.DiscardHandler)}
	iccid, err := rsp.ParseICCID("89440000000000000022")
	if err != nil {
		t.Fatal(err)
	}
	owned := rsp.Profile{ICCID: iccid, Owner: &rsp.Operator{MCCMNC: [3]byte{0x99, 0xF9, 0x10}}} // 999-01
	bare := rsp.Profile{ICCID: iccid}
	document := func(apn string) json.RawMessage { return json.RawMessage(`{"version":1,"apns":[` + apn + `]}`) }
	for _, tc := range []struct {
		name     string
		document json.RawMessage
		profile  rsp.Profile
		sim      modem.SIM
		good     *modem.APN
		want     string // APN names in order, "-" is the empty one
		code     string
	}{
		{"owner in the metadata", nil, owned, modem.SIM{}, nil, "eins.example -", ""},
		{"nothing known", nil, bare, modem.SIM{}, nil, "-", ""},
		{"no owner, but the modem shows the network", nil, bare, modem.SIM{PLMN: "99902"}, nil, "zwei.example -", ""},
		{"no owner, but the modem shows the IMSI", nil, bare, modem.SIM{IMSI: "999020000000001"}, nil, "zwei.example -", ""},
		{"what carried data before goes first", nil, owned, modem.SIM{}, &modem.APN{Name: "good.example"}, "good.example eins.example -", ""},
		{"and is not tried twice", nil, owned, modem.SIM{}, &modem.APN{Name: "eins.example"}, "eins.example -", ""},
		{"but an order knows better", document(`{"name":"order.example","purposes":["default"]}`), owned, modem.SIM{}, &modem.APN{Name: "good.example"}, "order.example", ""},
		{"also when it says the same", document(`{"name":"order.example","purposes":["default"]}`), owned, modem.SIM{}, &modem.APN{Name: "order.example"}, "order.example", ""},
		{"the order says it", document(`{"name":"order.example","purposes":["default"]}`), owned, modem.SIM{}, nil, "order.example", ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			wanted, _, err := s.Wanted(runner.Question{Document: tc.document, Source: params.SourceOrder, Profile: tc.profile, SIM: tc.sim, Good: tc.good})
			if code := fault.Of(err).Code; code != tc.code {
				t.Fatalf("code %q (%v), want %q", code, err, tc.code)
			}
			var names []string
			for _, c := range wanted.Candidates {
				name := c.APN.Name
				if name == "" {
					name = "-"
				}
				names = append(names, name)
			}
			if got := strings.Join(names, " "); got != tc.want {
				t.Errorf("candidates %s, want %s", got, tc.want)
			}
		})
	}
	s.cfg.ProviderDB, s.list = filepath.Join(dir, "missing.xml"), nil
	if wanted, _, err := s.Wanted(runner.Question{Profile: owned}); err != nil || len(wanted.Candidates) != 1 {
		t.Errorf("without a provider list: %v %v", wanted, err)
	}
	if err := s.CheckDocument(json.RawMessage(`{"version":1,"x":"` + strings.Repeat("x", maxOrdered) + `"}`)); err == nil || !strings.Contains(err.Error(), "longer than 8192") {
		t.Errorf("a document that is written with each step and is long: %v", err)
	}
	if err := s.CheckDocument(json.RawMessage(`{"version":1,"apns":7}`)); err == nil {
		t.Error("a document that makes no sense is accepted")
	}
}

// Whose document may name which file for its password: an order those that are
// there for orders, a signed one those of its issuer, the maker what lies beside
// his own document. Nothing else in the folder is read because an order says so.
func TestSecrets(t *testing.T) {
	dir := t.TempDir()
	file := func(name string, perm os.FileMode) {
		t.Helper()
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte("of "+name+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(path, perm); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"maker", "limits.json", "secrets/any", "secrets/fleet/own", "secrets/rival/own", "secrets/fleet/deep/er"} {
		file(name, 0o600)
	}
	file("secrets/fleet/group", 0o640)
	file("secrets/fleet/public", 0o644)
	file("secrets/fleet/writable", 0o660)
	file("secrets/fleet/large", 0o600)
	for _, err := range []error{
		os.WriteFile(filepath.Join(dir, "secrets/fleet/large"), make([]byte, maxSecret+1), 0o600),
		os.Symlink("../rival/own", filepath.Join(dir, "secrets/fleet/link")),
		os.Symlink("rival", filepath.Join(dir, "secrets/linked")),
		syscall.Mkfifo(filepath.Join(dir, "secrets/fleet/pipe"), 0o600),
		os.Mkdir(filepath.Join(dir, "secrets/fleet/folder"), 0o700),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	const set, fleet = sourceByHand, params.SourceOrder + ": fleet"
	for _, tc := range []struct{ source, ref, want string }{
		{params.SourceOrder, "secrets/any", "of secrets/any"},
		{set, "secrets/any", "of secrets/any"},
		{fleet, "secrets/fleet/own", "of secrets/fleet/own"},
		{fleet, "secrets/fleet/group", "of secrets/fleet/group"}, // lpad as its own user

		{params.SourceOrder, "maker", ""},
		{params.SourceOrder, "limits.json", ""},
		{params.SourceOrder, "secrets/fleet/own", ""}, // of a signed order alone
		{set, "limits.json", ""},
		{fleet, "maker", ""},
		{fleet, "limits.json", ""},
		{fleet, "secrets/any", ""},
		{fleet, "secrets/rival/own", ""},
		{fleet, "secrets/fleet/../rival/own", ""},
		{fleet, "secrets/fleet/deep/er", ""},
		{fleet, "secrets/fleet/link", ""},
		{fleet, "secrets/fleet/public", ""},
		{fleet, "secrets/fleet/writable", ""},
		{fleet, "secrets/fleet/large", ""},
		{fleet, "secrets/fleet/pipe", ""},
		{fleet, "secrets/fleet/folder", ""},
		{fleet, "secrets/fleet/none", ""},
		{fleet, "../outside", ""},
		{params.SourceOrder + ": linked", "secrets/linked/own", ""},
		{params.SourceOrder + ": ..", "secrets/../maker", ""},
		{params.SourceOrder + ": smdp:rsp.example.com", "secrets/any", ""},
		{params.SourceOrder + ": smdp:rsp.example.com", "secrets/smdp:rsp.example.com/own", ""},
		{params.SourceOrder + ": ", "secrets/any", ""},
	} {
		s := &settingsSource{cfg: config.Params{OEMDir: dir}, log: slog.New(slog.DiscardHandler)}
		document := `{"version":1,"apns":[{"name":"a","purposes":["default"],"auth":"pap","user":"u","secretRef":"file:` + dir + "/" + tc.ref + `"}]}`
		wanted, _, err := s.Wanted(runner.Question{Document: json.RawMessage(document), Source: tc.source})
		got := ""
		if len(wanted.Candidates) > 0 {
			got = wanted.Candidates[0].APN.Password.Reveal()
		}
		code := fault.Of(err).Code
		if got != tc.want || (tc.want == "") != (code == "secret-missing" || code == "parameters-invalid") {
			t.Errorf("%s, %s: %q (%v), want %q", tc.source, tc.ref, got, err, tc.want)
		}
		if err != nil && strings.Contains(err.Error(), "of secrets") {
			t.Errorf("%s, %s: the error holds what is in the file: %v", tc.source, tc.ref, err)
		}
	}
}

// A document that was good when it was kept, and that this lpad cannot read any
// more, does not stand in the way of a switch; one that an order brings does.
func TestKeptDocumentThatCannotBeRead(t *testing.T) {
	s := &settingsSource{cfg: config.Params{}, log: slog.New(slog.DiscardHandler)}
	q := runner.Question{Document: json.RawMessage(`{"version":2}`), Source: params.SourceOrder, Good: &modem.APN{Name: "good.example"}, Kept: true}
	wanted, e, err := s.Wanted(q)
	if err != nil || len(wanted.Candidates) == 0 || wanted.Candidates[0].APN.Name != "good.example" || !e.Unreadable || !strings.Contains(strings.Join(e.Notes, "\n"), "/version") {
		t.Errorf("%v %+v %+v", err, wanted, e)
	}
	q.Kept = false
	if _, _, err := s.Wanted(q); fault.Of(err).Code != "parameters-invalid" {
		t.Errorf("one that an order brings: %v", err)
	}
}

// TestEffective: what "lpactl params effective" says of every source alone and of
// every pair: each value with its source, rank, scope and generation.
func TestEffective(t *testing.T) {
	dir := t.TempDir()
	db := filepath.Join(dir, "providers.xml")
	if err := os.WriteFile(db, []byte(providers), 0o600); err != nil {
		t.Fatal(err)
	}
	document := func(name string, generation int) string {
		return fmt.Sprintf(`{"version":1,"generation":%d,"apns":[{"name":"%s.example","purposes":["default","ia"]}],"radio":{"lteBands":[%d]}}`, generation, name, generation)
	}
	var order smdp.Order
	inMetadata(t, document("profile", 1))(&order)
	// What each source says alone of the access points, of the attach, and of the bands.
	const (
		none     = "network default 5"
		database = "eins.example provider-database: Eins 4 plmn"
		good     = "good.example last-good 4 iccid"
	)
	apn := map[string]string{"profile": "profile.example profile 1 iccid 1", "order": "order.example order 2 any 2", "oem": "oem.example oem: 10.json 3 any 3"}
	bands := map[string]string{"profile": "[1] profile 1 iccid 1", "order": "[2] order 2 any 2", "oem": "[3] oem: 10.json 3 any 3"}
	for _, tc := range []struct {
		sources string
		tried   []string // in this order
		first   string   // who says the attach and the bands; empty: nobody
	}{
		{"", []string{none}, ""},
		{"profile", []string{apn["profile"]}, "profile"},
		{"order", []string{apn["order"]}, "order"},
		{"oem", []string{apn["oem"]}, "oem"},
		{"good", []string{good, none}, ""},
		{"database", []string{database, none}, ""},
		{"profile order", []string{apn["profile"], apn["order"]}, "profile"},
		{"profile oem", []string{apn["profile"], apn["oem"]}, "profile"},
		{"profile good", []string{apn["profile"]}, "profile"},
		{"profile database", []string{apn["profile"]}, "profile"},
		{"order oem", []string{apn["order"], apn["oem"]}, "order"},
		{"order good", []string{apn["order"]}, "order"},
		{"order database", []string{apn["order"]}, "order"},
		{"oem good", []string{apn["oem"]}, "oem"},
		{"oem database", []string{apn["oem"]}, "oem"},
		{"good database", []string{good, database, none}, ""},
		{"profile order oem good database", []string{apn["profile"], apn["order"], apn["oem"]}, "profile"},
	} {
		t.Run(tc.sources, func(t *testing.T) {
			s := &settingsSource{cfg: config.Params{OEMDir: filepath.Join(dir, "none"), ProfileOIDs: []string{"1.3.6.1.4.1.1.1", paramsOID}}, log: slog.New(slog.DiscardHandler)}
			s.cfg.ProviderDB = filepath.Join(dir, "none.xml")
			q := runner.Question{SIM: modem.SIM{PLMN: "99901"}, Source: params.SourceOrder}
			for _, source := range strings.Fields(tc.sources) {
				switch source {
				case "profile":
					q.Profile.Proprietary = order.Proprietary
				case "order":
					q.Document = json.RawMessage(document("order", 2))
				case "oem":
					s.cfg.OEMDir = t.TempDir()
					if err := os.Chmod(s.cfg.OEMDir, 0o700); err != nil {
						t.Fatal(err)
					}
					if err := os.WriteFile(filepath.Join(s.cfg.OEMDir, "10.json"), []byte(document("oem", 3)), 0o600); err != nil {
						t.Fatal(err)
					}
				case "good":
					q.Good = &modem.APN{Name: "good.example"}
				case "database":
					s.cfg.ProviderDB = db
				}
			}
			_, e, err := s.Wanted(q)
			if err != nil || len(e.Notes) > 0 {
				t.Fatalf("%v %q", err, e.Notes)
			}
			said := api.Effective{}
			for _, p := range e.Parameters {
				said.Parameters = append(said.Parameters, api.Parameter{Leaf: p.Leaf, Value: p.Value, Source: p.Source, Rank: p.Rank, Scope: p.Scope, Generation: p.Generation, State: p.State})
			}
			want := map[string]string{}
			for i, text := range tc.tried {
				leaf := "apns.default"
				if i > 0 {
					leaf = fmt.Sprintf("apns.default.%d", i+1)
				}
				want[leaf] = text
			}
			if tc.first != "" {
				want["apns.ia"], want["radio.lteBands"] = apn[tc.first], bands[tc.first]
			}
			got := map[string]string{}
			for _, p := range said.Parameters {
				got[p.Leaf] = line(said, p.Leaf)
			}
			if !maps.Equal(got, want) {
				t.Errorf("got  %q\nwant %q", got, want)
			}
		})
	}
}

// line is a leaf without a scope of no documents.
func line(e api.Effective, leaf string) string {
	return strings.TrimSuffix(strings.ReplaceAll(said(e, leaf), " any 0", ""), " 0")
}

// Whose the metadata of a profile are is said by their OID, the first thing in
// them, and by no other; what is ours and broken is left out and reported, and
// costs nothing else.
func TestMetadataOfOthers(t *testing.T) {
	var order smdp.Order
	inMetadata(t, `{"version":1,"apns":[{"name":"profile.example","purposes":["default"]}]}`)(&order)
	ours := order.Proprietary
	grown := append(slices.Clone(ours), 0) // one byte behind the object
	grown[1]++
	large := slices.Concat(ours[:14], []byte{0xE1, 120}, make([]byte, 120)) // the OID, and an object that is too large
	large = append([]byte{0xB8, 0x81, byte(len(large) - 2)}, large[2:]...)
	other := slices.Clone(ours)
	other[13] ^= 1
	for _, tc := range []struct {
		name string
		oids []string
		b8   []byte
		want string
		note bool
	}{
		{"ours", []string{paramsOID}, ours, "profile.example", false},
		{"ours, among several", []string{"1.3.6.1.4.1.1.1", "2.999.1", paramsOID}, ours, "profile.example", false},
		{"no OID is configured", nil, ours, "", false},
		{"others are configured", []string{"1.3.6.1.4.1.1.1", "1.3.6.1.4.1.99999.1", paramsOID + ".1"}, ours, "", false},
		{"somebody else's", []string{paramsOID}, other, "", false},
		{"nonsense", []string{paramsOID}, []byte{0xB8, 0x7F, 1}, "", false},
		{"more than there may be", []string{paramsOID}, large, "", true},
		{"something behind", []string{paramsOID}, grown, "", true},
	} {
		s := &settingsSource{cfg: config.Params{ProfileOIDs: tc.oids}, log: slog.New(slog.DiscardHandler)}
		wanted, e, err := s.Wanted(runner.Question{Profile: rsp.Profile{Proprietary: tc.b8}})
		if err != nil || len(wanted.Candidates) != 1 || wanted.Candidates[0].APN.Name != tc.want || (len(e.Notes) == 1 && strings.Contains(e.Notes[0], "parameters-invalid")) != tc.note {
			t.Errorf("%s: %v %+v %q", tc.name, err, wanted.Candidates, e.Notes)
		}
	}
}
