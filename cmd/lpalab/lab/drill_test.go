package lab_test

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"text/tabwriter"
	"time"

	cmpdiff "github.com/google/go-cmp/cmp"

	"lpad/agent/api"
	"lpad/agent/rsp"
	"lpad/cmd/lpalab/lab"
	"lpad/internal/systembus"
	"lpad/modem/modemtest"
	"lpad/modem/nm"
)

// deadMan is how long a new profile has in the drill. One that the network
// refuses by its APN is given up before the long one is over.
const (
	deadMan     = 10 * time.Second
	longDeadMan = 90 * time.Second
)

// TestRollbackDrill switches to profiles that do not work, in the ways that
// profiles do not, with the power failing on top of it. Each time the device
// must come back to where it was, to the byte, and tell everybody. It prints a
// table of how long that took:
//
//	gave up   from EnableProfile until the job goes back
//	back      from there until the old profile's context is active
//	asked     how often the new profile asked a network to attach or for a context
//	tries     that the quarantine counts
//	deaths    of ModemManager and NetworkManager, which are started again
func TestRollbackDrill(t *testing.T) {
	t.Parallel()
	var table drillTable
	t.Cleanup(func() { t.Log(table.String()) })
	wrongAPN := `{"version":1,"apns":[{"name":"wrong.example","purposes":["default","ia"],"pdnType":"v4"}]}`
	refused := fmt.Sprintf("context 1, APN %q, refused", "wrong.example")
	lenient := func(c *modemtest.Config) { c.StrictAttach = false } // everybody attaches, but gets no context with a wrong APN
	unknown := func(c *modemtest.Config) { c.Subscriptions = []modemtest.Subscription{lab.OldOperator.Subscription()} }
	for name, test := range map[string]struct {
		modem      func(*modemtest.Config)
		parameters string
		uncovered  bool // the new profile's network does not reach here
		deadMan    time.Duration
		disturb    func(context.Context, *lab.Device) error
		deaths     int      // of managers, by disturb
		stages     []string // the modem's log has these of the new SIM
		code, says string
		atLeast    time.Duration // it does not give up before; 0: the dead-man time, less what the steps before have used
		atMost     time.Duration
	}{
		"never registers": {modem: unknown, code: "registration-denied", stages: []string{"attach of " + lab.NewOperator.IMSI}},
		"no coverage":     {uncovered: true, code: "not-registered"},
		"never registers, kill -9 of lpad": {modem: unknown, code: "registration-denied", disturb: func(ctx context.Context, d *lab.Device) error {
			return errors.Join(d.Kill(), d.Start(ctx))
		}},
		"never registers, rebooted": {modem: unknown, code: "registration-denied", disturb: reboot},
		"never registers, managers crash": {modem: unknown, code: "registration-denied", deaths: 2, disturb: func(_ context.Context, d *lab.Device) error {
			return errors.Join(d.Stack.CrashManager(modemtest.NetworkManager), d.Stack.CrashManager(modemtest.ModemManager))
		}},
		"wrong APN": {parameters: wrongAPN, modem: lenient, deadMan: longDeadMan, code: "apn-refused", says: `refused the APN "wrong.example"`,
			stages: []string{refused}, atLeast: 20 * time.Second, atMost: 40 * time.Second},
		"wrong APN, rebooted": {parameters: wrongAPN, modem: lenient, code: "apn-refused", says: `refused the APN "wrong.example"`,
			stages: []string{refused}, disturb: reboot},
		"wrong APN, managers crash": {parameters: wrongAPN, modem: lenient, code: "apn-refused", says: `refused the APN "wrong.example"`,
			stages: []string{refused}, deaths: 2, disturb: func(_ context.Context, d *lab.Device) error {
				return errors.Join(d.Stack.CrashManager(modemtest.NetworkManager), d.Stack.CrashManager(modemtest.ModemManager))
			}},
		"dead data path": {modem: func(c *modemtest.Config) { c.Subscriptions[1].NoData = true }, code: "probe-failed",
			stages: []string{fmt.Sprintf("context 1 active: APN %q address %s", lab.NewOperator.APN, lab.NewOperator.Address.Addr())}},
	} {
		t.Run(name, func(t *testing.T) {
			limit := cmp.Or(test.deadMan, deadMan)
			w := newWorld(t, lab.Options{})
			ctx, d := startDevice(t, w, lab.DeviceOptions{Stack: withSpare, Modem: test.modem, Config: fmt.Sprintf("network: {dead_man: %s}\n", limit)})
			old, operator := lab.OldOperator, lab.NewOperator
			rewrite(ctx, t, d)
			before, connections := settings(ctx, t, d), allConnections(ctx, t, d)
			c := d.Client()
			t.Cleanup(c.Close)
			log := d.Stack.Modem.Log()
			seen := func(from int, text string) int {
				at, err := log.WaitFor(ctx, from, text)
				if err != nil {
					t.Fatal(err)
				}
				return at
			}

			r := api.InstallRequest{ActivationCode: w.ActivationCode(), Enable: true, Consent: true}
			if test.parameters != "" {
				r.Parameters = json.RawMessage(test.parameters)
			}
			ordered, err := c.Install(ctx, r)
			if err != nil {
				t.Fatal(err)
			}
			if test.uncovered {
				// Before the SIM is read, or the modem registers at once.
				seen(0, "SIM powered down")
				d.Stack.Modem.SetCoverage(false)
			}
			newSIM := seen(0, "SIM read: ICCID "+operator.ICCID)
			job := func() api.Job {
				j, err := c.Job(ctx, ordered.ID)
				if err != nil && ctx.Err() == nil {
					t.Log(err)
				}
				return j
			}
			if test.disturb != nil {
				eventually(ctx, t, "the job is verifying", func() bool { return job().State == "verifying" })
				time.Sleep(limit / 4) // not at its beginning, which the classes of make faults have
				if s := job().State; s != "verifying" {
					t.Errorf("the job is %s already", s)
				}
				if err := test.disturb(ctx, d); err != nil {
					t.Fatal(err)
				}
			}
			if test.uncovered {
				eventually(ctx, t, "the job gives up", func() bool { j := job(); return j.State == "rolling-back" || j.Ended })
				d.Stack.Modem.SetCoverage(true)
			}
			var j api.Job
			eventually(ctx, t, "the job ends", func() bool { j = job(); return j.Ended })

			if j.Problem == nil {
				t.Fatalf("the job is %s, without a problem", j.State)
			}
			if p := j.Problem; j.State != "failed" || p.Code != test.code || p.Title == "" || !strings.Contains(p.Title, test.says) || p.Who == "" || p.Next == "" {
				t.Errorf("the job is %s with the problem %+v, want failed with %s, explained", j.State, p, test.code)
			}
			trace := log.Entries()
			enable := find(t, trace, 0, enableProfile(operator))
			for _, text := range test.stages {
				if log.Index(newSIM, text) < 0 {
					t.Errorf("the modem's log has no %q: this is not the case to be tested", text)
				}
			}
			backSIM := find(t, trace, newSIM, "^# SIM read: ICCID "+old.ICCID)
			back := find(t, trace, backSIM, fmt.Sprintf("^# context 1 active: APN %q address %s", old.APN, old.Address.Addr()))

			if iccid, ok := w.Card.EnabledICCID(); !ok || iccid.String() != old.ICCID {
				t.Errorf("enabled on the card: %s", iccid)
			}
			if s := d.Stack.Modem.State(); s.SIM.ICCID != old.ICCID || s.Subscription.IMSI != old.IMSI || s.CFUN != 1 {
				t.Errorf("the modem shows %+v", s)
			}
			if m, err := d.Stack.WaitMM(ctx, old.ICCID); err != nil {
				t.Errorf("ModemManager shows %+v, %v", m, err)
			}
			if err := d.Stack.WaitConnected(ctx, "altnetz"); err != nil {
				t.Error(err)
			}
			if up, err := d.Stack.ActiveConnections(ctx); err != nil || !slices.Equal(up, []string{"altnetz"}) {
				t.Errorf("connections %q are up, %v", up, err)
			}
			if after := settings(ctx, t, d); after != before {
				t.Errorf("settings before (-) and after (+):\n%s", cmpdiff.Diff(before, after))
			}
			if d := cmpdiff.Diff(connections, allConnections(ctx, t, d)); d != "" {
				t.Errorf("connections of NetworkManager, with secrets, before (-) and after (+):\n%s", d)
			}

			eventually(ctx, t, "the card's notifications are delivered", func() bool { return len(w.Card.Notifications()) == 0 })
			checkReport(t, w, trace[back].Time)
			eventually(ctx, t, "no logical channel is open", func() bool {
				return len(w.Card.OpenChannels()) == 0 && len(d.Stack.Modem.State().Sessions) == 0
			})
			profiles, err := c.Profiles(ctx)
			if err != nil {
				t.Fatal(err)
			}
			tries := 0
			for _, p := range profiles.Profiles {
				q := p.Quarantine
				if q != nil {
					tries += q.Attempts
				}
				if p.ICCID == operator.ICCID != (q != nil) || q != nil && (q.Attempts != 1 || q.Code != test.code) {
					t.Errorf("quarantine of %s: %+v", p.ICCID, q)
				}
			}

			var way []string
			gaveUp := time.Time{}
			for _, m := range j.Timeline {
				way = append(way, m.State)
				if m.State == "rolling-back" && gaveUp.IsZero() {
					gaveUp = m.At
				}
			}
			if n := len(way); n < 2 || way[n-1] != "failed" || !slices.Contains(way, "verifying") || slices.Index(way, "rolling-back") < slices.Index(way, "verifying") {
				t.Errorf("the job's report: %s", strings.Join(way, ", "))
			}
			if deaths := d.Stack.Deaths(); len(deaths) != test.deaths {
				t.Errorf("%d managers died, want %d: %v", len(deaths), test.deaths, deaths)
			}
			start := trace[enable].Time
			waited := gaveUp.Sub(start)
			if waited < cmp.Or(test.atLeast, limit-4*time.Second) || waited > cmp.Or(test.atMost, limit+8*time.Second) {
				t.Errorf("it gave up %v after EnableProfile, dead_man is %v", waited, limit)
			}
			asked := 0
			for _, e := range trace[newSIM:backSIM] {
				if request.MatchString(e.Text) {
					asked++
				}
			}
			row := drillRow{name, limit, waited, trace[back].Time.Sub(gaveUp), trace[back].Time.Sub(start), asked, tries, j.Problem.Code, len(d.Stack.Deaths()), !t.Failed()}
			table.add(row)
			t.Logf("drill: %s: gave up after %s (dead_man %v, %s), back on line %s later, %s in all; the network was asked %d times",
				name, seconds(row.gaveUp), limit, test.code, seconds(row.back), seconds(row.total), asked)
		})
	}
}

