package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"log"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"lpad/agent/api"
	"lpad/agent/client"
	"lpad/agent/journal"
	"lpad/agent/rsp"
	"lpad/agent/rsp/rsptest/euicc"
	"lpad/agent/rsp/rsptest/pki"
	"lpad/agent/rsp/rsptest/smdp"
	"lpad/cmd/lpalab/lab"
	"lpad/modem/modemtest"
)

// Bounds of one injection.
const (
	faultProfileSize = 2500             // bytes of the profile package
	startLimit       = 10 * time.Second // from the start of the daemon to its first look at the card
	convergeLimit    = 30 * time.Second // from the end of the fault to rest
	stopLimit        = 10 * time.Second // of the daemon, after SIGTERM
	restLimit        = 5 * time.Second  // from the daemon's rest to that of the modem
	maxReorders      = 3                // times that the user orders again
	reorderPause     = 200 * time.Millisecond
	outage           = 30 * time.Millisecond
)

// touch is a way in which the daemon meets the world.
type touch int

const (
	onAPDU    touch = iota // a command APDU of the daemon, at the card
	onAT                   // an AT command line, on the wire
	onRequest              // an ES9+ request, at the server
	onAppend               // a write of the journal
	onCompact              // a step of making the journal anew: the new file made, written, renamed
	touches
)

// step is one meeting of the daemon with the world.
type step struct {
	touch touch
	n     int // of its kind, from 1
	what  string
}

// rig is a device in the lab that faults are done to: card, modem, server and
// the real daemon, with a hook at each of its ways into the world.
type rig struct {
	world   *lab.World
	at      *modemtest.Modem
	line    *line
	dir     string
	program string
	verbose bool
	store   *recordingStore
	stop    context.CancelFunc
	served  sync.WaitGroup
	tail    tail
	client  *client.Client
	disk    *disk        // of the state directory; nil: the machine's
	other   *smdp.Server // a second receiver of notifications; nil: there is none
	inotify *os.File

	mu      sync.Mutex
	proc    *process
	exits   []string
	counts  [touches]int
	armed   bool // counting since the order
	fault   *fault
	struck  bool
	strikes chan struct{} // closed when the fault has struck
	begin   time.Time
	history []string

	trace       []step   // what was met, in this order
	journalMost int64    // bytes, that the journal ever had
	connections int      // at the server, since the order
	held        int      // what is under way in the background and must end before there is rest
	parked      bool     // nobody starts the daemon: the device is off
	told        bool     // the daemon has said in its status what is wrong with its disk
	wrongs      []string // what was seen to be wrong on the way
}

// process is one life of the daemon.
type process struct {
	cmd    *exec.Cmd
	exited chan struct{}
	wanted bool // its end was asked for
}

