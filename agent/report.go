package agent

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"

	"lpad/agent/relay"
	"lpad/agent/rsp/es9p"
	"lpad/agent/runner"
	"lpad/config"
	"lpad/internal/fault"
	"lpad/internal/smallfile"
	"lpad/modem"
)

// Limits of one try to deliver a report.
const (
	reportDial      = 10 * time.Second // also for the try over the link of the switch, before the one over any
	maxReportAnswer = 4 << 10          // bytes that are read of an answer, of which nothing is looked at
	maxReportCA     = 256 << 10        // bytes of the file of authorities
)

// reporter sends reports of jobs; see runner.Reporter. Its receivers are not
// eSIM servers: they are verified by the system's roots, or by the file of the
// configuration alone.
type reporter struct {
	ca        string            // PEM file; empty: the system's roots
	addresses map[string]string // host -> "ip:port", for test setups
	timeout   time.Duration
	device    *deviceSource
	backend   func() string
	clock     *clock
	relay     *relay.Station
	log       *slog.Logger
}

// About tells what is known without asking.
func (r *reporter) About() runner.About {
	_, source := r.clock.now()
	a := r.device.told()
	a.Backend, a.Clock = r.backend(), source
	return a
}

// Report posts a report, over the link if there is one, and if that has no way
// to the receiver, over any.
func (r *reporter) Report(ctx context.Context, to, key string, body []byte, link modem.Link) (time.Duration, error) {
	if _, source := r.clock.now(); source == "" {
		return 0, runner.ErrClockNotSet
	}
	after, err := r.post(ctx, to, key, body, link.Interface)
	var unreached *es9p.TransportError
	if link.Interface != "" && errors.As(err, &unreached) && ctx.Err() == nil {
		r.log.Debug("report not delivered over the link of the switch", "interface", link.Interface, "err", err)
		after, err = r.post(ctx, to, key, body, "")
	}
	return after, err
}

func (r *reporter) post(ctx context.Context, to, key string, body []byte, device string) (time.Duration, error) {
	u, err := url.Parse(to)
	if err != nil {
		return 0, reportError(0, errors.New("the address is malformed")) // not the error: it quotes the address
	}
	roots, err := r.roots()
	if err != nil {
		return 0, err
	}
	if device != "" {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, reportDial)
		defer cancel()
	} else if r.timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, r.timeout)
		defer cancel()
	}
	var http1 http.Protocols
	http1.SetHTTP1(true)
	dial := dialer(r.relay, device, r.log)
	transport := &http.Transport{
		Protocols: &http1, DisableKeepAlives: true, DisableCompression: true, MaxResponseHeaderBytes: maxReportAnswer,
		TLSClientConfig: &tls.Config{RootCAs: roots, Time: r.clock.Now, MinVersion: tls.VersionTLS12},
		DialContext: func(_ context.Context, network, address string) (net.Conn, error) { // the transport's own has no end
			if other := r.addresses[strings.ToLower(u.Hostname())]; other != "" {
				address = other
			}
			return dial(ctx, network, address)
		},
	}
	defer transport.CloseIdleConnections()
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, to, bytes.NewReader(body))
	if err != nil {
		return 0, reportError(0, errors.New("the address is malformed"))
	}
	request.Header.Set("Content-Type", "application/json")
	request.Header.Set("User-Agent", "lpad")
	request.Header.Set("Idempotency-Key", `"`+key+`"`)
	// RoundTrip and not http.Client: a receiver that points elsewhere is not the
	// one that was named.
	answer, err := transport.RoundTrip(request)
	if err != nil {
		return 0, r.explain(u.Hostname(), err)
	}
	_, err = io.Copy(io.Discard, io.LimitReader(answer.Body, maxReportAnswer))
	err = errors.Join(err, answer.Body.Close())
	switch s := answer.StatusCode; {
	case s >= 200 && s < 300, s == http.StatusConflict: // the receiver has it already
		if err != nil { // it has said so all the same
			r.log.Debug("answer to a report not read to its end", "err", err)
		}
		return 0, nil
	default:
		return es9p.RetryAfter(answer.Header.Get("Retry-After"), r.clock.Now()), reportError(s, nil)
	}
}

// roots are the authorities of the configuration, nil for the system's. The
// file is read each time, which is seldom: one that is mended counts at once.
func (r *reporter) roots() (*x509.CertPool, error) {
	if r.ca == "" {
		return nil, nil
	}
	text, err := smallfile.Read(r.ca, maxReportCA)
	pool := x509.NewCertPool()
	if err == nil && !pool.AppendCertsFromPEM(text) {
		err = errors.New("it holds no PEM certificate")
	}
	if err != nil {
		return nil, fault.New(fault.Fault{Code: "report-ca-unreadable", Text: "the authorities for receivers of reports cannot be read", Retry: true, Who: fault.Configuration,
			Next: "put a file of PEM certificates where reports.ca says"}, err)
	}
	return pool, nil
}

// explain sorts an error of the transport.
func (r *reporter) explain(host string, err error) error {
	var foreign *tls.CertificateVerificationError
	if errors.As(err, &foreign) {
		return fault.New(fault.Fault{Code: "report-certificate-refused", Text: "the certificate of the receiver of reports is not acceptable", Retry: true, Who: fault.Configuration,
			Next: "put its authority into the file that reports.ca names, or give the receiver a certificate that the system trusts"}, err)
	}
	var own fault.Explainer
	if errors.As(err, &own) { // of the relay
		return fmt.Errorf("report to %s: %w", host, err)
	}
	return &es9p.TransportError{Function: "report", Host: host, Err: err}
}

// reportError is a status other than success.
func reportError(status int, cause error) error {
	if cause == nil {
		cause = fmt.Errorf("HTTP status %d", status)
	}
	if status == http.StatusRequestTimeout || status == http.StatusTooEarly || status == http.StatusTooManyRequests || status >= 500 {
		return fault.New(fault.Fault{Code: "report-receiver-unavailable", Text: "the receiver of reports is overloaded or out of order", Retry: true, Who: fault.Operator,
			Next: "wait; it is tried again by itself"}, cause)
	}
	return fault.New(fault.Fault{Code: runner.CodeReportRefused, Text: "the receiver refuses the report", Who: fault.Operator,
		Next: "look at the receiver and its address; then send the report again, or drop it: lpactl notifications replay or drop, with the job's id"}, cause)
}

// checkReportTo refuses a receiver that an order names and that cannot be one.
func checkReportTo(to string) error {
	if to == "" {
		return nil
	}
	if err := config.CheckReportURL(to); err != nil {
		return badRequest("report_to "+err.Error(), nil)
	}
	return nil
}
