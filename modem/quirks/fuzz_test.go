package quirks_test

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"lpad/modem"
	"lpad/modem/quirks"
)

// Whatever a file of an OEM says: there is an error, or a table in which every
// line is whole and every fact within its bounds.
func FuzzTable(f *testing.F) {
	f.Add([]byte(one("  paths: [csim]\n  reread: [cfun-1-1]\n  rung_time: {cfun-1-1: 90s}\n  ports: {2: at}\n  slot_set: AT+QUIMSLOT=%d\n")))
	f.Add([]byte(one("  at: partly\n  block_size: 120\n  channel_le: -1\n  command: 30s\n  iccid: [AT+QCCID, AT+CCID]\n  note:\n  - a b\n  inferred: true\n")))
	f.Add([]byte("version: 1\nmodems:\n- {name: x, reader: '*', terminal_capability: true, example: x, source: https://e.com}\n"))
	f.Add([]byte("a: &a [x,x,x,x]\nb: &b [*a,*a,*a,*a]\nc: &c [*b,*b,*b,*b]\nd: [*c,*c,*c,*c]\n"))
	f.Add([]byte("version: 1\nmodems:\n- &a {name: x, <<: *a}\n"))
	f.Add([]byte(strings.Repeat("[", 2000)))
	f.Add([]byte(strings.Repeat("- ", 2000)))
	f.Add([]byte(strings.Repeat("? ", 2000)))
	f.Add([]byte("%YAML 1.1\n---\nversion: !!binary MQ==\n"))
	f.Add([]byte("version: 1\nshort: {'': https://}\nmodems: [{name: x, usb: '*', source: a}]\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		lines, table, err := quirks.Parse(b)
		if err != nil {
			if len(err.Error()) > 64<<10 {
				t.Errorf("an error of %d bytes", len(err.Error()))
			}
			return
		}
		for _, l := range lines {
			if l.Name == "" || len(l.Sources) == 0 {
				t.Errorf("a line that is not whole: %+v", l)
			}
			check(t, quirks.Apply(l))
		}
		table.Find(modem.Identity{Manufacturer: "Quectel", Model: "EC20F", Revision: "EC20CEHDLGR06A07M1G"})
		table.FindReader("Generic USB2.0-CRW")
		table.Ports("2c7c", "0125")
	})
}

func check(t *testing.T, q quirks.Quirks) {
	t.Helper()
	a := q.APDU
	if a.BlockSize < 0 || a.BlockSize > 255 || a.ChannelLe < -1 || a.ChannelLe > 255 || a.Channels < 0 || a.Channels > 19 || a.OpenRetries < 0 || a.OpenRetries > 20 {
		t.Errorf("a number out of its bounds: %+v", a)
	}
	times := []time.Duration{a.Command, a.LastBlock, q.SIM.Settle}
	for _, d := range q.RungTime {
		times = append(times, d)
	}
	for _, d := range times {
		if d < 0 || d > time.Hour {
			t.Errorf("a time out of its bounds: %v", d)
		}
	}
	for _, list := range [][]string{q.SIM.Subscribe, q.SIM.ICCID, q.Reset, q.AfterSwitch, {q.Slots.Query, q.Slots.Set}} {
		if len(list) > 32 {
			t.Errorf("%d commands", len(list))
		}
		for _, c := range list {
			if c != "" && (!strings.HasPrefix(c, "AT") || len(c) > 200 || strings.ContainsAny(c, "\r\n\x00\x1a\x1b")) {
				t.Errorf("%q would be written to a modem", c)
			}
		}
	}
	if q.Slots.Set != "" && strings.Count(q.Slots.Set, "%") != 1 {
		t.Errorf("slot command %q", q.Slots.Set)
	}
}

// Whatever is in the memory's file: there is an error, or what is in it is
// believable, fits the file again and is read from it as the same.
func FuzzMemory(f *testing.F) {
	f.Add([]byte(`{"version":1,"modems":{"quectel|eg25|x":{"path":"ccho","block_size":120,"rung":"cfun-0-1","iccid":"AT+QCCID","isdr":"A0000005591010FFFFFFFF8900000100","at":"2026-01-01T00:00:00Z"}}}`))
	f.Add([]byte(`{"version":1,"modems":null}`))
	f.Add([]byte(`{"version":1,"modems":{"a":{"block_size":1e9,"at":"x"}}}`))
	f.Add([]byte(`[[[[`))
	f.Fuzz(func(t *testing.T, b []byte) {
		modems, err := quirks.ParseMemory(b)
		if err != nil {
			return
		}
		if len(modems) > 64 {
			t.Errorf("%d modems", len(modems))
		}
		for k, l := range modems {
			if l.BlockSize < 0 || l.BlockSize > 255 || l.ICCID != "" && !strings.HasPrefix(l.ICCID, "AT") || strings.ContainsAny(l.ICCID, "\r\n") || len(l.ISDR) > 32 {
				t.Errorf("%q: %+v", k, l)
			}
		}
		again, err := json.Marshal(map[string]any{"version": 1, "modems": modems})
		if err != nil {
			return // a time beyond year 9999, which JSON reads and does not write
		}
		same, err := quirks.ParseMemory(again)
		if err != nil {
			t.Fatal(err)
		}
		for k, l := range modems {
			if !l.At.Equal(same[k].At) {
				t.Errorf("%q: %v, then %v", k, l.At, same[k].At)
			}
			same, l := same[k], l
			same.At, l.At = time.Time{}, time.Time{}
			if same != l {
				t.Errorf("%q: %+v, then %+v", k, l, same)
			}
		}
	})
}
