package switchover

import (
	"context"
	"fmt"

	"lpad/modem"
)

// Resetter is a card reader that can reset its card.
type Resetter interface {
	Reset(ctx context.Context) error
}

// RungCardReset is how [Direct] reads a card again.
const RungCardReset = "card-reset"

// Direct is the back-end for a card in a reader, with neither modem nor
// network behind it: the card is read again by resetting it, there is nothing
// to configure, and what must be delivered goes over the device's own network.
// It is [Settings], [Modem] and [Network] at once.
type Direct struct {
	Card Resetter
}

// Snapshot holds nothing.
func (Direct) Snapshot(context.Context) ([]byte, error) { return []byte(`{"direct":true}`), nil }

// Gate has nothing to keep back.
func (Direct) Gate(context.Context, []byte) error { return nil }

// Apply has nowhere to write to.
func (Direct) Apply(context.Context, string, modem.Settings) ([]string, error) { return nil, nil }

// Reread resets the card.
func (d Direct) Reread(ctx context.Context, _ string) (string, error) {
	if err := d.Card.Reset(ctx); err != nil {
		return RungCardReset, fmt.Errorf("reset the card: %w", err)
	}
	return RungCardReset, nil
}

// ResetSIM resets the card.
func (d Direct) ResetSIM(ctx context.Context) error {
	_, err := d.Reread(ctx, "")
	return err
}

// Register knows of no network.
func (Direct) Register(context.Context) (modem.Registration, error) {
	return modem.Registration{State: modem.RegistrationUnknown}, nil
}

// Connect returns the zero link, which means the device's usual route.
func (Direct) Connect(context.Context, string) (modem.Link, error) { return modem.Link{}, nil }

// Link returns the zero link, as Connect does.
func (Direct) Link(context.Context, string) (modem.Link, error) { return modem.Link{}, nil }

// Commit has nothing to keep.
func (Direct) Commit(context.Context, string) error { return nil }

// Restore resets the card, on which the previous profile is enabled again.
func (d Direct) Restore(ctx context.Context, _ []byte) (modem.Link, error) {
	_, err := d.Reread(ctx, "")
	return modem.Link{}, err
}
