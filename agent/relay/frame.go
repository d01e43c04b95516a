package relay

import (
	"encoding/binary"
	"errors"
	"io"
)

// kind is what a frame is for; the numbers are in the comment of the package.
type kind byte

const (
	kindOpen kind = 1 + iota
	kindOpened
	kindFailed
	kindData
	kindEnd
	kindReset
	kindCredit
	kindPing
	kindPong
)

const headerSize = 7

// payloads are the bounds of a payload by the kind of its frame.
var payloads = [...]struct{ least, most int }{
	kindOpen:   {1, maxAddress},
	kindOpened: {0, 0},
	kindFailed: {1, 1 + maxText},
	kindData:   {1, maxPayload},
	kindEnd:    {0, 0},
	kindReset:  {0, 0},
	kindCredit: {4, 4},
	kindPing:   {0, 0},
	kindPong:   {0, 0},
}

// errViolation is a frame that makes no sense.
var errViolation = errors.New("the other end does not keep to the protocol")

// frame is one. Its payload is valid until the next is read.
type frame struct {
	kind    kind
	stream  uint32
	payload []byte
}

// appendFrame appends the bytes of a frame.
func appendFrame(b []byte, f frame) []byte {
	b = append(b, byte(f.kind))
	b = binary.BigEndian.AppendUint32(b, f.stream)
	b = binary.BigEndian.AppendUint16(b, uint16(len(f.payload)))
	return append(b, f.payload...)
}

// readFrame reads one frame into buf, which has room for the longest.
func readFrame(r io.Reader, buf []byte) (frame, error) {
	head := buf[:headerSize]
	if _, err := io.ReadFull(r, head); err != nil {
		return frame{}, err
	}
	f := frame{kind: kind(head[0]), stream: binary.BigEndian.Uint32(head[1:])}
	n := int(binary.BigEndian.Uint16(head[5:]))
	if f.kind < kindOpen || f.kind > kindPong || n < payloads[f.kind].least || n > payloads[f.kind].most || (f.kind >= kindPing) != (f.stream == 0) {
		return frame{}, errViolation
	}
	f.payload = buf[headerSize : headerSize+n]
	_, err := io.ReadFull(r, f.payload)
	if errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	return f, err
}
