package modemtest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/creack/pty"
	"golang.org/x/sys/unix"
)

const (
	defaultMaxLine = 4096
	// writeTimeout bounds a write to a host that does not read: the line is lost, as on a USB tty that nobody has open.
	writeTimeout = time.Second
	// unreadTimeout is how long a line may lie unread in a pty before it is taken for lost.
	unreadTimeout = time.Second
)

// Port is one AT port of a modem. Echo, error format and registration URCs are
// set for each port by itself.
type Port struct {
	name  string
	modem *Modem
	path  string // symlink or socket to remove in the end; "" for none
	close func() error
	conn  io.ReadWriter // one client: the pty's master, or an accepted connection
	slave *os.File      // of a pty: held open so that a host's close is no hangup

	unlink    sync.Once // takes path away
	unlinkErr error     // set by unlink

	writing   sync.Mutex // one line at a time
	lastWrite time.Time  // guarded by writing

	mu       sync.Mutex // guards the settings below
	echo     bool
	cmee     int
	settings map[string]string // last parameters of every set command, by name
}

// OpenPTY adds a port on a new pseudo terminal and puts a symlink to its
// device file at link (an older symlink is replaced). The port's name in the
// log is the last element of link.
func (m *Modem) OpenPTY(link string) (*Port, error) {
	master, slave, err := openPTY()
	if err != nil {
		return nil, fmt.Errorf("modemtest: port %s: %w", link, err)
	}
	fail := func(err error) (*Port, error) {
		return nil, fmt.Errorf("modemtest: port %s: %w", link, errors.Join(err, master.Close(), slave.Close()))
	}
	if err := makeRaw(slave); err != nil {
		return fail(err)
	}
	if err := os.Remove(link); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fail(err)
	}
	if err := os.Symlink(slave.Name(), link); err != nil {
		return fail(err)
	}
	p := m.newPort(filepath.Base(link), link, master)
	p.slave = slave
	p.close = sync.OnceValue(func() error { return errors.Join(master.Close(), slave.Close()) })
	if err := m.serve(p); err != nil {
		return nil, errors.Join(err, p.Close())
	}
	return p, nil
}

// ListenUnix adds ports on a unix socket: every connection is a port of its
// own. The returned Port stands for the socket: Close closes it and all its
// connections.
func (m *Modem) ListenUnix(path string) (*Port, error) {
	l, err := net.Listen("unix", path)
	if err != nil {
		return nil, fmt.Errorf("modemtest: port: %w", err)
	}
	var (
		mu     sync.Mutex
		closed bool
		conns  []*Port
	)
	p := m.newPort(filepath.Base(path), "", nil)
	p.close = sync.OnceValue(func() error {
		mu.Lock()
		defer mu.Unlock()
		closed = true
		err := l.Close()
		for _, c := range conns {
			err = errors.Join(err, c.close())
		}
		return err
	})
	accept := func() {
		for n := 1; ; n++ {
			c, err := l.Accept()
			if err != nil {
				return
			}
			cp := m.newPort(fmt.Sprintf("%s.%d", p.name, n), "", c)
			cp.close = sync.OnceValue(c.Close)
			mu.Lock()
			conns = append(conns, cp)
			late := closed
			mu.Unlock()
			// A closed modem or socket takes no more clients; the connection is all there is to undo.
			if late || m.serve(cp) != nil {
				m.log.add(cp.name, Happened, "closed: "+fmt.Sprint(cp.close()))
			}
		}
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed {
		return nil, errors.Join(errClosed, l.Close())
	}
	m.ports = append(m.ports, p)
	m.wg.Go(accept)
	return p, nil
}

var errClosed = errors.New("modemtest: the modem is closed")

func (m *Modem) newPort(name, path string, conn io.ReadWriter) *Port {
	return &Port{name: name, modem: m, path: path, conn: conn, echo: true, settings: map[string]string{}}
}

// serve registers a port with a client and starts to read it.
func (m *Modem) serve(p *Port) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed {
		return errClosed
	}
	m.ports = append(m.ports, p)
	m.wg.Go(p.run)
	return nil
}

// Port returns the open port of this name, or nil.
func (m *Modem) Port(name string) *Port {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, p := range m.ports {
		if p.name == name {
			return p
		}
	}
	return nil
}

// Name is the port's name in the log.
func (p *Port) Name() string { return p.name }

// SetEcho switches the echo of the port, as ATE0 and ATE1 do.
func (p *Port) SetEcho(on bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.echo = on
}

