package modemtest

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

var (
	errShortAnswer = errors.New("the card's answer is shorter than a status word")
	errNoCard      = errors.New("the slot is empty")
)

// transmit runs one APDU; the card is locked. It notes a proactive command
// that the card announces.
func (m *Modem) transmit(ctx context.Context, command []byte) (data []byte, sw uint16, err error) {
	card := m.inserted()
	if card == nil {
		return nil, 0, errNoCard
	}
	answer, err := card.Transmit(ctx, command)
	if err != nil {
		return nil, 0, fmt.Errorf("card: %w", err)
	}
	n := len(answer) - 2
	if n < 0 {
		return nil, 0, errShortAnswer
	}
	sw = uint16(answer[n])<<8 | uint16(answer[n+1])
	if sw>>8 == 0x91 {
		m.mu.Lock()
		m.proactive = int(sw & 0xFF)
		if m.proactive == 0 {
			m.proactive = 256
		}
		m.mu.Unlock()
	}
	return answer[:n:n], sw, nil
}

// maxFollowUps bounds the GET RESPONSE commands that follow one command.
const maxFollowUps = 32

// exchange is transmit with 61xx and 6Cxx followed, for the modem's own use of the card.
func (m *Modem) exchange(ctx context.Context, command []byte) (data []byte, sw uint16, err error) {
	data, sw, err = m.transmit(ctx, command)
	if err == nil && sw>>8 == 0x6C {
		again := append([]byte(nil), command...)
		if len(again) == 4 {
			again = append(again, 0)
		}
		again[len(again)-1] = byte(sw)
		data, sw, err = m.transmit(ctx, again)
	}
	for range maxFollowUps {
		if err != nil || sw>>8 != 0x61 {
			break
		}
		var more []byte
		more, sw, err = m.transmit(ctx, []byte{command[0], 0xC0, 0x00, 0x00, byte(sw)})
		data = append(data, more...)
	}
	return data, sw, err
}

// usimAID is the application identifier of every USIM, without the part that
// differs (ETSI TS 101 220, annex E). Cards select by a truncated AID.
var usimAID = []byte{0xA0, 0x00, 0x00, 0x00, 0x87, 0x10, 0x02}

func success(sw uint16) bool { return sw == 0x9000 || sw>>8 == 0x91 }

// selectFile makes an elementary file of the MF (2Fxx) or of the USIM the
// current one of the basic channel; the card is locked. p2 is 0x0C for no
// answer, 0x04 for the file's control parameters.
func (m *Modem) selectFile(ctx context.Context, file uint16, p2 byte) (data []byte, sw uint16, err error) {
	id := []byte{byte(file >> 8), byte(file)}
	selectBy := func(p1 byte, path ...byte) {
		data, sw, err = m.exchange(ctx, append([]byte{0x00, 0xA4, p1, p2, byte(len(path))}, path...))
	}
	if id[0] == 0x2F {
		selectBy(0x08, id...) // by path from the MF
		return data, sw, err
	}
	aid := m.usim(ctx)
	if _, s, aerr := m.exchange(ctx, append([]byte{0x00, 0xA4, 0x04, 0x0C, byte(len(aid))}, aid...)); aerr != nil || !success(s) {
		return nil, s, aerr
	}
	selectBy(0x08, append([]byte{0x7F, 0xFF}, id...)...)
	if err == nil && !success(sw) {
		selectBy(0x00, id...) // by identifier below the application just selected
	}
	return data, sw, err
}

// usim is the AID that EF_DIR gives for the USIM, else the truncated one.
func (m *Modem) usim(ctx context.Context) []byte {
	if _, sw, err := m.exchange(ctx, []byte{0x00, 0xA4, 0x08, 0x0C, 0x02, byte(efDIR >> 8), byte(efDIR & 0xFF)}); err != nil || !success(sw) {
		return usimAID
	}
	const maxRecords = 8 // more applications than any profile has
	for n := byte(1); n <= maxRecords; n++ {
		rec, sw, err := m.exchange(ctx, []byte{0x00, 0xB2, n, 0x04, 0x00})
		if err != nil || !success(sw) {
			break
		}
		// 61 LL 4F LL aid: ETSI TS 102 221, section 13.1
		if len(rec) > 4 && rec[0] == 0x61 && rec[2] == 0x4F && len(rec) >= 4+int(rec[3]) {
			if aid := rec[4 : 4+int(rec[3])]; strings.HasPrefix(string(aid), string(usimAID)) {
				return aid
			}
		}
	}
	return usimAID
}

