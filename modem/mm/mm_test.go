package mm_test

import (
	"context"
	"errors"
	"net/netip"
	"testing"
	"time"

	"github.com/godbus/dbus/v5"
	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"lpad/internal/fault"
	"lpad/internal/redact"
	"lpad/internal/systembus"
	"lpad/internal/systembus/bustest"
	"lpad/modem"
	"lpad/modem/mm"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// compare knows addresses and secrets.
var compare = cmp.Options{
	cmp.Comparer(func(a, b netip.Prefix) bool { return a == b }), cmp.Comparer(func(a, b netip.Addr) bool { return a == b }),
	cmp.Comparer(func(a, b redact.Secret) bool { return a == b }),
}

func TestModems(t *testing.T) {
	b := bustest.Start(t)
	c := newClient(t, b)
	if _, err := c.Modem(t.Context(), ""); fault.Of(err).Code != "modemmanager-absent" {
		t.Errorf("without ModemManager: %v", err)
	}
	if on, err := c.Running(t.Context()); on || err != nil {
		t.Errorf("running: %v, %v", on, err)
	}
	f := startFake(t, b)
	if _, err := c.Modem(t.Context(), ""); !errors.Is(err, mm.ErrNoModem) {
		t.Errorf("without a modem: %v", err)
	}
	type port struct {
		Name string
		Kind uint32
	}
	path := f.add("10", iccidA, 8, properties{"DeviceIdentifier": dbus.MakeVariant("hash"), "Manufacturer": dbus.MakeVariant("Quectel"),
		"Model": dbus.MakeVariant("EG25"), "Revision": dbus.MakeVariant("R1"), "EquipmentIdentifier": dbus.MakeVariant("356938035643809"),
		"PrimaryPort": dbus.MakeVariant("cdc-wdm0"), "Ports": dbus.MakeVariant([]port{{"ttyUSB2", 3}, {"wwan0", 2}, {"ttyUSB1", 5}}),
		"Bearers": dbus.MakeVariant([]dbus.ObjectPath{"/b/1"}), "AccessTechnologies": dbus.MakeVariant(uint32(1 << 14))})
	f.set(path, name+".Modem.Modem3gpp", "RegistrationState", uint32(5))
	f.set(path, name+".Modem.Modem3gpp", "OperatorCode", "20601")
	f.set(path, name+".Modem.Modem3gpp", "OperatorName", "Op")
	f.add("9", "", -1, properties{"Device": dbus.MakeVariant("/other"), "StateFailedReason": dbus.MakeVariant(uint32(5))})
	got, err := c.Modems(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	want := []mm.Modem{
		{Path: root + "/Modem/9", Device: "/other", State: mm.StateFailed, FailedReason: "esim-without-profiles", Registration: modem.Registration{State: modem.RegistrationUnknown}},
		{Path: path, Device: device, DeviceIdentifier: "hash", State: mm.StateRegistered, PrimaryPort: "cdc-wdm0", ATPorts: []string{"ttyUSB2"}, NetPorts: []string{"wwan0"}, OtherPorts: []string{"ttyUSB1"},
			Identity:     modem.Identity{Manufacturer: "Quectel", Model: "EG25", Revision: "R1", IMEI: "356938035643809"},
			SIM:          modem.SIM{ICCID: iccidA, IMSI: "001010123456789", PLMN: "00101", SPN: "TestOne", GID1: "A1FF"},
			Registration: modem.Registration{State: modem.RegisteredRoaming, PLMN: "20601", Operator: "Op", Access: "lte"},
			Bearers:      []dbus.ObjectPath{"/b/1"}},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("modems (-want +got):\n%s", diff)
	}
	if m, err := c.Modem(t.Context(), device); err != nil || m.Path != path {
		t.Errorf("by device: %v, %v", m.Path, err)
	}
}

// TestWaitSIM follows a modem through a re-probe: another object, at first
// without SIM data.
func TestWaitSIM(t *testing.T) {
	b := bustest.Start(t)
	f := startFake(t, b)
	c := newClient(t, b)
	old := f.add("0", iccidA, 8, nil)
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	type result struct {
		m   mm.Modem
		err error
	}
	done := make(chan result, 1)
	go func() {
		m, err := c.WaitSIM(ctx, device, iccidB+"F", mm.StateDisabled)
		done <- result{m, err}
	}()
	f.remove(old)
	path := f.add("1", "", 1, nil)
	f.set(path, name+".Modem", "Sim", root+"/SIM/1")
	f.set(root+"/SIM/1", name+".Sim", "SimIdentifier", iccidB)
	select {
	case r := <-done:
		t.Errorf("done before the modem was usable: %+v", r)
	case <-time.After(50 * time.Millisecond):
	}
	f.set(path, name+".Modem", "State", int32(3))
	if r := <-done; r.err != nil || r.m.Path != path {
		t.Errorf("got %v at %s, want %s", r.err, r.m.Path, path)
	}
}

func TestWaitEnds(t *testing.T) {
	b := bustest.Start(t)
	f := startFake(t, b)
	c := newClient(t, b)
	sim := func(ctx context.Context) error {
		_, err := c.WaitSIM(ctx, device, iccidB, mm.StateDisabled)
		return err
	}
	network := func(ctx context.Context) error {
		_, err := c.WaitRegistered(ctx, device)
		return err
	}
	settled := func(ctx context.Context) error {
		_, err := c.WaitSettled(ctx, device)
		return err
	}
	for _, tc := range []struct {
		name         string
		iccid        string
		state        int32
		registration uint32
		wait         func(context.Context) error
		code         string
	}{
		{"other sim", iccidA, 8, 1, sim, "modem-shows-other-sim"},
		{"no sim", "", -1, 0, sim, "modem-shows-other-sim"},
		{"pin", "", 2, 0, sim, "sim-pin-required"},
		{"not yet", iccidB, 1, 0, sim, "modem-not-ready"},
		{"searching", iccidB, 7, 2, network, "not-registered"},
		{"denied", iccidB, 7, 3, network, "registration-denied"},
		{"probing", iccidB, 0, 0, settled, "modem-not-ready"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			path := f.add("1", tc.iccid, tc.state, nil)
			f.set(path, name+".Modem.Modem3gpp", "RegistrationState", tc.registration)
			defer f.remove(path)
			ctx, cancel := context.WithTimeout(t.Context(), 60*time.Millisecond)
			defer cancel()
			err := tc.wait(ctx)
			if fa := fault.Of(err); fa.Code != tc.code || fa.Next == "" || !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("got %v (%+v), want %s", err, fa, tc.code)
			}
		})
	}
	t.Run("no modem", func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), 60*time.Millisecond)
		defer cancel()
		if err := sim(ctx); !errors.Is(err, mm.ErrNoModem) {
			t.Errorf("got %v", err)
		}
	})
	t.Run("the modem goes after a refusal", func(t *testing.T) {
		path := f.add("1", iccidB, 7, nil)
		f.set(path, name+".Modem.Modem3gpp", "RegistrationState", uint32(3))
		ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
		defer cancel()
		time.AfterFunc(50*time.Millisecond, func() { f.remove(path) })
		if err := network(ctx); fault.Of(err).Code != "registration-denied" {
			t.Errorf("got %v", err)
		}
	})
	t.Run("cancelled", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if err := network(ctx); !errors.Is(err, context.Canceled) {
			t.Errorf("got %v", err)
		}
	})
}

