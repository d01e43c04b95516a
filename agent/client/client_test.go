package client_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"lpad/agent/api"
	"lpad/agent/apiserver"
	"lpad/agent/client"
	"lpad/internal/fault"
)

// patience is how long a test waits for something that must come.
const patience = 30 * time.Second

func TestMain(m *testing.M) {
	if socket := os.Getenv("LPAD_TEST_CALLER"); socket != "" {
		c := client.New(socket)
		defer c.Close()
		_, err := c.Status(context.Background())
		fmt.Println(code(err))
		return
	}
	goleak.VerifyTestMain(m)
}

// daemon is a small one behind the real server of the socket. It lives as long
// as a test wants and can be started again.
type daemon struct {
	mu     sync.Mutex
	asked  []string
	card   string // that the last request has named
	err    error
	job    api.Job
	last   uint64
	change chan struct{} // closed at each change of the job
}

func newDaemon() *daemon {
	return &daemon{job: api.Job{ID: "J1", Kind: "install", State: "queued"}, change: make(chan struct{})}
}

func (d *daemon) note(what string, a ...any) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.asked = append(d.asked, fmt.Sprintf(what, a...))
	return d.err
}

// set moves the job.
func (d *daemon) set(state string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.job.State, d.job.Ended = state, state == "done" || state == "failed"
	d.last++
	close(d.change)
	d.change = make(chan struct{})
}

func (d *daemon) now() (api.Job, uint64, chan struct{}) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.job, d.last, d.change
}

func (d *daemon) ForCard(name string, order bool) (apiserver.Backend, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.card = name
	return d, nil
}
func (d *daemon) Cards(context.Context) (api.Cards, error) {
	return api.Cards{Cards: []api.CardStatus{{Name: "spare"}}}, d.note("cards")
}
func (d *daemon) Slot(context.Context) (api.Slot, error) { return api.Slot{Active: 1}, d.note("slot") }
func (d *daemon) SetSlot(_ context.Context, by string, slot int) (api.Slot, error) {
	return api.Slot{Active: slot}, d.note("slot %d", slot)
}
func (d *daemon) Metrics(context.Context) (string, error) { return "", nil }

