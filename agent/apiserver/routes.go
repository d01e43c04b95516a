package apiserver

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"

	"lpad/agent/api"
	"lpad/agent/metrics"
	"lpad/internal/fault"
)

// route is one line of the table.
type route struct {
	method, path string
	level        Level
	handle       func(*Server, http.ResponseWriter, *http.Request)
}

// orders reports whether the route asks for something to be done to a card that
// nothing else in the request tells; the id of a job does, and so may a signed
// order.
func (r route) orders() bool {
	return r.path != "/orders" && r.path != "/packets" && r.level > Read && r.method != http.MethodGet && !strings.HasPrefix(r.path, "/jobs/") && !strings.HasPrefix(r.path, "/reports/") && r.path != "/relay"
}

// maxBody bounds the body of a request, in bytes.
func (r route) maxBody() int64 {
	if r.path == "/packets" {
		return api.MaxPacket
	}
	return maxBody
}

// routes is everything the socket answers to, in the order of package api.
var routes = []route{
	{"GET", "/status", Read, get(Backend.Status)},
	{"GET", "/cards", Read, get(Backend.Cards)},
	{"GET", "/euicc", Read, get(Backend.EUICC)},
	{"POST", "/probe", Operate, get(Backend.Probe)},
	{"GET", "/trust", Read, get(Backend.Trust)},
	{"POST", "/apdu", Admin, sendAPDUs},
	{"GET", "/profiles", Read, get(Backend.Profiles)},
	{"POST", "/install", Operate, install},
	{"POST", "/orders", Operate, signedOrder},
	{"POST", "/profiles/{iccid}/enable", Operate, enable},
	{"POST", "/profiles/{iccid}/disable", Operate, disable},
	{"DELETE", "/profiles/{iccid}", Admin, remove},
	{"PUT", "/profiles/{iccid}/nickname", Operate, nickname},
	{"GET", "/parameters/effective", Read, effective},
	{"PUT", "/profiles/{iccid}/parameters", Admin, setParameters},
	{"DELETE", "/profiles/{iccid}/parameters", Admin, clearParameters},
	{"GET", "/slot", Operate, get(Backend.Slot)},
	{"PUT", "/slot", Admin, setSlot},
	{"GET", "/notifications", Read, get(Backend.Notifications)},
	{"POST", "/notifications/deliver", Operate, get(Backend.DeliverNotifications)},
	{"POST", "/notifications/{seq}/replay", Operate, oneNotification(Backend.ReplayNotification)},
	{"DELETE", "/notifications/{seq}", Admin, oneNotification(Backend.DropNotification)},
	{"POST", "/reports/{job}/replay", Operate, oneReport},
	{"DELETE", "/reports/{job}", Admin, oneReport},
	{"GET", "/packets", Operate, get(Backend.Packets)},
	{"POST", "/packets", Operate, putPacket},
	{"GET", "/jobs", Read, get(Backend.Jobs)},
	{"GET", "/jobs/{id}", Read, oneJob},
	{"POST", "/jobs/{id}/answer", Operate, answerJob},
	{"POST", "/jobs/{id}/abort", Operate, abortJob},
	{"POST", "/relay", Operate, relay},
	{"GET", "/events", Read, events},
}

// metricsRoute is for collectors of figures. It is where they look for it, outside
// of the prefix: the format has a version of its own.
var metricsRoute = route{"GET", "/metrics", Read, func(s *Server, w http.ResponseWriter, r *http.Request) {
	text, err := s.backend.Metrics(r.Context())
	if err != nil {
		s.answer(w, r, 0, nil, err)
		return
	}
	w.Header().Set("Content-Type", metrics.ContentType)
	if _, err := io.WriteString(w, text); err != nil {
		s.log.Debug("caller went away", "err", err)
	}
}}

// get serves a question without arguments.
func get[T any](ask func(Backend, context.Context) (T, error)) func(*Server, http.ResponseWriter, *http.Request) {
	return whatever(func(b Backend, ctx context.Context) (any, error) { return ask(b, ctx) })
}

