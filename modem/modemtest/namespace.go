package modemtest

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Names of the network interfaces, in the namespaces of each stack.
const (
	deviceInterface   = "wwan0" // the modem's net port on the device
	operatorInterface = "op0"   // the other end of it
)

// daemonStopTimeout is what a daemon gets between SIGTERM and SIGKILL.
const daemonStopTimeout = 3 * time.Second

// holder keeps a network and a mount namespace alive: a shell that has set
// them up and now waits for the end of its standard input. So the namespaces
// end with this process, whatever kills it.
type holder struct {
	cmd   *exec.Cmd
	stdin io.Closer
}

// hold starts a shell in new namespaces, runs script in it, and returns when
// the script is done. The script is kept in file; env is added to its environment.
func hold(ctx context.Context, file, script string, env ...string) (*holder, error) {
	if err := os.WriteFile(file, []byte(script+"echo ready\nread -r line || exit 0\n"), 0o755); err != nil {
		return nil, err
	}
	cmd := exec.Command("/bin/sh", "-eu", file)
	cmd.Env = append(os.Environ(), env...)
	// Unshareflags, not Cloneflags: the child then makes its mounts private before anything else.
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNET | syscall.CLONE_NEWNS, Setpgid: true}
	var errText strings.Builder
	cmd.Stderr = &errText
	stdin, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("new namespaces: %w", err)
	}
	h := &holder{cmd: cmd, stdin: stdin}
	stop := context.AfterFunc(ctx, func() { h.kill() })
	defer stop()
	line, err := bufio.NewReader(stdout).ReadString('\n')
	if err != nil || line != "ready\n" {
		h.kill()
		werr := cmd.Wait()
		return nil, fmt.Errorf("set up namespaces: %w", errors.Join(ctx.Err(), werr, errors.New(strings.TrimSpace(errText.String()))))
	}
	return h, nil
}

func (h *holder) kill() {
	// Only fails when the process is gone already.
	_ = h.cmd.Process.Kill()
}

// close ends the holder. The namespaces go when the last process in them has gone.
func (h *holder) close() error {
	err := h.stdin.Close()
	timer := time.AfterFunc(daemonStopTimeout, h.kill)
	defer timer.Stop()
	return errors.Join(err, h.cmd.Wait())
}

func (h *holder) path(kind string) string {
	return fmt.Sprintf("/proc/%d/ns/%s", h.cmd.Process.Pid, kind)
}

// wrap turns a program and its arguments into those of a shell and nsenter
// that run it inside. The process keeps its id, and its working directory when
// that exists inside.
func (h *holder) wrap(name string, args ...string) []string {
	const script = `exec nsenter --net="$1" --mount="$2" --wdns="$PWD" -- sh -c 'shift 2; exec "$@"' sh "$@"`
	return append([]string{"/bin/sh", "-c", script, "sh", h.path("net"), h.path("mnt"), name}, args...)
}

// inNetNS runs f on a thread inside the network namespace. Sockets made by f
// stay there. f must neither start goroutines that make sockets, nor resolve names.
func (h *holder) inNetNS(f func() error) error {
	runtime.LockOSThread()
	home, err := os.Open("/proc/thread-self/ns/net")
	if err != nil {
		runtime.UnlockOSThread()
		return fmt.Errorf("own network namespace: %w", err)
	}
	defer home.Close()
	there, err := os.Open(h.path("net"))
	if err != nil {
		runtime.UnlockOSThread()
		return fmt.Errorf("network namespace of the stack: %w", err)
	}
	defer there.Close()
	if err := unix.Setns(int(there.Fd()), unix.CLONE_NEWNET); err != nil {
		runtime.UnlockOSThread()
		return fmt.Errorf("enter the network namespace: %w", err)
	}
	err = f()
	if back := unix.Setns(int(home.Fd()), unix.CLONE_NEWNET); back != nil {
		// The thread stays locked, so it dies with its goroutine instead of doing harm elsewhere.
		return errors.Join(err, fmt.Errorf("leave the network namespace: %w", back))
	}
	runtime.UnlockOSThread()
	return err
}

// VethLink is the operator's end of a veth pair: it has the address of a
// subscription's gateway exactly while the link is up, and answers and routes
// for no other, so packets of a device with the wrong context, or with the
// address of another subscription, come to nothing.
type VethLink struct{ operator *holder }

// Up gives the operator's end the subscription's gateway address, unless that
// one is without data.
func (l *VethLink) Up(ctx context.Context, s Subscription) error {
	if err := l.Down(ctx); err != nil || s.NoData {
		return err
	}
	return l.ip(ctx, "addr", "add", fmt.Sprintf("%s/%d", s.Gateway, s.Address.Bits()), "dev", operatorInterface)
}

// Down takes every address from the operator's end.
func (l *VethLink) Down(ctx context.Context) error {
	return l.ip(ctx, "addr", "flush", "dev", operatorInterface)
}