// newRig builds everything but the daemon.
func newRig(ctx context.Context, p *pki.PKI, programs string, sc *scenario, f *fault) (_ *rig, err error) {
	r := &rig{program: filepath.Join(programs, "lpad"), fault: f, strikes: make(chan struct{}), begin: time.Now(), store: &recordingStore{made: map[int64]noteSeen{}}}
	if r.dir, err = os.MkdirTemp("", "lpad-fault-"); err != nil {
		return nil, err
	}
	var background context.Context
	background, r.stop = context.WithCancel(context.Background())
	defer func() {
		if err != nil {
			err = errors.Join(err, r.close())
		}
	}()
	if err = os.Mkdir(r.stateDir(), 0o700); err != nil {
		return nil, err
	}
	kind := sc.disk
	if f != nil && f.disk != "" {
		kind = f.disk
	}
	if kind != "" {
		if r.disk, err = mountDisk(kind, r.stateDir(), filepath.Join(r.dir, "disk")); err != nil {
			return nil, err
		}
	}
	if sc.journal > 0 {
		if err = fillJournal(r.journalPath(), sc.journal); err != nil {
			return nil, err
		}
	}
	if sc.receivers == 2 {
		if r.other, err = smdp.New(smdp.ConfigUnder(p, otherHost)); err != nil {
			return nil, err
		}
	}
	r.world, err = lab.New(lab.Options{PKI: p, ProfileSize: faultProfileSize, EmptyCard: sc.empty, Card: func(c *euicc.Config) {
		c.Store = r.store
		if sc.installed {
			c.Profiles = append(c.Profiles, factoryProfile(lab.NewOperator))
		}
		if sc.card != nil {
			sc.card(c)
		}
	}})
	if err != nil {
		return nil, err
	}
	subscriptions := []modemtest.Subscription{lab.OldOperator.Subscription()}
	if !sc.noService {
		subscriptions = append(subscriptions, lab.NewOperator.Subscription())
	}
	if r.at, err = modemtest.New(modemtest.Config{Card: &hookedCard{r.world.Card, r}, Subscriptions: subscriptions,
		Contexts: []modemtest.Context{{CID: 1, Type: "IP", APN: lab.OldOperator.APN}}, StrictAttach: true}); err != nil {
		return nil, err
	}
	socket := filepath.Join(r.dir, "modem.sock")
	if _, err = r.at.ListenUnix(socket); err != nil {
		return nil, err
	}
	r.line = &line{link: filepath.Join(r.dir, "ttyAT0"), modem: socket, pause: outage, command: func(text string) *spoil {
		if sc.refuses != "" && bytes.Contains([]byte(text), []byte(sc.refuses)) {
			return &spoil{before: func() bool { r.line.say([]byte("\r\nERROR\r\n")); return false }}
		}
		return r.met(onAT, text).command(r, text)
	}}
	if err = r.line.open(ctx); err != nil {
		return nil, err
	}
	address, err := r.serve(background)
	if err != nil {
		return nil, err
	}
	if err = r.configure(sc, f, address); err != nil {
		return nil, err
	}
	r.client = client.New(filepath.Join(r.dir, "lpad.sock"))
	if err = r.watchJournal(background); err != nil {
		return nil, err
	}
	_, err = r.at.Wait(ctx, func(s modemtest.State) bool {
		return s.Registration == modemtest.Registered || s.SIM.State == modemtest.SIMAbsent
	})
	return r, err
}

func factoryProfile(s lab.Subscriber) euicc.Profile {
	iccid, err := rsp.ParseICCID(s.ICCID)
	if err != nil {
		panic(err) // a constant of package lab
	}
	return euicc.Profile{ICCID: iccid, IMSI: s.IMSI, SPN: s.Operator, ServiceProvider: s.Operator, Name: s.Plan,
		Notifications: []rsp.NotificationConfiguration{{Events: rsp.EventInstall | rsp.EventEnable | rsp.EventDisable | rsp.EventDelete, Address: lab.Host}}}
}

// configure writes what the daemon is told.
func (r *rig) configure(sc *scenario, f *fault, address string) error {
	trust := filepath.Join(r.dir, "trust.d")
	if err := os.MkdirAll(trust, 0o755); err != nil {
		return err
	}
	ci := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: r.world.PKI.CI.Certificate.DER})
	if err := os.WriteFile(filepath.Join(trust, "ci.pem"), ci, 0o644); err != nil {
		return err
	}
	block := 0
	if f != nil {
		block = f.block
	}
	deadMan := "15s"
	if sc.deadMan != "" {
		deadMan = sc.deadMan
	}
	way := "ccho"
	if sc.csim {
		way = "csim"
	}
	yaml := fmt.Sprintf(`version: 1
state_dir: %[1]s/var
socket: %[1]s/lpad.sock
card: {backend: at, at_port: %[1]s/ttyAT0, apdu_path: %[6]s, block_size: %[2]d}
modem: {manage: none}
params: {provider_db: %[1]s/none.xml, oem_dir: %[1]s/none.d}
rsp: {trust_dir: %[1]s/trust.d, timeout: 1s, notification_retry: 1s, notification_retry_max: 1s, addresses: {%[3]s: "%[4]s", %[7]s: "%[4]s"}}
network: {backend: none, dead_man: %[5]s}
log: {level: debug}
journal: {max_bytes: %[8]d}
`, r.dir, block, lab.Host, address, deadMan, way, otherHost, sc.journalLimit())
	return os.WriteFile(filepath.Join(r.dir, "lpad.yaml"), []byte(yaml), 0o600)
}

