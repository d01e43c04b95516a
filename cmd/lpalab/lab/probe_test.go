package lab_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"

	"lpad/agent/api"
	"lpad/agent/rsp"
	"lpad/agent/rsp/rsptest/euicc"
	"lpad/cmd/lpalab/lab"
	"lpad/modem/modemtest"
)

// probe runs lpactl probe in both forms, which must end with this status and tell
// no identifier.
func probe(ctx context.Context, t *testing.T, d *lab.Daemon, exit int, secrets ...string) (api.Probe, string) {
	t.Helper()
	var p api.Probe
	document := lpactl(ctx, t, d, exit, "probe", "--json")
	if err := json.NewDecoder(strings.NewReader(document.Stdout)).Decode(&p); err != nil {
		t.Fatalf("%v in\n%s", err, document.Stdout)
	}
	text := lpactl(ctx, t, d, exit, "probe")
	all := document.Stdout + document.Stderr + text.Stdout + text.Stderr
	for _, s := range secrets {
		if len(s) < 14 {
			t.Errorf("%q is no identifier", s)
		}
		if strings.Contains(all, s) || strings.Contains(all, swapped(s)) {
			t.Errorf("the probe tells %s\n%s", s, all)
		}
	}
	for _, aid := range rsp.ISDRs() { // of a product, not of a card
		all = strings.ReplaceAll(all, aid.String(), "")
	}
	if long := regexp.MustCompile(`[0-9]{14,}`).FindString(all); long != "" {
		t.Errorf("the probe tells %s\n%s", long, all)
	}
	return p, text.Stdout
}

// swapped are digits as a card writes them.
func swapped(s string) string {
	if len(s)%2 != 0 {
		s += "F"
	}
	b := []byte(s)
	for i := 0; i < len(b); i += 2 {
		b[i], b[i+1] = b[i+1], b[i]
	}
	return string(b)
}

func answer(t *testing.T, p api.Probe, name string) string {
	t.Helper()
	for _, c := range p.Capabilities {
		if c.Name == name {
			return strings.TrimSpace(c.Answer + " " + c.Value)
		}
	}
	return "absent"
}

