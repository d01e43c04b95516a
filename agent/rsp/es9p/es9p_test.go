package es9p_test

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"lpad/agent/rsp"
	"lpad/agent/rsp/es9p"
	"lpad/internal/fault"
)

var update = flag.Bool("update", false, "write the golden files")

// calls are the functions of a session with good arguments.
var calls = []struct {
	name string
	call func(context.Context, *es9p.Session) error
}{
	{"initiateAuthentication", func(ctx context.Context, s *es9p.Session) error {
		_, err := s.InitiateAuthentication(ctx, challenge, info1)
		return err
	}},
	{"authenticateClient", func(ctx context.Context, s *es9p.Session) error {
		_, err := s.AuthenticateClient(ctx, transactionID, authServer)
		return err
	}},
	{"getBoundProfilePackage", func(ctx context.Context, s *es9p.Session) error {
		_, err := s.GetBoundProfilePackage(ctx, transactionID, prepareDownload)
		return err
	}},
	{"handleNotification", func(ctx context.Context, s *es9p.Session) error { return s.HandleNotification(ctx, installResult) }},
	{"cancelSession", func(ctx context.Context, s *es9p.Session) error {
		return s.CancelSession(ctx, transactionID, cancelResponse)
	}},
}

// A whole session: the requests byte for byte, over one connection.
func TestSession(t *testing.T) {
	srv := startServer(t, nil)
	srv.good()
	s := open(t, srv.client(t))
	ctx := t.Context()

	auth, err := s.InitiateAuthentication(ctx, challenge, info1)
	if err != nil {
		t.Fatal(err)
	}
	want := rsp.ServerAuthentication{TransactionID: transactionID, ServerSigned1: []byte{0x30, 1, 0xAA},
		ServerSignature1: []byte{0x5F, 0x37, 1, 0xAA}, CIPKID: []byte{4, 1, 0xAA}, ServerCertificate: []byte{0x30, 1, 0xAA}}
	if d := cmp.Diff(want, auth); d != "" {
		t.Errorf("InitiateAuthentication (-want +got):\n%s", d)
	}
	client, err := s.AuthenticateClient(ctx, auth.TransactionID, authServer)
	if err != nil {
		t.Fatal(err)
	}
	wantOffer := rsp.ClientAuthenticated{Offer: &rsp.DownloadOffer{TransactionID: transactionID, ProfileMetadata: []byte{0xBF, 0x25, 1, 0xAA},
		SMDPSigned2: []byte{0x30, 1, 0xAA}, SMDPSignature2: []byte{0x5F, 0x37, 1, 0xAA}, SMDPCertificate: []byte{0x30, 1, 0xAA}}}
	if d := cmp.Diff(wantOffer, client); d != "" {
		t.Errorf("AuthenticateClient (-want +got):\n%s", d)
	}
	bpp, err := s.GetBoundProfilePackage(ctx, auth.TransactionID, prepareDownload)
	if err != nil || !bytes.Equal(bpp, []byte{0xBF, 0x36, 1, 0xAA}) {
		t.Errorf("GetBoundProfilePackage: %X, %v", bpp, err)
	}
	if err := s.HandleNotification(ctx, installResult); err != nil {
		t.Error(err)
	}
	if err := s.CancelSession(ctx, auth.TransactionID, cancelResponse); err != nil {
		t.Error(err)
	}

	requests, connections := srv.seen()
	if connections != 1 || s.Connections() != 1 {
		t.Errorf("%d connections (the session says %d), want 1", connections, s.Connections())
	}
	if len(requests) != len(calls) {
		t.Fatalf("%d requests, want %d", len(requests), len(calls))
	}
	for i, r := range requests {
		golden(t, calls[i].name, r)
	}
}

