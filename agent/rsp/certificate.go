package rsp

import (
	"bytes"
	"errors"
	"fmt"

	"lpad/apdu/ber"
)

// oidSubjectAltName is that of the X.509 extension, as contents of an OBJECT IDENTIFIER.
var oidSubjectAltName = []byte{0x55, 0x1D, 0x11}

// CertificateOID returns the registeredID in the subjectAltName of an X.509
// certificate: the OID of an SM-DP+ or SM-DS. It verifies nothing (the card
// does) and works with every curve, which crypto/x509 does not.
func CertificateOID(der []byte) (string, error) {
	value, err := certificateExtension(der, oidSubjectAltName)
	if err != nil {
		return "", err
	}
	names, err := ber.Parse(value)
	if err != nil {
		return "", fmt.Errorf("certificate: subjectAltName: %w", err)
	}
	r := names.Reader()
	id, ok := r.Find(0x88)
	if err := r.Err(); err != nil {
		return "", fmt.Errorf("certificate: subjectAltName: %w", err)
	}
	if !ok {
		return "", errors.New("certificate: no registeredID")
	}
	oid, err := ParseOID(id.Value)
	if err != nil {
		return "", fmt.Errorf("certificate: registeredID: %w", err)
	}
	return oid, nil
}

// certificateExtension walks to the value of one extension (RFC 5280, 4.1).
func certificateExtension(der, oid []byte) ([]byte, error) {
	cert, err := ber.Parse(der)
	if err != nil {
		return nil, fmt.Errorf("certificate: %w", err)
	}
	if cert.Tag != 0x30 {
		return nil, fmt.Errorf("certificate: tag %X, want 30", uint32(cert.Tag))
	}
	outer := cert.Reader()
	tbs := outer.Read(0x30).Reader()
	wrapper, ok := tbs.Find(0xA3)
	if err := errors.Join(outer.Err(), tbs.Err()); err != nil {
		return nil, fmt.Errorf("certificate: %w", err)
	}
	if !ok {
		return nil, errors.New("certificate: no extensions")
	}
	w := wrapper.Reader()
	list := w.Read(0x30).Reader()
	for !list.Empty() && list.Err() == nil {
		ext := list.Read(0x30).Reader()
		id := ext.Read(0x06)
		ext.Optional(0x01) // critical
		value := ext.Read(0x04)
		if err := errors.Join(list.Err(), ext.Err()); err != nil {
			return nil, fmt.Errorf("certificate: extension: %w", err)
		}
		if bytes.Equal(id.Value, oid) {
			return value.Value, nil
		}
	}
	if err := errors.Join(w.Err(), list.Err()); err != nil {
		return nil, fmt.Errorf("certificate: %w", err)
	}
	name, err := ParseOID(oid)
	if err != nil {
		return nil, err
	}
	return nil, fmt.Errorf("certificate: no extension %s", name)
}
