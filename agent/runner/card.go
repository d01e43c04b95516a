package runner

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"slices"
	"time"

	"lpad/agent/procedure"
	"lpad/agent/rsp"
	"lpad/agent/rsp/es10"
	"lpad/internal/fault"
)

// cardState is what the card's goroutine holds open. Nobody else touches it.
type cardState struct {
	open    Card               // nil: no channel is open
	session *procedure.Session // of the job that is downloading
	server  procedure.Server   // of that session
	result  *rsp.PendingNotification

	gated     string    // id of the job whose gate this process holds
	deadManOf string    // id of the job whose switch is given up at deadMan
	deadMan   time.Time // with a reading of the monotonic clock

	hooks *background // of the activation

	effective Effective // what the switch under way sets
	told      string    // what was said of it
}

// closeTimeout bounds the closing of a channel, which is done even when the
// context has ended.
const closeTimeout = 5 * time.Second

// closeCard closes the channel: before anything that makes the modem read the
// card again, when a job has ended, and after an error on it.
func (c *cardState) closeCard(ctx context.Context, log *slog.Logger) {
	if c.open == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), closeTimeout)
	defer cancel()
	if err := c.open.Close(ctx); err != nil {
		log.Debug("channel not closed", "err", err)
	}
	c.open = nil
}

// close gives up everything.
func (c *cardState) close(ctx context.Context, log *slog.Logger) {
	c.closeSession(log)
	c.closeCard(ctx, log)
}

// closeSession lets go of a download, without telling anybody.
func (c *cardState) closeSession(log *slog.Logger) {
	if c.server != nil {
		if err := c.server.Close(); err != nil {
			log.Debug("server session not closed", "err", err)
		}
	}
	c.server, c.session, c.result = nil, nil, nil
}

// openCard returns the open channel, opening it if need be.
func (r *Runner) openCard(ctx context.Context) (Card, error) {
	if r.card.open != nil {
		return r.card.open, nil
	}
	card, err := r.cfg.Card.Open(ctx)
	if err != nil {
		return nil, err
	}
	r.card.open = card
	return card, nil
}

// onCard runs f with an open card, on the card's goroutine. After an error the
// channel is closed: the next use begins with a fresh one.
func (r *Runner) onCard(ctx context.Context, f func(Card) error) error {
	card, err := r.openCard(ctx)
	if err != nil {
		return err
	}
	if err = f(card); err != nil {
		r.card.closeCard(ctx, r.log)
	}
	return err
}

// How long a card is asked again when the link to it broke in the middle of a
// command: a modem that was reset needs so long to come back.
const (
	settleLimit = 45 * time.Second
	settlePause = time.Second
)

// insist runs f on a freshly opened card, again and again until it gets an
// answer, whatever it says: what became of a command must be known before the
// job goes on.
func (r *Runner) insist(ctx context.Context, f func(Card) error) error {
	ctx, cancel := context.WithTimeout(ctx, settleLimit)
	defer cancel()
	for {
		err := r.onCard(ctx, f)
		if err == nil || es10.IsRefusal(err) || ctx.Err() != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(settlePause):
		}
	}
}

// awayPause is between two looks at a modem that has gone.
const awayPause = time.Second

// whenBack takes a step of a switch, and takes it again when the line to the
// modem was lost in it, until ctx ends: a modem that was unplugged, or that has
// reset itself, comes back after a while, and is no reason to give up a profile.
// What the modem was told before, it may have forgotten: the gate is closed anew.
func (r *Runner) whenBack(ctx context.Context, step func(context.Context) error) error {
	lost := false
	for {
		err := step(ctx)
		if !lineLost(err) && !(lost && starting(err)) {
			return err
		}
		lost = true
		r.log.Info("the modem has gone; waiting for it", "err", err)
		r.card.close(ctx, r.log)
		r.card.gated = ""
		select {
		case <-ctx.Done():
			return err
		case <-time.After(awayPause):
		}
	}
}

// lineLost reports that there is no line to the modem any more: whatever was
// asked for has not been refused.
func lineLost(err error) bool {
	var unknown *procedure.UnknownOutcomeError
	if errors.As(err, &unknown) { // and settled: it has come to nothing
		err = unknown.Err
	}
	if err == nil {
		return false
	}
	code := fault.Of(err).Code
	return code == codeHangup || code == codeMissing
}

// starting reports what a modem says that has just come back and has not found
// its SIM yet.
func starting(err error) bool { return err != nil && fault.Of(err).Code == codeNoSIM }

