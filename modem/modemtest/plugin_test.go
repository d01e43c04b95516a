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
		ignores string // a URC that says something of the SIM, and to which ModemManager is deaf
	}{
		{"u-blox", probes, "+CIEV of simind", ""},
		{"generic", stale, "no URC", ""},
		{"quectel-ec20", stale, "its toolkit is off", ""},
		{"quectel-eg25", probes, "the device leaves and comes back", ""},
		{"quectel-eg9x", stale, "its toolkit is off", ""},
		{"quectel-rm5xx", probes, "+QUSIM: 1", ""},
		{"fibocom-fm350", stale, "+SIM READY is ignored", "+SIM READY"},
		{"simcom-sim7600", stale, "its toolkit is off", "+CPIN: READY"},
		{"sierra-mc7455", stale, "its toolkit is off", ""},
		{"telit-le910", probes, "#QSS from and to 0", "#QSS: 1"},
		{"cinterion", probes, "^SCKS", ""},
		{"dell-dw5821e", stale, "no URC", ""},
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

			if tt.follows == stale { // the others are told on the port that would be busy with packets
				connectsByPPP(t, bus, before.Path)
			}
			stays := func(why string) {
				t.Helper()
				for begin := time.Now(); time.Since(begin) < staleFor; time.Sleep(50 * time.Millisecond) {
					now, err := s.MMModem(ctx)
					if err != nil || now.ICCID != old || now.Path != before.Path {
						t.Fatalf("after %v it shows %+v, %v, although %s", time.Since(begin), now, err, why)
					}
				}
			}
			if tt.ignores != "" {
				card.enable(1)
				s.Modem.InjectURC(tt.ignores)
				stays(tt.ignores + " is nothing to it")
			}

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
			stays(tt.why)
		})
	}
}

// connectsByPPP sees to it that packets go over PPP on the tty, and ends that.
func connectsByPPP(t *testing.T, bus *dbus.Conn, modem dbus.ObjectPath) {
	t.Helper()
	var bearer dbus.ObjectPath
	properties := map[string]dbus.Variant{"apn": dbus.MakeVariant("old.apn")}
	if err := call(t, bus, mm, modem, mm+".Modem.Simple.Connect", properties).Store(&bearer); err != nil {
		t.Fatal(err)
	}
	var all map[string]dbus.Variant
	if err := call(t, bus, mm, bearer, "org.freedesktop.DBus.Properties.GetAll", mm+".Bearer").Store(&all); err != nil {
		t.Fatal(err)
	}
	const ppp = uint32(1) // MM_BEARER_IP_METHOD_PPP
	ip, _ := all["Ip4Config"].Value().(map[string]dbus.Variant)
	if got := all["Interface"].Value(); got != "ttyUSB0" || ip["method"].Value() != ppp {
		t.Errorf("bearer on %v: %v", got, ip)
	}
	call(t, bus, mm, modem, mm+".Modem.Simple.Disconnect", dbus.ObjectPath("/"))
}

func modemProperty(t *testing.T, bus *dbus.Conn, path dbus.ObjectPath, name string) any {
	t.Helper()
	var v dbus.Variant
	if err := call(t, bus, mm, path, "org.freedesktop.DBus.Properties.Get", mm+".Modem", name).Store(&v); err != nil {
		t.Fatal(fmt.Errorf("%s: %w", name, err))
	}
	return v.Value()
}
