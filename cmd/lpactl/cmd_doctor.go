package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"lpad/agent/api"
	"lpad/agent/client"
	"lpad/internal/redact"
)

// Verdicts of a check. One that could not be made is skipped, and says why: a
// doctor who did not look must not say "ok".
const (
	verdictOK      = "ok"
	verdictWarning = "warning"
	verdictWrong   = "wrong"
	verdictSkipped = "skipped"
)

// finding is what came of one check.
type finding struct {
	Check   string `json:"check"`
	Verdict string `json:"verdict"`
	Text    string `json:"text"`
	Next    string `json:"next,omitempty"`
	Code    string `json:"code,omitempty"` // of a problem; it decides the exit code
}

// checkup is the document of lpactl doctor.
type checkup struct {
	Version  string    `json:"version"` // of lpactl
	At       time.Time `json:"at"`
	Verdict  string    `json:"verdict"` // the worst
	Findings []finding `json:"findings"`
}

// Times of the doctor.
const (
	doctorAnswer = 10 * time.Second // for a question that needs no card
	doctorOld    = 24 * time.Hour   // a notification that waits longer is worth a word
	doctorDrift  = 2 * time.Minute  // between the clocks of lpactl and lpad
)

// firstDay is before any day on which lpad can run: a clock before it is not set.
var firstDay = time.Date(2025, 1, 1, 0, 0, 0, 0, time.UTC)

// errWarnings ends lpactl with [exitWarnings], and nothing is printed: the
// findings say it all.
var errWarnings = errors.New("something is to be looked at")

// doctor makes the checks, in the order in which one needs the other: who
// mends the first thing that is wrong often mends the rest.
type doctor struct {
	ui       *ui
	client   *client.Client
	socket   string
	servers  []string // SM-DP+ addresses that were given
	probe    bool
	findings []finding
}

func (a *app) doctorCommand() *cobra.Command {
	var servers []string
	var noProbe bool
	cmd := &cobra.Command{
		Use:   "doctor",
		Short: "what is wrong, in one line for each check, and what to do next",
		Long: `Look at everything that a download and a switch need, from the socket to the SM-DP+, and say in one line each what is
wrong and what to do next. It works without a daemon, as far as that goes, and changes nothing. As part of it the modem
is probed as by "lpactl probe", if you may: where ModemManager and lpad share one port, the link is down meanwhile.

Servers are tried from the machine that lpactl runs on. lpad itself may go another way, through the modem: a server
that answers here may not answer there, and the other way round.

The exit code is that of the first thing that is wrong, 60 when there is nothing but warnings, else 0.`,
		Args: exactly(0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.with(cmd, func(ctx context.Context, c *client.Client) error {
				d := &doctor{ui: a.ui, client: c, socket: a.socket, servers: servers, probe: !noProbe}
				if err := d.examine(ctx); err != nil {
					return err
				}
				return d.end()
			})
		},
	}
	cmd.Flags().StringSliceVar(&servers, "smdp", nil, "try this `server`: a name, name:port, or an activation code (whose matching id goes nowhere)")
	cmd.Flags().BoolVar(&noProbe, "no-probe", false, "leave the modem alone")
	return cmd
}

// add records a finding, and prints it at once: a probe takes its time.
func (d *doctor) add(f finding) {
	f.Text, f.Next = oneLine(f.Text), oneLine(f.Next)
	d.findings = append(d.findings, f)
	if d.ui.json {
		return
	}
	line := fmt.Sprintf("%-8s %-13s %s", f.Verdict, f.Check, f.Text)
	if f.Next != "" {
		line += "; next: " + f.Next
	}
	d.ui.printf("%s\n", line)
}

func (d *doctor) ok(check, format string, a ...any) {
	d.add(finding{Check: check, Verdict: verdictOK, Text: fmt.Sprintf(format, a...)})
}

func (d *doctor) skip(check, why string) {
	d.add(finding{Check: check, Verdict: verdictSkipped, Text: why})
}

func (d *doctor) warn(check, text, next string) {
	d.add(finding{Check: check, Verdict: verdictWarning, Text: text, Next: next})
}

func (d *doctor) wrong(check, code, text, next string) {
	d.add(finding{Check: check, Verdict: verdictWrong, Text: text, Next: next, Code: code})
}

// problem records what the daemon says is wrong.
func (d *doctor) problem(check, what string, p *api.Problem) {
	text := p.Title
	if what != "" {
		text = what + ": " + text
	}
	if p.Detail != "" && p.Detail != p.Title {
		text += " (" + p.Detail + ")"
	}
	d.wrong(check, p.Code, shortened(text), first(p.Next, "lpactl support-bundle collects what a developer needs"))
}

