package bsp

import (
	"crypto/aes"
	"crypto/cipher"
)

// CMAC is AES-CMAC (RFC 4493) with a key of 16, 24 or 32 bytes. The error is
// about the length of the key only.
func CMAC(key, message []byte) ([16]byte, error) {
	block, err := aes.NewCipher(key)
	if err != nil {
		return [16]byte{}, err
	}
	return cmac(block, message), nil
}

func cmac(block cipher.Block, message []byte) (mac [16]byte) {
	var subkey [16]byte
	block.Encrypt(subkey[:], subkey[:])
	double(&subkey) // K1, for a message of whole blocks
	var last [16]byte
	whole := max(0, (len(message)-1)/16) * 16 // all before the last block
	n := copy(last[:], message[whole:])
	if n < 16 {
		last[n] = 0x80
		double(&subkey) // K2
	}
	for i := 0; i < whole; i += 16 {
		xor(&mac, message[i:i+16])
		block.Encrypt(mac[:], mac[:])
	}
	xor(&mac, last[:])
	xor(&mac, subkey[:])
	block.Encrypt(mac[:], mac[:])
	return mac
}

// double multiplies by x in GF(2^128), RFC 4493, section 2.3.
func double(b *[16]byte) {
	carry := b[0] >> 7
	for i := range 15 {
		b[i] = b[i]<<1 | b[i+1]>>7
	}
	b[15] = b[15]<<1 ^ carry*0x87
}

func xor(dst *[16]byte, src []byte) {
	for i := range dst {
		dst[i] ^= src[i]
	}
}
