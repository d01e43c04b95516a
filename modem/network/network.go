// Package network holds the back-ends of a profile switch: what carries out,
// on a device with certain services, the steps that agent/switchover orders.
//
// [ManagerStack] is for a device with ModemManager and NetworkManager, and as a
// rule with an AT port on which lpad drives the modem itself. [MMOnly] is for one
// with ModemManager alone, [ATOnly] for one with neither: there the interface is
// brought up by the device's own [Hook], or by somebody else. Their interface is what
// agent/switchover declares, in the words of package modem and plain strings
// only, so that others can stand beside them:
//
//	Snapshot(ctx)                  what the settings are: bytes for the journal
//	Gate(ctx, snapshot)            nothing comes up by itself from now on
//	Apply(ctx, iccid, settings)    the new APNs on the modem and in the network's settings
//	Reread(ctx, iccid)             the modem reads the card again and shows the new profile
//	Register(ctx), Connect(ctx, iccid), Link(ctx, iccid)
//	Commit(ctx, iccid)             it stays like this
//	Restore(ctx, snapshot)         everything back as it was
//
// Where ModemManager has the only AT port, the card and the network take
// turns: Borrow(ctx), GiveBack(ctx), Online(ctx).
//
// Every one of them may be called again after it failed, or after lpad was
// restarted; after a restart in the middle of a switch call Gate first, since
// what was held is held no longer. All of them end with ctx, and are bounded
// by limits of their own where they wait for others.
//
// A snapshot holds the passwords of connections: it belongs into the journal
// (mode 0600) and never into a log.
//
// [Probe] asks whether a link really carries traffic, and [Dialer] binds
// connections to it.
package network

import (
	"context"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"lpad/internal/fault"
	"lpad/modem"
	"lpad/modem/mm"
	"lpad/modem/nm"
)

// Bounds of what waits for others. A USB modem that was reset enumerates again
// within 30 s, and ModemManager probes it for up to 30 s more.
const (
	settleLimit   = 90 * time.Second // until ModemManager shows the modem
	holdLimit     = 90 * time.Second // until it can be held
	releaseLimit  = 10 * time.Second
	attemptLimit  = 90 * time.Second // one activation of a connection
	managerLimit  = 20 * time.Second // until NetworkManager is back that was there
	enableLimit   = 2 * time.Minute  // ModemManager's own Enable
	retryInterval = time.Second
	// A network may take its time to let a modem go or to answer it; what
	// becomes of it is seen by Register.
	detachLimit     = 30 * time.Second
	attachLimit     = 60 * time.Second
	defaultRungWait = 15 * time.Second
	resetLimit      = 3 * time.Minute // of a modem that does as it was told
	nameLimit       = 10 * time.Second
)

// AT drives the modem over an AT port of lpad's own. lpad/modem/atmodem.Modem
// is one.
type AT interface {
	// SetAPN writes a context of the modem and reads it back.
	SetAPN(ctx context.Context, cid int, apn modem.APN) error
	// APNs reads the contexts.
	APNs(ctx context.Context) ([]modem.Context, error)
	// Reread makes the modem read the SIM again by the cheapest means that
	// works, waits until it shows the ICCID, and says which means that was.
	Reread(ctx context.Context, iccid string) (rung string, err error)
}

// ContextClearer is an [AT] that can also take a context off the modem's list, as lpad/modem/atmodem can.
type ContextClearer interface {
	ClearAPN(ctx context.Context, cid int) error
}

// Attacher is an [AT] that can keep the modem off every network, as
// lpad/modem/atmodem can. Without it a modem that follows the card by itself,
// at once, may attach with the old settings before the new ones are written.
type Attacher interface {
	Detach(ctx context.Context) error
	Attach(ctx context.Context) error
}

// SIMReader is an [AT] that can also read what the modem shows of its SIM, as
// lpad/modem/atport.Port can.
type SIMReader interface {
	SIM(ctx context.Context) (modem.SIM, error)
}

// PowerCycler is an [AT] that can take the power from the SIM, as
// lpad/modem/atmodem can: the last means against a card that stays busy.
type PowerCycler interface {
	PowerCycle(ctx context.Context) error
}

// ErrNoPowerCycle says that nothing here can take the power from the SIM.
var ErrNoPowerCycle = fault.New(fault.Fault{Code: "no-sim-reset", Text: "lpad has no way of resetting the card in this modem", Retry: true, Who: fault.Technician,
	Next: "reset the modem and try again, or give lpad an AT port"}, nil)