func (r *rig) stateDir() string    { return filepath.Join(r.dir, "var") }
func (r *rig) journalPath() string { return filepath.Join(r.stateDir(), "journal") }

// serve lets the SM-DP+ answer, behind the hook for requests.
func (r *rig) serve(ctx context.Context) (string, error) {
	certificate, err := r.world.PKI.DPTLS.TLSCertificate()
	if err != nil {
		return "", err
	}
	certificates := []tls.Certificate{certificate}
	if r.other != nil {
		id, err := r.world.PKI.CI.IssueServer(pki.DPTLS, pki.ServerOptions{OID: "2.999.12", Host: otherHost})
		if err != nil {
			return "", err
		}
		if certificate, err = id.TLSCertificate(); err != nil {
			return "", err
		}
		certificates = append(certificates, certificate)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	handler := http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		r.met(onRequest, filepath.Base(req.URL.Path)+" at "+req.Host).request(r, w, req)
	})
	server := &http.Server{Handler: handler, ReadHeaderTimeout: 30 * time.Second, ErrorLog: log.New(discard{}, "", 0)}
	config := &tls.Config{Certificates: certificates, MinVersion: tls.VersionTLS12, NextProtos: []string{"http/1.1"}}
	r.served.Go(func() {
		// It ends when it is closed below.
		_ = server.Serve(tls.NewListener(&hookedListener{Listener: l, rig: r}, config))
	})
	context.AfterFunc(ctx, func() { _ = server.Close() })
	return l.Addr().String(), nil
}

// server is the one that a request is meant for.
func (r *rig) server(req *http.Request) *smdp.Server {
	if r.other != nil && strings.HasPrefix(req.Host, otherHost) {
		return r.other
	}
	return r.world.SMDP
}

type discard struct{}

func (discard) Write(b []byte) (int, error) { return len(b), nil }

// met counts a touch and gives the fault if this is its place.
func (r *rig) met(t touch, what string) *fault {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.armed {
		return nil
	}
	r.counts[t]++
	r.trace = append(r.trace, step{t, r.counts[t], what})
	if r.verbose {
		r.noteLocked(fmt.Sprintf("%s %d: %.70s", touchNames[t], r.counts[t], what))
	}
	f := r.fault
	if f == nil || f.at != t {
		return nil
	}
	if n := r.counts[t]; n == f.n || f.lasting && n >= f.n {
		if !r.struck {
			r.struck = true
			close(r.strikes)
		}
		r.noteLocked(fmt.Sprintf("FAULT at %s %d: %.70s", touchNames[t], n, what))
		return f
	}
	return nil
}

var touchNames = [touches]string{"APDU", "AT command", "ES9+ request", "journal append", "journal compaction"}

// strike notes that a fault has struck which no touch has met.
func (r *rig) strike(what string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.struck {
		r.struck = true
		close(r.strikes)
	}
	r.noteLocked("FAULT: " + what)
}

func (r *rig) note(format string, a ...any) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.noteLocked(fmt.Sprintf(format, a...))
}

func (r *rig) noteLocked(text string) {
	line := fmt.Sprintf("%8.3f %s", time.Since(r.begin).Seconds(), text)
	r.history = append(r.history, line)
	if r.verbose {
		fmt.Println(line)
	}
}

// arm begins to count, from the order on.
func (r *rig) arm() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.counts, r.connections, r.trace, r.armed = [touches]int{}, 0, nil, true
}