// oneLine keeps a finding on the line that it is promised.
func oneLine(s string) string { return strings.Join(strings.Fields(s), " ") }

// end prints what there is to print, and returns the error that the exit code
// comes from.
func (d *doctor) end() error {
	count := map[string]int{}
	var worst *finding
	for i, f := range d.findings {
		count[f.Verdict]++
		if f.Verdict == verdictWrong && worst == nil {
			worst = &d.findings[i]
		}
	}
	verdict := verdictOK
	switch {
	case worst != nil:
		verdict = verdictWrong
	case count[verdictWarning] > 0:
		verdict = verdictWarning
	}
	if d.ui.json {
		if err := d.ui.document(checkup{Version: version, At: time.Now().UTC(), Verdict: verdict, Findings: d.findings}); err != nil {
			return err
		}
	}
	switch verdict {
	case verdictWrong:
		title := worst.Check + ": " + worst.Text
		if n := count[verdictWrong]; n > 1 {
			title = fmt.Sprintf("%d things are wrong, the first is %s", n, title)
		}
		return &api.Problem{Code: worst.Code, Title: title, Who: "technician", Next: worst.Next}
	case verdictWarning:
		return errWarnings
	}
	return nil
}

// examine makes all checks. Its error is that of ctx alone.
func (d *doctor) examine(ctx context.Context) error {
	var status *api.Status
	var known []string // servers
	if d.checkSocket(ctx) {
		status = d.checkDaemon(ctx)
	}
	if status == nil {
		d.checkOwnClock()
		for _, check := range []string{"card", "modem", "managers", "notifications", "journal"} {
			d.skip(check, "lpad does not say")
		}
	} else {
		d.checkClock(status.Clock)
		known = d.checkCards(ctx, *status)
		known = append(known, d.checkQueues(ctx, *status)...)
		d.checkJournal(*status)
		d.checkProfiles(ctx)
		for _, w := range status.Warnings {
			d.warn("lpad warns", w, "see docs/operations.md, the chapter on security for authorities")
		}
	}
	d.checkServers(ctx, known)
	return ctx.Err()
}

// checkDaemon asks for the status, without which little can be said.
func (d *doctor) checkDaemon(ctx context.Context) *api.Status {
	limited, cancel := context.WithTimeout(ctx, doctorAnswer)
	defer cancel()
	s, err := d.client.Status(limited)
	var p *api.Problem
	switch {
	case err == nil:
	case errors.As(err, &p):
		d.problem("daemon", "", p)
		return nil
	case limited.Err() != nil:
		d.wrong("daemon", "timeout", fmt.Sprintf("lpad takes the connection and does not answer in %v", doctorAnswer), "look into its log (journalctl -u lpad), then systemctl restart lpad")
		return nil
	default:
		d.wrong("daemon", api.CodeNotRunning, "what answers at the socket is not lpad: "+err.Error(), "name the socket of lpad with --socket")
		return nil
	}
	text := fmt.Sprintf("lpad %s is %s, since %s", s.Version, s.State, s.Since.UTC().Format("2006-01-02 15:04 UTC"))
	switch {
	case s.Version != version:
		d.warn("daemon", text+"; lpactl is of version "+version, "use lpactl and lpad of one version; after an upgrade: systemctl restart lpad")
	case s.State == "starting":
		d.warn("daemon", text, "wait for it to look at its card, then ask again")
	case s.State == "needs-provisioning":
		d.warn("daemon", text+": no profile is enabled", first(s.Next, "lpactl install, or lpactl enable"))
	default:
		d.ok("daemon", "%s", text)
	}
	return &s
}

func (d *doctor) checkOwnClock() {
	if now := time.Now(); now.Before(firstDay) {
		d.wrong("clock", "clock-not-set", "the clock of this machine says "+now.UTC().Format("2006-01-02"), "set it (timedatectl, NTP): no certificate is valid then")
		return
	}
	d.ok("clock", "%s on this machine", time.Now().UTC().Format("2006-01-02 15:04:05 UTC"))
}

