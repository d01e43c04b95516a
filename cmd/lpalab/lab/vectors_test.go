package lab_test

import (
	"context"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"lpad/agent/rsp"
	"lpad/agent/rsp/rsptest/smdp"
	"lpad/agent/rsp/rsptest/upp"
	"lpad/agent/rsp/rsptest/vectors"
	"lpad/cmd/lpalab/lab"
	"lpad/modem/modemtest"
)

// TestTS48: the generic test profiles of GSMA TS.48, which we did not make,
// installed and enabled by lpad on a bare modem, which then shows what is in
// them. The vectors lie beside the project, or where LPAD_VECTORS says.
func TestTS48(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"TS48v1_A.der", "TS48v5_SAIP2.3_NoBERTLV.der"} {
		t.Run(name, func(t *testing.T) {
			profile := vectors.Read(t, "upp/"+name)
			t.Parallel()
			ctx, cancel := context.WithTimeout(t.Context(), limit)
			t.Cleanup(cancel)
			files, err := upp.Parse(profile)
			if err != nil {
				t.Fatal(err)
			}
			s := lab.Subscriber{ICCID: files.ICCID().String(), IMSI: files.IMSI(), PLMN: "00101", Operator: "TS.48", Plan: name, APN: "ts48.example",
				Address: netip.MustParsePrefix("10.64.3.2/24"), Gateway: netip.MustParseAddr("10.64.3.1")}
			w := newWorld(t, lab.Options{Order: func(o *smdp.Order) {
				o.UPP, o.Metadata.ICCID = profile, files.ICCID()
			}})
			m, err := w.StartModemWith(ctx, lab.ModemOptions{Programs: programs, Modem: func(c *modemtest.Config) {
				c.Subscriptions = append(c.Subscriptions, s.Subscription())
			}})
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() {
				if t.Failed() {
					t.Logf("lpad:\n%s\nmodem:\n%s", m.Log(), m.AT.Log())
				}
				if err := m.Close(); err != nil {
					t.Error(err)
				}
			})
			parameters := filepath.Join(t.TempDir(), "parameters.json")
			if err := os.WriteFile(parameters, []byte(`{"version":1,"apns":[{"name":"`+s.APN+`","purposes":["default","ia"]}]}`), 0o600); err != nil {
				t.Fatal(err)
			}
			lpactl(ctx, t, m.Daemon, 0, "install", w.ActivationCode(), "--enable", "--yes", "--params", parameters)
			if err := m.AT.WaitRegistered(ctx, s.ICCID); err != nil {
				t.Fatal(err)
			}
			state := m.AT.State()
			if state.SIM.IMSI != s.IMSI || state.Subscription.APN != s.APN {
				t.Errorf("the modem shows %+v", state.SIM)
			}
			if list := lpactl(ctx, t, m.Daemon, 0, "profiles").Stdout; !strings.Contains(list, s.ICCID+"  enabled") {
				t.Errorf("profiles:\n%s", list)
			}
			profiles := w.Card.Profiles()
			if got := profiles[len(profiles)-1]; got.Size != len(profile) || !got.Enabled {
				t.Errorf("the card has %+v, the profile %d bytes", got, len(profile))
			}
			notification(ctx, t, w, rsp.EventInstall, s)
			notification(ctx, t, w, rsp.EventEnable, s)
		})
	}
}