// request is a question that the modem has put to a network.
var request = regexp.MustCompile(`^(attach of |context \d+ active: |context \d+, APN ".*", refused)`)

func seconds(d time.Duration) string { return fmt.Sprintf("%.1f s", d.Seconds()) }

// drillRow is how one case of the drill went.
type drillRow struct {
	name                         string
	deadMan, gaveUp, back, total time.Duration
	asked, tries                 int
	code                         string
	deaths                       int
	good                         bool
}

// drillTable collects the rows; the cases run beside each other.
type drillTable struct {
	mu   sync.Mutex
	rows []drillRow
}

func (d *drillTable) add(r drillRow) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.rows = append(d.rows, r)
}

// String is the table.
func (d *drillTable) String() string {
	d.mu.Lock()
	defer d.mu.Unlock()
	slices.SortFunc(d.rows, func(a, b drillRow) int { return strings.Compare(a.name, b.name) })
	var b strings.Builder
	w := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "\ncase\tdead_man\tgave up\tback\tin all\tasked\ttries\treason\tdeaths\t")
	for _, r := range d.rows {
		how := ""
		if !r.good {
			how = "FAILED"
		}
		fmt.Fprintf(w, "%s\t%v\t%s\t%s\t%s\t%d\t%d\t%s\t%d\t%s\n", r.name, r.deadMan, seconds(r.gaveUp), seconds(r.back), seconds(r.total), r.asked, r.tries, r.code, r.deaths, how)
	}
	_ = w.Flush() // into memory
	return b.String()
}

