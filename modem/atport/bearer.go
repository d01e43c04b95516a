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

// Setting reads a setting of the modem's radio.
func (p *Port) Setting(ctx context.Context, name string) ([]string, error) {
	_, m, err := p.parts(ctx)
	if err != nil {
		return nil, err
	}
	return m.Setting(ctx, name)
}

// Set writes a setting of the modem's radio.
func (p *Port) Set(ctx context.Context, name string, want []string) error {
	_, m, err := p.parts(ctx)
	if err != nil {
		return err
	}
	return m.Set(ctx, name, want)
}

// Active reports whether a context is up.
func (p *Port) Active(ctx context.Context, cid int) (bool, error) {
	_, m, err := p.parts(ctx)
	if err != nil {
		return false, err
	}
	return m.Active(ctx, cid)
}