// disarm lifts the fault.
func (r *rig) disarm() {
	r.mu.Lock()
	r.armed = false
	r.mu.Unlock()
	r.world.Card.ClearFaults()
	r.world.SMDP.ClearFaults()
	if r.other != nil {
		r.other.ClearFaults()
	}
}

// current is the fault that is to be done, nil if there is none.
func (r *rig) current() *fault {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.fault
}

// hold counts what is under way in the background.
func (r *rig) hold(n int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.held += n
}

// wrong notes what must not be.
func (r *rig) wrong(err error) {
	r.note("WRONG: %v", err)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.wrongs = append(r.wrongs, err.Error())
}

// tell notes that the daemon has said what is wrong with its disk.
func (r *rig) tell() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.told = true
}

// off keeps the daemon from being started while do is done.
func (r *rig) off(do func() error) error {
	park := func(on bool) {
		r.mu.Lock()
		r.parked = on
		r.mu.Unlock()
	}
	park(true)
	defer park(false)
	r.kill()
	return do()
}

// start starts the daemon and returns when it has looked at its card, or has
// found that there is none.
func (r *rig) start(ctx context.Context) error {
	cmd := exec.Command(r.program, "--config", filepath.Join(r.dir, "lpad.yaml"))
	cmd.Stdout, cmd.Stderr = &r.tail, &r.tail
	cmd.Env = append(os.Environ(), "GOMAXPROCS=1")
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start lpad: %w", err)
	}
	p := &process{cmd: cmd, exited: make(chan struct{})}
	r.mu.Lock()
	r.proc = p
	r.noteLocked(fmt.Sprintf("daemon started, pid %d", cmd.Process.Pid))
	r.mu.Unlock()
	go func() {
		err := cmd.Wait()
		r.mu.Lock()
		if !p.wanted {
			r.exits = append(r.exits, fmt.Sprintf("%v: %s", err, r.tail.last(300)))
		}
		r.mu.Unlock()
		close(p.exited)
	}()
	ctx, cancel := context.WithTimeout(ctx, startLimit)
	defer cancel()
	for {
		s, err := r.client.Status(ctx)
		if err == nil && s.State != "starting" {
			return nil
		}
		select {
		case <-p.exited:
			return nil // seen by whoever looks next
		case <-ctx.Done():
			return fmt.Errorf("lpad is not ready after %v: %w", startLimit, errors.Join(err, ctx.Err()))
		case <-time.After(5 * time.Millisecond):
		}
	}
}

// kill is a crash of the daemon. It is dead when kill returns.
func (r *rig) kill() {
	r.mu.Lock()
	p := r.proc
	if p == nil {
		r.mu.Unlock()
		return
	}
	p.wanted = true
	r.mu.Unlock()
	// An error means that it is dead already.
	_ = p.cmd.Process.Kill()
	<-p.exited
	r.note("daemon killed")
}

// dead reports whether the daemon is not running.
func (r *rig) dead() bool {
	r.mu.Lock()
	p := r.proc
	r.mu.Unlock()
	if p == nil {
		return true
	}
	select {
	case <-p.exited:
		return true
	default:
		return false
	}
}

// terminate stops the daemon as systemd would and says what was wrong with it.
func (r *rig) terminate() string {
	r.mu.Lock()
	p := r.proc
	if p != nil {
		p.wanted = true
	}
	r.mu.Unlock()
	if p == nil {
		return ""
	}
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err.Error()
	}
	select {
	case <-p.exited:
	case <-time.After(stopLimit):
		_ = p.cmd.Process.Kill() // it may just have ended
		<-p.exited
		return fmt.Sprintf("lpad did not stop within %v", stopLimit)
	}
	if code := p.cmd.ProcessState.ExitCode(); code != 0 {
		return fmt.Sprintf("lpad stopped with exit status %d: %s", code, r.tail.last(300))
	}
	return ""
}

