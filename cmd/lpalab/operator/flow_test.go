package operator

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"lpad/agent/api"
	"lpad/agent/orders/orderstest"
	"lpad/agent/rsp/rsptest/euicc"
	"lpad/agent/rsp/rsptest/smdp"
	"lpad/cmd/lpalab/lab"
	"lpad/modem/modemtest"
)

// programs is the folder with lpad, lpactl and lpad-pcsc, built for this run.
var programs string

func TestMain(m *testing.M) { os.Exit(run(m)) }

func run(m *testing.M) int {
	flag.Parse()
	dir, err := os.MkdirTemp("", "lpad-test-")
	if err != nil {
		return failed(err)
	}
	defer os.RemoveAll(dir)
	if modemtest.Missing() == "" {
		if err := lab.BuildPrograms(context.Background(), "../../..", dir); err != nil {
			return failed(err)
		}
	}
	programs = dir
	code := m.Run()
	if err := goleak.Find(); code == 0 && err != nil {
		return failed(err)
	}
	return code
}

func failed(err error) int {
	fmt.Fprintln(os.Stderr, err)
	return 1
}

// limit is the longest that a test may take.
const limit = 2 * time.Minute

// startLab starts a lab that ends with the test.
func startLab(t *testing.T, o LabOptions) (context.Context, *Lab) {
	t.Helper()
	modemtest.RequireStack(t)
	t.Parallel()
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	t.Cleanup(cancel)
	o.Programs, o.Answer = programs, time.Minute
	l, err := StartLab(ctx, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("lpad:\n%s", l.Device.Log())
		}
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	})
	return ctx, l
}

