// Package attest is a scripted modem for tests: what AT commands it gets is
// handed to a function of the test, and what that returns goes back over the
// wire, byte for byte. The line, the reader and the parser under test are the
// real ones.
//
//	conn, modem := attest.Dial(t, func(cmd string) string {
//		if cmd == "AT+CPIN?" {
//			return "\r\n+CPIN: READY\r\n\r\nOK\r\n"
//		}
//		return "\r\nERROR\r\n"
//	})
//	modem.Say("\r\n+CREG: 1\r\n") // an unsolicited line
//	modem.Commands()              // what it got
//
// For a modem that behaves like one, with a SIM and a network, see
// modem/modemtest.
package attest

import (
	"bufio"
	"net"
	"strings"
	"sync"
	"testing"

	"lpad/modem/at"
)

// busy is how many command lines a modem takes while it answers another.
const busy = 256

// Modem is the far end of a connection. It is safe for concurrent use.
type Modem struct {
	net.Conn // the modem's end of the line: closing it is a hangup
	mu       sync.Mutex
	commands []string
}

// Dial starts a modem and connects to it until the test ends. answer gets each
// command line without its end, one at a time, and returns what the modem
// sends; "" is silence.
func Dial(t testing.TB, answer func(cmd string) string, opts ...at.Option) (*at.Conn, *Modem) {
	t.Helper()
	ours, theirs := net.Pipe()
	m := &Modem{Conn: theirs}
	var wg sync.WaitGroup
	lines := make(chan string, busy)
	wg.Go(func() {
		defer close(lines)
		r := bufio.NewReader(theirs)
		for {
			line, err := r.ReadString('\r')
			if err != nil {
				return
			}
			line = strings.TrimSuffix(line, "\r")
			m.mu.Lock()
			m.commands = append(m.commands, line)
			m.mu.Unlock()
			lines <- line
		}
	})
	wg.Go(func() {
		for line := range lines {
			if out := answer(line); out != "" {
				m.Say(out)
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
	return conn, m
}

// Say sends something of the modem's own accord. A line that was closed
// meanwhile is the end of the test, not an error of it.
func (m *Modem) Say(raw string) {
	if _, err := m.Write([]byte(raw)); err != nil {
		return
	}
}

// Commands lists the command lines that the modem has got, the oldest first.
func (m *Modem) Commands() []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return append([]string(nil), m.commands...)
}

// Always makes an answer function of one fixed answer.
func Always(raw string) func(cmd string) string { return func(string) string { return raw } }
