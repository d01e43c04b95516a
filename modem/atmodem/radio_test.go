package atmodem_test

import (
	"slices"
	"testing"

	"lpad/modem"
	"lpad/modem/atmodem"
)

// What modems write is brought into one form, and written again from it.
func TestSetting(t *testing.T) {
	for _, tc := range []struct {
		name, setting string
		said          []string
		want          []string // nil: unreadable
		off           []string // commands that make this of nothing
	}{
		{"eDRX of two", atmodem.EDRX, []string{`5,"0010"`, `4,"0101"`}, []string{`4,"0101"`, `5,"0010"`}, []string{`AT+CEDRXS=1,4,"0101"`, `AT+CEDRXS=1,5,"0010"`}},
		{"eDRX without quotes, with what the network gave", atmodem.EDRX, []string{`4,0101,0101,0011`}, []string{`4,"0101"`}, []string{`AT+CEDRXS=1,4,"0101"`}},
		{"eDRX off", atmodem.EDRX, []string{"0"}, []string{}, nil},
		{"eDRX hostile", atmodem.EDRX, []string{`4,"01;1"`, `44,"0101"`, `,`, ``}, []string{}, nil},
		{"PSM", atmodem.PSM, []string{`1,,,"00100001","00000101"`}, []string{`1,,,"00100001","00000101"`}, []string{`AT+CPSMS=1,,,"00100001","00000101"`}},
		{"PSM off", atmodem.PSM, []string{`0,,,"00100001","00000101"`}, []string{"0"}, []string{"AT+CPSMS=0"}},
		{"PSM without timers", atmodem.PSM, []string{`1`}, nil, nil},
		{"SMSC", atmodem.SMSC, []string{`"+491710760000",145`}, []string{`"+491710760000",145`}, []string{`AT+CSCA="+491710760000",145`}},
		{"SMSC without a type", atmodem.SMSC, []string{`"+49171"`}, []string{`"+49171",145`}, []string{`AT+CSCA="+49171",145`}},
		{"SMSC empty", atmodem.SMSC, []string{`"",129`}, []string{`"",129`}, []string{`AT+CSCA="",129`}},
		{"SMSC hostile", atmodem.SMSC, []string{`"12;AT",145`}, nil, nil},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got, err := atmodem.ParseSetting(tc.setting, tc.said)
			if !slices.Equal(got, tc.want) || (err != nil) != (tc.want == nil) {
				t.Fatalf("%q, %v, want %q", got, err, tc.want)
			}
			if again, err := atmodem.ParseSetting(tc.setting, got); tc.want != nil && (err != nil || !slices.Equal(again, got)) {
				t.Errorf("read again: %q, %v", again, err)
			}
			if cmds := atmodem.SettingCommands(tc.setting, nil, got); !slices.Equal(cmds, tc.off) {
				t.Errorf("commands %q, want %q", cmds, tc.off)
			}
		})
	}
}

func TestWantedSetting(t *testing.T) {
	now := []string{`4,"0101"`, `5,"0010"`}
	for _, tc := range []struct {
		name, setting string
		radio         modem.Radio
		want          []string
		commands      []string
	}{
		{"one technology", atmodem.EDRX, modem.Radio{EDRX: []modem.EDRX{{AcT: 4, Value: 9}}}, []string{`4,"1001"`, `5,"0010"`}, []string{`AT+CEDRXS=1,4,"1001"`, `AT+CEDRXS=1,5,"0010"`}},
		{"PSM", atmodem.PSM, modem.Radio{PSM: &modem.PSM{TAU: 0x21, Active: 5}}, []string{`1,,,"00100001","00000101"`}, []string{`AT+CPSMS=1,,,"00100001","00000101"`}},
		{"SMSC", atmodem.SMSC, modem.Radio{SMSC: "+49171"}, []string{`"+49171",145`}, []string{`AT+CSCA="+49171",145`}},
		{"an SMSC that is a command", atmodem.SMSC, modem.Radio{SMSC: `1";+CFUN=0`}, []string{`"1";+CFUN=0",129`}, nil},
	} {
		t.Run(tc.name, func(t *testing.T) {
			want := atmodem.WantedSetting(tc.setting, &tc.radio, now)
			if cmds := atmodem.SettingCommands(tc.setting, now, want); !slices.Equal(want, tc.want) || !slices.Equal(cmds, tc.commands) {
				t.Errorf("%q by %q, want %q by %q", want, cmds, tc.want, tc.commands)
			}
		})
	}
	if cmds := atmodem.SettingCommands(atmodem.EDRX, now, []string{`5,"0010"`}); !slices.Equal(cmds, []string{"AT+CEDRXS=0,4", `AT+CEDRXS=1,5,"0010"`}) {
		t.Errorf("taken back by %q", cmds)
	}
}

func FuzzSetting(f *testing.F) {
	f.Add(atmodem.EDRX, `4,"0101"`)
	f.Add(atmodem.PSM, `1,,,"00100001","00000101"`)
	f.Add(atmodem.SMSC, `"+491710760000",145`)
	f.Fuzz(func(t *testing.T, name, line string) {
		if name != atmodem.EDRX && name != atmodem.PSM && name != atmodem.SMSC {
			return
		}
		got, err := atmodem.ParseSetting(name, []string{line})
		if err != nil {
			return
		}
		if again, err := atmodem.ParseSetting(name, got); err != nil || !slices.Equal(again, got) {
			t.Errorf("%q reads as %q, and again as %q, %v", line, got, again, err)
		}
	})
}
