package agent

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"lpad/agent/api"
	"lpad/agent/client"
	"lpad/agent/journal"
	"lpad/agent/params"
	"lpad/agent/rsp"
	"lpad/agent/rsp/rsptest/euicc"
	"lpad/agent/rsp/rsptest/smdp"
	"lpad/agent/rsp/rsptest/world"
	"lpad/agent/switchover"
	"lpad/config"
	"lpad/internal/fault"
	"lpad/modem"
)

const (
	paramsOld  = "89000123456789012341"
	paramsNew  = "89000123456789012358"
	paramsOID  = "1.3.6.1.4.1.99999.1.1"
	paramsIMEI = "490154203237518"
)

// pickyModem writes down what it is set to, finds a network or not, and gets a
// connection with some access points only.
type pickyModem struct {
	switchover.Direct
	card *euicc.Card

	mu      sync.Mutex
	set     []modem.Settings
	refuses func(modem.Settings) bool // no network is found
	carries func(modem.Settings) bool // nil: all do
	hangs   chan struct{}             // closed when a connection is asked for, which then never comes; nil: it comes
}

func (m *pickyModem) Apply(_ context.Context, _ string, s modem.Settings) ([]string, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.set = append(m.set, s)
	return []string{"at"}, nil
}

func (m *pickyModem) last() modem.Settings {
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(m.set) == 0 {
		return modem.Settings{}
	}
	return m.set[len(m.set)-1]
}

// tried are the access points that were written, in order, since the last call.
func (m *pickyModem) tried() string {
	m.mu.Lock()
	defer m.mu.Unlock()
	var names []string
	for _, s := range m.set {
		names = append(names, s.Default.String())
	}
	m.set = nil
	return strings.Join(names, " ")
}

func (m *pickyModem) Register(context.Context) (modem.Registration, error) {
	if s := m.last(); m.refuses != nil && m.refuses(s) {
		return modem.Registration{}, fault.New(fault.Fault{Code: "not-registered", Text: "no network", Retry: true, Who: fault.Operator}, nil)
	}
	return modem.Registration{State: modem.RegisteredHome}, nil
}

func (m *pickyModem) Connect(ctx context.Context, _ string) (modem.Link, error) {
	if m.hangs != nil {
		close(m.hangs)
		<-ctx.Done()
		return modem.Link{}, ctx.Err()
	}
	if s := m.last(); m.carries != nil && !m.carries(s) {
		return modem.Link{}, fault.New(fault.Fault{Code: "apn-refused", Text: "the network does not want it", Who: fault.Operator}, nil)
	}
	return modem.Link{Interface: "lo"}, nil
}

// SIM is what the modem shows: the profile that is enabled.
func (m *pickyModem) SIM(context.Context) (modem.SIM, error) {
	id, _ := m.card.VisibleICCID()
	return modem.SIM{ICCID: id.String(), IMSI: "001010123456789", PLMN: "00101"}, nil
}

// paramsWorld is a daemon over a software eUICC and a picky modem, that can be
// restarted.
type paramsWorld struct {
	*world.World
	t     *testing.T
	cfg   config.Config
	modem *pickyModem
	c     *client.Client
	stop  func()
}

func newParamsWorld(t *testing.T) *paramsWorld {
	t.Helper()
	w := &paramsWorld{t: t}
	w.World = world.New(t, world.Options{Card: func(c *euicc.Config) {
		c.Profiles = []euicc.Profile{{ICCID: world.ICCID(t, paramsOld), IMSI: "001010123456789", Name: "Old", Enabled: true,
			Notifications: []rsp.NotificationConfiguration{{Events: rsp.AllEvents, Address: world.SMDPHost}}}}
	}})
	dir, err := os.MkdirTemp("", "lpad") // short: the path of a socket has 108 bytes
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	w.cfg = config.Default()
	w.cfg.StateDir, w.cfg.Socket = filepath.Join(dir, "lib"), filepath.Join(dir, "s")
	w.cfg.RSP.TrustDir, w.cfg.RSP.Addresses = w.Trust, w.Addresses
	w.cfg.Hooks.Dir, w.cfg.Params.OEMDir, w.cfg.Params.ProviderDB = "", filepath.Join(dir, "params.d"), filepath.Join(dir, "none.xml")
	w.cfg.Params.ProfileOIDs = []string{paramsOID}
	w.cfg.Network.Probe = "none"
	if err := os.Mkdir(w.cfg.Params.OEMDir, 0o755); err != nil {
		t.Fatal(err)
	}
	w.modem = &pickyModem{card: w.Card}
	w.start()
	t.Cleanup(func() { w.stop() })
	return w
}

