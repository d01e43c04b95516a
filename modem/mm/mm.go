// Package mm makes the few ModemManager calls that lpad needs: find a modem and
// the SIM it shows, hold it aside, wait for it to come back with another SIM,
// and write its initial bearer and its list of contexts.
//
//	bus := systembus.New("")
//	client := mm.New(bus)
//	m, err := client.Modem(ctx, "")                      // the first modem
//	hold, err := client.Inhibit(ctx, m.Device)           // ModemManager lets go of it
//	…                                                    // AT commands and APDUs on the freed port
//	err = hold.Release(ctx)
//	m, err = client.WaitSIM(ctx, m.Device, iccid, mm.StateDisabled)
//
// A modem is known by its Device property ("/sys/devices/…"), never by its
// object path: ModemManager makes a new object after every re-probe.
//
// Errors are those of internal/systembus (the service is absent, forbids,
// cannot, is silent), [ErrNoModem], or the context's; all explain themselves
// as faults, with codes that begin with "modemmanager" or "modem".
//
// Facts used here were found with ModemManager 1.20.4 and its published
// interface description; a property that an older or newer one lacks reads as
// its zero value.
package mm

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sort"
	"strconv"
	"strings"
	"sync"

	"github.com/godbus/dbus/v5"

	"lpad/internal/fault"
	"lpad/internal/redact"
	"lpad/internal/systembus"
	"lpad/modem"
)

// Names on the bus.
const (
	iface         = "org.freedesktop.ModemManager1"
	ifaceModem    = iface + ".Modem"
	iface3GPP     = ifaceModem + ".Modem3gpp"
	ifaceProfiles = iface3GPP + ".ProfileManager"
	ifaceSIM      = iface + ".Sim"
	ifaceBearer   = iface + ".Bearer"
	objectManager = "org.freedesktop.DBus.ObjectManager.GetManagedObjects"
	root          = dbus.ObjectPath("/org/freedesktop/ModemManager1")
	maxModems     = 64 // more on one device is nonsense from the bus
	portNet       = 2
	portAT        = 3
	portIgnored   = 9
	authNone      = 1
	authPAP       = 2
	authCHAP      = 4
	ipTypeIPv4    = 1
	ipTypeIPv6    = 2
	ipTypeIPv4v6  = 4
)

// Service is ModemManager on the bus.
var Service = systembus.Service{Name: "ModemManager", Bus: iface, Code: "modemmanager"}

// ErrNoModem says that ModemManager shows no modem, or not the one asked for.
// It is a [fault.Explainer].
var ErrNoModem = fault.New(fault.Fault{Code: "modem-absent", Text: "ModemManager shows no such modem", Retry: true, Who: fault.Technician,
	Next: "look at the modem's power, cable and driver (mmcli -L); wait if it has just been reset"}, nil)

// State is how far ModemManager has brought a modem up. States are ordered.
type State int32

// The states of a modem (MMModemState).
const (
	StateFailed        State = -1
	StateUnknown       State = 0
	StateInitializing  State = 1
	StateLocked        State = 2
	StateDisabled      State = 3
	StateDisabling     State = 4
	StateEnabling      State = 5
	StateEnabled       State = 6
	StateSearching     State = 7
	StateRegistered    State = 8
	StateDisconnecting State = 9
	StateConnecting    State = 10
	StateConnected     State = 11
)

var stateNames = []string{"failed", "unknown", "initializing", "locked", "disabled", "disabling", "enabling", "enabled", "searching",
	"registered", "disconnecting", "connecting", "connected"}

// String is ModemManager's own word for the state.
func (s State) String() string {
	if i := int(s) + 1; i >= 0 && i < len(stateNames) {
		return stateNames[i]
	}
	return "state " + strconv.Itoa(int(s))
}

// failedReasons are MMModemStateFailedReason in words.
var failedReasons = []string{"", "unknown", "sim-missing", "sim-error", "unknown-capabilities", "esim-without-profiles"}

// Modem is what ModemManager shows of a modem at one moment.
type Modem struct {
	Path             dbus.ObjectPath // good until the next re-probe only
	Device           string          // what the modem is known by: "/sys/devices/…", or what ID_MM_PHYSDEV_UID says
	DeviceIdentifier string          // ModemManager's hash of the modem's identity
	Identity         modem.Identity
	State            State
	FailedReason     string // with StateFailed: "sim-missing", "esim-without-profiles" …
	PrimaryPort      string // "ttyUSB0"
	ATPorts          []string
	NetPorts         []string
	OtherPorts       []string  // that ModemManager uses for something else
	SIM              modem.SIM // zero if ModemManager has no SIM to show
	Registration     modem.Registration
	Bearers          []dbus.ObjectPath
}

