package agent

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"log/slog"
	"os"

	"lpad/apdu"
)

// staleCloser is a card whose channels outlive the program that opened them:
// one behind a modem. A card in a reader is reset when the program dies.
type staleCloser interface {
	CloseStale(ctx context.Context, id string) error
}

// leftover remembers, beside the socket, which channel is open. An lpad that is
// killed leaves it open in the modem, and some modems have only one: the next
// lpad, if it did not close it first, would never get to the card again. Only
// our own channel is ever closed, and only once. The file does not outlive a
// boot, nor is it on flash.
type leftover struct {
	path string // "": nothing is remembered
	log  *slog.Logger
}

// maxChannelID bounds what is read back, in bytes.
const maxChannelID = 64

// note remembers an open channel. Failing to is no reason not to use it.
func (l leftover) note(id string) {
	if l.path == "" {
		return
	}
	if err := os.WriteFile(l.path, []byte(id), 0o600); err != nil {
		l.log.Debug("open channel not written down", "err", err)
	}
}

// forget is for when the channel is closed.
func (l leftover) forget() {
	if l.path == "" {
		return
	}
	if err := os.Remove(l.path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		l.log.Debug("closed channel not crossed out", "err", err)
	}
}

// close closes what an earlier lpad has left open, if there is anything. When
// that fails (the modem is away) it is tried again at the next opening.
func (l leftover) close(ctx context.Context, card apdu.Card) {
	closer, ok := card.(staleCloser)
	if !ok || l.path == "" {
		return
	}
	f, err := os.Open(l.path)
	if err != nil {
		return // as a rule there is none
	}
	id, err := io.ReadAll(io.LimitReader(f, maxChannelID))
	if err = errors.Join(err, f.Close()); err == nil {
		err = closer.CloseStale(ctx, string(id))
	}
	if err != nil {
		l.log.Debug("channel that was left open not closed", "err", err)
		return
	}
	l.log.Info("closed a channel that was left open")
	l.forget()
}
