package agent

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"testing"

	"lpad/agent/rsp"
	"lpad/apdu"
	"lpad/apdu/apdutest"
)

// modemCard is a card whose channels stay open when nobody closes them.
type modemCard struct {
	apdu.Card
	uicc   *apdutest.UICC
	closed []string
}

func (c *modemCard) CloseStale(ctx context.Context, id string) error {
	c.closed = append(c.closed, id)
	n, err := strconv.Atoi(id)
	if err != nil {
		return err
	}
	_, err = c.uicc.Transmit(ctx, []byte{0x00, 0x70, 0x80, byte(n), 0x00})
	return err
}

// An lpad that was killed with the modem's only channel open does not lock the
// next one out.
func TestChannelLeftOpen(t *testing.T) {
	ctx, path := t.Context(), filepath.Join(t.TempDir(), "channel")
	uicc := &apdutest.UICC{Channels: 1, Apps: map[string]apdutest.App{
		string(rsp.ISDR): func(apdu.Command) apdu.Response { return apdu.Response{SW: 0x9000} }}}
	card := &modemCard{Card: apdutest.Attach(uicc, 255), uicc: uicc}
	log := slog.New(slog.DiscardHandler)
	life := func() *cardSource {
		return &cardSource{card: card, aids: []rsp.AID{rsp.ISDR}, left: leftover{path, log}, log: log}
	}
	if _, err := life().Open(ctx); err != nil { // and is killed
		t.Fatal(err)
	}
	second := life()
	for range 2 {
		open, err := second.Open(ctx)
		if err != nil {
			t.Fatal(err)
		}
		if err := open.Close(ctx); err != nil {
			t.Fatal(err)
		}
	}
	if len(card.closed) != 1 || uicc.Open() != 0 {
		t.Errorf("closed %q for others, %d open", card.closed, uicc.Open())
	}
	if _, err := os.Stat(path); !os.IsNotExist(err) {
		t.Errorf("a closed channel is still written down: %v", err)
	}
	// What is closed properly leaves nothing to do, and nonsense does no harm.
	if err := os.WriteFile(path, []byte("nonsense"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := life().Open(ctx); err != nil {
		t.Error(err)
	}
}
