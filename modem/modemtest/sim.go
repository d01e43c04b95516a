package modemtest

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

// answerFlush lets the host read the OK before a reset hangs its port up.
const answerFlush = 50 * time.Millisecond

// functionality is AT+CFUN, 3GPP TS 27.007, section 8.2.
func (c call) functionality() reply {
	d := &c.m.cfg.Dialect
	values := []int{0, 1, 4}
	if d.ResetFun != 0 {
		values = append(values, d.ResetFun)
	}
	switch c.form {
	case read:
		return ok(fmt.Sprintf("+CFUN: %d", c.m.State().CFUN))
	case test:
		return ok("+CFUN: (" + strings.ReplaceAll(strings.Trim(fmt.Sprint(values), "[]"), " ", ",") + "),(0,1)")
	}
	fun, good := c.num(0, 1)
	rst, good2 := c.num(1, 0)
	if !good || !good2 || !slices.Contains(values, fun) || rst != 0 && rst != 1 {
		return c.wrong()
	}
	unanswered := d.CFUNUnanswered && c.p.slave != nil // a socket does not hang up
	if rst == 1 || fun != 0 && fun == d.ResetFun || fun == 0 && d.CFUN0Resets {
		return reply{final: "OK", mute: unanswered && d.ResetHangsUp, after: func() { c.m.afterAnswer(c.m.Reboot) }}
	}
	c.m.setFunctionality(c.ctx, fun)
	if fun == 0 && d.CFUN0HangsUp {
		return reply{final: "OK", mute: unanswered, after: func() { c.m.afterAnswer(func() { c.m.bouncePorts(false) }) }}
	}
	return ok()
}

// afterAnswer runs f once the host had time to read an answer.
func (m *Modem) afterAnswer(f func()) {
	m.spawn(func() {
		if m.delay(m.ctx, "Answer", answerFlush) {
			f()
		}
	})
}

// reset is a vendor's command that resets the modem, or switches it off: what
// feeds it then switches it on again. It may say a last line.
func reset(last string) func(call) reply {
	return func(c call) reply {
		if c.form == test {
			return ok()
		}
		return reply{final: "OK", after: func() {
			if last != "" {
				c.m.urc(last, nil)
			}
			c.m.afterAnswer(c.m.Reboot)
		}}
	}
}

// slots is a vendor's command that shows and chooses the SIM slot; they are
// numbered from first. The SIM of the other slot is read as after power up.
func slots(first int) func(call) reply {
	return func(c call) reply {
		m := c.m
		if c.form != set {
			return ok(fmt.Sprintf("%s: %d", c.name, m.State().Slot-1+first))
		}
		n, good := c.num(0, -1)
		slot := n - first + 1
		if !good || slot != 1 && slot != 2 {
			return c.wrong()
		}
		m.mu.Lock()
		same, off := m.slot == slot, m.sim.State == SIMOff
		m.slot = slot
		m.mu.Unlock()
		if same {
			return ok()
		}
		m.log.add("", Happened, fmt.Sprintf("slot %d", slot))
		if !off {
			m.detach(c.ctx, NotRegistered)
			m.powerDown()
			m.say(SIMGone)
			m.startSIM(true, SIMOn)
		}
		return ok()
	}
}

// inserted is the card of the slot in use, nil when that is empty.
func (m *Modem) inserted() Card {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.slot == 2 {
		return m.cfg.SecondCard
	}
	return m.cfg.Card
}

// simStatus is Telit's AT#QSS and Cinterion's AT^SCKS: whether there is a SIM,
// and whether the port wants to be told.
func (c call) simStatus() reply {
	if c.form != read {
		return ok()
	}
	mode, status := c.p.setting(c.name), 0
	switch {
	case c.m.State().SIM.State != SIMReady:
	case mode == "2":
		status = 3 // #QSS alone: ready
	default:
		status = 1
	}
	if mode == "" {
		mode = "0"
	}
	return ok(fmt.Sprintf("%s: %s,%d", c.name, mode, status))
}

// unpowered reports whether a functionality leaves the SIM without power.
func (d *Dialect) unpowered(fun int) bool {
	return fun == 0 && !d.CFUN0KeepsSIM || fun == 4 && d.CFUN4DropsSIM
}

