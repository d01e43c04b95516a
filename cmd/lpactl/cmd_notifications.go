package main

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"lpad/agent/api"
	"lpad/agent/client"
)

func (a *app) notificationsCommand() *cobra.Command {
	var deliver bool
	cmd := &cobra.Command{
		Use:   "notifications",
		Short: "receipts and reports of jobs that wait for their server",
		Args:  exactly(0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.queue(cmd, func(ctx context.Context, c *client.Client) (api.Notifications, error) {
				if deliver {
					return c.DeliverNotifications(ctx)
				}
				return c.Notifications(ctx)
			})
		},
	}
	cmd.Flags().BoolVar(&deliver, "deliver", false, "try to deliver now, to every server")
	cmd.AddCommand(a.replayCommand(), a.dropCommand())
	return cmd
}

func (a *app) replayCommand() *cobra.Command {
	return &cobra.Command{
		Use: "replay SEQ|JOB", Short: "send a notification or the report of a job now, with those before it to the same server", Args: exactly(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			seq, isReport, err := whichOne(args[0])
			if err != nil {
				return err
			}
			return a.queue(cmd, func(ctx context.Context, c *client.Client) (api.Notifications, error) {
				if isReport {
					return c.ReplayReport(ctx, args[0])
				}
				return c.ReplayNotification(ctx, seq)
			})
		},
	}
}

func (a *app) dropCommand() *cobra.Command {
	var yes bool
	cmd := &cobra.Command{
		Use: "drop SEQ|JOB", Short: "give a notification or the report of a job up without delivery, for ever", Args: exactly(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			seq, isReport, err := whichOne(args[0])
			if err != nil {
				return err
			}
			if !yes {
				what := "notification "
				if isReport {
					what = "the report of job "
				}
				question := "drop " + what + args[0] + " for ever? Its server will never learn of it. [y/N] "
				answer, err := a.ask(cmd.Context(), question)
				if err != nil {
					return err
				}
				if answer != "y" && answer != "Y" && answer != "yes" {
					return &api.Problem{Code: "consent-refused", Title: "nothing was dropped", Who: "nobody"}
				}
			}
			return a.queue(cmd, func(ctx context.Context, c *client.Client) (api.Notifications, error) {
				if isReport {
					return c.DropReport(ctx, args[0])
				}
				return c.DropNotification(ctx, seq)
			})
		},
	}
	cmd.Flags().BoolVarP(&yes, "yes", "y", false, "do not ask")
	return cmd
}

// whichOne tells the id of a job, which has a dash in the middle, from the
// sequence number of a notification.
func whichOne(arg string) (seq int64, isReport bool, err error) {
	if strings.Contains(strings.TrimPrefix(arg, "-"), "-") {
		return 0, true, nil
	}
	seq, err = sequenceNumber(arg)
	return seq, false, err
}

func sequenceNumber(s string) (int64, error) {
	seq, err := strconv.ParseInt(s, 10, 64)
	if err == nil && seq < 0 {
		err = errors.New("it is below zero")
	}
	if err != nil {
		return 0, usageError{fmt.Errorf("%q is no sequence number: %w", s, err)}
	}
	return seq, nil
}

// queue prints what an answer says of the notifications.
func (a *app) queue(cmd *cobra.Command, ask func(context.Context, *client.Client) (api.Notifications, error)) error {
	return a.with(cmd, func(ctx context.Context, c *client.Client) error {
		v, err := ask(ctx, c)
		if err != nil {
			return err
		}
		if a.json {
			return a.ui.document(v)
		}
		var rows [][]string
		for _, n := range v.Notifications {
			next, problem := lastTry(n.NextTry, n.LastError)
			rows = append(rows, []string{strconv.FormatInt(n.SeqNumber, 10), n.Event, n.Address, n.ICCID, age(n.Since, time.Now()), next, problem})
		}
		a.ui.table([]string{"SEQ", "EVENT", "SERVER", "ICCID", "AGE", "NEXT TRY", "LAST ERROR"}, rows)
		if len(v.Reports) == 0 {
			return nil
		}
		rows = nil
		for _, r := range v.Reports {
			next, problem := lastTry(r.NextTry, r.LastError)
			rows = append(rows, []string{r.Job, r.Event + " " + r.Outcome, r.Address, strconv.FormatInt(r.SeqNumber, 10), age(r.Since, time.Now()), next, problem})
		}
		a.ui.printf("\n")
		a.ui.table([]string{"JOB", "REPORT", "RECEIVER", "NUMBER", "AGE", "NEXT TRY", "LAST ERROR"}, rows)
		return nil
	})
}

func lastTry(at time.Time, p *api.Problem) (next, problem string) {
	if !at.IsZero() {
		next = at.Local().Format("15:04:05")
	}
	if p != nil {
		problem = p.Title
	}
	return next, problem
}

// age is how long something has been so, in the largest unit that says enough.
func age(since, now time.Time) string {
	d := now.Sub(since)
	switch {
	case since.IsZero() || d < 0:
		return ""
	case d < 2*time.Minute:
		return fmt.Sprintf("%d s", int(d.Seconds()))
	case d < 2*time.Hour:
		return fmt.Sprintf("%d min", int(d.Minutes()))
	case d < 48*time.Hour:
		return fmt.Sprintf("%d h", int(d.Hours()))
	}
	return fmt.Sprintf("%d days", int(d.Hours()/24))
}
