// Package bpp takes a bound profile package apart: it checks the structure
// before the first byte goes to the card, and cuts it into the segments that
// ES10b.LoadBoundProfilePackage sends (SGP.22 v2.5, sections 2.5.4 and 2.5.5).
//
//	p, err := bpp.Parse(packageFromServer)
//	if err != nil {
//		return err // cancel with loadBppExecutionError; the card has seen nothing
//	}
//	if !bytes.Equal(p.Metadata(), offer.ProfileMetadata) {
//		return errMismatch // cancel with metadataMismatch
//	}
//	for _, segment := range p.Segments() {
//		…
//	}
//
// Nothing is decrypted: only the card can. Segments are slices of the input,
// which must not be changed; their concatenation is the package.
package bpp

import (
	"errors"
	"fmt"

	"lpad/agent/rsp"
	"lpad/apdu/ber"
)

// Limits of a package. Profiles of today have 12 to 200 kB; a segment has at
// most 1020 bytes by the specification, and a card's buffer is not much
// larger.
const (
	MaxSize     = 4 << 20 // bytes of a package
	MaxSegments = 8192
	MaxSegment  = 4096 // bytes of an element 86, 87 or 88
)

// Elements of a package.
const (
	tagPackage    ber.Tag = 0xBF36
	tagInitialise ber.Tag = 0xBF23 // InitialiseSecureChannelRequest
	tagFirst87    ber.Tag = 0xA0
	tagSeq88      ber.Tag = 0xA1
	tagSecond87   ber.Tag = 0xA2
	tagSeq86      ber.Tag = 0xA3
	tagMetadata   ber.Tag = 0xBF25
	macLength             = 8 // bytes at the end of each 86, 87 and 88
	installNew            = 1 // remoteOpId installBoundProfilePackage
)

// ErrStructure is in every error of [Parse]: the package must not go to the
// card.
var ErrStructure = errors.New("bound profile package is not well formed")

// Package is a checked bound profile package. It is read-only.
type Package struct {
	transactionID rsp.TransactionID
	metadata      []byte
	segments      [][]byte
	size          int
}

// TransactionID is the session that the package is bound to.
func (p *Package) TransactionID() rsp.TransactionID { return p.transactionID }

// Metadata is the StoreMetadataRequest inside the package, a whole TLV BF25,
// put together from its parts. The card checks its authenticity.
func (p *Package) Metadata() []byte { return p.metadata }

// Segments are the units to send, each as a chain of STORE DATA of its own.
func (p *Package) Segments() [][]byte { return p.segments }

// Size is the length of the whole package in bytes.
func (p *Package) Size() int { return p.size }

// Parse checks b completely and cuts it. Errors match [ErrStructure].
func Parse(b []byte) (*Package, error) {
	p, err := parse(b)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrStructure, err)
	}
	return p, nil
}

func parse(b []byte) (*Package, error) {
	init, seq88, segments, err := cut(b)
	if err != nil {
		return nil, err
	}
	p := &Package{segments: segments, size: len(b)}
	if p.transactionID, err = checkInitialise(init); err != nil {
		return nil, fmt.Errorf("initialiseSecureChannelRequest: %w", err)
	}
	if p.metadata, err = joinMetadata(seq88); err != nil {
		return nil, fmt.Errorf("metadata: %w", err)
	}
	return p, nil
}

// cut checks the outline of a package and cuts it into segments. It returns
// the two elements that are looked into further.
func cut(b []byte) (init, seq88 ber.TLV, segments [][]byte, err error) {
	if len(b) > MaxSize {
		return init, seq88, nil, fmt.Errorf("%d bytes, at most %d are possible", len(b), MaxSize)
	}
	outer, err := ber.Parse(b)
	if err != nil {
		return init, seq88, nil, err
	}
	if outer.Tag != tagPackage {
		return init, seq88, nil, fmt.Errorf("tag %v, want %v", outer.Tag, tagPackage)
	}
	r := outer.Reader()
	init = r.Read(tagInitialise)
	first := r.Read(tagFirst87)
	seq88 = r.Read(tagSeq88)
	second, replaced := r.Optional(tagSecond87)
	seq86 := r.Read(tagSeq86)
	if err := r.Finish(); err != nil {
		return init, seq88, nil, err
	}
	// Segment 1: the head of the package with the whole BF23.
	c := cutter{segments: [][]byte{b[:headerLength(outer)+len(init.Raw)]}}
	c.joined("firstSequenceOf87", first, 0x87)
	c.apart("sequenceOf88", seq88, 0x88)
	if replaced {
		c.joined("secondSequenceOf87", second, 0x87)
	}
	c.apart("sequenceOf86", seq86, 0x86)
	if c.err == nil {
		c.err = complete(c.segments, b)
	}
	return init, seq88, c.segments, c.err
}

