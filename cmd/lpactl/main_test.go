package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"lpad/agent/api"
	"lpad/agent/apiserver"
	"lpad/agent/relay"
	"lpad/internal/fault"
)

// patience is how long a test waits for something that must come.
const patience = 30 * time.Second

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// daemon is a small one behind the real server of the socket. An order makes a
// job that goes through the states of play.
type daemon struct {
	t     testing.TB
	path  string
	play  []string // states of the next job
	end   func(*api.Job)
	abort string // state that an abort leads to
	err   error  // of the orders

	probed    api.Probe
	trust     api.Trust
	apdus     api.APDUs
	effective api.Effective
	cards     []api.CardStatus
	card      string // that the last request has named

	codeRequired bool

	mu      sync.Mutex
	asked   []string
	job     api.Job
	events  []api.Event
	change  chan struct{}
	answers chan api.AnswerRequest
	playing sync.WaitGroup
	quit    chan struct{}
	station *relay.Station // of POST /v1/relay
	detach  func()         // ends the last relay
}

var steps = map[string]int{"queued": 1, "authenticating": 2, "consent": 2, "preparing": 2, "loading": 3, "reporting": 4, "snapshotting": 6, "gating": 6,
	"enabling": 6, "applying": 7, "rereading": 8, "verifying": 9, "committing": 10, "confirming": 10, "done": 10}

var epoch = time.Date(2026, 2, 3, 4, 5, 6, 0, time.UTC)

func newDaemon(t testing.TB) *daemon {
	t.Helper()
	dir, err := os.MkdirTemp("", "lpad") // short: the path of a socket has 108 bytes
	if err != nil {
		t.Fatal(err)
	}
	d := &daemon{t: t, path: filepath.Join(dir, "s"), change: make(chan struct{}), answers: make(chan api.AnswerRequest, 4), quit: make(chan struct{}), station: relay.NewStation()}
	l, err := apiserver.Listen(d.path, apiserver.SocketOptions{GID: -1})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- apiserver.New(d, apiserver.Options{}).Serve(ctx, l) }()
	t.Cleanup(func() {
		cancel()
		close(d.quit)
		d.playing.Wait()
		if err := <-done; err != nil {
			t.Error(err)
		}
		os.RemoveAll(dir)
	})
	return d
}

// order begins the job.
func (d *daemon) order(kind, what string, a ...any) (api.Job, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.asked = append(d.asked, fmt.Sprintf(what, a...))
	if d.err != nil {
		return api.Job{}, d.err
	}
	d.job = api.Job{ID: "J1", Kind: kind, State: "queued", Step: 1, Created: epoch, Timeline: []api.Mark{{State: "queued", Step: 1, At: epoch}}}
	d.playing.Go(func() {
		for _, s := range d.play {
			if d.state() == "consent" {
				select {
				case <-d.answers:
				case <-d.quit:
					return
				}
			}
			d.enter(s)
		}
	})
	return d.job, nil
}

func (d *daemon) enter(state string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	j := &d.job
	j.State, j.Step, j.Ended = state, steps[state], state == "done" || state == "failed" || state == "cancelled"
	j.Timeline = append(slices.Clone(j.Timeline), api.Mark{State: state, Step: steps[state], At: epoch.Add(time.Duration(len(j.Timeline)) * 100 * time.Millisecond)})
	j.SMDP = "smdp.example.com"
	j.ICCID = "8901"
	j.CodeRequired = d.codeRequired
	j.Profile = &api.Profile{ICCID: "8901", Name: "Plan", ServiceProvider: "Operator", Rules: []string{"cannot be deleted"}}
	switch state {
	case "rereading":
		j.APN, j.APNSource = "iot.example", "order"
	case "verifying":
		j.Rung = "cfun"
	case "committing":
		j.Network = &api.Network{Interface: "wwan0", Addresses: []string{"10.0.0.2"}}
	}
	if j.Ended && d.end != nil {
		d.end(j)
	}
	d.tell(api.Event{Type: "job", Job: j})
}

// tell publishes an event; the lock is held.
func (d *daemon) tell(e api.Event) {
	if e.Job != nil {
		copied := *e.Job
		e.Job = &copied
	}
	e.ID, e.At = uint64(len(d.events)+1), epoch
	d.events = append(d.events, e)
	close(d.change)
	d.change = make(chan struct{})
}

func (d *daemon) last() string {
	d.mu.Lock()
	defer d.mu.Unlock()
	if len(d.asked) == 0 {
		return ""
	}
	return d.asked[len(d.asked)-1]
}

func (d *daemon) ForCard(name string, order bool) (apiserver.Backend, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.card = name
	if name == "" && order && len(d.cards) > 1 {
		return nil, fault.New(fault.Fault{Code: api.CodeCardAmbiguous, Text: "there are several cards", Who: fault.Technician, Next: "say which"}, nil)
	}
	return d, nil
}
func (d *daemon) Cards(context.Context) (api.Cards, error) { return api.Cards{Cards: d.cards}, nil }

