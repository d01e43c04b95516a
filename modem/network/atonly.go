package network

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"lpad/internal/fault"
	"lpad/internal/redact"
	"lpad/modem"
	"lpad/modem/atmodem"
	"lpad/modem/mm"
)

// ATPort is what [ATOnly] asks of a modem; lpad/modem/atport.Port is one.
type ATPort interface {
	AT
	ICCID(ctx context.Context) (string, error)
	SIM(ctx context.Context) (modem.SIM, error)
	Registration(ctx context.Context) (modem.Registration, error)
}

// Activator is an [ATPort] that can bring a context up, as
// lpad/modem/atport.Port can: what a modem needs before its interface carries
// anything.
type Activator interface {
	Activate(ctx context.Context, cid int) (atmodem.Parameters, error)
	Active(ctx context.Context, cid int) (bool, error)
}

// ATOnly is the back-end for a device without managers: lpad writes the access
// point into the modem's context, has the modem read the card again and waits
// for a network. With a [Hook] it then activates the context and has the hook
// bring the interface up. Without one that is left to whoever does it on this
// device; Link is the zero link, which means the device's usual route.
type ATOnly struct {
	at   ATPort
	cid  int
	hook *Hook
	port func() string
	log  *slog.Logger
	book *book

	mu       sync.Mutex
	wanted   access    // guarded by mu; what Apply was told for the device's data
	attaches modem.APN // guarded by mu; and for the attach
	up       carried   // guarded by mu; what the hook has brought up; its bearer is the profile
}

// NewATOnly makes a back-end over a port; nothing is sent yet. Of the
// configuration Hook, Port, KeepFile and Log are used, and none of them must be there.
func NewATOnly(at ATPort, c Config) *ATOnly {
	s := &ATOnly{at: at, cid: 1, hook: c.Hook, port: c.Port, log: c.Log}
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	s.book = newBook(c.KeepFile, s.log)
	return s
}

// atSnapshot is the journalled form of [ATOnly.Snapshot].
type atSnapshot struct {
	ICCID    string `json:"iccid,omitempty"` // that the modem showed; empty: none
	Name     string `json:"apn"`
	Type     string `json:"type"`
	Present  bool   `json:"present"` // there was such a context
	User     string `json:"user,omitempty"`
	Password string `json:"password,omitempty"`
	Up       bool   `json:"up,omitempty"` // the context was active, and a hook has to do with it
	Book     entry  `json:"book,omitzero"`

	Data *savedContext `json:"data,omitempty"` // of the device's data, if that is another
}

// Snapshot reads the context and the SIM that the modem shows. Credentials of
// a context cannot be read over AT and are not in it.
func (s *ATOnly) Snapshot(ctx context.Context) ([]byte, error) {
	contexts, err := s.at.APNs(ctx)
	if err != nil {
		return nil, fmt.Errorf("snapshot: %w", err)
	}
	snap := atSnapshot{Book: *s.book.begin()}
	for _, c := range contexts {
		if c.CID == s.cid {
			snap.Present, snap.Name, snap.Type = true, c.APN.Name, string(c.APN.Type)
		}
		if c.CID == snap.Book.Data {
			data := save(c)
			snap.Data = &data
		}
	}
	if iccid, err := s.at.ICCID(ctx); err == nil { // an empty card shows none
		snap.ICCID = iccid
	}
	if a, ok := s.at.(Activator); ok && s.hook != nil {
		if snap.Up, err = a.Active(ctx, s.data()); err != nil && ctx.Err() != nil {
			return nil, fmt.Errorf("snapshot: %w", err)
		}
		s.mu.Lock()
		w, attach := s.wanted, s.attaches
		s.mu.Unlock()
		if w.iccid == snap.ICCID && attach.Name == snap.Name { // written by us, and known to work
			snap.User, snap.Password = attach.User, attach.Password.Reveal()
		}
		if w.iccid == snap.ICCID && snap.Data != nil && w.apn.Name == snap.Data.Name {
			snap.Data.User, snap.Data.Password, snap.Data.Auth = w.apn.User, w.apn.Password.Reveal(), w.apn.Auth
		}
	}
	return json.Marshal(snap)
}

