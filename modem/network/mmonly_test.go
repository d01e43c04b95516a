package network_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/godbus/dbus/v5"
	"github.com/google/go-cmp/cmp"

	"lpad/agent/rsp"
	"lpad/agent/switchover"
	"lpad/internal/fault"
	"lpad/internal/systembus"
	"lpad/modem"
	"lpad/modem/atport"
	"lpad/modem/mm"
	"lpad/modem/modemtest"
	"lpad/modem/network"
)

// bareDevice is a device without NetworkManager.
type bareDevice struct {
	*modemtest.Stack
	t      *testing.T
	card   *card
	port   *atport.Port
	mm     *mm.Client // nil without ModemManager
	config network.Config
	events string // file that the hook writes
	start  time.Time
}

type bareOptions struct {
	dialect   modemtest.Dialect
	withoutMM bool
	shared    bool
	hook      string // of this shell script; "": the example
}

// startBare starts a device for a test, as startDevice does.
func startBare(t *testing.T, o bareOptions) (context.Context, *bareDevice) {
	t.Helper()
	modemtest.RequireStack(t)
	t.Parallel()
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	t.Cleanup(cancel)
	d := &bareDevice{t: t, card: &card{profiles: []profile{profileA, profileB}}, start: time.Now()}
	var err error
	d.Stack, err = modemtest.StartStack(ctx, modemtest.StackConfig{
		Modem: modemtest.Config{Card: d.card, Dialect: o.dialect, Subscriptions: subscriptions, StrictAttach: true,
			Contexts: []modemtest.Context{{CID: 1, Type: "IP", APN: "old.apn"}}},
		ShareAgentPort: o.shared, WithoutNetworkManager: true, WithoutModemManager: o.withoutMM,
	})
	d.must(err)
	t.Cleanup(func() {
		if t.Failed() {
			t.Log(d.Modem.Log())
		}
		if err := d.Close(); err != nil {
			t.Error(err)
		}
	})
	log := slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelDebug}))
	d.port = atport.New(atport.Config{Path: d.OpenAgentPort(), Find: func() []string { return []string{d.OpenAgentPort()} }, Sysfs: t.TempDir(), Log: log})
	t.Cleanup(func() {
		if err := d.port.Close(); err != nil {
			t.Error(err)
		}
	})
	d.config = network.Config{AT: d.port, Port: d.port.Path, BeforeRelease: d.port.Release, Hook: &network.Hook{Path: d.hook(ctx, o.hook), Log: log}, Log: log,
		KeepFile: filepath.Join(t.TempDir(), "link.json")}
	if !o.withoutMM {
		bus := systembus.New(d.BusAddress())
		t.Cleanup(func() {
			if err := bus.Close(); err != nil {
				t.Error(err)
			}
		})
		d.mm = mm.New(bus)
		d.config.MM = d.mm
	}
	d.step("device up")
	return ctx, d
}

func (d *bareDevice) must(err error) {
	d.t.Helper()
	if err != nil {
		d.t.Fatal(err)
	}
}

func (d *bareDevice) step(what string) {
	d.t.Helper()
	d.t.Logf("%6d ms  %s", time.Since(d.start).Milliseconds(), what)
}

// hook makes the device's hook: it notes what it was told, and then does it
// inside the device's namespaces.
func (d *bareDevice) hook(ctx context.Context, script string) string {
	d.t.Helper()
	dir := d.t.TempDir()
	d.events = filepath.Join(dir, "events")
	inner, err := filepath.Abs("../../packaging/hooks/interface")
	d.must(err)
	if script != "" {
		inner = filepath.Join(dir, "inner")
		d.must(os.WriteFile(inner, []byte("#!/bin/sh -eu\n"+script+"\n"), 0o755))
	}
	var quoted []string
	for _, arg := range d.Command(ctx, inner).Args {
		quoted = append(quoted, "'"+strings.ReplaceAll(arg, "'", `'\''`)+"'")
	}
	path := filepath.Join(dir, "hook")
	d.must(os.WriteFile(path, []byte(`#!/bin/sh
echo "$LPAD_EVENT $LPAD_BACKEND $LPAD_METHOD if=$LPAD_INTERFACE addr=$LPAD_ADDRESS gw=$LPAD_GATEWAY apn=$LPAD_APN user=$LPAD_USER pw=${LPAD_PASSWORD-} iccid=$LPAD_ICCID port=$LPAD_PORT" >>'`+d.events+`'
exec `+strings.Join(quoted, " ")+"\n"), 0o755))
	return path
}

