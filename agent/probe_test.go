package agent

import "testing"

// Whatever a modem puts into its answers, no identifier is shown in full.
func TestShorten(t *testing.T) {
	for text, want := range map[string]string{
		"": "",
		"the EID 89049032123451234512345678901235, and": "the EID 89049…35, and",
		"860120034567890":                  "86012…90",
		"86012003456789":                   "86012…89",
		"1234567890123":                    "1234567890123", // no identifier is so short
		"A0000005591010FFFFFFFF8900000100": "A0000005591010FFFFFFFF8900000100",
		"898600/89860012345678901234F":     "898600/89860…34F",
		"SCR 3310 (21120609207245) 00 00":  "SCR 3310 (21120…45) 00 00",
		"12345678901234":                   "12345…34",
		"…2026-11-22T00:51:02Z…":           "…2026-11-22T00:51:02Z…",
	} {
		if got := shorten(text); got != want {
			t.Errorf("%q: %q, want %q", text, got, want)
		}
	}
}