func (w *paramsWorld) start() {
	w.t.Helper()
	card := soft{w.Card}
	direct := switchover.Direct{Card: card}
	w.modem.Direct = direct
	a, err := New(w.cfg, Host{}, []Parts{{Card: card, CardPath: CardPath{Backend: "pcsc"}, Settings: direct, Modem: w.modem, Network: w.modem, NetworkBackend: "none",
		Identity: func(context.Context) (modem.Identity, error) {
			return modem.Identity{Manufacturer: "Quectel", Model: "EG25", Revision: "EG25GGBR07A08M2G", IMEI: paramsIMEI}, nil
		}}})
	if err != nil {
		w.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- a.Run(ctx) }()
	w.c = client.New(w.cfg.Socket)
	w.stop = func() {
		w.c.Close()
		cancel()
		if err := <-done; err != nil {
			w.t.Error(err)
		}
		w.stop = func() {}
	}
}

func (w *paramsWorld) restart() {
	w.t.Helper()
	w.stop()
	w.start()
}

// oem puts a file into the maker's folder; an empty one takes it away.
func (w *paramsWorld) oem(name, text string) {
	w.t.Helper()
	path := filepath.Join(w.cfg.Params.OEMDir, name)
	err := os.Remove(path)
	if text != "" {
		err = os.WriteFile(path, []byte(text), 0o644)
	}
	if err != nil {
		w.t.Fatal(err)
	}
}

func (w *paramsWorld) follow(j api.Job, err error) api.Job {
	w.t.Helper()
	if err == nil {
		j, err = w.c.Follow(w.t.Context(), j.ID, func(api.Job) {})
	}
	if err != nil {
		w.t.Fatal(err)
	}
	return j
}

func (w *paramsWorld) install(document string, enable bool) api.Job {
	w.t.Helper()
	r := api.InstallRequest{ActivationCode: w.SMDP.ActivationCode("M-1"), Consent: true, Enable: enable}
	if document != "" {
		r.Parameters = json.RawMessage(document)
	}
	j := w.follow(w.c.Install(w.t.Context(), r))
	if j.State != "done" {
		w.t.Fatalf("%s: %+v", j.State, j.Problem)
	}
	return j
}

// enable switches, and tells what was tried.
func (w *paramsWorld) enable(iccid, document, state string) string {
	w.t.Helper()
	w.modem.tried()
	var r api.EnableRequest
	if document != "" {
		r.Parameters = json.RawMessage(document)
	}
	j := w.follow(w.c.Enable(w.t.Context(), iccid, r))
	if j.State != state {
		w.t.Fatalf("%s, want %s: %+v", j.State, state, j.Problem)
	}
	return w.modem.tried()
}

func (w *paramsWorld) effective(iccid string) api.Effective {
	w.t.Helper()
	e, err := w.c.Effective(w.t.Context(), iccid)
	if err != nil {
		w.t.Fatal(err)
	}
	return e
}

// said is a leaf as "value source rank scope generation state".
func said(e api.Effective, leaf string) string {
	for _, p := range e.Parameters {
		if p.Leaf != leaf {
			continue
		}
		value := string(p.Value)
		var apn struct{ Name string }
		if strings.HasPrefix(leaf, "apns.") && json.Unmarshal(p.Value, &apn) == nil {
			value = apn.Name
		}
		return strings.Join(strings.Fields(fmt.Sprintf("%s %s %d %s %d %s", value, p.Source, p.Rank, p.Scope, p.Generation, p.State)), " ")
	}
	return ""
}

func (w *paramsWorld) want(e api.Effective, leaf, text string) {
	w.t.Helper()
	if got := said(e, leaf); got != text {
		w.t.Errorf("%s: %q, want %q", leaf, got, text)
	}
}

func (w *paramsWorld) warnings() string {
	w.t.Helper()
	s, err := w.c.Status(w.t.Context())
	if err != nil {
		w.t.Fatal(err)
	}
	return strings.Join(s.Warnings, "\n")
}

// inMetadata makes a profile carry a document.
func inMetadata(t *testing.T, document string) func(*smdp.Order) {
	t.Helper()
	d, err := params.Parse([]byte(document), params.Options{})
	if err != nil {
		t.Fatal(err)
	}
	e1, err := params.MarshalTLV(d)
	if err != nil {
		t.Fatal(err)
	}
	b8, err := params.ToMetadata(paramsOID, e1)
	if err != nil {
		t.Fatal(err)
	}
	return func(o *smdp.Order) { o.Proprietary = b8 }
}

