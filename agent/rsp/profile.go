package rsp

import (
	"errors"
	"fmt"
	"strings"

	"lpad/apdu/ber"
)

// ProfileState tells whether a profile is in use.
type ProfileState int

// The states of a profile (SGP.22 v2.5, section 5.7.15).
const (
	Disabled ProfileState = 0
	Enabled  ProfileState = 1
)

// String returns "disabled" or "enabled".
func (s ProfileState) String() string { return pick(int(s), "disabled", "enabled") }

// ProfileClass says what a profile is for.
type ProfileClass int

// The classes of profiles.
const (
	ClassTest         ProfileClass = 0
	ClassProvisioning ProfileClass = 1
	ClassOperational  ProfileClass = 2
)

// String returns "test", "provisioning" or "operational".
func (c ProfileClass) String() string { return pick(int(c), "test", "provisioning", "operational") }

// IconType is the format of an icon.
type IconType int

// The formats of icons; an icon has 64 × 64 points and at most 1024 bytes.
const (
	IconJPG IconType = 0
	IconPNG IconType = 1
)

// String returns "jpg" or "png".
func (t IconType) String() string { return pick(int(t), "jpg", "png") }

func pick(n int, names ...string) string {
	if n < 0 || n >= len(names) {
		return fmt.Sprintf("unknown(%d)", n)
	}
	return names[n]
}

// PPR is a set of profile policy rules (SGP.22 v2.5, section 2.4a.1.2).
type PPR uint8

// The rules.
const (
	PPRUpdateControl PPR = 1 << iota // the SM-DP+ may unset rules later
	PPR1                             // disabling of this profile is not allowed
	PPR2                             // deletion of this profile is not allowed
)

// String returns "ppr1", "ppr1,ppr2" and so on.
func (p PPR) String() string {
	var names []string
	for i, name := range [...]string{"update-control", "ppr1", "ppr2"} {
		if p&(1<<i) != 0 {
			names = append(names, name)
		}
	}
	if names == nil {
		return "none"
	}
	return strings.Join(names, ",")
}

func parsePPR(t ber.TLV) (PPR, error) {
	bits, err := t.Bits()
	if err != nil {
		return 0, err
	}
	var p PPR
	for i := range 3 {
		if bits.Has(i) {
			p |= 1 << i
		}
	}
	return p, nil
}

// Operator names an operator by network and group identifiers (OperatorId).
type Operator struct {
	MCCMNC [3]byte // TS 24.008 coding; in rules, nibble E stands for any digit
	GID1   []byte  // nil when absent
	GID2   []byte
}

// PLMN returns MCC and MNC as digits, "00101" or "310410".
func (o Operator) PLMN() string {
	b := o.MCCMNC
	nibbles := [...]byte{b[0] & 0xF, b[0] >> 4, b[1] & 0xF, b[2] & 0xF, b[2] >> 4, b[1] >> 4}
	var d []byte
	for _, n := range nibbles {
		d = append(d, hexDigits[n])
	}
	return strings.TrimRight(string(d), "F")
}

func parseOperator(t ber.TLV) (Operator, error) {
	var o Operator
	r := t.Reader()
	for e, ok := r.Next(); ok; e, ok = r.Next() {
		switch e.Tag {
		case 0x80:
			if len(e.Value) != len(o.MCCMNC) {
				return o, fmt.Errorf("mccMnc of %d bytes, want 3", len(e.Value))
			}
			copy(o.MCCMNC[:], e.Value)
		case 0x81:
			o.GID1 = clone(e.Value)
		case 0x82:
			o.GID2 = clone(e.Value)
		}
	}
	return o, r.Err()
}

// NotificationConfiguration says who wants to hear of which operations
// (NotificationConfigurationInformation).
type NotificationConfiguration struct {
	Events  Event
	Address string
}

// Profile is a profile on the card (SGP.22 v2.5, section 5.7.15:
// ProfileInfo). Text is safe for display; Raw holds what the card said.
type Profile struct {
	ICCID           ICCID
	AID             AID // of its ISD-P
	State           ProfileState
	Nickname        string
	ServiceProvider string
	Name            string
	IconType        IconType
	Icon            []byte
	Class           ProfileClass
	Notifications   []NotificationConfiguration
	Owner           *Operator
	PPR             PPR
	Proprietary     []byte // whole TLV B8, dpProprietaryData
	Raw             []byte // whole TLV E3
}

// Metadata describes a profile before it is installed (SGP.22 v2.5, section
// 5.5.3: StoreMetadataRequest). Text is safe for display; Raw holds what the
// server said, for comparing.
type Metadata struct {
	ICCID           ICCID
	ServiceProvider string
	Name            string
	IconType        IconType
	Icon            []byte
	Class           ProfileClass
	Notifications   []NotificationConfiguration
	Owner           *Operator
	PPR             PPR
	Raw             []byte // whole TLV BF25
}

// Limits on what a card or server may say about a profile, with room above
// the specification's 64, 1024 and 128 bytes for those that exceed them.
const (
	maxText          = 1024
	maxIcon          = 16 << 10
	maxNotifications = 64
)

// ParseProfile reads a ProfileInfo, tag E3. Unknown elements are skipped; an
// ICCID must be there.
func ParseProfile(b []byte) (Profile, error) {
	t, err := ber.Parse(b)
	if err != nil {
		return Profile{}, fmt.Errorf("profile info: %w", err)
	}
	if t.Tag != 0xE3 {
		return Profile{}, fmt.Errorf("profile info: tag %X, want E3", uint32(t.Tag))
	}
	p := Profile{Class: ClassOperational}
	if err := p.parse(t); err != nil {
		return Profile{}, fmt.Errorf("profile info: %w", err)
	}
	if p.ICCID.IsZero() {
		return Profile{}, errors.New("profile info: no ICCID")
	}
	p.Raw = clone(t.Raw)
	return p, nil
}

