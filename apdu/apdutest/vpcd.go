package apdutest

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"syscall"
	"time"
)

// Control messages of vpcd, the driver of the virtual reader: messages of one
// byte (vsmartcard project, vpcd.h).
const (
	vpcdOff   = 0
	vpcdOn    = 1
	vpcdReset = 2
	vpcdATR   = 4
)

// How ServeVPCD waits.
const (
	vpcdRetry   = 20 * time.Millisecond // between attempts to reach the reader
	vpcdRemoved = time.Second           // out of the reader; pcscd looks every 400 ms
)

// ServeVPCD puts card into the virtual reader that listens on addr, such as
// "127.0.0.1:36001", until ctx ends. It waits for the reader to appear, and
// again when pcscd was restarted. When the card's Transmit gives an error the
// card leaves the reader for a second and comes back.
//
// It returns nil when ctx is over: until then every failure of the connection
// is only the absence of a reader.
func ServeVPCD(ctx context.Context, addr string, card Card) error {
	var dialer net.Dialer
	for {
		wait := vpcdRetry
		if conn, err := dialer.DialContext(ctx, "tcp", addr); err == nil {
			if pulled := serveVPCD(ctx, conn.(*net.TCPConn), card); pulled {
				wait = vpcdRemoved
			}
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(wait):
		}
	}
}

// serveVPCD answers one connection, and says whether the card left by itself.
func serveVPCD(ctx context.Context, conn *net.TCPConn, card Card) (pulled bool) {
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer func() {
		stop()
		conn.Close()
	}()
	for {
		message, err := readVPCD(conn)
		if err != nil {
			return false
		}
		var answer []byte
		switch {
		case len(message) == 1 && message[0] == vpcdATR:
			answer = card.ATR()
		case len(message) == 1:
			if message[0] == vpcdOff || message[0] == vpcdOn || message[0] == vpcdReset {
				card.Reset()
			}
			continue
		default:
			if answer, err = card.Transmit(ctx, message); err != nil {
				return true
			}
		}
		frame := binary.BigEndian.AppendUint16(nil, uint16(len(answer)))
		if _, err := conn.Write(append(frame, answer...)); err != nil {
			return false
		}
	}
}

// readVPCD reads a message: a 16-bit big-endian length, then the bytes. vpcd
// sends them apart with Nagle's algorithm on, so without a quick ACK for each
// part every APDU would take 40 ms. The kernel forgets the option: it is set
// before every read.
func readVPCD(conn *net.TCPConn) ([]byte, error) {
	head := make([]byte, 2)
	if err := quickACK(conn); err != nil {
		return nil, err
	}
	if _, err := io.ReadFull(conn, head); err != nil {
		return nil, err
	}
	message := make([]byte, binary.BigEndian.Uint16(head))
	if err := quickACK(conn); err != nil {
		return nil, err
	}
	_, err := io.ReadFull(conn, message)
	return message, err
}

func quickACK(conn *net.TCPConn) error {
	raw, err := conn.SyscallConn()
	if err != nil {
		return err
	}
	var serr error
	err = raw.Control(func(fd uintptr) {
		serr = syscall.SetsockoptInt(int(fd), syscall.IPPROTO_TCP, syscall.TCP_QUICKACK, 1)
	})
	if err == nil && serr != nil {
		err = fmt.Errorf("TCP_QUICKACK: %w", serr)
	}
	return err
}
