package euicc

import (
	"bytes"
	"errors"
	"slices"

	"lpad/agent/rsp"
	"lpad/agent/rsp/rsptest/bsp"
	"lpad/agent/rsp/rsptest/pki"
	"lpad/agent/rsp/rsptest/upp"
	"lpad/apdu/ber"
)

// bppCommandId of a ProfileInstallationResult (SGP.22 v2.5, section 2.5.6).
const (
	cmdInitialiseSecureChannel = 0
	cmdConfigureISDP           = 1
	cmdStoreMetadata           = 2
	cmdReplaceSessionKeys      = 4
	cmdLoadProfileElements     = 5
)

// errorReason of a ProfileInstallationResult.
const (
	incorrectInputValues           = 1
	loadInvalidSignature           = 2
	loadInvalidTransactionID       = 3
	unsupportedCrtValues           = 4
	unsupportedRemoteOperationType = 5
	unsupportedProfileClass        = 6
	scp03tStructureError           = 7
	scp03tSecurityError            = 8
	iccidAlreadyExists             = 9
	insufficientMemory             = 10
	interruption                   = 11
	peProcessingError              = 12
	dataMismatch                   = 13
	pprNotAllowed                  = 15
)

// Containers and elements of a Bound Profile Package (SGP.22 v2.5, section
// 2.5.3).
const (
	tagPackage     ber.Tag = 0xBF36
	tagInitialise  ber.Tag = 0xBF23
	tagConfigure   ber.Tag = 0xA0
	tagMetadata    ber.Tag = 0xA1
	tagSessionKeys ber.Tag = 0xA2
	tagElements    ber.Tag = 0xA3
)

// longSegment is what the padding of one more block makes of a full segment.
const longSegment = bsp.MaxSegment + 16

// maxPackage bounds a profile package, in bytes: far more than any card has.
const maxPackage = 4 << 20

// isSegment says whether a message with this tag belongs to a package.
func isSegment(t ber.Tag) bool {
	switch t {
	case tagPackage, tagConfigure, tagMetadata, tagSessionKeys, tagElements, bsp.Tag86, bsp.Tag87, bsp.Tag88:
		return true
	}
	return false
}

// load is a package on its way in.
type load struct {
	keys      *bsp.Session
	segment   int     // number of the segment in progress, 1 is the first
	remaining int     // bytes of the package that have not been announced by a container yet
	container ber.Tag // the container in progress or, when nothing of it is left, the one that was last
	left      int     // bytes of the container that are still to come
	plain     []byte  // what the segments of this container have brought
	data      []byte  // dpProprietaryData of ConfigureISDP: a whole TLV B8
	metadata  *metadata
	scanned   int  // bytes of the profile package that were gone over, up to the end of a PE
	ended     bool // PE "end" was seen
}

// command is the bppCommandId of what is in progress.
func (l *load) command() int {
	switch l.container {
	case tagConfigure:
		return cmdConfigureISDP
	case tagMetadata:
		return cmdStoreMetadata
	case tagSessionKeys:
		return cmdReplaceSessionKeys
	case tagElements:
		return cmdLoadProfileElements
	}
	return cmdInitialiseSecureChannel
}

// inside is the tag of the elements of a container.
func inside(container ber.Tag) ber.Tag {
	switch container {
	case tagMetadata:
		return bsp.Tag88
	case tagElements:
		return bsp.Tag86
	}
	return bsp.Tag87
}

// follows says whether a container may come after another.
func follows(next, last ber.Tag) bool {
	switch next {
	case tagConfigure:
		return last == tagInitialise
	case tagMetadata:
		return last == tagConfigure
	case tagSessionKeys:
		return last == tagMetadata
	case tagElements:
		return last == tagMetadata || last == tagSessionKeys
	}
	return false
}

// loadError is a failure with its place in the ProfileInstallationResult.
type loadError struct {
	reason   int
	response []byte // simaResponse, nil: none
}

// Error implements error.
func (e *loadError) Error() string { return "the package was refused" }

func refuseLoad(reason int) error { return &loadError{reason: reason} }

