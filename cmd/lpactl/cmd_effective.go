package main

import (
	"context"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"lpad/agent/api"
	"lpad/agent/client"
	"lpad/agent/params"
)

func (a *app) paramsEffectiveCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "effective [ICCID]",
		Short: "what is wanted of the device for a profile, and who says so",
		Long: `Show every value of the terminal parameters of a profile, of the enabled one
without an ICCID: the value, the source that says so, its rank (the lower wins),
how narrow its scope is, the generation of its document, and what has become of
it: staged (waits for its profile), trial, applied, suspended, limited. A value
without a state is tried when those before it do not do. Passwords are not shown.`,
		Args: atMostOne,
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.effective(cmd, func(ctx context.Context, c *client.Client) (api.Effective, error) {
				return c.Effective(ctx, strings.Join(args, ""))
			})
		},
	}
}

func (a *app) paramsSetCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "set FILE [ICCID]",
		Short: "give a profile the parameters that it is switched to with",
		Long: `Give a profile on the card a document of terminal parameters, in the place of one
with a lower generation: without an ICCID the profile that the document names, or
the enabled one. They are used at the next switch to the profile, stay with it,
and go when it is deleted. With "-" the document is read from standard input.`,
		Args: func(cmd *cobra.Command, args []string) error {
			if err := cobra.RangeArgs(1, 2)(cmd, args); err != nil {
				return usageError{err}
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			text, err := a.input(args[:1])
			if err != nil {
				return err
			}
			d, err := params.Parse(text, params.Options{Confidential: true})
			if err != nil {
				return paramsProblem(err, "correct the document")
			}
			named := ""
			switch {
			case len(args) == 2:
				named = args[1]
			case !d.Scope.ICCID.IsZero():
				named = d.Scope.ICCID.String()
			}
			return a.effective(cmd, func(ctx context.Context, c *client.Client) (api.Effective, error) {
				iccid, err := enabledOr(ctx, c, named)
				if err != nil {
					return api.Effective{}, err
				}
				return c.SetParameters(ctx, iccid, text)
			})
		},
	}
}

func (a *app) paramsClearCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "clear [ICCID]",
		Short: "take the parameters of an order away from a profile",
		Long: `Take away the document that a profile has from an order or by "params set":
without an ICCID from the enabled profile. What the device is set to stays so
until the next switch.`,
		Args: atMostOne,
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.effective(cmd, func(ctx context.Context, c *client.Client) (api.Effective, error) {
				iccid, err := enabledOr(ctx, c, strings.Join(args, ""))
				if err != nil {
					return api.Effective{}, err
				}
				return c.ClearParameters(ctx, iccid)
			})
		},
	}
}

// enabledOr is the profile that was named, else the enabled one.
func enabledOr(ctx context.Context, c *client.Client, named string) (string, error) {
	if named != "" {
		return named, nil
	}
	e, err := c.Effective(ctx, "")
	return e.ICCID, err
}

// effective shows what is wanted of the device.
func (a *app) effective(cmd *cobra.Command, ask func(context.Context, *client.Client) (api.Effective, error)) error {
	return a.with(cmd, func(ctx context.Context, c *client.Client) error {
		e, err := ask(ctx, c)
		if err != nil {
			return err
		}
		if a.json {
			return a.ui.document(e)
		}
		a.ui.effective(e)
		return nil
	})
}

func (u *ui) effective(e api.Effective) {
	use := "not enabled"
	if e.Enabled {
		use = "enabled"
	}
	facts := [][2]string{{"profile", e.ICCID + " (" + use + ")"}}
	document := "none of its own"
	if d := e.Document; d != nil {
		document = fmt.Sprintf("%s, %sof %s, %d bytes", d.Source, generationText(d.Generation), d.At.UTC().Format(time.DateTime+" UTC"), d.Bytes)
	}
	u.facts(append(facts, [2]string{"document", document}))
	var rows [][]string
	for _, p := range e.Parameters {
		rows = append(rows, []string{p.Leaf, parameterText(p), p.Source, strconv.Itoa(p.Rank), first(p.Scope, "-"), dash(p.Generation), first(p.State, "-")})
	}
	u.table([]string{"PARAMETER", "VALUE", "SOURCE", "RANK", "SCOPE", "GENERATION", "STATE"}, rows)
	for _, s := range e.Suspended {
		u.printf("suspended: %s, %ssince %s: the modem found no network with it (job %s, %s); it is used again when its generation changes\n",
			s.Source, generationText(s.Generation), s.At.UTC().Format(time.DateTime+" UTC"), s.Job, first(s.Code, "no code"))
	}
	for _, n := range e.Notes {
		u.printf("note: %s\n", n)
	}
}

func dash(n int64) string {
	if n == 0 {
		return "-"
	}
	return strconv.FormatInt(n, 10)
}

func generationText(n int64) string {
	if n == 0 {
		return ""
	}
	return fmt.Sprintf("generation %d, ", n)
}

// parameterText is a value on one line: lists with commas, an access point by
// its name with what belongs to it in brackets, the rest as the document
// writes it.
func parameterText(p api.Parameter) string {
	if len(p.Value) == 0 {
		return "(unset)"
	}
	if strings.HasPrefix(p.Leaf, "apns.") {
		return apnText(p.Value)
	}
	var list []any
	if json.Unmarshal(p.Value, &list) == nil {
		parts := make([]string, len(list))
		for i, v := range list {
			parts[i] = fmt.Sprint(v)
		}
		return strings.Join(parts, ",")
	}
	var text string
	if json.Unmarshal(p.Value, &text) == nil {
		return text
	}
	return string(p.Value)
}

// apnText is an access point on one line.
func apnText(value json.RawMessage) string {
	var a struct {
		Name, PDNType, PDNTypeRoaming, Auth, User string
		HasSecret                                 bool
		MTU                                       int
		DNS, Routes                               []string
		Roaming                                   *bool
	}
	if json.Unmarshal(value, &a) != nil {
		return string(value)
	}
	var more []string
	add := func(format, v string) {
		if v != "" {
			more = append(more, fmt.Sprintf(format, v))
		}
	}
	add("%s", a.PDNType)
	add("%s when roaming", a.PDNTypeRoaming)
	add("%s", a.Auth)
	add("user %s", a.User)
	if a.HasSecret {
		more = append(more, "with a password")
	}
	if a.MTU > 0 {
		more = append(more, fmt.Sprintf("mtu %d", a.MTU))
	}
	add("dns %s", strings.Join(a.DNS, " "))
	add("routes %s", strings.Join(a.Routes, " "))
	if a.Roaming != nil {
		more = append(more, map[bool]string{true: "roaming allowed", false: "no roaming"}[*a.Roaming])
	}
	name := first(a.Name, "(network default)")
	if len(more) > 0 {
		name += " (" + strings.Join(more, ", ") + ")"
	}
	return name
}
