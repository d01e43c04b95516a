package quirks_test

import (
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"lpad/modem"
	"lpad/modem/modemtest"
	"lpad/modem/quirks"
)

// findExample is what is known of a line's own example.
func findExample(l quirks.Line) quirks.Quirks {
	e := l.Example
	if e.Reader != "" {
		return quirks.Builtin().FindReader(e.Reader)
	}
	return quirks.Builtin().Find(modem.Identity{Manufacturer: e.Manufacturer, Model: e.Model, Revision: e.Revision})
}

func TestBuiltinLines(t *testing.T) {
	if err := quirks.BuiltinError(); err != nil {
		t.Fatal(err)
	}
	lines := quirks.Builtin().Lines()
	if len(lines) < 40 {
		t.Errorf("%d lines, expected at least the 40 of the field notes", len(lines))
	}
	for _, l := range lines {
		t.Run(l.Name, func(t *testing.T) {
			if q := findExample(l); !slices.Contains(q.Names, l.Name) {
				t.Errorf("%+v is found to be %v", l.Example, q.Names)
			}
			if len(l.Sources) == 0 {
				t.Error("no source")
			}
			for _, s := range l.Sources {
				if !strings.HasPrefix(s, "https://") || strings.ContainsAny(s, " \"") {
					t.Errorf("source %q is no address", s)
				}
			}
			if len(l.Facts)+len(l.Notes) == 0 {
				t.Error("the line says nothing")
			}
			for _, p := range l.Match.Reader {
				if p == "" {
					t.Error("an empty pattern")
				}
			}
			for _, usb := range l.Match.USB {
				vendor, product, _ := strings.Cut(usb, ":")
				if len(quirks.Builtin().Ports(vendor, product)) == 0 && hasFact(l, "ports") {
					t.Errorf("%s: no ports", usb)
				}
				if len(vendor) != 4 || len(product) != 4 || strings.Trim(usb, "0123456789abcdef:") != "" {
					t.Errorf("%q are no USB ids", usb)
				}
			}
		})
	}
}

func hasFact(l quirks.Line, key string) bool {
	return slices.ContainsFunc(l.Facts, func(f quirks.Fact) bool { return f.Key == key })
}

