package euicc

import (
	"bytes"
	"encoding/hex"

	"lpad/agent/rsp"
	"lpad/apdu/ber"
)

// File identifiers (ETSI TS 102 221, section 13; 3GPP TS 31.102, section 4).
const (
	fidMF  uint16 = 0x3F00
	fidADF uint16 = 0x7FFF // the current application: USIM

	fidICCID uint16 = 0x2FE2
	fidDIR   uint16 = 0x2F00
	fidPL    uint16 = 0x2F05

	fidLI    uint16 = 0x6F05
	fidIMSI  uint16 = 0x6F07
	fidUST   uint16 = 0x6F38
	fidGID1  uint16 = 0x6F3E
	fidGID2  uint16 = 0x6F3F
	fidSPN   uint16 = 0x6F46
	fidACC   uint16 = 0x6F78
	fidFPLMN uint16 = 0x6F7B
	fidAD    uint16 = 0x6FAD
	fidECC   uint16 = 0x6FB7
)

// Lengths and services of 3GPP TS 31.102.
const (
	spnLength   = 17 // section 4.2.12
	ustLength   = 17 // section 4.2.8
	serviceGID1 = 17
	serviceGID2 = 18
	serviceSPN  = 19
)

// usimRID begins the AID of every USIM (3GPP TS 31.110).
var usimRID = []byte{0xA0, 0x00, 0x00, 0x00, 0x87, 0x10, 0x02}

// defaultUSIM is the AID of the USIM of a profile made at the factory.
var defaultUSIM = rsp.AID{0xA0, 0x00, 0x00, 0x00, 0x87, 0x10, 0x02, 0xFF, 0x49, 0xFF, 0x05, 0x89}

// file is an elementary file: transparent, or linear fixed when it has records.
type file struct {
	Dir     uint16 // fidMF or fidADF
	FID     uint16
	SFI     byte     `json:",omitempty"` // 0: none
	Data    []byte   `json:",omitempty"`
	Records [][]byte `json:",omitempty"` // all of one length
}

// fileSystem is what the modem sees: the files of one profile.
type fileSystem struct {
	usim  rsp.AID // nil: no USIM
	files []file
}

func newFileSystem(p *profile) *fileSystem { return &fileSystem{usim: p.USIM, files: p.Files} }

// bareFileSystem is that of a card without an enabled profile.
func bareFileSystem(iccid rsp.ICCID) *fileSystem {
	fs := new(fileSystem)
	if !iccid.IsZero() {
		fs.files = []file{{Dir: fidMF, FID: fidICCID, SFI: 2, Data: iccid[:]}}
	}
	return fs
}

func (fs *fileSystem) hasUSIM() bool { return fs.usim != nil }

// isUSIM says whether a whole or right-truncated AID selects the USIM.
func (fs *fileSystem) isUSIM(aid []byte) bool {
	return fs.hasUSIM() && len(aid) <= len(fs.usim) && bytes.Equal(aid, fs.usim[:len(aid)])
}

func (fs *fileSystem) find(dir, fid uint16) *file {
	for i := range fs.files {
		if f := &fs.files[i]; f.Dir == dir && f.FID == fid {
			return f
		}
	}
	return nil
}

func (fs *fileSystem) bySFI(dir uint16, sfi byte) *file {
	for i := range fs.files {
		if f := &fs.files[i]; f.Dir == dir && f.SFI == sfi && sfi != 0 {
			return f
		}
	}
	return nil
}

// locate resolves a SELECT by file identifier (P1 00) or by path from the MF
// (08) or from the current directory (09).
func (fs *fileSystem) locate(dir uint16, p1 byte, data []byte) (uint16, *file, bool) {
	switch p1 {
	case 0x00:
		if len(data) == 0 {
			return fidMF, nil, true
		}
		if len(data) != 2 {
			return 0, nil, false
		}
	case 0x08:
		dir = fidMF
	case 0x09:
	default:
		return 0, nil, false
	}
	if len(data) == 0 || len(data)%2 != 0 {
		return 0, nil, false
	}
	var f *file
	for ; len(data) > 0; data = data[2:] {
		if f != nil { // an EF has nothing below it
			return 0, nil, false
		}
		var ok bool
		if dir, f, ok = fs.step(dir, uint16(data[0])<<8|uint16(data[1])); !ok {
			return 0, nil, false
		}
	}
	return dir, f, true
}