func (d *doctor) checkClock(c api.Clock) {
	text := c.Now.UTC().Format("2006-01-02 15:04:05 UTC")
	drift := time.Since(c.Now).Abs().Round(time.Second)
	switch {
	case !c.Set:
		d.wrong("clock", "clock-not-set", "the device's clock is not set: "+text, "set it (timedatectl, NTP), or let the modem find a network that tells the time: no certificate can be judged")
	case c.Source == "modem":
		d.warn("clock", text+" by the modem; the system's clock is not set", "set it (timedatectl, NTP)")
	case drift > doctorDrift:
		d.warn("clock", fmt.Sprintf("%s at lpad, %v away from this machine's", text, drift), "find out which of the two is right")
	default:
		d.ok("clock", "%s", text)
	}
}

// checkCards looks at each card, and by the probe at the way to the one that is
// meant. It returns the servers that the card knows.
func (d *doctor) checkCards(ctx context.Context, s api.Status) (servers []string) {
	all := s.Cards
	if len(all) == 0 {
		all = []api.CardStatus{s.Card}
	}
	for _, c := range all {
		what := strings.TrimSpace(c.Backend + " " + c.Path)
		if len(all) > 1 {
			what = c.Name + ", " + what
		}
		switch {
		case c.Problem != nil:
			d.problem("card", what, c.Problem)
		case c.EID == "":
			d.wrong("card", "no-euicc", what+": no eUICC was found yet", "lpactl probe says how far the way to the card leads")
		default:
			d.ok("card", "%s: eUICC %s", what, redact.Digits(c.EID))
		}
	}
	if s.Card.Problem == nil && s.Card.EID != "" {
		servers = d.checkEUICC(ctx)
	}
	if s.Card.Backend == "at" {
		d.checkPort(s.Card.Path)
	}
	d.checkModem(ctx)
	return servers
}

// checkEUICC asks the card itself, which the status does not.
func (d *doctor) checkEUICC(ctx context.Context) []string {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	e, err := d.client.EUICC(ctx)
	var p *api.Problem
	switch {
	case errors.As(err, &p) && p.Code == api.CodeConflict:
		d.skip("euicc", "a job has the card")
	case errors.As(err, &p):
		d.problem("euicc", "", p)
	case err != nil:
		d.wrong("euicc", "timeout", "the card does not answer: "+err.Error(), "lpactl probe, then take the modem's power away for a moment")
	case e.FreeMemory > 0 && e.FreeMemory < 32<<10:
		d.warn("euicc", fmt.Sprintf("SGP.22 %s, %d bytes are free: a profile needs 30 to 100 kB", e.SVN, e.FreeMemory), "delete a profile that is not needed (lpactl delete)")
	default:
		d.ok("euicc", "SGP.22 %s, %d bytes are free, default SM-DP+ %s", e.SVN, e.FreeMemory, first(e.DefaultSMDP, "none"))
	}
	if e.DefaultSMDP == "" {
		return nil
	}
	return []string{e.DefaultSMDP}
}

// checkModem takes the probe's word for modem, reader and managers.
func (d *doctor) checkModem(ctx context.Context) {
	if !d.probe {
		d.skip("modem", "not probed, as you said")
		return
	}
	v, err := d.client.Probe(ctx)
	var p *api.Problem
	switch {
	case errors.As(err, &p) && p.Code == api.CodeForbidden:
		d.skip("modem", "not probed: that needs the level operate (api.operate)")
		return
	case errors.As(err, &p) && p.Code == api.CodeConflict:
		d.skip("modem", "not probed: a job has the card")
		return
	case errors.As(err, &p):
		d.problem("modem", "the probe did not begin", p)
		return
	case err != nil:
		d.wrong("modem", "timeout", "the probe did not end: "+err.Error(), "look into the log of lpad")
		return
	}
	name := first(strings.TrimSpace(v.Manufacturer+" "+v.Model), "reader "+v.Path)
	if v.Revision != "" {
		name += ", firmware " + v.Revision
	}
	switch {
	case v.Problem != nil:
		d.problem("modem", name, v.Problem)
	case !v.Usable:
		d.wrong("modem", "no-euicc", name+": there is no way to an eUICC", "lpactl probe says what was tried")
	default:
		d.ok("modem", "%s: APDUs by %s, blocks of %d bytes", name, v.APDUPath, v.BlockSize)
	}
	for _, c := range v.Capabilities {
		if c.Name == "alone" && c.Answer == api.AnswerNo {
			d.warn("port users", "others have the port open: "+first(c.Value, c.Evidence), first(c.Next, "take the port from them: udev's ID_MM_PORT_IGNORE, or modem.inhibit"))
		}
	}
	d.checkManagers(v)
}

