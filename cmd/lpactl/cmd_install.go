package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"lpad/agent/api"
	"lpad/agent/client"
)

// Limits of what is read from files and standard input, in bytes.
const (
	maxCodeLine   = 1024
	maxParameters = 64 << 10
)

type installFlags struct {
	enable, yes, pprYes, detach, deleteOld bool
	code, params, source, reportTo         string
}

func (a *app) installCommand() *cobra.Command {
	var f installFlags
	cmd := &cobra.Command{
		Use:   "install [ACTIVATION-CODE | -]",
		Short: "download and install a profile",
		Long: `Download and install a profile, and with --enable switch the device to it:
the new APN is applied, the modem reads the SIM again, and only when the new
network works is the server told. If it does not work, the old profile and its
settings come back by themselves.

The activation code is LPA:1$server$matching-id, in quotes: a shell eats $. With
"-" it is read from standard input, where nobody finds it in the process list.
With --source default-smdp or smds there is no code: the card's own server
addresses are asked.

What the server offers is shown, and consent is asked for, unless --yes is
given. Interrupting the command does not stop the job; "lpactl jobs abort" does,
while it still can be stopped.`,
		Args: func(cmd *cobra.Command, args []string) error {
			if err := cobra.MaximumNArgs(1)(cmd, args); err != nil {
				return usageError{err}
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error { return a.install(cmd, args, f) },
	}
	cmd.Flags().BoolVar(&f.enable, "enable", false, "switch to the profile once it is installed")
	cmd.Flags().BoolVarP(&f.yes, "yes", "y", false, "consent beforehand")
	cmd.Flags().BoolVar(&f.pprYes, "accept-rules", false, "with --yes: also to profile policy rules (cannot be disabled, cannot be deleted)")
	cmd.Flags().StringVar(&f.code, "confirmation-code", "", "the code that some operators give with the activation code; - asks")
	cmd.Flags().StringVar(&f.params, "params", "", "terminal parameters for the profile: a JSON `file`")
	cmd.Flags().StringVar(&f.source, "source", "", "default-smdp or smds, instead of an activation code")
	cmd.Flags().BoolVar(&f.deleteOld, "delete-old", false, "delete the old profile when the new one has proven itself")
	cmd.Flags().StringVar(&f.reportTo, "report-to", "", "an https `address` that gets a report of how the job has ended")
	cmd.Flags().BoolVar(&f.detach, "detach", false, "do not wait for the job")
	return cmd
}

func (a *app) install(cmd *cobra.Command, args []string, f installFlags) error {
	in := bufio.NewReader(io.LimitReader(a.in, 1<<20))
	req := api.InstallRequest{Source: f.source, Enable: f.enable, Consent: f.yes, PPRConsent: f.yes && f.pprYes, DeleteOld: f.deleteOld, ReportTo: f.reportTo}
	var err error
	switch {
	case len(args) == 1 && f.source != "":
		return usageError{errors.New("an activation code and --source exclude each other")}
	case len(args) == 0 && f.source == "":
		return usageError{errors.New("an activation code or --source is needed")}
	case len(args) == 1 && args[0] == "-":
		if req.ActivationCode, err = a.ask(cmd.Context(), in, ""); err != nil {
			return needed(err, "nobody-answered", "there is no activation code on standard input", "write it there, or give it as the argument")
		}
	case len(args) == 1:
		req.ActivationCode = args[0]
	}
	if req.Parameters, err = readParameters(f.params); err != nil {
		return err
	}
	req.ConfirmationCode = f.code
	if f.code == "-" || f.code == "" && codeWillBeNeeded(req.ActivationCode) {
		if req.ConfirmationCode, err = a.ask(cmd.Context(), in, "confirmation code: "); err != nil {
			return needed(err, "confirmation-code-missing", "the activation code comes with a confirmation code, which nobody entered",
				"order again with --confirmation-code, or enter it when asked")
		}
	}
	return a.with(cmd, func(ctx context.Context, c *client.Client) error {
		j, err := c.Install(ctx, req)
		if err != nil {
			return err
		}
		return a.follow(ctx, c, j, in, f.detach, req.ConfirmationCode)
	})
}

// codeWillBeNeeded reads the flag of the activation code (its fifth field), so
// that the code is asked for before any card traffic.
func codeWillBeNeeded(code string) bool {
	fields := strings.Split(strings.TrimSpace(code), "$")
	return len(fields) >= 5 && fields[4] == "1"
}

func readLine(r *bufio.Reader) (string, error) {
	line, err := r.ReadString('\n')
	if err != nil && (!errors.Is(err, io.EOF) || line == "") {
		return "", err
	}
	if len(line) > maxCodeLine {
		return "", fmt.Errorf("the line is longer than %d characters", maxCodeLine)
	}
	return strings.TrimSpace(line), nil
}

// ask asks the person at standard input. An interruption does not wait for the
// line to be ended; whoever reads on is left to the end of the program.
func (a *app) ask(ctx context.Context, in *bufio.Reader, prompt string) (string, error) {
	fmt.Fprint(a.ui.errs, prompt)
	type line struct {
		text string
		err  error
	}
	read := make(chan line, 1)
	go func() {
		text, err := readLine(in)
		read <- line{text, err}
	}()
	var answer line
	select {
	case <-ctx.Done():
		fmt.Fprintln(a.ui.errs)
		return "", ctx.Err()
	case answer = <-read:
	}
	if errors.Is(answer.err, io.EOF) {
		fmt.Fprintln(a.ui.errs)
		return "", errNobody
	}
	if answer.err != nil {
		return "", fmt.Errorf("read the answer: %w", answer.err)
	}
	return answer.text, nil
}

// errNobody is a question on a standard input that has ended.
var errNobody = &api.Problem{Code: "nobody-answered", Title: "nobody answered the question", Who: "technician",
	Next: "answer it, or give the answer on the command line: see --help"}

// needed explains errNobody where it is known what is missing.
func needed(err error, code, title, next string) error {
	if !errors.Is(err, errNobody) {
		return err
	}
	return &api.Problem{Code: code, Title: title, Who: "technician", Next: next}
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
func (a *app) follow(ctx context.Context, c *client.Client, j api.Job, in *bufio.Reader, detach bool, code string) error {
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
	j, err := c.Follow(watch, j.ID, func(j api.Job) {
		t.update(j)
		if j.State == "scheduled" && !told {
			told = true
			a.ui.note("the switch waits until %s; it does so without this command too", j.EnableAt.Local().Format(time.RFC3339))
		}
		if j.State != "consent" || len(j.Timeline) <= answered {
			return
		}
		answered = len(j.Timeline)
		problem = a.consent(ctx, c, j, in, code)
		var p *api.Problem
		if errors.As(problem, &p) && p.Code == api.CodeConflict {
			problem = nil // it has gone on without the answer, and says itself why
		}
		if problem != nil {
			stop()
		}
	})
	t.clearBar()
	if problem != nil {
		return problem
	}
	if err != nil {
		return err
	}
	if a.json {
		if err := a.ui.document(j); err != nil {
			return err
		}
	}
	return a.outcome(j)
}

// consent shows what is offered and asks.
func (a *app) consent(ctx context.Context, c *client.Client, j api.Job, in *bufio.Reader, code string) error {
	a.ui.note("offered: %s, ICCID %s", profileName(j.Profile), j.ICCID)
	if j.Profile != nil {
		for _, r := range j.Profile.Rules {
			a.ui.note("  rule: %s", r)
		}
	}
	answer, err := a.ask(ctx, in, "install it? [y/N] ")
	req := api.AnswerRequest{Accept: answer == "y" || answer == "Y" || answer == "yes"}
	if err == nil && req.Accept && j.CodeRequired {
		if req.ConfirmationCode = code; code == "" {
			req.ConfirmationCode, err = a.ask(ctx, in, "confirmation code: ")
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

// outcome says how a job ended.
func (a *app) outcome(j api.Job) error {
	switch {
	case j.State == "done":
		if !a.json && j.Kind != "install" && j.Undelivered == 0 {
			a.ui.printf("done\n")
		}
		if j.Undelivered > 0 {
			a.ui.note("%d notifications wait for their server; they go out by themselves", j.Undelivered)
		}
		return nil
	case j.Problem != nil:
		return j.Problem
	}
	return &api.Problem{Code: "cancelled", Title: "the job was cancelled", Who: "nobody", Next: "order again when wanted"}
}
