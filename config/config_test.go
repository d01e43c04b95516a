package config_test

import (
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"lpad/config"
	"lpad/internal/fault"
)

func TestDefaultIsValid(t *testing.T) {
	if err := config.Default().Validate(); err != nil {
		t.Error(err)
	}
}

// The documented file is the defaults, and names every key.
func TestFullFile(t *testing.T) {
	cfg, origins, err := config.Load("testdata/full.yaml", "", nil)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(config.Default(), cfg, cmp.Transformer("empty", func(m map[string]string) int { return len(m) }),
		cmp.Transformer("none", func(l []string) int { return len(l) })); d != "" {
		t.Errorf("testdata/full.yaml is not the defaults (-default +file):\n%s", d)
	}
	for _, k := range config.Keys() {
		if origins[k.Name] != "testdata/full.yaml" && k.Name != "version" {
			t.Errorf("%s is not in testdata/full.yaml", k.Name)
		}
	}
}

func TestLayers(t *testing.T) {
	cfg, origins, err := config.Load("testdata/site.yaml", "testdata/dropins", []string{
		"PATH=/bin", "LPAD_VECTORS=elsewhere", "LPAD_CARD_BAUD=9600", "LPAD_RSP_ALLOW_TEST_CI=true", "LPAD_CARD_READER=",
		"LPAD_NETWORK_PROBE_TIMEOUT=5s", "LPAD_RSP_ADDRESSES=ds.example.com=localhost:443", "LPAD_API_ADMIN=wheel",
	})
	if err != nil {
		t.Fatal(err)
	}
	want := config.Default()
	want.Card.Backend, want.Card.ATPort, want.Card.Baud = "at", "/dev/ttyUSB2", 9600
	want.Log.Level = "warn"
	want.Network.DeadMan, want.Network.ProbeTimeout = 2*time.Minute, 5*time.Second
	want.RSP.SendIMEI, want.RSP.AllowTestCI = "490154203237518", true
	want.RSP.ISDRAIDs = []string{"A0000005591010FFFFFFFF8900050500", "A0000005591010000000008900000300"}
	want.RSP.Addresses = map[string]string{"smdp.example.com": "192.0.2.1:8443", "smds.example.com": "192.0.2.2:8443", "ds.example.com": "localhost:443"}
	want.API.Admin = "wheel"
	if d := cmp.Diff(want, cfg); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
	for key, origin := range map[string]string{
		"card.reader":      config.OriginDefault,
		"card.at_port":     "testdata/site.yaml",
		"network.dead_man": filepath.Join("testdata", "dropins", "10-bench.yaml"),
		"log.level":        filepath.Join("testdata", "dropins", "20-quiet.yaml"),
		"card.baud":        "environment LPAD_CARD_BAUD",
	} {
		if origins[key] != origin {
			t.Errorf("%s comes from %q, want %q", key, origins[key], origin)
		}
	}
}

func TestAbsent(t *testing.T) {
	cfg, _, err := config.Load(filepath.Join(t.TempDir(), "none.yaml"), filepath.Join(t.TempDir(), "none.d"), []string{"LPAD_LOG_LEVEL=debug"})
	if !errors.Is(err, config.ErrAbsent) {
		t.Fatalf("error %v, want ErrAbsent", err)
	}
	if cfg.Log.Level != "debug" || cfg.StateDir != config.Default().StateDir {
		t.Errorf("the rest is not there: %+v", cfg)
	}
	// Something that is wrong is told before something that is not there.
	_, _, err = config.Load(filepath.Join(t.TempDir(), "none.yaml"), "", []string{"LPAD_CARD_BAUD=fast"})
	if err == nil || errors.Is(err, config.ErrAbsent) {
		t.Errorf("error %v, want the fault of the variable", err)
	}
	_, _, err = config.Load(t.TempDir(), "", nil) // a folder is not absent
	if err == nil || errors.Is(err, config.ErrAbsent) {
		t.Errorf("error %v, want a fault", err)
	}
}

