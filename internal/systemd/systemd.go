// Package systemd is the little that lpad says to systemd and gets from it. It
// is the only importer of coreos/go-systemd. Without systemd everything here
// does nothing and says so by its results.
//
//	l, err := systemd.Listener()             // nil, nil: make the socket yourself
//	systemd.Notify("READY=1")
package systemd

import (
	"errors"
	"fmt"
	"net"

	"github.com/coreos/go-systemd/v22/activation"
	"github.com/coreos/go-systemd/v22/daemon"
)

// Notify tells systemd, if it listens, what sd_notify(3) lists.
func Notify(state string) error {
	_, err := daemon.SdNotify(false, state)
	return err
}

// Listener is the unix socket that systemd has opened for us, or nil when it
// has not. The socket's node belongs to systemd and stays when we stop.
func Listener() (net.Listener, error) {
	all, err := activation.Listeners()
	if err != nil {
		return nil, fmt.Errorf("sockets of systemd: %w", err)
	}
	var found net.Listener
	for _, l := range all {
		u, ok := l.(*net.UnixListener)
		switch {
		case l == nil: // a descriptor that is no stream socket
		case !ok || found != nil:
			err = errors.Join(err, fmt.Errorf("systemd passed a socket that lpad does not know: %s", l.Addr()), l.Close())
		default:
			u.SetUnlinkOnClose(false)
			found = u
		}
	}
	return found, err
}
