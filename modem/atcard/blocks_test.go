package atcard_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"lpad/apdu"
	"lpad/apdu/apdutest"
	"lpad/internal/fault"
	"lpad/modem/at"
	"lpad/modem/at/attest"
	"lpad/modem/atcard"
)

// chainApp is an application that takes messages in chains of STORE DATA, as the
// ISD-R does: two bytes of length, then the rest. It acts on whole ones.
type chainApp struct {
	buf      []byte
	blocks   int
	executed int
	ends     int // last blocks that it was sent
}

func (a *chainApp) answer(c apdu.Command) apdu.Response {
	if c.INS != 0xE2 {
		return apdu.Response{SW: 0x6D00}
	}
	last := c.P1&0x80 != 0
	if last {
		a.ends++
	}
	if c.P2 == 0 {
		a.buf, a.blocks = nil, 0
	}
	if int(c.P2) != a.blocks {
		return apdu.Response{SW: 0x6A86}
	}
	a.buf = append(a.buf, c.Data...)
	a.blocks++
	if !last {
		return apdu.Response{SW: 0x9000}
	}
	if len(a.buf) < 2 || int(binary.BigEndian.Uint16(a.buf)) != len(a.buf) {
		return apdu.Response{SW: 0x6A80}
	}
	a.executed++
	return apdu.Response{Data: []byte{0xAC}, SW: 0x9000}
}

// message is a whole one of n bytes.
func message(n int) []byte { return binary.BigEndian.AppendUint16(nil, uint16(n))[:2:2] }

// send does what package es10 does with a message.
func send(ctx context.Context, ch *apdu.Channel, block *int, n int) error {
	data := append(message(n), bytes.Repeat([]byte{0x5A}, n-2)...)
	for {
		err := sendIn(ctx, ch, *block, data)
		var size *apdu.BlockSizeError
		if !errors.As(err, &size) || size.Size >= *block {
			return err
		}
		*block = size.Size
	}
}

func sendIn(ctx context.Context, ch *apdu.Channel, block int, data []byte) error {
	for i := 0; len(data) > 0; i++ {
		cmd := apdu.Command{CLA: 0x80, INS: 0xE2, P1: 0x11, P2: byte(i), Data: data[:min(block, len(data))]}
		if data = data[len(cmd.Data):]; len(data) == 0 {
			cmd.P1 = 0x91
		}
		if _, err := ch.Transmit(ctx, cmd); err != nil {
			return err
		}
	}
	return nil
}

// dataOf is how many bytes of data a STORE DATA in an AT command has, and the
// command without its APDU; 0 is none.
func dataOf(cmd string) (n int, p1 string) {
	i := strings.Index(cmd, `"8`)
	if i < 0 || len(cmd) < i+11 || cmd[i+3:i+5] != "E2" || !strings.HasPrefix(cmd, "AT+C") {
		return 0, ""
	}
	return (len(cmd) - len(`"`) - (i + 11)) / 2, cmd[i+5 : i+7]
}

