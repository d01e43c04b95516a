// Package apiserver is lpad's local socket: HTTP and JSON over a unix socket,
// as package agent/api describes it.
//
// The kernel says who calls: the socket's peer credentials and groups are read
// once for each connection, and each route of the one table in routes.go names
// the level it asks for. There is no other authentication, no TCP, and no way
// in for a browser: a request with an Origin or a Referer, or that is not
// addressed to api.Host, is refused before anything looks at it.
//
//	l, err := apiserver.Listen("/run/lpad/lpad.sock", apiserver.SocketOptions{})
//	srv := apiserver.New(backend, apiserver.Options{Policy: policy, Log: log})
//	err = srv.Serve(ctx, l)      // until ctx ends
//
// What is behind the socket is a [Backend], declared here and implemented by
// the daemon's wiring; tests give it a small one of their own.
package apiserver

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"lpad/agent/api"
	"lpad/internal/fault"
)

// Backend is the daemon as the socket sees it. Its methods are called from
// many goroutines; an error is explained by package fault.
type Backend interface {
	// ForCard is the same about one card, by its name or EID. Without a name it
	// is about the default card, or the jobs and events of all; for an order it is
	// an error then, if there are several.
	ForCard(name string, order bool) (Backend, error)
	Cards(ctx context.Context) (api.Cards, error)

	Trust(ctx context.Context) (api.Trust, error)
	// APDU, Slot and SetSlot are refused while a job has the card.
	APDU(ctx context.Context, by string, r api.APDURequest) (api.APDUs, error)
	Slot(ctx context.Context) (api.Slot, error)
	SetSlot(ctx context.Context, by string, slot int) (api.Slot, error)

	Status(ctx context.Context) (api.Status, error)
	// Metrics are figures of all cards, as OpenMetrics text.
	Metrics(ctx context.Context) (string, error)
	EUICC(ctx context.Context) (api.EUICC, error)
	// Probe finds out what the way to the card can do.
	Probe(ctx context.Context) (api.Probe, error)
	Profiles(ctx context.Context) (api.Profiles, error)
	Notifications(ctx context.Context) (api.Notifications, error)
	DeliverNotifications(ctx context.Context) (api.Notifications, error)
	ReplayNotification(ctx context.Context, by string, seq int64) (api.Notifications, error)
	DropNotification(ctx context.Context, by string, seq int64) (api.Notifications, error)

	// ReplayReport sends the report of a job now, or gives it up.
	ReplayReport(ctx context.Context, by, job string, drop bool) (api.Notifications, error)

	Install(ctx context.Context, by string, r api.InstallRequest) (api.Job, error)
	// Order takes a signed order as it came. One that deletes a profile is refused
	// ([api.CodeForbidden]) unless the caller may.
	Order(ctx context.Context, by string, jws []byte, mayDelete bool) (api.Job, error)
	Enable(ctx context.Context, by, iccid string, r api.EnableRequest) (api.Job, error)
	Disable(ctx context.Context, by, iccid string) (api.Job, error)
	Delete(ctx context.Context, by, iccid string) (api.Job, error)
	SetNickname(ctx context.Context, by, iccid string, r api.NicknameRequest) (api.Job, error)

	// Effective explains the parameters of a profile; no ICCID: of the enabled
	// one. SetParameters and ClearParameters change the document that the
	// profile has.
	Effective(ctx context.Context, iccid string) (api.Effective, error)
	SetParameters(ctx context.Context, by, iccid string, document json.RawMessage) (api.Effective, error)
	ClearParameters(ctx context.Context, by, iccid string) (api.Effective, error)

	// Packets are the requests that wait to be carried; PutPacket takes the answer
	// to one. One that nothing waits for any more is refused
	// ([api.CodePacketSuperseded]), the same one twice is not.
	Packets(ctx context.Context) (api.Packets, error)
	PutPacket(ctx context.Context, by string, answer *api.Packet) error

	Jobs(ctx context.Context) (api.Jobs, error)
	Job(ctx context.Context, id string) (api.Job, error)
	// WaitJob returns the job at its next change, at its end, or when ctx
	// ends, whichever is first.
	WaitJob(ctx context.Context, id string) (api.Job, error)
	Answer(ctx context.Context, by, id string, r api.AnswerRequest) (api.Job, error)
	Abort(ctx context.Context, by, id string) (api.Job, error)

	// Relay has the caller carry connections to servers until ctx ends or the
	// caller goes; with the number of a connection it takes that one, and does not
	// wait for its end. take hands the caller's connection over, which is whoever's
	// it is to close then; an error without it is an answer as any other.
	Relay(ctx context.Context, by, connection string, take func() (net.Conn, error)) error

	// Watch sends events that came after the one with id after, then new ones,
	// until ctx ends; then it closes the channel.
	Watch(ctx context.Context, after uint64) <-chan api.Event
}

