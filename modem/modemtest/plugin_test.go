package modemtest_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/godbus/dbus/v5"

	"lpad/modem/modemtest"
)

// What ModemManager does about a SIM that a REFRESH of the card has changed.
type follows bool

const (
	stale  follows = false // shows the old SIM for ever
	probes follows = true  // shows the new one by itself
)

// atOnce bounds the stacks that the test of the plugins has at a time.
const atOnce = 2

// staleFor is how long a stale SIM is looked at. A plugin that follows takes
// its object off the bus in less, however long the new one needs.
const staleFor = 2 * time.Second

// Each dialect is claimed by its plugin of the real ModemManager, registers,
// and follows a changed SIM or does not, as lab recipes of ModemManager 1.20.4
// and its sources say.
func TestStackPlugins(t *testing.T) {
	modemtest.RequireStack(t)
	turn := make(chan struct{}, atOnce)
	for _, tt := range []struct {
		dialect string
		follows follows
		why     string
	}{
		{"u-blox", probes, "+CIEV of simind"},
		{"generic", stale, "no URC"},
		{"quectel-ec20", stale, "its toolkit is off"},
		{"quectel-eg25", probes, "the device leaves and comes back"},
		{"quectel-eg9x", stale, "its toolkit is off"},
		{"quectel-rm5xx", probes, "+QUSIM: 1"},
		{"fibocom-fm350", stale, "+SIM READY is ignored"},
		{"simcom-sim7600", stale, "its toolkit is off"},
		{"sierra-mc7455", stale, "its toolkit is off"},
		{"telit-le910", probes, "#QSS from and to 0"},
		{"cinterion", probes, "^SCKS"},
		{"dell-dw5821e", stale, "no URC"},
	} {
		t.Run(tt.dialect, func(t *testing.T) {
			t.Parallel()
			turn <- struct{}{}
			t.Cleanup(func() { <-turn })
			d, known := modemtest.DialectNamed(tt.dialect)
			if !known {
				t.Fatal("no such dialect")
			}
			card := newCard(profileA, profileB)
			s := device(t, modemtest.StackConfig{Modem: modemtest.Config{Card: card, Dialect: d}, WithoutNetworkManager: true})
			ctx := bounded(t)
			old := profileA.iccid
			if tt.dialect == "quectel-eg9x" {
				old = "" // its ICCID cannot be read by AT+CRSM, and ModemManager 1.20 knows no other way
			}
			before, err := s.WaitMM(ctx, old)
			if err != nil {
				t.Fatal(err)
			}
			bus, err := s.DialBus()
			if err != nil {
				t.Fatal(err)
			}
			defer bus.Close()
			if got := modemProperty(t, bus, before.Path, "Plugin"); got != d.Plugin {
				t.Errorf("plugin %v, want %s", got, d.Plugin)
			}
			if got := modemProperty(t, bus, before.Path, "Model"); got != d.Model {
				t.Errorf("model %v, want %s", got, d.Model)
			}
			begin := time.Now()
			call(t, bus, mm, before.Path, mm+".Modem.Enable", true)
			const registered = 8 // MM_MODEM_STATE_REGISTERED
			for state := int32(0); state < registered; {
				state, _ = modemProperty(t, bus, before.Path, "State").(int32)
				if ctx.Err() != nil {
					t.Fatalf("state %d of ModemManager, want %d", state, registered)
				}
				time.Sleep(20 * time.Millisecond)
			}
			t.Logf("registered %v after Enable", time.Since(begin).Round(time.Millisecond))

			h := dialUnix(t, s.Modem)
			h.expect("ATE0\r", "ATE0\r\r\nOK\r\n")
			begin = time.Now()
			if got := h.at(`AT+CSIM=10,"80EB010900"`); got != `+CSIM: 4,"910B" | OK` {
				t.Fatal(got)
			}
			if tt.follows == probes {
				if _, err := s.WaitMM(ctx, profileB.iccid); err != nil {
					t.Errorf("%s: %v", tt.why, err)
				}
				t.Logf("shows the new SIM after %v", time.Since(begin).Round(time.Millisecond))
				return
			}
			for time.Since(begin) < staleFor {
				now, err := s.MMModem(ctx)
				if err != nil || now.ICCID != old || now.Path != before.Path {
					t.Fatalf("after %v it shows %+v, %v, although %s", time.Since(begin), now, err, tt.why)
				}
				time.Sleep(50 * time.Millisecond)
			}
		})
	}
}

func modemProperty(t *testing.T, bus *dbus.Conn, path dbus.ObjectPath, name string) any {
	t.Helper()
	var v dbus.Variant
	if err := call(t, bus, mm, path, "org.freedesktop.DBus.Properties.Get", mm+".Modem", name).Store(&v); err != nil {
		t.Fatal(fmt.Errorf("%s: %w", name, err))
	}
	return v.Value()
}