func TestInhibit(t *testing.T) {
	b := bustest.Start(t)
	f := startFake(t, b)
	c := newClient(t, b)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	f.order("InhibitDevice", core+"NotFound", core+"Failed") // not known yet, then not exported yet
	h, err := c.Inhibit(ctx, device)
	if err != nil {
		t.Fatal(err)
	}
	if held, err := h.Held(ctx); !held || err != nil {
		t.Errorf("held: %v, %v", held, err)
	}
	if n := len(f.taken()); n != 3 {
		t.Errorf("%d calls, want 3", n)
	}
	if err := f.conn.Close(); err != nil {
		t.Fatal(err)
	}
	held, err := h.Held(ctx)
	for ; held && err == nil && ctx.Err() == nil; held, err = h.Held(ctx) { // the bus notices in its own time
		time.Sleep(10 * time.Millisecond)
	}
	if held || err != nil {
		t.Errorf("held though ModemManager is gone: %v, %v", held, err)
	}
	f = startFake(t, b) // it knows of no inhibition
	if held, err := h.Held(ctx); held || err != nil {
		t.Errorf("held though ModemManager was restarted: %v, %v", held, err)
	}
	if h, err = c.Inhibit(ctx, device); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := h.Release(ctx); err != nil {
			t.Error(err)
		}
	}
	want := []call{{"InhibitDevice", []any{device, true}}, {"InhibitDevice", []any{device, false}}}
	if diff := cmp.Diff(want, f.taken(), cmp.AllowUnexported(call{})); diff != "" {
		t.Errorf("calls (-want +got):\n%s", diff)
	}
	f.order("InhibitDevice", "org.freedesktop.DBus.Error.AccessDenied")
	begin := time.Now()
	if _, err := c.Inhibit(ctx, device); fault.Of(err).Code != "modemmanager-not-authorized" || time.Since(begin) > 5*time.Second {
		t.Errorf("not allowed: %v", err)
	}
	if h, err = c.Inhibit(ctx, device); err != nil {
		t.Fatal(err)
	}
	b.Down(t)
	if held, err := h.Held(ctx); held || err != nil {
		t.Errorf("held without a bus: %v, %v", held, err)
	}
	if err := h.Release(ctx); err != nil {
		t.Errorf("release of what was lost: %v", err)
	}
}

