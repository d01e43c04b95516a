package es9p

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"time"
)

const (
	maxAnswerHeader = 32 << 10       // bytes of HTTP header
	maxErrorBody    = 16 << 10       // bytes of the body of an HTTP error that are looked at
	maxRetryAfter   = 24 * time.Hour // a server that asks for more is not believed
	contentType     = "application/json"
)

// function is one ES9+ function and its bounds.
type function struct {
	name    string
	timeout time.Duration
	limit   int64
}

// errClosed is the cause of every failure after Close.
var errClosed = errors.New("the session is closed")

func (s *Session) newTransport() *http.Transport {
	var http1 http.Protocols
	http1.SetHTTP1(true)
	return &http.Transport{
		DialTLSContext:         s.dialTLS,
		Protocols:              &http1,
		MaxConnsPerHost:        1, // one connection per session, and it stays
		MaxIdleConnsPerHost:    1,
		MaxResponseHeaderBytes: maxAnswerHeader,
		DisableCompression:     true, // signed and encrypted bytes do not shrink
		Proxy:                  nil,  // the environment's proxy is for the web
	}
}

// callKey finds the context of the call in the context of its dial: the
// transport goes on dialling when a call is cancelled, this package does not.
type callKey struct{}

// dialTLS connects, shakes hands and verifies the server.
func (s *Session) dialTLS(ctx context.Context, network, _ string) (net.Conn, error) {
	if call, ok := ctx.Value(callKey{}).(context.Context); ok {
		ctx = call
	}
	s.dials.Add(1)
	address := net.JoinHostPort(s.host, port)
	if other := s.client.Addresses[s.host]; other != "" {
		address = other
	}
	dialCtx, cancel := context.WithTimeout(ctx, s.client.Timeouts.Dial)
	defer cancel()
	conn, err := s.client.Dial(dialCtx, network, address)
	if err != nil {
		return nil, err
	}
	shakeCtx, cancel := context.WithTimeout(ctx, s.client.Timeouts.Handshake)
	defer cancel()
	tlsConn := tls.Client(conn, s.tlsConfig())
	if err := tlsConn.HandshakeContext(shakeCtx); err != nil {
		conn.Close() // the error of the handshake is the one that counts
		return nil, err
	}
	return tlsConn, nil
}

func (s *Session) tlsConfig() *tls.Config {
	return &tls.Config{
		ServerName: s.host,
		MinVersion: tls.VersionTLS12,
		// The verification of crypto/tls knows one kind of "no" and one list of
		// roots. VerifyConnection below makes every check of it, against GSMA
		// CIs, and names the one that failed.
		InsecureSkipVerify: true,
		VerifyConnection: func(state tls.ConnectionState) error {
			return s.client.Trust.verify(state.PeerCertificates, s.host, s.client.Now(), s.onlyCIs)
		},
		// No post-quantum key share: it makes the hello two packets long, over
		// which old servers and mobile middleboxes stumble.
		CurvePreferences: []tls.CurveID{tls.CurveP256, tls.X25519, tls.CurveP384},
		// The TLS 1.2 suites of the standard library, and the CBC suite that
		// SGP.22 makes mandatory for servers.
		CipherSuites: []uint16{
			tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256, tls.TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
			tls.TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,
			tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256, tls.TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
			tls.TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
			tls.TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA256,
		},
		SessionTicketsDisabled: true,
	}
}

// answer is an HTTP answer, read whole.
type answer struct {
	status int
	body   []byte
}

