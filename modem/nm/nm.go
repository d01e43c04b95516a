// Package nm makes the few NetworkManager calls that lpad needs: the mobile
// (gsm) connections with all their settings, written down so that they can be
// put back exactly, a connection of lpad's own for each profile, and bringing
// one up on a certain modem.
//
//	client := nm.New(systembus.New(""))
//	old, err := client.Mobile(ctx)                        // settings and secrets
//	b, err := json.Marshal(old[0].Settings)               // for the journal
//	err = client.SetAutoconnect(ctx, old[0], false)
//	c, err := client.Put(ctx, nm.ForProfile(iccid, apn), nm.Blocked) // lpad-…, made from scratch
//	active, err := client.Up(ctx, c, mmModemPath)
//	link, err := client.Link(ctx, active)
//
// Objects belong to one run of NetworkManager: the next run gives their paths to
// others. So they are called by the run's own name on the bus, and calls fail
// as to a service that is absent once NetworkManager was restarted.
//
// Three things learned from NetworkManager 1.42 shape the use of it. It aborts
// when it is told to activate a connection on a modem on which another try is
// just failing, so [Client.Up] waits until none is. gsm.sim-id is no guard: it
// counts only once NetworkManager knows the SIM, and right after a modem has
// come back it does not. So connections of other profiles must not have
// autoconnect. And an update changes nothing on the line until the connection
// is activated again.
//
// Errors are those of internal/systembus, [*ActivationError], or the
// context's; all explain themselves as faults, with codes that begin with
// "networkmanager" or say what the network did.
package nm

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"sort"
	"strings"
	"sync"
	"time"

	"github.com/godbus/dbus/v5"

	"lpad/internal/fault"
	"lpad/internal/systembus"
	"lpad/modem"
)

// Names on the bus.
const (
	iface         = "org.freedesktop.NetworkManager"
	ifaceSettings = iface + ".Settings"
	ifaceSaved    = ifaceSettings + ".Connection"
	ifaceDevice   = iface + ".Device"
	ifaceActive   = iface + ".Connection.Active"
	ifaceIP4      = iface + ".IP4Config"
	ifaceIP6      = iface + ".IP6Config"
	root          = dbus.ObjectPath("/org/freedesktop/NetworkManager")
	rootSettings  = root + "/Settings"
	none          = dbus.ObjectPath("/")

	gsm            = "gsm"
	deviceModem    = 8 // NM_DEVICE_TYPE_MODEM
	maxConnections = 512
)

// Flags of Update2 and AddConnection2.
const (
	updateToDisk     = uint32(0x1)
	updateInMemory   = uint32(0x2)
	updateNoReapply  = uint32(0x40)
	addToDisk        = uint32(0x1)
	addInMemory      = uint32(0x2)
	blockAutoconnect = uint32(0x20) // of both
)

// Mode says how a connection is written.
type Mode uint8

// The modes may be added up.
const (
	OnDisk   Mode = 0 // to last
	InMemory Mode = 1 // till the next boot
	// Blocked keeps NetworkManager from activating the connection by itself
	// until somebody has activated it once, or NetworkManager is restarted.
	Blocked Mode = 2
)

// Flags of a saved connection.
const (
	flagUnsaved   = 0x1
	flagGenerated = 0x2
	flagVolatile  = 0x4
	flagExternal  = 0x8
)

// Service is NetworkManager on the bus.
var Service = systembus.Service{Name: "NetworkManager", Bus: iface, Code: "networkmanager"}

// Client talks to NetworkManager. Make one with [New]; it may be used from
// several goroutines.
type Client struct {
	bus *systembus.Bus
}

// New makes a client on the bus, which stays the caller's to close.
func New(bus *systembus.Bus) *Client { return &Client{bus} }

// Running reports whether NetworkManager is there.
func (c *Client) Running(ctx context.Context) (bool, error) { return c.bus.Running(ctx, Service) }

// instance is NetworkManager as it runs now: calls to it do not reach the next
// one, in which the same paths are other objects.
func (c *Client) instance(ctx context.Context) systembus.Service {
	now := Service
	if owner, err := c.bus.Owner(ctx, Service); err == nil { // else the call says what is wrong
		now.Bus = owner
	}
	return now
}