// readFile reads the beginning of a transparent file; nil when it is not there.
func (m *Modem) readFile(ctx context.Context, file uint16, length byte) ([]byte, error) {
	_, sw, err := m.selectFile(ctx, file, 0x0C)
	if err != nil || !success(sw) {
		return nil, err
	}
	data, sw, err := m.exchange(ctx, []byte{0x00, 0xB0, 0x00, 0x00, length})
	if err != nil || !success(sw) {
		return nil, err
	}
	return data, nil
}

// lockCard takes the card for a command of the host. The card must have power;
// what profile it holds, and whether the modem could read it, does not matter.
func (c call) lockCard() (reply, bool) {
	switch c.m.State().SIM.State {
	case SIMOff:
		return c.fail(cmeSIMNotInserted), false
	case SIMBusy:
		return c.fail(cmeSIMBusy), false
	}
	if c.m.inserted() == nil {
		return c.fail(cmeSIMNotInserted), false
	}
	if c.m.card.lock(c.ctx) != nil {
		return c.fail(cmeSIMFailure), false
	}
	return reply{}, true
}

// apduArgs reads the <length>,<command> of AT+CSIM and AT+CGLA: the length
// counts hexadecimal digits (3GPP TS 27.007, sections 8.17 and 8.43).
func (c call) apduArgs(first int) ([]byte, bool) {
	n, good := c.num(first, -1)
	text := c.arg(first + 1)
	if n > len(text) && c.m.cfg.Dialect.Overlong == OverlongTruncated {
		text = text[:len(text)&^1] // the end of the line was lost, and nobody counts
		n = len(text)
	}
	b, err := hex.DecodeString(text)
	return b, good && err == nil && n == len(text) && len(b) >= 4
}

// answerAPDU is the information line of AT+CSIM and AT+CGLA.
func (c call) answerAPDU(command []byte) reply {
	do := c.m.transmit
	if c.m.cfg.Dialect.InlineResponse {
		do = c.m.exchange
	}
	data, sw, err := c.m.forHost(c.ctx, command, do)
	if err != nil {
		c.m.log.add("", Happened, err.Error())
		return c.fail(cmeSIMFailure)
	}
	text := strings.ToUpper(hex.EncodeToString(data)) + fmt.Sprintf("%04X", sw)
	return ok(fmt.Sprintf(`%s: %d,"%s"`, c.name, len(text), text))
}

// Status words that a modem gives in the place of the card, ISO/IEC 7816-4.
const (
	swNoChannel    = 0x6881 // logical channel not supported
	swNotSupported = 0x6A81 // function not supported: no channel is free
)

// forHost runs an APDU of the host's by do, and keeps the account of logical
// channels: a dialect may have few of them, or open some that are of no use.
func (m *Modem) forHost(ctx context.Context, command []byte, do func(context.Context, []byte) ([]byte, uint16, error)) ([]byte, uint16, error) {
	d := &m.cfg.Dialect
	switch ins := command[1]; {
	case ins == 0x70 && command[2] == 0x00: // open
		m.mu.Lock()
		full := d.Channels > 0 && len(m.channels) >= d.Channels
		m.mu.Unlock()
		if full {
			return nil, swNotSupported, nil
		}
		good := !d.ChannelLe01 || len(command) == 5 && command[4] == 0x01
		if d.ChannelLe01 {
			command = []byte{command[0], 0x70, 0x00, command[3], 0x01}
		}
		data, sw, err := do(ctx, command)
		if err == nil && success(sw) && len(data) == 1 {
			m.mu.Lock()
			m.channels[int(data[0])] = good
			m.mu.Unlock()
		}
		return data, sw, err
	case ins == 0x70 && command[2] == 0x80: // close
		data, sw, err := do(ctx, command)
		if err == nil && success(sw) {
			m.mu.Lock()
			delete(m.channels, int(command[3]))
			follow := m.switched
			m.switched = false
			m.mu.Unlock()
			if follow {
				m.spawn(m.follow)
			}
		}
		return data, sw, err
	case ins == 0xE2 && d.Follows && switches(command):
		data, sw, err := do(ctx, command)
		m.mu.Lock()
		m.switched = err == nil && (success(sw) || sw>>8 == 0x61)
		m.mu.Unlock()
		return data, sw, err
	case ins == 0xA4:
		m.mu.Lock()
		good, open := m.channels[claChannel(command[0])]
		m.mu.Unlock()
		if open && !good {
			return nil, swNoChannel, nil
		}
	}
	return do(ctx, command)
}

