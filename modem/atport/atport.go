// Package atport is one AT port of a modem as a daemon needs it: opened when it
// is first used, closed when somebody else must have it, and opened again after
// the modem went away and came back. The card behind the modem and the modem
// itself share it.
//
//	p := atport.New(atport.Config{Path: "/dev/ttyUSB2"})
//	defer p.Close()
//	ch, err := p.OpenChannel(ctx, aid)      // apdu.Card
//	err = p.SetAPN(ctx, 1, apn)             // what modem/network asks of a modem
//	err = p.Release(ctx)                    // the port is free for others now
//
// What may fail is what its parts say: the port is missing, held by somebody
// else or hung up (modem/serialport), the modem refuses or is silent
// (modem/at), the card (apdu). A line that has hung up or gone silent in the
// middle is given up; the next use opens it anew.
//
// A Port may be used from several goroutines: commands wait for each other in
// modem/at. Channels are for one goroutine each, as always.
package atport

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"time"

	"lpad/apdu"
	"lpad/modem"
	"lpad/modem/at"
	"lpad/modem/atcard"
	"lpad/modem/atmodem"
	"lpad/modem/serialport"
)

// Config says which port, and how it is used.
type Config struct {
	Path string // of the serial device
	Baud int    // 0: 115200; USB modems ignore it
	Card atcard.Options
	// Alone says that nobody else manages the modem: one that is found switched
	// off (AT+CFUN=0) was left so by a re-read that was cut off, and is switched
	// on when the card is needed.
	Alone bool
	// OffMark is a file that is there while a re-read has the modem switched
	// off: whoever manages it, one that was left off by us is switched on again
	// by us, after a kill too. "" remembers it in this process only.
	OffMark string
	Log     *slog.Logger // nil: discards
}

// Port is one AT port. Make it with [New].
type Port struct {
	cfg Config

	mu    sync.Mutex // guards what follows; not held while a command runs
	conn  *at.Conn
	card  *atcard.Card
	modem *atmodem.Modem

	off, offKnown bool // a re-read may have left the modem off; see OffMark
}

// initTimeout bounds the first words with a modem.
const initTimeout = 10 * time.Second

// New makes a port; nothing is opened yet.
func New(cfg Config) *Port {
	if cfg.Baud == 0 {
		cfg.Baud = 115200
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.Card.Memory == nil { // at least from one life of the line to the next
		cfg.Card.Memory = atcard.NewMemory("")
	}
	return &Port{cfg: cfg}
}

// Path is the name of the serial device.
func (p *Port) Path() string { return p.cfg.Path }

// parts returns the open line, opening it if it is closed or has died.
func (p *Port) parts(ctx context.Context) (*atcard.Card, *atmodem.Modem, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.conn != nil {
		select {
		case <-p.conn.Done():
			p.cfg.Log.Info("port lost, opening it again", "port", p.cfg.Path, "err", p.conn.Err())
			if err := p.closeLocked(); err != nil {
				p.cfg.Log.Debug("dead port not closed", "err", err)
			}
		default:
			return p.card, p.modem, nil
		}
	}
	line, err := serialport.Open(p.cfg.Path, p.cfg.Baud)
	if err != nil {
		return nil, nil, err
	}
	conn := at.New(line, at.WithLogger(p.cfg.Log))
	ctx, cancel := context.WithTimeout(ctx, initTimeout)
	defer cancel()
	m := atmodem.New(conn)
	if err := m.Init(ctx); err != nil {
		return nil, nil, errors.Join(fmt.Errorf("modem at %s: %w", p.cfg.Path, err), conn.Close())
	}
	card, err := atcard.Open(ctx, conn, p.cfg.Card)
	if err != nil {
		return nil, nil, errors.Join(fmt.Errorf("card at %s: %w", p.cfg.Path, err), conn.Close())
	}
	p.conn, p.card, p.modem = conn, card, m
	return card, m, nil
}

func (p *Port) closeLocked() error {
	if p.conn == nil {
		return nil
	}
	err := errors.Join(p.card.Close(), p.conn.Close())
	p.conn, p.card, p.modem = nil, nil, nil
	return err
}

// Release closes the line, so that somebody else can use the port. The next
// use opens it again. It is BeforeRelease of a modem/network.ManagerStack that
// shares its port.
func (p *Port) Release(context.Context) error { return p.Close() }

// Close closes the line. Channels must have been closed before.
func (p *Port) Close() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.closeLocked()
}

// OpenChannel opens a logical channel to an application of the card.
func (p *Port) OpenChannel(ctx context.Context, aid []byte) (*apdu.Channel, error) {
	card, m, err := p.parts(ctx)
	if err != nil {
		return nil, err
	}
	ch, err := card.OpenChannel(ctx, aid)
	if at.Refused(err) && !errors.Is(err, apdu.ErrNotFound) && !errors.Is(err, apdu.ErrNoChannel) && (p.cfg.Alone || p.markedOff()) && p.switchedOn(ctx, m) {
		ch, err = card.OpenChannel(ctx, aid)
	}
	if err == nil {
		p.markOff(false)
	}
	return ch, err
}

