package atmodem

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"unicode/utf16"

	"lpad/modem"
	"lpad/modem/at"
)

// File is an elementary file of the SIM.
type File int

// The files that tell whose subscription it is (3GPP TS 31.102, section 4.2).
const (
	FileAD   File = 0x6FAD // administrative data: length of the MNC
	FileSPN  File = 0x6F46 // service provider name
	FileGID1 File = 0x6F3E // group identifier level 1
)

// Commands of AT+CRSM (TS 27.007, section 8.18).
const (
	readBinary  = 176
	getResponse = 192
)

const maxFile = 255 // bytes of a file that are read; ours have some tens

// ReadEF reads a transparent file of the application that the modem has
// selected, by AT+CRSM, whole but at most 255 bytes. apdu-like status words that
// are no success come as *FileError.
func (m *Modem) ReadEF(ctx context.Context, file File) ([]byte, error) {
	// Nobody knows the length of a file beforehand. Length 0 asks for all; a card
	// that does not like it says the right one (6Cxx). What refuses both is asked
	// for the file's description.
	b, err := m.crsm(ctx, fmt.Sprintf("AT+CRSM=%d,%d,0,0,0", readBinary, file))
	if err == nil && len(b) > 0 {
		return b, nil
	}
	if err != nil && (m.conn.Err() != nil || ctx.Err() != nil || saysSIM(err)) {
		return nil, fmt.Errorf("read file %04X: %w", int(file), err)
	}
	n := 0
	var fe *FileError
	switch {
	case errors.As(err, &fe) && fe.SW1 == 0x6C:
		n = fe.SW2
	case errors.As(err, &fe) && fe.absent():
		return nil, fmt.Errorf("read file %04X: %w", int(file), err)
	default:
		var lengthErr error
		if n, lengthErr = m.length(ctx, file); lengthErr != nil {
			return nil, fmt.Errorf("read file %04X: %w", int(file), errors.Join(err, lengthErr))
		}
	}
	if b, err = m.crsm(ctx, fmt.Sprintf("AT+CRSM=%d,%d,0,0,%d", readBinary, file, min(n, maxFile))); err != nil {
		return nil, fmt.Errorf("read file %04X: %w", int(file), err)
	}
	return b, nil
}

// length reads the size of a file out of its description: the FCP template of a
// USIM (TS 102 221, section 11.1.1.3: 62{… 80 size …}), or the fixed bytes of a
// 2G SIM (TS 51.011, section 9.2.1), which modems show even for a USIM.
func (m *Modem) length(ctx context.Context, file File) (int, error) {
	b, err := m.crsm(ctx, fmt.Sprintf("AT+CRSM=%d,%d,0,0,15", getResponse, file))
	if err != nil {
		return 0, err
	}
	return fileSize(b)
}

func fileSize(b []byte) (int, error) {
	if len(b) >= 2 && b[0] == 0x62 {
		for b = b[2:]; len(b) >= 2 && len(b) >= 2+int(b[1]); b = b[2+int(b[1]):] {
			if v := b[2 : 2+int(b[1])]; b[0] == 0x80 && len(v) == 2 {
				return int(v[0])<<8 | int(v[1]), nil
			}
		}
	} else if len(b) >= 4 && b[0] == 0 {
		return int(b[2])<<8 | int(b[3]), nil
	}
	return 0, fmt.Errorf("size of the file: %w", ErrUnreadable)
}

// FileError is a status word in an answer to AT+CRSM that is no success.
type FileError struct{ SW1, SW2 int }

// Error gives the status word.
func (e *FileError) Error() string { return fmt.Sprintf("SIM: %02X%02X", e.SW1, e.SW2) }

// Unwrap says at.ErrNotFound for a file that is not there.
func (e *FileError) Unwrap() error {
	if e.absent() {
		return at.ErrNotFound
	}
	return nil
}

// absent: 6A82 of a USIM, 9404 of a 2G SIM.
func (e *FileError) absent() bool {
	return e.SW1 == 0x6A && e.SW2 == 0x82 || e.SW1 == 0x94 && e.SW2 == 0x04
}

// crsm runs an AT+CRSM and returns the data of a success.
func (m *Modem) crsm(ctx context.Context, cmd string) ([]byte, error) {
	lines, err := m.ask(ctx, cmd, "+CRSM")
	if err != nil {
		return nil, err
	}
	for _, line := range lines {
		f := fields(line)
		sw1, err1 := strconv.Atoi(field(f, 0))
		sw2, err2 := strconv.Atoi(field(f, 1))
		if err1 != nil || err2 != nil || sw1 < 0 || sw1 > 0xFF || sw2 < 0 || sw2 > 0xFF {
			continue
		}
		if sw1 != 0x90 && sw1 != 0x91 && sw1 != 0x9F {
			return nil, fmt.Errorf("AT+CRSM: %w", &FileError{sw1, sw2})
		}
		b, err := hex.DecodeString(field(f, 2))
		if err != nil {
			return nil, fmt.Errorf("AT+CRSM: %w", ErrUnreadable)
		}
		return b, nil
	}
	return nil, fmt.Errorf("AT+CRSM: %w", ErrUnreadable)
}

