package runner_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"lpad/agent/job"
	"lpad/agent/journal"
	"lpad/agent/procedure"
	"lpad/agent/rsp"
	"lpad/agent/rsp/es10"
	"lpad/agent/rsp/es9p"
	"lpad/agent/rsp/rsptest/euicc"
	"lpad/agent/rsp/rsptest/smdp"
	inprocess "lpad/agent/rsp/rsptest/world"
	"lpad/agent/runner"
	"lpad/agent/switchover"
	"lpad/apdu"
	"lpad/internal/fault"
	"lpad/internal/redact"
	"lpad/modem"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	host     = inprocess.SMDPHost
	oldICCID = "89000123456789012341"
	newICCID = "89000123456789012358"
	matching = "ORDER-1"
)

// patience is how long a test waits for something that must come. The machine
// may be busy.
const patience = 60 * time.Second

// world is a software eUICC, an SM-DP+ and an SM-DS, and what of a daemon
// outlives it: the journal's file. The runner in it is the real one, and so is
// everything between it and card and servers.
type world struct {
	*inprocess.World
	t      testing.TB
	card   *euicc.Card
	smdp   *smdp.Server
	smds   *smdp.Server
	client es9p.Client
	path   string // of the journal

	// What the next life starts with.
	network switchover.Network
	modem   switchover.Modem
	change  func(*runner.Config)
	hook    func(msg string, attrs map[string]string) // sees the log
	now     func() time.Time
	hurry   func(*runner.Runner)

	mu  sync.Mutex
	log []string
}

type options struct {
	card  func(*euicc.Config)
	smdp  func(*smdp.Config)
	order func(*smdp.Order)
	empty bool // no profile on the card
}

func newWorld(t testing.TB, o options) *world {
	t.Helper()
	in := inprocess.New(t, inprocess.Options{SMDP: o.smdp, Card: func(c *euicc.Config) {
		c.DefaultSMDP, c.RootSMDS = host, inprocess.SMDSHost
		if !o.empty {
			c.Profiles = []euicc.Profile{{ICCID: iccid(t, oldICCID), IMSI: "001010123456789", ServiceProvider: "Old", Name: "Old Plan", Enabled: true,
				Notifications: []rsp.NotificationConfiguration{{Events: rsp.AllEvents, Address: host}}}}
		}
		if o.card != nil {
			o.card(c)
		}
	}})
	w := &world{World: in, t: t, card: in.Card, smdp: in.SMDP, smds: in.SMDS, path: filepath.Join(t.TempDir(), "journal")}
	trust, err := es9p.NewTrust(es9p.TrustConfig{Dir: in.Trust})
	if err != nil {
		t.Fatal(err)
	}
	w.client = es9p.Client{Trust: trust, Addresses: in.Addresses}
	w.book(matching, newICCID, o.order)
	direct := switchover.Direct{Card: resetter{w.card}}
	w.network, w.modem = direct, direct
	t.Cleanup(func() {
		if t.Failed() {
			w.mu.Lock()
			defer w.mu.Unlock()
			t.Logf("the daemon's log:\n%s", strings.Join(w.log, "\n"))
		}
	})
	return w
}

// book places an order at the SM-DP+ for a small profile.
func (w *world) book(matchingID, id string, change func(*smdp.Order)) {
	w.t.Helper()
	w.Book(w.t, matchingID, iccid(w.t, id), 3000, change)
}

// life is one run of a daemon in a world.
type life struct {
	*runner.Runner
	w       *world
	journal *journal.Journal
	cancel  context.CancelFunc
	done    chan struct{}
	err     error
}

// live starts a daemon. It is stopped at the end of the test at the latest.
func (w *world) live() *life {
	w.t.Helper()
	j, err := journal.Open(w.path, journal.Options{})
	if err != nil {
		w.t.Fatal(err)
	}
	direct := switchover.Direct{Card: resetter{w.card}}
	done := make(chan struct{})
	c := runner.Config{
		Journal: j, Card: mortal{cards{w.card}, done}, Servers: servers{&w.client}, Settings: settings{}, Probe: runner.NoProbe,
		Switch:       &switchover.Switch{Settings: direct, Modem: w.modem, Network: w.network},
		DeliverRetry: runner.Backoff{First: 50 * time.Millisecond, Most: 200 * time.Millisecond},
		Log:          slog.New(logger{w}),
		Now:          w.now,
	}
	if w.change != nil {
		w.change(&c)
	}
	ctx, cancel := context.WithCancel(context.Background())
	l := &life{Runner: runner.New(c), w: w, journal: j, cancel: cancel, done: done}
	l.Hurry(50*time.Millisecond, 50*time.Millisecond, 20*time.Millisecond)
	if w.hurry != nil {
		w.hurry(l.Runner)
	}
	go func() {
		defer close(l.done)
		l.err = errCrashed
		l.err = l.Run(ctx)
	}()
	w.t.Cleanup(l.stop)
	return l
}