// ended reports that an object has gone. NetworkManager that dies with a
// question on its hands tells nothing about the object.
func ended(err error) bool {
	var e *systembus.Error
	return errors.Is(err, systembus.ErrGone) && (!errors.As(err, &e) || !strings.HasSuffix(e.Name, ".NoReply"))
}

// Connection is a saved connection.
type Connection struct {
	Path     dbus.ObjectPath // good until NetworkManager is restarted
	Settings Settings
	InMemory bool // not on disk, or on one that does not last (/run)
	of       run
}

// run is the NetworkManager that something was read from: whoever runs, if it
// was not read.
type run systembus.Service

func (r run) service() systembus.Service {
	if r.Bus == "" {
		return Service
	}
	return systembus.Service(r)
}

// UUID is what a connection is known by.
func (c Connection) UUID() string { return c.Settings.Text("connection", "uuid") }

// ID is the name for people.
func (c Connection) ID() string { return c.Settings.Text("connection", "id") }

// Mobile lists the gsm connections with all their settings and secrets,
// ordered by UUID. What NetworkManager itself generated for a moment is not
// among them, nor, unless we are root, what belongs to a user of the machine.
func (c *Client) Mobile(ctx context.Context) ([]Connection, error) {
	now := c.instance(ctx)
	var paths []dbus.ObjectPath
	if err := c.bus.Call(ctx, now, rootSettings, ifaceSettings+".ListConnections").Store(&paths); err != nil {
		return nil, fmt.Errorf("list connections: %w", err)
	}
	if len(paths) > maxConnections {
		return nil, fmt.Errorf("list connections: %d of them, at most %d", len(paths), maxConnections)
	}
	var out []Connection
	for _, path := range paths {
		con, ok, err := c.read(ctx, now, path)
		switch {
		case ended(err): // deleted meanwhile
		case err != nil:
			return nil, fmt.Errorf("read a connection: %w", err)
		case ok:
			out = append(out, con)
		}
	}
	sort.Slice(out, func(i, j int) bool { return out[i].UUID() < out[j].UUID() })
	return out, nil
}

// read reads one connection; ok is false if it is not a mobile one to keep.
func (c *Client) read(ctx context.Context, of systembus.Service, path dbus.ObjectPath) (con Connection, ok bool, err error) {
	con.Path, con.of = path, run(of)
	con.Settings, err = settingsOf(c.bus.Call(ctx, of, path, ifaceSaved+".GetSettings"))
	switch {
	case errors.Is(err, systembus.ErrDenied):
		return con, false, nil // it belongs to a user of the machine (connection.permissions), and we are not root
	case err != nil:
		return con, false, err
	}
	if con.Settings.Text("connection", "type") != gsm {
		return con, false, nil
	}
	if con.Settings, err = con.Settings.retyped(); err != nil {
		return con, false, err
	}
	p, err := c.bus.Properties(ctx, of, path, ifaceSaved)
	if err != nil {
		return con, false, err
	}
	if p.Int("Flags")&(flagGenerated|flagVolatile|flagExternal) != 0 {
		return con, false, nil
	}
	con.InMemory = p.Bool("Unsaved") || p.Int("Flags")&flagUnsaved != 0 || strings.HasPrefix(p.String("Filename"), "/run/")
	secrets, err := settingsOf(c.bus.Call(ctx, of, path, ifaceSaved+".GetSecrets", gsm))
	var answered *systembus.Error
	switch {
	case err == nil:
		for property, v := range secrets[gsm] {
			con.Settings = con.Settings.with(gsm, property, v.Value())
		}
	case errors.As(err, &answered) && errors.Is(err, systembus.ErrRefused):
		// "NoSecrets": it has none, or an agent of the user holds them.
	default:
		return con, false, err
	}
	return con, true, nil
}

func settingsOf(a systembus.Answer) (Settings, error) {
	body, err := a.Body()
	if err != nil {
		return nil, err
	}
	if len(body) == 1 {
		if s, ok := body[0].(map[string]map[string]dbus.Variant); ok {
			return s, nil
		}
	}
	return nil, errType
}

