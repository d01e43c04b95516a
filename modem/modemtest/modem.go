package modemtest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"slices"
	"strconv"
	"sync"
	"time"
)

// Card is the SIM of the modem: command APDUs in, data and status word out.
// The modem never calls it from two goroutines at once.
type Card interface {
	// Transmit runs one command APDU. An error is a dead card, not a bad status word.
	Transmit(ctx context.Context, command []byte) ([]byte, error)
	// Reset is a power cycle: logical channels, selections and sessions are gone.
	Reset()
}

// Subscription is what the operator knows about one SIM. A SIM whose IMSI is
// in no subscription is denied registration; a context with another access
// point than this one is refused.
type Subscription struct {
	IMSI     string
	APN      string // compared without regard to case, as networks do
	User     string // when set, the context must authenticate as User with Password
	Password string
	Address  netip.Prefix // the device's own address and network, told to the device
	Gateway  netip.Addr   // the operator's end of that network
	DNS      netip.Addr   // name server told to the device; zero: Gateway
	PLMN     string       // MCC and MNC, 5 or 6 digits
	Operator string       // name of the operator
	NoData   bool         // contexts become active, but packets come to nothing
}

// Link carries packets between the device and the operator. The modem calls Up
// when a context of a subscription becomes active and Down when the last one is
// gone, never from two goroutines at once. [VethLink] is the real one.
type Link interface {
	Up(ctx context.Context, s Subscription) error
	Down(ctx context.Context) error
}

// Context is one line of the modem's AT+CGDCONT table.
type Context struct {
	CID  int
	Type string // "IP", "IPV6", "IPV4V6"
	APN  string
}

// Config describes a modem. Only Card is necessary.
type Config struct {
	Card          Card
	SecondCard    Card    // in the second slot of a dialect with a slot command; nil: that slot is empty
	Dialect       Dialect // zero: [UBlox]
	Subscriptions []Subscription
	Link          Link      // nil: contexts become active, no packets flow
	Contexts      []Context // AT+CGDCONT as found at power up; nil: context 1, IP, no APN
	Delays        Delays
	LogFile       string           // every line of [Modem.Log] is appended here too; "" for none
	Now           func() time.Time // the network's clock (AT+CCLK); nil: time.Now

	// Replugged is called when the ptys have hung up (present false) and when they
	// are back (present true), in a reset of a dialect with ResetHangsUp. Renamed is
	// called between the two for each pty that will come back under another link
	// (Dialect.Renames).
	Replugged func(present bool)
	Renamed   func(from, to string)

	// NoFetch leaves proactive commands of the card (SW 91xx) alone, as modems do whose toolkit is off.
	NoFetch bool
	// StrictAttach refuses registration when context 1 names another APN than
	// the subscription's, as an LTE network may. An empty APN is accepted.
	StrictAttach bool
}

// SIMState tells what the modem knows of its SIM.
type SIMState string

// The states of the SIM as the modem sees it.
const (
	SIMOff     SIMState = "off"     // powered down by AT+CFUN=0
	SIMBusy    SIMState = "busy"    // powered, not yet read
	SIMReady   SIMState = "ready"   // read
	SIMAbsent  SIMState = "absent"  // no profile enabled: there is no ICCID to read
	SIMFailure SIMState = "failure" // the card does not answer
)

// SIM is what the modem read from the card at the last initialisation. Until
// the next one it is shown as it is, whatever happened in the card since.
type SIM struct {
	State     SIMState
	ICCID     string // digits without padding
	IMSI      string
	MNCLength int
	SPN       string
}

// RegistrationStat is <stat> of AT+CREG, 3GPP TS 27.007, section 7.2.
type RegistrationStat int

// The values that the modem shows.
const (
	NotRegistered RegistrationStat = 0
	Registered    RegistrationStat = 1
	Searching     RegistrationStat = 2
	Denied        RegistrationStat = 3
)

// State is a snapshot of the modem.
type State struct {
	CFUN         int
	Slot         int // 1 or 2
	SIM          SIM
	Registration RegistrationStat
	Subscription Subscription // of the registered SIM, zero otherwise
	Contexts     []Context    // sorted by CID
	Active       []int        // CIDs of the active contexts, sorted
	Sessions     []string     // handles of open AT+CCHO sessions, sorted
	SystemMode   string       // AT+WS46
	Bands        string       // AT#BND
}

// Modem is a running modem. Make it with [New], end it with [Modem.Close].
type Modem struct {
	cfg      Config
	log      *Log
	commands map[string]command
	ctx      context.Context // the life of the modem: ended by Close
	stop     context.CancelFunc
	wg       sync.WaitGroup
	guarded  bool // of a stack with a Root; see Port.forgetExclusive

	card chanMutex // held for one exchange with the card, or for a row of them that must not be parted
	net  chanMutex // held while registration or contexts change, and while Link works; taken before mu

	mu        sync.Mutex // guards all below; never held while waiting
	closed    bool
	changed   chan struct{} // closed and renewed at every change of state
	cfun      int
	sim       SIM
	simTurn   int // counts initialisations; one that is overtaken drops its result
	stat      RegistrationStat
	sub       *Subscription
	attached  bool   // AT+CGATT
	carrier   string // configuration in use (Dialect.CarrierConfig): a PLMN, or genericCarrier; "": not yet chosen
	selected  string // and that of the next start
	noCOPS    bool   // AT+COPS=2: deregistered by the host
	copsMode  int
	contexts  map[int]*pdpContext
	slot      int            // 1 or 2
	sessions  map[string]int // handle of AT+CCHO to logical channel
	channels  map[int]bool   // open logical channels: false when SELECT fails on them (Dialect.ChannelLe01)
	proactive int            // length of the proactive command that a 91xx announced, 0: none
	fetching  bool           // a proactive session is going on
	switched  bool           // a profile was enabled or disabled in a channel that is open; see Dialect.Follows
	coverage  bool
	ports     []*Port
	renamed   bool // the ptys have their other names (Dialect.Renames)
	faults    []*Fault
	delays    []Delay

	// What outlives a reset.
	edrx map[string]string // AT+CEDRXS: access technology to cycle
	psm  powerSaving       // AT+CPSMS
	smsc map[string]string // AT+CSCA, on the SIM: IMSI to number and type
	ws46 int               // AT+WS46
	bnd  string            // AT#BND
}

