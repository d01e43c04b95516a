package euicc

import (
	"errors"
	"slices"
	"strconv"
	"strings"

	"lpad/agent/rsp/rsptest/upp"
	"lpad/apdu/ber"
)

// peEnd is the tag of the last profile element.
const peEnd ber.Tag = 0xAA

// peInvalidFormat is the EUICCResponse of a card to a profile package that
// does not have the form of one.
func peInvalidFormat() []byte { return (&upp.Error{Status: upp.InvalidFormat}).Response() }

// unpack makes the files of a profile from its package and compares the
// package with the metadata.
func (c *Card) unpack(p *profile, b []byte) error {
	if c.config.OpaqueUPP {
		p.Files = personalisation{iccid: p.ICCID}.files()
		return nil
	}
	files, err := upp.Parse(b)
	if err != nil {
		var refused *upp.Error
		if errors.As(err, &refused) {
			return &loadError{refused.ErrorReason(), refused.Response()}
		}
		return &loadError{peProcessingError, peInvalidFormat()}
	}
	if files.Header.ICCID != p.ICCID || files.ICCID() != p.ICCID {
		return refuseLoad(dataMismatch)
	}
	p.USIM = slices.Clone(files.USIMAID)
	for _, path := range files.Paths() {
		if f, ok := fileOf(files.EF[path]); ok {
			p.Files = append(p.Files, f)
		}
	}
	return nil
}

// shortIdentifiers are those that the templates give (ETSI TS 102 221, section
// 13; 3GPP TS 31.102, annex H).
var shortIdentifiers = map[uint16]byte{
	fidICCID: 0x02, fidDIR: 0x1E, fidPL: 0x05,
	fidECC: 0x01, fidLI: 0x02, fidAD: 0x03, fidUST: 0x04, fidACC: 0x06, fidIMSI: 0x07, fidFPLMN: 0x0D,
}

// fileOf takes over a file of a package; false for one that lies where no
// modem looks.
func fileOf(f upp.File) (file, bool) {
	name, inADF := strings.CutPrefix(f.Path, "7FFF/")
	fid, err := strconv.ParseUint(name, 16, 16)
	if err != nil {
		return file{}, false
	}
	out := file{Dir: fidMF, FID: uint16(fid), SFI: shortIdentifiers[uint16(fid)]}
	if inADF {
		out.Dir = fidADF
	}
	if f.RecordLength == 0 {
		out.Data = slices.Clone(f.Content)
		return out, true
	}
	for n := 1; ; n++ {
		record, ok := f.Record(n)
		if !ok {
			break
		}
		out.Records = append(out.Records, slices.Clone(record))
	}
	return out, len(out.Records) > 0
}
