package upp

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"unicode/utf16"

	"lpad/agent/rsp"
	"lpad/apdu/ber"
)

// Limits of a profile package.
const (
	maxUPP      = 2 << 20
	maxFile     = 64 << 10 // bytes of one file; efFileSize has two bytes in all profiles
	maxAllFiles = 4 << 20  // bytes of all files, so that patterns cannot blow up a small package
)

// Status is a PE status of an EUICCResponse (TCA profile package, module PEDefinitions): what a card says about a profile element.
type Status int

// The statuses that Parse gives.
const (
	NotSupported     Status = 1  // pe-not-supported
	BadValues        Status = 3  // bad-values
	InvalidFormat    Status = 5  // invalid-request-format
	InvalidParameter Status = 6  // invalid-parameter
	BadVersion       Status = 31 // unsupported-profile-version
)

// Error is a profile that a card does not install.
type Error struct {
	Status Status
	PE     int // identification of the profile element, 0 for the header and where it is not known
	Detail string
	cause  error
}

func (e *Error) Error() string {
	text := fmt.Sprintf("profile element %d: %s (status %d)", e.PE, e.Detail, e.Status)
	if e.cause != nil {
		text += ": " + e.cause.Error()
	}
	return text
}

func (e *Error) Unwrap() error { return e.cause }

// ErrICCID is matched by the error for a profile whose header and EF_ICCID
// name different profiles: errorReason 13, dataMismatch.
var ErrICCID = errors.New("ICCID of header and file differ")

// ErrorReason is the errorReason of the ProfileInstallationResult: 13
// (installFailedDueToDataMismatch) or 12 (installFailedDueToPEProcessingError).
func (e *Error) ErrorReason() int {
	if errors.Is(e.cause, ErrICCID) {
		return 13
	}
	return 12
}

// Response is the EUICCResponse of a card for this error: one PEStatus, and
// aborted. [OK] is the one for success.
func (e *Error) Response() []byte {
	return ber.Encode(0x30, ber.Encode(0xA0, ber.Encode(0x30, ber.EncodeInt(0x80, int64(e.Status)), ber.EncodeInt(0x81, int64(e.PE)))), ber.Encode(0x81))
}

// OK is the EUICCResponse of a card that installed everything.
func OK() []byte { return ber.Encode(0x30, ber.Encode(0xA0, ber.Encode(0x30, ber.EncodeInt(0x80, 0)))) }

// Header is the first profile element.
type Header struct {
	Major, Minor int // version of the profile package specification
	ProfileType  string
	ICCID        rsp.ICCID
}

// File is an elementary file.
type File struct {
	Path         string // "2FE2", "7FFF/6F07"
	RecordLength int    // bytes of a record, 0 for a transparent file
	Content      []byte // all of it; records one after the other
}

// Record is record n, counted from 1.
func (f File) Record(n int) ([]byte, bool) {
	if f.RecordLength == 0 || n < 1 || n*f.RecordLength > len(f.Content) {
		return nil, false
	}
	return f.Content[(n-1)*f.RecordLength : n*f.RecordLength], true
}

// Files is what a software eUICC keeps of a profile.
type Files struct {
	Header  Header
	USIMAID []byte          // from the ADF of the USIM; nil without one
	EF      map[string]File // by path
	PEs     []ber.Tag       // the elements in their order
}

// ICCID is the content of EF_ICCID.
func (f Files) ICCID() rsp.ICCID {
	iccid, err := rsp.ICCIDFromBytes(f.EF[PathICCID].Content)
	if err != nil {
		return f.Header.ICCID
	}
	return iccid
}

// IMSI is the digits of EF_IMSI, empty without one.
func (f Files) IMSI() string {
	b := f.EF[PathIMSI].Content
	if len(b) < 2 || b[0] == 0 || int(b[0]) >= len(b) {
		return ""
	}
	digits := hex.EncodeToString(swapNibbles(b[1 : 1+int(b[0])]))
	return strings.TrimRight(digits[1:], "f")
}