func (d *daemon) Status(context.Context) (api.Status, error) {
	return api.Status{State: "ready", LastEvent: 7}, d.note("status")
}
func (d *daemon) Packets(context.Context) (api.Packets, error) {
	return api.Packets{Note: "none"}, d.note("packets")
}
func (d *daemon) PutPacket(_ context.Context, _ string, a *api.Packet) error {
	return d.note("packet %s %d", a.ID, a.Status)
}
func (d *daemon) Relay(_ context.Context, by, connection string, take func() (net.Conn, error)) error {
	if err := d.note("relay %sby %s", connection, by); err != nil {
		return err
	}
	c, err := take()
	if err != nil {
		return err
	}
	defer c.Close()
	_, err = io.Copy(c, c) // what a real one does not
	return err
}
func (d *daemon) Probe(context.Context) (api.Probe, error) {
	return api.Probe{Path: "/dev/ttyUSB2"}, d.note("probe")
}
func (d *daemon) Trust(context.Context) (api.Trust, error) {
	return api.Trust{Dir: "/etc/x"}, d.note("trust")
}
func (d *daemon) APDU(_ context.Context, _ string, r api.APDURequest) (api.APDUs, error) {
	return api.APDUs{Responses: []string{"9000"}}, d.note("apdu %v", r.Commands)
}
func (d *daemon) EUICC(context.Context) (api.EUICC, error) {
	return api.EUICC{EID: "89"}, d.note("euicc")
}
func (d *daemon) Profiles(context.Context) (api.Profiles, error) {
	return api.Profiles{Profiles: []api.Profile{{ICCID: "8901"}}}, d.note("profiles")
}
func (d *daemon) Notifications(context.Context) (api.Notifications, error) {
	return api.Notifications{Notifications: []api.Notification{{SeqNumber: 3}}}, d.note("notifications")
}
func (d *daemon) DeliverNotifications(context.Context) (api.Notifications, error) {
	return api.Notifications{}, d.note("deliver")
}
func (d *daemon) ReplayReport(_ context.Context, _, job string, drop bool) (api.Notifications, error) {
	return api.Notifications{LostReports: 1}, d.note("report %s drop=%v", job, drop)
}
func (d *daemon) ReplayNotification(_ context.Context, _ string, seq int64) (api.Notifications, error) {
	return api.Notifications{}, d.note("replay %d", seq)
}
func (d *daemon) DropNotification(_ context.Context, _ string, seq int64) (api.Notifications, error) {
	return api.Notifications{}, d.note("drop %d", seq)
}
func (d *daemon) Effective(_ context.Context, iccid string) (api.Effective, error) {
	return api.Effective{ICCID: "8901"}, d.note("effective %s", iccid)
}
func (d *daemon) SetParameters(_ context.Context, _, iccid string, document json.RawMessage) (api.Effective, error) {
	return api.Effective{ICCID: iccid}, d.note("parameters %s %s", iccid, document)
}
func (d *daemon) ClearParameters(_ context.Context, _, iccid string) (api.Effective, error) {
	return api.Effective{ICCID: iccid}, d.note("no parameters %s", iccid)
}
func (d *daemon) Order(_ context.Context, _ string, jws []byte, mayDelete bool) (api.Job, error) {
	return d.job, d.note("order %s %v", jws, mayDelete)
}
func (d *daemon) Install(_ context.Context, _ string, r api.InstallRequest) (api.Job, error) {
	return d.job, d.note("install %s %s %v", r.ActivationCode, r.ConfirmationCode, r.Enable)
}
func (d *daemon) Enable(_ context.Context, _, iccid string, r api.EnableRequest) (api.Job, error) {
	return d.job, d.note("enable %s %v %s", iccid, r.DeleteOld, r.Parameters)
}
func (d *daemon) Disable(_ context.Context, _, iccid string) (api.Job, error) {
	return d.job, d.note("disable %s", iccid)
}
func (d *daemon) Delete(_ context.Context, _, iccid string) (api.Job, error) {
	return d.job, d.note("delete %s", iccid)
}
func (d *daemon) SetNickname(_ context.Context, _, iccid string, r api.NicknameRequest) (api.Job, error) {
	return d.job, d.note("nickname %s %s", iccid, r.Nickname)
}
func (d *daemon) Jobs(context.Context) (api.Jobs, error) {
	return api.Jobs{Jobs: []api.Job{d.job}}, d.note("jobs")
}
func (d *daemon) Job(_ context.Context, id string) (api.Job, error) {
	j, _, _ := d.now()
	if id != j.ID {
		return api.Job{}, fault.New(fault.Fault{Code: "not-found", Text: "there is no job " + id, Who: fault.Technician, Next: "look"}, nil)
	}
	return j, d.note("job %s", id)
}
func (d *daemon) WaitJob(ctx context.Context, id string) (api.Job, error) { return d.Job(ctx, id) }
func (d *daemon) Answer(_ context.Context, _, id string, r api.AnswerRequest) (api.Job, error) {
	return d.job, d.note("answer %s %v %s", id, r.Accept, r.ConfirmationCode)
}
func (d *daemon) Abort(_ context.Context, _, id string) (api.Job, error) {
	return d.job, d.note("abort %s", id)
}

func (d *daemon) Watch(ctx context.Context, after uint64) <-chan api.Event {
	out := make(chan api.Event)
	_, seen, change := d.now()
	seen = min(seen, after)
	go func() {
		defer close(out)
		for {
			j, last, next := d.now()
			if last > seen {
				seen = last
				select {
				case out <- api.Event{ID: last, Type: "job", Job: &j}:
				case <-ctx.Done():
					return
				}
			}
			change = next
			select {
			case <-change:
			case <-ctx.Done():
				return
			}
		}
	}()
	return out
}

func socketPath(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "lpad") // short: the path of a socket has 108 bytes
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	return filepath.Join(dir, "s")
}

// serve runs the daemon at path until the test ends or stop is called.
func (d *daemon) serve(t testing.TB, path string, o apiserver.SocketOptions) (stop func()) {
	t.Helper()
	l, err := apiserver.Listen(path, o)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- apiserver.New(d, apiserver.Options{}).Serve(ctx, l) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Serve: %v", err)
		}
	})
	t.Cleanup(stop)
	return stop
}

func dial(t testing.TB, path string) *client.Client {
	c := client.New(path)
	t.Cleanup(c.Close)
	return c
}

