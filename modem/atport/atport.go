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
// At each opening the modem is asked who it is; card and modem then get what was
// configured, what this device has learnt of such modems, and what the table of
// quirks knows of them, in this order. What works is learnt. The port is looked
// for where it was, in its USB socket, whatever its name is now, and then by the
// modem's IMEI. [Port.Reread] climbs the ladder of atmodem across that, and
// [Port.Probe] tells what the modem can do.
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
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"lpad/apdu"
	"lpad/modem"
	"lpad/modem/at"
	"lpad/modem/atcard"
	"lpad/modem/atmodem"
	"lpad/modem/quirks"
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
	// Quirks is what is known of modems in general, Learned what this device has
	// found out by itself. Card.Path and Card.BlockSize, where they are set, win
	// over both, and Learned over Quirks. nil: the table that is built in; a
	// memory in this process.
	Quirks  *quirks.Table
	Learned *quirks.Memory
	// Find lists further paths under which the modem may come back after a reset;
	// one that has its IMEI is it. nil: the ports that sysfs knows in its USB
	// socket, and new ones elsewhere. Sysfs is where that is mounted; "" is /sys.
	Find func() []string
	// ISDRs are further AIDs under which [Port.Probe] looks for the ISD-R: some
	// makers of cards have their own.
	ISDRs [][]byte
	// PlaceMark is a file that says where in the USB tree the configured port was,
	// for the next process: a modem that was reset may have another name than the
	// configured one when that begins. "" is none.
	PlaceMark string
	Sysfs     string
	Log       *slog.Logger // nil: discards
}

// Port is one AT port. Make it with [New].
type Port struct {
	cfg Config

	seen *atmodem.Memory // of the modem, from one life of the line to the next

	mu     sync.Mutex // guards what follows; held while the line is opened, not while a command runs
	conn   *at.Conn
	card   *atcard.Card
	modem  *atmodem.Modem
	path   string // at present
	where  serialport.Where
	fresh  bool                      // not opened yet
	others map[serialport.Where]bool // ports that there were when ours was opened
	id     modem.Identity            // of the modem at the last opening; zero: not known yet
	quirks quirks.Quirks             // of id
	noted  time.Time                 // when the subscription was, see OpenChannel
	after  string                    // ICCID after whose switch the commands of quirks.AfterSwitch ran

	off, offKnown bool // a re-read may have left the modem off; see OffMark

	metMu sync.Mutex // guards what follows, and is held for no longer than that takes
	met   string     // IMEI at the other end
	lost  <-chan struct{}
}

// Met tells the IMEI of the modem at the other end, without waiting for anything.
// While the line is closed, or has died, it may be another modem by now.
func (p *Port) Met() (imei string, open bool) {
	p.metMu.Lock()
	imei, lost := p.met, p.lost
	p.metMu.Unlock()
	select {
	case <-lost:
		return "", false
	default:
		return imei, lost != nil
	}
}

func (p *Port) meeting(imei string, lost <-chan struct{}) {
	p.metMu.Lock()
	p.met, p.lost = imei, lost
	p.metMu.Unlock()
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
	if cfg.Quirks == nil {
		cfg.Quirks = quirks.Builtin()
	}
	if cfg.Learned == nil {
		cfg.Learned = quirks.OpenMemory("")
	}
	return &Port{cfg: cfg, path: cfg.Path, fresh: true, seen: &atmodem.Memory{}}
}

// Path is the present name of the serial device.
func (p *Port) Path() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.path
}

// parts returns the open line, opening it if it is closed or has died.
func (p *Port) parts(ctx context.Context) (*atcard.Card, *atmodem.Modem, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.conn != nil {
		select {
		case <-p.conn.Done():
			p.cfg.Log.Info("port lost, opening it again", "port", p.path, "err", p.conn.Err())
			if err := p.closeLocked(); err != nil {
				p.cfg.Log.Debug("dead port not closed", "err", err)
			}
		default:
			return p.card, p.modem, nil
		}
	}
	conn, m, err := p.dial(ctx)
	if err != nil {
		return nil, nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, initTimeout)
	defer cancel()
	if err := p.meet(ctx, m); err != nil {
		return nil, nil, errors.Join(fmt.Errorf("modem at %s: %w", p.path, err), conn.Close())
	}
	card, err := atcard.Open(ctx, conn, p.cardOptions())
	if err != nil {
		return nil, nil, errors.Join(fmt.Errorf("card at %s: %w", p.path, err), conn.Close())
	}
	p.conn, p.card, p.modem = conn, card, m
	p.meeting(p.id.IMEI, conn.Done())
	return card, m, nil
}

func (p *Port) closeLocked() error {
	if p.conn == nil {
		return nil
	}
	p.learnCard()
	err := errors.Join(p.card.Close(), p.conn.Close())
	p.conn, p.card, p.modem = nil, nil, nil
	p.meeting("", nil)
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
	p.touch(ctx, m)
	ch, err := card.OpenChannel(ctx, aid)
	if at.Refused(err) && !errors.Is(err, apdu.ErrNotFound) && !errors.Is(err, apdu.ErrNoChannel) && (p.cfg.Alone || p.markedOff()) && p.switchedOn(ctx, m) {
		ch, err = card.OpenChannel(ctx, aid)
	}
	if err == nil {
		ch.Trace(p.overhear)
		p.markOff(false)
		p.mu.Lock()
		p.learnCard()
		p.mu.Unlock()
	}
	return ch, err
}

// overhear notes that the card has a command for the modem (SW 91xx): after a
// switch that is REFRESH, and worth to be waited for.
func (p *Port) overhear(l apdu.TraceLine) {
	if _, pending := l.SW.Proactive(); pending {
		p.seen.Pending()
	}
}

// noteInterval is how long the subscription that the modem showed is taken for
// the present one.
const noteInterval = time.Minute

// touch prepares for what may be done to the card in a channel: what the modem
// shows before is what it must not show after a switch.
func (p *Port) touch(ctx context.Context, m *atmodem.Modem) {
	p.mu.Lock()
	due := time.Since(p.noted) > noteInterval
	p.noted = time.Now()
	p.mu.Unlock()
	if due {
		m.Note(ctx)
	}
	p.seen.Touched()
}

// BlockSize is how many bytes of data one command may carry.
func (p *Port) BlockSize() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.card != nil {
		return p.card.BlockSize()
	}
	opt := p.cardOptions()
	return cmp.Or(opt.BlockSize, opt.Start, atcard.DefaultBlockSize)
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
