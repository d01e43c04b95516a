package network_test

import (
	"context"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/godbus/dbus/v5"
	"github.com/google/go-cmp/cmp"

	"lpad/agent/rsp"
	"lpad/agent/switchover"
	"lpad/internal/fault"
	"lpad/internal/redact"
	"lpad/modem"
	"lpad/modem/modemtest"
	"lpad/modem/network"
	"lpad/modem/nm"
)

var others = []modem.APN{
	{Name: "mms.apn", Type: modem.IPv4, User: "m", Password: redact.NewSecret("secret-m"), Auth: modem.AuthPAP, Purposes: []string{modem.PurposeMMS, modem.PurposeSUPL}},
	{Name: "ims", Type: modem.IPv6, Purposes: []string{modem.PurposeIMS}},
}

// ids are the names of NetworkManager's connections.
func (d *device) ids(ctx context.Context) []string {
	d.t.Helper()
	all, err := d.nm.Mobile(ctx)
	d.must(err)
	var out []string
	for _, c := range all {
		out = append(out, c.ID())
	}
	slices.Sort(out)
	return out
}

// Each purpose gets a connection, of which the default's alone comes up; nothing
// of the old profile's settings is in them; a rollback takes them away, and so
// does the deletion of the profile.
func TestPurposesInNetworkManager(t *testing.T) {
	ctx, d := startDevice(t, options{})
	d.must(d.WaitConnected(ctx, "old"))
	all, err := d.nm.Mobile(ctx)
	d.must(err)
	for _, con := range all { // fields of a profile that fit no other
		con.Settings["gsm"]["network-id"], con.Settings["gsm"]["home-only"] = dbus.MakeVariant("26299"), dbus.MakeVariant(true)
		con.Settings["gsm"]["sim-id"] = dbus.MakeVariant(profileA.iccid)
		_, err = d.nm.Put(ctx, con.Settings, nm.OnDisk)
		d.must(err)
	}
	d.normalise(ctx)
	before := d.keyfiles()

	ia := modem.APN{Name: "attach.apn", Type: modem.IPv4, Purposes: []string{modem.PurposeAttach}}
	want := modem.Settings{Default: newAPN, Attach: &ia, Others: append(slices.Clone(others), others[0])}
	where := d.applied(ctx, d.back, 1, profileB, want)
	if diff := cmp.Diff([]string{network.ViaAT, network.ViaNetworkManager, "networkmanager: mms,supl", "networkmanager: ims",
		modem.NotApplied + "mms,supl: there is another access point for the same"}, where); diff != "" {
		t.Errorf("where (-want +got):\n%s", diff)
	}
	link, err := d.back.Connect(ctx, profileB.iccid)
	d.must(err)
	if !slices.Equal(link.Addresses, []netip.Prefix{subscriptions[1].Address}) {
		t.Errorf("link %+v", link)
	}
	d.must(d.back.Commit(ctx, profileB.iccid))
	if diff := cmp.Diff(map[string]bool{"old": false, "spare": false, "loose": false, "lpad-000022": true, "lpad-000022-mms-supl": false, "lpad-000022-ims": false}, d.autoconnect(ctx)); diff != "" {
		t.Errorf("autoconnect (-want +got):\n%s", diff)
	}
	if got := d.Modem.State().Contexts[0].APN; got != "attach.apn" {
		t.Errorf("the modem attaches with %q", got)
	}
	for name, text := range d.keyfiles() {
		if !strings.HasPrefix(name, nm.IDPrefix) {
			continue
		}
		for _, leak := range []string{"network-id", "sim-id", "home-only", "old.apn", "=x\n", "=y\n", profileA.iccid} {
			if strings.Contains(text, leak) {
				t.Errorf("%s has %q of the old profile:\n%s", name, leak, text)
			}
		}
		if second := strings.Contains(name, "-mms-") || strings.Contains(name, "-ims"); second != strings.Contains(text, "never-default=true") {
			t.Errorf("%s has the default route, or has it not:\n%s", name, text)
		}
	}
	// Another generation of the settings: what is no longer wanted goes.
	snapshot, err := d.back.Snapshot(ctx)
	d.must(err)
	d.applied(ctx, d.back, 1, profileB, modem.Settings{Default: newAPN, Others: others[:1]})
	if diff := cmp.Diff([]string{"loose", "lpad-000022", "lpad-000022-mms-supl", "old", "spare"}, d.ids(ctx)); diff != "" {
		t.Errorf("connections (-want +got):\n%s", diff)
	}
	d.must(d.back.Gate(ctx, snapshot))
	_, err = d.back.Restore(ctx, snapshot)
	d.must(err)
	if got := d.ids(ctx); !slices.Contains(got, "lpad-000022-ims") {
		t.Errorf("the rollback has put back %q", got)
	}
	d.must(d.back.Forget(ctx, profileB.iccid))
	if diff := cmp.Diff([]string{"loose", "old", "spare"}, d.ids(ctx)); diff != "" {
		t.Errorf("connections of a deleted profile (-want +got):\n%s", diff)
	}
	for name := range d.keyfiles() {
		if _, there := before[name]; !there {
			t.Errorf("%s has stayed", name)
		}
	}
}

