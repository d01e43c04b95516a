package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"

	"lpad/agent/api"
	"lpad/agent/client"
)

func (a *app) orderCommand() *cobra.Command {
	var detach bool
	cmd := &cobra.Command{
		Use:   "order FILE | -",
		Short: "hand in an order that an operator has signed",
		Long: `Hand in an order that an operator has signed: a compact JWS, from a file or from
standard input. What is to be done, to which profile, with which settings and
when, is in the order. The daemon believes it if its signature is by a key in
the folder orders.keys_dir, or by the SM-DP+ of the download, and if it is for
this device, in its time, and was not handed in before.

A switch that is ordered for later waits in the state "scheduled".`,
		Args: exactly(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			jws, err := a.readOrder(args[0])
			if err != nil {
				return err
			}
			return a.order(cmd, detach, func(ctx context.Context, c *client.Client) (api.Job, error) { return c.Order(ctx, jws) })
		},
	}
	cmd.Flags().BoolVar(&detach, "detach", false, "do not wait for the job")
	return cmd
}

// readOrder reads a signed order, without the line break that editors and mail
// put behind it.
func (a *app) readOrder(path string) ([]byte, error) {
	in := io.Reader(a.keys.in)
	if path != "-" {
		f, err := os.Open(path)
		if err != nil {
			return nil, err
		}
		defer f.Close()
		in = f
	}
	const room = 16 // for white space behind it
	b, err := io.ReadAll(io.LimitReader(in, api.MaxOrder+room+1))
	if err != nil {
		return nil, fmt.Errorf("read the order: %w", err)
	}
	if b = bytes.TrimSpace(b); len(b) > api.MaxOrder {
		return nil, &api.Problem{Code: api.CodeTooLarge, Title: fmt.Sprintf("the order has more than %d KiB", api.MaxOrder>>10), Who: "operator", Next: "have a smaller one signed"}
	}
	return b, nil
}