// update writes all settings of a connection, without applying them to a
// device on which it may be active.
func (c *Client) update(ctx context.Context, con Connection, s Settings, mode Mode) error {
	flags := updateToDisk | updateNoReapply
	if mode&InMemory != 0 {
		flags = updateInMemory | updateNoReapply
	}
	if mode&Blocked != 0 {
		flags |= blockAutoconnect
	}
	call := c.bus.Call(ctx, con.of.service(), con.Path, ifaceSaved+".Update2", s.wire(), flags, map[string]dbus.Variant{})
	if err := call.Err(); err != nil {
		return fmt.Errorf("update connection %s: %w", con.ID(), err)
	}
	return nil
}

// add makes a connection of the settings.
func (c *Client) add(ctx context.Context, s Settings, mode Mode) error {
	flags := addToDisk
	if mode&InMemory != 0 {
		flags = addInMemory
	}
	if mode&Blocked != 0 {
		flags |= blockAutoconnect
	}
	call := c.bus.Call(ctx, Service, rootSettings, ifaceSettings+".AddConnection2", s.wire(), flags, map[string]dbus.Variant{})
	if err := call.Err(); err != nil {
		return fmt.Errorf("add connection %s: %w", s.Text("connection", "id"), err)
	}
	return nil
}

// wire is what is sent. NetworkManager keeps the time of the last activation
// elsewhere and adds it when it is asked; given back, it would be written into
// the file.
func (s Settings) wire() map[string]map[string]dbus.Variant {
	return s.with("connection", timestamp, nil)
}

// SetAutoconnect lets NetworkManager activate the connection by itself, or
// forbids it, for good. Nothing is written if it is so already.
func (c *Client) SetAutoconnect(ctx context.Context, con Connection, on bool) error {
	if con.Settings.Autoconnect() == on {
		return nil
	}
	var value any // true is what NetworkManager leaves out
	if !on {
		value = false
	}
	mode := OnDisk
	if con.InMemory {
		mode = InMemory
	}
	return c.update(ctx, con, con.Settings.with("connection", "autoconnect", value), mode)
}

// Find returns the mobile connection with this UUID, or false.
func (c *Client) Find(ctx context.Context, uuid string) (Connection, bool, error) {
	all, err := c.Mobile(ctx)
	if err != nil {
		return Connection{}, false, err
	}
	i := slices.IndexFunc(all, func(con Connection) bool { return con.UUID() == uuid })
	if i < 0 {
		return Connection{}, false, nil
	}
	return all[i], true, nil
}

// Put makes the connection what the settings say: adds it if there is none of
// its UUID, replaces all settings of the one there is if they differ. It does
// not activate anything.
func (c *Client) Put(ctx context.Context, s Settings, mode Mode) (Connection, error) {
	uuid, id := s.Text("connection", "uuid"), s.Text("connection", "id")
	con, found, err := c.Find(ctx, uuid)
	switch {
	case err != nil:
		return Connection{}, err
	case found && con.Settings.Equal(s) && con.InMemory == (mode&InMemory != 0):
		return con, nil
	case found:
		err = c.update(ctx, con, s, mode)
	default:
		err = c.add(ctx, s, mode)
	}
	if err != nil {
		return Connection{}, err
	}
	con, found, err = c.Find(ctx, uuid)
	if err == nil && !found {
		err = fmt.Errorf("connection %s has gone as soon as it was written", id)
	}
	return con, err
}

// Delete deletes a connection; one that has gone already is no error.
func (c *Client) Delete(ctx context.Context, con Connection) error {
	err := c.bus.Call(ctx, con.of.service(), con.Path, ifaceSaved+".Delete").Err()
	if err != nil && !ended(err) {
		return fmt.Errorf("delete connection %s: %w", con.ID(), err)
	}
	return nil
}

// Device is a modem as NetworkManager sees it.
type Device struct {
	Path      dbus.ObjectPath
	Modem     string          // ModemManager's object path of the modem
	Control   string          // "ttyUSB0": what connection.interface-name is compared with
	Interface string          // "wwan0" while a connection is active
	Active    dbus.ObjectPath // empty: no connection is active
	State     uint32          // NMDeviceState; 30 disconnected, 100 activated
}

