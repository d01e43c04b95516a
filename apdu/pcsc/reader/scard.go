//go:build cgo && !nopcsc

package reader

import (
	"io"

	"github.com/ebfe/scard"

	"lpad/apdu/pcsc"
)

// Serve answers requests from in on out until in ends. It returns the exit
// status of the program, while a PC/SC call may still be going on: exit then.
func Serve(in io.Reader, out, _ io.Writer) int { return serve(in, out, &binding{}) }

// binding calls PC/SC. The zero value has no context yet.
type binding struct {
	ctx  *scard.Context
	card *scard.Card // nil while not connected
	mode scard.ShareMode
}

// explain gives an error of the binding its code.
func explain(err error) error {
	if e, ok := err.(scard.Error); ok {
		return &failure{code: uint32(e), text: e.Error()}
	}
	return err
}

// context makes the PC/SC context when it is first needed. When pcscd was
// restarted a context is dead for good (and IsValid says otherwise): our
// parent then starts a new program.
func (b *binding) context() error {
	if b.ctx != nil {
		return nil
	}
	ctx, err := scard.EstablishContext()
	if err != nil {
		return explain(err)
	}
	b.ctx = ctx
	return nil
}

func (b *binding) list() ([]readerState, error) {
	if err := b.context(); err != nil {
		return nil, err
	}
	names, err := b.ctx.ListReaders()
	if err == scard.ErrNoReadersAvailable || err == nil && len(names) == 0 {
		return nil, nil
	}
	if err != nil {
		return nil, explain(err)
	}
	states := make([]scard.ReaderState, len(names))
	for i, name := range names {
		states[i] = scard.ReaderState{Reader: name, CurrentState: scard.StateUnaware}
	}
	if err := b.ctx.GetStatusChange(states, 0); err != nil && err != scard.ErrTimeout {
		return nil, explain(err)
	}
	all := make([]readerState, len(states))
	for i, s := range states {
		all[i] = readerState{name: s.Reader, atr: s.Atr, state: flag(s.EventState, scard.StatePresent, pcsc.CardPresent) |
			flag(s.EventState, scard.StateInuse|scard.StateExclusive, pcsc.InUse) | flag(s.EventState, scard.StateMute, pcsc.Mute)}
	}
	return all, nil
}

func flag(state, any scard.StateFlag, bit byte) byte {
	if state&any != 0 {
		return bit
	}
	return 0
}

func (b *binding) connect(name string, exclusive bool) (connection, error) {
	if b.card != nil {
		if err := b.disconnect(pcsc.LeaveCard); err != nil {
			return connection{}, err
		}
	}
	if err := b.context(); err != nil {
		return connection{}, err
	}
	b.mode = scard.ShareShared
	if exclusive {
		b.mode = scard.ShareExclusive
	}
	card, err := b.ctx.Connect(name, b.mode, scard.ProtocolAny)
	if err != nil {
		return connection{}, explain(err)
	}
	b.card = card
	return b.begin()
}

// begin takes the transaction and describes the connection. If that does not
// work there is no connection.
func (b *binding) begin() (connection, error) {
	var c connection
	err := b.card.BeginTransaction()
	if err == nil {
		_, c, err = b.status()
	}
	if err != nil {
		// The first error is what counts; of this one nothing can be made.
		_ = b.disconnect(pcsc.LeaveCard)
		return connection{}, explain(err)
	}
	return c, nil
}

// errNotConnected is what PC/SC says to a handle that is none.
func errNotConnected() error { return explain(scard.ErrInvalidHandle) }

func (b *binding) transmit(command []byte) ([]byte, error) {
	if b.card == nil {
		return nil, errNotConnected()
	}
	response, err := b.card.Transmit(command)
	switch {
	case err != nil:
		return nil, explain(err)
	case len(response) < 2:
		// A card pulled out in the middle: no error and no answer.
		return nil, explain(scard.ErrCommDataLost)
	}
	return response, nil
}

func (b *binding) reset(kind byte) (connection, error) {
	if b.card == nil {
		return connection{}, errNotConnected()
	}
	how, ok := dispositions[kind]
	if !ok {
		return connection{}, errRequest
	}
	// The transaction ends with the reset anyway when somebody else did it,
	// so whether it still could be ended does not matter.
	_ = b.card.EndTransaction(scard.LeaveCard)
	if err := b.card.Reconnect(b.mode, scard.ProtocolAny, how); err != nil {
		return connection{}, explain(err)
	}
	return b.begin()
}

var dispositions = map[byte]scard.Disposition{
	pcsc.LeaveCard: scard.LeaveCard, pcsc.ResetCard: scard.ResetCard, pcsc.PowerCard: scard.UnpowerCard,
}

func (b *binding) status() (readerState, connection, error) {
	if b.card == nil {
		return readerState{}, connection{}, errNotConnected()
	}
	s, err := b.card.Status()
	if err != nil {
		return readerState{}, connection{}, explain(err)
	}
	c := connection{atr: s.Atr}
	switch b.card.ActiveProtocol() {
	case scard.ProtocolT0:
	case scard.ProtocolT1:
		c.protocol = 1
	default: // the binding panics at Transmit
		return readerState{}, connection{}, explain(scard.ErrProtoMismatch)
	}
	r := readerState{name: s.Reader, atr: s.Atr, state: pcsc.InUse}
	if s.State&scard.Absent == 0 {
		r.state |= pcsc.CardPresent
	}
	return r, c, nil
}

func (b *binding) disconnect(kind byte) error {
	if b.card == nil {
		return nil
	}
	how, ok := dispositions[kind]
	if !ok {
		return errRequest
	}
	card := b.card
	b.card = nil
	// Disconnecting ends the transaction too; this is for the order of things.
	_ = card.EndTransaction(scard.LeaveCard)
	if err := card.Disconnect(how); err != nil {
		return explain(err)
	}
	return nil
}
