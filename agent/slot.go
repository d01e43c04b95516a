package agent

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"lpad/agent/api"
	"lpad/internal/fault"
)

// Slots are the SIM slots of a modem, by the numbers of its maker;
// modem/atport.Port is one.
type Slots interface {
	Slot(ctx context.Context) (active, count int, err error)
	SetSlot(ctx context.Context, slot int) error
}

// onlySlot is the number of the slot of a modem that does not tell: it has one.
const onlySlot = 1

// slotRestore bounds choosing the slot of before again.
const slotRestore = 30 * time.Second

// activeSlot is the slot in use.
func activeSlot(ctx context.Context, s Slots) (int, error) {
	active, _, err := s.Slot(ctx)
	if err == nil {
		return active, nil
	}
	switch fault.Of(err).Code {
	case "no-slot-command", "modem-not-supported":
		return onlySlot, nil
	}
	return 0, err
}

// checkSlot refuses a card that is not the configured one, because its slot is not
// in use. Nothing is switched for that: the other card may be what the device
// is online with.
func (s *cardSource) checkSlot(ctx context.Context) error {
	if s.slots == nil || s.slot == "" {
		return nil
	}
	active, err := activeSlot(ctx, s.slots)
	if err != nil || strconv.Itoa(active) == s.slot {
		return err
	}
	return fault.New(fault.Fault{Code: "wrong-slot", Text: fmt.Sprintf("SIM slot %d of the modem is active, and the card is in slot %s", active, s.slot), Retry: true,
		Who: fault.Technician, Next: "switch the modem over (lpactl slot set " + s.slot + "), or correct modem.slot in the configuration"}, nil)
}

// Slot tells which slot is in use.
func (b *backend) Slot(ctx context.Context) (api.Slot, error) {
	return b.slot(ctx, func(ctx context.Context, now int) (int, error) { return now, nil })
}

// SetSlot switches the modem to another slot. If no eUICC answers there, it is
// switched back.
func (b *backend) SetSlot(ctx context.Context, by string, wanted int) (api.Slot, error) {
	if own := b.cfg.Modem.Slot; own != "" && own != strconv.Itoa(wanted) {
		return api.Slot{}, fault.New(fault.Fault{Code: api.CodeConflict, Text: "the configuration says that this card is in slot " + own, Who: fault.Configuration,
			Next: "change modem.slot of the card and start lpad again"}, nil)
	}
	out, err := b.slot(ctx, func(ctx context.Context, before int) (int, error) {
		if before == wanted {
			return before, nil
		}
		b.log.Warn("the SIM slot is switched", "from", before, "to", wanted, "by", by)
		err := b.parts.Slots.SetSlot(ctx, wanted)
		if err == nil {
			err = b.answers(ctx)
		}
		if err == nil {
			return wanted, nil
		}
		back, cancel := context.WithTimeout(context.WithoutCancel(ctx), slotRestore)
		defer cancel()
		if undone := b.parts.Slots.SetSlot(back, before); undone != nil {
			b.log.Error("the SIM slot of before cannot be switched back to", "slot", before, "err", undone)
			return 0, errors.Join(err, undone)
		}
		b.log.Warn("the SIM slot is switched back", "to", before, "err", err)
		return 0, fmt.Errorf("slot %d was tried, slot %d is active again: %w", wanted, before, err)
	})
	// Whatever came of it, what is known of the card may be of another one.
	if _, unread := b.runner.Refresh(ctx, 0); unread != nil {
		b.log.Debug("card not read after the slot", "err", unread)
	}
	return out, err
}

// answers opens the eUICC in the slot.
func (b *backend) answers(ctx context.Context) error {
	card, err := b.card.Open(ctx)
	if err != nil {
		return err
	}
	_, err = card.GetEID(ctx)
	return errors.Join(err, card.Close(context.WithoutCancel(ctx)))
}

// slot does something about the slots in the card's turn; do gets the one in use
// and returns the one that is in use then.
func (b *backend) slot(ctx context.Context, do func(ctx context.Context, now int) (int, error)) (api.Slot, error) {
	if b.parts.Slots == nil {
		return api.Slot{}, fault.New(fault.Fault{Code: "no-slots", Text: "the card is in a reader, which has no slots", Who: fault.Technician, Next: "name the card of a modem"}, nil)
	}
	out := api.Slot{Card: b.cfg.Name, Configured: b.cfg.Modem.Slot}
	err := b.runner.WithCard(ctx, func(ctx context.Context) (err error) {
		if t := b.card.turns; t != nil {
			defer func() { err = errors.Join(err, t.end(context.WithoutCancel(ctx))) }()
			if err := t.shared.Borrow(ctx); err != nil {
				return err
			}
		}
		now, err := activeSlot(ctx, b.parts.Slots)
		if err == nil {
			out.Active, err = do(ctx, now)
		}
		return err
	})
	if err != nil {
		return api.Slot{}, err
	}
	return out, nil
}
