package euicc

import (
	"slices"

	"lpad/agent/rsp"
	"lpad/apdu/ber"
)

// Result codes of EnableProfile, DisableProfile, DeleteProfile (SGP.22 v2.5,
// sections 5.7.16 to 5.7.18).
const (
	resultOK          = 0
	resultNotFound    = 1 // iccidOrAidNotFound; of a memory reset nothingToDelete
	resultWrongState  = 2 // profileNotInDisabledState, profileNotInEnabledState
	resultPolicy      = 3 // disallowedByPolicy
	resultReenabling  = 4 // wrongProfileReenabling
	resultCatBusy     = 5
	incorrectInput    = 1 // of GetProfilesInfo
	resetOperational  = 0 // bits of eUICCMemoryReset
	resetTestProfiles = 1
	resetDefaultSMDP  = 2
)

// getEID is ES10c.GetEID, SGP.22 v2.5, section 5.7.20.
func (c *Card) getEID(t ber.TLV) ([]byte, uint16) {
	r := t.Reader()
	list := r.Read(0x5C)
	if r.Finish() != nil || len(list.Value) != 1 || list.Value[0] != 0x5A {
		return nil, swWrongData
	}
	return ber.Encode(t.Tag, ber.Encode(0x5A, c.config.EID[:])), swOK
}

// defaultTags are what GetProfilesInfo tells when no list is given.
var defaultTags = []ber.Tag{0x5A, 0x4F, 0x9F70, 0x90, 0x91, 0x92, 0x93, 0x94, 0x95}

// tagOrder is the order of ProfileInfo.
var tagOrder = []ber.Tag{0x5A, 0x4F, 0x9F70, 0x90, 0x91, 0x92, 0x93, 0x94, 0x95, 0xB6, 0xB7, 0xB8, 0x99, 0xBF76, 0xBF22}

// getProfilesInfo is SGP.22 v2.5, section 5.7.15.
func (c *Card) getProfilesInfo(t ber.TLV) ([]byte, uint16) {
	r := t.Reader()
	wanted := func(*profile) bool { return true }
	if criterion, ok := r.Optional(0xA0); ok {
		if wanted = profileFilter(criterion); wanted == nil {
			return choice1(t.Tag, incorrectInput), swOK
		}
	}
	tags := defaultTags
	if list, ok := r.Optional(0x5C); ok {
		if tags, ok = parseTagList(list.Value); !ok {
			return choice1(t.Tag, incorrectInput), swOK
		}
	}
	if r.Finish() != nil {
		return nil, swWrongData
	}
	var list [][]byte
	for _, p := range c.mem.Profiles {
		if wanted(p) {
			list = append(list, p.info(tags))
		}
	}
	return ber.Encode(t.Tag, ber.Encode(0xA0, list...)), swOK
}

// profileFilter reads a search criterion; nil when it is none.
func profileFilter(t ber.TLV) func(*profile) bool {
	r := t.Reader()
	e, _ := r.Next()
	if r.Finish() != nil {
		return nil
	}
	switch e.Tag {
	case 0x4F:
		return func(p *profile) bool { return p.AID.Equal(e.Value) }
	case 0x5A:
		return func(p *profile) bool { return slices.Equal(p.ICCID[:], e.Value) }
	case 0x95:
		class, err := e.Int()
		if err == nil {
			return func(p *profile) bool { return int64(p.Class) == class }
		}
	}
	return nil
}

// parseTagList takes a string of tags apart: those that begin with five ones
// have two bytes.
func parseTagList(b []byte) ([]ber.Tag, bool) {
	var tags []ber.Tag
	for len(b) > 0 {
		n := 1
		if b[0]&0x1F == 0x1F {
			n = 2
		}
		if len(b) < n {
			return nil, false
		}
		var tag ber.Tag
		for _, octet := range b[:n] {
			tag = tag<<8 | ber.Tag(octet)
		}
		tags, b = append(tags, tag), b[n:]
	}
	return tags, true
}

// info encodes ProfileInfo with those of the wanted elements that exist.
func (p *profile) info(tags []ber.Tag) []byte {
	var parts [][]byte
	for _, tag := range tagOrder {
		if slices.Contains(tags, tag) {
			parts = append(parts, p.element(tag))
		}
	}
	return ber.Encode(0xE3, parts...)
}

