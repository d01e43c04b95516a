// Package atcard is a card behind a modem's AT port: an apdu.Card whose APDUs
// travel in AT commands (3GPP TS 27.007).
//
// There are two paths. With AT+CCHO, AT+CGLA and AT+CCHC the modem opens the
// logical channel, hands out a session handle, and sets the channel bits of the
// class byte itself. With AT+CSIM nothing is rewritten: we open the channel by
// MANAGE CHANNEL and put it into the class byte. Which path works can only be
// learnt by doing: test commands (AT+CCHO=?) fail on modems where the command
// works and succeed where it does not. [Auto] tries the first path and then the
// second, and stays with what worked.
//
//	card, err := atcard.Open(ctx, conn, atcard.Options{})
//	ch, err := card.OpenChannel(ctx, aid)
//	defer ch.Close(ctx)
//
// # Block size
//
// Modems have line buffers of all sizes, and none tells. Unless [Options.BlockSize]
// says it, a card begins with the largest plausible block and goes down, 255, 180,
// 120, 60, 32 bytes, when the modem refuses one, loses a part of it or is silent,
// or when the card gets it damaged (6601, 6700).
//
// There is no probe for that: a harmless command of ES10 that is long does not
// exist, and a chain that is begun and left is one more state that a card may get
// wrong. The first long message does it, and that is AuthenticateServer on a fresh
// modem. A size is only ever tried with the first block of a chain that goes on
// (STORE DATA with P1 b8 0 and P2 00). The card acts on the last block alone, so
// this one may be sent again, smaller, under the same number, even when the answer
// is lost and the card has had it. The transport says so by an
// *apdu.BlockSizeError, and package es10 cuts the message anew; also when the first
// long message of all is a single block, so that the harmless part goes ahead. A
// block that the card acts upon is never sent twice, but for one to which the card
// itself said that it came damaged (6601). When the card does not understand the
// whole of a first long chain, the modem may have lost a part unseen: the error
// goes up with [ErrBlockLost], and the next attempt has smaller blocks.
//
// A size has worked when a chain with it was understood to its end. From then on
// no refusal is taken for one of the size: modems refuse for many reasons.
// [Card.Learned] is for whoever keeps it for the next time ([Options.StartBlock]).
// In the other direction, an answer that lost a part makes later ones be fetched
// in smaller pieces, by GET RESPONSE.
//
// # Time
//
// An APDU may take long: a signature some seconds, the last block of a bound
// profile package or a deletion a minute and more. Each command has its own bound
// (see [Options]), which the context may shorten but not extend. A context that
// ends in the middle of an APDU leaves its outcome unknown: the channel is broken
// (apdu.ErrBroken) and must be opened again. The late answer is thrown away by
// package at; it is never taken for the next one.
//
// # Orphans
//
// A program that dies with a channel open leaves it open in the modem, and so
// does a line that hangs up; some modems have only one. Give the next Card the
// [Memory] of the last one, which may be a file, and what was left open is
// closed before a channel is opened.
//
// # Errors
//
// Refusals are those of package at; where they mean the card, they match
// apdu.ErrNotFound, apdu.ErrNoChannel, apdu.ErrChannelClosed or apdu.ErrBusy
// too. An answer
// that is shorter than it says is [ErrTruncated], never a short response.
package atcard

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"lpad/apdu"
	"lpad/internal/fault"
	"lpad/modem/at"
)

// Path is the way of the APDUs through the modem.
type Path int

// The paths.
const (
	Auto Path = iota // CCHO, and CSIM where that is refused
	CCHO             // AT+CCHO, AT+CGLA, AT+CCHC
	CSIM             // AT+CSIM and our own MANAGE CHANNEL
)

// String is the name of the path's commands.
func (p Path) String() string {
	switch p {
	case CCHO:
		return "AT+CCHO"
	case CSIM:
		return "AT+CSIM"
	}
	return "auto"
}

// DefaultBlockSize is where the search for the block size begins.
const DefaultBlockSize = maxBlockSize

// Defaults and bounds.
const (
	commandTime   = 30 * time.Second  // for any APDU
	lastBlockTime = 120 * time.Second // for a STORE DATA that the card acts upon
	channelTime   = 10 * time.Second  // for AT+CCHO: a SELECT on the card
	probeTime     = 5 * time.Second   // for what a modem answers at once or never
	lateTime      = 120 * time.Second // for a channel that is opened after all; see late
	settleTime    = 5 * time.Second   // for the OK after an answer; some modems forget it

	maxAID     = 16 // ISO 7816-4: an AID has 5 to 16 bytes
	maxHandle  = 32 // characters; the longest one known has 16
	maxRetries = 20 // of opening a channel
)