// idle is the state of a modem when the daemon, which has looked at its card, has
// let go of it.
func idle(ctx context.Context, t *testing.T, m *modemtest.Modem) modemtest.State {
	t.Helper()
	s, err := m.Wait(ctx, func(s modemtest.State) bool { return len(s.Sessions) == 0 })
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// TestProbe: the verdict on modems of several makers, each with its own faults,
// which are left as they were.
func TestProbe(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		dialect    string
		ccho, csim string
		use        string
		line       string // of the table
		iccid      string
	}{
		{"generic", "yes ccho", "yes csim", "ccho", "", "yes"},
		{"quectel-ec20", "no", "yes csim", "csim", "quectel-ec20", "yes AT+QCCID"},
		{"quectel-eg25", "yes ccho", "", "ccho", "quectel-eg25", "yes AT+QCCID"},
		{"fibocom-fm350", "yes ccho", "", "ccho", "fibocom-fm350", "yes"},
		{"sierra-mc7455", "yes ccho", "", "ccho", "sierra-mc7455", "yes"},
		{"cinterion", "yes ccho", "", "ccho", "cinterion", "yes"},
	} {
		t.Run(tc.dialect, func(t *testing.T) {
			t.Parallel()
			dialect, ok := modemtest.DialectNamed(tc.dialect)
			if !ok {
				t.Fatal("no such dialect")
			}
			w := newWorld(t, lab.Options{})
			ctx, cancel := context.WithTimeout(t.Context(), limit)
			defer cancel()
			m, err := w.StartModemWith(ctx, lab.ModemOptions{Programs: programs, Modem: func(c *modemtest.Config) { c.Dialect = dialect }})
			if err != nil {
				t.Fatal(err)
			}
			defer func() {
				if t.Failed() {
					t.Logf("lpad:\n%s", m.Log())
				}
				if err := m.Close(); err != nil {
					t.Error(err)
				}
			}()
			before, profiles, mark := idle(ctx, t, m.AT), fmt.Sprint(w.Card.Profiles()), m.AT.Log().Len()
			p, text := probe(ctx, t, m.Daemon, 0, w.Card.EID().String(), dialect.IMEI, lab.OldOperator.ICCID, lab.OldOperator.IMSI)

			for name, want := range map[string]string{"port": "yes", "identity": "yes", "sim": "yes ready", "ccho": tc.ccho, "csim": tc.csim, "euicc": "yes", "iccid": tc.iccid,
				"alone": "yes", "foreign-lines": "no"} {
				if got := answer(t, p, name); !strings.HasPrefix(got, want) {
					t.Errorf("%s: %q, want %q", name, got, want)
				}
			}
			if !p.Usable || p.Problem != nil || p.APDUPath != tc.use || p.ISDR != "A0000005591010FFFFFFFF8900000100" || p.BlockSize == 0 || len(p.Enable) != 4 || p.IMEI == "" {
				t.Errorf("verdict %+v", p)
			}
			if tc.line != "" && (!strings.Contains(strings.Join(p.Lines, " "), tc.line) || len(p.Sources) == 0) {
				t.Errorf("lines %q, sources %q", p.Lines, p.Sources)
			}
			for _, want := range []string{"CAPABILITY", "lpad will use  APDUs by " + tc.use, dialect.Model} {
				if !strings.Contains(text, want) {
					t.Errorf("no %q in\n%s", want, text)
				}
			}

			if after := m.AT.State(); !reflect.DeepEqual(after, before) {
				t.Errorf("the modem was\n%+v\nand is\n%+v", before, after)
			}
			if n := w.Card.OpenChannels(); len(n) != 0 {
				t.Errorf("channels %v are open", n)
			}
			if now := fmt.Sprint(w.Card.Profiles()); now != profiles {
				t.Errorf("the card has %s", now)
			}
			for _, e := range m.AT.Log().Since(mark) {
				if e.Kind == modemtest.Sent && regexp.MustCompile(`^AT\+(CFUN=|COPS=[0124]|CGDCONT=|CGACT=|CGATT=)|=\?$`).MatchString(e.Text) {
					t.Errorf("the probe said %s", e.Text)
				}
			}
		})
	}
}

// TestProbeInTrouble: a probe of what cannot be used tells why.
func TestProbeInTrouble(t *testing.T) {
	t.Parallel()
	w := newWorld(t, lab.Options{})
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	m, err := w.StartModemWith(ctx, lab.ModemOptions{Programs: programs, Config: "card: {at_port: /nowhere/ttyUSB2}\n"})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := m.Close(); err != nil {
			t.Error(err)
		}
	}()
	p, text := probe(ctx, t, m.Daemon, 51)
	if p.Usable || p.Problem == nil || p.Problem.Code != "port-missing" || answer(t, p, "port") != "no" || strings.Contains(text, "lpad will use") {
		t.Errorf("verdict %+v\n%s", p, text)
	}
}

// TestProbeWhileOrdered: a job that has the card is not disturbed by a probe.
func TestProbeWhileOrdered(t *testing.T) {
	t.Parallel()
	w := newWorld(t, lab.Options{})
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	m, err := w.StartModem(ctx, programs, "")
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := m.Close(); err != nil {
			t.Error(err)
		}
	}()
	// It waits for an answer and keeps the card.
	lpactl(ctx, t, m.Daemon, 36, "install", w.ActivationCode())
	r := lpactl(ctx, t, m.Daemon, 6, "probe")
	if len(r.Stdout) != 0 || !strings.Contains(r.Stderr, "a job needs the card just now [conflict]") {
		t.Errorf("%s%s", r.Stdout, r.Stderr)
	}
}

