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

// Defaults and bounds.
const (
	// DefaultBlockSize is how many bytes of data one command carries: 250
	// hexadecimal digits and a little more on the line. Full blocks of 255 bytes
	// overrun the line buffer of several modems.
	DefaultBlockSize = 120
	maxBlockSize     = 255

	commandTime   = 30 * time.Second  // for any APDU
	lastBlockTime = 120 * time.Second // for a STORE DATA that the card acts upon
	channelTime   = 10 * time.Second  // for AT+CCHO: a SELECT on the card
	probeTime     = 5 * time.Second   // for what a modem answers at once or never
	lateTime      = 120 * time.Second // for a session that is opened after all; see closeLate
	settleTime    = 5 * time.Second   // for the OK after an answer; some modems forget it

	maxAID    = 16 // ISO 7816-4: an AID has 5 to 16 bytes
	maxHandle = 32 // characters; the longest one known has 16
)

// Options choose what Open does; the zero value is right for most modems.
type Options struct {
	Path      Path          // of the APDUs
	BlockSize int           // bytes of data in one command, 1 to 255; 0: DefaultBlockSize
	Command   time.Duration // bound of one APDU; 0: 30 s
	LastBlock time.Duration // bound of a last STORE DATA block, on which the card acts; 0: 120 s
	Memory    *Memory       // of channels that are ours, for the next Card; nil: one of its own
}

var (
	// ErrTruncated means that the modem announced an answer of another length
	// than it sent: it lost a part, silently.
	ErrTruncated = fault.New(fault.Fault{
		Code: "modem-truncated", Text: "the modem lost a part of the card's answer", Retry: true, Who: fault.Configuration,
		Next: "try a smaller block size or the other AT path for this modem",
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

	mu     sync.Mutex
	path   Path     // Auto until a channel was opened
	using  []string // ids of channels that are open and in use
	closed bool
}

// Open makes a card of a modem. It sends one command, AT+CMEE=1, so that the
// modem gives reasons; whether there is an eUICC shows in OpenChannel. The
// connection stays with the caller, who closes it after the card.
func Open(ctx context.Context, conn *at.Conn, opt Options) (*Card, error) {
	switch {
	case opt.BlockSize == 0:
		opt.BlockSize = DefaultBlockSize
	case opt.BlockSize < 1 || opt.BlockSize > maxBlockSize:
		return nil, fmt.Errorf("open card: block size %d: 1 to %d bytes are possible", opt.BlockSize, maxBlockSize)
	}
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
	return &Card{conn: conn, opt: opt, path: opt.Path}, nil
}

// BlockSize is how many bytes of data one command may carry.
func (c *Card) BlockSize() int { return c.opt.BlockSize }

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
	if err := c.closeLeft(ctx); err != nil {
		return nil, err
	}
	if path == CSIM {
		return c.openByCSIM(ctx, aid)
	}
	ch, first := c.openByCCHO(ctx, aid)
	switch {
	case first == nil:
		c.settle(CCHO)
		return ch, nil
	case path == CCHO, ctx.Err() != nil, !mayBeUnsupported(first):
		return nil, first
	}
	ch, second := c.openByCSIM(ctx, aid)
	var status *apdu.StatusError
	switch {
	case second == nil:
		c.settle(CSIM)
		return ch, nil
	case errors.As(second, &status):
		return nil, second // the card itself has spoken
	case at.Refused(second):
		return nil, fmt.Errorf("%w (and %v)", first, second)
	}
	return nil, fmt.Errorf("%w (after %v)", second, first)
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
	late, forget := c.conn.Notify("+CCHO")
	guess := c.opt.Memory.opening(isSession)
	// Upper case: a Qualcomm based Foxconn refuses lower case (lpac issue 428).
	lines, err := c.conn.Run(ctx, at.Request{Text: fmt.Sprintf(`AT+CCHO="%X"`, aid), Settle: settleTime})
	if lost(err) {
		go c.closeLate(late, forget)
	} else {
		forget()
	}
	if at.Refused(err) {
		c.opt.Memory.closed(guess)
	}
	if err != nil && !errors.Is(err, at.ErrNoFinal) {
		return nil, fmt.Errorf("open channel: %w", cardError(err, true))
	}
	handle, err := parseHandle(lines)
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

// closeLate closes a session that the modem opens when nobody waits for it any
// more: nobody else would, and some modems have only one. It ends with the
// connection at the latest.
func (c *Card) closeLate(late <-chan string, forget func()) {
	defer forget()
	gone := time.NewTimer(lateTime)
	defer gone.Stop()
	select {
	case line, ok := <-late: // not ok: the connection has ended
		handle, err := parseHandle([]string{line})
		if !ok || err != nil {
			return
		}
		// Nobody is left to be told when it does not work.
		_ = c.closeSession(context.Background(), handle)
	case <-gone.C:
	}
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
	guess := b.card.opt.Memory.opening(isChannel)
	response, err := b.card.transmit(ctx, "+CSIM", "AT+CSIM=", command)
	switch {
	case err == nil && len(response) == 3 && response[0] > 0 && response[0] <= maxChannel: // its number, and 9000
		b.card.use(strconv.Itoa(int(response[0])), guess)
	case err == nil, at.Refused(err):
		b.card.opt.Memory.closed(guess)
	}
	return response, err
}

// session is one application by AT+CGLA.
type session struct {
	card   *Card
	handle string
}

func (s *session) Transmit(ctx context.Context, command []byte) ([]byte, error) {
	return s.card.transmit(ctx, "+CGLA", "AT+CGLA="+s.handle+",", command)
}

func (c *Card) transmit(ctx context.Context, name, prefix string, command []byte) ([]byte, error) {
	limit, err := c.limit(command)
	if err != nil {
		return nil, err
	}
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
		return nil, fmt.Errorf("AT%s: %w", name, err)
	}
	return response, nil
}

const insStoreData = 0xE2 // GlobalPlatform, section 11.11

// limit is the bound of an APDU by what the card does upon it. All commands of
// an eUICC come as STORE DATA; only the last block (b8 of P1) makes it work.
func (c *Card) limit(command []byte) (time.Duration, error) {
	const minCommand, maxCommand = 4, 5 + 255 + 1
	if len(command) < minCommand || len(command) > maxCommand {
		return 0, fmt.Errorf("APDU of %d bytes: %d to %d are possible", len(command), minCommand, maxCommand)
	}
	if ins, p1 := command[1], command[2]; ins == insStoreData && p1&0x80 != 0 {
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
