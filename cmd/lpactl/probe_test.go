package main

import (
	"encoding/json"
	"io"
	"strings"
	"testing"

	"lpad/agent/api"
)

var probed = api.Probe{
	Version: "1.0", At: epoch, Backend: "at", Path: "/dev/ttyUSB2", Place: "1-1.4:1.2", Manufacturer: "Quectel", Model: "EC20F", Revision: "EC20CEFAGR06", IMEI: "86012…23",
	Capabilities: []api.Capability{
		{Name: "port", Answer: "yes", Value: "/dev/ttyUSB2", Evidence: "the port answers"},
		{Name: "ccho", Answer: "no", Evidence: "AT+CCHO: ERROR", Code: "modem-error"},
		{Name: "alone", Answer: "no", Value: "minicom (pid 7)", Evidence: "others have the port open", Code: "port-busy", Next: "stop minicom"},
	},
	Usable: true, APDUPath: "csim", BlockSize: 120, ISDR: "A0000005591010FFFFFFFF8900000100", Enable: []string{"iccid", "aid"}, Ladder: []string{"cfun-0-1", "cfun-1-1"},
	Lines: []string{"quectel", "quectel-ec20"}, Notes: []string{"AT+CCHO is dead"}, Sources: []string{"https://example.org/186"},
	Learned:  &api.Learned{APDUPath: "csim", BlockSize: 120, Rung: "cfun-0-1", At: epoch},
	Managers: api.Managers{Network: "networkmanager", ModemManager: "1.20.4", NetworkManager: "1.42.4", Plugin: "quectel", State: "connected", Ports: []string{"ttyUSB3", "wwan0"}},
}

const probedText = `lpad            1.0, 2026-02-03 04:05:06 UTC
path            at /dev/ttyUSB2 (1-1.4:1.2)
modem           Quectel EC20F, firmware EC20CEFAGR06, IMEI 86012…23
network         networkmanager
NetworkManager  1.42.4
ModemManager    1.20.4, plugin quectel, modem connected, on ttyUSB3 wwan0

CAPABILITY  VERDICT  VALUE            EVIDENCE
port        yes      /dev/ttyUSB2     the port answers
ccho        no       -                AT+CCHO: ERROR
alone       no       minicom (pid 7)  others have the port open

lpad will use  APDUs by csim, ISD-R A0000005591010FFFFFFFF8900000100
               blocks of 120 bytes, or as many as get through
               to enable: iccid, then aid
               to have the SIM read again: cfun-0-1, then cfun-1-1
known as       quectel, quectel-ec20
learnt before  since 2026-02-03 04:05 UTC, APDUs by csim, SIM read again by cfun-0-1, blocks of 120 bytes
note           AT+CCHO is dead
source         https://example.org/186
alone          stop minicom
`

// A probe is printed whole, and ends as its problem does.
func TestProbe(t *testing.T) {
	problem := &api.Problem{Code: "port-busy", Title: "in use", Next: "stop minicom", Who: "technician"}
	for _, tc := range []struct {
		name    string
		problem *api.Problem
		exit    int
		errs    string
	}{
		{"good", nil, 0, ""},
		{"a port that is in use", problem, 53, "error: in use [port-busy]\nnext: stop minicom\n"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			d := newDaemon(t)
			d.probed = probed
			d.probed.Problem = tc.problem
			exit, out, errs := d.lpactl("", "probe")
			if exit != tc.exit || out != probedText || errs != tc.errs {
				t.Errorf("exit %d\n%s%s", exit, out, errs)
			}
			exit, out, errs = d.lpactl("", "probe", "--json")
			documents := json.NewDecoder(strings.NewReader(out))
			var got api.Probe
			if err := documents.Decode(&got); err != nil || exit != tc.exit || errs != tc.errs || got.ISDR != probed.ISDR || len(got.Capabilities) != 3 {
				t.Errorf("--json: exit %d, %v\n%s%s", exit, err, out, errs)
			}
			var p api.Problem
			switch err := documents.Decode(&p); {
			case tc.problem == nil && err != io.EOF:
				t.Errorf("a second document: %v", err)
			case tc.problem != nil && (err != nil || p.Code != tc.problem.Code):
				t.Errorf("problem %+v, %v", p, err)
			}
		})
	}
	d := newDaemon(t)
	d.probed = api.Probe{Backend: "pcsc", Path: "first reader with a card", Problem: &api.Problem{Code: "pcsc-no-reader", Title: "no reader", Next: "plug one in"}}
	if exit, out, _ := d.lpactl("", "probe"); exit != 51 || strings.Contains(out, "lpad will use") || !strings.Contains(out, "not running") {
		t.Errorf("nothing usable: exit %d\n%s", exit, out)
	}
}

// A disk that takes nothing has its line in the status, with what to do.
func TestStatusOfAFullDisk(t *testing.T) {
	var out strings.Builder
	(&ui{out: &out}).status(api.Status{State: "ready", Journal: &api.Problem{Code: "disk-full", Title: "the disk is full", Next: "make room on it"}}, nil)
	if want := "journal  the disk is full: make room on it\n"; !strings.Contains(out.String(), want) {
		t.Errorf("no %q in\n%s", want, &out)
	}
	for _, code := range []string{"disk-full", "disk-read-only"} {
		if n := exitCode(&api.Problem{Code: code}); n != 44 {
			t.Errorf("%s: exit %d", code, n)
		}
	}
}
