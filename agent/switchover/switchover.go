// Package switchover is the part of a profile switch that is not the card's:
// the network settings before and after EnableProfile, as separate steps, so
// that the runner can write each into its journal before the next begins.
//
//	snapshot, err := s.Snapshot(ctx)         // journal the bytes
//	err = s.Gate(ctx, snapshot)              // nothing comes up by itself now
//	…                                        // EnableProfile, and the eUICC's answer
//	applied, err := s.Apply(ctx, target)     // new APN on the modem, then …
//	rung, err := s.Reread(ctx, target)       // … the modem reads the card again
//	online, err := s.Verify(ctx, snapshot, target)
//	err = s.Commit(ctx, target)
//
// and, if anything after Gate fails:
//
//	link, err := s.Rollback(ctx, snapshot, enablePrevious)
//
// That the APN is on the modem before the modem reads the card again is what
// the product exists for: the modem attaches with the right settings the first
// time, and an operator who accepts no other sees no other.
//
// Every step may be repeated. After a restart in the middle of a switch call
// Gate with the journalled snapshot first: what was held is held no longer
// (ModemManager lets go when the daemon dies), though nothing can have come up
// meanwhile but the new profile's own connection.
//
// The package does no I/O itself. It declares what it needs as interfaces;
// lpad/modem/network has the back-ends for modems, and [Direct] is the one for
// a card in a reader. Errors are the back-end's, which explain themselves as
// faults, and [*VerifyError].
package switchover

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"reflect"
	"slices"
	"strings"
	"time"

	"lpad/agent/rsp"
	"lpad/internal/fault"
	"lpad/modem"
)

// Settings are what the device had before, and what stays.
type Settings interface {
	// Snapshot reads the settings that a switch will change, as JSON. It may
	// hold passwords.
	Snapshot(ctx context.Context) ([]byte, error)
	// Commit lets the profile's settings stay and gives up all others.
	Commit(ctx context.Context, iccid string) error
	// Restore puts everything back and returns the old link, zero if there was
	// none. The old profile must be enabled on the card again.
	Restore(ctx context.Context, snapshot []byte) (modem.Link, error)
}

// Modem is the modem during a switch.
type Modem interface {
	// Gate keeps everything from attaching or coming up by itself until Reread
	// is done.
	Gate(ctx context.Context, snapshot []byte) error
	// Apply writes the settings where the modem and the network's services
	// will find them, and says where that was. What could not be set is no
	// error, unless it is the device's own access point: it is among the places,
	// and begins with [modem.NotApplied].
	Apply(ctx context.Context, iccid string, settings modem.Settings) (where []string, err error)
	// Reread makes the modem show the profile, opens the gate, and says by
	// which means the card was read again.
	Reread(ctx context.Context, iccid string) (rung string, err error)
}

// Later is a Modem that can make some settings only when the card has been read
// again: those of the radio.
type Later interface {
	// Late says what became of them, as Apply does.
	Late() []string
}

// Network is what comes up on the modem.
type Network interface {
	// Register waits for a network.
	Register(ctx context.Context) (modem.Registration, error)
	// Connect brings the profile's link up, and makes sure that it is the
	// profile's.
	Connect(ctx context.Context, iccid string) (modem.Link, error)
	// Link is the profile's link if it is up now.
	Link(ctx context.Context, iccid string) (modem.Link, error)
}

// Rememberer is a Settings that can tell from a snapshot what was in use.
type Rememberer interface {
	// Working is the access point that was in use when the snapshot was taken,
	// and the ICCID of the profile that the modem showed.
	Working(snapshot []byte) (iccid string, apn modem.APN, ok bool)
}

// SIMResetter is a Modem that can take the power from the SIM and give it back,
// behind the gate.
type SIMResetter interface {
	ResetSIM(ctx context.Context) error
}

// SIMReader is a Network that also knows the subscription the modem shows.
type SIMReader interface {
	SIM(ctx context.Context) (modem.SIM, error)
}

// Prober asks whether a link reaches a target. One attempt.
type Prober interface {
	Probe(ctx context.Context, link modem.Link, target string) error
}

