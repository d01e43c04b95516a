package lab

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"lpad/agent/client"
)

// Daemon is a running lpad. It is the program as built, with its own
// configuration, state and socket in a folder.
type Daemon struct {
	Dir      string // configuration, state, socket, log
	Socket   string
	programs string
	command  commandFunc
	cmd      *exec.Cmd
	exited   chan struct{}
	mu       sync.Mutex
	err      error
}

// commandFunc makes a command that runs where the daemon is to run.
type commandFunc = func(ctx context.Context, name string, args ...string) *exec.Cmd

// Times of a daemon.
const (
	startTimeout = time.Minute // of a machine that has much else to do
	stopTimeout  = 12 * time.Second
)

// StartDaemon writes a configuration into dir, and more of it as a drop-in if
// there is more, and starts lpad by command (exec.CommandContext, or a
// device's), returning when it has looked at its card.
func StartDaemon(ctx context.Context, dir, programs, configuration, dropin string, command commandFunc) (*Daemon, error) {
	d := &Daemon{Dir: dir, Socket: filepath.Join(dir, "lpad.sock"), programs: programs, command: command}
	full := fmt.Sprintf("version: 1\nstate_dir: %s\nsocket: %s\n%s", filepath.Join(dir, "var"), d.Socket, configuration)
	if err := os.WriteFile(d.configPath(), []byte(full), 0o644); err != nil { // lpad may run as another user
		return nil, err
	}
	if dropin != "" {
		if err := d.Configure(dropin); err != nil {
			return nil, err
		}
	}
	return d, d.Start(ctx)
}

func (d *Daemon) configPath() string { return filepath.Join(d.Dir, "lpad.yaml") }

// Configure replaces the drop-in; it counts from the next Start on.
func (d *Daemon) Configure(dropin string) error {
	dir := filepath.Join(d.Dir, "lpad.d")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, "50-lab.yaml"), []byte("version: 1\n"+dropin), 0o644)
}

// LogPath is the file that lpad logs into.
func (d *Daemon) LogPath() string { return filepath.Join(d.Dir, "lpad.log") }

// Log is what lpad has logged so far.
func (d *Daemon) Log() string {
	b, err := os.ReadFile(d.LogPath())
	if err != nil {
		return err.Error()
	}
	return string(b)
}

// PID is the process id of the daemon.
func (d *Daemon) PID() int { return d.cmd.Process.Pid }

// Start starts the daemon, again after a Stop or Kill.
func (d *Daemon) Start(ctx context.Context) error {
	log, err := os.OpenFile(d.LogPath(), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	defer log.Close()
	d.cmd = d.command(context.WithoutCancel(ctx), filepath.Join(d.programs, "lpad"), "--config", d.configPath())
	d.cmd.Stdout, d.cmd.Stderr = log, log
	if d.cmd.SysProcAttr == nil {
		d.cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	if err := d.cmd.Start(); err != nil {
		return fmt.Errorf("start lpad: %w", err)
	}
	d.exited = make(chan struct{})
	go func(cmd *exec.Cmd, exited chan struct{}) {
		err := cmd.Wait()
		d.mu.Lock()
		d.err = err
		d.mu.Unlock()
		close(exited)
	}(d.cmd, d.exited)
	return d.waitReady(ctx)
}

// waitReady waits until the daemon has read its card.
func (d *Daemon) waitReady(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	c := client.New(d.Socket)
	defer c.Close()
	for {
		s, err := c.Status(ctx)
		if err == nil && s.State != "starting" {
			return nil
		}
		select {
		case <-d.exited:
			return fmt.Errorf("lpad has exited: %w\n%s", d.exitError(), d.Log())
		case <-ctx.Done():
			return fmt.Errorf("lpad is not ready in %v: %w\n%s", startTimeout, errors.Join(err, ctx.Err()), d.Log())
		case <-time.After(20 * time.Millisecond):
		}
	}
}

func (d *Daemon) exitError() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.err
}

// Kill is a crash of the daemon.
func (d *Daemon) Kill() error { return d.end(syscall.SIGKILL) }

// Stop asks the daemon to stop and waits; an exit status other than 0, or
// taking too long, is an error.
func (d *Daemon) Stop() error {
	if err := d.end(syscall.SIGTERM); err != nil {
		return err
	}
	return d.exitError()
}

func (d *Daemon) end(sig syscall.Signal) error {
	if d.exited == nil {
		return nil // it could not be started
	}
	select {
	case <-d.exited:
		return nil
	default:
	}
	if err := d.cmd.Process.Signal(sig); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	select {
	case <-d.exited:
		return nil
	case <-time.After(stopTimeout):
		return errors.Join(fmt.Errorf("lpad does not end by %v", sig), d.cmd.Process.Kill())
	}
}

// Client is a Go client of the daemon's socket; close it.
func (d *Daemon) Client() *client.Client { return client.New(d.Socket) }

// Result is how a command ended.
type Result struct {
	Exit   int
	Stdout string
	Stderr string
}

// Lpactl runs lpactl against the daemon. What it says on standard error is
// copied to live as it comes, if that is not nil.
func (d *Daemon) Lpactl(ctx context.Context, live io.Writer, args ...string) (Result, error) {
	cmd := exec.CommandContext(ctx, filepath.Join(d.programs, "lpactl"), append([]string{"--socket", d.Socket}, args...)...)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if live != nil {
		cmd.Stderr = io.MultiWriter(&errs, live)
	}
	cmd.Stdin = strings.NewReader("")
	err := cmd.Run()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		err = nil
	}
	return Result{Exit: cmd.ProcessState.ExitCode(), Stdout: out.String(), Stderr: errs.String()}, err
}
