package agent

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"lpad/agent/api"
	"lpad/agent/client"
	"lpad/agent/runner"
	"lpad/agent/switchover"
	"lpad/apdu"
	"lpad/config"
)

// absent is a reader without a card.
type absent struct{}

func (absent) OpenChannel(context.Context, []byte) (*apdu.Channel, error) {
	return nil, errors.New("no card")
}
func (absent) Reset(context.Context) error { return nil }
func (absent) BlockSize() int              { return 255 }
func (absent) Close() error                { return nil }

// A whole daemon without a card: it tells what it skipped, refuses receivers
// that cannot be one, sends the report of a job that fails, and shows it while
// it waits.
func TestDaemonWithoutCard(t *testing.T) {
	got := make(chan runner.Report, 4)
	refuse := true
	to, r := receiver(t, func(w http.ResponseWriter, q *http.Request) {
		if refuse {
			w.WriteHeader(http.StatusForbidden)
			refuse = false
			return
		}
		var v runner.Report
		if err := json.NewDecoder(q.Body).Decode(&v); err != nil {
			t.Error(err)
		}
		got <- v
	})
	dir := t.TempDir()
	cfg := config.Default()
	cfg.StateDir, cfg.Socket = filepath.Join(dir, "lib"), filepath.Join(dir, "s")
	cfg.RSP.TrustDir, cfg.RSP.Addresses = dir, r.addresses
	cfg.Reports.URL, cfg.Reports.CA = to, r.ca
	if err := os.WriteFile(filepath.Join(dir, "bad.pem"), []byte("text"), 0o600); err != nil {
		t.Fatal(err)
	}
	direct := switchover.Direct{Card: absent{}}
	a, err := New(cfg, Host{}, []Parts{{Card: absent{}, CardPath: CardPath{Backend: "pcsc"}, Settings: direct, Modem: direct, Network: direct, NetworkBackend: "none"}})
	if err != nil {
		t.Fatal(err)
	}
	ctx := t.Context()
	defer start(t, a)()
	c := client.New(cfg.Socket)
	defer c.Close()
	var p *api.Problem
	if _, err := c.Install(ctx, api.InstallRequest{ActivationCode: "LPA:1$smdp.example.com$X", ReportTo: "http://a.example"}); !errors.As(err, &p) || p.Code != api.CodeBadRequest {
		t.Errorf("a receiver by http: %v", err)
	}
	j, err := c.SetNickname(ctx, "89440200000000000022", "x")
	if err != nil {
		t.Fatal(err)
	}
	if j, err = c.Follow(ctx, j.ID, func(api.Job) {}); err != nil || j.State != "failed" {
		t.Fatalf("%v, %+v", err, j)
	}
	waits := func() []api.Notification { // while it waits it is seen, though there is no card
		v, err := c.Notifications(ctx)
		if err != nil {
			t.Fatal(err)
		}
		return v.Reports
	}
	var list []api.Notification
	for list = waits(); len(list) != 1 || list[0].LastError == nil; list = waits() {
	}
	if n := list[0]; n.Job != j.ID || n.Event != "nickname" || n.Outcome != "failed" || n.Address != "example.com:8443" || n.LastError.Code != runner.CodeReportRefused {
		t.Errorf("waiting %+v", n)
	}
	s, err := c.Status(ctx)
	if err != nil || s.Reports.Pending != 1 || s.Reports.LastError == nil || !strings.Contains(strings.Join(s.Warnings, " "), "bad.pem") {
		t.Errorf("status %+v, %v", s, err)
	}
	if _, err := c.ReplayReport(ctx, j.ID); err != nil {
		t.Fatal(err)
	}
	if v := <-got; v.Job != j.ID || v.Seq != 1 || v.ICCID != "89440200000000000022" || v.Fault == nil || v.Backend != "none" {
		t.Errorf("report %+v", v)
	}
}
