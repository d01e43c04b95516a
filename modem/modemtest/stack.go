package modemtest

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/godbus/dbus/v5"
)

// The modem's AT ports on the device: one for ModemManager, one for the agent.
const (
	mmPort    = "ttyUSB0"
	agentPort = "ttyUSB1"
	ttyPorts  = 2
)

// ServerAddr is an address of the operator's side that is there from the
// start. The device reaches it only through a context of the right access point.
var ServerAddr = netip.MustParseAddr("10.99.0.1")

//go:embed device.sh
var deviceScript string

//go:embed operator.sh
var operatorScript string

// StackConfig says what device to start. Modem.Card is necessary.
type StackConfig struct {
	// Modem is the AT modem; its Link is set by the stack, its LogFile to at.log in Dir.
	Modem Config
	// Dir holds sockets and logs. It must exist, and its path be short (a unix
	// socket's path has 107 characters); "" is a new temporary directory, removed by Close.
	Dir string
	// Hosts are names that resolve to [ServerAddr] on the device; see [Stack.AddHost].
	Hosts []string
	// Connections are there when NetworkManager starts.
	Connections []Connection
	// ShareAgentPort lets ModemManager take both AT ports. By default a udev rule
	// (ID_MM_PORT_IGNORE) keeps it off the agent's; with ShareAgentPort an agent
	// must use InhibitDevice before it talks AT.
	ShareAgentPort bool
	// WithoutNetworkManager starts no NetworkManager, WithoutModemManager neither of them.
	WithoutNetworkManager bool
	WithoutModemManager   bool
	// BusPolicy replaces the whole <policy> part of the bus configuration; "" lets everybody do everything.
	BusPolicy string
	// Root is a tree of what packages put on the device (etc/passwd, usr/share/dbus-1/system.d/x.conf),
	// laid over this machine's files. With it not everybody may do everything: the bus has the policies of this
	// machine and of the tree, and the real polkitd decides; see [Stack.CommandAs]. Everybody must be able to enter Dir.
	Root string
}

// Connection is a gsm connection of NetworkManager.
type Connection struct {
	ID            string
	UUID          string // "" is made from ID
	APN           string
	User          string
	Password      string
	SIMID         string // gsm.sim-id
	NoAutoconnect bool
	Priority      int // connection.autoconnect-priority
}

// Stack is a running device: modem, ModemManager, NetworkManager, their bus,
// and the operator on the other side. A manager that dies is started again, as
// systemd does it; see [Stack.Deaths].
type Stack struct {
	// Modem is the AT modem inside.
	Modem *Modem

	cfg              StackConfig
	dir              string
	ownDir           bool
	device, operator *holder
	bus              *dbus.Conn  // ours: polkit stand-in and questions to the daemons
	unplugged        atomic.Bool // the modem's ports are away

	mu          sync.Mutex // guards what follows, and the file of hosts
	hosts       map[string]netip.Addr
	daemons     []*daemon
	supervisors map[Manager]*supervisor // of the managers that are to run
	deaths      []Death
	ports       []usbPort // by their names of the moment

	closing sync.Once
	err     error // of Close
}

// startTimeout bounds StartStack when its context does not.
const startTimeout = 60 * time.Second

// StartStack starts a device and returns when ModemManager shows the modem with
// its SIM and NetworkManager knows it. It takes 2 to 4 seconds. Several may run
// at once. ctx bounds the start only; Close ends the stack.
func StartStack(ctx context.Context, cfg StackConfig) (_ *Stack, err error) {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	s := &Stack{cfg: cfg, dir: cfg.Dir, hosts: map[string]netip.Addr{}, ports: cfg.dialect().USB.ports(), supervisors: map[Manager]*supervisor{}}
	defer func() {
		if err != nil {
			if ended := ctx.Err(); ended != nil && !errors.Is(err, ended) {
				err = fmt.Errorf("%w: %w", ended, err) // a command that ctx has killed does not say so
			}
			err = errors.Join(fmt.Errorf("modemtest: start the stack: %w", err), s.Close())
		}
	}()
	for _, step := range []func(context.Context) error{
		s.makeFiles, s.makeNamespaces, s.startModem, s.startBus, s.startManagers, s.waitManagers,
	} {
		if err := step(ctx); err != nil {
			return nil, err
		}
	}
	return s, nil
}