// TestSeveralCards: which card is meant, and what there is.
func TestSeveralCards(t *testing.T) {
	d := newDaemon(t)
	d.cards = []api.CardStatus{
		{Name: "main", EID: "8904", Backend: "at", Path: "/dev/ttyUSB2", State: "ready", Default: true, Slot: "1"},
		{Name: "spare", Backend: "pcsc", Path: "Gemalto 00 00", State: "card-missing", Job: "J9", Queued: 2, Problem: &api.Problem{Title: "no card"}},
	}
	lpactl := func(exit int, args ...string) string {
		t.Helper()
		var out, errs bytes.Buffer
		if got := run(t.Context(), append([]string{"--socket", d.path}, args...), strings.NewReader(""), &out, &errs); got != exit {
			t.Errorf("%q ended with %d, want %d: %s%s", args, got, exit, out.String(), errs.String())
		}
		return out.String()
	}
	want := "CARD            EID   PATH                    STATE\n" +
		"main (default)  8904  at /dev/ttyUSB2 slot 1  ready\n" +
		"spare           -     pcsc Gemalto 00 00      card-missing with J9, 2 jobs wait: no card\n"
	if got := lpactl(0, "cards"); got != want {
		t.Errorf("%s", got)
	}
	var all api.Cards
	if err := json.Unmarshal([]byte(lpactl(0, "--json", "cards")), &all); err != nil || len(all.Cards) != 2 {
		t.Errorf("%+v, %v", all, err)
	}
	if got := lpactl(0, "slot"); got != "card         main\nactive slot  2\nconfigured   2\n" {
		t.Errorf("%s", got)
	}
	var slot api.Slot
	if err := json.Unmarshal([]byte(lpactl(0, "--json", "--card", "main", "slot", "set", "1")), &slot); err != nil || slot.Active != 1 {
		t.Errorf("%+v, %v", slot, err)
	}
	lpactl(2, "slot", "set", "first")
	lpactl(50, "--card", "main", "slot", "set", "9")
	if lpactl(7, "disable", "8901"); d.card != "" {
		t.Errorf("asked for card %q", d.card)
	}
	if lpactl(0, "--card", "spare", "profiles"); d.card != "spare" {
		t.Errorf("asked for card %q", d.card)
	}
	t.Setenv("LPAD_CARD", "main")
	if lpactl(0, "profiles"); d.card != "main" {
		t.Errorf("asked for card %q", d.card)
	}
}

