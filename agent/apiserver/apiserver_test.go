package apiserver_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"lpad/agent/api"
	"lpad/agent/apiserver"
	"lpad/internal/fault"
)

// patience is how long a test waits for something that must come.
const patience = 30 * time.Second

func TestMain(m *testing.M) {
	if socket := os.Getenv("LPAD_TEST_CALLER"); socket != "" {
		os.Exit(childOf(socket))
	}
	goleak.VerifyTestMain(m)
}

// backend is a small daemon. It remembers what it was asked.
type backend struct {
	mu     sync.Mutex
	asked  []string
	err    error // of every method
	events []api.Event
	more   chan api.Event

	watching sync.WaitGroup // streams that take from more
	wait     time.Duration  // that a question takes

	several bool // cards

	carries func(ctx context.Context, c net.Conn) error // what becomes of a relay; nil: its end
}

func (b *backend) note(ctx context.Context, what string, a ...any) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.asked = append(b.asked, fmt.Sprintf(what, a...))
	if b.wait > 0 {
		select {
		case <-time.After(b.wait):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return b.err
}

func (b *backend) last() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.asked) == 0 {
		return ""
	}
	return b.asked[len(b.asked)-1]
}

var someJob = api.Job{ID: "20260101-000000", Kind: "install", State: "queued", Step: 1}

