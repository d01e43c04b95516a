package network

import (
	"context"
	"path/filepath"
	"time"

	"lpad/internal/fault"
	"lpad/modem/mm"
)

// returnLimit is how long Online waits for what was up.
const returnLimit = 60 * time.Second

// interrupted is what went down when the modem was borrowed: a connection of
// NetworkManager's, or a bearer.
type interrupted struct {
	uuid   string
	bearer *savedContext
	iccid  string
}

func (i interrupted) isZero() bool { return i.uuid == "" && i.bearer == nil }

// sharing reports whether ModemManager uses lpad's AT port too, so that card
// and network must take turns. While ModemManager does not show the modem, the
// last answer counts.
func (s *managed) sharing(ctx context.Context) bool {
	if s.always || s.port == nil {
		return s.always
	}
	names := namesOf(s.port())
	all, err := s.mm.Modems(ctx)
	s.mu.Lock()
	defer s.mu.Unlock()
	if err != nil || len(all) == 0 {
		return s.both
	}
	s.both = false
	for _, m := range all {
		s.both = s.both || m.Uses(names...)
	}
	return s.both
}

// namesOf are the names that ModemManager may have for a serial device.
func namesOf(path string) []string {
	names := []string{filepath.Base(path)}
	if target, err := filepath.EvalSymlinks(path); err == nil { // a link of udev's
		names = append(names, filepath.Base(target))
	}
	return names
}

// Shares reports whether card and network take turns on one port, as far as it
// is known. They do not if nothing was up on the modem when it was borrowed: then
// the device has another network.
func (s *managed) Shares() bool { return s.turns.Load() }

// ErrPortShared says that the card can be reached only over a port that carries
// the network.
var ErrPortShared = fault.New(fault.Fault{Code: "port-shared-with-bearer", Text: "ModemManager uses lpad's AT port too, and modem.inhibit forbids to take it for the card",
	Who: fault.Configuration, Next: "give lpad a port of its own that ModemManager ignores (udev: ID_MM_PORT_IGNORE), or set modem.inhibit to auto: card and network then take turns"}, nil)

// borrow takes the modem, after it has noted what is up on it.
func (s *managed) borrow(ctx context.Context, whatIsUp func(context.Context, mm.Modem) (interrupted, error)) error {
	shared := s.sharing(ctx)
	s.mu.Lock()
	ours := !shared || s.gated || s.hold != nil
	known := !s.returning.isZero()
	s.mu.Unlock()
	if !shared {
		s.turns.Store(false)
	}
	if ours {
		return nil
	}
	if s.never {
		return ErrPortShared
	}
	if !known {
		waiting, cancel := context.WithTimeout(ctx, settleLimit)
		defer cancel()
		m, err := s.mm.WaitSettled(waiting, s.known())
		if err != nil {
			return err
		}
		up, err := whatIsUp(ctx, m)
		if err != nil {
			return err
		}
		s.learn(m.Device)
		s.mu.Lock()
		s.returning = up
		s.mu.Unlock()
		s.turns.Store(s.always || !up.isZero())
		if !up.isZero() {
			s.log.Info("the card is used over the port of the modem's network: the network is down meanwhile")
		}
	}
	if s.beforeHold != nil {
		s.beforeHold(ctx)
	}
	return s.ensureHold(ctx)
}

// GiveBack ends Borrow. Channels to the card must be closed. It does not wait.
func (s *managed) GiveBack(ctx context.Context) error {
	s.mu.Lock()
	keep := s.gated || s.hold == nil
	s.mu.Unlock()
	if keep {
		return nil
	}
	return s.release(ctx)
}

// online brings up again what went down at Borrow.
func (s *managed) online(ctx context.Context, bring func(context.Context, interrupted) error) error {
	s.mu.Lock()
	what := s.returning
	s.returning = interrupted{}
	s.mu.Unlock()
	if what.isZero() {
		return nil
	}
	bounded, cancel := context.WithTimeout(ctx, returnLimit)
	defer cancel()
	err := bring(bounded, what)
	if err == nil || ctx.Err() != nil {
		return ctx.Err()
	}
	s.log.Warn("what was up before the card was used is not up again", "err", err)
	return nil
}

// Borrow takes the modem from ModemManager so that the AT port, which is its
// own too, can be used for the card. What is up on the modem goes down. With a
// port of lpad's own, and while the modem is held for a switch, there is nothing
// to borrow.
//
// Afterwards NetworkManager brings up by itself what has autoconnect;
// [ManagerStack.Online] brings up whatever was up.
func (s *ManagerStack) Borrow(ctx context.Context) error {
	return s.borrow(ctx, func(ctx context.Context, m mm.Modem) (interrupted, error) {
		active, found, err := s.activeOn(ctx, m)
		if err != nil || !found {
			return interrupted{}, err
		}
		return interrupted{uuid: active.UUID, iccid: m.SIM.ICCID}, nil
	})
}

// Online waits until the connection that went down at Borrow is up again, and
// sees to it that it comes up. That it does not is told by whoever needs it.
func (s *ManagerStack) Online(ctx context.Context) error {
	return s.online(ctx, func(ctx context.Context, what interrupted) error {
		_, err := s.connect(ctx, what.iccid, what.uuid)
		return err
	})
}
