package smdp

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"
	"time"

	"lpad/agent/rsp"
	"lpad/agent/rsp/rsptest/pki"
)

func TestHTTP(t *testing.T) {
	w := newWorld(t, nil)
	request := func(method, url string, header map[string]string, body string) jsonAnswer {
		r := httptest.NewRequest(method, url, strings.NewReader(body))
		for k, v := range header {
			r.Header.Set(k, v)
		}
		rec := httptest.NewRecorder()
		w.server.ServeHTTP(rec, r)
		return readAnswer(t, rec.Code, rec.Header(), rec.Body.Bytes())
	}
	good := map[string]string{"Content-Type": "application/json;charset=UTF-8", "X-Admin-Protocol": "gsma/rsp/v2.2.2", "User-Agent": "gsma-rsp-lpad"}
	with := func(k, v string) map[string]string {
		h := map[string]string{}
		for name, value := range good {
			h[name] = value
		}
		h[k] = v
		return h
	}
	url := path + string(InitiateAuthentication)
	for _, test := range []struct {
		name        string
		method, url string
		header      map[string]string
		body        string
		http        int
		code        string
	}{
		{"other path", "POST", "/gsma/rsp2/es9/initiateAuthentication", good, "{}", 404, ""},
		{"GET", "GET", url, good, "", 405, ""},
		{"form", "POST", url, with("Content-Type", "application/x-www-form-urlencoded"), "{}", 200, "1.2.1/2.1"},
		{"no protocol", "POST", url, with("X-Admin-Protocol", ""), "{}", 200, "1.2.2/2.1"},
		{"not JSON", "POST", url, good, "{", 200, "1.6/2.1"},
		{"huge", "POST", url, good, strings.Repeat(" ", maxBody+1), 413, ""},
		{"empty", "POST", url, good, "{}", 200, "1.6/2.2"},
	} {
		a := request(test.method, test.url, test.header, test.body)
		if a.HTTP != test.http || a.Code != test.code {
			t.Errorf("%s: HTTP %d, %q, want %d, %q", test.name, a.HTTP, a.Code, test.http, test.code)
		}
		if test.code != "" && (a.Header.Get("Content-Type") != "application/json;charset=UTF-8" || a.Header.Get("X-Admin-Protocol") != protocol) {
			t.Errorf("%s: header %v", test.name, a.Header)
		}
	}
	calls := w.server.Calls()
	if last := calls[len(calls)-1]; last.Outcome != "1.6/2.2" || last.UserAgent != "gsma-rsp-lpad" || last.Function != InitiateAuthentication {
		t.Errorf("last call %+v", last)
	}
}

// client is an HTTPS client that trusts the CI of the world.
type client struct {
	*http.Client
	base string
}

func (w *world) serve() (*client, string) {
	w.Helper()
	l := must(net.Listen("tcp", "127.0.0.1:0"))(w)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- w.server.Serve(ctx, l, w.pki.DPTLS) }()
	roots := x509.NewCertPool()
	roots.AddCert(must(w.pki.CI.Certificate.X509())(w))
	transport := &http.Transport{
		TLSClientConfig: &tls.Config{RootCAs: roots, ServerName: "smdp.example.com", Time: func() time.Time { return now }},
		DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, network, l.Addr().String())
		},
	}
	w.Cleanup(func() {
		transport.CloseIdleConnections()
		cancel()
		if err := <-done; err != nil {
			w.Errorf("Serve: %v", err)
		}
	})
	return &client{&http.Client{Transport: transport}, "https://smdp.example.com"}, l.Addr().String()
}

func (c *client) post(ctx context.Context, t testing.TB, fn Function, members map[string]string) (jsonAnswer, error) {
	t.Helper()
	r := must(http.NewRequestWithContext(ctx, http.MethodPost, c.base+path+string(fn), bytes.NewReader(must(json.Marshal(members))(t))))(t)
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set("X-Admin-Protocol", "gsma/rsp/v2.2.2")
	response, err := c.Do(r)
	if err != nil {
		return jsonAnswer{}, err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		return jsonAnswer{}, err
	}
	return readAnswer(t, response.StatusCode, response.Header, body), nil
}

func (w *world) initiateMembers() map[string]string {
	return map[string]string{"euiccChallenge": b64(make([]byte, 16)), "euiccInfo1": b64(w.card.info1()), "smdpAddress": "smdp.example.com"}
}

