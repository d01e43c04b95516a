package nm_test

import (
	"context"
	"errors"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/godbus/dbus/v5"
	"github.com/google/go-cmp/cmp"

	"lpad/internal/fault"
	"lpad/internal/systembus"
	"lpad/internal/systembus/bustest"
	"lpad/modem"
	"lpad/modem/nm"
)

const (
	name     = "org.freedesktop.NetworkManager"
	root     = dbus.ObjectPath("/org/freedesktop/NetworkManager")
	stdProps = "org.freedesktop.DBus.Properties"
	saved    = name + ".Settings.Connection"
	noSecret = name + ".AgentManager.NoSecrets"
	denied   = name + ".PermissionDenied"
)

type properties = map[string]dbus.Variant
type settings = map[string]map[string]dbus.Variant

// fake plays NetworkManager on a real bus.
type fake struct {
	t    *testing.T
	conn *dbus.Conn

	mu          sync.Mutex
	objects     map[dbus.ObjectPath]map[string]properties
	connections map[dbus.ObjectPath]settings
	secrets     map[dbus.ObjectPath]settings
	flags       []uint32                   // of Update2 and AddConnection2
	read        map[dbus.ObjectPath]func() // done once when the object has been read
	wg          sync.WaitGroup
	refuse      string
	activated   func(con, device dbus.ObjectPath) dbus.ObjectPath
}

type object struct {
	f    *fake
	path dbus.ObjectPath
}

func startFake(t *testing.T, b *bustest.Bus) *fake {
	t.Helper()
	f := &fake{t: t, conn: b.Dial(t), objects: map[dbus.ObjectPath]map[string]properties{root: {name: {"ActiveConnections": dbus.MakeVariant([]dbus.ObjectPath{})}}},
		connections: map[dbus.ObjectPath]settings{}, secrets: map[dbus.ObjectPath]settings{}, read: map[dbus.ObjectPath]func(){}}
	t.Cleanup(f.wg.Wait)
	f.export(root, name)
	f.export(root+"/Settings", name+".Settings")
	b.Own(t, f.conn, name)
	return f
}

func (f *fake) export(path dbus.ObjectPath, ifaces ...string) {
	f.t.Helper()
	for _, i := range append(ifaces, stdProps) {
		if err := f.conn.Export(&object{f, path}, path, i); err != nil {
			f.t.Fatal(err)
		}
	}
}

func (f *fake) object(path dbus.ObjectPath, iface string, p properties) {
	f.t.Helper()
	f.export(path, iface)
	f.mu.Lock()
	f.objects[path] = map[string]properties{iface: p}
	f.mu.Unlock()
}

func (f *fake) set(path dbus.ObjectPath, iface, property string, value any) {
	f.t.Helper()
	f.mu.Lock()
	f.objects[path][iface][property] = dbus.MakeVariant(value)
	f.mu.Unlock()
	if err := f.conn.Emit(path, stdProps+".PropertiesChanged", iface, properties{}, []string{property}); err != nil {
		f.t.Error(err)
	}
}

func (f *fake) order(refusal string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.refuse = refusal
}

// once does something when the object is read next.
func (f *fake) once(path dbus.ObjectPath, then func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.read[path] = then
}

func (f *fake) written() []uint32 {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.flags)
}

// add saves a connection.
func (f *fake) add(n string, s settings, secrets settings, p properties) dbus.ObjectPath {
	f.t.Helper()
	path := root + "/Settings/" + dbus.ObjectPath(n)
	f.object(path, saved, p)
	f.mu.Lock()
	f.connections[path], f.secrets[path] = s, secrets
	f.mu.Unlock()
	return path
}

func (o *object) refused() *dbus.Error {
	if o.f.refuse != "" {
		return dbus.NewError(o.f.refuse, []any{"ordered by the test"})
	}
	return nil
}

var gone = dbus.NewError("org.freedesktop.DBus.Error.UnknownMethod", []any{"no such object"})

