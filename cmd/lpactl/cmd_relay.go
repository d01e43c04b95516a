package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"lpad/agent/api"
	"lpad/agent/client"
	"lpad/agent/relay"
)

// How long lpactl relay looks for a daemon that was there, and how often.
const (
	relayRetry = time.Second
	relayLimit = 2 * time.Minute
)

func (a *app) relayCommand() *cobra.Command {
	var allow []string
	cmd := &cobra.Command{
		Use:   "relay",
		Short: "let the device reach servers through this machine's network, until it is interrupted",
		Long: `Carry the connections of a device without a network to its servers, through this machine's network. Run it on a
laptop on which the device's socket is available:

  ssh -N -L /tmp/lpad.sock:/run/lpad/lpad.sock user@device
  lpactl --socket /tmp/lpad.sock relay

Then order as usual in another terminal. TLS ends in the device: this machine sees to which servers it connects, and
how much it carries, and needs to trust nobody. Each connection is shown.

Without --allow only port 443 of servers with a name and a public address is connected to, and nothing but TLS is
carried, so that a device cannot look into this machine's own networks. docs/relay.md has more.`,
		Example: "  lpactl --socket /tmp/lpad.sock relay --allow smdp.example.com",
		Args:    exactly(0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			rules, err := relay.NewRules(allow)
			if err != nil {
				return usageError{fmt.Errorf("--allow: %w", err)}
			}
			return a.with(cmd, func(ctx context.Context, c *client.Client) error {
				return a.carry(ctx, c, &relay.Carrier{Dial: rules.Dial, Bring: c.Relay, Tell: a.ui.carried})
			})
		},
	}
	cmd.Flags().StringArrayVar(&allow, "allow", nil, "connect to this `HOST[:PORT]` alone, wherever it is; may be repeated")
	return cmd
}

// carry attaches, and again when the daemon has restarted.
func (a *app) carry(ctx context.Context, c *client.Client, by *relay.Carrier) error {
	var lost time.Time // zero: it was not attached yet
	for {
		conn, err := c.Relay(ctx, "")
		var p *api.Problem
		switch {
		case ctx.Err() != nil && !lost.IsZero():
			return nil // as asked
		case err == nil:
			a.ui.note("attached: the device reaches servers through this machine; Ctrl-C ends it")
			err = by.Carry(ctx, conn)
			if ctx.Err() != nil {
				return nil // as asked
			}
			a.ui.note("detached: %v; trying to attach again", err)
			lost = time.Now()
		case lost.IsZero(), time.Since(lost) > relayLimit, errors.As(err, &p) && !p.Retry && p.Code != api.CodeNotRunning:
			return err
		}
		select {
		case <-ctx.Done():
		case <-time.After(relayRetry):
		}
	}
}

// carried shows what happens to a connection.
func (u *ui) carried(e relay.Event) {
	if u.json {
		if err := u.jsonLine(e); err != nil {
			u.note("error: %v", err)
		}
		return
	}
	at := time.Now().Format("15:04:05")
	switch e.Kind {
	case relay.Connected:
		u.printf("%s  %s  connected to %s\n", at, e.Address, e.Remote)
	case relay.Refused:
		u.printf("%s  %s  not connected: %s\n", at, e.Address, e.Error)
	case relay.Closed:
		u.printf("%s  %s  closed, %d bytes sent, %d received%s\n", at, e.Address, e.Sent, e.Received, behind(": ", e.Error))
	}
}

// behind is text behind something, or nothing if it is empty.
func behind(before, text string) string {
	if text == "" {
		return ""
	}
	return before + text
}