// setFunctionality is what AT+CFUN does: a value that takes the power from the
// SIM (0), one that takes only the radio (4), or full functionality, which
// resets the card and reads it anew if it had no power.
func (m *Modem) setFunctionality(ctx context.Context, fun int) {
	dark := m.cfg.Dialect.unpowered(fun)
	m.mu.Lock()
	old, sim := m.cfun, m.sim.State
	m.cfun = fun
	m.changedLocked()
	m.mu.Unlock()
	switch {
	case dark && sim != SIMOff:
		m.detach(ctx, NotRegistered)
		m.powerDown()
		m.say(SIMGone)
	case !dark && sim == SIMOff:
		m.startSIM(true, SIMOn)
	case fun != 1:
		m.detach(ctx, NotRegistered)
	case old != 1 && sim == SIMReady:
		m.register()
	}
}

// Reboot is AT+CFUN=1,1: the modem loses everything but its AT+CGDCONT table.
// If its dialect says so, its ptys hang up and come back after Delays.Boot, as
// a USB modem does when it re-enumerates.
func (m *Modem) Reboot() {
	m.log.add("", Happened, "modem resets")
	m.detach(m.ctx, NotRegistered)
	m.powerDown()
	m.mu.Lock()
	m.cfun, m.noCOPS, m.attached, m.carrier = 1, false, true, m.selected
	m.mu.Unlock()
	if d := &m.cfg.Dialect; d.ResetHangsUp {
		m.bouncePorts(d.Renames)
	}
	m.startSIM(true, SIMOn)
	m.say(ModemReady)
}

// powerDown takes the power from the card: what the modem knew of it is gone.
func (m *Modem) powerDown() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.simTurn++
	m.sim = SIM{State: SIMOff}
	m.forgetLocked()
	m.changedLocked()
	m.log.add("", Happened, "SIM powered down")
}

// forgetLocked drops what ends with the power of the card.
func (m *Modem) forgetLocked() {
	m.proactive = 0
	clear(m.sessions)
	clear(m.channels)
}

// startSIM reads the SIM in the background, after a reset of the card if it
// just got its power, and registers with what it found.
func (m *Modem) startSIM(reset bool, moment Moment) {
	m.mu.Lock()
	m.simTurn++
	turn := m.simTurn
	m.sim = SIM{State: SIMBusy}
	if reset {
		m.forgetLocked()
	}
	m.changedLocked()
	m.mu.Unlock()
	m.spawn(func() {
		sim, err := m.initialiseSIM(m.ctx, reset)
		m.mu.Lock()
		stale := turn != m.simTurn || m.ctx.Err() != nil
		if !stale {
			m.sim = sim
			m.changedLocked()
		}
		m.mu.Unlock()
		if stale {
			return
		}
		if err != nil {
			m.log.add("", Happened, fmt.Sprintf("SIM %s: %v", sim.State, err))
		} else {
			m.log.add("", Happened, fmt.Sprintf("SIM read: ICCID %s IMSI %s", sim.ICCID, sim.IMSI))
		}
		m.say(moment)
		m.fetchPending()
		m.register()
	})
}

func (m *Modem) initialiseSIM(ctx context.Context, reset bool) (SIM, error) {
	if !m.delay(ctx, "SIM", m.cfg.Delays.SIM) {
		return SIM{State: SIMOff}, ctx.Err()
	}
	if err := m.card.lock(ctx); err != nil {
		return SIM{State: SIMOff}, err
	}
	defer m.card.unlock()
	card := m.inserted()
	if card == nil {
		return SIM{State: SIMAbsent}, errNoCard
	}
	if reset {
		card.Reset()
	}
	return m.readSIM(ctx)
}

// terminalProfile announces every toolkit facility, "eUICC profile state
// change" among them (ETSI TS 102 223, section 5.2).
var terminalProfile = append([]byte{0x80, 0x10, 0x00, 0x00, 33}, bytes.Repeat([]byte{0xFF}, 33)...)

// File identifiers of the SIM (ETSI TS 102 221 section 13, 3GPP TS 31.102 section 4).
const (
	efDIR   = 0x2F00
	efICCID = 0x2FE2
	efIMSI  = 0x6F07
	efAD    = 0x6FAD
	efSPN   = 0x6F46
)

