package es10

import (
	"context"

	"lpad/agent/rsp"
	"lpad/apdu/ber"
)

// GetEuiccConfiguredAddresses asks which servers the card itself names.
//
// SGP.22 v2.5, section 5.7.3 (ES10a.GetEuiccConfiguredAddresses).
func (c *Client) GetEuiccConfiguredAddresses(ctx context.Context) (rsp.ConfiguredAddresses, error) {
	const fn = "ES10a.GetEuiccConfiguredAddresses"
	t, err := c.call(ctx, fn, ber.Encode(0xBF3C))
	if err != nil {
		return rsp.ConfiguredAddresses{}, err
	}
	a, err := rsp.ParseConfiguredAddresses(t.Raw)
	if err != nil {
		return rsp.ConfiguredAddresses{}, malformed(fn, err)
	}
	return a, nil
}

// SetDefaultDpAddress stores the address of the default SM-DP+ on the card;
// an empty one removes it.
//
// SGP.22 v2.5, section 5.7.4 (ES10a.SetDefaultDpAddress).
func (c *Client) SetDefaultDpAddress(ctx context.Context, address string) error {
	const fn = "ES10a.SetDefaultDpAddress"
	if address != "" {
		if err := rsp.CheckAddress(address); err != nil {
			return err
		}
	}
	t, err := c.call(ctx, fn, ber.Encode(0xBF3F, ber.EncodeString(0x80, address)))
	if err != nil {
		return err
	}
	return asResult[rsp.GeneralResult](fn, t)
}

// asResult turns a response that is a mere result code into nil or a
// [*ResultError].
func asResult[T interface {
	~int
	error
}](fn string, t ber.TLV) error {
	code, err := resultCode(t)
	if err != nil {
		return malformed(fn, err)
	}
	if code == 0 {
		return nil
	}
	return resultError(fn, T(code))
}
