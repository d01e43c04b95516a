package procedure

import (
	"context"
	"errors"
	"fmt"
	"time"

	"lpad/agent/rsp"
	"lpad/agent/rsp/es10"
)

// ProfileManager is a card that manages profiles and tells about them.
type ProfileManager interface {
	ProfileCard
	FactsCard
}

// FindProfile asks the card for one profile.
func FindProfile(ctx context.Context, card FactsCard, iccid rsp.ICCID) (p rsp.Profile, found bool, err error) {
	list, err := card.GetProfilesInfo(ctx, rsp.ByICCID(iccid), es10.ProfileTags()...)
	if es10.IsRefusal(err) { // some cards refuse to search for what is not there
		list, err = card.GetProfilesInfo(ctx, rsp.ProfileSearch{}, es10.ProfileTags()...)
	}
	if err != nil {
		return p, false, err
	}
	for _, p := range list {
		if p.ICCID == iccid {
			return p, true, nil
		}
	}
	return p, false, nil
}

// Enable switches the card to a profile. Nil means that the profile is
// enabled, whether by this call or before it.
//
// The channel may not survive the switch; the error is then an
// [*UnknownOutcomeError] if the answer was lost with it.
func Enable(ctx context.Context, card ProfileManager, iccid rsp.ICCID, refresh es10.RefreshFlag) error {
	op := enabling(ctx, card, refresh)
	op.notFound = rsp.EnableNotFound
	return manage(ctx, card, iccid, iccid, op)
}

// EnableByAID is [Enable] for cards that want to hear the profile's AID, and say
// about the ICCID what they please.
func EnableByAID(ctx context.Context, card ProfileManager, p rsp.Profile, refresh es10.RefreshFlag) error {
	return manage(ctx, card, p.ICCID, p.AID, enabling(ctx, card, refresh))
}

func enabling(ctx context.Context, card ProfileManager, refresh es10.RefreshFlag) operation {
	return operation{
		function: "ES10c.EnableProfile",
		call:     func(id rsp.ProfileID) error { return card.EnableProfile(ctx, id, refresh) },
		already:  rsp.EnableNotDisabled,
		busy:     rsp.EnableCATBusy,
		done:     func(p rsp.Profile, found bool) bool { return found && p.State == rsp.Enabled },
	}
}

// Disable takes a profile out of use. Nil means that the profile is disabled,
// whether by this call or before it. As with [Enable], the channel may be gone.
func Disable(ctx context.Context, card ProfileManager, iccid rsp.ICCID, refresh es10.RefreshFlag) error {
	return manage(ctx, card, iccid, iccid, operation{
		function: "ES10c.DisableProfile",
		call:     func(id rsp.ProfileID) error { return card.DisableProfile(ctx, id, refresh) },
		notFound: rsp.DisableNotFound,
		already:  rsp.DisableNotEnabled,
		busy:     rsp.DisableCATBusy,
		done:     func(p rsp.Profile, found bool) bool { return found && p.State == rsp.Disabled },
	})
}

// Delete deletes a disabled profile for good. There is no way back.
func Delete(ctx context.Context, card ProfileManager, iccid rsp.ICCID) error {
	return manage(ctx, card, iccid, iccid, operation{
		function: "ES10c.DeleteProfile",
		call:     func(id rsp.ProfileID) error { return card.DeleteProfile(ctx, id) },
		notFound: rsp.DeleteNotFound,
		done:     func(_ rsp.Profile, found bool) bool { return !found },
	})
}

// SetNickname names a profile; the empty name removes the nickname.
func SetNickname(ctx context.Context, card ProfileManager, iccid rsp.ICCID, nickname string) error {
	return manage(ctx, card, iccid, iccid, operation{
		function: "ES10c.SetNickname",
		call:     func(rsp.ProfileID) error { return card.SetNickname(ctx, iccid, nickname) },
		done:     func(p rsp.Profile, found bool) bool { return found && p.Nickname == rsp.DisplayText(nickname) },
	})
}

// operation is one change of one profile.
type operation struct {
	function string
	call     func(rsp.ProfileID) error
	notFound error                        // result for which the AID is tried instead of the ICCID
	already  error                        // result that says that it was so before
	busy     error                        // result that says that a toolkit session is in the way
	done     func(rsp.Profile, bool) bool // what the card's list says when it is so
}

// busyTries is how often a card in the middle of a toolkit session with its
// modem is asked once more; such a session is over in a few seconds.
const busyTries = 3

// busyPause is the pause before each; tests shorten it.
var busyPause = 3 * time.Second

// patiently calls, and calls again while the card says that it is busy. In
// between it looks whether the card has done it all the same.
func (op operation) patiently(ctx context.Context, card FactsCard, iccid rsp.ICCID, id rsp.ProfileID) error {
	for tries := 0; ; tries++ {
		err := op.call(id)
		if op.busy == nil || !errors.Is(err, op.busy) || tries == busyTries {
			return err
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(busyPause):
		}
		// A card that does not tell now is asked to do it again.
		if p, found, ferr := FindProfile(ctx, card, iccid); ferr == nil && op.done(p, found) {
			return nil
		}
	}
}

// manage carries out op on a profile that the card is told of as id. After a lost answer, and after the word that it was
// so before, the card's own list decides.
func manage(ctx context.Context, card FactsCard, iccid rsp.ICCID, id rsp.ProfileID, op operation) error {
	err := op.patiently(ctx, card, iccid, id)
	if op.notFound != nil && errors.Is(err, op.notFound) {
		// Cards are known that answer to the AID only.
		p, found, ferr := FindProfile(ctx, card, iccid)
		if ferr != nil || !found || len(p.AID) == 0 {
			return err
		}
		err = op.patiently(ctx, card, iccid, p.AID)
	}
	switch {
	case err == nil:
		return nil
	case lost(err):
	case op.already != nil && errors.Is(err, op.already):
	default:
		return err
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), CancelTimeout)
	defer cancel()
	p, found, ferr := FindProfile(ctx, card, iccid)
	switch {
	case ferr != nil && lost(err):
		return &UnknownOutcomeError{op.function, err}
	case ferr != nil || !op.done(p, found):
		return err
	}
	return nil
}

// MemoryReset wipes what m names. That there was nothing to wipe is no error.
func MemoryReset(ctx context.Context, card ProfileManager, m es10.MemoryReset) error {
	err := card.EUICCMemoryReset(ctx, m)
	if err == nil || errors.Is(err, rsp.MemoryResetNothing) {
		return nil
	}
	if !lost(err) {
		return err
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), CancelTimeout)
	defer cancel()
	gone, ferr := wiped(ctx, card, m)
	switch {
	case ferr != nil:
		return &UnknownOutcomeError{"ES10c.eUICCMemoryReset", err}
	case !gone:
		return err
	}
	return nil
}

// wiped reports whether the card has nothing left of what m names.
func wiped(ctx context.Context, card FactsCard, m es10.MemoryReset) (bool, error) {
	list, err := card.GetProfilesInfo(ctx, rsp.ProfileSearch{}, es10.ProfileTags()...)
	if err != nil {
		return false, fmt.Errorf("after the reset: %w", err)
	}
	for _, p := range list {
		if p.Class == rsp.ClassOperational && m.OperationalProfiles || p.Class == rsp.ClassTest && m.FieldLoadedTestProfiles {
			return false, nil
		}
	}
	return true, nil
}