var errCrashed = errors.New("crashed")

// stop ends a life and waits for it.
func (l *life) stop() {
	l.cancel()
	l.wait()
}

// wait waits for the end of a life.
func (l *life) wait() {
	l.w.t.Helper()
	select {
	case <-l.done:
	case <-time.After(patience):
		l.w.t.Fatal("the runner does not stop")
	}
	if l.err != nil && !errors.Is(l.err, errCrashed) {
		l.w.t.Errorf("Run: %v", l.err)
	}
	if l.journal != nil {
		if err := l.journal.Close(); err != nil {
			l.w.t.Error(err)
		}
		l.journal = nil
	}
}

// crash ends the calling goroutine, which must be the loop: nothing of what
// comes after is done.
func crash() { runtime.Goexit() }

// order is the usual one.
func order(change ...func(*job.Order)) job.Order {
	o := job.Order{Kind: job.Install, Source: job.SourceActivationCode, SMDP: host, MatchingID: matching, Consent: true}
	for _, c := range change {
		c(&o)
	}
	return o
}

func enabling(o *job.Order)  { o.Enable = true }
func asking(o *job.Order)    { o.Consent = false }
func deleteOld(o *job.Order) { o.DeleteOld = true }

// about makes an order about a profile.
func about(t testing.TB, kind job.Kind, id string) job.Order {
	return job.Order{Kind: kind, ICCID: iccid(t, id)}
}

func (l *life) submit(o job.Order, code ...string) job.Job {
	l.w.t.Helper()
	var secret redact.Secret
	if len(code) > 0 {
		secret = redact.NewSecret(code[0])
	}
	j, err := l.Submit(l.w.t.Context(), o, secret)
	if err != nil {
		l.w.t.Fatalf("submit: %v", err)
	}
	return j
}

// until waits for a job to satisfy a condition.
func (l *life) until(id string, what string, ok func(job.Job) bool) job.Job {
	l.w.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	for {
		watch, stop := context.WithCancel(ctx)
		events := l.Watch(watch, l.View().LastEvent)
		j, err := l.Job(id)
		if err != nil {
			l.w.t.Fatal(err)
		}
		if ok(j) {
			stop()
			return j
		}
		select {
		case <-events:
		case <-ctx.Done():
			stop()
			l.w.t.Fatalf("job %s is not %s but %s: %s", id, what, j.State, states(j))
		}
		stop()
	}
}

func (l *life) state(id string, s job.State) job.Job {
	l.w.t.Helper()
	return l.until(id, string(s), func(j job.Job) bool { return j.State == s })
}

// ends waits for the end of a job, which must be s.
func (l *life) ends(id string, s job.State) job.Job {
	l.w.t.Helper()
	j := l.until(id, "ended", job.Job.Ended)
	if j.State != s {
		l.w.t.Fatalf("job ended %s, want %s: %+v\n%s", j.State, s, j.Problem, states(j))
	}
	return j
}

// fails waits for the end of a job, which must have failed with a code.
func (l *life) fails(id, code string) job.Job {
	l.w.t.Helper()
	j := l.ends(id, job.Failed)
	if j.Problem == nil || j.Problem.Code != code {
		l.w.t.Fatalf("problem %+v, want code %s", j.Problem, code)
	}
	return j
}

// states is a job's way.
func states(j job.Job) string {
	var list []string
	for _, m := range j.Timeline {
		s := string(m.State)
		if m.Note != "" {
			s += " (" + m.Note + ")"
		}
		list = append(list, s)
	}
	return strings.Join(list, ", ")
}

// enabled is the profile that is enabled on the card.
func (w *world) enabled() string {
	id, ok := w.card.EnabledICCID()
	if !ok {
		return "none"
	}
	return id.String()
}

func (w *world) profiles() string {
	var list []string
	for _, p := range w.card.Profiles() {
		list = append(list, p.ICCID.String())
	}
	return strings.Join(list, " ")
}

// received lists what the SM-DP+ was told, without repetitions.
func (w *world) received() string {
	var list []string
	for _, n := range w.smdp.Notifications() {
		if n.Duplicate {
			continue
		}
		s := n.Event.String() + " " + n.ICCID.String()[17:]
		if n.Result != "" && n.Result != "installed" {
			s += " " + n.Result
		}
		if !n.Verified {
			s += " (" + n.Problem + ")"
		}
		list = append(list, s)
	}
	return strings.Join(list, ", ")
}

// eventually waits for a condition that no event announces.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("never: %s", what)
		}
	}
}

// settled waits until nothing is left on the card to be delivered.
func (w *world) settled() {
	w.t.Helper()
	eventually(w.t, "all notifications delivered", func() bool { return len(w.card.Notifications()) == 0 })
}