// TestStaged: parameters of an installation wait for the profile to be enabled,
// stay with it, and go with it, over restarts.
func TestStaged(t *testing.T) {
	w := newParamsWorld(t)
	w.Book(t, "M-1", world.ICCID(t, paramsNew), 3000, nil)
	w.install(`{"version":1,"generation":7,"apns":[{"name":"staged.example","auth":"chap","user":"u","secret":"sesame"}],"servers":{"ecs":"ecs.example.com"}}`, false)
	if got := w.modem.tried(); got != "" {
		t.Errorf("the installation alone has set %s", got)
	}
	for _, restarted := range []bool{false, true} {
		if restarted {
			w.restart()
		}
		e := w.effective(paramsNew)
		w.want(e, "apns.default", "staged.example order 2 any 7 staged")
		w.want(e, "servers.ecs", `"ecs.example.com" order 2 any 7 staged`)
		if b, err := json.Marshal(e); err != nil || strings.Contains(string(b), "sesame") || !strings.Contains(string(b), `"hasSecret":true`) || e.Enabled || e.Document == nil || e.Document.Generation != 7 {
			t.Errorf("%s, %v", b, err)
		}
		w.want(w.effective(""), "apns.default", "network default 5 0") // of the profile that is enabled
	}
	// A switch without parameters uses them.
	if got := w.enable(paramsNew, "", "done"); got != "staged.example" {
		t.Errorf("tried %q", got)
	}
	w.restart()
	w.want(w.effective(""), "apns.default", "staged.example order 2 any 7 applied")
	// Back, and with a newer document, which is kept; an older one is refused.
	w.enable(paramsOld, "", "done")
	w.want(w.effective(paramsNew), "apns.default", "staged.example order 2 any 7 staged")
	for _, old := range []string{`{"version":1,"generation":6}`, `{"version":1}`, `{"version":1,"generation":7,"apns":[{"name":"other.example"}]}`} {
		_, err := w.c.Enable(t.Context(), paramsNew, api.EnableRequest{Parameters: json.RawMessage(old)})
		if p, ok := err.(*api.Problem); !ok || p.Code != "parameters-outdated" {
			t.Errorf("%s: %v", old, err)
		}
	}
	if got := w.enable(paramsNew, `{"version":1,"generation":8,"apns":[{"name":"newer.example"}]}`, "done"); got != "newer.example" {
		t.Errorf("tried %q", got)
	}
	w.enable(paramsOld, "", "done")
	w.restart()
	if got := w.enable(paramsNew, "", "done"); got != "newer.example" {
		t.Errorf("tried %q", got)
	}
	// A switch that is taken back leaves what the profile had.
	w.enable(paramsOld, "", "done")
	w.modem.carries = func(s modem.Settings) bool { return s.Default.Name != "bad.example" }
	if got := w.enable(paramsNew, `{"version":1,"generation":9,"apns":[{"name":"bad.example"}]}`, "failed"); got != "bad.example" {
		t.Errorf("tried %q", got)
	}
	w.want(w.effective(paramsNew), "apns.default", "newer.example order 2 any 8 staged")
	// They go with the profile, and do not come back with it.
	if j := w.follow(w.c.Delete(t.Context(), paramsNew)); j.State != "done" {
		t.Fatalf("%+v", j.Problem)
	}
	w.Book(t, "M-1", world.ICCID(t, paramsNew), 3000, nil)
	w.install("", false)
	for _, restarted := range []bool{false, true} {
		if restarted {
			w.restart()
		}
		if e := w.effective(paramsNew); e.Document != nil || said(e, "apns.default") != "network default 5 0" {
			t.Errorf("after the deletion: %+v", e)
		}
	}
}

