package smdp

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"time"

	"lpad/agent/rsp"
	"lpad/agent/rsp/rsptest/pki"
)

// Credential is the pair of certificates of a server under one CI.
type Credential struct {
	Auth *pki.Identity // CERT.DPauth, or CERT.DSauth of an SM-DS
	Pb   *pki.Identity // CERT.DPpb; nil for an SM-DS
}

// Config says what a server is. Address, Credentials and CIs are needed.
type Config struct {
	SMDS        bool               // an SM-DS instead of an SM-DP+
	Address     string             // FQDN that clients must name in smdpAddress; case does not matter
	Credentials []Credential       // in order of preference
	CIs         []*pki.Certificate // roots under which eUICCs are accepted
	HostID      string             // hostId of the key agreement, 1 to 16 bytes; "lpad-test" when empty

	TransactionIDLength int         // bytes, 1 to 16; 0 means 16
	MinSVN              rsp.Version // oldest eUICC accepted; 2.0.0 when zero. One that speaks nothing below 3.0.0 is not
	CheckMemory         bool        // refuse an eUICC with less free memory than the profile has bytes
	AssumeCI            bool        // an eUICC that lists no CI at all is taken to know all of ours, as in the recorded session

	NotificationStatus int  // HTTP status of handleNotification; 204 when zero
	NotificationFailed bool // answer handleNotification with 200 and a status Failed

	SessionTimeout time.Duration // of a session from initiateAuthentication; 10 minutes when zero

	// Inputs that a test may fix. Without them: the clock, crypto/rand.
	Now             func() time.Time
	Random          io.Reader
	TransactionID   func() rsp.TransactionID
	ServerChallenge func() [16]byte
	OneTimeKey      func(pki.Curve) (*pki.Key, error)
}

// ConfigUnder is a configuration for an SM-DP+ with the certificates of a PKI,
// which accepts the eUICCs under the CI of it; the caller fills in the rest.
func ConfigUnder(p *pki.PKI, address string) Config {
	return Config{
		Address:     address,
		Credentials: []Credential{{Auth: p.DPAuth, Pb: p.DPPb}},
		CIs:         []*pki.Certificate{p.CI.Certificate},
	}
}

// Limits that keep a server that runs for days small.
const (
	maxSessions = 1024
	maxLog      = 10_000 // calls, notifications and connections that are remembered
	maxBody     = 4 << 20
)

// Server is an SM-DP+ or SM-DS. It implements http.Handler.
type Server struct {
	config Config
	mux    *http.ServeMux
	done   chan struct{} // closed by Close: ends stalls

	mu            sync.Mutex
	closed        bool
	sessions      map[string]*session // by transactionId, raw bytes
	orders        []*order
	events        []Event
	eUICCs        map[string]*eUICC // by transactionId and by ICCID: who signs a ProfileInstallationResult
	faults        []*Fault
	notifications []Notification
	changed       chan struct{} // closed and replaced when a notification arrives
	calls         []Call
	connections   []*Connection
	byPeer        map[string]*Connection // the open ones, by remote address
	accepted      int
}

// eUICC is what remains of an eUICC after its session: its results are signed
// without a certificate.
type eUICC struct {
	eid         rsp.EID
	certificate *pki.Certificate
	order       *order
}

// New makes a server. It listens nowhere until it is served.
func New(c Config) (*Server, error) {
	switch {
	case c.Address == "":
		return nil, errors.New("test server: no address")
	case len(c.Credentials) == 0 || len(c.CIs) == 0:
		return nil, errors.New("test server: no certificates")
	case len(c.HostID) > 16:
		return nil, errors.New("test server: hostId over 16 bytes")
	case c.TransactionIDLength < 0 || c.TransactionIDLength > 16:
		return nil, fmt.Errorf("test server: transactionId of %d bytes", c.TransactionIDLength)
	}
	for _, credential := range c.Credentials {
		if credential.Auth == nil || credential.Pb == nil && !c.SMDS {
			return nil, errors.New("test server: credential without a certificate")
		}
	}
	if c.HostID == "" {
		c.HostID = "lpad-test"
	}
	if c.TransactionIDLength == 0 {
		c.TransactionIDLength = 16
	}
	if c.MinSVN.IsZero() {
		c.MinSVN = rsp.Version{2, 0, 0}
	}
	if c.SessionTimeout == 0 {
		c.SessionTimeout = 10 * time.Minute
	}
	if c.NotificationStatus == 0 {
		c.NotificationStatus = http.StatusNoContent
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Random == nil {
		c.Random = rand.Reader
	}
	if c.OneTimeKey == nil {
		c.OneTimeKey = pki.GenerateKey
	}
	s := &Server{
		config: c, done: make(chan struct{}), changed: make(chan struct{}),
		sessions: map[string]*session{}, eUICCs: map[string]*eUICC{}, byPeer: map[string]*Connection{},
	}
	s.mux = s.routes()
	return s, nil
}

// OID is the object identifier of the server: that of its first certificate.
func (s *Server) OID() string { return s.config.Credentials[0].Auth.Certificate.RegisteredID }

// Close ends every stalled answer of a Server that somebody else serves, as
// httptest does. What [Server.Serve] serves ends with its context.
func (s *Server) Close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.closed {
		s.closed = true
		close(s.done)
	}
}

// ActivationCode is what an operator would print for an order of this server,
// with the prefix LPA: and without the optional fields.
func (s *Server) ActivationCode(matchingID string) string {
	return rsp.ActivationCode{SMDP: s.config.Address, MatchingID: matchingID}.Encode()
}

func (s *Server) ownAddress(address string) bool { return strings.EqualFold(address, s.config.Address) }

// random fills a fresh slice. The caller holds the lock, so that a fixed source
// gives the same bytes to the same purpose every time.
func (s *Server) random(n int) ([]byte, error) {
	b := make([]byte, n)
	if _, err := io.ReadFull(s.config.Random, b); err != nil {
		return nil, fmt.Errorf("random bytes: %w", err)
	}
	return b, nil
}