// Close stops everything that StartStack started and waits for it. It may be
// called again, also on a stack that did not start.
func (s *Stack) Close() error {
	s.closing.Do(func() {
		var errs []error
		s.endSupervisors()
		s.mu.Lock()
		daemons := s.daemons
		s.mu.Unlock()
		for _, d := range slices.Backward(daemons) {
			if d.name == busDaemon && s.bus != nil {
				errs = append(errs, s.bus.Close())
			}
			errs = append(errs, d.stop())
		}
		if s.Modem != nil {
			errs = append(errs, s.Modem.Close())
		}
		for _, h := range []*holder{s.device, s.operator} {
			if h != nil {
				errs = append(errs, h.close())
			}
		}
		if s.ownDir {
			errs = append(errs, os.RemoveAll(s.dir))
		}
		s.err = errors.Join(errs...)
	})
	return s.err
}

// Dir is the directory with the logs: at.log, bus.log, modemmanager.log, networkmanager.log.
func (s *Stack) Dir() string { return s.dir }

// AgentPort is the path, on the device, of the AT port that is the agent's.
func (s *Stack) AgentPort() string { return "/dev/" + s.portsNow()[1].name }

// OpenAgentPort is the path of the same port for code in this process.
func (s *Stack) OpenAgentPort() string { return filepath.Join(s.dir, "dev", s.portsNow()[1].name) }

// portsNow are the device's ports by their names of the moment.
func (s *Stack) portsNow() []usbPort {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.ports)
}

// renamePort follows a port of the modem to another name.
func (s *Stack) renamePort(from, to string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	i := slices.IndexFunc(s.ports, func(p usbPort) bool { return p.name == filepath.Base(from) })
	if i < 0 {
		return nil // a port of a test's own
	}
	err := renameSysfs(filepath.Join(s.dir, "sys"), s.ports[i], filepath.Base(to))
	s.ports[i].name = filepath.Base(to)
	return err
}

// AddHost lets names resolve to addr on the device, through its /etc/hosts. Use
// [ServerAddr] for servers behind the modem.
func (s *Stack) AddHost(addr netip.Addr, names ...string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, n := range names {
		s.hosts[n] = addr
	}
	return s.writeHosts()
}

func (s *Stack) lookup(name string) (netip.Addr, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	a, found := s.hosts[strings.ToLower(name)]
	return a, found
}

// writeHosts writes the file in place: it is mounted over /etc/hosts.
func (s *Stack) writeHosts() error {
	var b strings.Builder
	b.WriteString("127.0.0.1 localhost\n")
	for n, a := range s.hosts {
		fmt.Fprintf(&b, "%s %s\n", a, n)
	}
	return os.WriteFile(filepath.Join(s.dir, "hosts"), []byte(b.String()), 0o644)
}

const maxSocketPath = 107 // sun_path of unix(7), less its zero

func (s *Stack) makeFiles(context.Context) error {
	if s.dir == "" {
		dir, err := os.MkdirTemp("", "lpalab")
		if err != nil {
			return err
		}
		s.dir, s.ownDir = dir, true
	}
	dir, err := filepath.Abs(s.dir)
	if err != nil {
		return err
	}
	s.dir = dir
	if p := s.socket(); len(p) > maxSocketPath {
		return fmt.Errorf("directory %s: the socket's path would have %d characters, more than %d", dir, len(p), maxSocketPath)
	}
	for _, d := range []string{"dev", "sys", "udev-rules", "nm/etc/system-connections", "nm/etc/conf.d", "nm/run", "nm/lib"} {
		if err := os.MkdirAll(filepath.Join(dir, d), 0o755); err != nil {
			return err
		}
	}
	if err := makeSysfs(filepath.Join(dir, "sys"), s.cfg.dialect().USB); err != nil {
		return fmt.Errorf("sysfs: %w", err)
	}
	if err := s.makeUdevRules(); err != nil {
		return fmt.Errorf("udev rules: %w", err)
	}
	if err := s.makeNetworkManagerFiles(); err != nil {
		return err
	}
	if err := s.layRoot(); err != nil {
		return err
	}
	// No name server answers: names are those of the hosts file, and others fail at once.
	if err := os.WriteFile(filepath.Join(dir, "resolv.conf"), []byte("nameserver "+ServerAddr.String()+"\noptions timeout:1 attempts:1\n"), 0o644); err != nil {
		return err
	}
	return s.AddHost(ServerAddr, s.cfg.Hosts...)
}

