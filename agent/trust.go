package agent

import (
	"context"
	"slices"

	"lpad/agent/api"
)

// Trust lists the authorities that are believed, and which of them the card
// lists too, as far as that is known: the card is not asked.
func (b *backend) Trust(context.Context) (api.Trust, error) {
	trust := b.trust.Load()
	out := api.Trust{Roots: []api.TrustRoot{}, Dir: b.cfg.RSP.TrustDir, Skipped: trust.Skipped()}
	var listed []string
	if i := b.runner.View().Facts.Info2; i != nil {
		out.CardKnown, listed = true, keys(i.Verification)
	}
	var known []string
	for _, r := range trust.Describe() {
		known = append(known, r.SKI)
		out.Roots = append(out.Roots, api.TrustRoot{Name: r.Name, Fingerprint: r.Fingerprint, Source: r.Origin, Test: r.Test, KeyID: r.SKI, Until: r.Until,
			OnCard: slices.Contains(listed, r.SKI)})
	}
	for _, key := range listed {
		if !slices.Contains(known, key) {
			out.CardOnly = append(out.CardOnly, key)
		}
	}
	return out, nil
}
