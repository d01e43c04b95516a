package atmodem_test

import (
	"errors"
	"fmt"
	"testing"
	"testing/synctest"

	"lpad/modem"
	"lpad/modem/at"
	"lpad/modem/at/attest"
	"lpad/modem/atmodem"
)

func crsm(data string) string { return info(`+CRSM: 144,0,"` + data + `"`) }

func TestSIM(t *testing.T) {
	const readSPN, readGID, readAD = "AT+CRSM=176,28486,0,0,0", "AT+CRSM=176,28478,0,0,0", "AT+CRSM=176,28589,0,0,0"
	base := func(more replies) replies {
		r := replies{"AT+CCID": info("+CCID: " + oldICCID), "AT+CIMI": info("310410123456789")}
		for k, v := range more {
			r[k] = v
		}
		return r
	}
	absent := info("+CRSM: 106,130")
	for _, tc := range []struct {
		name string
		r    replies
		want modem.SIM
		is   error
	}{
		{name: "everything at once", r: base(replies{readAD: crsm("00000003"), readSPN: crsm("0054657374FFFFFFFFFFFFFFFFFFFFFFFFFF"), readGID: crsm("42FF")}),
			want: modem.SIM{ICCID: oldICCID, IMSI: "310410123456789", PLMN: "310410", SPN: "Test", GID1: "42"}},
		{name: "the card says the length (6Cxx)", r: base(replies{
			readAD: info("+CRSM: 108,4"), "AT+CRSM=176,28589,0,0,4": crsm("00000002"),
			readSPN: info("+CRSM: 108,17"), "AT+CRSM=176,28486,0,0,17": crsm("0154657374FFFFFFFFFFFFFFFFFFFFFFFFFF"), readGID: absent,
		}), want: modem.SIM{ICCID: oldICCID, IMSI: "310410123456789", PLMN: "31041", SPN: "Test"}},
		{name: "the file's description, USIM and 2G", r: base(replies{
			readAD: info("+CRSM: 103,0"), "AT+CRSM=192,28589,0,0,15": crsm("621082054121000401" + "800200048801"), "AT+CRSM=176,28589,0,0,4": crsm("00000003"),
			readSPN: "\r\n+CME ERROR: 50\r\n", "AT+CRSM=192,28486,0,0,15": crsm("000000116F46040000000001020000"), "AT+CRSM=176,28486,0,0,17": crsm("0054657374FFFFFFFFFFFFFFFFFFFFFFFFFF"),
			readGID: crsm(""), "AT+CRSM=192,28478,0,0,15": crsm("00"),
		}), want: modem.SIM{ICCID: oldICCID, IMSI: "310410123456789", PLMN: "310410", SPN: "Test"}},
		{name: "no files: the table of countries", r: base(replies{readAD: absent, readSPN: absent, readGID: absent}),
			want: modem.SIM{ICCID: oldICCID, IMSI: "310410123456789", PLMN: "310410"}},
		{name: "no AT+CRSM", r: base(nil), want: modem.SIM{ICCID: oldICCID, IMSI: "310410123456789", PLMN: "310410"}},
		{name: "two digits elsewhere", r: replies{"AT+CCID": info(oldICCID), "AT+CIMI": info("262011234567890")},
			want: modem.SIM{ICCID: oldICCID, IMSI: "262011234567890", PLMN: "26201"}},
		{name: "locked", r: replies{"AT+CCID": info(oldICCID), "AT+CIMI": "\r\n+CME ERROR: 11\r\n"}, want: modem.SIM{ICCID: oldICCID}},
		{name: "no SIM", r: replies{"AT+CCID": "\r\n+CME ERROR: 10\r\n"}, is: at.ErrNoSIM},
		{name: "GID1 unset", r: base(replies{readGID: crsm("FFFFFFFF")}), want: modem.SIM{ICCID: oldICCID, IMSI: "310410123456789", PLMN: "310410"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			conn, _ := attest.Dial(t, tc.r.answer)
			got, err := atmodem.New(conn).SIM(t.Context())
			if !errors.Is(err, tc.is) || got != tc.want {
				t.Errorf("%+v, %v, want %+v, %v", got, err, tc.want, tc.is)
			}
		})
	}
}

