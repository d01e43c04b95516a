package agent

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"lpad/agent/client"
	"lpad/agent/job"
	"lpad/agent/procedure"
	"lpad/agent/rsp"
	"lpad/agent/runner"
	"lpad/agent/switchover"
	"lpad/apdu"
	"lpad/config"
	"lpad/internal/fault"
)

func closeAll(t *testing.T, a *Agent) {
	t.Helper()
	if err := a.listener.Close(); err != nil {
		t.Error(err)
	}
	for _, u := range a.units {
		if err := u.journal.Close(); err != nil {
			t.Error(err)
		}
	}
}

// supervisor is whoever has started lpad: it hears what lpad tells.
type supervisor struct {
	mu   sync.Mutex
	said []string
	news chan struct{}
}

func newSupervisor() *supervisor { return &supervisor{news: make(chan struct{}, 1000)} }

func (s *supervisor) notify(text string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.said = append(s.said, text)
	s.news <- struct{}{}
}

// hear waits for a message that begins so, and returns all that came until then.
func (s *supervisor) hear(t *testing.T, begin string) []string {
	t.Helper()
	limit := time.After(20 * time.Second)
	for {
		s.mu.Lock()
		i := slices.IndexFunc(s.said, func(text string) bool { return strings.HasPrefix(text, begin) })
		said := slices.Clone(s.said)
		if i >= 0 {
			s.said = s.said[i+1:]
		}
		s.mu.Unlock()
		if i >= 0 {
			return said[:i+1]
		}
		select {
		case <-s.news:
		case <-limit:
			t.Fatalf("never said: %s; only %q", begin, said)
		}
	}
}

// slowCard answers nobody until it is let go, and then that it is not there.
type slowCard struct {
	absent
	let chan struct{}
}

func (c slowCard) OpenChannel(ctx context.Context, aid []byte) (*apdu.Channel, error) {
	<-c.let
	return c.absent.OpenChannel(ctx, aid)
}

// oneCard is a daemon of a card, and how to run it.
func oneCard(t *testing.T, card apdu.Card, h Host) (a *Agent, cfg config.Config) {
	t.Helper()
	dir := t.TempDir()
	cfg = config.Default()
	cfg.StateDir, cfg.Socket, cfg.RSP.TrustDir = filepath.Join(dir, "lib"), filepath.Join(dir, "s"), filepath.Join(dir, "trust")
	cfg.API = config.API{}
	direct := switchover.Direct{Card: absent{}}
	a, err := New(cfg, h, []Parts{{Card: card, CardPath: CardPath{Backend: "pcsc", Path: "x"}, Settings: direct, Modem: direct, Network: direct, NetworkBackend: "none"}})
	if err != nil {
		t.Fatal(err)
	}
	return a, cfg
}

func start(t *testing.T, a *Agent) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- a.Run(ctx) }()
	return func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
}

// TestReady: it serves at once and is ready when the first look at the card has
// ended, whatever came of it; it ticks, and says that it stops before it does.
func TestReady(t *testing.T) {
	s, let := newSupervisor(), make(chan struct{})
	a, cfg := oneCard(t, slowCard{let: let}, Host{Notify: s.notify, Watchdog: 200 * time.Millisecond})
	stop := start(t, a)
	c := client.New(cfg.Socket)
	defer c.Close()
	if status, err := c.Status(t.Context()); err != nil || status.State != string(runner.Starting) {
		t.Errorf("while the card is looked at: %+v, %v", status, err)
	}
	for _, text := range append(s.hear(t, "STATUS=looking for the card"), s.hear(t, "WATCHDOG=1")...) {
		if strings.Contains(text, "READY") {
			t.Errorf("too early: %q", text)
		}
	}
	close(let)
	s.hear(t, "READY=1\nSTATUS=no card: ")
	s.hear(t, "WATCHDOG=1")
	stop()
	if said := s.hear(t, "STOPPING=1"); slices.Contains(said, "READY=1") {
		t.Errorf("ready twice: %q", said)
	}
}

// TestHung: a card that keeps a command for longer than it may ends lpad.
func TestHung(t *testing.T) {
	s, let, ended := newSupervisor(), make(chan struct{}), make(chan struct{})
	a, _ := oneCard(t, slowCard{let: let}, Host{Notify: s.notify, Watchdog: 80 * time.Millisecond, Patience: 300 * time.Millisecond, Abort: func() { close(ended) }})
	stop := start(t, a)
	said := s.hear(t, "STATUS=hung: card main: opening a channel to the card hangs, for 0s\nWATCHDOG=trigger")
	if ticks := slices.Index(said, "WATCHDOG=1"); ticks < 0 {
		t.Errorf("no tick while it was within its limits: %q", said)
	}
	select { // and if nobody does it, it does it itself
	case <-ended:
	case <-time.After(3 * abortAfter):
		t.Error("not ended")
	}
	close(let)
	stop()
}

