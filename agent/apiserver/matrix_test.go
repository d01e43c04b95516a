package apiserver_test

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"lpad/agent/api"
	"lpad/agent/apiserver"
)

// matrix has a row for each route: a request that is good for it, and the answer
// to callers of the levels read, operate and admin. "-" is a refusal. What a
// caller without a level gets needs no column: it is a refusal everywhere.
var matrix = []struct {
	route, path, body    string
	read, operate, admin string
}{
	{"GET /v1/status", "/v1/status", "", "200", "200", "200"},
	{"GET /v1/cards", "/v1/cards", "", "200", "200", "200"},
	{"GET /v1/euicc", "/v1/euicc", "", "200", "200", "200"},
	{"POST /v1/probe", "/v1/probe", "", "-", "200", "200"},
	{"GET /v1/trust", "/v1/trust", "", "200", "200", "200"},
	{"POST /v1/apdu", "/v1/apdu", `{"commands":["80F20000"]}`, "-", "-", "200"},
	{"GET /v1/profiles", "/v1/profiles", "", "200", "200", "200"},
	{"POST /v1/install", "/v1/install", `{"activation_code":"LPA:1$a.b$c"}`, "-", "202", "202"},
	{"POST /v1/orders", "/v1/orders", "a.b.c", "-", "202", "202"},
	{"POST /v1/profiles/{iccid}/enable", "/v1/profiles/8901/enable", "", "-", "202", "202"},
	{"POST /v1/profiles/{iccid}/disable", "/v1/profiles/8901/disable", "", "-", "202", "202"},
	{"DELETE /v1/profiles/{iccid}", "/v1/profiles/8901", "", "-", "-", "202"},
	{"PUT /v1/profiles/{iccid}/nickname", "/v1/profiles/8901/nickname", `{"nickname":"x"}`, "-", "202", "202"},
	{"GET /v1/parameters/effective", "/v1/parameters/effective", "", "200", "200", "200"},
	{"PUT /v1/profiles/{iccid}/parameters", "/v1/profiles/8901/parameters", `{"version":1}`, "-", "-", "200"},
	{"DELETE /v1/profiles/{iccid}/parameters", "/v1/profiles/8901/parameters", "", "-", "-", "200"},
	{"GET /v1/slot", "/v1/slot", "", "-", "200", "200"},
	{"PUT /v1/slot", "/v1/slot", `{"slot":1}`, "-", "-", "200"},
	{"GET /v1/notifications", "/v1/notifications", "", "200", "200", "200"},
	{"POST /v1/notifications/deliver", "/v1/notifications/deliver", "", "-", "200", "200"},
	{"POST /v1/notifications/{seq}/replay", "/v1/notifications/7/replay", "", "-", "200", "200"},
	{"DELETE /v1/notifications/{seq}", "/v1/notifications/7", "", "-", "-", "200"},
	{"POST /v1/reports/{job}/replay", "/v1/reports/J1/replay", "", "-", "200", "200"},
	{"DELETE /v1/reports/{job}", "/v1/reports/J1", "", "-", "-", "200"},
	{"GET /v1/packets", "/v1/packets", "", "-", "200", "200"},
	{"POST /v1/packets", "/v1/packets", `{"lpad_packet":1,"id":"J-1-0","status":200}`, "-", "204", "204"},
	{"GET /v1/jobs", "/v1/jobs", "", "200", "200", "200"},
	{"GET /v1/jobs/{id}", "/v1/jobs/J1", "", "200", "200", "200"},
	{"POST /v1/jobs/{id}/answer", "/v1/jobs/J1/answer", `{"accept":true}`, "-", "200", "200"},
	{"POST /v1/jobs/{id}/abort", "/v1/jobs/J1/abort", "", "-", "200", "200"},
	{"POST /v1/relay", "/v1/relay", "", "-", "101", "101"},
	{"GET /v1/events", "/v1/events", "", "200", "200", "200"},
	{"GET /metrics", "/metrics", "", "200", "200", "200"},

	// The same routes where a part of the request asks for a higher level.
	{"POST /v1/install", "/v1/install", `{"delete_old":true}`, "-", "-", "202"},
	{"POST /v1/profiles/{iccid}/enable", "/v1/profiles/8901/enable", `{"delete_old":true}`, "-", "-", "202"},

	// And what is no route at all.
	{"", "/", "", "404", "404", "404"},
	{"", "/v1/nothing", "", "404", "404", "404"},
	{"", "/v1/metrics", "", "404", "404", "404"},
}