var anyone = apiserver.SocketOptions{GID: -1}

func code(err error) string {
	var p *api.Problem
	if !errors.As(err, &p) {
		return fmt.Sprint(err)
	}
	return p.Code
}

func TestMethods(t *testing.T) {
	d := newDaemon()
	path := socketPath(t)
	d.serve(t, path, anyone)
	c, ctx := dial(t, path), t.Context()
	for _, tc := range []struct {
		asked string
		call  func() (got, want any, err error)
	}{
		{"status", func() (any, any, error) { v, err := c.Status(ctx); return v.LastEvent, uint64(7), err }},
		{"euicc", func() (any, any, error) { v, err := c.EUICC(ctx); return v.EID, "89", err }},
		{"profiles", func() (any, any, error) { v, err := c.Profiles(ctx); return v.Profiles[0].ICCID, "8901", err }},
		{"notifications", func() (any, any, error) {
			v, err := c.Notifications(ctx)
			return v.Notifications[0].SeqNumber, int64(3), err
		}},
		{"packets", func() (any, any, error) { v, err := c.Packets(ctx); return v.Note, "none", err }},
		{"packet J-1 200", func() (any, any, error) {
			return "", "", c.PutPacket(ctx, &api.Packet{Version: 1, ID: "J-1", Status: 200})
		}},
		{"slot", func() (any, any, error) { v, err := c.Slot(ctx); return v.Active, 1, err }},
		{"effective ", func() (any, any, error) { v, err := c.Effective(ctx, ""); return v.ICCID, "8901", err }},
		{"effective 89 02", func() (any, any, error) { v, err := c.Effective(ctx, "89 02"); return v.ICCID, "8901", err }},
		{`parameters 8902 {"version":1}`, func() (any, any, error) {
			v, err := c.SetParameters(ctx, "8902", json.RawMessage(`{"version": 1}`))
			return v.ICCID, "8902", err
		}},
		{"no parameters 8902", func() (any, any, error) { v, err := c.ClearParameters(ctx, "8902"); return v.ICCID, "8902", err }},
		{"slot 2", func() (any, any, error) { v, err := c.SetSlot(ctx, 2); return v.Active, 2, err }},
		{"cards", func() (any, any, error) { v, err := c.Cards(ctx); return v.Cards[0].Name, "spare", err }},
		{"probe", func() (any, any, error) { v, err := c.Probe(ctx); return v.Path, "/dev/ttyUSB2", err }},
		{"trust", func() (any, any, error) { v, err := c.Trust(ctx); return v.Dir, "/etc/x", err }},
		{"apdu [80F20000]", func() (any, any, error) {
			v, err := c.APDU(ctx, api.APDURequest{Commands: []string{"80F20000"}})
			return v.Responses[0], "9000", err
		}},
		{"deliver", func() (any, any, error) { v, err := c.DeliverNotifications(ctx); return len(v.Notifications), 0, err }},
		{"replay 3", func() (any, any, error) { v, err := c.ReplayNotification(ctx, 3); return len(v.Notifications), 0, err }},
		{"drop 3", func() (any, any, error) { v, err := c.DropNotification(ctx, 3); return len(v.Notifications), 0, err }},
		{"report 2026-1 drop=false", func() (any, any, error) { v, err := c.ReplayReport(ctx, "2026-1"); return v.LostReports, 1, err }},
		{"report 2026-1 drop=true", func() (any, any, error) { v, err := c.DropReport(ctx, "2026-1"); return v.LostReports, 1, err }},
		{"install LPA:1$a.b$c 47 true", func() (any, any, error) {
			v, err := c.Install(ctx, api.InstallRequest{ActivationCode: "LPA:1$a.b$c", ConfirmationCode: "47", Enable: true})
			return v.ID, "J1", err
		}},
		{`enable 89/01 true {"a":1}`, func() (any, any, error) {
			v, err := c.Enable(ctx, "89/01", api.EnableRequest{Parameters: []byte(`{"a":1}`), DeleteOld: true})
			return v.ID, "J1", err
		}},
		{"order a.b.c true", func() (any, any, error) { v, err := c.Order(ctx, []byte("a.b.c")); return v.ID, "J1", err }},
		{"disable 8901", func() (any, any, error) { v, err := c.Disable(ctx, "8901"); return v.ID, "J1", err }},
		{"delete 8901", func() (any, any, error) { v, err := c.Delete(ctx, "8901"); return v.ID, "J1", err }},
		{"nickname 8901 Zähler 3", func() (any, any, error) { v, err := c.SetNickname(ctx, "8901", "Zähler 3"); return v.ID, "J1", err }},
		{"jobs", func() (any, any, error) { v, err := c.Jobs(ctx); return v.Jobs[0].ID, "J1", err }},
		{"job J1", func() (any, any, error) { v, err := c.Job(ctx, "J1"); return v.State, "queued", err }},
		{"answer J1 true 47", func() (any, any, error) {
			v, err := c.Answer(ctx, "J1", api.AnswerRequest{Accept: true, ConfirmationCode: "47"})
			return v.ID, "J1", err
		}},
		{"abort J1", func() (any, any, error) { v, err := c.Abort(ctx, "J1"); return v.ID, "J1", err }},
	} {
		got, want, err := tc.call()
		if err != nil || got != want || d.asked[len(d.asked)-1] != tc.asked {
			t.Errorf("%s: %v, want %v, %v; asked %q", tc.asked, got, want, err, d.asked)
		}
	}
	for _, name := range []string{"spare", "a&b=c", ""} {
		if _, err := c.For(name).Profiles(ctx); err != nil || d.card != name {
			t.Errorf("for card %q, asked for %q: %v", name, d.card, err)
		}
	}
	if _, err := c.Job(ctx, "../status"); code(err) != "not-found" {
		t.Errorf("a job by another name: %v", err)
	}
	d.err = fault.New(fault.Fault{Code: "conflict", Text: "it is so", Who: fault.Nobody, Next: "look"}, errors.New("the cause"))
	_, err := c.Abort(ctx, "J1")
	var p *api.Problem
	if !errors.As(err, &p) || p.Status != 409 || p.Title != "it is so" || p.Next != "look" || err.Error() != "it is so (it is so: the cause)" {
		t.Errorf("error %#v", err)
	}
}

