package network

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"lpad/internal/fault"
	"lpad/internal/systembus"
	"lpad/modem"
	"lpad/modem/mm"
	"lpad/modem/nm"
)

// Register waits until a network serves the modem.
func (s *managed) Register(ctx context.Context) (modem.Registration, error) {
	var refused refusal
	for {
		bounded, cancel := context.WithTimeout(ctx, registerPoll)
		s.awake(bounded)
		m, err := s.mm.WaitRegistered(bounded, s.known())
		cancel()
		var waiting *mm.WaitingError
		switch {
		case err == nil:
			return m.Registration, nil
		case ctx.Err() != nil:
			return modem.Registration{}, fmt.Errorf("register: %w: %w", ctx.Err(), err)
		case refused.stays(errors.As(err, &waiting) && waiting.Modem.Registration.State == modem.Denied):
			return modem.Registration{}, fmt.Errorf("register: refused for %v: %w", refusalLimit, waiting)
		}
	}
}

// awake has ModemManager enable a modem that nobody else would: NetworkManager
// does that where it runs.
func (s *managed) awake(ctx context.Context) {
	if !s.alone {
		return
	}
	m, err := s.mm.Modem(ctx, s.known())
	if err != nil || m.State != mm.StateDisabled {
		return // what is wrong is told by who waits
	}
	if err := s.mm.Enable(ctx, m, true); err != nil && ctx.Err() == nil {
		s.log.Debug("the modem was not enabled", "err", err)
	}
}

// A refusal by one network is often followed by another network's acceptance,
// and a modem that is still looking says so in between. One that says nothing
// but that it is refused for refusalLimit is not waited for any longer: the
// time belongs to the other access points, or to the way back.
const (
	refusalLimit = 30 * time.Second
	registerPoll = 5 * time.Second
)

// refusal measures how long the network's no has lasted.
type refusal struct{ since time.Time }

// stays takes what the modem says now, and reports whether that is final.
func (r *refusal) stays(denied bool) bool {
	switch {
	case !denied:
		r.since = time.Time{}
	case r.since.IsZero():
		r.since = time.Now()
	}
	return denied && time.Since(r.since) >= refusalLimit
}

// SIM is the subscription that ModemManager shows.
func (s *managed) SIM(ctx context.Context) (modem.SIM, error) {
	m, err := s.mm.Modem(ctx, s.known())
	return m.SIM, err
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
	return persist(ctx, s.log, func(ctx context.Context) (modem.Link, error) { return s.attempt(ctx, iccid, uuid) })
}

// persist makes attempts until one succeeds, the network's refusal is final, or
// ctx ends.
func persist(ctx context.Context, log *slog.Logger, attempt func(context.Context) (modem.Link, error)) (modem.Link, error) {
	var last error
	var refused refusals
	for {
		link, err := attempt(ctx)
		pause := retryInterval
		var hook *HookError
		switch {
		case err == nil:
			return link, nil
		case errors.Is(err, ErrNotApplied) || errors.Is(err, systembus.ErrDenied) || errors.As(err, &hook) && !hook.Fault().Retry:
			return modem.Link{}, err
		case refused.stays(err):
			return modem.Link{}, fmt.Errorf("refused %d times: %w", refused.n, err)
		case last == nil || ctx.Err() == nil && !refused.outweigh(err):
			last = err // what the end of ctx cuts short says less than what went wrong before
		}
		if refused.n > 0 || hook != nil {
			pause = refusedInterval
		}
		select {
		case <-ctx.Done():
			return modem.Link{}, fmt.Errorf("%w; at last: %w", ctx.Err(), last)
		case <-time.After(pause):
			log.Debug("the connection did not come up", "err", last)
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
	return s.up(ctx, con, string(m.Path))
}

// ErrNoLink says that the profile's connection is not up.
var ErrNoLink = fault.New(fault.Fault{Code: "no-link", Text: "the profile's connection is not up", Retry: true, Who: fault.Technician,
	Next: "look at the antenna and the reception, and at the logs of ModemManager and NetworkManager"}, nil)

// Link returns the link of the profile if it is up now, else [ErrNoLink]: that
// of lpad's own connection for the profile, or, for a profile that lpad has no
// connection for, of whatever is up on the modem that shows it.
func (s *ManagerStack) Link(ctx context.Context, iccid string) (modem.Link, error) {
	_, own, err := s.nm.Find(ctx, nm.UUID(iccid))
	if err != nil {
		return modem.Link{}, err
	}
	m, err := s.mm.Modem(ctx, s.known())
	switch {
	case errors.Is(err, mm.ErrNoModem):
		return modem.Link{}, ErrNoLink
	case err != nil:
		return modem.Link{}, err
	}
	active, up, err := s.activeOn(ctx, m)
	switch {
	case err != nil:
		return modem.Link{}, err
	case !up || !active.Activated() || !mm.SameICCID(m.SIM.ICCID, iccid) || own && active.UUID != nm.UUID(iccid):
		return modem.Link{}, ErrNoLink
	}
	return s.nm.Link(ctx, active)
}
