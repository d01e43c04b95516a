package bsp

import (
	"cmp"
	"crypto/aes"
	"crypto/cipher"
	"crypto/subtle"
	"encoding/binary"
	"errors"
	"fmt"

	"lpad/apdu/ber"
)

// The segments of a bound profile package (SGP.22 v2.5, section 2.6.4).
const (
	Tag86 ber.Tag = 0x86 // profile elements: encrypted and authenticated
	Tag87 ber.Tag = 0x87 // ConfigureISDP, ReplaceSessionKeys: encrypted and authenticated
	Tag88 ber.Tag = 0x88 // StoreMetadata: authenticated
)

// Sizes, in bytes.
const (
	MaxSegment = 1020 // a whole segment: tag, length, data, MAC
	MACLength  = 8
	header     = 1 + 3 // tag and length field of a full segment, 82 xxxx
)

// What a receiver refuses a segment for; errorReason 8 and 7 of the
// ProfileInstallationResult.
var (
	ErrSecurity  = errors.New("MAC does not fit")
	ErrStructure = errors.New("malformed segment")
)

// MaxPlain is how many bytes of plain text fit into a segment of at most
// segmentSize bytes: 1007 (1008 for 88) of 1020. Encryption works in blocks of
// 16 and always adds at least one byte.
func MaxPlain(tag ber.Tag, segmentSize int) int {
	room := segmentSize - header - MACLength
	if tag == Tag88 {
		return room
	}
	return room/aes.BlockSize*aes.BlockSize - 1
}

// Session is the state of one direction of one package. For one goroutine.
type Session struct {
	// Longest is the longest segment that Unprotect takes, in bytes; 0:
	// MaxSegment.
	Longest int

	enc, mac cipher.Block
	mcv      [16]byte
	counter  uint64 // of the next segment; every segment counts, 88 too
}

// NewSession starts with these keys and counter 1.
func NewSession(k Keys) *Session {
	s := new(Session)
	s.ReplaceKeys(k)
	return s
}

// ReplaceKeys is what both sides do after ReplaceSessionKeys: new keys, new MAC
// chaining value, counter 1 (SGP.22 v2.5, section 5.5.4).
func (s *Session) ReplaceKeys(k Keys) {
	s.enc, s.mac = mustAES(k.ENC), mustAES(k.MAC)
	s.mcv, s.counter = k.MCV, 1
}

// mustAES cannot fail: the key has 16 bytes by its type.
func mustAES(key [16]byte) cipher.Block {
	block, err := aes.NewCipher(key[:])
	if err != nil {
		panic(err)
	}
	return block
}

// Protect makes the next segment: tag, length, data, MAC.
func (s *Session) Protect(tag ber.Tag, plain []byte) ([]byte, error) {
	data := plain
	switch tag {
	case Tag86, Tag87:
		data = pad(plain)
		cipher.NewCBCEncrypter(s.enc, s.iv()).CryptBlocks(data, data)
	case Tag88:
	default:
		return nil, fmt.Errorf("protect segment: tag %s", tag)
	}
	s.counter++
	// The MAC covers the length of the finished segment: encode with room for it.
	segment := ber.Encode(tag, data, make([]byte, MACLength))
	body := segment[:len(segment)-MACLength]
	s.mcv = cmac(s.mac, append(s.mcv[:], body...))
	copy(segment[len(body):], s.mcv[:])
	return segment, nil
}

// ProtectAll cuts data into as few segments as fit into segmentSize bytes each.
func (s *Session) ProtectAll(tag ber.Tag, data []byte, segmentSize int) ([][]byte, error) {
	size := MaxPlain(tag, segmentSize)
	if size < 1 {
		return nil, fmt.Errorf("protect segments: nothing fits into %d bytes", segmentSize)
	}
	var segments [][]byte
	for len(data) > 0 {
		n := min(size, len(data))
		segment, err := s.Protect(tag, data[:n])
		if err != nil {
			return nil, err
		}
		segments, data = append(segments, segment), data[n:]
	}
	return segments, nil
}

// Unprotect checks the next segment and returns its tag and plain text, in a
// fresh slice. After an error the session is of no more use.
func (s *Session) Unprotect(segment []byte) (ber.Tag, []byte, error) {
	t, err := ber.Parse(segment)
	switch {
	case err != nil:
		return 0, nil, fmt.Errorf("%w: %w", ErrStructure, err)
	case t.Tag != Tag86 && t.Tag != Tag87 && t.Tag != Tag88:
		return 0, nil, fmt.Errorf("%w: tag %s", ErrStructure, t.Tag)
	case len(segment) > cmp.Or(s.Longest, MaxSegment):
		return 0, nil, fmt.Errorf("%w: %d bytes, at most %d", ErrStructure, len(segment), cmp.Or(s.Longest, MaxSegment))
	case len(t.Value) < MACLength:
		return 0, nil, fmt.Errorf("%w: no room for the MAC", ErrStructure)
	}
	body, mac := segment[:len(segment)-MACLength], segment[len(segment)-MACLength:]
	next := cmac(s.mac, append(s.mcv[:], body...))
	if subtle.ConstantTimeCompare(next[:MACLength], mac) != 1 {
		return 0, nil, ErrSecurity
	}
	data := append([]byte(nil), t.Value[:len(t.Value)-MACLength]...)
	if t.Tag != Tag88 {
		if len(data) == 0 || len(data)%aes.BlockSize != 0 {
			return 0, nil, fmt.Errorf("%w: %d bytes of cipher text", ErrStructure, len(data))
		}
		cipher.NewCBCDecrypter(s.enc, s.iv()).CryptBlocks(data, data)
		if data, err = unpad(data); err != nil {
			return 0, nil, err
		}
	}
	s.mcv = next
	s.counter++
	return t.Tag, data, nil
}

// iv is the encrypted counter (SCP03, section 6.2.6).
func (s *Session) iv() []byte {
	iv := make([]byte, aes.BlockSize)
	binary.BigEndian.PutUint64(iv[8:], s.counter)
	s.enc.Encrypt(iv, iv)
	return iv
}

// pad returns a copy with 80 and zeros up to a whole block: one byte at least.
func pad(plain []byte) []byte {
	padded := make([]byte, (len(plain)/aes.BlockSize+1)*aes.BlockSize)
	copy(padded, plain)
	padded[len(plain)] = 0x80
	return padded
}

func unpad(b []byte) ([]byte, error) {
	end := len(b) - 1
	for end >= 0 && b[end] == 0 {
		end--
	}
	if end < len(b)-aes.BlockSize || end < 0 || b[end] != 0x80 {
		return nil, fmt.Errorf("%w: padding", ErrStructure)
	}
	return b[:end], nil
}
