package pcsc

import (
	"encoding/hex"
	"errors"
	"slices"
	"strings"
)

// tokens are parts of the names of what is a reader to PC/SC and has no SIM in
// it, ever: security keys, signature sticks, wallets, virtual readers of
// certificates. In lower case.
var tokens = []string{
	"yubikey", "yubico", "canokey", "nitrokey", "gnuk", "solokey", "solo 2", "onlykey", "openpgp", "fido", "titan security", "token2", "goldkey",
	"etoken", "epass", "rutoken", "jacarta", "safenet token", "idprime", "cryptoken", "ledger", "trezor", "windows hello", "starsign crypto", "swissbit ishield",
}

// IsToken says whether the name of a reader is that of a security key or the
// like. A command that such a thing does not know counts against its owner's
// tries, so they are left alone unless they are asked for by name.
func IsToken(name string) bool {
	name = strings.ToLower(name)
	return slices.ContainsFunc(tokens, func(t string) bool { return strings.Contains(name, t) })
}

// ErrATRPattern is the error of [CheckATR].
var ErrATRPattern = errors.New(`is no answer to reset: hexadecimal, "?" for any digit, "*" at the end for whatever follows`)

// maxATR is the length of the longest answer to reset (ISO 7816-3), in digits.
const maxATR = 2 * 33

// CheckATR refuses what cannot be a pattern for [Config.ATR].
func CheckATR(pattern string) error {
	p, open := strings.CutSuffix(plainATR(pattern), "*")
	if len(p) > maxATR || len(p)%2 != 0 && !open || strings.Trim(p, "0123456789abcdef?") != "" {
		return ErrATRPattern
	}
	return nil
}

// plainATR is a pattern without what does not count.
func plainATR(pattern string) string {
	return strings.ToLower(strings.NewReplacer(" ", "", ":", "").Replace(pattern))
}

// matchATR compares an answer to reset with a pattern.
func matchATR(pattern string, atr []byte) bool {
	if pattern == "" {
		return true
	}
	p, open := strings.CutSuffix(plainATR(pattern), "*")
	digits := hex.EncodeToString(atr)
	if len(digits) < len(p) || len(digits) > len(p) && !open {
		return false
	}
	for i := range len(p) {
		if p[i] != '?' && p[i] != digits[i] {
			return false
		}
	}
	return true
}

// choose lists the readers that fit and have a card, those whose card nobody
// seems to use first. only is the name of the one that it must be, empty: any.
func choose(all []ReaderInfo, cfg Config, only string) ([]string, error) {
	var free, used []string
	empty, other, token := "", "", ""
	for _, r := range all {
		switch {
		case only != "" && r.Name != only, !strings.Contains(r.Name, cfg.Reader):
		case cfg.Reader == "" && cfg.ATR == "" && IsToken(r.Name):
			token = r.Name
		case !r.CardPresent:
			empty = first(empty, r.Name)
		case !matchATR(cfg.ATR, r.ATR):
			other = first(other, r.Name)
		case r.InUse || r.Mute:
			used = append(used, r.Name)
		default:
			free = append(free, r.Name)
		}
	}
	switch names := append(free, used...); {
	case len(names) > 0:
		return names, nil
	case other != "":
		return nil, &ServiceError{Op: "find card", Reader: other, Code: codeNoSmartcard, Text: "No card with the answer to reset that is asked for."}
	case empty != "":
		return nil, &ServiceError{Op: "find card", Reader: empty, Code: codeNoSmartcard, Text: "No card in any reader that fits."}
	case token != "":
		return nil, &ServiceError{Op: "find reader", Reader: token, Code: codeNoReaders, Text: "There is none but a security token, which is left alone."}
	}
	return nil, &ServiceError{Op: "find reader", Reader: first(only, cfg.Reader), Code: codeNoReaders, Text: "There is no such reader."}
}

func first(a, b string) string {
	if a != "" {
		return a
	}
	return b
}
