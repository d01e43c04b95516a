// Package serialport opens a serial line (a UART, a USB modem's tty, a kernel
// WWAN AT port) as an io.ReadWriteCloser with deadlines.
//
//	port, err := serialport.Open("/dev/ttyUSB2", 115200)
//	conn := at.New(port)
//
// It is the only importer of github.com/tarm/serial, and lets that package do no
// more than set the line up (raw, 8N1, speed). All input and output goes through
// a second descriptor of the same device, because tarm's own cannot be used in a
// daemon: its Close waits for a pending Read, a timeout and a hang-up look the
// same (io.EOF, for ever), a Write has no deadline, and a second open of the line
// succeeds.
//
// What may fail: the device does not exist or may not be opened ([ErrMissing],
// [ErrDenied], with fs.ErrNotExist and fs.ErrPermission behind them), it is no
// serial line ([ErrNoLine]), somebody holds it ([ErrBusy], with the name of who
// does as far as it can be found out: [Holders]), the speed is unknown, and at any
// time the device goes away ([ErrHangup]): close, wait until it is back, open
// again. A modem that comes back may have another name; [WhereIs] notes its place,
// [Locate] finds it there.
package serialport

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/tarm/serial"
	"golang.org/x/sys/unix"

	"lpad/internal/fault"
)

var (
	// ErrHangup means that the line hung up: the device was unplugged or came
	// back under another number. Every Read and Write from then on gives it.
	ErrHangup = fault.New(fault.Fault{
		Code: "modem-hangup", Text: "the serial line hung up (unplugged or re-enumerated)", Retry: true, Who: fault.Device,
		Next: "the port is opened again when the modem comes back",
	}, nil)
	// ErrBusy means that another program holds the line.
	ErrBusy = fault.New(fault.Fault{
		Code: "port-busy", Text: "another program uses this serial port", Retry: true, Who: fault.Configuration,
		Next: "give lpad a port of its own: a second AT port, or a udev rule that keeps ModemManager off this one",
	}, nil)
	// ErrMissing means that there is no such device.
	ErrMissing = fault.New(fault.Fault{
		Code: "port-missing", Text: "the serial port of the modem is not there", Retry: true, Who: fault.Technician,
		Next: "look whether the modem is plugged in and powered; if it is, compare card.at_port with the ports in /dev",
	}, nil)
	// ErrDenied means that this user may not open the device.
	ErrDenied = fault.New(fault.Fault{
		Code: "port-denied", Text: "lpad may not open the serial port", Who: fault.Configuration,
		Next: "put the user of lpad into the group of the device (mostly dialout)",
	}, nil)
	// ErrNoLine means that the path leads to something else than a serial line.
	ErrNoLine = fault.New(fault.Fault{
		Code: "port-wrong", Text: "card.at_port is not a serial port", Who: fault.Configuration,
		Next: "set card.at_port to the AT port of the modem, such as /dev/ttyUSB2",
	}, nil)
)

// Port is an open serial line. Read and Write may run at the same time in two
// goroutines; the other methods are safe at any time.
type Port struct {
	setup *serial.Port // holds the line settings; never read from or written to
	io    *os.File     // non-blocking, known to the runtime poller: deadlines and Close work
	close sync.Once
	err   error // of Close
}

// Open opens the line for this process alone and sets it up: raw, eight bits, no
// parity, one stop bit, no flow control, at baud bits a second (for a USB modem
// any usual number does). Beware that root is not kept off: a ModemManager that
// runs as root needs a udev rule. The other way round, a line that another program
// holds for itself is not opened, although the kernel would let root do so: two
// readers get every second byte each.
func Open(path string, baud int) (*Port, error) {
	// Non-blocking: the open of a real UART would otherwise wait for carrier.
	f, err := os.OpenFile(path, unix.O_RDWR|unix.O_NOCTTY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open serial port: %w", held(path, err))
	}
	p := &Port{io: f}
	if err := p.taken(path); err != nil {
		return nil, errors.Join(fmt.Errorf("open serial port %s: %w", path, err), f.Close())
	}
	// The lock keeps a second lpad off, root or not, before anything is changed.
	// It goes with the descriptor, so a crash leaves nothing behind.
	if err := p.control(func(fd int) error { return unix.Flock(fd, unix.LOCK_EX|unix.LOCK_NB) }); err != nil {
		return nil, errors.Join(fmt.Errorf("lock serial port %s: %w", path, held(path, err)), f.Close())
	}
	// ReadTimeout must stay 0: VMIN=1 gives EAGAIN on our descriptor. Any other
	// value sets VMIN=0, and then every Read without a byte is an end of file.
	p.setup, err = serial.OpenPort(&serial.Config{Name: path, Baud: baud})
	if err != nil {
		return nil, errors.Join(fmt.Errorf("set up serial port %s at %d baud: %w", path, baud, held(path, err)), f.Close())
	}
	// From here on nobody else may open the line (CAP_SYS_ADMIN excepted). Set
	// after the second open, which it would refuse as well. Kernel WWAN ports
	// do not have it.
	err = p.control(func(fd int) error { return unix.IoctlSetInt(fd, unix.TIOCEXCL, 0) })
	if err != nil && !errors.Is(err, syscall.ENOTTY) && !errors.Is(err, syscall.EINVAL) {
		return nil, errors.Join(fmt.Errorf("hold serial port %s: %w", path, err), p.Close())
	}
	return p, nil
}