// Devices lists the modems.
func (c *Client) Devices(ctx context.Context) ([]Device, error) {
	now := c.instance(ctx)
	var paths []dbus.ObjectPath
	if err := c.bus.Call(ctx, now, root, iface+".GetDevices").Store(&paths); err != nil {
		return nil, fmt.Errorf("list devices: %w", err)
	}
	var out []Device
	for _, path := range paths {
		p, err := c.bus.Properties(ctx, now, path, ifaceDevice)
		if ended(err) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("read a device: %w", err)
		}
		if p.Int("DeviceType") == deviceModem {
			out = append(out, Device{Path: path, Modem: p.String("Udi"), Control: p.String("Interface"), Interface: p.String("IpInterface"),
				Active: p.Path("ActiveConnection"), State: uint32(p.Int("State"))})
		}
	}
	return out, nil
}

// States of a device and of an active connection.
const (
	stateDisconnected = 30
	stateActivated    = 100
	stateFailed       = 120
	activeActivating  = 1
	activeActivated   = 2
)

var errNoDevice = fault.New(fault.Fault{Code: "networkmanager-no-device", Text: "NetworkManager does not show the modem as usable", Retry: true,
	Who: fault.Configuration, Next: "see that NetworkManager manages the modem and that WWAN is on (nmcli device, nmcli radio wwan)"}, nil)

// Active is a connection that is up, or coming up or going down.
type Active struct {
	Path       dbus.ObjectPath
	UUID, ID   string
	Connection dbus.ObjectPath
	Device     dbus.ObjectPath // empty for a moment at the beginning
	State      uint32          // 1 activating, 2 activated, 3 deactivating, 4 deactivated
	ip4, ip6   dbus.ObjectPath
	of         run
}

// Activated reports whether it is up.
func (a Active) Activated() bool { return a.State == activeActivated }

// Pending reports whether it is coming up.
func (a Active) Pending() bool { return a.State == activeActivating }

// ActiveMobile lists the mobile connections that are active or becoming so.
func (c *Client) ActiveMobile(ctx context.Context) ([]Active, error) {
	now := c.instance(ctx)
	var paths []dbus.ObjectPath
	if err := c.bus.Property(ctx, now, root, iface, "ActiveConnections").Store(&paths); err != nil {
		return nil, fmt.Errorf("list active connections: %w", err)
	}
	var out []Active
	for _, path := range paths {
		p, err := c.bus.Properties(ctx, now, path, ifaceActive)
		if ended(err) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("read an active connection: %w", err)
		}
		if p.String("Type") != gsm {
			continue
		}
		a := Active{Path: path, UUID: p.String("Uuid"), ID: p.String("Id"), Connection: p.Path("Connection"), State: uint32(p.Int("State")),
			ip4: p.Path("Ip4Config"), ip6: p.Path("Ip6Config"), of: run(now)}
		if devices := p.Paths("Devices"); len(devices) > 0 {
			a.Device = devices[0]
		}
		out = append(out, a)
	}
	return out, nil
}

// cancelled is in what NetworkManager says when a device goes while it asks
// polkit about it, in the words of a refusal: "Authorization request cancelled".
const (
	cancelled = "request cancelled"
	gone      = "the modem has gone from NetworkManager"
)

// activate asks NetworkManager to bring the connection up on the device; it
// answers at once.
func (c *Client) activate(ctx context.Context, con Connection, d Device) error {
	err := c.bus.Call(ctx, con.of.service(), root, iface+".ActivateConnection", con.Path, d.Path, none).Err()
	if errors.Is(err, systembus.ErrDenied) && strings.Contains(err.Error(), cancelled) {
		return &ActivationError{ID: con.ID(), Reason: gone}
	}
	if err != nil {
		return fmt.Errorf("activate connection %s: %w", con.ID(), err)
	}
	return nil
}

// Deactivate takes a connection down; one that is down already is no error.
func (c *Client) Deactivate(ctx context.Context, a Active) error {
	err := c.bus.Call(ctx, a.of.service(), root, iface+".DeactivateConnection", a.Path).Err()
	if err != nil && !ended(err) {
		return fmt.Errorf("deactivate connection %s: %w", a.ID, err)
	}
	return nil
}

