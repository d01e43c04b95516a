package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"time"

	"github.com/creack/pty"
	"golang.org/x/sys/unix"
)

// line is the wire between the daemon's AT port, a pty, and the modem. It sees
// every command line and every answer, can spoil them, and can be torn: then
// the pty hangs up, and a new one comes back under the same name, as a USB
// modem does.
type line struct {
	link  string // the name of the daemon's end
	modem string // the modem's unix socket
	pause time.Duration

	// command decides what becomes of a command line; nil, or a nil answer, lets
	// it pass. It is called in the order of the commands.
	command func(text string) *spoil

	mu     sync.Mutex
	up     *segment
	closed bool
	wg     sync.WaitGroup
}

// spoil is what happens to one command and its answer.
type spoil struct {
	before func() bool // false: the command is not passed on
	answer func(answer []byte) []byte
	after  func() bool // called when the answer has come; false: it is not passed on
	echo   bool        // the command line comes back before its answer
}

// segment is one life of the line, between two hang-ups.
type segment struct {
	master, slave *os.File
	conn          net.Conn

	mu      sync.Mutex
	pending *spoil
	buffer  []byte // of the answer that is being spoiled
}

func (l *line) open(ctx context.Context) error {
	var d net.Dialer
	conn, err := d.DialContext(ctx, "unix", l.modem)
	if err != nil {
		return err
	}
	master, slave, err := openLine()
	if err != nil {
		return errors.Join(err, conn.Close())
	}
	s := &segment{master: master, slave: slave, conn: conn}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return errors.Join(net.ErrClosed, s.close())
	}
	temporary := l.link + ".new"
	if err := errors.Join(os.Symlink(slave.Name(), temporary), os.Rename(temporary, l.link)); err != nil {
		return errors.Join(err, s.close())
	}
	l.up = s
	l.wg.Go(func() { l.down(s) })
	l.wg.Go(func() { s.upward() })
	return nil
}

// openLine makes a raw pty whose master knows deadlines.
func openLine() (master, slave *os.File, err error) {
	blocking, slave, err := pty.Open()
	if err != nil {
		return nil, nil, err
	}
	fd, err := unix.FcntlInt(blocking.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	if err == nil {
		err = unix.SetNonblock(fd, true)
	}
	if err == nil {
		var t *unix.Termios
		if t, err = unix.IoctlGetTermios(int(slave.Fd()), unix.TCGETS); err == nil {
			t.Iflag, t.Oflag, t.Lflag = 0, 0, 0
			t.Cflag = t.Cflag&^(unix.CSIZE|unix.PARENB) | unix.CS8
			t.Cc[unix.VMIN], t.Cc[unix.VTIME] = 1, 0
			err = unix.IoctlSetTermios(int(slave.Fd()), unix.TCSETS, t)
		}
	}
	if err = errors.Join(err, blocking.Close()); err != nil {
		return nil, nil, errors.Join(err, slave.Close())
	}
	return os.NewFile(uintptr(fd), "/dev/ptmx"), slave, nil
}

func (s *segment) close() error {
	return errors.Join(s.conn.Close(), s.master.Close(), s.slave.Close())
}

// down carries what the daemon says to the modem, a command line at a time.
func (l *line) down(s *segment) {
	var text []byte
	var buf [4096]byte
	for {
		n, err := s.master.Read(buf[:])
		for _, b := range buf[:n] {
			if b != '\r' {
				text = append(text, b)
				continue
			}
			if !l.carry(s, text) {
				return
			}
			text = text[:0]
		}
		if err != nil {
			return
		}
	}
}

// carry passes one command line on. It reports whether the segment lives on.
func (l *line) carry(s *segment, text []byte) bool {
	var sp *spoil
	if l.command != nil {
		sp = l.command(string(bytes.TrimLeft(text, "\n\x1b")))
	}
	if sp != nil {
		if sp.before != nil && !sp.before() {
			return true // swallowed
		}
		if sp.echo {
			if _, err := s.master.Write(append(append([]byte{}, text...), '\r')); err != nil {
				return false
			}
		}
		s.mu.Lock()
		s.pending, s.buffer = sp, nil
		s.mu.Unlock()
	}
	_, err := s.conn.Write(append(append([]byte{}, text...), '\r'))
	return err == nil
}

// upward carries what the modem says to the daemon.
func (s *segment) upward() {
	var buf [4096]byte
	for {
		n, err := s.conn.Read(buf[:])
		if n > 0 && !s.pass(buf[:n]) {
			return
		}
		if err != nil {
			return
		}
	}
}

func (s *segment) pass(b []byte) bool {
	s.mu.Lock()
	sp := s.pending
	if sp == nil {
		s.mu.Unlock()
		return s.write(b)
	}
	s.buffer = append(s.buffer, b...)
	if !answered(s.buffer) {
		s.mu.Unlock()
		return true
	}
	whole := s.buffer
	s.pending, s.buffer = nil, nil
	s.mu.Unlock()
	if sp.answer != nil {
		whole = sp.answer(whole)
	}
	if sp.after != nil && !sp.after() {
		return true
	}
	return s.write(whole)
}

func (s *segment) write(b []byte) bool {
	if err := s.master.SetWriteDeadline(time.Now().Add(time.Second)); err != nil {
		return false
	}
	_, err := s.master.Write(b) // a daemon that does not read loses it
	return err == nil || errors.Is(err, os.ErrDeadlineExceeded)
}

// answered reports whether a final result code has come.
func answered(b []byte) bool {
	for _, final := range []string{"\r\nOK\r\n", "\r\nERROR\r\n", "\r\n+CME ERROR", "\r\n+CMS ERROR", "\r\nNO CARRIER\r\n"} {
		if i := bytes.Index(b, []byte(final)); i >= 0 && bytes.HasSuffix(b, []byte("\r\n")) {
			return true
		}
	}
	return false
}

// say lets the daemon hear bytes that no modem has sent.
func (l *line) say(b []byte) {
	l.mu.Lock()
	s := l.up
	l.mu.Unlock()
	if s != nil {
		s.write(b)
	}
}

// tear hangs the line up; it comes back after l.pause.
func (l *line) tear() {
	l.mu.Lock()
	s := l.up
	l.up = nil
	closed := l.closed
	l.mu.Unlock()
	if s == nil || closed {
		return
	}
	l.wg.Go(func() {
		// Errors of closing a line that is to be broken are what was wanted.
		_ = s.close()
		_ = os.Remove(l.link)
		time.Sleep(l.pause)
		if err := l.open(context.Background()); err != nil && !errors.Is(err, net.ErrClosed) && !errors.Is(err, io.EOF) {
			fmt.Fprintln(os.Stderr, "faults: the line does not come back:", err)
		}
	})
}

func (l *line) close() error {
	l.mu.Lock()
	s := l.up
	l.up, l.closed = nil, true
	l.mu.Unlock()
	var err error
	if s != nil {
		err = s.close()
	}
	l.wg.Wait()
	return err
}
