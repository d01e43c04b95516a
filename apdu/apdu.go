// Package apdu speaks to a smart card: commands and responses of ISO 7816-4,
// status words with their meaning, logical channels, and the two habits of
// short APDUs that every caller would otherwise repeat (61xx: fetch the rest,
// 6Cxx: say the length again). It does not know what is said: no GSMA here.
//
// A [Transport] carries raw bytes to a whole card. [OpenChannel] opens a logical
// channel on it and selects an application; [NewSession] makes the same
// [Channel] of a session that somebody else opened (AT+CCHO). From then on
//
//	ch, err := apdu.OpenChannel(ctx, card, aid)
//	if err != nil {
//		return err
//	}
//	defer ch.Close(ctx)
//	r, err := ch.Transmit(ctx, apdu.Command{CLA: 0x80, INS: 0xE2, P1: 0x91, Data: request})
//
// gives the whole response, however many pieces the card made of it.
//
// # Errors
//
// A status word that is not a success is a [StatusError]; it matches one of
// [ErrNotFound], [ErrBusy], [ErrConditions] and their siblings by errors.Is.
// An error of the transport leaves the channel broken ([ErrBroken]): whether
// the card has acted on the command is then unknown, and only a new channel
// (and asking the card for its state) tells. A card that was reset answers for
// a channel that it has forgotten: [ErrChannelClosed]. All of them explain
// themselves to package fault.
//
// # Limits
//
// A response has at most [MaxResponse] bytes in at most [MaxRounds] pieces.
// Every exchange is bounded by its ctx and by the transport; this package adds
// no waiting of its own, except that closing has [CloseTimeout].
//
// A Channel is for one goroutine; several Channels of one Transport may be used
// in turn, never at once.
package apdu

import (
	"context"
	"errors"
	"fmt"
)

// Transport carries raw APDUs to a card and back. The response includes the
// status word. It is for one goroutine at a time. When ctx ends in the middle
// of an exchange, Transmit returns soon, with an error; the transport decides
// whether it can be used again.
type Transport interface {
	Transmit(ctx context.Context, command []byte) (response []byte, err error)
}

// Card is a card on which channels can be opened, whatever carries them:
// pcsc.Card and atcard.Card.
type Card interface {
	// OpenChannel opens a channel to the application with this AID.
	OpenChannel(ctx context.Context, aid []byte) (*Channel, error)
	// BlockSize is how many bytes of data one command may carry here, at most 255.
	BlockSize() int
	// Close gives the card back. Channels of it are dead.
	Close() error
}

// Command is a short command APDU (ISO 7816-4, section 5.1).
type Command struct {
	CLA, INS, P1, P2 byte
	Data             []byte // at most 255 bytes
	Le               int    // bytes expected: 0 absent, 1 to 256
}

// Marshal gives the bytes of the command. Without data and Le these are four.
func (c Command) Marshal() ([]byte, error) {
	switch {
	case len(c.Data) > 255:
		return nil, fmt.Errorf("%v: %d bytes of data, at most 255 are possible", c, len(c.Data))
	case c.Le < 0 || c.Le > 256:
		return nil, fmt.Errorf("%v: Le is %d, 0 to 256 are possible", c, c.Le)
	}
	b := append(make([]byte, 0, 6+len(c.Data)), c.CLA, c.INS, c.P1, c.P2)
	if len(c.Data) > 0 {
		b = append(b, byte(len(c.Data)))
		b = append(b, c.Data...)
	}
	if c.Le > 0 {
		b = append(b, byte(c.Le)) // 256 is 00
	}
	return b, nil
}

// String names the command without its data.
func (c Command) String() string {
	return fmt.Sprintf("%s (%02X%02X%02X%02X)", instruction(c.INS), c.CLA, c.INS, c.P1, c.P2)
}

// ErrCommand is matched by the errors of [ParseCommand].
var ErrCommand = errors.New("not a short command APDU")

// ParseCommand reads a command. Data is a part of b.
func ParseCommand(b []byte) (Command, error) {
	if len(b) < 4 {
		return Command{}, fmt.Errorf("%w: %d bytes", ErrCommand, len(b))
	}
	c := Command{CLA: b[0], INS: b[1], P1: b[2], P2: b[3]}
	switch body := b[4:]; {
	case len(body) == 0:
	case len(body) == 1:
		c.Le = length(body[0])
	case body[0] == 0:
		return Command{}, fmt.Errorf("%w: extended length, or Lc is 0", ErrCommand)
	case len(body) == 1+int(body[0]):
		c.Data = body[1:]
	case len(body) == 2+int(body[0]):
		c.Data = body[1 : len(body)-1]
		c.Le = length(body[len(body)-1])
	default:
		return Command{}, fmt.Errorf("%w: Lc is %d, %d bytes follow", ErrCommand, body[0], len(body)-1)
	}
	return c, nil
}

// length reads a length byte of which 00 means 256.
func length(b byte) int {
	if b == 0 {
		return 256
	}
	return int(b)
}

// Response is a response APDU.
type Response struct {
	Data []byte
	SW   SW
}

// ErrResponse says that what came is not a response: it has no status word.
// Readers that lost the card in the middle of an exchange give an empty answer
// without an error.
var ErrResponse error = &kind{"the answer has no status word", explainReader}

// ParseResponse cuts the status word off. Data is a part of b.
func ParseResponse(b []byte) (Response, error) {
	n := len(b) - 2
	if n < 0 {
		return Response{}, fmt.Errorf("response of %d bytes: %w", len(b), ErrResponse)
	}
	return Response{Data: b[:n:n], SW: SW(b[n])<<8 | SW(b[n+1])}, nil
}

// Marshal gives the bytes of the response.
func (r Response) Marshal() []byte {
	return append(append(make([]byte, 0, len(r.Data)+2), r.Data...), r.SW.SW1(), r.SW.SW2())
}

// Err gives a [StatusError] that names op, unless the status word is a success.
func (r Response) Err(op string) error {
	if r.SW.OK() {
		return nil
	}
	return &StatusError{SW: r.SW, Op: op}
}

// Class puts a logical channel, 0 to 19, into a class byte for channel 0: 00
// (interindustry) or 80 (GlobalPlatform). ETSI TS 102 221, section 10.1.1.
func Class(base byte, channel int) byte {
	if channel < 4 {
		return base&^0x03 | byte(channel)
	}
	return base&0xB0 | 0x40 | byte(channel-4)
}

// ChannelOf reads the logical channel out of a class byte.
func ChannelOf(cla byte) int {
	if cla&0x40 == 0 {
		return int(cla & 0x03)
	}
	return 4 + int(cla&0x0F)
}

// Instructions that this package sends, or names.
const (
	insManageChannel = 0x70
	insSelect        = 0xA4
	insGetResponse   = 0xC0
	insStoreData     = 0xE2
)

// instruction gives the name of an instruction as the specifications write it.
func instruction(ins byte) string {
	switch ins {
	case insManageChannel:
		return "MANAGE CHANNEL"
	case insSelect:
		return "SELECT"
	case insGetResponse:
		return "GET RESPONSE"
	case insStoreData:
		return "STORE DATA"
	case 0xAA:
		return "TERMINAL CAPABILITY"
	case 0x10:
		return "TERMINAL PROFILE"
	case 0x12:
		return "FETCH"
	case 0x14:
		return "TERMINAL RESPONSE"
	case 0x20:
		return "VERIFY PIN"
	case 0xB0:
		return "READ BINARY"
	case 0xB2:
		return "READ RECORD"
	case 0xF2:
		return "STATUS"
	}
	return fmt.Sprintf("instruction %02X", ins)
}
