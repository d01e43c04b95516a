package network

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"

	"lpad/internal/fault"
	"lpad/internal/redact"
	"lpad/modem"
	"lpad/modem/mm"
	"lpad/modem/nm"
)

// snapshotVersion changes when an older lpad could not read a snapshot.
const snapshotVersion = 1

// snapshot is what Snapshot writes down.
type snapshot struct {
	Version          int
	Device           string
	DeviceIdentifier string
	Control          string // control port, which connection.interface-name names
	ICCID            string // which the modem shows; empty: none
	Connections      []savedConnection
	Active           string // UUID of the connection that is up on the modem; empty: none
	Contexts         []savedContext
	InitialEPS       *savedContext
	IMEI             string        `json:",omitempty"` // by which a modem is known that comes back in another place
	Bearer           *savedContext `json:",omitempty"` // that was up, without NetworkManager; nil: none
	Book             entry         `json:",omitzero"`
}

type savedConnection struct {
	Settings nm.Settings
	InMemory bool
}

// savedContext has what a modem tells of a context, and the credentials of the
// connection that used it, which a modem does not tell.
type savedContext struct {
	CID      int
	Name     string
	Type     modem.IPType
	Auth     modem.Auth
	User     string
	Password string
	Roaming  *bool `json:",omitempty"`
}

func save(c modem.Context) savedContext {
	return savedContext{c.CID, c.APN.Name, c.APN.Type, c.APN.Auth, c.APN.User, c.APN.Password.Reveal(), c.APN.AllowRoaming}
}

func (c savedContext) apn() modem.APN {
	return modem.APN{Name: c.Name, Type: c.Type, Auth: c.Auth, User: c.User, Password: redact.NewSecret(c.Password), AllowRoaming: c.Roaming}
}

func (v snapshot) marshal() ([]byte, error) {
	b, err := json.Marshal(v)
	if err != nil {
		return nil, fmt.Errorf("write the snapshot: %w", err)
	}
	return b, nil
}

func parseSnapshot(b []byte) (snapshot, error) {
	var v snapshot
	if err := json.Unmarshal(b, &v); err != nil {
		return v, fmt.Errorf("read the snapshot: %w", err)
	}
	if v.Version != snapshotVersion {
		return v, fmt.Errorf("read the snapshot: version %d, want %d", v.Version, snapshotVersion)
	}
	return v, nil
}

// Snapshot reads what a switch will change: the mobile connections, which of
// them is up, and the modem's contexts. It changes nothing. Bring the bytes to
// safety before [ManagerStack.Gate].
func (s *ManagerStack) Snapshot(ctx context.Context) ([]byte, error) {
	waiting, cancel := context.WithTimeout(ctx, settleLimit)
	defer cancel()
	m, v, err := s.settled(waiting, s.Online)
	if err != nil {
		return nil, err
	}
	err = s.patiently(waiting, func(ctx context.Context) error {
		all, err := s.nm.Mobile(ctx)
		if err != nil {
			return err
		}
		v.Connections = nil
		for _, con := range all {
			v.Connections = append(v.Connections, savedConnection{con.Settings, con.InMemory})
		}
		active, _, err := s.activeOn(ctx, m)
		v.Active = active.UUID
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("snapshot: %w", err)
	}
	if err := s.saveContexts(ctx, m, &v); err != nil {
		return nil, fmt.Errorf("snapshot: %w", err)
	}
	return v.marshal()
}

// settled waits until the modem is there and online, and begins its snapshot.
func (s *managed) settled(ctx context.Context, online func(context.Context) error) (mm.Modem, snapshot, error) {
	err := online(ctx)
	var m mm.Modem
	if err == nil {
		m, err = s.mm.WaitSettled(ctx, s.known())
	}
	if err != nil {
		return m, snapshot{}, fmt.Errorf("snapshot: %w", err)
	}
	s.learn(m.Device)
	return m, snapshot{Version: snapshotVersion, Device: m.Device, DeviceIdentifier: m.DeviceIdentifier, Control: m.PrimaryPort, ICCID: m.SIM.ICCID, IMEI: m.Identity.IMEI,
		Book: *s.book.begin()}, nil
}

// activeOn finds the connection that is up, or coming up, on the modem.
func (s *ManagerStack) activeOn(ctx context.Context, m mm.Modem) (nm.Active, bool, error) {
	devices, err := s.nm.Devices(ctx)
	if err != nil {
		return nm.Active{}, false, err
	}
	all, err := s.nm.ActiveMobile(ctx)
	if err != nil {
		return nm.Active{}, false, err
	}
	for _, d := range devices {
		for _, a := range all {
			if d.Modem == string(m.Path) && a.Device == d.Path && (a.Activated() || a.Pending()) {
				return a, true, nil
			}
		}
	}
	return nm.Active{}, false, nil
}

// saveContexts reads the contexts over our own port, else from ModemManager; a
// modem that tells nobody is not a reason to leave it with its old profile.
func (s *managed) saveContexts(ctx context.Context, m mm.Modem, v *snapshot) error {
	var list []modem.Context
	var err error
	if s.at != nil && !s.sharing(ctx) {
		list, err = s.at.APNs(ctx)
	} else {
		list, err = s.mm.Profiles(ctx, m)
	}
	switch {
	case err == nil:
	case ctx.Err() != nil || lineLost(err): // it can be asked when it is back
		return err
	default:
		s.log.Warn("the modem's contexts are unknown, and will not be put back", "err", err)
	}
	for _, c := range list {
		v.Contexts = append(v.Contexts, withCredentials(save(c), v.Connections))
	}
	if s.at != nil {
		return nil
	}
	eps, ok, err := s.mm.InitialEPSBearer(ctx, m)
	if err != nil || !ok {
		return err
	}
	c := save(modem.Context{APN: eps})
	v.InitialEPS = &c
	return nil
}

// lineLost reports that the modem was unplugged or has reset itself: package
// modem/serialport has these codes.
func lineLost(err error) bool {
	code := fault.Of(err).Code
	return code == "modem-hangup" || code == "port-missing"
}

// withCredentials adds user and password from the connection that has the same
// access point, for +CGDCONT? does not tell them.
func withCredentials(c savedContext, connections []savedConnection) savedContext {
	for _, con := range connections {
		if user := con.Settings.Text("gsm", "username"); user != "" && c.User == "" && strings.EqualFold(con.Settings.Text("gsm", "apn"), c.Name) {
			c.User, c.Password = user, con.Settings.Text("gsm", "password")
		}
	}
	return c
}

func (s *managed) known() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.device
}

// learn keeps the modem by which this switch is made, so that a second modem
// cannot take its place while the first is held.
func (s *managed) learn(device string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.device = device
}

// recall takes from a snapshot by what the modem is known, also after a restart
// of lpad.
func (s *managed) recall(v snapshot) {
	s.learn(v.Device)
	s.mm.Know(v.Device, v.IMEI)
}

// ours tells whether a connection could come up on the modem of the snapshot.
// One that is tied to another modem is left alone.
func (v snapshot) ours(settings nm.Settings) bool {
	if name := settings.Text("connection", "interface-name"); name != "" && v.Control != "" && name != v.Control {
		return false
	}
	if id := settings.Text("gsm", "device-id"); id != "" && v.DeviceIdentifier != "" && id != v.DeviceIdentifier {
		return false
	}
	return true
}