func TestSettings(t *testing.T) {
	b := bustest.Start(t)
	f := startFake(t, b)
	c := newClient(t, b)
	path := f.add("0", iccidA, 8, nil)
	m, err := c.Modem(t.Context(), "")
	if err != nil {
		t.Fatal(err)
	}
	apn := modem.APN{Name: "iot", Type: modem.IPv4v6, User: "u", Password: redact.NewSecret("p"), Auth: modem.AuthPAP}
	if err := c.SetInitialEPSBearer(t.Context(), m, apn); err != nil {
		t.Error(err)
	}
	if _, err := c.SetProfile(t.Context(), m, 1, modem.APN{Name: "x"}); err != nil {
		t.Error(err)
	}
	v := dbus.MakeVariant
	want := []call{
		{"SetInitialEpsBearerSettings", []any{properties{"apn": v("iot"), "ip-type": v(uint32(4)), "allowed-auth": v(uint32(2)), "user": v("u"), "password": v("p")}}},
		{"Set", []any{properties{"apn": v("x"), "allowed-auth": v(uint32(1)), "profile-id": v(int32(1))}}},
	}
	sameVariant := cmp.Comparer(func(a, b dbus.Variant) bool { return a.String() == b.String() && a.Signature() == b.Signature() })
	if diff := cmp.Diff(want, f.taken(), cmp.AllowUnexported(call{}), sameVariant); diff != "" {
		t.Errorf("calls (-want +got):\n%s", diff)
	}
	list, err := c.Profiles(t.Context(), m)
	if err != nil || len(list) != 1 || list[0].CID != 1 || list[0].APN.Name != "internet" || list[0].APN.Type != modem.IPv4v6 {
		t.Errorf("profiles %+v, %v", list, err)
	}
	if _, ok, err := c.InitialEPSBearer(t.Context(), m); ok || err != nil {
		t.Errorf("initial bearer where there is none: %v, %v", ok, err)
	}
	f.set(path, name+".Modem.Modem3gpp", "InitialEpsBearerSettings", properties{"apn": v("iot"), "allowed-auth": v(uint32(6)), "ip-type": v(uint32(1)), "user": v("u"), "password": v("p")})
	eps, ok, err := c.InitialEPSBearer(t.Context(), m)
	if diff := cmp.Diff(modem.APN{Name: "iot", Type: modem.IPv4, Auth: modem.AuthPAPOrCHAP, User: "u", Password: redact.NewSecret("p")}, eps, compare); diff != "" || !ok || err != nil {
		t.Errorf("initial bearer: %v, %v (-want +got):\n%s", ok, err, diff)
	}
	for method, do := range map[string]func() error{
		"SetInitialEpsBearerSettings": func() error { return c.SetInitialEPSBearer(t.Context(), m, apn) },
		"Set":                         func() error { _, err := c.SetProfile(t.Context(), m, 1, apn); return err },
	} {
		for _, refusal := range []string{core + "Unsupported", "org.freedesktop.DBus.Error.UnknownMethod"} {
			f.order(method, refusal)
			if err := do(); !errors.Is(err, systembus.ErrUnsupported) || fault.Of(err).Code != "modemmanager-unsupported" {
				t.Errorf("%s refused with %s: %v", method, refusal, err)
			}
		}
	}
	f.order("Enable", core+"WrongState")
	if err := c.Enable(t.Context(), m, true); !systembus.Transient(err) {
		t.Errorf("enable in a wrong state: %v", err)
	}
	if err := errors.Join(c.Enable(t.Context(), m, false), c.Reset(t.Context(), m)); err != nil {
		t.Error(err)
	}
}