// told is what the hook was told, one line an event.
func (d *bareDevice) told() []string {
	d.t.Helper()
	b, err := os.ReadFile(d.events)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		d.t.Fatal(err)
	}
	return strings.Split(strings.TrimSpace(string(b)), "\n")
}

// bearers are the properties of the bearers that are connected, as ModemManager has them.
func (d *bareDevice) bearers(ctx context.Context) []string {
	d.t.Helper()
	bus, err := d.DialBus()
	d.must(err)
	defer func() { d.must(bus.Close()) }()
	m, err := d.mm.Modem(ctx, "")
	d.must(err)
	var out []string
	for _, path := range m.Bearers {
		var p map[string]dbus.Variant
		d.must(bus.Object("org.freedesktop.ModemManager1", path).CallWithContext(ctx, "org.freedesktop.DBus.Properties.GetAll", 0, "org.freedesktop.ModemManager1.Bearer").Store(&p))
		if p["Connected"].Value() == true {
			settings, _ := p["Properties"].Value().(map[string]dbus.Variant)
			out = append(out, fmt.Sprint(settings))
		}
	}
	return out
}

// switchTo is a whole switch, with a probe.
func (d *bareDevice) switchTo(ctx context.Context, s *switchover.Switch, n int, p profile) (snapshot []byte, online switchover.Online) {
	d.t.Helper()
	iccid, err := rsp.ParseICCID(p.iccid)
	d.must(err)
	target := switchover.Target{ICCID: iccid, Probe: "10.99.0.1:443", Wanted: switchover.Wanted{Candidates: []switchover.Candidate{{APN: newAPN, Source: "test"}}}}
	snapshot, err = s.Snapshot(ctx)
	d.must(err)
	d.step("snapshot")
	d.must(s.Gate(ctx, snapshot))
	d.must(s.Gate(ctx, snapshot)) // again, as after a restart
	d.step("gate")
	d.card.enable(n)
	applied, err := s.Apply(ctx, target)
	d.must(err)
	d.step("apply " + strings.Join(applied.Where, "+"))
	rung, err := s.Reread(ctx, target)
	d.must(err)
	d.step("reread " + rung)
	online, err = s.Verify(ctx, snapshot, target)
	d.must(err)
	d.step("online")
	d.must(s.Commit(ctx, target))
	return snapshot, online
}

