package lab_test

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"lpad/agent/api"
	"lpad/agent/job"
	"lpad/cmd/lpalab/lab"
	"lpad/modem/modemtest"
)

// remote is a device in an empty network namespace, an SM-DP+ that only the other
// side reaches, and a stick that somebody carries.
type remote struct {
	*lab.Modem
	t      *testing.T
	ctx    context.Context
	w      *lab.World
	server string // where the SM-DP+ is, for whoever carries
	stick  string
}

func newRemote(t *testing.T, config string) *remote {
	t.Helper()
	modemtest.RequireRoot(t)
	t.Parallel()
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	t.Cleanup(cancel)
	r := &remote{t: t, ctx: ctx, w: newWorld(t, lab.Options{}), stick: t.TempDir()}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	r.w.Serve(l)
	r.server = l.Addr().String()
	r.Modem, err = r.w.StartModemWith(ctx, lab.ModemOptions{Programs: programs, Isolated: true, Config: config})
	must(t, err)
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("lpad:\n%s", r.Log())
		}
		if err := r.Close(); err != nil {
			t.Error(err)
		}
	})
	return r
}

// files are those of the stick with an ending.
func (r *remote) files(ending string) string {
	r.t.Helper()
	list, err := filepath.Glob(filepath.Join(r.stick, "*"+ending))
	must(r.t, err)
	for i := range list {
		list[i] = filepath.Base(list[i])
	}
	return strings.Join(list, " ")
}

// waits waits until the job waits for its packet of a number, and gets it twice.
func (r *remote) waits(id string, number int64) *api.PacketWait {
	r.t.Helper()
	c := r.Client()
	defer c.Close()
	var p *api.PacketWait
	eventually(r.ctx, r.t, fmt.Sprintf("packet %d", number), func() bool {
		j, err := c.Job(r.ctx, id)
		if err != nil {
			return false // it is starting
		}
		if j.Ended {
			r.t.Fatalf("the job has ended: %+v", j)
		}
		p = j.Packet
		return p != nil && p.Number == number
	})
	lpactl(r.ctx, r.t, r.Daemon, 0, "packets", "get", r.stick)
	first := r.files(".request.json")
	lpactl(r.ctx, r.t, r.Daemon, 0, "packets", "get", r.stick)
	if got := r.files(".request.json"); got != first || first != p.ID+".request.json" {
		r.t.Fatalf("requests on the stick: %s, then %s, want %s", first, got, p.ID)
	}
	return p
}

// carry takes the stick to the Internet. The first time there is none.
func (r *remote) carry() {
	r.t.Helper()
	args := []string{"packets", "carry", r.stick, "--trust-dir", filepath.Join(r.Dir, "trust.d"), "--timeout", "10s", "--address"}
	lpactl(r.ctx, r.t, r.Daemon, 17, append(args, lab.Host+"=127.0.0.1:1")...)
	if got := r.files(".answer.json"); got != "" {
		r.t.Fatalf("answers of nobody: %s", got)
	}
	lpactl(r.ctx, r.t, r.Daemon, 0, append(args, lab.Host+"="+r.server)...)
	again := lpactl(r.ctx, r.t, r.Daemon, 0, append(args, lab.Host+"=127.0.0.1:1")...) // nobody is asked
	if !strings.Contains(again.Stderr, "answered before") {
		r.t.Errorf("carried twice: %s", again.Stderr)
	}
}

// answer is the one answer on the stick.
func (r *remote) answer() string { return filepath.Join(r.stick, r.files(".answer.json")) }

// put hands the answer in twice.
func (r *remote) put() {
	r.t.Helper()
	file := r.answer()
	lpactl(r.ctx, r.t, r.Daemon, 0, "packets", "put", file, "--detach")
	b, err := os.ReadFile(file)
	must(r.t, err)
	if !strings.Contains(string(b), "getBoundProfilePackage") { // after which the job may have ended
		lpactl(r.ctx, r.t, r.Daemon, 0, "packets", "put", file, "--detach")
	}
	must(r.t, os.Remove(file))
	must(r.t, os.Remove(strings.Replace(file, ".answer.", ".request.", 1)))
}

