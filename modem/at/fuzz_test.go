package at_test

import (
	"context"
	"errors"
	"io"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"lpad/modem/at"
)

// stream is a modem that says what it was told to, in chunks, and hangs up. It
// begins when the first command comes.
type stream struct {
	chunks [][]byte
	begin  chan struct{}
	once   sync.Once
	closed chan struct{}
	end    sync.Once
}

func (s *stream) Read(b []byte) (int, error) {
	select {
	case <-s.begin:
	case <-s.closed:
		return 0, io.ErrClosedPipe
	}
	for len(s.chunks) > 0 && len(s.chunks[0]) == 0 {
		s.chunks = s.chunks[1:]
	}
	if len(s.chunks) == 0 {
		return 0, io.EOF
	}
	n := copy(b, s.chunks[0])
	s.chunks[0] = s.chunks[0][n:]
	return n, nil
}

func (s *stream) Write(b []byte) (int, error) {
	s.once.Do(func() { close(s.begin) })
	return len(b), nil
}

func (s *stream) Close() error { s.end.Do(func() { close(s.closed) }); return nil }

// cut makes chunks of data, with sizes from a number.
func cut(data []byte, seed uint64) [][]byte {
	var out [][]byte
	for len(data) > 0 {
		seed = seed*6364136223846793005 + 1442695040888963407
		n := min(len(data), 1+int(seed>>33)%(1+int(seed>>60)*7))
		out = append(out, data[:n])
		data = data[n:]
	}
	return out
}

// FuzzModem lets a modem say anything, in any chunks. Whatever it says: no panic,
// an end as soon as it hangs up, answers within their limits.
func FuzzModem(f *testing.F) {
	for _, s := range []string{
		"\r\n+CGLA: 4,\"9000\"\r\n\r\nOK\r\n",
		"AT+CGLA=1,10,\"80E2910000\"\r\r\n+CGLA:4,\"611A\"OK\r\n\r\n+CME ERROR: 14\r\n",
		"\r\n+CGLA: 4,\"6115\">AT+CGLA=1,10,\"80E2910000\"\r\n+CGLA: 4,\"9000\"\r\nOK\r\n",
		"+CREG: 1\n> \r\nERROR\r+CMS ERROR: 500\rABORTED\rNO CARRIER\rRING\r",
		"+CMEE: 1\r\nOK\r\n+CMEE: 1\r\nOK\r\n", "OK+CREG: 1\r\nOKAT\r\nERROR+CREG: 1\r\n", "1OK\r\n+CGLA: 4,61ABOK\r\n+CME ERROR: 14+CREG: 1\r\nAT+CSQ\r\nOK\r\nOK\r\nOK\r\nOK\r\n", "\"\"\"\"+C\"+\"\r\n", ">", "\x00\xff~\xef\r",
		strings.Repeat("~", at.MaxLine+9) + "\r\nOK\r\n", strings.Repeat("+CGLA: 1\r\n", 600) + "OK\r\n",
	} {
		f.Add([]byte(s), uint64(1), uint8(0))
		f.Add([]byte(s), uint64(77), uint8(2))
	}
	commands := []string{`AT+CGLA=1,10,"80E2910000"`, "AT+CREG?", "ATI", "ATD*99#", "AT"}
	f.Fuzz(func(t *testing.T, data []byte, seed uint64, which uint8) {
		s := &stream{chunks: cut(data, seed), begin: make(chan struct{}), closed: make(chan struct{})}
		conn := at.New(s)
		defer conn.Close()
		messages, cancel := conn.Notify("")
		defer cancel()
		ctx, stop := context.WithTimeout(t.Context(), time.Minute) // far beyond what it takes: only a hang gets there
		defer stop()
		for err := error(nil); !errors.Is(err, at.ErrHangup); {
			var lines []string
			lines, err = conn.Command(ctx, commands[int(which)%len(commands)])
			if ctx.Err() != nil {
				t.Fatalf("hangs: %v", err)
			}
			if len(lines) > 512 {
				t.Fatalf("%d lines", len(lines))
			}
			for _, l := range lines {
				if len(l) > at.MaxLine || strings.ContainsAny(l, "\r\n") {
					t.Fatalf("line %q", l)
				}
			}
		}
		<-conn.Done()
		for range messages { // closed, after what is buffered
		}
	})
}

// FuzzLines: chunks do not matter, and a line that is cut up loses nothing but blanks.
func FuzzLines(f *testing.F) {
	f.Add([]byte("\r\n+CGLA: 4,\"9000\"OK+CREG: 1\r\n"), uint64(3))
	f.Add([]byte(strings.Repeat("x", at.MaxLine-1)+"\r\n"+strings.Repeat("x", at.MaxLine)+"\r\n"+strings.Repeat("x", at.MaxLine+1)+"\n\ny\r"), uint64(5))
	f.Fuzz(func(t *testing.T, data []byte, seed uint64) {
		whole := at.Lines(data)
		if cut := at.Lines(cut(data, seed)...); !slices.Equal(whole, cut) {
			t.Fatalf("whole %q, cut %q", whole, cut)
		}
		strip := strings.NewReplacer(" ", "", "\t", "", "\v", "", "\f", "", "\u0085", "", "\u00a0", "")
		for _, line := range whole {
			parts := at.Unglue(line)
			if strings.Join(strings.Fields(strip.Replace(strings.Join(parts, ""))), "") != strings.Join(strings.Fields(strip.Replace(line)), "") {
				t.Fatalf("%q became %q", line, parts)
			}
			for _, p := range parts {
				if n := at.NameOf(p); len(n) > len(p)+2 {
					t.Fatalf("name %q of %q", n, p)
				}
			}
		}
	})
}