func methodOf(route string) string {
	if method, _, ok := strings.Cut(route, " "); ok {
		return method
	}
	return "GET"
}

// misuse is what no caller of any level may do: requests as a browser, a proxy or
// a forwarded TCP port would carry them.
var misuse = []struct {
	name    string
	request func(method, path string) string // up to the headers that they share
}{
	{"an Origin", func(m, p string) string {
		return m + " " + p + " HTTP/1.1\r\nHost: lpad.local\r\nOrigin: https://example.com\r\n"
	}},
	{"an empty Origin", func(m, p string) string {
		return m + " " + p + " HTTP/1.1\r\nHost: lpad.local\r\nOrigin:\r\n"
	}},
	{"a Referer", func(m, p string) string {
		return m + " " + p + " HTTP/1.1\r\nHost: lpad.local\r\nReferer: http://lpad.local/\r\n"
	}},
	{"a browser's Sec-Fetch-Site", func(m, p string) string {
		return m + " " + p + " HTTP/1.1\r\nHost: lpad.local\r\nSec-Fetch-Site: none\r\n"
	}},
	{"another Host", func(m, p string) string { return m + " " + p + " HTTP/1.1\r\nHost: localhost\r\n" }},
	{"a Host with a port", func(m, p string) string { return m + " " + p + " HTTP/1.1\r\nHost: lpad.local:80\r\n" }},
	{"an empty Host", func(m, p string) string { return m + " " + p + " HTTP/1.1\r\nHost:\r\n" }},
	{"no Host, of HTTP 1.0", func(m, p string) string { return m + " " + p + " HTTP/1.0\r\n" }},
	{"an absolute address", func(m, p string) string {
		return m + " http://lpad.local" + p + " HTTP/1.1\r\nHost: lpad.local\r\n"
	}},
	{"another absolute address", func(m, p string) string {
		return m + " http://example.com" + p + " HTTP/1.1\r\nHost: lpad.local\r\n"
	}},
	{"CONNECT with the path", func(_, p string) string { return "CONNECT " + p + " HTTP/1.1\r\nHost: lpad.local\r\n" }},
	{"CONNECT", func(_, p string) string { return "CONNECT lpad.local:443 HTTP/1.1\r\nHost: lpad.local\r\n" }},
	{"CONNECT without a port", func(_, p string) string { return "CONNECT lpad.local HTTP/1.1\r\nHost: lpad.local\r\n" }},
	{"OPTIONS of everything", func(_, p string) string { return "OPTIONS * HTTP/1.1\r\nHost: localhost\r\n" }},
}

// answered is what came for one request of the matrix.
type answered struct {
	Status  int
	Code    string // of the problem, if it is one
	Problem string // what is wrong with it as one; empty: nothing
}

// askAll sends requests, each over a connection of its own, and reads the
// beginning of each answer.
func askAll(dial func() (net.Conn, error), requests []string) ([]answered, error) {
	var all []answered
	for _, request := range requests {
		c, err := dial()
		if err != nil {
			return nil, err
		}
		a, err := askOne(c, request)
		c.Close()
		if err != nil {
			return nil, fmt.Errorf("%q: %w", request, err)
		}
		all = append(all, a)
	}
	return all, nil
}