func iccid(t testing.TB, s string) rsp.ICCID { return inprocess.ICCID(t, s) }

// wantCode checks the code of an explained error.
func wantCode(t testing.TB, err error, code string) {
	t.Helper()
	if got := fault.Of(err).Code; err == nil || got != code {
		t.Errorf("error %v (%s), want code %s", err, got, code)
	}
}

// cards is a runner.CardSource over a software eUICC.
type cards struct{ card *euicc.Card }

func (c cards) Open(ctx context.Context) (runner.Card, error) {
	ch, err := apdu.OpenChannel(ctx, whole(c), rsp.ISDR)
	if err != nil {
		return nil, err
	}
	return channel{es10.New(ch, 255), ch}, nil
}

// mortal is the way to the card of a daemon that may crash: a process that is dead
// closes no channel, least of all one of the next process.
type mortal struct {
	cards
	done <-chan struct{}
}

func (m mortal) Open(ctx context.Context) (runner.Card, error) {
	card, err := m.cards.Open(ctx)
	if err != nil {
		return nil, err
	}
	return mortalCard{card, m.done}, nil
}

type mortalCard struct {
	runner.Card
	done <-chan struct{}
}

func (c mortalCard) Close(ctx context.Context) error {
	select {
	case <-c.done:
		return nil
	default:
		return c.Card.Close(ctx)
	}
}

type channel struct {
	*es10.Client
	ch *apdu.Channel
}

func (c channel) Close(ctx context.Context) error { return c.ch.Close(ctx) }

// whole lets contexts end between APDUs, as the daemon's own transport does.
type whole struct{ card *euicc.Card }

func (w whole) Transmit(ctx context.Context, command []byte) ([]byte, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	return w.card.Transmit(context.WithoutCancel(ctx), command)
}

type resetter struct{ card *euicc.Card }

func (r resetter) Reset(context.Context) error {
	r.card.Reset()
	return nil
}

type servers struct{ client *es9p.Client }

func (s servers) OpenServer(address string, _ runner.Way) (procedure.Server, error) {
	return s.client.Open(address)
}

// settings knows no access points.
type settings struct{}

func (settings) Wanted(runner.Question) (switchover.Wanted, runner.Effective, error) {
	return switchover.Wanted{}, runner.Effective{}, nil
}

func (settings) Generation(json.RawMessage) int64 { return 0 }

func (settings) CheckDocument(document json.RawMessage) error {
	if len(document) > 0 && document[0] != '{' {
		return fault.New(fault.Fault{Code: "parameters-invalid", Text: "no document", Who: fault.Operator}, nil)
	}
	return nil
}

// noNetwork is a network on which nothing comes up.
type noNetwork struct{ switchover.Direct }

func (noNetwork) Connect(context.Context, string) (modem.Link, error) {
	return modem.Link{}, fault.New(fault.Fault{Code: "no-bearer", Text: "the network refuses the connection", Retry: true, Who: fault.Operator}, nil)
}

// logger collects the daemon's log and shows it to the hook of the world.
type logger struct{ w *world }

func (l logger) Enabled(context.Context, slog.Level) bool { return true }
func (l logger) WithAttrs([]slog.Attr) slog.Handler       { return l }
func (l logger) WithGroup(string) slog.Handler            { return l }
func (l logger) Handle(_ context.Context, r slog.Record) error {
	attrs := map[string]string{}
	line := r.Time.Format("15:04:05.000 ") + r.Message
	r.Attrs(func(a slog.Attr) bool {
		a.Value = a.Value.Resolve()
		attrs[a.Key] = a.Value.String()
		line += fmt.Sprintf(" %s=%v", a.Key, a.Value)
		return true
	})
	l.w.mu.Lock()
	l.w.log = append(l.w.log, line)
	hook := l.w.hook
	l.w.mu.Unlock()
	if hook != nil {
		hook(r.Message, attrs)
	}
	return nil
}

// onLog sets the hook.
func (w *world) onLog(f func(msg string, attrs map[string]string)) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.hook = f
}

// inLoop reports whether the loop is asking the time for an event: the moment
// between an action and its record.
func inLoop() bool {
	pcs := make([]uintptr, 16)
	frames := runtime.CallersFrames(pcs[:runtime.Callers(2, pcs)])
	for {
		f, more := frames.Next()
		if strings.HasSuffix(f.Function, "(*Runner).stamp") {
			return true
		}
		if !more {
			return false
		}
	}
}

const spareICCID = "89000123456789012374"

// hanging is a network that never gets ready.
type hanging struct{ switchover.Direct }

func (hanging) Connect(ctx context.Context, _ string) (modem.Link, error) {
	<-ctx.Done()
	return modem.Link{}, ctx.Err()
}
