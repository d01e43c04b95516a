// Package network holds the back-ends of a profile switch: what carries out,
// on a device with certain services, the steps that agent/switchover orders.
//
// [ManagerStack] is for a device with ModemManager and NetworkManager, and as a
// rule with an AT port on which lpad drives the modem itself. The interface of
// a back-end is what agent/switchover declares, in the words of package modem
// and plain strings only, so that others ("ModemManager alone", "AT alone")
// can stand beside it:
//
//	Snapshot(ctx)                  what the settings are: bytes for the journal
//	Gate(ctx, snapshot)            nothing comes up by itself from now on
//	Apply(ctx, iccid, apn)         the new APN on the modem and in the network's settings
//	Reread(ctx, iccid)             the modem reads the card again and shows the new profile
//	Register(ctx), Connect(ctx, iccid), Link(ctx, iccid)
//	Commit(ctx, iccid)             it stays like this
//	Restore(ctx, snapshot)         everything back as it was
//
// Every one of them may be called again after it failed, or after lpad was
// restarted; after a restart in the middle of a switch call Gate first, since
// what was held is held no longer. All of them end with ctx, and are bounded
// by limits of their own where they wait for others.
//
// A snapshot holds the passwords of connections: it belongs into the journal
// (mode 0600) and never into a log.
//
// [Probe] asks whether a link really carries traffic, and [Dialer] binds
// connections to it.
package network

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	"lpad/internal/fault"
	"lpad/internal/redact"
	"lpad/internal/systembus"
	"lpad/modem"
	"lpad/modem/mm"
	"lpad/modem/nm"
)

// Bounds of what waits for others. A USB modem that was reset enumerates again
// within 30 s, and ModemManager probes it for up to 30 s more.
const (
	settleLimit   = 90 * time.Second // until ModemManager shows the modem
	holdLimit     = 90 * time.Second // until it can be held
	releaseLimit  = 10 * time.Second
	attemptLimit  = 90 * time.Second // one activation of a connection
	enableLimit   = 2 * time.Minute  // ModemManager's own Enable
	retryInterval = time.Second
)

// AT drives the modem over an AT port of lpad's own. lpad/modem/atmodem.Modem
// is one.
type AT interface {
	// SetAPN writes a context of the modem and reads it back.
	SetAPN(ctx context.Context, cid int, apn modem.APN) error
	// APNs reads the contexts.
	APNs(ctx context.Context) ([]modem.Context, error)
	// Reread makes the modem read the SIM again by the cheapest means that
	// works, waits until it shows the ICCID, and says which means that was.
	Reread(ctx context.Context, iccid string) (rung string, err error)
}

// ContextClearer is an [AT] that can also take a context off the modem's list, as lpad/modem/atmodem can.
type ContextClearer interface {
	ClearAPN(ctx context.Context, cid int) error
}

// Config says what a [ManagerStack] works with.
type Config struct {
	MM     *mm.Client // must be there
	NM     *nm.Client // must be there
	Device string     // ModemManager's Device property; empty: its first modem
	// AT is nil if lpad has no AT port: ModemManager then writes the APN and
	// reads the SIM again, as far as it can.
	AT AT
	// Shared says that ModemManager uses the same port, so that AT may be used
	// only while the modem is held. BeforeRelease, if not nil, is called before
	// ModemManager gets the modem back: close the port there.
	Shared        bool
	BeforeRelease func(context.Context) error
	CID           int          // context of the initial attach; 0: 1
	Log           *slog.Logger // nil: none
}

// ManagerStack is the back-end for ModemManager and NetworkManager. Make one
// with [NewManagerStack]. One switch at a time; [ManagerStack.Link] may be
// called beside it.
type ManagerStack struct {
	mm            *mm.Client
	nm            *nm.Client
	at            AT
	shared        bool
	beforeRelease func(context.Context) error
	cid           int
	log           *slog.Logger

	mu     sync.Mutex
	device string         // guarded by mu; empty until it is known
	hold   *mm.Inhibition // guarded by mu; nil: not held
}

