package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"lpad/agent/api"
	"lpad/agent/client"
)

// maxLine bounds a line of standard input, in bytes.
const maxLine = 1024

// keyboard is standard input, a line at a time. A question that was interrupted
// leaves its line to the next one.
type keyboard struct {
	in      *bufio.Reader
	pending chan typed
}

type typed struct {
	text string
	err  error
}

func newKeyboard(in io.Reader) *keyboard {
	return &keyboard{in: bufio.NewReader(io.LimitReader(in, maxPicture+maxLine))}
}

// line waits for a line, or for the end of ctx. Whoever reads on then is left to
// the end of the program, or to the next call.
func (k *keyboard) line(ctx context.Context) (string, error) {
	if k.pending == nil {
		k.pending = make(chan typed, 1)
		go func(to chan<- typed) {
			text, err := k.in.ReadString('\n')
			if err != nil && errors.Is(err, io.EOF) && text != "" {
				err = nil // the last line needs no end
			}
			if err == nil && len(text) > maxLine {
				err = fmt.Errorf("the line is longer than %d characters", maxLine)
			}
			to <- typed{strings.TrimSpace(text), err}
		}(k.pending)
	}
	select {
	case <-ctx.Done():
		return "", ctx.Err()
	case t := <-k.pending:
		k.pending = nil
		return t.text, t.err
	}
}

// ask asks the person at standard input.
func (a *app) ask(ctx context.Context, prompt string) (string, error) {
	fmt.Fprint(a.ui.errs, prompt)
	text, err := a.keys.line(ctx)
	switch {
	case err == nil:
		return text, nil
	case ctx.Err() != nil:
		fmt.Fprintln(a.ui.errs)
		return "", ctx.Err()
	case errors.Is(err, io.EOF):
		if prompt != "" {
			fmt.Fprintln(a.ui.errs)
		}
		return "", errNobody
	}
	return "", fmt.Errorf("read the answer: %w", err)
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

// isTerminal reports whether f is a terminal: a serial console, a window, a
// session of ssh. /dev/null is none.
func isTerminal(f any) bool {
	file, ok := f.(*os.File)
	if !ok {
		return false
	}
	_, err := unix.IoctlGetTermios(int(file.Fd()), unix.TCGETS)
	return err == nil
}

// errTyped is the cause of a context that a person has ended from the keyboard.
var errTyped = errors.New("interrupted from the keyboard")

// leftError is a job that goes on without lpactl.
type leftError struct{ job api.Job }

func (e *leftError) Error() string { return "interrupted" }
func (e *leftError) Unwrap() error { return context.Canceled }

// abortTime is how long a job that is being aborted is watched.
const abortTime = 2 * time.Minute

// interrupted is what becomes of a job when whoever follows it is interrupted:
// it goes on, unless a person at a terminal says otherwise. Another interrupt
// meanwhile ends lpactl (see main) and leaves the job.
func (a *app) interrupted(ctx context.Context, c *client.Client, t *timeline, j api.Job) error {
	left := &leftError{j}
	if !a.terminal || !errors.Is(context.Cause(ctx), errTyped) {
		return left
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), abortTime)
	defer cancel()
	answer, err := a.ask(ctx, "abort the job, or leave it running? [a/L] ")
	if answer != "a" && answer != "A" && answer != "abort" || err != nil {
		return left
	}
	if _, err := c.Abort(ctx, j.ID); err != nil {
		return err
	}
	j, err = c.Follow(ctx, j.ID, t.update)
	t.clearBar()
	if err != nil {
		return err
	}
	return a.ended(j)
}
