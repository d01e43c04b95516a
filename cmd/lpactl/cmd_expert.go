package main

import (
	"context"
	"strings"

	"github.com/spf13/cobra"

	"lpad/agent/api"
	"lpad/agent/client"
)

func (a *app) trustCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "trust",
		Short: "the authorities that servers are believed by",
		Long: `List the authorities whose servers lpad believes: those that are built in, and
those of the folder rsp.trust_dir; until when each certificate is valid, by which
key identifier a card names it, and whether the card lists it too. A server can
be used when both believe its authority.

To believe another one, put its certificate into the folder, as root, and reload
lpad.`,
		Args: exactly(0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.with(cmd, func(ctx context.Context, c *client.Client) error {
				v, err := c.Trust(ctx)
				if err != nil {
					return err
				}
				if a.json {
					return a.ui.document(v)
				}
				a.ui.trust(v)
				return nil
			})
		},
	}
}

func (u *ui) trust(v api.Trust) {
	var rows [][]string
	for _, r := range v.Roots {
		card := "?"
		if v.CardKnown {
			card = map[bool]string{true: "yes", false: "no"}[r.OnCard]
		}
		source := r.Source
		if r.Test {
			source += ", TEST: anybody can be a server under it"
		}
		rows = append(rows, []string{r.Name, first(r.Until, "?"), card, r.KeyID, source})
	}
	u.table([]string{"AUTHORITY", "UNTIL", "CARD", "KEY", "FROM"}, rows)
	for _, key := range v.CardOnly {
		u.printf("the card lists %s too, which lpad does not know\n", key)
	}
	for _, text := range v.Skipped {
		u.printf("not believed: %s\n", text)
	}
	if v.Dir != "" {
		u.printf("others are believed when their certificates are in %s (reload lpad then)\n", v.Dir)
	}
}

func (a *app) apduCommand() *cobra.Command {
	var force bool
	cmd := &cobra.Command{
		Use:   "apdu HEX...",
		Short: "send commands to the card by hand, for experts",
		Long: `Send short APDUs to the ISD-R of the card, one after another, on a channel of
their own, and print the answers, each with its status word. It ends with the
first that the card refuses. Class bytes are those for channel 0.

What only reads is sent as it is; what may change something needs --force.
Enabling, disabling and deleting profiles, memory reset, dropping notifications
and loading packages are never sent: they have orders, which take care of the
network. Who has sent which instruction, with which length, is recorded; the data
are not.`,
		Example: "  lpactl apdu 80E2910006BF3E035C015A00    # GetEID",
		Args: func(cmd *cobra.Command, args []string) error {
			if err := cobra.RangeArgs(1, api.MaxAPDUs)(cmd, args); err != nil {
				return usageError{err}
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			for i, one := range args {
				args[i] = strings.ToUpper(strings.NewReplacer(" ", "", ":", "").Replace(one))
			}
			return a.with(cmd, func(ctx context.Context, c *client.Client) error {
				v, err := c.APDU(ctx, api.APDURequest{Commands: args, Force: force})
				if err != nil {
					return err
				}
				if a.json {
					return a.ui.document(v)
				}
				for _, r := range v.Responses {
					a.ui.printf("%s\n", r)
				}
				if left := len(args) - len(v.Responses); left > 0 {
					a.ui.note("the card has refused the last one; %d were not sent", left)
				}
				return nil
			})
		},
	}
	cmd.Flags().BoolVar(&force, "force", false, "also what may change something on the card")
	return cmd
}
