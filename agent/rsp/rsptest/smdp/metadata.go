package smdp

import (
	"lpad/agent/rsp"
	"lpad/apdu/ber"
)

// Metadata is a StoreMetadataRequest to be (SGP.22 v2.5, section 5.5.3).
type Metadata struct {
	ICCID           rsp.ICCID
	ServiceProvider string
	Name            string
	IconType        rsp.IconType
	Icon            []byte            // at most 1024 bytes in the specification; nil: none
	Class           *rsp.ProfileClass // nil: not sent, which means operational
	Notifications   []rsp.NotificationConfiguration
	Owner           *rsp.Operator
	Proprietary     []byte // dpProprietaryData: a whole TLV B8; see also [Order]
	PPR             rsp.PPR
	Extra           []byte // further TLVs at the end, as they are
	Raw             []byte // when set: the whole BF25, instead of everything above but ICCID
}

// Marshal is the BF25.
func (m Metadata) Marshal() []byte {
	if m.Raw != nil {
		return m.Raw
	}
	parts := [][]byte{
		ber.Encode(0x5A, m.ICCID[:]),
		ber.EncodeString(0x91, m.ServiceProvider),
		ber.EncodeString(0x92, m.Name),
	}
	if m.Icon != nil {
		parts = append(parts, ber.EncodeInt(0x93, int64(m.IconType)), ber.Encode(0x94, m.Icon))
	}
	if m.Class != nil {
		parts = append(parts, ber.EncodeInt(0x95, int64(*m.Class)))
	}
	if m.Notifications != nil {
		var list [][]byte
		for _, n := range m.Notifications {
			list = append(list, ber.Encode(0x30, ber.EncodeBits(0x80, n.Events.Bits()), ber.EncodeString(0x81, n.Address)))
		}
		parts = append(parts, ber.Encode(0xB6, list...))
	}
	if m.Owner != nil {
		owner := [][]byte{ber.Encode(0x80, m.Owner.MCCMNC[:])}
		if m.Owner.GID1 != nil {
			owner = append(owner, ber.Encode(0x81, m.Owner.GID1))
		}
		if m.Owner.GID2 != nil {
			owner = append(owner, ber.Encode(0x82, m.Owner.GID2))
		}
		parts = append(parts, ber.Encode(0xB7, owner...))
	}
	if m.Proprietary != nil {
		parts = append(parts, m.Proprietary)
	}
	if m.PPR != 0 {
		parts = append(parts, ber.EncodeBits(0x99, pprBits(m.PPR)))
	}
	return ber.Encode(0xBF25, append(parts, m.Extra)...)
}

func pprBits(p rsp.PPR) ber.Bits {
	var set []int
	for i, rule := range []rsp.PPR{rsp.PPRUpdateControl, rsp.PPR1, rsp.PPR2} {
		if p&rule != 0 {
			set = append(set, i)
		}
	}
	return ber.NewBits(set...)
}