// Close hangs the port up: the host's reads fail, its symlink goes away. A new
// OpenPTY with the same link is the modem that comes back.
func (p *Port) Close() error {
	p.modem.mu.Lock()
	p.modem.ports = slices.DeleteFunc(p.modem.ports, func(q *Port) bool { return q == p })
	p.modem.mu.Unlock()
	// Once, and while the terminal is still held: later its number may be that of the port's successor, whose link it would take away.
	p.unlink.Do(func() {
		if p.path == "" || p.slave == nil {
			return
		}
		if to, lerr := os.Readlink(p.path); lerr == nil && to == p.slave.Name() {
			p.unlinkErr = os.Remove(p.path)
		}
	})
	return errors.Join(p.unlinkErr, p.close())
}

// run reads command lines until the port is hung up.
func (p *Port) run() {
	defer func() {
		if err := p.Close(); err != nil {
			p.modem.log.add(p.name, Happened, "close: "+err.Error())
		}
	}()
	limit := p.modem.cfg.Dialect.MaxLine
	if limit == 0 {
		limit = defaultMaxLine
	}
	var (
		line     []byte
		overlong bool
		buf      [4096]byte
	)
	for {
		n, err := p.conn.Read(buf[:])
		for _, b := range buf[:n] {
			switch {
			case b == '\n':
			case b == '\r':
				if !p.line(p.modem.ctx, string(line), overlong) {
					return
				}
				line, overlong = line[:0], false
			case len(line) >= limit:
				overlong = true
			default:
				line = append(line, b)
			}
		}
		if err != nil {
			return
		}
	}
}

// line runs one command line and reports whether the port lives on.
func (p *Port) line(ctx context.Context, line string, overlong bool) bool {
	m := p.modem
	p.mu.Lock()
	echo := p.echo
	p.mu.Unlock()
	if echo {
		p.write(line + "\r")
	}
	// Noise before AT is skipped, as modems do.
	i := strings.Index(strings.ToUpper(line), "AT")
	if i < 0 {
		return true
	}
	command := line[i+2:]
	m.log.add(p.name, Sent, "AT"+command)
	p.forgetExclusive()
	if overlong {
		switch m.cfg.Dialect.Overlong {
		case OverlongSilent:
			m.log.add(p.name, Happened, "line too long: no answer")
			return true
		case OverlongTruncated:
			m.log.add(p.name, Happened, "line too long: cut off")
		default:
			p.answer(reply{final: "ERROR"})
			return true
		}
	}
	fault, broken := m.fault(p.name, command)
	r := reply{final: "OK"}
	if !broken || fault.Executed || fault.Answer == "" && !fault.Hangup {
		r = m.run(ctx, p, command)
	}
	if !m.delay(ctx, "Command", m.cfg.Delays.Command) || !pause(ctx, fault.Delay) {
		return false
	}
	if fault.URC != "" {
		m.log.add(p.name, URC, fault.URC)
		p.write("\r\n" + fault.URC + "\r\n")
	}
	switch {
	case fault.Hangup:
		m.log.add(p.name, Happened, "hangs up instead of: "+r.String())
		return false
	case fault.Lost || r.mute:
		m.log.add(p.name, Happened, "does not answer: "+r.String())
	case fault.Answer != "":
		p.answer(reply{final: strings.ReplaceAll(fault.Answer, "\n", "\r\n\r\n")})
	default:
		p.answer(r)
	}
	if r.after != nil {
		r.after()
	}
	m.fetchPending()
	return true
}

// bouncePorts hangs up every pty and opens it again after Delays.Boot, under
// its link, or under another if the device gets new names.
func (m *Modem) bouncePorts(rename bool) {
	m.mu.Lock()
	ports := slices.Clone(m.ports)
	m.mu.Unlock()
	var links []string
	for _, p := range ports {
		if p.slave == nil {
			continue
		}
		links = append(links, p.path)
		if err := p.Close(); err != nil {
			m.log.add(p.name, Happened, "hang up: "+err.Error())
		}
	}
	if m.cfg.Replugged != nil {
		m.cfg.Replugged(false)
	}
	if !m.delay(m.ctx, "Boot", m.cfg.Delays.Boot) {
		return
	}
	if rename {
		m.renameLinks(links)
	}
	for _, l := range links {
		if _, err := m.OpenPTY(l); err != nil {
			m.log.add(filepath.Base(l), Happened, "come back: "+err.Error())
		}
	}
	if m.cfg.Replugged != nil {
		m.cfg.Replugged(true)
	}
}

// renameLinks gives the links their other names. Linux gives a device that
// comes back the numbers that are free, and its old ones are not while a host
// still holds them.
func (m *Modem) renameLinks(links []string) {
	m.mu.Lock()
	by := len(links)
	if m.renamed {
		by = -by
	}
	m.renamed = !m.renamed
	m.mu.Unlock()
	for i, from := range links {
		links[i] = renumber(from, by)
		m.log.add("", Happened, filepath.Base(from)+" comes back as "+filepath.Base(links[i]))
		if m.cfg.Renamed != nil {
			m.cfg.Renamed(from, links[i])
		}
	}
}