// golden compares a request, head and body, with its file.
func golden(t *testing.T, name string, r request) {
	t.Helper()
	var got bytes.Buffer
	fmt.Fprintf(&got, "%s %s %s\nHost: %s\n", r.Method, r.URL, r.Proto, r.Host)
	if err := r.Header.WriteSubset(&got, nil); err != nil {
		t.Fatal(err)
	}
	fmt.Fprintf(&got, "\n%s\n", r.body)
	path := filepath.Join("testdata", name+".request")
	text := bytes.ReplaceAll(got.Bytes(), []byte("\r\n"), []byte("\n"))
	if *update {
		if err := os.WriteFile(path, text, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(string(want), string(text)); d != "" {
		t.Errorf("%s (-want +got):\n%s", name, d)
	}
}

// Answers of real servers that bend the specification, and must be taken.
func TestTolerated(t *testing.T) {
	for _, tc := range []struct{ name, function, body string }{
		{"lines in base64", "initiateAuthentication", strings.ReplaceAll(initiateAnswer, "XzcBqg==", `Xz\r\ncB\nqg==\n`)},
		{"blanks in base64", "initiateAuthentication", strings.ReplaceAll(initiateAnswer, "XzcBqg==", " Xzc Bqg== ")},
		{"no padding", "initiateAuthentication", strings.ReplaceAll(initiateAnswer, "==", "")},
		{"other spelling", "initiateAuthentication", strings.ReplaceAll(initiateAnswer, "ToBeUsed", "TobeUsed")},
		{"no header", "initiateAuthentication", strings.Replace(initiateAnswer, success+",", "", 1)},
		{"empty header", "initiateAuthentication", strings.Replace(initiateAnswer, success, `"header":{}`, 1)},
		{"null header", "initiateAuthentication", strings.Replace(initiateAnswer, success, `"header":null`, 1)},
		{"warning", "authenticateClient", strings.Replace(offerAnswer, "Executed-Success", "Executed-WithWarning", 1)},
		{"case of the status", "authenticateClient", strings.Replace(offerAnswer, "Executed-Success", "EXECUTED-SUCCESS", 1)},
		{"lower-case transactionId", "authenticateClient", strings.Replace(offerAnswer, "0A1B2C3D", "0a1b2c3d", 1)},
		{"unknown members", "getBoundProfilePackage", strings.Replace(packageAnswer, "{", `{"x":[{"y":1}],"sessionContext":null,`, 1)},
		{"no transactionId in the package", "getBoundProfilePackage", strings.Replace(packageAnswer, `"transactionId":"0A1B2C3D",`, "", 1)},
		{"empty 200", "handleNotification", ""},
		{"white 200", "handleNotification", "\n"},
		{"200 with header", "handleNotification", emptyHeader},
		{"200 with empty object", "handleNotification", "{}"},
		{"empty 200", "cancelSession", ""},
	} {
		t.Run(tc.name+" "+tc.function, func(t *testing.T) {
			srv := startServer(t, nil)
			srv.answers[tc.function] = reply(200, tc.body)
			s := open(t, srv.client(t))
			for _, c := range calls {
				if c.name == tc.function {
					if err := c.call(t.Context(), s); err != nil {
						t.Error(err)
					}
				}
			}
		})
	}
}

// Answers that must not be taken, with the code of their fault.
func TestRefusedAnswers(t *testing.T) {
	without := func(answer, member string) string {
		return strings.Replace(answer, `"`+member+`"`, `"not`+member+`"`, 1)
	}
	const invalid = "server-answer-invalid"
	for _, tc := range []struct{ name, function, body, code string }{
		{"nothing", "initiateAuthentication", "", invalid},
		{"not JSON", "initiateAuthentication", "<html>", invalid},
		{"a list", "initiateAuthentication", "[]", invalid},
		{"null", "initiateAuthentication", "null", invalid},
		{"trailing data", "initiateAuthentication", initiateAnswer + initiateAnswer, invalid},
		{"deep nesting", "initiateAuthentication", strings.Repeat(`{"a":`, 20000), invalid},
		{"doubled member", "initiateAuthentication", strings.Replace(initiateAnswer, "{", `{"serverSigned1":"MAGr",`, 1), invalid},
		{"doubled header", "initiateAuthentication", strings.Replace(initiateAnswer, "{", `{`+success+`,`, 1), invalid},
		{"header of another kind", "initiateAuthentication", strings.Replace(initiateAnswer, success, `"header":"fine"`, 1), invalid},
		{"no transactionId", "initiateAuthentication", without(initiateAnswer, "transactionId"), invalid},
		{"long transactionId", "initiateAuthentication", strings.Replace(initiateAnswer, "0a1B2c3D", strings.Repeat("AB", 17), 1), invalid},
		{"transactionId as number", "initiateAuthentication", strings.Replace(initiateAnswer, `"0a1B2c3D"`, "12", 1), invalid},
		{"no serverSigned1", "initiateAuthentication", without(initiateAnswer, "serverSigned1"), invalid},
		{"null serverSigned1", "initiateAuthentication", strings.Replace(initiateAnswer, `"serverSigned1":"MAGq"`, `"serverSigned1":null`, 1), invalid},
		{"wrong tag", "initiateAuthentication", strings.Replace(initiateAnswer, `"serverSigned1":"MAGq"`, `"serverSigned1":"BAGq"`, 1), invalid},
		{"no base64", "initiateAuthentication", strings.Replace(initiateAnswer, "MAGq", "M*Gq", 1), invalid},
		{"number for base64", "initiateAuthentication", strings.Replace(initiateAnswer, `"MAGq"`, "5", 1), invalid},
		{"bad escape", "initiateAuthentication", strings.Replace(initiateAnswer, "MAGq", `\u00zz`, 1), invalid},
		{"no signature", "initiateAuthentication", without(initiateAnswer, "serverSignature1"), invalid},
		{"no CI", "initiateAuthentication", without(initiateAnswer, "euiccCiPKIdToBeUsed"), invalid},
		{"no certificate", "initiateAuthentication", without(initiateAnswer, "serverCertificate"), invalid},
		{"success without data", "initiateAuthentication", emptyHeader, invalid},
		{"another session", "authenticateClient", strings.Replace(offerAnswer, "0A1B2C3D", "0A1B2C3E", 1), invalid},
		{"no metadata", "authenticateClient", without(offerAnswer, "profileMetadata"), invalid},
		{"no smdpSigned2", "authenticateClient", without(offerAnswer, "smdpSigned2"), invalid},
		{"another session", "getBoundProfilePackage", strings.Replace(packageAnswer, "0A1B2C3D", "0A1B2C", 1), invalid},
		{"no package", "getBoundProfilePackage", emptyHeader, invalid},
		{"not an acknowledgement", "handleNotification", "<html>welcome</html>", invalid},
		{"refused notification", "handleNotification", refusedMatching, "matching-id-refused"},
		{"refused", "authenticateClient", refusedMatching, "matching-id-refused"},
		{"refused, the rest odd", "authenticateClient", strings.Replace(refusedMatching, "{", `{"transactionId":5,`, 1), "matching-id-refused"},
		{"codes as numbers", "authenticateClient", `{"header":{"functionExecutionStatus":{"status":"Failed","statusCodeData":{"subjectCode":8.2,"reasonCode":3.7}}}}`, "profile-already-bound"},
		{"codes missing", "authenticateClient", `{"header":{"functionExecutionStatus":{"status":"Failed"}}}`, "server-refused"},
		{"expired", "getBoundProfilePackage", `{"header":{"functionExecutionStatus":{"status":"Expired"}}}`, "request-expired"},
		{"status of its own", "cancelSession", `{"header":{"functionExecutionStatus":{"status":"Maybe"}}}`, "server-refused"},
		{"codes of another kind", "authenticateClient", `{"header":{"functionExecutionStatus":{"status":"Failed","statusCodeData":{"subjectCode":[],"reasonCode":null}}}}`, "server-refused"},
	} {
		t.Run(tc.name+" "+tc.function, func(t *testing.T) {
			srv := startServer(t, nil)
			srv.answers[tc.function] = reply(200, tc.body)
			s := open(t, srv.client(t))
			for _, c := range calls {
				if c.name != tc.function {
					continue
				}
				err := c.call(t.Context(), s)
				if err == nil {
					t.Fatal("accepted")
				}
				if f := fault.Of(err); f.Code != tc.code {
					t.Errorf("code %q, want %q: %v", f.Code, tc.code, err)
				}
				if strings.Contains(err.Error(), "SECRET-ID") {
					t.Errorf("the error gives text of the server away: %v", err)
				}
			}
		})
	}
}

func TestRefusalKeepsFirst(t *testing.T) {
	srv := startServer(t, nil)
	srv.answers["authenticateClient"] = reply(200, refusedMatching)
	_, err := open(t, srv.client(t)).AuthenticateClient(t.Context(), transactionID, authServer)
	var e *es9p.Error
	if !errors.As(err, &e) {
		t.Fatalf("error %v, want *Error", err)
	}
	want := &es9p.Error{Function: "authenticateClient", Status: "Failed", SubjectCode: "8.2.6", ReasonCode: "3.8",
		SubjectIdentifier: "SECRET-ID", Message: "no SECRET-ID here"}
	if d := cmp.Diff(want, e); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
	var log bytes.Buffer
	slog.New(slog.NewTextHandler(&log, nil)).Info("refused", "err", e)
	if strings.Contains(log.String(), "SECRET-ID") || !strings.Contains(log.String(), "8.2.6") {
		t.Errorf("logged as %s", &log)
	}
}

func TestHTTPStatus(t *testing.T) {
	for _, tc := range []struct {
		status int
		after  string
		code   string
		retry  bool
		wait   time.Duration
	}{
		{404, "", "wrong-server", false, 0},
		{405, "", "wrong-server", false, 0},
		{301, "", "server-redirects", false, 0},
		{307, "", "server-redirects", false, 0},
		{400, "", "request-refused", false, 0},
		{401, "", "server-forbids", false, 0},
		{403, "", "server-forbids", false, 0},
		{429, "7", "server-unavailable", true, 7 * time.Second},
		{500, "", "server-unavailable", true, 0},
		{503, "120", "server-unavailable", true, 2 * time.Minute},
		{503, "Mon, 01 Jun 2026 12:05:00 GMT", "server-unavailable", true, 5 * time.Minute},
		{503, "Mon, 01 Jun 2020 12:05:00 GMT", "server-unavailable", true, 0},
		{503, "999999", "server-unavailable", true, 24 * time.Hour},
		{503, "soon", "server-unavailable", true, 0},
		{202, "", "server-status-odd", false, 0},
	} {
		t.Run(fmt.Sprint(tc.status, tc.after), func(t *testing.T) {
			srv := startServer(t, nil)
			srv.answers["handleNotification"] = func(w http.ResponseWriter, r *http.Request) {
				w.Header().Set("Retry-After", tc.after)
				w.Header().Set("Location", "https://elsewhere.example/")
				w.WriteHeader(tc.status)
			}
			err := open(t, srv.client(t)).HandleNotification(t.Context(), otherSigned)
			var e *es9p.HTTPError
			if !errors.As(err, &e) {
				t.Fatalf("error %v, want *HTTPError", err)
			}
			if e.Status != tc.status || e.RetryAfter != tc.wait {
				t.Errorf("status %d after %v, want %d after %v", e.Status, e.RetryAfter, tc.status, tc.wait)
			}
			if f := fault.Of(err); f.Code != tc.code || f.Retry != tc.retry {
				t.Errorf("fault %+v, want %s, retry %v", f, tc.code, tc.retry)
			}
			if requests, _ := srv.seen(); len(requests) != 1 {
				t.Errorf("%d requests, want 1: nothing is followed or repeated", len(requests))
			}
		})
	}
}

// Only a server that says that it has the notification already counts as one
// that has acknowledged it.
func TestKnownNotification(t *testing.T) {
	for codes, acknowledged := range map[string]bool{
		"8.10/3.3": true, "8.10.1/3.3": true,
		"8.10.1/3.9": false, "8.2.1/3.3": false, "8.9.5/3.3": false, "8.10/3.30": false, "8.1/6.1": false, "/": false, "8.10.1/": false,
	} {
		for _, status := range []int{200, 400} {
			subject, reason, _ := strings.Cut(codes, "/")
			srv := startServer(t, nil)
			srv.answers["handleNotification"] = reply(status, fmt.Sprintf(
				`{"header":{"functionExecutionStatus":{"status":"Failed","statusCodeData":{"subjectCode":%q,"reasonCode":%q}}}}`, subject, reason))
			if err := open(t, srv.client(t)).HandleNotification(t.Context(), otherSigned); (err == nil) != acknowledged {
				t.Errorf("%s in HTTP %d: %v", codes, status, err)
			}
		}
	}
	srv := startServer(t, nil)
	srv.answers["cancelSession"] = reply(200, `{"header":{"functionExecutionStatus":{"status":"Failed","statusCodeData":{"subjectCode":"8.10.1","reasonCode":"3.3"}}}}`)
	if err := open(t, srv.client(t)).CancelSession(t.Context(), transactionID, cancelResponse); err == nil {
		t.Error("another function counts as done")
	}
}

// A server that hides its refusal behind an HTTP error is still understood.
func TestRefusalInHTTPError(t *testing.T) {
	srv := startServer(t, nil)
	srv.answers["authenticateClient"] = reply(400, refusedMatching)
	_, err := open(t, srv.client(t)).AuthenticateClient(t.Context(), transactionID, authServer)
	if f := fault.Of(err); f.Code != "matching-id-refused" {
		t.Errorf("fault %+v", f)
	}
	srv.answers["authenticateClient"] = reply(500, emptyHeader)
	_, err = open(t, srv.client(t)).AuthenticateClient(t.Context(), transactionID, authServer)
	if f := fault.Of(err); f.Code != "server-unavailable" {
		t.Errorf("fault %+v", f)
	}
}

// What is sent is strict: arguments that are not what they must be stay here.
func TestStrictOutput(t *testing.T) {
	srv := startServer(t, nil)
	srv.good()
	s := open(t, srv.client(t))
	ctx := t.Context()
	for name, call := range map[string]func() error{
		"short challenge": func() error { _, err := s.InitiateAuthentication(ctx, challenge[:15], info1); return err },
		"challenge TLV": func() error {
			_, err := s.InitiateAuthentication(ctx, append([]byte{4, 16}, challenge...), info1)
			return err
		},
		"info2":            func() error { _, err := s.InitiateAuthentication(ctx, challenge, []byte{0xBF, 0x22, 0}); return err },
		"no response":      func() error { _, err := s.AuthenticateClient(ctx, transactionID, nil); return err },
		"wrong response":   func() error { _, err := s.GetBoundProfilePackage(ctx, transactionID, authServer); return err },
		"notification off": func() error { return s.HandleNotification(ctx, installResult[2:]) },
		"cancel":           func() error { return s.CancelSession(ctx, transactionID, installResult) },
	} {
		if call() == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	if requests, _ := srv.seen(); len(requests) != 0 {
		t.Errorf("%d requests were sent", len(requests))
	}
}

func TestLimits(t *testing.T) {
	big := `{` + success + `,"boundProfilePackage":"` + base64.StdEncoding.EncodeToString(append([]byte{0xBF, 0x36}, make([]byte, 3000)...)) + `"}`
	for name, chunked := range map[string]bool{"announced": false, "unannounced": true} {
		t.Run(name, func(t *testing.T) {
			srv := startServer(t, nil)
			body := func(w http.ResponseWriter, r *http.Request) {
				if chunked {
					w.(http.Flusher).Flush()
				}
				io.WriteString(w, big)
			}
			srv.answers["getBoundProfilePackage"], srv.answers["authenticateClient"] = body, body
			c := srv.client(t)
			c.Limits = es9p.Limits{BoundProfilePackage: int64(len(big)), Other: int64(len(big)) - 1}
			s := open(t, c)
			if _, err := s.GetBoundProfilePackage(t.Context(), transactionID, prepareDownload); err != nil {
				t.Errorf("a body just within the limit: %v", err)
			}
			_, err := s.AuthenticateClient(t.Context(), transactionID, authServer)
			if err == nil || !strings.Contains(err.Error(), "longer than") {
				t.Errorf("a body just beyond the limit: %v", err)
			}
		})
	}
}

func TestCompressed(t *testing.T) {
	srv := startServer(t, nil)
	srv.answers["handleNotification"] = func(w http.ResponseWriter, r *http.Request) {
		if a := r.Header.Get("Accept-Encoding"); a != "" {
			t.Errorf("Accept-Encoding %q was asked for", a)
		}
		w.Header().Set("Content-Encoding", "gzip")
		w.Header().Set("Set-Cookie", "a=b")
	}
	s := open(t, srv.client(t))
	for range 2 {
		if err := s.HandleNotification(t.Context(), otherSigned); err == nil || !strings.Contains(err.Error(), "compressed") {
			t.Errorf("error %v", err)
		}
	}
	requests, _ := srv.seen()
	if c := requests[1].Header.Get("Cookie"); c != "" {
		t.Errorf("cookie %q was kept", c)
	}
}

// A server that takes the connection or the request and then keeps silent
// costs no more than its time limit.
func TestSilentServer(t *testing.T) {
	t.Run("after the request", func(t *testing.T) {
		srv := startServer(t, nil)
		srv.answers["initiateAuthentication"] = func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }
		c := srv.client(t)
		c.Timeouts.Other = 50 * time.Millisecond
		checkFault(t, calls[0].call(t.Context(), open(t, c)), "server-silent", true)
	})
	t.Run("in the answer", func(t *testing.T) {
		srv := startServer(t, nil)
		over := make(chan struct{})
		t.Cleanup(func() { close(over) })
		srv.answers["getBoundProfilePackage"] = func(w http.ResponseWriter, _ *http.Request) {
			io.WriteString(w, "{")
			w.(http.Flusher).Flush()
			<-over // and not r.Context: the server would end the body when the client hangs up
		}
		c := srv.client(t)
		c.Timeouts.BoundProfilePackage = 50 * time.Millisecond
		checkFault(t, calls[2].call(t.Context(), open(t, c)), "server-silent", true)
	})
	t.Run("in the handshake", func(t *testing.T) {
		c, listener := silentListener(t)
		c.Timeouts.Handshake = 50 * time.Millisecond
		checkFault(t, calls[0].call(t.Context(), open(t, c)), "server-silent", true)
		listener.Close()
	})
	t.Run("in the dial", func(t *testing.T) {
		c := &es9p.Client{Timeouts: es9p.Timeouts{Dial: 20 * time.Millisecond}, Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
			<-ctx.Done()
			return nil, ctx.Err()
		}}
		checkFault(t, calls[0].call(t.Context(), open(t, c)), "server-silent", true)
	})
}

func checkFault(t *testing.T, err error, code string, retry bool) {
	t.Helper()
	if err == nil {
		t.Fatal("no error")
	}
	if f := fault.Of(err); f.Code != code || f.Retry != retry || f.Text == "" || f.Next == "" || f.Who == "" {
		t.Errorf("fault %+v, want %s, retry %v, all said: %v", f, code, retry, err)
	}
}

// silentListener accepts and says nothing.
func silentListener(t *testing.T) (*es9p.Client, net.Listener) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return &es9p.Client{Dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, network, l.Addr().String())
	}}, l
}

