package atport

import (
	"context"

	"lpad/modem/atmodem"
)

// Activate brings a context up and reads what the network has given it.
func (p *Port) Activate(ctx context.Context, cid int) (atmodem.Parameters, error) {
	_, m, err := p.parts(ctx)
	if err != nil {
		return atmodem.Parameters{}, err
	}
	return m.Activate(ctx, cid)
}

// Active reports whether a context is up.
func (p *Port) Active(ctx context.Context, cid int) (bool, error) {
	_, m, err := p.parts(ctx)
	if err != nil {
		return false, err
	}
	return m.Active(ctx, cid)
}
