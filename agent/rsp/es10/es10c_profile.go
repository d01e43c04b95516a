package es10

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"unicode/utf8"

	"lpad/agent/rsp"
	"lpad/apdu/ber"
	"lpad/internal/fault"
)

const maxProfiles = 256

// proprietary is dpProprietaryData. A card tells it only when it is asked for.
const proprietary ber.Tag = 0xB8

// ProfileTags are what a list of profiles shows: all but the icons, which
// are long.
func ProfileTags() []ber.Tag {
	return []ber.Tag{0x5A, 0x4F, 0x9F70, 0x90, 0x91, 0x92, 0x95, 0xB6, 0xB7, proprietary, 0x99}
}

// GetProfilesInfo lists profiles. tags chooses what is told about each; none
// leaves that to the card. A card that refuses a list of tags with
// dpProprietaryData (B8) in it is asked again without that, and then without
// a list, for its profiles have to be read in any case; the client remembers
// what worked.
//
// SGP.22 v2.5, section 5.7.15 (ES10c.GetProfilesInfo).
func (c *Client) GetProfilesInfo(ctx context.Context, search rsp.ProfileSearch, tags ...ber.Tag) ([]rsp.Profile, error) {
	if !slices.Contains(tags, proprietary) {
		return c.profiles(ctx, search, tags)
	}
	questions := [][]ber.Tag{tags, slices.DeleteFunc(slices.Clone(tags), func(t ber.Tag) bool { return t == proprietary }), nil}
	var refusal error // of the first question: the later ones are not the caller's
	for i := c.question; i < len(questions); i++ {
		list, err := c.profiles(ctx, search, questions[i])
		switch {
		case err == nil:
			c.question = i
			return list, nil
		case !IsRefusal(err) && !IsUnknownFunction(err):
			return nil, err
		case refusal == nil:
			refusal = err
		}
	}
	return nil, refusal
}

func (c *Client) profiles(ctx context.Context, search rsp.ProfileSearch, tags []ber.Tag) ([]rsp.Profile, error) {
	const fn = "ES10c.GetProfilesInfo"
	t, err := c.call(ctx, fn, ber.Encode(0xBF2D, profileCriteria(search), tagList(tags)))
	if err != nil {
		return nil, err
	}
	return listOf(fn, t, parseProfiles)
}

func profileCriteria(s rsp.ProfileSearch) []byte {
	switch {
	case s.ICCID != nil:
		return ber.Encode(0xA0, s.ICCID.ProfileTLV())
	case s.AID != nil:
		return ber.Encode(0xA0, s.AID.ProfileTLV())
	case s.Class != nil:
		return ber.Encode(0xA0, ber.EncodeInt(0x95, int64(*s.Class)))
	}
	return nil
}

// tagList is a bare string of tags.
func tagList(tags []ber.Tag) []byte {
	if len(tags) == 0 {
		return nil
	}
	var b []byte
	for _, t := range tags {
		for shift := 16; shift >= 0; shift -= 8 {
			if t>>shift != 0 {
				b = append(b, byte(t>>shift))
			}
		}
	}
	return ber.Encode(0x5C, b)
}

// parseProfiles reads A0 with a list of E3. Some cards leave the wrapper out
// or nest an E3 in another; an E3 without ICCID is nobody's.
func parseProfiles(t ber.TLV) ([]rsp.Profile, error) {
	r := t.Reader()
	if list, ok := r.Optional(0xA0); ok {
		r = list.Reader()
	}
	list := []rsp.Profile{}
	unknown := false
	for e, ok := r.Next(); ok; e, ok = r.Next() {
		if e.Tag != 0xE3 {
			unknown = true
			continue
		}
		if len(list) == maxProfiles {
			return nil, fmt.Errorf("more than %d profiles", maxProfiles)
		}
		inner := e.Reader()
		_, identified := inner.Find(0x5A)
		if !identified {
			if nested, ok := inner.Find(0xE3); ok {
				e, identified = nested, true
			}
		}
		if err := inner.Err(); err != nil {
			return nil, err
		}
		if !identified {
			continue
		}
		p, err := rsp.ParseProfile(e.Raw)
		if err != nil {
			return nil, err
		}
		list = append(list, p)
	}
	if err := r.Err(); err != nil {
		return nil, err
	}
	if unknown && len(list) == 0 { // it must not pass for a card without profiles
		return nil, errors.New("nothing in it is a profile")
	}
	return list, nil
}

