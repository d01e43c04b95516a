// Package program runs the programs of a device's maker: without arguments,
// with an environment, in a process group of its own, for a bounded time, and
// with a bounded part of what they print.
//
//	said, err := program.Program{Path: "/etc/lpad/interface", Env: env, Timeout: time.Minute}.Run(ctx)
//
// Standard input is empty, and no file of lpad's is open in the program. When
// its time is up, or ctx ends, it is killed with all of its process group.
package program

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"lpad/internal/redact"
)

// Bounds of what is looked at. A program does not stop because it prints more.
const (
	MaxOutput = 16 << 10 // bytes of its output
	MaxLines  = 40       // lines of it that are worth a log
	maxLine   = 512      // bytes of a line
)

// linger is how long the output may stay open when the program has ended: what
// it has left in the background may hold it.
const linger = time.Second

// Program is a program and how it is run.
type Program struct {
	Path    string        // it gets no arguments
	Env     []string      // "NAME=value": its whole environment
	Dir     string        // where it begins; empty: where lpad is
	Timeout time.Duration // after which it is killed

	// Alone kills what the program has left in its process group when it has
	// ended, and the program itself when lpad dies; it gets no privileges by what
	// it executes (no_new_privs), and has the bounds of limits. Without it a
	// program may leave something running, such as pppd, or call sudo.
	Alone bool
}

// limits bound a program that is alone, and what it starts: no core dumps, so
// many open files, and files of so many bytes.
var limits = [...]struct {
	resource int
	most     uint64
}{{unix.RLIMIT_CORE, 0}, {unix.RLIMIT_NOFILE, 256}, {unix.RLIMIT_FSIZE, 64 << 20}}

// Run runs the program and returns the first lines of its output and errors,
// without the empty ones and with identifiers shortened, for they go into the
// log, also when it fails. A program that was killed because
// its time was up, or because ctx has ended, fails with that context's error.
func (p Program) Run(ctx context.Context) (said []string, err error) {
	if !p.Alone {
		return p.run(ctx)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		// The kernel sends the signal when the thread dies that has made the
		// process, so that one must stay. It is never unlocked: what it has given up
		// it cannot get back, and it ends with this goroutine.
		runtime.LockOSThread()
		if err = unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err == nil {
			said, err = p.run(ctx)
		}
	}()
	<-done
	return said, err
}

func (p Program) run(ctx context.Context) (said []string, err error) {
	ctx, cancel := context.WithTimeout(ctx, p.Timeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, p.Path)
	cmd.Env, cmd.Dir = p.Env, p.Dir
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = linger
	if p.Alone {
		cmd.SysProcAttr.Pdeathsig = syscall.SIGKILL
	}
	closeOnExec()
	var out head
	cmd.Stdout, cmd.Stderr = &out, &out
	begin := time.Now()
	err = cmd.Start()
	if err == nil {
		if p.Alone {
			for _, l := range limits { // of one that has ended already it fails, and matters no more
				_ = unix.Prlimit(cmd.Process.Pid, l.resource, &unix.Rlimit{Cur: l.most, Max: l.most}, nil)
			}
			killLeft(cmd.Process.Pid)
		}
		err = cmd.Wait()
	}
	if errors.Is(err, exec.ErrWaitDelay) {
		err = nil // it has ended well; what it left behind holds its output
	}
	if ctx.Err() != nil && err != nil {
		err = fmt.Errorf("not done after %v: %w", time.Since(begin).Round(100*time.Millisecond), ctx.Err())
	}
	return out.lines(), err
}

// closeOnExec keeps what lpad was started with from its programs: the files that
// Go opens close by themselves.
func closeOnExec() {
	const firstFile = 3
	entries, _ := os.ReadDir("/proc/self/fd") // without it there is nothing to be known
	for _, e := range entries {
		if fd, err := strconv.Atoi(e.Name()); err == nil && fd >= firstFile {
			unix.CloseOnExec(fd)
		}
	}
}

// killLeft waits for the end of a process and kills what is left of its group.
// The process is not collected yet, so nobody else can have the number of its
// group.
func killLeft(pid int) {
	for {
		err := unix.Waitid(unix.P_PID, pid, nil, unix.WEXITED|unix.WNOWAIT, nil)
		if err == nil {
			_ = unix.Kill(-pid, unix.SIGKILL) // nobody may be left
		}
		if !errors.Is(err, unix.EINTR) {
			return
		}
	}
}

// head keeps the beginning of what is written. It has no other methods of a
// buffer, or io.Copy would use them.
type head struct{ kept []byte }

// Write never fails: a program does not stop because it talks much.
func (h *head) Write(b []byte) (int, error) {
	h.kept = append(h.kept, b[:min(len(b), MaxOutput-len(h.kept))]...)
	return len(b), nil
}

func (h *head) lines() []string {
	var out []string
	for line := range strings.Lines(string(h.kept)) {
		if line = redact.Identifiers(strings.TrimSpace(strings.ToValidUTF8(line[:min(len(line), maxLine)], "?"))); line != "" {
			out = append(out, line)
		}
	}
	return out
}
