package smdp

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/netip"
	"time"

	"lpad/agent/rsp"
	"lpad/agent/rsp/rsptest/pki"
)

// Connection is a TLS connection on which at least one request came.
type Connection struct {
	ID       int        `json:"id"` // from 1
	Peer     netip.Addr `json:"peer"`
	Opened   time.Time  `json:"opened"` // first request
	Requests int        `json:"requests"`
	remote   string
}

// Call is one request.
type Call struct {
	Time          time.Time         `json:"time"`
	Function      Function          `json:"function"`
	Peer          netip.Addr        `json:"peer"`
	Connection    int               `json:"connection"`
	UserAgent     string            `json:"user_agent"`
	TransactionID rsp.TransactionID `json:"transaction_id"`
	Outcome       string            `json:"outcome"` // "ok", "8.2.6/3.8", "fault: drop"
	Detail        string            `json:"detail,omitempty"`
	id            int
}

// Serve answers on l behind TLS with this certificate until ctx ends, then
// closes l and every connection and returns nil. It returns an error when l
// fails. It may be called again, on another listener, and several times at once.
func (s *Server) Serve(ctx context.Context, l net.Listener, id *pki.Identity) error {
	certificate, err := id.TLSCertificate()
	if err != nil {
		return fmt.Errorf("serve: %w", err)
	}
	server := &http.Server{
		Handler:           s,
		ReadHeaderTimeout: 30 * time.Second,
		ConnState:         s.connState,
		BaseContext:       func(net.Listener) context.Context { return ctx }, // ends stalled answers
		ErrorLog:          log.New(io.Discard, "", 0),                        // clients that distrust the certificate on purpose
	}
	stopped := context.AfterFunc(ctx, func() {
		// What is left of connections and listeners when this fails is gone with
		// the process; a test server has nobody to tell.
		if err := server.Close(); err != nil {
			server.ErrorLog.Print(err)
		}
	})
	defer stopped()
	err = server.Serve(tls.NewListener(l, &tls.Config{
		Certificates: []tls.Certificate{certificate},
		MinVersion:   tls.VersionTLS12,
		NextProtos:   []string{"http/1.1"},
	}))
	if ctx.Err() != nil && errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return fmt.Errorf("serve: %w", err)
}

func (s *Server) connState(c net.Conn, state http.ConnState) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch state {
	case http.StateNew:
		s.accepted++
	case http.StateClosed, http.StateHijacked:
		delete(s.byPeer, c.RemoteAddr().String())
	}
}

// enter writes down a request and its connection.
func (s *Server) enter(r *http.Request, name Function) (netip.Addr, *Call) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var peer netip.Addr
	if p, err := netip.ParseAddrPort(r.RemoteAddr); err == nil {
		peer = p.Addr().Unmap()
	}
	now := s.config.Now()
	connection, ok := s.byPeer[r.RemoteAddr]
	if !ok {
		connection = &Connection{ID: len(s.connections) + 1, Peer: peer, Opened: now, remote: r.RemoteAddr}
		if n := len(s.connections); n > 0 {
			connection.ID = s.connections[n-1].ID + 1
		}
		s.byPeer[r.RemoteAddr] = connection
		s.connections = append(s.connections, connection)
		if len(s.connections) > maxLog {
			delete(s.byPeer, s.connections[0].remote)
			s.connections = s.connections[1:]
		}
	}
	connection.Requests++
	record := &Call{Time: now, Function: name, Peer: peer, Connection: connection.ID, UserAgent: r.UserAgent(), Outcome: "running"}
	if n := len(s.calls); n > 0 {
		record.id = s.calls[n-1].id + 1
	}
	s.calls = append(s.calls, *record)
	if len(s.calls) > maxLog {
		s.calls = s.calls[1:]
	}
	return peer, record
}

// leave writes down how a request ended. The record was filled in while the
// function held the lock.
func (s *Server) leave(record *Call, outcome string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	record.Outcome = outcome
	if i := record.id - s.firstCall(); i >= 0 && i < len(s.calls) {
		s.calls[i] = *record
	}
}

func (s *Server) firstCall() int {
	if len(s.calls) == 0 {
		return 0
	}
	return s.calls[0].id
}

// Calls are the requests, oldest first.
func (s *Server) Calls() []Call {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]Call(nil), s.calls...)
}

// Connections are the connections on which a request came, oldest first.
func (s *Server) Connections() []Connection {
	s.mu.Lock()
	defer s.mu.Unlock()
	var list []Connection
	for _, c := range s.connections {
		list = append(list, *c)
	}
	return list
}

// Accepted is how many connections [Server.Serve] has accepted, including those
// that ended in the TLS handshake.
func (s *Server) Accepted() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.accepted
}

// State is all that a server knows, for people and scripts, in JSON.
type State struct {
	Address       string         `json:"address"`
	OID           string         `json:"oid"`
	SMDS          bool           `json:"smds"`
	Orders        []OrderStatus  `json:"orders"`
	Notifications []Notification `json:"notifications"`
	Calls         []Call         `json:"calls"`
	Connections   []Connection   `json:"connections"`
	Accepted      int            `json:"accepted"` // TCP connections
}

// State is the server's state now. It holds matching ids, which are test data
// here, and no confirmation codes or keys.
func (s *Server) State() State {
	return State{
		Address: s.config.Address, OID: s.OID(), SMDS: s.config.SMDS, Accepted: s.Accepted(),
		Orders: s.Orders(), Notifications: s.Notifications(), Calls: s.Calls(), Connections: s.Connections(),
	}
}
