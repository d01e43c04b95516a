package packaging_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/godbus/dbus/v5"

	"lpad/internal/systembus"
	"lpad/modem/mm"
	"lpad/modem/nm"
)

// callerVariable makes the test program a caller on the bus of a device: "lpad"
// does what lpad does, "forbidden" what it never does, "stranger" both, and
// "actions" asks polkit what it may; "connections" lists them as lpad does.
const callerVariable = "LPAD_PACKAGING_CALLER"

// answer is what became of a call.
type answer struct {
	Call string // interface and member
	Kind string // "done", "denied", "unsupported", "other"
	Text string // of the error
}

const (
	mmIface = "org.freedesktop.ModemManager1"
	nmIface = "org.freedesktop.NetworkManager"
	mmRoot  = dbus.ObjectPath("/org/freedesktop/ModemManager1")
	nmRoot  = dbus.ObjectPath("/org/freedesktop/NetworkManager")
	saved   = nmIface + ".Settings.Connection"
	objects = "org.freedesktop.DBus.ObjectManager.GetManagedObjects"
	nowhere = dbus.ObjectPath("/")
	// firstSaved is the connection that a stack begins with.
	firstSaved = nmRoot + "/Settings/1"
	uuid       = "2f9fd2a5-4cc3-4a3e-b2b6-6cfb2b2c8f10"
	apn        = "old.example" // lab.OldOperator's
)

// conversation is the caller's.
type conversation struct {
	ctx     context.Context
	bus     *systembus.Bus
	mm      *mm.Client
	answers []answer
}

