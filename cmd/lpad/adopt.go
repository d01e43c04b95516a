package main

import (
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"
)

// adopt is lpad as process 1 of a container. The kernel gives process 1 every
// process whose parent has ended, such as one that a hook has left behind, and
// expects it to wait for them; a program that waits for its own helpers as well
// would take their ends away from whoever needs them. So process 1 does nothing
// else: lpad itself is its child. It returns lpad's exit status.
func adopt() int {
	signals := make(chan os.Signal, 16)
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP, syscall.SIGQUIT, syscall.SIGABRT, syscall.SIGCHLD)
	child, err := os.StartProcess("/proc/self/exe", os.Args, &os.ProcAttr{Files: []*os.File{os.Stdin, os.Stdout, os.Stderr}})
	if err != nil {
		fmt.Fprintln(os.Stderr, "error: lpad as process 1 cannot start itself:", err)
		return 1
	}
	pid := child.Pid
	for s := range signals {
		if s != syscall.SIGCHLD {
			if err := syscall.Kill(pid, s.(syscall.Signal)); err != nil {
				fmt.Fprintln(os.Stderr, "error: signal not handed on:", err)
			}
			continue
		}
		for {
			var status syscall.WaitStatus
			ended, err := syscall.Wait4(-1, &status, syscall.WNOHANG, nil)
			if errors.Is(err, syscall.EINTR) {
				continue
			}
			if ended <= 0 {
				break
			}
			switch {
			case ended != pid || !status.Exited() && !status.Signaled():
			case status.Signaled():
				return 128 + int(status.Signal())
			default:
				return status.ExitStatus()
			}
		}
	}
	return 1 // not reached: the channel is never closed
}
