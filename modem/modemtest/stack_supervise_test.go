package modemtest_test

import (
	"context"
	"strings"
	"testing"
	"time"

	"lpad/modem/modemtest"
)

// hasOwner reports whether somebody has the name on the device's bus.
func hasOwner(ctx context.Context, t *testing.T, s *modemtest.Stack, name string) bool {
	t.Helper()
	bus, err := s.DialBus()
	if err != nil {
		t.Fatal(err)
	}
	defer bus.Close()
	var owned bool
	if err := bus.BusObject().CallWithContext(ctx, "org.freedesktop.DBus.NameHasOwner", 0, name).Store(&owned); err != nil {
		t.Fatal(err)
	}
	return owned
}

// A manager that aborts is started again and finds the modem and its
// connection; one that the test stops stays away until it is started.
func TestStackSupervises(t *testing.T) {
	t.Parallel()
	s := device(t, modemtest.StackConfig{
		Modem:       modemtest.Config{Card: newCard(profileA)},
		Connections: []modemtest.Connection{{ID: "only", APN: "old.apn"}},
	})
	ctx := bounded(t)
	for i, m := range []modemtest.Manager{modemtest.NetworkManager, modemtest.ModemManager} {
		if err := s.WaitConnected(ctx, "only"); err != nil {
			t.Fatal(err)
		}
		if err := s.CrashManager(m); err != nil {
			t.Fatal(err)
		}
		for len(s.Deaths()) == i && ctx.Err() == nil {
			time.Sleep(time.Millisecond)
		}
		deaths := s.Deaths()
		if len(deaths) != i+1 {
			t.Fatalf("after %d crashes: %v", i+1, deaths)
		}
		if d := deaths[i]; d.Manager != m || !strings.Contains(d.How, "abort") || d.Log == "" || d.Final || time.Since(d.Time) > time.Minute {
			t.Errorf("death of %s: %+v", m, d)
		}
		if _, err := s.WaitMM(ctx, profileA.iccid); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.WaitConnected(ctx, "only"); err != nil {
		t.Fatal(err)
	}

	if err := s.StopManager(ctx, modemtest.NetworkManager); err != nil {
		t.Fatal(err)
	}
	time.Sleep(500 * time.Millisecond) // five times what a restart waits
	if hasOwner(ctx, t, s, nm) {
		t.Error("a manager that was stopped is back")
	}
	if err := s.StopManager(ctx, modemtest.NetworkManager); err == nil {
		t.Error("it could be stopped twice")
	}
	if err := s.StartManager(ctx, modemtest.NetworkManager); err != nil {
		t.Fatal(err)
	}
	if err := s.StartManager(ctx, modemtest.NetworkManager); err == nil {
		t.Error("it could be started twice")
	}
	if err := s.RestartManager(ctx, modemtest.ModemManager, 0); err != nil {
		t.Fatal(err)
	}
	if err := s.WaitConnected(ctx, "only"); err != nil {
		t.Fatal(err)
	}
	if deaths := s.Deaths(); len(deaths) != 2 {
		t.Errorf("what the test did counts as deaths: %v", deaths)
	}
}

// A manager that keeps dying is given up, and who waits for it is told.
func TestStackGivesUp(t *testing.T) {
	t.Parallel()
	s := device(t, modemtest.StackConfig{Modem: modemtest.Config{Card: newCard(profileA)}})
	ctx := bounded(t)
	for ctx.Err() == nil {
		if d := s.Deaths(); len(d) > 0 && d[len(d)-1].Final {
			break
		}
		_ = s.CrashManager(modemtest.NetworkManager) // between two lives there is nothing to crash
		time.Sleep(time.Millisecond)
	}
	if d := s.Deaths(); len(d) != 6 {
		t.Fatalf("it died %d times, want 6", len(d))
	}
	if err := s.WaitConnected(ctx, "none"); err == nil || !strings.Contains(err.Error(), "too often") {
		t.Errorf("waiting for a connection: %v", err)
	}
	if err := s.RestartManager(ctx, modemtest.NetworkManager, 0); err != nil {
		t.Error(err)
	}
	if !hasOwner(ctx, t, s, nm) {
		t.Error("it was not started again")
	}
}