// A modem that was plugged in elsewhere is found by its IMEI, also by a lpad
// that only knows it from a snapshot; another modem is not taken for it.
func TestModemElsewhere(t *testing.T) {
	b := bustest.Start(t)
	f := startFake(t, b)
	c := newClient(t, b)
	v := dbus.MakeVariant
	const imei, elsewhere = "356938035643809", device + "-2"
	path := f.add("0", iccidA, 8, properties{"EquipmentIdentifier": v(imei)})
	if m, err := c.Modem(t.Context(), device); err != nil || m.Path != path {
		t.Fatalf("%+v, %v", m, err)
	}
	f.remove(path)
	other := f.add("1", iccidA, 8, properties{"EquipmentIdentifier": v("356938035643800"), "Device": v(device + "-3")})
	if m, err := c.Modem(t.Context(), device); !errors.Is(err, mm.ErrNoModem) {
		t.Errorf("another modem was taken: %+v, %v", m, err)
	}
	moved := f.add("2", iccidB, 8, properties{"EquipmentIdentifier": v(imei), "Device": v(elsewhere)})
	again := newClient(t, b)
	again.Know(device, imei)
	for _, c := range []*mm.Client{c, again} {
		m, err := c.WaitSIM(t.Context(), device, iccidB, mm.StateDisabled)
		if err != nil || m.Path != moved || m.Device != elsewhere {
			t.Errorf("%+v, %v", m, err)
		}
	}
	if m, err := newClient(t, b).Modem(t.Context(), ""); err != nil || m.Path != other {
		t.Errorf("the first modem: %+v, %v", m, err)
	}
}

func TestConnect(t *testing.T) {
	b := bustest.Start(t)
	f := startFake(t, b)
	c := newClient(t, b)
	path := f.add("0", iccidA, 8, nil)
	f.export(path, name+".Modem.Simple")
	f.export(root+"/Bearer/1", name+".Bearer")
	v := dbus.MakeVariant
	f.mu.Lock()
	f.objects[root+"/Bearer/1"] = map[string]properties{name + ".Bearer": {"Connected": v(true), "Interface": v("wwan0"),
		"Ip4Config": v(properties{"method": v(uint32(2)), "address": v("10.1.1.2"), "prefix": v(uint32(24)), "gateway": v("10.1.1.1"), "mtu": v(uint32(1430))})}}
	f.mu.Unlock()
	m, err := c.Modem(t.Context(), device)
	if err != nil {
		t.Fatal(err)
	}
	no := false
	got, err := c.Connect(t.Context(), m, modem.APN{Name: "iot", Type: modem.IPv4, AllowRoaming: &no})
	if err != nil || got.Method != "static" || got.MTU != 1430 || len(got.Gateways) != 1 || !got.Connected || got.Link.Interface != "wwan0" {
		t.Errorf("%+v, %v", got, err)
	}
	if err := c.Disconnect(t.Context(), m); err != nil {
		t.Error(err)
	}
	want := []call{{"Connect", []any{properties{"apn": v("iot"), "ip-type": v(uint32(1)), "allowed-auth": v(uint32(1)), "allow-roaming": v(false)}}}, {"Disconnect", []any{dbus.ObjectPath("/")}}}
	sameVariant := cmp.Comparer(func(a, b dbus.Variant) bool { return a.String() == b.String() })
	if diff := cmp.Diff(want, f.taken(), cmp.AllowUnexported(call{}), sameVariant); diff != "" {
		t.Errorf("calls (-want +got):\n%s", diff)
	}
	const refused = name + ".Error.MobileEquipment.ServiceOptionNotSubscribed"
	f.order("Connect", refused)
	var e *systembus.Error
	if _, err := c.Connect(t.Context(), m, modem.APN{}); !errors.As(err, &e) || e.Name != refused || !errors.Is(err, systembus.ErrRefused) {
		t.Errorf("refused: %v", err)
	}
}