func (b *backend) ForCard(name string, order bool) (apiserver.Backend, error) {
	switch {
	case name == "" && order && b.several:
		return nil, fault.New(fault.Fault{Code: api.CodeCardAmbiguous, Text: "there are several cards", Who: fault.Technician, Next: "say which"}, nil)
	case name == "nobody":
		return nil, fault.New(fault.Fault{Code: api.CodeNotFound, Text: "there is no such card", Who: fault.Technician, Next: "look"}, nil)
	}
	return b, nil
}
func (b *backend) Cards(ctx context.Context) (api.Cards, error) {
	return api.Cards{Cards: []api.CardStatus{{Name: "main"}}}, b.note(ctx, "cards")
}
func (b *backend) Slot(ctx context.Context) (api.Slot, error) {
	return api.Slot{Active: 1}, b.note(ctx, "slot")
}
func (b *backend) SetSlot(ctx context.Context, by string, slot int) (api.Slot, error) {
	return api.Slot{Active: slot}, b.note(ctx, "slot %d by %s", slot, by)
}
func (b *backend) Status(ctx context.Context) (api.Status, error) {
	return api.Status{State: "ready"}, b.note(ctx, "status")
}
func (b *backend) Relay(ctx context.Context, by, connection string, take func() (net.Conn, error)) error {
	if err := b.note(ctx, "relay %sby %s", connection, by); err != nil {
		return err
	}
	c, err := take()
	if err != nil {
		return err
	}
	if b.carries != nil {
		return b.carries(ctx, c)
	}
	return c.Close()
}
func (b *backend) EUICC(ctx context.Context) (api.EUICC, error) {
	return api.EUICC{EID: "89"}, b.note(ctx, "euicc")
}
func (b *backend) Profiles(ctx context.Context) (api.Profiles, error) {
	return api.Profiles{Profiles: []api.Profile{}}, b.note(ctx, "profiles")
}
func (b *backend) Probe(ctx context.Context) (api.Probe, error) {
	return api.Probe{Path: "/dev/ttyUSB2"}, b.note(ctx, "probe")
}
func (b *backend) Trust(ctx context.Context) (api.Trust, error) {
	return api.Trust{Roots: []api.TrustRoot{}}, b.note(ctx, "trust")
}
func (b *backend) APDU(ctx context.Context, by string, r api.APDURequest) (api.APDUs, error) {
	return api.APDUs{Responses: []string{"9000"}}, b.note(ctx, "apdu %v force=%v by %s", r.Commands, r.Force, by)
}
func (b *backend) Notifications(ctx context.Context) (api.Notifications, error) {
	return api.Notifications{Notifications: []api.Notification{}}, b.note(ctx, "notifications")
}
func (b *backend) DeliverNotifications(ctx context.Context) (api.Notifications, error) {
	return api.Notifications{Notifications: []api.Notification{}}, b.note(ctx, "deliver")
}
func (b *backend) ReplayNotification(ctx context.Context, by string, seq int64) (api.Notifications, error) {
	return api.Notifications{Notifications: []api.Notification{}}, b.note(ctx, "replay %d by %s", seq, by)
}
func (b *backend) DropNotification(ctx context.Context, by string, seq int64) (api.Notifications, error) {
	return api.Notifications{Notifications: []api.Notification{}}, b.note(ctx, "drop %d by %s", seq, by)
}
func (b *backend) ReplayReport(ctx context.Context, by, job string, drop bool) (api.Notifications, error) {
	return api.Notifications{Notifications: []api.Notification{}}, b.note(ctx, "report %s drop=%v by %s", job, drop, by)
}
func (b *backend) Packets(ctx context.Context) (api.Packets, error) {
	return api.Packets{Packets: []api.Packet{{Version: 1, ID: "J-1-0"}}}, b.note(ctx, "packets")
}
func (b *backend) PutPacket(ctx context.Context, by string, a *api.Packet) error {
	return b.note(ctx, "packet %s %d %d bytes by %s", a.ID, a.Status, len(a.Body), by)
}
func (b *backend) Install(ctx context.Context, by string, r api.InstallRequest) (api.Job, error) {
	return someJob, b.note(ctx, "install %s by %s", r.ActivationCode, by)
}
func (b *backend) Order(ctx context.Context, by string, jws []byte, mayDelete bool) (api.Job, error) {
	return someJob, b.note(ctx, "order %s, delete %v, by %s", jws, mayDelete, by)
}
func (b *backend) Enable(ctx context.Context, by, iccid string, r api.EnableRequest) (api.Job, error) {
	return someJob, b.note(ctx, "enable %s %s by %s", iccid, r.Parameters, by)
}
func (b *backend) Disable(ctx context.Context, by, iccid string) (api.Job, error) {
	return someJob, b.note(ctx, "disable %s by %s", iccid, by)
}
func (b *backend) Delete(ctx context.Context, by, iccid string) (api.Job, error) {
	return someJob, b.note(ctx, "delete %s by %s", iccid, by)
}
func (b *backend) SetNickname(ctx context.Context, by, iccid string, r api.NicknameRequest) (api.Job, error) {
	return someJob, b.note(ctx, "nickname %s %q by %s", iccid, r.Nickname, by)
}
func (b *backend) Effective(ctx context.Context, iccid string) (api.Effective, error) {
	return api.Effective{ICCID: "8901", Enabled: true}, b.note(ctx, "effective %s", iccid)
}
func (b *backend) SetParameters(ctx context.Context, by, iccid string, document json.RawMessage) (api.Effective, error) {
	return api.Effective{ICCID: iccid}, b.note(ctx, "parameters of %s %s by %s", iccid, document, by)
}
func (b *backend) ClearParameters(ctx context.Context, by, iccid string) (api.Effective, error) {
	return api.Effective{ICCID: iccid}, b.note(ctx, "no parameters of %s by %s", iccid, by)
}
func (b *backend) Jobs(ctx context.Context) (api.Jobs, error) {
	return api.Jobs{Jobs: []api.Job{someJob}}, b.note(ctx, "jobs")
}
func (b *backend) Job(ctx context.Context, id string) (api.Job, error) {
	return someJob, b.note(ctx, "job %s", id)
}
func (b *backend) WaitJob(ctx context.Context, id string) (api.Job, error) {
	deadline, _ := ctx.Deadline()
	return someJob, b.note(ctx, "wait %s %.0f", id, time.Until(deadline).Minutes()*60)
}
func (b *backend) Answer(ctx context.Context, by, id string, r api.AnswerRequest) (api.Job, error) {
	return someJob, b.note(ctx, "answer %s %v by %s", id, r.Accept, by)
}
func (b *backend) Metrics(ctx context.Context) (string, error) {
	return "# EOF\n", b.note(ctx, "metrics")
}

func (b *backend) Abort(ctx context.Context, by, id string) (api.Job, error) {
	return someJob, b.note(ctx, "abort %s by %s", id, by)
}

func (b *backend) Watch(ctx context.Context, after uint64) <-chan api.Event {
	out := make(chan api.Event)
	b.watching.Go(func() {
		defer close(out)
		for _, e := range b.events {
			if e.ID <= after {
				continue
			}
			select {
			case out <- e:
			case <-ctx.Done():
				return
			}
		}
		for {
			select {
			case e := <-b.more:
				select {
				case out <- e:
				case <-ctx.Done():
					return
				}
			case <-ctx.Done():
				return
			}
		}
	})
	return out
}

// server is a real one on a real socket.
type server struct {
	t      testing.TB
	path   string
	client *http.Client
	stop   func() time.Duration
}

