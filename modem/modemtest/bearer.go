package modemtest

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
)

const maxContexts = 16

// contextDefinition is AT+CGDCONT, 3GPP TS 27.007, section 10.1.1.
func (c call) contextDefinition() reply {
	m := c.m
	switch c.form {
	case test:
		var lines []string
		for _, t := range []string{"IP", "IPV6", "IPV4V6"} {
			lines = append(lines, fmt.Sprintf(`+CGDCONT: (1-%d),"%s",,,(0-2),(0-3)`, maxContexts, t))
		}
		return ok(lines...)
	case read:
		return ok(c.perContext(func(x *pdpContext) string {
			return fmt.Sprintf(`+CGDCONT: %d,"%s","%s"%s`, x.CID, x.Type, x.APN, x.rest)
		})...)
	}
	cid, good := c.num(0, -1)
	if !good || cid < 1 || cid > maxContexts {
		return c.wrong()
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	defer m.changedLocked()
	if len(c.args) == 1 { // the number alone deletes
		if x := m.contexts[cid]; x != nil && x.active {
			return c.fail(cmeNotAllowed)
		}
		delete(m.contexts, cid)
		return ok()
	}
	kind := strings.ToUpper(c.arg(1))
	if !slices.Contains([]string{"IP", "IPV6", "IPV4V6"}, kind) {
		return c.wrong()
	}
	x := m.contexts[cid]
	if x == nil {
		x = &pdpContext{rest: `,"",0,0`}
		m.contexts[cid] = x
	}
	x.Context = Context{CID: cid, Type: kind, APN: c.arg(2)}
	return ok()
}

// perContext is a line for each defined context.
func (c call) perContext(line func(*pdpContext) string) []string {
	c.m.mu.Lock()
	defer c.m.mu.Unlock()
	var cids []int
	for cid := range c.m.contexts {
		cids = append(cids, cid)
	}
	slices.Sort(cids)
	var lines []string
	for _, cid := range cids {
		lines = append(lines, line(c.m.contexts[cid]))
	}
	return lines
}

// authentication is AT+CGAUTH (27.007, section 10.1.31), u-blox's AT+UAUTHREQ,
// and AT^SGAUTH of Cinterion and AT$QCPDPP of Qualcomm, which take the password
// before the user and never show them.
func (c call) authentication() reply {
	passwordFirst := c.name == "^SGAUTH" || c.name == "$QCPDPP"
	if c.form == read {
		return ok(c.perContext(func(x *pdpContext) string {
			if passwordFirst {
				return fmt.Sprintf("%s: %d,%d", c.name, x.CID, x.auth)
			}
			return fmt.Sprintf(`%s: %d,%d,"%s","%s"`, c.name, x.CID, x.auth, x.user, x.password)
		})...)
	}
	cid, good := c.num(0, -1)
	kind, good2 := c.num(1, 0)
	if !good || !good2 || kind < 0 || kind > 2 {
		return c.wrong()
	}
	c.m.mu.Lock()
	defer c.m.mu.Unlock()
	x := c.m.contexts[cid]
	if x == nil {
		return c.fail(cmeInvalidIndex)
	}
	x.auth, x.user, x.password = kind, c.arg(2), c.arg(3)
	if passwordFirst {
		x.user, x.password = x.password, x.user
	}
	if kind == 0 {
		x.user, x.password = "", ""
	}
	return ok()
}

// activation is AT+CGACT, 27.007, section 10.1.10.
func (c call) activation() reply {
	if c.form == read {
		return ok(c.perContext(func(x *pdpContext) string {
			n := 0
			if x.active {
				n = 1
			}
			return fmt.Sprintf("+CGACT: %d,%d", x.CID, n)
		})...)
	}
	state, good := c.num(0, -1)
	cid, good2 := c.num(1, 0)
	if !good || !good2 || state < 0 || state > 1 || state == 1 && cid == 0 {
		return c.wrong()
	}
	if state == 0 {
		return c.deactivate(cid)
	}
	if code := c.m.activate(c.ctx, cid); code != 0 {
		return c.fail(code)
	}
	return ok()
}

// dial is ATD*99#: the host asks for a data call. There is no PPP behind the
// CONNECT; a context that the network refuses gets NO CARRIER all the same.
func (c call) dial() reply {
	number, isData := strings.CutPrefix(strings.TrimSpace(c.raw), "*99")
	if !isData {
		return reply{final: "NO CARRIER"}
	}
	cid := 1
	if _, err := fmt.Sscanf(strings.Trim(number, "*#"), "%d", &cid); err != nil {
		cid = 1
	}
	if c.m.activate(c.ctx, cid) != 0 {
		return reply{final: "NO CARRIER"}
	}
	return reply{final: "CONNECT"}
}

// activate asks the network for a context; 0 is success.
func (m *Modem) activate(ctx context.Context, cid int) cmeCode {
	if !m.delay(ctx, "Activation", m.cfg.Delays.Activation) || m.net.lock(ctx) != nil {
		return cmeUnspecifiedGPRS
	}
	defer m.net.unlock()
	m.mu.Lock()
	x, sub := m.contexts[cid], m.sub
	first := m.activeLocked() == 0
	code := cmeCode(0)
	switch {
	case x == nil:
		code = cmeInvalidIndex
	case m.stat != Registered || !m.attached:
		code = cmeNoNetwork
	case !strings.EqualFold(x.APN, sub.APN):
		code = cmeNotSubscribed
	case sub.User != "" && (x.auth == 0 || x.user != sub.User || x.password != sub.Password):
		code = cmeAuthentication
	}
	apn := ""
	if x != nil {
		apn = x.APN
	}
	m.mu.Unlock()
	if code != 0 {
		m.log.add("", Happened, fmt.Sprintf("context %d, APN %q, refused: %s", cid, apn, cmeText[code]))
		return code
	}
	if first && m.cfg.Link != nil {
		ctx, cancel := context.WithTimeout(ctx, linkTimeout)
		defer cancel()
		if err := m.cfg.Link.Up(ctx, *sub); err != nil {
			m.log.add("", Happened, "link up: "+err.Error())
			return cmeUnspecifiedGPRS
		}
	}
	m.mu.Lock()
	x.active = true
	m.changedLocked()
	m.mu.Unlock()
	m.log.add("", Happened, fmt.Sprintf("context %d active: APN %q address %s", cid, apn, sub.Address.Addr()))
	return 0
}

// activeLocked counts the active contexts.
func (m *Modem) activeLocked() int {
	n := 0
	for _, x := range m.contexts {
		if x.active {
			n++
		}
	}
	return n
}

// deactivate is AT+CGACT=0; cid 0 is every context.
func (c call) deactivate(cid int) reply {
	if err := c.m.net.lock(c.ctx); err != nil {
		return c.fail(cmeUnspecifiedGPRS)
	}
	defer c.m.net.unlock()
	if cid == 0 {
		c.m.endContexts(c.ctx)
		return ok()
	}
	c.m.mu.Lock()
	_, found := c.m.contexts[cid]
	c.m.mu.Unlock()
	if !found {
		return c.fail(cmeInvalidIndex)
	}
	c.m.endContexts(c.ctx, cid)
	return ok()
}

// DropContexts lets the network end every context, as operators do at night.
func (m *Modem) DropContexts() {
	if m.net.lock(m.ctx) != nil {
		return
	}
	defer m.net.unlock()
	for _, cid := range m.State().Active {
		m.endContexts(m.ctx, cid)
		m.urc(fmt.Sprintf("+CGEV: NW PDN DEACT %d", cid), func(p *Port) bool { return p.wants("+CGEREP=2") || p.wants("+CGEREP=1") })
	}
}

// endContexts ends these contexts, or all; the link goes with the last one.
// The caller holds net. It reports whether any was active.
func (m *Modem) endContexts(ctx context.Context, cids ...int) bool {
	m.mu.Lock()
	ended := false
	for cid, x := range m.contexts {
		if x.active && (len(cids) == 0 || slices.Contains(cids, cid)) {
			x.active, ended = false, true
			m.log.add("", Happened, fmt.Sprintf("context %d ends", cid))
		}
	}
	down := ended && m.activeLocked() == 0
	if ended {
		m.changedLocked()
	}
	m.mu.Unlock()
	if down && m.cfg.Link != nil {
		// Packets must stop even when the command that ends them was given up.
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), linkTimeout)
		defer cancel()
		if err := m.cfg.Link.Down(ctx); err != nil {
			m.log.add("", Happened, "link down: "+err.Error())
		}
	}
	return ended
}

