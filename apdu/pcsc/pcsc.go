// Package pcsc talks to a card in a PC/SC reader, through a helper program.
//
//	card, err := pcsc.Open(ctx, pcsc.Config{Reader: "Gemalto"})
//	if err != nil {
//		return err
//	}
//	defer card.Close()
//	ch, err := card.OpenChannel(ctx, aid)
//
// # Why a helper
//
// PC/SC is reached by cgo over libpcsclite. There a call that waits for a card
// cannot be cancelled and has no time-out, and while it waits it blocks every
// other PC/SC call of the process. So those calls are made by the program
// lpad-pcsc (cmd/lpad-pcsc), which this package starts, watches, kills and
// starts again. Our own process stays free of cgo.
//
// Every request has a deadline: the one of ctx, and one by the kind of request
// ([Config.Timeout]). When it passes, the helper and its process group are
// killed and the call returns a [StuckError]. The next use starts a new helper.
// While the driver still waits for the card, that gives a StuckError too, and
// nothing but the reader is lost.
//
// When the connection is lost (helper killed or crashed, card pulled or reset
// by somebody else, pcscd restarted), channels that were open are dead: they
// give apdu.ErrBroken and apdu.ErrChannelClosed. [Card.OpenChannel] connects
// anew, and waits some seconds for reader and card to come back.
//
// # Which reader
//
// The first whose name and card fit ([Config]), whose card nobody else uses, and
// that is no security token ([IsToken]), unless it is asked for by name or ATR.
// A reader that another program holds, or whose card is mute, is skipped when
// there is another that fits. Once chosen, it stays the one: if it is lost, the
// others are looked at after a minute.
//
// # Errors
//
// [HelperError]: the helper is missing, does not work, or crashed. [StuckError]:
// no answer in time. [ServiceError]: PC/SC says no, with its code; it matches
// [ErrNoService], [ErrNoReader], [ErrNoCard] or [ErrReaderInUse]. All of them
// explain themselves to package fault.
//
// # The protocol between the two, version 1
//
// Frames go over the helper's standard input and output. A frame is a length in
// four bytes, big-endian, of what follows (at most [MaxFrame] bytes, at least 1),
// then one byte that says what it is, then fields. A field is
//
//	byte    one byte
//	u32     four bytes, big-endian
//	bytes   a length in four bytes, big-endian, and that many bytes
//	text    as bytes, in UTF-8
//
// The helper begins, once, with
//
//	01 hello       byte version, text program
//
// Then the client sends requests, one at a time, and the helper answers each:
//
//	10 list                                   90: for each reader: text name, byte state, bytes ATR
//	11 connect     byte exclusive, text name  91: byte protocol (0: T=0, 1: T=1), bytes ATR
//	12 transmit    bytes APDU                 92: bytes response, two bytes or more
//	13 reset       byte kind                  93: byte protocol, bytes ATR
//	14 status                                 94: byte state, byte protocol, bytes ATR
//	15 disconnect  byte kind                  95: nothing
//	any                                       FF: u32 code, text in English
//
// State is a set of bits: 01 a card is there, 02 in use by somebody, 04 the
// card is mute. Kind is what happens to the card: 00 nothing, 01 reset, 02
// power off and on. Code is that of PC/SC (pcsclite.h), or 0 for a request that
// the helper does not understand.
//
// From connect to disconnect the helper holds a PC/SC transaction, so that no
// other program gets between two commands. Connect while connected disconnects
// first. Reset is a reconnection and also what repairs a connection after
// somebody else has reset the card.
//
// The helper exits when its standard input ends, even in the middle of a call:
// with status 0; 2 after a frame it cannot read; 3 at once if it was built
// without PC/SC.
package pcsc

import "encoding/binary"

// Limits and version of the protocol.
const (
	Version  = 1
	MaxFrame = 70_000 // bytes; the longest response APDU that PC/SC can give has 65 546
)

// What a frame is.
const (
	Hello      = 0x01
	List       = 0x10
	Connect    = 0x11
	Transmit   = 0x12
	Reset      = 0x13
	Status     = 0x14
	Disconnect = 0x15
	Answer     = 0x80 // added to the request
	Failure    = 0xFF
)

// States of a reader.
const (
	CardPresent = 0x01
	InUse       = 0x02
	Mute        = 0x04
)

// What happens to the card on reset and disconnect.
const (
	LeaveCard = 0x00
	ResetCard = 0x01
	PowerCard = 0x02
)

// ExitNotBuilt is the exit status of a helper that was built without PC/SC.
const ExitNotBuilt = 3

// Begin starts a frame; fields are appended and [Finish] completes it.
func Begin(kind byte) []byte { return []byte{0, 0, 0, 0, kind} }

// AppendBytes appends a field of bytes, or a text.
func AppendBytes[T []byte | string](frame []byte, field T) []byte {
	frame = binary.BigEndian.AppendUint32(frame, uint32(len(field)))
	return append(frame, field...)
}

// Finish writes the length of a frame into it.
func Finish(frame []byte) []byte {
	binary.BigEndian.PutUint32(frame, uint32(len(frame)-4))
	return frame
}

// Fields reads the fields of a frame. After a field that is not there all are
// empty, and [Fields.OK] is false.
type Fields struct {
	rest []byte
	bad  bool
}

// NewFields reads what follows the kind of a frame.
func NewFields(b []byte) *Fields { return &Fields{rest: b} }

func (f *Fields) take(n uint32) []byte {
	if f.bad || uint64(n) > uint64(len(f.rest)) {
		f.bad = true
		return nil
	}
	b := f.rest[:n:n]
	f.rest = f.rest[n:]
	return b
}

// Byte reads a byte.
func (f *Fields) Byte() byte {
	if b := f.take(1); b != nil {
		return b[0]
	}
	return 0
}

// U32 reads four bytes, big-endian.
func (f *Fields) U32() uint32 {
	if b := f.take(4); b != nil {
		return binary.BigEndian.Uint32(b)
	}
	return 0
}

// Bytes reads a field of bytes; it is a part of the frame.
func (f *Fields) Bytes() []byte { return f.take(f.U32()) }

// Text reads a field of bytes as text.
func (f *Fields) Text() string { return string(f.Bytes()) }

// Empty says whether all was read, or nothing more can be.
func (f *Fields) Empty() bool { return f.bad || len(f.rest) == 0 }

// OK says whether all fields were there, and no more than those.
func (f *Fields) OK() bool { return !f.bad && len(f.rest) == 0 }
