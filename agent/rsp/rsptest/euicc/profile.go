package euicc

import (
	"errors"
	"fmt"
	"strings"

	"lpad/agent/rsp"
	"lpad/apdu/ber"
)

// Sizes of SGP.22 v2.5, section 5.7.15 and 5.5.3, in bytes.
const (
	maxNickname        = 64
	maxServiceProvider = 32
	maxProfileName     = 64
	maxIcon            = 1024
	maxAddress         = 255
	factorySize        = 32 << 10 // of a profile whose size nobody has told
)

// profile is an ISD-P with its profile, as stored.
type profile struct {
	ICCID         rsp.ICCID
	AID           rsp.AID
	Enabled       bool
	Nickname      string
	Class         int
	PPR           rsp.PPR
	Owner         *rsp.Operator
	Notifications []rsp.NotificationConfiguration
	Elements      map[ber.Tag][]byte // whole TLVs of the metadata as they came
	USIM          rsp.AID            // AID of the USIM, nil: none
	Files         []file
	Size          int    // bytes
	CI            []byte // under which it was loaded: its notifications are signed for it
	Factory       bool   // was there from the beginning
}

// metadata is a StoreMetadataRequest that was found good.
type metadata struct {
	iccid         rsp.ICCID
	class         int
	ppr           rsp.PPR
	owner         *rsp.Operator
	notifications []rsp.NotificationConfiguration
	elements      map[ber.Tag][]byte
}

// Tags of metadata that the card keeps; the others (BF23, unknown ones) are
// passed over.
var keptElements = map[ber.Tag]bool{
	0x91: true, 0x92: true, 0x93: true, 0x94: true, 0x95: true, 0xB6: true, 0xB7: true, 0xB8: true,
	0x99: true, 0xBF22: true, 0xBF76: true,
}

var errMetadata = errors.New("metadata is not what it must be")

// parseMetadata reads BF25 (SGP.22 v2.5, section 5.5.3) with the limits of a
// card.
func parseMetadata(b []byte) (*metadata, error) {
	t, err := ber.Parse(b)
	if err != nil {
		return nil, err
	}
	if t.Tag != 0xBF25 {
		return nil, errMetadata
	}
	m := &metadata{class: classOperational, elements: map[ber.Tag][]byte{}}
	r := t.Reader()
	for e, ok := r.Next(); ok; e, ok = r.Next() {
		if err := m.element(e); err != nil {
			return nil, fmt.Errorf("element %v: %w", e.Tag, err)
		}
		if keptElements[e.Tag] {
			m.elements[e.Tag] = append([]byte(nil), e.Raw...)
		}
	}
	switch {
	case r.Err() != nil:
		return nil, r.Err()
	case m.iccid.IsZero() || m.elements[0x91] == nil || m.elements[0x92] == nil:
		return nil, errMetadata
	case m.ppr&(rsp.PPR1|rsp.PPR2) != 0 && m.owner == nil:
		return nil, errMetadata // section 5.5.3: the owner is mandatory then
	}
	return m, nil
}

func (m *metadata) element(e ber.TLV) (err error) {
	switch e.Tag {
	case 0x5A:
		m.iccid, err = storableICCID(e)
	case 0x91:
		_, err = e.UTF8(maxServiceProvider)
	case 0x92:
		_, err = e.UTF8(maxProfileName)
	case 0x93:
		err = oneOf(e, 0, 1)
	case 0x94:
		_, err = e.Octets(0, maxIcon)
	case 0x95:
		var n int64
		n, err = e.Int()
		if m.class = int(n); n < classTest || n > classOperational {
			err = errMetadata
		}
	case 0xB6:
		m.notifications, err = parseNotificationConfiguration(e)
	case 0xB7:
		m.owner, err = parseOperator(e)
	case 0xB8: // of ConfigureISDP, but there are servers that send it here
		err = checkProprietary(e)
	case 0x99:
		var bits ber.Bits
		bits, err = e.Bits()
		for i := range 3 {
			if bits.Has(i) {
				m.ppr |= 1 << i
			}
		}
	}
	return err
}

// storableICCID takes an ICCID of ten bytes that is made of digits.
func storableICCID(e ber.TLV) (rsp.ICCID, error) {
	b, err := e.Octets(10, 10)
	if err != nil {
		return rsp.ICCID{}, err
	}
	id, err := rsp.ICCIDFromBytes(b)
	if err != nil {
		return id, err
	}
	if back, err := rsp.ParseICCID(id.String()); err != nil || back != id {
		return id, errMetadata
	}
	return id, nil
}

func oneOf(e ber.TLV, low, high int64) error {
	n, err := e.Int()
	if err == nil && (n < low || n > high) {
		err = errMetadata
	}
	return err
}

