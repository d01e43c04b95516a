package modemtest

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
)

// linkTimeout bounds one change of the link.
const linkTimeout = time.Minute

// The cell that the modem is always in, and the access technology LTE.
const cell = `"00C3","000A2B1F",7`

// register looks for the network with the SIM that was read, in the background.
func (m *Modem) register() {
	m.mu.Lock()
	turn := m.simTurn
	m.mu.Unlock()
	m.spawn(func() {
		if !m.attempt(turn, Searching, nil) || !m.delay(m.ctx, "Registration", m.cfg.Delays.Registration) {
			return
		}
		stat, sub := m.admit(m.State())
		m.attempt(turn, stat, sub)
	})
}

// admit is the operator's decision about a SIM.
func (m *Modem) admit(s State) (RegistrationStat, *Subscription) {
	m.mu.Lock()
	coverage := m.coverage && slices.Contains(withLTE, m.ws46)
	m.mu.Unlock()
	if !coverage {
		return Searching, nil
	}
	apn := ""
	for _, c := range s.Contexts {
		if c.CID == 1 {
			apn = c.APN
		}
	}
	for i := range m.cfg.Subscriptions {
		sub := &m.cfg.Subscriptions[i]
		if sub.IMSI != s.SIM.IMSI {
			continue
		}
		if !m.configuredFor(sub.PLMN) {
			m.log.add("", Happened, "no network: the carrier configuration is that of another operator")
			return Searching, nil
		}
		if m.cfg.StrictAttach && apn != "" && !strings.EqualFold(apn, sub.APN) {
			m.log.add("", Happened, fmt.Sprintf("attach of %s refused: APN %q", s.SIM.IMSI, apn))
			return Denied, nil
		}
		m.log.add("", Happened, fmt.Sprintf("attach of %s, APN %q", s.SIM.IMSI, apn))
		return Registered, sub
	}
	m.log.add("", Happened, fmt.Sprintf("attach of %s refused: no such subscription", s.SIM.IMSI))
	return Denied, nil
}

// genericCarrier is the carrier configuration that goes with every operator.
const genericCarrier = "ROW_Generic_3GPP"

