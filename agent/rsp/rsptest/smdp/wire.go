package smdp

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"net/netip"
	"strings"
	"time"

	"lpad/agent/rsp"
)

// path is where ES9+ and ES11 live (SGP.22 v2.5, section 6.5).
const path = "/gsma/rsp2/es9plus/"

// protocol is the version that the server speaks, X-Admin-Protocol.
const protocol = "gsma/rsp/v2.5.0"

// Status is a functionExecutionStatus of a failure (SGP.22 v2.5, section 5.2.6).
type Status struct {
	Subject, Reason string // "8.2.6", "3.8"
	Message         string
}

func (s *Status) String() string { return s.Subject + "/" + s.Reason }

func refuse(subject, reason, message string) *Status { return &Status{subject, reason, message} }

// internal is a fault of the test server itself, such as an exhausted random
// source: 8.8/4.2, execution error.
func internal(err error) *Status { return refuse("8.8", "4.2", err.Error()) }

// request holds the members of all requests; what a function does not use is
// empty.
type request struct {
	EUICCChallenge             string `json:"euiccChallenge"`
	EUICCInfo1                 string `json:"euiccInfo1"`
	SMDPAddress                string `json:"smdpAddress"`
	TransactionID              string `json:"transactionId"`
	AuthenticateServerResponse string `json:"authenticateServerResponse"`
	PrepareDownloadResponse    string `json:"prepareDownloadResponse"`
	CancelSessionResponse      string `json:"cancelSessionResponse"`
	PendingNotification        string `json:"pendingNotification"`
}

// reply is the answer of a function before it becomes JSON: members by name,
// []byte as base64.
type reply map[string]any

// call is one function with all that it may look at.
type call struct {
	function Function
	request  request
	fault    Fault
	peer     netip.Addr
	record   *Call
}

func (s *Server) routes() *http.ServeMux {
	functions := map[Function]func(*call) (reply, *Status){
		InitiateAuthentication: s.initiateAuthentication,
		AuthenticateClient:     s.authenticateClient,
		HandleNotification:     s.handleNotification,
	}
	if !s.config.SMDS { // SGP.22 v2.5 has none of the other two on ES11
		functions[GetBoundProfilePackage] = s.getBoundProfilePackage
		functions[CancelSession] = s.cancelSession
	}
	mux := http.NewServeMux()
	for name, do := range functions {
		mux.HandleFunc("POST "+path+string(name), func(w http.ResponseWriter, r *http.Request) { s.serve(w, r, name, do) })
	}
	return mux
}

// ServeHTTP implements http.Handler.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) { s.mux.ServeHTTP(w, r) }

func (s *Server) serve(w http.ResponseWriter, r *http.Request, name Function, do func(*call) (reply, *Status)) {
	peer, record := s.enter(r, name)
	c := &call{function: name, peer: peer, record: record, fault: s.faultFor(name)}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
	if err != nil {
		s.leave(record, "body: "+err.Error())
		w.WriteHeader(http.StatusRequestEntityTooLarge)
		return
	}
	if c.fault.Kind != "" {
		s.leave(record, "fault: "+string(c.fault.Kind))
	}
	if s.spoiled(w, r, c.fault) {
		return
	}
	status := decodeRequest(r, body, &c.request)
	var answer reply
	if status == nil {
		s.mu.Lock()
		answer, status = do(c)
		s.mu.Unlock()
	}
	// The log is complete before the client can see the answer.
	s.leave(record, outcome(status, c.fault))
	if name != HandleNotification || status != nil {
		s.send(w, c.fault, answer, status)
		return
	}
	switch {
	case c.fault.Kind == DropAnswer || c.fault.Kind == CutAnswer:
		panic(http.ErrAbortHandler)
	case s.config.NotificationFailed:
		s.send(w, c.fault, nil, refuse("8.8", "4.2", "told to refuse notifications"))
	default:
		w.Header().Set("X-Admin-Protocol", protocol)
		w.WriteHeader(s.config.NotificationStatus)
	}
}

func outcome(status *Status, f Fault) string {
	switch {
	case status != nil:
		return status.String()
	case f.Kind != "":
		return "fault: " + string(f.Kind)
	}
	return "ok"
}

