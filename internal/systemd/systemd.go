// Package systemd is the little that lpad says to systemd and gets from it. It
// is the only importer of coreos/go-systemd. Without systemd everything here
// does nothing and says so by its results.
//
//	l, err := systemd.Listener()             // nil, nil: make the socket yourself
//	systemd.Notify("READY=1")
//	every := systemd.Watchdog()              // 0: nobody waits for WATCHDOG=1
//	log := slog.New(systemd.Journal(level))  // nil: the log does not go to the journal
package systemd

import (
	"errors"
	"fmt"
	"net"
	"time"

	"github.com/coreos/go-systemd/v22/activation"
	"github.com/coreos/go-systemd/v22/daemon"
)

// Notify tells systemd, if it listens, what sd_notify(3) lists.
func Notify(state string) error {
	_, err := daemon.SdNotify(false, state)
	return err
}

// Reloading is the state that says that the configuration is being read again:
// systemd wants to know when that began. READY=1 ends it.
func Reloading() string { return daemon.SdNotifyReloading + "\n" + daemon.SdNotifyMonotonicUsec() }

// Watchdog is how long systemd waits for WATCHDOG=1 before it takes this process
// for hung (WatchdogSec=); 0 when it does not wait for any.
func Watchdog() (time.Duration, error) {
	d, err := daemon.SdWatchdogEnabled(false)
	if err != nil {
		return 0, fmt.Errorf("watchdog of systemd: %w", err)
	}
	return d, nil
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
