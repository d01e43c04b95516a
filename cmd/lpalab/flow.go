package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/spf13/cobra"

	"lpad/cmd/lpalab/operator"
	"lpad/modem/modemtest"
)

// flowLimit is what the founding flow may take at the most.
const flowLimit = 2 * time.Minute

func flowCommand() *cobra.Command {
	activation := ""
	cmd := &cobra.Command{Use: "flow", Short: "the founding flow: an operator's signed orders, parameters that travel with the profile, and what comes back", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if missing := modemtest.Missing(); missing != "" {
				return errors.New(missing)
			}
			return flow(cmd.Context(), activation)
		}}
	cmd.Flags().StringVar(&activation, "activation", onCommand, "when the loaded profile is activated: on-command, at-once, or at-a-time, for which the device waits, over a restart of lpad")
	return cmd
}

// The activations that flow knows.
const (
	onCommand = "on-command"
	atOnce    = "at-once"
	atATime   = "at-a-time"
)

// activationWait is for how long the device waits.
const activationWait = 10 * time.Second

// flow runs the founding flow on a device of the lab and prints what servers and
// device have written down of it.
func flow(ctx context.Context, activation string) (err error) {
	ctx, cancel := context.WithTimeout(ctx, flowLimit)
	defer cancel()
	say("An operator server with a registry of profiles and one of parameters by terminal; a device with an AT modem,")
	say("ModemManager and NetworkManager; operator and SM-DP+ can be reached through the modem alone.")
	say("")
	l, err := operator.StartLab(ctx, operator.LabOptions{Timing: demoTiming, Delays: demoDelays})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, l.Close()) }()
	var story *operator.Story
	switch activation {
	case onCommand:
		story, err = l.Flow(ctx, l.Staged)
	case atOnce:
		story, err = l.Flow(ctx, nil)
	case atATime:
		story, _, err = l.FlowAtATime(ctx, activationWait)
	default:
		return fmt.Errorf("there is no activation %q", activation)
	}
	if err != nil {
		return fmt.Errorf("%w; the daemon's log:\n%s", err, l.Device.Log())
	}
	if err := story.Print(os.Stdout); err != nil {
		return err
	}
	steps, err := story.Check()
	say("")
	operator.PrintSteps(os.Stdout, steps)
	if err != nil {
		return fmt.Errorf("the flow is not in order: %w", err)
	}
	say("")
	l.Server.Print(os.Stdout)
	say("flow: ok, %d steps in order", len(steps))
	return nil
}