// MNCLength is the number of digits of the MNC by EF_AD, 0 when it does not say.
func (f Files) MNCLength() int {
	if b := f.EF[PathAD].Content; len(b) >= 4 && (b[3]&0x0F == 2 || b[3]&0x0F == 3) {
		return int(b[3] & 0x0F)
	}
	return 0
}

// SPN is the name in EF_SPN, empty without one.
func (f Files) SPN() string {
	b := f.EF[PathSPN].Content
	if len(b) < 2 || b[1] == 0xFF {
		return ""
	}
	if b[1] == 0x80 {
		var units []uint16
		for i := 2; i+1 < len(b) && (b[i] != 0xFF || b[i+1] != 0xFF); i += 2 {
			units = append(units, uint16(b[i])<<8|uint16(b[i+1]))
		}
		return string(utf16.Decode(units))
	}
	var name strings.Builder
	for _, code := range bytes.TrimRight(b[1:], "\xFF") {
		if int(code) < len(gsmAlphabet) {
			name.WriteRune(gsmAlphabet[code])
		}
	}
	return name.String()
}

// GID1 is the content of EF_GID1, nil when there is none or it is not set.
func (f Files) GID1() []byte { return unlessFF(f.EF[PathGID1].Content) }

// GID2 is the content of EF_GID2.
func (f Files) GID2() []byte { return unlessFF(f.EF[PathGID2].Content) }

func unlessFF(b []byte) []byte {
	if len(bytes.Trim(b, "\xFF")) == 0 {
		return nil
	}
	return b
}

// Parse reads a whole profile package. The error is a [*Error].
func Parse(upp []byte) (Files, error) {
	p := parser{files: Files{EF: map[string]File{}}}
	if err := p.run(upp); err != nil {
		return Files{}, err
	}
	return p.files, nil
}

// parser is the interpreter's state.
type parser struct {
	files Files
	pe    int // identification of the current element
	total int // bytes in files
	seen  map[int]bool
	usim  bool // an ADF USIM has been created
}

func (p *parser) fail(status Status, detail string, cause error) error {
	return &Error{status, p.pe, detail, cause}
}

func (p *parser) run(upp []byte) error {
	if len(upp) > maxUPP {
		return p.fail(InvalidFormat, fmt.Sprintf("package of %d bytes, at most %d", len(upp), maxUPP), nil)
	}
	p.seen = map[int]bool{}
	r := ber.NewReader(upp)
	ended := false
	for !r.Empty() {
		element, ok := r.Next()
		if !ok {
			break
		}
		if ended {
			return p.fail(InvalidFormat, "elements after the end", nil)
		}
		if len(p.files.PEs) == 0 && element.Tag != peHeader {
			return p.fail(InvalidFormat, "the first element is not the header", nil)
		}
		if err := p.element(element); err != nil {
			return err
		}
		p.files.PEs = append(p.files.PEs, element.Tag)
		ended = element.Tag == peEnd
	}
	if err := r.Err(); err != nil {
		return p.fail(InvalidFormat, "element", err)
	}
	if !ended {
		return p.fail(InvalidFormat, "no end element", nil)
	}
	return p.checkICCID()
}

func (p *parser) checkICCID() error {
	p.pe = 0
	ef, ok := p.files.EF[PathICCID]
	if !ok {
		return p.fail(BadValues, "no EF_ICCID", nil)
	}
	if !bytes.Equal(ef.Content, p.files.Header.ICCID[:]) {
		return p.fail(BadValues, "EF_ICCID", ErrICCID)
	}
	return nil
}

