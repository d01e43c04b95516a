package operator

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"lpad/agent/orders/orderstest"
	"lpad/agent/rsp"
	"lpad/agent/rsp/rsptest/smdp"
)

var (
	testICCID    = mustICCID("89358050000000000022")
	testEID      = mustEID("89049032123451234512345678901235")
	testTerminal = Terminal{EID: testEID, IMEI: "356938035643809", Model: "SARA-R410M-02B"}
)

func mustICCID(s string) rsp.ICCID {
	i, err := rsp.ParseICCID(s)
	if err != nil {
		panic(err)
	}
	return i
}

func mustEID(s string) rsp.EID {
	e, err := rsp.ParseEID(s)
	if err != nil {
		panic(err)
	}
	return e
}

// es2 is an SM-DP+ as its operator sees it.
type es2 struct {
	mu      sync.Mutex
	orders  []smdp.Order
	log     []smdp.Notification
	changed chan struct{}
}

func (e *es2) AddOrder(o smdp.Order) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.orders = append(e.orders, o)
	return nil
}

func (e *es2) ActivationCode(matchingID string) string { return "LPA:1$smdp.example$" + matchingID }

func (e *es2) add(n smdp.Notification) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.log = append(e.log, n)
	close(e.changed)
	e.changed = make(chan struct{})
}

func (e *es2) WaitNotification(ctx context.Context, wanted func(smdp.Notification) bool) (smdp.Notification, error) {
	for {
		e.mu.Lock()
		list, changed := e.log, e.changed
		e.mu.Unlock()
		for _, n := range list {
			if wanted(n) {
				return n, nil
			}
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return smdp.Notification{}, ctx.Err()
		}
	}
}

// device takes orders and does, for each, what the test says.
type device struct {
	submit func(o orderstest.Payload) error
	orders []orderstest.Payload
}

func (d *device) Submit(_ context.Context, order []byte) (string, error) {
	part := strings.Split(string(order), ".")[1]
	text, err := base64.RawURLEncoding.DecodeString(part)
	if err != nil {
		return "", err
	}
	var o orderstest.Payload
	if err := json.Unmarshal(text, &o); err != nil {
		return "", err
	}
	d.orders = append(d.orders, o)
	return "job-" + o.Action, d.submit(o)
}