// TestReload: what can change while lpad runs does, the rest is told by key, and
// what is wrong changes nothing.
func TestReload(t *testing.T) {
	s := newSupervisor()
	a, cfg := oneCard(t, absent{}, Host{Notify: s.notify})
	stop := start(t, a)
	defer stop()
	s.hear(t, "READY=1")
	u := a.units[0]
	if _, err := u.runner.Refresh(t.Context(), 0); err != nil { // nothing is under way
		t.Fatal(err)
	}

	next := cfg
	next.Log.Level = "debug"
	next.RSP.NotificationRetry, next.RSP.NotificationRetryMax = time.Minute, 2*time.Hour
	next.Reports = config.Reports{URL: "https://desk.example/", CA: "/nowhere"}
	next.Params.ProviderDB = "/other"
	if err := a.Reload(t.Context(), next); err != nil {
		t.Fatal(err)
	}
	if u.settings.config().ProviderDB != "/other" {
		t.Error("the provider list is the old one")
	}
	if line := a.reloaded.line(); line != "" {
		t.Errorf("all of it can be changed, and yet: %s", line)
	}

	next.Network.DeadMan, next.Card.ATPort = time.Hour, "/dev/x"
	for range 2 { // it stays so until the restart
		if err := a.Reload(t.Context(), next); err != nil {
			t.Fatal(err)
		}
	}
	s.hear(t, "STATUS=no card: open eUICC: no card; changed, and needs a restart: card.at_port, network.dead_man")
	status, err := (&backend{a, u, true}).Status(t.Context())
	if err != nil || !slices.Contains(status.Warnings, "changed, and needs a restart: card.at_port, network.dead_man") {
		t.Errorf("%q, %v", status.Warnings, err)
	}

	// A trust folder that cannot be read: everything stays.
	if err := os.WriteFile(cfg.RSP.TrustDir, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	wrong := next
	wrong.Reports.CA = "/elsewhere"
	if err := a.Reload(t.Context(), wrong); err == nil {
		t.Error("no error for a trust folder that is none")
	}
	s.hear(t, "STATUS=no card: open eUICC: no card; the configuration on the disk is wrong and not in use: trust: ")
	if u.reporter.ca != "/nowhere" {
		t.Errorf("in use is %s", u.reporter.ca)
	}
	a.KeepConfiguration(errors.New("line 3\nis nonsense"))
	s.hear(t, "STATUS=no card: open eUICC: no card; the configuration on the disk is wrong and not in use: line 3 is nonsense")

	// Put right, it is forgotten.
	if err := os.Remove(cfg.RSP.TrustDir); err != nil {
		t.Fatal(err)
	}
	if err := a.Reload(t.Context(), cfg); err != nil {
		t.Fatal(err)
	}
	if line := a.reloaded.line(); line != "" {
		t.Errorf("left: %s", line)
	}
}

// TestStatusLine: a line for each state, without identifiers.
func TestStatusLine(t *testing.T) {
	lost := fault.New(fault.Fault{Code: "port-missing", Text: "there is no port"}, nil)
	enabled := procedure.Facts{Profiles: []rsp.Profile{{State: rsp.Enabled}}}
	loading := []job.Job{{ID: "1", Order: job.Order{Kind: job.Install}, State: job.Loading}, {ID: "2", State: job.Queued}, {ID: "3", State: job.Done}}
	for _, tc := range []struct {
		view runner.View
		want string
	}{
		{runner.View{State: runner.Starting}, "looking for the card"},
		{runner.View{State: runner.CardMissing, CardErr: lost}, "no card: there is no port"},
		{runner.View{State: runner.NeedsProvisioning}, "no profile is enabled, waiting for an order"},
		{runner.View{State: runner.Ready, Facts: enabled}, "ready"},
		{runner.View{State: runner.Ready, Queue: make([]runner.Waiting, 2), Reports: make([]runner.Waiting, 1)}, "ready, notifications waiting: 2, reports waiting: 1"},
		{runner.View{State: runner.Busy, Jobs: loading, Active: "1"}, "install: loading (step 3 of 10), jobs waiting: 1"},
		{runner.View{State: runner.CardMissing, Jobs: loading[:1], Active: "1", CardErr: lost}, "install: loading (step 3 of 10), no card: there is no port"},
		{runner.View{State: runner.Ready, JournalErr: fault.New(fault.Fault{Text: "the disk is full"}, nil)}, "ready, the disk is full"},
	} {
		if got := cardLine(&tc.view); got != tc.want {
			t.Errorf("%q, want %q", got, tc.want)
		}
	}
}