func (p *profile) element(tag ber.Tag) []byte {
	switch tag {
	case 0x5A:
		return ber.Encode(tag, p.ICCID[:])
	case 0x4F:
		return ber.Encode(tag, p.AID)
	case 0x9F70:
		if p.Enabled {
			return ber.EncodeInt(tag, 1)
		}
		return ber.EncodeInt(tag, 0)
	case 0x90:
		if p.Nickname != "" {
			return ber.EncodeString(tag, p.Nickname)
		}
		return nil
	case 0x95: // there even when the metadata left it to the default
		return ber.EncodeInt(tag, int64(p.Class))
	}
	return p.Elements[tag]
}

// setNickname is SGP.22 v2.5, section 5.7.21; an empty one removes it.
func (c *Card) setNickname(t ber.TLV) ([]byte, uint16) {
	r := t.Reader()
	iccid, name := r.Read(0x5A), r.Read(0x90)
	if r.Finish() != nil {
		return nil, swWrongData
	}
	p := c.byIdentifier(iccid)
	text, err := name.UTF8(maxNickname)
	switch {
	case p == nil:
		return result(t.Tag, resultNotFound), swOK
	case err != nil:
		return result(t.Tag, undefinedError), swOK
	}
	p.Nickname = text
	c.commit()
	return result(t.Tag, resultOK), swOK
}

// byIdentifier finds a profile by an element 5A or 4F.
func (c *Card) byIdentifier(e ber.TLV) *profile {
	switch e.Tag {
	case 0x4F:
		return c.mem.byAID(e.Value)
	case 0x5A:
		if id, err := e.Octets(10, 10); err == nil {
			return c.mem.byICCID(rsp.ICCID(id))
		}
	}
	return nil
}

// switchRequest is what EnableProfile and DisableProfile say.
type switchRequest struct {
	profile *profile // nil: not found
	refresh bool
}

// parseSwitch reads A0{5A | 4F}, 81 refreshFlag.
func (c *Card) parseSwitch(t ber.TLV) (switchRequest, bool) {
	r := t.Reader()
	in := r.Read(0xA0).Reader()
	id, _ := in.Next()
	refresh, err := r.Read(0x81).Bool()
	if err != nil || in.Finish() != nil || r.Finish() != nil || id.Tag != 0x5A && id.Tag != 0x4F {
		return switchRequest{}, false
	}
	request := switchRequest{refresh: refresh}
	if id.Tag == 0x4F || !c.config.Quirks.AIDOnly {
		request.profile = c.byIdentifier(id)
	}
	return request, true
}

// refusesSwitch gives the result codes that do not depend on the profile.
func (c *Card) refusesSwitch(r switchRequest) int {
	q := c.config.Quirks
	switch {
	case r.refresh && q.RefuseRefresh, !r.refresh && q.RefuseNoRefresh:
		return undefinedError
	case r.refresh && c.toolkitBusy():
		return resultCatBusy
	}
	return resultOK
}

// enableProfile is SGP.22 v2.5, section 5.7.16.
func (c *Card) enableProfile(t ber.TLV) ([]byte, uint16) {
	request, ok := c.parseSwitch(t)
	if !ok {
		return nil, swWrongData
	}
	code := c.enable(request)
	return result(t.Tag, code), swOK
}

func (c *Card) enable(request switchRequest) int {
	target, current := request.profile, c.mem.enabled()
	switch {
	case target == nil:
		return resultNotFound
	case target.Enabled:
		return resultWrongState
	case current != nil && current.PPR&rsp.PPR1 != 0 && target.Class != classTest:
		return resultPolicy
	case current != nil && current.Class == classTest && target.Class != classTest && target.ICCID != c.mem.Previous:
		return resultReenabling
	}
	if code := c.refusesSwitch(request); code != resultOK {
		return code
	}
	expected := target.wanted(rsp.EventEnable)
	if current != nil {
		expected += current.wanted(rsp.EventDisable)
	}
	if c.notificationFull(expected) {
		return undefinedError
	}
	c.replace(current, target)
	c.afterSwitch(request.refresh)
	return resultOK
}

// replace disables one profile and enables another; either may be nil. An
// operational profile that makes room for a test profile is remembered.
func (c *Card) replace(current, target *profile) {
	if current != nil {
		current.Enabled = false
		c.notify(current, rsp.EventDisable)
		if target != nil && target.Class == classTest && current.Class != classTest {
			c.mem.Previous = current.ICCID
		}
	}
	if target != nil {
		target.Enabled = true
		c.notify(target, rsp.EventEnable)
		if target.Class != classTest {
			c.mem.Previous = rsp.ICCID{}
		}
	}
	c.commit()
}