// ActivationError says that a connection did not come up, or went down again.
type ActivationError struct {
	ID     string // of the connection
	Reason string // NetworkManager's, in words; may be empty
}

// Error names the connection and the reason.
func (e *ActivationError) Error() string {
	if e.Reason == "" {
		return "connection " + e.ID + " is not active"
	}
	return "connection " + e.ID + " is not active: " + e.Reason
}

// Fault explains it.
func (e *ActivationError) Fault() fault.Fault {
	text := "the network's data connection did not come up"
	if e.Reason != "" {
		text += ": " + e.Reason
	}
	return fault.Fault{Code: "no-bearer", Text: text, Retry: true, Who: fault.Operator,
		Next: "check the APN, user name and password with the operator; look at the logs of NetworkManager and ModemManager"}
}

// busyLimit is how long [Client.Up] lets another connection come up or go down
// on the modem before it sends its order all the same.
const busyLimit = 30 * time.Second

// absentLimit is how long NetworkManager may take to show a modem that
// ModemManager shows. It never shows one whose object ModemManager has replaced,
// having died: whoever asked must find the new one.
const absentLimit = 8 * time.Second

// Up brings the connection up on the modem that ModemManager has under this
// object path, and waits until it is up. One that is coming up by itself is
// waited for. One that goes down again, or never comes, is an
// [*ActivationError] with the reason that NetworkManager has told. If ctx ends
// first its error tells what was waited for.
func (c *Client) Up(ctx context.Context, con Connection, modemPath string) (Active, error) {
	u := up{c: c, con: con, modem: modemPath, patience: time.Now().Add(busyLimit), absent: time.Now().Add(absentLimit), last: map[dbus.ObjectPath]uint32{}}
	if err := c.bus.Listen(ctx, []systembus.Service{Service}, u.heard, u.check); err != nil {
		return Active{}, fmt.Errorf("wait for the connection: %w", err)
	}
	return u.found, nil
}

// up is one call of [Client.Up].
type up struct {
	c        *Client
	con      Connection
	modem    string
	patience time.Time // until then other connections are waited for
	absent   time.Time // until then the modem is waited for
	found    Active
	coming   bool // it was ordered, or seen coming up
	over     bool // it is no longer there, and the reason may be on its way

	mu   sync.Mutex
	last map[dbus.ObjectPath]uint32 // guarded by mu; why a device left its connection
}