// renumber adds to the number at the end of a name; one without a number is left.
func renumber(name string, by int) string {
	stem := strings.TrimRight(name, "0123456789")
	n, err := strconv.Atoi(name[len(stem):])
	if err != nil {
		return name
	}
	return stem + strconv.Itoa(n+by)
}

func (p *Port) answer(r reply) {
	p.modem.log.add(p.name, Answered, r.String())
	var b strings.Builder
	for _, l := range append(r.lines, r.final) {
		if l != "" {
			b.WriteString("\r\n" + l + "\r\n")
		}
	}
	p.write(b.String())
}

// write sends text as it is. A host that is gone or does not read loses it.
func (p *Port) write(text string) {
	p.writing.Lock()
	defer p.writing.Unlock()
	if p.slave != nil && time.Since(p.lastWrite) > unreadTimeout {
		dropUnread(p.slave)
	}
	p.lastWrite = time.Now()
	if d, ok := p.conn.(interface{ SetWriteDeadline(time.Time) error }); ok {
		if err := d.SetWriteDeadline(time.Now().Add(writeTimeout)); err != nil {
			return // closed
		}
	}
	if _, err := io.WriteString(p.conn, text); err != nil && !errors.Is(err, os.ErrClosed) && !errors.Is(err, net.ErrClosed) {
		p.modem.log.add(p.name, Happened, "nobody reads: "+err.Error())
	}
}

// setting remembers the parameters of a set command.
func (p *Port) set(name, parameters string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.settings[name] = parameters
}

func (p *Port) setting(name string) string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.settings[name]
}

// wants reports whether a command that begins with needs was the last of its name here.
func (p *Port) wants(needs string) bool {
	name, parameters, _ := strings.Cut(needs, "=")
	p.mu.Lock()
	defer p.mu.Unlock()
	v, ok := p.settings[name]
	return needs == "" || ok && strings.HasPrefix(v, parameters)
}

// urc writes an unsolicited line on every port that wants it.
func (m *Modem) urc(text string, wants func(*Port) bool) {
	m.mu.Lock()
	ports := slices.Clone(m.ports)
	m.mu.Unlock()
	for _, p := range ports {
		if p.conn != nil && (wants == nil || wants(p)) {
			m.log.add(p.name, URC, text)
			p.write("\r\n" + text + "\r\n")
		}
	}
}

// say writes the dialect's lines for a moment.
func (m *Modem) say(at Moment) {
	for _, u := range m.cfg.Dialect.URCs {
		if u.At == at {
			m.urc(u.Text, func(p *Port) bool { return p.wants(u.Needs) })
		}
	}
}

// openPTY is pty.Open with a master that knows deadlines and whose Close wakes
// its Read: the library leaves it in blocking mode.
func openPTY() (master, slave *os.File, err error) {
	blocking, slave, err := pty.Open()
	if err != nil {
		return nil, nil, err
	}
	fd, err := unix.FcntlInt(blocking.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	if err == nil {
		err = unix.SetNonblock(fd, true)
	}
	if err = errors.Join(err, blocking.Close()); err != nil {
		return nil, nil, errors.Join(err, slave.Close())
	}
	return os.NewFile(uintptr(fd), "/dev/ptmx"), slave, nil
}

// makeRaw sets a terminal to 8 bits without echo or line editing.
func makeRaw(f *os.File) error {
	return control(f, func(fd int) error {
		t, err := unix.IoctlGetTermios(fd, unix.TCGETS)
		if err != nil {
			return fmt.Errorf("read the terminal settings: %w", err)
		}
		t.Iflag, t.Oflag, t.Lflag = 0, 0, 0
		t.Cflag = t.Cflag&^(unix.CSIZE|unix.PARENB) | unix.CS8
		t.Cc[unix.VMIN], t.Cc[unix.VTIME] = 1, 0
		if err := unix.IoctlSetTermios(fd, unix.TCSETS, t); err != nil {
			return fmt.Errorf("set the terminal raw: %w", err)
		}
		return nil
	})
}

// dropUnread throws away what a host left unread in a pty. A USB tty that
// nobody has open keeps nothing either; a pty would give it to the next client.
func dropUnread(slave *os.File) {
	err := control(slave, func(fd int) error {
		n, err := unix.IoctlGetInt(fd, unix.TIOCINQ)
		if err != nil || n == 0 {
			return err
		}
		return unix.IoctlSetInt(fd, unix.TCFLSH, unix.TCIFLUSH)
	})
	if err != nil {
		return // hung up meanwhile: nothing to keep
	}
}

// control runs f on the descriptor without taking it out of the poller.
func control(file *os.File, f func(fd int) error) error {
	c, err := file.SyscallConn()
	if err != nil {
		return err
	}
	var ferr error
	if err := c.Control(func(fd uintptr) { ferr = f(int(fd)) }); err != nil {
		return err
	}
	return ferr
}
