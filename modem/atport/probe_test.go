package atport_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"lpad/apdu"
	"lpad/apdu/apdutest"
	"lpad/modem/at"
	"lpad/modem/atport"
	"lpad/modem/modemtest"
	"lpad/modem/serialport"
)

// answers are the capabilities by name, as "yes ccho".
func answers(v atport.Verdict) map[string]string {
	out := map[string]string{}
	for _, c := range v.Capabilities {
		out[c.Name] = strings.TrimSpace(string(c.Answer) + " " + c.Value)
	}
	return out
}

// The verdict on each kind of modem is what that kind can do, whatever it says of
// itself, and the modem is afterwards as it was before.
func TestProbeOfEveryDialect(t *testing.T) {
	usual := map[string]string{"echo": "yes off", "errors": "yes 1", "cfun": "yes 1", "sim": "yes ready", "imsi": "yes AT+CIMI",
		"registration": "yes home", "ccho": "yes ccho", "csim": "yes csim", "euicc": "yes ccho", "slots": "unknown"}
	for _, tc := range []struct {
		dialect string
		differs map[string]string // from usual
	}{
		{"u-blox", map[string]string{"iccid": "yes AT+CCID"}},
		{"generic", map[string]string{"iccid": "yes AT+CCID"}},
		{"quectel-ec20", map[string]string{"ccho": "no", "euicc": "yes csim", "block-size": "yes 120", "iccid": "yes AT+QCCID"}},
		{"quectel-eg25", map[string]string{"csim": "no", "iccid": "yes AT+QCCID"}},
		{"quectel-eg9x", map[string]string{"iccid": "yes AT+QCCID"}},
		{"quectel-rm5xx", map[string]string{"slots": "yes 1"}},
		{"fibocom-fm350", map[string]string{"iccid": "yes AT+ICCID"}},
		{"simcom-sim7600", map[string]string{"ccho": "no", "euicc": "yes csim"}},
		{"sierra-mc7455", map[string]string{"iccid": "yes AT!ICCID?"}},
		{"telit-le910", map[string]string{"iccid": "yes AT#CCID"}},
		{"cinterion", map[string]string{"iccid": "yes AT^SCID", "slots": "no"}},
		{"dell-dw5821e", map[string]string{"ccho": "no", "euicc": "yes csim", "slots": "yes 0"}}, // its slots count from 0
	} {
		t.Run(tc.dialect, func(t *testing.T) {
			t.Parallel()
			d, _ := modemtest.DialectNamed(tc.dialect)
			b := newBench(t, d)
			if err := b.WaitRegistered(t.Context(), ""); err != nil {
				t.Fatal(err)
			}
			p := open(t, b.config(nil))
			before := b.State()
			v, err := p.Probe(t.Context())
			if err != nil {
				t.Fatalf("%v\n%s", err, logOf(b))
			}
			if after := b.State(); !reflect.DeepEqual(before, after) {
				t.Errorf("the modem was %+v and is %+v", before, after)
			}
			if v.Manufacturer != d.Manufacturer || v.Model != d.Model || v.Revision != d.Revision || v.Port != filepath.Join(b.dir, "ttyUSB1") || !v.Usable {
				t.Errorf("verdict %+v", v)
			}
			got := answers(v)
			for name, want := range usual {
				if w, ok := tc.differs[name]; ok {
					want = w
				}
				if got[name] != want {
					c, _ := v.Of(name)
					t.Errorf("%s: %q, want %q (%s)", name, got[name], want, c.Evidence)
				}
			}
			for name, want := range tc.differs {
				if got[name] != want {
					t.Errorf("%s: %q, want %q", name, got[name], want)
				}
			}
			text, err := json.Marshal(v)
			if err != nil {
				t.Fatal(err)
			}
			for _, secret := range []string{d.IMEI, iccidA, "001010123456789"} {
				if strings.Contains(string(text), secret) {
					t.Errorf("%s is in the verdict", secret)
				}
			}
			for _, e := range b.Log().Entries() {
				if e.Kind == modemtest.Sent && strings.Contains(e.Text, "=?") {
					t.Errorf("a test command was asked: %s", e.Text)
				}
			}
			// Nothing is left open: all channels of the card are free for others.
			ch, err := p.OpenChannel(t.Context(), aid)
			if err != nil {
				t.Fatal(err)
			}
			if err := ch.Close(t.Context()); err != nil {
				t.Error(err)
			}
		})
	}
}