// A modem that stops answering in the middle is an error, not half a SIM.
func TestSIMOfADyingModem(t *testing.T) {
	for _, last := range []string{"AT+CIMI", "AT+CRSM=176,28589,0,0,0"} {
		synctest.Test(t, func(t *testing.T) {
			var s *attest.Modem
			var conn *at.Conn
			conn, s = attest.Dial(t, func(cmd string) string {
				if cmd == last {
					s.Close()
				}
				return replies{"AT+CCID": info(oldICCID), "AT+CIMI": info("310410123456789")}.answer(cmd)
			})
			if sim, err := atmodem.New(conn).SIM(t.Context()); !errors.Is(err, at.ErrHangup) || sim != (modem.SIM{}) {
				t.Errorf("%+v, %v, want ErrHangup", sim, err)
			}
		})
	}
}

func TestReadEF(t *testing.T) {
	for _, tc := range []struct {
		name string
		r    replies
		want string
		is   error
	}{
		{"absent", replies{"AT+CRSM=176,28478,0,0,0": info("+CRSM: 106,130")}, "", at.ErrNotFound},
		{"absent, 2G", replies{"AT+CRSM=176,28478,0,0,0": info("+CRSM: 148,4")}, "", at.ErrNotFound},
		{"security", replies{"AT+CRSM=176,28478,0,0,0": info("+CRSM: 105,130")}, "", at.ErrError},
		{"busy", replies{"AT+CRSM=176,28478,0,0,0": "\r\n+CME ERROR: 14\r\n"}, "", at.ErrBusy},
		{"right length, then refused", replies{"AT+CRSM=176,28478,0,0,0": info("+CRSM: 108,1")}, "", at.ErrError},
		{"no status", replies{"AT+CRSM=176,28478,0,0,0": info("+CRSM: what"), "AT+CRSM=192,28478,0,0,15": info()}, "", atmodem.ErrUnreadable},
		{"status out of range", replies{"AT+CRSM=176,28478,0,0,0": info("+CRSM: 1440,0")}, "", atmodem.ErrUnreadable},
		{"no hex", replies{"AT+CRSM=176,28478,0,0,0": info(`+CRSM: 144,0,"XY"`)}, "", atmodem.ErrUnreadable},
		{"there", replies{"AT+CRSM=176,28478,0,0,0": crsm("4201")}, "4201", nil},
	} {
		t.Run(tc.name, func(t *testing.T) {
			conn, _ := attest.Dial(t, tc.r.answer)
			b, err := atmodem.New(conn).ReadEF(t.Context(), atmodem.FileGID1)
			if !errors.Is(err, tc.is) || fmt.Sprintf("%X", b) != tc.want {
				t.Errorf("%X, %v, want %s, %v", b, err, tc.want, tc.is)
			}
		})
	}
}

// Names as cards have them (TS 102 221, annex A, has the three UCS2 codings).
func TestSPN(t *testing.T) {
	for in, want := range map[string]string{
		"0054657374FFFF":    "Test",
		"00":                "",
		"":                  "",
		"00FFFF":            "",
		"005B7C5E7FFF":      "ÄöÜà",
		"008000540065FFFF":  "Te",
		"0080D83DDE00":      "😀",
		"00800054" + "00FF": "Tÿ", // the end of the last character is no filler
		"0081020841C1FF":    "Aс", // base 08: U+0400
		"00820205304142FF":  "AB", // base 0530, not used
		"0082020530C1C2FF":  "ձղ",
		"00414F4B1B0D":      "AOK", // escape and CR do not show
		"0090":              "",
	} {
		conn, _ := attest.Dial(t, replies{"AT+CCID": info(oldICCID), "AT+CRSM=176,28486,0,0,0": crsm(in)}.answer)
		sim, err := atmodem.New(conn).SIM(t.Context())
		if err != nil || sim.SPN != want {
			t.Errorf("%s: %q, %v, want %q", in, sim.SPN, err, want)
		}
	}
}
