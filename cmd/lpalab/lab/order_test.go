package lab_test

import (
	"cmp"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	diff "github.com/google/go-cmp/cmp"

	"lpad/agent/rsp"
	"lpad/agent/rsp/rsptest/euicc"
	"lpad/agent/rsp/rsptest/smdp"
	"lpad/cmd/lpalab/lab"
	"lpad/modem/modemtest"
)

// TestOrder is what the product is for. The order of its steps is read off the
// modem's log and the server's, not off what lpad says of itself.
func TestOrder(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		card    func(*euicc.Config)
		refresh bool // the modem follows the card by itself, at once
		shared  bool
	}{
		"own port": {},
		// ModemManager has every port: card and network take turns.
		"shared port": {shared: true},
		// REFRESH comes before the new settings are on the modem: nothing but
		// the gate keeps it from attaching with the old ones.
		"card that refreshes at once": {card: func(c *euicc.Config) { c.Quirks.RefuseNoRefresh = true }, refresh: true},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, lab.Options{Card: test.card})
			ctx, d := startDevice(t, w, lab.DeviceOptions{Stack: withSpare, Shared: test.shared})
			lpactl(ctx, t, d.Daemon, 0, "install", w.ActivationCode(), "--enable", "--yes")

			trace := d.Stack.Modem.Log().Entries()
			old, operator := lab.OldOperator, lab.NewOperator
			enable := find(t, trace, 0, enableProfile(operator))
			apn := find(t, trace, enable, `^> AT\+CGDCONT=1,"[^"]*","`+operator.APN+`"`)
			newSIM := find(t, trace, enable, "^# SIM read: ICCID "+operator.ICCID)
			if test.refresh {
				if refresh := find(t, trace, enable, "^# REFRESH"); refresh > apn {
					t.Errorf("the card asked for REFRESH in line %d, the APN was written in line %d: this is not the case to be tested", refresh, apn)
				}
			} else if reread := find(t, trace, enable, "^# SIM powered down"); apn > reread {
				t.Errorf("the new APN (line %d) came after the SIM was read again (line %d)", apn, reread)
			}
			attach := find(t, trace, newSIM, "^# attach of ")
			if apn > attach {
				t.Errorf("the modem attached (line %d) before it had the new APN (line %d)", attach, apn)
			}
			active := find(t, trace, newSIM, "^# context 1 active: ")
			gate := find(t, trace[:enable], last, "^# context 1 ends")
			checkNetwork(t, trace, gate)
			install := notification(ctx, t, w, rsp.EventInstall, operator)
			if install.Peer != old.Address.Addr() || !install.Time.Before(trace[enable].Time) {
				t.Errorf("installation notification from %s at %s; EnableProfile was at %s", install.Peer, install.Time, trace[enable].Time)
			}
			enabled := notification(ctx, t, w, rsp.EventEnable, operator)
			if enabled.Peer != operator.Address.Addr() || !enabled.Time.After(trace[active].Time) {
				t.Errorf("enable notification from %s at %s; the new link was up at %s", enabled.Peer, enabled.Time, trace[active].Time)
			}
			disabled := notification(ctx, t, w, rsp.EventDisable, old)
			if n := len(w.SMDP.Notifications()); n != 3 || disabled.SeqNumber > enabled.SeqNumber || disabled.Time.After(enabled.Time) {
				t.Errorf("the server got %d notifications, not 3 in order: %+v", n, w.SMDP.Notifications())
			}

			if left := w.Card.Notifications(); len(left) != 0 {
				t.Errorf("%d notifications are left on the card", len(left))
			}
			eventually(ctx, t, "no logical channel is open", func() bool { return len(w.Card.OpenChannels()) == 0 && len(d.Stack.Modem.State().Sessions) == 0 })
			want := "altnetz:no\nlpad-000022:yes\nspare:no\n"
			if got := autoconnect(ctx, t, d); got != want {
				t.Errorf("connections and autoconnect:\n%swant\n%s", got, want)
			}
			if err := d.Stack.WaitConnected(ctx, "lpad-000022"); err != nil { // with a shared port it was down once more, for the card
				t.Error(err)
			}
			if up, err := d.Stack.ActiveConnections(ctx); err != nil || len(up) != 1 || up[0] != "lpad-000022" {
				t.Errorf("connections %q are up, %v", up, err)
			}
			c := d.Client()
			defer c.Close()
			jobs, err := c.Jobs(ctx)
			if err != nil {
				t.Fatal(err)
			}
			if said := strings.Contains(fmt.Sprint(jobs.Jobs[0].Timeline), "share one port"); said != test.shared {
				t.Errorf("the job says that card and network share a port: %v", said)
			}
		})
	}
}

