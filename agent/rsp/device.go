package rsp

import (
	"fmt"
	"log/slog"
	"strings"

	"lpad/apdu/ber"
	"lpad/internal/redact"
)

// DefaultTAC is the type allocation code that is sent when a device has no
// modem to ask, as with a card in a reader. Its octets are 35290611, which
// other LPAs send too, so that servers know it.
const DefaultTAC = "53926011"

// DeviceInfo tells a server what device it provisions (SGP.22 v2.5, section
// 4.2). The card signs it.
type DeviceInfo struct {
	TAC          string // 8 digits; empty: those of IMEI, else [DefaultTAC]
	IMEI         string // 15 digits, or the 14 or 16 that modems give as well; empty: not sent
	Capabilities DeviceCapabilities
}

// DeviceCapabilities are the highest 3GPP releases that a device supports,
// such as Version{15, 0, 0}. A zero Version is not sent.
type DeviceCapabilities struct {
	GSM, UTRAN, CDMA2000, HRPD, EHRPD, EUTRAN, Contactless, RSPCRL Version
	// The following need a card that tolerates them (CapDeviceInfo) and are
	// left out for the others.
	NREPC, NR5GC, EUTRAN5GC Version
}

// firstExtension is the first element of DeviceCapabilities that a card
// without deviceInfoExtensibilitySupport does not know and may refuse.
const firstExtension = 0x88

// LogValue shortens the IMEI.
func (d DeviceInfo) LogValue() slog.Value {
	return slog.GroupValue(slog.String("tac", d.TAC), slog.String("imei", redact.Digits(d.IMEI)))
}

// Validate reports a TAC or IMEI that cannot be sent.
func (d DeviceInfo) Validate() error {
	_, _, err := d.identity()
	return err
}

// ContextParams builds ctxParamsForCommonAuthentication, tag A0, for
// ES10b.AuthenticateServer. An empty matching id is sent as such: it asks for
// the default order of the EID. card says what the card tolerates.
func (d DeviceInfo) ContextParams(matchingID string, card RSPCapability) ([]byte, error) {
	tac, imei, err := d.identity()
	if err != nil {
		return nil, err
	}
	info := [][]byte{ber.Encode(0x80, tac), d.Capabilities.marshal(card)}
	if imei != nil {
		info = append(info, ber.Encode(0x82, imei))
	}
	return ber.Encode(0xA0, ber.EncodeString(0x80, matchingID), ber.Encode(0xA1, info...)), nil
}

func (c DeviceCapabilities) marshal(card RSPCapability) []byte {
	var parts [][]byte
	for i, v := range [...]Version{c.GSM, c.UTRAN, c.CDMA2000, c.HRPD, c.EHRPD, c.EUTRAN, c.Contactless, c.RSPCRL, c.NREPC, c.NR5GC, c.EUTRAN5GC} {
		tag := ber.Tag(0x80 + i)
		if v.IsZero() || tag >= firstExtension && card&CapDeviceInfo == 0 {
			continue
		}
		parts = append(parts, ber.Encode(tag, v[:]))
	}
	return ber.Encode(0xA1, parts...)
}

// identity returns the TAC and, if it is sent, the IMEI as octets.
func (d DeviceInfo) identity() (tac, imei []byte, err error) {
	digits := strings.NewReplacer(" ", "", "-", "").Replace(d.TAC)
	if d.IMEI != "" {
		full, err := completeIMEI(strings.NewReplacer(" ", "", "-", "", "/", "").Replace(d.IMEI))
		if err != nil {
			return nil, nil, err
		}
		if digits == "" {
			digits = full[:8]
		}
		if digits != full[:8] {
			return nil, nil, fmt.Errorf("TAC %s does not belong to the IMEI", digits)
		}
		imei = encodeIMEI(full)
	}
	if digits == "" {
		digits = DefaultTAC
	}
	if len(digits) != 8 || strings.Trim(digits, "0123456789") != "" {
		return nil, nil, fmt.Errorf("TAC %q is not 8 digits", digits)
	}
	return swapDigits(digits), imei, nil
}

// completeIMEI brings what modems give to the 15 digits of an IMEI: 14 lack
// the check digit, 16 (IMEISV) have a software version in its place.
func completeIMEI(s string) (string, error) {
	if strings.Trim(s, "0123456789") != "" {
		return "", fmt.Errorf("IMEI %s has other characters than digits", redact.Digits(s))
	}
	switch len(s) {
	case 15:
		return s, nil
	case 14, 16:
		return s[:14] + string(luhn(s[:14])), nil
	}
	return "", fmt.Errorf("IMEI of %d digits, want 15", len(s))
}

// luhn returns the check digit of TS 23.003, annex B.
func luhn(s string) byte {
	sum := 0
	for i := range len(s) {
		n := int(s[len(s)-1-i] - '0')
		if i%2 == 0 {
			n *= 2
			n = n/10 + n%10
		}
		sum += n
	}
	return byte('0' + (10-sum%10)%10)
}

// encodeIMEI swaps nibbles like TBCD, but the last octet carries the check
// digit in its high nibble and F in the low one (SGP.22 since v2.1).
func encodeIMEI(digits string) []byte {
	return append(swapDigits(digits[:14]), (digits[14]-'0')<<4|0x0F)
}

func swapDigits(s string) []byte {
	b := make([]byte, len(s)/2)
	for i := range b {
		b[i] = (s[2*i+1]-'0')<<4 | (s[2*i] - '0')
	}
	return b
}
