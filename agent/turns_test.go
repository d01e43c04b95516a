package agent

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"testing"

	"lpad/agent/procedure"
	"lpad/agent/rsp"
	"lpad/apdu"
	"lpad/apdu/apdutest"
	"lpad/modem"
)

// sharedModem writes down whose turn it is, and is itself the server that is asked.
type sharedModem struct {
	procedure.Server
	card  apdutest.UICC
	said  []string
	fails error
	alone bool
}

func (m *sharedModem) say(what string) error {
	if m.card.Open() > 0 {
		what += "(channel)"
	}
	m.said = append(m.said, what)
	return m.fails
}

func (m *sharedModem) Borrow(context.Context) error   { return m.say("borrow") }
func (m *sharedModem) GiveBack(context.Context) error { return m.say("back") }
func (m *sharedModem) Online(context.Context) error   { return m.say("online") }
func (m *sharedModem) Shares() bool                   { return !m.alone }

func (m *sharedModem) HandleNotification(context.Context, []byte) error { return m.say("server") }

func (m *sharedModem) Identity(context.Context) (modem.Identity, error) {
	return modem.Identity{IMEI: "1"}, m.say("identity")
}

// Card and network take turns, and no channel is open in the network's.
func TestTurns(t *testing.T) {
	ctx, broken := t.Context(), errors.New("broken")
	m := &sharedModem{card: apdutest.UICC{Channels: 1, Apps: map[string]apdutest.App{
		string(rsp.ISDR): func(apdu.Command) apdu.Response { return apdu.Response{SW: 0x9000} }}}}
	source := &cardSource{card: apdutest.Attach(&m.card, 255), aids: []rsp.AID{rsp.ISDR}, log: slog.New(slog.DiscardHandler)}
	source.turns = &turns{shared: m, open: source.channel, transmit: source.transmit, log: source.log}
	server := turnedServer{m, source.turns}
	ask := func() error { _, err := source.turns.Transmit(ctx, apdu.Command{CLA: 0x80, INS: 0xE2}); return err }
	for _, step := range []struct {
		name  string
		do    func() error
		fails error
		said  string
	}{
		{"open", func() error { _, err := source.Open(ctx); return err }, nil, "borrow"},
		{"card", ask, nil, ""},
		{"server", func() error { return server.HandleNotification(ctx, nil) }, nil, "back online server"},
		{"server again", func() error { return server.HandleNotification(ctx, nil) }, nil, "back online server"},
		{"card again", ask, nil, "borrow"},
		{"identity", func() error { _, err := source.turns.identity(m.Identity)(ctx); return err }, nil, "identity(channel)"},
		{"end", func() error { return source.turns.end(ctx) }, nil, "back"},
		{"not to be had", func() error { _, err := source.Open(ctx); return err }, broken, "borrow back"},
		{"no network", func() error { return server.HandleNotification(ctx, nil) }, broken, "back online"},
	} {
		m.said, m.fails = nil, step.fails
		if err := step.do(); !errors.Is(err, step.fails) {
			t.Errorf("%s: %v", step.name, err)
		}
		if got := strings.Join(m.said, " "); got != step.said {
			t.Errorf("%s: %q, want %q", step.name, got, step.said)
		}
	}
}

// On a port of lpad's own nothing is given back for a server, and the channel stays.
func TestNoTurns(t *testing.T) {
	ctx := t.Context()
	m := &sharedModem{alone: true, card: apdutest.UICC{Channels: 1, Apps: map[string]apdutest.App{
		string(rsp.ISDR): func(apdu.Command) apdu.Response { return apdu.Response{SW: 0x9000} }}}}
	source := &cardSource{card: apdutest.Attach(&m.card, 255), aids: []rsp.AID{rsp.ISDR}, log: slog.New(slog.DiscardHandler)}
	source.turns = &turns{shared: m, open: source.channel, transmit: source.transmit, log: source.log}
	if _, err := source.turns.identity(m.Identity)(ctx); err != nil {
		t.Error(err)
	}
	if _, err := source.Open(ctx); err != nil {
		t.Fatal(err)
	}
	if err := (turnedServer{m, source.turns}).HandleNotification(ctx, nil); err != nil {
		t.Error(err)
	}
	if err := source.turns.end(ctx); err != nil {
		t.Error(err)
	}
	if got := strings.Join(m.said, ", "); got != "identity, borrow, server(channel), back" {
		t.Errorf("said %q", got)
	}
}