// whatever is the part of get that is there once, and not for each type.
func whatever(ask func(Backend, context.Context) (any, error)) func(*Server, http.ResponseWriter, *http.Request) {
	return func(s *Server, w http.ResponseWriter, r *http.Request) {
		if err := unhurried(w); err != nil { // the card may be slow
			return
		}
		v, err := ask(s.backend, r.Context())
		s.answer(w, r, http.StatusOK, v, err)
	}
}

// oneNotification serves what is done to the notification of the path.
func oneNotification(do func(Backend, context.Context, string, int64) (api.Notifications, error)) func(*Server, http.ResponseWriter, *http.Request) {
	return func(s *Server, w http.ResponseWriter, r *http.Request) {
		seq, err := strconv.ParseInt(r.PathValue("seq"), 10, 64)
		if err != nil || seq < 0 {
			s.answer(w, r, 0, nil, fault.New(fault.Fault{Code: api.CodeBadRequest, Text: "this is no sequence number of a notification", Who: fault.Technician,
				Next: "correct the request"}, err))
			return
		}
		if err := unhurried(w); err != nil {
			return
		}
		v, err := do(s.backend, r.Context(), by(r), seq)
		s.answer(w, r, http.StatusOK, v, err)
	}
}

// oneReport serves what is done to the report of the job of the path.
func oneReport(s *Server, w http.ResponseWriter, r *http.Request) {
	if err := unhurried(w); err != nil {
		return
	}
	v, err := s.backend.ReplayReport(r.Context(), by(r), r.PathValue("job"), r.Method == http.MethodDelete)
	s.answer(w, r, http.StatusOK, v, err)
}

// by names the caller for the record of who ordered what.
func by(r *http.Request) string {
	p, _ := r.Context().Value(peerKey{}).(Peer)
	return fmt.Sprintf("uid %d (pid %d)", p.UID, p.PID)
}

// accepted answers an order: 202, with where to watch the job.
func (s *Server) accepted(w http.ResponseWriter, r *http.Request, j api.Job, err error) {
	if err == nil {
		w.Header().Set("Location", api.Prefix+"/jobs/"+j.ID)
	}
	s.answer(w, r, http.StatusAccepted, j, err)
}

func install(s *Server, w http.ResponseWriter, r *http.Request) {
	var req api.InstallRequest
	if err := decode(r, &req); err != nil {
		s.answer(w, r, 0, nil, err)
		return
	}
	if err := s.mayDelete(r, req.DeleteOld); err != nil {
		s.problem(w, r, http.StatusForbidden, err)
		return
	}
	j, err := s.backend.Install(r.Context(), by(r), req)
	s.accepted(w, r, j, err)
}

// signedOrder hands a signed order on, byte for byte: what it says is nobody's
// to read before its signature was.
func signedOrder(s *Server, w http.ResponseWriter, r *http.Request) {
	if kind, _, _ := strings.Cut(r.Header.Get("Content-Type"), ";"); kind != "" && !strings.EqualFold(strings.TrimSpace(kind), api.OrderType) {
		s.answer(w, r, 0, nil, fault.New(fault.Fault{Code: api.CodeBadRequest, Text: "a signed order comes as " + api.OrderType, Who: fault.Technician,
			Next: "send the order alone, with the header Content-Type: " + api.OrderType}, nil))
		return
	}
	jws, err := io.ReadAll(http.MaxBytesReader(w, r.Body, api.MaxOrder))
	if err != nil {
		s.answer(w, r, 0, nil, unreadable(err))
		return
	}
	if err := unhurried(w); err != nil { // the card or the modem may be asked who they are
		return
	}
	j, err := s.backend.Order(r.Context(), by(r), jws, s.mayDelete(r, true) == nil)
	s.accepted(w, r, j, err)
}

func enable(s *Server, w http.ResponseWriter, r *http.Request) {
	var req api.EnableRequest
	if err := decode(r, &req); err != nil {
		s.answer(w, r, 0, nil, err)
		return
	}
	if err := s.mayDelete(r, req.DeleteOld); err != nil {
		s.problem(w, r, http.StatusForbidden, err)
		return
	}
	j, err := s.backend.Enable(r.Context(), by(r), r.PathValue("iccid"), req)
	s.accepted(w, r, j, err)
}