// TestFlow is the founding flow over the real ModemManager and NetworkManager,
// and the proof that its check finds what is not in order: the same story with
// one thing in it changed.
func TestFlow(t *testing.T) {
	ctx, l := startLab(t, LabOptions{})
	story, err := l.Flow(ctx, l.Staged)
	if err != nil {
		t.Fatal(err)
	}
	steps, err := story.Check()
	if err != nil || len(steps) != len(founding) {
		t.Fatalf("%d steps: %v", len(steps), err)
	}
	profile, row := l.Server.Profiles()[0], l.Server.Parameters()[1]
	if profile.State != Active || row.Applied != 1 || row.Last == nil || row.Last.ICCID != profile.ICCID || row.Last.At.IsZero() {
		t.Errorf("registries: %+v, %+v", profile, row)
	}
	apn := slices.IndexFunc(row.Last.Values, func(v Value) bool { return v.Leaf == "apns.default" })
	if apn < 0 || !bytes.Contains(row.Last.Values[apn].Value, []byte(l.New.APN)) || row.Last.Values[apn].State != "applied" || !strings.HasPrefix(row.Last.Values[apn].Source, "order") {
		t.Errorf("reported: %+v", row.Last.Values)
	}
	if other := l.Server.Parameters()[0]; other.Applied != 0 || other.Last != nil {
		t.Errorf("the row of other terminals: %+v", other)
	}
	var out strings.Builder
	if err := story.Print(&out); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"operator: order 1 to install " + l.New.ICCID + ", by smdp, with parameters", "SM-DP+: getBoundProfilePackage ok [from " + l.Old.Address.String() + "]", "lpad: install loading",
		"modem: the eUICC confirms the activation", `modem: AT+CGDCONT=1,"IP","` + l.New.APN, "modem: SIM read: ICCID " + l.New.ICCID, "[from " + l.New.Address.String() + "]"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("the logs side by side have no %q:\n%s", want, out.String())
		}
	}

	at := func(name string) time.Time {
		i := slices.IndexFunc(steps, func(s Step) bool { return s.Name == name })
		return steps[i].At
	}
	moveModem := func(s *Story, pattern string, to time.Time) {
		re := regexp.MustCompile(pattern)
		for i := range s.Modem {
			if re.MatchString(s.Modem[i].Text) {
				s.Modem[i].Time = to
			}
		}
		slices.SortStableFunc(s.Modem, func(a, b modemtest.Entry) int { return a.Time.Compare(b.Time) })
	}
	moveEntry := func(s *Story, what What, change func(*Entry)) {
		for i := range s.Record {
			if s.Record[i].What == what {
				change(&s.Record[i])
			}
		}
	}
	notifications := func(s *Story, event string, change func(*smdp.Notification)) {
		for i := range s.Notifications {
			if s.Notifications[i].EventName == event {
				change(&s.Notifications[i])
			}
		}
	}
	for name, test := range map[string]struct {
		change func(*Story)
		want   string
	}{
		"configuration after the refresh":     {func(s *Story) { moveModem(s, `AT\+CGDCONT=1,.*`+l.New.APN, at("refresh").Add(time.Millisecond)) }, `"refresh": it is there, but before "configuration"`},
		"configuration before the activation": {func(s *Story) { moveModem(s, `AT\+CGDCONT=1,.*`+l.New.APN, at("enable").Add(-time.Millisecond)) }, "applied before the activation"},
		"no configuration":                    {func(s *Story) { moveModem(s, `AT\+CGDCONT=1,.*`+l.New.APN, time.Time{}) }, `"configuration"`},
		"activation requested before the loaded notification": {func(s *Story) {
			moveEntry(s, ActivationOrdered, func(e *Entry) { e.At = at("loaded notification").Add(-time.Millisecond) })
		}, `"activation request"`},
		"loaded before the signature": {func(s *Story) { moveModem(s, `BF36`, at("staged")) }, `"load"`},
		"package given before the signature was checked": {func(s *Story) {
			for i := range s.Calls {
				s.Calls[i].Time = at("staged")
			}
		}, "before the signature was checked"},
		"a hook not called":    {func(s *Story) { s.Hooks = s.Hooks[:2] }, `the hook "applied" was not called`},
		"a hook of a way back": {func(s *Story) { s.Hooks = append(slices.Clone(s.Hooks), HookCall{Event: "rolled-back"}) }, "4 hooks were called"},
		"a hook too early": {func(s *Story) {
			s.Hooks = slices.Clone(s.Hooks)
			s.Hooks[2].At = at("enable")
		}, `the hook "applied" was not called between`},
		"loaded notification of another network": {func(s *Story) {
			notifications(s, "install", func(n *smdp.Notification) { n.Peer = l.New.Address })
		}, "came from " + l.New.Address.String()},
		"activation notification over the old network": {func(s *Story) {
			notifications(s, "enable", func(n *smdp.Notification) { n.Peer = l.Old.Address })
		}, "came from " + l.Old.Address.String()},
		"activation notification not signed": {func(s *Story) {
			notifications(s, "enable", func(n *smdp.Notification) { n.Verified = false })
		}, "cannot be believed"},
		"activation procedure before the refresh": {func(s *Story) {
			notifications(s, "enable", func(n *smdp.Notification) { n.Time = at("enable") })
		}, `"activation procedure`},
		"report over the old network":  {func(s *Story) { moveEntry(s, Reported, func(e *Entry) { e.Peer = l.Old.Address }) }, "the report came from"},
		"report of another activation": {func(s *Story) { moveEntry(s, Reported, func(e *Entry) { e.Seq++ }) }, "the report is of the activation"},
		"report over no network":       {func(s *Story) { moveEntry(s, Reported, func(e *Entry) { e.Peer = netip.Addr{} }) }, "the report came from"},
		"no report":                    {func(s *Story) { moveEntry(s, Reported, func(e *Entry) { e.What = "lost" }) }, "no report of the switch"},
		"report of another process":    {func(s *Story) { moveEntry(s, Reported, func(e *Entry) { e.Process++ }) }, "no report of the switch"},
		"the daemon has no job":        {func(s *Story) { s.Jobs = nil }, `"staged"`},
		"the eUICC has not answered":   {func(s *Story) { moveModem(s, `BF3103800100`, time.Time{}) }, "activation notification of the eUICC"},
		"an attach with the old access point": {func(s *Story) {
			s.Modem = append(s.Modem, modemtest.Entry{Time: at("refresh"), Kind: modemtest.Happened, Text: fmt.Sprintf("attach of %s, APN %q", l.New.IMSI, l.Old.APN)})
		}, "the network was asked with the SIM"},
	} {
		changed := *story
		changed.Record, changed.Notifications = slices.Clone(story.Record), slices.Clone(story.Notifications)
		changed.Calls, changed.Modem = slices.Clone(story.Calls), slices.Clone(story.Modem)
		test.change(&changed)
		if _, err := changed.Check(); err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: %v, want %q", name, err, test.want)
		}
	}
}