// Limits of the socket. It is local, but a wedged script must not take the
// daemon down.
const (
	maxBody        = 256 << 10 // a terminal parameters document has at most 64 KiB
	maxHeader      = 8 << 10
	maxConnections = 64
	maxOthers      = 48               // of them, of all but root and the daemon's user: those two always get in
	maxOfOne       = 16               // of them, of one such user
	maxStrangers   = 8                // of them, of all together who may do nothing: to be told so
	maxTurnedAway  = 8                // being told that they are too many; more are dropped without a word
	maxWait        = 60 * time.Second // of GET /v1/jobs/{id}?wait=
	headerTimeout  = 5 * time.Second
	bodyTimeout    = 10 * time.Second
	packetTimeout  = time.Minute     // for the body of a packet, which may be large
	answerTimeout  = 3 * time.Minute // above maxWait, and above reading a slow card behind a slow delivery
	idleTimeout    = 60 * time.Second
	stopTimeout    = 3 * time.Second
	pingInterval   = 15 * time.Second // comment lines in an event stream, to notice the dead
	awayTimeout    = time.Second      // for telling one that it is one too many

	requestEvery  = 20 * time.Millisecond // of one user who is neither root nor the daemon's, in the long run
	requestBurst  = 200                   // of such a user at once
	refusalCost   = 5                     // requests that one refused counts for: each is a line in the log
	maxRemembered = 1024                  // users whose rate is remembered
)

// Options of a [Server].
type Options struct {
	Policy Policy
	Log    *slog.Logger // nil: discards
}

// Server serves the socket.
type Server struct {
	backend Backend
	policy  *atomic.Pointer[Policy]
	rates   *rates
	relays  *sync.WaitGroup // connections that were handed over
	log     *slog.Logger
	packet  chan struct{} // holds one while a packet is read: it is large
}

// New makes a server.
func New(b Backend, o Options) *Server {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	s := &Server{backend: b, policy: &atomic.Pointer[Policy]{}, rates: newRates(), relays: &sync.WaitGroup{}, log: o.Log, packet: make(chan struct{}, 1)}
	s.SetPolicy(o.Policy)
	return s
}

// SetPolicy changes who may do what, from the next request on, also for callers
// who are connected.
func (s *Server) SetPolicy(p Policy) { s.policy.Store(&p) }