// TestRestartedSwitch: a switch that a restart has interrupted goes on with the
// parameters that it began with.
func TestRestartedSwitch(t *testing.T) {
	w := newParamsWorld(t)
	w.Book(t, "M-1", world.ICCID(t, paramsNew), 3000, nil)
	w.oem("10-all.json", `{"version":1,"generation":2,"apns":[{"name":"oem.example"}],"radio":{"lteBands":[3,20]}}`)
	w.install(`{"version":1,"generation":7,"apns":[{"name":"staged.example"}]}`, false)
	w.modem.hangs = make(chan struct{})
	j, err := w.c.Enable(t.Context(), paramsNew, api.EnableRequest{})
	if err != nil {
		t.Fatal(err)
	}
	<-w.modem.hangs
	w.want(w.effective(paramsNew), "apns.default", "staged.example order 2 any 7 trial")
	w.stop()
	w.modem.hangs = nil
	w.modem.tried()
	w.start()
	if j = w.follow(j, nil); j.State != "done" || j.APN != "staged.example" {
		t.Fatalf("%s with %s: %+v", j.State, j.APN, j.Problem)
	}
	if got := w.modem.tried(); got != "staged.example" {
		t.Errorf("tried %s", got)
	}
	e := w.effective("")
	w.want(e, "apns.default", "staged.example order 2 any 7 applied")
	w.want(e, "radio.lteBands", "[3,20] oem: 10-all.json 3 any 2 applied")
}

// TestPrecedence: what is set in a switch comes from the sources by their rank,
// the profile's own word through the metadata first, then the order's, then the
// maker's; where the first does not do, the next is tried.
func TestPrecedence(t *testing.T) {
	w := newParamsWorld(t)
	w.Book(t, "M-1", world.ICCID(t, paramsNew), 3000, inMetadata(t, `{"version":1,"generation":1,"apns":[{"name":"chip.example"}],"radio":{"rats":["lte"]}}`))
	w.oem("10-all.json", `{"version":1,"generation":2,"apns":[{"name":"oem.example"},{"name":"ims","purposes":["ims"]}],"radio":{"rats":["gsm"],"lteBands":[3,20]},"roaming":{"data":true}}`)
	w.oem("20-network.json", `{"version":1,"scope":{"mccmnc":["00101"]},"sms":{"smsc":"+491710760000"}}`)
	w.oem("broken.json", `{"version":1,"apns":7}`)
	w.install(`{"version":1,"generation":3,"apns":[{"name":"order.example"}],"radio":{"rats":["umts"]},"servers":{"ecs":"ecs.example.com"}}`, false)
	w.modem.carries = func(s modem.Settings) bool { return s.Default.Name == "oem.example" || s.Default.Name == "" }
	// The first twice: with the modem's word for the network one more document is
	// for this profile, and all is set anew.
	if got, want := w.enable(paramsNew, "", "done"), "chip.example chip.example order.example oem.example"; got != want {
		t.Errorf("tried %s, want %s", got, want)
	}
	w.restart()
	e := w.effective("")
	w.want(e, "apns.default", "chip.example profile 1 iccid 1 staged")
	w.want(e, "apns.default.2", "order.example order 2 any 3 staged")
	w.want(e, "apns.default.3", "oem.example oem: 10-all.json 3 any 2 applied")
	w.want(e, "apns.ims", "ims oem: 10-all.json 3 any 2 applied")
	w.want(e, "radio.rats", `["lte"] profile 1 iccid 1 applied`)
	w.want(e, "radio.lteBands", `[3,20] oem: 10-all.json 3 any 2 applied`)
	w.want(e, "servers.ecs", `"ecs.example.com" order 2 any 3 applied`)
	w.want(e, "sms.smsc", `"+491710760000" oem: 20-network.json 3 plmn 0 applied`) // the modem shows the network
	if notes := strings.Join(e.Notes, "\n"); !strings.Contains(notes, "oem: broken.json is left out") || !strings.Contains(w.warnings(), "broken.json is left out") {
		t.Errorf("notes %q, warnings %q", notes, w.warnings())
	}
	// The folder is read anew for each switch.
	w.oem("broken.json", "")
	w.oem("10-all.json", "")
	w.enable(paramsOld, "", "done")
	w.modem.carries = nil
	if got := w.enable(paramsNew, "", "done"); got != "chip.example chip.example" {
		t.Errorf("tried %s", got)
	}
	if e = w.effective(""); len(e.Notes) != 0 || w.warnings() != "" || said(e, "radio.lteBands") != "" {
		t.Errorf("%+v, %s", e, w.warnings())
	}
	// What the modem was set to.
	w.enable(paramsOld, "", "done")
	w.oem("10-all.json", `{"version":1,"apns":[{"name":"ims","purposes":["ims"],"pdnType":"v6"}],"radio":{"psm":{"tauSeconds":3600,"activeSeconds":10}}}`)
	w.follow(w.c.Enable(t.Context(), paramsNew, api.EnableRequest{}))
	got := w.modem.last()
	if got.Default.Name != "chip.example" || len(got.Others) != 1 || got.Others[0].Name != "ims" || got.Others[0].Type != modem.IPv6 || !slices.Equal(got.Radio.RATs, []string{"lte"}) || got.Radio.PSM == nil || got.Attach != nil {
		t.Errorf("set to %+v", got)
	}
}