// step selects one identifier. 7FFF is the USIM whether it was selected before
// or not: the card has only one.
func (fs *fileSystem) step(dir, fid uint16) (uint16, *file, bool) {
	switch {
	case fid == fidMF:
		return fidMF, nil, true
	case fid == fidADF:
		return fidADF, nil, fs.hasUSIM()
	}
	f := fs.find(dir, fid)
	return dir, f, f != nil
}

// describe is the FCP template of a file or directory (ETSI TS 102 221, section
// 11.1.1.3).
func (fs *fileSystem) describe(dir uint16, f *file) []byte {
	lifecycle := []byte{0x8A, 0x01, 0x05}
	switch {
	case f != nil && len(f.Records) > 0:
		n, size := len(f.Records), len(f.Records[0])
		return ber.Encode(0x62, ber.Encode(0x82, []byte{0x42, 0x21, byte(size >> 8), byte(size), byte(n)}),
			fidTLV(f.FID), lifecycle, sizeTLV(n*size), f.sfiTLV())
	case f != nil:
		return ber.Encode(0x62, ber.Encode(0x82, []byte{0x41, 0x21}), fidTLV(f.FID), lifecycle, sizeTLV(len(f.Data)), f.sfiTLV())
	case dir == fidADF:
		return ber.Encode(0x62, ber.Encode(0x82, []byte{0x78, 0x21}), fidTLV(dir), ber.Encode(0x84, fs.usim), lifecycle, pinStatus)
	}
	return ber.Encode(0x62, ber.Encode(0x82, []byte{0x78, 0x21}), fidTLV(dir), lifecycle, pinStatus)
}

// pinStatus is a PIN status template: PIN1 disabled (ETSI TS 102 221, section
// 9.5.2).
var pinStatus = []byte{0xC6, 0x06, 0x90, 0x01, 0x00, 0x83, 0x01, 0x01}

func fidTLV(fid uint16) []byte { return ber.Encode(0x83, []byte{byte(fid >> 8), byte(fid)}) }

func sizeTLV(n int) []byte { return ber.Encode(0x80, []byte{byte(n >> 8), byte(n)}) }

func (f *file) sfiTLV() []byte {
	if f.SFI == 0 {
		return []byte{0x88, 0x00}
	}
	return []byte{0x88, 0x01, f.SFI << 3}
}

// current gives the EF that a command means: by short identifier, which then
// becomes the current one, or the current one.
func (c *Card) current(ch *channel, sfi byte, byShort bool) (*file, uint16) {
	if ch.isdr {
		return nil, swNoFile
	}
	if byShort {
		f := c.visible.bySFI(ch.dir, sfi)
		if f == nil {
			return nil, swNotFound
		}
		ch.file = f
	}
	if ch.file == nil {
		return nil, swNoFile
	}
	return ch.file, swOK
}

// readBinary is ETSI TS 102 221, section 11.1.3.
func (c *Card) readBinary(ch *channel, cmd command) ([]byte, uint16) {
	offset := int(cmd.p1)<<8 | int(cmd.p2)
	short := cmd.p1&0x80 != 0
	if short {
		offset = int(cmd.p2)
	}
	f, sw := c.current(ch, cmd.p1&0x1F, short)
	switch {
	case sw != swOK:
		return nil, sw
	case len(f.Records) > 0:
		return nil, swIncompatibleFile
	case offset > len(f.Data):
		return nil, swOutside
	}
	rest := f.Data[offset:]
	return c.cut(rest[:min(len(rest), maxChunk)], cmd)
}