// The caller's context ends a call at once, and is told apart from a silent
// server; so does Close.
func TestCancel(t *testing.T) {
	for name, tc := range map[string]struct {
		stop func(*es9p.Session, context.CancelFunc)
		want string
	}{
		"context": {func(_ *es9p.Session, cancel context.CancelFunc) { cancel() }, "cancelled"},
		"close":   {func(s *es9p.Session, _ context.CancelFunc) { s.Close() }, fault.Internal},
	} {
		for _, phase := range []string{"handshake", "answer"} {
			t.Run(name+" in the "+phase, func(t *testing.T) {
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				arrived := make(chan struct{})
				var c *es9p.Client
				if phase == "answer" {
					srv := startServer(t, nil)
					srv.answers["initiateAuthentication"] = func(_ http.ResponseWriter, r *http.Request) { close(arrived); <-r.Context().Done() }
					c = srv.client(t)
				} else {
					silent, _ := silentListener(t)
					c = &es9p.Client{Dial: func(ctx context.Context, network, address string) (net.Conn, error) {
						conn, err := silent.Dial(ctx, network, address)
						close(arrived)
						return conn, err
					}}
				}
				s := open(t, c)
				done := make(chan error, 1)
				go func() { done <- calls[0].call(ctx, s) }()
				<-arrived
				tc.stop(s, cancel)
				select {
				case err := <-done:
					if f := fault.Of(err); f.Code != tc.want {
						t.Errorf("fault %+v, want %s: %v", f, tc.want, err)
					}
				case <-time.After(10 * time.Second):
					t.Fatal("the call goes on")
				}
			})
		}
	}
	srv := startServer(t, nil)
	s := open(t, srv.client(t))
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if err := s.HandleNotification(t.Context(), otherSigned); err == nil || !strings.Contains(err.Error(), "closed") {
		t.Errorf("a call after Close: %v", err)
	}
}

