package network_test

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
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

	"lpad/agent/rsp"
	"lpad/agent/switchover"
	"lpad/internal/fault"
	"lpad/internal/redact"
	"lpad/internal/systembus"
	"lpad/modem"
	"lpad/modem/atport"
	"lpad/modem/mm"
	"lpad/modem/modemtest"
	"lpad/modem/network"
	"lpad/modem/nm"
)

func TestMain(m *testing.M) {
	flag.Parse()
	// A device waits most of the time, for its managers and its modem.
	if err := flag.Set("test.parallel", "4"); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	goleak.VerifyTestMain(m)
}

// limit is the longest that a test with a device may take, on a machine that has much else to do.
const limit = 3 * time.Minute

var subscriptions = []modemtest.Subscription{
	{IMSI: profileA.imsi, APN: "old.apn", Address: netip.MustParsePrefix("10.1.1.2/24"), Gateway: netip.MustParseAddr("10.1.1.1"), PLMN: "00101", Operator: "Test PLMN 1-1"},
	{IMSI: profileB.imsi, APN: "new.apn", User: "u", Password: "p", Address: netip.MustParsePrefix("10.2.2.2/24"), Gateway: netip.MustParseAddr("10.2.2.1"), PLMN: "23415", Operator: "vodafone UK"},
}

var newAPN = modem.APN{Name: "new.apn", User: "u", Password: redact.NewSecret("p"), Type: modem.IPv4}

// device is a running device and the back-end under test on it.
type device struct {
	*modemtest.Stack
	card   *card
	config network.Config
	back   *network.ManagerStack
	mm     *mm.Client
	nm     *nm.Client
	t      *testing.T
	start  time.Time
}

type options struct {
	withoutAT bool
	shared    bool // ModemManager has the AT port too
	strict    bool // the network refuses to let a modem attach with a wrong APN
}

// startDevice starts a device for a test, which becomes parallel, with a
// context that bounds it.
func startDevice(t *testing.T, o options) (context.Context, *device) {
	t.Helper()
	modemtest.RequireStack(t)
	t.Parallel()
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	t.Cleanup(cancel)
	d := &device{card: &card{profiles: []profile{profileA, profileB}}, t: t, start: time.Now()}
	var err error
	d.Stack, err = modemtest.StartStack(ctx, modemtest.StackConfig{
		Modem:          modemtest.Config{Card: d.card, Subscriptions: subscriptions, StrictAttach: o.strict},
		ShareAgentPort: o.shared,
		Connections: []modemtest.Connection{{ID: "old", APN: "old.apn", User: "x", Password: "y", Priority: 10},
			{ID: "spare", APN: "old.apn", NoAutoconnect: true}, {ID: "loose", APN: "old.apn"}},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Log(d.Modem.Log())
		}
		if err := d.Close(); err != nil {
			t.Error(err)
		}
	})
	bus := systembus.New(d.BusAddress())
	t.Cleanup(func() {
		if err := bus.Close(); err != nil {
			t.Error(err)
		}
	})
	d.mm, d.nm = mm.New(bus), nm.New(bus)
	c := network.Config{MM: d.mm, NM: d.nm, RungWait: 5 * time.Second, Log: slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelDebug}))}
	if !o.withoutAT {
		p := atport.New(atport.Config{Path: d.OpenAgentPort(), Find: func() []string { return []string{d.OpenAgentPort()} }, Sysfs: t.TempDir(), Log: c.Log})
		t.Cleanup(func() {
			if err := p.Close(); err != nil {
				t.Error(err)
			}
		})
		c.AT = p
		if o.shared {
			c.Shared, c.BeforeRelease = true, p.Release
		}
	}
	d.config = c
	d.back = network.NewManagerStack(c)
	d.step("device up")
	return ctx, d
}

func (d *device) step(what string) {
	d.t.Helper()
	d.t.Logf("%6d ms  %s", time.Since(d.start).Milliseconds(), what)
}

func (d *device) must(err error) {
	d.t.Helper()
	if err != nil {
		d.t.Fatal(err)
	}
}

// keyfiles are NetworkManager's own files.
func (d *device) keyfiles() map[string]string {
	d.t.Helper()
	dir := filepath.Join(d.Dir(), "nm/etc/system-connections")
	entries, err := os.ReadDir(dir)
	d.must(err)
	out := map[string]string{}
	for _, e := range entries {
		b, err := os.ReadFile(filepath.Join(dir, e.Name()))
		d.must(err)
		out[e.Name()] = string(b)
	}
	return out
}

