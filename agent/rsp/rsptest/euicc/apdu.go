package euicc

// Status words (ETSI TS 102 221, section 10.2.1).
const (
	swOK               uint16 = 0x9000
	swProactive        uint16 = 0x9100 // plus the length of the command
	swMoreData         uint16 = 0x6100 // plus the length
	swWrongLength      uint16 = 0x6700
	swChannel          uint16 = 0x6881 // logical channel not supported, or not open
	swSecureMessaging  uint16 = 0x6882
	swIncompatibleFile uint16 = 0x6981
	swSecurity         uint16 = 0x6982
	swConditions       uint16 = 0x6985
	swNoFile           uint16 = 0x6986
	swWrongData        uint16 = 0x6A80
	swNoChannel        uint16 = 0x6A81 // function not supported: no channel left
	swNotFound         uint16 = 0x6A82
	swNoRecord         uint16 = 0x6A83
	swWrongParameters  uint16 = 0x6A86
	swNoReference      uint16 = 0x6A88
	swOutside          uint16 = 0x6B00 // offset outside the file
	swWrongLe          uint16 = 0x6C00 // plus the right one
	swInstruction      uint16 = 0x6D00
	swClass            uint16 = 0x6E00
)

// Instructions.
const (
	insTerminalProfile    = 0x10
	insFetch              = 0x12
	insTerminalResponse   = 0x14
	insVerify             = 0x20
	insUnblock            = 0x2C
	insManageChannel      = 0x70
	insSelect             = 0xA4
	insTerminalCapability = 0xAA
	insReadBinary         = 0xB0
	insReadRecord         = 0xB2
	insGetResponse        = 0xC0
	insEnvelope           = 0xC2
	insUpdateBinary       = 0xD6
	insUpdateRecord       = 0xDC
	insStoreData          = 0xE2
	insStatus             = 0xF2
)

// command is a short command APDU, taken apart as the card does it.
type command struct {
	class        byte // without the channel: 00 or 80
	channel      int
	ins, p1, p2  byte
	data         []byte
	le           int // 0: absent, 1 to 256
	securedClass bool
}

// parseCommand reads a short APDU; false means that the lengths do not fit.
// CLA of channels 0 to 3 is 0X or 8X, of channels 4 to 19 4X to 7X or CX to FX
// (ETSI TS 102 221, tables 10.3 and 10.4a).
func parseCommand(b []byte) (command, bool) {
	if len(b) < 4 {
		return command{}, false
	}
	c := command{class: b[0] & 0x80, ins: b[1], p1: b[2], p2: b[3]}
	if b[0]&0x40 == 0 {
		c.channel, c.securedClass = int(b[0]&0x03), b[0]&0x1C != 0
	} else {
		c.channel, c.securedClass = 4+int(b[0]&0x0F), b[0]&0x30 != 0
	}
	body := b[4:]
	switch {
	case len(body) == 0:
		return c, true
	case len(body) == 1:
		c.le = expected(body[0])
		return c, true
	}
	lc := int(body[0])
	switch len(body) - 1 - lc {
	case 0:
	case 1:
		c.le = expected(body[1+lc])
	default:
		return command{}, false
	}
	if lc == 0 {
		return command{}, false
	}
	c.data = body[1 : 1+lc]
	return c, true
}

func expected(le byte) int {
	if le == 0 {
		return 256
	}
	return int(le)
}

// channel is the state of one logical channel.
type channel struct {
	number int
	isdr   bool   // the ISD-R is selected; otherwise the file system
	dir    uint16 // current directory
	file   *file  // current EF, nil when none

	chain   []byte // data of STORE DATA so far
	next    int    // the block number that goes on with it
	pending []byte // data that waits for GET RESPONSE
}

func newChannel(number int) *channel { return &channel{number: number, dir: fidMF} }

// execute runs a command and gives the response APDU.
func (c *Card) execute(b []byte) []byte {
	cmd, ok := parseCommand(b)
	if !ok {
		return statusWord(swWrongLength)
	}
	if cmd.securedClass {
		return statusWord(swSecureMessaging)
	}
	ch := c.channels[cmd.channel]
	if ch == nil {
		return statusWord(swChannel)
	}
	if cmd.ins == insGetResponse {
		return c.getResponse(ch, cmd)
	}
	ch.pending = nil
	if cmd.ins != insStoreData {
		ch.chain, ch.next = nil, 0
	}
	data, sw := c.dispatch(ch, cmd)
	return c.respond(ch, cmd, data, sw)
}