func write(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "lpad.yaml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestRefused(t *testing.T) {
	for _, tc := range []struct {
		name, yaml, key, text string
	}{
		{"empty", "", "version", "missing"},
		{"no version", "socket: /run/s\n", "version", "missing"},
		{"newer", "version: 2\n", "version", "newer"},
		{"zero", "version: 0\n", "version", "does not exist"},
		{"version as text", "version: \"1\"\n", "version", "not a number"},
		{"not YAML", "version: 1\n\tx: {\n", "", "yaml"},
		{"not a map", "- version\n", "", "yaml"},
		{"doubled key", "version: 1\nsocket: /a\nsocket: /b\n", "", "already defined"},
		{"second document", "version: 1\n---\nsocket: /b\n", "", "second YAML document"},
		{"end mark", "version: 1\n...\nsocket: /b\n", "", "second YAML document"},
		{"unknown key", "version: 1\ncard: {redaer: x}\n", "card.redaer", "card.reader"},
		{"unknown section", "version: 1\nnothing_like_it: {a: 1}\n", "nothing_like_it", "unknown key"},
		{"other case", "version: 1\nSocket: /run/s\n", "Socket", "socket"},
		{"section as value", "version: 1\ncard: auto\n", "card", "section"},
		{"value as section", "version: 1\nsocket: {a: 1}\n", "socket", "not a text"},
		{"what must be signed", "version: 1\norders: {require: some}\n", "orders.require", "parameters"},
		{"keys somewhere", "version: 1\norders: {keys_dir: operators.d}\n", "orders.keys_dir", "absolute"},
		{"number as text", "version: 1\nrsp: {send_imei: 490154203237518}\n", "rsp.send_imei", "quotes"},
		{"text as number", "version: 1\ncard: {baud: fast}\n", "card.baud", "not a number"},
		{"text as switch", "version: 1\nrsp: {allow_test_ci: \"yes\"}\n", "rsp.allow_test_ci", "not a true or false"},
		{"no unit", "version: 1\nnetwork: {dead_man: 30}\n", "network.dead_man", "unit"},
		{"no unit as text", "version: 1\nnetwork: {dead_man: \"30\"}\n", "network.dead_man", "unit"},
		{"text as list", "version: 1\nrsp: {isdr_aids: A000}\n", "rsp.isdr_aids", "list"},
		{"number in list", "version: 1\nrsp: {isdr_aids: [10]}\n", "rsp.isdr_aids", "quotes"},
		{"list as map", "version: 1\nrsp: {addresses: [a]}\n", "rsp.addresses", "map"},
		{"number in map", "version: 1\nrsp: {addresses: {a.example: 1}}\n", "rsp.addresses", "not a text"},
		{"twins", "version: 1\nrsp: {addresses: {a.example: \"h.example:1\", A.example: \"h.example:2\"}}\n", "rsp.addresses", "twice"},
		{"relative path", "version: 1\nstate_dir: lib\n", "state_dir", "absolute"},
		{"state_dir is a file", "version: 1\nstate_dir: /run/x/state/\nsocket: /run/x/lpad.sock\n", "state_dir", "beside its socket"},
		{"state_dir below a file", "version: 1\nstate_dir: /run/x/channels/a\nsocket: /run/x/lpad.sock\n", "state_dir", "beside its socket"},
		{"long socket", "version: 1\nsocket: /" + strings.Repeat("s", 120) + "\n", "socket", "longer"},
		{"level", "version: 1\nlog: {level: loud}\n", "log.level", "not one of"},
		{"format", "version: 1\nlog: {format: xml}\n", "log.format", "not one of"},
		{"backend", "version: 1\ncard: {backend: qmi}\n", "card.backend", "not one of"},
		{"no port", "version: 1\ncard: {backend: at}\n", "card.at_port", "empty"},
		{"port", "version: 1\ncard: {at_port: ttyUSB1}\n", "card.at_port", "absolute"},
		{"helper", "version: 1\ncard: {pcsc_helper: \"\"}\n", "card.pcsc_helper", "empty"},
		{"baud", "version: 1\ncard: {baud: 12345}\n", "card.baud", "not one of"},
		{"block", "version: 1\ncard: {block_size: 256}\n", "card.block_size", "between"},
		{"OID", "version: 1\nparams: {profile_oids: [\"1.3.\"]}\n", "params.profile_oids", "not an OID"},
		{"too many OIDs", "version: 1\nparams: {profile_oids: [\"1.1\", \"1.2\", \"1.3\", \"1.4\", \"1.5\", \"1.6\", \"1.7\", \"1.8\", \"1.9\"]}\n", "params.profile_oids", "at most 8"},
		{"network backend", "version: 1\nnetwork: {backend: ifupdown}\n", "network.backend", "not one of"},
		{"hook", "version: 1\nnetwork: {hook: hook.sh}\n", "network.hook", "absolute"},
		{"dead man", "version: 1\nnetwork: {dead_man: 1ms}\n", "network.dead_man", "between"},
		{"probe scheme", "version: 1\nnetwork: {probe: \"http://x.example/\"}\n", "network.probe", "none of"},
		{"probe port", "version: 1\nnetwork: {probe: \"tcp://x.example\"}\n", "network.probe", "none of"},
		{"probe path", "version: 1\nnetwork: {probe: \"tcp://x.example:1/a\"}\n", "network.probe", "none of"},
		{"probe name", "version: 1\nnetwork: {probe: \"dns:-\"}\n", "network.probe", "none of"},
		{"clock", "version: 1\nclock: {from_modem: always}\n", "clock.from_modem", "not one of"},
		{"protocol", "version: 1\nrsp: {protocol: v2}\n", "rsp.protocol", "form"},
		{"imei", "version: 1\nrsp: {send_imei: \"123\"}\n", "rsp.send_imei", "15 digits"},
		{"consent", "version: 1\nrsp: {consent: never}\n", "rsp.consent", "not one of"},
		{"timeout", "version: 1\nrsp: {timeout: 1h}\n", "rsp.timeout", "between"},
		{"retry order", "version: 1\nrsp: {notification_retry: 2h}\n", "rsp.notification_retry", "longer"},
		{"aid", "version: 1\nrsp: {isdr_aids: [A0]}\n", "rsp.isdr_aids", "hexadecimal"},
		{"host", "version: 1\nrsp: {addresses: {\"https://a\": \"h.example:1\"}}\n", "rsp.addresses", "domain name"},
		{"target", "version: 1\nrsp: {addresses: {a.example: h.example}}\n", "rsp.addresses", "port"},
		{"report by http", "version: 1\nreports: {url: \"http://r.example/\"}\n", "reports.url", "not an https"},
		{"report without host", "version: 1\nreports: {url: \"https:///x\"}\n", "reports.url", "of the form"},
		{"report with a user", "version: 1\nreports: {url: \"https://u:p@r.example/\"}\n", "reports.url", "user name"},
		{"report port", "version: 1\nreports: {url: \"https://r.example:0/\"}\n", "reports.url", "of the form"},
		{"report fragment", "version: 1\nreports: {url: \"https://r.example/#x\"}\n", "reports.url", "of the form"},
		{"fleet dir", "version: 1\nfleet: {dir: profiles.d}\n", "fleet.dir", "absolute"},
		{"hooks dir", "version: 1\nhooks: {dir: hooks.d}\n", "hooks.dir", "absolute"},
		{"hooks timeout", "version: 1\nhooks: {timeout: 6m}\n", "hooks.timeout", "not between"},
		{"report ca", "version: 1\nreports: {ca: ca.pem}\n", "reports.ca", "absolute"},
		{"relative path", "version: 1\nmodem: {quirks_dir: quirks.d}\n", "modem.quirks_dir", "absolute"},
		{"group", "version: 1\napi: {read: \"Domain Users\"}\n", "api.read", "group"},
		{"journal", "version: 1\njournal: {max_bytes: 1}\n", "journal.max_bytes", "between"},
		{"too long", "version: 1\n#" + strings.Repeat("x", 64<<10), "", "longer"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			path := write(t, tc.yaml)
			_, _, err := config.Load(path, "", nil)
			var ce *config.Error
			if !errors.As(err, &ce) {
				t.Fatalf("error %v, want *config.Error", err)
			}
			if len(ce.Problems) != 1 {
				t.Errorf("%d problems, want 1: %v", len(ce.Problems), err)
			}
			p := ce.Problems[0]
			if p.Key != tc.key || !strings.Contains(p.Text, tc.text) {
				t.Errorf("problem %q %q, want key %q and text with %q", p.Key, p.Text, tc.key, tc.text)
			}
			if p.Origin != path && p.Text != "is empty, but card.backend is at" {
				t.Errorf("origin %q, want the file", p.Origin)
			}
			if f := fault.Of(err); f.Code != "config-invalid" || f.Who != fault.Configuration {
				t.Errorf("fault %+v", f)
			}
		})
	}
}