// Options choose what Open does; the zero value is right for most modems. What a
// person configured goes into Path and BlockSize, what is known of the modem into
// the others.
type Options struct {
	Path      Path          // of the APDUs, no other is tried; Auto: by Paths
	Paths     []Path        // in the order in which they are tried; empty: CCHO, CSIM
	BlockSize int           // bytes of data in one command, 1 to 255, no other is tried; 0: found out
	Start     int           // block size to begin the search with, 1 to 255: that of last time, or what the modem is known for; 0: 255
	Command   time.Duration // bound of one APDU; 0: 30 s
	LastBlock time.Duration // bound of a last STORE DATA block, on which the card acts; 0: 120 s
	ChannelLe int           // Le of MANAGE CHANNEL (open) by AT+CSIM: 0: 1; -1: none; 256: 00
	// Channels is how many logical channels the modem has, when that is so few
	// that those of others are not among them; 0: unknown. When none is free and
	// none is ours, AT+CSIM closes them all: a run before us left them open.
	Channels    int
	OpenRetries int // how often an opening that is refused for the moment is tried again, at most 20
	// TerminalCapability tells the card by AT+CSIM, once after each of its resets
	// ([Card.WasReset]), that the device has a local profile assistant. Some cards
	// hide their ISD-R until then, and most modems say it themselves.
	TerminalCapability bool
	Memory             *Memory // of channels that are ours, for the next Card; nil: one of its own
}

var (
	// ErrTruncated means that the modem announced an answer of another length
	// than it sent: it lost a part, silently.
	ErrTruncated = fault.New(fault.Fault{
		Code: "modem-truncated", Text: "the modem lost a part of the card's answer", Retry: true, Who: fault.Configuration,
		Next: "try a smaller block size or the other AT path for this modem",
	}, nil)
	// ErrBlockLost means that the card did not understand the first long message:
	// the modem may have lost a part of it. From now on blocks are smaller.
	ErrBlockLost = fault.New(fault.Fault{
		Code: "modem-block-size", Text: "a long command did not get through the modem", Retry: true, Who: fault.Device,
		Next: "it is tried again in smaller parts; set card.block_size if that does not end",
	}, nil)
	// ErrMalformed means that the modem's answer cannot be read.
	ErrMalformed = fault.New(fault.Fault{
		Code: "modem-malformed", Text: "the modem's answer cannot be understood", Retry: true, Who: fault.Device,
		Next: "report this with the log of lpad; try the other AT path for this modem",
	}, nil)
)

// Card is the card in the modem's active slot. It implements apdu.Card, and
// apdu.Transport on the basic channel where the modem has AT+CSIM. Like these it
// is for one goroutine at a time; the connection below may be shared.
type Card struct {
	conn *at.Conn
	opt  Options

	turn chan struct{} // holds a token while channels are opened, and while left ones are closed
	late *late         // an opening whose answer is still to come; guarded by turn

	mu     sync.Mutex
	path   Path     // Auto until a channel was opened
	using  []string // ids of channels that are open and in use
	closed bool
	told   bool // TERMINAL CAPABILITY was sent since the last reset
	blocks blocks
}

// Open makes a card of a modem. It sends one command, AT+CMEE=1, so that the
// modem gives reasons; whether there is an eUICC shows in OpenChannel. The
// connection stays with the caller, who closes it after the card.
func Open(ctx context.Context, conn *at.Conn, opt Options) (*Card, error) {
	for _, size := range []int{opt.BlockSize, opt.Start} {
		if size < 0 || size > maxBlockSize {
			return nil, fmt.Errorf("open card: block size %d: 1 to %d bytes are possible", size, maxBlockSize)
		}
	}
	if len(opt.Paths) == 0 {
		opt.Paths = []Path{CCHO, CSIM}
	}
	if opt.Path != Auto {
		opt.Paths = []Path{opt.Path}
	}
	opt.OpenRetries = min(opt.OpenRetries, maxRetries)
	if opt.Command <= 0 {
		opt.Command = commandTime
	}
	if opt.LastBlock <= 0 {
		opt.LastBlock = lastBlockTime
	}
	if opt.Memory == nil {
		opt.Memory = NewMemory("")
	}
	ctx, cancel := context.WithTimeout(ctx, probeTime)
	defer cancel()
	if _, err := conn.Command(ctx, "AT+CMEE=1"); err != nil && !at.Refused(err) {
		return nil, fmt.Errorf("open card: %w", err)
	}
	return &Card{conn: conn, opt: opt, turn: make(chan struct{}, 1), path: opt.Path, blocks: newBlocks(opt.BlockSize, opt.Start)}, nil
}

