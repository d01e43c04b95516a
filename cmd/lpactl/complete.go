package main

import (
	"context"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"lpad/agent/client"
)

// completeTime is how long a shell waits for what can be completed: somebody is
// typing.
const completeTime = 2 * time.Second

// asks makes a completion of the first argument out of what the daemon says.
// Without a daemon there is nothing to offer, and no word of trouble either.
func (a *app) asks(list func(context.Context, *client.Client) ([]cobra.Completion, error)) cobra.CompletionFunc {
	return func(cmd *cobra.Command, args []string, begun string) ([]cobra.Completion, cobra.ShellCompDirective) {
		if len(args) > 0 {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		ctx, cancel := context.WithTimeout(context.Background(), completeTime)
		defer cancel()
		c := client.New(a.socket)
		defer c.Close()
		all, err := list(ctx, c.For(a.card))
		if err != nil {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		var fit []cobra.Completion
		for _, one := range all {
			if strings.HasPrefix(one, begun) {
				fit = append(fit, one)
			}
		}
		return fit, cobra.ShellCompDirectiveNoFileComp | cobra.ShellCompDirectiveKeepOrder
	}
}

// completions says which command takes what: an ICCID, shown with the
// profile's name, a job, or a notification.
func (a *app) completions(root *cobra.Command) {
	profiles := a.asks(func(ctx context.Context, c *client.Client) (list []cobra.Completion, err error) {
		v, err := c.Profiles(ctx)
		for _, p := range v.Profiles {
			list = append(list, cobra.CompletionWithDesc(p.ICCID, profileName(&p)+", "+p.State))
		}
		return list, err
	})
	jobs := a.asks(func(ctx context.Context, c *client.Client) (list []cobra.Completion, err error) {
		v, err := c.Jobs(ctx)
		for _, j := range v.Jobs {
			list = append(list, cobra.CompletionWithDesc(j.ID, j.Kind+", "+j.State))
		}
		return list, err
	})
	waiting := a.asks(func(ctx context.Context, c *client.Client) (list []cobra.Completion, err error) {
		v, err := c.Notifications(ctx)
		for _, n := range v.Notifications {
			list = append(list, cobra.CompletionWithDesc(strconv.FormatInt(n.SeqNumber, 10), n.Event+", for "+n.Address))
		}
		for _, n := range v.Reports {
			list = append(list, cobra.CompletionWithDesc(n.Job, "report, for "+n.Address))
		}
		return list, err
	})
	for path, f := range map[string]cobra.CompletionFunc{
		"enable": profiles, "disable": profiles, "delete": profiles, "nickname": profiles, "params effective": profiles, "params clear": profiles,
		"jobs show": jobs, "jobs follow": jobs, "jobs abort": jobs, "jobs answer": jobs,
		"notifications replay": waiting, "notifications drop": waiting,
	} {
		if cmd, rest, err := root.Find(strings.Fields(path)); err == nil && len(rest) == 0 {
			cmd.ValidArgsFunction = f
		}
	}
}
