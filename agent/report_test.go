package agent

import (
	"encoding/pem"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"lpad/agent/runner"
	"lpad/config"
	"lpad/internal/fault"
	"lpad/modem"
)

// receiver is an https server that gets reports, and a reporter that trusts it.
func receiver(t *testing.T, answer http.HandlerFunc) (to string, r *reporter) {
	t.Helper()
	s := httptest.NewUnstartedServer(answer)
	s.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
	s.StartTLS()
	t.Cleanup(s.Close)
	ca := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(ca, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw}), 0o600); err != nil {
		t.Fatal(err)
	}
	log := slog.New(slog.DiscardHandler)
	u, err := url.Parse(s.URL)
	if err != nil {
		t.Fatal(err)
	}
	c := newClock(config.Default().Clock, Parts{Log: log})
	return "https://example.com:8443/v1/token?x=1", &reporter{ca: ca, addresses: map[string]string{"example.com": u.Host}, timeout: 10 * time.Second,
		device: &deviceSource{send: "490154203237518"}, backend: func() string { return "networkmanager" }, clock: c, log: log}
}

func TestReportIsPosted(t *testing.T) {
	var got *http.Request
	var body []byte
	to, r := receiver(t, func(w http.ResponseWriter, q *http.Request) {
		got = q
		body, _ = io.ReadAll(q.Body)
		w.WriteHeader(http.StatusAccepted)
	})
	// An interface that is not there: then over any.
	for _, link := range []modem.Link{{}, {Interface: "lpad-none0"}} {
		got = nil
		if after, err := r.Report(t.Context(), to, "KEY", []byte(`{"version":1}`), link); err != nil || after != 0 {
			t.Fatalf("%v, %v", after, err)
		}
		if got == nil || got.Method != "POST" || got.Header.Get("Content-Type") != "application/json" || got.Header.Get("Idempotency-Key") != `"KEY"` ||
			got.Host != "example.com:8443" || got.URL.String() != "/v1/token?x=1" || string(body) != `{"version":1}` {
			t.Errorf("request %+v with %s", got, body)
		}
	}
	if about := r.About(); about.IMEI != "490154203237518" || about.Backend != "networkmanager" || about.Clock != "system" {
		t.Errorf("about %+v", about)
	}
}

func TestReportIsRefused(t *testing.T) {
	for _, tc := range []struct {
		status int
		after  string
		code   string // empty: delivered
		wait   time.Duration
	}{
		{200, "", "", 0},
		{204, "", "", 0},
		{409, "", "", 0}, // it has it already
		{429, "120", "report-receiver-unavailable", 2 * time.Minute},
		{503, "60", "report-receiver-unavailable", time.Minute},
		{500, "", "report-receiver-unavailable", 0},
		{408, "", "report-receiver-unavailable", 0},
		{400, "", runner.CodeReportRefused, 0},
		{404, "", runner.CodeReportRefused, 0},
		{301, "", runner.CodeReportRefused, 0},
	} {
		calls := 0
		to, r := receiver(t, func(w http.ResponseWriter, _ *http.Request) {
			calls++
			w.Header().Set("Location", "/elsewhere")
			w.Header().Set("Retry-After", tc.after)
			w.WriteHeader(tc.status)
		})
		after, err := r.Report(t.Context(), to, "KEY", []byte(`{}`), modem.Link{})
		if f := fault.Of(err); f.Code != tc.code || err != nil && (f.Retry != (tc.code != runner.CodeReportRefused) || f.Next == "") || after != tc.wait || calls != 1 {
			t.Errorf("%d: %v, %v, %d calls", tc.status, after, err, calls)
		}
	}
}

// Only the authorities of the configuration are believed, and no error quotes
// the address, which may hold a token.
func TestReportOverWrongTLS(t *testing.T) {
	to, r := receiver(t, func(w http.ResponseWriter, _ *http.Request) { t.Error("it was sent") })
	try := func(code string) {
		t.Helper()
		_, err := r.Report(t.Context(), to, "KEY", []byte(`{}`), modem.Link{})
		if fault.Of(err).Code != code || strings.Contains(err.Error(), "token") {
			t.Errorf("%v, want %s", err, code)
		}
	}
	ca := r.ca
	r.ca = ""
	try("report-certificate-refused")
	r.ca = filepath.Join(t.TempDir(), "none.pem")
	try("report-ca-unreadable")
	if err := os.WriteFile(r.ca, []byte("text"), 0o600); err != nil {
		t.Fatal(err)
	}
	try("report-ca-unreadable")
	r.ca, r.addresses = ca, map[string]string{"example.com": "127.0.0.1:1"}
	try("connection-refused")
	r.clock.system = func() time.Time { return time.Unix(0, 0) }
	try("clock-not-set")
	if about := r.About(); about.Clock != "" {
		t.Errorf("clock %q", about.Clock)
	}
}

// The device is told of as it is told to eSIM servers.
func TestToldDevice(t *testing.T) {
	known := modem.Identity{Manufacturer: "Quectel", Model: "EG25", Revision: "R07", IMEI: "356938035643809"}
	for send, want := range map[string]runner.About{
		"auto":            {IMEI: "356938035643809", TAC: "35693803", Model: "EG25", Firmware: "R07"},
		"":                {IMEI: "356938035643809", TAC: "35693803", Model: "EG25", Firmware: "R07"},
		"tac-only":        {TAC: "35693803", Model: "EG25", Firmware: "R07"},
		"off":             {},
		"490154203237518": {IMEI: "490154203237518", TAC: "49015420", Model: "EG25", Firmware: "R07"},
	} {
		if got := (&deviceSource{send: send, known: known}).told(); got != want {
			t.Errorf("%q: %+v, want %+v", send, got, want)
		}
	}
	if got := (&deviceSource{send: "auto"}).told(); got != (runner.About{}) {
		t.Errorf("not heard yet: %+v", got)
	}
}

// What cannot be a receiver is refused with the order.
func TestOrderWithWrongReceiver(t *testing.T) {
	for _, to := range []string{"http://a.example/", "https://u:p@a.example/", "ftp://a.example", "a.example", "https://a.example/ x"} {
		if err := checkReportTo(to); fault.Of(err).Code != "bad-request" || strings.Contains(err.Error(), to) {
			t.Errorf("%s: %v", to, err)
		}
	}
	for _, to := range []string{"", "https://a.example", "https://[2001:db8::1]:8443/x?y", "https://192.0.2.1/"} {
		if err := checkReportTo(to); err != nil {
			t.Errorf("%s: %v", to, err)
		}
	}
}
