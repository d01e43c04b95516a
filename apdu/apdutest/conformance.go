package apdutest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"lpad/apdu"
)

// Target describes the card behind the transport that [TestTransport] tests.
type Target struct {
	// Open gives the card, ready for use. TestTransport opens it once for
	// every part, and closes it.
	Open func(t *testing.T) apdu.Card

	AID       []byte     // of an application that is there
	Questions []Question // what it answers; one of them with more than 256 bytes, if the card can
	Channels  int        // how many channels can be open at once; 0: not tested
	// Fill makes a command to the application that has n bytes of data and is
	// answered with a success. nil: block sizes are not tested.
	Fill func(n int) apdu.Command

	// VagueErrors says that something between us and the card hides status
	// words of opening a channel, as a modem does behind AT+CCHO.
	VagueErrors bool
	// Stall makes the card stop answering until resume is called. nil: the
	// behaviour with a dead card is not tested.
	Stall func() (resume func())
	// Reset resets the card behind the back of the transport. nil: not tested.
	Reset func()
	// Recovery is how long the transport may need to be usable again after
	// the card was stalled or reset; 0: 10 s.
	Recovery time.Duration
}

// Question is a command and what its answer has to be.
type Question struct {
	Name    string
	Command apdu.Command
	Answer  []byte  // the data must begin with it
	Length  int     // of the data, at least
	SW      apdu.SW // 0: any success
}

// ask transmits a question and compares the answer.
func (q Question) ask(ctx context.Context, c *apdu.Channel) error {
	r, err := c.Transmit(ctx, q.Command)
	switch {
	case err != nil:
		return fmt.Errorf("%s: %w", q.Name, err)
	case !bytes.HasPrefix(r.Data, q.Answer) || len(r.Data) < q.Length:
		return fmt.Errorf("%s: answer of %d bytes %.40X, want %d or more beginning with %X", q.Name, len(r.Data), r.Data, q.Length, q.Answer)
	case q.SW != 0 && r.SW != q.SW:
		return fmt.Errorf("%s: status %v, want %v", q.Name, r.SW, q.SW)
	}
	return nil
}

// rounds is more than a card has channels, so that a leak shows.
const rounds = 25

// absentAID is of no application: the RID is not assigned.
var absentAID = []byte{0xF0, 0x00, 0x00, 0x00, 0x00, 0x77, 0x77}

// TestTransport tests that a transport carries commands to a card as package
// apdu wants it: whole answers, channels that come back, errors with their
// cause, and an end to every wait.
func TestTransport(t *testing.T, target Target) {
	if target.Recovery == 0 {
		target.Recovery = 10 * time.Second
	}
	for _, part := range []struct {
		name string
		test func(*suite)
		skip bool
	}{
		{"answers", (*suite).answers, false},
		{"channels come back", (*suite).comeBack, false},
		{"wrong application", (*suite).wrongApplication, false},
		{"all channels", (*suite).allChannels, target.Channels == 0},
		{"two channels", (*suite).twoChannels, target.Channels == 1},
		{"closed channel", (*suite).closedChannel, false},
		{"unknown command", (*suite).unknownCommand, false},
		{"block size", (*suite).blockSize, target.Fill == nil},
		{"ctx over before", (*suite).ctxBefore, false},
		{"two users", (*suite).twoUsers, false},
		{"dead card", (*suite).deadCard, target.Stall == nil},
		{"reset card", (*suite).resetCard, target.Reset == nil},
	} {
		if part.skip {
			continue // the target says that it has no such thing
		}
		t.Run(part.name, func(t *testing.T) {
			s := &suite{T: t, Target: target, card: target.Open(t)}
			defer func() {
				if err := s.card.Close(); err != nil {
					t.Errorf("close card: %v", err)
				}
			}()
			part.test(s)
		})
	}
}

type suite struct {
	*testing.T
	Target
	card apdu.Card
}

// channel opens a channel, which has to work.
func (s *suite) channel() *apdu.Channel {
	s.Helper()
	c, err := s.card.OpenChannel(s.Context(), s.AID)
	if err != nil {
		s.Fatalf("open channel: %v", err)
	}
	return c
}

// ask asks all questions on a channel.
func (s *suite) ask(c *apdu.Channel) {
	s.Helper()
	for _, q := range s.Questions {
		if err := q.ask(s.Context(), c); err != nil {
			s.Error(err)
		}
	}
}

func (s *suite) close(c *apdu.Channel) {
	s.Helper()
	if err := c.Close(s.Context()); err != nil {
		s.Errorf("close channel: %v", err)
	}
}

func (s *suite) answers() {
	c := s.channel()
	if c.ID() == "" {
		s.Error("channel has no name")
	}
	s.ask(c)
	s.close(c)
}

func (s *suite) comeBack() {
	for range rounds {
		c := s.channel()
		s.close(c)
	}
	c := s.channel()
	s.ask(c)
	s.close(c)
}

func (s *suite) wrongApplication() {
	for range rounds {
		_, err := s.card.OpenChannel(s.Context(), absentAID)
		if err == nil {
			s.Fatal("an application that is not there was selected")
		}
		if !s.VagueErrors && !errors.Is(err, apdu.ErrNotFound) {
			s.Fatalf("error %v, want one that matches ErrNotFound", err)
		}
	}
	c := s.channel()
	s.ask(c)
	s.close(c)
}

