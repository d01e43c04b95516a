package es9p_test

import (
	"context"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"lpad/agent/rsp/es9p"
	"lpad/internal/fault"
)

// roundTrip is a transport.
type roundTrip func(*http.Request) (*http.Response, error)

func (f roundTrip) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// A session over another transport asks what it would ask a server, and what
// Forward brings back is what it would have got. Nobody measures its time.
func TestForward(t *testing.T) {
	s := startServer(t, nil)
	s.good()
	s.answers["authenticateClient"] = reply(200, refusedMatching)
	s.answers["handleNotification"] = func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Retry-After", "90")
		w.WriteHeader(503)
	}
	carrier := open(t, s.client(t))
	var bodies []string
	device := open(t, &es9p.Client{Timeouts: es9p.TimeoutsFor(time.Nanosecond), Transport: roundTrip(func(r *http.Request) (*http.Response, error) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			return nil, err
		}
		bodies = append(bodies, string(body))
		a, sent, err := carrier.Forward(r.Context(), strings.TrimPrefix(r.URL.Path, "/gsma/rsp2/es9plus/"), body)
		if err != nil || !sent {
			t.Errorf("sent %v, %v", sent, err)
			return nil, err
		}
		h := http.Header{}
		if a.RetryAfter > 0 {
			h.Set("Retry-After", a.RetryAfter.String()) // any text
		}
		return &http.Response{StatusCode: a.Status, Header: h, Body: io.NopCloser(strings.NewReader(string(a.Body))), ContentLength: int64(len(a.Body))}, nil
	})})
	if _, err := device.InitiateAuthentication(t.Context(), challenge, info1); err != nil {
		t.Error(err)
	}
	_, err := device.AuthenticateClient(t.Context(), transactionID, authServer)
	if fault.Of(err).Code != "matching-id-refused" {
		t.Errorf("refusal: %v", err)
	}
	if _, err := device.GetBoundProfilePackage(t.Context(), transactionID, prepareDownload); err != nil {
		t.Error(err)
	}
	var busy *es9p.HTTPError
	if err := device.HandleNotification(t.Context(), installResult); !errors.As(err, &busy) || busy.Status != 503 {
		t.Errorf("unavailable: %v", err)
	}
	if a, _, err := carrier.Forward(t.Context(), "handleNotification", []byte("{}")); err != nil || a.RetryAfter != 90*time.Second {
		t.Errorf("%+v %v", a, err)
	}
	seen, connections := s.seen()
	if connections != 1 || len(seen) != len(bodies)+1 {
		t.Fatalf("%d requests over %d connections", len(seen), connections)
	}
	for i, body := range bodies {
		r := seen[i]
		if string(r.body) != body || r.Header.Get("X-Admin-Protocol") != es9p.DefaultProtocol || r.Header.Get("User-Agent") != es9p.DefaultUserAgent {
			t.Errorf("request %d: %s %v", i, r.body, r.Header)
		}
	}
}

// Forward believes no other servers than a session does, and tells whether the
// server may have seen the request.
func TestForwardFails(t *testing.T) {
	s := startServer(t, nil)
	s.good()
	c := s.client(t)
	c.Trust = nil
	_, sent, err := open(t, c).Forward(t.Context(), "initiateAuthentication", nil)
	if fault.Of(err).Code != es9p.CertificateForeign || sent {
		t.Errorf("a server of nobody: sent %v, %v", sent, err)
	}
	s.answers["initiateAuthentication"] = func(w http.ResponseWriter, _ *http.Request) {
		c, _, err := http.NewResponseController(w).Hijack()
		if err == nil {
			err = c.Close()
		}
		if err != nil {
			t.Error(err)
		}
	}
	_, sent, err = open(t, s.client(t)).Forward(t.Context(), "initiateAuthentication", nil)
	if fault.Of(err).Code != "connection-lost" || !sent {
		t.Errorf("a lost answer: sent %v, %v", sent, err)
	}
	s.answers["initiateAuthentication"] = reply(200, strings.Repeat("x", 100))
	long := s.client(t)
	long.Limits.Other = 99
	_, sent, err = open(t, long).Forward(t.Context(), "initiateAuthentication", nil)
	if fault.Of(err).Code != "server-answer-invalid" || !sent {
		t.Errorf("a long answer: sent %v, %v", sent, err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, sent, err := open(t, s.client(t)).Forward(ctx, "initiateAuthentication", nil); err == nil || sent {
		t.Errorf("an ended context: sent %v, %v", sent, err)
	}
}