// Serve answers on l until ctx ends, lets answers under way finish for a short
// while, and closes l.
func (s *Server) Serve(ctx context.Context, l net.Listener) error {
	streams, stopStreams := context.WithCancel(context.Background())
	defer stopStreams()
	srv := &http.Server{
		Handler:           s.handler(),
		ReadHeaderTimeout: headerTimeout,
		ReadTimeout:       bodyTimeout,
		WriteTimeout:      answerTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    maxHeader,
		ErrorLog:          slog.NewLogLogger(s.log.Handler(), slog.LevelDebug),
		BaseContext:       func(net.Listener) context.Context { return streams },
		ConnContext:       s.withPeer,
		// "OPTIONS *" would be answered to anybody, before any of our refusals.
		DisableGeneralOptionsHandler: true,
	}
	limited := limitConnections(l, maxConnections, func(p Peer) bool { return s.policy.Load().Level(p) != None })
	defer limited.turnedAway.Wait()
	done := make(chan error, 1)
	go func() { done <- srv.Serve(limited) }()
	select {
	case err := <-done: // the listener failed
		return errors.Join(err, srv.Close())
	case <-ctx.Done():
	}
	stopStreams() // or Shutdown would wait for every open event stream
	defer s.relays.Wait()
	grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopTimeout)
	defer cancel()
	if err := srv.Shutdown(grace); err != nil {
		if cerr := srv.Close(); cerr != nil {
			err = errors.Join(err, cerr)
		}
		s.log.Warn("socket did not come to rest", "err", err)
	}
	if err := <-done; !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// served yields every route there is, with its method and whole path. Nothing
// but this is registered, so that no route escapes the tests of all of them.
func served(yield func(string, route) bool) {
	for _, r := range routes {
		if !yield(r.method+" "+api.Prefix+r.path, r) {
			return
		}
	}
	yield(metricsRoute.method+" "+metricsRoute.path, metricsRoute)
}

// handler is the table of routes with everything that stands before a route.
func (s *Server) handler() http.Handler {
	mux := http.NewServeMux()
	for target, r := range served {
		mux.HandleFunc(target, s.guard(r))
	}
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		s.problem(w, r, http.StatusNotFound, fault.New(fault.Fault{Code: api.CodeNotFound, Text: "there is no " + r.Method + " " + r.URL.Path,
			Who: fault.Technician, Next: "see the list of routes; client and daemon may be of different versions"}, nil))
	})
	return s.gate(mux)
}

// gate refuses what a browser or a proxy, or something talked into being one,
// sends, and callers who may do nothing or ask too fast, whatever they ask for.
func (s *Server) gate(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		peer, known := r.Context().Value(peerKey{}).(Peer)
		if !known {
			peer = Peer{UID: nobody, GID: nobody}
		}
		if !s.rates.take(peer.UID, 1) {
			w.Header().Set("Retry-After", "1")
			s.problem(w, r, http.StatusTooManyRequests, tooMany())
			return
		}
		switch {
		case r.Method == http.MethodConnect, r.URL.Host != "", r.Host != api.Host, browses(r.Header):
			s.rates.take(peer.UID, refusalCost-1)
			s.problem(w, r, http.StatusForbidden, fault.New(fault.Fault{Code: api.CodeNotLocal, Text: "this socket takes local requests only",
				Who: fault.Technician, Next: "ask for a path alone, with the header Host: " + api.Host + " and neither Origin nor Referer"}, nil))
		case !known || s.policy.Load().Level(peer) == None:
			s.refuse(w, r, peer, Read)
		default:
			next.ServeHTTP(w, r)
		}
	})
}

// browses reports whether a browser made the request. An empty header counts:
// nobody else sends one.
func browses(h http.Header) bool {
	return h["Origin"] != nil || h["Referer"] != nil || h["Sec-Fetch-Site"] != nil
}

func tooMany() error {
	return fault.New(fault.Fault{Code: api.CodeTooMany, Text: "you ask too much of lpad at once", Retry: true, Who: fault.Technician,
		Next: "wait a second, keep connections and use them again, and follow events instead of asking in a loop"}, nil)
}

// refuse answers a caller who lacks a level.
func (s *Server) refuse(w http.ResponseWriter, r *http.Request, peer Peer, needed Level) {
	s.rates.take(peer.UID, refusalCost-1)
	s.log.Warn("refused", "uid", peer.UID, "pid", peer.PID, "route", r.Pattern) // never the path: it may hold an ICCID
	s.problem(w, r, http.StatusForbidden, fault.New(fault.Fault{Code: api.CodeForbidden,
		Text: "you may not do this: it needs the level " + needed.String(), Who: fault.Configuration,
		Next: "ask for membership in the group that the configuration names under api, and log in again"}, nil))
}