func serve(t testing.TB, b apiserver.Backend, o apiserver.Options) *server {
	t.Helper()
	dir, err := os.MkdirTemp("", "lpad") // short: the path of a socket has 108 bytes
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	s := &server{t: t, path: filepath.Join(dir, "s")}
	l, err := apiserver.Listen(s.path, apiserver.SocketOptions{GID: -1, Mode: 0o666})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- apiserver.New(b, o).Serve(ctx, l) }()
	s.stop = sync.OnceValue(func() time.Duration {
		began := time.Now()
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Serve: %v", err)
		}
		return time.Since(began)
	})
	tr := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", s.path)
	}}
	s.client = &http.Client{Transport: tr, Timeout: patience}
	t.Cleanup(func() { tr.CloseIdleConnections(); s.stop() })
	return s
}

// ask sends one request; headers are "Name: value".
func (s *server) ask(method, path, body string, headers ...string) (*http.Response, string) {
	s.t.Helper()
	req, err := http.NewRequest(method, "http://"+api.Host+path, strings.NewReader(body))
	if err != nil {
		s.t.Fatal(err)
	}
	for _, h := range headers {
		name, value, _ := strings.Cut(h, ": ")
		if name == "Host" {
			req.Host = value
		} else {
			req.Header.Set(name, value)
		}
	}
	resp, err := s.client.Do(req)
	if err != nil {
		s.t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		s.t.Fatal(err)
	}
	return resp, string(b)
}

// problem asks and expects a refusal.
func (s *server) problem(status int, code, method, path, body string, headers ...string) {
	s.t.Helper()
	resp, got := s.ask(method, path, body, headers...)
	var p api.Problem
	if err := json.Unmarshal([]byte(got), &p); err != nil {
		s.t.Errorf("%s %s: %v in %q", method, path, err, got)
	}
	if resp.StatusCode != status || p.Code != code || p.Status != status || p.Type != "urn:lpad:problem:"+code || p.Title == "" || p.Next == "" ||
		resp.Header.Get("Content-Type") != api.ProblemType {
		s.t.Errorf("%s %s: %s %+v, want %d %s", method, path, resp.Status, p, status, code)
	}
}

func me() string { return fmt.Sprintf("uid %d (pid %d)", os.Getuid(), os.Getpid()) }

