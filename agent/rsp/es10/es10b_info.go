package es10

import (
	"context"

	"lpad/agent/rsp"
	"lpad/apdu/ber"
)

// GetEUICCInfo1 asks for versions and certificate issuers. Raw goes to the
// server as it is.
//
// SGP.22 v2.5, section 5.7.8 (ES10b.GetEUICCInfo).
func (c *Client) GetEUICCInfo1(ctx context.Context) (rsp.EUICCInfo1, error) {
	const fn = "ES10b.GetEUICCInfo1"
	t, err := c.call(ctx, fn, ber.Encode(0xBF20))
	if err != nil {
		return rsp.EUICCInfo1{}, err
	}
	i, err := rsp.ParseEUICCInfo1(t.Raw)
	if err != nil {
		return rsp.EUICCInfo1{}, malformed(fn, err)
	}
	return i, nil
}

// GetEUICCInfo2 asks for everything the card tells about itself.
//
// SGP.22 v2.5, section 5.7.8 (ES10b.GetEUICCInfo).
func (c *Client) GetEUICCInfo2(ctx context.Context) (rsp.EUICCInfo2, error) {
	const fn = "ES10b.GetEUICCInfo2"
	t, err := c.call(ctx, fn, ber.Encode(0xBF22))
	if err != nil {
		return rsp.EUICCInfo2{}, err
	}
	i, err := rsp.ParseEUICCInfo2(t.Raw)
	if err != nil {
		return rsp.EUICCInfo2{}, malformed(fn, err)
	}
	return i, nil
}

// GetRAT asks for the Rules Authorisation Table.
//
// SGP.22 v2.5, section 5.7.22 (ES10b.GetRAT).
func (c *Client) GetRAT(ctx context.Context) (rsp.RAT, error) {
	const fn = "ES10b.GetRAT"
	t, err := c.call(ctx, fn, ber.Encode(0xBF43))
	if err != nil {
		return rsp.RAT{}, err
	}
	table, err := rsp.ParseRAT(t.Raw)
	if err != nil {
		return rsp.RAT{}, malformed(fn, err)
	}
	return table, nil
}