// blackout is a power cut of the whole device: daemon, modem and card.
func (r *rig) blackout() {
	r.world.Card.CutPower()
	r.kill()
	r.powerCycle()
}

// powerCycle turns the modem off and on, and the card with it. The caller may
// be in the middle of an APDU, which the modem waits for.
func (r *rig) powerCycle() {
	r.served.Go(func() {
		r.at.Reboot()
		r.note("modem and card powered up again")
	})
}

// watchJournal counts the writes of the journal.
func (r *rig) watchJournal(ctx context.Context) error {
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		return fmt.Errorf("watch the journal: %w", err)
	}
	f := os.NewFile(uintptr(fd), "inotify")
	r.inotify = f
	if err := r.watchState(); err != nil {
		return errors.Join(err, f.Close())
	}
	context.AfterFunc(ctx, func() { _ = f.Close() })
	r.served.Go(func() {
		buf := make([]byte, 64<<10)
		for {
			n, err := f.Read(buf)
			if err != nil {
				return
			}
			for b := buf[:n]; len(b) >= unix.SizeofInotifyEvent; {
				length := int(uint32(b[12]) | uint32(b[13])<<8 | uint32(b[14])<<16 | uint32(b[15])<<24)
				head := b[:unix.SizeofInotifyEvent]
				name := string(bytes.TrimRight(b[unix.SizeofInotifyEvent:unix.SizeofInotifyEvent+length], "\x00"))
				b = b[unix.SizeofInotifyEvent+length:]
				switch mask := uint32(head[4]) | uint32(head[5])<<8 | uint32(head[6])<<16 | uint32(head[7])<<24; {
				case name == "journal" && mask&unix.IN_MODIFY != 0:
					size := r.journalSize()
					r.mu.Lock()
					r.journalMost = max(r.journalMost, size)
					r.mu.Unlock()
					r.met(onAppend, "").appended(r)
				case name == "journal.new" && mask&unix.IN_MOVED_FROM == 0, name == "journal" && mask&unix.IN_MOVED_TO != 0:
					r.met(onCompact, name).appended(r)
				}
			}
		}
	})
	return nil
}

// watchState watches the state directory, which is another one after a mount.
func (r *rig) watchState() error {
	raw, err := r.inotify.SyscallConn()
	if err != nil {
		return fmt.Errorf("watch the journal: %w", err)
	}
	var werr error
	err = raw.Control(func(fd uintptr) {
		_, werr = unix.InotifyAddWatch(int(fd), r.stateDir(), unix.IN_MODIFY|unix.IN_CREATE|unix.IN_MOVED_TO)
	})
	if err = errors.Join(err, werr); err != nil {
		return fmt.Errorf("watch the journal: %w", err)
	}
	return nil
}

// limitFiles makes every file of the daemon end at n bytes: a full disk, at an
// exact place. A negative n lifts it.
func (r *rig) limitFiles(n int64) error {
	r.mu.Lock()
	p := r.proc
	r.mu.Unlock()
	limit := unix.Rlimit{Cur: unix.RLIM_INFINITY, Max: unix.RLIM_INFINITY}
	if n >= 0 {
		limit.Cur = uint64(n)
	}
	err := unix.Prlimit(p.cmd.Process.Pid, unix.RLIMIT_FSIZE, &limit, nil)
	if errors.Is(err, unix.ESRCH) {
		return nil // it is dead
	}
	return err
}

// journalSize is the length of the journal, 0 when it is missing.
func (r *rig) journalSize() int64 {
	st, err := os.Stat(r.journalPath())
	if err != nil {
		return 0
	}
	return st.Size()
}

// close ends everything.
func (r *rig) close() error {
	r.mu.Lock()
	p := r.proc
	r.mu.Unlock()
	if p != nil {
		r.kill()
	}
	r.stop()
	if r.client != nil {
		r.client.Close()
	}
	var errs []error
	if r.line != nil {
		errs = append(errs, r.line.close())
	}
	if r.at != nil {
		errs = append(errs, r.at.Close())
	}
	if r.world != nil {
		r.world.Close()
		r.world.SMDP.Close()
	}
	r.served.Wait()
	if r.other != nil {
		r.other.Close()
	}
	if r.disk != nil {
		errs = append(errs, r.disk.close())
	}
	return errors.Join(append(errs, os.RemoveAll(r.dir))...)
}

