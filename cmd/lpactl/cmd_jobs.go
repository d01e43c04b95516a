package main

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"lpad/agent/api"
	"lpad/agent/client"
)

func (a *app) jobsCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "jobs",
		Short: "what was ordered, the newest first",
		Args:  exactly(0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.with(cmd, func(ctx context.Context, c *client.Client) error {
				v, err := c.Jobs(ctx)
				if err != nil {
					return err
				}
				if a.json {
					return a.ui.document(v)
				}
				var rows [][]string
				head, several := []string{"JOB", "KIND", "STATE", "ICCID", "PROBLEM"}, false
				for _, j := range v.Jobs {
					several = several || j.Card != v.Jobs[0].Card
				}
				if several {
					head = append(head, "CARD")
				}
				for _, j := range v.Jobs {
					problem := ""
					if j.Problem != nil {
						problem = j.Problem.Title
					}
					row := []string{j.ID, j.Kind, j.State, j.ICCID, problem}
					if several {
						row = append(row, j.Card)
					}
					rows = append(rows, row)
				}
				a.ui.table(head, rows)
				return nil
			})
		},
	}
	cmd.AddCommand(
		&cobra.Command{
			Use: "show JOB", Short: "one job with its timeline", Args: exactly(1),
			RunE: func(cmd *cobra.Command, args []string) error {
				return a.with(cmd, func(ctx context.Context, c *client.Client) error {
					j, err := c.Job(ctx, args[0])
					if err != nil {
						return err
					}
					if a.json {
						return a.ui.document(j)
					}
					a.ui.job(j)
					return nil
				})
			},
		},
		&cobra.Command{
			Use: "follow JOB", Short: "watch a job to its end", Args: exactly(1),
			RunE: func(cmd *cobra.Command, args []string) error {
				return a.order(cmd, false, func(ctx context.Context, c *client.Client) (api.Job, error) { return c.Job(ctx, args[0]) })
			},
		},
		&cobra.Command{
			Use: "abort JOB", Short: "stop a job while it can be stopped", Args: exactly(1),
			RunE: func(cmd *cobra.Command, args []string) error {
				return a.with(cmd, func(ctx context.Context, c *client.Client) error {
					_, err := c.Abort(ctx, args[0])
					return err
				})
			},
		},
		a.answerCommand(),
	)
	return cmd
}

func (a *app) answerCommand() *cobra.Command {
	var refuse bool
	var code string
	cmd := &cobra.Command{
		Use: "answer JOB", Short: "consent to the profile that a job was offered, or refuse it", Args: exactly(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.with(cmd, func(ctx context.Context, c *client.Client) error {
				if code == "-" {
					var err error
					if code, err = a.ask(ctx, "confirmation code: "); err != nil {
						return err
					}
				}
				_, err := c.Answer(ctx, args[0], api.AnswerRequest{Accept: !refuse, ConfirmationCode: code})
				return err
			})
		},
	}
	cmd.Flags().BoolVar(&refuse, "refuse", false, "refuse it: the activation code is used up")
	cmd.Flags().StringVar(&code, "confirmation-code", "", "the confirmation code; - asks")
	return cmd
}

func (u *ui) job(j api.Job) {
	signed, at := "", ""
	if j.SignedBy != "" {
		signed = fmt.Sprintf("%s, order %d", j.SignedBy, j.Serial)
	}
	if !j.EnableAt.IsZero() {
		at = j.EnableAt.Local().Format(time.RFC3339)
	}
	waits := ""
	if p := j.Packet; p != nil {
		waits = fmt.Sprintf("packet %d of about %d, %s (lpactl packets)", p.Number, p.Of, p.Function)
	}
	u.facts([][2]string{
		{"waits for", waits}, {"job", j.ID}, {"kind", j.Kind}, {"state", j.State}, {"signed by", signed}, {"not before", at}, {"server", j.SMDP}, {"ICCID", j.ICCID},
		{"previous", j.Previous}, {"APN", j.APN},
	})
	var rows [][]string
	for _, m := range j.Timeline {
		step := ""
		if m.Step > 0 {
			step = strconv.Itoa(m.Step)
		}
		rows = append(rows, []string{fmt.Sprintf("%.1f s", m.At.Sub(j.Created).Seconds()), step, m.State, m.Note})
	}
	u.table([]string{"TIME", "STEP", "STATE", "NOTE"}, rows)
	rows = nil
	for _, p := range j.Parameters {
		rows = append(rows, []string{p.Leaf, string(p.Value), p.Source, p.State})
	}
	if len(rows) > 0 {
		u.table([]string{"PARAMETER", "VALUE", "SOURCE", "STATE"}, rows)
	}
	rows = nil
	for _, h := range j.Hooks {
		rows = append(rows, []string{h.Event, h.Name, fmt.Sprintf("%.1f s", float64(h.Millis)/1000), first(h.Problem, "done")})
	}
	if len(rows) > 0 {
		u.table([]string{"HOOK", "NAME", "TOOK", "OUTCOME"}, rows)
	}
	if j.Problem != nil {
		u.problem(j.Problem)
	}
}

func (a *app) eventsCommand() *cobra.Command {
	var follow bool
	cmd := &cobra.Command{
		Use:   "events",
		Short: "what happened lately; with -f, what happens",
		Args:  exactly(0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.with(cmd, func(ctx context.Context, c *client.Client) error {
				ctx, cancel := context.WithCancel(ctx)
				defer cancel()
				var o client.WatchOptions
				if !follow { // the stream has no end: stop at what is newest now
					s, err := c.Status(ctx)
					if err != nil {
						return err
					}
					if s.LastEvent == 0 {
						return nil
					}
					return a.events(ctx, c, o, s.LastEvent)
				}
				return a.events(ctx, c, o, 0)
			})
		},
	}
	cmd.Flags().BoolVarP(&follow, "follow", "f", false, "go on until interrupted")
	return cmd
}

// events prints events up to the id last, or for ever when that is 0.
func (a *app) events(ctx context.Context, c *client.Client, o client.WatchOptions, last uint64) error {
	err := c.Watch(ctx, o, func(e api.Event) error {
		if err := a.event(e); err != nil {
			return err
		}
		if last > 0 && e.ID >= last {
			return errEnough
		}
		return nil
	})
	if errors.Is(err, errEnough) {
		return nil
	}
	return err
}

var errEnough = errors.New("enough")

func (a *app) event(e api.Event) error {
	if a.json {
		return a.ui.jsonLine(e)
	}
	line := e.At.Local().Format("15:04:05.000") + " " + e.Type
	if e.Card != "" && e.Card != "main" && e.Job == nil { // the id of a job tells its card
		line += " " + e.Card
	}
	if j := e.Job; j != nil {
		line += fmt.Sprintf(" %s %s %s", j.ID, j.Kind, j.State)
		if j.Progress != nil {
			line += fmt.Sprintf(" %d/%d", j.Progress.Done, j.Progress.Total)
		}
	}
	if e.Text != "" {
		line += " " + e.Text
	}
	a.ui.printf("%s\n", line)
	return nil
}
