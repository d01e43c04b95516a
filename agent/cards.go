package agent

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"lpad/agent/api"
	"lpad/agent/apiserver"
	"lpad/agent/job"
	"lpad/agent/rsp"
	"lpad/agent/runner"
	"lpad/internal/fault"
)

// claims says which card of the configuration has which eUICC. Two paths to one
// eUICC would be two owners of it, each with a memory and a queue of its own:
// the first that has read it has it, until it cannot read it any more.
type claims struct {
	mu     sync.Mutex
	owners map[rsp.EID]*unit
}

// lookAgain bounds the reading of a card that may have been moved.
const lookAgain = time.Minute

// admit lets a unit use an eUICC, or says whose it is. Then the owner is made
// to look whether it still has it: a card may have been moved.
func (c *claims) admit(u *unit, eid rsp.EID) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	for old, by := range c.owners {
		if by == u && old != eid {
			delete(c.owners, old)
		}
	}
	owner := c.owners[eid]
	if owner == nil || owner == u || owner.runner.View().CardErr != nil {
		if c.owners == nil {
			c.owners = map[rsp.EID]*unit{}
		}
		c.owners[eid] = u
		return nil
	}
	go func() {
		ctx, cancel := context.WithTimeout(context.Background(), lookAgain)
		defer cancel()
		if _, err := owner.runner.Refresh(ctx, 0); err != nil {
			owner.log.Debug("card not looked at again", "err", err)
		}
	}()
	return fault.New(fault.Fault{Code: "card-twice", Text: fmt.Sprintf("this eUICC is the one of card %s, which has another path to it", owner.cfg.Name), Retry: true,
		Who: fault.Configuration, Next: "take one of the two cards out of the configuration, or put another eUICC where it leads"}, nil)
}

// ForCard is the daemon as a request about one card sees it.
func (b *backend) ForCard(name string, order bool) (apiserver.Backend, error) {
	if name == "" {
		if order && len(b.units) > 1 {
			return nil, fault.New(fault.Fault{Code: api.CodeCardAmbiguous, Text: "this device has several cards: " + strings.Join(b.names, ", "), Who: fault.Technician,
				Next: "say for which of them (lpactl --card NAME)"}, nil)
		}
		i := max(0, slices.IndexFunc(b.units, func(u *unit) bool { return u.cfg.Default }))
		return &backend{b.Agent, b.units[i], true}, nil
	}
	for _, u := range b.units {
		if name == u.cfg.Name || name == eidOf(u.runner.View()) {
			return &backend{b.Agent, u, false}, nil
		}
	}
	return nil, fault.New(fault.Fault{Code: api.CodeCardUnknown, Text: "no card of this device has this name or EID; there are: " + strings.Join(b.names, ", "),
		Who: fault.Technician, Next: "look at the cards (lpactl cards)"}, nil)
}

func eidOf(v runner.View) string {
	if v.FactsAt.IsZero() {
		return ""
	}
	return v.Facts.EID.String()
}

// of is the same about the card of a job, where the request names no card.
func (b *backend) of(id string) *backend {
	return b.find(func(v *runner.View) bool {
		return slices.ContainsFunc(v.Jobs, func(j job.Job) bool { return j.ID == id })
	})
}

// find is the same about the first card that fits, if any may be meant.
func (b *backend) find(fits func(*runner.View) bool) *backend {
	if b.all && len(b.units) > 1 {
		for _, u := range b.units {
			if v := u.runner.View(); fits(&v) {
				return &backend{b.Agent, u, true}
			}
		}
	}
	return b
}

// Cards lists the cards.
func (b *backend) Cards(context.Context) (api.Cards, error) {
	var out api.Cards
	for _, u := range b.units {
		out.Cards = append(out.Cards, u.status(u.runner.View()))
	}
	return out, nil
}

// status is how it is with one card.
func (u *unit) status(v runner.View) api.CardStatus {
	s := api.CardStatus{Name: u.cfg.Name, EID: eidOf(v), Backend: u.parts.CardPath.Backend, Path: u.parts.CardPath.now(), Slot: u.cfg.Modem.Slot, State: string(v.State),
		Default: u.cfg.Default, Job: v.Active, Problem: problemOf(v.CardErr)}
	for _, j := range v.Jobs {
		if j.ID != v.Active && !j.Ended() {
			s.Queued++
		}
	}
	return s
}