func (d *daemon) Slot(context.Context) (api.Slot, error) {
	return api.Slot{Card: "main", Active: 2, Configured: "2"}, nil
}
func (d *daemon) SetSlot(_ context.Context, _ string, slot int) (api.Slot, error) {
	if slot == 9 {
		return api.Slot{}, fault.New(fault.Fault{Code: "wrong-slot", Text: "no", Who: fault.Technician, Next: "look"}, nil)
	}
	return api.Slot{Card: "main", Active: slot}, nil
}
func (d *daemon) Status(context.Context) (api.Status, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return api.Status{Version: "1.0", State: "busy", LastEvent: uint64(len(d.events)), Queued: 2, Warnings: []string{"TEST CI trusted"}, Next: "wait",
		Card:    api.CardStatus{EID: "8904", Backend: "at", Path: "/dev/ttyUSB2", Problem: &api.Problem{Code: "card-busy", Title: "the card is busy"}},
		Profile: &api.Profile{ICCID: "8901", Name: "Plan", Nickname: "Meter", ServiceProvider: "Operator"},
		Network: api.Network{Backend: "networkmanager", Interface: "wwan0", Addresses: []string{"10.0.0.2"}, APN: "iot.example"},
		Job:     &api.Job{ID: "J0", Kind: "install", State: "loading"}, Trust: []api.TrustRoot{{}, {Test: true}},
		Notifications: api.NoteStatus{Pending: 1, Oldest: epoch.Add(-90 * time.Minute), NextTry: epoch, LastError: &api.Problem{Title: "the server is away"}},
		Relay:         &api.Relay{By: "uid 1000 (pid 7)", Since: epoch},
		Reports:       api.NoteStatus{Pending: 2, Oldest: epoch.Add(-5 * time.Hour), Lost: 1}, Clock: api.Clock{Now: epoch}}, nil
}
func (d *daemon) Metrics(context.Context) (string, error) { return "# EOF\n", nil }
func (d *daemon) Relay(ctx context.Context, by, connection string, take func() (net.Conn, error)) error {
	if d.err != nil {
		return d.err
	}
	if connection != "" {
		return d.station.Bring(connection, take)
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	d.mu.Lock()
	d.detach = cancel
	d.mu.Unlock()
	return d.station.Attach(ctx, by, take)
}
func (d *daemon) Packets(context.Context) (api.Packets, error)         { return api.Packets{}, nil }
func (d *daemon) PutPacket(context.Context, string, *api.Packet) error { return nil }

func (d *daemon) Probe(context.Context) (api.Probe, error) {
	return d.probed, d.err
}
func (d *daemon) Trust(context.Context) (api.Trust, error) { return d.trust, d.err }
func (d *daemon) APDU(_ context.Context, _ string, r api.APDURequest) (api.APDUs, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.asked = append(d.asked, fmt.Sprintf("apdu %v force=%v", r.Commands, r.Force))
	return d.apdus, d.err
}
func (d *daemon) EUICC(context.Context) (api.EUICC, error) {
	return api.EUICC{EID: "8904", SVN: "2.5.0", FreeMemory: 1000, CIVerification: []string{"AB", "CD"}, DefaultSMDP: ""}, nil
}
func (d *daemon) Profiles(context.Context) (api.Profiles, error) {
	return api.Profiles{Profiles: []api.Profile{{ICCID: "8901", State: "enabled", Class: "operational", Nickname: "Meter", Name: "Plan", ServiceProvider: "Operator",
		Rules: []string{"cannot be deleted"}, LastKnownGood: true}, {ICCID: "8902", State: "disabled", Class: "test", Name: "Test",
		Quarantine: &api.Quarantine{Code: "no-bearer", Title: "no bearer", Since: time.Date(2026, 2, 3, 4, 5, 6, 0, time.UTC), Attempts: 2}}}}, nil
}
func (d *daemon) Notifications(context.Context) (api.Notifications, error) {
	return api.Notifications{Notifications: []api.Notification{{SeqNumber: 3, Event: "enable", Address: "smdp.example.com", ICCID: "8901",
		Since: time.Now().Add(-3*time.Hour - time.Minute), Failures: 2, LastError: &api.Problem{Title: "the server is away"}}},
		Reports: []api.Notification{{Job: "20261121-120000", Event: "install", Outcome: "rolled-back", SeqNumber: 4, Address: "reports.example", LastError: &api.Problem{Title: "refused"}}}}, nil
}
func (d *daemon) DeliverNotifications(context.Context) (api.Notifications, error) {
	return api.Notifications{}, nil
}
func (d *daemon) ReplayNotification(_ context.Context, _ string, seq int64) (api.Notifications, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.asked = append(d.asked, fmt.Sprintf("replay %d", seq))
	return api.Notifications{}, fault.New(fault.Fault{Code: "server-silent", Text: "the server does not answer in time", Retry: true, Who: fault.Device, Next: "try again"}, nil)
}
func (d *daemon) DropNotification(_ context.Context, _ string, seq int64) (api.Notifications, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.asked = append(d.asked, fmt.Sprintf("drop %d", seq))
	return api.Notifications{}, nil
}
func (d *daemon) ReplayReport(_ context.Context, _, job string, drop bool) (api.Notifications, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.asked = append(d.asked, fmt.Sprintf("report %s drop=%v", job, drop))
	return api.Notifications{}, nil
}
func (d *daemon) Install(_ context.Context, _ string, r api.InstallRequest) (api.Job, error) {
	what := "install %q source=%q cc=%q enable=%v consent=%v ppr=%v delete=%v params=%s"
	if r.DryRun {
		what += " dry"
	}
	return d.order("install", what, r.ActivationCode, r.Source, r.ConfirmationCode, r.Enable, r.Consent, r.PPRConsent, r.DeleteOld, r.Parameters)
}

// dry makes the jobs to come those of a dry run.
func (d *daemon) dry(j *api.Job) { j.DryRun, j.CodeRequired = true, true }
func (d *daemon) Effective(_ context.Context, iccid string) (api.Effective, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.asked = append(d.asked, "effective "+iccid)
	return d.effective, d.err
}
func (d *daemon) SetParameters(_ context.Context, _, iccid string, document json.RawMessage) (api.Effective, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.asked = append(d.asked, fmt.Sprintf("parameters %s %s", iccid, document))
	return d.effective, d.err
}
func (d *daemon) ClearParameters(_ context.Context, _, iccid string) (api.Effective, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.asked = append(d.asked, "no parameters "+iccid)
	return d.effective, d.err
}
func (d *daemon) Order(_ context.Context, _ string, jws []byte, mayDelete bool) (api.Job, error) {
	return d.order("install", "order %q delete=%v", jws, mayDelete)
}
func (d *daemon) Enable(_ context.Context, _, iccid string, r api.EnableRequest) (api.Job, error) {
	return d.order("enable", "enable %s delete=%v params=%s", iccid, r.DeleteOld, r.Parameters)
}
func (d *daemon) Disable(_ context.Context, _, iccid string) (api.Job, error) {
	return d.order("disable", "disable %s", iccid)
}
func (d *daemon) Delete(_ context.Context, _, iccid string) (api.Job, error) {
	return d.order("delete", "delete %s", iccid)
}
func (d *daemon) SetNickname(_ context.Context, _, iccid string, r api.NicknameRequest) (api.Job, error) {
	return d.order("nickname", "nickname %s %q", iccid, r.Nickname)
}
func (d *daemon) Jobs(context.Context) (api.Jobs, error) {
	return api.Jobs{Jobs: []api.Job{{ID: "J2", Kind: "enable", State: "failed", ICCID: "8901", Problem: &api.Problem{Title: "no network"}}, {ID: "J1", Kind: "install", State: "done"}}}, nil
}
func (d *daemon) Job(_ context.Context, id string) (api.Job, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if id != d.job.ID {
		return api.Job{}, fault.New(fault.Fault{Code: "not-found", Text: "there is no job " + id, Who: fault.Technician, Next: "list what there is"}, nil)
	}
	return d.job, nil
}
func (d *daemon) WaitJob(ctx context.Context, id string) (api.Job, error) { return d.Job(ctx, id) }
func (d *daemon) Answer(_ context.Context, _, id string, r api.AnswerRequest) (api.Job, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.asked = append(d.asked, fmt.Sprintf("answer %s %v %q", id, r.Accept, r.ConfirmationCode))
	if d.err != nil {
		return api.Job{}, d.err
	}
	d.answers <- r
	return d.job, nil
}
func (d *daemon) Abort(_ context.Context, _, id string) (api.Job, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.asked = append(d.asked, "abort "+id)
	if d.abort != "" {
		d.playing.Go(func() { d.enter(d.abort) })
	}
	return d.job, d.err
}
func (d *daemon) Watch(ctx context.Context, after uint64) <-chan api.Event {
	out := make(chan api.Event)
	d.mu.Lock()
	next := int(min(after, uint64(len(d.events))))
	d.mu.Unlock()
	go func() {
		defer close(out)
		for {
			d.mu.Lock()
			events, change := d.events[next:], d.change
			d.mu.Unlock()
			for _, e := range events {
				select {
				case out <- e:
					next++
				case <-ctx.Done():
					return
				}
			}
			select {
			case <-change:
			case <-ctx.Done():
				return
			}
		}
	}()
	return out
}

// lpactl runs a command against the daemon.
func (d *daemon) lpactl(stdin string, args ...string) (exit int, out, errs string) {
	d.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	var o, e bytes.Buffer
	exit = run(ctx, append([]string{"--socket", d.path}, args...), strings.NewReader(stdin), &o, &e)
	return exit, o.String(), e.String()
}

var (
	installing = []string{"authenticating", "preparing", "loading", "reporting", "done"}
	switching  = []string{"authenticating", "preparing", "loading", "reporting", "snapshotting", "gating", "enabling", "applying", "rereading", "verifying", "committing", "confirming", "done"}
	asking     = []string{"authenticating", "consent", "preparing", "loading", "reporting", "done"}
)

func TestQuestions(t *testing.T) {
	for _, tc := range []struct {
		args string
		want string // of standard output
		json any    // a value to decode into
	}{
		{"status", `!! TEST CI trusted
state    busy
card     8904 (at /dev/ttyUSB2): the card is busy
profile  Meter of Operator (8901)
network  networkmanager wwan0 10.0.0.2 APN iot.example
relay    attached since 04:05:06 UTC by uid 1000 (pid 7)
job      install J0: loading
waiting  2 jobs
queue    1 notification waits for its server, the oldest for 90 min, next try
         HH:MM:SS (the server is away)
reports  2 reports wait for their server, the oldest for 5 h; 1 were given up
         because too many waited
trust    2 root certificates, of them 1 TEST authorities
clock    2026-02-03 04:05:06 UTC: the clock is not set
version  1.0
next     wait
`, &api.Status{}},
		{"euicc", `EID                   8904
SGP.22 version        2.5.0
free memory           1000 bytes
default SM-DP+        none
root SM-DS            none
CIs for verification  AB CD
`, &api.EUICC{}},
		{"profiles", `ICCID  STATE     CLASS        NAME   OPERATOR  RULES              NOTES
8901   enabled   operational  Meter  Operator  cannot be deleted  last known-good
8902   disabled  test         Test                                quarantined since 2026-02-03 04:05 UTC, 2 switches taken back: no bearer
`, &api.Profiles{}},
		{"notifications", `SEQ  EVENT   SERVER            ICCID  AGE  NEXT TRY  LAST ERROR
3    enable  smdp.example.com  8901   3 h            the server is away

JOB              REPORT               RECEIVER         NUMBER  AGE  NEXT TRY  LAST ERROR
20261121-120000  install rolled-back  reports.example  4                      refused
`, &api.Notifications{}},
		{"notifications --deliver", "SEQ  EVENT  SERVER  ICCID  AGE  NEXT TRY  LAST ERROR\n", &api.Notifications{}},
		{"jobs", `JOB  KIND     STATE   ICCID  PROBLEM
J2   enable   failed  8901   no network
J1   install  done           
`, &api.Jobs{}},
		{"events", "", nil},
	} {
		t.Run(tc.args, func(t *testing.T) {
			d := newDaemon(t)
			exit, out, errs := d.lpactl("", strings.Fields(tc.args)...)
			out = regexp.MustCompile(`\d\d:\d\d:\d\d( \()`).ReplaceAllString(out, "HH:MM:SS$1")
			if exit != 0 || out != tc.want || errs != "" {
				t.Errorf("exit %d\n%s\nwant\n%s\n%s", exit, out, tc.want, errs)
			}
			exit, out, errs = d.lpactl("", append(strings.Fields(tc.args), "--json")...)
			if exit != 0 || errs != "" {
				t.Errorf("--json: exit %d %s", exit, errs)
			}
			if tc.json != nil {
				if err := json.Unmarshal([]byte(out), tc.json); err != nil {
					t.Errorf("--json: %v in %s", err, out)
				}
			}
		})
	}
}

func TestInstallAndItsTimeline(t *testing.T) {
	d := newDaemon(t)
	d.play = switching
	exit, out, errs := d.lpactl("", "install", "LPA:1$smdp.example.com$X", "--enable", "--yes", "--accept-rules", "--delete-old")
	want := `activation code: server smdp.example.com, matching id … (1 characters)
   0.1 s   1  order accepted
   0.3 s   2  eUICC and smdp.example.com have proven themselves; offered: Plan of Operator
   0.4 s   3  profile package loaded and installed, not yet active
   0.5 s   4  installation notification delivered over today's network
   0.5 s   5  activation ordered
   0.8 s   6  profile enabled: the eUICC has confirmed it
   0.9 s   7  APN "iot.example" (order) written to modem and network
   1.0 s   8  modem has read the SIM again (cfun)
   1.1 s   9  online: wwan0 10.0.0.2
   1.3 s  10  enable notification delivered over the new network
`
	if exit != 0 || out != "" || errs != want {
		t.Errorf("exit %d, output %q\n%s\nwant\n%s", exit, out, errs, want)
	}
	if got, want := d.last(), `install "LPA:1$smdp.example.com$X" source="" cc="" enable=true consent=true ppr=true delete=true params=`; got != want {
		t.Errorf("asked %s, want %s", got, want)
	}
	exit, out, errs = d.lpactl("", "events")
	if lines := strings.Count(out, "\n"); exit != 0 || lines != len(switching) || !strings.Contains(out, " job J1 install loading\n") {
		t.Errorf("events: exit %d, %d lines\n%s%s", exit, lines, out, errs)
	}
	exit, out, _ = d.lpactl("", "jobs", "show", "J1")
	if exit != 0 || !strings.Contains(out, "1.3 s  10    done") || !strings.Contains(out, "server  smdp.example.com") {
		t.Errorf("show: exit %d\n%s", exit, out)
	}
	if exit, out, _ = d.lpactl("", "jobs", "show", "J1", "--json"); exit != 0 || !strings.Contains(out, `"timeline"`) {
		t.Errorf("show --json: exit %d\n%s", exit, out)
	}
	if exit, _, errs = d.lpactl("", "jobs", "follow", "J1"); exit != 0 || !strings.Contains(errs, "online: wwan0") {
		t.Errorf("follow: exit %d\n%s", exit, errs)
	}
}

func TestOrders(t *testing.T) {
	params := filepath.Join(t.TempDir(), "p.json")
	if err := os.WriteFile(params, []byte(`{"a":1}`), 0o600); err != nil {
		t.Fatal(err)
	}
	broken := filepath.Join(t.TempDir(), "b.json")
	if err := os.WriteFile(broken, []byte(`{"a":`), 0o600); err != nil {
		t.Fatal(err)
	}
	large := filepath.Join(t.TempDir(), "l.json")
	if err := os.WriteFile(large, bytes.Repeat([]byte(" "), maxParameters+1), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		name  string
		args  []string
		stdin string
		exit  int
		asked string
		out   string
		errs  string // a part of it
	}{
		{name: "code from standard input", args: []string{"install", "-", "-y"}, stdin: "LPA:1$a.example$X\n", asked: `install "LPA:1$a.example$X" source="" cc="" enable=false consent=true ppr=false delete=false params=`},
		{name: "no code on standard input", args: []string{"install", "-"}, exit: 8, errs: "there is no activation code on standard input"},
		{name: "too long a line", args: []string{"install", "-"}, stdin: strings.Repeat("x", 2000), exit: 1, errs: "longer than"},
		{name: "default SM-DP+", args: []string{"install", "--source", "default-smdp", "-y", "--params", params},
			asked: `install "" source="default-smdp" cc="" enable=false consent=true ppr=false delete=false params={"a":1}`},
		{name: "code and source", args: []string{"install", "x", "--source", "smds"}, exit: 2, errs: "exclude each other"},
		{name: "neither", args: []string{"install"}, exit: 2, errs: "is needed"},
		{name: "two codes", args: []string{"install", "a", "b"}, exit: 2, errs: "next: see lpactl --help"},
		{name: "unknown flag", args: []string{"install", "--frob"}, exit: 2, errs: "--frob"},
		{name: "unknown command", args: []string{"frob"}, exit: 2, errs: `no command "frob"`},
		{name: "parameters that are no JSON", args: []string{"install", "x", "--params", broken}, exit: 1, errs: "is not JSON"},
		{name: "parameters that are too large", args: []string{"enable", "8901", "--params", large}, exit: 1, errs: "larger than"},
		{name: "no parameters", args: []string{"enable", "8901", "--params", "/nonexistent"}, exit: 1, errs: "no such file"},
		{name: "confirmation code before the order", args: []string{"install", "LPA:1$a.example$X$$1", "-y"}, stdin: "4711\n", errs: "confirmation code: ",
			asked: `install "LPA:1$a.example$X$$1" source="" cc="4711" enable=false consent=true ppr=false delete=false params=`},
		{name: "no confirmation code", args: []string{"install", "LPA:1$a.example$X$$1", "-y"}, exit: 20, errs: "[confirmation-code-missing]"},
		{name: "confirmation code on the command line", args: []string{"install", "x", "-y", "--confirmation-code", "47"},
			asked: `install "x" source="" cc="47" enable=false consent=true ppr=false delete=false params=`},
		{name: "confirmation code asked for", args: []string{"install", "x", "-y", "--confirmation-code", "-"}, stdin: "48",
			asked: `install "x" source="" cc="48" enable=false consent=true ppr=false delete=false params=`},
		{name: "detached", args: []string{"install", "x", "-y", "--detach"}, out: "J1\n", asked: `install "x" source="" cc="" enable=false consent=true ppr=false delete=false params=`},
		{name: "enable", args: []string{"enable", "8901", "--delete-old", "--params", params}, out: "done\n", asked: `enable 8901 delete=true params={"a":1}`},
		{name: "disable", args: []string{"disable", "8901"}, out: "done\n", asked: "disable 8901"},
		{name: "disable, detached", args: []string{"disable", "8901", "--detach"}, out: "J1\n", asked: "disable 8901"},
		{name: "delete", args: []string{"delete", "8901", "-y"}, out: "done\n", asked: "delete 8901"},
		{name: "delete, asked", args: []string{"delete", "8901"}, stdin: "y\n", out: "done\n", asked: "delete 8901", errs: "for ever?"},
		{name: "delete, refused", args: []string{"delete", "8901"}, stdin: "\n", exit: 23, errs: "nothing was deleted"},
		{name: "delete, nobody there", args: []string{"delete", "8901"}, exit: 8, errs: "nobody answered"},
		{name: "nickname", args: []string{"nickname", "8901", "Zähler 3"}, out: "done\n", asked: `nickname 8901 "Zähler 3"`},
		{name: "nickname without name", args: []string{"nickname", "8901"}, exit: 2, errs: "accepts 2 arg"},
		{name: "abort", args: []string{"jobs", "abort", "J1"}, asked: "abort J1"},
		{name: "answer", args: []string{"jobs", "answer", "J1", "--confirmation-code", "-"}, stdin: "47\n", asked: `answer J1 true "47"`},
		{name: "refuse", args: []string{"jobs", "answer", "J1", "--refuse"}, asked: `answer J1 false ""`},
		{name: "no such job", args: []string{"jobs", "show", "J9"}, exit: 5, errs: "error: there is no job J9 [not-found]\nnext: list what there is\n"},
		{name: "unknown subcommand", args: []string{"jobs", "frob"}, exit: 2},
	} {
		t.Run(tc.name, func(t *testing.T) {
			d := newDaemon(t)
			d.play = installing
			exit, out, errs := d.lpactl(tc.stdin, tc.args...)
			if exit != tc.exit || out != tc.out || d.last() != tc.asked || !strings.Contains(errs, tc.errs) {
				t.Errorf("exit %d, want %d\noutput %q, want %q\nasked %s, want %s\n%s", exit, tc.exit, out, tc.out, d.last(), tc.asked, errs)
			}
			if strings.Contains(errs, "4711") {
				t.Errorf("the confirmation code is told: %s", errs)
			}
		})
	}
}

func TestConsent(t *testing.T) {
	for _, tc := range []struct {
		name  string
		play  []string
		stdin string
		args  []string
		end   func(*api.Job)
		exit  int
		asked string
		errs  string
	}{
		{name: "given", play: asking, stdin: "y\n", asked: `answer J1 true ""`, errs: "offered: Plan of Operator, ICCID 8901\n  rule: cannot be deleted\ninstall it? [y/N] "},
		{name: "refused", play: []string{"authenticating", "consent", "cancelling", "failed"}, stdin: "no\n",
			end: func(j *api.Job) {
				j.Problem = &api.Problem{Code: "consent-refused", Title: "the download was refused", Who: "nobody"}
			},
			exit: 23, asked: `answer J1 false ""`, errs: "cancelling the download on both sides"},
		{name: "nobody there", play: asking, exit: 36, asked: "install", errs: "lpactl jobs answer J1"},
		{name: "asked again after a restart", play: []string{"authenticating", "consent", "authenticating", "consent", "preparing", "done"}, stdin: "y\ny\n", asked: `answer J1 true ""`},
	} {
		t.Run(tc.name, func(t *testing.T) {
			d := newDaemon(t)
			d.play, d.end = tc.play, tc.end
			exit, _, errs := d.lpactl(tc.stdin, append([]string{"install", "LPA:1$a.example$X"}, tc.args...)...)
			if exit != tc.exit || !strings.HasPrefix(d.last(), tc.asked) || !strings.Contains(errs, tc.errs) {
				t.Errorf("exit %d, want %d; asked %s, want %s\n%s", exit, tc.exit, d.last(), tc.asked, errs)
			}
		})
	}
	t.Run("with a confirmation code", func(t *testing.T) {
		d := newDaemon(t)
		d.play = asking
		for _, tc := range []struct{ args, stdin, cc string }{{"", "y\n4711\n", "4711"}, {"--confirmation-code=4712", "y\n", "4712"}} {
			d.withCode()
			exit, _, errs := d.lpactl(tc.stdin, strings.Fields("install LPA:1$a.example$X "+tc.args)...)
			if want := fmt.Sprintf("answer J1 true %q", tc.cc); exit != 0 || d.last() != want {
				t.Errorf("exit %d, asked %s, want %s\n%s", exit, d.last(), want, errs)
			}
		}
	})
	t.Run("too late", func(t *testing.T) {
		d := newDaemon(t)
		d.play = []string{"authenticating", "consent", "failed"}
		d.end = func(j *api.Job) {
			j.Problem = &api.Problem{Code: "consent-timeout", Title: "nobody answered in time", Who: "technician"}
		}
		r, w := io.Pipe()
		defer r.Close()
		go func() {
			for d.state() != "consent" {
				time.Sleep(time.Millisecond)
			}
			d.mu.Lock()
			d.err = fault.New(fault.Fault{Code: "conflict", Text: "the job is not waiting for an answer", Who: fault.Nobody}, nil)
			d.mu.Unlock()
			_, _ = io.WriteString(w, "y\n")
			d.answers <- api.AnswerRequest{} // the daemon goes on by itself
		}()
		var out, errs bytes.Buffer
		if exit := run(t.Context(), []string{"--socket", d.path, "install", "x"}, r, &out, &errs); exit != 24 {
			t.Errorf("exit %d\n%s", exit, &errs)
		}
	})
}

func (d *daemon) state() string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.job.State
}

