package main

import (
	"context"
	"errors"
	"strconv"

	"github.com/spf13/cobra"

	"lpad/agent/api"
	"lpad/agent/client"
)

func (a *app) slotCommand() *cobra.Command {
	run := func(cmd *cobra.Command, ask func(context.Context, *client.Client) (api.Slot, error)) error {
		return a.with(cmd, func(ctx context.Context, c *client.Client) error {
			s, err := ask(ctx, c)
			if err != nil {
				return err
			}
			if a.json {
				return a.ui.document(s)
			}
			a.ui.facts([][2]string{{"card", s.Card}, {"active slot", strconv.Itoa(s.Active)}, {"configured", s.Configured}})
			return nil
		})
	}
	cmd := &cobra.Command{
		Use: "slot", Short: "which SIM slot the modem uses", Args: exactly(0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return run(cmd, func(ctx context.Context, c *client.Client) (api.Slot, error) { return c.Slot(ctx) })
		},
	}
	cmd.AddCommand(&cobra.Command{
		Use: "set N", Short: "switch the modem to another SIM slot, and back if no eUICC answers there", Args: exactly(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			n, err := strconv.Atoi(args[0])
			if err != nil {
				return usageError{errors.New("the slot is a number, as the maker of the modem counts them")}
			}
			return run(cmd, func(ctx context.Context, c *client.Client) (api.Slot, error) { return c.SetSlot(ctx, n) })
		},
	})
	return cmd
}