func TestAccepted(t *testing.T) {
	for _, yaml := range []string{
		"---\nversion: 1\n",
		"# comment\n%YAML 1.1\n---\nversion: 1\n",
		"version: 1\ncard:\nrsp: {trust_dir: \"\", addresses: {a.example.com: \"[::1]:443\"}}\n",
		"version: 1\nnetwork: {probe: \"tcp://192.0.2.1:443\"}\n",
		"version: 1\nnetwork: {probe: \"https://x.example/ping?a=1\"}\n",
		"version: 1\nnetwork: {probe: \"dns:x.example\"}\n",
		"version: 1\nnetwork: {probe: \"mqtts://broker.example\"}\n",
		"version: 1\nnetwork: {probe: \"mqtt://broker.example:2883\"}\n",
		"version: 1\nrsp: {send_imei: off}\nnetwork: {dead_man: 1h30m}\n",
		"version: 1\nsocket: ~\n",
		"version: 1\nmodem: {quirks_dir: \"\"}\n",
	} {
		if _, _, err := config.Load(write(t, yaml), "", nil); err != nil {
			t.Errorf("%q: %v", yaml, err)
		}
	}
}

func TestEnvironmentRefused(t *testing.T) {
	path := write(t, "version: 1\n")
	for _, tc := range []struct{ entry, text string }{
		{"LPAD_CARD_REDAER=x", "no key has this name"},
		{"LPAD_CARD_BAUD=fast", "not a number"},
		{"LPAD_RSP_ALLOW_TEST_CI=1", "not true or false"},
		{"LPAD_NETWORK_DEAD_MAN=30", "unit"},
		{"LPAD_RSP_ADDRESSES=a.example", "name=value"},
		{"LPAD_LOG_LEVEL=loud", "not one of"},
	} {
		_, _, err := config.Load(path, "", []string{tc.entry})
		var ce *config.Error
		if !errors.As(err, &ce) || len(ce.Problems) != 1 || !strings.Contains(ce.Problems[0].Text, tc.text) {
			t.Errorf("%s: error %v, want one with %q", tc.entry, err, tc.text)
			continue
		}
		name, _, _ := strings.Cut(tc.entry, "=")
		if ce.Problems[0].Origin != "environment "+name {
			t.Errorf("%s: origin %q", tc.entry, ce.Problems[0].Origin)
		}
	}
}