type pdpContext struct {
	Context
	rest           string // what followed the APN in AT+CGDCONT, kept for AT+CGDCONT?
	auth           int
	user, password string
	active         bool
}

// New makes a modem and powers it up: it reads the SIM and registers in the
// background. Close it to end its goroutines.
func New(cfg Config) (*Modem, error) {
	if cfg.Card == nil {
		return nil, errors.New("modemtest: a modem needs a card")
	}
	if cfg.Dialect.Name == "" {
		cfg.Dialect = UBlox
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Contexts == nil {
		cfg.Contexts = []Context{{CID: 1, Type: "IP"}}
	}
	log, err := newLog(cfg.LogFile)
	if err != nil {
		return nil, fmt.Errorf("modemtest: %w", err)
	}
	m := &Modem{
		cfg: cfg, log: log, commands: commands(), card: newChanMutex(), net: newChanMutex(),
		changed: make(chan struct{}), attached: true, coverage: true,
		contexts: map[int]*pdpContext{}, sessions: map[string]int{}, channels: map[int]bool{}, slot: 1,
		edrx: map[string]string{}, psm: powerSaving{tau: defaultTAU, active: defaultActive}, smsc: map[string]string{}, ws46: 25, bnd: defaultBands,
	}
	for _, c := range cfg.Contexts {
		m.contexts[c.CID] = &pdpContext{Context: c, rest: `,"",0,0`}
	}
	m.ctx, m.stop = context.WithCancel(context.Background())
	m.sim.State = SIMOff
	m.setFunctionality(m.ctx, 1)
	return m, nil
}

// Close takes the link down, hangs up every port, and waits for all goroutines
// of the modem. It may be called again.
func (m *Modem) Close() error {
	m.mu.Lock()
	if m.closed {
		m.mu.Unlock()
		return nil
	}
	m.closed = true
	ports := slices.Clone(m.ports)
	m.mu.Unlock()

	m.stop()
	var errs []error
	for _, p := range ports {
		errs = append(errs, p.Close())
	}
	m.wg.Wait()
	m.mu.Lock()
	up := m.activeLocked() > 0
	m.mu.Unlock()
	if up && m.cfg.Link != nil {
		// The modem's own life is over; the link's cleaning up is not.
		ctx, cancel := context.WithTimeout(context.Background(), linkTimeout)
		defer cancel()
		errs = append(errs, m.cfg.Link.Down(ctx))
	}
	errs = append(errs, m.log.close())
	return errors.Join(errs...)
}

// Log is the record of every line in and out, and of what happened inside.
func (m *Modem) Log() *Log { return m.log }

// State returns a snapshot.
func (m *Modem) State() State {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.stateLocked()
}

func (m *Modem) stateLocked() State {
	s := State{CFUN: m.cfun, Slot: m.slot, SIM: m.sim, Registration: m.stat, SystemMode: strconv.Itoa(m.ws46), Bands: m.bnd}
	if m.sub != nil {
		s.Subscription = *m.sub
	}
	for cid, c := range m.contexts {
		s.Contexts = append(s.Contexts, c.Context)
		if c.active {
			s.Active = append(s.Active, cid)
		}
	}
	for h := range m.sessions {
		s.Sessions = append(s.Sessions, h)
	}
	slices.SortFunc(s.Contexts, func(a, b Context) int { return a.CID - b.CID })
	slices.Sort(s.Active)
	slices.Sort(s.Sessions)
	return s
}

// Wait returns when the modem is in a state that satisfies ok, or when ctx
// ends. The error then tells the state it is in.
func (m *Modem) Wait(ctx context.Context, ok func(State) bool) (State, error) {
	for {
		m.mu.Lock()
		s, changed := m.stateLocked(), m.changed
		m.mu.Unlock()
		if ok(s) {
			return s, nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return s, fmt.Errorf("modemtest: wait for the modem, now %+v: %w", s, ctx.Err())
		case <-m.ctx.Done():
			return s, fmt.Errorf("modemtest: wait for the modem: %w", io.ErrClosedPipe)
		}
	}
}

// WaitRegistered waits until the modem is registered with the SIM of this
// ICCID; "" stands for any.
func (m *Modem) WaitRegistered(ctx context.Context, iccid string) error {
	_, err := m.Wait(ctx, func(s State) bool {
		return s.Registration == Registered && (iccid == "" || s.SIM.ICCID == iccid)
	})
	return err
}

// changedLocked wakes everybody in Wait.
func (m *Modem) changedLocked() {
	close(m.changed)
	m.changed = make(chan struct{})
}

// spawn runs f in a goroutine that Close waits for; not after Close.
func (m *Modem) spawn(f func()) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if !m.closed {
		m.wg.Go(f)
	}
}

// pause waits for d. It reports false when ctx ended first.
func pause(ctx context.Context, d time.Duration) bool {
	if d <= 0 {
		return ctx.Err() == nil
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// chanMutex is a mutex whose waiting ends with a context.
type chanMutex chan struct{}

func newChanMutex() chanMutex { return make(chanMutex, 1) }

func (c chanMutex) lock(ctx context.Context) error {
	select {
	case c <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (c chanMutex) unlock() { <-c }
