package es9p

import (
	"context"
	"net"
	"net/netip"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// A person may take minutes to consent, between two requests. These probes
// keep the address translation of a mobile network alive in that time and
// notice a dead connection before the next request is written into it.
var keepAlive = net.KeepAliveConfig{Enable: true, Idle: 30 * time.Second, Interval: 15 * time.Second, Count: 4}

// Dialer is the dialer of this package, for what shall leave the way that
// requests to servers do: bound to a network interface, name look-ups included,
// or, if device is empty, by the routing table.
func Dialer(device string) *net.Dialer { return newDialer(device, nil) }

// newDialer is a dialer for one network interface, or for any if device is
// empty.
func newDialer(device string, resolver *net.Resolver) *net.Dialer {
	d := &net.Dialer{KeepAliveConfig: keepAlive, Resolver: resolver}
	if device == "" {
		return d
	}
	d.Control = func(_, _ string, conn syscall.RawConn) error { return bindTo(device, conn) }
	if resolver == nil {
		d.Resolver = &net.Resolver{PreferGo: true, Dial: resolverDial(device)}
	}
	return d
}

// resolverDial asks name servers over the interface too: the old network's
// resolvers are often unreachable or wrong from the new one. A resolver on
// this machine (systemd-resolved, dnsmasq) can only be asked over loopback.
func resolverDial(device string) DialFunc {
	plain := &net.Dialer{}
	bound := &net.Dialer{Control: func(_, _ string, conn syscall.RawConn) error { return bindTo(device, conn) }}
	return func(ctx context.Context, network, address string) (net.Conn, error) {
		if server, err := netip.ParseAddrPort(address); err == nil && server.Addr().IsLoopback() {
			return plain.DialContext(ctx, network, address)
		}
		return bound.DialContext(ctx, network, address)
	}
}

// bindTo sets SO_BINDTODEVICE, before the socket connects.
func bindTo(device string, conn syscall.RawConn) error {
	var bindErr error
	err := conn.Control(func(fd uintptr) { bindErr = unix.BindToDevice(int(fd), device) })
	if err != nil {
		return err
	}
	if bindErr != nil {
		return &interfaceError{device, bindErr}
	}
	return nil
}

// interfaceError says that a socket could not be bound to its interface.
type interfaceError struct {
	device string
	err    error
}

func (e *interfaceError) Error() string { return "bind to " + e.device + ": " + e.err.Error() }
func (e *interfaceError) Unwrap() error { return e.err }