func TestNoDaemon(t *testing.T) {
	path := socketPath(t)
	c := dial(t, path)
	if _, err := c.Status(t.Context()); code(err) != api.CodeNotRunning {
		t.Errorf("no socket: %v", err)
	}
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	l.(*net.UnixListener).SetUnlinkOnClose(false)
	l.Close()
	if _, err := c.Status(t.Context()); code(err) != api.CodeNotRunning {
		t.Errorf("a stale socket: %v", err)
	}
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := c.Status(gone); !errors.Is(err, context.Canceled) {
		t.Errorf("a caller that has gone: %v", err)
	}
}

func TestNoPermission(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root to become another user")
	}
	path := socketPath(t)
	newDaemon().serve(t, path, anyone)
	exe := filepath.Join(filepath.Dir(path), "caller")
	self, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(exe, self, 0o755); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(exe)
	cmd.Env, cmd.Dir = append(os.Environ(), "LPAD_TEST_CALLER="+path), "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 4242, Gid: 4242}}
	out, err := cmd.Output()
	if got := strings.TrimSpace(string(out)); err != nil || got != api.CodeNoPermission {
		t.Errorf("%s, %v", got, err)
	}
}

// What is no daemon of ours is an error, and what goes away in the middle is
// one that says so.
func TestStrangeServers(t *testing.T) {
	for _, tc := range []struct {
		name   string
		serve  func(http.ResponseWriter, *http.Request)
		code   string
		status func(*client.Client) error
	}{
		{name: "goes away", serve: func(w http.ResponseWriter, _ *http.Request) { panic(http.ErrAbortHandler) }, code: api.CodeStopping},
		{name: "not JSON", serve: func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "<html>") }, code: "answer of the daemon"},
		{name: "no problem", serve: func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "no", http.StatusBadGateway) }, code: "502"},
		{name: "without end", serve: func(w http.ResponseWriter, r *http.Request) {
			_, _ = io.WriteString(w, `{"state":"`)
			for r.Context().Err() == nil {
				if _, err := w.Write(make([]byte, 64<<10)); err != nil {
					return
				}
			}
		}, code: "answer of the daemon"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			path := socketPath(t)
			l, err := net.Listen("unix", path)
			if err != nil {
				t.Fatal(err)
			}
			srv := &http.Server{Handler: http.HandlerFunc(tc.serve)}
			done := make(chan error, 1)
			go func() { done <- srv.Serve(l) }()
			defer func() { srv.Close(); <-done }()
			c := dial(t, path)
			if _, err := c.Status(t.Context()); err == nil || !strings.Contains(code(err), tc.code) {
				t.Errorf("error %v, want %s", err, tc.code)
			}
			if err := c.Watch(t.Context(), client.WatchOptions{}, func(api.Event) error { return nil }); err == nil && tc.code != "answer of the daemon" {
				t.Error("no error from a stream that was none")
			}
		})
	}
}