func (l *VethLink) ip(ctx context.Context, args ...string) error {
	full := l.operator.wrap("ip", args...)
	out, err := exec.CommandContext(ctx, full[0], full[1:]...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("ip %s: %w: %s", strings.Join(args, " "), err, strings.TrimSpace(string(out)))
	}
	return nil
}

// Listen opens a listening socket on the operator's side of the modem's link.
// It is an ordinary listener of this process: a socket stays in the network
// namespace it was made in, and so do the connections it accepts. The address
// is numeric; [Stack.ServerAddr] is there from the start. The caller closes it.
func (s *Stack) Listen(network, address string) (net.Listener, error) {
	var l net.Listener
	err := s.operator.inNetNS(func() (err error) {
		l, err = (&net.ListenConfig{}).Listen(context.Background(), network, address)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("modemtest: listen for the operator: %w", err)
	}
	return l, nil
}

// ListenOnDevice is [Stack.Listen] on the device itself: for what it reaches
// without its modem.
func (s *Stack) ListenOnDevice(network, address string) (net.Listener, error) {
	var l net.Listener
	err := s.device.inNetNS(func() (err error) {
		l, err = (&net.ListenConfig{}).Listen(context.Background(), network, address)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("modemtest: listen on the device: %w", err)
	}
	return l, nil
}

// Dial connects from the device, for code under test that runs in this
// process: it has the signature of net.Dialer.DialContext. Names are those
// given to [Stack.AddHost]; no other name resolves.
func (s *Stack) Dial(ctx context.Context, network, address string) (net.Conn, error) {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return nil, err
	}
	if addr, known := s.lookup(host); known {
		address = net.JoinHostPort(addr.String(), port)
	} else if net.ParseIP(host) == nil {
		return nil, &net.DNSError{Err: "no such host", Name: host, IsNotFound: true}
	}
	var c net.Conn
	err = s.device.inNetNS(func() (err error) {
		c, err = (&net.Dialer{}).DialContext(ctx, network, address)
		return err
	})
	return c, err
}

// Command is exec.CommandContext for a program that runs on the device: in its
// network and mount namespaces (/dev with the modem's ports, /sys, /etc/hosts),
// with DBUS_SYSTEM_BUS_ADDRESS of its bus. The process is the program itself,
// so signals and exit codes are its own. name is looked up in PATH on the
// device; Dir works. It is killed when this process dies.
func (s *Stack) Command(ctx context.Context, name string, args ...string) *exec.Cmd {
	full := s.device.wrap(name, args...)
	cmd := exec.CommandContext(ctx, full[0], full[1:]...)
	cmd.Env = s.Environ()
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	cmd.WaitDelay = daemonStopTimeout
	return cmd
}

// Environ is the environment of programs on the device.
func (s *Stack) Environ() []string {
	return append(os.Environ(), "DBUS_SYSTEM_BUS_ADDRESS="+s.BusAddress(), "LC_ALL=C")
}

// daemon is one of the stack's own processes.
type daemon struct {
	name   string
	cmd    *exec.Cmd
	log    *os.File
	logged int64         // bytes of the log that are of an earlier one
	done   chan struct{} // closed when the process has been waited for
	err    error         // of Wait, valid after done
}

// startDaemon starts a program with its output at the end of dir/name.log. wrap, when not
// nil, moves it into a namespace.
func (s *Stack) startDaemon(name string, wrap *holder, args ...string) (*daemon, error) {
	log, err := os.OpenFile(filepath.Join(s.dir, name+".log"), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
	if err != nil {
		return nil, err
	}
	info, err := log.Stat()
	if err != nil {
		return nil, errors.Join(err, log.Close())
	}
	if wrap != nil {
		args = wrap.wrap(args[0], args[1:]...)
	}
	d := &daemon{name: name, cmd: exec.Command(args[0], args[1:]...), log: log, logged: info.Size(), done: make(chan struct{})}
	d.cmd.Env, d.cmd.Stdout, d.cmd.Stderr = s.Environ(), log, log
	d.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	// The kernel sends the death signal when the THREAD that forked ends, so that thread must live as long as the daemon.
	started := make(chan error)
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		d.cmd.SysProcAttr.Pdeathsig = syscall.SIGKILL
		err := d.cmd.Start()
		started <- err
		if err == nil {
			d.err = d.cmd.Wait()
			close(d.done)
		}
	}()
	if err := <-started; err != nil {
		return nil, errors.Join(fmt.Errorf("start %s: %w", name, err), log.Close())
	}
	s.mu.Lock()
	s.daemons = append(s.daemons, d)
	s.mu.Unlock()
	return d, nil
}

// stop ends the daemon: SIGTERM, and SIGKILL to its group after a while.
func (d *daemon) stop() error {
	err := d.cmd.Process.Signal(syscall.SIGTERM)
	if errors.Is(err, os.ErrProcessDone) {
		err = nil
	}
	select {
	case <-d.done:
	case <-time.After(daemonStopTimeout):
		err = errors.Join(err, fmt.Errorf("%s did not end on SIGTERM", d.name), syscall.Kill(-d.cmd.Process.Pid, syscall.SIGKILL))
		<-d.done
	}
	return errors.Join(err, d.log.Close())
}
