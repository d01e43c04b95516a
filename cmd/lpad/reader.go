package main

import (
	"context"
	"log/slog"
	"strings"
	"sync"

	"lpad/apdu"
	"lpad/apdu/pcsc"
	"lpad/modem"
	"lpad/modem/quirks"
)

// reader is a card in a PC/SC reader that is opened when it is first used: a
// reader that is plugged in later is found then.
type reader struct {
	cfg     pcsc.Config
	table   *quirks.Table
	learned *quirks.Memory
	log     *slog.Logger

	mu   sync.Mutex
	card *pcsc.Card
}

func (r *reader) open(ctx context.Context) (*pcsc.Card, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.card == nil {
		card, err := pcsc.Open(ctx, r.cfg)
		if err != nil {
			return nil, err
		}
		r.card = card
	}
	return r.card, nil
}

// OpenChannel opens a logical channel.
func (r *reader) OpenChannel(ctx context.Context, aid []byte) (*apdu.Channel, error) {
	card, err := r.open(ctx)
	if err != nil {
		return nil, err
	}
	return card.OpenChannel(ctx, aid)
}

// name is that of the reader in use; empty before the first use. It waits for
// nothing.
func (r *reader) name() string {
	if !r.mu.TryLock() {
		return "" // it is being opened
	}
	defer r.mu.Unlock()
	if r.card == nil {
		return ""
	}
	return r.card.Reader()
}

// Reset resets the card.
func (r *reader) Reset(ctx context.Context) error {
	card, err := r.open(ctx)
	if err != nil {
		return err
	}
	return card.Reset(ctx)
}

// Enable is the order in which cards in this reader are enabled.
func (r *reader) Enable() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.card == nil {
		return nil
	}
	return r.table.FindReader(r.card.Reader()).Enable
}

// ISDR is the AID that the ISD-R in this reader answered to the last time.
func (r *reader) ISDR(ctx context.Context) (string, error) {
	card, err := r.open(ctx)
	if err != nil {
		return "", err
	}
	return r.learned.Get(readerIdentity(card.Reader())).ISDR, nil
}

// LearnISDR remembers the AID that the ISD-R has answered to.
func (r *reader) LearnISDR(aid string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.card == nil {
		return
	}
	if err := r.learned.Put(readerIdentity(r.card.Reader()), func(l *quirks.Learned) { l.ISDR = aid }); err != nil {
		r.log.Warn("what was learnt of the reader is not written down", "err", err)
	}
}

// readerIdentity is the name of a kind of readers: without its serial number,
// which some put into parentheses, and the numbers that PC/SC adds.
func readerIdentity(name string) modem.Identity {
	kind, _, _ := strings.Cut(name, "(")
	return modem.Identity{Manufacturer: "PC/SC", Model: strings.TrimRight(kind, " 0123456789")}
}

// BlockSize is what a reader takes.
func (r *reader) BlockSize() int { return 255 }

// Close gives the reader up.
func (r *reader) Close() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.card == nil {
		return nil
	}
	err := r.card.Close()
	r.card = nil
	return err
}
