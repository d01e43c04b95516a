package apiserver

import (
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"time"

	"lpad/agent/api"
	"lpad/internal/fault"
)

// relay hands the connection over to whoever carries by it, or is asked to. It counts
// among the connections of its user until it ends; no deadline of the socket bounds it.
func relay(s *Server, w http.ResponseWriter, r *http.Request) {
	if !strings.EqualFold(r.Header.Get("Upgrade"), api.RelayProtocol) || !strings.Contains(strings.ToLower(r.Header.Get("Connection")), "upgrade") {
		s.answer(w, r, 0, nil, fault.New(fault.Fault{Code: api.CodeBadRequest, Text: "a relay is asked for with Connection: Upgrade and Upgrade: " + api.RelayProtocol,
			Who: fault.Technician, Next: "use lpactl relay; see the comment of package agent/relay for the protocol"}, nil))
		return
	}
	s.relays.Add(1)
	defer s.relays.Done()
	taken := false
	err := s.backend.Relay(r.Context(), by(r), r.URL.Query().Get("connection"), func() (net.Conn, error) {
		conn, in, err := http.NewResponseController(w).Hijack()
		if err != nil {
			return nil, err
		}
		taken = true
		if in.Reader.Buffered() > 0 {
			err = errors.New("the caller speaks before it is answered")
		}
		if err == nil {
			err = conn.SetDeadline(time.Time{})
		}
		if err == nil {
			_, err = io.WriteString(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: "+api.RelayProtocol+"\r\n\r\n")
		}
		if err != nil {
			conn.Close()
			return nil, err
		}
		return conn, nil
	})
	if err != nil && !taken {
		s.answer(w, r, 0, nil, err)
	}
}