// Client talks to ModemManager. Make one with [New]; it may be used from
// several goroutines.
type Client struct {
	bus *systembus.Bus

	mu   sync.Mutex
	imei map[string]string                   // guarded by mu; of the modems that were seen, by Device
	ask  func(context.Context, Modem) string // guarded by mu; see NameSIMs
}

// New makes a client on the bus, which stays the caller's to close.
func New(bus *systembus.Bus) *Client { return &Client{bus: bus, imei: map[string]string{}} }

// Know says by which IMEI a modem can be found that is no longer known by this
// Device: it was plugged in elsewhere. What has been seen is known already.
func (c *Client) Know(device, imei string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if device == "" || imei == "" || len(c.imei) > maxModems {
		return
	}
	if _, seen := c.imei[device]; !seen {
		c.imei[device] = imei
	}
}

func (c *Client) imeiOf(device string) string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.imei[device]
}

// NameSIMs gives a second source of the ICCID, for a modem whose SIM ModemManager
// shows without one: on some modems it cannot read that file. It is asked each
// time, with what ModemManager does show of the SIM, and says nothing when it
// does not know, or cannot be sure that it is the same SIM.
func (c *Client) NameSIMs(ask func(context.Context, Modem) string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.ask = ask
}

// name completes the SIM of a modem.
func (c *Client) name(ctx context.Context, m *Modem) {
	c.mu.Lock()
	ask := c.ask
	c.mu.Unlock()
	if ask != nil && m.SIM.ICCID == "" {
		m.SIM.ICCID = ask(ctx, *m)
	}
}

// Running reports whether ModemManager is there.
func (c *Client) Running(ctx context.Context) (bool, error) { return c.bus.Running(ctx, Service) }

// Modems lists the modems that ModemManager shows, in the order of their
// appearance.
func (c *Client) Modems(ctx context.Context) ([]Modem, error) {
	var objects map[dbus.ObjectPath]map[string]map[string]dbus.Variant
	if err := c.bus.Call(ctx, Service, root, objectManager).Store(&objects); err != nil {
		return nil, fmt.Errorf("list modems: %w", err)
	}
	var out []Modem
	for path, ifaces := range objects {
		p, ok := ifaces[ifaceModem]
		if !ok || len(out) == maxModems {
			continue
		}
		m := parseModem(path, p, ifaces[iface3GPP])
		if sim := systembus.Properties(p).Path("Sim"); sim != "" {
			// The SIM is an object of its own and not among the managed ones.
			// It goes with its modem, maybe just now.
			sp, err := c.bus.Properties(ctx, Service, sim, ifaceSIM)
			switch {
			case err == nil:
				m.SIM = parseSIM(sp)
				c.name(ctx, &m)
			case !errors.Is(err, systembus.ErrGone):
				return nil, fmt.Errorf("read the SIM of a modem: %w", err)
			}
		}
		out = append(out, m)
	}
	sort.Slice(out, func(i, j int) bool { return number(out[i].Path) < number(out[j].Path) })
	return out, nil
}

// number is the number at the end of an object path; ModemManager counts up.
func number(path dbus.ObjectPath) int {
	s := string(path)
	n, err := strconv.Atoi(s[strings.LastIndexByte(s, '/')+1:])
	if err != nil {
		return 0
	}
	return n
}

func parseModem(path dbus.ObjectPath, mp, gp systembus.Properties) Modem {
	m := Modem{
		Path: path, Device: mp.String("Device"), DeviceIdentifier: mp.String("DeviceIdentifier"),
		Identity: modem.Identity{Manufacturer: mp.String("Manufacturer"), Model: mp.String("Model"), Revision: mp.String("Revision"),
			IMEI: mp.String("EquipmentIdentifier")},
		State: State(mp.Int("State")), PrimaryPort: mp.String("PrimaryPort"), Bearers: mp.Paths("Bearers"),
	}
	if r := mp.Int("StateFailedReason"); m.State == StateFailed && r >= 0 && int(r) < len(failedReasons) {
		m.FailedReason = failedReasons[r]
	}
	for _, port := range portsOf(mp["Ports"]) {
		switch port.kind {
		case portAT:
			m.ATPorts = append(m.ATPorts, port.name)
		case portNet:
			m.NetPorts = append(m.NetPorts, port.name)
		case portIgnored:
		default:
			m.OtherPorts = append(m.OtherPorts, port.name)
		}
	}
	m.Registration = modem.Registration{State: modem.RegistrationUnknown, PLMN: gp.String("OperatorCode"), Operator: gp.String("OperatorName"),
		Access: accessTechnology(mp.Int("AccessTechnologies"))}
	if _, ok := gp["RegistrationState"]; ok {
		m.Registration.State = registrationState(gp.Int("RegistrationState"))
	}
	return m
}

