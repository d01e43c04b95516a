package es10

import (
	"context"

	"lpad/agent/rsp"
	"lpad/apdu/ber"
)

// GetEID asks for the identifier of the eUICC.
//
// SGP.22 v2.5, section 5.7.20 (ES10c.GetEID).
func (c *Client) GetEID(ctx context.Context) (rsp.EID, error) {
	const fn = "ES10c.GetEID"
	t, err := c.call(ctx, fn, ber.Encode(0xBF3E, ber.Encode(0x5C, []byte{0x5A})))
	if err != nil {
		return rsp.EID{}, err
	}
	eid, err := parseEID(t)
	if err != nil {
		return rsp.EID{}, malformed(fn, err)
	}
	return eid, nil
}

func parseEID(t ber.TLV) (rsp.EID, error) {
	r := t.Reader()
	e := r.Read(0x5A)
	if err := r.Err(); err != nil {
		return rsp.EID{}, err
	}
	return rsp.EIDFromBytes(e.Value)
}

// MemoryReset says what [Client.EUICCMemoryReset] wipes. Provisioning
// profiles survive it.
type MemoryReset struct {
	OperationalProfiles     bool
	FieldLoadedTestProfiles bool
	DefaultSMDP             bool // reset the address of the default SM-DP+
}

func (m MemoryReset) bits() ber.Bits {
	var set []int
	for i, on := range [...]bool{m.OperationalProfiles, m.FieldLoadedTestProfiles, m.DefaultSMDP} {
		if on {
			set = append(set, i)
		}
	}
	return ber.NewBits(set...)
}

// EUICCMemoryReset wipes what m names, enabled profiles included.
//
// SGP.22 v2.5, section 5.7.19 (ES10c.eUICCMemoryReset).
func (c *Client) EUICCMemoryReset(ctx context.Context, m MemoryReset) error {
	const fn = "ES10c.eUICCMemoryReset"
	t, err := c.callWithin(ctx, fn, ber.Encode(0xBF34, ber.EncodeBits(0x82, m.bits())), LongTimeout)
	if err != nil {
		return err
	}
	return asResult[rsp.MemoryResetResult](fn, t)
}