// TestWithoutTheAPNStep is the control: everything as in TestOrder, but step 7
// does not reach the modem. Then there is no network, the server hears nothing
// from there, and the device is where it was.
func TestWithoutTheAPNStep(t *testing.T) {
	t.Parallel()
	right := `{"version":1,"apns":[{"name":"internet","purposes":["default","ia"],"pdnType":"v4"}]}`
	for name, test := range map[string]struct {
		parameters string
		hook       func(*modemtest.Modem)
		apn        string // which the modem has when it reads the new SIM
	}{
		// The hook is on the wire: the one command of step 7 does not arrive,
		// and its being read back is answered as if it had. Everything else
		// passes, and so does what puts the old settings back.
		"step 7 cut out": {parameters: right, apn: lab.OldOperator.APN, hook: func(m *modemtest.Modem) {
			m.AddFault(modemtest.Fault{Command: `+CGDCONT=1,"IP","internet"`, Port: "ttyUSB1", Times: 1, Answer: "OK"})
			m.AddFault(modemtest.Fault{Command: "+CGDCONT?", Port: "ttyUSB1", Skip: 1, Times: 1, Answer: `+CGDCONT: 1,"IP","internet","",0,0` + "\nOK"})
		}},
		"another APN in the order": {parameters: strings.Replace(right, "internet", "wrong.example", 1), apn: "wrong.example"},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, lab.Options{})
			ctx, d := startDevice(t, w, lab.DeviceOptions{Stack: withSpare, Config: "network: {dead_man: 15s}\n"})
			old, operator := lab.OldOperator, lab.NewOperator
			document := filepath.Join(t.TempDir(), "parameters.json")
			if err := os.WriteFile(document, []byte(test.parameters), 0o600); err != nil {
				t.Fatal(err)
			}
			rewrite(ctx, t, d)
			before := settings(ctx, t, d)
			if test.hook != nil {
				test.hook(d.Stack.Modem)
			}
			r := lpactl(ctx, t, d.Daemon, 40, "install", w.ActivationCode(), "--enable", "--yes", "--params", document)
			for _, text := range []string{"[registration-denied]", "the previous profile", "next: "} {
				if !strings.Contains(r.Stderr, text) {
					t.Errorf("lpactl does not say %q:\n%s", text, r.Stderr)
				}
			}

			trace := d.Stack.Modem.Log().Entries()
			enable := find(t, trace, 0, enableProfile(operator))
			newSIM := find(t, trace, enable, "^# SIM read: ICCID "+operator.ICCID)
			find(t, trace, newSIM, fmt.Sprintf("^# attach of %s refused: APN %q", operator.IMSI, test.apn))
			back := find(t, trace, newSIM, "^# SIM read: ICCID "+old.ICCID)
			for _, e := range trace[newSIM:back] {
				if strings.HasPrefix(e.Text, "context 1 active") {
					t.Errorf("a context of the new profile came up: %s", e)
				}
			}
			find(t, trace, back, fmt.Sprintf("^# context 1 active: APN %q address %s", old.APN, old.Address.Addr()))

			// The notifications are not lost: they go the old way.
			notification(ctx, t, w, rsp.EventEnable, operator)
			notification(ctx, t, w, rsp.EventEnable, old)
			eventually(ctx, t, "the card's notifications are delivered", func() bool { return len(w.Card.Notifications()) == 0 })
			for _, n := range w.SMDP.Notifications() {
				if n.Peer != old.Address.Addr() || !n.Verified {
					t.Errorf("%s of %s came from %s, %s", n.EventName, n.ICCID, n.Peer, n.Problem)
				}
				if n.Event != rsp.EventInstall && !n.Time.After(trace[back].Time) {
					t.Errorf("%s of %s came before the old profile was back", n.EventName, n.ICCID)
				}
			}
			if iccid, ok := w.Card.EnabledICCID(); !ok || iccid.String() != old.ICCID {
				t.Errorf("enabled on the card: %s", iccid)
			}
			if after := settings(ctx, t, d); after != before {
				t.Errorf("settings before (-) and after (+):\n%s", diff.Diff(before, after))
			}
			if up, err := d.Stack.ActiveConnections(ctx); err != nil || len(up) != 1 || up[0] != "altnetz" {
				t.Errorf("connections %q are up, %v", up, err)
			}
			eventually(ctx, t, "no logical channel is open", func() bool { return len(w.Card.OpenChannels()) == 0 })
		})
	}
}