// Gate takes the modem off its network, where the port knows how ([Attacher]):
// one that follows the card by itself would attach at once, with the old access
// point. A modem that does not want to go attaches again with the new one.
func (s *ATOnly) Gate(ctx context.Context, _ []byte) error {
	s.down(ctx)
	if a, ok := s.at.(Attacher); ok {
		bounded, cancel := context.WithTimeout(ctx, detachLimit)
		defer cancel()
		if err := a.Detach(bounded); err != nil && ctx.Err() != nil {
			return fmt.Errorf("gate: %w", ctx.Err())
		}
	}
	return nil
}

// Apply writes the access points into the modem's contexts: that of the attach
// into its own, those of other purposes into further ones, and that of the
// device's data too if the modem is to attach with another.
func (s *ATOnly) Apply(ctx context.Context, iccid string, want modem.Settings) ([]string, error) {
	attach, apns := want.AttachAPN(), want.Others
	apart := !sameAccess(*attach, want.Default)
	if apart {
		data := want.Default
		data.Purposes = []string{modem.PurposeDefault}
		apns = append([]modem.APN{data}, apns...)
	}
	if err := s.at.SetAPN(ctx, s.cid, *attach); err != nil {
		return nil, err
	}
	cids, where := s.book.place(ctx, atContexts{s.at}, s.cid, ViaAT, apns)
	data := 0
	if apart {
		if data = cids[0]; data == 0 {
			return nil, errors.New(where[0])
		}
	}
	if e := s.book.read(); e.Data != data {
		e.Data = data
		s.book.write(e)
	}
	s.want(access{iccid, want.Default}, *attach)
	s.book.plan(&want.Radio, false)
	_, byAT := s.at.(Setter)
	return append(append([]string{ViaAT}, where...), beyond(&want, byAT, false)...), nil
}

// data is the context of the device's data.
func (s *ATOnly) data() int { return cmp.Or(s.book.read().Data, s.cid) }

// Reread makes the modem read the card again, sets its radio, and has it look
// for a network.
func (s *ATOnly) Reread(ctx context.Context, iccid string) (string, error) {
	rung, err := s.at.Reread(ctx, iccid)
	if err != nil {
		return rung, err
	}
	s.book.tuneAT(ctx, s.at)
	return rung, s.attach(ctx)
}

// Late is [ManagerStack.Late].
func (s *ATOnly) Late() []string { return s.book.Late() }

// ResetSIM takes the power from the SIM and gives it back, and closes the gate
// again.
func (s *ATOnly) ResetSIM(ctx context.Context) error {
	c, ok := s.at.(PowerCycler)
	if !ok {
		return ErrNoPowerCycle
	}
	if err := errors.Join(c.PowerCycle(ctx), s.Gate(ctx, nil)); err != nil {
		return fmt.Errorf("reset sim: %w", err)
	}
	return nil
}

// attachTries is how often a modem is told to look for a network that does not.
const attachTries = 3

// attach undoes Gate. What the network answers is seen by Register; that the
// modem asks one at all is seen to here, for a command that got lost would
// leave the device off the air.
func (s *ATOnly) attach(ctx context.Context) error {
	a, ok := s.at.(Attacher)
	if !ok {
		return nil
	}
	bounded, cancel := context.WithTimeout(ctx, attachLimit)
	defer cancel()
	for range attachTries {
		if err := a.Attach(bounded); err != nil && ctx.Err() != nil {
			return fmt.Errorf("attach: %w", ctx.Err())
		}
		if r, err := s.at.Registration(bounded); err == nil && r.State != modem.NotRegistered {
			return nil
		}
		select {
		case <-bounded.Done():
			return nil
		case <-time.After(retryInterval):
		}
	}
	return nil
}

// SIM is the subscription that the modem shows.
func (s *ATOnly) SIM(ctx context.Context) (modem.SIM, error) { return s.at.SIM(ctx) }

