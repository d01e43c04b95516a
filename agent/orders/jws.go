package orders

import (
	"crypto/ecdsa"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"math/big"
	"strings"

	"lpad/internal/fault"
)

// MaxSize bounds a signed order, in bytes.
const MaxSize = 16 << 10

// Limits of a header, in bytes, and what it must say.
const (
	maxHeader     = 1 << 10
	signatureSize = 64 // of ES256: r and s, 32 bytes each

	// Type is the header's typ: a token made for something else is no order.
	Type = "lpad-order+jwt"
	// SMDP is the kid of an order that the SM-DP+ of its download has signed.
	SMDP = "smdp"
)

// Codes of the faults of a signed order; package runner adds two.
const (
	CodeMalformed = "signed-order-malformed" // no compact JWS
	CodeAlgorithm = "signed-order-algorithm" // signed by another algorithm, or by none
	CodeHeader    = "signed-order-header"    // the header asks for what lpad does not do
	CodeKey       = "signed-order-key"       // no key of this name is known
	CodeSignature = "signed-order-signature" // the key did not sign this
	CodeInvalid   = "signed-order-invalid"   // signed, but what it says makes no sense
	CodeExpired   = "signed-order-expired"
	CodeEarly     = "signed-order-early"  // not valid yet, or from the future
	CodeDevice    = "signed-order-device" // meant for another device
)

const (
	nextSign = "sign the order again: a compact JWS by ES256, as docs/security.md has it"
	nextSend = "correct the order, give it a new serial and sign it again"
)

func refuse(code, text, next string, cause error) error {
	return fault.New(fault.Fault{Code: code, Text: text, Who: fault.Operator, Next: next}, cause)
}

// token is a JWS taken apart. Nothing of it is proven.
type token struct {
	signed    []byte // what the signature is over: header and payload as they came
	payload   []byte
	signature []byte
	kid       string
}

// parse takes a compact JWS apart, and refuses every header but the one.
func parse(jws []byte) (token, error) {
	var t token
	if len(jws) > MaxSize {
		return t, refuse(CodeMalformed, fmt.Sprintf("the signed order has more than %d bytes", MaxSize), nextSign, nil)
	}
	parts := strings.Split(string(jws), ".")
	if len(parts) != 3 {
		return t, refuse(CodeMalformed, "this is no signed order: it has not three parts with dots between them", nextSign, nil)
	}
	header, err := decode(parts[0])
	if err == nil && len(header) > maxHeader {
		err = fmt.Errorf("longer than %d bytes", maxHeader)
	}
	if err != nil {
		return t, refuse(CodeMalformed, "the header of the signed order cannot be read", nextSign, err)
	}
	if err := t.checkHeader(header); err != nil {
		return token{}, err
	}
	if t.payload, err = decode(parts[1]); err != nil {
		return token{}, refuse(CodeMalformed, "the payload of the signed order cannot be read", nextSign, err)
	}
	if t.signature, err = decode(parts[2]); err != nil {
		return token{}, refuse(CodeMalformed, "the signature of the signed order cannot be read", nextSign, err)
	}
	if n := len(t.signature); n != signatureSize {
		what := fmt.Sprintf("the signature has %d bytes, not %d", n, signatureSize)
		if n > 0 && t.signature[0] == 0x30 {
			what += ": it is in DER, and must be r and s, 32 bytes each"
		}
		return token{}, refuse(CodeSignature, what, nextSign, nil)
	}
	t.signed = jws[:len(parts[0])+1+len(parts[1])]
	return t, nil
}

// strict is base64url as a JWS has it: no padding, and no spare bits, which
// would let one signature fit two texts.
var strict = base64.RawURLEncoding.Strict()

func decode(part string) ([]byte, error) {
	if strings.ContainsAny(part, "\r\n") { // encoding/base64 would overlook them
		return nil, errors.New("a line break in base64url")
	}
	return strict.DecodeString(part)
}

func (t *token) checkHeader(text []byte) error {
	members, err := readObject(text)
	if err != nil {
		return refuse(CodeHeader, "the header of the signed order makes no sense", nextSign, err)
	}
	r := reader{members: members}
	alg, typ := r.text("alg"), r.text("typ")
	t.kid = r.text("kid")
	switch {
	case r.err != nil:
		return refuse(CodeHeader, "the header of the signed order makes no sense", nextSign, r.err)
	case alg != "ES256":
		return refuse(CodeAlgorithm, fmt.Sprintf("the order is signed by the algorithm %q, and only ES256 counts", short(alg)), nextSign, nil)
	case typ != Type:
		return refuse(CodeHeader, fmt.Sprintf("the header's typ is %q, not %q", short(typ), Type), nextSign, nil)
	}
	if name := r.unread(); name != "" {
		text := "the header has the member " + name + ", which lpad does not know"
		switch name {
		case "crit":
			text = "the header demands an extension (crit), and lpad has none"
		case "b64":
			text = "the header wants a payload that is not encoded (b64), which lpad does not take"
		}
		return refuse(CodeHeader, text, nextSign, nil)
	}
	if !validKID(t.kid) {
		return refuse(CodeHeader, fmt.Sprintf("the header's kid %q is no name of a key: letters, digits, dot, hyphen and underscore, at most %d", short(t.kid), maxKID), nextSign, nil)
	}
	return nil
}

// verify checks the signature.
func (t token) verify(key *ecdsa.PublicKey) error {
	digest := sha256.Sum256(t.signed)
	r, s := new(big.Int).SetBytes(t.signature[:signatureSize/2]), new(big.Int).SetBytes(t.signature[signatureSize/2:])
	if !ecdsa.Verify(key, digest[:], r, s) {
		return refuse(CodeSignature, "the signature does not fit: the order was not signed by the key "+t.kid+", or was changed since",
			"have the order sent again as it was signed; if it stays, compare the key on the device with the operator's", nil)
	}
	return nil
}

// short bounds a text of a stranger that is quoted.
func short(s string) string {
	const most = 64
	if len(s) > most {
		s = strings.ToValidUTF8(s[:most], "") + "…"
	}
	return s
}