// witnesses are who is asked.
type witnesses struct {
	agent *client.Client
	world *lab.World
	other *smdp.Server // nil: there is one server
	modem *modemtest.Modem
	store *recordingStore
}

// evidence asks everybody.
func (w witnesses) evidence(ctx context.Context) (evidence, error) {
	var e evidence
	profiles, err := w.agent.Profiles(ctx)
	if err != nil {
		return e, fmt.Errorf("ask the daemon for its profiles: %w", err)
	}
	for _, p := range profiles.Profiles {
		e.AgentProfiles = append(e.AgentProfiles, profileSeen{p.ICCID, p.State == "enabled"})
	}
	status, err := w.agent.Status(ctx)
	if err != nil {
		return e, fmt.Errorf("ask the daemon how it is: %w", err)
	}
	e.AgentState = status.State
	jobs, err := w.agent.Jobs(ctx)
	if err != nil {
		return e, fmt.Errorf("ask the daemon for its jobs: %w", err)
	}
	for _, j := range jobs.Jobs {
		e.Jobs = append(e.Jobs, jobSeen{j.ID, j.State, j.Ended})
	}
	for _, p := range w.world.Card.Profiles() {
		e.CardProfiles = append(e.CardProfiles, profileSeen{p.ICCID.String(), p.Enabled})
	}
	e.CardPower, e.Channels = w.world.Card.HasPower(), w.world.Card.OpenChannels()
	m := w.modem.State()
	e.Switched, e.ModemICCID, e.Sessions, e.Registered = m.CFUN, m.SIM.ICCID, m.Sessions, m.Registration == modemtest.Registered
	for _, c := range m.Contexts {
		if c.CID == 1 {
			e.ModemAPN = c.APN
		}
	}
	e.Made = w.store.all()
	for _, n := range w.world.Card.Notifications() {
		e.Waiting = append(e.Waiting, noteSeen{Seq: n.SeqNumber, Receiver: n.Address})
	}
	received := func(s *smdp.Server, host string) {
		for _, n := range s.Notifications() {
			e.Received = append(e.Received, noteSeen{n.SeqNumber, n.Address, n.Verified && strings.EqualFold(n.Address, host)})
		}
	}
	received(w.world.SMDP, lab.Host)
	if w.other != nil {
		received(w.other, otherHost)
	}
	for _, o := range w.world.SMDP.Orders() {
		e.Orders = append(e.Orders, orderSeen{o.ICCID.String(), o.State})
	}
	return e, nil
}

// evidence asks everybody.
func (r *rig) evidence(ctx context.Context) (evidence, error) {
	e, err := witnesses{r.client, r.world, r.other, r.at, r.store}.evidence(ctx)
	r.mu.Lock()
	defer r.mu.Unlock()
	e.Exits, e.Wrong = slices.Clone(r.exits), slices.Clone(r.wrongs)
	return e, err
}

// readJournal adds to the evidence what is on disk after a stop.
func readJournal(path string, e *evidence) {
	j, err := journal.Open(path, journal.Options{})
	if err != nil {
		e.JournalError = err.Error()
		return
	}
	e.JournalError = j.Damage()
	for _, v := range j.Jobs() {
		e.JournalJobs = append(e.JournalJobs, jobSeen{v.ID, string(v.State), v.Ended()})
	}
	if err := j.Close(); err != nil && e.JournalError == "" {
		e.JournalError = err.Error()
	}
}

// hookedCard is the card with the hook for APDUs. What the modem says to the
// card on its own account, on the basic channel and to open and close logical
// channels, is not counted: the daemon can neither see nor mend what comes of it.
type hookedCard struct {
	*euicc.Card
	rig *rig
}

