package network

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"lpad/internal/systembus"
	"lpad/modem"
	"lpad/modem/mm"
	"lpad/modem/nm"
)

// Places where Apply has written an APN.
const (
	ViaAT             = "at"                 // +CGDCONT and +CGAUTH, on our own port
	ViaInitialEPS     = "initial-eps-bearer" // ModemManager
	ViaProfileManager = "3gpp-profile"       // ModemManager
	ViaNetworkManager = "networkmanager"     // lpad's connection for the profile
)

// Apply writes the access points of the profile: that of the attach onto the
// modem, before it reads the SIM again, and each into a connection of lpad's own
// in NetworkManager, which is made from nothing. That for the device's data comes
// up by itself only after it has been up, until [ManagerStack.Commit]; those for
// other purposes never do, for a modem has one connection at a time in
// NetworkManager: whoever needs one brings it up. It says where. Without an AT
// port, a modem on which ModemManager can write nothing gets the APN when the
// connection comes up: then NetworkManager is the only place.
func (s *ManagerStack) Apply(ctx context.Context, iccid string, want modem.Settings) ([]string, error) {
	where, missing, err := s.applyToModem(ctx, want, nil)
	if err != nil {
		return nil, err
	}
	err = s.patiently(ctx, func(ctx context.Context) error {
		_, err := s.nm.Put(ctx, nm.ForProfile(iccid, want.Default).OnTrial(), nm.OnDisk|nm.Blocked)
		return err
	})
	if err != nil {
		return where, fmt.Errorf("apply: %w", err)
	}
	where = append(where, ViaNetworkManager)
	keep := []string{nm.UUID(iccid)}
	for i := range want.Others {
		settings, name := nm.ForPurpose(iccid, want.Others[i]), purposesOf(&want.Others[i])
		uuid := settings.Text("connection", "uuid")
		if slices.Contains(keep, uuid) {
			missing = append(missing, notApplied(name, "there is another access point for the same"))
			continue
		}
		keep = append(keep, uuid)
		err := s.patiently(ctx, func(ctx context.Context) error {
			_, err := s.nm.Put(ctx, settings, nm.OnDisk|nm.Blocked)
			return err
		})
		if err != nil {
			missing = append(missing, notApplied(name, err.Error()))
			continue
		}
		where = append(where, ViaNetworkManager+": "+name)
	}
	if err := s.deleteOf(ctx, iccid, keep); err != nil {
		return where, fmt.Errorf("apply: %w", err)
	}
	return append(where, missing...), nil
}

// deleteOf deletes lpad's own connections for a profile, but for some.
func (s *ManagerStack) deleteOf(ctx context.Context, iccid string, keep []string) error {
	return s.patiently(ctx, func(ctx context.Context) error {
		all, err := s.nm.Mobile(ctx)
		for _, con := range all {
			if err == nil && con.Settings.OfProfile(iccid) && !slices.Contains(keep, con.UUID()) {
				err = s.nm.Delete(ctx, con)
			}
		}
		return err
	})
}

// applyToModem writes the access point of the attach onto the modem, and others
// into contexts of their own. It plans what is to be done when the SIM has been
// read, and says what never can be.
func (s *managed) applyToModem(ctx context.Context, want modem.Settings, others []modem.APN) (where, missing []string, err error) {
	var list contextList
	via := ViaAT
	if s.at != nil {
		if err = s.seize(ctx); err == nil {
			err = s.at.SetAPN(ctx, s.cid, *want.AttachAPN())
		}
		where, list = []string{ViaAT}, atContexts{s.at}
	} else {
		waiting, cancel := context.WithTimeout(ctx, settleLimit)
		defer cancel()
		var m mm.Modem
		if m, err = s.mm.WaitSettled(waiting, s.known()); err == nil {
			where, err = s.applyByMM(ctx, m, want.AttachAPN())
		}
		via, list = ViaProfileManager, &mmContexts{s.mm, m}
	}
	if err != nil {
		return nil, nil, fmt.Errorf("apply: %w", err)
	}
	_, placed := s.book.place(ctx, list, s.cid, via, others)
	s.book.plan(&want.Radio, false)
	_, byAT := s.at.(Setter)
	return append(where, placed...), beyond(&want, byAT, true), nil
}