// Candidate is an access point that may be right, and who says so.
type Candidate struct {
	APN    modem.APN
	Source string // "order", "last-good", "provider-database: NAME", …
}

// DefaultSource is the source of the empty APN that is tried when nobody knows
// one.
const DefaultSource = "network default"

// Wanted is what is to be set for a profile.
type Wanted struct {
	Candidates []Candidate // for the device's data, in order of trust; none: the empty APN
	Attach     *modem.APN  // of the initial attach; nil: the candidate's
	Others     []modem.APN // of other purposes
	Radio      modem.Radio
}

// Target is where a switch leads.
type Target struct {
	ICCID rsp.ICCID
	Wanted
	Probe string // what must be reached over the new link; empty: nothing
}

func (t Target) candidates() []Candidate {
	if len(t.Candidates) == 0 {
		return []Candidate{{Source: DefaultSource}}
	}
	return t.Candidates[:min(len(t.Candidates), maxCandidates)]
}

// Bounds.
const (
	// maxCandidates are tried: each costs a reset of the modem.
	maxCandidates = 8
	// verifyLimit bounds one candidate when ctx does not: a modem that has to
	// search all bands needs minutes.
	verifyLimit = 4 * time.Minute
	// probeLimit is how long a fresh link may fail to carry traffic, if
	// Switch.ProbeTimeout does not say.
	probeLimit    = 30 * time.Second
	probeInterval = time.Second
	gateLimit     = 2 * time.Minute // of Rollback, which goes on without
)

// Switch makes the steps. All members but Log must be there; Prober only if
// targets have something to probe. One switch at a time.
type Switch struct {
	Settings Settings
	Modem    Modem
	Network  Network
	Prober   Prober
	Log      *slog.Logger

	// How long one candidate may take to find a network, and a fresh link to
	// carry traffic. 0: what is left of its time, and 30 s.
	RegisterTimeout time.Duration
	ProbeTimeout    time.Duration

	applied   Applied // by this process; zero if not known
	appliedOf Wanted
	appliedTo rsp.ICCID
}

func (s *Switch) log() *slog.Logger {
	if s.Log == nil {
		return slog.New(slog.DiscardHandler)
	}
	return s.Log
}

// Snapshot reads the present settings: JSON for the journal, with passwords in
// it. Nothing is changed.
func (s *Switch) Snapshot(ctx context.Context) ([]byte, error) { return s.Settings.Snapshot(ctx) }

// Working is what did for the profile of before, if the back-end can tell.
func (s *Switch) Working(snapshot []byte) (iccid string, apn modem.APN, ok bool) {
	r, can := s.Settings.(Rememberer)
	if !can {
		return "", modem.APN{}, false
	}
	return r.Working(snapshot)
}

// Gate keeps everything from coming up by itself. The present link goes down.
func (s *Switch) Gate(ctx context.Context, snapshot []byte) error {
	return s.Modem.Gate(ctx, snapshot)
}

// Applied is an access point that has been written.
type Applied struct {
	Candidate
	Index int      // among the candidates
	Where []string // "at", "networkmanager", "networkmanager: mms", …
	// NotApplied are the settings that could not be made: "mms: why".
	NotApplied []string
}

// add sorts what a back-end says.
func (a *Applied) add(said []string) {
	for _, s := range said {
		list := &a.Where
		if what, not := strings.CutPrefix(s, modem.NotApplied); not {
			s, list = what, &a.NotApplied
		}
		if !slices.Contains(*list, s) { // a step may be repeated
			*list = append(*list, s)
		}
	}
}

// Apply writes the first candidate.
func (s *Switch) Apply(ctx context.Context, t Target) (Applied, error) { return s.apply(ctx, t, 0) }

