package agent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"time"

	"lpad/agent/relay"
	"lpad/agent/rsp/es9p"
)

// Relay has a technician's laptop carry connections to servers, or takes one that
// it was asked for.
func (b *backend) Relay(ctx context.Context, by, connection string, take func() (net.Conn, error)) error {
	if connection != "" {
		return b.relay.Bring(connection, take)
	}
	taken := false
	err := b.relay.Attach(ctx, by, func() (net.Conn, error) {
		conn, err := take()
		if taken = err == nil; taken {
			b.main.Info("a relay is attached; servers are asked through it", "by", by)
		}
		return conn, err
	})
	if taken {
		b.main.Info("the relay is gone", "by", by, "err", err)
	}
	return err
}

// dialer connects to servers: through a relay while one is attached, for a
// technician has attached it on purpose, and if that does not get there, or there
// is none, directly. What is bound to a network interface is about that one, and
// goes over it or not at all.
func dialer(station *relay.Station, device string, log *slog.Logger) es9p.DialFunc {
	direct := es9p.Dialer(device).DialContext
	if device != "" || station == nil {
		return direct
	}
	return func(ctx context.Context, network, address string) (net.Conn, error) {
		first, end := ctx, func() {}
		if at, ok := ctx.Deadline(); ok { // a laptop that does not answer leaves time for the direct way
			first, end = context.WithDeadline(ctx, at.Add(-time.Until(at)/5))
		}
		conn, err := station.Dial(first, address)
		end()
		if errors.Is(err, relay.ErrNone) {
			return direct(ctx, network, address)
		}
		log.Info("connecting through the relay", "address", address, "err", err)
		if err == nil || ctx.Err() != nil {
			return conn, err
		}
		conn, without := direct(ctx, network, address)
		if without != nil {
			return nil, fmt.Errorf("%w; without the relay: %v", err, without)
		}
		return conn, nil
	}
}
