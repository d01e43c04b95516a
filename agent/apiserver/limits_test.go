package apiserver_test

import (
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"lpad/agent/apiserver"
)

// What one user asks is bounded, without taking anything from another.
func TestRates(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const one, another = 4242, 4343
		take := apiserver.NewRates()
		for i := range apiserver.RequestBurst {
			if !take(one, 1) {
				t.Fatalf("request %d was refused", i)
			}
		}
		if take(one, 1) {
			t.Error("the burst has no end")
		}
		if !take(another, 1) {
			t.Error("another user pays for it")
		}
		for range 10 * apiserver.RequestBurst {
			if !take(0, 1) || !take(uint32(os.Geteuid()), 1) {
				t.Fatal("root, or the daemon's user, was refused")
			}
		}
		time.Sleep(apiserver.RequestEvery - 1)
		if take(one, 1) {
			t.Error("served again too early")
		}
		time.Sleep(1 * time.Nanosecond)
		if !take(one, 1) || take(one, 1) {
			t.Error("after the time of one request, not one was served")
		}
		time.Sleep(time.Hour)
		if !take(one, apiserver.RequestBurst) || take(one, 1) {
			t.Error("an hour of silence gives other than one burst")
		}
	})
}

// As many users as one can invent take no more memory than is meant for them,
// and are forgotten when they are silent.
func TestRatesAreForgotten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		take := apiserver.NewRates()
		for uid := uint32(100000); uid < 100000+apiserver.MaxRemembered; uid++ {
			if !take(uid, 1) {
				t.Fatalf("user %d was refused", uid)
			}
		}
		if take(7, 1) {
			t.Error("one user too many is remembered")
		}
		if !take(100000, 1) {
			t.Error("one who is known was refused")
		}
		time.Sleep(2 * apiserver.RequestEvery)
		if !take(7, 1) {
			t.Error("nobody was forgotten")
		}
	})
}

// callers runs the test's own binary as another user.
type callers struct{ exe, socket string }

func newCallers(t *testing.T, s *server) callers {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root to become other users")
	}
	exe := filepath.Join(filepath.Dir(s.path), "caller") // where everybody may execute it
	self, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(exe, self, 0o755); err != nil {
		t.Fatal(err)
	}
	return callers{exe, s.path}
}

func (c callers) command(what string, cred *syscall.Credential) *exec.Cmd {
	cmd := exec.Command(c.exe)
	cmd.Env = append(os.Environ(), "LPAD_TEST_CALLER="+c.socket, "LPAD_TEST_CALLS="+what)
	cmd.Dir = "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: cred}
	return cmd
}

// hold opens some connections more than it may, says for each what comes when it
// asks over it, and keeps them until its input ends.
func hold(socket string) error {
	var answers strings.Builder
	for range apiserver.MaxOfOne + 2 {
		c, err := net.Dial("unix", socket)
		if err != nil {
			return err
		}
		defer c.Close()
		if _, err := io.WriteString(c, "GET /v1/status HTTP/1.1\r\nHost: lpad.local\r\n\r\n"); err != nil {
			return err
		}
		if err := c.SetReadDeadline(time.Now().Add(patience)); err != nil {
			return err
		}
		b := make([]byte, 4096)
		k, err := c.Read(b)
		line, rest, _ := strings.Cut(string(b[:k]), "\r\n")
		switch {
		case err != nil:
			answers.WriteString("x")
		case strings.HasPrefix(line, "HTTP/1.1 200"):
			answers.WriteString(".")
		case strings.HasPrefix(line, "HTTP/1.1 403"):
			answers.WriteString("r")
		case strings.HasPrefix(line, "HTTP/1.1 429") && strings.Contains(rest, "Content-Type: application/problem+json") &&
			strings.Contains(rest, `"type":"urn:lpad:problem:too-many-requests","status":429,`):
			answers.WriteString("-")
		default:
			answers.WriteString("?")
		}
	}
	fmt.Println(answers.String())
	_, err := io.Copy(io.Discard, os.Stdin)
	return err
}