// Codes of packages modem/serialport and modem/at.
const (
	codeNoSIM   = "sim-missing"
	codeHangup  = "modem-hangup"
	codeMissing = "port-missing"
)

// facts returns what is known of the card, reading it if it is not, or if it
// is another card than the one that was read.
func (r *Runner) facts(ctx context.Context) (procedure.Facts, error) {
	v := r.View()
	if v.CardErr == nil && !v.FactsAt.IsZero() && v.Facts.Profiles != nil {
		var eid rsp.EID
		err := r.onCard(ctx, func(card Card) (err error) {
			eid, err = card.GetEID(ctx)
			return err
		})
		if err == nil && eid == v.Facts.EID {
			return v.Facts, nil
		}
	}
	return r.readFacts(ctx)
}

// readFacts asks the card for everything, and makes it visible.
func (r *Runner) readFacts(ctx context.Context) (procedure.Facts, error) {
	var facts procedure.Facts
	var list []rsp.Notification
	err := r.onCard(ctx, func(card Card) (err error) {
		if facts, err = procedure.ReadFacts(ctx, card); err != nil {
			return err
		}
		list, err = procedure.ListNotifications(ctx, card)
		return err
	})
	if errors.Is(err, context.Canceled) {
		return facts, err // something more urgent came: what was known stands
	}
	r.setFacts(facts, list, err)
	if err == nil {
		r.compareCIs(facts)
	}
	return facts, err
}

// compareCIs warns of a card whose two lists of CIs differ, which the
// specification forbids: the server goes by one and the card perhaps by the
// other.
func (r *Runner) compareCIs(f procedure.Facts) {
	same := func(a, b [][]byte) bool { return slices.EqualFunc(a, b, bytes.Equal) }
	if one, two := f.Info1, f.Info2; one == nil || two == nil || same(one.Verification, two.Verification) && same(one.Signing, two.Signing) {
		r.warn("ci-lists", "")
		return
	}
	if r.warn("ci-lists", "the card lists other CIs in EUICCInfo1 than in EUICCInfo2: a server may be refused that the card would accept; tell the vendor of the card") {
		r.log.Warn("the card lists other CIs in EUICCInfo1 than in EUICCInfo2")
	}
}

// readProfiles reads the profiles again, after something was changed.
func (r *Runner) readProfiles(ctx context.Context) ([]rsp.Profile, error) {
	v := r.View()
	v.Facts.Profiles = nil
	if v.FactsAt.IsZero() {
		facts, err := r.readFacts(ctx)
		return facts.Profiles, err
	}
	err := r.onCard(ctx, func(card Card) (err error) {
		v.Facts.Profiles, err = card.GetProfilesInfo(ctx, rsp.ProfileSearch{}, es10.ProfileTags()...)
		return err
	})
	if !errors.Is(err, context.Canceled) {
		r.setFacts(v.Facts, v.Notifications, err)
	}
	return v.Facts.Profiles, err
}

// look reads the profiles again for those who ask what is on the card. The job
// does not depend on it: what it did is done, whether the card can be read
// just now or not.
func (r *Runner) look(ctx context.Context) {
	if _, err := r.readProfiles(ctx); err != nil {
		r.log.Warn("card not read", "err", err)
	}
}

// refresh reads the card in the background.
func (r *Runner) refresh(ctx context.Context) {
	r.begin(ctx, taskRefresh, func(ctx context.Context) outcome {
		ctx, cancel := context.WithTimeout(ctx, refreshLimit)
		defer cancel()
		_, err := r.readFacts(ctx)
		r.card.closeCard(ctx, r.log)
		if err != nil && !errors.Is(err, context.Canceled) {
			r.log.Warn("card not read", "err", err)
		}
		return outcome{err: err}
	})
}

// profile finds one profile in what is known of the card, or asks the card.
func (r *Runner) profile(ctx context.Context, iccid rsp.ICCID) (rsp.Profile, error) {
	var p rsp.Profile
	var found bool
	err := r.onCard(ctx, func(card Card) (err error) {
		p, found, err = procedure.FindProfile(ctx, card, iccid)
		return err
	})
	if err == nil && !found {
		err = noProfile(iccid)
	}
	return p, err
}

// enabledProfile is the profile that is enabled, zero if there is none.
func enabledProfile(list []rsp.Profile) rsp.ICCID {
	for _, p := range list {
		if p.State == rsp.Enabled {
			return p.ICCID
		}
	}
	return rsp.ICCID{}
}
