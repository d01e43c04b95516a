package lab_test

import (
	"slices"
	"strings"
	"testing"

	"lpad/agent/params"
	"lpad/agent/rsp"
	"lpad/agent/rsp/rsptest/smdp"
	"lpad/cmd/lpalab/lab"
	"lpad/modem/modemtest"
)

// parametersOID is what the lab's operator and devices have agreed on.
const parametersOID = "1.3.6.1.4.1.99999.1.1"

// TestParametersOfTheProfile: an operator puts access points that nobody else
// knows into the metadata of the profile (B8). Tampered with on the way, the
// profile is refused by the eUICC and nothing has changed; as the operator made
// it, it is installed, and after the switch its access points are on the modem.
func TestParametersOfTheProfile(t *testing.T) {
	const (
		apn, fleet = "iot.example", "fleet.private.example"
		document   = `{"version":1,"generation":7,"apns":[{"name":"` + apn + `","purposes":["default","ia"],"pdnType":"v4","auth":"none"},` +
			`{"name":"` + fleet + `","purposes":["dm"],"pdnType":"v4","auth":"chap","user":"dev","secret":"s3cret"}]}`
	)
	doc, err := params.Parse([]byte(document), params.Options{Confidential: true})
	if err != nil {
		t.Fatal(err)
	}
	object, err := params.MarshalTLV(doc)
	if err != nil {
		t.Fatal(err)
	}
	b8, err := params.ToMetadata(parametersOID, object)
	if err != nil {
		t.Fatal(err)
	}
	for name, test := range map[string]struct {
		backend lab.Backend
		place   func(*smdp.Order)
		tamper  smdp.Kind
		result  string // of the tampered one, as the eUICC has signed it: command and reason
		others  func(t *testing.T, d *lab.Device) bool
	}{
		"ConfigureISDP, NetworkManager": {
			place: func(o *smdp.Order) { o.Proprietary = b8 }, tamper: smdp.BadConfigure, result: "1/8",
			others: func(t *testing.T, d *lab.Device) bool {
				for line := range strings.Lines(autoconnect(t.Context(), t, d)) {
					id, _, _ := strings.Cut(line, ":")
					if strings.Contains(nmcli(t.Context(), t, d, "-t", "-f", "gsm.apn,gsm.username", "connection", "show", id), "gsm.apn:"+fleet+"\ngsm.username:dev\n") {
						return true
					}
				}
				return false
			},
		},
		"StoreMetadata, AT alone": {
			backend: lab.Neither, place: func(o *smdp.Order) { o.Metadata.Proprietary = b8 }, tamper: smdp.BadMetadata, result: "2/8",
			others: func(_ *testing.T, d *lab.Device) bool { return onModem(d, fleet) },
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, lab.Options{Order: test.place})
			ctx, d := startDevice(t, w, lab.DeviceOptions{Backend: test.backend, Config: "params: {profile_oids: [\"2.999.10\", \"" + parametersOID + "\"]}\n",
				Modem: func(c *modemtest.Config) { c.Subscriptions[1].APN = apn }}) // of the new operator, for StrictAttach

			w.SMDP.Inject(smdp.Fault{Function: smdp.GetBoundProfilePackage, Kind: test.tamper})
			r := lpactl(ctx, t, d.Daemon, 34, "install", w.ActivationCode(), "--enable", "--yes")
			if !strings.Contains(r.Stderr, "[package-security]") || !strings.Contains(r.Stderr, "next: ") {
				t.Errorf("lpactl says\n%s", r.Stderr)
			}
			eventually(ctx, t, "the eUICC's refusal is with the server", func() bool {
				o, _ := w.SMDP.Order(w.Order.MatchingID)
				return o.Result == test.result
			})
			old, operator := lab.OldOperator, lab.NewOperator
			if on := w.Card.Profiles(); len(on) != 1 || on[0].ICCID.String() != old.ICCID || !on[0].Enabled {
				t.Errorf("profiles on the card: %+v", on)
			}
			if onModem(d, apn) || onModem(d, fleet) {
				t.Errorf("contexts of the modem: %+v", d.Stack.Modem.State().Contexts)
			}
			before := len(d.Stack.Modem.Log().Entries())

			w.SMDP.ClearFaults()
			r = lpactl(ctx, t, d.Daemon, 0, "install", w.ActivationCode(), "--enable", "--yes")
			if !strings.Contains(r.Stderr, `APN "`+apn+`" (`+params.SourceProfile) {
				t.Errorf("lpactl does not say where the access point is from:\n%s", r.Stderr)
			}
			if !onModem(d, apn) || onModem(d, old.APN) || !test.others(t, d) {
				t.Errorf("contexts of the modem: %+v", d.Stack.Modem.State().Contexts)
			}
			trace := d.Stack.Modem.Log().Entries()
			enable := find(t, trace, before, enableProfile(operator))
			find(t, trace, enable, `^# context 1 active: APN "`+apn+`" address `+operator.Address.Addr().String())
			for _, e := range trace[enable:] {
				if m := onAir.FindStringSubmatch(e.Text); m != nil && e.Kind == modemtest.Happened && m[3] != apn {
					t.Errorf("with the new profile: %s", e)
				}
			}
			if n := notification(ctx, t, w, rsp.EventEnable, operator); n.Peer != operator.Address.Addr() {
				t.Errorf("the server heard of it from %s", n.Peer)
			}
		})
	}
}

// TestBrokenParametersOfTheProfile: what is wrong in the metadata costs these
// parameters, never the profile.
func TestBrokenParametersOfTheProfile(t *testing.T) {
	broken := []byte{0xE1, 15, 0xC0, 3, 0x10, 0, 7, 0xC9, 1, 4, 0xC9, 1, 4, 0xE2, 2, 0xC1, 0} // C9 is there twice
	b8, err := params.ToMetadata(parametersOID, broken)
	if err != nil {
		t.Fatal(err)
	}
	w := newWorld(t, lab.Options{Order: func(o *smdp.Order) { o.Proprietary = b8 }})
	ctx, d := startDevice(t, w, lab.DeviceOptions{Backend: lab.Neither, Config: "params: {profile_oids: [\"" + parametersOID + "\"]}\n"})
	r := lpactl(ctx, t, d.Daemon, 0, "install", w.ActivationCode(), "--enable", "--yes")
	if !strings.Contains(r.Stderr, `APN "`+lab.NewOperator.APN+`" (`+params.SourceDatabase) || !onModem(d, lab.NewOperator.APN) {
		t.Errorf("lpactl says\n%s\ncontexts %+v", r.Stderr, d.Stack.Modem.State().Contexts)
	}
	if log := d.Log(); !strings.Contains(log, "parameters-invalid") || !strings.Contains(log, "E1/C9: is there twice") {
		t.Error("lpad does not say what is wrong with the parameters")
	}
}

// onModem reports whether a context of the modem has an access point.
func onModem(d *lab.Device, apn string) bool {
	return slices.ContainsFunc(d.Stack.Modem.State().Contexts, func(c modemtest.Context) bool { return c.APN == apn })
}
