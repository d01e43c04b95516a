package network_test

import (
	"context"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"lpad/internal/redact"
	"lpad/internal/systembus"
	"lpad/modem"
	"lpad/modem/at"
	"lpad/modem/atmodem"
	"lpad/modem/mm"
	"lpad/modem/modemtest"
	"lpad/modem/network"
	"lpad/modem/nm"
	"lpad/modem/serialport"
)

var subscriptions = []modemtest.Subscription{
	{IMSI: profileA.imsi, APN: "old.apn", Address: netip.MustParsePrefix("10.1.1.2/24"), Gateway: netip.MustParseAddr("10.1.1.1"), PLMN: "00101", Operator: "Test PLMN 1-1"},
	{IMSI: profileB.imsi, APN: "new.apn", User: "u", Password: "p", Address: netip.MustParsePrefix("10.2.2.2/24"), Gateway: netip.MustParseAddr("10.2.2.1"), PLMN: "23415", Operator: "vodafone UK"},
}

var newAPN = modem.APN{Name: "new.apn", User: "u", Password: redact.NewSecret("p"), Type: modem.IPv4}

// device is a running device and the back-end under test on it.
type device struct {
	*modemtest.Stack
	card  *card
	back  *network.ManagerStack
	mm    *mm.Client
	nm    *nm.Client
	t     *testing.T
	start time.Time
}

type options struct {
	withoutAT bool
	dialect   modemtest.Dialect
	delays    modemtest.Delays
}

func startDevice(ctx context.Context, t *testing.T, o options) *device {
	t.Helper()
	modemtest.RequireStack(t)
	d := &device{card: &card{profiles: []profile{profileA, profileB}}, t: t, start: time.Now()}
	var err error
	d.Stack, err = modemtest.StartStack(ctx, modemtest.StackConfig{
		Modem: modemtest.Config{Card: d.card, Subscriptions: subscriptions, Dialect: o.dialect, Delays: o.delays},
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
	c := network.Config{MM: d.mm, NM: d.nm, Log: slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelDebug}))}
	if !o.withoutAT {
		port, err := serialport.Open(d.OpenAgentPort(), 115200)
		if err != nil {
			t.Fatal(err)
		}
		conn := at.New(port)
		t.Cleanup(func() {
			if err := conn.Close(); err != nil {
				t.Error(err)
			}
		})
		am := atmodem.New(conn)
		if err := am.Init(ctx); err != nil {
			t.Fatal(err)
		}
		c.AT = am
	}
	d.back = network.NewManagerStack(c)
	d.step("device up")
	return d
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
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Second)
	defer cancel()
	d := startDevice(ctx, t, options{})
	d.must(d.WaitConnected(ctx, "old"))
	d.step("old connection up")
	d.normalise(ctx)
	before, contexts := d.keyfiles(), d.Modem.State().Contexts

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
	where, err := d.back.Apply(ctx, profileB.iccid, newAPN)
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
	if len(link.Addresses) != 1 || link.Addresses[0] != subscriptions[0].Address {
		t.Errorf("old link: %+v", link)
	}
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

// sansTimestamps takes away when connections were last up.
func sansTimestamps(b []byte) string {
	return timestamps.ReplaceAllString(string(b), "")
}

var timestamps = regexp.MustCompile(`"timestamp":\{"t":"\d+"\},?`)