// Config says what a [ManagerStack] works with.
type Config struct {
	MM     *mm.Client // must be there
	NM     *nm.Client // must be there
	Device string     // ModemManager's Device property; empty: its first modem
	// AT is nil if lpad has no AT port: ModemManager then writes the APN and
	// reads the SIM again, as far as it can.
	AT AT
	// Shared says that ModemManager uses the same port, so that AT may be used
	// only while the modem is held. BeforeRelease, if not nil, is called before
	// ModemManager gets the modem back: close the port there.
	Shared        bool
	BeforeRelease func(context.Context) error
	// Port is the present path of AT's serial device. Where it is given,
	// ModemManager is asked whether it uses that port too; Shared is a yes.
	Port func() string
	// Never forbids to take the modem from ModemManager for the card: a port that
	// ModemManager uses too is refused then ([ErrPortShared]).
	Never bool
	// Hook brings the interface up where nobody else does ([MMOnly], [ATOnly]);
	// nil: that is not lpad's business.
	Hook *Hook
	// KeepFile says which link comes up by itself ([MMOnly]); what lpad has changed
	// on the modem is in a file beside it. "": both until lpad ends.
	KeepFile string
	CID      int           // context of the initial attach; 0: 1
	RungWait time.Duration // for each way but the last in which ModemManager re-reads the SIM; 0: 15 s
	Log      *slog.Logger  // nil: none
}

// managed is what the back-ends with ModemManager share: the modem there, the
// hold on it, and the AT port beside it.
type managed struct {
	mm            *mm.Client
	at            AT
	always        bool          // the port is ModemManager's too
	never         bool          // and is not taken from it for the card
	port          func() string // nil: it is not, unless always
	beforeRelease func(context.Context) error
	beforeHold    func(context.Context) // before the modem is borrowed; nil: nothing
	cid           int
	rungWait      time.Duration
	log           *slog.Logger
	alone         bool // nobody but lpad has ModemManager enable the modem
	book          *book

	mu     sync.Mutex
	device string         // guarded by mu; empty until it is known
	hold   *mm.Inhibition // guarded by mu; nil: not held
	off    bool           // guarded by mu; detached by us and not yet attached again
	gated  bool           // guarded by mu; held for a switch, not only borrowed

	both bool // guarded by mu; what [managed.sharing] found last

	returning interrupted // guarded by mu; see Online

	turns atomic.Bool // what Shares answers
}

func newManaged(c Config) *managed {
	if c.CID == 0 {
		c.CID = 1
	}
	if c.RungWait == 0 {
		c.RungWait = defaultRungWait
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	s := &managed{mm: c.MM, at: c.AT, always: c.Shared, never: c.Never, port: c.Port, beforeRelease: c.BeforeRelease, cid: c.CID,
		rungWait: c.RungWait, log: c.Log, device: c.Device, book: newBook(c.KeepFile, c.Log)}
	s.turns.Store(c.Shared)
	if _, ok := c.AT.(SIMReader); ok && c.MM != nil {
		c.MM.NameSIMs(s.nameSIM)
	}
	return s
}

// nameSIM reads the ICCID over lpad's own port, for a modem whose SIM
// ModemManager cannot name. That both mean the same SIM the IMSI shows: without
// it, ModemManager could still show the one of before.
func (s *managed) nameSIM(ctx context.Context, m mm.Modem) string {
	reader, ok := s.at.(SIMReader)
	if !ok || m.SIM.IMSI == "" || s.always || s.port != nil && m.Uses(namesOf(s.port())...) {
		return ""
	}
	ctx, cancel := context.WithTimeout(ctx, nameLimit)
	defer cancel()
	sim, err := reader.SIM(ctx)
	if err != nil || sim.IMSI != m.SIM.IMSI {
		s.log.Debug("the SIM that ModemManager shows without an ICCID", "err", err, "same", err == nil && sim.IMSI == m.SIM.IMSI)
		return ""
	}
	return sim.ICCID
}

// ManagerStack is the back-end for ModemManager and NetworkManager. Make one
// with [NewManagerStack]. One switch at a time; [ManagerStack.Link] may be
// called beside it.
type ManagerStack struct {
	*managed
	nm *nm.Client
}

// NewManagerStack makes a back-end. It does not talk to anybody yet.
func NewManagerStack(c Config) *ManagerStack {
	return &ManagerStack{managed: newManaged(c), nm: c.NM}
}

// Late is what became of the settings that Apply could not make at once: those
// of the radio are made when the SIM has been read again. One that this modem
// cannot take is among them, with the reason.
func (s *managed) Late() []string { return s.book.Late() }

// Close gives the modem back if it is held. The bus stays the caller's.
func (s *managed) Close(ctx context.Context) error { return s.release(ctx) }
