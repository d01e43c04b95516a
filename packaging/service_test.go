package packaging_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"lpad/agent/api"
	"lpad/agent/client"
	"lpad/agent/metrics/metricstest"
	"lpad/agent/runner"
	"lpad/cmd/lpalab/lab"
	"lpad/modem/modemtest"
	"lpad/packaging/packagetest"
)

// moody is a card that can be made slow, or to keep a command for ever.
type moody struct {
	modemtest.Card

	mu   sync.Mutex
	mood func(command []byte) <-chan struct{} // what a command waits for; nil: nothing
	lost bool                                 // a command that has waited is not carried out any more
}

func (m *moody) Transmit(ctx context.Context, command []byte) ([]byte, error) {
	m.mu.Lock()
	mood := m.mood
	m.mu.Unlock()
	if mood != nil {
		if wait := mood(command); wait != nil {
			<-wait
			m.mu.Lock()
			lost := m.lost
			m.mu.Unlock()
			if lost {
				return nil, errors.New("the card was without power")
			}
		}
	}
	return m.Card.Transmit(ctx, command)
}

func (m *moody) be(mood func(command []byte) <-chan struct{}) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.mood = mood
}

// cycle takes the card's power away and gives it back.
func (m *moody) cycle(waiting chan struct{}) {
	m.mu.Lock()
	m.mood, m.lost = nil, true
	m.mu.Unlock()
	m.Reset()
	close(waiting)
}

// share does what the kernel does when the last user of a serial device is gone: it is nobody's own any more. The modem holds
// its own end open, so that this one never is the last.
func share(t *testing.T, tty string) {
	t.Helper()
	f, err := os.OpenFile(tty, os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := unix.IoctlSetInt(int(f.Fd()), unix.TIOCNXCL, 0); err != nil {
		t.Fatal(err)
	}
}

// patience is how long a test waits for what comes within a second on a machine that has nothing else to do.
const patience = time.Minute

// until waits for a condition.
func until(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !ok(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("never: %s", what)
		}
	}
}