// active is the subscription behind a context that is active.
func (c call) active(cid int) (apn string, sub Subscription, ok bool) {
	c.m.mu.Lock()
	defer c.m.mu.Unlock()
	x := c.m.contexts[cid]
	if x == nil || !x.active || c.m.sub == nil {
		return "", Subscription{}, false
	}
	return x.APN, *c.m.sub, true
}

// addresses is AT+CGPADDR, 27.007, section 10.1.14.
func (c call) addresses() reply {
	if c.form == test {
		return ok("+CGPADDR: (1-16)")
	}
	one, good := c.num(0, 0)
	if !good {
		return c.wrong()
	}
	s := c.m.State()
	var lines []string
	for _, x := range s.Contexts {
		if one != 0 && one != x.CID {
			continue
		}
		line := fmt.Sprintf("+CGPADDR: %d", x.CID)
		if slices.Contains(s.Active, x.CID) {
			line += fmt.Sprintf(`,"%s"`, s.Subscription.Address.Addr())
		}
		lines = append(lines, line)
	}
	return ok(lines...)
}

// dynamicParameters is AT+CGCONTRDP, 27.007, section 10.1.23.
func (c call) dynamicParameters() reply {
	cid, good := c.num(0, 1)
	if !good || c.form == test {
		return c.wrong()
	}
	apn, sub, up := c.active(cid)
	if !up {
		return ok()
	}
	dns := sub.DNS
	if !dns.IsValid() {
		dns = sub.Gateway
	}
	return ok(fmt.Sprintf(`+CGCONTRDP: %d,5,"%s","%s.%s","%s","%s","%s"`, cid, apn,
		sub.Address.Addr(), dottedMask(sub.Address), sub.Gateway, dns, dns))
}

// bridgeAddress is u-blox's AT+UIPADDR: the modem's end of the bridge.
func (c call) bridgeAddress() reply {
	cid, good := c.num(0, 1)
	if !good {
		return c.wrong()
	}
	_, sub, up := c.active(cid)
	if !up {
		return c.fail(cmeNotAllowed)
	}
	return ok(fmt.Sprintf(`+UIPADDR: %d,"ccinet0","%s","%s","",""`, cid, sub.Gateway, dottedMask(sub.Address)))
}

func dottedMask(p netip.Prefix) string {
	return net.IP(net.CIDRMask(p.Bits(), p.Addr().BitLen())).String()
}
