package main

import (
	"regexp"

	"lpad/internal/redact"
)

// longDigits are runs of digits as identifiers have them: ICCID, EID, IMSI,
// IMEI and telephone numbers. A time in seconds or a job id is shorter, or has
// something in between.
var longDigits = regexp.MustCompile(`[0-9]{10,}`)

// shortened takes the middle out of every identifier in a text.
func shortened(s string) string { return longDigits.ReplaceAllStringFunc(s, redact.Digits) }
