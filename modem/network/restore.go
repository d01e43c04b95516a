package network

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"lpad/internal/systembus"
	"lpad/modem"
	"lpad/modem/nm"
)

// Commit makes the profile's connection the only one that comes up on the
// modem by itself, for good. The connections of other profiles stay, without
// autoconnect.
func (s *ManagerStack) Commit(ctx context.Context, iccid string) error {
	if err := s.stay(ctx); err != nil {
		return fmt.Errorf("commit: %w", err)
	}
	if err := s.Online(ctx); err != nil {
		return fmt.Errorf("commit: %w", err)
	}
	waiting, cancel := context.WithTimeout(ctx, settleLimit)
	defer cancel()
	m, err := s.mm.WaitSettled(waiting, s.known())
	if err != nil {
		return fmt.Errorf("commit: %w", err)
	}
	v := snapshot{Device: m.Device, DeviceIdentifier: m.DeviceIdentifier, Control: m.PrimaryPort}
	if err := s.silence(ctx, v, nm.UUID(iccid)); err != nil {
		return fmt.Errorf("commit: %w", err)
	}
	err = s.patiently(ctx, func(ctx context.Context) error {
		con, found, err := s.nm.Find(ctx, nm.UUID(iccid))
		if err == nil && found {
			err = s.nm.Keep(ctx, con)
		}
		return err
	})
	if err != nil {
		return fmt.Errorf("commit: %w", err)
	}
	return nil
}

// stay gives the modem back for good, and clears what the profile of before had
// on it, if it can be asked now.
func (s *managed) stay(ctx context.Context) error {
	s.book.begin()
	switch m, err := s.mm.Modem(ctx, s.known()); {
	case s.at != nil && !s.sharing(ctx):
		s.book.tidy(ctx, atContexts{s.at})
	case s.at == nil && err == nil:
		s.book.tidy(ctx, &mmContexts{s.mm, m})
	}
	return s.release(ctx)
}

// Restore puts back what the snapshot holds: the modem's contexts, every
// connection with all its settings, and the connection that was up. lpad's
// connections that are not in the snapshot are deleted; those that somebody
// else has made since are left alone. If a profile was shown, it must have
// been enabled on the card again before: the modem reads the card again, and
// Restore waits for that profile and its link.
//
// The connections that were not up get their autoconnect last: one of another
// profile, perhaps with a higher priority, would else come up on the modem
// before the right one does.
//
// A link that does not come up although everything is in place is no error if
// NetworkManager will bring it up by itself; the link is zero then.
//
// It goes on after an error, so as to put back as much as it can, and returns
// all of them.
func (s *ManagerStack) Restore(ctx context.Context, snapshot []byte) (modem.Link, error) {
	v, err := parseSnapshot(snapshot)
	if err != nil {
		return modem.Link{}, err
	}
	s.recall(v)
	var failed []error
	if s.at != nil {
		if err := s.seize(ctx); err != nil {
			failed = append(failed, err)
		}
	}
	failed = append(failed, s.restoreContexts(ctx, v), s.patiently(ctx, func(ctx context.Context) error { return s.restoreActive(ctx, v) }), s.restoreSIM(ctx, v))
	var link modem.Link
	if v.Active != "" && v.ICCID != "" {
		connecting, cancel := withReserve(ctx)
		link, err = s.connect(connecting, v.ICCID, v.Active)
		cancel()
		switch {
		case err == nil:
		case errors.Join(failed...) == nil && v.comesUp(v.Active):
			// All is as it was; that there is no network just now (which
			// may be why the switch failed) is nothing to undo.
			s.log.Warn("the old connection is not up yet; NetworkManager brings it up when it can", "err", err)
		default:
			failed = append(failed, err)
		}
	}
	failed = append(failed, s.patiently(ctx, func(ctx context.Context) error { return s.restoreConnections(ctx, v) }))
	return link, s.restored(v, failed)
}

