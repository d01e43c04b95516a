package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/spf13/cobra"

	"lpad/agent/api"
	"lpad/agent/client"
	"lpad/agent/rsp"
)

// maxParameters bounds a document of terminal parameters, in bytes.
const maxParameters = 64 << 10

type installFlags struct {
	enable, yes, pprYes, detach, deleteOld, dryRun bool
	offline                                        bool
	code, params, source, reportTo, qr             string
}

func (a *app) installCommand() *cobra.Command {
	var f installFlags
	cmd := &cobra.Command{
		Use:   "install [ACTIVATION-CODE | FILE | -]",
		Short: "download and install a profile",
		Long: `Download and install a profile, and with --enable switch the device to it:
the new APN is applied, the modem reads the SIM again, and only when the new
network works is the server told. If it does not work, the old profile and its
settings come back by themselves.

The activation code is LPA:1$server$matching-id, in quotes: a shell eats $. It
is read as well from FILE or, with "-", from standard input, where nobody finds
it in the process list: a text that has it, or a picture (PNG or JPEG, such as
a telephone takes) with its QR code. With --source default-smdp or smds there is
no code: the card's own server addresses are asked.

What was read is shown first, and a confirmation code is asked for before
anything is sent. What the server offers is shown, and consent is asked for,
unless --yes is given. --dry-run stops there: the server is told "postponed",
nothing is loaded, and the code stays good.

Interrupting the command does not stop the job, unless you say so when asked;
"lpactl jobs abort" does, while it still can be stopped.`,
		Args: func(cmd *cobra.Command, args []string) error {
			if err := cobra.MaximumNArgs(1)(cmd, args); err != nil {
				return usageError{err}
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error { return a.install(cmd, args, f) },
	}
	cmd.Flags().BoolVar(&f.enable, "enable", false, "switch to the profile once it is installed")
	cmd.Flags().StringVar(&f.qr, "qr", "", "a picture with the QR code: a `file`, or - for standard input")
	cmd.Flags().BoolVar(&f.dryRun, "dry-run", false, "go as far as the preview of the profile, and load nothing")
	cmd.Flags().BoolVarP(&f.yes, "yes", "y", false, "consent beforehand")
	cmd.Flags().BoolVar(&f.pprYes, "accept-rules", false, "with --yes: also to profile policy rules (cannot be disabled, cannot be deleted)")
	cmd.Flags().StringVar(&f.code, "confirmation-code", "", "the code that some operators give with the activation code; - asks")
	cmd.Flags().StringVar(&f.params, "params", "", "terminal parameters for the profile: a JSON `file`")
	cmd.Flags().StringVar(&f.source, "source", "", "default-smdp or smds, instead of an activation code")
	cmd.Flags().BoolVar(&f.deleteOld, "delete-old", false, "delete the old profile when the new one has proven itself")
	cmd.Flags().StringVar(&f.reportTo, "report-to", "", "an https `address` that gets a report of how the job has ended")
	cmd.Flags().BoolVar(&f.offline, "offline", false, "there is no network: requests are carried (see lpactl packets)")
	cmd.Flags().BoolVar(&f.detach, "detach", false, "do not wait for the job")
	return cmd
}

func (a *app) install(cmd *cobra.Command, args []string, f installFlags) error {
	req := api.InstallRequest{Source: f.source, Enable: f.enable, Consent: f.yes, PPRConsent: f.yes && f.pprYes, DeleteOld: f.deleteOld, ReportTo: f.reportTo, DryRun: f.dryRun, Offline: f.offline}
	given := len(args)
	if f.qr != "" {
		given++
	}
	if f.source != "" && given > 0 {
		return usageError{errors.New("an activation code and --source exclude each other")}
	}
	if f.source == "" && given != 1 {
		return usageError{errors.New("one activation code, --qr or --source is needed")}
	}
	var err error
	switch {
	case f.qr != "":
		req.ActivationCode, err = a.codeFromFile(cmd.Context(), f.qr, true)
	case given == 1:
		req.ActivationCode, err = a.codeFrom(cmd.Context(), args[0])
	}
	if err != nil {
		return err
	}
	if req.Parameters, err = readParameters(f.params); err != nil {
		return err
	}
	known, unknown := rsp.ParseActivationCode(req.ActivationCode)
	if unknown == nil {
		a.ui.note("activation code: %s", codeText(known))
	} // else the daemon says what is wrong with it
	req.ConfirmationCode = f.code
	if f.code == "-" || f.code == "" && known.ConfirmationCodeRequired && !f.dryRun {
		if req.ConfirmationCode, err = a.ask(cmd.Context(), "confirmation code: "); err != nil {
			return needed(err, "confirmation-code-missing", "the activation code comes with a confirmation code, which nobody entered",
				"order again with --confirmation-code, or enter it when asked")
		}
	}
	return a.with(cmd, func(ctx context.Context, c *client.Client) error {
		j, err := c.Install(ctx, req)
		if err != nil {
			return err
		}
		return a.follow(ctx, c, j, f.detach, req.ConfirmationCode)
	})
}

func readParameters(path string) (json.RawMessage, error) {
	if path == "" {
		return nil, nil
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxParameters+1))
	if err != nil {
		return nil, err
	}
	if len(b) > maxParameters {
		return nil, fmt.Errorf("%s is larger than %d KiB", path, maxParameters>>10)
	}
	if !json.Valid(b) {
		return nil, fmt.Errorf("%s is not JSON", path)
	}
	return b, nil
}

// follow shows a job until it has ended, and answers for the person when it
// asks something. code is the confirmation code if it is known already.
func (a *app) follow(ctx context.Context, c *client.Client, j api.Job, detach bool, code string) error {
	if detach {
		if a.json {
			return a.ui.document(j)
		}
		a.ui.printf("%s\n", j.ID)
		return nil
	}
	t := newTimeline(a.ui)
	answered := 0 // length of the timeline at the last answer: a daemon that was restarted asks again
	told := false
	var problem error
	watch, stop := context.WithCancel(ctx)
	defer stop()
	seen, packet := j, ""
	j, err := c.Follow(watch, j.ID, func(j api.Job) {
		seen = j
		t.update(j)
		if j.Packet != nil && j.Packet.ID != packet {
			packet = j.Packet.ID
			a.notePacket(j)
		}
		if j.State == "scheduled" && !told {
			told = true
			a.ui.note("the switch waits until %s; it does so without this command too", j.EnableAt.Local().Format(time.RFC3339))
		}
		if j.State != "consent" || len(j.Timeline) <= answered {
			return
		}
		answered = len(j.Timeline)
		problem = a.consent(ctx, c, j, code)
		var p *api.Problem
		if errors.As(problem, &p) && p.Code == api.CodeConflict {
			problem = nil // it has gone on without the answer, and says itself why
		}
		if problem != nil {
			stop()
		}
	})
	t.clearBar()
	switch {
	case ctx.Err() != nil:
		return a.interrupted(ctx, c, t, seen)
	case problem != nil:
		return problem
	case err != nil:
		return err
	}
	return a.ended(j)
}

// ended tells the end of a job.
func (a *app) ended(j api.Job) error {
	if a.json {
		if err := a.ui.document(j); err != nil {
			return err
		}
	}
	return a.outcome(j)
}

// consent shows what is offered and asks.
func (a *app) consent(ctx context.Context, c *client.Client, j api.Job, code string) error {
	a.offer(j)
	answer, err := a.ask(ctx, "install it? [y/N] ")
	req := api.AnswerRequest{Accept: answer == "y" || answer == "Y" || answer == "yes"}
	if err == nil && req.Accept && j.CodeRequired {
		if req.ConfirmationCode = code; code == "" {
			req.ConfirmationCode, err = a.ask(ctx, "confirmation code: ")
		}
	}
	if err != nil { // nobody there: leave the job to somebody who is
		what, how := "consent", "lpactl jobs answer "+j.ID
		if j.CodeRequired {
			what, how = "consent and the confirmation code", how+" --confirmation-code -"
		}
		return needed(err, "consent-needed", "the job waits for "+what, "answer it while it waits: "+how)
	}
	_, err = c.Answer(ctx, j.ID, req)
	return err
}

// offer shows what the server offers.
func (a *app) offer(j api.Job) {
	class := ""
	if p := j.Profile; p != nil && p.Class != "" && p.Class != "operational" {
		class = ", a " + p.Class + " profile"
	}
	a.ui.note("offered: %s, ICCID %s%s", profileName(j.Profile), j.ICCID, class)
	if j.Profile != nil {
		for _, r := range j.Profile.Rules {
			a.ui.note("  rule: %s", r)
		}
	}
}

// outcome says how a job ended.
func (a *app) outcome(j api.Job) error {
	switch {
	case j.State == "done":
		if !a.json && j.Kind != "install" && j.Undelivered == 0 {
			a.ui.printf("done\n")
		}
		switch {
		case j.Undelivered == 1:
			a.ui.note("1 notification waits for its server; it goes out by itself")
		case j.Undelivered > 0:
			a.ui.note("%d notifications wait for their server; they go out by themselves", j.Undelivered)
		}
		if done := doneSteps(j); j.Kind == "install" && len(done) > 0 && done[len(done)-1].n < 5 { // it was not to be enabled
			a.ui.note("next: the profile is not in use yet: lpactl enable %s switches to it", j.ICCID)
		}
		return nil
	case j.Problem != nil:
		return j.Problem
	case j.DryRun && j.Profile != nil:
		a.offer(j)
		if j.CodeRequired {
			a.ui.note("  the server wants a confirmation code with it")
		}
		if !a.json {
			a.ui.printf("dry run: nothing was loaded, and the activation code is still good\n")
		}
		return nil
	}
	return &api.Problem{Code: "cancelled", Title: "the job was cancelled", Who: "nobody", Next: "order again when wanted"}
}