// afterSwitch lets the modem know, or not.
func (c *Card) afterSwitch(refresh bool) {
	c.stale = c.config.Quirks.ResetAfterSwitch
	if refresh {
		c.refresh()
	}
}

// disableProfile is SGP.22 v2.5, section 5.7.17. When a test profile is
// disabled, the operational profile that it had put aside comes back.
func (c *Card) disableProfile(t ber.TLV) ([]byte, uint16) {
	request, ok := c.parseSwitch(t)
	if !ok {
		return nil, swWrongData
	}
	code := c.disable(request)
	return result(t.Tag, code), swOK
}

func (c *Card) disable(request switchRequest) int {
	target := request.profile
	switch {
	case target == nil:
		return resultNotFound
	case !target.Enabled:
		return resultWrongState
	case target.PPR&rsp.PPR1 != 0:
		return resultPolicy
	}
	if code := c.refusesSwitch(request); code != resultOK {
		return code
	}
	var previous *profile
	expected := target.wanted(rsp.EventDisable)
	if target.Class == classTest {
		if previous = c.mem.byICCID(c.mem.Previous); previous != nil {
			expected += previous.wanted(rsp.EventEnable)
		}
	}
	if c.notificationFull(expected) {
		return undefinedError
	}
	c.replace(target, previous)
	c.afterSwitch(request.refresh)
	return resultOK
}

// deleteProfile is SGP.22 v2.5, section 5.7.18.
func (c *Card) deleteProfile(t ber.TLV) ([]byte, uint16) {
	r := t.Reader()
	id, _ := r.Next()
	if r.Finish() != nil || id.Tag != 0x5A && id.Tag != 0x4F {
		return nil, swWrongData
	}
	var target *profile
	if id.Tag == 0x4F || !c.config.Quirks.AIDOnly {
		target = c.byIdentifier(id)
	}
	return result(t.Tag, c.delete(target)), swOK
}

func (c *Card) delete(target *profile) int {
	switch {
	case target == nil:
		return resultNotFound
	case target.Enabled:
		return resultWrongState
	case target.PPR&rsp.PPR2 != 0:
		return resultPolicy
	case c.notificationFull(target.wanted(rsp.EventDelete)):
		return undefinedError
	}
	c.remove(target)
	c.commit()
	return resultOK
}

// remove takes a profile away and leaves its notifications.
func (c *Card) remove(p *profile) {
	c.mem.Profiles = slices.DeleteFunc(c.mem.Profiles, func(q *profile) bool { return q == p })
	if !p.Factory {
		c.mem.UsedMemory -= p.Size
	}
	if c.mem.Previous == p.ICCID {
		c.mem.Previous = rsp.ICCID{}
	}
	c.notify(p, rsp.EventDelete)
}

// eUICCMemoryReset is SGP.22 v2.5, section 5.7.19. Policy rules do not hold it
// up; a test profile that was there from the beginning stays.
func (c *Card) eUICCMemoryReset(t ber.TLV) ([]byte, uint16) {
	r := t.Reader()
	bits, err := r.Read(0x82).Bits()
	if err != nil || r.Finish() != nil {
		return nil, swWrongData
	}
	return result(t.Tag, c.memoryReset(bits)), swOK
}

func (c *Card) memoryReset(bits ber.Bits) int {
	if c.toolkitBusy() {
		return resultCatBusy
	}
	var doomed []*profile
	for _, p := range c.mem.Profiles {
		if p.Class == classOperational && bits.Has(resetOperational) ||
			p.Class == classTest && !p.Factory && bits.Has(resetTestProfiles) {
			doomed = append(doomed, p)
		}
	}
	clearAddress := bits.Has(resetDefaultSMDP) && c.mem.DefaultSMDP != c.config.DefaultSMDP
	if doomed == nil && !clearAddress {
		return resultNotFound
	}
	var switched bool
	for _, p := range doomed {
		switched = switched || p.Enabled
		p.Enabled = false
		c.remove(p)
	}
	if bits.Has(resetDefaultSMDP) {
		c.mem.DefaultSMDP = c.config.DefaultSMDP
	}
	c.commit()
	if switched {
		c.afterSwitch(true)
	}
	return resultOK
}

// revert is the fallback of a card that thinks it knows better: its own profile
// comes back at every reset.
func (c *Card) revert() {
	p := c.mem.byICCID(c.config.Quirks.RevertTo)
	if p != nil && !p.Enabled {
		c.replace(c.mem.enabled(), p)
	}
}
