//go:build drill

package lab_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	diff "github.com/google/go-cmp/cmp"

	"lpad/agent/api"
	"lpad/agent/rsp"
	"lpad/cmd/lpalab/lab"
	"lpad/modem/modemtest"
)

// deadMan is how long a new profile has in the drill.
const deadMan = 12 * time.Second

// TestRollbackDrill switches to profiles that do not work, in the ways that
// profiles do not, with the power failing on top of it. Each time the device
// must come back to where it was, to the byte, and tell everybody.
func TestRollbackDrill(t *testing.T) {
	t.Parallel()
	unknown := func(c *modemtest.Config) { c.Subscriptions = []modemtest.Subscription{lab.OldOperator.Subscription()} }
	for name, test := range map[string]struct {
		modem      func(*modemtest.Config)
		parameters string
		uncovered  bool // the new profile's network does not reach here
		disturb    func(context.Context, *lab.Device) error
		stages     []string // the modem's log has these of the new SIM
		code       string
	}{
		"never registers": {modem: unknown, code: "registration-denied", stages: []string{"attach of " + lab.NewOperator.IMSI}},
		"no coverage":     {uncovered: true, code: "not-registered"},
		"never registers, kill -9": {modem: unknown, code: "registration-denied", disturb: func(ctx context.Context, d *lab.Device) error {
			return errors.Join(d.Kill(), d.Start(ctx))
		}},
		"never registers, reboot": {modem: unknown, code: "registration-denied", disturb: reboot},
		"no coverage, reboot":     {uncovered: true, code: "not-registered", disturb: reboot},
		// The network lets everybody attach, but gives no context to a wrong APN.
		"wrong APN": {parameters: `{"version":1,"apns":[{"name":"wrong.example","purposes":["default","ia"],"pdnType":"v4"}]}`,
			modem: func(c *modemtest.Config) { c.StrictAttach = false }, code: "no-bearer",
			stages: []string{`context 1, APN "wrong.example", refused`}},
		"dead data path": {modem: func(c *modemtest.Config) { c.Subscriptions[1].NoData = true }, code: "probe-failed",
			stages: []string{fmt.Sprintf("context 1 active: APN %q address %s", lab.NewOperator.APN, lab.NewOperator.Address.Addr())}},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, lab.Options{})
			ctx, d := startDevice(t, w, lab.DeviceOptions{Stack: withSpare, Modem: test.modem, Config: fmt.Sprintf("network: {dead_man: %s}\n", deadMan)})
			old, operator := lab.OldOperator, lab.NewOperator
			rewrite(ctx, t, d)
			before := settings(ctx, t, d)
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
				time.Sleep(deadMan / 4) // not at its beginning, which the classes of make faults have
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

			if p := j.Problem; j.State != "failed" || p == nil || strings.Contains(p.Title, "reason 0") || p.Code != test.code || p.Title == "" || p.Who == "" || p.Next == "" {
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
				t.Errorf("settings before (-) and after (+):\n%s", diff.Diff(before, after))
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
			for _, p := range profiles.Profiles {
				q := p.Quarantine
				if p.ICCID == operator.ICCID != (q != nil) || q != nil && (q.Attempts != 1 || q.Code != test.code) {
					t.Errorf("quarantine of %s: %+v", p.ICCID, q)
				}
			}

			gaveUp := time.Time{}
			for _, m := range j.Timeline {
				if m.State == "rolling-back" && gaveUp.IsZero() {
					gaveUp = m.At
				}
			}
			start := trace[enable].Time
			if waited := gaveUp.Sub(start); waited < deadMan/2 || waited > deadMan+8*time.Second {
				t.Errorf("it gave up %v after EnableProfile, dead_man is %v", waited, deadMan)
			}
			seconds := func(d time.Duration) string { return fmt.Sprintf("%.1f s", d.Seconds()) }
			t.Logf("drill: %s: gave up after %s, back on line %s later, %s in all (dead_man %v, %s)", name,
				seconds(gaveUp.Sub(start)), seconds(trace[back].Time.Sub(gaveUp)), seconds(trace[back].Time.Sub(start)), deadMan, test.code)
		})
	}
}

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