// Without NetworkManager lpad connects the bearer by ModemManager, and the
// example hook configures the interface: there and back.
func TestModemManagerAlone(t *testing.T) {
	t.Parallel()
	for name, shared := range map[string]bool{"port of its own": false, "shared port": true} {
		t.Run(name, func(t *testing.T) {
			ctx, d := startBare(t, bareOptions{shared: shared})
			listener, err := d.Listen("tcp", "10.99.0.1:443")
			d.must(err)
			defer func() { d.must(listener.Close()) }()
			back := network.NewMMOnly(d.config)
			m, err := d.mm.WaitSettled(ctx, "")
			d.must(err)
			_, err = d.mm.Connect(ctx, m, modem.APN{Name: "old.apn", User: "x", Type: modem.IPv4}) // as the device's own software did
			d.must(err)
			d.step("old bearer up")
			before, contexts := d.bearers(ctx), d.Modem.State().Contexts
			// The card's turn, and the network's again. Whether it has to be taken in turns is found out.
			d.must(back.Borrow(ctx))
			if _, err := d.mm.Modem(ctx, ""); back.Shares() != shared || errors.Is(err, mm.ErrNoModem) != shared {
				t.Errorf("port taken for shared: %v, modem: %v", back.Shares(), err)
			}
			d.must(back.GiveBack(ctx))
			d.must(back.Online(ctx))
			if diff := cmp.Diff(before, d.bearers(ctx)); diff != "" {
				t.Errorf("the bearer after the card's turn (-want +got):\n%s", diff)
			}
			// What nobody waits for comes back by itself.
			following, stop := context.WithCancel(ctx)
			done := make(chan struct{})
			go func() { back.Follow(following); close(done) }()
			d.must(back.Borrow(ctx))
			d.must(back.GiveBack(ctx))
			for {
				m, err := d.mm.Modem(ctx, "")
				if err == nil && len(m.Bearers) > 0 && m.State == mm.StateConnected {
					break
				}
				if ctx.Err() != nil {
					t.Fatal("what went down for the card does not come back")
				}
				time.Sleep(20 * time.Millisecond)
			}
			stop()
			<-done
			d.step("card and network took turns")
			mark := d.Modem.Log().Len()
			s := &switchover.Switch{Settings: back, Modem: back, Network: back, Prober: prober{d.Stack}, Log: d.config.Log}
			snapshot, online := d.switchTo(ctx, s, 1, profileB)
			if online.Link.Interface != "wwan0" || !slices.Equal(online.Link.Addresses, []netip.Prefix{subscriptions[1].Address}) {
				t.Errorf("link %+v", online.Link)
			}
			again, err := back.Link(ctx, profileB.iccid)
			if err != nil || again.Interface != "wwan0" {
				t.Errorf("link asked again: %+v, %v", again, err)
			}
			if _, err := back.Link(ctx, profileA.iccid); !errors.Is(err, network.ErrNoLink) {
				t.Errorf("link of the old profile: %v", err)
			}
			d.must(d.Modem.Log().InOrder(mark, `> AT+CGDCONT=1,"IP","new.apn"`, "attach of "+profileB.imsi+`, APN "new.apn"`, `active: APN "new.apn"`))
			for _, e := range d.Modem.Log().Entries()[mark:] {
				if e.Kind == ">" && strings.Contains(e.Text, "CGDCONT=") && strings.Contains(e.Text, "old.apn") {
					t.Errorf("the old access point came back: %s", e.Text)
				}
			}
			iccid, err := rsp.ParseICCID(profileA.iccid)
			d.must(err)
			link, err := s.Rollback(ctx, snapshot, func(context.Context) error { d.card.enable(0); return nil })
			d.must(err)
			d.step("rolled back to " + iccid.String())
			if link.Interface != "wwan0" {
				t.Errorf("old link %+v", link)
			}
			if diff := cmp.Diff(before, d.bearers(ctx)); diff != "" {
				t.Errorf("the bearer is not what it was (-want +got):\n%s", diff)
			}
			if diff := cmp.Diff(contexts, d.Modem.State().Contexts); diff != "" {
				t.Errorf("the modem's contexts are not what they were (-want +got):\n%s", diff)
			}
			for _, line := range d.told() {
				t.Log(line)
			}
		})
	}
}

// A modem with nothing but PPP: the bearer is the data call, the hook does the
// rest and says which interface came of it.
func TestModemManagerAlonePPP(t *testing.T) {
	dialect, _ := modemtest.DialectNamed("quectel-eg25")
	dialect.Delays, dialect.RefreshHangsUp = modemtest.Delays{}, false
	ctx, d := startBare(t, bareOptions{dialect: dialect, hook: `case $LPAD_EVENT in up|renew) echo interface=ppp7 ;; esac`})
	back := network.NewMMOnly(d.config)
	s := &switchover.Switch{Settings: back, Modem: back, Network: back, Prober: unreachable{}, Log: d.config.Log}
	_, online := d.switchTo(ctx, s, 1, profileB)
	if online.Link.Interface != "ppp7" {
		t.Errorf("link %+v", online.Link)
	}
	want := "up modemmanager ppp if= addr= gw= apn=new.apn user=u pw=p iccid=" + profileB.iccid + " port=/dev/ttyUSB0"
	if told := d.told(); told[len(told)-1] != want {
		t.Errorf("the hook was told\n%s\nwant, at last\n%s", strings.Join(told, "\n"), want)
	}
	again := network.NewMMOnly(d.config) // lpad after a restart
	link, err := again.Link(ctx, profileB.iccid)
	if told := d.told(); err != nil || link.Interface != "ppp7" || !strings.HasPrefix(told[len(told)-1], "renew modemmanager ppp") {
		t.Errorf("link after a restart: %+v, %v, %v", link, err, told)
	}
}

// unreachable is a prober that is content with the interface that a hook named.
type unreachable struct{}

func (unreachable) Probe(_ context.Context, link modem.Link, _ string) error {
	if link.Interface != "ppp7" {
		return errors.New("not over the hook's interface")
	}
	return nil
}

