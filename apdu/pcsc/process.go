package pcsc

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"time"
)

// Deadlines, by kind of request.
const (
	startTimeout   = 5 * time.Second  // from starting the helper to its hello
	listTimeout    = 10 * time.Second // readers and their states
	connectTimeout = 15 * time.Second // powering a card up, and waiting for another program's transaction
	endTimeout     = 2 * time.Second  // for a helper to end by itself, and to vanish when killed
)

// helper is one running helper program. For one goroutine; not used again
// after an error of call.
type helper struct {
	program string
	in, out *os.File // its standard input and output
	pid     int
	stderr  *tail
	exited  chan struct{} // closed when it was waited for
	state   *os.ProcessState
}

// startHelper starts the program and waits for its hello.
func startHelper(ctx context.Context, program string, env []string) (*helper, error) {
	path, err := exec.LookPath(program)
	if err != nil {
		reason := "cannot be run"
		if errors.Is(err, exec.ErrNotFound) || errors.Is(err, fs.ErrNotExist) {
			reason = "not found"
		}
		return nil, &HelperError{Program: program, Reason: reason, Missing: true, Cause: err}
	}
	h := &helper{program: program, stderr: &tail{}, exited: make(chan struct{})}
	if err := h.start(path, env); err != nil {
		return nil, &HelperError{Program: program, Reason: "cannot be run", Cause: err}
	}
	if err := h.hello(ctx); err != nil {
		h.kill()
		return nil, err
	}
	return h, nil
}

