package relay

import (
	"errors"
	"io"
	"net"
	"os"
	"strconv"
	"strings"
	"time"
)

// line is one, taken apart.
type line struct {
	word string // open, failed, ping, pong
	n    uint64 // of the connection; 0 where there is none
	rest string // the address, or why it failed and in which words
}

// parseLine reads a line without its end.
func parseLine(text string) (line, error) {
	word, rest, _ := strings.Cut(text, " ")
	l := line{word: word}
	switch word {
	case "ping", "pong":
		if text == word {
			return l, nil
		}
	case "open", "failed":
		number, rest, _ := strings.Cut(rest, " ")
		n, err := strconv.ParseUint(number, 10, 32)
		l.n, l.rest = n, rest
		if err == nil && n > 0 && rest != "" {
			return l, nil
		}
	}
	return line{}, errViolation
}

// lines reads the lines of the other end.
type lines struct {
	conn net.Conn
	text []byte // of the line that is under way
	buf  [1]byte
}

// next waits for a line until a time; without one the error is a timeout, and what
// has come of it is kept.
func (l *lines) next(until time.Time) (line, error) {
	if err := l.conn.SetReadDeadline(until); err != nil {
		return line{}, err
	}
	for {
		// One byte at a time: a line is short and seldom, and what follows it is
		// nobody's to take.
		if _, err := io.ReadFull(l.conn, l.buf[:]); err != nil {
			return line{}, err
		}
		if l.buf[0] == '\n' {
			text := string(l.text)
			l.text = l.text[:0]
			return parseLine(text)
		}
		if l.text = append(l.text, l.buf[0]); len(l.text) == maxLine {
			return line{}, errViolation
		}
	}
}

// say writes a line at once: several goroutines may.
func say(conn net.Conn, dead time.Duration, text string) error {
	if err := conn.SetWriteDeadline(time.Now().Add(dead)); err != nil {
		return err
	}
	_, err := io.WriteString(conn, text+"\n")
	return err
}

func timedOut(err error) bool { return errors.Is(err, os.ErrDeadlineExceeded) }