// TestProbeOfReader: a PC/SC reader has a verdict too.
func TestProbeOfReader(t *testing.T) {
	modemtest.RequirePCSCD(t)
	w := newWorld(t, lab.Options{})
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	r, err := w.StartReader(ctx, programs, "")
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := r.Close(); err != nil {
			t.Error(err)
		}
	}()
	p, text := probe(ctx, t, r.Daemon, 0, w.Card.EID().String())
	atr := fmt.Sprintf("%x", w.Card.ATR())
	if got := strings.ReplaceAll(answer(t, p, "atr"), " ", ""); got != "yes"+atr {
		t.Errorf("ATR %q, want %s", got, atr)
	}
	if !p.Usable || p.APDUPath != "pcsc" || p.ISDR == "" || !strings.Contains(p.Path, "Virtual") || !strings.HasPrefix(answer(t, p, "readers"), "yes ") ||
		!strings.HasPrefix(answer(t, p, "euicc"), "yes") || len(p.Lines) == 0 || p.Learned == nil {
		t.Errorf("verdict %+v\n%s", p, text)
	}
	if n := w.Card.OpenChannels(); len(n) > 0 {
		t.Errorf("channels %v are open", n)
	}
}

// TestProbeBesideModemManager: the probe tells what ModemManager makes of the
// modem, and leaves the network alone where lpad has a port of its own.
func TestProbeBesideModemManager(t *testing.T) {
	w := newWorld(t, lab.Options{})
	ctx, d := startDevice(t, w, lab.DeviceOptions{})
	before := idle(ctx, t, d.Stack.Modem)
	p, text := probe(ctx, t, d.Daemon, 0, w.Card.EID().String(), modemtest.UBlox.IMEI, lab.OldOperator.ICCID, lab.OldOperator.IMSI)
	m := p.Managers
	if m.Network != "networkmanager" || m.ModemManager == "" || m.NetworkManager == "" || m.Plugin == "" || m.Device == "" || m.State != "connected" || len(m.Ports) == 0 || m.Problem != "" {
		t.Errorf("managers %+v\n%s", m, text)
	}
	if after := d.Stack.Modem.State(); !reflect.DeepEqual(after, before) {
		t.Errorf("the modem was\n%+v\nand is\n%+v", before, after)
	}
}

// TestProbeOfSharedPort: where ModemManager has the same port, the probe takes its
// turn, and the network comes back.
func TestProbeOfSharedPort(t *testing.T) {
	w := newWorld(t, lab.Options{})
	ctx, d := startDevice(t, w, lab.DeviceOptions{Shared: true})
	p, text := probe(ctx, t, d.Daemon, 0, w.Card.EID().String(), modemtest.UBlox.IMEI, lab.OldOperator.ICCID, lab.OldOperator.IMSI)
	if !p.Usable || answer(t, p, "euicc") != "yes" {
		t.Errorf("verdict %+v\n%s", p, text)
	}
	if err := d.Stack.WaitConnected(ctx, "altnetz"); err != nil {
		t.Error(err)
	}
	if n := w.Card.OpenChannels(); len(n) != 0 {
		t.Errorf("channels %v are open", n)
	}
}

// TestISDRIsRemembered: an ISD-R with its maker's address is found after the
// GSMA's, and first from then on, after a restart too, by what the probe tells as
// well as by what the modem is asked.
func TestISDRIsRemembered(t *testing.T) {
	t.Parallel()
	own := rsp.ISDRs()[1]
	w := newWorld(t, lab.Options{Card: func(c *euicc.Config) { c.AIDs = []rsp.AID{own} }})
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	m, err := w.StartModemWith(ctx, lab.ModemOptions{Programs: programs, Modem: func(c *modemtest.Config) { c.Dialect = modemtest.Generic }})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := m.Close(); err != nil {
			t.Error(err)
		}
	}()
	asked := func(mark int) []string {
		var out []string
		for _, e := range m.AT.Log().Since(mark) {
			if aid, found := strings.CutPrefix(e.Text, `AT+CCHO="`); found && e.Kind == modemtest.Sent {
				out = append(out, strings.Trim(aid, `"`))
			}
		}
		return out
	}
	if got := asked(0); len(got) < 2 || got[0] != rsp.ISDR.String() || got[1] != own.String() {
		t.Errorf("the first time it asked for %q", got)
	}
	if err := m.Stop(); err != nil {
		t.Fatal(err)
	}
	mark := m.AT.Log().Len()
	if err := m.Start(ctx); err != nil {
		t.Fatal(err)
	}
	if got := asked(mark); len(got) == 0 || slices.Contains(got, rsp.ISDR.String()) || got[0] != own.String() {
		t.Errorf("after a restart it asked for %q", got)
	}
	if p, text := probe(ctx, t, m.Daemon, 0, w.Card.EID().String()); !p.Usable || p.APDUPath != "ccho" || p.ISDR != own.String() || p.Learned == nil || p.Learned.ISDR != own.String() {
		t.Errorf("verdict %+v\n%s", p, text)
	}
}

