package bsp

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"

	"lpad/agent/rsp"
	"lpad/apdu/ber"
)

// What a CRT says about the keys (SGP.22 v2.5, section 5.5.1): AES of 16 bytes.
const (
	KeyTypeAES = 0x88
	KeyLength  = 0x10
)

// Keys are those of a session.
type Keys struct {
	MCV [16]byte // initial MAC chaining value
	ENC [16]byte // S-ENC, or PPK-ENC
	MAC [16]byte // S-MAC, or PPK-CMAC
}

// KDF is the key derivation of ANSI X9.63 with SHA-256: length bytes from the
// shared secret z.
func KDF(z, sharedInfo []byte, length int) []byte {
	var out []byte
	for counter := uint32(1); len(out) < length; counter++ {
		h := sha256.New()
		h.Write(z)
		h.Write(binary.BigEndian.AppendUint32(nil, counter))
		h.Write(sharedInfo)
		out = h.Sum(out)
	}
	return out[:length]
}

// DeriveKeys makes the keys of a session from the shared secret z (32 bytes),
// the host id of the SM-DP+ (1 to 16 bytes) and the EID of the eUICC
// (SGP.22 v2.5, section 2.6.4.2; the order of the output in annex G).
func DeriveKeys(z, hostID []byte, eid rsp.EID) Keys {
	info := []byte{KeyTypeAES, KeyLength, byte(len(hostID))}
	info = append(info, hostID...)
	info = append(info, byte(len(eid)))
	info = append(info, eid[:]...)
	out := KDF(z, info, 48)
	var k Keys
	copy(k.MCV[:], out)
	copy(k.ENC[:], out[16:])
	copy(k.MAC[:], out[32:])
	return k
}

// Marshal is the command ReplaceSessionKeys, BF26 (SGP.22 v2.5, section
// 5.5.4).
func (k Keys) Marshal() []byte {
	return ber.Encode(0xBF26, ber.Encode(0x80, k.MCV[:]), ber.Encode(0x81, k.ENC[:]), ber.Encode(0x82, k.MAC[:]))
}

// ParseKeys reads a ReplaceSessionKeys command.
func ParseKeys(command []byte) (Keys, error) {
	var k Keys
	t, err := ber.Parse(command)
	if err != nil {
		return k, fmt.Errorf("ReplaceSessionKeys: %w", err)
	}
	if t.Tag != 0xBF26 {
		return k, fmt.Errorf("ReplaceSessionKeys: tag %s", t.Tag)
	}
	r := t.Reader()
	parts := [3]ber.TLV{r.Read(0x80), r.Read(0x81), r.Read(0x82)}
	if err := r.Finish(); err != nil {
		return k, fmt.Errorf("ReplaceSessionKeys: %w", err)
	}
	for i, into := range [3][]byte{k.MCV[:], k.ENC[:], k.MAC[:]} {
		if len(parts[i].Value) != len(into) {
			return k, errors.New("ReplaceSessionKeys: key of another length than 16")
		}
		copy(into, parts[i].Value)
	}
	return k, nil
}