// SIM reads the subscription that the modem shows. Without an ICCID there is no
// SIM and an error; everything else may be missing.
func (m *Modem) SIM(ctx context.Context) (modem.SIM, error) {
	iccid, err := m.ICCID(ctx)
	if err != nil {
		return modem.SIM{}, fmt.Errorf("read SIM: %w", err)
	}
	sim := modem.SIM{ICCID: iccid}
	lost := func() bool { return m.conn.Err() != nil || ctx.Err() != nil }
	if sim.IMSI, err = m.IMSI(ctx); err != nil && lost() {
		return modem.SIM{}, fmt.Errorf("read SIM: %w", err)
	}
	mnc := 0
	for _, f := range []struct {
		file File
		take func([]byte)
	}{
		{FileAD, func(b []byte) { mnc = mncLength(b) }},
		{FileSPN, func(b []byte) { sim.SPN = parseSPN(b) }},
		{FileGID1, func(b []byte) { sim.GID1 = parseGID(b) }},
	} {
		b, err := m.ReadEF(ctx, f.file)
		switch {
		case err == nil:
			f.take(b)
		case lost():
			return modem.SIM{}, fmt.Errorf("read SIM: %w", err)
		}
	}
	sim.PLMN = homePLMN(sim.IMSI, mnc)
	return sim, nil
}

// mncLength reads EF_AD, byte 4 (TS 31.102, section 4.2.18); 0: the card does not say.
func mncLength(ad []byte) int {
	if len(ad) < 4 {
		return 0
	}
	if n := int(ad[3] & 0x0F); n == 2 || n == 3 {
		return n
	}
	return 0
}

// longMNC are the country codes whose operators have network codes of three
// digits throughout (ITU-T E.212, annex to the Operational Bulletin), for cards
// that do not say the length.
var longMNC = map[string]bool{
	"302": true, "310": true, "311": true, "312": true, "313": true, "314": true, "315": true, "316": true, "330": true, "334": true,
	"338": true, "342": true, "344": true, "346": true, "348": true, "350": true, "352": true, "354": true, "356": true, "358": true,
	"360": true, "365": true, "366": true, "376": true, "708": true, "722": true, "732": true, "750": true,
}

// homePLMN cuts country and network code off an IMSI.
func homePLMN(imsi string, mnc int) string {
	const mcc = 3
	if len(imsi) < mcc+3 {
		return ""
	}
	if mnc == 0 {
		mnc = 2
		if longMNC[imsi[:mcc]] {
			mnc = 3
		}
	}
	return imsi[:mcc+mnc]
}

// parseGID is the group identifier in hexadecimal digits; unset (all FF) is empty.
func parseGID(b []byte) string { return fmt.Sprintf("%X", unfilled(b)) }

// unfilled takes the filler FF off the end. (bytes.TrimRight reads UTF-8 and would
// take every byte that is none.)
func unfilled(b []byte) []byte {
	for len(b) > 0 && b[len(b)-1] == 0xFF {
		b = b[:len(b)-1]
	}
	return b
}

// parseSPN reads EF_SPN (TS 31.102, section 4.2.12): a byte of display rules,
// then the name.
func parseSPN(b []byte) string {
	if len(b) < 2 {
		return ""
	}
	return strings.TrimSpace(alpha(unfilled(b[1:])))
}

// alpha reads a text as files of the SIM have it (TS 102 221, annex A): the GSM
// alphabet with one character a byte, or UCS2 in one of three codings.
func alpha(b []byte) string {
	if len(b) == 0 {
		return ""
	}
	var out []rune
	switch {
	case b[0] == 0x80:
		var u []uint16
		for b = b[1:]; len(b) > 0; b = b[min(2, len(b)):] {
			if len(b) == 1 { // the trailing FF of a character was taken for filler
				b = append(bytes.Clone(b), 0xFF)
			}
			u = append(u, uint16(b[0])<<8|uint16(b[1]))
		}
		out = utf16.Decode(u)
	case b[0] == 0x81 && len(b) > 3: // length, bits 15 to 8 of the base pointer's position
		out = paged(b[3:], int(b[1]), rune(b[2])<<7)
	case b[0] == 0x82 && len(b) > 4: // length, base pointer
		out = paged(b[4:], int(b[1]), rune(b[2])<<8|rune(b[3]))
	case b[0] < 0x80:
		out = paged(b, len(b), 0)
	}
	return strings.Map(func(r rune) rune {
		if r < 0x20 || r == 0x7F || r == 0xFFFD {
			return -1
		}
		return r
	}, string(out))
}

// paged reads n characters: of the GSM alphabet, or with the top bit set, of the
// half page that begins at base.
func paged(b []byte, n int, base rune) []rune {
	var out []rune
	for i := 0; i < len(b) && n > 0; i, n = i+1, n-1 {
		switch c := b[i]; {
		case c >= 0x80:
			out = append(out, base+rune(c&0x7F))
		default:
			out = append(out, gsmAlphabet[c])
		}
	}
	return out
}

// gsmAlphabet is the default alphabet of 3GPP TS 23.038, section 6.2.1, without
// its extension (1B).
var gsmAlphabet = [128]rune([]rune("@£$¥èéùìòÇ\nØø\rÅåΔ_ΦΓΛΩΠΨΣΘΞ\x1bÆæßÉ !\"#¤%&'()*+,-./0123456789:;<=>?" +
	"¡ABCDEFGHIJKLMNOPQRSTUVWXYZÄÖÑÜ§¿abcdefghijklmnopqrstuvwxyzäöñüà"))