// BlockSize is how many bytes of data one command may carry, as far as is known
// now.
func (c *Card) BlockSize() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.blocks.size
}

// Learned is what has worked with this modem: the path (Auto: none yet) and the
// block size (0: no long message was sent yet, or it was configured).
func (c *Card) Learned() (Path, int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.path, c.blocks.learned()
}

// WasReset is to be called when the card behind the modem was reset, by us or by
// somebody else: it has to be told again what the terminal can do.
func (c *Card) WasReset() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.told = false
}

// Path is the path in use; Auto as long as no channel was opened.
func (c *Card) Path() Path {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.path
}

// Close ends the use of the card; close its channels before. The connection to
// the modem stays open.
func (c *Card) Close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.closed = true
	return nil
}

// begin gives the path, or an error after Close.
func (c *Card) begin() (Path, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return 0, fmt.Errorf("card in the modem: %w", at.ErrClosed)
	}
	return c.path, nil
}

func (c *Card) settle(p Path) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.path = p
}

// OpenChannel opens a logical channel and selects the application.
// apdu.ErrNotFound means that the card has no such application,
// apdu.ErrNoChannel that no channel is free.
func (c *Card) OpenChannel(ctx context.Context, aid []byte) (*apdu.Channel, error) {
	path, err := c.begin()
	if err != nil {
		return nil, err
	}
	if len(aid) == 0 || len(aid) > maxAID {
		return nil, fmt.Errorf("open channel: AID of %d bytes: 1 to %d are possible", len(aid), maxAID)
	}
	c.turn <- struct{}{}
	defer func() { <-c.turn }()
	swept := false
	for try := 0; ; try++ {
		ch, err := c.open(ctx, path, aid)
		if errors.Is(err, apdu.ErrNoChannel) && !swept && c.closeAll(ctx) {
			swept = true
			ch, err = c.open(ctx, path, aid)
		}
		if err == nil || try >= c.opt.OpenRetries || ctx.Err() != nil || !passing(err) {
			return ch, err
		}
		select {
		case <-ctx.Done():
			return nil, errors.Join(ctx.Err(), err)
		case <-time.After(retryPause):
		}
	}
}

// retryPause is between two attempts to open a channel.
const retryPause = 500 * time.Millisecond

// passing reports whether a refusal to open may be over in a moment. Silence is
// not among them: it has had its time.
func passing(err error) bool {
	return errors.Is(err, apdu.ErrNoChannel) || !errors.Is(err, apdu.ErrNotFound) && !errors.Is(err, at.ErrNoSIM) && !errors.Is(err, at.ErrLocked) && at.Refused(err)
}

// open is one attempt.
func (c *Card) open(ctx context.Context, path Path, aid []byte) (*apdu.Channel, error) {
	if err := c.settleLate(ctx); err != nil {
		return nil, err
	}
	if err := c.closeLeft(ctx); err != nil {
		return nil, err
	}
	if err := c.tell(ctx); err != nil {
		return nil, err
	}
	paths := c.opt.Paths
	if path != Auto {
		paths = []Path{path}
	}
	var first error
	for i, p := range paths {
		ch, err := c.openBy(ctx, p, aid)
		if err == nil {
			c.settle(p)
			return ch, nil
		}
		last := i == len(paths)-1 || ctx.Err() != nil
		var status *apdu.StatusError
		switch {
		case !last && p == CCHO && mayBeUnsupported(err), !last && p == CSIM && (mayBeUnsupported(err) || errors.Is(err, apdu.ErrNoChannel)):
			if first == nil {
				first = err
			}
		case first == nil, errors.As(err, &status), p == CCHO && errors.Is(err, apdu.ErrNotFound):
			return nil, err // the card itself has spoken
		case at.Refused(err):
			return nil, fmt.Errorf("%w (and %v)", first, err)
		default:
			return nil, fmt.Errorf("%w (after %v)", err, first)
		}
	}
	return nil, first
}

