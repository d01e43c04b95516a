package agent

import (
	"context"
	"encoding/json"
	"encoding/pem"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"lpad/agent/api"
	"lpad/agent/client"
	"lpad/agent/hooks"
	"lpad/agent/job"
	"lpad/agent/rsp"
	"lpad/agent/rsp/rsptest/euicc"
	inprocess "lpad/agent/rsp/rsptest/world"
	"lpad/agent/runner"
	"lpad/agent/switchover"
	"lpad/apdu"
	"lpad/config"
	"lpad/internal/fault"
	"lpad/modem"
)

// cardSlot is a card in a reader.
type cardSlot struct{ *euicc.Card }

func (c cardSlot) Transmit(_ context.Context, command []byte) ([]byte, error) {
	return c.Card.Transmit(context.Background(), command) // an exchange is not cut off
}
func (c cardSlot) OpenChannel(ctx context.Context, aid []byte) (*apdu.Channel, error) {
	return apdu.OpenChannel(ctx, c, aid)
}
func (c cardSlot) Reset(context.Context) error { c.Card.Reset(); return nil }
func (cardSlot) Close() error                  { return nil }
func (cardSlot) BlockSize() int                { return 255 }

// simpleModem has a place for an access point, and a network that comes up over
// the loopback interface, or does not.
type simpleModem struct {
	switchover.Direct
	dark bool
}

func (simpleModem) Apply(context.Context, string, modem.Settings) ([]string, error) {
	return []string{"at"}, nil
}

func (m simpleModem) Connect(context.Context, string) (modem.Link, error) {
	if m.dark {
		return modem.Link{}, fault.New(fault.Fault{Code: "no-bearer", Text: "the network refuses the connection", Who: fault.Operator}, nil)
	}
	return modem.Link{Interface: "lo"}, nil
}

