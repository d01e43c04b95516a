package network

import (
	"context"
	"errors"
	"fmt"
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

// Apply writes the access point of the profile: onto the modem, before it
// reads the SIM again, and into lpad's own connection for the profile in
// NetworkManager, which is made from nothing and comes up by itself only after
// it has been up, until [ManagerStack.Commit]. It says where. Without an AT port, a modem on
// which ModemManager can write nothing gets the APN when the connection comes
// up: then NetworkManager is the only place.
func (s *ManagerStack) Apply(ctx context.Context, iccid string, want modem.Settings) ([]string, error) {
	apn := want.Default
	var where []string
	if s.at != nil {
		if err := s.seize(ctx); err != nil {
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
	err := s.patiently(ctx, func(ctx context.Context) error {
		_, err := s.nm.Put(ctx, nm.ForProfile(iccid, apn).OnTrial(), nm.OnDisk|nm.Blocked)
		return err
	})
	if err != nil {
		return where, fmt.Errorf("apply: %w", err)
	}
	return append(where, ViaNetworkManager), nil
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

func (s *managed) applyByMM(ctx context.Context, apn modem.APN) ([]string, error) {
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
	if err := s.release(ctx); err != nil {
		return rung, fmt.Errorf("reread: %w", err)
	}
	if _, err := s.mm.WaitSIM(ctx, s.known(), iccid, mm.StateDisabled); err != nil {
		return rung, fmt.Errorf("reread: %w", err)
	}
	return rung, nil
}

func (s *managed) rereadByMM(ctx context.Context, iccid string) (string, error) {
	device := s.known()
	m, err := s.mm.WaitSettled(ctx, device)
	if err != nil {
		return "", fmt.Errorf("reread: %w", err)
	}
	if mm.SameICCID(m.SIM.ICCID, iccid) {
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
		_, err = s.mm.WaitSIM(waiting, device, iccid, mm.StateDisabled)
		cancel()
		if err == nil {
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