// readRecord is ETSI TS 102 221, section 11.1.5; absolute mode only.
func (c *Card) readRecord(ch *channel, cmd command) ([]byte, uint16) {
	f, sw := c.current(ch, cmd.p2>>3, cmd.p2>>3 != 0)
	switch {
	case sw != swOK:
		return nil, sw
	case len(f.Records) == 0:
		return nil, swIncompatibleFile
	case cmd.p2&0x07 != 0x04:
		return nil, swWrongParameters
	case cmd.p1 == 0 || int(cmd.p1) > len(f.Records):
		return nil, swNoRecord
	}
	return c.cut(f.Records[cmd.p1-1], cmd)
}

// update refuses: no test needs a modem that writes, and nothing may change
// behind the back of one.
func (c *Card) update(*channel, command) ([]byte, uint16) { return nil, swSecurity }

// personalisation is what the files of a profile are made of.
type personalisation struct {
	iccid      rsp.ICCID
	usim       rsp.AID
	imsi       string
	mncLength  int
	spn        string
	gid1, gid2 []byte
}

// files lays out the files that a modem reads.
func (p personalisation) files() []file {
	list := []file{
		{Dir: fidMF, FID: fidICCID, SFI: 0x02, Data: p.iccid[:]},
		{Dir: fidMF, FID: fidPL, SFI: 0x05, Data: []byte{'e', 'n'}},
	}
	if p.usim == nil {
		return list
	}
	dir := bytes.Repeat([]byte{0xFF}, 38)
	copy(dir, ber.Encode(0x61, ber.Encode(0x4F, p.usim), ber.EncodeString(0x50, "USIM")))
	ust := make([]byte, ustLength)
	serve := func(service int) { ust[(service-1)/8] |= 1 << ((service - 1) % 8) }
	list = append(list,
		file{Dir: fidMF, FID: fidDIR, SFI: 0x1E, Records: [][]byte{dir}},
		file{Dir: fidADF, FID: fidLI, SFI: 0x02, Data: []byte{'e', 'n'}},
		file{Dir: fidADF, FID: fidAD, SFI: 0x03, Data: []byte{0, 0, 0, byte(p.mncLength)}},
		file{Dir: fidADF, FID: fidACC, SFI: 0x06, Data: []byte{0x00, 0x01}},
		file{Dir: fidADF, FID: fidFPLMN, SFI: 0x0D, Data: bytes.Repeat([]byte{0xFF}, 12)},
		file{Dir: fidADF, FID: fidECC, SFI: 0x01, Records: [][]byte{{0x11, 0xF2, 0xFF, 0x00}}})
	if p.imsi != "" {
		list = append(list, file{Dir: fidADF, FID: fidIMSI, SFI: 0x07, Data: encodeIMSI(p.imsi)})
	}
	if p.spn != "" {
		serve(serviceSPN)
		spn := bytes.Repeat([]byte{0xFF}, spnLength)
		spn[0] = 0x01 // the name of the network is to be shown as well
		copy(spn[1:], p.spn)
		list = append(list, file{Dir: fidADF, FID: fidSPN, Data: spn})
	}
	if p.gid1 != nil {
		serve(serviceGID1)
		list = append(list, file{Dir: fidADF, FID: fidGID1, Data: p.gid1})
	}
	if p.gid2 != nil {
		serve(serviceGID2)
		list = append(list, file{Dir: fidADF, FID: fidGID2, Data: p.gid2})
	}
	return append(list, file{Dir: fidADF, FID: fidUST, SFI: 0x04, Data: ust})
}

// encodeIMSI is 3GPP TS 31.102, section 4.2.2: a length, then the parity with
// the first digit, then two digits a byte.
func encodeIMSI(digits string) []byte {
	kind := "1" // even number of digits
	if len(digits)%2 == 1 {
		kind = "9"
	} else {
		digits += "F"
	}
	swapped := kind + digits
	b := make([]byte, 0, 9)
	b = append(b, byte(len(swapped)/2))
	for i := 0; i+1 < len(swapped); i += 2 {
		octet, err := hex.DecodeString(swapped[i+1:i+2] + swapped[i:i+1])
		if err != nil { // checked when the profile was made
			octet = []byte{0xFF}
		}
		b = append(b, octet...)
	}
	for len(b) < 9 {
		b = append(b, 0xFF)
	}
	return b
}