// readSIM reads what a modem reads at power up. The card is locked. An absent
// ICCID is an eUICC without an enabled profile: no error of the card.
func (m *Modem) readSIM(ctx context.Context) (SIM, error) {
	failed := func(err error) (SIM, error) { return SIM{State: SIMFailure}, err }
	// A card without a toolkit refuses this; it is no less a SIM.
	if _, _, err := m.exchange(ctx, terminalProfile); err != nil {
		return failed(err)
	}
	iccid, err := m.readFile(ctx, efICCID, 10)
	if err != nil {
		return failed(err)
	}
	if iccid == nil {
		return SIM{State: SIMAbsent}, errors.New("no EF_ICCID: no profile is enabled")
	}
	imsi, err := m.readFile(ctx, efIMSI, 9)
	if err != nil {
		return failed(err)
	}
	ad, err := m.readFile(ctx, efAD, 4)
	if err != nil {
		return failed(err)
	}
	spn, err := m.readFile(ctx, efSPN, 17)
	if err != nil {
		return failed(err)
	}
	sim := SIM{State: SIMReady, ICCID: strings.TrimRight(swappedDigits(iccid), "F"), IMSI: decodeIMSI(imsi), MNCLength: 2}
	if len(ad) >= 4 && ad[3]&0x0F == 3 {
		sim.MNCLength = 3
	}
	if len(spn) > 1 {
		name, _, _ := bytes.Cut(spn[1:], []byte{0xFF}) // the rest is padding
		sim.SPN = string(name)
	}
	if sim.IMSI == "" {
		return SIM{State: SIMFailure}, errors.New("no IMSI in ADF USIM")
	}
	return sim, nil
}

// swappedDigits turns nibble-swapped BCD into digits, F for a filler.
func swappedDigits(b []byte) string {
	const digits = "0123456789ABCDEF"
	var s strings.Builder
	for _, x := range b {
		s.WriteByte(digits[x&0x0F])
		s.WriteByte(digits[x>>4])
	}
	return s.String()
}

// decodeIMSI reads EF_IMSI, 3GPP TS 31.102, section 4.2.2. Garbage is "".
func decodeIMSI(b []byte) string {
	if len(b) < 2 || b[0] < 1 || int(b[0]) > len(b)-1 {
		return ""
	}
	s := strings.TrimRight(swappedDigits(b[1 : 1+int(b[0])])[1:], "F")
	if strings.ContainsAny(s, "ABCDEF") {
		return ""
	}
	return s
}

// simError is the answer to a command that needs a SIM that can be read, and
// whether there is one.
func (c call) simError() (reply, SIM, bool) {
	sim := c.m.State().SIM
	switch sim.State {
	case SIMReady:
		return reply{}, sim, true
	case SIMBusy:
		return c.fail(cmeSIMBusy), sim, false
	case SIMFailure:
		return c.fail(cmeSIMFailure), sim, false
	default:
		return c.fail(cmeSIMNotInserted), sim, false
	}
}

func (c call) pin() reply {
	if c.form != read {
		return c.fail(cmeNotAllowed)
	}
	r, sim, ready := c.simError()
	switch {
	case ready:
		return ok("+CPIN: READY")
	case sim.State == SIMBusy && c.m.cfg.Dialect.SIMBusyText:
		return ok("+CPIN: NOT READY")
	default:
		return r
	}
}

func (c call) imsi() reply {
	if c.form == test {
		return ok()
	}
	r, sim, ready := c.simError()
	if !ready {
		return r
	}
	return ok(sim.IMSI)
}

func (c call) iccid() reply {
	if c.form == test {
		return ok()
	}
	r, sim, ready := c.simError()
	if !ready {
		return r
	}
	id := sim.ICCID
	if c.m.cfg.Dialect.ICCIDLive {
		if id, r, ready = c.readICCID(); !ready {
			return r
		}
	}
	if c.m.cfg.Dialect.ICCIDPadded && len(id)%2 == 1 {
		id += "F"
	}
	return ok(c.name + ": " + id)
}

// readICCID asks the card, whatever the modem knows.
func (c call) readICCID() (string, reply, bool) {
	r, good := c.lockCard()
	if !good {
		return "", r, false
	}
	defer c.m.card.unlock()
	b, err := c.m.readFile(c.ctx, efICCID, 10)
	if err != nil || b == nil {
		return "", c.fail(cmeSIMFailure), false
	}
	return strings.TrimRight(swappedDigits(b), "F"), reply{}, true
}

// numbers is AT+CNUM: our profiles know no number of their own.
func (c call) numbers() reply {
	r, _, ready := c.simError()
	if !ready && c.form != test {
		return r
	}
	return ok()
}

// Limits of a proactive session: a real card has said all it has to say long before.
const maxProactiveCommands = 10

// Proactive commands and REFRESH qualifiers, ETSI TS 102 223, sections 9.4 and 8.6.
const (
	proactiveRefresh    = 0x01
	refreshUICCReset    = 0x04
	refreshProfileState = 0x09 // eUICC Profile State Change
)