// When the server closes the idle connection, the next call opens another.
func TestServerClosesIdle(t *testing.T) {
	srv := startServer(t, nil)
	srv.answers["handleNotification"] = func(w http.ResponseWriter, _ *http.Request) { w.Header().Set("Connection", "close") }
	s := open(t, srv.client(t))
	for range 3 {
		if err := s.HandleNotification(t.Context(), otherSigned); err != nil {
			t.Fatal(err)
		}
	}
	if n := s.Connections(); n != 3 {
		t.Errorf("%d connections, want 3", n)
	}
}

func TestSettings(t *testing.T) {
	srv := startServer(t, nil)
	srv.good()
	c := srv.client(t)
	c.UserAgent, c.Protocol = "lpad-test", "gsma/rsp/v2.5.0"
	var log bytes.Buffer
	c.Log = slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	s, err := c.Open("  SMDP.test.\u00a0example. \n")
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if s.Address() != "SMDP.test.example" {
		t.Errorf("address %q", s.Address())
	}
	if err := calls[0].call(t.Context(), s); err != nil {
		t.Fatal(err)
	}
	requests, _ := srv.seen()
	r := requests[0]
	if r.Header.Get("User-Agent") != "lpad-test" || r.Header.Get("X-Admin-Protocol") != "gsma/rsp/v2.5.0" || r.Host != host || r.TLS.ServerName != host {
		t.Errorf("headers %v, host %s, SNI %s", r.Header, r.Host, r.TLS.ServerName)
	}
	if !bytes.Contains(r.body, []byte(`"smdpAddress":"SMDP.test.example"`)) {
		t.Errorf("body %s", r.body)
	}
	if !strings.Contains(log.String(), "fn=initiateAuthentication") {
		t.Errorf("log %q", &log)
	}
}