func (s *Switch) apply(ctx context.Context, t Target, i int) (Applied, error) {
	c := t.candidates()[i]
	s.appliedTo = rsp.ICCID{}
	where, err := s.Modem.Apply(ctx, t.ICCID.String(), modem.Settings{Default: c.APN, Attach: t.Attach, Others: t.Others, Radio: t.Radio})
	if err != nil {
		return Applied{}, fmt.Errorf("apn %s (%s): %w", c.APN, c.Source, err)
	}
	s.applied, s.appliedOf, s.appliedTo = Applied{Candidate: c, Index: i}, t.Wanted, t.ICCID
	s.applied.add(where)
	s.log().Info("parameters applied", "iccid", t.ICCID, "apn", c.APN.String(), "source", c.Source, "where", strings.Join(s.applied.Where, "+"),
		"not_applied", strings.Join(s.applied.NotApplied, "; "))
	return s.applied, nil
}

// Reread makes the modem read the card again and show the target.
func (s *Switch) Reread(ctx context.Context, t Target) (rung string, err error) {
	rung, err = s.Modem.Reread(ctx, t.ICCID.String())
	if err == nil {
		s.log().Info("sim read again", "iccid", t.ICCID, "rung", rung)
		if m, ok := s.Modem.(Later); ok {
			s.applied.add(m.Late())
		}
	}
	return rung, err
}

// Online is a proven switch.
type Online struct {
	Applied
	Registration modem.Registration
	Link         modem.Link
	Attempts     []Attempt // the candidates that did not do, in order
}

// Attempt is a candidate that did not do.
type Attempt struct {
	Candidate
	Stage Stage
	Err   error
}

// Stage is how far an attempt came.
type Stage int

// The stages, in order.
const (
	StageApply Stage = iota
	StageReread
	StageRegister
	StageConnect
	StageProbe
)

// String is a word for the stage.
func (s Stage) String() string {
	return [...]string{"apply", "reread", "register", "connect", "probe"}[s]
}

// VerifyError says that no candidate did.
type VerifyError struct{ Attempts []Attempt }

// Error tells of each attempt.
func (e *VerifyError) Error() string {
	parts := make([]string, len(e.Attempts))
	for i, a := range e.Attempts {
		parts[i] = fmt.Sprintf("apn %s (%s): %s: %v", a.APN, a.Source, a.Stage, a.Err)
	}
	return "verify: " + strings.Join(parts, "; ")
}

// furthest is the attempt that came nearest to success: what stopped it
// explains more than what stopped the others. One that had no time left knows
// less than another at the same stage.
func (e *VerifyError) furthest() Attempt {
	var best Attempt
	for _, a := range e.Attempts {
		if best.Err == nil || a.Stage > best.Stage || a.Stage == best.Stage && timeout(best.Err) && !timeout(a.Err) {
			best = a
		}
	}
	return best
}

// timeout reports that an error tells only that time was up.
func timeout(err error) bool { return fault.Of(err).Code == "timeout" }

// Unwrap returns the error of the attempt that came furthest.
func (e *VerifyError) Unwrap() error { return e.furthest().Err }

// Fault explains the attempt that came furthest.
func (e *VerifyError) Fault() fault.Fault { return fault.Of(e.furthest().Err) }

// Verify waits until the target is registered, its link is up, and the probe
// passes. When that does not come about with the access point that was
// applied, the others are tried in order, each with gate, apply and re-read as
// the first, within the time that ctx leaves, shared out among them. An access
// point of the attach with which no network was found is not tried again. After a
// restart it begins with the first candidate.
func (s *Switch) Verify(ctx context.Context, snapshot []byte, t Target) (Online, error) {
	candidates := t.candidates()
	// The candidates may have changed since Apply: the SIM that the modem shows
	// now tells more than the card did before it was enabled.
	first, fresh := 0, s.appliedTo == t.ICCID && !t.ICCID.IsZero() && same(candidates[0].APN, s.applied.APN) && alike(t.Wanted, s.appliedOf)
	var attempts []Attempt
	for i := first; i < len(candidates) && ctx.Err() == nil; i++ {
		online, stage, err := s.try(ctx, snapshot, t, i, fresh && i == first, len(candidates)-i)
		if err == nil {
			online.Attempts = attempts
			return online, nil
		}
		attempts = append(attempts, Attempt{candidates[i], stage, err})
		if stage <= StageRegister { // no network lets the modem in with that; it may with what the next candidate says
			t.Attach = nil
		}
		s.log().Warn("access point does not do", "iccid", t.ICCID, "apn", candidates[i].APN.String(), "source", candidates[i].Source,
			"stage", stage.String(), "err", err)
	}
	if len(attempts) == 0 {
		return Online{}, fmt.Errorf("verify: %w", ctx.Err())
	}
	return Online{}, &VerifyError{attempts}
}