// normalise lets NetworkManager write the files itself, in its own order and
// without defaults, so that they can be compared.
func (d *device) normalise(ctx context.Context) {
	d.t.Helper()
	all, err := d.nm.Mobile(ctx)
	d.must(err)
	for _, con := range all {
		was := con.Settings.Autoconnect()
		d.must(d.nm.SetAutoconnect(ctx, con, !was))
		con, _, err := d.nm.Find(ctx, con.UUID())
		d.must(err)
		d.must(d.nm.SetAutoconnect(ctx, con, was))
	}
}

func (d *device) autoconnect(ctx context.Context) map[string]bool {
	d.t.Helper()
	all, err := d.nm.Mobile(ctx)
	d.must(err)
	out := map[string]bool{}
	for _, c := range all {
		out[c.ID()] = c.Settings.Autoconnect()
	}
	return out
}

func TestSwitchAndBack(t *testing.T) {
	ctx, d := startDevice(t, options{})
	d.must(d.WaitConnected(ctx, "old"))
	d.step("old connection up")
	d.normalise(ctx)
	before, contexts := d.keyfiles(), d.Modem.State().Contexts

	if link, err := d.back.Link(ctx, profileA.iccid); err != nil || link.Interface != "wwan0" {
		t.Errorf("link of a connection that is not ours: %+v, %v", link, err)
	}
	if _, err := d.back.Link(ctx, profileB.iccid); !errors.Is(err, network.ErrNoLink) {
		t.Errorf("link of the profile that is not there: %v", err)
	}
	snapshot, err := d.back.Snapshot(ctx)
	d.must(err)
	d.step("snapshot")
	mark := d.Modem.Log().Len()
	d.must(d.back.Gate(ctx, snapshot))
	d.must(d.back.Gate(ctx, snapshot)) // again, as after a restart
	d.step("gate")
	if diff := cmp.Diff(map[string]bool{"old": false, "spare": false, "loose": false}, d.autoconnect(ctx)); diff != "" {
		t.Errorf("autoconnect behind the gate (-want +got):\n%s", diff)
	}
	if _, err := d.mm.Modem(ctx, ""); err == nil {
		t.Error("ModemManager still has the modem")
	}

	d.card.enable(1)
	where, err := d.back.Apply(ctx, profileB.iccid, modem.Settings{Default: newAPN})
	d.must(err)
	d.step("apply " + strings.Join(where, "+"))
	if diff := cmp.Diff([]string{network.ViaAT, network.ViaNetworkManager}, where); diff != "" {
		t.Errorf("where (-want +got):\n%s", diff)
	}
	rung, err := d.back.Reread(ctx, profileB.iccid)
	d.must(err)
	d.step("reread " + rung)
	registration, err := d.back.Register(ctx)
	d.must(err)
	d.step("registered " + registration.PLMN)
	link, err := d.back.Connect(ctx, profileB.iccid)
	d.must(err)
	d.step("connected")
	want := modem.Link{Interface: "wwan0", Addresses: []netip.Prefix{subscriptions[1].Address}, DNS: []netip.Addr{subscriptions[1].Gateway}}
	compareLink := cmp.Comparer(func(a, b netip.Prefix) bool { return a == b })
	compareAddr := cmp.Comparer(func(a, b netip.Addr) bool { return a == b })
	if diff := cmp.Diff(want, link, compareLink, compareAddr); diff != "" {
		t.Errorf("link (-want +got):\n%s", diff)
	}
	if registration.PLMN != "23415" || !registration.State.Registered() {
		t.Errorf("registration %+v", registration)
	}
	again, err := d.back.Link(ctx, profileB.iccid)
	if err != nil || again.Interface != "wwan0" {
		t.Errorf("link asked again: %+v, %v", again, err)
	}
	d.must(d.back.Commit(ctx, profileB.iccid))
	d.step("commit")
	if _, err := d.back.Link(ctx, profileA.iccid); !errors.Is(err, network.ErrNoLink) {
		t.Errorf("link of the old profile: %v", err)
	}
	if diff := cmp.Diff(map[string]bool{"old": false, "spare": false, "loose": false, "lpad-000022": true}, d.autoconnect(ctx)); diff != "" {
		t.Errorf("autoconnect after the switch (-want +got):\n%s", diff)
	}
	d.must(d.Modem.Log().InOrder(mark, `> AT+CGDCONT=1,"IP","new.apn"`, "> AT+CFUN=0", "> AT+CFUN=1", "attach of "+profileB.imsi+`, APN "new.apn"`,
		`active: APN "new.apn"`))

	d.must(d.back.Gate(ctx, snapshot))
	d.card.enable(0)
	link, err = d.back.Restore(ctx, snapshot)
	d.must(err)
	d.step("restored")
	d.isLink(link, 0)
	if diff := cmp.Diff(before, d.keyfiles()); diff != "" {
		t.Errorf("NetworkManager's files are not what they were (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(contexts, d.Modem.State().Contexts); diff != "" {
		t.Errorf("the modem's contexts are not what they were (-want +got):\n%s", diff)
	}
	after, err := d.back.Snapshot(ctx)
	d.must(err)
	if diff := cmp.Diff(sansTimestamps(snapshot), sansTimestamps(after)); diff != "" {
		t.Errorf("settings are not what they were (-want +got):\n%s", diff)
	}
}

// That there is no network is nothing that could be put back, and no reason to
// reset the modem again and again: the old connection comes up when it can.
func TestRestoreWithoutCoverage(t *testing.T) {
	ctx, d := startDevice(t, options{})
	d.must(d.WaitConnected(ctx, "old"))
	snapshot, err := d.back.Snapshot(ctx)
	d.must(err)
	d.must(d.back.Gate(ctx, snapshot))
	d.Modem.SetCoverage(false)
	limited, stop := context.WithTimeout(ctx, 20*time.Second)
	defer stop()
	link, err := d.back.Restore(limited, snapshot)
	if err != nil || !link.IsZero() {
		t.Errorf("restored with link %+v, %v", link, err)
	}
	if !d.autoconnect(ctx)["old"] {
		t.Error("the old connection does not come up by itself")
	}
	d.Modem.SetCoverage(true)
	d.must(d.WaitConnected(ctx, "old"))
}

// applied makes the steps of a switch from Gate to Reread.
func (d *device) applied(ctx context.Context, back *network.ManagerStack, n int, p profile, want modem.Settings) (where []string) {
	d.t.Helper()
	snapshot, err := back.Snapshot(ctx)
	d.must(err)
	d.must(back.Gate(ctx, snapshot))
	d.step("gate")
	d.card.enable(n)
	where, err = back.Apply(ctx, p.iccid, want)
	d.must(err)
	d.step("apply " + strings.Join(where, "+"))
	if d.config.AT == nil {
		d.Modem.Reboot() // nobody can make this modem read its card from outside
	}
	rung, err := back.Reread(ctx, p.iccid)
	d.must(err)
	d.step("reread " + rung)
	return where
}

// switchTo runs the steps of a switch, without probe.
func (d *device) switchTo(ctx context.Context, back *network.ManagerStack, n int, p profile, apn modem.APN) (snapshot []byte, link modem.Link) {
	d.t.Helper()
	snapshot, err := back.Snapshot(ctx)
	d.must(err)
	d.applied(ctx, back, n, p, modem.Settings{Default: apn})
	_, err = back.Register(ctx)
	d.must(err)
	link, err = back.Connect(ctx, p.iccid)
	d.must(err)
	d.must(back.Commit(ctx, p.iccid))
	d.step("connected")
	return snapshot, link
}

// connected brings the new profile's link up, which is all that the modem was
// told of since the mark.
func (d *device) connected(ctx context.Context, mark int) {
	d.t.Helper()
	link, err := d.back.Connect(ctx, profileB.iccid)
	d.must(err)
	d.step("connected")
	d.isLink(link, 1)
	d.noOldAPN(mark)
}

// isLink fails if the link is not that of the n-th subscription.
func (d *device) isLink(link modem.Link, n int) {
	d.t.Helper()
	if !slices.Equal(link.Addresses, []netip.Prefix{subscriptions[n].Address}) {
		d.t.Errorf("link %+v, want that of %s", link, subscriptions[n].APN)
	}
}

// noOldAPN fails if the modem was told of the old access point after the mark.
func (d *device) noOldAPN(mark int) {
	d.t.Helper()
	for _, e := range d.Modem.Log().Entries()[mark:] {
		if e.Kind == ">" && strings.Contains(e.Text, "old.apn") {
			d.t.Errorf("the old access point came back: %s", e.Text)
		}
	}
}

func TestWithoutATPort(t *testing.T) {
	ctx, d := startDevice(t, options{withoutAT: true})
	d.must(d.WaitConnected(ctx, "old"))
	mark := d.Modem.Log().Len()
	snapshot, link := d.switchTo(ctx, d.back, 1, profileB, newAPN)
	d.isLink(link, 1)
	d.noOldAPN(mark)
	d.must(d.back.Gate(ctx, snapshot))
	d.card.enable(0)
	d.Modem.Reboot()
	link, err := d.back.Restore(ctx, snapshot)
	d.must(err)
	d.step("restored")
	d.isLink(link, 0)
}

// TestSharedPort: ModemManager uses every AT port; ours is opened only while
// the modem is held.
func TestSharedPort(t *testing.T) {
	ctx, d := startDevice(t, options{shared: true})
	d.must(d.WaitConnected(ctx, "old"))
	mark := d.Modem.Log().Len()
	_, link := d.switchTo(ctx, d.back, 1, profileB, newAPN)
	d.isLink(link, 1)
	d.noOldAPN(mark)
}

// TestRestartInTheMiddle: lpad dies between the steps. Its inhibition dies
// with it, and ModemManager has the modem again with the old SIM data; what
// comes after begins at Gate.
func TestRestartInTheMiddle(t *testing.T) {
	ctx, d := startDevice(t, options{})
	d.must(d.WaitConnected(ctx, "old"))
	bus := systembus.New(d.BusAddress())
	config := d.config
	config.MM, config.NM = mm.New(bus), nm.New(bus)
	dying := network.NewManagerStack(config)
	snapshot, err := dying.Snapshot(ctx)
	d.must(err)
	mark := d.Modem.Log().Len()
	d.must(dying.Gate(ctx, snapshot))
	d.card.enable(1)
	_, err = dying.Apply(ctx, profileB.iccid, modem.Settings{Default: newAPN})
	d.must(err)
	d.must(bus.Close())
	d.step("lpad has died")
	if _, err := d.mm.WaitSIM(ctx, "", profileA.iccid, mm.StateEnabled); err != nil {
		t.Fatal(err)
	}
	d.step("modem back with its old sim")
	if ids, err := d.ActiveConnections(ctx); err != nil || len(ids) > 0 {
		t.Errorf("active without lpad: %v, %v", ids, err)
	}
	d.must(d.back.Gate(ctx, snapshot))
	d.step("gate again")
	_, err = d.back.Apply(ctx, profileB.iccid, modem.Settings{Default: newAPN})
	d.must(err)
	_, err = d.back.Reread(ctx, profileB.iccid)
	d.must(err)
	d.connected(ctx, mark)
}

// TestCandidates: the first access point is wrong, the second right; then a
// profile that no network takes.
func TestCandidates(t *testing.T) {
	ctx, d := startDevice(t, options{strict: true})
	d.must(d.WaitConnected(ctx, "old"))
	listener, err := d.Listen("tcp", "10.99.0.1:443")
	d.must(err)
	defer func() { d.must(listener.Close()) }()

	s := switchover.Switch{Settings: d.back, Modem: d.back, Network: d.back, Prober: prober{d.Stack}, Log: d.config.Log}
	iccid, err := rsp.ParseICCID(profileB.iccid)
	d.must(err)
	target := switchover.Target{ICCID: iccid, Probe: "10.99.0.1:443", Wanted: switchover.Wanted{Candidates: []switchover.Candidate{
		{APN: modem.APN{Name: "wrong.apn"}, Source: "test"}, {APN: newAPN, Source: "test 2"}}}}
	snapshot, err := s.Snapshot(ctx)
	d.must(err)
	d.must(s.Gate(ctx, snapshot))
	d.card.enable(1)
	_, err = s.Apply(ctx, target)
	d.must(err)
	_, err = s.Reread(ctx, target)
	d.must(err)
	d.step("reread")
	short, cancel := context.WithTimeout(ctx, 16*time.Second)
	defer cancel()
	online, err := s.Verify(short, snapshot, target)
	d.must(err)
	d.step("online")
	if online.Index != 1 || online.Source != "test 2" || len(online.Attempts) != 1 || online.Attempts[0].Stage != switchover.StageRegister ||
		fault.Of(online.Attempts[0].Err).Code != "registration-denied" || online.Link.Interface != "wwan0" {
		t.Errorf("online: %+v", online)
	}
	d.must(s.Commit(ctx, target))

	wrong := switchover.Target{ICCID: iccid, Wanted: switchover.Wanted{Candidates: target.Candidates[:1]}}
	snapshot, err = s.Snapshot(ctx)
	d.must(err)
	d.must(s.Gate(ctx, snapshot))
	_, err = s.Apply(ctx, wrong)
	d.must(err)
	d.card.enable(0)
	_, err = d.back.Reread(ctx, profileA.iccid)
	d.must(err)
	short, cancel = context.WithTimeout(ctx, 4*time.Second)
	defer cancel()
	if _, err = s.Verify(short, snapshot, wrong); fault.Of(err).Code != "registration-denied" {
		t.Errorf("verify with a wrong access point only: %v", err)
	}
	d.step("denied")
	link, err := s.Rollback(ctx, snapshot, func(context.Context) error { d.card.enable(1); return nil })
	d.must(err)
	d.step("rolled back")
	d.isLink(link, 1)
}

// prober dials from inside the device's network namespace.
type prober struct{ *modemtest.Stack }

func (p prober) Probe(ctx context.Context, _ modem.Link, target string) error {
	conn, err := p.Dial(ctx, "tcp", target)
	if err != nil {
		return err
	}
	return conn.Close()
}

// sansTimestamps takes away when connections were last up.
func sansTimestamps(b []byte) string {
	return timestamps.ReplaceAllString(string(b), "")
}

var timestamps = regexp.MustCompile(`"timestamp":\{"t":"\d+"\},?`)