// start runs the program in a process group of its own, so that it can be
// killed with whatever it starts, and so that ctrl-C in a terminal reaches us
// alone.
func (h *helper) start(path string, env []string) error {
	cmd := exec.Command(path)
	cmd.Env = append(os.Environ(), env...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Stderr = h.stderr
	cmd.WaitDelay = endTimeout
	// Our own pipes: those of os/exec are closed by Wait, under our hands.
	childIn, in, err := os.Pipe()
	if err != nil {
		return err
	}
	out, childOut, err := os.Pipe()
	if err != nil {
		return errors.Join(err, childIn.Close(), in.Close())
	}
	cmd.Stdin, cmd.Stdout = childIn, childOut
	err = cmd.Start()
	err = errors.Join(err, childIn.Close(), childOut.Close())
	if err != nil {
		return errors.Join(err, in.Close(), out.Close())
	}
	h.in, h.out, h.pid = in, out, cmd.Process.Pid
	go func() {
		// The exit status is all that matters here; it is in ProcessState.
		_ = cmd.Wait()
		h.state = cmd.ProcessState
		close(h.exited)
	}()
	return nil
}

// hello reads the first frame.
func (h *helper) hello(ctx context.Context) error {
	stop := h.limit(ctx, startTimeout)
	defer stop()
	frame, err := h.read()
	if err != nil {
		return h.explain(ctx, err)
	}
	f := NewFields(frame[1:])
	version := f.Byte()
	switch name := f.Text(); {
	case frame[0] != Hello || !f.OK():
		return &HelperError{Program: h.program, Reason: "does not speak our protocol"}
	case version != Version:
		return &HelperError{Program: h.program, Reason: fmt.Sprintf("%.20q speaks version %d of the protocol, we speak %d", name, version, Version)}
	}
	return nil
}

// limit bounds reading and writing by ctx and by a time. stop ends that.
func (h *helper) limit(ctx context.Context, d time.Duration) (stop func()) {
	deadline := time.Now().Add(d)
	// Pipes have deadlines on Linux, so these do not fail.
	_ = h.out.SetReadDeadline(deadline)
	_ = h.in.SetWriteDeadline(deadline)
	done := make(chan struct{})
	cancel := context.AfterFunc(ctx, func() {
		defer close(done)
		_ = h.out.SetReadDeadline(time.Unix(1, 0))
		_ = h.in.SetWriteDeadline(time.Unix(1, 0))
	})
	return func() {
		if !cancel() {
			<-done // else it could end the next request
		}
	}
}

// read reads one frame without its length.
func (h *helper) read() ([]byte, error) {
	var head [4]byte
	if _, err := io.ReadFull(h.out, head[:]); err != nil {
		return nil, err
	}
	n := binary.BigEndian.Uint32(head[:])
	if n < 1 || n > MaxFrame {
		return nil, &HelperError{Program: h.program, Reason: fmt.Sprintf("sent a frame of %d bytes", n)}
	}
	frame := make([]byte, n)
	_, err := io.ReadFull(h.out, frame)
	return frame, err
}

// call sends a request and gives the fields of the answer. What the helper
// refuses is a ServiceError without Op and Reader; the helper is good for more
// then. Every other error is its end, and the caller kills it.
func (h *helper) call(ctx context.Context, d time.Duration, request []byte) (*Fields, error) {
	stop := h.limit(ctx, d)
	defer stop()
	if _, err := h.in.Write(Finish(request)); err != nil {
		return nil, h.explain(ctx, err)
	}
	frame, err := h.read()
	if err != nil {
		return nil, h.explain(ctx, err)
	}
	f := NewFields(frame[1:])
	switch frame[0] {
	case request[4] + Answer:
		return f, nil
	case Failure:
		e := &ServiceError{Code: f.U32(), Text: f.Text()}
		if f.OK() {
			return nil, e
		}
	}
	return nil, &HelperError{Program: h.program, Reason: fmt.Sprintf("answered %02X with %02X", request[4], frame[0])}
}

// explain says why nothing came: ctx, the deadline, or the end of the helper.
func (h *helper) explain(ctx context.Context, err error) error {
	var ours *HelperError
	switch {
	case errors.As(err, &ours):
		return err
	case ctx.Err() != nil:
		return ctx.Err()
	case errors.Is(err, os.ErrDeadlineExceeded):
		return context.DeadlineExceeded
	}
	reason := "ended in the middle of a request"
	select {
	case <-h.exited:
		if h.state != nil && h.state.ExitCode() == ExitNotBuilt {
			return &HelperError{Program: h.program, Reason: "was built without PC/SC", Missing: true}
		}
		if h.state != nil {
			reason += ", " + h.state.String()
		}
	case <-time.After(endTimeout):
		reason = "closed its output"
	}
	if text := h.stderr.String(); text != "" {
		reason += ": " + text
	}
	return &HelperError{Program: h.program, Reason: reason, Cause: err}
}

// stop lets the helper end by itself: it does when its input ends.
func (h *helper) stop() {
	// Closing a pipe fails only if it is closed.
	_ = h.in.Close()
	select {
	case <-h.exited:
	case <-time.After(endTimeout):
	}
	h.kill()
}

// kill ends the helper and its process group, and waits until it is gone. One
// that the kernel does not let go is left behind.
func (h *helper) kill() {
	select {
	case <-h.exited:
	default:
		// The group may be gone by now: then there is nothing to kill.
		_ = syscall.Kill(-h.pid, syscall.SIGKILL)
		select {
		case <-h.exited:
		case <-time.After(endTimeout):
		}
	}
	_ = h.in.Close()
	_ = h.out.Close()
}

// tail keeps the beginning of what a helper writes to its standard error: a
// crashed Go program says there first why.
type tail struct {
	mu sync.Mutex
	b  []byte
}

// maxStderr is how much of it ends up in an error.
const maxStderr = 200

func (t *tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.b = append(t.b, p[:min(len(p), maxStderr-len(t.b))]...)
	return len(p), nil
}

// String gives the first line, printable.
func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	line, _, _ := strings.Cut(strings.TrimSpace(string(t.b)), "\n")
	return strings.ToValidUTF8(strings.Map(func(r rune) rune {
		if r < ' ' {
			return -1
		}
		return r
	}, line), "?")
}
