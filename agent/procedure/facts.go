package procedure

import (
	"context"
	"fmt"

	"lpad/agent/rsp"
	"lpad/agent/rsp/es10"
)

// Facts are what a card tells about itself. A nil field is not known; what a
// procedure needs and does not find it asks the card for.
type Facts struct {
	EID       rsp.EID
	Info1     *rsp.EUICCInfo1
	Info2     *rsp.EUICCInfo2
	RAT       *rsp.RAT
	Addresses *rsp.ConfiguredAddresses
	Profiles  []rsp.Profile // nil: not known; a card without profiles has an empty list
}

// ReadFacts asks the card for everything in [Facts]. They stay true until a
// profile or an address is changed; the rest until the card is.
//
// A card that does not know GetRAT or GetEuiccConfiguredAddresses is taken to
// allow no policy rules and to have no addresses.
func ReadFacts(ctx context.Context, card FactsCard) (Facts, error) {
	var f Facts
	var err error
	if f.EID, err = card.GetEID(ctx); err != nil {
		return Facts{}, fmt.Errorf("read card: %w", err)
	}
	addresses, err := card.GetEuiccConfiguredAddresses(ctx)
	if err != nil && !es10.IsUnknownFunction(err) {
		return Facts{}, fmt.Errorf("read card: %w", err)
	}
	f.Addresses = &addresses
	if err := f.complete(ctx, card); err != nil {
		return Facts{}, err
	}
	return f, f.needRAT(ctx, card)
}

// complete asks for what every authentication needs.
func (f *Facts) complete(ctx context.Context, card FactsCard) error {
	if f.Info1 == nil {
		info, err := card.GetEUICCInfo1(ctx)
		if err != nil {
			return fmt.Errorf("read card: %w", err)
		}
		f.Info1 = &info
	}
	if f.Info2 == nil {
		info, err := card.GetEUICCInfo2(ctx)
		if err != nil {
			return fmt.Errorf("read card: %w", err)
		}
		f.Info2 = &info
	}
	if f.Profiles == nil {
		list, err := card.GetProfilesInfo(ctx, rsp.ProfileSearch{}, es10.ProfileTags()...)
		if err != nil {
			return fmt.Errorf("read card: %w", err)
		}
		f.Profiles = append([]rsp.Profile{}, list...)
	}
	return nil
}

func (f *Facts) needRAT(ctx context.Context, card FactsCard) error {
	if f.RAT != nil {
		return nil
	}
	table, err := card.GetRAT(ctx)
	if err != nil && !es10.IsUnknownFunction(err) {
		return fmt.Errorf("read card: %w", err)
	}
	f.RAT = &table
	return nil
}