// The transactionId goes back as the server spelled it, and another id as the
// specification does.
func TestTransactionIDSpelling(t *testing.T) {
	srv := startServer(t, nil)
	srv.good()
	s := open(t, srv.client(t))
	for _, c := range calls[:2] {
		if err := c.call(t.Context(), s); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.CancelSession(t.Context(), []byte{0xAB}, cancelResponse); err != nil {
		t.Fatal(err)
	}
	requests, _ := srv.seen()
	for i, want := range []string{`"transactionId":"0a1B2c3D"`, `"transactionId":"AB"`} {
		if !bytes.Contains(requests[i+1].body, []byte(want)) {
			t.Errorf("request %d: %s, want %s", i+1, requests[i+1].body, want)
		}
	}
}

func TestAddress(t *testing.T) {
	for _, address := range []string{"", "https://smdp.example.com", "smdp.example.com:443", "smdp.example.com/x", "192.0.2.1", "[2001:db8::1]", "a..b", "smdp_1.example.com", "smdp.exämple.com"} {
		_, err := (&es9p.Client{}).Open(address)
		var e *es9p.AddressError
		if !errors.As(err, &e) {
			t.Errorf("%q: error %v, want *AddressError", address, err)
			continue
		}
		checkFault(t, err, "server-address-invalid", false)
	}
	for in, want := range map[string]string{" a b.example ": "ab.example", "a.example.": "a.example", "A.Example": "A.Example"} {
		if got := es9p.BareAddress(in); got != want {
			t.Errorf("bareAddress(%q) = %q, want %q", in, got, want)
		}
	}
}

func TestAddresses(t *testing.T) {
	srv := startServer(t, nil)
	srv.good()
	c := srv.client(t)
	c.Dial = nil
	c.Addresses = map[string]string{host: srv.Listener.Addr().String()}
	if err := calls[0].call(t.Context(), open(t, c)); err != nil {
		t.Error(err)
	}
	// Over the loopback interface the same works, over one that is not there not.
	c.Interface = "lo"
	if err := calls[0].call(t.Context(), open(t, c)); err != nil {
		t.Error(err)
	}
	c.Interface = "none0"
	checkFault(t, calls[0].call(t.Context(), open(t, c)), "interface-missing", true)
}
