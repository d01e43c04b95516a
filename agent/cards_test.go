package agent

import (
	"context"
	"errors"
	"path/filepath"
	"testing"
	"time"

	"lpad/agent/api"
	"lpad/agent/client"
	"lpad/agent/rsp"
	"lpad/agent/switchover"
	"lpad/config"
	"lpad/internal/fault"
)

// twoCards is a daemon with two cards that are not there.
func twoCards(t *testing.T) (*Agent, config.Config) {
	t.Helper()
	dir := t.TempDir()
	cfg := config.Default()
	cfg.StateDir, cfg.Socket, cfg.RSP.TrustDir = filepath.Join(dir, "lib"), filepath.Join(dir, "s"), dir
	cfg.Cards = []config.Named{{Name: "a", Card: cfg.Card, Modem: cfg.Modem, Network: cfg.Network}, {Name: "b", Default: true, Card: cfg.Card, Modem: cfg.Modem, Network: cfg.Network}}
	direct := switchover.Direct{Card: absent{}}
	p := Parts{Card: absent{}, CardPath: CardPath{Backend: "pcsc", Path: "x"}, Settings: direct, Modem: direct, Network: direct, NetworkBackend: "none"}
	a, err := New(cfg, Host{}, []Parts{p, p})
	if err != nil {
		t.Fatal(err)
	}
	return a, cfg
}

// An eUICC belongs to the first that has it, for as long as that one can read it.
func TestClaims(t *testing.T) {
	a, _ := twoCards(t)
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error, 1)
	first, second := a.units[0], a.units[1]
	one, other := rsp.EID{0x89, 1}, rsp.EID{0x89, 2}
	refused := func(u *unit, eid rsp.EID) bool {
		t.Helper()
		err := a.claims.admit(u, eid)
		if err != nil && (fault.Of(err).Code != "card-twice" || fault.Of(err).Next == "") {
			t.Errorf("refused with %v", err)
		}
		return err != nil
	}
	if refused(first, one) || refused(second, other) || refused(first, one) {
		t.Error("a card of its own is refused")
	}
	if !refused(second, one) {
		t.Error("a second path is admitted")
	}
	if refused(second, other) || refused(first, other) && refused(first, one) {
		t.Error("cards that were swapped are refused for ever")
	}
	go func() { done <- a.Run(ctx) }()
	deadline := time.Now().Add(10 * time.Second)
	for refused(second, one) && time.Now().Before(deadline) { // until the first has looked, and found nothing
		time.Sleep(10 * time.Millisecond)
	}
	if refused(second, one) {
		t.Error("the card of a path that cannot be read belongs to it for ever")
	}
	stop()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// Which card is meant, while both are at work.
func TestForCard(t *testing.T) {
	a, cfg := twoCards(t)
	ctx := t.Context()
	defer start(t, a)()
	c := client.New(cfg.Socket)
	defer c.Close()
	code := func(err error) string {
		var p *api.Problem
		if errors.As(err, &p) {
			return p.Code
		}
		return ""
	}
	if _, err := c.SetNickname(ctx, "89440200000000000022", "x"); code(err) != api.CodeCardAmbiguous {
		t.Errorf("an order without a card: %v", err)
	}
	if _, err := c.For("c").Status(ctx); code(err) != api.CodeCardUnknown {
		t.Errorf("a card that there is not: %v", err)
	}
	if s, err := c.Status(ctx); err != nil || s.Card.Name != "b" || len(s.Cards) != 2 || s.Cards[0].Name != "a" || s.Cards[0].Default || !s.Cards[1].Default {
		t.Errorf("status %+v, %v", s, err)
	}
	ids := map[string]bool{}
	for _, name := range []string{"a", "b", "a"} {
		j, err := c.For(name).SetNickname(ctx, "89440200000000000022", "x")
		if err != nil || j.Card != name || ids[j.ID] {
			t.Fatalf("job %+v, %v", j, err)
		}
		ids[j.ID] = true
		if found, err := c.Job(ctx, j.ID); err != nil || found.Card != name {
			t.Errorf("by its id: %+v, %v", found, err)
		}
		if ended, err := c.Follow(ctx, j.ID, func(api.Job) {}); err != nil || ended.State != "failed" {
			t.Errorf("ended %+v, %v", ended, err)
		}
	}
	all, err := c.Jobs(ctx)
	if err != nil || len(all.Jobs) != 3 {
		t.Errorf("jobs of all: %+v, %v", all, err)
	}
	for name, n := range map[string]int{"a": 2, "b": 1} {
		if own, err := c.For(name).Jobs(ctx); err != nil || len(own.Jobs) != n {
			t.Errorf("jobs of %s: %+v, %v", name, own, err)
		}
	}
	if _, err := c.For("b").Job(ctx, all.Jobs[0].ID); (all.Jobs[0].Card == "b") != (err == nil) {
		t.Errorf("a job of another card: %v", err)
	}
	if _, err := c.For("a").Slot(ctx); code(err) != "no-slots" {
		t.Errorf("slots of a reader: %v", err)
	}
}

// slots is a modem with this slot in use.
type slots struct {
	active int
	err    error
	set    []int
}

func (s *slots) Slot(context.Context) (int, int, error) { return s.active, 0, s.err }
func (s *slots) SetSlot(_ context.Context, n int) error {
	s.set, s.active = append(s.set, n), n
	return nil
}

func TestCheckSlot(t *testing.T) {
	unknown := fault.New(fault.Fault{Code: "no-slot-command"}, nil)
	for _, c := range []struct {
		want   string
		active int
		err    error
		code   string
	}{
		{"", 2, nil, ""},
		{"2", 2, nil, ""},
		{"1", 2, nil, "wrong-slot"},
		{"0", 1, nil, "wrong-slot"},
		{"1", 0, unknown, ""},
		{"2", 0, unknown, "wrong-slot"},
		{"1", 0, fault.New(fault.Fault{Code: "modem-not-supported"}, nil), ""},
		{"1", 0, fault.New(fault.Fault{Code: "modem-silent"}, nil), "modem-silent"},
	} {
		m := &slots{active: c.active, err: c.err}
		s := &cardSource{slots: m, slot: c.want, card: absent{}, aids: rsp.ISDRs()}
		if err := s.checkSlot(t.Context()); (err != nil) != (c.code != "") || err != nil && fault.Of(err).Code != c.code {
			t.Errorf("slot %q wanted, %d active, %v: %v, want %s", c.want, c.active, c.err, err, c.code)
		}
		if len(m.set) != 0 {
			t.Error("switched without an order")
		}
	}
	if err := (&cardSource{slot: "2"}).checkSlot(t.Context()); err != nil {
		t.Errorf("a card in a reader: %v", err)
	}
}