// loadSegment takes one segment (SGP.22 v2.5, sections 2.5.5 and 5.7.6). The
// first segment that fails, and the last one, answer with the
// ProfileInstallationResult.
func (c *Card) loadSegment(tag ber.Tag, b []byte) ([]byte, uint16) {
	s := &c.session
	switch {
	case tag == tagPackage && s.state == bound:
		s.state, s.load = loading, &load{container: tagInitialise}
	case tag == tagPackage || s.state != loading:
		return nil, swConditions
	}
	l := s.load
	l.segment++
	var err error
	if tag == tagPackage {
		err = c.initialiseSecureChannel(l, b)
	} else {
		err = c.nextSegment(l, tag, b)
	}
	if f := c.loadFault(l.segment, l.command()); f != nil && err == nil {
		if f.Command != 0 {
			return c.failLoad(f.Command, refuseLoad(f.Result)), swOK
		}
		err = refuseLoad(f.Result)
	}
	switch {
	case err != nil:
		return c.failLoad(l.command(), err), swOK
	case l.container == tagElements && l.left == 0 && l.remaining == 0:
		return c.install(l), swOK
	}
	return nil, swOK
}

// initialiseSecureChannel is ES8+.InitialiseSecureChannel, SGP.22 v2.5, section
// 5.5.1: the head of BF36 and the whole BF23 are one segment.
func (c *Card) initialiseSecureChannel(l *load, b []byte) error {
	s := &c.session
	_, head, length, err := ber.ParseHeader(b)
	if err != nil {
		return refuseLoad(scp03tStructureError)
	}
	t, err := ber.Parse(b[head:])
	if err != nil || t.Tag != tagInitialise || len(t.Raw) > length {
		return refuseLoad(scp03tStructureError)
	}
	l.remaining = length - len(t.Raw)
	r := t.Reader()
	operation, transactionID, crt := r.Read(0x82), r.Read(0x80), r.Read(0xA6)
	otPK, signature := r.Read(0x5F49), r.Read(0x5F37)
	hostID, crtError := parseCRT(crt)
	number, err := operation.Int()
	switch {
	case err != nil || r.Finish() != nil:
		return refuseLoad(incorrectInputValues)
	case number != 1: // installBoundProfilePackage
		return refuseLoad(unsupportedRemoteOperationType)
	case !bytes.Equal(transactionID.Value, s.transactionID):
		return refuseLoad(loadInvalidTransactionID)
	case crtError != nil:
		return crtError
	case bytes.Equal(hostID, c.config.EID[:]):
		return refuseLoad(incorrectInputValues)
	}
	signed := slices.Concat(operation.Raw, transactionID.Raw, crt.Raw, otPK.Raw, ber.Encode(0x5F49, s.key.Public()))
	if !pki.Verify(s.binding.Curve, s.binding.PublicKey, signed, signature.Value) {
		return refuseLoad(loadInvalidSignature)
	}
	z, err := s.key.ECDH(otPK.Value)
	if err != nil {
		return refuseLoad(incorrectInputValues)
	}
	l.keys = bsp.NewSession(bsp.DeriveKeys(z, hostID, c.config.EID))
	if c.config.Quirks.LongSegments {
		l.keys.Longest = longSegment
	}
	c.mem.Loading = &interrupted{TransactionID: s.transactionID, Address: s.address, OID: s.oid, CI: s.identity.CI()}
	c.commit()
	return nil
}

// parseCRT reads the control reference template: key type AES, 16 bytes, and
// the host id.
func parseCRT(t ber.TLV) (hostID []byte, err error) {
	r := t.Reader()
	keyType, keyLength, host := r.Read(0x80), r.Read(0x81), r.Read(0x84)
	hostID, hostError := host.Octets(1, 16)
	switch {
	case r.Finish() != nil || hostError != nil:
		return nil, refuseLoad(incorrectInputValues)
	case !bytes.Equal(keyType.Value, []byte{bsp.KeyTypeAES}) || !bytes.Equal(keyLength.Value, []byte{bsp.KeyLength}):
		return nil, refuseLoad(unsupportedCrtValues)
	}
	return hostID, nil
}

// nextSegment takes a segment after the first one.
func (c *Card) nextSegment(l *load, tag ber.Tag, b []byte) error {
	if l.left > 0 { // one element of the container in progress
		return c.element(l, b)
	}
	_, head, length, err := ber.ParseHeader(b)
	if err != nil || !follows(tag, l.container) || length == 0 || head+length > l.remaining {
		return refuseLoad(scp03tStructureError)
	}
	l.container, l.left, l.plain = tag, length, nil
	l.remaining -= head + length
	rest := b[head:]
	switch inside(tag) {
	case bsp.Tag87: // the head comes with the first 87
		if len(rest) == 0 {
			return refuseLoad(scp03tStructureError)
		}
		return c.firstElements(l, rest)
	default: // the head comes alone
		if len(rest) > 0 {
			return refuseLoad(scp03tStructureError)
		}
	}
	return nil
}