// Register waits for a network.
func (s *ATOnly) Register(ctx context.Context) (modem.Registration, error) {
	var refused refusal
	begin := time.Now()
	for {
		r, err := s.at.Registration(ctx)
		switch {
		case err == nil && r.State.Registered():
			return r, nil
		case refused.stays(err == nil && r.State == modem.Denied):
			return r, &notRegisteredError{r, fmt.Errorf("refused for %v", refusalLimit)}
		}
		select {
		case <-ctx.Done():
			return r, &notRegisteredError{r, errors.Join(ctx.Err(), err)}
		case <-time.After(registerPause(time.Since(begin))):
		}
	}
}

// registerPause is how long to wait before a modem is asked again whether a
// network serves it: a question takes it milliseconds, and the device waits for
// the answer.
func registerPause(waited time.Duration) time.Duration {
	const (
		soon   = 100 * time.Millisecond
		later  = 500 * time.Millisecond
		atOnce = 5 * time.Second // that long a modem takes that finds its network at once
	)
	if waited < atOnce {
		return soon
	}
	return later
}

// notRegisteredError says how far the modem came.
type notRegisteredError struct {
	registration modem.Registration
	err          error
}

func (e *notRegisteredError) Error() string {
	return fmt.Sprintf("no network serves the modem (%s): %v", e.registration.State, e.err)
}

func (e *notRegisteredError) Unwrap() error { return e.err }

// Fault explains it to who can look at the antenna.
func (e *notRegisteredError) Fault() fault.Fault {
	if e.registration.State == modem.Denied {
		return fault.Fault{Code: "registration-denied", Text: "the network refuses the modem with this profile", Retry: true, Who: fault.Operator,
			Next: "ask the operator whether the subscription is active here, and which access point it wants"}
	}
	return fault.Fault{Code: "not-registered", Text: "no network serves the modem with this profile", Retry: true, Who: fault.Technician,
		Next: "look at the antenna and the reception, and ask the operator whether the profile is active"}
}

func (s *ATOnly) want(a access, attach modem.APN) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.wanted, s.attaches = a, attach
}

// down has the hook take the interface down, whatever it was.
func (s *ATOnly) down(ctx context.Context) {
	if s.hook == nil {
		return
	}
	s.mu.Lock()
	was := s.up
	s.up = carried{}
	s.mu.Unlock()
	c := s.carrier(was.ICCID, was.APN)
	c.Link, c.Gateways = was.link, was.Gateways
	if _, err := s.hook.Run(ctx, HookDown, c); err != nil {
		s.log.Warn("the interface was not taken down", "err", err)
	}
}

func (s *ATOnly) carrier(iccid string, apn modem.APN) Carrier {
	c := Carrier{Backend: "none", APN: apn, ICCID: iccid, MTU: apn.MTU, CID: s.data()}
	if s.port != nil {
		c.Port = s.port()
	}
	return c
}

// Connect has the hook bring up the interface, again until ctx ends. Without a
// hook it returns the zero link: the interface is not ours.
func (s *ATOnly) Connect(ctx context.Context, iccid string) (modem.Link, error) {
	if s.hook == nil {
		return modem.Link{}, nil
	}
	s.mu.Lock()
	a := s.wanted
	s.mu.Unlock()
	if a.iccid != iccid {
		return modem.Link{}, fmt.Errorf("connect: %w", ErrNotApplied)
	}
	link, err := persist(ctx, s.log, func(ctx context.Context) (modem.Link, error) { return s.raise(ctx, HookUp, a) })
	if err != nil {
		return modem.Link{}, fmt.Errorf("connect: %w", err)
	}
	return link, nil
}