// TestFlowActivations is the founding flow with the other activations: at once, and at
// a time for which the device itself waits, over a restart of lpad.
func TestFlowActivations(t *testing.T) {
	check := func(t *testing.T, story *Story, err error) []Step {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		steps, err := story.Check()
		if err != nil || len(steps) != len(founding) {
			t.Fatalf("%d steps: %v", len(steps), err)
		}
		return steps
	}
	t.Run("at once", func(t *testing.T) {
		ctx, l := startLab(t, LabOptions{})
		story, err := l.Flow(ctx, nil)
		check(t, story, err)
	})
	t.Run("at a time", func(t *testing.T) {
		ctx, l := startLab(t, LabOptions{})
		story, due, err := l.FlowAtATime(ctx, 6*time.Second)
		for _, s := range check(t, story, err) {
			if s.Name == stepEnable && s.At.Before(due) {
				t.Errorf("enabled at %v, %v before its time", s.At, due.Sub(s.At))
			}
		}
		if n := strings.Count(l.Device.Log(), "msg=serving"); n != 2 {
			t.Errorf("lpad was started %d times", n)
		}
	})
}

// tampering is a link that changes orders on their way.
type tampering struct {
	Link
	change func([]byte) []byte
	sent   [][]byte
}

func (l *tampering) Submit(ctx context.Context, order []byte) (string, error) {
	if l.change != nil {
		order = l.change(bytes.Clone(order))
	}
	l.sent = append(l.sent, order)
	return l.Link.Submit(ctx, order)
}

// flipSignature changes the first bits of a signature.
func flipSignature(order []byte) []byte {
	at := bytes.LastIndexByte(order, '.') + 1
	if order[at] == 'A' {
		order[at] = 'B'
	} else {
		order[at] = 'A'
	}
	return order
}

// again signs an order once more, with the server's key, when its header and what
// it says were changed.
func again(t *testing.T, l *Lab, change func(header, payload map[string]any)) func([]byte) []byte {
	return func(order []byte) []byte {
		t.Helper()
		var header, payload map[string]any
		parts := strings.Split(string(order), ".")
		text, err := base64.RawURLEncoding.DecodeString(parts[0])
		if err == nil {
			err = errors.Join(json.Unmarshal(text, &header), json.Unmarshal([]byte(payloadOf(order)), &payload))
		}
		if err != nil {
			t.Fatal(err)
		}
		change(header, payload)
		head, err := json.Marshal(header)
		if err != nil {
			t.Fatal(err)
		}
		body, err := json.Marshal(payload)
		if err != nil {
			t.Fatal(err)
		}
		signed, err := orderstest.SignRaw(l.Server.key, head, body)
		if err != nil {
			t.Fatal(err)
		}
		return signed
	}
}