// taken reports that another process holds the line for itself (TIOCEXCL), which
// the kernel does not let root feel. The mark of a process that was killed stays
// on the line as long as anybody has it open; so it counts only with a holder.
func (p *Port) taken(path string) error {
	exclusive := 0
	err := p.control(func(fd int) (err error) { exclusive, err = unix.IoctlGetInt(fd, unix.TIOCGEXCL); return err })
	if err != nil || exclusive == 0 {
		return nil // a kernel WWAN port does not know the question
	}
	holders, _ := Holders(path)
	if len(holders) == 0 {
		return nil
	}
	return busy(path, syscall.EBUSY)
}

// held explains why a line cannot be opened.
func held(path string, err error) error {
	switch {
	case errors.Is(err, syscall.EBUSY), errors.Is(err, syscall.EWOULDBLOCK):
		return busy(path, err)
	case gone(err), errors.Is(err, syscall.ENXIO), errors.Is(err, syscall.ENODEV):
		return fmt.Errorf("%w: %w", ErrMissing, err)
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("%w: %w", ErrDenied, err)
	case errors.Is(err, syscall.ENOTTY), errors.Is(err, syscall.EISDIR):
		return fmt.Errorf("%w: %w", ErrNoLine, err)
	}
	return err
}

// busy is ErrBusy with the name of who holds the line, if that can be found out.
// Without the right to see it, a ModemManager that runs here is the likely one.
func busy(path string, cause error) error {
	err := fmt.Errorf("%w: %w", ErrBusy, cause)
	f := fault.Of(ErrBusy)
	if who := Owner(path); who != "" {
		f.Text = who + " has the port open"
	} else if h, ok := suspect("/proc"); ok {
		f.Text = "another program has the port open, probably " + h.String()
	} else {
		return err
	}
	return fault.New(f, err)
}

// Owner names the other processes that have the port open, "ModemManager (pid
// 812)", as far as this one may see them; empty means that it sees none.
func Owner(path string) string {
	holders, _ := Holders(path)
	const most = 3
	var who []string
	for _, h := range holders {
		if len(who) < most {
			who = append(who, h.String())
		}
	}
	return strings.Join(who, ", ")
}

// Read returns with the first bytes, at the read deadline (os.ErrDeadlineExceeded),
// at Close (os.ErrClosed) or at a hang-up (ErrHangup).
func (p *Port) Read(b []byte) (int, error) {
	n, err := p.io.Read(b)
	return n, mapError("read", err)
}

// Write returns when all of b is on its way, or with an error as Read does.
func (p *Port) Write(b []byte) (int, error) {
	n, err := p.io.Write(b)
	return n, mapError("write", err)
}

func mapError(doing string, err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, io.EOF), errors.Is(err, syscall.EIO), errors.Is(err, syscall.ENODEV),
		errors.Is(err, syscall.ENXIO), errors.Is(err, syscall.EPIPE):
		return fmt.Errorf("%s serial port: %w", doing, ErrHangup)
	case errors.Is(err, fs.ErrClosed):
		return os.ErrClosed
	}
	return fmt.Errorf("%s serial port: %w", doing, err)
}

// SetReadDeadline bounds pending and future Reads; the zero time is no bound.
func (p *Port) SetReadDeadline(t time.Time) error { return p.io.SetReadDeadline(t) }

// SetWriteDeadline bounds pending and future Writes; the zero time is no bound.
func (p *Port) SetWriteDeadline(t time.Time) error { return p.io.SetWriteDeadline(t) }

// SetDeadline is both.
func (p *Port) SetDeadline(t time.Time) error { return p.io.SetDeadline(t) }

// Flush throws away what was received but not read and what was written but not sent.
func (p *Port) Flush() error {
	// Not tarm's Flush: its number of TCFLSH is wrong on MIPS and PowerPC.
	if err := p.control(func(fd int) error { return unix.IoctlSetInt(fd, unix.TCFLSH, unix.TCIOFLUSH) }); err != nil {
		return fmt.Errorf("flush serial port: %w", err)
	}
	return nil
}

// Close gives the line back and ends a pending Read and Write. Further calls
// give what the first one gave.
func (p *Port) Close() error {
	p.close.Do(func() {
		// When somebody else (root) holds the device open too, our exclusive
		// mode would outlive us. A line that hung up refuses: it has none.
		_ = p.control(func(fd int) error { return unix.IoctlSetInt(fd, unix.TIOCNXCL, 0) })
		p.err = p.io.Close() // first: it ends what is pending
		if p.setup != nil {
			p.err = errors.Join(p.err, p.setup.Close())
		}
	})
	return p.err
}

// control runs f on the descriptor, not through Fd(), which would make it blocking.
func (p *Port) control(f func(fd int) error) error {
	raw, err := p.io.SyscallConn()
	if err != nil {
		return err
	}
	var inner error
	if err := raw.Control(func(fd uintptr) { inner = f(int(fd)) }); err != nil {
		return err
	}
	return inner
}