func (c *Card) openBy(ctx context.Context, p Path, aid []byte) (*apdu.Channel, error) {
	if p == CSIM {
		return c.openByCSIM(ctx, aid)
	}
	return c.openByCCHO(ctx, aid)
}

// closeAll frees the channels of a modem that has only a few, unless one of them
// is in use; see [Options.Channels]. Whether it helped shows at the next opening.
func (c *Card) closeAll(ctx context.Context) (tried bool) {
	c.mu.Lock()
	used := len(c.using) > 0
	c.mu.Unlock()
	if used || c.opt.Channels == 0 {
		return false
	}
	for n := 1; n <= min(c.opt.Channels, maxChannel); n++ {
		if c.CloseStale(ctx, strconv.Itoa(n)) != nil {
			break // the line is silent or gone
		}
	}
	return true
}

// terminalCapability is TERMINAL CAPABILITY (ETSI TS 102 221, section 11.1.19):
// extended logical channels, and local functions of an eUICC in the device (83).
var terminalCapability = []byte{0x80, 0xAA, 0x00, 0x00, 0x0A, 0xA9, 0x08, 0x81, 0x00, 0x82, 0x01, 0x01, 0x83, 0x01, 0x07}

// tell sends it where the card needs it. A card that does not know it, and a
// modem without AT+CSIM, are no error.
func (c *Card) tell(ctx context.Context) error {
	c.mu.Lock()
	needed := c.opt.TerminalCapability && !c.told
	c.mu.Unlock()
	if !needed {
		return nil
	}
	if _, err := c.send(ctx, "+CSIM", "AT+CSIM=", terminalCapability, probeTime); err != nil && (ctx.Err() != nil || c.conn.Err() != nil) {
		return fmt.Errorf("tell the card what the terminal can do: %w", err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.told = true
	return nil
}

// mayBeUnsupported tells the refusals (and the silence) that say more about the
// modem than about the card. Modems without AT+CCHO, or whose firmware keeps the
// ISD-R to itself there, give ERROR, 3, 4, 50, 100 or a text of their own; some
// give 0 or 13 where there is no eUICC and where there is one. "Not found" (22),
// no SIM, PIN and busy are about the card: AT+CSIM would not do better.
func mayBeUnsupported(err error) bool {
	var cme *at.CMEError
	if errors.As(err, &cme) {
		switch cme.Code {
		case -1, 0, 3, 4, 13, 50, 51, 100:
			return true
		}
		return cme.Code > 150 // codes of makers
	}
	return at.Refused(err) || errors.Is(err, at.ErrTimeout) || errors.Is(err, ErrMalformed)
}

func (c *Card) openByCCHO(ctx context.Context, aid []byte) (*apdu.Channel, error) {
	ctx, cancel := context.WithTimeout(ctx, channelTime)
	defer cancel()
	lines, forget := c.conn.Notify("+CCHO")
	guess := c.opt.Memory.opening(isSession)
	// Upper case: a Qualcomm based Foxconn refuses lower case (lpac issue 428).
	answer, err := c.conn.Run(ctx, at.Request{Text: fmt.Sprintf(`AT+CCHO="%X"`, aid), Settle: settleTime})
	if lost(err) {
		c.awaitLate(lines, forget, guess, sessionOf)
	} else {
		forget()
	}
	if at.Refused(err) {
		c.opt.Memory.closed(guess)
	}
	if err != nil && !errors.Is(err, at.ErrNoFinal) {
		return nil, fmt.Errorf("open channel: %w", cardError(err, true))
	}
	handle, err := parseHandle(answer)
	if err != nil {
		return nil, fmt.Errorf("open channel: AT+CCHO: %w", err)
	}
	id := sessionID + handle
	c.use(id, guess)
	return apdu.NewSession(&session{c, handle}, id, nil, func(ctx context.Context) error {
		err := c.closeSession(ctx, handle)
		c.unuse(id, err == nil)
		return err
	}), nil
}

// use notes a channel that is open now.
func (c *Card) use(id, guess string) {
	c.mu.Lock()
	c.using = append(c.using, id)
	c.mu.Unlock()
	c.opt.Memory.opened(id, guess)
}

// unuse notes the end of a channel. If it is not certain that it is closed, it
// stays in the memory.
func (c *Card) unuse(id string, closed bool) {
	c.mu.Lock()
	c.using = slices.DeleteFunc(c.using, func(other string) bool { return other == id })
	c.mu.Unlock()
	if closed {
		c.opt.Memory.closed(id)
	}
}

// closeLeft closes what was left open before.
func (c *Card) closeLeft(ctx context.Context) error {
	for _, id := range c.opt.Memory.left() {
		c.mu.Lock()
		used := slices.Contains(c.using, id)
		c.mu.Unlock()
		if used {
			continue
		}
		if err := c.CloseStale(ctx, id); err != nil {
			return err // it stays noted
		}
		c.opt.Memory.closed(id)
	}
	return nil
}

// lost reports that a command may be carried out although its answer did not
// come.
func lost(err error) bool {
	return errors.Is(err, at.ErrTimeout) || errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded)
}

func (c *Card) openByCSIM(ctx context.Context, aid []byte) (*apdu.Channel, error) {
	return apdu.OpenChannel(ctx, basic{c}, aid)
}

// sessionID marks a handle of AT+CCHO in Channel.ID, so that CloseStale never
// takes it for the number of a logical channel.
const sessionID = "session:"

// CloseStale closes a channel that an earlier run of the program left open: id
// is its Channel.ID. That it is not open any more is no error, nor is a modem that
// cannot close it. Never call it with an id that was not our own: ModemManager and
// the modem itself have channels too.
func (c *Card) CloseStale(ctx context.Context, id string) error {
	if handle, ok := strings.CutPrefix(id, sessionID); ok {
		if !validHandle(handle) {
			return fmt.Errorf("close stale channel: %q is no channel id", id)
		}
		return c.closeSession(ctx, handle)
	}
	number, err := strconv.Atoi(id)
	if err != nil || number < 1 || number > maxChannel {
		return fmt.Errorf("close stale channel: %q is no channel id", id)
	}
	ctx, cancel := context.WithTimeout(ctx, probeTime)
	defer cancel()
	// MANAGE CHANNEL close, ETSI TS 102 221, section 11.1.17; five bytes, as modems want them.
	_, err = c.transmit(ctx, "+CSIM", "AT+CSIM=", []byte{0x00, 0x70, 0x80, byte(number), 0x00})
	if err != nil && !at.Refused(err) {
		return fmt.Errorf("close stale channel %d: %w", number, err)
	}
	return nil
}

// closeSession ends a session of AT+CCHO. There are modems without AT+CCHC
// (Sierra EM9191: lpac issue 187) and modems that forgot the session: both refuse,
// and nothing more can be done.
func (c *Card) closeSession(ctx context.Context, handle string) error {
	ctx, cancel := context.WithTimeout(ctx, probeTime)
	defer cancel()
	_, err := c.conn.Command(ctx, "AT+CCHC="+handle)
	if err != nil && !at.Refused(err) {
		return fmt.Errorf("close session: %w", err)
	}
	return nil
}

// Transmit sends one raw APDU on the basic channel, by AT+CSIM whatever the
// path of the channels. Where the modem has no AT+CSIM the error matches
// at.ErrError or at.ErrNotSupported.
func (c *Card) Transmit(ctx context.Context, command []byte) ([]byte, error) {
	if _, err := c.begin(); err != nil {
		return nil, err
	}
	c.turn <- struct{}{} // it may be MANAGE CHANNEL
	defer func() { <-c.turn }()
	return basic{c}.Transmit(ctx, command)
}

// MANAGE CHANNEL, ETSI TS 102 221, section 11.1.17.
const (
	insManageChannel = 0x70
	closeChannel     = 0x80 // P1; otherwise one is opened
	maxChannel       = 19
)

// basic is the whole card by AT+CSIM.
type basic struct{ card *Card }

func (b basic) Transmit(ctx context.Context, command []byte) ([]byte, error) {
	if len(command) < 4 || command[1] != insManageChannel {
		return b.card.transmit(ctx, "+CSIM", "AT+CSIM=", command)
	}
	if command[2] == closeChannel {
		response, err := b.card.transmit(ctx, "+CSIM", "AT+CSIM=", command)
		b.card.unuse(strconv.Itoa(int(command[3])), err == nil || at.Refused(err))
		return response, err
	}
	lines, forget := b.card.conn.Notify("+CSIM")
	guess := b.card.opt.Memory.opening(isChannel)
	response, err := b.card.transmit(ctx, "+CSIM", "AT+CSIM=", b.card.withChannelLe(command))
	if err == nil && len(response) == 2 && response[0] == 0x6C { // the card wants the length that it is used to
		response, err = b.card.transmit(ctx, "+CSIM", "AT+CSIM=", append(command[:4:4], response[1]))
	}
	if lost(err) {
		b.card.awaitLate(lines, forget, guess, channelOf)
	} else {
		forget()
	}
	switch number := channelNumber(response); {
	case err == nil && number > 0:
		b.card.use(strconv.Itoa(number), guess)
	case err == nil, at.Refused(err):
		b.card.opt.Memory.closed(guess)
	}
	return response, err
}

// withChannelLe gives MANAGE CHANNEL (open) the Le of the options.
func (c *Card) withChannelLe(command []byte) []byte {
	switch le := c.opt.ChannelLe; {
	case le == 0 || len(command) != 5:
		return command
	case le < 0:
		return command[:4]
	default:
		return append(command[:4:4], byte(le)) // 256 is 00
	}
}

// channelNumber reads the answer to MANAGE CHANNEL (open); 0 is none.
func channelNumber(response []byte) int {
	if len(response) == 3 && response[0] <= maxChannel && response[1] == 0x90 {
		return int(response[0])
	}
	return 0
}

// session is one application by AT+CGLA.
type session struct {
	card   *Card
	handle string
}

func (s *session) Transmit(ctx context.Context, command []byte) ([]byte, error) {
	return s.card.transmit(ctx, "+CGLA", "AT+CGLA="+s.handle+",", command)
}

// transmit sends a command, minding its size; see the package comment.
func (c *Card) transmit(ctx context.Context, name, prefix string, command []byte) ([]byte, error) {
	limit, err := c.limit(command)
	if err != nil {
		return nil, err
	}
	c.mu.Lock()
	t := c.blocks.begin(command)
	c.mu.Unlock()
	if t.known != nil {
		return nil, t.known
	}
	if t.trial && limit > trialTime {
		limit = trialTime
	}
	for again := 0; ; again++ {
		response, err := c.send(ctx, name, prefix, t.command, limit)
		if t.trial && errors.Is(err, at.ErrTimeout) && !c.lives(ctx) {
			return nil, err // the modem is silent to everything: the size is not to blame
		}
		c.mu.Lock()
		if forgotten(response, err) {
			c.told = false
		}
		verdict := c.blocks.judge(t, response, err)
		c.mu.Unlock()
		if verdict == nil && damaged(response) && t.data > 0 && again < damagedTries {
			continue // the card says that it has not got it
		}
		if verdict != nil {
			return nil, verdict
		}
		return response, err
	}
}

// forgotten reports that the card was reset: it does not know the channel any more.
func forgotten(response []byte, err error) bool {
	n := len(response)
	return errors.Is(err, apdu.ErrChannelClosed) || n >= 2 && response[n-2] == 0x68 && response[n-1] == 0x81
}

// lives reports whether a modem that was silent answers something else.
func (c *Card) lives(ctx context.Context) bool {
	ctx, cancel := context.WithTimeout(ctx, aliveTime)
	defer cancel()
	return c.conn.Resync(ctx) == nil
}

// send is one APDU on its way.
func (c *Card) send(ctx context.Context, name, prefix string, command []byte, limit time.Duration) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	command = withoutLe(command)
	text := fmt.Sprintf(`%s%d,"%X"`, prefix, 2*len(command), command) // the length counts digits, not bytes
	lines, err := c.conn.Run(ctx, at.Request{Text: text, Settle: settleTime})
	if err != nil && !errors.Is(err, at.ErrNoFinal) {
		return nil, cardError(err, false)
	}
	response, err := parseResponse(lines, name)
	if err != nil {
		return nil, fmt.Errorf("AT%s: %w", name, c.conn.Blame(err))
	}
	return response, nil
}

