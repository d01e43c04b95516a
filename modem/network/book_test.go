package network

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"lpad/modem"
	"lpad/modem/atmodem"
)

// smscs is a modem with one setting.
type smscs struct {
	value  []string
	broken bool // it takes no other value
}

func (s *smscs) Setting(context.Context, string) ([]string, error) { return s.value, nil }

func (s *smscs) Set(_ context.Context, _ string, want []string) error {
	if s.broken {
		return errors.New("no")
	}
	s.value = want
	return nil
}

func (s *smscs) wanted(_ context.Context, _ string, r *modem.Radio, _ []string) ([]string, string, error) {
	return []string{r.SMSC, r.RATs[0]}, "", nil
}

// tuned is the one knob of these tests: a setting of the modem, not of the card.
var tuned = knob{atmodem.PSM, leafPSM, ViaAT, false}

func wishes(value string) *modem.Radio {
	return &modem.Radio{SMSC: value, RATs: []string{"4g"}, PSM: &modem.PSM{}}
}

// A setting that cannot be written down is not made: nothing could take it back.
func TestSettingIsWrittenDownFirst(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	b := newBook(filepath.Join(dir, "link.json"), slog.New(slog.DiscardHandler))
	if err := os.Mkdir(b.file+".new", 0o700); err != nil { // the disk takes nothing
		t.Fatal(err)
	}
	m := &smscs{value: []string{"before"}}
	b.plan(wishes("wanted"), false)
	b.turn(t.Context(), m, &tuned, wishes("wanted"), false)
	if !slices.Equal(m.value, []string{"before"}) || len(b.Late()) != 1 {
		t.Errorf("set to %q, report %q", m.value, b.Late())
	}
	if err := os.Remove(b.file + ".new"); err != nil {
		t.Fatal(err)
	}
	b.turn(t.Context(), m, &tuned, wishes("wanted"), false)
	if !slices.Equal(m.value, []string{"wanted", "4g"}) {
		t.Errorf("set to %q with room on the disk", m.value)
	}
	if err := os.Mkdir(b.file+".new", 0o700); err != nil {
		t.Fatal(err)
	}
	b.turn(t.Context(), m, &tuned, nil, true)
	if !slices.Equal(m.value, []string{"before"}) {
		t.Errorf("a full disk has kept a rollback from setting it back: %q", m.value)
	}
}

// What a rollback could not put back, the next switch does; what it could is no
// longer anybody's business.
func TestRollbackLeavesToTheNext(t *testing.T) {
	t.Parallel()
	for _, broken := range []bool{false, true} {
		file := filepath.Join(t.TempDir(), "link.json")
		again := func() *book { return newBook(file, slog.New(slog.DiscardHandler)) } // as after a restart
		m := &smscs{value: []string{"before"}}
		was := *again().begin()
		again().turn(t.Context(), m, &tuned, wishes("wanted"), false)
		m.broken = broken
		again().turn(t.Context(), m, &tuned, nil, true)
		again().finish(was)
		m.broken = false
		if !broken {
			if !slices.Equal(m.value, []string{"before"}) {
				t.Errorf("after the rollback: %q", m.value)
			}
			m.value = []string{"by hand"}
		}
		again().begin()
		again().turn(t.Context(), m, &tuned, &modem.Radio{}, false)
		if want := map[bool]string{true: "before", false: "by hand"}[broken]; !slices.Equal(m.value, []string{want}) {
			t.Errorf("broken %t: after the next switch: %q, want %q", broken, m.value, want)
		}
	}
}