// firstElements takes what came with the head of a container of 87: one, or all
// of them from some LPAs.
func (c *Card) firstElements(l *load, b []byte) error {
	if !c.config.Quirks.WholeSequences {
		return c.element(l, b)
	}
	r := ber.NewReader(b)
	for t, ok := r.Next(); ok; t, ok = r.Next() {
		if err := c.element(l, t.Raw); err != nil {
			return err
		}
	}
	if r.Err() != nil {
		return refuseLoad(scp03tStructureError)
	}
	return nil
}

// element checks and decrypts one 86, 87 or 88.
func (c *Card) element(l *load, b []byte) error {
	t, err := ber.Parse(b)
	if err != nil || t.Tag != inside(l.container) || len(b) > l.left {
		return refuseLoad(scp03tStructureError)
	}
	_, plain, err := l.keys.Unprotect(b)
	switch {
	case errors.Is(err, bsp.ErrSecurity):
		return refuseLoad(scp03tSecurityError)
	case err != nil:
		return refuseLoad(scp03tStructureError)
	}
	l.left -= len(b)
	l.plain = append(l.plain, plain...)
	if l.container == tagElements {
		return c.profileElements(l)
	}
	if l.left > 0 {
		return nil
	}
	switch l.container {
	case tagConfigure:
		return l.configureISDP()
	case tagMetadata:
		return c.storeMetadata(l)
	}
	keys, err := bsp.ParseKeys(l.plain)
	if err != nil {
		return refuseLoad(incorrectInputValues)
	}
	l.keys.ReplaceKeys(keys)
	return nil
}

// maxProprietary is the most that dpProprietaryData may have, in bytes.
const maxProprietary = 128

// checkProprietary accepts dpProprietaryData that is short enough and begins
// with its OID (SGP.22 v2.5, section 5.5.2). Servers write the tag of the
// module or that of an OID.
func checkProprietary(data ber.TLV) error {
	oid, _ := data.Reader().Next()
	if len(data.Raw) > maxProprietary || oid.Tag != 0x80 && oid.Tag != 0x06 || len(oid.Value) == 0 {
		return errMetadata
	}
	return nil
}

// configureISDP is ES8+.ConfigureISDP, SGP.22 v2.5, section 5.5.2.
func (l *load) configureISDP() error {
	t, err := ber.Parse(l.plain)
	if err != nil || t.Tag != 0xBF24 {
		return refuseLoad(incorrectInputValues)
	}
	r := t.Reader()
	if data, ok := r.Optional(0xB8); ok {
		if checkProprietary(data) != nil {
			return refuseLoad(incorrectInputValues)
		}
		l.data = append([]byte(nil), data.Raw...)
	}
	if r.Finish() != nil {
		return refuseLoad(incorrectInputValues)
	}
	return nil
}

// storeMetadata is ES8+.StoreMetadata, SGP.22 v2.5, section 5.5.3.
func (c *Card) storeMetadata(l *load) error {
	m, err := parseMetadata(l.plain)
	if err != nil {
		return refuseLoad(incorrectInputValues)
	}
	switch {
	case c.mem.byICCID(m.iccid) != nil:
		return refuseLoad(iccidAlreadyExists)
	case m.class == classTest && !c.can(capTestProfile):
		return refuseLoad(unsupportedProfileClass)
	case !c.allows(m):
		return refuseLoad(pprNotAllowed)
	case c.freeMemory() == 0:
		return refuseLoad(insufficientMemory)
	}
	if l.data != nil && m.elements[0xB8] == nil {
		m.elements[0xB8] = l.data
	}
	l.metadata = m
	c.mem.Loading.ICCID, c.mem.Loading.Command = &m.iccid, cmdLoadProfileElements
	c.commit()
	return nil
}

// profileElements goes over what has come of the profile package: it must fit
// into the memory, and nothing may follow the PE "end" (SGP.22 v2.5, section
// 2.5.3; TCA profile interoperability, section 3).
func (c *Card) profileElements(l *load) error {
	if len(l.plain) > min(c.freeMemory(), maxPackage) {
		return refuseLoad(insufficientMemory)
	}
	if c.config.OpaqueUPP {
		l.ended = true
		return nil
	}
	for l.scanned < len(l.plain) {
		if l.ended {
			return &loadError{peProcessingError, peInvalidFormat()}
		}
		tag, head, length, err := ber.ParseHeader(l.plain[l.scanned:])
		switch {
		case err != nil && len(l.plain)-l.scanned < maxHeader && l.left > 0, err == nil && l.scanned+head+length > len(l.plain):
			return c.elementsComplete(l) // the rest of this PE is still to come
		case err != nil:
			return &loadError{peProcessingError, peInvalidFormat()}
		}
		l.scanned += head + length
		l.ended = tag == peEnd
	}
	return c.elementsComplete(l)
}

