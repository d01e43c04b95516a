package main

import (
	"context"

	"github.com/spf13/cobra"

	"lpad/agent/api"
	"lpad/agent/client"
)

// order runs a command that makes a job and follows it.
func (a *app) order(cmd *cobra.Command, detach bool, make func(context.Context, *client.Client) (api.Job, error)) error {
	return a.with(cmd, func(ctx context.Context, c *client.Client) error {
		j, err := make(ctx, c)
		if err != nil {
			return err
		}
		return a.follow(ctx, c, j, detach, "")
	})
}

func (a *app) enableCommand() *cobra.Command {
	var detach, deleteOld bool
	var params, reportTo string
	cmd := &cobra.Command{
		Use:   "enable ICCID",
		Short: "switch to an installed profile, with its network settings",
		Args:  exactly(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			doc, err := readParameters(params)
			if err != nil {
				return err
			}
			return a.order(cmd, detach, func(ctx context.Context, c *client.Client) (api.Job, error) {
				return c.Enable(ctx, args[0], api.EnableRequest{Parameters: doc, DeleteOld: deleteOld, ReportTo: reportTo})
			})
		},
	}
	cmd.Flags().StringVar(&params, "params", "", "terminal parameters for the profile: a JSON `file`")
	cmd.Flags().BoolVar(&deleteOld, "delete-old", false, "delete the old profile when the new one has proven itself")
	cmd.Flags().StringVar(&reportTo, "report-to", "", "an https `address` that gets a report of how the job has ended")
	cmd.Flags().BoolVar(&detach, "detach", false, "do not wait for the job")
	return cmd
}

func (a *app) disableCommand() *cobra.Command {
	var detach bool
	cmd := &cobra.Command{
		Use:   "disable ICCID",
		Short: "disable the enabled profile: the device may lose its network",
		Args:  exactly(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.order(cmd, detach, func(ctx context.Context, c *client.Client) (api.Job, error) { return c.Disable(ctx, args[0]) })
		},
	}
	cmd.Flags().BoolVar(&detach, "detach", false, "do not wait for the job")
	return cmd
}

func (a *app) deleteCommand() *cobra.Command {
	var detach, yes bool
	cmd := &cobra.Command{
		Use:   "delete ICCID",
		Short: "delete a disabled profile for ever",
		Args:  exactly(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if !yes {
				answer, err := a.ask(cmd.Context(), "delete "+args[0]+" for ever? A new activation code is needed to get it back. [y/N] ")
				if err != nil {
					return err
				}
				if answer != "y" && answer != "Y" && answer != "yes" {
					return &api.Problem{Code: "consent-refused", Title: "nothing was deleted", Who: "nobody"}
				}
			}
			return a.order(cmd, detach, func(ctx context.Context, c *client.Client) (api.Job, error) { return c.Delete(ctx, args[0]) })
		},
	}
	cmd.Flags().BoolVarP(&yes, "yes", "y", false, "do not ask")
	cmd.Flags().BoolVar(&detach, "detach", false, "do not wait for the job")
	return cmd
}

func (a *app) nicknameCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "nickname ICCID NAME",
		Short: "name a profile; an empty name removes it",
		Args:  exactly(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.order(cmd, false, func(ctx context.Context, c *client.Client) (api.Job, error) {
				return c.SetNickname(ctx, args[0], args[1])
			})
		},
	}
}