// ResetSIM resets the card, if the modem knows how, and leaves the gate closed.
// It is the last means against a card that stays busy.
func (s *Switch) ResetSIM(ctx context.Context) error {
	m, ok := s.Modem.(SIMResetter)
	if !ok {
		return errNoReset
	}
	return m.ResetSIM(ctx)
}

var errNoReset = errors.New("this back-end cannot reset the card")

// Afresh has the next Verify begin with the gate, whatever was applied before.
func (s *Switch) Afresh() { s.appliedTo = rsp.ICCID{} }

// same reports whether two access points are one.
func same(a, b modem.APN) bool { return reflect.DeepEqual(a, b) }

// alike reports whether the same is wanted beside the candidates.
func alike(a, b Wanted) bool {
	a.Candidates, b.Candidates = nil, nil
	return reflect.DeepEqual(a, b)
}

// SIM is the subscription that the modem shows, if the back-end can tell: the
// zero value if it cannot.
func (s *Switch) SIM(ctx context.Context) modem.SIM {
	reader, ok := s.Network.(SIMReader)
	if !ok {
		return modem.SIM{}
	}
	sim, err := reader.SIM(ctx)
	if err != nil {
		s.log().Debug("the modem does not tell its subscription", "err", err)
		return modem.SIM{}
	}
	return sim
}

// register waits for a network, as long as it may.
func (s *Switch) register(ctx context.Context) (modem.Registration, error) {
	if s.RegisterTimeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, s.RegisterTimeout)
		defer cancel()
	}
	return s.Network.Register(ctx)
}

// try proves one candidate, within its share of the time that is left.
func (s *Switch) try(ctx context.Context, snapshot []byte, t Target, i int, applied bool, left int) (Online, Stage, error) {
	share := verifyLimit
	if deadline, ok := ctx.Deadline(); ok {
		share = time.Until(deadline) / time.Duration(left)
	}
	ctx, cancel := context.WithTimeout(ctx, share)
	defer cancel()
	if !applied {
		if err := s.Gate(ctx, snapshot); err != nil {
			return Online{}, StageApply, err
		}
		if _, err := s.apply(ctx, t, i); err != nil {
			return Online{}, StageApply, err
		}
		if _, err := s.Reread(ctx, t); err != nil {
			return Online{}, StageReread, err
		}
	}
	registration, err := s.register(ctx)
	if err != nil {
		return Online{}, StageRegister, err
	}
	link, err := s.Network.Connect(ctx, t.ICCID.String())
	if err != nil {
		return Online{}, StageConnect, err
	}
	link, stage, err := s.prove(ctx, t, link)
	if err != nil {
		return Online{}, stage, err
	}
	s.log().Info("online", "iccid", t.ICCID, "plmn", registration.PLMN, "interface", link.Interface)
	return Online{Applied: s.applied, Registration: registration, Link: link}, StageProbe, nil
}

// prove probes a fresh link. One that goes down meanwhile, as when a service of
// the network has died, has proven nothing: it is brought up and probed again.
func (s *Switch) prove(ctx context.Context, t Target, link modem.Link) (modem.Link, Stage, error) {
	for {
		probing, stop := context.WithCancel(ctx)
		lost := make(chan bool, 1)
		go func() { lost <- s.watchLink(probing, t, stop) }()
		err := s.Probe(probing, link, t.Probe)
		stop()
		if gone := <-lost; err == nil || !gone || ctx.Err() != nil {
			return link, StageProbe, err
		}
		s.log().Warn("the link went down while it was probed, and is brought up again", "iccid", t.ICCID)
		if link, err = s.Network.Connect(ctx, t.ICCID.String()); err != nil {
			return link, StageConnect, err
		}
	}
}