// One user holds so many connections and no more, all but root together so many
// and no more, root always gets in, and what was let go is free again.
func TestConnectionsOfUsers(t *testing.T) {
	s := serve(t, &backend{}, apiserver.Options{Policy: apiserver.Policy{ReadGID: 4001}})
	c := newCallers(t, s)
	const each = apiserver.MaxOfOne + 2
	var let []func()
	reader := func(uid uint32) string {
		t.Helper()
		cmd := c.command("hold", &syscall.Credential{Uid: uid, Gid: 4001})
		in, err := cmd.StdinPipe()
		if err != nil {
			t.Fatal(err)
		}
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		line := make([]byte, each+1)
		if n, err := io.ReadFull(out, line); err != nil {
			t.Errorf("user %d: %v %q", uid, err, line[:n])
		}
		let = append(let, sync.OnceFunc(func() { in.Close(); cmd.Wait() }))
		return strings.TrimSpace(string(line))
	}
	full := strings.Repeat(".", apiserver.MaxOfOne) + "--"
	for i := range uint32(apiserver.MaxOthers / apiserver.MaxOfOne) {
		if got := reader(4242 + i); got != full {
			t.Errorf("user %d: %s, want %s", i, got, full)
		}
	}
	if got, want := reader(4300), strings.Repeat("-", each); got != want {
		t.Errorf("when all but root have what they may: %s, want %s", got, want)
	}
	if resp, _ := s.ask("GET", "/v1/status", ""); resp.StatusCode != 200 {
		t.Errorf("root: %s", resp.Status)
	}
	if got, want := strangersIn(t, c), strings.Repeat("-", each); got != want {
		t.Errorf("strangers then: %s, want %s", got, want)
	}
	let[0]()
	got := ""
	for deadline := time.Now().Add(patience); got != full && time.Now().Before(deadline); { // the server notices each end on its own
		got = reader(4300)
		if got != full {
			let[len(let)-1]()
		}
	}
	if got != full {
		t.Errorf("after one left: %s, want %s", got, full)
	}
	for _, f := range let {
		f()
	}
}

// strangersIn is what a user who may do nothing gets for connections.
func strangersIn(t *testing.T, c callers) string {
	t.Helper()
	out, err := c.command("hold", &syscall.Credential{Uid: 4400, Gid: 4000}).Output() // without input it ends at once
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(out))
}

// Those who may do nothing are as many users as somebody likes: all together hold
// a few connections, on which they are refused, and who may look gets all of his.
func TestConnectionsOfStrangers(t *testing.T) {
	s := serve(t, &backend{}, apiserver.Options{Policy: apiserver.Policy{ReadGID: 4001}})
	c := newCallers(t, s)
	const each = apiserver.MaxOfOne + 2
	first := c.command("hold", &syscall.Credential{Uid: 4242, Gid: 4000})
	in, err := first.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := first.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := first.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { in.Close(); first.Wait() }()
	line := make([]byte, each+1)
	if _, err := io.ReadFull(out, line); err != nil {
		t.Fatal(err)
	}
	if got, want := strings.TrimSpace(string(line)), strings.Repeat("r", apiserver.MaxStrangers)+strings.Repeat("-", each-apiserver.MaxStrangers); got != want {
		t.Errorf("a stranger: %s, want %s", got, want)
	}
	if got, want := strangersIn(t, c), strings.Repeat("-", each); got != want {
		t.Errorf("another stranger: %s, want %s", got, want)
	}
	reader := c.command("hold", &syscall.Credential{Uid: 4300, Gid: 4001})
	got, err := reader.Output()
	if want := strings.Repeat(".", apiserver.MaxOfOne) + "--\n"; err != nil || string(got) != want {
		t.Errorf("who may look: %s, want %s (%v)", got, want, err)
	}
}

// Whoever is turned away and does not even ask is dropped in time, and more of
// those at once are dropped without a word: no goroutine for each.
func TestTurnedAway(t *testing.T) {
	dir := t.TempDir()
	l, err := apiserver.Listen(filepath.Join(dir, "s"), apiserver.SocketOptions{GID: -1})
	if err != nil {
		t.Fatal(err)
	}
	turn, wait := apiserver.TurnAway(l)
	defer l.Close()
	var ours []net.Conn
	for range apiserver.MaxTurnedAway + 1 {
		a, b := net.Pipe()
		turn(b)
		ours = append(ours, a)
		defer a.Close()
	}
	last := ours[len(ours)-1]
	if _, err := last.Read(make([]byte, 1)); err != io.EOF {
		t.Errorf("one too many of those who are too many: %v", err)
	}
	began := time.Now()
	wait()
	if took := time.Since(began); took > 5*apiserver.AwayTimeout {
		t.Errorf("turned away after %v", took)
	}
	for i, c := range ours {
		if _, err := c.Read(make([]byte, 1)); err != io.EOF {
			t.Errorf("connection %d is still open: %v", i, err)
		}
	}
}
