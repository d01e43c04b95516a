package upp

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"
	"unicode/utf16"

	"lpad/agent/rsp"
	"lpad/apdu/ber"
)

// Options say what profile to make. ICCID and IMSI are needed.
type Options struct {
	ICCID       rsp.ICCID
	IMSI        string // 6 to 15 digits
	MNCLength   int    // 2 or 3; 0 means 2
	SPN         string // at most 16 characters of the GSM alphabet, or 7 others; empty: no EF_SPN content
	GID1        []byte // at most 32 bytes; nil: no EF_GID1
	GID2        []byte
	ProfileType string // name in the header, at most 60 bytes; "TEST" when empty
	Size        int    // exact size in bytes; 0: as small as it gets
}

// Sizes that Generate can reach.
const (
	maxSize  = 1 << 20
	fillFile = 8 << 10 // bytes of one padding file
	maxFill  = fillFile + 1<<10
)

// usimAID is the application identifier in EF_DIR: 3GPP USIM with the
// proprietary part of the TS.48 profiles.
var usimAID = []byte{0xA0, 0x00, 0x00, 0x00, 0x87, 0x10, 0x02, 0xFF, 0x49, 0xFF, 0x05, 0x89}

// Generate makes a profile package. The same options give the same bytes.
func Generate(o Options) ([]byte, error) {
	if err := o.check(); err != nil {
		return nil, fmt.Errorf("generate profile: %w", err)
	}
	smallest := o.build(0, nil)
	if o.Size == 0 || o.Size == len(smallest) {
		return smallest, nil
	}
	// One more byte of content is not always one more byte in all: a length
	// field may grow with it. The name in the header then gives the odd bytes.
	for slack := range 8 {
		fill := o.Size - len(o.build(slack, nil))
		var files []int
		for ; fill > maxFill; fill -= fillFile + fillOverhead(fillFile) {
			files = append(files, fillFile)
		}
		for last := max(0, fill-64); last <= fill; last++ {
			if fillOverhead(last)+last != fill {
				continue
			}
			if p := o.build(slack, append(files, last)); len(p) == o.Size {
				return p, nil
			}
		}
	}
	return nil, fmt.Errorf("generate profile: no profile of exactly %d bytes; the smallest has %d", o.Size, len(smallest))
}

func (o Options) check() error {
	_, spnErr := encodeSPN(o.SPN)
	switch {
	case o.ICCID.IsZero():
		return errors.New("no ICCID")
	case len(o.IMSI) < 6 || len(o.IMSI) > 15 || strings.Trim(o.IMSI, "0123456789") != "":
		return errors.New("IMSI: want 6 to 15 digits")
	case o.MNCLength != 0 && o.MNCLength != 2 && o.MNCLength != 3:
		return fmt.Errorf("MNC of %d digits", o.MNCLength)
	case len(o.GID1) > 32 || len(o.GID2) > 32:
		return errors.New("GID: at most 32 bytes")
	case len(o.ProfileType) > 60:
		return errors.New("profile type: at most 60 bytes")
	case o.Size < 0 || o.Size > maxSize:
		return fmt.Errorf("size %d, at most %d", o.Size, maxSize)
	}
	return spnErr
}

// build writes all elements: slack more characters in the name, padding files
// of these sizes.
func (o Options) build(slack int, fill []int) []byte {
	id := byte(0)
	header := func() []byte { // PEHeader: mandated, identification
		id++
		return ber.Encode(0xA0, ber.Encode(0x80), ber.Encode(0x81, []byte{id}))
	}
	optional := o.optionalFiles()
	templates := [][]byte{ber.Encode(0x06, templateOID(1)), ber.Encode(0x06, templateOID(4))}
	if optional != nil {
		templates = append(templates, ber.Encode(0x06, templateOID(5)))
	}
	name := o.ProfileType
	if name == "" {
		name = "TEST"
	}
	p := ber.Encode(peHeader,
		ber.EncodeInt(0x80, 2), ber.EncodeInt(0x81, 1),
		ber.EncodeString(0x82, name+strings.Repeat(".", slack)),
		ber.Encode(0x83, swapNibbles(o.ICCID[:])), // not swapped in the header
		ber.Encode(0xA5, ber.Encode(0x81), ber.Encode(0x84)),
		ber.Encode(0xA6, templates...))
	p = append(p, ber.Encode(peMF, append([][]byte{header(), ber.Encode(0x81, templateOID(1))}, o.mf()...)...)...)
	p = append(p, ber.Encode(pePUK, header(), ber.Encode(0xA1,
		ber.Encode(0x30, ber.EncodeInt(0x80, 1), ber.EncodeString(0x81, "11111111"))))...)
	p = append(p, ber.Encode(pePIN, header(), ber.Encode(0xA1, ber.Encode(0xA0,
		ber.Encode(0x30, ber.EncodeInt(0x80, 1), ber.Encode(0x81, []byte("0000\xFF\xFF\xFF\xFF")), ber.EncodeInt(0x82, 1), ber.EncodeInt(0x83, 6)))))...)
	p = append(p, ber.Encode(peUSIM, append([][]byte{header(), ber.Encode(0x81, templateOID(4))}, o.usim()...)...)...)
	if optional != nil {
		p = append(p, ber.Encode(peOptUSIM, append([][]byte{header(), ber.Encode(0x81, templateOID(5))}, optional...)...)...)
	}
	p = append(p, ber.Encode(peAKA, header(), ber.Encode(0xA1, ber.Encode(0xA1, // algoConfiguration: Milenage with test keys
		ber.EncodeInt(0x80, 1), ber.EncodeInt(0x81, 1), ber.Encode(0x82, counting(0x00, 16)), ber.Encode(0x83, counting(0x10, 16)))))...)
	for i, n := range fill {
		p = append(p, ber.Encode(peGeneric, header(), ber.Encode(0xA1, o.fillCommands(i, n)))...)
	}
	return append(p, ber.Encode(peEnd, header())...)
}

