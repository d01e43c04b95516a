package lab_test

import (
	"context"
	"strings"
	"testing"

	"lpad/cmd/lpalab/lab"
	"lpad/modem/modemtest"
)

// TestBlockSizeIsLearnt: on a modem with a short command line, of which nobody
// has said anything, the first download finds the best block size, and the next
// one, by another run of lpad, begins with it.
func TestBlockSizeIsLearnt(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name  string
		line  int // characters
		how   modemtest.Overlong
		block int // bytes: the best of those that are tried
	}{
		{"ERROR", 300, modemtest.OverlongError, 120},
		{"cut off", 400, modemtest.OverlongTruncated, 180},
		{"silence", 270, modemtest.OverlongSilent, 120},
		{"no limit", 0, modemtest.OverlongError, 255},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, lab.Options{})
			second := lab.NewOperator
			second.ICCID = secondICCID
			order, err := lab.NewOrder("SECOND", second, 3000)
			if err != nil {
				t.Fatal(err)
			}
			if err := w.SMDP.AddOrder(order); err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithTimeout(t.Context(), limit)
			defer cancel()
			m, err := w.StartModemWith(ctx, lab.ModemOptions{Programs: programs, Modem: func(c *modemtest.Config) {
				c.Dialect = modemtest.Generic
				c.Dialect.MaxLine, c.Dialect.Overlong = tc.line, tc.how
			}})
			if err != nil {
				t.Fatal(err)
			}
			defer func() {
				if err := m.Close(); err != nil {
					t.Error(err)
				}
			}()
			lpactl(ctx, t, m.Daemon, 0, "install", w.ActivationCode(), "--yes")
			first := lab.BlocksIn(m.AT.Log().Entries())
			if err := m.Stop(); err != nil {
				t.Fatal(err)
			}
			mark := m.AT.Log().Len()
			if err := m.Start(ctx); err != nil {
				t.Fatal(err)
			}
			lpactl(ctx, t, m.Daemon, 0, "install", strings.Replace(w.ActivationCode(), w.Order.MatchingID, "SECOND", 1), "--yes")
			again := lab.BlocksIn(m.AT.Log().Since(mark))

			steps := map[int]int{255: 0, 180: 1, 120: 2}[tc.block] // sizes above the best
			if first.Above(tc.block) != steps {
				t.Errorf("first download: %d blocks above %d bytes, want %d: %v", first.Above(tc.block), tc.block, steps, first)
			}
			if first[tc.block] < 10 || again[tc.block] < 5 {
				t.Errorf("blocks of %d bytes: %d in the first download, %d in the second", tc.block, first[tc.block], again[tc.block])
			}
			if n := again.Above(tc.block); n != 0 {
				t.Errorf("second download: %d blocks above %d bytes: %v", n, tc.block, again)
			}
		})
	}
}
