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
	if err := syscall.Mkfifo(filepath.Join(dir, "pipe"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "secret"), []byte("s3cret\n"), 0o600); err != nil {
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
		{"password in a file of the maker", document(`{"name":"order.example","purposes":["default"],"auth":"pap","user":"u","secretRef":"file:` + dir + `/secret"}`), owned, modem.SIM{}, nil, "order.example", ""},
		{"password in somebody else's file", document(`{"name":"order.example","purposes":["default"],"auth":"pap","user":"u","secretRef":"file:/etc/passwd"}`), owned, modem.SIM{}, nil, "", "secret-missing"},
		{"password in a pipe", document(`{"name":"order.example","purposes":["default"],"auth":"pap","user":"u","secretRef":"file:` + dir + `/pipe"}`), owned, modem.SIM{}, nil, "", "secret-missing"},
		{"password above the maker's folder", document(`{"name":"order.example","purposes":["default"],"auth":"pap","user":"u","secretRef":"file:` + dir + `/../x"}`), owned, modem.SIM{}, nil, "", "parameters-invalid"},
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
	wanted, _, err := s.Wanted(runner.Question{Source: params.SourceOrder, Profile: owned,
		Document: document(`{"name":"order.example","purposes":["default"],"auth":"pap","user":"u","secretRef":"file:` + dir + `/secret"}`)})
	if err != nil || wanted.Candidates[0].APN.Password.Reveal() != "s3cret" {
		t.Errorf("the password did not arrive: %v", err)
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
