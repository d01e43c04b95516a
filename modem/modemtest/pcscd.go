package modemtest

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Files of Debian's packages that a pcscd with a virtual reader needs. Variables
// of no test: the daemon has its own directory compiled in as well.
const (
	pcscdProgram = "/usr/sbin/pcscd"
	vpcdDriver   = "/usr/lib/pcsc/drivers/serial/libifdvpcd.so"
	pcscdRunDir  = "/run/pcscd" // compiled in: overlaid in a mount namespace of its own
)

// PCSCD is a real pcscd that nobody else sees, with a virtual reader in which
// whoever connects to [PCSCD.Addr] is the card (apdutest.ServeVPCD). It needs
// root.
type PCSCD struct {
	dir  string
	port int
	cmd  *exec.Cmd
	log  *os.File
	done chan error // gives what Wait gave
}

// pcscdReadyTimeout is how long pcscd may take to open its socket and the port
// of the reader. It takes 50 ms on an idle machine.
const pcscdReadyTimeout = time.Minute

// StartPCSCD starts a pcscd whose files are in dir, and returns when clients
// and a card can connect. dir should be short: a socket is made below it. ctx
// bounds the starting only.
func StartPCSCD(ctx context.Context, dir string) (*PCSCD, error) {
	if missing := missingPCSCD(); missing != "" {
		return nil, errors.New(missing)
	}
	// pcscd is told a path that has to hold inside of its namespace as well.
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, err
	}
	p := &PCSCD{dir: dir}
	// A port that was free a moment ago may be taken by now: then another.
	for attempt := 0; ; attempt++ {
		if p.port, err = freePortPair(); err != nil {
			return nil, err
		}
		err = p.start(ctx)
		if err == nil || ctx.Err() != nil || attempt == 2 {
			break
		}
	}
	if err != nil {
		return nil, fmt.Errorf("start pcscd: %w", err)
	}
	return p, nil
}

// freePortPair finds two ports in a row: vpcd listens on the one it is told, and
// the next.
func freePortPair() (int, error) {
	for range 100 {
		a, err := net.Listen("tcp", ":0")
		if err != nil {
			return 0, err
		}
		port := a.Addr().(*net.TCPAddr).Port
		b, err := net.Listen("tcp", ":"+strconv.Itoa(port+1))
		if err == nil {
			err = b.Close()
		}
		if cerr := a.Close(); err == nil && cerr == nil {
			return port, nil
		}
	}
	return 0, errors.New("no two free ports in a row")
}

// start starts the daemon on p.port and waits until it is ready.
func (p *PCSCD) start(ctx context.Context) error {
	run, conf := filepath.Join(p.dir, "run"), filepath.Join(p.dir, "reader.conf.d")
	for _, d := range []string{run, conf} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			return err
		}
	}
	if err := os.MkdirAll(pcscdRunDir, 0o755); err != nil {
		return err // the mount point; empty is enough
	}
	reader := fmt.Sprintf("FRIENDLYNAME \"Virtual PCD\"\nDEVICENAME /dev/null:%d\nLIBPATH %s\nCHANNELID %d\n", p.port, vpcdDriver, p.port)
	if err := os.WriteFile(filepath.Join(conf, "vpcd"), []byte(reader), 0o644); err != nil {
		return err
	}
	var err error
	if p.log, err = os.OpenFile(filepath.Join(p.dir, "pcscd.log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644); err != nil {
		return err
	}
	p.cmd = exec.Command("/bin/sh", "-euc", `mount --bind "$0/run" `+pcscdRunDir+` && exec `+pcscdProgram+` -f -c "$0/reader.conf.d"`, p.dir)
	p.cmd.Stdout, p.cmd.Stderr = p.log, p.log
	// Unshareflags, not Cloneflags: mounts are then private before the shell
	// runs. Pdeathsig, so that a test that is killed leaves no daemon behind.
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS, Setpgid: true, Pdeathsig: syscall.SIGKILL}
	if err := p.cmd.Start(); err != nil {
		return errors.Join(err, p.log.Close())
	}
	done := make(chan error, 1)
	p.done = done
	cmd := p.cmd
	go func() { done <- cmd.Wait() }()
	if err := p.ready(ctx); err != nil {
		return errors.Join(err, p.Close())
	}
	return nil
}

// ready waits for the socket and the port.
func (p *PCSCD) ready(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, pcscdReadyTimeout)
	defer cancel()
	for {
		conn, err := net.Dial("unix", p.Socket())
		if err == nil {
			err = conn.Close()
		}
		// To look at the port by connecting would be to insert a card.
		if err == nil {
			err = portTaken(p.port)
		}
		if err == nil {
			return nil
		}
		select {
		case werr := <-p.done:
			p.done <- werr
			return fmt.Errorf("ended at once: %w\n%s", werr, p.logText())
		case <-ctx.Done():
			return fmt.Errorf("not ready: %w: %w\n%s", err, ctx.Err(), p.logText())
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// portTaken says whether somebody listens on the port, by trying to.
func portTaken(port int) error {
	l, err := net.Listen("tcp", ":"+strconv.Itoa(port))
	if errors.Is(err, unix.EADDRINUSE) {
		return nil
	}
	if err == nil {
		err = errors.Join(errors.New("nobody listens on the port of the reader"), l.Close())
	}
	return err
}

// logText gives the end of what pcscd wrote.
func (p *PCSCD) logText() string {
	b, err := os.ReadFile(filepath.Join(p.dir, "pcscd.log"))
	if err != nil {
		return err.Error()
	}
	return strings.TrimSpace(string(b[max(0, len(b)-1000):]))
}

// Addr is where the virtual reader waits for its card, for apdutest.ServeVPCD.
func (p *PCSCD) Addr() string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(p.port)) }

// SecondAddr is the same for the second virtual reader, which vpcd brings along.
func (p *PCSCD) SecondAddr() string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(p.port+1)) }

// Socket is where clients connect.
func (p *PCSCD) Socket() string { return filepath.Join(p.dir, "run", "pcscd.comm") }

// Env is what clients need in their environment, in the form of os.Environ.
func (p *PCSCD) Env() []string { return []string{"PCSCLITE_CSOCK_NAME=" + p.Socket()} }

// Restart kills pcscd, as a crash would, and starts it again with the same
// socket and the same reader.
func (p *PCSCD) Restart(ctx context.Context) error {
	if err := p.Close(); err != nil {
		return err
	}
	if err := p.start(ctx); err != nil {
		return fmt.Errorf("restart pcscd: %w", err)
	}
	return nil
}

// Close kills pcscd and waits for its end. Its namespace and the mount in it
// vanish with it. It may be called again.
func (p *PCSCD) Close() error {
	if p.cmd == nil {
		return nil
	}
	err := syscall.Kill(-p.cmd.Process.Pid, syscall.SIGKILL)
	if errors.Is(err, syscall.ESRCH) {
		err = nil // it has ended by itself
	}
	if err == nil {
		<-p.done // "signal: killed"
	}
	p.cmd = nil
	// pcscd takes a socket that is left over for a running pcscd.
	for _, name := range []string{"pcscd.comm", "pcscd.pid"} {
		if rerr := os.Remove(filepath.Join(p.dir, "run", name)); !errors.Is(rerr, os.ErrNotExist) {
			err = errors.Join(err, rerr)
		}
	}
	return errors.Join(err, p.log.Close())
}