// Modems that do not carry commands above a limit, each in its own way: the best
// size is found within one message, the card acts once, and the next card begins
// with what was learned.
func TestBlockSizeIsFound(t *testing.T) {
	for _, how := range []struct {
		name string
		over func(f *front, limit int, cmd string) string // to a command above the limit
	}{
		{"ERROR", func(*front, int, string) string { return "\r\nERROR\r\n" }},
		{"CME 50", func(*front, int, string) string { return "\r\n+CME ERROR: 50\r\n" }},
		{"CME 100", func(*front, int, string) string { return "\r\n+CME ERROR: 100\r\n" }},
		{"words", func(*front, int, string) string { return "\r\n+CME ERROR: Invalid input value\r\n" }},
		{"silence", func(*front, int, string) string { return "" }},
		{"OK alone", func(*front, int, string) string { return "\r\nOK\r\n" }},
		{"loses the end, and the card says 6700", func(f *front, limit int, cmd string) string {
			return f.run(shortened(cmd, limit, false))
		}},
		{"the card got it damaged", func(*front, int, string) string { return "\r\n+CGLA: 4,\"6601\"" + ok }},
		{"the card took it, the answer lost a part", func(f *front, _ int, cmd string) string {
			return strings.ReplaceAll(f.run(cmd), "9000", "90")
		}},
	} {
		for limit, want := range map[int]int{254: 180, 200: 180, 179: 120, 120: 120, 119: 60, 60: 60, 33: 32, 32: 32} {
			t.Run(fmt.Sprintf("%s above %d", how.name, limit), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					app := &chainApp{}
					f := newFront(t, &apdutest.UICC{Apps: map[string]apdutest.App{string(aid): app.answer}, Channels: 1})
					ends := 0
					conn, s := attest.Dial(t, func(cmd string) string {
						n, p1 := dataOf(cmd)
						if p1 == "91" {
							ends++
						}
						if n > limit {
							return how.over(f, limit, cmd)
						}
						return f.answer(cmd)
					})
					const length = 1000
					start := 0
					for _, visit := range []string{"first", "second"} {
						card, err := atcard.Open(t.Context(), conn, atcard.Options{Path: atcard.CCHO, Start: start})
						if err != nil {
							t.Fatal(err)
						}
						if _, size := card.Learned(); size != 0 {
							t.Errorf("%s: %d bytes were learned before anything was sent", visit, size)
						}
						ch, err := card.OpenChannel(t.Context(), aid)
						if err != nil {
							t.Fatal(err)
						}
						block, before := card.BlockSize(), len(s.Commands())
						if err := send(t.Context(), ch, &block, length); err != nil {
							t.Fatalf("%s: %v", visit, err)
						}
						if block != want || card.BlockSize() != want {
							t.Errorf("%s: block size %d, card %d, want %d", visit, block, card.BlockSize(), want)
						}
						path, size := card.Learned()
						if path != atcard.CCHO || size != want {
							t.Errorf("%s: learned %v, %d", visit, path, size)
						}
						start = size
						if sent, least := len(s.Commands())-before, (length+want-1)/want; visit == "second" && sent != least {
							t.Errorf("second: %d commands, want %d", sent, least)
						} else if sent > least+2*len([]int{180, 120, 60, 32}) { // a refusal for each step, and a probe when it was silent
							t.Errorf("first: %d commands for %d", sent, least)
						}
						if err := ch.Close(t.Context()); err != nil {
							t.Error(err)
						}
					}
					if app.executed != 2 || ends != 2 {
						t.Errorf("%d messages executed, %d ends sent, want 2", app.executed, ends)
					}
				})
			})
		}
	}
}

// shortened is a command of which the modem has lost the end. With mend it makes
// the lengths fit again, as if nothing had happened.
func shortened(cmd string, limit int, mend bool) string {
	i := strings.IndexByte(cmd, '"') + 1
	b := cmd[i : i+10+2*limit]
	if mend {
		b = b[:8] + fmt.Sprintf("%02X", limit) + b[10:]
	}
	head := cmd[:strings.LastIndexByte(cmd[:i-1], ',')]
	return fmt.Sprintf(`%s,%d,"%s"`, head[:strings.LastIndexByte(head, ',')], len(b), b)
}

