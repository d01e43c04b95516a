package params

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"lpad/agent/rsp"
	"lpad/internal/fault"
	"lpad/internal/redact"
)

// Sizes of the TLV form, in bytes.
const (
	maxTLV           = 108 // contents of E1: with it, an OID of 14 bytes fits into B8
	maxTLVAPNs       = 4
	maxTLVName       = 63
	maxTLVCredential = 32
	maxTLVBands      = 12
	maxTLVSMSC       = 11
	maxTLVHost       = 64
	maxTLVGeneration = 1<<16 - 1
)

// Tags of the TLV form. Those from C1 to C8 stand in E2.
const (
	tagParameters = 0xE1
	tagAPN        = 0xE2
	tagVersion    = 0xC0

	tagName     = 0xC1
	tagPurposes = 0xC2
	tagPDNType  = 0xC3
	tagAuth     = 0xC4
	tagUser     = 0xC5
	tagSecret   = 0xC6
	tagMTU      = 0xC7
	tagDNS      = 0xC8

	tagRATs  = 0xC9
	tagBands = 0xCA
	tagEDRX  = 0xCB
	tagPSM   = 0xCC
	tagSMSC  = 0xCD
	tagECS   = 0xCE
	tagCMP   = 0xCF
)

// Flags beside the version. Bits 4 (always on) and 8 (the attach's access point
// before the first registration) say what is done with every profile anyway.
const (
	flagNoRoaming = 1
	flagHomeOnly  = 2
)

// The numbers of LwM2M objects 10 and 11.
var (
	pdnNumbers  = []string{pdnNonIP, pdnV4, pdnV6, pdnV4V6}
	authNumbers = []string{"pap", "chap", "pap-or-chap", "none"}
)

const (
	authNone   = 3   // also when there is no C4
	asHome     = 0xF // PDN type when roaming
	actLTE     = 4   // AcT type of +CEDRXS
	actNBIoT   = 5
	toaPlus    = 0x91 // type of address: an international number
	toaPlain   = 0x81
	unitOff    = 7 // GPRS timers: the timer is deactivated
	timerOff   = unitOff << 5
	timerValue = 0x1F
)

// bitPurposes are the purposes from bit 0 on. The bit of dm stands for fota
// too.
var bitPurposes = []Purpose{PurposeDefault, PurposeAttach, PurposeIMS, PurposeMMS, PurposeDM, PurposeSUPL, PurposeBootstrap}

// Units of GPRS timer 3 (T3412 extended) and GPRS timer 2 (T3324), in seconds,
// by their three bits (TS 24.008, sections 10.5.7.4a and 10.5.7.4). The last
// one, deactivated, is none.
var (
	timer3 = [unitOff]int64{600, 3600, 36000, 2, 30, 60, 320 * 3600}
	timer2 = [unitOff]int64{2, 60, 360, 60, 60, 60, 60}
)

// TLVError says why terminal parameters in a profile's metadata are ignored.
type TLVError struct {
	Where   string // tags from the outside in: "E1/E2/C1"
	Problem string
}

// Error implements error.
func (e *TLVError) Error() string {
	return fmt.Sprintf("terminal parameters of the profile: %s: %s", e.Where, e.Problem)
}

// Fault implements fault.Explainer.
func (e *TLVError) Fault() fault.Fault {
	return fault.Fault{Code: "parameters-invalid", Text: e.Error(), Who: fault.Operator,
		Next: "nothing is lost but these parameters; the operator has to correct them in the profile's metadata"}
}

// tlv takes the form apart and keeps the first error.
type tlv struct {
	err     error
	ignored []string
}

func (t *tlv) fail(where, format string, a ...any) {
	if t.err == nil {
		t.err = &TLVError{where, fmt.Sprintf(format, a...)}
	}
}

func (t *tlv) ignore(where string) {
	if len(t.ignored) < maxIgnored {
		t.ignored = append(t.ignored, where)
	}
}

// field is an element that is known. Few are tried one after the other: a map
// of them would be more program than all that reads them.
type field struct {
	tag         byte
	least, most int // bytes
	repeats     bool
	read        func(where string, v []byte)
}

// fields reads a string of elements with tags and lengths of one byte. What is
// not known is passed over if it is primitive.
func (t *tlv) fields(where string, b []byte, known []field) {
	var seen [256]bool
	for len(b) > 0 && t.err == nil {
		tag := b[0]
		at := strings.TrimPrefix(fmt.Sprintf("%s/%02X", where, tag), "/")
		switch {
		case tag&0x1F == 0x1F:
			t.fail(at, "the tag has more than one byte")
			return
		case len(b) < 2:
			t.fail(at, "breaks off")
			return
		case b[1] >= 0x80:
			t.fail(at, "the length has more than one byte, or is indefinite")
			return
		case int(b[1]) > len(b)-2:
			t.fail(at, "has %d bytes, %d were announced", len(b)-2, b[1])
			return
		}
		value := b[2 : 2+b[1]]
		b = b[2+b[1]:]
		var f field
		ok := false
		for _, k := range known {
			if k.tag == tag {
				f, ok = k, true
			}
		}
		switch {
		case !ok && tag&0x20 != 0:
			t.fail(at, "is not known")
		case !ok:
			t.ignore(at)
		case seen[tag] && !f.repeats:
			t.fail(at, "is there twice")
		case len(value) < f.least || len(value) > f.most:
			t.fail(at, "has %d bytes, %d to %d are allowed", len(value), f.least, f.most)
		default:
			f.read(at, value)
		}
		seen[tag] = true
	}
}