func TestServe(t *testing.T) {
	w := newWorld(t, nil)
	c, address := w.serve()
	for range 3 {
		a, err := c.post(t.Context(), t, InitiateAuthentication, w.initiateMembers())
		if err != nil || a.Code != "" {
			t.Fatalf("%v, %s", err, a.Raw)
		}
	}
	c.CloseIdleConnections()
	n := w.card.other(rsp.EventEnable, testICCID(t))
	if a, err := c.post(t.Context(), t, HandleNotification, map[string]string{"pendingNotification": b64(n)}); err != nil || a.HTTP != http.StatusNoContent {
		t.Errorf("%v, HTTP %d", err, a.HTTP)
	}
	got := must(w.server.WaitNotification(t.Context(), func(n Notification) bool { return n.Event == rsp.EventEnable }))(t)
	if got.Peer != netip.MustParseAddr("127.0.0.1") || got.Connection != 2 || !got.Verified {
		t.Errorf("notification %+v", got)
	}
	// A client that does not trust us gets as far as the handshake.
	_, err := tls.DialWithDialer(&net.Dialer{Timeout: 10 * time.Second}, "tcp", address, &tls.Config{ServerName: "smdp.example.com", RootCAs: x509.NewCertPool()})
	var unknown *tls.CertificateVerificationError
	if !errors.As(err, &unknown) {
		t.Errorf("client without our root: %v", err)
	}
	connections := w.server.Connections()
	if len(connections) != 2 || connections[0].Requests != 3 || connections[1].Requests != 1 || w.server.Accepted() != 3 {
		t.Errorf("connections %+v, accepted %d", connections, w.server.Accepted())
	}
	var state State
	if err := json.Unmarshal(must(json.Marshal(w.server.State()))(t), &state); err != nil || len(state.Orders) != 1 || len(state.Notifications) != 1 || len(state.Calls) != 4 || state.Notifications[0].EventName != "enable" {
		t.Errorf("state %+v, %v", state, err)
	}
}

func TestServeRefuses(t *testing.T) {
	w := newWorld(t, nil)
	brainpool := must(pki.New(pki.Options{Curve: pki.BrainpoolP256r1}))(t)
	if err := w.server.Serve(t.Context(), nil, brainpool.DPTLS); err == nil {
		t.Error("served with a brainpool certificate")
	}
	l := must(net.Listen("tcp", "127.0.0.1:0"))(t)
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if err := w.server.Serve(t.Context(), l, w.pki.DPTLS); err == nil {
		t.Error("served on a closed listener")
	}
}

// Requests of any shape: an answer, never a panic.
func FuzzRequests(f *testing.F) {
	p := must(pki.New(pki.Options{}))(f)
	c := newCard(f, p)
	seeds := [][]byte{c.info1(), unhex(f, "BF3809A10780020102020102"), unhex(f, "BF2109A10780020102020105"),
		c.result("0102", testICCID(f), 0), c.other(rsp.EventEnable, testICCID(f)), c.cancel("0102", 0, []byte{0x88, 0x37, 0x0A})}
	for _, seed := range seeds {
		f.Add(seed)
	}
	s := must(New(Config{Address: "smdp.example.com", CIs: []*pki.Certificate{p.CI.Certificate}, Credentials: []Credential{{Auth: p.DPAuth, Pb: p.DPPb}}}))(f)
	if err := s.AddOrder(Order{MatchingID: "AB-1", UPP: []byte{1}, Metadata: Metadata{ICCID: testICCID(f)}}); err != nil {
		f.Fatal(err)
	}
	offer := c.authenticate(s, "AB-1")
	f.Fuzz(func(t *testing.T, b []byte) {
		initiated := newCard(t, p).initiate(s)
		for _, call := range []struct {
			fn      Function
			members map[string]string
		}{
			{InitiateAuthentication, map[string]string{"euiccChallenge": b64(make([]byte, 16)), "euiccInfo1": b64(b), "smdpAddress": "smdp.example.com"}},
			{AuthenticateClient, map[string]string{"transactionId": initiated.TransactionID, "authenticateServerResponse": b64(b)}},
			{CancelSession, map[string]string{"transactionId": offer.TransactionID, "cancelSessionResponse": b64(b)}},
			{HandleNotification, map[string]string{"pendingNotification": b64(b)}},
		} {
			if a := post(t, s, call.fn, call.members); a.HTTP != 200 && a.HTTP != 204 {
				t.Errorf("%s: HTTP %d", call.fn, a.HTTP)
			}
		}
		if _, err := parsePrepared(b); err == nil && len(b) < 8 {
			t.Errorf("%X is a PrepareDownloadResponse", b)
		}
	})
}
