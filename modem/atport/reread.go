package atport

import (
	"context"
	"errors"
	"os"

	"lpad/modem/atmodem"
	"lpad/modem/quirks"
)

// Reread makes the modem read the card again and waits until it shows iccid, by
// the ladder of [atmodem.Ladder]: the rung that worked the last time first. The
// port may hang up meanwhile and come back under another name. It says which rung
// did it. Commands that the modem needs after a switch are sent then.
func (p *Port) Reread(ctx context.Context, iccid string) (rung string, err error) {
	if _, _, err := p.parts(ctx); err != nil && ctx.Err() != nil {
		return "", err // the ladder waits for a port that is away, but somebody must have met the modem first
	}
	p.mu.Lock()
	id, best := p.id, p.cfg.Learned.Get(p.id).Rung
	p.mu.Unlock()
	ladder := p.ladder(best)
	c, err := ladder.Reread(ctx, iccid)
	p.report(c, err)
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.card != nil {
		p.card.WasReset()
	}
	if id != p.id {
		return string(c.Rung), err
	}
	p.learn(func(l *quirks.Learned) {
		if cmd := p.seen.ICCIDCommand(); cmd != "" {
			l.ICCID = cmd
		}
		switch {
		case err == nil && c.Learnt:
			l.Rung = c.Rung
		case errors.Is(err, atmodem.ErrOldSIM) && ctx.Err() == nil:
			l.Rung = "" // the next time from the bottom
		}
	})
	if err != nil || c.Proof == "known" || p.after == iccid || len(p.quirks.AfterSwitch) == 0 {
		return string(c.Rung), err
	}
	p.after = iccid
	commands := p.quirks.AfterSwitch
	p.mu.Unlock()
	defer p.mu.Lock()
	if err := ladder.After(ctx, iccid, commands); err != nil {
		p.cfg.Log.Warn("what this modem needs after a switch", "err", err)
	}
	return string(c.Rung), nil
}

func (p *Port) ladder(best quirks.Rung) atmodem.Ladder {
	return atmodem.Ladder{Line: p.line, Best: best, Switched: p.markOff, Log: p.cfg.Log}
}

// line is the Line of a ladder.
func (p *Port) line(ctx context.Context, anew bool) (*atmodem.Modem, error) {
	if anew {
		if err := p.Close(); err != nil {
			p.cfg.Log.Debug("port not closed", "err", err)
		}
	}
	_, m, err := p.parts(ctx)
	return m, err
}

// report logs a climb.
func (p *Port) report(c atmodem.Climb, err error) {
	for _, a := range c.Tried {
		p.cfg.Log.Debug("rung", "rung", a.Rung, "took", a.Took, "err", a.Err)
	}
	if err == nil {
		p.cfg.Log.Info("the modem has read the card", "rung", c.Rung, "proof", c.Proof)
	}
}

// PowerCycle takes the power from the card and gives it back.
func (p *Port) PowerCycle(ctx context.Context) error {
	err := p.ladder("").PowerCycle(ctx)
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.card != nil {
		p.card.WasReset()
	}
	return err
}

// markOff notes that a re-read has the modem switched off, or that it is on.
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
	p.cfg.Log.Warn("the modem is switched off, switching it on", "port", p.Path())
	if err := m.SetFunctionality(ctx, atmodem.Full); err != nil {
		p.cfg.Log.Warn("the modem is not switched on", "err", err)
		return false
	}
	return true // the card answers soon; until then the modem says that it is busy
}
