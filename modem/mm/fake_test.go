package mm_test

import (
	"sync"
	"testing"

	"github.com/godbus/dbus/v5"

	"lpad/internal/systembus"
	"lpad/internal/systembus/bustest"
	"lpad/modem/mm"
)

const (
	name      = "org.freedesktop.ModemManager1"
	root      = dbus.ObjectPath("/org/freedesktop/ModemManager1")
	device    = "/sys/devices/usb1/1-1"
	iccidA    = "8933010000000000001"
	iccidB    = "89440200000000000022"
	core      = name + ".Error.Core."
	stdProps  = "org.freedesktop.DBus.Properties"
	stdObject = "org.freedesktop.DBus.ObjectManager"
)

type properties = map[string]dbus.Variant

// fake plays ModemManager on a real bus.
type fake struct {
	t    *testing.T
	conn *dbus.Conn

	mu      sync.Mutex
	objects map[dbus.ObjectPath]map[string]properties // all, managed and not
	calls   []call
	refuse  map[string][]string // method: D-Bus errors to answer with, one a call
}

type call struct {
	method string
	args   []any
}

// object is one path; godbus calls its methods.
type object struct {
	f    *fake
	path dbus.ObjectPath
}

func startFake(t *testing.T, b *bustest.Bus) *fake {
	t.Helper()
	f := &fake{t: t, conn: b.Dial(t), objects: map[dbus.ObjectPath]map[string]properties{}, refuse: map[string][]string{}}
	f.export(root, stdObject, name)
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

func (f *fake) emit(path dbus.ObjectPath, signal string, args ...any) {
	f.t.Helper()
	if err := f.conn.Emit(path, signal, args...); err != nil {
		f.t.Error(err)
	}
}

// add shows a modem with its SIM, as ModemManager does when it has probed one.
func (f *fake) add(n string, iccid string, state int32, more properties) dbus.ObjectPath {
	f.t.Helper()
	path, sim := root+"/Modem/"+dbus.ObjectPath(n), root+"/SIM/"+dbus.ObjectPath(n)
	p := properties{"Device": dbus.MakeVariant(device), "State": dbus.MakeVariant(state), "Sim": dbus.MakeVariant(sim)}
	if iccid == "" {
		p["Sim"] = dbus.MakeVariant(dbus.ObjectPath("/"))
	}
	for k, v := range more {
		p[k] = v
	}
	f.export(path, name+".Modem", name+".Modem.Modem3gpp", name+".Modem.Modem3gpp.ProfileManager")
	f.export(sim, name+".Sim")
	f.mu.Lock()
	f.objects[path] = map[string]properties{name + ".Modem": p, name + ".Modem.Modem3gpp": {}}
	f.objects[sim] = map[string]properties{name + ".Sim": {"SimIdentifier": dbus.MakeVariant(iccid), "Imsi": dbus.MakeVariant("001010123456789"),
		"OperatorIdentifier": dbus.MakeVariant("00101"), "OperatorName": dbus.MakeVariant("TestOne"), "Gid1": dbus.MakeVariant([]byte{0xA1, 0xFF})}}
	f.mu.Unlock()
	f.emit(root, stdObject+".InterfacesAdded", path, map[string]properties{name + ".Modem": p})
	return path
}

func (f *fake) remove(path dbus.ObjectPath) {
	f.t.Helper()
	f.mu.Lock()
	delete(f.objects, path)
	f.mu.Unlock()
	f.emit(root, stdObject+".InterfacesRemoved", path, []string{name + ".Modem"})
}

func (f *fake) set(path dbus.ObjectPath, iface, property string, value any) {
	f.t.Helper()
	v := dbus.MakeVariant(value)
	f.mu.Lock()
	f.objects[path][iface][property] = v
	f.mu.Unlock()
	f.emit(path, stdProps+".PropertiesChanged", iface, properties{property: v}, []string{})
}

// called notes a call and returns the error that was ordered for it.
func (o *object) called(method string, args ...any) *dbus.Error {
	o.f.mu.Lock()
	defer o.f.mu.Unlock()
	o.f.calls = append(o.f.calls, call{method, args})
	if list := o.f.refuse[method]; len(list) > 0 {
		o.f.refuse[method] = list[1:]
		if list[0] != "" {
			return dbus.NewError(list[0], []any{"ordered by the test"})
		}
	}
	return nil
}

// order makes the next calls of a method fail with these errors.
func (f *fake) order(method string, errors ...string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.refuse[method] = errors
}

func (f *fake) taken() []call {
	f.mu.Lock()
	defer f.mu.Unlock()
	return append([]call(nil), f.calls...)
}

func (o *object) GetManagedObjects() (map[dbus.ObjectPath]map[string]properties, *dbus.Error) {
	o.f.mu.Lock()
	defer o.f.mu.Unlock()
	out := map[dbus.ObjectPath]map[string]properties{}
	for path, ifaces := range o.f.objects {
		if _, modem := ifaces[name+".Modem"]; modem {
			copied := map[string]properties{}
			for i, p := range ifaces {
				copied[i] = properties{}
				for k, v := range p {
					copied[i][k] = v
				}
			}
			out[path] = copied
		}
	}
	return out, nil
}

func (o *object) GetAll(iface string) (properties, *dbus.Error) {
	o.f.mu.Lock()
	defer o.f.mu.Unlock()
	p, ok := o.f.objects[o.path][iface]
	if !ok {
		return nil, dbus.NewError("org.freedesktop.DBus.Error.UnknownMethod", []any{"no such object"})
	}
	out := properties{}
	for k, v := range p {
		out[k] = v
	}
	return out, nil
}

func (o *object) InhibitDevice(uid string, on bool) *dbus.Error {
	return o.called("InhibitDevice", uid, on)
}

func (o *object) Enable(on bool) *dbus.Error { return o.called("Enable", on) }
func (o *object) Reset() *dbus.Error         { return o.called("Reset") }

func (o *object) SetInitialEpsBearerSettings(p properties) *dbus.Error {
	return o.called("SetInitialEpsBearerSettings", p)
}

func (o *object) Set(p properties) (properties, *dbus.Error) { return p, o.called("Set", p) }

func (o *object) Connect(p properties) (dbus.ObjectPath, *dbus.Error) {
	return root + "/Bearer/1", o.called("Connect", p)
}

func (o *object) Disconnect(path dbus.ObjectPath) *dbus.Error { return o.called("Disconnect", path) }

func (o *object) List() ([]properties, *dbus.Error) {
	return []properties{{"profile-id": dbus.MakeVariant(int32(1)), "apn": dbus.MakeVariant("internet"), "ip-type": dbus.MakeVariant(uint32(4))}}, o.called("List")
}

func newClient(t *testing.T, b *bustest.Bus) *mm.Client {
	t.Helper()
	bus := systembus.New(b.Address)
	t.Cleanup(func() {
		if err := bus.Close(); err != nil {
			t.Error(err)
		}
	})
	return mm.New(bus)
}