// heard takes the reason from a device's StateChanged (new, old, reason). The
// device's property tells it too, but only until it is ready for the next try.
func (u *up) heard(s *dbus.Signal) {
	if s.Name != ifaceDevice+".StateChanged" || len(s.Body) != 3 {
		return
	}
	state, ok := s.Body[0].(uint32)
	reason, ok2 := s.Body[2].(uint32)
	if !ok || !ok2 || reason <= unknownReason || state != stateFailed && state > stateDisconnected {
		return
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	u.last[s.Path] = reason
}

// check looks at the modem, and sends the order when it can be taken.
func (u *up) check(ctx context.Context) (done bool, reason error) {
	devices, err := u.c.Devices(ctx)
	if err != nil {
		return !systembus.Transient(err), err
	}
	i := slices.IndexFunc(devices, func(d Device) bool { return d.Modem == u.modem && d.State >= stateDisconnected })
	if i < 0 {
		if u.coming {
			return true, &ActivationError{ID: u.con.ID(), Reason: gone}
		}
		return time.Now().After(u.absent), errNoDevice
	}
	d := devices[i]
	all, err := u.c.ActiveMobile(ctx)
	if err != nil {
		return !systembus.Transient(err), err
	}
	there := false
	for _, a := range all {
		switch {
		case a.UUID != u.con.UUID() || a.Device != "" && a.Device != d.Path:
		case a.Activated() && a.Device == d.Path:
			u.found = a
			return true, nil
		case a.Pending() || a.Activated():
			u.coming, there = true, true
		}
	}
	switch {
	case there:
		return false, &ActivationError{ID: u.con.ID(), Reason: "still coming up"}
	case u.coming:
		return u.ended(d)
	case d.State != stateDisconnected && d.State != stateActivated && time.Now().Before(u.patience):
		return false, &ActivationError{ID: u.con.ID(), Reason: "NetworkManager is busy with another connection"}
	}
	if err := u.c.activate(ctx, u.con, d); err != nil {
		return true, err
	}
	u.coming = true
	return false, &ActivationError{ID: u.con.ID(), Reason: "still coming up"}
}

// ended explains that the connection is down again. A signal may come after the
// answers that were sent after it: it has until the next look.
func (u *up) ended(d Device) (bool, error) {
	u.mu.Lock()
	n, told := u.last[d.Path]
	u.mu.Unlock()
	if !told && !u.over {
		u.over = true
		return false, &ActivationError{ID: u.con.ID()}
	}
	e := &ActivationError{ID: u.con.ID()}
	if n < uint32(len(stateReasons)) {
		e.Reason = stateReasons[n]
	}
	if told && e.Reason == "" {
		e.Reason = fmt.Sprintf("NetworkManager's reason %d", n)
	}
	return true, e
}

// unknownReason and what is below it are the reasons "none" and "unknown".
const unknownReason = 1

// stateReasons are the reasons of NMDeviceStateReason that modems give.
var stateReasons = [...]string{
	5: "no IP configuration could be got", 6: "the IP configuration has expired", 7: "secrets were required and not given",
	12: "PPP failed", 13: "PPP disconnected", 14: "PPP could not be started", 24: "the modem could not be initialised",
	25: "the APN was refused", 26: "the network search was not running", 27: "the network denied the registration",
	28: "the registration took too long", 29: "the registration failed", 30: "the SIM's PIN check failed", 36: "no modem was found",
	37: "the modem could not be dialled", 39: "the user disconnected it", 57: "ModemManager is not available",
	54: "the modem now belongs to another connection", 44: "no SIM", 45: "the SIM asks for its PIN", 46: "the SIM asks for its PUK",
	47: "wrong SIM", 52: "the modem failed", 53: "the modem is no longer managed",
}

// Link reads interface, addresses and resolvers of an active connection.
func (c *Client) Link(ctx context.Context, a Active) (modem.Link, error) {
	d, err := c.bus.Properties(ctx, a.of.service(), a.Device, ifaceDevice)
	if err != nil {
		return modem.Link{}, fmt.Errorf("read the link: %w", err)
	}
	link := modem.Link{Interface: d.String("IpInterface")}
	for _, family := range []struct {
		path  dbus.ObjectPath
		iface string
	}{{a.ip4, ifaceIP4}, {a.ip6, ifaceIP6}} {
		if family.path == "" {
			continue
		}
		p, err := c.bus.Properties(ctx, a.of.service(), family.path, family.iface)
		if err != nil {
			return modem.Link{}, fmt.Errorf("read the addresses: %w", err)
		}
		addresses, dns := parseIPConfig(p)
		link.Addresses, link.DNS = append(link.Addresses, addresses...), append(link.DNS, dns...)
	}
	return link, nil
}

func parseIPConfig(p systembus.Properties) (addresses []netip.Prefix, dns []netip.Addr) {
	if list, ok := p["AddressData"].Value().([]map[string]dbus.Variant); ok {
		for _, entry := range list {
			e := systembus.Properties(entry)
			a, err := netip.ParseAddr(e.String("address"))
			if err != nil {
				continue
			}
			if prefix := netip.PrefixFrom(a, int(e.Int("prefix"))); prefix.IsValid() {
				addresses = append(addresses, prefix)
			}
		}
	}
	if list, ok := p["NameserverData"].Value().([]map[string]dbus.Variant); ok { // IPv4, since NetworkManager 1.14
		for _, entry := range list {
			if a, err := netip.ParseAddr(systembus.Properties(entry).String("address")); err == nil {
				dns = append(dns, a)
			}
		}
	}
	if list, ok := p["Nameservers"].Value().([][]byte); ok { // IPv6: 16 bytes each
		for _, raw := range list {
			if a, ok := netip.AddrFromSlice(raw); ok {
				dns = append(dns, a)
			}
		}
	}
	return addresses, dns
}
