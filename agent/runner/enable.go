package runner

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"lpad/agent/procedure"
	"lpad/agent/rsp"
	"lpad/agent/rsp/es10"
)

// enableTry is one way of saying to a card which profile to enable.
type enableTry struct {
	byAID   bool
	refresh es10.RefreshFlag
}

// enableTries are the ways, in the usual order. The refresh flag is off first, so that the
// modem reads the card again when the settings are in place and not before; a
// card that wants the flag gets it then, behind the gate.
var enableTries = []enableTry{{false, es10.NoRefresh}, {false, es10.Refresh}, {true, es10.NoRefresh}, {true, es10.Refresh}}

// tries are the ways in the order that is known to suit the modem, with the
// others behind them: what is known of it may be wrong of this one.
func (r *Runner) tries() []enableTry {
	var out []enableTry
	add := func(t enableTry) {
		if !slices.Contains(out, t) {
			out = append(out, t)
		}
	}
	if r.cfg.EnableOrder != nil {
		for _, name := range r.cfg.EnableOrder() {
			key, refresh := strings.CutSuffix(name, "-refresh")
			add(enableTry{byAID: key == "aid", refresh: es10.RefreshFlag(refresh)})
		}
	}
	for _, t := range enableTries {
		add(t)
	}
	return out
}

// enableProfile enables a profile. A card that stays busy in spite of the
// pauses that package procedure makes is reset once, and asked once more.
func (r *Runner) enableProfile(ctx context.Context, iccid rsp.ICCID) error {
	err := r.tryToEnable(ctx, iccid)
	if !errors.Is(err, rsp.EnableCATBusy) {
		return err
	}
	r.log.Warn("the card stays busy, resetting it", "iccid", iccid)
	r.card.closeCard(ctx, r.log)
	if reset := r.cfg.Switch.ResetSIM(ctx); reset != nil {
		return errors.Join(err, reset)
	}
	return r.tryToEnable(ctx, iccid)
}

// tryToEnable goes through the ways until the card takes one. Between two of
// them it asks the card what is so: a refusal may hide a success.
func (r *Runner) tryToEnable(ctx context.Context, iccid rsp.ICCID) error {
	var p rsp.Profile // zero: not asked for yet
	var err error
	for _, try := range r.tries() {
		if try.byAID && p.ICCID.IsZero() { // the first try of all
			if p, err = r.profile(ctx, iccid); err != nil {
				return err
			}
		}
		if try.byAID && len(p.AID) == 0 {
			continue
		}
		err = r.settle(ctx, iccid, rsp.Enabled, r.onCard(ctx, func(card Card) error {
			if try.byAID {
				return procedure.EnableByAID(ctx, card, p, try.refresh)
			}
			return procedure.Enable(ctx, card, iccid, try.refresh)
		}))
		if !errors.Is(err, rsp.EnableUndefined) && !errors.Is(err, rsp.EnableNotFound) {
			return err
		}
		r.log.Info("the card does not take it this way", "iccid", iccid, "by_aid", try.byAID, "refresh", bool(try.refresh), "err", err)
		now, ferr := r.profile(ctx, iccid)
		switch {
		case ferr != nil:
			return fmt.Errorf("%w; then: %w", err, ferr)
		case now.State == rsp.Enabled:
			return nil
		}
		p = now
	}
	return err
}

// EnableOrder is the usual order of the ways of enabling, in the words of
// [Config.EnableOrder].
func EnableOrder() []string { return []string{"iccid", "iccid-refresh", "aid", "aid-refresh"} }
