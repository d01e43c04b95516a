// Package orderstest signs orders, for tests and for the lab's operator. It uses
// nothing of package orders: a mistake in one would hide in the other.
//
//	jws, err := orderstest.Sign(key, "operator", orderstest.Payload{Issuer: "operator", Serial: 1, …})
//
// What a hostile sender would write is made with [SignRaw], which signs any
// header and payload as they are given.
package orderstest

import (
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
)

// Payload is what an order says; see package orders for what it means. Times
// are seconds since 1970.
type Payload struct {
	Issuer         string          `json:"iss"`
	Serial         int64           `json:"serial"`
	IssuedAt       int64           `json:"iat"`
	NotBefore      int64           `json:"nbf,omitempty"`
	Expires        int64           `json:"exp"`
	EID            string          `json:"eid,omitempty"`
	IMEI           string          `json:"imei,omitempty"`
	TAC            string          `json:"tac,omitempty"`
	Model          string          `json:"model,omitempty"`
	Action         string          `json:"action"`
	ActivationCode string          `json:"activationCode,omitempty"`
	MatchingID     string          `json:"matchingId,omitempty"`
	ICCID          string          `json:"iccid,omitempty"`
	Enable         string          `json:"enable,omitempty"` // "now", "on-command" or a time (RFC 3339)
	DeleteOld      bool            `json:"deleteOld,omitempty"`
	Parameters     json.RawMessage `json:"parameters,omitempty"`
	ReportTo       string          `json:"reportTo,omitempty"`
}

// Sign makes a signed order: a compact JWS of the payload's JSON by ES256. key
// must be for P-256.
func Sign(key *ecdsa.PrivateKey, kid string, payload any) ([]byte, error) {
	header, err := json.Marshal(map[string]string{"alg": "ES256", "typ": "lpad-order+jwt", "kid": kid})
	if err != nil {
		return nil, fmt.Errorf("header of an order: %w", err)
	}
	body, err := json.Marshal(payload)
	if err != nil {
		return nil, fmt.Errorf("payload of an order: %w", err)
	}
	return SignRaw(key, header, body)
}

// SignRaw signs a header and a payload as they are, whatever they say.
func SignRaw(key *ecdsa.PrivateKey, header, payload []byte) ([]byte, error) {
	text := base64.RawURLEncoding.EncodeToString(header) + "." + base64.RawURLEncoding.EncodeToString(payload)
	digest := sha256.Sum256([]byte(text))
	r, s, err := ecdsa.Sign(rand.Reader, key, digest[:])
	if err != nil {
		return nil, fmt.Errorf("sign an order: %w", err)
	}
	size := (key.Curve.Params().BitSize + 7) / 8
	signature := make([]byte, 2*size)
	r.FillBytes(signature[:size])
	s.FillBytes(signature[size:])
	return []byte(text + "." + base64.RawURLEncoding.EncodeToString(signature)), nil
}

// PublicPEM is the file of a key for the folder of orders.keys_dir.
func PublicPEM(key *ecdsa.PrivateKey) ([]byte, error) {
	der, err := x509.MarshalPKIXPublicKey(&key.PublicKey)
	if err != nil {
		return nil, fmt.Errorf("public key: %w", err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}), nil
}
