package euicc

import (
	"slices"

	"lpad/agent/rsp"
)

// allows decides whether a profile may have its policy rules (SGP.22 v2.5,
// section 2.9.2.4, from the side of the card).
func (c *Card) allows(m *metadata) bool {
	rules := m.ppr & (rsp.PPR1 | rsp.PPR2)
	switch {
	case rules == 0:
		return true
	case rules&c.config.ForbiddenPPR != 0:
		return false
	case rules&rsp.PPR1 != 0 && slices.ContainsFunc(c.mem.Profiles, func(p *profile) bool { return p.Class == classOperational }):
		return false
	}
	for _, rule := range []rsp.PPR{rsp.PPR1, rsp.PPR2} {
		if rules&rule != 0 && !c.authorises(rule, *m.owner) {
			return false
		}
	}
	return true
}

// authorises looks a policy rule up in the Rules Authorisation Table. Whether
// the user consents is between him and the LPA.
func (c *Card) authorises(rule rsp.PPR, owner rsp.Operator) bool {
	return slices.ContainsFunc(c.config.RAT, func(row Rule) bool {
		return row.PPR&rule != 0 && slices.ContainsFunc(row.Operators, func(o rsp.Operator) bool { return operatorMatches(o, owner) })
	})
}

func operatorMatches(rule, owner rsp.Operator) bool {
	for i := range rule.MCCMNC {
		for _, shift := range []int{0, 4} {
			if want := rule.MCCMNC[i] >> shift & 0xF; want != 0xE && want != owner.MCCMNC[i]>>shift&0xF {
				return false
			}
		}
	}
	return (len(rule.GID1) == 0 || slices.Equal(rule.GID1, owner.GID1)) &&
		(len(rule.GID2) == 0 || slices.Equal(rule.GID2, owner.GID2))
}