// world is a server with its SM-DP+ and one profile in stock.
func world(t *testing.T) (*Server, *es2) {
	t.Helper()
	e := &es2{changed: make(chan struct{})}
	s, err := New(Config{Name: "operator", Host: "operator.example", SMDP: e, Answer: time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.AddProfile(Profile{ICCID: testICCID, Plan: "IoT", Order: smdp.Order{MatchingID: "M"}}); err != nil {
		t.Fatal(err)
	}
	s.AddParameters(Parameters{Plan: "IoT", Document: map[string]any{"apns": []any{}}})
	return s, e
}

func (e *es2) notify(event rsp.Event, seq int64, change func(*smdp.Notification)) {
	n := smdp.Notification{Time: time.Now(), SeqNumber: seq, Event: event, ICCID: testICCID, EID: testEID, Verified: true}
	if event == rsp.EventInstall {
		n.Result = "installed"
	}
	if change != nil {
		change(&n)
	}
	e.add(n)
}

// reportFor is what a device reports of the job of an order.
func reportFor(o orderstest.Payload, outcome string, activation int64) string {
	parameters := `[{"leaf":"/apns/default","value":{"name":"x"},"source":"order","rank":"order","state":"applied"}]`
	return fmt.Sprintf(`{"version":1,"seq":1,"eid":%q,"job":"job-%s","kind":%q,"outcome":%q,"iccid":%q,"parameters":%s,"activation":%d,"fault":{"code":"no-network","text":"no"}}`,
		testEID, o.Action, o.Action, outcome, testICCID, parameters, activation)
}

// report files a report as it comes from the network.
func (s *Server) report(t *testing.T, o orderstest.Payload, key, text string) {
	t.Helper()
	r, err := parseReport([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	if status := s.take(strings.TrimPrefix(o.ReportTo, "https://operator.example/reports/"), key, testPeer, r); status != http.StatusNoContent {
		t.Fatalf("the report is answered with %d", status)
	}
}

var testPeer = netip.MustParseAddr("192.0.2.1")

// A process waits for each thing in turn, and says where it was suspended.
func TestProvision(t *testing.T) {
	type scene struct {
		s *Server
		e *es2
		t *testing.T
	}
	good := func(sc scene, o orderstest.Payload) error {
		if o.Action == actionInstall {
			sc.e.notify(rsp.EventInstall, 1, nil)
			return nil
		}
		sc.e.notify(rsp.EventEnable, 3, nil)
		sc.s.report(sc.t, o, "k2", reportFor(o, "done", 3))
		return nil
	}
	at := func(action string, do func(sc scene, o orderstest.Payload) error) func(scene, orderstest.Payload) error {
		return func(sc scene, o orderstest.Payload) error {
			if o.Action != action {
				return good(sc, o)
			}
			return do(sc, o)
		}
	}
	for name, test := range map[string]struct {
		device func(sc scene, o orderstest.Payload) error
		stage  string // "" is done
		reason string
		state  ProfileState
		orders int
		failed int
	}{
		"all well":             {device: good, state: Active, orders: 2},
		"order not taken":      {device: at("install", func(scene, orderstest.Payload) error { return errors.New("signature") }), stage: stageInstallOrder, reason: "signature", state: Free, orders: 1},
		"activation not taken": {device: at("enable", func(scene, orderstest.Payload) error { return errors.New("serial") }), stage: stageEnableOrder, reason: "serial", state: Loaded, orders: 2},
		"not installed": {device: at("install", func(sc scene, _ orderstest.Payload) error {
			sc.e.notify(rsp.EventInstall, 1, func(n *smdp.Notification) { n.Result = "6/5" })
			return nil
		}), stage: stageLoad, reason: "6/5", state: Free, orders: 1},
		"never loaded, by the report": {device: at("install", func(sc scene, o orderstest.Payload) error {
			sc.s.report(sc.t, o, "k1", reportFor(o, "failed", 0))
			return nil
		}), stage: stageLoad, reason: "no-network", state: Free, orders: 1},
		"no word of it": {device: at("install", func(scene, orderstest.Payload) error { return nil }), stage: stageLoad, reason: "deadline", state: Ordered, orders: 1},
		// What is not this eUICC's notification of this profile, or not proven, is no notification.
		"others' notifications": {device: at("install", func(sc scene, _ orderstest.Payload) error {
			sc.e.notify(rsp.EventInstall, 1, func(n *smdp.Notification) { n.Verified = false })
			sc.e.notify(rsp.EventInstall, 1, func(n *smdp.Notification) { n.EID[0]++ })
			sc.e.notify(rsp.EventInstall, 1, func(n *smdp.Notification) { n.ICCID[9]++ })
			sc.e.notify(rsp.EventInstall, 1, func(n *smdp.Notification) { n.Time = n.Time.Add(-time.Hour) })
			sc.e.notify(rsp.EventEnable, 1, nil)
			return nil
		}), stage: stageLoad, reason: "deadline", state: Ordered, orders: 1},
		"taken back": {device: at("enable", func(sc scene, o orderstest.Payload) error {
			sc.e.notify(rsp.EventEnable, 3, nil)
			sc.s.report(sc.t, o, "k2", reportFor(o, "rolled-back", 0))
			return nil
		}), stage: "*", reason: "rolled-back", state: Loaded, orders: 2, failed: 1},
		"never enabled": {device: at("enable", func(sc scene, o orderstest.Payload) error {
			sc.s.report(sc.t, o, "k2", reportFor(o, "failed", 0))
			return nil
		}), stage: stageActivation, reason: "no-network", state: Loaded, orders: 2, failed: 1},
		"report of another activation": {device: at("enable", func(sc scene, o orderstest.Payload) error {
			sc.e.notify(rsp.EventEnable, 3, nil)
			sc.s.report(sc.t, o, "k2", reportFor(o, "done", 2))
			return nil
		}), stage: stageReport, reason: "of the activation 2", state: Loaded, orders: 2},
		"report without parameters": {device: at("enable", func(sc scene, o orderstest.Payload) error {
			sc.e.notify(rsp.EventEnable, 3, nil)
			text := reportFor(o, "done", 3)
			sc.s.report(sc.t, o, "k2", text[:strings.Index(text, `"parameters"`)]+text[strings.Index(text, `"activation"`):])
			return nil
		}), stage: stageReport, reason: "no parameters", state: Loaded, orders: 2},
		"no report": {device: at("enable", func(sc scene, _ orderstest.Payload) error {
			sc.e.notify(rsp.EventEnable, 3, nil)
			return nil
		}), stage: stageReport, reason: "deadline", state: Loaded, orders: 2},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s, e := world(t)
				d := &device{submit: func(o orderstest.Payload) error { return test.device(scene{s, e, t}, o) }}
				p, err := s.Provision(t.Context(), Request{Terminal: testTerminal, Plan: "IoT", Link: d})
				var suspended *SuspendedError
				if errors.As(err, &suspended) != (test.stage != "") || err != nil && !strings.Contains(err.Error(), test.reason) {
					t.Fatalf("%v", err)
				}
				if err != nil && (test.stage != "*" && p.Stage != test.stage || p.State != Suspended) || err == nil && p.State != Done {
					t.Errorf("%s at %q: %s", p.State, p.Stage, p.Reason)
				}
				if got := s.Profiles()[0].State; got != test.state {
					t.Errorf("the profile is %s", got)
				}
				row := s.Parameters()[0]
				if row.Failed != test.failed || (row.Applied == 1 && row.Last != nil) != (err == nil) {
					t.Errorf("row of parameters: %+v", row)
				}
				if len(d.orders) != test.orders || len(e.orders) != 1 || e.orders[0].EID != testEID || e.orders[0].TACs[0] != "35693803" {
					t.Errorf("%d orders, booked %+v", len(d.orders), e.orders)
				}
				for i, o := range d.orders {
					if o.Serial != int64(i+1) || o.EID != testEID.String() || o.IMEI != testTerminal.IMEI || o.ICCID != testICCID.String() || o.Expires <= o.IssuedAt || o.ReportTo == "" {
						t.Errorf("order %+v", o)
					}
				}
				if o := d.orders[0]; o.Enable != "on-command" || !bytes.Contains(o.Parameters, []byte(`"scope":{"iccid":"`+testICCID.String())) {
					t.Errorf("order to install %+v", o)
				}
			})
		})
	}
}

