package pcsc

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"lpad/apdu"
)

// Config says which helper and which reader.
type Config struct {
	// Helper is the program: a path, or a name that is looked for in PATH.
	// Empty: "lpad-pcsc".
	Helper string
	// Reader is a part of the reader's name. Of several that fit, the first
	// counts that has a card in it which nobody else uses. Empty: any reader
	// but security tokens.
	Reader string
	// ATR is what the card's answer to reset must look like, in hexadecimal:
	// "?" stands for any digit, and "*" at the end for whatever follows. Spaces
	// and colons do not count. Empty: any card.
	ATR string
	// Timeout is what a command may take. The last block of STORE DATA gets
	// four times as much, since it is what makes an eUICC sign, install and
	// delete. Zero: [DefaultTimeout].
	Timeout time.Duration
	// Shared lets other programs be connected to the card while we do not
	// talk to it. Usually they would only disturb.
	Shared bool
	// Env is added to the environment of the helper, such as
	// "PCSCLITE_CSOCK_NAME=/path/to/pcscd.comm".
	Env []string
}

// DefaultTimeout is for Config.Timeout.
const DefaultTimeout = 30 * time.Second

// How OpenChannel waits for a reader that was lost.
const (
	returnTimeout = 5 * time.Second        // pcscd restarted, card inserted again
	returnPause   = 100 * time.Millisecond // between attempts
	moveAfter     = time.Minute            // whatever was under way with the card has been given up by then
)

func (c Config) withDefaults() Config {
	if c.Helper == "" {
		c.Helper = "lpad-pcsc"
	}
	if c.Timeout <= 0 {
		c.Timeout = DefaultTimeout
	}
	return c
}

// ReaderInfo describes a reader.
type ReaderInfo struct {
	Name        string
	CardPresent bool
	InUse       bool   // some program is connected to the card
	Mute        bool   // the card does not answer to reset
	ATR         []byte // of the card, if there is one
}

// Readers lists the readers, by a helper started for that.
func Readers(ctx context.Context, cfg Config) ([]ReaderInfo, error) {
	cfg = cfg.withDefaults()
	h, err := startHelper(ctx, cfg.Helper, cfg.Env)
	if err != nil {
		return nil, fmt.Errorf("list readers: %w", err)
	}
	defer h.stop()
	return readers(ctx, h)
}

// readers asks a helper for the readers.
func readers(ctx context.Context, h *helper) ([]ReaderInfo, error) {
	f, err := request(ctx, h, "list readers", "", listTimeout, Begin(List))
	if err != nil {
		return nil, err
	}
	var all []ReaderInfo
	for !f.Empty() {
		r := ReaderInfo{Name: f.Text()}
		state := f.Byte()
		r.CardPresent, r.InUse, r.Mute = state&CardPresent != 0, state&InUse != 0, state&Mute != 0
		r.ATR = f.Bytes()
		all = append(all, r)
	}
	if !f.OK() {
		return nil, errFields(h)
	}
	return all, nil
}

// errFields says that an answer is not what the protocol says.
func errFields(h *helper) error {
	return &HelperError{Program: h.program, Reason: "sent an answer that cannot be read"}
}

// request calls the helper and says in errors what was being done. After an
// error that is not a ServiceError the helper is dead.
func request(ctx context.Context, h *helper, op, reader string, d time.Duration, frame []byte) (*Fields, error) {
	start := time.Now()
	f, err := h.call(ctx, d, frame)
	var service *ServiceError
	switch {
	case err == nil:
		return f, nil
	case errors.As(err, &service):
		service.Op, service.Reader = op, reader
		return nil, service
	}
	h.kill()
	if errors.Is(err, context.DeadlineExceeded) {
		return nil, &StuckError{Op: op, Reader: reader, After: time.Since(start), Cause: err}
	}
	return nil, fmt.Errorf("PC/SC %s%s: %w", op, inReader(reader), err)
}

// Card is a card in a reader. It implements apdu.Card and apdu.Transport. For
// concurrent use; requests take turns.
type Card struct {
	cfg  Config
	turn chan struct{} // holds a token while nobody uses what is below

	h          *helper                // nil when there is no connection
	generation int                    // counts connections and resets; channels belong to one
	reader     atomic.Pointer[string] // of the last connection; never changed but in a turn
	atr        []byte
	killed     time.Time // when a helper was killed in the middle of a request; zero after a success
	lost       time.Time // when the connection was
	closed     bool
}

// Open connects to the card.
func Open(ctx context.Context, cfg Config) (*Card, error) {
	c := &Card{cfg: cfg.withDefaults(), turn: make(chan struct{}, 1)}
	if err := c.connect(ctx, ""); err != nil {
		return nil, err
	}
	c.turn <- struct{}{}
	return c, nil
}