// restored ends a rollback, unless something failed.
func (s *managed) restored(v snapshot, failed []error) error {
	if err := errors.Join(failed...); err != nil {
		return fmt.Errorf("restore: %w", err)
	}
	s.book.finish(v.Book)
	return nil
}

// withReserve leaves a part of the time to what comes after.
func withReserve(ctx context.Context) (context.Context, context.CancelFunc) {
	deadline, ok := ctx.Deadline()
	if !ok {
		return context.WithCancel(ctx)
	}
	const part = 4
	return context.WithDeadline(ctx, deadline.Add(-min(managerLimit, time.Until(deadline)/part)))
}

// restoreActive puts back the connection that was up, and only that one.
func (s *ManagerStack) restoreActive(ctx context.Context, v snapshot) error {
	i := slices.IndexFunc(v.Connections, func(c savedConnection) bool { return c.Settings.Text("connection", "uuid") == v.Active })
	if v.Active == "" || i < 0 {
		return nil
	}
	_, err := s.nm.Put(ctx, v.Connections[i].Settings, v.Connections[i].mode())
	return err
}

func (c savedConnection) mode() nm.Mode {
	if c.InMemory {
		return nm.InMemory
	}
	return nm.OnDisk
}

// comesUp tells whether the connection of this UUID comes up by itself.
func (v snapshot) comesUp(uuid string) bool {
	return slices.ContainsFunc(v.Connections, func(c savedConnection) bool {
		return c.Settings.Text("connection", "uuid") == uuid && c.Settings.Autoconnect()
	})
}

// restoreSIM ends with the modem given back, whatever happens before. The
// settings of the radio are put back on the way.
func (s *managed) restoreSIM(ctx context.Context, v snapshot) error {
	s.book.plan(nil, true)
	if v.ICCID == "" {
		s.book.tuneAT(ctx, s.at)
		err := s.release(ctx)
		if m, merr := s.mm.Modem(ctx, s.known()); merr == nil {
			s.book.tuneMM(ctx, s.mm, &m)
		}
		return err
	}
	_, err := s.Reread(ctx, v.ICCID)
	return errors.Join(err, s.release(ctx))
}

func (s *managed) restoreContexts(ctx context.Context, v snapshot) error {
	if s.at == nil {
		return s.restoreContextsByMM(ctx, v)
	}
	s.book.rollback(ctx, atContexts{s.at})
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

func (s *managed) restoreContextsByMM(ctx context.Context, v snapshot) error {
	waiting, cancel := context.WithTimeout(ctx, settleLimit)
	defer cancel()
	m, err := s.mm.WaitSettled(waiting, v.Device)
	if err != nil {
		return err
	}
	s.book.rollback(ctx, &mmContexts{s.mm, m})
	var failed []error
	if v.InitialEPS != nil {
		failed = append(failed, s.mm.SetInitialEPSBearer(ctx, m, v.InitialEPS.apn()))
	}
	for _, c := range v.Contexts {
		if c.CID == s.cid {
			_, err := s.mm.SetProfile(ctx, m, c.CID, c.apn())
			failed = append(failed, err)
		}
	}
	failed = slices.DeleteFunc(failed, func(err error) bool { return err == nil || errors.Is(err, systembus.ErrUnsupported) })
	return errors.Join(failed...)
}

func (s *ManagerStack) restoreConnections(ctx context.Context, v snapshot) error {
	var failed []error
	for _, saved := range v.Connections {
		if _, err := s.nm.Put(ctx, saved.Settings, saved.mode()); err != nil {
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

// Forget deletes lpad's own connections for a profile, with their credentials:
// for when the profile is deleted from the card. There being none is no error.
func (s *ManagerStack) Forget(ctx context.Context, iccid string) error {
	if err := s.deleteOf(ctx, iccid, nil); err != nil {
		return fmt.Errorf("forget the profile's connections: %w", err)
	}
	return nil
}
