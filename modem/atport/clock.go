package atport

import (
	"context"
	"time"
)

// Clock is the time that the modem has from the network (AT+CCLK).
func (p *Port) Clock(ctx context.Context) (time.Time, error) {
	_, m, err := p.parts(ctx)
	if err != nil {
		return time.Time{}, err
	}
	return m.Clock(ctx)
}
