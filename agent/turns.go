package agent

import (
	"context"
	"errors"
	"log/slog"

	"lpad/agent/procedure"
	"lpad/agent/rsp"
	"lpad/apdu"
	"lpad/modem"
)

// Shared is a modem whose only AT port is ModemManager's too: while the card is
// used there is no network, and while there is a network the card cannot be
// used. modem/network.ManagerStack is one.
type Shared interface {
	Borrow(ctx context.Context) error   // the port is ours, the network is down
	GiveBack(ctx context.Context) error // the network may come up
	Online(ctx context.Context) error   // waits until what was up is up again
	// Shares reports whether it is so at all. That is known after the first
	// Borrow: a port of lpad's own needs no turns, nor does a modem on which
	// nothing is up.
	Shares() bool
}

// turns lets the card and the network take turns on a shared modem: a channel is
// opened when the card is asked, and closed before a server is. The eUICC keeps
// a download session over that. It is used by the card's goroutine alone.
type turns struct {
	shared  Shared
	open    func(context.Context) (*apdu.Channel, error)
	log     *slog.Logger
	channel *apdu.Channel // nil: the network's turn

	transmit func(context.Context, *apdu.Channel, apdu.Command) (apdu.Response, error)
}

// card makes it the card's turn.
func (t *turns) card(ctx context.Context) (*apdu.Channel, error) {
	if t.channel != nil {
		return t.channel, nil
	}
	err := t.shared.Borrow(ctx)
	if err == nil {
		t.channel, err = t.open(ctx)
	}
	if err != nil {
		return nil, errors.Join(err, t.end(ctx))
	}
	return t.channel, nil
}

// end is the end of the card's turn.
func (t *turns) end(ctx context.Context) error {
	var err error
	if t.channel != nil {
		err = t.channel.Close(ctx)
		t.channel = nil
	}
	return errors.Join(err, t.shared.GiveBack(ctx))
}

// network makes it the network's turn.
func (t *turns) network(ctx context.Context) error {
	if !t.shared.Shares() {
		return nil
	}
	if err := t.end(ctx); err != nil {
		t.log.Debug("channel not closed", "err", err)
	}
	return t.shared.Online(ctx)
}

// Transmit sends a command to the card, as es10.Channel; the channel is another
// one after a server was asked.
func (t *turns) Transmit(ctx context.Context, cmd apdu.Command) (apdu.Response, error) {
	ch, err := t.card(ctx)
	if err != nil {
		return apdu.Response{}, err
	}
	return t.transmit(ctx, ch, cmd)
}

// identity asks the modem in the card's turn.
func (t *turns) identity(ask func(context.Context) (modem.Identity, error)) func(context.Context) (modem.Identity, error) {
	return func(ctx context.Context) (modem.Identity, error) {
		if t.channel == nil && !t.shared.Shares() {
			return ask(ctx)
		}
		if _, err := t.card(ctx); err != nil {
			return modem.Identity{}, err
		}
		return ask(ctx)
	}
}

// turnedServer is a session with a server that is asked in the network's turn.
type turnedServer struct {
	procedure.Server
	turns *turns
}

func (s turnedServer) InitiateAuthentication(ctx context.Context, challenge, info1 []byte) (rsp.ServerAuthentication, error) {
	if err := s.turns.network(ctx); err != nil {
		return rsp.ServerAuthentication{}, err
	}
	return s.Server.InitiateAuthentication(ctx, challenge, info1)
}

func (s turnedServer) AuthenticateClient(ctx context.Context, id rsp.TransactionID, response []byte) (rsp.ClientAuthenticated, error) {
	if err := s.turns.network(ctx); err != nil {
		return rsp.ClientAuthenticated{}, err
	}
	return s.Server.AuthenticateClient(ctx, id, response)
}

func (s turnedServer) GetBoundProfilePackage(ctx context.Context, id rsp.TransactionID, prepared []byte) ([]byte, error) {
	if err := s.turns.network(ctx); err != nil {
		return nil, err
	}
	return s.Server.GetBoundProfilePackage(ctx, id, prepared)
}

func (s turnedServer) HandleNotification(ctx context.Context, pending []byte) error {
	if err := s.turns.network(ctx); err != nil {
		return err
	}
	return s.Server.HandleNotification(ctx, pending)
}

func (s turnedServer) CancelSession(ctx context.Context, id rsp.TransactionID, response []byte) error {
	if err := s.turns.network(ctx); err != nil {
		return err
	}
	return s.Server.CancelSession(ctx, id, response)
}