// What drops comes up again, and after a restart of lpad too; not while a switch
// is under way.
func TestModemManagerAloneKeeps(t *testing.T) {
	ctx, d := startBare(t, bareOptions{})
	listener, err := d.Listen("tcp", "10.99.0.1:443")
	d.must(err)
	defer func() { d.must(listener.Close()) }()
	back := network.NewMMOnly(d.config)
	s := &switchover.Switch{Settings: back, Modem: back, Network: back, Prober: prober{d.Stack}, Log: d.config.Log}
	snapshot, _ := d.switchTo(ctx, s, 1, profileB)

	d.Modem.DropContexts() // as operators do at night
	again := network.NewMMOnly(d.config)
	following, stop := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() { again.Follow(following); close(done) }()
	for len(d.Modem.State().Active) == 0 {
		if ctx.Err() != nil {
			t.Fatal("the link does not come up again")
		}
		time.Sleep(20 * time.Millisecond)
	}
	d.step("up again")
	stop()
	<-done
	d.must(again.Gate(ctx, snapshot))
	if _, err := os.Stat(d.config.KeepFile); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a link is kept during a switch: %v", err)
	}
	d.must(again.Close(ctx))
}

// Without managers the hook gets what the modem tells of its context, and the
// link is bound to the interface that it names: there and back.
func TestATAloneWithHook(t *testing.T) {
	ctx, d := startBare(t, bareOptions{withoutMM: true})
	listener, err := d.Listen("tcp", "10.99.0.1:443")
	d.must(err)
	defer func() { d.must(listener.Close()) }()
	back := network.NewATOnly(d.port, d.config)
	_, err = d.port.Activate(ctx, 1) // as the device's own software did
	d.must(err)
	s := &switchover.Switch{Settings: back, Modem: back, Network: back, Prober: prober{d.Stack}, Log: d.config.Log}
	snapshot, online := d.switchTo(ctx, s, 1, profileB)
	if online.Link.Interface != "wwan0" {
		t.Errorf("link %+v", online.Link)
	}
	if link, err := back.Link(ctx, profileB.iccid); err != nil || link.Interface != "wwan0" {
		t.Errorf("link asked again: %+v, %v", link, err)
	}
	if link, err := back.Link(ctx, profileA.iccid); !errors.Is(err, network.ErrNoLink) {
		t.Errorf("link of the old profile: %+v, %v", link, err)
	}
	link, err := s.Rollback(ctx, snapshot, func(context.Context) error { d.card.enable(0); return nil })
	d.must(err)
	d.step("rolled back")
	if link.Interface != "wwan0" {
		t.Errorf("old link %+v", link)
	}
	conn, err := d.Dial(ctx, "tcp", "10.99.0.1:443")
	d.must(err)
	d.must(conn.Close())
	told := d.told()
	for _, want := range []string{
		"up none unknown if= addr=10.2.2.2/24 gw=10.2.2.1 apn=new.apn user=u pw= iccid=" + profileB.iccid + " port=" + d.port.Path(),
		"up none unknown if= addr=10.1.1.2/24 gw=10.1.1.1 apn=old.apn user= pw= iccid=" + profileA.iccid + " port=" + d.port.Path(),
	} {
		if !slices.Contains(told, want) {
			t.Errorf("the hook was told\n%s\nwithout\n%s", strings.Join(told, "\n"), want)
		}
	}
}

// A port that is ModemManager's too is taken from it for the card, unless that
// is forbidden; with nothing up on the modem there are no turns to take.
func TestWhoHasThePort(t *testing.T) {
	ctx, d := startBare(t, bareOptions{shared: true})
	held := func() bool {
		_, err := d.mm.Modem(ctx, "")
		return errors.Is(err, mm.ErrNoModem)
	}
	forbidden := d.config
	forbidden.Never = true
	if err := network.NewMMOnly(forbidden).Borrow(ctx); fault.Of(err).Code != "port-shared-with-bearer" || fault.Of(err).Who != fault.Configuration || held() {
		t.Errorf("forbidden: %v, held: %v", err, held())
	}
	back := network.NewMMOnly(d.config)
	d.must(back.Borrow(ctx))
	if !held() || back.Shares() {
		t.Errorf("nothing up: held %v, turns %v", held(), back.Shares())
	}
	d.must(back.GiveBack(ctx))
	m, err := d.mm.WaitSettled(ctx, "")
	d.must(err)
	_, err = d.mm.Connect(ctx, m, modem.APN{Name: "old.apn", Type: modem.IPv4})
	d.must(err)
	d.must(back.Borrow(ctx))
	if !held() || !back.Shares() {
		t.Errorf("a bearer up: held %v, turns %v", held(), back.Shares())
	}
	d.must(back.GiveBack(ctx))
	d.must(back.Online(ctx))
	if len(d.Modem.State().Active) == 0 {
		t.Error("the bearer did not come back")
	}
}
