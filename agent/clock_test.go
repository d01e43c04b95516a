package agent

import (
	"context"
	"errors"
	"log/slog"
	"testing"
	"time"

	"lpad/config"
)

// The modem's time stands in for a clock that was never set, goes on from when
// it was told, and gives way to the system's when that is set.
func TestClock(t *testing.T) {
	never := time.Date(1970, 1, 1, 0, 1, 0, 0, time.UTC)
	truth := time.Date(2026, 6, 1, 12, 0, 0, 0, time.UTC)
	system, answer, err := never, time.Time{}, errors.New("no answer")
	asked := 0
	c := newClock(config.Default().Clock, Parts{Log: slog.New(slog.DiscardHandler), Clock: func(context.Context) (time.Time, error) {
		asked++
		return answer, err
	}})
	c.system = func() time.Time { return system }
	expect := func(ready bool, now time.Time, source string, questions int) {
		t.Helper()
		if got := c.Ready(t.Context()); got != ready {
			t.Errorf("ready: %v", got)
		}
		if got, from := c.now(); !got.Equal(now) || from != source || !c.Now().Equal(now) {
			t.Errorf("%v by %q, want %v by %q", got, from, now, source)
		}
		if asked != questions {
			t.Errorf("asked %d times, want %d", asked, questions)
		}
	}
	expect(false, never, "", 1) // it does not answer
	expect(false, never, "", 1) // and is not pestered
	err, answer = nil, time.Date(2018, 1, 1, 0, 0, 0, 0, time.UTC)
	system = system.Add(clockPause)
	expect(false, system, "", 2) // it does not know either
	system, answer = system.Add(clockPause), truth
	expect(true, truth, "modem", 3)
	system = system.Add(time.Hour)
	expect(true, truth.Add(time.Hour), "modem", 3)
	system = truth.Add(2 * time.Hour)
	expect(true, system, "system", 3)

	c = newClock(config.Clock{FromModem: "never"}, Parts{Clock: func(context.Context) (time.Time, error) { return truth, nil }})
	c.system = func() time.Time { return never }
	if c.Ready(t.Context()) {
		t.Error("the modem was asked though it must not be")
	}
	if c = newClock(config.Default().Clock, Parts{Shared: &sharedModem{}}); c.between() != clockPauseShared {
		t.Errorf("pause %v on a shared port", c.between())
	}
}