// TestService is lpad as a service of the real systemd, with a card behind a modem and a server: it is started by its socket, ready
// when it can be used, and stays so while the card is slow; when the card keeps a command for ever in the middle of a job, the
// watchdog starts it anew, and the job is done. Its configuration is changed while it runs, and it stops in time.
//
// That lpad differs from the one that is shipped in one figure: it takes a card for hung after 6 s, not after 5 min 40 s.
func TestService(t *testing.T) {
	packagetest.Require(t)
	if _, err := os.Stat("/lib/systemd/systemd-journald"); err != nil {
		missing(t, err.Error())
	}
	t.Parallel()
	dir := debs(t, built(t, "LDFLAGS=-s -w -X main.version=1.0 -X main.patience=6s"), "1.0")
	link := filepath.Join(t.TempDir(), "tty")
	i := startDevice(t)
	i.sh("systemctl start dbus.socket")
	t.Cleanup(func() {
		if t.Failed() {
			out, err := i.d.Run(context.Background(), "journalctl", "--no-pager", "-q", "-o", "short-precise", "-u", "lpad.service")
			t.Log(out, err)
		}
	})

	// The world around it.
	w, err := lab.New(lab.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.Close)
	l, err := i.d.Listen()
	if err != nil {
		t.Fatal(err)
	}
	w.Serve(l)
	card := &moody{Card: w.Card}
	modem, err := modemtest.New(modemtest.Config{Card: card, Subscriptions: []modemtest.Subscription{lab.OldOperator.Subscription(), lab.NewOperator.Subscription()},
		Contexts: []modemtest.Context{{CID: 1, Type: "IP", APN: lab.OldOperator.APN}}})
	if err != nil {
		t.Fatal(err)
	}
	forever := make(chan struct{})
	t.Cleanup(func() {
		select {
		case <-forever:
		default:
			card.cycle(forever)
		}
		if err := modem.Close(); err != nil {
			t.Error(err)
		}
	})
	if _, err := modem.OpenPTY(link); err != nil {
		t.Fatal(err)
	}
	tty, err := os.Readlink(link)
	if err == nil {
		err = os.Chmod(tty, 0o666)
	}
	if err != nil {
		t.Fatal(err)
	}

	// The journal is the real one too.
	i.sh(`mkdir -p /etc/systemd/journald.conf.d /run/systemd/system/lpad.service.d
printf '[Journal]\nReadKMsg=no\nStorage=volatile\nRateLimitBurst=0\n' >/etc/systemd/journald.conf.d/test.conf
systemctl start systemd-journald.socket systemd-journald-dev-log.socket systemd-journald.service
printf '[Service]\nWatchdogSec=3\nRestartSec=1\nStandardOutput=journal\nStandardError=journal\n' >/run/systemd/system/lpad.service.d/test.conf`)
	i.install(dir, "lpad_1.0_"+architecture(t)+".deb")
	i.sh("systemctl stop lpad.service")
	i.give("/etc/lpad/trust.d/lab.pem", string(w.PKI.CI.Certificate.PEM()))
	i.give("/etc/lpad/lpad.d/lab.yaml", fmt.Sprintf("version: 1\ncard: {backend: at, at_port: %s}\nmodem: {manage: none}\nnetwork: {backend: none, dead_man: 60s}\n"+
		"rsp: {notification_retry: 1s, addresses: {%s: %q}}\n", tty, lab.Host, l.Addr()))
	i.sh(`cat >/etc/lpad/hooks.d/applied.d/10-look <<'END'
#!/bin/sh
i=0; while [ "$(ulimit -c)" != 0 ] && [ $i -lt 100 ]; do sleep 0.02; i=$((i+1)); done
touch /etc/lpad/x /usr/x 2>/dev/null || echo "hook: $(id -un), files $(ulimit -n), $(sed -n 's/^NoNewPrivs:.//p' /proc/self/status), read-only"
for d in /tmp /var/tmp /run/lpad /var/lib/lpad /dev/shm; do cp /bin/true $d/true 2>/dev/null || echo "hook: no writing in $d"; if $d/true 2>/dev/null; then echo "hook: executed in $d"; fi; rm -f $d/true; done
END
chmod 0755 /etc/lpad/hooks.d/applied.d/10-look`)
	t.Log(i.sh("systemd-analyze security --offline=true --threshold=15 lpad.service | tail -1"))

	const show = "systemctl show lpad.service -P "
	c := client.New(i.d.Path("/run/lpad/lpad.sock"))
	defer c.Close()

	// By the socket; ready when the card was looked at. A card that takes 4 s for that is slow, and no more.
	slow := make(chan struct{})
	card.be(func([]byte) <-chan struct{} { return slow })
	i.want("systemctl is-active lpad.socket lpad.service || :", "active\ninactive")
	begin := time.Now()
	status, err := c.Status(t.Context())
	if err != nil || status.State != string(runner.Starting) {
		t.Errorf("state %q, %v", status.State, err)
	}
	answered := time.Since(begin)
	i.want(show+"ActiveState; "+show+"StatusText", "activating\nlooking for the card")
	time.Sleep(4*time.Second - time.Since(begin))
	i.want(show+"ActiveState", "activating")
	card.be(nil)
	close(slow)
	until(t, "active", func() bool { return i.sh(show+"ActiveState") == "active" })
	t.Logf("by the socket: answered after %v, ready after %v", answered, time.Since(begin))
	i.want(show+"StatusText; "+show+"NRestarts; "+show+"WatchdogUSec", "ready\n0\n3s")

	// A job. Each command takes longer than the watchdog waits for, once; then the one that enables the profile is kept for ever.
	pid := i.sh(show + "MainPID")
	patient := make(chan struct{})
	hangs := make(chan struct{})
	var once sync.Once
	card.be(func(command []byte) <-chan struct{} {
		switch {
		case bytes.Contains(command, []byte{0xBF, 0x36}): // the package begins
			return patient
		case bytes.Contains(command, []byte{0xBF, 0x31}): // EnableProfile
			once.Do(func() { close(hangs) })
			return forever
		}
		return nil
	})
	job, err := c.Install(t.Context(), api.InstallRequest{ActivationCode: w.ActivationCode(), Enable: true, Consent: true})
	if err != nil {
		t.Fatal(err)
	}
	until(t, "loading", func() bool { return i.sh(show+"StatusText") == "install: loading (step 3 of 10)" })
	time.Sleep(4 * time.Second)
	close(patient)
	select {
	case <-hangs:
	case <-time.After(patience):
		t.Fatalf("no profile is enabled: %s", i.sh(show+"StatusText"))
	}
	i.want(show+"NRestarts; "+show+"MainPID", "0\n"+pid)
	begin = time.Now()
	until(t, "the watchdog", func() bool { return i.sh(show+"NRestarts") == "1" })
	killed := time.Since(begin)
	card.cycle(forever)
	share(t, tty)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	var done api.Job
	until(t, "the job is done", func() bool {
		done, err = c.Job(ctx, job.ID)
		return err == nil && done.Ended
	})
	if done.State != "done" {
		t.Errorf("the job ended %s: %+v", done.State, done.Problem)
	}
	t.Logf("hung, killed after %v; the job done %v after that", killed, time.Since(begin)-killed)
	if id, _ := w.Card.EnabledICCID(); id.String() != lab.NewOperator.ICCID {
		t.Errorf("enabled is %s", id)
	}
	until(t, "both notifications", func() bool { return len(w.SMDP.Notifications()) >= 2 })
	log := i.sh("journalctl --no-pager -o cat -u lpad.service")
	for _, text := range []string{"lpad hangs and is ended, to be started anew", "card main: a command to the card hangs, for ", "SIGABRT: abort", "goroutine ", "resuming job=" + job.ID,
		// The maker's hook, called by lpad in its sandbox.
		"hook: lpad, files 256, 1, read-only"} {
		if !strings.Contains(log, text) {
			t.Errorf("the log has no %q", text)
		}
	}
	if strings.Contains(log, "hook: executed") || strings.Contains(log, "hook: no writing") {
		t.Error("a hook could execute what it wrote, or could not write where lpad does")
	}
	until(t, "ready again", func() bool { return i.sh(show+"StatusText") == "ready" })

	// The log has fields, and no identifiers in them.
	i.want("journalctl --no-pager -q -o cat --output-fields=MESSAGE LPAD_JOB="+job.ID+" LPAD_STATE=loading | head -1 | cut -c1-4", "step")
	i.want("journalctl --no-pager -q -o json -u lpad.service | grep -c "+lab.NewOperator.ICCID+" || :", "0")

	// Figures.
	text := i.get("/metrics")
	families, err := metricstest.Parse(text)
	if err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	if len(families) < 15 || !strings.Contains(text, `lpad_jobs_ended_total{card="main",kind="install",outcome="done"} 1`) || strings.Contains(text, lab.NewOperator.ICCID) {
		t.Errorf("figures:\n%s", text)
	}

	// The configuration is read again: what can change, changes; what cannot is named; what is wrong is not in use.
	pid = i.sh(show + "MainPID")
	i.give("/etc/lpad/lpad.d/mine.yaml", "version: 1\nlog: {level: debug}\n")
	i.sh("systemctl reload lpad.service")
	until(t, "the change is told", func() bool {
		return strings.Contains(i.sh("journalctl --no-pager -q -o cat -u lpad.service | tail -40"), "configuration read again changed=[log.level]")
	})
	i.give("/etc/lpad/lpad.d/mine.yaml", "version: 1\nlog: {level: debug}\nnetwork: {probe_timeout: 40s}\n")
	i.sh("systemctl reload lpad.service")
	until(t, "what needs a restart", func() bool {
		return i.sh(show+"StatusText") == "ready; changed, and needs a restart: network.probe_timeout"
	})
	i.give("/etc/lpad/lpad.d/mine.yaml", "version: 1\nnonsense: 1\n")
	if _, err := i.fails("systemctl reload lpad.service"); err == nil {
		t.Error("a wrong configuration is read again without an error")
	}
	until(t, "what is wrong", func() bool {
		line := i.sh(show + "StatusText")
		return strings.HasPrefix(line, "ready; the configuration on the disk is wrong and not in use: ") && strings.Contains(line, "nonsense")
	})
	i.want(show+"ActiveState; "+show+"MainPID; "+show+"NRestarts", "active\n"+pid+"\n1")
	i.sh("rm /etc/lpad/lpad.d/mine.yaml; systemctl reload lpad.service")
	until(t, "all is well", func() bool { return i.sh(show+"StatusText") == "ready" })

	// Stopped while the card is slow with something: in time.
	card.mu.Lock()
	card.lost = false
	card.mu.Unlock()
	stuck := make(chan struct{})
	card.be(func([]byte) <-chan struct{} { return stuck })
	go func() { _, _ = c.Probe(context.Background()) }() // its answer is not waited for
	time.Sleep(500 * time.Millisecond)
	begin = time.Now()
	i.sh("systemctl stop lpad.service")
	took := time.Since(begin)
	close(stuck)
	t.Logf("stopped after %v", took)
	if took > 10500*time.Millisecond {
		t.Error("that is too late")
	}

	// A crash by itself is one after which it comes back, whatever its exit status would have been.
	card.be(nil)
	i.sh("systemctl start lpad.service")
	pid = i.sh(show + "MainPID")
	i.sh("kill -ABRT " + pid)
	share(t, tty)
	until(t, "back after a crash", func() bool {
		return i.sh(show+"MainPID") != pid && i.sh(show+"ActiveState") == "active"
	})
}

// give writes a file on the device.
func (i installed) give(name, text string) {
	i.Helper()
	name = i.d.Path(name)
	err := os.MkdirAll(filepath.Dir(name), 0o755)
	if err == nil {
		err = os.WriteFile(name, []byte(text), 0o644)
	}
	if err != nil {
		i.Fatal(err)
	}
}

// get asks the socket of lpad.
func (i installed) get(path string) string {
	i.Helper()
	h := http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", i.d.Path("/run/lpad/lpad.sock"))
	}}}
	r, err := h.Get("http://" + api.Host + path)
	if err != nil {
		i.Fatal(err)
	}
	defer r.Body.Close()
	text, err := io.ReadAll(r.Body)
	if err != nil || r.StatusCode != http.StatusOK {
		i.Fatalf("%s: %s, %v", path, r.Status, err)
	}
	return string(text)
}