func (o *object) Get(iface, property string) (dbus.Variant, *dbus.Error) {
	p, err := o.GetAll(iface)
	return p[property], err
}

func (o *object) GetAll(iface string) (properties, *dbus.Error) {
	o.f.mu.Lock()
	defer o.f.mu.Unlock()
	if then := o.f.read[o.path]; then != nil {
		delete(o.f.read, o.path)
		o.f.wg.Go(then)
	}
	p, ok := o.f.objects[o.path][iface]
	if !ok {
		return nil, gone
	}
	out := properties{}
	for k, v := range p {
		out[k] = v
	}
	return out, nil
}

func (o *object) ListConnections() ([]dbus.ObjectPath, *dbus.Error) {
	o.f.mu.Lock()
	defer o.f.mu.Unlock()
	out := []dbus.ObjectPath{root + "/Settings/gone"}
	for path := range o.f.connections {
		out = append(out, path)
	}
	return out, o.refused()
}

func (o *object) GetSettings() (settings, *dbus.Error) {
	o.f.mu.Lock()
	defer o.f.mu.Unlock()
	s, ok := o.f.connections[o.path]
	if !ok {
		return nil, gone
	}
	return s, nil
}

func (o *object) GetSecrets(string) (settings, *dbus.Error) {
	o.f.mu.Lock()
	defer o.f.mu.Unlock()
	if s := o.f.secrets[o.path]; s != nil {
		return s, nil
	}
	return nil, dbus.NewError(noSecret, []any{"none"})
}

func (o *object) Update2(s settings, flags uint32, _ properties) (properties, *dbus.Error) {
	o.f.mu.Lock()
	defer o.f.mu.Unlock()
	if err := o.refused(); err != nil {
		return nil, err
	}
	o.f.connections[o.path], o.f.flags = s, append(o.f.flags, flags)
	return nil, nil
}

func (o *object) AddConnection2(s settings, flags uint32, _ properties) (dbus.ObjectPath, properties, *dbus.Error) {
	o.f.mu.Lock()
	err := o.refused()
	o.f.flags = append(o.f.flags, flags)
	o.f.mu.Unlock()
	if err != nil {
		return "/", nil, err
	}
	return o.f.add("new", s, nil, properties{}), nil, nil
}

func (o *object) Delete() *dbus.Error {
	o.f.mu.Lock()
	defer o.f.mu.Unlock()
	if _, ok := o.f.connections[o.path]; !ok {
		return gone
	}
	delete(o.f.connections, o.path)
	return o.refused()
}

func (o *object) GetDevices() ([]dbus.ObjectPath, *dbus.Error) {
	return []dbus.ObjectPath{root + "/Devices/gone", root + "/Devices/1", root + "/Devices/2"}, nil
}

func (o *object) ActivateConnection(con, device, _ dbus.ObjectPath) (dbus.ObjectPath, *dbus.Error) {
	o.f.mu.Lock()
	err, activated := o.refused(), o.f.activated
	o.f.mu.Unlock()
	if err != nil {
		return "/", err
	}
	return activated(con, device), nil
}

func (o *object) DeactivateConnection(dbus.ObjectPath) *dbus.Error {
	return dbus.NewError(name+".ConnectionNotActive", []any{"down already"})
}

func newClient(t *testing.T, b *bustest.Bus) *nm.Client {
	t.Helper()
	bus := systembus.New(b.Address)
	t.Cleanup(func() {
		if err := bus.Close(); err != nil {
			t.Error(err)
		}
	})
	return nm.New(bus)
}

func gsmSettings(uuid string) settings {
	v := dbus.MakeVariant
	return settings{"connection": {"id": v("id-" + uuid), "uuid": v(uuid), "type": v("gsm"), "timestamp": v(uint64(7))}, "gsm": {"apn": v("a")}}
}

