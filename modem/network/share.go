package network

import (
	"context"
	"time"
)

// returnLimit is how long [ManagerStack.Online] waits for what was up.
const returnLimit = 60 * time.Second

// interrupted is the connection that went down when the modem was borrowed.
type interrupted struct{ uuid, iccid string }

// Borrow takes the modem from ModemManager so that the AT port, which is its
// own too ([Config.Shared]), can be used for the card. What is up on the modem
// goes down. With a port of lpad's own, and while the modem is held for a
// switch, there is nothing to borrow.
//
// Afterwards NetworkManager brings up by itself what has autoconnect;
// [ManagerStack.Online] brings up whatever was up.
func (s *ManagerStack) Borrow(ctx context.Context) error {
	s.mu.Lock()
	ours := !s.shared || s.gated || s.hold != nil
	known := s.returning.uuid != ""
	s.mu.Unlock()
	if ours {
		return nil
	}
	if !known {
		waiting, cancel := context.WithTimeout(ctx, settleLimit)
		defer cancel()
		m, err := s.mm.WaitSettled(waiting, s.known())
		if err != nil {
			return err
		}
		active, found, err := s.activeOn(ctx, m)
		if err != nil {
			return err
		}
		s.learn(m.Device)
		if found {
			s.mu.Lock()
			s.returning = interrupted{active.UUID, m.SIM.ICCID}
			s.mu.Unlock()
		}
	}
	return s.ensureHold(ctx)
}

// GiveBack ends Borrow. Channels to the card must be closed. It does not wait.
func (s *ManagerStack) GiveBack(ctx context.Context) error {
	s.mu.Lock()
	keep := !s.shared || s.gated
	s.mu.Unlock()
	if keep {
		return nil
	}
	return s.release(ctx)
}

// Online waits until the connection that went down at Borrow is up again, and
// sees to it that it comes up. That it does not is told by whoever needs it.
func (s *ManagerStack) Online(ctx context.Context) error {
	s.mu.Lock()
	what := s.returning
	s.returning = interrupted{}
	s.mu.Unlock()
	if what.uuid == "" {
		return nil
	}
	bounded, cancel := context.WithTimeout(ctx, returnLimit)
	defer cancel()
	_, err := s.connect(bounded, what.iccid, what.uuid)
	if err == nil || ctx.Err() != nil {
		return ctx.Err()
	}
	s.log.Warn("what was up before the card was used is not up again", "err", err)
	return nil
}