// Uses reports whether ModemManager uses a serial port of one of these names.
func (m Modem) Uses(names ...string) bool {
	return slices.ContainsFunc(names, func(n string) bool { return slices.Contains(m.ATPorts, n) || slices.Contains(m.OtherPorts, n) })
}

type port struct {
	name string
	kind uint32 // MMModemPortType
}

func portsOf(v dbus.Variant) []port {
	raw, ok := v.Value().([][]any)
	if !ok {
		return nil
	}
	var out []port
	for _, e := range raw {
		if len(e) != 2 {
			continue
		}
		name, isString := e[0].(string)
		kind, isNumber := e[1].(uint32)
		if isString && isNumber {
			out = append(out, port{name, kind})
		}
	}
	return out
}

func parseSIM(p systembus.Properties) modem.SIM {
	return modem.SIM{ICCID: p.String("SimIdentifier"), IMSI: p.String("Imsi"), PLMN: p.String("OperatorIdentifier"),
		GID1: gid(p["Gid1"]), SPN: p.String("OperatorName")}
}

// gid writes a group identifier in hexadecimal; one that is all FF is unset.
func gid(v dbus.Variant) string {
	b, ok := v.Value().([]byte)
	if !ok || len(b) == 0 || !slices.ContainsFunc(b, func(x byte) bool { return x != 0xFF }) {
		return ""
	}
	return fmt.Sprintf("%X", b)
}

// registrationState sorts MMModem3gppRegistrationState; those for SMS only and
// without CSFB serve data as far as we care.
func registrationState(n int64) modem.RegistrationState {
	switch n {
	case 0:
		return modem.NotRegistered
	case 1, 6, 9:
		return modem.RegisteredHome
	case 2:
		return modem.Searching
	case 3:
		return modem.Denied
	case 5, 7, 10:
		return modem.RegisteredRoaming
	}
	return modem.RegistrationUnknown
}

// accessTechnology names the best of the bits of MMModemAccessTechnology.
func accessTechnology(bits int64) string {
	switch {
	case bits&(1<<15) != 0:
		return "5gnr"
	case bits&(1<<14|1<<16|1<<17) != 0:
		return "lte"
	case bits&(1<<5|1<<6|1<<7|1<<8|1<<9) != 0:
		return "umts"
	case bits&(1<<1|1<<2|1<<3|1<<4) != 0:
		return "gsm"
	}
	return ""
}

// Modem returns the modem with this Device property, or the one with the IMEI
// of the modem that had it; an empty device means the first.
// There being none is [ErrNoModem].
func (c *Client) Modem(ctx context.Context, device string) (Modem, error) {
	all, err := c.Modems(ctx)
	if err != nil {
		return Modem{}, err
	}
	for _, m := range all {
		if device == "" || m.Device == device {
			c.Know(m.Device, m.Identity.IMEI)
			return m, nil
		}
	}
	if imei := c.imeiOf(device); imei != "" {
		for _, m := range all {
			if m.Identity.IMEI == imei {
				return m, nil
			}
		}
	}
	return Modem{}, fmt.Errorf("find modem %q: %w", device, ErrNoModem)
}

// WaitSettled waits until ModemManager shows the modem and has made up its mind
// about it: brought it up at least to the PIN, or failed, as it does without
// a SIM.
func (c *Client) WaitSettled(ctx context.Context, device string) (Modem, error) {
	var found Modem
	err := c.bus.Wait(ctx, []systembus.Service{Service}, func(ctx context.Context) (bool, error) {
		m, err := c.Modem(ctx, device)
		switch {
		case err != nil:
			return !systembus.Transient(err) && !errors.Is(err, ErrNoModem), err
		case m.State == StateUnknown || m.State == StateInitializing:
			return false, &WaitingError{Modem: m, For: "state", AtLeast: StateLocked}
		}
		found = m
		return true, nil
	})
	if err != nil {
		return Modem{}, fmt.Errorf("wait for the modem: %w", err)
	}
	return found, nil
}