// TestRefusals has a refusal at every step of the flow: each suspends the
// process, and nothing was applied. The device is the same one all the time, and
// everything on it is compared before and after; an order that is not taken leaves
// no trace in the journal either. Both sides have written down why.
func TestRefusals(t *testing.T) {
	ctx, l := startLab(t, LabOptions{Config: "network: {dead_man: 15s}\n", ByOperator: true})
	normalize(ctx, t, l)
	t.Run("no signature", func(t *testing.T) {
		before := settings(ctx, t, l)
		var p *api.Problem
		if _, err := l.client.Install(ctx, api.InstallRequest{ActivationCode: l.World.ActivationCode(), Consent: true}); !errors.As(err, &p) || p.Code != "signed-order-needed" {
			t.Errorf("an order without a signature: %v", err)
		}
		if !strings.Contains(l.Device.Log(), "code=signed-order-needed") {
			t.Error("lpad has not logged it")
		}
		if after := settings(ctx, t, l); after != before {
			t.Errorf("before (-) and after (+):\n%s", cmp.Diff(before, after))
		}
	})
	asSMDP := func() error { // orders to install in the name of the SM-DP+, by the wrong key
		l.Server.config.SMDPKey = l.Server.key
		return nil
	}
	elsewhere := l.Terminal
	elsewhere.EID[15] ^= 1
	another := l.Terminal
	another.IMEI = l.Terminal.TAC() + "0000000"
	broken := smdp.Fault{Function: smdp.GetBoundProfilePackage, Kind: smdp.BadMAC}
	replay := &tampering{Link: l.Link()}
	const enableProfile = 0xBF31
	payload := func(change func(map[string]any)) func([]byte) []byte {
		return again(t, l, func(_, p map[string]any) { change(p) })
	}
	from := func(issued, begins, expires time.Duration) func([]byte) []byte {
		return payload(func(p map[string]any) {
			now := time.Now()
			p["iat"], p["nbf"], p["exp"] = now.Add(issued).Unix(), now.Add(begins).Unix(), now.Add(expires).Unix()
		})
	}
	for _, test := range []struct {
		name     string
		terminal Terminal
		link     func(order []byte) []byte
		arrange  func() error
		stage    string
		code     string // of the problem
		other    bool   // the SM-DP+ has another profile for the activation code
		loads    bool   // a package was asked for
		trial    bool   // what was staged has failed its trial: it stays, and is not used again as it is
	}{
		{name: "bad signature", link: flipSignature, stage: stageInstallOrder, code: "signed-order-signature"},
		{name: "changed after it was signed", stage: stageInstallOrder, code: "signed-order-signature", link: func(o []byte) []byte {
			parts := strings.Split(string(again(t, l, func(_, p map[string]any) { p["enable"] = "now" })(o)), ".")
			return []byte(parts[0] + "." + parts[1] + string(o[bytes.LastIndexByte(o, '.'):]))
		}},
		{name: "no signature at all", stage: stageInstallOrder, code: "signed-order-algorithm", link: again(t, l, func(h, _ map[string]any) { h["alg"] = "none" })},
		{name: "a key that nobody knows", stage: stageInstallOrder, code: "signed-order-key", link: again(t, l, func(h, p map[string]any) { h["kid"], p["iss"] = "stranger", "stranger" })},
		{name: "an issuer that has not signed", stage: stageInstallOrder, code: "signed-order-invalid", link: payload(func(p map[string]any) { p["iss"] = "somebody" })},
		{name: "expired", stage: stageInstallOrder, code: "signed-order-expired", link: from(-2*time.Hour, -2*time.Hour, -time.Hour)},
		{name: "not valid yet", stage: stageInstallOrder, code: "signed-order-early", link: from(0, time.Hour, 2*time.Hour)},
		{name: "from the future", stage: stageInstallOrder, code: "signed-order-early", link: from(time.Hour, time.Hour, 2*time.Hour)},
		{name: "another matching id than the activation code's", stage: stageInstallOrder, code: "signed-order-invalid", link: payload(func(p map[string]any) { p["matchingId"] = "OTHER" })},
		{name: "wrong device by its TAC", stage: stageInstallOrder, code: "signed-order-device", link: payload(func(p map[string]any) {
			delete(p, "imei")
			p["tac"] = "35693899"
		})},
		{name: "wrong device by its model", stage: stageInstallOrder, code: "signed-order-device", link: payload(func(p map[string]any) { p["model"] = "SARA-R510" })},
		{name: "bad signature of the SM-DP+", arrange: asSMDP, stage: stageLoad, code: "signed-order-signature"},
		{name: "wrong device by its EID", terminal: elsewhere, stage: stageInstallOrder, code: "signed-order-device"},
		{name: "wrong device by its IMEI", terminal: another, stage: stageInstallOrder, code: "signed-order-device"},
		{name: "wrong profile at the SM-DP+", other: true, stage: stageLoad, code: "signed-order-profile"},
		{name: "load failed", arrange: func() error { l.World.SMDP.Inject(broken); return nil }, stage: stageLoad, loads: true},
		{name: "replayed serial", link: func([]byte) []byte { return replay.sent[0] }, stage: stageInstallOrder, code: "signed-order-replayed"},
		{name: "bad signature of the activation request", link: func(o []byte) []byte {
			if strings.Contains(payloadOf(o), `"action":"enable"`) {
				return flipSignature(o)
			}
			return o
		}, loads: true, stage: stageEnableOrder, code: "signed-order-signature"},
		{name: "activation refused by the eUICC", arrange: func() error {
			l.World.Card.Inject(euicc.Fault{Do: euicc.AnswerResult, Function: enableProfile, Result: 127, Times: -1})
			return nil
		}, stage: stageActivation, code: "card-undefined-error", loads: true},
		{name: "activation refused by the network", stage: "", code: "rolled-back", loads: true, trial: true},
	} {
		t.Run(test.name, func(t *testing.T) {
			stock(t, l, test.other)
			if test.terminal.IMEI == "" {
				test.terminal = l.Terminal
			}
			if test.arrange != nil {
				if err := test.arrange(); err != nil {
					t.Fatal(err)
				}
			}
			before, packages := settings(ctx, t, l), packagesGiven(l)
			journal, logged := journalOf(t, l), len(l.Device.Log())
			link := &tampering{Link: l.Link(), change: test.link}
			if test.name == "load failed" {
				link = replay
			}
			p, err := l.Server.Provision(ctx, Request{Terminal: test.terminal, Plan: l.Plan, Link: link, Activation: func(context.Context, Process) error {
				before = settings(ctx, t, l) // with the profile loaded, and its parameters staged
				return nil
			}})
			l.World.SMDP.ClearFaults()
			l.World.Card.ClearFaults()
			l.Server.config.SMDPKey = nil
			var suspended *SuspendedError
			if !errors.As(err, &suspended) || p.State != Suspended || test.stage != "" && p.Stage != test.stage || !strings.Contains(p.Reason, test.code) {
				t.Fatalf("process %s at %q: %v, want %q at %q", p.State, p.Stage, err, test.code, test.stage)
			}
			if given := packagesGiven(l) - packages; (given > 0) != test.loads {
				t.Errorf("the SM-DP+ has given %d packages", given)
			}
			t.Logf("suspended at %s: %s", p.Stage, p.Reason)
			idle(ctx, t, l)
			if after := journalOf(t, l); test.stage == stageInstallOrder && after != journal {
				t.Errorf("the journal has %d bytes more", len(after)-len(journal))
			}
			if !slices.ContainsFunc(l.Server.Record(), func(e Entry) bool {
				return e.What == SuspendedEntry && e.Process == p.ID && strings.Contains(e.Text, p.Reason)
			}) {
				t.Errorf("the server has not written why: %+v", l.Server.Record())
			}
			if log := l.Device.Log()[logged:]; test.code != "rolled-back" && !strings.Contains(log, "code="+test.code) || !strings.Contains(log, "level=WARN") {
				t.Errorf("lpad has not logged %s:\n%s", test.code, log)
			}
			if after := settings(ctx, t, l); after != before {
				t.Errorf("before (-) and after (+):\n%s", cmp.Diff(before, after))
			}
			if p.InstallJob != "" && p.Stage != stageLoad { // the profile is on the card
				e, err := l.client.Effective(ctx, p.ICCID.String())
				if err != nil {
					t.Fatal(err)
				}
				if e.Document == nil || (len(e.Suspended) == 1) != test.trial {
					t.Errorf("of the profile is staged %+v, suspended %+v", e.Document, e.Suspended)
				}
			}
			if up, err := l.Device.Stack.ActiveConnections(ctx); err != nil || len(up) != 1 || up[0] != "altnetz" {
				t.Errorf("connections %q are up, %v", up, err)
			}
		})
	}
	checkRolledBack(t, l, 2)
}