const (
	insStoreData   = 0xE2 // GlobalPlatform, section 11.11
	insGetResponse = 0xC0
	lastBlock      = 0x80 // b8 of P1 of STORE DATA
)

// limit is the bound of an APDU by what the card does upon it. All commands of
// an eUICC come as STORE DATA; only the last block (b8 of P1) makes it work.
func (c *Card) limit(command []byte) (time.Duration, error) {
	const minCommand, maxCommand = 4, 5 + 255 + 1
	if len(command) < minCommand || len(command) > maxCommand {
		return 0, fmt.Errorf("APDU of %d bytes: %d to %d are possible", len(command), minCommand, maxCommand)
	}
	if ins, p1 := command[1], command[2]; ins == insStoreData && p1&lastBlock != 0 {
		return c.opt.LastBlock, nil
	}
	return c.opt.Command, nil
}

// withoutLe takes the expected length off a command that has data. The card
// behind most modems speaks T=0, where such a command has none, and not every
// modem takes it off; the data then comes by 61xx.
func withoutLe(command []byte) []byte {
	if len(command) > 5 && len(command) == 5+int(command[4])+1 {
		return command[:len(command)-1]
	}
	return command
}

// cardError adds what a refusal of the modem means for the card.
func cardError(err error, opening bool) error {
	var cme *at.CMEError
	if !errors.As(err, &cme) {
		return err
	}
	switch {
	case cme.Code == 22 && opening:
		return fmt.Errorf("%w: %w", apdu.ErrNotFound, err)
	case cme.Code == 20 && opening:
		return fmt.Errorf("%w: %w", apdu.ErrNoChannel, err)
	case (cme.Code == 21 || cme.Code == 22) && !opening: // the session is gone: the card was reset
		return fmt.Errorf("%w: %w", apdu.ErrChannelClosed, err)
	case errors.Is(err, at.ErrBusy):
		return fmt.Errorf("%w: %w", apdu.ErrBusy, err)
	}
	return err
}