func askOne(c net.Conn, request string) (a answered, err error) {
	if err := c.SetDeadline(time.Now().Add(patience)); err != nil {
		return a, err
	}
	if _, err := io.WriteString(c, request); err != nil {
		return a, err
	}
	method, _, _ := strings.Cut(request, " ")
	resp, err := http.ReadResponse(bufio.NewReader(c), &http.Request{Method: map[bool]string{true: "GET", false: method}[method == "CONNECT"]})
	if err != nil {
		return a, err
	}
	a.Status = resp.StatusCode
	if a.Status < 400 {
		return a, nil // without closing the body, which would read an event stream to its end; the connection is closed
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		return a, err
	}
	var p api.Problem
	switch err := json.Unmarshal(b, &p); {
	case err != nil:
		a.Problem = fmt.Sprintf("%v: %s", err, b)
	case resp.Header.Get("Content-Type") != api.ProblemType, p.Type != "urn:lpad:problem:"+p.Code, p.Status != a.Status, p.Title == "", p.Detail == "", p.Next == "":
		a.Problem = fmt.Sprintf("%s %s", resp.Header.Get("Content-Type"), b)
	}
	a.Code = p.Code
	return a, nil
}

func requestOf(method, path, body string) string {
	if path == "/v1/relay" {
		return method + " " + path + " HTTP/1.1\r\nHost: lpad.local\r\nConnection: Upgrade\r\nUpgrade: lpad-relay/1\r\n\r\n"
	}
	return fmt.Sprintf("%s %s HTTP/1.1\r\nHost: lpad.local\r\nContent-Length: %d\r\n\r\n%s", method, path, len(body), body)
}

