package network

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"

	"lpad/internal/systembus"
	"lpad/modem"
	"lpad/modem/mm"
)

// ViaBearer is ModemManager's bearer, which gets the access point when it is
// connected.
const ViaBearer = "modemmanager"

// MMOnly is the back-end for ModemManager without NetworkManager: lpad has
// ModemManager connect the bearer itself, and brings the interface up by the
// device's [Hook]. Without a hook the interface is somebody else's, and the link
// is the zero link.
//
// ModemManager brings nothing up by itself, so the gate is that the bearers are
// down and, with an AT port, the modem is held.
type MMOnly struct {
	*managed
	hook *Hook
	keep *keeper

	state  sync.Mutex
	wanted access  // guarded by state; what Apply was told
	up     carried // guarded by state; what the hook has brought up
}

// access is a profile and its access point.
type access struct {
	iccid string
	apn   modem.APN
}

// carried is an interface that a hook has brought up.
type carried struct {
	Carrier
	bearer string // object path of ModemManager's, good until it is another
	link   modem.Link
}

// NewMMOnly makes a back-end; NM of the configuration is not used. It does not
// talk to anybody yet.
func NewMMOnly(c Config) *MMOnly {
	s := &MMOnly{managed: newManaged(c), hook: c.Hook}
	s.alone = true
	s.beforeHold = func(ctx context.Context) {
		s.keep.pause()
		s.down(ctx)
	}
	s.keep = &keeper{file: c.KeepFile, log: s.log, wake: make(chan struct{}, 1), isUp: s.isUp, connect: func(ctx context.Context, a access) error {
		_, err := s.attempt(ctx, a)
		return err
	}}
	return s
}

// Follow brings the link of the last committed profile up again when it drops,
// until ctx ends: ModemManager by itself does not.
func (s *MMOnly) Follow(ctx context.Context) { s.keep.run(ctx) }

func (s *MMOnly) isUp(ctx context.Context, a access) (up, possible bool) {
	m, err := s.mm.Modem(ctx, s.known())
	if err != nil || !mm.SameICCID(m.SIM.ICCID, a.iccid) || m.State < mm.StateDisabled {
		return false, false
	}
	s.want(a)
	_, err = s.Link(ctx, a.iccid) // which also has the hook renew the interface of another bearer
	var hook *HookError
	return err == nil, err == nil || errors.Is(err, ErrNoLink) || errors.As(err, &hook)
}

// Snapshot reads what a switch will change: the bearer that is up, with its
// credentials, the modem's contexts, and the settings of the initial bearer.
func (s *MMOnly) Snapshot(ctx context.Context) ([]byte, error) {
	waiting, cancel := context.WithTimeout(ctx, settleLimit)
	defer cancel()
	m, v, err := s.settled(waiting, s.Online)
	if err != nil {
		return nil, err
	}
	b, up, err := s.bearer(ctx, m)
	if err != nil {
		return nil, fmt.Errorf("snapshot: %w", err)
	}
	if up {
		c := save(modem.Context{APN: b.APN})
		v.Bearer = &c
	}
	if err := s.saveContexts(ctx, m, &v); err != nil {
		return nil, fmt.Errorf("snapshot: %w", err)
	}
	for i, c := range v.Contexts { // a modem does not tell credentials, a bearer does
		if b := v.Bearer; b != nil && b.User != "" && c.User == "" && strings.EqualFold(b.Name, c.Name) {
			v.Contexts[i].User, v.Contexts[i].Password, v.Contexts[i].Auth = b.User, b.Password, b.Auth
		}
	}
	return v.marshal()
}

// bearer finds the bearer that is up on the modem.
func (s *MMOnly) bearer(ctx context.Context, m mm.Modem) (mm.Bearer, bool, error) {
	all, err := s.mm.Bearers(ctx, m)
	if err != nil {
		return mm.Bearer{}, false, err
	}
	if i := slices.IndexFunc(all, func(b mm.Bearer) bool { return b.Connected }); i >= 0 {
		return all[i], true, nil
	}
	return mm.Bearer{}, false, nil
}

// Working is the access point of the bearer that was up.
func (s *MMOnly) Working(snapshot []byte) (iccid string, apn modem.APN, ok bool) {
	v, err := parseSnapshot(snapshot)
	if err != nil || v.Bearer == nil || v.ICCID == "" || v.Bearer.Name == "" {
		return "", modem.APN{}, false
	}
	return v.ICCID, v.Bearer.apn(), true
}

// Gate brings the interface and the bearers down, and holds the modem if there
// is an AT port. Nothing comes up until Reread is done.
func (s *MMOnly) Gate(ctx context.Context, snapshot []byte) error {
	v, err := parseSnapshot(snapshot)
	if err != nil {
		return err
	}
	s.keep.drop()
	s.recall(v)
	s.down(ctx)
	if s.at != nil {
		if err := s.seize(ctx); err != nil {
			return fmt.Errorf("gate: %w", err)
		}
		return nil
	}
	m, err := s.mm.Modem(ctx, s.known())
	if err == nil {
		err = s.mm.Disconnect(ctx, m)
	}
	if err != nil && !errors.Is(err, mm.ErrNoModem) { // nothing is up on a modem that is away
		return fmt.Errorf("gate: %w", err)
	}
	return nil
}