// WaitSIM waits until the modem is in state atLeast or above and shows the
// SIM with this ICCID (any SIM if it is empty). ModemManager makes new objects
// meanwhile, may be restarted, and does not send a signal for everything: it
// follows the signals and reads again. When ctx ends first, the error says
// what was missing.
func (c *Client) WaitSIM(ctx context.Context, device, iccid string, atLeast State) (Modem, error) {
	var found Modem
	err := c.bus.Wait(ctx, []systembus.Service{Service}, func(ctx context.Context) (bool, error) {
		m, err := c.Modem(ctx, device)
		switch {
		case err != nil:
			return !systembus.Transient(err) && !errors.Is(err, ErrNoModem), err
		case iccid != "" && !SameICCID(m.SIM.ICCID, iccid):
			return false, &WaitingError{Modem: m, For: "sim"}
		case m.State < atLeast:
			return false, &WaitingError{Modem: m, For: "state", AtLeast: atLeast}
		}
		found = m
		return true, nil
	})
	if err != nil {
		return Modem{}, fmt.Errorf("wait for the modem with its new SIM: %w", err)
	}
	return found, nil
}

// WaitRegistered waits until a network serves the modem. A refusal by the
// network is waited through, for it is often followed by another network's
// acceptance; when ctx ends first it is in the error, also if ModemManager or
// the modem went away after it.
func (c *Client) WaitRegistered(ctx context.Context, device string) (Modem, error) {
	var found Modem
	var denied error
	err := c.bus.Wait(ctx, []systembus.Service{Service}, func(ctx context.Context) (bool, error) {
		m, err := c.Modem(ctx, device)
		switch {
		case err != nil && !systembus.Transient(err) && !errors.Is(err, ErrNoModem):
			return true, err
		case err != nil:
			return false, cmp.Or(denied, err)
		case !m.Registration.State.Registered():
			waiting := &WaitingError{Modem: m, For: "network"}
			if denied = nil; m.Registration.State == modem.Denied {
				denied = waiting
			}
			return false, waiting
		}
		found = m
		return true, nil
	})
	if err != nil {
		return Modem{}, fmt.Errorf("wait for registration: %w", err)
	}
	return found, nil
}

// SameICCID compares two ICCIDs as modems write them: the filler F at the end
// of an odd number of digits does not count.
func SameICCID(a, b string) bool {
	return strings.EqualFold(strings.TrimRight(a, "Ff"), strings.TrimRight(b, "Ff"))
}

// WaitingError says what a modem lacked when waiting ended.
type WaitingError struct {
	Modem   Modem
	For     string // "sim", "state" or "network"
	AtLeast State  // with For "state"
}

// Error says what was waited for and what there was instead, identifiers
// shortened.
func (e *WaitingError) Error() string {
	switch e.For {
	case "sim":
		return "the modem (" + e.state() + ") shows " + shortSIM(e.Modem.SIM)
	case "state":
		return "the modem is " + e.state() + ", not yet " + e.AtLeast.String()
	}
	return "the modem (" + e.state() + ") is not registered: " + string(e.Modem.Registration.State)
}

func shortSIM(s modem.SIM) string {
	if s.ICCID == "" {
		return "no SIM"
	}
	return "the SIM " + redact.Digits(s.ICCID)
}

func (e *WaitingError) state() string {
	if e.Modem.FailedReason != "" {
		return e.Modem.State.String() + ", " + e.Modem.FailedReason
	}
	return e.Modem.State.String()
}

// Fault explains it.
func (e *WaitingError) Fault() fault.Fault {
	f := fault.Fault{Text: e.Error(), Retry: true, Who: fault.Technician}
	switch {
	case e.Modem.State == StateLocked:
		f.Code, f.Next = "sim-pin-required", "enter the PIN of the profile, or ask the operator for one without"
	case e.For == "sim":
		f.Code, f.Who, f.Next = "modem-shows-other-sim", fault.Device, "reset the modem; if it never follows the card, choose another way of re-reading the SIM for it"
	case e.For == "state":
		f.Code, f.Next = "modem-not-ready", "look at the log of ModemManager"
	case e.Modem.Registration.State == modem.Denied:
		f.Code, f.Who, f.Next = "registration-denied", fault.Operator, "ask the operator whether the subscription is active here, and which access point it wants"
	default:
		f.Code, f.Next = "not-registered", "look at the antenna and the reception"
	}
	return f
}