// post sends one request and reads its answer: one attempt. The error is one
// of the types of this package, or the context's.
func (s *Session) post(ctx context.Context, f function, request any) (answer, error) {
	body, err := json.Marshal(request)
	if err != nil {
		return answer{}, fmt.Errorf("%s: %w", f.name, err)
	}
	var call context.Context
	var cancel context.CancelFunc
	if s.client.Transport == nil {
		call, cancel = context.WithTimeout(ctx, f.timeout)
	} else {
		call, cancel = context.WithCancel(ctx)
	}
	defer cancel()
	stop := context.AfterFunc(s.closed, cancel)
	defer stop()

	start := time.Now()
	a, err := s.exchange(call, f, body)
	s.client.Log.Debug("es9+ call", "fn", f.name, "host", s.host, "duration", time.Since(start),
		"sent", len(body), "received", len(a.body), "status", a.status, "err", err)
	switch {
	case err == nil:
		return a, nil
	case s.closed.Err() != nil:
		return answer{}, fmt.Errorf("%s at %s: %w", f.name, s.host, errClosed)
	case ctx.Err() != nil:
		return answer{}, fmt.Errorf("%s at %s: %w", f.name, s.host, context.Cause(ctx))
	}
	return answer{}, s.explain(f, err)
}

// exchange is post without the time limit and the sorting of errors.
func (s *Session) exchange(ctx context.Context, f function, body []byte) (answer, error) {
	ctx = context.WithValue(ctx, callKey{}, ctx)
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, "https://"+s.host+path+"/"+f.name, bytes.NewReader(body))
	if err != nil {
		return answer{}, err
	}
	r.Header.Set("User-Agent", s.client.UserAgent)
	r.Header.Set("X-Admin-Protocol", s.client.Protocol)
	r.Header.Set("Content-Type", contentType)
	// RoundTrip and not http.Client: redirects and cookies have no place here.
	var through http.RoundTripper = s.transport
	if s.client.Transport != nil {
		through = s.client.Transport
	}
	resp, err := through.RoundTrip(r)
	if err != nil {
		return answer{}, err
	}
	a, err := readAnswer(f, resp, s.client.Now())
	closeErr := resp.Body.Close()
	if err == nil && closeErr != nil {
		err = closeErr
	}
	return a, err
}

// readAnswer reads the body within its limit. A status that is none of success
// is an error, the server's own one if the body holds it.
func readAnswer(f function, resp *http.Response, now time.Time) (answer, error) {
	a := answer{status: resp.StatusCode}
	if !ackStatus(a.status) {
		body, err := io.ReadAll(io.LimitReader(resp.Body, maxErrorBody))
		var refusal *Error
		if err == nil && errors.As(decode(f.name, body, &struct{ envelope }{}), &refusal) {
			return a, refusal
		}
		return a, &HTTPError{Function: f.name, Status: a.status, RetryAfter: retryAfter(resp.Header.Get("Retry-After"), now)}
	}
	if encoding := resp.Header.Get("Content-Encoding"); encoding != "" && !strings.EqualFold(encoding, "identity") {
		return a, &AnswerError{Function: f.name, Detail: "the body is compressed, which was not asked for"}
	}
	if resp.ContentLength > f.limit {
		return a, tooLarge(f)
	}
	var buf bytes.Buffer
	if resp.ContentLength > 0 {
		buf.Grow(int(resp.ContentLength) + bytes.MinRead) // one allocation, no doubling
	}
	n, err := buf.ReadFrom(io.LimitReader(resp.Body, f.limit+1))
	if err != nil {
		return a, err
	}
	if n > f.limit {
		return a, tooLarge(f)
	}
	a.body = buf.Bytes()
	return a, nil
}

func tooLarge(f function) error {
	return &AnswerError{Function: f.name, Detail: fmt.Sprintf("the body is longer than %d bytes", f.limit)}
}

// RetryAfter reads the header of that name: how long to wait from now, at most a
// day; 0 if it says nothing.
func RetryAfter(text string, now time.Time) time.Duration { return retryAfter(text, now) }

// retryAfter reads the header of that name: seconds or a date (RFC 9110,
// section 10.2.3). Anything else is 0.
func retryAfter(text string, now time.Time) time.Duration {
	text = strings.TrimSpace(text)
	var d time.Duration
	if seconds, err := strconv.ParseUint(text, 10, 31); err == nil {
		d = time.Duration(seconds) * time.Second
	} else if at, err := http.ParseTime(text); err == nil {
		d = at.Sub(now)
	}
	return min(max(d, 0), maxRetryAfter)
}