// RefreshFlag tells the card whether to ask the modem, by a REFRESH, to read
// the card again after a switch.
type RefreshFlag bool

// With NoRefresh the caller has to make the modem read the card again.
const (
	Refresh   RefreshFlag = true
	NoRefresh RefreshFlag = false
)

// EnableProfile switches to a profile; the card disables the one in use
// itself. The card's answer can get lost in the switch, so after an error that
// is no [*ResultError] only the state of the profiles tells what happened.
//
// SGP.22 v2.5, section 5.7.16 (ES10c.EnableProfile).
func (c *Client) EnableProfile(ctx context.Context, id rsp.ProfileID, refresh RefreshFlag) error {
	const fn = "ES10c.EnableProfile"
	t, err := c.call(ctx, fn, switchRequest(0xBF31, id, refresh))
	if err != nil {
		return err
	}
	return asResult[rsp.EnableResult](fn, t)
}

// DisableProfile takes a profile out of use. As with
// [Client.EnableProfile], the answer can get lost.
//
// SGP.22 v2.5, section 5.7.17 (ES10c.DisableProfile).
func (c *Client) DisableProfile(ctx context.Context, id rsp.ProfileID, refresh RefreshFlag) error {
	const fn = "ES10c.DisableProfile"
	t, err := c.call(ctx, fn, switchRequest(0xBF32, id, refresh))
	if err != nil {
		return err
	}
	return asResult[rsp.DisableResult](fn, t)
}

// switchRequest wraps the identifier in A0: a choice inside a sequence is
// tagged explicitly. The flag is always there.
func switchRequest(tag ber.Tag, id rsp.ProfileID, refresh RefreshFlag) []byte {
	return ber.Encode(tag, ber.Encode(0xA0, id.ProfileTLV()), ber.EncodeBool(0x81, bool(refresh)))
}

// DeleteProfile deletes a disabled profile for good. The request is a bare
// choice: no A0, no flag.
//
// SGP.22 v2.5, section 5.7.18 (ES10c.DeleteProfile).
func (c *Client) DeleteProfile(ctx context.Context, id rsp.ProfileID) error {
	const fn = "ES10c.DeleteProfile"
	t, err := c.callWithin(ctx, fn, ber.Encode(0xBF33, id.ProfileTLV()), LongTimeout)
	if err != nil {
		return err
	}
	return asResult[rsp.DeleteResult](fn, t)
}

// MaxNickname is the length of a nickname in bytes of UTF-8.
const MaxNickname = 64

// ErrNickname says that a nickname cannot be stored.
var ErrNickname error = fault.New(fault.Fault{Code: "nickname-invalid", Text: "a nickname has at most 64 bytes of UTF-8", Who: fault.Technician,
	Next: "choose a shorter nickname"}, nil)

// SetNickname names a profile; the empty name removes the nickname.
//
// SGP.22 v2.5, section 5.7.21 (ES10c.SetNickname).
func (c *Client) SetNickname(ctx context.Context, iccid rsp.ICCID, nickname string) error {
	const fn = "ES10c.SetNickname"
	if len(nickname) > MaxNickname || !utf8.ValidString(nickname) {
		return fmt.Errorf("%s: %w", fn, ErrNickname)
	}
	t, err := c.call(ctx, fn, ber.Encode(0xBF29, iccid.ProfileTLV(), ber.EncodeString(0x90, nickname)))
	if err != nil {
		return err
	}
	return asResult[rsp.NicknameResult](fn, t)
}
