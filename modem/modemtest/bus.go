package modemtest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/godbus/dbus/v5"
)

const busDaemon = "bus"

// busConfig takes the path of the socket and the policy.
const busConfig = `<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN" "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig>
  <type>system</type>
  <listen>unix:path=%s</listen>
  <auth>EXTERNAL</auth>
%s
</busconfig>
`

const openPolicy = `  <policy context="default">
    <allow user="*"/>
    <allow own="*"/>
    <allow send_type="method_call"/>
    <allow send_type="signal"/>
    <allow send_requested_reply="true" send_type="method_return"/>
    <allow send_requested_reply="true" send_type="error"/>
    <allow receive_type="method_call"/>
    <allow receive_type="method_return"/>
    <allow receive_type="error"/>
    <allow receive_type="signal"/>
  </policy>`

// pollInterval is how often a daemon is asked whether it is ready.
const pollInterval = 10 * time.Millisecond

// poll calls ready until it is true, the bus or a manager has ended for good, or ctx ends.
func (s *Stack) poll(ctx context.Context, what string, ready func() (bool, error)) error {
	for {
		done, err := ready()
		if done {
			return nil
		}
		if err := s.alive(); err != nil {
			return fmt.Errorf("wait for %s: %w", what, err)
		}
		if !pause(ctx, pollInterval) {
			return fmt.Errorf("wait for %s: %w", what, errors.Join(ctx.Err(), err))
		}
	}
}

// alive is nil, or which daemon has ended for good and how, with the end of its log.
func (s *Stack) alive() error {
	s.mu.Lock()
	daemons := slices.Clone(s.daemons)
	s.mu.Unlock()
	for _, d := range daemons {
		select {
		case <-d.done:
			if d.name == busDaemon {
				return fmt.Errorf("%s ended: %s\n%s", d.name, d.how(), d.tail())
			}
		default:
		}
	}
	return s.givenUp()
}

func (s *Stack) socket() string { return filepath.Join(s.dir, "bus") }

// BusAddress is the address of the device's system bus.
func (s *Stack) BusAddress() string { return "unix:path=" + s.socket() }

// DialBus opens a connection of the caller's own to the device's system bus.
// The caller closes it.
func (s *Stack) DialBus() (*dbus.Conn, error) {
	conn, err := dbus.Connect(s.BusAddress())
	if err != nil {
		return nil, fmt.Errorf("modemtest: bus of the device: %w", err)
	}
	return conn, nil
}

func (s *Stack) startBus(ctx context.Context) error {
	policy, where := s.cfg.BusPolicy, (*holder)(nil)
	if s.cfg.Root != "" {
		distribution, err := distributionPolicy()
		if err != nil {
			return err
		}
		policy, where = policy+distribution, s.device // where users and policies are those of the device
	}
	if policy == "" {
		policy = openPolicy
	}
	conf := filepath.Join(s.dir, "bus.conf")
	if err := os.WriteFile(conf, fmt.Appendf(nil, busConfig, s.socket(), policy), 0o644); err != nil {
		return err
	}
	if _, err := s.startDaemon(busDaemon, where, "dbus-daemon", "--config-file="+conf, "--nofork", "--nopidfile"); err != nil {
		return err
	}
	// The socket's file is there a moment before anybody listens.
	err := s.poll(ctx, "the bus", func() (ready bool, err error) {
		s.bus, err = s.DialBus()
		return err == nil, err
	})
	if err != nil {
		return err
	}
	if s.cfg.Root != "" {
		return s.startPolkit(ctx)
	}
	return servePolkit(s.bus)
}

// owned reports whether somebody has the bus name.
func (s *Stack) owned(ctx context.Context, name string) (owned bool, err error) {
	err = s.bus.BusObject().CallWithContext(ctx, "org.freedesktop.DBus.NameHasOwner", 0, name).Store(&owned)
	return owned, err
}