// TestPackets: a device in an empty network namespace gets a profile through files, and the server what the card
// has to say. At each packet, before and after it is carried, lpad is killed, or stopped, or the card loses its
// session, and it goes on as far as that can be.
func TestPackets(t *testing.T) {
	const killed, stopped, reset, both = "killed", "stopped", "card reset", "killed and card reset"
	for _, tc := range []struct {
		at      int64
		what    string
		carried bool  // when that happens
		anew    int64 // number of the packet with which the session begins anew, 0: it goes on
	}{
		{0, "nothing", false, 0},
		{1, killed, false, 0}, {1, killed, true, 0}, {1, stopped, true, 0}, {1, reset, true, 2}, {1, both, false, 2},
		{2, killed, false, 0}, {2, killed, true, 0}, {2, stopped, false, 0}, {2, reset, false, 3}, {2, both, true, 3},
		{3, killed, false, 4}, {3, killed, true, 4}, {3, stopped, true, 4}, {3, reset, true, 4}, {3, both, true, 4},
	} {
		t.Run(fmt.Sprintf("%d %s carried=%v", tc.at, tc.what, tc.carried), func(t *testing.T) {
			r := newRemote(t, "")
			b, err := os.ReadFile(fmt.Sprintf("/proc/%d/net/dev", r.PID()))
			must(t, err)
			if n := strings.Count(string(b), ":"); n != 1 || !strings.Contains(string(b), "lo:") {
				t.Fatalf("the device has a network:\n%s", b)
			}
			id := strings.TrimSpace(lpactl(r.ctx, t, r.Daemon, 0, "install", r.w.ActivationCode(), "--offline", "--enable", "--yes", "--detach").Stdout)
			happen := func() {
				t.Helper()
				switch tc.what {
				case killed, both:
					must(t, r.Kill())
				case stopped:
					begun := time.Now()
					must(t, r.Stop())
					if took := time.Since(begun); took > 10*time.Second {
						t.Errorf("stopping took %v", took)
					}
				}
				if tc.what == reset || tc.what == both {
					r.w.Card.Reset()
				}
				if tc.what != reset {
					must(t, r.Start(r.ctx))
				}
			}
			begun := int64(1) // number of the first packet of the session
			for number := int64(1); number < begun+3; number++ {
				p := r.waits(id, number)
				if number == 1 {
					s := lpactl(r.ctx, t, r.Daemon, 0, "status")
					if !strings.Contains(s.Stdout, "carry packet 1 of about 3") {
						t.Errorf("status: %s", s.Stdout)
					}
				}
				if tc.at == 0 { // as a technician would
					r.carry()
					got := lpactl(r.ctx, t, r.Daemon, 0, "packets", "put", r.stick, "--get", r.stick)
					if left := r.files(".request.json"); number < 3 && (!strings.Contains(got.Stderr, fmt.Sprintf("packet %d of about 3", number+1)) ||
						!strings.Contains(left, fmt.Sprintf("%s-%d-", id, number+1))) || strings.Contains(left, p.ID) {
						t.Errorf("after packet %d: %s%s\non the stick: %s", number, got.Stdout, got.Stderr, left)
					}
					continue
				}
				if number != tc.at {
					r.carry()
					r.put()
					continue
				}
				if !tc.carried {
					happen()
				}
				if !(tc.at == 3 && !tc.carried) {
					r.carry()
				}
				if tc.carried {
					happen()
				}
				if tc.anew == 0 || tc.at < 3 || tc.what == reset {
					if again := r.waits(id, number); again.ID != p.ID {
						t.Fatalf("waits for %+v, before for %+v", again, p)
					}
					r.put()
				} else { // the package of a session that nobody knows whether the card has
					if tc.carried {
						file := r.answer()
						got := lpactl(r.ctx, t, r.Daemon, 8, "packets", "put", file)
						if !strings.Contains(got.Stderr, "packet-superseded") || !strings.Contains(got.Stderr, "lpactl packets get") {
							t.Errorf("the package of before: %s", got.Stderr)
						}
						must(t, os.Remove(file))
					}
				}
				if tc.anew > 0 {
					begun = tc.anew
					if p := r.waits(id, begun); p.Function != "initiateAuthentication" || p.Note == "" || p.Of != begun+2 {
						t.Errorf("begins anew with %+v", p)
					}
				}
			}
			c := r.Client()
			defer c.Close()
			j, err := c.Follow(r.ctx, id, func(api.Job) {})
			must(t, err)
			if enabled, _ := r.w.Card.EnabledICCID(); j.State != string(job.Done) || enabled.String() != lab.NewOperator.ICCID || len(r.w.Card.Profiles()) != 2 {
				t.Fatalf("%s %+v, %s is enabled of %d", j.State, j.Problem, enabled, len(r.w.Card.Profiles()))
			}

			// The fourth trip: what the card has to say.
			lpactl(r.ctx, t, r.Daemon, 0, "packets", "get", r.stick)
			if n := strings.Count(r.files(".request.json"), "notification-"); n != 3 {
				t.Fatalf("notifications: %s", r.files(".request.json"))
			}
			r.carry()
			lpactl(r.ctx, t, r.Daemon, 0, "packets", "put", r.stick)
			if left := r.w.Card.Notifications(); len(left) != 0 {
				t.Errorf("on the card: %+v", left)
			}
			if r.files("") != "" {
				t.Errorf("on the stick: %s", r.files(""))
			}
			var got []string
			for _, n := range r.w.SMDP.Notifications() {
				if !n.Verified || n.Duplicate || n.Result != "" && n.Result != "installed" {
					t.Errorf("%+v", n)
				}
				got = append(got, n.Event.String()+" "+n.ICCID.String())
			}
			if want := fmt.Sprintf("install %s, disable %s, enable %s", lab.NewOperator.ICCID, lab.OldOperator.ICCID, lab.NewOperator.ICCID); strings.Join(got, ", ") != want {
				t.Errorf("the server has heard %s, want %s", strings.Join(got, ", "), want)
			}
			if left, err := filepath.Glob(filepath.Join(r.Dir, "var", "packets", "*")); err != nil || len(left) != 0 {
				t.Errorf("left on the device: %v, %v", left, err)
			}
		})
	}
}