// withSpare adds a connection that the owner of the device has for something
// else: it has credentials, and came up by itself never.
func withSpare(c *modemtest.StackConfig) {
	c.Connections = append(c.Connections, modemtest.Connection{ID: "spare", APN: "spare.example", User: "me", Password: "its own", NoAutoconnect: true, Priority: 7})
}

// last makes find look for the last line.
const last = -1

// find gives the position of the first line at or after from that matches the
// pattern, "kind text". It must be there.
func find(t *testing.T, trace []modemtest.Entry, from int, pattern string) int {
	t.Helper()
	re := regexp.MustCompile(pattern)
	found := -1
	for i, e := range trace {
		if i >= from && re.MatchString(fmt.Sprintf("%s %s", e.Kind, e.Text)) {
			found = i
			if from != last {
				break
			}
		}
	}
	if found < 0 {
		t.Fatalf("the modem's log has no %q from line %d on", pattern, from)
	}
	return found
}

// enableProfile is the command that enables a profile, as it goes to the modem:
// EnableProfile (BF31) with the ICCID as the card stores it, in swapped digits.
func enableProfile(s lab.Subscriber) string {
	digits := []byte(s.ICCID)
	for i := 0; i+1 < len(digits); i += 2 {
		digits[i], digits[i+1] = digits[i+1], digits[i]
	}
	return `^> AT\+CGLA=.*BF31..A0..5A0A` + strings.ToUpper(string(digits))
}

var (
	simRead = regexp.MustCompile(`^SIM read: ICCID \d+ IMSI (\d+)`)
	onAir   = regexp.MustCompile(`^(?:attach of (\d+)(?: refused)?: |attach of (\d+), |context \d+ active: )APN "([^"]*)"`)
)

// checkNetwork follows the trace from a line on, where the old link went down,
// and finds every attempt to attach or to bring a context up that is not the new
// profile's with its own access point.
func checkNetwork(t *testing.T, trace []modemtest.Entry, from int) {
	t.Helper()
	imsi, seen := "", 0
	for i, e := range trace {
		if m := simRead.FindStringSubmatch(e.Text); m != nil && e.Kind == modemtest.Happened {
			imsi = m[1]
		}
		m := onAir.FindStringSubmatch(e.Text)
		if i < from || m == nil || e.Kind != modemtest.Happened {
			continue
		}
		seen++
		if who := cmp.Or(m[1], m[2], imsi); who != lab.NewOperator.IMSI || m[3] != lab.NewOperator.APN {
			t.Errorf("line %d, with the SIM %s: %s", i, imsi, e)
		}
	}
	if seen < 2 {
		t.Errorf("%d attempts at the network, there must be an attach and a context", seen)
	}
}

// notification waits for the one of a profile at the server, whose signature
// must be good.
func notification(ctx context.Context, t *testing.T, w *lab.World, event rsp.Event, s lab.Subscriber) smdp.Notification {
	t.Helper()
	n, err := w.SMDP.WaitNotification(ctx, func(n smdp.Notification) bool { return n.Event == event && n.ICCID.String() == s.ICCID })
	if err != nil || !n.Verified {
		t.Fatalf("notification %v of %s: %v %s", event, s.ICCID, err, n.Problem)
	}
	return n
}

