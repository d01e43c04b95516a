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
//	dev, err := client.WaitDevice(ctx, mmModemPath)
//	active, err := client.Activate(ctx, c, dev)
//	active, err = client.WaitActive(ctx, c.UUID(), dev)
//	link, err := client.Link(ctx, active)
//
// Two things learned from NetworkManager 1.42 shape the use of it. gsm.sim-id
// is no guard: it counts only once NetworkManager knows the SIM, and right
// after a modem has come back it does not. So connections of other profiles
// must not have autoconnect. And an update changes nothing on the line until
// the connection is activated again.
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

// Connection is a saved connection.
type Connection struct {
	Path     dbus.ObjectPath // good until NetworkManager is restarted
	Settings Settings
	InMemory bool // not on disk, or on one that does not last (/run)
}

// UUID is what a connection is known by.
func (c Connection) UUID() string { return c.Settings.Text("connection", "uuid") }

// ID is the name for people.
func (c Connection) ID() string { return c.Settings.Text("connection", "id") }

// Mobile lists the gsm connections with all their settings and secrets,
// ordered by UUID. What NetworkManager itself generated for a moment is not
// among them.
func (c *Client) Mobile(ctx context.Context) ([]Connection, error) {
	var paths []dbus.ObjectPath
	if err := c.bus.Call(ctx, Service, rootSettings, ifaceSettings+".ListConnections").Store(&paths); err != nil {
		return nil, fmt.Errorf("list connections: %w", err)
	}
	if len(paths) > maxConnections {
		return nil, fmt.Errorf("list connections: %d of them, at most %d", len(paths), maxConnections)
	}
	var out []Connection
	for _, path := range paths {
		con, ok, err := c.read(ctx, path)
		switch {
		case errors.Is(err, systembus.ErrGone): // deleted meanwhile
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
func (c *Client) read(ctx context.Context, path dbus.ObjectPath) (con Connection, ok bool, err error) {
	con.Path = path
	if con.Settings, err = settingsOf(c.bus.Call(ctx, Service, path, ifaceSaved+".GetSettings")); err != nil {
		return con, false, err
	}
	if con.Settings.Text("connection", "type") != gsm {
		return con, false, nil
	}
	if con.Settings, err = con.Settings.retyped(); err != nil {
		return con, false, err
	}
	p, err := c.bus.Properties(ctx, Service, path, ifaceSaved)
	if err != nil {
		return con, false, err
	}
	if p.Int("Flags")&(flagGenerated|flagVolatile|flagExternal) != 0 {
		return con, false, nil
	}
	con.InMemory = p.Bool("Unsaved") || p.Int("Flags")&flagUnsaved != 0 || strings.HasPrefix(p.String("Filename"), "/run/")
	secrets, err := settingsOf(c.bus.Call(ctx, Service, path, ifaceSaved+".GetSecrets", gsm))
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
	call := c.bus.Call(ctx, Service, con.Path, ifaceSaved+".Update2", s.wire(), flags, map[string]dbus.Variant{})
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
	err := c.bus.Call(ctx, Service, con.Path, ifaceSaved+".Delete").Err()
	if err != nil && !errors.Is(err, systembus.ErrGone) {
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
	var paths []dbus.ObjectPath
	if err := c.bus.Call(ctx, Service, root, iface+".GetDevices").Store(&paths); err != nil {
		return nil, fmt.Errorf("list devices: %w", err)
	}
	var out []Device
	for _, path := range paths {
		p, err := c.bus.Properties(ctx, Service, path, ifaceDevice)
		if errors.Is(err, systembus.ErrGone) {
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

// WaitDevice waits until NetworkManager shows the modem that ModemManager has
// under this object path and could activate a connection on it.
func (c *Client) WaitDevice(ctx context.Context, modemPath string) (Device, error) {
	var found Device
	err := c.bus.Wait(ctx, []systembus.Service{Service}, func(ctx context.Context) (bool, error) {
		all, err := c.Devices(ctx)
		if err != nil {
			return !systembus.Transient(err), err
		}
		for _, d := range all {
			if d.Modem == modemPath && d.State >= stateDisconnected {
				found = d
				return true, nil
			}
		}
		return false, errNoDevice
	})
	if err != nil {
		return Device{}, fmt.Errorf("wait for the modem in NetworkManager: %w", err)
	}
	return found, nil
}

// States of a device and of an active connection.
const (
	stateDisconnected = 30
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
}

// Activated reports whether it is up.
func (a Active) Activated() bool { return a.State == activeActivated }

// Pending reports whether it is coming up.
func (a Active) Pending() bool { return a.State == activeActivating }

// ActiveMobile lists the mobile connections that are active or becoming so.
func (c *Client) ActiveMobile(ctx context.Context) ([]Active, error) {
	var paths []dbus.ObjectPath
	if err := c.bus.Property(ctx, Service, root, iface, "ActiveConnections").Store(&paths); err != nil {
		return nil, fmt.Errorf("list active connections: %w", err)
	}
	var out []Active
	for _, path := range paths {
		p, err := c.bus.Properties(ctx, Service, path, ifaceActive)
		if errors.Is(err, systembus.ErrGone) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("read an active connection: %w", err)
		}
		if p.String("Type") != gsm {
			continue
		}
		a := Active{Path: path, UUID: p.String("Uuid"), ID: p.String("Id"), Connection: p.Path("Connection"), State: uint32(p.Int("State")),
			ip4: p.Path("Ip4Config"), ip6: p.Path("Ip6Config")}
		if devices := p.Paths("Devices"); len(devices) > 0 {
			a.Device = devices[0]
		}
		out = append(out, a)
	}
	return out, nil
}

// Activate asks NetworkManager to bring the connection up on the device. It
// returns at once; see [Client.WaitActive].
func (c *Client) Activate(ctx context.Context, con Connection, d Device) (Active, error) {
	a := Active{UUID: con.UUID(), ID: con.ID(), Connection: con.Path, Device: d.Path, State: activeActivating}
	if err := c.bus.Call(ctx, Service, root, iface+".ActivateConnection", con.Path, d.Path, none).Store(&a.Path); err != nil {
		return Active{}, fmt.Errorf("activate connection %s: %w", con.ID(), err)
	}
	return a, nil
}

// Deactivate takes a connection down; one that is down already is no error.
func (c *Client) Deactivate(ctx context.Context, a Active) error {
	err := c.bus.Call(ctx, Service, root, iface+".DeactivateConnection", a.Path).Err()
	if err != nil && !errors.Is(err, systembus.ErrGone) {
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

// WaitActive waits until the connection with this UUID is up on the device.
// That it is down is an [*ActivationError] at once if it was seen coming up,
// and the reason in the error of ctx if it never was.
func (c *Client) WaitActive(ctx context.Context, uuid string, d Device) (Active, error) {
	var found Active
	seen, id := false, uuid
	err := c.bus.Wait(ctx, []systembus.Service{Service}, func(ctx context.Context) (bool, error) {
		all, err := c.ActiveMobile(ctx)
		if err != nil {
			return !systembus.Transient(err), err
		}
		for _, a := range all {
			if a.UUID != uuid || a.Device != "" && a.Device != d.Path {
				continue
			}
			switch {
			case a.Activated() && a.Device == d.Path:
				found = a
				return true, nil
			case a.Pending() || a.Activated():
				seen, id = true, a.ID
				return false, &ActivationError{ID: id, Reason: "still coming up"}
			}
		}
		if seen {
			return true, &ActivationError{ID: id, Reason: c.whyNot(ctx, d)}
		}
		return false, &ActivationError{ID: id}
	})
	if err != nil {
		return Active{}, fmt.Errorf("wait for the connection: %w", err)
	}
	return found, nil
}

// whyNot reads why the device changed its state last, "" if NetworkManager does
// not say: a device that is ready for the next try gives no reason for that.
func (c *Client) whyNot(ctx context.Context, d Device) string {
	p, err := c.bus.Properties(ctx, Service, d.Path, ifaceDevice)
	if err != nil {
		return "the modem has gone from NetworkManager"
	}
	reason, ok := p["StateReason"].Value().([]any)
	if !ok || len(reason) != 2 {
		return ""
	}
	n, ok := reason[1].(uint32)
	if !ok || n <= unknownReason {
		return ""
	}
	if text := stateReasons[n]; text != "" {
		return text
	}
	return fmt.Sprintf("NetworkManager's reason %d", n)
}

// unknownReason and what is below it are the reasons "none" and "unknown".
const unknownReason = 1

// stateReasons are the reasons of NMDeviceStateReason that modems give.
var stateReasons = map[uint32]string{
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
	d, err := c.bus.Properties(ctx, Service, a.Device, ifaceDevice)
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
		p, err := c.bus.Properties(ctx, Service, family.path, family.iface)
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
