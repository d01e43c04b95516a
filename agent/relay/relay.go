// Package relay carries connections to servers through somebody else's network:
// a device without any is reached by a technician over the local socket, and his
// laptop connects to the servers for it.
//
// The laptop attaches by one connection (POST /v1/relay, upgraded to
// [api.RelayProtocol]), over which both ends speak lines. The daemon asks for
// connections to "host:port"; the laptop looks the name up, connects, and brings
// for each a connection of its own (POST /v1/relay?connection=N), which carries
// the bytes as they are. Whatever makes one connection to the socket possible
// makes several possible, so that there is nothing to multiplex: each has the
// kernel's buffers and deadlines. What is carried is the daemon's TLS: the laptop
// sees the server's name and the lengths.
//
// At the device, one [Station] has at most one laptop:
//
//	err := station.Attach(ctx, "uid 1000", take) // until the laptop has gone
//	err := station.Bring("7", take)              // a connection that was asked for
//	conn, err := station.Dial(ctx, "smdp.example.com:443")
//
// On the laptop, a [Carrier] dials what its [Rules] allow:
//
//	err := (&relay.Carrier{Dial: rules.Dial, Bring: client.Relay, Tell: show}).Carry(ctx, conn)
//
// A line has at most 512 bytes and ends with a line feed:
//
//	open N HOST:PORT  device to laptop: bring connection N, of this address
//	failed N WHY TEXT laptop to device: it is not to be had; WHY is a number
//	ping              device to laptop: are you there?
//	pong              laptop to device: yes
//
// The device has at most eight connections at a time. Anything else is a
// violation, and ends it all: both ends believe nothing of each other.
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
	maxConns   = 8       // connections at a time: two for each of four cards
	maxLine    = 512     // bytes, with its end
	maxAddress = 253 + 6 // a name, a colon and a port
	maxText    = 200     // bytes of words of the other side
)

// pace says when the other side counts as gone.
type pace struct {
	ping   time.Duration // between two questions whether it is there
	dead   time.Duration // without a line from it, or with one that it does not take
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

// ErrNotAsked says that a connection was brought that nobody has asked for, or not
// any longer.
var ErrNotAsked = fault.New(fault.Fault{Code: "not-found", Text: "nobody waits for this connection of a relay", Who: fault.Technician,
	Next: "attach a relay, and bring what it is asked for"}, nil)

// errViolation is a line that makes no sense.
var errViolation = errors.New("the other end does not keep to the protocol")

// errSilent ends a link whose other end does not show any more.
var errSilent = errors.New("the other end does not answer any more")

// why a laptop could not connect, as a line says it. Other numbers are whyOther.
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
