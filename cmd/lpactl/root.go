package main

import (
	"context"
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"

	"lpad/agent/client"
)

// app is what the commands share.
type app struct {
	ui     *ui
	socket string
	card   string
	json   bool
	keys   *keyboard

	terminal bool // a person can be asked something that has nothing to do with the command
}

// run is main with its surroundings as arguments, and returns the exit code.
func run(ctx context.Context, args []string, in io.Reader, out, errs io.Writer) int {
	a := &app{keys: newKeyboard(in), terminal: isTerminal(in) && isTerminal(errs), ui: &ui{out: out, errs: errs}}
	root := &cobra.Command{
		Use:           "lpactl",
		Short:         "talk to lpad, the eSIM provisioning agent",
		Version:       version,
		SilenceUsage:  true,
		SilenceErrors: true,
		Args:          cobra.ArbitraryArgs,
		RunE: func(cmd *cobra.Command, args []string) error { // only when no command fits
			if len(args) > 0 {
				return usageError{fmt.Errorf("there is no command %q", args[0])}
			}
			return cmd.Help()
		},
	}
	root.SetArgs(args)
	root.SetIn(in)
	root.SetOut(out)
	root.SetErr(errs)
	socket := os.Getenv("LPAD_SOCKET")
	if socket == "" {
		socket = client.DefaultSocket
	}
	root.PersistentFlags().StringVar(&a.socket, "socket", socket, "the daemon's socket (LPAD_SOCKET)")
	root.PersistentFlags().StringVar(&a.card, "card", os.Getenv("LPAD_CARD"), "of several cards, the one that is meant: its `name` or EID (LPAD_CARD)")
	root.PersistentFlags().BoolVar(&a.json, "json", false, "print JSON, for programs")
	root.PersistentPreRun = func(*cobra.Command, []string) { a.ui.json = a.json }
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return usageError{err} })
	root.AddCommand(
		a.statusCommand(), a.cardsCommand(), a.euiccCommand(), a.profilesCommand(), a.probeCommand(),
		a.installCommand(), a.enableCommand(), a.disableCommand(), a.deleteCommand(), a.nicknameCommand(), a.orderCommand(),
		a.slotCommand(), a.relayCommand(), a.trustCommand(), a.apduCommand(), a.packetsCommand(), a.notificationsCommand(), a.jobsCommand(), a.eventsCommand(),
		a.paramsCommand(), a.doctorCommand(), a.bundleCommand(),
		a.explainCommand(),
	)
	a.completions(root)
	err := root.ExecuteContext(ctx)
	if err == nil {
		return exitOK
	}
	return a.ui.fail(err)
}

// with runs f with a client.
func (a *app) with(cmd *cobra.Command, f func(context.Context, *client.Client) error) error {
	c := client.New(a.socket)
	defer c.Close()
	return f(cmd.Context(), c.For(a.card))
}

// usageError is a command line that makes no sense.
type usageError struct{ error }

// exactly is cobra.ExactArgs with our kind of error.
func exactly(n int) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if err := cobra.ExactArgs(n)(cmd, args); err != nil {
			return usageError{err}
		}
		return nil
	}
}
