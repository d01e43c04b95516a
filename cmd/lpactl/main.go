// Lpactl is the technician's command: it talks to lpad over the local socket
// and prints what it says, for people or, with --json, for programs.
//
//	lpactl status
//	lpactl install 'LPA:1$smdp.example.com$04386-AGYFT-A74Y8-3F815' --enable
//	lpactl profiles
//
// It holds no state and no rights of its own: what it may do is what the
// groups of the caller may do. The exit code tells kinds of trouble apart; see
// exit.go.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"
)

// version is set by the linker.
var version = "unknown"

func main() {
	ctx, cancel := context.WithCancelCause(context.Background())
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	go func() {
		s := <-signals
		signal.Stop(signals) // the next one ends lpactl, whatever it does
		if s == os.Interrupt {
			cancel(errTyped)
			return
		}
		cancel(nil)
	}()
	os.Exit(run(ctx, os.Args[1:], os.Stdin, os.Stdout, os.Stderr))
}