// switches finds EnableProfile and DisableProfile (SGP.22 v2.5, sections 5.7.16
// and 5.7.17) in a STORE DATA.
func switches(command []byte) bool {
	const header = 5
	return len(command) > header+2 && command[header] == 0xBF && (command[header+1] == 0x31 || command[header+1] == 0x32)
}

// claChannel is the logical channel in a class byte, ETSI TS 102 221, section 10.1.1.
func claChannel(cla byte) int {
	if cla&0x40 != 0 {
		return 4 + int(cla&0x0F)
	}
	return int(cla & 0x03)
}

// genericAccess is AT+CSIM: the APDU goes to the card as it is.
func (c call) genericAccess() reply {
	if c.form == test {
		return ok()
	}
	d := &c.m.cfg.Dialect
	if lock := c.arg(0); d.CSIMLocks && len(c.args) == 1 && (lock == "0" || lock == "1") {
		moment := map[string]Moment{"0": Unlocked, "1": Locked}[lock]
		return reply{final: "OK", after: func() { c.m.afterAnswer(func() { c.m.say(moment) }) }}
	}
	command, good := c.apduArgs(0)
	if !good {
		return c.wrong()
	}
	if d.NoCSIMChannels && claChannel(command[0]) != 0 {
		return c.fail(cmeNotAllowed)
	}
	r, good := c.lockCard()
	if !good {
		return r
	}
	defer c.m.card.unlock()
	return c.answerAPDU(command)
}

// channelCLA puts a logical channel into a class byte, ETSI TS 102 221, section 10.1.1.
func channelCLA(cla byte, channel int) byte {
	if channel <= 3 {
		return cla&0xBC | byte(channel)
	}
	return cla&0xB0 | 0x40 | byte(channel-4)
}

// openSession is AT+CCHO: MANAGE CHANNEL and SELECT.
func (c call) openSession() reply {
	if c.form == test {
		return ok()
	}
	aid, err := hex.DecodeString(c.arg(0))
	if err != nil || len(aid) < 5 || len(aid) > 16 {
		return c.wrong()
	}
	r, good := c.lockCard()
	if !good {
		return r
	}
	defer c.m.card.unlock()
	data, sw, err := c.m.forHost(c.ctx, []byte{0x00, 0x70, 0x00, 0x00, 0x01}, c.m.exchange)
	if err != nil {
		return c.fail(cmeSIMFailure)
	}
	if !success(sw) || len(data) != 1 || data[0] == 0 || data[0] > 19 {
		return c.fail(cmeMemoryFull)
	}
	channel := int(data[0])
	command := append([]byte{channelCLA(0x00, channel), 0xA4, 0x04, 0x00, byte(len(aid))}, aid...)
	if _, sw, err = c.m.exchange(c.ctx, append(command, 0x00)); err != nil || !success(sw) {
		c.closeChannel(channel)
		return c.fail(cmeNotFound)
	}
	d := &c.m.cfg.Dialect
	format := d.SessionFormat
	if format == "" {
		format = "%d"
	}
	handle := fmt.Sprintf(format, d.SessionBase+uint64(channel))
	c.m.mu.Lock()
	c.m.sessions[handle] = channel
	c.m.changedLocked()
	c.m.mu.Unlock()
	if d.BareCCHO {
		return ok(handle)
	}
	return ok("+CCHO: " + handle)
}

func (c call) closeChannel(channel int) {
	if _, sw, err := c.m.forHost(c.ctx, []byte{0x00, 0x70, 0x80, byte(channel)}, c.m.transmit); err != nil || !success(sw) {
		c.m.log.add("", Happened, fmt.Sprintf("close logical channel %d: %04X %v", channel, sw, err))
	}
}

