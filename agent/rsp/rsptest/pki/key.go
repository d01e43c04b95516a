package pki

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/big"

	"lpad/apdu/ber"
)

// SignatureSize is the length in bytes of a signature: r and s of 32 bytes each
// (SGP.22 v2.5, section 2.6.7; the value of a 5F37).
const SignatureSize = 2 * fieldSize

// Key is a private key. It is immutable and safe for concurrent use.
type Key struct {
	curve  Curve
	scalar *big.Int
	public []byte
}

// GenerateKey makes a random key.
func GenerateKey(c Curve) (*Key, error) { return generateKey(c, rand.Reader) }

func generateKey(c Curve, random io.Reader) (*Key, error) {
	var b [fieldSize]byte
	for range 64 { // each try fails with probability below one half
		if _, err := io.ReadFull(random, b[:]); err != nil {
			return nil, fmt.Errorf("generate %s key: %w", c, err)
		}
		if k, err := NewKey(c, b[:]); err == nil {
			return k, nil
		}
	}
	return nil, fmt.Errorf("generate %s key: no usable scalar from the random source", c)
}

// NewKey makes the key with this private scalar: 32 bytes, big-endian, in
// [1, n-1].
func NewKey(c Curve, scalar []byte) (*Key, error) {
	a := c.arithmetic()
	d := new(big.Int).SetBytes(scalar)
	if len(scalar) != fieldSize || d.Sign() == 0 || d.Cmp(a.Params().N) >= 0 {
		return nil, fmt.Errorf("%s key: scalar out of range", c)
	}
	x, y := a.ScalarBaseMult(scalar)
	return &Key{c, d, encodePoint(x, y)}, nil
}

// Curve is the curve of the key.
func (k *Key) Curve() Curve { return k.curve }

// Public is the uncompressed public point, 65 bytes, in a fresh slice.
func (k *Key) Public() []byte { return append([]byte(nil), k.public...) }

// Scalar is the private scalar, 32 bytes.
func (k *Key) Scalar() []byte { return k.scalar.FillBytes(make([]byte, fieldSize)) }

// ECDH is the shared secret with a peer's uncompressed point: the x coordinate,
// 32 bytes (BSI TR-03111 ECKA-EG). It fails when the point is not on the curve
// of the key.
func (k *Key) ECDH(peer []byte) ([]byte, error) {
	x, y, err := k.curve.point(peer)
	if err != nil {
		return nil, fmt.Errorf("key agreement: %w", err)
	}
	// Both groups have prime order and k is not 0 mod n: never the point at infinity.
	z, _ := k.curve.arithmetic().ScalarMult(x, y, k.Scalar())
	return z.FillBytes(make([]byte, fieldSize)), nil
}

// Sign is the ECDSA signature with SHA-256 over msg as r||s, 64 bytes, made
// deterministically by RFC 6979.
func (k *Key) Sign(msg []byte) []byte {
	a := k.curve.arithmetic()
	n := a.Params().N
	digest := sha256.Sum256(msg)
	e := new(big.Int).SetBytes(digest[:])
	next := rfc6979(n, k.scalar, e)
	for {
		nonce := next()
		x, _ := a.ScalarBaseMult(nonce.FillBytes(make([]byte, fieldSize)))
		r := x.Mod(x, n)
		s := new(big.Int).Mul(r, k.scalar)
		s.Add(s, e).Mul(s, new(big.Int).ModInverse(nonce, n)).Mod(s, n)
		if r.Sign() == 0 || s.Sign() == 0 {
			continue
		}
		sig := make([]byte, SignatureSize)
		r.FillBytes(sig[:fieldSize])
		s.FillBytes(sig[fieldSize:])
		return sig
	}
}

// rfc6979 returns the generator of candidate nonces of RFC 6979, section 3.2,
// for HMAC-SHA-256 and a group order of 256 bits (so that bits2int is plain
// big-endian reading and bits2octets one reduction).
func rfc6979(n, d, e *big.Int) func() *big.Int {
	mac := func(key []byte, parts ...[]byte) []byte {
		h := hmac.New(sha256.New, key)
		for _, p := range parts {
			h.Write(p)
		}
		return h.Sum(nil)
	}
	x := d.FillBytes(make([]byte, fieldSize))
	h := new(big.Int).Mod(e, n).FillBytes(make([]byte, fieldSize))
	v, k := make([]byte, sha256.Size), make([]byte, sha256.Size)
	for i := range v {
		v[i] = 1
	}
	k = mac(k, v, []byte{0}, x, h)
	v = mac(k, v)
	k = mac(k, v, []byte{1}, x, h)
	v = mac(k, v)
	return func() *big.Int {
		for {
			v = mac(k, v)
			nonce := new(big.Int).SetBytes(v)
			k = mac(k, v, []byte{0}) // for the next candidate, if this one is refused
			v = mac(k, v)
			if nonce.Sign() > 0 && nonce.Cmp(n) < 0 {
				return nonce
			}
		}
	}
}