// journalOf is the device's journal, byte for byte.
func journalOf(t *testing.T, l *Lab) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(l.Device.Dir, "var", "journal"))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// packagesGiven counts how often the SM-DP+ was asked for a package.
func packagesGiven(l *Lab) (n int) {
	for _, c := range l.World.SMDP.Calls() {
		if c.Function == smdp.GetBoundProfilePackage {
			n++
		}
	}
	return n
}

// checkRolledBack holds the hooks of the maker against refusals: what was taken
// back was, and nothing was ever applied.
func checkRolledBack(t *testing.T, l *Lab, want int) {
	t.Helper()
	calls, err := l.hookCalls()
	if err != nil {
		t.Fatal(err)
	}
	back := 0
	for _, c := range calls {
		switch c.Event {
		case "applied":
			t.Errorf("a hook was told that %s was applied", c.ICCID)
		case "rolled-back":
			back++
		}
	}
	if back != want {
		t.Errorf("hooks were told of %d switches that were taken back, not of %d: %+v", back, want, calls)
	}
}

// payloadOf is what an order says.
func payloadOf(order []byte) string {
	parts := strings.Split(string(order), ".")
	text, err := base64.RawURLEncoding.DecodeString(parts[1])
	if err != nil {
		return err.Error()
	}
	return string(text)
}

