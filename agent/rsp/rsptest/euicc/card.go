package euicc

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"sync"
	"time"

	"lpad/agent/rsp"
	"lpad/agent/rsp/rsptest/pki"
)

// What Transmit returns when there is no answer.
var (
	ErrNoPower    = errors.New("the card has no power")      // after a power cut, until Reset
	ErrAnswerLost = errors.New("the answer was lost")        // the command was executed
	ErrLinkBroken = errors.New("the command did not arrive") // the command was not executed
)

// Card is a software eUICC, powered on. It is safe for concurrent use.
type Card struct {
	config Config // completed by New, never changed

	mu      sync.Mutex    // guards everything below
	stalled chan struct{} // not nil: no command is executed before it is closed

	// Persistent: what a power cut leaves. Changed in place by a function and
	// written as a whole by commit; power on reads it back.
	store Store
	mem   *memory

	// Volatile: what a reset clears.
	on           bool
	channels     map[int]*channel
	session      session
	visible      *fileSystem // of the profile that was enabled at the last reset
	proactive    []byte      // a proactive command that waits for FETCH
	fetched      []byte      // one that was fetched and waits for TERMINAL RESPONSE
	terminalLPAd bool        // TERMINAL CAPABILITY announced an LPAd
	stale        bool        // the modem has to reset the card before ES10 goes on (quirk)

	streaming bool // a Bound Profile Package is being sent
	streamed  int  // bytes of it, as STORE DATA has carried them

	faults  []*armedFault
	outcome outcome // of the APDU in progress
	stats   Stats
	late    time.Duration // of the last answer, against Timing
}

// outcome is what becomes of the answer to the APDU in progress.
type outcome struct {
	err    error  // instead of the answer
	status uint16 // instead of the answer, when not zero
}

// Stats count what has gone over the wire since the card was made or
// [Card.ResetStats] was called.
type Stats struct {
	APDUs    int           // commands, GET RESPONSE included
	Bytes    int           // of commands and responses, status words included
	CardTime time.Duration // by Timing: what the card alone has cost
	Resets   int
}

// New makes a card and powers it on. It fails when the configuration is
// impossible or the store cannot be read.
func New(config Config) (*Card, error) {
	if err := config.check(); err != nil {
		return nil, fmt.Errorf("software eUICC: %w", err)
	}
	if config.Random == nil {
		config.Random = rand.Reader
	}
	if len(config.Identities) == 0 {
		own, err := throwAwayIdentity(config)
		if err != nil {
			return nil, fmt.Errorf("software eUICC: %w", err)
		}
		config.Identities = []Identity{own}
	}
	c := &Card{config: config, store: config.Store}
	if c.store == nil {
		c.store = new(MemoryStore)
	}
	if err := c.format(); err != nil {
		return nil, fmt.Errorf("software eUICC: %w", err)
	}
	for _, f := range config.Faults {
		c.arm(f)
	}
	if err := c.powerOn(); err != nil {
		return nil, fmt.Errorf("software eUICC: %w", err)
	}
	return c, nil
}

// ConfigUnder is a configuration for the eUICC of a PKI, which trusts the CI of
// it; the caller fills in the rest.
func ConfigUnder(p *pki.PKI) Config {
	return Config{
		Identities: []Identity{{EUM: p.EUM.Certificate, EUICC: p.EUICC}},
		Trusted:    []Anchor{AnchorOf(p.CI.Certificate)},
	}
}

// NewIdentity makes a chain for the card under a CI: an EUM whose name
// constraint admits the EID, and the certificate of the eUICC.
func NewIdentity(ci *pki.CI, eid rsp.EID) (Identity, error) {
	eum, err := ci.IssueEUM(pki.EUMOptions{})
	if err != nil {
		return Identity{}, err
	}
	euicc, err := eum.IssueEUICC(eid)
	if err != nil {
		return Identity{}, err
	}
	return Identity{EUM: eum.Certificate, EUICC: euicc}, nil
}

func throwAwayIdentity(config Config) (Identity, error) {
	ci, err := pki.NewCI(pki.P256, "Throw-away CI")
	if err != nil {
		return Identity{}, err
	}
	return NewIdentity(ci, config.EID)
}

// ATR is the answer to reset.
func (c *Card) ATR() []byte {
	if c.config.ATR != nil {
		return append([]byte(nil), c.config.ATR...)
	}
	return append([]byte(nil), defaultATR...)
}

// defaultATR is direct convention, T=0 with TA1=96, and a global interface byte
// TB after T=15 of 82: eUICC functions are supported (ETSI TS 102 221, section
// 6.3.3). The last byte is the check byte.
var defaultATR = withCheck([]byte{0x3B, 0x9F, 0x96, 0x80, 0x3F, 0xC7, 0x82, 0x80, 0x31, 0xE0, 0x73, 0xFE,
	0x21, 0x1B, 0x67, 0x6C, 0x70, 0x61, 0x64, 0x00, 0x00, 0x00})

