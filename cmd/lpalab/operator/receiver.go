package operator

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"time"

	"lpad/agent/rsp"
)

// Report is what a device tells of the end of a job, as docs/operations.md
// describes it.
type Report struct {
	Version int    `json:"version"`
	Seq     int64  `json:"seq"`
	EID     string `json:"eid"`
	IMEI    string `json:"imei"`
	Job     string `json:"job"`
	Kind    string `json:"kind"`
	Outcome string `json:"outcome"`
	ICCID   string `json:"iccid"`
	APN     string `json:"apn"`
	Source  string `json:"apn_source"`
	Fault   *struct {
		Code  string `json:"code"`
		Text  string `json:"text"`
		State string `json:"state"`
	} `json:"fault"`

	Parameters []Value   `json:"parameters"`
	AppliedAt  time.Time `json:"applied_at"`
	Activation int64     `json:"activation"` // number of the notification of the activation
}

// Value is one parameter of a report.
type Value struct {
	Leaf   string          `json:"leaf"`
	Value  json.RawMessage `json:"value"`
	Source string          `json:"source"`
	Rank   json.RawMessage `json:"rank"`
	State  string          `json:"state"`
}

// Limits of the receiver.
const (
	maxReport      = 256 << 10 // bytes
	maxKey         = 128       // characters of an Idempotency-Key
	receiveTimeout = 10 * time.Second
	reportPath     = "/reports/"
)

// parseReport reads a report.
func parseReport(b []byte) (r Report, err error) {
	if err := json.Unmarshal(b, &r); err != nil {
		return Report{}, fmt.Errorf("report: %w", err)
	}
	switch {
	case r.Version != 1:
		return Report{}, fmt.Errorf("report: version %d", r.Version)
	case r.Job == "" || r.Outcome == "":
		return Report{}, errors.New("report: no job, or no outcome")
	}
	if r.ICCID != "" {
		if _, err := rsp.ParseICCID(r.ICCID); err != nil {
			return Report{}, fmt.Errorf("report: %w", err)
		}
	}
	return r, nil
}

// reportTo is the address of the reports of a process.
func (s *Server) reportTo(token string) string {
	host := s.config.Host
	if s.config.Port != 443 {
		host = net.JoinHostPort(host, fmt.Sprint(s.config.Port))
	}
	return "https://" + host + reportPath + token
}

// ServeHTTP receives reports. Each process has an address of its own, which
// only the device knows that its orders were made for.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	token, ok := strings.CutPrefix(r.URL.Path, reportPath)
	if !ok || token == "" {
		http.NotFound(w, r)
		return
	}
	if r.Method != http.MethodPost {
		http.Error(w, "POST", http.StatusMethodNotAllowed)
		return
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxReport))
	if err != nil {
		http.Error(w, "too large", http.StatusRequestEntityTooLarge)
		return
	}
	report, err := parseReport(body)
	if err != nil {
		http.Error(w, err.Error(), http.StatusUnprocessableEntity)
		return
	}
	var peer netip.Addr
	if p, err := netip.ParseAddrPort(r.RemoteAddr); err == nil {
		peer = p.Addr().Unmap()
	}
	w.WriteHeader(s.take(token, r.Header.Get("Idempotency-Key"), peer, report))
}

// take files a report and returns the status for it.
func (s *Server) take(token, key string, peer netip.Addr, r Report) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	var p *process
	for _, other := range s.processes {
		if other.token == token {
			p = other
		}
	}
	switch {
	case p == nil:
		return http.StatusNotFound
	case r.EID != "" && r.EID != p.Terminal.EID.String():
		return http.StatusForbidden
	case key == "" || len(key) > maxKey:
		return http.StatusBadRequest
	case s.seen[key]:
		return http.StatusConflict
	case len(s.seen) >= maxKeys || len(p.reports) >= maxReports:
		return http.StatusServiceUnavailable
	}
	s.seen[key] = true
	p.reports = append(p.reports, r)
	text := fmt.Sprintf("%s reported: %s", r.Kind, r.Outcome)
	if r.Fault != nil {
		text += ", " + r.Fault.Code
	}
	if r.Outcome == outcomeDone && r.Kind == actionEnable {
		text += fmt.Sprintf(", %d parameters, APN %q", len(r.Parameters), r.APN)
	}
	s.writeLocked(Entry{What: Reported, Process: p.ID, Peer: peer, ICCID: r.ICCID, Seq: r.Activation, Text: text})
	close(s.changed)
	s.changed = make(chan struct{})
	return http.StatusNoContent
}

// maxReports bounds the reports of one process.
const maxReports = 32

// Serve receives reports on l until ctx ends.
func (s *Server) Serve(ctx context.Context, l net.Listener) error {
	server := &http.Server{Handler: s, ReadTimeout: receiveTimeout, WriteTimeout: receiveTimeout, MaxHeaderBytes: 16 << 10,
		ErrorLog: log.New(io.Discard, "", 0)} // clients that distrust the certificate on purpose
	stop := context.AfterFunc(ctx, func() {
		// What is left of connections when this fails is gone with the process.
		if err := server.Close(); err != nil {
			server.ErrorLog.Print(err)
		}
	})
	defer stop()
	err := server.Serve(tls.NewListener(l, &tls.Config{Certificates: []tls.Certificate{s.tls}, MinVersion: tls.VersionTLS12, NextProtos: []string{"http/1.1"}}))
	if ctx.Err() != nil && errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return fmt.Errorf("receive reports: %w", err)
}

// Validity of the certificates: wide, for devices without a clock.
var (
	notBefore = time.Date(2020, 1, 1, 0, 0, 0, 0, time.UTC)
	notAfter  = time.Date(2049, 12, 31, 23, 59, 59, 0, time.UTC)
)

// certify makes an authority, as PEM, and a certificate of it for a host.
func certify(host string) (authority []byte, _ tls.Certificate, err error) {
	fail := func(err error) ([]byte, tls.Certificate, error) {
		return nil, tls.Certificate{}, fmt.Errorf("certificate of %s: %w", host, err)
	}
	caKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return fail(err)
	}
	ca := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "lpad lab operator CA"}, NotBefore: notBefore, NotAfter: notAfter,
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}
	caDER, err := x509.CreateCertificate(rand.Reader, ca, ca, &caKey.PublicKey, caKey)
	if err != nil {
		return fail(err)
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return fail(err)
	}
	leaf := &x509.Certificate{SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: host}, DNSNames: []string{host}, NotBefore: notBefore, NotAfter: notAfter,
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}}
	der, err := x509.CreateCertificate(rand.Reader, leaf, ca, &key.PublicKey, caKey)
	if err != nil {
		return fail(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: caDER}), tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, nil
}