// withCode makes the jobs to come need a confirmation code.
func (d *daemon) withCode() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.codeRequired = true
}

func TestOutcomes(t *testing.T) {
	for _, tc := range []struct {
		name string
		play []string
		end  func(*api.Job)
		exit int
		errs string
	}{
		{"failed", []string{"authenticating", "failed"}, func(j *api.Job) {
			j.Problem = &api.Problem{Code: "server-silent", Title: "the server does not answer in time", Detail: "EOF", Next: "try again", Who: "device"}
		}, 12, "error: the server does not answer in time [server-silent]\ncause: EOF\nnext: try again\n"},
		{"rolled back", []string{"authenticating", "preparing", "loading", "reporting", "snapshotting", "enabling", "rolling-back", "notifying", "failed"}, func(j *api.Job) {
			j.Problem = &api.Problem{Code: "no-bearer", Title: "no bearer", Who: "operator"}
		}, 40, "bringing the previous profile and its settings back"},
		{"cancelled", []string{"authenticating", "cancelling", "cancelled"}, nil, 37, "the job was cancelled"},
		{"undelivered", []string{"authenticating", "preparing", "loading", "reporting", "done"}, func(j *api.Job) { j.Undelivered = 2 }, 0, "2 notifications wait for their server"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			d := newDaemon(t)
			d.play, d.end = tc.play, tc.end
			exit, out, errs := d.lpactl("", "install", "x", "-y", "--enable")
			if exit != tc.exit || out != "" || !strings.Contains(errs, tc.errs) {
				t.Errorf("exit %d, want %d, output %q\n%s", exit, tc.exit, out, errs)
			}
			exit, out, _ = d.lpactl("", "install", "x", "-y", "--enable", "--json")
			var j api.Job
			dec := json.NewDecoder(strings.NewReader(out))
			if err := dec.Decode(&j); err != nil || exit != tc.exit || j.ID != "J1" {
				t.Errorf("--json: exit %d, %v\n%s", exit, err, out)
			}
			if tc.exit == 0 {
				return
			}
			var p api.Problem
			if err := dec.Decode(&p); err != nil || exitCode(&p) != tc.exit {
				t.Errorf("--json: problem %+v, %v", p, err)
			}
		})
	}
}