// How a link is watched that is being probed. One look may fall between the end
// of a link and its return.
const (
	linkInterval = 2 * time.Second
	linkLooks    = 2
)

// codeNoLink is that of package modem/network for a link that is down.
const codeNoLink = "no-link"

// watchLink looks whether the link is still up until ctx ends. One that is down
// at some looks in a row is lost: that is reported, and gone called.
func (s *Switch) watchLink(ctx context.Context, t Target, gone func()) bool {
	for down := 0; down < linkLooks; {
		select {
		case <-ctx.Done():
			return false
		case <-time.After(linkInterval):
		}
		if _, err := s.Network.Link(ctx, t.ICCID.String()); err == nil || fault.Of(err).Code != codeNoLink {
			down = 0
		} else {
			down++
		}
	}
	gone()
	return true
}

// Probe tries to reach the target over the link until it does, for half a
// minute at most: a bearer that is up may carry nothing for its first second.
// An empty target is reached.
func (s *Switch) Probe(ctx context.Context, link modem.Link, target string) error {
	if target == "" {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, cmp.Or(s.ProbeTimeout, probeLimit))
	defer cancel()
	var last error
	for {
		err := s.Prober.Probe(ctx, link, target)
		if err == nil {
			return nil
		}
		if last == nil || ctx.Err() == nil {
			last = err // what the end of ctx cuts short says less
		}
		select {
		case <-ctx.Done():
			return last
		case <-time.After(probeInterval):
		}
	}
}

// Link is the target's link if it is up now: what the enable notification is
// to be sent over.
func (s *Switch) Link(ctx context.Context, iccid rsp.ICCID) (modem.Link, error) {
	return s.Network.Link(ctx, iccid.String())
}

// Forgetter is a Settings that keeps something for a profile, such as a
// connection with its password, which must go when the profile is deleted.
type Forgetter interface {
	Forget(ctx context.Context, iccid string) error
}

// forgetLimit bounds Forget: a deletion does not wait for the network's
// services.
const forgetLimit = 10 * time.Second

// Forget drops what is kept for a profile that has been deleted. What cannot
// be dropped is logged: the profile is gone all the same.
func (s *Switch) Forget(ctx context.Context, iccid rsp.ICCID) {
	f, ok := s.Settings.(Forgetter)
	if !ok {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, forgetLimit)
	defer cancel()
	if err := f.Forget(ctx, iccid.String()); err != nil {
		s.log().Warn("settings of a deleted profile stay", "iccid", iccid, "err", err)
	}
}

// Commit lets the new settings stay. The switch is over.
func (s *Switch) Commit(ctx context.Context, t Target) error {
	if err := s.Settings.Commit(ctx, t.ICCID.String()); err != nil {
		return err
	}
	s.appliedTo = rsp.ICCID{}
	return nil
}

// Rollback takes the device back to the snapshot: gate, the previous profile
// enabled on the card by enable (nil if the card never switched), settings put
// back, card read again, old link up. A gate that cannot be had does not stop
// it; a card that refuses does, for the old settings would be wrong for the
// new profile. It may be repeated until it succeeds.
func (s *Switch) Rollback(ctx context.Context, snapshot []byte, enable func(context.Context) error) (modem.Link, error) {
	s.appliedTo = rsp.ICCID{}
	bounded, cancel := context.WithTimeout(ctx, gateLimit)
	gate := s.Modem.Gate(bounded, snapshot)
	cancel()
	if gate != nil {
		s.log().Warn("rollback goes on without a gate", "err", gate)
	}
	if enable != nil {
		if err := enable(ctx); err != nil {
			return modem.Link{}, fmt.Errorf("roll back: enable the previous profile: %w", errors.Join(err, gate))
		}
	}
	link, err := s.Settings.Restore(ctx, snapshot)
	if err != nil {
		return link, fmt.Errorf("roll back: %w", err)
	}
	return link, nil
}