// stocked counts the profiles of the tests.
var stocked = 30

// stock puts a fresh profile into stock, of a subscriber whom the network does
// not know. The SM-DP+ may have another one for it.
func stock(t *testing.T, l *Lab, other bool) {
	t.Helper()
	stocked++
	s := lab.NewOperator
	s.ICCID, s.IMSI = fmt.Sprintf("89358050000000000%d2", stocked), fmt.Sprintf("2440500000000%d", stocked)
	order, err := lab.NewOrder(fmt.Sprintf("SPARE-%d", stocked), s, 4000)
	if err != nil {
		t.Fatal(err)
	}
	l.Server.mu.Lock()
	l.Server.profiles = nil
	l.Server.mu.Unlock()
	iccid := order.Metadata.ICCID
	if other {
		iccid[9] ^= 1
	}
	if err := l.Server.AddProfile(Profile{ICCID: iccid, Plan: s.Plan, Order: order}); err != nil {
		t.Fatal(err)
	}
}

// idle waits until the daemon has no job.
func idle(ctx context.Context, t *testing.T, l *Lab) {
	t.Helper()
	for {
		jobs, err := l.client.Jobs(ctx)
		if err != nil {
			t.Fatal(err)
		}
		if !slices.ContainsFunc(jobs.Jobs, func(j api.Job) bool { return !j.Ended }) {
			return
		}
		select {
		case <-ctx.Done():
			t.Fatal("a job does not end")
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// normalize has NetworkManager write its connection in its own form, as it does
// with one that lpad puts back.
func normalize(ctx context.Context, t *testing.T, l *Lab) {
	t.Helper()
	for _, retries := range []string{"3", "-1"} {
		if out, err := l.Device.Stack.Command(ctx, "nmcli", "connection", "modify", "altnetz", "connection.autoconnect-retries", retries).CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
	}
}

// lastUp is NetworkManager's own note of when a connection was up.
var lastUp = regexp.MustCompile(`(?m)^timestamp=\d+\n`)

// settings is all that an order may change: the contexts of the modem, the files
// of NetworkManager's connections, the profiles on the card, and what is staged.
func settings(ctx context.Context, t *testing.T, l *Lab) string {
	t.Helper()
	var out strings.Builder
	m := l.Device.Stack.Modem.State()
	fmt.Fprintf(&out, "%+v\nfunctionality %d, mode %s, bands %s\n", m.Contexts, m.CFUN, m.SystemMode, m.Bands)
	files, err := filepath.Glob(filepath.Join(l.Device.Stack.Dir(), "nm", "*", "system-connections", "*"))
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		b, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if filepath.Base(file) != "lo.nmconnection" {
			fmt.Fprintf(&out, "%s:\n%s", filepath.Base(file), lastUp.ReplaceAll(b, nil))
		}
	}
	for _, p := range l.World.Card.Profiles() {
		fmt.Fprintf(&out, "profile %s enabled %v\n", p.ICCID, p.Enabled)
		e, err := l.client.Effective(ctx, p.ICCID.String())
		if err != nil {
			t.Fatal(err)
		}
		text, err := json.Marshal(e.Document)
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(&out, "    staged %s\n", text)
	}
	return out.String()
}
