package modemtest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"syscall"
	"time"
)

// A manager that dies is started again as systemd does it for the units of
// ModemManager and NetworkManager (Restart=on-failure, RestartSec and the start
// limit at systemd's defaults).
const (
	restartPause  = 100 * time.Millisecond
	restartLimit  = 5                // restarts …
	restartWindow = 10 * time.Second // … within this time; one more and it stays dead
	deathTail     = 2000             // bytes of its log that a death keeps
)

// Death is the end of a manager that nobody had asked for.
type Death struct {
	Manager Manager
	Time    time.Time
	How     string // "signal: aborted"
	Log     string // the last of what it logged
	Final   bool   // it died too often and is not started again
}

// String is the death with the log.
func (d Death) String() string {
	text := fmt.Sprintf("%s %s died: %s", d.Time.Format("15:04:05.000"), d.Manager, d.How)
	if d.Final {
		text += ", too often to be started again"
	}
	return text + "\n" + d.Log
}

// Deaths are the managers' unasked-for ends so far, in order. What a test does
// with [Stack.StopManager] or [Stack.RestartManager] is none.
func (s *Stack) Deaths() []Death {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.deaths)
}

// supervisor keeps one manager running.
type supervisor struct {
	manager Manager
	stop    context.CancelFunc // from now on its death is wanted
	done    chan struct{}      // closed when the supervisor has ended
	given   error              // guarded by the stack's mu: why it has given up
}

// busName is what the manager is called on the bus.
func (m Manager) busName() string {
	if m == NetworkManager {
		return nmName
	}
	return mmName
}

// StartManager starts a manager that was stopped and keeps it running. It
// returns when the manager has its name on the bus and, for ModemManager, has
// been told of the ports.
func (s *Stack) StartManager(ctx context.Context, m Manager) error {
	if err := s.launchManager(m); err != nil {
		return err
	}
	return s.greet(ctx, m)
}

// launchManager is StartManager without waiting.
func (s *Stack) launchManager(m Manager) error {
	s.mu.Lock()
	_, running := s.supervisors[m]
	s.mu.Unlock()
	if running {
		return fmt.Errorf("%s runs already", m)
	}
	d, err := s.startDaemon(string(m), s.device, managerCommands[m]...)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(context.Background())
	sup := &supervisor{manager: m, stop: cancel, done: make(chan struct{})}
	s.mu.Lock()
	s.supervisors[m] = sup
	s.mu.Unlock()
	go s.supervise(ctx, sup, d)
	return nil
}

// StopManager kills a manager as a crash would, and it stays away until
// [Stack.StartManager].
func (s *Stack) StopManager(ctx context.Context, m Manager) error {
	s.mu.Lock()
	sup := s.supervisors[m]
	delete(s.supervisors, m)
	s.mu.Unlock()
	if sup == nil {
		return fmt.Errorf("%s does not run", m)
	}
	sup.stop()
	<-sup.done
	if d := s.takeDaemon(string(m)); d != nil { // else: it had died just now
		err := d.kill(syscall.SIGKILL)
		<-d.done
		if err = errors.Join(err, d.log.Close()); err != nil {
			return fmt.Errorf("kill %s: %w", m, err)
		}
	}
	return s.poll(ctx, "the name of "+string(m)+" to be free", func() (bool, error) {
		owned, err := s.owned(ctx, m.busName())
		return err == nil && !owned, err
	})
}

// RestartManager kills a manager as a crash would, and starts it again after a
// pause; see [Stack.StopManager] and [Stack.StartManager].
func (s *Stack) RestartManager(ctx context.Context, m Manager, absent time.Duration) error {
	if err := s.StopManager(ctx, m); err != nil {
		return err
	}
	if !pause(ctx, absent) {
		return ctx.Err()
	}
	return s.StartManager(ctx, m)
}

// CrashManager has a manager abort, as by a failed assertion of its own. It is
// started again by itself.
func (s *Stack) CrashManager(m Manager) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, d := range s.daemons {
		if d.name == string(m) {
			return d.kill(syscall.SIGABRT)
		}
	}
	return fmt.Errorf("%s does not run", m)
}

