// Package relay carries connections to servers through somebody else's network:
// a device without any is reached by a technician over the local socket, and his
// laptop connects to the servers for it.
//
// Over one connection (POST /v1/relay, upgraded to [api.RelayProtocol]) both ends
// speak frames. The daemon asks for connections to "host:port", the laptop looks
// the name up and connects, and bytes are carried in both directions. What is
// carried is the daemon's TLS: the laptop sees the server's name and the lengths.
//
// At the device, one [Station] has at most one laptop:
//
//	err := station.Attach(ctx, "uid 1000", take) // until the laptop has gone
//	conn, err := station.Dial(ctx, "smdp.example.com:443")
//
// On the laptop, a [Carrier] dials what its [Rules] allow:
//
//	err := (&relay.Carrier{Rules: rules, Tell: show}).Carry(ctx, conn)
//
// A frame is seven bytes and a payload: its kind, the number of the connection
// (32 bits), the length of the payload (16 bits, at most 4096), numbers with the
// highest byte first.
//
//	1  open    device to laptop: connect to the address in the payload
//	2  opened  laptop to device: it is connected
//	3  failed  laptop to device: it is not; one byte why, then words
//	4  data    both: bytes of the connection
//	5  end     both: no more bytes come from this side
//	6  reset   both: the connection is no more
//	7  credit  both: so many bytes were taken (32 bits), and as many may follow
//	8  ping    both, connection 0: are you there?
//	9  pong    both, connection 0: yes
//
// Each side may be 64 KiB ahead of what the other has taken, for each of at most
// eight connections, so that neither holds more than that for the other. Numbers
// grow from 1 and are not used again; what comes late for a connection that is
// gone is ignored. Anything else is a violation, and ends it all: both ends
// believe nothing of each other.
package relay

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"

	"lpad/internal/fault"
)

// Limits of a relay.
const (
	maxStreams = 8        // connections at a time: two for each of four cards
	window     = 64 << 10 // bytes of one connection and direction that are under way
	maxPayload = 4 << 10  // bytes of a frame: four seconds of a serial line of 9600 baud
	maxAddress = 253 + 6  // a name, a colon and a port
	maxText    = 200      // bytes of words of the other side
)

// pace says when the other side counts as gone.
type pace struct {
	ping   time.Duration // between two questions whether it is there
	dead   time.Duration // without a byte from it, or with a frame that it does not take
	answer time.Duration // for a laptop to show that it is there, when another one wants its place
}

var usual = pace{ping: 10 * time.Second, dead: 30 * time.Second, answer: 5 * time.Second}

// ErrNone says that no laptop is attached.
var ErrNone = errors.New("no relay is attached")

// ErrLost says that the laptop has gone while it carried a connection.
var ErrLost = fault.New(fault.Fault{Code: "relay-lost", Text: "the relay went away in the middle", Retry: true, Who: fault.Technician,
	Next: "start lpactl relay again; a job that has failed meanwhile can be ordered again"}, nil)

// ErrTaken says that another laptop is attached, and answers.
var ErrTaken = fault.New(fault.Fault{Code: "relay-attached", Text: "another relay is attached already", Retry: true, Who: fault.Technician,
	Next: "use that one, or end it: lpactl status says whose it is"}, nil)

// errReset is the end of a connection that the other side has given up.
var errReset = fmt.Errorf("the relay's connection to the server broke: %w", syscall.ECONNRESET)

// why a laptop could not connect, as a frame says it. Other numbers are whyOther.
type why byte

const (
	whyOther       why = 1 + iota
	whyHostUnknown     // the name server of the laptop knows no such name
	whyNames           // its name server does not answer
	whyRefused         // the server's address accepts no connection
	whyUnreachable     // the laptop has no way there
	whySilent          // nothing answers
	whyRules           // the rules of the laptop do not allow it
)

// whyOf sorts an error of a dialler.
func whyOf(err error) why {
	var name *net.DNSError
	var timeout interface{ Timeout() bool }
	switch {
	case errors.Is(err, ErrRules):
		return whyRules
	case errors.As(err, &name) && name.IsNotFound:
		return whyHostUnknown
	case errors.As(err, &name):
		return whyNames
	case errors.Is(err, syscall.ECONNREFUSED):
		return whyRefused
	case errors.Is(err, syscall.ENETUNREACH), errors.Is(err, syscall.EHOSTUNREACH), errors.Is(err, syscall.ENETDOWN), errors.Is(err, syscall.EADDRNOTAVAIL):
		return whyUnreachable
	case errors.As(err, &timeout) && timeout.Timeout():
		return whySilent
	}
	return whyOther
}

// failure is what a laptop has said, as the error that the same trouble is
// without a relay.
func failure(address string, w why, text string) error {
	host, _, _ := net.SplitHostPort(address)
	var cause error
	switch w {
	case whyHostUnknown:
		cause = &net.DNSError{Err: "no such host", Name: host, IsNotFound: true}
	case whyNames:
		cause = &net.DNSError{Err: "the laptop's name server does not answer", Name: host, IsTemporary: true}
	case whyRefused:
		cause = syscall.ECONNREFUSED
	case whyUnreachable:
		cause = syscall.ENETUNREACH
	case whySilent:
		cause = os.ErrDeadlineExceeded
	case whyRules:
		return fault.New(fault.Fault{Code: "relay-refused", Text: "the relay does not connect to this server", Who: fault.Technician,
			Next: "look at what lpactl relay says; if the server is the right one, start it with --allow"}, fmt.Errorf("%s: %q", address, text))
	default:
		cause = errors.New("no connection")
	}
	return fmt.Errorf("by the relay, which says %q: %w", text, cause)
}

// plain makes words of the other side fit for an error and a terminal.
func plain(text string) string {
	if len(text) > maxText {
		text = text[:maxText]
	}
	return strings.Map(func(r rune) rune {
		if r < ' ' || r > '~' {
			return '?'
		}
		return r
	}, text)
}

// ParseAddress splits "host:port" and refuses what no server can be: the host is
// a name of letters, digits, hyphens and underscores, or an IP address without a
// zone, the port a number. It is the same at both ends.
func ParseAddress(address string) (host, port string, err error) {
	if len(address) > maxAddress {
		return "", "", errors.New("the address is too long")
	}
	host, port, err = net.SplitHostPort(address)
	if err != nil {
		return "", "", errors.New("the address is not host:port")
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 || port[0] == '0' {
		return "", "", errors.New("the port is not a number from 1 to 65535")
	}
	if ip, err := netip.ParseAddr(host); err == nil && ip.Zone() == "" {
		return host, port, nil
	}
	for label := range strings.SplitSeq(host, ".") {
		if label == "" || len(label) > 63 || strings.Trim(label, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_") != "" {
			return "", "", errors.New("the host is no name of a server")
		}
	}
	return host, port, nil
}