// spoiled does the faults in which the function is not run. It reports whether
// that was all.
func (s *Server) spoiled(w http.ResponseWriter, r *http.Request, f Fault) bool {
	switch f.Kind {
	case HTTPError:
		if f.After != "" {
			w.Header().Set("Retry-After", f.After)
		}
		code := f.HTTP
		if code == 0 {
			code = http.StatusInternalServerError
		}
		w.WriteHeader(code)
	case Drop:
		panic(http.ErrAbortHandler) // the documented way to close the connection
	case Stall:
		select {
		case <-r.Context().Done():
		case <-s.done:
		}
		panic(http.ErrAbortHandler)
	case Slow:
		wait := time.NewTimer(f.Delay)
		defer wait.Stop()
		select {
		case <-wait.C:
		case <-r.Context().Done():
		case <-s.done:
		}
		return false
	case NotJSON:
		w.Header().Set("Content-Type", "text/html")
		writeBody(w, []byte("<html><body>Welcome to the captive portal</body></html>"))
	case HugeAnswer:
		w.Header().Set("Content-Type", "application/json")
		chunk := []byte(`{"boundProfilePackage":"` + strings.Repeat("A", 1<<20))
		for range 32 {
			if !writeBody(w, chunk) {
				break
			}
			chunk = []byte(strings.Repeat("A", 1<<20))
		}
	case Refuse:
		s.send(w, f, nil, refuse(f.Subject, f.Reason, "injected"))
	default:
		return false
	}
	return true
}

// decodeRequest checks the headers and reads the JSON (SGP.22 v2.5, section
// 6.5).
func decodeRequest(r *http.Request, body []byte, into *request) *Status {
	kind, _, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	if err != nil || kind != "application/json" {
		return refuse("1.2.1", "2.1", "Content-Type must be application/json")
	}
	if v := r.Header.Get("X-Admin-Protocol"); !strings.HasPrefix(v, "gsma/rsp/v") {
		return refuse("1.2.2", "2.1", "X-Admin-Protocol must be gsma/rsp/v…")
	}
	if err := json.Unmarshal(body, into); err != nil {
		return refuse("1.6", "2.1", "JSON: "+err.Error())
	}
	return nil
}

// member decodes a base64 member of a request: standard alphabet with padding.
func member(name, text string) ([]byte, *Status) {
	if text == "" {
		return nil, refuse("1.6", "2.2", name+" is missing")
	}
	b, err := base64.StdEncoding.DecodeString(text)
	if err != nil {
		return nil, refuse("1.6", "2.1", fmt.Sprintf("%s: %v", name, err))
	}
	return b, nil
}

// send writes an answer with its header, or the failure.
func (s *Server) send(w http.ResponseWriter, f Fault, answer reply, status *Status) {
	execution := map[string]any{"status": "Executed-Success"}
	if status != nil {
		answer = nil
		execution = map[string]any{"status": "Failed", "statusCodeData": map[string]string{
			"subjectCode": status.Subject, "reasonCode": status.Reason, "message": status.Message}}
	}
	members := map[string]any{}
	for name, value := range answer {
		switch v := value.(type) {
		case []byte:
			text := base64.StdEncoding.EncodeToString(v)
			if f.Kind == Base64Lines {
				text = wrap(text, 64)
			}
			members[name] = text
		case rsp.TransactionID:
			members[name] = spell(v, f)
		default:
			members[name] = v
		}
	}
	if f.Kind != NoHeader {
		members["header"] = map[string]any{"functionExecutionStatus": execution}
	}
	body, err := json.Marshal(members)
	if err != nil {
		w.WriteHeader(http.StatusInternalServerError)
		return
	}
	if f.Kind == DropAnswer {
		panic(http.ErrAbortHandler)
	}
	h := w.Header()
	h.Set("Content-Type", "application/json;charset=UTF-8")
	h.Set("X-Admin-Protocol", protocol)
	h.Set("Content-Length", fmt.Sprint(len(body)))
	if f.Kind == CutAnswer {
		if writeBody(w, body[:len(body)/2]) {
			if err := http.NewResponseController(w).Flush(); err != nil && !errors.Is(err, http.ErrNotSupported) {
				return
			}
		}
		panic(http.ErrAbortHandler)
	}
	writeBody(w, body)
}

// writeBody reports whether the client is still there; an answer to one that is
// gone is of no interest to anybody.
func writeBody(w io.Writer, body []byte) bool {
	_, err := w.Write(body)
	return err == nil
}

func spell(id rsp.TransactionID, f Fault) string {
	switch f.Kind {
	case LowerCaseID:
		return strings.ToLower(id.String())
	case OtherReplyID:
		return rsp.TransactionID(flip(id)).String()
	}
	return id.String()
}

func wrap(s string, width int) string {
	var b strings.Builder
	for len(s) > width {
		b.WriteString(s[:width])
		b.WriteString("\r\n")
		s = s[width:]
	}
	b.WriteString(s)
	return b.String()
}