func parseNotificationConfiguration(t ber.TLV) ([]rsp.NotificationConfiguration, error) {
	var list []rsp.NotificationConfiguration
	r := t.Reader()
	for !r.Empty() {
		in := r.Read(0x30).Reader()
		events, err := parseEvents(in.Read(0x80))
		if err != nil {
			return nil, err
		}
		address, err := in.Read(0x81).UTF8(maxAddress)
		if err != nil {
			return nil, err
		}
		list = append(list, rsp.NotificationConfiguration{Events: events, Address: address})
	}
	return list, r.Err()
}

func parseEvents(t ber.TLV) (rsp.Event, error) {
	bits, err := t.Bits()
	if err != nil {
		return 0, err
	}
	var e rsp.Event
	for i := range 4 {
		if bits.Has(i) {
			e |= 1 << i
		}
	}
	return e, nil
}

func parseOperator(t ber.TLV) (*rsp.Operator, error) {
	o := new(rsp.Operator)
	r := t.Reader()
	network, err := r.Read(0x80).Octets(3, 3)
	if err != nil {
		return nil, err
	}
	copy(o.MCCMNC[:], network)
	if e, ok := r.Optional(0x81); ok {
		o.GID1 = append([]byte(nil), e.Value...)
	}
	if e, ok := r.Optional(0x82); ok {
		o.GID2 = append([]byte(nil), e.Value...)
	}
	return o, r.Err()
}

func encodeOperator(tag ber.Tag, o rsp.Operator) []byte {
	parts := [][]byte{ber.Encode(0x80, o.MCCMNC[:])}
	if o.GID1 != nil {
		parts = append(parts, ber.Encode(0x81, o.GID1))
	}
	if o.GID2 != nil {
		parts = append(parts, ber.Encode(0x82, o.GID2))
	}
	return ber.Encode(tag, parts...)
}

func encodePPR(tag ber.Tag, p rsp.PPR) []byte {
	var bits []int
	for i := range 3 {
		if p&(1<<i) != 0 {
			bits = append(bits, i)
		}
	}
	return ber.EncodeBits(tag, ber.NewBits(bits...))
}

// Metadata encodes the StoreMetadataRequest (BF25) that would bring this
// profile over the air.
func (p Profile) Metadata() []byte {
	parts := [][]byte{
		ber.Encode(0x5A, p.ICCID[:]),
		ber.EncodeString(0x91, or(p.ServiceProvider, "Operator")),
		ber.EncodeString(0x92, or(p.Name, "Profile")),
	}
	if p.Icon != nil {
		parts = append(parts, ber.EncodeInt(0x93, 1), ber.Encode(0x94, p.Icon))
	}
	if p.Class != Operational {
		parts = append(parts, ber.EncodeInt(0x95, int64(p.Class.wire())))
	}
	if len(p.Notifications) > 0 {
		var list [][]byte
		for _, n := range p.Notifications {
			list = append(list, ber.Encode(0x30, ber.EncodeBits(0x80, n.Events.Bits()), ber.EncodeString(0x81, n.Address)))
		}
		parts = append(parts, ber.Encode(0xB6, list...))
	}
	if p.Owner != nil {
		parts = append(parts, encodeOperator(0xB7, *p.Owner))
	}
	if p.PPR != 0 {
		parts = append(parts, encodePPR(0x99, p.PPR))
	}
	return ber.Encode(0xBF25, parts...)
}

// manufacture makes the stored profile.
func (p Profile) manufacture() (*profile, error) {
	if p.IMSI != "" && (strings.Trim(p.IMSI, "0123456789") != "" || len(p.IMSI) > 15) {
		return nil, errors.New("the IMSI is not one of up to 15 digits")
	}
	if len(p.SPN) >= spnLength || len(p.Nickname) > maxNickname {
		return nil, errors.New("service provider name or nickname is too long")
	}
	m, err := parseMetadata(p.Metadata())
	if err != nil {
		return nil, err
	}
	stored := m.profile()
	files := personalisation{iccid: p.ICCID, usim: defaultUSIM, imsi: p.IMSI, mncLength: p.MNCLength, spn: p.SPN, gid1: p.GID1, gid2: p.GID2}
	if files.mncLength == 0 {
		files.mncLength = 2
	}
	stored.USIM, stored.Files = files.usim, files.files()
	stored.Enabled, stored.Nickname, stored.Factory = p.Enabled, p.Nickname, true
	if stored.Size = p.Size; p.Size == 0 {
		stored.Size = factorySize
	}
	return stored, nil
}

// profile is the stored form of what the metadata says.
func (m *metadata) profile() *profile {
	return &profile{ICCID: m.iccid, Class: m.class, PPR: m.ppr, Owner: m.owner, Notifications: m.notifications, Elements: m.elements}
}

func or(value, otherwise string) string {
	if value == "" {
		return otherwise
	}
	return value
}
