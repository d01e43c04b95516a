package rsp

import (
	"bytes"
	"errors"
	"fmt"

	"lpad/apdu/ber"
)

// EUICCInfo1 is what a server needs to choose its certificates (SGP.22 v2.5,
// section 5.7.8). Raw goes to it as it is.
type EUICCInfo1 struct {
	SVN          Version  // highest version supported; of a v3 card the lowest
	HighestSVN   Version  // v3 cards only
	Verification [][]byte // CI key identifiers that the card verifies servers with, by preference
	Signing      [][]byte // CI key identifiers that its own certificates chain to, by preference
	Raw          []byte
}

// Signs reports whether the card has a certificate under the CI with this
// subject key identifier.
func (i EUICCInfo1) Signs(ski []byte) bool {
	for _, s := range i.Signing {
		if bytes.Equal(s, ski) {
			return true
		}
	}
	return false
}

// RSPCapability is a set of capabilities of the eUICC.
type RSPCapability uint64

// Capabilities that matter to an LPA; the numbers are bits of
// EUICCInfo2.rspCapability.
const (
	CapAdditionalProfile RSPCapability = 1 << 0 // room for one more profile
	CapCRL               RSPCapability = 1 << 1
	CapRPM               RSPCapability = 1 << 2
	CapTestProfile       RSPCapability = 1 << 3
	CapDeviceInfo        RSPCapability = 1 << 4 // deviceInfoExtensibilitySupport
	CapServiceSpecific   RSPCapability = 1 << 5
)

// CardResources are the counters of extCardResource (ETSI TS 102 226).
type CardResources struct {
	Applications uint64 // installed
	FreeNVM      uint64 // bytes; a hint, not a promise
	FreeRAM      uint64 // bytes
}

// EUICCInfo2 is everything the eUICC tells about itself (SGP.22 v2.5, section
// 5.7.8). A zero Version or empty text means that the card did not say.
type EUICCInfo2 struct {
	ProfileVersion        Version // profile package specification
	SVN                   Version
	Firmware              Version
	Resources             CardResources
	UICCCapability        uint64  // bit n of the specification is 1<<n
	JavaCardVersion       Version // ts102241Version
	GlobalPlatformVersion Version
	RSPCapability         RSPCapability
	Verification          [][]byte
	Signing               [][]byte
	Category              int // 0 other, 1 basic, 2 medium, 3 contactless; -1 unsaid
	ForbiddenPPR          PPR // rules that the card refuses from anyone
	ProtectionProfile     Version
	SASAccreditation      string
	PlatformLabel         string // certificationDataObject
	DiscoveryBaseURL      string
	TREProperties         uint64 // v2.5: discrete, integrated, remote memory
	TREProduct            string
	AdditionalVersions    []Version // further profile package versions
	Raw                   []byte
}

const maxCIs = 64

// ParseEUICCInfo1 reads the answer of ES10b.GetEUICCInfo1, tag BF20.
func ParseEUICCInfo1(b []byte) (EUICCInfo1, error) {
	t, err := ber.Parse(b)
	if err != nil {
		return EUICCInfo1{}, fmt.Errorf("euiccInfo1: %w", err)
	}
	if t.Tag != 0xBF20 {
		return EUICCInfo1{}, fmt.Errorf("euiccInfo1: tag %X, want BF20", uint32(t.Tag))
	}
	i := EUICCInfo1{Raw: clone(t.Raw)}
	r := t.Reader()
	for e, ok := r.Next(); ok; e, ok = r.Next() {
		var err error
		switch e.Tag {
		case 0x82:
			i.SVN, err = parseVersion(e.Value)
		case 0x93:
			i.HighestSVN, err = parseVersion(e.Value)
		case 0xA9:
			i.Verification, err = parseKeyIdentifiers(e)
		case 0xAA:
			i.Signing, err = parseKeyIdentifiers(e)
		}
		if err != nil {
			return EUICCInfo1{}, fmt.Errorf("euiccInfo1: element %X: %w", uint32(e.Tag), err)
		}
	}
	if err := r.Err(); err != nil {
		return EUICCInfo1{}, fmt.Errorf("euiccInfo1: %w", err)
	}
	if i.SVN.IsZero() {
		return EUICCInfo1{}, errors.New("euiccInfo1: no svn")
	}
	return i, nil
}