// greet waits until the manager is on the bus, and tells ModemManager of the
// ports, if they are there: of others it is told when they come.
func (s *Stack) greet(ctx context.Context, m Manager) error {
	if err := s.poll(ctx, string(m), func() (bool, error) { return s.owned(ctx, m.busName()) }); err != nil {
		return err
	}
	if m == NetworkManager || s.unplugged.Load() {
		return nil
	}
	return s.ReportPorts(ctx, true)
}

// supervise starts the manager again whenever it dies, until ctx ends.
func (s *Stack) supervise(ctx context.Context, sup *supervisor, d *daemon) {
	defer close(sup.done)
	var restarts []time.Time
	for {
		select {
		case <-ctx.Done():
			return
		case <-d.done:
		}
		if ctx.Err() != nil {
			return
		}
		now := time.Now()
		restarts = slices.DeleteFunc(restarts, func(t time.Time) bool { return now.Sub(t) > restartWindow })
		death := Death{Manager: sup.manager, Time: now, How: d.how(), Log: d.tail(), Final: len(restarts) == restartLimit}
		if s.record(sup, death); death.Final {
			return
		}
		s.takeDaemon(d.name)
		// What cannot be done here shows itself in what the test waits for.
		_ = d.log.Close()
		if !pause(ctx, restartPause) {
			return
		}
		restarts = append(restarts, time.Now())
		next, err := s.startDaemon(d.name, s.device, managerCommands[sup.manager]...)
		if err != nil {
			s.record(sup, Death{Manager: sup.manager, Time: time.Now(), How: err.Error(), Final: true})
			return
		}
		d = next
		greeting, cancel := context.WithTimeout(ctx, startTimeout)
		stop := make(chan struct{})
		go func() { // one that dies before it has its name is not waited for
			select {
			case <-next.done:
				cancel()
			case <-stop:
			}
		}()
		if err := s.greet(greeting, sup.manager); err != nil && ctx.Err() == nil && s.Modem != nil {
			s.Modem.log.add("", Happened, fmt.Sprintf("%s was started again: %v", sup.manager, err))
		}
		close(stop)
		cancel()
	}
}

func (s *Stack) record(sup *supervisor, d Death) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.deaths = append(s.deaths, d)
	if d.Final {
		sup.given = errors.New(d.String())
	}
}

// givenUp is why a manager that is to run is not started again, nil if none is.
func (s *Stack) givenUp() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, sup := range s.supervisors {
		if sup.given != nil {
			return sup.given
		}
	}
	return nil
}

// endSupervisors makes sure that nothing is started any more.
func (s *Stack) endSupervisors() {
	s.mu.Lock()
	all := s.supervisors
	s.supervisors = map[Manager]*supervisor{}
	s.mu.Unlock()
	for _, sup := range all {
		sup.stop()
	}
	for _, sup := range all {
		<-sup.done
	}
}

// takeDaemon removes a daemon from the list, nil if it is not on it.
func (s *Stack) takeDaemon(name string) *daemon {
	s.mu.Lock()
	defer s.mu.Unlock()
	i := slices.IndexFunc(s.daemons, func(d *daemon) bool { return d.name == name })
	if i < 0 {
		return nil
	}
	d := s.daemons[i]
	s.daemons = slices.Delete(s.daemons, i, i+1)
	return d
}

// kill sends a signal to the daemon's group; there being none any more is no error.
func (d *daemon) kill(sig syscall.Signal) error {
	if err := syscall.Kill(-d.cmd.Process.Pid, sig); err != nil && !errors.Is(err, syscall.ESRCH) {
		return err
	}
	return nil
}

// how is the way in which a daemon ended that has.
func (d *daemon) how() string {
	if d.err == nil {
		return "exit status 0"
	}
	return d.err.Error()
}

// tail is the end of what the daemon has logged.
func (d *daemon) tail() string {
	text, err := os.ReadFile(d.log.Name())
	if err != nil {
		return err.Error()
	}
	text = text[min(d.logged, int64(len(text))):]
	return string(text[max(0, len(text)-deathTail):])
}