// TestPacketsAsText: the same through a terminal, with a person who is asked; and a job that waits can be aborted, and
// does not wait for ever.
func TestPacketsAsText(t *testing.T) {
	r := newRemote(t, "")
	r.install()
	id := r.job().ID
	for number := int64(1); number <= 2; number++ {
		p := r.waits(id, number)
		text := lpactl(r.ctx, t, r.Daemon, 0, "packets", "get", "--text").Stdout
		file := filepath.Join(t.TempDir(), "answers")
		must(t, os.WriteFile(file, []byte(r.shell("$lpactl packets carry - --trust-dir $dir/trust.d --address $host=$server", text)), 0o600))
		b, err := os.ReadFile(file)
		must(t, err)
		said := r.shell("$lpactl packets put - 2>&1", string(b))
		if !strings.Contains(said, p.ID+": taken") {
			t.Errorf("put: %s", said)
		}
		if number == 2 && !strings.Contains(said, "lpactl jobs answer "+id) {
			t.Errorf("nobody is told to answer: %s", said)
		}
		t.Logf("packet %d: %d letters there, %d back", number, len(text), len(b))
	}
	lpactl(r.ctx, t, r.Daemon, 0, "jobs", "answer", id)
	eventually(r.ctx, t, "packet 3", func() bool { j := r.job(); return j.Packet != nil && j.Packet.Number == 3 })
	lpactl(r.ctx, t, r.Daemon, 0, "jobs", "abort", id)
	eventually(r.ctx, t, "the end", func() bool { return r.job().State == "cancelled" })
	if got := len(r.w.Card.Profiles()); got != 1 {
		t.Errorf("%d profiles", got)
	}

	must(t, r.Stop())
	must(t, r.Configure("rsp: {packet_timeout: 1s}\n"))
	must(t, r.Start(r.ctx))
	r.install()
	eventually(r.ctx, t, "the end", func() bool { return r.job().Ended })
	if p := r.job().Problem; p == nil || p.Code != "packet-timeout" {
		t.Errorf("nobody came: %+v", p)
	}
}

func (r *remote) install() {
	r.t.Helper()
	lpactl(r.ctx, r.t, r.Daemon, 0, "install", r.w.ActivationCode(), "--offline", "--detach")
}

// shell runs a line of a shell with a standard input, and returns what it prints.
func (r *remote) shell(line, in string) string {
	r.t.Helper()
	cmd := exec.CommandContext(r.ctx, "sh", "-ec", line)
	cmd.Env = append(os.Environ(), "lpactl="+filepath.Join(programs, "lpactl"), "LPAD_SOCKET="+r.Socket, "dir="+r.Dir, "host="+lab.Host, "server="+r.server)
	cmd.Stdin = strings.NewReader(in)
	out, err := cmd.Output()
	if err != nil {
		r.t.Fatalf("%s: %v\n%s", line, err, out)
	}
	return string(out)
}

// job is the newest.
func (r *remote) job() api.Job {
	r.t.Helper()
	c := r.Client()
	defer c.Close()
	v, err := c.Jobs(r.ctx)
	must(r.t, err)
	return v.Jobs[0]
}