func (p *parser) element(t ber.TLV) error {
	p.pe = 0
	r := t.Reader()
	if t.Tag == peHeader {
		if len(p.files.PEs) > 0 {
			return p.fail(InvalidFormat, "second header", nil)
		}
		return p.header(r)
	}
	header := r.Read(0xA0).Reader()
	if _, ok := header.Optional(0x80); !ok && header.Err() == nil {
		// Not mandated: an element that this card does not know may be skipped.
		if !known(t.Tag) {
			return nil
		}
	}
	// The PE header of rfm and application elements is the same; identification
	// is unique in the profile.
	id, err := header.Read(0x81).Int()
	if err := errors.Join(r.Err(), header.Err(), err); err != nil {
		return p.fail(InvalidFormat, "element header", err)
	}
	p.pe = int(id)
	if p.seen[p.pe] {
		return p.fail(InvalidFormat, "identification used twice", nil)
	}
	p.seen[p.pe] = true
	switch t.Tag {
	case peMF:
		return p.template(r, "", mfFiles)
	case peUSIM:
		return p.template(r, "7FFF/", usimFiles)
	case peOptUSIM:
		if !p.usim {
			return p.fail(InvalidParameter, "opt-usim before usim", nil)
		}
		return p.template(r, "7FFF/", optUSIMFiles)
	case peGeneric:
		return p.generic(r)
	}
	if !known(t.Tag) {
		return p.fail(NotSupported, "element "+t.Tag.String(), nil)
	}
	return p.passOver(r)
}

// known are the element tags of profile package 3.3.1, A0 to BF22.
func known(t ber.Tag) bool {
	return t >= 0xA0 && t <= 0xBE || t >= 0xBF1F && t <= 0xBF22
}

// passOver checks that the rest of an element is well-formed at its first
// level: keys, security domains and applications are not interpreted.
func (p *parser) passOver(r *ber.Reader) error {
	for !r.Empty() {
		if _, ok := r.Next(); !ok {
			break
		}
	}
	if err := r.Err(); err != nil {
		return p.fail(InvalidFormat, "content", err)
	}
	return nil
}

func (p *parser) header(r *ber.Reader) error {
	major, errMajor := r.Read(0x80).Int()
	minor, errMinor := r.Read(0x81).Int()
	h := &p.files.Header
	if name, ok := r.Optional(0x82); ok {
		h.ProfileType = string(name.Value)
	}
	iccid := r.Read(0x83)
	if err := errors.Join(errMajor, errMinor, r.Err()); err != nil {
		return p.fail(InvalidFormat, "header", err)
	}
	if err := p.passOver(r); err != nil {
		return err
	}
	h.Major, h.Minor = int(major), int(minor)
	if major < 1 || major > 3 {
		return p.fail(BadVersion, fmt.Sprintf("version %d.%d", major, minor), nil)
	}
	var err error
	if h.ICCID, err = rsp.ICCIDFromBytes(swapNibbles(iccid.Value)); err != nil || len(iccid.Value) != len(h.ICCID) {
		return p.fail(BadValues, "ICCID in the header", err)
	}
	return nil
}

// template reads an element that fills in a template: an optional template
// identifier, then files by tag.
func (p *parser) template(r *ber.Reader, prefix string, defaults map[ber.Tag]fileDefault) error {
	for !r.Empty() {
		t, ok := r.Next()
		if !ok {
			break
		}
		switch {
		case !t.Tag.Constructed(): // templateID
		case t.Tag == 0xA2 && prefix == "":
		case t.Tag == 0xA2 && !p.usim:
			if err := p.adf(t); err != nil {
				return err
			}
		default:
			if err := p.file(t, prefix, defaults[t.Tag]); err != nil {
				return err
			}
		}
	}
	if err := r.Err(); err != nil {
		return p.fail(InvalidFormat, "content", err)
	}
	return nil
}

// adf reads adf-usim: the application identifier.
func (p *parser) adf(t ber.TLV) error {
	r := t.Reader()
	parameters := r.Read(0xA1).Reader()
	aid, ok := parameters.Find(0x84)
	if err := errors.Join(r.Err(), parameters.Err()); err != nil {
		return p.fail(InvalidFormat, "ADF", err)
	}
	if ok {
		p.files.USIMAID = aid.Value
	}
	p.usim = true
	return nil
}

