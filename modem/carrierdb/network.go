package carrierdb

import (
	"strings"
	"unicode"
)

// network is a PLMN as a number that keeps the length of its MNC: 01 is not
// 001. It is below 1<<21.
type network uint32

// networkNamed reads an MCC of three digits and an MNC of two or three.
func networkNamed(mcc, mnc string) (network, bool) {
	const mccLen, mncLen, three = 3, 2, 1000
	if len(mcc) != mccLen || len(mnc) != mncLen && len(mnc) != mncLen+1 {
		return 0, false
	}
	n := network(0)
	for _, c := range mcc + mnc {
		if c < '0' || c > '9' {
			return 0, false
		}
		n = 10*n + network(c-'0')
	}
	if len(mnc) == mncLen {
		const hundred = 100
		return n/hundred*2*three + n%hundred, true
	}
	return n/three*2*three + three + n%three, true
}

// networkOf reads a <network-id>.
func networkOf(t *tag) (network, bool) {
	return networkNamed(string(t.attr("mcc")), string(t.attr("mnc")))
}

// Holder says which of a network's subscriptions are meant: those of one
// operator without a network of its own (MVNO). Every member that is not empty
// must match; what is not known of a subscription does not match.
type Holder struct {
	GID1        string // the beginning of the card's group identifier, hexadecimal
	SPN         string // equal to the service provider name, see [SameName]
	IMSIPrefix  string // digits; x is any digit
	ICCIDPrefix string // digits
}

// Matches reports whether the subscription is meant.
func (h Holder) Matches(q Query) bool {
	return hasPrefix(strings.ToLower(q.GID1), strings.ToLower(h.GID1)) && hasPrefix(q.IMSI, h.IMSIPrefix) && hasPrefix(q.ICCID, h.ICCIDPrefix) &&
		(h.SPN == "" || SameName(h.SPN, q.SPN))
}

// hasPrefix compares digits with a pattern's.
func hasPrefix(s, pattern string) bool {
	if len(s) < len(pattern) {
		return false
	}
	for i := range len(pattern) {
		if pattern[i] != s[i] && pattern[i] != 'x' {
			return false
		}
	}
	return true
}

// OnNetwork reports whether the home network of the subscription is the one
// named by MCC and MNC in one text of five or six digits. When only the IMSI
// is known nobody can say how long its MNC is; then both lengths match.
func (q Query) OnNetwork(plmn string) bool {
	if q.MNC != "" {
		return q.MCC+q.MNC == plmn
	}
	return plmn != "" && strings.HasPrefix(q.IMSI, plmn)
}

// SameName compares two names of an operator, ignoring what people write
// differently: case, blanks, punctuation and accents. A name of nothing else is no name.
func SameName(a, b string) bool {
	a, b = plain(a), plain(b)
	return a != "" && a == b
}

// plain is a name in lower case, letters and digits alone, without the accents
// of Latin-1: a card's short alphabet has few of them.
func plain(s string) string {
	const first, letters = 'à', "aaaaaaaceeeeiiiidnooooo/ouuuuyty"
	return strings.Map(func(r rune) rune {
		if !unicode.IsLetter(r) && !unicode.IsDigit(r) {
			return -1
		}
		r = unicode.ToLower(r)
		if at := int(r - first); at >= 0 && at < len(letters) {
			return rune(letters[at])
		}
		return r
	}, s)
}