func TestRoutes(t *testing.T) {
	b := &backend{}
	s := serve(t, b, apiserver.Options{})
	tried := map[string]bool{}
	for _, tc := range []struct {
		method, path, body string
		status             int
		asked              string
		answer             string // a part of it
	}{
		{"GET", "/v1/status", "", 200, "status", `"state":"ready"`},
		{"GET", "/v1/cards", "", 200, "cards", `{"cards":[{"name":"main"`},
		{"GET", "/v1/slot", "", 200, "slot", `"active":1`},
		{"PUT", "/v1/slot", `{"slot":2}`, 200, "slot 2 by " + me(), `"active":2`},
		{"GET", "/v1/parameters/effective", "", 200, "effective ", `"enabled":true`},
		{"GET", "/v1/parameters/effective?iccid=8902", "", 200, "effective 8902", `"enabled":true`},
		{"PUT", "/v1/profiles/8901/parameters", `{"version":1}`, 200, `parameters of 8901 {"version":1} by ` + me(), `"iccid":"8901"`},
		{"DELETE", "/v1/profiles/8901/parameters", "", 200, "no parameters of 8901 by " + me(), `"iccid":"8901"`},
		{"GET", "/v1/euicc", "", 200, "euicc", `"eid":"89"`},
		{"GET", "/v1/profiles", "", 200, "profiles", `"profiles":[]`},
		{"POST", "/v1/install", `{"activation_code":"LPA:1$a.b$c","enable":true}`, 202, "install LPA:1$a.b$c by " + me(), `"id":"20260101-000000"`},
		{"POST", "/v1/install", ``, 202, "install  by " + me(), ``},
		{"POST", "/v1/orders", "a.b.c", 202, "order a.b.c, delete true, by " + me(), `"kind":"install"`},
		{"POST", "/v1/profiles/8901/enable", `{"parameters":{"a":1}}`, 202, `enable 8901 {"a":1} by ` + me(), `"kind":"install"`},
		{"POST", "/v1/profiles/8901/disable", "", 202, "disable 8901 by " + me(), ""},
		{"DELETE", "/v1/profiles/8901", "", 202, "delete 8901 by " + me(), ""},
		{"PUT", "/v1/profiles/8901/nickname", `{"nickname":"x y"}`, 202, `nickname 8901 "x y" by ` + me(), ""},
		{"GET", "/v1/notifications", "", 200, "notifications", `"notifications":[]`},
		{"POST", "/v1/probe", "", 200, "probe", `"path":"/dev/ttyUSB2"`},
		{"GET", "/v1/trust", "", 200, "trust", `"roots":[]`},
		{"POST", "/v1/apdu", `{"commands":["80F20000"],"force":true}`, 200, "apdu [80F20000] force=true by " + me(), `"responses":["9000"]`},
		{"POST", "/v1/notifications/deliver", "", 200, "deliver", `"notifications":[]`},
		{"POST", "/v1/notifications/7/replay", "", 200, "replay 7 by " + me(), `"notifications":[]`},
		{"POST", "/v1/reports/2026-1/replay", "", 200, "report 2026-1 drop=false by " + me(), `"notifications":[]`},
		{"DELETE", "/v1/reports/2026-1", "", 200, "report 2026-1 drop=true by " + me(), `"notifications":[]`},
		{"GET", "/v1/packets", "", 200, "packets", `"id":"J-1-0"`},
		{"POST", "/v1/packets", `{"lpad_packet":1,"id":"J-1-0","status":200}`, 204, "packet J-1-0 200 0 bytes by " + me(), ""},
		{"POST", "/v1/packets", `{"lpad_packet":1,"id":"J-1-0","status":200,"body":"` + strings.Repeat("x", 3<<20) + `"}`, 204, "packet J-1-0 200 3145728 bytes by " + me(), ""},
		{"DELETE", "/v1/notifications/0", "", 200, "drop 0 by " + me(), `"notifications":[]`},
		{"GET", "/v1/jobs", "", 200, "jobs", `{"jobs":[{`},
		{"GET", "/v1/jobs/J1", "", 200, "job J1", `"state":"queued"`},
		{"GET", "/v1/jobs/J1?wait=2s", "", 200, "wait J1 2", `"state":"queued"`},
		{"GET", "/v1/jobs/J1?wait=24h", "", 200, "wait J1 60", `"state":"queued"`},
		{"POST", "/v1/jobs/J1/answer", `{"accept":true}`, 200, "answer J1 true by " + me(), ""},
		{"POST", "/v1/jobs/J1/abort", "", 200, "abort J1 by " + me(), ""},
	} {
		t.Run(tc.method+" "+tc.path, func(t *testing.T) {
			resp, body := s.ask(tc.method, tc.path, tc.body)
			if resp.StatusCode != tc.status || b.last() != tc.asked || !strings.Contains(body, tc.answer) || (resp.Header.Get("Content-Type") == "application/json") != (tc.status != 204) {
				t.Errorf("%s, asked %q, want %q, answer %s", resp.Status, b.last(), tc.asked, body)
			}
			if location := resp.Header.Get("Location"); (location == "/v1/jobs/20260101-000000") != (tc.status == 202) {
				t.Errorf("Location %q", location)
			}
		})
		for _, r := range apiserver.Routes() {
			if r.Method == tc.method && samePath(r.Path, strings.TrimPrefix(tc.path, "/v1")) {
				tried[r.Method+r.Path] = true
			}
		}
	}
	for _, r := range apiserver.Routes() {
		if !tried[r.Method+r.Path] && r.Path != "/events" && r.Path != "/relay" {
			t.Errorf("%s %s was not tried", r.Method, r.Path)
		}
	}
}

// Figures are for whoever may look, and for no browser.
func TestMetrics(t *testing.T) {
	b := &backend{}
	s := serve(t, b, apiserver.Options{})
	resp, body := s.ask("GET", "/metrics", "")
	if resp.StatusCode != 200 || body != "# EOF\n" || !strings.HasPrefix(resp.Header.Get("Content-Type"), "application/openmetrics-text; version=1.0.0") {
		t.Errorf("%s, %s, %q", resp.Status, resp.Header, body)
	}
	s.problem(404, "not-found", "POST", "/metrics", "")
	s.problem(404, "not-found", "GET", "/v1/metrics", "")
	if l := apiserver.MetricsLevel; l != apiserver.Read {
		t.Errorf("the level is %v", l)
	}
}

// An order must say for which of several cards it is; a question need not, nor
// what is about a job, nor a signed order, which says it itself.
func TestSeveralCards(t *testing.T) {
	b := &backend{several: true}
	s := serve(t, b, apiserver.Options{})
	for _, r := range apiserver.Routes() {
		if r.Path == "/events" || r.Path == "/relay" { // of all cards
			continue
		}
		path := "/v1" + strings.NewReplacer("{iccid}", "8901", "{seq}", "7", "{id}", "J1", "{job}", "J1").Replace(r.Path)
		resp, body := s.ask(r.Method, path, `{}`)
		if refused := strings.Contains(body, api.CodeCardAmbiguous); refused != (r.Level > apiserver.Read && r.Method != "GET" && !strings.Contains(path, "J1") && r.Path != "/orders" && r.Path != "/packets") || refused && resp.StatusCode != http.StatusBadRequest {
			t.Errorf("%s %s without a card: %s %s", r.Method, path, resp.Status, body)
		}
		if resp, body := s.ask(r.Method, path+"?card=spare", ""); resp.StatusCode >= 300 && r.Path != "/slot" && r.Method+r.Path != "POST/packets" && r.Method+r.Path != "PUT/profiles/{iccid}/parameters" {
			t.Errorf("%s %s for a card: %s %s", r.Method, path, resp.Status, body)
		}
	}
	s.problem(http.StatusNotFound, api.CodeNotFound, "GET", "/v1/status?card=nobody", "")
	s.problem(http.StatusBadRequest, api.CodeBadRequest, "PUT", "/v1/slot?card=spare", "")
}

