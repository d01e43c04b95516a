package network

import (
	"context"
	"errors"
	"fmt"

	"lpad/modem/mm"
)

// Gate makes sure that nothing attaches or brings up a bearer by itself until
// [ManagerStack.Reread] is done: no mobile connection has autoconnect, and
// ModemManager's hands are off the modem, which also frees its ports. The
// present link goes down with that.
func (s *ManagerStack) Gate(ctx context.Context, snapshot []byte) error {
	v, err := parseSnapshot(snapshot)
	if err != nil {
		return err
	}
	s.recall(v)
	if err := s.silence(ctx, v, ""); err != nil {
		return fmt.Errorf("gate: %w", err)
	}
	if s.at != nil {
		if err := s.seize(ctx); err != nil {
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
	err = s.patiently(ctx, func(ctx context.Context) error {
		active, found, err := s.activeOn(ctx, m)
		if err == nil && found {
			err = s.nm.Deactivate(ctx, active)
		}
		return err
	})
	if err != nil {
		return fmt.Errorf("gate: %w", err)
	}
	return nil
}

// silence takes autoconnect from the connections that could come up on the
// modem, but not from the one with the UUID except.
func (s *ManagerStack) silence(ctx context.Context, v snapshot, except string) error {
	return s.patiently(ctx, func(ctx context.Context) error {
		all, err := s.nm.Mobile(ctx)
		if err != nil {
			return err
		}
		for _, con := range all {
			if con.UUID() == except || !v.ours(con.Settings) {
				continue
			}
			if err := s.nm.SetAutoconnect(ctx, con, false); err != nil {
				return err // also of one that has gone: then the others are looked at anew
			}
		}
		return nil
	})
}

// seize holds the modem and takes it off the network. A modem that does not
// want to go is gated by being held: what it attaches to carries no data.
func (s *managed) seize(ctx context.Context) error {
	if err := s.ensureHold(ctx); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.gated, s.returning = true, interrupted{}
	a, ok := s.at.(Attacher)
	if !ok || s.off {
		return nil
	}
	bounded, cancel := context.WithTimeout(ctx, detachLimit)
	defer cancel()
	s.off = true // also when the answer was lost
	if err := a.Detach(bounded); err != nil {
		s.log.Warn("the modem stays on its network", "err", err)
	}
	return nil
}

// attach lets the modem look for a network again, if we have taken it off.
func (s *managed) attach(ctx context.Context) {
	s.mu.Lock()
	defer s.mu.Unlock()
	a, ok := s.at.(Attacher)
	if !ok || !s.off {
		return
	}
	bounded, cancel := context.WithTimeout(ctx, attachLimit)
	defer cancel()
	if err := a.Attach(bounded); err != nil {
		// As a rule the network's answer; ModemManager asks again.
		s.log.Warn("the modem did not attach at once", "err", err)
	}
	s.off = false
}

// ResetSIM takes the power from the SIM and gives it back, and closes the gate
// again: the modem came back on the air with it.
func (s *managed) ResetSIM(ctx context.Context) error {
	c, ok := s.at.(PowerCycler)
	if !ok {
		return ErrNoPowerCycle
	}
	if err := s.seize(ctx); err != nil {
		return fmt.Errorf("reset sim: %w", err)
	}
	err := c.PowerCycle(ctx)
	s.mu.Lock()
	s.off = false
	s.mu.Unlock()
	if err = errors.Join(err, s.seize(ctx)); err != nil {
		return fmt.Errorf("reset sim: %w", err)
	}
	return nil
}

// ensureHold holds the modem unless it is held; an inhibition that was lost (bus
// or ModemManager restarted) is made anew.
func (s *managed) ensureHold(ctx context.Context) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.hold != nil {
		held, err := s.hold.Held(ctx)
		if held || err != nil {
			return err
		}
		s.hold = nil
	}
	switch m, err := s.mm.Modem(ctx, s.device); {
	case err == nil:
		s.device = m.Device // it may have come back in another place
	case s.device == "":
		return err
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
func (s *managed) release(ctx context.Context) error {
	s.attach(context.WithoutCancel(ctx))
	s.mu.Lock()
	defer s.mu.Unlock()
	s.gated = false
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