// Transmit implements modemtest.Card.
func (c *hookedCard) Transmit(ctx context.Context, command []byte) ([]byte, error) {
	if f := c.rig.current(); f != nil && f.watchPower {
		answer, err := c.Card.Transmit(ctx, command)
		if errors.Is(err, euicc.ErrNoPower) {
			c.rig.strike("the card has lost its power")
			c.rig.world.Card.ClearFaults()
			c.rig.powerCycle()
		}
		return answer, err
	}
	if len(command) < 4 || command[0]&0x43 == 0 {
		return c.Card.Transmit(ctx, command)
	}
	what := fmt.Sprintf("% X", command[:min(8, len(command))])
	return c.rig.met(onAPDU, what).apdu(c.rig, func() ([]byte, error) { return c.Card.Transmit(ctx, command) })
}

// hookedListener makes connections that a fault may reset.
type hookedListener struct {
	net.Listener
	rig *rig
}

// Accept implements net.Listener.
func (l *hookedListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	l.rig.mu.Lock()
	defer l.rig.mu.Unlock()
	l.rig.connections++
	f := l.rig.fault
	if f == nil || f.resetAfter == 0 || l.rig.connections != f.n {
		return c, nil
	}
	return &resettingConn{Conn: c, rig: l.rig, left: f.resetAfter}, nil
}

// resettingConn is a connection that is reset when so many bytes were sent.
type resettingConn struct {
	net.Conn
	rig  *rig
	left int
}

// Write implements net.Conn.
func (c *resettingConn) Write(b []byte) (int, error) {
	if len(b) < c.left {
		c.left -= len(b)
		return c.Conn.Write(b)
	}
	n, err := c.Conn.Write(b[:c.left-1])
	if tcp, ok := c.Conn.(*net.TCPConn); ok {
		err = errors.Join(err, tcp.SetLinger(0))
	}
	c.rig.strike("the connection is reset")
	return n, errors.Join(err, c.Conn.Close(), net.ErrClosed)
}

// recordingStore is the card's memory, which also remembers every
// notification that was ever in it.
type recordingStore struct {
	euicc.MemoryStore
	mu   sync.Mutex
	made map[int64]noteSeen
}

// Save implements euicc.Store.
func (s *recordingStore) Save(state []byte) error {
	var m struct {
		Notifications []struct {
			Seq     int64
			Address string
		}
	}
	if err := json.Unmarshal(state, &m); err != nil {
		return err
	}
	s.mu.Lock()
	for _, n := range m.Notifications {
		s.made[n.Seq] = noteSeen{Seq: n.Seq, Receiver: n.Address}
	}
	s.mu.Unlock()
	return s.MemoryStore.Save(state)
}

func (s *recordingStore) all() []noteSeen {
	s.mu.Lock()
	defer s.mu.Unlock()
	var list []noteSeen
	for _, n := range s.made {
		list = append(list, n)
	}
	slices.SortFunc(list, func(a, b noteSeen) int { return int(a.Seq - b.Seq) })
	return list
}

// tail keeps the end of the daemon's log.
type tail struct {
	mu sync.Mutex
	b  []byte
}

const maxTail = 256 << 10

// Write implements io.Writer.
func (t *tail) Write(b []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.b = append(t.b, b...)
	if len(t.b) > maxTail {
		t.b = slices.Clone(t.b[len(t.b)-maxTail/2:])
	}
	return len(b), nil
}

func (t *tail) last(n int) string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return string(t.b[max(0, len(t.b)-n):])
}

// lastJob is the newest job that the daemon knows, zero if there is none.
func (r *rig) lastJob(ctx context.Context) (api.Job, error) {
	jobs, err := r.client.Jobs(ctx)
	if err != nil || len(jobs.Jobs) == 0 {
		return api.Job{}, err
	}
	return jobs.Jobs[0], nil
}