// take waits for the turn of the caller.
func (c *Card) take(ctx context.Context) error {
	select {
	case <-c.turn:
	case <-ctx.Done():
		return fmt.Errorf("wait for the card: %w", ctx.Err())
	}
	if c.closed {
		c.give()
		return fmt.Errorf("card was given back: %w", apdu.ErrChannelClosed)
	}
	return nil
}

func (c *Card) give() { c.turn <- struct{}{} }

// connect starts a helper and connects to a reader that fits; only is the name of
// the one that it must be, empty: any.
func (c *Card) connect(ctx context.Context, only string) error {
	h, err := startHelper(ctx, c.cfg.Helper, c.cfg.Env)
	if err != nil {
		return fmt.Errorf("open reader: %w", err)
	}
	if err := c.connectBy(ctx, h, only); err != nil {
		h.stop()
		return fmt.Errorf("open reader: %w", err)
	}
	c.h = h
	c.generation++
	c.killed = time.Time{}
	return nil
}

func (c *Card) connectBy(ctx context.Context, h *helper, only string) error {
	all, err := readers(ctx, h)
	if err != nil {
		return err
	}
	names, err := choose(all, c.cfg, only)
	if err != nil {
		return err
	}
	var first error // of the best one: the others are only what is left
	for _, name := range names {
		if err = c.connectTo(ctx, h, name); !elsewhere(err) {
			return err
		}
		if first == nil {
			first = err
		}
	}
	return first
}

// elsewhere says whether the next reader may be better: this one is somebody
// else's, or its card does not answer.
func elsewhere(err error) bool {
	return errors.Is(err, ErrReaderInUse) || errors.Is(err, ErrCardMute) || errors.Is(err, ErrNoCard)
}

func (c *Card) connectTo(ctx context.Context, h *helper, name string) error {
	exclusive := byte(1)
	if c.cfg.Shared {
		exclusive = 0
	}
	f, err := request(ctx, h, "connect", name, connectTimeout, AppendBytes(append(Begin(Connect), exclusive), name))
	if err != nil {
		return err
	}
	f.Byte() // the protocol is the helper's business
	atr := f.Bytes()
	if !f.OK() {
		return errFields(h)
	}
	if err := greet(ctx, h, name); err != nil {
		return err
	}
	c.atr = atr
	c.reader.Store(&name)
	return nil
}

// terminalCapability is TERMINAL CAPABILITY (ETSI TS 102 221, section 11.1.19):
// extended logical channels, and a device that brings the local functions of an
// eUICC itself (83: LUId, LPDd, LDSd). Some cards keep theirs active, or do not
// answer at all, unless they are told after each reset and before any
// application is selected. A modem says this by itself; in a reader we are the
// terminal.
var terminalCapability = []byte{0x80, 0xAA, 0x00, 0x00, 0x0A, 0xA9, 0x08, 0x81, 0x00, 0x82, 0x01, 0x01, 0x83, 0x01, 0x07}

// greet tells a card that was reset what it is in. What it says to that does
// not count: older cards do not know the command.
func greet(ctx context.Context, h *helper, reader string) error {
	_, err := request(ctx, h, "greet", reader, connectTimeout, AppendBytes(Begin(Transmit), terminalCapability))
	return err
}

// ready makes sure that there is a connection. If it was lost, reader and card
// get some seconds to come back. It must be the same reader: after a restart of
// pcscd the one beside it may be there first, and holds another card. Only when
// it has stayed away for [moveAfter] another one that fits will do.
func (c *Card) ready(ctx context.Context) error {
	if c.h != nil {
		return nil
	}
	waitCtx, cancel := context.WithTimeout(ctx, returnTimeout)
	defer cancel()
	for {
		err := c.connect(ctx, c.Reader())
		ours := errors.Is(err, ErrReaderInUse) && !c.killed.IsZero()
		if err == nil || !passing(err) && !ours {
			return err
		}
		select {
		case <-waitCtx.Done():
			if ours {
				// No other program: pcscd goes on in the name of
				// the helper that was killed, until the driver
				// gives in.
				return &StuckError{Op: "connect", Reader: c.Reader(), After: time.Since(c.killed), Cause: err}
			}
			if ctx.Err() == nil && time.Since(c.lost) > moveAfter && c.connect(ctx, "") == nil {
				return nil
			}
			return err
		case <-time.After(returnPause):
		}
	}
}

// drop ends a connection that is of no use any more, because of err.
func (c *Card) drop(err error) {
	if errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled) {
		c.killed = time.Now()
	}
	if c.h != nil {
		c.h.stop()
		c.h = nil
		c.generation++
		c.lost = time.Now()
	}
}