func TestWatch(t *testing.T) {
	d := newDaemon()
	path := socketPath(t)
	stop := d.serve(t, path, anyone)
	c := dial(t, path)
	enough := errors.New("enough")

	d.set("authenticating")
	err := c.Watch(t.Context(), client.WatchOptions{Job: "J1"}, func(e api.Event) error {
		if e.ID != 1 || e.Job.State != "authenticating" {
			t.Errorf("event %+v", e)
		}
		return enough
	})
	if !errors.Is(err, enough) {
		t.Errorf("watching: %v", err)
	}
	if err := c.Watch(t.Context(), client.WatchOptions{Started: func() error { return enough }}, nil); !errors.Is(err, enough) {
		t.Errorf("an error at the start: %v", err)
	}
	err = c.Watch(t.Context(), client.WatchOptions{Latest: true, Started: func() error { d.set("loading"); return nil }}, func(e api.Event) error {
		if e.Job.State != "loading" {
			t.Errorf("an event of the past: %+v", e)
		}
		return enough
	})
	if !errors.Is(err, enough) {
		t.Errorf("watching: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	if err := c.Watch(ctx, client.WatchOptions{Started: func() error { cancel(); return nil }}, func(api.Event) error { return nil }); !errors.Is(err, context.Canceled) {
		t.Errorf("a watcher that goes: %v", err)
	}
	if err := c.Watch(t.Context(), client.WatchOptions{Started: func() error { go stop(); return nil }}, func(api.Event) error { return nil }); err != nil {
		t.Errorf("a daemon that stops: %v", err)
	}
	stop() // it has begun, and may not have ended
	if err := c.Watch(t.Context(), client.WatchOptions{}, nil); code(err) != api.CodeNotRunning {
		t.Errorf("no daemon: %v", err)
	}
}

// A job is followed to its end, although the daemon is restarted on the way.
func TestFollow(t *testing.T) {
	d := newDaemon()
	path := socketPath(t)
	stop := d.serve(t, path, anyone)
	c := dial(t, path)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	seen := make(chan string, 100)
	type result struct {
		j   api.Job
		err error
	}
	done := make(chan result, 1)
	go func() {
		j, err := c.Follow(ctx, "J1", func(j api.Job) { seen <- j.State })
		done <- result{j, err}
	}()
	until := func(state string) {
		t.Helper()
		for {
			select {
			case s := <-seen:
				if s == state {
					return
				}
			case <-ctx.Done():
				t.Fatalf("never seen: %s", state)
			}
		}
	}
	until("queued")
	d.set("authenticating")
	until("authenticating")
	stop()
	d.set("loading")
	time.Sleep(100 * time.Millisecond)
	stop = d.serve(t, path, anyone)
	until("loading")
	stop()
	d.set("done") // while nobody could see it
	d.serve(t, path, anyone)
	until("done")
	if r := <-done; r.err != nil || r.j.State != "done" {
		t.Errorf("followed to %+v, %v", r.j, r.err)
	}
	if j, err := c.Follow(ctx, "J1", func(api.Job) {}); err != nil || !j.Ended {
		t.Errorf("a job that has ended: %+v, %v", j, err)
	}
	if _, err := c.Follow(ctx, "J2", func(api.Job) {}); code(err) != "not-found" {
		t.Errorf("no such job: %v", err)
	}
	gone, leave := context.WithCancel(ctx)
	d.set("loading")
	if _, err := c.Follow(gone, "J1", func(api.Job) { leave() }); !errors.Is(err, context.Canceled) {
		t.Errorf("a follower that goes: %v", err)
	}
}