// What stands in the way is named.
func TestProbeInTrouble(t *testing.T) {
	for _, tc := range []struct {
		name  string
		fault modemtest.Fault
		want  map[string]string
	}{
		{"no ISD-R", modemtest.Fault{Command: "+CCHO", Answer: "+CME ERROR: 22"}, map[string]string{"ccho": "yes ccho"}},
		{"no clock", modemtest.Fault{Command: "+CCLK", Answer: `+CCLK: "80/01/06,00:00:12+00"` + "\nOK"}, map[string]string{"clock": "yes"}},
		{"no SIM", modemtest.Fault{Command: "+CPIN", Answer: "+CME ERROR: 10"}, map[string]string{"sim": "no", "euicc": "yes ccho"}},
		{"messages in between", modemtest.Fault{Command: "+CIMI", URC: "+CSQ: 20,99"}, map[string]string{"imsi": "yes AT+CIMI", "foreign-lines": "no"}},
		{"foreign lines", modemtest.Fault{Command: "+CIMI", URC: "AT+QENG=1"}, map[string]string{"imsi": "yes AT+CIMI", "foreign-lines": "yes"}},
		{"the eUICC gives no EID", modemtest.Fault{Command: "+CGLA", Answer: `+CGLA: 4,"6985"` + "\nOK"}, map[string]string{"euicc": "yes csim"}},
		{"nothing goes to the card", modemtest.Fault{Command: "+C", Answer: "ERROR"}, map[string]string{"euicc": "unknown", "csim": "no", "ccho": "no", "iccid": "no", "registration": "no unknown", "clock": "no"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			b := newBench(t, modemtest.Generic)
			p := open(t, b.config(nil))
			if _, err := p.Identity(t.Context()); err != nil {
				t.Fatal(err)
			}
			b.AddFault(tc.fault)
			v, err := p.Probe(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			got := answers(v)
			for name, want := range tc.want {
				if c, _ := v.Of(name); got[name] != want || c.Evidence == "" {
					t.Errorf("%s: %q (%s), want %q", name, got[name], c.Evidence, want)
				}
			}
			if n := len(b.State().Sessions); n != 0 {
				t.Errorf("%d sessions are open", n)
			}
		})
	}
}

// A card whose maker has an AID of its own for the ISD-R is found by it.
func TestProbeOtherISDR(t *testing.T) {
	own := []byte{0xA0, 0x00, 0x00, 0x05, 0x59, 0x10, 0x10, 0xFF, 0xFF, 0xFF, 0xFF, 0x89, 0x00, 0x05, 0x05, 0x00}
	eid := append([]byte{0xBF, 0x3E, 0x12, 0x5A, 0x10}, bytes.Repeat([]byte{0x89}, 16)...)
	card := &apdutest.UICC{Apps: map[string]apdutest.App{string(own): func(apdu.Command) apdu.Response { return apdu.Response{Data: eid, SW: 0x9000} }}, Channels: 3}
	m, err := modemtest.New(modemtest.Config{Card: card, Dialect: modemtest.Generic})
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	port := filepath.Join(t.TempDir(), "ttyUSB0")
	if _, err := m.OpenPTY(port); err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		isdrs [][]byte
		want  string
	}{{nil, "no"}, {[][]byte{own}, "yes ccho"}} {
		p := open(t, atport.Config{Path: port, ISDRs: tc.isdrs})
		v, err := p.Probe(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if err := p.Close(); err != nil {
			t.Error(err)
		}
		if got := answers(v)["euicc"]; got != tc.want || v.Usable != (tc.isdrs != nil) {
			t.Errorf("euicc: %q, want %q", got, tc.want)
		}
		if n := card.Open(); n != 0 {
			t.Errorf("%d channels are open", n)
		}
	}
}

// A probe that is called off while the card is used closes what it has opened,
// and looks at nothing more.
func TestProbeCalledOff(t *testing.T) {
	isdr := []byte{0xA0, 0x00, 0x00, 0x05, 0x59, 0x10, 0x10, 0xFF, 0xFF, 0xFF, 0xFF, 0x89, 0x00, 0x00, 0x01, 0x00}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	card := &apdutest.UICC{Apps: map[string]apdutest.App{string(isdr): func(apdu.Command) apdu.Response {
		cancel()
		return apdu.Response{Data: append([]byte{0xBF, 0x3E, 0x12, 0x5A, 0x10}, bytes.Repeat([]byte{0x89}, 16)...), SW: 0x9000}
	}}, Channels: 3}
	m, err := modemtest.New(modemtest.Config{Card: card, Dialect: modemtest.Generic})
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	port := filepath.Join(t.TempDir(), "ttyUSB0")
	if _, err := m.OpenPTY(port); err != nil {
		t.Fatal(err)
	}
	p := open(t, atport.Config{Path: port})
	v, err := p.Probe(ctx)
	if !errors.Is(err, context.Canceled) {
		t.Errorf("error %v", err)
	}
	got := answers(v)
	if _, asked := got["registration"]; asked || got["euicc"] != "yes ccho" {
		t.Errorf("verdict %v", got)
	}
	if n, s := card.Open(), m.State(); n != 0 || len(s.Sessions) != 0 {
		t.Errorf("%d channels and the sessions %v are open", n, s.Sessions)
	}
}

// A port that cannot be used says why, and who has it.
func TestProbeWithoutAPort(t *testing.T) {
	p := open(t, atport.Config{Path: filepath.Join(t.TempDir(), "ttyUSB0")})
	v, err := p.Probe(t.Context())
	if text, jsonErr := json.Marshal(v); jsonErr != nil || strings.Contains(string(text), "null") {
		t.Errorf("%s, %v", text, jsonErr)
	}
	if c, _ := v.Of("port"); err == nil || c.Answer != atport.No || c.Code != "port-missing" || c.Next == "" || v.Usable {
		t.Errorf("%v, %+v", err, v)
	}
	b := newBench(t, modemtest.Generic)
	other, err := serialport.Open(filepath.Join(b.dir, "ttyUSB1"), 115200)
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	v, err = open(t, b.config(nil)).Probe(t.Context())
	if c, _ := v.Of("alone"); err == nil || c.Answer != atport.No || c.Code != "port-busy" {
		t.Errorf("%v, %+v", err, v)
	}
	// A modem that hangs up in the middle is an error, with what was found until then.
	b = newBench(t, modemtest.Generic)
	p = open(t, b.config(nil))
	b.AddFault(modemtest.Fault{Command: "+CGLA", Hangup: true, Times: 1})
	v, err = p.Probe(t.Context())
	if c, ok := v.Of("ccho"); err == nil || !ok || c.Answer != atport.Unknown || c.Code == "" {
		t.Errorf("%v, %+v", err, c)
	}
	if len(v.Capabilities) < 8 {
		t.Errorf("only %d capabilities", len(v.Capabilities))
	}
}

// Slots are numbered as the maker does it, and chosen only by order.
func TestSlots(t *testing.T) {
	d, _ := modemtest.DialectNamed("quectel-rm5xx")
	b := newBench(t, d)
	p := open(t, b.config(nil))
	active, _, err := p.Slot(t.Context())
	if err != nil || active != 1 {
		t.Fatalf("slot %d, %v", active, err)
	}
	if err := p.SetSlot(t.Context(), 2); err != nil {
		t.Fatal(err)
	}
	if active, _, err = p.Slot(t.Context()); err != nil || active != 2 || b.State().Slot != 2 {
		t.Errorf("slot %d, %v", active, err)
	}
	if err := p.SetSlot(t.Context(), 7); !at.Refused(err) {
		t.Errorf("slot 7: %v", err)
	}
	b = newBench(t, modemtest.Generic)
	p = open(t, b.config(nil))
	if _, _, err := p.Slot(t.Context()); err == nil || b.State().Slot != 1 {
		t.Errorf("a modem without slots: %v", err)
	}
}
