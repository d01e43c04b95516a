package procedure_test

import (
	"context"
	"slices"
	"testing"
	"time"

	"lpad/agent/procedure"
	"lpad/agent/rsp"
	"lpad/agent/rsp/es10"
	"lpad/agent/rsp/rsptest/euicc"
	"lpad/apdu"
	"lpad/internal/redact"
)

// A card that says that it is busy, and has done it: it is not told again.
func TestBusyAndDone(t *testing.T) {
	procedure.SetBusyPause(time.Millisecond)
	t.Cleanup(func() { procedure.SetBusyPause(3 * time.Second) })
	id := iccid(t, newICCID)
	calls := 0
	b := newBench(t, setup{card: func(c *euicc.Config) {
		c.Profiles = []euicc.Profile{{ICCID: id}}
		c.Faults = []euicc.Fault{{Do: euicc.TamperAnswer, Function: 0xBF31, Times: -1, Tamper: func(answer []byte) []byte {
			calls++
			answer = slices.Clone(answer)
			answer[len(answer)-1] = 5 // catBusy
			return answer
		}}}
	}})
	if err := procedure.Enable(b.ctx, b.euicc, id, es10.NoRefresh); err != nil || calls != 1 {
		t.Errorf("%v after %d calls", err, calls)
	}
}

// slowly is a card that takes its time, and a transport that lets contexts end
// between two commands, as the daemon's does.
type slowly struct{ card *euicc.Card }

func (s slowly) Transmit(ctx context.Context, command []byte) ([]byte, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	time.Sleep(10 * time.Millisecond)
	return s.card.Transmit(context.WithoutCancel(ctx), command)
}

// Who stops in the middle of a long package gets it back between two commands,
// soon, and the card can be asked afterwards; a short rest is finished.
func TestLoadingEndsSoonAfterItsContext(t *testing.T) {
	for name, grace := range map[string]time.Duration{"long": 20 * time.Millisecond, "short": time.Minute} {
		t.Run(name, func(t *testing.T) {
			procedure.SetLoadGrace(grace)
			t.Cleanup(func() { procedure.SetLoadGrace(4 * time.Second) })
			b := newBench(t, setup{})
			b.order(nil)
			if err := b.ch.Close(b.ctx); err != nil {
				t.Fatal(err)
			}
			var err error
			if b.ch, err = apdu.OpenChannel(b.ctx, slowly{b.card}, rsp.ISDR); err != nil {
				t.Fatal(err)
			}
			b.euicc = es10.New(b.ch, b.block)
			s, err := procedure.Authenticate(b.ctx, b.euicc, b.server(), request())
			if err != nil {
				t.Fatal(err)
			}
			if err := s.Prepare(b.ctx, redact.Secret{}); err != nil {
				t.Fatal(err)
			}
			ctx, stop := context.WithCancel(b.ctx)
			defer stop()
			segments := 0
			_, err = s.Load(ctx, func(done, total int) {
				segments = done
				stop()
			})
			if grace == time.Minute {
				if err != nil || len(b.card.Profiles()) != 1 {
					t.Errorf("%v, %d profiles", err, len(b.card.Profiles()))
				}
				return
			}
			find[*procedure.UnknownOutcomeError](t, err)
			if segments > 5 || len(b.card.Profiles()) != 0 {
				t.Errorf("ended after %d segments, %d profiles", segments, len(b.card.Profiles()))
			}
			if _, found, err := procedure.FindInstallationResult(b.ctx, b.euicc, s.TransactionID); err != nil || found {
				t.Errorf("the card, asked afterwards: %v, %v", found, err)
			}
		})
	}
}