func TestConnections(t *testing.T) {
	b := bustest.Start(t)
	c := newClient(t, b)
	ctx := t.Context()
	if _, err := c.Mobile(ctx); fault.Of(err).Code != "networkmanager-absent" {
		t.Errorf("without NetworkManager: %v", err)
	}
	f := startFake(t, b)
	v := dbus.MakeVariant
	f.add("1", gsmSettings("b"), settings{"gsm": {"password": v("secret")}}, properties{"Filename": v("/etc/x")})
	run := f.add("2", gsmSettings("a"), nil, properties{"Filename": v("/run/NetworkManager/x")})
	f.add("3", settings{"connection": {"type": v("802-3-ethernet"), "uuid": v("e")}}, nil, properties{})
	f.add("4", gsmSettings("external"), nil, properties{"Flags": v(uint32(8))})

	all, err := c.Mobile(ctx)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, con := range all {
		got = append(got, con.UUID())
	}
	if !slices.Equal(got, []string{"a", "b"}) || !all[0].InMemory || all[1].InMemory || all[1].Settings.Text("gsm", "password") != "secret" {
		t.Fatalf("connections %v: %+v", got, all)
	}
	if err := c.SetAutoconnect(ctx, all[0], true); err != nil || len(f.written()) > 0 {
		t.Errorf("set what is so already: %v, written %v", err, f.written())
	}
	for _, con := range all {
		if err := c.SetAutoconnect(ctx, con, false); err != nil {
			t.Error(err)
		}
	}
	f.mu.Lock()
	_, stamped := f.connections[run]["connection"]["timestamp"]
	if f.connections[run]["connection"]["autoconnect"].Value() != false || stamped || !slices.Equal(f.flags, []uint32{0x42, 0x41}) {
		t.Errorf("written %v with flags %x", f.connections[run], f.flags)
	}
	f.flags = nil
	f.mu.Unlock()

	con, err := c.Put(ctx, nm.ForProfile("89440200000000000022", modem.APN{Name: "x"}), nm.Blocked)
	if err != nil || con.UUID() != nm.UUID("89440200000000000022") {
		t.Fatalf("put: %+v, %v", con, err)
	}
	if _, err := c.Put(ctx, con.Settings, nm.Blocked); err != nil {
		t.Error(err)
	}
	if _, err := c.Put(ctx, nm.ForProfile("89440200000000000022", modem.APN{Name: "y"}), nm.InMemory); err != nil {
		t.Error(err)
	}
	f.mu.Lock()
	if !slices.Equal(f.flags, []uint32{0x21, 0x42}) {
		t.Errorf("flags %x: added blocked, then nothing, then updated in memory", f.flags)
	}
	f.mu.Unlock()
	for range 2 {
		if err := c.Delete(ctx, con); err != nil {
			t.Error(err)
		}
	}
	f.order(denied)
	if err := c.SetAutoconnect(ctx, all[0], false); fault.Of(err).Code != "networkmanager-not-authorized" {
		t.Errorf("not allowed: %v", err)
	}
	if _, err := c.Put(ctx, nm.ForProfile("89440200000000000023", modem.APN{}), nm.OnDisk); !errors.Is(err, systembus.ErrDenied) {
		t.Errorf("add, not allowed: %v", err)
	}
}

// device shows two devices, of which the second is a modem.
func (f *fake) device(state uint32) dbus.ObjectPath {
	v := dbus.MakeVariant
	f.object(root+"/Devices/1", name+".Device", properties{"DeviceType": v(uint32(1))})
	f.object(root+"/Devices/2", name+".Device", properties{"DeviceType": v(uint32(8)), "Udi": v("/mm/0"), "Interface": v("ttyUSB0"), "IpInterface": v("wwan0"),
		"State": v(state), "ActiveConnection": v(dbus.ObjectPath("/"))})
	return root + "/Devices/2"
}