// ParseMetadata reads a StoreMetadataRequest, tag BF25. ICCID, service
// provider and name are mandatory.
func ParseMetadata(b []byte) (Metadata, error) {
	t, err := ber.Parse(b)
	if err != nil {
		return Metadata{}, fmt.Errorf("profile metadata: %w", err)
	}
	if t.Tag != 0xBF25 {
		return Metadata{}, fmt.Errorf("profile metadata: tag %X, want BF25", uint32(t.Tag))
	}
	p := Profile{Class: ClassOperational}
	if err := p.parse(t); err != nil {
		return Metadata{}, fmt.Errorf("profile metadata: %w", err)
	}
	switch {
	case p.ICCID.IsZero():
		return Metadata{}, errors.New("profile metadata: no ICCID")
	case p.ServiceProvider == "" && p.Name == "":
		return Metadata{}, errors.New("profile metadata: neither service provider nor profile name")
	}
	return Metadata{ICCID: p.ICCID, ServiceProvider: p.ServiceProvider, Name: p.Name, IconType: p.IconType, Icon: p.Icon,
		Class: p.Class, Notifications: p.Notifications, Owner: p.Owner, PPR: p.PPR, Raw: clone(t.Raw)}, nil
}

// parse reads the elements that ProfileInfo and StoreMetadataRequest share,
// and those of ProfileInfo alone.
func (p *Profile) parse(t ber.TLV) error {
	r := t.Reader()
	for e, ok := r.Next(); ok; e, ok = r.Next() {
		if err := p.element(e); err != nil {
			return fmt.Errorf("element %X: %w", uint32(e.Tag), err)
		}
	}
	return r.Err()
}

func (p *Profile) element(e ber.TLV) (err error) {
	switch e.Tag {
	case 0x5A:
		p.ICCID, err = ICCIDFromBytes(e.Value)
	case 0x4F:
		p.AID, err = e.Octets(5, 16)
		p.AID = clone(p.AID)
	case 0x9F70:
		p.State, err = number[ProfileState](e)
	case 0x90:
		p.Nickname, err = displayed(e)
	case 0x91:
		p.ServiceProvider, err = displayed(e)
	case 0x92:
		p.Name, err = displayed(e)
	case 0x93:
		p.IconType, err = number[IconType](e)
	case 0x94:
		p.Icon, err = e.Octets(0, maxIcon)
		p.Icon = clone(p.Icon)
	case 0x95:
		p.Class, err = number[ProfileClass](e)
	case 0xB6:
		p.Notifications, err = parseNotificationConfiguration(e)
	case 0xB7:
		var o Operator
		o, err = parseOperator(e)
		p.Owner = &o
	case 0xB8:
		p.Proprietary = clone(e.Raw)
	case 0x99:
		p.PPR, err = parsePPR(e)
	}
	return err
}

func number[T ~int](t ber.TLV) (T, error) {
	n, err := t.Int()
	if err == nil && (n < 0 || n > 255) {
		err = fmt.Errorf("%d is out of range", n)
	}
	return T(n), err
}

func displayed(t ber.TLV) (string, error) {
	if len(t.Value) > maxText {
		return "", fmt.Errorf("text of %d bytes", len(t.Value))
	}
	return DisplayText(string(t.Value)), nil
}

func parseNotificationConfiguration(t ber.TLV) ([]NotificationConfiguration, error) {
	var list []NotificationConfiguration
	r := t.Reader()
	for !r.Empty() && r.Err() == nil {
		if len(list) == maxNotifications {
			return nil, errors.New("too many notification addresses")
		}
		e := r.Read(0x30)
		in := e.Reader()
		events, address := in.Read(0x80), in.Read(0x81)
		if err := errors.Join(r.Err(), in.Err()); err != nil {
			return nil, err
		}
		ev, err := parseEvent(events)
		if err != nil {
			return nil, err
		}
		if len(address.Value) > maxAddress {
			return nil, fmt.Errorf("address of %d bytes", len(address.Value))
		}
		list = append(list, NotificationConfiguration{ev, DisplayText(string(address.Value))})
	}
	return list, r.Err()
}

// ProfileSearch narrows ES10c.GetProfilesInfo to one profile or one class.
// The zero value asks for all.
type ProfileSearch struct {
	ICCID *ICCID
	AID   AID
	Class *ProfileClass
}

// ProfileTag names an element of a [Profile] in the question of
// ES10c.GetProfilesInfo: 0x5A for the ICCID, 0x9F70 for the state.
type ProfileTag = ber.Tag

// ByICCID chooses one profile.
func ByICCID(c ICCID) ProfileSearch { return ProfileSearch{ICCID: &c} }

// ProfileID names a profile in a request to the card: an [ICCID], or the
// [AID] of its ISD-P for cards that do not answer to the first.
type ProfileID interface {
	// ProfileTLV is the identifier as an element 5A or 4F.
	ProfileTLV() []byte
}

// ProfileTLV is element 5A.
func (c ICCID) ProfileTLV() []byte { return ber.Encode(0x5A, c[:]) }

// ProfileTLV is element 4F.
func (a AID) ProfileTLV() []byte { return ber.Encode(0x4F, a) }
