package apdu

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"
)

// Limits of an exchange and of closing.
const (
	MaxResponse  = 128 << 10       // bytes of one response; an icon list has some 10 KiB
	MaxRounds    = 1024            // GET RESPONSE commands for it, even if the pieces are small
	CloseTimeout = 5 * time.Second // for giving a channel back; a card answers this at once or never
)

// Channel is one logical channel with an application selected. One goroutine.
type Channel struct {
	t      Transport
	number int    // of the logical channel; 0 if somebody else sets the channel bits
	id     string // for people
	fci    []byte
	close  func(context.Context) error

	busy   atomic.Bool // asserts the one goroutine
	closed bool
	broken error // the first error of the transport
}

// OpenChannel opens a logical channel on t and selects the application with
// this AID. If that does not work the channel is closed again.
//
// MANAGE CHANNEL has Le 01 (ETSI TS 102 221, section 11.1.17). SELECT has no
// Le: a reader or modem with protocol T=0 would have to take it off, and not
// all do. The file control information then comes by 61xx and GET RESPONSE
// (T=0), at once (T=1), or not at all; all three are fine.
//
// [ErrNoChannel] means that all channels are taken, [ErrNotFound] that the card
// has no such application. When ctx ends before the card has named the channel
// it may stay open until the card is reset.
func OpenChannel(ctx context.Context, t Transport, aid []byte) (*Channel, error) {
	basic := &Channel{t: t}
	r, err := basic.Transmit(ctx, Command{INS: insManageChannel, Le: 1})
	switch {
	case err != nil:
		return nil, fmt.Errorf("open channel: %w", noChannel(err))
	case len(r.Data) == 0 || r.Data[0] < 1 || r.Data[0] > 19:
		return nil, fmt.Errorf("open channel: the card gave no channel number from 1 to 19: %w", ErrNoChannel)
	}
	c := &Channel{t: t, number: int(r.Data[0]), id: fmt.Sprint(r.Data[0])}
	c.close = func(ctx context.Context) error { return manageClose(ctx, t, c.number) }
	r, err = c.Transmit(ctx, Command{INS: insSelect, P1: 0x04, Data: aid})
	if err != nil {
		err = fmt.Errorf("open channel %s: %w", c.id, err)
		if cerr := c.Close(ctx); cerr != nil {
			err = fmt.Errorf("%w (and %v)", err, cerr)
		}
		return nil, err
	}
	c.fci = r.Data
	return c, nil
}

// noChannel gives the status words their meaning for MANAGE CHANNEL open: all
// channels are taken, or there are none.
func noChannel(err error) error {
	var status *StatusError
	if errors.As(err, &status) && (status.SW == 0x6881 || status.SW == 0x6A81 || status.SW == 0x6A84) {
		status.kind = ErrNoChannel
	}
	return err
}

// manageClose gives a channel back. The length byte 00 makes it five bytes,
// which modems want and T=1 cards take for Le.
func manageClose(ctx context.Context, t Transport, number int) error {
	basic := &Channel{t: t}
	_, err := basic.Transmit(ctx, Command{INS: insManageChannel, P1: 0x80, P2: byte(number), Le: 256})
	return err
}

// NewSession makes a Channel of a session that somebody else has opened and
// selected, such as a modem by AT+CCHO: it sets the channel bits of the class
// byte itself, so they stay 0 here. id names the session to people, fci is the
// file control information if it is known, closeFn ends the session and may be
// nil.
func NewSession(t Transport, id string, fci []byte, closeFn func(context.Context) error) *Channel {
	return &Channel{t: t, id: id, fci: fci, close: closeFn}
}

// ID names the channel to people: its number, or the handle of the session.
func (c *Channel) ID() string { return c.id }

// FCI gives the file control information that SELECT gave, or nil.
func (c *Channel) FCI() []byte { return c.fci }

// Transmit sends a command whose class byte is made for channel 0 and gives
// the whole response: it sets the channel bits, repeats the command with the
// length that 6Cxx asks for, and fetches what 61xx announces.
//
// When the status word is not a success the error is a [StatusError], and the
// Response is there too, since some status words come with data. Any other
// error leaves the channel broken, unless it is about the command itself or
// ctx was over before it was sent.
func (c *Channel) Transmit(ctx context.Context, cmd Command) (Response, error) {
	if !c.busy.CompareAndSwap(false, true) {
		return Response{}, fmt.Errorf("%s: %w", instruction(cmd.INS), ErrInUse)
	}
	defer c.busy.Store(false)
	switch {
	case c.closed:
		return Response{}, fmt.Errorf("%s: %w", instruction(cmd.INS), ErrChannelClosed)
	case c.broken != nil:
		return Response{}, fmt.Errorf("%s: %w: %w", instruction(cmd.INS), ErrBroken, c.broken)
	}
	if c.number > 0 {
		cmd.CLA = Class(cmd.CLA, c.number)
	}
	r, err := c.exchange(ctx, cmd)
	if err != nil {
		return Response{}, fmt.Errorf("%s: %w", instruction(cmd.INS), err)
	}
	return r, r.Err(instruction(cmd.INS))
}