// guard lets a caller of sufficient level through to a route.
func (s *Server) guard(rt route) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		peer, ok := r.Context().Value(peerKey{}).(Peer)
		if !ok || s.policy.Load().Level(peer) < rt.level {
			s.refuse(w, r, peer, rt.level)
			return
		}
		if rt.level > Read {
			s.log.Info("request", "uid", peer.UID, "pid", peer.PID, "route", r.Pattern)
		}
		backend, err := s.backend.ForCard(r.URL.Query().Get("card"), rt.orders())
		if err != nil {
			s.problem(w, r, statusOf(err), err)
			return
		}
		r.Body = http.MaxBytesReader(w, r.Body, rt.maxBody())
		one := *s
		one.backend = backend
		rt.handle(&one, w, r)
	}
}

// statusOf chooses the HTTP status of an explained error.
func statusOf(err error) int {
	switch f := fault.Of(err); {
	case f.Code == api.CodeTooLarge:
		return http.StatusRequestEntityTooLarge
	case f.Code == api.CodeNotFound:
		return http.StatusNotFound
	case f.Code == api.CodeForbidden:
		return http.StatusForbidden
	case f.Code == "signed-order-replayed":
		return http.StatusConflict
	case strings.HasPrefix(f.Code, "signed-order-") && !f.Retry:
		return http.StatusBadRequest
	case f.Code == api.CodeBadRequest || f.Who == fault.Technician && !f.Retry:
		return http.StatusBadRequest
	case f.Code == api.CodeConflict, f.Code == "relay-attached", f.Code == api.CodePacketSuperseded:
		return http.StatusConflict
	case f.Code == fault.Internal:
		return http.StatusInternalServerError
	}
	return http.StatusServiceUnavailable
}

// problem writes an error as application/problem+json.
func (s *Server) problem(w http.ResponseWriter, r *http.Request, status int, err error) {
	if status == http.StatusInternalServerError {
		s.log.Error("unexplained error", "route", r.Pattern, "err", err)
	}
	w.Header().Set("Content-Type", api.ProblemType)
	w.WriteHeader(status)
	s.write(w, problemOf(status, err))
}

func problemOf(status int, err error) api.Problem {
	f := fault.Of(err)
	return api.Problem{Type: "urn:lpad:problem:" + f.Code, Status: status, Code: f.Code, Title: f.Text, Detail: err.Error(),
		Retry: f.Retry, Who: string(f.Who), Next: f.Next}
}

// answer writes what a backend returned.
func (s *Server) answer(w http.ResponseWriter, r *http.Request, status int, v any, err error) {
	if err != nil {
		s.problem(w, r, statusOf(err), err)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	s.write(w, v)
}

func (s *Server) write(w io.Writer, v any) {
	if err := json.NewEncoder(w).Encode(v); err != nil {
		s.log.Debug("caller went away", "err", err)
	}
}

// decode reads a JSON body strictly: a misspelt member is a refusal, not
// something that silently has no effect.
func decode(r *http.Request, v any) error {
	d := json.NewDecoder(r.Body)
	d.DisallowUnknownFields()
	err := d.Decode(v)
	if errors.Is(err, io.EOF) {
		return nil // no body: everything at its default
	}
	if err == nil {
		if _, err = d.Token(); errors.Is(err, io.EOF) {
			return nil
		}
		if err == nil {
			err = errors.New("something stands behind the document")
		}
	}
	return unreadable(err)
}

// unreadable explains why a body was not read, or not understood.
func unreadable(err error) error {
	f := fault.Fault{Code: api.CodeBadRequest, Text: "the request is not what this route takes", Who: fault.Technician, Next: "correct the request"}
	var tooLarge *http.MaxBytesError
	if errors.As(err, &tooLarge) {
		f.Code, f.Text = api.CodeTooLarge, fmt.Sprintf("the request has more than %d bytes", tooLarge.Limit)
	}
	return fault.New(f, err)
}