func (d *doctor) checkManagers(v api.Probe) {
	m := v.Managers
	if m.Network != "" && m.Network != "none" || m.ModemManager != "" || m.NetworkManager != "" {
		text := fmt.Sprintf("network by %s; ModemManager %s; NetworkManager %s", first(m.Network, "nobody"), first(m.ModemManager, "does not run"), first(m.NetworkManager, "does not run"))
		wantsMM, wantsNM := strings.Contains(m.Network, "modemmanager") || strings.Contains(m.Network, "networkmanager"), strings.Contains(m.Network, "networkmanager")
		switch {
		case wantsNM && m.NetworkManager == "":
			d.wrong("managers", "networkmanager", text, "systemctl start NetworkManager, or choose another network.backend")
		case wantsMM && m.ModemManager == "":
			d.wrong("managers", "modemmanager", text, "systemctl start ModemManager, or choose another network.backend")
		default:
			d.ok("managers", "%s", text)
		}
	} else {
		d.ok("managers", "neither ModemManager nor NetworkManager, and none is needed (network by %s)", first(m.Network, "nobody"))
	}
	switch {
	case m.Problem == "":
		if m.ModemManager != "" {
			d.ok("bus policy", "ModemManager answers lpad; what lpad may change shows with the first switch")
		}
	case refusedByPolicy(m.Problem):
		d.wrong("bus policy", "modemmanager", m.Problem, "install the package's D-Bus and polkit rules (lpad.conf, lpad.rules), then systemctl reload dbus")
	default:
		d.warn("bus policy", "ModemManager does not show the modem: "+m.Problem, "mmcli -L; a port that is lpad's alone needs no ModemManager")
	}
}

// refusedByPolicy knows the words of D-Bus and polkit for "you may not".
func refusedByPolicy(s string) bool {
	s = strings.ToLower(s)
	for _, w := range []string{"accessdenied", "not authorized", "notauthorized", "unauthorized", "rejected send message", "permission denied"} {
		if strings.Contains(s, w) {
			return true
		}
	}
	return false
}

// checkQueues says what waits, and returns the servers that it waits for, and
// those of the latest jobs.
func (d *doctor) checkQueues(ctx context.Context, s api.Status) (servers []string) {
	for _, q := range []struct {
		check, what string
		n           api.NoteStatus
	}{{"notifications", "notifications", s.Notifications}, {"reports", "reports", s.Reports}} {
		line := queueLine(q.n, q.what, s.Clock.Now)
		late := q.n.Pending > 0 && !q.n.Oldest.IsZero() && s.Clock.Now.Sub(q.n.Oldest) > doctorOld
		if late || q.n.LastError != nil || q.n.Lost > 0 {
			d.warn(q.check, line, "lpactl notifications shows each with its last error; --deliver tries now")
		} else if q.n.Pending > 0 || q.check == "notifications" {
			d.ok(q.check, "%s", line)
		}
	}
	ctx, cancel := context.WithTimeout(ctx, doctorAnswer)
	defer cancel()
	if jobs, err := d.client.Jobs(ctx); err == nil {
		for _, j := range jobs.Jobs {
			if j.SMDP != "" {
				servers = append(servers, j.SMDP)
			}
		}
	}
	if s.Notifications.Pending > 0 {
		if waiting, err := d.client.Notifications(ctx); err == nil {
			for _, n := range waiting.Notifications {
				servers = append(servers, n.Address)
			}
		}
	}
	return servers
}

func (d *doctor) checkJournal(s api.Status) {
	if s.Journal != nil {
		d.problem("journal", "the disk does not take lpad's records, so no job runs", s.Journal)
		return
	}
	d.ok("journal", "the disk takes lpad's records")
}

func (d *doctor) checkProfiles(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	list, err := d.client.Profiles(ctx)
	var p *api.Problem
	if errors.As(err, &p) {
		d.skip("quarantine", "the profiles cannot be listed: "+p.Title)
		return
	} else if err != nil {
		d.skip("quarantine", "the profiles cannot be listed: "+err.Error())
		return
	}
	clean := true
	for _, one := range list.Profiles {
		if q := one.Quarantine; q != nil {
			clean = false
			d.warn("quarantine", fmt.Sprintf("%s (%s): %d switches were taken back, the last on %s: %s", profileName(&one), redact.Digits(one.ICCID), q.Attempts, q.Since.UTC().Format("2006-01-02 15:04 UTC"), q.Title),
				"find out why (lpactl jobs), then lpactl enable tries it again and ends the quarantine if it works")
		}
	}
	if clean {
		d.ok("quarantine", "none of %d profiles", len(list.Profiles))
	}
}