// draft is a file while commands write to it.
type draft struct {
	fid          uint16
	size         int // -1: as large as what is written
	recordLength int
	fill, repeat []byte
	content      []byte
	at           int
}

// parameters reads an Fcp (TCA profile package, section 8.3.3).
func (p *parser) parameters(d *draft, t ber.TLV) error {
	r := t.Reader()
	for !r.Empty() {
		v, ok := r.Next()
		if !ok {
			break
		}
		switch v.Tag {
		case 0x80: // efFileSize
			n, err := unsigned(v.Value, maxFile)
			if err != nil {
				return p.fail(BadValues, "file size", err)
			}
			d.size = n
		case 0x82: // fileDescriptor; bits 2 and 1 hold the structure, records have two more bytes
			if len(v.Value) >= 4 && v.Value[0]&0x02 != 0 {
				d.recordLength = int(v.Value[2])<<8 | int(v.Value[3])
			}
		case 0x83:
			if len(v.Value) != 2 {
				return p.fail(BadValues, "file identifier", nil)
			}
			d.fid = uint16(v.Value[0])<<8 | uint16(v.Value[1])
		case 0xA5: // proprietary information: patterns
			if err := p.patterns(d, v.Reader()); err != nil {
				return err
			}
		}
	}
	if err := r.Err(); err != nil {
		return p.fail(InvalidFormat, "file control parameters", err)
	}
	return nil
}

func (p *parser) patterns(d *draft, r *ber.Reader) error {
	for !r.Empty() {
		v, ok := r.Next()
		if !ok {
			break
		}
		switch v.Tag {
		case 0xC1:
			d.fill = v.Value
		case 0xC2:
			d.repeat = v.Value
		}
	}
	if err := r.Err(); err != nil {
		return p.fail(InvalidFormat, "proprietary information", err)
	}
	return nil
}

// unsigned reads a big-endian number of any length up to a limit.
func unsigned(b []byte, limit int) (int, error) {
	n := 0
	for _, octet := range b {
		if n = n<<8 | int(octet); n > limit {
			return 0, fmt.Errorf("more than %d", limit)
		}
	}
	return n, nil
}

// file reads a File: a list of doNotCreate, fileDescriptor, fillFileOffset and
// fillFileContent.
func (p *parser) file(t ber.TLV, prefix string, by fileDefault) error {
	d := &draft{fid: by.fid, size: -1}
	if by.size > 0 {
		d.size = by.size
	}
	r := t.Reader()
	for !r.Empty() {
		v, ok := r.Next()
		if !ok {
			break
		}
		var err error
		switch v.Tag {
		case 0x80: // doNotCreate
			return nil
		case 0xA1:
			err = p.parameters(d, v)
		case 0x82:
			err = p.skip(d, v.Value)
		case 0x83:
			err = p.write(d, v.Value)
		default:
			err = p.fail(InvalidFormat, "file command "+v.Tag.String(), nil)
		}
		if err != nil {
			return err
		}
	}
	if err := r.Err(); err != nil {
		return p.fail(InvalidFormat, "file", err)
	}
	return p.create(prefix, d)
}

// skip is fillFileOffset: relative to where the last content ended.
func (p *parser) skip(d *draft, value []byte) error {
	n, err := unsigned(value, maxFile)
	if err != nil || d.at+n > maxFile {
		return p.fail(BadValues, "file offset", err)
	}
	d.at += n
	return nil
}

func (p *parser) write(d *draft, value []byte) error {
	end := d.at + len(value)
	if end > maxFile || d.size >= 0 && end > d.size {
		return p.fail(BadValues, fmt.Sprintf("content of %d bytes for file %04X of %d", end, d.fid, d.size), nil)
	}
	if end > len(d.content) {
		d.content = append(d.content, bytes.Repeat([]byte{0xFF}, end-len(d.content))...)
	}
	copy(d.content[d.at:], value)
	d.at = end
	return nil
}

