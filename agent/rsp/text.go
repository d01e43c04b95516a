package rsp

import (
	"strings"
	"unicode"
	"unicode/utf8"
)

// DisplayText makes text of a card or server safe for a terminal, a log and a
// screen: bytes that are not UTF-8 become U+FFFD, control characters, line
// ends and the marks that change the direction of writing disappear, white
// space at the ends is cut.
func DisplayText(s string) string {
	s = strings.ToValidUTF8(s, "\uFFFD")
	s = strings.Map(func(r rune) rune {
		switch {
		case r == '\t' || r == '\n' || r == '\r' || r == '\u2028' || r == '\u2029':
			return ' '
		case unicode.IsControl(r) || isBidi(r) || r == '\uFEFF':
			return -1
		}
		return r
	}, s)
	return strings.TrimSpace(s)
}

// isBidi reports the marks of Unicode's bidirectional algorithm, with which a
// name can be made to look like another one.
func isBidi(r rune) bool {
	return r == '\u061C' || r == '\u200E' || r == '\u200F' || r >= '\u202A' && r <= '\u202E' || r >= '\u2066' && r <= '\u2069'
}

// CutText shortens s to at most max bytes, at the end of a character.
func CutText(s string, max int) string {
	if len(s) <= max {
		return s
	}
	for max > 0 && !utf8.RuneStart(s[max]) {
		max--
	}
	return s[:max]
}
