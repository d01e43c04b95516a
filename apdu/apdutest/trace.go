package apdutest

import (
	"bufio"
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"testing"

	"lpad/apdu"
)

// Exchange is one command and its answer.
type Exchange struct {
	Command, Response []byte // Response includes the status word
}

// ReadTrace reads a recording: lines `> HEX` and `< HEX` in turn. Spaces within
// the hex, empty lines and lines that begin with # do not count. A command
// without a response stands for a card that was pulled out.
func ReadTrace(r io.Reader) ([]Exchange, error) {
	var trace []Exchange
	s := bufio.NewScanner(r)
	for n := 1; s.Scan(); n++ {
		line := strings.ReplaceAll(strings.TrimSpace(s.Text()), " ", "")
		if line == "" || line[0] == '#' {
			continue
		}
		b, err := hex.DecodeString(line[1:])
		switch {
		case err != nil || len(b) == 0:
			return nil, fmt.Errorf("line %d: no hex", n)
		case line[0] == '>':
			trace = append(trace, Exchange{Command: b})
		case line[0] == '<' && len(trace) > 0 && trace[len(trace)-1].Response == nil:
			trace[len(trace)-1].Response = b
		default:
			return nil, fmt.Errorf("line %d: neither a command nor its response", n)
		}
	}
	return trace, s.Err()
}

// Record gives a transport that writes what passes through t into w, in the
// form of [ReadTrace]. It writes everything: for test cards only.
func Record(t apdu.Transport, w io.Writer) apdu.Transport { return &recorder{t: t, w: w} }

type recorder struct {
	t  apdu.Transport
	mu sync.Mutex
	w  io.Writer
}

func (r *recorder) Transmit(ctx context.Context, command []byte) ([]byte, error) {
	response, err := r.t.Transmit(ctx, command)
	r.mu.Lock()
	defer r.mu.Unlock()
	line := fmt.Sprintf("> %X\n", command)
	if err == nil {
		line += fmt.Sprintf("< %X\n", response)
	}
	if _, werr := io.WriteString(r.w, line); werr != nil {
		return response, errors.Join(err, fmt.Errorf("record: %w", werr))
	}
	return response, err
}

// ErrPulled is what a recorded card gives where its recording has no response.
var ErrPulled = errors.New("card was pulled out")

// Replay gives a card that knows one conversation by heart, from the file at
// path. Any other command fails the test, and so does a conversation that is
// not over when the test is.
func Replay(t testing.TB, path string) apdu.Transport {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	trace, err := ReadTrace(bytes.NewReader(b))
	if err != nil {
		t.Fatalf("%s: %v", path, err)
	}
	p := &player{t: t, name: path, trace: trace}
	t.Cleanup(func() {
		if p.next < len(trace) && !t.Failed() {
			t.Errorf("%s: %d of %d commands were sent, next would be %X", path, p.next, len(trace), trace[p.next].Command)
		}
	})
	return p
}

type player struct {
	t     testing.TB
	name  string
	trace []Exchange
	next  int
}

func (p *player) Transmit(ctx context.Context, command []byte) ([]byte, error) {
	p.t.Helper()
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if p.next == len(p.trace) {
		p.t.Errorf("%s: is over, but %X was sent", p.name, command)
		return []byte{0x6F, 0x00}, nil
	}
	e := p.trace[p.next]
	if !bytes.Equal(command, e.Command) {
		p.t.Errorf("%s: command %d is %X, recorded is %X", p.name, p.next+1, command, e.Command)
		return []byte{0x6F, 0x00}, nil
	}
	p.next++
	if e.Response == nil {
		return nil, ErrPulled
	}
	return bytes.Clone(e.Response), nil
}