// TestAuthorisation asks every route as everybody: as root and as members of the
// three groups and of none, by the kernel's word on a real socket, and over a
// connection that has no credentials.
func TestAuthorisation(t *testing.T) {
	rows := map[string]bool{}
	var requests []string
	for _, row := range matrix {
		rows[row.route] = true
		requests = append(requests, requestOf(methodOf(row.route), row.path, row.body))
	}
	for route, level := range apiserver.Served() {
		if !rows[route] {
			t.Errorf("%s (%v) has no row in the matrix", route, level)
		}
		delete(rows, route)
	}
	delete(rows, "")
	for route := range rows {
		t.Errorf("the matrix has a row for %s, which there is not", route)
	}

	b := &backend{more: make(chan api.Event)}
	o := apiserver.Options{Policy: apiserver.Policy{ReadGID: 4001, OperateGID: 4002, AdminGID: 4003}}
	s := serve(t, b, o)
	check := func(t *testing.T, got []answered, want func(int) string) {
		t.Helper()
		if len(got) != len(matrix) {
			t.Fatalf("%d answers, want %d", len(got), len(matrix))
		}
		for i, a := range got {
			row, status := matrix[i], fmt.Sprint(a.Status)
			if status == "403" && a.Code == api.CodeForbidden {
				status = "-"
			}
			if status != want(i) || a.Problem != "" {
				t.Errorf("%s %s %s: %d %s %s, want %s", methodOf(row.route), row.path, row.body, a.Status, a.Code, a.Problem, want(i))
			}
		}
	}
	refused := func(int) string { return "-" }
	asks := func() int { b.mu.Lock(); defer b.mu.Unlock(); return len(b.asked) }

	t.Run("root", func(t *testing.T) {
		got, err := askAll(func() (net.Conn, error) { return net.Dial("unix", s.path) }, requests)
		if err != nil {
			t.Fatal(err)
		}
		check(t, got, func(i int) string { return matrix[i].admin })
	})
	for i, tc := range []struct {
		name   string
		gid    uint32
		groups []uint32
		want   func(int) string
	}{
		{"admin group", 4003, nil, func(i int) string { return matrix[i].admin }},
		{"admin group, a supplementary one", 4000, []uint32{4001, 4003}, func(i int) string { return matrix[i].admin }},
		{"operator group", 4002, nil, func(i int) string { return matrix[i].operate }},
		{"operator group, a supplementary one", 4000, []uint32{4002}, func(i int) string { return matrix[i].operate }},
		{"reader group", 4001, nil, func(i int) string { return matrix[i].read }},
		{"stranger", 4000, []uint32{4004}, refused},
		{"stranger of root's group", 0, []uint32{0}, refused},
	} {
		t.Run(tc.name, func(t *testing.T) {
			c := newCallers(t, s)
			before := asks()
			check(t, c.ask(t, &syscall.Credential{Uid: uint32(4242 + i), Gid: tc.gid, Groups: tc.groups}, requests), tc.want)
			if strings.HasPrefix(tc.name, "stranger") && asks() != before {
				t.Errorf("the backend was asked for a stranger: %s", b.last())
			}
		})
	}
	t.Run("no credentials", func(t *testing.T) { // a listener that nobody means to give it
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- apiserver.New(b, o).Serve(ctx, l) }()
		before := asks()
		got, err := askAll(func() (net.Conn, error) { return net.Dial("tcp", l.Addr().String()) }, requests)
		if err != nil {
			t.Error(err)
		}
		check(t, got, refused)
		if asks() != before {
			t.Errorf("the backend was asked for nobody: %s", b.last())
		}
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	b.watching.Wait()
}

// TestMisuse makes the good requests of the matrix bad ones, as root and as a
// stranger: none gets further than a refusal.
func TestMisuse(t *testing.T) {
	b := &backend{}
	s := serve(t, b, apiserver.Options{Policy: apiserver.Policy{ReadGID: 4001}})
	for i, m := range misuse {
		t.Run(m.name, func(t *testing.T) {
			var requests []string
			for _, row := range matrix {
				requests = append(requests, m.request(methodOf(row.route), row.path)+fmt.Sprintf("Content-Length: %d\r\n\r\n%s", len(row.body), row.body))
			}
			root, err := askAll(func() (net.Conn, error) { return net.Dial("unix", s.path) }, requests)
			if err != nil {
				t.Fatal(err)
			}
			var stranger []answered
			if os.Geteuid() == 0 {
				stranger = newCallers(t, s).ask(t, &syscall.Credential{Uid: uint32(4242 + i), Gid: 4000}, requests)
			}
			for j, a := range slices.Concat(root, stranger) {
				if a.Status != http.StatusForbidden || a.Code != api.CodeNotLocal || a.Problem != "" {
					t.Errorf("%q: %d %s %s", requests[j%len(requests)], a.Status, a.Code, a.Problem)
				}
			}
		})
	}
	if b.last() != "" {
		t.Errorf("the backend was asked: %s", b.last())
	}
}

// One who asks too fast is told so, and when to come again; others are served.
func TestTooFast(t *testing.T) {
	s := serve(t, &backend{}, apiserver.Options{Policy: apiserver.Policy{ReadGID: 4001}})
	c := newCallers(t, s)
	last := func(cred *syscall.Credential, n int) answered {
		t.Helper()
		got := c.ask(t, cred, slices.Repeat([]string{requestOf("GET", "/v1/status", "")}, n))
		return got[len(got)-1]
	}
	stranger, reader := &syscall.Credential{Uid: 4242, Gid: 4000}, &syscall.Credential{Uid: 4343, Gid: 4001}
	if a := last(stranger, apiserver.RequestBurst); a.Status != http.StatusTooManyRequests || a.Code != api.CodeTooMany || a.Problem != "" {
		t.Errorf("a stranger who goes on: %+v", a)
	}
	if a := last(reader, apiserver.RequestBurst); a.Status != 200 {
		t.Errorf("a reader, within the rate: %+v", a)
	}
	if resp, _ := s.ask("GET", "/v1/status", ""); resp.StatusCode != 200 {
		t.Errorf("root: %s", resp.Status)
	}
}

// ask has another user ask, in a process of its own.
func (c callers) ask(t *testing.T, cred *syscall.Credential, requests []string) []answered {
	t.Helper()
	in, err := json.Marshal(requests)
	if err != nil {
		t.Fatal(err)
	}
	cmd := c.command("ask", cred)
	cmd.Stdin = strings.NewReader(string(in))
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	var got []answered
	if err := json.Unmarshal(out, &got); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return got
}

// askFromStandardInput is the other side of ask.
func askFromStandardInput(socket string) error {
	var requests []string
	if err := json.NewDecoder(os.Stdin).Decode(&requests); err != nil {
		return err
	}
	got, err := askAll(func() (net.Conn, error) { return net.Dial("unix", socket) }, requests)
	if err != nil {
		return err
	}
	return json.NewEncoder(os.Stdout).Encode(got)
}
