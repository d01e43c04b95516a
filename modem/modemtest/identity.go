package modemtest

import "fmt"

func (c call) manufacturer() reply { return ok(c.m.cfg.Dialect.Manufacturer) }
func (c call) model() reply        { return ok(c.m.cfg.Dialect.Model) }
func (c call) revision() reply     { return ok(c.m.cfg.Dialect.Revision) }
func (c call) imei() reply         { return ok(c.m.cfg.Dialect.IMEI) }
func (c call) capabilities() reply { return ok("+GCAP: +CGSM,+DS,+ES") }

func (c call) identify() reply {
	d := &c.m.cfg.Dialect
	return ok("Manufacturer: "+d.Manufacturer, "Model: "+d.Model, "Revision: "+d.Revision, "+GCAP: +CGSM")
}

// clock is AT+CCLK. The network tells the time: before the first registration
// the modem is in its factory year.
func (c call) clock() reply {
	if c.form != read {
		return ok()
	}
	c.m.mu.Lock()
	known := c.m.stat == Registered
	c.m.mu.Unlock()
	if !known {
		return ok(`+CCLK: "80/01/06,00:00:12+00"`)
	}
	t := c.m.cfg.Now()
	_, offset := t.Zone()
	return ok(fmt.Sprintf(`+CCLK: "%s%+03d"`, t.Format("06/01/02,15:04:05"), offset/(15*60)))
}