// value finds the answer among the lines: the last one with the name, or, on
// modems that leave the name away (Fibocom FM350: lpac issue 179), the only other.
func value(lines []string, name string) (string, error) {
	bare := ""
	n := 0
	for _, line := range lines {
		if rest, ok := cutName(line, name); ok {
			return rest, nil
		}
		bare = line
		n++
	}
	switch n {
	case 0:
		return "", fmt.Errorf("%w: no answer before the OK", ErrMalformed)
	case 1:
		return strings.TrimSpace(bare), nil
	}
	return "", fmt.Errorf("%w: %d lines, none of them %s", ErrMalformed, n, name)
}

// cutName takes "+CGLA:", "+CGLA :" or "+CGLA=" off a line.
func cutName(line, name string) (rest string, ok bool) {
	if len(line) < len(name) || !strings.EqualFold(line[:len(name)], name) {
		return "", false
	}
	rest = strings.TrimSpace(line[len(name):])
	if rest != "" && (rest[0] == ':' || rest[0] == '=') {
		rest = strings.TrimSpace(rest[1:])
	}
	return rest, true
}

// parseHandle reads the answer to AT+CCHO: an opaque word, which is a number on
// most modems and 16 hexadecimal digits on Sierra's (lpac issue 138).
func parseHandle(lines []string) (string, error) {
	s, err := value(lines, "+CCHO")
	if err != nil {
		return "", err
	}
	s = unquote(s)
	if !validHandle(s) {
		return "", fmt.Errorf("%w: a session handle of %d characters", ErrMalformed, len(s))
	}
	return s, nil
}

