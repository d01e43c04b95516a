package main

import (
	"context"
	"fmt"
	"strings"
	"time"
	"unicode/utf8"

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
				var last *api.Job
				if s.Job == nil {
					if v, err := c.Jobs(ctx); err == nil && len(v.Jobs) > 0 { // else there is less to show
						last = &v.Jobs[0]
					}
				}
				a.ui.status(s, last)
				return nil
			})
		},
	}
}

// A screen that every terminal has. What does not fit is left to the commands
// that are about it, and to --json.
const (
	screenWidth  = 80
	screenHeight = 24
	valueLines   = 8 // that one value may take where there is room
)

// status prints the status, with the job that ended last where none runs.
func (u *ui) status(s api.Status, last *api.Job) {
	rows := [][2]string{{"state", s.State}}
	card := strings.TrimSpace(fmt.Sprintf("%s (%s %s)", first(s.Card.EID, "none"), s.Card.Backend, s.Card.Path))
	if p := s.Card.Problem; p != nil {
		card += ": " + p.Title
	}
	rows = append(rows, [2]string{cardName(s), card})
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
		if s.Profile.Quarantine != nil {
			profile += ": " + profileNotes(*s.Profile)
		}
	}
	rows = append(rows, [2]string{"profile", profile}, [2]string{"network", networkLine(s.Network)})
	if d := s.Declared; d != nil {
		line := fmt.Sprintf("%d of %d profiles are as their files say", d.Converged, d.Total)
		if d.Failed > 0 {
			line += fmt.Sprintf(", %d failed", d.Failed)
		}
		rows = append(rows, [2]string{"declared", strings.Join(append([]string{line}, d.Lines...), "; ")})
	}
	if r := s.Relay; r != nil {
		rows = append(rows, [2]string{"relay", "attached since " + r.Since.UTC().Format("15:04:05 UTC") + " by " + r.By})
	}
	switch {
	case s.Job != nil:
		rows = append(rows, [2]string{"job", jobLine(*s.Job, s.Clock.Now)})
	case last != nil:
		rows = append(rows, [2]string{"last job", jobLine(*last, s.Clock.Now)})
	}
	if s.Queued > 0 {
		rows = append(rows, [2]string{"waiting", fmt.Sprintf("%d jobs", s.Queued)})
	}
	rows = append(rows, [2]string{"queue", queueLine(s.Notifications, "notifications", s.Clock.Now)})
	if r := s.Reports; r.Pending > 0 || r.Lost > 0 {
		rows = append(rows, [2]string{"reports", queueLine(r, "reports", s.Clock.Now)})
	}
	clock := s.Clock.Now.UTC().Format("2006-01-02 15:04:05 UTC")
	if !s.Clock.Set {
		clock += ": the clock is not set"
	} else if s.Clock.Source == "modem" {
		clock += " by the modem: the system's clock is not set"
	}
	rows = append(rows, [2]string{"trust", trustLine(s.Trust)}, [2]string{"clock", clock}, [2]string{"version", s.Version})
	u.printf("%s", screen(s.Warnings, rows, [2]string{"next", nextLine(s, last)}))
}

// jobLine says how far a job is, or how it ended.
func jobLine(j api.Job, now time.Time) string {
	line := j.Kind + " " + j.ID + ": " + j.State
	if j.Ended {
		if n := len(j.Timeline); n > 0 {
			if past := age(j.Timeline[n-1].At, now); past != "" {
				line += " " + past + " ago"
			}
		}
		if j.Problem != nil {
			line += ": " + j.Problem.Title
		}
		return line
	}
	if j.Step > 0 {
		line += fmt.Sprintf(", step %d of 10", j.Step)
	}
	if past := age(j.Created, now); past != "" {
		line += ", for " + past
	}
	return line
}

// nextLine is what to do next: the daemon's word, or else what follows from what
// is shown.
func nextLine(s api.Status, last *api.Job) string {
	switch {
	case s.Next != "":
		return s.Next
	case s.Job != nil:
		return "watch the job: lpactl jobs follow " + s.Job.ID
	case s.State == "starting":
		return "wait a moment: lpad looks for its card"
	case last != nil && last.Problem != nil && last.Problem.Next != "":
		return last.Problem.Next
	case s.Notifications.LastError != nil && s.Notifications.LastError.Next != "":
		return s.Notifications.LastError.Next
	case s.Profile != nil && s.Profile.Quarantine != nil:
		return "lpactl jobs tells why the switch was taken back"
	case len(s.Warnings) > 0:
		return "lpactl doctor looks at everything"
	}
	return "nothing: all is well"
}

// screen puts rows on a screen: words are wrapped below each other, and where
// there are too many lines values give some up, the last rows first. The last
// row is never cut.
func screen(warnings []string, rows [][2]string, last [2]string) string {
	wide := len(last[0])
	for _, r := range rows {
		wide = max(wide, len(r[0]))
	}
	var parts [][]string
	for _, w := range warnings {
		parts = append(parts, wrapped("!! ", w, valueLines))
	}
	for _, r := range append(rows, last) {
		parts = append(parts, wrapped(fmt.Sprintf("%-*s  ", wide, r[0]), r[1], valueLines))
	}
	total := 0
	for _, p := range parts {
		total += len(p)
	}
	for keep := valueLines - 1; keep >= 0; keep-- { // at last whole rows go
		for i := len(parts) - 2; i >= 0 && total > screenHeight; i-- {
			if over := len(parts[i]) - keep; over > 0 {
				parts[i] = parts[i][:keep]
				total -= over
				if keep > 0 {
					parts[i][keep-1] = cut(parts[i][keep-1]+" …", screenWidth)
				}
			}
		}
	}
	var b strings.Builder
	for _, p := range parts {
		for _, line := range p {
			b.WriteString(line + "\n")
		}
	}
	return b.String()
}

// wrapped breaks a text between words into at most so many lines, each with
// room for the name before the first.
func wrapped(name, text string, most int) []string {
	line, blank := name, strings.Repeat(" ", utf8.RuneCountInString(name))
	var lines []string
	for _, word := range strings.Fields(text) {
		switch {
		case strings.TrimSpace(line) == strings.TrimSpace(name) && len(lines) == 0 || line == blank:
			line += word
		case utf8.RuneCountInString(line)+1+utf8.RuneCountInString(word) <= screenWidth:
			line += " " + word
		case len(lines) == most-1:
			return append(lines, cut(cut(line, screenWidth-2)+" …", screenWidth))
		default:
			lines = append(lines, cut(line, screenWidth))
			line = blank + word
		}
	}
	return append(lines, cut(strings.TrimRight(line, " "), screenWidth))
}

// cut shortens a line to so many characters.
func cut(line string, most int) string {
	if r := []rune(line); len(r) > most {
		return string(r[:most-1]) + "…"
	}
	return line
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
		if n.Pending == 1 {
			line = "1 " + strings.TrimSuffix(what, "s") + " waits for its server"
		}
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
