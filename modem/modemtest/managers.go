package modemtest

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/godbus/dbus/v5"
)

const (
	mmName = "org.freedesktop.ModemManager1"
	mmPath = dbus.ObjectPath("/org/freedesktop/ModemManager1")
	nmName = "org.freedesktop.NetworkManager"
	nmPath = dbus.ObjectPath("/org/freedesktop/NetworkManager")
)

const networkManagerConf = `[main]
plugins=keyfile
dns=none
rc-manager=unmanaged
dhcp=internal
auth-polkit=root-only
no-auto-default=*
[logging]
level=DEBUG
domains=DEFAULT,MB,CORE,DEVICE,SETTINGS
[connectivity]
enabled=false
`

func (s *Stack) makeNetworkManagerFiles() error {
	etc := filepath.Join(s.dir, "nm/etc")
	if err := os.WriteFile(filepath.Join(etc, "NetworkManager.conf"), []byte(networkManagerConf), 0o644); err != nil {
		return err
	}
	for _, c := range s.cfg.Connections {
		file := filepath.Join(etc, "system-connections", c.ID+".nmconnection")
		if err := os.WriteFile(file, []byte(c.keyfile()), 0o600); err != nil {
			return err
		}
	}
	return nil
}

// keyfile is the connection as NetworkManager keeps it.
func (c Connection) keyfile() string {
	uuid := c.UUID
	if uuid == "" {
		h := sha256.Sum256([]byte(c.ID))
		uuid = fmt.Sprintf("%x-%x-%x-%x-%x", h[0:4], h[4:6], h[6:8], h[8:10], h[10:16])
	}
	var b strings.Builder
	fmt.Fprintf(&b, "[connection]\nid=%s\nuuid=%s\ntype=gsm\nautoconnect=%t\nautoconnect-priority=%d\n\n[gsm]\napn=%s\n", c.ID, uuid, !c.NoAutoconnect, c.Priority, c.APN)
	for key, value := range map[string]string{"username": c.User, "password": c.Password, "sim-id": c.SIMID} {
		if value != "" {
			fmt.Fprintf(&b, "%s=%s\n", key, value)
		}
	}
	b.WriteString("\n[ipv4]\nmethod=auto\n\n[ipv6]\nmethod=ignore\n")
	return b.String()
}

// Manager is one of the real services of a stack.
type Manager string

// The services that can be stopped and started. A stack starts one again that dies by itself.
const (
	ModemManager   Manager = "modemmanager"
	NetworkManager Manager = "networkmanager"
)

// managerCommands start the services.
var managerCommands = map[Manager][]string{
	ModemManager: {"ModemManager", "--no-auto-scan", "--test-no-udev", "--test-no-suspend-resume", "--test-no-qrtr", "--log-level=DEBUG"},
	// A sysfs of its own that is read-only makes NetworkManager do without udev, as in a container.
	NetworkManager: {"unshare", "-m", "--propagation", "private", "sh", "-ec", `umount -l /sys; mount -t sysfs -o ro sysfs /sys; exec NetworkManager --debug`},
}

func (s *Stack) startManagers(context.Context) error {
	if s.cfg.WithoutModemManager {
		return nil
	}
	err := s.launchManager(ModemManager)
	if err != nil || s.cfg.WithoutNetworkManager {
		return err
	}
	return s.launchManager(NetworkManager)
}

func (s *Stack) waitManagers(ctx context.Context) error {
	if s.cfg.WithoutModemManager {
		return nil
	}
	if err := s.poll(ctx, "ModemManager", func() (bool, error) { return s.owned(ctx, mmName) }); err != nil {
		return err
	}
	if err := s.ReportPorts(ctx, true); err != nil {
		return err
	}
	st, err := s.Modem.Wait(ctx, func(st State) bool { return st.SIM.State != SIMBusy })
	if err != nil {
		return err
	}
	sim := st.SIM
	err = s.poll(ctx, "ModemManager to show the modem", func() (bool, error) {
		m, err := s.MMModem(ctx)
		return err == nil && (sim.State != SIMReady || m.ICCID == sim.ICCID || s.cfg.dialect().hidesICCID()), err
	})
	if err != nil || s.cfg.WithoutNetworkManager {
		return err
	}
	return s.poll(ctx, "NetworkManager to show the modem", func() (bool, error) { return s.nmHasModem(ctx) })
}