func TestInterrupted(t *testing.T) {
	for _, tc := range []struct {
		name string
		play []string
	}{
		{"while following", []string{"authenticating"}},
		{"at a question", []string{"authenticating", "consent"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			d := newDaemon(t)
			d.play = tc.play
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			r, w := io.Pipe() // a terminal at which nobody types
			defer w.Close()
			go func() {
				for d.state() != tc.play[len(tc.play)-1] {
					time.Sleep(time.Millisecond)
				}
				time.Sleep(50 * time.Millisecond)
				cancel()
			}()
			var out, errs bytes.Buffer
			exit := run(ctx, []string{"--socket", d.path, "install", "x"}, r, &out, &errs)
			if exit != exitStopped || !strings.Contains(errs.String(), "interrupted: the job J1 goes on by itself\nnext: ") || strings.Contains(errs.String(), "[a/L]") {
				t.Errorf("exit %d\n%s", exit, &errs)
			}
		})
	}
}

func TestNoDaemon(t *testing.T) {
	var out, errs bytes.Buffer
	if exit := run(t.Context(), []string{"--socket", "/nonexistent/s", "status", "--json"}, strings.NewReader(""), &out, &errs); exit != 3 {
		t.Errorf("exit %d", exit)
	}
	var p api.Problem
	if err := json.Unmarshal(out.Bytes(), &p); err != nil || p.Code != api.CodeNotRunning || !strings.Contains(errs.String(), "systemctl start lpad") {
		t.Errorf("problem %+v, %v\n%s", p, err, &errs)
	}
	t.Setenv("LPAD_SOCKET", "/nonexistent/by-environment")
	errs.Reset()
	if exit := run(t.Context(), []string{"status"}, strings.NewReader(""), &out, &errs); exit != 3 || !strings.Contains(errs.String(), "by-environment") {
		t.Errorf("exit %d\n%s", exit, &errs)
	}
	d := newDaemon(t)
	d.err = fault.New(fault.Fault{Code: "a-new-code", Text: "x", Who: fault.Operator, Next: "x"}, nil)
	if exit, _, _ := d.lpactl("", "install", "x", "-y"); exit != 25 {
		t.Errorf("a problem of the operator without a number: exit %d", exit)
	}
	d.err = fault.New(fault.Fault{Code: "another", Text: "x", Who: fault.Nobody, Next: "x"}, nil)
	if exit, _, _ := d.lpactl("", "install", "x", "-y"); exit != 1 {
		t.Errorf("a problem of nobody: exit %d", exit)
	}
	if exit, out, _ := d.lpactl("", "--version"); exit != 0 || !strings.Contains(out, "lpactl version") {
		t.Errorf("version: exit %d %s", exit, out)
	}
}

