package euicc

import "lpad/apdu/ber"

// P1 of STORE DATA (SGP.22 v2.5, section 5.7.2).
const (
	moreBlocks = 0x11
	lastBlock  = 0x91
)

// maxMessage bounds what a channel collects: 256 blocks of 255 bytes, as many
// as P2 can count.
const maxMessage = 256 * 255

// isdrFCI is the answer to SELECT of the ISD-R: its name, the longest data
// field, and the SVN in a proprietary template (SGP.22 v2.5, section 5.7.1).
func (c *Card) isdrFCI(aid []byte) []byte {
	return ber.Encode(0x6F,
		ber.Encode(0x84, aid),
		ber.Encode(0xA5, ber.Encode(0x9F65, []byte{0xFF})),
		ber.Encode(0xE0, ber.Encode(0x82, c.config.Info.SVN[:])))
}

// storeData collects the blocks of a function command and runs it.
func (c *Card) storeData(ch *channel, cmd command) ([]byte, uint16) {
	switch {
	case !ch.isdr:
		return nil, swInstruction
	case cmd.p1 != moreBlocks && cmd.p1 != lastBlock:
		return nil, swWrongParameters
	case len(cmd.data) == 0:
		return nil, swWrongLength
	}
	if cmd.p2 == 0 { // block 00 begins a new command, whatever was before
		ch.chain, ch.next = nil, 0
	}
	if int(cmd.p2) != ch.next || len(ch.chain)+len(cmd.data) > maxMessage {
		ch.chain, ch.next = nil, 0
		if c.config.Quirks.WrongBlockIsCondition {
			return nil, swConditions
		}
		return nil, swWrongData
	}
	ch.chain = append(ch.chain, cmd.data...)
	ch.next++
	if cmd.p1 == moreBlocks {
		return nil, swOK
	}
	message := ch.chain
	ch.chain, ch.next = nil, 0
	return c.message(ch, message)
}

// message runs a complete function command or segment.
func (c *Card) message(ch *channel, b []byte) ([]byte, uint16) {
	if c.stale {
		return nil, swConditions
	}
	tag, _, _, err := ber.ParseHeader(b)
	if err != nil {
		return nil, swWrongData
	}
	name := tag
	if isSegment(tag) {
		name = 0xBF36
	}
	if f := c.functionFault(name, Refuse, LoseCommand, CutPower); f != nil {
		c.spoil(f)
		return nil, swConditions
	}
	var data []byte
	var sw uint16
	if f := c.functionFault(name, AnswerResult); f != nil {
		data, sw = result(name, f.Result), swOK
	} else {
		data, sw = c.function(ch, tag, b)
	}
	if f := c.functionFault(name, RefuseAfter, LoseAnswer, CutPowerAfter); f != nil {
		c.spoil(f)
	}
	if len(data) > 0 {
		if f := c.functionFault(name, TamperAnswer); f != nil && f.Tamper != nil {
			data = f.Tamper(data)
		}
	}
	return data, sw
}

// functions of ES10a, ES10b and ES10c by the tag of their command (SGP.22 v2.5,
// section 5.7). A nil answer with 9000 is none of theirs.
var functions = map[ber.Tag]func(*Card, ber.TLV) ([]byte, uint16){
	0xBF3C: (*Card).getEuiccConfiguredAddresses,
	0xBF3F: (*Card).setDefaultDpAddress,
	0xBF20: (*Card).getEUICCInfo1,
	0xBF22: (*Card).getEUICCInfo2,
	0xBF2E: (*Card).getEUICCChallenge,
	0xBF38: (*Card).authenticateServer,
	0xBF21: (*Card).prepareDownload,
	0xBF41: (*Card).cancelSession,
	0xBF28: (*Card).listNotification,
	0xBF2B: (*Card).retrieveNotificationsList,
	0xBF30: (*Card).removeNotificationFromList,
	0xBF35: (*Card).loadCRL,
	0xBF43: (*Card).getRAT,
	0xBF2D: (*Card).getProfilesInfo,
	0xBF31: (*Card).enableProfile,
	0xBF32: (*Card).disableProfile,
	0xBF33: (*Card).deleteProfile,
	0xBF34: (*Card).eUICCMemoryReset,
	0xBF3E: (*Card).getEID,
	0xBF29: (*Card).setNickname,
}

func (c *Card) function(_ *channel, tag ber.Tag, b []byte) ([]byte, uint16) {
	if isSegment(tag) {
		return c.loadSegment(tag, b)
	}
	run := functions[tag]
	if run == nil {
		return nil, swNoReference
	}
	t, err := ber.Parse(b)
	if err != nil {
		return nil, swWrongData
	}
	return run(c, t)
}

// result is the answer of the many functions that answer with a code only.
func result(function ber.Tag, code int) []byte {
	return ber.Encode(function, ber.EncodeInt(0x80, int64(code)))
}

// choice1 is an answer whose second alternative is a plain code.
func choice1(function ber.Tag, code int) []byte {
	return ber.Encode(function, ber.EncodeInt(0x81, int64(code)))
}

// undefinedError is the result of last resort of every function.
const undefinedError = 127