func (o Options) mf() [][]byte {
	dir := ber.Encode(0x61, ber.Encode(0x4F, usimAID), ber.EncodeString(0x50, "USIM"))
	arr := []byte{0x80, 0x01, 0x90, 0x00, 0x80, 0x01, 0x1A, 0xA4, 0x06, 0x83, 0x01, 0x0A, 0x95, 0x01, 0x08}
	return [][]byte{
		ber.Encode(0xA2, ber.Encode(0xA1, ber.Encode(0xC6, []byte{0x01, 0x0A}))),
		ber.Encode(0xA4, content(o.ICCID[:])),
		ber.Encode(0xA5, fcp(ber.Encode(0x82, []byte{0x42, 0x21, 0x00, 0x26})), content(dir)),
		ber.Encode(0xA6, fcp(ber.Encode(0x82, []byte{0x42, 0x21, 0x00, byte(len(arr))})), content(arr)),
	}
}

func (o Options) usim() [][]byte {
	spn, err := encodeSPN(o.SPN)
	if err != nil {
		spn = nil // check said it fits
	}
	mnc := max(2, o.MNCLength)
	files := [][]byte{
		ber.Encode(0xA2, fcp(ber.Encode(0x83, []byte{0x7F, 0xD0}), ber.Encode(0x84, usimAID), ber.Encode(0xC6, []byte{0x01, 0x81, 0x0A}))),
		ber.Encode(0xA3, content(encodeIMSI(o.IMSI))),
		ber.Encode(0xA4, fcp(ber.Encode(0x82, []byte{0x42, 0x21, 0x00, 0x0F})), content([]byte{0x80, 0x01, 0x90, 0x00, 0x80, 0x01, 0x1A, 0xA4, 0x06, 0x83, 0x01, 0x0A, 0x95, 0x01, 0x08})),
		ber.Encode(0xA8, content(o.serviceTable())),
	}
	if spn != nil {
		files = append(files, ber.Encode(0xAD, content(spn)))
	}
	last := o.IMSI[len(o.IMSI)-1] - '0'
	return append(files,
		ber.Encode(0xAE, content([]byte{0x00})),
		ber.Encode(0xB2, content(binary.BigEndian.AppendUint16(nil, 1<<last))), // access class: the last digit, as usual
		ber.Encode(0xB5, content([]byte{0x00, 0x00, 0x00, byte(mnc)})),
		ber.Encode(0xB6, fcp(ber.Encode(0x82, []byte{0x42, 0x21, 0x00, 0x04})), content([]byte{0x11, 0xF2, 0xFF, 0x00})))
}

// optionalFiles is the element opt-usim, nil when there is nothing in it.
func (o Options) optionalFiles() (files [][]byte) {
	gid := func(tag ber.Tag, fid byte, value []byte) {
		if value != nil {
			files = append(files, ber.Encode(tag,
				fcp(ber.Encode(0x82, []byte{0x41, 0x21}), ber.Encode(0x83, []byte{0x6F, fid}), ber.Encode(0x80, []byte{byte(len(value))})),
				content(value)))
		}
	}
	gid(0xA5, 0x3E, o.GID1)
	gid(0xA6, 0x3F, o.GID2)
	return files
}

// serviceTable is EF_UST (3GPP TS 31.102, section 4.2.8): service n is bit n-1.
func (o Options) serviceTable() []byte {
	ust := []byte{0x0A, 0x2E, 0x10, 0x8C, 0xE7, 0x32, 0x04, 0, 0, 0, 0, 0, 0}
	set := func(service int, on bool) {
		if on {
			ust[(service-1)/8] |= 1 << ((service - 1) % 8)
		}
	}
	set(17, o.GID1 != nil)
	set(18, o.GID2 != nil)
	set(19, o.SPN != "")
	return ust
}

