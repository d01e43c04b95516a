package lab

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"lpad/modem/at"
	"lpad/modem/modemtest"
	"lpad/modem/serialport"
	"lpad/packaging"
)

// Backend is who has the network of a device, in the words of lpad's
// network.backend.
type Backend string

// The back-ends.
const (
	NetworkManager Backend = "networkmanager" // and ModemManager
	ModemManager   Backend = "modemmanager"   // alone, with a hook for the interface
	Neither        Backend = "none"           // with a hook for the interface
)

// Backends are all of them, the one with the most services first.
func Backends() []Backend { return []Backend{NetworkManager, ModemManager, Neither} }

// hasInterface reports that ModemManager 1.20 gives a modem a network interface
// when it is driven by AT commands. To the others it offers PPP on a tty.
func hasInterface(d modemtest.Dialect) bool { return d.Name == "" || d.Name == modemtest.UBlox.Name }

// EndsAtBearer reports that a device cannot carry packets here: NetworkManager
// has to run pppd on what ModemManager dials, which needs a kernel with PPP, and
// something that speaks PPP at the other end of the modem.
func (b Backend) EndsAtBearer(d modemtest.Dialect) bool {
	return b == NetworkManager && !hasInterface(d)
}

// dataInterface is the modem's network interface on a device of the lab.
const dataInterface = "wwan0"

// hookScript is what the maker of a device would write for network.hook. The
// packaged example does the work. Of PPP the lab has no more than the dialling,
// so where pppd would be started, with the addresses that IPCP brings, the
// addresses of the two operators are taken.
const hookScript = `#!/bin/sh
set -eu
env | grep '^LPAD_' | grep -v '^LPAD_PASSWORD=' | sort | tr '\n' ' ' >>"$0.log"
echo >>"$0.log"
if [ "$LPAD_METHOD" = ppp ]; then
	case $LPAD_APN in
%s	*) [ "$LPAD_EVENT" = down ] || { echo "no such operator" >&2; exit 1; } ;;
	esac
	export LPAD_METHOD=static LPAD_INTERFACE=%s
fi
exec /bin/sh "$0.interface"
`

// hook writes the hook and returns its path.
func (s *site) hook() (string, error) {
	path := filepath.Join(s.dir, "hook")
	var operators strings.Builder
	for _, o := range []Subscriber{OldOperator, NewOperator} {
		fmt.Fprintf(&operators, "\t%s) export LPAD_ADDRESS=%s LPAD_GATEWAY=%s ;;\n", o.APN, o.Address, o.Gateway)
	}
	const program = 0o755
	return path, errors.Join(
		os.WriteFile(path+".interface", []byte(packaging.Hook), program),
		os.WriteFile(path, fmt.Appendf(nil, hookScript, operators.String(), dataInterface), program))
}

// HookLog is how the hook was called: a line for each call, with its environment.
func (d *Device) HookLog() string {
	b, err := os.ReadFile(filepath.Join(d.dir, "hook.log"))
	if err != nil {
		return ""
	}
	return string(b)
}

// goOnline brings the old operator's link up where NetworkManager does not, as
// what starts a device does it.
func (d *Device) goOnline(ctx context.Context, b Backend, hook string) error {
	old := OldOperator
	if b == ModemManager {
		// Its answer to the first call may be that the modem is not ready yet.
		err := retry(ctx, func() error {
			out, err := d.Stack.Command(ctx, "mmcli", "--modem=any", "--simple-connect=apn="+old.APN).CombinedOutput()
			if err != nil {
				return fmt.Errorf("mmcli: %w: %s", err, strings.TrimSpace(string(out)))
			}
			return nil
		})
		if err != nil {
			return err
		}
	} else if err := d.activate(ctx); err != nil {
		return err
	}
	cmd := d.Stack.Command(ctx, hook)
	cmd.Env = append(cmd.Env, "LPAD_EVENT=up", "LPAD_METHOD=static", "LPAD_APN="+old.APN, "LPAD_MTU=", "LPAD_INTERFACE="+dataInterface,
		"LPAD_ADDRESS="+old.Address.String(), "LPAD_GATEWAY="+old.Gateway.String())
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("hook: %w: %s", err, strings.TrimSpace(string(out)))
	}
	return nil
}

// activate has the modem bring its context up, by AT.
func (d *Device) activate(ctx context.Context) (err error) {
	if err := d.Stack.Modem.WaitRegistered(ctx, OldOperator.ICCID); err != nil {
		return err
	}
	port, err := serialport.Open(d.Stack.OpenAgentPort(), 115200)
	if err != nil {
		return err
	}
	conn := at.New(port)
	defer func() { err = errors.Join(err, conn.Close()) }()
	_, err = conn.Command(ctx, "AT+CGACT=1,1")
	return err
}

// retry repeats what may fail at first, until ctx ends.
func retry(ctx context.Context, f func() error) error {
	for {
		err := f()
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return errors.Join(err, ctx.Err())
		case <-time.After(200 * time.Millisecond):
		}
	}
}

// journalScript shows a socket where systemd's journal has its own, and says that
// standard error leads there.
const journalScript = `mount -t tmpfs tmpfs /run/systemd && mkdir /run/systemd/journal && touch /run/systemd/journal/socket &&
mount --bind "$0" /run/systemd/journal/socket && JOURNAL_STREAM=$(stat -L -c %d:%i /proc/self/fd/2) && export JOURNAL_STREAM && exec "$@"`

// commandOn is how lpad is started on the device.
func (d *Device) commandOn(user *account, journal string) func(ctx context.Context, name string, args ...string) *exec.Cmd {
	if journal != "" {
		return func(ctx context.Context, name string, args ...string) *exec.Cmd {
			return d.Stack.Command(ctx, "unshare", append([]string{"--mount", "--propagation", "private", "sh", "-c", journalScript, journal, name}, args...)...)
		}
	}
	if user == nil {
		return d.Stack.Command
	}
	return func(ctx context.Context, name string, args ...string) *exec.Cmd {
		return d.Stack.CommandAs(ctx, packaging.User, name, args...)
	}
}