// validHandle keeps anything that could be syntax out of our commands.
func validHandle(s string) bool {
	if s == "" || len(s) > maxHandle {
		return false
	}
	for _, r := range s {
		if (r < '0' || r > '9') && (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') {
			return false
		}
	}
	return true
}

// parseResponse reads `+CGLA: 4,"9000"` in all its spellings and holds the
// length against the data. The errors show lengths only.
func parseResponse(lines []string, name string) ([]byte, error) {
	s, err := value(lines, name)
	if err != nil {
		return nil, err
	}
	count, digits, ok := strings.Cut(s, ",")
	announced, err := strconv.Atoi(strings.TrimSpace(count))
	if !ok || err != nil || announced < 0 {
		return nil, fmt.Errorf("%w: no length in the answer", ErrMalformed)
	}
	digits = unquote(digits)
	if len(digits) != announced {
		return nil, fmt.Errorf("%w: %d of %d hexadecimal digits", ErrTruncated, len(digits), announced)
	}
	response, err := hex.DecodeString(digits)
	if err != nil {
		return nil, fmt.Errorf("%w: not hexadecimal", ErrMalformed)
	}
	if len(response) < 2 {
		return nil, fmt.Errorf("%w: %w", ErrMalformed, apdu.ErrResponse)
	}
	return response, nil
}

func unquote(s string) string { return strings.TrimSpace(strings.Trim(strings.TrimSpace(s), `"`)) }