// NewManagerStack makes a back-end. It does not talk to anybody yet.
func NewManagerStack(c Config) *ManagerStack {
	s := &ManagerStack{mm: c.MM, nm: c.NM, at: c.AT, shared: c.Shared, beforeRelease: c.BeforeRelease, cid: c.CID, log: c.Log, device: c.Device}
	if s.cid == 0 {
		s.cid = 1
	}
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	return s
}

// Close gives the modem back if it is held. The bus stays the caller's.
func (s *ManagerStack) Close(ctx context.Context) error { return s.release(ctx) }

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
}

func save(c modem.Context) savedContext {
	return savedContext{c.CID, c.APN.Name, c.APN.Type, c.APN.Auth, c.APN.User, c.APN.Password.Reveal()}
}

func (c savedContext) apn() modem.APN {
	return modem.APN{Name: c.Name, Type: c.Type, Auth: c.Auth, User: c.User, Password: redact.NewSecret(c.Password)}
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
	m, err := s.mm.WaitSettled(waiting, s.known())
	if err != nil {
		return nil, fmt.Errorf("snapshot: %w", err)
	}
	s.learn(m.Device)
	v := snapshot{Version: snapshotVersion, Device: m.Device, DeviceIdentifier: m.DeviceIdentifier, Control: m.PrimaryPort, ICCID: m.SIM.ICCID}
	all, err := s.nm.Mobile(ctx)
	if err != nil {
		return nil, fmt.Errorf("snapshot: %w", err)
	}
	for _, con := range all {
		v.Connections = append(v.Connections, savedConnection{con.Settings, con.InMemory})
	}
	active, _, err := s.activeOn(ctx, m)
	if err != nil {
		return nil, fmt.Errorf("snapshot: %w", err)
	}
	v.Active = active.UUID
	if err := s.saveContexts(ctx, m, &v); err != nil {
		return nil, fmt.Errorf("snapshot: %w", err)
	}
	b, err := json.Marshal(v)
	if err != nil {
		return nil, fmt.Errorf("snapshot: %w", err)
	}
	return b, nil
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
func (s *ManagerStack) saveContexts(ctx context.Context, m mm.Modem, v *snapshot) error {
	var list []modem.Context
	var err error
	if s.at != nil && !s.shared {
		list, err = s.at.APNs(ctx)
	} else {
		list, err = s.mm.Profiles(ctx, m)
	}
	switch {
	case err == nil:
	case ctx.Err() != nil:
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

func (s *ManagerStack) known() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.device
}

// learn keeps the modem by which this switch is made, so that a second modem
// cannot take its place while the first is held.
func (s *ManagerStack) learn(device string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.device = device
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

// Gate makes sure that nothing attaches or brings up a bearer by itself until
// [ManagerStack.Reread] is done: no mobile connection has autoconnect, and
// ModemManager's hands are off the modem, which also frees its ports. The
// present link goes down with that.
func (s *ManagerStack) Gate(ctx context.Context, snapshot []byte) error {
	v, err := parseSnapshot(snapshot)
	if err != nil {
		return err
	}
	s.learn(v.Device)
	if err := s.silence(ctx, v, ""); err != nil {
		return fmt.Errorf("gate: %w", err)
	}
	if s.at != nil {
		if err := s.ensureHold(ctx); err != nil {
			return fmt.Errorf("gate: %w", err)
		}
		return nil
	}
	m, err := s.mm.Modem(ctx, v.Device)
	if errors.Is(err, mm.ErrNoModem) {
		return nil // nothing is up on a modem that is away
	}
	if err != nil {
		return fmt.Errorf("gate: %w", err)
	}
	active, found, err := s.activeOn(ctx, m)
	if err == nil && found {
		err = s.nm.Deactivate(ctx, active)
	}
	if err != nil {
		return fmt.Errorf("gate: %w", err)
	}
	return nil
}

// silence takes autoconnect from the connections that could come up on the
// modem, but not from the one with the UUID except.
func (s *ManagerStack) silence(ctx context.Context, v snapshot, except string) error {
	all, err := s.nm.Mobile(ctx)
	if err != nil {
		return err
	}
	for _, con := range all {
		if con.UUID() == except || !v.ours(con.Settings) {
			continue
		}
		if err := s.nm.SetAutoconnect(ctx, con, false); err != nil && !errors.Is(err, systembus.ErrGone) {
			return err
		}
	}
	return nil
}

// ensureHold holds the modem unless it is held; an inhibition that was lost (bus
// or ModemManager restarted) is made anew.
func (s *ManagerStack) ensureHold(ctx context.Context) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.hold != nil {
		held, err := s.hold.Held(ctx)
		if held || err != nil {
			return err
		}
		s.hold = nil
	}
	if s.device == "" {
		m, err := s.mm.Modem(ctx, "")
		if err != nil {
			return err
		}
		s.device = m.Device
	}
	waiting, cancel := context.WithTimeout(ctx, holdLimit)
	defer cancel()
	hold, err := s.mm.Inhibit(waiting, s.device)
	if err != nil {
		return err
	}
	s.hold = hold
	return nil
}

// release gives the modem back. It is also what must happen when ctx has ended.
func (s *ManagerStack) release(ctx context.Context) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.hold == nil {
		return nil
	}
	bounded, cancel := context.WithTimeout(context.WithoutCancel(ctx), releaseLimit)
	defer cancel()
	if s.beforeRelease != nil {
		if err := s.beforeRelease(bounded); err != nil {
			// ModemManager would share the port with us, which is bad, but
			// keeping the modem from it is worse.
			s.log.Warn("the at port was not closed", "err", err)
		}
	}
	if err := s.hold.Release(bounded); err != nil {
		return err
	}
	s.hold = nil
	return nil
}

// Places where Apply has written an APN.
const (
	ViaAT             = "at"                 // +CGDCONT and +CGAUTH, on our own port
	ViaInitialEPS     = "initial-eps-bearer" // ModemManager
	ViaProfileManager = "3gpp-profile"       // ModemManager
	ViaNetworkManager = "networkmanager"     // lpad's connection for the profile
)

// Apply writes the access point of the profile: onto the modem, before it
// reads the SIM again, and into lpad's own connection for the profile in
// NetworkManager, which is made from nothing and may come up by itself from
// its first activation on. It says where. Without an AT port, a modem on
// which ModemManager can write nothing gets the APN when the connection comes
// up: then NetworkManager is the only place.
func (s *ManagerStack) Apply(ctx context.Context, iccid string, apn modem.APN) ([]string, error) {
	var where []string
	if s.at != nil {
		if err := s.ensureHold(ctx); err != nil {
			return nil, fmt.Errorf("apply: %w", err)
		}
		if err := s.at.SetAPN(ctx, s.cid, apn); err != nil {
			return nil, fmt.Errorf("apply: %w", err)
		}
		where = append(where, ViaAT)
	} else {
		by, err := s.applyByMM(ctx, apn)
		if err != nil {
			return nil, fmt.Errorf("apply: %w", err)
		}
		where = by
	}
	if _, err := s.nm.Put(ctx, nm.ForProfile(iccid, apn), nm.OnDisk|nm.Blocked); err != nil {
		return where, fmt.Errorf("apply: %w", err)
	}
	return append(where, ViaNetworkManager), nil
}

func (s *ManagerStack) applyByMM(ctx context.Context, apn modem.APN) ([]string, error) {
	waiting, cancel := context.WithTimeout(ctx, settleLimit)
	defer cancel()
	m, err := s.mm.WaitSettled(waiting, s.known())
	if err != nil {
		return nil, err
	}
	var where []string
	for _, try := range []struct {
		name  string
		write func() error
	}{
		{ViaInitialEPS, func() error { return s.mm.SetInitialEPSBearer(ctx, m, apn) }},
		{ViaProfileManager, func() error { return s.mm.SetProfile(ctx, m, s.cid, apn) }},
	} {
		switch err := try.write(); {
		case err == nil:
			where = append(where, try.name)
		case errors.Is(err, systembus.ErrAbsent) || errors.Is(err, systembus.ErrDenied) || ctx.Err() != nil:
			return nil, err
		default:
			s.log.Debug("this way of setting the apn does not work here", "way", try.name, "err", err)
		}
	}
	return where, nil
}

// Ways of reading the SIM again without an AT port.
const (
	RungNone     = "none"      // the modem followed the card by itself
	RungMMEnable = "mm-enable" // ModemManager disabled and enabled the modem
)

// Reread makes the modem read the card again, gives it back to ModemManager,
// and waits until ModemManager's new object of the modem shows the profile. It
// says by which means. When it fails the modem stays held, so that nothing
// comes up before [ManagerStack.Restore].
func (s *ManagerStack) Reread(ctx context.Context, iccid string) (string, error) {
	if s.at == nil {
		return s.rereadByMM(ctx, iccid)
	}
	if err := s.ensureHold(ctx); err != nil {
		return "", fmt.Errorf("reread: %w", err)
	}
	rung, err := s.at.Reread(ctx, iccid)
	if err != nil {
		return rung, fmt.Errorf("reread: %w", err)
	}
	if err := s.release(ctx); err != nil {
		return rung, fmt.Errorf("reread: %w", err)
	}
	if _, err := s.mm.WaitSIM(ctx, s.known(), iccid, mm.StateDisabled); err != nil {
		return rung, fmt.Errorf("reread: %w", err)
	}
	return rung, nil
}

func (s *ManagerStack) rereadByMM(ctx context.Context, iccid string) (string, error) {
	device := s.known()
	m, err := s.mm.Modem(ctx, device)
	switch {
	case errors.Is(err, mm.ErrNoModem): // it is on its way back already
	case err != nil:
		return "", fmt.Errorf("reread: %w", err)
	case mm.SameICCID(m.SIM.ICCID, iccid):
		return RungNone, nil
	default:
		for _, on := range []bool{false, true} {
			bounded, cancel := context.WithTimeout(ctx, enableLimit)
			err := s.mm.Enable(bounded, m, on)
			cancel()
			if err != nil && !systembus.Transient(err) && !errors.Is(err, systembus.ErrRefused) {
				return RungMMEnable, fmt.Errorf("reread: %w", err)
			}
		}
	}
	if _, err := s.mm.WaitSIM(ctx, device, iccid, mm.StateDisabled); err != nil {
		return RungMMEnable, fmt.Errorf("reread: %w", err)
	}
	return RungMMEnable, nil
}

// Register waits until a network serves the modem.
func (s *ManagerStack) Register(ctx context.Context) (modem.Registration, error) {
	m, err := s.mm.WaitRegistered(ctx, s.known())
	if err != nil {
		return modem.Registration{}, fmt.Errorf("register: %w", err)
	}
	return m.Registration, nil
}

// ErrNotApplied says that there is no connection for the profile: Apply has not
// been called.
var ErrNotApplied = fault.New(fault.Fault{Code: "parameters-not-applied", Text: "there is no connection for this profile", Who: fault.Device,
	Next: "enable the profile through lpad"}, nil)

// Connect brings the profile's own connection up on the modem, and no other,
// trying again until ctx ends. It does not begin before the modem shows the
// profile.
func (s *ManagerStack) Connect(ctx context.Context, iccid string) (modem.Link, error) {
	link, err := s.connect(ctx, iccid, nm.UUID(iccid))
	if err != nil {
		return modem.Link{}, fmt.Errorf("connect: %w", err)
	}
	return link, nil
}

func (s *ManagerStack) connect(ctx context.Context, iccid, uuid string) (modem.Link, error) {
	var last error
	for {
		link, err := s.attempt(ctx, iccid, uuid)
		switch {
		case err == nil:
			return link, nil
		case errors.Is(err, ErrNotApplied) || errors.Is(err, systembus.ErrDenied):
			return modem.Link{}, err
		case last == nil || ctx.Err() == nil:
			last = err // what the end of ctx cuts short says less than what went wrong before
		}
		select {
		case <-ctx.Done():
			return modem.Link{}, fmt.Errorf("%w; at last: %w", ctx.Err(), last)
		case <-time.After(retryInterval):
			s.log.Debug("the connection did not come up", "err", last)
		}
	}
}

// attempt is one try to bring the connection up. It looks everything up anew,
// because ModemManager or the modem may have been restarted since the last.
func (s *ManagerStack) attempt(ctx context.Context, iccid, uuid string) (modem.Link, error) {
	ctx, cancel := context.WithTimeout(ctx, attemptLimit)
	defer cancel()
	m, err := s.mm.WaitSIM(ctx, s.known(), iccid, mm.StateDisabled)
	if err != nil {
		return modem.Link{}, err
	}
	con, found, err := s.nm.Find(ctx, uuid)
	if err != nil {
		return modem.Link{}, err
	}
	if !found {
		return modem.Link{}, ErrNotApplied
	}
	device, err := s.nm.WaitDevice(ctx, string(m.Path))
	if err != nil {
		return modem.Link{}, err
	}
	active, found, err := s.activeOn(ctx, m)
	if err != nil {
		return modem.Link{}, err
	}
	if !found || active.UUID != uuid {
		// NetworkManager takes another connection down by itself for this one.
		if _, err := s.nm.Activate(ctx, con, device); err != nil {
			return modem.Link{}, err
		}
	}
	if active, err = s.nm.WaitActive(ctx, uuid, device); err != nil {
		return modem.Link{}, err
	}
	return s.nm.Link(ctx, active)
}

// ErrNoLink says that the profile's connection is not up.
var ErrNoLink = fault.New(fault.Fault{Code: "no-link", Text: "the profile's connection is not up", Retry: true, Who: fault.Technician,
	Next: "look at the antenna and the reception, and at the logs of ModemManager and NetworkManager"}, nil)

// Link returns the link of the profile's own connection if it is up now, else
// [ErrNoLink].
func (s *ManagerStack) Link(ctx context.Context, iccid string) (modem.Link, error) {
	all, err := s.nm.ActiveMobile(ctx)
	if err != nil {
		return modem.Link{}, err
	}
	for _, a := range all {
		if a.UUID == nm.UUID(iccid) && a.Activated() {
			return s.nm.Link(ctx, a)
		}
	}
	return modem.Link{}, ErrNoLink
}

// Commit makes the profile's connection the only one that comes up on the
// modem by itself, for good. The connections of other profiles stay, without
// autoconnect.
func (s *ManagerStack) Commit(ctx context.Context, iccid string) error {
	if err := s.release(ctx); err != nil {
		return fmt.Errorf("commit: %w", err)
	}
	m, err := s.mm.Modem(ctx, s.known())
	if err != nil {
		return fmt.Errorf("commit: %w", err)
	}
	v := snapshot{Device: m.Device, DeviceIdentifier: m.DeviceIdentifier, Control: m.PrimaryPort}
	if err := s.silence(ctx, v, nm.UUID(iccid)); err != nil {
		return fmt.Errorf("commit: %w", err)
	}
	return nil
}

// Restore puts back what the snapshot holds: the modem's contexts, every
// connection with all its settings, and the connection that was up. lpad's
// connections that are not in the snapshot are deleted; those that somebody
// else has made since are left alone. If a profile was shown, it must have
// been enabled on the card again before: the modem reads the card again, and
// Restore waits for that profile and its link.
//
// It goes on after an error, so as to put back as much as it can, and returns
// all of them.
func (s *ManagerStack) Restore(ctx context.Context, snapshot []byte) (modem.Link, error) {
	v, err := parseSnapshot(snapshot)
	if err != nil {
		return modem.Link{}, err
	}
	s.learn(v.Device)
	var failed []error
	if s.at != nil {
		if err := s.ensureHold(ctx); err != nil {
			failed = append(failed, err)
		}
	}
	if err := s.restoreContexts(ctx, v); err != nil {
		failed = append(failed, err)
	}
	if err := s.restoreConnections(ctx, v); err != nil {
		failed = append(failed, err)
	}
	if err := s.restoreSIM(ctx, v); err != nil {
		failed = append(failed, err)
	}
	var link modem.Link
	if v.Active != "" && v.ICCID != "" {
		if link, err = s.connect(ctx, v.ICCID, v.Active); err != nil {
			failed = append(failed, err)
		}
	}
	if err := errors.Join(failed...); err != nil {
		return link, fmt.Errorf("restore: %w", err)
	}
	return link, nil
}

// restoreSIM ends with the modem given back, whatever happens before.
func (s *ManagerStack) restoreSIM(ctx context.Context, v snapshot) error {
	if v.ICCID == "" {
		return s.release(ctx)
	}
	_, err := s.Reread(ctx, v.ICCID)
	return errors.Join(err, s.release(ctx))
}

func (s *ManagerStack) restoreContexts(ctx context.Context, v snapshot) error {
	if s.at == nil {
		return s.restoreContextsByMM(ctx, v)
	}
	now, err := s.at.APNs(ctx)
	if err != nil {
		return err
	}
	var failed []error
	for _, c := range v.Contexts {
		i := slices.IndexFunc(now, func(n modem.Context) bool { return n.CID == c.CID })
		if i >= 0 && c.CID != s.cid && now[i].APN.Name == c.Name && now[i].APN.Type == c.Type {
			continue
		}
		// Ours is written always: its credentials cannot be compared.
		if err := s.at.SetAPN(ctx, c.CID, c.apn()); err != nil {
			failed = append(failed, err)
		}
	}
	clearer, ok := s.at.(ContextClearer)
	for _, n := range now {
		if ok && !slices.ContainsFunc(v.Contexts, func(c savedContext) bool { return c.CID == n.CID }) {
			if err := clearer.ClearAPN(ctx, n.CID); err != nil {
				failed = append(failed, err)
			}
		}
	}
	return errors.Join(failed...)
}

func (s *ManagerStack) restoreContextsByMM(ctx context.Context, v snapshot) error {
	waiting, cancel := context.WithTimeout(ctx, settleLimit)
	defer cancel()
	m, err := s.mm.WaitSettled(waiting, v.Device)
	if err != nil {
		return err
	}
	var failed []error
	if v.InitialEPS != nil {
		failed = append(failed, s.mm.SetInitialEPSBearer(ctx, m, v.InitialEPS.apn()))
	}
	for _, c := range v.Contexts {
		if c.CID == s.cid {
			failed = append(failed, s.mm.SetProfile(ctx, m, c.CID, c.apn()))
		}
	}
	failed = slices.DeleteFunc(failed, func(err error) bool { return err == nil || errors.Is(err, systembus.ErrUnsupported) })
	return errors.Join(failed...)
}

func (s *ManagerStack) restoreConnections(ctx context.Context, v snapshot) error {
	var failed []error
	for _, saved := range v.Connections {
		mode := nm.OnDisk
		if saved.InMemory {
			mode = nm.InMemory
		}
		if _, err := s.nm.Put(ctx, saved.Settings, mode); err != nil {
			failed = append(failed, err)
		}
	}
	now, err := s.nm.Mobile(ctx)
	if err != nil {
		return errors.Join(append(failed, err)...)
	}
	for _, con := range now {
		known := slices.ContainsFunc(v.Connections, func(c savedConnection) bool { return c.Settings.Text("connection", "uuid") == con.UUID() })
		if known || !strings.HasPrefix(con.ID(), nm.IDPrefix) {
			continue
		}
		if err := s.nm.Delete(ctx, con); err != nil {
			failed = append(failed, err)
		}
	}
	return errors.Join(failed...)
}

// Forget deletes lpad's own connection for a profile, with its credentials:
// for when the profile is deleted from the card. There being none is no error.
func (s *ManagerStack) Forget(ctx context.Context, iccid string) error {
	con, found, err := s.nm.Find(ctx, nm.UUID(iccid))
	if err == nil && found {
		err = s.nm.Delete(ctx, con)
	}
	if err != nil {
		return fmt.Errorf("forget the profile's connection: %w", err)
	}
	return nil
}