func samePath(pattern, path string) bool {
	path, _, _ = strings.Cut(path, "?")
	a, b := strings.Split(pattern, "/"), strings.Split(path, "/")
	return len(a) == len(b) && !slices.ContainsFunc(slices.Collect(indices(a)), func(i int) bool { return a[i] != b[i] && !strings.HasPrefix(a[i], "{") })
}

func indices(s []string) func(func(int) bool) {
	return func(yield func(int) bool) {
		for i := range s {
			if !yield(i) {
				return
			}
		}
	}
}

// The route table of package api's comment is the one that is served.
func TestRoutesAreDocumented(t *testing.T) {
	source, err := os.ReadFile("../api/api.go")
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range apiserver.Routes() {
		found := false
		for line := range strings.Lines(string(source)) {
			f := strings.Fields(line)
			found = found || len(f) > 2 && f[0] == "//" && f[1] == r.Method && strings.SplitN(f[2], "[", 2)[0] == api.Prefix+r.Path
		}
		if !found {
			t.Errorf("%s %s%s is not in the comment of package api", r.Method, api.Prefix, r.Path)
		}
	}
}

func TestRefusals(t *testing.T) {
	b := &backend{}
	s := serve(t, b, apiserver.Options{})
	for _, tc := range []struct {
		name               string
		status             int
		code               string
		method, path, body string
		headers            []string
	}{
		{"unknown path", 404, "not-found", "GET", "/v1/nothing", "", nil},
		{"no version", 404, "not-found", "GET", "/status", "", nil},
		{"wrong method", 404, "not-found", "GET", "/v1/install", "", nil},
		{"unknown member", 400, "bad-request", "POST", "/v1/install", `{"activation-code":"x"}`, nil},
		{"trailing data", 400, "bad-request", "POST", "/v1/install", `{} {}`, nil},
		{"trailing garbage", 400, "bad-request", "POST", "/v1/install", `{}}`, nil},
		{"not JSON", 400, "bad-request", "POST", "/v1/jobs/1/answer", `accept=true`, nil},
		{"half of it", 400, "bad-request", "POST", "/v1/profiles/1/enable", `{"delete_old":`, nil},
		{"no document", 400, "bad-request", "PUT", "/v1/profiles/1/parameters", "", nil},
		{"half a document", 400, "bad-request", "PUT", "/v1/profiles/1/parameters", `{"version":`, nil},
		{"a large document", 413, "request-too-large", "PUT", "/v1/profiles/1/parameters", `"` + strings.Repeat("x", apiserver.MaxBody) + `"`, nil},
		{"wrong type", 400, "bad-request", "PUT", "/v1/profiles/1/nickname", `{"nickname":1}`, nil},
		{"too large", 413, "request-too-large", "POST", "/v1/install", `{"activation_code":"` + strings.Repeat("x", apiserver.MaxBody) + `"}`, nil},
		{"an order that is none", 400, "bad-request", "POST", "/v1/orders", "a.b.c", []string{"Content-Type: application/json"}},
		{"an order of a form", 400, "bad-request", "POST", "/v1/orders", "a.b.c", []string{"Content-Type: application/x-www-form-urlencoded"}},
		{"a large order", 413, "request-too-large", "POST", "/v1/orders", strings.Repeat("x", api.MaxOrder+1), []string{"Content-Type: application/jose"}},
		{"a large packet", 413, "request-too-large", "POST", "/v1/packets", `{"lpad_packet":1,"id":"J-1-0","status":200,"body":"` + strings.Repeat("x", api.MaxPacket) + `"}`, nil},
		{"a packet that is no answer", 400, "bad-request", "POST", "/v1/packets", `{"lpad_packet":1,"id":"J-1-0"}`, nil},
		{"a packet of a later version", 400, "bad-request", "POST", "/v1/packets", `{"lpad_packet":2,"id":"J-1-0","status":200}`, nil},
		{"too large behind", 413, "request-too-large", "POST", "/v1/install", `{}` + strings.Repeat(" ", apiserver.MaxBody), nil},
		{"origin", 403, "not-local", "GET", "/v1/status", "", []string{"Origin: https://example.com"}},
		{"referer", 403, "not-local", "POST", "/v1/install", "{}", []string{"Referer: https://example.com/"}},
		{"another host", 403, "not-local", "GET", "/v1/status", "", []string{"Host: localhost"}},
		{"wait", 400, "bad-request", "GET", "/v1/jobs/1?wait=soon", "", nil},
		{"negative wait", 400, "bad-request", "GET", "/v1/jobs/1?wait=-1s", "", nil},
		{"event id", 400, "bad-request", "GET", "/v1/events", "", []string{"Last-Event-ID: x"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s.t = t
			s.problem(tc.status, tc.code, tc.method, tc.path, tc.body, tc.headers...)
		})
	}
	if b.last() != "" {
		t.Errorf("the backend was asked: %s", b.last())
	}
}