// A modem that loses the end of a command and makes the lengths fit: only the
// whole message shows it. Nothing is repeated by itself; the next attempt is
// smaller, and the error says so.
func TestPartLostUnseen(t *testing.T) {
	app := &chainApp{}
	f := newFront(t, &apdutest.UICC{Apps: map[string]apdutest.App{string(aid): app.answer}, Channels: 1})
	const limit = 130
	conn, _ := attest.Dial(t, func(cmd string) string {
		if n, _ := dataOf(cmd); n > limit {
			return f.answer(shortened(cmd, limit, true))
		}
		return f.answer(cmd)
	})
	card, err := atcard.Open(t.Context(), conn, atcard.Options{})
	if err != nil {
		t.Fatal(err)
	}
	for _, size := range []int{180, 120, 0} {
		ch, err := card.OpenChannel(t.Context(), aid)
		if err != nil {
			t.Fatal(err)
		}
		block, ends := card.BlockSize(), app.ends
		err = send(t.Context(), ch, &block, 1000)
		if app.ends != ends+1 {
			t.Errorf("%d ends were sent, want one", app.ends-ends)
		}
		if size > 0 {
			if f := fault.Of(err); !errors.Is(err, atcard.ErrBlockLost) || !errors.Is(err, apdu.ErrMalformed) || !f.Retry || card.BlockSize() != size {
				t.Errorf("%v (%+v), block size %d, want %d", err, f, card.BlockSize(), size)
			}
			if _, err := ch.Transmit(t.Context(), apdu.Command{CLA: 0x80, INS: 0x02}); errors.Is(err, apdu.ErrBroken) {
				t.Error("the card has answered, but the channel is broken")
			}
		} else if err != nil {
			t.Error(err)
		}
		if err := ch.Close(t.Context()); err != nil {
			t.Error(err)
		}
	}
	if app.executed != 1 {
		t.Errorf("executed %d times", app.executed)
	}
}

// The first long command of all is one that the card acts upon: a harmless block
// goes ahead of it, so that it is sent once only.
func TestFirstLongCommandActs(t *testing.T) {
	app := &chainApp{}
	f := newFront(t, &apdutest.UICC{Apps: map[string]apdutest.App{string(aid): app.answer}, Channels: 1})
	var sent []string
	conn, _ := attest.Dial(t, func(cmd string) string {
		n, p1 := dataOf(cmd)
		if n > 0 {
			sent = append(sent, fmt.Sprint(p1, " ", n))
		}
		if n > 90 {
			return "\r\n+CME ERROR: 50\r\n"
		}
		return f.answer(cmd)
	})
	card, err := atcard.Open(t.Context(), conn, atcard.Options{})
	if err != nil {
		t.Fatal(err)
	}
	ch, err := card.OpenChannel(t.Context(), aid)
	if err != nil {
		t.Fatal(err)
	}
	block := card.BlockSize()
	for _, tc := range []struct {
		length int
		want   string
	}{
		{60, "91 60"},              // every modem carries that
		{100, "11 99,11 60,91 40"}, // refused, and then
		{100, "11 60,91 40"},       // learned
		{200, "11 60,11 60,11 60,91 20"},
	} {
		sent = nil
		if err := send(t.Context(), ch, &block, tc.length); err != nil || strings.Join(sent, ",") != tc.want {
			t.Errorf("%d bytes: %v, sent %q, want %s", tc.length, err, sent, tc.want)
		}
	}
	if app.executed != 4 || app.ends != 4 {
		t.Errorf("executed %d times, %d ends", app.executed, app.ends)
	}
}