// session finds the channel of a handle. The handle is compared as text.
func (c call) session(handle string) (int, bool) {
	c.m.mu.Lock()
	defer c.m.mu.Unlock()
	channel, found := c.m.sessions[handle]
	return channel, found
}

// sessionAccess is AT+CGLA. The modem sets the channel in CLA, whatever the
// host wrote there; GET RESPONSE is left to the host.
func (c call) sessionAccess() reply {
	if c.form == test {
		return ok()
	}
	command, good := c.apduArgs(1)
	if !good {
		return c.wrong()
	}
	r, good := c.lockCard()
	if !good {
		return r
	}
	defer c.m.card.unlock()
	// Looked up with the card in hand: a REFRESH may have ended the session while we waited.
	channel, found := c.session(c.arg(0))
	if !found {
		return c.fail(cmeInvalidIndex)
	}
	command[0] = channelCLA(command[0], channel)
	return c.answerAPDU(command)
}

// closeSession is AT+CCHC.
func (c call) closeSession() reply {
	if c.form == test {
		return ok()
	}
	r, good := c.lockCard()
	if !good {
		return r
	}
	defer c.m.card.unlock()
	channel, found := c.session(c.arg(0))
	if !found {
		return c.fail(cmeInvalidIndex)
	}
	c.m.mu.Lock()
	delete(c.m.sessions, c.arg(0))
	c.m.changedLocked()
	c.m.mu.Unlock()
	c.closeChannel(channel)
	return ok()
}

// restrictedAccess is AT+CRSM, 3GPP TS 27.007, section 8.18: the modem selects
// the file on the basic channel of the card and runs one command on it.
func (c call) restrictedAccess() reply {
	if c.form == test {
		return ok()
	}
	ins, good := c.num(0, -1)
	file, good2 := c.num(1, 0)
	p1, good3 := c.num(2, 0)
	p2, good4 := c.num(3, 0)
	p3, good5 := c.num(4, 0)
	data, err := hex.DecodeString(c.arg(5))
	for _, n := range []int{p1, p2, p3} {
		good = good && n >= 0 && n <= 0xFF
	}
	if !good || !good2 || !good3 || !good4 || !good5 || err != nil || file < 0 || file > 0xFFFF {
		return c.wrong()
	}
	if r, _, ready := c.simError(); !ready {
		return r
	}
	if slices.Contains(c.m.cfg.Dialect.NoCRSM, file) {
		return c.fail(cmeNotAllowed)
	}
	r, good := c.lockCard()
	if !good {
		return r
	}
	defer c.m.card.unlock()
	out, sw, err := c.restricted(byte(ins), uint16(file), []byte{byte(p1), byte(p2), byte(p3)}, data)
	switch {
	case errors.Is(err, errors.ErrUnsupported):
		return c.fail(cmeNotSupported)
	case err != nil:
		return c.fail(cmeSIMFailure)
	}
	line := "+CRSM: " + strconv.Itoa(int(sw>>8)) + "," + strconv.Itoa(int(sw&0xFF))
	if len(out) > 0 {
		line += `,"` + strings.ToUpper(hex.EncodeToString(out)) + `"`
	}
	return ok(line)
}

// restricted runs one of the commands that AT+CRSM allows.
func (c call) restricted(ins byte, file uint16, p []byte, data []byte) ([]byte, uint16, error) {
	var command []byte
	switch ins {
	case 0xC0: // GET RESPONSE: the file control parameters
		return c.m.selectFile(c.ctx, file, 0x04)
	case 0xF2: // STATUS
		return c.m.exchange(c.ctx, append([]byte{0x80, 0xF2}, p...))
	case 0xB0, 0xB2: // READ BINARY, READ RECORD
		command = append([]byte{0x00, ins}, p...)
	case 0xD6, 0xDC: // UPDATE BINARY, UPDATE RECORD
		if len(data) != int(p[2]) {
			return nil, 0x6700, nil
		}
		command = append(append([]byte{0x00, ins}, p...), data...)
	default:
		return nil, 0, errors.ErrUnsupported
	}
	if _, sw, err := c.m.selectFile(c.ctx, file, 0x0C); err != nil || !success(sw) {
		return nil, sw, err
	}
	return c.m.exchange(c.ctx, command)
}