// TestProbeKnowsTheMaker: what the device's maker says of its modems counts, what
// the configuration says counts more, and a file that cannot be understood keeps
// lpad from starting.
func TestProbeKnowsTheMaker(t *testing.T) {
	t.Parallel()
	w := newWorld(t, lab.Options{})
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	dir := t.TempDir()
	line := func(text string) {
		if err := os.WriteFile(filepath.Join(dir, "10-ours.yaml"), []byte("version: 1\nmodems:\n- "+text+"\n"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	const good = "{name: our-gateway, model: SIM-1, paths: [csim, ccho], block_size: 77, enable: [iccid-refresh], note: ours, source: https://tickets.example.com/1}"
	line(good)
	where := "modem: {quirks_dir: " + dir + "}\n"
	m, err := w.StartModemWith(ctx, lab.ModemOptions{Programs: programs, Config: where, Modem: func(c *modemtest.Config) { c.Dialect = modemtest.Generic }})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := m.Close(); err != nil {
			t.Error(err)
		}
	}()
	for _, tc := range []struct {
		config, path string
		size         int
	}{
		{"", "csim", 77},
		{"card: {apdu_path: ccho, block_size: 99}\n", "ccho", 99},
	} {
		if err := m.Stop(); err != nil {
			t.Fatal(err)
		}
		if err := m.Configure(where + tc.config); err != nil {
			t.Fatal(err)
		}
		if err := m.Start(ctx); err != nil {
			t.Fatal(err)
		}
		p, text := probe(ctx, t, m.Daemon, 0, w.Card.EID().String())
		if !slices.Contains(p.Lines, "our-gateway") || !slices.Contains(p.Notes, "ours") || p.APDUPath != tc.path || p.BlockSize != tc.size || p.Enable[0] != "iccid-refresh" {
			t.Errorf("%q: verdict %+v\n%s", tc.config, p, text)
		}
	}
	if err := m.Stop(); err != nil {
		t.Fatal(err)
	}
	line("{name: our-gateway, model: SIM-1, blok_size: 77}")
	if err := m.Start(ctx); err == nil || !strings.Contains(m.Log(), "10-ours.yaml:3") || !strings.Contains(m.Log(), "blok_size") {
		t.Errorf("with a key that does not exist it starts: %v\n%s", err, m.Log())
	}
	line(good)
	if err := m.Start(ctx); err != nil {
		t.Error(err)
	}
}

// TestProbeNamesOthers: whoever has the port open too is named.
func TestProbeNamesOthers(t *testing.T) {
	t.Parallel()
	w := newWorld(t, lab.Options{})
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	m, err := w.StartModem(ctx, programs, "")
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := m.Close(); err != nil {
			t.Error(err)
		}
	}()
	before, _ := probe(ctx, t, m.Daemon, 0)
	if got := answer(t, before, "alone"); got != "yes" {
		t.Fatalf("alone: %s", got)
	}
	port, err := os.OpenFile(before.Path, os.O_RDWR|syscall.O_NOCTTY, 0)
	if err != nil {
		t.Skip("the kernel lets nobody else open the port: ", err) // without root
	}
	other := exec.CommandContext(ctx, "sleep", "60")
	other.ExtraFiles = []*os.File{port}
	err = other.Start()
	if err := errors.Join(err, port.Close()); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := other.Process.Kill(); err != nil {
			t.Error(err)
		}
		_ = other.Wait() // it was killed
	}()
	p, text := probe(ctx, t, m.Daemon, 0)
	if got, want := answer(t, p, "alone"), fmt.Sprintf("no sleep (pid %d)", other.Process.Pid); got != want || !strings.Contains(text, want[3:]) {
		t.Errorf("alone: %q, want %q\n%s", got, want, text)
	}
}
