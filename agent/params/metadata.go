package params

import (
	"bytes"
	"fmt"

	"lpad/agent/rsp"
	"lpad/apdu/ber"
)

// MaxMetadata is what dpProprietaryData may have, with tag and length, in
// bytes (SGP.22 v2.5, section 5.5.2).
const MaxMetadata = 128

// Tags of dpProprietaryData. Its OID has the tag of the module's automatic
// tagging, or that of an OID, as some servers write.
const (
	tagMetadata  = 0xB8
	tagOID       = 0x06
	tagTaggedOID = 0x80
)

// FromMetadata finds terminal parameters in a profile's metadata: b8 is the
// whole dpProprietaryData as the card tells it, e1 the whole object that
// [ParseTLV] reads. The metadata is recognised by its first element, the
// dpOid, which must be one of oids ("1.3.6.1.4.1.99999.1.1"); what belongs to
// somebody else, or cannot be told to be ours, is not ok and no error. The
// error is a [*TLVError].
//
// Only what was read from the card may be passed in: there it has come through
// the protection of the bound profile package.
func FromMetadata(b8 []byte, oids []string) (e1 []byte, ok bool, err error) {
	t, err := ber.Parse(b8)
	if err != nil || t.Tag != tagMetadata {
		return nil, false, nil
	}
	r := t.Reader()
	oid, _ := r.Next()
	if oid.Tag != tagOID && oid.Tag != tagTaggedOID || !listed(oid.Value, oids) {
		return nil, false, nil
	}
	for e, more := r.Next(); more; e, more = r.Next() {
		if e.Tag != tagParameters {
			continue // of the SM-DP+
		}
		if e1 != nil {
			return nil, false, &TLVError{"B8/E1", "is there twice"}
		}
		e1 = bytes.Clone(e.Raw)
	}
	if err := r.Err(); err != nil {
		return nil, false, &TLVError{"B8", err.Error()}
	}
	return e1, e1 != nil, nil
}

func listed(value []byte, oids []string) bool {
	for _, s := range oids {
		if oid, err := rsp.EncodeOID(s); err == nil && bytes.Equal(oid, value) {
			return true
		}
	}
	return false
}

// ToMetadata makes dpProprietaryData of an OID and an E1 of [MarshalTLV]: what
// [FromMetadata] takes apart.
func ToMetadata(oid string, e1 []byte) ([]byte, error) {
	value, err := rsp.EncodeOID(oid)
	if err != nil {
		return nil, fmt.Errorf("terminal parameters for metadata: %w", err)
	}
	b8 := ber.Encode(tagMetadata, ber.Encode(tagOID, value), e1)
	if len(b8) > MaxMetadata {
		return nil, fmt.Errorf("terminal parameters for metadata: with the OID they have %d bytes, %d are allowed", len(b8), MaxMetadata)
	}
	return b8, nil
}

// MetadataOID is the dpOid of dpProprietaryData as dotted text, for those who
// want to see whose it is; [FromMetadata] does not need it.
func MetadataOID(b8 []byte) (oid string, ok bool) {
	t, err := ber.Parse(b8)
	if err != nil || t.Tag != tagMetadata {
		return "", false
	}
	e, _ := t.Reader().Next()
	if e.Tag != tagOID && e.Tag != tagTaggedOID {
		return "", false
	}
	oid, err = rsp.ParseOID(e.Value)
	return oid, err == nil
}
