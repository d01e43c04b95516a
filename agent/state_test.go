package agent

import (
	"bytes"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"lpad/agent/runner"
)

func TestStateFile(t *testing.T) {
	dir := t.TempDir()
	var log bytes.Buffer
	f := newStateFile(filepath.Join(dir, "lpad.sock"), slog.New(slog.NewTextHandler(&log, nil)))
	f.remove() // there is none yet
	for _, s := range []runner.State{runner.Starting, runner.NeedsProvisioning, runner.Ready} {
		f.write("main", s)
		if b, err := os.ReadFile(filepath.Join(dir, "state")); err != nil || string(b) != string(s)+"\n" {
			t.Errorf("the file says %q, want %s: %v", b, s, err)
		}
	}
	if list, err := os.ReadDir(dir); err != nil || len(list) != 1 {
		t.Errorf("%v left: %v", list, err)
	}
	f.remove()
	if _, err := os.Stat(f.path); !os.IsNotExist(err) || log.Len() != 0 {
		t.Errorf("removed: %v; log %s", err, log.String())
	}
	for _, s := range []struct {
		card  string
		state runner.State
		want  string
	}{
		{"a", runner.Starting, "starting\n"}, {"b", runner.Starting, "starting\n"}, {"b", runner.Ready, "starting\n"}, {"a", runner.NeedsProvisioning, "needs-provisioning\n"},
		{"a", runner.CardMissing, "card-missing\n"}, {"b", runner.Busy, "busy\n"}, {"b", runner.Ready, "card-missing\n"}, {"a", runner.Ready, "ready\n"},
	} {
		if s.card == "a" && s.state == runner.Starting {
			f = newStateFile(filepath.Join(dir, "lpad.sock"), slog.New(slog.DiscardHandler))
		}
		f.write(s.card, s.state)
		if b, err := os.ReadFile(f.path); err != nil || string(b) != s.want {
			t.Errorf("%s is %s: the file says %q, want %q: %v", s.card, s.state, b, s.want, err)
		}
	}
	f = newStateFile(filepath.Join(dir, "gone", "lpad.sock"), slog.New(slog.NewTextHandler(&log, nil)))
	f.write("main", runner.Ready)
	f.write("main", runner.Busy)
	if n := strings.Count(log.String(), "cannot be written"); n != 1 {
		t.Errorf("said %d times that it cannot be written", n)
	}
}