// handler executes an instruction.
type handler struct {
	class byte // 00 or 80
	run   func(*Card, *channel, command) ([]byte, uint16)
}

var handlers = map[byte]handler{
	insTerminalProfile:    {0x80, (*Card).terminalProfile},
	insFetch:              {0x80, (*Card).fetch},
	insTerminalResponse:   {0x80, (*Card).terminalResponse},
	insEnvelope:           {0x80, (*Card).envelope},
	insTerminalCapability: {0x80, (*Card).terminalCapability},
	insStatus:             {0x80, (*Card).status},
	insStoreData:          {0x80, (*Card).storeData},
	insVerify:             {0x00, (*Card).verify},
	insUnblock:            {0x00, (*Card).verify},
	insManageChannel:      {0x00, (*Card).manageChannel},
	insSelect:             {0x00, (*Card).selectCommand},
	insReadBinary:         {0x00, (*Card).readBinary},
	insReadRecord:         {0x00, (*Card).readRecord},
	insUpdateBinary:       {0x00, (*Card).update},
	insUpdateRecord:       {0x00, (*Card).update},
}

func (c *Card) dispatch(ch *channel, cmd command) ([]byte, uint16) {
	h, known := handlers[cmd.ins]
	switch {
	case !known:
		return nil, swInstruction
	case h.class != cmd.class:
		return nil, swClass
	}
	return h.run(c, ch, cmd)
}

// respond gives data and status word as the card does: at once, or by 61xx and
// GET RESPONSE when the command itself carried data and the card speaks T=0.
func (c *Card) respond(ch *channel, cmd command, data []byte, sw uint16) []byte {
	switch {
	case sw != swOK:
		return statusWord(sw)
	case len(data) == 0:
		return statusWord(c.finalStatus())
	case !c.config.Inline && (len(cmd.data) > 0 || cmd.ins == insSelect):
		ch.pending = data
		return statusWord(swMoreData | c.chunkOf(data))
	}
	n := min(len(data), c.config.Chunk)
	ch.pending = data[n:]
	return c.withStatus(data[:n], ch.pending)
}

// getResponse gives the next piece of an answer. A Le that asks for more than
// there is gets 6Cxx, as with T=0.
func (c *Card) getResponse(ch *channel, cmd command) []byte {
	if len(ch.pending) == 0 {
		return statusWord(swConditions)
	}
	n := min(len(ch.pending), c.config.Chunk)
	if cmd.le > n {
		return statusWord(swWrongLe | uint16(n&0xFF))
	}
	if cmd.le > 0 {
		n = cmd.le
	}
	data := ch.pending[:n]
	ch.pending = ch.pending[n:]
	return c.withStatus(data, ch.pending)
}

func (c *Card) withStatus(data, rest []byte) []byte {
	sw := c.finalStatus()
	if len(rest) > 0 {
		sw = swMoreData | c.chunkOf(rest)
	}
	return append(append([]byte(nil), data...), statusWord(sw)...)
}

// chunkOf is SW2 of 61xx: what can be had at once, 00 for 256.
func (c *Card) chunkOf(data []byte) uint16 { return uint16(min(len(data), c.config.Chunk) & 0xFF) }

// finalStatus is 9000, or 91xx when a proactive command waits.
func (c *Card) finalStatus() uint16 {
	if c.proactive != nil {
		return swProactive | uint16(len(c.proactive))
	}
	return swOK
}

// manageChannel opens and closes logical channels (ETSI TS 102 221, section
// 11.1.17).
func (c *Card) manageChannel(ch *channel, cmd command) ([]byte, uint16) {
	switch {
	case cmd.p1 == 0x00 && cmd.p2 == 0:
		return c.openChannel(ch, cmd)
	case cmd.p1 == 0x80 && cmd.p2 > 0:
		return nil, c.closeChannel(int(cmd.p2))
	}
	return nil, swWrongParameters
}

func (c *Card) openChannel(from *channel, cmd command) ([]byte, uint16) {
	if !c.config.Inline && cmd.le > 1 {
		return nil, swWrongLe | 1 // T=0: nothing is done until the length is right
	}
	for n := 1; n <= c.config.Channels; n++ {
		if c.channels[n] != nil {
			continue
		}
		opened := newChannel(n)
		if from.number != 0 { // it inherits what the other has selected
			opened.isdr, opened.dir = from.isdr, from.dir
		}
		c.channels[n] = opened
		return []byte{byte(n)}, swOK
	}
	return nil, swNoChannel
}