// eventually waits for what comes about by itself.
func eventually(ctx context.Context, t *testing.T, what string, ok func() bool) {
	t.Helper()
	for !ok() {
		select {
		case <-ctx.Done():
			t.Fatalf("in vain: %s", what)
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// nmcli asks NetworkManager by its own program.
func nmcli(ctx context.Context, t *testing.T, d *lab.Device, args ...string) string {
	t.Helper()
	out, err := d.Stack.Command(ctx, "nmcli", args...).CombinedOutput()
	if err != nil {
		t.Fatalf("nmcli %q: %v\n%s", args, err, out)
	}
	return string(out)
}

// autoconnect lists the mobile connections, "name:yes" a line, sorted.
func autoconnect(ctx context.Context, t *testing.T, d *lab.Device) string {
	t.Helper()
	var lines []string
	for line := range strings.Lines(nmcli(ctx, t, d, "-t", "-f", "type,name,autoconnect", "connection", "show")) {
		if mobile, ok := strings.CutPrefix(line, "gsm:"); ok {
			lines = append(lines, mobile)
		}
	}
	slices.Sort(lines)
	return strings.Join(lines, "")
}

// rewrite has NetworkManager write every connection in its own form, as it does
// with one that lpad puts back.
func rewrite(ctx context.Context, t *testing.T, d *lab.Device) {
	t.Helper()
	for _, name := range []string{"altnetz", "spare"} {
		nmcli(ctx, t, d, "connection", "modify", name, "connection.autoconnect-retries", "3")
		nmcli(ctx, t, d, "connection", "modify", name, "connection.autoconnect-retries", "-1")
	}
}

// lastUp is NetworkManager's own note of when a connection was up.
var lastUp = regexp.MustCompile(`(?m)^timestamp=\d+\n`)

// settings is everything that a switch may change: the files of the connections
// byte for byte, with their secrets, what NetworkManager has of them in memory,
// and the contexts of the modem. (nmcli is not asked for secrets: now and then
// it shows none.)
func settings(ctx context.Context, t *testing.T, d *lab.Device) string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(d.Stack.Dir(), "nm", "*", "system-connections", "*"))
	if err != nil {
		t.Fatal(err)
	}
	var out strings.Builder
	for _, file := range files {
		b, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if filepath.Base(file) != "lo.nmconnection" {
			fmt.Fprintf(&out, "%s:\n%s", filepath.Base(file), lastUp.ReplaceAll(b, nil))
		}
	}
	for line := range strings.Lines(autoconnect(ctx, t, d)) {
		name, _, _ := strings.Cut(line, ":")
		out.WriteString(nmcli(ctx, t, d, "-t", "-f", "connection.id,connection.uuid,connection.autoconnect,connection.autoconnect-priority,gsm,ipv4,ipv6", "connection", "show", name))
	}
	fmt.Fprintf(&out, "%+v\n", d.Stack.Modem.State().Contexts)
	return out.String()
}

// TestThereAndBack switches to the new profile, back to the old one, and to
// the new one again. Nobody names an access point for the old one: what it was
// on line with before is remembered.
func TestThereAndBack(t *testing.T) {
	w := newWorld(t, lab.Options{})
	ctx, d := startDevice(t, w, lab.DeviceOptions{})
	lpactl(ctx, t, d.Daemon, 0, "install", w.ActivationCode(), "--enable", "--yes")
	for _, s := range []lab.Subscriber{lab.OldOperator, lab.NewOperator} {
		lpactl(ctx, t, d.Daemon, 0, "enable", s.ICCID)
		n := w.SMDP.Notifications()
		if last := n[len(n)-1]; last.Event != rsp.EventEnable || last.Peer != s.Address.Addr() {
			t.Errorf("after enabling %s the server hears %s from %v, want enable from %v", s.ICCID, last.EventName, last.Peer, s.Address.Addr())
		}
	}
}