// ParseTLV reads the BER-TLV form, a whole E1. What it leaves open is absent
// in the document: this form has no null but for PSM, whose timers it can
// switch off. The error is a [*TLVError].
//
// The form is meant for the profile in whose metadata it is, so the document
// has an empty scope. Unknown elements are listed in Ignored by their tags.
// An access point may have an empty name, which in JSON none can have: the
// network chooses.
func ParseTLV(e1 []byte) (*Document, error) {
	d, t := &Document{}, &tlv{}
	found := false
	t.fields("", e1, []field{{tagParameters, 0, maxTLV, false, func(_ string, v []byte) { found = true; t.document(v, d) }}})
	if !found {
		t.fail("E1", "is missing")
	}
	if t.err != nil {
		return nil, t.err
	}
	d.Ignored = t.ignored
	return d, nil
}

func (t *tlv) document(v []byte, d *Document) {
	version := false
	var apns []APN
	t.fields("E1", v, []field{
		{tagVersion, 3, 3, false, func(at string, v []byte) {
			version = true
			if v[0]>>4 != Version {
				t.fail(at, "version %d is not known", v[0]>>4)
			}
			if v[0]&flagNoRoaming != 0 {
				d.DataRoaming = Opt[bool]{State: Set}
			}
			if v[0]&flagHomeOnly != 0 {
				d.HomeOnly = Opt[bool]{true, Set}
			}
			d.Generation = int64(binary.BigEndian.Uint16(v[1:]))
		}},
		{tagAPN, 0, maxTLV, true, func(at string, v []byte) {
			if len(apns) == maxTLVAPNs {
				t.fail(at, "is there more than %d times", maxTLVAPNs)
			}
			apns = append(apns, t.apn(at, v))
		}},
		{tagRATs, 1, 1, false, func(at string, v []byte) {
			d.RATs = some(t, at, bits(int(v[0]), rats))
			if v[0] == 0 {
				t.fail(at, "names none")
			}
		}},
		{tagBands, 1, maxTLVBands, false, func(at string, v []byte) {
			for i := range 8 * len(v) {
				if v[len(v)-1-i/8]>>(i%8)&1 != 0 {
					d.LTEBands.Value = append(d.LTEBands.Value, i+1)
				}
			}
			if d.LTEBands.State = Set; len(d.LTEBands.Value) == 0 {
				t.fail(at, "names none")
			}
		}},
		{tagEDRX, 2, 2, false, func(at string, v []byte) {
			window := int(v[1] >> 4)
			e := Opt[EDRX]{EDRX{int(v[1] & 0xF), &window}, Set}
			switch v[0] {
			case actLTE:
				d.EDRXLTE = e
			case actNBIoT:
				d.EDRXNBIoT = e
			default:
				t.ignore(at)
			}
		}},
		{tagPSM, 2, 2, false, func(_ string, v []byte) {
			if v[0]>>5 == unitOff || v[1]>>5 == unitOff {
				d.PSM.State = Null
				return
			}
			d.PSM = Opt[PSM]{PSM{timer3[v[0]>>5] * int64(v[0]&timerValue), timer2[v[1]>>5] * int64(v[1]&timerValue)}, Set}
		}},
		{tagSMSC, 2, maxTLVSMSC, false, func(at string, v []byte) { d.SMSC = Opt[string]{t.smsc(at, v), Set} }},
		{tagECS, 0, maxTLVHost, false, func(at string, v []byte) { d.ECS = t.host(at, v) }},
		{tagCMP, 0, maxTLVHost, false, func(at string, v []byte) { d.CMP = t.host(at, v) }},
	})
	if !version {
		t.fail("E1/C0", "is missing")
	}
	var taken []Purpose
	for _, a := range apns {
		for _, p := range a.Purposes {
			if slices.Contains(taken, p) {
				t.fail("E1/E2", "is a second access point for the purpose %s", p)
			}
			taken = append(taken, p)
		}
		if len(a.Purposes) > 0 { // else for purposes to come
			d.APNs = Opt[[]APN]{append(d.APNs.Value, a), Set}
		}
	}
}

