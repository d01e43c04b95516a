package euicc

import "lpad/apdu/ber"

// getEuiccConfiguredAddresses is SGP.22 v2.5, section 5.7.3.
func (c *Card) getEuiccConfiguredAddresses(t ber.TLV) ([]byte, uint16) {
	if len(t.Value) != 0 {
		return nil, swWrongData
	}
	var parts [][]byte
	if c.mem.DefaultSMDP != "" {
		parts = append(parts, ber.EncodeString(0x80, c.mem.DefaultSMDP))
	}
	return ber.Encode(t.Tag, append(parts, ber.EncodeString(0x81, c.config.RootSMDS))...), swOK
}

// setDefaultDpAddress is SGP.22 v2.5, section 5.7.4; an empty address removes
// the one that is there.
func (c *Card) setDefaultDpAddress(t ber.TLV) ([]byte, uint16) {
	r := t.Reader()
	address := r.Read(0x80)
	if r.Finish() != nil {
		return nil, swWrongData
	}
	text, err := address.UTF8(maxAddress)
	if err != nil {
		return result(t.Tag, undefinedError), swOK
	}
	c.mem.DefaultSMDP = text
	c.commit()
	return result(t.Tag, 0), swOK
}