// The families of the lab, in the words of its simulated modems: what is found
// is the merge of the maker's line and the model's.
func TestFind(t *testing.T) {
	const s = time.Second
	for _, tc := range []struct {
		name  string
		id    modem.Identity
		names string
		check func(q quirks.Quirks) bool
	}{
		{"EC20", modem.Identity{Manufacturer: "Quectel", Model: "EC20F", Revision: "EC20CEHDLGR06A07M1G"}, "quectel quectel-ec20 quectel-ec25-ports",
			func(q quirks.Quirks) bool {
				return q.APDU.Paths[0] == quirks.CSIM && q.APDU.Channels == 1 && q.APDU.ChannelLe == 1 && q.APDU.BlockSize == 120 &&
					q.APDU.Command == 30*s && q.SIM.Settle == 600*time.Millisecond && q.SIM.ICCID[0] == "AT+QCCID" && q.RungTime[quirks.RungCFUN01] == 45*s && q.Role(3) == quirks.RoleAT2
			}},
		{"EG25", modem.Identity{Manufacturer: "Quectel", Model: "EG25-G"}, "quectel quectel-eg25 quectel-ec25-ports",
			func(q quirks.Quirks) bool {
				return slices.Equal(q.APDU.Paths, []quirks.Path{quirks.CCHO}) && q.Enable[0] == quirks.EnableICCID && q.ResetHangsUp && !q.CFUN0HangsUp
			}},
		{"EG916Q, by two lines of models", modem.Identity{Manufacturer: "QUECTEL ", Model: "eg916q-gl"}, "quectel quectel-eg9x quectel-eg916q",
			func(q quirks.Quirks) bool {
				return q.CFUN0HangsUp && slices.Equal(q.SIM.ICCID, []string{"AT+QCCID"}) && q.Ladder()[0] == quirks.RungCFUN01
			}},
		{"RM520N", modem.Identity{Manufacturer: "Quectel", Model: "RM520N-GL"}, "quectel quectel-rm5xx quectel-rm520n",
			func(q quirks.Quirks) bool { return q.Slots.Set == "AT+QUIMSLOT=%d" && q.Slots.Query != "" }},
		{"FM350", modem.Identity{Manufacturer: "Fibocom Wireless Inc.", Model: "FM350-GL"}, "fibocom fibocom-fm350",
			func(q quirks.Quirks) bool {
				return q.APDU.Handle == "bare" && q.APDU.LastBlock == 240*s && q.Reset[0] == "AT+CFUN=15"
			}},
		{"DW5821e", modem.Identity{Manufacturer: "Dell Inc.", Model: "DW5821e-eSIM Snapdragon X20 LTE"}, "dell-dw5821e",
			func(q quirks.Quirks) bool { return slices.Equal(q.APDU.Paths, []quirks.Path{quirks.CSIM}) }},
		{"SIM7600", modem.Identity{Manufacturer: "SIMCOM INCORPORATED", Model: "SIMCOM_SIM7600G-H"}, "simcom simcom-sim7600",
			func(q quirks.Quirks) bool { return q.Reset[0] == "AT+CRESET" && q.SIM.ICCID[0] == "AT+CICCID" }},
		{"MC7455", modem.Identity{Manufacturer: "Sierra Wireless, Incorporated", Model: "MC7455"}, "sierra sierra-mc7455",
			func(q quirks.Quirks) bool {
				return q.APDU.Handle == "hex" && q.RungTime[quirks.RungRefresh] == 20*s && q.Reset[0] == "AT!RESET"
			}},
		{"LE910C4", modem.Identity{Manufacturer: "Telit", Model: "LE910C4-EU"}, "telit telit-le910c-ports telit-le910c4",
			func(q quirks.Quirks) bool {
				return q.SIM.Subscribe[0] == "AT#QSS=2" && q.SIM.URCs[0] == "#QSS:" && q.Role(4) == quirks.RoleAT
			}},
		{"SARA-R4", modem.Identity{Manufacturer: "u-blox", Model: "SARA-R410M-02B"}, "u-blox u-blox-sara-r4",
			func(q quirks.Quirks) bool { return q.SIM.Subscribe[0] == "AT+USIMSTAT=7" && q.Reset[0] == "AT+CFUN=16" }},
		{"PLS8", modem.Identity{Manufacturer: "Cinterion", Model: "PLS8-E"}, "cinterion cinterion-pls8-ports",
			func(q quirks.Quirks) bool { return q.SIM.Subscribe[0] == "AT^SCKS=1" && q.Role(2) == quirks.RoleAT2 }},
		{"the ports of one LE910C1 are not those of another", modem.Identity{Manufacturer: "Telit", Model: "LE910C1-EUX"}, "telit telit-le910c-ports telit-le910c1-eux-ports",
			func(q quirks.Quirks) bool { return q.Role(1) == quirks.RoleAT && q.Role(4) == "" }},
		{"a dongle that is only known by its firmware", modem.Identity{Manufacturer: "1", Model: "0", Revision: "UFI001CT 20211106  1  [Nov 04 2016 02:00:00]"}, "snapdragon-410",
			func(q quirks.Quirks) bool { return q.APDU.Known == "fails" }},
		{"a new model of a known maker", modem.Identity{Manufacturer: "Quectel", Model: "XY99"}, "quectel",
			func(q quirks.Quirks) bool { return q.SIM.ICCID[0] == "AT+QCCID" && len(q.APDU.Paths) == 0 }},
		{"a reader's line is not of a modem", modem.Identity{Model: "9eSIM"}, "",
			func(q quirks.Quirks) bool { return !q.APDU.TerminalCapability }},
	} {
		t.Run(tc.name, func(t *testing.T) {
			q := quirks.Builtin().Find(tc.id)
			if got := strings.Join(q.Names, " "); got != tc.names {
				t.Errorf("lines %q, want %q", got, tc.names)
			}
			if !tc.check(q) {
				t.Errorf("got %+v", q)
			}
		})
	}
}

// The lines that are not read must be those that do not fit.
func TestPeeked(t *testing.T) {
	var want []quirks.Match
	for _, l := range quirks.Builtin().Lines() {
		want = append(want, l.Match)
	}
	if got := quirks.Peeked(); !reflect.DeepEqual(got, want) {
		t.Errorf("lines are chosen by\n%q, they say\n%q", got, want)
	}
}

func TestUnknownModem(t *testing.T) {
	want := quirks.Quirks{}
	want.APDU.ChannelLe = 1
	for _, id := range []modem.Identity{{}, {Manufacturer: "Nobody", Model: "X1", Revision: "1"}, {Manufacturer: "Simulated Inc.", Model: "SIM-1"}} {
		q := quirks.Builtin().Find(id)
		if d := cmp.Diff(want, q); d != "" {
			t.Errorf("%+v (-want +got):\n%s", id, d)
		}
		if !slices.Equal(q.Ladder(), quirks.DefaultReread()) || q.Ladder()[0] != quirks.RungRefresh {
			t.Errorf("%+v: ladder %v", id, q.Ladder())
		}
	}
}