// patiently does something with NetworkManager, again for a while if
// NetworkManager is being restarted: systemd does so when it dies, and what it
// is asked for here must not be half done.
func (s *ManagerStack) patiently(ctx context.Context, f func(context.Context) error) error {
	deadline := time.Now().Add(managerLimit)
	for {
		err := f(ctx)
		if err == nil || !systembus.Transient(err) || time.Now().After(deadline) {
			return err
		}
		s.log.Debug("NetworkManager is away", "err", err)
		select {
		case <-ctx.Done():
			return err
		case <-time.After(retryInterval):
		}
	}
}

func (s *managed) applyByMM(ctx context.Context, m mm.Modem, apn *modem.APN) ([]string, error) {
	var where []string
	for _, try := range []struct {
		name  string
		write func() error
	}{
		{ViaInitialEPS, func() error { return s.mm.SetInitialEPSBearer(ctx, m, *apn) }},
		{ViaProfileManager, func() error {
			_, err := s.mm.SetProfile(ctx, m, s.cid, *apn)
			return err
		}},
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

// Ways of reading the SIM again without an AT port, cheapest first.
const (
	RungNone     = "none"      // the modem followed the card by itself
	RungMMEnable = "mm-enable" // ModemManager disabled and enabled the modem
	RungMMReset  = "mm-reset"  // ModemManager reset it, as its maker's plugin knows how
)

// Reread makes the modem read the card again, gives it back to ModemManager,
// and waits until ModemManager's new object of the modem shows the profile. It
// says by which means. When it fails the modem stays held, so that nothing
// comes up before [ManagerStack.Restore].
func (s *managed) Reread(ctx context.Context, iccid string) (string, error) {
	if s.at == nil {
		return s.rereadByMM(ctx, iccid)
	}
	if err := s.seize(ctx); err != nil {
		return "", fmt.Errorf("reread: %w", err)
	}
	rung, err := s.at.Reread(ctx, iccid)
	if err != nil {
		return rung, fmt.Errorf("reread: %w", err)
	}
	s.book.tuneAT(ctx, s.at)
	if err := s.release(ctx); err != nil {
		return rung, fmt.Errorf("reread: %w", err)
	}
	m, err := s.mm.WaitSIM(ctx, s.known(), iccid, mm.StateDisabled)
	if err != nil {
		return rung, fmt.Errorf("reread: %w", err)
	}
	s.book.tuneMM(ctx, s.mm, &m)
	return rung, nil
}

func (s *managed) rereadByMM(ctx context.Context, iccid string) (string, error) {
	device := s.known()
	m, err := s.mm.WaitSettled(ctx, device)
	if err != nil {
		return "", fmt.Errorf("reread: %w", err)
	}
	if mm.SameICCID(m.SIM.ICCID, iccid) {
		s.book.tuneMM(ctx, s.mm, &m)
		return RungNone, nil
	}
	rungs := []struct {
		name string
		pull func(context.Context, mm.Modem) error
	}{{RungMMEnable, s.restartModem}, {RungMMReset, s.mm.Reset}}
	for i, rung := range rungs {
		if m, err = s.mm.WaitSettled(ctx, device); err != nil {
			return rung.name, fmt.Errorf("reread: %w", err)
		}
		bounded, cancel := context.WithTimeout(ctx, enableLimit)
		pulled := rung.pull(bounded, m)
		cancel()
		if pulled != nil {
			s.log.Debug("this way of re-reading the sim does not work here", "rung", rung.name, "err", pulled)
		}
		limit := s.rungWait
		if i == len(rungs)-1 && pulled == nil {
			limit = resetLimit
		}
		waiting, cancel := context.WithTimeout(ctx, limit)
		m, err = s.mm.WaitSIM(waiting, device, iccid, mm.StateDisabled)
		cancel()
		if err == nil {
			s.book.tuneMM(ctx, s.mm, &m)
			return rung.name, nil
		}
		err = errors.Join(err, pulled)
	}
	return rungs[len(rungs)-1].name, fmt.Errorf("reread: %w", err)
}

// restartModem has ModemManager disable and enable the modem, which makes it
// read the SIM data again from a modem that has followed the card.
func (s *managed) restartModem(ctx context.Context, m mm.Modem) error {
	for _, on := range []bool{false, true} {
		if err := s.mm.Enable(ctx, m, on); err != nil {
			return err // often: the object went away because the SIM is another
		}
	}
	return nil
}
