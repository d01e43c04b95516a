package apdu_test

import (
	"bytes"
	"context"
	"testing"

	"lpad/apdu"
)

func FuzzParseCommand(f *testing.F) {
	for _, s := range []string{"80120000", "0070000001", "80E2910003BF3E00", "00A4040002010200", "80E29100000003BF3E00"} {
		f.Add(unhex(f, s))
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		c, err := apdu.ParseCommand(in)
		if err != nil {
			return
		}
		if out, err := c.Marshal(); err != nil || !bytes.Equal(in, out) {
			t.Errorf("%X became %X, %v", in, out, err)
		}
	})
}

// hostile is a card that answers with the parts of one input in turn, each with
// a length byte before it, and then dies.
type hostile struct {
	answers []byte
	rounds  int
}

func (h *hostile) Transmit(context.Context, []byte) ([]byte, error) {
	h.rounds++
	if len(h.answers) == 0 {
		return nil, errLine
	}
	n := min(int(h.answers[0]), len(h.answers)-1)
	answer := h.answers[1 : 1+n]
	h.answers = h.answers[1+n:]
	return answer, nil
}

// FuzzChannel: no card makes a channel panic or go on for ever.
func FuzzChannel(f *testing.F) {
	for _, s := range []string{
		"03019000 026121 036F9000 02610F 030F9000 029000",
		"026C01 03019000 029000 026100 04FFFF6100 026C00 0100",
		"03149000", "0190", "00", "03019000 026A82 026881",
	} {
		f.Add(unhex(f, s))
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		card := &hostile{answers: in}
		c, err := apdu.OpenChannel(t.Context(), card, isdr)
		if err != nil {
			return
		}
		r, err := c.Transmit(t.Context(), apdu.Command{CLA: 0x80, INS: 0xE2, P1: 0x91, Data: []byte{0xBF, 0x2D, 0x00}})
		if err == nil && !r.SW.OK() || len(r.Data) > len(in) {
			t.Errorf("%v with %d bytes, %v", r.SW, len(r.Data), err)
		}
		if err := c.Close(t.Context()); err == nil {
			if err := c.Close(t.Context()); err != nil {
				t.Error(err)
			}
		}
		if card.rounds > len(in)+3 {
			t.Errorf("%d rounds", card.rounds)
		}
	})
}