func TestActivation(t *testing.T) {
	b := bustest.Start(t)
	f := startFake(t, b)
	c := newClient(t, b)
	v := dbus.MakeVariant
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	path := f.device(20)
	conPath := f.add("1", gsmSettings("u"), nil, properties{})
	con := nm.Connection{Path: conPath, Settings: gsmSettings("u")}
	short, stop := context.WithTimeout(ctx, 50*time.Millisecond)
	defer stop()
	if _, err := c.Up(short, con, "/mm/0"); fault.Of(err).Code != "networkmanager-no-device" {
		t.Errorf("an unavailable device: %v", err)
	}
	if all, err := c.Devices(ctx); err != nil || len(all) != 1 || all[0].Path != path || all[0].Control != "ttyUSB0" || all[0].Active != "" {
		t.Fatalf("devices %+v, %v", all, err)
	}
	active := root + "/ActiveConnection/1"
	ap := func(state uint32) properties {
		return properties{"Type": v("gsm"), "Uuid": v("u"), "Id": v("id-u"), "Connection": v(conPath), "State": v(state), "Devices": v([]dbus.ObjectPath{path}),
			"Ip4Config": v(root + "/IP4Config/1"), "Ip6Config": v(root + "/IP6Config/1")}
	}
	f.object(root+"/IP4Config/1", name+".IP4Config", properties{"AddressData": v([]properties{{"address": v("10.1.1.2"), "prefix": v(uint32(24))}, {"address": v("no")}}),
		"NameserverData": v([]properties{{"address": v("10.1.1.1")}})})
	f.object(root+"/IP6Config/1", name+".IP6Config", properties{"AddressData": v([]properties{{"address": v("2001:db8::2"), "prefix": v(uint32(64))}}),
		"Nameservers": v([][]byte{netip.MustParseAddr("2001:db8::1").AsSlice(), {1}})})
	f.mu.Lock()
	f.activated = func(gotCon, gotDevice dbus.ObjectPath) dbus.ObjectPath {
		if gotCon != conPath || gotDevice != path {
			t.Errorf("activate %s on %s", gotCon, gotDevice)
		}
		f.object(active, name+".Connection.Active", ap(1))
		f.set(root, name, "ActiveConnections", []dbus.ObjectPath{root + "/ActiveConnection/gone", active})
		return active
	}
	f.mu.Unlock()
	// Another connection is just failing on it: no order before that is over.
	f.set(path, name+".Device", "State", uint32(120))
	f.once(path, func() { f.set(path, name+".Device", "State", uint32(110)) })
	f.once(active, func() { f.set(active, name+".Connection.Active", "State", uint32(2)) })
	ready := false
	time.AfterFunc(100*time.Millisecond, func() {
		f.mu.Lock()
		ready = true
		f.mu.Unlock()
		f.set(path, name+".Device", "State", uint32(30))
	})
	f.mu.Lock()
	order := f.activated
	f.activated = func(gotCon, gotDevice dbus.ObjectPath) dbus.ObjectPath {
		f.mu.Lock()
		if !ready {
			t.Error("it was ordered while another try was failing")
		}
		f.mu.Unlock()
		return order(gotCon, gotDevice)
	}
	f.mu.Unlock()
	a, err := c.Up(ctx, con, "/mm/0")
	if err != nil || !a.Activated() || a.Pending() {
		t.Fatalf("active %+v, %v", a, err)
	}
	link, err := c.Link(ctx, a)
	if err != nil {
		t.Fatal(err)
	}
	want := modem.Link{Interface: "wwan0", Addresses: []netip.Prefix{netip.MustParsePrefix("10.1.1.2/24"), netip.MustParsePrefix("2001:db8::2/64")},
		DNS: []netip.Addr{netip.MustParseAddr("10.1.1.1"), netip.MustParseAddr("2001:db8::1")}}
	if diff := cmp.Diff(want, link, cmp.Comparer(func(a, b netip.Prefix) bool { return a == b }), cmp.Comparer(func(a, b netip.Addr) bool { return a == b })); diff != "" {
		t.Errorf("link (-want +got):\n%s", diff)
	}
	if err := c.Deactivate(ctx, a); err != nil {
		t.Errorf("take down what is down: %v", err)
	}

	t.Run("it comes up and goes down", func(t *testing.T) {
		for reason, want := range map[uint32]string{25: "the APN was refused", 99: "NetworkManager's reason 99", 1: "", 0: ""} {
			f.set(root, name, "ActiveConnections", []dbus.ObjectPath{})
			f.once(active, func() {
				// As NetworkManager does it: by the time anybody asks, it is ready for the next.
				f.set(root, name, "ActiveConnections", []dbus.ObjectPath{})
				for _, change := range [][3]uint32{{120, 40, reason}, {30, 120, 0}} {
					if err := f.conn.Emit(path, name+".Device.StateChanged", change[0], change[1], change[2]); err != nil {
						t.Error(err)
					}
				}
			})
			_, err := c.Up(ctx, con, "/mm/0")
			var ae *nm.ActivationError
			if !errors.As(err, &ae) || ae.Reason != want || fault.Of(err).Code != "no-bearer" {
				t.Errorf("reason %d: got %v", reason, err)
			}
			if text := fault.Of(err).Text; !strings.HasSuffix(text, want) || !strings.Contains(text, "did not come up") {
				t.Errorf("reason %d is explained with %q", reason, text)
			}
		}
	})
	t.Run("the modem goes meanwhile", func(t *testing.T) {
		f.once(active, func() { f.set(path, name+".Device", "Udi", "/mm/1") })
		_, err := c.Up(ctx, con, "/mm/0")
		f.set(path, name+".Device", "Udi", "/mm/0")
		var ae *nm.ActivationError
		if !errors.As(err, &ae) || !strings.Contains(ae.Reason, "modem has gone") {
			t.Errorf("got %v", err)
		}
	})
	t.Run("it never comes up", func(t *testing.T) {
		short, stop := context.WithTimeout(ctx, 50*time.Millisecond)
		defer stop()
		if _, err := c.Up(short, con, "/mm/0"); !errors.Is(err, context.DeadlineExceeded) || fault.Of(err).Code != "no-bearer" {
			t.Errorf("got %v", err)
		}
	})
	t.Run("refused", func(t *testing.T) {
		f.set(root, name, "ActiveConnections", []dbus.ObjectPath{})
		f.order(name + ".UnknownDevice")
		if _, err := c.Up(ctx, con, "/mm/0"); !systembus.Transient(err) {
			t.Errorf("got %v", err)
		}
	})
}