// ParseEUICCInfo2 reads the answer of ES10b.GetEUICCInfo2, tag BF22.
func ParseEUICCInfo2(b []byte) (EUICCInfo2, error) {
	t, err := ber.Parse(b)
	if err != nil {
		return EUICCInfo2{}, fmt.Errorf("euiccInfo2: %w", err)
	}
	if t.Tag != 0xBF22 {
		return EUICCInfo2{}, fmt.Errorf("euiccInfo2: tag %X, want BF22", uint32(t.Tag))
	}
	i := EUICCInfo2{Category: -1, Raw: clone(t.Raw)}
	r := t.Reader()
	for e, ok := r.Next(); ok; e, ok = r.Next() {
		if err := i.element(e); err != nil {
			return EUICCInfo2{}, fmt.Errorf("euiccInfo2: element %X: %w", uint32(e.Tag), err)
		}
	}
	if err := r.Err(); err != nil {
		return EUICCInfo2{}, fmt.Errorf("euiccInfo2: %w", err)
	}
	if i.SVN.IsZero() {
		return EUICCInfo2{}, errors.New("euiccInfo2: no svn")
	}
	return i, nil
}

func (i *EUICCInfo2) element(e ber.TLV) (err error) {
	switch e.Tag {
	case 0x81:
		i.ProfileVersion, err = parseVersion(e.Value)
	case 0x82:
		i.SVN, err = parseVersion(e.Value)
	case 0x83:
		i.Firmware, err = parseVersion(e.Value)
	case 0x84:
		i.Resources = parseResources(e.Value)
	case 0x85:
		i.UICCCapability, err = bitSet(e)
	case 0x86:
		i.JavaCardVersion, err = parseVersion(e.Value)
	case 0x87:
		i.GlobalPlatformVersion, err = parseVersion(e.Value)
	case 0x88:
		var bits uint64
		bits, err = bitSet(e)
		i.RSPCapability = RSPCapability(bits)
	case 0xA9:
		i.Verification, err = parseKeyIdentifiers(e)
	case 0xAA:
		i.Signing, err = parseKeyIdentifiers(e)
	case 0x8B:
		i.Category, err = number[int](e)
	case 0x99:
		i.ForbiddenPPR, err = parsePPR(e)
	case 0x04:
		i.ProtectionProfile, err = parseVersion(e.Value)
	case 0x0C:
		i.SASAccreditation, err = displayed(e)
	case 0xAC:
		err = i.certification(e)
	case 0x8D:
		i.TREProperties, err = bitSet(e)
	case 0x8E:
		i.TREProduct, err = displayed(e)
	case 0xAF:
		i.AdditionalVersions, err = parseVersions(e)
	}
	return err
}

func (i *EUICCInfo2) certification(t ber.TLV) (err error) {
	r := t.Reader()
	for e, ok := r.Next(); ok && err == nil; e, ok = r.Next() {
		switch e.Tag {
		case 0x80:
			i.PlatformLabel, err = displayed(e)
		case 0x81:
			i.DiscoveryBaseURL, err = displayed(e)
		}
	}
	return errors.Join(err, r.Err())
}

// parseResources reads what it can: the format belongs to another
// specification, and no decision hangs on it.
func parseResources(b []byte) CardResources {
	var c CardResources
	r := ber.NewReader(b)
	for e, ok := r.Next(); ok; e, ok = r.Next() {
		if len(e.Value) > 8 {
			continue
		}
		var n uint64
		for _, v := range e.Value {
			n = n<<8 | uint64(v)
		}
		switch e.Tag {
		case 0x81:
			c.Applications = n
		case 0x82:
			c.FreeNVM = n
		case 0x83:
			c.FreeRAM = n
		}
	}
	return c
}

// bitSet turns named bits into a number: bit n is 1<<n.
func bitSet(t ber.TLV) (uint64, error) {
	bits, err := t.Bits()
	if err != nil {
		return 0, err
	}
	var set uint64
	for n := range 64 {
		if bits.Has(n) {
			set |= 1 << n
		}
	}
	return set, nil
}

func parseKeyIdentifiers(t ber.TLV) ([][]byte, error) {
	var list [][]byte
	r := t.Reader()
	for !r.Empty() && r.Err() == nil {
		if len(list) == maxCIs {
			return nil, errors.New("too many key identifiers")
		}
		if e := r.Read(0x04); r.Err() == nil {
			list = append(list, clone(e.Value))
		}
	}
	return list, r.Err()
}

func parseVersions(t ber.TLV) ([]Version, error) {
	var list []Version
	r := t.Reader()
	for !r.Empty() && r.Err() == nil {
		if len(list) == maxCIs {
			return nil, errors.New("too many versions")
		}
		e := r.Read(0x04)
		if r.Err() != nil {
			break
		}
		v, err := parseVersion(e.Value)
		if err != nil {
			return nil, err
		}
		list = append(list, v)
	}
	return list, r.Err()
}