// create puts the finished file into the tree: written bytes over the pattern
// over FF.
func (p *parser) create(prefix string, d *draft) error {
	if d.fid == 0 || d.fid>>8 == 0x5F || d.fid>>8 == 0x7F { // a directory, or a file that the template names and we need not
		return nil
	}
	size := d.size
	if size < 0 {
		size = len(d.content)
	}
	if d.recordLength > 0 && size%d.recordLength != 0 {
		size += d.recordLength - size%d.recordLength
	}
	if p.total += size; p.total > maxAllFiles {
		return p.fail(BadValues, "too much in files", nil)
	}
	content := make([]byte, size)
	unit := size // a pattern fills the file, or each record
	if d.recordLength > 0 {
		unit = d.recordLength
	}
	for i := range content {
		content[i] = patternAt(d, i%max(1, unit))
	}
	copy(content, d.content)
	path := fmt.Sprintf("%s%04X", prefix, d.fid)
	p.files.EF[path] = File{path, d.recordLength, content}
	return nil
}

func patternAt(d *draft, i int) byte {
	switch {
	case len(d.fill) > 0: // the last byte goes on to the end
		return d.fill[min(i, len(d.fill)-1)]
	case len(d.repeat) > 0:
		return d.repeat[i%len(d.repeat)]
	}
	return 0xFF
}

// generic reads genericFileManagement: lists of commands that select, create
// and fill. Files below directories other than MF and ADF USIM are passed over.
func (p *parser) generic(r *ber.Reader) error {
	lists := r.Read(0xA1).Reader()
	for !lists.Empty() {
		if err := p.commands(lists.Read(0x30).Reader()); err != nil {
			return err
		}
	}
	if err := errors.Join(lists.Err(), r.Finish()); err != nil {
		return p.fail(InvalidFormat, "file management", err)
	}
	return nil
}

func (p *parser) commands(r *ber.Reader) error {
	prefix, keep := "", true
	var d *draft
	finish := func() error {
		if d == nil || !keep {
			return nil
		}
		return p.create(prefix, d)
	}
	for !r.Empty() {
		v, ok := r.Next()
		if !ok {
			break
		}
		var err error
		switch v.Tag {
		case 0x80: // filePath, from the MF
			err = finish()
			d = nil
			prefix, keep = p.directory(v.Value)
		case 0x62: // createFCP
			err = finish()
			d = &draft{size: -1}
			if err == nil {
				err = p.parameters(d, v)
			}
			if d.fid>>8 == 0x7F || d.fid>>8 == 0x5F { // a directory becomes the current one
				prefix, keep = "", false
			}
		case 0x81, 0x82, 0x02: // fillFileContent, fillFileOffset, which has its universal tag here, as TS.48 shows
			if d == nil {
				d = &draft{size: -1}
			}
			if v.Tag == 0x81 {
				err = p.write(d, v.Value)
			} else {
				err = p.skip(d, v.Value)
			}
		default:
			err = p.fail(InvalidFormat, "file command "+v.Tag.String(), nil)
		}
		if err != nil {
			return err
		}
	}
	if err := r.Err(); err != nil {
		return p.fail(InvalidFormat, "file management command", err)
	}
	return finish()
}

// directory turns a path of file identifiers into a prefix of [Files.EF].
func (p *parser) directory(path []byte) (prefix string, keep bool) {
	switch {
	case len(path) == 0 || bytes.Equal(path, []byte{0x3F, 0x00}):
		return "", true
	case bytes.Equal(path, []byte{0x7F, 0xD0}), bytes.Equal(path, []byte{0x7F, 0xFF}):
		return "7FFF/", true // the temporary identifier of the ADF USIM in TS.48 and ours
	}
	return "", false
}

// Paths are the paths of all files, sorted.
func (f Files) Paths() []string { return slices.Sorted(maps.Keys(f.EF)) }