// What is not about the size: once one has worked, with a size that a person
// has set, or from a modem that says nothing to anything. Nothing is sent again.
func TestNotTheSize(t *testing.T) {
	refuse := func(answer string) func(n int, p1 string) (string, bool) {
		return func(n int, _ string) (string, bool) { return answer, n == 100 }
	}
	for _, tc := range []struct {
		name   string
		opt    atcard.Options
		before int // bytes of a message that goes through
		length int // of the one that does not
		strike func(n int, p1 string) (answer string, strikes bool)
		is     error
		size   int
	}{
		{"ERROR at random (EC20, lpac#186)", atcard.Options{Start: 120}, 600, 340, refuse("\r\nERROR\r\n"), at.ErrError, 120},
		{"ERROR at random, in the last block", atcard.Options{Start: 120}, 600, 220, refuse("\r\nERROR\r\n"), at.ErrError, 120},
		{"a size that was set", atcard.Options{BlockSize: 100}, 0, 300, refuse("\r\nERROR\r\n"), at.ErrError, 100},
		{"a size that was set, and silence", atcard.Options{BlockSize: 100}, 0, 300, refuse(""), at.ErrTimeout, 100},
		{"SIM busy", atcard.Options{Start: 100}, 0, 300, refuse("\r\n+CME ERROR: 14\r\n"), apdu.ErrBusy, 100},
		{"SIM failure", atcard.Options{Start: 100}, 0, 300, refuse("\r\n+CME ERROR: 13\r\n"), at.ErrSIMFailure, 100},
		{"session gone", atcard.Options{Start: 100}, 0, 300, refuse("\r\n+CME ERROR: 21\r\n"), apdu.ErrChannelClosed, 100},
		{"conditions", atcard.Options{Start: 100}, 0, 300, refuse("\r\n+CGLA: 4,\"6985\"" + ok), apdu.ErrConditions, 100},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				app := &chainApp{}
				f := newFront(t, &apdutest.UICC{Apps: map[string]apdutest.App{string(aid): app.answer}, Channels: 1})
				var sent []int
				armed := false
				conn, _ := attest.Dial(t, func(cmd string) string {
					n, p1 := dataOf(cmd)
					if n > 0 {
						sent = append(sent, n)
						if answer, strikes := tc.strike(n, p1); strikes && armed {
							return answer
						}
					}
					return f.answer(cmd)
				})
				tc.opt.Path = atcard.CCHO
				card, err := atcard.Open(t.Context(), conn, tc.opt)
				if err != nil {
					t.Fatal(err)
				}
				ch, err := card.OpenChannel(t.Context(), aid)
				if err != nil {
					t.Fatal(err)
				}
				block := card.BlockSize()
				if tc.before > 0 {
					if err := send(t.Context(), ch, &block, tc.before); err != nil {
						t.Fatal(err)
					}
				}
				armed, sent = true, nil
				if err := send(t.Context(), ch, &block, tc.length); !errors.Is(err, tc.is) || errors.Is(err, atcard.ErrBlockLost) {
					t.Errorf("error %v, want %v", err, tc.is)
				}
				synctest.Wait()
				struck := 0
				for _, n := range sent {
					if n == 100 {
						struck++
					}
				}
				if struck != 1 {
					t.Errorf("blocks of %v bytes were sent: one of them twice", sent)
				}
				if block != tc.size || card.BlockSize() != tc.size {
					t.Errorf("block size %d, card %d, want %d", block, card.BlockSize(), tc.size)
				}
				if _, learned := card.Learned(); tc.opt.BlockSize > 0 && learned != 0 {
					t.Errorf("%d bytes were learned from what was set", learned)
				}
			})
		})
	}
}

// A modem that falls silent for good in the middle of the search: its silence is
// reported, the size is as before.
func TestSilentToEverything(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFront(t, &apdutest.UICC{Apps: map[string]apdutest.App{string(aid): (&chainApp{}).answer}, Channels: 1})
		var sent atomic.Int32
		dead := false
		conn, _ := attest.Dial(t, func(cmd string) string {
			n, _ := dataOf(cmd)
			if n > 0 {
				sent.Add(1)
				dead = true
			}
			if dead {
				return ""
			}
			return f.answer(cmd)
		})
		card, err := atcard.Open(t.Context(), conn, atcard.Options{})
		if err != nil {
			t.Fatal(err)
		}
		ch, err := card.OpenChannel(t.Context(), aid)
		if err != nil {
			t.Fatal(err)
		}
		block, begin := card.BlockSize(), time.Now()
		if err := send(t.Context(), ch, &block, 1000); !errors.Is(err, at.ErrTimeout) || sent.Load() != 1 || block != atcard.DefaultBlockSize || card.BlockSize() != block {
			t.Errorf("%v after %d blocks, size %d", err, sent.Load(), block)
		}
		if took := time.Since(begin); took > 25*time.Second {
			t.Errorf("took %v", took)
		}
		if _, err := ch.Transmit(t.Context(), storeData(1)); !errors.Is(err, apdu.ErrBroken) {
			t.Errorf("next command: %v, want ErrBroken", err)
		}
	})
}