// Verify reports whether sig (r||s, 64 bytes) is a signature with SHA-256 over
// msg by the uncompressed public point.
func Verify(c Curve, public, msg, sig []byte) bool {
	qx, qy, err := c.point(public)
	if err != nil || len(sig) != SignatureSize {
		return false
	}
	a := c.arithmetic()
	n := a.Params().N
	r, s := new(big.Int).SetBytes(sig[:fieldSize]), new(big.Int).SetBytes(sig[fieldSize:])
	if r.Sign() == 0 || s.Sign() == 0 || r.Cmp(n) >= 0 || s.Cmp(n) >= 0 {
		return false
	}
	digest := sha256.Sum256(msg)
	w := new(big.Int).ModInverse(s, n)
	u1 := new(big.Int).SetBytes(digest[:])
	u1.Mul(u1, w).Mod(u1, n)
	u2 := new(big.Int).Mul(r, w)
	u2.Mod(u2, n)
	x, y := a.ScalarMult(qx, qy, u2.FillBytes(make([]byte, fieldSize)))
	if u1.Sign() != 0 {
		gx, gy := a.ScalarBaseMult(u1.FillBytes(make([]byte, fieldSize)))
		x, y = a.Add(gx, gy, x, y)
	}
	if x.Sign() == 0 && y.Sign() == 0 {
		return false
	}
	return x.Mod(x, n).Cmp(r) == 0
}

// Signer is the key for crypto/tls and crypto/x509, which know P-256 only.
func (k *Key) Signer() (crypto.Signer, error) {
	if k.curve != P256 {
		return nil, fmt.Errorf("signer: crypto/ecdsa has no %s", k.curve)
	}
	return ecdsa.ParseRawPrivateKey(elliptic.P256(), k.Scalar())
}

// PEM is the key as an "EC PRIVATE KEY" block (RFC 5915).
func (k *Key) PEM() []byte {
	der := ber.Encode(tagSequence,
		ber.EncodeInt(tagInteger, 1),
		ber.Encode(tagOctetString, k.Scalar()),
		ber.Encode(0xA0, encodeOID(k.curve.OID())),
		ber.Encode(0xA1, ber.Encode(tagBitString, []byte{0}, k.public)))
	return pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: der})
}

// ParseKey reads the first private key of a PEM file: "EC PRIVATE KEY" (RFC
// 5915) or "PRIVATE KEY" (PKCS #8), on either curve.
func ParseKey(file []byte) (*Key, error) {
	for {
		var block *pem.Block
		block, file = pem.Decode(file)
		if block == nil {
			return nil, errors.New("private key: no PEM block with one")
		}
		switch block.Type {
		case "EC PRIVATE KEY":
			return parseECPrivateKey(block.Bytes, "")
		case "PRIVATE KEY":
			return parsePKCS8(block.Bytes)
		}
	}
}

func parsePKCS8(der []byte) (*Key, error) {
	outer, err := ber.Parse(der)
	if err != nil {
		return nil, fmt.Errorf("private key: %w", err)
	}
	r := outer.Reader()
	r.Read(tagInteger)
	algorithm := r.Read(tagSequence).Reader()
	algorithm.Read(tagOID)
	curve := algorithm.Read(tagOID)
	key := r.Read(tagOctetString)
	if err := errors.Join(r.Err(), algorithm.Err()); err != nil {
		return nil, fmt.Errorf("private key: %w", err)
	}
	return parseECPrivateKey(key.Value, decodeOID(curve.Value))
}

func parseECPrivateKey(der []byte, curveOID string) (*Key, error) {
	outer, err := ber.Parse(der)
	if err != nil {
		return nil, fmt.Errorf("private key: %w", err)
	}
	r := outer.Reader()
	r.Read(tagInteger)
	scalar := r.Read(tagOctetString).Value
	if params, ok := r.Optional(0xA0); ok {
		curveOID = decodeOID(params.Reader().Read(tagOID).Value)
	}
	if err := r.Err(); err != nil {
		return nil, fmt.Errorf("private key: %w", err)
	}
	c, ok := curveByOID(curveOID)
	if !ok || len(scalar) > fieldSize {
		return nil, fmt.Errorf("private key: unknown curve %q", curveOID)
	}
	padded := make([]byte, fieldSize)
	copy(padded[fieldSize-len(scalar):], scalar)
	return NewKey(c, padded)
}
