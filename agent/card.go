package agent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"lpad/agent/rsp"
	"lpad/agent/rsp/es10"
	"lpad/agent/runner"
	"lpad/apdu"
)

// apduLimit bounds one APDU that must not be cut in the middle: it is above
// every bound of the transports below, so that theirs is the one that speaks.
const apduLimit = es10.LongTimeout + 10*time.Second

// levelTrace is the level of a line for each APDU, as of one for each AT
// command in modem/at.
const levelTrace = slog.LevelDebug - 4

// Habits is what is known of the way to the card, from a table or from having
// used it.
type Habits interface {
	Enable() []string                         // ways of enabling, as [runner.Config.EnableOrder]
	ISDR(ctx context.Context) (string, error) // AID that the ISD-R answered to the last time, hexadecimal; empty: not known
	LearnISDR(aid string)
}

// cardSource opens the ISD-R; see runner.CardSource. It is used by the card's
// goroutine alone.
type cardSource struct {
	card      apdu.Card
	aids      []rsp.AID
	blockSize int // of the configuration; 0: the card's
	log       *slog.Logger
	known     rsp.AID // the one that answered last
	habits    Habits  // nil: nothing is known
	turns     *turns  // nil: the way to the card is ours alone

	slots Slots  // nil: there are none
	slot  string // that must be in use; empty: any

	pulse    *runner.Pulse // nil: nobody looks
	patience time.Duration // with one exchange
	figures  *figures      // nil: nobody counts

	admit func(rsp.EID) error // refuses a card that another path leads to; nil: there is no other
}

// Open opens a channel to the first ISD-R that answers.
func (s *cardSource) Open(ctx context.Context) (runner.Card, error) {
	card, err := s.open(ctx)
	if err != nil || s.admit == nil {
		return card, err
	}
	eid, err := card.GetEID(ctx)
	if err == nil {
		err = s.admit(eid)
	}
	if err != nil {
		return nil, errors.Join(err, card.Close(context.WithoutCancel(ctx)))
	}
	return card, nil
}

func (s *cardSource) open(ctx context.Context) (runner.Card, error) {
	ch, end, err := s.raw(ctx)
	if err != nil {
		return nil, err
	}
	return &openCard{es10.New(ch, s.size()), end}, nil
}

// raw opens a channel for commands as they are; end closes it.
func (s *cardSource) raw(ctx context.Context) (ch es10.Channel, end func(context.Context) error, err error) {
	if t := s.turns; t != nil {
		_, err := t.card(ctx)
		return t, t.end, err
	}
	opened, err := s.channel(ctx)
	if err != nil {
		return nil, nil, err
	}
	return whole{opened, s}, opened.Close, nil
}

// size is how many bytes a block has.
func (s *cardSource) size() int {
	if s.blockSize != 0 {
		return s.blockSize
	}
	return s.card.BlockSize()
}

func (s *cardSource) channel(ctx context.Context) (*apdu.Channel, error) {
	if err := s.checkSlot(ctx); err != nil {
		return nil, fmt.Errorf("open eUICC: %w", err)
	}
	if s.known == nil && s.habits != nil {
		text, err := s.habits.ISDR(ctx)
		if err != nil {
			return nil, fmt.Errorf("open eUICC: %w", err)
		}
		s.known, _ = rsp.ParseAID(text) // what cannot be read is not known
	}
	for _, aid := range s.order() {
		ch, err := s.openPatiently(ctx, aid)
		if errors.Is(err, apdu.ErrNotFound) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("open eUICC: %w", err)
		}
		if s.habits != nil {
			s.habits.LearnISDR(aid.String())
		}
		s.known = aid
		if s.log.Enabled(ctx, levelTrace) {
			ch.Trace(func(l apdu.TraceLine) {
				s.log.LogAttrs(context.WithoutCancel(ctx), levelTrace, "apdu", slog.Any("exchange", l))
			})
		}
		return ch, nil
	}
	return nil, errNoCard
}

// order is the one in which the ISD-R's addresses are tried: the one that
// answered last is first, if the configuration allows it.
func (s *cardSource) order() []rsp.AID {
	i := slices.IndexFunc(s.aids, s.known.Equal)
	if i <= 0 {
		return s.aids
	}
	return append([]rsp.AID{s.known}, slices.Delete(slices.Clone(s.aids), i, i+1)...)
}

// How long a card that says it is busy is asked again: a modem reads its SIM
// for seconds after it was switched on.
const (
	busyLimit = 30 * time.Second
	busyPause = 300 * time.Millisecond
)

// openPatiently opens a channel, asking a busy card again.
func (s *cardSource) openPatiently(ctx context.Context, aid rsp.AID) (*apdu.Channel, error) {
	limit := time.Now().Add(busyLimit)
	for {
		end := s.pulse.Begin("opening a channel to the card", s.patience)
		ch, err := s.card.OpenChannel(ctx, aid)
		end()
		if !errors.Is(err, apdu.ErrNotFound) {
			s.figures.cardFailed(ctx, err)
		}
		if !errors.Is(err, apdu.ErrBusy) || time.Now().After(limit) {
			return ch, err
		}
		select {
		case <-ctx.Done():
			return nil, errors.Join(ctx.Err(), err)
		case <-time.After(busyPause):
		}
	}
}

// openCard is an ES10 client with the channel it uses.
type openCard struct {
	*es10.Client
	end func(context.Context) error
}

// Close closes the channel.
func (c *openCard) Close(ctx context.Context) error { return c.end(ctx) }

// whole lets a context end between two APDUs and never in the middle of one:
// a card that was cut off has done something nobody knows, and a modem gives
// its answer to the next question.
type whole struct {
	channel *apdu.Channel
	source  *cardSource
}

func (w whole) Transmit(ctx context.Context, cmd apdu.Command) (apdu.Response, error) {
	return w.source.transmit(ctx, w.channel, cmd)
}

func (s *cardSource) transmit(ctx context.Context, ch *apdu.Channel, cmd apdu.Command) (apdu.Response, error) {
	if err := ctx.Err(); err != nil {
		return apdu.Response{}, err
	}
	defer s.pulse.Begin("a command to the card", s.patience)()
	limited, cancel := context.WithTimeout(context.WithoutCancel(ctx), apduLimit)
	defer cancel()
	r, err := ch.Transmit(limited, cmd)
	s.figures.cardFailed(ctx, err)
	return r, err
}