func TestFindReader(t *testing.T) {
	for name, want := range map[string]string{
		"Gemalto PC Twin Reader 00 00": "pcsc",
		"Generic USB2.0-CRW [Smart Card Reader Interface] (20070818000000000) 00 00": "pcsc usb20-crw",
		"9eSIM USB Reader 00 00": "pcsc 9esim-usb",
	} {
		q := quirks.Builtin().FindReader(name)
		if got := strings.Join(q.Names, " "); got != want || q.APDU.TerminalCapability != strings.HasPrefix(name, "9eSIM") {
			t.Errorf("%s: %q, want %q; %+v", name, got, want, q)
		}
	}
}

func TestPorts(t *testing.T) {
	for _, tc := range []struct {
		vendor, product string
		at              int // the interface of the first AT port
	}{
		{"2c7c", "0125", 2}, {"1E2D", "006F", 0}, {"1e0e", "9001", 2}, {"1bc7", "1201", 4}, {"0489", "e0b5", 2}, {"1199", "9071", 3}, {"0e8d", "7127", 6},
	} {
		ports := quirks.Builtin().Ports(tc.vendor, tc.product)
		if i := slices.IndexFunc(ports, func(p quirks.Port) bool { return p.Role == quirks.RoleAT }); i < 0 || ports[i].Interface != tc.at {
			t.Errorf("%s:%s: ports %v, want AT at %d", tc.vendor, tc.product, ports, tc.at)
		}
	}
	if ports := quirks.Builtin().Ports("1234", "5678"); ports != nil {
		t.Errorf("an unknown device has ports %v", ports)
	}
	if ports := quirks.Builtin().Ports("", ""); ports != nil {
		t.Errorf("no device has ports %v", ports)
	}
}

// What a caller does with one modem's quirks is not seen by the next one.
func TestQuirksAreTheCallers(t *testing.T) {
	id := modem.Identity{Manufacturer: "Quectel", Model: "EC20F"}
	want := quirks.Builtin().Find(id)
	q := quirks.Builtin().Find(id)
	q.APDU.Paths[0], q.SIM.ICCID[0], q.Reread[0], q.Ports[0].Role, q.Reset[0] = "", "", "", "", ""
	q.Ladder()[1] = ""
	mc := quirks.Builtin().Find(modem.Identity{Manufacturer: "Sierra Wireless", Model: "MC7455"})
	mc.RungTime[quirks.RungRefresh] = 0
	if d := cmp.Diff(want, quirks.Builtin().Find(id)); d != "" {
		t.Error(d)
	}
	if quirks.Builtin().Find(modem.Identity{Manufacturer: "Sierra Wireless", Model: "MC7455"}).RungTime[quirks.RungRefresh] == 0 {
		t.Error("a changed map is in the table")
	}
}

// Every simulated modem is found by what it calls itself.
func TestDialectsAreFound(t *testing.T) {
	for _, d := range modemtest.Dialects() {
		if d.Name == modemtest.Generic.Name {
			continue
		}
		q := quirks.Builtin().Find(modem.Identity{Manufacturer: d.Manufacturer, Model: d.Model, Revision: d.Revision})
		if len(q.Names) == 0 {
			t.Errorf("%s: nothing is known of %s %s", d.Name, d.Manufacturer, d.Model)
		}
		t.Logf("%-16s %v", d.Name, q.Names)
	}
}

func TestPatterns(t *testing.T) {
	for _, tc := range []struct {
		pattern, s string
		want       bool
	}{
		{"", "", true}, {"", "a", false}, {"*", "", true}, {"**", "abc", true}, {"?", "", false}, {"?", "a", true},
		{"eg25*", "eg25-g", true}, {"eg25*", "eg25", true}, {"eg25*", "xeg25", false}, {"*sim7600*", "simcom_sim7600g-h", true},
		{"a*b*c", "a-b-b-c", true}, {"a*b*c", "a-c-b", false}, {"*ab", "aab", true}, {"a?c", "abc", true}, {"a?c", "ac", false},
		{"mbim ?8086:7560?", "mbim [8086:7560]", true}, {"le910c4", "le910c4-eu", false},
		{strings.Repeat("*a", 50) + "b", strings.Repeat("a", 128), false}, // ends at once, not after 2^50 steps
	} {
		if got := quirks.Glob(tc.pattern, tc.s); got != tc.want {
			t.Errorf("%q, %q: %v, want %v", tc.pattern, tc.s, got, tc.want)
		}
	}
}
