package smdp

import (
	"bytes"

	"lpad/agent/rsp/rsptest/bsp"
	"lpad/apdu/ber"
)

// boundPackage assembles a bound profile package (SGP.22 v2.5, sections 2.5.4
// and 5.5): BF36 of InitialiseSecureChannel, ConfigureISDP, StoreMetadata,
// ReplaceSessionKeys if the profile has keys of its own, profile elements. With
// the same binding only the first of them, which is signed for the session,
// changes from one download to the next.
func boundPackage(session *session, f Fault) ([]byte, error) {
	order, bound := session.order, session.order.bound
	z, err := bound.key.ECDH(bound.otPK)
	if err != nil {
		return nil, err
	}
	protect := bsp.NewSession(bsp.DeriveKeys(z, []byte(bound.hostID), bound.eid))
	configure, err := protect.ProtectAll(bsp.Tag87, ber.Encode(0xBF24, order.Proprietary), order.SegmentSize)
	if err != nil {
		return nil, err
	}
	store, err := protect.ProtectAll(bsp.Tag88, storedMetadata(order, f), order.MetadataSize)
	if err != nil {
		return nil, err
	}
	switch f.Kind {
	case BadConfigure:
		configure[0] = tamper(configure[0], nil)
	case BadMetadata:
		for i, segment := range store {
			if i == len(store)-1 || order.Metadata.Proprietary != nil && bytes.Contains(segment, order.Metadata.Proprietary) {
				store[i] = tamper(segment, order.Metadata.Proprietary)
				break
			}
		}
	}
	parts := [][]byte{secureChannel(session, f), ber.Encode(0xA0, configure...), ber.Encode(0xA1, store...)}
	if bound.ppk != nil {
		replace, err := protect.ProtectAll(bsp.Tag87, bound.ppk.Marshal(), order.SegmentSize)
		if err != nil {
			return nil, err
		}
		parts = append(parts, ber.Encode(0xA2, replace...))
		protect.ReplaceKeys(*bound.ppk)
	}
	elements, err := protect.ProtectAll(bsp.Tag86, order.UPP, order.SegmentSize)
	if err != nil {
		return nil, err
	}
	parts = append(parts, ber.Encode(0xA3, spoilElements(elements, f)...))
	if f.Kind == ExtraTag {
		parts = append(parts, ber.Encode(0xA4, []byte{0x86, 0x00}))
	}
	pack := ber.Encode(0xBF36, parts...)
	if f.Kind == Truncate {
		pack = pack[:max(1, len(pack)-100)]
	}
	return pack, nil
}

// tamper returns a protected segment with one bit of its data changed: the last
// one of part, if that is in it, else the last one before the MAC.
func tamper(segment, part []byte) []byte {
	end := len(segment) - bsp.MACLength
	if i := bytes.Index(segment, part); len(part) > 0 && i >= 0 {
		end = i + len(part)
	}
	return append(flip(segment[:end]), segment[end:]...)
}

func storedMetadata(o *order, f Fault) []byte {
	m := o.Metadata
	if f.Kind == OtherMetadata {
		if m.Raw != nil {
			return bytes.Replace(m.Raw, []byte(m.Name), bytes.Repeat([]byte("?"), len(m.Name)), 1)
		}
		m.Name += "?"
	}
	return m.Marshal()
}

// secureChannel is InitialiseSecureChannel, BF23 (SGP.22 v2.5, section 5.5.1).
// The signature covers the key of the eUICC too, which is not sent.
func secureChannel(session *session, f Fault) []byte {
	pb, id, operation := session.credential.Pb, session.id, byte(1)
	switch f.Kind {
	case OtherSignedID:
		id = flip(id)
	case OtherIdentity:
		pb = f.Identity
	case BadRemoteOp:
		operation = 2
	}
	bound := session.order.bound
	signed := bytes.Join([][]byte{
		ber.Encode(0x82, []byte{operation}), // remoteOpId: installBoundProfilePackage
		ber.Encode(0x80, id),
		ber.Encode(0xA6, ber.Encode(0x80, []byte{bsp.KeyTypeAES}), ber.Encode(0x81, []byte{bsp.KeyLength}), ber.EncodeString(0x84, bound.hostID)),
		ber.Encode(0x5F49, bound.key.Public()),
	}, nil)
	return ber.Encode(0xBF23, signed, signature(pb.Key, f, signed, ber.Encode(0x5F49, bound.otPK)))
}

func spoilElements(elements [][]byte, f Fault) [][]byte {
	switch {
	case f.Kind == No86:
		return nil
	case f.Kind == Swap86 && len(elements) > 1:
		elements[0], elements[1] = elements[1], elements[0]
	case f.Kind == BadMAC && len(elements) > 0:
		last := len(elements) - 1
		elements[last] = flip(elements[last])
	}
	return elements
}