// A block that the card got damaged (6601, OpenEUICC ddc421d) is sent again under
// its number, the last one too: the card has said that it did not take it.
func TestDamagedBlock(t *testing.T) {
	for _, tc := range []struct {
		name   string
		opt    atcard.Options
		strike func(k int, p1 string) bool // the k-th block, from 1
		again  int                         // blocks sent more than once
		is     error
		size   int // afterwards
	}{
		{"in the middle", atcard.Options{Start: 120}, func(k int, _ string) bool { return k == 3 }, 1, nil, 60},
		{"the last", atcard.Options{Start: 120}, func(k int, p1 string) bool { return p1 == "91" && k <= 6 }, 2, nil, 60},
		{"the first, with a size that was set", atcard.Options{BlockSize: 120}, func(k int, _ string) bool { return k <= 2 }, 2, nil, 120},
		{"for ever, with a size that was set", atcard.Options{BlockSize: 120}, func(int, string) bool { return true }, 2, &apdu.StatusError{}, 120},
	} {
		t.Run(tc.name, func(t *testing.T) {
			app := &chainApp{}
			f := newFront(t, &apdutest.UICC{Apps: map[string]apdutest.App{string(aid): app.answer}, Channels: 1})
			var sent []string
			conn, _ := attest.Dial(t, func(cmd string) string {
				if n, p1 := dataOf(cmd); n > 0 {
					sent = append(sent, cmd)
					if tc.strike(len(sent), p1) {
						return "\r\n+CGLA: 4,\"6601\"" + ok
					}
				}
				return f.answer(cmd)
			})
			tc.opt.Path = atcard.CCHO
			card, err := atcard.Open(t.Context(), conn, tc.opt)
			if err != nil {
				t.Fatal(err)
			}
			ch, err := card.OpenChannel(t.Context(), aid)
			if err != nil {
				t.Fatal(err)
			}
			block := card.BlockSize()
			if err := send(t.Context(), ch, &block, 600); !match(err, tc.is) {
				t.Fatalf("error %v, want %v", err, tc.is)
			}
			again := 0
			for i, cmd := range sent[1:] {
				if cmd == sent[i] {
					again++
				}
			}
			if again != tc.again || tc.is == nil && app.executed != 1 || card.BlockSize() != tc.size {
				t.Errorf("%d blocks again, executed %d times, size %d", again, app.executed, card.BlockSize())
			}
		})
	}
}

// A modem that cuts long answers: the card is asked for smaller pieces.
func TestAnswerInSmallerPieces(t *testing.T) {
	f := newFront(t, &apdutest.UICC{Apps: map[string]apdutest.App{string(aid): app}, Channels: 1, Piece: 256})
	const limit = 150
	conn, _ := attest.Dial(t, func(cmd string) string {
		out := f.answer(cmd)
		if head, rest, ok := strings.Cut(out, `,"`); ok && len(rest) > 2*limit {
			return head + `,"` + rest[:2*limit] + "\"\r\n\r\nOK\r\n"
		}
		return out
	})
	card, err := atcard.Open(t.Context(), conn, atcard.Options{})
	if err != nil {
		t.Fatal(err)
	}
	for i, is := range []error{atcard.ErrTruncated, atcard.ErrTruncated, nil, nil} { // 256, 180, 120
		ch, err := card.OpenChannel(t.Context(), aid)
		if err != nil {
			t.Fatal(err)
		}
		r, err := ch.Transmit(t.Context(), storeData(0xDF, 0x7F, 0x04, 0x01))
		if !errors.Is(err, is) || is == nil && len(r.Data) != 1025 || err != nil && !fault.Of(err).Retry {
			t.Errorf("%d: %d bytes, %v, want %v", i, len(r.Data), err, is)
		}
		if err := ch.Close(t.Context()); err != nil {
			t.Error(err)
		}
	}
}
