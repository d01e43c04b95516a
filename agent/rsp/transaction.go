package rsp

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"

	"lpad/apdu/ber"
	"lpad/internal/redact"
)

// TransactionID names an RSP session: 1 to 16 bytes of the server's choice.
// Real servers use 16, and 8.
type TransactionID []byte

const maxTransactionID = 16

// ParseTransactionID reads the hexadecimal text of ES9+, in either case.
func ParseTransactionID(s string) (TransactionID, error) {
	b, err := hex.DecodeString(strings.TrimSpace(s))
	if err != nil {
		return nil, fmt.Errorf("transactionId: %w", err)
	}
	if len(b) == 0 || len(b) > maxTransactionID {
		return nil, fmt.Errorf("transactionId of %d bytes, want 1 to %d", len(b), maxTransactionID)
	}
	return b, nil
}

// String returns upper-case hexadecimal.
func (t TransactionID) String() string { return strings.ToUpper(hex.EncodeToString(t)) }

// Equal compares byte for byte; an absent id equals nothing.
func (t TransactionID) Equal(o TransactionID) bool { return len(t) > 0 && bytes.Equal(t, o) }

// MarshalText returns upper-case hexadecimal.
func (t TransactionID) MarshalText() ([]byte, error) { return []byte(t.String()), nil }

// UnmarshalText is [ParseTransactionID]; the empty text is no id.
func (t *TransactionID) UnmarshalText(b []byte) (err error) {
	if len(b) == 0 {
		*t = nil
		return nil
	}
	*t, err = ParseTransactionID(string(b))
	return err
}

// ServerAuthentication is what a server proves itself with (answer of
// initiateAuthentication, SGP.22 v2.5 section 5.6.1). Every field but the
// first is a whole TLV as it came, and goes to the card as it is.
type ServerAuthentication struct {
	TransactionID     TransactionID
	ServerSigned1     []byte // 30
	ServerSignature1  []byte // 5F37
	CIPKID            []byte // 04: euiccCiPKIdToBeUsed
	ServerCertificate []byte // 30: CERT.DPauth or CERT.DSauth
}

// ServerSigned1 is what a server signs to prove itself (SGP.22 v2.5, section
// 5.7.13).
type ServerSigned1 struct {
	TransactionID TransactionID
	Challenge     []byte // of the eUICC, sent back
	Address       string // of the server, as signed: not safe for display
}

// Signed1 reads ServerSigned1.
func (s ServerAuthentication) Signed1() (ServerSigned1, error) {
	t, err := ber.Parse(s.ServerSigned1)
	if err != nil {
		return ServerSigned1{}, fmt.Errorf("serverSigned1: %w", err)
	}
	r := t.Reader()
	id, challenge := r.Read(0x80), r.Read(0x81)
	address, ok := r.Find(0x83) // there is no 82
	if err := r.Err(); err != nil {
		return ServerSigned1{}, fmt.Errorf("serverSigned1: %w", err)
	}
	if !ok {
		return ServerSigned1{}, errors.New("serverSigned1: no serverAddress")
	}
	return ServerSigned1{id.Value, challenge.Value, string(address.Value)}, nil
}

// CI returns the subject key identifier of the CI under which the server
// wants the eUICC's certificate.
func (s ServerAuthentication) CI() ([]byte, error) {
	t, err := ber.Parse(s.CIPKID)
	if err != nil {
		return nil, fmt.Errorf("euiccCiPKIdToBeUsed: %w", err)
	}
	return t.Value, nil
}

// DownloadOffer is what an SM-DP+ offers after it knows the eUICC (answer of
// authenticateClient, SGP.22 v2.5 section 5.6.3). Every field but the first is
// a whole TLV as it came.
type DownloadOffer struct {
	TransactionID   TransactionID
	ProfileMetadata []byte // BF25
	SMDPSigned2     []byte // 30
	SMDPSignature2  []byte // 5F37
	SMDPCertificate []byte // 30: CERT.DPpb
}

// SMDPSigned2 is what an SM-DP+ signs with its offer (SGP.22 v2.5, section
// 5.7.5).
type SMDPSigned2 struct {
	TransactionID            TransactionID
	ConfirmationCodeRequired bool
}

// Signed2 reads SMDPSigned2.
func (o DownloadOffer) Signed2() (SMDPSigned2, error) {
	t, err := ber.Parse(o.SMDPSigned2)
	if err != nil {
		return SMDPSigned2{}, fmt.Errorf("smdpSigned2: %w", err)
	}
	r := t.Reader()
	id := r.Read(0x80)
	flag, ok := r.Find(0x01)
	if err := r.Err(); err != nil {
		return SMDPSigned2{}, fmt.Errorf("smdpSigned2: %w", err)
	}
	if !ok {
		return SMDPSigned2{}, errors.New("smdpSigned2: no ccRequiredFlag")
	}
	required, err := flag.Bool()
	if err != nil {
		return SMDPSigned2{}, fmt.Errorf("smdpSigned2: ccRequiredFlag: %w", err)
	}
	return SMDPSigned2{id.Value, required}, nil
}

// EventEntry is a pending event of an SM-DS: fetch EventID, as a matching id,
// from RSPServerAddress (SGP.22 v2.5, section 5.8.2).
type EventEntry struct{ EventID, RSPServerAddress string }

// String hides the event id, which is as good as a matching id.
func (e EventEntry) String() string { return redact.Mask + "@" + e.RSPServerAddress }

// ClientAuthenticated is the answer of authenticateClient: an offer of an
// SM-DP+, or the events of an SM-DS. Exactly one of them is set; an SM-DS
// without events has a non-nil empty list.
type ClientAuthenticated struct {
	Offer  *DownloadOffer
	Events []EventEntry
}