func (c *Card) closeChannel(n int) uint16 {
	ch := c.channels[n]
	if ch == nil {
		return swChannel
	}
	c.leave(ch)
	delete(c.channels, n)
	return swOK
}

// leave is called when a channel that may be loading a package is closed or
// selects again.
func (c *Card) leave(ch *channel) {
	if ch.isdr && c.session.state == loading && c.config.Quirks.ChannelCloseAborts {
		c.interrupt()
	}
}

// selectCommand selects the ISD-R, an application, a directory or a file
// (ETSI TS 102 221, section 11.1.1).
func (c *Card) selectCommand(ch *channel, cmd command) ([]byte, uint16) {
	if cmd.p1 == 0x04 {
		return c.selectAID(ch, cmd)
	}
	dir, f, ok := c.visible.locate(ch.dir, cmd.p1, cmd.data)
	if !ok {
		return nil, swNotFound
	}
	ch.isdr, ch.dir, ch.file = false, dir, f
	return c.fcp(ch, cmd)
}

func (c *Card) selectAID(ch *channel, cmd command) ([]byte, uint16) {
	for _, aid := range c.config.AIDs {
		if aid.Equal(cmd.data) {
			return c.selectISDR(ch, cmd)
		}
	}
	if len(cmd.data) >= len(usimRID) && c.visible.isUSIM(cmd.data) {
		c.leave(ch)
		ch.isdr, ch.dir, ch.file = false, fidADF, nil
		return c.fcp(ch, cmd)
	}
	return nil, swNotFound
}

func (c *Card) selectISDR(ch *channel, cmd command) ([]byte, uint16) {
	if c.config.Quirks.NeedsTermCapability && !c.terminalLPAd {
		return nil, swNotFound
	}
	quiet, ok := quietSelect(cmd.p2)
	if !ok {
		return nil, swWrongParameters
	}
	c.leave(ch)
	ch.isdr, ch.file = true, nil
	if quiet {
		return nil, swOK
	}
	return c.isdrFCI(cmd.data), swOK
}

// quietSelect reads P2 of SELECT: no data, or a template.
func quietSelect(p2 byte) (quiet, ok bool) {
	switch p2 &^ 0x03 {
	case 0x00, 0x04:
		return false, true
	case 0x0C:
		return true, true
	}
	return false, false
}

// fcp answers a SELECT of the file system: by the template, or with nothing.
func (c *Card) fcp(ch *channel, cmd command) ([]byte, uint16) {
	quiet, ok := quietSelect(cmd.p2)
	switch {
	case !ok:
		return nil, swWrongParameters
	case quiet:
		return nil, swOK
	}
	return c.visible.describe(ch.dir, ch.file), swOK
}

// status tells where the channel stands (ETSI TS 102 221, section 11.1.2).
func (c *Card) status(ch *channel, cmd command) ([]byte, uint16) {
	if cmd.p2 == 0x0C {
		return nil, swOK
	}
	if ch.isdr {
		return c.cut(c.isdrFCI(c.config.AIDs[0]), cmd)
	}
	return c.cut(c.visible.describe(ch.dir, nil), cmd)
}

// cut answers a command of case 2: with T=0 the length must be right.
func (c *Card) cut(data []byte, cmd command) ([]byte, uint16) {
	switch {
	case cmd.le == 0 || cmd.le == len(data):
		return data, swOK
	case cmd.le < len(data):
		return data[:cmd.le], swOK
	case cmd.le == 256 && c.config.Inline:
		return data, swOK
	}
	return nil, swWrongLe | uint16(len(data)&0xFF)
}

// verify answers the question how many tries are left, as ModemManager asks it
// at start (ETSI TS 102 221, sections 11.1.9 and 11.1.13). The PINs of the
// profiles are disabled: any value passes.
func (c *Card) verify(ch *channel, cmd command) ([]byte, uint16) {
	switch {
	case !c.visible.hasUSIM():
		return nil, swNoReference
	case len(cmd.data) > 0:
		return nil, swOK
	case cmd.ins == insUnblock:
		return nil, 0x63CA
	}
	return nil, 0x63C3
}
