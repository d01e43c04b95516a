// Package operator is a reference operator server: what an operator, or the
// owner of a fleet, runs at the other end of lpad's signed orders. It has a
// registry of profiles and one of terminal parameters by kind of terminal,
// composes and signs orders, hands them to devices, hears of profiles that were
// loaded and activated at the SM-DP+, and gets the devices' reports by HTTPS.
//
//	s, err := operator.New(operator.Config{Name: "operator", Host: "operator.example", SMDP: smdp})
//	err = s.AddProfile(operator.Profile{ICCID: iccid, Plan: "IoT 2026", Order: order})
//	s.AddParameters(operator.Parameters{Plan: "IoT 2026", TAC: "35693803", Document: document})
//	configuration, err := s.Enrol(dir)             // of lpad: whose orders it takes, whom its reports may reach
//	s.Serve(listener)                              // reports
//	p, err := s.Provision(ctx, operator.Request{Terminal: terminal, Plan: "IoT 2026", Link: operator.Socket(client)})
//
// [Server.Provision] is the founding flow as the server sees it: it orders the
// installation of a profile with its parameters, waits for the SM-DP+ to hear
// that it was loaded, orders the activation (at once, at a time, or on command),
// and waits for the notification of the activation and for the report of the
// parameters. What the device refuses, or what fails, suspends the process.
//
// [Flow] runs all of that on a device of the lab, and [Story.Check] holds what
// server, daemon and modem have written down against the order that the product
// is for.
//
// Nothing here uses the product's own code for what it checks: the orders are
// composed by the form that docs/operations.md describes.
package operator

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"sync"
	"time"

	"lpad/agent/orders/orderstest"
	"lpad/agent/rsp/rsptest/smdp"
)

// SMDP is the operator's link to its SM-DP+ (ES2+); [smdp.Server] is one.
type SMDP interface {
	AddOrder(smdp.Order) error
	ActivationCode(matchingID string) string
	// WaitNotification waits for the first notification of the log that is wanted.
	WaitNotification(ctx context.Context, wanted func(smdp.Notification) bool) (smdp.Notification, error)
}

// Link takes orders to a device.
type Link interface {
	// Submit hands a signed order over and returns the device's name of the job.
	// An error is a device that does not take it.
	Submit(ctx context.Context, order []byte) (job string, err error)
}

// Config describes a server.
type Config struct {
	Name string // issuer of its orders, and the name of its key on devices
	Host string // that devices send reports to; they must be able to resolve it
	Port int    // the same; 0: 443
	SMDP SMDP
	Now  func() time.Time // nil: time.Now
	// Answer is how long a device may take for each thing that is waited for; 0:
	// two minutes.
	Answer time.Duration
	// SMDPKey is the key of the SM-DP+ (CERT.DPauth). With it the SM-DP+ signs the
	// orders to install, which the device then checks by the certificate that its
	// eUICC has accepted; nil: the operator signs them with its own.
	SMDPKey *ecdsa.PrivateKey
	// Validity is how long an order may be taken after it was signed; 0: an hour.
	Validity time.Duration
}

// Server is an operator server. It may be used by several goroutines and holds
// all its state in memory.
type Server struct {
	config    Config
	key       *ecdsa.PrivateKey // signs orders
	authority []byte            // PEM: of the receiver of reports
	tls       tls.Certificate

	mu         sync.Mutex
	profiles   []*Profile
	parameters []*Parameters
	processes  []*process
	serial     int64 // of the last order
	record     []Entry
	seen       map[string]bool // keys of reports
	changed    chan struct{}   // closed and replaced when a report has come
}

// Entry is one line of the server's own record.
type Entry struct {
	At      time.Time
	What    What
	Process int        // of this process
	Peer    netip.Addr // whence it came over the network; zero: not over the network
	ICCID   string
	Seq     int64  // of the notification, or the serial of the order
	Text    string // for people; no secrets
}

// What is the kind of an entry.
type What string

// The entries.
const (
	Requested         What = "request"            // a profile and parameters were chosen for a terminal
	OrderSigned       What = "order"              // the order to install was composed and signed
	OrderTaken        What = "taken"              // the device has taken an order and made a job of it
	ProfileLoaded     What = "loaded"             // the SM-DP+ has heard of the installation
	ActivationOrdered What = "activation-request" // the order to enable was composed and signed
	ProfileActivated  What = "activated"          // the SM-DP+ has heard of the activation
	Reported          What = "report"             // a device has reported the end of a job
	Finished          What = "done"
	SuspendedEntry    What = "suspended"
)

// Bounds of what a server keeps.
const (
	maxRecord    = 10_000
	maxProcesses = 1000
	maxKeys      = 10_000
)

// New makes a server with a fresh key and an authority of its own.
func New(c Config) (*Server, error) {
	if c.Name == "" || c.Host == "" || c.SMDP == nil {
		return nil, errors.New("operator server: no name, host or SM-DP+")
	}
	if c.Port == 0 {
		c.Port = 443
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Answer == 0 {
		c.Answer = 2 * time.Minute
	}
	if c.Validity == 0 {
		c.Validity = time.Hour
	}
	s := &Server{config: c, seen: map[string]bool{}, changed: make(chan struct{})}
	var err error
	if s.key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader); err != nil {
		return nil, fmt.Errorf("operator server: %w", err)
	}
	s.authority, s.tls, err = certify(c.Host)
	return s, err
}

// Enrol writes what makes a device one of this operator's into dir, and returns
// lpad's configuration of it: the key that orders are signed with, and the
// authority of the receiver of reports. Every order to install must be signed
// there, and nobody is asked for consent.
func (s *Server) Enrol(dir string) (string, error) {
	public, err := orderstest.PublicPEM(s.key)
	if err != nil {
		return "", fmt.Errorf("enrol a device: %w", err)
	}
	keys, ca := filepath.Join(dir, "operators.d"), filepath.Join(dir, "reports.pem")
	if err := os.MkdirAll(keys, 0o755); err != nil {
		return "", fmt.Errorf("enrol a device: %w", err)
	}
	err = errors.Join(os.WriteFile(filepath.Join(keys, s.config.Name+".pem"), public, 0o644), os.WriteFile(ca, s.authority, 0o644))
	if err != nil {
		return "", fmt.Errorf("enrol a device: %w", err)
	}
	return fmt.Sprintf("orders: {keys_dir: %s, require: all}\nreports: {ca: %s}\nrsp: {consent: auto}\n", keys, ca), nil
}

// write puts a line into the record.
func (s *Server) write(e Entry) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.writeLocked(e)
}

func (s *Server) writeLocked(e Entry) {
	if e.At.IsZero() {
		e.At = s.config.Now()
	}
	if s.record = append(s.record, e); len(s.record) > maxRecord {
		s.record = s.record[1:]
	}
}

// Record is what the server has written down, oldest first.
func (s *Server) Record() []Entry {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]Entry(nil), s.record...)
}