// markOff notes that a re-read has begun, or that the card is there again.
func (p *Port) markOff(off bool) {
	if p.markedOff() == off {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.off, p.offKnown = off, true
	if p.cfg.OffMark == "" {
		return
	}
	var err error
	if off {
		const ownerOnly = 0o600
		err = os.WriteFile(p.cfg.OffMark, nil, ownerOnly)
	} else {
		err = os.Remove(p.cfg.OffMark)
	}
	if err != nil && !errors.Is(err, os.ErrNotExist) { // it counts when we are killed within the next second
		p.cfg.Log.Warn("the mark of a re-read", "err", err)
	}
}

// markedOff reports whether a re-read of ours may have left the modem off.
func (p *Port) markedOff() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.offKnown && p.cfg.OffMark != "" {
		_, err := os.Stat(p.cfg.OffMark)
		p.off = err == nil
	}
	p.offKnown = true
	return p.off
}

// switchedOn switches a modem on that is off, and reports whether it did.
func (p *Port) switchedOn(ctx context.Context, m *atmodem.Modem) bool {
	level, err := m.Functionality(ctx)
	if err != nil || level != atmodem.Minimum {
		return false
	}
	p.cfg.Log.Warn("the modem is switched off, switching it on", "port", p.cfg.Path)
	if err := m.SetFunctionality(ctx, atmodem.Full); err != nil {
		p.cfg.Log.Warn("the modem is not switched on", "err", err)
		return false
	}
	return true // the card answers soon; until then the modem says that it is busy
}

// BlockSize is how many bytes of data one command may carry.
func (p *Port) BlockSize() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.card != nil {
		return p.card.BlockSize()
	}
	if p.cfg.Card.BlockSize > 0 {
		return p.cfg.Card.BlockSize
	}
	return atcard.DefaultBlockSize
}

// SetAPN writes a context of the modem and reads it back.
func (p *Port) SetAPN(ctx context.Context, cid int, apn modem.APN) error {
	_, m, err := p.parts(ctx)
	if err != nil {
		return err
	}
	return m.SetAPN(ctx, cid, apn)
}

// APNs reads the contexts of the modem.
func (p *Port) APNs(ctx context.Context) ([]modem.Context, error) {
	_, m, err := p.parts(ctx)
	if err != nil {
		return nil, err
	}
	return m.APNs(ctx)
}

// ClearAPN takes a context off the modem's list.
func (p *Port) ClearAPN(ctx context.Context, cid int) error {
	_, m, err := p.parts(ctx)
	if err != nil {
		return err
	}
	return m.ClearAPN(ctx, cid)
}

// Reread makes the modem read the card again and waits until it shows iccid.
func (p *Port) Reread(ctx context.Context, iccid string) (rung string, err error) {
	_, m, err := p.parts(ctx)
	if err != nil {
		return "", err
	}
	p.markOff(true)
	rung, err = m.Reread(ctx, iccid)
	if err == nil {
		p.markOff(false)
	}
	return rung, err
}

// PowerCycle takes the power from the card and gives it back.
func (p *Port) PowerCycle(ctx context.Context) error {
	_, m, err := p.parts(ctx)
	if err != nil {
		return err
	}
	return m.PowerCycle(ctx)
}

// Identity says which modem this is.
func (p *Port) Identity(ctx context.Context) (modem.Identity, error) {
	_, m, err := p.parts(ctx)
	if err != nil {
		return modem.Identity{}, err
	}
	return m.Identity(ctx)
}

// ICCID is the one that the modem shows.
func (p *Port) ICCID(ctx context.Context) (string, error) {
	_, m, err := p.parts(ctx)
	if err != nil {
		return "", err
	}
	return m.ICCID(ctx)
}

// Registration says where the modem is registered.
func (p *Port) Registration(ctx context.Context) (modem.Registration, error) {
	_, m, err := p.parts(ctx)
	if err != nil {
		return modem.Registration{}, err
	}
	return m.Registration(ctx)
}

// Detach takes the modem off its network until [Port.Attach].
func (p *Port) Detach(ctx context.Context) error {
	_, m, err := p.parts(ctx)
	if err != nil {
		return err
	}
	return m.Detach(ctx)
}

// Attach makes the modem look for a network again.
func (p *Port) Attach(ctx context.Context) error {
	_, m, err := p.parts(ctx)
	if err != nil {
		return err
	}
	return m.Attach(ctx)
}

// SIM is the subscription that the modem shows.
func (p *Port) SIM(ctx context.Context) (modem.SIM, error) {
	_, m, err := p.parts(ctx)
	if err != nil {
		return modem.SIM{}, err
	}
	return m.SIM(ctx)
}