// All faults come at once, of all files.
func TestAllAtOnce(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{"10.yaml": "version: 1\nlog: {levle: x}\n", "20.yaml": "version: 9\n"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	_, _, err := config.Load(write(t, "version: 1\ncard: {baud: x, reader: 1}\nnetwork: {dead_man: 5}\n"), dir, []string{"LPAD_CARD_X=1"})
	var ce *config.Error
	if !errors.As(err, &ce) || len(ce.Problems) != 6 {
		t.Fatalf("want six problems, got %v", err)
	}
	if n := strings.Count(err.Error(), "\n"); n != 6 {
		t.Errorf("error text of %d lines", n)
	}
	bad := config.Default()
	bad.Log.Level, bad.Card.Baud, bad.Version = "x", 1, 2
	if err := bad.Validate(); !errors.As(err, &ce) || len(ce.Problems) != 3 {
		t.Errorf("want three problems, got %v", err)
	}
}

func TestTooManyDropIns(t *testing.T) {
	dir := t.TempDir()
	for i := range 65 {
		if err := os.WriteFile(filepath.Join(dir, "d"+strings.Repeat("x", i)+".yaml"), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if _, _, err := config.Load("testdata/full.yaml", dir, nil); err == nil || !strings.Contains(err.Error(), "65 drop-ins") {
		t.Errorf("error %v", err)
	}
}

// A variable stands for one key, whatever the underscores.
func TestKeys(t *testing.T) {
	seen := map[string]string{}
	for _, k := range config.Keys() {
		if other, twice := seen[k.Env]; twice {
			t.Errorf("%s and %s share %s", k.Name, other, k.Env)
		}
		seen[k.Env] = k.Name
	}
	if !slices.IsSortedFunc(config.Keys(), func(a, b config.Key) int { return strings.Compare(a.Name, b.Name) }) {
		t.Error("not sorted")
	}
	if !reflect.DeepEqual(config.Keys()[0], config.Key{Name: "api.admin", Env: "LPAD_API_ADMIN", Kind: config.Text}) {
		t.Errorf("first key %+v", config.Keys()[0])
	}
}

func FuzzLoad(f *testing.F) {
	for _, name := range []string{"full.yaml", "site.yaml", "dropins/10-bench.yaml", "dropins/20-quiet.yaml"} {
		b, err := os.ReadFile(filepath.Join("testdata", name))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	for _, s := range []string{"version: 1\n---\n", "version: 1\n1: {a: b}\n", "version: 1\ncard: &a {reader: x}\nmodem: *a\n",
		"version: 1\nrsp: {addresses: {1: a}}\n", "version: 1\n? [a]\n: b\n", "version: 1\nsocket: 2001-01-01\n", "version: 1\n<<: {socket: /x}\n",
		"version: 1\ncards: {a: {default: true, card: {reader: A}}, b: {modem: {slot: \"1\"}, card: {at_port: /dev/b}}}\n"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		cfg, err := config.ParseForTest(text)
		if err == nil {
			if err := cfg.Validate(); err != nil {
				t.Errorf("accepted and yet not valid: %v", err)
			}
			return
		}
		var ce *config.Error
		if !errors.As(err, &ce) {
			t.Errorf("error %T: %v", err, err)
		}
	})
}
