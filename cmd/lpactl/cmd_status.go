package main

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"lpad/agent/api"
	"lpad/agent/client"
)

func (a *app) statusCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "status",
		Short: "how it is going, on one screen",
		Args:  exactly(0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.with(cmd, func(ctx context.Context, c *client.Client) error {
				s, err := c.Status(ctx)
				if err != nil {
					return err
				}
				if a.json {
					return a.ui.document(s)
				}
				a.ui.status(s)
				return nil
			})
		},
	}
}

func (u *ui) status(s api.Status) {
	for _, w := range s.Warnings {
		u.printf("!! %s\n", w)
	}
	rows := [][2]string{
		{"state", s.State},
		{cardName(s), strings.TrimSpace(fmt.Sprintf("%s (%s %s)", first(s.Card.EID, "none"), s.Card.Backend, s.Card.Path))},
	}
	if p := s.Card.Problem; p != nil {
		rows = append(rows, [2]string{"", p.Title})
	}
	for _, c := range s.Cards {
		if c.Name != s.Card.Name {
			rows = append(rows, [2]string{"card " + c.Name, strings.Join(cardRow(c)[1:], " ")})
		}
	}
	if p := s.Journal; p != nil {
		rows = append(rows, [2]string{"journal", p.Title + ": " + p.Next})
	}
	profile := "none enabled"
	if s.Profile != nil {
		profile = profileName(s.Profile) + " (" + s.Profile.ICCID + ")"
	}
	rows = append(rows, [2]string{"profile", profile})
	if s.Profile != nil && s.Profile.Quarantine != nil {
		rows = append(rows, [2]string{"", profileNotes(*s.Profile)})
	}
	rows = append(rows, [2]string{"network", networkLine(s.Network)})
	if s.Job != nil {
		rows = append(rows, [2]string{"job", fmt.Sprintf("%s %s: %s", s.Job.Kind, s.Job.ID, s.Job.State)})
	}
	if s.Queued > 0 {
		rows = append(rows, [2]string{"waiting", fmt.Sprintf("%d jobs", s.Queued)})
	}
	rows = append(rows, [2]string{"queue", queueLine(s.Notifications, "notifications", s.Clock.Now)})
	if r := s.Reports; r.Pending > 0 || r.Lost > 0 {
		rows = append(rows, [2]string{"reports", queueLine(r, "reports", s.Clock.Now)})
	}
	rows = append(rows, [2]string{"trust", trustLine(s.Trust)})
	clock := s.Clock.Now.UTC().Format("2006-01-02 15:04:05 UTC")
	if !s.Clock.Set {
		clock += ": the clock is not set"
	} else if s.Clock.Source == "modem" {
		clock += " by the modem: the system's clock is not set"
	}
	rows = append(rows, [2]string{"clock", clock}, [2]string{"version", s.Version}, [2]string{"next", s.Next})
	u.facts(rows)
}

// cardName is what the line of the card is called.
func cardName(s api.Status) string {
	if len(s.Cards) == 0 {
		return "card"
	}
	return "card " + s.Card.Name
}

// cardRow is a card in a table: name, EID, path, state and what is wrong.
func cardRow(c api.CardStatus) []string {
	path, state := c.Backend+" "+c.Path, c.State
	if c.Slot != "" {
		path += " slot " + c.Slot
	}
	if c.Job != "" {
		state += " with " + c.Job
	}
	if c.Queued > 0 {
		state += fmt.Sprintf(", %d jobs wait", c.Queued)
	}
	if c.Problem != nil {
		state += ": " + c.Problem.Title
	}
	return []string{c.Name, first(c.EID, "-"), path, state}
}