// maxHeader is the longest tag and length that ber reads.
const maxHeader = 7

// elementsComplete refuses a package that is over without a PE "end".
func (c *Card) elementsComplete(l *load) error {
	if l.left == 0 && !l.ended {
		return &loadError{peProcessingError, peInvalidFormat()}
	}
	if l.left == 0 && l.remaining > 0 {
		return refuseLoad(scp03tStructureError)
	}
	return nil
}

// install makes the profile and answers with the ProfileInstallationResult.
func (c *Card) install(l *load) []byte {
	p := l.metadata.profile()
	if err := c.unpack(p, l.plain); err != nil {
		return c.failLoad(cmdLoadProfileElements, err)
	}
	if c.notificationFull(1) {
		return c.failLoad(cmdLoadProfileElements, refuseLoad(insufficientMemory))
	}
	s := &c.session
	p.AID, p.Size, p.CI = c.mem.newISDP(), len(l.plain), s.identity.CI()
	response := c.config.SIMAResponse
	if response == nil {
		response = upp.OK()
	}
	c.mem.Profiles = append(c.mem.Profiles, p)
	c.mem.UsedMemory += p.Size
	c.forgetOneTimeKey()
	return c.installationResult(s.place(&p.ICCID), ber.Encode(0xA0, ber.Encode(0x4F, p.AID), ber.Encode(0x04, response)))
}

// failLoad ends the package with an error.
func (c *Card) failLoad(command int, err error) []byte {
	s := &c.session
	var failure *loadError
	if !errors.As(err, &failure) {
		failure = &loadError{reason: undefinedError}
	}
	var iccid *rsp.ICCID
	if s.load.metadata != nil {
		iccid = &s.load.metadata.iccid
	}
	return c.installationResult(s.place(iccid), errorResult(command, failure))
}

func errorResult(command int, failure *loadError) []byte {
	parts := [][]byte{ber.EncodeInt(0x80, int64(command)), ber.EncodeInt(0x81, int64(failure.reason))}
	if failure.response != nil {
		parts = append(parts, ber.Encode(0x82, failure.response))
	}
	return ber.Encode(0xA1, parts...)
}

// place is what an installation result says about the session.
func (s *session) place(iccid *rsp.ICCID) interrupted {
	return interrupted{TransactionID: s.transactionID, Address: s.address, OID: s.oid, CI: s.identity.CI(), ICCID: iccid}
}

// installationResult signs and lists a ProfileInstallationResult (SGP.22 v2.5,
// section 2.5.6) and ends the session, in one write.
func (c *Card) installationResult(at interrupted, final []byte) []byte {
	data := ber.Encode(0xBF27,
		ber.Encode(0x80, at.TransactionID),
		c.notificationMetadata(rsp.EventInstall, at.Address, at.ICCID),
		ber.Encode(0x06, at.OID),
		ber.Encode(0xA2, final))
	raw := ber.Encode(0xBF37, data, ber.Encode(0x5F37, c.identityOf(at.CI).EUICC.Key.Sign(data)))
	c.list(notification{Event: rsp.EventInstall, Address: at.Address, ICCID: at.ICCID, Raw: raw})
	c.mem.Loading = nil
	c.session, c.streaming = session{}, false
	c.commit()
	return raw
}

// interrupt ends a package that is being loaded because the link went away.
func (c *Card) interrupt() {
	if c.mem.Loading != nil {
		c.installationResult(*c.mem.Loading, errorResult(c.mem.Loading.Command, &loadError{reason: interruption}))
	}
}

// rollBack is done at power on: a package that was being loaded is gone, and
// the server hears of it.
func (c *Card) rollBack() {
	switch {
	case c.mem.Loading == nil:
	case c.config.Quirks.InterruptionSilent:
		c.mem.Loading = nil
		c.commit()
	default:
		c.interrupt()
	}
}

// bppReach counts the bytes of the package that STORE DATA carries and says
// which of them are in this block.
func (c *Card) bppReach(b []byte) func(n int) bool {
	cmd, ok := parseCommand(b)
	if !ok || cmd.ins != insStoreData {
		return func(int) bool { return false }
	}
	if cmd.p2 == 0 && bytes.HasPrefix(cmd.data, []byte{0xBF, 0x36}) {
		c.streaming, c.streamed = true, 0
	}
	if !c.streaming {
		return func(int) bool { return false }
	}
	before := c.streamed
	c.streamed += len(cmd.data)
	return func(n int) bool { return n > before && n <= before+len(cmd.data) }
}
