package runner_test

import (
	"context"
	"errors"
	"strings"
	"testing"

	"lpad/agent/job"
	"lpad/internal/fault"
)

// Who looks at the way to the card has it alone, gives way to a job, and is
// refused while there is one.
func TestWithCard(t *testing.T) {
	w := newWorld(t, options{})
	l := w.live()
	wrong := errors.New("wrong")
	var channels []int
	if err := l.WithCard(t.Context(), func(context.Context) error { channels = w.card.OpenChannels(); return wrong }); !errors.Is(err, wrong) || len(channels) != 0 {
		t.Errorf("error %v, channels %v", err, channels)
	}

	// A job that is ordered meanwhile goes first.
	began, id := make(chan struct{}), make(chan string, 1)
	go func() {
		<-began
		id <- l.submit(order(asking)).ID
	}()
	err := l.WithCard(t.Context(), func(ctx context.Context) error {
		close(began)
		<-ctx.Done()
		return ctx.Err()
	})
	if f := fault.Of(err); f.Code != "conflict" || !strings.Contains(f.Text, "a job needs the card") {
		t.Errorf("called off: %v", err)
	}

	// While it has the card nobody else gets it.
	j := l.state(<-id, job.Consent)
	ran := false
	if err := l.WithCard(t.Context(), func(context.Context) error { ran = true; return nil }); fault.Of(err).Code != "conflict" || ran {
		t.Errorf("beside a job: %v, ran: %v", err, ran)
	}
	if _, err := l.Abort(t.Context(), j.ID); err != nil {
		t.Fatal(err)
	}
	l.ends(j.ID, job.Cancelled)

	// Who asks may go away, which ends it too.
	ctx, cancel := context.WithCancel(t.Context())
	over := make(chan struct{})
	err = l.WithCard(ctx, func(task context.Context) error {
		defer close(over)
		cancel()
		<-task.Done()
		return task.Err()
	})
	if err == nil {
		t.Error("no error for somebody who has gone")
	}
	<-over
	if err := l.WithCard(t.Context(), func(context.Context) error { return nil }); err != nil {
		t.Errorf("afterwards: %v", err)
	}
}