// ReportPorts tells ModemManager that the modem's ports are there, or gone, as
// udev would.
func (s *Stack) ReportPorts(ctx context.Context, present bool) error {
	if s.cfg.WithoutModemManager {
		return nil
	}
	what := "remove"
	if present {
		what = "add"
	}
	for _, p := range s.portsNow() {
		event := map[string]dbus.Variant{
			"action": dbus.MakeVariant(what), "subsystem": dbus.MakeVariant(p.subsystem), "name": dbus.MakeVariant(p.name),
		}
		if err := s.bus.Object(mmName, mmPath).CallWithContext(ctx, mmName+".ReportKernelEvent", 0, event).Err; err != nil {
			return fmt.Errorf("report %s to ModemManager: %w", p.name, err)
		}
	}
	return nil
}

// MMModem is what ModemManager shows of the modem.
type MMModem struct {
	Path   dbus.ObjectPath
	Device string // the uid of InhibitDevice
	State  int32  // MMModemState: 8 registered, 11 connected
	ICCID  string
}

var errNoModem = errors.New("ModemManager shows no modem")

// MMModem asks ModemManager for the modem.
func (s *Stack) MMModem(ctx context.Context) (MMModem, error) {
	var objects map[dbus.ObjectPath]map[string]map[string]dbus.Variant
	err := s.bus.Object(mmName, mmPath).CallWithContext(ctx, "org.freedesktop.DBus.ObjectManager.GetManagedObjects", 0).Store(&objects)
	if err != nil {
		return MMModem{}, err
	}
	for path, interfaces := range objects {
		p, isModem := interfaces[mmName+".Modem"]
		if !isModem {
			continue
		}
		m := MMModem{Path: path}
		m.Device, _ = p["Device"].Value().(string)
		m.State, _ = p["State"].Value().(int32)
		if sim, _ := p["Sim"].Value().(dbus.ObjectPath); len(sim) > 1 {
			v, err := s.property(ctx, mmName, sim, mmName+".Sim", "SimIdentifier")
			if err != nil {
				return m, err
			}
			m.ICCID, _ = v.Value().(string)
		}
		return m, nil
	}
	return MMModem{}, errNoModem
}

// WaitMM waits until ModemManager shows the modem with this ICCID.
func (s *Stack) WaitMM(ctx context.Context, iccid string) (m MMModem, err error) {
	err = s.poll(ctx, "ModemManager to show SIM "+iccid, func() (bool, error) {
		m, err = s.MMModem(ctx)
		return err == nil && m.ICCID == iccid, err
	})
	return m, err
}

func (s *Stack) property(ctx context.Context, name string, path dbus.ObjectPath, iface, property string) (v dbus.Variant, err error) {
	err = s.bus.Object(name, path).CallWithContext(ctx, "org.freedesktop.DBus.Properties.Get", 0, iface, property).Store(&v)
	return v, err
}

func (s *Stack) nmHasModem(ctx context.Context) (bool, error) {
	v, err := s.property(ctx, nmName, nmPath, nmName, "Devices")
	if err != nil {
		return false, err
	}
	const typeModem = uint32(8) // NM_DEVICE_TYPE_MODEM
	devices, _ := v.Value().([]dbus.ObjectPath)
	for _, d := range devices {
		if t, err := s.property(ctx, nmName, d, nmName+".Device", "DeviceType"); err == nil && t.Value() == typeModem {
			return true, nil
		}
	}
	return false, nil
}

// ActiveConnections are the ids of NetworkManager's activated connections on the modem.
func (s *Stack) ActiveConnections(ctx context.Context) ([]string, error) {
	v, err := s.property(ctx, nmName, nmPath, nmName, "ActiveConnections")
	if err != nil {
		return nil, err
	}
	const activated = uint32(2) // NM_ACTIVE_CONNECTION_STATE_ACTIVATED
	var ids []string
	paths, _ := v.Value().([]dbus.ObjectPath)
	for _, p := range paths {
		var all map[string]dbus.Variant
		err := s.bus.Object(nmName, p).CallWithContext(ctx, "org.freedesktop.DBus.Properties.GetAll", 0, nmName+".Connection.Active").Store(&all)
		if err != nil {
			continue // it ended while we asked
		}
		if all["Type"].Value() == "gsm" && all["State"].Value() == activated {
			id, _ := all["Id"].Value().(string)
			ids = append(ids, id)
		}
	}
	return ids, nil
}

// WaitConnected waits until NetworkManager has activated the connection with
// this id on the modem; "" is any.
func (s *Stack) WaitConnected(ctx context.Context, id string) error {
	return s.poll(ctx, "NetworkManager to connect "+id, func() (bool, error) {
		ids, err := s.ActiveConnections(ctx)
		for _, i := range ids {
			if id == "" || i == id {
				return true, nil
			}
		}
		return false, err
	})
}