// TestSuspended: a source with whose values the modem finds no network is not
// used again before its generation changes.
func TestSuspended(t *testing.T) {
	w := newParamsWorld(t)
	w.Book(t, "M-1", world.ICCID(t, paramsNew), 3000, nil)
	w.install(`{"version":1,"generation":1,"apns":[{"name":"order.example"}]}`, false)
	w.oem("10-bands.json", `{"version":1,"generation":4,"scope":{"iccid":"`+paramsNew+`"},"radio":{"lteBands":[31]},"servers":{"ecs":"ecs.example.com"}}`)
	w.modem.refuses = func(s modem.Settings) bool { return slices.Equal(s.Radio.LTEBands, []int{31}) }
	w.enable(paramsNew, "", "failed")
	for _, restarted := range []bool{false, true} {
		if restarted {
			w.restart()
		}
		e := w.effective(paramsNew)
		if len(e.Suspended) != 1 || e.Suspended[0].Source != "oem: 10-bands.json" || e.Suspended[0].Generation != 4 || e.Suspended[0].Code != "not-registered" || said(e, "radio.lteBands") != "" {
			t.Errorf("%+v", e)
		}
		if !strings.Contains(w.warnings(), "oem: 10-bands.json") || !strings.Contains(strings.Join(e.Notes, "\n"), "failed its trial") {
			t.Errorf("warnings %q, notes %q", w.warnings(), e.Notes)
		}
	}
	w.enable(paramsNew, "", "done")
	if got := w.modem.last(); len(got.Radio.LTEBands) != 0 {
		t.Errorf("set to %+v", got)
	}
	w.enable(paramsOld, "", "done")
	w.oem("10-bands.json", "")
	w.oem("10-bands.json", `{"version":1,"generation":5,"radio":{"lteBands":[3]}}`)
	w.follow(w.c.Enable(t.Context(), paramsNew, api.EnableRequest{}))
	if got, e := w.modem.last(), w.effective(""); !slices.Equal(got.Radio.LTEBands, []int{3}) || len(e.Suspended) != 0 || w.warnings() != "" {
		t.Errorf("set to %+v, %+v, %s", got, e, w.warnings())
	}

	w.oem("10-bands.json", "")

	// The order's own attach: it is left out for the next candidate, and its source
	// suspended; who orders it again puts it on trial again.
	w.enable(paramsOld, "", "done")
	w.modem.refuses = func(s modem.Settings) bool { return s.Attach != nil }
	doc := `{"version":1,"generation":2,"apns":[{"name":"order.example"},{"name":"wrong.example","purposes":["ia"]}]}`
	if got := w.enable(paramsNew, doc, "failed"); got != "order.example" {
		t.Errorf("tried %s", got)
	}
	if e := w.effective(paramsNew); said(e, "apns.default") != "order.example order 2 any 1 staged" || len(e.Suspended) != 1 || e.Suspended[0].Source != "order" {
		t.Errorf("%+v", e)
	}
	w.modem.refuses = nil
	if got := w.enable(paramsNew, doc, "done"); got != "order.example" {
		t.Errorf("tried %s", got)
	}
	e := w.effective("")
	w.want(e, "apns.ia", "wrong.example order 2 any 2 applied")
	if len(e.Suspended) != 0 {
		t.Errorf("%+v", e.Suspended)
	}
}