// raise activates the context and runs the hook.
func (s *ATOnly) raise(ctx context.Context, event string, a access) (modem.Link, error) {
	ctx, cancel := context.WithTimeout(ctx, attemptLimit)
	defer cancel()
	shown, err := s.at.ICCID(ctx)
	if err != nil {
		return modem.Link{}, err
	}
	if !mm.SameICCID(shown, a.iccid) {
		return modem.Link{}, ErrNoLink
	}
	c := s.carrier(a.iccid, a.apn)
	if m, ok := s.at.(Activator); ok {
		p, err := m.Activate(ctx, s.data())
		switch {
		case err == nil:
		case ctx.Err() != nil:
			return modem.Link{}, err
		default: // a modem that does so with the data call refuses it before
			s.log.Debug("the context was not activated", "err", err)
		}
		c.Link.Addresses, c.Link.DNS, c.Gateways = p.Addresses, p.DNS, p.Gateways
	}
	if len(a.apn.DNS) > 0 {
		c.Link.DNS = a.apn.DNS
	}
	link, err := s.hook.Run(ctx, event, c)
	if err != nil {
		return modem.Link{}, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.up = carried{Carrier: c, bearer: a.iccid, link: link}
	return link, nil
}

// Link is the link of the profile if a hook has brought it up, else
// [ErrNoLink]. After a restart of lpad the hook is asked for it (renew).
// Without a hook it is the zero link, as with Connect.
func (s *ATOnly) Link(ctx context.Context, iccid string) (modem.Link, error) {
	if s.hook == nil {
		return modem.Link{}, nil
	}
	s.mu.Lock()
	was, a := s.up, s.wanted
	s.mu.Unlock()
	if was.bearer == iccid {
		return was.link, nil
	}
	if a.iccid != iccid {
		a = access{iccid: iccid}
	}
	link, err := s.raise(ctx, HookRenew, a)
	if err != nil {
		return modem.Link{}, fmt.Errorf("%w: %w", ErrNoLink, err)
	}
	return link, nil
}

// Commit clears the contexts that the profile of before had for other purposes.
func (s *ATOnly) Commit(ctx context.Context, _ string) error {
	s.book.begin()
	s.book.tidy(ctx, atContexts{s.at})
	return nil
}

// Restore writes the old context back and has the modem read the card again,
// on which the previous profile is enabled. Whatever fails of that, the modem
// is let back to the networks: off them nobody could ever reach the device.
func (s *ATOnly) Restore(ctx context.Context, snapshot []byte) (modem.Link, error) {
	var snap atSnapshot
	err := json.Unmarshal(snapshot, &snap)
	apn := modem.APN{Name: snap.Name, Type: modem.IPType(snap.Type), User: snap.User, Password: redact.NewSecret(snap.Password)}
	if err == nil && snap.Present {
		err = s.at.SetAPN(ctx, s.cid, apn)
	}
	s.book.rollback(ctx, atContexts{s.at})
	if err == nil && snap.ICCID != "" {
		_, err = s.at.Reread(ctx, snap.ICCID)
	}
	s.book.plan(nil, true)
	s.book.tuneAT(ctx, s.at)
	if err = errors.Join(err, s.attach(ctx)); err != nil {
		return modem.Link{}, fmt.Errorf("restore: %w", err)
	}
	s.book.finish(snap.Book)
	if !snap.Up || s.hook == nil {
		return modem.Link{}, nil
	}
	// That there is no network at the moment is nothing to undo.
	bounded, cancel := context.WithTimeout(ctx, returnLimit)
	defer cancel()
	data := apn
	if snap.Data != nil {
		data = snap.Data.apn()
	}
	s.want(access{snap.ICCID, data}, apn)
	var link modem.Link
	if _, err = s.Register(bounded); err == nil {
		link, err = s.Connect(bounded, snap.ICCID)
	}
	if err != nil {
		s.log.Warn("the old link is not up yet", "err", err)
	}
	return link, nil
}

// Forget has nothing to drop.
func (s *ATOnly) Forget(context.Context, string) error { return nil }

// Borrow has nobody to take the port from, nor have GiveBack and Online.
func (s *ATOnly) Borrow(context.Context) error { return nil }

// GiveBack is nothing; see Borrow.
func (s *ATOnly) GiveBack(context.Context) error { return nil }

// Online is nothing; see Borrow.
func (s *ATOnly) Online(context.Context) error { return nil }

// Shares is no: there is nobody to take turns with.
func (s *ATOnly) Shares() bool { return false }