// The activation is ordered when its time has come, and not before.
func TestActivation(t *testing.T) {
	const wait = 10 * time.Minute
	for name, test := range map[string]struct {
		when func() Activation
		want time.Duration
	}{
		"at once":        {func() Activation { return nil }, 0},
		"at a time":      {func() Activation { return At(time.Now().Add(wait)) }, wait},
		"at a time past": {func() Activation { return At(time.Now().Add(-wait)) }, 0},
		"on command": {func() Activation {
			command := make(chan struct{})
			time.AfterFunc(wait, func() { close(command) })
			return OnCommand(command)
		}, wait},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s, e := world(t)
				begin, ordered := time.Now(), time.Duration(-1)
				d := &device{submit: func(o orderstest.Payload) error {
					if o.Action == actionInstall {
						e.notify(rsp.EventInstall, 1, nil)
						return nil
					}
					ordered = time.Since(begin)
					return errors.New("enough")
				}}
				if _, err := s.Provision(t.Context(), Request{Terminal: testTerminal, Plan: "IoT", Link: d, Activation: test.when()}); err == nil || ordered != test.want {
					t.Errorf("ordered after %v, want %v: %v", ordered, test.want, err)
				}
			})
		})
	}
	synctest.Test(t, func(t *testing.T) {
		for _, when := range []Activation{At(time.Now().Add(wait)), OnCommand(nil)} {
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			if err := when(ctx, Process{}); !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("%v", err)
			}
			cancel()
		}
	})
}

// The row that describes the terminal most closely is the one.
func TestParametersByTerminal(t *testing.T) {
	s, _ := world(t)
	for _, p := range []Parameters{
		{Plan: "IoT", Model: "sara", Document: map[string]any{"a": 1}},
		{Plan: "IoT", TAC: "35693803", Document: map[string]any{"a": 2}},
		{Plan: "IoT", TAC: "35693803", Model: "SARA-R410M-02B", Document: map[string]any{"a": 3}},
		{Plan: "Phones", TAC: "35693803", Model: "SARA-R410M-02B", Document: map[string]any{"a": 4}},
	} {
		s.AddParameters(p)
	}
	for _, test := range []struct {
		plan string
		t    Terminal
		want any
	}{
		{"IoT", testTerminal, 3},
		{"IoT", Terminal{IMEI: "356938030000000", Model: "another"}, 2},
		{"IoT", Terminal{IMEI: "490154203237518", Model: "sara"}, 1},
		{"IoT", Terminal{IMEI: "490154203237518"}, nil},
		{"IoT", Terminal{}, nil},
	} {
		_, row, err := s.choose(test.plan, test.t)
		if err != nil || row.Document["a"] != test.want {
			t.Errorf("%+v: %+v, %v", test.t, row, err)
		}
	}
	if _, _, err := s.choose("Phones", testTerminal); err == nil {
		t.Error("a profile of another plan")
	}
	if err := s.AddProfile(Profile{ICCID: testICCID, Plan: "IoT"}); err == nil {
		t.Error("a profile is in stock twice")
	}
	// A row that is replaced gets a generation that devices take for newer.
	before := s.Parameters()
	s.AddParameters(Parameters{Plan: "IoT", TAC: "35693803", Document: map[string]any{"a": 5}})
	after := s.Parameters()
	if len(after) != len(before) || after[2].Generation != before[2].Generation+1 || after[2].Document["a"] != 5 {
		t.Errorf("%+v", after[2])
	}
}