// What the backend says becomes a status and a problem.
func TestErrorsOfTheBackend(t *testing.T) {
	for _, tc := range []struct {
		err    error
		status int
		code   string
	}{
		{fault.New(fault.Fault{Code: "not-found", Text: "x", Who: fault.Technician, Next: "x"}, nil), 404, "not-found"},
		{fault.New(fault.Fault{Code: "conflict", Text: "x", Who: fault.Nobody, Next: "x"}, nil), 409, "conflict"},
		{fault.New(fault.Fault{Code: "activation-code-malformed", Text: "x", Who: fault.Technician, Next: "x"}, nil), 400, "activation-code-malformed"},
		{fault.New(fault.Fault{Code: "disk-full", Text: "x", Retry: true, Who: fault.Technician, Next: "x"}, nil), 503, "disk-full"},
		{fault.New(fault.Fault{Code: "stopping", Text: "x", Retry: true, Who: fault.Nobody, Next: "x"}, nil), 503, "stopping"},
		{errors.New("a defect"), 500, "internal"},
	} {
		s := serve(t, &backend{err: tc.err}, apiserver.Options{})
		s.problem(tc.status, tc.code, "POST", "/v1/jobs/1/abort", "")
		s.problem(tc.status, tc.code, "GET", "/v1/status", "")
	}
}

func TestLevels(t *testing.T) {
	p := apiserver.Policy{ReadGID: 10, OperateGID: 20, AdminGID: 30}
	other := uint32(os.Geteuid()) + 1000
	for _, tc := range []struct {
		peer apiserver.Peer
		p    apiserver.Policy
		want apiserver.Level
	}{
		{apiserver.Peer{UID: 0}, p, apiserver.Admin},
		{apiserver.Peer{UID: uint32(os.Geteuid()), GID: 5}, apiserver.Policy{}, apiserver.Admin},
		{apiserver.Peer{UID: other, GID: 5}, p, apiserver.None},
		{apiserver.Peer{UID: other, GID: 10}, p, apiserver.Read},
		{apiserver.Peer{UID: other, GID: 5, Groups: []uint32{7, 20}}, p, apiserver.Operate},
		{apiserver.Peer{UID: other, GID: 10, Groups: []uint32{30}}, p, apiserver.Admin},
		{apiserver.Peer{UID: other, GID: 0, Groups: []uint32{0}}, apiserver.Policy{}, apiserver.None}, // no group is not group 0
	} {
		if got := tc.p.Level(tc.peer); got != tc.want {
			t.Errorf("%+v under %+v: %v, want %v", tc.peer, tc.p, got, tc.want)
		}
	}
	for l, want := range map[apiserver.Level]string{apiserver.None: "none", apiserver.Admin: "admin", 17: "admin", -1: "none"} {
		if l.String() != want {
			t.Errorf("level %d is %q", int(l), l)
		}
	}
	for _, r := range apiserver.Routes() {
		want := apiserver.Operate
		switch r.Method {
		case "GET":
			want = apiserver.Read
		case "DELETE":
			want = apiserver.Admin
		}
		if r.Path == "/apdu" { // whoever knows how can do everything with them
			want = apiserver.Admin
		}
		if r.Path == "/slot" { // to look may take the network away, and the other slot's SIM may be the only one that works
			want = map[string]apiserver.Level{"GET": apiserver.Operate, "PUT": apiserver.Admin}[r.Method]
		}
		if r.Path == "/packets" { // they hold matching ids
			want = apiserver.Operate
		}
		if r.Path == "/profiles/{iccid}/parameters" { // they may hold passwords, and decide whether the device comes back
			want = apiserver.Admin
		}
		if r.Level != want {
			t.Errorf("%s %s asks for %v, want %v", r.Method, r.Path, r.Level, want)
		}
	}
}