// What scripts tell apart has a number of its own.
func TestExitCodesAreDistinct(t *testing.T) {
	seen := map[int]string{}
	for _, c := range []string{"activation-code-malformed", "host-unknown", "server-silent", "certificate-foreign", "certificate-expired", "test-ci-not-allowed",
		"confirmation-code-wrong", "matching-id-refused", "ppr-not-allowed", "card-full", "installation-failed", "card-status", "card-answer"} {
		n := exitCode(&api.Problem{Code: c})
		if n == exitFailed || seen[n] != "" {
			t.Errorf("%s and %s both end with %d", c, seen[n], n)
		}
		seen[n] = c
	}
	codes, numbers := map[string]bool{}, map[int]bool{exitOK: true, exitFailed: true, exitUsage: true, exitWarnings: true, exitStopped: true}
	for _, n := range byWho {
		if numbers[n] {
			t.Errorf("%d is there twice", n)
		}
		numbers[n] = true
	}
	for _, row := range exitCodes {
		if numbers[row.exit] {
			t.Errorf("%d is there twice", row.exit)
		}
		numbers[row.exit] = true
		for _, c := range row.codes {
			if codes[c] {
				t.Errorf("%s is there twice", c)
			}
			codes[c] = true
		}
	}
}

// Every code with a number is one that some part of lpad has.
func TestExitCodesAreReal(t *testing.T) {
	var source strings.Builder
	err := filepath.WalkDir("../..", func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") || strings.HasSuffix(path, "lpactl/exit.go") {
			return err
		}
		b, err := os.ReadFile(path)
		source.Write(b)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	all := source.String()
	for _, row := range exitCodes {
		for _, c := range row.codes {
			if !strings.Contains(all, strconv.Quote(c)) {
				t.Errorf("%s, which ends with %d, is the code of nothing", c, row.exit)
			}
		}
	}
}

