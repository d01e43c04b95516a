package agent

import (
	"context"

	"lpad/agent/api"
)

// Trust lists the authorities that are believed, and which of them the card
// lists too, as far as that is known: the card is not asked.
func (b *backend) Trust(context.Context) (api.Trust, error) {
	trust := b.trust.Load()
	list := trust.Describe()
	out := api.Trust{Roots: make([]api.TrustRoot, len(list)), Dir: b.cfg.RSP.TrustDir, Skipped: trust.Skipped()}
	for i := range list {
		r, to := &list[i], &out.Roots[i]
		to.Name, to.Fingerprint, to.Source, to.Test, to.KeyID, to.Until = r.Name, r.Fingerprint, r.Origin, r.Test, r.SKI, r.Until
	}
	info := b.runner.View().Facts.Info2
	if info == nil {
		return out, nil
	}
	out.CardKnown = true
	for _, key := range keys(info.Verification) {
		known := false
		for i := range out.Roots {
			if to := &out.Roots[i]; to.KeyID == key { // there are several certificates of one key
				to.OnCard, known = true, true
			}
		}
		if !known {
			out.CardOnly = append(out.CardOnly, key)
		}
	}
	return out, nil
}