func TestBearers(t *testing.T) {
	b := bustest.Start(t)
	f := startFake(t, b)
	c := newClient(t, b)
	v := dbus.MakeVariant
	f.add("0", iccidA, 11, properties{"Bearers": v([]dbus.ObjectPath{"/gone", root + "/Bearer/1"})})
	f.export(root+"/Bearer/1", name+".Bearer")
	f.mu.Lock()
	f.objects[root+"/Bearer/1"] = map[string]properties{name + ".Bearer": {"Connected": v(true), "Interface": v("wwan0"), "Properties": v(properties{"apn": v("iot")}),
		"ConnectionError": v(struct{ Name, Text string }{name + ".Error.MobileEquipment.MissingOrUnknownApn", "Missing or unknown APN"}),
		"Ip4Config":       v(properties{"method": v(uint32(2)), "address": v("10.1.1.2"), "prefix": v(uint32(24)), "dns1": v("10.1.1.1"), "dns2": v("nonsense")}),
		"Ip6Config":       v(properties{"method": v(uint32(0))})}}
	f.mu.Unlock()
	m, err := c.Modem(t.Context(), device)
	if err != nil {
		t.Fatal(err)
	}
	got, err := c.Bearers(t.Context(), m)
	if err != nil {
		t.Fatal(err)
	}
	want := []mm.Bearer{{Path: root + "/Bearer/1", Connected: true, Method: "static", APN: modem.APN{Name: "iot"},
		Link: modem.Link{Interface: "wwan0", Addresses: []netip.Prefix{netip.MustParsePrefix("10.1.1.2/24")}, DNS: []netip.Addr{netip.MustParseAddr("10.1.1.1")}}}}
	if diff := cmp.Diff(want, got, compare); diff != "" {
		t.Errorf("bearers (-want +got):\n%s", diff)
	}
	for apn, want := range map[string]mm.Failure{"iot": {Name: "MissingOrUnknownApn", Text: "Missing or unknown APN"}, "other": {}} {
		if got, err := c.Failure(t.Context(), m, apn); err != nil || got != want {
			t.Errorf("failure of %q: %+v, %v", apn, got, err)
		}
	}
}

// A SIM that ModemManager shows without its ICCID is named by somebody else, if
// he knows it; one that it can name is not.
func TestNameSIMs(t *testing.T) {
	b := bustest.Start(t)
	f := startFake(t, b)
	c := newClient(t, b)
	f.add("0", iccidA, 8, nil)
	answer, asked := iccidB, 0
	c.NameSIMs(func(_ context.Context, m mm.Modem) string {
		asked++
		if m.SIM.IMSI != "001010123456789" {
			t.Errorf("asked for %+v", m.SIM)
		}
		return answer
	})
	for _, tc := range []struct{ shown, answer, want string }{{iccidA, iccidB, iccidA}, {"", iccidB, iccidB}, {"", "", ""}} {
		f.set(root+"/SIM/0", name+".Sim", "SimIdentifier", tc.shown)
		answer = tc.answer
		m, err := c.Modem(t.Context(), "")
		if err != nil || m.SIM.ICCID != tc.want {
			t.Errorf("shown %q, known elsewhere %q: %q, %v, want %q", tc.shown, tc.answer, m.SIM.ICCID, err, tc.want)
		}
	}
	if asked != 2 {
		t.Errorf("asked %d times, want 2", asked)
	}
}