// What was read from one run of NetworkManager is not asked of the next, in
// which the same path is another connection.
func TestNetworkManagerRestarts(t *testing.T) {
	b := bustest.Start(t)
	first := startFake(t, b)
	c := newClient(t, b)
	path := first.add("1", gsmSettings("u"), nil, properties{})
	con, found, err := c.Find(t.Context(), "u")
	if err != nil || !found || con.Path != path {
		t.Fatalf("connection %+v, %v", con, err)
	}
	if err := first.conn.Close(); err != nil {
		t.Fatal(err)
	}
	second := startFake(t, b)
	if second.add("1", gsmSettings("other"), nil, properties{}) != path {
		t.Fatal("the paths are not the same: this is not the case to be tested")
	}
	for what, err := range map[string]error{"delete": c.Delete(t.Context(), con), "update": c.SetAutoconnect(t.Context(), con, false), "keep": c.Keep(t.Context(), con)} {
		if !systembus.Transient(err) || fault.Of(err).Code != "networkmanager-absent" {
			t.Errorf("%s: %v", what, err)
		}
	}
	if all, err := c.Mobile(t.Context()); err != nil || len(all) != 1 || all[0].UUID() != "other" || !all[0].Settings.Autoconnect() {
		t.Errorf("connections %+v, %v", all, err)
	}
}