// configuredFor reports whether the modem would find this operator's network.
// The first one that it is asked for is the one it configures itself for.
func (m *Modem) configuredFor(plmn string) bool {
	if !m.cfg.Dialect.CarrierConfig {
		return true
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.carrier == "" {
		m.carrier, m.selected = plmn, plmn
	}
	return m.carrier == plmn || m.carrier == genericCarrier
}

// carrierConfig is Quectel's AT+QMBNCFG, as far as it chooses. What is chosen
// counts from the next start on.
func (c call) carrierConfig() reply {
	if c.form != set || c.arg(0) != "Select" && c.arg(0) != "AutoSel" {
		return c.fail(cmeNotSupported)
	}
	c.m.mu.Lock()
	defer c.m.mu.Unlock()
	switch {
	case c.arg(0) == "AutoSel": // it can be turned off; nothing here depends on it
		return ok()
	case len(c.args) == 1:
		return ok(fmt.Sprintf(`+QMBNCFG: "Select","%s"`, c.m.selected))
	case c.arg(1) != genericCarrier:
		return reply{final: "ERROR"}
	}
	c.m.selected = genericCarrier
	return ok()
}

// attempt sets the registration unless the modem, its SIM or its host has
// moved on since the turn.
func (m *Modem) attempt(turn int, stat RegistrationStat, sub *Subscription) bool {
	if m.net.lock(m.ctx) != nil {
		return false
	}
	defer m.net.unlock()
	m.mu.Lock()
	if turn != m.simTurn || m.sim.State != SIMReady || m.cfun != 1 || m.noCOPS {
		m.mu.Unlock()
		return false
	}
	m.setStatLocked(stat, sub)
	m.mu.Unlock()
	m.tellRegistration()
	return true
}

func (m *Modem) setStatLocked(stat RegistrationStat, sub *Subscription) {
	m.stat, m.sub = stat, sub
	m.changedLocked()
}

// detach leaves the network: every context ends, and the link with the last.
func (m *Modem) detach(ctx context.Context, stat RegistrationStat) {
	if m.net.lock(ctx) != nil {
		return
	}
	defer m.net.unlock()
	if m.endContexts(ctx) {
		m.urc("+CGEV: ME DETACH", func(p *Port) bool { return p.wants("+CGEREP=2") || p.wants("+CGEREP=1") })
	}
	m.mu.Lock()
	changed := m.stat != stat
	m.setStatLocked(stat, nil)
	m.mu.Unlock()
	if changed {
		m.tellRegistration()
	}
}

// SetCoverage takes the network away (false) or brings it back. Without it the
// modem searches.
func (m *Modem) SetCoverage(on bool) {
	m.mu.Lock()
	m.coverage = on
	m.mu.Unlock()
	if on {
		m.register()
	} else {
		m.detach(m.ctx, Searching)
	}
}

// registrationCommands are the three views of one registration.
var registrationCommands = []string{"+CREG", "+CGREG", "+CEREG"}

// tellRegistration writes the registration on the ports that asked for it.
func (m *Modem) tellRegistration() {
	stat := m.State().Registration
	m.log.add("", Happened, fmt.Sprintf("registration %d", stat))
	for _, name := range registrationCommands {
		m.urc(fmt.Sprintf("%s: %d", name, stat), func(p *Port) bool { return p.wants(name + "=1") })
		long := fmt.Sprintf("%s: %d", name, stat)
		if stat == Registered {
			long += "," + cell
		}
		m.urc(long, func(p *Port) bool { return p.wants(name + "=2") })
	}
}

// registration is AT+CREG, AT+CGREG and AT+CEREG.
func (c call) registration() reply {
	if c.form != read {
		if n, good := c.num(0, 0); !good || n < 0 || n > 2 {
			return c.wrong()
		}
		return ok()
	}
	n := c.p.setting(c.name)
	if n == "" {
		n = "0"
	}
	stat := c.m.State().Registration
	line := fmt.Sprintf("%s: %s,%d", c.name, n, stat)
	if n == "2" && stat == Registered {
		line += "," + cell
	}
	return ok(line)
}

// operator is AT+COPS, 3GPP TS 27.007, section 7.3.
func (c call) operator() reply {
	switch c.form {
	case read:
		return ok(c.currentOperator())
	case test:
		var lines []string
		for _, s := range c.m.cfg.Subscriptions {
			lines = append(lines, fmt.Sprintf(`(2,"%s","%s","%s",7)`, s.Operator, s.Operator, s.PLMN))
		}
		return ok("+COPS: " + strings.Join(append(lines, "", "(0-4)", "(0-2)"), ","))
	}
	mode, good := c.num(0, 0)
	format, good2 := c.num(1, c.operatorFormat())
	if !good || !good2 || mode < 0 || mode > 4 || format < 0 || format > 2 {
		return c.wrong()
	}
	switch mode {
	case 3:
		c.p.set("format of +COPS", strconv.Itoa(format))
	case 2:
		c.m.mu.Lock()
		c.m.noCOPS = true
		c.m.mu.Unlock()
		c.m.detach(c.ctx, NotRegistered)
	default:
		c.m.mu.Lock()
		again := c.m.stat != Registered && (c.m.noCOPS || c.m.stat != Searching)
		c.m.noCOPS, c.m.copsMode = false, mode
		c.m.mu.Unlock()
		if again {
			c.m.register()
		}
	}
	return ok()
}

func (c call) operatorFormat() int {
	n, err := strconv.Atoi(c.p.setting("format of +COPS"))
	if err != nil {
		return 0
	}
	return n
}

func (c call) currentOperator() string {
	c.m.mu.Lock()
	defer c.m.mu.Unlock()
	if c.m.noCOPS {
		return "+COPS: 2"
	}
	if c.m.stat != Registered {
		return fmt.Sprintf("+COPS: %d", c.m.copsMode)
	}
	name, format := c.m.sub.Operator, c.operatorFormat()
	if format == 2 {
		name = c.m.sub.PLMN
	}
	return fmt.Sprintf(`+COPS: %d,%d,"%s",7`, c.m.copsMode, format, name)
}

func (c call) signal() reply {
	if c.m.State().Registration != Registered {
		return ok("+CSQ: 99,99")
	}
	return ok("+CSQ: 20,99")
}

// attach is AT+CGATT: the packet domain alone.
func (c call) attach() reply {
	m := c.m
	if c.form == read {
		m.mu.Lock()
		defer m.mu.Unlock()
		n := 0
		if m.attached && m.stat == Registered {
			n = 1
		}
		return ok(fmt.Sprintf("+CGATT: %d", n))
	}
	n, good := c.num(0, 1)
	if !good || n < 0 || n > 1 {
		return c.wrong()
	}
	if err := m.net.lock(c.ctx); err != nil {
		return c.fail(cmeUnspecifiedGPRS)
	}
	defer m.net.unlock()
	m.mu.Lock()
	m.attached = n == 1
	m.changedLocked()
	m.mu.Unlock()
	if n == 0 {
		m.endContexts(c.ctx)
	}
	return ok()
}
