package euicc

import (
	"encoding/binary"

	"lpad/apdu/ber"
)

// getEUICCInfo1 is SGP.22 v2.5, section 5.7.8.
func (c *Card) getEUICCInfo1(t ber.TLV) ([]byte, uint16) {
	if len(t.Value) != 0 {
		return nil, swWrongData
	}
	if c.config.Info.RawInfo1 != nil {
		return c.config.Info.RawInfo1, swOK
	}
	return ber.Encode(0xBF20, ber.Encode(0x82, c.config.Info.SVN[:]), c.verificationCIs(), c.signingCIs()), swOK
}

// getEUICCInfo2 is SGP.22 v2.5, section 5.7.8.
func (c *Card) getEUICCInfo2(t ber.TLV) ([]byte, uint16) {
	if len(t.Value) != 0 {
		return nil, swWrongData
	}
	return c.info2(), swOK
}

func (c *Card) info2() []byte {
	i := c.config.Info
	if i.RawInfo2 != nil {
		return i.RawInfo2
	}
	parts := [][]byte{
		ber.Encode(0x81, i.ProfileVersion[:]),
		ber.Encode(0x82, i.SVN[:]),
		ber.Encode(0x83, i.Firmware[:]),
		ber.Encode(0x84, // extCardResource, ETSI TS 102 226, section 8.2.1.7.2
			ber.Encode(0x81, []byte{byte(len(c.mem.Profiles))}),
			ber.Encode(0x82, binary.BigEndian.AppendUint32(nil, uint32(c.freeMemory()))),
			ber.Encode(0x83, binary.BigEndian.AppendUint32(nil, uint32(i.FreeRAM)))),
		ber.EncodeBits(0x85, ber.NewBits(i.UICCCapability...)),
		ber.Encode(0x86, []byte{9, 2, 0}),
		ber.Encode(0x87, []byte{2, 3, 0}),
		ber.EncodeBits(0x88, ber.NewBits(i.RSPCapability...)),
		c.verificationCIs(),
		c.signingCIs(),
	}
	if i.Category != 0 {
		parts = append(parts, ber.EncodeInt(0x8B, int64(i.Category)))
	}
	if c.config.ForbiddenPPR != 0 {
		parts = append(parts, encodePPR(0x99, c.config.ForbiddenPPR))
	}
	return ber.Encode(0xBF22, append(parts, ber.Encode(0x04, []byte{0, 0, 1}), ber.EncodeString(0x0C, i.SASNumber))...)
}

// freeMemory is what is left for profiles, in bytes.
func (c *Card) freeMemory() int { return max(0, c.config.FreeMemory-c.mem.UsedMemory) }

func (c *Card) can(capability int) bool {
	for _, b := range c.config.Info.RSPCapability {
		if b == capability {
			return true
		}
	}
	return false
}

func (c *Card) verificationCIs() []byte {
	var list [][]byte
	for _, a := range c.config.Trusted {
		list = append(list, ber.Encode(0x04, a.SKI))
	}
	return ber.Encode(0xA9, list...)
}

func (c *Card) signingCIs() []byte {
	var list [][]byte
	for _, i := range c.config.Identities {
		list = append(list, ber.Encode(0x04, i.CI()))
	}
	return ber.Encode(0xAA, list...)
}

// getRAT is SGP.22 v2.5, section 5.7.22.
func (c *Card) getRAT(t ber.TLV) ([]byte, uint16) {
	if len(t.Value) != 0 {
		return nil, swWrongData
	}
	var rules [][]byte
	for _, rule := range c.config.RAT {
		var operators [][]byte
		for _, o := range rule.Operators {
			operators = append(operators, encodeOperator(0x30, o))
		}
		flags := ber.NewBits()
		if rule.ConsentRequired {
			flags = ber.NewBits(0)
		}
		rules = append(rules, ber.Encode(0x30, encodePPR(0x80, rule.PPR), ber.Encode(0xA1, operators...), ber.EncodeBits(0x82, flags)))
	}
	return ber.Encode(t.Tag, ber.Encode(0xA0, rules...)), swOK
}