// mayDelete refuses an order that deletes a profile in the end to whoever may
// not delete one.
func (s *Server) mayDelete(r *http.Request, wanted bool) error {
	p, _ := r.Context().Value(peerKey{}).(Peer)
	if !wanted || s.policy.Load().Level(p) >= Admin {
		return nil
	}
	return fault.New(fault.Fault{Code: api.CodeForbidden, Text: "you may not have a profile deleted: it needs the level " + Admin.String(), Who: fault.Configuration,
		Next: "order without deleting the old profile"}, nil)
}

func disable(s *Server, w http.ResponseWriter, r *http.Request) {
	j, err := s.backend.Disable(r.Context(), by(r), r.PathValue("iccid"))
	s.accepted(w, r, j, err)
}

func remove(s *Server, w http.ResponseWriter, r *http.Request) {
	j, err := s.backend.Delete(r.Context(), by(r), r.PathValue("iccid"))
	s.accepted(w, r, j, err)
}

func nickname(s *Server, w http.ResponseWriter, r *http.Request) {
	var req api.NicknameRequest
	if err := decode(r, &req); err != nil {
		s.answer(w, r, 0, nil, err)
		return
	}
	j, err := s.backend.SetNickname(r.Context(), by(r), r.PathValue("iccid"), req)
	s.accepted(w, r, j, err)
}

// putPacket takes an answer that somebody has carried. One is read at a time.
func putPacket(s *Server, w http.ResponseWriter, r *http.Request) {
	if err := http.NewResponseController(w).SetReadDeadline(time.Now().Add(packetTimeout)); err != nil { // the caller is gone
		return
	}
	select {
	case s.packet <- struct{}{}:
		defer func() { <-s.packet }()
	case <-r.Context().Done():
		return
	}
	a := &api.Packet{}
	err := decode(r, a)
	if err == nil && (a.Version != api.PacketVersion || a.Status == 0) {
		err = fault.New(fault.Fault{Code: api.CodeBadRequest, Text: fmt.Sprintf("this is no answer to a packet of version %d", api.PacketVersion), Who: fault.Technician,
			Next: "hand the files in that lpactl packets carry has written"}, nil)
	}
	if err == nil {
		err = unhurried(w) // the card may be slow
	}
	if err == nil {
		err = s.backend.PutPacket(r.Context(), by(r), a)
	}
	if err != nil {
		s.answer(w, r, 0, nil, err)
		return
	}
	w.WriteHeader(http.StatusNoContent)
}

func effective(s *Server, w http.ResponseWriter, r *http.Request) {
	if err := unhurried(w); err != nil { // the modem may be asked
		return
	}
	v, err := s.backend.Effective(r.Context(), r.URL.Query().Get("iccid"))
	s.answer(w, r, http.StatusOK, v, err)
}

// setParameters takes the document as it is: what it may hold is not the
// socket's to judge.
func setParameters(s *Server, w http.ResponseWriter, r *http.Request) {
	var document json.RawMessage
	err := decode(r, &document)
	if err == nil && len(document) == 0 {
		err = fault.New(fault.Fault{Code: api.CodeBadRequest, Text: "the request holds no document", Who: fault.Technician, Next: "correct the request"}, nil)
	}
	if err != nil {
		s.answer(w, r, 0, nil, err)
		return
	}
	if err := unhurried(w); err != nil {
		return
	}
	v, err := s.backend.SetParameters(r.Context(), by(r), r.PathValue("iccid"), document)
	s.answer(w, r, http.StatusOK, v, err)
}

func clearParameters(s *Server, w http.ResponseWriter, r *http.Request) {
	if err := unhurried(w); err != nil {
		return
	}
	v, err := s.backend.ClearParameters(r.Context(), by(r), r.PathValue("iccid"))
	s.answer(w, r, http.StatusOK, v, err)
}

func setSlot(s *Server, w http.ResponseWriter, r *http.Request) {
	var req api.SlotRequest
	if err := decode(r, &req); err != nil {
		s.answer(w, r, 0, nil, err)
		return
	}
	if err := unhurried(w); err != nil {
		return
	}
	if req.Slot == nil {
		s.answer(w, r, 0, nil, fault.New(fault.Fault{Code: api.CodeBadRequest, Text: "the request names no slot", Who: fault.Technician, Next: "correct the request"}, nil))
		return
	}
	v, err := s.backend.SetSlot(r.Context(), by(r), *req.Slot)
	s.answer(w, r, http.StatusOK, v, err)
}

