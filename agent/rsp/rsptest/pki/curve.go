package pki

import (
	"crypto/elliptic"
	"fmt"
	"math/big"

	"github.com/ProtonMail/go-crypto/brainpool"
)

// Curve is one of the two curves of SGP.22 v2.
type Curve int

// The curves of SGP.22 v2.5, section 2.6.7.
const (
	P256            Curve = iota // NIST P-256, secp256r1
	BrainpoolP256r1              // RFC 5639
)

const (
	fieldSize = 32              // bytes of a coordinate and of a scalar on both curves
	pointSize = 1 + 2*fieldSize // uncompressed point: 04 X Y
)

// Object identifiers of the curves.
const (
	oidP256      = "1.2.840.10045.3.1.7"
	oidBrainpool = "1.3.36.3.3.2.8.1.1.7"
)

// String is the name of the curve.
func (c Curve) String() string {
	switch c {
	case P256:
		return "P-256"
	case BrainpoolP256r1:
		return "brainpoolP256r1"
	}
	return fmt.Sprintf("Curve(%d)", int(c))
}

// OID is the dotted object identifier of the curve.
func (c Curve) OID() string {
	if c == BrainpoolP256r1 {
		return oidBrainpool
	}
	return oidP256
}

func curveByOID(oid string) (Curve, bool) {
	switch oid {
	case oidP256:
		return P256, true
	case oidBrainpool:
		return BrainpoolP256r1, true
	}
	return 0, false
}

// arithmetic is what ECDSA and ECDH need of a group. crypto/ecdsa and
// crypto/ecdh know no brainpool curve, so both curves go through this one door.
type arithmetic interface {
	Params() *elliptic.CurveParams
	IsOnCurve(x, y *big.Int) bool
	Add(x1, y1, x2, y2 *big.Int) (x, y *big.Int)
	ScalarMult(x1, y1 *big.Int, k []byte) (x, y *big.Int)
	ScalarBaseMult(k []byte) (x, y *big.Int)
}

func (c Curve) arithmetic() arithmetic {
	if c == BrainpoolP256r1 {
		return brainpool.P256r1()
	}
	return elliptic.P256()
}

// point decodes an uncompressed point and checks that it lies on the curve.
func (c Curve) point(b []byte) (x, y *big.Int, err error) {
	if len(b) != pointSize || b[0] != 4 {
		return nil, nil, fmt.Errorf("%s point: want %d bytes beginning with 04, got %d bytes", c, pointSize, len(b))
	}
	a := c.arithmetic()
	x, y = new(big.Int).SetBytes(b[1:1+fieldSize]), new(big.Int).SetBytes(b[1+fieldSize:])
	p := a.Params().P
	if x.Cmp(p) >= 0 || y.Cmp(p) >= 0 || !a.IsOnCurve(x, y) {
		return nil, nil, fmt.Errorf("%s point: not on the curve", c)
	}
	return x, y, nil
}

func encodePoint(x, y *big.Int) []byte {
	b := make([]byte, pointSize)
	b[0] = 4
	x.FillBytes(b[1 : 1+fieldSize])
	y.FillBytes(b[1+fieldSize:])
	return b
}