func (t *tlv) apn(where string, v []byte) APN {
	named := false
	a := APN{Purposes: []Purpose{PurposeDefault}, Auth: authNumbers[authNone]}
	number := func(at string, n byte, names []string) string {
		if int(n) >= len(names) {
			t.fail(at, "%d is not known", n)
			return ""
		}
		return names[n]
	}
	t.fields(where, v, []field{
		{tagName, 0, maxTLVName, false, func(at string, v []byte) {
			named, a.Name = true, string(v)
			if err := CheckAPN(a.Name); err != nil && a.Name != "" {
				t.fail(at, "%v", err)
			}
		}},
		{tagPurposes, 1, 1, false, func(at string, v []byte) {
			a.Purposes = bits(int(v[0]), bitPurposes)
			switch {
			case v[0] == 0:
				t.fail(at, "names none")
			case len(a.Purposes) == 0:
				t.ignore(at)
			}
		}},
		{tagPDNType, 1, 1, false, func(at string, v []byte) {
			a.PDNType = number(at, v[0]>>4, pdnNumbers)
			if roaming := v[0] & 0xF; roaming != asHome {
				a.PDNTypeRoaming = number(at, roaming, pdnNumbers)
			}
		}},
		{tagAuth, 1, 1, false, func(at string, v []byte) { a.Auth = number(at, v[0], authNumbers) }},
		{tagUser, 0, maxTLVCredential, false, func(at string, v []byte) { a.User = t.credential(at, v) }},
		{tagSecret, 0, maxTLVCredential, false, func(at string, v []byte) { a.Secret = redact.NewSecret(t.credential(at, v)) }},
		{tagMTU, 2, 2, false, func(at string, v []byte) {
			if a.MTU = int(binary.BigEndian.Uint16(v)); a.MTU < minMTUv4 || a.MTU > maxMTU {
				t.fail(at, "%d is not of %d to %d", a.MTU, minMTUv4, maxMTU)
			}
		}},
		{tagDNS, 4, 16, true, func(at string, v []byte) {
			ip, ok := netip.AddrFromSlice(v)
			switch {
			case !ok:
				t.fail(at, "has %d bytes, 4 or 16 are allowed", len(v))
			case len(a.DNS) == maxServers:
				t.fail(at, "is there more than %d times", maxServers)
			}
			a.DNS = append(a.DNS, ip)
		}},
	})
	switch {
	case !named:
		t.fail(where, "has no name")
	case a.MTU > 0 && a.MTU < minMTU && a.PDNType != pdnV4:
		t.fail(where, "has an MTU of %d; less than %d is for IPv4 only", a.MTU, minMTU)
	case a.Auth == authNumbers[authNone] && (a.User != "" || !a.Secret.IsZero()):
		t.fail(where, "has credentials, but no authentication")
	}
	return a
}

// bits are the names of the bits that are set.
func bits[T any](mask int, names []T) (out []T) {
	for i, name := range names {
		if mask>>i&1 != 0 {
			out = append(out, name)
		}
	}
	return out
}

// some is a list in which something is known; else it is ignored.
func some[T any](t *tlv, where string, list []T) Opt[[]T] {
	if len(list) == 0 {
		t.ignore(where)
		return Opt[[]T]{}
	}
	return Opt[[]T]{list, Set}
}

func (t *tlv) credential(where string, v []byte) string {
	for _, c := range v {
		if c < ' ' || c > '~' || c == '"' {
			t.fail(where, "holds a character that modems do not take")
			return ""
		}
	}
	return string(v)
}

// host is absent when it is empty.
func (t *tlv) host(where string, v []byte) Opt[string] {
	if len(v) == 0 {
		return Opt[string]{}
	}
	if rsp.CheckAddress(string(v)) != nil {
		t.fail(where, "is not a full domain name")
	}
	return Opt[string]{string(v), Set}
}

// smsc reads an address as in TS 24.011: its type, then swapped digits.
func (t *tlv) smsc(where string, v []byte) string {
	var number strings.Builder
	switch v[0] >> 4 & 7 {
	case 1:
		number.WriteByte('+')
	case 0, 2, 3, 4: // unknown, national, of the network, short
	default:
		t.fail(where, "the type of address %02X is not known", v[0])
	}
	for i := range 2 * (len(v) - 1) {
		digit := v[1+i/2] >> (4 * (i % 2)) & 0xF
		if digit == 0xF && i == 2*(len(v)-1)-1 {
			break
		}
		if digit > 9 {
			t.fail(where, "holds %X where a digit should be", digit)
		}
		number.WriteByte('0' + digit)
	}
	if !isNumber(number.String()) {
		t.fail(where, "is not a telephone number")
	}
	return number.String()
}

// isNumber reports a telephone number as a document has it.
func isNumber(s string) bool {
	digits := strings.TrimPrefix(s, "+")
	return len(digits) >= 3 && len(digits) <= 20 && strings.Trim(digits, "0123456789") == ""
}