func sendAPDUs(s *Server, w http.ResponseWriter, r *http.Request) {
	var req api.APDURequest
	if err := decode(r, &req); err != nil {
		s.answer(w, r, 0, nil, err)
		return
	}
	if err := unhurried(w); err != nil {
		return
	}
	v, err := s.backend.APDU(r.Context(), by(r), req)
	s.answer(w, r, http.StatusOK, v, err)
}

func oneJob(s *Server, w http.ResponseWriter, r *http.Request) {
	ctx, id := r.Context(), r.PathValue("id")
	wait := r.URL.Query().Get("wait")
	if wait == "" {
		j, err := s.backend.Job(ctx, id)
		s.answer(w, r, http.StatusOK, j, err)
		return
	}
	d, err := time.ParseDuration(wait)
	if err != nil || d <= 0 {
		s.answer(w, r, 0, nil, fault.New(fault.Fault{Code: api.CodeBadRequest, Text: "wait is not a duration such as 30s", Who: fault.Technician, Next: "correct the request"}, err))
		return
	}
	if err := unhurried(w); err != nil {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, min(d, maxWait))
	defer cancel()
	j, err := s.backend.WaitJob(ctx, id)
	s.answer(w, r, http.StatusOK, j, err)
}

// unhurried lifts the deadline for reading the request, which would otherwise
// end the context of an answer that takes its time. It fails when the caller
// is gone.
func unhurried(w http.ResponseWriter) error {
	return http.NewResponseController(w).SetReadDeadline(time.Time{})
}

func answerJob(s *Server, w http.ResponseWriter, r *http.Request) {
	var req api.AnswerRequest
	if err := decode(r, &req); err != nil {
		s.answer(w, r, 0, nil, err)
		return
	}
	j, err := s.backend.Answer(r.Context(), by(r), r.PathValue("id"), req)
	s.answer(w, r, http.StatusOK, j, err)
}

func abortJob(s *Server, w http.ResponseWriter, r *http.Request) {
	j, err := s.backend.Abort(r.Context(), by(r), r.PathValue("id"))
	s.answer(w, r, http.StatusOK, j, err)
}

// events streams until the caller or the daemon goes (server-sent events, as
// the HTML standard has them). With ?job=ID only what concerns that job.
func events(s *Server, w http.ResponseWriter, r *http.Request) {
	after, err := strconv.ParseUint(first(r.Header.Get("Last-Event-ID"), r.URL.Query().Get("after"), "0"), 10, 64)
	if err != nil {
		s.answer(w, r, 0, nil, fault.New(fault.Fault{Code: api.CodeBadRequest, Text: "Last-Event-ID is not a number", Who: fault.Technician, Next: "correct the request"}, err))
		return
	}
	if err := unhurried(w); err != nil {
		return
	}
	only := r.URL.Query().Get("job")
	rc := http.NewResponseController(w)
	w.Header().Set("Content-Type", "text/event-stream")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(http.StatusOK)
	ping := time.NewTicker(pingInterval)
	defer ping.Stop()
	stream := s.backend.Watch(r.Context(), after)
	for {
		// A caller that does not read for so long is gone.
		if rc.SetWriteDeadline(time.Now().Add(answerTimeout)) != nil || rc.Flush() != nil {
			return
		}
		select {
		case <-ping.C:
			if _, err := fmt.Fprint(w, ": ping\n\n"); err != nil {
				return
			}
		case e, open := <-stream:
			if !open {
				return
			}
			if only != "" && (e.Job == nil || e.Job.ID != only) {
				continue
			}
			b, err := json.Marshal(e)
			if err != nil {
				s.log.Error("event", "err", err)
				return
			}
			if _, err := fmt.Fprintf(w, "id: %d\nevent: %s\ndata: %s\n\n", e.ID, e.Type, b); err != nil {
				return
			}
		}
	}
}

func first(s ...string) string {
	for _, v := range s {
		if v != "" {
			return v
		}
	}
	return ""
}