// Reader gives the name of the reader, without waiting for a turn.
func (c *Card) Reader() string {
	if name := c.reader.Load(); name != nil {
		return *name
	}
	return ""
}

// ATR gives the answer to reset of the card.
func (c *Card) ATR() []byte {
	<-c.turn
	defer c.give()
	return c.atr
}

// BlockSize is how many bytes of data one command may carry: 255.
func (c *Card) BlockSize() int { return 255 }

// Transmit sends a command to the card. If the connection was lost before, it
// connects anew first: the card was reset then, so that only the basic channel
// is of use.
func (c *Card) Transmit(ctx context.Context, command []byte) ([]byte, error) {
	if err := c.take(ctx); err != nil {
		return nil, err
	}
	defer c.give()
	if err := c.ready(ctx); err != nil {
		return nil, err
	}
	return c.transmit(ctx, command)
}

// transmit sends a command over the connection that is there. Any error is the
// end of the connection, since the state of the card is unknown then.
func (c *Card) transmit(ctx context.Context, command []byte) ([]byte, error) {
	f, err := request(ctx, c.h, "transmit", c.Reader(), c.timeout(command), AppendBytes(Begin(Transmit), command))
	if err != nil {
		c.drop(err)
		return nil, err
	}
	response := f.Bytes()
	if !f.OK() || len(response) < 2 {
		err := errFields(c.h)
		c.drop(err)
		return nil, err
	}
	return response, nil
}

// timeout is what a command may take. It grows with the length of the work
// that a command can start (GlobalPlatform STORE DATA, bit 8 of P1: last
// block), not with its bytes.
func (c *Card) timeout(command []byte) time.Duration {
	if len(command) >= 3 && command[0]&0x80 != 0 && command[1] == 0xE2 && command[2]&0x80 != 0 {
		return 4 * c.cfg.Timeout
	}
	return c.cfg.Timeout
}

// OpenChannel opens a channel to an application. If it turns out that the
// connection was lost in the meantime, it connects anew and tries once more:
// nothing has happened on the card by then.
func (c *Card) OpenChannel(ctx context.Context, aid []byte) (*apdu.Channel, error) {
	ch, err := c.openChannel(ctx, aid)
	if passing(err) || crashed(err) {
		ch, err = c.openChannel(ctx, aid)
	}
	return ch, err
}

// crashed says whether the helper failed while it worked.
func crashed(err error) bool {
	var e *HelperError
	return errors.As(err, &e) && !e.Missing
}

func (c *Card) openChannel(ctx context.Context, aid []byte) (*apdu.Channel, error) {
	if err := c.take(ctx); err != nil {
		return nil, err
	}
	err := c.ready(ctx)
	s := &session{c, c.generation}
	c.give()
	if err != nil {
		return nil, err
	}
	return apdu.OpenChannel(ctx, s, aid)
}

// session is the transport of the channels of one generation. A later card has
// forgotten them, so nothing is sent to it in their name.
type session struct {
	c          *Card
	generation int
}

func (s *session) Transmit(ctx context.Context, command []byte) ([]byte, error) {
	if err := s.c.take(ctx); err != nil {
		return nil, err
	}
	defer s.c.give()
	if s.generation != s.c.generation || s.c.h == nil {
		return nil, fmt.Errorf("the card was reset: %w", apdu.ErrChannelClosed)
	}
	return s.c.transmit(ctx, command)
}

// Reset resets the card, warm. Channels of it are dead. Where there is no
// connection, or the reset fails, it connects anew, which resets as well.
func (c *Card) Reset(ctx context.Context) error {
	if err := c.take(ctx); err != nil {
		return err
	}
	defer c.give()
	if c.h != nil {
		f, err := request(ctx, c.h, "reset", c.Reader(), connectTimeout, append(Begin(Reset), ResetCard))
		if err == nil {
			f.Byte()
			if c.atr = f.Bytes(); f.OK() {
				c.generation++
				if err = greet(ctx, c.h, c.Reader()); err == nil {
					return nil
				}
			} else {
				err = errFields(c.h)
			}
		}
		c.drop(err)
		if !passing(err) {
			return err
		}
	}
	return c.ready(ctx)
}

// Close resets the card, so that nobody finds our channels open, and ends the
// helper. It may be called again.
func (c *Card) Close() error {
	<-c.turn
	defer c.give()
	c.closed = true
	if c.h == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), connectTimeout)
	defer cancel()
	_, err := request(ctx, c.h, "disconnect", c.Reader(), connectTimeout, append(Begin(Disconnect), ResetCard))
	c.drop(err)
	if passing(err) {
		return nil // there is nothing to give back
	}
	return err
}
