package atmodem

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"lpad/internal/fault"
	"lpad/modem/at"
)

// ErrNoSlots means that no slot command is known for this modem: it has one
// slot, or its maker's word for the others is not in the table of quirks.
var ErrNoSlots = fault.New(fault.Fault{
	Code: "no-slot-command", Text: "lpad knows no command for the SIM slots of this modem", Who: fault.Configuration,
	Next: "if it has several slots, add slot_query and slot_set to a file of quirks of your own",
}, nil)

// slotTime bounds the wait for a slot that was chosen.
const slotTime = 10 * time.Second

// Slot is the SIM slot in use, by the number that the maker of the modem gives it
// (some count from 0), and how many there are; 0 is not known. ErrNoSlots where
// the quirks name no command for it.
func (m *Modem) Slot(ctx context.Context) (active, count int, err error) {
	query := m.quirks.Slots.Query
	if query == "" {
		return 0, 0, fmt.Errorf("read SIM slot: %w", ErrNoSlots)
	}
	name, _, _ := strings.Cut(strings.TrimRight(query[len("AT"):], "?"), "=")
	lines, err := m.ask(ctx, query, name)
	if err != nil {
		return 0, 0, fmt.Errorf("read SIM slot: %w", err)
	}
	if active, ok := parseSlot(lines); ok {
		return active, 0, nil
	}
	return 0, 0, fmt.Errorf("read SIM slot: %w", ErrUnreadable)
}

// parseSlot takes the first number: "+QUIMSLOT: 1", "^SCFG: "SIM/CS","SIM2"",
// "+GTDUALSIM: 0,"SUB1","L"". A name with a number at its end counts as that.
func parseSlot(lines []string) (int, bool) {
	const most = 9 // as many slots as anybody would build
	for _, line := range lines {
		for _, f := range fields(line) {
			f = strings.TrimPrefix(strings.ToUpper(f), "SIM")
			if n, err := strconv.Atoi(f); err == nil && digits(f) && n <= most {
				return n, true
			}
		}
	}
	return 0, false
}

// SetSlot chooses the SIM slot, by the maker's number, and waits until the modem
// says that it is in use, 10 s at most: ErrNotTaken if it does not. The SIM is
// read afterwards as if it had been changed, and channels to the old one are gone.
func (m *Modem) SetSlot(ctx context.Context, slot int) error {
	if m.quirks.Slots.Set == "" {
		return fmt.Errorf("choose SIM slot %d: %w", slot, ErrNoSlots)
	}
	if slot < 0 || slot > 9 {
		return fmt.Errorf("choose SIM slot: %d is none", slot)
	}
	switching, cancel := context.WithTimeout(ctx, powerTime)
	defer cancel()
	if _, err := m.conn.Command(switching, strings.Replace(m.quirks.Slots.Set, "%d", strconv.Itoa(slot), 1)); err != nil {
		return fmt.Errorf("choose SIM slot %d: %w", slot, err)
	}
	if m.quirks.Slots.Query == "" {
		return nil
	}
	waiting, cancel := context.WithTimeout(ctx, slotTime)
	defer cancel()
	err := m.poll(waiting, func() error {
		now, _, err := m.Slot(waiting)
		if at.Refused(err) || errors.Is(err, ErrUnreadable) {
			return &finalError{err} // it is no use to ask
		}
		if err == nil && now != slot {
			err = ErrNotTaken
		}
		return err
	})
	if err != nil {
		return fmt.Errorf("choose SIM slot %d: %w", slot, err)
	}
	return nil
}
