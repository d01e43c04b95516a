package atmodem_test

import (
	"bufio"
	"net"
	"strings"
	"sync"
	"testing"

	"go.uber.org/goleak"

	"lpad/modem/at"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// script is a modem at the wire: it gives each command line to answer and sends
// what comes back, byte for byte. Empty is silence.
type script struct {
	net.Conn
	mu       sync.Mutex
	commands []string
}

// dial starts a script and connects to it.
func dial(t testing.TB, answer func(cmd string) string, opts ...at.Option) (*at.Conn, *script) {
	t.Helper()
	ours, theirs := net.Pipe()
	s := &script{Conn: theirs}
	var wg sync.WaitGroup
	lines := make(chan string, 256) // a modem that is busy still takes bytes
	wg.Go(func() {
		defer close(lines)
		r := bufio.NewReader(theirs)
		for {
			line, err := r.ReadString('\r')
			if err != nil {
				return
			}
			line = strings.TrimSuffix(line, "\r")
			s.mu.Lock()
			s.commands = append(s.commands, line)
			s.mu.Unlock()
			lines <- line
		}
	})
	wg.Go(func() {
		for line := range lines {
			if out := answer(line); out != "" {
				s.send(out)
			}
		}
	})
	conn := at.New(ours, opts...)
	t.Cleanup(func() {
		if err := conn.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
		theirs.Close()
		wg.Wait()
	})
	return conn, s
}

// send says something of the modem's own accord. A pipe that was closed
// meanwhile is the end of the test, not an error of it.
func (s *script) send(raw string) {
	if _, err := s.Write([]byte(raw)); err != nil {
		return
	}
}

func (s *script) got() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]string(nil), s.commands...)
}

// says makes an answer function of one fixed answer.
func says(raw string) func(string) string { return func(string) string { return raw } }