// The receiver answers by TLS and takes only what one of its own devices says
// of one of its processes, once.
func TestReceiver(t *testing.T) {
	s, e := world(t)
	var order orderstest.Payload
	d := &device{submit: func(o orderstest.Payload) error { order = o; return errors.New("enough") }}
	if _, err := s.Provision(t.Context(), Request{Terminal: testTerminal, Plan: "IoT", Link: d}); err == nil || len(e.orders) != 1 {
		t.Fatal("no order")
	}
	ctx, cancel := context.WithCancel(t.Context())
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error)
	go func() { served <- s.Serve(ctx, l) }()
	defer func() {
		cancel()
		if err := <-served; err != nil {
			t.Error(err)
		}
	}()
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(s.authority) {
		t.Fatal("no authority")
	}
	to := func(roots *x509.CertPool) *http.Client {
		return &http.Client{Transport: &http.Transport{DisableKeepAlives: true, TLSClientConfig: &tls.Config{RootCAs: roots},
			DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
				return (&net.Dialer{}).DialContext(ctx, network, l.Addr().String())
			}}}
	}
	post := func(c *http.Client, method, url, key, body string) (int, error) {
		q, err := http.NewRequestWithContext(t.Context(), method, url, strings.NewReader(body))
		if err != nil {
			return 0, err
		}
		if key != "" {
			q.Header.Set("Idempotency-Key", key)
		}
		a, err := c.Do(q)
		if err != nil {
			return 0, err
		}
		_, err = io.Copy(io.Discard, a.Body)
		return a.StatusCode, errors.Join(err, a.Body.Close())
	}
	good := reportFor(order, "done", 3)
	for _, test := range []struct {
		name, method, url, key, body string
		want                         int
	}{
		{"another path", "POST", "https://operator.example/", "k", good, 404},
		{"no token", "POST", "https://operator.example/reports/", "k", good, 404},
		{"a token of nobody", "POST", "https://operator.example/reports/x", "k", good, 404},
		{"GET", "GET", order.ReportTo, "k", "", 405},
		{"not JSON", "POST", order.ReportTo, "k", "<html>", 422},
		{"another version", "POST", order.ReportTo, "k", `{"version":2,"job":"j","outcome":"done"}`, 422},
		{"no job", "POST", order.ReportTo, "k", `{"version":1,"outcome":"done"}`, 422},
		{"too large", "POST", order.ReportTo, "k", strings.Repeat(" ", maxReport) + good, 413},
		{"another device", "POST", order.ReportTo, "k", strings.Replace(good, testEID.String(), "89049032000000000000000000000000", 1), 403},
		{"no key", "POST", order.ReportTo, "", good, 400},
		{"good", "POST", order.ReportTo, "k", good, 204},
		{"again", "POST", order.ReportTo, "k", good, 409},
	} {
		before := len(s.Record())
		got, err := post(to(roots), test.method, test.url, test.key, test.body)
		if err != nil || got != test.want {
			t.Errorf("%s: %d, want %d, %v", test.name, got, test.want, err)
		}
		if taken := len(s.Record()) > before; taken != (test.want == 204) {
			t.Errorf("%s: written down: %v", test.name, taken)
		}
	}
	if _, err := post(to(x509.NewCertPool()), "POST", order.ReportTo, "l", good); err == nil {
		t.Error("the receiver is believed without its authority")
	}
}

func FuzzReport(f *testing.F) {
	f.Add([]byte(reportFor(orderstest.Payload{Action: "enable"}, "done", 3)))
	f.Add([]byte(`{"version":1,"job":"j","outcome":"failed","iccid":"x"}`))
	f.Add([]byte(`{"version":1,"job":"j","outcome":"failed","parameters":[{"leaf":"/a","value":{"b":[1]}}],"applied_at":"2026-01-01T00:00:00Z"}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := parseReport(b)
		if err == nil && (r.Version != 1 || r.Job == "" || r.Outcome == "" || r.ICCID != "" && mustICCID(r.ICCID).IsZero()) {
			t.Errorf("%+v", r)
		}
	})
}