// A power cut in the middle of a switch with several connections: the rollback
// of the next lpad takes away what there is of them.
func TestPurposesRolledBackAfterACut(t *testing.T) {
	ctx, d := startDevice(t, options{})
	d.must(d.WaitConnected(ctx, "old"))
	d.normalise(ctx)
	before, contexts := d.keyfiles(), d.Modem.State().Contexts
	dying := network.NewManagerStack(d.config)
	snapshot, err := dying.Snapshot(ctx)
	d.must(err)
	d.must(dying.Gate(ctx, snapshot))
	d.card.enable(1)
	_, err = dying.Apply(ctx, profileB.iccid, modem.Settings{Default: newAPN, Others: others})
	d.must(err)
	d.must(dying.Close(ctx)) // the bus lets go of what it held
	if len(d.ids(ctx)) != 6 {
		t.Errorf("connections %q", d.ids(ctx))
	}
	d.must(d.back.Gate(ctx, snapshot))
	d.card.enable(0)
	_, err = d.back.Restore(ctx, snapshot)
	d.must(err)
	if diff := cmp.Diff(before, d.keyfiles()); diff != "" {
		t.Errorf("NetworkManager's files are not what they were (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(contexts, d.Modem.State().Contexts); diff != "" {
		t.Errorf("contexts are not what they were (-want +got):\n%s", diff)
	}
}

// apns are the modem's contexts, by number.
func apns(m *modemtest.Modem) map[int]string {
	out := map[int]string{}
	for _, c := range m.State().Contexts {
		out[c.CID] = c.APN
	}
	return out
}

// back-ends without NetworkManager put other purposes into contexts, and the
// radio's settings onto the modem; the next profile finds nothing of either, and
// a rollback puts everything back.
func TestSettingsWithoutNetworkManager(t *testing.T) {
	t.Parallel()
	type backend interface {
		Snapshot(ctx context.Context) ([]byte, error)
		Gate(ctx context.Context, snapshot []byte) error
		Apply(ctx context.Context, iccid string, want modem.Settings) ([]string, error)
		Reread(ctx context.Context, iccid string) (string, error)
		Commit(ctx context.Context, iccid string) error
		Restore(ctx context.Context, snapshot []byte) (modem.Link, error)
		Late() []string
	}
	radio := modem.Radio{EDRX: []modem.EDRX{{AcT: 4, Value: 5}}, PSM: &modem.PSM{TAU: 0x21, Active: 5}, SMSC: "+491710760000", RATs: []string{"lte"}, LTEBands: []int{3, 20, 99}}
	ia := modem.APN{Name: "new.apn", Type: modem.IPv4}
	for _, tc := range []struct {
		name        string
		options     bareOptions
		where, late []string
		contexts    map[int]string
		ws46, bnd   string
		rounds      int
	}{
		{"ModemManager", bareOptions{dialect: modemtest.TelitLE910},
			[]string{"at", "at: mms,supl", "at: ims", "modemmanager"},
			[]string{"at: radio.edrx", "at: radio.psm", "at: sms.smsc", "modemmanager: radio.rats", modem.NotApplied + "radio.lteBands: the modem does not have band 99", "modemmanager: radio.lteBands"},
			map[int]string{1: "new.apn", 2: "mms.apn", 3: "ims"}, "28", "3,6,80004", 2},
		{"ModemManager, whose plugin cannot", bareOptions{},
			[]string{"at", "at: mms,supl", "at: ims", "modemmanager"},
			[]string{"at: radio.edrx", "at: radio.psm", "at: sms.smsc", modem.NotApplied + "radio.rats: …", modem.NotApplied + "radio.lteBands: …"},
			map[int]string{1: "new.apn", 2: "mms.apn", 3: "ims"}, "", "", 1},
		{"nothing", bareOptions{withoutMM: true},
			[]string{"at", "at: default", "at: mms,supl", "at: ims", modem.NotApplied + "radio.rats: …", modem.NotApplied + "radio.lteBands: …"},
			[]string{"at: radio.edrx", "at: radio.psm", "at: sms.smsc"},
			map[int]string{1: "new.apn", 2: "data.apn", 3: "mms.apn", 4: "ims"}, "", "", 2},
	} {
		// It tells of its SIM when ModemManager locks it, too, which is no switch.
		tc.options.dialect.URCs = nil
		t.Run(tc.name, func(t *testing.T) {
			ctx, d := startBare(t, tc.options)
			var back backend = network.NewATOnly(d.port, d.config)
			want := modem.Settings{Default: newAPN, Others: others, Radio: radio}
			if !tc.options.withoutMM {
				_, err := d.mm.WaitSettled(ctx, "")
				d.must(err)
				back = network.NewMMOnly(d.config)
			} else {
				want.Default, want.Attach = modem.APN{Name: "data.apn", Type: modem.IPv4}, &ia
			}
			d.must(d.port.Set(ctx, "+CEDRXS", []string{`5,"0010"`})) // the device's own
			first := d.radio(ctx)
			contexts := apns(d.Modem)
			apply := func(snapshot []byte, n int, p profile, want modem.Settings) (where, late []string) {
				t.Helper()
				d.must(back.Gate(ctx, snapshot))
				d.card.enable(n)
				where, err := back.Apply(ctx, p.iccid, want)
				d.must(err)
				_, err = back.Reread(ctx, p.iccid)
				d.must(err)
				d.step("applied for " + p.spn)
				return where, back.Late()
			}
			snapshot, err := back.Snapshot(ctx)
			d.must(err)
			for round := range tc.rounds { // as with a second candidate
				where, late := apply(snapshot, 1, profileB, want)
				if diff := cmp.Diff(tc.where, shortened(where)); diff != "" {
					t.Errorf("round %d, where (-want +got):\n%s", round, diff)
				}
				if diff := cmp.Diff(tc.late, shortened(late, "band 99")); diff != "" {
					t.Errorf("round %d, late (-want +got):\n%s", round, diff)
				}
			}
			if diff := cmp.Diff(tc.contexts, apns(d.Modem)); diff != "" {
				t.Errorf("contexts (-want +got):\n%s", diff)
			}
			now := d.radio(ctx)
			if now["+CEDRXS"] != `4,"0101" 5,"0010"` || now["+CPSMS"] != `1,,,"00100001","00000101"` || now["+CSCA"] != `"+491710760000",145` {
				t.Errorf("radio %q", now)
			}
			if tc.ws46 != "" && (now["+WS46"] != tc.ws46 || now["#BND"] != tc.bnd) {
				t.Errorf("radio %q, want %s, %s", now, tc.ws46, tc.bnd)
			}
			d.must(back.Commit(ctx, profileB.iccid))
			// The next profile has no wishes: the radio is as the device had it, the contexts are gone.
			snapshot, err = back.Snapshot(ctx)
			d.must(err)
			apply(snapshot, 0, profileA, modem.Settings{Default: modem.APN{Name: "old.apn", Type: modem.IPv4}})
			if diff := cmp.Diff(first, d.radio(ctx)); diff != "" {
				t.Errorf("radio of the next profile (-want +got):\n%s", diff)
			}
			d.must(back.Gate(ctx, snapshot))
			d.card.enable(1)
			_, err = back.Restore(ctx, snapshot)
			d.must(err)
			if diff := cmp.Diff(now, d.radio(ctx)); diff != "" {
				t.Errorf("radio after the rollback (-want +got):\n%s", diff)
			}
			if diff := cmp.Diff(tc.contexts, apns(d.Modem)); diff != "" {
				t.Errorf("contexts after the rollback (-want +got):\n%s", diff)
			}
			snapshot, err = back.Snapshot(ctx)
			d.must(err)
			apply(snapshot, 0, profileA, modem.Settings{Default: modem.APN{Name: "old.apn", Type: modem.IPv4}})
			d.must(back.Commit(ctx, profileA.iccid))
			if diff := cmp.Diff(contexts, apns(d.Modem)); diff != "" {
				t.Errorf("contexts of the next profile (-want +got):\n%s", diff)
			}
			b, err := os.ReadFile(filepath.Join(filepath.Dir(d.config.KeepFile), "changed.json"))
			if err != nil || string(b) != "{}" {
				t.Errorf("the book has %s, %v", b, err)
			}
		})
	}
}

// Without an AT port of lpad's the contexts are 3GPP profiles of ModemManager's.
func TestPurposesAsProfiles(t *testing.T) {
	ctx, d := startBare(t, bareOptions{})
	m, err := d.mm.WaitSettled(ctx, "")
	d.must(err)
	d.must(d.mm.Enable(ctx, m, true)) // ModemManager writes no profile on a modem that is not
	d.config.AT = nil
	back := network.NewMMOnly(d.config)
	contexts := apns(d.Modem)
	snapshot, err := back.Snapshot(ctx)
	d.must(err)
	d.must(back.Gate(ctx, snapshot))
	for range 2 { // as with a second candidate
		where, err := back.Apply(ctx, profileA.iccid, modem.Settings{Default: modem.APN{Name: "old.apn", Type: modem.IPv4}, Others: others, Radio: modem.Radio{SMSC: "+49171"}})
		d.must(err)
		if diff := cmp.Diff([]string{network.ViaProfileManager, "3gpp-profile: mms,supl", "3gpp-profile: ims", network.ViaBearer, modem.NotApplied + "sms.smsc: …"}, shortened(where)); diff != "" {
			t.Errorf("where (-want +got):\n%s", diff)
		}
	}
	if diff := cmp.Diff(map[int]string{1: "old.apn", 2: "mms.apn", 3: "ims"}, apns(d.Modem)); diff != "" {
		t.Errorf("contexts (-want +got):\n%s", diff)
	}
	_, err = back.Restore(ctx, snapshot)
	d.must(err)
	if diff := cmp.Diff(contexts, apns(d.Modem)); diff != "" {
		t.Errorf("contexts after the rollback (-want +got):\n%s", diff)
	}
	_, err = back.Apply(ctx, profileA.iccid, modem.Settings{Default: modem.APN{Name: "old.apn", Type: modem.IPv4}, Others: others[1:]})
	d.must(err)
	d.must(back.Commit(ctx, profileA.iccid))
	_, err = back.Apply(ctx, profileA.iccid, modem.Settings{Default: modem.APN{Name: "old.apn", Type: modem.IPv4}})
	d.must(err)
	d.must(back.Commit(ctx, profileA.iccid))
	if diff := cmp.Diff(contexts, apns(d.Modem)); diff != "" {
		t.Errorf("contexts when nothing is wanted any more (-want +got):\n%s", diff)
	}
}

// A setting with which no network is found is taken back by the rollback, and the
// modem is on the air again. The second lpad knows of it by what the first has
// written down.
func TestRadioOnTrial(t *testing.T) {
	dialect := modemtest.TelitLE910
	dialect.URCs = nil
	ctx, d := startBare(t, bareOptions{dialect: dialect})
	_, err := d.mm.WaitSettled(ctx, "")
	d.must(err)
	first, contexts := d.radio(ctx), apns(d.Modem)
	iccid, err := rsp.ParseICCID(profileB.iccid)
	d.must(err)
	target := switchover.Target{ICCID: iccid, Wanted: switchover.Wanted{Candidates: []switchover.Candidate{{APN: newAPN, Source: "test"}}, Others: others,
		Radio: modem.Radio{RATs: []string{"gsm"}, PSM: &modem.PSM{TAU: 0x21, Active: 5}}}} // the network is LTE
	back := network.NewMMOnly(d.config)
	s := &switchover.Switch{Settings: back, Modem: back, Network: back, Log: d.config.Log, RegisterTimeout: 3 * time.Second}
	snapshot, err := s.Snapshot(ctx)
	d.must(err)
	d.must(s.Gate(ctx, snapshot))
	d.card.enable(1)
	_, err = s.Apply(ctx, target)
	d.must(err)
	_, err = s.Reread(ctx, target)
	d.must(err)
	if got := d.radio(ctx); got["+WS46"] != "12" {
		t.Errorf("on trial: %q", got)
	}
	if _, err = s.Verify(ctx, snapshot, target); fault.Of(err).Code != "not-registered" {
		t.Errorf("verified: %v", err)
	}
	d.must(back.Close(ctx))
	back = network.NewMMOnly(d.config)
	s = &switchover.Switch{Settings: back, Modem: back, Network: back, Log: d.config.Log}
	_, err = s.Rollback(ctx, snapshot, func(context.Context) error { d.card.enable(0); return nil })
	d.must(err)
	if diff := cmp.Diff(first, d.radio(ctx)); diff != "" {
		t.Errorf("radio after the rollback (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(contexts, apns(d.Modem)); diff != "" {
		t.Errorf("contexts after the rollback (-want +got):\n%s", diff)
	}
	if r, err := back.Register(ctx); err != nil || !r.State.Registered() {
		t.Errorf("registration %+v, %v", r, err)
	}
}

// radio is what the modem shows of its radio's settings.
func (d *bareDevice) radio(ctx context.Context) map[string]string {
	d.t.Helper()
	out := map[string]string{}
	for _, name := range []string{"+CEDRXS", "+CPSMS", "+CSCA"} {
		lines, err := d.port.Setting(ctx, name)
		d.must(err)
		out[name] = strings.Join(lines, " ")
	}
	s := d.Modem.State()
	out["+WS46"], out["#BND"] = s.SystemMode, s.Bands
	return out
}

// shortened leaves out why, but where the reason has one of the words.
func shortened(list []string, keep ...string) []string {
	out := slices.Clone(list)
	for i, s := range out {
		what, _, found := strings.Cut(strings.TrimPrefix(s, modem.NotApplied), ": ")
		if found && strings.HasPrefix(s, modem.NotApplied) && !slices.ContainsFunc(keep, func(k string) bool { return strings.Contains(s, k) }) {
			out[i] = modem.NotApplied + what + ": …"
		}
	}
	return out
}