func (s *suite) allChannels() {
	var open []*apdu.Channel
	for range s.Channels {
		open = append(open, s.channel())
	}
	_, err := s.card.OpenChannel(s.Context(), s.AID)
	if err == nil || !s.VagueErrors && !errors.Is(err, apdu.ErrNoChannel) {
		s.Errorf("error %v, want one that matches ErrNoChannel", err)
	}
	s.ask(open[len(open)-1])
	s.close(open[0])
	open[0] = s.channel()
	for _, c := range open {
		s.ask(c)
		s.close(c)
	}
}

func (s *suite) twoChannels() {
	a, b := s.channel(), s.channel()
	for range 3 {
		s.ask(a)
		s.ask(b)
	}
	s.close(a)
	s.ask(b)
	s.close(b)
}

func (s *suite) closedChannel() {
	c := s.channel()
	s.close(c)
	s.close(c) // closing is idempotent
	if _, err := c.Transmit(s.Context(), s.Questions[0].Command); !errors.Is(err, apdu.ErrChannelClosed) {
		s.Errorf("error %v, want one that matches ErrChannelClosed", err)
	}
}

func (s *suite) unknownCommand() {
	c := s.channel()
	var status *apdu.StatusError
	if _, err := c.Transmit(s.Context(), apdu.Command{CLA: 0x80, INS: 0x02}); !errors.As(err, &status) {
		s.Errorf("error %v, want a StatusError", err)
	}
	s.ask(c)
	s.close(c)
}

func (s *suite) blockSize() {
	n := s.card.BlockSize()
	if n < 1 || n > 255 {
		s.Fatalf("block size %d", n)
	}
	c := s.channel()
	for _, n := range []int{1, n - 1, n} {
		if _, err := c.Transmit(s.Context(), s.Fill(n)); err != nil {
			s.Errorf("%d bytes of data: %v", n, err)
		}
	}
	s.close(c)
}

func (s *suite) ctxBefore() {
	c := s.channel()
	ctx, cancel := context.WithCancel(s.Context())
	cancel()
	if _, err := c.Transmit(ctx, s.Questions[0].Command); !errors.Is(err, context.Canceled) {
		s.Errorf("error %v, want context.Canceled", err)
	}
	s.ask(c) // nothing was sent, so nothing is broken
	if err := c.Close(ctx); err != nil {
		s.Errorf("close with a ctx that is over: %v", err)
	}
	s.comeBack()
}

// twoUsers: a second goroutine on the channel is refused or served, but gets
// nobody else's answer.
func (s *suite) twoUsers() {
	c := s.channel()
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for range 10 {
				if err := s.Questions[0].ask(s.Context(), c); err != nil && !errors.Is(err, apdu.ErrInUse) {
					s.Error(err)
				}
			}
		})
	}
	wg.Wait()
	s.ask(c)
	s.close(c)
}

// patience is how long after the end of ctx a call may return.
const patience = 3 * time.Second

func (s *suite) deadCard() {
	c := s.channel()
	resume := s.Stall()
	defer resume()
	ctx, cancel := context.WithTimeout(s.Context(), 200*time.Millisecond)
	defer cancel()
	start := time.Now()
	_, err := c.Transmit(ctx, s.Questions[0].Command)
	if err == nil {
		s.Fatal("a dead card answered")
	}
	if took := time.Since(start); took > 200*time.Millisecond+patience {
		s.Errorf("returned %v after the start, ctx had 200 ms", took)
	}
	if _, err := c.Transmit(s.Context(), s.Questions[0].Command); !errors.Is(err, apdu.ErrBroken) {
		s.Errorf("then: error %v, want one that matches ErrBroken", err)
	}
	start = time.Now()
	if err := c.Close(s.Context()); err != nil {
		s.Logf("close: %v", err) // whether that works depends on what is left of the card
	}
	if took := time.Since(start); took > apdu.CloseTimeout+patience {
		s.Errorf("close took %v", took)
	}
	resume()
	s.recover()
}

func (s *suite) resetCard() {
	c := s.channel()
	s.Reset()
	_, err := c.Transmit(s.Context(), s.Questions[0].Command)
	if !errors.Is(err, apdu.ErrChannelClosed) && !errors.Is(err, apdu.ErrBroken) {
		if _, again := c.Transmit(s.Context(), s.Questions[0].Command); err == nil || again == nil {
			s.Errorf("the channel outlived the card: %v, then %v", err, again)
		}
	}
	if err := c.Close(s.Context()); err != nil {
		s.Logf("close: %v", err) // nothing is left to give back
	}
	s.recover()
}

// recover asks for a new channel until it is there.
func (s *suite) recover() {
	s.Helper()
	ctx, cancel := context.WithTimeout(s.Context(), s.Recovery)
	defer cancel()
	for {
		c, err := s.card.OpenChannel(ctx, s.AID)
		if err == nil {
			s.ask(c)
			s.close(c)
			return
		}
		select {
		case <-ctx.Done():
			s.Fatalf("not usable again after %v: %v", s.Recovery, err)
		case <-time.After(50 * time.Millisecond):
		}
	}
}