// checkInitialise checks what the card would refuse, and returns the
// transactionId.
func checkInitialise(t ber.TLV) (rsp.TransactionID, error) {
	r := t.Reader()
	operation := r.Read(0x82)
	id := r.Read(0x80)
	crt := r.Read(0xA6).Reader() // controlRefTemplate: keyType, keyLen, hostId
	keyType, keyLen := crt.Read(0x80), crt.Read(0x81)
	crt.Read(0x84)
	r.Read(0x5F49) // smdpOtpk
	r.Read(0x5F37) // smdpSign
	if err := errors.Join(r.Err(), crt.Err()); err != nil {
		return nil, err
	}
	if n, err := operation.Int(); err != nil || n != installNew {
		return nil, fmt.Errorf("remoteOpId %X, want %02X", operation.Value, installNew)
	}
	if len(keyType.Value) != 1 || len(keyLen.Value) != 1 {
		return nil, errors.New("keyType or keyLen is not one byte")
	}
	octets, err := id.Octets(1, 16)
	if err != nil {
		return nil, fmt.Errorf("transactionId: %w", err)
	}
	return rsp.TransactionID(octets), nil
}

// cutter collects segments until its first error.
type cutter struct {
	segments [][]byte
	err      error
}

// joined adds a sequence whose head travels with its first element.
func (c *cutter) joined(name string, seq ber.TLV, tag ber.Tag) {
	first := true
	c.each(name, seq, tag, func(e ber.TLV) {
		s := e.Raw
		if first {
			s = seq.Raw[:headerLength(seq)+len(e.Raw)]
		}
		first = false
		c.segments = append(c.segments, s)
	})
}

// apart adds a sequence whose head travels alone.
func (c *cutter) apart(name string, seq ber.TLV, tag ber.Tag) {
	c.segments = append(c.segments, seq.Raw[:headerLength(seq)])
	c.each(name, seq, tag, func(e ber.TLV) { c.segments = append(c.segments, e.Raw) })
}

func (c *cutter) each(name string, seq ber.TLV, tag ber.Tag, add func(ber.TLV)) {
	if c.err != nil {
		return
	}
	r := seq.Reader()
	if r.Empty() && r.Err() == nil {
		c.err = fmt.Errorf("%s: no element %v", name, tag)
	}
	for n := 1; !r.Empty() && c.err == nil; n++ {
		e := r.Read(tag)
		switch {
		case r.Err() != nil:
		case len(e.Raw) > MaxSegment:
			c.err = fmt.Errorf("%s: element %d has %d bytes, at most %d are possible", name, n, len(e.Raw), MaxSegment)
		case len(c.segments) >= MaxSegments:
			c.err = fmt.Errorf("%s: more than %d segments", name, MaxSegments)
		default:
			add(e)
		}
	}
	if err := r.Err(); err != nil && c.err == nil {
		c.err = fmt.Errorf("%s: %w", name, err)
	}
}

// joinMetadata puts StoreMetadataRequest together: the values of all 88
// without the MAC at the end of each.
func joinMetadata(seq ber.TLV) ([]byte, error) {
	var joined []byte
	r := seq.Reader()
	for e, ok := r.Next(); ok; e, ok = r.Next() {
		if len(e.Value) <= macLength {
			return nil, errors.New("an element 88 is too short for its MAC")
		}
		joined = append(joined, e.Value[:len(e.Value)-macLength]...)
	}
	if err := r.Err(); err != nil {
		return nil, err
	}
	t, err := ber.Parse(joined)
	if err != nil {
		return nil, err
	}
	if t.Tag != tagMetadata {
		return nil, fmt.Errorf("tag %v, want %v", t.Tag, tagMetadata)
	}
	return joined, nil
}

// complete asserts that the segments are the package, byte for byte.
func complete(segments [][]byte, b []byte) error {
	at := 0
	for _, s := range segments {
		if at+len(s) > len(b) || &b[at] != &s[0] {
			return fmt.Errorf("segments do not follow each other at byte %d", at)
		}
		at += len(s)
	}
	if at != len(b) {
		return fmt.Errorf("segments have %d of %d bytes", at, len(b))
	}
	return nil
}

// headerLength is the length of tag and length field as received.
func headerLength(t ber.TLV) int { return len(t.Raw) - len(t.Value) }