// makeUdevRules copies ModemManager's rules and adds ours. ModemManager's own
// rule engine reads only files with names like these.
func (s *Stack) makeUdevRules() error {
	to := filepath.Join(s.dir, "udev-rules")
	for _, pattern := range []string{"77-mm-*.rules", "78-mm-*.rules", "79-mm-*.rules", "80-mm-*.rules"} {
		files, err := filepath.Glob("/lib/udev/rules.d/" + pattern)
		if err != nil {
			return err
		}
		for _, f := range files {
			text, err := os.ReadFile(f)
			if err != nil {
				return err
			}
			if err := os.WriteFile(filepath.Join(to, filepath.Base(f)), text, 0o644); err != nil {
				return err
			}
		}
	}
	rules := slices.Clone(s.cfg.dialect().USB.Rules)
	if !s.cfg.ShareAgentPort {
		for _, name := range []string{agentPort, renumber(agentPort, ttyPorts)} { // and what it may come back as
			rules = append(rules, fmt.Sprintf(`SUBSYSTEM=="tty", KERNEL==%q, ENV{ID_MM_PORT_IGNORE}="1"`, name))
		}
	}
	if len(rules) == 0 {
		return nil
	}
	return os.WriteFile(filepath.Join(to, "78-mm-modemtest.rules"), []byte(strings.Join(rules, "\n")+"\n"), 0o644)
}

func (cfg *StackConfig) dialect() Dialect {
	if cfg.Modem.Dialect.Name == "" {
		return UBlox
	}
	return cfg.Modem.Dialect
}

func (s *Stack) makeNamespaces(ctx context.Context) (err error) {
	if s.operator, err = hold(ctx, filepath.Join(s.dir, "operator.sh"), operatorScript, "SERVER="+ServerAddr.String()); err != nil {
		return fmt.Errorf("operator: %w", err)
	}
	env := []string{"D=" + s.dir, fmt.Sprintf("OPERATOR=%d", s.operator.cmd.Process.Pid)}
	if s.device, err = hold(ctx, filepath.Join(s.dir, "device.sh"), deviceScript, env...); err != nil {
		return fmt.Errorf("device: %w", err)
	}
	return (&VethLink{s.operator}).ip(ctx, "link", "set", operatorInterface, "up")
}

func (s *Stack) startModem(context.Context) (err error) {
	cfg := s.cfg.Modem
	if cfg.Link == nil {
		cfg.Link = &VethLink{s.operator}
	}
	if cfg.LogFile == "" {
		cfg.LogFile = filepath.Join(s.dir, "at.log")
	}
	own := cfg.Replugged
	cfg.Replugged = func(present bool) {
		s.unplugged.Store(!present)
		if err := s.ReportPorts(context.Background(), present); err != nil {
			s.Modem.log.add("", Happened, "tell ModemManager of the ports: "+err.Error())
		}
		if own != nil {
			own(present)
		}
	}
	ownRenamed := cfg.Renamed
	cfg.Renamed = func(from, to string) {
		if err := s.renamePort(from, to); err != nil {
			s.Modem.log.add("", Happened, "sysfs: "+err.Error())
		}
		if ownRenamed != nil {
			ownRenamed(from, to)
		}
	}
	if s.Modem, err = New(cfg); err != nil {
		return err
	}
	s.Modem.guarded = s.cfg.Root != ""
	for _, name := range []string{mmPort, agentPort} {
		if _, err := s.Modem.OpenPTY(filepath.Join(s.dir, "dev", name)); err != nil {
			return err
		}
	}
	return nil
}