// down has the hook take the interface down. That it cannot is no reason to
// stop: the bearer below it goes down all the same.
func (s *MMOnly) down(ctx context.Context) {
	if s.hook == nil {
		return
	}
	s.state.Lock()
	was := s.up
	s.up = carried{}
	s.state.Unlock()
	if was.bearer == "" { // of an earlier life of lpad, or of somebody else
		was.Carrier = Carrier{Backend: "modemmanager"}
		if m, err := s.mm.Modem(ctx, s.known()); err == nil {
			if b, up, err := s.bearer(ctx, m); err == nil && up {
				was.Carrier = carrierOf(b, b.APN, m)
			}
		}
	}
	if was.link.Interface != "" {
		was.Link = was.link
	}
	if _, err := s.hook.Run(ctx, HookDown, was.Carrier); err != nil {
		s.log.Warn("the interface was not taken down", "err", err)
	}
}

func carrierOf(b mm.Bearer, apn modem.APN, m mm.Modem) Carrier {
	c := Carrier{Backend: "modemmanager", Method: b.Method, Link: b.Link, Gateways: b.Gateways, MTU: b.MTU, APN: apn, ICCID: m.SIM.ICCID}
	if c.MTU == 0 {
		c.MTU = apn.MTU
	}
	c.Link.DNS = slices.Compact(slices.Clone(c.Link.DNS)) // some modems tell one twice
	if len(apn.DNS) > 0 {
		c.Link.DNS = apn.DNS
	}
	if b.Method == MethodPPP { // a bearer's interface is the serial device then
		c.Port, c.Link.Interface = "/dev/"+b.Link.Interface, ""
	}
	return c
}

// Apply writes the access points onto the modem, before it reads the SIM again:
// those of other purposes into contexts of their own. That of the device's data
// is kept for the bearer. It says where.
func (s *MMOnly) Apply(ctx context.Context, iccid string, want modem.Settings) ([]string, error) {
	where, missing, err := s.applyToModem(ctx, want, want.Others)
	if err != nil {
		return nil, err
	}
	s.want(access{iccid, want.Default})
	return append(append(where, ViaBearer), missing...), nil
}

func (s *MMOnly) want(a access) {
	s.state.Lock()
	defer s.state.Unlock()
	s.wanted = a
}

// Connect connects the profile's bearer and has the hook bring its interface
// up, trying again until ctx ends. It does not begin before the modem shows the
// profile.
func (s *MMOnly) Connect(ctx context.Context, iccid string) (modem.Link, error) {
	s.state.Lock()
	a := s.wanted
	s.state.Unlock()
	if a.iccid != iccid {
		return modem.Link{}, fmt.Errorf("connect: %w", ErrNotApplied)
	}
	link, err := s.connect(ctx, a)
	if err != nil {
		return modem.Link{}, fmt.Errorf("connect: %w", err)
	}
	return link, nil
}

func (s *MMOnly) connect(ctx context.Context, a access) (modem.Link, error) {
	return persist(ctx, s.log, func(ctx context.Context) (modem.Link, error) { return s.attempt(ctx, a) })
}

func (s *MMOnly) attempt(ctx context.Context, a access) (modem.Link, error) {
	ctx, cancel := context.WithTimeout(ctx, attemptLimit)
	defer cancel()
	m, err := s.mm.WaitSIM(ctx, s.known(), a.iccid, mm.StateDisabled)
	if err != nil {
		return modem.Link{}, err
	}
	b, up, err := s.bearer(ctx, m)
	if err != nil {
		return modem.Link{}, err
	}
	if !up || !sameAccess(b.APN, a.apn) {
		if up {
			if err := s.mm.Disconnect(ctx, m); err != nil {
				return modem.Link{}, err
			}
		}
		if b, err = s.mm.Connect(ctx, m, a.apn); err != nil {
			return modem.Link{}, refusedBearer(a.apn, err)
		}
	}
	m.SIM.ICCID = a.iccid
	return s.raise(ctx, HookUp, b, a.apn, m)
}

// sameAccess: what was connected, which may have been the network's default.
func sameAccess(a, b modem.APN) bool {
	return strings.EqualFold(a.Name, b.Name) && a.User == b.User && a.Password.Reveal() == b.Password.Reveal()
}

// raise has the hook bring up the interface of a bearer.
func (s *MMOnly) raise(ctx context.Context, event string, b mm.Bearer, apn modem.APN, m mm.Modem) (modem.Link, error) {
	if s.hook == nil {
		return modem.Link{}, nil
	}
	c := carrierOf(b, apn, m)
	link, err := s.hook.Run(ctx, event, c)
	if err != nil {
		return modem.Link{}, err
	}
	s.state.Lock()
	defer s.state.Unlock()
	s.up = carried{Carrier: c, bearer: string(b.Path), link: link}
	return link, nil
}