func fcp(parts ...[]byte) []byte { return ber.Encode(0xA1, parts...) }

func content(b []byte) []byte { return ber.Encode(0x83, b) }

// fillCommands creates one transparent file under the MF and writes n bytes
// that do not compress.
func (o Options) fillCommands(i, n int) []byte {
	return ber.Encode(0x30,
		ber.Encode(0x80), // filePath: MF
		ber.Encode(0x62,
			ber.Encode(0x82, []byte{0x41, 0x21}), ber.Encode(0x83, binary.BigEndian.AppendUint16(nil, uint16(0xA500+i))),
			ber.Encode(0x8B, []byte{0x2F, 0x06, 0x01}), ber.Encode(0x80, binary.BigEndian.AppendUint16(nil, uint16(n)))),
		ber.Encode(0x81, noise(o.ICCID, i, n)))
}

// fillOverhead is how many bytes a padding element of n bytes of content costs
// beyond them: what build and fillCommands write around it.
func fillOverhead(n int) int {
	const header, commands = 7, 2 + 19 // A0058000810100; 8000 and 62 with four parameters
	return encodedSize(header+encodedSize(encodedSize(commands+encodedSize(n)))) - n
}

// encodedSize is the size of a TLV with a tag of one byte.
func encodedSize(value int) int {
	switch {
	case value < 0x80:
		return 2 + value
	case value < 0x100:
		return 3 + value
	case value < 0x10000:
		return 4 + value
	}
	return 5 + value
}

func noise(seed rsp.ICCID, file, n int) []byte {
	var out []byte
	for counter := 0; len(out) < n; counter++ {
		sum := sha256.Sum256(fmt.Appendf(nil, "%X %d %d", seed[:], file, counter))
		out = append(out, sum[:]...)
	}
	return out[:n]
}

func counting(from byte, n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = from + byte(i)
	}
	return b
}

func swapNibbles(b []byte) []byte {
	out := make([]byte, len(b))
	for i, x := range b {
		out[i] = x<<4 | x>>4
	}
	return out
}

// encodeIMSI is the content of EF_IMSI (3GPP TS 31.102, section 4.2.2): length,
// then parity or first digit, then swapped digits, F-filled to 9 bytes.
func encodeIMSI(imsi string) []byte {
	parity := byte(1)
	if len(imsi)%2 == 1 {
		parity = 9
	}
	b := []byte{byte(len(imsi)/2 + 1), (imsi[0]-'0')<<4 | parity}
	for i := 1; i < len(imsi); i += 2 {
		high := byte(0xF)
		if i+1 < len(imsi) {
			high = imsi[i+1] - '0'
		}
		b = append(b, high<<4|(imsi[i]-'0'))
	}
	for len(b) < 9 {
		b = append(b, 0xFF)
	}
	return b
}

// gsmAlphabet is the GSM 7-bit default alphabet by code (3GPP TS 23.038,
// section 6.2.1). Code 1B is the escape to the extension table, which a name
// does not need.
var gsmAlphabet = []rune("@£$¥èéùìòÇ\nØø\rÅåΔ_ΦΓΛΩΠΨΣΘΞ\x1bÆæßÉ !\"#¤%&'()*+,-./0123456789:;<=>?¡ABCDEFGHIJKLMNOPQRSTUVWXYZÄÖÑÜ§¿abcdefghijklmnopqrstuvwxyzäöñüà")

// encodeGSM is the name with one code in a byte, false if a character is not in
// the alphabet.
func encodeGSM(name string) ([]byte, bool) {
	var b []byte
	for _, r := range name {
		code := slices.Index(gsmAlphabet, r)
		if code < 0 || r == '\x1b' {
			return nil, false
		}
		b = append(b, byte(code))
	}
	return b, true
}

// encodeSPN is the content of EF_SPN (3GPP TS 31.102, section 4.2.12): display
// condition and 16 bytes of name, in the GSM alphabet or as 80 and UCS2. nil
// for the empty name.
func encodeSPN(name string) ([]byte, error) {
	if name == "" {
		return nil, nil
	}
	b := []byte{0x01} // show the PLMN name when at home
	if gsm, ok := encodeGSM(name); ok {
		b = append(b, gsm...)
	} else {
		b = append(b, 0x80)
		for _, unit := range utf16.Encode([]rune(name)) {
			b = binary.BigEndian.AppendUint16(b, unit)
		}
	}
	if len(b) > 17 {
		return nil, fmt.Errorf("SPN of %d bytes, at most 16", len(b)-1)
	}
	for len(b) < 17 {
		b = append(b, 0xFF)
	}
	return b, nil
}