// TestSetParameters: a document is given to a profile by hand, by the rule of
// generations.
func TestSetParameters(t *testing.T) {
	w := newParamsWorld(t)
	w.Book(t, "M-1", world.ICCID(t, paramsNew), 3000, nil)
	w.install("", false)
	set := func(iccid, document, code string) {
		t.Helper()
		_, err := w.c.SetParameters(t.Context(), iccid, json.RawMessage(document))
		var got string
		if p, ok := err.(*api.Problem); ok {
			got = p.Code
		} else if err != nil {
			t.Fatal(err)
		}
		if got != code {
			t.Errorf("%s: %v, want %q", document, err, code)
		}
	}
	set(paramsNew, `{"version":1,"generation":2,"apns":[{"name":"hand.example"}]}`, "")
	set(paramsNew, `{"version":1, "generation":2, "apns":[ {"name":"hand.example"} ]}`, "") // the same
	set(paramsNew, `{"version":1,"generation":2,"apns":[{"name":"other.example"}]}`, "parameters-outdated")
	set(paramsNew, `{"version":1,"generation":1}`, "parameters-outdated")
	set(paramsNew, `{"version":1,"generation":3,"apns":7}`, "parameters-invalid")
	set(paramsNew, `{"version":1,"generation":3,"scope":{"iccid":"`+paramsOld+`"}}`, "parameters-invalid")
	set("89000123456789012374", `{"version":1,"generation":3}`, "not-found")
	set("x", `{"version":1}`, "bad-request")
	w.restart()
	w.want(w.effective(paramsNew), "apns.default", "hand.example set by hand 2 any 2 staged")
	if got := w.enable(paramsNew, "", "done"); got != "hand.example" {
		t.Errorf("tried %s", got)
	}
	w.want(w.effective(""), "apns.default", "hand.example set by hand 2 any 2 applied")
	if e, err := w.c.ClearParameters(t.Context(), paramsNew); err != nil || e.Document != nil {
		t.Errorf("%+v, %v", e, err)
	}
	if _, err := w.c.ClearParameters(t.Context(), paramsNew); err == nil {
		t.Error("what is not there was cleared")
	}
	w.restart()
	w.want(w.effective(""), "apns.default", "hand.example last-good 4 iccid 0 applied")
	if _, err := w.c.Effective(t.Context(), "89000123456789012374"); err == nil {
		t.Error("a profile that is not there was explained")
	}
}

// TestDeviceIsTold: the server learns of the device what rsp.send_imei says.
func TestDeviceIsTold(t *testing.T) {
	for _, tc := range []struct{ send, tac, imei string }{
		{"auto", paramsIMEI[:8], paramsIMEI},
		{"tac-only", paramsIMEI[:8], ""},
		{"off", rsp.DefaultTAC, ""},
		{"356938035643809", "35693803", "356938035643809"},
	} {
		t.Run(tc.send, func(t *testing.T) {
			w := newParamsWorld(t)
			w.stop()
			w.cfg.RSP.SendIMEI = tc.send
			w.start()
			w.Book(t, "M-1", world.ICCID(t, paramsNew), 3000, func(o *smdp.Order) { o.TACs = []string{tc.tac} }) // chosen by the type of device
			w.install("", false)
			if o, ok := w.SMDP.Order("M-1"); !ok || o.TAC != tc.tac || o.IMEI != tc.imei {
				t.Errorf("the server was told TAC %q, IMEI %q; want %q, %q", o.TAC, o.IMEI, tc.tac, tc.imei)
			}
		})
	}
}

// What was kept for a profile before an update of lpad, which cannot read it any
// more, costs the device nothing: the switch goes by what else there is, says so,
// and the document stays for whoever can correct it.
func TestSwitchWithoutTheDocumentThatWasKept(t *testing.T) {
	w := newParamsWorld(t)
	w.oem("a.json", `{"version":1,"apns":[{"name":"maker.example","purposes":["default"]}]}`)
	w.Book(t, "M-1", world.ICCID(t, paramsNew), 3000, nil)
	w.install(`{"version":1,"generation":4,"apns":[{"name":"order.example","purposes":["default"]}]}`, false)
	w.stop()
	j, err := journal.Open(filepath.Join(w.cfg.StateDir, "journal"), journal.Options{})
	if err != nil {
		t.Fatal(err)
	}
	keys := j.SettingKeys("parameters/")
	if len(keys) != 1 {
		t.Fatalf("%q", keys)
	}
	var kept map[string]any
	if _, err := j.Setting(keys[0], &kept); err != nil {
		t.Fatal(err)
	}
	kept["document"] = map[string]any{"version": 9, "generation": 4}
	if err := j.PutSetting(keys[0], kept); err != nil {
		t.Fatal(err)
	}
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	w.start()
	w.modem.tried()
	done := w.follow(w.c.Enable(t.Context(), paramsNew, api.EnableRequest{}))
	if got := w.modem.tried(); done.State != "done" || got != "maker.example" {
		t.Fatalf("%s with %q: %+v", done.State, got, done.Problem)
	}
	var notes []string
	for _, m := range done.Timeline {
		notes = append(notes, m.Note)
	}
	e := w.effective(paramsNew)
	if !strings.Contains(strings.Join(notes, "\n"), "cannot be read") || !strings.Contains(strings.Join(e.Notes, "\n"), "/version") || e.Document == nil || e.Document.Generation != 4 {
		t.Errorf("%q, %+v", notes, e)
	}
}
