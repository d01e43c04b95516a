package agent

import (
	"encoding/json"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"lpad/agent/params"
	"lpad/agent/rsp"
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
