package rsp

import (
	"bytes"
	"errors"
	"fmt"

	"lpad/apdu/ber"
)

// RAT is the Rules Authorisation Table of a card: which profile policy rules
// it accepts from whom (SGP.22 v2.5, section 2.9.2.1). Without a rule that
// fits, a policy rule is not allowed.
type RAT struct {
	Rules []RATRule
	Raw   []byte
}

// RATRule allows some policy rules to some operators.
type RATRule struct {
	PPR             PPR
	Operators       []Operator // nibble E of MCCMNC is any digit; absent or empty GIDs are any
	ConsentRequired bool       // the user must agree explicitly
}

const (
	maxRATRules     = 64
	maxRATOperators = 256
)

// ParseRAT reads the answer of ES10b.GetRAT, tag BF43.
func ParseRAT(b []byte) (RAT, error) {
	t, err := ber.Parse(b)
	if err != nil {
		return RAT{}, fmt.Errorf("rules authorisation table: %w", err)
	}
	if t.Tag != 0xBF43 {
		return RAT{}, fmt.Errorf("rules authorisation table: tag %X, want BF43", uint32(t.Tag))
	}
	table := RAT{Raw: clone(t.Raw)}
	r := t.Reader()
	rules := r.Read(0xA0).Reader()
	for !rules.Empty() && rules.Err() == nil {
		if len(table.Rules) == maxRATRules {
			return RAT{}, errors.New("rules authorisation table: too many rules")
		}
		rule, err := parseRATRule(rules.Read(0x30))
		if err = errors.Join(rules.Err(), err); err != nil {
			return RAT{}, fmt.Errorf("rules authorisation table: rule %d: %w", len(table.Rules)+1, err)
		}
		table.Rules = append(table.Rules, rule)
	}
	if err := errors.Join(r.Err(), rules.Err()); err != nil {
		return RAT{}, fmt.Errorf("rules authorisation table: %w", err)
	}
	return table, nil
}

func parseRATRule(t ber.TLV) (rule RATRule, err error) {
	r := t.Reader()
	ids := r.Read(0x80)
	operators := r.Read(0xA1).Reader()
	flags, hasFlags := r.Find(0x82)
	if err := r.Err(); err != nil {
		return rule, err
	}
	if rule.PPR, err = parsePPR(ids); err != nil {
		return rule, err
	}
	for !operators.Empty() && operators.Err() == nil {
		if len(rule.Operators) == maxRATOperators {
			return rule, errors.New("too many operators")
		}
		o, err := parseOperator(operators.Read(0x30))
		if err = errors.Join(operators.Err(), err); err != nil {
			return rule, err
		}
		rule.Operators = append(rule.Operators, o)
	}
	if hasFlags {
		bits, err := flags.Bits()
		if err != nil {
			return rule, err
		}
		rule.ConsentRequired = bits.Has(0)
	}
	return rule, operators.Err()
}

// PPRRequest is a profile with policy rules that wants to be installed.
type PPRRequest struct {
	PPR       PPR
	Owner     *Operator // nil when the metadata name none
	Forbidden PPR       // EUICCInfo2.ForbiddenPPR
	Installed []Profile
}

// PPRDecision is the answer to a [PPRRequest].
type PPRDecision struct {
	Refused PPR    // rules that are not allowed; the profile must not be installed when there are any
	Reason  string // why, in plain words, for the first of them
	Consent PPR    // rules that the user must agree to explicitly
}

// Decide applies the table (SGP.22 v2.5, section 2.9.2.4): for every rule the
// first entry decides that names both the rule and the operator.
func (t RAT) Decide(q PPRRequest) PPRDecision {
	var d PPRDecision
	for _, rule := range [...]PPR{PPR1, PPR2} {
		if q.PPR&rule == 0 {
			continue
		}
		consent, reason := t.decide(rule, q)
		if reason != "" {
			d.Refused |= rule
			if d.Reason == "" {
				d.Reason = reason
			}
		} else if consent {
			d.Consent |= rule
		}
	}
	return d
}

// decide returns why rule is refused, or whether it needs consent.
func (t RAT) decide(rule PPR, q PPRRequest) (consent bool, reason string) {
	if q.Forbidden&rule != 0 {
		return false, fmt.Sprintf("the card forbids %s", rule)
	}
	if rule == PPR1 {
		for _, p := range q.Installed {
			if p.Class == ClassOperational {
				return false, "a profile that cannot be disabled may only be the first one on a card"
			}
		}
	}
	if q.Owner == nil {
		return false, fmt.Sprintf("%s comes without the operator's identity", rule)
	}
	for _, r := range t.Rules {
		if r.PPR&rule != 0 && r.names(*q.Owner) {
			return r.ConsentRequired, ""
		}
	}
	return false, fmt.Sprintf("the card does not allow %s to this operator", rule)
}

func (r RATRule) names(owner Operator) bool {
	for _, o := range r.Operators {
		if matchPLMN(o.MCCMNC, owner.MCCMNC) && matchGID(o.GID1, owner.GID1) && matchGID(o.GID2, owner.GID2) {
			return true
		}
	}
	return false
}

func matchPLMN(rule, plmn [3]byte) bool {
	for i := range rule {
		for _, shift := range [...]int{0, 4} {
			want := rule[i] >> shift & 0xF
			if want != 0xE && want != plmn[i]>>shift&0xF {
				return false
			}
		}
	}
	return true
}

func matchGID(rule, gid []byte) bool { return len(rule) == 0 || bytes.Equal(rule, gid) }
