package atport

import (
	"context"
	"time"
)

// Slot is the SIM slot in use, by the number that the maker of the modem gives
// it, and how many there are (0: not known); see [atmodem.Modem.Slot].
func (p *Port) Slot(ctx context.Context) (active, count int, err error) {
	_, m, err := p.parts(ctx)
	if err != nil {
		return 0, 0, err
	}
	return m.Slot(ctx)
}

// SetSlot chooses the SIM slot. lpad never does it of its own accord: the other
// card may be somebody's only way to the device. All channels must be closed.
func (p *Port) SetSlot(ctx context.Context, slot int) error {
	card, m, err := p.parts(ctx)
	if err != nil {
		return err
	}
	p.seen.Touched()
	p.mu.Lock()
	p.noted, p.after = time.Time{}, ""
	p.mu.Unlock()
	card.WasReset()
	return m.SetSlot(ctx, slot)
}