// withCheck appends TCK: all bytes from T0 on, exclusively ored, are zero
// (ISO/IEC 7816-3, section 8.2.5).
func withCheck(atr []byte) []byte {
	var tck byte
	for _, b := range atr[1:] {
		tck ^= b
	}
	return append(atr, tck)
}

// Reset is a cold reset, and gives power back after a cut.
func (c *Card) Reset() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.stats.Resets++
	if err := c.powerOn(); err != nil {
		c.on = false // a store that cannot be read any more: the card is dead
	}
}

// powerOn clears what is volatile and reads what is persistent.
func (c *Card) powerOn() error {
	mem, err := c.load()
	if err != nil {
		return err
	}
	c.mem, c.on = mem, true
	c.channels = map[int]*channel{0: newChannel(0)}
	c.session, c.streaming = session{}, false
	c.proactive, c.fetched = nil, nil
	c.terminalLPAd, c.stale = false, false
	c.rollBack()
	c.revert()
	c.refreshFiles()
	return nil
}

// refreshFiles lets the modem see the files of the profile that is enabled now.
func (c *Card) refreshFiles() {
	if p := c.mem.enabled(); p != nil {
		c.visible = newFileSystem(p)
		return
	}
	c.visible = bareFileSystem(c.config.Quirks.BareICCID)
}

// Transmit executes one command APDU. The error is one of [ErrNoPower],
// [ErrAnswerLost], [ErrLinkBroken], or that of the context; whatever is wrong
// with the command itself is answered by a status word.
func (c *Card) Transmit(ctx context.Context, command []byte) ([]byte, error) {
	if err := c.lock(ctx); err != nil {
		return nil, err
	}
	defer c.mu.Unlock()
	if !c.on {
		return nil, ErrNoPower
	}
	c.stats.APDUs++
	c.outcome = outcome{}
	clock := c.config.Timing.Clock
	var start time.Time
	if clock != nil {
		start = clock.Now()
	}
	response := c.exchange(command)
	if !c.on {
		c.forget()
	}
	duration := c.config.Timing.PerAPDU + time.Duration(len(command)+len(response))*c.config.Timing.PerByte
	c.stats.Bytes += len(command) + len(response)
	c.stats.CardTime += duration
	if clock != nil {
		if err := c.pass(ctx, clock, start.Add(duration)); err != nil {
			return nil, err
		}
	}
	return response, c.outcome.err
}

// maxLate is how much of a lateness is made good with the next command: the
// imprecision of timers adds up otherwise, a machine that was busy is another
// matter.
const maxLate = 5 * time.Millisecond

// pass waits until a command is due.
func (c *Card) pass(ctx context.Context, clock Clock, due time.Time) error {
	due = due.Add(-c.late)
	if err := clock.Sleep(ctx, due.Sub(clock.Now())); err != nil {
		return err
	}
	c.late = min(max(0, clock.Now().Sub(due)), maxLate)
	return nil
}

// lock takes the card for one command, when it does not stall.
func (c *Card) lock(ctx context.Context) error {
	for {
		if err := ctx.Err(); err != nil {
			return err
		}
		c.mu.Lock()
		stalled := c.stalled
		if stalled == nil {
			return nil
		}
		c.mu.Unlock()
		select {
		case <-stalled:
		case <-ctx.Done():
		}
	}
}

// Stall makes the card stop answering until resume is called: commands wait.
func (c *Card) Stall() (resume func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.stalled == nil {
		c.stalled = make(chan struct{})
	}
	stalled := c.stalled
	return func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		if c.stalled == stalled {
			close(stalled)
			c.stalled = nil
		}
	}
}

// exchange executes a command under the faults that are armed for it.
func (c *Card) exchange(command []byte) []byte {
	fault := c.wireFault(command)
	if fault != nil && !fault.executes() {
		c.spoil(fault)
	}
	var response []byte
	if c.outcome == (outcome{}) {
		response = c.execute(command)
		if fault != nil {
			c.spoil(fault)
		}
	}
	switch {
	case c.outcome.err != nil:
		return nil
	case c.outcome.status != 0:
		return statusWord(c.outcome.status)
	}
	return response
}

// forget leaves what a cut has left: the last commit.
func (c *Card) forget() {
	if mem, err := c.load(); err == nil {
		c.mem = mem
	}
	c.session, c.streaming = session{}, false
}

// cutPower takes the power away at once.
func (c *Card) cutPower() {
	c.on = false
	c.outcome.err = ErrNoPower
}

func statusWord(sw uint16) []byte { return []byte{byte(sw >> 8), byte(sw)} }
