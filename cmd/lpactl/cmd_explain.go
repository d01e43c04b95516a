package main

import (
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"
)

func (a *app) explainCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "explain [TABLE] NUMBER",
		Short: "what a number of the card, the modem or a server means",
		Long: `Say in plain words what a number means that an error, a log or another program shows. NUMBER is, by TABLE:

  sgp22  8.2.6/3.8          subject and reason of a server (SGP.22, section 5.2.6)
  bpp    5/12               bppCommandId and errorReason of an installation (section 2.5.6)
  es10   EnableProfile/5    result of a function of the card (section 5.7)
  sw     6A82               status word of the card
  cme    13                 +CME ERROR of the modem (3GPP TS 27.007)
  http   503                status of a server

Without TABLE all are looked into. A code as lpactl has it in brackets ("matching-id-refused") tells the exit status.
It needs no daemon.`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) == 0 || len(args) > 3 {
				return usageError{fmt.Errorf("one number is wanted, with the name of its table before it if need be")}
			}
			return nil
		},
		ValidArgs: tableOrder,
		RunE: func(_ *cobra.Command, args []string) error {
			if text, ok := exitText(args[0]); ok && len(args) == 1 {
				if a.json {
					return a.ui.document(map[string]any{"code": args[0], "exit": strings.TrimPrefix(text, "lpactl ends with ")})
				}
				a.ui.printf("%s: %s; docs/lpactl.md has what this number is for\n", args[0], text)
				return nil
			}
			found := lookUp(args)
			if len(found) == 0 {
				return usageError{fmt.Errorf("no table has %q; the tables are %s", strings.Join(args, " "), strings.Join(tableOrder, ", "))}
			}
			if a.json {
				return a.ui.document(found)
			}
			for _, n := range found {
				a.ui.printf("%s\n       %s\n", n, tables[n.Kind].whose)
			}
			return nil
		},
	}
}

// meaning says what the numbers of a problem mean, and when it happened.
func (u *ui) meaning(detail, state string) {
	if words := stages[state]; words != "" && !slices.Contains([]string{"done", "failed", "cancelled"}, state) {
		u.note("stage: %s: %s", state, words)
	}
	for _, n := range numbersIn(detail) {
		u.note("means: %s", n)
	}
}