// childOf is what a child of another user does.
func childOf(socket string) int {
	do := map[string]func(string) error{"ask": askFromStandardInput, "hold": hold}[os.Getenv("LPAD_TEST_CALLS")]
	if err := do(socket); err != nil {
		fmt.Println(err)
		return 1
	}
	return 0
}

// The kernel's word counts, and so much as it takes of it; what is done is
// recorded with who did it.
func TestOtherUsers(t *testing.T) {
	b := &backend{}
	s := serve(t, b, apiserver.Options{Policy: apiserver.Policy{AdminGID: 4003}})
	groups := []uint32{4003}
	for g := range uint32(99) {
		groups = append(groups, 5000+g)
	}
	got := newCallers(t, s).ask(t, &syscall.Credential{Uid: 4242, Gid: 4000, Groups: groups}, []string{requestOf("DELETE", "/v1/profiles/1", "")})
	if got[0].Status != 202 || !strings.Contains(b.last(), "delete 1 by uid 4242 (pid ") || strings.Contains(b.last(), me()) {
		t.Errorf("%+v, recorded %q", got, b.last())
	}
}

func TestPeerNeedsAUnixSocket(t *testing.T) {
	a, b := net.Pipe()
	defer a.Close()
	defer b.Close()
	if _, err := apiserver.PeerOf(a); err == nil {
		t.Error("a pipe has credentials")
	}
}

// stream reads server-sent events from an open answer.
type stream struct {
	t     testing.TB
	resp  *http.Response
	lines *bufio.Scanner
}

func (s *server) events(query string, headers ...string) *stream {
	s.t.Helper()
	req, err := http.NewRequest("GET", "http://"+api.Host+"/v1/events"+query, nil)
	if err != nil {
		s.t.Fatal(err)
	}
	for _, h := range headers {
		name, value, _ := strings.Cut(h, ": ")
		req.Header.Set(name, value)
	}
	resp, err := s.client.Transport.RoundTrip(req)
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { resp.Body.Close() })
	if resp.StatusCode != 200 || resp.Header.Get("Content-Type") != "text/event-stream" {
		s.t.Fatalf("%s %s", resp.Status, resp.Header.Get("Content-Type"))
	}
	return &stream{s.t, resp, bufio.NewScanner(resp.Body)}
}

// next is one event as "id type text".
func (s *stream) next() string {
	s.t.Helper()
	var id, kind string
	for s.lines.Scan() {
		name, value, _ := strings.Cut(s.lines.Text(), ": ")
		switch name {
		case "id":
			id = value
		case "event":
			kind = value
		case "data":
			var e api.Event
			if err := json.Unmarshal([]byte(value), &e); err != nil || fmt.Sprint(e.ID) != id || e.Type != kind {
				s.t.Errorf("event %s %s %s: %v", id, kind, value, err)
			}
			return id + " " + kind + " " + e.Text
		}
	}
	return "end"
}

func TestEvents(t *testing.T) {
	other := api.Job{ID: "other"}
	b := &backend{more: make(chan api.Event), events: []api.Event{
		{ID: 1, Type: "job", Job: &someJob, Text: "a"}, {ID: 2, Type: "job", Job: &other, Text: "b"}, {ID: 3, Type: "card", Text: "c"},
		{ID: 4, Type: "progress", Job: &someJob, Text: "d"}}}
	s := serve(t, b, apiserver.Options{})
	for _, tc := range []struct {
		query  string
		header string
		want   []string
	}{
		{"", "", []string{"1 job a", "2 job b", "3 card c", "4 progress d"}},
		{"?after=2", "", []string{"3 card c", "4 progress d"}},
		{"?after=1", "Last-Event-ID: 3", []string{"4 progress d"}},
		{"?job=" + someJob.ID, "", []string{"1 job a", "4 progress d"}},
	} {
		st := s.events(tc.query, slices.DeleteFunc([]string{tc.header}, func(h string) bool { return h == "" })...)
		for _, want := range tc.want {
			if got := st.next(); got != want {
				t.Errorf("%s %s: %s, want %s", tc.query, tc.header, got, want)
			}
		}
		b.more <- api.Event{ID: 5, Type: "job", Job: &someJob, Text: "live"}
		if got := st.next(); got != "5 job live" {
			t.Errorf("%s: %s", tc.query, got)
		}
		st.resp.Body.Close()
		b.watching.Wait() // or the old stream would take what is meant for the next
	}
}

