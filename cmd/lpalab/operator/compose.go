package operator

import (
	"fmt"

	"lpad/agent/orders/orderstest"
)

// Words of an order.
const (
	actionInstall   = "install"
	actionEnable    = "enable"
	enableOnCommand = "on-command"
	smdpKID         = "smdp" // of what the SM-DP+ of the download has signed
)

// sign completes an order of a process and signs it.
func (s *Server) sign(p *process, o orderstest.Payload) (orderstest.Payload, []byte, error) {
	now := s.config.Now()
	s.mu.Lock()
	s.serial++
	o.Serial = s.serial
	s.mu.Unlock()
	key, kid := s.key, s.config.Name
	if o.Action == actionInstall && s.config.SMDPKey != nil {
		key, kid = s.config.SMDPKey, smdpKID
	}
	o.Issuer, o.IssuedAt, o.Expires = kid, now.Unix(), now.Add(s.config.Validity).Unix()
	o.EID, o.IMEI, o.Model, o.ReportTo = p.Terminal.EID.String(), p.Terminal.IMEI, p.Terminal.Model, s.reportTo(p.token)
	jws, err := orderstest.Sign(key, kid, o)
	return o, jws, err
}

// summary says what an order is about, for the record.
func summary(o orderstest.Payload) string {
	text := fmt.Sprintf("order %d to %s %s, by %s", o.Serial, o.Action, o.ICCID, o.Issuer)
	if len(o.Parameters) > 0 {
		text += ", with parameters"
	}
	return text
}