// allConnections is every mobile connection as NetworkManager has it on the
// bus, GetSettings and GetSecrets, each value with its type.
func allConnections(ctx context.Context, t *testing.T, d *lab.Device) map[string]string {
	t.Helper()
	bus := systembus.New(d.Stack.BusAddress())
	defer bus.Close()
	all, err := nm.New(bus).Mobile(ctx)
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]string{}
	for _, c := range all {
		b, err := json.Marshal(c.Settings)
		if err != nil {
			t.Fatal(err)
		}
		out[c.ID()] = lastUpValue.ReplaceAllString(string(b), "")
	}
	if !strings.Contains(out["spare"], "its own") {
		t.Errorf("the secret of a connection is not there: %s", out["spare"])
	}
	return out
}

// lastUpValue is lastUp on the bus.
var lastUpValue = regexp.MustCompile(`,"timestamp":\{"t":"\d+"\}`)

// reboot is what a power cut does to a device: lpad and the managers are gone at
// once, the modem begins anew with what it keeps.
func reboot(ctx context.Context, d *lab.Device) error {
	err := d.Kill()
	d.Stack.Modem.Reboot()
	for _, m := range []modemtest.Manager{modemtest.ModemManager, modemtest.NetworkManager} {
		err = errors.Join(err, d.Stack.RestartManager(ctx, m, 0))
	}
	return errors.Join(err, d.Start(ctx))
}

// checkReport checks what the server has heard of a switch that was taken back:
// everything the card had to tell, in its order and over the old network.
func checkReport(t *testing.T, w *lab.World, back time.Time) {
	t.Helper()
	var got []string
	seq := int64(-1)
	for _, n := range w.SMDP.Notifications() {
		got = append(got, n.EventName+" "+n.ICCID.String())
		if n.Peer != lab.OldOperator.Address.Addr() || !n.Verified {
			t.Errorf("%s of %s came from %s, %s", n.EventName, n.ICCID, n.Peer, n.Problem)
		}
		if n.SeqNumber <= seq {
			t.Errorf("notification %d came after %d", n.SeqNumber, seq)
		}
		seq = n.SeqNumber
		if n.Event != rsp.EventInstall && !n.Time.After(back) {
			t.Errorf("%s of %s came before the old profile was back", n.EventName, n.ICCID)
		}
	}
	old, operator := lab.OldOperator.ICCID, lab.NewOperator.ICCID
	want := []string{"install " + operator, "disable " + old, "enable " + operator, "disable " + operator, "enable " + old}
	if !slices.Equal(got, want) {
		t.Errorf("the server heard\n  %s\nwant\n  %s", strings.Join(got, "\n  "), strings.Join(want, "\n  "))
	}
}
