package modemtest

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// discontinuous is AT+CEDRXS, 3GPP TS 27.007, section 7.40: what is set for one
// access technology stays until it is taken back.
func (c call) discontinuous() reply {
	m := c.m
	m.mu.Lock()
	defer m.mu.Unlock()
	if c.form == read {
		var lines []string
		for act, value := range m.edrx {
			lines = append(lines, fmt.Sprintf(`+CEDRXS: %s,"%s"`, act, value))
		}
		slices.Sort(lines)
		return ok(lines...)
	}
	mode, good := c.num(0, -1)
	act, value := c.arg(1), c.arg(2)
	switch known := slices.Contains([]string{"1", "2", "3", "4", "5"}, act); {
	case !good || mode < 0 || mode > 3 || act != "" && !known:
		return c.wrong()
	case mode == 0 && act != "":
		delete(m.edrx, act)
	case mode == 0 || mode == 3:
		clear(m.edrx)
	case !known || len(value) != 4 || !bits(value):
		return c.wrong()
	default:
		m.edrx[act] = value
	}
	return ok()
}

// powerSaving is AT+CPSMS, 27.007, section 7.38.
func (c call) powerSaving() reply {
	m := c.m
	m.mu.Lock()
	defer m.mu.Unlock()
	if c.form == read {
		return ok(fmt.Sprintf(`+CPSMS: %d,,,"%s","%s"`, m.psm.mode, m.psm.tau, m.psm.active))
	}
	mode, good := c.num(0, -1)
	tau, active := c.arg(3), c.arg(4)
	if !good || mode < 0 || mode > 2 || tau != "" && len(tau) != 8 || active != "" && len(active) != 8 || !bits(tau+active) {
		return c.wrong()
	}
	m.psm.mode = min(mode, 1) % 2
	if mode == 2 { // off, and back to the maker's values
		m.psm = powerSaving{tau: defaultTAU, active: defaultActive}
	}
	if tau != "" {
		m.psm.tau = tau
	}
	if active != "" {
		m.psm.active = active
	}
	return ok()
}

// powerSaving is what AT+CPSMS remembers.
type powerSaving struct {
	mode        int
	tau, active string
}

const (
	defaultTAU    = "00100001"
	defaultActive = "00000101"
	defaultSMSC   = `"+491722270333",145`
	defaultBands  = "3,6,80800C5" // LTE 1, 3, 7, 8, 20, 28
)

// serviceCentre is AT+CSCA (3GPP TS 27.005, section 3.3.1): it is a file of the
// SIM (EF SMSP), so that each subscription has its own.
func (c call) serviceCentre() reply {
	m := c.m
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.sim.State != SIMReady {
		return c.fail(cmeSIMBusy)
	}
	if c.form == read {
		kept, found := m.smsc[m.sim.IMSI]
		if !found {
			kept = defaultSMSC
		}
		return ok("+CSCA: " + kept)
	}
	kind := c.arg(1)
	if kind == "" {
		kind = "129"
	}
	if strings.Trim(c.arg(0), "+0123456789") != "" {
		return c.wrong()
	}
	m.smsc[m.sim.IMSI] = fmt.Sprintf(`"%s",%s`, c.arg(0), kind)
	return ok()
}

// systemMode is AT+WS46, 27.007, section 5.9.
func (c call) systemMode() reply {
	m := c.m
	m.mu.Lock()
	defer m.mu.Unlock()
	if c.form == read {
		return ok(fmt.Sprintf("+WS46: %d", m.ws46))
	}
	n, good := c.num(0, -1)
	if !good || !slices.Contains(systemModes, n) {
		return c.wrong()
	}
	if m.ws46 == n {
		return ok()
	}
	m.ws46 = n
	return reply{final: "OK", after: m.register} // on the air of the network, which is LTE, or off it
}

// systemModes are the values of AT+WS46, withLTE those that have LTE among them.
var systemModes, withLTE = []int{12, 22, 25, 28, 29, 30, 31}, []int{25, 28, 30, 31}

// bands is Telit's AT#BND: numbers of sets of 2G and 3G bands, and a mask of the
// LTE bands, which the LE910C family takes in decimal digits and shows in
// hexadecimal (MM plugins/telit).
func (c call) bands() reply {
	m := c.m
	m.mu.Lock()
	defer m.mu.Unlock()
	if c.form == read {
		return ok("#BND: " + m.bnd)
	}
	lte, err := strconv.ParseUint(c.arg(2), 10, 64)
	if err != nil {
		return c.wrong()
	}
	m.bnd = fmt.Sprintf("%s,%s,%X", c.arg(0), c.arg(1), lte)
	return ok()
}

func bits(s string) bool { return strings.Trim(s, "01") == "" }
