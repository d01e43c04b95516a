package es9p

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptrace"
	"sync/atomic"
	"time"
)

// Forwarded is a server's answer as it came.
type Forwarded struct {
	Status     int           // of HTTP
	RetryAfter time.Duration // what the server asked for; 0 if nothing; at most a day
	Body       []byte        // bounded by [Limits]
}

// Forward takes the request of another client to the server and brings the
// answer back, whatever it says: for devices that cannot ask themselves. Bounds,
// and whom the session believes, are the same as for requests of its own. body is
// neither read nor changed. The error tells why there is no answer; sent reports
// whether the server may have seen the request all the same.
func (s *Session) Forward(ctx context.Context, name string, body []byte) (a Forwarded, sent bool, err error) {
	f := s.function(name)
	if name == "getBoundProfilePackage" {
		f.timeout, f.limit = s.client.Timeouts.BoundProfilePackage, s.client.Limits.BoundProfilePackage
	}
	var begun atomic.Bool
	call, cancel := context.WithTimeout(ctx, f.timeout)
	defer cancel()
	call = httptrace.WithClientTrace(call, &httptrace.ClientTrace{WroteHeaders: func() { begun.Store(true) }})
	call = context.WithValue(call, callKey{}, call)
	r, err := http.NewRequestWithContext(call, http.MethodPost, "https://"+s.host+path+"/"+f.name, bytes.NewReader(body))
	if err != nil {
		return a, false, err
	}
	r.Header.Set("User-Agent", s.client.UserAgent)
	r.Header.Set("X-Admin-Protocol", s.client.Protocol)
	r.Header.Set("Content-Type", contentType)
	resp, err := s.transport.RoundTrip(r)
	if err != nil {
		return a, begun.Load(), s.explain(f, err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(io.LimitReader(resp.Body, f.limit+1))
	switch {
	case err != nil:
		return a, true, s.explain(f, err)
	case int64(len(b)) > f.limit:
		return a, true, fmt.Errorf("%s: %w", f.name, tooLarge(f))
	}
	return Forwarded{resp.StatusCode, retryAfter(resp.Header.Get("Retry-After"), s.client.Now()), b}, true, nil
}