// fetchPending starts the proactive session that a 91xx announced, if the modem's toolkit is on.
func (m *Modem) fetchPending() {
	m.mu.Lock()
	length := m.proactive
	start := length > 0 && !m.fetching && !m.cfg.NoFetch && !m.cfg.Dialect.NoRefresh
	if start {
		m.fetching, m.proactive = true, 0
	}
	m.mu.Unlock()
	if !start {
		return
	}
	m.spawn(func() {
		refresh := m.proactiveSession(m.ctx, length)
		m.mu.Lock()
		m.fetching = false
		m.mu.Unlock()
		if refresh != nil {
			m.refresh(m.ctx, *refresh)
		}
	})
}

// proactiveSession fetches and answers what the card wants, until it wants no
// more or wants a REFRESH, whose qualifier it returns.
func (m *Modem) proactiveSession(ctx context.Context, length int) (refresh *byte) {
	if !m.delay(ctx, "Refresh", m.cfg.Delays.Refresh) || m.card.lock(ctx) != nil {
		return nil
	}
	defer m.card.unlock()
	if m.State().SIM.State == SIMOff {
		return nil
	}
	for range maxProactiveCommands {
		data, sw, err := m.transmit(ctx, []byte{0x80, 0x12, 0x00, 0x00, byte(length)})
		if err != nil || sw != 0x9000 {
			m.log.add("", Happened, fmt.Sprintf("FETCH: %04X %v", sw, err))
			return nil
		}
		details, good := commandDetails(data)
		if !good {
			m.log.add("", Happened, "FETCH: no proactive command in "+hex.EncodeToString(data))
			return nil
		}
		m.log.add("", Happened, fmt.Sprintf("FETCH: proactive command %02X qualifier %02X", details[1], details[2]))
		isRefresh := details[1] == proactiveRefresh
		if isRefresh && details[2] == refreshUICCReset {
			return &details[2] // the reset is the answer: TS 102 223, section 6.4.7
		}
		_, sw, err = m.transmit(ctx, terminalResponse(details))
		if err != nil {
			return nil
		}
		if isRefresh {
			return &details[2]
		}
		if sw>>8 != 0x91 {
			return nil
		}
		length = int(sw & 0xFF)
	}
	return nil
}

// terminalResponse says "performed", ETSI TS 102 223, section 6.8.
func terminalResponse(details [3]byte) []byte {
	body := []byte{
		0x81, 0x03, details[0], details[1], details[2], // command details
		0x82, 0x02, 0x82, 0x81, // device identities: terminal to UICC
		0x83, 0x01, 0x00, // result: command performed successfully
	}
	return append([]byte{0x80, 0x14, 0x00, 0x00, byte(len(body))}, body...)
}

// commandDetails finds the command number, type and qualifier in a proactive command.
func commandDetails(b []byte) (details [3]byte, ok bool) {
	if len(b) < 2 || b[0] != 0xD0 {
		return details, false
	}
	header := 2
	if b[1] == 0x81 { // the length is in the octet after it
		header = 3
	}
	b = b[min(header, len(b)):]
	for len(b) >= 2 && len(b) >= 2+int(b[1]) {
		if b[0]&0x7F == 0x01 && b[1] == 3 {
			return [3]byte(b[2:5]), true
		}
		b = b[2+int(b[1]):]
	}
	return details, false
}

// refresh carries out a REFRESH: the network is left, the SIM read anew.
func (m *Modem) refresh(ctx context.Context, qualifier byte) {
	m.mu.Lock()
	off := m.sim.State == SIMOff
	m.mu.Unlock()
	if off {
		return
	}
	m.log.add("", Happened, fmt.Sprintf("REFRESH %02X", qualifier))
	m.detach(ctx, NotRegistered)
	m.say(RefreshStart)
	if m.cfg.Dialect.RefreshHangsUp && m.delay(ctx, "Answer", answerFlush) {
		m.bouncePorts(false)
	}
	m.startSIM(qualifier == refreshUICCReset || qualifier == refreshProfileState, RefreshEnd)
}

// follow reads the SIM anew, after a reset of the card: until then that shows the
// files of the profile of before.
func (m *Modem) follow() {
	m.mu.Lock()
	turn := m.simTurn
	m.mu.Unlock()
	if !m.delay(m.ctx, "Refresh", m.cfg.Delays.Refresh) {
		return
	}
	m.mu.Lock()
	over := turn != m.simTurn || m.fetching // something else has made it read the SIM
	m.mu.Unlock()
	if over {
		return
	}
	m.log.add("", Happened, "the card has another profile")
	m.detach(m.ctx, NotRegistered)
	m.say(RefreshStart)
	m.startSIM(true, RefreshEnd)
}