// A whole daemon carries out an order with parameters: the order's receiver is
// told over TLS what was applied, by whose word and when, after the server has
// heard of the activation, whose number the report has; of a switch that was
// taken back, that it was not applied, and why. What hooks did is in it.
func TestParametersAreReported(t *testing.T) {
	const old, fresh = "89000123456789012341", "89000123456789012358"
	for _, dark := range []bool{false, true} {
		t.Run(map[bool]string{false: "applied", true: "taken back"}[dark], func(t *testing.T) {
			w := inprocess.New(t, inprocess.Options{Card: func(c *euicc.Config) {
				c.Profiles = []euicc.Profile{{ICCID: inprocess.ICCID(t, old), IMSI: "001010123456789", Enabled: true}}
			}})
			w.Book(t, "ORDER-1", inprocess.ICCID(t, fresh), 3000, nil)
			type heard struct {
				path   string
				report runner.Report
				body   string
				told   []string // what the server knew by then
			}
			var mu sync.Mutex
			var got []heard
			events := func() (list []string, enable int64) {
				for _, n := range w.SMDP.Notifications() {
					list = append(list, n.Event.String())
					if n.Event == rsp.EventEnable {
						enable = n.SeqNumber
					}
				}
				return list, enable
			}
			s := httptest.NewUnstartedServer(http.HandlerFunc(func(_ http.ResponseWriter, q *http.Request) {
				body, err := io.ReadAll(q.Body)
				h := heard{path: q.URL.Path, body: string(body)}
				if err == nil {
					err = json.Unmarshal(body, &h.report)
				}
				if err != nil {
					t.Error(err)
				}
				h.told, _ = events()
				mu.Lock()
				defer mu.Unlock()
				got = append(got, h)
			}))
			s.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
			s.StartTLS()
			defer s.Close()

			dir := t.TempDir()
			write := func(name, text string, mode os.FileMode) {
				t.Helper()
				path := filepath.Join(dir, name)
				if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(path, []byte(text), mode); err != nil {
					t.Fatal(err)
				}
			}
			write("ca.pem", string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw})), 0o600)
			for _, e := range hooks.Events() {
				write("hooks.d/"+e.Folder()+"/10-note", "#!/bin/sh\ncat \"$LPAD_PARAMETERS\" >>"+dir+"/seen\n", 0o755)
			}
			write("hooks.d/applied.d/20-logo", "#!/bin/sh\necho no screen >&2\nexit 4\n", 0o755)
			cfg := config.Default()
			cfg.StateDir, cfg.Socket, cfg.RSP.TrustDir, cfg.RSP.Addresses = filepath.Join(dir, "lib"), filepath.Join(dir, "s"), w.Trust, w.Addresses
			cfg.RSP.Addresses["example.com"] = strings.TrimPrefix(s.URL, "https://")
			cfg.Reports.URL, cfg.Reports.CA = "https://example.com/everybody", filepath.Join(dir, "ca.pem")
			cfg.Hooks.Dir, cfg.Network.Probe = filepath.Join(dir, "hooks.d"), "tcp://127.0.0.1:"+s.URL[strings.LastIndexByte(s.URL, ':')+1:]
			card := cardSlot{w.Card}
			back := simpleModem{switchover.Direct{Card: card}, dark}
			a, err := New(cfg, Host{}, []Parts{{Card: card, CardPath: CardPath{Backend: "pcsc", Path: "x"}, Settings: back, Modem: back, Network: back, Prober: reached{}, NetworkBackend: "modemmanager"}})
			if err != nil {
				t.Fatal(err)
			}
			ctx := t.Context()
			defer start(t, a)()
			c := client.New(cfg.Socket)
			defer c.Close()
			begin := time.Now()
			j, err := c.Install(ctx, api.InstallRequest{ActivationCode: "LPA:1$" + inprocess.SMDPHost + "$ORDER-1", Enable: true, Consent: true, ReportTo: "https://example.com/sender",
				Parameters: json.RawMessage(`{"version":1,"generation":3,"apns":[{"name":"iot.example","user":"dev","secret":"s3cret"}],"servers":{"cmp":"cmp.example"}}`)})
			if err != nil {
				t.Fatal(err)
			}
			if j, err = c.Follow(ctx, j.ID, func(api.Job) {}); err != nil {
				t.Fatal(err)
			}
			var h heard
			for end := time.Now().Add(30 * time.Second); h.path == ""; time.Sleep(5 * time.Millisecond) {
				mu.Lock()
				if len(got) > 0 {
					h = got[0]
				}
				mu.Unlock()
				if time.Now().After(end) {
					t.Fatalf("no report of %+v", j)
				}
			}
			said := map[string]job.Parameter{}
			for _, p := range h.report.Parameters {
				said[p.Leaf] = p
			}
			state, runs := job.ParameterApplied, "staged/10-note activated/10-note applied/10-note applied/20-logo: exit status 4: no screen"
			if dark {
				state, runs = job.ParameterNotApplied, "staged/10-note activated/10-note rolled-back/10-note"
			}
			if p := said["apns.default"]; p.Source != "order" || p.Rank != 2 || p.Generation != 3 || p.State != state || !strings.Contains(string(p.Value), `"iot.example"`) || !strings.Contains(string(p.Value), `"dev"`) {
				t.Errorf("the access point: %+v, %s", p, p.Value)
			}
			if p := said["servers.cmp"]; string(p.Value) != `"cmp.example"` || p.State != state {
				t.Errorf("the server: %+v", p)
			}
			var ran []string
			for _, r := range h.report.Hooks {
				text := r.Event + "/" + r.Name
				if r.Problem != "" {
					text += ": " + r.Problem
				}
				ran = append(ran, text)
			}
			if got := strings.Join(ran, " "); got != runs {
				t.Errorf("hooks: %s", got)
			}
			list, enable := events()
			r := h.report
			switch {
			case h.path != "/sender" || r.Job != j.ID || r.ICCID != fresh || r.Previous != old || r.Backend != "modemmanager" || r.EID == "":
				t.Errorf("to %s: %s", h.path, h.body)
			case dark:
				if r.Outcome != job.OutcomeRolledBack || r.Fault == nil || r.Fault.Code != "no-bearer" || !r.AppliedAt.IsZero() || r.Activation != 0 {
					t.Errorf("report %s", h.body)
				}
			case r.Outcome != job.OutcomeDone, r.Fault != nil, r.AppliedAt.Before(begin.Add(-time.Second)), r.AppliedAt.After(r.Ended), r.Activation != enable:
				t.Errorf("report %s; the server has heard of %v, of the activation by %d", h.body, list, enable)
			case !strings.HasSuffix(strings.Join(h.told, " "), "enable"):
				t.Errorf("the report came before the notification: %v", h.told)
			}
			if len(j.Parameters) != len(h.report.Parameters) || len(j.Hooks) != len(h.report.Hooks) || j.Activation != h.report.Activation || !j.AppliedAt.Equal(h.report.AppliedAt) {
				t.Errorf("the socket tells %+v", j)
			}
			seen, err := os.ReadFile(filepath.Join(dir, "seen"))
			if err != nil || strings.Contains(h.body+string(seen), "s3cret") || !strings.Contains(string(seen), `"leaf":"servers.cmp"`) {
				t.Errorf("%v: a password, or nothing at all, in %s or %s", err, h.body, seen)
			}
		})
	}
}

// reached is a prober for whom everything can be reached.
type reached struct{}

func (reached) Probe(context.Context, modem.Link, string) error { return nil }