// exchange sends cmd and puts the pieces of the response together.
func (c *Channel) exchange(ctx context.Context, cmd Command) (Response, error) {
	r, err := c.fit(ctx, cmd)
	if err != nil || r.SW.SW1() != 0x61 {
		return r, err
	}
	// The pieces are appended to one buffer: those that came are parts of
	// what the transport owns.
	data := append([]byte(nil), r.Data...)
	for rounds := 1; r.SW.SW1() == 0x61; rounds++ {
		if rounds > MaxRounds || len(data) > MaxResponse {
			c.broken = ErrEndless
			return Response{}, fmt.Errorf("%d bytes in %d pieces: %w", len(data), rounds, ErrEndless)
		}
		// The class byte is that of the command; cards take both families.
		r, err = c.fit(ctx, Command{CLA: cmd.CLA, INS: insGetResponse, Le: length(r.SW.SW2())})
		if err != nil {
			c.broken = err // also when ctx ended between two pieces: the rest is lost
			return Response{}, fmt.Errorf("get response: %w", err)
		}
		data = append(data, r.Data...)
	}
	return Response{Data: data, SW: r.SW}, nil
}

// fit sends cmd, and once more if the card names another expected length.
func (c *Channel) fit(ctx context.Context, cmd Command) (Response, error) {
	r, err := c.once(ctx, cmd)
	if err != nil || r.SW.SW1() != 0x6C {
		return r, err
	}
	cmd.Le = length(r.SW.SW2())
	return c.once(ctx, cmd)
}

// once sends cmd and reads the answer. It is the only place that talks to the
// transport, and where a channel breaks.
func (c *Channel) once(ctx context.Context, cmd Command) (Response, error) {
	b, err := cmd.Marshal()
	if err != nil {
		return Response{}, err
	}
	if err := ctx.Err(); err != nil {
		return Response{}, err
	}
	answer, err := c.t.Transmit(ctx, b)
	if err == nil {
		var r Response
		if r, err = ParseResponse(answer); err == nil {
			return r, nil
		}
	}
	var size *BlockSizeError
	var status *StatusError
	if !errors.As(err, &size) && !errors.As(err, &status) { // the card is where it was, or has answered
		c.broken = err
	}
	return Response{}, err
}

// BlockSizeError says that the link to the card does not carry a command of this
// size, and that nothing has come of it: the card is where it was, and the
// channel goes on. A chain of blocks must be begun again with smaller ones. Only
// transports that find out their block size give it ([Card].BlockSize is where
// they stand), and never after a command that the card acts upon was sent.
type BlockSizeError struct {
	Size  int   // bytes of data that the next try may have
	Cause error // what came instead of the card's answer; nil: nothing was sent
}

// Error names the size.
func (e *BlockSizeError) Error() string {
	if e.Cause == nil {
		return fmt.Sprintf("the link wants blocks of at most %d bytes", e.Size)
	}
	return fmt.Sprintf("the link carries no block of this size, at most %d bytes: %v", e.Size, e.Cause)
}

// Unwrap returns the cause.
func (e *BlockSizeError) Unwrap() error { return e.Cause }

// Close gives the channel back to the card. It may be called again, and when
// ctx is over already: it then has [CloseTimeout] of its own. A channel that
// the card has forgotten is closed without an error.
func (c *Channel) Close(ctx context.Context) error {
	if !c.busy.CompareAndSwap(false, true) {
		return fmt.Errorf("close channel %s: %w", c.id, ErrInUse)
	}
	defer c.busy.Store(false)
	if c.closed {
		return nil
	}
	c.closed = true
	if c.close == nil {
		return nil
	}
	// A leaked channel exhausts the card, so closing does not end with ctx.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), CloseTimeout)
	defer cancel()
	var status *StatusError
	err := c.close(ctx)
	switch {
	case err == nil, errors.Is(err, ErrChannelClosed):
		return nil
	case c.broken != nil && errors.As(err, &status):
		return nil // the card was reset meanwhile and knows nothing of the channel
	}
	return fmt.Errorf("close channel %s: %w", c.id, err)
}
