package modemtest

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// Packet is one IPv4 packet that the device has sent over the modem's data link.
type Packet struct {
	Time     time.Time // when it reached the operator, by the kernel's clock
	From, To netip.Addr
	Size     int // bytes, with the IP header
}

// Traffic is the log of the data link: what the device sends, whether the
// operator takes it or not. Make it with [Stack.WatchTraffic].
type Traffic struct {
	file *os.File
	done chan struct{}

	mu      sync.Mutex
	packets []Packet
}

// maxPackets bounds the memory of a log that nobody ends.
const maxPackets = 1_000_000

// WatchTraffic records the packets of the data link from now on, until Close.
func (s *Stack) WatchTraffic() (*Traffic, error) {
	fd := -1
	err := s.operator.inNetNS(func() error {
		link, err := net.InterfaceByName(operatorInterface)
		if err != nil {
			return err
		}
		const ipv4 = unix.ETH_P_IP>>8 | unix.ETH_P_IP&0xFF<<8 // in network byte order
		if fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0); err != nil {
			return err
		}
		return errors.Join(unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_TIMESTAMPNS_NEW, 1),
			unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: ipv4, Ifindex: link.Index}))
	})
	if err != nil {
		if fd >= 0 {
			err = errors.Join(err, unix.Close(fd))
		}
		return nil, fmt.Errorf("modemtest: watch the data link: %w", err)
	}
	t := &Traffic{file: os.NewFile(uintptr(fd), "data link"), done: make(chan struct{})}
	go t.run()
	return t, nil
}

// Packets returns a copy of the log.
func (t *Traffic) Packets() []Packet {
	t.mu.Lock()
	defer t.mu.Unlock()
	return slices.Clone(t.packets)
}

// Close ends the recording; what was recorded stays.
func (t *Traffic) Close() error {
	err := t.file.Close()
	<-t.done
	return err
}

func (t *Traffic) run() {
	defer close(t.done)
	raw, err := t.file.SyscallConn()
	if err != nil {
		return // closed already
	}
	// It ends with an error when the file is closed, which is how it is to end.
	_ = raw.Read(func(fd uintptr) bool {
		for t.receive(int(fd)) {
		}
		return false
	})
}

// receive takes one packet; false is that none waits.
func (t *Traffic) receive(fd int) bool {
	const ipv4Header = 20
	header, control := make([]byte, ipv4Header), make([]byte, unix.CmsgSpace(timespec))
	n, cn, _, from, err := unix.Recvmsg(fd, header, control, unix.MSG_TRUNC)
	if err != nil {
		return errors.Is(err, unix.EINTR) || errors.Is(err, unix.ENETDOWN)
	}
	link, ok := from.(*unix.SockaddrLinklayer)
	if !ok || link.Pkttype == unix.PACKET_OUTGOING || n < ipv4Header {
		return true
	}
	p := Packet{Time: arrival(control[:cn]), Size: n, From: netip.AddrFrom4([4]byte(header[12:16])), To: netip.AddrFrom4([4]byte(header[16:20]))}
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.packets) < maxPackets {
		t.packets = append(t.packets, p)
	}
	return true
}

// timespec is the size of the kernel's struct __kernel_timespec: seconds and nanoseconds.
const timespec = 16

// arrival is the kernel's time of a packet.
func arrival(control []byte) time.Time {
	messages, err := unix.ParseSocketControlMessage(control)
	if err == nil && len(messages) > 0 && len(messages[0].Data) >= timespec {
		d := messages[0].Data
		return time.Unix(int64(binary.NativeEndian.Uint64(d)), int64(binary.NativeEndian.Uint64(d[timespec/2:])))
	}
	return time.Now()
}