// caller is the program: it prints its answers.
func caller(who string) int {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	bus := systembus.New("")
	defer bus.Close()
	c := &conversation{ctx: ctx, bus: bus, mm: mm.New(bus)}
	var err error
	switch who {
	case "lpad":
		err = c.work()
	case "forbidden":
		err = c.overreach()
	case "stranger":
		err = c.trespass()
	case "actions":
		err = c.actions()
	case "connections":
		err = c.connections()
	default:
		err = errors.New("who is " + who + "?")
	}
	if err = errors.Join(err, json.NewEncoder(os.Stdout).Encode(c.answers)); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

// call makes a call and keeps what came of it.
func (c *conversation) call(to systembus.Service, path dbus.ObjectPath, method string, args ...any) systembus.Answer {
	got := c.bus.Call(c.ctx, to, path, method, args...)
	a := answer{Call: method, Kind: "done"}
	if err := got.Err(); err != nil {
		a.Text = err.Error()
		switch {
		case errors.Is(err, systembus.ErrDenied):
			a.Kind = "denied"
		case errors.Is(err, systembus.ErrUnsupported):
			a.Kind = "unsupported"
		case strings.Contains(a.Text, mmIface+".Error.MobileEquipment"): // the modem itself was asked, and cannot
			a.Kind = "unsupported"
		case errors.Is(err, context.DeadlineExceeded):
			a.Kind = "unanswered"
		default:
			a.Kind = "other"
		}
	}
	c.answers = append(c.answers, a)
	return got
}

// modem waits until ModemManager shows the modem with its SIM.
func (c *conversation) modem(atLeast mm.State) (mm.Modem, error) {
	return c.mm.WaitSIM(c.ctx, "", "", atLeast)
}

func variants(p map[string]any) map[string]dbus.Variant {
	out := map[string]dbus.Variant{}
	for k, v := range p {
		out[k] = dbus.MakeVariant(v)
	}
	return out
}

func connection(apn string) map[string]map[string]dbus.Variant {
	return map[string]map[string]dbus.Variant{
		"connection": variants(map[string]any{"id": "by lpad", "uuid": uuid, "type": "gsm", "autoconnect": false}),
		"gsm":        variants(map[string]any{"apn": apn, "password": "secret"}),
		"ipv4":       variants(map[string]any{"method": "auto"}),
		"ipv6":       variants(map[string]any{"method": "ignore"}),
	}
}

// work is every call that lpad makes, where all of them can be done.
func (c *conversation) work() error {
	m, err := c.modem(mm.StateDisabled)
	if err != nil {
		return err
	}
	c.call(mm.Service, mmRoot, objects)
	c.call(mm.Service, mmRoot, properties+"Get", mmIface, "Version")
	c.call(mm.Service, m.Path, properties+"GetAll", mmIface+".Modem")
	c.call(mm.Service, m.Path, mmIface+".Modem.Enable", false)
	if m, err = c.modem(mm.StateDisabled); err != nil {
		return err
	}
	c.call(mm.Service, m.Path, mmIface+".Modem.Enable", true)
	if m, err = c.modem(mm.StateRegistered); err != nil {
		return err
	}
	c.call(mm.Service, m.Path, mmIface+".Modem.Modem3gpp.ProfileManager.List")
	profile := map[string]dbus.Variant{}
	if body, err := c.call(mm.Service, m.Path, mmIface+".Modem.Modem3gpp.ProfileManager.Set", variants(map[string]any{"apn": "spare.example"})).Body(); err == nil && len(body) == 1 {
		stored, _ := body[0].(map[string]dbus.Variant)
		profile["profile-id"] = stored["profile-id"]
	}
	c.call(mm.Service, m.Path, mmIface+".Modem.Modem3gpp.ProfileManager.Delete", profile)
	c.call(mm.Service, m.Path, mmIface+".Modem.Modem3gpp.SetInitialEpsBearerSettings", variants(map[string]any{"apn": apn}))
	c.call(mm.Service, m.Path, mmIface+".Modem.Simple.Connect", variants(map[string]any{"apn": apn}))
	c.call(mm.Service, m.Path, mmIface+".Modem.Simple.Disconnect", nowhere)

	// InhibitDevice counts as long as the connection to the bus that asked for it.
	c.call(mm.Service, mmRoot, mmIface+".InhibitDevice", m.Device, true)
	c.call(mm.Service, mmRoot, mmIface+".InhibitDevice", m.Device, false)
	if m, err = c.modem(mm.StateDisabled); err != nil {
		return err
	}

	c.call(nm.Service, nmRoot, properties+"Get", nmIface, "ActiveConnections")
	c.call(nm.Service, nmRoot, nmIface+".GetDevices")
	c.call(nm.Service, nmRoot+"/Settings", nmIface+".Settings.ListConnections")
	body, err := c.call(nm.Service, nmRoot+"/Settings", nmIface+".Settings.AddConnection2", connection("wrong.example"), uint32(1), variants(nil)).Body()
	if err != nil || len(body) == 0 {
		return fmt.Errorf("a new connection: %v, %w", body, err)
	}
	path, _ := body[0].(dbus.ObjectPath)
	c.call(nm.Service, path, properties+"GetAll", saved)
	c.call(nm.Service, path, saved+".Update2", connection(apn), uint32(1), variants(nil))
	c.call(nm.Service, path, saved+".GetSettings")
	if secrets, err := c.call(nm.Service, path, saved+".GetSecrets", "gsm").Body(); err == nil {
		s, _ := secrets[0].(map[string]map[string]dbus.Variant)
		if s["gsm"]["password"].Value() != "secret" {
			return fmt.Errorf("the secrets are %v", s)
		}
	}
	device, err := c.device(m)
	if err != nil {
		return err
	}
	body, err = c.call(nm.Service, nmRoot, nmIface+".ActivateConnection", path, device, nowhere).Body()
	if err != nil {
		return err
	}
	active, _ := body[0].(dbus.ObjectPath)
	if err := c.activated(); err != nil {
		return err
	}
	c.call(nm.Service, nmRoot, nmIface+".DeactivateConnection", active)
	c.call(nm.Service, path, saved+".Delete")

	if m, err = c.modem(mm.StateDisabled); err != nil {
		return err
	}
	c.call(mm.Service, m.Path, mmIface+".Modem.Reset")
	if m, err = c.modem(mm.StateDisabled); err != nil {
		return err
	}
	return c.radio(m)
}

// radio makes the calls that set the radio.
func (c *conversation) radio(m mm.Modem) error {
	p, err := c.bus.Properties(c.ctx, mm.Service, m.Path, mmIface+".Modem")
	if err != nil {
		return err
	}
	type modes struct{ Allowed, Preferred uint32 }
	type network struct {
		PLMN   string
		Access uint32
	}
	const anyBand = 256 // MM_MODEM_BAND_ANY
	c.call(mm.Service, p.Path("Sim"), mmIface+".Sim.SetPreferredNetworks", []network{{"00101", 1 << 14}})
	c.call(mm.Service, m.Path, mmIface+".Modem.SetCurrentModes", modes{Allowed: 8})
	// ModemManager 1.20 begins this one and never ends it with the modem of the lab.
	// Who may not is told at once.
	whole := c.ctx
	ctx, cancel := context.WithTimeout(whole, time.Second)
	defer cancel()
	c.ctx = ctx
	c.call(mm.Service, m.Path, mmIface+".Modem.SetCurrentBands", []uint32{anyBand})
	c.ctx = whole
	return nil
}

// device waits for the modem in NetworkManager.
func (c *conversation) device(m mm.Modem) (path dbus.ObjectPath, err error) {
	const disconnected = 30 // NMDeviceState
	err = c.bus.Wait(c.ctx, []systembus.Service{nm.Service}, func(ctx context.Context) (bool, error) {
		all, err := nm.New(c.bus).Devices(ctx)
		for _, d := range all {
			if d.Modem == string(m.Path) && d.State >= disconnected {
				path = d.Path
			}
		}
		return path != "" || err != nil, err
	})
	return path, err
}

// activated waits until the connection is up.
func (c *conversation) activated() error {
	return c.bus.Wait(c.ctx, []systembus.Service{nm.Service}, func(ctx context.Context) (bool, error) {
		all, err := nm.New(c.bus).ActiveMobile(ctx)
		for _, a := range all {
			if a.UUID == uuid && a.Activated() {
				return true, nil
			}
		}
		return err != nil, err
	})
}

// overreach is what lpad never does, of what the bus or polkit keeps from users.
func (c *conversation) overreach() error {
	m, err := c.modem(mm.StateDisabled)
	if err != nil {
		return err
	}
	c.call(mm.Service, mmRoot, mmIface+".ReportKernelEvent", variants(map[string]any{"action": "remove", "subsystem": "tty", "name": "ttyUSB0"}))
	c.call(mm.Service, m.Path, mmIface+".Modem.Location.GetLocation")
	c.call(nm.Service, nmRoot, nmIface+".Sleep", true)
	c.call(nm.Service, nmRoot, nmIface+".Enable", false)
	c.call(nm.Service, nmRoot, nmIface+".Reload", uint32(0))
	c.call(nm.Service, nmRoot, nmIface+".CheckpointCreate", []dbus.ObjectPath{}, uint32(1), uint32(0))
	c.call(nm.Service, nmRoot+"/Settings", nmIface+".Settings.SaveHostname", "other")
	c.call(nm.Service, nmRoot+"/Settings", nmIface+".Settings.ReloadConnections")
	return nil
}

// trespass is all of it that changes something or tells a secret, by somebody
// who may do none of it.
func (c *conversation) trespass() error {
	m, err := c.modem(mm.StateDisabled)
	if err != nil {
		return err
	}
	c.call(mm.Service, m.Path, mmIface+".Modem.Enable", false)
	c.call(mm.Service, m.Path, mmIface+".Modem.Reset")
	c.call(mm.Service, m.Path, mmIface+".Modem.Modem3gpp.ProfileManager.List")
	c.call(mm.Service, m.Path, mmIface+".Modem.Modem3gpp.ProfileManager.Set", variants(map[string]any{"apn": "spare.example"}))
	c.call(mm.Service, m.Path, mmIface+".Modem.Modem3gpp.ProfileManager.Delete", variants(map[string]any{"profile-id": int32(1)}))
	if err := c.radio(m); err != nil {
		return err
	}
	c.call(mm.Service, m.Path, mmIface+".Modem.Modem3gpp.SetInitialEpsBearerSettings", variants(map[string]any{"apn": apn}))
	c.call(mm.Service, m.Path, mmIface+".Modem.Simple.Connect", variants(map[string]any{"apn": apn}))
	c.call(mm.Service, m.Path, mmIface+".Modem.Simple.Disconnect", nowhere)
	c.call(mm.Service, mmRoot, mmIface+".InhibitDevice", m.Device, true)
	c.call(nm.Service, nmRoot+"/Settings", nmIface+".Settings.AddConnection2", connection(apn), uint32(1), variants(nil))
	c.call(nm.Service, firstSaved, saved+".Update2", connection(apn), uint32(1), variants(nil))
	c.call(nm.Service, firstSaved, saved+".GetSecrets", "gsm")
	c.call(nm.Service, firstSaved, saved+".Delete")
	device, err := c.device(m)
	if err != nil {
		return err
	}
	c.call(nm.Service, nmRoot, nmIface+".ActivateConnection", firstSaved, device, nowhere)
	return c.overreach()
}

// actions asks polkit for every action that is declared whether the caller may
// do it: "done" or "denied".
func (c *conversation) actions() error {
	conn, err := dbus.ConnectSystemBus()
	if err != nil {
		return err
	}
	defer conn.Close()
	type action struct {
		ID, Description, Message, Vendor, VendorURL, Icon string
		Any, Inactive, Active                             uint32
		Annotations                                       map[string]string
	}
	var declared []action
	const iface = "org.freedesktop.PolicyKit1.Authority"
	authority := conn.Object("org.freedesktop.PolicyKit1", "/org/freedesktop/PolicyKit1/Authority")
	if err := authority.CallWithContext(c.ctx, iface+".EnumerateActions", 0, "").Store(&declared); err != nil {
		return err
	}
	type subject struct {
		Kind    string
		Details map[string]dbus.Variant
	}
	me := subject{"system-bus-name", variants(map[string]any{"name": conn.Names()[0]})}
	for _, a := range declared {
		var result struct {
			May, Challenge bool
			Details        map[string]string
		}
		if err := authority.CallWithContext(c.ctx, iface+".CheckAuthorization", 0, me, a.ID, map[string]string{}, uint32(0), "").Store(&result); err != nil {
			return fmt.Errorf("%s: %w", a.ID, err)
		}
		kind := "denied"
		if result.May {
			kind = "done"
		}
		c.answers = append(c.answers, answer{Call: a.ID, Kind: kind})
	}
	return nil
}

// connections lists the mobile connections that lpad sees.
func (c *conversation) connections() error {
	all, err := nm.New(c.bus).Mobile(c.ctx)
	for _, con := range all {
		c.answers = append(c.answers, answer{Call: con.ID(), Kind: "done"})
	}
	return err
}