// refusedBearer makes of a failed connection what the network meant by it.
func refusedBearer(apn modem.APN, err error) error {
	var e *systembus.Error
	if !errors.As(err, &e) || !errors.Is(err, systembus.ErrRefused) {
		return err
	}
	name := e.Name[strings.LastIndexByte(e.Name, '.')+1:]
	if !isDefinite(name) && !strings.Contains(e.Name, ".Error.MobileEquipment.") && !strings.Contains(e.Name, ".Error.Connection.") {
		return err
	}
	return &RefusedError{APN: apn.Name, Text: e.Text, Definite: isDefinite(name), cause: err}
}

// Link is the profile's link if its bearer is up now, else [ErrNoLink]. After a
// restart of lpad the hook is asked for its interface (renew).
func (s *MMOnly) Link(ctx context.Context, iccid string) (modem.Link, error) {
	m, err := s.mm.Modem(ctx, s.known())
	if errors.Is(err, mm.ErrNoModem) || err == nil && !mm.SameICCID(m.SIM.ICCID, iccid) {
		return modem.Link{}, ErrNoLink
	}
	if err != nil {
		return modem.Link{}, err
	}
	b, up, err := s.bearer(ctx, m)
	if err != nil {
		return modem.Link{}, err
	}
	s.state.Lock()
	was, a := s.up, s.wanted
	s.state.Unlock()
	switch {
	case !up || a.iccid == iccid && !sameAccess(a.apn, b.APN):
		return modem.Link{}, ErrNoLink
	case was.bearer == string(b.Path):
		return was.link, nil
	}
	return s.raise(ctx, HookRenew, b, b.APN, m)
}

// Commit gives the modem back, if it still is held, and keeps the access point
// of the profile: lpad connects it again when it drops.
func (s *MMOnly) Commit(ctx context.Context, iccid string) error {
	if err := s.stay(ctx); err != nil {
		return fmt.Errorf("commit: %w", err)
	}
	s.state.Lock()
	a := s.wanted
	s.state.Unlock()
	if a.iccid == iccid {
		s.keep.keep(a)
	}
	return s.Online(ctx)
}

// Restore puts back what the snapshot holds: the modem's contexts and the
// bearer that was up, with its interface. The profile of before must have been
// enabled on the card again: the modem reads the card again, and Restore waits
// for that profile.
//
// It goes on after an error, so as to put back as much as it can. That there is
// no network at the moment is nothing to undo: the link is zero then.
func (s *MMOnly) Restore(ctx context.Context, snapshot []byte) (modem.Link, error) {
	v, err := parseSnapshot(snapshot)
	if err != nil {
		return modem.Link{}, err
	}
	s.recall(v)
	s.want(access{})
	var failed []error
	if s.at != nil {
		failed = append(failed, s.seize(ctx))
	}
	failed = append(failed, s.restoreContexts(ctx, v), s.restoreSIM(ctx, v))
	var link modem.Link
	if v.Bearer != nil && v.ICCID != "" {
		a := access{v.ICCID, v.Bearer.apn()}
		s.keep.keep(a)
		bounded, cancel := context.WithTimeout(ctx, returnLimit)
		link, err = s.connect(bounded, a)
		cancel()
		if err != nil && errors.Join(failed...) == nil {
			s.log.Warn("the old bearer is not up yet", "err", err)
			err = nil
		}
		failed = append(failed, err)
	}
	return link, s.restored(v, failed)
}

// Forget drops what is kept for a profile that has been deleted.
func (s *MMOnly) Forget(_ context.Context, iccid string) error {
	s.keep.forget(iccid)
	return nil
}

// Borrow is [ManagerStack.Borrow]; the interface is taken down first.
func (s *MMOnly) Borrow(ctx context.Context) error {
	return s.borrow(ctx, func(ctx context.Context, m mm.Modem) (interrupted, error) {
		b, up, err := s.bearer(ctx, m)
		if err != nil || !up {
			return interrupted{}, err
		}
		c := save(modem.Context{APN: b.APN})
		return interrupted{bearer: &c, iccid: m.SIM.ICCID}, nil
	})
}

// GiveBack ends Borrow. What went down is connected again soon, for
// ModemManager does not do that by itself, or by [MMOnly.Online].
func (s *MMOnly) GiveBack(ctx context.Context) error {
	s.mu.Lock()
	what, held := s.returning, s.hold != nil && !s.gated
	s.mu.Unlock()
	err := s.managed.GiveBack(ctx)
	if held && what.bearer != nil {
		s.keep.lend(access{what.iccid, what.bearer.apn()})
	} else if held {
		s.keep.resume()
	}
	return err
}

// Online connects the bearer that went down at Borrow.
func (s *MMOnly) Online(ctx context.Context) error {
	s.keep.pause()
	defer s.keep.resume()
	return s.online(ctx, func(ctx context.Context, what interrupted) error {
		_, err := s.connect(ctx, access{what.iccid, what.bearer.apn()})
		return err
	})
}
