package rsp

import (
	"crypto/sha256"

	"lpad/internal/redact"
)

// HashConfirmationCode binds a confirmation code to a session, so that the
// server learns only whether it was right: SHA-256 over the SHA-256 of the
// code and the binary transactionId (SGP.22 v2.5, section 5.7.5).
func HashConfirmationCode(code redact.Secret, id TransactionID) []byte {
	inner := sha256.Sum256([]byte(code.Reveal()))
	outer := sha256.Sum256(append(inner[:], id...))
	return outer[:]
}