// Serve ends in time with streams open, and the streams end with it.
func TestStopWithOpenStreams(t *testing.T) {
	s := serve(t, &backend{more: make(chan api.Event)}, apiserver.Options{})
	var open []*stream
	for range 5 {
		open = append(open, s.events(""))
	}
	if took := s.stop(); took > apiserver.StopTimeout {
		t.Errorf("stopping took %v", took)
	}
	for _, st := range open {
		if got := st.next(); got != "end" {
			t.Errorf("after the end: %s", got)
		}
	}
	if _, err := os.Stat(s.path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the socket is left: %v", err)
	}
}

// A question may take longer than a request may take to be read.
func TestSlowAnswer(t *testing.T) {
	if testing.Short() {
		t.Skip("takes longer than the timeout of a request")
	}
	t.Parallel()
	s := serve(t, &backend{wait: 11 * time.Second}, apiserver.Options{})
	if resp, body := s.ask("GET", "/v1/profiles", ""); resp.StatusCode != 200 {
		t.Errorf("%s %s", resp.Status, body)
	}
}

// A caller that does not get to the end of its header is let go.
func TestSlowHeader(t *testing.T) {
	t.Parallel()
	s := serve(t, &backend{}, apiserver.Options{})
	c, err := net.Dial("unix", s.path)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	began := time.Now()
	if _, err := io.WriteString(c, "GET /v1/status HTTP/1.1\r\nHost: lpad.local\r\nX-Slow: "); err != nil {
		t.Fatal(err)
	}
	if err := c.SetReadDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	b, err := io.ReadAll(c)
	if took := time.Since(began); err != nil || took < apiserver.HeaderTimeout/2 || bytes.Contains(b, []byte("200")) {
		t.Errorf("after %v: %v %s", took, err, b)
	}
}

// More connections than the limit wait, and are served when one is free.
func TestConnectionLimit(t *testing.T) {
	s := serve(t, &backend{more: make(chan api.Event)}, apiserver.Options{})
	var open []*stream
	for range apiserver.MaxConnections {
		open = append(open, s.events(""))
	}
	answered := make(chan int, 1)
	go func() {
		resp, _ := s.ask("GET", "/v1/status", "", "Connection: close")
		answered <- resp.StatusCode
	}()
	select {
	case <-answered:
		t.Fatal("one connection too many was served")
	case <-time.After(200 * time.Millisecond):
	}
	open[0].resp.Body.Close()
	select {
	case status := <-answered:
		if status != 200 {
			t.Errorf("status %d", status)
		}
	case <-time.After(patience):
		t.Error("never served")
	}
}

func TestListen(t *testing.T) {
	dir, err := os.MkdirTemp("", "lpad")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	path := filepath.Join(dir, "below", "s")
	stale, err := apiserver.Listen(path, apiserver.SocketOptions{GID: -1})
	if err != nil {
		t.Fatal(err)
	}
	if st, err := os.Stat(path); err != nil || st.Mode().Perm() != 0o660 {
		t.Errorf("mode %v, %v", st.Mode(), err)
	}
	if _, err := apiserver.Listen(path, apiserver.SocketOptions{GID: -1}); err == nil || !strings.Contains(err.Error(), "another lpad") {
		t.Errorf("a socket that is in use was taken: %v", err)
	}
	stale.(*net.UnixListener).SetUnlinkOnClose(false)
	if err := stale.Close(); err != nil {
		t.Fatal(err)
	}
	l, err := apiserver.Listen(path, apiserver.SocketOptions{GID: os.Getgid(), Mode: 0o600})
	if err != nil {
		t.Fatalf("a stale socket was not replaced: %v", err)
	}
	defer l.Close()
	if st, err := os.Stat(path); err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v", st.Mode(), err)
	}
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := apiserver.Listen(file, apiserver.SocketOptions{GID: -1}); err == nil {
		t.Error("a file was taken for a stale socket")
	}
	if b, err := os.ReadFile(file); string(b) != "precious" {
		t.Errorf("the file holds %q, %v", b, err)
	}
	if _, err := apiserver.Listen(filepath.Join(file, "s"), apiserver.SocketOptions{}); err == nil {
		t.Error("listening below a file")
	}
}

// A listener that fails ends Serve with its error, and nothing is left.
func TestListenerFails(t *testing.T) {
	dir, err := os.MkdirTemp("", "lpad")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	l, err := apiserver.Listen(filepath.Join(dir, "s"), apiserver.SocketOptions{GID: -1})
	if err != nil {
		t.Fatal(err)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if err := apiserver.New(&backend{}, apiserver.Options{}).Serve(t.Context(), l); !errors.Is(err, net.ErrClosed) {
		t.Errorf("Serve: %v", err)
	}
}