func (a *app) cardsCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "cards",
		Short: "the cards of the device, with the path to each",
		Args:  exactly(0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.with(cmd, func(ctx context.Context, c *client.Client) error {
				v, err := c.Cards(ctx)
				if err != nil {
					return err
				}
				if a.json {
					return a.ui.document(v)
				}
				var rows [][]string
				for _, one := range v.Cards {
					row := cardRow(one)
					if one.Default && len(v.Cards) > 1 {
						row[0] += " (default)"
					}
					rows = append(rows, row)
				}
				a.ui.table([]string{"CARD", "EID", "PATH", "STATE"}, rows)
				return nil
			})
		},
	}
}

// queueLine sums up what waits.
func queueLine(n api.NoteStatus, what string, now time.Time) string {
	line := "nothing waits"
	if n.Pending > 0 {
		line = fmt.Sprintf("%d %s wait for their server", n.Pending, what)
		if !n.Oldest.IsZero() {
			line += ", the oldest for " + age(n.Oldest, now)
		}
		if !n.NextTry.IsZero() {
			line += ", next try " + n.NextTry.Local().Format("15:04:05")
		}
		if n.LastError != nil {
			line += " (" + n.LastError.Title + ")"
		}
	}
	if n.Lost > 0 {
		line += fmt.Sprintf("; %d were given up because too many waited", n.Lost)
	}
	return line
}

// profileNotes says what lpad remembers of a profile.
func profileNotes(p api.Profile) string {
	var notes []string
	if p.LastKnownGood {
		notes = append(notes, "last known-good")
	}
	if q := p.Quarantine; q != nil {
		notes = append(notes, fmt.Sprintf("quarantined since %s, %d switches taken back: %s", q.Since.UTC().Format("2006-01-02 15:04 UTC"), q.Attempts, q.Title))
	}
	return strings.Join(notes, "; ")
}

func networkLine(n api.Network) string {
	parts := []string{n.Backend}
	if n.Interface != "" {
		parts = append(parts, n.Interface)
	}
	parts = append(parts, n.Addresses...)
	if n.APN != "" {
		parts = append(parts, "APN "+n.APN)
	}
	return strings.Join(parts, " ")
}

func trustLine(roots []api.TrustRoot) string {
	test := 0
	for _, r := range roots {
		if r.Test {
			test++
		}
	}
	line := fmt.Sprintf("%d root certificates", len(roots))
	if test > 0 {
		line += fmt.Sprintf(", of them %d TEST authorities", test)
	}
	return line
}

func (a *app) euiccCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "euicc",
		Short: "what the card says of itself",
		Args:  exactly(0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.with(cmd, func(ctx context.Context, c *client.Client) error {
				e, err := c.EUICC(ctx)
				if err != nil {
					return err
				}
				if a.json {
					return a.ui.document(e)
				}
				a.ui.facts([][2]string{
					{"EID", e.EID}, {"SGP.22 version", e.SVN}, {"profile package version", e.ProfileVersion}, {"firmware", e.Firmware},
					{"free memory", fmt.Sprintf("%d bytes", e.FreeMemory)}, {"default SM-DP+", first(e.DefaultSMDP, "none")}, {"root SM-DS", first(e.RootSMDS, "none")},
					{"CIs for verification", strings.Join(e.CIVerification, " ")}, {"CIs for signing", strings.Join(e.CISigning, " ")},
					{"category", e.Category}, {"SAS accreditation", e.SASAccreditation},
				})
				return nil
			})
		},
	}
}

func (a *app) profilesCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "profiles",
		Short: "the profiles on the card",
		Args:  exactly(0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.with(cmd, func(ctx context.Context, c *client.Client) error {
				p, err := c.Profiles(ctx)
				if err != nil {
					return err
				}
				if a.json {
					return a.ui.document(p)
				}
				var rows [][]string
				for _, v := range p.Profiles {
					rows = append(rows, []string{v.ICCID, v.State, v.Class, first(v.Nickname, v.Name), v.ServiceProvider, strings.Join(v.Rules, ", "), profileNotes(v)})
				}
				a.ui.table([]string{"ICCID", "STATE", "CLASS", "NAME", "OPERATOR", "RULES", "NOTES"}, rows)
				return nil
			})
		},
	}
}
