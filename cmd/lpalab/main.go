// Lpalab is the lab as a program: a software eUICC, an AT modem, an SM-DP+ and
// the real services of a device around lpad, on a machine without hardware.
//
//	lpalab demo [--keep]       the main job, from an activation code to a connected device; --modem NAME: on this modem
//	lpalab flow                the founding flow: signed orders of an operator server, parameters, reports
//	lpalab modem               the simulated modems; --modem NAME: one of them on two ttys
//	lpalab bench               figures with their bounds
//	lpalab crowd SOCKET        many clients of a socket at once, some of them bad
//	lpalab matrix              the main job on every modem, by every way to its card, with every back-end
//	lpalab faults              faults at every place, and what must hold after each
//	lpalab notifications       kills at every step of a notification's life
//	lpalab soak                many cycles on one device, and what must not grow
//	lpalab params              terminal parameters in the form of a profile's metadata, and back
//	lpalab size FOLDER         the sizes of the programs in a folder
//
// Demo, flow, bench and matrix need root, and so do the faults of disks; all but size and params need lpad, lpactl and lpad-pcsc beside
// lpalab.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	root := &cobra.Command{Use: "lpalab", Short: "the lab for lpad", SilenceUsage: true, SilenceErrors: true}
	root.AddCommand(demoCommand(), flowCommand(), modemCommand(), benchCommand(), sizeCommand(), faultsCommand(), lifeCommand(), soakCommand(), matrixCommand(), crowdCommand())
	root.AddCommand(paramsCommand())
	if err := root.ExecuteContext(ctx); err != nil {
		if !errors.Is(err, errOver) && !errors.Is(err, errLost) {
			fmt.Fprintln(os.Stderr, "error:", err)
		}
		stop()
		os.Exit(1)
	}
}