// docs/lpactl.md has the same numbers and commands.
func TestDocument(t *testing.T) {
	b, err := os.ReadFile("../../docs/lpactl.md")
	if err != nil {
		t.Fatal(err)
	}
	documented := map[int]string{}
	commands := map[string]bool{}
	row := regexp.MustCompile(`^\| (\d+) \| [^|]+ \| ?([^|]*) ?\|$`)
	command := regexp.MustCompile("^\\| `lpactl ([a-z -]+)` \\|")
	for line := range strings.Lines(string(b)) {
		line = strings.TrimSpace(line)
		if m := row.FindStringSubmatch(line); m != nil {
			n, err := strconv.Atoi(m[1])
			if _, twice := documented[n]; err != nil || twice {
				t.Errorf("%s: %v, twice: %v", line, err, twice)
			}
			documented[n] = strings.TrimSpace(strings.ReplaceAll(m[2], "`", ""))
		}
		if m := command.FindStringSubmatch(line); m != nil {
			commands[m[1]] = true
		}
	}
	want := map[int]string{exitOK: "", exitFailed: "", exitUsage: "", exitWarnings: "", exitStopped: ""}
	for _, n := range byWho {
		want[n] = ""
	}
	for _, r := range exitCodes {
		want[r.exit] = strings.Join(r.codes, " ")
	}
	for n, codes := range want {
		if got, ok := documented[n]; !ok || got != codes {
			t.Errorf("the document has %q for %d, want %q", got, n, codes)
		}
		delete(documented, n)
	}
	for n := range documented {
		t.Errorf("the document has a number that is not used: %d", n)
	}
	var help bytes.Buffer
	for _, name := range []string{"", "jobs", "notifications", "packets", "params", "slot"} {
		help.Reset()
		if exit := run(t.Context(), append(strings.Fields(name), "--help"), strings.NewReader(""), &help, io.Discard); exit != 0 {
			t.Errorf("help: exit %d", exit)
		}
		_, list, _ := strings.Cut(help.String(), "Available Commands:\n")
		list, _, _ = strings.Cut(list, "\n\n")
		for line := range strings.Lines(list) {
			c := strings.TrimSpace(name + " " + strings.Fields(line)[0])
			if c == "help" || c == "completion" {
				continue
			}
			if !commands[c] {
				t.Errorf("the document lacks the command %q", c)
			}
			delete(commands, c)
		}
	}
	for c := range commands {
		t.Errorf("the document has a command that does not exist: %q", c)
	}
}
